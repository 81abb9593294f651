//! `cargo xtask bench`: builds and runs the package `bench` in release mode.
//!
//! What is measured, and how, is that package's business; its own flags are handed on.

use anyhow::{Context as _, bail};

use crate::cargo;
use crate::counts::{self, Checked};

/// Flags handed to the benchmark program
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Under a minute: enough to see ratios
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// Many long rounds: for figures that are written down
    #[arg(long)]
    full: bool,
    /// Count instructions of a call, a durable call and an action, and fail if they grew
    #[arg(long, conflicts_with_all = ["quick", "full", "names"])]
    check: bool,
    /// Count instructions and write them down, for `--check`
    #[arg(long, conflicts_with_all = ["quick", "full", "names", "check"])]
    bless: bool,
    /// Names of benchmarks, and after `--` any flag of the program itself
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
    let mut command = cargo();
    command.args(["run", "--quiet", "--release", "--package", "bench", "--"]);
    if arguments.quick {
        command.arg("--quick");
    }
    if arguments.full {
        command.arg("--full");
    }
    command.args(&arguments.names);
    let status = command.status().context("cannot start cargo")?;
    if !status.success() {
        bail!("the benchmark program failed: {status}");
    }
    Ok(())
}
