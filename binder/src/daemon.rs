//! The binding service as a process.
//!
//! The binder is found under its name, `partha/binder`, with the address where it listens. It
//! puts that name in itself, and again at each start, since the address may be another one.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use partha::services::BINDER_NAME;
use partha::services::binder::{Binder, binder};
use partha::services::naming::name_service::RebindError;
use partha::{Node, NodeBuilder, Place, SystemError, Uid};
use partha_daemon::{
    Defaults, LogOptions, NodeOptions, Options, Settings, Span, attend, read_file,
};
use serde::Deserialize;

use crate::servant::BinderServant;

/// What `partha serve binder` does if nothing is said.
pub const DEFAULTS: Defaults = Defaults {
    name: "binder",
    listen: "127.0.0.1:7402",
    naming: Some("127.0.0.1:7401"),
};

/// How long a node is taken for alive after a heartbeat, if nothing is said.
pub const LEASE: Duration = Duration::from_secs(10);

/// Pause between attempts to put the binder's name in.
const RETRY: Duration = Duration::from_millis(250);
/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(3);
/// Objects of the store looked at in one go.
const OBJECTS_PAGE: u32 = 100;

/// Flags of the binder
#[derive(Args, Clone, Debug, Default)]
pub struct Arguments {
    /// Those of every daemon
    #[command(flatten)]
    pub options: Options,
    /// The binder's own
    #[command(flatten)]
    pub binder: BinderOptions,
}

/// The table `[binder]` of its file, and the flags of the same names.
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct BinderOptions {
    /// How long a node is taken for alive after a heartbeat, as 10s; said at the first start,
    /// kept in the store from then on
    #[arg(long, value_name = "TIME", env = "PARTHA_LEASE")]
    pub lease: Option<Span>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    node: NodeOptions,
    log: LogOptions,
    binder: BinderOptions,
}

/// Runs the binder until it is stopped.
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
    let settings = Settings::new(node.over(file.node), log.over(file.log), DEFAULTS)?;
    let lease = arguments
        .binder
        .lease
        .or(file.binder.lease)
        .map_or(LEASE, |span| span.0);
    if lease < Duration::from_secs(1) {
        bail!("a lease of {lease:?} is too short: 1s is the least");
    }
    attend("binder", &settings, stop_with_stdin, async |settings| {
        let advertise = settings.advertise.clone();
        let started = start(settings.builder(), advertise, lease).await;
        let node = started.context("cannot start the binder")?;
        node.registered().await;
        Ok(node)
    })
    .await
}

/// Starts a node that is the binder, and puts its name in as soon as the naming service is there.
/// It can be found at the addresses of `advertise`, or where it listens if there are none.
///
/// # Errors
/// Those of [`NodeBuilder::start`], and of making the binder at the first start.
pub async fn start(
    builder: NodeBuilder,
    advertise: Vec<String>,
    lease: Duration,
) -> partha::Result<Node> {
    let node = builder
        .class(binder::class(BinderServant::default()))
        .start()
        .await?;
    let binder = match stored_binder(&node).await? {
        Some(uid) => Binder::from_uid(uid),
        None => Binder::create(node.client(), &Place::Node(node.me().node), lease).await?,
    };
    let hints = match advertise.is_empty() {
        true => vec![node.address().to_string()],
        false => advertise,
    };
    if node.client().naming().is_ok() {
        tokio::spawn(keep_name(node.client().clone(), binder, hints));
    }
    Ok(node)
}

/// The binder that an earlier start has made.
async fn stored_binder(node: &Node) -> partha::Result<Option<Uid>> {
    let client = node.client();
    let handle = client.node_at(&node.address().to_string()).await?;
    let mut after = Uid::NIL;
    loop {
        let page = handle
            .manager()
            .objects(client, after, OBJECTS_PAGE)
            .await?;
        if let Some(binder) = page.iter().find(|object| object.class == Binder::CLASS.0) {
            return Ok(Some(binder.object));
        }
        match page.last() {
            Some(last) => after = last.object,
            None => return Ok(None),
        }
    }
}

/// Puts the binder's name in, trying for as long as it takes.
async fn keep_name(client: partha::Client, binder: Binder, hints: Vec<String>) {
    let mut complained = false;
    loop {
        let caller = client.call().deadline(ATTEMPT);
        let rebound = async {
            let naming = client.naming().map_err(RebindError::from)?;
            naming
                .rebind(&caller, BINDER_NAME, binder.uid(), Binder::CLASS, &hints)
                .await
        };
        match rebound.await {
            Ok(()) => {
                tracing::info!(name = BINDER_NAME, ?hints, "known to the naming service");
                return;
            }
            Err(RebindError::System(error)) => complain(&mut complained, &error),
            Err(error) => {
                // A context of that name, or an object in the way: for people to put right.
                let error = SystemError::servant(error.to_string());
                complain(&mut complained, &error);
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn complain(complained: &mut bool, error: &SystemError) {
    if !*complained {
        let name = BINDER_NAME;
        tracing::warn!(%error, name, "not known to the naming service yet; trying on");
    }
    *complained = true;
}
