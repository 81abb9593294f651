//! A call of a persistent object on its way: found, asked, followed where it has moved, until there
//! is an answer that stands or time is up.

use std::mem::replace;
use std::sync::Arc;

use partha_core::action::path::{Address, Site};
use partha_core::action::scope::Report;
use partha_core::binding::{Attempt, Step};
use partha_core::id::{NodeId, Peer};
use partha_wire::{Message, Writer};

use super::{Callee, Request, ask, reaching};
use crate::action::Track;
use crate::binding::{Binding, Bound, Route, shard_at};
use crate::client::Client;
use crate::error::{Completed, ErrorKind, Result, SystemError};
use crate::net::connection::Connection;
use crate::net::pending::Answer;
use crate::shard::ShardHandle;
use crate::wire::frame;

/// What is remembered from one attempt to the next.
struct Pursuit {
    attempt: Attempt,
    repeatable: bool,
    /// An attempt before this one may have been executed, whatever this one meets.
    in_doubt: bool,
    /// What those say of the action at whom the object was not any more: they take part in it,
    /// though the call was not executed there.
    left_behind: Option<Box<Report>>,
}

/// Where an attempt goes.
#[derive(Clone, Copy)]
struct At<'a> {
    binding: &'a Binding,
    generation: u64,
    /// Of a call in an action, if whoever leads the object next goes on with it: the call is made
    /// there once more, under the same id, whatever becomes of this attempt.
    goes_on: Option<&'a Track>,
    /// It is a copy that leads a group, of one perhaps.
    is_group: bool,
}

impl At<'_> {
    /// The action has to know where its call goes: to this shard, or to whoever leads the object.
    async fn reaching(
        self,
        track: Option<&Track>,
        (node, shard): (NodeId, u16),
        peer: Option<Peer>,
    ) -> Result<()> {
        match self.goes_on {
            Some(track) => {
                let leader = Address::Leader(self.binding.object());
                track.goes_to(None);
                track.reaching(leader, None).await
            }
            None => {
                if let Some(track) = track {
                    let object = self.binding.object();
                    if self.is_group {
                        track.finds_leader(object, node)?;
                    }
                    track.goes_to(Some((object, Site { node, shard })));
                }
                reaching(track, node, shard, peer).await
            }
        }
    }
}

/// What an attempt came to.
enum Tried {
    /// This stands.
    Done(Answer),
    /// Another one may help.
    Again(Option<Step>, SystemError),
}

impl Request {
    /// Finds the object and asks, until there is an answer that stands or time is up.
    pub(super) async fn send_to_object(mut self, track: Option<&Track>) -> Answer {
        let repeatable = self.is_repeatable() && track.is_none();
        let Callee::Object(binding) = replace(&mut self.callee, Callee::Taken) else {
            unreachable!("only called for an object");
        };
        let binding = &*binding;
        let mut pursuit = Pursuit {
            attempt: Attempt::default(),
            repeatable,
            in_doubt: false,
            left_behind: None,
        };
        let (mut step, mut last) = (None, None);
        loop {
            let found = match (step.take(), binding.cached()) {
                (None, Some(cached)) => Ok(cached),
                (step, _) => {
                    let attempt = &mut pursuit.attempt;
                    self.find(binding, attempt, step, last.as_ref()).await
                }
            };
            let (route, generation) = match found {
                Ok(found) => found,
                Err(error)
                    if is_passing(&error)
                        && !is_left_at(track, binding, &error)
                        && !self.is_late() =>
                {
                    last = Some(error);
                    continue;
                }
                Err(error) => return pursuit.ended(error.into()),
            };
            let at = At {
                binding,
                generation,
                goes_on: track.filter(|_| route.is_cohort()),
                is_group: route.is_group(),
            };
            if track.is_some() {
                self.follows(at.goes_on.is_some());
            }
            let tried = match &*route {
                Bound::Local { shard, .. } => {
                    self.try_here(&shard.clone(), at, track, &mut pursuit).await
                }
                Bound::Remote { connection, .. } => {
                    if last.is_some() {
                        let (w, times) = self.with_times();
                        times.set_deadline(w);
                    }
                    self.try_there(connection, at, track, &mut pursuit).await
                }
            };
            match tried {
                Tried::Done(answer) => return pursuit.ended(answer),
                Tried::Again(next, error) => (step, last) = (next, Some(error)),
            }
        }
    }

    /// Calls the object in this process.
    async fn try_here(
        &mut self,
        shard: &ShardHandle,
        at: At<'_>,
        track: Option<&Track>,
        pursuit: &mut Pursuit,
    ) -> Tried {
        let At {
            binding,
            generation,
            goes_on,
            ..
        } = at;
        let node = self.scope.client.me().node;
        self.going_to(node);
        if let Err(error) = at.reaching(track, (node, shard.index()), None).await {
            return Tried::Done(error.into());
        }
        let kept = goes_on.map(|_| self.w.clone());
        let answer = self.deliver(shard, binding.object()).await;
        pursuit.doubt(goes_on, &answer);
        if let (Some(kept), Err(error)) = (kept, &answer.outcome)
            && is_of_the_way(error)
            && !self.is_late()
        {
            self.w = kept;
            let error = error.clone();
            pursuit.leave(answer.report);
            let (client, attempt) = (&self.scope.client, &mut pursuit.attempt);
            let step = after(client, binding, generation, attempt, &error);
            return Tried::Again(step, error);
        }
        match self.given_back(&answer) {
            Some(error) if !self.is_late() => {
                pursuit.leave(answer.report);
                let (client, attempt) = (&self.scope.client, &mut pursuit.attempt);
                let step = binding.moved(client, generation, attempt, &error);
                Tried::Again(Some(step), error)
            }
            _ => Tried::Done(answer),
        }
    }

    /// Calls the object at another process.
    async fn try_there(
        &mut self,
        connection: &Arc<Connection>,
        at: At<'_>,
        track: Option<&Track>,
        pursuit: &mut Pursuit,
    ) -> Tried {
        let At {
            binding,
            generation,
            goes_on,
            ..
        } = at;
        let peer = connection.peer();
        self.going_to(peer.node);
        let shard = shard_at(binding.object(), connection);
        if let Err(error) = at.reaching(track, (peer.node, shard), Some(peer)).await {
            return Tried::Done(error.into());
        }
        let (w, times) = self.with_times();
        // What is done there is not lost with the connection.
        let tied = track.filter(|_| goes_on.is_none());
        let answer = ask(connection, w, times, tied).await;
        pursuit.doubt(goes_on, &answer);
        match answer.outcome {
            Err(error)
                if match goes_on {
                    Some(_) => is_of_the_way(&error),
                    None => {
                        may_try_again(&error, pursuit.repeatable)
                            && is_untouched(track, peer.node, &error, answer.report.is_some())
                    }
                } && !self.is_late() =>
            {
                pursuit.leave(answer.report);
                pursuit.in_doubt |= error.completion() == Completed::Maybe;
                let (client, attempt) = (&self.scope.client, &mut pursuit.attempt);
                let step = after(client, binding, generation, attempt, &error);
                Tried::Again(step, error)
            }
            outcome => {
                note(binding, generation, &outcome);
                frame::recycle(self.w.take());
                let report = answer.report;
                Tried::Done(Answer { outcome, report })
            }
        }
    }

    /// The way to the object, in time; errors are those of a call that was not sent.
    async fn find(
        &self,
        binding: &Binding,
        attempt: &mut Attempt,
        step: Option<Step>,
        last: Option<&SystemError>,
    ) -> Result<(Route, u64)> {
        let finding = binding.route(&self.scope.client, attempt, step);
        let limit = tokio::time::Instant::from_std(self.deadline);
        match tokio::time::timeout_at(limit, finding).await {
            Ok(found) => found.map_err(SystemError::before_sending),
            Err(_) => Err(out_of_time(last, binding)),
        }
    }

    /// The error of a call within this process that was refused since its object has moved, if it
    /// can be sent there: what was written is there again.
    fn given_back(&mut self, answer: &Answer) -> Option<SystemError> {
        let error = answer.outcome.as_ref().err()?;
        if !may_try_again(error, false) {
            return None;
        }
        let parameters = error.take_parameters()?;
        self.w = Writer::of_message(parameters, self.scope.client.message_bytes_max());
        Some(error.clone())
    }
}

impl Pursuit {
    /// A copy that led has broken off, or leads no more: the object's log may have the call as
    /// executed all the same, whatever the next one says.
    fn doubt(&mut self, goes_on: Option<&Track>, answer: &Answer) {
        let error = answer.outcome.as_ref().err();
        self.in_doubt |= goes_on.is_some() && error.is_some_and(is_of_the_way);
    }

    /// Keeps what is said of the action where the object was not any more.
    fn leave(&mut self, report: Option<Box<Report>>) {
        let Some(report) = report else {
            return;
        };
        match &mut self.left_behind {
            Some(all) => {
                all.participants.extend(report.participants);
                all.aborted.extend(report.aborted);
            }
            none => *none = Some(report),
        }
    }

    /// The answer that stands, with all that was said on the way.
    fn ended(mut self, mut answer: Answer) -> Answer {
        if self.in_doubt {
            answer.outcome = answer.outcome.map_err(doubted);
        }
        if self.left_behind.is_some() {
            let last = answer.report.take();
            self.leave(last);
            answer.report = self.left_behind;
        }
        answer
    }
}

fn note(binding: &Binding, generation: u64, answer: &Result<Message>) {
    match answer {
        Ok(_) => binding.worked(generation),
        Err(error) if error.kind() == ErrorKind::BindingBroken && !error.has_begun() => {
            binding.lost(generation);
        }
        Err(_) => {}
    }
}

/// Whether a call in an action has left nothing where it failed, nor the action before it: else
/// the binding broke within the action, which therefore cannot go on.
fn is_untouched(
    track: Option<&Track>,
    node: NodeId,
    error: &SystemError,
    is_reported: bool,
) -> bool {
    // One that has moved is not lost: what the action did there has moved along.
    error.kind() == ErrorKind::Moved
        || track.is_none_or(|track| {
            let is_lost = error.kind() != ErrorKind::NoSuchObject && track.works_at(node);
            !is_reported && !is_lost
        })
}

/// Whether another attempt can do no harm and may help. What a servant says stands: it may have
/// called others, and what it met is no news of the way to it.
fn may_try_again(error: &SystemError, repeatable: bool) -> bool {
    let is_untouched = error.completion() == Completed::No;
    let helps = match error.kind() {
        ErrorKind::Moved => is_untouched && error.moved().is_some(),
        ErrorKind::NoSuchObject
        | ErrorKind::Unreachable
        | ErrorKind::BindingBroken
        | ErrorKind::Draining => true,
        _ => false,
    };
    helps && (is_untouched || repeatable) && !error.has_begun()
}

/// Whether the error is none of the servant's, but of the way to it, or of a copy that leads no
/// more.
fn is_of_the_way(error: &SystemError) -> bool {
    let is = match error.kind() {
        ErrorKind::Moved => error.moved().is_some(),
        ErrorKind::NoSuchObject
        | ErrorKind::Unreachable
        | ErrorKind::BindingBroken
        | ErrorKind::Draining
        | ErrorKind::Fenced => true,
        _ => false,
    };
    is && !error.has_begun()
}

/// Whether the place could not be found for a reason that may pass.
fn is_passing(error: &SystemError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Unreachable | ErrorKind::BindingBroken | ErrorKind::Draining
    )
}

/// Whether what an action has of an object is at a node that stops: it may commit until that has
/// waited for long enough, and gets nothing more there. What it has not used may be led elsewhere
/// soon.
fn is_left_at(track: Option<&Track>, binding: &Binding, error: &SystemError) -> bool {
    let node = track.zip(error.closed());
    node.is_some_and(|(track, node)| track.was_led_by(binding.object(), node))
}

/// The truth about a call of which an earlier attempt may have been executed.
fn doubted(error: SystemError) -> SystemError {
    match error.completion() {
        Completed::No => error.completed(Completed::Maybe),
        Completed::Maybe | Completed::Yes => error,
    }
}

fn after(
    client: &Client,
    binding: &Binding,
    generation: u64,
    attempt: &mut Attempt,
    error: &SystemError,
) -> Option<Step> {
    match error.kind() {
        ErrorKind::Moved => Some(binding.moved(client, generation, attempt, error)),
        ErrorKind::NoSuchObject => Some(binding.stale(client, generation, attempt, error)),
        _ => {
            binding.lost(generation);
            None
        }
    }
}

fn out_of_time(last: Option<&SystemError>, binding: &Binding) -> SystemError {
    match last.cloned() {
        Some(error) => error.context("gave up at the deadline; the last attempt said"),
        None => {
            let detail = format!("object {} could not be found in time", binding.object());
            SystemError::new(ErrorKind::Deadline, detail)
        }
    }
}
