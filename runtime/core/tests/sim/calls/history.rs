//! What the clients did and were told: the only thing most checkers look at.
//!
//! Every object is a list. Every write appends its own number, so that the final lists tell
//! which writes took effect, how often and in what order.

use partha_core::id::{CallId, Peer, Uid};

/// The number of an operation, unique in a run.
pub(crate) type OpId = usize;

/// What an operation does to its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Appends; must take effect once however often it is asked for.
    Append,
    /// Appends unless it has done so before: idempotent, not saved.
    Add,
    /// Appends; has no call id and is asked for once.
    Plain,
    /// Looks.
    Read,
    /// Appends, then raises: must leave nothing behind.
    Raise,
    /// Makes an object.
    Create,
}

impl Kind {
    pub(crate) fn is_write(self) -> bool {
        match self {
            Self::Append | Self::Add | Self::Plain | Self::Raise | Self::Create => true,
            Self::Read => false,
        }
    }

    /// Whether the reply is to be saved.
    pub(crate) fn is_saved(self) -> bool {
        match self {
            Self::Append | Self::Raise | Self::Create => true,
            Self::Add | Self::Plain | Self::Read => false,
        }
    }
}

/// How a servant ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Normal,
    Raised,
    Failed,
}

/// What a servant answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) ending: Ending,
    /// The object's list when the servant looked.
    pub(crate) seen: Vec<OpId>,
    /// The object.
    pub(crate) uid: Uid,
}

/// What is known of an operation in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The client is not done with it.
    Open,
    /// The client got this answer.
    Answered { at: u64, outcome: Outcome },
    /// The client was told that it was not executed, and asked no more.
    NotExecuted,
    /// The client died or gave up: it may have been executed or not.
    Unknown,
}

/// One operation.
#[derive(Clone, Debug)]
pub(crate) struct Op {
    pub(crate) kind: Kind,
    /// Which object; meaningless for a create.
    pub(crate) uid: Uid,
    /// Whose it is.
    pub(crate) caller: Peer,
    pub(crate) call: Option<CallId>,
    pub(crate) invoked_at: u64,
    /// How often the client asked.
    pub(crate) asked: u32,
    pub(crate) fate: Fate,
}

/// All operations of a run, by number.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) ops: Vec<Op>,
}

impl History {
    /// Enters an operation of the `sequence`-th call id of its caller.
    pub(crate) fn begin(
        &mut self,
        kind: Kind,
        uid: Uid,
        (caller, sequence): (Peer, u64),
        invoked_at: u64,
    ) -> OpId {
        let fate = Fate::Open;
        let call = (kind != Kind::Plain).then_some(CallId { caller, sequence });
        self.ops.push(Op {
            kind,
            uid,
            caller,
            call,
            invoked_at,
            asked: 0,
            fate,
        });
        self.ops.len() - 1
    }

    pub(crate) fn is_open(&self, op: OpId) -> bool {
        self.ops[op].fate == Fate::Open
    }
}
