//! Steps of one kind, so many and no more, for a tool that counts instructions.
//!
//! `cargo xtask bench --check` runs this program under valgrind's callgrind, once for each
//! [`Scenario`]. The nodes run in the same process as the client, each shard and each store on a
//! thread of its own, so that callgrind tells the client's instructions (the main thread's) from
//! those of the nodes (all others'). Nothing here reads a clock or makes load: what is to be the
//! same in each run must not depend on time.
//!
//! Between equal segments of steps [`mark`] is called; callgrind writes down what it has counted
//! since the mark before. What start-up and warm-up cost is in the first part and is not used.
//!
//! It is a program of its own, since that of the benchmarks has all the peers in it, which take
//! minutes to be compiled.

#[path = "../../src/cell.rs"]
mod cell;
#[rustfmt::skip]
#[allow(
    missing_docs, unreachable_pub, unused_qualifications, dead_code, clippy::all,
    clippy::unimplemented,
    clippy::use_self,
    reason = "written by a foreign generator"
)]
#[path = "../../src/cell_capnp.rs"]
mod cell_capnp;
mod foreign;
#[path = "../../src/generated.rs"]
mod generated;
mod native;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use tokio::task::LocalSet;

/// Steps of one kind, for a tool that counts instructions: `cargo xtask bench --check` runs it
#[derive(Parser)]
struct Arguments {
    scenario: Scenario,
    #[command(flatten)]
    steps: Steps,
}

/// What one step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// A null call over the native face, alone on its connection
    Call,
    /// A null call over the native face, one of 64 made at once
    CallOf64,
    /// A null call of a plain capnp-rpc client, one of 64 made at once
    ForeignOf64,
    /// A call that changes an object and is on disk when it is answered
    Durable,
    /// An action that changes an object at each of two nodes
    Action,
}

/// How many steps
#[derive(clap::Args, Clone, Copy, Debug)]
struct Steps {
    /// Steps between two marks
    #[arg(long)]
    steps: u64,
    /// Parts that are counted, after one that is not
    #[arg(long)]
    segments: u64,
}

/// Something that can be done again and again.
trait Step {
    /// Does `count` steps.
    async fn run(&self, count: u64) -> anyhow::Result<()>;
}

/// That of our daemons.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let Arguments { scenario, steps } = Arguments::parse();
    match run(scenario, steps) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Does the steps of a scenario.
fn run(scenario: Scenario, steps: Steps) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot make a runtime")?;
    LocalSet::new().block_on(&runtime, async {
        match scenario {
            Scenario::Call => count(native::Call::new(1).await?, steps).await,
            Scenario::CallOf64 => count(native::Call::new(64).await?, steps).await,
            Scenario::ForeignOf64 => count(foreign::Call::new(64).await?, steps).await,
            Scenario::Durable => count(native::Durable::new().await?, steps).await,
            Scenario::Action => count(native::Action::new().await?, steps).await,
        }
    })
}

async fn count(step: impl Step, steps: Steps) -> anyhow::Result<()> {
    for segment in 0..=steps.segments {
        step.run(steps.steps).await?;
        mark(segment);
    }
    Ok(())
}

/// Where callgrind writes down what it has counted: it is told the name of this function.
#[inline(never)]
fn mark(segment: u64) {
    std::hint::black_box(segment);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_does_its_steps() {
        for scenario in Scenario::value_variants() {
            let steps = Steps {
                steps: 64,
                segments: 1,
            };
            run(*scenario, steps).unwrap_or_else(|error| panic!("{scenario:?}: {error:#}"));
        }
    }
}
