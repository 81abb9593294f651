//! What entries of a group's log come to together.
//!
//! | item of an entry | `state` | `group_part` | `group_decision` | `group_outcome` | `group_checkpoint` |
//! |---|---|---|---|---|---|
//! | `WriteState`, `PutRow`, `RemoveRow` | put, removed | | | | |
//! | `PreparePart` | | put | | | without the action |
//! | `EndPart`, to commit | as its body says | removed | | | |
//! | `EndPart`, to abort | | removed | | | |
//! | `DecideGroup` | | | put | removed | without the action |
//! | `DecideGroup` with nobody to be told | | | removed | put | without the action |
//! | `SettleGroup` | | | removed | put | |
//! | `CheckpointGroup` | | | | | put; removed if empty |
//!
//! It is the same for every copy, in however many installs the entries come: each item sees what
//! those before it have done, be it in this install or before. Only the times at which things
//! expire are each copy's own.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use partha_core::group::Stamp;
use partha_core::id::{CallId, Epoch, Uid};

use super::super::{Journal, stored_epoch};
use super::out_of_step;
use crate::StoreError;
use crate::entry::{self, ItemRef};
use crate::fence::Fences;
use crate::format::{self, CheckpointRef, Decided, Kind, PartRef, RecordHead};
use crate::tables::{Reads, Table, Writes, below, keys_with_prefix, prefix_end};

/// The epoch of the record that is there.
type Stored = Option<Epoch>;
/// Changes of tables; what has no value goes.
type Changes = Vec<(Table, Vec<u8>, Option<Vec<u8>>)>;

/// What some entries of one object come to: of what they change again and again, the last.
#[derive(Default)]
struct Outcome<'e> {
    state: Option<(RecordHead, &'e [u8])>,
    /// By keys of `state`; a row without a value goes.
    rows: BTreeMap<Vec<u8>, Option<&'e [u8]>>,
    /// Bodies, and how long they are kept.
    replies: BTreeMap<CallId, (&'e [u8], u64)>,
    /// The part that is there then, if that was asked for or changed.
    part: Option<Option<PartRef<'e>>>,
    /// What is there then, if that was changed.
    checkpoint: Option<CheckpointRef<'e>>,
    /// By actions.
    decisions: BTreeMap<Uid, Fate<'e>>,
}

/// What is known of a decision.
#[derive(Clone, Copy)]
enum Fate<'e> {
    Open(Decided<'e>),
    Settled { keep_ms: u64 },
}

impl<'e> Outcome<'e> {
    fn take(&mut self, tables: &'e impl Reads, item: ItemRef<'e>) -> Result<(), StoreError> {
        match item {
            ItemRef::State { head, state, .. } => self.state = Some((head, state)),
            ItemRef::Put {
                uid,
                part,
                key,
                value,
            } => {
                let key = format::row_key(uid, part, key);
                self.rows.insert(key, Some(value));
            }
            ItemRef::Remove { uid, part, key } => {
                self.rows.insert(format::row_key(uid, part, key), None);
            }
            ItemRef::Reply {
                call,
                keep_ms,
                body,
                ..
            } => {
                self.replies.insert(call, (body, keep_ms));
            }
            ItemRef::Part { .. }
            | ItemRef::End { .. }
            | ItemRef::Decide { .. }
            | ItemRef::Settle { .. }
            | ItemRef::Checkpoint { .. } => self.take_about_action(tables, item)?,
        }
        Ok(())
    }

    fn take_about_action(
        &mut self,
        tables: &'e impl Reads,
        item: ItemRef<'e>,
    ) -> Result<(), StoreError> {
        match item {
            ItemRef::Part {
                uid,
                action,
                coordinator,
                body,
            } => {
                let here = self.part(tables, uid)?.map(|part| part.action);
                check_vacant(uid, here, action)?;
                self.uncheckpoint(tables, uid, action)?;
                self.part = Some(Some(PartRef {
                    action,
                    coordinator,
                    body,
                }));
            }
            ItemRef::End {
                uid,
                action,
                commit,
            } => {
                let here = self.part(tables, uid)?;
                // A leader that is not sure whether its predecessor's end of the part is in the
                // log adds one more. By then the object may have a part of another action.
                let Some(part) = here.filter(|part| part.action == action) else {
                    return Ok(());
                };
                self.part = Some(None);
                if commit {
                    entry::each(part.body, |item| self.take(tables, item))?;
                }
            }
            ItemRef::Decide {
                uid,
                action,
                decided,
            } => {
                self.uncheckpoint(tables, uid, action)?;
                let keep_ms = decided.keep_ms;
                let fate = match decided.is_settled() {
                    true => Fate::Settled { keep_ms },
                    false => Fate::Open(decided),
                };
                self.decisions.insert(action, fate);
            }
            ItemRef::Settle { uid, action } => self.settle(tables, uid, action)?,
            ItemRef::Checkpoint { checkpoint, .. } => {
                self.checkpoint = format::split_checkpoint(checkpoint);
            }
            other => unreachable!("the caller sorts items: {other:?}"),
        }
        Ok(())
    }

    fn settle(&mut self, tables: &'e impl Reads, uid: Uid, action: Uid) -> Result<(), StoreError> {
        let open = match self.decisions.get(&action) {
            Some(Fate::Open(decided)) => Some(*decided),
            Some(Fate::Settled { .. }) => None,
            None => stored_decision(tables, uid, action)?,
        };
        if let Some(Decided { keep_ms, .. }) = open {
            self.decisions.insert(action, Fate::Settled { keep_ms });
        }
        Ok(())
    }

    /// The log has what the action has changed: it is in the checkpoint no more.
    fn uncheckpoint(
        &mut self,
        tables: &'e impl Reads,
        uid: Uid,
        action: Uid,
    ) -> Result<(), StoreError> {
        if self.checkpoint.is_none() {
            let stored = stored_checkpoint(tables, uid)?;
            self.checkpoint = stored.filter(|stored| stored.has(action));
        }
        if let Some(checkpoint) = &mut self.checkpoint {
            checkpoint.settle(action);
        }
        Ok(())
    }

    /// The part that is there after what was taken.
    fn part(
        &mut self,
        tables: &'e impl Reads,
        uid: Uid,
    ) -> Result<Option<PartRef<'e>>, StoreError> {
        let known = match self.part {
            Some(known) => known,
            None => stored_part(tables, uid)?,
        };
        self.part = Some(known);
        Ok(known)
    }

    /// As changes of tables. Values are copied here, for the first time and the last.
    fn seal(
        self,
        tables: &impl Reads,
        uid: Uid,
        record_epoch: impl FnOnce() -> Epoch,
        now_ms: u64,
    ) -> Result<Changes, StoreError> {
        let mut sealed = Vec::with_capacity(1 + self.rows.len() + 2 * self.replies.len());
        if let Some((mut head, state)) = self.state {
            head.epoch = record_epoch();
            let key = format::plain_key(uid);
            let value = head.seal(Kind::State, &key, state)?;
            sealed.push((Table::State, key.to_vec(), Some(value)));
        }
        for (key, value) in self.rows {
            let seal = |value| format::seal(Kind::Row, &key, value, &[]);
            let value = value.map(seal).transpose()?;
            sealed.push((Table::State, key, value));
        }
        for (call, (body, keep_ms)) in self.replies {
            let expiry_ms = now_ms.saturating_add(keep_ms);
            let reply = format::seal_saved(call, uid, body, expiry_ms)?;
            sealed.extend(reply.map(|(table, key, value)| (table, key, Some(value))));
        }
        if let Some(part) = self.part {
            let key = uid.to_bytes();
            let seal = |part| format::seal_part(&key, part);
            let value = part.map(seal).transpose()?;
            put_or_remove(tables, &mut sealed, Table::GroupPart, &key, value)?;
        }
        if let Some(checkpoint) = self.checkpoint {
            let key = uid.to_bytes();
            let some = (!checkpoint.is_empty()).then_some(&checkpoint);
            let seal = |checkpoint| format::seal_checkpoint(&key, checkpoint);
            let value = some.map(seal).transpose()?;
            put_or_remove(tables, &mut sealed, Table::GroupCheckpoint, &key, value)?;
        }
        for (action, fate) in self.decisions {
            let key = format::group_pair_key(uid, action);
            let (open, settled) = match fate {
                Fate::Open(decided) => {
                    let value = format::seal_decided(Kind::GroupDecision, &key, decided)?;
                    (Some(value), None)
                }
                Fate::Settled { keep_ms } => {
                    let expiry_ms = now_ms.saturating_add(keep_ms);
                    let index = format::group_outcome_expiry_key(expiry_ms, &key);
                    let value = format::seal(Kind::GroupOutcomeExpiry, &index, &[], &[])?;
                    sealed.push((Table::GroupOutcomeExpiry, index.to_vec(), Some(value)));
                    let value = format::seal_group_outcome(&key, expiry_ms, keep_ms)?;
                    (None, Some(value))
                }
            };
            put_or_remove(tables, &mut sealed, Table::GroupDecision, &key, open)?;
            put_or_remove(tables, &mut sealed, Table::GroupOutcome, &key, settled)?;
        }
        Ok(sealed)
    }
}

/// What is not there is not removed: that would be one more change to be kept.
fn put_or_remove(
    tables: &impl Reads,
    sealed: &mut Changes,
    table: Table,
    key: &[u8],
    value: Option<Vec<u8>>,
) -> Result<(), StoreError> {
    if value.is_some() || tables.value(table, key)?.is_some() {
        sealed.push((table, key.to_vec(), value));
    }
    Ok(())
}

fn stored_part(tables: &impl Reads, uid: Uid) -> Result<Option<PartRef<'_>>, StoreError> {
    let key = uid.to_bytes();
    let value = tables.value(Table::GroupPart, &key)?;
    value
        .map(|value| format::unseal_part(&key, value))
        .transpose()
}

fn stored_checkpoint(
    tables: &impl Reads,
    uid: Uid,
) -> Result<Option<CheckpointRef<'_>>, StoreError> {
    let key = uid.to_bytes();
    let value = tables.value(Table::GroupCheckpoint, &key)?;
    value
        .map(|value| format::unseal_checkpoint(&key, value))
        .transpose()
}

fn stored_decision(
    tables: &impl Reads,
    uid: Uid,
    action: Uid,
) -> Result<Option<Decided<'_>>, StoreError> {
    let key = format::group_pair_key(uid, action);
    let value = tables.value(Table::GroupDecision, &key)?;
    let unseal = |value| format::unseal_decided(Kind::GroupDecision, &key, value);
    value.map(unseal).transpose()
}

/// Whether the object may have a part of the action while it has this one's.
fn check_vacant(uid: Uid, here: Option<Uid>, action: Uid) -> Result<(), StoreError> {
    match here {
        Some(other) if other != action => {
            let what = format!("a part of action {action}");
            Err(out_of_step(
                uid,
                what,
                format!("the part of action {other}"),
            ))
        }
        Some(_) | None => Ok(()),
    }
}

/// What the staged entries with these keys change.
pub(super) fn of_entries(
    tables: &impl Reads,
    keys: &[Vec<u8>],
    uid: Uid,
    fences: &Fences,
    now_ms: u64,
) -> Result<Changes, StoreError> {
    let mut outcome = Outcome::default();
    for key in keys {
        let Some(value) = tables.value(Table::GroupLog, key)? else {
            continue;
        };
        let bytes = format::unseal(Kind::GroupEntry, key, value)?;
        entry::each(bytes, |item| outcome.take(tables, item))?;
    }
    let stored: Stored = stored_epoch(tables, uid)?;
    if stored.is_none() && outcome.state.is_none() && !outcome.rows.is_empty() {
        return Err(StoreError::NoSuchObject { uid });
    }
    // Epochs of the node where it was made mean nothing here.
    let record_epoch = || fences.epoch_between().max(stored.unwrap_or_default());
    outcome.seal(tables, uid, record_epoch, now_ms)
}

/// What a page of a snapshot says about actions. Before the first page nothing counts.
pub(super) fn of_page(
    tables: &impl Reads,
    uid: Uid,
    is_first: bool,
    actions: Option<&[u8]>,
    now_ms: u64,
) -> Result<Changes, StoreError> {
    let Some(bytes) = actions else {
        return Ok(Vec::new());
    };
    let mut outcome = Outcome::default();
    if is_first {
        outcome.part = Some(None);
        outcome.checkpoint = Some(CheckpointRef::default());
    }
    entry::each(bytes, |item| outcome.take(tables, item))?;
    outcome.seal(tables, uid, Epoch::default, now_ms)
}

/// Writes the changes.
pub(super) fn write<W: Writes>(
    journal: &mut Journal<'_, W>,
    changes: Changes,
) -> Result<(), StoreError> {
    for (table, key, value) in changes {
        match value {
            Some(value) => journal.put_owned(table, key, value)?,
            None => journal.remove(table, &key)?,
        }
    }
    Ok(())
}

/// Whether parts that are added find none of another action, be it installed or staged before
/// them. All copies have the same entries before, so all say the same, and the leader says it
/// before anybody else has the entry.
pub(super) fn check_parts(
    tables: &impl Reads,
    uid: Uid,
    truncate: Option<u64>,
    add: &[(Stamp, bytes::Bytes)],
) -> Result<(), StoreError> {
    let mut brings_one = false;
    for (_, bytes) in add {
        brings_one |= entry::has_part(bytes);
    }
    if !brings_one {
        return Ok(());
    }
    let mut here = stored_part(tables, uid)?.map(|part| part.action);
    let prefix = uid.to_bytes();
    let end = prefix_end(&prefix);
    let range = (Bound::Included(&prefix[..]), below(end.as_deref()));
    tables.visit(Table::GroupLog, range, &mut |key, value| {
        let stamp = format::entry_stamp(key)?;
        if truncate.is_some_and(|kept| stamp.index > kept) {
            return Ok(ControlFlow::Break(()));
        }
        let bytes = format::unseal(Kind::GroupEntry, key, value)?;
        follow_part(uid, bytes, &mut here)?;
        Ok(ControlFlow::Continue(()))
    })?;
    for (_, bytes) in add {
        follow_part(uid, bytes, &mut here)?;
    }
    Ok(())
}

/// Whose part the object has after an entry.
fn follow_part(uid: Uid, bytes: &[u8], here: &mut Option<Uid>) -> Result<(), StoreError> {
    entry::each(bytes, |item| {
        match item {
            ItemRef::Part { action, .. } => {
                check_vacant(uid, *here, action)?;
                *here = Some(action);
            }
            ItemRef::End { action, .. } if *here == Some(action) => *here = None,
            _ => {}
        }
        Ok(())
    })
}

/// Whether no action is between its beginning and its end at the object.
pub(super) fn check_finished(tables: &impl Reads, uid: Uid) -> Result<(), StoreError> {
    if let Some(part) = stored_part(tables, uid)? {
        let what = "is prepared at it";
        let action = part.action;
        return Err(StoreError::UnfinishedAction { uid, action, what });
    }
    let checkpoint = stored_checkpoint(tables, uid)?.unwrap_or_default();
    if let Some((action, _)) = checkpoint.actions.first() {
        let (action, what) = (*action, "has called it, and has not ended");
        return Err(StoreError::UnfinishedAction { uid, action, what });
    }
    let prefix = uid.to_bytes();
    let end = prefix_end(&prefix);
    let range = (Bound::Included(&prefix[..]), below(end.as_deref()));
    let mut open = None;
    tables.visit(Table::GroupDecision, range, &mut |key, _| {
        open = Some(format::paired_action(Kind::GroupDecision, key)?);
        Ok(ControlFlow::Break(()))
    })?;
    match open {
        Some(action) => {
            let what = "was decided on by it, and not all have been told";
            Err(StoreError::UnfinishedAction { uid, action, what })
        }
        None => Ok(()),
    }
}

/// Removes what is known of actions at the object, damaged or not. Entries of expiry times stay:
/// they find nothing.
pub(super) fn forget<W: Writes>(journal: &mut Journal<'_, W>, uid: Uid) -> Result<(), StoreError> {
    let prefix = uid.to_bytes();
    journal.remove_if_there(Table::GroupPart, &prefix)?;
    journal.remove_if_there(Table::GroupCheckpoint, &prefix)?;
    for table in [Table::GroupDecision, Table::GroupOutcome] {
        for key in keys_with_prefix(journal.tables, table, &prefix)? {
            journal.remove(table, &key)?;
        }
    }
    Ok(())
}
