//! Batches, completions, replies, closing.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use partha_core::action::path::Site;
use partha_core::id::{CallId, Epoch, Incarnation, NodeId, Peer};

use super::{
    Busy, Make, commit, create, put_row, record, shadow, shadow_row, state, submit, uid, write,
};
use crate::{Batch, Item, ObjectStore, ReplyCursor, SavedReply, StoreError};

pub(super) fn all(make: Make<'_>) {
    a_refused_batch_leaves_nothing_behind(make);
    items_see_what_came_before_them(make);
    a_bad_batch_does_not_harm_its_neighbours(make);
    busy_stores_share_syncs(make);
    what_nobody_waits_for_shares_the_next_sync(make);
    completions_come_in_order_and_after_the_write(make);
    a_panicking_completion_harms_nobody(make);
    replies_are_kept_and_expire(make);
    replies_of_a_caller_are_found_by_their_numbers(make);
    replies_saved_again_live_longer(make);
    replies_are_found_by_name(make);
    many_threads_at_once(make);
    closing_finishes_what_was_submitted(make);
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

fn save_reply(sequence: u64, body: &str, keep_ms: u64) -> Item {
    let body = Bytes::copy_from_slice(body.as_bytes());
    Item::SaveReply {
        call: call(sequence),
        uid: uid(1),
        body,
        keep_ms,
    }
}

pub(super) const HOUR_MS: u64 = 3_600_000;

fn a_refused_batch_leaves_nothing_behind(make: Make<'_>) {
    let store = make();
    let before = vec![
        create(1, "one"),
        create(2, "two"),
        put_row(1, 1, b"kept", "row"),
        put_row(1, 1, b"changed", "old"),
        shadow(90, 2, 1, "shadow"),
        save_reply(1, "reply", HOUR_MS),
    ];
    commit(&*store, before).unwrap();
    let key = Bytes::from_static(b"kept");
    let refused = commit(
        &*store,
        vec![
            write(1, Epoch(2), "one'"),
            put_row(1, 1, b"changed", "new"),
            put_row(1, 1, b"added", "new"),
            Item::RemoveRow {
                uid: uid(1),
                part: 1,
                key,
            },
            save_reply(1, "another reply", HOUR_MS),
            save_reply(2, "a reply", HOUR_MS),
            shadow(91, 2, 1, "another shadow"),
            Item::CommitShadow { action: uid(90) },
            create(3, "three"),
            Item::Delete { uid: uid(1) },
            create(2, "exists"),
        ],
    );
    assert!(
        matches!(refused, Err(StoreError::Exists { uid: u }) if u == uid(2)),
        "{refused:?}"
    );
    assert_eq!(store.read_state(uid(1)).unwrap(), Some(record(1, "one")));
    assert_eq!(state(&*store, 2).unwrap(), "two");
    assert_eq!(state(&*store, 3), None);
    let row = |key: &[u8]| store.read_row(uid(1), 1, key).unwrap();
    assert_eq!(row(b"kept").unwrap(), "row");
    assert_eq!(row(b"changed").unwrap(), "old");
    assert_eq!(row(b"added"), None);
    assert_eq!(store.scan_shadows(None, 9).unwrap(), [(uid(90), uid(2))]);
    assert_eq!(store.read_reply(call(1)).unwrap().unwrap().body, "reply");
    assert_eq!(store.read_reply(call(2)).unwrap(), None);
}

fn items_see_what_came_before_them(make: Make<'_>) {
    let store = make();
    let items = vec![
        create(1, "one"),
        write(1, Epoch(3), "two"),
        put_row(1, 1, b"k", "v"),
        shadow(90, 1, 4, "shadow"),
        shadow_row(90, 1, b"k", None),
        shadow_row(90, 1, b"l", Some("w")),
        Item::CommitShadow { action: uid(90) },
        create(2, "short life"),
        Item::Delete { uid: uid(2) },
    ];
    commit(&*store, items).unwrap();
    assert_eq!(state(&*store, 1).unwrap(), "shadow");
    let rows = store.scan_rows(uid(1), 1, None, 9).unwrap();
    assert_eq!(rows, [("l".into(), "w".into())]);
    assert_eq!(state(&*store, 2), None);
}

fn a_bad_batch_does_not_harm_its_neighbours(make: Make<'_>) {
    let store = make();
    let busy = Busy::make(&*store);
    let first = submit(&*store, vec![create(1, "one")]);
    let bad = submit(&*store, vec![create(2, "two"), create(1, "exists")]);
    let last = submit(&*store, vec![create(2, "two at last")]);
    busy.free();
    first.recv().unwrap().unwrap();
    assert!(matches!(
        bad.recv().unwrap(),
        Err(StoreError::Exists { .. })
    ));
    last.recv().unwrap().unwrap();
    assert_eq!(state(&*store, 2).unwrap(), "two at last");
    let usage = store.usage();
    assert_eq!(usage.batches_failed, 1);
    assert_eq!(usage.items, 2);
}

fn busy_stores_share_syncs(make: Make<'_>) {
    const BATCHES: u64 = 200;
    let store = make();
    let busy = Busy::make(&*store);
    let before = store.usage();
    let results: Vec<_> = (1..=BATCHES)
        .map(|local| submit(&*store, vec![create(local, "x")]))
        .collect();
    busy.free();
    for result in results {
        result.recv().unwrap().unwrap();
    }
    let after = store.usage();
    assert_eq!(after.batches - before.batches, BATCHES);
    assert_eq!(
        after.syncs - before.syncs,
        1,
        "they waited together and go together"
    );
    assert_eq!(after.batches_per_sync_max, BATCHES);
    assert_eq!(store.scan_objects(None, 1000).unwrap().len(), 200);
}

fn what_nobody_waits_for_shares_the_next_sync(make: Make<'_>) {
    const TRIES: u64 = 50;
    let store = make();
    let before = store.usage();
    for action in 0..TRIES {
        let decide = Item::Decide {
            action: uid(action),
            participants: vec![Site {
                node: NodeId(8),
                shard: 0,
            }],
            groups: vec![],
            keep_ms: HOUR_MS,
        };
        let settle = Item::Settle {
            action: uid(action),
        };
        store.commit(decide.into()).unwrap();
        let settled = submit(&*store, vec![settle]);
        commit(&*store, vec![create(action + 1, "x")]).unwrap();
        // It was before the other, so it is done by now.
        settled.try_recv().unwrap().unwrap();
    }
    let after = store.usage();
    assert_eq!(after.settles - before.settles, TRIES);
    assert_eq!(after.batches - before.batches, 3 * TRIES);
    // A thread that is held up for long may not find any company.
    let syncs = after.syncs - before.syncs;
    assert!(syncs < 3 * TRIES, "{syncs} syncs");
    let of_two = after.syncs_by_batches[1] - before.syncs_by_batches[1];
    assert!(of_two > 0 && 2 * TRIES + of_two >= syncs, "{after:?}");
    // Alone it is not held for ever.
    let undone = submit(&*store, vec![Item::DeleteShadow { action: uid(1) }]);
    undone.recv().unwrap().unwrap();
}

fn completions_come_in_order_and_after_the_write(make: Make<'_>) {
    let store: Arc<dyn ObjectStore> = Arc::from(make());
    let order = Arc::new(Mutex::new(Vec::new()));
    for local in 1..=100 {
        let (order, reader) = (Arc::clone(&order), Arc::clone(&store));
        let done = move |result: Result<(), StoreError>| {
            result.unwrap();
            let visible = reader.read_state(uid(local)).unwrap().is_some();
            order.lock().unwrap().push((local, visible));
        };
        store.submit(create(local, "x").into(), Box::new(done));
    }
    store.flush().unwrap();
    let order = order.lock().unwrap();
    assert!(
        order
            .iter()
            .copied()
            .eq((1..=100).map(|local| (local, true))),
        "{order:?}"
    );
}

fn a_panicking_completion_harms_nobody(make: Make<'_>) {
    let store = make();
    store.submit(
        create(1, "one").into(),
        Box::new(|_| panic!("on purpose, in a completion")),
    );
    commit(&*store, vec![create(2, "two")]).unwrap();
    assert_eq!(state(&*store, 1).unwrap(), "one");
    assert_eq!(state(&*store, 2).unwrap(), "two");
}

fn replies_are_kept_and_expire(make: Make<'_>) {
    let store = make();
    assert_eq!(store.read_reply(call(1)).unwrap(), None);
    commit(
        &*store,
        vec![create(1, "x"), save_reply(1, "forever", u64::MAX)],
    )
    .unwrap();
    let soon = (100..160)
        .map(|sequence| save_reply(sequence, "soon gone", 1))
        .collect();
    commit(&*store, soon).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while (100..160).any(|sequence| store.read_reply(call(sequence)).unwrap().is_some()) {
        assert!(
            Instant::now() < deadline,
            "replies past their time are still there"
        );
        thread::sleep(Duration::from_millis(5));
    }
    let kept = SavedReply {
        uid: uid(1),
        body: Bytes::from_static(b"forever"),
    };
    assert_eq!(store.read_reply(call(1)).unwrap(), Some(kept));
    store.flush().unwrap();
    assert_eq!(store.usage().replies_expired, 60);
}

fn replies_of_a_caller_are_found_by_their_numbers(make: Make<'_>) {
    let store = make();
    let since = |call| store.has_reply_since(call).unwrap();
    let of = |node, sequence| CallId {
        caller: Peer {
            node: NodeId(node),
            ..call(0).caller
        },
        sequence,
    };
    assert!(!since(call(0)));
    commit(&*store, vec![create(1, "x"), save_reply(300, "r", HOUR_MS)]).unwrap();
    for (sequence, found) in [(0, true), (255, true), (300, true), (301, false)] {
        assert_eq!(since(call(sequence)), found, "{sequence}");
    }
    // Neither the callers before and after, nor another life.
    assert!(!since(of(2, 0)) && !since(of(4, 0)));
    let mut life = call(0);
    life.caller.incarnation = Incarnation(5);
    assert!(!since(life));
    life.caller.incarnation = Incarnation(3);
    assert!(!since(life));
}

fn replies_saved_again_live_longer(make: Make<'_>) {
    let store = make();
    commit(
        &*store,
        vec![save_reply(1, "first", 1), save_reply(2, "gone", 1)],
    )
    .unwrap();
    commit(&*store, vec![save_reply(1, "second", HOUR_MS)]).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while store.read_reply(call(2)).unwrap().is_some() {
        assert!(
            Instant::now() < deadline,
            "a reply past its time is still there"
        );
        thread::sleep(Duration::from_millis(5));
    }
    // Whether the first entry went before or after the second save, the reply stays.
    assert_eq!(store.read_reply(call(1)).unwrap().unwrap().body, "second");
}

fn replies_are_found_by_name(make: Make<'_>) {
    let store = make();
    let items = (1..=9_000).map(|sequence| save_reply(sequence, "body", HOUR_MS));
    commit(&*store, items.collect()).unwrap();
    commit(&*store, vec![save_reply(9_001, "gone", 1)]).unwrap();
    let (mut names, mut cursor, mut steps) = (Vec::new(), ReplyCursor::default(), 0);
    loop {
        let found = store.reply_names(HOUR_MS, cursor).unwrap();
        names.extend(found.names);
        (cursor, steps) = (found.next, steps + 1);
        if found.done {
            break;
        }
    }
    assert_eq!(steps, 3);
    names.retain(|(_, call)| call.sequence <= 9_000);
    let expected: Vec<_> = (1..=9_000).map(|it| (uid(1), call(it))).collect();
    assert_eq!(names, expected);
    let calls: Vec<_> = expected.into_iter().map(|(_, call)| call).collect();
    let (found, looked_at) = store.kept_replies(uid(1), &calls, 4 * 100).unwrap();
    assert_eq!((found.len(), looked_at), (100, 100));
    let last = &found[99];
    assert_eq!(
        (last.call, &last.body[..]),
        (call(100), &b"body"[..]),
        "in the order in which they were asked for"
    );
    assert!(last.keep_ms <= HOUR_MS && last.keep_ms > HOUR_MS / 2);
    // However little there is room for; nothing of calls that are another's or of nobody's.
    let (found, looked_at) = store.kept_replies(uid(1), &calls, 0).unwrap();
    assert_eq!((found.len(), looked_at), (1, 1));
    let none = store.kept_replies(uid(2), &calls, 100).unwrap();
    assert_eq!(none, (Vec::new(), 9_000));
    let none = store.kept_replies(uid(1), &[call(0)], 100).unwrap();
    assert_eq!(none, (Vec::new(), 1));
}

fn many_threads_at_once(make: Make<'_>) {
    const THREADS: u64 = 4;
    const EACH: u64 = 50;
    let store = make();
    let store = &*store;
    thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                for i in 0..EACH {
                    let local = 1 + thread * EACH + i;
                    let items = vec![create(local, "x"), put_row(local, 1, b"row", "y")];
                    commit(store, items).unwrap();
                    assert_eq!(state(store, local).unwrap(), "x");
                    assert_eq!(store.count_rows(uid(local), 1).unwrap(), 1);
                }
            });
        }
    });
    assert_eq!(
        store.scan_objects(None, 1000).unwrap().len() as u64,
        THREADS * EACH
    );
}

fn closing_finishes_what_was_submitted(make: Make<'_>) {
    let store = make();
    let results: Vec<_> = (1..=20)
        .map(|i| submit(&*store, vec![create(i, "x")]))
        .collect();
    store.close();
    for result in results {
        result.recv().unwrap().unwrap();
    }
    let late = store.commit(Batch::from(create(99, "late")));
    assert!(matches!(late, Err(StoreError::Closed)), "{late:?}");
    assert!(matches!(store.flush(), Err(StoreError::Closed)));
    assert!(matches!(store.read_state(uid(1)), Err(StoreError::Closed)));
    assert!(matches!(store.activate(uid(1)), Err(StoreError::Closed)));
    store.close();
}
