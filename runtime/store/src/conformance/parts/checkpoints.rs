//! What running actions have of replicated objects: one row, of which entries take actions out.

use super::*;
use crate::GroupCheckpoint;

pub(super) fn all(make: Make<'_>) {
    the_next_takes_the_place_of_the_last(make);
    entries_take_actions_out(make);
    an_action_is_in_a_checkpoint_once(make);
    it_goes_with_the_copy(make);
    snapshots_bring_it_last(make);
}

/// What there is of an action, under the number of its checkpoint.
fn of(number: u64, action: u64) -> Bytes {
    format!("checkpoint {number} of {action}").into()
}

pub(super) fn checkpoint(number: u64, actions: &[u64]) -> GroupCheckpoint {
    let ended = match number {
        0 => Bytes::new(),
        _ => format!("ended by {number}").into(),
    };
    let actions = actions
        .iter()
        .map(|action| (uid(*action), of(number, *action)));
    GroupCheckpoint {
        ended,
        actions: actions.collect(),
    }
}

pub(super) fn item(number: u64, actions: &[u64]) -> Item {
    Item::CheckpointGroup {
        uid: uid(1),
        checkpoint: checkpoint(number, actions),
    }
}

fn stored(store: &dyn ObjectStore) -> Option<GroupCheckpoint> {
    store.read_checkpoint(uid(1)).unwrap()
}

fn add(store: &dyn ObjectStore, index: u64, items: Vec<Item>) {
    commit(store, vec![log(index, vec![items]), install(index)]).unwrap();
}

fn the_next_takes_the_place_of_the_last(make: Make<'_>) {
    let store = first_member(make);
    commit(&*store, vec![log(1, vec![vec![item(1, &[91, 92])]])]).unwrap();
    assert_eq!(stored(&*store), None, "it is staged");
    commit(&*store, vec![install(1)]).unwrap();
    assert_eq!(stored(&*store), Some(checkpoint(1, &[91, 92])));
    assert_eq!(store.read_checkpoint(uid(2)).unwrap(), None);
    assert_eq!(state(&*store, 1).unwrap(), "begin", "it changes nothing");
    add(&*store, 2, vec![item(2, &[92])]);
    assert_eq!(stored(&*store), Some(checkpoint(2, &[92])));
    add(&*store, 3, vec![item(3, &[93]), item(4, &[])]);
    assert_eq!(
        stored(&*store),
        Some(checkpoint(4, &[])),
        "what has ended stays"
    );
    add(&*store, 4, vec![item(0, &[])]);
    assert_eq!(stored(&*store), None, "nothing in it is none");
    add(&*store, 5, vec![item(0, &[])]);
    assert_eq!(stored(&*store), None);
}

fn entries_take_actions_out(make: Make<'_>) {
    let store = first_member(make);
    add(&*store, 1, vec![item(1, &[91, 92, 93, 94])]);
    add(&*store, 2, vec![prepare(92)]);
    assert_eq!(stored(&*store), Some(checkpoint(1, &[91, 93, 94])));
    add(&*store, 3, vec![end(92, true), end(91, false), settle(91)]);
    assert_eq!(stored(&*store), Some(checkpoint(1, &[91, 93, 94])));
    add(&*store, 4, vec![decide(93, vec![SITE], vec![], HOUR_MS)]);
    add(&*store, 5, vec![decide(91, vec![], vec![], HOUR_MS)]);
    assert_eq!(stored(&*store), Some(checkpoint(1, &[94])));
    // One that is not in it changes nothing, and in one install the order counts.
    add(&*store, 6, vec![decide(99, vec![], vec![], HOUR_MS)]);
    assert_eq!(stored(&*store), Some(checkpoint(1, &[94])));
    let entries = vec![
        vec![item(2, &[94, 95])],
        vec![prepare(95)],
        vec![end(95, true)],
        vec![item(3, &[95, 96]), decide(96, vec![], vec![], HOUR_MS)],
    ];
    commit(&*store, vec![log(7, entries), install(10)]).unwrap();
    assert_eq!(stored(&*store), Some(checkpoint(3, &[95])));
    // The last one that goes leaves what has ended, or nothing.
    add(&*store, 11, vec![decide(95, vec![], vec![], HOUR_MS)]);
    assert_eq!(stored(&*store), Some(checkpoint(3, &[])));
    add(&*store, 12, vec![item(0, &[97])]);
    add(&*store, 13, vec![decide(97, vec![], vec![], HOUR_MS)]);
    assert_eq!(stored(&*store), None);
}

fn an_action_is_in_a_checkpoint_once(make: Make<'_>) {
    let store = first_member(make);
    let elsewhere = Item::CheckpointGroup {
        uid: uid(2),
        checkpoint: checkpoint(1, &[91]),
    };
    let refused = [
        log(1, vec![vec![item(1, &[91, 92, 91])]]),
        log(1, vec![vec![elsewhere]]),
        item(1, &[91]),
    ];
    for item in refused {
        let refused = commit(&*store, vec![create(9, "x"), item]);
        assert!(
            matches!(refused, Err(StoreError::BadEntry { .. })),
            "{refused:?}"
        );
    }
    assert_eq!(store.read_state(uid(9)).unwrap(), None);
    assert_eq!(stored(&*store), None);
}

fn it_goes_with_the_copy(make: Make<'_>) {
    let store = first_member(make);
    add(&*store, 1, vec![item(1, &[91])]);
    let refused = commit(&*store, vec![create(9, "x"), leave(true)]);
    let Err(StoreError::UnfinishedAction { action, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(action, uid(91));
    assert_eq!(stored(&*store), Some(checkpoint(1, &[91])));
    commit(&*store, vec![leave(false)]).unwrap();
    assert_eq!(stored(&*store), None);
    // What has ended is of no use without copies.
    commit(&*store, vec![create(1, "again"), join(true)]).unwrap();
    add(&*store, 1, vec![item(2, &[])]);
    commit(&*store, vec![leave(true)]).unwrap();
    assert_eq!(stored(&*store), None);
    assert_eq!(state(&*store, 1).unwrap(), "again");
}

fn snapshots_bring_it_last(make: Make<'_>) {
    let from = first_member(make);
    let decided = (200..210).map(|action| decide(action, vec![SITE], vec![], HOUR_MS));
    let mut items: Vec<Item> = decided.collect();
    items.extend([prepare(91), decide(210, vec![], vec![], HOUR_MS)]);
    // As an odd leader might: with actions of which the log says something.
    items.push(item(1, &[91, 92, 200, 210]));
    add(&*from, 1, items);
    for limit_bytes in [0, 400, usize::MAX] {
        let pages = exported(&*from, limit_bytes);
        assert_eq!(pages.len() == 1, limit_bytes == usize::MAX);
        let to = first_member(make);
        add(&*to, 1, vec![item(2, &[95])]);
        give(&*from, &*to, limit_bytes);
        assert_eq!(stored(&*to), stored(&*from), "{limit_bytes}");
        assert_eq!(exported(&*to, usize::MAX), exported(&*from, usize::MAX));
        add(&*to, 2, vec![decide(92, vec![], vec![], HOUR_MS)]);
        assert_eq!(stored(&*to), Some(checkpoint(1, &[91, 200, 210])));
    }
    // A snapshot without one leaves none.
    let without = first_member(make);
    let to = first_member(make);
    add(&*to, 1, vec![item(2, &[95])]);
    give(&*without, &*to, usize::MAX);
    assert_eq!(stored(&*to), None);
}
