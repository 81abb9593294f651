//! What an engine can ask of its shell: the closed list of outputs.
//!
//! Outputs are to be done in the order they were pushed. Those that say "answered by" must be
//! answered exactly once, at any later time, in any order.

mod batch;

use crate::action::message::{Edge, Message, To, Verdict};
use crate::action::path::{Coordinator, Joined, Site};
use crate::id::{CallId, Epoch, Incarnation, Peer, Uid};
use crate::input::{Fault, Job, Ticket};
use crate::lock::mode::Mode;
use crate::migrate::{Cargo, Checkpoint, Stays};

pub use self::batch::{ActionBatch, Written};

/// A small number of an object that the engine knows: the same from its `Load`, or the `Dispatch`
/// that creates it, until the image is dropped, and used for another object afterwards. A shell
/// finds the image by it without a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectSlot(pub u32);

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Look for a saved reply in the store; answered by `Input::Searched`.
    Search {
        /// The ticket that wants to know.
        ticket: Ticket,
        /// The call id to look for.
        call: CallId,
    },
    /// Read the latest committed state, assign an epoch and keep the image; answered by
    /// `Input::Loaded`.
    Load {
        /// The object.
        uid: Uid,
        /// Where the shell may keep it.
        slot: ObjectSlot,
    },
    /// Run the servant on the arguments of `ticket`; answered by `Input::Returned`.
    Dispatch {
        /// The call; its arguments are the ones to use.
        ticket: Ticket,
        /// The object; at a create the one to make.
        uid: Uid,
        /// The slot that its `Load` named; at a create where the shell may keep what is made.
        slot: ObjectSlot,
        /// Shared or exclusive use of the image.
        mode: Mode,
        /// Run the constructor instead of a method.
        new: bool,
        /// The action whose work it is (the leaf of the call's path); none outside of actions.
        /// A write in an action is undone by `Undo` if it raises or fails, so the shell keeps
        /// the state from before it, unless the `Capture` just before has.
        action: Option<Uid>,
    },
    /// Stop the servant of this call where it waits, with all that it calls: it is an orphan
    /// (Nelson's extermination, Rajdoot's killing). It is answered as any dispatch, by
    /// `Input::Returned`, as `Killed` if the servant could be stopped; one that has just ended by
    /// itself has ended so. At most one for each ticket.
    Kill {
        /// The call.
        ticket: Ticket,
    },
    /// One batch for the store; answered by `Input::Flushed`.
    Flush {
        /// The call whose batch it is.
        ticket: Ticket,
        /// The object.
        uid: Uid,
        /// Write the object's state as it is now.
        state: bool,
        /// Save the reply under the call id.
        reply: bool,
        /// The object is new in the store.
        create: bool,
    },
    /// Send the answer of a ticket. At most one for each ticket.
    Reply {
        /// The call.
        ticket: Ticket,
        /// What to answer.
        answer: Answer,
        /// For a call in an action: this shard takes part in it. Whatever the answer is.
        joined: Option<Joined>,
    },
    /// The arguments and the reply of this ticket are not needed any more. Exactly one for each
    /// ticket, its last output; it may come without a `Reply`.
    Forget {
        /// The call.
        ticket: Ticket,
    },
    /// Drop the image: it holds what must not stay. It will be loaded again on demand.
    Discard {
        /// The object.
        uid: Uid,
    },
    /// Drop the image: nobody needs it now. What it holds is in the store.
    Passivate {
        /// The object.
        uid: Uid,
    },
    /// Keep the object's present state as the before-image of this action, with an empty set of
    /// changed rows on top of those of the actions it is in. Once for each (object, action).
    /// A new object's before-image is that there is none.
    Capture {
        /// The object.
        uid: Uid,
        /// The action, root or nested.
        action: Uid,
    },
    /// The call raised or failed: put the object back as it was before it, and forget the rows
    /// it changed. Only after a `Dispatch` in an action; outside of actions it is `Discard`.
    /// A create in an action that failed leaves nothing.
    Undo {
        /// The call.
        ticket: Ticket,
        /// The object.
        uid: Uid,
    },
    /// The call in an action has ended well: what it did to rows belongs to its action now.
    Keep {
        /// The call.
        ticket: Ticket,
        /// The object.
        uid: Uid,
        /// The action.
        action: Uid,
    },
    /// Put the object back as the before-image of this action says, and drop the image and the
    /// action's rows.
    Restore {
        /// The object.
        uid: Uid,
        /// The action.
        action: Uid,
    },
    /// A nested action committed: its changed rows are its parent's now, and so is its
    /// before-image, if `keep`; else the parent has an older one and it is dropped.
    Inherit {
        /// The object.
        uid: Uid,
        /// The nested action.
        child: Uid,
        /// Its parent.
        parent: Uid,
        /// Whether the parent has none yet.
        keep: bool,
    },
    /// The action is committed: its before-image of this object is not needed any more, and the
    /// rows it changed are the object's.
    Release {
        /// The object.
        uid: Uid,
        /// The root action.
        action: Uid,
    },
    /// One batch for the store about an action; answered by `Input::Stored`.
    Store {
        /// To be answered with.
        job: Job,
        /// What to write.
        batch: Box<ActionBatch>,
    },
    /// Look for a decision in the store; answered by `Input::DecisionFound`.
    SearchDecision {
        /// To be answered with.
        job: Job,
        /// The root action.
        action: Uid,
        /// In the log of this replicated object; none: in the store itself.
        decider: Option<Uid>,
    },
    /// Add the end of an action's part to a replicated object's log; answered by
    /// `Input::PartEnded`. Harmless if there is no such part: that it could be added shows that
    /// this shard leads the object.
    EndPart {
        /// The object.
        object: Uid,
        /// The root action.
        action: Uid,
        /// Whether the part becomes the object's state, or is dropped.
        commit: bool,
    },
    /// Add a checkpoint of a replicated object to its log: this, with the bytes that belong to it
    /// ([`Checkpoint`]), and with the answers of some calls, to be found under their call ids by
    /// `Answer::Saved` from then on: bytes and report. Checkpoints are added in the order in which
    /// they are said, and with regard to all other entries. Answered by `Input::Checkpointed`,
    /// unless the object is expelled before. What must not be known before the log has it is said
    /// by the engine only then.
    Checkpoint {
        /// To be answered with.
        job: Job,
        /// The object.
        object: Uid,
        /// What running actions have of it.
        checkpoint: Box<Checkpoint>,
        /// Calls that have ended, as long as no checkpoint with their answers is complete: the same
        /// one may be in several.
        replies: Vec<Ticket>,
    },
    /// Answer to `Input::RecoverCheckpoint`. With a slot: make the object's image of the bytes of
    /// the checkpoint, with an epoch of its own. Without: drop them, it is loaded on demand.
    Resume {
        /// The object.
        object: Uid,
        /// Where the shell may keep the image.
        slot: Option<ObjectSlot>,
    },
    /// An action was taken over in which this process has called: if there is no connection of
    /// it, one is to be awaited for as long as a lease lasts, then `Input::PeerGone` follows.
    Watch {
        /// Who.
        caller: Peer,
    },
    /// An earlier leader has begun this call, and it had called elsewhere in these nested actions:
    /// its answer must name them as aborted. With its `Dispatch`.
    Again {
        /// The call.
        ticket: Ticket,
        /// The nested actions.
        lost: Vec<Uid>,
    },
    /// Answer to `Input::GoesOut`: the servant may call. None comes if the call ends before, its
    /// action is being aborted, or its object is expelled.
    GoOut {
        /// The call.
        ticket: Ticket,
    },
    /// Send a message. It may get lost.
    Send {
        /// Where to; perhaps another shard of this node, or this one itself.
        to: To,
        /// What; in a box, so that the outputs of every call are small to move.
        message: Box<Message>,
    },
    /// Answer to `Input::Commit`. Exactly one, then the ticket is forgotten.
    Ended {
        /// The request.
        ticket: Ticket,
        /// How the action ended.
        end: End,
    },
    /// Answer to `Input::Ask`. Exactly one, then the ticket is forgotten.
    Told {
        /// The request.
        ticket: Ticket,
        /// What became of the action; none if the store could not tell.
        verdict: Option<Verdict>,
    },
    /// Bring the object to the target of its move: the committed state and rows, saved replies,
    /// and, where the cargo has images, the present state and the before-images and rows of each
    /// level. Until the move ends nothing of it changes, no method of it runs. Answered by
    /// `Input::Shipped`.
    Ship {
        /// The object.
        uid: Uid,
        /// The move.
        action: Uid,
        /// What running actions have of it.
        cargo: Box<Cargo>,
    },
    /// The object does not move: it serves here as before. The target, if it has heard of it,
    /// was sent an abort of the move. The last about a move that has not departed; it may come
    /// while `Ship` is being carried out.
    Stays {
        /// The object.
        uid: Uid,
        /// The move.
        action: Uid,
        /// The reason.
        why: Stays,
    },
    /// The object has moved, and that is on disk: its image, before-images and rows here go. The
    /// last about the move at the source.
    Departed {
        /// The object.
        uid: Uid,
        /// The move.
        action: Uid,
    },
    /// Answer to `Input::Arrive`: calls of the object wait here from now on, or why they do not.
    /// A refusal ends the move here; nothing may be written for it then.
    Arriving {
        /// The object.
        uid: Uid,
        /// The move.
        action: Uid,
        /// Whether it may come.
        result: Result<(), Refusal>,
    },
    /// Answer to `Input::Unload`.
    Unloaded {
        /// The object.
        uid: Uid,
        /// The move.
        action: Uid,
        /// For each action of the cargo the number of its mirror here; or why it is not taken.
        result: Result<Vec<(Uid, Joined)>, Refusal>,
    },
    /// The object has moved here, and that is on disk. With a slot: make its image of the bytes
    /// that came with the cargo, its present state, before-images and rows. Without: drop them,
    /// it is loaded on demand. After `Unloaded`, this or `NotArrived` is the last about the move
    /// at the target.
    Arrived {
        /// The object.
        uid: Uid,
        /// The move.
        action: Uid,
        /// Where the shell may keep the image.
        slot: Option<ObjectSlot>,
    },
    /// The object does not come, or what came with its cargo is of no use: drop it. Of what was
    /// written `ActionBatch::Undo` takes care.
    NotArrived {
        /// The object.
        uid: Uid,
        /// The move.
        action: Uid,
    },
    /// For logs and metrics; nothing needs to be done.
    Event(Event),
    /// The drain is over: no call, no image of a persistent object is left. Once, last.
    Drained,
}

/// How a commit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The action is committed, for ever.
    Committed,
    /// It is aborted.
    Aborted(Abort),
    /// This shard cannot tell: whoever leads the decider can.
    Unknown,
}

/// Why an action was aborted by its participants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abort {
    /// The shard does not know the action (any more), or only one that lacks earlier work: its
    /// node restarted, its caller was gone, its time was up.
    Lost(Site),
    /// A participant could not prepare.
    Refused(Site),
    /// A participant did not answer in time.
    Silent(Site),
    /// Calls of the action are still running there.
    Busy(Site),
    /// The store failed.
    Store(Fault),
    /// It has ended already.
    Ended,
}

/// What to answer a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// What the servant returned or raised for this ticket, or how it failed.
    Outcome,
    /// This ticket asked again for a call that ran under another ticket: the same bytes.
    SameAs(Ticket),
    /// The reply saved in the store under this call id.
    Saved(CallId),
    /// The call was not executed, or its effect is not to be relied on.
    Refused(Refusal),
}

/// Why a call has no outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No object has this uid here.
    NoSuchObject,
    /// The object has moved to another node; the call was not executed, and is to be made there
    /// under the same call id. Where to is in the store's forward.
    Moved,
    /// The uid of an object to be made is taken.
    Exists,
    /// A bound is reached; the call was not executed.
    Overloaded {
        /// What there is too much of.
        what: &'static str,
        /// How much of it is allowed.
        limit: u64,
    },
    /// The deadline passed.
    Deadline {
        /// Whether the call was executed, is being executed or may still be (because the
        /// caller's second request for it waits on); `false` means: surely never.
        started: bool,
    },
    /// The node is shutting down; the call was not executed.
    Draining,
    /// The call comes from an earlier life of its caller; it was not executed.
    OldIncarnation {
        /// The latest life seen.
        known: Incarnation,
    },
    /// The call id is in use for a call of another object: a mistake of the caller.
    CallIdReused,
    /// It waited for the object's lock for as long as is allowed; it was not executed.
    LockTimeout {
        /// Who had the lock, or stood before it: an action, or a call outside of actions.
        owner: Uid,
        /// The owner is prepared: it waits for its coordinator's decision.
        in_doubt: bool,
    },
    /// It waited in a cycle; it was not executed, and `victim` must be aborted.
    Deadlock {
        /// The call's action or one that it is in.
        victim: Uid,
        /// The cycle, the call's own edge first.
        cycle: Vec<Edge>,
    },
    /// The object is being called by the very chain of calls that this one is made for, so it
    /// would wait for itself; it was not executed.
    Reentrant {
        /// The action or call that has the object and waits for this call.
        owner: Uid,
    },
    /// The action has ended here, or has to: nothing of it can be relied on.
    ActionAborted {
        /// The action.
        action: Uid,
        /// Why, if this shard did it on its own and remembers; else somebody else said so.
        why: Option<GaveUp>,
    },
    /// The call was executed in this action before; its answer was sent and is gone.
    Repeated,
    /// It was stopped, since nobody waited for it any more, just when this request asked for it
    /// again; nothing of it stays at the object.
    Killed,
    /// What came from another node cannot be; nothing of it was taken in.
    Malformed {
        /// What is wrong.
        what: &'static str,
    },
    /// The store failed; what the call did to the object is undone.
    Store(Fault),
}

/// Something worth a line in a log or a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// An object came into memory.
    Activated {
        /// The object.
        uid: Uid,
        /// The number of the activation.
        epoch: Epoch,
    },
    /// A new object is in the store.
    Created {
        /// The object.
        uid: Uid,
    },
    /// An object left memory.
    Passivated {
        /// The object.
        uid: Uid,
        /// The reason.
        why: Why,
    },
    /// An operator's eviction was not done, since the object is in use or not in memory.
    NotEvicted {
        /// The object.
        uid: Uid,
    },
    /// The store refused a state because a later activation exists.
    Fenced {
        /// The object.
        uid: Uid,
    },
    /// A bound was reached and something was refused.
    Overloaded {
        /// What there is too much of.
        what: &'static str,
        /// How much of it is allowed.
        limit: u64,
    },
    /// A call was asked for again while it waits or runs.
    Joined {
        /// The ticket that asked again.
        ticket: Ticket,
        /// The ticket the call runs under.
        first: Ticket,
    },
    /// An action holds prepared state here and waits for a decision.
    InDoubt {
        /// The root action.
        action: Uid,
        /// Who decides.
        coordinator: Coordinator,
    },
    /// An action was aborted here without being told to.
    GaveUp {
        /// The root action.
        action: Uid,
        /// The reason.
        why: GaveUp,
    },
    /// A servant was stopped, since nobody needed its answer.
    OrphanKilled {
        /// The object.
        uid: Uid,
        /// Why nobody does.
        why: Orphan,
    },
    /// A deadlock was found and broken here.
    DeadlockBroken {
        /// The action that is aborted.
        victim: Uid,
        /// How many waits were in the cycle.
        length: usize,
    },
    /// An object has moved away.
    Departed {
        /// The object.
        uid: Uid,
        /// Where to.
        to: Site,
        /// How many running actions went with it.
        actions: usize,
    },
    /// An object has moved here.
    Arrived {
        /// The object.
        uid: Uid,
        /// Where from.
        from: Site,
        /// How many running actions came with it.
        actions: usize,
    },
    /// A caller came back in a new life; what its earlier one left is dropped.
    Reborn {
        /// The earlier life.
        old: Peer,
        /// The new incarnation.
        incarnation: Incarnation,
    },
}

/// Why nobody needs what a servant does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Orphan {
    /// The process that called is gone, or a newer life of it is known.
    CallerGone,
    /// The deadline of the call passed (Rajdoot's measure M1).
    Expired,
    /// The caller has given the call up.
    Cancelled,
    /// The action that it works for is aborted.
    Aborted,
}

/// Why an action was aborted by a participant on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GaveUp {
    /// A process that called in it is gone.
    CallerGone,
    /// Its time is up.
    Expired,
    /// An older life of its root's process began it.
    OldIncarnation,
    /// A replicated object that it had locked is led elsewhere now.
    Expelled,
}

/// Why an object left memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Nobody used it for long enough.
    Idle,
    /// Room was needed.
    Memory,
    /// It was loaded, but found no room; the calls that wanted it were refused.
    NoRoom,
    /// An operator asked for it.
    Operator,
    /// The node shuts down.
    Drain,
    /// It is led elsewhere now.
    Expelled,
}
