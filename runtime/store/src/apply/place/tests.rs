//! Rows that are removed in steps, and marks that are wrong.

use bytes::Bytes;
use partha_core::action::path::Site;
use partha_core::id::{ClassId, Epoch, Incarnation, NodeId};

use super::*;
use crate::apply::{Applied, Sweep, run};
use crate::batch::{Batch, Item};
use crate::fence::Fences;
use crate::memory::Maps;
use crate::moving::Arrival;
use crate::place::Row;
use crate::store::Record;

const UID: Uid = uid(1);

const fn uid(local: u64) -> Uid {
    let node = NodeId(7);
    Uid { node, local }
}

fn record() -> Record {
    Record {
        class: ClassId(1),
        schema: 1,
        version: 1,
        epoch: Epoch(1),
        state: Bytes::new(),
    }
}

struct Store {
    tables: Maps,
    fences: Fences,
}

impl Store {
    fn new() -> Self {
        Self {
            tables: Maps::default(),
            fences: Fences::new(Incarnation(1)),
        }
    }

    fn step(&mut self, batches: &[Batch], limit: usize) -> Applied {
        let sweep = Sweep { now_ms: 5, limit };
        run(&mut self.tables, batches, &self.fences, sweep).unwrap()
    }

    fn commit(&mut self, batch: impl Into<Batch>) -> Result<(), StoreError> {
        self.step(&[batch.into()], 0).results.remove(0)
    }

    fn keys(&self, table: Table) -> Vec<Vec<u8>> {
        keys_with_prefix(&self.tables, table, &[]).unwrap()
    }

    /// An object with so many rows, which it had when it came here.
    fn with_rows(local: u64, count: u32) -> Self {
        let mut store = Self::new();
        let rows = (0..count).map(|i| Row {
            part: 1,
            key: Bytes::copy_from_slice(&i.to_be_bytes()),
            value: Bytes::new(),
        });
        let comes = Arrival {
            action: uid(90),
            coordinator: Site::default(),
            uid: uid(local),
            moves: 1,
        };
        store.commit(comes.begin(record())).unwrap();
        store.commit(comes.page(rows, [])).unwrap();
        store
            .commit(Item::CommitShadow { action: uid(90) })
            .unwrap();
        store
    }
}

const MANY: u32 = 5 * CLEAR_AT_ONCE as u32;

#[test]
fn rows_are_removed_in_steps_that_go_on_where_the_last_one_ended() {
    let mut store = Store::with_rows(1, MANY);
    let neighbour = Item::Create {
        uid: uid(2),
        record: record(),
    };
    store.commit(neighbour).unwrap();
    store.commit(Item::Delete { uid: UID }).unwrap();
    let all = store.keys(Table::State);
    assert_eq!(all.len() as u32, MANY + 1);
    let (mut left, mut steps) = (MANY as usize, 0);
    while left > 0 {
        let applied = store.step(&[], 1000);
        assert_eq!(applied.expired.rows as usize, left.min(1000));
        left -= applied.expired.rows as usize;
        assert_eq!(applied.expired.more, left > 0);
        assert_eq!(applied.next_expiry_ms, (left > 0).then_some(0));
        assert_eq!(store.keys(Table::State).len(), left + 1);
        steps += 1;
        if left > 0 {
            let (mark, last) = first_mark(&store.tables).unwrap().unwrap();
            assert_eq!(mark, UID.to_bytes());
            assert_eq!(last.unwrap(), all[MANY as usize - left - 1]);
        }
        assert!(steps <= 6);
    }
    let last = store.step(&[], 1000);
    assert_eq!((last.expired.rows, last.next_expiry_ms), (0, None));
    assert_eq!(store.keys(Table::Leftover).len(), 0);
    assert_eq!(store.keys(Table::State), [format::plain_key(uid(2))]);
}

#[test]
fn few_rows_go_with_their_object() {
    let mut store = Store::with_rows(1, CLEAR_AT_ONCE as u32);
    store.commit(Item::Delete { uid: UID }).unwrap();
    assert_eq!(store.keys(Table::State).len(), 0);
    let mut store = Store::with_rows(1, CLEAR_AT_ONCE as u32 + 1);
    store.commit(Item::Delete { uid: UID }).unwrap();
    assert_eq!(store.keys(Table::State).len(), CLEAR_AT_ONCE + 1);
    assert_eq!(store.keys(Table::Leftover), [UID.to_bytes()]);
}

/// A mark may outlive the rows by one step: it must not take those of the object that comes back.
#[test]
fn a_mark_that_is_left_is_not_that_of_an_object_that_comes() {
    for comes_by_move in [true, false] {
        let mut store = Store::with_rows(1, MANY);
        store.commit(Item::Delete { uid: UID }).unwrap();
        assert!(store.step(&[], MANY as usize).expired.more);
        assert_eq!(store.keys(Table::State).len(), 0);
        assert_eq!(store.keys(Table::Leftover).len(), 1);
        let comes = Arrival {
            action: uid(91),
            coordinator: Site::default(),
            uid: UID,
            moves: 2,
        };
        let row = Row {
            part: 9,
            key: Bytes::from_static(b"behind the last one"),
            value: Bytes::new(),
        };
        if comes_by_move {
            store.commit(comes.begin(record())).unwrap();
            store.commit(comes.page([row], [])).unwrap();
        } else {
            let create = Item::Create {
                uid: UID,
                record: record(),
            };
            store.commit(create).unwrap();
        }
        let before = store.keys(Table::State);
        assert_eq!(store.step(&[], 100).expired.rows, 0);
        assert_eq!(store.keys(Table::State), before);
        assert_eq!(store.keys(Table::Leftover).len(), 0);
    }
}

/// What a mark says is not believed: rows of an object that is here stay, and rows without a mark
/// keep their object out.
#[test]
fn a_wrong_mark_does_no_harm() {
    let mut store = Store::with_rows(1, 10);
    let sealed = format::seal(Kind::Leftover, &UID.to_bytes(), &[], &[]).unwrap();
    let mark = |store: &mut Store, key: &[u8], value: &[u8]| {
        store.tables.put(Table::Leftover, key, value).unwrap();
    };
    mark(&mut store, &UID.to_bytes(), &sealed);
    assert_eq!(store.step(&[], 100).expired.rows, 0);
    assert_eq!(store.keys(Table::State).len(), 11);
    assert_eq!(store.keys(Table::Leftover).len(), 0, "the mark goes");

    // A damaged one only costs a walk from the first row on.
    store.commit(Item::Delete { uid: UID }).unwrap();
    let mut store = Store::with_rows(1, MANY);
    store.commit(Item::Delete { uid: UID }).unwrap();
    store.step(&[], 1000);
    let damaged = store.tables.value(Table::Leftover, &UID.to_bytes());
    let mut damaged = damaged.unwrap().unwrap().to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    mark(&mut store, &UID.to_bytes(), &damaged);
    assert_eq!(store.step(&[], 10_000).expired.rows, u64::from(MANY) - 1000);
    assert_eq!(store.keys(Table::State).len(), 0);

    // One that is lost leaves an error, not a wrong answer.
    let mut store = Store::with_rows(1, MANY);
    store.commit(Item::Delete { uid: UID }).unwrap();
    store
        .tables
        .remove(Table::Leftover, &UID.to_bytes())
        .unwrap();
    let create = Item::Create {
        uid: UID,
        record: record(),
    };
    let refused = store.commit(create);
    assert!(
        matches!(refused, Err(StoreError::Clearing { .. })),
        "{refused:?}"
    );
    // One with a short key is no object's, and holds nobody up.
    let mut store = Store::with_rows(1, MANY);
    store.commit(Item::Delete { uid: UID }).unwrap();
    mark(&mut store, &[0], &sealed);
    assert_eq!(store.step(&[], 10_000).expired.rows, u64::from(MANY));
    assert_eq!(store.keys(Table::Leftover).len(), 0);
}

#[test]
fn more_prepared_rows_than_can_be_installed_are_refused() {
    let mut store = Store::new();
    let action = uid(90);
    let row = |key: u8| Item::ShadowRow {
        action,
        uid: UID,
        part: 1,
        key: Bytes::copy_from_slice(&[key]),
        value: None,
    };
    let begin = Item::CreateShadow {
        action,
        uid: UID,
        record: record(),
    };
    store.commit(begin).unwrap();
    // As if there were as many before.
    let key = format::shadow_row_key(action, UID, (1 << 20) - 2);
    let change = ShadowRow {
        part: 1,
        row: b"before",
        value: None,
    };
    let value = format::seal_shadow_row(&key, change).unwrap();
    store.tables.put(Table::ShadowRow, &key, &value).unwrap();
    store.commit(row(1)).unwrap();
    for batch in [vec![row(2)], vec![row(2), row(3)]] {
        let refused = store.commit(Batch::new(batch));
        assert!(
            matches!(refused, Err(StoreError::TooManyRows { max, .. }) if max == 1 << 20),
            "{refused:?}"
        );
    }
    assert_eq!(store.keys(Table::ShadowRow).len(), 2);
}
