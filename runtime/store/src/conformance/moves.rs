//! Objects that move: places, arrivals in several batches, departures, what goes along.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use partha_core::action::path::Site;
use partha_core::id::{CallId, Incarnation, NodeId, Peer};

use super::batches::HOUR_MS;
use super::{
    Make, commit, create, create_shadow, eventually, put_row, record, shadow, shadow_row, state,
    uid, write,
};
use crate::moving::{Arrival, departure, forward};
use crate::{
    CLEAR_AT_ONCE, Decision, Item, KeptReply, ObjectStore, Place, ReplyCursor, Row, StoreError,
};

const HERE: Site = Site {
    node: NodeId(1),
    shard: 2,
};
const THERE: Site = Site {
    node: NodeId(2),
    shard: 5,
};

pub(super) fn all(make: Make<'_>) {
    places_only_become_newer(make);
    who_was_not_told_is_found(make);
    an_object_arrives_in_several_batches(make);
    an_arrival_that_fails_leaves_nothing(make);
    nothing_else_gets_into_the_way_of_an_arrival(make);
    an_object_leaves(make);
    an_object_moves_back_and_forth(make);
    many_rows_go_afterwards(make);
    rows_are_exported_in_pages(make);
    replies_of_objects_are_found(make);
}

fn here(moves: u64, told: bool) -> Place {
    let from = THERE.node;
    Place::Here { moves, from, told }
}

fn put_place(local: u64, place: Place) -> Item {
    let uid = uid(local);
    Item::PutPlace { uid, place }
}

fn told(local: u64, moves: u64) -> Item {
    let uid = uid(local);
    Item::Told { uid, moves }
}

fn shadow_place(action: u64, local: u64, place: Place) -> Item {
    Item::ShadowPlace {
        action: uid(action),
        uid: uid(local),
        place,
    }
}

fn install(action: u64) -> Item {
    let action = uid(action);
    Item::CommitShadow { action }
}

fn undo(action: u64) -> Item {
    let action = uid(action);
    Item::DeleteShadow { action }
}

fn arrival(action: u64, local: u64, moves: u64) -> Arrival {
    Arrival {
        action: uid(action),
        coordinator: THERE,
        uid: uid(local),
        moves,
    }
}

fn row(part: u16, key: &[u8], value: &str) -> Row {
    Row {
        part,
        key: Bytes::copy_from_slice(key),
        value: Bytes::copy_from_slice(value.as_bytes()),
    }
}

fn numbered(count: u32) -> impl Iterator<Item = Row> {
    (0..count).map(|i| row(1, &i.to_be_bytes(), "x"))
}

fn place(store: &dyn ObjectStore, local: u64) -> Option<Place> {
    store.read_place(uid(local)).unwrap()
}

fn depart(store: &dyn ObjectStore, action: u64, local: u64, moves: u64) -> Result<(), StoreError> {
    store.commit(departure(uid(action), uid(local), THERE, moves, HOUR_MS))
}

/// All rows of an object by way of pages.
fn exported(store: &dyn ObjectStore, local: u64, limit_bytes: usize) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    loop {
        let after = rows.last().map(|row| (row.part, &row.key[..]));
        let page = store.export_rows(uid(local), after, limit_bytes).unwrap();
        assert!(!page.rows.is_empty() || !page.more);
        rows.extend(page.rows);
        if !page.more {
            return rows;
        }
    }
}

fn places_only_become_newer(make: Make<'_>) {
    let store = make();
    assert_eq!(place(&*store, 1), None);
    let gone = |moves| forward(THERE.node, moves);
    commit(&*store, vec![put_place(1, gone(3))]).unwrap();
    assert_eq!(place(&*store, 1), Some(gone(3)));
    for stale in [
        gone(2),
        here(3, false),
        forward(HERE.node, 3),
        here(0, true),
    ] {
        let refused = commit(&*store, vec![create(9, "x"), put_place(1, stale)]);
        assert!(
            matches!(
                refused,
                Err(StoreError::OlderPlace { uid: u, offered, stored: 3 })
                    if u == uid(1) && offered == stale.moves()
            ),
            "{refused:?}"
        );
    }
    assert_eq!(state(&*store, 9), None);
    // The same once more is no harm.
    commit(&*store, vec![put_place(1, gone(3))]).unwrap();
    commit(&*store, vec![put_place(1, here(4, false))]).unwrap();
    assert_eq!(place(&*store, 1), Some(here(4, false)));
    commit(&*store, vec![put_place(1, here(4, true))]).unwrap();
    commit(&*store, vec![put_place(1, here(4, false))]).unwrap();
    assert_eq!(place(&*store, 1), Some(here(4, true)), "it stays told");
    commit(&*store, vec![put_place(1, gone(u64::MAX))]).unwrap();
    assert_eq!(place(&*store, 1), Some(gone(u64::MAX)));
}

fn who_was_not_told_is_found(make: Make<'_>) {
    let store = make();
    let items = (1..=6).map(|local| match local {
        2 => put_place(local, here(7, true)),
        3 => put_place(local, forward(THERE.node, 7)),
        _ => put_place(local, here(7, false)),
    });
    commit(&*store, items.collect()).unwrap();
    let untold = |after, limit| -> Vec<u64> {
        let found = store.scan_untold(after, limit).unwrap();
        assert!(found.iter().all(|(_, place)| *place == here(7, false)));
        found.iter().map(|(uid, _)| uid.local).collect()
    };
    assert_eq!(untold(None, 9), [1, 4, 5, 6]);
    assert_eq!(untold(Some(uid(1)), 2), [4, 5]);
    assert_eq!(untold(None, 0), [0; 0]);
    let all = store.scan_places(None, 9).unwrap();
    assert!(all.iter().map(|(uid, _)| uid.local).eq(1..=6));
    assert_eq!(all[2].1, forward(THERE.node, 7));
    let some = store.scan_places(Some(uid(4)), 1).unwrap();
    assert_eq!(some, [(uid(5), here(7, false))]);

    commit(
        &*store,
        vec![told(1, 7), told(4, 6), told(4, 8), told(3, 7)],
    )
    .unwrap();
    commit(&*store, vec![told(9, 0)]).unwrap();
    assert_eq!(untold(None, 9), [4, 5, 6]);
    assert_eq!(place(&*store, 1), Some(here(7, true)));
    assert_eq!(place(&*store, 3), Some(forward(THERE.node, 7)));
    assert_eq!(place(&*store, 9), None);
    // It has gone on before the word came.
    commit(&*store, vec![put_place(5, forward(THERE.node, 8))]).unwrap();
    commit(&*store, vec![told(5, 7)]).unwrap();
    assert_eq!(untold(None, 9), [4, 6]);
    assert_eq!(place(&*store, 5), Some(forward(THERE.node, 8)));
}

fn an_object_arrives_in_several_batches(make: Make<'_>) {
    let store = make();
    let comes = arrival(90, 1, 3);
    // The epoch is of a node that has seen more.
    store.commit(comes.begin(record(1 << 50, "one"))).unwrap();
    let first = comes.page(numbered(2000), []);
    store.commit(first).unwrap();
    let reply = KeptReply {
        call: call(1),
        uid: uid(1),
        body: Bytes::from_static(b"reply"),
        keep_ms: HOUR_MS,
    };
    let second = comes.page([row(7, b"", "empty key"), row(1, b"", "")], [reply]);
    store.commit(second).unwrap();
    let change = vec![
        shadow_row(90, 1, &3_u32.to_be_bytes(), None),
        shadow_row(90, 1, &4_u32.to_be_bytes(), Some("changed")),
    ];
    commit(&*store, change).unwrap();

    let unseen = |store: &dyn ObjectStore| {
        assert_eq!(store.read_state(uid(1)).unwrap(), None);
        assert_eq!(store.activate(uid(1)).unwrap(), None);
        assert_eq!(store.read_row(uid(1), 7, b"").unwrap(), None);
        assert_eq!(store.scan_rows(uid(1), 1, None, 9).unwrap(), []);
        assert_eq!(store.count_rows(uid(1), 1).unwrap(), 0);
        assert_eq!(exported(store, 1, 100), []);
        assert_eq!(store.scan_objects(None, 9).unwrap(), []);
        assert_eq!(store.read_place(uid(1)).unwrap(), None);
        assert_eq!(store.scan_untold(None, 9).unwrap(), []);
    };
    unseen(&*store);
    let prepared = store.scan_prepared(None, 9).unwrap();
    assert_eq!(
        (prepared[0].action, prepared[0].coordinator),
        (uid(90), THERE.into())
    );
    assert_eq!(store.shadowed_objects(uid(90)).unwrap(), [uid(1)]);

    commit(&*store, vec![install(90)]).unwrap();
    assert_eq!(place(&*store, 1), Some(here(3, false)));
    assert_eq!(store.scan_untold(None, 9).unwrap().len(), 1);
    assert_eq!(store.scan_prepared(None, 9).unwrap(), []);
    assert_eq!(store.scan_shadows(None, 9).unwrap(), []);
    assert_eq!(store.count_rows(uid(1), 1).unwrap(), 2000);
    let row = |part, key: &[u8]| store.read_row(uid(1), part, key).unwrap();
    assert_eq!(row(7, b"").unwrap(), "empty key");
    assert_eq!(row(1, &3_u32.to_be_bytes()), None);
    assert_eq!(row(1, &4_u32.to_be_bytes()).unwrap(), "changed");
    assert_eq!(row(1, &1999_u32.to_be_bytes()).unwrap(), "x");
    assert_eq!(store.read_reply(call(1)).unwrap().unwrap().body, "reply");
    // It lives on under epochs of this node.
    let (read, epoch) = store.activate(uid(1)).unwrap().unwrap();
    assert_eq!((read.state, read.version), ("one".into(), 1 << 50));
    commit(&*store, vec![write(1, epoch, "one'")]).unwrap();
    commit(&*store, vec![install(90), undo(90)]).unwrap();
    assert_eq!(
        state(&*store, 1).unwrap(),
        "one'",
        "repeated, it is no harm"
    );
    assert_eq!(store.count_rows(uid(1), 1).unwrap(), 2000);
}

fn an_arrival_that_fails_leaves_nothing(make: Make<'_>) {
    let store = make();
    let old = forward(THERE.node, 2);
    commit(&*store, vec![put_place(1, old)]).unwrap();
    for (action, rows) in (90..).zip([0, 10, 3 * CLEAR_AT_ONCE as u32]) {
        let comes = arrival(action, 1, 3);
        store.commit(comes.begin(record(1, "one"))).unwrap();
        store.commit(comes.page(numbered(rows), [])).unwrap();
        commit(&*store, vec![undo(action)]).unwrap();
        assert_eq!(store.scan_prepared(None, 9).unwrap(), []);
        assert_eq!(store.read_state(uid(1)).unwrap(), None);
        assert_eq!(exported(&*store, 1, 1 << 20), []);
        assert_eq!(place(&*store, 1), Some(old), "the forward stays");
        // A page that comes late finds no shadow.
        let late = store.commit(comes.page(numbered(1), []));
        assert!(matches!(late, Err(StoreError::NoShadow { .. })), "{late:?}");
        commit(&*store, vec![install(action)]).unwrap();
        assert_eq!(store.read_state(uid(1)).unwrap(), None);
        eventually(
            "the rows are gone, so that it may come again",
            || match store.commit(arrival(89, 1, 3).begin(record(1, "again"))) {
                Ok(()) => true,
                Err(StoreError::Clearing { uid: u }) if u == uid(1) => false,
                Err(error) => panic!("{error}"),
            },
        );
        commit(&*store, vec![undo(89)]).unwrap();
    }
    store
        .commit(arrival(99, 1, 3).begin(record(1, "one")))
        .unwrap();
    commit(&*store, vec![install(99)]).unwrap();
    assert_eq!(exported(&*store, 1, 1 << 20), []);
    assert_eq!(place(&*store, 1), Some(here(3, false)));
}

fn nothing_else_gets_into_the_way_of_an_arrival(make: Make<'_>) {
    let store = make();
    let comes = arrival(90, 1, 3);
    let alone = commit(&*store, vec![shadow_place(90, 1, here(3, false))]);
    assert!(
        matches!(alone, Err(StoreError::NoShadow { .. })),
        "{alone:?}"
    );
    commit(&*store, vec![create(2, "two"), shadow(91, 2, 1, "two'")]).unwrap();
    let there = commit(&*store, vec![shadow_place(91, 2, here(3, false))]);
    assert!(matches!(there, Err(StoreError::Exists { .. })), "{there:?}");
    commit(&*store, vec![put_place(3, forward(THERE.node, 5))]).unwrap();
    for moves in [4, 5] {
        let stale = store.commit(arrival(92, 3, moves).begin(record(1, "three")));
        assert!(
            matches!(stale, Err(StoreError::OlderPlace { stored: 5, .. })),
            "{stale:?}"
        );
    }

    store.commit(comes.begin(record(1, "one"))).unwrap();
    let arriving = |result: Result<(), StoreError>| {
        assert!(
            matches!(result, Err(StoreError::Arriving { action, .. }) if action == uid(90)),
            "{result:?}"
        );
    };
    arriving(store.commit(arrival(93, 1, 3).begin(record(1, "other"))));
    store.commit(comes.page(numbered(5), [])).unwrap();
    arriving(store.commit(arrival(93, 1, 4).begin(record(1, "other"))));
    arriving(commit(&*store, vec![create(1, "other")]));
    arriving(commit(&*store, vec![create_shadow(94, 1, "other")]));
    let nobody = commit(&*store, vec![put_row(1, 1, b"k", "v")]);
    assert!(matches!(nobody, Err(StoreError::NoSuchObject { .. })));
    // A refused batch leaves it as it was.
    let refused = commit(
        &*store,
        vec![
            shadow_row(90, 1, &0_u32.to_be_bytes(), None),
            shadow_row(90, 1, b"more", Some("x")),
            put_place(4, here(1, false)),
            told(4, 1),
            undo(90),
            create(2, "exists"),
        ],
    );
    assert!(matches!(refused, Err(StoreError::Exists { .. })));
    assert_eq!(store.scan_untold(None, 9).unwrap(), []);
    commit(&*store, vec![install(90)]).unwrap();
    assert!(exported(&*store, 1, 1 << 20).into_iter().eq(numbered(5)));
    // Rows that are prepared before the place are there, too, and in order.
    let early = vec![
        create_shadow(95, 5, "five"),
        shadow_row(95, 5, b"a", Some("first")),
        shadow_row(95, 5, b"b", Some("first")),
        shadow_place(95, 5, here(1, false)),
        shadow_row(95, 5, b"a", Some("second")),
        install(95),
    ];
    commit(&*store, early).unwrap();
    let rows = [row(1, b"a", "second"), row(1, b"b", "first")];
    assert_eq!(exported(&*store, 5, 1 << 20), rows);
}

fn an_object_leaves(make: Make<'_>) {
    let store = make();
    commit(&*store, vec![create(1, "one"), create(2, "two")]).unwrap();
    let rows = (0..20_u8).map(|i| put_row(1, 1 + u16::from(i % 2), &[i], "row"));
    commit(&*store, rows.collect()).unwrap();
    let (_, epoch) = store.activate(uid(1)).unwrap().unwrap();
    let before = store.usage();
    depart(&*store, 90, 1, 1).unwrap();
    let usage = store.usage();
    assert_eq!(usage.departures, before.departures + 1);
    assert_eq!(usage.decisions, before.decisions + 1);
    assert_eq!(store.read_state(uid(1)).unwrap(), None);
    assert_eq!(exported(&*store, 1, 1 << 20), []);
    assert_eq!(place(&*store, 1), Some(forward(THERE.node, 1)));
    assert_eq!(
        store.read_decision(uid(90)).unwrap(),
        Some(Decision {
            participants: vec![THERE],
            groups: vec![],
        })
    );
    assert_eq!(store.scan_objects(None, 9).unwrap().len(), 1);
    let late = commit(&*store, vec![write(1, epoch, "late")]);
    assert!(
        matches!(late, Err(StoreError::NoSuchObject { .. })),
        "{late:?}"
    );
    // Nothing of it happens twice, or to an object that is not here.
    let again = depart(&*store, 91, 1, 2);
    assert!(
        matches!(again, Err(StoreError::NoSuchObject { .. })),
        "{again:?}"
    );
    assert_eq!(place(&*store, 1), Some(forward(THERE.node, 1)));
    assert_eq!(store.read_decision(uid(91)).unwrap(), None);
    // The chain is shortened.
    commit(&*store, vec![put_place(1, forward(HERE.node, 4))]).unwrap();
    assert_eq!(place(&*store, 1), Some(forward(HERE.node, 4)));
    assert_eq!(store.usage().departures, usage.departures);
    // Whoever makes it anew here, from a backup perhaps, has it here.
    commit(&*store, vec![create(1, "new")]).unwrap();
    assert_eq!(place(&*store, 1), None);
    // One that is deleted for good is nowhere.
    store
        .commit(arrival(92, 3, 1).begin(record(1, "three")))
        .unwrap();
    commit(&*store, vec![install(92), Item::Delete { uid: uid(3) }]).unwrap();
    assert_eq!(place(&*store, 3), None);
    assert_eq!(store.scan_untold(None, 9).unwrap(), []);
}

fn an_object_moves_back_and_forth(make: Make<'_>) {
    let store = make();
    commit(&*store, vec![create(1, "0"), put_row(1, 1, b"k", "0")]).unwrap();
    let (_, mut epoch) = store.activate(uid(1)).unwrap().unwrap();
    for moves in (2..40).step_by(2) {
        let stale = epoch;
        depart(&*store, 100 + moves, 1, moves - 1).unwrap();
        assert_eq!(place(&*store, 1), Some(forward(THERE.node, moves - 1)));
        // Every other time it was forgotten in memory.
        if moves % 4 == 0 {
            store.deactivate(uid(1), epoch);
        }
        let comes = arrival(200 + moves, 1, moves);
        let text = moves.to_string();
        store.commit(comes.begin(record(3, &text))).unwrap();
        store.commit(comes.page([row(1, b"k", &text)], [])).unwrap();
        let settle = Item::Settle {
            action: uid(100 + moves),
        };
        commit(&*store, vec![settle, install(200 + moves)]).unwrap();
        assert_eq!(store.read_row(uid(1), 1, b"k").unwrap().unwrap(), text);
        // Who had it before it left may not write over what it has become elsewhere.
        let over = commit(&*store, vec![write(1, stale, "stale")]);
        assert!(matches!(over, Err(StoreError::Fenced { .. })), "{over:?}");
        let (read, young) = store.activate(uid(1)).unwrap().unwrap();
        assert!(stale < read.epoch && read.epoch < young, "{young}");
        epoch = young;
        commit(&*store, vec![write(1, epoch, &text), told(1, moves)]).unwrap();
        assert_eq!(place(&*store, 1), Some(here(moves, true)));
    }
    assert_eq!(store.scan_decisions(None, 9).unwrap(), []);
}

fn many_rows_go_afterwards(make: Make<'_>) {
    let store = make();
    let count = 20 * CLEAR_AT_ONCE as u32;
    let comes = arrival(90, 1, 1);
    store.commit(comes.begin(record(1, "one"))).unwrap();
    store.commit(comes.page(numbered(count), [])).unwrap();
    commit(&*store, vec![install(90), create(2, "two")]).unwrap();
    commit(&*store, vec![put_row(2, 1, b"k", "v")]).unwrap();
    // Not even in one batch; and what is refused leaves it whole.
    let reborn = commit(&*store, vec![Item::Delete { uid: uid(1) }, create(1, "x")]);
    assert!(
        matches!(reborn, Err(StoreError::Clearing { .. })),
        "{reborn:?}"
    );
    assert_eq!(store.count_rows(uid(1), 1).unwrap(), u64::from(count));
    let cleared = store.usage().rows_cleared;
    depart(&*store, 91, 1, 2).unwrap();
    // Until they are gone the object cannot come, and nobody sees them.
    let mut refused = 0;
    eventually("the rows are gone", || {
        assert_eq!(store.count_rows(uid(1), 1).unwrap(), 0);
        let last = (count - 1).to_be_bytes();
        assert_eq!(store.read_row(uid(1), 1, &last).unwrap(), None);
        match store.commit(arrival(92, 1, 3).begin(record(1, "again"))) {
            Ok(()) => return true,
            Err(StoreError::Clearing { .. }) => refused += 1,
            Err(error) => panic!("{error}"),
        }
        false
    });
    let gone = store.usage().rows_cleared - cleared;
    assert_eq!(gone, u64::from(count), "after {refused} refusals");
    let page = arrival(92, 1, 3).page(numbered(3), []);
    store.commit(page).unwrap();
    commit(&*store, vec![install(92)]).unwrap();
    // Whatever is still swept is not the new object's.
    store.flush().unwrap();
    thread::sleep(Duration::from_millis(50));
    assert!(exported(&*store, 1, 1 << 20).into_iter().eq(numbered(3)));
    assert_eq!(store.count_rows(uid(2), 1).unwrap(), 1);
}

fn rows_are_exported_in_pages(make: Make<'_>) {
    let store = make();
    commit(&*store, vec![create(1, "one"), create(2, "two")]).unwrap();
    let longest = [0xff; 493];
    let rows = [
        row(1, b"", "no key"),
        row(1, &[0], &"large".repeat(10_000)),
        row(1, &longest, ""),
        row(2, b"a", "b"),
        row(3, b"a", "b"),
        row(u16::MAX, &longest, "last"),
    ];
    let put = |local: u64, row: &Row| Item::PutRow {
        uid: uid(local),
        part: row.part,
        key: row.key.clone(),
        value: row.value.clone(),
    };
    commit(&*store, rows.iter().map(|row| put(1, row)).collect()).unwrap();
    commit(&*store, vec![put_row(2, 1, b"other", "x")]).unwrap();
    for limit_bytes in [0, 1, 10, 600, 49_999, 1 << 20] {
        assert_eq!(exported(&*store, 1, limit_bytes), rows, "{limit_bytes}");
    }
    let page = |after, limit| store.export_rows(uid(1), after, limit).unwrap();
    assert_eq!(page(None, 0).rows, rows[..1]);
    assert!(page(None, 0).more);
    assert_eq!(page(Some((1, &b"\0"[..])), 1000).rows, rows[2..]);
    assert_eq!(page(Some((2, &b"0"[..])), 1000).rows, rows[3..]);
    assert!(!page(Some((2, &b"0"[..])), 1000).more);
    assert_eq!(page(Some((u16::MAX, &longest)), 1000).rows, []);
    assert_eq!(store.export_rows(uid(3), None, 10).unwrap().rows, []);
    let zero = store.export_rows(uid(1), Some((0, &[])), 10);
    assert!(matches!(zero, Err(StoreError::PartZero { .. })), "{zero:?}");
    let long = store.export_rows(uid(1), Some((1, &[0; 494])), 10);
    assert!(matches!(long, Err(StoreError::KeyTooLong { .. })));
}

fn call(sequence: u64) -> CallId {
    let caller = Peer {
        node: NodeId(3),
        incarnation: Incarnation(4),
    };
    CallId { caller, sequence }
}

fn save(sequence: u64, local: u64, keep_ms: u64) -> Item {
    Item::SaveReply {
        call: call(sequence),
        uid: uid(local),
        body: Bytes::from(format!("reply {sequence}")),
        keep_ms,
    }
}

/// The sequence numbers of the replies of these objects from there on, and where the walk ended.
fn replies(
    store: &dyn ObjectStore,
    locals: &[u64],
    mut from: ReplyCursor,
    limit_bytes: usize,
) -> (BTreeSet<u64>, ReplyCursor) {
    let uids: BTreeSet<_> = locals.iter().map(|local| uid(*local)).collect();
    let mut found = BTreeSet::new();
    loop {
        let page = store.replies_of(&uids, HOUR_MS, from, limit_bytes).unwrap();
        for reply in page.replies {
            let sequence = reply.call.sequence;
            assert_eq!(reply.call, call(sequence));
            assert!(uids.contains(&reply.uid));
            assert_eq!(reply.body, format!("reply {sequence}"));
            assert!(reply.keep_ms <= 2 * HOUR_MS && reply.keep_ms > HOUR_MS / 2);
            found.insert(sequence);
        }
        from = page.next;
        if page.done {
            return (found, from);
        }
    }
}

fn replies_of_objects_are_found(make: Make<'_>) {
    let store = make();
    let start = ReplyCursor::default();
    assert_eq!(replies(&*store, &[1], start, 100).0, [].into());
    let items = (1..=9000).map(|i| save(i, i % 100, HOUR_MS)).collect();
    commit(&*store, items).unwrap();
    let of = |local: u64| (1..=9000).filter(move |i| i % 100 == local);
    for limit_bytes in [0, 1, 100, 1 << 20] {
        let (found, _) = replies(&*store, &[1, 7], start, limit_bytes);
        let expected: BTreeSet<u64> = of(1).chain(of(7)).collect();
        assert_eq!(found, expected, "{limit_bytes}");
    }
    // One step is not all of them, and finds no more than there is room for.
    let uids = [uid(1)].into();
    let step = |limit| store.replies_of(&uids, HOUR_MS, start, limit).unwrap();
    assert!(!step(1 << 20).done && step(1 << 20).replies.len() < 90);
    assert_eq!(step(0).replies.len(), 1);
    let (_, end) = replies(&*store, &[1], start, 1000);
    // Going on finds what came since, and not all of the rest again.
    thread::sleep(Duration::from_millis(5));
    let items = vec![save(9001, 1, HOUR_MS), save(9002, 2, HOUR_MS)];
    commit(&*store, items).unwrap();
    commit(&*store, vec![save(5, 1, 2 * HOUR_MS)]).unwrap();
    let (since, end) = replies(&*store, &[1], end, 1000);
    assert!(since.is_superset(&[5, 9001].into()), "{since:?}");
    assert!(!since.contains(&9002));
    // One that has expired is none.
    commit(&*store, vec![save(9003, 8, 1), save(9004, 8, HOUR_MS)]).unwrap();
    let (all, _) = replies(&*store, &[8], end, 1000);
    assert!(all.contains(&9004) && !all.contains(&9003), "{all:?}");
    let all = replies(&*store, &[1, 5], start, 1 << 20).0;
    assert!(all.contains(&5));
}
