//! Writes and checkpoints that fail.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use partha_core::id::{ClassId, Epoch, Incarnation, NodeId, Uid};

use super::*;
use crate::fence::Fences;
use crate::lmdb::folder::Folder;
use crate::lmdb::log::{Files, Start};
use crate::queries;
use crate::store::{Item, Record};
use crate::{LmdbStore, ObjectStore};

const UID: Uid = Uid {
    node: NodeId(1),
    local: 1,
};
const NO_SWEEP: Sweep = Sweep {
    now_ms: 0,
    limit: 0,
};

/// The store thread's side of a new store, without the thread.
fn backend(dir: &Path) -> LoggedBackend {
    // Makes the tables and the identity.
    LmdbStore::open(dir).unwrap().abandon();
    let folder = Arc::new(Folder::take(dir).unwrap());
    let gate = Arc::new(Gate::open(dir, 1 << 30, 1 << 30).unwrap());
    let start = gate.enter().read(|view| {
        Ok(Start {
            life: super::super::required(view, super::super::LOG_LIFE_KEY)?,
            generation: super::super::required(view, LOG_KEY)?,
        })
    });
    let direct = LmdbBackend {
        transactor: Transactor::new(folder, gate),
        fences: Arc::new(Fences::new(Incarnation(1))),
    };
    let options = LmdbOptions::default();
    let log = Log::new(Files::open(dir).unwrap(), start.unwrap(), options.log_bytes);
    LoggedBackend::new(direct, Arc::default(), log, &options)
}

fn item(backend: &LoggedBackend, state: &'static str) -> Item {
    let record = Record {
        class: ClassId(1),
        schema: 1,
        version: 1,
        epoch: Epoch(1),
        state: Bytes::from_static(state.as_bytes()),
    };
    let gate = &backend.direct.transactor.gate;
    let there = backend
        .layers
        .read(gate, |view| queries::read_state(view, UID));
    let is_there = there.is_ok_and(|record| record.is_some());
    match is_there {
        true => Item::WriteState { uid: UID, record },
        false => Item::Create { uid: UID, record },
    }
}

fn put(backend: &mut LoggedBackend, state: &'static str) -> Result<(), StoreError> {
    let batch = [item(backend, state).into()];
    let outcome = backend.commit(&batch, NO_SWEEP);
    backend.direct.fences.settle();
    outcome.results.into_iter().next().unwrap()
}

fn read(backend: &LoggedBackend) -> Option<Bytes> {
    let gate = &backend.direct.transactor.gate;
    let read = backend
        .layers
        .read(gate, |view| queries::read_state(view, UID));
    read.unwrap().map(|record| record.state)
}

fn reopened(dir: &Path, backend: LoggedBackend) -> Bytes {
    let gate = Arc::clone(&backend.direct.transactor.gate);
    drop(backend);
    gate.close();
    let store = LmdbStore::open(dir).unwrap();
    store.read_state(UID).unwrap().unwrap().state
}

/// Nobody knows what a failed write has written. Here all of it: it must not come back over what
/// was acknowledged later.
#[test]
fn a_write_to_the_log_that_failed_is_not_found_later() {
    for earlier in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let mut backend = backend(dir.path());
        // Both files have their length then.
        for state in ["a", "b"] {
            put(&mut backend, state).unwrap();
            backend.settle().unwrap();
        }
        if earlier {
            put(&mut backend, "one").unwrap();
        }
        let batch = [Batch::from(item(&backend, "two"))];
        let (_, changes) = backend.apply(&batch, NO_SWEEP).unwrap();
        let (path, at, record) = backend.log.next_record(&changes);
        backend.log.refuse_writes();
        put(&mut backend, "two").unwrap();
        assert!(!backend.usable);
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(&record, at).unwrap();
        put(&mut backend, "three").unwrap();
        assert_eq!(read(&backend).unwrap(), "three");
        assert_eq!(reopened(dir.path(), backend), "three", "earlier: {earlier}");
    }
}

/// Neither the log nor LMDB can be written: the answer says that nobody knows.
#[test]
fn where_nothing_can_be_written_the_outcome_is_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let mut backend = backend(dir.path());
    put(&mut backend, "one").unwrap();
    let (data, aside) = (dir.path().join("data.mdb"), dir.path().join("aside"));
    fs::rename(&data, &aside).unwrap();
    let failed = StoreError::Io {
        what: "cannot write",
        path: data.clone(),
        outcome_unknown: true,
        source: Arc::new(std::io::ErrorKind::StorageFull.into()),
    };
    let batch = [Batch::from(item(&backend, "two"))];
    let outcome = backend.commit_elsewhere(Aside::Log(failed), &batch, NO_SWEEP);
    assert!(matches!(&outcome.results[..], [Err(error)] if error.outcome_unknown()));
    assert!(put(&mut backend, "three").is_err());
    fs::rename(&aside, &data).unwrap();
    backend.direct.transactor.mend().unwrap();
    assert_eq!(read(&backend).unwrap(), "one");
    put(&mut backend, "four").unwrap();
    assert_eq!(reopened(dir.path(), backend), "four");
}

#[test]
fn a_checkpoint_that_failed_is_made_later_and_nothing_is_lost_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let mut backend = backend(dir.path());
    put(&mut backend, "one").unwrap();
    let (data, aside) = (dir.path().join("data.mdb"), dir.path().join("aside"));
    fs::rename(&data, &aside).unwrap();
    backend.quiet();
    backend.await_checkpoint();
    assert!(backend.unsettled && backend.failed_at.is_some());
    fs::rename(&aside, &data).unwrap();
    backend.direct.transactor.mend().unwrap();
    assert_eq!(read(&backend).unwrap(), "one");
    put(&mut backend, "two").unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while backend.unsettled {
        assert!(Instant::now() < deadline, "it is not tried again");
        thread::sleep(Duration::from_millis(20));
        backend.look_after_checkpoint();
    }
    assert_eq!(read(&backend).unwrap(), "two");
    assert_eq!(reopened(dir.path(), backend), "two");
}
