//! Layers against a flat map that is changed by the same steps.

use std::cell::Cell;

use super::*;

/// The lowest tables.
#[derive(Default)]
struct Base(BTreeMap<Vec<u8>, Vec<u8>>);

impl Reads for Base {
    fn value(&self, table: Table, key: &[u8]) -> Result<Option<&[u8]>, StoreError> {
        assert_eq!(table, Table::Reply);
        Ok(self.0.get(key).map(Vec::as_slice))
    }

    fn visit(
        &self,
        _table: Table,
        range: Range<'_>,
        visitor: &mut dyn FnMut(&[u8], &[u8]) -> Visit,
    ) -> Result<(), StoreError> {
        if is_empty(range) {
            return Ok(());
        }
        for (key, value) in self.0.range::<[u8], _>(range) {
            if visitor(key, value)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn key(&mut self) -> Vec<u8> {
        (0..=self.below(2)).map(|_| self.below(5) as u8).collect()
    }

    fn bound(&mut self) -> Bound<Vec<u8>> {
        match self.below(3) {
            0 => Bound::Unbounded,
            1 => Bound::Included(self.key()),
            _ => Bound::Excluded(self.key()),
        }
    }
}

fn borrowed(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}

/// Entries of a range, at most so many.
fn entries(tables: &impl Reads, range: Range<'_>, limit: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    let visited = tables.visit(Table::Reply, range, &mut |key, value| {
        found.push((key.to_vec(), value.to_vec()));
        Ok(match found.len() < limit {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        })
    });
    visited.unwrap();
    found
}

/// Looks at some of it, and compares.
fn check(tables: &impl Reads, flat: &BTreeMap<Vec<u8>, Vec<u8>>, random: &mut Random, round: u32) {
    let (from, to) = (random.bound(), random.bound());
    let range = (borrowed(&from), borrowed(&to));
    let limit = match random.below(2) {
        0 => 99,
        _ => 1 + random.below(6) as usize,
    };
    let expected: Vec<_> = match is_empty(range) {
        true => Vec::new(),
        false => {
            let all = flat.range::<[u8], _>(range);
            all.map(|(k, v)| (k.clone(), v.clone()))
                .take(limit)
                .collect()
        }
    };
    assert_eq!(entries(tables, range, limit), expected, "round {round}");
    let first = flat.iter().next().map(|(k, v)| (k.clone(), v.clone()));
    let found = entries(tables, WHOLE, 1).pop();
    assert_eq!(found, first, "round {round}");
    let key = random.key();
    let found = tables.value(Table::Reply, &key).unwrap();
    assert_eq!(found, flat.get(&key).map(Vec::as_slice), "round {round}");
}

#[test]
fn what_is_seen_through_all_layers_is_what_was_done_last() {
    let mut random = Random(77);
    for round in 0..300_u32 {
        let mut base = Base::default();
        let mut flat = BTreeMap::new();
        for _ in 0..random.below(12) {
            let (key, value) = (random.key(), vec![0]);
            flat.insert(key.clone(), value.clone());
            base.0.insert(key, value);
        }
        let (mut frozen, mut current) = (Changes::default(), Changes::default());
        let floors = Floors::default();
        for step in 1..=40_u8 {
            let lower = Over {
                top: &frozen,
                below: &base,
            };
            let below = Over {
                top: &current,
                below: &lower,
            };
            let mut pending = Pending {
                changes: Changes::default(),
                below: &below,
                floors: &floors,
            };
            for _ in 0..random.below(4) {
                let key = random.key();
                if random.below(2) == 0 {
                    pending.put(Table::Reply, &key, &[step]).unwrap();
                    flat.insert(key, vec![step]);
                } else {
                    pending.remove(Table::Reply, &key).unwrap();
                    flat.remove(&key);
                }
            }
            check(&pending, &flat, &mut random, round);
            let changes = pending.changes;
            let is_bare = |key: &[u8]| lower.value(Table::Reply, key).unwrap().is_none();
            let bare: Vec<_> = changes
                .iter()
                .filter(|(_, key, value)| value.is_none() && is_bare(key))
                .map(|(table, key, _)| (table, key.to_vec()))
                .collect();
            current.take_over(changes, &bare);
            let bytes = current
                .iter()
                .map(|(_, k, v)| k.len() + v.map_or(0, <[u8]>::len));
            assert_eq!(current.bytes(), bytes.sum::<usize>());
            if random.below(10) == 0 {
                for (_, key, value) in frozen.iter() {
                    match value {
                        Some(value) => drop(base.0.insert(key.to_vec(), value.to_vec())),
                        None => drop(base.0.remove(key)),
                    }
                }
                frozen = take(&mut current);
            }
        }
    }
}

#[test]
fn what_comes_and_goes_leaves_no_mark() {
    let mut current = Changes::default();
    current.set(Table::Reply, vec![1], Some(vec![2; 10]));
    assert_eq!((current.entries(), current.bytes()), (1, 11));
    let mut later = Changes::default();
    later.set(Table::Reply, vec![1], None);
    current.take_over(later, &[(Table::Reply, vec![1])]);
    assert_eq!((current.entries(), current.bytes()), (0, 0));
}

/// Looks that are bounded by a range do not walk over what was removed behind it, and looks from
/// the front do so once.
#[test]
fn marks_at_the_front_are_walked_over_once() {
    struct Counting(Cell<usize>);
    impl Reads for Counting {
        fn value(&self, _: Table, _: &[u8]) -> Result<Option<&[u8]>, StoreError> {
            Ok(None)
        }
        fn visit(
            &self,
            _: Table,
            (from, _): Range<'_>,
            visitor: &mut dyn FnMut(&[u8], &[u8]) -> Visit,
        ) -> Result<(), StoreError> {
            let from = match from {
                Bound::Included(key) => key[0],
                Bound::Excluded(_) | Bound::Unbounded => 0,
            };
            for key in from..=255 {
                self.0.set(self.0.get() + 1);
                if visitor(&[key], &[])?.is_break() {
                    break;
                }
            }
            Ok(())
        }
    }
    let base = Counting(Cell::new(0));
    let floors = Floors::default();
    let mut pending = Pending {
        changes: Changes::default(),
        below: &base,
        floors: &floors,
    };
    for key in 0..200 {
        pending.remove(Table::ReplyExpiry, &[key]).unwrap();
    }
    let first = |pending: &Pending<'_, Counting>| {
        let mut first = 0;
        let visited = pending.visit(Table::ReplyExpiry, WHOLE, &mut |key, _| {
            first = key[0];
            Ok(ControlFlow::Break(()))
        });
        visited.unwrap();
        first
    };
    assert_eq!((first(&pending), base.0.replace(0)), (200, 201));
    assert_eq!((first(&pending), base.0.replace(0)), (200, 1));
    pending.put(Table::ReplyExpiry, &[7], &[]).unwrap();
    assert_eq!(first(&pending), 7);
    floors.forget();
    base.0.set(0);
    assert_eq!(first(&pending), 7);
}
