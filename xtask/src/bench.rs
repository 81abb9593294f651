//! `cargo xtask bench`: builds and runs the package `bench` in release mode.
//!
//! What is measured, and how, is that package's business; its own flags are handed on. This program
//! becomes that one, so that Ctrl-C and the exit code are its business, too.

use std::os::unix::process::CommandExt as _;

use anyhow::{Context as _, bail, ensure};

use crate::cargo;
use crate::counts::{self, Checked};

/// What the benchmark program takes besides; a test of its package keeps it true.
const OPTIONS: &str = concat!(
    "What the benchmark program takes, after these:\n\n",
    include_str!("../../bench/options.txt")
);

/// Flags handed to the benchmark program
#[derive(clap::Args)]
#[command(after_help = OPTIONS)]
pub(crate) struct Arguments {
    /// A few minutes: enough to see ratios
    #[arg(long, conflicts_with = "full", hide = true)]
    quick: bool,
    /// Longer and more rounds: for figures that are written down
    #[arg(long, hide = true)]
    full: bool,
    /// Count instructions of a call, a durable call and an action, and fail if they grew
    #[arg(long, conflicts_with_all = ["quick", "full", "names"])]
    check: bool,
    /// Count instructions and write them down, for `--check`
    #[arg(long, conflicts_with_all = ["quick", "full", "names", "check"])]
    bless: bool,
    /// Names of benchmarks, and any flag of the benchmark program
    #[arg(
        value_name = "NAME",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    names: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.check || arguments.bless {
        return match counts::run(arguments.bless)? {
            Checked::Fine => Ok(()),
            Checked::Skipped(why) => bail!("instructions cannot be counted: {why}"),
        };
    }
    // One of them moves an object as a user does, by a process of its own.
    let mut building = cargo();
    building.args(["build", "--quiet", "--release", "--package", "partha-cli"]);
    ensure!(building.status()?.success(), "partha cannot be built");
    let mut command = cargo();
    command.args(["run", "--quiet", "--release", "--package", "bench", "--"]);
    if arguments.quick {
        command.arg("--quick");
    }
    if arguments.full {
        command.arg("--full");
    }
    command.args(&arguments.names);
    // Returns only if it fails.
    Err(command.exec()).context("cannot start cargo")
}
