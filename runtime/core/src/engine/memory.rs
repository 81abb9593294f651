//! Objects coming into memory and leaving it: loads, volatile objects, idle time, the memory
//! limit, eviction, drain.

use super::{Drain, Engine, Mutation};
use crate::action::mirror::Mirror;
use crate::activation::{self, Cue, Image, Kind, Next, Object};
use crate::call::Stage;
use crate::id::Uid;
use crate::input::Loaded;
use crate::migrate::Stays;
use crate::outbox::Outbox;
use crate::output::{Answer, Event, Output, Refusal, Why};
use crate::slab::Slot;

impl Engine {
    /// Tells an image's machine what happened; what else is to be done is returned.
    pub(super) fn change_image(&mut self, slot: Slot, cue: Cue) -> Next {
        let object = self.objects.entry_mut(slot);
        let (image, next) = activation::next(object.image, cue);
        assert!(next != Next::Mistake, "{cue:?} cannot happen to {object:?}");
        object.image = image;
        next
    }

    /// The entry a call of `uid` belongs to, made if need be; or why there can be none.
    pub(super) fn door(
        &mut self,
        uid: Uid,
        volatile: bool,
        create: bool,
        out: &mut Outbox,
    ) -> Result<Slot, Refusal> {
        if let Some(slot) = self.objects.slot(uid) {
            let object = self.objects.entry(slot);
            if object.is_volatile() && create {
                return Err(Refusal::Exists);
            }
            if object.is_expelled() {
                return Err(Refusal::Moved);
            }
            if object.is_retired() || (volatile && !object.is_volatile()) {
                return Err(Refusal::NoSuchObject);
            }
            let limit = self.limits.object_queue_max;
            if object.waiting >= limit {
                let what = "calls waiting for this object";
                return Err(Refusal::Overloaded {
                    what,
                    limit: limit.into(),
                });
            }
            return Ok(slot);
        }
        if volatile {
            return Err(Refusal::NoSuchObject);
        }
        self.room_for_one(out)?;
        Ok(self.enter(uid))
    }

    /// A new entry for an object that nobody calls yet; levels of actions may have its lock.
    pub(super) fn enter(&mut self, uid: Uid) -> Slot {
        let slot = self.objects.insert(uid, self.uses.callers(uid) > 0);
        let holders = self.locks.holders(Self::lock_key(uid)).count();
        let held = u32::try_from(holders).expect("tables are bounded below 2^32");
        self.objects.entry_mut(slot).held = held;
        slot
    }

    /// Makes sure that one more object may come into memory.
    pub(super) fn room_for_one(&mut self, out: &mut Outbox) -> Result<(), Refusal> {
        let objects_max = self.limits.active_objects_max;
        while self.objects.persistent() >= objects_max {
            let Some(slot) = self.objects.longest_unused() else {
                let (what, limit) = ("objects in memory, all in use", objects_max.into());
                return Err(Refusal::Overloaded { what, limit });
            };
            self.passivate(slot, Why::Memory, out);
        }
        let over = self.objects.active_bytes() > self.limits.active_bytes_max;
        if over && self.objects.longest_unused().is_none() {
            return Err(self.too_many_bytes());
        }
        Ok(())
    }

    fn too_many_bytes(&self) -> Refusal {
        Refusal::Overloaded {
            what: "bytes of objects in memory, all in use",
            limit: self.limits.active_bytes_max,
        }
    }

    /// The store answered a load.
    pub(super) fn loaded(&mut self, uid: Uid, outcome: Loaded, out: &mut Outbox) {
        // A volatile object served while the load was under way may have gone again.
        let Some(slot) = self.objects.slot(uid) else {
            return;
        };
        match self.change_image(slot, Cue::Loaded(outcome)) {
            Next::RunHolders => {
                if let Loaded::Found {
                    epoch,
                    size_bytes,
                    replicated,
                } = outcome
                {
                    self.objects.set_size(slot, size_bytes);
                    let entry = self.objects.entry_mut(slot);
                    if replicated && entry.kind == Kind::Persistent {
                        entry.kind = Kind::Replicated;
                    }
                    out.push(Output::Event(Event::Activated { uid, epoch }));
                }
                if self.objects.entry(slot).is_expelled() {
                    self.turn_away(slot, (Why::Expelled, Refusal::Moved), out);
                } else if self.may_stay(slot, out) {
                    self.run_holders(uid, out);
                } else {
                    let refusal = self.too_many_bytes();
                    self.turn_away(slot, (Why::NoRoom, refusal), out);
                }
            }
            Next::RefuseAbsent => self.refuse_waiting(slot, &Refusal::NoSuchObject, true, out),
            Next::RefuseMoved => self.bounce(slot, out),
            Next::RefuseAll(fault) => {
                self.refuse_waiting(slot, &Refusal::Store(fault), false, out);
            }
            Next::Ignore => return,
            Next::Load | Next::Run | Next::Wait | Next::RefuseExists | Next::Mistake => {
                panic!("{uid} was loaded but is not in the right state");
            }
        }
        if let Some(slot) = self.objects.slot(uid) {
            self.left_by_call(slot, out);
        }
    }

    /// Whether an object that was just loaded may stay, now that its size is known: within the
    /// limit, after whatever is idle has made room, or because nothing else is in memory.
    /// Objects that were asked for at the same time may each have had room without the others.
    fn may_stay(&mut self, slot: Slot, out: &mut Outbox) -> bool {
        self.make_room(out);
        let (bytes, own) = (self.objects.active_bytes(), self.objects.size_bytes(slot));
        bytes <= self.limits.active_bytes_max
            || bytes == own
            || self.mutation == Mutation::ExceedMemory
    }

    /// Takes an object out of memory again whose calls have not begun, and refuses them.
    fn turn_away(&mut self, slot: Slot, (why, refusal): (Why, Refusal), out: &mut Outbox) {
        let uid = self.objects.entry(slot).uid;
        self.change_image(slot, Cue::Dropped);
        self.objects.set_size(slot, 0);
        Self::push_gone(uid, why, out);
        if let Refusal::Overloaded { what, limit } = refusal {
            out.push(Output::Event(Event::Overloaded { what, limit }));
        }
        self.refuse_waiting(slot, &refusal, false, out);
    }

    /// The image cannot be had: refuses every call of the object; creates go on, if it is
    /// because there is none.
    fn refuse_waiting(
        &mut self,
        object: Slot,
        refusal: &Refusal,
        but_creates: bool,
        out: &mut Outbox,
    ) {
        // The entry must outlive the last of its calls, since the loop looks at it.
        self.objects.entry_mut(object).calls += 1;
        for slot in self.waiting_calls(object, but_creates) {
            self.end(slot, Some(Answer::Refused(refusal.clone())), out);
        }
        self.objects.entry_mut(object).calls -= 1;
        self.want_again(object, out);
    }

    /// The calls of an object that have not started: those with the lock, then the queues.
    pub(super) fn waiting_calls(&self, object: Slot, but_creates: bool) -> Vec<Slot> {
        let entry = self.objects.entry(object);
        let key = Self::lock_key(entry.uid);
        let holders = self.locks.holders(key).map(|holding| holding.owner);
        let outside = holders.filter(|owner| !owner.is_level());
        let mut slots: Vec<Slot> = outside.map(|owner| Slot(owner.index())).collect();
        if let Some(gate) = &entry.gate {
            slots.extend(gate.inside().chain(gate.queue()));
        }
        let ready = self.ready.iter().copied().filter(|slot| {
            let leader = self.calls.leader(*slot);
            leader.object == object && leader.traits.action && leader.stage == Stage::Queued
        });
        slots.extend(ready);
        slots.extend(self.locks.waiters(key).map(|request| Slot(request.asker.0)));
        slots.retain(|slot| {
            let leader = self.calls.leader(*slot);
            let spared = but_creates && leader.traits.create;
            !leader.stage.started() && !spared
        });
        slots
    }

    /// After a load that found nothing: a create that had the lock all along goes on.
    fn want_again(&mut self, object: Slot, out: &mut Outbox) {
        let uid = self.objects.entry(object).uid;
        if self.objects.entry(object).image == Image::Passive {
            self.run_holders(uid, out);
        }
    }

    /// A call has left the object, or it has just been loaded: is it idle, or not even here?
    pub(super) fn left_by_call(&mut self, slot: Slot, out: &mut Outbox) {
        let object = self.objects.entry(slot);
        if object.calls > 0 || self.objects.is_idle(slot) {
            self.departures.look |= object.is_leaving();
            return;
        }
        let held = object.held > 0;
        match (object.is_volatile(), object.image) {
            (true, _) if object.is_retired() => self.objects.remove(slot),
            (true, _) | (false, Image::Activating) => {}
            (false, Image::Passive) => self.objects.remove(slot),
            // What is held while it is being made comes from another node.
            (false, Image::Active | Image::Making) if held => {}
            (false, Image::Active) => {
                self.objects.set_idle(self.now, slot);
                if self.objects.entry(slot).is_expelled() {
                    self.passivate(slot, Why::Expelled, out);
                } else if self.drain != Drain::No {
                    self.passivate(slot, Why::Drain, out);
                }
            }
            (false, Image::Making) => panic!("{} is being made by nobody", object.uid),
        }
    }

    /// Drops the image of an idle object.
    pub(super) fn passivate(&mut self, slot: Slot, why: Why, out: &mut Outbox) {
        let uid = self.objects.entry(slot).uid;
        assert!(
            self.objects.is_idle(slot),
            "{uid} is passivated while in use"
        );
        self.objects.set_busy(slot);
        self.change_image(slot, Cue::Dropped);
        self.objects.set_size(slot, 0);
        self.objects.remove(slot);
        Self::push_gone(uid, why, out);
    }

    /// An image goes. What a deposed leader has may be out of date.
    fn push_gone(uid: Uid, why: Why, out: &mut Outbox) {
        out.push(match why {
            Why::Expelled => Output::Discard { uid },
            Why::Idle | Why::Memory | Why::NoRoom | Why::Operator | Why::Drain => {
                Output::Passivate { uid }
            }
        });
        out.push(Output::Event(Event::Passivated { uid, why }));
    }

    /// Passivates what was idle for too long.
    pub(super) fn passivate_expired(&mut self, out: &mut Outbox) {
        while let Some((at, slot)) = self.objects.next_expiry(&self.limits) {
            if at > self.now {
                break;
            }
            self.passivate(slot, Why::Idle, out);
        }
    }

    /// Passivates the longest unused until the rest fits the memory limit.
    pub(super) fn make_room(&mut self, out: &mut Outbox) {
        while self.objects.active_bytes() > self.limits.active_bytes_max {
            let Some(slot) = self.objects.longest_unused() else {
                break;
            };
            self.passivate(slot, Why::Memory, out);
        }
        if self.mutation == Mutation::EvictLocked {
            self.evict_locked(out);
        }
    }

    /// What must not be done: drops what an action may have changed.
    fn evict_locked(&mut self, out: &mut Outbox) {
        while self.objects.active_bytes() > self.limits.active_bytes_max {
            let is_locked = |it: &Object| it.image == Image::Active && it.calls == 0 && it.held > 0;
            let mut all = self.objects.iter().filter(|(_, it)| is_locked(it));
            let locked = all.next().map(|(slot, it)| (slot, it.uid));
            drop(all);
            let Some((slot, uid)) = locked else { break };
            self.change_image(slot, Cue::Dropped);
            self.objects.set_size(slot, 0);
            self.objects.remove(slot);
            out.push(Output::Passivate { uid });
        }
    }

    /// An operator wants the object out of memory.
    pub(super) fn evict(&mut self, uid: Uid, out: &mut Outbox) {
        match self.objects.slot(uid) {
            Some(slot) if self.objects.is_idle(slot) => {
                self.passivate(slot, Why::Operator, out);
            }
            Some(_) | None => out.push(Output::Event(Event::NotEvicted { uid })),
        }
    }

    /// A volatile object starts to exist.
    pub(super) fn serve(&mut self, uid: Uid, out: &mut Outbox) {
        // Somebody who guessed the uid may have wanted to move it.
        self.give_way(Stays::Volatile, |departure| departure.uid == uid, out);
        self.drop_cargos(|arrival| arrival.uid == uid, out);
        let slot = match self.objects.slot(uid) {
            Some(slot) if self.objects.entry(slot).is_volatile() => {
                self.objects.entry_mut(slot).kind = Kind::Volatile;
                return;
            }
            _ if self.objects.volatile() >= self.limits.volatile_objects_max => {
                let (what, limit) = ("volatile objects", self.limits.volatile_objects_max.into());
                return out.push(Output::Event(Event::Overloaded { what, limit }));
            }
            Some(slot) => slot,
            None => self.enter(uid),
        };
        // Calls that guessed the uid may have made it look like a persistent object.
        let image = self.objects.entry(slot).image;
        let unknown = image == Image::Passive || image == Image::Activating;
        assert!(unknown, "{uid} is served but exists as a persistent object");
        self.objects.set_volatile(slot);
        // The entry must outlive the last of its calls, since the loop looks at it.
        self.objects.entry_mut(slot).calls += 1;
        for call in self.waiting_calls(slot, false) {
            if self.calls.leader(call).traits.action {
                self.end(call, Some(Answer::Refused(Refusal::NoSuchObject)), out);
            } else {
                self.calls.leader_mut(call).traits.volatile = true;
            }
        }
        self.objects.entry_mut(slot).calls -= 1;
        self.run_holders(uid, out);
    }

    /// A volatile object ends.
    pub(super) fn retire(&mut self, uid: Uid, out: &mut Outbox) {
        let Some(slot) = self.objects.slot(uid) else {
            return;
        };
        if !self.objects.entry(slot).is_volatile() {
            return;
        }
        self.objects.entry_mut(slot).kind = Kind::Retired;
        // The entry must outlive the last of its calls, since the loop looks at it.
        self.objects.entry_mut(slot).calls += 1;
        for call in self.waiting_calls(slot, false) {
            self.end(call, Some(Answer::Refused(Refusal::NoSuchObject)), out);
        }
        self.objects.entry_mut(slot).calls -= 1;
        self.left_by_call(slot, out);
    }

    /// From now on only what was admitted is done.
    pub(super) fn begin_drain(&mut self, out: &mut Outbox) {
        if self.drain == Drain::No {
            self.drain = Drain::Draining;
        }
        self.give_way(Stays::Draining, |_| true, out);
        let rows = self.arrivals.rows.keys().copied();
        let waiting = rows.filter(|action| self.is_waiting_to_arrive(*action));
        for action in waiting.collect::<Vec<_>>() {
            self.refuse_arrival(action, Refusal::Draining, out);
        }
        while let Some(slot) = self.objects.longest_unused() {
            self.passivate(slot, Why::Drain, out);
        }
    }

    /// Tells the shell when the drain is over: no call is left, and no action but those that
    /// are prepared. These are on disk, and their objects go out of memory without more ado.
    pub(super) fn end_drain(&mut self, out: &mut Outbox) {
        let busy = self.calls.len() > 0 || !self.searches.is_empty() || !self.cohorts.is_quiet();
        if self.drain != Drain::Draining || busy {
            return;
        }
        if self.mirrors.iter().any(|(_, it)| !it.can_sleep()) {
            let waits = |(_, it): (Slot, &Mirror)| it.can_sleep() || it.pins > 0;
            let comes = self.mirrors.iter().all(waits) && self.departures.len() == 0;
            if comes && self.drop_cargos(|_| true, out) {
                // What that has ended may be the last.
                self.end_drain(out);
            }
            return;
        }
        self.drop_cargos(|_| true, out);
        self.unload_prepared(out);
        if self.objects.persistent() == 0 {
            self.drain = Drain::Drained;
            out.push(Output::Drained);
        }
    }

    /// Drops the images of all objects that prepared actions have changed. They are put back
    /// first: the store has what they are now, and beside it what they will be if the action
    /// commits.
    fn unload_prepared(&mut self, out: &mut Outbox) {
        let levels = self.mirrors.levels().map(|(slot, _)| slot);
        let levels: Vec<Slot> = levels.collect();
        let mut changed = Vec::new();
        for level in levels {
            let images = self.mirrors.level(level).images.keys();
            changed.extend(images.copied());
            self.restore(level, out);
        }
        self.mirrors.forget_images();
        for uid in changed {
            // What the action made is gone already.
            if let Some(slot) = self.objects.slot(uid) {
                self.change_image(slot, Cue::Dropped);
                self.objects.set_size(slot, 0);
                out.push(Output::Passivate { uid });
                self.left_by_call(slot, out);
            }
        }
    }
}
