//! Copies of groups over restarts, and what they cost.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod common;

use common::{at, commit, create, install_entries, join, stage, state, submit};
use partha_store::{LmdbOptions, LmdbStore, MemoryStore, ObjectStore};

const CALLS: u64 = 20;

/// Syncs of calls on a group one after the other, whose installs nobody waits for.
fn syncs_of_calls(store: &dyn ObjectStore) -> u64 {
    commit(store, vec![create(1, "begin"), join(1, true)]).unwrap();
    let syncs = || store.usage().syncs - store.usage().syncs_sweeping;
    let before = syncs();
    let mut installs = Vec::new();
    for index in 1..=CALLS {
        commit(store, vec![stage(1, at(1, index), &index.to_string())]).unwrap();
        installs.push(submit(store, vec![install_entries(1, index)]));
    }
    for done in installs {
        done.recv().unwrap().unwrap();
    }
    assert_eq!(state(store, 1).unwrap(), CALLS.to_string());
    syncs() - before
}

#[test]
fn installs_need_no_sync() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(syncs_of_calls(&MemoryStore::new()), CALLS);
    let store = LmdbStore::open(dir.path().join("log")).unwrap();
    assert_eq!(syncs_of_calls(&store), CALLS);
}

/// Each goes with the entry of the next call, and the last one alone.
#[test]
fn without_a_log_installs_share_the_next_sync() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = LmdbOptions::default();
    options.log_bytes = 0;
    let store = LmdbStore::open_with(dir.path(), &options).unwrap();
    // A pause of the test is one in which they are written alone.
    let syncs = syncs_of_calls(&store);
    assert!((CALLS + 1..2 * CALLS).contains(&syncs), "{syncs}");
}
