//! Benchmarks of Partha beside its peers, in the same run.
//!
//! `cargo xtask bench` runs this program. Absolute figures depend on the machine and the hour;
//! what it is for is ratios, so it measures all peers in turn, round after round, and compares
//! medians. Client and server are separate processes: this program starts itself again for each,
//! with hidden commands.
//!
//! The frame: [`suite`] says what a benchmark is, [`catalog`] which there are and beside whom,
//! [`run`] takes turns, [`figure`] is what a run finds, [`statistics`] makes medians and ratios of
//! that, [`targets`] judges them, [`report`] shows them. [`process`], [`usage`] and [`interrupt`]
//! start processes, look at them and end them; [`machine`] is where that was.
//!
//! The benchmarks: [`network`] is about calls between processes and between shards, [`disk`]
//! about what needs a disk or a whole system, [`locks`] about the lock table alone; [`scale`]
//! fills stores. `bench/count`, a program of its own, repeats steps for a tool that counts
//! instructions.
//!
//! It does not judge unless it is told to: no figure makes it fail without `--assert`.

mod catalog;
mod cell;
#[rustfmt::skip]
#[allow(
    missing_docs, unreachable_pub, unused_qualifications, dead_code, clippy::all,
    clippy::unimplemented,
    clippy::use_self,
    reason = "written by a foreign generator"
)]
mod cell_capnp;
mod disk;
mod figure;
mod generated;
mod interrupt;
mod locks;
mod machine;
mod network;
#[rustfmt::skip]
#[allow(
    missing_docs, unreachable_pub, unused_qualifications, clippy::all,
    clippy::unimplemented,
    clippy::use_self,
    reason = "written by a foreign generator"
)]
mod null_capnp;
mod process;
mod report;
mod run;
mod scale;
mod statistics;
mod suite;
mod targets;
mod usage;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use report::json::{self, Json, Line};
use report::{html, table};
use statistics::Figures;
use suite::{Absent, Benchmark, Effort, Setting};
use targets::Judged;

/// Benchmarks of Partha beside its peers
#[derive(Parser)]
#[command(name = "bench", bin_name = "cargo xtask bench")]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    measure: Measure,
}

/// What to measure
#[derive(Args)]
struct Measure {
    /// A few minutes: enough to see ratios
    #[arg(long, group = "effort")]
    quick: bool,
    /// Longer and more rounds: for figures that are written down
    #[arg(long, group = "effort")]
    full: bool,
    /// One short run of everything, to see that it works
    #[arg(long, group = "effort", hide = true)]
    smoke: bool,
    /// Only these peers
    #[arg(long, value_name = "PEER", value_delimiter = ',')]
    peers: Vec<String>,
    /// Also count the system calls of each call, in runs of their own
    #[arg(long)]
    syscalls: bool,
    /// Write each run, each median and each target as a line of JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page with tables and plots
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Fail unless these targets are met, `P1,P2`
    #[arg(long, value_name = "TARGET", value_delimiter = ',')]
    assert: Vec<String>,
    /// Print the names of the benchmarks and what they measure
    #[arg(long)]
    list: bool,
    /// Benchmarks to run; all but those on request by default
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

/// What this program starts itself as.
#[derive(Subcommand)]
enum Role {
    /// The server of a peer, until standard input ends
    #[command(hide = true)]
    Serve(network::ServeArguments),
    /// The client of a peer: one run
    #[command(hide = true)]
    Drive(network::DriveArguments),
    /// A server of the benchmarks that need a disk, until standard input ends
    #[command(hide = true)]
    ServeDisk {
        /// What it is, as JSON
        told: String,
    },
    /// A client of them, told by standard input what to do
    #[command(hide = true)]
    DriveDisk,
    /// Fill the store of a node that does not run with objects
    Fill(scale::Fill),
    /// Start a node on a store that was filled, and call objects for the first time
    Stored(scale::Stored),
}

/// That of our daemons, for every peer in Rust, since all are in this program.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.role {
        None => measure(&arguments.measure),
        Some(Role::Serve(arguments)) => network::serve(&arguments),
        Some(Role::Drive(arguments)) => network::drive(&arguments),
        Some(Role::ServeDisk { told }) => disk::role::serve(&told),
        Some(Role::DriveDisk) => disk::role::drive(),
        Some(Role::Fill(fill)) => fill.run(),
        Some(Role::Stored(stored)) => stored.run(),
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
    if arguments.list {
        list();
        return Ok(());
    }
    targets::known(&arguments.assert)?;
    let setting = Setting::new(match (arguments.smoke, arguments.quick, arguments.full) {
        (true, ..) => Effort::Smoke,
        (_, true, _) => Effort::Quick,
        (.., true) => Effort::Full,
        _ => Effort::Normal,
    });
    let mut planned = run::plan(&arguments.names, &arguments.peers, &setting)?;
    if arguments.syscalls
        && !planned
            .iter()
            .any(|planned| planned.benchmark.name == "syscalls")
    {
        planned.extend(run::plan(
            &["syscalls".to_owned()],
            &arguments.peers,
            &setting,
        )?);
    }
    process::warn_of_one_core()?;
    let mut json = arguments.json.as_deref().map(Json::create).transpose()?;
    eprintln!("this takes about {}", run::minutes(run::takes(&planned)));
    interrupt::listen()?;

    let benchmarks: Vec<_> = planned.iter().map(|planned| planned.benchmark).collect();
    let absent: Vec<_> = planned
        .iter()
        .map(|planned| planned.absent.clone())
        .collect();
    let (figures, failed) = run::execute(planned, |figure| {
        json.as_mut()
            .map_or(Ok(()), |json| json.line(&Line::Run(figure)))
    })?;
    for (benchmark, absent) in benchmarks.iter().zip(&absent) {
        println!("{}", table::table(benchmark, &figures));
        for absent in absent {
            println!("without {}: {}", catalog::label(absent.peer), absent.why);
        }
    }
    let absences: Vec<_> = absent.iter().flatten().cloned().collect();
    let judged = targets::judge(&figures, &absences);
    println!("{}", targets::table(&judged));

    if let Some(json) = json {
        finish(json, &benchmarks, &absent, &figures, &judged)?;
    }
    if let Some(path) = &arguments.html {
        html::write(path, &benchmarks, &figures, &judged, &setting)?;
        eprintln!("the page is {}", path.display());
    }
    for failed in &failed {
        let (name, error) = (failed.benchmark, &failed.error);
        eprintln!("error: the benchmark {name} failed: {error:#}");
    }
    anyhow::ensure!(failed.is_empty(), "{} benchmarks failed", failed.len());
    targets::assert(&judged, &arguments.assert)
}

/// The lines that come after the runs.
fn finish(
    mut json: Json,
    benchmarks: &[&'static Benchmark],
    absent: &[Vec<Absent>],
    figures: &Figures,
    judged: &[Judged],
) -> anyhow::Result<()> {
    for (benchmark, absent) in benchmarks.iter().zip(absent) {
        for absent in absent {
            json.line(&json::absent(benchmark, absent))?;
        }
        for line in json::medians(benchmark, figures) {
            json.line(&line)?;
        }
    }
    for judged in judged {
        json.line(&Line::Target(judged))?;
    }
    json.close()
}

fn list() {
    for benchmark in catalog::benchmarks() {
        let note = if benchmark.on_request {
            " (on request)"
        } else {
            ""
        };
        println!("{:<14}{}{note}", benchmark.name, benchmark.about);
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    /// `cargo xtask bench --help` shows it, without building this program.
    #[test]
    fn the_options_are_those_that_xtask_tells() {
        let command = super::Arguments::command();
        let mut command = command.help_template("{all-args}").term_width(100);
        let help = command.render_help().to_string();
        let lines = help.lines().map(|line| line.trim_end().to_owned() + "\n");
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/options.txt");
        test_support::bless::check(path, &lines.collect::<String>());
    }
}
