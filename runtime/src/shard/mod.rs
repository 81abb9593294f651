//! A shard: one thread, its objects, its engine.
//!
//! All that happens to the objects of a shard happens on its thread: the [`ShardHandle`] is how
//! other threads reach it. The thread collects events, asks the engine (`partha-core`), and does
//! what the engine says; it decides nothing itself. Nothing blocks it: disk writes are the store
//! thread's.

mod action_store;
mod actions;
mod answer;
mod arrive;
mod catalog;
mod commit;
mod entries;
mod execute;
mod fair;
mod foreign_calls;
mod give_up;
mod groups;
mod held;
mod homes;
mod images;
mod inbound;
mod inspect;
mod job;
mod moving;
mod newest;
mod run;
mod saved;
mod serve;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use partha_core::id::{ClassId, NodeId, Peer, Uid};
use partha_core::time::Time;
use partha_core::{Engine, Input, Limits, ObjectSlot, Outbox, Ticket};
use partha_store::ObjectStore;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::LocalSet;

pub(crate) use self::catalog::{State, decode, encode};
pub(crate) use self::give_up::{Called, Open, OpenCalls, Waiting};
pub(crate) use self::groups::{Claim, Goal, GroupJob, GroupReport, Letter, Opened, Progress};
pub(crate) use self::inbound::ShardInbound;
pub(crate) use self::inspect::{Abortion, Eviction, Share, Trace};
pub(crate) use self::job::{GoesOut, Incoming, Initiated, Job, Jobs, ReplyTo, ShardReport, Wish};
pub(crate) use self::moving::{Journey, NotMoved, Refused, Room, empty_page, reply};
pub(crate) use self::run::{Start, die, spawn};
pub(crate) use self::serve::panic_text;

use self::catalog::Catalog;
use self::entries::Entries;
use self::images::Images;
use crate::abi::{Class, Method};
use crate::action::Ground;
use crate::client::Client;
use crate::config::INBOX_MAX;
use crate::elsewhere::{Elsewhere, Polls};
use crate::error::{ErrorKind, SystemError};
use crate::hash::IdMap;
use crate::net::connection::Connection;
use crate::net::io::FRAMES_AHEAD;
use crate::net::links::Links;
use crate::services::binder::Label;

thread_local! {
    static CURRENT: RefCell<Option<Rc<Shard>>> = const { RefCell::new(None) };
}

/// What all shards of a process know.
pub(crate) struct Registry {
    pub(crate) me: Peer,
    pub(crate) name: String,
    /// What places are chosen by, by name.
    pub(crate) labels: Vec<Label>,
    /// Persistent classes by id.
    pub(crate) classes: IdMap<ClassId, Class>,
    /// Every method that any class of this process has.
    pub(crate) methods: IdMap<(ClassId, u16), &'static Method>,
    pub(crate) store: Option<Arc<dyn ObjectStore>>,
    pub(crate) limits: Limits,
    /// For objects on their way here.
    pub(crate) coming: Arc<Room>,
    pub(crate) links: Links,
    /// An object of this process that was not born here.
    pub(crate) well_known: Option<Uid>,
    pub(crate) elsewhere: Elsewhere,
}

/// The way to a shard from any thread.
#[derive(Clone)]
pub(crate) struct ShardHandle {
    inner: Arc<HandleInner>,
}

struct HandleInner {
    index: u16,
    /// See [`Jobs`].
    prompt: mpsc::UnboundedSender<Job>,
    in_turn: mpsc::UnboundedSender<Job>,
    /// Calls in the inbox; bounded by refusing further ones.
    waiting: AtomicUsize,
    /// Messages about actions in the inbox; bounded by losing further ones.
    messages: AtomicUsize,
    /// Of the latest call that came from another thread.
    number: AtomicU64,
    polls: Polls,
}

/// The shard itself; lives on its thread.
pub(crate) struct Shard {
    pub(crate) handle: ShardHandle,
    pub(crate) registry: Arc<Registry>,
    /// For calls that objects of this shard make.
    pub(crate) client: Client,
    /// What its servants have in common: the client they call with, and this shard.
    ground: Arc<Ground>,
    /// Large parameters of calls under way.
    held: held::HeldByObject,
    /// Where tasks of this thread run; a call may be let go on by one that does not.
    local: std::rc::Weak<LocalSet>,
    engine: RefCell<Engine>,
    catalog: RefCell<Catalog>,
    images: RefCell<Images>,
    entries: RefCell<Entries>,
    /// Calls that came from other threads, by their numbers.
    numbers: RefCell<IdMap<u64, Ticket>>,
    /// Homes of families that are lost, and who takes their place.
    homes: RefCell<homes::Homes>,
    /// Servants that wait until they may call elsewhere.
    leaving: RefCell<IdMap<Ticket, VecDeque<oneshot::Sender<()>>>>,
    /// Who waits for the end of an action.
    requests: RefCell<IdMap<Ticket, ReplyTo>>,
    /// Objects that come and go.
    moves: RefCell<moving::Moves>,
    /// Aborted actions of which prepared parts may still be in the store. Bounded by the engine,
    /// which tries to remove them again and again.
    unwanted: RefCell<BTreeSet<Uid>>,
    /// Copies of objects, and whether there was ever one: most shards have none, and their calls
    /// look no further.
    groups: RefCell<groups::Groups>,
    has_groups: Cell<bool>,
    /// The newest calls of callers, of which nothing can be saved yet.
    newest: RefCell<newest::Newest>,
    inputs: RefCell<VecDeque<Input>>,
    /// Calls that may run, and wait for others to have their turn.
    turns: RefCell<fair::Turns>,
    outbox: RefCell<Outbox>,
    /// The engine is being driven further up the stack.
    driving: Cell<bool>,
    next_ticket: Cell<u64>,
    started: Instant,
    timeout: Cell<Option<Time>>,
    /// The engine's timeout changed.
    rearmed: Notify,
    counters: Counters,
    drained: RefCell<Option<oneshot::Sender<()>>>,
    connections: RefCell<Vec<std::sync::Weak<Connection>>>,
    /// The latest connection that each node has made to this shard.
    nodes: RefCell<IdMap<NodeId, std::sync::Weak<Connection>>>,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) activations: Cell<u64>,
    pub(crate) passivations: Cell<u64>,
    /// Those of them at the limit of memory, also of objects that found no room when loaded.
    pub(crate) evictions: Cell<u64>,
    pub(crate) calls: Cell<u64>,
    pub(crate) duplicates: Cell<u64>,
    /// Actions that this shard decided, either way.
    pub(crate) committed: Cell<u64>,
    pub(crate) aborted: Cell<u64>,
    /// Deadlocks broken by the refusal of a call here.
    pub(crate) deadlocks: Cell<u64>,
    /// Servants stopped, since nobody needed their answers.
    pub(crate) killed: Cell<u64>,
    /// Messages about actions heard, but for those that deadlocks are found with.
    pub(crate) messages: Cell<u64>,
    /// Objects that have come from other nodes, and gone to them.
    pub(crate) moved_in: Cell<u64>,
    pub(crate) moved_out: Cell<u64>,
    /// Moves that were begun here and did not come about.
    pub(crate) moves_failed: Cell<u64>,
    /// Entries of logs that other copies were told of.
    pub(crate) told: Cell<u64>,
}

impl ShardHandle {
    pub(crate) fn new(index: u16) -> (Self, Jobs) {
        let (prompt, prompt_jobs) = mpsc::unbounded_channel();
        let (in_turn, in_turn_jobs) = mpsc::unbounded_channel();
        let jobs = Jobs {
            prompt: prompt_jobs,
            in_turn: in_turn_jobs,
        };
        let (waiting, messages) = (AtomicUsize::new(0), AtomicUsize::new(0));
        (
            Self {
                inner: Arc::new(HandleInner {
                    index,
                    prompt,
                    in_turn,
                    waiting,
                    messages,
                    number: AtomicU64::new(1),
                    polls: Polls::default(),
                }),
            },
            jobs,
        )
    }

    /// Its number in the node.
    pub(crate) fn index(&self) -> u16 {
        self.inner.index
    }

    /// What its thread polls now.
    pub(crate) fn polls(&self) -> &Polls {
        &self.inner.polls
    }

    /// Brings a call to the shard: at once if this is its thread. None if it is answered already.
    pub(crate) fn call(&self, mut incoming: Incoming) -> Option<Open> {
        let open = |called| {
            let shard = self.clone();
            Some(Open { shard, called })
        };
        if let Some(shard) = self.on_its_thread() {
            return open(Called::Ticket(shard.invoke(incoming)?));
        }
        if self.inner.waiting.fetch_add(1, Ordering::Relaxed) >= INBOX_MAX {
            self.inner.waiting.fetch_sub(1, Ordering::Relaxed);
            let detail = format!("{INBOX_MAX} calls wait for shard {}", self.inner.index);
            incoming
                .reply
                .fail(SystemError::new(ErrorKind::Overloaded, detail));
            return None;
        }
        let number = self.inner.number.fetch_add(1, Ordering::Relaxed);
        incoming.number = Some(number);
        if let Err(refused) = self.inner.in_turn.send(Job::Call(Box::new(incoming))) {
            if let Job::Call(incoming) = refused.0 {
                let error = SystemError::new(ErrorKind::Draining, "the shard has stopped");
                incoming.reply.fail(error);
            }
            return None;
        }
        open(Called::Number(number))
    }

    /// Posts anything but a call. Such jobs are bounded by what causes them: connections,
    /// capabilities, flushes under way. A shard that has stopped does not need them.
    pub(crate) fn post(&self, job: Job) {
        let lane = if job.is_in_turn() {
            &self.inner.in_turn
        } else {
            &self.inner.prompt
        };
        if lane.send(job).is_err() {
            tracing::trace!(shard = self.inner.index, "job for a stopped shard");
        }
    }

    /// Waits until the shard has stopped.
    pub(crate) async fn stops(&self) {
        self.inner.prompt.closed().await;
    }

    /// A volatile object's last capability is gone.
    pub(crate) fn retire(&self, object: Uid) {
        self.post(Job::Retire { object });
    }

    /// The shard itself, if this is its thread.
    fn on_its_thread(&self) -> Option<Rc<Shard>> {
        CURRENT.with_borrow(|current| {
            let current = current.as_ref();
            current.filter(|shard| shard.handle.is_same(self)).cloned()
        })
    }

    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    fn call_taken(&self) {
        self.inner.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for ShardHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "shard {}", self.inner.index)
    }
}

impl Registry {
    /// The index of a class's method, with what is known of it.
    pub(crate) fn method(&self, interface: ClassId, ordinal: u16) -> Option<&'static Method> {
        self.methods.get(&(interface, ordinal)).copied()
    }

    /// The class's name, or its number where this process does not know it.
    pub(crate) fn class_name(&self, class: ClassId) -> String {
        match self.classes.get(&class) {
            Some(class) => class.info().name.to_owned(),
            None => class.to_string(),
        }
    }

    /// This node, for messages.
    pub(crate) fn here(&self) -> String {
        format!("node {} ({})", self.name, self.me.node)
    }
}

impl Shard {
    pub(crate) fn now(&self) -> Time {
        self.time_of(Instant::now())
    }

    pub(crate) fn time_of(&self, instant: Instant) -> Time {
        let nanos = instant.saturating_duration_since(self.started).as_nanos();
        Time(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Calls of these objects come next. Each of the two tables is read for all of them before
    /// the other: the reads do not depend on each other, so the processor has them under way at
    /// the same time, where a call alone would wait for one after the other.
    fn touch(&self, objects: &[Uid]) {
        let engine = self.engine.borrow();
        let mut slots = [ObjectSlot(u32::MAX); FRAMES_AHEAD];
        for (object, slot) in objects.iter().zip(&mut slots) {
            *slot = engine.object_slot(*object).unwrap_or(*slot);
        }
        std::hint::black_box(self.catalog.borrow().touch(&slots));
    }

    fn ticket(&self) -> Ticket {
        let number = self.next_ticket.get();
        self.next_ticket.set(number + 1);
        Ticket(number)
    }
}

fn count(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}
