//! Objects that come: carries out [`crate::migrate::arrivals`].

use super::{Drain, Engine, Mutation};
use crate::action::mirror::{Before, Ending};
use crate::action::path::{Joined, Path, Site};
use crate::activation::{self, Image};
use crate::id::{Peer, Uid};
use crate::lock::locks::{Holding, Owner};
use crate::lock::mode::Mode;
use crate::migrate::arrivals::{Arrival, State};
use crate::migrate::{Cargo, CargoAction};
use crate::outbox::Outbox;
use crate::output::{Event, ObjectSlot, Output, Refusal};
use crate::slab::Slot;
use crate::time::Time;

impl Engine {
    /// An object is to come.
    pub(super) fn arrive(&mut self, uid: Uid, action: Uid, from: Site, out: &mut Outbox) {
        let result = self.may_arrive(uid, action);
        if result.is_err() {
            return out.push(Output::Arriving {
                uid,
                action,
                result,
            });
        }
        let arrival = Arrival {
            uid,
            coordinator: from,
            state: State::Waiting,
        };
        self.arrivals.rows.insert(action, arrival);
        self.arrivals.waiting += 1;
        self.arrival_goes_on(action, out);
    }

    fn may_arrive(&self, uid: Uid, action: Uid) -> Result<(), Refusal> {
        if self.drain != Drain::No {
            return Err(Refusal::Draining);
        }
        if self.tombstones.find(action).is_some() {
            return Err(self.aborted(action));
        }
        if self.mirrors.find_level(action).is_some() || self.arrivals.rows.contains_key(&action) {
            return Err(Refusal::Repeated);
        }
        if self.departures.of(uid).is_some() || self.arrivals.brings(uid) {
            return Err(Refusal::Exists);
        }
        let full = |what, limit: u32| {
            let limit = limit.into();
            Err(Refusal::Overloaded { what, limit })
        };
        if self.arrivals.len() >= self.limits.moves_max as usize {
            return full("objects that come to this shard", self.limits.moves_max);
        }
        if self.mirrors.len() + self.decisions.len() >= self.limits.actions_max as usize {
            return full("actions on this shard", self.limits.actions_max);
        }
        Ok(())
    }

    /// Whether it waits for its object's entry to go.
    pub(super) fn is_waiting_to_arrive(&self, action: Uid) -> bool {
        let row = self.arrivals.rows.get(&action);
        row.is_some_and(|row| matches!(row.state, State::Waiting))
    }

    /// Looks at those that wait for their object's entry to go; whether one goes on.
    pub(super) fn arrivals_go_on(&mut self, out: &mut Outbox) -> bool {
        let waits = |arrival: &Arrival| matches!(arrival.state, State::Waiting);
        let rows = self.arrivals.rows.iter();
        let waiting = rows.filter(|(_, arrival)| waits(arrival));
        let waiting: Vec<Uid> = waiting.map(|(action, _)| *action).collect();
        let mut any = false;
        for action in waiting {
            any |= self.arrival_goes_on(action, out);
        }
        any
    }

    /// The calls that came before their object are gone: from now on they wait.
    fn arrival_goes_on(&mut self, action: Uid, out: &mut Outbox) -> bool {
        let uid = self.arrivals.rows[&action].uid;
        if let Some(object) = self.objects.slot(uid) {
            let entry = self.objects.entry(object);
            let here = match entry.image {
                Image::Active | Image::Making => true,
                Image::Passive | Image::Activating => entry.is_volatile(),
            };
            if here {
                self.refuse_arrival(action, Refusal::Exists, out);
            }
            return here;
        }
        let key = Self::lock_key(uid);
        let holders: Vec<Owner> = self.locks.holders(key).map(|held| held.owner).collect();
        if let Some(owner) = holders.iter().find(|owner| self.is_prepared(**owner)) {
            let (owner, in_doubt) = (self.name_of(*owner), true);
            self.refuse_arrival(action, Refusal::LockTimeout { owner, in_doubt }, out);
            return true;
        }
        // What was asked for where the object was not has no meaning.
        for owner in holders {
            self.release(uid, owner, out);
        }
        self.expect(uid, action, out);
        true
    }

    pub(super) fn refuse_arrival(&mut self, action: Uid, why: Refusal, out: &mut Outbox) {
        let arrival = self.arrivals.remove(action);
        let uid = arrival.expect("what is refused was to come").uid;
        let result = Err(why);
        out.push(Output::Arriving {
            uid,
            action,
            result,
        });
    }

    /// The move is prepared here, as far as calls are concerned.
    fn expect(&mut self, uid: Uid, action: Uid, out: &mut Outbox) {
        let row = self.arrivals.rows.get_mut(&action);
        let row = row.expect("what is expected is to come");
        row.state = State::Expected;
        let coordinator = row.coordinator;
        self.arrivals.waiting -= 1;
        let slot = self
            .mirrors
            .insert(Path::top(action), Time::NEVER, self.now);
        let root = self.mirrors.mirror(slot).root;
        if self.mutation != Mutation::ServeEarly {
            self.lock_recovered(root, uid);
        }
        let mirror = self.mirrors.mirror_mut(slot);
        (mirror.updated, mirror.plain) = (true, true);
        self.bind_stored(slot, coordinator.into());
        let due = self.resend_at(self.limits.resend_ns);
        self.mirrors.set_due(slot, due);
        let result = Ok(());
        out.push(Output::Arriving {
            uid,
            action,
            result,
        });
    }

    /// All that is durable of it is here; what running actions have of it is taken in.
    pub(super) fn unload(&mut self, uid: Uid, action: Uid, cargo: Box<Cargo>, out: &mut Outbox) {
        let result = self.may_unload(uid, action, &cargo, out);
        let result = result.map(|()| self.take_in(uid, action, cargo));
        if let Err(Refusal::Overloaded { what, limit }) = result {
            out.push(Output::Event(Event::Overloaded { what, limit }));
        }
        out.push(Output::Unloaded {
            uid,
            action,
            result,
        });
    }

    fn may_unload(
        &mut self,
        uid: Uid,
        action: Uid,
        cargo: &Cargo,
        out: &mut Outbox,
    ) -> Result<(), Refusal> {
        let row = self.arrivals.rows.get(&action).filter(|row| row.uid == uid);
        let Some(row) = row else {
            return Err(self.aborted(action));
        };
        match row.state {
            State::Expected => {}
            State::Waiting | State::Unloaded { .. } => return Err(Refusal::Repeated),
        }
        if self.drain != Drain::No {
            return Err(Refusal::Draining);
        }
        let full = |what, limit: u32| {
            let limit = limit.into();
            Err(Refusal::Overloaded { what, limit })
        };
        let limits = self.limits;
        if cargo.levels().count() > limits.cargo_levels_max as usize {
            return full("levels in a cargo", limits.cargo_levels_max);
        }
        cargo.check().map_err(|what| Refusal::Malformed { what })?;
        let mut new = 0;
        for action in &cargo.actions {
            new += u32::from(self.may_go_on(uid, action, out)?);
        }
        let actions = self.mirrors.len() + self.decisions.len() + new as usize;
        if actions > limits.actions_max as usize {
            return full("actions on this shard", limits.actions_max);
        }
        if cargo.has_images() && self.objects.slot(uid).is_none() {
            self.room_for_one(out)?;
        }
        Ok(())
    }

    /// Whether an action can go on here; and whether it has no part here yet.
    fn may_go_on(
        &mut self,
        uid: Uid,
        action: &CargoAction,
        out: &mut Outbox,
    ) -> Result<bool, Refusal> {
        let root = action.root().unwrap_or_default();
        let maker = Peer {
            node: root.node,
            incarnation: root.incarnation(),
        };
        let over = self.check_maker(maker, out).is_err() || action.until <= self.now;
        let limits = &self.limits;
        let mirror = self.mirrors.find(root);
        let ended = |level: &Uid| {
            let dead = self.tombstones.find(*level).is_some();
            let known = self.mirrors.find_level(*level);
            let ends = known.is_some_and(|at| self.mirrors.level(at).ending == Ending::Aborting);
            ends || dead
        };
        let ends = mirror.is_some_and(|at| !self.mirrors.mirror(at).is_active());
        if over || ends || action.levels.iter().any(|level| ended(&level.uid)) {
            return Err(self.aborted(root));
        }
        if self.late.contains_key(&root) {
            // It is about to end, and waits for a move already.
            let (owner, in_doubt) = (root, true);
            return Err(Refusal::LockTimeout { owner, in_doubt });
        }
        let mut new_levels = 0;
        for level in &action.levels {
            let parent = level.parent.and_then(|at| action.levels.get(at as usize));
            let parent = parent.map(|parent| parent.uid);
            match self.mirrors.find_level(level.uid) {
                None => new_levels += 1,
                Some(at) => {
                    let known = self.mirrors.level(at);
                    let above = known.parent.map(|at| self.mirrors.level(at).uid);
                    if Some(known.mirror) != mirror || above != parent {
                        let what = "an action is nested in another one here";
                        return Err(Refusal::Malformed { what });
                    }
                    if known.locks.contains_key(&uid) {
                        let what = "an action has a lock of what is not here";
                        return Err(Refusal::Malformed { what });
                    }
                }
            }
        }
        let known = mirror.map(|at| self.mirrors.mirror(at));
        let count = |of: fn(&crate::action::mirror::Mirror) -> usize| known.map_or(0, of);
        let executed = count(|it| it.executed.len()) + action.executed.len();
        let levels = count(|it| it.levels as usize) + new_levels;
        let locks = count(|it| it.locks as usize) + action.levels.len();
        let callers = action.callers.len();
        let bounds = [
            ("nested actions in this action", levels, limits.levels_max),
            ("objects in this action", locks, limits.action_objects_max),
            ("writes in this action", executed, limits.action_writes_max),
            ("callers of this action", callers, limits.participants_max),
        ];
        match bounds.iter().find(|(_, is, max)| *is > *max as usize) {
            Some((what, _, limit)) => {
                let (what, limit) = (*what, (*limit).into());
                Err(Refusal::Overloaded { what, limit })
            }
            None => Ok(mirror.is_none()),
        }
    }

    /// The actions of the cargo get their mirrors and levels.
    fn take_in(&mut self, uid: Uid, action: Uid, cargo: Box<Cargo>) -> Vec<(Uid, Joined)> {
        let mut pinned = Vec::new();
        let joined = cargo.actions.iter().filter_map(|action| {
            let root = action.root()?;
            let mirror = self.take_in_action(root, action, &mut pinned);
            let mut joined = self.mirrors.mirror(mirror).joined();
            let changed = |image: crate::migrate::CargoImage| image.changed;
            joined.updated |= action.levels.iter().any(|it| it.image.is_some_and(changed));
            Some((root, joined))
        });
        let joined = joined.collect();
        if cargo.has_images() {
            let object = self.objects.slot(uid).unwrap_or_else(|| self.enter(uid));
            // Nobody has the lock but the move, so nobody can want it before it is there.
            self.change_image(object, activation::Cue::Wanted { create: true });
            self.objects.set_size(object, cargo.size_bytes);
        }
        let row = self.arrivals.rows.get_mut(&action);
        let row = row.expect("what is unloaded is expected");
        row.state = State::Unloaded { cargo, pinned };
        joined
    }

    fn take_in_action(&mut self, root: Uid, it: &CargoAction, pinned: &mut Vec<Uid>) -> Slot {
        let slot = self.mirrors.find(root).unwrap_or_else(|| {
            let slot = self.mirrors.insert(it.path.clone(), it.until, self.now);
            let mirror = self.mirrors.mirror_mut(slot);
            (mirror.home, mirror.born_ms) = (it.home, it.born_ms);
            mirror.for_cargo = true;
            slot
        });
        let mut places = Vec::with_capacity(it.levels.len());
        for level in &it.levels {
            let known = self.mirrors.find_level(level.uid);
            let parent = level.parent.map(|at| places[at as usize]);
            let at = known.unwrap_or_else(|| self.mirrors.insert_level(level.uid, slot, parent));
            places.push(at);
            if level.lock.is_some() {
                self.mirrors.pin(at);
                pinned.push(level.uid);
            }
        }
        for caller in &it.callers {
            let max = self.limits.participants_max;
            self.mirrors.note_caller(slot, *caller, max);
        }
        let mirror = self.mirrors.mirror_mut(slot);
        mirror.executed.extend(&it.executed);
        mirror.until = mirror.until.min(it.until);
        let until = mirror.until;
        self.mirrors.set_due(slot, until);
        slot
    }

    /// The object is here, and that is on disk: the actions of the cargo get what they have of
    /// it, before the lock of the move goes. The levels that are to be unpinned then.
    pub(super) fn arrived(&mut self, action: Uid, out: &mut Outbox) -> Vec<Uid> {
        let Some(arrival) = self.arrivals.remove(action) else {
            return Vec::new();
        };
        let (uid, from) = (arrival.uid, arrival.coordinator);
        let State::Unloaded { cargo, pinned } = arrival.state else {
            out.push(Output::NotArrived { uid, action });
            return Vec::new();
        };
        for action in &cargo.actions {
            self.hand_over(uid, action);
        }
        let mut slot = None;
        if cargo.has_images() {
            let object = self.objects.slot(uid);
            let object = object.expect("what comes with its image has an entry");
            self.change_image(object, activation::Cue::Made);
            slot = Some(ObjectSlot(object.0));
        }
        out.push(Output::Arrived { uid, action, slot });
        let actions = cargo.actions.len();
        out.push(Output::Event(Event::Arrived { uid, from, actions }));
        pinned
    }

    /// An action gets what it has of an object that came.
    fn hand_over(&mut self, uid: Uid, action: &CargoAction) {
        for level in &action.levels {
            let Some(slot) = self.mirrors.find_level(level.uid) else {
                continue;
            };
            if level.merging && self.mirrors.level(slot).ending == Ending::Open {
                self.mirrors.level_mut(slot).ending = Ending::Merging;
            }
            if let Some(lock) = level.lock {
                self.bring_lock(uid, slot, (lock.mode, lock.retained));
            }
            if let Some(image) = level.image {
                let before = Before {
                    create: false,
                    changed: image.changed,
                    replicated: false,
                    size_bytes: image.size_bytes,
                };
                let at = self.mirrors.level_mut(slot);
                at.images.insert(uid, before);
                let mirror = at.mirror;
                let mirror = self.mirrors.mirror_mut(mirror);
                mirror.updated |= image.changed;
                mirror.plain |= image.changed;
            }
        }
        if let Some(mirror) = action.root().and_then(|root| self.mirrors.find(root)) {
            self.mirrors.mirror_mut(mirror).for_cargo = false;
        }
    }

    pub(super) fn bring_lock(&mut self, uid: Uid, level: Slot, (mode, retained): (Mode, bool)) {
        if self.mutation == Mutation::LeaveLocks {
            return;
        }
        let owner = Owner::level(level.0);
        let holding = Holding {
            owner,
            mode,
            retained,
        };
        let kin = super::locking::kin(&self.mirrors, self.mutation);
        self.locks.bring(Self::lock_key(uid), holding, &kin);
        self.mirrors.add_lock(level, uid, self.now);
        if let Some(object) = self.objects.slot(uid) {
            self.objects.entry_mut(object).held += 1;
            self.note_move(object, owner);
        }
    }

    /// A move is aborted here: what came with it goes. The levels that are to be unpinned then.
    pub(super) fn arrival_aborted(&mut self, action: Uid, out: &mut Outbox) -> Vec<Uid> {
        let Some(arrival) = self.arrivals.remove(action) else {
            return Vec::new();
        };
        let uid = arrival.uid;
        out.push(Output::NotArrived { uid, action });
        let State::Unloaded { cargo, pinned } = arrival.state else {
            return Vec::new();
        };
        self.drop_image_to_come(uid, &cargo, out);
        pinned
    }

    fn drop_image_to_come(&mut self, uid: Uid, cargo: &Cargo, out: &mut Outbox) {
        if let Some(object) = self.objects.slot(uid).filter(|_| cargo.has_images()) {
            self.change_image(object, activation::Cue::Dropped);
            self.objects.set_size(object, 0);
            self.left_by_call(object, out);
        }
    }

    /// Drops what came with objects that are not here yet, and aborts the actions that it is of:
    /// for a node that stops when nothing is left to do but to wait for them, which finds the
    /// objects again at its next start. Whether there was any.
    pub(super) fn drop_cargos(
        &mut self,
        which: impl Fn(&Arrival) -> bool,
        out: &mut Outbox,
    ) -> bool {
        let rows = self.arrivals.rows.iter();
        let all = rows.filter(|(_, arrival)| which(arrival));
        let all: Vec<Uid> = all.map(|(action, _)| *action).collect();
        for action in &all {
            let roots: Vec<Uid> = match &self.arrivals.rows[action].state {
                State::Unloaded { cargo, .. } => {
                    cargo.actions.iter().filter_map(CargoAction::root).collect()
                }
                State::Waiting | State::Expected => Vec::new(),
            };
            for root in roots {
                let found = self.mirrors.find(root);
                let active = found.filter(|at| self.mirrors.mirror(*at).is_active());
                if let Some(slot) = active {
                    self.abort_mirror(slot, out);
                }
            }
            let pinned = self.arrival_aborted(*action, out);
            self.unpin(&pinned, out);
        }
        !all.is_empty()
    }
}
