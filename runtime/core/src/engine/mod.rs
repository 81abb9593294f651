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
mod view;
mod waits;

pub use view::{ActionPhase, ActionView, HolderView, LockView, ObjectView, Stats, WaiterView};

use crate::action::message::Message;
use crate::action::path::{Path, Site, own_action};
use crate::activation::{Image, Objects};
use crate::call::{Calls, Role};
use crate::id::{Peer, Uid};
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
    /// Vote Yes before the prepared state is on disk.
    VoteBeforeFlush,
    /// Commit before the decision is on disk.
    DecideBeforeFlush,
    /// Let others see a coordinator's objects before the decision is on disk.
    ApplyBeforeDecision,
    /// Prepare a mirror other than the one that did the work.
    IgnoreJoin,
    /// Prepare what another life of the node did.
    IgnoreParticipantIncarnation,
    /// Take calls of actions that were aborted here, and prepare whatever mirror there is.
    NoTombstone,
    /// Commit what nested actions did that were aborted, if nobody told otherwise.
    ForgetAbortedLevels,
    /// Leave what an aborted nested action did.
    NoRestoreOnNestedAbort,
    /// Let a nested action's before-image take the place of its parent's older one.
    InheritReplacesImage,
    /// Give locks back after each call instead of at the end of the action.
    UnlockAfterCall,
    /// Take a nested action's sibling for its ancestor.
    SiblingsShare,
    /// Answer that an unknown action is committed.
    PresumeCommit,
    /// Abort what is prepared when its caller is gone or its time is up.
    AbortPrepared,
    /// Abort what is prepared when whoever runs the action says so.
    ObeyRunnerWhenPrepared,
    /// Forget who is to be told of a decision when the first has acknowledged.
    SettleEarly,
    /// Execute a call of an action again when it is asked for again.
    ExecuteRepeated,
    /// Vote Yes although the prepared state could not be written.
    TrustPrepareFault,
    /// Break a cycle of waits without asking whether it is still there.
    NoConfirm,
    /// Break a cycle of waits at each of its members.
    VictimPerMember,
    /// After a restart, forget the locks of what is prepared.
    LosePrepareOnRecovery,
    /// Prepare while calls of the action still run or wait.
    IgnoreLateCalls,
}

/// Which shard this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The node, in its present life.
    pub me: Peer,
    /// The shard's number at its node.
    pub shard: u16,
}

impl Identity {
    /// The shard, in whichever life.
    #[must_use]
    pub fn site(self) -> Site {
        Site {
            node: self.me.node,
            shard: self.shard,
        }
    }
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
    identity: Identity,
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
    pub fn new(limits: Limits, identity: Identity) -> Self {
        Self::with_mutation(limits, identity, Mutation::None)
    }

    /// An engine with a known mistake, for tests of tests.
    #[doc(hidden)]
    #[must_use]
    pub fn with_mutation(limits: Limits, identity: Identity, mutation: Mutation) -> Self {
        Self {
            limits,
            identity,
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
            Input::Message {
                from,
                message: Message::Deadlock(message),
            } => self.deadlock_heard(from, message, out),
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
        self.waits_due(out);
        self.settle(out);
    }

    /// When to call [`Engine::handle_timeout`] at the latest; may change with every input.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Time> {
        let deadline = self.calls.deadlines.first().map(|(at, ..)| at);
        let expiry = self.objects.next_expiry(&self.limits).map(|(at, _)| at);
        let waits = self.waits_timeout();
        deadline.into_iter().chain(expiry).chain(waits).min()
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
            actions: 0,
            commits: 0,
            tombstones: 0,
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

    /// Each top-level action that has a part here, in no special order; for inspection.
    pub fn actions(&self) -> impl Iterator<Item = ActionView> + '_ {
        core::iter::empty()
    }

    /// Each locked object with who has it and who waits, in no special order; for inspection.
    pub fn locks(&self) -> impl Iterator<Item = LockView> + '_ {
        let uids = self.objects.iter().map(|(_, object)| object.uid);
        let locked = uids.filter(|uid| self.locks.holders(Self::lock_key(*uid)).next().is_some());
        locked.map(|uid| LockView {
            uid,
            holders: Vec::new(),
            waiters: Vec::new(),
        })
    }

    /// The action that a call outside actions is by itself.
    #[expect(dead_code, reason = "for the deadlock machine")]
    fn own_path(&self, ticket: Ticket) -> Path {
        let Identity { me, shard } = self.identity;
        Path::top(own_action(me, shard, ticket))
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
