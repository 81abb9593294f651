//! Actions at copies of groups over restarts and damage, and what they cost.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod common;

use std::fs;
use std::path::Path;

use bytes::Bytes;
use common::{
    Random, action, at, commit, create, eventually, install_entries, join, put_row, record, site,
    state, uid, view, write,
};
use partha_core::action::path::Site;
use partha_core::id::{Epoch, Uid};
use partha_store::{
    Batch, GroupCheckpoint, GroupDecision, Item, LmdbOptions, LmdbStore, MemoryStore, ObjectStore,
    Part, StoreError, entry,
};

const HOUR_MS: u64 = 3_600_000;

/// What actions change of objects.
fn changes(local: u64, text: &str) -> Vec<Item> {
    vec![
        write(local, Epoch(7), text),
        put_row(local, 1, b"row", text),
    ]
}

fn prepare(local: u64, number: u64, text: &str) -> Item {
    Item::PreparePart {
        uid: uid(local),
        action: action(number),
        coordinator: site(1).into(),
        body: entry::encode(&Batch::new(changes(local, text))),
    }
}

fn end(local: u64, number: u64) -> Item {
    Item::EndPart {
        uid: uid(local),
        action: action(number),
        commit: true,
    }
}

fn decide(local: u64, number: u64, sites: Vec<Site>, groups: Vec<Uid>, keep_ms: u64) -> Item {
    Item::DecideGroup {
        uid: uid(local),
        action: action(number),
        participants: sites,
        groups,
        keep_ms,
    }
}

/// What an action that runs has of an object.
fn checkpoint(local: u64, number: u64, text: &str) -> Item {
    Item::CheckpointGroup {
        uid: uid(local),
        checkpoint: checkpointed(number, text),
    }
}

fn checkpointed(number: u64, text: &str) -> GroupCheckpoint {
    GroupCheckpoint {
        ended: Bytes::from_static(b"ended"),
        actions: vec![(action(number), text.to_owned().into())],
    }
}

fn settle(local: u64, number: u64) -> Item {
    Item::SettleGroup {
        uid: uid(local),
        action: action(number),
    }
}

fn log(local: u64, index: u64, items: Vec<Item>) -> Item {
    let bytes: Bytes = entry::encode(&Batch::new(items));
    Item::GroupLog {
        uid: uid(local),
        view: view(1),
        truncate: None,
        add: vec![(at(1, index), bytes)],
    }
}

fn decision(store: &dyn ObjectStore, local: u64, number: u64) -> Option<GroupDecision> {
    let found = store.read_group_decision(uid(local), action(number));
    found.unwrap()
}

#[test]
fn parts_and_decisions_are_there_in_a_later_life() {
    let dir = tempfile::tempdir().unwrap();
    let store = LmdbStore::open(dir.path()).unwrap();
    commit(&store, vec![create(1, "begin"), join(1, true)]).unwrap();
    let entries = [
        vec![prepare(1, 91, "by 91")],
        vec![decide(1, 92, vec![site(2)], vec![uid(5)], HOUR_MS)],
        vec![decide(1, 93, vec![], vec![], HOUR_MS)],
        vec![decide(1, 94, vec![], vec![], 1), checkpoint(1, 95, "it")],
    ];
    for (index, items) in (1..).zip(entries) {
        commit(&store, vec![log(1, index, items)]).unwrap();
    }
    commit(&store, vec![install_entries(1, 4)]).unwrap();
    commit(&store, vec![create(2, "brings the install along")]).unwrap();
    let open = GroupDecision {
        participants: vec![site(2)],
        groups: vec![uid(5)],
        settled: false,
    };
    let part = Part {
        action: action(91),
        coordinator: site(1).into(),
        body: entry::encode(&Batch::new(changes(1, "by 91"))),
    };
    // What the log has, then what LMDB has.
    let mut store = store;
    for close in [false, true] {
        if close {
            store.close();
        } else {
            store.abandon();
        }
        store = LmdbStore::open(dir.path()).unwrap();
        assert_eq!(store.read_part(uid(1)).unwrap(), Some(part.clone()));
        let found = store.read_checkpoint(uid(1)).unwrap();
        assert_eq!(found, Some(checkpointed(95, "it")));
        let unsettled = store.unsettled(uid(1)).unwrap();
        assert_eq!(unsettled, [(action(92), open.clone())]);
        assert!(decision(&store, 1, 93).unwrap().settled);
        eventually("an outcome of an earlier life is gone", || {
            decision(&store, 1, 94).is_none()
        });
    }
    commit(&store, vec![log(1, 5, vec![end(1, 91), settle(1, 92)])]).unwrap();
    commit(&store, vec![install_entries(1, 5)]).unwrap();
    store.close();
    let store = LmdbStore::open(dir.path()).unwrap();
    assert_eq!(state(&store, 1).unwrap(), "by 91");
    assert_eq!(store.read_part(uid(1)).unwrap(), None);
    assert!(decision(&store, 1, 92).unwrap().settled);
}

/// Flips a bit in every value that has this key and is of this kind.
fn damage(path: &Path, key: &[u8], kind: u8) {
    const HEADER_BYTES: usize = 12;
    let mut bytes = fs::read(path).unwrap();
    let places: Vec<_> = (0..bytes.len() - 64)
        .filter(|at| {
            let rest = &bytes[*at..];
            rest.starts_with(key) && rest[key.len()..][..2] == [1, kind]
        })
        .collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at + key.len() + HEADER_BYTES + 5] ^= 1;
    }
    fs::write(path, bytes).unwrap();
}

/// Group 1 has a damaged part, group 2 damaged decisions, group 3 is sound, group 4 has a damaged
/// checkpoint; each has an entry that ends and settles them.
fn make_damaged(dir: &Path) {
    const PART: u8 = 19;
    const DECISION: u8 = 20;
    const OUTCOME: u8 = 21;
    const CHECKPOINT: u8 = 23;
    let store = LmdbStore::open(dir).unwrap();
    for local in 1..=4 {
        commit(&store, vec![create(local, "begin"), join(local, true)]).unwrap();
        let items = vec![
            prepare(local, 91, "by 91"),
            decide(local, 92, vec![site(2)], vec![], HOUR_MS),
            decide(local, 93, vec![], vec![], HOUR_MS),
            checkpoint(local, 95, "it"),
        ];
        commit(&store, vec![log(local, 1, items)]).unwrap();
        let decided = decide(local, 95, vec![], vec![], HOUR_MS);
        let items = vec![end(local, 91), decided, settle(local, 92)];
        let batch = vec![install_entries(local, 1), log(local, 2, items)];
        commit(&store, batch).unwrap();
    }
    store.close();
    let path = dir.join("data.mdb");
    let pair = |local, number| [uid(local).to_bytes(), action(number).to_bytes()].concat();
    damage(&path, &uid(1).to_bytes(), PART);
    damage(&path, &pair(2, 92), DECISION);
    damage(&path, &pair(2, 93), OUTCOME);
    damage(&path, &uid(4).to_bytes(), CHECKPOINT);
}

#[test]
fn damage_is_an_error_and_the_copy_can_begin_again() {
    let dir = tempfile::tempdir().unwrap();
    make_damaged(dir.path());
    let refused = LmdbStore::open(dir.path()).unwrap_err();
    assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused}");

    let mut options = LmdbOptions::default();
    options.check_bytes_max = 0;
    let store = LmdbStore::open_with(dir.path(), &options).unwrap();
    let corrupt = |read: Result<(), StoreError>| {
        assert!(matches!(read, Err(StoreError::Corrupt { .. })), "{read:?}");
    };
    corrupt(store.read_part(uid(1)).map(drop));
    for number in [92, 93] {
        corrupt(store.read_group_decision(uid(2), action(number)).map(drop));
    }
    corrupt(store.unsettled(uid(2)).map(drop));
    corrupt(store.read_checkpoint(uid(4)).map(drop));
    for local in [1, 2, 4] {
        let from = Default::default();
        corrupt(store.export_actions(uid(local), from, 1000).map(drop));
        let broken = commit(&store, vec![create(9, "x"), install_entries(local, 2)]);
        assert!(
            matches!(broken, Err(StoreError::BrokenCopy { .. })),
            "{broken:?}"
        );
        assert_eq!(state(&store, local).unwrap(), "begin");
    }
    assert_eq!(store.read_state(uid(9)).unwrap(), None);
    commit(&store, vec![install_entries(3, 2)]).unwrap();
    assert_eq!(state(&store, 3).unwrap(), "by 91");

    // The way out: what is damaged goes, and a snapshot brings it.
    for local in [1, 2, 4] {
        let uid = uid(local);
        let keep_object = false;
        let leave = Item::LeaveGroup { uid, keep_object };
        commit(&store, vec![leave, join(local, false)]).unwrap();
        let snapshot = Item::GroupSnapshot {
            uid,
            view: view(1),
            at: at(1, 2),
            record: Some(record(1, "by 91")),
            rows: vec![],
            replies: vec![],
            actions: Some(entry::encode(&Batch::new(vec![
                decide(local, 92, vec![], vec![], HOUR_MS),
                decide(local, 93, vec![], vec![], HOUR_MS),
            ]))),
            page: 0,
            last: true,
        };
        commit(&store, vec![snapshot]).unwrap();
        assert_eq!(store.read_part(uid).unwrap(), None);
        assert_eq!(store.read_checkpoint(uid).unwrap(), None);
        for number in [92, 93] {
            let found = decision(&store, local, number).unwrap();
            assert_eq!(Some(found), decision(&store, 3, number));
        }
    }
    drop(store);
    LmdbStore::open(dir.path()).unwrap();
}

/// Every answer is right, or an error.
fn assert_never_wrong(store: &LmdbStore, what: &str) {
    for local in 1..=20 {
        if let Ok(part) = store.read_part(uid(local)) {
            let part = part.unwrap_or_else(|| panic!("{what}: the part of {local} is lost"));
            let body = entry::encode(&Batch::new(changes(local, &"x".repeat(300))));
            assert_eq!((part.action, part.body), (action(91), body), "{what}");
        }
        if let Ok(found) = store.read_checkpoint(uid(local)) {
            let expected = checkpointed(95, &"y".repeat(300));
            assert_eq!(found, Some(expected), "{what}: the checkpoint of {local}");
        }
        let open = GroupDecision {
            participants: vec![site(2)],
            groups: vec![uid(5); 9],
            settled: false,
        };
        for (number, settled) in [(92, false), (93, true)] {
            if let Ok(found) = store.read_group_decision(uid(local), action(number)) {
                let found = found.unwrap_or_else(|| panic!("{what}: {number} is lost"));
                assert_eq!(found.settled, settled, "{what}");
                assert!(settled || found == open, "{what}: {found:?}");
            }
        }
        if let Ok(unsettled) = store.unsettled(uid(local)) {
            assert_eq!(unsettled, [(action(92), open)], "{what}");
        }
    }
}

#[test]
fn random_damage_is_never_a_wrong_answer() {
    let dir = tempfile::tempdir().unwrap();
    let origin = dir.path().join("origin");
    let store = LmdbStore::open(&origin).unwrap();
    for local in 1..=20 {
        let entry = vec![
            prepare(local, 91, &"x".repeat(300)),
            decide(local, 92, vec![site(2)], vec![uid(5); 9], HOUR_MS),
            decide(local, 93, vec![], vec![], HOUR_MS),
            checkpoint(local, 95, &"y".repeat(300)),
        ];
        let items = vec![
            create(local, "begin"),
            join(local, true),
            log(local, 1, entry),
        ];
        commit(&store, items).unwrap();
        commit(&store, vec![install_entries(local, 1)]).unwrap();
    }
    store.close();
    let sound = fs::read(origin.join("data.mdb")).unwrap();
    let used = sound.iter().rposition(|byte| *byte != 0).unwrap() as u64;
    let mut random = Random::new(22);
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

/// Syncs, and bytes of the log, of one of the copies.
struct Cost {
    syncs: u64,
    log_bytes: u64,
}

/// What a round costs each copy, on average.
fn cost(store: &dyn ObjectStore, rounds: u64, round: impl Fn(u64)) -> Cost {
    let read = || {
        let usage = store.usage();
        (usage.syncs - usage.syncs_sweeping, usage.log_bytes)
    };
    round(0);
    let before = read();
    (1..=rounds).for_each(&round);
    let after = read();
    Cost {
        syncs: (after.0 - before.0) / rounds,
        log_bytes: (after.1 - before.1) / rounds,
    }
}

fn open(dir: &Path) -> LmdbStore {
    let mut options = LmdbOptions::default();
    options.log_quiet_ms = HOUR_MS;
    LmdbStore::open_with(dir, &options).unwrap()
}

/// The steps of an action at one copy of each group, one after the other: entries are staged, and
/// installed when all have them. Every copy does the same at the same time.
#[test]
fn an_action_costs_each_copy_a_sync_for_each_entry() {
    const ROUNDS: u64 = 20;
    let dir = tempfile::tempdir().unwrap();
    let text = "x".repeat(100);
    let step = |store: &dyn ObjectStore, local: u64, index: u64, items| {
        commit(store, vec![log(local, index, items)]).unwrap();
        commit(store, vec![install_entries(local, index)]).unwrap();
    };

    // Without copies: the decision and the state are one batch.
    let store = open(&dir.path().join("plain"));
    commit(&store, vec![create(1, "begin"), create(2, "begin")]).unwrap();
    let plain = |locals: &'static [u64]| {
        cost(&store, ROUNDS, |round| {
            let items = locals.iter().flat_map(|local| changes(*local, &text));
            let decide = common::decide(1000 + round, true, HOUR_MS);
            commit(&store, items.chain([decide]).collect()).unwrap();
        })
    };
    let (plain_one, plain_two) = (plain(&[1]), plain(&[1, 2]));

    let join_two = |store: &dyn ObjectStore| {
        for local in [1, 2] {
            commit(store, vec![create(local, "begin"), join(local, true)]).unwrap();
        }
    };
    // One object: its entry has the state and the decision, of which nobody is to be told.
    let store = open(&dir.path().join("one"));
    join_two(&store);
    let one = cost(&store, ROUNDS, |round| {
        let mut items = changes(1, &text);
        items.push(decide(1, round, vec![], vec![], HOUR_MS));
        step(&store, 1, round + 1, items);
    });
    // Two: a part of the second, the decision in the log of the first, the end of the part. The
    // decision is settled with the next entry of its log.
    let two_of = |store: &dyn ObjectStore| {
        join_two(store);
        cost(store, ROUNDS, |round| {
            step(store, 2, 2 * round + 1, vec![prepare(2, round, &text)]);
            let mut items = changes(1, &text);
            items.push(decide(1, round, vec![], vec![uid(2)], HOUR_MS));
            if round > 0 {
                items.push(settle(1, round - 1));
            }
            step(store, 1, round + 1, items);
            step(store, 2, 2 * round + 2, vec![end(2, round)]);
        })
    };
    let two = two_of(&open(&dir.path().join("two")));
    let in_memory = two_of(&MemoryStore::new());
    for (what, cost) in [
        ("one object without copies", &plain_one),
        ("two objects without copies", &plain_two),
        ("one object", &one),
        ("two objects", &two),
    ] {
        let Cost { syncs, log_bytes } = cost;
        println!("{what}: {syncs} syncs and {log_bytes} bytes of the log for each copy");
    }
    assert_eq!((plain_one.syncs, plain_two.syncs), (1, 1));
    assert_eq!((one.syncs, two.syncs, in_memory.syncs), (1, 3, 3));
    assert!(one.log_bytes <= 2 * plain_one.log_bytes + 300);
    assert!(two.log_bytes <= 3 * plain_two.log_bytes + 600);
}
