//! What copies cost: calls and transfers at accounts with three copies each, beside the same at
//! accounts without.
//!
//! A system of five processes: naming service, binder, three nodes. The accounts with copies have
//! one at each of the nodes, and are led by the first or the second, where those without are. A
//! deposit is a call outside of actions, a transfer an action over an account at the first node and
//! one at the second. A deposit is an entry of the object's log, on the disks of all three before
//! it is answered; with the policy active the other two execute it, too. In an action each call is
//! an entry with the policies coordinator-cohort and active, and none with single-copy passive.
//!
//! Messages between shards are counted by `binder/tests/copies_costs.rs`; the syncs here are those
//! of all three nodes for each call, which share them if there are many.

pub(crate) mod client;

use tempfile::TempDir;

use self::client::{COPIES, Copied, Load, Making, What};
use super::load::Pace;
use super::node::Wishes;
use super::role::{self, Client, Server};
use super::stage::{self, Lazy};
use crate::figure::{Found, Metric, Parameters};
use crate::process::Running;
use crate::suite::{Benchmark, Effort, Plan, Setting, View};

/// Clients at once.
const CLIENTS: [u64; 2] = [1, 64];
/// Accounts of each kind at each of the two nodes; each client has its own.
const ACCOUNTS: usize = 64;
pub(crate) const BENCHMARK: Benchmark = Benchmark {
    name: "copies",
    about: "accounts with three copies beside accounts without",
    view: View {
        reference: Some("partha-plain"),
        metrics: &[Metric::Rate, Metric::P50Us, Metric::Syncs],
        tall: true,
        plots: &[],
    },
    on_request: false,
    plan,
};

fn plan(setting: &Setting) -> anyhow::Result<Plan> {
    let accounts = match setting.effort {
        Effort::Smoke => CLIENTS[1] as usize / 4,
        _ => ACCOUNTS,
    };
    let system = Lazy::new(move || System::start(accounts));
    let mut cases = Vec::new();
    for what in What::ALL {
        for clients in CLIENTS {
            let pace = stage::pace(setting, clients as usize);
            let parameters = || {
                Parameters::default()
                    .with("what", what.label())
                    .with("clients", clients)
            };
            let often = (setting.rounds, stage::takes(setting));
            for (kind, (_, peer)) in Copied::ALL.into_iter().enumerate() {
                cases.push(system.case(peer, parameters(), often, move |system| {
                    system.load(what, kind, pace)
                }));
            }
        }
    }
    Ok(Plan {
        cases,
        ..Plan::default()
    })
}

/// A whole system with its accounts.
struct System {
    nodes: Vec<Running>,
    /// Of each kind those of the first node and the second.
    accounts: Vec<[Vec<String>; 2]>,
    naming: String,
    _services: [Running; 2],
    /// Last, so that it goes when nobody has files in it any more.
    _folder: TempDir,
}

impl System {
    fn start(accounts: usize) -> anyhow::Result<Self> {
        let folder = stage::folder()?;
        let port = role::free_ports(1)?[0];
        let naming = format!("127.0.0.1:{port}");
        let wishes = |name: &str| Wishes {
            naming: Some(naming.clone()),
            ..Wishes::alone(folder.path().join(name))
        };
        let first = Wishes {
            listen: naming.clone(),
            ..wishes("naming")
        };
        let services = [
            role::start("the naming service", &Server::Naming(first))?,
            role::start("the binder", &Server::Binder(wishes("binder")))?,
        ];
        let mut nodes = Vec::with_capacity(usize::from(COPIES));
        for name in ["a", "b", "c"] {
            nodes.push(role::start("a node", &Server::Node(wishes(name)))?);
        }
        let make = |(copies, _)| -> anyhow::Result<[Vec<String>; 2]> {
            let making = Making {
                naming: naming.clone(),
                nodes: [nodes[0].address().to_owned(), nodes[1].address().to_owned()],
                accounts,
                copies,
            };
            role::run("a client", &Client::MakeCopies(making))
        };
        Ok(Self {
            accounts: Copied::ALL
                .into_iter()
                .map(make)
                .collect::<anyhow::Result<_>>()?,
            nodes,
            naming,
            _services: services,
            _folder: folder,
        })
    }

    fn load(&self, what: What, kind: usize, pace: Pace) -> anyhow::Result<Found> {
        let load = Load {
            naming: self.naming.clone(),
            nodes: self
                .nodes
                .iter()
                .map(|it| it.address().to_owned())
                .collect(),
            accounts: self.accounts[kind].clone(),
            what,
            pace,
            servers: self.nodes.iter().map(Running::pid).collect(),
        };
        role::run("the client of accounts", &Client::Copies(load))
    }
}
