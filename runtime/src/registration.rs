//! A node's entry at the binder: made at start, kept alive by heartbeats, taken back at the end.
//!
//! It runs beside the node and never gives up: naming service and binder may start later, restart
//! or be away for a while.

use std::sync::Arc;
use std::time::Duration;

use partha_core::id::NodeId;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::client::Client;
use crate::error::Result;
use crate::node::Home;
use crate::services::binder::NodeEntry;
use crate::services::binder::binder::RegisterError;
use crate::timestamp::Timestamp;

/// Pause between attempts to reach the binder.
const RETRY: Duration = Duration::from_millis(250);
/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(3);

/// The task that keeps the entry.
#[derive(Debug)]
pub(crate) struct Registration {
    done: watch::Receiver<bool>,
    task: JoinHandle<()>,
    node: NodeId,
    incarnation: u32,
}

impl Registration {
    /// Waits until the binder knows the node.
    pub(crate) async fn done(&self) {
        let mut done = self.done.clone();
        // The sender lives as long as the task, which ends only with the registration.
        let _ = done.wait_for(|done| *done).await;
    }

    /// Goes without a word, as in a crash.
    #[cfg(feature = "testkit")]
    pub(crate) fn abandon(self) {
        self.task.abort();
    }

    /// Tells the binder that the node stops in good order.
    pub(crate) async fn leave(self, client: &Client) {
        self.task.abort();
        if !*self.done.borrow() {
            return;
        }
        let leaving = async {
            let binder = client.locator().binder(client).await?;
            let caller = client.call().deadline(Duration::from_secs(1));
            binder.leave(&caller, self.node.0, self.incarnation).await
        };
        if let Err(error) = leaving.await {
            tracing::info!(%error, "the binder was not told; the lease will run out");
        }
    }
}

/// Begins to register.
pub(crate) fn start(client: Client, home: Arc<Home>, addresses: Vec<String>) -> Registration {
    let (sender, done) = watch::channel(false);
    let me = home.me;
    let entry = entry(&home, addresses);
    let task = tokio::spawn(keep(client, entry, sender));
    Registration {
        done,
        task,
        node: me.node,
        incarnation: me.incarnation.0,
    }
}

/// What the binder is told of a node.
pub(crate) fn entry(home: &Home, addresses: Vec<String>) -> NodeEntry {
    let me = home.me;
    NodeEntry {
        node: me.node.0,
        incarnation: me.incarnation.0,
        name: home.registry.name.clone(),
        addresses,
        classes: home.registry.classes.keys().map(|class| class.0).collect(),
        shards: home.shards.len() as u16,
        alive: true,
        last_heard: Timestamp::now(),
        labels: home.registry.labels.clone(),
        cordoned: false,
    }
}

async fn keep(client: Client, entry: NodeEntry, done: watch::Sender<bool>) {
    let mut complained = false;
    loop {
        match register(&client, &entry).await {
            Ok(pause) => {
                tracing::info!(node = %entry.name, "registered with the binder");
                complained = false;
                done.send_replace(true);
                while beat(&client, &entry).await {
                    tokio::time::sleep(pause).await;
                }
            }
            Err(error) => {
                if !complained {
                    tracing::warn!(%error, "not registered with the binder yet; trying on");
                    complained = true;
                }
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn register(client: &Client, entry: &NodeEntry) -> Result<Duration> {
    let binder = client.locator().binder(client).await?;
    let caller = client.call().deadline(ATTEMPT);
    let registered = binder.register(&caller, entry).await;
    registered.map_err(|error| match error {
        RegisterError::OldIncarnation(old) => crate::SystemError::new(
            crate::ErrorKind::OldIncarnation,
            format!(
                "the binder knows incarnation {} of this node already: is a copy of its store \
                 running elsewhere?",
                old.known
            ),
        ),
        RegisterError::BadLabels(bad) => {
            crate::SystemError::new(crate::ErrorKind::BadOperation, bad.reason)
        }
        RegisterError::System(error) => error,
    })
}

/// One heartbeat; false if the binder must be told everything again.
async fn beat(client: &Client, entry: &NodeEntry) -> bool {
    let beating = async {
        let binder = client.locator().binder(client).await?;
        let caller = client.call().deadline(ATTEMPT);
        binder
            .heartbeat(&caller, entry.node, entry.incarnation)
            .await
    };
    match beating.await {
        Ok(known) => known,
        Err(error) => {
            tracing::debug!(%error, "a heartbeat was not answered");
            false
        }
    }
}
