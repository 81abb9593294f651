//! A node of the bank, as a process.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use partha::{NodeBuilder, Result};
use partha_daemon::{Defaults, File, Options, Settings, attend, read_file};

use crate::{AccountServant, AuditLogServant, BranchServant, account, audit_log, branch};

/// What a node of the bank does if nothing is said.
pub const DEFAULTS: Defaults = Defaults {
    name: "a",
    listen: "127.0.0.1:7411",
    naming: Some("127.0.0.1:7401"),
};

/// Flags of a node of the bank
#[derive(Args, Clone, Debug, Default)]
pub struct Arguments {
    /// Those of every daemon
    #[command(flatten)]
    pub options: Options,
}

/// Runs a node of the bank until it is stopped.
///
/// # Errors
/// If its configuration is wrong or it cannot be started.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Options {
        config,
        node,
        log,
        stop_with_stdin,
    } = arguments.options;
    let file: File = read_file(config.as_deref())?;
    let settings = Settings::new(node.over(file.node), log.over(file.log), DEFAULTS)?;
    attend("bank", &settings, stop_with_stdin, async |settings| {
        let started = start(settings.builder()).await;
        let node = started.context("cannot start the node")?;
        node.registered().await;
        Ok(node)
    })
    .await
}

/// Starts a node that can run accounts, audit logs and branches.
///
/// # Errors
/// Those of [`NodeBuilder::start`].
pub async fn start(builder: NodeBuilder) -> Result<partha::Node> {
    builder
        .class(account::class(AccountServant::default()))
        .class(audit_log::class(AuditLogServant))
        .class(branch::class(BranchServant))
        .start()
        .await
}
