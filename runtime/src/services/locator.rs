//! Where objects are: the client's side of the binder.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use partha_core::id::{CallId, NodeId, Uid};
use tokio::sync::Semaphore;

use super::BINDER_NAME;
use super::binder::{Binder, Location, NodeEntry};
use super::whereabouts::Whereabouts;
use crate::abi::ClassInfo;
use crate::client::{Client, LOOKUP_DEADLINE};
use crate::create::fits;
use crate::error::{ErrorKind, Result, SystemError};
use crate::hash::shard_of;
use crate::moved::Moved;
use crate::net::actions;
use crate::net::connection::{Connection, lock};
use crate::net::handshake::ANY_SHARD;
use crate::reference::{Place, nowhere};
use crate::wire::message::Shard;

/// Nodes asked for at a time.
const PAGE: u32 = 256;
/// Nodes remembered; a system with more asks the binder more often.
const NODES_MAX: usize = 65_536;

/// The nodes of a system, as this client knows them. What is remembered is a guess: it is
/// validated by use, and asked for again when it proves wrong.
#[derive(Debug)]
pub struct Locator {
    pub(super) binder: Mutex<Option<BinderPlace>>,
    nodes: Arc<Nodes>,
    moved: Whereabouts,
    /// Turns of those that ask for objects of silent nodes.
    pub(super) elsewhere: Semaphore,
}

/// What is known of nodes; one table for all clients of a process.
pub(crate) type Nodes = Mutex<HashMap<NodeId, NodeEntry>>;

#[derive(Clone, Debug)]
pub(super) struct BinderPlace {
    binder: Binder,
    addresses: Vec<String>,
}

impl BinderPlace {
    /// Whether the object is the binder.
    pub(super) fn is(&self, object: Uid) -> bool {
        self.binder.uid() == object
    }
}

impl Locator {
    /// One that knows what others of the process do.
    pub(crate) fn sharing(nodes: Arc<Nodes>) -> Self {
        let (binder, moved) = (Mutex::default(), Whereabouts::default());
        Self {
            binder,
            nodes,
            moved,
            elsewhere: Semaphore::new(super::hedge::ASKING_MAX),
        }
    }

    /// The binder of the system.
    ///
    /// # Errors
    /// `NameNotFound` if no binder has registered with the naming service.
    pub async fn binder(&self, client: &Client) -> Result<Binder> {
        Ok(self.binder_place(client).await?.binder)
    }

    /// All nodes that ever registered, with their leases.
    ///
    /// # Errors
    /// Those of finding and asking the binder.
    pub async fn nodes(&self, client: &Client) -> Result<Vec<NodeEntry>> {
        let binder = self.binder(client).await?;
        let mut nodes: Vec<NodeEntry> = Vec::new();
        loop {
            let after = nodes.last().map_or(0, |node| node.node);
            let page = binder.nodes(client, after, PAGE).await?;
            let complete = page.len() < PAGE as usize;
            nodes.extend(page);
            if complete {
                return Ok(nodes);
            }
        }
    }

    /// The node of an object, asked from the binder.
    ///
    /// # Errors
    /// `Unreachable` if its node never registered; those of finding and asking the binder.
    pub async fn locate(&self, client: &Client, object: Uid) -> Result<NodeEntry> {
        Ok(self.location(client, object).await?.node)
    }

    /// The node of an object, and how often it had moved when it came there, asked from the
    /// binder.
    ///
    /// # Errors
    /// As [`Locator::locate`].
    pub async fn location(&self, client: &Client, object: Uid) -> Result<Location> {
        use super::binder::binder::LocateError;
        let binder = self.binder(client).await?;
        let caller = client.call().deadline(LOOKUP_DEADLINE);
        match binder.locate(&caller, object).await {
            Ok(location) => {
                self.remember(&location.node);
                if location.moved {
                    let there = Moved {
                        node: NodeId(location.node.node),
                        addresses: location.node.addresses.clone(),
                        moves: location.moves,
                    };
                    self.moved.note(object, &there);
                }
                Ok(location)
            }
            Err(LocateError::UnknownNode(unknown)) => {
                let detail = format!(
                    "object {object}: its node {} has never registered with the binder",
                    NodeId(unknown.node)
                );
                Err(SystemError::new(ErrorKind::Unreachable, detail))
            }
            // Whoever looks for a node has not heard of the object that stands for it.
            Err(LocateError::System(error)) if object == Uid::connection_manager(object.node) => {
                let node = object.node;
                Err(error.context(format_args!("asking the binder where node {node} is")))
            }
            Err(LocateError::System(error)) => {
                Err(error.context(format_args!("locating object {object} at the binder")))
            }
        }
    }

    /// Gets to know the node that listens at an address, without the binder: its objects can be
    /// called then. For systems without a naming service, such as tests.
    ///
    /// # Errors
    /// `Unreachable`, `VersionMismatch`.
    pub async fn introduce(&self, client: &Client, address: &str) -> Result<NodeId> {
        let node = client.node_at(address).await?;
        let described = node.manager().outline(client).await?;
        self.remember(&NodeEntry {
            node: described.node,
            incarnation: described.incarnation,
            name: described.name,
            addresses: vec![address.to_owned()],
            classes: described.classes.iter().map(|class| class.id).collect(),
            shards: described.shards,
            alive: true,
            last_heard: crate::Timestamp::now(),
            labels: Vec::new(),
            cordoned: false,
        });
        Ok(NodeId(described.node))
    }

    /// What is known of objects that have moved.
    pub(crate) fn moved(&self) -> &Whereabouts {
        &self.moved
    }

    /// Where a node listens, as far as this process knows.
    pub(crate) fn addresses(&self, node: NodeId) -> Vec<String> {
        let nodes = lock(&self.nodes);
        nodes
            .get(&node)
            .map_or_else(Vec::new, |node| node.addresses.clone())
    }

    /// A node in a message: with its name, as far as this process knows.
    pub(crate) fn shown(&self, node: NodeId) -> String {
        let nodes = lock(&self.nodes);
        nodes.get(&node).map_or_else(
            || format!("node {node}"),
            |known| format!("node {} ({node})", known.name),
        )
    }

    /// A connection to the shard that has the object.
    pub(crate) async fn connect(&self, client: &Client, object: Uid) -> Result<Arc<Connection>> {
        let moved = self.moved.of(object);
        let node = moved.as_ref().map_or(object.node, |moved| moved.node);
        let known = lock(&self.nodes).get(&node).cloned();
        let mut failure = None;
        if let Some(moved) = moved.filter(|_| known.is_none()) {
            // Nobody has told of the node yet but the one that the object has left.
            let connecting = self.connect_moved(client, object, &moved);
            match self.or_elsewhere(client, object, node, connecting).await {
                Ok(connection) => return Ok(connection),
                Err(error) => failure = Some(error),
            }
        }
        if let Some(known) = known {
            let connecting = self.connect_object(client, object, &known);
            match self.or_elsewhere(client, object, node, connecting).await {
                Ok(connection) => return Ok(connection),
                Err(error) => failure = Some(error),
            }
        }
        // It may have moved on from there: the node of its birth, or the binder, is asked next.
        self.moved.forget(object);
        if let Err(none) = client.naming_address() {
            // Without a naming service there is nobody who could know better.
            return Err(failure.unwrap_or(none));
        }
        let place = self.binder_place(client).await?;
        if place.is(object) {
            let connected = self
                .connect_by_hints(client, object, &place.addresses)
                .await;
            if connected.is_err() {
                // It may have moved: the next attempt asks the naming service again.
                *lock(&self.binder) = None;
            }
            return connected;
        }
        let found = self.locate(client, object).await?;
        let connecting = self.connect_object(client, object, &found);
        let node = NodeId(found.node);
        self.or_elsewhere(client, object, node, connecting).await
    }

    async fn connect_moved(
        &self,
        client: &Client,
        object: Uid,
        moved: &Moved,
    ) -> Result<Arc<Connection>> {
        let mut last = SystemError::new(ErrorKind::Unreachable, "its address is not known");
        for address in &moved.addresses {
            match client.pool().to_node(address, moved.node, ANY_SHARD).await {
                Ok(connection) => return client.right_shard(object, address, connection).await,
                Err(error) => last = error,
            }
        }
        Err(last.context(format_args!("object {object}, {moved}")))
    }

    /// A connection to a shard of a node that this client may not have met.
    pub(crate) async fn connect_shard(
        &self,
        client: &Client,
        node: NodeId,
        shard: Shard,
    ) -> Result<Arc<Connection>> {
        let known = lock(&self.nodes).get(&node).cloned();
        let mut failure = None;
        if let Some(known) = known {
            let wanted = actions::wanted(shard, known.shards);
            match self.connect_node(client, &known, wanted).await {
                Ok(connection) => return Ok(connection),
                Err(error) => failure = Some(error),
            }
        }
        let naming = match client.naming_address() {
            Ok(naming) => naming,
            Err(none) => return Err(failure.unwrap_or(none)),
        };
        // The naming service and the binder are found without the binder.
        let first = client.pool().by_address(naming, ANY_SHARD).await?;
        if first.peer().node == node {
            return Ok(first);
        }
        let manager = Uid::connection_manager(node);
        let place = self.binder_place(client).await?;
        if place.binder.uid().node == node {
            return self.connect(client, place.binder.uid()).await;
        }
        let found = self.locate(client, manager).await?;
        let wanted = actions::wanted(shard, found.shards);
        self.connect_node(client, &found, wanted).await
    }

    /// A connection to any shard of a node.
    pub(crate) async fn connect_to(
        &self,
        client: &Client,
        node: &NodeEntry,
    ) -> Result<Arc<Connection>> {
        self.connect_node(client, node, ANY_SHARD).await
    }

    /// A node for a new object: the same call id finds the same one among the same nodes.
    pub(crate) async fn choose(
        &self,
        client: &Client,
        place: &Place,
        info: &'static ClassInfo,
        call: CallId,
    ) -> Result<NodeEntry> {
        let nodes = match client.naming_address() {
            Ok(_) => self.nodes(client).await?,
            Err(_) => lock(&self.nodes).values().cloned().collect(),
        };
        let mut fitting: Vec<_> = nodes
            .into_iter()
            .filter(|node| fits(node, place, info))
            .collect();
        if fitting.is_empty() {
            let why = "no living node of that description has registered";
            return Err(nowhere(place, info, why));
        }
        let index = call.sequence as usize % fitting.len();
        Ok(fitting.swap_remove(index))
    }

    /// What is known of a node, asked from the binder if nothing is.
    pub(crate) async fn entry_of(
        &self,
        client: &Client,
        node: NodeId,
        within: Duration,
    ) -> Option<NodeEntry> {
        let known = lock(&self.nodes).get(&node).cloned();
        if known.is_some() {
            return known;
        }
        let asked = self.locate(client, Uid::connection_manager(node));
        tokio::time::timeout(within, asked).await.ok()?.ok()
    }

    pub(crate) fn remember(&self, node: &NodeEntry) {
        let mut nodes = lock(&self.nodes);
        if nodes.len() >= NODES_MAX {
            nodes.clear();
        }
        nodes.insert(NodeId(node.node), node.clone());
    }

    async fn binder_place(&self, client: &Client) -> Result<BinderPlace> {
        if let Some(place) = lock(&self.binder).clone() {
            return Ok(place);
        }
        let entry = client.naming()?.lookup(client, BINDER_NAME).await?;
        let binder = Binder::from_uid(entry.object);
        // Clones of what is kept share its binding, so that asking again binds nothing anew.
        let _ = binder.reference().binding(client);
        let place = BinderPlace {
            binder,
            addresses: entry.hints,
        };
        *lock(&self.binder) = Some(place.clone());
        Ok(place)
    }

    async fn connect_by_hints(
        &self,
        client: &Client,
        object: Uid,
        addresses: &[String],
    ) -> Result<Arc<Connection>> {
        let mut last = SystemError::new(ErrorKind::Unreachable, "it has given no address");
        for address in addresses {
            match client.pool().to_node(address, object.node, ANY_SHARD).await {
                Ok(connection) => return client.right_shard(object, address, connection).await,
                Err(error) => last = error,
            }
        }
        Err(last.context("the binder"))
    }

    pub(super) async fn connect_object(
        &self,
        client: &Client,
        object: Uid,
        node: &NodeEntry,
    ) -> Result<Arc<Connection>> {
        let connected = self
            .connect_node(client, node, shard_of(object, node.shards))
            .await;
        connected.map_err(|error| error.context(format_args!("object {object}")))
    }

    async fn connect_node(
        &self,
        client: &Client,
        node: &NodeEntry,
        shard: u16,
    ) -> Result<Arc<Connection>> {
        let mut last = SystemError::new(ErrorKind::Unreachable, "it has given no address");
        for address in &node.addresses {
            match client
                .pool()
                .to_node(address, NodeId(node.node), shard)
                .await
            {
                Ok(connection) => return Ok(connection),
                Err(error) => last = error,
            }
        }
        let silent = SystemTime::now()
            .duration_since(node.last_heard.into())
            .unwrap_or_default();
        let name = format!("node {} ({})", node.name, NodeId(node.node));
        Err(last.context(format_args!("{name}, last heard {} ago", rounded(silent))))
    }
}

fn rounded(time: Duration) -> String {
    if time < Duration::from_secs(120) {
        return format!("{:.1} s", time.as_secs_f64());
    }
    format!("{} min", time.as_secs() / 60)
}
