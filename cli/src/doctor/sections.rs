//! What the doctor shows below its findings: tables for people, lists of objects for scripts.
//!
//! Each section is rows under a header; its columns are the members of its objects, so that they
//! may grow in number but are not renamed.

use std::time::Duration;

use partha::system::{
    ActionPhase, BusyServant, Elsewhere, LockDescription, NodeStatistics, ServerDescription,
};
use serde_json::{Value, json};

use super::checkup::{Answer, Checkup, Examined};
use crate::sessions;
use crate::survey::{self, leaf_text, own, time};

/// Rows of a section on one screen.
pub(super) const SHOWN_MAX: usize = 10;

/// One section.
pub(super) struct Section {
    /// Its name in JSON.
    pub(super) key: &'static str,
    pub(super) header: &'static [&'static str],
    /// Its rows, those that matter most first; exact ones for scripts.
    pub(super) rows: fn(&Checkup, bool) -> Vec<Vec<Value>>,
}

/// All of them.
pub(super) const ALL: &[Section] = &[
    Section {
        key: "nodes",
        header: &[
            "NODE",
            "STATE",
            "LIFE",
            "UP",
            "SESSIONS",
            "BINDINGS",
            "CONNECTIONS",
            "ACTIVE",
            "ACTIONS",
            "IN DOUBT",
            "LOCKED",
            "WAITING",
            "KILLED",
        ],
        rows: nodes,
    },
    Section {
        key: "sessions",
        header: sessions::HEADER,
        rows: all_sessions,
    },
    Section {
        key: "in_doubt",
        header: &["IN DOUBT", "NODE", "SHARD", "AGE", "LOCKS", "DECIDES"],
        rows: in_doubt,
    },
    Section {
        key: "waited_for",
        header: &["WAITED FOR", "NODE", "HOLDERS", "WAITERS", "LONGEST"],
        rows: waited_for,
    },
    Section {
        key: "stuck",
        header: &["STUCK", "NODE", "SHARD", "CLASS", "METHOD", "BUSY"],
        rows: stuck,
    },
    Section {
        key: "runaways",
        header: &[
            "RUNAWAY", "NODE", "SHARD", "CLASS", "METHOD", "BUSY", "KILLED",
        ],
        rows: runaways,
    },
    Section {
        key: "servers",
        header: &[
            "SERVER",
            "NODE",
            "CLASS",
            "PID",
            "AGE",
            "RESTARTS",
            "CRASHES",
            "LAST EXIT",
            "PAUSE",
        ],
        rows: servers,
    },
];

fn nodes(checkup: &Checkup, exact: bool) -> Vec<Vec<Value>> {
    let row = |node: &Examined| match &node.answer {
        Ok(answer) => answering(node, answer, exact),
        Err(_) => {
            let life = node.entry.as_ref().map(|entry| entry.incarnation);
            let mut row = vec![json!(node.name), json!("silent"), json!(life)];
            row.resize(13, Value::Null);
            row
        }
    };
    checkup.nodes.iter().map(row).collect()
}

fn answering(node: &Examined, answer: &Answer, exact: bool) -> Vec<Value> {
    // What it has not told is not nought.
    let told = |what: &str, value: Value| match answer.has_told(what) {
        true => value,
        false => Value::Null,
    };
    let statistics = answer.statistics.as_ref();
    let count = |of: fn(&NodeStatistics) -> u64| json!(statistics.map(of));
    let bindings = answer.sessions.iter().map(|one| u64::from(one.bindings));
    let waiting = answer.locks.iter().map(|lock| lock.waiters.len());
    let held = answer.locks.iter().filter(|lock| !lock.holders.is_empty());
    vec![
        json!(node.name),
        json!("answers"),
        json!(answer.life),
        statistics.map_or(Value::Null, |statistics| time(statistics.up, exact)),
        told("sessions", json!(answer.sessions.len())),
        told("sessions", json!(bindings.sum::<u64>())),
        count(|statistics| statistics.connections),
        count(|statistics| statistics.active_objects),
        count(|statistics| statistics.actions_active),
        count(|statistics| statistics.actions_in_doubt),
        told("locks", json!(held.count())),
        told("locks", json!(waiting.sum::<usize>())),
        count(|statistics| statistics.orphans_killed),
    ]
}

/// Those that run actions first, then those whose lease is shortest.
fn all_sessions(checkup: &Checkup, exact: bool) -> Vec<Vec<Value>> {
    let mut all: Vec<_> = checkup
        .answers()
        .flat_map(|(node, answer)| answer.sessions.iter().map(move |one| (node, one)))
        .collect();
    all.sort_by_key(|(node, one)| {
        let busy = one.actions_begun + one.actions_joined + one.calls;
        (
            std::cmp::Reverse(busy),
            one.lease_left,
            one.process,
            &node.name,
        )
    });
    all.iter()
        .map(|(node, one)| sessions::row(one, &node.name, exact, false))
        .collect()
}

fn in_doubt(checkup: &Checkup, exact: bool) -> Vec<Vec<Value>> {
    let mut rows = Vec::new();
    for (node, answer) in checkup.answers() {
        let parts = answer.parts.iter();
        for part in parts.filter(|part| part.phase == ActionPhase::Prepared) {
            let decides = part.coordinator.as_ref();
            rows.push(vec![
                json!(own(&part.path).first().map(ToString::to_string)),
                json!(node.name),
                json!(part.shard),
                time(part.age, exact),
                json!(part.locks),
                json!(decides.map(|site| checkup.process(site.node))),
            ]);
        }
    }
    rows
}

fn waited_for(checkup: &Checkup, exact: bool) -> Vec<Vec<Value>> {
    let longest = |lock: &LockDescription| lock.waiters.iter().map(|waiter| waiter.age).max();
    let mut waited: Vec<_> = checkup
        .answers()
        .flat_map(|(node, answer)| answer.locks.iter().map(move |lock| (node, lock)))
        .filter_map(|(node, lock)| Some((longest(lock)?, node, lock)))
        .collect();
    waited.sort_by_key(|(longest, ..)| std::cmp::Reverse(*longest));
    let row = |(longest, node, lock): &(Duration, &Examined, &LockDescription)| {
        let holders = lock.holders.iter().map(|holder| {
            let mode = survey::mode(holder.mode);
            format!("{mode} by {}", leaf_text(&holder.path))
        });
        vec![
            json!(checkup.object(lock.object)),
            json!(node.name),
            json!(holders.collect::<Vec<_>>()),
            json!(lock.waiters.len()),
            time(*longest, exact),
        ]
    };
    waited.iter().map(row).collect()
}

fn stuck(checkup: &Checkup, exact: bool) -> Vec<Vec<Value>> {
    let all = busy(checkup, |elsewhere| &elsewhere.stuck);
    all.map(|(node, servant)| busy_row(checkup, node, servant, exact))
        .collect()
}

fn runaways(checkup: &Checkup, exact: bool) -> Vec<Vec<Value>> {
    let row = |(node, servant): (&Examined, &BusyServant)| {
        let mut row = busy_row(checkup, node, servant, exact);
        row.push(servant.killed.map_or(Value::Null, |ago| time(ago, exact)));
        row
    };
    let all = busy(checkup, |elsewhere| &elsewhere.runaways);
    all.map(row).collect()
}

fn busy(
    checkup: &Checkup,
    of: fn(&Elsewhere) -> &Vec<BusyServant>,
) -> impl Iterator<Item = (&Examined, &BusyServant)> {
    let all = checkup.answers();
    all.flat_map(move |(node, answer)| of(&answer.elsewhere).iter().map(move |one| (node, one)))
}

fn busy_row(checkup: &Checkup, node: &Examined, servant: &BusyServant, exact: bool) -> Vec<Value> {
    vec![
        json!(checkup.object(servant.object)),
        json!(node.name),
        json!(servant.shard),
        json!(servant.class),
        json!(servant.method),
        time(servant.busy, exact),
    ]
}

/// Those that crash first, as each node tells them.
fn servers(checkup: &Checkup, exact: bool) -> Vec<Vec<Value>> {
    let mut all: Vec<_> = checkup
        .answers()
        .flat_map(|(node, answer)| answer.elsewhere.servers.iter().map(move |one| (node, one)))
        .collect();
    all.sort_by_key(|(_, server)| std::cmp::Reverse(server.crashes));
    let maybe = |span: Option<Duration>| span.map_or(Value::Null, |span| time(span, exact));
    let row = |(node, server): &(&Examined, &ServerDescription)| {
        vec![
            json!(server.object.map(|object| checkup.object(object))),
            json!(node.name),
            json!(server.class),
            json!(server.pid),
            maybe(server.age),
            json!(server.restarts),
            json!(server.crashes),
            json!(server.last_exit),
            maybe(server.pause),
        ]
    };
    all.iter().map(row).collect()
}
