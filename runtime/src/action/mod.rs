//! Atomic actions: several calls, of objects at any nodes, that happen all or not at all.
//!
//! An action is a scope: [`Client::action`] runs a closure with an [`Action`], and every call
//! made with that as its [`Caller`] is part of it. When the closure returns `Ok` the action
//! commits; on `Err`, a panic, or when its future is dropped, everything it did is undone. The
//! same holds one level below for [`Action::nested`]: its effects become the outer action's when
//! it commits, and go when it aborts, whatever the outer action does then.
//!
//! Which objects an action locks, and at which nodes, nobody says beforehand: calls find that
//! out. Servants join: what a servant calls with its [`Context`] is part of the action that it
//! was called in. All locks are kept until the top-level action ends, so that actions are as if
//! they ran one after the other.
//!
//! # What it does not do
//!
//! - It cannot take back what is outside of objects: messages sent elsewhere, a call-back's side
//!   effects.
//! - It does not say when: two actions that run at the same time come out as if in one of the
//!   two orders.
//!
//! # Sources
//!
//! The interface is that of Arjuna's and Narayana's `AtomicAction` and `TopLevelAction` (begin,
//! end, abort, nested by default), with Rust scopes in the place of begin and end; nested
//! transactions and their locks are Moss'; servants that join their caller's action, and
//! top-level actions within actions, are Argus'.

mod bonds;
mod branch;
mod cycle;
mod error;
mod id;
mod level;
mod line;
mod manual;
mod retry;
mod track;

use std::fmt;
use std::time::{Duration, Instant};

use crate::caller::{CallOptions, CallScope, Caller};
use crate::client::Client;
use crate::config::CALL_DEADLINE;
use crate::context::Context;
use crate::error::Result;

pub(crate) use branch::{Branch, Ground, Serving, Within};
pub(crate) use cycle::{describe as describe_cycle, is_call};
pub use error::{AbortReason, ActionError};
pub use id::{ActionId, ParseActionIdError};
pub(crate) use line::Standing;
pub use manual::ManualAction;
pub(crate) use track::Track;

use level::Level;

/// How long a top-level action may take if nobody says: six times as long as a call, so that a
/// program may make several that have to wait.
pub const ACTION_DEADLINE: Duration = Duration::from_secs(60);

/// The longest an action may take: whatever it has locked is nobody else's so long, and each node
/// remembers it.
pub const ACTION_DEADLINE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How often [`Client::action_retry`] runs its closure, at most, if nobody says.
pub const ACTION_TRIES: u32 = 10;

/// An action that runs: the [`Caller`] of all calls that are part of it.
///
/// It is lent to the closure that is the action's program, so it cannot outlive it, and no
/// action can end before those nested in it:
///
/// ```compile_fail
/// # async fn example(client: partha::Client) {
/// let mut kept = None;
/// client.action(async |a| { kept = Some(a); Ok::<_, partha::SystemError>(()) }).await;
/// # }
/// ```
pub struct Action {
    level: Level,
}

/// Wishes for a top-level action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActionOptions {
    deadline: Duration,
    tries: u32,
}

/// What became of a top-level action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It is committed, for ever.
    Committed,
    /// It is aborted: nothing of it has happened, nor will.
    Aborted,
    /// It is not decided yet, or the one who decides cannot tell now.
    InFlight,
}

impl ActionOptions {
    /// The usual: [`ACTION_DEADLINE`], [`ACTION_TRIES`].
    #[must_use]
    pub fn new() -> Self {
        Self {
            deadline: ACTION_DEADLINE,
            tries: ACTION_TRIES,
        }
    }

    /// How long the action may take, all tries together, at most [`ACTION_DEADLINE_MAX`]; then
    /// it is aborted.
    #[must_use]
    pub fn deadline(mut self, time: Duration) -> Self {
        self.deadline = time.min(ACTION_DEADLINE_MAX);
        self
    }

    /// How often the closure is run, at most: at least once. Only looked at where something is
    /// tried again.
    #[must_use]
    pub fn tries(mut self, tries: u32) -> Self {
        self.tries = tries.max(1);
        self
    }
}

impl Default for ActionOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl Client {
    /// Runs the closure as a top-level action, once. Its value is returned after the action has
    /// committed: what it changed is on disk at every node then.
    ///
    /// # Errors
    /// [`ActionError`]: nothing of the action has happened, except where it says that the
    /// outcome is not known.
    ///
    /// # Examples
    /// ```no_run
    /// # use partha::{Client, SystemError, services::naming::NameContext};
    /// # async fn example(client: &Client, from: NameContext, to: NameContext)
    /// # -> Result<(), Box<dyn std::error::Error>> {
    /// let moved = client
    ///     .action(async |a| {
    ///         let entries = from.list(a, "", 10).await?;
    ///         to.list(a, "", 10).await?;
    ///         Ok::<_, SystemError>(entries.len())
    ///     })
    ///     .await?;
    /// # Ok(()) }
    /// ```
    pub async fn action<T, E>(
        &self,
        body: impl AsyncFnOnce(&Action) -> Result<T, E>,
    ) -> Result<T, ActionError<E>> {
        self.action_with(ActionOptions::new(), body).await
    }

    /// As [`Client::action`], with wishes.
    ///
    /// # Errors
    /// As [`Client::action`].
    pub async fn action_with<T, E>(
        &self,
        options: ActionOptions,
        body: impl AsyncFnOnce(&Action) -> Result<T, E>,
    ) -> Result<T, ActionError<E>> {
        let level = Level::top(self, &Standing::Alone, options.deadline, None);
        run(level, body).await
    }

    /// Runs the closure as a top-level action, again and again while it fails for a reason that
    /// may pass: a deadlock, a broken binding, a lock that was not to be had in time, a call that
    /// had no time left, a node that has too much to do or shuts down. Between the tries it waits,
    /// longer each time.
    ///
    /// The closure is cloned for each try, so it borrows what it uses, or has clones of it; only
    /// its calls made in the action are undone before the next try. It is never run again after
    /// a commit whose outcome is not known.
    ///
    /// # Errors
    /// As [`Client::action`], of the last try.
    pub async fn action_retry<T, E>(
        &self,
        body: impl AsyncFnOnce(&Action) -> Result<T, E> + Clone,
    ) -> Result<T, ActionError<E>> {
        self.action_retry_with(ActionOptions::new(), body).await
    }

    /// As [`Client::action_retry`], with wishes.
    ///
    /// # Errors
    /// As [`Client::action`], of the last try.
    pub async fn action_retry_with<T, E>(
        &self,
        options: ActionOptions,
        body: impl AsyncFnOnce(&Action) -> Result<T, E> + Clone,
    ) -> Result<T, ActionError<E>> {
        retry::tries(self, &Standing::Alone, options, body).await
    }

    /// Begins a top-level action without a closure, for tools that are told what to do step by
    /// step. Dropping it aborts it.
    #[must_use]
    pub fn begin(&self) -> ManualAction<'static> {
        self.begin_with(ActionOptions::new())
    }

    /// As [`Client::begin`], with wishes.
    #[must_use]
    pub fn begin_with(&self, options: ActionOptions) -> ManualAction<'static> {
        let level = Level::top(self, &Standing::Alone, options.deadline, None);
        ManualAction::new(Action { level })
    }

    /// What became of an action of which a commit's answer was lost: asks its coordinator.
    ///
    /// # Errors
    /// `BadOperation` for an id without a coordinator (`partha outcome` asks all nodes),
    /// `Unreachable` and others if the coordinator does not answer now.
    pub async fn outcome(&self, action: ActionId) -> Result<Outcome> {
        level::outcome(self, action, Instant::now() + CALL_DEADLINE).await
    }
}

impl Action {
    /// Its identity.
    #[must_use]
    pub fn id(&self) -> ActionId {
        ActionId::of(self.level.action())
    }

    /// The client that runs it.
    #[must_use]
    pub fn client(&self) -> &Client {
        self.level.client()
    }

    /// Time left; then it is aborted.
    #[must_use]
    pub fn time_left(&self) -> Duration {
        self.level.limit().saturating_duration_since(Instant::now())
    }

    /// Why the action can only abort, if that is certain already: every call in it is refused.
    #[must_use]
    pub fn doomed(&self) -> Option<crate::SystemError> {
        self.level.doomed()
    }

    /// A caller with wishes. It is part of the action, and of no use after its end.
    #[must_use]
    pub fn call(&self) -> CallOptions {
        CallOptions::new(self.scope())
    }

    /// Runs the closure as a nested action: what it does is this action's when it commits, and
    /// is undone, alone, when it aborts. Several may run at the same time (`tokio::join!`); they
    /// are kept apart as if they were strangers.
    ///
    /// # Errors
    /// [`ActionError`]: nothing of the nested action has happened. This action may go on, unless
    /// [`Action::doomed`] says that it is lost itself.
    pub async fn nested<T, E>(
        &self,
        body: impl AsyncFnOnce(&Self) -> Result<T, E>,
    ) -> Result<T, ActionError<E>> {
        match self.level.nested() {
            Ok(level) => run(level, body).await,
            Err(error) => Err(error),
        }
    }

    /// Runs the closure as a top-level action of its own: when it commits, that stays, whatever
    /// becomes of this one. It gets none of this action's locks: calling an object that this
    /// one has changed is refused at once as re-entrant.
    ///
    /// # Errors
    /// As [`Client::action`]. This action may go on.
    pub async fn top_level<T, E>(
        &self,
        body: impl AsyncFnOnce(&Self) -> Result<T, E>,
    ) -> Result<T, ActionError<E>> {
        let within = self.level.standing();
        let level = Level::top(self.level.client(), &within, self.time_left(), None);
        run(level, body).await
    }
}

impl Context {
    /// Runs the closure as an action: nested in the one that the call being served is part of,
    /// or, if there is none, as a top-level action.
    ///
    /// # Errors
    /// [`ActionError`]: nothing of it has happened, except where it says that the outcome is not
    /// known.
    pub async fn action<T, E>(
        &self,
        body: impl AsyncFnOnce(&Action) -> Result<T, E>,
    ) -> Result<T, ActionError<E>> {
        match self.standing() {
            Standing::In(line, parent) => match Level::nested_in(line, *parent) {
                Ok(level) => run(level, body).await,
                Err(error) => Err(error),
            },
            Standing::Alone | Standing::Outside(_) => self.top_level(body).await,
        }
    }

    /// Runs the closure as a top-level action, which commits on its own even if the call being
    /// served is part of an action.
    ///
    /// # Errors
    /// As [`Client::action`].
    pub async fn top_level<T, E>(
        &self,
        body: impl AsyncFnOnce(&Action) -> Result<T, E>,
    ) -> Result<T, ActionError<E>> {
        let time = self.time_left().min(ACTION_DEADLINE);
        let level = Level::top(self.client(), self.standing(), time, None);
        run(level, body).await
    }
}

impl Caller for Action {
    fn scope(&self) -> CallScope {
        self.level.scope()
    }
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Action({:?})", self.level.path())
    }
}

/// Runs a closure at its level, then ends the level.
async fn run<T, E>(
    level: Level,
    body: impl AsyncFnOnce(&Action) -> Result<T, E>,
) -> Result<T, ActionError<E>> {
    let limit = tokio::time::Instant::from_std(level.limit());
    let action = Action { level };
    // Dropped in any case before the level ends: the calls in it, too.
    let outcome = tokio::time::timeout_at(limit, body(&action)).await;
    match outcome {
        Ok(Ok(value)) => action.level.commit().await.map(|()| value),
        Ok(Err(cause)) => Err(action.level.give_up(Some(cause))),
        Err(_) => Err(action.level.expire()),
    }
}
