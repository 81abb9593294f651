//! Reading, over any [`Reads`]: every value is checked on its way out.

mod group;
mod place;

use std::ops::{Bound, ControlFlow};

use bytes::Bytes;
use partha_core::id::{CallId, ClassId, Uid};

pub(crate) use self::group::{
    export_actions, group_state, read_checkpoint, read_entry, read_group, read_group_decision,
    read_part, scan_groups, unsettled,
};
pub(crate) use self::place::{
    ReplyWalk, export_rows, kept_replies, read_place, replies_of, reply_names, scan_places,
    scan_untold,
};
use crate::StoreError;
use crate::format::{self, Kind};
use crate::store::{Decision, Prepared, Record, SavedReply, check_row};
use crate::tables::{Reads, Table, below, keys_with_prefix, prefix_end};

/// The caller at the start of a call id: node and incarnation.
const CALLER_BYTES: usize = 12;

/// See [`crate::ObjectStore::read_state`].
pub(crate) fn read_state(tables: &impl Reads, uid: Uid) -> Result<Option<Record>, StoreError> {
    let key = format::plain_key(uid);
    record(tables, Table::State, Kind::State, &key)
}

/// See [`crate::ObjectStore::read_shadow`].
pub(crate) fn read_shadow(
    tables: &impl Reads,
    action: Uid,
    uid: Uid,
) -> Result<Option<Record>, StoreError> {
    record(
        tables,
        Table::Shadow,
        Kind::Shadow,
        &format::shadow_key(action, uid),
    )
}

fn record(
    tables: &impl Reads,
    table: Table,
    kind: Kind,
    key: &[u8],
) -> Result<Option<Record>, StoreError> {
    let Some(value) = tables.value(table, key)? else {
        return Ok(None);
    };
    let (head, state) = format::unseal_record(kind, key, value)?;
    Ok(Some(head.with_state(state)))
}

/// See [`crate::ObjectStore::read_row`].
pub(crate) fn read_row(
    tables: &impl Reads,
    uid: Uid,
    part: u16,
    row: &[u8],
) -> Result<Option<Bytes>, StoreError> {
    check_row(uid, part, row)?;
    let key = format::row_key(uid, part, row);
    let Some(value) = tables.value(Table::State, &key)? else {
        return Ok(None);
    };
    let row = Bytes::copy_from_slice(format::unseal(Kind::Row, &key, value)?);
    Ok(is_here(tables, uid)?.then_some(row))
}

/// Whether rows of an object are to be seen: not before it came, nor after it left.
fn is_here(tables: &impl Reads, uid: Uid) -> Result<bool, StoreError> {
    let plain = tables.value(Table::State, &format::plain_key(uid))?;
    Ok(plain.is_some())
}

/// See [`crate::ObjectStore::scan_rows`].
pub(crate) fn scan_rows(
    tables: &impl Reads,
    uid: Uid,
    part: u16,
    after: Option<&[u8]>,
    limit: usize,
) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
    check_row(uid, part, after.unwrap_or_default())?;
    let mut rows = Vec::new();
    visit_part(tables, uid, part, after, &mut |key, value| {
        if rows.len() == limit {
            return Ok(ControlFlow::Break(()));
        }
        let payload = format::unseal(Kind::Row, key, value)?;
        let row = Bytes::copy_from_slice(&key[format::OBJECT_KEY_BYTES..]);
        rows.push((row, Bytes::copy_from_slice(payload)));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(rows)
}

/// See [`crate::ObjectStore::count_rows`].
pub(crate) fn count_rows(tables: &impl Reads, uid: Uid, part: u16) -> Result<u64, StoreError> {
    check_row(uid, part, &[])?;
    let mut count = 0;
    visit_part(tables, uid, part, None, &mut |_, _| {
        count += 1;
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(count)
}

fn visit_part(
    tables: &impl Reads,
    uid: Uid,
    part: u16,
    after: Option<&[u8]>,
    visitor: &mut dyn FnMut(&[u8], &[u8]) -> crate::tables::Visit,
) -> Result<(), StoreError> {
    if !is_here(tables, uid)? {
        return Ok(());
    }
    let prefix = format::object_key(uid, part);
    let after = after.map(|row| format::row_key(uid, part, row));
    let from = after.as_ref().map_or(Bound::Included(&prefix[..]), |key| {
        Bound::Excluded(&key[..])
    });
    let end = prefix_end(&prefix);
    tables.visit(Table::State, (from, below(end.as_deref())), visitor)
}

/// See [`crate::ObjectStore::read_reply`].
pub(crate) fn read_reply(
    tables: &impl Reads,
    call: CallId,
) -> Result<Option<SavedReply>, StoreError> {
    let key = call.to_bytes();
    let Some(value) = tables.value(Table::Reply, &key)? else {
        return Ok(None);
    };
    let (uid, _, body) = format::unseal_reply(&key, value)?;
    Ok(Some(SavedReply {
        uid,
        body: Bytes::copy_from_slice(body),
    }))
}

/// See [`crate::ObjectStore::has_reply_since`].
pub(crate) fn has_reply_since(tables: &impl Reads, call: CallId) -> Result<bool, StoreError> {
    let key = call.to_bytes();
    let mut found = false;
    let end = prefix_end(&key[..CALLER_BYTES]);
    let range = (Bound::Included(&key[..]), below(end.as_deref()));
    tables.visit(Table::Reply, range, &mut |_, _| {
        found = true;
        Ok(ControlFlow::Break(()))
    })?;
    Ok(found)
}

/// See [`crate::ObjectStore::scan_shadows`].
pub(crate) fn scan_shadows(
    tables: &impl Reads,
    after: Option<(Uid, Uid)>,
    limit: usize,
) -> Result<Vec<(Uid, Uid)>, StoreError> {
    let after = after.map(|(action, uid)| format::shadow_key(action, uid));
    let from = after
        .as_ref()
        .map_or(Bound::Unbounded, |key| Bound::Excluded(&key[..]));
    let mut found = Vec::new();
    tables.visit(
        Table::Shadow,
        (from, Bound::Unbounded),
        &mut |key, value| {
            if found.len() == limit {
                return Ok(ControlFlow::Break(()));
            }
            format::unseal(Kind::Shadow, key, value)?;
            let action = format::leading_uid(Kind::Shadow, key)?;
            found.push((action, format::leading_uid(Kind::Shadow, &key[16..])?));
            Ok(ControlFlow::Continue(()))
        },
    )?;
    Ok(found)
}

/// See [`crate::ObjectStore::shadowed_objects`].
pub(crate) fn shadowed_objects(tables: &impl Reads, action: Uid) -> Result<Vec<Uid>, StoreError> {
    let shadows = keys_with_prefix(tables, Table::Shadow, &action.to_bytes())?;
    let uid = |key: &Vec<u8>| format::leading_uid(Kind::Shadow, &key[16..]);
    shadows.iter().map(uid).collect()
}

/// See [`crate::ObjectStore::scan_prepared`].
pub(crate) fn scan_prepared(
    tables: &impl Reads,
    after: Option<Uid>,
    limit: usize,
) -> Result<Vec<Prepared>, StoreError> {
    let mut found = Vec::new();
    visit_actions(tables, Table::Prepared, after, limit, &mut |key, value| {
        found.push(Prepared {
            action: format::leading_uid(Kind::Prepared, key)?,
            coordinator: format::unseal_prepared(key, value)?,
        });
        Ok(())
    })?;
    Ok(found)
}

/// See [`crate::ObjectStore::read_decision`].
pub(crate) fn read_decision(
    tables: &impl Reads,
    action: Uid,
) -> Result<Option<Decision>, StoreError> {
    let key = action.to_bytes();
    if let Some(value) = tables.value(Table::Decision, &key)? {
        return format::unseal_decision(&key, value).map(|(decision, _)| Some(decision));
    }
    let Some(value) = tables.value(Table::Outcome, &key)? else {
        return Ok(None);
    };
    format::unseal_outcome(&key, value).map(|_| Some(Decision::default()))
}

/// See [`crate::ObjectStore::scan_decisions`].
pub(crate) fn scan_decisions(
    tables: &impl Reads,
    after: Option<Uid>,
    limit: usize,
) -> Result<Vec<(Uid, Decision)>, StoreError> {
    let mut found = Vec::new();
    visit_actions(tables, Table::Decision, after, limit, &mut |key, value| {
        let (decision, _) = format::unseal_decision(key, value)?;
        found.push((format::leading_uid(Kind::Decision, key)?, decision));
        Ok(())
    })?;
    Ok(found)
}

/// What happens to an entry.
type Entry<'e> = &'e mut dyn FnMut(&[u8], &[u8]) -> Result<(), StoreError>;

/// Visits up to `limit` entries of a table that is sorted by action.
fn visit_actions(
    tables: &impl Reads,
    table: Table,
    after: Option<Uid>,
    limit: usize,
    entry: Entry<'_>,
) -> Result<(), StoreError> {
    let after = after.map(Uid::to_bytes);
    let from = after
        .as_ref()
        .map_or(Bound::Unbounded, |key| Bound::Excluded(&key[..]));
    let mut left = limit;
    tables.visit(table, (from, Bound::Unbounded), &mut |key, value| {
        if left == 0 {
            return Ok(ControlFlow::Break(()));
        }
        left -= 1;
        entry(key, value).map(ControlFlow::Continue)
    })
}

/// See [`crate::ObjectStore::scan_objects`]. Rows are leapt over, not read.
pub(crate) fn scan_objects(
    tables: &impl Reads,
    after: Option<Uid>,
    limit: usize,
) -> Result<Vec<(Uid, ClassId)>, StoreError> {
    let mut found = Vec::new();
    let mut from = match after {
        None => Some(Uid::NIL),
        Some(uid) => successor(uid),
    };
    while let Some(start) = from.take() {
        if found.len() >= limit {
            break;
        }
        tables.visit(
            Table::State,
            (Bound::Included(&start.to_bytes()), Bound::Unbounded),
            &mut |key, value| {
                if found.len() == limit {
                    return Ok(ControlFlow::Break(()));
                }
                if format::state_kind(key) == Kind::Row {
                    from = successor(format::leading_uid(Kind::Row, key)?);
                    return Ok(ControlFlow::Break(()));
                }
                let (head, _) = format::unseal_record(Kind::State, key, value)?;
                found.push((format::leading_uid(Kind::State, key)?, head.class));
                Ok(ControlFlow::Continue(()))
            },
        )?;
    }
    Ok(found)
}

/// The next uid in order, if there is one.
fn successor(uid: Uid) -> Option<Uid> {
    let next = u128::from_be_bytes(uid.to_bytes()).checked_add(1)?;
    Some(Uid::from_bytes(next.to_be_bytes()))
}
