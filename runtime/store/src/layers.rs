//! Changes that lie over tables: what is durable already and not in the tables yet, and what a set
//! of batches is about to change.
//!
//! A removed entry is kept as a mark as long as something below might be seen through it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::btree_map;
use std::iter::Peekable;
use std::mem::take;
use std::ops::{Bound, ControlFlow};

use crate::StoreError;
use crate::tables::{Range, Reads, Table, Visit, WHOLE, Writes};

/// Keys with their values; none for a key that was removed.
type Map = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Changes of the tables, the last one of each key.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    maps: [Map; Table::ALL.len()],
    bytes: usize,
}

impl Changes {
    /// The number of keys.
    pub(crate) fn entries(&self) -> usize {
        self.maps.iter().map(Map::len).sum()
    }

    /// Bytes of keys and values.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// All of them, by table and ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Table, &[u8], Option<&[u8]>)> {
        Table::ALL.into_iter().flat_map(|table| {
            let entries = self.maps[table.index()].iter();
            entries.map(move |(key, value)| (table, key.as_slice(), value.as_deref()))
        })
    }

    /// Sets the value of a key, or that it is removed.
    pub(crate) fn set(&mut self, table: Table, key: Vec<u8>, value: Option<Vec<u8>>) {
        let key_bytes = key.len();
        self.bytes += key_bytes + value.as_ref().map_or(0, Vec::len);
        if let Some(before) = self.maps[table.index()].insert(key, value) {
            self.bytes -= key_bytes + before.map_or(0, |value| value.len());
        }
    }

    /// Forgets a key, so that what is below can be seen again.
    fn forget(&mut self, table: Table, key: &[u8]) {
        if let Some(before) = self.maps[table.index()].remove(key) {
            self.bytes -= key.len() + before.map_or(0, |value| value.len());
        }
    }

    /// Takes over later changes. Of removed keys below which there is nothing, the `bare` ones, no
    /// mark is kept.
    pub(crate) fn take_over(&mut self, mut later: Self, bare: &[(Table, Vec<u8>)]) {
        for (table, key) in bare {
            later.forget(*table, key);
            self.forget(*table, key);
        }
        for table in Table::ALL {
            for (key, value) in take(&mut later.maps[table.index()]) {
                self.set(table, key, value);
            }
        }
    }
}

/// Changes over tables.
pub(crate) struct Over<'a, B> {
    pub(crate) top: &'a Changes,
    pub(crate) below: &'a B,
}

impl<B: Reads> Reads for Over<'_, B> {
    fn value(&self, table: Table, key: &[u8]) -> Result<Option<&[u8]>, StoreError> {
        value(self.top, self.below, table, key)
    }

    fn visit(
        &self,
        table: Table,
        range: Range<'_>,
        visitor: &mut dyn FnMut(&[u8], &[u8]) -> Visit,
    ) -> Result<(), StoreError> {
        visit(self.top, self.below, table, range, visitor)
    }
}

fn value<'v>(
    top: &'v Changes,
    below: &'v impl Reads,
    table: Table,
    key: &[u8],
) -> Result<Option<&'v [u8]>, StoreError> {
    match top.maps[table.index()].get(key) {
        Some(value) => Ok(value.as_deref()),
        None => below.value(table, key),
    }
}

fn visit(
    top: &Changes,
    below: &impl Reads,
    table: Table,
    range: Range<'_>,
    visitor: &mut dyn FnMut(&[u8], &[u8]) -> Visit,
) -> Result<(), StoreError> {
    let map = &top.maps[table.index()];
    if map.is_empty() || is_empty(range) {
        return below.visit(table, range, visitor);
    }
    let mut merge = Merge {
        ours: map.range::<[u8], _>(range).peekable(),
        visitor,
        broken: false,
    };
    below.visit(table, range, &mut |key, value| merge.entry(key, value))?;
    if merge.broken {
        return Ok(());
    }
    merge.ours_before(None).map(|_| ())
}

/// Whether no key can be in it; `BTreeMap` panics for some of these.
fn is_empty((from, to): Range<'_>) -> bool {
    match (from, to) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Excluded(to))
        | (Bound::Excluded(from), Bound::Included(to)) => from >= to,
    }
}

/// A visit of both.
struct Merge<'m, 'v> {
    ours: Peekable<btree_map::Range<'m, Vec<u8>, Option<Vec<u8>>>>,
    visitor: &'v mut dyn FnMut(&[u8], &[u8]) -> Visit,
    broken: bool,
}

impl Merge<'_, '_> {
    /// An entry from below: ours before it come first, and ours of its key instead.
    fn entry(&mut self, key: &[u8], value: &[u8]) -> Visit {
        if self.ours_before(Some(key))?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        match self.ours.next_if(|(ours, _)| ours.as_slice() == key) {
            Some((_, Some(value))) => self.tell(key, value),
            Some((_, None)) => Ok(ControlFlow::Continue(())),
            None => self.tell(key, value),
        }
    }

    /// Ours before this key, or all.
    fn ours_before(&mut self, end: Option<&[u8]>) -> Visit {
        let is_before = |key: &Vec<u8>| end.is_none_or(|end| key.as_slice() < end);
        while let Some((key, value)) = self.ours.next_if(|(key, _)| is_before(key)) {
            if let Some(value) = value
                && self.tell(key, value)?.is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn tell(&mut self, key: &[u8], value: &[u8]) -> Visit {
        let told = (self.visitor)(key, value)?;
        self.broken = told.is_break();
        Ok(told)
    }
}

/// What a set of batches changes, over what it reads.
pub(crate) struct Pending<'a, B> {
    pub(crate) changes: Changes,
    pub(crate) below: &'a B,
    pub(crate) floors: &'a Floors,
}

impl<B: Reads> Reads for Pending<'_, B> {
    fn value(&self, table: Table, key: &[u8]) -> Result<Option<&[u8]>, StoreError> {
        value(&self.changes, self.below, table, key)
    }

    fn visit(
        &self,
        table: Table,
        range: Range<'_>,
        visitor: &mut dyn FnMut(&[u8], &[u8]) -> Visit,
    ) -> Result<(), StoreError> {
        if range != WHOLE {
            return visit(&self.changes, self.below, table, range, visitor);
        }
        let floor = self.floors.get(table);
        let from = match &floor {
            Floor::Unknown => Bound::Unbounded,
            Floor::At(key) => Bound::Included(key.as_slice()),
            Floor::Nothing => return Ok(()),
        };
        let mut first = Floor::Nothing;
        let range = (from, Bound::Unbounded);
        visit(
            &self.changes,
            self.below,
            table,
            range,
            &mut |key, value| {
                if first == Floor::Nothing {
                    first = Floor::At(key.to_vec());
                }
                visitor(key, value)
            },
        )?;
        self.floors.set(table, first);
        Ok(())
    }
}

impl<B: Reads> Writes for Pending<'_, B> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.floors.lower(table, key);
        self.changes.set(table, key.to_vec(), Some(value.to_vec()));
        Ok(())
    }

    fn put_owned(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) -> Result<(), StoreError> {
        self.floors.lower(table, &key);
        self.changes.set(table, key, Some(value));
        Ok(())
    }

    fn remove(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        self.changes.set(table, key.to_vec(), None);
        Ok(())
    }
}

/// Where the first entry of each table may be. What expires is removed from the front of its
/// index, and without this every look at the front would walk over the marks of all that was
/// removed there.
#[derive(Debug, Default)]
pub(crate) struct Floors(RefCell<[Floor; Table::ALL.len()]>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Floor {
    /// Anywhere.
    #[default]
    Unknown,
    /// Here or later.
    At(Vec<u8>),
    /// The table is empty.
    Nothing,
}

impl Floors {
    fn get(&self, table: Table) -> Floor {
        self.0.borrow()[table.index()].clone()
    }

    fn set(&self, table: Table, floor: Floor) {
        self.0.borrow_mut()[table.index()] = floor;
    }

    fn lower(&self, table: Table, key: &[u8]) {
        let floor = &mut self.0.borrow_mut()[table.index()];
        let is_lower = match floor {
            Floor::Unknown => false,
            Floor::At(first) => key < first.as_slice(),
            Floor::Nothing => true,
        };
        if is_lower {
            *floor = Floor::At(key.to_vec());
        }
    }

    /// Something else than what was noted here came to be.
    pub(crate) fn forget(&self) {
        *self.0.borrow_mut() = Default::default();
    }
}

#[cfg(test)]
mod tests;
