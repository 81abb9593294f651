//! Who is bound to which object (the use lists of the group view database, one node's part).
//!
//! A binding is made by `initiate` and ended by `terminate` or by the end of its caller; it is
//! counted, since one caller may bind itself several times. Counters are tied to a caller's
//! incarnation, so that what a dead one left is found and removed at once.
//!
//! | (object, caller) | `bind` | `unbind` | `forget` caller |
//! |---|---|---|---|
//! | absent | count 1; refused over the bound | no effect | no effect |
//! | count 1 | count 2 | absent | absent |
//! | count n | n + 1 | n - 1 | absent |
//!
//! A binding keeps its object in memory longer, nothing else: an object that leaves memory all
//! the same is loaded again by the next call. It does not own the object, nor know whether it is
//! in memory.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

use crate::id::{Peer, Uid};

/// What a change meant for the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was bound to nobody and now is to somebody.
    First,
    /// It was bound to somebody and now is to nobody.
    Last,
    /// Neither.
    None,
    /// The bound is reached; nothing changed.
    Full,
}

/// The use lists of all objects of a shard.
#[derive(Debug, Default)]
pub struct UseList {
    counts: BTreeMap<(Peer, Uid), u32>,
    callers: BTreeMap<Uid, u32>,
}

impl UseList {
    /// Notes a binding, if fewer than `uses_max` pairs are known.
    pub fn bind(&mut self, uid: Uid, caller: Peer, uses_max: u32) -> Change {
        if let Some(count) = self.counts.get_mut(&(caller, uid)) {
            *count = count.saturating_add(1);
            return Change::None;
        }
        if self.counts.len() >= uses_max as usize {
            return Change::Full;
        }
        self.counts.insert((caller, uid), 1);
        let callers = self.callers.entry(uid).or_insert(0);
        *callers += 1;
        if *callers == 1 {
            Change::First
        } else {
            Change::None
        }
    }

    /// Ends one binding.
    pub fn unbind(&mut self, uid: Uid, caller: Peer) -> Change {
        let Some(count) = self.counts.get_mut(&(caller, uid)) else {
            return Change::None;
        };
        assert!(*count > 0, "a binding counted zero times is in the list");
        *count -= 1;
        if *count > 0 {
            return Change::None;
        }
        self.counts.remove(&(caller, uid));
        self.leave(uid)
    }

    /// Ends one object's bindings of `caller`, all at once, and says which object it was; to be
    /// repeated until it answers `None`.
    pub fn forget_next(&mut self, caller: Peer) -> Option<(Uid, Change)> {
        let (&(peer, uid), _) = self.counts.range((caller, Uid::NIL)..).next()?;
        if peer != caller {
            return None;
        }
        self.counts.remove(&(caller, uid));
        Some((uid, self.leave(uid)))
    }

    fn leave(&mut self, uid: Uid) -> Change {
        let callers = self
            .callers
            .get_mut(&uid)
            .expect("a bound object counts its callers");
        *callers -= 1;
        if *callers > 0 {
            return Change::None;
        }
        self.callers.remove(&uid);
        Change::Last
    }

    /// How many callers are bound to an object.
    #[must_use]
    pub fn callers(&self, uid: Uid) -> u32 {
        self.callers.get(&uid).copied().unwrap_or(0)
    }

    /// The objects after this one that a caller is bound to, in order, and how often.
    pub fn of(&self, caller: Peer, after: Uid) -> impl Iterator<Item = (Uid, u32)> + '_ {
        let behind = self.counts.range((Excluded((caller, after)), Unbounded));
        let of_caller = behind.take_while(move |((peer, _), _)| *peer == caller);
        of_caller.map(|((_, uid), count)| (*uid, *count))
    }

    /// How many (object, caller) pairs are noted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    /// Whether nobody is bound to anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Panics if the two tables disagree.
    pub fn check(&self) {
        let mut callers = BTreeMap::new();
        for ((peer, uid), count) in &self.counts {
            assert!(*count > 0, "{peer} is noted at {uid} without a binding");
            *callers.entry(*uid).or_insert(0) += 1;
        }
        assert!(callers == self.callers, "use lists are miscounted");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Incarnation, NodeId};

    fn uid(n: u64) -> Uid {
        Uid {
            node: NodeId(1),
            local: n,
        }
    }

    fn peer(n: u64) -> Peer {
        Peer {
            node: NodeId(n),
            incarnation: Incarnation(1),
        }
    }

    #[test]
    fn every_row_of_the_table() {
        let mut list = UseList::default();
        assert_eq!(list.unbind(uid(1), peer(1)), Change::None);
        assert_eq!(list.forget_next(peer(1)), None);
        assert_eq!(list.bind(uid(1), peer(1), 3), Change::First);
        assert_eq!(list.bind(uid(1), peer(1), 3), Change::None);
        assert_eq!(list.bind(uid(1), peer(2), 3), Change::None);
        assert_eq!(list.callers(uid(1)), 2);
        assert_eq!(list.unbind(uid(1), peer(1)), Change::None);
        assert_eq!(list.callers(uid(1)), 2);
        assert_eq!(list.unbind(uid(1), peer(1)), Change::None);
        assert_eq!(list.callers(uid(1)), 1);
        assert_eq!(list.bind(uid(2), peer(2), 3), Change::First);
        assert_eq!(list.bind(uid(3), peer(2), 3), Change::First);
        assert_eq!(list.bind(uid(4), peer(2), 3), Change::Full);
        list.check();
        let of = |list: &UseList, caller, after| list.of(caller, after).collect::<Vec<_>>();
        let all = [(uid(1), 1), (uid(2), 1), (uid(3), 1)];
        assert_eq!(of(&list, peer(2), Uid::NIL), all);
        assert_eq!(of(&list, peer(2), uid(1)), all[1..]);
        assert_eq!(of(&list, peer(2), uid(3)), []);
        assert_eq!(of(&list, peer(1), Uid::NIL), []);
        assert_eq!(list.forget_next(peer(2)), Some((uid(1), Change::Last)));
        assert_eq!(list.forget_next(peer(2)), Some((uid(2), Change::Last)));
        assert_eq!(list.forget_next(peer(2)), Some((uid(3), Change::Last)));
        assert_eq!(list.forget_next(peer(2)), None);
        list.check();
        assert!(list.is_empty());
    }

    #[test]
    fn another_life_of_a_caller_is_another_caller() {
        let mut list = UseList::default();
        let reborn = Peer {
            node: NodeId(1),
            incarnation: Incarnation(2),
        };
        list.bind(uid(1), peer(1), 9);
        list.bind(uid(1), reborn, 9);
        list.bind(uid(1), reborn, 9);
        let of = |caller| list.of(caller, Uid::NIL).collect::<Vec<_>>();
        assert_eq!(of(peer(1)), [(uid(1), 1)]);
        assert_eq!(of(reborn), [(uid(1), 2)]);
        assert_eq!(list.forget_next(peer(1)), Some((uid(1), Change::None)));
        assert_eq!(list.forget_next(peer(1)), None);
        assert_eq!(list.callers(uid(1)), 1);
    }
}
