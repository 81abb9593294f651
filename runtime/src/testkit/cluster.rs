//! The cluster: its members by name, and what a test does to them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use partha_core::id::NodeId;
use tempfile::TempDir;

use super::faults::Faults;
use super::member::{ClientMember, NodeMember};
use super::pause::Pause;
use super::plan::Plan;
use super::random::{Random, SEED};
use crate::client::Client;
use crate::error::{ErrorKind, Result, SystemError};
use crate::net::connection::lock;
use crate::node::Node;
use crate::reference::Place;
use crate::services::binder::NodeEntry;

/// The name of the client that every cluster has.
pub(super) const MAIN: &str = "client";
/// How long calls may take to end when the cluster stops.
const PATIENCE: Duration = Duration::from_secs(10);

/// Nodes in this process and clients of them, to be tried. See the [module](super).
///
/// Dropping it ends everything and removes the folders; [`Cluster::stop`] does so in good order.
#[derive(Debug)]
pub struct Cluster {
    plan: Plan,
    faults: Arc<Faults>,
    random: Random,
    nodes: BTreeMap<String, NodeMember>,
    clients: Mutex<BTreeMap<String, ClientMember>>,
    /// Last, so that it goes when nobody has files in it any more.
    folder: TempDir,
}

impl Cluster {
    /// Begins one; of one node, `a`, if no more is said.
    #[must_use]
    #[expect(
        clippy::new_ret_no_self,
        reason = "a cluster is begun by saying what it is to be"
    )]
    pub fn new() -> Plan {
        Plan::new()
    }

    pub(super) async fn start(plan: Plan, random: Random) -> Result<Self> {
        let mut cluster = Self {
            faults: Arc::default(),
            random,
            nodes: BTreeMap::new(),
            clients: Mutex::default(),
            folder: folder()?,
            plan,
        };
        for name in cluster.plan.names.clone() {
            let dir = cluster.folder.path().join(&name);
            let node = NodeMember::start(&cluster.plan, &cluster.faults, &name, dir).await?;
            cluster.nodes.insert(name, node);
        }
        cluster.add_client(MAIN)?;
        cluster.introduce();
        Ok(cluster)
    }

    /// The client that every cluster has; its name is `client`.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client_named(MAIN)
    }

    /// The client of this name; made when it is asked for first. After a restart it is the new
    /// one.
    ///
    /// # Panics
    /// If a node has the name, or the system gives no random numbers.
    #[must_use]
    pub fn client_named(&self, name: &str) -> Client {
        assert!(
            !self.nodes.contains_key(name),
            "'{name}' is a node of the cluster; its own client is `node(\"{name}\").client()`"
        );
        let known = lock(&self.clients)
            .get(name)
            .map(|member| member.client.clone());
        known.unwrap_or_else(|| {
            let made = self.add_client(name);
            made.unwrap_or_else(|error| panic!("cannot make client '{name}': {error}"))
        })
    }

    /// A living node.
    ///
    /// # Panics
    /// If there is none of the name, or it is dead.
    #[must_use]
    pub fn node(&self, name: &str) -> &Node {
        let node = self.member(name).node.as_ref();
        node.unwrap_or_else(|| panic!("node '{name}' is dead; `restart` brings it back"))
    }

    /// Where a node is, for new objects; also while it is dead.
    ///
    /// # Panics
    /// If there is none of the name.
    #[must_use]
    pub fn at(&self, name: &str) -> Place {
        Place::Node(self.member(name).me.node)
    }

    /// Where a node listens; none while it is dead.
    ///
    /// # Panics
    /// If there is none of the name.
    #[must_use]
    pub fn address(&self, name: &str) -> Option<SocketAddr> {
        self.member(name).node.as_ref().and_then(Node::listens_at)
    }

    /// The folder of the folders of its nodes, each named as the node; it goes with the cluster.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Numbers that come again with their seed.
    #[must_use]
    pub fn random(&self) -> &Random {
        &self.random
    }

    /// Kills a member: it stops where it is. One that is dead stays so.
    ///
    /// # Panics
    /// If there is none of the name, or a thread of the node does not end, as one whose servant
    /// runs without ever waiting.
    pub async fn kill(&mut self, name: &str) {
        if let Some(member) = self.nodes.get_mut(name) {
            let Some(node) = member.node.take() else {
                return;
            };
            self.faults.kill(member.me);
            member.go_on();
            let ended = node.crash().await;
            assert!(
                ended,
                "node '{name}' was killed, but its threads do not end"
            );
            return;
        }
        let mut clients = lock(&self.clients);
        let member = clients.get_mut(name);
        let member = member.unwrap_or_else(|| self.nobody(name));
        member.alive = false;
        self.faults.kill(member.client.me());
        if let Some(home) = member.client.home_if_any() {
            home.client_gone();
        }
    }

    /// Starts a member again, in its next incarnation; one that is alive is killed before. A
    /// client is to be asked for anew with [`Cluster::client_named`]; those of its earlier life
    /// are dead.
    ///
    /// # Errors
    /// Those of [`crate::NodeBuilder::start`].
    ///
    /// # Panics
    /// If there is none of the name; as [`Cluster::kill`].
    pub async fn restart(&mut self, name: &str) -> Result<()> {
        self.kill(name).await;
        if let Some(member) = self.nodes.get(name) {
            let dir = member.dir.clone();
            let member = NodeMember::start(&self.plan, &self.faults, name, dir).await?;
            self.nodes.insert(name.to_owned(), member);
        } else {
            let mut clients = lock(&self.clients);
            let Some(member) = clients.get_mut(name) else {
                drop(clients);
                self.nobody(name)
            };
            *member = member.again(&self.plan, &self.faults, name);
        }
        self.introduce();
        Ok(())
    }

    /// Cuts two members off from each other until [`Cluster::heal`]. It holds for later lives of
    /// them too.
    ///
    /// # Panics
    /// If there is none of the name.
    pub fn partition(&self, a: &str, b: &str) {
        assert_ne!(a, b, "a member cannot be cut off from itself");
        self.faults.part(self.id(a), self.id(b));
    }

    /// Cuts a member off from all others there are.
    ///
    /// # Panics
    /// If there is none of the name.
    pub fn isolate(&self, name: &str) {
        let me = self.id(name);
        let mut others: Vec<_> = self.nodes.values().map(|member| member.me.node).collect();
        others.extend(lock(&self.clients).values().map(ClientMember::id));
        for other in others.into_iter().filter(|other| *other != me) {
            self.faults.part(me, other);
        }
    }

    /// Has what one member says not reach another one until [`Cluster::heal`]; what the other
    /// says arrives. New connections of the two are not made.
    ///
    /// # Panics
    /// If there is none of the name.
    pub fn silence(&self, from: &str, to: &str) {
        assert_ne!(from, to, "a member cannot be cut off from itself");
        self.faults.silence(self.id(from), self.id(to));
    }

    /// Breaks all connections of two members; both learn it, and new ones can be made. What was
    /// not delivered is lost, also that which a partition had held up.
    ///
    /// # Panics
    /// If there is none of the name.
    pub fn cut(&self, a: &str, b: &str) {
        self.faults.cut(self.id(a), self.id(b));
    }

    /// Ends all partitions and silences.
    pub fn heal(&self) {
        self.faults.heal();
    }

    /// Has a member stand still until [`Cluster::resume`].
    ///
    /// # Panics
    /// If there is none of the name, it is dead, or a thread of the node does not stand still, as
    /// one whose servant runs without ever waiting.
    pub async fn pause(&mut self, name: &str) {
        let id = self.id(name);
        let Some(member) = self.nodes.get_mut(name) else {
            let alive = lock(&self.clients)[name].alive;
            assert!(alive, "client '{name}' is dead; it cannot be paused");
            self.faults.pause(id);
            return;
        };
        let node = member.node.as_ref();
        let node = node.unwrap_or_else(|| panic!("node '{name}' is dead; it cannot be paused"));
        if member.pause.is_some() {
            return;
        }
        self.faults.pause(id);
        let pause = member.pause.insert(Pause::default());
        let stands = node.stand_still(pause).await;
        assert!(stands, "node '{name}' was paused, but its threads go on");
    }

    /// Has a member go on.
    ///
    /// # Panics
    /// If there is none of the name.
    pub fn resume(&mut self, name: &str) {
        let id = self.id(name);
        if let Some(member) = self.nodes.get_mut(name) {
            member.go_on();
        }
        self.faults.resume(id);
    }

    /// Stops all nodes in good order, after ending all faults.
    ///
    /// # Errors
    /// Those of [`Node::shutdown`]: something was still running after 10 s.
    pub async fn stop(mut self) -> Result<()> {
        self.calm();
        let mut failed = None;
        for (name, mut member) in std::mem::take(&mut self.nodes) {
            if let Some(node) = member.node.take()
                && let Err(error) = node.shutdown(PATIENCE).await
            {
                let error = error.context(format_args!("stopping node '{name}'"));
                failed = failed.or(Some(error));
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn calm(&mut self) {
        self.faults.heal();
        for member in self.nodes.values_mut() {
            member.go_on();
            self.faults.resume(member.me.node);
        }
        for member in lock(&self.clients).values() {
            self.faults.resume(member.id());
        }
    }

    fn add_client(&self, name: &str) -> Result<Client> {
        let member = ClientMember::new(&self.plan, &self.faults, name)?;
        for entry in self.entries() {
            member.client.locator().remember(&entry);
        }
        let client = member.client.clone();
        lock(&self.clients).insert(name.to_owned(), member);
        Ok(client)
    }

    /// Tells all who is where, as a binder would.
    fn introduce(&self) {
        let entries = self.entries();
        for entry in &entries {
            for node in self
                .nodes
                .values()
                .filter_map(|member| member.node.as_ref())
            {
                if node.me().node != NodeId(entry.node) {
                    node.client().locator().remember(entry);
                }
            }
            for member in lock(&self.clients).values() {
                member.client.locator().remember(entry);
            }
        }
    }

    fn entries(&self) -> Vec<NodeEntry> {
        self.nodes.values().flat_map(NodeMember::entries).collect()
    }

    fn member(&self, name: &str) -> &NodeMember {
        self.nodes.get(name).unwrap_or_else(|| self.nobody(name))
    }

    fn id(&self, name: &str) -> NodeId {
        if let Some(member) = self.nodes.get(name) {
            return member.me.node;
        }
        let client = lock(&self.clients).get(name).map(ClientMember::id);
        client.unwrap_or_else(|| self.nobody(name))
    }

    fn nobody(&self, name: &str) -> ! {
        let mut known = String::new();
        for node in self.nodes.keys() {
            let _ = write!(known, " {node}");
        }
        // Clients are not listed: who asks may hold their table.
        panic!(
            "no member '{name}' in the cluster; its nodes are{known}, clients are made by \
             `client_named`"
        );
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.calm();
        if std::thread::panicking() {
            let seed = self.random.seed();
            eprintln!("the seed of this cluster: {SEED}={seed}");
        }
    }
}

/// A temporary folder; it stays with `PARTHA_KEEP_TEMP=1`.
fn folder() -> Result<TempDir> {
    let keep = std::env::var_os("PARTHA_KEEP_TEMP").is_some_and(|value| value == "1");
    let made = tempfile::Builder::new()
        .prefix("partha-cluster-")
        .disable_cleanup(keep)
        .tempdir();
    let folder = made.map_err(|error| {
        let detail = format!("cannot make a temporary folder: {error}");
        SystemError::new(ErrorKind::Store, detail)
    })?;
    if keep {
        eprintln!("kept: {}", folder.path().display());
    }
    Ok(folder)
}
