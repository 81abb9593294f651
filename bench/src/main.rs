//! Benchmarks of Partha beside its peers, in the same run.
//!
//! `cargo xtask bench` runs this program. Absolute figures depend on the machine and the hour;
//! what it is for is ratios, so it measures all peers in turn, round after round, and compares
//! medians. Client and server are separate processes: this program starts itself again for each,
//! with the hidden commands `serve` and `drive`.
//!
//! Modules: [`peer`] says who is measured, [`peers`] how each of them makes a call, [`load`] how
//! calls are made and timed, [`process`] starts the processes, [`plan`] is the order of the runs,
//! [`report`] the table and the JSON lines. [`locks`] is a benchmark of its own, without peers and
//! in this process.
//!
//! It does not judge: no figure makes it fail.

mod count;
mod generated;
mod load;
mod locks;
#[rustfmt::skip]
#[allow(
    missing_docs, unreachable_pub, unused_qualifications, clippy::all,
    clippy::unimplemented,
    clippy::use_self,
    reason = "written by a foreign generator"
)]
mod null_capnp;
mod peer;
mod peers;
mod plan;
mod process;
mod report;
mod scale;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use load::Load;
use peer::Peer;
use plan::Plan;
use process::Cores;
use report::Json;
use scale::Fill;

/// Benchmarks of Partha beside its peers
#[derive(Parser)]
#[command(name = "bench", args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    measure: Measure,
}

/// What to measure
#[derive(Args)]
struct Measure {
    /// Under a minute: enough to see ratios
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// Many long rounds: for figures that are written down
    #[arg(long)]
    full: bool,
    /// Only these peers
    #[arg(long, value_name = "PEER", value_delimiter = ',')]
    peers: Vec<Peer>,
    /// Calls under way at once on the one connection
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [1, 64, 256])]
    outstanding: Vec<usize>,
    /// Where client and server run
    #[arg(long, value_enum, default_value_t = Cores::Split)]
    cores: Cores,
    /// Also write each run and each median as a line of JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Benchmarks to run, all by default
    #[arg(value_name = "NAME")]
    names: Vec<Benchmark>,
}

/// A benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Benchmark {
    /// A call that takes a u64 and returns it
    Null,
    /// The lock table by itself
    Locks,
}

/// What this program starts itself as.
#[derive(Subcommand)]
enum Role {
    /// The server of a peer, until standard input ends
    #[command(hide = true)]
    Serve {
        peer: Peer,
        /// The core to stay on
        #[arg(long)]
        core: Option<usize>,
    },
    /// The client of a peer: one run
    #[command(hide = true)]
    Drive {
        peer: Peer,
        /// Of the server, unless the peer is its own
        #[arg(long)]
        address: Option<SocketAddr>,
        #[command(flatten)]
        load: Load,
        /// The core to stay on
        #[arg(long)]
        core: Option<usize>,
    },
    /// So many steps, for a tool that counts instructions
    #[command(hide = true)]
    Count {
        scenario: count::Scenario,
        #[command(flatten)]
        steps: count::Steps,
    },
    /// Fill the store of a node that does not run with objects
    Fill(Fill),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.role {
        None => measure(&arguments.measure),
        Some(Role::Serve { peer, core }) => process::serve(peer, core),
        Some(Role::Drive {
            peer,
            address,
            load,
            core,
        }) => process::drive(peer, address, load, core),
        Some(Role::Count { scenario, steps }) => count::run(scenario, steps),
        Some(Role::Fill(fill)) => fill.run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Measure) -> anyhow::Result<()> {
    let (rounds, warm_up_ms, measure_ms) = match (arguments.quick, arguments.full) {
        (true, _) => (3, 150, 400),
        (_, true) => (11, 500, 2_000),
        _ => (5, 250, 1_000),
    };
    let peers = if arguments.peers.is_empty() {
        Peer::value_variants()
    } else {
        &arguments.peers
    };
    let plan = Plan {
        peers: peers.to_vec(),
        outstanding: arguments.outstanding.clone(),
        rounds,
        warm_up: Duration::from_millis(warm_up_ms),
        measure: Duration::from_millis(measure_ms),
        cores: arguments.cores,
    };
    let mut json = arguments.json.as_deref().map(Json::create).transpose()?;
    let wanted = |name| arguments.names.is_empty() || arguments.names.contains(&name);
    if wanted(Benchmark::Locks) {
        // Steps of nanoseconds need less time for a steady figure than calls do.
        let lines = locks::execute(plan.rounds, plan.warm_up / 4, plan.measure / 4);
        println!("{}\n{}", locks::table(&lines), report::rounds(&plan, 4));
        for line in &lines {
            json.iter_mut().try_for_each(|json| json.line(line))?;
        }
    }
    if wanted(Benchmark::Null) {
        let runs = plan::execute(&plan)?;
        let medians = report::medians(&plan, &runs);
        println!("{}", report::table(&plan, &medians));
        for line in report::lines(&runs, &medians) {
            json.iter_mut().try_for_each(|json| json.line(&line))?;
        }
    }
    json.map_or(Ok(()), Json::close)
}
