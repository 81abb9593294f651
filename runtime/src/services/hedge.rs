//! Looking for an object elsewhere while its node does not answer.
//!
//! A process that stands still, or whose machine is gone, takes seconds to be given up: its
//! system may even accept connections in its name. If the object has copies, somebody else leads
//! them after a lease, so whoever waits for a connection asks the binder from time to time, and
//! the first way that is found wins (a hedged request: Dean and Barroso, "The Tail at Scale",
//! 2013). A node that answers as fast as nodes do costs nothing more.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use partha_core::id::{NodeId, Uid};

use super::Locator;
use crate::client::Client;
use crate::error::Result;
use crate::net::connection::{Connection, lock};

/// How long a node may take before the binder is asked, and how often it is asked then: longer than
/// connecting takes, and within the 200 ms that a change of leaders may take beyond the lease.
const PAUSE: Duration = Duration::from_millis(80);

/// Objects that one client asks for in one such pause: with thousands at a silent node the binder
/// is needed for those that take over.
pub(super) const ASKING_MAX: usize = 64;

impl Locator {
    /// What connecting to `node` brings, or a connection to whoever the binder says meanwhile has
    /// the object.
    pub(super) async fn or_elsewhere(
        &self,
        client: &Client,
        object: Uid,
        node: NodeId,
        connecting: impl Future<Output = Result<Arc<Connection>>>,
    ) -> Result<Arc<Connection>> {
        let is_binder = |uid| lock(&self.binder).as_ref().is_some_and(|it| it.is(uid));
        // The binder cannot be asked where it is.
        if client.naming_address().is_err() || is_binder(object) {
            return connecting.await;
        }
        tokio::select! {
            biased;
            done = connecting => done,
            found = self.elsewhere(client, object, node) => Ok(found),
        }
    }

    /// A connection to another node than the silent one, once the binder knows one.
    async fn elsewhere(&self, client: &Client, object: Uid, silent: NodeId) -> Arc<Connection> {
        loop {
            let turn = self.elsewhere.acquire().await;
            tokio::time::sleep(PAUSE).await;
            let found = self.location(client, object).await;
            drop(turn);
            let Ok(found) = found else {
                // It is said when the silent node is given up.
                continue;
            };
            let node = NodeId(found.node.node);
            let known = self.moved().of(object).map_or(0, |known| known.moves);
            // The binder may not have heard yet of what this client has.
            if node == silent || found.moves < known {
                continue;
            }
            match self.connect_object(client, object, &found.node).await {
                Ok(connection) => {
                    tracing::debug!(%object, %silent, %node, "found elsewhere");
                    return connection;
                }
                Err(error) => tracing::debug!(%object, %node, %error, "not found elsewhere"),
            }
        }
    }
}
