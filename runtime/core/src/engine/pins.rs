//! What waits for the end of a move: levels that have a lock of the object are pinned, and what
//! would end their action meanwhile is done afterwards.
//!
//! | while pinned | what is done | afterwards |
//! |---|---|---|
//! | prepare, fits | noted, the last one | done |
//! | commit asked, fits | noted | done |
//! | abort, or nested commit | noted at the level | undone, or merged |
//!
//! An action that waits in this way is not pinned once more: other objects that it has locked stay
//! until it has ended, or its wait would have no end where many of them move. So the end of an
//! action waits for the moves alone that had begun before.
//!
//! At the source the moves that a commit waits for are given up if it takes too long, see
//! [`crate::Limits::move_hold_ns`]; at the target the coordinator's patience is the bound.

use super::Engine;
use super::decide::Asked;
use crate::action::path::Coordinator;
use crate::id::{Incarnation, Uid};
use crate::outbox::Outbox;
use crate::slab::Slot;

/// What is to be done about an action when no level of it is pinned any more.
#[derive(Debug, Default)]
pub(super) struct Late {
    prepare: Option<Prepare>,
    commits: Vec<Asked>,
}

/// A prepare as it was heard.
#[derive(Debug)]
pub(super) struct Prepare {
    pub(super) from: Coordinator,
    pub(super) incarnation: Incarnation,
    pub(super) join: u64,
    pub(super) aborted: Vec<Uid>,
}

impl Engine {
    /// Whether an action has to wait for a move before it is prepared.
    pub(super) fn is_pinned(&self, slot: Slot) -> bool {
        self.mirrors.mirror(slot).pins > 0
    }

    pub(super) fn prepare_later(&mut self, action: Uid, prepare: Prepare) {
        self.late.entry(action).or_default().prepare = Some(prepare);
        self.hurry(action);
    }

    pub(super) fn commit_later(&mut self, asked: Asked) {
        let action = asked.action;
        self.late.entry(action).or_default().commits.push(asked);
        self.hurry(action);
    }

    /// A move has ended: these levels, named by their actions, wait for it no more.
    pub(super) fn unpin(&mut self, levels: &[Uid], out: &mut Outbox) {
        let mut roots = Vec::new();
        for action in levels {
            let slot = self.mirrors.find_level(*action);
            let slot = slot.expect("a pinned level is there");
            self.mirrors.unpin(slot);
            let mirror = self.mirrors.level(slot).mirror;
            let root = self.mirrors.mirror(mirror).uid();
            if !roots.contains(&root) {
                roots.push(root);
            }
        }
        for action in levels {
            if let Some(slot) = self.mirrors.find_level(*action) {
                self.level_left(slot, out);
            }
        }
        for root in roots {
            self.unpinned(root, out);
        }
    }

    fn unpinned(&mut self, root: Uid, out: &mut Outbox) {
        let found = self.mirrors.find(root);
        if found.is_some_and(|slot| self.is_pinned(slot)) {
            return;
        }
        if let Some(slot) = found {
            self.forget_if_unused(slot);
        }
        let Some(late) = self.late.remove(&root) else {
            return;
        };
        // Other objects that it has locked have waited for this.
        self.departures.look = true;
        // Whoever leads them was to be sure of it when the action prepares: that was then.
        let replicated = self.replicated_of(root).next().is_some();
        if let Some(prepare) = late.prepare.filter(|_| !replicated) {
            let Prepare {
                from,
                incarnation,
                join,
                aborted,
            } = prepare;
            self.prepare_heard(from, root, (incarnation, join), &aborted, out);
        }
        for asked in late.commits {
            match found.filter(|_| replicated) {
                Some(slot) => self.refuse_late(slot, &asked, out),
                None => self.commit_asked(asked, out),
            }
        }
    }

    /// A mirror that was made for an object that does not come goes without a trace.
    fn forget_if_unused(&mut self, slot: Slot) {
        let mirror = self.mirrors.mirror(slot);
        let unused = mirror.for_cargo && mirror.locks == 0 && mirror.calls == 0;
        if !unused || !mirror.is_active() {
            return;
        }
        let levels = self.mirrors.subtree(mirror.root);
        for level in levels.iter().rev() {
            self.mirrors.remove(*level);
        }
    }
}
