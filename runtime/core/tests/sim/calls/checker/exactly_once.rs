//! Each acknowledged write took effect once, each refused or raised one never, each other one
//! at most once; and there is no effect without a write.

use std::collections::BTreeMap;

use partha_core::id::Uid;

use crate::calls::history::{Ending, Fate, History, Kind, OpId, Outcome};

/// Compares the history with the final lists.
pub(crate) fn check(history: &History, committed: &BTreeMap<Uid, Vec<OpId>>) -> Result<(), String> {
    let mut counts = vec![0_u32; history.ops.len()];
    for (uid, list) in committed {
        for &op in list {
            let count = counts.get_mut(op);
            *count.ok_or_else(|| format!("exactly once: {uid} has the effect of no call"))? += 1;
            let record = &history.ops[op];
            if record.kind != Kind::Create && record.uid != *uid {
                return Err(format!("exactly once: {record:?} took effect at {uid}"));
            }
        }
    }
    for (op, record) in history.ops.iter().enumerate() {
        let (at_least, at_most) = match (&record.fate, record.kind) {
            (_, Kind::Read) | (Fate::NotExecuted, _) => (0, 0),
            (Fate::Answered { outcome, .. }, _) => match outcome.ending {
                Ending::Normal => (1, 1),
                Ending::Raised => (0, 0),
                Ending::Failed => (0, 1),
            },
            (Fate::Open | Fate::Unknown, Kind::Raise) => (0, 0),
            (Fate::Open | Fate::Unknown, _) => (0, 1),
        };
        let count = counts[op];
        if count < at_least || count > at_most {
            return Err(format!(
                "exactly once: op {op} took effect {count} times: {record:?}"
            ));
        }
    }
    Ok(())
}

/// A client that has an answer to a saved call gets another one: it must be the same. A servant
/// that failed has no answer that could be kept, so asking again may go better, or worse if the
/// failure was long on its way.
pub(crate) fn same(op: OpId, first: &Outcome, second: &Outcome) -> Result<(), String> {
    if first.ending == Ending::Failed || second.ending == Ending::Failed || first == second {
        return Ok(());
    }
    Err(format!(
        "exactly once: op {op} was answered {first:?}, then {second:?}"
    ))
}
