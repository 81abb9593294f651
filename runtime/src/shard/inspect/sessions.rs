//! Questions about what processes have at a shard, and the wish to have an object out of memory.

use std::collections::HashMap;
use std::rc::Rc;

use partha_core::Input;
use partha_core::id::{Peer, Uid};

use super::actions::count;
use crate::error::SystemError;
use crate::shard::Shard;
use crate::system::BindingDescription;

/// What one process has at a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) bindings: u32,
    pub(crate) calls: u32,
    pub(crate) actions_begun: u32,
    pub(crate) actions_joined: u32,
}

/// What came of an operator's wish to have an object out of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Eviction {
    /// It was in memory and is not any more.
    Done,
    /// It was not in memory.
    Passive,
    /// It is used: by what.
    Used(String),
}

impl Shard {
    /// Breaks one binding of a caller.
    pub(in crate::shard) fn terminate(self: &Rc<Self>, object: Uid, caller: Peer) {
        let uid = object;
        self.feed(Input::Unbind { uid, caller });
    }

    /// A caller's session is over.
    pub(in crate::shard) fn caller_gone(self: &Rc<Self>, caller: Peer) {
        self.feed(Input::PeerGone { caller });
        self.group_peer_gone(caller);
    }

    /// What each of these processes has here, in their order.
    pub(crate) fn shares(&self, peers: &[Peer]) -> Vec<Share> {
        let mut shares: HashMap<Peer, Share> = HashMap::with_capacity(peers.len());
        let engine = self.engine.borrow();
        for peer in peers {
            let bindings = count(engine.bound_to(*peer, Uid::NIL).count());
            let share = Share {
                bindings,
                ..Share::default()
            };
            shares.insert(*peer, share);
        }
        // The call that asks is one of the connection manager's.
        let manager = Uid::connection_manager(self.registry.me.node);
        for entry in self.entries.borrow().values() {
            if entry.object != manager
                && let Some(share) = shares.get_mut(&entry.caller)
            {
                share.calls += 1;
            }
        }
        for action in engine.actions() {
            let Some(root) = action.path.root() else {
                continue;
            };
            let runner = Peer {
                node: root.node,
                incarnation: root.incarnation(),
            };
            if let Some(share) = shares.get_mut(&runner) {
                share.actions_begun += 1;
            }
            for caller in action.callers.iter().filter(|caller| **caller != runner) {
                if let Some(share) = shares.get_mut(caller) {
                    share.actions_joined += 1;
                }
            }
        }
        let share = |peer| shares.get(peer).copied().unwrap_or_default();
        peers.iter().map(share).collect()
    }

    /// The first objects after this one that a process is bound to, in order.
    ///
    /// # Errors
    /// `Store` if the class of one that is not in memory cannot be read.
    pub(crate) fn bindings_after(
        &self,
        peer: Peer,
        after: Uid,
        limit: usize,
    ) -> Result<Vec<BindingDescription>, SystemError> {
        let engine = self.engine.borrow();
        let page = engine.bound_to(peer, after).take(limit);
        let describe = |(object, count)| {
            Ok(BindingDescription {
                object,
                class: self.class_of(object)?.map_or(0, |id| id.0),
                count,
                shard: self.handle.index(),
            })
        };
        page.map(describe).collect()
    }

    /// Takes an object out of memory, unless something uses it.
    pub(crate) fn evict(self: &Rc<Self>, object: Uid) -> Eviction {
        if !self.catalog.borrow().is_active(object) {
            return match self.used_by(object) {
                Some(reason) => Eviction::Used(reason),
                None => Eviction::Passive,
            };
        }
        self.feed(Input::Evict { uid: object });
        if !self.catalog.borrow().is_active(object) {
            return Eviction::Done;
        }
        let reason = self.used_by(object);
        Eviction::Used(reason.unwrap_or_else(|| "its state is being written".to_owned()))
    }

    /// What uses an object; none if nothing is known to.
    fn used_by(&self, object: Uid) -> Option<String> {
        let engine = self.engine.borrow();
        let view = engine.object(object)?;
        if view.volatile {
            return Some("it is transient: it lives in memory only".to_owned());
        }
        if view.running > 0 || view.waiting > 0 {
            let (running, waiting) = (view.running, view.waiting);
            return Some(format!("{running} calls of it run and {waiting} wait"));
        }
        let (owner, prepared) = engine.lock_owner(object)?;
        Some(match prepared {
            true => format!("action {owner}, which is in doubt, has it locked"),
            false => format!("action {owner} has it locked"),
        })
    }
}
