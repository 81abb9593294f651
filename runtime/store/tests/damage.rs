//! Damaged files: every answer is right or an error.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use common::{
    Random, action, call, commit, create, decide, install, prepare, put_row, record, row,
    save_reply, settle, shadow, shadow_row, site, uid, undo, write,
};
use partha_core::id::Epoch;
use partha_store::moving::{Arrival, departure};
use partha_store::{Item, LmdbOptions, LmdbStore, ObjectStore, Place, Record, StoreError};

const PAGE: usize = 4096;
const TRIALS: u64 = 300;

/// What the store should hold: text by a name.
type Model = BTreeMap<String, String>;

/// A store with something of everything, free pages and large values.
fn make(dir: &Path) -> Model {
    let mut model = Model::new();
    let mut random = Random::new(5);
    let store = LmdbStore::open(dir).unwrap();
    for local in 1..=120 {
        let size = if local % 20 == 0 {
            10_000
        } else {
            20 + random.below(400)
        };
        let state: String = (0..size)
            .map(|_| char::from(b'a' + random.below(26) as u8))
            .collect();
        commit(&store, vec![create(local, &state)]).unwrap();
        model.insert(format!("state {local}"), state);
    }
    for local in (1..=120).step_by(3) {
        let state = format!("rewritten {local}");
        let rows = (0..8_u8).map(|i| put_row(local, 1, &[i, local as u8], &format!("row {i}")));
        let items = [write(local, Epoch(2), &state)]
            .into_iter()
            .chain(rows)
            .collect();
        commit(&store, items).unwrap();
        model.insert(format!("state {local}"), state);
        model.extend((0..8).map(|i| (format!("row {local} {i}"), format!("row {i}"))));
    }
    for sequence in 1..=60 {
        let body = format!("reply {sequence}");
        commit(&store, vec![save_reply(sequence, &body, u64::MAX / 2)]).unwrap();
        model.insert(format!("reply {sequence}"), body);
    }
    for local in 1..=5 {
        let text = format!("shadow {local}");
        let rows = (0..3_u8).map(|i| shadow_row(900, local, &[i], Some("prepared")));
        let items = [shadow(900, local, Epoch(3), &text)]
            .into_iter()
            .chain(rows);
        commit(&store, items.collect()).unwrap();
        model.insert(format!("shadow {local}"), text);
    }
    for number in 1..=40 {
        commit(&store, vec![prepare(number)]).unwrap();
        commit(&store, vec![decide(1000 + number, false, u64::MAX)]).unwrap();
        commit(&store, vec![decide(2000 + number, true, u64::MAX / 2)]).unwrap();
        model.insert(format!("prepared {number}"), "there".to_owned());
        model.insert(
            format!("decision {}", 1000 + number),
            "1 to be told".to_owned(),
        );
        model.insert(
            format!("decision {}", 2000 + number),
            "0 to be told".to_owned(),
        );
    }
    move_some(&store, &mut model);
    model
}

/// Objects that have left, have come, and are on their way.
fn move_some(store: &LmdbStore, model: &mut Model) {
    let rows = || (0..8_u8).map(|i| row(&[i], "on its way"));
    for i in 1..=8 {
        let (left, came, coming) = (200 + i, 300 + i, 400 + i);
        commit(store, vec![create(left, "left")]).unwrap();
        let leaves = departure(action(3000 + i), uid(left), site(9), 2, u64::MAX / 2);
        store.commit(leaves).unwrap();
        commit(store, vec![settle(3000 + i)]).unwrap();
        for (number, local) in [(4000 + i, came), (5000 + i, coming)] {
            store
                .commit(arrival(number, local).begin(record(9, "moved")))
                .unwrap();
            store
                .commit(arrival(number, local).page(rows(), []))
                .unwrap();
        }
        commit(store, vec![install(4000 + i)]).unwrap();
        model.insert(format!("place {left}"), "gone 2".to_owned());
        model.insert(format!("place {came}"), "here 3".to_owned());
        model.insert(format!("untold {came}"), "there".to_owned());
        model.insert(format!("moved {came}"), "moved with 8 rows".to_owned());
        model.insert(format!("coming {}", 5000 + i), format!("{coming}"));
    }
}

/// The same as read; see [`read`].
fn read_moved(
    store: &dyn ObjectStore,
    note: &mut dyn FnMut(String, Result<Option<String>, StoreError>),
) {
    let untold = store.scan_untold(None, 100);
    for i in 1..=8 {
        for local in [200 + i, 300 + i, 400 + i] {
            let place = store.read_place(uid(local)).map(|place| {
                place.map(|place| match place {
                    Place::Here { moves, .. } => format!("here {moves}"),
                    Place::Gone { moves, .. } => format!("gone {moves}"),
                })
            });
            note(format!("place {local}"), place);
            let is_untold = untold.as_ref().map_err(Clone::clone).map(|untold| {
                let there = untold.iter().any(|(found, _)| *found == uid(local));
                there.then(|| "there".to_owned())
            });
            note(format!("untold {local}"), is_untold);
            let moved = store.read_state(uid(local)).and_then(|record| {
                let rows = store.export_rows(uid(local), None, 1 << 20)?.rows;
                let is_sound = rows.iter().all(|row| row.value == "on its way");
                assert!(is_sound, "{rows:?}");
                let text = |record: Record| String::from_utf8_lossy(&record.state).into_owned();
                Ok(record.map(|record| format!("{} with {} rows", text(record), rows.len())))
            });
            note(format!("moved {local}"), moved);
        }
        let coming = store.shadowed_objects(action(5000 + i)).map(|objects| {
            let first = objects.first();
            first.map(|uid| uid.local.to_string())
        });
        note(format!("coming {}", 5000 + i), coming);
    }
}

/// Everything that can be read; errors leave the entry out and are counted.
fn read(store: &dyn ObjectStore) -> (Model, u64) {
    let (mut model, mut errors) = (Model::new(), 0);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut note = |name: String, value: Result<Option<String>, StoreError>| match value {
        Ok(Some(value)) => {
            model.insert(name, value);
        }
        Ok(None) => {}
        Err(_) => {
            errors += 1;
            model.insert(name, "an error".to_owned());
        }
    };
    for local in 1..=120 {
        let state = store
            .read_state(uid(local))
            .map(|r| r.map(|r| text(&r.state)));
        note(format!("state {local}"), state);
        let shadow = store
            .read_shadow(action(900), uid(local))
            .map(|r| r.map(|r| text(&r.state)));
        note(format!("shadow {local}"), shadow);
        let rows = store.scan_rows(uid(local), 1, None, 100);
        for i in 0..8_u8 {
            let found = rows.as_ref().map_err(Clone::clone).map(|rows| {
                let row = rows.iter().find(|(key, _)| key[..] == [i, local as u8]);
                row.map(|(_, value)| text(value))
            });
            note(format!("row {local} {i}"), found);
        }
    }
    for sequence in 1..=60 {
        let reply = store
            .read_reply(call(sequence))
            .map(|r| r.map(|r| text(&r.body)));
        note(format!("reply {sequence}"), reply);
    }
    let prepared = store.scan_prepared(None, 100);
    for number in 1..=40 {
        let found = prepared.as_ref().map_err(Clone::clone).map(|prepared| {
            let there = prepared
                .iter()
                .any(|p| p.action == action(number) && p.coordinator == site(1).into());
            there.then(|| "there".to_owned())
        });
        note(format!("prepared {number}"), found);
        for number in [1000 + number, 2000 + number] {
            let found = store.read_decision(action(number)).map(|decision| {
                decision.map(|decision| format!("{} to be told", decision.participants.len()))
            });
            note(format!("decision {number}"), found);
        }
    }
    read_moved(store, &mut note);
    (model, errors)
}

/// Every answer is right, or an error for something that is there.
fn assert_never_wrong(store: &dyn ObjectStore, model: &Model, what: &str) -> u64 {
    let (found, errors) = read(store);
    for (name, value) in model {
        let answer = found.get(name).map(String::as_str);
        let ok = answer == Some(value) || answer == Some("an error");
        assert!(ok, "{what}: {name} is {answer:?}");
    }
    let invented = found
        .iter()
        .find(|(name, value)| !model.contains_key(*name) && value.as_str() != "an error");
    assert_eq!(invented, None, "{what}");
    if let Ok(open) = store.scan_decisions(None, 1000) {
        assert!(open.iter().map(|(a, _)| a.local).eq(1001..=1040), "{what}");
    }
    if let Ok(objects) = store.scan_objects(None, 1000) {
        assert!(
            objects
                .iter()
                .map(|(uid, _)| uid.local)
                .eq((1..=120).chain(301..=308)),
            "{what}: {objects:?}"
        );
    }
    errors
}

#[test]
fn random_damage_is_never_a_wrong_answer() {
    let dir = tempfile::tempdir().unwrap();
    let origin = dir.path().join("origin");
    let model = make(&origin);
    let sound = fs::read(origin.join("data.mdb")).unwrap();
    let used = sound
        .chunks(PAGE)
        .rposition(|page| page.iter().any(|b| *b != 0))
        .unwrap()
        + 1;
    let mut random = Random::new(77);
    let (mut refused, mut unharmed) = (0, 0);
    for trial in 0..TRIALS {
        let mut bytes = sound.clone();
        let what = format!("trial {trial}, {}", damage(&mut bytes, used, &mut random));
        let copy = dir.path().join("copy");
        let _ = fs::remove_dir_all(&copy);
        fs::create_dir(&copy).unwrap();
        fs::write(copy.join("data.mdb"), &bytes).unwrap();
        match LmdbStore::open(&copy) {
            Err(StoreError::Corrupt { .. }) => refused += 1,
            Err(error) => panic!("{what}: {error}"),
            Ok(store) => {
                assert_eq!(assert_never_wrong(&store, &model, &what), 0, "{what}");
                // It can also be written to, and is sound afterwards.
                for i in 0..4 {
                    let more = format!("more {i}").repeat(500);
                    commit(&store, vec![create(500, &more)]).unwrap();
                    commit(&store, vec![Item::Delete { uid: uid(500) }]).unwrap();
                }
                drop(store);
                let store = LmdbStore::open(&copy).unwrap();
                assert_never_wrong(&store, &model, &what);
                unharmed += 1;
            }
        }
    }
    println!("{TRIALS} damaged files: {refused} refused, {unharmed} harmed nothing in use");
    assert!(
        refused > TRIALS / 3,
        "the damage must hit something: {refused}"
    );
}

/// The file is grown ahead, so its end is empty.
fn used_pages(bytes: &[u8]) -> usize {
    bytes
        .chunks(PAGE)
        .rposition(|page| page.iter().any(|byte| *byte != 0))
        .unwrap()
        + 1
}

/// Damages the first `used` pages somehow, and says how.
fn damage(bytes: &mut [u8], used: usize, random: &mut Random) -> String {
    // The start of a page is where its structure is; half of the hits go there.
    let page = random.below(used as u64) as usize;
    let reach = if random.below(2) == 0 { 160 } else { PAGE };
    let at = page * PAGE + random.below(reach as u64) as usize;
    match random.below(6) {
        0 | 1 => {
            bytes[at] ^= 1 << random.below(8);
            format!("a bit flipped in byte {at}")
        }
        2 => {
            bytes[at] = random.next() as u8;
            format!("byte {at} set")
        }
        3 => {
            for _ in 0..10 {
                let at = random.below((used * PAGE) as u64) as usize;
                bytes[at] = random.next() as u8;
            }
            "ten bytes set".to_owned()
        }
        4 => {
            bytes[page * PAGE..(page + 1) * PAGE].fill(0);
            format!("page {page} zeroed")
        }
        _ => {
            let from = random.below(used as u64) as usize;
            bytes.copy_within(from * PAGE..(from + 1) * PAGE, page * PAGE);
            format!("page {from} written to {page}")
        }
    }
}

#[test]
fn every_bit_of_the_meta_pages_counts() {
    let dir = tempfile::tempdir().unwrap();
    let origin = dir.path().join("origin");
    let model = make(&origin);
    let sound = fs::read(origin.join("data.mdb")).unwrap();
    let copy = dir.path().join("copy");
    for bit in (0..2 * 152 * 8).step_by(3) {
        let (page, bit_in_page) = (bit / (152 * 8), bit % (152 * 8));
        let mut bytes = sound.clone();
        bytes[page * PAGE + bit_in_page / 8] ^= 1 << (bit_in_page % 8);
        let _ = fs::remove_dir_all(&copy);
        fs::create_dir(&copy).unwrap();
        fs::write(copy.join("data.mdb"), &bytes).unwrap();
        let what = format!("bit {bit_in_page} of meta page {page}");
        match LmdbStore::open(&copy) {
            Err(StoreError::Corrupt { .. }) => {}
            Err(error) => panic!("{what}: {error}"),
            Ok(store) => {
                assert_never_wrong(&store, &model, &what);
            }
        }
    }
}

/// LMDB would make a table anew that it does not find, and it would be empty.
#[test]
fn a_table_whose_name_is_damaged_is_not_taken_for_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let origin = dir.path().join("origin");
    let store = LmdbStore::open(&origin).unwrap();
    commit(&store, vec![create(1, "one")]).unwrap();
    drop(store);
    let sound = fs::read(origin.join("data.mdb")).unwrap();
    let names = [
        "meta",
        "state",
        "shadow",
        "reply",
        "reply_expiry",
        "shadow_row",
        "prepared",
        "decision",
        "outcome",
        "outcome_expiry",
        "place",
        "shadow_place",
        "untold",
        "leftover",
        "group",
        "group_log",
    ];
    for (index, name) in names.into_iter().enumerate() {
        let mut bytes = sound.clone();
        let places: Vec<_> = (0..bytes.len() - name.len())
            .filter(|at| bytes[*at..].starts_with(name.as_bytes()))
            .collect();
        assert!(!places.is_empty(), "{name}");
        // Of the last letter, so that the order of names stays as it is for most.
        for at in places {
            bytes[at + name.len() - 1] ^= 1;
        }
        let copy = dir.path().join(format!("copy-{index}"));
        fs::create_dir(&copy).unwrap();
        fs::write(copy.join("data.mdb"), &bytes).unwrap();
        let opened = LmdbStore::open(&copy).unwrap_err();
        assert!(
            matches!(opened, StoreError::Corrupt { .. }),
            "{name}: {opened}"
        );
    }
}

#[test]
fn truncated_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let origin = dir.path().join("origin");
    let model = make(&origin);
    let sound = fs::read(origin.join("data.mdb")).unwrap();
    let used = used_pages(&sound);
    let mut random = Random::new(3);
    let copy = dir.path().join("copy");
    let mut refused = 0;
    for trial in 0..100 {
        let len = match trial {
            0 => 1,
            1 => PAGE,
            2 => 2 * PAGE,
            _ => 1 + random.below(used as u64 * PAGE as u64) as usize,
        };
        let _ = fs::remove_dir_all(&copy);
        fs::create_dir(&copy).unwrap();
        fs::write(copy.join("data.mdb"), &sound[..len]).unwrap();
        // Also when the file is too large for a whole check.
        let mut options = LmdbOptions::default();
        options.check_bytes_max = if trial % 2 == 0 { 0 } else { u64::MAX };
        match LmdbStore::open_with(&copy, &options) {
            Err(StoreError::Corrupt { .. }) => refused += 1,
            Err(error) => panic!("cut to {len}: {error}"),
            Ok(store) => {
                assert_never_wrong(&store, &model, &format!("cut to {len}"));
            }
        }
    }
    println!("100 truncated files: {refused} refused, in the others only unused room was cut");
    assert!(refused > 20);
}

const TEXTS: [&str; 6] = [
    "the state of one",
    "the state of two",
    "a row of two",
    "a reply",
    "a shadow",
    "a prepared row",
];

/// A store in which everything with a text but the first has a flipped bit in it.
fn make_with_damaged_values(dir: &Path) {
    {
        let store = LmdbStore::open(dir).unwrap();
        commit(&store, vec![create(1, TEXTS[0]), create(2, TEXTS[1])]).unwrap();
        let first = shadow(900, 2, Epoch(1), TEXTS[4]);
        let rows = vec![
            shadow(901, 2, Epoch(1), "sound"),
            shadow_row(901, 2, b"c", Some(TEXTS[5])),
        ];
        commit(
            &store,
            vec![put_row(2, 1, b"a", "sound"), put_row(2, 1, b"b", TEXTS[2])],
        )
        .unwrap();
        commit(&store, vec![save_reply(1, TEXTS[3], u64::MAX / 2), first]).unwrap();
        commit(&store, rows).unwrap();
        commit(&store, vec![prepare(902)]).unwrap();
        put_places(&store);
        // The last ones: they expire at once.
        commit(&store, vec![decide(903, false, 7), decide(904, true, 8)]).unwrap();
    }
    let path = dir.join("data.mdb");
    let mut bytes = fs::read(&path).unwrap();
    for text in &TEXTS[1..] {
        let text = text.as_bytes();
        let places: Vec<_> = (0..bytes.len() - text.len())
            .filter(|i| bytes[*i..].starts_with(text))
            .collect();
        assert!(!places.is_empty());
        places.into_iter().for_each(|at| bytes[at] ^= 0x10);
    }
    // What is said of actions 902 to 904 is a few bytes behind the header of the value, after
    // the key: kinds 8 to 10. The entry of an expiry time has nothing behind its header.
    for number in 902..=904 {
        let key = action(number).to_bytes();
        let places: Vec<_> = (0..bytes.len() - 40)
            .filter(|i| {
                let (format, kind) = (bytes[*i + 16], bytes[*i + 17]);
                bytes[*i..].starts_with(&key) && format == 1 && (8..=10).contains(&kind)
            })
            .collect();
        assert!(!places.is_empty());
        places
            .into_iter()
            .for_each(|at| bytes[at + 16 + 12 + 7] ^= 1);
    }
    // So is what is said of places, by the kind of the value: of a place, a prepared place and the
    // mark of one that is new, which has a checksum alone.
    for (local, kind, at) in [(5, 12, 20), (6, 12, 20), (7, 13, 20), (6, 14, 8)] {
        let key = uid(local).to_bytes();
        let places: Vec<_> = (0..bytes.len() - 50)
            .filter(|i| bytes[*i..].starts_with(&key) && bytes[*i + 16..][..2] == [1, kind])
            .collect();
        assert!(!places.is_empty(), "object {local}, kind {kind}");
        places
            .into_iter()
            .for_each(|found| bytes[found + 16 + at] ^= 1);
    }
    fs::write(&path, &bytes).unwrap();
}

/// Object 5 has left, 6 has come, 7 is on its way.
fn put_places(store: &LmdbStore) {
    let gone = Place::Gone {
        to: site(9).node,
        moves: 1,
    };
    let here = Place::Here {
        moves: 1,
        from: site(9).node,
        told: false,
    };
    commit(store, vec![put_place(5, gone), put_place(6, here)]).unwrap();
    let comes = arrival(905, 7);
    store.commit(comes.begin(record(1, "comes"))).unwrap();
    store.commit(comes.page([row(b"k", "v")], [])).unwrap();
}

fn put_place(local: u64, place: Place) -> Item {
    let uid = uid(local);
    Item::PutPlace { uid, place }
}

fn arrival(number: u64, local: u64) -> Arrival {
    Arrival {
        action: action(number),
        coordinator: site(9),
        uid: uid(local),
        moves: 3,
    }
}

/// Without the check of the whole file it is the checksum of the value that tells.
#[test]
fn a_damaged_value_is_an_error_wherever_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    make_with_damaged_values(dir.path());
    let refused = LmdbStore::open(dir.path()).unwrap_err();
    assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused}");

    let mut options = LmdbOptions::default();
    options.check_bytes_max = 0;
    let store = LmdbStore::open_with(dir.path(), &options).unwrap();
    let corrupt = |result: Result<(), StoreError>| {
        let error = result.unwrap_err();
        assert!(
            matches!(&error, StoreError::Corrupt { key, .. } if !key.is_empty()),
            "{error}"
        );
    };
    assert_eq!(store.read_state(uid(1)).unwrap().unwrap().state, TEXTS[0]);
    corrupt(store.read_state(uid(2)).map(drop));
    corrupt(store.activate(uid(2)).map(drop));
    assert_eq!(store.usage().active, 0);
    corrupt(store.scan_objects(None, 10).map(drop));
    assert_eq!(store.scan_objects(None, 1).unwrap().len(), 1);
    assert_eq!(store.read_row(uid(2), 1, b"a").unwrap().unwrap(), "sound");
    corrupt(store.read_row(uid(2), 1, b"b").map(drop));
    corrupt(store.scan_rows(uid(2), 1, None, 10).map(drop));
    corrupt(store.read_reply(call(1)).map(drop));
    corrupt(store.read_shadow(action(900), uid(2)).map(drop));
    corrupt(store.scan_shadows(None, 10).map(drop));
    corrupt(commit(&store, vec![write(2, Epoch(5), "on top of it")]));
    corrupt(commit(&store, vec![create(3, "x"), install(900)]));
    corrupt(commit(&store, vec![create(3, "x"), install(901)]));
    corrupt(store.scan_prepared(None, 10).map(drop));
    corrupt(store.read_decision(action(903)).map(drop));
    corrupt(store.read_decision(action(904)).map(drop));
    corrupt(store.scan_decisions(None, 10).map(drop));
    corrupt(commit(&store, vec![settle(903)]));
    corrupt(store.read_place(uid(5)).map(drop));
    corrupt(store.read_place(uid(6)).map(drop));
    corrupt(store.scan_places(None, 10).map(drop));
    corrupt(store.scan_untold(None, 10).map(drop));
    let told = Item::Told {
        uid: uid(6),
        moves: 1,
    };
    corrupt(commit(&store, vec![create(3, "x"), told]));
    corrupt(store.commit(arrival(906, 5).begin(record(1, "x"))));
    corrupt(commit(&store, vec![create(3, "x"), install(905)]));
    assert_eq!(
        store.read_state(uid(3)).unwrap(),
        None,
        "a refused batch is refused whole"
    );
    // The way out.
    commit(
        &store,
        vec![Item::Delete { uid: uid(2) }, create(2, "from a backup")],
    )
    .unwrap();
    commit(&store, vec![install(900), install(901), undo(902)]).unwrap();
    commit(&store, vec![decide(903, true, 1), decide(904, true, 1)]).unwrap();
    commit(&store, vec![save_reply(1, "again", 1)]).unwrap();
    commit(&store, vec![undo(905), create(5, "x"), create(6, "x")]).unwrap();
    let back = [5, 6].map(|local| Item::Delete { uid: uid(local) });
    commit(&store, back.into()).unwrap();
    store.commit(arrival(907, 7).begin(record(1, "x"))).unwrap();
    drop(store);
    LmdbStore::open(dir.path()).unwrap();
}
