//! What a servant knows about the call it serves.

use std::time::{Duration, Instant};

use partha_core::id::{CallId, Peer, Uid};

use crate::caller::{CallOptions, CallScope, Caller};
use crate::client::Client;
use crate::rows::Rows;
use crate::wire::context::TraceId;

/// The context of one call: who calls what, until when, and the way to call others.
///
/// Calls made with it inherit its deadline and trace.
#[derive(Debug)]
pub struct Context {
    pub(crate) client: Client,
    pub(crate) object: Uid,
    pub(crate) caller: Peer,
    pub(crate) call: Option<CallId>,
    pub(crate) deadline: Instant,
    pub(crate) trace: TraceId,
    /// The caller speaks plain Cap'n Proto RPC.
    pub(crate) foreign: bool,
    pub(crate) rows: Rows,
}

impl Context {
    /// The object that is called.
    #[must_use]
    pub fn uid(&self) -> Uid {
        self.object
    }

    /// The process that calls.
    #[must_use]
    pub fn caller(&self) -> Peer {
        self.caller
    }

    /// The call's name, if the caller gave it one.
    #[must_use]
    pub fn call_id(&self) -> Option<CallId> {
        self.call
    }

    /// Time left before the caller stops waiting.
    #[must_use]
    pub fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// The trace the call belongs to.
    #[must_use]
    pub fn trace(&self) -> TraceId {
        self.trace
    }

    pub(crate) fn is_foreign(&self) -> bool {
        self.foreign
    }

    /// The client that objects of this process call others with.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// A caller with wishes; its deadline is this call's at the latest.
    #[must_use]
    pub fn call(&self) -> CallOptions {
        CallOptions::new(self.scope())
    }

    /// The rows of the object: keyed values stored one by one, beside its state record.
    #[must_use]
    pub fn rows(&self) -> &Rows {
        &self.rows
    }
}

impl Caller for Context {
    fn scope(&self) -> CallScope {
        CallScope {
            client: self.client.clone(),
            deadline: Some(self.deadline),
            call: None,
            again: false,
            trace: self.trace,
        }
    }
}
