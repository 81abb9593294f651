//! Calls a second against objects at a node, and durable calls of one object against those who want
//! it: both should not fall.

use tempfile::TempDir;

use super::{first_uids, store_cells};
use crate::disk::durable::partha::Cells;
use crate::disk::load::Pace;
use crate::disk::node::Wishes;
use crate::disk::role::{self, Client, Server};
use crate::disk::stage::{self, Lazy};
use crate::figure::{Found, Metric, Parameters};
use crate::process::Running;
use crate::suite::{Benchmark, Effort, Plan, Plot, Setting, View};

/// Objects that the calls are spread over.
const OBJECTS: [u64; 4] = [1, 100, 10_000, 100_000];
/// Calls under way while they are.
const OUTSTANDING: usize = 64;
/// Clients of one object.
const CLIENTS: [u64; 4] = [1, 16, 64, 256];

pub(crate) const GROWTH: Benchmark = Benchmark {
    name: "growth",
    about: "calls that read, spread over objects in memory",
    view: View {
        reference: None,
        metrics: &[Metric::Rate, Metric::P50Us, Metric::ServerCpuUs],
        tall: true,
        plots: &[Plot::Curve {
            title: "Calls a second against objects, 64 outstanding",
            x: "objects",
            y: Metric::Rate,
        }],
    },
    on_request: false,
    plan: plan_growth,
};

pub(crate) const WAITERS: Benchmark = Benchmark {
    name: "waiters",
    about: "durable calls of one object, which take turns",
    view: View {
        reference: None,
        metrics: &[Metric::Rate, Metric::P50Us, Metric::ServerCpuUs],
        tall: true,
        plots: &[Plot::Curve {
            title: "Durable calls a second of one object against its clients",
            x: "clients",
            y: Metric::Rate,
        }],
    },
    on_request: false,
    plan: plan_waiters,
};

fn plan_growth(setting: &Setting) -> anyhow::Result<Plan> {
    let most = match setting.effort {
        Effort::Smoke => 10_000,
        _ => 100_000,
    };
    let filled = Lazy::new(move || Filled::start(most));
    let mut cases = Vec::new();
    for objects in OBJECTS.into_iter().filter(|&objects| objects <= most) {
        let pace = stage::pace(setting, OUTSTANDING);
        let parameters = Parameters::default().with("objects", objects);
        let often = (setting.rounds, stage::takes(setting));
        cases.push(filled.case("partha", parameters, often, move |filled| {
            filled.calls(objects, pace, false)
        }));
    }
    Ok(Plan {
        cases,
        ..Plan::default()
    })
}

fn plan_waiters(setting: &Setting) -> anyhow::Result<Plan> {
    let filled = Lazy::new(|| Filled::start(1));
    let mut cases = Vec::new();
    for clients in CLIENTS {
        let pace = stage::pace(setting, clients as usize);
        let parameters = Parameters::default().with("clients", clients);
        let often = (setting.rounds, stage::takes(setting));
        cases.push(filled.case("partha", parameters, often, move |filled| {
            filled.calls(1, pace, true)
        }));
    }
    Ok(Plan {
        cases,
        ..Plan::default()
    })
}

/// A node with cells in its store.
struct Filled {
    node: Running,
    cells: Vec<String>,
    /// Last, so that it goes when nobody has files in it any more.
    _folder: TempDir,
}

impl Filled {
    fn start(objects: u64) -> anyhow::Result<Self> {
        let folder = stage::folder()?;
        let store = folder.path().join("node");
        let filled = store_cells(&store, objects)?;
        let node = role::start("a node", &Server::Node(Wishes::alone(store)))?;
        Ok(Self {
            node,
            cells: first_uids(&filled, objects),
            _folder: folder,
        })
    }

    fn calls(&self, objects: u64, pace: Pace, durable: bool) -> anyhow::Result<Found> {
        let cells = Cells {
            address: self.node.address().to_owned(),
            cells: self.cells[..objects as usize].to_vec(),
            durable,
            pace: Some(pace),
            server: self.node.pid(),
        };
        role::run("the client of cells", &Client::Cells(cells))
    }
}
