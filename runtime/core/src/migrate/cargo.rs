//! What running actions have of an object that moves.
//!
//! It comes over the wire, so whoever takes it in checks it first.

use std::collections::BTreeSet;

use crate::action::path::{PATH_MAX, Path};
use crate::id::{CallId, NodeId, Peer, Uid};
use crate::lock::mode::Mode;
use crate::time::Time;

/// What running actions have of an object; nothing, if none has a lock of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cargo {
    /// Size of the object's present state in bytes; only looked at if there is an image.
    pub size_bytes: u64,
    /// The actions, each once.
    pub actions: Vec<CargoAction>,
}

impl Cargo {
    /// Whether an action has, or may have, changed the object: then its present state is not the
    /// committed one, and goes with the cargo, as does a before-image for each level with an
    /// [`CargoLevel::image`].
    #[must_use]
    pub fn has_images(&self) -> bool {
        self.levels().any(|level| level.image.is_some())
    }

    /// Looks whether it can be: levels are trees with their roots in front, nobody is there
    /// twice, a before-image has its lock, no two locks exclude each other unless one's level is
    /// nested in the other's.
    ///
    /// # Errors
    /// What cannot be.
    pub fn check(&self) -> Result<(), &'static str> {
        let unlocked = |it: &CargoAction| it.levels.iter().all(|level| level.lock.is_none());
        if self.actions.iter().any(unlocked) {
            return Err("an action without a lock");
        }
        self.check_trees()
    }

    /// The same, where an action may be without a lock.
    pub(crate) fn check_trees(&self) -> Result<(), &'static str> {
        let mut names = BTreeSet::new();
        for action in &self.actions {
            action.check()?;
            if !action.levels.iter().all(|level| names.insert(level.uid)) {
                return Err("an action is in the cargo twice");
            }
        }
        let places = |(at, action): (usize, &CargoAction)| {
            let levels = 0..action.levels.len();
            levels.map(move |level| (at, level)).collect::<Vec<_>>()
        };
        let all: Vec<(usize, usize)> = self.actions.iter().enumerate().flat_map(places).collect();
        let lock = |(action, level): (usize, usize)| self.actions[action].levels[level].lock;
        for (index, one) in all.iter().enumerate() {
            for other in &all[..index] {
                let clash = lock(*one)
                    .zip(lock(*other))
                    .is_some_and(|(one, other)| one.mode.excludes(other.mode));
                // Parents come first, so only the later one can be nested in the other.
                let nested = one.0 == other.0 && self.actions[one.0].is_in(one.1, other.1);
                if clash && !nested {
                    return Err("locks that exclude each other");
                }
            }
        }
        Ok(())
    }

    /// All levels of all actions.
    pub fn levels(&self) -> impl Iterator<Item = &CargoLevel> {
        self.actions.iter().flat_map(|action| &action.levels)
    }
}

/// A top-level action that has a lock of the object, by itself or by one nested in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CargoAction {
    /// The name of the root, with what encloses it.
    pub path: Path,
    /// See [`crate::action::path::Membership::home`].
    pub home: NodeId,
    /// See [`crate::action::path::Membership::born_ms`].
    pub born_ms: u64,
    /// When it is given up, on the clock of whoever has the cargo: over the wire the time left.
    pub until: Time,
    /// The processes that called in it.
    pub callers: Vec<Peer>,
    /// Its writes at the source that were begun: none is executed again at the target.
    pub executed: Vec<CallId>,
    /// The root, then those nested in it that have a lock of the object, and those between:
    /// parents before their children.
    pub levels: Vec<CargoLevel>,
}

impl CargoAction {
    /// The root.
    #[must_use]
    pub fn root(&self) -> Option<Uid> {
        self.path.root()
    }

    fn check(&self) -> Result<(), &'static str> {
        let [root] = self.path.own() else {
            return Err("an action is named by a path that does not end with its root");
        };
        let first = self.levels.first();
        if first.is_none_or(|first| first.uid != *root || first.parent.is_some()) {
            return Err("the first level of an action is not its root");
        }
        let mut depths = vec![self.path.whole().len()];
        for (at, level) in self.levels.iter().enumerate().skip(1) {
            let parent = level.parent.map(|parent| parent as usize);
            let Some(parent) = parent.filter(|parent| *parent < at) else {
                return Err("a level does not stand behind its parent");
            };
            if depths[parent] >= PATH_MAX {
                return Err("levels that are nested too deeply");
            }
            depths.push(depths[parent] + 1);
        }
        let unlocked = |level: &&CargoLevel| {
            let write = level.lock.is_some_and(|lock| lock.mode == Mode::Write);
            level.image.is_some() && !write
        };
        match self.levels.iter().find(unlocked) {
            Some(_) => Err("a before-image without a lock for writing"),
            None => Ok(()),
        }
    }

    /// Whether one level is nested in another.
    fn is_in(&self, level: usize, outer: usize) -> bool {
        let mut at = self.levels[level].parent;
        while let Some(parent) = at {
            if parent as usize == outer {
                return true;
            }
            at = self.levels[parent as usize].parent;
        }
        false
    }
}

/// A level of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CargoLevel {
    /// The action, root or nested.
    pub uid: Uid,
    /// Its parent's place in [`CargoAction::levels`]; none for the root.
    pub parent: Option<u32>,
    /// It has committed into its parent, which gets what it has once nothing below it is left.
    pub merging: bool,
    /// What it has of the object's lock.
    pub lock: Option<CargoLock>,
    /// What is kept of the object as it was before the level first wrote it. Its bytes, and
    /// those of the rows that the level has changed, go beside the cargo.
    pub image: Option<CargoImage>,
}

/// What a level has of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CargoLock {
    /// How.
    pub mode: Mode,
    /// It has it from nested actions alone.
    pub retained: bool,
}

/// A before-image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CargoImage {
    /// A write has ended well since.
    pub changed: bool,
    /// Size of the before-image in bytes.
    pub size_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(local: u64) -> Uid {
        Uid {
            node: NodeId(1),
            local,
        }
    }

    fn level(local: u64, parent: Option<u32>, mode: Option<Mode>) -> CargoLevel {
        CargoLevel {
            uid: uid(local),
            parent,
            merging: false,
            lock: mode.map(|mode| CargoLock {
                mode,
                retained: false,
            }),
            image: None,
        }
    }

    fn cargo(roots: &[&[CargoLevel]]) -> Cargo {
        let action = |levels: &&[CargoLevel]| CargoAction {
            path: Path::top(levels[0].uid),
            home: NodeId(1),
            born_ms: 0,
            until: Time(1),
            callers: Vec::new(),
            executed: Vec::new(),
            levels: levels.to_vec(),
        };
        Cargo {
            size_bytes: 0,
            actions: roots.iter().map(action).collect(),
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        const WRITE: Option<Mode> = Some(Mode::Write);
        const READ: Option<Mode> = Some(Mode::Read);
        let root = level(1, None, WRITE);
        let good = cargo(&[&[
            level(1, None, READ),
            level(2, Some(0), WRITE),
            level(3, Some(1), WRITE),
        ]]);
        assert_eq!(good.check(), Ok(()));
        assert_eq!(Cargo::default().check(), Ok(()));
        let bad: [&[&[CargoLevel]]; 9] = [
            &[&[level(1, Some(0), WRITE)]],
            &[&[level(1, None, None)]],
            &[&[root, level(2, None, WRITE)]],
            &[&[root, level(2, Some(1), WRITE)]],
            &[&[root, level(2, Some(7), WRITE)]],
            &[&[root, level(1, Some(0), WRITE)]],
            &[&[root], &[level(2, None, READ)]],
            &[&[
                level(1, None, None),
                level(2, Some(0), WRITE),
                level(3, Some(0), READ),
            ]],
            &[&[level(1, None, READ)], &[level(1, None, READ)]],
        ];
        for levels in bad {
            let cargo = cargo(levels);
            assert!(cargo.check().is_err(), "{cargo:?}");
        }
        let mut unlocked = cargo(&[&[level(1, None, READ)]]);
        unlocked.actions[0].levels[0].image = Some(CargoImage {
            changed: false,
            size_bytes: 1,
        });
        assert!(unlocked.check().is_err());
        let mut elsewhere = good.clone();
        elsewhere.actions[0].path = Path::top(uid(9));
        assert!(elsewhere.check().is_err());
        elsewhere.actions[0].path = Path::top(uid(1)).outside();
        assert!(elsewhere.check().is_err());
    }

    #[test]
    fn levels_are_nested_as_deeply_as_paths_are_long() {
        let mut levels = vec![level(1, None, None)];
        for depth in 1..PATH_MAX {
            levels.push(level(depth as u64 + 1, Some(depth as u32 - 1), None));
        }
        levels[PATH_MAX - 1].lock = Some(CargoLock {
            mode: Mode::Write,
            retained: true,
        });
        assert_eq!(cargo(&[&levels]).check(), Ok(()));
        levels.push(level(1_000, Some(PATH_MAX as u32 - 1), None));
        assert!(cargo(&[&levels]).check().is_err());
    }
}
