//! The engine of one shard: routes each input to the machines and their decisions to the outbox.
//!
//! ```text
//! Invoke ─ admit.rs: incarnation, bounds, duplicate, search ─┐
//!                                                            ▼
//!          run.rs: lock ─ image ─ Dispatch … Returned ─ Flush … Flushed ─ Reply, Forget
//!                            ▲                                                │
//!          memory.rs: Load … Loaded           idle ─ Passivate, Discard ◄─────┘
//! ```
//!
//! Two invariants tie the machines together: a call that is Granted, Running, or Flushing its
//! object's state holds the object's lock, and no other call does; a servant runs only on an
//! image that is Active or Making. The rest is said in the machines' own modules.
//!
//! What a shell answers twice, or without having been asked, panics: it is our own mistake, and
//! going on would be guessing. What a peer can cause (an unknown object, a call id used twice,
//! a cancel that comes too late) never does.

mod admit;
mod memory;
mod run;

use crate::activation::{Image, Objects};
use crate::call::{Calls, Role};
use crate::id::Uid;
use crate::incarnation::Incarnations;
use crate::input::{Input, Ticket};
use crate::limits::Limits;
use crate::lock::table::{LockTable, Owner};
use crate::outbox::Outbox;
use crate::output::Output;
use crate::slab::Slot;
use crate::time::Time;
use crate::uselist::UseList;

/// A rule left out on purpose, so that a simulation can show that it would notice.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// All rules hold.
    None,
    /// Answer a write before its batch is on disk.
    ReplyBeforeFlush,
    /// Give the lock back before the batch is on disk.
    UnlockBeforeFlush,
    /// Take a call for new without looking for a saved reply.
    SkipSearch,
    /// Take a call for new although it is under way.
    NoJoin,
    /// Keep the image of a call that raised.
    KeepOnRaise,
    /// Keep the image of a call whose flush failed.
    KeepOnFault,
    /// Take calls of earlier lives of a caller.
    IgnoreIncarnation,
    /// Do not save the reply.
    SkipSave,
    /// Forget to answer those who asked again.
    LoseFollowers,
    /// Answer a failed flush like a good one.
    TrustFault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drain {
    No,
    Draining,
    Drained,
}

/// The decisions of one shard.
#[derive(Debug)]
pub struct Engine {
    limits: Limits,
    mutation: Mutation,
    now: Time,
    calls: Calls,
    objects: Objects,
    locks: LockTable,
    uses: UseList,
    incarnations: Incarnations,
    drain: Drain,
    /// Calls that got a lock and were not looked at yet; empty between inputs.
    granted: Vec<Owner>,
}

impl Engine {
    /// An engine without objects or calls.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self::with_mutation(limits, Mutation::None)
    }

    /// An engine with a known mistake, for tests of tests.
    #[doc(hidden)]
    #[must_use]
    pub fn with_mutation(limits: Limits, mutation: Mutation) -> Self {
        Self {
            limits,
            mutation,
            now: Time(0),
            calls: Calls::new(),
            objects: Objects::new(),
            locks: LockTable::default(),
            uses: UseList::default(),
            incarnations: Incarnations::new(),
            drain: Drain::No,
            granted: Vec::new(),
        }
    }

    /// Takes in what happened at `now` and appends what is to be done about it.
    ///
    /// # Panics
    /// If the shell answers what was not asked, or uses a ticket twice.
    pub fn handle(&mut self, now: Time, input: Input, out: &mut Outbox) {
        self.now = self.now.max(now);
        match input {
            Input::Invoke(invoke) => self.admit(&invoke, false, out),
            Input::Create(invoke) => self.admit(&invoke, true, out),
            Input::Searched { ticket, found } => self.searched(ticket, found, out),
            Input::Returned {
                ticket,
                ended,
                size_bytes,
            } => {
                self.returned(ticket, ended, size_bytes, out);
            }
            Input::Flushed { ticket, result } => self.flushed(ticket, result, out),
            Input::Loaded { uid, outcome } => self.loaded(uid, outcome, out),
            Input::Cancel { ticket } => self.cancel(ticket, out),
            Input::Bind { uid, caller } => self.bind(uid, caller, out),
            Input::Unbind { uid, caller } => self.unbind(uid, caller),
            Input::PeerGone { caller } => self.caller_gone(caller, out),
            Input::Serve { uid } => self.serve(uid, out),
            Input::Retire { uid } => self.retire(uid, out),
            Input::Evict { uid } => self.evict(uid, out),
            Input::Message { .. }
            | Input::Commit { .. }
            | Input::Ask { .. }
            | Input::Reached { .. }
            | Input::Stored { .. }
            | Input::DecisionFound { .. }
            | Input::RecoverPrepared { .. }
            | Input::RecoverDecision { .. } => unimplemented!("actions"),
            Input::Drain => self.begin_drain(out),
        }
        self.settle(out);
    }

    /// Does what is due at `now`: refuses calls whose deadline passed, passivates objects that
    /// were idle for too long. Harmless when nothing is due.
    pub fn handle_timeout(&mut self, now: Time, out: &mut Outbox) {
        self.now = self.now.max(now);
        while let Some((_, ticket, slot)) = self.calls.deadlines.pop_due(self.now) {
            if self.calls.slot(ticket) == Some(slot) {
                self.expire(slot, out);
            }
            self.calls.tidy();
        }
        self.passivate_expired(out);
        self.settle(out);
    }

    /// When to call [`Engine::handle_timeout`] at the latest; may change with every input.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Time> {
        let deadline = self.calls.deadlines.first().map(|(at, ..)| at);
        let expiry = self.objects.next_expiry(&self.limits).map(|(at, _)| at);
        deadline.into_iter().chain(expiry).min()
    }

    /// Ends an input: whoever got a lock is looked at, leftovers are swept out.
    fn settle(&mut self, out: &mut Outbox) {
        self.run_granted(out);
        self.make_room(out);
        self.calls.tidy();
        self.end_drain(out);
        assert!(
            self.granted.is_empty(),
            "a call got a lock and was not looked at"
        );
    }

    /// What the engine is busy with, in numbers.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            calls: self.calls.len(),
            objects: self.objects.persistent() as usize,
            volatile_objects: self.objects.volatile() as usize,
            idle_objects: self.objects.idle() as usize,
            active_bytes: self.objects.active_bytes(),
            locks: self.locks.len(),
            uses: self.uses.len(),
            callers_remembered: self.incarnations.len(),
            deadlines: self.calls.deadlines.len(),
        }
    }

    /// How many callers are bound to an object.
    #[must_use]
    pub fn callers_bound(&self, uid: Uid) -> u32 {
        self.uses.callers(uid)
    }

    /// Each object that is in memory or called, in no special order; for inspection.
    pub fn objects(&self) -> impl Iterator<Item = ObjectView> + '_ {
        self.objects.iter().map(|(_, object)| ObjectView {
            uid: object.uid,
            in_memory: object.image == Image::Active,
            volatile: object.volatile,
            running: object.calls - object.waiting,
            waiting: object.waiting,
            callers_bound: self.uses.callers(object.uid),
        })
    }

    /// Panics if an invariant does not hold; [`crate::invariants`] lists them.
    pub(crate) fn check(&self) {
        self.calls.check(&self.limits);
        self.objects.check(&self.limits);
        self.locks.check();
        self.uses.check();
        self.incarnations.check();
        assert!(
            self.uses.len() <= self.limits.uses_max as usize,
            "too many bindings"
        );
        assert!(
            self.incarnations.len() <= self.limits.peers_max as usize,
            "too many callers"
        );
        assert!(
            self.granted.is_empty(),
            "a call got a lock and was not looked at"
        );
        self.check_calls_of_objects();
    }

    /// Searching calls aside, every call belongs to an object, and has its lock if it must.
    fn check_calls_of_objects(&self) {
        let (mut holders, mut attached) = (0, 0);
        for (slot, call) in self.calls.iter() {
            let Role::Leader(leader) = &call.role else {
                continue;
            };
            if leader.object == Slot::NONE {
                continue;
            }
            attached += 1;
            let object = self.objects.entry(leader.object);
            assert!(
                object.uid == leader.uid,
                "{:?} is at another object",
                call.ticket
            );
            let owner = Owner(slot.0.into());
            let key = Self::lock_key(leader.uid);
            let holds = self.locks.holders(key).any(|(holder, _)| holder == owner);
            assert!(
                holds == Self::must_hold(leader.stage),
                "{:?} has a wrong lock",
                call.ticket
            );
            holders += usize::from(holds);
        }
        let (mut calls, mut locked) = (0, 0);
        for (_, object) in self.objects.iter() {
            calls += object.calls as usize;
            locked += self.locks.holders(Self::lock_key(object.uid)).count();
            let waits = self.locks.waiters(Self::lock_key(object.uid)).count();
            assert!(
                waits <= object.waiting as usize,
                "{} is miscounted",
                object.uid
            );
        }
        assert!(attached == calls, "calls of objects are miscounted");
        assert!(holders == locked, "a lock is held by nobody");
    }

    fn slot_of(&self, ticket: Ticket, what: &str) -> Slot {
        let slot = self.calls.slot(ticket);
        slot.unwrap_or_else(|| panic!("{ticket:?} {what} but there is no such call"))
    }

    fn forget(&mut self, slot: Slot, out: &mut Outbox) -> crate::call::Call {
        let call = self.calls.remove(slot);
        out.push(Output::Forget {
            ticket: call.ticket,
        });
        call
    }
}

/// What an engine is busy with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Tickets not forgotten yet.
    pub calls: usize,
    /// Persistent objects in memory or on their way.
    pub objects: usize,
    /// Objects of transient classes.
    pub volatile_objects: usize,
    /// Persistent objects that nobody uses now.
    pub idle_objects: usize,
    /// Bytes of states in memory.
    pub active_bytes: u64,
    /// Locks held.
    pub locks: usize,
    /// (object, caller) pairs in the use list.
    pub uses: usize,
    /// Callers whose incarnation is known.
    pub callers_remembered: usize,
    /// Deadlines noted, with those of ended calls that were not swept out yet.
    pub deadlines: usize,
}

/// One object, as an inspector sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectView {
    /// The object.
    pub uid: Uid,
    /// Whether calls can run now without a load.
    pub in_memory: bool,
    /// Whether it is of a transient class.
    pub volatile: bool,
    /// Calls running, or being flushed.
    pub running: u32,
    /// Calls waiting for it.
    pub waiting: u32,
    /// Callers bound to it.
    pub callers_bound: u32,
}
