//! Every implementation against the one suite.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use partha_store::{LmdbOptions, LmdbStore, MemoryStore, ObjectStore, conformance};

#[test]
fn memory() {
    conformance::suite(|| Box::new(MemoryStore::new()));
}

#[test]
fn lmdb() {
    lmdb_with(LmdbOptions::default().log_bytes);
}

#[test]
fn lmdb_without_a_log() {
    lmdb_with(0);
}

/// The log is full all the time: some sets go to LMDB directly, checkpoints are many.
#[test]
fn lmdb_with_a_small_log() {
    lmdb_with(2000);
}

fn lmdb_with(log_bytes: u64) {
    let dir = tempfile::tempdir().unwrap();
    let count = std::cell::Cell::new(0);
    let mut options = LmdbOptions::default();
    options.sweep_interval_ms = 10;
    options.log_bytes = log_bytes;
    conformance::suite(|| -> Box<dyn ObjectStore> {
        count.set(count.get() + 1);
        let folder = dir.path().join(count.get().to_string());
        Box::new(LmdbStore::open_with(folder, &options).unwrap())
    });
}
