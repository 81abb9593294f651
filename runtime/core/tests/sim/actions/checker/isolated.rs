//! Nobody sees what is not committed, but for the action itself and those it is nested in.

use partha_core::action::path::Path;
use partha_core::id::Uid;

use crate::actions::truth::{Fate, OpNo, Outcome, State, Truth};
use crate::actions::world::Check;

/// An operation begins, in an action or outside of any, and finds this list.
pub(crate) fn sees(truth: &Truth, op: OpNo, path: Option<&Path>, list: &[OpNo]) -> Check {
    for &seen in list {
        if seen == op {
            // A late copy of a call may run again once its action is over: it is undone.
            if !is_visible(truth, seen, None) {
                return Err(format!("at most once: op {op} runs again: {list:?}"));
            }
            continue;
        }
        if !is_visible(truth, seen, path) {
            let (reader, writer) = (&truth.ops[op], &truth.ops[seen]);
            return Err(format!(
                "isolated: op {op} sees op {seen} in {list:?}: {reader:?} {writer:?}"
            ));
        }
    }
    Ok(())
}

/// An action is told the list of an object, in answer to an operation: what it has done there
/// before is in it, unless that was undone with a nested action.
pub(crate) fn remembers(
    truth: &Truth,
    op: OpNo,
    path: &Path,
    told: &Outcome,
    written: &[OpNo],
) -> Check {
    let record = &truth.ops[op];
    for &write in written {
        let earlier = &truth.ops[write];
        let Fate::Answered { at, outcome } = &earlier.fate else {
            continue;
        };
        if outcome.uid == told.uid
            && *at < record.invoked_at
            && is_of(truth, write, path)
            && !told.seen.contains(&write)
        {
            return Err(format!(
                "isolated: op {op} does not see op {write} of its own action: {record:?} \
                 {earlier:?}"
            ));
        }
    }
    Ok(())
}

/// Whether an effect belongs to an action on the path.
fn is_of(truth: &Truth, op: OpNo, path: &Path) -> bool {
    let mut at = truth.ops[op].level;
    while let Some(action) = at {
        if path.is_within(action) {
            return true;
        }
        let level = &truth.levels[&action];
        at = level.parent.filter(|_| level.state == State::Merged);
    }
    false
}

/// Whether an effect is committed, or belongs to an action on the path.
fn is_visible(truth: &Truth, op: OpNo, path: Option<&Path>) -> bool {
    let record = &truth.ops[op];
    let Some(level) = record.level else {
        return record.stored;
    };
    let decided = |root: Uid| truth.roots[&root].decided;
    path.is_some_and(|path| is_of(truth, op, path)) || truth.merged_into(level).is_some_and(decided)
}
