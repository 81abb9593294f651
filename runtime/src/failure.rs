//! What a failed call means to whoever made it, in one word.
//!
//! [`ErrorKind`] says what went wrong and [`Completed`] whether the operation was executed; a
//! [`Failure`] is what the two amount to. The table is that of [`Failure`] itself, and
//! `docs/failures.md` tells it to users, with what to do.
//!
//! An object that has moved is followed without the caller's doing; [`Failure::Moved`] is what is
//! left when that does not lead to it (decision 0034).
//!
//! The completion status is CORBA's; that a caller must be able to tell "surely not" from
//! "perhaps" is Arjuna's rule for when an action has to abort.

use crate::error::{Completed, ErrorKind};

/// What the failure of a call means: made of an error's kind and completion status.
///
/// | kind | not executed | perhaps | executed |
/// |---|---|---|---|
/// | `Deadline` | `Deadline` | `Deadline` | `Executed` |
/// | `BindingBroken` | `BindingBroken` | `BindingBroken` | `Executed` |
/// | `Fenced`, `OldIncarnation` | `Fenced` | `Fenced` | `Executed` |
/// | `ActionAborted`, `Deadlock` | `Aborted` | `Unknown` | `Executed` |
/// | `Moved` | `Moved` | `Unknown` | `Executed` |
/// | `Servant` | `Undone` | `Unknown` | `Executed` |
/// | all others | `NotSent` | `Unknown` | `Executed` |
///
/// An error that came after the servant had begun, of a call of its own mostly, is no news of the
/// way there: instead of `NotSent`, `Moved`, `Deadline` and `BindingBroken` it counts as `Undone`
/// or, if perhaps executed, `Unknown`.
///
/// Exceptions of the interface are not here: the generated error enums have a case for each, and
/// one, `System`, for errors that have a `Failure`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Failure {
    /// Nothing was executed: the call was not sent, or it was turned away before the servant
    /// began.
    NotSent,
    /// The servant began, and the call failed: its object is as before. What it did elsewhere,
    /// other than in its caller's action, stays.
    Undone,
    /// Perhaps executed. Asking again under the call's id tells, where it has one.
    Unknown,
    /// Executed, but the answer is lost or unreadable.
    Executed,
    /// The deadline passed; [`SystemError::completion`](crate::SystemError::completion) says
    /// whether the call may have been executed by then.
    Deadline,
    /// The connection that the binding was made on broke, or had broken before in the same
    /// action; the completion status says whether the call may have been executed.
    BindingBroken,
    /// A newer life has taken over: of the object, whose new state was refused, or of the caller.
    Fenced,
    /// The action of the call is aborted or can only abort: nothing of it will have happened.
    Aborted,
    /// The object has moved to another node, and nothing was executed. Calls follow by
    /// themselves, so this is the end of a way that did not lead to it.
    Moved,
}

impl Failure {
    /// What an error of this kind and status means; `has_begun` if the servant had.
    pub(crate) fn of(kind: ErrorKind, completed: Completed, has_begun: bool) -> Self {
        if completed == Completed::Yes {
            return Self::Executed;
        }
        let plain = match completed {
            Completed::No if has_begun => Self::Undone,
            Completed::No => Self::NotSent,
            Completed::Maybe | Completed::Yes => Self::Unknown,
        };
        match kind {
            ErrorKind::Deadline if !has_begun => Self::Deadline,
            ErrorKind::BindingBroken if !has_begun => Self::BindingBroken,
            ErrorKind::Fenced | ErrorKind::OldIncarnation => Self::Fenced,
            ErrorKind::ActionAborted | ErrorKind::Deadlock if completed == Completed::No => {
                Self::Aborted
            }
            ErrorKind::Servant if completed == Completed::No => Self::Undone,
            ErrorKind::Moved if completed == Completed::No && !has_begun => Self::Moved,
            ErrorKind::Deadline
            | ErrorKind::BindingBroken
            | ErrorKind::ActionAborted
            | ErrorKind::Deadlock
            | ErrorKind::Servant
            | ErrorKind::Moved
            | ErrorKind::NameNotFound
            | ErrorKind::NoSuchObject
            | ErrorKind::WrongClass
            | ErrorKind::BadOperation
            | ErrorKind::Malformed
            | ErrorKind::VersionMismatch
            | ErrorKind::TooLarge
            | ErrorKind::Unreachable
            | ErrorKind::Overloaded
            | ErrorKind::Draining
            | ErrorKind::Store
            | ErrorKind::Internal
            | ErrorKind::LockTimeout
            | ErrorKind::Reentrant
            | ErrorKind::OutcomeUnknown
            | ErrorKind::InDoubt
            | ErrorKind::Orphaned => plain,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: [Completed; 3] = [Completed::No, Completed::Maybe, Completed::Yes];

    fn row(kind: ErrorKind, has_begun: bool) -> [Failure; 3] {
        STATUS.map(|completed| Failure::of(kind, completed, has_begun))
    }

    #[test]
    fn the_table_is_the_one_in_the_documentation() {
        use Failure::{Aborted, BindingBroken, Executed, Fenced, Moved, NotSent, Undone, Unknown};
        for kind in ErrorKind::ALL {
            let expected = match kind {
                ErrorKind::Deadline => [Failure::Deadline, Failure::Deadline, Executed],
                ErrorKind::BindingBroken => [BindingBroken, BindingBroken, Executed],
                ErrorKind::Fenced | ErrorKind::OldIncarnation => [Fenced, Fenced, Executed],
                ErrorKind::ActionAborted | ErrorKind::Deadlock => [Aborted, Unknown, Executed],
                ErrorKind::Servant => [Undone, Unknown, Executed],
                ErrorKind::Moved => [Moved, Unknown, Executed],
                _ => [NotSent, Unknown, Executed],
            };
            assert_eq!(row(*kind, false), expected, "{kind:?}");
        }
    }

    #[test]
    fn what_a_servant_hands_on_is_no_news_of_the_way_there() {
        for kind in ErrorKind::ALL {
            let expected = match kind {
                ErrorKind::ActionAborted | ErrorKind::Deadlock => {
                    [Failure::Aborted, Failure::Unknown, Failure::Executed]
                }
                ErrorKind::Fenced | ErrorKind::OldIncarnation => {
                    [Failure::Fenced, Failure::Fenced, Failure::Executed]
                }
                _ => [Failure::Undone, Failure::Unknown, Failure::Executed],
            };
            assert_eq!(row(*kind, true), expected, "{kind:?}");
        }
    }
}
