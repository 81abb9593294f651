//! Who calls: the first argument of every stub method.
//!
//! There is no ambient "current action" or "current client": what a call belongs to is said in
//! the call. A [`Client`] makes it an action of its own, an [`crate::Action`] part of it, a
//! servant's [`crate::Context`] part of the action that the servant is called in, with its
//! deadline and trace, and [`CallOptions`] adds a deadline or asks again under the name of an
//! earlier call.

use std::time::{Duration, Instant};

use partha_core::id::CallId;

use crate::action::Standing;
use crate::client::Client;
use crate::config::CALL_DEADLINE_MAX;
use crate::wire::context::TraceId;

/// Something that calls can be made with.
pub trait Caller: Sync {
    /// What the calls belong to.
    fn scope(&self) -> CallScope;
}

/// What one call belongs to.
#[derive(Clone, Debug)]
pub struct CallScope {
    pub(crate) client: Client,
    pub(crate) deadline: Option<Instant>,
    pub(crate) call: Option<CallId>,
    /// The name is the application's, which may ask for the call again by it.
    pub(crate) named: bool,
    pub(crate) again: bool,
    pub(crate) trace: TraceId,
    pub(crate) standing: Standing,
}

impl Caller for Client {
    fn scope(&self) -> CallScope {
        let (deadline, call, again) = (None, None, false);
        CallScope {
            client: self.clone(),
            deadline,
            call,
            named: false,
            again,
            trace: TraceId::default(),
            standing: Standing::Alone,
        }
    }
}

impl<T: Caller> Caller for &T {
    fn scope(&self) -> CallScope {
        (**self).scope()
    }
}

/// A caller with wishes: made by [`Client::call`], [`crate::Context::call`] or
/// [`crate::Action::call`].
#[derive(Clone, Debug)]
pub struct CallOptions {
    scope: CallScope,
}

impl CallOptions {
    pub(crate) fn new(scope: CallScope) -> Self {
        Self { scope }
    }

    /// The call may take this long, at most [`CALL_DEADLINE_MAX`] and no longer than the call
    /// it is made for.
    #[must_use]
    pub fn deadline(mut self, time: Duration) -> Self {
        let wish = Instant::now() + time.min(CALL_DEADLINE_MAX);
        self.scope.deadline = Some(self.scope.deadline.map_or(wish, |given| given.min(wish)));
        self
    }

    /// Names the call, so that it can be asked for again: see [`Client::new_call_id`]. Not for a
    /// call in an action: there the outcome of the whole is asked for, [`Client::outcome`].
    #[must_use]
    pub fn id(mut self, call: CallId) -> Self {
        (self.scope.call, self.scope.named) = (Some(call), true);
        self
    }

    /// Asks again for a call whose outcome is not known: if it was executed, its saved reply
    /// comes back; if not, it is executed now. The method and arguments must be the same.
    #[must_use]
    pub fn again(mut self, call: CallId) -> Self {
        (self.scope.call, self.scope.named) = (Some(call), true);
        self.scope.again = true;
        self
    }

    /// The trace the call belongs to.
    #[must_use]
    pub fn trace(mut self, trace: TraceId) -> Self {
        self.scope.trace = trace;
        self
    }
}

impl Caller for CallOptions {
    fn scope(&self) -> CallScope {
        self.scope.clone()
    }
}
