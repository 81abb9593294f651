//! What the doctor shows below its findings: tables for people, lists of objects for scripts.
//!
//! Each section is rows under a header; its columns are the members of its objects, so that they
//! may grow in number but are not renamed.

use std::time::Duration;

use partha::system::{ActionPhase, LockDescription};
use serde_json::{Value, json};

use super::checkup::{Answer, Checkup, Examined};
use crate::sessions;
use crate::survey::{self, leaf_text, own, span};

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
        header: &[
            "SESSION", "NAME", "NODE", "KIND", "AGE", "LEASE", "BINDINGS", "CALLS", "ACTIONS",
        ],
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
];

fn time(time: Duration, exact: bool) -> Value {
    match exact {
        true => json!(time.as_secs_f64()),
        false => json!(span(time)),
    }
}

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
    let statistics = &answer.statistics;
    let bindings = answer.sessions.iter().map(|one| u64::from(one.bindings));
    let waiting = answer.locks.iter().map(|lock| lock.waiters.len());
    let held = answer.locks.iter().filter(|lock| !lock.holders.is_empty());
    vec![
        json!(node.name),
        json!("answers"),
        json!(answer.life),
        time(statistics.up, exact),
        json!(answer.sessions.len()),
        json!(bindings.sum::<u64>()),
        json!(statistics.connections),
        json!(statistics.active_objects),
        json!(statistics.actions_active),
        json!(statistics.actions_in_doubt),
        json!(held.count()),
        json!(waiting.sum::<usize>()),
        json!(statistics.orphans_killed),
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
