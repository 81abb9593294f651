//! What a client that stops reading its answers costs others, and the server.
//!
//! Each run has a server of its own: memory that a reader once made one take would be there in the
//! next run.

use super::load::{Load, Work};
use super::peer::Peer;
use super::{OURS_ALONE, Run, Servers, load_of};
use crate::figure::Parameters;
use crate::process::Cores;
use crate::suite::{Benchmark, Case, Plan, Setting};

/// Connections that go on, and the calls under way on each.
const CONNECTIONS: (u64, u64) = (2, 64);

pub(super) const BENCHMARK: Benchmark = Benchmark {
    name: "slow-reader",
    about: "null calls on 2 connections, 64 under way on each, alone and beside a connection that \
            has made 10,000 calls with answers of 16 KiB and reads none",
    on_request: false,
    view: OURS_ALONE,
    plan,
};

fn plan(setting: &Setting) -> anyhow::Result<Plan> {
    let mut plan = Plan::default();
    for (company, stopped_reader) in [("alone", false), ("beside a stopped reader", true)] {
        let run = Run {
            peer: Peer::Partha,
            shards: 1,
            cores: Cores::Split,
            load: Load {
                connections: CONNECTIONS.0 as usize,
                outstanding: CONNECTIONS.1 as usize,
                stopped_reader,
                ..load_of(setting, Work::Null)
            },
        };
        plan.cases.push(Case {
            peer: run.peer.name(),
            parameters: Parameters::default().with("company", company),
            rounds: setting.rounds,
            takes: setting.run_takes(),
            run: Box::new(move || run.make(&Servers::default())),
        });
    }
    Ok(plan)
}
