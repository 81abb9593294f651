//! Who holds a lock and who waits for it, when owners are nested actions.
//!
//! An *owner* is a level of an action's mirror, or a call outside actions; an *asker* is one
//! call that waits for its owner to get the lock. Per key an owner has one entry, whatever its
//! calls asked for: *held* once one of them was granted, *retained* while all of it came from
//! nested actions that committed. Whether held or retained makes no difference to others.
//!
//! **Grant** (Moss' rules as Narayana reads them): a request is granted if each entry that
//! excludes its mode belongs to its owner or an ancestor of it, up to the top-level boundary,
//! and it stands behind nobody.
//!
//! **Queue**: first come, first served. A request stands behind each one ahead of it that
//! excludes its mode, unless
//! - it said so (`passes`: its object waits for it), or its owner or an ancestor holds or
//!   retains the lock: it would wait for itself;
//! - the one ahead belongs to its owner or an ancestor of it;
//! - the one ahead must wait for the asker's own family anyway: it is excluded by what another
//!   level of the same top-level action holds, or stands behind an earlier request of one.
//!   Passing it costs it nothing; standing behind it looks like a deadlock and is none, since
//!   the other level's lock comes to the common ancestor when it commits.
//!
//! So a waiting writer is not overtaken by later strangers, and a reader passes a waiting
//! upgrader, which it does not hinder. A *conversion* (an owner wants a stronger mode than it
//! has) waits in front of all that are none; so does a request of an owner that has the lock
//! already but must wait for a nested action of its own, which holds it too.
//!
//! | owner's entry | `acquire` | `release` | `inherit` by the parent |
//! |---|---|---|---|
//! | none | entry held, or waits | mistake | mistake |
//! | as strong as asked | present, held now; or waits in front | entry gone | the parent's |
//! | weaker | converted, or waits in front | same | same |
//!
//! | asker | `acquire` | granted by a later input | `withdraw` |
//! |---|---|---|---|
//! | not waiting | granted, or waits | – | mistake |
//! | waits | mistake | appended to `granted`, once | gone |
//!
//! After every input the queue is looked at, conversions first, until nobody in it can be
//! granted.
//!
//! Invariants: no two entries exclude each other, unless one's owner is an ancestor of the
//! other's; whoever waits has somebody to wait for ([`Locks::blockers`] is not empty); a key
//! without entries is not in the table and nobody waits for it.
//!
//! What it does not do: bound the wait or the queue, find deadlocks, or know what an action is;
//! [`Family`] tells it who is nested in whom. Nothing is done or listed in the order of the hash
//! table, so the outcome depends on the inputs alone.

mod entry;

use core::fmt;

use self::entry::{Grip, Lock, Waiter};
pub use super::key::LockKey;
use super::mode::Mode;
use crate::index::Index;
use crate::slab::{Slab, Slot};

/// Whose a lock is: a level of an action's mirror, or a call outside actions, by the engine's
/// number for it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner(u32);

impl Owner {
    const LEVEL: u32 = 1 << 31;

    /// A level of a mirror.
    ///
    /// # Panics
    /// If the number is 2^31 or more; the engine's tables are bounded far below.
    #[must_use]
    pub const fn level(index: u32) -> Self {
        assert!(index < Self::LEVEL, "too many levels");
        Self(index | Self::LEVEL)
    }

    /// A call outside actions. Nothing is nested in it.
    ///
    /// # Panics
    /// If the number is 2^31 or more; the engine's tables are bounded far below.
    #[must_use]
    pub const fn call(index: u32) -> Self {
        assert!(index < Self::LEVEL, "too many calls");
        Self(index)
    }

    /// Whether it is a level of a mirror.
    #[must_use]
    pub const fn is_level(self) -> bool {
        self.0 & Self::LEVEL != 0
    }

    /// The number it was made from.
    #[must_use]
    pub const fn index(self) -> u32 {
        self.0 & !Self::LEVEL
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_level() { "level" } else { "call" };
        write!(f, "{kind} {}", self.index())
    }
}

/// The engine's number of a call that waits. One owner can have several at one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Asker(pub u32);

/// Who is nested in whom. Asked only about levels that hold a lock or wait for one at that
/// moment, and about the child and parent of [`Locks::inherit`].
pub trait Family {
    /// Whether `ancestor` is `of` itself or a level that `of` is nested in, up to the top-level
    /// boundary. Both belong to the same top-level action.
    fn includes(&self, ancestor: Owner, of: Owner) -> bool;

    /// The outermost level of the top-level action that `of` belongs to. It never changes while
    /// `of` holds or waits.
    fn root(&self, of: Owner) -> Owner;
}

/// A family in which nobody is nested in anybody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Strangers;

impl Family for Strangers {
    fn includes(&self, ancestor: Owner, of: Owner) -> bool {
        ancestor == of
    }

    fn root(&self, of: Owner) -> Owner {
        of
    }
}

/// What a call asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// For whom.
    pub owner: Owner,
    /// Who waits if it must.
    pub asker: Asker,
    /// How it wants to use the object.
    pub mode: Mode,
    /// Whether it stands behind nobody in the queue, since the object's own servant waits for
    /// it. It still waits for holders.
    pub passes: bool,
}

/// What an owner has of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Who.
    pub owner: Owner,
    /// The strongest mode that it or a committed nested action of it was granted.
    pub mode: Mode,
    /// Whether it has it from nested actions alone.
    pub retained: bool,
}

/// What a grant did to the owner's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// It had none: the key is to be released or inherited when the owner ends.
    Fresh,
    /// It had one in a weaker mode.
    Converted,
    /// It had one as strong.
    Present,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acquired {
    /// The owner has the lock.
    Granted(Grant),
    /// The asker waits; a later input grants it.
    Waits,
}

/// A request that waited and is granted now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Who waited.
    pub asker: Asker,
    /// For whom.
    pub owner: Owner,
    /// What it did to the owner's entry.
    pub grant: Grant,
}

/// All locks of a shard.
///
/// A lock with one holder and nobody waiting allocates nothing: it is a slab entry found by an
/// open-addressing table over the key's bits.
#[derive(Debug)]
pub struct Locks {
    index: Index,
    slab: Slab<Lock>,
}

impl Default for Locks {
    fn default() -> Self {
        Self::seeded(0)
    }
}

impl Locks {
    /// An empty table whose hash depends on `seed`. Any seed gives the same outcomes; a secret
    /// one keeps callers from choosing uids that collide.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self {
            index: Index::seeded(seed),
            slab: Slab::new(),
        }
    }

    /// Asks for a lock. Appends to `granted` whom it lets pass others in the queue, by having
    /// the lock or by waiting in front: relatives of its owner. The asker is not among them.
    ///
    /// # Panics
    /// In debug builds, if the asker waits for this key already.
    pub fn acquire(
        &mut self,
        key: LockKey,
        request: Request,
        family: &impl Family,
        granted: &mut Vec<Granted>,
    ) -> Acquired {
        let waiter = Waiter::new(request, family);
        let hash = self.index.hash(key);
        if let Some(slot) = self.slot_at(hash, key) {
            return self.slab[slot].ask(waiter, family, granted);
        }
        let slot = self.slab.insert(Lock::held_by(key, Grip::of(&waiter)));
        self.index.insert(hash, slot);
        Acquired::Granted(Grant::Fresh)
    }

    /// Takes an owner's entry away, held or retained, because it ended or aborted; appends to
    /// `granted` who can go on. Its waiting requests stay: withdraw them.
    ///
    /// # Panics
    /// If the owner has no entry of this key.
    pub fn release(
        &mut self,
        key: LockKey,
        owner: Owner,
        family: &impl Family,
        granted: &mut Vec<Granted>,
    ) {
        let hash = self.index.hash(key);
        let slot = self.slot_at(hash, key).expect("a released lock is held");
        let lock = &mut self.slab[slot];
        lock.let_go(owner);
        lock.settle(family, granted);
        if lock.is_free() {
            self.slab.remove(slot);
            self.index.remove(hash, slot);
        }
    }

    /// Stops waiting; appends to `granted` who stood behind this one and goes on.
    ///
    /// # Panics
    /// If the asker does not wait for this key.
    pub fn withdraw(
        &mut self,
        key: LockKey,
        asker: Asker,
        family: &impl Family,
        granted: &mut Vec<Granted>,
    ) {
        let slot = self.slot(key).expect("a lock that is waited for is held");
        let lock = &mut self.slab[slot];
        lock.leave(asker);
        lock.settle(family, granted);
    }

    /// A nested action committed: what it holds or retains goes to its parent, which retains it,
    /// in the stronger of both modes; appends to `granted` who can go on. The child's waiting
    /// requests are withdrawn before.
    ///
    /// # Panics
    /// If the child has no entry of this key.
    pub fn inherit(
        &mut self,
        key: LockKey,
        child: Owner,
        parent: Owner,
        family: &impl Family,
        granted: &mut Vec<Granted>,
    ) {
        let slot = self.slot(key).expect("an inherited lock is held");
        let lock = &mut self.slab[slot];
        lock.pass_on(child, parent);
        lock.settle(family, granted);
    }

    /// Gives an owner an entry that it had of the same object elsewhere, whoever else has one.
    /// Nobody is granted anything by that: whoever was in the way goes next, by `release`.
    pub(crate) fn bring(&mut self, key: LockKey, holding: Holding, family: &impl Family) {
        let grip = Grip::brought(holding, family);
        let hash = self.index.hash(key);
        if let Some(slot) = self.slot_at(hash, key) {
            return self.slab[slot].bring(grip);
        }
        let slot = self.slab.insert(Lock::held_by(key, grip));
        self.index.insert(hash, slot);
    }

    /// Who holds or retains a lock; the order says nothing.
    pub fn holders(&self, key: LockKey) -> impl Iterator<Item = Holding> + '_ {
        let lock = self.slot(key).map(|slot| &self.slab[slot]);
        lock.into_iter().flat_map(Lock::holders).map(Grip::holding)
    }

    /// Who waits for a lock, first one first.
    pub fn waiters(&self, key: LockKey) -> impl Iterator<Item = Request> + '_ {
        let lock = self.slot(key).map(|slot| &self.slab[slot]);
        lock.into_iter()
            .flat_map(Lock::waiters)
            .map(|waiter| waiter.request)
    }

    /// What an owner has of a lock.
    #[must_use]
    pub fn holding(&self, key: LockKey, owner: Owner) -> Option<Holding> {
        let slot = self.slot(key)?;
        self.slab[slot].grip(owner).map(Grip::holding)
    }

    /// Appends whom a waiting request waits for, each once, in the order of their numbers:
    /// owners whose entries exclude it, and owners of requests that it stands behind. None of
    /// them is its own owner or an ancestor of it.
    ///
    /// # Panics
    /// If the asker does not wait for this key.
    pub fn blockers(
        &self,
        key: LockKey,
        asker: Asker,
        family: &impl Family,
        blockers: &mut Vec<Owner>,
    ) {
        let slot = self.slot(key).expect("a lock that is waited for is held");
        self.slab[slot].blockers(asker, family, blockers);
    }

    /// The keys that somebody holds or retains, each once; the order says nothing, but is the
    /// same for the same inputs.
    pub fn keys(&self) -> impl Iterator<Item = LockKey> + '_ {
        self.slab.iter().map(|(_, lock)| lock.key())
    }

    /// How many keys are locked.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// Whether nothing is locked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slab.len() == 0
    }

    /// Panics if an invariant of the module does not hold.
    pub fn check(&self, family: &impl Family) {
        assert!(
            self.index.len() == self.slab.len(),
            "{} keys lead to {} locks",
            self.index.len(),
            self.slab.len()
        );
        for (slot, lock) in self.slab.iter() {
            let key = lock.key();
            assert!(self.slot(key) == Some(slot), "{key:?} is not found");
            lock.check(family);
        }
    }

    fn slot(&self, key: LockKey) -> Option<Slot> {
        self.slot_at(self.index.hash(key), key)
    }

    fn slot_at(&self, hash: u32, key: LockKey) -> Option<Slot> {
        self.index.find(hash, |slot| self.slab[slot].key() == key)
    }
}

#[cfg(test)]
mod tests;
