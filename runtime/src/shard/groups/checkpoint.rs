//! What running actions have of an object with the policy coordinator-cohort, in its log.
//!
//! The engine says when a checkpoint of an object is to be added, and what running actions have of
//! it. Here the bytes come to that: before-images and the rows that were changed, the present
//! state, and the answers of calls that have ended, which are saved under their ids as those of
//! calls outside of actions are. What is made of a write that runs is left out: the checkpoint is
//! of the moment before it began.
//!
//! A checkpoint that finds no room is owed, as ends of parts are ([`super::owed`]), so that
//! nothing gets into the log before it. The next leader gives the engine the latest one
//! ([`Shard::recover_parts`]), and keeps its bytes until the engine says what of them goes on.

use std::rc::Rc;

use bytes::Bytes;
use partha_core::action::path::{Address, Joined, Site};
use partha_core::id::{CallId, Epoch, NodeId, Peer, Uid};
use partha_core::migrate::{Cargo, Checkpoint, CheckpointEnd as End, CheckpointPart as Part, Gone};
use partha_core::{Fault, Input as EngineInput, ObjectSlot, Ticket};
use partha_store::{Batch, GroupCheckpoint, Item};
use partha_wire::Message;

use super::owed::Owed;
use crate::abi::{Struct, message};
use crate::config::REPLY_RETENTION;
use crate::error::{ErrorKind, Result, SystemError};
use crate::rows::Changes;
use crate::shard::arrive::{Entry, Outcome};
use crate::shard::catalog::decode;
use crate::shard::moving::cargo::{call_name, read_call};
use crate::shard::{Shard, saved};
use crate::system::{
    ActionPlace, CallGone, CheckpointEnd, CheckpointEnds, CheckpointedAction, EndedAction,
    MergedAction, MovingImage, MovingRow,
};
use crate::wire::frame;

/// The bytes of a checkpoint that is taken over.
pub(super) struct Resumed {
    images: Vec<(Uid, Bytes, Changes)>,
    present: Option<Bytes>,
}

impl Shard {
    /// The engine wants a checkpoint added.
    pub(in crate::shard) fn add_checkpoint(
        self: &Rc<Self>,
        job: partha_core::Job,
        object: Uid,
        checkpoint: &Checkpoint,
        replies: &[Ticket],
    ) {
        match self.checkpoint_batch(object, checkpoint, replies) {
            Ok(batch) => {
                // Answered when it is complete, or turned away.
                let mut entries = self.entries.borrow_mut();
                for ticket in replies {
                    if let Some(entry) = entries.find_mut(*ticket) {
                        entry.replicated = true;
                    }
                }
                drop(entries);
                let owed = Owed::Checkpoint { job, batch };
                self.pay(object, owed, false);
            }
            Err(error) => {
                tracing::error!(uid = %object, %error, "a checkpoint cannot be made");
                self.not_checkpointed(job, Fault::Store);
            }
        }
    }

    pub(super) fn not_checkpointed(&self, job: partha_core::Job, fault: Fault) {
        let result = Err(fault);
        self.later(EngineInput::Checkpointed { job, result });
    }

    fn checkpoint_batch(
        &self,
        uid: Uid,
        checkpoint: &Checkpoint,
        replies: &[Ticket],
    ) -> Result<Batch> {
        let mut items = Vec::with_capacity(1 + replies.len());
        for ticket in replies {
            items.extend(self.saved_reply(uid, *ticket, checkpoint)?);
        }
        let mut bytes = self.images_of(uid, &checkpoint.cargo)?;
        let actions = checkpoint.cargo.actions.iter().zip(&checkpoint.parts);
        let actions = actions.map(|(action, part)| {
            let (mine, others): (Vec<_>, Vec<_>) = std::mem::take(&mut bytes.images)
                .into_iter()
                .partition(|(level, ..)| action.levels.iter().any(|it| it.uid == *level));
            bytes.images = others;
            let present = bytes.present.take_if(|_| !mine.is_empty());
            let written = CheckpointedAction {
                action: self.write_cargo_action(action),
                join: part.join,
                reached: part.reached.iter().map(place).collect(),
                gone: part.gone.iter().map(gone).collect(),
                merged: part.merged.iter().map(merged).collect(),
                lost: part.lost.clone(),
                aborted: part.aborted.clone(),
                images: mine.iter().map(image).collect(),
                present,
            };
            let root = action.root().unwrap_or(Uid::NIL);
            Ok((root, framed(&written)?))
        });
        let actions = actions.collect::<Result<_>>()?;
        let ended = match checkpoint.ended.is_empty() {
            true => Bytes::new(),
            false => framed(&CheckpointEnds {
                ended: checkpoint.ended.iter().map(ended).collect(),
            })?,
        };
        let checkpoint = GroupCheckpoint { ended, actions };
        items.push(Item::CheckpointGroup { uid, checkpoint });
        Ok(Batch::new(items))
    }

    /// The before-images and the present state, as they were before the write that runs, if one
    /// does.
    fn images_of(&self, uid: Uid, cargo: &Cargo) -> Result<Resumed> {
        if !cargo.has_images() {
            let (images, present) = (Vec::new(), None);
            return Ok(Resumed { images, present });
        }
        let lost = |what: &str| {
            let detail = format!("{uid} at {}: {what}", self.registry.here());
            SystemError::new(ErrorKind::Internal, detail)
        };
        let levels = self.images.borrow().exported(uid);
        let levels = levels.ok_or_else(|| lost("a before-image is lost"))?;
        let wanted = |level: &Uid| {
            let mut all = cargo.levels();
            all.any(|it| it.uid == *level && it.image.is_some())
        };
        let levels = levels.into_iter().filter(|(level, ..)| wanted(level));
        let images: Vec<_> = levels
            .map(|(level, before, rows)| (level, before, (*rows).clone()))
            .collect();
        let count = cargo.levels().filter(|level| level.image.is_some());
        if count.count() != images.len() {
            return Err(lost("a before-image is missing"));
        }
        let before = {
            let entries = self.entries.borrow();
            let mut writes = entries.values().filter(|it| it.object == uid);
            let running = writes.find_map(Entry::before_running);
            running.cloned()
        };
        let present = match before {
            Some(before) => before,
            None => {
                let mut catalog = self.catalog.borrow_mut();
                let active = catalog.active(uid);
                active
                    .ok_or_else(|| lost("it is not in memory"))?
                    .encoded()?
            }
        };
        let present = Some(present);
        Ok(Resumed { images, present })
    }

    /// The answer of a call that has ended, as it is asked for again.
    fn saved_reply(
        &self,
        uid: Uid,
        ticket: Ticket,
        checkpoint: &Checkpoint,
    ) -> Result<Option<Item>> {
        let entries = self.entries.borrow();
        let Some((entry, call)) = entries.find(ticket).and_then(|it| Some((it, it.call?))) else {
            return Ok(None);
        };
        let report = self.report_of(joined(uid, entry, checkpoint), entry);
        let framed = match &entry.outcome {
            Outcome::None => return Ok(None),
            Outcome::Failed(error) => frame::failed(error, report.as_deref()),
            Outcome::Frame(w) if !w.attached().is_empty() => {
                let detail = "a method that changes an object with the policy cohort cannot \
                              return a capability: its saved reply would outlive it";
                let error = SystemError::new(ErrorKind::BadOperation, detail);
                let error = error.completed(crate::error::Completed::Yes);
                frame::failed(&error, report.as_deref())
            }
            Outcome::Frame(w) => {
                let mut w = w.clone();
                if let Some(report) = &report {
                    frame::set_report(&mut w, report);
                }
                w.to_framed()?
            }
        };
        Ok(Some(Item::SaveReply {
            call,
            uid,
            body: saved::encode(entry.method, &framed),
            keep_ms: REPLY_RETENTION.as_millis() as u64,
        }))
    }

    /// The latest checkpoint of an object that is led here from now on: the engine's part of it,
    /// and its bytes.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn read_checkpoint(&self, uid: Uid) -> Result<Option<(Checkpoint, Resumed)>> {
        let Some(store) = &self.registry.store else {
            return Ok(None);
        };
        let unreadable = |why: &dyn std::fmt::Display| {
            let detail = format!("the checkpoint of {uid} at {}: {why}", self.registry.here());
            SystemError::new(ErrorKind::Store, detail)
        };
        let stored = store.read_checkpoint(uid);
        let stored = stored.map_err(|error| unreadable(&error))?;
        let Some(GroupCheckpoint { ended, actions }) = stored else {
            return Ok(None);
        };
        let mut checkpoint = Checkpoint::default();
        let (mut images, mut present) = (Vec::new(), None);
        for (root, body) in actions {
            let read = read::<CheckpointedAction>(body)?;
            let action = self.read_cargo_action(&read.action);
            let action = action.map_err(|what| unreadable(&what))?;
            if action.root() != Some(root) {
                return Err(unreadable(&"an action under the name of another"));
            }
            let gone = read.gone.iter().map(read_gone).collect::<Result<_, _>>();
            checkpoint.parts.push(Part {
                join: read.join,
                reached: read.reached.iter().map(read_place).collect(),
                gone: gone.map_err(|what| unreadable(&what))?,
                merged: read.merged.iter().map(read_merged).collect(),
                lost: read.lost,
                aborted: read.aborted,
            });
            checkpoint.cargo.actions.push(action);
            images.extend(read.images.into_iter().map(read_image));
            present = present.or(read.present);
        }
        let size = present.as_ref().map_or(0, Bytes::len);
        checkpoint.cargo.size_bytes = size as u64;
        if !ended.is_empty() {
            let ends = read::<CheckpointEnds>(ended)?;
            checkpoint.ended = ends.ended.iter().map(read_ended).collect();
        }
        checkpoint.check().map_err(|what| unreadable(&what))?;
        if checkpoint.cargo.has_images() != present.is_some() {
            return Err(unreadable(
                &"before-images without a state, or the other way",
            ));
        }
        Ok(Some((checkpoint, Resumed { images, present })))
    }

    /// What of the checkpoint goes on: all, or nothing that has bytes.
    pub(in crate::shard) fn resume(&self, uid: Uid, slot: Option<ObjectSlot>) {
        let (resumed, class) = {
            let mut groups = self.groups.borrow_mut();
            let group = groups.by_object.get_mut(&uid);
            let Some(group) = group else { return };
            (group.resumed.take(), group.class)
        };
        let Some((slot, Resumed { images, present })) = slot.zip(resumed) else {
            return;
        };
        let class = self.registry.classes.get(&class);
        let store = self.registry.store.as_ref();
        let activated = store.map(|store| store.activate(uid));
        let (Some(class), Some(Ok(Some((record, epoch))))) = (class, activated) else {
            tracing::error!(%uid, "an object that is taken over is not there");
            return;
        };
        let state = present.as_ref().and_then(|present| {
            let state = decode(class, present);
            state
                .inspect_err(|error| tracing::error!(%uid, %error, "a checkpoint is unreadable"))
                .ok()
        });
        let present = present.filter(|_| epoch != Epoch(0)).zip(state);
        let mut catalog = self.catalog.borrow_mut();
        catalog.insert_moved(uid, slot, class, (epoch, record.version), present);
        self.images.borrow_mut().import(uid, images);
    }

    /// An action was taken over in which this process has called: it is lost unless it comes
    /// here, or has come.
    pub(in crate::shard) fn watch(self: &Rc<Self>, caller: Peer) {
        let Some(home) = self.client.home_if_any() else {
            return;
        };
        if caller.node == self.registry.me.node || home.has_session(caller) {
            return;
        }
        let lease = self.client.pool().lease();
        let shard = self.clone();
        self.spawn(async move {
            tokio::time::sleep(lease.silent_max).await;
            if !home.has_session(caller) {
                shard.feed(EngineInput::PeerGone { caller });
            }
        });
    }
}

/// What the answer of a call says of the part that it ran in.
fn joined(uid: Uid, entry: &Entry, checkpoint: &Checkpoint) -> Option<Joined> {
    let root = entry.within.as_deref()?.root()?;
    let actions = checkpoint.cargo.actions.iter().zip(&checkpoint.parts);
    let mut mine = actions.filter(|(action, _)| action.root() == Some(root));
    let (action, part) = mine.next()?;
    Some(Joined {
        join: part.join,
        updated: action.levels.iter().any(|level| level.image.is_some()),
        decider: Some(uid),
        part: true,
    })
}

pub(super) fn framed<T: Struct>(value: &T) -> Result<Bytes> {
    let written = message(T::DATA, T::POINTERS, |w, s| value.write(w, s));
    let (framed, _) = written.finish()?;
    Ok(framed.into())
}

pub(super) fn read<T: Struct>(bytes: Bytes) -> Result<T> {
    let message = Message::from_framed(bytes, Vec::new())?;
    Ok(T::read(message.reader()?)?)
}

fn place(address: &Address) -> ActionPlace {
    let (leader, site) = match *address {
        Address::Site(site) => (None, site),
        Address::Leader(object) => (Some(object), Site::default()),
    };
    ActionPlace {
        leader,
        node: site.node.0,
        shard: site.shard,
    }
}

fn read_place(place: &ActionPlace) -> Address {
    let site = Site {
        node: NodeId(place.node),
        shard: place.shard,
    };
    place.leader.map_or(Address::Site(site), Address::Leader)
}

fn gone((call, gone): &(CallId, Gone)) -> CallGone {
    CallGone {
        call: call_name(*call),
        within: gone.level,
        lost: gone.lost.clone(),
        never: gone.never,
    }
}

fn read_gone(gone: &CallGone) -> Result<(CallId, Gone), &'static str> {
    let left = Gone {
        level: gone.within,
        lost: gone.lost.clone(),
        never: gone.never,
    };
    Ok((read_call(&gone.call)?, left))
}

fn merged((action, parent): &(Uid, Uid)) -> MergedAction {
    MergedAction {
        action: *action,
        parent: *parent,
    }
}

fn read_merged(merged: &MergedAction) -> (Uid, Uid) {
    (merged.action, merged.parent)
}

fn image((action, before, rows): &(Uid, Bytes, Changes)) -> MovingImage {
    let row = |((part, key), value): (&(u16, Bytes), &Option<Bytes>)| MovingRow {
        part: *part,
        key: key.clone(),
        value: value.clone(),
    };
    MovingImage {
        action: *action,
        before: before.clone(),
        rows: rows.iter().map(row).collect(),
    }
}

fn read_image(image: MovingImage) -> (Uid, Bytes, Changes) {
    let row = |row: MovingRow| ((row.part, row.key), row.value);
    let rows = image.rows.into_iter().map(row).collect();
    (image.action, image.before, rows)
}

fn ended((action, end): &(Uid, End)) -> EndedAction {
    EndedAction {
        action: *action,
        end: match end {
            End::ReadOnly => CheckpointEnd::ReadOnly,
            End::Committed => CheckpointEnd::Committed,
            End::Aborted => CheckpointEnd::Aborted,
        },
    }
}

fn read_ended(ended: &EndedAction) -> (Uid, End) {
    let end = match ended.end {
        CheckpointEnd::ReadOnly => End::ReadOnly,
        CheckpointEnd::Committed => End::Committed,
        CheckpointEnd::Aborted => End::Aborted,
    };
    (ended.action, end)
}

#[cfg(test)]
mod tests {
    use partha_core::id::Incarnation;

    use super::*;
    use crate::system::{ActionPath, MovingAction};

    fn uid(local: u64) -> Uid {
        let node = NodeId(1);
        Uid { node, local }
    }

    fn call(sequence: u64) -> CallId {
        let (node, incarnation) = (NodeId(3), Incarnation::MAX);
        let caller = Peer { node, incarnation };
        CallId { caller, sequence }
    }

    #[test]
    fn what_an_action_has_comes_back_as_it_was_written() {
        let site = Site {
            node: NodeId(1 << 60),
            shard: 7,
        };
        let reached = [Address::Site(site), Address::Leader(uid(5))];
        let left = |level, lost, never| Gone { level, lost, never };
        let again = left(Some(uid(6)), vec![uid(7), uid(8)], false);
        let went = [(call(1), left(None, Vec::new(), true)), (call(2), again)];
        let ended = [(uid(10), uid(9)), (uid(11), uid(10))];
        let rows = Changes::from([
            (
                (1, Bytes::from_static(b"put")),
                Some(Bytes::from_static(b"value")),
            ),
            ((2, Bytes::from_static(b"removed")), None),
        ]);
        let before = (uid(9), Bytes::from_static(b"before"), rows);
        let written = CheckpointedAction {
            action: MovingAction {
                path: ActionPath {
                    actions: vec![uid(9)],
                    enclosing: 0,
                },
                home: 1,
                born_ms: 2,
                left: std::time::Duration::from_secs(3),
                callers: Vec::new(),
                executed: vec![call_name(call(3))],
                levels: Vec::new(),
            },
            join: u64::MAX,
            reached: reached.iter().map(place).collect(),
            gone: went.iter().map(gone).collect(),
            merged: ended.iter().map(merged).collect(),
            lost: vec![uid(12)],
            aborted: vec![uid(13), uid(14)],
            images: vec![image(&before)],
            present: Some(Bytes::from_static(b"present")),
        };
        let bytes = framed(&written).unwrap();
        let mut found = read::<CheckpointedAction>(bytes.clone()).unwrap();
        assert_eq!(found, written);
        let places: Vec<_> = found.reached.iter().map(read_place).collect();
        assert_eq!(places, reached);
        let gone: Result<Vec<_>, _> = found.gone.iter().map(read_gone).collect();
        assert_eq!(gone.unwrap(), went);
        let merged: Vec<_> = found.merged.iter().map(read_merged).collect();
        assert_eq!(merged, ended);
        assert_eq!(read_image(found.images.remove(0)), before);
        for len in 0..bytes.len() {
            let cut = read::<CheckpointedAction>(bytes.slice(..len));
            assert!(cut.is_err(), "cut at {len}");
        }
        // Numbers that no process has.
        found.gone[0].call.caller.incarnation = u32::MAX;
        assert!(read_gone(&found.gone[0]).is_err());
    }

    #[test]
    fn ends_come_back_as_they_were_written() {
        let ends = [End::ReadOnly, End::Committed, End::Aborted];
        let all: Vec<_> = (1..).map(uid).zip(ends).collect();
        let written = CheckpointEnds {
            ended: all.iter().map(ended).collect(),
        };
        let found = read::<CheckpointEnds>(framed(&written).unwrap()).unwrap();
        let found: Vec<_> = found.ended.iter().map(read_ended).collect();
        assert_eq!(found, all);
    }
}
