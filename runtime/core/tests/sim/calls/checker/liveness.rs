//! Once faults have stopped, every call gets an answer.

use crate::calls::history::{Fate, History};

/// Looks for calls that clients still wait for.
pub(crate) fn check(history: &History) -> Result<(), String> {
    let open = history
        .ops
        .iter()
        .enumerate()
        .find(|(_, op)| op.fate == Fate::Open);
    match open {
        Some((op, record)) => Err(format!("liveness: op {op} has no answer: {record:?}")),
        None => Ok(()),
    }
}
