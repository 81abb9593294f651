//! Whether anything is under way at an object: what whoever changes its policy waits for.
//!
//! What a leader does with what running actions have of an object depends on the policy: it is in
//! their mirrors of this shard, or in parts that the log knows of. None is turned into the other:
//! the policy changes when there is neither. What the object's log says of actions that have ended
//! at it stays true.

use super::Engine;
use crate::id::Uid;
use crate::output::GaveUp;
use crate::slab::Slot;

impl Engine {
    /// Whether nothing is under way at an object: no call is inside or waits, no action has
    /// anything of it, prepared or not, and nothing is held back until its log has it.
    #[must_use]
    pub fn is_at_rest(&self, uid: Uid) -> bool {
        let key = Self::lock_key(uid);
        let locked = self.locks.holders(key).next().is_some();
        let waited_for = self.locks.waiters(key).next().is_some();
        let inside = self.objects.slot(uid);
        let inside = inside.is_some_and(|slot| self.objects.entry(slot).calls > 0);
        let found = self.parts.rows.contains_key(&uid) || self.parts.unlocked.contains(&uid);
        let has_parts = !self.mirrors.parts_at(uid).is_empty();
        !(locked || waited_for || inside || found || has_parts) && self.cohorts.is_quiet_at(uid)
    }

    /// Whether an action has something of an object: who makes it wait makes those wait that wait
    /// for it.
    #[must_use]
    pub fn has_of(&self, root: Uid, uid: Uid) -> bool {
        if self.mirrors.find_at((root, Some(uid))).is_some() {
            return true;
        }
        let mut holders = self.locks.holders(Self::lock_key(uid));
        holders.any(|holding| {
            let slot = Slot(holding.owner.index());
            if !holding.owner.is_level() {
                return false;
            }
            let mirror = self.mirrors.level(slot).mirror;
            self.mirrors.mirror(mirror).uid() == root
        })
    }

    /// Whether this shard has given an action up since it had something of an object that is led
    /// elsewhere now, and is lost: the action can only abort, whatever the next leader would say.
    #[must_use]
    pub fn has_lost(&self, root: Uid) -> bool {
        self.tombstones.reason(root) == Some(GaveUp::Expelled)
    }
}
