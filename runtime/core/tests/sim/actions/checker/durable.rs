//! What anybody was told is on disk by then, and stays there.

use partha_core::id::Uid;

use crate::actions::truth::{Ending, Kind, OpNo, Outcome, Truth};
use crate::actions::world::Check;

/// Somebody is told that an action is committed: its commit point is on disk, if it has changed
/// anything.
pub(crate) fn told_committed(truth: &Truth, root: Uid) -> Check {
    if truth.roots[&root].dead && truth.writes_of(root).next().is_some() {
        return Err(format!(
            "outcome: {root} is said to be committed, before it was aborted"
        ));
    }
    if truth.roots[&root].decided {
        return Ok(());
    }
    match truth.writes_of(root).next() {
        Some(op) => Err(format!(
            "durable: {root} is said to be committed, its op {op} is on no disk"
        )),
        None => Ok(()),
    }
}

/// An answer of a call outside of actions leaves its node.
pub(crate) fn leaves(op: OpNo, kind: Kind, outcome: &Outcome, list: &[OpNo]) -> Check {
    if outcome.ending == Ending::Failed || list.starts_with(&outcome.seen) {
        return Ok(());
    }
    Err(format!(
        "durable: op {op} ({kind:?}) answers {outcome:?}, stored is {list:?}"
    ))
}
