//! What the shared code asks of a transaction: ordered tables of bytes.
//!
//! LMDB transactions and the maps of the memory store both offer this, so reading, checking and
//! applying are written once.

use std::ops::{Bound, ControlFlow};

use crate::StoreError;

/// The tables of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    /// Numbers about the store.
    Meta,
    /// Plain records and rows.
    State,
    /// Prepared records.
    Shadow,
    /// Saved replies.
    Reply,
    /// When saved replies expire.
    ReplyExpiry,
    /// Prepared changes of rows.
    ShadowRow,
    /// Actions prepared here.
    Prepared,
    /// Decisions whose participants are still to be told.
    Decision,
    /// Outcomes of actions whose participants all know.
    Outcome,
    /// When outcomes expire.
    OutcomeExpiry,
}

impl Table {
    /// All tables, in the order of [`Table::index`].
    pub(crate) const ALL: [Self; 10] = [
        Self::Meta,
        Self::State,
        Self::Shadow,
        Self::Reply,
        Self::ReplyExpiry,
        Self::ShadowRow,
        Self::Prepared,
        Self::Decision,
        Self::Outcome,
        Self::OutcomeExpiry,
    ];

    /// A number from 0.
    pub(crate) fn index(self) -> usize {
        self as usize
    }

    /// The name on disk.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::State => "state",
            Self::Shadow => "shadow",
            Self::Reply => "reply",
            Self::ReplyExpiry => "reply_expiry",
            Self::ShadowRow => "shadow_row",
            Self::Prepared => "prepared",
            Self::Decision => "decision",
            Self::Outcome => "outcome",
            Self::OutcomeExpiry => "outcome_expiry",
        }
    }
}

/// What a visitor of a range says after each entry.
pub(crate) type Visit = Result<ControlFlow<()>, StoreError>;

/// A consistent view of the tables.
pub(crate) trait Reads {
    /// The value under a key, header included.
    fn value(&self, table: Table, key: &[u8]) -> Result<Option<&[u8]>, StoreError>;

    /// Visits entries in ascending order of keys until there are no more or the visitor breaks.
    fn visit(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        visitor: &mut dyn FnMut(&[u8], &[u8]) -> Visit,
    ) -> Result<(), StoreError>;
}

/// A view that can be changed.
pub(crate) trait Writes: Reads {
    /// Writes a value.
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError>;

    /// Removes a value; an absent one is fine.
    fn remove(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError>;
}

/// All keys with this prefix, ascending.
pub(crate) fn keys_with_prefix(
    tables: &(impl Reads + ?Sized),
    table: Table,
    prefix: &[u8],
) -> Result<Vec<Vec<u8>>, StoreError> {
    let mut keys = Vec::new();
    tables.visit(table, Bound::Included(prefix), &mut |key, _| {
        if !key.starts_with(prefix) {
            return Ok(ControlFlow::Break(()));
        }
        keys.push(key.to_vec());
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(keys)
}
