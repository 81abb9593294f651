//! Actions over restarts of a node: what is prepared and decided in one life is found, installed
//! or undone in the next.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod common;

use std::fs;
use std::path::Path;

use common::{
    action, call, commit, create, create_shadow, decide, eventually, install, prepare, put_row,
    settle, shadow, shadow_row, site, state, uid, undo, write,
};
use partha_core::id::{Epoch, Incarnation, NodeId};
use partha_store::moving::departure;
use partha_store::{
    Decision, LmdbOptions, LmdbStore, MemoryStore, ObjectStore, ReplyCursor, StoreError,
};

const HOUR_MS: u64 = 3_600_000;

/// A node's store through its lives.
enum Node {
    Memory(MemoryStore),
    Lmdb(tempfile::TempDir, Option<LmdbStore>),
}

impl Node {
    fn both() -> [Self; 2] {
        let dir = tempfile::tempdir().unwrap();
        let store = Self::open(dir.path());
        [
            Self::Memory(MemoryStore::new()),
            Self::Lmdb(dir, Some(store)),
        ]
    }

    fn open(dir: &Path) -> LmdbStore {
        let mut options = LmdbOptions::default();
        options.sweep_interval_ms = 10;
        LmdbStore::open_with(dir, &options).unwrap()
    }

    fn store(&self) -> &dyn ObjectStore {
        match self {
            Self::Memory(store) => store,
            Self::Lmdb(_, store) => store.as_ref().expect("it is open between restarts"),
        }
    }

    fn restart(&mut self) -> &dyn ObjectStore {
        match self {
            Self::Memory(store) => *store = store.restart(),
            Self::Lmdb(dir, store) => {
                drop(store.take());
                *store = Some(Self::open(dir.path()));
            }
        }
        self.store()
    }
}

/// Objects 1 and 2 in the store, 1 prepared as "one'" with a row by action 90 together with a
/// new object 3, and 2 prepared by action 91.
fn prepared(store: &dyn ObjectStore) {
    commit(store, vec![create(1, "one"), create(2, "two")]).unwrap();
    let epoch = |local| store.activate(uid(local)).unwrap().unwrap().1;
    let (first, second) = (epoch(1), epoch(2));
    let items = vec![
        shadow(90, 1, first, "one'"),
        shadow_row(90, 1, b"k", Some("v")),
        create_shadow(90, 3, "three"),
        shadow_row(90, 3, b"k", Some("w")),
        prepare(90),
    ];
    commit(store, items).unwrap();
    commit(store, vec![shadow(91, 2, second, "no"), prepare(91)]).unwrap();
}

#[test]
fn prepared_actions_are_found_and_end_in_a_later_life() {
    for mut node in Node::both() {
        prepared(node.store());
        for _ in 0..3 {
            let store = node.restart();
            let found = store.scan_prepared(None, 9).unwrap();
            let deciders: Vec<_> = found.iter().map(|p| (p.action, p.coordinator)).collect();
            assert_eq!(
                deciders,
                [90, 91].map(|number| (action(number), site(1).into()))
            );
            assert_eq!(
                store.shadowed_objects(action(90)).unwrap(),
                [uid(1), uid(3)]
            );
            assert_eq!(store.shadowed_objects(action(91)).unwrap(), [uid(2)]);
            assert_eq!(state(store, 1).unwrap(), "one");
            assert_eq!(state(store, 3), None);
        }
        let store = node.store();
        commit(store, vec![install(90)]).unwrap();
        commit(store, vec![undo(91)]).unwrap();
        let store = node.restart();
        assert_eq!(state(store, 1).unwrap(), "one'");
        assert_eq!(state(store, 3).unwrap(), "three");
        assert_eq!(store.read_row(uid(1), 1, b"k").unwrap().unwrap(), "v");
        assert_eq!(store.read_row(uid(3), 1, b"k").unwrap().unwrap(), "w");
        assert_eq!(state(store, 2).unwrap(), "two");
        assert_eq!(store.scan_prepared(None, 9).unwrap(), []);
        assert_eq!(store.scan_shadows(None, 9).unwrap(), []);
    }
}

/// The lock of a prepared action keeps everybody out, so nobody may have written; yet numbers of
/// activations have gone on, and one may even have read.
#[test]
fn a_prepared_state_of_an_earlier_life_is_installed_whatever_the_epochs() {
    for mut node in Node::both() {
        prepared(node.store());
        for _ in 0..4 {
            let (read, _) = node.restart().activate(uid(1)).unwrap().unwrap();
            assert_eq!(read.state, "one");
        }
        let store = node.store();
        let (_, reader) = store.activate(uid(1)).unwrap().unwrap();
        assert!(reader > Epoch::new(Incarnation(5), 0));
        commit(store, vec![install(90)]).unwrap();
        assert_eq!(state(store, 1).unwrap(), "one'");
        let over = commit(store, vec![write(1, reader, "from what was before")]);
        assert!(
            matches!(over, Err(StoreError::EarlierWriteFailed { .. })),
            "{over:?}"
        );
        let (read, epoch) = store.activate(uid(1)).unwrap().unwrap();
        assert_eq!(read.state, "one'");
        commit(store, vec![write(1, epoch, "one''")]).unwrap();
        let late = commit(store, vec![shadow(92, 1, reader, "late")]);
        assert!(matches!(late, Err(StoreError::Fenced { .. })), "{late:?}");
    }
}

#[test]
fn decisions_are_found_in_a_later_life_until_they_are_settled() {
    for mut node in Node::both() {
        let store = node.store();
        commit(store, vec![create(1, "one"), decide(90, false, 1)]).unwrap();
        commit(store, vec![decide(91, true, HOUR_MS), decide(92, true, 1)]).unwrap();
        let told = Decision {
            participants: vec![site(2)],
            groups: vec![],
        };
        for _ in 0..3 {
            let store = node.restart();
            let open = store.scan_decisions(None, 9).unwrap();
            assert_eq!(open, [(action(90), told.clone())]);
            assert_eq!(
                store.read_decision(action(91)).unwrap(),
                Some(Decision::default())
            );
            eventually("an outcome of an earlier life is gone", || {
                store.read_decision(action(92)).unwrap().is_none()
            });
        }
        commit(node.store(), vec![settle(90)]).unwrap();
        let store = node.restart();
        assert_eq!(store.scan_decisions(None, 9).unwrap(), []);
        eventually("its time began when it was settled", || {
            store.read_decision(action(90)).unwrap().is_none()
        });
        assert!(store.read_decision(action(91)).unwrap().is_some());
    }
}

/// `format-1.mdb` is the data file that the version before made: five objects with three rows
/// and a saved reply each. Format 2 has five tables more.
#[test]
fn a_store_of_the_format_before_is_brought_up() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/format-1.mdb");
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data.mdb");
    fs::copy(&fixture, &data).unwrap();
    let node = NodeId(0xa9ca_48f4_4039_2689);
    for life in 2..=4 {
        let store = LmdbStore::open(dir.path()).unwrap();
        assert_eq!(store.identity().node, node);
        assert_eq!(store.identity().incarnation, Incarnation(life));
        for local in 1..=5 {
            assert_eq!(state(&store, local).unwrap(), format!("object {local}"));
            let row = store.read_row(uid(local), 1, &[2]).unwrap().unwrap();
            assert_eq!(row, format!("row 2 of {local}"));
            assert_eq!(store.count_rows(uid(local), 1).unwrap(), 3);
            let reply = store.read_reply(call(local)).unwrap().unwrap();
            assert_eq!(reply.body, format!("reply {local}"));
        }
        // It can do what is new.
        let (number, new) = (u64::from(life), 100 + u64::from(life));
        let items = vec![create_shadow(number, new, "new"), prepare(number)];
        commit(&store, items).unwrap();
        commit(
            &store,
            vec![decide(number, false, HOUR_MS), install(number)],
        )
        .unwrap();
        commit(&store, vec![put_row(new, 1, b"k", "v"), settle(number)]).unwrap();
        assert_eq!(
            store.scan_objects(None, 99).unwrap().len(),
            4 + number as usize
        );
    }
}

/// `format-3` is the folder that the version before left when it was killed: something of
/// everything, and a log with a batch that its data file does not have.
#[test]
fn a_store_of_format_3_is_brought_up_with_its_log() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/format-3");
    let dir = tempfile::tempdir().unwrap();
    for name in ["data.mdb", "log-0", "log-1"] {
        fs::copy(fixture.join(name), dir.path().join(name)).unwrap();
    }
    for life in 3..=5 {
        let store = LmdbStore::open(dir.path()).unwrap();
        assert_eq!(store.identity().node, NodeId(0x6991_50d3_16ca_92f5));
        assert_eq!(store.identity().incarnation, Incarnation(life));
        for local in 1..=5 {
            let expected = match local {
                2 => "object 2, in the log".to_owned(),
                _ => format!("object {local}"),
            };
            assert_eq!(state(&store, local).unwrap(), expected);
            assert_eq!(store.count_rows(uid(local), 1).unwrap(), 3);
        }
        assert_eq!(store.scan_prepared(None, 9).unwrap().len(), 1);
        assert_eq!(store.scan_decisions(None, 9).unwrap().len(), 1);
        assert!(store.read_decision(action(92)).unwrap().is_some());
        // Its replies do not tell their objects where they are looked for.
        let replies = store.replies_of(&[uid(1)].into(), 0, ReplyCursor::default(), 1000);
        let replies = replies.unwrap().replies;
        let calls: Vec<_> = replies.iter().map(|reply| reply.call).collect();
        assert_eq!(calls, (1..=6).map(call).collect::<Vec<_>>());
        // It can do what is new.
        let (number, new) = (u64::from(life), 100 + u64::from(life));
        commit(&store, vec![create(new, "new")]).unwrap();
        let leaves = departure(action(number), uid(new), site(7), 1, HOUR_MS);
        store.commit(leaves).unwrap();
        let left: Vec<_> = store.scan_places(None, 9).unwrap();
        assert!(left.iter().map(|(uid, _)| uid.local).eq(103..=new));
        commit(&store, vec![settle(number)]).unwrap();
    }
}
