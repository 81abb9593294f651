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

/// Messages and states are made on one thread and given back on another all the time, which the
/// system's allocator is slow at (docs/performance.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    partha_daemon::main(bank::node::run(Command::parse().arguments))
}
