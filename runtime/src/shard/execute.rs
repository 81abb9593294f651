//! Doing what the engine says.
//!
//! Inputs are queued and handled one after the other, also those that outputs cause at once, so
//! the engine is never entered twice. A servant is polled once where it is dispatched and gets a
//! task of its own only if it waits for something.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Instant;

use partha_core::id::{CallId, ClassId, Peer, Uid};
use partha_core::{Ended, Event, Input, Invoke, Mode, Output, Ticket};
use partha_store::{Item, Record};
use partha_wire::{Message, Writer};

use super::catalog::Active;
use super::job::{Incoming, ReplyTo};
use super::{Shard, count};
use crate::abi::{Call, Class, End, Finished, LocalFuture, Method, ObjectState};
use crate::config::{CALL_DEADLINE, CALL_DEADLINE_MAX};
use crate::context::{Context, Rows};
use crate::error::{ErrorKind, SystemError};
use crate::net::connection::Held;
use crate::wire::context::{CallContext, TraceId};

/// What the shell keeps of a call until the engine says `Forget`.
pub(super) struct Entry {
    pub(super) object: Uid,
    pub(super) method: &'static Method,
    create: Option<ClassId>,
    /// What the parameters count for, until the call is over.
    held: Option<Held>,
    caller: Peer,
    pub(super) call: Option<CallId>,
    deadline: Instant,
    trace: TraceId,
    /// Taken by the servant.
    parameters: Option<Message>,
    /// Taken by the answer.
    pub(super) reply: Option<ReplyTo>,
    pub(super) outcome: Outcome,
    /// Other tickets wait for the same answer.
    pub(super) joined: bool,
    /// The object's state after the call, encoded.
    pub(super) record: Option<Record>,
    /// What the servant did to rows.
    pub(super) rows: Vec<Item>,
}

impl Entry {
    /// The object that a saved reply of this call is of; none where the call makes one.
    pub(super) fn saved_under(&self) -> Option<Uid> {
        self.create.is_none().then_some(self.object)
    }
}

/// What there is to answer.
pub(super) enum Outcome {
    /// Nothing yet.
    None,
    /// A Return frame.
    Frame(Writer),
    /// The servant gave up, or something of ours failed.
    Failed(SystemError),
}

impl Shard {
    /// A call has arrived: its ticket, unless it is refused at once.
    pub(super) fn invoke(self: &Rc<Self>, incoming: Incoming) -> Option<Ticket> {
        count(&self.counters.calls);
        match self.admit(&incoming) {
            Ok((invoke, mut entry)) => {
                let (is_new, ticket) = (incoming.create.is_some(), invoke.ticket);
                entry.parameters = Some(incoming.parameters);
                entry.held = incoming.held;
                entry.reply = Some(incoming.reply);
                self.entries.borrow_mut().insert(ticket, entry);
                self.feed(if is_new {
                    Input::Create(invoke)
                } else {
                    Input::Invoke(invoke)
                });
                Some(ticket)
            }
            Err(error) => {
                incoming.reply.fail(error);
                None
            }
        }
    }

    fn admit(&self, incoming: &Incoming) -> Result<(Invoke, Entry), SystemError> {
        let Incoming {
            object,
            interface,
            method,
            ..
        } = *incoming;
        let parameters = incoming.parameters.reader()?;
        let context = CallContext::of_parameters(parameters)?;
        let (info, volatile) = self.method(object, interface, method)?;
        let wish = context
            .deadline
            .or_else(|| info.deadline_us.map(std::time::Duration::from_micros));
        let deadline = Instant::now() + wish.unwrap_or(CALL_DEADLINE).min(CALL_DEADLINE_MAX);

        let creating = incoming.create.is_some();
        let ticket = self.ticket();
        let mode = if info.mutating || creating {
            Mode::Write
        } else {
            Mode::Read
        };
        let save = mode == Mode::Write
            && !volatile
            && (creating || !info.idempotent)
            && context.call.is_some();
        let (caller, call) = (incoming.caller, context.call);
        let invoke = Invoke {
            ticket,
            uid: object,
            caller,
            call,
            mode,
            save,
            volatile,
            deadline: self.time_of(deadline),
            action: None,
        };
        let entry = Entry {
            object,
            method: info,
            create: incoming.create,
            held: None,
            caller,
            call,
            deadline,
            trace: context.trace,
            parameters: None,
            reply: None,
            outcome: Outcome::None,
            joined: false,
            record: None,
            rows: Vec::new(),
        };
        Ok((invoke, entry))
    }

    /// What is known of a method, and whether the object is a transient one.
    fn method(
        &self,
        object: Uid,
        interface: ClassId,
        ordinal: u16,
    ) -> Result<(&'static Method, bool), SystemError> {
        let class = self.catalog.borrow().volatile(object).map(Class::info);
        let (method, volatile) = match class {
            Some(info) => {
                let index = info.method(interface, ordinal);
                (index.map(|index| &info.methods[index]), true)
            }
            None => (self.registry.method(interface, ordinal), false),
        };
        let method = method.ok_or_else(|| {
            let here = self.registry.here();
            let whose = class.map_or_else(
                || format!("no class of {here}"),
                |info| format!("{object} at {here} is of class {}, which", info.name),
            );
            let has = if class.is_some() { "has no" } else { "has" };
            let detail = format!("{whose} {has} method {ordinal} of interface {interface}");
            SystemError::new(ErrorKind::BadOperation, detail)
        })?;
        Ok((method, volatile))
    }

    /// Tells the engine what happened and does what it says, until nothing is left to do.
    pub(super) fn feed(self: &Rc<Self>, input: Input) {
        self.later(input);
        self.drive(false);
    }

    /// The engine's time has come.
    pub(super) fn time_out(self: &Rc<Self>) {
        self.timeout.set(None);
        self.drive(true);
    }

    fn drive(self: &Rc<Self>, timed_out: bool) {
        if self.driving.replace(true) {
            return;
        }
        let mut outbox = self.outbox.take();
        if timed_out {
            self.engine
                .borrow_mut()
                .handle_timeout(self.now(), &mut outbox);
            self.execute(&mut outbox);
        }
        loop {
            let Some(input) = self.inputs.borrow_mut().pop_front() else {
                break;
            };
            self.engine
                .borrow_mut()
                .handle(self.now(), input, &mut outbox);
            self.execute(&mut outbox);
        }
        self.catalog.borrow_mut().forget_failures();
        self.outbox.replace(outbox);
        self.driving.set(false);
        self.rearm();
    }

    fn rearm(&self) {
        let next = self.engine.borrow().next_timeout();
        let earlier = match (next, self.timeout.get()) {
            (Some(next), Some(armed)) => next < armed,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if earlier {
            self.timeout.set(next);
            self.rearmed.notify_one();
        }
    }

    fn execute(self: &Rc<Self>, outbox: &mut partha_core::Outbox) {
        for output in outbox.drain() {
            match output {
                Output::Search { ticket, call } => self.search(ticket, call),
                Output::Load { uid } => {
                    let outcome = self.catalog.borrow_mut().load(uid, &self.registry);
                    self.later(Input::Loaded { uid, outcome });
                }
                Output::Dispatch {
                    ticket,
                    uid,
                    mode,
                    new,
                    action: _,
                } => {
                    self.dispatch(ticket, uid, mode, new);
                }
                Output::Flush {
                    ticket,
                    uid,
                    state,
                    reply,
                    create,
                } => {
                    self.flush(ticket, uid, state, reply, create);
                }
                Output::Reply {
                    ticket,
                    answer,
                    joined: _,
                } => self.reply(ticket, answer),
                Output::Forget { ticket } => drop(self.entries.borrow_mut().remove(&ticket)),
                Output::Discard { uid } | Output::Passivate { uid } => self.drop_image(uid),
                Output::Capture { .. }
                | Output::Undo { .. }
                | Output::Keep { .. }
                | Output::Restore { .. }
                | Output::Inherit { .. }
                | Output::Release { .. }
                | Output::Store { .. }
                | Output::SearchDecision { .. }
                | Output::Send { .. }
                | Output::Ended { .. }
                | Output::Told { .. } => {
                    unreachable!("no call is in an action yet")
                }
                Output::Event(event) => self.note(event),
                Output::Drained => {
                    if let Some(done) = self.drained.borrow_mut().take() {
                        // Whoever asked for the drain may be gone.
                        let _ = done.send(());
                    }
                }
            }
        }
    }

    /// Queues an input that an output caused.
    pub(super) fn later(&self, input: Input) {
        self.inputs.borrow_mut().push_back(input);
    }

    fn drop_image(&self, uid: Uid) {
        let epoch = self.catalog.borrow_mut().remove(uid);
        if let (Some(epoch), Some(store)) = (epoch, &self.registry.store) {
            store.deactivate(uid, epoch);
        }
    }

    fn note(&self, event: Event) {
        match event {
            Event::Activated { uid, epoch } => {
                count(&self.counters.activations);
                tracing::debug!(%uid, %epoch, "activated");
            }
            Event::Passivated { uid, why } => {
                count(&self.counters.passivations);
                tracing::debug!(%uid, ?why, "passivated");
            }
            Event::Joined { first, .. } => {
                count(&self.counters.duplicates);
                if let Some(entry) = self.entries.borrow_mut().get_mut(&first) {
                    entry.joined = true;
                }
            }
            Event::Created { uid } => tracing::debug!(%uid, "created"),
            Event::Fenced { uid } => tracing::warn!(%uid, "a newer activation has written"),
            Event::NotEvicted { uid } => tracing::info!(%uid, "in use, not evicted"),
            Event::Overloaded { what, limit } => tracing::warn!(what, limit, "overloaded"),
            Event::Reborn { old, incarnation } => {
                tracing::info!(%old, %incarnation, "a caller came back in a new life");
            }
            Event::InDoubt {
                action,
                coordinator,
            } => tracing::warn!(%action, ?coordinator, "in doubt: waiting for the decision"),
            Event::GaveUp { action, why } => {
                tracing::info!(%action, ?why, "an action was aborted here");
            }
            Event::DeadlockBroken { victim, length } => {
                count(&self.counters.deadlocks);
                tracing::info!(%victim, length, "a deadlock was broken");
            }
        }
    }

    fn dispatch(self: &Rc<Self>, ticket: Ticket, uid: Uid, mode: Mode, new: bool) {
        if new {
            let input = self.construct(ticket, uid);
            self.later(input);
            return;
        }
        let mut servant = match self.prepare(ticket, uid, mode) {
            Ok(servant) => servant,
            Err(error) => {
                let input = self.ended(ticket, Err(error));
                self.later(input);
                return;
            }
        };
        // Polled once here; a servant that waits for nothing needs no task of its own.
        let mut task = TaskContext::from_waker(Waker::noop());
        match Pin::new(&mut servant).poll(&mut task) {
            Poll::Ready(finished) => {
                let input = self.ended(ticket, finished);
                self.later(input);
            }
            Poll::Pending => {
                let shard = self.clone();
                tokio::task::spawn_local(async move {
                    let finished = servant.await;
                    let input = shard.ended(ticket, finished);
                    shard.feed(input);
                });
            }
        }
    }

    fn prepare(&self, ticket: Ticket, uid: Uid, mode: Mode) -> Result<Servant, SystemError> {
        let mut entries = self.entries.borrow_mut();
        let entry = entries
            .get_mut(&ticket)
            .expect("the engine dispatches calls it has");
        let mut catalog = self.catalog.borrow_mut();
        let class = catalog
            .class(uid)
            .expect("the engine dispatches on loaded objects")
            .clone();
        let Method {
            interface,
            ordinal,
            name,
            ..
        } = *entry.method;
        let index = class.info().method(interface, ordinal).ok_or_else(|| {
            let detail = format!(
                "{uid} is of class {}, which has no {name}",
                class.info().name
            );
            SystemError::new(ErrorKind::BadOperation, detail)
        })?;
        let state = catalog.active(uid).and_then(|active| match mode {
            Mode::Read | Mode::Upgrade => active.state.clone(),
            Mode::Write => active.state.take(),
        });
        let persistent = class.info().persistent;
        let store = self.registry.store.clone().filter(|_| persistent);
        let context = Context {
            client: self.client.clone(),
            object: uid,
            caller: entry.caller,
            call: entry.call,
            deadline: entry.deadline,
            trace: entry.trace,
            foreign: matches!(entry.reply, Some(ReplyTo::Foreign(_))),
            rows: Rows::new(store, uid, mode == Mode::Write),
        };
        let parameters = entry.parameters.take().expect("a call is dispatched once");
        let running = class
            .skeleton()
            .dispatch(index, Call::new(parameters, state, context));
        let class = class.info().name;
        Ok(Servant {
            running,
            class,
            method: name,
        })
    }

    fn construct(&self, ticket: Ticket, uid: Uid) -> Input {
        let mut entries = self.entries.borrow_mut();
        let entry = entries
            .get_mut(&ticket)
            .expect("the engine dispatches calls it has");
        let made = entry
            .create
            .and_then(|class| self.registry.classes.get(&class))
            .ok_or_else(|| SystemError::new(ErrorKind::Internal, "an unknown class was admitted"))
            .and_then(|class| {
                let parameters = entry.parameters.take().expect("a call is dispatched once");
                let framed = parameters.reader()?.pointer(1).data()?.to_vec();
                let arguments = Message::from_framed(framed.into(), Vec::new())?;
                Ok((class.clone(), construct(class, &arguments)?))
            });
        match made {
            Ok((class, state)) => {
                self.catalog.borrow_mut().insert_new(uid, class, state);
                let finished = Outcome::Frame(crate::create::created(uid));
                self.keep_state(ticket, entry, finished, Ended::Normal)
            }
            Err(error) => {
                entry.outcome = Outcome::Failed(error);
                Input::Returned {
                    ticket,
                    ended: Ended::Failed,
                    size_bytes: 0,
                }
            }
        }
    }

    /// A servant has ended: its state goes back, its answer is kept; the engine is to be told.
    fn ended(&self, ticket: Ticket, finished: Result<Finished, SystemError>) -> Input {
        let mut entries = self.entries.borrow_mut();
        let entry = entries.get_mut(&ticket).expect("a running call is kept");
        let (outcome, ended) = match finished {
            Ok(Finished {
                state,
                end,
                context,
            }) => {
                if entry.method.mutating
                    && let Some(active) = self.catalog.borrow_mut().active(entry.object)
                {
                    active.state = state;
                }
                entry.rows = context.rows.into_items();
                match end {
                    End::Returned(w) => (Outcome::Frame(w), Ended::Normal),
                    End::Raised(w) => (Outcome::Frame(w), Ended::Raised),
                    End::Failed(error) => (Outcome::Failed(error), Ended::Failed),
                }
            }
            Err(error) => (Outcome::Failed(error), Ended::Failed),
        };
        if entry.method.mutating && ended == Ended::Normal {
            return self.keep_state(ticket, entry, outcome, ended);
        }
        entry.outcome = outcome;
        Input::Returned {
            ticket,
            ended,
            size_bytes: 0,
        }
    }

    /// Encodes the state that a writer left, for the flush to come and for its size.
    fn keep_state(
        &self,
        ticket: Ticket,
        entry: &mut Entry,
        outcome: Outcome,
        ended: Ended,
    ) -> Input {
        let mut catalog = self.catalog.borrow_mut();
        let record = catalog.active(entry.object).map(Active::record).transpose();
        match record {
            Ok(record) => {
                let size_bytes = record
                    .as_ref()
                    .map_or(0, |record| record.state.len() as u64);
                (entry.record, entry.outcome) = (record, outcome);
                Input::Returned {
                    ticket,
                    ended,
                    size_bytes,
                }
            }
            Err(error) => {
                entry.outcome = Outcome::Failed(error);
                Input::Returned {
                    ticket,
                    ended: Ended::Failed,
                    size_bytes: 0,
                }
            }
        }
    }
}

/// Runs a constructor, its panics caught.
fn construct(class: &Class, arguments: &Message) -> Result<Box<dyn ObjectState>, SystemError> {
    let constructing =
        || -> Result<_, SystemError> { Ok(class.skeleton().construct(arguments.reader()?)?) };
    catch_unwind(AssertUnwindSafe(constructing)).unwrap_or_else(|panic| {
        let (name, text) = (class.info().name, panic_text(&*panic));
        let detail = format!("{name}.new panicked: {text}");
        Err(SystemError::new(ErrorKind::Servant, detail))
    })
}

/// A servant at work, its panics caught.
struct Servant {
    running: LocalFuture,
    class: &'static str,
    method: &'static str,
}

impl Future for Servant {
    type Output = Result<Finished, SystemError>;

    fn poll(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let running = AssertUnwindSafe(|| self.running.as_mut().poll(task));
        match catch_unwind(running) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => {
                let text = panic_text(&*panic);
                let detail = format!("{}.{} panicked: {text}", self.class, self.method);
                Poll::Ready(Err(SystemError::new(ErrorKind::Servant, detail)))
            }
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
