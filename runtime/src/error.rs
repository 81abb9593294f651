//! What can go wrong with a call that the interface does not speak of.
//!
//! User exceptions are results; a [`SystemError`] is everything else. It says what was tried and
//! where, and, what a caller needs most, whether the operation was executed (CORBA's completion
//! status). [`SystemError::failure`] is what the two amount to; which calls may be made again
//! without thought, [`SystemError::is_safe_to_retry`] says.

use std::fmt;

use partha_core::id::{CallId, NodeId, Uid};
use partha_wire::{DecodeError, TooLarge};

use crate::failure::Failure;
use crate::moved::{Moved, MovedOn};

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
    /// The servant had begun: it is its word, and not that of whoever was to bring the call there.
    has_begun: bool,
    /// Executing the operation once more does no harm.
    is_repeatable: bool,
    /// Where the object is, if it has moved.
    moved: Option<Box<MovedOn>>,
    /// The node that was not met, since it takes no new connections.
    closed: Option<NodeId>,
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
    /// The object has moved to another node: see [`SystemError::moved`].
    Moved = 8, "moved";
    /// No connection to the node can be made.
    Unreachable = 16, "unreachable";
    /// The connection broke while the call was under way, or earlier in the same action.
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
                has_begun: false,
                is_repeatable: false,
                moved: None,
                closed: None,
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

    /// The error of a call of an object that has moved; `parameters` are those of a call that was
    /// made within this process.
    pub(crate) fn moved_to(
        what: impl fmt::Display,
        to: Moved,
        parameters: Option<partha_wire::Message>,
    ) -> Self {
        let mut error = Self::new(ErrorKind::Moved, format!("{what}: {to}"));
        error.inner.moved = Some(Box::new(MovedOn::new(to, parameters)));
        error
    }

    /// The same error, of this node, where it is that the node takes no new connections.
    #[must_use]
    pub(crate) fn closed_at(mut self, node: NodeId) -> Self {
        let is_closed = self.kind() == ErrorKind::Draining;
        self.inner.closed = is_closed.then_some(node);
        self
    }

    /// The node that takes no new connections, if the error is that.
    #[must_use]
    pub(crate) fn closed(&self) -> Option<NodeId> {
        self.inner.closed
    }

    /// The same error with where the object is.
    #[must_use]
    pub(crate) fn with_moved(mut self, to: Option<Moved>) -> Self {
        self.inner.moved = to.map(|to| Box::new(MovedOn::new(to, None)));
        self
    }

    /// The same error, if it is that the object has moved, with the parameters of the call.
    #[must_use]
    pub(crate) fn giving_back(mut self, parameters: partha_wire::Message) -> Self {
        if let Some(moved) = self.inner.moved.take() {
            let moved = MovedOn::new(moved.to.clone(), Some(parameters));
            self.inner.moved = Some(Box::new(moved));
        }
        self
    }

    /// The parameters of the call, if it was made within this process; once.
    pub(crate) fn take_parameters(&self) -> Option<partha_wire::Message> {
        self.inner.moved.as_ref()?.take_parameters()
    }

    /// The same error as a servant's answer: whatever it is about, it came from within the
    /// operation.
    #[must_use]
    pub(crate) fn handed_on(mut self, has_begun: bool) -> Self {
        self.inner.has_begun |= has_begun;
        self
    }

    /// The same error as why a call was not sent: the object was not found, say. What it said of
    /// calls made on the way there is not this call's.
    #[must_use]
    pub(crate) fn before_sending(mut self) -> Self {
        let inner = &mut self.inner;
        (inner.completed, inner.call, inner.has_begun) = (Completed::No, None, false);
        self
    }

    /// The same error as that of this call, and of no call made on the way.
    #[must_use]
    pub(crate) fn of_call(mut self, call: Option<CallId>, is_repeatable: bool) -> Self {
        (self.inner.call, self.inner.is_repeatable) = (call, is_repeatable);
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

    /// What it means to the caller, in one word.
    #[must_use]
    pub fn failure(&self) -> Failure {
        let Inner {
            kind,
            completed,
            has_begun,
            ..
        } = *self.inner;
        Failure::of(kind, completed, has_begun)
    }

    /// Whether the same call may be made once more without thought: nothing of it was executed,
    /// or its method only reads or is `#[idempotent]`, so that twice is as good as once. It says
    /// that it is safe, not that it helps; in an action that can only abort it does not.
    ///
    /// Any other call that has an id, see [`SystemError::call`], is asked for again under it with
    /// [`CallOptions::again`](crate::CallOptions::again): it is then executed once, or answered
    /// from what was saved.
    #[must_use]
    pub fn is_safe_to_retry(&self) -> bool {
        let is_untouched = self.inner.completed == Completed::No && !self.has_begun();
        is_untouched || self.inner.is_repeatable
    }

    /// Whether the servant had begun when it failed: it may have called others.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.inner.has_begun || self.inner.kind == ErrorKind::Servant
    }

    /// What was tried and where.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.inner.detail
    }

    /// Where the object is, of an error of the kind [`ErrorKind::Moved`].
    #[must_use]
    pub fn moved(&self) -> Option<&Moved> {
        self.inner.moved.as_ref().map(|moved| &moved.to)
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
            has_begun: _,
            is_repeatable: _,
            moved: _,
            closed: _,
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
        let detail = match error {
            TooLarge::Message { .. } => format!(
                "{error}, which is the limit here; send it in pieces, or raise the limit with \
                 `message_bytes_max` of the builders of both ends"
            ),
            _ => format!("{error}; send it in pieces"),
        };
        Self::new(ErrorKind::TooLarge, detail)
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
    fn only_what_does_no_harm_is_safe_to_retry() {
        let error = |kind, completed| SystemError::new(kind, "").completed(completed);
        for kind in ErrorKind::ALL {
            let refused = error(*kind, Completed::No);
            assert_eq!(refused.is_safe_to_retry(), *kind != ErrorKind::Servant);
            assert!(!refused.handed_on(true).is_safe_to_retry(), "{kind:?}");
            for completed in [Completed::Maybe, Completed::Yes] {
                let error = error(*kind, completed);
                assert!(!error.is_safe_to_retry(), "{kind:?}");
                assert!(error.of_call(None, true).is_safe_to_retry(), "{kind:?}");
            }
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
