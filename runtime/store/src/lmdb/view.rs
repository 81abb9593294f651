//! LMDB transactions as tables.

use std::ops::ControlFlow;

use heed::{AnyTls, MdbError, RoTxn, RwTxn};

use super::gate::{Rows, lmdb_error};
use crate::StoreError;
use crate::tables::{Range, Reads, Table, Visit, Writes};

/// A transaction to read in.
pub(super) struct View<'t> {
    pub(super) txn: &'t RoTxn<'t, AnyTls>,
    pub(super) tables: &'t [Rows],
}

/// A transaction to change in.
pub(super) struct Change<'t> {
    pub(super) txn: RwTxn<'t>,
    pub(super) tables: &'t [Rows],
    pub(super) map_bytes_max: usize,
}

/// The shape of all tables together.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trees {
    /// Pages with entries.
    pub(super) leaves: u64,
    /// Pages above them.
    pub(super) branches: u64,
    /// Branches above each leaf, at most.
    pub(super) levels: u64,
}

impl View<'_> {
    pub(super) fn trees(&self) -> Result<Trees, StoreError> {
        let mut trees = Trees::default();
        for table in self.tables {
            let shape = table.stat(self.txn);
            let shape =
                shape.map_err(|error| lmdb_error("cannot look at the store's tables", &error))?;
            trees.leaves += shape.leaf_pages as u64;
            trees.branches += shape.branch_pages as u64;
            trees.levels = trees.levels.max(u64::from(shape.depth).saturating_sub(1));
        }
        Ok(trees)
    }
}

impl Reads for View<'_> {
    fn value(&self, table: Table, key: &[u8]) -> Result<Option<&[u8]>, StoreError> {
        value(self.txn, &self.tables[table.index()], key)
    }

    fn visit(
        &self,
        table: Table,
        range: Range<'_>,
        visitor: &mut dyn FnMut(&[u8], &[u8]) -> Visit,
    ) -> Result<(), StoreError> {
        visit(self.txn, &self.tables[table.index()], range, visitor)
    }
}

impl Reads for Change<'_> {
    fn value(&self, table: Table, key: &[u8]) -> Result<Option<&[u8]>, StoreError> {
        value(&self.txn, &self.tables[table.index()], key)
    }

    fn visit(
        &self,
        table: Table,
        range: Range<'_>,
        visitor: &mut dyn FnMut(&[u8], &[u8]) -> Visit,
    ) -> Result<(), StoreError> {
        visit(&self.txn, &self.tables[table.index()], range, visitor)
    }
}

impl Writes for Change<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let put = self.tables[table.index()].put(&mut self.txn, key, value);
        put.map_err(|error| self.write_error(&error))
    }

    fn remove(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        let removed = self.tables[table.index()].delete(&mut self.txn, key);
        removed
            .map(|_| ())
            .map_err(|error| self.write_error(&error))
    }
}

impl Change<'_> {
    fn write_error(&self, error: &heed::Error) -> StoreError {
        if let heed::Error::Mdb(MdbError::MapFull) = error {
            return StoreError::MapFull {
                map_bytes_max: self.map_bytes_max,
            };
        }
        lmdb_error("cannot write to the store", error)
    }
}

fn value<'t>(
    txn: &'t RoTxn<'_, AnyTls>,
    table: &Rows,
    key: &[u8],
) -> Result<Option<&'t [u8]>, StoreError> {
    table
        .get(txn, key)
        .map_err(|error| lmdb_error("cannot read from the store", &error))
}

fn visit(
    txn: &RoTxn<'_, AnyTls>,
    table: &Rows,
    range: Range<'_>,
    visitor: &mut dyn FnMut(&[u8], &[u8]) -> Visit,
) -> Result<(), StoreError> {
    let fail = |error: heed::Error| lmdb_error("cannot read from the store", &error);
    for entry in table.range(txn, &range).map_err(fail)? {
        let (key, value) = entry.map_err(fail)?;
        if visitor(key, value)? == ControlFlow::Break(()) {
            break;
        }
    }
    Ok(())
}
