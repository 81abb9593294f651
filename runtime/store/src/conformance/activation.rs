//! Epochs and fences.

use std::thread;

use partha_core::id::Epoch;

use super::{Busy, Make, commit, create, put_row, record, shadow, state, submit, uid, write};
use crate::{ObjectStore, StoreError};

pub(super) fn all(make: Make<'_>) {
    activation_reads_and_numbers(make);
    a_younger_activation_fences_off_the_older(make);
    writes_in_the_queue_are_fenced_off(make);
    an_activation_that_lost_a_write_is_over(make);
    activation_never_reads_what_is_about_to_change(make);
}

fn activate(store: &dyn ObjectStore, local: u64) -> Epoch {
    store.activate(uid(local)).unwrap().unwrap().1
}

fn activation_reads_and_numbers(make: Make<'_>) {
    let store = make();
    assert_eq!(store.activate(uid(1)).unwrap(), None);
    assert_eq!(store.usage().active, 0, "what is not there is not active");
    commit(&*store, vec![create(1, "one"), create(2, "two")]).unwrap();
    let (read, first) = store.activate(uid(1)).unwrap().unwrap();
    assert_eq!(read, record(1, "one"));
    assert!(first > read.epoch, "younger than what is stored");
    assert_eq!(first.0 >> 32, u64::from(store.identity().incarnation.0));
    let second = activate(&*store, 2);
    assert!(second > first);
    assert_eq!(store.usage().active, 2);
    store.deactivate(uid(1), first);
    store.deactivate(uid(2), first);
    assert_eq!(
        store.usage().active,
        1,
        "only the epoch that is active can end it"
    );
    store.deactivate(uid(2), second);
    assert_eq!(store.usage().active, 0);
}

fn a_younger_activation_fences_off_the_older(make: Make<'_>) {
    let store = make();
    commit(&*store, vec![create(1, "one")]).unwrap();
    let old = activate(&*store, 1);
    commit(&*store, vec![write(1, old, "by the old")]).unwrap();
    let young = activate(&*store, 1);
    assert!(young > old);
    let fenced = commit(&*store, vec![write(1, old, "by the old again")]);
    assert!(
        matches!(fenced, Err(StoreError::Fenced { current, .. }) if current == young),
        "{fenced:?}"
    );
    // That is no failure of the store.
    assert_eq!(store.usage().batches_failed, 0);
    let shadow = shadow(90, 1, old.0, "prepared");
    assert!(matches!(
        commit(&*store, vec![shadow]),
        Err(StoreError::Fenced { .. })
    ));
    let future = commit(&*store, vec![write(1, Epoch(u64::MAX), "by nobody")]);
    assert!(matches!(future, Err(StoreError::Fenced { .. })));
    commit(&*store, vec![write(1, young, "by the young")]).unwrap();
    store.deactivate(uid(1), young);
    let late = commit(&*store, vec![write(1, old, "by the old, late")]);
    assert!(
        matches!(late, Err(StoreError::Fenced { .. })),
        "the stored epoch fences, too"
    );
    assert_eq!(state(&*store, 1).unwrap(), "by the young");
}

fn writes_in_the_queue_are_fenced_off(make: Make<'_>) {
    let store = make();
    commit(&*store, vec![create(1, "one")]).unwrap();
    let old = activate(&*store, 1);
    let busy = Busy::make(&*store);
    let queued = submit(&*store, vec![write(1, old, "queued")]);
    let (read, young) = store.activate(uid(1)).unwrap().unwrap();
    assert_eq!(read.state, "one");
    busy.free();
    assert!(matches!(
        queued.recv().unwrap(),
        Err(StoreError::Fenced { .. })
    ));
    commit(&*store, vec![write(1, young, "two")]).unwrap();
    assert_eq!(state(&*store, 1).unwrap(), "two");
}

fn an_activation_that_lost_a_write_is_over(make: Make<'_>) {
    let store = make();
    commit(&*store, vec![create(1, "one"), create(2, "two")]).unwrap();
    let epoch = activate(&*store, 1);
    let busy = Busy::make(&*store);
    let refused = submit(&*store, vec![write(1, epoch, "lost"), create(2, "exists")]);
    let queued = submit(&*store, vec![write(1, epoch, "built on what was lost")]);
    busy.free();
    assert!(matches!(
        refused.recv().unwrap(),
        Err(StoreError::Exists { .. })
    ));
    let follower = queued.recv().unwrap();
    assert!(
        matches!(follower, Err(StoreError::EarlierWriteFailed { .. })),
        "{follower:?}"
    );
    let later = commit(&*store, vec![write(1, epoch, "later")]);
    assert!(matches!(later, Err(StoreError::EarlierWriteFailed { .. })));
    let (read, epoch) = store.activate(uid(1)).unwrap().unwrap();
    assert_eq!(read.state, "one");
    commit(&*store, vec![write(1, epoch, "anew")]).unwrap();
    assert_eq!(state(&*store, 1).unwrap(), "anew");
}

/// A counter that is raised by one under ever new activations: if an activation could read a
/// state while a write of the one before is on its way, a step would be lost.
fn activation_never_reads_what_is_about_to_change(make: Make<'_>) {
    const STEPS: u64 = 60;
    let store = make();
    commit(&*store, vec![create(1, "0")]).unwrap();
    let step = || -> bool {
        let (read, epoch) = store.activate(uid(1)).unwrap().unwrap();
        let count: u64 = std::str::from_utf8(&read.state).unwrap().parse().unwrap();
        let row = put_row(1, 1, &epoch.0.to_be_bytes(), "step");
        let items = vec![write(1, epoch, &(count + 1).to_string()), row];
        match commit(&*store, items) {
            Ok(()) => true,
            Err(StoreError::Fenced { .. }) => false,
            Err(error) => panic!("{error}"),
        }
    };
    let steps: u64 = thread::scope(|scope| {
        let run = || (0..STEPS).filter(|_| step()).count() as u64;
        let threads = [scope.spawn(run), scope.spawn(run), scope.spawn(run)];
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    assert_eq!(state(&*store, 1).unwrap(), steps.to_string());
    assert_eq!(
        store.count_rows(uid(1), 1).unwrap(),
        steps,
        "a refused batch leaves no row"
    );
}
