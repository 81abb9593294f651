//! A process killed between the steps of actions: what is left can always be ended one way, and
//! to the same end for both halves.
//!
//! A child keeps moving one number through pairs of objects: the first of a pair is prepared, as
//! at a participant, the second is written with the decision, as at a coordinator. Both have a
//! row that must agree with their state.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod common;

use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;

use common::{
    Random, action, create, decide, install, prepare, put_row, settle, shadow, shadow_row, uid,
    undo, write,
};
use partha_core::id::{Epoch, Incarnation};
use partha_store::{Batch, Item, LmdbOptions, LmdbStore, ObjectStore, crash_point};

const KILLS: u32 = 40;
/// Crash points of what is not done here: nothing moves, and nothing has copies.
const NOT_HERE: [&str; 5] = [
    "store/arrive/",
    "store/depart/",
    "store/stage/",
    "store/apply/",
    "store/snapshot/",
];
const PAIRS: u64 = 6;

fn options() -> LmdbOptions {
    let mut options = LmdbOptions::default();
    // Small, so that the map is grown and the log is written to LMDB while the kills fall.
    options.map_bytes_initial = 128 << 10;
    options.log_bytes = 40_000;
    options.sweep_interval_ms = 1;
    options
}

/// The number of the `count`-th action of a pair.
fn number(pair: u64, count: u64) -> u64 {
    pair << 32 | count
}

/// The count that an object is at, after a check that its row agrees.
fn count(store: &dyn ObjectStore, local: u64) -> u64 {
    let text = common::state(store, local).expect("a pair is made in one batch");
    let count = text.split_once(' ').unwrap().0;
    let row = store.read_row(uid(local), 1, b"count").unwrap().unwrap();
    assert_eq!(row, count, "object {local}: row and state of one action");
    count.parse().unwrap()
}

/// Sizes vary, so that pages split, overflow and are freed.
fn text(count: u64) -> String {
    format!("{count} {}", "x".repeat((count * 977 % 6000) as usize))
}

/// What a restarted node does: decided actions are installed, others undone.
fn recover(store: &dyn ObjectStore) {
    for prepared in store.scan_prepared(None, 100).unwrap() {
        let local = prepared.action.local;
        assert_eq!(
            store.shadowed_objects(prepared.action).unwrap(),
            [uid(2 * (local >> 32))]
        );
        let decided = store.read_decision(prepared.action).unwrap().is_some();
        let end = if decided { install(local) } else { undo(local) };
        store.commit(Batch::from(end)).unwrap();
    }
    for (action, _) in store.scan_decisions(None, 100).unwrap() {
        store.commit(Batch::from(settle(action.local))).unwrap();
    }
    assert_eq!(store.scan_shadows(None, 1).unwrap(), []);
}

/// The counts of the pairs, after checks of what the blow left and of what recovery makes of it.
fn counts(dir: &Path, killed: u32) -> HashMap<u64, u64> {
    let store = LmdbStore::open_with(dir, &options()).unwrap();
    // Twice each round: once by the child, once here.
    assert_eq!(store.identity().incarnation, Incarnation(2 * killed));
    let prepared = store.scan_prepared(None, 100).unwrap();
    let open = store.scan_decisions(None, 100).unwrap();
    let mut counts = HashMap::new();
    for pair in 1..=PAIRS {
        if common::state(&store, 2 * pair).is_none() {
            continue;
        }
        let (first, second) = (count(&store, 2 * pair), count(&store, 2 * pair + 1));
        let of_pair = |action: partha_core::id::Uid| action.local >> 32 == pair;
        let waiting = prepared.iter().find(|p| of_pair(p.action));
        let decided = open.iter().find(|(action, _)| of_pair(*action));
        let what = format!("pair {pair}: {first} {second} {waiting:?} {decided:?}");
        match (waiting, decided) {
            (None, None) => assert_eq!(first, second, "{what}"),
            (Some(waiting), None) => {
                assert_eq!(first, second, "{what}");
                assert_eq!(waiting.action, action(number(pair, first + 1)), "{what}");
            }
            (Some(waiting), Some((decided, _))) => {
                assert_eq!(first + 1, second, "{what}");
                assert_eq!(
                    (waiting.action, *decided),
                    (*decided, action(number(pair, second)))
                );
            }
            (None, Some((decided, _))) => {
                assert_eq!(first, second, "{what}");
                assert_eq!(*decided, action(number(pair, second)), "{what}");
            }
        }
        counts.insert(pair, second);
    }
    // Every other time the child has to do it.
    if killed.is_multiple_of(2) {
        recover(&store);
        for (pair, count_then) in &counts {
            let ends = (count(&store, 2 * pair), count(&store, 2 * pair + 1));
            assert_eq!(ends, (*count_then, *count_then), "pair {pair}");
        }
    }
    counts
}

#[test]
fn actions_survive_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random::new(10);
    let mut acknowledged: HashMap<u64, u64> = HashMap::new();
    let mut total = 0;
    for kill in 1..=KILLS {
        let mut child = common::child("act_until_killed", dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let patience = random.below(40);
        let mut said = common::lines(&mut child);
        for _ in 0..=patience {
            let line = said.next().expect("the child acts until it is killed");
            note(&line, &mut acknowledged);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said before the blow counts, too.
        let late = said.map(|line| note(&line, &mut acknowledged)).count() as u64;
        total += patience + late;
        let found = counts(dir.path(), kill);
        for (pair, count) in &acknowledged {
            let found = found.get(pair).copied().unwrap_or(0);
            assert!(
                found >= *count,
                "kill {kill}: pair {pair} is at {found}, was at {count}"
            );
        }
        acknowledged = found;
    }
    println!("{KILLS} kills, {total} acknowledged actions, none lost, none half");
}

#[test]
#[cfg_attr(
    not(feature = "crash-points"),
    ignore = "without crash points; `cargo xtask crash-points` compiles them in"
)]
fn actions_survive_every_crash_point() {
    let dir = tempfile::tempdir().unwrap();
    let points = crash_point::ALL
        .iter()
        .filter(|name| name.starts_with("store/"))
        .filter(|name| !NOT_HERE.iter().any(|start| name.starts_with(start)));
    let mut last = HashMap::new();
    for (round, point) in (1..).zip(points) {
        let mut child = common::child("act_until_killed", dir.path())
            .env("PARTHA_CRASH_POINT", format!("{point}:{}", 7 * round))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut acknowledged = HashMap::new();
        common::lines(&mut child).for_each(|line| note(&line, &mut acknowledged));
        let said = std::io::read_to_string(child.stderr.take().unwrap()).unwrap();
        const SIGABRT: i32 = 6;
        assert_eq!(
            child.wait().unwrap().signal(),
            Some(SIGABRT),
            "{point}: {said}"
        );
        assert_eq!(said, format!("crash point {point}\n"));
        let found = counts(dir.path(), round);
        for (pair, count) in last.iter().chain(&acknowledged) {
            assert!(
                found.get(pair) >= Some(count),
                "{point}: pair {pair}: {found:?}"
            );
        }
        last = found;
    }
    assert_eq!(last.len() as u64, PAIRS);
}

/// A line is "pair count".
fn note(line: &str, acknowledged: &mut HashMap<u64, u64>) {
    // The last line may be cut short by the kill; then it was not said.
    let Some((pair, count)) = line.strip_suffix('.').and_then(|line| line.split_once(' ')) else {
        return;
    };
    acknowledged.insert(pair.parse().unwrap(), count.parse().unwrap());
}

#[test]
#[ignore = "a child process of another test"]
fn act_until_killed() {
    let Some(dir) = common::child_dir() else {
        return;
    };
    let store = LmdbStore::open_with(dir, &options()).unwrap();
    recover(&store);
    // One thread a pair, so that steps of several actions share transactions.
    std::thread::scope(|scope| {
        for pair in 1..=PAIRS {
            let store = &store;
            scope.spawn(move || act(store, pair));
        }
    });
}

fn act(store: &dyn ObjectStore, pair: u64) {
    let (first, second) = (2 * pair, 2 * pair + 1);
    let commit = |items: Vec<Item>| store.commit(Batch::new(items)).unwrap();
    if common::state(store, first).is_none() {
        let make = |local| [create(local, "0 "), put_row(local, 1, b"count", "0")];
        commit([first, second].into_iter().flat_map(make).collect());
    }
    let activate = |local| -> Epoch { store.activate(uid(local)).unwrap().unwrap().1 };
    let (first_epoch, second_epoch) = (activate(first), activate(second));
    let mut last = count(store, first);
    assert_eq!(count(store, second), last, "it was recovered");
    loop {
        last += 1;
        let (number, row) = (number(pair, last), last.to_string());
        commit(vec![
            shadow(number, first, first_epoch, &text(last)),
            shadow_row(number, first, b"count", Some(&row)),
            prepare(number),
        ]);
        if last % 7 == 3 {
            // Some are aborted and tried again.
            commit(vec![undo(number)]);
            assert_eq!(count(store, first), last - 1);
            commit(vec![
                shadow(number, first, first_epoch, &text(last)),
                shadow_row(number, first, b"count", Some(&row)),
                prepare(number),
            ]);
        }
        commit(vec![
            write(second, second_epoch, &text(last)),
            put_row(second, 1, b"count", &row),
            decide(number, false, 1),
        ]);
        common::say(&format!("{pair} {last}."));
        commit(vec![install(number)]);
        commit(vec![settle(number)]);
    }
}
