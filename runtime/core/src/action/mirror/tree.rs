//! The levels of a mirror as a tree.

use super::{Ending, Mirrors};
use crate::action::path::Path;
use crate::slab::Slot;

impl Mirrors {
    /// The whole name of a level.
    pub(crate) fn path(&self, level: Slot) -> Path {
        let mirror = &self.mirrors[self.levels[level].mirror];
        let mut below = Vec::new();
        let mut at = &self.levels[level];
        while let Some(parent) = at.parent {
            below.push(at.uid);
            at = &self.levels[parent];
        }
        let mut path = mirror.path.clone();
        while let Some(uid) = below.pop() {
            path = path.nested(uid);
        }
        path
    }

    /// A level and all below it, parents before their children.
    pub(crate) fn subtree(&self, level: Slot) -> Vec<Slot> {
        let mut levels = vec![level];
        let mut at = 0;
        while let Some(slot) = levels.get(at).copied() {
            levels.extend(&self.levels[slot].children);
            at += 1;
        }
        levels
    }

    /// The outermost level that is aborting, of a level and those it is nested in.
    pub(crate) fn aborting(&self, level: Slot) -> Option<Slot> {
        let mut outermost = None;
        let mut at = Some(level);
        while let Some(slot) = at {
            let level = &self.levels[slot];
            if level.ending == Ending::Aborting {
                outermost = Some(slot);
            }
            at = level.parent;
        }
        outermost
    }
}
