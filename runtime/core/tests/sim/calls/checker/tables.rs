//! When nothing is under way, nothing is left in an engine's tables.

use partha_core::{Engine, Stats};

/// Looks at an engine that has drained, and whose callers are all gone.
pub(crate) fn check(engine: &Engine) -> Result<(), String> {
    let left = Stats {
        callers_remembered: 0,
        ..engine.stats()
    };
    if left == Stats::default() {
        return Ok(());
    }
    Err(format!("tables: after the end there is {left:?}"))
}
