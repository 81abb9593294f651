//! A node that runs accounts and branches.

use std::process::ExitCode;

use clap::Parser;

/// A node of the bank: runs accounts and branches
#[derive(Parser)]
#[command(name = "bank-node", version)]
struct Command {
    #[command(flatten)]
    arguments: bank::node::Arguments,
}

fn main() -> ExitCode {
    partha_daemon::main(bank::node::run(Command::parse().arguments))
}
