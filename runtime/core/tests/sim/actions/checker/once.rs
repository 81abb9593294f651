//! A call takes effect at most once, however often it is sent; outside of actions an
//! acknowledged write once, a refused or raised one never.

use std::collections::BTreeMap;

use partha_core::id::Uid;

use crate::actions::truth::{Ending, Fate, Kind, OpNo, Truth};
use crate::actions::world::Check;

/// Compares what was answered with the final lists.
pub(crate) fn check(truth: &Truth, stored: &BTreeMap<Uid, Vec<OpNo>>) -> Check {
    let mut counts = vec![0_u32; truth.ops.len()];
    for (uid, list) in stored {
        for &op in list {
            counts[op] += 1;
            let record = &truth.ops[op];
            if record.kind != Kind::Create && record.uid != *uid {
                return Err(format!("at most once: {record:?} took effect at {uid}"));
            }
        }
    }
    for (op, record) in truth.ops.iter().enumerate() {
        let outside = record.level.is_none() && record.kind.writes();
        let (at_least, at_most) = match (&record.fate, record.kind) {
            (_, Kind::Read | Kind::Upgrade | Kind::Raise) | (Fate::NotExecuted, _) => (0, 0),
            (Fate::Answered { outcome, .. }, _) if outside => match outcome.ending {
                Ending::Normal => (1, 1),
                Ending::Raised => (0, 0),
                Ending::Failed => (0, 1),
            },
            (Fate::Open | Fate::Unknown | Fate::Answered { .. }, _) => (0, 1),
        };
        let count = counts[op];
        if count < at_least || count > at_most {
            return Err(format!(
                "at most once: op {op} took effect {count} times: {record:?}"
            ));
        }
    }
    Ok(())
}
