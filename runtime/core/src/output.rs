//! What an engine can ask of its shell: the closed list of outputs.
//!
//! Outputs are to be done in the order they were pushed. Those that say "answered by" must be
//! answered exactly once, at any later time, in any order.

use crate::id::{CallId, Epoch, Incarnation, Peer, Uid};
use crate::input::{Fault, Ticket};
use crate::lock::mode::Mode;

/// Something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    },
    /// Run the servant on the arguments of `ticket`; answered by `Input::Returned`.
    Dispatch {
        /// The call; its arguments are the ones to use.
        ticket: Ticket,
        /// The object; at a create the one to make.
        uid: Uid,
        /// Shared or exclusive use of the image.
        mode: Mode,
        /// Run the constructor instead of a method.
        new: bool,
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
    /// For logs and metrics; nothing needs to be done.
    Event(Event),
    /// The drain is over: no call, no image of a persistent object is left. Once, last.
    Drained,
}

/// What to answer a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No object has this uid here.
    NoSuchObject,
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
    /// A caller came back in a new life; what its earlier one left is dropped.
    Reborn {
        /// The earlier life.
        old: Peer,
        /// The new incarnation.
        incarnation: Incarnation,
    },
}

/// Why an object left memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Nobody used it for long enough.
    Idle,
    /// Room was needed.
    Memory,
    /// An operator asked for it.
    Operator,
    /// The node shuts down.
    Drain,
}
