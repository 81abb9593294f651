//! Applying what is said about actions: shadows, who decides, decisions, outcomes.
//!
//! | item | `shadow`, `shadow_row` | `prepared` | `decision` | `outcome` |
//! |---|---|---|---|---|
//! | `WriteShadow`, `CreateShadow`, `ShadowRow` | put | | | |
//! | `Prepare` | | put | | |
//! | `CommitShadow` | moved to `state` | removed | | |
//! | `DeleteShadow` | removed | removed | | |
//! | `Decide` with participants or groups | | | put | removed |
//! | `Decide` without any | | | removed | put |
//! | `Settle` | | | moved to `outcome` | put |

use partha_core::action::path::{Coordinator, Site};
use partha_core::id::Uid;

use super::{Journal, LastRow, check_epoch, place, stored_epoch};
use crate::StoreError;
use crate::batch::Item;
use crate::fence::Fences;
use crate::format::{self, Kind, ShadowRow};
use crate::store::Record;
use crate::tables::{Reads, Table, Writes, keys_with_prefix};

/// Rows of one object that an action may have prepared: no batch has room for more.
const SHADOW_ROWS_MAX: u32 = 1 << 20;

/// Applies an item about an action.
///
/// # Panics
/// On any other item.
pub(super) fn apply<W: Writes>(
    journal: &mut Journal<'_, W>,
    item: &Item,
    fences: &Fences,
    now_ms: u64,
) -> Result<(), StoreError> {
    match item {
        Item::WriteShadow {
            action,
            uid,
            record,
        } => {
            if check_epoch(journal, fences, *uid, record.epoch)?.is_none() {
                return Err(StoreError::NoSuchObject { uid: *uid });
            }
            put_shadow(journal, *action, *uid, record)
        }
        Item::CreateShadow {
            action,
            uid,
            record,
        } => create_shadow(journal, fences, *action, *uid, record),
        Item::ShadowRow {
            action,
            uid,
            part,
            key,
            value,
        } => {
            let change = ShadowRow {
                part: *part,
                row: key,
                value: value.as_deref(),
            };
            put_shadow_row(journal, *action, *uid, change)
        }
        Item::Prepare {
            action,
            coordinator,
        } => prepare(journal, *action, *coordinator),
        Item::CommitShadow { action } => commit_shadow(journal, fences, *action),
        Item::DeleteShadow { action } => delete_shadow(journal, *action),
        Item::Decide {
            action,
            participants,
            groups,
            keep_ms,
        } => decide(journal, *action, (participants, groups), *keep_ms, now_ms),
        Item::Settle { action } => settle(journal, *action, now_ms),
        Item::Create { .. }
        | Item::WriteState { .. }
        | Item::Delete { .. }
        | Item::PutRow { .. }
        | Item::RemoveRow { .. }
        | Item::SaveReply { .. }
        | Item::PutPlace { .. }
        | Item::ShadowPlace { .. }
        | Item::Told { .. }
        | Item::JoinGroup { .. }
        | Item::GroupLog { .. }
        | Item::GroupInstall { .. }
        | Item::GroupSnapshot { .. }
        | Item::LeaveGroup { .. }
        | Item::PreparePart { .. }
        | Item::EndPart { .. }
        | Item::DecideGroup { .. }
        | Item::SettleGroup { .. }
        | Item::CheckpointGroup { .. } => unreachable!("the caller sorts items"),
    }
}

fn prepare<W: Writes>(
    journal: &mut Journal<'_, W>,
    action: Uid,
    coordinator: Coordinator,
) -> Result<(), StoreError> {
    let key = action.to_bytes();
    let value = format::seal_prepared(&key, coordinator)?;
    journal.put(Table::Prepared, &key, &value)
}

fn create_shadow<W: Writes>(
    journal: &mut Journal<'_, W>,
    fences: &Fences,
    action: Uid,
    uid: Uid,
    record: &Record,
) -> Result<(), StoreError> {
    place::make_way(journal, uid)?;
    fences.note(uid);
    put_shadow(journal, action, uid, record)
}

fn put_shadow<W: Writes>(
    journal: &mut Journal<'_, W>,
    action: Uid,
    uid: Uid,
    record: &Record,
) -> Result<(), StoreError> {
    let key = format::shadow_key(action, uid);
    let value = format::seal_record(Kind::Shadow, &key, record)?;
    journal.put(Table::Shadow, &key, &value)
}

fn put_shadow_row<W: Writes>(
    journal: &mut Journal<'_, W>,
    action: Uid,
    uid: Uid,
    change: ShadowRow<'_>,
) -> Result<(), StoreError> {
    let Some(number) = next_row(journal, action, uid)? else {
        return place::put_arriving_row(journal, uid, change);
    };
    if number >= SHADOW_ROWS_MAX {
        return Err(StoreError::TooManyRows {
            action,
            uid,
            max: SHADOW_ROWS_MAX,
        });
    }
    let key = format::shadow_row_key(action, uid, number);
    let value = format::seal_shadow_row(&key, change)?;
    journal.put(Table::ShadowRow, &key, &value)?;
    let number = Some(number);
    journal.last_row = Some(LastRow {
        action,
        uid,
        number,
    });
    Ok(())
}

/// The number of the next prepared row; none if it is one of an object that is on its way here.
/// Rows of an object come one after the other, so that is mostly known; else it is looked for.
fn next_row<W: Writes>(
    journal: &mut Journal<'_, W>,
    action: Uid,
    uid: Uid,
) -> Result<Option<u32>, StoreError> {
    if let Some(last) = journal.last_row
        && (last.action, last.uid) == (action, uid)
    {
        return Ok(last.number.map(|number| number + 1));
    }
    let shadow = format::shadow_key(action, uid);
    if journal.tables.value(Table::Shadow, &shadow)?.is_none() {
        return Err(StoreError::NoShadow { action, uid });
    }
    if place::is_arriving(journal.tables, action, uid)? {
        let number = None;
        journal.last_row = Some(LastRow {
            action,
            uid,
            number,
        });
        return Ok(None);
    }
    let keys = keys_with_prefix(journal.tables, Table::ShadowRow, &shadow)?;
    let number = |key: &Vec<u8>| key.last_chunk().map_or(0, |n| u32::from_be_bytes(*n));
    Ok(Some(keys.last().map_or(0, |last| number(last) + 1)))
}

/// Prepared rows, and what they change.
pub(super) struct RowChanges {
    pub(super) keys: Vec<Vec<u8>>,
    /// Keys and values of `state`; a row without a value goes.
    pub(super) changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// What the prepared rows with this prefix change.
pub(super) fn row_changes(tables: &impl Reads, prefix: &[u8]) -> Result<RowChanges, StoreError> {
    let keys = keys_with_prefix(tables, Table::ShadowRow, prefix)?;
    let mut changes = Vec::with_capacity(keys.len());
    for key in &keys {
        let Some(value) = tables.value(Table::ShadowRow, key)? else {
            continue;
        };
        let uid = format::leading_uid(Kind::ShadowRow, &key[16..])?;
        let change = format::unseal_shadow_row(key, value)?;
        let key = format::row_key(uid, change.part, change.row);
        let seal = |value| format::seal(Kind::Row, &key, value, &[]);
        let value = change.value.map(seal).transpose()?;
        changes.push((key, value));
    }
    Ok(RowChanges { keys, changes })
}

/// Writes what prepared rows change.
pub(super) fn put_rows<W: Writes>(
    journal: &mut Journal<'_, W>,
    changes: &[(Vec<u8>, Option<Vec<u8>>)],
) -> Result<(), StoreError> {
    for (key, value) in changes {
        match value {
            Some(value) => journal.put(Table::State, key, value)?,
            None => journal.remove(Table::State, key)?,
        }
    }
    Ok(())
}

/// Moves every shadow of the action to its object. The decision is made elsewhere and final, so
/// no epoch is checked; the stored one never falls. All is read before the first write.
fn commit_shadow<W: Writes>(
    journal: &mut Journal<'_, W>,
    fences: &Fences,
    action: Uid,
) -> Result<(), StoreError> {
    let mut records: Vec<(Vec<u8>, Option<Vec<u8>>)> = Vec::new();
    let mut installed = Vec::new();
    let shadows = keys_with_prefix(journal.tables, Table::Shadow, &action.to_bytes())?;
    for key in &shadows {
        let Some(value) = journal.tables.value(Table::Shadow, key)? else {
            continue;
        };
        let (mut head, state) = format::unseal_record(Kind::Shadow, key, value)?;
        let uid = format::leading_uid(Kind::Shadow, &key[16..])?;
        let place = place::place_to_be(journal.tables, action, uid)?;
        let stored = stored_epoch(journal.tables, uid)?;
        installed.push((uid, head.epoch, place, stored.is_none()));
        if place.is_some() {
            // Epochs of the node that it comes from mean nothing here.
            head.epoch = fences.epoch_between();
        }
        if let Some(stored) = stored {
            head.epoch = head.epoch.max(stored);
        }
        let plain = format::plain_key(uid);
        let value = format::seal_record(Kind::State, &plain, &head.with_state(state))?;
        records.push((plain.to_vec(), Some(value)));
    }
    let rows = row_changes(journal.tables, &action.to_bytes())?;
    put_rows(journal, &records)?;
    put_rows(journal, &rows.changes)?;
    for (uid, prepared, place, is_new) in installed {
        fences.install(uid, prepared);
        match place {
            Some(place) => place::install(journal, action, uid, place)?,
            None if is_new => place::forget_place(journal, uid)?,
            None => {}
        }
    }
    forget_prepared(journal, action, &shadows, &rows.keys)
}

fn delete_shadow<W: Writes>(journal: &mut Journal<'_, W>, action: Uid) -> Result<(), StoreError> {
    let shadows = keys_with_prefix(journal.tables, Table::Shadow, &action.to_bytes())?;
    let rows = keys_with_prefix(journal.tables, Table::ShadowRow, &action.to_bytes())?;
    place::turn_back(journal, action)?;
    forget_prepared(journal, action, &shadows, &rows)
}

fn forget_prepared<W: Writes>(
    journal: &mut Journal<'_, W>,
    action: Uid,
    shadows: &[Vec<u8>],
    rows: &[Vec<u8>],
) -> Result<(), StoreError> {
    for key in shadows {
        journal.remove(Table::Shadow, key)?;
    }
    for key in rows {
        journal.remove(Table::ShadowRow, key)?;
    }
    journal.remove_if_there(Table::Prepared, &action.to_bytes())
}

fn decide<W: Writes>(
    journal: &mut Journal<'_, W>,
    action: Uid,
    (participants, groups): (&[Site], &[Uid]),
    keep_ms: u64,
    now_ms: u64,
) -> Result<(), StoreError> {
    let key = action.to_bytes();
    if participants.is_empty() && groups.is_empty() {
        journal.remove_if_there(Table::Decision, &key)?;
        return put_outcome(journal, action, now_ms.saturating_add(keep_ms));
    }
    let value = format::seal_decision(&key, participants, groups, keep_ms)?;
    journal.put(Table::Decision, &key, &value)?;
    journal.remove_if_there(Table::Outcome, &key)
}

fn settle<W: Writes>(
    journal: &mut Journal<'_, W>,
    action: Uid,
    now_ms: u64,
) -> Result<(), StoreError> {
    let key = action.to_bytes();
    let Some(value) = journal.tables.value(Table::Decision, &key)? else {
        return Ok(());
    };
    let (_, keep_ms) = format::unseal_decision(&key, value)?;
    journal.remove(Table::Decision, &key)?;
    put_outcome(journal, action, now_ms.saturating_add(keep_ms))
}

/// An entry of the index that an earlier outcome of the action had stays; [`super::expiry`] tells
/// that it is not the current one.
fn put_outcome<W: Writes>(
    journal: &mut Journal<'_, W>,
    action: Uid,
    expiry_ms: u64,
) -> Result<(), StoreError> {
    let key = action.to_bytes();
    let value = format::seal_outcome(&key, expiry_ms)?;
    journal.put(Table::Outcome, &key, &value)?;
    let key = format::outcome_expiry_key(expiry_ms, action);
    let value = format::seal(Kind::OutcomeExpiry, &key, &[], &[])?;
    journal.put(Table::OutcomeExpiry, &key, &value)
}
