//! A node: a process that serves objects.

#[cfg(feature = "testkit")]
mod crash;
mod elsewhere;
mod embedded;
mod groups;
mod home;
mod labels;
mod memory;
mod moving;
mod sessions;
mod walks;

pub(crate) use home::Home;
pub(crate) use sessions::{Ending, ForeignLink, LinkView, Seat, SessionView};
pub(crate) use walks::reply_keep_ms;

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use partha_core::id::{ClassId, Peer, Uid};
use partha_core::{Limits, Ticket};
use partha_store::{ObjectStore, Usage as StoreUsage};
use partha_wire::Writer;
use tokio::sync::oneshot;

use crate::abi::{Class, ClassInfo};
use crate::action::{Ground, Serving};
use crate::client::Client;
use crate::context::{Asked, Context};
use crate::elsewhere::{Elsewhere, Watch};
use crate::error::{ErrorKind, Result, SystemError};
use crate::hash::IdMap;
use crate::manager::Manager;
use crate::net::accept::Acceptor;
use crate::net::links::Links;
use crate::recovery::Recovered;
use crate::registration::{self, Registration};
use crate::rows::Rows;
use crate::services::Naming;
use crate::services::binder::Label;
use crate::services::naming::NameService;
use crate::shard::{GroupJob, Job, Jobs, Registry, ShardHandle, Start, spawn};
use crate::wire::context::TraceId;

/// How long it may take to abort what is left of actions when the node stops.
const GIVE_UP: Duration = Duration::from_secs(1);

/// How a node is to be.
#[derive(Debug)]
pub struct NodeBuilder {
    name: String,
    /// None: the store is in memory.
    data_dir: Option<PathBuf>,
    listen: Option<String>,
    advertise: Vec<String>,
    labels: Vec<Label>,
    naming: Option<String>,
    shards: Option<u16>,
    classes: Vec<Class>,
    limits: Limits,
    memory: memory::Memory,
    well_known: Option<WellKnown>,
    elsewhere: elsewhere::Wishes,
    /// Heartbeat and lease, where they are not the usual ones.
    lease: Option<(Duration, Duration)>,
    /// A naming service is known, though not by its address.
    names: bool,
    links: Links,
}

/// An object whose identity is known beforehand.
#[derive(Debug)]
struct WellKnown {
    uid: Uid,
    class: ClassId,
    arguments: Writer,
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    home: Arc<Home>,
    client: Client,
    /// None if it is embedded.
    address: Option<SocketAddr>,
    threads: Vec<JoinHandle<()>>,
    /// None if it is embedded, or not started yet.
    acceptor: Option<Acceptor>,
    registration: Option<Registration>,
    /// Tells the binder of objects that have come.
    telling: Option<tokio::task::JoinHandle<()>>,
    watch: Option<Watch>,
}

impl Node {
    /// Begins a node.
    #[must_use]
    pub fn builder() -> NodeBuilder {
        NodeBuilder {
            name: "node".to_owned(),
            data_dir: Some(PathBuf::from("data")),
            listen: None,
            advertise: Vec::new(),
            labels: Vec::new(),
            naming: None,
            shards: None,
            classes: Vec::new(),
            limits: Limits::default(),
            memory: memory::Memory::default(),
            well_known: None,
            elsewhere: elsewhere::Wishes::default(),
            lease: None,
            names: false,
            links: Links::default(),
        }
    }

    /// Where it listens.
    ///
    /// # Panics
    /// If it is embedded, and so listens nowhere: ask [`Node::listens_at`] where it may be.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        let address = self.address;
        address.expect("an embedded node has no address: `Node::listens_at` says so")
    }

    /// Who it is, in which life.
    #[must_use]
    pub fn me(&self) -> Peer {
        self.home.me
    }

    /// What its store has done since the node was started, for tests and measurements: how often
    /// it was synced, and for what.
    #[must_use]
    pub fn store_usage(&self) -> StoreUsage {
        let store = self.home.registry.store.as_ref();
        store.map(|store| store.usage()).unwrap_or_default()
    }

    /// A client in the node's name, for any tokio runtime of the process.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Waits until the binder knows the node; at once if it has no naming service.
    pub async fn registered(&self) {
        if let Some(registration) = &self.registration {
            registration.done().await;
        }
    }

    /// Takes an object out of memory if nothing uses it; its next call brings it back.
    pub fn evict(&self, object: Uid) {
        self.home.shard(object).post(Job::Evict { object });
    }

    /// Stops in good order: takes no new calls, lets those that run, and actions that are under
    /// way here, finish within `patience`, signs off at the binder, waits some seconds until other
    /// copies lead where its own do, closes the store.
    ///
    /// Actions that have not asked for their commit by then are aborted. What is prepared stays
    /// in the store until the node is started again and hears from its coordinator.
    ///
    /// # Errors
    /// `Deadline` if calls were still running; they are cut off then. What was acknowledged is
    /// on disk in any case.
    pub async fn shutdown(mut self, patience: Duration) -> Result<()> {
        if let Some(registration) = self.registration.take() {
            registration.leave(&self.client).await;
        }
        self.home.draining.store(true, Ordering::Relaxed);
        let mut waiting = Vec::new();
        for shard in &self.home.shards {
            let (done, drained) = oneshot::channel();
            shard.post(Job::Drain { done });
            waiting.push(drained);
        }
        let all = async {
            for drained in waiting {
                // A shard that has ended has nothing left to drain.
                let _ = drained.await;
            }
        };
        tokio::pin!(all);
        let mut in_time = tokio::time::timeout(patience, &mut all).await.is_ok();
        if !in_time {
            for shard in &self.home.shards {
                shard.post(Job::GiveUp);
            }
            in_time = tokio::time::timeout(GIVE_UP, all).await.is_ok();
        }
        groups::handed_over(&self.home).await;
        self.close().await?;
        if in_time {
            return Ok(());
        }
        let detail = format!("calls were still running after {patience:?}");
        Err(SystemError::new(ErrorKind::Deadline, detail))
    }

    /// Ends the threads, and what they have open, and waits for that.
    async fn close(&mut self) -> Result<()> {
        self.stop();
        drop(self.watch.take());
        let threads = std::mem::take(&mut self.threads);
        let store = self.home.registry.store.clone();
        let closing = tokio::task::spawn_blocking(move || {
            for thread in threads {
                if thread.join().is_err() {
                    tracing::error!("a thread of the node had panicked");
                }
            }
            if let Some(store) = store {
                store.close();
            }
        });
        let panicked = |_| SystemError::new(ErrorKind::Internal, "closing the store panicked");
        closing.await.map_err(panicked)
    }

    /// Tells the shards and the server processes to end.
    fn stop(&self) {
        if let Some(telling) = &self.telling {
            telling.abort();
        }
        if let Some(acceptor) = &self.acceptor {
            acceptor.stop();
        }
        for shard in &self.home.shards {
            shard.post(Job::Stop);
        }
        self.home.registry.elsewhere.servers.end();
    }
}

impl Drop for Node {
    /// Without [`Node::shutdown`] the shards stop where they are, as in a crash.
    fn drop(&mut self) {
        self.stop();
    }
}

impl NodeBuilder {
    /// Its name for people; unique in a system, by custom.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The folder of its store; made if absent. The node's identity lives there.
    #[must_use]
    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(dir.into());
        self
    }

    /// Where to listen, `host:port`; port 0 takes a free one. A free port of 127.0.0.1 if not
    /// said.
    #[must_use]
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.listen = Some(address.into());
        self
    }

    /// The address others are to use, where it differs from the one listened at.
    #[must_use]
    pub fn advertise(mut self, address: impl Into<String>) -> Self {
        self.advertise.push(address.into());
        self
    }

    /// Where the naming service listens; without one the node is known to nobody.
    #[must_use]
    pub fn naming(mut self, address: impl Into<String>) -> Self {
        self.naming = Some(address.into());
        self
    }

    /// How many shards, that is threads; as many as cores if not said.
    #[must_use]
    pub fn shards(mut self, shards: u16) -> Self {
        self.shards = Some(shards.clamp(1, 1024));
        self
    }

    /// A class it can run, with its servant: `bank::account::class(MyServant)`.
    #[must_use]
    pub fn class(mut self, class: Class) -> Self {
        self.classes.push(class);
        self
    }

    /// Bounds of each shard: idle time, memory, queues. Memory of the whole node is bounded by
    /// [`NodeBuilder::memory_max`] and [`NodeBuilder::active_objects_max`], which come before.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// An object that must exist, under an identity known beforehand; made if it does not. The
    /// node that has [`Uid::NAMING_ROOT`] is the naming service, for itself too.
    #[must_use]
    pub fn well_known(mut self, uid: Uid, info: &'static ClassInfo, arguments: Writer) -> Self {
        self.well_known = Some(WellKnown {
            uid,
            class: info.id,
            arguments,
        });
        self
    }

    /// Opens the store, starts the shards, listens. It goes on to register with the binder in
    /// the background, for as long as that takes: see [`Node::registered`].
    ///
    /// In a process that a node has started to run servants in, this does not return: see
    /// [`NodeBuilder::class_with`].
    ///
    /// # Errors
    /// `Store` if the store cannot be opened, `Unreachable` if the address cannot be listened at.
    /// Whatever the error, nothing of the node goes on: it may be started again at once.
    pub async fn start(mut self) -> Result<Node> {
        self.serve_if_child().await?;
        self.check()?;
        let elsewhere = self.elsewhere()?;
        let labels = self.checked_labels()?;
        let store = embedded::open(self.data_dir.clone()).await?;
        let recovered = Recovered::read(&*store)?;
        let (listener, address) = self.listener()?.unzip();
        let me = store.identity();
        let known = self.well_known.as_ref().map(|known| known.uid);
        let classes = std::mem::take(&mut self.classes);
        let mut registry = registry(me, self.name.clone(), classes, Some(store), known);
        registry.limits = self.memory.shared(self.limits, self.shard_count());
        registry.coming = Arc::new(self.memory.coming());
        registry.elsewhere = elsewhere;
        registry.links = self.links.clone();
        registry.labels = labels;
        let (mut node, jobs) = self.at_rest(Arc::new(registry), &recovered, address);
        // From here on there is somebody to end what was begun.
        match self.set_going(&mut node, jobs, &recovered, listener).await {
            Ok(()) => Ok(node),
            Err(error) => {
                if let Err(error) = node.close().await {
                    tracing::error!(%error, "a node that could not be started was not ended well");
                }
                Err(error)
            }
        }
    }

    fn shard_count(&self) -> u16 {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get().min(1024) as u16);
        self.shards.unwrap_or(cores)
    }

    /// The node before any of its threads runs, and what its shards are to be told by.
    fn at_rest(
        &self,
        registry: Arc<Registry>,
        recovered: &Recovered,
        address: Option<SocketAddr>,
    ) -> (Node, Vec<Jobs>) {
        let count = self.shard_count();
        let (handles, jobs): (Vec<_>, Vec<_>) = (0..count).map(ShardHandle::new).unzip();
        let home = Home::new(registry, handles, recovered.shards(count));
        let client = self.client_of(&home, 0);
        let node = Node {
            home,
            client,
            address,
            threads: Vec::new(),
            acceptor: None,
            registration: None,
            telling: None,
            watch: None,
        };
        (node, jobs)
    }

    /// A client in the node's name.
    fn client_of(&self, home: &Arc<Home>, index: u16) -> Client {
        let registry = &home.registry;
        let elsewhere = self.naming.clone();
        let names = self.names || registry.well_known == Some(Uid::NAMING_ROOT);
        let naming = (names || elsewhere.is_some()).then(|| Naming::new(elsewhere));
        let (links, home) = (self.links.clone(), Some(home.clone()));
        Client::of_process(registry.me, &self.name, naming, links, index, home)
    }

    /// Starts all that runs.
    async fn set_going(
        mut self,
        node: &mut Node,
        jobs: Vec<Jobs>,
        recovered: &Recovered,
        listener: Option<std::net::TcpListener>,
    ) -> Result<()> {
        self.start_shards(node, jobs, recovered, listener)?;
        let (home, client) = (node.home.clone(), node.client.clone());
        node.watch = Some(self.start_watching(&home, &client, node.address, &mut node.threads)?);
        if let Some(known) = self.well_known.take() {
            let uid = known.uid;
            make_well_known(&home, &client, known).await?;
            if uid == Uid::NAMING_ROOT {
                NameService::from_uid(uid).prepare(&client).await?;
            }
        }
        let advertise = match self.advertise.is_empty() {
            true => node.address.iter().map(SocketAddr::to_string).collect(),
            false => self.advertise,
        };
        let naming = self.naming.as_ref();
        node.telling = naming.map(|_| moving::start(client.clone(), home.clone()));
        node.registration = naming.map(|_| registration::start(client, home, advertise));
        Ok(())
    }

    fn start_shards(
        &self,
        node: &mut Node,
        jobs: Vec<Jobs>,
        recovered: &Recovered,
        listener: Option<std::net::TcpListener>,
    ) -> Result<()> {
        let home = &node.home;
        let mut inputs = recovered.inputs(home.shards.len() as u16);
        let mut groups = groups::stored(home)?;
        for (handle, jobs) in home.shards.iter().cloned().zip(jobs) {
            let client = self.client_of(home, handle.index() + 1);
            let (registry, home) = (home.registry.clone(), home.clone());
            let (object, class) = (home.manager(), Manager::class(home.clone()));
            handle.post(Job::Serve { object, class });
            let inputs = std::mem::take(&mut inputs[usize::from(handle.index())]);
            handle.post(Job::Recover(inputs));
            for group in std::mem::take(&mut groups[usize::from(handle.index())]) {
                handle.post(Job::Group(GroupJob::Open(Box::new(group))));
            }
            let start = Start {
                handle,
                jobs,
                registry,
                home,
                client,
            };
            let thread = spawn(start).map_err(|error| thread_error(&error))?;
            node.threads.push(thread);
        }
        if let Some(listener) = listener {
            let started = Acceptor::start(listener, home.clone());
            let (acceptor, thread) = started.map_err(|error| thread_error(&error))?;
            node.acceptor = Some(acceptor);
            node.threads.push(thread);
        }
        Ok(())
    }
}

async fn make_well_known(home: &Home, client: &Client, known: WellKnown) -> Result<()> {
    let store = home.registry.store.as_ref();
    let stored = store.and_then(|store| store.read_state(known.uid).transpose());
    match stored {
        Some(Ok(_)) => return Ok(()),
        Some(Err(error)) => return Err(SystemError::new(ErrorKind::Store, error.to_string())),
        None => {}
    }
    let (arguments, _) = known.arguments.finish()?;
    let ground = Arc::new(Ground {
        client: client.clone(),
        shard: home.shards[0].clone(),
    });
    let serving = Serving {
        ground,
        object: home.manager(),
        ticket: Ticket(0),
        deadline: Instant::now() + crate::config::CALL_DEADLINE,
        trace: TraceId::default(),
        within: None,
        cohort: false,
    };
    let asked = Asked {
        caller: home.me,
        call: None,
        foreign: false,
    };
    let cx = Context::new(serving, asked, Rows::new(None, known.uid, false));
    home.make(Some(known.uid), known.class, &Bytes::from(arguments), &cx)
        .await
        .map(drop)
}

fn listen_at(address: &str) -> Result<std::net::TcpListener> {
    let failed = |error: std::io::Error| {
        SystemError::new(
            ErrorKind::Unreachable,
            format!("cannot listen at {address}: {error}"),
        )
    };
    let mut last = std::io::ErrorKind::AddrNotAvailable.into();
    for candidate in address.to_socket_addrs().map_err(failed)? {
        match crate::net::listen_at(candidate) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(failed(last))
}

fn registry(
    me: Peer,
    name: String,
    classes: Vec<Class>,
    store: Option<Arc<dyn ObjectStore>>,
    well_known: Option<Uid>,
) -> Registry {
    let mut methods = IdMap::default();
    let manager = &crate::system::connection_manager::INFO;
    for info in classes.iter().map(Class::info).chain([manager]) {
        for method in info.methods {
            methods.insert((method.interface, method.ordinal), method);
        }
    }
    let classes = classes
        .into_iter()
        .map(|class| (class.info().id, class))
        .collect();
    let (limits, elsewhere, links) = (Limits::default(), Elsewhere::default(), Links::default());
    Registry {
        me,
        name,
        labels: Vec::new(),
        classes,
        methods,
        store,
        limits,
        coming: Arc::default(),
        links,
        well_known,
        elsewhere,
    }
}

fn thread_error(error: &std::io::Error) -> SystemError {
    SystemError::new(
        ErrorKind::Internal,
        format!("cannot start a thread: {error}"),
    )
}
