//! What is about actions at copies of groups: parts, and decisions in the logs of deciders.

mod checkpoints;

use bytes::Bytes;
use partha_core::action::path::{Coordinator, Site};
use partha_core::group::{Stamp, View};
use partha_core::id::{Epoch, NodeId, Uid};

use super::batches::HOUR_MS;
use super::{Make, commit, create, eventually, put_row, record, state, uid, write};
use crate::{ActionCursor, Batch, GroupDecision, Item, ObjectStore, Part, Row, StoreError, entry};

pub(super) fn all(make: Make<'_>) {
    a_part_waits_for_its_end(make);
    an_end_without_its_part_does_nothing(make);
    an_object_has_one_part(make);
    items_of_entries_are_nothing_else(make);
    a_decider_tells_until_all_know(make);
    outcomes_in_logs_expire(make);
    a_group_with_unfinished_actions_does_not_end(make);
    snapshots_bring_what_is_about_actions(make);
    exports_do_not_depend_on_how_entries_come(make);
    checkpoints::all(make);
}

const SITE: Site = Site {
    node: NodeId(9),
    shard: 2,
};

fn view() -> View {
    View {
        number: 1,
        members: vec![NodeId(1), NodeId(2)],
    }
}

fn coordinator(action: u64) -> Coordinator {
    Coordinator {
        site: SITE,
        decider: (action % 2 == 1).then(|| uid(50)),
    }
}

/// What an action changes of object 1: its state, and a row.
fn body(action: u64) -> Bytes {
    let text = format!("by {action}");
    let key = action.to_be_bytes();
    entry::encode(&Batch::new(vec![
        write(1, Epoch(7), &text),
        put_row(1, 1, &key, &text),
    ]))
}

fn prepare(action: u64) -> Item {
    Item::PreparePart {
        uid: uid(1),
        action: uid(action),
        coordinator: coordinator(action),
        body: body(action),
    }
}

fn end(action: u64, commit: bool) -> Item {
    Item::EndPart {
        uid: uid(1),
        action: uid(action),
        commit,
    }
}

fn decide(action: u64, participants: Vec<Site>, groups: Vec<Uid>, keep_ms: u64) -> Item {
    Item::DecideGroup {
        uid: uid(1),
        action: uid(action),
        participants,
        groups,
        keep_ms,
    }
}

fn settle(action: u64) -> Item {
    Item::SettleGroup {
        uid: uid(1),
        action: uid(action),
    }
}

/// Entries of object 1 with these items each, from this index on.
fn log(first: u64, entries: Vec<Vec<Item>>) -> Item {
    let entries = entries.into_iter().map(Batch::new);
    let add = (first..).zip(entries).map(|(index, batch)| {
        let stamp = Stamp { view: 1, index };
        (stamp, entry::encode(&batch))
    });
    Item::GroupLog {
        uid: uid(1),
        view: view(),
        truncate: None,
        add: add.collect(),
    }
}

fn install(index: u64) -> Item {
    let uid = uid(1);
    Item::GroupInstall { uid, index }
}

fn join(has_state: bool) -> Item {
    Item::JoinGroup {
        uid: uid(1),
        view: view(),
        has_state,
    }
}

fn leave(keep_object: bool) -> Item {
    let uid = uid(1);
    Item::LeaveGroup { uid, keep_object }
}

fn first_member(make: Make<'_>) -> Box<dyn ObjectStore> {
    let store = make();
    commit(&*store, vec![create(1, "begin"), join(true)]).unwrap();
    store
}

fn part_of(store: &dyn ObjectStore) -> Option<Part> {
    store.read_part(uid(1)).unwrap()
}

fn expected(action: u64) -> Option<Part> {
    Some(Part {
        action: uid(action),
        coordinator: coordinator(action),
        body: body(action),
    })
}

fn decision(store: &dyn ObjectStore, action: u64) -> Option<GroupDecision> {
    store.read_group_decision(uid(1), uid(action)).unwrap()
}

fn settled() -> Option<GroupDecision> {
    Some(GroupDecision {
        participants: vec![],
        groups: vec![],
        settled: true,
    })
}

fn a_part_waits_for_its_end(make: Make<'_>) {
    let store = first_member(make);
    for (first, action, committed) in [(1, 91, true), (3, 92, false)] {
        let before = state(&*store, 1).unwrap();
        let rows = store.count_rows(uid(1), 1).unwrap();
        commit(&*store, vec![log(first, vec![vec![prepare(action)]])]).unwrap();
        assert_eq!(part_of(&*store), None, "it is staged");
        commit(&*store, vec![install(first)]).unwrap();
        assert_eq!(part_of(&*store), expected(action));
        assert_eq!(state(&*store, 1).unwrap(), before);
        assert_eq!(store.count_rows(uid(1), 1).unwrap(), rows);
        let add = log(first + 1, vec![vec![end(action, committed)]]);
        commit(&*store, vec![add, install(first + 1)]).unwrap();
        assert_eq!(part_of(&*store), None);
        let after = state(&*store, 1).unwrap();
        let by = format!("by {action}");
        assert_eq!(after, if committed { by } else { before });
        let more = u64::from(committed);
        assert_eq!(store.count_rows(uid(1), 1).unwrap(), rows + more);
    }
    // Both at once, and the state of a later entry counts.
    let later = write(1, Epoch(7), "later");
    let entries = vec![vec![prepare(93)], vec![end(93, true)], vec![later]];
    commit(&*store, vec![log(5, entries), install(7)]).unwrap();
    assert_eq!(state(&*store, 1).unwrap(), "later");
    assert_eq!(store.count_rows(uid(1), 1).unwrap(), 2);
    // What commits fences off activations, as every install does.
    let (_, epoch) = store.activate(uid(1)).unwrap().unwrap();
    let entries = vec![vec![prepare(94)], vec![end(94, true)]];
    commit(&*store, vec![log(8, entries), install(9)]).unwrap();
    let fenced = commit(&*store, vec![write(1, epoch, "of before")]);
    assert!(
        matches!(fenced, Err(StoreError::Fenced { .. })),
        "{fenced:?}"
    );
}

fn an_end_without_its_part_does_nothing(make: Make<'_>) {
    let store = first_member(make);
    let entries = vec![vec![end(91, true)], vec![prepare(92)], vec![end(91, true)]];
    commit(&*store, vec![log(1, entries), install(3)]).unwrap();
    assert_eq!(part_of(&*store), expected(92));
    assert_eq!(state(&*store, 1).unwrap(), "begin");
    let entries = vec![
        vec![end(92, true)],
        vec![end(92, false)],
        vec![end(92, true)],
    ];
    commit(&*store, vec![log(4, entries), install(6)]).unwrap();
    assert_eq!(state(&*store, 1).unwrap(), "by 92");
    assert_eq!(part_of(&*store), None);
}

fn an_object_has_one_part(make: Make<'_>) {
    let store = first_member(make);
    let refuse = |first, entries: Vec<Vec<Item>>| {
        let refused = commit(&*store, vec![create(9, "x"), log(first, entries)]);
        assert!(
            matches!(refused, Err(StoreError::OutOfStep { .. })),
            "{refused:?}"
        );
        assert_eq!(store.read_state(uid(9)).unwrap(), None);
    };
    // In the same change of the log, staged before, and installed.
    refuse(1, vec![vec![prepare(91)], vec![prepare(92)]]);
    refuse(1, vec![vec![prepare(91), end(93, true), prepare(92)]]);
    commit(&*store, vec![log(1, vec![vec![prepare(91)]])]).unwrap();
    refuse(2, vec![vec![prepare(92)]]);
    commit(&*store, vec![install(1)]).unwrap();
    refuse(2, vec![vec![prepare(92)]]);
    refuse(2, vec![vec![end(92, false), prepare(92)]]);
    // The same action may say it again; and after its end there is room.
    let entries = vec![vec![prepare(91)], vec![end(91, false)], vec![prepare(92)]];
    commit(&*store, vec![log(2, entries)]).unwrap();
    refuse(5, vec![vec![prepare(93)]]);
    // What goes from the log does not count.
    let Item::GroupLog { uid, view, add, .. } = log(4, vec![vec![prepare(93)]]) else {
        unreachable!("a change of the log");
    };
    let truncate = Some(3);
    let instead = Item::GroupLog {
        uid,
        view,
        truncate,
        add,
    };
    commit(&*store, vec![instead, install(4)]).unwrap();
    assert_eq!(part_of(&*store), expected(93));
}

fn items_of_entries_are_nothing_else(make: Make<'_>) {
    let store = first_member(make);
    let alone = [
        prepare(91),
        end(91, true),
        decide(91, vec![], vec![], 0),
        settle(91),
        checkpoints::item(1, &[91]),
    ];
    for item in alone {
        let refused = commit(&*store, vec![create(9, "x"), item]);
        assert!(
            matches!(refused, Err(StoreError::BadEntry { .. })),
            "{refused:?}"
        );
    }
    // A part is about its object, and changes it; nothing else.
    let of_another = entry::encode(&write(2, Epoch(1), "x").into());
    let within = entry::encode(&prepare(92).into());
    let mut cut = body(91).to_vec();
    cut.pop();
    for body in [of_another, within, cut.into(), Bytes::new()] {
        let part = Item::PreparePart {
            uid: uid(1),
            action: uid(91),
            coordinator: coordinator(91),
            body,
        };
        let refused = commit(&*store, vec![log(1, vec![vec![part]])]);
        assert!(
            matches!(refused, Err(StoreError::BadEntry { .. })),
            "{refused:?}"
        );
    }
    assert_eq!(store.read_group(uid(1)).unwrap().unwrap().staged, []);
    assert_eq!(store.read_state(uid(9)).unwrap(), None);
}

fn a_decider_tells_until_all_know(make: Make<'_>) {
    let store = first_member(make);
    let groups = vec![uid(60), uid(61)];
    let entries = vec![
        vec![
            write(1, Epoch(7), "decided"),
            decide(92, vec![SITE], groups.clone(), HOUR_MS),
        ],
        vec![decide(91, vec![], groups.clone(), HOUR_MS)],
        vec![decide(93, vec![], vec![], HOUR_MS), settle(99)],
    ];
    commit(&*store, vec![log(1, entries)]).unwrap();
    assert_eq!(decision(&*store, 92), None, "it is staged");
    assert_eq!(store.unsettled(uid(1)).unwrap(), []);
    commit(&*store, vec![install(3)]).unwrap();
    assert_eq!(state(&*store, 1).unwrap(), "decided");
    let open = |participants: &[Site]| GroupDecision {
        participants: participants.to_vec(),
        groups: groups.clone(),
        settled: false,
    };
    assert_eq!(decision(&*store, 92), Some(open(&[SITE])));
    let both = [(uid(91), open(&[])), (uid(92), open(&[SITE]))];
    assert_eq!(store.unsettled(uid(1)).unwrap(), both);
    assert_eq!(decision(&*store, 93), settled(), "nobody is to be told");
    assert_eq!(decision(&*store, 99), None);
    // It is the log of this object that says so, and no other.
    assert_eq!(store.read_decision(uid(92)).unwrap(), None);
    assert_eq!(store.read_group_decision(uid(2), uid(92)).unwrap(), None);
    assert_eq!(store.unsettled(uid(2)).unwrap(), []);

    commit(&*store, vec![log(4, vec![vec![settle(92)]]), install(4)]).unwrap();
    assert_eq!(decision(&*store, 92), settled());
    assert_eq!(store.unsettled(uid(1)).unwrap(), both[..1]);
    let entries = vec![
        vec![settle(92), settle(91)],
        vec![decide(94, vec![SITE], vec![], HOUR_MS)],
        vec![settle(94)],
    ];
    commit(&*store, vec![log(5, entries), install(7)]).unwrap();
    for action in 91..=94 {
        assert_eq!(decision(&*store, action), settled(), "{action}");
    }
    assert_eq!(store.unsettled(uid(1)).unwrap(), []);
}

fn outcomes_in_logs_expire(make: Make<'_>) {
    let store = first_member(make);
    let entries = vec![
        vec![decide(91, vec![SITE], vec![], 1)],
        vec![decide(92, vec![], vec![], 1)],
        vec![decide(93, vec![], vec![], HOUR_MS)],
    ];
    commit(&*store, vec![log(1, entries), install(3)]).unwrap();
    eventually("one that all know is gone", || {
        decision(&*store, 92).is_none()
    });
    assert!(decision(&*store, 91).is_some_and(|found| !found.settled));
    commit(&*store, vec![log(4, vec![vec![settle(91)]]), install(4)]).unwrap();
    eventually("its time began when it was settled", || {
        decision(&*store, 91).is_none()
    });
    assert_eq!(decision(&*store, 93), settled());
}

fn a_group_with_unfinished_actions_does_not_end(make: Make<'_>) {
    let store = first_member(make);
    let refuse = |action: u64| {
        let refused = commit(&*store, vec![create(9, "x"), leave(true)]);
        let Err(StoreError::UnfinishedAction { action: of, .. }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(of, uid(action));
        assert!(store.read_group(uid(1)).unwrap().is_some());
        assert_eq!(store.read_state(uid(9)).unwrap(), None);
    };
    let entries = vec![
        vec![prepare(91)],
        vec![decide(92, vec![SITE], vec![], HOUR_MS)],
    ];
    commit(&*store, vec![log(1, entries), install(2)]).unwrap();
    refuse(91);
    commit(&*store, vec![log(3, vec![vec![end(91, true)]]), install(3)]).unwrap();
    refuse(92);
    commit(&*store, vec![log(4, vec![vec![settle(92)]]), install(4)]).unwrap();
    commit(&*store, vec![leave(true)]).unwrap();
    assert_eq!(state(&*store, 1).unwrap(), "by 91");
    assert_eq!(decision(&*store, 92), settled(), "who asks late is told");

    // A copy that goes takes all with it.
    let entries = vec![
        vec![prepare(93)],
        vec![decide(94, vec![SITE], vec![], HOUR_MS)],
    ];
    commit(&*store, vec![join(true), log(1, entries), install(2)]).unwrap();
    commit(&*store, vec![leave(false)]).unwrap();
    assert_eq!(part_of(&*store), None);
    for action in [92, 94] {
        assert_eq!(decision(&*store, action), None, "{action}");
    }
    assert_eq!(store.unsettled(uid(1)).unwrap(), []);
    commit(&*store, vec![create(1, "again")]).unwrap();
}

/// All pages of what is about actions.
fn exported(store: &dyn ObjectStore, limit_bytes: usize) -> Vec<Bytes> {
    let (mut pages, mut from) = (Vec::new(), ActionCursor::default());
    loop {
        let page = store.export_actions(uid(1), from, limit_bytes).unwrap();
        from = page.next;
        match page.actions {
            Some(actions) => pages.push(actions),
            None => return pages,
        }
    }
}

/// Gives the whole state of one copy to another.
fn give(from: &dyn ObjectStore, to: &dyn ObjectStore, limit_bytes: usize) {
    let whole = from.group_state(uid(1)).unwrap().unwrap();
    let rows = from.export_rows(uid(1), None, usize::MAX).unwrap().rows;
    let page = |number, record, rows: Vec<Row>, actions, last| Item::GroupSnapshot {
        uid: uid(1),
        view: view(),
        at: whole.at,
        record,
        rows,
        replies: vec![],
        actions,
        page: number,
        last,
    };
    commit(to, vec![page(0, None, rows, None, false)]).unwrap();
    let mut number = 1;
    for actions in exported(from, limit_bytes) {
        commit(to, vec![page(number, None, vec![], Some(actions), false)]).unwrap();
        number += 1;
    }
    commit(to, vec![page(number, whole.record, vec![], None, true)]).unwrap();
}

fn snapshots_bring_what_is_about_actions(make: Make<'_>) {
    let from = first_member(make);
    assert_eq!(exported(&*from, 1000), [] as [Bytes; 0]);
    let decided = (200..230).map(|action| {
        let groups = vec![uid(60); (action % 3) as usize];
        vec![decide(action, vec![], groups, HOUR_MS)]
    });
    let entries = std::iter::once(vec![prepare(91)]).chain(decided).collect();
    commit(&*from, vec![log(1, entries), install(31)]).unwrap();
    assert_eq!(exported(&*from, usize::MAX).len(), 1);
    assert!(exported(&*from, 400).len() > 10);
    assert_eq!(exported(&*from, 0).len(), 31, "one at least");

    for limit_bytes in [0, 400, usize::MAX] {
        let to = make();
        commit(&*to, vec![join(false)]).unwrap();
        assert_eq!(exported(&*to, 1000), [] as [Bytes; 0]);
        give(&*from, &*to, limit_bytes);
        assert_eq!(part_of(&*to), expected(91));
        for action in 200..230 {
            assert_eq!(decision(&*to, action), decision(&*from, action));
        }
        assert_eq!(
            to.unsettled(uid(1)).unwrap(),
            from.unsettled(uid(1)).unwrap()
        );
        assert_eq!(exported(&*to, usize::MAX), exported(&*from, usize::MAX));
        // What it had is not there any more, and what came can be ended.
        let again = first_member(make);
        let entries = vec![vec![prepare(95)], vec![decide(300, vec![SITE], vec![], 1)]];
        commit(&*again, vec![log(1, entries), install(2)]).unwrap();
        give(&*to, &*again, limit_bytes);
        assert_eq!(exported(&*again, usize::MAX), exported(&*from, usize::MAX));
        let add = log(32, vec![vec![end(91, true)]]);
        commit(&*again, vec![add, install(32)]).unwrap();
        assert_eq!(state(&*again, 1).unwrap(), "by 91");
    }

    // In the first page, too, whatever was there; and never anything else.
    let to = first_member(make);
    commit(&*to, vec![log(1, vec![vec![prepare(95)]]), install(1)]).unwrap();
    let one = |actions| Item::GroupSnapshot {
        uid: uid(1),
        view: view(),
        at: Stamp { view: 1, index: 9 },
        record: Some(record(1, "taken")),
        rows: vec![],
        replies: vec![],
        actions: Some(actions),
        page: 0,
        last: true,
    };
    let other = entry::encode(&Batch::new(vec![prepare(91), end(91, true)]));
    for wrong in [Bytes::from_static(b"none"), other, body(91)] {
        let refused = commit(&*to, vec![one(wrong)]);
        assert!(
            matches!(refused, Err(StoreError::BadEntry { .. })),
            "{refused:?}"
        );
    }
    assert_eq!(part_of(&*to), expected(95));
    let actions = exported(&*from, usize::MAX).remove(0);
    commit(&*to, vec![one(actions)]).unwrap();
    assert_eq!(part_of(&*to), expected(91));
    assert_eq!(decision(&*to, 200), decision(&*from, 200));
}

/// A generator of test data (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// A log of actions that prepare, end, decide and settle, between calls and checkpoints.
fn history(random: &mut Random, len: u64) -> Vec<Vec<Item>> {
    let (mut entries, mut here) = (Vec::new(), None);
    for index in 0..len {
        let action = 100 + random.below(6);
        let text = format!("call {index}");
        let key = random.below(4).to_be_bytes();
        let call = || vec![write(1, Epoch(7), &text), put_row(1, 1, &key, &text)];
        let items = match (random.below(8), here) {
            (0 | 1, None) => {
                here = Some(action);
                vec![prepare(action)]
            }
            (0..=2, Some(prepared)) => {
                here = None;
                vec![end(prepared, random.below(3) > 0), end(action, true)]
            }
            (3, _) => {
                let groups = vec![uid(60); random.below(3) as usize];
                let mut items = call();
                items.push(decide(action, vec![SITE], groups, HOUR_MS));
                items
            }
            (4, _) => vec![settle(action)],
            (7, _) => {
                let others = 106..106 + random.below(2);
                let actions: Vec<u64> = others.chain([action]).collect();
                vec![checkpoints::item(index % 3, &actions)]
            }
            (5, _) => vec![end(action, true)]
                .into_iter()
                .filter(|_| here != Some(action))
                .collect(),
            _ => call(),
        };
        entries.push(items);
    }
    entries
}

/// State, rows and what is about actions, without what belongs to a store: epochs.
fn fingerprint(store: &dyn ObjectStore) -> impl PartialEq + std::fmt::Debug + use<> {
    let whole = store.group_state(uid(1)).unwrap().unwrap();
    let record = whole.record.map(|record| crate::Record {
        epoch: Epoch(0),
        ..record
    });
    let rows = store.export_rows(uid(1), None, usize::MAX).unwrap();
    (whole.at, record, rows, exported(store, usize::MAX))
}

fn exports_do_not_depend_on_how_entries_come(make: Make<'_>) {
    const LEN: u64 = 40;
    let (mut seen_parts, mut seen_checkpoints) = (0, 0);
    for seed in 1..=12 {
        let mut random = Random(seed * 0x9e37_79b9);
        let entries = history(&mut random, LEN);
        let one_by_one = first_member(make);
        for (index, items) in (1..).zip(entries.clone()) {
            commit(&*one_by_one, vec![log(index, vec![items])]).unwrap();
            commit(&*one_by_one, vec![install(index)]).unwrap();
        }
        let expected = fingerprint(&*one_by_one);
        seen_parts += u32::from(part_of(&*one_by_one).is_some());
        let checkpoint = one_by_one.read_checkpoint(uid(1)).unwrap();
        seen_checkpoints += u32::from(checkpoint.is_some_and(|it| !it.actions.is_empty()));
        let at_once = first_member(make);
        commit(&*at_once, vec![log(1, entries.clone()), install(LEN)]).unwrap();
        assert_eq!(fingerprint(&*at_once), expected, "seed {seed}");

        // In groups, and now and then with a snapshot from one copy to the next.
        let mut store = first_member(make);
        let mut done = 0;
        while done < LEN {
            let next = LEN.min(done + 1 + random.below(9));
            let some = entries[done as usize..next as usize].to_vec();
            commit(&*store, vec![log(done + 1, some), install(next)]).unwrap();
            done = next;
            if random.below(3) == 0 {
                let other = make();
                commit(&*other, vec![join(false)]).unwrap();
                give(&*store, &*other, random.below(600) as usize);
                store = other;
            }
        }
        assert_eq!(fingerprint(&*store), expected, "seed {seed}");
    }
    assert!(seen_parts > 0, "some of them end with a part");
    assert!(seen_checkpoints > 0, "and some with a checkpoint");
}
