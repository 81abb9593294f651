//! Who has calls at a shard, and which.

use std::collections::BTreeMap;

use super::Call;
use crate::id::Peer;
use crate::limits::Limits;
use crate::list::List;
use crate::slab::{Slab, Slot};

/// Whoever has tickets here, and the one whose came last: it is likely to be the next, too, and
/// found without a search. That one may have none left.
#[derive(Debug)]
pub(super) struct Callers {
    slots: BTreeMap<Peer, Slot>,
    pub(super) entries: Slab<Caller>,
    latest: Slot,
}

#[derive(Debug)]
pub(super) struct Caller {
    peer: Peer,
    pub(super) calls: List,
}

impl Callers {
    pub(super) fn new() -> Self {
        Self {
            slots: BTreeMap::new(),
            entries: Slab::new(),
            latest: Slot::NONE,
        }
    }

    #[inline]
    fn find(&self, peer: Peer) -> Option<Slot> {
        let latest = self.entries.find(self.latest);
        if latest.is_some_and(|caller| caller.peer == peer) {
            return Some(self.latest);
        }
        self.slots.get(&peer).copied()
    }

    /// The tickets of a caller.
    #[inline]
    pub(super) fn calls(&self, peer: Peer) -> List {
        let slot = self.find(peer);
        slot.map_or(List::EMPTY, |slot| self.entries[slot].calls)
    }

    /// The entry of a caller that is about to have one more ticket.
    pub(super) fn enter(&mut self, peer: Peer) -> Slot {
        let slot = self.find(peer).unwrap_or_else(|| {
            let calls = List::EMPTY;
            let slot = self.entries.insert(Caller { peer, calls });
            self.slots.insert(peer, slot);
            slot
        });
        let before = core::mem::replace(&mut self.latest, slot);
        if before != slot && before != Slot::NONE {
            self.left(before);
        }
        slot
    }

    /// A caller may have no ticket left.
    #[inline]
    pub(super) fn left(&mut self, slot: Slot) {
        if slot != self.latest && self.entries[slot].calls.len() == 0 {
            let caller = self.entries.remove(slot);
            self.slots.remove(&caller.peer);
        }
    }

    /// How many tickets all have.
    pub(super) fn check(&self, limits: &Limits, calls: &Slab<Call>) -> u32 {
        assert!(
            self.slots.len() == self.entries.len(),
            "callers are miscounted"
        );
        let mut listed = 0;
        for (peer, slot) in &self.slots {
            let Caller {
                peer: known,
                calls: list,
            } = &self.entries[*slot];
            assert!(known == peer, "{peer} leads to another caller");
            let (len, latest) = (list.len(), *slot == self.latest);
            assert!(len <= limits.caller_calls_max, "{peer} has too many calls");
            assert!(len > 0 || latest, "{peer} has no calls and is listed");
            let mut slots = list.iter(calls);
            assert!(slots.all(|call| calls[call].caller == *peer && calls[call].of == *slot));
            listed += len;
        }
        listed
    }
}
