//! What can go wrong with a call that the interface does not speak of.
//!
//! User exceptions are results; a [`SystemError`] is everything else. It says what was tried and
//! where, and, what a caller needs most, whether the operation was executed (CORBA's completion
//! status): only [`Completed::No`] may be tried again without thought.

use std::fmt;

use partha_core::id::{CallId, Uid};
use partha_wire::{DecodeError, TooLarge};

/// `Result` with a [`SystemError`].
pub type Result<T, E = SystemError> = std::result::Result<T, E>;

/// A call, a binding or a node failed.
#[derive(Clone, PartialEq, Eq)]
pub struct SystemError {
    inner: Box<Inner>,
}

#[derive(Clone, PartialEq, Eq)]
struct Inner {
    kind: ErrorKind,
    completed: Completed,
    detail: String,
    call: Option<CallId>,
    victim: Option<Uid>,
}

/// Whether the operation was executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Completed {
    /// Certainly not.
    No,
    /// Perhaps: ask again with the same call id to learn the outcome.
    Maybe,
    /// Yes, but its answer is lost or unreadable.
    Yes,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        /// Kinds of system errors, by who can act on them. The numbers are those of the wire.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorKind {
            $($(#[$doc])* $name = $code,)*
        }

        impl ErrorKind {
            /// All kinds.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            pub(crate) fn from_code(code: u16) -> Self {
                match code {
                    $($code => Self::$name,)*
                    _ => Self::Internal,
                }
            }

            fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

kinds! {
    /// The name is not known to the naming service.
    NameNotFound = 1, "name not found";
    /// The node asked does not have the object.
    NoSuchObject = 2, "no such object";
    /// The object is of another class than the reference says.
    WrongClass = 3, "wrong class";
    /// The object has no such method.
    BadOperation = 4, "bad operation";
    /// Arguments or an answer that cannot be decoded.
    Malformed = 5, "malformed message";
    /// The two ends do not understand each other's version.
    VersionMismatch = 6, "version mismatch";
    /// A message larger than allowed.
    TooLarge = 7, "message too large";
    /// No connection to the node can be made.
    Unreachable = 16, "unreachable";
    /// The connection broke while the call was under way.
    BindingBroken = 17, "binding broken";
    /// The deadline passed.
    Deadline = 18, "deadline passed";
    /// A bound of the node was reached.
    Overloaded = 19, "overloaded";
    /// The node is shutting down.
    Draining = 20, "shutting down";
    /// A newer life of the caller is known to the node.
    OldIncarnation = 21, "old incarnation";
    /// The store failed: disk full, damaged record.
    Store = 32, "store failed";
    /// A newer activation of the object exists.
    Fenced = 33, "fenced";
    /// The servant gave up or panicked.
    Servant = 34, "servant failed";
    /// A bug of ours.
    Internal = 35, "internal error";
    /// The call waited for an object's lock for as long as is allowed.
    LockTimeout = 48, "lock time-out";
    /// The call waited in a cycle; the action it names has to be aborted.
    Deadlock = 49, "deadlock";
    /// The call would wait for itself: its object waits for it already.
    Reentrant = 50, "re-entrant call";
    /// The action of the call is aborted.
    ActionAborted = 51, "action aborted";
    /// The answer to a commit was lost: the action is committed or aborted.
    OutcomeUnknown = 52, "outcome unknown";
    /// The object waits for the decision about a prepared action.
    InDoubt = 53, "in doubt";
    /// The call was stopped: nobody waited for its answer any more, or its caller was dead.
    Orphaned = 54, "orphaned call";
}

impl SystemError {
    /// An error of an operation that was not executed.
    pub fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        let (completed, call, victim) = (Completed::No, None, None);
        Self {
            inner: Box::new(Inner {
                kind,
                completed,
                detail: detail.into(),
                call,
                victim,
            }),
        }
    }

    /// What a servant says when it gives up: its changes are undone, the caller sees the text.
    pub fn servant(detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Servant, detail)
    }

    /// The same error with another completion status.
    #[must_use]
    pub fn completed(mut self, completed: Completed) -> Self {
        self.inner.completed = completed;
        self
    }

    /// The same error, naming the call.
    #[must_use]
    pub fn with_call(mut self, call: Option<CallId>) -> Self {
        self.inner.call = self.inner.call.or(call);
        self
    }

    /// The same error, naming the action that has to be aborted because of it.
    #[must_use]
    pub(crate) fn with_victim(mut self, victim: Option<Uid>) -> Self {
        self.inner.victim = victim;
        self
    }

    /// The same error with more said before its detail.
    #[must_use]
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        self.inner.detail = format!("{what}: {}", self.inner.detail);
        self
    }

    /// What kind of error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// Whether the operation was executed.
    #[must_use]
    pub fn completion(&self) -> Completed {
        self.inner.completed
    }

    /// What was tried and where.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.inner.detail
    }

    /// The action that has to be aborted: the call's own, or one that it is in.
    #[must_use]
    pub fn victim(&self) -> Option<Uid> {
        self.inner.victim
    }

    /// The call that failed, where it has a name: ask again with it to learn the outcome.
    #[must_use]
    pub fn call(&self) -> Option<CallId> {
        self.inner.call
    }
}

impl fmt::Display for SystemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            kind,
            completed,
            detail,
            call,
            victim: _,
        } = &*self.inner;
        write!(f, "{}: {detail}", kind.text())?;
        match completed {
            Completed::No => {}
            Completed::Maybe => f.write_str(" (may or may not have been executed)")?,
            Completed::Yes => f.write_str(" (was executed)")?,
        }
        if let Some(call) = call {
            write!(f, " [call {call}]")?;
        }
        Ok(())
    }
}

impl fmt::Debug for SystemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SystemError({self})")
    }
}

impl std::error::Error for SystemError {}

impl From<DecodeError> for SystemError {
    fn from(error: DecodeError) -> Self {
        Self::new(ErrorKind::Malformed, error.to_string())
    }
}

impl From<TooLarge> for SystemError {
    fn from(error: TooLarge) -> Self {
        Self::new(ErrorKind::TooLarge, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_come_back() {
        for kind in ErrorKind::ALL {
            assert_eq!(ErrorKind::from_code(*kind as u16), *kind);
        }
    }

    #[test]
    fn the_text_says_whether_it_was_executed() {
        let error = SystemError::new(ErrorKind::BindingBroken, "node 7 at 127.0.0.1:1")
            .completed(Completed::Maybe);
        let text = error.to_string();
        assert_eq!(
            text,
            "binding broken: node 7 at 127.0.0.1:1 (may or may not have been executed)"
        );
    }
}
