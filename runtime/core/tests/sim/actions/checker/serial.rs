//! Committed actions, and calls outside of them, are as if they had run one after another, in
//! an order in which nobody comes before what was over when it began (strict serialisability).
//!
//! Since objects are lists that only grow, the order of writes is known; what a read saw says
//! between which of them it was. An order exists if and only if the graph has no cycle.

use std::collections::{BTreeMap, BTreeSet};

use partha_core::id::Uid;

use crate::actions::truth::{Ending, Fate, OpNo, Outcome, Part, Truth};
use crate::actions::world::Check;

/// Edges with what they come from.
type Graph = BTreeMap<Part, BTreeMap<Part, String>>;

/// Looks for the order.
pub(crate) fn check(truth: &Truth, stored: &BTreeMap<Uid, Vec<OpNo>>) -> Check {
    let part_of_write = |op: OpNo| match truth.ops[op].level {
        Some(level) => Part::Root(truth.root_of(level)),
        None => Part::Call(op),
    };
    let mut graph = Graph::new();
    for (uid, list) in stored {
        for pair in list.windows(2) {
            let (one, other) = (part_of_write(pair[0]), part_of_write(pair[1]));
            let why = || format!("{uid} has op {} before {}", pair[0], pair[1]);
            edge(&mut graph, one, other, why);
        }
    }
    for (op, record) in truth.ops.iter().enumerate() {
        let (Some(part), Fate::Answered { outcome, .. }) = (truth.part_of(op), &record.fate) else {
            continue;
        };
        let list = stored.get(&outcome.uid).map_or(&[][..], Vec::as_slice);
        sees(truth, op, part, outcome, list)?;
        let seen = outcome.seen.len();
        if let Some(last) = outcome.seen.last() {
            let why = || format!("op {op} sees op {last} of {}", outcome.uid);
            edge(&mut graph, part_of_write(*last), part, why);
        }
        let next = list[seen..]
            .iter()
            .find(|next| part_of_write(**next) != part);
        if let Some(next) = next {
            let why = || format!("op {op} does not see op {next} of {}", outcome.uid);
            edge(&mut graph, part, part_of_write(*next), why);
        }
    }
    real_time(truth, &mut graph);
    acyclic(&graph)
}

fn edge(graph: &mut Graph, from: Part, to: Part, why: impl FnOnce() -> String) {
    graph.entry(to).or_default();
    if from != to {
        graph.entry(from).or_default().entry(to).or_insert_with(why);
    }
}

/// What an operation saw is a beginning of the final list, with all that its own action did
/// before it.
fn sees(truth: &Truth, op: OpNo, part: Part, outcome: &Outcome, list: &[OpNo]) -> Check {
    if !list.starts_with(&outcome.seen) {
        return Err(format!(
            "serial: op {op} of {part:?} saw {outcome:?}, final is {list:?}"
        ));
    }
    if truth.ops[op].kind.writes() && !outcome.seen.contains(&op) {
        return Err(format!(
            "serial: op {op} of {part:?} did not see itself: {outcome:?}"
        ));
    }
    let invoked_at = truth.ops[op].invoked_at;
    for &own in &list[outcome.seen.len()..] {
        let earlier = match &truth.ops[own].fate {
            Fate::Answered { at, .. } => *at < invoked_at,
            Fate::Open | Fate::NotExecuted | Fate::Unknown => false,
        };
        if earlier && truth.part_of(own) == Some(part) {
            return Err(format!(
                "serial: op {op} of {part:?} did not see its own op {own}"
            ));
        }
    }
    Ok(())
}

/// Whoever began after another was acknowledged comes after it.
fn real_time(truth: &Truth, graph: &mut Graph) {
    let mut spans: Vec<(Part, u64, Option<u64>)> = Vec::new();
    for part in graph.keys() {
        spans.push(match part {
            Part::Root(root) => {
                let root = &truth.roots[root];
                (*part, root.began_at, root.told_at)
            }
            Part::Call(op) => {
                let record = &truth.ops[*op];
                // One that failed may have been executed again when it was sent again.
                let answered = match &record.fate {
                    Fate::Answered { at, outcome } if outcome.ending == Ending::Normal => Some(*at),
                    Fate::Open | Fate::NotExecuted | Fate::Unknown | Fate::Answered { .. } => None,
                };
                (*part, record.invoked_at, answered)
            }
        });
    }
    for (earlier, _, over) in &spans {
        for (later, began, _) in &spans {
            if over.is_some_and(|over| over < *began) {
                let why = || format!("{earlier:?} was over before {later:?} began");
                edge(graph, *earlier, *later, why);
            }
        }
    }
}

fn acyclic(graph: &Graph) -> Check {
    let mut waits: BTreeMap<Part, usize> = graph.keys().map(|part| (*part, 0)).collect();
    for to in graph.values().flat_map(BTreeMap::keys) {
        *waits.entry(*to).or_default() += 1;
    }
    let free = waits.iter().filter(|(_, count)| **count == 0);
    let mut free: Vec<Part> = free.map(|(part, _)| *part).collect();
    let mut left: BTreeSet<Part> = graph.keys().copied().collect();
    while let Some(part) = free.pop() {
        left.remove(&part);
        for to in graph[&part].keys() {
            let count = waits.get_mut(to).expect("every part is counted");
            *count -= 1;
            if *count == 0 {
                free.push(*to);
            }
        }
    }
    let Some(first) = left.first().copied() else {
        return Ok(());
    };
    // Every part that is left has one before it that is left: going backwards finds a cycle.
    let (mut at, mut way, mut seen) = (first, Vec::new(), Vec::new());
    while !seen.contains(&at) {
        seen.push(at);
        let before = left.iter().find(|before| graph[before].contains_key(&at));
        let before = *before.expect("it would have been free");
        way.push(format!("{before:?} -> {at:?}: {}", graph[&before][&at]));
        at = before;
    }
    Err(format!("serial: there is no order: {}", way.join("; ")))
}
