//! Calls that every copy executes: objects with the policy active.
//!
//! Who leads executes a call first, and chooses its time and its chance (`crate::chosen`). The
//! entry of the log is what came of it, as with other policies; but the other copies are not told
//! that: they are told the call, in the order of the log, and execute it themselves, each on its
//! own state. What comes of it there is what they stage, install, and would lead from. Both are
//! the same if the method decides by its object, its parameters and its context alone, and the
//! digest of the leader's entry, which comes with the call, shows whether they are: a copy that
//! finds something else says so, with the method and the call, and takes no part in the entry until
//! it is told what the leader has found.
//!
//! Only such calls can be executed again: those of a servant that has waited for nothing and has
//! had to do with nobody else ([`crate::context::Context::has_looked_out`]). Of others the copies
//! are told what came of them; so is a copy that is told of an entry again, and one that takes in
//! a whole log.

use std::rc::Rc;

use bytes::Bytes;
use partha_core::Mode;
use partha_core::group::{Digest, Message as News, Stamp};
use partha_core::id::{CallId, ClassId, Epoch, NodeId, Peer, Uid};
use partha_store::{Batch, Item, Record, entry};
use partha_wire::Message;
use sha2::{Digest as _, Sha256};

use super::checkpoint::{framed, read};
use super::entries::Of;
use super::{Group, Groups};
use crate::abi::{End, Finished, Method};
use crate::config::REPLY_RETENTION;
use crate::error::{ErrorKind, Result, SystemError};
use crate::rows::{self, Changes};
use crate::services::binder::GroupPolicy;
use crate::shard::catalog::{self, State};
use crate::shard::moving::cargo::{call_name, read_call};
use crate::shard::serve::Replay;
use crate::shard::{Shard, saved};
use crate::system::ExecutedCall;
use crate::timestamp::Timestamp;

/// A call that is executed here first.
#[derive(Debug)]
pub(in crate::shard) struct Executed {
    pub(in crate::shard) now: Timestamp,
    pub(in crate::shard) seed: u64,
    interface: ClassId,
    ordinal: u16,
    caller: Peer,
    call: Option<CallId>,
    parameters: Bytes,
}

/// The state that a copy has come to by executing.
pub(super) struct Reached {
    at: Stamp,
    state: State,
}

/// What a copy comes to that is not what the leader has come to.
struct Other {
    error: SystemError,
    /// Of that; where it is no entry, of the reason. None if the call could not be executed here,
    /// as where the node has another version of the class: that says nothing of who is wrong.
    digest: Option<Digest>,
}

impl From<SystemError> for Other {
    fn from(error: SystemError) -> Self {
        let digest = None;
        Self { error, digest }
    }
}

impl Other {
    /// The method ends in a way that leaves no entry.
    fn without_entry(error: SystemError) -> Self {
        let digest = Some(Sha256::digest(error.to_string()).into());
        Self { error, digest }
    }
}

/// Whether bytes are those of an entry, and not of a call to be executed: a framed message of one
/// segment begins with a zero, and an entry with the number of its format.
pub(super) fn is_entry(body: &Bytes) -> bool {
    body.first() != Some(&0)
}

impl Shard {
    /// What is to be remembered of a call that is about to be executed, if the other copies of its
    /// object are to execute it, too.
    pub(in crate::shard) fn to_be_executed(
        &self,
        uid: Uid,
        method: &Method,
        (caller, call): (Peer, Option<CallId>),
        parameters: &Message,
    ) -> Option<Box<Executed>> {
        if !self.has_groups.get() || method.mode != Mode::Write {
            return None;
        }
        let groups = self.groups.borrow();
        let group = groups.by_object.get(&uid)?;
        if group.policy != Some(GroupPolicy::Active) || !parameters.attached().is_empty() {
            return None;
        }
        let chosen = crate::chosen::Chosen::default();
        Some(Box::new(Executed {
            now: chosen.now(),
            seed: chosen.random(),
            interface: method.interface,
            ordinal: method.ordinal,
            caller,
            call,
            parameters: parameters.detached_segment().ok()?.into(),
        }))
    }

    /// An entry is in the log of an object that is led here: how the other copies are told of it.
    pub(super) fn note_execution(&self, uid: Uid, stamp: Stamp, of: Of) {
        let Of::Call(ticket) = of else { return };
        let executed = {
            let mut entries = self.entries.borrow_mut();
            entries.find_mut(ticket).and_then(|it| it.executed.take())
        };
        let Some(executed) = executed else { return };
        let mut groups = self.groups.borrow_mut();
        let Some(group) = groups.by_object.get_mut(&uid) else {
            return;
        };
        let Some(body) = group.bodies.get(&stamp) else {
            return;
        };
        match told(*executed, body.clone()) {
            Ok(told) => drop(group.executions.insert(stamp, told)),
            // They are told what came of it.
            Err(error) => tracing::debug!(%uid, %error, "a call is not executed by all copies"),
        }
    }

    /// A copy is told of an entry: its bytes, as this one has them. None if it cannot have them
    /// from what was said: it is said again.
    pub(super) fn taken(
        self: &Rc<Self>,
        uid: Uid,
        (previous, stamp): (Stamp, Stamp),
        body: Bytes,
    ) -> Option<Bytes> {
        if is_entry(&body) {
            return Some(body);
        }
        let told = match read::<ExecutedCall>(body) {
            Ok(told) => told,
            Err(error) => {
                tracing::warn!(%uid, %error, "a call to be executed cannot be read");
                return None;
            }
        };
        match self.execute_too(uid, (previous, stamp), &told) {
            Ok(body) => body,
            Err(Other { error, digest }) => {
                let call = told.call.as_ref().and_then(|name| read_call(name).ok());
                let (index, ordinal) = (stamp.index, told.ordinal);
                let interface = ClassId(told.interface);
                tracing::error!(
                    %uid, index, %interface, ordinal, call = ?call, %error,
                    "a call of an object with the policy active comes to something else here"
                );
                let mut groups = self.groups.borrow_mut();
                if let Some(group) = groups.by_object.get_mut(&uid) {
                    group.reached = None;
                    group.executed += 1;
                    group.differences += 1;
                    if let Some(digest) = digest {
                        group.is_doubtful = true;
                        let (view, at) = (group.member.view(), stamp);
                        let (leader, number) = (view.leader(), view.number);
                        drop(groups);
                        let differs = News::Differs { number, at, digest };
                        self.post_news(leader, uid, differs, Vec::new(), None);
                    }
                }
                None
            }
        }
    }

    /// None if the state that it is to be executed on is not known just now.
    fn execute_too(
        self: &Rc<Self>,
        uid: Uid,
        (previous, stamp): (Stamp, Stamp),
        told: &ExecutedCall,
    ) -> Result<Option<Bytes>, Other> {
        let (class, reached, overlay) = {
            let mut groups = self.groups.borrow_mut();
            let group = groups.by_object.get_mut(&uid);
            let group = group.ok_or_else(|| internal("the copy is gone"))?;
            let reached = group.reached.take().filter(|it| it.at == previous);
            (group.class, reached, self.overlay(uid, group)?)
        };
        let Some(overlay) = overlay else {
            return Ok(None);
        };
        let class = self.registry.classes.get(&class);
        let class = class.ok_or_else(|| internal("this node does not run the class"))?;
        let state = match reached {
            Some(reached) => reached.state,
            None => {
                let before = self.state_before(uid, &overlay)?;
                catalog::decode(class, &before)
                    .map_err(SystemError::from)?
                    .into()
            }
        };
        let interface = ClassId(told.interface);
        let method = class.info().method(interface, told.ordinal);
        let index = method.ok_or_else(|| internal("the class has no such method here"))?;
        let method = &class.info().methods[index];
        let call = told.call.as_ref().map(read_call).transpose();
        let call = call.map_err(internal)?;
        let replay = Replay {
            object: uid,
            class,
            method: index,
            caller: (&told.caller).into(),
            call,
            now: told.now,
            seed: told.seed,
            rows: overlay.rows,
        };
        let parameters = Message::from_segment(told.parameters.clone(), Vec::new());
        let parameters = parameters.map_err(SystemError::from)?;
        let finished = self.replay(replay, state, parameters)?;
        let info = class.info();
        let kind = (info.id, info.schema);
        let came = outcome(uid, kind, (method, call), told, finished);
        let (own, state) = came.map_err(Other::without_entry)?;
        let digest = Sha256::digest(entry::encode(&Batch::new(own.clone())));
        if digest[..] != told.digest[..] {
            return Err(Other {
                error: internal("the state, the rows or the answer differ"),
                digest: Some(digest.into()),
            });
        }
        let besides = entry::decode(told.besides.clone()).map_err(unreadable)?;
        let mut batch = Batch::new(own);
        batch.items.extend(besides.items);
        if let Some(group) = self.groups.borrow_mut().by_object.get_mut(&uid) {
            group.reached = Some(Reached { at: stamp, state });
            group.executed += 1;
        }
        Ok(Some(entry::encode(&batch)))
    }

    /// What entries have changed that the store may not show yet; none if that is not known just
    /// now.
    fn overlay(&self, uid: Uid, group: &Group) -> Result<Option<Overlay>> {
        let mut overlay = Overlay::default();
        let log = group.member.log();
        for (stamp, body) in &group.bodies {
            if !log.has(*stamp) && stamp.index > log.installed().index {
                continue;
            }
            let batch = entry::decode(body.clone()).map_err(unreadable)?;
            for item in batch.items {
                let known = overlay.take(item, &|| {
                    let store = self.registry.store.as_ref();
                    store.and_then(|store| store.read_part(uid).ok().flatten())
                })?;
                if !known {
                    return Ok(None);
                }
            }
        }
        Ok(Some(overlay))
    }

    fn state_before(&self, uid: Uid, overlay: &Overlay) -> Result<Bytes> {
        if let Some(state) = &overlay.state {
            return Ok(state.clone());
        }
        let store = self.registry.store.as_ref();
        let record = store.map(|store| store.read_state(uid)).transpose();
        let record = record.map_err(unreadable)?.flatten();
        record
            .map(|record| record.state)
            .ok_or_else(|| internal("the copy has no state"))
    }
}

impl Groups {
    /// What a copy is told of an entry: once the call, then what came of it.
    pub(super) fn told_of(&mut self, uid: Uid, to: NodeId, stamp: Stamp) -> Option<Bytes> {
        let group = self.by_object.get_mut(&uid)?;
        if let Some(call) = group.executions.get(&stamp)
            && group.told_once.insert((stamp, to))
        {
            return Some(call.clone());
        }
        group.bodies.get(&stamp).cloned()
    }
}

impl Group {
    /// Entries up to this one are told to nobody any more.
    pub(super) fn forget_executions(&mut self, index: u64) {
        self.executions.retain(|stamp, _| stamp.index > index);
        self.told_once.retain(|(stamp, _)| stamp.index > index);
    }
}

/// What entries have changed, together.
#[derive(Default)]
struct Overlay {
    /// The last state that one of them says.
    state: Option<Bytes>,
    rows: Changes,
    /// The changes of an action that is not over.
    part: Option<(Uid, Bytes)>,
}

impl Overlay {
    /// Whether it is known what comes of the item.
    fn take(
        &mut self,
        item: Item,
        stored: &dyn Fn() -> Option<partha_store::Part>,
    ) -> Result<bool> {
        match item {
            Item::WriteState { record, .. } => self.state = Some(record.state),
            Item::PutRow {
                part, key, value, ..
            } => drop(self.rows.insert((part, key), Some(value))),
            Item::RemoveRow { part, key, .. } => drop(self.rows.insert((part, key), None)),
            Item::PreparePart { action, body, .. } => self.part = Some((action, body)),
            Item::EndPart {
                action,
                commit: true,
                ..
            } => {
                let known = self.part.take().filter(|(of, _)| *of == action);
                let stored = || stored().filter(|part| part.action == action);
                let body = known.map(|(_, body)| body);
                let body = body.or_else(|| stored().map(|part| part.body));
                // The store has installed this end though nobody has said so here yet, or the
                // action had ended before: it is not known which.
                let Some(body) = body else {
                    return Ok(false);
                };
                for item in entry::decode(body).map_err(unreadable)?.items {
                    if !self.take(item, &|| None)? {
                        return Ok(false);
                    }
                }
            }
            _ => {}
        }
        Ok(true)
    }
}

/// The call, as other copies are told of it, of an entry.
fn told(executed: Executed, body: Bytes) -> Result<Bytes> {
    let batch = entry::decode(body).map_err(unreadable)?;
    let own = |item: &Item| {
        matches!(
            item,
            Item::WriteState { .. }
                | Item::PutRow { .. }
                | Item::RemoveRow { .. }
                | Item::SaveReply { .. }
        )
    };
    let (own, besides): (Vec<Item>, Vec<Item>) = batch.items.into_iter().partition(own);
    let Some(Item::WriteState { record, .. }) = own.first() else {
        return Err(internal("it has left no state"));
    };
    let (version, epoch) = (record.version, record.epoch.0);
    framed(&ExecutedCall {
        interface: executed.interface.0,
        ordinal: executed.ordinal,
        caller: executed.caller.into(),
        call: executed.call.map(call_name),
        now: executed.now,
        seed: executed.seed,
        version,
        epoch,
        digest: Sha256::digest(entry::encode(&Batch::new(own)))
            .to_vec()
            .into(),
        parameters: executed.parameters,
        besides: entry::encode(&Batch::new(besides)),
    })
}

/// What a call that was executed here comes to: what its entry says, and the state.
fn outcome(
    uid: Uid,
    (class, schema): (ClassId, u64),
    (method, call): (&Method, Option<CallId>),
    told: &ExecutedCall,
    finished: Finished,
) -> Result<(Vec<Item>, State)> {
    let Finished {
        state,
        end,
        changes,
        alone,
    } = finished;
    let answer = match end {
        End::Returned(answer) if alone => answer,
        End::Returned(_) => return Err(internal("the method has to do with others here")),
        End::Raised(_) => return Err(internal("the method raises an error here")),
        End::Failed(error) => return Err(error),
    };
    let state = state.ok_or_else(|| internal("the method has left no state"))?;
    let mut own = vec![Item::WriteState {
        uid,
        record: Record {
            class,
            schema,
            version: told.version,
            epoch: Epoch(told.epoch),
            state: catalog::encode(&*state)?,
        },
    }];
    own.extend(rows::items(uid, changes));
    if let Some(call) = call.filter(|_| !method.idempotent) {
        own.push(Item::SaveReply {
            call,
            uid,
            body: saved::encode(method, &answer.to_framed()?),
            keep_ms: REPLY_RETENTION.as_millis() as u64,
        });
    }
    Ok((own, state))
}

fn internal(what: &str) -> SystemError {
    SystemError::new(ErrorKind::Internal, what)
}

fn unreadable(error: partha_store::StoreError) -> SystemError {
    SystemError::new(ErrorKind::Store, error.to_string())
}

#[cfg(test)]
mod tests {
    use partha_core::action::path::{Coordinator, Site};
    use partha_core::id::Incarnation;

    use super::*;

    fn uid(counter: u64) -> Uid {
        Uid::new(NodeId(1), Incarnation(1), counter)
    }

    fn state(text: &'static str) -> Item {
        let record = Record {
            class: ClassId(1),
            schema: 1,
            version: 1,
            epoch: Epoch(1),
            state: Bytes::from_static(text.as_bytes()),
        };
        Item::WriteState {
            uid: uid(1),
            record,
        }
    }

    fn prepared(text: &'static str) -> Item {
        Item::PreparePart {
            uid: uid(1),
            action: uid(2),
            coordinator: Coordinator::from(Site::default()),
            body: entry::encode(&Batch::new(vec![state(text)])),
        }
    }

    fn ended() -> Item {
        Item::EndPart {
            uid: uid(1),
            action: uid(2),
            commit: true,
        }
    }

    #[test]
    fn entries_that_are_not_installed_say_the_state_if_they_can() {
        let cases = [
            (vec![state("x"), state("y")], Some("y")),
            (vec![state("x"), prepared("y"), ended()], Some("y")),
            (vec![prepared("y"), state("x"), ended()], Some("y")),
            // The store is ahead of what is known of it, or the action has ended before.
            (vec![state("x"), ended()], None),
            (vec![prepared("y"), ended(), state("x"), ended()], None),
        ];
        for (items, expected) in cases {
            let mut overlay = Overlay::default();
            let taken = items.into_iter().map(|it| overlay.take(it, &|| None));
            let known = taken.collect::<Result<Vec<_>>>().unwrap();
            let known = known.into_iter().all(|it| it);
            let found = overlay.state.filter(|_| known);
            assert_eq!(found.as_deref(), expected.map(str::as_bytes));
        }
    }
}
