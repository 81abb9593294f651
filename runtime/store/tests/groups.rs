//! Copies of groups over restarts and damage, and what they cost.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod common;

use std::fs;
use std::path::Path;

use common::{
    Random, at, commit, create, eventually, install_entries, join, record, save_reply, stage,
    state, submit, uid, view, write,
};
use partha_core::id::Epoch;
use partha_store::{
    Batch, GroupRecord, Item, LmdbOptions, LmdbStore, MemoryStore, ObjectStore, StoreError, entry,
};

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

/// Bytes that calls write to the log, with a state of so many bytes each.
fn log_bytes_of_calls(state_bytes: usize, copied: bool) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let mut options = LmdbOptions::default();
    options.log_quiet_ms = 3_600_000;
    let store = LmdbStore::open_with(dir.path(), &options).unwrap();
    commit(&store, vec![create(1, "begin"), join(1, true)]).unwrap();
    let before = store.usage().log_bytes;
    let text = "x".repeat(state_bytes);
    for index in 1..=CALLS {
        let changes = vec![
            write(1, Epoch(index), &text),
            save_reply(index, "reply", 1 << 40),
        ];
        if !copied {
            commit(&store, changes).unwrap();
            continue;
        }
        let add = vec![(at(1, index), entry::encode(&Batch::new(changes)))];
        let log = Item::GroupLog {
            uid: uid(1),
            view: view(1),
            truncate: None,
            add,
        };
        commit(&store, vec![log]).unwrap();
        commit(&store, vec![install_entries(1, index)]).unwrap();
    }
    // The last install is brought along.
    commit(&store, vec![create(2, "end")]).unwrap();
    (store.usage().log_bytes - before) / CALLS
}

/// An entry is written twice, once as it is and once as what it changes; what is installed and
/// taken out of the log before LMDB is written never gets there as an entry.
#[test]
fn a_call_on_a_copy_writes_its_entry_twice() {
    for state_bytes in [100, 10_000, 100_000] {
        let plain = log_bytes_of_calls(state_bytes, false);
        let copied = log_bytes_of_calls(state_bytes, true);
        println!("state of {state_bytes} bytes: {plain} bytes a call, {copied} of a copy");
        assert!(copied <= 2 * plain + 300, "{plain} {copied}");
    }
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

fn group(store: &dyn ObjectStore, local: u64) -> GroupRecord {
    store.read_group(uid(local)).unwrap().unwrap()
}

/// A crash takes back what is shown and nobody has built on, and only that.
#[test]
fn an_install_is_on_disk_with_whatever_is_written_next() {
    let dir = tempfile::tempdir().unwrap();
    let store = LmdbStore::open(dir.path()).unwrap();
    let add = stage(1, at(1, 1), "one");
    commit(&store, vec![create(1, "begin"), join(1, true), add]).unwrap();
    let syncs = store.usage().syncs;
    commit(&store, vec![install_entries(1, 1)]).unwrap();
    assert_eq!(store.usage().syncs, syncs);
    assert_eq!(state(&store, 1).unwrap(), "one");
    assert_eq!(group(&store, 1).installed, at(1, 1));
    store.abandon();

    let store = LmdbStore::open(dir.path()).unwrap();
    assert_eq!(state(&store, 1).unwrap(), "begin");
    assert_eq!(group(&store, 1).staged, [at(1, 1)]);
    commit(&store, vec![install_entries(1, 1)]).unwrap();
    commit(&store, vec![create(2, "of another object")]).unwrap();
    store.abandon();

    let store = LmdbStore::open(dir.path()).unwrap();
    assert_eq!(state(&store, 1).unwrap(), "one");
    assert_eq!(group(&store, 1).staged, []);
    // What ends the copy is never there without what was installed before.
    commit(&store, vec![stage(1, at(1, 2), "two")]).unwrap();
    commit(&store, vec![install_entries(1, 2)]).unwrap();
    let uid = uid(1);
    let keep_object = true;
    commit(&store, vec![Item::LeaveGroup { uid, keep_object }]).unwrap();
    store.abandon();
    let store = LmdbStore::open(dir.path()).unwrap();
    assert_eq!(store.read_group(uid).unwrap(), None);
    assert_eq!(state(&store, 1).unwrap(), "two");
}

#[test]
fn an_install_is_in_lmdb_after_a_quiet_moment_and_after_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = LmdbOptions::default();
    options.log_quiet_ms = 1;
    let store = LmdbStore::open_with(dir.path(), &options).unwrap();
    let add = stage(1, at(1, 1), "one");
    commit(&store, vec![create(1, "begin"), join(1, true), add]).unwrap();
    eventually("the entry is in LMDB", || store.usage().log_bytes == 0);
    let before = store.usage().checkpoints;
    commit(&store, vec![install_entries(1, 1)]).unwrap();
    eventually("a checkpoint", || store.usage().checkpoints > before);
    store.abandon();

    let store = LmdbStore::open_with(dir.path(), &options).unwrap();
    assert_eq!(state(&store, 1).unwrap(), "one");
    commit(&store, vec![stage(1, at(1, 2), "two")]).unwrap();
    commit(&store, vec![install_entries(1, 2)]).unwrap();
    store.close();
    let store = LmdbStore::open_with(dir.path(), &options).unwrap();
    assert_eq!(group(&store, 1).installed, at(1, 2));
    assert_eq!(state(&store, 1).unwrap(), "two");
}

const ENTRY: &str = "the text of an entry";

/// Flips a bit wherever `found` says that a damaged value begins, so many bytes behind it.
fn damage(path: &Path, behind: usize, found: impl Fn(&[u8]) -> bool) {
    let mut bytes = fs::read(path).unwrap();
    let places: Vec<_> = (0..bytes.len() - 64)
        .filter(|at| found(&bytes[*at..]))
        .collect();
    assert!(!places.is_empty());
    places.into_iter().for_each(|at| bytes[at + behind] ^= 1);
    fs::write(path, bytes).unwrap();
}

/// Group 1 has a damaged entry, group 2 is damaged itself, group 3 is sound.
fn make_damaged(dir: &Path) {
    let store = LmdbStore::open(dir).unwrap();
    for local in 1..=3 {
        let text = if local == 1 { ENTRY } else { "sound" };
        let first = stage(local, at(1, 1), "first");
        let second = stage(local, at(1, 2), text);
        let items = vec![create(local, "begin"), join(local, true), first, second];
        commit(&store, items).unwrap();
    }
    store.close();
    let path = dir.join("data.mdb");
    damage(&path, 0, |bytes| bytes.starts_with(ENTRY.as_bytes()));
    let key = uid(2).to_bytes();
    const KIND: u8 = 16;
    let is_copy = |bytes: &[u8]| bytes.starts_with(&key) && bytes[16..18] == [1, KIND];
    damage(&path, 16 + 12 + 5, is_copy);
}

#[test]
fn a_damaged_copy_is_an_error_and_can_begin_again() {
    let dir = tempfile::tempdir().unwrap();
    make_damaged(dir.path());
    let refused = LmdbStore::open(dir.path()).unwrap_err();
    assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused}");

    // Without the check of the whole file the checksums of the values tell.
    let mut options = LmdbOptions::default();
    options.check_bytes_max = 0;
    let store = LmdbStore::open_with(dir.path(), &options).unwrap();
    assert_eq!(store.scan_groups(None, 9).unwrap().len(), 3);
    for local in [1, 2] {
        let read = store.read_group(uid(local));
        assert!(matches!(read, Err(StoreError::Corrupt { .. })), "{read:?}");
    }
    assert_eq!(group(&store, 3).staged.len(), 2);
    let read = store.read_entry(uid(1), 2);
    assert!(matches!(read, Err(StoreError::Corrupt { .. })), "{read:?}");
    assert!(store.read_entry(uid(1), 1).unwrap().is_some());
    for (local, index) in [(1, 2), (2, 1)] {
        let install = install_entries(local, index);
        let broken = commit(&store, vec![create(9, "x"), install]);
        assert!(
            matches!(&broken, Err(StoreError::BrokenCopy { uid: u, .. }) if *u == uid(local)),
            "{broken:?}"
        );
        assert_eq!(state(&store, local).unwrap(), "begin");
    }
    assert_eq!(store.read_state(uid(9)).unwrap(), None);
    // What is before the damage is as good as ever.
    commit(&store, vec![install_entries(1, 1)]).unwrap();
    assert_eq!(state(&store, 1).unwrap(), "first");

    // The way out.
    for local in [1, 2] {
        let uid = uid(local);
        let keep_object = false;
        let leave = Item::LeaveGroup { uid, keep_object };
        commit(&store, vec![leave, join(local, false)]).unwrap();
        let snapshot = Item::GroupSnapshot {
            uid,
            view: view(2),
            at: at(1, 2),
            record: Some(record(1, "from the leader")),
            rows: vec![],
            replies: vec![],
            actions: None,
            page: 0,
            last: true,
        };
        commit(&store, vec![snapshot]).unwrap();
        assert_eq!(group(&store, local).installed, at(1, 2));
        assert_eq!(state(&store, local).unwrap(), "from the leader");
    }
    drop(store);
    LmdbStore::open(dir.path()).unwrap();
}

/// Every answer is right, or an error.
fn assert_never_wrong(store: &LmdbStore, what: &str) {
    for local in 1..=20 {
        if let Ok(read) = store.read_group(uid(local)) {
            let read = read.unwrap_or_else(|| panic!("{what}: group {local} is lost"));
            let staged = [at(1, 2), at(2, 3)];
            assert_eq!(
                (read.installed, &read.staged[..]),
                (at(1, 1), &staged[..]),
                "{what}"
            );
        }
        for (index, text) in [(2, "two"), (3, "three")] {
            if let Ok(read) = store.read_entry(uid(local), index) {
                let expected = common::entry(local, at(1, index), &text.repeat(300)).1;
                assert_eq!(read, Some(expected), "{what}: entry {index} of {local}");
            }
        }
    }
}

#[test]
fn random_damage_is_never_a_wrong_answer() {
    let dir = tempfile::tempdir().unwrap();
    let origin = dir.path().join("origin");
    let store = LmdbStore::open(&origin).unwrap();
    for local in 1..=20 {
        let entries = [
            stage(local, at(1, 1), "one"),
            stage(local, at(1, 2), &"two".repeat(300)),
            stage(local, at(2, 3), &"three".repeat(300)),
        ];
        let items = [create(local, "begin"), join(local, true)];
        commit(&store, items.into_iter().chain(entries).collect()).unwrap();
        commit(&store, vec![install_entries(local, 1)]).unwrap();
    }
    store.close();
    let sound = fs::read(origin.join("data.mdb")).unwrap();
    let used = sound.iter().rposition(|byte| *byte != 0).unwrap() as u64;
    let mut random = Random::new(21);
    let mut refused = 0;
    for trial in 0..200 {
        let at = random.below(used) as usize;
        let mut bytes = sound.clone();
        bytes[at] ^= 1 << random.below(8);
        let copy = dir.path().join("copy");
        let _ = fs::remove_dir_all(&copy);
        fs::create_dir(&copy).unwrap();
        fs::write(copy.join("data.mdb"), &bytes).unwrap();
        match LmdbStore::open(&copy) {
            Err(StoreError::Corrupt { .. }) => refused += 1,
            Err(error) => panic!("byte {at}: {error}"),
            Ok(store) => assert_never_wrong(&store, &format!("trial {trial}, byte {at}")),
        }
    }
    assert!(refused > 20, "the damage must hit something: {refused}");
}
