//! One call on its way from a stub: fill in the arguments, send, decode the answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use partha_core::binding::{Attempt, Step};
use partha_core::id::CallId;
use partha_wire::{DecodeError, Message, Slot, StructAt, StructReader, Writer};
use tokio::sync::oneshot;

use super::Method;
use crate::binding::{Binding, Bound};
use crate::caller::CallScope;
use crate::capability::{Capability, Way};
use crate::config::{CALL_DEADLINE, CALL_DEADLINE_MAX, DEADLINE_GRACE};
use crate::error::{Completed, ErrorKind, Result, SystemError};
use crate::net::connection::Connection;
use crate::shard::{Incoming, ReplyTo, ShardHandle};
use crate::wire::context::{CallContext, set_deadline};
use crate::wire::frame::{self, Target};

/// A call under construction.
#[derive(Debug)]
pub struct Request {
    w: Writer,
    parameters: Slot,
    root: StructAt,
    context: StructAt,
    callee: Callee,
    scope: CallScope,
    method: &'static Method,
    call: Option<CallId>,
    deadline: Instant,
}

#[derive(Debug)]
enum Callee {
    Object(Arc<Binding>),
    Capability(Capability),
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    results: Message,
    call: Option<CallId>,
}

impl Request {
    pub(crate) fn of_object(
        binding: Arc<Binding>,
        scope: CallScope,
        method: &'static Method,
        data: u16,
        pointers: u16,
    ) -> Self {
        let target = Target::Object(binding.object());
        Self::new(
            target,
            Callee::Object(binding),
            scope,
            method,
            data,
            pointers,
        )
    }

    pub(crate) fn of_capability(
        capability: Capability,
        scope: CallScope,
        method: &'static Method,
        data: u16,
        pointers: u16,
    ) -> Self {
        let target = capability.target();
        Self::new(
            target,
            Callee::Capability(capability),
            scope,
            method,
            data,
            pointers,
        )
    }

    fn new(
        target: Target,
        callee: Callee,
        scope: CallScope,
        method: &'static Method,
        data: u16,
        pointers: u16,
    ) -> Self {
        let (mut w, parameters) = frame::invoke(target, method.interface, method.ordinal);
        let root = w.structure(parameters, data, pointers);
        let now = Instant::now();
        let usual = method
            .deadline_us
            .map_or(CALL_DEADLINE, Duration::from_micros);
        let longest = now + CALL_DEADLINE_MAX;
        let deadline = scope.deadline.unwrap_or(now + usual).min(longest);
        let at_most_once = method.mutating && !method.idempotent;
        let call = scope
            .call
            .or_else(|| at_most_once.then(|| scope.client.new_call_id()));
        let context = CallContext {
            deadline: Some(deadline.saturating_duration_since(now)),
            call,
            again: scope.again,
            trace: scope.trace,
        };
        let context = context.write(&mut w, root.slot(0));
        Self {
            w,
            parameters,
            root,
            context,
            callee,
            scope,
            method,
            call,
            deadline,
        }
    }

    /// Writes the arguments behind the context, which is pointer 0 already.
    pub fn arguments(&mut self, fill: impl FnOnce(&mut Writer, StructAt)) {
        fill(&mut self.w, self.root);
    }

    /// Sends the call and waits for the answer.
    ///
    /// # Errors
    /// Whatever keeps the answer away; it says whether the operation was executed, and names the
    /// call if it may be asked for again.
    pub async fn send(self) -> Result<Reply> {
        let call = self.call;
        let (method, client) = (self.method, self.scope.client.clone());
        let result = match &self.callee {
            Callee::Capability(_) => self.send_to_capability().await,
            Callee::Object(_) => self.send_to_object().await,
        };
        match result {
            Ok(results) => Ok(Reply { results, call }),
            Err(error) => {
                tracing::debug!(method = method.name, %error, me = %client.me(), "call failed");
                Err(error.with_call(call))
            }
        }
    }

    async fn send_to_capability(mut self) -> Result<Message> {
        let Callee::Capability(capability) = &self.callee else {
            unreachable!("only called for a capability");
        };
        match capability.way() {
            Way::Local(shard, _) => {
                let shard = shard.clone();
                self.deliver(&shard, None).await
            }
            Way::Imported(connection) => {
                let connection = connection.clone();
                let deadline = self.deadline;
                ask(&connection, &mut self.w, deadline).await
            }
            Way::Foreign(object) => {
                let object = object.clone();
                let (interface, method) = (self.method.interface, self.method.ordinal);
                let message = self.w.into_message()?.rooted(self.parameters);
                object.call(interface, method, message, self.deadline).await
            }
        }
    }

    async fn send_to_object(self) -> Result<Message> {
        let Callee::Object(binding) = &self.callee else {
            unreachable!("only called for an object");
        };
        let binding = binding.clone();
        self.attempts(&binding).await
    }

    /// Finds the object and asks, until there is an answer that stands or time is up.
    async fn attempts(mut self, binding: &Binding) -> Result<Message> {
        let repeatable = self.is_repeatable();
        let (mut attempt, mut step, mut last) = (Attempt::default(), None, None);
        loop {
            let found = match (step.take(), binding.cached()) {
                (None, Some(cached)) => Ok(cached),
                (step, _) => {
                    let finding = binding.route(&self.scope.client, &mut attempt, step);
                    let limit = tokio::time::Instant::from_std(self.deadline);
                    match tokio::time::timeout_at(limit, finding).await {
                        Ok(found) => found,
                        Err(_) => return Err(out_of_time(last, binding)),
                    }
                }
            };
            let (route, generation) = match found {
                Ok(found) => found,
                Err(error) if is_passing(&error) && Instant::now() < self.deadline => {
                    last = Some(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let answer = match &*route {
                Bound::Local { shard, .. } => {
                    let shard = shard.clone();
                    return self.deliver(&shard, Some(binding)).await;
                }
                Bound::Remote { connection, .. } => {
                    if last.is_some() {
                        let left = self.deadline.saturating_duration_since(Instant::now());
                        set_deadline(&mut self.w, self.context, left);
                    }
                    ask(connection, &mut self.w, self.deadline).await
                }
            };
            match answer {
                Err(error) if may_try_again(&error, repeatable) && !self.is_late() => {
                    step = after(binding, generation, &mut attempt, &error);
                    last = Some(error);
                }
                answer => {
                    self.note(binding, generation, &answer);
                    frame::recycle(self.w);
                    return answer;
                }
            }
        }
    }

    /// Calls an object of this process.
    async fn deliver(self, shard: &ShardHandle, binding: Option<&Binding>) -> Result<Message> {
        let object = match (&self.callee, binding) {
            (_, Some(binding)) => binding.object(),
            (Callee::Object(binding), None) => binding.object(),
            (Callee::Capability(capability), None) => capability
                .local_object()
                .expect("a local way leads to a local object"),
        };
        let message = self.w.into_message()?;
        let attached = message.attached().to_vec();
        let parameters = message.rooted(self.parameters).with_attached(attached);
        let (sender, receiver) = oneshot::channel();
        shard.call(Incoming {
            object,
            interface: self.method.interface,
            method: self.method.ordinal,
            parameters,
            caller: self.scope.client.me(),
            reply: ReplyTo::Channel(sender),
            held: None,
            create: None,
        });
        let answer = receiver.await.unwrap_or_else(|_| {
            let error = SystemError::new(ErrorKind::Draining, "the shard has stopped");
            error.completed(Completed::Maybe).into()
        });
        answer.outcome
    }

    fn note(&self, binding: &Binding, generation: u64, answer: &Result<Message>) {
        match answer {
            Ok(_) => binding.worked(generation),
            Err(error) if error.kind() == ErrorKind::BindingBroken => binding.lost(generation),
            Err(_) => {}
        }
    }

    fn is_repeatable(&self) -> bool {
        !self.method.mutating || self.method.idempotent
    }

    fn is_late(&self) -> bool {
        Instant::now() >= self.deadline
    }
}

/// Asks on a connection; if the caller stops waiting, the peer is told.
async fn ask(connection: &Arc<Connection>, w: &mut Writer, deadline: Instant) -> Result<Message> {
    struct Waiting<'a> {
        connection: &'a Connection,
        question: u32,
        answered: bool,
    }
    impl Drop for Waiting<'_> {
        fn drop(&mut self) {
            if !self.answered {
                self.connection.cancel(self.question);
            }
        }
    }
    let limit = tokio::time::Instant::from_std(deadline);
    let (question, receiver) = loop {
        match connection.call(w, deadline + DEADLINE_GRACE) {
            Err(error) if connection.is_crowded() => {
                // Much is unsent: its turn comes when the peer has taken it, or never.
                let room = tokio::time::timeout_at(limit, connection.room()).await;
                room.map_err(|_| error)?;
            }
            sent => break sent?,
        }
    };
    let mut waiting = Waiting {
        connection,
        question,
        answered: false,
    };
    let answer = receiver.await;
    waiting.answered = true;
    let answer = answer.unwrap_or_else(|_| {
        let detail = format!("the connection to {} is gone", connection.peer_text());
        let error = SystemError::new(ErrorKind::BindingBroken, detail);
        error.completed(Completed::Maybe).into()
    });
    answer.outcome
}

/// Whether another attempt can do no harm and may help.
fn may_try_again(error: &SystemError, repeatable: bool) -> bool {
    let harmless = error.completion() == Completed::No || repeatable;
    let kind = error.kind();
    harmless
        && matches!(
            kind,
            ErrorKind::NoSuchObject
                | ErrorKind::Unreachable
                | ErrorKind::BindingBroken
                | ErrorKind::Draining
        )
}

/// Whether the place could not be found for a reason that may pass.
fn is_passing(error: &SystemError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Unreachable | ErrorKind::BindingBroken | ErrorKind::Draining
    )
}

fn after(
    binding: &Binding,
    generation: u64,
    attempt: &mut Attempt,
    error: &SystemError,
) -> Option<Step> {
    if error.kind() == ErrorKind::NoSuchObject {
        return Some(binding.stale(generation, attempt, error));
    }
    binding.lost(generation);
    None
}

fn out_of_time(last: Option<SystemError>, binding: &Binding) -> SystemError {
    match last {
        Some(error) => error.context("gave up at the deadline; the last attempt said"),
        None => {
            let detail = format!("object {} could not be found in time", binding.object());
            SystemError::new(ErrorKind::Deadline, detail)
        }
    }
}

impl Reply {
    /// Decodes the results.
    ///
    /// # Errors
    /// `Malformed`, with the completion status `Yes`.
    pub fn decode<T>(
        &self,
        read: impl FnOnce(StructReader<'_>) -> Result<T, DecodeError>,
    ) -> Result<T> {
        self.results.reader().and_then(read).map_err(|error| {
            let error = SystemError::new(ErrorKind::Malformed, format!("result {error}"));
            error.completed(Completed::Yes).with_call(self.call)
        })
    }

    /// The results, for one pass.
    ///
    /// # Errors
    /// `Malformed`, with the completion status `Yes`.
    pub fn results(&self) -> Result<StructReader<'_>> {
        self.results.reader().map_err(|error| {
            let error = SystemError::new(ErrorKind::Malformed, format!("result {error}"));
            error.completed(Completed::Yes).with_call(self.call)
        })
    }
}
