//! Objects that move from one node to another, with the work of running actions.
//!
//! A *move* of an object from its *source* to its *target* is a top-level action of its own, in
//! two-phase commit: the object's shard at the source coordinates, the one at the target is the
//! only participant. The target makes a copy durable as a prepared shadow; the source decides in
//! one batch, which also removes the object there and leaves a *forward*; the target installs.
//! So there is one owner at any time, whatever crashes, and nobody else is asked.
//!
//! | module | holds |
//! |---|---|
//! | `departures` | the source's table |
//! | `arrivals` | the target's |
//! | [`cargo`] | what goes along |
//! | [`cooldown`] | how long what has come stays |
//! | [`checkpoint`] | the same in the log of a replicated object, for its next leader |
//!
//! *How the end of an action finds the target.* The source's mirror of an action that had a lock
//! of the object notes who has it now; its vote says so, and the coordinator asks that one too.
//! An abort, and the commit of a nested action, is passed on.
//!
//! What is durable goes through the stores and is no business of this crate. What is not is the
//! [`Cargo`]: the locks that running actions have of the object, and what they need to go on at
//! the target. It lives in memory at both ends. If the target crashes it is lost, and the
//! actions that had it abort, as they do whenever a node crashes that has work of them.

pub(crate) mod arrivals;
pub mod cargo;
pub mod checkpoint;
pub mod cooldown;
pub(crate) mod departures;

pub use cargo::{Cargo, CargoAction, CargoImage, CargoLevel, CargoLock};
pub use checkpoint::{Checkpoint, CheckpointEnd, CheckpointPart, Gone};
pub use cooldown::Cooldown;

use crate::input::Fault;

/// Why an object stays where it is. It serves on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stays {
    /// Until the time allowed had passed, methods of it ran, actions that have a lock of it were
    /// prepared or ending, or the target was not done.
    Busy,
    /// An action waits for the move, and has waited for as long as it may.
    InTheWay,
    /// It is of a transient class.
    Volatile,
    /// The node is shutting down.
    Draining,
    /// It is on its way already.
    Departing,
    /// It would move to where it is.
    Here,
    /// A bound is reached.
    Overloaded {
        /// What there is too much of.
        what: &'static str,
        /// How much of it is allowed.
        limit: u64,
    },
    /// The target has not got it.
    NotShipped(NotShipped),
    /// The store could not write the decision.
    Store(Fault),
}

/// Why the target has not got an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotShipped {
    /// The source's store has no such object.
    Absent,
    /// The target did not answer.
    Silent,
    /// The target does not take it.
    Refused,
    /// The store could not be read.
    Store(Fault),
}
