//! Full disks: a clear error, no damage, and on it goes when there is space again.
//!
//! Two ways to have one without filling a real one: a limit on the size of files, set in a child
//! process (works for everybody), and a small file system in memory (needs root).

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::{
    action, at, commit, create, eventually, install, install_entries, join, put_row, record, site,
    stage, state, uid, write,
};
use partha_core::id::Epoch;
use partha_store::moving::{Arrival, departure};
use partha_store::{CLEAR_AT_ONCE, Item, LmdbStore, ObjectStore, StoreError};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// An object that moves away while the disk is full.
const LEAVES: u64 = u64::MAX;

/// An object with copies, and what an entry makes of it while the disk is full.
const COPIED: u64 = u64::MAX - 2;

fn copied_text() -> String {
    "copied".repeat(40_000)
}

/// An object that leaves, and one with copies.
fn put_what_is_special(store: &LmdbStore) {
    commit(store, vec![create(1, "one")]).unwrap();
    let rows = (0..2 * CLEAR_AT_ONCE as u32).map(|i| put_row(LEAVES, 1, &i.to_be_bytes(), "row"));
    let items = [create(LEAVES, "leaves")].into_iter().chain(rows);
    commit(store, items.collect()).unwrap();
    let add = stage(COPIED, at(1, 1), &copied_text());
    let group = vec![create(COPIED, "begin"), join(COPIED, true), add];
    commit(store, group).unwrap();
}

/// Fills the store until it says so, checks what it says and that it still works, makes room
/// by `free`, and checks that it goes on without being opened again.
fn fill_and_free(dir: &Path, free: impl FnOnce()) {
    let store = LmdbStore::open(dir).unwrap();
    let large = "x".repeat(200_000);
    put_what_is_special(&store);
    let mut made = 1;
    let error = loop {
        match commit(&store, vec![create(made + 1, &large)]) {
            Ok(()) => made += 1,
            Err(error) => break error,
        }
        assert!(made < 1000, "the disk never gets full");
    };
    assert!(matches!(&error, StoreError::Full { .. }), "{error:?}");
    assert!(!error.outcome_unknown());
    assert!(error.to_string().contains("data.mdb"), "{error}");

    let check = |store: &LmdbStore| {
        assert_eq!(state(store, 1).unwrap(), "one");
        for local in 2..=made {
            assert_eq!(state(store, local).unwrap(), large);
        }
        assert_eq!(state(store, made + 1), None, "what failed left nothing");
    };
    check(&store);
    for _ in 0..20 {
        let again = commit(&store, vec![create(made + 1, &large)]);
        assert!(matches!(again, Err(StoreError::Full { .. })), "{again:?}");
    }
    check(&store);
    cannot_arrive(&store, &large);
    copies_wait_for_room(&store);
    check(&store);
    let (_, epoch) = store.activate(uid(1)).unwrap().unwrap();
    store.deactivate(uid(1), epoch);

    // A node that is restarted on a full disk still has everything.
    let identity = store.identity();
    drop(store);
    let store = match LmdbStore::open(dir) {
        Ok(store) => {
            assert!(store.identity().incarnation > identity.incarnation);
            store
        }
        Err(StoreError::Full { .. }) => {
            println!("opening needs a page that is not there");
            free();
            let store = LmdbStore::open(dir).unwrap();
            return finish(&store, made, &large);
        }
        Err(error) => panic!("{error}"),
    };
    check(&store);
    // Room can be made from within, too.
    let deleted = commit(&store, vec![Item::Delete { uid: uid(2) }]);
    match &deleted {
        Ok(()) => println!("deleting works on the full disk"),
        Err(StoreError::Full { .. }) => println!("deleting needs a page that is not there"),
        Err(error) => panic!("{error}"),
    }
    leave(&store);
    free();
    if deleted.is_ok() {
        commit(&store, vec![create(2, &large)]).unwrap();
    }
    finish(&store, made, &large);
}

fn finish(store: &LmdbStore, made: u64, large: &str) {
    for local in made + 1..made + 10 {
        commit(store, vec![create(local, large)]).unwrap();
    }
    commit(store, vec![write(1, Epoch(u64::MAX), "on it goes")]).unwrap();
    assert_eq!(state(store, 1).unwrap(), "on it goes");
    if state(store, LEAVES).is_some() {
        let leaves = departure(action(1), uid(LEAVES), site(1), 1, 1);
        store.commit(leaves).unwrap();
    }
    assert_eq!(
        store.scan_objects(None, 10_000).unwrap().len() as u64,
        made + 10
    );
    commit(store, vec![install_entries(COPIED, 1)]).unwrap();
    assert_eq!(state(store, COPIED).unwrap(), copied_text());
    commit(store, vec![stage(COPIED, at(1, 2), large)]).unwrap();
    // Its rows go when there is room to do so, and then it may come back.
    eventually("what it left is removed", || {
        match store.commit(arrival().begin(record(1, "back"))) {
            Ok(()) => true,
            Err(StoreError::Clearing { .. }) => false,
            Err(error) => panic!("{error}"),
        }
    });
    commit(store, vec![install(2)]).unwrap();
    assert_eq!(state(store, LEAVES).unwrap(), "back");
    assert_eq!(store.count_rows(uid(LEAVES), 1).unwrap(), 0);
    store.close();
}

/// An object that does not fit does not come, and may come later.
fn cannot_arrive(store: &LmdbStore, large: &str) {
    let comes = Arrival {
        uid: uid(LEAVES - 1),
        ..arrival()
    };
    let staged = store.commit(comes.begin(record(1, large)));
    assert!(matches!(staged, Err(StoreError::Full { .. })), "{staged:?}");
    assert_eq!(store.scan_prepared(None, 1).unwrap(), []);
}

/// An entry that does not fit is not staged; one that is staged is installed, now or later.
fn copies_wait_for_room(store: &LmdbStore) {
    let text = copied_text();
    let staged = commit(store, vec![stage(COPIED, at(1, 2), &text)]);
    assert!(matches!(staged, Err(StoreError::Full { .. })), "{staged:?}");
    let installed = commit(store, vec![install_entries(COPIED, 1)]);
    let expected = match &installed {
        Ok(()) => &text,
        Err(StoreError::Full { .. }) => "begin",
        Err(error) => panic!("{error}"),
    };
    assert_eq!(state(store, COPIED).unwrap(), expected);
    let group = store.read_group(uid(COPIED)).unwrap().unwrap();
    assert_eq!(group.staged.is_empty(), installed.is_ok());
}

/// An object leaves the full disk, or stays whole.
fn leave(store: &LmdbStore) {
    let left = store.commit(departure(action(1), uid(LEAVES), site(1), 1, 1));
    match &left {
        Ok(()) => println!("an object leaves the full disk"),
        Err(StoreError::Full { .. }) => println!("leaving needs a page that is not there"),
        Err(error) => panic!("{error}"),
    }
    let decision = store.read_decision(action(1)).unwrap();
    assert_eq!(decision.is_some(), left.is_ok());
    assert_eq!(state(store, LEAVES).is_some(), left.is_err());
}

/// The way back of the object that leaves.
fn arrival() -> Arrival {
    Arrival {
        action: action(2),
        coordinator: site(1),
        uid: uid(LEAVES),
        moves: 2,
    }
}

#[test]
fn a_limit_on_file_size() {
    let dir = tempfile::tempdir().unwrap();
    let child = common::child("fill_under_a_limit", dir.path());
    // The shell ignores the signal that would end the process, which is inherited, and sets the
    // limit, in blocks of 512 bytes or of a kilobyte: 2 or 4 MiB.
    let mut shell = Command::new("sh");
    shell
        .arg("-c")
        .arg("trap '' XFSZ; ulimit -S -f 4096; exec \"$@\"")
        .arg("sh");
    shell.arg(child.get_program()).args(child.get_args());
    shell.envs(
        child
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    let output = shell.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("> finished"),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    print!("{text}");
    let store = LmdbStore::open(dir.path()).unwrap();
    assert_eq!(state(&store, 1).unwrap(), "on it goes");
}

#[test]
#[ignore = "a child process of another test"]
fn fill_under_a_limit() {
    let Some(dir) = common::child_dir() else {
        return;
    };
    fill_and_free(&dir, || {
        let limit = getrlimit(Resource::Fsize);
        setrlimit(
            Resource::Fsize,
            Rlimit {
                current: limit.maximum,
                ..limit
            },
        )
        .unwrap();
    });
    common::say("finished");
}

#[test]
fn a_small_file_system() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=3m", "partha-test"])
        .arg(&disk)
        .output();
    if !mount.is_ok_and(|output| output.status.success()) {
        println!("skipped: a small file system cannot be mounted here (needs root)");
        return;
    }
    let ballast = disk.join("ballast");
    let outcome = std::panic::catch_unwind(|| {
        fs::write(&ballast, vec![1; 512 << 10]).unwrap();
        fill_and_free(&disk.join("store"), || {
            fs::remove_file(&ballast).unwrap();
            let remount = ["-o", "remount,size=32m"];
            assert!(
                Command::new("mount")
                    .args(remount)
                    .arg(&disk)
                    .status()
                    .unwrap()
                    .success()
            );
        });
        let store = LmdbStore::open(disk.join("store")).unwrap();
        assert_eq!(state(&store, 1).unwrap(), "on it goes");
    });
    // Lazily: a child process of another test, just being made, may still share a file of ours.
    let unmounted = Command::new("umount")
        .arg("-l")
        .arg(&disk)
        .status()
        .unwrap();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
    assert!(unmounted.success());
}
