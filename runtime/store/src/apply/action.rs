//! Applying what is said about actions: shadows, who decides, decisions, outcomes.
//!
//! | item | `shadow`, `shadow_row` | `prepared` | `decision` | `outcome` |
//! |---|---|---|---|---|
//! | `WriteShadow`, `CreateShadow`, `ShadowRow` | put | | | |
//! | `Prepare` | | put | | |
//! | `CommitShadow` | moved to `state` | removed | | |
//! | `DeleteShadow` | removed | removed | | |
//! | `Decide` with participants | | | put | removed |
//! | `Decide` without any | | | removed | put |
//! | `Settle` | | | moved to `outcome` | put |

use partha_core::action::path::Site;
use partha_core::id::Uid;

use super::{Journal, check_epoch, stored_epoch};
use crate::StoreError;
use crate::fence::Fences;
use crate::format::{self, Kind, ShadowRow};
use crate::store::{Item, Record};
use crate::tables::{Reads, Table, Writes, keys_with_prefix};

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
        } => {
            if stored_epoch(journal.tables, *uid)?.is_some() {
                return Err(StoreError::Exists { uid: *uid });
            }
            fences.note(*uid);
            put_shadow(journal, *action, *uid, record)
        }
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
        } => {
            let key = action.to_bytes();
            let value = format::seal_prepared(&key, *coordinator)?;
            journal.put(Table::Prepared, &key, &value)
        }
        Item::CommitShadow { action } => commit_shadow(journal, fences, *action),
        Item::DeleteShadow { action } => delete_shadow(journal, *action),
        Item::Decide {
            action,
            participants,
            keep_ms,
        } => decide(journal, *action, participants, *keep_ms, now_ms),
        Item::Settle { action } => settle(journal, *action, now_ms),
        Item::Create { .. }
        | Item::WriteState { .. }
        | Item::Delete { .. }
        | Item::PutRow { .. }
        | Item::RemoveRow { .. }
        | Item::SaveReply { .. } => unreachable!("the caller sorts items"),
    }
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
    let shadow = format::shadow_key(action, uid);
    if journal.tables.value(Table::Shadow, &shadow)?.is_none() {
        return Err(StoreError::NoShadow { action, uid });
    }
    let number = next_row_number(journal.tables, action, uid, journal.last_row)?;
    let key = format::shadow_row_key(action, uid, number);
    journal.last_row = Some((action, uid, number));
    let value = format::seal_shadow_row(&key, change)?;
    journal.put(Table::ShadowRow, &key, &value)
}

/// Rows of an object come one after the other, so the number of the last one is mostly known;
/// else the rows are looked at.
fn next_row_number(
    tables: &impl Reads,
    action: Uid,
    uid: Uid,
    last: Option<(Uid, Uid, u32)>,
) -> Result<u32, StoreError> {
    let last = match last {
        Some((last_action, last_uid, number)) if (last_action, last_uid) == (action, uid) => {
            Some(number)
        }
        Some(_) | None => {
            let prefix = format::shadow_key(action, uid);
            let keys = keys_with_prefix(tables, Table::ShadowRow, &prefix)?;
            let number = |key: &Vec<u8>| key.last_chunk().map_or(0, |n| u32::from_be_bytes(*n));
            keys.last().map(number)
        }
    };
    let next = last.map_or(Some(0), |last| last.checked_add(1));
    next.ok_or(StoreError::TooLarge {
        what: "a set of prepared rows",
        len: usize::MAX,
        max: u32::MAX as usize,
    })
}

/// Moves every shadow of the action to its object. The decision is made elsewhere and final, so
/// no epoch is checked; the stored one never falls. All is read before the first write.
fn commit_shadow<W: Writes>(
    journal: &mut Journal<'_, W>,
    fences: &Fences,
    action: Uid,
) -> Result<(), StoreError> {
    let mut changes: Vec<(Vec<u8>, Option<Vec<u8>>)> = Vec::new();
    let mut installed = Vec::new();
    let shadows = keys_with_prefix(journal.tables, Table::Shadow, &action.to_bytes())?;
    for key in &shadows {
        let Some(value) = journal.tables.value(Table::Shadow, key)? else {
            continue;
        };
        let (mut head, state) = format::unseal_record(Kind::Shadow, key, value)?;
        let uid = format::leading_uid(Kind::Shadow, &key[16..])?;
        installed.push((uid, head.epoch));
        if let Some(stored) = stored_epoch(journal.tables, uid)? {
            head.epoch = head.epoch.max(stored);
        }
        let plain = format::plain_key(uid);
        let value = format::seal_record(Kind::State, &plain, &head.with_state(state))?;
        changes.push((plain.to_vec(), Some(value)));
    }
    let rows = keys_with_prefix(journal.tables, Table::ShadowRow, &action.to_bytes())?;
    for key in &rows {
        let Some(value) = journal.tables.value(Table::ShadowRow, key)? else {
            continue;
        };
        let uid = format::leading_uid(Kind::ShadowRow, &key[16..])?;
        let change = format::unseal_shadow_row(key, value)?;
        let key = format::row_key(uid, change.part, change.row);
        let seal = |value| format::seal(Kind::Row, &key, value, &[]);
        let value = change.value.map(seal).transpose()?;
        changes.push((key, value));
    }
    for (uid, epoch) in installed {
        fences.install(uid, epoch);
    }
    for (key, value) in &changes {
        match value {
            Some(value) => journal.put(Table::State, key, value)?,
            None => journal.remove(Table::State, key)?,
        }
    }
    forget_prepared(journal, action, &shadows, &rows)
}

fn delete_shadow<W: Writes>(journal: &mut Journal<'_, W>, action: Uid) -> Result<(), StoreError> {
    let shadows = keys_with_prefix(journal.tables, Table::Shadow, &action.to_bytes())?;
    let rows = keys_with_prefix(journal.tables, Table::ShadowRow, &action.to_bytes())?;
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
    participants: &[Site],
    keep_ms: u64,
    now_ms: u64,
) -> Result<(), StoreError> {
    let key = action.to_bytes();
    if participants.is_empty() {
        journal.remove_if_there(Table::Decision, &key)?;
        return put_outcome(journal, action, now_ms.saturating_add(keep_ms));
    }
    let value = format::seal_decision(&key, participants, keep_ms)?;
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
