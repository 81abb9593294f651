//! One lock: its holders and its queue.
//!
//! The first holder is kept inline; more than one, or a queue, are in a box of their own. Holders
//! are counted by mode, so that one reader among thousands costs no walk. Requests and entries
//! carry the root of their owner's family, so that strangers are told apart by a comparison.

use std::collections::{BTreeMap, VecDeque};

use super::{Acquired, Asker, Family, Grant, Granted, Holding, LockKey, Mode, Owner, Request};

/// What an owner has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grip {
    owner: Owner,
    root: Owner,
    mode: Mode,
    retained: bool,
}

impl Grip {
    pub(super) fn of(waiter: &Waiter) -> Self {
        Self {
            owner: waiter.request.owner,
            root: waiter.root,
            mode: waiter.request.mode,
            retained: false,
        }
    }

    pub(super) fn brought(holding: Holding, family: &impl Family) -> Self {
        let Holding {
            owner,
            mode,
            retained,
        } = holding;
        let root = family.root(owner);
        Self {
            owner,
            root,
            mode,
            retained,
        }
    }

    pub(super) fn holding(self) -> Holding {
        Holding {
            owner: self.owner,
            mode: self.mode,
            retained: self.retained,
        }
    }
}

/// A request and what is known about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiter {
    pub(super) request: Request,
    root: Owner,
    /// Whether its owner has had the lock in a weaker mode while it waited.
    converts: bool,
}

impl Waiter {
    pub(super) fn new(request: Request, family: &impl Family) -> Self {
        let owner = request.owner;
        Self {
            request,
            root: if owner.is_level() {
                family.root(owner)
            } else {
                owner
            },
            converts: false,
        }
    }

    /// Whether something of `owner`, which belongs to the family of `root`, is no obstacle to it.
    fn is_within(&self, owner: Owner, root: Owner, family: &impl Family) -> bool {
        let own = self.request.owner;
        owner == own || (root == self.root && family.includes(owner, own))
    }

    /// Whether it can pass one that is ahead of it: a call outside actions that did not say so
    /// cannot.
    fn may_pass(&self) -> bool {
        self.request.passes || self.request.owner.is_level()
    }
}

/// A set of modes.
#[derive(Clone, Copy)]
struct Modes(u8);

impl Modes {
    const NONE: Self = Self(0);

    fn add(&mut self, mode: Mode) {
        self.0 |= 1 << mode as u8;
    }

    fn exclude(self, asked: Mode) -> bool {
        let held = |mode: &Mode| self.0 & 1 << *mode as u8 != 0;
        Mode::ALL
            .iter()
            .any(|mode| held(mode) && mode.excludes(asked))
    }
}

/// One lock.
#[derive(Debug)]
pub(super) struct Lock {
    key: LockKey,
    /// None only within an input.
    first: Option<Grip>,
    crowd: Option<Box<Crowd>>,
}

/// What most locks do not have.
#[derive(Debug, Default)]
struct Crowd {
    others: BTreeMap<Owner, Grip>,
    /// Of `others`, by mode.
    held: [u32; Mode::ALL.len()],
    /// Conversions first.
    waiters: VecDeque<Waiter>,
    /// Of `waiters`, those that may pass another.
    passers: u32,
}

impl Lock {
    pub(super) fn held_by(key: LockKey, grip: Grip) -> Self {
        Self {
            key,
            first: Some(grip),
            crowd: None,
        }
    }

    pub(super) fn key(&self) -> LockKey {
        self.key
    }

    pub(super) fn is_free(&self) -> bool {
        self.first.is_none()
    }

    pub(super) fn holders(&self) -> impl Iterator<Item = Grip> + '_ {
        let others = self.crowd.iter().flat_map(|crowd| crowd.others.values());
        self.first.iter().chain(others).copied()
    }

    pub(super) fn waiters(&self) -> impl Iterator<Item = &Waiter> + '_ {
        self.crowd.iter().flat_map(|crowd| &crowd.waiters)
    }

    pub(super) fn grip(&self, owner: Owner) -> Option<Grip> {
        match &self.first {
            Some(first) if first.owner == owner => Some(*first),
            Some(_) | None => self.crowd.as_ref()?.others.get(&owner).copied(),
        }
    }

    /// Grants a request or queues it. Either can let relatives of its owner pass whoever is ahead
    /// of them, since that one must wait for the family now.
    pub(super) fn ask(
        &mut self,
        mut waiter: Waiter,
        family: &impl Family,
        granted: &mut Vec<Granted>,
    ) -> Acquired {
        let Request { owner, asker, .. } = waiter.request;
        debug_assert!(
            self.waiters().all(|other| other.request.asker != asker),
            "{asker:?} asks for {:?} twice",
            self.key
        );
        waiter.converts = self.grip(owner).is_some();
        let queue = self.crowd.as_ref().map_or(0, |crowd| crowd.waiters.len());
        let obstructed = self.is_obstructed(&waiter, queue, family);
        let acquired = if obstructed {
            self.enqueue(waiter);
            Acquired::Waits
        } else {
            Acquired::Granted(self.grant(&waiter))
        };
        let last = obstructed && !waiter.converts;
        if queue > 0 && owner.is_level() && !last {
            self.settle(family, granted);
        }
        acquired
    }

    /// Takes a request out of the queue.
    pub(super) fn leave(&mut self, asker: Asker) {
        let at = self.place_of(asker);
        self.take(at);
    }

    /// Takes an owner's entry away.
    pub(super) fn let_go(&mut self, owner: Owner) -> Grip {
        let crowd = self.crowd.as_mut();
        match self.first {
            Some(first) if first.owner == owner => {
                let next = crowd.and_then(|crowd| crowd.others.pop_first().map(|(_, grip)| grip));
                if let (Some(next), Some(crowd)) = (next, self.crowd.as_mut()) {
                    crowd.held[next.mode as usize] -= 1;
                }
                self.first = next;
                first
            }
            Some(_) | None => {
                let crowd = crowd.expect("only a holder lets go");
                let grip = crowd.others.remove(&owner);
                let grip = grip.expect("only a holder lets go");
                crowd.held[grip.mode as usize] -= 1;
                grip
            }
        }
    }

    /// Gives the child's entry to its parent.
    pub(super) fn pass_on(&mut self, child: Owner, parent: Owner) {
        let grip = self.let_go(child);
        if let Some(own) = self.grip(parent) {
            self.raise(parent, own.mode.max(grip.mode), own.retained);
            return;
        }
        self.hold(Grip {
            owner: parent,
            retained: true,
            ..grip
        });
        self.bring_forward(parent);
    }

    /// Adds an entry that an owner had elsewhere.
    pub(super) fn bring(&mut self, grip: Grip) {
        assert!(self.grip(grip.owner).is_none(), "{grip:?} is here already");
        self.hold(grip);
        self.bring_forward(grip.owner);
    }

    /// Grants what can be granted now. A grant can let others of the same family pass whoever is
    /// ahead of them, so after one to a level the queue is looked at from its front.
    pub(super) fn settle(&mut self, family: &impl Family, granted: &mut Vec<Granted>) {
        let mut at = 0;
        while let Some(waiter) = self.waiter(at) {
            if self.is_obstructed(&waiter, at, family) {
                if self.nobody_passes(waiter.request.mode) {
                    return;
                }
                at += 1;
                continue;
            }
            self.take(at);
            let Request { asker, owner, .. } = waiter.request;
            let grant = self.grant(&waiter);
            granted.push(Granted {
                asker,
                owner,
                grant,
            });
            if owner.is_level() {
                at = 0;
            }
        }
    }

    /// Appends whom a waiting request waits for.
    pub(super) fn blockers(&self, asker: Asker, family: &impl Family, found: &mut Vec<Owner>) {
        let at = self.place_of(asker);
        let waiter = self.waiter(at).expect("the place was found just now");
        let mut own = Vec::new();
        self.obstacles(&waiter, at, family, |owner| {
            own.push(owner);
            false
        });
        own.sort_unstable();
        own.dedup();
        found.append(&mut own);
    }

    /// Panics if an invariant does not hold.
    pub(super) fn check(&self, family: &impl Family) {
        let key = self.key;
        assert!(self.first.is_some(), "nobody holds {key:?}");
        for a in self.holders() {
            for b in self.holders().filter(|b| b.owner != a.owner) {
                let related = a.root == b.root
                    && (family.includes(a.owner, b.owner) || family.includes(b.owner, a.owner));
                let clash = a.mode.excludes(b.mode) && !related;
                assert!(!clash, "{key:?} is held by {a:?} and by {b:?}");
            }
        }
        for (at, waiter) in self.waiters().enumerate() {
            assert!(
                self.is_obstructed(waiter, at, family),
                "{waiter:?} waits for {key:?} without a reason"
            );
        }
        let Some(crowd) = &self.crowd else { return };
        for mode in Mode::ALL {
            let count = crowd.others.values().filter(|grip| grip.mode == mode);
            assert!(
                crowd.held[mode as usize] as usize == count.count(),
                "{key:?} is miscounted"
            );
        }
        let passers = crowd.waiters.iter().filter(|waiter| waiter.may_pass());
        assert!(
            crowd.passers as usize == passers.count(),
            "waiters for {key:?} are miscounted"
        );
    }

    fn is_obstructed(&self, waiter: &Waiter, ahead: usize, family: &impl Family) -> bool {
        let excludes = |first: &Grip| first.mode.excludes(waiter.request.mode);
        if let Some(first) = self.first.filter(excludes)
            && first.root != waiter.root
        {
            return true;
        }
        let mut obstructed = false;
        self.obstacles(waiter, ahead, family, |_| {
            obstructed = true;
            true
        });
        obstructed
    }

    /// Whom a request must wait for with `ahead` others in front of it, not each only once, until
    /// `enough` says so.
    fn obstacles(
        &self,
        waiter: &Waiter,
        ahead: usize,
        family: &impl Family,
        mut enough: impl FnMut(Owner) -> bool,
    ) {
        let Request { mode, passes, .. } = waiter.request;
        if self.is_held_against(mode) {
            for grip in self.holders().filter(|grip| grip.mode.excludes(mode)) {
                if !waiter.is_within(grip.owner, grip.root, family) && enough(grip.owner) {
                    return;
                }
            }
        }
        let Some(crowd) = self.crowd.as_deref() else {
            return;
        };
        if ahead == 0 || passes {
            return;
        }
        let Some(mut own_modes) = self.modes_of_family(waiter, family) else {
            return;
        };
        for other in crowd.waiters.range(..ahead) {
            let (asked, owner) = (other.request.mode, other.request.owner);
            let waits_for_us = other.root != waiter.root && own_modes.exclude(asked);
            if waits_for_us || other.root == waiter.root {
                own_modes.add(asked);
            }
            let stands_behind = asked.excludes(mode)
                && !waits_for_us
                && !waiter.is_within(owner, other.root, family);
            if stands_behind && enough(owner) {
                return;
            }
        }
    }

    /// In which modes other levels of the waiter's family have the lock; none if the waiter's
    /// owner or an ancestor has it, so that it passes the queue.
    fn modes_of_family(&self, waiter: &Waiter, family: &impl Family) -> Option<Modes> {
        let mut modes = Modes::NONE;
        if !waiter.request.owner.is_level() {
            return self.grip(waiter.request.owner).is_none().then_some(modes);
        }
        for grip in self.holders().filter(|grip| grip.root == waiter.root) {
            if waiter.is_within(grip.owner, grip.root, family) {
                return None;
            }
            modes.add(grip.mode);
        }
        Some(modes)
    }

    /// Whether some entry excludes the mode, whosever it is.
    fn is_held_against(&self, mode: Mode) -> bool {
        let first = self.first.is_some_and(|first| first.mode.excludes(mode));
        let others = self.crowd.as_deref().is_some_and(|crowd| {
            let held = |other: &Mode| crowd.held[*other as usize] > 0 && other.excludes(mode);
            Mode::ALL.iter().any(held)
        });
        first || others
    }

    /// Whether everybody behind one that waits in this mode waits too.
    fn nobody_passes(&self, mode: Mode) -> bool {
        let passers = self.crowd.as_ref().map_or(0, |crowd| crowd.passers);
        mode == Mode::Write && passers == 0
    }

    fn waiter(&self, at: usize) -> Option<Waiter> {
        self.crowd.as_ref()?.waiters.get(at).copied()
    }

    fn place_of(&self, asker: Asker) -> usize {
        let place = self
            .waiters()
            .position(|waiter| waiter.request.asker == asker);
        place.unwrap_or_else(|| panic!("{asker:?} does not wait for {:?}", self.key))
    }

    fn take(&mut self, at: usize) {
        let crowd = self.crowd.as_mut().expect("whoever waits is in the crowd");
        let waiter = crowd.waiters.remove(at).expect("the place is taken");
        crowd.passers -= u32::from(waiter.may_pass());
    }

    fn enqueue(&mut self, waiter: Waiter) {
        let crowd = self.crowd.get_or_insert_default();
        let at = if waiter.converts {
            crowd.waiters.partition_point(|other| other.converts)
        } else {
            crowd.waiters.len()
        };
        crowd.passers += u32::from(waiter.may_pass());
        crowd.waiters.insert(at, waiter);
    }

    /// Makes or strengthens the owner's entry.
    fn grant(&mut self, waiter: &Waiter) -> Grant {
        let Request { owner, mode, .. } = waiter.request;
        let Some(own) = self.grip(owner) else {
            self.hold(Grip::of(waiter));
            self.bring_forward(owner);
            return Grant::Fresh;
        };
        self.raise(owner, own.mode.max(mode), false);
        if own.mode < mode {
            Grant::Converted
        } else {
            Grant::Present
        }
    }

    /// Adds an entry for an owner that has none.
    fn hold(&mut self, grip: Grip) {
        if self.first.is_none() {
            self.first = Some(grip);
            return;
        }
        let crowd = self.crowd.get_or_insert_default();
        crowd.held[grip.mode as usize] += 1;
        let before = crowd.others.insert(grip.owner, grip);
        debug_assert!(before.is_none(), "{grip:?} is held twice");
    }

    /// Changes the entry of an owner that has one.
    fn raise(&mut self, owner: Owner, mode: Mode, retained: bool) {
        let grip = match &mut self.first {
            Some(first) if first.owner == owner => first,
            Some(_) | None => {
                let crowd = self.crowd.as_mut().expect("only a holder is raised");
                let grip = crowd.others.get_mut(&owner);
                let grip = grip.expect("only a holder is raised");
                crowd.held[grip.mode as usize] -= 1;
                crowd.held[mode as usize] += 1;
                grip
            }
        };
        (grip.mode, grip.retained) = (mode, retained);
    }

    /// An owner got an entry: what it waits for otherwise are conversions now.
    fn bring_forward(&mut self, owner: Owner) {
        let Some(crowd) = self.crowd.as_mut().filter(|_| owner.is_level()) else {
            return;
        };
        let mut moved = false;
        for waiter in &mut crowd.waiters {
            if waiter.request.owner == owner && !waiter.converts {
                (waiter.converts, moved) = (true, true);
            }
        }
        if moved {
            let waiters = crowd.waiters.make_contiguous();
            waiters.sort_by_key(|waiter| !waiter.converts);
        }
    }
}
