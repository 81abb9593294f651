//! Finding an object: from its name to the answer of its first call.
//!
//! A system of four processes: naming service, binder, a node, and the client. The objects are in
//! the node's store and not in its memory. A client that has been at work already looks up the name
//! of one, and calls it: that asks the naming service for the object's identity (lookup), the
//! binder for its node (locate), the node for a binding (initiate), and then makes the call, for
//! which the node brings the object into memory (activate). Where the client knows the node
//! already, it does not ask the binder again. A call of an object that is bound is the null call to
//! compare that with.
//!
//! Round trips are counted on the wire: everybody is reached through [`forward`], which counts how
//! often the direction of the traffic turns. The handshake that a new connection begins with is one
//! more, and not counted. Times are taken in a second system without that, with
//! the client on one core and the servers on another.

pub(crate) mod client;
mod forward;

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use self::client::{Binds, How};
use self::forward::Forwarder;
use super::node::{Making, Wishes};
use super::role::{self, Client, Server};
use super::stage::{self, Lazy};
use crate::figure::{Found, Metric, Parameters};
use crate::process::{Cores, Running};
use crate::suite::{Benchmark, Effort, Plan, Setting, View};

/// Objects with names, each found once a round.
const OBJECTS: usize = 500;
/// Objects found while round trips are counted.
const COUNTED: usize = 20;

pub(crate) const BENCHMARK: Benchmark = Benchmark {
    name: "bind",
    about: "an object found by its name and called, from the store into memory",
    view: View {
        reference: None,
        metrics: &[Metric::P50Us, Metric::P99Us, Metric::RoundTrips],
        tall: false,
        plots: &[],
    },
    on_request: false,
    plan,
};

fn plan(setting: &Setting) -> anyhow::Result<Plan> {
    let (timed, counted) = (
        Lazy::new(|| System::start(false)),
        Lazy::new(|| System::start(true)),
    );
    let objects = match setting.effort {
        Effort::Smoke => OBJECTS / 10,
        _ => OBJECTS,
    };
    let mut cases = Vec::new();
    for how in How::ALL {
        let parameters = || Parameters::default().with("object", how.label());
        let often = (setting.rounds, Duration::from_millis(300));
        cases.push(timed.case("partha", parameters(), often, move |system| {
            system.binds(objects, how)
        }));
        let once = (1, Duration::from_millis(300));
        cases.push(
            counted.case("partha-counted", parameters(), once, move |system| {
                system.round_trips(how)
            }),
        );
    }
    Ok(Plan {
        cases,
        ..Plan::default()
    })
}

/// A whole system.
struct System {
    node: Running,
    _services: [Running; 2],
    /// Where the client meets the naming service, and the node if it does not ask the binder.
    naming: String,
    forwarders: Vec<Arc<Forwarder>>,
    client_core: Option<usize>,
    /// Last, so that it goes when nobody has files in it any more.
    _folder: TempDir,
}

impl System {
    /// Starts everybody, reached through forwarders if round trips are to be counted.
    fn start(counting: bool) -> anyhow::Result<Self> {
        let folder = stage::folder()?;
        // Where the scheduler puts them makes a difference of three times, from run to run.
        let (server_core, client_core) = Cores::Split.choose()?;
        let ports = role::free_ports(3)?;
        let mut forwarders = Vec::new();
        let mut wishes = |index: usize, name: &str, naming: &Option<String>| {
            let listen = format!("127.0.0.1:{}", ports[index]);
            let advertise = match counting {
                true => {
                    let forwarder = Forwarder::start(&listen)?;
                    let address = forwarder.address().to_string();
                    forwarders.push(forwarder);
                    Some(address)
                }
                false => None,
            };
            anyhow::Ok(Wishes {
                listen,
                advertise,
                naming: naming.clone(),
                core: server_core,
                ..Wishes::alone(folder.path().join(name))
            })
        };
        let direct = Some(format!("127.0.0.1:{}", ports[0]));
        let naming = wishes(0, "naming", &direct)?;
        let address = naming
            .advertise
            .clone()
            .unwrap_or_else(|| naming.listen.clone());
        let binder = wishes(1, "binder", &direct)?;
        let node = wishes(2, "node", &direct)?;
        let services = [
            role::start("the naming service", &Server::Naming(naming))?,
            role::start("the binder", &Server::Binder(binder))?,
        ];
        let node = role::start("a node", &Server::Node(node))?;
        let making = Making {
            address: node.address().to_owned(),
            count: OBJECTS + 1,
            naming: direct,
        };
        role::run::<Vec<String>>("a client", &Client::MakeCells(making))?;
        Ok(Self {
            node,
            _services: services,
            naming: address,
            forwarders,
            client_core,
            _folder: folder,
        })
    }

    fn binds(&self, objects: usize, how: How) -> anyhow::Result<Found> {
        let binds = Binds {
            naming: self.naming.clone(),
            node: self.node.address().to_owned(),
            objects,
            how,
            stop_and_go: false,
            core: self.client_core,
        };
        role::run("a client that finds objects", &Client::Binds(binds))
    }

    /// Round trips for each object.
    fn round_trips(&self, how: How) -> anyhow::Result<Found> {
        let binds = Binds {
            naming: self.naming.clone(),
            node: self.node.address().to_owned(),
            objects: COUNTED,
            how,
            stop_and_go: true,
            core: self.client_core,
        };
        // Warmed up, it waits for a word; then again, before it ends and says good-bye.
        let mut client = role::stay("a client that finds objects", &Client::Binds(binds))?;
        let before = self.round_trips_so_far();
        let done = client.tell("go")?;
        anyhow::ensure!(done == "done", "a client that finds objects said `{done}`");
        let count = self.round_trips_so_far() - before;
        drop(client);
        let each = count as f64 / COUNTED as f64;
        Ok(Found::default().with(Metric::RoundTrips, each))
    }

    /// Without the handshake that each connection begins with.
    fn round_trips_so_far(&self) -> u64 {
        let each = |of: &Arc<Forwarder>| of.turns().saturating_sub(of.connections());
        self.forwarders.iter().map(each).sum()
    }
}
