//! The order of the runs: all peers in turn, round after round.
//!
//! A machine that slows down for a minute then slows all of them, and medians and ratios hold.
//! Servers are started once and stay; an idle one costs nothing.

use std::time::Duration;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};

use crate::load::{Load, Measurement};
use crate::peer::{Kind, Peer};
use crate::process::{Cores, Server, run_client};

/// What to run.
pub(crate) struct Plan {
    pub(crate) peers: Vec<Peer>,
    pub(crate) outstanding: Vec<usize>,
    pub(crate) rounds: usize,
    pub(crate) warm_up: Duration,
    pub(crate) measure: Duration,
    pub(crate) cores: Cores,
}

/// One run and what it found.
pub(crate) struct Run {
    pub(crate) round: usize,
    pub(crate) peer: Peer,
    pub(crate) outstanding: usize,
    pub(crate) found: Measurement,
}

/// A peer made ready to be measured.
struct Ready {
    peer: Peer,
    server: Option<Server>,
    client_core: Option<usize>,
}

/// Runs the whole plan, with a progress bar on standard error.
pub(crate) fn execute(plan: &Plan) -> anyhow::Result<Vec<Run>> {
    let peers: Vec<_> = plan
        .peers
        .iter()
        .map(|&peer| prepare(peer, plan.cores))
        .collect();
    let peers = peers.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let total = plan.rounds * plan.outstanding.len() * peers.len();
    let bar = ProgressBar::new(total as u64);
    bar.set_style(ProgressStyle::with_template(
        "{bar:30} {pos}/{len} {msg} {eta}",
    )?);
    let mut runs = Vec::with_capacity(total);
    for round in 0..plan.rounds {
        for &outstanding in &plan.outstanding {
            for ready in &peers {
                let peer = ready.peer;
                bar.set_message(format!("{}, {outstanding} outstanding", peer.label()));
                let load = Load {
                    outstanding,
                    warm_up_ms: plan.warm_up.as_millis() as u64,
                    measure_ms: plan.measure.as_millis() as u64,
                };
                let found = run_client(peer, ready.server.as_ref(), load, ready.client_core)
                    .with_context(|| format!("round {round}, {outstanding} outstanding"))?;
                runs.push(Run {
                    round,
                    peer,
                    outstanding,
                    found,
                });
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    Ok(runs)
}

fn prepare(peer: Peer, cores: Cores) -> anyhow::Result<Ready> {
    let (server_core, client_core) = cores.choose(peer.kind())?;
    let server = match peer.kind() {
        Kind::Processes => Some(Server::start(peer, server_core)?),
        Kind::OneProcess => None,
    };
    Ok(Ready {
        peer,
        server,
        client_core,
    })
}
