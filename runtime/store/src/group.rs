//! Copies of groups as a store keeps them: what is here of a group's log and state.
//!
//! A copy is made by [`crate::Item::JoinGroup`], stages entries by `GroupLog`, lets them be a part
//! of its object by `GroupInstall`, takes a whole state by `GroupSnapshot`, and ends by
//! `LeaveGroup`. [`crate::entry`] makes the bytes of an entry. Who is to do what and when is
//! decided by [`partha_core::group`].
//!
//! A copy has besides its object what is about actions: the *part* that one has prepared, and
//! decisions of actions whose *decider* the object is, and a *checkpoint* of actions that run.
//! Entries bring them, too.

use bytes::Bytes;
use partha_core::action::path::{Coordinator, Site};
use partha_core::group::{Stamp, View};
use partha_core::id::Uid;

use crate::store::Record;

/// What is here of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRecord {
    /// The view that was written last.
    pub view: View,
    /// The last entry that is a part of the state; 0@0 without a state.
    pub installed: Stamp,
    /// Whether there is a state: it is the first member's object, or a snapshot was taken whole.
    pub has_state: bool,
    /// The entries behind `installed`, in order and without gaps.
    pub staged: Vec<Stamp>,
}

/// The plain state of a copy, as a snapshot of it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupState {
    /// The last entry in it.
    pub at: Stamp,
    /// The object's record; none if the object was deleted.
    pub record: Option<Record>,
}

/// What an action has prepared at a replicated object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The root action.
    pub action: Uid,
    /// Who decides.
    pub coordinator: Coordinator,
    /// What it changes: an entry ([`crate::entry`]).
    pub body: Bytes,
}

/// That an action is committed, in the log of its decider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDecision {
    /// Sites that have prepared and are to be told until it is settled; empty from then on.
    pub participants: Vec<Site>,
    /// Replicated objects with a part of the action, whose groups are to be told; as before.
    pub groups: Vec<Uid>,
    /// Whether nobody is to be told any more.
    pub settled: bool,
}

/// What running actions have of a replicated object, for whoever leads it next. The bytes are its
/// leader's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupCheckpoint {
    /// About actions that have ended there without a trace in the log.
    pub ended: Bytes,
    /// The root of each action, once, and what there is of it.
    pub actions: Vec<(Uid, Bytes)>,
}

/// Where telling what is about actions at a copy goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ActionCursor(pub(crate) Told);

/// What was told before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Told {
    #[default]
    Nothing,
    /// The part, and decisions that are not settled up to this action, if it is one.
    Unsettled(Option<Uid>),
    /// All these, and settled ones up to this action, if it is one.
    Settled(Option<Uid>),
    /// All there is: the checkpoint comes last, since what is before it would take actions out.
    All,
}

/// Some of what is about actions at a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionPage {
    /// It, for [`crate::Item::GroupSnapshot`]; none if there is nothing more.
    pub actions: Option<Bytes>,
    /// Where to go on.
    pub next: ActionCursor,
}
