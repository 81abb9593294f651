//! The table of nodes, of objects that have moved, and of groups.
//!
//! A node is a row: its key the node id in big-endian bytes, so that nodes are listed by
//! identity, its value the [`NodeEntry`] as it registered, a framed Cap'n Proto message. Whether
//! it is alive is added when somebody asks, from what has been heard in this life of the binder.
//! Whether it is cordoned is said by operators and is no node's to change, so it outlives
//! registrations.
//!
//! # Names
//!
//! Names of nodes are for people and for `Place::Named`; uids do not depend on them. Two nodes
//! of one name are possible, most often since a store was thrown away and the node began anew.
//! While the first is alive it keeps the name, and the other is listed as `NAME (second)`; it is
//! asked to register again with each heartbeat, and gets the name when the first is gone, which
//! is then listed as `NAME (replaced)` until it registers again.

use std::time::Duration;

use partha::abi::{Message, Struct, message};
use partha::services::binder::binder::{
    ChangeViewError, ChangeViewsError, CordonError, LocateError, MakeGroupError, MovedError,
    RegisterError, Servant, SetWantedError, State, ViewsError,
};
use partha::services::binder::{
    BadGroup, BadLabels, GROUPS_MAX, GroupPlacement, GroupView, Label, Location, MOVED_MAX,
    MovedObject, NoSuchGroup, NodeEntry, OldIncarnation, TooManyGroups, TooManyMoved, UnknownNode,
    ViewChange,
};
use partha::{Bytes, Context, Result, Rows, Uid};

use crate::leases::Leases;
use crate::{moved, views};

/// The part of the rows that has the nodes.
const NODES: u16 = 1;
/// Nodes listed at a time, at most.
pub const NODES_MAX: u32 = 1_000;
/// Heartbeats in a lease: two may be lost.
const BEATS: u32 = 3;

/// The servant of the binder.
#[derive(Debug, Default)]
pub struct BinderServant {
    leases: Leases,
}

impl Servant for BinderServant {
    fn new(&self, lease: Duration) -> State {
        State { lease }
    }

    async fn register(
        &self,
        state: &mut State,
        cx: &Context,
        node: NodeEntry,
    ) -> Result<Duration, RegisterError> {
        let rows = cx.rows();
        let known = find(rows, node.node)?;
        if let Some(known) = known
            .as_ref()
            .filter(|known| known.incarnation > node.incarnation)
        {
            let known = known.incarnation;
            return Err(OldIncarnation {
                node: node.node,
                known,
            }
            .into());
        }
        if let Err(reason) = Label::check_all(&node.labels) {
            let node = node.node;
            return Err(BadLabels { node, reason }.into());
        }
        let mut plain = registered(&node);
        plain.cordoned = known.as_ref().is_some_and(|known| known.cordoned);
        let holders = namesakes(rows, &plain)?;
        let living = |other: &&NodeEntry| self.leases.state(other.node, state.lease).0;
        let second = match holders.iter().find(living) {
            Some(holder) => {
                plain.name = format!("{} (second)", node.name);
                if known.as_ref() != Some(&plain) {
                    let (name, holder, node) = (&node.name, holder.node, node.node);
                    tracing::warn!(%name, holder, node, "a living node has the name already");
                }
                true
            }
            None => {
                replace(rows, holders)?;
                false
            }
        };
        self.leases.contest(node.node, second);
        if known != Some(plain.clone()) {
            rows.put(NODES, &key(node.node), encode(&plain)?)?;
            tracing::info!(node = %node.name, incarnation = node.incarnation, "registered");
        }
        self.leases.hear(node.node, node.incarnation, true);
        Ok(state.lease / BEATS)
    }

    async fn heartbeat(
        &self,
        _state: &State,
        _cx: &Context,
        node: u64,
        incarnation: u32,
    ) -> Result<bool> {
        Ok(self.leases.hear(node, incarnation, false))
    }

    async fn leave(
        &self,
        _state: &State,
        _cx: &Context,
        node: u64,
        incarnation: u32,
    ) -> Result<()> {
        self.leases.leave(node, incarnation);
        Ok(())
    }

    async fn locate(
        &self,
        state: &State,
        cx: &Context,
        object: Uid,
    ) -> Result<Location, LocateError> {
        let (node, moved, moves) = whereabouts(cx.rows(), object)?;
        let Some(entry) = find(cx.rows(), node)? else {
            return Err(UnknownNode { node, object }.into());
        };
        let node = self.with_lease(state, entry);
        Ok(Location { node, moved, moves })
    }

    async fn nodes(
        &self,
        state: &State,
        cx: &Context,
        after: u64,
        limit: u32,
    ) -> Result<Vec<NodeEntry>> {
        let after = (after > 0).then(|| key(after));
        let limit = limit.min(NODES_MAX) as usize;
        let rows = cx
            .rows()
            .scan(NODES, after.as_ref().map(<[u8; 8]>::as_slice), limit)?;
        let entry = |(_, row)| Ok(self.with_lease(state, decode(row)?));
        rows.into_iter().map(entry).collect()
    }

    async fn moved(
        &self,
        _state: &mut State,
        cx: &Context,
        objects: Vec<MovedObject>,
    ) -> Result<u32, MovedError> {
        if objects.len() > MOVED_MAX {
            let limit = MOVED_MAX as u32;
            return Err(TooManyMoved { limit }.into());
        }
        let (rows, mut changed) = (cx.rows(), 0);
        for object in &objects {
            // What is told of a group is of the time before it was one.
            if !views::is_group_after(rows, object)? {
                changed += u32::from(moved::put(rows, object)?);
            }
        }
        Ok(changed)
    }

    async fn cordon(
        &self,
        _state: &mut State,
        cx: &Context,
        node: u64,
        on: bool,
    ) -> Result<bool, CordonError> {
        let Some(entry) = find(cx.rows(), node)? else {
            let object = Uid::NIL;
            return Err(UnknownNode { node, object }.into());
        };
        let before = entry.cordoned;
        if before != on {
            tracing::info!(node = %entry.name, on, "cordoned");
            let entry = NodeEntry {
                cordoned: on,
                ..entry
            };
            cx.rows().put(NODES, &key(node), encode(&entry)?)?;
        }
        Ok(before)
    }

    async fn make_group(
        &self,
        _state: &mut State,
        cx: &Context,
        view: GroupView,
    ) -> Result<GroupView, MakeGroupError> {
        views::make(cx.rows(), view)
    }

    async fn change_view(
        &self,
        _state: &mut State,
        cx: &Context,
        change: ViewChange,
    ) -> Result<GroupView, ChangeViewError> {
        let object = change.object;
        let in_force = change_views(cx.rows(), &[change])?.pop();
        Ok(in_force.ok_or(NoSuchGroup { object })?)
    }

    async fn change_views(
        &self,
        _state: &mut State,
        cx: &Context,
        changes: Vec<ViewChange>,
    ) -> Result<Vec<GroupView>, ChangeViewsError> {
        bounded(changes.len())?;
        Ok(change_views(cx.rows(), &changes)?)
    }

    async fn views(
        &self,
        _state: &State,
        cx: &Context,
        objects: Vec<Uid>,
    ) -> Result<Vec<GroupView>, ViewsError> {
        bounded(objects.len())?;
        Ok(views::find_all(cx.rows(), &objects)?)
    }

    async fn groups(
        &self,
        _state: &State,
        cx: &Context,
        after: Uid,
        limit: u32,
    ) -> Result<Vec<GroupView>> {
        views::list(cx.rows(), after, limit)
    }

    async fn set_wanted(
        &self,
        _state: &mut State,
        cx: &Context,
        object: Uid,
        wanted: u16,
        placement: Option<GroupPlacement>,
    ) -> Result<GroupView, SetWantedError> {
        let placed = placement.as_ref().map_or(Ok(()), GroupPlacement::check);
        if let Err(reason) = GroupView::check_wanted(wanted).and(placed) {
            return Err(BadGroup { object, reason }.into());
        }
        let view = views::want(cx.rows(), object, wanted, placement)?;
        Ok(view.ok_or(NoSuchGroup { object })?)
    }

    async fn dissolve(
        &self,
        _state: &mut State,
        cx: &Context,
        object: Uid,
        expected: u64,
    ) -> Result<bool> {
        views::dissolve(cx.rows(), object, expected)
    }
}

impl BinderServant {
    fn with_lease(&self, state: &State, mut entry: NodeEntry) -> NodeEntry {
        let (alive, heard) = self.leases.state(entry.node, state.lease);
        entry.alive = alive;
        entry.last_heard = heard.unwrap_or(entry.last_heard);
        entry
    }
}

/// The node of an object, whether it stands in a row, and how often it has moved.
fn whereabouts(rows: &Rows, object: Uid) -> Result<(u64, bool, u64)> {
    if let Some(view) = views::find(rows, object)? {
        return Ok((view.members[0], true, view.number));
    }
    let moved = moved::find(rows, object)?;
    Ok(moved.map_or((object.node.0, false, 0), |row| (row.node, true, row.moves)))
}

fn change_views(rows: &Rows, changes: &[ViewChange]) -> Result<Vec<GroupView>> {
    let registered = |node| Ok(find(rows, node)?.map_or(0, |node| node.incarnation));
    let (mut in_force, mut changed) = (Vec::new(), 0);
    for change in changes {
        if let Some((view, new)) = views::change(rows, change, registered)? {
            changed += usize::from(new);
            in_force.push(view);
        }
    }
    tracing::info!(asked = changes.len(), changed, "views of groups");
    Ok(in_force)
}

/// Refuses more groups at once than are taken.
fn bounded(count: usize) -> Result<(), TooManyGroups> {
    let limit = GROUPS_MAX as u32;
    match count <= GROUPS_MAX {
        true => Ok(()),
        false => Err(TooManyGroups { limit }),
    }
}

/// What of an entry is kept: `last_heard` stands for the latest registration that changed it.
fn registered(node: &NodeEntry) -> NodeEntry {
    NodeEntry {
        alive: false,
        ..node.clone()
    }
}

/// Other nodes of the name.
fn namesakes(rows: &Rows, node: &NodeEntry) -> Result<Vec<NodeEntry>> {
    let mut found = Vec::new();
    let mut after: Option<Bytes> = None;
    loop {
        let page = rows.scan(NODES, after.as_deref(), NODES_MAX as usize)?;
        for (_, row) in &page {
            let other = decode(row.clone())?;
            if other.node != node.node && other.name == node.name {
                found.push(other);
            }
        }
        match page.last() {
            Some((last, _)) if page.len() == NODES_MAX as usize => after = Some(last.clone()),
            Some(_) | None => return Ok(found),
        }
    }
}

/// Takes the name from nodes that are gone.
fn replace(rows: &Rows, holders: Vec<NodeEntry>) -> Result<()> {
    for holder in holders {
        let (name, old) = (&holder.name, holder.node);
        tracing::warn!(%name, old, "another node takes the name of one that is gone");
        let name = format!("{name} (replaced)");
        let replaced = NodeEntry { name, ..holder };
        rows.put(NODES, &key(replaced.node), encode(&replaced)?)?;
    }
    Ok(())
}

fn key(node: u64) -> [u8; 8] {
    node.to_be_bytes()
}

fn find(rows: &Rows, node: u64) -> Result<Option<NodeEntry>> {
    rows.read(NODES, &key(node))?.map(decode).transpose()
}

fn encode(entry: &NodeEntry) -> Result<Bytes> {
    let written = message(NodeEntry::DATA, NodeEntry::POINTERS, |w, s| {
        entry.write(w, s)
    });
    let (framed, _) = written.finish()?;
    Ok(framed.into())
}

fn decode(row: Bytes) -> Result<NodeEntry> {
    let row = Message::from_framed(row, Vec::new())?;
    Ok(NodeEntry::read(row.reader()?)?)
}
