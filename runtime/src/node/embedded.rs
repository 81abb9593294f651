//! A node without sockets, for tests and for programs of one process.
//!
//! It has the shards, engine, store and encoding of any other node, and nothing of the network:
//! who wants to call its objects does so with its own client. What cannot be had without sockets
//! is refused when the node is started, and not when it is first missed.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use partha_store::{LmdbStore, MemoryStore, ObjectStore};

use super::{Node, NodeBuilder, listen_at};
use crate::error::{ErrorKind, Result, SystemError};
use crate::manager::NodeHandle;
use crate::net::links::Lease;
use crate::net::traffic::Backpressure;

/// Where a node listens that was not told.
const ANYWHERE: &str = "127.0.0.1:0";

impl Node {
    /// Begins a node without sockets: no listener, no connections, the same API, engine, store
    /// and encoding. Its objects are called with [`Node::client`], and only within the process.
    ///
    /// Its store is in memory and ends with it, unless [`NodeBuilder::data_dir`] names a folder.
    /// `partha_naming::embed` gives it names.
    ///
    /// ```
    /// # async fn example() -> partha::Result<()> {
    /// let node = partha::Node::embedded().start().await?;
    /// assert_eq!(node.listens_at(), None);
    /// node.shutdown(std::time::Duration::from_secs(1)).await
    /// # }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(example()).unwrap();
    /// ```
    #[must_use]
    pub fn embedded() -> NodeBuilder {
        let mut builder = Self::builder();
        builder.data_dir = None;
        builder.links.embedded = true;
        builder
    }

    /// Where it listens; nowhere if it is embedded.
    #[must_use]
    pub fn listens_at(&self) -> Option<SocketAddr> {
        self.address
    }

    /// For questions about it, from within its process.
    #[must_use]
    pub fn handle(&self) -> NodeHandle {
        NodeHandle::here(&self.home)
    }
}

impl NodeBuilder {
    /// How often a silent peer is asked whether it lives, and for how long it may be silent
    /// before it is taken for dead; 1.2 s and 4 s if not said. The lease is at least two
    /// heartbeats long, so that one may get lost, and a heartbeat at least 10 ms.
    ///
    /// Each end of a connection has a lease of its own on the other one.
    #[must_use]
    pub fn lease(mut self, heartbeat: Duration, lease: Duration) -> Self {
        self.lease = Some((heartbeat, lease));
        self
    }

    /// The largest message, in bytes: of arguments, results, or what else travels at once. 4 MiB if
    /// not said. Both ends of a connection have a limit of their own: a message above that of its
    /// receiver is refused where it is sent, before anything leaves, and one above the sender's own
    /// when it is made.
    ///
    /// What may wait on a connection follows from it: docs/operations.md says how much memory.
    /// A single `bytes`, `string` or list has less than 512 Mi elements, whatever the limit.
    /// Stored states and plain Cap'n Proto clients keep the usual one.
    #[must_use]
    pub fn message_bytes_max(mut self, bytes: usize) -> Self {
        self.links.traffic.message_bytes_max = bytes;
        self
    }

    /// What a call does that finds no room on its connection: waits for its turn until its
    /// deadline, if not said, or fails at once.
    #[must_use]
    pub fn backpressure(mut self, backpressure: Backpressure) -> Self {
        self.links.traffic.backpressure = backpressure;
        self
    }

    /// Refuses what does not fit together.
    pub(super) fn check(&mut self) -> Result<()> {
        self.links.traffic.check()?;
        if let Some((heartbeat, silent_max)) = self.lease {
            self.links.lease = Lease::new(heartbeat, silent_max)?;
        }
        if !self.links.embedded {
            return Ok(());
        }
        if self.elsewhere.wants_processes() {
            let detail = "an embedded node has no sockets, and server processes need them: serve \
                          its classes with `NodeBuilder::class`";
            return Err(SystemError::new(ErrorKind::BadOperation, detail));
        }
        let wants = [
            ("listen", self.listen.is_some()),
            ("advertise", !self.advertise.is_empty()),
            ("naming", self.naming.is_some()),
        ];
        for (what, wanted) in wants {
            if wanted {
                let detail = format!(
                    "an embedded node has no sockets, and `{what}` needs them: leave it out, or \
                     begin with `Node::builder()`"
                );
                return Err(SystemError::new(ErrorKind::BadOperation, detail));
            }
        }
        Ok(())
    }

    /// Its listener and the address of it; none if it is embedded.
    pub(super) fn listener(&self) -> Result<Option<(TcpListener, SocketAddr)>> {
        if self.links.embedded {
            return Ok(None);
        }
        let listener = listen_at(self.listen.as_deref().unwrap_or(ANYWHERE))?;
        let address = listener
            .local_addr()
            .map_err(|error| SystemError::new(ErrorKind::Unreachable, error.to_string()))?;
        Ok(Some((listener, address)))
    }
}

/// Opens the store in the folder, or one in memory.
pub(super) async fn open(dir: Option<PathBuf>) -> Result<Arc<dyn ObjectStore>> {
    let opening = tokio::task::spawn_blocking(move || -> Result<Arc<dyn ObjectStore>> {
        let Some(dir) = dir else {
            return Ok(Arc::new(MemoryStore::new()));
        };
        let store = LmdbStore::open(dir);
        let store = store.map_err(|e| SystemError::new(ErrorKind::Store, e.to_string()))?;
        Ok(Arc::new(store))
    });
    let opened = opening.await;
    opened.map_err(|_| SystemError::new(ErrorKind::Internal, "opening the store panicked"))?
}
