//! Names of mirrors and levels. An action has one mirror at a shard, and one more for each
//! replicated object there whose next leader is to take over what the action has of it.

use super::{Mirrors, Name};
use crate::id::{NodeId, Uid};
use crate::slab::Slot;

/// Above all others.
const LAST: Uid = Uid {
    node: NodeId(u64::MAX),
    local: u64::MAX,
};

impl Mirrors {
    pub(crate) fn find_at(&self, name: Name) -> Option<Slot> {
        self.roots.get(&name).copied()
    }

    pub(crate) fn find_level_at(&self, name: Name) -> Option<Slot> {
        self.names.get(&name).copied()
    }

    /// The parts of an action that are here and not lost.
    pub(crate) fn parts_of(&self, root: Uid) -> Vec<Slot> {
        let first = Uid::default();
        let all = self.roots.range((root, Some(first))..=(root, Some(LAST)));
        all.map(|(_, slot)| *slot).collect()
    }

    /// The levels of an action in parts that are here and not lost.
    pub(crate) fn part_levels(&self, action: Uid) -> Vec<Slot> {
        let first = Uid::default();
        let all = self
            .names
            .range((action, Some(first))..=(action, Some(LAST)));
        all.map(|(_, slot)| *slot).collect()
    }

    /// The parts of all actions at a replicated object, lost ones aside, in the order of the
    /// actions' names.
    pub(crate) fn parts_at(&self, object: Uid) -> Vec<Slot> {
        let all = self
            .parts
            .range((object, Slot::FIRST)..=(object, Slot::NONE));
        let all = all.map(|(_, slot)| *slot);
        let mut all: Vec<Slot> = all.filter(|slot| !self.mirrors[*slot].lost).collect();
        all.sort_by_key(|slot| self.mirrors[*slot].uid());
        all
    }

    /// The object of a level's part, unless the part is lost.
    pub(crate) fn part_of_level(&self, level: Slot) -> Option<Uid> {
        let mirror = &self.mirrors[self.levels[level].mirror];
        mirror.part.filter(|_| !mirror.lost)
    }

    /// Another leader has the part: its name is free.
    pub(crate) fn lose(&mut self, slot: Slot) {
        let mirror = &self.mirrors[slot];
        let (root, part) = (mirror.root, mirror.part);
        self.roots.remove(&(mirror.uid(), part));
        for level in self.subtree(root) {
            self.names.remove(&(self.levels[level].uid, part));
        }
        self.mirrors[slot].lost = true;
    }
}
