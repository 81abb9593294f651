//! When nothing is under way, nothing is left: no lock, mirror, prepared record, undecided
//! shadow or unsettled decision; and after a drain no table has anything in it.

use partha_core::{Engine, Stats};

use crate::actions::disk::Disk;
use crate::actions::world::Check;

/// Looks at an engine whose programs have ended.
pub(crate) fn quiet(engine: &Engine) -> Check {
    let stats = engine.stats();
    let Stats {
        calls,
        locks,
        actions,
        commits,
        moves,
        ..
    } = stats;
    if [calls, locks, actions, commits, moves] == [0; 5] {
        return Ok(());
    }
    let actions: Vec<_> = engine.actions().collect();
    let locks: Vec<_> = engine.locks().collect();
    Err(format!(
        "rest: after the end there is {stats:?} {actions:?} {locks:?}"
    ))
}

/// Looks at an engine that has drained, and whose callers are all gone.
pub(crate) fn drained(engine: &Engine) -> Check {
    let left = Stats {
        callers_remembered: 0,
        tombstones: 0,
        ..engine.stats()
    };
    if left == Stats::default() {
        return Ok(());
    }
    Err(format!("rest: after the drain there is {left:?}"))
}

/// Looks at a store. What a shard could not write for now it tries again, if that is not more
/// than it may remember; else the next start finds it.
pub(crate) fn stored(disk: &Disk, forgetful: bool) -> Check {
    let prepared = disk.prepared.first_key_value();
    if let Some((key, record)) = prepared.filter(|_| !forgetful) {
        return Err(format!("rest: {key:?} is prepared for ever: {record:?}"));
    }
    let unsettled = disk
        .decisions
        .iter()
        .find(|(_, (_, left, groups))| !left.is_empty() || !groups.is_empty());
    if let Some((action, (_, left, groups))) = unsettled.filter(|_| !forgetful) {
        return Err(format!(
            "rest: of {action} {left:?} {groups:?} was never told"
        ));
    }
    for (uid, list) in &disk.states {
        let rows = disk.rows.get(uid);
        let row = |n: usize| rows.and_then(|rows| rows.get(&n));
        if let Some(n) = (0..list.len()).find(|n| row(*n) != Some(&list[*n])) {
            return Err(format!(
                "undo: {uid} is stored as {list:?}, its row {n} as {:?}",
                row(n)
            ));
        }
    }
    Ok(())
}
