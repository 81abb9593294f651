//! The naming service as a process.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use partha::services::naming::{NameService, name_context, name_service};
use partha::{Node, NodeBuilder, Uid, abi};
use partha_daemon::{Defaults, File, Options, Settings, attend, read_file};

use crate::context::ContextServant;
use crate::service::ServiceServant;

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
    let (data, pointers) = (0, 0);
    let nothing = abi::message(data, pointers, |_, _| {});
    let node = builder
        .class(name_service::class(ServiceServant))
        .class(name_context::class(ContextServant))
        .well_known(Uid::NAMING_ROOT, &name_service::INFO, nothing)
        .start()
        .await?;
    NameService::from_uid(Uid::NAMING_ROOT)
        .prepare(node.client())
        .await?;
    Ok(node)
}
