//! Applying batches inside one transaction, over any [`Writes`].
//!
//! Several batches share a transaction, yet each is all or nothing by itself. An item is checked
//! completely before its first write, so a refusal can only leave behind what earlier items of
//! the same batch wrote; that is taken back from an undo journal. The journal is kept only up to
//! the last item that can be refused: the common batch, one new state and one saved reply, keeps
//! none. (LMDB's nested transactions would do the same at the price of a shadow copy of every
//! page touched.)

mod action;
mod expiry;
mod group;
mod place;

use std::ops::ControlFlow;

use partha_core::id::{CallId, Epoch, Uid};

pub(crate) use self::expiry::Expired;
use crate::StoreError;
use crate::batch::{Batch, Item};
use crate::fence::Fences;
use crate::format::{self, Kind};
use crate::store::Record;
use crate::tables::{Reads, Table, WHOLE, Writes, keys_with_prefix};

/// How many expired replies and outcomes, and rows of objects that have left, to remove, and what
/// time it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sweep {
    /// The wall clock, in milliseconds since 1970.
    pub(crate) now_ms: u64,
    /// At most so many of each; 0 leaves them alone.
    pub(crate) limit: usize,
}

/// What came of a set of batches.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// For each batch in order.
    pub(crate) results: Vec<Result<(), StoreError>>,
    /// What was removed.
    pub(crate) expired: Expired,
    /// When the next reply or outcome expires; at once if there are rows to be removed.
    pub(crate) next_expiry_ms: Option<u64>,
    /// Whether there is anything to commit.
    pub(crate) changed: bool,
}

/// Applies the batches in order. An error means that the whole transaction must be abandoned;
/// what concerns one batch only is in [`Applied::results`].
pub(crate) fn run(
    tables: &mut impl Writes,
    batches: &[Batch],
    fences: &Fences,
    sweep: Sweep,
) -> Result<Applied, StoreError> {
    let mut journal = Journal {
        tables,
        undo: Vec::new(),
        keep: false,
        writes: 0,
        last_row: None,
    };
    let mut applied = Applied::default();
    for batch in batches {
        let result = apply_batch(&mut journal, batch, fences, sweep.now_ms);
        if let Err(error) = &result {
            if !error.concerns_one_batch() {
                return Err(error.clone());
            }
            fences.poison(batch, error);
        }
        applied.results.push(result);
    }
    if sweep.limit > 0 {
        applied.expired = expiry::remove(&mut journal, sweep)?;
    }
    applied.next_expiry_ms = expiry::next_ms(journal.tables)?;
    applied.changed = journal.writes > 0;
    Ok(applied)
}

fn apply_batch<W: Writes>(
    journal: &mut Journal<'_, W>,
    batch: &Batch,
    fences: &Fences,
    now_ms: u64,
) -> Result<(), StoreError> {
    let last = batch.items.iter().rposition(can_be_refused);
    let writes_before = journal.writes;
    journal.last_row = None;
    for (index, item) in batch.items.iter().enumerate() {
        if !matches!(item, Item::ShadowRow { .. }) {
            journal.last_row = None;
        }
        journal.keep = last.is_some_and(|last| index < last);
        if let Err(error) = apply_item(journal, item, fences, now_ms) {
            if error.concerns_one_batch() {
                journal.roll_back()?;
                journal.writes = writes_before;
            }
            return Err(error);
        }
    }
    journal.undo.clear();
    Ok(())
}

/// Whether an item can fail for a reason of its own (not of the disk).
fn can_be_refused(item: &Item) -> bool {
    match item {
        Item::Create { .. }
        | Item::WriteState { .. }
        | Item::Delete { .. }
        | Item::PutRow { .. }
        | Item::RemoveRow { .. }
        | Item::WriteShadow { .. }
        | Item::CreateShadow { .. }
        | Item::ShadowRow { .. }
        | Item::CommitShadow { .. }
        | Item::Settle { .. }
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
        | Item::CheckpointGroup { .. } => true,
        Item::SaveReply { .. }
        | Item::Prepare { .. }
        | Item::DeleteShadow { .. }
        | Item::Decide { .. } => false,
    }
}

fn apply_item<W: Writes>(
    journal: &mut Journal<'_, W>,
    item: &Item,
    fences: &Fences,
    now_ms: u64,
) -> Result<(), StoreError> {
    match item {
        Item::Create { uid, record } => create(journal, fences, *uid, record),
        Item::WriteState { uid, record } => write_state(journal, fences, *uid, record),
        Item::Delete { uid } => delete(journal, fences, *uid),
        Item::PutRow {
            uid,
            part,
            key,
            value,
        } => {
            let key = existing_row_key(journal, fences, *uid, *part, key)?;
            let value = format::seal(Kind::Row, &key, value, &[])?;
            journal.put(Table::State, &key, &value)
        }
        Item::RemoveRow { uid, part, key } => {
            let key = existing_row_key(journal, fences, *uid, *part, key)?;
            journal.remove(Table::State, &key)
        }
        Item::SaveReply {
            call,
            uid,
            body,
            keep_ms,
        } => save_reply(journal, *call, *uid, body, now_ms.saturating_add(*keep_ms)),
        Item::WriteShadow { .. }
        | Item::CreateShadow { .. }
        | Item::ShadowRow { .. }
        | Item::Prepare { .. }
        | Item::CommitShadow { .. }
        | Item::DeleteShadow { .. }
        | Item::Decide { .. }
        | Item::Settle { .. } => action::apply(journal, item, fences, now_ms),
        Item::PutPlace { uid, place } => place::put_place(journal, *uid, *place),
        Item::ShadowPlace { action, uid, place } => {
            place::shadow_place(journal, *action, *uid, *place)
        }
        Item::Told { uid, moves } => place::told(journal, *uid, *moves),
        Item::JoinGroup { .. }
        | Item::GroupLog { .. }
        | Item::GroupInstall { .. }
        | Item::GroupSnapshot { .. }
        | Item::LeaveGroup { .. } => group::apply(journal, item, fences, now_ms),
        Item::PreparePart { .. }
        | Item::EndPart { .. }
        | Item::DecideGroup { .. }
        | Item::SettleGroup { .. }
        | Item::CheckpointGroup { .. } => unreachable!("refused when it was submitted"),
    }
}

fn create<W: Writes>(
    journal: &mut Journal<'_, W>,
    fences: &Fences,
    uid: Uid,
    record: &Record,
) -> Result<(), StoreError> {
    let key = format::plain_key(uid);
    place::make_way(journal, uid)?;
    place::forget_place(journal, uid)?;
    fences.note(uid);
    let value = format::seal_record(Kind::State, &key, record)?;
    journal.put(Table::State, &key, &value)
}

fn write_state<W: Writes>(
    journal: &mut Journal<'_, W>,
    fences: &Fences,
    uid: Uid,
    record: &Record,
) -> Result<(), StoreError> {
    if check_epoch(journal, fences, uid, record.epoch)?.is_none() {
        return Err(StoreError::NoSuchObject { uid });
    }
    let key = format::plain_key(uid);
    let value = format::seal_record(Kind::State, &key, record)?;
    journal.put(Table::State, &key, &value)
}

/// The stored epoch, if the object is there and a write under `offered` may pass.
fn check_epoch<W: Writes>(
    journal: &Journal<'_, W>,
    fences: &Fences,
    uid: Uid,
    offered: Epoch,
) -> Result<Option<Epoch>, StoreError> {
    let current = stored_epoch(journal.tables, uid)?;
    if let Some(current) = current
        && current > offered
    {
        return Err(StoreError::Fenced {
            uid,
            offered,
            current,
        });
    }
    fences.admit(uid, offered)?;
    Ok(current)
}

fn stored_epoch(tables: &impl Reads, uid: Uid) -> Result<Option<Epoch>, StoreError> {
    let key = format::plain_key(uid);
    let Some(value) = tables.value(Table::State, &key)? else {
        return Ok(None);
    };
    format::unseal_record(Kind::State, &key, value).map(|(head, _)| Some(head.epoch))
}

/// Removes plain record, rows and shadows of both. Shadows are sorted by action, so all of them are
/// looked at: there are as many as actions are prepared, usually none.
fn delete<W: Writes>(
    journal: &mut Journal<'_, W>,
    fences: &Fences,
    uid: Uid,
) -> Result<(), StoreError> {
    let plain = format::plain_key(uid);
    if journal.tables.value(Table::State, &plain)?.is_none() {
        return Err(StoreError::NoSuchObject { uid });
    }
    fences.note(uid);
    journal.remove(Table::State, &plain)?;
    place::leave(journal, uid)?;
    let mut shadows = Vec::new();
    journal.tables.visit(Table::Shadow, WHOLE, &mut |key, _| {
        if key.get(16..) == Some(&uid.to_bytes()[..]) {
            shadows.push(key.to_vec());
        }
        Ok(ControlFlow::Continue(()))
    })?;
    for shadow in shadows {
        for row in keys_with_prefix(journal.tables, Table::ShadowRow, &shadow)? {
            journal.remove(Table::ShadowRow, &row)?;
        }
        journal.remove_if_there(Table::ShadowPlace, &shadow)?;
        journal.remove(Table::Shadow, &shadow)?;
    }
    Ok(())
}

fn existing_row_key<W: Writes>(
    journal: &Journal<'_, W>,
    fences: &Fences,
    uid: Uid,
    part: u16,
    row: &[u8],
) -> Result<Vec<u8>, StoreError> {
    if journal
        .tables
        .value(Table::State, &format::plain_key(uid))?
        .is_none()
    {
        return Err(StoreError::NoSuchObject { uid });
    }
    fences.note(uid);
    Ok(format::row_key(uid, part, row))
}

/// A reply that is saved again leaves its old index entry behind; [`expiry`] tells by the
/// time in the reply that the entry is not the current one.
fn save_reply<W: Writes>(
    journal: &mut Journal<'_, W>,
    call: CallId,
    uid: Uid,
    body: &[u8],
    expiry_ms: u64,
) -> Result<(), StoreError> {
    for (table, key, value) in format::seal_saved(call, uid, body, expiry_ms)? {
        journal.put_owned(table, key, value)?;
    }
    Ok(())
}

/// A shadow row, by action and object, with its number; none if it is one of an object that is on
/// its way here.
#[derive(Clone, Copy, Debug)]
struct LastRow {
    action: Uid,
    uid: Uid,
    number: Option<u32>,
}

/// Writes through to the tables and remembers what was there before, while asked to.
struct Journal<'t, W> {
    tables: &'t mut W,
    undo: Vec<(Table, Vec<u8>, Option<Vec<u8>>)>,
    keep: bool,
    writes: u64,
    /// The shadow row that was written just before.
    last_row: Option<LastRow>,
}

impl<W: Writes> Journal<'_, W> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.remember(table, key)?;
        self.tables.put(table, key, value)
    }

    fn put_owned(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) -> Result<(), StoreError> {
        self.remember(table, &key)?;
        self.tables.put_owned(table, key, value)
    }

    fn remove(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        self.remember(table, key)?;
        self.tables.remove(table, key)
    }

    /// As [`Journal::remove`], and counts as a change only if it is one.
    fn remove_if_there(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        if self.tables.value(table, key)?.is_some() {
            self.remove(table, key)?;
        }
        Ok(())
    }

    fn remember(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        self.writes += 1;
        if self.keep {
            let before = self.tables.value(table, key)?.map(<[u8]>::to_vec);
            self.undo.push((table, key.to_vec(), before));
        }
        Ok(())
    }

    fn roll_back(&mut self) -> Result<(), StoreError> {
        while let Some((table, key, before)) = self.undo.pop() {
            match before {
                Some(value) => self.tables.put(table, &key, &value)?,
                None => self.tables.remove(table, &key)?,
            }
        }
        Ok(())
    }
}
