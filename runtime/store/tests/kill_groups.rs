//! A process killed while two stores keep copies of the same objects: afterwards both have every
//! entry that was acknowledged, each state is that of its installed entry, and a copy whose
//! snapshot was cut short knows that it has none.
//!
//! A child opens two stores, one for the leader of all groups and one for the other member, and
//! keeps adding entries: staged at both, then installed at both without waiting. Now and then an
//! entry is taken back that only one of them had, and the other member begins again with a
//! snapshot. The entries tell of actions, too: in turns one brings a part, ends it, decides on an
//! action, and settles that decision.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod common;

use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use common::{
    Random, action, at, commit, eventually, install_entries, join, site, submit, uid, view,
};
use partha_core::group::Stamp;
use partha_core::id::Epoch;
use partha_store::{
    ActionCursor, Batch, CLEAR_AT_ONCE, GroupRecord, Item, LmdbOptions, LmdbStore, ObjectStore,
    StoreError, crash_point, entry,
};

const KILLS: u32 = 25;
/// Rows that each object has from its beginning.
const ROWS: [usize; 4] = [0, 40, CLEAR_AT_ONCE + 1, 3];
/// Rows in a page of a snapshot, in bytes.
const PAGE_BYTES: usize = 4000;

/// The leader's, and the other member's.
type Stores = [LmdbStore; 2];

fn open(dir: &Path) -> Stores {
    let mut options = LmdbOptions::default();
    // Small, so that the map is grown, the log is written to LMDB while the kills fall, and some
    // installs find no room to wait for the next record.
    options.map_bytes_initial = 128 << 10;
    options.log_bytes = 40_000;
    options.sweep_interval_ms = 1;
    ["leader", "other"].map(|name| LmdbStore::open_with(dir.join(name), &options).unwrap())
}

/// What the entry with this number says about actions. Of the parts every other one is committed,
/// and has one more row.
fn about_actions(local: u64, index: u64) -> Item {
    let (uid, number) = (uid(local), action(index - (index + 3) % 4));
    let coordinator = site(1).into();
    match index % 4 {
        1 => Item::PreparePart {
            uid,
            action: number,
            coordinator,
            body: entry::encode(&common::put_row(local, 4, &index.to_be_bytes(), "").into()),
        },
        2 => Item::EndPart {
            uid,
            action: number,
            commit: index % 8 == 2,
        },
        3 => Item::DecideGroup {
            uid,
            action: number,
            participants: vec![site(2)],
            groups: vec![common::uid(index)],
            keep_ms: 3_600_000,
        },
        _ => Item::SettleGroup {
            uid,
            action: number,
        },
    }
}

/// Whether what is known of actions is what entries up to this one said.
fn check_actions(store: &LmdbStore, local: u64, installed: u64) {
    let part = store.read_part(uid(local)).unwrap();
    let expected = (installed % 4 == 1).then(|| action(installed));
    assert_eq!(part.map(|part| part.action), expected, "object {local}");
    let committed = (installed + 6) / 8;
    let rows = store.count_rows(uid(local), 4).unwrap();
    assert_eq!(rows, committed, "object {local}: rows of parts");
    let open = store.unsettled(uid(local)).unwrap();
    let decided: Vec<_> = open.iter().map(|(action, _)| *action).collect();
    let expected = (installed % 4 == 3).then(|| action(installed - 2));
    assert_eq!(decided, Vec::from_iter(expected), "object {local}");
    // The last of those that are settled.
    if let Some(settled) = (installed / 4 * 4).checked_sub(3) {
        let found = store.read_group_decision(uid(local), action(settled));
        assert!(found.unwrap().unwrap().settled, "object {local}");
    }
}

/// What the call with this number changes: state, a row, one more row.
fn changes(local: u64, index: u64) -> Batch {
    // Sizes vary, so that pages split, overflow and are freed.
    let text = format!("{index} {}", "x".repeat((index * 977 % 6000) as usize));
    Batch::new(vec![
        common::write(local, Epoch(u64::MAX), &text),
        common::put_row(local, 1, b"count", &index.to_string()),
        common::put_row(local, 2, &index.to_be_bytes(), ""),
        about_actions(local, index),
    ])
}

fn log(local: u64, number: u64, truncate: Option<u64>, add: Vec<(Stamp, Bytes)>) -> Batch {
    Batch::from(Item::GroupLog {
        uid: uid(local),
        view: view(number),
        truncate,
        add,
    })
}

/// What the store has, after a check that it fits together; none if it has no whole state.
fn read(store: &LmdbStore, local: u64) -> Option<GroupRecord> {
    let group = store.read_group(uid(local)).unwrap()?;
    if !group.has_state {
        assert_eq!(store.read_state(uid(local)).unwrap(), None);
        assert_eq!(group.staged, []);
        return None;
    }
    let text = common::state(store, local).expect("a state has a record");
    let index = group.installed.index;
    let expected = index.to_string();
    assert_eq!(text.split_once(' ').unwrap().0, expected, "object {local}");
    if index > 0 {
        let row = store.read_row(uid(local), 1, b"count").unwrap().unwrap();
        assert_eq!(row, expected, "object {local}: row and state");
    }
    let rows = store.count_rows(uid(local), 2).unwrap();
    assert_eq!(rows, index, "object {local}: one row a call");
    let rows = store.count_rows(uid(local), 3).unwrap();
    assert_eq!(rows as usize, ROWS[local as usize], "object {local}");
    check_actions(store, local, index);
    for stamp in &group.staged {
        let bytes = store.read_entry(uid(local), stamp.index).unwrap().unwrap();
        assert_eq!(entry::decode(bytes).unwrap(), changes(local, stamp.index));
    }
    Some(group)
}

fn last(group: &GroupRecord) -> Stamp {
    group.staged.last().copied().unwrap_or(group.installed)
}

/// What was acknowledged is in the leader's log, and in the other one's if it has a state.
fn check(dir: &Path, acknowledged: &HashMap<u64, u64>, what: &str) {
    let stores = open(dir);
    for (local, index) in acknowledged {
        let leader = read(&stores[0], *local).expect("the leader has a state");
        assert!(
            last(&leader).index >= *index,
            "{what}: object {local}, {index}"
        );
        if let Some(other) = read(&stores[1], *local) {
            assert!(
                last(&other).index >= *index,
                "{what}: object {local}, {index}"
            );
        }
    }
}

#[test]
fn copies_survive_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random::new(12);
    let mut acknowledged: HashMap<u64, u64> = HashMap::new();
    let mut total = 0;
    for kill in 1..=KILLS {
        let mut child = common::child("add_until_killed", dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let patience = random.below(60);
        let mut said = common::lines(&mut child);
        for _ in 0..=patience {
            let line = said.next().expect("the child adds until it is killed");
            note(&line, &mut acknowledged);
        }
        // At any moment, not just after something was done.
        thread::sleep(Duration::from_micros(random.below(20_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said before the blow counts, too.
        let late = said.map(|line| note(&line, &mut acknowledged)).count() as u64;
        total += patience + late;
        check(dir.path(), &acknowledged, &format!("kill {kill}"));
    }
    println!("{KILLS} kills, {total} acknowledged entries, none lost, none half");
}

#[test]
#[cfg_attr(
    not(feature = "crash-points"),
    ignore = "without crash points; `cargo xtask crash-points` compiles them in"
)]
fn copies_survive_every_crash_point() {
    let dir = tempfile::tempdir().unwrap();
    let here = [
        "store/stage/",
        "store/apply/",
        "store/snapshot/",
        "store/checkpoint/",
    ];
    let points = crash_point::ALL.iter();
    let points = points.filter(|name| here.iter().any(|start| name.starts_with(start)));
    let mut acknowledged = HashMap::new();
    for (round, point) in (1..).zip(points.cycle().take(3 * 2 * here.len())) {
        let mut child = common::child("add_until_killed", dir.path())
            .env("PARTHA_CRASH_POINT", format!("{point}:{}", 1 + 2 * round))
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
        check(dir.path(), &acknowledged, point);
    }
    assert_eq!(acknowledged.len(), ROWS.len());
}

/// A line is "object index".
fn note(line: &str, acknowledged: &mut HashMap<u64, u64>) {
    // The last line may be cut short by the kill; then it was not said.
    let Some((local, index)) = line.strip_suffix('.').and_then(|line| line.split_once(' ')) else {
        return;
    };
    acknowledged.insert(local.parse().unwrap(), index.parse().unwrap());
}

#[test]
#[ignore = "a child process of another test"]
fn add_until_killed() {
    let Some(dir) = common::child_dir() else {
        return;
    };
    let stores = open(&dir);
    // One thread an object, so that steps of several groups share transactions.
    thread::scope(|scope| {
        for local in 0..ROWS.len() as u64 {
            let stores = &stores;
            scope.spawn(move || add_entries(stores, local));
        }
    });
}

fn add_entries(stores: &Stores, local: u64) {
    let number = u64::from(stores[0].identity().incarnation.0);
    recover(stores, local, number);
    let first = last(&read(&stores[0], local).unwrap()).index + 1;
    for index in first.. {
        let stamp = at(number, index);
        let bytes = entry::encode(&changes(local, index));
        if index % 7 == 3 {
            // Of a leader that was replaced before the other one heard of it.
            let lost = log(local, number, None, vec![(stamp, bytes.clone())]);
            stores[0].commit(lost).unwrap();
            stores[0]
                .commit(log(local, number, Some(index - 1), vec![]))
                .unwrap();
        }
        for store in stores {
            let add = vec![(stamp, bytes.clone())];
            store.commit(log(local, number, None, add)).unwrap();
        }
        common::say(&format!("{local} {index}."));
        for store in stores {
            // Not waited for; sometimes several entries later.
            if index % 3 != 0 {
                drop(submit_install(store, local, index));
            }
        }
        if index % 23 == 11 {
            join_again(stores, local, number);
        }
    }
}

fn submit_install(store: &LmdbStore, local: u64, index: u64) -> std::sync::mpsc::Receiver<()> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let done = move |result: Result<(), StoreError>| {
        result.expect("what is staged can be installed");
        let _ = sender.send(());
    };
    let install = Batch::from(install_entries(local, index));
    store.submit(install, Box::new(done));
    receiver
}

/// Makes the group, or makes the logs equal again.
fn recover(stores: &Stores, local: u64, number: u64) {
    let Some(leader) = stores[0].read_group(uid(local)).unwrap() else {
        let rows = (0..ROWS[local as usize] as u32)
            .map(|i| common::put_row(local, 3, &i.to_be_bytes(), "row"));
        let mut items = vec![common::create(local, "0 "), join(local, true)];
        items.extend(rows);
        commit(&stores[0], items).unwrap();
        return join_again(stores, local, number);
    };
    let Some(other) = read(&stores[1], local) else {
        return join_again(stores, local, number);
    };
    let missing = leader
        .staged
        .iter()
        .filter(|it| it.index > last(&other).index);
    let entry = |it: &Stamp| stores[0].read_entry(uid(local), it.index).unwrap().unwrap();
    let add = missing.map(|it| (*it, entry(it))).collect();
    stores[1].commit(log(local, number, None, add)).unwrap();
    for store in stores {
        let group = read(store, local).unwrap();
        assert_eq!(last(&group), last(&leader), "object {local}");
        let end = install_entries(local, last(&leader).index);
        submit(store, vec![end]).recv().unwrap().unwrap();
        let group = read(store, local).unwrap();
        assert_eq!(
            (group.installed, &group.staged[..]),
            (last(&leader), &[][..])
        );
    }
}

/// The other member takes the leader's state, whatever it has.
fn join_again(stores: &Stores, local: u64, number: u64) {
    let [leader, other] = stores;
    if other.read_group(uid(local)).unwrap().is_none() {
        commit(other, vec![join(local, false)]).unwrap();
    }
    let end = last(&leader.read_group(uid(local)).unwrap().unwrap()).index;
    submit_install(leader, local, end).recv().unwrap();
    let state = leader.group_state(uid(local)).unwrap().unwrap();
    let page = |rows, actions, page: u32, last: bool| Item::GroupSnapshot {
        uid: uid(local),
        view: view(number),
        at: state.at,
        record: state.record.clone().filter(|_| last),
        rows,
        replies: vec![],
        actions,
        page,
        last,
    };
    commit(other, vec![page(vec![], None, 0, false)]).unwrap();
    let mut next = 1;
    let mut after: Option<(u16, Bytes)> = None;
    loop {
        let from = after.as_ref().map(|(part, key)| (*part, &key[..]));
        let rows = leader.export_rows(uid(local), from, PAGE_BYTES).unwrap();
        after = rows.rows.last().map(|row| (row.part, row.key.clone()));
        eventually("the old rows are gone", || {
            match commit(other, vec![page(rows.rows.clone(), None, next, false)]) {
                Ok(()) => true,
                Err(StoreError::Clearing { .. }) => false,
                Err(error) => panic!("{error}"),
            }
        });
        next += 1;
        if !rows.more {
            break;
        }
    }
    let mut from = ActionCursor::default();
    loop {
        let found = leader.export_actions(uid(local), from, PAGE_BYTES).unwrap();
        from = found.next;
        let last = found.actions.is_none();
        commit(other, vec![page(vec![], found.actions, next, last)]).unwrap();
        next += 1;
        if last {
            break;
        }
    }
    let taken = read(other, local).unwrap();
    assert_eq!(taken.installed, state.at);
}
