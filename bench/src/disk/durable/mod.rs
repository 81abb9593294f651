//! Durable calls, beside LMDB by itself on the same disk.
//!
//! A durable call changes its object and is answered when that is on disk: here the new state of a
//! cell and the saved reply, in one batch of the node's store. Clients call objects of their own,
//! so that nobody waits for a lock, and the store may put the batches of many into one sync.
//!
//! The peer is heed, used directly: transactions of as many puts as there are clients, which is the
//! most that a store can hope to find waiting. What it puts is what a call puts, learnt by looking
//! at a store before and after one call: either the same puts ([`Shape::Same`]), or one put of as
//! many bytes in all ([`Shape::One`]).

pub(crate) mod lmdb;
pub(crate) mod partha;

use std::path::PathBuf;

use tempfile::TempDir;

use super::load::Pace;
use super::node::{Making, Wishes};
use super::role::{self, Client, Server};
use super::stage::{self, Lazy};
use crate::figure::{Found, Metric, Parameters};
use crate::process::Running;
use crate::suite::{Benchmark, Plan, Plot, Setting, View};

pub(crate) use lmdb::{Puts, Shape};

pub(crate) const BENCHMARK: Benchmark = Benchmark {
    name: "durable",
    about: "calls that change their objects, each durable when it is answered",
    view: View {
        reference: Some("heed"),
        metrics: &[Metric::Rate, Metric::P50Us, Metric::Syncs],
        tall: true,
        plots: &[Plot::Curve {
            title: "Durable calls a second against clients",
            x: "clients",
            y: Metric::Rate,
        }],
    },
    on_request: false,
    plan,
};

fn plan(setting: &Setting) -> anyhow::Result<Plan> {
    let stage = Lazy::new(Stage::prepare);
    let mut cases = Vec::new();
    for (clients, rounds) in stage::clients(setting) {
        let pace = stage::pace(setting, clients as usize);
        let parameters = || Parameters::default().with("clients", clients);
        let often = (rounds, stage::takes(setting));
        let calls = |durable| move |stage: &Stage| stage.calls(pace, durable);
        let commits = |shape| move |stage: &Stage| stage.commits(pace, shape);
        cases.push(stage.case("partha", parameters(), often, calls(true)));
        cases.push(stage.case("heed", parameters(), often, commits(Shape::One)));
        cases.push(stage.case("heed-same-puts", parameters(), often, commits(Shape::Same)));
        if clients == 1 {
            cases.push(stage.case("partha-null", parameters(), often, calls(false)));
        }
    }
    Ok(Plan {
        cases,
        ..Plan::default()
    })
}

/// A node, its cells, and a folder for LMDB beside it.
struct Stage {
    node: Running,
    cells: Vec<String>,
    lmdb_dir: PathBuf,
    puts: Puts,
    /// Last, so that it goes when nobody has files in it any more.
    _folder: TempDir,
}

impl Stage {
    fn prepare() -> anyhow::Result<Self> {
        let folder = stage::folder()?;
        let store = folder.path().join("node");
        let server = Server::Node(Wishes::alone(store.clone()));
        let node = role::start("a node", &server)?;
        let making = Making {
            address: node.address().to_owned(),
            count: stage::CLIENTS_MAX,
            naming: None,
        };
        let cells: Vec<String> = role::run("a client", &Client::MakeCells(making))?;
        let before = lmdb::entries(&store)?;
        let once = partha::Cells {
            address: node.address().to_owned(),
            cells: cells[..1].to_vec(),
            durable: true,
            pace: None,
            server: node.pid(),
        };
        role::run::<Found>("a client", &Client::Cells(once))?;
        let puts = lmdb::difference(&before, &lmdb::entries(&store)?)?;
        let lmdb_dir = folder.path().join("lmdb");
        std::fs::create_dir_all(&lmdb_dir)?;
        Ok(Self {
            node,
            cells,
            lmdb_dir,
            puts,
            _folder: folder,
        })
    }

    fn calls(&self, pace: Pace, durable: bool) -> anyhow::Result<Found> {
        let cells = partha::Cells {
            address: self.node.address().to_owned(),
            cells: self.cells[..pace.clients].to_vec(),
            durable,
            pace: Some(pace),
            server: self.node.pid(),
        };
        role::run("the client of cells", &Client::Cells(cells))
    }

    fn commits(&self, pace: Pace, shape: Shape) -> anyhow::Result<Found> {
        let commits = lmdb::Commits {
            dir: self.lmdb_dir.clone(),
            puts: self.puts.clone(),
            shape,
            pace,
        };
        role::run("the client of LMDB", &Client::Lmdb(commits))
    }
}
