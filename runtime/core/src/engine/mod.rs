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

mod actions;
mod admit;
mod arrive;
mod check;
mod cohort;
mod commit;
mod decide;
mod depart;
mod inspect;
mod levels;
mod locking;
mod memory;
mod orphans;
mod out;
mod outcome;
mod part;
mod parts;
mod pins;
mod reached;
mod rest;
mod resume;
mod run;
mod view;
mod waits;
mod work;

pub use view::{ActionPhase, ActionView, HolderView, LockView, ObjectView, Stats, WaiterView};

use std::collections::{BTreeMap, VecDeque};

use self::cohort::Cohorts;
use self::outcome::Search;
use self::parts::Parts;
use self::pins::Late;
use self::work::Work;
use crate::action::coordinator::Decisions;
use crate::action::message::Message;
use crate::action::mirror::Mirrors;
use crate::action::path::Site;
use crate::action::tombstone::Tombstones;
use crate::activation::{Image, Object, Objects};
use crate::call::Calls;
use crate::deadline::Deadlines;
use crate::deadlock::{Act, Detector, Rule};
use crate::id::{Peer, Uid};
use crate::incarnation::Incarnations;
use crate::input::{Input, Job, Ticket};
use crate::limits::Limits;
use crate::lock::locks::{Granted, Locks, Owner};
use crate::migrate::arrivals::Arrivals;
use crate::migrate::departures::Departures;
use crate::outbox::Outbox;
use crate::output::{ObjectSlot, Orphan, Output};
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
    /// Execute a call of an action again when it is asked for again.
    ExecuteRepeated,
    /// Vote Yes although the prepared state could not be written.
    TrustPrepareFault,
    /// Break a cycle of waits without asking whether it is still there.
    NoConfirm,
    /// After a restart, forget the locks of what is prepared.
    LosePrepareOnRecovery,
    /// Prepare while calls of the action still run or wait.
    IgnoreLateCalls,
    /// Take objects out of memory that actions have locked.
    EvictLocked,
    /// Keep whatever the store has found in memory, however much is there.
    ExceedMemory,
    /// Let servants run on whose deadline has passed (M1 of Rajdoot).
    SpareExpired,
    /// Leave what an earlier life of a caller began (M2).
    SpareOlder,
    /// Leave what a caller began that is gone (M3).
    SpareLost,
    /// Let servants of aborted actions run on.
    SpareAborted,
    /// Leave a rule of groups out; engines do not look at it.
    Group(crate::group::Rule),
    /// Decide a move before the target has the object.
    DecideUnprepared,
    /// Run calls of an object while it is on its way.
    RunWhileMoving,
    /// Leave the locks of running actions behind.
    LeaveLocks,
    /// Leave the before-images of running actions behind, and what they changed.
    LeaveImages,
    /// Leave behind which calls running actions have executed.
    LeaveExecuted,
    /// Do not tell the coordinator where the work of an action went.
    HideMoved,
    /// Leave no forward where an object was. For the shell: its store is to lose it.
    LoseForward,
    /// Let calls at the target in before the object is there.
    ServeEarly,
    /// Vote Yes again after a restart, though nobody knows where objects of the action went.
    TrustRecovered,
    /// Vote No while an object that the action has locked is on its way.
    RefuseWhileMoving,
    /// End a part that is found in a log without asking: commit it.
    PresumePartCommit,
    /// The same: drop it.
    PresumePartAbort,
    /// Leave a part that is found in a log unlocked.
    LosePartOnTakeover,
    /// Keep what a leader has of an object when it is deposed.
    ForgetExpel,
    /// Name no replicated objects in decisions.
    HideGroups,
    /// Acknowledge a part before its end is in the log.
    AcknowledgeUnended,
    /// Ask the coordinator's site what became of an action, wherever its decision is.
    IgnoreDecider,
    /// Say that there is no decision without leading its decider. For the shell.
    AnswerUnled,
    /// Answer calls before the log has the checkpoint.
    AnswerUncheckpointed,
    /// Say everything else before the log has the checkpoint.
    TellUncheckpointed,
    /// Try a checkpoint again without the answers that were to go with it.
    LoseAnswers,
    /// Take in no checkpoint.
    LoseCheckpoint,
    /// Take over no ends of actions.
    ForgetEnds,
    /// Vote for the first who asks alone, though another leads the decider now.
    NoRebind,
    /// Let servants call elsewhere, and do not say so in the log.
    GoOutUnmarked,
    /// Commit what a servant has called elsewhere before the log has its answer.
    MergeUncheckpointed,
    /// Leave the checkpoint as it is when a part or a decision comes behind it. For the shell.
    KeepCheckpoint,
    /// Prepare and commit without leading the object. For the shell.
    VoteUnled,
}

/// Which shard this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The node, in its present life.
    pub me: Peer,
    /// The shard's number at its node.
    pub shard: u16,
    /// A number that callers do not know, for the hashes of locks and objects: who could choose
    /// uids that collide could make every look-up long. Nothing that is decided depends on it.
    pub seed: u64,
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
    locks: Locks,
    uses: UseList,
    incarnations: Incarnations,
    mirrors: Mirrors,
    tombstones: Tombstones,
    decisions: Decisions,
    parts: Parts,
    cohorts: Cohorts,
    /// What the store is doing for actions.
    jobs: BTreeMap<Job, Work>,
    last_job: u64,
    /// What it could not do and is to try again, and when.
    undone: VecDeque<(Time, Work)>,
    /// Actions whose end the store is asked for.
    searches: BTreeMap<(Uid, Option<Uid>), Search>,
    /// Until when calls wait for locks and at gates.
    patience: Deadlines,
    departures: Departures,
    arrivals: Arrivals,
    /// What is to be done about actions when moves have ended.
    late: BTreeMap<Uid, Late>,
    drain: Drain,
    detector: Detector,
    /// What it wants done; empty between inputs.
    acts: Vec<Act>,
    /// Calls that got a lock or their turn and were not looked at yet; empty between inputs, as
    /// the two below.
    ready: VecDeque<Slot>,
    /// What the lock table says about the last change.
    granted: Vec<Granted>,
    /// Locks that moved while somebody waits for them, and to whom.
    moved: Vec<(Uid, Owner)>,
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
        let rule = (mutation == Mutation::NoConfirm).then_some(Rule::Confirm);
        Self {
            limits,
            identity,
            mutation,
            now: Time(0),
            calls: Calls::new(),
            objects: Objects::seeded(identity.seed),
            locks: Locks::seeded(identity.seed),
            uses: UseList::default(),
            incarnations: Incarnations::new(),
            mirrors: Mirrors::new(identity.me.node, identity.me.incarnation),
            tombstones: Tombstones::default(),
            decisions: Decisions::default(),
            parts: Parts::default(),
            cohorts: Cohorts::default(),
            jobs: BTreeMap::new(),
            last_job: 0,
            undone: VecDeque::new(),
            searches: BTreeMap::new(),
            patience: Deadlines::default(),
            departures: Departures::default(),
            arrivals: Arrivals::default(),
            late: BTreeMap::new(),
            drain: Drain::No,
            detector: Detector::without(identity.site(), identity.me.incarnation, rule),
            acts: Vec::new(),
            ready: VecDeque::new(),
            granted: Vec::new(),
            moved: Vec::new(),
        }
    }

    /// Takes in what happened at `now` and appends what is to be done about it.
    ///
    /// # Panics
    /// If the shell answers what was not asked, or uses a ticket twice.
    pub fn handle(&mut self, now: Time, input: Input, out: &mut Outbox) {
        self.now = self.now.max(now);
        match input {
            Input::Invoke(invoke) => self.admit(invoke, false, out),
            Input::Create(invoke) => self.admit(invoke, true, out),
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
            Input::Cancel { ticket } => self.cancel(ticket, Orphan::Cancelled, out),
            Input::Bind { uid, caller } => self.bind(uid, caller, out),
            Input::Unbind { uid, caller } => self.unbind(uid, caller),
            Input::PeerGone { .. } if self.mutation == Mutation::SpareLost => {}
            Input::PeerGone { caller } => {
                self.detector.peer_gone(caller);
                self.caller_gone(caller, out);
            }
            Input::Serve { uid } => self.serve(uid, out),
            Input::Retire { uid } => self.retire(uid, out),
            Input::Evict { uid } => self.evict(uid, out),
            // What waits elsewhere is in this shard's care as long as its process lives.
            Input::Message { message, .. }
                if self.is_drained() && !matches!(*message, Message::Deadlock(_)) => {}
            Input::Message { from, message } => self.message(from, *message, out),
            commit @ Input::Commit { .. } => self.commit_wanted(commit, out),
            Input::Ask {
                ticket,
                action,
                decider,
            } => self.asked(ticket, action, decider, out),
            Input::Reached { action, to } => self.reached(action, to, out),
            Input::GoesOut { ticket, level, to } => self.goes_out(ticket, (level, to), out),
            Input::Checkpointed { job, result } => self.checkpointed(job, result, out),
            Input::Stored { job, result } => self.stored(job, result, out),
            Input::DecisionFound { job, found } => self.decision_found(job, found, out),
            about_a_takeover @ (Input::RecoverPrepared { .. }
            | Input::RecoverDecision { .. }
            | Input::RecoverPart { .. }
            | Input::RecoverCheckpoint { .. }
            | Input::PartEnded { .. }
            | Input::Expel { .. }) => self.taking_over(about_a_takeover, out),
            about_a_move @ (Input::Depart { .. }
            | Input::Shipped { .. }
            | Input::Arrive { .. }
            | Input::Unload { .. }) => self.moving(about_a_move, out),
            Input::Drain => self.begin_drain(out),
        }
        self.settle(out);
    }

    /// Does what is due at `now`: refuses calls whose deadline passed or that waited for too
    /// long, ends actions whose time is up, sends again what was not answered, passivates
    /// objects that were idle for too long. Harmless when nothing is due.
    pub fn handle_timeout(&mut self, now: Time, out: &mut Outbox) {
        self.now = self.now.max(now);
        while let Some((_, ticket, slot)) = self.calls.deadlines.pop_due(self.now) {
            if self.calls.slot(ticket) == Some(slot) {
                self.expire(slot, out);
            }
            self.calls.tidy();
        }
        while let Some((_, ticket, slot)) = self.patience.pop_due(self.now) {
            if self.calls.is_stuck(ticket, slot) {
                self.lose_patience(slot, out);
            }
        }
        self.look_at_mirrors(out);
        self.tell_again(out);
        self.store_again(out);
        self.departures_due(out);
        self.passivate_expired(out);
        self.waits_due();
        self.settle(out);
    }

    /// When to call [`Engine::handle_timeout`] at the latest; may change with every input.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Time> {
        if self.is_drained() {
            return None;
        }
        let mut next = Time::NEVER;
        let mut at_latest = |at: Option<Time>| next = next.min(at.unwrap_or(Time::NEVER));
        at_latest(self.calls.deadlines.first().map(|(at, ..)| at));
        at_latest(self.objects.next_expiry(&self.limits).map(|(at, _)| at));
        at_latest(self.patience.first().map(|(at, ..)| at));
        at_latest(self.mirrors.next_due());
        at_latest(self.decisions.next_due());
        at_latest(self.undone.front().map(|(at, _)| *at));
        at_latest(self.departures.next_due());
        at_latest(self.waits_timeout());
        (next != Time::NEVER).then_some(next)
    }

    /// Ends an input: whoever got a lock is looked at, leftovers are swept out.
    fn settle(&mut self, out: &mut Outbox) {
        // Before anybody runs whom what has happened lets in.
        self.add_checkpoints(out);
        loop {
            if !self.parts.unlocked.is_empty() {
                self.lock_parts();
            }
            if !self.cohorts.waiting.is_empty() {
                self.resume_free(out);
            }
            self.run_ready(out);
            match self.moved.pop() {
                Some((uid, owner)) => self.look_at_move(uid, owner, out),
                None if self.act(out) => {}
                None if self.moves_go_on(out) => {}
                None => break,
            }
        }
        self.make_room(out);
        self.add_checkpoints(out);
        self.calls.tidy();
        let calls = &self.calls;
        let stuck = |ticket, slot| calls.is_stuck(ticket, slot);
        self.patience.tidy(calls.len(), stuck);
        self.end_drain(out);
        self.check_settled();
    }

    /// Panics if something was left for later that has no later.
    fn check_settled(&self) {
        let idle = self.ready.is_empty() && self.moved.is_empty() && self.granted.is_empty();
        assert!(idle, "a call got a lock and was not looked at");
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
            actions: self.mirrors.len(),
            commits: self.decisions.len(),
            tombstones: self.tombstones.len(),
            moves: self.departures.len() + self.arrivals.len(),
        }
    }

    /// Where an object is, if the engine knows it.
    #[must_use]
    pub fn object_slot(&self, uid: Uid) -> Option<ObjectSlot> {
        self.objects.slot(uid).map(|slot| ObjectSlot(slot.0))
    }

    /// How many callers are bound to an object.
    #[must_use]
    pub fn callers_bound(&self, uid: Uid) -> u32 {
        self.uses.callers(uid)
    }

    /// The objects after this one that a caller is bound to, in order, and how often.
    pub fn bound_to(&self, caller: Peer, after: Uid) -> impl Iterator<Item = (Uid, u32)> + '_ {
        self.uses.of(caller, after)
    }

    /// Who has the lock of an object, and whether that is up to another shard's decision: the one
    /// of which that is true, if there are several. An action, or a call that is one by itself.
    #[must_use]
    pub fn lock_owner(&self, uid: Uid) -> Option<(Uid, bool)> {
        let owners = self.locks.holders(Self::lock_key(uid));
        let owners = owners.map(|holding| (holding.owner, self.is_prepared(holding.owner)));
        let owner = owners.max_by_key(|(_, prepared)| *prepared);
        owner.map(|(owner, prepared)| (self.name_of(owner), prepared))
    }

    /// Each object that is in memory or called, in no special order; for inspection.
    pub fn objects(&self) -> impl Iterator<Item = ObjectView> + '_ {
        self.objects.iter().map(|(_, object)| self.show(object))
    }

    /// An object, if it is in memory or called; for inspection.
    #[must_use]
    pub fn object(&self, uid: Uid) -> Option<ObjectView> {
        let slot = self.objects.slot(uid)?;
        Some(self.show(self.objects.entry(slot)))
    }

    fn show(&self, object: &Object) -> ObjectView {
        ObjectView {
            uid: object.uid,
            in_memory: object.image == Image::Active,
            volatile: object.is_volatile(),
            // A move counts as a call of its object.
            running: object.calls - object.waiting - u32::from(object.is_leaving()),
            waiting: object.waiting,
            callers_bound: self.uses.callers(object.uid),
        }
    }

    fn slot_of(&self, ticket: Ticket, what: &str) -> Slot {
        let slot = self.calls.slot(ticket);
        slot.unwrap_or_else(|| panic!("{ticket:?} {what} but there is no such call"))
    }

    fn forget(&mut self, slot: Slot, out: &mut Outbox) -> crate::call::Call {
        let part = self.part_of_call(slot);
        let call = self.calls.remove(slot);
        let ticket = call.ticket;
        self.say(part, Output::Forget { ticket }, out);
        call
    }
}
