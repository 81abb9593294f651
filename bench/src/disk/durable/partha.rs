//! The client that calls cells, durably or not.

use std::time::Instant;

use futures_util::StreamExt as _;
use futures_util::stream;
use partha::Client;
use serde::{Deserialize, Serialize};

use crate::disk::load::{self, Caller, Pace};
use crate::disk::node;
use crate::figure::{Found, Latencies};
use crate::generated::null::Cell;

/// Objects found and bound at once before the calls.
const BINDING: usize = 256;

/// Calls of cells, each task at its own one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Cells {
    /// Where their node listens.
    pub(crate) address: String,
    /// Which.
    pub(crate) cells: Vec<String>,
    /// Calls that change them; or else calls that read them.
    pub(crate) durable: bool,
    /// None for a single call.
    pub(crate) pace: Option<Pace>,
    /// The process of the node.
    pub(crate) server: u32,
}

/// The cells of the calls.
struct Callee {
    client: Client,
    cells: Vec<Cell>,
    durable: bool,
}

impl Caller for Callee {
    async fn call(&self, n: u64) -> anyhow::Result<()> {
        // In no order that a cache could follow, yet each task at cells of its own where there are
        // as many cells as tasks: the factor is a prime.
        let cell = &self.cells[(n * 7_919 % self.cells.len() as u64) as usize];
        match self.durable {
            true => drop(cell.bump(&self.client).await?),
            false => drop(cell.call(&self.client, n).await?),
        }
        Ok(())
    }
}

/// The role of the client.
pub(crate) async fn run(told: Cells) -> anyhow::Result<Found> {
    let (client, _) = node::meet(&told.address).await?;
    let cells = node::parsed(&told.cells)?;
    let callee = Callee {
        client: client.clone(),
        cells: cells.into_iter().map(Cell::from_uid).collect(),
        durable: told.durable,
    };
    let Some(pace) = told.pace else {
        let (mut latencies, start) = (Latencies::default(), Instant::now());
        callee.call(0).await?;
        let took = start.elapsed();
        latencies.record(took);
        node::written_to_lmdb(&client, &told.address).await?;
        return load::summary(&latencies, took, 1);
    };
    // Finding and binding the objects is not what is measured.
    let bound: Vec<partha::Result<u64>> = stream::iter(&callee.cells)
        .map(async |cell| cell.call(&client, 0).await)
        .buffer_unordered(BINDING)
        .collect()
        .await;
    bound.into_iter().collect::<Result<Vec<_>, _>>()?;
    let addresses = [told.address];
    let before = node::work(&client, &addresses).await?;
    let found = load::drive(&callee, pace, &[told.server]).await?;
    if !told.durable {
        return Ok(found);
    }
    let after = node::work(&client, &addresses).await?;
    Ok(after.since(before, found))
}
