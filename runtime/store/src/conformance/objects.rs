//! Objects, rows, scans.

use bytes::Bytes;
use partha_core::id::{Epoch, Incarnation, NodeId};

use super::{Make, commit, create, put_row, record, shadow, shadow_row, state, uid, write};
use crate::{Item, StoreError};

/// LMDB's limit, which the seam states for everybody.
const KEY_BYTES_MAX: usize = 493;

pub(super) fn all(make: Make<'_>) {
    identity_is_there(make);
    objects_are_created_written_and_deleted(make);
    older_epochs_are_fenced_off(make);
    rows_are_apart_and_sorted(make);
    row_keys_have_limits(make);
    objects_are_scanned_in_order(make);
    deletion_takes_rows_and_shadows_along(make);
}

fn identity_is_there(make: Make<'_>) {
    let store = make();
    assert_ne!(store.identity().node, NodeId(0));
    assert!(store.identity().incarnation >= Incarnation(1));
    assert_eq!(store.identity(), store.identity());
}

fn objects_are_created_written_and_deleted(make: Make<'_>) {
    let store = make();
    assert_eq!(store.read_state(uid(1)).unwrap(), None);
    commit(&*store, vec![create(1, "first")]).unwrap();
    assert_eq!(store.read_state(uid(1)).unwrap(), Some(record(1, "first")));
    let again = commit(&*store, vec![create(1, "again")]);
    assert!(
        matches!(again, Err(StoreError::Exists { uid: u }) if u == uid(1)),
        "{again:?}"
    );

    commit(&*store, vec![write(1, Epoch(2), "second")]).unwrap();
    assert_eq!(store.read_state(uid(1)).unwrap(), Some(record(2, "second")));
    let absent = commit(&*store, vec![write(2, Epoch(2), "nobody")]);
    assert!(matches!(absent, Err(StoreError::NoSuchObject { uid: u }) if u == uid(2)));

    let empty = vec![create(3, ""), create(4, &"large ".repeat(50_000))];
    commit(&*store, empty).unwrap();
    assert_eq!(state(&*store, 3).unwrap(), "");
    assert_eq!(state(&*store, 4).unwrap(), "large ".repeat(50_000));

    commit(&*store, vec![Item::Delete { uid: uid(1) }]).unwrap();
    assert_eq!(store.read_state(uid(1)).unwrap(), None);
    let gone = commit(&*store, vec![Item::Delete { uid: uid(1) }]);
    assert!(matches!(gone, Err(StoreError::NoSuchObject { .. })));
    commit(&*store, vec![create(1, "reborn")]).unwrap();
    assert_eq!(state(&*store, 1).unwrap(), "reborn");
}

fn older_epochs_are_fenced_off(make: Make<'_>) {
    let store = make();
    commit(&*store, vec![create(1, "first")]).unwrap();
    commit(&*store, vec![write(1, Epoch(9), "ninth")]).unwrap();
    commit(&*store, vec![write(1, Epoch(9), "ninth again")]).unwrap();
    let old = commit(&*store, vec![write(1, Epoch(8), "eighth")]);
    let fence = (Epoch(8), Epoch(9));
    let is_fenced = |result| {
        matches!(
            result,
            Err(StoreError::Fenced { offered, current, .. }) if (offered, current) == fence
        )
    };
    assert!(is_fenced(old));
    let shadow = Item::WriteShadow {
        action: uid(100),
        uid: uid(1),
        record: record(8, "eighth"),
    };
    assert!(is_fenced(commit(&*store, vec![shadow])));
    assert_eq!(state(&*store, 1).unwrap(), "ninth again");
}

fn rows_are_apart_and_sorted(make: Make<'_>) {
    let store = make();
    commit(&*store, vec![create(1, "one"), create(2, "two")]).unwrap();
    let rows = [&b"b"[..], b"", b"a", b"ab", b"\xff\xff", b"\x00"];
    let mut items: Vec<_> = rows
        .iter()
        .map(|key| put_row(1, 1, key, &format!("{key:?}")))
        .collect();
    items.push(put_row(1, 2, b"a", "part 2"));
    items.push(put_row(2, 1, b"a", "object 2"));
    commit(&*store, items).unwrap();

    let mut sorted = rows;
    sorted.sort_unstable();
    let scan = |after: Option<&[u8]>, limit| {
        let rows = store.scan_rows(uid(1), 1, after, limit).unwrap();
        rows.into_iter().map(|(key, value)| {
            assert_eq!(value, format!("{:?}", &key[..]).as_bytes());
            key
        })
    };
    assert!(scan(None, 100).eq(sorted), "all of them in order");
    assert!(scan(None, 2).eq(sorted[..2].iter().copied()));
    assert!(
        scan(Some(b"a"), 100).eq(sorted[3..].iter().copied()),
        "strictly after"
    );
    assert!(
        scan(Some(b"aa"), 1).eq(sorted[3..4].iter().copied()),
        "after a key that is not there"
    );
    assert_eq!(scan(Some(b"\xff\xff\xff"), 9).len(), 0);
    assert_eq!(scan(None, 0).len(), 0);

    assert_eq!(store.count_rows(uid(1), 1).unwrap(), 6);
    assert_eq!(store.count_rows(uid(1), 2).unwrap(), 1);
    assert_eq!(store.count_rows(uid(1), 3).unwrap(), 0);
    assert_eq!(store.count_rows(uid(9), 1).unwrap(), 0);
    let row = |object, part, key: &[u8]| store.read_row(uid(object), part, key).unwrap();
    assert_eq!(row(1, 2, b"a").unwrap(), "part 2");
    assert_eq!(row(2, 1, b"a").unwrap(), "object 2");
    assert_eq!(row(1, 1, b"c"), None);

    let remove = |key: &'static [u8]| Item::RemoveRow {
        uid: uid(1),
        part: 1,
        key: Bytes::from_static(key),
    };
    commit(
        &*store,
        vec![
            remove(b"a"),
            remove(b"not there"),
            put_row(1, 1, b"b", "new"),
        ],
    )
    .unwrap();
    assert_eq!(row(1, 1, b"a"), None);
    assert_eq!(row(1, 1, b"b").unwrap(), "new");
    assert_eq!(store.count_rows(uid(1), 1).unwrap(), 5);
    assert_eq!(
        state(&*store, 1).unwrap(),
        "one",
        "the plain record is apart"
    );

    let nobody = commit(&*store, vec![put_row(3, 1, b"a", "x")]);
    assert!(matches!(nobody, Err(StoreError::NoSuchObject { .. })));
}

fn row_keys_have_limits(make: Make<'_>) {
    let store = make();
    commit(&*store, vec![create(1, "one")]).unwrap();
    let longest = vec![b'k'; KEY_BYTES_MAX];
    commit(&*store, vec![put_row(1, 1, &longest, "longest")]).unwrap();
    assert_eq!(
        store.read_row(uid(1), 1, &longest).unwrap().unwrap(),
        "longest"
    );
    let rows = store.scan_rows(uid(1), 1, Some(&longest[1..]), 9).unwrap();
    assert_eq!(rows.len(), 1);

    let longer = vec![b'k'; KEY_BYTES_MAX + 1];
    let too_long = |error| {
        matches!(
            error,
            StoreError::KeyTooLong { len, max } if len == KEY_BYTES_MAX + 1 && max == KEY_BYTES_MAX
        )
    };
    let put = commit(&*store, vec![put_row(1, 1, &longer, "too long")]);
    assert!(too_long(put.unwrap_err()));
    assert!(too_long(store.read_row(uid(1), 1, &longer).unwrap_err()));
    assert!(too_long(
        store.scan_rows(uid(1), 1, Some(&longer), 1).unwrap_err()
    ));
    let zero = commit(&*store, vec![put_row(1, 0, b"", "not the plain record")]);
    assert!(matches!(zero, Err(StoreError::PartZero { .. })));
    assert!(matches!(
        store.read_row(uid(1), 0, b""),
        Err(StoreError::PartZero { .. })
    ));
    assert_eq!(state(&*store, 1).unwrap(), "one");
}

fn objects_are_scanned_in_order(make: Make<'_>) {
    let store = make();
    let order = [5, 1, 3, u64::MAX, 2];
    for local in order {
        commit(&*store, vec![create(local, "x")]).unwrap();
    }
    commit(
        &*store,
        (0..50)
            .map(|i| put_row(2, 1 + i % 3, &[i as u8], "row"))
            .collect(),
    )
    .unwrap();
    commit(
        &*store,
        vec![put_row(u64::MAX, u16::MAX, &[255; 20], "last row")],
    )
    .unwrap();
    let mut sorted = order.to_vec();
    sorted.sort_unstable();
    let class = record(1, "").class;
    let expected: Vec<_> = sorted.iter().map(|local| (uid(*local), class)).collect();
    assert_eq!(store.scan_objects(None, 100).unwrap(), expected);
    let mut paged = Vec::new();
    let mut after = None;
    loop {
        let page = store.scan_objects(after, 2).unwrap();
        assert!(page.len() <= 2);
        let Some((last, _)) = page.last() else { break };
        after = Some(*last);
        paged.extend(page);
    }
    assert_eq!(paged, expected);
    assert_eq!(store.scan_objects(Some(uid(4)), 1).unwrap(), expected[3..4]);
    assert_eq!(store.scan_objects(None, 0).unwrap(), []);
}

fn deletion_takes_rows_and_shadows_along(make: Make<'_>) {
    let store = make();
    commit(&*store, vec![create(1, "one"), create(2, "two")]).unwrap();
    commit(
        &*store,
        vec![put_row(1, 1, b"a", "x"), put_row(1, 7, b"b", "y")],
    )
    .unwrap();
    commit(
        &*store,
        vec![
            shadow(90, 1, 2, "s"),
            shadow(91, 1, 2, "s"),
            shadow(90, 2, 2, "t"),
            shadow_row(90, 1, b"c", Some("not any more")),
            shadow_row(90, 2, b"c", Some("still")),
        ],
    )
    .unwrap();
    commit(&*store, vec![Item::Delete { uid: uid(1) }]).unwrap();
    commit(&*store, vec![create(1, "new")]).unwrap();
    assert_eq!(store.count_rows(uid(1), 1).unwrap(), 0);
    assert_eq!(store.count_rows(uid(1), 7).unwrap(), 0);
    assert_eq!(store.scan_shadows(None, 9).unwrap(), [(uid(90), uid(2))]);
    assert_eq!(state(&*store, 2).unwrap(), "two");
    commit(&*store, vec![Item::CommitShadow { action: uid(90) }]).unwrap();
    assert_eq!(state(&*store, 1).unwrap(), "new");
    assert_eq!(store.count_rows(uid(1), 1).unwrap(), 0);
    assert_eq!(state(&*store, 2).unwrap(), "t");
    assert_eq!(store.count_rows(uid(2), 1).unwrap(), 1);
}
