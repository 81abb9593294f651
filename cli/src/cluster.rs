//! Finding the running system, and what is asked of it in every command: where a name leads, what
//! a node is.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, anyhow};
use futures_util::FutureExt as _;
use futures_util::future::select_ok;
use partha::services::binder::NodeEntry;
use partha::system::connection_manager::{DescribeClassError, InspectError};
use partha::system::{ClassDescription, NodeDescription, ObjectDescription};
use partha::{CallId, ClassId, Client, ErrorKind, Incarnation, NodeHandle, NodeId, Peer, Uid};
use serde::Deserialize;

use crate::arguments::Cluster;
use crate::failure::Usage;

/// Where the naming service listens if nobody says.
const NAMING_DEFAULT: &str = "127.0.0.1:7401";
/// What `partha dev` leaves for other commands.
const CLUSTER_FILE: &str = ".partha/cluster.toml";

/// How long one shard of a node may be silent before the others are asked.
const SHARD_PATIENCE: Duration = Duration::from_millis(500);
/// Shards that are asked then, at most: with as many stuck ones the node is of little use.
const SHARDS_ASKED_MAX: u16 = 16;

/// A running system, seen from a command.
#[derive(Debug)]
pub(crate) struct System {
    pub(crate) client: Client,
    naming: Address,
    nodes: Mutex<Nodes>,
}

/// Nodes that were asked for; of those that could not be reached, why.
type Nodes = HashMap<NodeId, Result<Arc<NodeInfo>, String>>;

/// An object that was asked for by name or uid.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) uid: Uid,
    /// The class the name was given with; 0 if it was found by uid.
    pub(crate) class: ClassId,
}

/// A node, and what it says of itself.
#[derive(Debug)]
pub(crate) struct NodeInfo {
    pub(crate) address: String,
    pub(crate) handle: NodeHandle,
    pub(crate) description: NodeDescription,
}

/// The naming service's address, and who said so.
#[derive(Debug)]
struct Address {
    text: String,
    origin: Origin,
}

#[derive(Debug)]
enum Origin {
    Argument,
    File(PathBuf),
    Default,
}

/// The content of [`CLUSTER_FILE`]; what else is in it is for others.
#[derive(Deserialize)]
struct ClusterFile {
    naming: String,
}

impl System {
    /// Connects to the naming service.
    pub(crate) async fn connect(cluster: &Cluster) -> anyhow::Result<Self> {
        let naming = Address::find(cluster)?;
        let client = Client::connect(naming.text.clone()).await;
        let client = client.with_context(|| {
            format!("no naming service at {naming}; `partha dev` starts a system")
        })?;
        Ok(Self {
            client,
            naming,
            nodes: Mutex::default(),
        })
    }

    /// Forgets where nodes are: in a long session they come and go.
    pub(crate) fn forget(&self) {
        self.known().clear();
    }

    /// The object of a name, or of a uid in its text form.
    pub(crate) async fn find(&self, name: &str) -> anyhow::Result<Found> {
        if let Ok(uid) = name.parse() {
            let class = ClassId(0);
            return Ok(Found { uid, class });
        }
        let entry = self.client.naming()?.lookup(&self.client, name).await?;
        Ok(Found {
            uid: entry.object,
            class: ClassId(entry.class),
        })
    }

    /// The node that made an object. It may have moved since: see [`System::owner`].
    pub(crate) async fn birthplace(&self, object: Uid) -> anyhow::Result<Arc<NodeInfo>> {
        self.asked_once(object.node, self.ask_for(object)).await
    }

    /// A node of the binder's table, asked once.
    pub(crate) async fn node(&self, node: &NodeEntry) -> anyhow::Result<Arc<NodeInfo>> {
        self.asked_once(NodeId(node.node), self.reach(node)).await
    }

    /// As [`System::node`], but one that could not be reached is asked once more.
    pub(crate) async fn node_again(&self, node: &NodeEntry) -> anyhow::Result<Arc<NodeInfo>> {
        let id = NodeId(node.node);
        if let Some(Ok(known)) = self.known().get(&id) {
            return Ok(known.clone());
        }
        let found = Arc::new(self.reach(node).await?);
        self.known().insert(id, Ok(found.clone()));
        Ok(found)
    }

    pub(crate) async fn asked_once(
        &self,
        node: NodeId,
        ask: impl Future<Output = anyhow::Result<NodeInfo>>,
    ) -> anyhow::Result<Arc<NodeInfo>> {
        if let Some(known) = self.known().get(&node) {
            return known.clone().map_err(|text| anyhow!(text));
        }
        let found = ask.await.map(Arc::new);
        let kept = found.as_ref().map(Arc::clone).map_err(|e| format!("{e:#}"));
        self.known().insert(node, kept);
        found
    }

    async fn ask_for(&self, object: Uid) -> anyhow::Result<NodeInfo> {
        // The naming service itself needs no binder, and may run before there is one.
        let naming = self.client.node_at(&self.naming.text).await?;
        if object == Uid::NAMING_ROOT || naming.id() == object.node {
            return self.naming_node().await;
        }
        self.registered(object.node).await
    }

    fn known(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The naming service's address.
    pub(crate) fn naming_address(&self) -> &str {
        &self.naming.text
    }

    /// The naming service's node.
    pub(crate) async fn naming_node(&self) -> anyhow::Result<NodeInfo> {
        self.node_at(&self.naming.text).await
    }

    /// A node of the binder's table.
    pub(crate) async fn reach(&self, node: &NodeEntry) -> anyhow::Result<NodeInfo> {
        let mut last = None;
        for address in &node.addresses {
            match self.node_at(address).await {
                Ok(found) if found.handle.id() == NodeId(node.node) => return Ok(found),
                Ok(found) => {
                    let other = found.handle.id();
                    last = Some(anyhow!("at {address} is another node, {other}"));
                }
                Err(error) => last = Some(error),
            }
        }
        let last = last.unwrap_or_else(|| anyhow!("it has given no address"));
        let (name, id, heard) = (&node.name, NodeId(node.node), heard(node));
        Err(last.context(format!(
            "cannot reach node '{name}' ({id}), last heard of {heard}"
        )))
    }

    /// Whoever listens at an address.
    pub(crate) async fn node_at(&self, address: &str) -> anyhow::Result<NodeInfo> {
        let handle = self.client.node_at(address).await?;
        let shards = handle.shards().min(SHARDS_ASKED_MAX);
        let mut first = self.describe(address, handle).boxed_local();
        if shards <= 1 {
            return first.await;
        }
        match tokio::time::timeout(SHARD_PATIENCE, &mut first).await {
            Ok(described) => described,
            // A servant may keep the thread of that shard: whichever answers will do.
            Err(_) => {
                let others = (0..shards).map(|shard| self.node_at_shard(address, shard));
                let others = others.map(|other| other.boxed_local());
                let all = std::iter::once(first).chain(others);
                let (described, _) = select_ok(all).await?;
                Ok(described)
            }
        }
    }

    async fn node_at_shard(&self, address: &str, shard: u16) -> anyhow::Result<NodeInfo> {
        let handle = self.client.node_at_shard(address, shard).await?;
        self.describe(address, handle).await
    }

    async fn describe(&self, address: &str, handle: NodeHandle) -> anyhow::Result<NodeInfo> {
        let description = handle.manager().outline(&self.client).await?;
        Ok(NodeInfo {
            address: address.to_owned(),
            handle,
            description,
        })
    }
}

/// How long ago the binder heard of a node, as `3s ago`.
pub(crate) fn heard(node: &NodeEntry) -> String {
    let ago = SystemTime::now().duration_since(node.last_heard.into());
    let whole = Duration::from_secs(ago.unwrap_or_default().as_secs());
    format!("{} ago", humantime::format_duration(whole))
}

impl NodeInfo {
    /// What the node knows of one object.
    pub(crate) async fn inspect(
        &self,
        client: &Client,
        object: Uid,
    ) -> anyhow::Result<ObjectDescription> {
        let found = self.handle.manager().inspect(client, object).await;
        found.map_err(|error| match error {
            InspectError::NoSuchObject(_) => {
                let (name, id) = (&self.description.name, self.handle.id());
                anyhow!("node '{name}' ({id}) has no object {object}")
            }
            InspectError::System(error) => error.into(),
        })
    }

    /// What the node says of a class that it runs, with its reflection.
    pub(crate) async fn describe_class(
        &self,
        client: &Client,
        class: ClassId,
    ) -> anyhow::Result<ClassDescription> {
        let found = self.handle.manager().describe_class(client, class.0).await;
        found.map_err(|error| match error {
            DescribeClassError::NoSuchClass(_) => {
                let name = &self.description.name;
                anyhow!("node '{name}' has the object, but does not run its class {class}")
            }
            DescribeClassError::System(error) => error.into(),
        })
    }

    /// A class that the node runs, without its reflection.
    pub(crate) fn class(&self, class: ClassId) -> Option<&ClassDescription> {
        let mut classes = self.description.classes.iter();
        classes.find(|known| known.id == class.0)
    }

    /// Its name, or its number.
    pub(crate) fn class_name(&self, class: ClassId) -> String {
        self.class(class)
            .map_or_else(|| class.to_string(), |known| known.name.clone())
    }
}

impl Address {
    fn find(cluster: &Cluster) -> anyhow::Result<Self> {
        if let Some(text) = &cluster.naming {
            let (text, origin) = (text.clone(), Origin::Argument);
            return Ok(Self { text, origin });
        }
        let here = std::env::current_dir().context("cannot tell the current folder")?;
        match Self::in_folders(&here)? {
            Some(found) => Ok(found),
            None => Ok(Self {
                text: NAMING_DEFAULT.to_owned(),
                origin: Origin::Default,
            }),
        }
    }

    /// What the nearest file above says.
    fn in_folders(here: &Path) -> anyhow::Result<Option<Self>> {
        for folder in here.ancestors() {
            let path = folder.join(CLUSTER_FILE);
            let text = match std::fs::read_to_string(&path) {
                Ok(text) => text,
                Err(error) if is_absent(&error) => continue,
                Err(error) => {
                    let what = format!("cannot read {}", path.display());
                    return Err(error).context(what);
                }
            };
            let file: ClusterFile = toml::from_str(&text).map_err(|error| {
                let error = error.to_string();
                Usage(format!("{}: {}", path.display(), error.trim_end()))
            })?;
            let (text, origin) = (file.naming, Origin::File(path));
            return Ok(Some(Self { text, origin }));
        }
        Ok(None)
    }
}

/// There is no such file; a file in the place of a folder is no error of ours.
fn is_absent(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.text)?;
        match &self.origin {
            Origin::Argument => f.write_str("(from --naming or PARTHA_NAMING)"),
            Origin::File(path) => write!(f, "(from {})", path.display()),
            Origin::Default => write!(f, "(the default, since there is no {CLUSTER_FILE} here)"),
        }
    }
}

/// True if the name is not there, in contrast to a system that cannot be asked.
pub(crate) fn is_unknown_name(error: &partha::SystemError) -> bool {
    error.kind() == ErrorKind::NameNotFound
}

/// Reads a call id as errors show it: `00c7…/3/17`.
pub(crate) fn call_id(text: &str) -> Result<CallId, String> {
    let parsed = || {
        let mut parts = text.split('/');
        let node = u64::from_str_radix(parts.next()?, 16).ok()?;
        let incarnation = parts.next()?.parse().ok()?;
        let sequence = parts.next()?.parse().ok()?;
        parts.next().is_none().then_some(CallId {
            caller: Peer {
                node: NodeId(node),
                incarnation: Incarnation(incarnation),
            },
            sequence,
        })
    };
    parsed().ok_or_else(|| "expected an id as errors show it, 00c7d1f20be5a001/1/17".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn call_ids_come_back_from_their_text() {
        let id = call_id("00c7d1f20be5a001/3/17").unwrap();
        assert_eq!(id.to_string(), "00c7d1f20be5a001/3/17");
        for wrong in ["", "17", "x/1/2", "1/2/3/4", "00c7d1f20be5a001/3/"] {
            assert!(call_id(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_nearest_file_says_where_the_naming_service_is() {
        let folder = test_support::temp_dir("cluster");
        let deep = folder.path().join("a/b");
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::create_dir_all(folder.path().join(".partha")).unwrap();
        let file = folder.path().join(CLUSTER_FILE);
        std::fs::write(&file, "naming = \"127.0.0.1:9\"\nnodes = 2\n").unwrap();
        let found = Address::in_folders(&deep).unwrap().unwrap();
        assert_eq!(found.text, "127.0.0.1:9");
        assert!(found.to_string().contains("cluster.toml)"), "{found}");
        std::fs::write(&file, "naming = 5\n").unwrap();
        let error = Address::in_folders(&deep).unwrap_err().to_string();
        assert!(error.contains("line 1"), "{error}");
    }
}
