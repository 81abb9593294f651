//! What must hold of mirrors between any two inputs; for tests and simulation.

use super::{Ending, Mirror, Mirrors, Phase};
use crate::slab::Slot;
use crate::time::Time;

impl Mirrors {
    pub(crate) fn check(&self) {
        let lost = self.mirrors.iter().filter(|(_, it)| it.lost);
        let lost: Vec<u32> = lost.map(|(_, it)| it.levels).collect();
        let lost_levels: u32 = lost.iter().sum();
        let mirrors = self.roots.len() + lost.len();
        assert!(mirrors == self.mirrors.len(), "mirrors are lost");
        let levels = self.names.len() + lost_levels as usize;
        assert!(levels == self.levels.len(), "levels are lost");
        for ((uid, part), slot) in &self.roots {
            let mirror = &self.mirrors[*slot];
            let named = mirror.uid() == *uid && mirror.part == *part && !mirror.lost;
            assert!(named, "{uid} leads elsewhere");
            assert!(self.levels[mirror.root].uid == *uid);
        }
        for ((uid, part), slot) in &self.names {
            let level = &self.levels[*slot];
            let named = level.uid == *uid && self.mirrors[level.mirror].part == *part;
            assert!(named, "{uid} leads elsewhere");
        }
        let parts = self.mirrors.iter().filter(|(_, it)| it.part.is_some());
        assert!(parts.count() == self.parts.len(), "parts are miscounted");
        for (slot, mirror) in self.mirrors.iter() {
            self.check_mirror(slot, mirror);
        }
        for (at, slot) in &self.due {
            assert!(self.mirrors[*slot].due == *at, "a date is miscounted");
        }
        for (caller, slot) in &self.by_caller {
            let known = self.mirrors[*slot].callers.contains(caller);
            assert!(known, "{caller} leads to a mirror it has not called in");
        }
        let callers = self.mirrors.iter().map(|(_, mirror)| mirror.callers.len());
        assert!(
            callers.sum::<usize>() == self.by_caller.len(),
            "callers are lost"
        );
    }

    fn check_mirror(&self, slot: Slot, mirror: &Mirror) {
        let uid = mirror.uid();
        let dated = self.due.contains(&(mirror.due, slot));
        assert!(dated == (mirror.due != Time::NEVER), "{uid} is forgotten");
        let levels = self.subtree(mirror.root);
        assert!(levels.len() == mirror.levels as usize, "levels of {uid}");
        let (mut locks, mut calls, mut pins) = (0, 0, 0);
        for at in &levels {
            let level = &self.levels[*at];
            assert!(level.mirror == slot, "{} is in another mirror", level.uid);
            let below = level.children.iter();
            for child in below.map(|child| &self.levels[*child]) {
                assert!(child.parent == Some(*at), "{} has no parent", child.uid);
                let both = level.ending != Ending::Aborting || child.ending == Ending::Aborting;
                assert!(both, "{} is aborted but not {}", level.uid, child.uid);
            }
            locks += level.locks.len();
            calls += level.calls.len();
            pins += level.pins;
            if !mirror.is_active() {
                let aborting = level.ending == Ending::Aborting;
                let flat = levels.len() == 1 && level.ending == Ending::Open;
                assert!(aborting || flat, "{} is left at the end", level.uid);
            }
            self.check_ending(*at);
        }
        assert!(locks == mirror.locks as usize, "locks of {uid} miscounted");
        assert!(calls == mirror.calls as usize, "calls of {uid} miscounted");
        assert!(pins == mirror.pins, "pins of {uid} miscounted");
        let may_run = match mirror.phase {
            Phase::Active | Phase::Aborting => true,
            Phase::Preparing { .. }
            | Phase::Prepared { .. }
            | Phase::Installing { .. }
            | Phase::Voting(_)
            | Phase::Deciding { .. } => false,
        };
        assert!(may_run || calls == 0, "{uid} is prepared but calls run");
        assert!(may_run || pins == 0, "{uid} is prepared but moves");
        let noted = !mirror.is_prepared() || self.prepared.contains(&slot);
        assert!(noted, "{uid} is prepared and not noted");
    }

    /// A level that is ending waits for something.
    fn check_ending(&self, slot: Slot) {
        let level = &self.levels[slot];
        let waits = match level.ending {
            Ending::Open => true,
            Ending::Merging => {
                level.pins > 0 || !level.calls.is_empty() || !level.children.is_empty()
            }
            Ending::Aborting => {
                let top = self.aborting(slot).unwrap_or(slot);
                let mut below = self.subtree(top).into_iter();
                below.any(|at| self.levels[at].pins > 0 || !self.levels[at].calls.is_empty())
            }
        };
        assert!(waits, "{} has ended but is still here", level.uid);
    }
}
