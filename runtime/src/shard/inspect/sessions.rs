//! Questions about what processes have at a shard, and the wish to have an object out of memory.
//!
//! The engine's use list says how many processes an object is bound to; which objects a process is
//! bound to stands in [`Uses`], which follows it: it hears of the same bindings and their ends, and
//! has the same bound. It decides nothing.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound::{Excluded, Included};
use std::rc::Rc;

use partha_core::Input;
use partha_core::id::{Peer, Uid};

use super::actions::count;
use crate::error::SystemError;
use crate::shard::Shard;
use crate::system::BindingDescription;

/// The end of every process's range.
const LAST: Uid = Uid {
    node: partha_core::id::NodeId(u64::MAX),
    local: u64::MAX,
};

/// Which objects of a shard processes are bound to, and how often.
#[derive(Debug, Default)]
pub(in crate::shard) struct Uses {
    counts: BTreeMap<(Peer, Uid), u32>,
}

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

impl Uses {
    pub(in crate::shard) fn bind(&mut self, object: Uid, caller: Peer, uses_max: u32) {
        if let Some(count) = self.counts.get_mut(&(caller, object)) {
            *count = count.saturating_add(1);
        } else if self.counts.len() < uses_max as usize {
            self.counts.insert((caller, object), 1);
        }
    }

    pub(in crate::shard) fn unbind(&mut self, object: Uid, caller: Peer) {
        let Some(count) = self.counts.get_mut(&(caller, object)) else {
            return;
        };
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.counts.remove(&(caller, object));
        }
    }

    pub(in crate::shard) fn forget(&mut self, caller: Peer) {
        let of_caller = (Included((caller, Uid::NIL)), Included((caller, LAST)));
        let keys: Vec<_> = self.counts.range(of_caller).map(|(key, _)| *key).collect();
        for key in keys {
            self.counts.remove(&key);
        }
    }

    fn of(&self, caller: Peer, after: Uid) -> impl Iterator<Item = (Uid, u32)> + '_ {
        let range = (Excluded((caller, after)), Included((caller, LAST)));
        let found = self.counts.range(range);
        found.map(|((_, object), count)| (*object, *count))
    }
}

impl Shard {
    /// Breaks one binding of a caller.
    pub(in crate::shard) fn terminate(self: &Rc<Self>, object: Uid, caller: Peer) {
        self.uses.borrow_mut().unbind(object, caller);
        let uid = object;
        self.feed(Input::Unbind { uid, caller });
    }

    /// A caller's session is over.
    pub(in crate::shard) fn caller_gone(self: &Rc<Self>, caller: Peer) {
        self.uses.borrow_mut().forget(caller);
        self.feed(Input::PeerGone { caller });
    }

    /// What each of these processes has here, in their order.
    pub(crate) fn shares(&self, peers: &[Peer]) -> Vec<Share> {
        let mut shares: HashMap<Peer, Share> = HashMap::with_capacity(peers.len());
        let uses = self.uses.borrow();
        for peer in peers {
            let bindings = count(uses.of(*peer, Uid::NIL).count());
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
        for action in self.engine.borrow().actions() {
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
        let uses = self.uses.borrow();
        let page = uses.of(peer, after).take(limit);
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
        let mut views = engine.objects();
        let view = views.find(|view| view.uid == object)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use partha_core::id::{Incarnation, NodeId};

    fn uid(local: u64) -> Uid {
        let node = NodeId(9);
        Uid { node, local }
    }

    #[test]
    fn each_process_has_its_own_bindings() {
        let peer = |node, life| Peer {
            node: NodeId(node),
            incarnation: Incarnation(life),
        };
        let (one, other, reborn) = (peer(1, 1), peer(2, 1), peer(1, 2));
        let mut uses = Uses::default();
        for (object, caller) in [(1, one), (2, one), (2, one), (1, other), (1, reborn)] {
            uses.bind(uid(object), caller, 4);
        }
        uses.bind(uid(3), one, 4);
        let of = |uses: &Uses, peer| uses.of(peer, Uid::NIL).collect::<Vec<_>>();
        assert_eq!(of(&uses, one), [(uid(1), 1), (uid(2), 2)]);
        assert_eq!(uses.of(one, uid(1)).collect::<Vec<_>>(), [(uid(2), 2)]);
        uses.unbind(uid(2), one);
        uses.unbind(uid(1), one);
        uses.unbind(uid(1), one);
        assert_eq!(of(&uses, one), [(uid(2), 1)]);
        uses.forget(one);
        assert_eq!(of(&uses, one), []);
        assert_eq!(of(&uses, other), [(uid(1), 1)]);
        assert_eq!(of(&uses, reborn), [(uid(1), 1)]);
    }
}
