//! The naming service as a process.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use partha::{Node, NodeBuilder};
use partha_daemon::{Defaults, File, Options, Settings, attend, read_file};

use crate::embed;

/// What `partha serve naming` does if nothing is said.
pub const DEFAULTS: Defaults = Defaults {
    name: "naming",
    listen: "127.0.0.1:7401",
    naming: None,
};

/// Flags of the naming service
#[derive(Args, Clone, Debug, Default)]
pub struct Arguments {
    /// Those of every daemon
    #[command(flatten)]
    pub options: Options,
}

/// Runs the naming service until it is stopped.
///
/// # Errors
/// If its configuration is wrong or its node cannot be started.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Options {
        config,
        node,
        log,
        stop_with_stdin,
    } = arguments.options;
    let file: File = read_file(config.as_deref())?;
    let mut settings = Settings::new(node.over(file.node), log.over(file.log), DEFAULTS)?;
    // It finds the binder by way of itself, so that its contexts can be located like any object.
    settings.fix_port()?;
    settings.naming = Some(settings.listen.clone());
    attend("naming", &settings, stop_with_stdin, async |settings| {
        start(settings.builder())
            .await
            .context("cannot start the naming service")
    })
    .await
}

/// Starts a node that is the naming service.
///
/// # Errors
/// Those of [`NodeBuilder::start`], and of making the root context at the first start.
pub async fn start(builder: NodeBuilder) -> partha::Result<Node> {
    embed(builder).start().await
}
