//! The commands about what is at a node: `node drain`, `cordon`, `uncordon`.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use partha::NodeId;
use partha::services::binder::NodeEntry;
use serde_json::json;

use crate::arguments::{Cluster, Format};
use crate::cluster::System;
use crate::output::Output;
use crate::sessions::Shape;
use crate::{drain, nodes};

/// Move everything away from a node, or say which nodes objects may come to
#[derive(Args, Debug)]
#[command(arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

impl Arguments {
    /// How results look.
    pub(crate) fn format(&self) -> Format {
        match &self.command {
            Command::Drain(arguments) => arguments.shape.format(),
            Command::Cordon(arguments) | Command::Uncordon(arguments) => arguments.shape.format(),
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    Drain(drain::Arguments),
    /// Let no more objects come to a node; those that are there stay
    ///
    /// New objects are made at other nodes, and none moves to it, unless somebody names it. It is
    /// kept over restarts of the node and of the binder.
    Cordon(Cordon),
    /// Let objects come to a node again
    Uncordon(Cordon),
}

#[derive(Args, Debug)]
struct Cordon {
    /// The node: its name, or its id
    node: String,
    #[command(flatten)]
    cluster: Cluster,
    #[command(flatten)]
    shape: Shape,
}

/// `partha node`
pub(crate) async fn run(arguments: &Arguments, out: &mut Output) -> anyhow::Result<ExitCode> {
    match &arguments.command {
        Command::Drain(arguments) => return drain::drain(arguments, out).await,
        Command::Cordon(arguments) => cordon(arguments, true, out).await?,
        Command::Uncordon(arguments) => cordon(arguments, false, out).await?,
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

async fn cordon(arguments: &Cordon, on: bool, out: &mut Output) -> anyhow::Result<()> {
    let system = System::connect(&arguments.cluster).await?;
    let node = nodes::entry(&system, &arguments.node).await?;
    let before = set(&system, &node, on).await?;
    out.facts(&[
        ("node", json!(node.name)),
        ("id", json!(NodeId(node.node).to_string())),
        ("cordoned", json!(on)),
        ("before", json!(before)),
    ])?;
    Ok(())
}

/// Has the binder know whether objects may come to a node; whether they might not before.
pub(crate) async fn set(system: &System, node: &NodeEntry, on: bool) -> anyhow::Result<bool> {
    let client = &system.client;
    let binder = client.locator().binder(client).await;
    let binder = binder.context("there is no binder to tell")?;
    Ok(binder.cordon(client, node.node, on).await?)
}
