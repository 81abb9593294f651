//! What only a store on disk can show: restarts, growth, limits, other processes.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::{
    Random, commit, create, decide, install, prepare, put_row, record, settle, shadow, shadow_row,
    state, uid, undo, write,
};
use partha_core::id::{Epoch, Incarnation};
use partha_store::{Item, LmdbOptions, LmdbStore, ObjectStore, StoreError};

#[test]
fn a_restart_keeps_everything_and_raises_the_incarnation() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("made/by/the/store");
    let node = {
        let store = LmdbStore::open(&folder).unwrap();
        assert_eq!(store.identity().incarnation, Incarnation(1));
        commit(&store, vec![create(1, "one"), put_row(1, 1, b"k", "v")]).unwrap();
        store.identity().node
    };
    for restart in 2..=5 {
        let store = LmdbStore::open(&folder).unwrap();
        assert_eq!(store.identity().node, node);
        assert_eq!(store.identity().incarnation, Incarnation(restart));
        let (read, epoch) = store.activate(uid(1)).unwrap().unwrap();
        assert!(epoch > read.epoch, "epochs grow over restarts");
        commit(&store, vec![write(1, epoch, &format!("state {restart}"))]).unwrap();
        assert_eq!(store.read_row(uid(1), 1, b"k").unwrap().unwrap(), "v");
    }
    let store = LmdbStore::open(&folder).unwrap();
    assert_eq!(state(&store, 1), Some("state 5".to_owned()));
    let stale = commit(
        &store,
        vec![write(1, Epoch::new(Incarnation(4), 1), "from another life")],
    );
    assert!(matches!(stale, Err(StoreError::Fenced { .. })), "{stale:?}");
}

#[test]
fn two_new_stores_have_different_nodes() {
    let dir = tempfile::tempdir().unwrap();
    let a = LmdbStore::open(dir.path().join("a")).unwrap();
    let b = LmdbStore::open(dir.path().join("b")).unwrap();
    assert_ne!(a.identity().node, b.identity().node);
}

#[test]
fn replies_of_an_earlier_life_expire() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = LmdbOptions::default();
    options.sweep_interval_ms = 3_600_000;
    let store = LmdbStore::open_with(dir.path(), &options).unwrap();
    commit(&store, vec![common::save_reply(1, "old", 1)]).unwrap();
    drop(store);
    options.sweep_interval_ms = 5;
    let store = LmdbStore::open_with(dir.path(), &options).unwrap();
    common::eventually("the reply is gone", || {
        store.read_reply(common::call(1)).unwrap().is_none()
    });
}

#[test]
fn a_folder_has_one_store_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = LmdbStore::open(dir.path()).unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(dir.path(), &link).unwrap();
    for path in [dir.path(), &link] {
        let refused = LmdbStore::open(path).unwrap_err();
        let ours = Some(std::process::id());
        assert!(
            matches!(&refused, StoreError::InUse { pid, .. } if *pid == ours),
            "{refused}"
        );
    }
    store.close();
    LmdbStore::open(&link).unwrap();
}

#[test]
fn another_process_is_refused_and_a_killed_one_is_not_missed() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = common::child("hold_open", dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    common::wait_for_line(&mut child, "open");
    let refused = LmdbStore::open(dir.path()).unwrap_err();
    let theirs = Some(child.id());
    assert!(
        matches!(&refused, StoreError::InUse { pid, .. } if *pid == theirs),
        "{refused}"
    );
    assert!(
        refused
            .to_string()
            .contains(&format!("process {}", child.id())),
        "{refused}"
    );
    child.kill().unwrap();
    child.wait().unwrap();
    let store = LmdbStore::open(dir.path()).unwrap();
    assert_eq!(store.identity().incarnation, Incarnation(2));
}

#[test]
#[ignore = "a child process of another test"]
fn hold_open() {
    let Some(dir) = common::child_dir() else {
        return;
    };
    let _store = LmdbStore::open(dir).unwrap();
    common::say("open");
    loop {
        thread::park();
    }
}

fn small_map(max: usize) -> LmdbOptions {
    let mut options = LmdbOptions::default();
    options.map_bytes_initial = 64 << 10;
    options.map_bytes_max = max;
    options
}

#[test]
fn the_map_grows_under_readers_and_writers() {
    let dir = tempfile::tempdir().unwrap();
    let store = LmdbStore::open_with(dir.path(), &small_map(1 << 30)).unwrap();
    let large = "x".repeat(40_000);
    commit(&store, vec![create(1, "one")]).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    assert_eq!(state(&store, 1).unwrap(), "one");
                    assert!(!store.scan_objects(None, 10).unwrap().is_empty());
                }
            });
        }
        for local in 2..200 {
            commit(&store, vec![create(local, &large)]).unwrap();
        }
        // One that is far larger than the map, in one leap of several doublings.
        commit(&store, vec![create(200, &"y".repeat(30 << 20))]).unwrap();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let usage = store.usage();
    assert!(
        usage.map_bytes > usage.used_bytes && usage.used_bytes > 30 << 20,
        "{usage:?}"
    );
    assert_eq!(store.scan_objects(None, 1000).unwrap().len(), 200);
    drop(store);
    let store = LmdbStore::open_with(dir.path(), &small_map(1 << 30)).unwrap();
    assert_eq!(state(&store, 199).unwrap(), large);
    assert_eq!(state(&store, 200).unwrap().len(), 30 << 20);
}

#[test]
fn a_store_at_its_limit_says_so_and_can_be_emptied() {
    let dir = tempfile::tempdir().unwrap();
    let options = small_map(2 << 20);
    let store = LmdbStore::open_with(dir.path(), &options).unwrap();
    let large = "x".repeat(100_000);
    let mut made = 0;
    let error = loop {
        match commit(&store, vec![create(made + 1, &large)]) {
            Ok(()) => made += 1,
            Err(error) => break error,
        }
    };
    let max = options.map_bytes_max;
    assert!(
        matches!(error, StoreError::MapFull { map_bytes_max } if map_bytes_max == max),
        "{error}"
    );
    assert!(made >= 5, "only {made} objects of 100 kB in 2 MiB");
    assert_eq!(
        state(&store, made).unwrap(),
        large,
        "what is there can be read"
    );
    // In one set with one that cannot be, small ones are.
    let busy = common::busy(&store);
    let too_large = common::submit(&store, vec![create(1000, &large)]);
    let small = common::submit(&store, vec![create(1001, "small")]);
    let delete = common::submit(&store, vec![Item::Delete { uid: uid(1) }]);
    drop(busy);
    assert!(matches!(
        too_large.recv().unwrap(),
        Err(StoreError::MapFull { .. })
    ));
    small.recv().unwrap().unwrap();
    delete.recv().unwrap().unwrap();
    for local in 2..=made {
        commit(&store, vec![Item::Delete { uid: uid(local) }]).unwrap();
    }
    for local in 2..made {
        commit(&store, vec![create(local, &large)]).unwrap();
    }
}

#[test]
fn queues_and_batches_have_limits() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = LmdbOptions::default();
    options.queue_batches_max = 4;
    options.queue_bytes_max = 10_000;
    options.batch_bytes_max = 50_000;
    let store = LmdbStore::open_with(dir.path(), &options).unwrap();
    let huge = commit(&store, vec![create(1, &"x".repeat(60_000))]);
    assert!(
        matches!(huge, Err(StoreError::TooLarge { max: 50_000, .. })),
        "{huge:?}"
    );
    commit(&store, vec![create(1, &"x".repeat(40_000))]).unwrap();

    let busy = common::busy(&store);
    let mut waiting: Vec<_> = (10..14)
        .map(|local| common::submit(&store, vec![create(local, "x")]))
        .collect();
    let fifth = common::submit(&store, vec![create(14, "x")]);
    let refused = fifth.try_recv().expect("refused at once");
    assert!(
        matches!(refused, Err(StoreError::Overloaded { batches: 5, .. })),
        "{refused:?}"
    );
    drop(busy);
    for result in waiting.drain(..) {
        result.recv().unwrap().unwrap();
    }

    let busy = common::busy(&store);
    let first = common::submit(&store, vec![create(20, &"x".repeat(9_000))]);
    let second = common::submit(&store, vec![create(21, &"x".repeat(9_000))]);
    let refused = second.try_recv().expect("refused at once");
    assert!(
        matches!(refused, Err(StoreError::Overloaded { .. })),
        "{refused:?}"
    );
    drop(busy);
    first.recv().unwrap().unwrap();
    commit(&store, vec![create(21, &"x".repeat(9_000))]).unwrap();
}

#[test]
fn a_file_that_is_taken_away_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data.mdb");
    let aside = dir.path().join("aside");
    let store = LmdbStore::open(dir.path()).unwrap();
    commit(&store, vec![create(1, "one")]).unwrap();
    fs::rename(&data, &aside).unwrap();
    let gone = commit(&store, vec![create(2, "two")]).unwrap_err();
    assert!(
        matches!(gone, StoreError::Broken { .. }) && gone.outcome_unknown(),
        "{gone}"
    );
    assert!(!data.exists(), "no new file in its place");
    fs::copy(&aside, &data).unwrap();
    let replaced = commit(&store, vec![create(2, "two")]).unwrap_err();
    assert!(matches!(replaced, StoreError::Broken { .. }), "{replaced}");
    assert!(matches!(
        store.read_state(uid(1)),
        Err(StoreError::Broken { .. })
    ));
    fs::rename(&aside, &data).unwrap();
    commit(&store, vec![create(2, "two")]).unwrap();
    assert_eq!(state(&store, 1).unwrap(), "one");
}

/// The check at opening must never refuse a sound store, whatever it went through.
#[test]
fn any_history_passes_the_check() {
    let mut random = Random::new(11);
    for round in 0..6 {
        let dir = tempfile::tempdir().unwrap();
        let mut options = small_map(1 << 30);
        options.sweep_interval_ms = 1;
        for _ in 0..12 {
            let store = LmdbStore::open_with(dir.path(), &options).unwrap();
            for _ in 0..random.below(40) {
                let items = random_items(&mut random, round);
                match commit(&store, items) {
                    Ok(()) | Err(StoreError::Exists { .. } | StoreError::NoSuchObject { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
}

fn random_items(random: &mut Random, round: u64) -> Vec<Item> {
    let size = [10, 3_000, 9_000][random.below(3) as usize];
    let text = "t".repeat(random.below(size) as usize);
    let local = 1 + random.below(30);
    match random.below(8) {
        0 | 1 => vec![create(local, &text)],
        2 => vec![Item::WriteState {
            uid: uid(local),
            record: record(1, &text),
        }],
        3 => vec![Item::Delete { uid: uid(local) }],
        4 => (0..random.below(200))
            .map(|_| {
                put_row(
                    local,
                    1,
                    &random.bytes(1 + 80 * round as usize),
                    &text[..text.len() / 9],
                )
            })
            .collect(),
        5 => (0..random.below(60))
            .map(|_| common::save_reply(random.below(1000), &text, random.below(30)))
            .collect(),
        6 => random_step(random, local, &text),
        _ => vec![install(900 + random.below(3))],
    }
}

fn random_step(random: &mut Random, local: u64, text: &str) -> Vec<Item> {
    let (number, keep_ms) = (900 + random.below(3), random.below(30));
    match random.below(5) {
        0 => vec![undo(number)],
        1 => vec![decide(random.below(1000), random.below(2) == 0, keep_ms)],
        2 => (0..1000).map(settle).collect(),
        _ => {
            let rows = (0..random.below(50))
                .map(|_| shadow_row(number, local, &random.bytes(30), Some(text)))
                .collect::<Vec<_>>();
            let mut items = vec![shadow(number, local, Epoch(1), text), prepare(number)];
            items.extend(rows);
            items
        }
    }
}

#[test]
fn a_hundred_thousand_objects_open_fast() {
    let dir = tempfile::tempdir().unwrap();
    let state = "s".repeat(100);
    {
        let store = LmdbStore::open(dir.path()).unwrap();
        for block in 0..100 {
            let items = (0..1000)
                .map(|i| create(1 + block * 1000 + i, &state))
                .collect();
            commit(&store, items).unwrap();
        }
    }
    let start = Instant::now();
    let store = LmdbStore::open(dir.path()).unwrap();
    let took = start.elapsed();
    assert_eq!(store.read_state(uid(77_777)).unwrap().unwrap().state, state);
    let bytes = fs::metadata(dir.path().join("data.mdb")).unwrap().len();
    println!("100,000 objects in {bytes} bytes opened, wholly checked, in {took:?}");
    assert!(took < Duration::from_secs(2), "took {took:?}");
    assert_eq!(
        store.scan_objects(Some(uid(99_990)), 100).unwrap().len(),
        10
    );
}

#[test]
fn an_unusable_folder_is_a_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "no folder").unwrap();
    let error = LmdbStore::open(&file).unwrap_err();
    assert!(
        matches!(&error, StoreError::Io { path, .. } if path == Path::new(&file)),
        "{error}"
    );
    assert!(error.to_string().contains("file"), "{error}");
}

#[test]
fn a_child_process_does_not_inherit_the_lock() {
    // A process started from a node must not inherit the lock and keep the folder.
    let dir = tempfile::tempdir().unwrap();
    let store = LmdbStore::open(dir.path()).unwrap();
    let mut child = Command::new("sleep").arg("60").spawn().unwrap();
    drop(store);
    LmdbStore::open(dir.path()).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
}
