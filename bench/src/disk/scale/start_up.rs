//! The start of a node over a store with many objects, to the answer of the first call.

use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::store_cells;
use crate::disk::durable::partha::Cells;
use crate::disk::node::Wishes;
use crate::disk::role::{self, Client, Server};
use crate::disk::stage::{self, Lazy};
use crate::figure::{Found, Metric, Parameters};
use crate::suite::{Benchmark, Effort, Plan, Setting, View};
use crate::usage;

/// Stored objects of a full run, and of any other.
const OBJECTS_FULL: u64 = 10_000_000;
const OBJECTS: u64 = 100_000;

pub(crate) const BENCHMARK: Benchmark = Benchmark {
    name: "start-up",
    about: "the start of a node with stored objects, its store checked",
    view: View {
        reference: None,
        metrics: &[Metric::TimeMs, Metric::P50Us, Metric::ServerPeakMib],
        tall: true,
        plots: &[],
    },
    on_request: false,
    plan,
};

fn plan(setting: &Setting) -> anyhow::Result<Plan> {
    let sizes = match setting.effort {
        Effort::Full => vec![OBJECTS, OBJECTS_FULL],
        Effort::Smoke => vec![OBJECTS / 10],
        Effort::Quick | Effort::Normal => vec![OBJECTS],
    };
    let mut cases = Vec::new();
    for objects in sizes {
        let stored = Lazy::new(move || Stored::make(objects));
        let parameters = Parameters::default().with("objects", objects);
        let often = (setting.rounds.min(3), takes(objects));
        cases.push(stored.case("partha", parameters, often, Stored::start));
    }
    Ok(Plan {
        cases,
        ..Plan::default()
    })
}

/// The first run fills the store, at 200,000 objects a second or so, and is refused where the disk
/// has no room for that.
fn takes(objects: u64) -> Duration {
    Duration::from_millis(500 + objects / 3 / 200)
}

/// A store with objects.
struct Stored {
    first: String,
    folder: TempDir,
}

impl Stored {
    fn make(objects: u64) -> anyhow::Result<Self> {
        let folder = stage::folder()?;
        let filled = store_cells(&folder.path().join("node"), objects)?;
        Ok(Self {
            first: filled.uid(0).to_string(),
            folder,
        })
    }

    fn start(&self) -> anyhow::Result<Found> {
        let wishes = Wishes::alone(self.folder.path().join("node"));
        let begun = Instant::now();
        let node = role::start("a node", &Server::Node(wishes))?;
        let started = begun.elapsed();
        let first = Cells {
            address: node.address().to_owned(),
            cells: vec![self.first.clone()],
            durable: false,
            pace: None,
            server: node.pid(),
        };
        let found: Found = role::run("a client", &Client::Cells(first))?;
        Ok(found
            .with(Metric::TimeMs, started.as_secs_f64() * 1e3)
            .with_peak(usage::peak_bytes(node.pid())))
    }
}
