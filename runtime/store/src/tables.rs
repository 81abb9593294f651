//! What the shared code asks of a transaction: ordered tables of bytes.
//!
//! LMDB transactions and the maps of the memory store both offer this, so reading, checking and
//! applying are written once.

use std::ops::{Bound, ControlFlow};

use crate::StoreError;

/// The tables of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
    /// Where objects are that have moved.
    Place,
    /// Places of objects that are on their way here.
    ShadowPlace,
    /// Objects that have come here and of which the binder is to be told.
    Untold,
    /// Objects that are not here and of which there are rows to remove.
    Leftover,
    /// Copies of groups.
    Group,
    /// Entries of groups' logs that are not installed.
    GroupLog,
    /// What actions have prepared at replicated objects.
    GroupPart,
    /// Decisions in groups' logs of which somebody is still to be told.
    GroupDecision,
    /// Decisions in groups' logs of which all know.
    GroupOutcome,
    /// When those expire.
    GroupOutcomeExpiry,
    /// What running actions have of replicated objects.
    GroupCheckpoint,
}

impl Table {
    /// All tables, in the order of [`Table::index`].
    pub(crate) const ALL: [Self; 21] = [
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
        Self::Place,
        Self::ShadowPlace,
        Self::Untold,
        Self::Leftover,
        Self::Group,
        Self::GroupLog,
        Self::GroupPart,
        Self::GroupDecision,
        Self::GroupOutcome,
        Self::GroupOutcomeExpiry,
        Self::GroupCheckpoint,
    ];

    /// So many of [`Table::ALL`] are in stores of formats 1, of 2 and 3, and of this one.
    pub(crate) const OF_FORMATS: [usize; 3] = [5, 10, Self::ALL.len()];

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
            Self::Place => "place",
            Self::ShadowPlace => "shadow_place",
            Self::Untold => "untold",
            Self::Leftover => "leftover",
            Self::Group => "group",
            Self::GroupLog => "group_log",
            Self::GroupPart => "group_part",
            Self::GroupDecision => "group_decision",
            Self::GroupOutcome => "group_outcome",
            Self::GroupOutcomeExpiry => "group_outcome_expiry",
            Self::GroupCheckpoint => "group_checkpoint",
        }
    }
}

/// A range of keys.
pub(crate) type Range<'k> = (Bound<&'k [u8]>, Bound<&'k [u8]>);

/// All keys of a table.
pub(crate) const WHOLE: Range<'static> = (Bound::Unbounded, Bound::Unbounded);

/// What a visitor of a range says after each entry.
pub(crate) type Visit = Result<ControlFlow<()>, StoreError>;

/// A consistent view of the tables.
pub(crate) trait Reads {
    /// The value under a key, header included.
    fn value(&self, table: Table, key: &[u8]) -> Result<Option<&[u8]>, StoreError>;

    /// Visits the entries of a range in ascending order of keys until there are no more or the
    /// visitor breaks. Whoever knows where the range ends says so: what was removed behind it is
    /// not looked at then.
    fn visit(
        &self,
        table: Table,
        range: Range<'_>,
        visitor: &mut dyn FnMut(&[u8], &[u8]) -> Visit,
    ) -> Result<(), StoreError>;
}

/// A view that can be changed.
pub(crate) trait Writes: Reads {
    /// Writes a value.
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError>;

    /// Removes a value; an absent one is fine.
    fn remove(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError>;

    /// As [`Writes::put`], without a copy where that can be.
    fn put_owned(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) -> Result<(), StoreError> {
        self.put(table, &key, &value)
    }
}

/// All keys with this prefix, ascending.
pub(crate) fn keys_with_prefix(
    tables: &(impl Reads + ?Sized),
    table: Table,
    prefix: &[u8],
) -> Result<Vec<Vec<u8>>, StoreError> {
    let mut keys = Vec::new();
    let end = prefix_end(prefix);
    let range = (Bound::Included(prefix), below(end.as_deref()));
    tables.visit(table, range, &mut |key, _| {
        keys.push(key.to_vec());
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(keys)
}

/// The first key behind all that start with `prefix`; none if there is no such key.
pub(crate) fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

/// The end of a range before `end`, or of one without an end.
pub(crate) fn below(end: Option<&[u8]>) -> Bound<&[u8]> {
    end.map_or(Bound::Unbounded, Bound::Excluded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_one() {
        assert_eq!(prefix_end(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(prefix_end(&[1, 255]), Some(vec![2]));
        assert_eq!(prefix_end(&[255, 255]), None);
        assert_eq!(prefix_end(&[]), None);
    }
}
