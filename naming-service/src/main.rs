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

fn main() -> ExitCode {
    partha_daemon::main(partha_naming::run(Command::parse().arguments))
}
