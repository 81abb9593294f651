//! The rows of groups: which copies an object has, and which of them leads.
//!
//! A row is its view, a framed Cap'n Proto message under the uid in big-endian bytes, so that
//! groups are listed by identity. Which change of it is right is the core's to say
//! ([`GroupView::change`]); here it is seen to that a change is asked for by the latest life of its
//! node, and that numbers only grow: over the object's moves before it was a group, the group's
//! views, and its moves after.

use partha::abi::{Message, Struct, message};
use partha::services::binder::binder::MakeGroupError;
use partha::services::binder::{
    BadGroup, GROUPS_MAX, GroupPlacement, GroupView, MovedObject, OldView, ViewChange,
};
use partha::{Bytes, ErrorKind, Result, Rows, SystemError, Uid};

use crate::moved;

/// The part of the rows that has them.
const GROUPS: u16 = 3;
/// The part that has the latest life of each member that has asked for a change, by node.
const LIVES: u16 = 4;

/// The view of an object, if it is a group.
pub(crate) fn find(rows: &Rows, object: Uid) -> Result<Option<GroupView>> {
    let row = rows.read(GROUPS, &object.to_bytes())?;
    row.map(|row| decode(object, row)).transpose()
}

/// The views of those of the objects that are groups.
pub(crate) fn find_all(rows: &Rows, objects: &[Uid]) -> Result<Vec<GroupView>> {
    let found = objects.iter().filter_map(|it| find(rows, *it).transpose());
    found.collect()
}

/// Groups after one of them.
pub(crate) fn list(rows: &Rows, after: Uid, limit: u32) -> Result<Vec<GroupView>> {
    let after = (after != Uid::NIL).then(|| after.to_bytes());
    let after = after.as_ref().map(<[u8; 16]>::as_slice);
    let limit = GROUPS_MAX.min(limit as usize);
    let rows = rows.scan(GROUPS, after, limit)?;
    let view = |(key, row): (Bytes, Bytes)| {
        let object = key.as_ref().try_into().map(Uid::from_bytes);
        let object = object.map_err(|_| {
            let detail = format!("a group has a key of {} bytes", key.len());
            SystemError::new(ErrorKind::Store, detail)
        })?;
        decode(object, row)
    };
    rows.into_iter().map(view).collect()
}

/// Makes an object a group, unless it is one.
pub(crate) fn make(rows: &Rows, view: GroupView) -> Result<GroupView, MakeGroupError> {
    let object = view.object;
    if let Some(known) = find(rows, object)?
        && !never_became_one(&known, &view)
    {
        return Ok(known);
    }
    if let Err(reason) = view.check() {
        return Err(BadGroup { object, reason }.into());
    }
    let known = moved::find(rows, object)?.map_or(0, |row| row.moves);
    if view.number <= known {
        // A question of long ago that comes again must not make anew what is dissolved.
        return Err(OldView { object, known }.into());
    }
    put(rows, &view)?;
    tracing::debug!(%object, number = view.number, members = ?view.members, "a group is made");
    Ok(view)
}

/// Whether a known group has never become one: its first copy was not made when the binder had been
/// asked, and the object has moved since then, as objects with copies do not. The number that is
/// asked for tells so: it is that of the moves and one, and no group's is lower than that.
fn never_became_one(known: &GroupView, new: &GroupView) -> bool {
    known.members.len() == 1 && known.number < new.number
}

/// Changes a view if that is right. Answers the one that is in force then, and whether it is a new
/// one; nothing of an object that is no group. `registered` tells the latest life of a node that
/// has registered.
pub(crate) fn change(
    rows: &Rows,
    change: &ViewChange,
    registered: impl FnOnce(u64) -> Result<u32>,
) -> Result<Option<(GroupView, bool)>> {
    let Some(view) = find(rows, change.object)? else {
        return Ok(None);
    };
    // Of others nothing is kept, however many nodes somebody makes up.
    if !view.members.contains(&change.by) {
        return Ok(Some((view, false)));
    }
    let known = life(rows, change.by)?;
    if change.incarnation < known.max(registered(change.by)?) {
        return Ok(Some((view, false)));
    }
    if change.incarnation > known {
        let value = change.incarnation.to_be_bytes().to_vec();
        rows.put(LIVES, &change.by.to_be_bytes(), value.into())?;
    }
    let Some(changed) = view.change(change) else {
        return Ok(Some((view, false)));
    };
    put(rows, &changed)?;
    let ViewChange {
        object, by, wish, ..
    } = change;
    let (number, members) = (changed.number, &changed.members);
    tracing::debug!(%object, by, ?wish, number, ?members, "a view has changed");
    Ok(Some((changed, true)))
}

/// Other copies are wanted of a group, or elsewhere. Nothing if the object is none.
pub(crate) fn want(
    rows: &Rows,
    object: Uid,
    wanted: u16,
    placement: Option<GroupPlacement>,
) -> Result<Option<GroupView>> {
    let Some(view) = find(rows, object)? else {
        return Ok(None);
    };
    let placement = placement.unwrap_or_else(|| view.placement.clone());
    let wished = GroupView {
        wanted,
        placement,
        ..view
    };
    put(rows, &wished)?;
    Ok(Some(wished))
}

/// Makes a group of one member an object without copies. Answers whether it is no group then.
pub(crate) fn dissolve(rows: &Rows, object: Uid, expected: u64) -> Result<bool> {
    let Some(view) = find(rows, object)? else {
        return Ok(true);
    };
    let (number, &[node]) = (view.number, view.members.as_slice()) else {
        return Ok(false);
    };
    if number != expected {
        return Ok(false);
    }
    rows.remove(GROUPS, &object.to_bytes())?;
    let moves = number;
    let there = MovedObject {
        object,
        node,
        moves,
    };
    moved::put(rows, &there)?;
    tracing::debug!(%object, node, number, "a group is dissolved");
    Ok(true)
}

/// Whether an object is a group, after this news of where it is.
///
/// A group has a number beyond that of all moves before it was one, and does not move. So where the
/// only member of a view has let the object go later, the node never became one: it ended, or its
/// store failed, after the view was made. The view goes.
pub(crate) fn is_group_after(rows: &Rows, news: &MovedObject) -> Result<bool> {
    let Some(view) = find(rows, news.object)? else {
        return Ok(false);
    };
    let has_left = view.members.len() == 1 && view.members[0] != news.node;
    if !has_left || news.moves < view.number {
        return Ok(true);
    }
    rows.remove(GROUPS, &news.object.to_bytes())?;
    let (object, number) = (news.object, view.number);
    tracing::info!(%object, number, node = news.node, "a group that never was is forgotten");
    Ok(false)
}

fn put(rows: &Rows, view: &GroupView) -> Result<()> {
    let written = message(GroupView::DATA, GroupView::POINTERS, |w, s| {
        view.write(w, s);
    });
    let (framed, _) = written.finish()?;
    rows.put(GROUPS, &view.object.to_bytes(), framed.into())
}

fn decode(object: Uid, row: Bytes) -> Result<GroupView> {
    let row = Message::from_framed(row, Vec::new())?;
    let view = GroupView::read(row.reader()?)?;
    let wrong = match view.check() {
        Ok(()) if view.object == object => return Ok(view),
        Ok(()) => format!("it is of {}", view.object),
        Err(reason) => reason,
    };
    let detail = format!("the row of group {object}: {wrong}");
    Err(SystemError::new(ErrorKind::Store, detail))
}

/// The latest life of a node that has asked for a change; 0 if none has.
fn life(rows: &Rows, node: u64) -> Result<u32> {
    let Some(row) = rows.read(LIVES, &node.to_be_bytes())? else {
        return Ok(0);
    };
    let value = row.as_ref().try_into().map_err(|_| {
        let detail = format!("the row of node {node:x}'s life has {} bytes", row.len());
        SystemError::new(ErrorKind::Store, detail)
    })?;
    Ok(u32::from_be_bytes(value))
}
