//! One level of a family: its beginning and its end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use partha_core::action::message::Verdict;
use partha_core::action::path::{Coordinator, Participant, Path, Site};
use partha_core::action::scope::{Doom, Family, Over, Plan};
use partha_core::id::Uid;
use partha_core::{Abort, End};

use super::error::{self, AbortReason, ActionError};
use super::id::ActionId;
use super::line::{Beginning, Line, Roots, Standing, new_action};
use super::retry::pause;
use super::{ACTION_DEADLINE_MAX, Outcome};
use crate::caller::CallScope;
use crate::client::Client;
use crate::error::{Completed, ErrorKind, Result, SystemError};
use crate::net::actions;
use crate::wire::context::TraceId;

/// How long a commit may take at least, once it is asked for: as long as a coordinator waits for
/// votes, and a little for the disk. It cannot be taken back then, so there is nothing to gain
/// from a shorter wait.
const COMMIT_TIME: Duration = Duration::from_secs(8);
/// How long one question to whoever leads a decider may take: another one may lead by then.
const ASK_TIME: Duration = Duration::from_secs(2);

/// A level that is to be ended. Dropped before that, it is aborted.
pub(crate) struct Level {
    line: Arc<Line>,
    path: Path,
    action: Uid,
    parent: Option<Uid>,
    /// When it began, by the family's own count.
    began: u64,
    ended: bool,
}

impl Level {
    /// Begins a top-level action.
    pub(super) fn top(
        client: &Client,
        within: &Standing,
        time: Duration,
        born_ms: Option<u64>,
    ) -> Self {
        let root = new_action(client.me());
        let (path, roots, outer, trace) = match within {
            Standing::Alone => {
                let roots = Arc::new(Roots::of_process(client, born_ms));
                (Path::top(root), roots, None, TraceId::default())
            }
            Standing::Outside(outside) => {
                let path = outside.path.top_level(root);
                (path, outside.roots.clone(), None, outside.trace)
            }
            Standing::In(line, action) => {
                let path = line.look(|state| state.family.path_of(*action).cloned());
                // One that has ended cannot be called in any more, but its handle's owner is
                // told that by the first call.
                let path = path.map_or_else(|| Path::top(root), |path| path.top_level(root));
                (path, line.roots().clone(), Some(line.clone()), line.trace())
            }
        };
        let line = Line::new(Beginning {
            client: client.clone(),
            trace,
            roots,
            until: Instant::now() + time.min(ACTION_DEADLINE_MAX),
            deadline: None,
            outer,
            shard: None,
            exit: None,
            family: Family::top(path.clone()),
        });
        tracing::debug!(action = %root, ?path, "action begun");
        Self {
            line,
            path,
            action: root,
            parent: None,
            began: 0,
            ended: false,
        }
    }

    /// Begins a nested action of this one.
    pub(super) fn nested<E>(&self) -> Result<Self, ActionError<E>> {
        Self::nested_in(&self.line, self.action)
    }

    /// Begins a nested action.
    pub(super) fn nested_in<E>(line: &Arc<Line>, parent: Uid) -> Result<Self, ActionError<E>> {
        let action = new_action(line.client().me());
        let begun = line.with(|state| {
            let sends = state.check_bonds(parent, None);
            let begun = match state.family.begin(parent, action) {
                Ok(path) => Ok((path, state.tick())),
                Err(over) => Err(state.refused(parent, over)),
            };
            (begun, sends)
        });
        let (path, began) = begun.map_err(|error| aborted(action, error, None))?;
        tracing::debug!(%action, ?path, "nested action begun");
        Ok(Self {
            line: line.clone(),
            path,
            action,
            parent: Some(parent),
            began,
            ended: false,
        })
    }

    pub(super) fn action(&self) -> Uid {
        self.action
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn client(&self) -> &Client {
        self.line.client()
    }

    /// When its program has to have ended.
    pub(super) fn limit(&self) -> Instant {
        self.line.limit()
    }

    pub(super) fn born_ms(&self) -> u64 {
        self.line.roots().born_ms
    }

    pub(super) fn standing(&self) -> Standing {
        Standing::In(self.line.clone(), self.action)
    }

    pub(super) fn doomed(&self) -> Option<SystemError> {
        let doomed = self.line.with(|state| {
            let sends = state.check_bonds(self.action, None);
            (state.doomed(self.action), sends)
        });
        doomed.map(|(_, _, error)| error)
    }

    pub(super) fn scope(&self) -> CallScope {
        CallScope {
            client: self.client().clone(),
            deadline: self.line.deadline(),
            call: None,
            named: false,
            again: false,
            trace: self.line.trace(),
            standing: self.standing(),
        }
    }

    /// Its program has ended well.
    pub(super) async fn commit<E>(mut self) -> Result<(), ActionError<E>> {
        if let Err(error) = self.line.roots().check() {
            let error = self.failed(None, AbortReason::Call(error));
            self.abort(&"its servant's call was killed");
            return Err(error);
        }
        match self.parent {
            Some(parent) => self.commit_nested(parent),
            None => self.commit_top().await,
        }
    }

    fn commit_nested<E>(mut self, parent: Uid) -> Result<(), ActionError<E>> {
        let (action, began) = (self.action, self.began);
        let ended = self.line.with(|state| {
            let mut sends = state.check_bonds(action, None);
            let ended = state.family.end_nested(action, true).map(|merges| {
                sends.extend(merges);
                state.bonds.hand_on(action, parent);
                state.forget(action);
                state.well(parent, began);
            });
            (ended, sends)
        });
        match ended {
            Ok(()) => {
                self.ended = true;
                tracing::debug!(%action, "nested action committed");
                Ok(())
            }
            Err(over) => Err(self.not_idle(over)),
        }
    }

    async fn commit_top<E>(mut self) -> Result<(), ActionError<E>> {
        let plan = self.line.with(|state| {
            let sends = state.check_bonds(self.action, None);
            (state.family.commit(), sends)
        });
        match plan {
            Ok(Plan::Nothing) => {}
            Ok(Plan::Ask {
                coordinator,
                decider,
                others,
                aborted,
            }) => self.ask((coordinator, decider), &others, &aborted).await?,
            Err(over) => return Err(self.not_idle(over)),
        }
        self.ended = true;
        self.line.with(|state| ((), state.family.settled()));
        tracing::debug!(action = %self.action, "action committed");
        Ok(())
    }

    /// Has the coordinator commit, and finds out how that ended.
    async fn ask<E>(
        &mut self,
        (coordinator, decider): (Participant, Option<Uid>),
        others: &[Participant],
        aborted_below: &[Uid],
    ) -> Result<(), ActionError<E>> {
        let action = self.action;
        let (client, limit) = (self.client(), self.line.until());
        let limit = limit.max(Instant::now() + COMMIT_TIME);
        tracing::debug!(
            %action, ?coordinator, ?decider, others = others.len(), "commit asked for"
        );
        if coordinator.part().is_some() {
            let asking = Asking {
                coordinator,
                others,
                aborted_below,
                limit,
            };
            return self.ask_leaders(asking).await;
        }
        let asked = (coordinator, decider, false);
        let answer = actions::commit(client, asked, action, others, aborted_below, limit).await;
        let lost = match answer {
            Ok(End::Committed) => return Ok(()),
            Ok(End::Aborted(abort)) => return Err(self.failed_to_commit(abort)),
            Ok(End::Unknown) => {
                let detail = "the coordinator ceased to lead while it decided";
                SystemError::new(ErrorKind::Fenced, detail).completed(Completed::Maybe)
            }
            Err(error) if error.completion() == Completed::No => {
                self.abort(&"nobody was asked to commit");
                return Err(not_committed(action, error));
            }
            Err(error) => error,
        };
        let site = coordinator.site;
        let decided_at = Coordinator { site, decider };
        let id = ActionId::decided_at(action, decided_at);
        match find_out(client, id, lost, limit).await {
            Ok(Outcome::Committed) => Ok(()),
            Ok(Outcome::Aborted | Outcome::InFlight) => Err(self.aborted_since()),
            Err(error) => {
                // Whoever decides does so without being told, and tells all others.
                self.ended = true;
                Err(error)
            }
        }
    }

    /// Has whoever leads the decider commit: when it is lost, the next one goes on, and is asked
    /// the same.
    async fn ask_leaders<E>(&mut self, asking: Asking<'_>) -> Result<(), ActionError<E>> {
        let Asking {
            coordinator,
            others,
            aborted_below,
            limit,
        } = asking;
        let (action, decider) = (self.action, coordinator.part());
        let site = coordinator.site;
        let id = ActionId::decided_at(action, Coordinator { site, decider });
        let (mut anew, mut tried, mut was_asked) = (false, 0, false);
        loop {
            let (client, asked) = (self.client(), (coordinator, decider, anew));
            // Somebody else may lead by then, and wait for the same question.
            let patience = limit.min(Instant::now() + COMMIT_TIME);
            let answer =
                actions::commit(client, asked, action, others, aborted_below, patience).await;
            let mut last = match answer {
                Ok(End::Committed) => return Ok(()),
                Ok(End::Aborted(abort)) => return Err(self.failed_to_commit(abort)),
                Ok(End::Unknown) => {
                    let detail = "whoever was to decide leads no more";
                    SystemError::new(ErrorKind::Fenced, detail).completed(Completed::Maybe)
                }
                Err(error) => error,
            };
            was_asked |= last.completion() != Completed::No;
            tracing::info!(%action, error = %last, "the answer to a commit is lost");
            match outcome(client, id, limit).await {
                Ok(Outcome::Committed) => return Ok(()),
                Ok(Outcome::Aborted) => return Err(self.aborted_since()),
                Ok(Outcome::InFlight) => {}
                Err(error) => last = error,
            }
            if Instant::now() >= limit && !was_asked {
                self.abort(&"nobody was asked to commit");
                return Err(not_committed(action, last));
            }
            if Instant::now() >= limit {
                // Whoever decides does so without being told, and tells all others.
                self.ended = true;
                let (action, error) = (id, last);
                return Err(ActionError::OutcomeUnknown { action, error });
            }
            anew = true;
            tried += 1;
            let pause = pause(tried).max(Duration::from_millis(5));
            tokio::time::sleep(pause.min(limit.saturating_duration_since(Instant::now()))).await;
        }
    }

    /// Its coordinator has answered that it cannot commit.
    fn failed_to_commit<E>(&mut self, abort: Abort) -> ActionError<E> {
        let error = error::not_committed(self.action, abort);
        self.abort(&"the commit failed");
        not_committed(self.action, error)
    }

    /// Its coordinator has aborted it, though its commit was asked for.
    fn aborted_since<E>(&mut self) -> ActionError<E> {
        self.abort(&"the coordinator has aborted it");
        let detail = "it was aborted after its commit was asked for";
        let error = SystemError::new(ErrorKind::ActionAborted, detail);
        not_committed(self.action, error)
    }

    /// Its program has given it up.
    pub(super) fn give_up<E>(mut self, cause: Option<E>) -> ActionError<E> {
        let error = self.failed(cause, AbortReason::Program);
        self.abort(&"its program gave up");
        error
    }

    /// Its time is up.
    pub(super) fn expire<E>(mut self) -> ActionError<E> {
        let error = self.failed(None, AbortReason::Expired);
        self.abort(&"its time is up");
        error
    }

    /// It is to commit, but cannot.
    fn not_idle<E>(mut self, over: Over) -> ActionError<E> {
        let reason = match over {
            Over::Busy { calls, children } => AbortReason::Unfinished { calls, children },
            Over::Ended | Over::Doomed { .. } | Over::TooDeep { .. } | Over::TooMany { .. } => {
                AbortReason::Call(error::refused(self.action, over))
            }
        };
        let error = self.failed(None, reason);
        self.abort(&"it cannot commit");
        error
    }

    /// Why it has failed: what doomed it, a call that failed, else the given reason.
    fn failed<E>(&self, cause: Option<E>, otherwise: AbortReason) -> ActionError<E> {
        let action = self.action;
        let by_itself = cause.is_some();
        let failure = self.line.look(|state| match state.doomed(action) {
            Some((doomed, why, error)) => Some((doomed, why, error)),
            None if by_itself => state
                .failure(action)
                .map(|error| (action, Doom::Program, error)),
            None => None,
        });
        match failure {
            Some((doomed, why, error)) => {
                let is_deadlock = why == Doom::Deadlock || error.kind() == ErrorKind::Deadlock;
                match is_deadlock {
                    true => ActionError::Deadlock {
                        action: ActionId::of(action),
                        victim: error.victim().unwrap_or(doomed),
                        cycle: error.detail().to_owned(),
                        cause,
                    },
                    false => aborted(action, error, cause),
                }
            }
            None => ActionError::Aborted {
                action: ActionId::of(action),
                reason: otherwise,
                cause,
            },
        }
    }

    /// Ends it without effect.
    fn abort(&mut self, why: &dyn std::fmt::Display) {
        self.ended = true;
        let action = self.action;
        tracing::debug!(%action, nested = self.parent.is_some(), %why, "action aborted");
        let parent = self.parent;
        self.line.with(|state| {
            let Some(parent) = parent else {
                return ((), state.family.abort());
            };
            if let Some(error) = state.failure(action) {
                state.trouble(parent, &error);
            }
            state.forget(action);
            let ended = state.family.end_nested(action, false);
            ((), ended.expect("an abort is never refused"))
        });
    }
}

/// What whoever leads an action's decider is asked.
struct Asking<'a> {
    coordinator: Participant,
    others: &'a [Participant],
    aborted_below: &'a [Uid],
    limit: Instant,
}

impl Drop for Level {
    fn drop(&mut self) {
        if !self.ended {
            self.abort(&"it was dropped");
        }
    }
}

fn aborted<E>(action: Uid, error: SystemError, cause: Option<E>) -> ActionError<E> {
    ActionError::Aborted {
        action: ActionId::of(action),
        reason: AbortReason::Call(error),
        cause,
    }
}

fn not_committed<E>(action: Uid, error: SystemError) -> ActionError<E> {
    ActionError::Aborted {
        action: ActionId::of(action),
        reason: AbortReason::Commit(error),
        cause: None,
    }
}

/// What became of an action, asked once: of one with a decider, whoever was last heard to lead it,
/// and then whoever the binder says.
pub(super) async fn outcome(client: &Client, action: ActionId, limit: Instant) -> Result<Outcome> {
    let Some(coordinator) = action.decided_by() else {
        let detail = format!(
            "who decides about action {action} is not known here; `partha outcome {action}` asks \
             all nodes"
        );
        return Err(SystemError::new(ErrorKind::BadOperation, detail));
    };
    let verdict = match coordinator.decider {
        None => actions::ask(client, coordinator, action.uid(), limit).await?,
        Some(decider) => {
            let heard = ask_leader(client, (action.uid(), decider), false, limit).await;
            match heard {
                Ok(Some(verdict)) => Some(verdict),
                Ok(None) | Err(_) => {
                    ask_leader(client, (action.uid(), decider), true, limit).await?
                }
            }
        }
    };
    Ok(match verdict {
        Some(Verdict::Committed) => Outcome::Committed,
        Some(Verdict::Aborted) => Outcome::Aborted,
        Some(Verdict::InFlight) | None => Outcome::InFlight,
    })
}

/// Asks whoever leads the decider of an action, which may die meanwhile.
async fn ask_leader(
    client: &Client,
    (action, decider): (Uid, Uid),
    anew: bool,
    limit: Instant,
) -> Result<Option<Verdict>> {
    let limit = limit.min(Instant::now() + ASK_TIME);
    let within = limit.saturating_duration_since(Instant::now());
    let node = actions::leader_of(client, decider, anew, within).await;
    let coordinator = Coordinator {
        site: Site { node, shard: 0 },
        decider: Some(decider),
    };
    actions::ask(client, coordinator, action, limit).await
}

/// What became of an action whose commit was asked for, asked until somebody knows or it is too
/// late.
async fn find_out<E>(
    client: &Client,
    action: ActionId,
    lost: SystemError,
    limit: Instant,
) -> Result<Outcome, ActionError<E>> {
    tracing::info!(%action, error = %lost, "the answer to a commit is lost");
    let mut last = lost;
    let mut tried = 0;
    loop {
        let now = Instant::now();
        if now >= limit {
            let error = last;
            return Err(ActionError::OutcomeUnknown { action, error });
        }
        match outcome(client, action, limit).await {
            Ok(Outcome::InFlight) => {}
            Ok(outcome) => return Ok(outcome),
            Err(error) => last = error,
        }
        tried += 1;
        let pause = pause(tried).max(Duration::from_millis(5));
        tokio::time::sleep(pause.min(limit.saturating_duration_since(Instant::now()))).await;
    }
}
