//! Copies of groups as a store keeps them: what is here of a group's log and state.
//!
//! A copy is made by [`crate::Item::JoinGroup`], stages entries by `GroupLog`, lets them be a part
//! of its object by `GroupInstall`, takes a whole state by `GroupSnapshot`, and ends by
//! `LeaveGroup`. [`crate::entry`] makes the bytes of an entry. Who is to do what and when is
//! decided by [`partha_core::group`].

use partha_core::group::{Stamp, View};

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
