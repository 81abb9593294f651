//! Applying what is said about objects that move, and removing the rows that they leave.
//!
//! | item | `state` | `shadow_place` | `place`, `untold` | `leftover` |
//! |---|---|---|---|---|
//! | `ShadowPlace` | | put | | removed |
//! | `ShadowRow` after it | row put | | | |
//! | `CommitShadow` | record put | removed | put | |
//! | `DeleteShadow` | rows removed | removed | | or put |
//! | `PutPlace`, `Told` | | | put | |
//! | `Delete` | all removed | removed | removed if here | or put |
//! | `Create`, `CreateShadow` | | | a forward removed | removed |
//!
//! An object is not here as long as its record is not, so its rows may be in their places before
//! and after its stay: installing an object that comes, and the decision that one has left, cost
//! the same with one row and with a million. Rows without a record are either on their way here,
//! or garbage; the mark in `leftover` only tells where garbage may be. While there are any, the
//! object cannot come to be here: what is asked is whether there are rows, not whether there is a
//! mark.

use std::ops::{Bound, ControlFlow};

use partha_core::id::Uid;

use super::{Journal, stored_epoch};
use crate::StoreError;
use crate::batch::CLEAR_AT_ONCE;
use crate::format::{self, Kind, ShadowRow};
use crate::place::Place;
use crate::tables::{Reads, Table, WHOLE, Writes, below, keys_with_prefix, prefix_end};

/// Whether an object may come to be here that is not: neither a record nor a row of it is here.
/// What else is left of an earlier one goes.
pub(super) fn make_way<W: Writes>(
    journal: &mut Journal<'_, W>,
    uid: Uid,
) -> Result<(), StoreError> {
    check_way(journal.tables, uid)?;
    journal.remove_if_there(Table::Leftover, &uid.to_bytes())
}

fn check_way(tables: &impl Reads, uid: Uid) -> Result<(), StoreError> {
    let prefix = uid.to_bytes();
    let Some(first) = keys_from(tables, Bound::Included(&prefix), uid, 1)?.pop() else {
        return Ok(());
    };
    if format::state_kind(&first) == Kind::State {
        return Err(StoreError::Exists { uid });
    }
    match who_moves(tables, uid)? {
        Some(action) => Err(StoreError::Arriving { uid, action }),
        None => Err(StoreError::Clearing { uid }),
    }
}

/// The action by which the object is on its way here. As many are looked at as move here now.
pub(super) fn who_moves(tables: &impl Reads, uid: Uid) -> Result<Option<Uid>, StoreError> {
    let mut found = None;
    tables.visit(Table::ShadowPlace, WHOLE, &mut |key, _| {
        if key.get(16..) != Some(&uid.to_bytes()[..]) {
            return Ok(ControlFlow::Continue(()));
        }
        found = Some(format::leading_uid(Kind::ShadowPlace, key)?);
        Ok(ControlFlow::Break(()))
    })?;
    Ok(found)
}

/// See [`crate::Item::PutPlace`].
pub(super) fn put_place<W: Writes>(
    journal: &mut Journal<'_, W>,
    uid: Uid,
    place: Place,
) -> Result<(), StoreError> {
    match check_news(journal.tables, uid, place)? {
        // The binder was told, and whoever says that it was not knows less.
        Some(stored) if stored == place || !stored.is_untold() => Ok(()),
        Some(_) | None => set_place(journal, uid, place),
    }
}

/// What is stored if it is the same as `place`, told or not.
fn check_news(tables: &impl Reads, uid: Uid, place: Place) -> Result<Option<Place>, StoreError> {
    let Some(stored) = stored_place(tables, uid)? else {
        return Ok(None);
    };
    if stored.agrees_with(place) {
        return Ok(Some(stored));
    }
    let (offered, stored) = (place.moves(), stored.moves());
    if stored >= offered {
        return Err(StoreError::OlderPlace {
            uid,
            offered,
            stored,
        });
    }
    Ok(None)
}

fn stored_place(tables: &impl Reads, uid: Uid) -> Result<Option<Place>, StoreError> {
    let key = uid.to_bytes();
    let value = tables.value(Table::Place, &key)?;
    let unseal = |value| format::unseal_place(Kind::Place, &key, value);
    value.map(unseal).transpose()
}

fn set_place<W: Writes>(
    journal: &mut Journal<'_, W>,
    uid: Uid,
    place: Place,
) -> Result<(), StoreError> {
    let key = uid.to_bytes();
    let value = format::seal_place(Kind::Place, &key, place)?;
    journal.put(Table::Place, &key, &value)?;
    if place.is_untold() {
        let value = format::seal(Kind::Untold, &key, &[], &[])?;
        return journal.put(Table::Untold, &key, &value);
    }
    journal.remove_if_there(Table::Untold, &key)
}

/// See [`crate::Item::Told`].
pub(super) fn told<W: Writes>(
    journal: &mut Journal<'_, W>,
    uid: Uid,
    moves: u64,
) -> Result<(), StoreError> {
    match stored_place(journal.tables, uid)? {
        Some(place) if place.is_untold() && place.moves() == moves => {
            set_place(journal, uid, place.as_told())
        }
        Some(_) | None => Ok(()),
    }
}

/// An object came to be here that has no place by itself: an earlier one's does not count.
pub(super) fn forget_place<W: Writes>(
    journal: &mut Journal<'_, W>,
    uid: Uid,
) -> Result<(), StoreError> {
    for table in [Table::Place, Table::Untold] {
        journal.remove_if_there(table, &uid.to_bytes())?;
    }
    Ok(())
}

/// See [`crate::Item::ShadowPlace`].
pub(super) fn shadow_place<W: Writes>(
    journal: &mut Journal<'_, W>,
    action: Uid,
    uid: Uid,
    place: Place,
) -> Result<(), StoreError> {
    let key = format::shadow_key(action, uid);
    if journal.tables.value(Table::Shadow, &key)?.is_none() {
        return Err(StoreError::NoShadow { action, uid });
    }
    if check_news(journal.tables, uid, place)?.is_some() {
        let (offered, stored) = (place.moves(), place.moves());
        return Err(StoreError::OlderPlace {
            uid,
            offered,
            stored,
        });
    }
    match who_moves(journal.tables, uid)? {
        Some(other) if other != action => {
            return Err(StoreError::Arriving { uid, action: other });
        }
        Some(_) if stored_epoch(journal.tables, uid)?.is_some() => {
            return Err(StoreError::Exists { uid });
        }
        Some(_) => {}
        None => check_way(journal.tables, uid)?,
    }
    let before = super::action::row_changes(journal.tables, &key)?;
    let value = format::seal_place(Kind::ShadowPlace, &key, place)?;
    journal.put(Table::ShadowPlace, &key, &value)?;
    journal.remove_if_there(Table::Leftover, &uid.to_bytes())?;
    for row in before.keys {
        journal.remove(Table::ShadowRow, &row)?;
    }
    super::action::put_rows(journal, &before.changes)
}

/// Whether rows that the action prepares of the object are written to where they stay.
///
/// # Errors
/// `Exists` if the object is here by now.
pub(super) fn is_arriving(tables: &impl Reads, action: Uid, uid: Uid) -> Result<bool, StoreError> {
    let key = format::shadow_key(action, uid);
    if tables.value(Table::ShadowPlace, &key)?.is_none() {
        return Ok(false);
    }
    match stored_epoch(tables, uid)? {
        None => Ok(true),
        Some(_) => Err(StoreError::Exists { uid }),
    }
}

/// Writes a row of an object that is on its way here.
pub(super) fn put_arriving_row<W: Writes>(
    journal: &mut Journal<'_, W>,
    uid: Uid,
    change: ShadowRow<'_>,
) -> Result<(), StoreError> {
    let key = format::row_key(uid, change.part, change.row);
    match change.value {
        None => journal.remove(Table::State, &key),
        Some(value) => {
            let value = format::seal(Kind::Row, &key, value, &[])?;
            journal.put(Table::State, &key, &value)
        }
    }
}

/// The place that the object has when the action is installed.
pub(super) fn place_to_be(
    tables: &impl Reads,
    action: Uid,
    uid: Uid,
) -> Result<Option<Place>, StoreError> {
    let key = format::shadow_key(action, uid);
    let value = tables.value(Table::ShadowPlace, &key)?;
    let unseal = |value| format::unseal_place(Kind::ShadowPlace, &key, value);
    value.map(unseal).transpose()
}

/// The object is here: its place counts, whatever was known before.
pub(super) fn install<W: Writes>(
    journal: &mut Journal<'_, W>,
    action: Uid,
    uid: Uid,
    place: Place,
) -> Result<(), StoreError> {
    set_place(journal, uid, place)?;
    journal.remove(Table::ShadowPlace, &format::shadow_key(action, uid))
}

/// What was on its way here by this action does not come.
pub(super) fn turn_back<W: Writes>(
    journal: &mut Journal<'_, W>,
    action: Uid,
) -> Result<(), StoreError> {
    for key in keys_with_prefix(journal.tables, Table::ShadowPlace, &action.to_bytes())? {
        journal.remove(Table::ShadowPlace, &key)?;
        // One that is too short is damaged, and names no object.
        let Some(uid) = key[16..].first_chunk().map(|uid| Uid::from_bytes(*uid)) else {
            continue;
        };
        let plain = format::plain_key(uid);
        if journal.tables.value(Table::State, &plain)?.is_none() {
            clear(journal, uid)?;
        }
    }
    Ok(())
}

/// See [`crate::Item::Delete`]: what is about places and rows, after the record was removed.
pub(super) fn leave<W: Writes>(journal: &mut Journal<'_, W>, uid: Uid) -> Result<(), StoreError> {
    // One that is damaged is of no more use than one that is here.
    let is_gone = matches!(
        stored_place(journal.tables, uid),
        Ok(Some(Place::Gone { .. }))
    );
    if !is_gone {
        forget_place(journal, uid)?;
    }
    clear(journal, uid)
}

/// Removes the rows of an object that is not here, at once if they are few.
pub(super) fn clear<W: Writes>(journal: &mut Journal<'_, W>, uid: Uid) -> Result<(), StoreError> {
    let prefix = uid.to_bytes();
    let rows = keys_from(
        journal.tables,
        Bound::Included(&prefix),
        uid,
        CLEAR_AT_ONCE + 1,
    )?;
    if rows.len() > CLEAR_AT_ONCE {
        let value = format::seal(Kind::Leftover, &prefix, &[], &[])?;
        return journal.put(Table::Leftover, &prefix, &value);
    }
    for row in rows {
        journal.remove(Table::State, &row)?;
    }
    journal.remove_if_there(Table::Leftover, &prefix)
}

/// Whether the object's rows are too many to be removed at once.
pub(super) fn has_too_many_rows(tables: &impl Reads, uid: Uid) -> Result<bool, StoreError> {
    let prefix = format::object_key(uid, 1);
    let rows = keys_from(tables, Bound::Included(&prefix), uid, CLEAR_AT_ONCE + 1)?;
    Ok(rows.len() > CLEAR_AT_ONCE)
}

/// Whether rows of the object are still to be removed, so that none can be written.
pub(super) fn is_leftover(tables: &impl Reads, uid: Uid) -> Result<bool, StoreError> {
    let mark = tables.value(Table::Leftover, &uid.to_bytes())?;
    Ok(mark.is_some())
}

/// Up to `limit` keys of `state` that belong to the object.
fn keys_from(
    tables: &impl Reads,
    from: Bound<&[u8]>,
    uid: Uid,
    limit: usize,
) -> Result<Vec<Vec<u8>>, StoreError> {
    let mut keys = Vec::new();
    let end = prefix_end(&uid.to_bytes());
    let range = (from, below(end.as_deref()));
    tables.visit(Table::State, range, &mut |key, _| {
        keys.push(key.to_vec());
        Ok(match keys.len() < limit {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        })
    })?;
    Ok(keys)
}

/// Removes up to `limit` rows of objects that are not here. How many, and whether there may be
/// more.
pub(super) fn clear_some<W: Writes>(
    journal: &mut Journal<'_, W>,
    limit: usize,
) -> Result<(u64, bool), StoreError> {
    let mut left = limit;
    while left > 0 {
        let Some((mark, last)) = first_mark(journal.tables)? else {
            break;
        };
        let Ok(uid) = <[u8; 16]>::try_from(&mark[..]).map(Uid::from_bytes) else {
            tracing::warn!("a mark of rows to be removed that names no object is left out");
            journal.remove(Table::Leftover, &mark)?;
            continue;
        };
        let rows = match journal
            .tables
            .value(Table::State, &format::plain_key(uid))?
        {
            None => {
                let from = match &last {
                    None => Bound::Included(&mark[..]),
                    Some(last) => Bound::Excluded(&last[..]),
                };
                keys_from(journal.tables, from, uid, left)?
            }
            // The mark is wrong: what it has is the object's.
            Some(_) => Vec::new(),
        };
        for row in &rows {
            journal.remove(Table::State, row)?;
        }
        left -= rows.len();
        match rows.last() {
            // What was removed is not to be walked over again.
            Some(last) if left == 0 => {
                let value = format::seal(Kind::Leftover, &mark, last, &[])?;
                journal.put(Table::Leftover, &mark, &value)?;
            }
            Some(_) | None => journal.remove(Table::Leftover, &mark)?,
        }
    }
    let removed = (limit - left) as u64;
    Ok((removed, left == 0))
}

/// The first mark of an object with rows to be removed, and the last key that was.
#[expect(
    clippy::type_complexity,
    reason = "two keys, the second of which may be missing"
)]
fn first_mark(tables: &impl Reads) -> Result<Option<(Vec<u8>, Option<Vec<u8>>)>, StoreError> {
    let mut first = None;
    tables.visit(Table::Leftover, WHOLE, &mut |key, value| {
        let last = match format::unseal(Kind::Leftover, key, value) {
            Ok(last) => (last.starts_with(key)).then(|| last.to_vec()),
            Err(error) => {
                tracing::warn!(%error, "its rows are looked for from the first one on");
                None
            }
        };
        first = Some((key.to_vec(), last));
        Ok(ControlFlow::Break(()))
    })?;
    Ok(first)
}

/// Whether there are rows to be removed.
pub(super) fn has_leftovers(tables: &impl Reads) -> Result<bool, StoreError> {
    first_mark(tables).map(|first| first.is_some())
}

#[cfg(test)]
mod tests;
