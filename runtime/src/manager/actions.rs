//! What a node says of its actions and locks, put together from what its shards say.
//!
//! Each shard is asked on its own thread, one after the other, so what is said of one shard is
//! of one moment; what is said of several is not.

use std::time::Instant;

use partha_core::action::message::Verdict;
use partha_core::action::path::Site;
use partha_core::id::Uid;

use super::{Manager, stopping};
use crate::context::Context;
use crate::error::{ErrorKind, Result, SystemError};
use crate::net::actions::ask;
use crate::shard::{Abortion, Trace};
use crate::system::connection_manager::AbortActionError;
use crate::system::{
    ActionDescription, ActionOutcome, LockDescription, NoSuchAction, NotAbortable,
};

/// Actions or locks listed at a time, at most.
const PAGE_MAX: u32 = 1000;

impl Manager {
    /// A page of actions, each with all its parts.
    pub(super) async fn actions_after(
        &self,
        after: Uid,
        limit: u32,
    ) -> Result<Vec<ActionDescription>> {
        let limit = limit.min(PAGE_MAX) as usize;
        let mut parts = Vec::new();
        for shard in &self.home.shards {
            let found = shard.look(move |shard| shard.actions_after(after, limit));
            parts.extend(found.await.ok_or_else(stopping)?);
        }
        parts.sort_by_key(|part| (root(part), part.shard));
        let mut roots: Vec<_> = parts.iter().map(root).collect();
        roots.dedup();
        if let Some(beyond) = roots.get(limit) {
            parts.retain(|part| root(part) < *beyond);
        }
        Ok(parts)
    }

    /// A page of locks.
    pub(super) async fn locks_after(
        &self,
        after: Uid,
        limit: u32,
        contended: bool,
    ) -> Result<Vec<LockDescription>> {
        let limit = limit.min(PAGE_MAX) as usize;
        let mut locks = Vec::new();
        for shard in &self.home.shards {
            let found = shard.look(move |shard| shard.locks_after(after, limit, contended));
            locks.extend(found.await.ok_or_else(stopping)?);
        }
        locks.sort_by_key(|lock| lock.object);
        locks.truncate(limit);
        Ok(locks)
    }

    /// Who has an object locked and who waits for it.
    pub(super) async fn locks_of(&self, object: Uid) -> Result<LockDescription> {
        let shard = self.home.shard(object);
        let found = shard.look(move |shard| shard.locks_of(object));
        found.await.ok_or_else(stopping)
    }

    /// What this node knows of the end of an action.
    ///
    /// A shard that has a part of it is asked before the store: an action that ends in between
    /// has left a record there.
    pub(super) async fn outcome_of(
        &self,
        cx: &Context,
        action: Uid,
        last: bool,
    ) -> Result<ActionOutcome> {
        let mut traces = Vec::new();
        for shard in &self.home.shards {
            let found = shard.look(move |shard| shard.trace(action));
            traces.push(found.await.ok_or_else(stopping)?);
        }
        let mut best = traces.into_iter().max_by_key(|trace| weight(*trace));
        if best.is_none_or(|trace| matches!(trace, Trace::None)) {
            for shard in &self.home.shards {
                let found = shard.look(move |shard| shard.is_decided_by_copies(action));
                if found.await.ok_or_else(stopping)? {
                    best = Some(Trace::Committed);
                }
            }
        }
        match best.unwrap_or(Trace::None) {
            Trace::Committed => Ok(ActionOutcome::Committed),
            Trace::Aborted => Ok(ActionOutcome::Aborted),
            Trace::InFlight => Ok(ActionOutcome::InFlight),
            Trace::None if last => self.forbid(cx, action).await,
            Trace::None => self.recorded(action),
        }
    }

    /// What the store knows.
    fn recorded(&self, action: Uid) -> Result<ActionOutcome> {
        let Some(store) = &self.home.registry.store else {
            return Ok(ActionOutcome::Unknown);
        };
        let found = store.read_decision(action);
        let found = found.map_err(|e| SystemError::new(ErrorKind::Store, e.to_string()))?;
        Ok(match found {
            Some(_) => ActionOutcome::Committed,
            None => ActionOutcome::Unknown,
        })
    }

    /// Asks each shard as if it were the coordinator: it looks for a record, and if it has none,
    /// it remembers that the action is aborted.
    async fn forbid(&self, cx: &Context, action: Uid) -> Result<ActionOutcome> {
        let deadline = Instant::now() + cx.time_left();
        let mut outcome = ActionOutcome::Aborted;
        for shard in &self.home.shards {
            let site = Site {
                node: self.home.me.node,
                shard: shard.index(),
            };
            match ask(cx.client(), site.into(), action, deadline).await? {
                Some(Verdict::Committed) => return Ok(ActionOutcome::Committed),
                Some(Verdict::Aborted) => {}
                Some(Verdict::InFlight) => outcome = ActionOutcome::InFlight,
                None => outcome = ActionOutcome::Unknown,
            }
        }
        Ok(outcome)
    }

    /// Aborts an action at all shards of this node.
    pub(super) async fn abort_everywhere(&self, action: Uid) -> Result<u32, AbortActionError> {
        let (mut aborted, mut refused) = (0, None);
        for shard in &self.home.shards {
            let done = shard.look(move |shard| shard.abort_action(action));
            match done.await.ok_or_else(stopping)? {
                Abortion::Unknown => {}
                Abortion::Done => aborted += 1,
                Abortion::Refused(reason) => refused = Some(reason),
            }
        }
        if let Some(reason) = refused {
            return Err(NotAbortable { action, reason }.into());
        }
        if aborted == 0 {
            let node = self.home.me.node.0;
            return Err(NoSuchAction { action, node }.into());
        }
        Ok(aborted)
    }
}

/// The top-level action that a part is of.
fn root(part: &ActionDescription) -> Uid {
    let enclosing = usize::from(part.path.enclosing);
    part.path
        .actions
        .get(enclosing)
        .copied()
        .unwrap_or(Uid::NIL)
}

/// Of what several shards say, the surest counts.
fn weight(trace: Trace) -> u8 {
    match trace {
        Trace::None => 0,
        Trace::InFlight => 1,
        Trace::Aborted => 2,
        Trace::Committed => 3,
    }
}
