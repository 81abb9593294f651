//! Writes and checkpoints that fail.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use partha_core::group::{Stamp, View};
use partha_core::id::{ClassId, Epoch, Incarnation, NodeId, Uid};

use super::*;
use crate::batch::Item;
use crate::entry;
use crate::fence::Fences;
use crate::lmdb::folder::Folder;
use crate::lmdb::log::{Files, Start};
use crate::queries;
use crate::store::Record;
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
    backend_with(dir, 1 << 30, &LmdbOptions::default())
}

/// The same of a store that was made before.
fn backend_with(dir: &Path, map_bytes: usize, options: &LmdbOptions) -> LoggedBackend {
    let folder = Arc::new(Folder::take(dir).unwrap());
    let gate = Arc::new(Gate::open(dir, map_bytes, options.map_bytes_max).unwrap());
    let start = gate.enter().read(|view| {
        Ok(Start {
            life: super::super::required(view, super::super::LOG_LIFE_KEY)?,
            generation: super::super::required(view, LOG_KEY)?,
            file_bytes: 0,
        })
    });
    let direct = LmdbBackend {
        transactor: Transactor::new(folder, gate),
        fences: Arc::new(Fences::new(Incarnation(1))),
    };
    let files = Files::open(dir, options.log_bytes).unwrap().unwrap();
    let log = Log::new(files, start.unwrap(), options.log_bytes);
    LoggedBackend::new(direct, Arc::default(), log, options)
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
        // It cannot be read either, perhaps, and need not be.
        fs::remove_file(&path).unwrap();
        assert_eq!(reopened(dir.path(), backend), "three", "earlier: {earlier}");
    }
}

/// Neither the log nor LMDB can be written: the answer says that nobody knows, and nobody is told
/// what may be other after a crash. Whoever decides on an action asks until there is an answer.
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
    let gate = &backend.direct.transactor.gate;
    let told = backend
        .layers
        .read(gate, |view| queries::read_state(view, UID));
    assert!(matches!(&told, Err(StoreError::Broken { .. })), "{told:?}");
    // What is asked meanwhile is answered as soon as the record is surely out of the way.
    let nothing = backend.commit(&[Batch::default()], NO_SWEEP);
    assert!(matches!(&nothing.results[..], [Ok(())]));
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

/// A prepared state is installed by a batch of a few bytes, however large it is.
#[test]
fn a_small_batch_that_changes_much_is_acknowledged_only_if_lmdb_has_room() {
    let dir = tempfile::tempdir().unwrap();
    let action = Uid { local: 9, ..UID };
    let mut large = backend(dir.path());
    let record = Record {
        class: ClassId(1),
        schema: 1,
        version: 1,
        epoch: Epoch(1),
        state: vec![7; 600_000].into(),
    };
    let shadow = Item::CreateShadow {
        action,
        uid: UID,
        record,
    };
    let outcome = large.commit(&[shadow.into()], NO_SWEEP);
    assert!(matches!(&outcome.results[..], [Ok(())]));
    large.settle().unwrap();
    let gate = Arc::clone(&large.direct.transactor.gate);
    let used = gate.enter().opened().unwrap().used_bytes();
    drop(large);
    gate.close();
    // Enough for what little it is, too small for the state.
    let map_bytes = usize::try_from(used).unwrap() + 400_000;
    let options = LmdbOptions {
        map_bytes_max: map_bytes,
        ..LmdbOptions::default()
    };
    let mut tight = backend_with(dir.path(), map_bytes, &options);
    let outcome = tight.commit(&[Item::CommitShadow { action }.into()], NO_SWEEP);
    tight.settle().unwrap();
    let refused = matches!(&outcome.results[..], [Err(StoreError::MapFull { .. })]);
    assert!(refused, "{:?}", outcome.results);
    assert_eq!(read(&tight), None);
}

#[test]
fn a_store_that_is_never_to_be_quiet_for_long_does_not_spin() {
    let dir = tempfile::tempdir().unwrap();
    LmdbStore::open(dir.path()).unwrap().abandon();
    let options = LmdbOptions {
        log_quiet_ms: 0,
        ..LmdbOptions::default()
    };
    let mut backend = backend_with(dir.path(), 1 << 30, &options);
    put(&mut backend, "one").unwrap();
    assert!(backend.quiet_after().is_some_and(|wait| !wait.is_zero()));
}

/// What is asked for is more than is needed at last, mostly, so it is no error not to get it.
#[test]
fn a_map_that_cannot_grow_is_no_reason_to_refuse_what_fits() {
    let dir = tempfile::tempdir().unwrap();
    LmdbStore::open(dir.path()).unwrap().abandon();
    // A process has 47 bits of addresses.
    let options = LmdbOptions {
        map_bytes_max: 1 << 50,
        ..LmdbOptions::default()
    };
    let mut backend = backend_with(dir.path(), 1 << 45, &options);
    put(&mut backend, "one").unwrap();
    assert!(matches!(backend.has_room_for(1 << 49), Ok(false)));
    assert_eq!(read(&backend).unwrap(), "one");
    put(&mut backend, "two").unwrap();
    assert_eq!(reopened(dir.path(), backend), "two");
}

/// Leaves that are full are split, and with long keys there are many branches above them. The
/// file of a new store has no free pages that would do instead.
#[test]
fn lmdb_needs_no_more_room_for_what_the_log_holds_than_was_looked_for() {
    for (rows, key_bytes, step) in [(20_000, 480, 100), (20_000, 480, 7), (40_000, 20, 50)] {
        let dir = tempfile::tempdir().unwrap();
        let mut backend = backend(dir.path());
        put(&mut backend, "the object").unwrap();
        let row = |number: u32, last: u8| {
            let mut key = format!("{number:08}").into_bytes();
            key.resize(key_bytes, last);
            Item::PutRow {
                uid: UID,
                part: 1,
                key: key.into(),
                value: Bytes::from_static(b"value"),
            }
        };
        let sorted = Batch::new((0..rows).map(|number| row(number, 0)).collect());
        assert!(sorted.weight_bytes() as u64 > backend.record_bytes_max);
        let between = (0..rows).step_by(step).map(|number| row(number, 1));
        for batch in [sorted, Batch::new(between.collect())] {
            let outcome = backend.commit(&[batch], NO_SWEEP);
            assert!(matches!(&outcome.results[..], [Ok(())]));
        }
        let (bytes, entries) = {
            let held = backend.layers.hold();
            (held.current.bytes(), held.current.entries())
        };
        assert_eq!(entries, rows.div_ceil(step as u32) as usize);
        let mut transactor = backend.direct.transactor.clone();
        let looked_for = transactor.estimate_layers(bytes, entries).unwrap();
        let used = || transactor.gate.enter().opened().unwrap().used_bytes();
        let before = used();
        backend.settle().unwrap();
        let needed = used() - before;
        println!("{rows} rows, each {step}th: {needed} of {looked_for} bytes");
        assert!(needed <= looked_for, "{needed} of {looked_for} bytes");
        drop(backend);
        transactor.gate.close();
    }
}

/// Batches that stage an entry with this state, and install it.
fn entry_of(backend: &LoggedBackend, index: u64, state: &'static str) -> [Batch; 2] {
    let Item::WriteState { uid, record } = item(backend, state) else {
        panic!("the object is there");
    };
    let bytes = entry::encode(&Item::WriteState { uid, record }.into());
    let stage = Item::GroupLog {
        uid,
        view: view(),
        truncate: None,
        add: vec![(Stamp { view: 1, index }, bytes)],
    };
    [stage.into(), Item::GroupInstall { uid, index }.into()]
}

fn view() -> View {
    View {
        number: 1,
        members: vec![NodeId(1)],
    }
}

/// Commits a batch alone. How many syncs that took.
fn syncs_of(backend: &mut LoggedBackend, batch: Batch) -> u64 {
    let outcome = backend.commit(&[batch], NO_SWEEP);
    outcome.results[0].as_ref().unwrap();
    outcome.syncs
}

/// A store in which an entry of a group is staged and installed; the latter is not in the log.
fn with_an_install(dir: &Path) -> LoggedBackend {
    let mut backend = backend(dir);
    put(&mut backend, "begin").unwrap();
    let join = Item::JoinGroup {
        uid: UID,
        view: view(),
        has_state: true,
    };
    assert_eq!(syncs_of(&mut backend, join.into()), 1);
    let [stage, install] = entry_of(&backend, 1, "installed");
    assert_eq!(syncs_of(&mut backend, stage), 1);
    assert_eq!(syncs_of(&mut backend, install), 0);
    assert_eq!(read(&backend).unwrap(), "installed");
    backend
}

fn create_another(backend: &mut LoggedBackend) {
    let Item::WriteState { record, .. } = item(backend, "another") else {
        panic!("the object is there");
    };
    let uid = Uid { local: 2, ..UID };
    assert_eq!(syncs_of(backend, Item::Create { uid, record }.into()), 1);
}

#[test]
fn what_is_behind_the_log_comes_with_the_next_record_whatever_file_that_is_in() {
    for (frozen, later, expected) in [
        (false, false, "begin"),
        (false, true, "installed"),
        (true, false, "begin"),
        (true, true, "installed"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut backend = with_an_install(dir.path());
        if frozen {
            // The checkpoint is never made.
            backend.freeze();
        }
        if later {
            create_another(&mut backend);
            assert!(backend.behind.iter().all(Keys::is_empty));
        }
        assert_eq!(read(&backend).unwrap(), "installed");
        let found = reopened(dir.path(), backend);
        assert_eq!(found, expected, "frozen: {frozen}, later: {later}");
    }
}

#[test]
fn what_is_behind_the_log_is_in_lmdb_when_the_log_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut backend = with_an_install(dir.path());
    backend.log.refuse_writes();
    create_another(&mut backend);
    assert!(!backend.usable);
    assert_eq!(reopened(dir.path(), backend), "installed");
}

#[test]
fn a_generation_that_only_has_what_is_behind_the_log_is_written_to_lmdb() {
    let dir = tempfile::tempdir().unwrap();
    let mut backend = with_an_install(dir.path());
    let [stage, install] = entry_of(&backend, 2, "second");
    syncs_of(&mut backend, stage);
    backend.settle().unwrap();
    assert!(backend.is_empty());
    assert_eq!(syncs_of(&mut backend, install.clone()), 0);
    assert!(backend.log.is_empty() && !backend.is_empty());
    assert!(backend.quiet_after().is_some());
    backend.settle().unwrap();
    assert!(backend.is_empty());
    // Once more changes nothing.
    assert_eq!(syncs_of(&mut backend, install), 0);
    assert!(backend.is_empty());
    assert_eq!(reopened(dir.path(), backend), "second");
}
