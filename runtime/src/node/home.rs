//! What all threads of a process that runs objects share.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::time::Instant;

use partha_core::id::{NodeId, Peer, Uid};
use partha_store::Place as Whereabouts;
use tokio::sync::Notify;

use super::sessions::Sessions;
use super::walks::Walks;
use super::{registry, thread_error};
use crate::abi::{Class, ClassInfo};
use crate::capability::Capability;
use crate::client::WeakClient;
use crate::error::{ErrorKind, Result, SystemError};
use crate::hash::shard_of;
use crate::moved::Moved;
use crate::net::connection::lock;
use crate::recovery::Parts;
use crate::reference::Place;
use crate::services::Nodes;
use crate::services::binder::Label;
use crate::shard::{Job, Registry, ShardHandle, Start, spawn};

/// Uid counters below this are for objects every node has.
const FIRST_COUNTER: u64 = 16;

/// What a process that runs objects is made of, as its threads see it.
pub(crate) struct Home {
    pub(crate) me: Peer,
    pub(crate) shards: Vec<ShardHandle>,
    pub(crate) registry: Arc<Registry>,
    next_counter: AtomicU64,
    next_shard: AtomicU16,
    pub(crate) started: Instant,
    /// Who is connected.
    pub(super) sessions: Sessions,
    /// What is known of other nodes.
    pub(crate) nodes: Arc<Nodes>,
    /// No new connections are accepted.
    pub(super) draining: AtomicBool,
    /// Actions that were prepared when the node started, and the shards that have a part.
    pub(crate) recovered: HashMap<Uid, Parts>,
    /// An object has come of which the binder is to be told.
    pub(crate) untold: Notify,
    /// Searches for saved replies.
    pub(super) walks: Walks,
}

impl Home {
    pub(super) fn new(
        registry: Arc<Registry>,
        shards: Vec<ShardHandle>,
        recovered: HashMap<Uid, Parts>,
    ) -> Arc<Self> {
        Arc::new(Self {
            me: registry.me,
            shards,
            registry,
            next_counter: AtomicU64::new(FIRST_COUNTER),
            next_shard: AtomicU16::new(0),
            started: Instant::now(),
            sessions: Sessions::default(),
            nodes: Arc::default(),
            draining: AtomicBool::new(false),
            recovered,
            untold: Notify::new(),
            walks: Walks::default(),
        })
    }

    /// The home of a client's call-backs: one shard, no store, no listener.
    pub(crate) fn for_client(me: Peer, client: WeakClient) -> Result<Arc<Self>> {
        let registry = Arc::new(registry(me, "client".to_owned(), Vec::new(), None, None));
        let (handle, jobs) = ShardHandle::new(0);
        let home = Self::new(registry.clone(), vec![handle.clone()], HashMap::new());
        let client = client.upgrade().ok_or_else(|| {
            SystemError::new(ErrorKind::Internal, "the client is gone while it is used")
        })?;
        let start = Start {
            handle,
            jobs,
            registry,
            home: home.clone(),
            client,
        };
        // The thread ends with the last client that somebody outside has: see `client_gone`.
        spawn(start).map_err(|error| thread_error(&error))?;
        Ok(home)
    }

    /// Nobody uses the client any more that this home was made for; nothing happens to a node's.
    pub(crate) fn client_gone(&self) {
        if self.registry.store.is_none() {
            for shard in &self.shards {
                shard.post(Job::Stop);
            }
        }
    }

    /// The shard of an object.
    pub(crate) fn shard(&self, object: Uid) -> &ShardHandle {
        &self.shards[shard_of(object, self.shards.len() as u16) as usize]
    }

    /// The shard that can tell of an object, for those who believe that it is here.
    pub(crate) fn shard_asked_for(&self, object: Uid) -> Option<ShardHandle> {
        let could_be = self.registry.store.is_some() || self.is_of_here(object);
        could_be.then(|| self.shard(object).clone())
    }

    /// Whether an object was made by this process, in whichever life.
    fn is_of_here(&self, object: Uid) -> bool {
        object.node == self.me.node || self.registry.well_known == Some(object)
    }

    /// The shard of an object, if it is one of this process now; where it went, if that is known.
    pub(crate) fn shard_of_own(&self, object: Uid) -> (Option<ShardHandle>, Option<Moved>) {
        let place = self
            .registry
            .store
            .as_ref()
            .map(|store| store.read_place(object));
        let (is_here, moved) = match place {
            Some(Ok(Some(Whereabouts::Here { .. }))) => (true, None),
            Some(Ok(Some(Whereabouts::Gone { to, moves }))) => {
                let addresses = self.addresses(to);
                let moved = Moved {
                    node: to,
                    addresses,
                    moves,
                };
                (false, Some(moved))
            }
            // A store that cannot tell says so to whoever calls.
            Some(Ok(None) | Err(_)) | None => (self.is_of_here(object), None),
        };
        (is_here.then(|| self.shard(object).clone()), moved)
    }

    /// Where a node listens, as far as this process knows.
    pub(crate) fn addresses(&self, node: NodeId) -> Vec<String> {
        let nodes = lock(&self.nodes);
        nodes
            .get(&node)
            .map_or_else(Vec::new, |node| node.addresses.clone())
    }

    /// The connection manager's identity.
    pub(crate) fn manager(&self) -> Uid {
        Uid::connection_manager(self.me.node)
    }

    /// The connection manager, for objects of this process.
    pub(crate) fn manager_capability(&self) -> Capability {
        let class = crate::system::connection_manager::CLASS;
        Capability::object_here(self.shards[0].clone(), self.manager(), class)
    }

    /// Whether a new object of the class is to be made by this very process.
    pub(crate) fn is_place(&self, place: &Place, info: &ClassInfo) -> bool {
        let here = match place {
            // Who reaches no other node has no choice.
            Place::Any => self.registry.links.embedded,
            Place::Labelled(name, value) => {
                let mut labels = self.registry.labels.iter();
                let fits = |label: &Label| label.name == *name && label.value == *value;
                self.registry.links.embedded && labels.any(fits)
            }
            Place::Named(name) => *name == self.registry.name,
            Place::Node(node) => *node == self.me.node,
            Place::Beside(uid) => uid.node == self.me.node,
            Place::Replicated(place, _) => return self.is_place(place, info),
        };
        here && self.registry.store.is_some() && self.registry.classes.contains_key(&info.id)
    }

    /// An identity that no object has.
    pub(crate) fn new_uid(&self) -> Result<Uid> {
        let counter = self.next_counter.fetch_add(1, Ordering::Relaxed);
        if counter > Uid::COUNTER_MAX {
            let detail = "this life of the node has used up its uids; restart it";
            return Err(SystemError::new(ErrorKind::Overloaded, detail));
        }
        Ok(Uid::new(self.me.node, self.me.incarnation, counter))
    }

    /// Starts a transient object.
    pub(crate) fn serve(&self, class: Class) -> Result<(ShardHandle, Uid)> {
        let object = self.new_uid()?;
        let shard = self.shard(object).clone();
        shard.post(Job::Serve { object, class });
        Ok((shard, object))
    }

    /// Shards in turn.
    pub(crate) fn next_shard(&self) -> u16 {
        self.next_shard.fetch_add(1, Ordering::Relaxed) % self.shards.len() as u16
    }

    /// Why no further connection is to be accepted, if so.
    pub(crate) fn is_closed_to_new(&self) -> Option<SystemError> {
        self.is_draining().then(|| {
            let detail = format!("{} is shutting down", self.registry.here());
            SystemError::new(ErrorKind::Draining, detail)
        })
    }

    /// Whether the node takes no new calls.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

impl std::fmt::Debug for Home {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Home({}, {} shards)", self.me, self.shards.len())
    }
}
