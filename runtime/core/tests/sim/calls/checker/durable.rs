//! Durable before visible: when an answer leaves, what it speaks of is in the store.

use std::collections::BTreeMap;

use partha_core::id::Uid;

use crate::calls::history::{Ending, Kind, OpId, Outcome};

/// An answer leaves its node.
pub(crate) fn leaves(
    op: OpId,
    kind: Kind,
    outcome: &Outcome,
    committed: &BTreeMap<Uid, Vec<OpId>>,
) -> Result<(), String> {
    let list = committed.get(&outcome.uid).map_or(&[][..], Vec::as_slice);
    if outcome.ending == Ending::Failed {
        return Ok(());
    }
    if !list.starts_with(&outcome.seen) {
        return Err(format!(
            "durable: op {op} ({kind:?}) answers {outcome:?}, stored is {list:?}"
        ));
    }
    Ok(())
}

/// A client has an answer, and all is over: it must still be true.
pub(crate) fn lasts(
    op: OpId,
    outcome: &Outcome,
    committed: &BTreeMap<Uid, Vec<OpId>>,
) -> Result<(), String> {
    let list = committed.get(&outcome.uid).map_or(&[][..], Vec::as_slice);
    if outcome.ending == Ending::Failed || list.starts_with(&outcome.seen) {
        return Ok(());
    }
    Err(format!(
        "durable: op {op} was told {outcome:?}, in the end there is {list:?}"
    ))
}
