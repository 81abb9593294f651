//! Shadows with rows, prepared actions, decisions, and what they cost.

use bytes::Bytes;
use partha_core::action::path::{Coordinator, Site};
use partha_core::id::{Epoch, NodeId};

use super::batches::HOUR_MS;
use super::{
    Busy, Make, commit, create, create_shadow, eventually, put_row, record, shadow, shadow_row,
    state, submit, uid, write,
};
use crate::{Decision, Item, ObjectStore, Prepared, StoreError, Usage};

pub(super) fn all(make: Make<'_>) {
    shadows_become_states_together(make);
    shadows_are_found_and_dropped(make);
    rows_are_prepared_in_order(make);
    prepared_rows_belong_to_a_shadow(make);
    new_objects_are_prepared(make);
    prepared_actions_are_found(make);
    a_refused_batch_leaves_actions_as_they_were(make);
    a_prepared_state_is_installed_whoever_is_active(make);
    decisions_are_kept_until_settled(make);
    outcomes_expire(make);
    a_decision_that_failed_leaves_its_activations(make);
    each_step_costs_one_sync(make);
    many_actions_share_syncs(make);
}

fn site(node: u64, shard: u16) -> Site {
    let node = NodeId(node);
    Site { node, shard }
}

/// With a decider for every other action.
fn coordinator(action: u64) -> Coordinator {
    Coordinator {
        site: site(action, 3),
        decider: (action % 4 == 1).then(|| uid(action + 1000)),
    }
}

fn prepare(action: u64) -> Item {
    Item::Prepare {
        action: uid(action),
        coordinator: coordinator(action),
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

fn decide(action: u64, participants: Vec<Site>, keep_ms: u64) -> Item {
    let action = uid(action);
    Item::Decide {
        action,
        participants,
        groups: vec![],
        keep_ms,
    }
}

fn settle(action: u64) -> Item {
    let action = uid(action);
    Item::Settle { action }
}

/// Part 1 as text.
fn rows(store: &dyn ObjectStore, local: u64) -> String {
    let rows = store.scan_rows(uid(local), 1, None, 1000).unwrap();
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let rows: Vec<_> = rows
        .iter()
        .map(|(key, value)| format!("{}={}", text(key), text(value)))
        .collect();
    rows.join(" ")
}

fn shadows_become_states_together(make: Make<'_>) {
    let store = make();
    commit(&*store, vec![create(1, "one"), create(2, "two")]).unwrap();
    let items = vec![
        shadow(90, 1, 5, "one'"),
        create_shadow(90, 3, "three"),
        shadow(91, 2, 5, "no"),
    ];
    commit(&*store, items).unwrap();
    assert_eq!(state(&*store, 1).unwrap(), "one", "a shadow is not visible");
    assert_eq!(state(&*store, 3), None);
    assert_eq!(
        store.read_shadow(uid(90), uid(1)).unwrap(),
        Some(record(5, "one'"))
    );

    // A younger epoch in the store stays: epochs never fall.
    commit(&*store, vec![write(1, Epoch(6), "between")]).unwrap();
    commit(&*store, vec![install(90)]).unwrap();
    assert_eq!(state(&*store, 1).unwrap(), "one'");
    assert_eq!(store.read_state(uid(1)).unwrap().unwrap().epoch, Epoch(6));
    assert_eq!(store.read_state(uid(3)).unwrap(), Some(record(0, "three")));
    assert_eq!(
        state(&*store, 2).unwrap(),
        "two",
        "the other action is not concerned"
    );
    assert_eq!(store.scan_shadows(None, 9).unwrap(), [(uid(91), uid(2))]);
    commit(&*store, vec![write(1, Epoch(7), "later"), install(90)]).unwrap();
    assert_eq!(
        state(&*store, 1).unwrap(),
        "later",
        "deciding twice is harmless"
    );
}

fn shadows_are_found_and_dropped(make: Make<'_>) {
    let store = make();
    let objects = (0..3).map(|local| create(local, "x")).collect();
    commit(&*store, objects).unwrap();
    let items = (0..6).map(|i| shadow(90 + i / 3, i % 3, 1, "s")).collect();
    commit(&*store, items).unwrap();
    let rows = vec![shadow_row(90, 1, b"k", Some("v")), prepare(90), prepare(91)];
    commit(&*store, rows).unwrap();
    let expected: Vec<_> = (0..6).map(|i| (uid(90 + i / 3), uid(i % 3))).collect();
    assert_eq!(store.scan_shadows(None, 100).unwrap(), expected);
    assert_eq!(
        store.scan_shadows(Some(expected[1]), 3).unwrap(),
        expected[2..5]
    );
    let objects = [uid(0), uid(1), uid(2)];
    assert_eq!(store.shadowed_objects(uid(90)).unwrap(), objects);
    assert_eq!(store.shadowed_objects(uid(89)).unwrap(), []);
    commit(&*store, vec![undo(90), undo(90)]).unwrap();
    assert_eq!(store.scan_shadows(None, 100).unwrap(), expected[3..]);
    assert_eq!(store.shadowed_objects(uid(90)).unwrap(), []);
    assert_eq!(store.read_shadow(uid(90), uid(0)).unwrap(), None);
    assert_eq!(store.scan_prepared(None, 9).unwrap().len(), 1);
    // Nothing is left that a late decision, or the same action again, could bring up.
    commit(&*store, vec![install(90), shadow(90, 1, 1, "s")]).unwrap();
    commit(&*store, vec![install(90)]).unwrap();
    assert_eq!(store.count_rows(uid(1), 1).unwrap(), 0);
}

fn rows_are_prepared_in_order(make: Make<'_>) {
    let store = make();
    commit(&*store, vec![create(1, "one"), create(2, "two")]).unwrap();
    let before = [(b"a", "old"), (b"b", "old"), (b"c", "old")];
    let before = before.map(|(key, value)| put_row(1, 1, key, value));
    commit(&*store, before.into()).unwrap();
    // Some rows go, come and change more than once; the last word counts.
    let first = vec![
        shadow(90, 1, 1, "one'"),
        shadow_row(90, 1, b"a", None),
        shadow_row(90, 1, b"b", Some("first")),
        shadow(90, 2, 1, "two'"),
        shadow_row(90, 2, b"a", Some("of two")),
        shadow_row(90, 1, b"b", Some("second")),
        shadow_row(90, 1, b"d", Some("new")),
        shadow_row(90, 1, b"", Some("without a key")),
    ];
    commit(&*store, first).unwrap();
    // A second batch goes on where the first one ended, over a rewritten shadow too.
    let second = vec![
        shadow_row(90, 1, b"d", None),
        shadow(90, 1, 1, "one''"),
        shadow_row(90, 1, b"e", Some("")),
        shadow_row(90, 1, b"not there", None),
        shadow(91, 2, 1, "no"),
        shadow_row(91, 2, b"a", Some("no")),
    ];
    commit(&*store, second).unwrap();
    assert_eq!(rows(&*store, 1), "a=old b=old c=old");
    commit(&*store, vec![install(90)]).unwrap();
    assert_eq!(rows(&*store, 1), "=without a key b=second c=old e=");
    assert_eq!(rows(&*store, 2), "a=of two");
    assert_eq!(state(&*store, 1).unwrap(), "one''");
    commit(&*store, vec![undo(91), install(91), install(90)]).unwrap();
    assert_eq!(rows(&*store, 2), "a=of two");

    // More rows than a number of one byte counts, and the longest key.
    let longest = [b'k'; 493];
    let many = (0..600_u32).map(|i| shadow_row(92, 1, &i.to_be_bytes(), Some("x")));
    let items = [shadow(92, 1, 1, "many")].into_iter().chain(many);
    commit(&*store, items.collect()).unwrap();
    let last = vec![
        shadow_row(92, 1, &599_u32.to_be_bytes(), Some("last")),
        shadow_row(92, 1, &longest, Some("longest")),
        prepare(92),
        install(92),
    ];
    commit(&*store, last).unwrap();
    assert_eq!(store.count_rows(uid(1), 1).unwrap(), 4 + 600 + 1);
    let row = |key: &[u8]| store.read_row(uid(1), 1, key).unwrap().unwrap();
    assert_eq!(row(&599_u32.to_be_bytes()), "last");
    assert_eq!(row(&longest), "longest");
}

fn prepared_rows_belong_to_a_shadow(make: Make<'_>) {
    let store = make();
    commit(&*store, vec![create(1, "one"), shadow(90, 1, 1, "s")]).unwrap();
    let refused = commit(&*store, vec![shadow_row(91, 1, b"k", Some("v"))]);
    assert!(
        matches!(refused, Err(StoreError::NoShadow { action, .. }) if action == uid(91)),
        "{refused:?}"
    );
    let zero = Item::ShadowRow {
        action: uid(90),
        uid: uid(1),
        part: 0,
        key: Bytes::new(),
        value: None,
    };
    let zero = commit(&*store, vec![zero]);
    assert!(matches!(zero, Err(StoreError::PartZero { .. })), "{zero:?}");
    let long = commit(&*store, vec![shadow_row(90, 1, &[0; 494], None)]);
    assert!(matches!(long, Err(StoreError::KeyTooLong { .. })));
    let absent = commit(&*store, vec![shadow(90, 2, 1, "nobody")]);
    assert!(
        matches!(absent, Err(StoreError::NoSuchObject { uid: u }) if u == uid(2)),
        "{absent:?}"
    );
}

fn new_objects_are_prepared(make: Make<'_>) {
    let store = make();
    commit(&*store, vec![create(1, "one")]).unwrap();
    let there = commit(&*store, vec![create_shadow(90, 1, "again")]);
    assert!(
        matches!(there, Err(StoreError::Exists { uid: u }) if u == uid(1)),
        "{there:?}"
    );
    let new = |action| {
        vec![
            create_shadow(action, 2, "two"),
            shadow_row(action, 2, b"k", Some("v")),
            prepare(action),
        ]
    };
    commit(&*store, new(90)).unwrap();
    commit(&*store, new(91)).unwrap();
    assert_eq!(store.read_state(uid(2)).unwrap(), None);
    assert_eq!(store.activate(uid(2)).unwrap(), None);
    assert_eq!(store.scan_objects(None, 9).unwrap().len(), 1);
    let row = commit(&*store, vec![put_row(2, 1, b"k", "v")]);
    assert!(matches!(row, Err(StoreError::NoSuchObject { .. })));
    commit(&*store, vec![undo(90)]).unwrap();
    assert_eq!(store.read_state(uid(2)).unwrap(), None, "it never was");
    commit(&*store, vec![install(91)]).unwrap();
    assert_eq!(rows(&*store, 2), "k=v");
    let taken = commit(&*store, vec![create(2, "again")]);
    assert!(matches!(taken, Err(StoreError::Exists { .. })));
    let (read, epoch) = store.activate(uid(2)).unwrap().unwrap();
    assert_eq!(read, record(0, "two"));
    commit(&*store, vec![write(2, epoch, "written")]).unwrap();
}

fn prepared_actions_are_found(make: Make<'_>) {
    let store = make();
    commit(&*store, [95, 91, 93].map(prepare).into()).unwrap();
    let prepared = |action| Prepared {
        action: uid(action),
        coordinator: coordinator(action),
    };
    let all = [91, 93, 95].map(prepared);
    assert_eq!(store.scan_prepared(None, 9).unwrap(), all);
    assert_eq!(store.scan_prepared(None, 2).unwrap(), all[..2]);
    assert_eq!(store.scan_prepared(None, 0).unwrap(), []);
    assert_eq!(store.scan_prepared(Some(uid(91)), 9).unwrap(), all[1..]);
    assert_eq!(store.scan_prepared(Some(uid(92)), 1).unwrap(), all[1..2]);
    let moved = Item::Prepare {
        action: uid(93),
        coordinator: site(u64::MAX, u16::MAX).into(),
    };
    commit(&*store, vec![moved, install(91), undo(95)]).unwrap();
    let left = store.scan_prepared(None, 9).unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].coordinator, site(u64::MAX, u16::MAX).into());
}

fn a_refused_batch_leaves_actions_as_they_were(make: Make<'_>) {
    let store = make();
    let before = vec![
        create(1, "one"),
        shadow(90, 1, 1, "prepared"),
        shadow_row(90, 1, b"k", Some("v")),
        prepare(90),
        decide(91, vec![site(1, 1)], HOUR_MS),
    ];
    commit(&*store, before).unwrap();
    let (prepared, decided) = (
        store.scan_prepared(None, 9).unwrap(),
        store.scan_decisions(None, 9).unwrap(),
    );
    let refused = vec![
        shadow(92, 1, 1, "another"),
        shadow_row(92, 1, b"k", Some("another")),
        create_shadow(92, 2, "two"),
        prepare(92),
        shadow_row(90, 1, b"l", Some("one more")),
        install(90),
        undo(92),
        decide(93, vec![], HOUR_MS),
        decide(94, vec![site(1, 1)], HOUR_MS),
        settle(91),
        create(1, "exists"),
    ];
    let refused = commit(&*store, refused);
    assert!(matches!(refused, Err(StoreError::Exists { .. })));
    assert_eq!(state(&*store, 1).unwrap(), "one");
    assert_eq!(store.scan_shadows(None, 9).unwrap(), [(uid(90), uid(1))]);
    assert_eq!(store.scan_prepared(None, 9).unwrap(), prepared);
    assert_eq!(store.scan_decisions(None, 9).unwrap(), decided);
    assert_eq!(store.read_decision(uid(93)).unwrap(), None);
    commit(&*store, vec![install(90)]).unwrap();
    assert_eq!(state(&*store, 1).unwrap(), "prepared");
    assert_eq!(rows(&*store, 1), "k=v");
}

fn a_prepared_state_is_installed_whoever_is_active(make: Make<'_>) {
    let store = make();
    commit(&*store, vec![create(1, "one"), create(2, "two")]).unwrap();
    let epoch = |local| store.activate(uid(local)).unwrap().unwrap().1;
    let (old, own) = (epoch(1), epoch(2));
    let prepared = vec![
        shadow(90, 1, old.0, "one'"),
        shadow(90, 2, own.0, "two'"),
        prepare(90),
    ];
    commit(&*store, prepared).unwrap();
    // Somebody brings the object up anew, before the decision: what it holds is out of date.
    let young = epoch(1);
    let refused = commit(&*store, vec![shadow(91, 1, old.0, "late")]);
    assert!(
        matches!(refused, Err(StoreError::Fenced { .. })),
        "{refused:?}"
    );
    commit(&*store, vec![install(90)]).unwrap();
    assert_eq!(state(&*store, 1).unwrap(), "one'");
    let over = commit(&*store, vec![write(1, young, "over what it never saw")]);
    assert!(
        matches!(over, Err(StoreError::EarlierWriteFailed { .. })),
        "{over:?}"
    );
    let (read, youngest) = store.activate(uid(1)).unwrap().unwrap();
    assert_eq!(read.state, "one'");
    commit(&*store, vec![write(1, youngest, "one''")]).unwrap();
    // Whoever prepared it goes on.
    commit(&*store, vec![write(2, own, "two''")]).unwrap();
    assert_eq!(state(&*store, 2).unwrap(), "two''");
}

/// One that names groups is not settled, whether it names sites or not.
fn decisions_name_groups(store: &dyn ObjectStore) {
    for (action, participants) in [(93, vec![]), (94, vec![site(2, 0)])] {
        let groups = vec![uid(7), uid(8)];
        let decide = Item::Decide {
            action: uid(action),
            participants: participants.clone(),
            groups: groups.clone(),
            keep_ms: HOUR_MS,
        };
        commit(store, vec![decide]).unwrap();
        let found = Decision {
            participants,
            groups,
        };
        let decision = || store.read_decision(uid(action)).unwrap();
        assert_eq!(decision(), Some(found.clone()));
        let open = store.scan_decisions(Some(uid(92)), 9).unwrap();
        assert_eq!(open, [(uid(action), found)]);
        commit(store, vec![settle(action)]).unwrap();
        assert_eq!(decision(), Some(Decision::default()));
    }
}

fn decisions_are_kept_until_settled(make: Make<'_>) {
    let store = make();
    commit(&*store, vec![create(1, "one")]).unwrap();
    assert_eq!(store.read_decision(uid(90)).unwrap(), None);
    let (all, none) = (vec![site(2, 0), site(u64::MAX, 9)], vec![]);
    let items = vec![
        write(1, Epoch(2), "decided"),
        decide(92, all.clone(), 0),
        decide(91, none, HOUR_MS),
        decide(90, all[1..].to_vec(), HOUR_MS),
    ];
    commit(&*store, items).unwrap();
    assert_eq!(state(&*store, 1).unwrap(), "decided");
    let decision = |action| store.read_decision(uid(action)).unwrap();
    let with = |participants: &[Site]| {
        Some(Decision {
            participants: participants.to_vec(),
            groups: vec![],
        })
    };
    assert_eq!(decision(92), with(&all));
    assert_eq!(decision(91), with(&[]));
    assert_eq!(decision(90), with(&all[1..]));
    let open = |after, limit| -> Vec<u64> {
        let open = store.scan_decisions(after, limit).unwrap();
        for (action, found) in &open {
            assert_eq!(Some(found), decision(action.local).as_ref());
        }
        open.iter().map(|(action, _)| action.local).collect()
    };
    assert_eq!(open(None, 9), [90, 92], "nobody is to be told of 91");
    assert_eq!(open(None, 1), [90]);
    assert_eq!(open(Some(uid(90)), 9), [92]);
    assert_eq!(open(None, 0), [0; 0]);

    decisions_name_groups(&*store);

    commit(&*store, vec![settle(90), settle(99)]).unwrap();
    assert_eq!(open(None, 9), [92]);
    assert_eq!(decision(90), with(&[]), "settled, and still committed");
    assert_eq!(decision(99), None, "what was never decided is not settled");
    // Deciding again, either way, is the newer word.
    let again = vec![
        decide(90, all.clone(), HOUR_MS),
        decide(92, vec![], HOUR_MS),
    ];
    commit(&*store, again).unwrap();
    assert_eq!(open(None, 9), [90]);
    assert_eq!(decision(92), with(&[]));
    let before = store.usage();
    commit(&*store, vec![settle(92), settle(99), install(99), undo(99)]).unwrap();
    assert_eq!(store.usage().syncs, before.syncs, "there was nothing to do");
}

fn outcomes_expire(make: Make<'_>) {
    const MANY: u64 = 300;
    let store = make();
    let told = vec![site(2, 0)];
    let items = vec![
        decide(1, told.clone(), 1),
        decide(2, told.clone(), HOUR_MS),
        decide(3, vec![], u64::MAX),
        decide(4, vec![], 1),
    ];
    commit(&*store, items).unwrap();
    commit(&*store, vec![settle(2), decide(4, vec![], HOUR_MS)]).unwrap();
    let many = (0..MANY).map(|i| decide(1000 + i, vec![], 1)).collect();
    commit(&*store, many).unwrap();
    let there = |action| store.read_decision(uid(action)).unwrap().is_some();
    eventually("outcomes past their time are gone", || {
        !(0..MANY).any(|i| there(1000 + i))
    });
    store.flush().unwrap();
    let (settled, again) = (2, 4);
    assert!(there(1), "not settled, whatever its time");
    assert!(there(settled) && there(3) && there(again));
    commit(&*store, vec![settle(1)]).unwrap();
    eventually("its time began when it was settled", || !there(1));
    store.flush().unwrap();
    assert!(there(settled) && there(3) && there(again));
    // The first outcome of 4 may have gone before the second one came.
    let expired = store.usage().outcomes_expired - MANY - 1;
    assert!(expired <= 1, "{expired} too many");
}

/// Nobody could build on it before, and whoever is told puts the before-images back: the
/// activation goes on.
fn a_decision_that_failed_leaves_its_activations(make: Make<'_>) {
    let store = make();
    commit(&*store, vec![create(1, "one"), create(2, "two")]).unwrap();
    let (_, epoch) = store.activate(uid(1)).unwrap().unwrap();
    let items = vec![
        write(1, epoch, "decided"),
        create(2, "there already"),
        decide(90, vec![], HOUR_MS),
    ];
    let refused = commit(&*store, items);
    assert!(matches!(refused, Err(StoreError::Exists { .. })));
    assert_eq!(store.read_decision(uid(90)).unwrap(), None);
    assert_eq!(state(&*store, 1).unwrap(), "one");
    commit(&*store, vec![write(1, epoch, "one'")]).unwrap();
    assert_eq!(state(&*store, 1).unwrap(), "one'");
}

fn each_step_costs_one_sync(make: Make<'_>) {
    let store = make();
    commit(&*store, vec![create(1, "one"), create(2, "two")]).unwrap();
    let cost = |items: Vec<Item>| {
        let before = store.usage();
        commit(&*store, items).unwrap();
        // The answer is given before the figures of an idle sweep, after its own.
        let after = store.usage();
        let waited = |usage: &Usage| usage.syncs - usage.syncs_sweeping;
        assert_eq!(after.batches - before.batches, 1);
        let steps = [
            after.prepares - before.prepares,
            after.decisions - before.decisions,
            after.installs - before.installs,
            after.undos - before.undos,
            after.settles - before.settles,
        ];
        (waited(&after) - waited(&before), steps)
    };
    let prepared = |action| {
        vec![
            shadow(action, 1, 1, "x"),
            shadow_row(action, 1, b"k", Some("v")),
            create_shadow(action, 3, "new"),
            prepare(action),
        ]
    };
    assert_eq!(cost(prepared(90)), (1, [1, 0, 0, 0, 0]));
    let decided = vec![
        write(2, Epoch(1), "two'"),
        put_row(2, 1, b"k", "v"),
        decide(90, vec![site(1, 1)], HOUR_MS),
    ];
    assert_eq!(cost(decided), (1, [0, 1, 0, 0, 0]));
    assert_eq!(cost(vec![install(90)]), (1, [0, 0, 1, 0, 0]));
    assert_eq!(cost(vec![settle(90)]), (1, [0, 0, 0, 0, 1]));
    assert_eq!(cost(vec![settle(90)]), (0, [0, 0, 0, 0, 1]));
    commit(&*store, vec![Item::Delete { uid: uid(3) }]).unwrap();
    assert_eq!(cost(prepared(91)), (1, [1, 0, 0, 0, 0]));
    assert_eq!(cost(vec![undo(91)]), (1, [0, 0, 0, 1, 0]));
    assert_eq!(cost(vec![undo(91)]), (0, [0, 0, 0, 1, 0]));
    assert_eq!(cost(vec![]), (0, [0; 5]));
}

fn many_actions_share_syncs(make: Make<'_>) {
    const ACTIONS: u64 = 100;
    let store = make();
    let objects = (0..ACTIONS).map(|local| create(local, "x")).collect();
    commit(&*store, objects).unwrap();
    let steps: [fn(u64) -> Vec<Item>; 3] = [
        |i| vec![shadow(1000 + i, i, 1, "y"), prepare(1000 + i)],
        |i| vec![decide(2000 + i, vec![site(1, 1)], HOUR_MS)],
        |i| vec![install(1000 + i), settle(2000 + i)],
    ];
    for step in steps {
        let busy = Busy::make(&*store);
        let before = store.usage();
        let results: Vec<_> = (0..ACTIONS).map(|i| submit(&*store, step(i))).collect();
        busy.free();
        for result in results {
            result.recv().unwrap().unwrap();
        }
        let after = store.usage();
        assert_eq!(after.syncs - before.syncs, 1, "they go together");
        assert_eq!(after.batches - before.batches, ACTIONS);
    }
    let usage = store.usage();
    let steps = [
        usage.prepares,
        usage.decisions,
        usage.installs,
        usage.settles,
    ];
    assert_eq!(steps, [ACTIONS; 4]);
    assert_eq!(store.scan_prepared(None, 1).unwrap(), []);
    assert_eq!(store.scan_decisions(None, 1).unwrap(), []);
    assert!((0..ACTIONS).all(|local| state(&*store, local).unwrap() == "y"));
}
