//! A client: one operation after the other, asked for again until it is answered.

use super::truth::Op;

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// Add the operation.
    Add(Op),
    /// Read the list, of which so much is owed; at this node, if the first attempt may be there.
    Read {
        number: Op,
        owed: usize,
        near: Option<usize>,
    },
}

impl Want {
    pub(crate) fn number(self) -> Op {
        match self {
            Self::Add(op) | Self::Read { number: op, .. } => op,
        }
    }

    /// The same, at whichever node leads.
    pub(crate) fn anywhere(self) -> Self {
        match self {
            Self::Add(_) => self,
            Self::Read { number, owed, .. } => Self::Read {
                number,
                owed,
                near: None,
            },
        }
    }
}

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) want: Option<Want>,
    pub(crate) left: u64,
    /// The node it asks.
    pub(crate) node: usize,
    /// Counts requests, so that an old wake-up is known.
    pub(crate) asked: u64,
}
