//! The binding service as a program of its own; `partha serve binder` is the same.

use std::process::ExitCode;

use clap::Parser;

/// The binding service of Partha: finds the node of an object
#[derive(Parser)]
#[command(name = "partha-binder", version)]
struct Command {
    #[command(flatten)]
    arguments: partha_binder::Arguments,
}

/// Messages and states are made on one thread and given back on another all the time, which the
/// system's allocator is slow at (docs/performance.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    partha_daemon::main(partha_binder::run(Command::parse().arguments))
}
