//! A process killed while objects move between two stores: afterwards each object is in one of
//! them, with all its rows, or on its way with both knowing enough to end that.
//!
//! A child opens two stores, one for each of two nodes, and keeps moving objects between them:
//! small ones and ones with many rows, some of which are still being removed when the object comes
//! back. A kill ends both nodes at once; what one of them did and the other did not is what a crash
//! of one leaves.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod common;

use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use common::{Random, action, eventually, install, settle, uid, undo};
use partha_core::action::path::Site;
use partha_store::moving::{Arrival, departure};
use partha_store::{
    Batch, CLEAR_AT_ONCE, Item, LmdbOptions, LmdbStore, ObjectStore, Place, Record, StoreError,
    crash_point,
};

const KILLS: u32 = 25;
/// Crash points of what is not done here: nothing has copies.
const NOT_HERE: [&str; 3] = ["store/stage/", "store/apply/", "store/snapshot/"];
/// The rows of each object.
const ROWS: [usize; 4] = [0, 40, CLEAR_AT_ONCE + 1, 2 * CLEAR_AT_ONCE];

type Stores = [LmdbStore; 2];

fn open(dir: &Path) -> Stores {
    let mut options = LmdbOptions::default();
    // Small, so that the map is grown and the log is written to LMDB while the kills fall.
    options.map_bytes_initial = 128 << 10;
    options.log_bytes = 40_000;
    options.sweep_interval_ms = 1;
    ["first", "second"].map(|name| LmdbStore::open_with(dir.join(name), &options).unwrap())
}

fn site(store: &LmdbStore) -> Site {
    let node = store.identity().node;
    Site { node, shard: 1 }
}

fn record(count: u64) -> Record {
    // Sizes vary, so that pages split, overflow and are freed.
    let text = format!("{count} {}", "x".repeat((count * 977 % 6000) as usize));
    common::record(count, &text)
}

/// The object's count in this store, after a check that it is whole; none if it is not there.
fn count(store: &LmdbStore, local: u64) -> Option<u64> {
    let Some(text) = common::state(store, local) else {
        for part in [1, 2, 3] {
            assert_eq!(store.count_rows(uid(local), part).unwrap(), 0);
        }
        return None;
    };
    let count = text.split_once(' ').unwrap().0;
    let row = store.read_row(uid(local), 1, b"count").unwrap().unwrap();
    assert_eq!(row, count, "object {local}: row and state");
    let rows = store.count_rows(uid(local), 2).unwrap();
    assert_eq!(rows as usize, ROWS[local as usize], "object {local}");
    // What it had in an earlier stay is not seen again.
    let of_stay = store.scan_rows(uid(local), 3, None, 9).unwrap();
    let count: u64 = count.parse().unwrap();
    assert_eq!(of_stay.len(), 1, "object {local}: {of_stay:?}");
    assert_eq!(of_stay[0].0, count.to_be_bytes()[..], "object {local}");
    Some(count)
}

fn moves(store: &LmdbStore, local: u64) -> u64 {
    let place = store.read_place(uid(local)).unwrap();
    place.map_or(0, Place::moves)
}

/// Which store has the object, and its count.
fn find(stores: &Stores, local: u64) -> Option<(usize, u64)> {
    let found = [count(&stores[0], local), count(&stores[1], local)];
    match found {
        [Some(count), None] => Some((0, count)),
        [None, Some(count)] => Some((1, count)),
        [None, None] => None,
        [Some(_), Some(_)] => panic!("object {local} is at both nodes: {found:?}"),
    }
}

/// What restarted nodes do: who is in doubt asks the other one.
fn recover(stores: &Stores) {
    for (here, there) in [(0, 1), (1, 0)] {
        for prepared in stores[here].scan_prepared(None, 100).unwrap() {
            assert_eq!(prepared.coordinator, site(&stores[there]).into());
            let decision = stores[there].read_decision(prepared.action).unwrap();
            let number = prepared.action.local;
            let end = if decision.is_some() {
                install(number)
            } else {
                undo(number)
            };
            stores[here].commit(Batch::from(end)).unwrap();
        }
        assert_eq!(stores[here].scan_shadows(None, 1).unwrap(), []);
    }
    for store in stores {
        for (decided, _) in store.scan_decisions(None, 100).unwrap() {
            store.commit(Batch::from(settle(decided.local))).unwrap();
        }
    }
}

/// The counts of the objects after checks of what the blow left, and of what recovery makes of it.
fn counts(dir: &Path, killed: u32) -> HashMap<u64, u64> {
    let stores = open(dir);
    for local in 0..ROWS.len() as u64 {
        if find(&stores, local).is_some() || stores.iter().all(|store| moves(store, local) == 0) {
            continue;
        }
        // It has left one node, and waits at the other one for the word.
        let on_its_way = [(0, 1), (1, 0)].into_iter().any(|(here, there)| {
            let prepared = stores[here].scan_prepared(None, 100).unwrap();
            let of_object = |action| stores[here].read_shadow(action, uid(local)).unwrap();
            prepared.iter().any(|p| {
                of_object(p.action).is_some()
                    && stores[there].read_decision(p.action).unwrap().is_some()
            })
        });
        assert!(on_its_way, "object {local} is nowhere");
    }
    // Every other time the child has to do it.
    if killed.is_multiple_of(2) {
        recover(&stores);
    }
    let mut counts = HashMap::new();
    for local in 0..ROWS.len() as u64 {
        let Some((at, count)) = find(&stores, local) else {
            continue;
        };
        counts.insert(local, count);
        let (here, there) = (&stores[at], &stores[1 - at]);
        if moves(there, local) > 0 {
            let forward = there.read_place(uid(local)).unwrap().unwrap();
            let to = here.identity().node;
            assert!(
                matches!(forward, Place::Gone { to: t, .. } if t == to),
                "object {local}: {forward:?}"
            );
            // At the node it was born it may not have come back yet.
            assert!(moves(here, local) >= forward.moves(), "object {local}");
        }
    }
    counts
}

#[test]
fn moves_survive_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random::new(11);
    let mut acknowledged: HashMap<u64, u64> = HashMap::new();
    let mut total = 0;
    for kill in 1..=KILLS {
        let mut child = common::child("move_until_killed", dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let patience = random.below(30);
        let mut said = common::lines(&mut child);
        for _ in 0..=patience {
            let line = said.next().expect("the child moves until it is killed");
            note(&line, &mut acknowledged);
        }
        // At any moment, not just after something was done.
        thread::sleep(Duration::from_micros(random.below(20_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said before the blow counts, too.
        let late = said.map(|line| note(&line, &mut acknowledged)).count() as u64;
        total += patience + late;
        check(
            &counts(dir.path(), kill),
            &acknowledged,
            &format!("kill {kill}"),
        );
    }
    let stores = open(dir.path());
    recover(&stores);
    for local in 0..ROWS.len() as u64 {
        let (at, _) = find(&stores, local).expect("nothing is lost");
        // What it left behind goes by itself.
        eventually("it may come back", || {
            let moves = moves(&stores[at], local) + 1;
            let comes = arrival(&stores[at], local, moves, 0);
            match stores[1 - at].commit(comes.begin(record(1))) {
                Ok(()) => true,
                Err(StoreError::Clearing { .. }) => false,
                Err(error) => panic!("{error}"),
            }
        });
    }
    println!("{KILLS} kills, {total} acknowledged moves, none lost, none half");
}

/// What was acknowledged is there, unless the object is still on its way.
fn check(found: &HashMap<u64, u64>, acknowledged: &HashMap<u64, u64>, what: &str) {
    for (local, count) in acknowledged {
        let found = found.get(local).copied();
        assert!(
            found.is_none_or(|found| found >= *count),
            "{what}: object {local} is at {found:?}, was at {count}"
        );
    }
}

#[test]
#[cfg_attr(
    not(feature = "crash-points"),
    ignore = "without crash points; `cargo xtask crash-points` compiles them in"
)]
fn moves_survive_every_crash_point() {
    let dir = tempfile::tempdir().unwrap();
    let points = crash_point::ALL
        .iter()
        .filter(|name| name.starts_with("store/"))
        .filter(|name| !NOT_HERE.iter().any(|start| name.starts_with(start)));
    let mut acknowledged = HashMap::new();
    for (round, point) in (1..).zip(points) {
        let mut child = common::child("move_until_killed", dir.path())
            .env("PARTHA_CRASH_POINT", format!("{point}:{}", 2 + round))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        common::lines(&mut child).for_each(|line| note(&line, &mut acknowledged));
        let said = std::io::read_to_string(child.stderr.take().unwrap()).unwrap();
        const SIGABRT: i32 = 6;
        assert_eq!(
            child.wait().unwrap().signal(),
            Some(SIGABRT),
            "{point}: {said}"
        );
        assert_eq!(said, format!("crash point {point}\n"));
        check(&counts(dir.path(), round), &acknowledged, point);
    }
    let stores = open(dir.path());
    recover(&stores);
    for local in 0..ROWS.len() as u64 {
        assert!(find(&stores, local).is_some(), "object {local}");
    }
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
fn move_until_killed() {
    let Some(dir) = common::child_dir() else {
        return;
    };
    let stores = open(&dir);
    recover(&stores);
    // One thread an object, so that steps of several moves share transactions.
    thread::scope(|scope| {
        for local in 0..ROWS.len() as u64 {
            let stores = &stores;
            scope.spawn(move || go_back_and_forth(stores, local));
        }
    });
}

fn go_back_and_forth(stores: &Stores, local: u64) {
    if find(stores, local).is_none() {
        let rows = (0..ROWS[local as usize] as u32).map(|i| Item::PutRow {
            uid: uid(local),
            part: 2,
            key: Bytes::copy_from_slice(&i.to_be_bytes()),
            value: Bytes::from_static(b"row"),
        });
        let record = record(0);
        let mut items = vec![
            Item::Create {
                uid: uid(local),
                record,
            },
            common::put_row(local, 1, b"count", "0"),
            common::put_row(local, 3, &0_u64.to_be_bytes(), ""),
        ];
        items.extend(rows);
        stores[0].commit(Batch::new(items)).unwrap();
    }
    let (mut at, mut count) = find(stores, local).unwrap();
    for attempt in 1.. {
        if !go(&stores[at], &stores[1 - at], local, attempt) {
            thread::sleep(Duration::from_millis(1));
            continue;
        }
        at = 1 - at;
        count += 1;
        let (_, epoch) = stores[at].activate(uid(local)).unwrap().unwrap();
        let mut record = record(count);
        record.epoch = epoch;
        let items = vec![
            Item::WriteState {
                uid: uid(local),
                record,
            },
            common::put_row(local, 1, b"count", &count.to_string()),
            common::put_row(local, 3, &count.to_be_bytes(), ""),
            Item::RemoveRow {
                uid: uid(local),
                part: 3,
                key: Bytes::copy_from_slice(&(count - 1).to_be_bytes()),
            },
        ];
        stores[at].commit(Batch::new(items)).unwrap();
        common::say(&format!("{local} {count}."));
    }
}

/// Every attempt is an action of its own.
fn arrival(from: &LmdbStore, local: u64, moves: u64, attempt: u64) -> Arrival {
    let life = u64::from(from.identity().incarnation.0);
    Arrival {
        action: action(local << 56 | life << 32 | attempt),
        coordinator: site(from),
        uid: uid(local),
        moves,
    }
}

/// Moves the object, unless the other node cannot take it yet or the attempt is given up.
fn go(from: &LmdbStore, to: &LmdbStore, local: u64, attempt: u64) -> bool {
    let moves = moves(from, local) + 1;
    let comes = arrival(from, local, moves, attempt);
    let record = from.read_state(uid(local)).unwrap().unwrap();
    match to.commit(comes.begin(record)) {
        Ok(()) => {}
        Err(StoreError::Clearing { .. }) => return false,
        Err(error) => panic!("{error}"),
    }
    let mut after: Option<(u16, Bytes)> = None;
    loop {
        let last = after.as_ref().map(|(part, key)| (*part, &key[..]));
        let page = from.export_rows(uid(local), last, 2000).unwrap();
        after = page.rows.last().map(|row| (row.part, row.key.clone()));
        to.commit(comes.page(page.rows, [])).unwrap();
        if !page.more {
            break;
        }
    }
    let number = comes.action.local;
    let end = |store: &LmdbStore, item| store.commit(Batch::from(item)).unwrap();
    if attempt % 5 == 4 {
        end(to, undo(number));
        assert!(count(from, local).is_some() && count(to, local).is_none());
        return false;
    }
    let away = departure(comes.action, uid(local), site(to), moves, 1);
    from.commit(away).unwrap();
    end(to, install(number));
    let told = Item::Told {
        uid: uid(local),
        moves,
    };
    end(to, told);
    end(from, settle(number));
    true
}
