//! Objects that leave: carries out [`crate::migrate::departures`].

use super::work::Work;
use super::{Drain, Engine, Mutation};
use crate::action::coordinator::News;
use crate::action::message::Message;
use crate::action::mirror::Ending;
use crate::action::path::{Address, Joined, Participant, Site};
use crate::action::tombstone::Fate;
use crate::activation::{self, Image, Kind};
use crate::call::Stage;
use crate::id::{Incarnation, Uid};
use crate::input::{Fault, Input, Job};
use crate::lock::locks::Owner;
use crate::migrate::departures::{self, Cue, Departure, Next, State};
use crate::migrate::{Cargo, CargoAction, CargoImage, CargoLevel, CargoLock, NotShipped, Stays};
use crate::outbox::Outbox;
use crate::output::{ActionBatch, Answer, Event, Output, Refusal};
use crate::slab::Slot;
use crate::time::Time;

impl Engine {
    /// Something about a move happened; other inputs are none of its business.
    pub(super) fn moving(&mut self, input: Input, out: &mut Outbox) {
        if let Input::Depart {
            uid,
            action,
            to,
            to_incarnation,
            until,
        } = input
        {
            if let Err(why) = self.depart(uid, action, (to, to_incarnation), until, out) {
                out.push(Output::Stays { uid, action, why });
            }
        } else if let Input::Shipped { action, result, .. } = input {
            self.shipped(action, result, out);
        } else if let Input::Arrive {
            uid,
            action,
            coordinator,
        } = input
        {
            self.arrive(uid, action, coordinator, out);
        } else if let Input::Unload { uid, action, cargo } = input {
            self.unload(uid, action, cargo, out);
        }
    }

    /// An object is to leave: from now on its calls are held back.
    fn depart(
        &mut self,
        uid: Uid,
        action: Uid,
        (to, to_incarnation): (Site, Incarnation),
        until: Time,
        out: &mut Outbox,
    ) -> Result<(), Stays> {
        if self.drain != Drain::No {
            return Err(Stays::Draining);
        }
        if to == self.identity.site() {
            return Err(Stays::Here);
        }
        let known = self.departures.of(uid).is_some() || self.departures.contains(action);
        if known || self.arrivals.brings(uid) {
            return Err(Stays::Departing);
        }
        let limit = self.limits.moves_max;
        if self.departures.len() >= limit as usize {
            let (what, limit) = ("objects that leave this shard", limit.into());
            return Err(Stays::Overloaded { what, limit });
        }
        // The decision will be told until the target has acknowledged it.
        let actions = self.mirrors.len() + self.decisions.len() + self.departures.len();
        let limit = self.limits.actions_max;
        if actions >= limit as usize {
            let (what, limit) = ("actions on this shard", limit.into());
            return Err(Stays::Overloaded { what, limit });
        }
        let object = match self.objects.slot(uid) {
            Some(object) if self.objects.entry(object).is_volatile() => {
                return Err(Stays::Volatile);
            }
            // Its copies are changed one by one.
            Some(object)
                if self.objects.entry(object).is_replicated()
                    || self.objects.entry(object).is_expelled() =>
            {
                return Err(Stays::Busy);
            }
            Some(object) => object,
            None => match self.room_for_one(out) {
                Ok(()) => self.enter(uid),
                Err(Refusal::Overloaded { what, limit }) => {
                    return Err(Stays::Overloaded { what, limit });
                }
                Err(_) => return Err(Stays::Busy),
            },
        };
        self.objects.set_busy(object);
        // The move counts as a call: the object does not leave memory, nor its entry the table.
        let entry = self.objects.entry_mut(object);
        entry.kind = Kind::Leaving;
        entry.calls += 1;
        let departure = Departure {
            uid,
            object,
            to,
            to_incarnation,
            state: State::Waiting,
            due: until,
            levels: Vec::new(),
            pinned: Vec::new(),
            roots: Vec::new(),
            joined: Vec::new(),
        };
        self.departures.insert(action, departure);
        Ok(())
    }

    /// Whether a call that could run now must not, since its object is to leave: one that a
    /// running method of the object waits for must, or that one would never end.
    pub(super) fn is_held_back(&self, slot: Slot) -> bool {
        let leader = self.calls.leader(slot);
        if !self.objects.entry(leader.object).is_leaving() {
            return false;
        }
        let departure = self.departures.of(leader.uid);
        let (_, departure) = departure.expect("what is leaving has a move");
        if departure.state == State::Waiting {
            return !leader.called_back();
        }
        self.mutation != Mutation::RunWhileMoving
    }

    /// Looks at the objects that wait to leave, if anything happened to one; whether one goes on.
    pub(super) fn moves_go_on(&mut self, out: &mut Outbox) -> bool {
        let looked = core::mem::take(&mut self.departures.look);
        let mut any = self.arrivals.waiting > 0 && self.arrivals_go_on(out);
        if looked {
            let waiting = self.departures.iter();
            let waiting = waiting.filter(|(_, departure)| departure.state == State::Waiting);
            let waiting: Vec<Uid> = waiting.map(|(action, _)| action).collect();
            for action in waiting {
                any |= self.ship_if_still(action, out);
            }
        }
        any
    }

    /// Ships an object if nothing of it runs and all that has it locked can go on elsewhere.
    fn ship_if_still(&mut self, action: Uid, out: &mut Outbox) -> bool {
        let departure = self.departures.row(action);
        let departure = departure.expect("a move that waits is there");
        let (uid, object) = (departure.uid, departure.object);
        let Some((cargo, pinned)) = self.cargo(uid, object) else {
            return false;
        };
        let next = departures::next(State::Waiting, Cue::Still);
        assert!(next == Next::Ship, "{uid} is still, but {next:?}");
        let levels = cargo.levels().map(|level| (level.uid, level.merging));
        let levels: Vec<(Uid, bool)> = levels.collect();
        let roots: Vec<Uid> = cargo.actions.iter().filter_map(CargoAction::root).collect();
        for level in &pinned {
            self.mirrors.pin(*level);
        }
        let pinned = pinned.into_iter().map(|at| self.mirrors.level(at).uid);
        let pinned: Vec<Uid> = pinned.collect();
        let departure = self.departures.row_mut(action);
        let departure = departure.expect("a move that waits is there");
        (departure.levels, departure.pinned) = (levels, pinned);
        (departure.roots, departure.state) = (roots, State::Shipping);
        let cargo = Box::new(cargo);
        out.push(Output::Ship { uid, action, cargo });
        if self.mutation == Mutation::DecideUnprepared {
            self.decide_move(action, Vec::new(), out);
        }
        true
    }

    /// What running actions have of an object, and the levels that have its lock; none if it
    /// cannot leave as it is.
    fn cargo(&self, uid: Uid, object: Slot) -> Option<(Cargo, Vec<Slot>)> {
        let entry = self.objects.entry(object);
        let runs = entry.calls - entry.waiting > 1;
        if runs || (entry.image != Image::Passive && entry.image != Image::Active) {
            return None;
        }
        let key = Self::lock_key(uid);
        let holders = self.locks.holders(key).map(|holding| holding.owner);
        let levels = holders.filter(|owner| owner.is_level());
        let mut pinned: Vec<Slot> = levels.map(|owner| Slot(owner.index())).collect();
        // In the order of their names, so that the cargo says nothing of the lock table.
        pinned.sort_by_key(|level| self.mirrors.level(*level).uid);
        let mut mirrors: Vec<Slot> = Vec::new();
        for level in &pinned {
            let at = self.mirrors.level(*level);
            let mirror = self.mirrors.mirror(at.mirror);
            let max = self.limits.participants_max as usize;
            let full = mirror.moved.len() >= max || mirror.reached.len() >= max;
            // What waits to be prepared is not made to wait for one more move.
            let full = full || self.late.contains_key(&mirror.uid());
            let made = at.images.get(&uid).is_some_and(|before| before.create);
            if !mirror.is_active() || self.mirrors.aborting(*level).is_some() || made || full {
                return None;
            }
            if !mirrors.contains(&at.mirror) {
                mirrors.push(at.mirror);
            }
        }
        let actions = mirrors.iter().map(|at| self.cargo_action(uid, *at));
        let cargo = Cargo {
            size_bytes: self.objects.size_bytes(object),
            actions: actions.collect(),
        };
        let levels = cargo.levels().count();
        (levels <= self.limits.cargo_levels_max as usize).then_some((cargo, pinned))
    }

    pub(super) fn cargo_action(&self, uid: Uid, slot: Slot) -> CargoAction {
        let mirror = self.mirrors.mirror(slot);
        let key = Self::lock_key(uid);
        // Levels that have the lock, and all that these are nested in; parents come first.
        let all = self.mirrors.subtree(mirror.root);
        let mut wanted: Vec<bool> = Vec::with_capacity(all.len());
        wanted.extend(all.iter().map(|at| {
            let locks = &self.mirrors.level(*at).locks;
            locks.contains_key(&uid)
        }));
        // A checkpoint may have an action without a lock.
        wanted[0] = true;
        for at in (0..all.len()).rev().filter(|_| all.len() > 1) {
            let parent = self.mirrors.level(all[at]).parent;
            let parent = parent.and_then(|parent| all.iter().position(|slot| *slot == parent));
            if let Some(parent) = parent.filter(|_| wanted[at]) {
                wanted[parent] = true;
            }
        }
        let kept: Vec<Slot> = (0..all.len())
            .filter(|at| wanted[*at])
            .map(|at| all[at])
            .collect();
        let levels = kept.iter().map(|at| {
            let level = self.mirrors.level(*at);
            let holding = self.locks.holding(key, Owner::level(at.0));
            let parent = level.parent;
            let parent = parent.and_then(|parent| kept.iter().position(|slot| *slot == parent));
            let before = level.images.get(&uid);
            let before = before.filter(|_| self.mutation != Mutation::LeaveImages);
            CargoLevel {
                uid: level.uid,
                parent: parent.and_then(|parent| u32::try_from(parent).ok()),
                merging: level.ending == Ending::Merging,
                lock: holding.map(|holding| CargoLock {
                    mode: holding.mode,
                    retained: holding.retained,
                }),
                image: before.map(|before| CargoImage {
                    changed: before.changed,
                    size_bytes: before.size_bytes,
                }),
            }
        });
        let executed = mirror.executed.iter().copied();
        CargoAction {
            path: mirror.path.clone(),
            home: mirror.home,
            born_ms: mirror.born_ms,
            until: mirror.until,
            callers: mirror.callers.clone(),
            executed: executed
                .filter(|_| self.mutation != Mutation::LeaveExecuted)
                .collect(),
            levels: levels.collect(),
        }
    }

    /// The target has it, or not.
    fn shipped(
        &mut self,
        action: Uid,
        result: Result<Vec<(Uid, Joined)>, NotShipped>,
        out: &mut Outbox,
    ) {
        let Some(departure) = self.departures.row(action) else {
            return;
        };
        // An answer that does not know all actions is none.
        let whole = |joined: &Vec<(Uid, Joined)>| {
            let named = |root: &Uid| joined.iter().any(|(named, _)| named == root);
            departure.roots.iter().all(named)
        };
        let result = result.and_then(|joined| match whole(&joined) {
            true => Ok(joined),
            false => Err(NotShipped::Refused),
        });
        match departures::next(departure.state, Cue::Shipped(result.is_ok())) {
            Next::Decide => self.decide_move(action, result.unwrap_or_default(), out),
            Next::Stays { tell } => {
                let why = result.err().unwrap_or(NotShipped::Refused);
                self.stay(action, Stays::NotShipped(why), tell, out);
            }
            Next::Nothing => {}
            other @ (Next::Ship | Next::Departed | Next::Mistake) => {
                panic!("{action} is shipped, and {other:?}")
            }
        }
    }

    fn decide_move(&mut self, action: Uid, joined: Vec<(Uid, Joined)>, out: &mut Outbox) {
        let departure = self.departures.row(action).expect("what is decided moves");
        let (uid, to) = (departure.uid, departure.to);
        let batch = ActionBatch::Depart { action, uid, to };
        let job = self.store(Work::Depart(action), batch, out);
        let departure = self.departures.row_mut(action);
        let departure = departure.expect("what is decided moves");
        (departure.state, departure.due) = (State::Deciding { job }, Time::NEVER);
        departure.joined = joined;
    }

    /// The store has the decision, or not.
    pub(super) fn departure_stored(
        &mut self,
        action: Uid,
        done: Job,
        result: Result<(), Fault>,
        out: &mut Outbox,
    ) {
        let departure = self.departures.row(action).expect("what is written moves");
        let state = departure.state;
        assert!(
            state == State::Deciding { job: done },
            "{action} is {state:?}"
        );
        match departures::next(state, Cue::Stored(result.is_ok())) {
            Next::Departed => self.departed(action, out),
            Next::Stays { tell } => {
                let fault = result.err().unwrap_or(Fault::Store);
                self.stay(action, Stays::Store(fault), tell, out);
            }
            other @ (Next::Nothing | Next::Ship | Next::Decide | Next::Mistake) => {
                panic!("{action} is stored, and {other:?}")
            }
        }
    }

    /// Gives up all moves that can be given up of which `gives_way` says so.
    pub(super) fn give_way(
        &mut self,
        why: Stays,
        gives_way: impl Fn(&Departure) -> bool,
        out: &mut Outbox,
    ) {
        let all = self.departures.iter();
        let all = all.filter(|(_, departure)| gives_way(departure));
        let all: Vec<(Uid, State)> = all.map(|(action, it)| (action, it.state)).collect();
        for (action, state) in all {
            match departures::next(state, Cue::GiveWay) {
                Next::Stays { tell } => self.stay(action, why, tell, out),
                Next::Nothing => {}
                other @ (Next::Ship | Next::Decide | Next::Departed | Next::Mistake) => {
                    panic!("{action} gives way, and {other:?}")
                }
            }
        }
    }

    /// Gives up moves whose time is up.
    pub(super) fn departures_due(&mut self, out: &mut Outbox) {
        let now = self.now;
        let in_the_way = |it: &Departure| {
            let late = |root: &Uid| self.late.contains_key(root);
            it.due <= now && it.roots.iter().any(late)
        };
        let held: Vec<Uid> = self
            .departures
            .iter()
            .filter(|(_, it)| in_the_way(it))
            .map(|(_, it)| it.uid)
            .collect();
        let hinders = |it: &Departure| it.due <= now && held.contains(&it.uid);
        self.give_way(Stays::InTheWay, hinders, out);
        self.give_way(Stays::Busy, |it| it.due <= now, out);
    }

    /// The commit of an action waits: the moves that it waits for may take so much longer.
    pub(super) fn hurry(&mut self, root: Uid) {
        let due = Time(self.now.0.saturating_add(self.limits.move_hold_ns));
        for departure in self.departures.iter_mut() {
            if departure.roots.contains(&root) && departure.state == State::Shipping {
                departure.due = departure.due.min(due);
            }
        }
    }

    /// The object stays, and what was held back goes on.
    fn stay(&mut self, action: Uid, why: Stays, tell: bool, out: &mut Outbox) {
        let departure = self.departures.remove(action);
        let Departure {
            uid, object, to, ..
        } = departure;
        self.note_fate(action, Fate::Aborted);
        if tell {
            Self::send(to, Message::abort(action), out);
        }
        out.push(Output::Stays { uid, action, why });
        self.objects.entry_mut(object).kind = Kind::Persistent;
        for slot in self.waiting_calls(object, false) {
            // An earlier one may have ended this one.
            let here = self.calls.is_leader(slot) && self.calls.leader(slot).object == object;
            if here && self.calls.leader(slot).stage == Stage::Granted {
                self.want_image(slot, out);
            }
        }
        self.objects.entry_mut(object).calls -= 1;
        self.left_by_call(object, out);
        self.unpin(&departure.pinned, out);
    }

    /// The object is the target's: whoever waits for it here is sent there, and what actions
    /// have of it here is there now.
    fn departed(&mut self, action: Uid, out: &mut Outbox) {
        let departure = self.departures.remove(action);
        let (uid, object, to) = (departure.uid, departure.object, departure.to);
        self.bounce(object, out);
        for (root, joined) in &departure.joined {
            let Some(mirror) = self.mirrors.find(*root) else {
                continue;
            };
            let participant = Participant {
                site: to,
                incarnation: departure.to_incarnation,
                joined: *joined,
            };
            let mirror = self.mirrors.mirror_mut(mirror);
            mirror.reached.insert(Address::Site(to));
            let known = |it: &Participant| it.is_same_mirror(&participant);
            if !mirror.moved.iter().any(known) {
                mirror.moved.push(participant);
            }
        }
        self.tell_ends(&departure, out);
        if self.objects.entry(object).image == Image::Active {
            self.change_image(object, activation::Cue::Dropped);
            self.objects.set_size(object, 0);
        }
        out.push(Output::Departed { uid, action });
        let actions = departure.roots.len();
        out.push(Output::Event(Event::Departed { uid, to, actions }));
        let entry = self.objects.entry_mut(object);
        entry.kind = Kind::Persistent;
        entry.calls -= 1;
        self.left_by_call(object, out);
        self.note_fate(action, Fate::Committed);
        let news = News {
            sites: vec![to],
            ..News::default()
        };
        self.tell_decision(action, news, &[], out);
        self.unpin(&departure.pinned, out);
    }

    /// An object is elsewhere: whoever waits for it here is sent there, and no lock of it here
    /// means anything.
    pub(super) fn bounce(&mut self, object: Slot, out: &mut Outbox) {
        // The entry must outlive the last of its calls, since the loop looks at it.
        self.objects.entry_mut(object).calls += 1;
        for slot in self.waiting_calls(object, false) {
            if self.calls.is_leader(slot) && self.calls.leader(slot).object == object {
                self.end(slot, Some(Answer::Refused(Refusal::Moved)), out);
            }
        }
        let uid = self.objects.entry(object).uid;
        let holders = self.locks.holders(Self::lock_key(uid));
        let levels = holders.filter(|holding| holding.owner.is_level());
        let levels: Vec<Owner> = levels.map(|holding| holding.owner).collect();
        for owner in levels {
            if !self.is_prepared(owner) {
                let level = self.mirrors.level_mut(Slot(owner.index()));
                level.images.remove(&uid);
                self.release(uid, owner, out);
            }
        }
        self.objects.entry_mut(object).calls -= 1;
    }

    /// What was said of levels of the cargo since it was shipped is passed on. Parents come
    /// first, and an abort is of all below.
    fn tell_ends(&self, departure: &Departure, out: &mut Outbox) {
        for (action, merging) in &departure.levels {
            let Some(slot) = self.mirrors.find_level(*action) else {
                continue;
            };
            let level = self.mirrors.level(slot);
            let parent = level.parent.map(|parent| self.mirrors.level(parent));
            let action = *action;
            let message = match (level.ending, parent) {
                (Ending::Aborting, parent)
                    if parent.is_none_or(|parent| parent.ending != Ending::Aborting) =>
                {
                    Message::abort(action)
                }
                (Ending::Merging, Some(parent)) if !merging => Message::Merge {
                    action,
                    parent: parent.uid,
                    part: None,
                },
                (Ending::Open | Ending::Merging | Ending::Aborting, _) => continue,
            };
            Self::send(departure.to, message, out);
        }
    }
}
