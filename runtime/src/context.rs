//! What a servant knows about the call it serves.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use partha_core::id::{CallId, Peer, Uid};

use crate::action::{Branch, Serving, Standing, Track, Within};
use crate::caller::{CallOptions, CallScope, Caller};
use crate::chosen::Chosen;
use crate::client::Client;
use crate::elsewhere::Cancel;
use crate::error::Result;
use crate::rows::Rows;
use crate::timestamp::Timestamp;
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
    /// Set where the servant runs elsewhere than on its shard's thread.
    cancel: Option<Cancel>,
    /// Made when it is asked for.
    chosen: OnceLock<Box<Chosen>>,
    /// The servant has asked for a way to others.
    looked_out: AtomicBool,
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
            cancel: None,
            chosen: OnceLock::new(),
            looked_out: AtomicBool::new(false),
        }
    }

    /// The context of a call that is served in place of the one that `cx` is of: what is called
    /// with it is that one's.
    pub(crate) fn in_place_of(cx: &Self, object: Uid, asked: Asked) -> Self {
        let of = &cx.serving;
        let serving = Serving {
            ground: of.ground.clone(),
            object,
            ticket: of.ticket,
            deadline: of.deadline,
            trace: of.trace,
            within: of.within.clone(),
            cohort: false,
        };
        let mut context = Self::new(serving, asked, Rows::elsewhere(object));
        context.standing = OnceLock::from(Box::new(cx.standing().clone()));
        context
    }

    /// The same context with what somebody else has chosen.
    pub(crate) fn with_chosen(mut self, now: Timestamp, seed: u64) -> Self {
        self.chosen = OnceLock::from(Box::new(Chosen::by(now, seed)));
        self
    }

    /// Whether what the servant does may have to do with others than its object.
    pub(crate) fn has_looked_out(&self) -> bool {
        self.standing.get().is_some() || self.looked_out.load(Ordering::Relaxed)
    }

    /// The same context of a call that ends when this is said.
    pub(crate) fn cancelled_by(mut self, cancel: &Cancel) -> Self {
        self.standing().cancelled_by(cancel);
        self.cancel = Some(cancel.clone());
        self
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

    /// Whether the call was killed, for a servant that computes for long in a `#[blocking]`
    /// method: nobody waits for it any more, what it does is thrown away, and it cannot call
    /// others. A servant that waits for something is dropped there instead.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancel.as_ref().is_some_and(Cancel::is_cancelled)
    }

    /// The same as an error, for a `?` in a long loop.
    ///
    /// # Errors
    /// `Servant` once the call was killed.
    pub fn check(&self) -> Result<()> {
        self.cancel.as_ref().map_or(Ok(()), Cancel::check)
    }

    /// Ends when the call is killed; of use to those that the servant has handed work to.
    pub async fn cancelled(&self) {
        match &self.cancel {
            Some(cancel) => cancel.cancelled().await,
            // Such a servant is dropped where it waits.
            None => std::future::pending().await,
        }
    }

    /// The time, for what the call decides by it or writes down: the moment when this was first
    /// asked in the call, the same from then on. A servant that asks a clock instead may find
    /// another time where the call is executed once more.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.chosen().now()
    }

    /// The next of the call's random numbers, evenly spread over all `u64`. They are not for
    /// secrets. Servants draw here instead of from a generator of their own for the reason that
    /// [`now`](Self::now) gives.
    #[must_use]
    pub fn random(&self) -> u64 {
        self.chosen().random()
    }

    fn chosen(&self) -> &Chosen {
        self.chosen.get_or_init(Box::default)
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
        self.looked_out.store(true, Ordering::Relaxed);
        &self.serving.ground.client
    }

    /// The same for our own use.
    pub(crate) fn own_client(&self) -> &Client {
        &self.serving.ground.client
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
            client: self.serving.ground.client.clone(),
            deadline: Some(self.serving.deadline),
            call: None,
            named: false,
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
