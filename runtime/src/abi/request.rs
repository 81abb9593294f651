//! One call on its way from a stub: fill in the arguments, send, decode the answer.

mod follow;
mod near;
mod times;

use std::sync::Arc;
use std::time::{Duration, Instant};

use partha_core::action::path::{Address, Site};
use partha_core::id::{CallId, NodeId, Peer, Uid};
use partha_wire::{DecodeError, Message, Slot, StructAt, StructReader, Writer};
use tokio::sync::oneshot;

use super::Method;
use crate::action::{Standing, Track};
use crate::binding::Binding;
use crate::caller::CallScope;
use crate::capability::{Capability, Way};
use crate::config::{CALL_DEADLINE, CALL_DEADLINE_MAX, DEADLINE_GRACE};
use crate::error::{Completed, ErrorKind, Result, SystemError};
use crate::net::connection::Connection;
use crate::net::pending::Answer;
use crate::shard::{Incoming, ReplyTo, ShardHandle, Waiting};
use crate::wire::context::{CallContext, set_call, set_followed, set_home};
use crate::wire::frame::{self, Target};
use times::Times;

/// A call under construction.
#[derive(Debug)]
pub struct Request {
    w: Writer,
    parameters: Slot,
    root: StructAt,
    context: StructAt,
    callee: Callee,
    /// With the call's id, if it has one.
    scope: CallScope,
    method: &'static Method,
    deadline: Instant,
    /// The context speaks of actions.
    in_actions: bool,
}

#[derive(Debug)]
enum Callee {
    Object(Arc<Binding>),
    Capability(Capability),
    /// Whoever sends the call has it.
    Taken,
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
        mut scope: CallScope,
        method: &'static Method,
        data: u16,
        pointers: u16,
    ) -> Self {
        let (mut w, parameters) = frame::invoke(target, method.interface, method.ordinal);
        w.set_bytes_max(scope.client.message_bytes_max());
        let root = w.structure(parameters, data, pointers);
        let now = Instant::now();
        let usual = method
            .deadline_us
            .map_or(CALL_DEADLINE, Duration::from_micros);
        let longest = now + CALL_DEADLINE_MAX;
        let longest = scope.standing.limit().map_or(longest, |l| l.min(longest));
        let deadline = scope.deadline.unwrap_or(now + usual).min(longest);
        let at_most_once = method.mutating && !method.idempotent;
        if at_most_once && scope.call.is_none() {
            scope.call = Some(scope.client.new_call_id());
        }
        let call = scope.call;
        let context = CallContext {
            deadline: Some(deadline.saturating_duration_since(now)),
            call,
            again: scope.again,
            trace: scope.trace,
            actions: scope.standing.actions(now),
        };
        let in_actions = context.actions.is_some();
        let context = context.write(&mut w, root.slot(0));
        Self {
            w,
            parameters,
            root,
            context,
            callee,
            scope,
            method,
            deadline,
            in_actions,
        }
    }

    /// Writes the arguments behind the context, which is pointer 0 already.
    pub fn arguments(&mut self, fill: impl FnOnce(&mut Writer, StructAt)) {
        fill(&mut self.w, self.root);
    }

    /// Sends the call and waits for the answer.
    ///
    /// A call in an action whose future is dropped after it was sent dooms the action: nobody
    /// knows then what it has done.
    ///
    /// # Errors
    /// Whatever keeps the answer away; it says whether the operation was executed, and names the
    /// call if it may be asked for again.
    pub async fn send(self) -> Result<Reply> {
        // What was done in an action is asked for by the action's name: its calls leave no reply
        // behind, and asking for one of them would execute it once more.
        let in_action = self.scope.standing.is_in_action();
        let call = self.scope.call.filter(|_| !in_action);
        let is_repeatable = self.is_repeatable();
        let (method, me) = (self.method, self.scope.client.me());
        let result = match self.track() {
            Ok(track) => {
                let answer = match &self.callee {
                    Callee::Capability(_) => self.send_to_capability(track.as_ref()).await,
                    Callee::Object(binding) if self.may_go_near(binding) => {
                        // Finding it takes calls of other objects.
                        Box::pin(self.send_to_nearest()).await
                    }
                    Callee::Object(_) => self.send_to_object(track.as_ref()).await,
                    Callee::Taken => unreachable!("it is taken below"),
                };
                let error = answer.outcome.as_ref().err();
                let lost = track.map(|track| track.answered(error, answer.report.as_deref()));
                lost.unwrap_or(Ok(())).and(answer.outcome)
            }
            Err(error) => Err(error),
        };
        match result {
            Ok(results) => Ok(Reply { results, call }),
            Err(error) => {
                tracing::debug!(method = method.name, %error, %me, "call failed");
                Err(error.of_call(call, is_repeatable))
            }
        }
    }

    /// Tells the action that a call in it begins.
    fn track(&self) -> Result<Option<Track>> {
        self.scope.standing.check_depth()?;
        let Standing::In(line, action) = &self.scope.standing else {
            return Ok(None);
        };
        if self.scope.again {
            let detail = "a call that may have been made before, outside of the action, cannot \
                          be asked for again in it";
            return Err(SystemError::new(ErrorKind::BadOperation, detail));
        }
        if self.scope.named && !line.is_servants() {
            let detail = "a call in an action cannot be named, since its answer is not kept; ask \
                          for the outcome of the action";
            return Err(SystemError::new(ErrorKind::BadOperation, detail));
        }
        Track::begin(line, *action).map(Some)
    }

    /// The call goes to this node now.
    fn going_to(&mut self, node: NodeId) {
        if !self.in_actions {
            return;
        }
        if let Some(home) = self.scope.standing.home(node) {
            set_home(&mut self.w, self.context, home);
        }
        let (w, times) = self.with_times();
        times.set_left(w);
    }

    /// The call is made again at the next leader of its object, if this one is lost: by its name
    /// what it has done before is found, also if the method itself changes nothing.
    fn name(&mut self) {
        if self.scope.call.is_none() {
            let call = self.scope.client.new_call_id();
            self.scope.call = Some(call);
            set_call(&mut self.w, self.context, call);
        }
    }

    /// Whether the call, made in an action, is made again at the next leader of its object.
    fn follows(&mut self, followed: bool) {
        if followed {
            self.name();
        }
        set_followed(&mut self.w, self.context, followed);
    }

    /// What was written, and what has to be written again when it has waited.
    fn with_times(&mut self) -> (&mut Writer, Times<'_>) {
        let times = Times {
            context: self.context,
            deadline: self.deadline,
            standing: self.in_actions.then_some(&self.scope.standing),
        };
        (&mut self.w, times)
    }

    async fn send_to_capability(mut self, track: Option<&Track>) -> Answer {
        let Callee::Capability(capability) = &self.callee else {
            unreachable!("only called for a capability");
        };
        let capability = capability.clone();
        match capability.way() {
            Way::Local(shard, object) => {
                let node = self.scope.client.me().node;
                if self.scope.client.is_node() {
                    self.going_to(node);
                }
                let home = self.scope.client.home_if_any();
                let shards = home.map_or(1, |home| home.shards.len() as u16);
                let site = Site {
                    node,
                    shard: shard.index(),
                };
                match note_reached(track, &capability, site, shards, None).await {
                    Ok(()) => self.deliver(&shard.clone(), object).await,
                    Err(error) => error.into(),
                }
            }
            Way::Imported(connection) => {
                self.going_to(connection.peer().node);
                let (site, shards) = (connection.site(), connection.hello().shards);
                let peer = Some(connection.peer());
                match note_reached(track, &capability, site, shards, peer).await {
                    Ok(()) => {
                        let (w, times) = self.with_times();
                        ask(connection, w, times, track).await
                    }
                    Err(error) => error.into(),
                }
            }
            Way::Foreign(object) => {
                if let Err(error) = goes_out_for_good(track).await {
                    return error.into();
                }
                let (interface, method) = (self.method.interface, self.method.ordinal);
                let message = self.w.into_message();
                let message = message.map(|message| message.into_rooted(self.parameters));
                match message {
                    Ok(message) => {
                        let answer = object.call(interface, method, message, self.deadline);
                        answer.await.into()
                    }
                    Err(error) => SystemError::from(error).into(),
                }
            }
        }
    }

    /// Calls an object of this process. What was written is given away.
    async fn deliver(&mut self, shard: &ShardHandle, object: Uid) -> Answer {
        let message = match self.w.take().into_message() {
            Ok(message) => message,
            Err(error) => return SystemError::from(error).into(),
        };
        let parameters = message.into_rooted(self.parameters);
        let (sender, receiver) = oneshot::channel();
        let open = shard.call(Incoming {
            object,
            interface: self.method.interface,
            method: self.method.ordinal,
            parameters,
            caller: self.scope.client.me(),
            reply: ReplyTo::Channel(sender),
            held: None,
            create: None,
            number: None,
        });
        let waiting = Waiting(open);
        let answer = if waiting.is_elsewhere() {
            // A shard whose thread a servant keeps does not tell that the deadline has passed.
            let limit = self.deadline + DEADLINE_GRACE;
            match tokio::time::timeout_at(limit.into(), receiver).await {
                Ok(answer) => answer,
                Err(_) => {
                    let detail = format!("no answer from {shard:?} of this process in time");
                    let error = SystemError::new(ErrorKind::Deadline, detail);
                    return error.completed(Completed::Maybe).into();
                }
            }
        } else {
            receiver.await
        };
        waiting.answered();
        answer.unwrap_or_else(|_| {
            let error = SystemError::new(ErrorKind::Draining, "the shard has stopped");
            error.completed(Completed::Maybe).into()
        })
    }

    /// Whether twice is as good as once. What a transient object's `&self` says nothing of: it has
    /// no state that could tell.
    fn is_repeatable(&self) -> bool {
        let reads = match &self.callee {
            Callee::Object(_) => !self.method.mutating,
            Callee::Capability(_) | Callee::Taken => false,
        };
        reads || self.method.idempotent
    }

    fn is_late(&self) -> bool {
        Instant::now() >= self.deadline
    }
}

/// The action has to know where its call goes, before it goes.
async fn reaching(
    track: Option<&Track>,
    node: NodeId,
    shard: u16,
    peer: Option<Peer>,
) -> Result<()> {
    let site = Address::Site(Site { node, shard });
    match track {
        Some(track) => track.reaching(site, peer).await,
        None => Ok(()),
    }
}

/// A call goes to where there are no actions.
async fn goes_out_for_good(track: Option<&Track>) -> Result<()> {
    match track {
        Some(track) => track.goes_out_for_good().await,
        None => Ok(()),
    }
}

/// The same for a capability: a connection manager makes objects at any shard of its node.
async fn note_reached(
    track: Option<&Track>,
    capability: &Capability,
    site: Site,
    shards: u16,
    peer: Option<Peer>,
) -> Result<()> {
    let is_manager = capability.class() == crate::system::connection_manager::CLASS;
    if is_manager {
        for shard in 0..shards {
            reaching(track, site.node, shard, peer).await?;
        }
        Ok(())
    } else {
        // Of a client this is the shard that it wanted here, which may be any.
        reaching(track, site.node, site.shard, peer).await
    }
}

/// Asks on a connection; if the caller stops waiting, the peer is told. An answer ties the action
/// that the call is in to the connection.
async fn ask(
    connection: &Arc<Connection>,
    w: &mut Writer,
    times: Times<'_>,
    track: Option<&Track>,
) -> Answer {
    let answer = question(connection, w, times).await;
    let answer = answer.unwrap_or_else(Answer::from);
    if let Some(track) = track
        && (answer.outcome.is_ok() || answer.report.is_some())
    {
        track.used(connection);
    }
    answer
}

async fn question(
    connection: &Arc<Connection>,
    w: &mut Writer,
    times: Times<'_>,
) -> Result<Answer> {
    let (deadline, patience) = (times.deadline, times.deadline + DEADLINE_GRACE);
    let renew = |w: &mut Writer| times.renew(w);
    let sent = connection.call_with_room(w, patience, deadline, renew);
    let question = sent.await?;
    Ok(question.answer().await)
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
