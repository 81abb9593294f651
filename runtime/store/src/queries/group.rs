//! Reading what is about groups of copies.

use std::ops::{Bound, ControlFlow};

use bytes::Bytes;
use partha_core::group::Stamp;
use partha_core::id::Uid;

use super::{read_state, visit_actions};
use crate::StoreError;
use crate::batch::{Batch, Item};
use crate::entry;
use crate::format::{self, Decided, GroupCopy, Has, Kind};
use crate::group::{
    ActionCursor, ActionPage, GroupCheckpoint, GroupDecision, GroupRecord, GroupState, Part, Told,
};
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

/// See [`crate::ObjectStore::read_part`].
pub(crate) fn read_part(tables: &impl Reads, uid: Uid) -> Result<Option<Part>, StoreError> {
    let key = uid.to_bytes();
    let Some(value) = tables.value(Table::GroupPart, &key)? else {
        return Ok(None);
    };
    let part = format::unseal_part(&key, value)?;
    Ok(Some(Part {
        action: part.action,
        coordinator: part.coordinator,
        body: Bytes::copy_from_slice(part.body),
    }))
}

/// See [`crate::ObjectStore::read_checkpoint`].
pub(crate) fn read_checkpoint(
    tables: &impl Reads,
    uid: Uid,
) -> Result<Option<GroupCheckpoint>, StoreError> {
    let key = uid.to_bytes();
    let Some(value) = tables.value(Table::GroupCheckpoint, &key)? else {
        return Ok(None);
    };
    let checkpoint = format::unseal_checkpoint(&key, value)?;
    Ok(Some(checkpoint.owned(Bytes::copy_from_slice)))
}

/// See [`crate::ObjectStore::read_group_decision`].
pub(crate) fn read_group_decision(
    tables: &impl Reads,
    uid: Uid,
    action: Uid,
) -> Result<Option<GroupDecision>, StoreError> {
    let key = format::group_pair_key(uid, action);
    if let Some(value) = tables.value(Table::GroupDecision, &key)? {
        let decided = format::unseal_decided(Kind::GroupDecision, &key, value)?;
        return Ok(Some(open_decision(&decided)));
    }
    let Some(value) = tables.value(Table::GroupOutcome, &key)? else {
        return Ok(None);
    };
    format::unseal_group_outcome(&key, value)?;
    Ok(Some(GroupDecision {
        participants: Vec::new(),
        groups: Vec::new(),
        settled: true,
    }))
}

fn open_decision(decided: &Decided<'_>) -> GroupDecision {
    GroupDecision {
        participants: decided.participants(),
        groups: decided.groups(),
        settled: false,
    }
}

/// See [`crate::ObjectStore::unsettled`].
pub(crate) fn unsettled(
    tables: &impl Reads,
    uid: Uid,
) -> Result<Vec<(Uid, GroupDecision)>, StoreError> {
    let mut found = Vec::new();
    visit_actions_of(
        tables,
        Table::GroupDecision,
        uid,
        None,
        &mut |key, value| {
            let decided = format::unseal_decided(Kind::GroupDecision, key, value)?;
            let action = format::paired_action(Kind::GroupDecision, key)?;
            found.push((action, open_decision(&decided)));
            Ok(ControlFlow::Continue(()))
        },
    )?;
    Ok(found)
}

/// Visits what the log of an object says about actions, behind one of them.
fn visit_actions_of(
    tables: &impl Reads,
    table: Table,
    uid: Uid,
    after: Option<Uid>,
    visitor: &mut dyn FnMut(&[u8], &[u8]) -> crate::tables::Visit,
) -> Result<(), StoreError> {
    let prefix = uid.to_bytes();
    let after = after.map(|action| format::group_pair_key(uid, action));
    let from = match &after {
        None => Bound::Included(&prefix[..]),
        Some(key) => Bound::Excluded(&key[..]),
    };
    let end = prefix_end(&prefix);
    tables.visit(table, (from, below(end.as_deref())), visitor)
}

/// See [`crate::ObjectStore::export_actions`].
pub(crate) fn export_actions(
    tables: &impl Reads,
    uid: Uid,
    from: ActionCursor,
    limit_bytes: usize,
) -> Result<ActionPage, StoreError> {
    let mut page = Collected {
        items: Vec::new(),
        bytes: 0,
        limit_bytes,
        told: from.0,
    };
    let copy = read_copy(tables, uid)?;
    if copy.is_some_and(|copy| matches!(copy.has, Has::State(_))) {
        page.collect(tables, uid)?;
    }
    let Collected { items, told, .. } = page;
    Ok(ActionPage {
        actions: (!items.is_empty()).then(|| entry::encode(&Batch::new(items))),
        next: ActionCursor(told),
    })
}

/// What is told about actions at a copy.
struct Collected {
    items: Vec<Item>,
    bytes: usize,
    limit_bytes: usize,
    told: Told,
}

impl Collected {
    fn collect(&mut self, tables: &impl Reads, uid: Uid) -> Result<(), StoreError> {
        if self.told == Told::Nothing {
            if let Some(part) = read_part(tables, uid)? {
                let Part {
                    action,
                    coordinator,
                    body,
                } = part;
                let part = Item::PreparePart {
                    uid,
                    action,
                    coordinator,
                    body,
                };
                let _ = self.push(part);
            }
            self.told = Told::Unsettled(None);
        }
        if let Told::Unsettled(after) = self.told {
            if self.collect_unsettled(tables, uid, after)?.is_break() {
                return Ok(());
            }
            self.told = Told::Settled(None);
        }
        let Told::Settled(after) = self.told else {
            return Ok(());
        };
        if self.collect_settled(tables, uid, after)?.is_break() {
            return Ok(());
        }
        let checkpoint = read_checkpoint(tables, uid)?;
        let item = checkpoint.map(|checkpoint| Item::CheckpointGroup { uid, checkpoint });
        if item.is_none_or(|item| self.push(item).is_continue()) {
            self.told = Told::All;
        }
        Ok(())
    }

    /// Whether there is no room for more.
    fn collect_unsettled(
        &mut self,
        tables: &impl Reads,
        uid: Uid,
        after: Option<Uid>,
    ) -> Result<ControlFlow<()>, StoreError> {
        let kind = Kind::GroupDecision;
        let mut ended = ControlFlow::Continue(());
        let visitor = &mut |key: &[u8], value: &[u8]| {
            let decided = format::unseal_decided(kind, key, value)?;
            let action = format::paired_action(kind, key)?;
            let decision = Item::DecideGroup {
                uid,
                action,
                participants: decided.participants(),
                groups: decided.groups(),
                keep_ms: decided.keep_ms,
            };
            ended = self.push(decision);
            if ended.is_continue() {
                self.told = Told::Unsettled(Some(action));
            }
            Ok(ended)
        };
        visit_actions_of(tables, Table::GroupDecision, uid, after, visitor)?;
        Ok(ended)
    }

    fn collect_settled(
        &mut self,
        tables: &impl Reads,
        uid: Uid,
        after: Option<Uid>,
    ) -> Result<ControlFlow<()>, StoreError> {
        let mut ended = ControlFlow::Continue(());
        let visitor = &mut |key: &[u8], value: &[u8]| {
            let (_, keep_ms) = format::unseal_group_outcome(key, value)?;
            let action = format::paired_action(Kind::GroupOutcome, key)?;
            // One with nobody to be told is settled.
            let decision = Item::DecideGroup {
                uid,
                action,
                participants: Vec::new(),
                groups: Vec::new(),
                keep_ms,
            };
            ended = self.push(decision);
            if ended.is_continue() {
                self.told = Told::Settled(Some(action));
            }
            Ok(ended)
        };
        visit_actions_of(tables, Table::GroupOutcome, uid, after, visitor)?;
        Ok(ended)
    }

    /// Takes the item in, unless there is no room beside others.
    fn push(&mut self, item: Item) -> ControlFlow<()> {
        let bytes = Batch::from(item.clone()).weight_bytes();
        if self.bytes + bytes > self.limit_bytes && !self.items.is_empty() {
            return ControlFlow::Break(());
        }
        self.bytes += bytes;
        self.items.push(item);
        ControlFlow::Continue(())
    }
}
