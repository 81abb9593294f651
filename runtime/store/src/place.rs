//! Objects that move between nodes: where one is, and the pages it is sent in.

use bytes::Bytes;
use partha_core::id::{CallId, NodeId, Uid};

/// What a node knows of the place of an object that has moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It is here and came from another node.
    Here {
        /// How often it has moved.
        moves: u64,
        /// Where it came from.
        from: NodeId,
        /// Whether the binder knows.
        told: bool,
    },
    /// It was here and has gone on: the *forward*.
    Gone {
        /// Where it went.
        to: NodeId,
        /// How often it had moved when it got there.
        moves: u64,
    },
}

impl Place {
    /// How often the object has moved: of two places the one with more moves is true.
    #[must_use]
    pub fn moves(self) -> u64 {
        match self {
            Self::Here { moves, .. } | Self::Gone { moves, .. } => moves,
        }
    }

    /// Whether both say the same, whether the binder was told or not.
    pub(crate) fn agrees_with(self, other: Self) -> bool {
        self.as_told() == other.as_told()
    }

    /// The same with the binder told.
    pub(crate) fn as_told(self) -> Self {
        match self {
            Self::Here { moves, from, .. } => {
                let told = true;
                Self::Here { moves, from, told }
            }
            Self::Gone { .. } => self,
        }
    }

    /// Whether the binder is to be told of it.
    pub(crate) fn is_untold(self) -> bool {
        matches!(self, Self::Here { told: false, .. })
    }
}

/// A row of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The table of the object, from 1.
    pub part: u16,
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
}

/// Some rows of an object, ascending by part and key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowPage {
    /// The rows.
    pub rows: Vec<Row>,
    /// Whether there are more behind the last one.
    pub more: bool,
}

/// A saved reply as it is sent to another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptReply {
    /// The call.
    pub call: CallId,
    /// The object that was called.
    pub uid: Uid,
    /// The encoded reply.
    pub body: Bytes,
    /// How long it is still to be kept, in milliseconds.
    pub keep_ms: u64,
}

/// Where a search for saved replies goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplyCursor {
    /// When it was begun, by the store's clock.
    pub(crate) begun_ms: Option<u64>,
    /// Expiry time and call of the entry before; all with a lower expiry time come before, too.
    pub(crate) after: Option<(u64, Option<CallId>)>,
}

/// Some saved replies of a set of objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplyPage {
    /// The replies. One may come more than once.
    pub replies: Vec<KeptReply>,
    /// Where to go on.
    pub next: ReplyCursor,
    /// Whether all that were saved when the search was begun have been found. Going on from
    /// `next` then finds those saved since.
    pub done: bool,
}

/// Which saved replies there are, and whose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplyNames {
    /// The object that was called, and the call. One may come more than once.
    pub names: Vec<(Uid, CallId)>,
    /// Where to go on.
    pub next: ReplyCursor,
    /// As of [`ReplyPage`].
    pub done: bool,
}
