//! Reading what is about groups of copies.

use std::ops::{Bound, ControlFlow};

use bytes::Bytes;
use partha_core::group::Stamp;
use partha_core::id::Uid;

use super::{read_state, visit_actions};
use crate::StoreError;
use crate::format::{self, GroupCopy, Has, Kind};
use crate::group::{GroupRecord, GroupState};
use crate::tables::{Reads, Table, below, prefix_end};

/// See [`crate::ObjectStore::read_group`].
pub(crate) fn read_group(tables: &impl Reads, uid: Uid) -> Result<Option<GroupRecord>, StoreError> {
    let Some(GroupCopy { view, has }) = read_copy(tables, uid)? else {
        return Ok(None);
    };
    let (has_state, installed) = match has {
        Has::State(installed) => (true, installed),
        Has::Nothing | Has::Pages { .. } => (false, Stamp::default()),
    };
    let mut staged: Vec<Stamp> = Vec::new();
    let prefix = uid.to_bytes();
    let end = prefix_end(&prefix);
    let range = (Bound::Included(&prefix[..]), below(end.as_deref()));
    tables.visit(Table::GroupLog, range, &mut |key, value| {
        format::unseal(Kind::GroupEntry, key, value)?;
        let stamp = format::entry_stamp(key)?;
        let last = staged.last().copied().unwrap_or(installed);
        if last.index.checked_add(1) != Some(stamp.index) || stamp.view < last.view {
            let found = format!("entry {stamp:?} behind {last:?}");
            return Err(format::corrupt(Kind::GroupEntry, key, found));
        }
        staged.push(stamp);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(Some(GroupRecord {
        view,
        installed,
        has_state,
        staged,
    }))
}

fn read_copy(tables: &impl Reads, uid: Uid) -> Result<Option<GroupCopy>, StoreError> {
    let key = uid.to_bytes();
    let value = tables.value(Table::Group, &key)?;
    let unseal = |value| format::unseal_copy(&key, value);
    value.map(unseal).transpose()
}

/// See [`crate::ObjectStore::scan_groups`].
pub(crate) fn scan_groups(
    tables: &impl Reads,
    after: Option<Uid>,
    limit: usize,
) -> Result<Vec<Uid>, StoreError> {
    let mut found = Vec::new();
    visit_actions(tables, Table::Group, after, limit, &mut |key, _| {
        found.push(format::leading_uid(Kind::GroupCopy, key)?);
        Ok(())
    })?;
    Ok(found)
}

/// See [`crate::ObjectStore::read_entry`].
pub(crate) fn read_entry(
    tables: &impl Reads,
    uid: Uid,
    index: u64,
) -> Result<Option<Bytes>, StoreError> {
    let mut found = None;
    let start = format::entry_prefix(uid, index);
    let end = prefix_end(&start);
    let range = (Bound::Included(&start[..]), below(end.as_deref()));
    tables.visit(Table::GroupLog, range, &mut |key, value| {
        let bytes = format::unseal(Kind::GroupEntry, key, value)?;
        found = Some(Bytes::copy_from_slice(bytes));
        Ok(ControlFlow::Break(()))
    })?;
    Ok(found)
}

/// See [`crate::ObjectStore::group_state`].
pub(crate) fn group_state(tables: &impl Reads, uid: Uid) -> Result<Option<GroupState>, StoreError> {
    match read_copy(tables, uid)?.map(|copy| copy.has) {
        Some(Has::State(at)) => {
            let record = read_state(tables, uid)?;
            Ok(Some(GroupState { at, record }))
        }
        Some(Has::Nothing | Has::Pages { .. }) | None => Ok(None),
    }
}
