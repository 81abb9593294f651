//! Calls over loopback TCP beside peers, and calls within one process.
//!
//! Modules: [`peer`] says who is measured, [`peers`] how each of them serves and calls, [`cpp`]
//! compiles those in C++, [`load`] is how calls are made and timed, [`slow_reader`] is a load
//! beside somebody who reads nothing, [`strace`] counts system calls. Client and server are
//! processes of their own, each on the core it is told.

mod cpp;
pub(crate) mod load;
pub(crate) mod peer;
pub(crate) mod peers;
mod slow_reader;
mod strace;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum as _};

use crate::figure::{Found, Metric, Parameters};
use crate::process::{self, Cores, Running, Start};
use crate::suite::{Absent, Benchmark, Case, Plan, Plot, Setting, View};
use crate::usage;
use load::{Load, Work};
use peer::Peer;

/// A run that takes longer than its time by this much has failed.
const GRACE: Duration = Duration::from_secs(30);

/// Connections of the load with many connections, and the calls under way on each.
const CONNECTIONS: (u64, u64) = (16, 8);

/// Calls under way in the echoes.
const ECHO_OUTSTANDING: u64 = 8;

/// The largest message that the foreign face of a node takes.
const FOREIGN_BYTES_MAX: u64 = 1 << 20;

/// Objects that are called where there are to be many.
const OBJECTS: u64 = 1_000;

const RATE: &[Metric] = &[
    Metric::Rate,
    Metric::P50Us,
    Metric::P99Us,
    Metric::ClientCpuUs,
    Metric::ServerCpuUs,
    Metric::ServerPeakMib,
];

/// Of benchmarks that have no peer.
const OURS_ALONE: View = View {
    reference: None,
    metrics: RATE,
    tall: false,
    plots: &[],
};

pub(crate) const BENCHMARKS: &[Benchmark] = &[
    Benchmark {
        name: "null",
        about: "a call that takes a u64 and returns it",
        on_request: false,
        view: View {
            reference: Some("tarpc"),
            metrics: RATE,
            tall: false,
            plots: &[
                Plot::Latencies {
                    title: "Latency, 1 outstanding, client and server on one core",
                    of: "1 outstanding, same core",
                },
                Plot::Latencies {
                    title: "Latency, 1 outstanding, client and server on two cores",
                    of: "1 outstanding, two cores",
                },
                Plot::Latencies {
                    title: "Latency, 64 outstanding",
                    of: "64 outstanding, two cores",
                },
            ],
        },
        plan: plan_null,
    },
    Benchmark {
        name: "outstanding",
        about: "null calls on one connection, by calls under way",
        on_request: false,
        view: View {
            reference: Some("tarpc"),
            metrics: &[Metric::Rate, Metric::P50Us, Metric::P99Us],
            tall: true,
            plots: &[
                Plot::Curve {
                    title: "Throughput against outstanding calls",
                    x: "outstanding",
                    y: Metric::Rate,
                },
                Plot::Curve {
                    title: "Median latency against outstanding calls",
                    x: "outstanding",
                    y: Metric::P50Us,
                },
            ],
        },
        plan: plan_outstanding,
    },
    Benchmark {
        name: "connections",
        about: "null calls, 8 under way on each connection, by connections",
        on_request: false,
        view: View {
            reference: Some("tarpc"),
            metrics: &[Metric::Rate, Metric::P50Us, Metric::P99Us],
            tall: true,
            plots: &[Plot::Curve {
                title: "Throughput against clients (connections, 8 calls under way on each)",
                x: "connections",
                y: Metric::Rate,
            }],
        },
        plan: plan_connections,
    },
    Benchmark {
        name: "echo",
        about: "a call that takes bytes and returns them, 8 under way",
        on_request: false,
        view: View {
            reference: Some("raw"),
            metrics: RATE,
            tall: false,
            plots: &[Plot::Curve {
                title: "Echoes against the bytes of each",
                x: "bytes",
                y: Metric::Rate,
            }],
        },
        plan: plan_echo,
    },
    Benchmark {
        name: "connect",
        about: "a connection opened, used for one null call, closed",
        on_request: false,
        view: View {
            reference: Some("raw"),
            metrics: RATE,
            tall: false,
            plots: &[Plot::Bars {
                title: "Connect, one call, close",
                y: Metric::Rate,
            }],
        },
        plan: plan_connect,
    },
    Benchmark {
        name: "inside",
        about: "null calls from object to object of one process",
        on_request: false,
        view: View {
            reference: Some("oneshot"),
            metrics: &[Metric::Rate, Metric::P50Us, Metric::P99Us],
            tall: false,
            plots: &[],
        },
        plan: plan_inside,
    },
    Benchmark {
        name: "shards",
        about: "null calls on 1,000 objects, 8 connections with 16 under way on each, any core",
        on_request: false,
        view: OURS_ALONE,
        plan: plan_shards,
    },
    slow_reader::BENCHMARK,
    strace::BENCHMARK,
];

/// What the hidden command `serve` is told.
#[derive(Args)]
pub(crate) struct ServeArguments {
    peer: Peer,
    /// Threads with objects, where the peer has such
    #[arg(long, default_value_t = 1)]
    shards: u16,
    /// The core to stay on
    #[arg(long)]
    core: Option<usize>,
}

/// What the hidden command `drive` is told.
#[derive(Args)]
pub(crate) struct DriveArguments {
    peer: Peer,
    /// Of the server, unless the peer is its own
    #[arg(long)]
    address: Option<SocketAddr>,
    #[command(flatten)]
    load: Load,
    /// The core to stay on
    #[arg(long)]
    core: Option<usize>,
}

/// The role of a server: serves until standard input ends.
pub(crate) fn serve(arguments: &ServeArguments) -> anyhow::Result<()> {
    block_on(
        arguments.core,
        peer::serve(arguments.peer, arguments.shards),
    )
}

/// The role of a client: one run, its figures on standard output.
pub(crate) fn drive(arguments: &DriveArguments) -> anyhow::Result<()> {
    let load = arguments.load;
    let limit = Duration::from_millis(load.warm_up_ms + load.measure_ms) + GRACE;
    let found = block_on(arguments.core, async {
        let run = peer::drive(arguments.peer, arguments.address, load);
        let run = tokio::time::timeout(limit, run).await;
        run.with_context(|| format!("no result after {limit:?}"))?
    })?;
    println!("{}", serde_json::to_string(&found)?);
    Ok(())
}

/// Runs `work` on this thread, kept to the core if there is one.
fn block_on<T>(
    core: Option<usize>,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    core.map_or(Ok(()), process::keep_to)?;
    process::block_on(work)
}

fn plan_null(setting: &Setting) -> anyhow::Result<Plan> {
    let loads = [
        (None, 1, Cores::Same),
        (None, 1, Cores::Split),
        (None, 64, Cores::Split),
        (None, 256, Cores::Split),
        (Some(CONNECTIONS.0), CONNECTIONS.1, Cores::Split),
    ];
    let each = loads.map(|(connections, outstanding, cores)| {
        let parameters = match connections {
            Some(connections) => Parameters::default().with("connections", connections),
            None => Parameters::default(),
        };
        let where_they_run = match cores {
            Cores::Same => "same core",
            Cores::Split | Cores::Any => "two cores",
        };
        let load = Load {
            connections: connections.unwrap_or(1) as usize,
            outstanding: outstanding as usize,
            ..load_of(setting, Work::Null)
        };
        let parameters = parameters.with("outstanding", outstanding);
        (parameters.with("cores", where_they_run), cores, load)
    });
    Ok(beside(&Peer::SERVERS, setting, setting.rounds, &each))
}

/// Each of the loads on each of the peers, and who of them is absent.
fn beside(
    peers: &[Peer],
    setting: &Setting,
    rounds: usize,
    loads: &[(Parameters, Cores, Load)],
) -> Plan {
    let servers = Servers::default();
    let mut plan = Plan::default();
    let mut here = Vec::new();
    for &peer in peers {
        match cpp::missing(peer) {
            None => here.push(peer),
            Some(why) => plan.absent.push(Absent {
                peer: peer.name(),
                why,
            }),
        }
    }
    for (parameters, cores, load) in loads {
        for &peer in &here {
            let run = Run {
                peer,
                shards: 1,
                cores: *cores,
                load: *load,
            };
            plan.cases
                .push(run.case(&servers, parameters.clone(), rounds, setting));
        }
    }
    plan
}

/// Loads that differ in one parameter.
fn curve(
    name: &'static str,
    values: &[u64],
    load: impl Fn(u64) -> Load,
) -> Vec<(Parameters, Cores, Load)> {
    let each = values.iter().map(|&value| {
        let parameters = Parameters::default().with(name, value);
        (parameters, Cores::Split, load(value))
    });
    each.collect()
}

fn plan_outstanding(setting: &Setting) -> anyhow::Result<Plan> {
    let values = setting.thin(&[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024]);
    let loads = curve("outstanding", &values, |outstanding| Load {
        outstanding: outstanding as usize,
        ..load_of(setting, Work::Null)
    });
    let rounds = setting.curve_rounds();
    Ok(beside(&Peer::CURVES, setting, rounds, &loads))
}

fn plan_connections(setting: &Setting) -> anyhow::Result<Plan> {
    let values = setting.thin(&[1, 2, 4, 8, 16, 32, 64]);
    let loads = curve("connections", &values, |connections| Load {
        connections: connections as usize,
        outstanding: CONNECTIONS.1 as usize,
        ..load_of(setting, Work::Null)
    });
    let rounds = setting.curve_rounds();
    Ok(beside(&Peer::CURVES, setting, rounds, &loads))
}

fn plan_echo(setting: &Setting) -> anyhow::Result<Plan> {
    let loads = curve("bytes", &[1 << 10, 64 << 10, 1 << 20], |bytes| Load {
        bytes: bytes as usize,
        outstanding: ECHO_OUTSTANDING as usize,
        ..load_of(setting, Work::Echo)
    });
    let mut plan = beside(&Peer::SERVERS, setting, setting.rounds, &loads);
    let foreign = Peer::ParthaForeign.name();
    let fits = |case: &Case| case.parameters.number("bytes") < Some(FOREIGN_BYTES_MAX);
    plan.cases.retain(|case| case.peer != foreign || fits(case));
    plan.absent.push(Absent {
        peer: foreign,
        why: "an argument of 1 MiB: the foreign face takes messages of 1 MiB, framing included"
            .to_owned(),
    });
    Ok(plan)
}

fn plan_connect(setting: &Setting) -> anyhow::Result<Plan> {
    let parameters = Parameters::default().with("order", "one after the other");
    let loads = [(parameters, Cores::Split, load_of(setting, Work::Connect))];
    let mut plan = beside(&Peer::SERVERS, setting, setting.rounds, &loads);
    let omniorb = Peer::Omniorb.name();
    plan.cases.retain(|case| case.peer != omniorb);
    if plan.absent.iter().all(|absent| absent.peer != omniorb) {
        plan.absent.push(Absent {
            peer: omniorb,
            why: "its clients cannot close a connection: it is closed once idle".to_owned(),
        });
    }
    Ok(plan)
}

fn plan_inside(setting: &Setting) -> anyhow::Result<Plan> {
    let servers = Servers::default();
    let mut plan = Plan::default();
    for outstanding in [1, 64, 256] {
        for peer in Peer::INSIDE {
            let run = Run {
                peer,
                shards: 1,
                // Two threads of one process: they are one client.
                cores: Cores::Any,
                load: Load {
                    outstanding: outstanding as usize,
                    ..load_of(setting, Work::Null)
                },
            };
            let parameters = Parameters::default().with("outstanding", outstanding);
            plan.cases
                .push(run.case(&servers, parameters, setting.rounds, setting));
        }
    }
    Ok(plan)
}

fn plan_shards(setting: &Setting) -> anyhow::Result<Plan> {
    let servers = Servers::default();
    let mut plan = Plan::default();
    for shards in [1, 2] {
        let run = Run {
            peer: Peer::Partha,
            shards,
            cores: Cores::Any,
            load: Load {
                connections: 8,
                outstanding: 16,
                objects: OBJECTS as usize,
                ..load_of(setting, Work::Null)
            },
        };
        let parameters = Parameters::default().with("shards", u64::from(shards));
        plan.cases
            .push(run.case(&servers, parameters, setting.rounds, setting));
    }
    Ok(plan)
}

fn load_of(setting: &Setting, work: Work) -> Load {
    Load {
        work,
        bytes: 0,
        connections: 1,
        outstanding: 1,
        objects: 1,
        warm_up_ms: setting.warm_up.as_millis() as u64,
        measure_ms: setting.measure.as_millis() as u64,
        server_pid: None,
        stopped_reader: false,
    }
}

/// One load on one peer.
#[derive(Clone, Copy)]
struct Run {
    peer: Peer,
    shards: u16,
    cores: Cores,
    load: Load,
}

/// Servers of a benchmark, started when they are needed first. They stay until its end: an idle one
/// costs nothing.
#[derive(Clone, Default)]
struct Servers(Rc<RefCell<BTreeMap<ServerKey, Rc<Running>>>>);

/// Of whom, with how many shards, on which core.
type ServerKey = (Peer, u16, Option<usize>);

impl Servers {
    fn of(&self, peer: Peer, shards: u16, core: Option<usize>) -> anyhow::Result<Rc<Running>> {
        let mut servers = self.0.borrow_mut();
        if let Some(server) = servers.get(&(peer, shards, core)) {
            return Ok(Rc::clone(server));
        }
        let what = format!("the server of {}", peer.name());
        let command = serve_command(peer, shards, core)?;
        let server = Rc::new(Running::start(&what, command, Start::Ended)?);
        servers.insert((peer, shards, core), Rc::clone(&server));
        Ok(server)
    }
}

impl Run {
    fn case(
        self,
        servers: &Servers,
        parameters: Parameters,
        rounds: usize,
        setting: &Setting,
    ) -> Case {
        let servers = servers.clone();
        Case {
            peer: self.peer.name(),
            parameters,
            rounds,
            takes: setting.run_takes(),
            run: Box::new(move || self.make(&servers)),
        }
    }

    fn make(self, servers: &Servers) -> anyhow::Result<Found> {
        let (server_core, client_core) = self.cores.choose()?;
        let what = format!("the client of {}", self.peer.name());
        if Peer::INSIDE.contains(&self.peer) {
            let command = drive_command(self.peer, None, self.load, client_core)?;
            return process::run_client(&what, command, "");
        }
        let server = servers.of(self.peer, self.shards, server_core)?;
        let load = Load {
            server_pid: Some(server.pid()),
            ..self.load
        };
        usage::forget_peak(server.pid());
        let command = drive_command(self.peer, Some(server.address()), load, client_core)?;
        let found: Found = process::run_client(&what, command, "")?;
        Ok(found.with_peak(usage::peak_bytes(server.pid())))
    }
}

fn serve_command(peer: Peer, shards: u16, core: Option<usize>) -> anyhow::Result<Command> {
    let mut command = command_of(peer, "serve")?;
    command.args(["--shards", &shards.to_string()]);
    if let Some(core) = core {
        command.args(["--core", &core.to_string()]);
    }
    Ok(command)
}

/// The program of a peer in one of its two roles.
fn command_of(peer: Peer, role: &str) -> anyhow::Result<Command> {
    if let Some(program) = cpp::program(peer)? {
        let mut command = Command::new(program);
        command.arg(role);
        return Ok(command);
    }
    let mut command = process::ourselves(role)?;
    command.arg(peer.name());
    Ok(command)
}

fn drive_command(
    peer: Peer,
    address: Option<&str>,
    load: Load,
    core: Option<usize>,
) -> anyhow::Result<Command> {
    let mut command = command_of(peer, "drive")?;
    let work = load.work.to_possible_value().expect("no work is hidden");
    command.args(["--work", work.get_name()]);
    let numbers = [
        ("--bytes", load.bytes as u64),
        ("--connections", load.connections as u64),
        ("--outstanding", load.outstanding as u64),
        ("--objects", load.objects as u64),
        ("--warm-up-ms", load.warm_up_ms),
        ("--measure-ms", load.measure_ms),
    ];
    for (option, number) in numbers {
        command.args([option, &number.to_string()]);
    }
    if let Some(pid) = load.server_pid {
        command.args(["--server-pid", &pid.to_string()]);
    }
    if load.stopped_reader {
        command.arg("--stopped-reader");
    }
    if let Some(address) = address {
        command.args(["--address", address]);
    }
    if let Some(core) = core {
        command.args(["--core", &core.to_string()]);
    }
    Ok(command)
}
