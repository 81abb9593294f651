//! How actions fail.

use std::any::Any;
use std::convert::Infallible;
use std::error::Error;
use std::fmt;

use partha_core::action::path::Site;
use partha_core::action::scope::{Doom, Over};
use partha_core::id::Uid;
use partha_core::{Abort, Fault};

use super::id::ActionId;
use crate::error::{Completed, ErrorKind, SystemError};

/// An action has not committed, or nobody knows yet; `E` is what its closure fails with.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ActionError<E = Infallible> {
    /// It is aborted: nothing of it has happened.
    Aborted {
        /// Which.
        action: ActionId,
        /// Why.
        reason: AbortReason,
        /// What its closure returned, if it ended by itself with an error.
        cause: Option<E>,
    },
    /// It, or an action that it is in, was chosen to be aborted so that others in the same
    /// deadlock can go on: nothing of it has happened. Trying again is what helps.
    Deadlock {
        /// Which has ended.
        action: ActionId,
        /// Which had to be aborted: the same, or one that it is in.
        victim: Uid,
        /// Who waited for whom: actions, objects and nodes, for people.
        cycle: String,
        /// What its closure returned, if it ended by itself with an error.
        cause: Option<E>,
    },
    /// Its commit was asked for and the answer was lost; until the action's deadline nobody who
    /// knows was reached. [`crate::Client::outcome`] tells later.
    OutcomeUnknown {
        /// Which, and who decides.
        action: ActionId,
        /// What was tried last.
        error: SystemError,
    },
}

/// Why an action was aborted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AbortReason {
    /// Its program gave up.
    Program,
    /// A call in it failed.
    Call(SystemError),
    /// Those that took part could not commit it.
    Commit(SystemError),
    /// Its time was up.
    Expired,
    /// Its program ended while these were still under way.
    Unfinished {
        /// Calls.
        calls: usize,
        /// Nested actions.
        children: usize,
    },
}

impl<E> ActionError<E> {
    /// The action that has ended.
    #[must_use]
    pub fn action(&self) -> ActionId {
        match self {
            Self::Aborted { action, .. }
            | Self::Deadlock { action, .. }
            | Self::OutcomeUnknown { action, .. } => *action,
        }
    }

    /// What the closure returned.
    #[must_use]
    pub fn cause(&self) -> Option<&E> {
        match self {
            Self::Aborted { cause, .. } | Self::Deadlock { cause, .. } => cause.as_ref(),
            Self::OutcomeUnknown { .. } => None,
        }
    }

    /// What the closure returned.
    #[must_use]
    pub fn into_cause(self) -> Option<E> {
        match self {
            Self::Aborted { cause, .. } | Self::Deadlock { cause, .. } => cause,
            Self::OutcomeUnknown { .. } => None,
        }
    }

    /// The failure of a call or of the commit behind it, where there is one.
    #[must_use]
    pub fn system_error(&self) -> Option<&SystemError> {
        match self {
            Self::Aborted { reason, .. } => match reason {
                AbortReason::Call(error) | AbortReason::Commit(error) => Some(error),
                AbortReason::Program | AbortReason::Expired | AbortReason::Unfinished { .. } => {
                    None
                }
            },
            Self::OutcomeUnknown { error, .. } => Some(error),
            Self::Deadlock { .. } => None,
        }
    }

    /// Whether nothing has happened, for a reason that may pass: trying again may help.
    /// [`crate::Client::action_retry`] does so.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Deadlock { .. } => true,
            // What a call has done, if it was executed, is undone with the action.
            Self::Aborted { .. } => self.system_error().is_some_and(is_passing),
            Self::OutcomeUnknown { .. } => false,
        }
    }

    /// The closure's own error, if that is why the action was aborted, else what happened in the
    /// same type: for methods of servants, whose errors can say either.
    pub fn flatten(self) -> E
    where
        E: From<SystemError> + fmt::Display + 'static,
    {
        match self {
            Self::Aborted {
                reason: AbortReason::Program,
                cause: Some(cause),
                ..
            } => cause,
            other => other.bare().into(),
        }
    }

    /// The same without what the closure returned.
    fn bare(self) -> SystemError
    where
        E: fmt::Display + 'static,
    {
        let text = self.to_string();
        let said = self
            .cause()
            .and_then(|cause| <dyn Any>::downcast_ref(cause));
        let said = said.map(SystemError::kind);
        let (kind, completed) = match &self {
            Self::Deadlock { .. } => (ErrorKind::Deadlock, Completed::No),
            Self::Aborted { reason, .. } => match reason {
                AbortReason::Call(error) | AbortReason::Commit(error) => {
                    (error.kind(), Completed::No)
                }
                AbortReason::Expired => (ErrorKind::Deadline, Completed::No),
                AbortReason::Program => (said.unwrap_or(ErrorKind::Servant), Completed::No),
                AbortReason::Unfinished { .. } => (ErrorKind::Servant, Completed::No),
            },
            Self::OutcomeUnknown { .. } => (ErrorKind::OutcomeUnknown, Completed::Maybe),
        };
        // The receiver is concerned only if it runs that action, or works for it.
        let victim = match &self {
            Self::Deadlock { victim, .. } => *victim,
            Self::Aborted { action, .. } | Self::OutcomeUnknown { action, .. } => action.uid(),
        };
        let error = SystemError::new(kind, text).completed(completed);
        error.with_victim(Some(victim))
    }
}

impl<E: fmt::Display> fmt::Display for ActionError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Aborted { action, reason, .. } => {
                write!(f, "action {action} is aborted: {reason}")?;
            }
            Self::Deadlock { action, cycle, .. } => {
                write!(f, "action {action} is aborted: deadlock: {cycle}")?;
            }
            Self::OutcomeUnknown { action, error } => write!(
                f,
                "action {action} is committed or aborted, but it is not known which; \
                 `partha outcome {action}` asks again: {error}"
            )?,
        }
        // A program mostly hands on what its call said.
        let known = match self {
            Self::Deadlock { cycle, .. } => cycle.as_str(),
            Self::Aborted { .. } | Self::OutcomeUnknown { .. } => {
                self.system_error().map_or("", SystemError::detail)
            }
        };
        match self.cause().map(E::to_string) {
            Some(said) if known.is_empty() || !said.contains(known) => {
                write!(f, "; its program said: {said}")
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl<E: fmt::Display + fmt::Debug> Error for ActionError<E> {}

/// A servant that runs an action says with it why its call fails.
impl<E: fmt::Display + 'static> From<ActionError<E>> for SystemError {
    fn from(error: ActionError<E>) -> Self {
        error.bare()
    }
}

impl fmt::Display for AbortReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Program => f.write_str("its program gave up"),
            Self::Call(error) => write!(f, "a call failed: {error}"),
            Self::Commit(error) => write!(f, "it could not commit: {error}"),
            Self::Expired => f.write_str("its time was up"),
            Self::Unfinished { calls, children } => write!(
                f,
                "its program ended while {calls} calls and {children} nested actions were under \
                 way; await them in the closure"
            ),
        }
    }
}

/// Whether trying again may help, nothing having happened.
pub(super) fn is_passing(error: &SystemError) -> bool {
    matches!(
        error.kind(),
        // It has waited for a lock, for a node that was gone, or for copies that were: a call may
        // have less time than its action. (What did not have time enough in itself will not have
        // it again: that is bounded by the tries and the time of the action.)
        ErrorKind::Deadline
            | ErrorKind::LockTimeout
            | ErrorKind::Deadlock
            | ErrorKind::InDoubt
            | ErrorKind::ActionAborted
            | ErrorKind::Unreachable
            | ErrorKind::BindingBroken
            | ErrorKind::Overloaded
            | ErrorKind::Draining
            // Another copy leads, or will; or it was followed for long enough.
            | ErrorKind::Fenced
            | ErrorKind::Moved
    )
}

/// What a call is told that is refused before it is made.
pub(super) fn refused(action: Uid, over: Over) -> SystemError {
    let error = |kind, text: String| SystemError::new(kind, text);
    match over {
        Over::Ended => {
            let text = format!("action {action} has ended: nothing can be called in it any more");
            error(ErrorKind::BadOperation, text)
        }
        Over::Doomed { action, why } => doomed(action, why),
        Over::TooDeep { limit } => {
            let text = format!("actions are nested deeper than {limit}");
            error(ErrorKind::BadOperation, text)
        }
        Over::TooMany { what, limit } => {
            error(ErrorKind::Overloaded, format!("{what}: more than {limit}"))
        }
        Over::Busy { calls, children } => {
            let text = format!("{calls} calls and {children} nested actions are under way");
            error(ErrorKind::BadOperation, text)
        }
    }
}

/// Why an action can only abort.
pub(super) fn doomed(action: Uid, why: Doom) -> SystemError {
    let (kind, why) = match why {
        Doom::Unknown => {
            let why = "a call was given up before its answer came";
            (ErrorKind::ActionAborted, why.to_owned())
        }
        Doom::Deadlock => {
            let why = "it is the victim of a deadlock";
            (ErrorKind::Deadlock, why.to_owned())
        }
        Doom::Aborted => {
            let why = "a node that takes part has given it up";
            (ErrorKind::ActionAborted, why.to_owned())
        }
        Doom::Lost(Site { node, .. }) => {
            let why = format!("node {node} has lost what was done there");
            (ErrorKind::BindingBroken, why)
        }
        Doom::Below => {
            let why = "a servant called in it could not finish its part";
            (ErrorKind::ActionAborted, why.to_owned())
        }
        Doom::TooMuch => {
            let why = "too many shards take part in it, or too much was aborted in it";
            (ErrorKind::Overloaded, why.to_owned())
        }
        Doom::Expired => (ErrorKind::Deadline, "its time is up".to_owned()),
        Doom::Program => {
            let why = "its program has given it up";
            (ErrorKind::ActionAborted, why.to_owned())
        }
    };
    let detail = format!("action {action} can only abort: {why}");
    SystemError::new(kind, detail).with_victim(Some(action))
}

/// What those that took part said when they were to commit.
pub(super) fn not_committed(action: Uid, abort: Abort) -> SystemError {
    let (kind, text) = match abort {
        Abort::Lost(site) => (
            ErrorKind::ActionAborted,
            format!(
                "node {} does not know it any more: it restarted, the connection broke, or the \
                 time was up",
                site.node
            ),
        ),
        Abort::Refused(site) => (
            ErrorKind::ActionAborted,
            format!("node {} could not prepare", site.node),
        ),
        Abort::Silent(site) => (
            ErrorKind::Unreachable,
            format!("node {} did not answer in time", site.node),
        ),
        Abort::Busy(site) => (
            ErrorKind::ActionAborted,
            format!("calls of it are still running at node {}", site.node),
        ),
        Abort::Store(fault) => {
            let what = match fault {
                Fault::Fenced => "a newer activation of an object has written",
                Fault::Full => "there is no room",
                Fault::Exists => "the identity of a new object is taken",
                Fault::Store => "it failed",
            };
            let kind = match fault {
                // It is found where it is now.
                Fault::Fenced => ErrorKind::Fenced,
                Fault::Full | Fault::Exists | Fault::Store => ErrorKind::Store,
            };
            (kind, format!("the coordinator's store: {what}"))
        }
        Abort::Ended => (
            ErrorKind::ActionAborted,
            "it has been aborted before".to_owned(),
        ),
    };
    SystemError::new(kind, text).with_victim(Some(action))
}

#[cfg(test)]
mod tests {
    use partha_core::id::NodeId;

    use super::*;

    fn id() -> ActionId {
        let node = NodeId(1);
        ActionId::of(Uid { node, local: 7 })
    }

    fn aborted<E>(reason: AbortReason, cause: Option<E>) -> ActionError<E> {
        let action = id();
        ActionError::Aborted {
            action,
            reason,
            cause,
        }
    }

    #[test]
    fn what_the_program_said_is_told_once() {
        let call = SystemError::new(ErrorKind::LockTimeout, "add of X at node a");
        let handed_on = aborted(AbortReason::Call(call.clone()), Some(call.clone()));
        assert_eq!(
            handed_on.to_string(),
            format!(
                "action {} is aborted: a call failed: lock time-out: add of X at node a",
                id()
            )
        );
        let other = aborted(AbortReason::Call(call), Some("no luck"));
        assert!(
            other
                .to_string()
                .ends_with("node a; its program said: no luck")
        );
        let own = aborted(AbortReason::Program, Some("no luck"));
        assert!(
            own.to_string()
                .ends_with("gave up; its program said: no luck")
        );
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let call = |kind| aborted::<&str>(AbortReason::Call(SystemError::new(kind, "")), None);
        for kind in [
            ErrorKind::Deadlock,
            ErrorKind::BindingBroken,
            ErrorKind::LockTimeout,
            ErrorKind::Fenced,
            ErrorKind::Moved,
            ErrorKind::Deadline,
        ] {
            assert!(call(kind).is_passing(), "{kind:?}");
        }
        let late = SystemError::new(ErrorKind::Deadline, "").completed(Completed::Maybe);
        assert!(aborted::<&str>(AbortReason::Call(late), None).is_passing());
        for kind in [
            ErrorKind::Store,
            ErrorKind::Reentrant,
            ErrorKind::OutcomeUnknown,
        ] {
            assert!(!call(kind).is_passing(), "{kind:?}");
        }
        assert!(!aborted(AbortReason::Program, Some("no luck")).is_passing());
        assert!(!aborted::<&str>(AbortReason::Expired, None).is_passing());
    }

    #[test]
    fn a_servant_says_the_kind_of_its_own_failure() {
        let own = SystemError::servant("no wish to go on");
        let error = aborted(AbortReason::Program, Some(own.clone()));
        assert_eq!(error.clone().flatten(), own);
        let error = SystemError::from(error);
        assert_eq!(error.kind(), ErrorKind::Servant);
        assert_eq!(error.victim(), Some(id().uid()));
        let (action, error) = (id(), own);
        let unknown = ActionError::<SystemError>::OutcomeUnknown { action, error };
        let unknown = SystemError::from(unknown);
        assert_eq!(unknown.kind(), ErrorKind::OutcomeUnknown);
        assert_eq!(unknown.completion(), Completed::Maybe);
    }
}
