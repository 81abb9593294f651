//! Who is nested in whom, for the lock table.

use super::Mirrors;
use crate::lock::locks::{Family, Owner};
use crate::slab::Slot;

/// Who is nested in whom, for the lock table.
pub(crate) struct Kin<'m> {
    pub(crate) mirrors: &'m Mirrors,
    /// A rule left out on purpose: siblings are taken for ancestors.
    pub(crate) siblings_share: bool,
}

impl Kin<'_> {
    fn level(&self, owner: Owner) -> Option<Slot> {
        owner.is_level().then(|| Slot(owner.index()))
    }
}

impl Family for Kin<'_> {
    fn includes(&self, ancestor: Owner, of: Owner) -> bool {
        if ancestor == of {
            return true;
        }
        let (Some(ancestor), Some(of)) = (self.level(ancestor), self.level(of)) else {
            return false;
        };
        if self.siblings_share {
            return self.mirrors.levels[ancestor].mirror == self.mirrors.levels[of].mirror;
        }
        let mut at = self.mirrors.levels[of].parent;
        while let Some(slot) = at {
            if slot == ancestor {
                return true;
            }
            at = self.mirrors.levels[slot].parent;
        }
        false
    }

    fn root(&self, of: Owner) -> Owner {
        let Some(level) = self.level(of) else {
            return of;
        };
        let mirror = self.mirrors.levels[level].mirror;
        Owner::level(self.mirrors.mirrors[mirror].root.0)
    }
}
