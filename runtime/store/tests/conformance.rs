//! Every implementation against the one suite.

use partha_store::{LmdbOptions, LmdbStore, MemoryStore, ObjectStore, conformance};

#[test]
fn memory() {
    conformance::suite(|| Box::new(MemoryStore::new()));
}

#[test]
fn lmdb() {
    let dir = tempfile::tempdir().unwrap();
    let count = std::cell::Cell::new(0);
    let mut options = LmdbOptions::default();
    options.sweep_interval_ms = 10;
    conformance::suite(|| -> Box<dyn ObjectStore> {
        count.set(count.get() + 1);
        let folder = dir.path().join(count.get().to_string());
        Box::new(LmdbStore::open_with(folder, &options).unwrap())
    });
}
