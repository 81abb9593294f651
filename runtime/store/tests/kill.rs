//! A process killed while it writes: whatever it was told to be on disk is there, and whole.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod common;

use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use common::{Random, call, put_row, save_reply, uid};
use partha_core::id::Incarnation;
use partha_store::{Batch, Item, LmdbOptions, LmdbStore, ObjectStore};

const KILLS: u32 = 60;
const OBJECTS: u64 = 8;

fn options() -> LmdbOptions {
    let mut options = LmdbOptions::default();
    // Small, so that the map is grown and the log is written to LMDB while the kills fall.
    options.map_bytes_initial = 128 << 10;
    options.log_bytes = 40_000;
    options.sweep_interval_ms = 1;
    options
}

/// What the counters of the objects are, after a check that each object is whole: its state, its
/// row and the reply of its last step were written in one batch and must agree.
fn counters(dir: &Path, killed: u32) -> HashMap<u64, u64> {
    let store = LmdbStore::open_with(dir, &options()).unwrap();
    // Twice each round: once by the child, once here.
    assert_eq!(store.identity().incarnation, Incarnation(2 * killed));
    let mut counters = HashMap::new();
    for local in 1..=OBJECTS {
        let Some(count) = common::state(&store, local) else {
            assert_eq!(store.count_rows(uid(local), 1).unwrap(), 0);
            continue;
        };
        let count: u64 = count.split_once(' ').unwrap().0.parse().unwrap();
        let row = store.read_row(uid(local), 1, b"count").unwrap().unwrap();
        assert_eq!(
            row,
            count.to_string(),
            "object {local}: row and state of one batch"
        );
        let reply = store
            .read_reply(call(local << 32 | count))
            .unwrap()
            .unwrap();
        assert_eq!(reply.body, format!("{local} at {count}"));
        let ahead = store.read_reply(call(local << 32 | (count + 1))).unwrap();
        assert_eq!(ahead, None, "object {local}: a reply without its state");
        counters.insert(local, count);
    }
    counters
}

#[test]
fn acknowledged_batches_survive_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random::new(9);
    let mut acknowledged: HashMap<u64, u64> = HashMap::new();
    let mut total = 0;
    for kill in 1..=KILLS {
        let mut child = common::child("write_until_killed", dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let patience = random.below(60);
        let mut said = common::lines(&mut child);
        for _ in 0..=patience {
            note(
                &said.next().expect("the child writes until it is killed"),
                &mut acknowledged,
            );
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said before the blow counts, too.
        let late = said.map(|line| note(&line, &mut acknowledged)).count() as u64;
        total += patience + late;
        let found = counters(dir.path(), kill);
        for (local, count) in &acknowledged {
            let found = found.get(local).copied().unwrap_or(0);
            assert!(
                found >= *count,
                "kill {kill}: object {local} is {found}, was {count}"
            );
        }
        acknowledged = found;
    }
    println!("{KILLS} kills, {total} acknowledged batches, none lost, none half");
}

/// A line is "object count".
fn note(line: &str, acknowledged: &mut HashMap<u64, u64>) {
    // The last line may be cut short by the kill; then it was not said.
    let Some((local, count)) = line.strip_suffix('.').and_then(|line| line.split_once(' ')) else {
        return;
    };
    acknowledged.insert(local.parse().unwrap(), count.parse().unwrap());
}

#[test]
#[ignore = "a child process of another test"]
fn write_until_killed() {
    let Some(dir) = common::child_dir() else {
        return;
    };
    let store = Arc::new(LmdbStore::open_with(dir, &options()).unwrap());
    let steps: Vec<_> = (1..=OBJECTS)
        .map(|local| {
            let created = common::state(&*store, local).is_none();
            if created {
                let items = step(local, 0, true);
                store.commit(Batch::new(items)).unwrap();
            }
            let (read, epoch) = store.activate(uid(local)).unwrap().unwrap();
            let text = String::from_utf8(read.state.to_vec()).unwrap();
            let count = text.split_once(' ').unwrap().0.parse::<u64>().unwrap();
            (local, epoch, Mutex::new(count))
        })
        .collect();
    // One thread an object, so that batches of several objects share transactions.
    std::thread::scope(|scope| {
        for (local, epoch, count) in &steps {
            let store = Arc::clone(&store);
            scope.spawn(move || {
                loop {
                    let mut count = count.lock().unwrap();
                    *count += 1;
                    let mut items = step(*local, *count, false);
                    for item in &mut items {
                        if let Item::WriteState { record, .. } = item {
                            record.epoch = *epoch;
                        }
                    }
                    store.commit(Batch::new(items)).unwrap();
                    common::say(&format!("{local} {count}."));
                }
            });
        }
    });
}

fn step(local: u64, count: u64, create: bool) -> Vec<Item> {
    // Sizes vary, so that pages split, overflow and are freed.
    let text = format!("{count} {}", "x".repeat((count * 977 % 6000) as usize));
    let first = if create {
        common::create(local, &text)
    } else {
        common::write(local, partha_core::id::Epoch(0), &text)
    };
    let reply = save_reply(
        local << 32 | count,
        &format!("{local} at {count}"),
        3_600_000,
    );
    vec![
        first,
        put_row(local, 1, b"count", &count.to_string()),
        reply,
    ]
}
