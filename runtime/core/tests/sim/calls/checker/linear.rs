//! Each object behaves as if its calls ran one after another, each at some moment between its
//! request and its answer.
//!
//! Since objects are lists that only grow, this is easy to decide: every list an answer shows
//! must be a beginning of the final one (that gives the one order), contain the call's own
//! effect where it must, and be no shorter than a list shown before the call was made.

use std::collections::BTreeMap;

use partha_core::id::Uid;

use crate::calls::history::{Ending, Fate, History, Kind, OpId, Outcome};

/// Compares the history with the final lists.
pub(crate) fn check(history: &History, committed: &BTreeMap<Uid, Vec<OpId>>) -> Result<(), String> {
    let mut by_object: BTreeMap<Uid, Vec<(OpId, u64, u64, &Outcome)>> = BTreeMap::new();
    for (op, record) in history.ops.iter().enumerate() {
        let Fate::Answered { at, outcome } = &record.fate else {
            continue;
        };
        if outcome.ending == Ending::Failed {
            continue;
        }
        sees_itself(op, record.kind, outcome)?;
        by_object
            .entry(outcome.uid)
            .or_default()
            .push((op, record.invoked_at, *at, outcome));
    }
    for (uid, mut calls) in by_object {
        let list = committed.get(&uid).map_or(&[][..], Vec::as_slice);
        for (op, _, _, outcome) in &calls {
            if !list.starts_with(&outcome.seen) {
                return Err(format!(
                    "linear: op {op} saw {:?}, final is {list:?}",
                    outcome.seen
                ));
            }
        }
        let mut answered: Vec<_> = calls
            .iter()
            .map(|(_, _, at, o)| (*at, o.seen.len()))
            .collect();
        answered.sort_unstable();
        calls.sort_unstable_by_key(|(_, invoked_at, ..)| *invoked_at);
        let (mut next, mut longest) = (0, 0);
        for (op, invoked_at, _, outcome) in calls {
            while next < answered.len() && answered[next].0 < invoked_at {
                longest = longest.max(answered[next].1);
                next += 1;
            }
            if outcome.seen.len() < longest {
                return Err(format!(
                    "linear: op {op} at {uid} saw less than was shown before it"
                ));
            }
        }
    }
    Ok(())
}

fn sees_itself(op: OpId, kind: Kind, outcome: &Outcome) -> Result<(), String> {
    let right = match (kind, outcome.ending) {
        (Kind::Append | Kind::Plain, Ending::Normal) => outcome.seen.last() == Some(&op),
        (Kind::Add, Ending::Normal) => outcome.seen.contains(&op),
        (Kind::Create, Ending::Normal) => outcome.seen == [op],
        (Kind::Read, Ending::Normal) | (Kind::Raise, Ending::Raised) => !outcome.seen.contains(&op),
        (_, Ending::Normal | Ending::Raised | Ending::Failed) => false,
    };
    if right {
        Ok(())
    } else {
        Err(format!("linear: op {op} ({kind:?}) answered {outcome:?}"))
    }
}
