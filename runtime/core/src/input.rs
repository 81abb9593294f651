//! What can happen to an engine: the closed list of inputs.
//!
//! The shell translates what it sees (a message, a finished servant, a completed disk write)
//! into one of these. An answer to an [`crate::Output`] names the ticket or uid of that output.

use crate::action::message::{From, Message};
use crate::action::path::{Address, Coordinator, Joined, Membership, Participant, Site};
use crate::id::{CallId, Epoch, Incarnation, Peer, Uid};
use crate::lock::mode::Mode;
use crate::migrate::{Cargo, Checkpoint, NotShipped};
use crate::time::Time;

/// The shell's number of one incoming call on this shard, unique in the shard's life. The shell
/// keeps the arguments and the reply under it until [`crate::Output::Forget`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// The engine's number of one piece of work for the store, unique in the engine's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Job(pub u64);

/// One incoming call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invoke {
    /// The shell's number of it.
    pub ticket: Ticket,
    /// The object called.
    pub uid: Uid,
    /// The process at the other end of the connection.
    pub caller: Peer,
    /// The caller's name of the call; `None` for a foreign caller that gave none.
    pub call: Option<CallId>,
    /// Whether the method changes the object.
    pub mode: Mode,
    /// Execute at most once, whoever crashes: the reply is saved with the state it belongs to.
    /// Set for a write that is not idempotent and has a call id; needs both.
    pub save: bool,
    /// The object is of a transient class: it exists between `Serve` and `Retire` only, is
    /// never loaded, flushed nor passivated.
    pub volatile: bool,
    /// The object is replicated, led here, and what running actions have of it is to be taken
    /// over by its next leader (the policy coordinator-cohort). Not of a create.
    pub cohort: bool,
    /// When the caller stops waiting.
    pub deadline: Time,
    /// The action it is made in; `None` for a call of a process that runs none. A path without
    /// entries of its own is a call outside any action, made by a servant.
    pub action: Option<Box<Membership>>,
}

impl Invoke {
    /// The top-level action whose work the call is; none outside of actions.
    #[must_use]
    pub fn root(&self) -> Option<Uid> {
        self.action.as_ref()?.path.root()
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A call of an object arrived.
    Invoke(Invoke),
    /// A call that makes the object `uid` arrived; the shell runs the constructor at
    /// `Dispatch { new: true }`. `mode` must be [`Mode::Write`]. A duplicate is known by its
    /// call id alone, so its `uid` may differ from the first one's.
    Create(Invoke),
    /// A volatile object starts to exist here. No effect if it exists already.
    Serve {
        /// The object.
        uid: Uid,
    },
    /// A volatile object ends: waiting calls are refused, running ones end in peace. No effect
    /// on an unknown object.
    Retire {
        /// The object.
        uid: Uid,
    },
    /// Answer to [`crate::Output::Search`].
    Searched {
        /// The ticket that asked; ignored if it is gone by now.
        ticket: Ticket,
        /// Whether the store has a saved reply under the call id.
        found: bool,
    },
    /// Answer to [`crate::Output::Load`].
    Loaded {
        /// The object.
        uid: Uid,
        /// What the store said.
        outcome: Loaded,
    },
    /// The servant that [`crate::Output::Dispatch`] started has ended, by itself or because of
    /// [`crate::Output::Kill`].
    Returned {
        /// The call.
        ticket: Ticket,
        /// How it ended.
        ended: Ended,
        /// Size of the object's state afterwards, in bytes; only looked at after a write.
        size_bytes: u64,
    },
    /// Answer to [`crate::Output::Flush`]: the batch is on disk, or nothing of it is.
    Flushed {
        /// The call.
        ticket: Ticket,
        /// Whether the batch was applied.
        result: Result<(), Fault>,
    },
    /// Nobody waits for the answer to this ticket any more. Ignored if it is gone by now.
    Cancel {
        /// The call.
        ticket: Ticket,
    },
    /// A caller bound itself to an object (`initiate`); counted for each (object, caller).
    Bind {
        /// The object.
        uid: Uid,
        /// Who.
        caller: Peer,
    },
    /// A caller ended one binding (`terminate`). No effect if there is none.
    Unbind {
        /// The object.
        uid: Uid,
        /// Who.
        caller: Peer,
    },
    /// The last connection of a caller is gone: its bindings end, its calls that have not
    /// started are dropped, the answers of those that have are too.
    PeerGone {
        /// Who.
        caller: Peer,
    },
    /// An operator wants the object out of memory, if nothing uses it now.
    Evict {
        /// The object.
        uid: Uid,
    },
    /// A message about actions arrived.
    Message {
        /// From whom.
        from: From,
        /// What it says.
        message: Box<Message>,
    },
    /// Whoever runs a top-level action wants it committed; answered by
    /// [`crate::Output::Ended`]. It cannot be cancelled: its end is learnt by `Ask`.
    Commit {
        /// The shell's number of the request.
        ticket: Ticket,
        /// The process that asks.
        caller: Peer,
        /// The root action.
        action: Uid,
        /// The number of this shard's mirror.
        join: u64,
        /// All others that take part.
        others: Vec<Participant>,
        /// Nested actions that were aborted.
        aborted: Vec<Uid>,
        /// The replicated object whose log is to have the decision; none if this shard's store
        /// is. Only what was the coordinator's [`Joined::decider`] fits.
        decider: Option<Uid>,
        /// The coordinator is the part of the decider ([`Joined::part`]). Only for a shard that
        /// surely leads it.
        part: bool,
    },
    /// What became of a top-level action that this shard was to coordinate, or that was to be
    /// decided in the log of an object that it leads? Answered by [`crate::Output::Told`].
    Ask {
        /// The shell's number of the request.
        ticket: Ticket,
        /// The root action.
        action: Uid,
        /// The replicated object whose log has the decision; none if this shard's store has.
        decider: Option<Uid>,
    },
    /// The servant of a call in an action has called, or is about to call, an object at another
    /// shard in the same action; so an abort has to get there, whatever becomes of the servant.
    Reached {
        /// The root action.
        action: Uid,
        /// Where: of an object of the policy coordinator-cohort whoever leads it.
        to: Address,
    },
    /// The servant of a call in an action, of an object with [`Invoke::cohort`], is about to call
    /// elsewhere, and has not called there before; answered by [`crate::Output::GoOut`], before
    /// which it must not. Ignored if the call is gone by now.
    GoesOut {
        /// The call.
        ticket: Ticket,
        /// The nested action that it has begun for all its calls, within that of the call itself;
        /// committed by the engine, and nobody else, when the call has ended well. None: it calls
        /// outside of one, so that the call must not be executed again.
        level: Option<Uid>,
        /// Where to.
        to: Address,
    },
    /// Answer to [`crate::Output::Checkpoint`]. Ignored if the object was expelled before.
    Checkpointed {
        /// The work.
        job: Job,
        /// Whether it is complete in the object's log. An error says that it surely is not, and
        /// that this shard still leads the object: it is tried again. [`Fault::Full`]: it is
        /// larger than an entry may be, so the actions that make it so are aborted. If this shard
        /// leads no more, [`Input::Expel`] is the answer.
        result: Result<(), Fault>,
    },
    /// This shard leads a replicated object from now on, and this is the latest checkpoint in its
    /// log: what `part`, `end` and `decide` entries behind it have left of it
    /// ([`Checkpoint::settle`]). After [`Input::RecoverDecision`] and [`Input::RecoverPart`],
    /// before anybody calls the object. Answered by [`crate::Output::Resume`], perhaps later.
    RecoverCheckpoint {
        /// The object.
        object: Uid,
        /// The checkpoint, its times on this shard's clock.
        checkpoint: Box<Checkpoint>,
    },
    /// Answer to [`crate::Output::Store`].
    Stored {
        /// The work.
        job: Job,
        /// Whether the batch is on disk, or nothing of it. Of the parts of replicated objects it
        /// is not known after an error what is there: the engine has them undone.
        result: Result<(), Fault>,
    },
    /// Answer to [`crate::Output::SearchDecision`].
    DecisionFound {
        /// The question.
        job: Job,
        /// What the store has: `Some(true)` if the action is committed; `Some(false)` if there
        /// is no such record; `None` if the store could not tell, or this shard does not lead
        /// the decider: that there is no such record is to be said only while it surely leads it,
        /// and its store shows all that is complete.
        found: Option<bool>,
    },
    /// At start, before anything else: an earlier life of this node had prepared this action.
    RecoverPrepared {
        /// The root action.
        action: Uid,
        /// Who decides.
        coordinator: Coordinator,
        /// The objects of this shard that it has changed, but for replicated ones.
        objects: Vec<Uid>,
    },
    /// At start: an earlier life of this node had decided to commit, and not all participants
    /// have acknowledged. Or this shard leads the decider of such an action from now on.
    RecoverDecision {
        /// The root action.
        action: Uid,
        /// Those to be told.
        participants: Vec<Site>,
        /// Replicated objects with a part: whoever leads them is to be told.
        groups: Vec<Uid>,
        /// The replicated object whose log has the decision; none if this shard's store has.
        decider: Option<Uid>,
    },
    /// This shard leads a replicated object from now on, and there is a part of an action in its
    /// log. Before anybody calls the object.
    RecoverPart {
        /// The object.
        object: Uid,
        /// The root action.
        action: Uid,
        /// Who decides.
        coordinator: Coordinator,
    },
    /// Answer to [`crate::Output::EndPart`].
    PartEnded {
        /// The object.
        object: Uid,
        /// The root action.
        action: Uid,
        /// Whether the end is complete in the object's log, and the leader's store shows it.
        result: Result<(), Fault>,
    },
    /// This shard does not lead a replicated object any more: it leaves memory, with whatever
    /// actions have of it. Also if it is leader again by now. No checkpoint of it is answered
    /// any more.
    Expel {
        /// The object.
        uid: Uid,
    },
    /// The object is to move to another node; answered by exactly one `Output::Ship` or
    /// `Output::Stays`, whatever else happens to it.
    Depart {
        /// The object.
        uid: Uid,
        /// A new name for the move.
        action: Uid,
        /// The object's shard at the target.
        to: Site,
        /// In which life of the target.
        to_incarnation: Incarnation,
        /// When the source gives it up, unless it is decided by then.
        until: Time,
    },
    /// Answer to [`crate::Output::Ship`]: the target has answered [`Input::Unload`], or does not
    /// take the object. Ignored if the source has given the move up by now.
    Shipped {
        /// The object.
        uid: Uid,
        /// The move.
        action: Uid,
        /// What the target said: for each action of the cargo the number of its mirror there.
        result: Result<Vec<(Uid, Joined)>, NotShipped>,
    },
    /// An object is about to come to this shard: from now on its calls here wait. Before the
    /// first of it is written. Answered by [`crate::Output::Arriving`].
    Arrive {
        /// The object.
        uid: Uid,
        /// The move.
        action: Uid,
        /// The object's shard at the source, which decides.
        coordinator: Site,
    },
    /// All that is durable of an object that comes is on disk here, as a prepared shadow.
    /// Answered by [`crate::Output::Unloaded`].
    Unload {
        /// The object.
        uid: Uid,
        /// The move.
        action: Uid,
        /// What running actions have of it.
        cargo: Box<Cargo>,
    },
    /// Take no new calls, finish those admitted, empty the memory, then `Output::Drained`.
    Drain,
}

/// What the store said to a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// The object is in memory now.
    Found {
        /// The number of this activation.
        epoch: Epoch,
        /// Size of its state in bytes.
        size_bytes: u64,
        /// It is replicated, and led here.
        replicated: bool,
    },
    /// There is no such object.
    Absent,
    /// It has moved to another node: the store has a forward.
    Moved,
    /// The store could not tell.
    Failed(Fault),
}

/// How a servant's method ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With a result.
    Normal,
    /// With an exception the IDL declares: the object must be as before, the answer counts.
    Raised,
    /// Without an answer of its own (a panic, undecodable arguments): the object must be as
    /// before, and asking again executes again.
    Failed,
    /// It was stopped where it waited, since nobody needs its answer: the object must be as
    /// before. Only after [`crate::Output::Kill`].
    Killed,
}

/// Why the store did not do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A later activation of the object has written: this one is out of date.
    Fenced,
    /// No room on the disk or in the map.
    Full,
    /// A new object's uid is taken.
    Exists,
    /// Anything else: the shell has the details.
    Store,
}
