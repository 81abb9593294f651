//! Where the engine tells the deadlock machine about waits for locks, and does what it decides.
//!
//! The hooks are called whenever a call begins to wait for a lock, a lock that is waited for
//! gets another owner, or a call waits no more. What the machine wants done is noted, and done
//! when the input is: it may be about any call. A wait is numbered by its call's ticket, since a
//! call waits for a lock once.

use super::locking::kin;
use super::{Engine, Identity, Mutation};
use crate::action::message::{Deadlock, Edge, From, Message, Party};
use crate::action::mirror::Mirrors;
use crate::action::path::{Path, own_action};
use crate::call::Calls;
use crate::deadlock::{self, Act, behind};
use crate::id::Uid;
use crate::input::Ticket;
use crate::lock::locks::{Asker, Family, Locks, Owner, Request};
use crate::outbox::Outbox;
use crate::output::{Answer, Event, Output, Refusal};
use crate::slab::Slot;
use crate::time::Time;

/// When an action began of which nobody says so: a call outside actions. It has nothing while it
/// waits, so its end would seldom help the others: it is older than all of them, and no victim.
const BORN_UNKNOWN_MS: u64 = 0;

/// The lock table as the deadlock machine asks it.
struct Table<'a> {
    identity: Identity,
    mutation: Mutation,
    calls: &'a Calls,
    locks: &'a Locks,
    mirrors: &'a Mirrors,
}

impl Table<'_> {
    fn of_call(&self, slot: Slot) -> Party {
        let leader = self.calls.leader(slot);
        if leader.traits.action {
            return self.of_level(leader.level);
        }
        let Identity { me, shard, .. } = self.identity;
        let own = own_action(me, shard, self.calls.entry(slot).ticket);
        match &leader.member {
            Some(member) => Party {
                path: member.path.outside().top_level(own),
                home: member.home,
                born_ms: member.born_ms,
            },
            None => Party {
                path: Path::top(own),
                home: me.node,
                born_ms: BORN_UNKNOWN_MS,
            },
        }
    }

    fn of_level(&self, level: Slot) -> Party {
        let mirror = self.mirrors.mirror(self.mirrors.level(level).mirror);
        Party {
            path: self.mirrors.path(level),
            home: mirror.home,
            born_ms: mirror.born_ms,
        }
    }

    fn of_owner(&self, owner: Owner) -> Party {
        let slot = Slot(owner.index());
        if owner.is_level() {
            self.of_level(slot)
        } else {
            self.of_call(slot)
        }
    }

    fn owners_of(&self, request: Request) -> Vec<Party> {
        let uid = self.calls.leader(Slot(request.asker.0)).uid;
        let key = Engine::lock_key(uid);
        let kin = kin(self.mirrors, self.mutation);
        let own = |owner| {
            kin.root(owner) == kin.root(request.owner) && kin.includes(owner, request.owner)
        };
        let waiter = self.of_owner(request.owner);
        let holders = self.locks.holders(key);
        let in_way = holders.filter(|held| held.mode.excludes(request.mode) && !own(held.owner));
        let mut owners: Vec<Party> = in_way.map(|held| self.of_owner(held.owner)).collect();
        owners.retain(|owner| !waiter.path.whole().starts_with(owner.path.whole()));
        if !owners.is_empty() {
            return owners;
        }
        let mut before = Vec::new();
        self.locks.blockers(key, request.asker, &kin, &mut before);
        let ahead = self.locks.waiters(key);
        let mut ahead = ahead.take_while(|other| other.asker != request.asker);
        match ahead.find(|other| before.contains(&other.owner)) {
            Some(first) => {
                let beyond = self.owners_of(first);
                behind(&waiter.path, &self.of_owner(first.owner), beyond)
            }
            None => Vec::new(),
        }
    }
}

impl deadlock::Locks for Table<'_> {
    fn owners(&self, wait: u64) -> Vec<Party> {
        let Some(slot) = self.calls.slot(Ticket(wait)) else {
            return Vec::new();
        };
        let leader = self.calls.leader(slot);
        if !leader.parked {
            return Vec::new();
        }
        let mut waiters = self.locks.waiters(Engine::lock_key(leader.uid));
        let request = waiters.find(|request| request.asker == Asker(slot.0));
        request.map_or_else(Vec::new, |request| self.owners_of(request))
    }
}

/// The lock table of an engine, its other fields left alone.
macro_rules! table {
    ($engine:ident) => {
        Table {
            identity: $engine.identity,
            mutation: $engine.mutation,
            calls: &$engine.calls,
            locks: &$engine.locks,
            mirrors: &$engine.mirrors,
        }
    };
}

impl Engine {
    /// Hook: the call has asked for a lock and waits. One that is in no action, and works for
    /// none, has nothing that anybody could wait for while it waits itself, but may stand in
    /// another's way: it is told of when one that may be part of a deadlock comes behind it.
    ///
    /// The look at who is ahead is as long as the queue, which `Limits::object_queue_max` bounds:
    /// 2 of the 5 microseconds that the last of 1,000 costs in all. The rest looks for its place
    /// in the queue too, so a count of the untold would save no more than that.
    pub(super) fn wait_began(&mut self, slot: Slot) {
        let leader = self.calls.leader(slot);
        if !leader.traits.action && leader.member.is_none() {
            return;
        }
        let waiters = self.locks.waiters(Self::lock_key(leader.uid));
        let ahead = waiters.take_while(|request| request.asker != Asker(slot.0));
        let ahead = ahead.map(|request| Slot(request.asker.0));
        let untold = ahead.filter(|ahead| !self.calls.leader(*ahead).told);
        let mut untold: Vec<Slot> = untold.collect();
        untold.push(slot);
        for slot in untold {
            self.calls.leader_mut(slot).told = true;
            let table = table!(self);
            let wait = (self.calls.entry(slot).ticket.0, self.calls.leader(slot).uid);
            let waiter = table.of_call(slot);
            self.detector
                .wait_began(self.now, wait, waiter, &table, &mut self.acts);
        }
    }

    /// Hook: the lock of this object has an owner that it did not have before (by a grant, also
    /// one that passed the queue, or by inheritance) and calls still wait for it. Once for each
    /// change, however many wait; nothing is to be told of owners that only go.
    pub(super) fn lock_moved(&mut self, uid: Uid, owner: Owner) {
        if !self.detector.is_waited_for(uid) {
            return;
        }
        let path = self.path_of_owner(owner);
        let table = table!(self);
        self.detector
            .lock_moved(self.now, uid, &path, &table, &mut self.acts);
    }

    /// Hook: the call does not wait any more, whatever the reason. Its entry is still there.
    pub(super) fn wait_ended(&mut self, slot: Slot) {
        let table = table!(self);
        let number = self.calls.entry(slot).ticket.0;
        self.detector
            .wait_ended(self.now, number, &table, &mut self.acts);
    }

    /// A message about deadlocks arrived.
    pub(super) fn deadlock_heard(&mut self, from: From, message: Deadlock) {
        let table = table!(self);
        self.detector
            .message(self.now, from, message, &table, &mut self.acts);
    }

    /// Looks at what is due about waits.
    pub(super) fn waits_due(&mut self) {
        let table = table!(self);
        self.detector
            .handle_timeout(self.now, &table, &mut self.acts);
    }

    /// When [`Engine::waits_due`] is to be called at the latest.
    pub(super) fn waits_timeout(&self) -> Option<Time> {
        self.detector.next_timeout()
    }

    /// Does what the deadlock machine has decided so far; whether there was anything.
    pub(super) fn act(&mut self, out: &mut Outbox) -> bool {
        let acts = core::mem::take(&mut self.acts);
        let any = !acts.is_empty();
        for act in acts {
            match act {
                Act::Send { to, message } => {
                    let message = Box::new(Message::Deadlock(message));
                    out.push(Output::Send { to, message });
                }
                Act::Refuse {
                    number,
                    victim,
                    cycle,
                } => self.refuse_deadlocked(Ticket(number), victim, cycle, out),
            }
        }
        any
    }

    /// Refuses a call that waits: it is the one that breaks a deadlock.
    fn refuse_deadlocked(
        &mut self,
        ticket: Ticket,
        victim: Uid,
        cycle: Vec<Edge>,
        out: &mut Outbox,
    ) {
        // It may have got its lock, or ended, by what the same input caused.
        let slot = self.calls.slot(ticket);
        let Some(slot) = slot.filter(|slot| self.calls.leader(*slot).parked) else {
            return;
        };
        let length = cycle.len();
        out.push(Output::Event(Event::DeadlockBroken { victim, length }));
        let refusal = Refusal::Deadlock { victim, cycle };
        self.end(slot, Some(Answer::Refused(refusal)), out);
    }
}
