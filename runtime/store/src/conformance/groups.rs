//! Copies of groups: logs, entries that become parts of an object, snapshots, the end of a copy.

use bytes::Bytes;
use partha_core::group::{Stamp, View};
use partha_core::id::{CallId, Epoch, Incarnation, NodeId, Peer};

use super::batches::HOUR_MS;
use super::{Make, commit, create, eventually, put_row, record, state, uid, write};
use crate::{
    Batch, CLEAR_AT_ONCE, GroupRecord, Item, KeptReply, ObjectStore, Row, StoreError, entry,
};

pub(super) fn all(make: Make<'_>) {
    a_group_begins_with_its_first_member(make);
    entries_are_staged_and_installed(make);
    a_log_is_changed_all_or_nothing(make);
    only_entries_about_the_object_are_staged(make);
    installing_asks_for_no_epoch_and_fences(make);
    what_cannot_be_installed_is_a_broken_copy(make);
    a_snapshot_takes_the_place_of_state_and_log(make);
    a_snapshot_of_one_page_does(make);
    pages_of_other_snapshots_are_refused(make);
    many_rows_go_before_a_snapshot_comes(make);
    a_copy_leaves(make);
}

fn view(number: u64) -> View {
    View {
        number,
        members: vec![NodeId(1), NodeId(2)],
    }
}

fn at(view: u64, index: u64) -> Stamp {
    Stamp { view, index }
}

fn join(local: u64, has_state: bool) -> Item {
    Item::JoinGroup {
        uid: uid(local),
        view: view(1),
        has_state,
    }
}

fn call(sequence: u64) -> CallId {
    CallId {
        caller: Peer {
            node: NodeId(3),
            incarnation: Incarnation(4),
        },
        sequence,
    }
}

/// What a call has changed: the state, a row, a reply.
fn changes(local: u64, text: &str, number: u64) -> Batch {
    let key = number.to_be_bytes();
    Batch::new(vec![
        write(local, Epoch(u64::MAX), text),
        put_row(local, 1, &key, text),
        Item::SaveReply {
            call: call(number),
            uid: uid(local),
            body: Bytes::copy_from_slice(text.as_bytes()),
            keep_ms: HOUR_MS,
        },
    ])
}

/// An entry of object 1 with this stamp.
fn entry(stamp: Stamp) -> (Stamp, Bytes) {
    let text = format!("{stamp:?}");
    (stamp, entry::encode(&changes(1, &text, stamp.index)))
}

fn log(number: u64, truncate: Option<u64>, add: &[Stamp]) -> Item {
    Item::GroupLog {
        uid: uid(1),
        view: view(number),
        truncate,
        add: add.iter().copied().map(entry).collect(),
    }
}

fn install(index: u64) -> Item {
    let uid = uid(1);
    Item::GroupInstall { uid, index }
}

fn leave(keep_object: bool) -> Item {
    let uid = uid(1);
    Item::LeaveGroup { uid, keep_object }
}

/// A page of a snapshot of object 1, of which nothing else is known.
fn page(stamp: Stamp, rows: Vec<Row>, number: u32, last: Option<&str>) -> Item {
    Item::GroupSnapshot {
        uid: uid(1),
        view: view(3),
        at: stamp,
        record: last.map(|text| record(77, text)),
        rows,
        replies: Vec::new(),
        actions: None,
        page: number,
        last: last.is_some(),
    }
}

/// The second page of the snapshot of 9@2, without a record.
fn middle_page(rows: Vec<Row>, replies: Vec<KeptReply>, last: bool) -> Item {
    Item::GroupSnapshot {
        uid: uid(1),
        view: view(3),
        at: at(2, 9),
        record: None,
        rows,
        replies,
        actions: None,
        page: 1,
        last,
    }
}

fn row(number: u32) -> Row {
    Row {
        part: 1,
        key: Bytes::copy_from_slice(&number.to_be_bytes()),
        value: Bytes::from_static(b"new"),
    }
}

fn group(store: &dyn ObjectStore) -> GroupRecord {
    store.read_group(uid(1)).unwrap().unwrap()
}

/// A store in which object 1 is the first member of a group.
fn first_member(make: Make<'_>) -> Box<dyn ObjectStore> {
    let store = make();
    commit(&*store, vec![create(1, "begin"), join(1, true)]).unwrap();
    store
}

fn a_group_begins_with_its_first_member(make: Make<'_>) {
    let store = make();
    assert_eq!(store.read_group(uid(1)).unwrap(), None);
    assert_eq!(store.group_state(uid(1)).unwrap(), None);
    let nobody = commit(&*store, vec![join(1, true)]);
    assert!(matches!(nobody, Err(StoreError::NoSuchObject { .. })));
    for item in [
        log(1, None, &[]),
        install(1),
        page(at(1, 1), vec![], 0, None),
    ] {
        let none = commit(&*store, vec![create(9, "x"), item]);
        assert!(
            matches!(none, Err(StoreError::NoSuchGroup { .. })),
            "{none:?}"
        );
    }
    commit(&*store, vec![create(1, "one"), create(2, "two")]).unwrap();
    let there = commit(&*store, vec![join(1, false)]);
    assert!(matches!(there, Err(StoreError::Exists { .. })), "{there:?}");
    commit(&*store, vec![join(1, true), join(2, true), join(3, false)]).unwrap();
    let twice = commit(&*store, vec![join(1, true)]);
    assert!(
        matches!(twice, Err(StoreError::GroupExists { .. })),
        "{twice:?}"
    );
    let expected = GroupRecord {
        view: view(1),
        installed: at(0, 0),
        has_state: true,
        staged: vec![],
    };
    assert_eq!(group(&*store), expected);
    let has_state = false;
    let without = GroupRecord {
        has_state,
        ..expected
    };
    assert_eq!(store.read_group(uid(3)).unwrap(), Some(without));
    let begin = store.group_state(uid(1)).unwrap().unwrap();
    assert_eq!((begin.at, begin.record), (at(0, 0), Some(record(1, "one"))));
    assert_eq!(store.group_state(uid(3)).unwrap(), None);
    assert_eq!(
        store.scan_groups(None, 9).unwrap(),
        [uid(1), uid(2), uid(3)]
    );
    assert_eq!(store.scan_groups(Some(uid(1)), 1).unwrap(), [uid(2)]);
    assert_eq!(store.scan_groups(None, 0).unwrap(), []);
    assert_eq!(store.read_state(uid(9)).unwrap(), None);
}

fn entries_are_staged_and_installed(make: Make<'_>) {
    let store = first_member(make);
    commit(&*store, vec![log(1, None, &[at(1, 1), at(1, 2)])]).unwrap();
    commit(&*store, vec![log(2, None, &[at(2, 3)])]).unwrap();
    let staged = group(&*store);
    assert_eq!(staged.view, view(2));
    assert_eq!(staged.staged, [at(1, 1), at(1, 2), at(2, 3)]);
    assert_eq!(state(&*store, 1).unwrap(), "begin", "nothing is seen yet");
    assert_eq!(store.count_rows(uid(1), 1).unwrap(), 0);
    assert_eq!(store.read_reply(call(1)).unwrap(), None);
    for stamp in [at(1, 2), at(2, 3)] {
        let bytes = store.read_entry(uid(1), stamp.index).unwrap().unwrap();
        assert_eq!(bytes, entry(stamp).1);
    }
    for index in [0, 4, u64::MAX] {
        assert_eq!(store.read_entry(uid(1), index).unwrap(), None);
    }

    commit(&*store, vec![install(2)]).unwrap();
    let read = group(&*store);
    assert_eq!(
        (read.installed, &read.staged[..]),
        (at(1, 2), &[at(2, 3)][..])
    );
    assert_eq!(state(&*store, 1).unwrap(), "2@1");
    assert_eq!(store.count_rows(uid(1), 1).unwrap(), 2);
    let first = store.read_row(uid(1), 1, &1_u64.to_be_bytes()).unwrap();
    assert_eq!(first.unwrap(), "1@1");
    assert_eq!(store.read_reply(call(2)).unwrap().unwrap().body, "2@1");
    assert_eq!(store.read_entry(uid(1), 2).unwrap(), None);
    let snapshot = store.group_state(uid(1)).unwrap().unwrap();
    assert_eq!(
        (snapshot.at, snapshot.record.unwrap().state),
        (at(1, 2), "2@1".into())
    );
    // Once more, and less than there is, is no harm.
    commit(&*store, vec![install(2), install(0), install(1)]).unwrap();
    assert_eq!(group(&*store), read);
    commit(&*store, vec![install(3)]).unwrap();
    assert_eq!(state(&*store, 1).unwrap(), "3@2");
    assert_eq!(group(&*store).staged, []);

    // Of what several entries change the last counts; what an entry removes goes.
    let key = Bytes::copy_from_slice(&1_u64.to_be_bytes());
    let part = 1;
    let uid = uid(1);
    let removal = Batch::from(Item::RemoveRow { uid, part, key });
    let add = vec![entry(at(2, 4)), (at(2, 5), entry::encode(&removal))];
    let truncate = None;
    let view = view(2);
    let both = Item::GroupLog {
        uid,
        view,
        truncate,
        add,
    };
    commit(&*store, vec![both, install(5)]).unwrap();
    assert_eq!(store.count_rows(uid, 1).unwrap(), 3);
    assert_eq!(state(&*store, 1).unwrap(), "4@2");
}

fn a_log_is_changed_all_or_nothing(make: Make<'_>) {
    let store = first_member(make);
    commit(&*store, vec![log(2, None, &[at(1, 1), at(2, 2), at(2, 3)])]).unwrap();
    commit(&*store, vec![install(1)]).unwrap();
    let before = group(&*store);
    let wrong = [
        log(2, None, &[at(2, 5)]),
        log(2, None, &[at(2, 3)]),
        log(2, None, &[at(3, 3)]),
        log(2, None, &[at(1, 4)]),
        log(2, None, &[at(2, 4), at(2, 6)]),
        log(2, None, &[at(2, 4), at(1, 5)]),
        log(2, None, &[at(2, 4), at(2, 4)]),
        log(2, None, &[at(2, 0)]),
        log(2, None, &[at(2, u64::MAX)]),
        log(2, Some(0), &[]),
        log(2, Some(1), &[at(2, 3)]),
        log(2, Some(2), &[at(2, 4)]),
        log(3, Some(2), &[at(1, 3)]),
        log(3, Some(2), &[at(3, 1)]),
    ];
    for item in wrong {
        let what = format!("{item:?}");
        let refused = commit(&*store, vec![create(9, "x"), item]);
        assert!(
            matches!(refused, Err(StoreError::OutOfStep { .. })),
            "{what}: {refused:?}"
        );
    }
    let old = commit(&*store, vec![log(1, None, &[at(2, 4)])]);
    assert!(
        matches!(
            old,
            Err(StoreError::OlderView {
                offered: 1,
                stored: 2,
                ..
            })
        ),
        "{old:?}"
    );
    assert_eq!(group(&*store), before);
    assert_eq!(store.read_state(uid(9)).unwrap(), None);

    commit(&*store, vec![log(4, Some(2), &[at(4, 3), at(4, 4)])]).unwrap();
    assert_eq!(group(&*store).staged, [at(2, 2), at(4, 3), at(4, 4)]);
    assert_eq!(group(&*store).view, view(4));
    commit(&*store, vec![log(4, Some(9), &[at(4, 5)])]).unwrap();
    commit(&*store, vec![log(5, Some(1), &[])]).unwrap();
    assert_eq!(group(&*store).staged, []);
    commit(&*store, vec![log(5, Some(1), &[at(5, 2)])]).unwrap();
    assert_eq!(group(&*store).staged, [at(5, 2)]);
}

fn only_entries_about_the_object_are_staged(make: Make<'_>) {
    let store = first_member(make);
    commit(&*store, vec![create(2, "two")]).unwrap();
    let mut cut = entry(at(1, 1)).1.to_vec();
    cut.pop();
    let other = entry::encode(&changes(2, "of another one", 1));
    for bytes in [Bytes::new(), cut.into(), other] {
        let add = vec![entry(at(1, 1)), (at(1, 2), bytes)];
        let hostile = Item::GroupLog {
            uid: uid(1),
            view: view(1),
            truncate: None,
            add,
        };
        let refused = commit(&*store, vec![hostile]);
        assert!(
            matches!(refused, Err(StoreError::BadEntry { .. })),
            "{refused:?}"
        );
    }
    assert_eq!(group(&*store).staged, []);
}

fn installing_asks_for_no_epoch_and_fences(make: Make<'_>) {
    let store = first_member(make);
    let (_, old) = store.activate(uid(1)).unwrap().unwrap();
    commit(&*store, vec![log(1, None, &[at(1, 1)]), install(1)]).unwrap();
    let fenced = commit(&*store, vec![write(1, old, "of before")]);
    assert!(
        matches!(fenced, Err(StoreError::Fenced { .. })),
        "{fenced:?}"
    );
    let (read, young) = store.activate(uid(1)).unwrap().unwrap();
    assert_eq!(read.state, "1@1");
    assert!(young > read.epoch && read.epoch > old);
    // As one without copies it goes on under it.
    commit(&*store, vec![leave(true), write(1, young, "alone")]).unwrap();
    assert_eq!(state(&*store, 1).unwrap(), "alone");
    // Installing again and again uses up no epochs.
    commit(&*store, vec![join(1, true)]).unwrap();
    for index in 1..=10 {
        commit(&*store, vec![log(1, None, &[at(1, index)]), install(index)]).unwrap();
    }
    let (_, later) = store.activate(uid(1)).unwrap().unwrap();
    assert!(later.0 - young.0 <= 2, "{later} is far from {young}");
}

fn what_cannot_be_installed_is_a_broken_copy(make: Make<'_>) {
    let store = first_member(make);
    commit(&*store, vec![log(1, None, &[at(1, 1), at(1, 2)])]).unwrap();
    commit(&*store, vec![join(2, false)]).unwrap();
    let beyond = commit(&*store, vec![create(9, "x"), install(3)]);
    assert!(
        matches!(beyond, Err(StoreError::BrokenCopy { index: 3, .. })),
        "{beyond:?}"
    );
    let uid_2 = uid(2);
    let stateless = Item::GroupInstall {
        uid: uid_2,
        index: 1,
    };
    let stateless = commit(&*store, vec![create(9, "x"), stateless]);
    assert!(
        matches!(stateless, Err(StoreError::BrokenCopy { uid, .. }) if uid == uid_2),
        "{stateless:?}"
    );
    // Rows of nothing; an entry with a state makes the object.
    commit(&*store, vec![Item::Delete { uid: uid(1) }]).unwrap();
    let key = Bytes::from_static(b"k");
    let rows = Batch::from(Item::RemoveRow {
        uid: uid(1),
        part: 1,
        key,
    });
    let rows = Item::GroupLog {
        uid: uid(1),
        view: view(1),
        truncate: Some(0),
        add: vec![(at(1, 1), entry::encode(&rows)), entry(at(1, 2))],
    };
    commit(&*store, vec![rows]).unwrap();
    let before = group(&*store);
    let nothing = commit(&*store, vec![create(9, "x"), install(1)]);
    assert!(
        matches!(nothing, Err(StoreError::BrokenCopy { index: 1, .. })),
        "{nothing:?}"
    );
    assert_eq!(group(&*store), before);
    assert_eq!(store.read_state(uid(9)).unwrap(), None);
    assert_eq!(store.group_state(uid(1)).unwrap().unwrap().record, None);
    commit(&*store, vec![install(2)]).unwrap();
    assert_eq!(state(&*store, 1).unwrap(), "2@1");
}

fn a_snapshot_takes_the_place_of_state_and_log(make: Make<'_>) {
    let store = first_member(make);
    commit(
        &*store,
        vec![put_row(1, 1, b"old", "old"), put_row(1, 2, b"old", "old")],
    )
    .unwrap();
    commit(&*store, vec![log(1, None, &[at(1, 1), at(1, 2)])]).unwrap();
    commit(&*store, vec![page(at(2, 9), vec![row(1), row(2)], 0, None)]).unwrap();
    let coming = group(&*store);
    let nothing = GroupRecord {
        view: view(3),
        installed: at(0, 0),
        has_state: false,
        staged: vec![],
    };
    assert_eq!(coming, nothing);
    assert_eq!(store.read_state(uid(1)).unwrap(), None);
    assert_eq!(store.activate(uid(1)).unwrap(), None);
    assert_eq!(store.count_rows(uid(1), 1).unwrap(), 0);
    let failed = store.usage().batches_failed;
    let early = commit(&*store, vec![log(3, None, &[at(3, 1)])]);
    assert!(
        matches!(early, Err(StoreError::OutOfStep { .. })),
        "{early:?}"
    );
    let early = commit(&*store, vec![create(1, "another")]);
    assert!(
        matches!(early, Err(StoreError::Clearing { .. })),
        "{early:?}"
    );
    let headless = commit(&*store, vec![middle_page(vec![], vec![], true)]);
    assert!(
        matches!(headless, Err(StoreError::OutOfStep { .. })),
        "{headless:?}"
    );
    // What comes too early is no failure of the store.
    assert_eq!(store.usage().batches_failed, failed);

    let reply = KeptReply {
        call: call(7),
        uid: uid(1),
        body: Bytes::from_static(b"reply"),
        keep_ms: HOUR_MS,
    };
    let middle = middle_page(vec![row(3)], vec![reply], false);
    commit(&*store, vec![middle]).unwrap();
    commit(
        &*store,
        vec![page(at(2, 9), vec![row(4)], 2, Some("taken"))],
    )
    .unwrap();
    let taken = group(&*store);
    assert_eq!((taken.installed, taken.has_state), (at(2, 9), true));
    assert_eq!(state(&*store, 1).unwrap(), "taken");
    assert_eq!(store.count_rows(uid(1), 1).unwrap(), 4);
    assert_eq!(store.count_rows(uid(1), 2).unwrap(), 0);
    assert_eq!(store.read_reply(call(7)).unwrap().unwrap().body, "reply");
    let (read, epoch) = store.activate(uid(1)).unwrap().unwrap();
    assert!(epoch > read.epoch && read.epoch != Epoch(77));
    commit(&*store, vec![log(3, None, &[at(3, 10)]), install(10)]).unwrap();
    assert_eq!(state(&*store, 1).unwrap(), "10@3");
}

fn a_snapshot_of_one_page_does(make: Make<'_>) {
    let store = first_member(make);
    commit(&*store, vec![put_row(1, 2, b"old", "old")]).unwrap();
    commit(
        &*store,
        vec![page(at(4, 20), vec![row(5)], 0, Some("again"))],
    )
    .unwrap();
    assert_eq!(store.count_rows(uid(1), 1).unwrap(), 1);
    assert_eq!(store.count_rows(uid(1), 2).unwrap(), 0);
    assert_eq!(state(&*store, 1).unwrap(), "again");
}

fn pages_of_other_snapshots_are_refused(make: Make<'_>) {
    let store = make();
    commit(&*store, vec![join(1, false)]).unwrap();
    let refuse = |item: Item| {
        let refused = commit(&*store, vec![create(9, "x"), item]);
        assert!(
            matches!(refused, Err(StoreError::OutOfStep { .. })),
            "{refused:?}"
        );
    };
    refuse(page(at(2, 9), vec![row(1)], 1, None));
    commit(&*store, vec![page(at(2, 9), vec![row(1)], 0, None)]).unwrap();
    refuse(page(at(2, 8), vec![row(2)], 1, None));
    // One is missing, or comes again.
    refuse(page(at(2, 9), vec![row(2)], 2, Some("x")));
    commit(&*store, vec![page(at(2, 9), vec![row(2)], 1, None)]).unwrap();
    refuse(page(at(2, 9), vec![row(2)], 1, None));
    refuse(page(at(3, 9), vec![row(2)], 1, Some("x")));
    // From the beginning, by another leader; nothing of the first one stays.
    commit(&*store, vec![page(at(3, 9), vec![row(2)], 0, None)]).unwrap();
    refuse(page(at(2, 9), vec![row(1)], 1, Some("x")));
    commit(&*store, vec![page(at(3, 9), vec![], 1, Some("whole"))]).unwrap();
    refuse(page(at(3, 9), vec![row(3)], 2, None));
    assert_eq!(store.count_rows(uid(1), 1).unwrap(), 1);
    commit(&*store, vec![log(4, None, &[])]).unwrap();
    let old = commit(&*store, vec![page(at(3, 9), vec![], 0, None)]);
    assert!(matches!(old, Err(StoreError::OlderView { .. })), "{old:?}");
    assert_eq!(state(&*store, 1).unwrap(), "whole");
}

fn many_rows_go_before_a_snapshot_comes(make: Make<'_>) {
    let store = first_member(make);
    let count = 3 * CLEAR_AT_ONCE as u32;
    let rows = (0..count).map(|i| put_row(1, 1, &i.to_be_bytes(), "old"));
    commit(&*store, rows.collect()).unwrap();
    for (rows, last) in [(vec![row(1)], None), (vec![], Some("x"))] {
        let early = commit(&*store, vec![page(at(2, 9), rows, 0, last)]);
        assert!(
            matches!(early, Err(StoreError::Clearing { .. })),
            "{early:?}"
        );
    }
    assert_eq!(store.count_rows(uid(1), 1).unwrap(), count.into());
    commit(&*store, vec![page(at(2, 9), vec![], 0, None)]).unwrap();
    assert!(!group(&*store).has_state);
    let mut waits = 0;
    eventually("the old rows are gone", || {
        match commit(&*store, vec![page(at(2, 9), vec![row(1)], 1, None)]) {
            Ok(()) => true,
            Err(StoreError::Clearing { .. }) => {
                waits += 1;
                false
            }
            Err(error) => panic!("{error}"),
        }
    });
    commit(&*store, vec![page(at(2, 9), vec![row(2)], 2, Some("new"))]).unwrap();
    assert_eq!(
        store.count_rows(uid(1), 1).unwrap(),
        2,
        "after {waits} waits"
    );
}

fn a_copy_leaves(make: Make<'_>) {
    let store = first_member(make);
    commit(
        &*store,
        vec![log(1, None, &[at(1, 1), at(1, 2)]), install(1)],
    )
    .unwrap();
    commit(&*store, vec![leave(true)]).unwrap();
    assert_eq!(store.read_group(uid(1)).unwrap(), None);
    assert_eq!(store.read_entry(uid(1), 2).unwrap(), None);
    assert_eq!(state(&*store, 1).unwrap(), "1@1");
    commit(&*store, vec![leave(false)]).unwrap();
    assert_eq!(state(&*store, 1).unwrap(), "1@1", "it has no copies");
    // Again, and nothing of the earlier log is found.
    commit(&*store, vec![join(1, true), log(1, None, &[at(1, 1)])]).unwrap();
    assert_eq!(group(&*store).staged, [at(1, 1)]);
    commit(&*store, vec![leave(false)]).unwrap();
    assert_eq!(store.read_state(uid(1)).unwrap(), None);
    assert_eq!(store.scan_groups(None, 9).unwrap(), []);

    // Half a snapshot is no object.
    commit(
        &*store,
        vec![join(1, false), page(at(2, 9), vec![row(1)], 0, None)],
    )
    .unwrap();
    commit(&*store, vec![leave(true)]).unwrap();
    commit(&*store, vec![create(1, "another one")]).unwrap();
    assert_eq!(store.count_rows(uid(1), 1).unwrap(), 0);
    // Whoever left may join again.
    commit(&*store, vec![join(1, true)]).unwrap();
    assert_eq!(group(&*store).installed, at(0, 0));
}
