//! The client that finds objects by their names.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use partha::Client;
use serde::{Deserialize, Serialize};

use crate::disk::{load, role};
use crate::figure::{Found, Latencies};
use crate::generated::null::Cell;
use crate::process;

/// What is timed, or counted, of each object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum How {
    /// Lookup, locate, initiate, first call, by a client that has no connection to the node: that
    /// takes a handshake more.
    Cold,
    /// Lookup, initiate, first call, by a client that has called another object of the node.
    Known,
    /// A call of an object that is bound.
    Bound,
}

impl How {
    pub(super) const ALL: [Self; 3] = [Self::Cold, Self::Known, Self::Bound];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Cold => "passive, at an unknown node",
            Self::Known => "passive, at a known node",
            Self::Bound => "bound",
        }
    }
}

/// Objects to be found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Binds {
    /// Where the naming service is met.
    pub(crate) naming: String,
    /// Where the node listens.
    pub(crate) node: String,
    /// The first so many; there is one more.
    pub(crate) objects: usize,
    pub(crate) how: How,
    /// Says `ready` before the objects are found, and `done` after, and waits for a line or the
    /// end of standard input then.
    pub(crate) stop_and_go: bool,
    /// The core to stay on.
    pub(crate) core: Option<usize>,
}

/// The role of the client.
pub(crate) async fn run(told: Binds) -> anyhow::Result<Found> {
    if let Some(core) = told.core {
        process::keep_to(core)?;
    }
    passivate(&told).await?;
    let mut clients = Vec::new();
    for _ in 0..if told.how == How::Cold {
        told.objects
    } else {
        1
    } {
        let client = Client::connect(told.naming.clone()).await?;
        // It has been at work: its ways to the naming service and to the binder are there.
        client.naming()?.lookup(&client, &name(0)).await?;
        client.locator().nodes(&client).await?;
        clients.push(client);
    }
    let client = &clients[0];
    // What was found is kept: letting go of it would be one more message.
    let (mut bound, mut kept) = (Vec::new(), Vec::new());
    match told.how {
        How::Cold => {}
        How::Known => kept.push(find(client, told.objects).await?),
        How::Bound => {
            for index in 0..told.objects {
                bound.push(find(client, index).await?);
            }
        }
    }
    if told.stop_and_go {
        role::wait("ready").await?;
    }
    let (mut latencies, mut took) = (Latencies::default(), Duration::ZERO);
    for index in 0..told.objects {
        let start = Instant::now();
        match told.how {
            How::Cold => kept.push(find(&clients[index], index).await?),
            How::Known => kept.push(find(client, index).await?),
            How::Bound => drop(bound[index].call(client, 7).await?),
        }
        let latency = start.elapsed();
        latencies.record(latency);
        took += latency;
    }
    if told.stop_and_go {
        role::wait("done").await?;
    }
    load::summary(&latencies, took, 1)
}

/// The name of an object.
pub(crate) fn name(index: usize) -> String {
    format!("/bench/{index}")
}

/// Looks an object up and calls it.
async fn find(client: &Client, index: usize) -> anyhow::Result<Cell> {
    let entry = client.naming()?.lookup(client, &name(index)).await?;
    let cell = Cell::from_uid(entry.object);
    cell.call(client, 7).await?;
    Ok(cell)
}

/// Takes the objects out of the node's memory, where earlier clients have brought them.
async fn passivate(told: &Binds) -> anyhow::Result<()> {
    let client = Client::connect(told.naming.clone()).await?;
    let node = client.node_at(&told.node).await?;
    for index in 0..told.objects {
        let object = client.naming()?.lookup(&client, &name(index)).await?.object;
        let evicted = node.manager().evict(&client, object).await;
        evicted.with_context(|| format!("object {index} stays in memory"))?;
    }
    Ok(())
}
