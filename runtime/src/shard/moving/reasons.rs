//! Why an object does not move or is not let in, in the terms of whoever wants to know.

use partha_core::Refusal;
use partha_core::id::NodeId;
use partha_core::migrate::{NotShipped, Stays};
use partha_store::StoreError;

use crate::error::{ErrorKind, SystemError};
use crate::shard::job::fault;
use crate::system::connection_manager::StageError;

/// Why an object has not moved.
#[derive(Debug)]
pub(crate) enum NotMoved {
    /// It cannot, or cannot now (`passing`).
    Not { reason: String, passing: bool },
    /// Something failed.
    Failed(SystemError),
}

/// Why a page is not taken.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The object cannot come, or cannot now (`passing`).
    Not { reason: String, passing: bool },
    /// Something failed.
    Failed(SystemError),
}

/// Why what is being sent was not taken: for the engine, and for whoever wants the move.
pub(super) type Stopped = (NotShipped, NotMoved);

/// Why the engine has kept an object, in words.
pub(super) fn reason(why: Stays, node: NodeId) -> NotMoved {
    let not = |reason: String, passing| NotMoved::Not { reason, passing };
    let failed = |kind, detail: String| NotMoved::Failed(SystemError::new(kind, detail));
    match why {
        Stays::Busy => not(
            "it did not come to rest in the time that was given: calls of it ran, actions that \
             have it locked were being committed, or the move was not done"
                .to_owned(),
            true,
        ),
        Stays::InTheWay => not(
            "an action could not be committed while the object was on its way, and goes first"
                .to_owned(),
            true,
        ),
        Stays::Volatile => not(
            "it lives with its process, as call-backs do".to_owned(),
            false,
        ),
        Stays::Draining => failed(ErrorKind::Draining, "the node is shutting down".to_owned()),
        Stays::Departing => not("it is on its way already".to_owned(), true),
        Stays::Here => not("it is there already".to_owned(), false),
        // Of this node. An error would look like one of the target's, which takes others.
        Stays::Overloaded { what, limit } => not(
            format!("the node that has it is overloaded: {what}: more than {limit}"),
            true,
        ),
        Stays::NotShipped(NotShipped::Absent) => failed(
            ErrorKind::NoSuchObject,
            "the node does not have the object".to_owned(),
        ),
        Stays::NotShipped(NotShipped::Silent) => failed(
            ErrorKind::Unreachable,
            format!("node {node} did not answer in time"),
        ),
        Stays::NotShipped(NotShipped::Refused) => {
            not(format!("node {node} does not take it"), true)
        }
        Stays::NotShipped(NotShipped::Store(fault)) | Stays::Store(fault) => failed(
            ErrorKind::Store,
            format!("the store of the node that has it failed: {fault:?}"),
        ),
    }
}

impl NotMoved {
    /// The same for another one who waits.
    pub(super) fn copied(&self) -> Self {
        match self {
            Self::Not { reason, passing } => Self::Not {
                reason: reason.clone(),
                passing: *passing,
            },
            Self::Failed(error) => Self::Failed(error.clone()),
        }
    }
}

pub(super) fn unreadable(error: &StoreError) -> Stopped {
    let why = NotShipped::Store(fault(error));
    let error = SystemError::new(ErrorKind::Store, error.to_string());
    (why, NotMoved::Failed(error))
}

/// What the target's answer means.
pub(super) fn stopped(error: StageError, node: NodeId) -> Stopped {
    match error {
        StageError::NotMovable(error) => {
            let reason = format!("node {node} does not take it: {}", error.reason);
            let passing = error.passing;
            (NotShipped::Refused, NotMoved::Not { reason, passing })
        }
        StageError::System(error) => {
            let why = match error.kind() {
                ErrorKind::BindingBroken | ErrorKind::Deadline | ErrorKind::Unreachable => {
                    NotShipped::Silent
                }
                _ => NotShipped::Refused,
            };
            let error = error.context(format_args!("node {node} does not take it"));
            (why, NotMoved::Failed(error.before_sending()))
        }
    }
}
/// A page is not taken for this reason.
pub(super) fn not<T>(reason: impl Into<String>, passing: bool) -> Result<T, Refused> {
    let reason = reason.into();
    Err(Refused::Not { reason, passing })
}

/// What the store says against it.
pub(super) fn failed(error: &StoreError) -> Refused {
    match error {
        StoreError::Clearing { .. } | StoreError::Arriving { .. } => Refused::Not {
            reason: format!("{error}; try again in a moment"),
            passing: true,
        },
        _ => Refused::Failed(SystemError::new(ErrorKind::Store, error.to_string())),
    }
}

/// What the engine says against it.
pub(super) fn refused(refusal: &Refusal) -> Refused {
    let error = |kind, text: &str| Refused::Failed(SystemError::new(kind, text));
    match refusal {
        Refusal::Draining => error(ErrorKind::Draining, "the node is shutting down"),
        Refusal::Overloaded { what, limit } => {
            error(ErrorKind::Overloaded, &format!("{what}: more than {limit}"))
        }
        Refusal::Malformed { what } => error(ErrorKind::Malformed, what),
        Refusal::ActionAborted { action, .. } | Refusal::LockTimeout { owner: action, .. } => {
            Refused::Not {
                reason: format!("action {action}, which has it locked, ends there at this moment"),
                passing: true,
            }
        }
        other => Refused::Not {
            reason: format!("it cannot come now ({other:?})"),
            passing: true,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_source_is_no_failure_of_the_target_and_passes() {
        let full = Stays::Overloaded {
            what: "departures",
            limit: 7,
        };
        let NotMoved::Not { reason, passing } = reason(full, NodeId(2)) else {
            panic!("an error");
        };
        assert!(passing && reason.contains("departures"), "{reason}");
    }
}
