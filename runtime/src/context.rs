//! What a servant knows about the call it serves.

use std::fmt;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use partha_core::id::{CallId, Peer, Uid};

use crate::action::{Branch, Serving, Standing, Track, Within};
use crate::caller::{CallOptions, CallScope, Caller};
use crate::client::Client;
use crate::error::Result;
use crate::rows::Rows;
use crate::wire::context::{Actions, TraceId};

/// The context of one call: who calls what, until when, and the way to call others.
///
/// Calls made with it inherit its deadline and trace, and are part of the action that the call
/// being served is part of, if it is: see [`Context::action`].
pub struct Context {
    serving: Serving,
    /// Made of the above when the servant calls somebody.
    standing: OnceLock<Box<Standing>>,
    pub(crate) caller: Peer,
    pub(crate) call: Option<CallId>,
    /// The caller speaks plain Cap'n Proto RPC.
    foreign: bool,
    pub(crate) rows: Rows,
}

/// Who calls, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) caller: Peer,
    pub(crate) call: Option<CallId>,
    /// The caller speaks plain Cap'n Proto RPC.
    pub(crate) foreign: bool,
}

impl Context {
    /// The context of a call that is about to be served.
    pub(crate) fn new(serving: Serving, asked: Asked, rows: Rows) -> Self {
        let Asked {
            caller,
            call,
            foreign,
        } = asked;
        Self {
            serving,
            standing: OnceLock::new(),
            caller,
            call,
            foreign,
            rows,
        }
    }

    /// The servant's part of the action that the call is in, if it is in one: its report goes
    /// back with the answer, whatever becomes of the servant and of this context.
    pub(crate) fn branch(&self) -> Option<Branch> {
        let within = self.serving.within.as_ref();
        within.filter(|within| within.is_in_action())?;
        self.standing().branch()
    }

    /// What the servant's calls are part of.
    pub(crate) fn standing(&self) -> &Standing {
        self.standing
            .get_or_init(|| Box::new(Standing::of_servant(&self.serving)))
    }

    /// For a call that is made in place of the one being served: what it says about actions, and
    /// who has to learn of its answer.
    pub(crate) fn relay(&self) -> Result<(Option<Box<Actions>>, Option<Track>)> {
        let actions = self.serving.within.as_deref().map(Within::relayed);
        let track = match self.branch() {
            Some(branch) => Some(branch.track()?),
            None => None,
        };
        Ok((actions, track))
    }

    /// The object that is called.
    #[must_use]
    pub fn uid(&self) -> Uid {
        self.serving.object
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
        self.serving
            .deadline
            .saturating_duration_since(Instant::now())
    }

    /// The trace the call belongs to.
    #[must_use]
    pub fn trace(&self) -> TraceId {
        self.serving.trace
    }

    pub(crate) fn is_foreign(&self) -> bool {
        self.foreign
    }

    /// The client that objects of this process call others with.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.serving.client
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
            client: self.serving.client.clone(),
            deadline: Some(self.serving.deadline),
            call: None,
            again: false,
            trace: self.serving.trace,
            standing: self.standing().clone(),
        }
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (object, caller, call) = (self.uid(), self.caller, self.call);
        write!(f, "Context({object} called by {caller}, {call:?})")
    }
}
