//! Chores of the workspace: `cargo xtask COMMAND`.
//!
//! Purpose: everything that is run by hand or by the continuous integration and is not a plain
//! cargo command, in Rust, so that it needs no other tool. Each command is a module of its own;
//! this one reads the command line. No command changes files but `codegen` and
//! `bench --bless`.
//! The idea of an `xtask` package is matklad's, as rust-analyzer has it.

mod bench;
mod ci;
mod codegen;
mod counts;
mod crash_points;
mod sim;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};

/// Chores of the Partha workspace
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    disable_help_subcommand = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Check the house rules that neither rustfmt nor clippy knows
    Tidy,
    /// Write the committed files that come from our own interfaces
    Codegen(codegen::Arguments),
    /// Run the benchmarks of Partha beside its peers, in release mode
    Bench(bench::Arguments),
    /// Run the decisions of the core against faults chosen by seeds, and look for broken rules
    Sim(sim::Arguments),
    /// Let nodes die at each point of a commit, and see that they recover
    CrashPoints(crash_points::Arguments),
    /// Run the steps of the continuous integration, with their times
    Ci(ci::Arguments),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Chore::Tidy => tidy::run(&workspace_root()),
        Chore::Codegen(arguments) => codegen::run(&workspace_root(), &arguments),
        Chore::Bench(arguments) => bench::run(&arguments),
        Chore::Sim(arguments) => sim::run(&arguments),
        Chore::CrashPoints(arguments) => crash_points::run(&arguments),
        Chore::Ci(arguments) => ci::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The top folder of the workspace.
fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in a folder of the workspace")
        .to_owned()
}

/// The cargo that runs us, to be started in the workspace.
fn cargo() -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(workspace_root());
    command
}
