//! The suite every store must pass; the test of an implementation is one line.
//!
//! It checks the promises of [`ObjectStore`] that can be seen through the seam. What needs a
//! restart, a damaged file or a full disk is tested beside the implementation.

#![expect(
    clippy::unwrap_used,
    reason = "a suite of tests, which is library code for other crates"
)]

mod actions;
mod activation;
mod batches;
mod groups;
mod moves;
mod objects;
mod parts;

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use partha_core::id::{ClassId, Epoch, NodeId, Uid};

use crate::{Batch, Completion, Item, ObjectStore, Record, StoreError};

/// Runs every check, each on a fresh and empty store.
///
/// # Panics
/// If the store breaks a promise.
pub fn suite(make: impl Fn() -> Box<dyn ObjectStore>) {
    objects::all(&make);
    batches::all(&make);
    activation::all(&make);
    actions::all(&make);
    moves::all(&make);
    groups::all(&make);
    parts::all(&make);
}

type Make<'m> = &'m dyn Fn() -> Box<dyn ObjectStore>;

fn uid(local: u64) -> Uid {
    Uid {
        node: NodeId(7),
        local,
    }
}

/// A record under this epoch.
fn record(epoch: u64, state: &str) -> Record {
    Record {
        class: ClassId(0xC1A5),
        schema: 0x5C4E,
        version: epoch,
        epoch: Epoch(epoch),
        state: Bytes::copy_from_slice(state.as_bytes()),
    }
}

fn create(local: u64, state: &str) -> Item {
    Item::Create {
        uid: uid(local),
        record: record(1, state),
    }
}

fn write(local: u64, epoch: Epoch, state: &str) -> Item {
    Item::WriteState {
        uid: uid(local),
        record: record(epoch.0, state),
    }
}

fn put_row(local: u64, part: u16, key: &[u8], value: &str) -> Item {
    let (key, value) = (
        Bytes::copy_from_slice(key),
        Bytes::copy_from_slice(value.as_bytes()),
    );
    Item::PutRow {
        uid: uid(local),
        part,
        key,
        value,
    }
}

fn shadow(action: u64, local: u64, epoch: u64, state: &str) -> Item {
    Item::WriteShadow {
        action: uid(action),
        uid: uid(local),
        record: record(epoch, state),
    }
}

fn create_shadow(action: u64, local: u64, state: &str) -> Item {
    Item::CreateShadow {
        action: uid(action),
        uid: uid(local),
        record: record(0, state),
    }
}

/// A prepared change in part 1.
fn shadow_row(action: u64, local: u64, key: &[u8], value: Option<&str>) -> Item {
    Item::ShadowRow {
        action: uid(action),
        uid: uid(local),
        part: 1,
        key: Bytes::copy_from_slice(key),
        value: value.map(|value| Bytes::copy_from_slice(value.as_bytes())),
    }
}

fn commit(store: &dyn ObjectStore, items: Vec<Item>) -> Result<(), StoreError> {
    store.commit(Batch::new(items))
}

fn state(store: &dyn ObjectStore, local: u64) -> Option<String> {
    let record = store.read_state(uid(local)).unwrap();
    record.map(|record| String::from_utf8(record.state.to_vec()).unwrap())
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Keeps the store thread busy inside a completion until [`Busy::free`].
struct Busy(mpsc::Sender<()>);

impl Busy {
    fn make(store: &dyn ObjectStore) -> Self {
        let (free, freed) = mpsc::channel::<()>();
        let (enter, entered) = mpsc::channel();
        let done: Completion = Box::new(move |result| {
            enter.send(result).unwrap();
            let _ = freed.recv();
        });
        store.submit(Batch::default(), done);
        entered
            .recv_timeout(Duration::from_secs(20))
            .unwrap()
            .unwrap();
        Self(free)
    }

    fn free(self) {
        drop(self.0);
    }
}

/// Submits and lets the result be received later.
fn submit(store: &dyn ObjectStore, items: Vec<Item>) -> mpsc::Receiver<Result<(), StoreError>> {
    let (sender, receiver) = mpsc::channel();
    store.submit(
        Batch::new(items),
        Box::new(move |result| sender.send(result).unwrap()),
    );
    receiver
}
