//! Who is inside an object's image, among calls whose actions share its lock.
//!
//! A lock belongs to an action, so several calls of one action and of those nested in it may
//! have it at a time; yet a servant runs alone with a write, or with other reads. Calls outside
//! actions need no gate: their lock keeps them apart.
//!
//! | inside | a read comes | a write comes |
//! |---|---|---|
//! | nobody | goes in | goes in |
//! | reads, nobody waits | goes in | waits, last |
//! | reads, some wait | waits, last; goes in if it `passes` | waits, last |
//! | a write | waits, last | waits, last |
//!
//! Who leaves lets in the first of the queue that fit. A call *passes* the queue if one that is
//! inside waits for it; one that would have to wait for such a one is refused before it comes
//! here. Calls that wait for each other at two gates (two calls of one action, side by side,
//! each calling the other's object) are not found as a deadlock; the bound on waits ends that.

use std::collections::VecDeque;

use crate::lock::mode::Mode;
use crate::slab::Slot;

/// The gate of one object.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    inside: Vec<(Slot, Mode)>,
    queue: VecDeque<(Slot, Mode)>,
}

impl Gate {
    /// Whether a call in `mode` could be in with all that are inside.
    pub(crate) fn fits(&self, mode: Mode) -> bool {
        match mode {
            Mode::Write => self.inside.is_empty(),
            Mode::Read | Mode::Upgrade => self.inside.iter().all(|(_, m)| *m != Mode::Write),
        }
    }

    /// A call comes; whether it is inside now.
    pub(crate) fn enter(&mut self, slot: Slot, mode: Mode, passes: bool) -> bool {
        let at_once = (passes || self.queue.is_empty()) && self.fits(mode);
        if at_once {
            self.inside.push((slot, mode));
        } else {
            self.queue.push_back((slot, mode));
        }
        at_once
    }

    /// A call goes, from inside or from the queue; `opened` is told who got in by that.
    pub(crate) fn leave(&mut self, slot: Slot, mut opened: impl FnMut(Slot)) {
        let before = self.inside.len() + self.queue.len();
        self.inside.retain(|(inside, _)| *inside != slot);
        self.queue.retain(|(waiting, _)| *waiting != slot);
        let left = self.inside.len() + self.queue.len();
        assert!(left + 1 == before, "{slot:?} is not at the gate once");
        while let Some((slot, mode)) = self.queue.front().copied() {
            if !self.fits(mode) {
                break;
            }
            self.queue.pop_front();
            self.inside.push((slot, mode));
            opened(slot);
        }
    }

    pub(crate) fn inside(&self) -> impl Iterator<Item = Slot> + '_ {
        self.inside.iter().map(|(slot, _)| *slot)
    }

    pub(crate) fn queue(&self) -> impl Iterator<Item = Slot> + '_ {
        self.queue.iter().map(|(slot, _)| *slot)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.inside.is_empty() && self.queue.is_empty()
    }

    pub(crate) fn check(&self) {
        let writers = self.inside.iter().filter(|(_, m)| *m == Mode::Write);
        let alone = writers.count() == 0 || self.inside.len() == 1;
        assert!(alone, "a write is not alone: {self:?}");
        if let Some((_, mode)) = self.queue.front() {
            assert!(!self.fits(*mode), "{self:?} waits without a reason");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table() {
        let mut gate = Gate::default();
        assert!(gate.enter(Slot(1), Mode::Read, false));
        assert!(gate.enter(Slot(2), Mode::Upgrade, false));
        assert!(!gate.enter(Slot(3), Mode::Write, false));
        assert!(!gate.enter(Slot(4), Mode::Read, false));
        assert!(gate.enter(Slot(5), Mode::Read, true));
        gate.check();
        let mut opened = Vec::new();
        for slot in [1, 2, 5] {
            gate.leave(Slot(slot), |slot| opened.push(slot));
        }
        assert_eq!(opened, [Slot(3)]);
        gate.check();
        gate.leave(Slot(3), |slot| opened.push(slot));
        assert_eq!(opened, [Slot(3), Slot(4)]);
        gate.leave(Slot(4), |slot| opened.push(slot));
        assert!(gate.is_empty());
    }
}
