//! A running daemon, from its start to its end.
//!
//! The order: the log, the signal handlers, the node, `ready KIND ADDRESS` on standard output and
//! `READY=1` to systemd, a wish to stop, `STOPPING=1`, the node's own end with patience for the
//! calls under way. A second wish ends the process at once, as does one during the start.

use std::future::Future;
use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use partha::Node;
use sd_notify::NotifyState;

use crate::log;
use crate::settings::Settings;
use crate::stop::{Stop, Why};

/// The whole `main` of a daemon: runs it, and says on standard error why it failed.
pub fn main(running: impl Future<Output = anyhow::Result<ExitCode>>) -> ExitCode {
    block_on(running).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// Runs the future on a small tokio runtime of its own: a node's objects have their own threads.
///
/// # Errors
/// If the threads cannot be started; else the future's.
pub fn block_on<T>(running: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("cannot start the daemon's threads")?;
    runtime.block_on(running)
}

/// Starts a node with `start`, says that it is ready, and looks after it until it is to stop.
/// `kind` stands in the readiness line. A node that is of no use before others can find it is
/// ready when it is [registered](Node::registered): then `start` waits for that.
///
/// # Errors
/// If the node cannot be started.
pub async fn attend<S>(
    kind: &str,
    settings: &Settings,
    stop_with_stdin: bool,
    start: S,
) -> anyhow::Result<ExitCode>
where
    S: AsyncFnOnce(&Settings) -> anyhow::Result<Node>,
{
    log::start(settings)?;
    let mut stop = Stop::new(stop_with_stdin)?;
    if let Some(naming) = &settings.naming {
        notify(&[NotifyState::Status(&format!(
            "starting; naming service at {naming}"
        ))]);
    }
    let node = tokio::select! {
        started = start(settings) => started?,
        why = stop.requested() => {
            tracing::info!(?why, "stopped before it was ready");
            return Ok(ExitCode::SUCCESS);
        }
    };
    say_ready(kind, &node);
    let why = stop.requested().await;
    tracing::info!(?why, "stopping");
    notify(&[NotifyState::Stopping]);
    tokio::select! {
        stopped = node.shutdown(settings.patience) => {
            if let Err(error) = stopped {
                tracing::warn!(%error, "stopped with calls under way");
            }
            tracing::info!("stopped");
            Ok(ExitCode::SUCCESS)
        }
        why = again(&mut stop) => {
            tracing::warn!(?why, "stopped at once");
            // The node's threads are not waited for: that was asked.
            std::process::exit(1);
        }
    }
}

/// Waits for a second signal; the end of the parent beside its signal is no second wish.
async fn again(stop: &mut Stop) -> Why {
    loop {
        let why = stop.requested().await;
        if why != Why::InputEnded {
            return why;
        }
    }
}

fn say_ready(kind: &str, node: &Node) {
    // Whoever does not read the line cannot be told otherwise either.
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "ready {kind} {}", node.address()).and_then(|()| stdout.flush());
    drop(stdout);
    notify(&[NotifyState::Ready, NotifyState::Status("serving")]);
    tracing::info!(node = %node.me(), address = %node.address(), "ready");
}

/// Tells systemd, if it listens.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd was not told");
    }
}
