//! A store that is abandoned, as in a crash of its node: what waits behind the write that is under
//! way is not committed.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod common;

use std::sync::mpsc;
use std::thread;

use common::{commit, create, state};
use partha_store::{Batch, LmdbStore, MemoryStore, ObjectStore, StoreError};

/// Abandons the store while its thread is busy with the answer of the first batch.
fn abandoned(store: &dyn ObjectStore) {
    let (busy, is_busy) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let first = Batch {
        items: vec![create(1, "committed")],
    };
    let done = move |result: Result<(), StoreError>| {
        busy.send(result).unwrap();
        may_go_on.recv().unwrap();
    };
    store.submit(first, Box::new(done));
    is_busy.recv().unwrap().unwrap();
    let (answer, answered) = mpsc::channel();
    let waits = Batch {
        items: vec![create(2, "waits")],
    };
    let done = move |result| answer.send(result).unwrap();
    store.submit(waits, Box::new(done));
    thread::scope(|scope| {
        let abandoning = scope.spawn(|| store.abandon());
        // It takes no more batches once it has been told.
        loop {
            let (refuse, refused) = mpsc::channel();
            let (batch, here) = (Batch { items: Vec::new() }, thread::current().id());
            let done = move |_| {
                let _ = refuse.send(thread::current().id() == here);
            };
            store.submit(batch, Box::new(done));
            if refused.try_recv() == Ok(true) {
                break;
            }
            thread::yield_now();
        }
        go_on.send(()).unwrap();
        abandoning.join().unwrap();
    });
    let fate = answered.recv().unwrap();
    assert!(matches!(fate, Err(StoreError::Closed)), "{fate:?}");
    let late = commit(store, vec![create(3, "late")]);
    assert!(matches!(late, Err(StoreError::Closed)), "{late:?}");
}

fn keeps_the_first_alone(store: &dyn ObjectStore) {
    assert_eq!(state(store, 1), Some("committed".to_owned()));
    assert_eq!((state(store, 2), state(store, 3)), (None, None));
}

#[test]
fn on_disk() {
    let dir = tempfile::tempdir().unwrap();
    abandoned(&LmdbStore::open(dir.path()).unwrap());
    keeps_the_first_alone(&LmdbStore::open(dir.path()).unwrap());
}

#[test]
fn in_memory() {
    let store = MemoryStore::new();
    abandoned(&store);
    keeps_the_first_alone(&store.restart());
}
