//! The log in front of LMDB: what a crash, damage and want of room do to it.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use common::{Random, commit, create, eventually, put_row, state, uid, write};
use partha_core::id::Epoch;
use partha_store::{Item, LmdbOptions, LmdbStore, ObjectStore, StoreError};

const FILES: [&str; 3] = ["data.mdb", "log-0", "log-1"];

const LARGE: u64 = 8 << 20;

/// With a log that is written to LMDB when it is full, or when the store is closed.
fn with_log(log_bytes: u64) -> LmdbOptions {
    let mut options = LmdbOptions::default();
    options.log_bytes = log_bytes;
    options.log_quiet_ms = 3_600_000;
    options
}

/// A copy of the folder as it is at this moment, as a crash of the machine would leave it.
fn copy_to(from: &Path, to: &Path) -> PathBuf {
    let _ = fs::remove_dir_all(to);
    fs::create_dir(to).unwrap();
    for name in FILES {
        if from.join(name).exists() {
            fs::copy(from.join(name), to.join(name)).unwrap();
        }
    }
    to.to_owned()
}

/// Objects 1 to `count` as one batch each, with a state that tells its number.
fn make(store: &LmdbStore, count: u64) {
    for local in 1..=count {
        commit(store, vec![create(local, &format!("object {local}"))]).unwrap();
    }
}

/// How many of them are there, after a check that they are the first ones.
fn made(store: &LmdbStore) -> u64 {
    let objects = store.scan_objects(None, 10_000).unwrap();
    let count = objects.len() as u64;
    assert!(objects.iter().map(|(uid, _)| uid.local).eq(1..=count));
    for local in 1..=count {
        assert_eq!(state(store, local).unwrap(), format!("object {local}"));
    }
    count
}

/// The end of the records in a file: behind the last byte that is not 0.
fn end(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |at| at + 1)
}

/// Where records begin.
fn records(bytes: &[u8]) -> Vec<usize> {
    let places = (0..end(bytes)).step_by(8);
    places
        .filter(|at| bytes[*at..].starts_with(b"PtL1"))
        .collect()
}

#[test]
fn what_is_in_the_log_alone_survives_and_is_in_lmdb_after_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let origin = dir.path().join("origin");
    let store = LmdbStore::open_with(&origin, &with_log(LARGE)).unwrap();
    let before = fs::read(origin.join("data.mdb")).unwrap();
    make(&store, 9);
    commit(&store, vec![Item::Delete { uid: uid(9) }]).unwrap();
    let (_, epoch) = store.activate(uid(1)).unwrap().unwrap();
    commit(
        &store,
        vec![write(1, epoch, "object 1"), put_row(1, 1, b"k", "v")],
    )
    .unwrap();
    assert_eq!(
        fs::read(origin.join("data.mdb")).unwrap()[..4096 * 2],
        before[..4096 * 2],
        "LMDB was not committed to"
    );
    let crashed = copy_to(&origin, &dir.path().join("crashed"));
    for _ in 0..3 {
        let store = LmdbStore::open(&crashed).unwrap();
        assert_eq!(made(&store), 8);
        assert_eq!(store.read_row(uid(1), 1, b"k").unwrap().unwrap(), "v");
        assert_eq!(state(&store, 9), None);
        store.abandon();
    }
    // Without the log, which is not needed any more once it was closed.
    drop(LmdbStore::open(&crashed).unwrap());
    fs::remove_file(crashed.join("log-0")).unwrap();
    fs::remove_file(crashed.join("log-1")).unwrap();
    assert_eq!(made(&LmdbStore::open(&crashed).unwrap()), 8);
}

#[test]
fn a_closed_store_can_be_opened_without_a_log_and_with_another() {
    let dir = tempfile::tempdir().unwrap();
    let mut count = 0;
    for log_bytes in [8 << 20, 0, 4096, 1 << 20, 0, 8 << 20] {
        let store = LmdbStore::open_with(dir.path(), &with_log(log_bytes)).unwrap();
        assert_eq!(made(&store), count);
        for _ in 0..20 {
            count += 1;
            commit(&store, vec![create(count, &format!("object {count}"))]).unwrap();
        }
        if count % 40 == 0 {
            // Also after a crash.
            store.abandon();
        }
    }
    assert_eq!(made(&LmdbStore::open(dir.path()).unwrap()), count);
}

/// A write that was cut short, at every byte and with every subset of its sectors missing: what
/// was acknowledged before is there, and what was not, is whole or not there.
#[test]
fn a_write_that_was_cut_short_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let origin = dir.path().join("origin");
    let store = LmdbStore::open_with(&origin, &with_log(LARGE)).unwrap();
    make(&store, 5);
    let before = fs::read(origin.join("log-1")).unwrap();
    let items = (6..=30).map(|local| create(local, &format!("object {local}")));
    commit(&store, items.collect()).unwrap();
    let after = fs::read(origin.join("log-1")).unwrap();
    let (from, to) = (end(&before).next_multiple_of(8), end(&after));
    assert!(
        to - from > 1500,
        "a record of several sectors: {}",
        to - from
    );
    let copy = dir.path().join("copy");
    let check = |bytes: &[u8], what: &str| {
        copy_to(&origin, &copy);
        fs::write(copy.join("log-1"), bytes).unwrap();
        let store = LmdbStore::open(&copy).unwrap();
        let made = made(&store);
        assert_eq!(made, if bytes == after { 30 } else { 5 }, "{what}");
        commit(
            &store,
            vec![create(made + 1, &format!("object {}", made + 1))],
        )
        .unwrap();
        store.abandon();
        assert_eq!(
            self::made(&LmdbStore::open(&copy).unwrap()),
            made + 1,
            "{what}"
        );
    };
    for cut in (from..to).step_by(101).chain([to - 1, to]) {
        let mut bytes = before.clone();
        bytes[from..cut].copy_from_slice(&after[from..cut]);
        check(&bytes, &format!("cut at {cut}"));
    }
    let sectors: Vec<_> = (from / 512..=(to - 1) / 512).collect();
    for subset in 0_u32..1 << sectors.len() {
        let mut bytes = before.clone();
        for (index, sector) in sectors.iter().enumerate() {
            if subset >> index & 1 == 1 {
                let span = sector * 512..(sector + 1) * 512;
                bytes[span.clone()].copy_from_slice(&after[span]);
            }
        }
        check(&bytes, &format!("sectors {subset:b} of {sectors:?}"));
    }
}

#[test]
fn damage_of_what_was_acknowledged_is_an_error_and_can_be_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let origin = dir.path().join("origin");
    let store = LmdbStore::open_with(&origin, &with_log(LARGE)).unwrap();
    make(&store, 12);
    let sound = fs::read(origin.join("log-1")).unwrap();
    let records = records(&sound);
    assert_eq!(records.len(), 12);
    let copy = dir.path().join("copy");
    let mut random = Random::new(4);
    for trial in 0..120_usize {
        // Of the last one it cannot be told.
        let hit = trial % 11;
        let at = records[hit] + random.below((records[hit + 1] - records[hit] - 8) as u64) as usize;
        let mut bytes = sound.clone();
        bytes[at] ^= 1 << random.below(8);
        copy_to(&origin, &copy);
        fs::write(copy.join("log-1"), &bytes).unwrap();
        let error = LmdbStore::open(&copy).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{text}");
        assert!(
            text.contains("log-1") && text.contains("generation 1"),
            "{text}"
        );
        let mut options = LmdbOptions::default();
        options.accept_older = true;
        let store = LmdbStore::open_with(&copy, &options).unwrap();
        assert_eq!(made(&store), hit as u64, "what comes before it");
    }
    copy_to(&origin, &copy);
    fs::remove_file(copy.join("log-1")).unwrap();
    let error = LmdbStore::open(&copy).unwrap_err();
    assert!(error.to_string().contains("no file"), "{error}");
}

/// What somebody does to files, and what a start says of it.
#[test]
fn files_that_are_not_those_that_were_left_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let origin = dir.path().join("origin");
    let store = LmdbStore::open_with(&origin, &with_log(LARGE)).unwrap();
    // More than a file has at least.
    make(&store, 60);
    let crashed = copy_to(&origin, &dir.path().join("crashed"));
    let copy = dir.path().join("copy");
    let cut = |name: &str, len: u64| {
        let file = fs::File::options().write(true).open(copy.join(name));
        file.unwrap().set_len(len).unwrap();
    };
    let swap = || {
        fs::rename(copy.join("log-0"), copy.join("aside")).unwrap();
        fs::rename(copy.join("log-1"), copy.join("log-0")).unwrap();
        fs::rename(copy.join("aside"), copy.join("log-1")).unwrap();
    };
    let cases: [(&str, &str, &dyn Fn()); 7] = [
        ("log-1", "0 bytes, it had at least", &|| cut("log-1", 0)),
        ("log-0", "0 bytes, it had at least", &|| cut("log-0", 0)),
        ("log-1", "1000 bytes, it had at least", &|| {
            cut("log-1", 1000)
        }),
        ("log-1", "5000 bytes, it had at least", &|| {
            cut("log-1", 5000)
        }),
        ("log-0", "no record, but one at", &swap),
        ("data.mdb", "beside the log of a store", &|| {
            fs::remove_file(copy.join("data.mdb")).unwrap();
        }),
        ("data.mdb", "beside the log of a store", &|| {
            cut("data.mdb", 0)
        }),
    ];
    for (file, text, harm) in cases {
        copy_to(&crashed, &copy);
        harm();
        let error = LmdbStore::open(&copy).unwrap_err();
        let said = error.to_string();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{said}");
        assert!(said.contains(text) && said.contains(file), "{said}");
        assert!(said.contains("restore one from a backup"), "{said}");
    }
    copy_to(&crashed, &copy);
    assert_eq!(made(&LmdbStore::open(&copy).unwrap()), 60);
}

/// The last record of a file that is full, and the one that follows in the other file.
#[test]
fn damage_at_the_end_of_a_full_file_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let origin = dir.path().join("origin");
    let copy = dir.path().join("copy");
    let store = LmdbStore::open_with(&origin, &with_log(1500)).unwrap();
    let mut count = 0;
    // A crash while what the first file had was being written to LMDB: LMDB's file is of before.
    let lmdb = fs::read(origin.join("data.mdb")).unwrap();
    while records(&fs::read(origin.join("log-0")).unwrap()).is_empty() {
        count += 1;
        commit(&store, vec![create(count, &format!("object {count}"))]).unwrap();
    }
    copy_to(&origin, &copy);
    fs::write(copy.join("data.mdb"), &lmdb).unwrap();
    assert_eq!(made(&LmdbStore::open(&copy).unwrap()), count);

    copy_to(&origin, &copy);
    fs::write(copy.join("data.mdb"), &lmdb).unwrap();
    let mut bytes = fs::read(copy.join("log-1")).unwrap();
    let last = *records(&bytes).last().unwrap();
    bytes[last + 60] ^= 1;
    fs::write(copy.join("log-1"), &bytes).unwrap();
    let error = LmdbStore::open(&copy).unwrap_err();
    assert!(error.to_string().contains("records of"), "{error}");
}

/// Files are used again and again, and always hold leftovers of earlier generations.
#[test]
fn leftovers_of_earlier_generations_are_never_read() {
    let dir = tempfile::tempdir().unwrap();
    let origin = dir.path().join("origin");
    let mut options = with_log(3000);
    options.sweep_interval_ms = 1;
    let store = LmdbStore::open_with(&origin, &options).unwrap();
    commit(&store, vec![create(1, "0")]).unwrap();
    let mut random = Random::new(8);
    let mut last = 0;
    for count in 1..=400_u64 {
        let text = format!("{count} {}", "x".repeat(random.below(300) as usize));
        commit(&store, vec![write(1, Epoch(u64::MAX), &text)]).unwrap();
        if random.below(12) == 0 {
            let copy = copy_to(&origin, &dir.path().join("copy"));
            // The thread that writes to LMDB may have been at work while LMDB's file was copied.
            let Ok(copied) = LmdbStore::open_with(&copy, &options) else {
                continue;
            };
            assert_eq!(state(&copied, 1).unwrap(), text);
            last = count;
        }
    }
    assert!(last > 200, "most copies can be opened");
}

/// Quiet stores have everything in LMDB, and nothing in memory.
#[test]
fn what_is_in_the_log_gets_to_lmdb_when_nothing_happens() {
    let dir = tempfile::tempdir().unwrap();
    let store = LmdbStore::open(dir.path()).unwrap();
    make(&store, 50);
    assert!(store.usage().log_bytes > 0);
    eventually("it is in LMDB", || store.usage().log_bytes == 0);
    assert_eq!(store.usage().checkpoints, 1);
    let copy = copy_to(dir.path(), &dir.path().join("copy"));
    for name in ["log-0", "log-1"] {
        let len = fs::metadata(copy.join(name)).unwrap().len();
        fs::write(copy.join(name), vec![0; usize::try_from(len).unwrap()]).unwrap();
    }
    assert_eq!(made(&LmdbStore::open(&copy).unwrap()), 50);
}

/// A copy of an older `data.mdb` counts the same generations again, over files that still have
/// what a later life wrote in them, here at the very same places.
#[test]
fn what_a_later_life_left_is_not_read_by_an_older_copy() {
    let dir = tempfile::tempdir().unwrap();
    let origin = dir.path().join("origin");
    drop(LmdbStore::open_with(&origin, &with_log(LARGE)).unwrap());
    let older = fs::read(origin.join("data.mdb")).unwrap();
    let store = LmdbStore::open_with(&origin, &with_log(LARGE)).unwrap();
    make(&store, 9);
    let restored = copy_to(&origin, &dir.path().join("restored"));
    store.abandon();
    fs::write(restored.join("data.mdb"), older).unwrap();
    let store = LmdbStore::open_with(&restored, &with_log(LARGE)).unwrap();
    assert_eq!(made(&store), 0);
    make(&store, 3);
    let crashed = copy_to(&restored, &dir.path().join("crashed"));
    assert_eq!(records(&fs::read(crashed.join("log-1")).unwrap()).len(), 9);
    assert_eq!(made(&LmdbStore::open(&crashed).unwrap()), 3);
}

#[test]
fn a_log_that_is_taken_away_is_noticed_before_anything_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let store = LmdbStore::open_with(dir.path(), &with_log(LARGE)).unwrap();
    make(&store, 3);
    fs::remove_file(dir.path().join("log-1")).unwrap();
    let objects = (4..=6).map(|local| create(local, &format!("object {local}")));
    commit(&store, objects.collect()).unwrap();
    assert_eq!(made(&store), 6);
    store.abandon();
    assert_eq!(made(&LmdbStore::open(dir.path()).unwrap()), 6);
}

#[test]
fn nobody_else_may_read_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let _store = LmdbStore::open(dir.path()).unwrap();
    for name in FILES {
        let mode = fs::metadata(dir.path().join(name)).unwrap().permissions();
        assert_eq!(mode.mode() & 0o077, 0, "{name}");
    }
}
