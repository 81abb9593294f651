//! `partha serve`: the services as this very program, so that one binary is all there is to
//! install. `partha-naming` and `partha-binder` are the same.

use std::process::ExitCode;

use clap::{Args, Subcommand};

/// Run the naming service, the binder, or a node of the example bank
///
/// Settings come from flags, else from PARTHA_… variables, else from a TOML file (--config) with
/// the tables [node], [log] and, for the binder, [binder]; the keys are the flags' names.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  partha serve naming --data-dir /var/lib/partha/naming")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    service: Service,
}

#[derive(Debug, Subcommand)]
enum Service {
    /// Finds objects by name
    Naming(Box<partha_naming::Arguments>),
    /// Finds the node of an object
    Binder(Box<partha_binder::Arguments>),
    /// Runs the accounts of the example bank
    Bank(Box<bank::node::Arguments>),
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.service {
        Service::Naming(arguments) => partha_naming::run(*arguments).await,
        Service::Binder(arguments) => partha_binder::run(*arguments).await,
        Service::Bank(arguments) => bank::node::run(*arguments).await,
    }
}
