//! A process's way to objects: bindings, connections, and the services that find things.

mod builder;
mod copies;
mod identity;
mod moving;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use partha_core::id::{CallId, ClassId, NodeId, Peer, Uid};

use crate::binding::{Binding, shard_at};
use crate::caller::{CallOptions, Caller};
use crate::error::{ErrorKind, Result, SystemError};
use crate::net::actions::Lines;
use crate::net::connection::{Connection, lock};
use crate::net::handshake::ANY_SHARD;
use crate::net::links::Links;
use crate::net::pool::Pool;
use crate::node::Home;
use crate::services::binder::Label;
use crate::services::{Locator, Naming};
use crate::shard::ShardHandle;

pub use builder::ClientBuilder;
pub use copies::Copies;

use identity::Identity;

/// A handle to the distributed system, for a process of any kind; cheap to clone.
///
/// It works from any tokio runtime. A node's own objects get theirs from the
/// [`crate::Context`].
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
    /// None for the client that the process's own objects use, which must not keep them running.
    _user: Option<Arc<User>>,
}

/// Somebody outside uses the client. When nobody does any more, what was started for its
/// call-backs ends.
struct User {
    inner: Weak<Inner>,
}

struct Inner {
    id: u64,
    me: Peer,
    /// Upper bits of the call sequence, different for each client of one process.
    sequence_base: u64,
    sequence: AtomicU64,
    bindings: Mutex<Bindings>,
    pool: Pool,
    naming: Option<Naming>,
    locator: Locator,
    /// To shards of other nodes, for what is said about actions.
    lines: Lines,
    home: OnceLock<Arc<Home>>,
    /// Held by who starts the home.
    starting: Mutex<()>,
    /// What is true of where the process runs, if it is no node.
    labels: Vec<Label>,
    /// Nobody else may be who this client is while somebody outside uses it.
    identity: Mutex<Option<Identity>>,
}

/// Bindings in use, by object and class; dead entries are swept when the table has doubled.
#[derive(Default)]
struct Bindings {
    table: HashMap<(Uid, ClassId), Weak<Binding>>,
    sweep_at: usize,
}

impl Client {
    /// A client of the system whose naming service listens at `naming` (`host:port`).
    ///
    /// # Errors
    /// `Unreachable` if nobody answers there, `VersionMismatch` if it is not one of ours.
    pub async fn connect(naming: impl Into<String>) -> Result<Self> {
        Self::builder().naming(naming).connect().await
    }

    /// A client with wishes: an identity that outlives it, a name.
    #[must_use]
    pub fn builder() -> ClientBuilder {
        ClientBuilder::new()
    }

    /// A client as [`Client::connect`] makes, that opens no connection before it needs one.
    ///
    /// # Errors
    /// If the system gives no random numbers.
    pub fn new(naming: impl Into<String>) -> Result<Self> {
        Self::builder().naming(naming).build()
    }

    /// A client of a system without a naming service: it knows only the nodes it is introduced
    /// to, see [`Locator::introduce`].
    ///
    /// # Errors
    /// If the system gives no random numbers.
    pub fn alone() -> Result<Self> {
        Self::builder().build()
    }

    pub(crate) fn of_process(
        me: Peer,
        name: &str,
        naming: Option<Naming>,
        links: Links,
        index: u16,
        home: Option<Arc<Home>>,
    ) -> Self {
        let own = (None, Vec::new());
        Self::of(me, name, naming, links, (index, home), own)
    }

    fn of(
        me: Peer,
        name: &str,
        naming: Option<Naming>,
        links: Links,
        (index, home): (u16, Option<Arc<Home>>),
        (identity, labels): (Option<Identity>, Vec<Label>),
    ) -> Self {
        static IDS: AtomicU64 = AtomicU64::new(1);
        let nodes = home.as_ref().map(|home| home.nodes.clone());
        let nodes = nodes.unwrap_or_default();
        let inner = Arc::new_cyclic(|weak: &Weak<Inner>| Inner {
            id: IDS.fetch_add(1, Ordering::Relaxed),
            me,
            sequence_base: u64::from(index) << 48,
            sequence: AtomicU64::new(1),
            bindings: Mutex::default(),
            pool: Pool::new(
                me,
                name.to_owned(),
                links,
                WeakClient {
                    inner: weak.clone(),
                },
            ),
            naming,
            locator: Locator::sharing(nodes),
            lines: Lines::default(),
            home: home.map_or_else(OnceLock::new, OnceLock::from),
            starting: Mutex::new(()),
            labels,
            identity: Mutex::new(identity),
        });
        let user = User {
            inner: Arc::downgrade(&inner),
        };
        let _user = Some(Arc::new(user));
        Self { inner, _user }
    }

    /// This process, as its peers know it.
    #[must_use]
    pub fn me(&self) -> Peer {
        self.inner.me
    }

    /// A name for a call that is to be asked for again if its answer gets lost: make it, keep
    /// it, call with [`CallOptions::id`], ask again with [`CallOptions::again`].
    #[must_use]
    pub fn new_call_id(&self) -> CallId {
        let count = self.inner.sequence.fetch_add(1, Ordering::Relaxed);
        CallId {
            caller: self.inner.me,
            sequence: self.inner.sequence_base | count,
        }
    }

    /// A caller with wishes: a deadline, a call id.
    #[must_use]
    pub fn call(&self) -> CallOptions {
        CallOptions::new(self.scope())
    }

    /// The naming service.
    ///
    /// # Errors
    /// `NameNotFound` if the process was given no address of it.
    pub fn naming(&self) -> Result<&Naming> {
        self.inner.naming.as_ref().ok_or_else(|| {
            let detail = "this process was given no naming service; pass its address";
            SystemError::new(ErrorKind::NameNotFound, detail)
        })
    }

    /// Where the naming service listens, and so the way to the binder.
    ///
    /// # Errors
    /// `NameNotFound` if there is none, or none that has an address: then nodes are known only
    /// by being introduced.
    pub(crate) fn naming_address(&self) -> Result<&str> {
        self.naming()?.address().ok_or_else(|| {
            let detail = "the naming service of this process has no address, so that no binder is \
                          found by it; pass its address";
            SystemError::new(ErrorKind::NameNotFound, detail)
        })
    }

    /// The nodes of the system and what is known of them.
    #[must_use]
    pub fn locator(&self) -> &Locator {
        &self.inner.locator
    }

    /// A connection to whoever listens at an address, for questions about that node.
    ///
    /// # Errors
    /// `Unreachable`, `VersionMismatch`.
    pub async fn node_at(&self, address: &str) -> Result<crate::manager::NodeHandle> {
        let connection = self.inner.pool.by_address(address, ANY_SHARD).await?;
        Ok(crate::manager::NodeHandle::new(connection))
    }

    /// The same, answered by one of the node's shards: if a servant keeps the thread of one from
    /// all others, another can tell. Whichever shard there is answers if that one does not exist.
    ///
    /// # Errors
    /// `Unreachable`, `VersionMismatch`.
    pub async fn node_at_shard(
        &self,
        address: &str,
        shard: u16,
    ) -> Result<crate::manager::NodeHandle> {
        let connection = self.inner.pool.by_address(address, shard).await?;
        Ok(crate::manager::NodeHandle::new(connection))
    }

    pub(crate) fn id(&self) -> u64 {
        self.inner.id
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.inner.pool
    }

    pub(crate) fn lines(&self) -> &Lines {
        &self.inner.lines
    }

    pub(crate) fn binding(&self, object: Uid, class: ClassId) -> Arc<Binding> {
        let mut bindings = lock(&self.inner.bindings);
        if let Some(binding) = bindings.table.get(&(object, class)).and_then(Weak::upgrade) {
            return binding;
        }
        if bindings.table.len() >= bindings.sweep_at {
            bindings
                .table
                .retain(|_, binding| binding.strong_count() > 0);
            bindings.sweep_at = 2 * bindings.table.len().max(512);
        }
        let binding = Arc::new(Binding::new(self.inner.id, object, class));
        bindings
            .table
            .insert((object, class), Arc::downgrade(&binding));
        binding
    }

    /// The shard of this process that has the object, if this process is its node now.
    pub(crate) fn local_shard(&self, object: Uid) -> Option<ShardHandle> {
        let home = self.inner.home.get()?;
        let (shard, moved) = home.shard_of_own(object);
        let whereabouts = self.inner.locator.moved();
        if let Some(moved) = moved {
            whereabouts.note(object, &moved);
        }
        shard.or_else(|| {
            // It is coming, as the node says that it has left: its calls wait for that.
            let known = whereabouts.of(object)?;
            let is_coming = known.node == self.inner.me.node;
            is_coming.then(|| home.shard(object).clone())
        })
    }

    /// The shard of this process that a peer's call of the object is for, if it may be here.
    pub(crate) fn shard_asked_for(&self, object: Uid) -> Option<ShardHandle> {
        self.inner.home.get()?.shard_asked_for(object)
    }

    /// Where this process runs transient objects; started with the first one.
    pub(crate) fn home(&self) -> Result<Arc<Home>> {
        if let Some(home) = self.inner.home.get() {
            return Ok(home.clone());
        }
        // One at a time, since a home is a thread.
        let starting = lock(&self.inner.starting);
        if let Some(home) = self.inner.home.get() {
            return Ok(home.clone());
        }
        let home = Home::for_client(self.inner.me, self.downgrade())?;
        let home = self.inner.home.get_or_init(|| home).clone();
        drop(starting);
        Ok(home)
    }

    pub(crate) fn home_if_any(&self) -> Option<Arc<Home>> {
        self.inner.home.get().cloned()
    }

    /// What is true of where this process runs, by name.
    pub(crate) fn labels(&self) -> Vec<Label> {
        match self.inner.home.get().map(|home| &home.registry.labels) {
            Some(labels) if self.inner.labels.is_empty() => labels.clone(),
            Some(_) | None => self.inner.labels.clone(),
        }
    }

    /// Whether this process is a node, which others can reach, and not just a caller.
    pub(crate) fn is_node(&self) -> bool {
        let home = self.inner.home.get();
        home.is_some_and(|home| home.registry.store.is_some())
    }

    /// The largest message that its calls and servants may make.
    pub(crate) fn message_bytes_max(&self) -> usize {
        self.inner.pool.links().traffic.message_bytes_max
    }

    /// Whether this process makes no connections.
    pub(crate) fn is_embedded(&self) -> bool {
        self.inner.pool.links().embedded
    }

    /// A connection to the node, and there to the shard, that has the object.
    pub(crate) async fn connection_for(&self, object: Uid) -> Result<Arc<Connection>> {
        if self.is_embedded() {
            let detail = format!(
                "object {object} is not of this node, which is embedded: it has no sockets, and \
                 reaches no other"
            );
            // Not `Unreachable`: asking again would not help.
            return Err(SystemError::new(ErrorKind::NoSuchObject, detail));
        }
        if object == Uid::NAMING_ROOT
            && let Some(address) = self.naming()?.address()
        {
            let connection = self.inner.pool.by_address(address, ANY_SHARD).await;
            let what = "the naming service";
            let connection = connection.map_err(|error| error.context(what))?;
            return self.right_shard(object, address, connection).await;
        }
        self.inner.locator.connect(self, object).await
    }

    /// A connection to the object's shard at the node of `connection`.
    pub(crate) async fn right_shard(
        &self,
        object: Uid,
        address: &str,
        connection: Arc<Connection>,
    ) -> Result<Arc<Connection>> {
        let shard = shard_at(object, &connection);
        if connection.hello().shards <= 1 || connection.hello().shard == shard {
            return Ok(connection);
        }
        self.inner.pool.by_address(address, shard).await
    }

    pub(crate) fn downgrade(&self) -> WeakClient {
        WeakClient {
            inner: Arc::downgrade(&self.inner),
        }
    }
}

/// A client that may be gone.
#[derive(Clone)]
pub(crate) struct WeakClient {
    inner: Weak<Inner>,
}

impl WeakClient {
    pub(crate) fn upgrade(&self) -> Option<Client> {
        let inner = self.inner.upgrade()?;
        Some(Client { inner, _user: None })
    }
}

/// An identity nobody else has.
pub(crate) fn random_node() -> Result<NodeId> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| {
        let detail = format!("the system gives no random numbers: {error}");
        SystemError::new(ErrorKind::Internal, detail)
    })?;
    Ok(NodeId(u64::from_le_bytes(bytes).max(1)))
}

impl Drop for User {
    fn drop(&mut self) {
        let Some(inner) = self.inner.upgrade() else {
            return;
        };
        if let Some(home) = inner.home.get() {
            home.client_gone();
        }
        // The thread of its call-backs may need a moment to end. What it still says is refused
        // where the next life has been: two lives are told apart by their incarnation.
        drop(lock(&inner.identity).take());
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.inner.me)
    }
}

impl fmt::Debug for WeakClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WeakClient")
    }
}

/// How long a lookup that belongs to no call of the user's may take.
pub(crate) const LOOKUP_DEADLINE: Duration = Duration::from_secs(5);
