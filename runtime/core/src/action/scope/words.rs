//! What goes into the scope machine and what comes out of it.

use crate::action::message::Message;
use crate::action::path::{Address, Participant, Site};
use crate::id::Uid;

/// A message to be sent, once; it may get lost.
pub type Send = (Address, Message);

/// One call under way, from [`super::Family::calling`] to [`super::Family::answered`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallKey(pub(super) u64);

/// Why a level can only abort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doom {
    /// It is not known whether a call in it was executed, and where.
    Unknown,
    /// It was chosen as the victim of a deadlock.
    Deadlock,
    /// A participant has aborted it or forgotten it.
    Aborted,
    /// A participant came back in another life, or with another mirror: earlier work is lost.
    Lost(Site),
    /// A servant that worked for it could not finish its part.
    Below,
    /// Too much takes part in it: one of the bounds of this module.
    TooMuch,
    /// Its time is up.
    Expired,
    /// Its program wants it so.
    Program,
}

/// Why something is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// The level has ended, or never was one of this family.
    Ended,
    /// The level, or `action` that it is in, can only abort.
    Doomed {
        /// Which level is doomed.
        action: Uid,
        /// Why.
        why: Doom,
    },
    /// It is nested too deep.
    TooDeep {
        /// How deep is allowed, enclosing actions included.
        limit: usize,
    },
    /// There is too much of something.
    TooMany {
        /// Of what.
        what: &'static str,
        /// How much is allowed.
        limit: usize,
    },
    /// It cannot commit while these are under way.
    Busy {
        /// Calls without an answer.
        calls: usize,
        /// Nested actions that have not ended.
        children: usize,
    },
}

/// How a call ended, as far as its action is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallEnd {
    /// There is an answer that says what happened, be it an error: executed or surely not.
    Known,
    /// Nobody knows: the binding broke, time ran out, nobody waits for the answer any more.
    Unknown,
    /// The answer says that an action has to be aborted.
    Doomed {
        /// The call's action, or one that it is in, perhaps across a boundary.
        victim: Uid,
        /// Why.
        why: Doom,
    },
}

/// What an answer says about its action: the shard that served it and all that the calls of its
/// servant joined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Shards that take part now.
    pub participants: Vec<Participant>,
    /// Nested actions that were aborted; one that the call is made in has to be.
    pub aborted: Vec<Uid>,
}

/// How to commit a top-level action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// It has touched nothing: it is committed.
    Nothing,
    /// To be asked for with `Input::Commit` at the coordinator.
    Ask {
        /// The first participant that can decide in the log of a replicated object; else the
        /// first that has changed something, else the first one.
        coordinator: Participant,
        /// The replicated object whose log is to have the decision; none if the coordinator's
        /// store is.
        decider: Option<Uid>,
        /// All others.
        others: Vec<Participant>,
        /// Nested actions that were aborted.
        aborted: Vec<Uid>,
    },
}
