//! Who holds a lock and who waits for it.
//!
//! | entry | `acquire` | `release` by a holder | `withdraw` by a waiter |
//! |---|---|---|---|
//! | free (no entry) | granted | mistake | mistake |
//! | held, nobody waits | granted if no holder excludes it, else waits | freed | mistake |
//! | held, some wait | waits, last | first waiters that fit are granted | leaves; same |
//!
//! Invariants: no two holders exclude each other, unless one owner has both; whoever waits is
//! excluded by a holder or stands behind somebody who is (first come, first served: a waiting
//! writer is not overtaken by later readers); an entry without holders does not exist.
//!
//! What it does not do yet: an owner that is the ancestor of another (the rule is in
//! [`Owner::includes`] alone), retained locks, upgrade, rows of a state table ([`LockKey`] has
//! the room).

use std::collections::{BTreeMap, VecDeque};

pub use super::key::LockKey;
use super::mode::Mode;

/// Who holds a lock: an action. Today each call is an action of its own, top level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner(pub u64);

impl Owner {
    /// Whether a lock of `self` is no obstacle to `other`: the same action, later also an
    /// ancestor of it (Narayana's rule, held and retained alike).
    #[must_use]
    pub fn includes(self, other: Self) -> bool {
        self == other
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acquired {
    /// The owner holds the lock.
    Granted,
    /// The owner waits; a later release or withdrawal grants it.
    Waits,
}

/// All locks of a shard.
#[derive(Debug, Default)]
pub struct LockTable {
    entries: BTreeMap<LockKey, Entry>,
}

impl LockTable {
    /// Asks for a lock. An owner asks once for a key until it released or withdrew.
    pub fn acquire(&mut self, key: LockKey, owner: Owner, mode: Mode) -> Acquired {
        let request = Request { owner, mode };
        let Some(entry) = self.entries.get_mut(&key) else {
            self.entries.insert(key, Entry::held_by(request));
            return Acquired::Granted;
        };
        debug_assert!(
            !entry.holders().any(|h| h.owner == owner),
            "{owner:?} asks again"
        );
        if entry.waiters.is_empty() && entry.admits(request) {
            entry.hold(request);
            return Acquired::Granted;
        }
        entry.waiters.push_back(request);
        Acquired::Waits
    }

    /// Gives a held lock back; appends to `granted` who got it instead.
    pub fn release(&mut self, key: LockKey, owner: Owner, granted: &mut Vec<Owner>) {
        let entry = self.entries.get_mut(&key).expect("a released lock is held");
        entry.let_go(owner);
        self.settle(key, granted);
    }

    /// Stops waiting; appends to `granted` who no longer stands behind this one.
    pub fn withdraw(&mut self, key: LockKey, owner: Owner, granted: &mut Vec<Owner>) {
        let entry = self
            .entries
            .get_mut(&key)
            .expect("a lock that is waited for is held");
        let before = entry.waiters.len();
        entry.waiters.retain(|waiter| waiter.owner != owner);
        assert!(
            entry.waiters.len() + 1 == before,
            "{owner:?} does not wait for {key:?}"
        );
        self.settle(key, granted);
    }

    /// Grants what can be granted now, in order, and drops an entry nobody holds.
    fn settle(&mut self, key: LockKey, granted: &mut Vec<Owner>) {
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        while let Some(request) = entry.waiters.front().copied() {
            if !entry.admits(request) {
                break;
            }
            entry.waiters.pop_front();
            entry.hold(request);
            granted.push(request.owner);
        }
        if entry.first.is_none() {
            assert!(
                entry.waiters.is_empty(),
                "nobody holds {key:?} but somebody waits for it"
            );
            self.entries.remove(&key);
        }
    }

    /// Who holds a lock, and how.
    pub fn holders(&self, key: LockKey) -> impl Iterator<Item = (Owner, Mode)> + '_ {
        self.entries
            .get(&key)
            .into_iter()
            .flat_map(Entry::holders)
            .map(|r| (r.owner, r.mode))
    }

    /// Who waits for a lock, first one first.
    pub fn waiters(&self, key: LockKey) -> impl Iterator<Item = (Owner, Mode)> + '_ {
        let waiters = self
            .entries
            .get(&key)
            .into_iter()
            .flat_map(|entry| &entry.waiters);
        waiters.map(|r| (r.owner, r.mode))
    }

    /// How many keys are locked.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is locked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Panics if an invariant of the module does not hold.
    pub fn check(&self) {
        for (key, entry) in &self.entries {
            assert!(
                entry.first.is_some(),
                "{key:?} is in the table but nobody holds it"
            );
            for mode in Mode::ALL {
                let count = entry.holders().filter(|holder| holder.mode == mode).count();
                assert!(
                    entry.held[mode as usize] as usize == count,
                    "{key:?} is miscounted"
                );
            }
            for a in entry.holders() {
                for b in entry.holders() {
                    let clash = a.mode.excludes(b.mode) && !a.owner.includes(b.owner);
                    assert!(!clash, "{key:?} is held by {a:?} and by {b:?}");
                }
            }
            if let Some(next) = entry.waiters.front() {
                assert!(
                    !entry.admits(*next),
                    "{next:?} waits for {key:?} without a reason"
                );
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Request {
    owner: Owner,
    mode: Mode,
}

/// One lock. The first holder is kept inline: most locks have one, and then nothing is
/// allocated. Holders are counted by mode, so that one reader among thousands costs no walk.
#[derive(Debug)]
struct Entry {
    first: Option<Request>,
    others: BTreeMap<Owner, Mode>,
    held: [u32; Mode::ALL.len()],
    waiters: VecDeque<Request>,
}

impl Entry {
    fn held_by(request: Request) -> Self {
        let (others, waiters) = (BTreeMap::new(), VecDeque::new());
        let mut entry = Self {
            first: None,
            others,
            held: [0; Mode::ALL.len()],
            waiters,
        };
        entry.hold(request);
        entry
    }

    fn holders(&self) -> impl Iterator<Item = Request> + '_ {
        let others = self
            .others
            .iter()
            .map(|(&owner, &mode)| Request { owner, mode });
        self.first.into_iter().chain(others)
    }

    fn admits(&self, asked: Request) -> bool {
        let excluded = |mode: &Mode| self.held[*mode as usize] > 0 && mode.excludes(asked.mode);
        if !Mode::ALL.iter().any(excluded) {
            return true;
        }
        self.holders()
            .all(|h| !h.mode.excludes(asked.mode) || h.owner.includes(asked.owner))
    }

    fn hold(&mut self, request: Request) {
        self.held[request.mode as usize] += 1;
        if self.first.is_none() {
            self.first = Some(request);
            return;
        }
        let before = self.others.insert(request.owner, request.mode);
        assert!(
            before.is_none(),
            "{:?} holds the same lock twice",
            request.owner
        );
    }

    fn let_go(&mut self, owner: Owner) {
        let mode = match self.first {
            Some(holder) if holder.owner == owner => {
                let next = self.others.pop_first();
                self.first = next.map(|(owner, mode)| Request { owner, mode });
                holder.mode
            }
            Some(_) | None => self.others.remove(&owner).expect("only a holder releases"),
        };
        self.held[mode as usize] -= 1;
    }
}

#[cfg(test)]
mod tests;
