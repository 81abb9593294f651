//! The thread of a shard: its loop, its timer, its connections.

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use partha_core::{Engine, Identity, Input, Outbox};
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tokio::task::LocalSet;

use super::held::HeldByObject;
use super::moving::Moves;
use super::{CURRENT, Counters, Job, Jobs, Registry, Shard, ShardHandle, ShardInbound};
use crate::action::Ground;
use crate::client::Client;
use crate::net::connection::Connection;
use crate::net::io::{TURN, run};
use crate::net::links::Links;
use crate::node::{Home, Seat};
use crate::wire::frame::Frame;

/// Jobs between two looks at the clock: after [`TURN`] connections have their turn.
const JOBS_A_LOOK: u32 = 4;

/// What a shard's thread starts with.
pub(crate) struct Start {
    pub(crate) handle: ShardHandle,
    pub(crate) jobs: Jobs,
    pub(crate) registry: Arc<Registry>,
    pub(crate) home: Arc<Home>,
    pub(crate) client: Client,
}

/// Starts the thread.
pub(crate) fn spawn(start: Start) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let name = format!("partha-shard-{}", start.handle.index());
    std::thread::Builder::new().name(name).spawn(move || {
        // Not a local runtime: there every job from another thread costs a wake-up of its own.
        let local = Rc::new(LocalSet::new());
        let serve = serve(start, Rc::downgrade(&local));
        // A task of its own: what is blocked on is polled whenever any task is woken.
        let serve = local.spawn_local(serve);
        let serving = std::panic::AssertUnwindSafe(|| local.block_on(&runtime, serve));
        if !matches!(std::panic::catch_unwind(serving), Ok(Ok(()))) {
            die();
        }
    })
}

/// Ends the process. Servants' panics are caught where they run: this one is ours, of a shard's
/// thread or the acceptor's. Going on would
/// be guessing, and a node without one of its shards hangs its callers; what was acknowledged is
/// on disk.
pub(crate) fn die() -> ! {
    eprintln!("a thread of the node has panicked, which is a bug in partha: aborting");
    std::process::abort();
}

async fn serve(start: Start, local: std::rc::Weak<LocalSet>) {
    let Start {
        handle,
        mut jobs,
        registry,
        home,
        client,
    } = start;
    let identity = Identity {
        me: registry.me,
        shard: handle.index(),
        // Nobody else can know it.
        seed: RandomState::new().hash_one(handle.index()),
    };
    let ground = Arc::new(Ground {
        client: client.clone(),
        shard: handle.clone(),
    });
    let engine = Engine::new(registry.limits, identity);
    let move_cooldown = Duration::from_nanos(registry.limits.move_cooldown_ns);
    let held = HeldByObject::new(registry.links.traffic);
    let shard = Rc::new(Shard {
        handle,
        held,
        registry,
        client,
        ground,
        local,
        engine: RefCell::new(engine),
        catalog: RefCell::default(),
        images: RefCell::default(),
        entries: RefCell::default(),
        numbers: RefCell::default(),
        homes: RefCell::default(),
        leaving: RefCell::default(),
        requests: RefCell::default(),
        moves: RefCell::new(Moves::new(move_cooldown)),
        unwanted: RefCell::default(),
        groups: RefCell::default(),
        has_groups: Cell::new(false),
        newest: RefCell::default(),
        inputs: RefCell::default(),
        turns: RefCell::default(),
        outbox: RefCell::new(Outbox::new()),
        driving: Cell::new(false),
        next_ticket: Cell::new(1),
        started: Instant::now(),
        timeout: Cell::new(None),
        rearmed: Notify::new(),
        counters: Counters::default(),
        drained: RefCell::default(),
        connections: RefCell::default(),
        nodes: RefCell::default(),
    });
    CURRENT.set(Some(shard.clone()));
    tokio::task::spawn_local(keep_time(shard.clone()));
    work(&shard, &mut jobs, &home).await;
    for connection in shard.connections.take() {
        if let Some(connection) = connection.upgrade() {
            connection.finish();
        }
    }
    // Lets the last answers out; a peer that does not take them has had its time.
    tokio::time::sleep(Duration::from_millis(20)).await;
    CURRENT.set(None);
}

/// Does jobs until the one that says to stop.
async fn work(shard: &Rc<Shard>, jobs: &mut Jobs, home: &Arc<Home>) {
    while let Some(first) = jobs.next().await {
        let (turn, mut taken) = (Instant::now(), 0_u32);
        let mut next = Some(first);
        while let Some(job) = next {
            if matches!(job, Job::Stop) {
                return;
            }
            shard.take(job, home);
            taken += 1;
            if taken.is_multiple_of(JOBS_A_LOOK) && turn.elapsed() > TURN {
                // Connections have their turn.
                tokio::task::yield_now().await;
                break;
            }
            next = jobs.next_now();
        }
    }
}

async fn keep_time(shard: Rc<Shard>) {
    loop {
        let rearmed = shard.rearmed.notified();
        match shard.timeout.get() {
            None => rearmed.await,
            Some(at) => {
                let left = at.remaining(shard.now());
                tokio::select! {
                    () = rearmed => {}
                    () = tokio::time::sleep(left) => shard.time_out(),
                }
            }
        }
    }
}

impl Shard {
    fn take(self: &Rc<Self>, job: Job, home: &Arc<Home>) {
        match job {
            Job::Call(incoming) => {
                self.handle.call_taken();
                if !incoming.is_late() {
                    self.invoke(*incoming);
                }
            }
            Job::Cancel(called) => self.give_up_call(called),
            Job::Connection {
                stream,
                connection,
                seat,
            } => self.connect(stream, connection, seat, home),
            Job::Foreign { stream, address } => self.connect_foreign(stream, address, home),
            Job::Flushed { ticket, result } => self.flushed(ticket, result),
            // Whoever asked may be gone by the time of the answer.
            Job::Initiate {
                object,
                class,
                caller,
                answer,
            } => {
                let noted = caller == self.registry.me || home.has_session(caller);
                let _ = answer.send(self.initiate(object, class, noted.then_some(caller)));
            }
            Job::Terminate { object, caller } => self.terminate(object, caller),
            Job::PeerGone { caller, .. } => self.caller_gone(caller),
            Job::Serve { object, class } => {
                self.catalog.borrow_mut().serve(object, class);
                self.feed(Input::Serve { uid: object });
            }
            Job::Retire { object } => {
                self.feed(Input::Retire { uid: object });
                drop(self.catalog.borrow_mut().retire(object));
            }
            Job::Evict { object } => self.feed(Input::Evict { uid: object }),
            Job::Inspect { object, answer } => drop(answer.send(self.inspect(object))),
            Job::Active { objects, answer } => drop(answer.send(self.active_among(objects))),
            Job::Report { answer } => drop(answer.send(self.report())),
            Job::Look(look) => look.take(self),
            Job::Acknowledge {
                action,
                to,
                from,
                decider,
            } => self.acknowledge(action, to, from, decider),
            Job::Recover(inputs) => inputs.into_iter().for_each(|input| {
                self.note_recovered(&input);
                self.feed(input);
            }),
            Job::Message { from, message } => {
                self.handle.message_taken();
                self.heard(from, message);
            }
            Job::Request(request) => {
                self.handle.message_taken();
                self.requested(*request);
            }
            Job::Reached { action, to } => self.feed(Input::Reached { action, to }),
            Job::GoesOut(out) => self.goes_out(out),
            Job::Stored { job, work, result } => self.stored(job, work, result),
            Job::Group(job) => self.group_job(job),
            Job::GiveUp => self.give_up_actions(),
            Job::Drain { done } => self.begin_drain(done),
            #[cfg(feature = "testkit")]
            Job::Pause(pause) => pause.stand(),
            Job::Stop => {}
        }
    }

    /// Runs a task on this thread, whichever of its tasks asks for that: those of connections that
    /// a client has opened are not among the shard's own.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        if let Some(local) = self.local.upgrade() {
            local.spawn_local(task);
        }
    }

    fn begin_drain(self: &Rc<Self>, done: oneshot::Sender<()>) {
        for connection in self.connections.borrow().iter().filter_map(Weak::upgrade) {
            connection.send_short(&Frame::Goodbye);
        }
        self.drained.replace(Some(done));
        self.hand_over_groups();
        self.feed(Input::Drain);
    }

    fn connect(
        self: &Rc<Self>,
        stream: std::net::TcpStream,
        connection: Arc<Connection>,
        seat: Seat,
        home: &Arc<Home>,
    ) {
        let links = &self.registry.links;
        let (me, peer) = (self.registry.me, connection.peer());
        let stream = TcpStream::from_std(stream);
        let stream = match stream.and_then(|stream| links.accepted(stream, me, peer)) {
            Ok(stream) => stream,
            Err(error) => {
                let peer = connection.peer_text();
                tracing::warn!(%peer, %error, "an accepted connection was lost");
                return;
            }
        };
        self.note_connection(&connection);
        if home.is_draining() {
            // It was accepted just before, and not heard of when the others were told.
            connection.send_short(&Frame::Goodbye);
        }
        let inbound = ShardInbound::new(self.clone(), home.clone(), seat);
        let (reader, writer) = Links::split(stream, &connection);
        tokio::task::spawn_local(run(reader, writer, connection, inbound));
    }

    fn note_connection(&self, connection: &Arc<Connection>) {
        let mut connections = self.connections.borrow_mut();
        // Each that is over is found by the time that so many more have come.
        if connections.len() == connections.capacity() {
            connections.retain(|connection| connection.strong_count() > 0);
            let open = connections.len();
            connections.reserve(open.max(64));
            let mut nodes = self.nodes.borrow_mut();
            nodes.retain(|_, connection| connection.strong_count() > 0);
        }
        if connection.hello().shards > 0 {
            let node = connection.peer().node;
            let mut nodes = self.nodes.borrow_mut();
            nodes.insert(node, Arc::downgrade(connection));
        }
        connections.push(Arc::downgrade(connection));
    }
}
