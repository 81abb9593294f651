//! A system for the tests: real nodes in this process.

#![allow(dead_code, reason = "each test file uses a part")]

pub(crate) mod carry;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use partha::services::binder::{Binder, NodeEntry};
use partha::{Client, Node, NodeBuilder, NodeId, Timestamp};
use test_support::{TempDir, free_port, temp_dir};

pub(crate) const LEASE: Duration = Duration::from_secs(3);
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A naming service and a binder.
pub(crate) struct System {
    folder: TempDir,
    naming: Node,
    pub(crate) binder: Node,
    pub(crate) client: Client,
}

impl System {
    /// Where the naming service listens.
    pub(crate) fn naming(&self) -> SocketAddr {
        self.naming.address()
    }

    /// Where nodes have their data.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    pub(crate) async fn start() -> Self {
        let folder = temp_dir("binder");
        let builder = Node::builder()
            .name("naming")
            .data_dir(folder.path().join("naming"));
        let naming = partha_naming::start(builder.shards(1)).await.unwrap();
        let binder = start_binder(&folder, naming.address()).await;
        binder.registered().await;
        let client = Client::connect(naming.address().to_string()).await.unwrap();
        Self {
            folder,
            naming,
            binder,
            client,
        }
    }

    pub(crate) async fn stub(&self) -> Binder {
        self.client.locator().binder(&self.client).await.unwrap()
    }

    /// A node that can run naming contexts: any class does.
    pub(crate) async fn node(&self, folder: &str, name: &str) -> Node {
        self.node_with(folder, name, |builder| builder).await
    }

    /// As [`System::node`], with more to say.
    pub(crate) async fn node_with(
        &self,
        folder: &str,
        name: &str,
        more: impl FnOnce(NodeBuilder) -> NodeBuilder,
    ) -> Node {
        let builder = Node::builder()
            .name(name)
            .data_dir(self.folder.path().join(folder))
            .shards(1)
            .naming(self.naming.address().to_string());
        let context = partha::services::naming::name_context::class;
        let class = context(partha_naming::context::ContextServant);
        let node = more(builder.class(class)).start().await.unwrap();
        node.registered().await;
        node
    }

    /// Stops the binder.
    pub(crate) async fn stop_binder(self) -> Stopped {
        self.binder.shutdown(LONG).await.unwrap();
        Stopped {
            folder: self.folder,
            naming: self.naming,
            client: self.client,
        }
    }

    pub(crate) async fn entry(&self, id: NodeId) -> Option<NodeEntry> {
        let nodes = self.client.locator().nodes(&self.client).await.unwrap();
        nodes.into_iter().find(|entry| entry.node == id.0)
    }

    /// Waits until the entry of a node is as wanted.
    pub(crate) async fn eventually(
        &self,
        id: NodeId,
        wanted: impl Fn(&NodeEntry) -> bool,
    ) -> NodeEntry {
        let begun = Instant::now();
        loop {
            let entry = self.entry(id).await;
            if let Some(entry) = entry.clone().filter(&wanted) {
                return entry;
            }
            assert!(begun.elapsed() < LONG, "still {entry:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A system whose binder is away.
pub(crate) struct Stopped {
    folder: TempDir,
    naming: Node,
    pub(crate) client: Client,
}

impl Stopped {
    /// Starts the binder again.
    pub(crate) async fn start(self) -> System {
        let binder = start_binder(&self.folder, self.naming.address()).await;
        binder.registered().await;
        System {
            folder: self.folder,
            naming: self.naming,
            binder,
            client: self.client,
        }
    }
}

async fn start_binder(folder: &TempDir, naming: SocketAddr) -> Node {
    let builder = Node::builder()
        .name("binder")
        .data_dir(folder.path().join("binder"))
        .shards(1)
        .naming(naming.to_string());
    partha_binder::start(builder, Vec::new(), LEASE)
        .await
        .unwrap()
}

/// The entry of a node that is not there.
pub(crate) fn absent(node: u64, incarnation: u32, name: &str) -> NodeEntry {
    NodeEntry {
        node,
        incarnation,
        name: name.to_owned(),
        addresses: vec![format!("127.0.0.1:{}", free_port())],
        classes: vec![7],
        shards: 1,
        alive: true,
        last_heard: Timestamp::now(),
        labels: Vec::new(),
        cordoned: false,
    }
}
