//! `cargo xtask crash-points`: nodes that die at each named point of a commit, and come back.
//!
//! The points are compiled in only with the feature `crash-points` of the packages that have some.
//! The names are in `runtime/store/src/crash_point.rs`. The tests that go through them are
//! `runtime/tests/crash_points.rs`, for objects with copies `binder/tests/copies_crash_points.rs`,
//! and, for those of the store alone, `runtime/store/tests/kill_actions.rs`, `kill_moves.rs` and
//! `kill_groups.rs`.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, bail};

use crate::cargo;

/// What the test reads the names of the points from that it is to go through.
const ONLY: &str = "PARTHA_CRASH_POINTS_ONLY";
/// What it reads the number of the round from, which varies when a point is reached.
const ROUND: &str = "PARTHA_CRASH_POINTS_ROUND";

/// What compiles the points in.
const FEATURES: &str = "partha/crash-points,partha-store/crash-points,partha-binder/crash-points";

/// Which points, and how often
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Go through all of them this often
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_once())]
    times: u32,
    /// Only points whose names begin so
    #[arg(value_name = "POINT")]
    only: Vec<String>,
}

/// Once through all points, for the continuous integration.
pub(crate) const ONCE: Arguments = Arguments {
    times: 1,
    only: Vec::new(),
};

fn at_least_once() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..)
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    succeed(test().arg("--no-run"))?;
    for round in 1..=arguments.times {
        let start = Instant::now();
        let mut command = test();
        command.args(["--", "--nocapture", "every_crash_point"]);
        command.env(ONLY, arguments.only.join(","));
        command.env(ROUND, round.to_string());
        succeed(&mut command).with_context(|| format!("round {round}"))?;
        let (times, seconds) = (arguments.times, start.elapsed().as_secs_f64());
        println!("round {round} of {times} passed in {seconds:.1} s");
    }
    Ok(())
}

/// The test with the points compiled in.
fn test() -> Command {
    let mut command = cargo();
    command
        .args(["test", "--locked"])
        .args(["--package", "partha", "--test", "crash_points"])
        .args([
            "--package",
            "partha-binder",
            "--test",
            "copies_crash_points",
        ])
        .args(["--package", "partha-store", "--test", "kill_actions"])
        .args(["--test", "kill_moves", "--test", "kill_groups"])
        .args(["--features", FEATURES]);
    command
}

fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    if !status.success() {
        bail!("it ended with {status}");
    }
    Ok(())
}
