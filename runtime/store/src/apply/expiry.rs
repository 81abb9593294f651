//! Removing what was kept for its time: saved replies and outcomes of actions; and, in the same
//! steps, the rows of objects that have left ([`super::place`]).
//!
//! Replies and outcomes have an index sorted by expiry time. An entry of the index says where to
//! look, never what to remove: what is there tells its own time, so an entry left behind by an
//! earlier one that was replaced does no harm.

use std::ops::ControlFlow;

use super::{Journal, Sweep, place};
use crate::StoreError;
use crate::format;
use crate::tables::{Reads, Table, WHOLE, Writes};

/// How many were removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Expired {
    pub(crate) replies: u64,
    pub(crate) outcomes: u64,
    /// Rows of objects that are not here.
    pub(crate) rows: u64,
    /// There may be more to remove.
    pub(crate) more: bool,
}

impl Expired {
    /// Both together.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            replies: self.replies + other.replies,
            outcomes: self.outcomes + other.outcomes,
            rows: self.rows + other.rows,
            more: self.more || other.more,
        }
    }
}

type Split = fn(&[u8]) -> Option<(u64, &[u8])>;

/// One kind of thing that expires.
struct Index {
    table: Table,
    expiry: Table,
    /// Expiry time and key of the thing.
    split: Split,
    /// The time that the thing itself tells.
    expires_ms: fn(&[u8], &[u8]) -> Result<u64, StoreError>,
}

const REPLIES: Index = Index {
    table: Table::Reply,
    expiry: Table::ReplyExpiry,
    split: format::split_expiry_key,
    expires_ms: |key, value| format::unseal_reply(key, value).map(|(_, at, _)| at),
};

const GROUP_OUTCOMES: Index = Index {
    table: Table::GroupOutcome,
    expiry: Table::GroupOutcomeExpiry,
    split: format::split_group_outcome_expiry_key,
    expires_ms: |key, value| format::unseal_group_outcome(key, value).map(|(at, _)| at),
};

const OUTCOMES: Index = Index {
    table: Table::Outcome,
    expiry: Table::OutcomeExpiry,
    split: format::split_outcome_expiry_key,
    expires_ms: format::unseal_outcome,
};

/// Removes replies and outcomes whose time is over and rows that nobody has, up to the limit of
/// each.
pub(super) fn remove<W: Writes>(
    journal: &mut Journal<'_, W>,
    sweep: Sweep,
) -> Result<Expired, StoreError> {
    let (replies, more_replies) = remove_due(journal, &REPLIES, sweep)?;
    let (outcomes, more_outcomes) = remove_due(journal, &OUTCOMES, sweep)?;
    let (of_groups, more_of_groups) = remove_due(journal, &GROUP_OUTCOMES, sweep)?;
    let (rows, more_rows) = place::clear_some(journal, sweep.limit)?;
    Ok(Expired {
        replies,
        outcomes: outcomes + of_groups,
        rows,
        more: more_replies || more_outcomes || more_of_groups || more_rows,
    })
}

/// How many were removed, and whether the limit was reached. Something damaged stays, so that
/// asking for it goes on to be an error instead of "never heard of that".
fn remove_due<W: Writes>(
    journal: &mut Journal<'_, W>,
    index: &Index,
    sweep: Sweep,
) -> Result<(u64, bool), StoreError> {
    let mut due = Vec::new();
    journal.tables.visit(index.expiry, WHOLE, &mut |key, _| {
        let is_due = (index.split)(key).is_none_or(|(at, _)| at <= sweep.now_ms);
        if due.len() == sweep.limit || !is_due {
            return Ok(ControlFlow::Break(()));
        }
        due.push(key.to_vec());
        Ok(ControlFlow::Continue(()))
    })?;
    let more = due.len() == sweep.limit;
    let mut removed = 0;
    for entry in due {
        if let Some((expiry_ms, key)) = (index.split)(&entry) {
            let stored = journal.tables.value(index.table, key)?;
            match stored.map(|value| (index.expires_ms)(key, value)) {
                Some(Ok(at)) if at == expiry_ms => {
                    journal.remove(index.table, key)?;
                    removed += 1;
                }
                Some(Ok(_)) | None => {}
                Some(Err(error)) => tracing::warn!(%error, "what has expired is left alone"),
            }
        }
        journal.remove(index.expiry, &entry)?;
    }
    Ok((removed, more))
}

/// When the next reply or outcome expires; at once if there are rows to remove.
pub(super) fn next_ms(tables: &impl Reads) -> Result<Option<u64>, StoreError> {
    if place::has_leftovers(tables)? {
        return Ok(Some(0));
    }
    let mut next: Option<u64> = None;
    for index in [REPLIES, OUTCOMES, GROUP_OUTCOMES] {
        tables.visit(index.expiry, WHOLE, &mut |key, _| {
            let at = (index.split)(key).map_or(0, |(at, _)| at);
            next = Some(next.map_or(at, |next| next.min(at)));
            Ok(ControlFlow::Break(()))
        })?;
    }
    Ok(next)
}
