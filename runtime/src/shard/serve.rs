//! Running servants.
//!
//! A servant is polled once where it is dispatched and gets a task of its own only if it waits
//! for something. Some run elsewhere (see [`crate::elsewhere`]): then what waits here is a
//! stand-in, and the object's state stays in the catalog until the new one comes back.

use std::future::{Future, poll_fn};
use std::mem::replace;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Instant;

use partha_core::id::{CallId, Peer, Uid};
use partha_core::{Ended, Input, Mode, ObjectSlot, Ticket};
use partha_store::ObjectStore;
use partha_wire::Message;

use super::Shard;
use super::arrive::{Entry, Outcome};
use super::catalog::State;
use super::give_up::Stoppable;
use super::job::ReplyTo;
use crate::abi::{Call, Class, End, Finished, LocalFuture, Method, ObjectState};
use crate::action::{Ground, Serving};
use crate::config::CALL_DEADLINE;
use crate::context::{Asked, Context};
use crate::elsewhere::{Away, Order};
use crate::error::{ErrorKind, SystemError};
use crate::rows::{Changes, Rows};
use crate::timestamp::Timestamp;
use crate::wire::context::TraceId;

impl Shard {
    pub(super) fn dispatch(
        self: &Rc<Self>,
        ticket: Ticket,
        (uid, slot): (Uid, ObjectSlot),
        mode: Mode,
        new: bool,
        action: Option<Uid>,
    ) {
        if let Some(action) = action {
            self.begin_in_action(ticket, uid, mode, action);
        }
        if new {
            let input = self.construct(ticket, uid, slot);
            self.later(input);
            return;
        }
        let local = self.local.upgrade();
        let local = local.expect("its tasks do not outlive the thread's set of them");
        let _within = local.enter();
        let mut servant = match self.prepare(ticket, uid, slot, mode) {
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
                let running = Stoppable::new(servant);
                if let Some(entry) = self.entries.borrow_mut().find_mut(ticket) {
                    entry.running = Some(running.clone());
                    // What it waits for may come otherwise elsewhere.
                    entry.executed = None;
                }
                let shard = self.clone();
                local.spawn_local(async move {
                    // None if it was stopped: then the engine knows that already.
                    if let Some(finished) = poll_fn(|task| running.poll(task)).await {
                        let input = shard.ended(ticket, finished);
                        shard.feed(input);
                    }
                });
            }
        }
    }

    /// A call in an action is about to run: a write leaves a way back.
    fn begin_in_action(&self, ticket: Ticket, uid: Uid, mode: Mode, action: Uid) {
        let before = match mode {
            Mode::Read | Mode::Upgrade => None,
            Mode::Write => {
                self.capture(uid, action);
                self.before_call(uid).map(Box::new)
            }
        };
        let mut entries = self.entries.borrow_mut();
        let entry = entries
            .find_mut(ticket)
            .expect("the engine dispatches calls it has");
        (entry.before, entry.in_action) = (before, true);
    }

    fn prepare(
        &self,
        ticket: Ticket,
        uid: Uid,
        slot: ObjectSlot,
        mode: Mode,
    ) -> Result<Servant, SystemError> {
        let mut entries = self.entries.borrow_mut();
        let entry = entries
            .find_mut(ticket)
            .expect("the engine dispatches calls it has");
        let mut catalog = self.catalog.borrow_mut();
        let class = catalog
            .class_at(slot, uid)
            .expect("the engine dispatches on loaded objects")
            .clone();
        let (method, of_class) = (entry.method, class.info());
        let index = index_of(method, &class, uid)?;
        let place = self.registry.elsewhere.place(&class, method, uid);
        entry.slot = Some(slot);
        let state = catalog.active_at(slot, uid).and_then(|active| match mode {
            Mode::Write if place.is_none() => active.state.take(),
            Mode::Read | Mode::Upgrade | Mode::Write => active.state.clone(),
        });
        let store = self.registry.store.clone().filter(|_| of_class.persistent);
        let rows = self.rows(store, entry, mode);
        let mut context = self.context_of(ticket, entry, rows);
        entry.branch = context.branch();
        let parameters = entry.parameters.take().expect("a call is dispatched once");
        if place.is_none() && !entry.in_action {
            let whose = (entry.caller, entry.call);
            entry.executed = self.to_be_executed(uid, method, whose, &parameters);
        }
        if let Some(executed) = &entry.executed {
            context = context.with_chosen(executed.now, executed.seed);
        }
        let running = match place {
            None => {
                let call = Call::new(parameters, state, context);
                Running::Here(class.skeleton().dispatch(index, call))
            }
            Some(place) => {
                let copy = catalog.active_at(slot, uid).map(|active| active.snapshot());
                let order = Order {
                    class: (*class).clone(),
                    method: index,
                    parameters,
                    state: copy.transpose()?,
                    context,
                };
                Running::Elsewhere(self.registry.elsewhere.run(place, order, state))
            }
        };
        Ok(Servant {
            running,
            class: of_class.name,
            method: method.name,
            object: uid,
            ground: self.ground.clone(),
        })
    }

    fn context_of(&self, ticket: Ticket, entry: &Entry, rows: Rows) -> Context {
        let serving = Serving {
            ground: self.ground.clone(),
            object: entry.object,
            ticket,
            deadline: entry.deadline,
            trace: entry.trace,
            within: entry.within.clone(),
            cohort: entry.cohort,
        };
        let asked = Asked {
            caller: entry.caller,
            call: entry.call,
            foreign: matches!(entry.reply, Some(ReplyTo::Foreign(_))),
        };
        Context::new(serving, asked, rows)
    }

    /// The rows of an object, as the actions that have changed them have left them.
    fn rows(&self, store: Option<Arc<dyn ObjectStore>>, entry: &mut Entry, mode: Mode) -> Rows {
        let uid = entry.object;
        let overlays = self.images.borrow().overlays(uid);
        let rows = Rows::new(store, uid, mode == Mode::Write).beneath(overlays);
        match entry.at_copy {
            None => rows,
            Some(_) => rows.of_moment(self.moment_of(entry)),
        }
    }

    fn construct(&self, ticket: Ticket, uid: Uid, slot: ObjectSlot) -> Input {
        let mut entries = self.entries.borrow_mut();
        let entry = entries
            .find_mut(ticket)
            .expect("the engine dispatches calls it has");
        let made = entry
            .create
            .and_then(|class| self.registry.classes.get(&class))
            .ok_or_else(|| SystemError::new(ErrorKind::Internal, "an unknown class was admitted"))
            .and_then(|class| {
                let parameters = entry.parameters.take().expect("a call is dispatched once");
                let framed = parameters.reader()?.pointer(1).data()?.to_vec();
                let arguments = Message::from_framed(framed.into(), Vec::new())?;
                Ok((class, construct(class, &arguments)?))
            });
        match made {
            Ok((class, state)) => {
                self.catalog
                    .borrow_mut()
                    .insert_new(uid, slot, class, state);
                entry.slot = Some(slot);
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
        let entry = entries.find_mut(ticket).expect("a running call is kept");
        entry.running = None;
        let (outcome, ended) = match finished {
            Ok(Finished {
                state,
                end,
                changes,
                alone,
            }) => {
                if !alone {
                    entry.executed = None;
                }
                if entry.method.mutating
                    && let Some(active) = entry.active(&mut self.catalog.borrow_mut())
                {
                    active.state = state;
                }
                entry.rows = changes;
                match end {
                    End::Returned(w) => (Outcome::Frame(w), Ended::Normal),
                    End::Raised(w) => (Outcome::Frame(w), Ended::Raised),
                    End::Failed(error) => (Outcome::Failed(error), Ended::Failed),
                }
            }
            Err(error) => (Outcome::Failed(error), Ended::Failed),
        };
        let well = ended != Ended::Failed;
        let settled = entry.branch.as_ref().map(|branch| branch.settle(well));
        let (outcome, ended) = match settled {
            Some(Err(error)) => (Outcome::Failed(error.handed_on(true)), Ended::Failed),
            Some(Ok(())) | None => (outcome, ended),
        };
        if entry.at_copy.is_some()
            && let Some(error) = self.outpaced(entry)
        {
            entry.outcome = Outcome::Failed(error);
            return Input::Returned {
                ticket,
                ended: Ended::Failed,
                size_bytes: 0,
            };
        }
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
        let active = entry.active(&mut catalog);
        let kept = match active {
            None => Ok(0),
            Some(active) if entry.in_action => {
                active.encode_again().map(|state| state.len() as u64)
            }
            Some(active) => active.record().map(|record| {
                let size_bytes = record.state.len() as u64;
                entry.record = Some(Box::new(record));
                size_bytes
            }),
        };
        match kept {
            Ok(size_bytes) => {
                entry.outcome = outcome;
                Input::Returned {
                    ticket,
                    ended,
                    size_bytes,
                }
            }
            Err(error) => {
                entry.outcome = Outcome::Failed(error.handed_on(true));
                Input::Returned {
                    ticket,
                    ended: Ended::Failed,
                    size_bytes: 0,
                }
            }
        }
    }
}

/// A call that is executed here as it was elsewhere.
pub(super) struct Replay<'c> {
    pub(super) object: Uid,
    pub(super) class: &'c Class,
    /// Its index there.
    pub(super) method: usize,
    pub(super) caller: Peer,
    pub(super) call: Option<CallId>,
    /// What was chosen where it was executed first.
    pub(super) now: Timestamp,
    pub(super) seed: u64,
    /// What the store does not show yet.
    pub(super) rows: Changes,
}

impl Shard {
    /// Executes a call that the engine knows nothing of. It has no way to others, and no time to
    /// wait for anything.
    pub(super) fn replay(
        &self,
        replay: Replay<'_>,
        state: State,
        parameters: Message,
    ) -> Result<Finished, SystemError> {
        let serving = Serving {
            ground: self.ground.clone(),
            object: replay.object,
            ticket: self.ticket(),
            deadline: Instant::now() + CALL_DEADLINE,
            trace: TraceId::default(),
            within: None,
            cohort: false,
        };
        let asked = Asked {
            caller: replay.caller,
            call: replay.call,
            foreign: false,
        };
        let rows = Rows::new(self.registry.store.clone(), replay.object, true);
        let rows = rows.beneath(vec![Arc::new(replay.rows)]);
        let context = Context::new(serving, asked, rows).with_chosen(replay.now, replay.seed);
        let call = Call::new(parameters, Some(state), context);
        let info = replay.class.info();
        let local = self.local.upgrade();
        let local = local.expect("its tasks do not outlive the thread's set of them");
        let _within = local.enter();
        let mut servant = Servant {
            running: Running::Here(replay.class.skeleton().dispatch(replay.method, call)),
            class: info.name,
            method: info.methods[replay.method].name,
            object: replay.object,
            ground: self.ground.clone(),
        };
        let mut task = TaskContext::from_waker(Waker::noop());
        match Pin::new(&mut servant).poll(&mut task) {
            Poll::Ready(finished) => finished,
            Poll::Pending => {
                let detail = "it waits for something here";
                Err(SystemError::new(ErrorKind::Servant, detail))
            }
        }
    }
}

/// The index of a method in the class of an object.
fn index_of(method: &Method, class: &Class, uid: Uid) -> Result<usize, SystemError> {
    let (info, name) = (class.info(), method.name);
    info.method(method.interface, method.ordinal)
        .ok_or_else(|| {
            let detail = format!("{uid} is of class {}, which has no {name}", info.name);
            SystemError::new(ErrorKind::BadOperation, detail)
        })
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

/// A servant at work, its panics caught, those of its destructors too.
pub(super) struct Servant {
    running: Running,
    class: &'static str,
    method: &'static str,
    object: Uid,
    /// Where its polls are noted.
    ground: Arc<Ground>,
}

enum Running {
    Here(LocalFuture),
    Elsewhere(Away),
    /// It has ended, or is being dropped.
    Ended,
}

impl Servant {
    /// Runs something of the servant's, noted as a poll of it, its panics caught: the text of one.
    fn guarded<R>(&mut self, work: impl FnOnce(&mut Running) -> R) -> Result<R, String> {
        let Self {
            class,
            method,
            object,
            ..
        } = *self;
        let polls = self.ground.shard.polls();
        let outer = polls.enter(class, method, object);
        let done = catch_unwind(AssertUnwindSafe(|| work(&mut self.running)));
        self.ground.shard.polls().leave(outer);
        done.map_err(|panic| panic_text(&*panic).to_owned())
    }
}

impl Drop for Servant {
    /// What a servant that is stopped keeps is dropped here, maybe beneath the engine: that runs
    /// code of its author, like any poll.
    fn drop(&mut self) {
        if matches!(self.running, Running::Ended) {
            return;
        }
        if let Err(text) = self.guarded(|running| drop(replace(running, Running::Ended))) {
            let (class, method, object) = (self.class, self.method, self.object);
            tracing::error!(class, method, %object, "panicked while it was stopped: {text}");
        }
    }
}

impl Future for Servant {
    type Output = Result<Finished, SystemError>;

    fn poll(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let polled = self.guarded(|running| {
            let polled = match running {
                Running::Here(servant) => servant.as_mut().poll(task).map(Ok),
                Running::Elsewhere(away) => away.as_mut().poll(task),
                Running::Ended => Poll::Pending,
            };
            if polled.is_ready() {
                *running = Running::Ended;
            }
            polled
        });
        polled.unwrap_or_else(|text| {
            let detail = format!("{}.{} panicked: {text}", self.class, self.method);
            Poll::Ready(Err(SystemError::new(ErrorKind::Servant, detail)))
        })
    }
}

/// What a panic says.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
