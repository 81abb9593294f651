//! Nobody sees what is not committed, but for the action itself and those it is nested in.

use partha_core::action::path::Path;

use crate::actions::truth::{OpNo, State, Truth};
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

/// Whether an effect is committed, or belongs to an action on the path.
fn is_visible(truth: &Truth, op: OpNo, path: Option<&Path>) -> bool {
    let record = &truth.ops[op];
    let Some(level) = record.level else {
        return record.stored;
    };
    let mut at = level;
    loop {
        if path.is_some_and(|path| path.is_within(at)) {
            return true;
        }
        let level = &truth.levels[&at];
        match level.parent {
            None => return truth.roots[&at].decided,
            Some(parent) if level.state == State::Merged => at = parent,
            Some(_) => return false,
        }
    }
}
