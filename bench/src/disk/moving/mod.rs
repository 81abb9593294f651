//! A hot account that moves between two nodes, back and forth, while all transfers use it.
//!
//! The same clients make transfers all the time, as many as they can. Each transfer moves a cent
//! between the hot account and another one, half of which are at either node, and takes the hot one
//! first; so transfers do not block each other in a ring, and no attempt is undone but because of a
//! move. The account moves ten times in a row, and rests as long before it does so again: so what
//! disturbs the machine for a while disturbs the transfers with and without moves alike.
//!
//! A move is asked for when the one before has ended: by `partha move`, a process each, or by the
//! client. What has moved stays for a while before it moves on; at two more nodes it does not,
//! which shows what that is for.
//!
//! A run in which the account has not moved as often as was asked for, or after which the accounts
//! hold more or less than before, or nodes have committed what nobody was told, fails.

pub(crate) mod client;

use std::time::Duration;

use super::role::{self, Client};
use super::stage::Lazy;
use super::transfer::Nodes;
use crate::figure::{Found, Metric, Parameters};
use crate::suite::{Absent, Benchmark, Effort, Plan, Plot, Setting, View};

pub(crate) const BENCHMARK: Benchmark = Benchmark {
    name: "move",
    about: "transfers while the account that all of them use moves back and forth",
    view: View {
        reference: None,
        metrics: &[
            Metric::Rate,
            Metric::RateBefore,
            Metric::RateAfter,
            Metric::Undone,
            Metric::TimeMs,
            Metric::P50Us,
            Metric::P99Us,
        ],
        tall: false,
        plots: &[Plot::Bars {
            title: "Transfers a second while the account moves",
            y: Metric::Rate,
        }],
    },
    on_request: false,
    plan,
};

/// How many clients make transfers.
const CLIENTS: [u64; 2] = [4, 64];
/// About how long a move takes, by a process and by a client.
const MOVE: Duration = Duration::from_millis(10);
/// About how long the account stays where it has come.
const STAYS: Duration = Duration::from_millis(100);

/// How often the account moves in a run: an even number, after which it is where it was.
const fn moves(effort: Effort) -> u64 {
    match effort {
        Effort::Smoke => 4,
        Effort::Quick => 60,
        Effort::Normal => 100,
        Effort::Full => 200,
    }
}

fn plan(setting: &Setting) -> anyhow::Result<Plan> {
    let usual = Lazy::new(|| Nodes::registered(None));
    let restless = Lazy::new(|| Nodes::registered(Some(0)));
    let absent = client::program().err().map(|why| Absent {
        peer: "partha",
        why: why.to_string(),
    });
    let by_command = absent.is_none();
    let moves = moves(setting.effort);
    let steady = 2 * setting.measure;
    let steady_ms = steady.as_millis() as u64;
    let warm_up_ms = setting.warm_up.as_millis() as u64;
    let cases = CLIENTS.iter().flat_map(|&clients| {
        let (usual, restless) = (&usual, &restless);
        let ways = [
            ("partha move", true, usual, STAYS),
            ("partha move, no cooldown", true, restless, Duration::ZERO),
            ("by API, no cooldown", false, restless, Duration::ZERO),
        ];
        let ways = ways.into_iter().filter(move |way| by_command || !way.1);
        ways.map(move |(how, command, nodes, stays)| {
            let parameters = Parameters::default().with("clients", clients);
            let each = MOVE + stays;
            let takes = setting.warm_up + 2 * steady + 2 * each * moves as u32;
            let run = move |nodes: &Nodes| -> anyhow::Result<Found> {
                let moving = client::Moving {
                    addresses: nodes.addresses(),
                    accounts: nodes.accounts.to_vec(),
                    clients: clients as usize,
                    moves,
                    command: nodes.naming().filter(|_| command),
                    warm_up_ms,
                    steady_ms,
                };
                role::run("the client of two nodes", &Client::Moving(moving))
            };
            let often = (setting.rounds, takes);
            nodes.case("partha", parameters.with("moves", how), often, run)
        })
    });
    Ok(Plan {
        cases: cases.collect(),
        absent: absent.into_iter().collect(),
    })
}
