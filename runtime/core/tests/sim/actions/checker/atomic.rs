//! All of a committed top-level action takes effect, on all nodes, and nothing of any other.

use std::collections::BTreeMap;

use partha_core::action::message::Verdict;
use partha_core::id::Uid;

use crate::actions::truth::{OpNo, Part, State, Truth};
use crate::actions::world::Check;

/// The commit point of an action is on a disk.
pub(crate) fn decided(truth: &Truth, root: Uid) -> Check {
    if truth.roots[&root].dead {
        return Err(format!(
            "atomic: {root} is decided, but somebody was told it is aborted"
        ));
    }
    if truth.levels[&root].state != State::Merged {
        return Err(format!(
            "atomic: {root} is decided, but nobody wanted it committed"
        ));
    }
    Ok(())
}

/// Somebody is told that an action is aborted.
pub(crate) fn told_aborted(truth: &Truth, root: Uid) -> Check {
    let told = truth.roots[&root].told_at.is_some() && truth.writes_of(root).next().is_some();
    if truth.roots[&root].decided || told {
        return Err(format!(
            "atomic: somebody is told that {root} is aborted, it is committed"
        ));
    }
    Ok(())
}

/// In the end, what is said about an action is what happened.
pub(crate) fn outcome_agrees(truth: &Truth, root: Uid, verdict: Option<Verdict>) -> Check {
    let decided = truth.roots[&root].decided;
    let writes = truth.writes_of(root).next().is_some();
    match verdict {
        Some(Verdict::Committed) if decided || !writes => Ok(()),
        Some(Verdict::Aborted) if !decided => Ok(()),
        _ => Err(format!(
            "outcome: {root} is said to be {verdict:?}, decided is {decided}"
        )),
    }
}

/// Compares what committed actions did with the final lists.
pub(crate) fn check(truth: &Truth, stored: &BTreeMap<Uid, Vec<OpNo>>) -> Check {
    for (uid, list) in stored {
        for &op in list {
            let level = truth.ops[op].level;
            if level.is_some() && truth.part_of(op).is_none() {
                return Err(format!(
                    "atomic: {uid} has the effect of op {op}, whose action is not committed: {:?}",
                    truth.ops[op]
                ));
            }
        }
    }
    for (op, record) in truth.ops.iter().enumerate() {
        let Some(Part::Root(root)) = truth.part_of(op) else {
            continue;
        };
        let list = stored.get(&record.uid).map_or(&[][..], Vec::as_slice);
        if record.kind.writes() && !list.contains(&op) {
            return Err(format!(
                "atomic: {root} is committed, the effect of its op {op} is missing: {record:?}"
            ));
        }
    }
    Ok(())
}
