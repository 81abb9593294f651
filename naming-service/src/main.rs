//! The naming service as a program of its own; `partha serve naming` is the same.

use std::process::ExitCode;

use clap::Parser;

/// The naming service of Partha: finds objects by name
#[derive(Parser)]
#[command(name = "partha-naming", version)]
struct Command {
    #[command(flatten)]
    arguments: partha_naming::Arguments,
}

/// Messages and states are made on one thread and given back on another all the time, which the
/// system's allocator is slow at (docs/performance.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    partha_daemon::main(partha_naming::run(Command::parse().arguments))
}
