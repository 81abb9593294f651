//! A lock table after Moss' rules, as simple as it can be; not the engine's.

use std::collections::BTreeMap;

use crate::action::message::Party;
use crate::action::path::Path;
use crate::deadlock::{Locks, behind};
use crate::id::Uid;

/// Who has a lock, or wants it.
#[derive(Clone, Debug)]
pub(super) struct Use {
    /// Of the wait; 0 for who has it.
    pub(super) number: u64,
    pub(super) party: Party,
    pub(super) write: bool,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Granted,
    Waits,
    /// It is in conflict with something that waits for it.
    Reentrant,
}

#[derive(Debug, Default)]
pub(super) struct Lock {
    pub(super) holders: Vec<Use>,
    pub(super) queue: Vec<Use>,
}

/// The locks of one shard.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) locks: BTreeMap<Uid, Lock>,
}

/// Whether `a` is `b` or one that it is nested in, up to the top-level boundary.
pub(super) fn includes(a: &Path, b: &Path) -> bool {
    a.enclosing() == b.enclosing() && b.whole().starts_with(a.whole())
}

/// Whether `b` is inside of `a`, across a boundary.
fn encloses(a: &Path, b: &Path) -> bool {
    b.whole().starts_with(a.whole()) && a.whole().len() <= b.enclosing()
}

fn excludes(a: &Use, b: &Use) -> bool {
    (a.write || b.write) && !includes(&a.party.path, &b.party.path)
}

impl Lock {
    fn family_holds_against(&self, other: &Use, family: Uid) -> bool {
        let mut holders = self.holders.iter();
        holders.any(|holder| holder.party.path.whole()[0] == family && excludes(holder, other))
    }

    /// Whether the request at `at` has to wait for somebody of this family.
    fn waits_for_family(&self, at: usize, family: Uid) -> bool {
        self.family_holds_against(&self.queue[at], family)
            || (0..at).any(|ahead| {
                let of_family = self.queue[ahead].party.path.whole()[0] == family;
                self.stands_behind(at, ahead) && (of_family || self.waits_for_family(ahead, family))
            })
    }

    pub(super) fn stands_behind(&self, at: usize, ahead: usize) -> bool {
        let (one, other) = (&self.queue[at], &self.queue[ahead]);
        let path = &one.party.path;
        let mut holders = self.holders.iter();
        excludes(other, one)
            && !holders.any(|holder| path.whole().starts_with(holder.party.path.whole()))
            && (other.party.path.whole()[0] == path.whole()[0]
                || !self.waits_for_family(ahead, path.whole()[0]))
    }

    pub(super) fn is_held_against(&self, at: usize) -> bool {
        self.holders
            .iter()
            .any(|holder| excludes(holder, &self.queue[at]))
    }

    fn is_blocked(&self, at: usize) -> bool {
        self.is_held_against(at) || (0..at).any(|ahead| self.stands_behind(at, ahead))
    }

    fn is_reentrant(&self, asked: &Use) -> bool {
        let path = &asked.party.path;
        let conflict = |holder: &&Use| excludes(holder, asked);
        let mut holders = self.holders.iter().filter(conflict);
        holders.any(|holder| encloses(&holder.party.path, path))
    }

    fn grant(&mut self, asked: Use) {
        let path = &asked.party.path;
        match self
            .holders
            .iter_mut()
            .find(|holder| holder.party.path == *path)
        {
            Some(holder) => holder.write |= asked.write,
            None => self.holders.push(Use { number: 0, ..asked }),
        }
    }

    /// Grants what can be granted; says which waits that were.
    fn settle(&mut self) -> Vec<Use> {
        let mut granted = Vec::new();
        while let Some(at) = (0..self.queue.len()).find(|at| !self.is_blocked(*at)) {
            let asked = self.queue.remove(at);
            granted.push(asked.clone());
            self.grant(asked);
        }
        granted
    }

    /// Whom the request at `at` waits for, as [`Locks::owners`] says.
    fn owners(&self, at: usize) -> Vec<Party> {
        let (one, path) = (&self.queue[at], &self.queue[at].party.path);
        let in_way = self.holders.iter().filter(|holder| excludes(holder, one));
        let owners = in_way.map(|holder| &holder.party);
        let others = owners.filter(|owner| !path.whole().starts_with(owner.path.whole()));
        let owners: Vec<Party> = others.cloned().collect();
        let ahead = (0..at).find(|ahead| self.stands_behind(at, *ahead));
        let Some(ahead) = ahead.filter(|_| owners.is_empty()) else {
            return owners;
        };
        let beyond = self.owners(ahead);
        behind(path, &self.queue[ahead].party, beyond)
    }
}

impl Table {
    pub(super) fn ask(&mut self, object: Uid, asked: Use) -> (Asked, Vec<Use>) {
        let lock = self.locks.entry(object).or_default();
        if lock.is_reentrant(&asked) {
            return (Asked::Reentrant, Vec::new());
        }
        let path = &asked.party.path;
        let converts = lock.holders.iter().any(|holder| holder.party.path == *path);
        let number = asked.number;
        let at = if converts { 0 } else { lock.queue.len() };
        lock.queue.insert(at, asked);
        let mut granted = lock.settle();
        let own = granted.iter().position(|one| one.number == number);
        let asked = own.map_or(Asked::Waits, |at| {
            granted.remove(at);
            Asked::Granted
        });
        (asked, granted)
    }

    /// Stops waiting; says who goes on.
    pub(super) fn withdraw(&mut self, object: Uid, number: u64) -> Vec<Use> {
        let lock = self.locks.get_mut(&object).expect("it is waited for");
        let before = lock.queue.len();
        lock.queue.retain(|one| one.number != number);
        assert_eq!(lock.queue.len() + 1, before, "{number} does not wait");
        lock.settle()
    }

    /// Takes away what `gone` says; says where who goes on.
    pub(super) fn release(&mut self, gone: impl Fn(&Path) -> bool) -> Vec<(Uid, Use)> {
        let mut granted = Vec::new();
        for (object, lock) in &mut self.locks {
            let before = lock.holders.len();
            lock.holders.retain(|holder| !gone(&holder.party.path));
            if lock.holders.len() < before {
                granted.extend(lock.settle().into_iter().map(|one| (*object, one)));
            }
        }
        granted
    }

    /// Gives what the child has to its parent; says where who goes on, and which locks moved.
    pub(super) fn inherit(&mut self, child: &Path, parent: &Path) -> (Vec<(Uid, Use)>, Vec<Uid>) {
        let (mut granted, mut moved) = (Vec::new(), Vec::new());
        for (object, lock) in &mut self.locks {
            let own = lock.holders.iter().position(|one| one.party.path == *child);
            let Some(own) = own else { continue };
            let mut own = lock.holders.remove(own);
            own.party.path = parent.clone();
            lock.grant(own);
            granted.extend(lock.settle().into_iter().map(|one| (*object, one)));
            moved.push(*object);
        }
        (granted, moved)
    }

    /// Waits that have become re-entries.
    pub(super) fn reentrant(&self) -> Vec<Use> {
        let locks = self.locks.values();
        let found = locks.flat_map(|lock| lock.queue.iter().filter(|one| lock.is_reentrant(one)));
        found.cloned().collect()
    }

    pub(super) fn waits_for(&self, object: Uid) -> bool {
        self.locks
            .get(&object)
            .is_some_and(|lock| !lock.queue.is_empty())
    }

    pub(super) fn is_free(&self) -> bool {
        let mut locks = self.locks.values();
        locks.all(|lock| lock.holders.is_empty() && lock.queue.is_empty())
    }
}

impl Locks for Table {
    fn owners(&self, wait: u64) -> Vec<Party> {
        let place = |lock: &Lock| lock.queue.iter().position(|one| one.number == wait);
        let mut locks = self.locks.values();
        let found = locks.find_map(|lock| place(lock).map(|at| lock.owners(at)));
        found.unwrap_or_default()
    }
}
