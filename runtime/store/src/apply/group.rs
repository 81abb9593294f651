//! Applying what is said about groups of copies.
//!
//! | item | `group` | `group_log` | `state` |
//! |---|---|---|---|
//! | `JoinGroup` | put | | |
//! | `GroupLog` | put if the view is another | removed, put | |
//! | `GroupInstall` | put | removed | put |
//! | `GroupSnapshot`, the first page | put | removed | removed |
//! | any page | | | rows put |
//! | the last page | put | | record put |
//! | `LeaveGroup` | removed | removed | removed, or left |
//!
//! What an install and a page say about actions is told in [`outcome`].
//!
//! As with an object that moves, rows are written to where they stay while the record is missing
//! ([`super::place`]).

mod outcome;

use std::ops::{Bound, ControlFlow};

use partha_core::group::{Stamp, View};
use partha_core::id::Uid;

use super::{Journal, place};
use crate::StoreError;
use crate::batch::Item;
use crate::fence::Fences;
use crate::format::{self, GroupCopy, Has, Kind};
use crate::place::{KeptReply, Row};
use crate::store::Record;
use crate::tables::{Reads, Table, Writes, below, keys_with_prefix, prefix_end};

/// Applies an item about a group.
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
        Item::JoinGroup {
            uid,
            view,
            has_state,
        } => join(journal, *uid, view, *has_state),
        Item::GroupLog {
            uid,
            view,
            truncate,
            add,
        } => change_log(journal, *uid, view, *truncate, add),
        Item::GroupInstall { uid, index } => install(journal, fences, *uid, *index, now_ms),
        Item::GroupSnapshot {
            uid,
            view,
            at,
            record,
            rows,
            replies,
            actions,
            page: number,
            last,
        } => {
            let page = Page {
                uid: *uid,
                view,
                at: *at,
                number: *number,
                rows,
                ends: record.as_ref().filter(|_| *last),
            };
            if *last && record.is_none() {
                let what = "the last page of a snapshot without a record".to_owned();
                return Err(out_of_step(*uid, what, "a state needs one".to_owned()));
            }
            page.take(journal, fences, actions.as_deref(), now_ms)?;
            save_replies(journal, replies, now_ms)
        }
        Item::LeaveGroup { uid, keep_object } => leave(journal, fences, *uid, *keep_object),
        Item::Create { .. }
        | Item::WriteState { .. }
        | Item::Delete { .. }
        | Item::PutRow { .. }
        | Item::RemoveRow { .. }
        | Item::SaveReply { .. }
        | Item::WriteShadow { .. }
        | Item::CreateShadow { .. }
        | Item::ShadowRow { .. }
        | Item::Prepare { .. }
        | Item::CommitShadow { .. }
        | Item::DeleteShadow { .. }
        | Item::Decide { .. }
        | Item::Settle { .. }
        | Item::PutPlace { .. }
        | Item::ShadowPlace { .. }
        | Item::Told { .. }
        | Item::PreparePart { .. }
        | Item::EndPart { .. }
        | Item::DecideGroup { .. }
        | Item::SettleGroup { .. }
        | Item::CheckpointGroup { .. } => unreachable!("the caller sorts items"),
    }
}

fn save_replies<W: Writes>(
    journal: &mut Journal<'_, W>,
    replies: &[KeptReply],
    now_ms: u64,
) -> Result<(), StoreError> {
    for reply in replies {
        let expiry_ms = now_ms.saturating_add(reply.keep_ms);
        super::save_reply(journal, reply.call, reply.uid, &reply.body, expiry_ms)?;
    }
    Ok(())
}

fn out_of_step(uid: Uid, what: String, here: String) -> StoreError {
    StoreError::OutOfStep { uid, what, here }
}

fn stored_copy(tables: &impl Reads, uid: Uid) -> Result<GroupCopy, StoreError> {
    let key = uid.to_bytes();
    match tables.value(Table::Group, &key)? {
        Some(value) => format::unseal_copy(&key, value),
        None => Err(StoreError::NoSuchGroup { uid }),
    }
}

fn put_copy<W: Writes>(
    journal: &mut Journal<'_, W>,
    uid: Uid,
    copy: &GroupCopy,
) -> Result<(), StoreError> {
    let key = uid.to_bytes();
    let value = format::seal_copy(&key, copy)?;
    journal.put(Table::Group, &key, &value)
}

fn is_here(tables: &impl Reads, uid: Uid) -> Result<bool, StoreError> {
    let record = tables.value(Table::State, &format::plain_key(uid))?;
    Ok(record.is_some())
}

/// The view from now on, if it is not older than the one that is known.
fn newer_view(uid: Uid, stored: &View, offered: &View) -> Result<Option<View>, StoreError> {
    if offered.number < stored.number {
        return Err(StoreError::OlderView {
            uid,
            offered: offered.number,
            stored: stored.number,
        });
    }
    Ok((offered != stored).then(|| offered.clone()))
}

fn join<W: Writes>(
    journal: &mut Journal<'_, W>,
    uid: Uid,
    view: &View,
    has_state: bool,
) -> Result<(), StoreError> {
    let there = journal.tables.value(Table::Group, &uid.to_bytes())?;
    if there.is_some() {
        return Err(StoreError::GroupExists { uid });
    }
    match (has_state, is_here(journal.tables, uid)?) {
        (true, false) => return Err(StoreError::NoSuchObject { uid }),
        (false, true) => return Err(StoreError::Exists { uid }),
        (true, true) | (false, false) => {}
    }
    if let Some(action) = place::who_moves(journal.tables, uid)? {
        return Err(StoreError::Arriving { uid, action });
    }
    let has = match has_state {
        true => Has::State(Stamp::default()),
        false => Has::Nothing,
    };
    let view = view.clone();
    put_copy(journal, uid, &GroupCopy { view, has })
}

/// The entry with this index, if it is staged.
fn staged_at(tables: &impl Reads, uid: Uid, index: u64) -> Result<Option<Stamp>, StoreError> {
    let first = first_staged(tables, uid, index)?;
    Ok(first.filter(|stamp| stamp.index == index))
}

/// The first staged entry from this index on.
fn first_staged(tables: &impl Reads, uid: Uid, from: u64) -> Result<Option<Stamp>, StoreError> {
    let mut found = None;
    visit_staged(tables, uid, from, &mut |key| {
        found = Some(format::entry_stamp(key)?);
        Ok(ControlFlow::Break(()))
    })?;
    Ok(found)
}

fn visit_staged(
    tables: &impl Reads,
    uid: Uid,
    from: u64,
    visitor: &mut dyn FnMut(&[u8]) -> crate::tables::Visit,
) -> Result<(), StoreError> {
    let start = format::entry_prefix(uid, from);
    let end = prefix_end(&uid.to_bytes());
    let range = (Bound::Included(&start[..]), below(end.as_deref()));
    tables.visit(Table::GroupLog, range, &mut |key, _| visitor(key))
}

/// Keys of staged entries from this index on.
fn staged_keys(tables: &impl Reads, uid: Uid, from: u64) -> Result<Vec<Vec<u8>>, StoreError> {
    let mut keys = Vec::new();
    visit_staged(tables, uid, from, &mut |key| {
        keys.push(key.to_vec());
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(keys)
}

/// See [`Item::GroupLog`]. Looks at the entries before and behind the first one that is added, and
/// at those that go, however many are staged; and at all, if a part of an action is added.
fn change_log<W: Writes>(
    journal: &mut Journal<'_, W>,
    uid: Uid,
    view: &View,
    truncate: Option<u64>,
    add: &[(Stamp, bytes::Bytes)],
) -> Result<(), StoreError> {
    let copy = stored_copy(journal.tables, uid)?;
    let new_view = newer_view(uid, &copy.view, view)?;
    let mut gone = Vec::new();
    if truncate.is_some() || !add.is_empty() {
        let Has::State(installed) = copy.has else {
            let what = "a change of the log".to_owned();
            return Err(out_of_step(uid, what, "no state".to_owned()));
        };
        if let Some(kept) = truncate {
            if kept < installed.index {
                let what = format!("a log that ends at {kept}");
                return Err(out_of_step(
                    uid,
                    what,
                    format!("{installed:?} is installed"),
                ));
            }
            gone = staged_keys(journal.tables, uid, kept.saturating_add(1))?;
        }
        check_sequence(journal.tables, uid, installed, truncate, add)?;
        outcome::check_parts(journal.tables, uid, truncate, add)?;
    }
    let mut put = Vec::with_capacity(add.len());
    for (stamp, bytes) in add {
        let key = format::entry_key(uid, *stamp);
        put.push((key, format::seal(Kind::GroupEntry, &key, bytes, &[])?));
    }
    for key in gone {
        journal.remove(Table::GroupLog, &key)?;
    }
    for (key, value) in put {
        journal.put_owned(Table::GroupLog, key.to_vec(), value)?;
    }
    match new_view {
        Some(view) => put_copy(journal, uid, &GroupCopy { view, ..copy }),
        None => Ok(()),
    }
}

/// Whether the entries follow each other, and the last one that stays.
fn check_sequence(
    tables: &impl Reads,
    uid: Uid,
    installed: Stamp,
    truncate: Option<u64>,
    add: &[(Stamp, bytes::Bytes)],
) -> Result<(), StoreError> {
    let Some((first, _)) = add.first() else {
        return Ok(());
    };
    let fail =
        |stamp: &Stamp, here: String| Err(out_of_step(uid, format!("entry {stamp:?}"), here));
    let before = match first.index.checked_sub(1) {
        Some(before) if before == installed.index => Some(installed),
        Some(before) if before > installed.index && truncate.is_none_or(|kept| before <= kept) => {
            staged_at(tables, uid, before)?
        }
        Some(_) | None => None,
    };
    let Some(mut last) = before else {
        return fail(
            first,
            format!("{installed:?} is installed, no entry comes right before it"),
        );
    };
    let stays = |stamp: &Stamp| truncate.is_none_or(|kept| stamp.index <= kept);
    if let Some(there) = first_staged(tables, uid, first.index)?.filter(stays) {
        return fail(first, format!("{there:?} is in its place"));
    }
    for (stamp, _) in add {
        if last.index.checked_add(1) != Some(stamp.index) || stamp.view < last.view {
            return fail(stamp, format!("{last:?} comes before it"));
        }
        last = *stamp;
    }
    Ok(())
}

/// See [`Item::GroupInstall`]. Everything is looked at before the first write.
fn install<W: Writes>(
    journal: &mut Journal<'_, W>,
    fences: &Fences,
    uid: Uid,
    index: u64,
    now_ms: u64,
) -> Result<(), StoreError> {
    let broken = |why: String| StoreError::BrokenCopy { uid, index, why };
    let copy = match stored_copy(journal.tables, uid) {
        Err(error @ StoreError::Corrupt { .. }) => return Err(broken(error.to_string())),
        other => other?,
    };
    let Has::State(installed) = copy.has else {
        return Err(broken("it has no state".to_owned()));
    };
    if index <= installed.index {
        return Ok(());
    }
    let keys = staged_keys_up_to(journal.tables, uid, installed, index)?;
    let planned = outcome::of_entries(&*journal.tables, &keys, uid, fences, now_ms);
    let changes = planned.map_err(|error| match error {
        error @ (StoreError::Corrupt { .. }
        | StoreError::BadEntry { .. }
        | StoreError::OutOfStep { .. }
        | StoreError::NoSuchObject { .. }) => broken(error.to_string()),
        other => other,
    })?;
    let last = keys
        .last()
        .map(|key| format::entry_stamp(key))
        .transpose()?;
    fences.note(uid);
    outcome::write(journal, changes)?;
    for key in &keys {
        journal.remove(Table::GroupLog, key)?;
    }
    let has = Has::State(last.unwrap_or(installed));
    put_copy(journal, uid, &GroupCopy { has, ..copy })
}

/// The keys of the entries behind the installed one up to `index`, all of them.
fn staged_keys_up_to(
    tables: &impl Reads,
    uid: Uid,
    installed: Stamp,
    index: u64,
) -> Result<Vec<Vec<u8>>, StoreError> {
    let (mut keys, mut last) = (Vec::new(), installed);
    visit_staged(tables, uid, installed.index.saturating_add(1), &mut |key| {
        let stamp = format::entry_stamp(key)?;
        if stamp.index > index || stamp.index != last.index + 1 || stamp.view < last.view {
            return Ok(ControlFlow::Break(()));
        }
        keys.push(key.to_vec());
        last = stamp;
        Ok(match stamp.index == index {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        })
    })?;
    if last.index != index {
        let why = format!("the log that is here ends at {last:?}");
        return Err(StoreError::BrokenCopy { uid, index, why });
    }
    Ok(keys)
}

/// A page of a snapshot, without its replies.
struct Page<'p> {
    uid: Uid,
    view: &'p View,
    at: Stamp,
    number: u32,
    rows: &'p [Row],
    /// The record, if it is the last.
    ends: Option<&'p Record>,
}

impl Page<'_> {
    /// All is looked at before the first write.
    fn take<W: Writes>(
        &self,
        journal: &mut Journal<'_, W>,
        fences: &Fences,
        actions: Option<&[u8]>,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        self.check(journal.tables)?;
        let is_first = self.number == 0;
        let told = outcome::of_page(&*journal.tables, self.uid, is_first, actions, now_ms)?;
        self.put(journal, fences)?;
        outcome::write(journal, told)
    }

    fn check(&self, tables: &impl Reads) -> Result<(), StoreError> {
        let uid = self.uid;
        let brings = !self.rows.is_empty() || self.ends.is_some();
        let clears = match self.number == 0 {
            // A copy that is damaged is to be made whole by this.
            true => match stored_copy(tables, uid) {
                Err(StoreError::Corrupt { .. }) => place::has_too_many_rows(tables, uid)?,
                Err(error) => return Err(error),
                Ok(copy) => {
                    newer_view(uid, &copy.view, self.view)?;
                    place::has_too_many_rows(tables, uid)?
                }
            },
            false => {
                let copy = stored_copy(tables, uid)?;
                newer_view(uid, &copy.view, self.view)?;
                let (at, next) = (self.at, self.number);
                if copy.has != (Has::Pages { at, next }) {
                    let what = format!("page {next} of the snapshot of {at:?}");
                    return Err(out_of_step(uid, what, format!("{:?}", copy.has)));
                }
                place::is_leftover(tables, uid)?
            }
        };
        match brings && clears {
            true => Err(StoreError::Clearing { uid }),
            false => Ok(()),
        }
    }

    fn put<W: Writes>(
        &self,
        journal: &mut Journal<'_, W>,
        fences: &Fences,
    ) -> Result<(), StoreError> {
        let uid = self.uid;
        fences.note(uid);
        if self.number == 0 {
            for key in keys_with_prefix(journal.tables, Table::GroupLog, &uid.to_bytes())? {
                journal.remove(Table::GroupLog, &key)?;
            }
            outcome::forget(journal, uid)?;
            remove_object(journal, fences, uid)?;
        }
        for Row { part, key, value } in self.rows {
            let key = format::row_key(uid, *part, key);
            let value = format::seal(Kind::Row, &key, value, &[])?;
            journal.put_owned(Table::State, key, value)?;
        }
        let has = match self.ends {
            None => Has::Pages {
                at: self.at,
                next: self.number.saturating_add(1),
            },
            Some(record) => {
                place::forget_place(journal, uid)?;
                let key = format::plain_key(uid);
                let mut record = record.clone();
                record.epoch = fences.epoch_between();
                let value = format::seal_record(Kind::State, &key, &record)?;
                journal.put_owned(Table::State, key.to_vec(), value)?;
                Has::State(self.at)
            }
        };
        let view = self.view.clone();
        put_copy(journal, uid, &GroupCopy { view, has })
    }
}

/// Removes the object, or what there is of one that has no record.
fn remove_object<W: Writes>(
    journal: &mut Journal<'_, W>,
    fences: &Fences,
    uid: Uid,
) -> Result<(), StoreError> {
    match is_here(journal.tables, uid)? {
        true => super::delete(journal, fences, uid),
        false => place::clear(journal, uid),
    }
}

/// See [`Item::LeaveGroup`].
fn leave<W: Writes>(
    journal: &mut Journal<'_, W>,
    fences: &Fences,
    uid: Uid,
    keep_object: bool,
) -> Result<(), StoreError> {
    let key = uid.to_bytes();
    if journal.tables.value(Table::Group, &key)?.is_none() {
        return Ok(());
    }
    let stays = keep_object && is_here(journal.tables, uid)?;
    if stays {
        outcome::check_finished(journal.tables, uid)?;
    }
    journal.remove(Table::Group, &key)?;
    for key in keys_with_prefix(journal.tables, Table::GroupLog, &key)? {
        journal.remove(Table::GroupLog, &key)?;
    }
    if stays {
        // Whoever asks late for an outcome is still to be told; of a checkpoint only what has ended
        // is left, and nobody takes it over.
        journal.remove_if_there(Table::GroupCheckpoint, &key)?;
        return Ok(());
    }
    outcome::forget(journal, uid)?;
    remove_object(journal, fences, uid)
}
