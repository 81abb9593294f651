//! The ends of levels: nested actions that commit into their parent or are aborted, and
//! top-level actions that are aborted. The table is in [`crate::action::mirror`].
//!
//! What waits in an aborted action is refused at once, and servants that run in it are stopped.
//! The rest happens when the last of them has returned: before-images are restored, innermost
//! level first, then locks are given back.

use super::{Engine, Mutation};
use crate::action::message::{Message, To};
use crate::action::mirror::{Ending, Name, Phase};
use crate::action::path::Site;
use crate::action::scope::ABORTED_MAX;
use crate::action::tombstone::Fate;
use crate::activation;
use crate::id::{Incarnation, NodeId, Peer, Uid};
use crate::lock::locks::Owner;
use crate::outbox::Outbox;
use crate::output::{Answer, Event, GaveUp, Orphan, Output, Refusal};
use crate::slab::Slot;

impl Engine {
    /// How an action ended is remembered.
    pub(super) fn note_fate(&mut self, action: Uid, fate: Fate) {
        let max = self.limits.tombstones_max;
        self.tombstones.note(action, fate, max);
    }

    /// What is said of a call in an action that has ended here.
    pub(super) fn aborted(&self, action: Uid) -> Refusal {
        let why = self.tombstones.reason(action);
        Refusal::ActionAborted { action, why }
    }

    pub(super) fn send(site: Site, message: Message, out: &mut Outbox) {
        Self::send_to(To::Site(site), message, out);
    }

    pub(super) fn send_to(to: To, message: Message, out: &mut Outbox) {
        let message = Box::new(message);
        out.push(Output::Send { to, message });
    }

    /// Whoever runs an action says that a nested one has committed into its parent.
    pub(super) fn merge_heard(&mut self, name: Name, parent: Uid, out: &mut Outbox) {
        let Some(slot) = self.mirrors.find_level_at(name) else {
            return;
        };
        let (action, part) = name;
        let level = self.mirrors.level(slot);
        let above = level.parent.map(|parent| self.mirrors.level(parent).uid);
        let open = level.ending == Ending::Open;
        let active = self.mirrors.mirror(level.mirror).is_active();
        if open && active && above == Some(parent) {
            let moved = &self.mirrors.mirror(level.mirror).moved;
            for participant in moved {
                let part = None;
                let message = Message::Merge {
                    action,
                    parent,
                    part,
                };
                Self::send(participant.site, message, out);
            }
            if let Some(object) = part {
                self.cohorts.touch(object);
            }
            self.mirrors.level_mut(slot).ending = Ending::Merging;
            self.level_left(slot, out);
        }
    }

    /// Somebody says that a nested action is aborted. `slot` is its level.
    pub(super) fn nested_abort_heard(&mut self, slot: Slot, out: &mut Outbox) {
        let level = self.mirrors.level(slot);
        let (action, at) = (level.uid, level.mirror);
        if !self.mirrors.mirror(at).is_active() || level.ending == Ending::Aborting {
            return;
        }
        self.note_fate(action, Fate::Aborted);
        self.forward_abort(at, action, out);
        let mirror = self.mirrors.mirror_mut(at);
        if let Some(object) = mirror.part {
            // The next leader is to refuse late calls, too.
            mirror.aborted.insert(action);
            let full = mirror.aborted.len() > ABORTED_MAX;
            self.cohorts.touch(object);
            if full {
                return self.abort_mirror(at, out);
            }
        }
        self.abort_level(slot, out);
    }

    /// A top-level action never happened, as far as this shard is concerned. That says nothing
    /// of what was decided: this may be what a late call began after the end.
    pub(super) fn abort_mirror(&mut self, slot: Slot, out: &mut Outbox) {
        if let Some(object) = self.mirrors.mirror(slot).part {
            return self.abort_part(slot, object, out);
        }
        let mirror = self.mirrors.mirror_mut(slot);
        mirror.phase = Phase::Aborting;
        let (action, root) = (mirror.uid(), mirror.root);
        self.mirrors.set_due(slot, crate::time::Time::NEVER);
        self.note_fate(action, Fate::Told);
        self.forward_abort(slot, action, out);
        let pinned = self.arrival_aborted(action, out);
        self.abort_level(root, out);
        self.unpin(&pinned, out);
    }

    /// A level ends, with all below it.
    pub(super) fn abort_level(&mut self, slot: Slot, out: &mut Outbox) {
        let levels = self.mirrors.subtree(slot);
        let calls = levels.iter().flat_map(|at| &self.mirrors.level(*at).calls);
        let waiting = calls.filter(|call| !self.calls.leader(**call).stage.started());
        let waiting: Vec<Slot> = waiting.copied().collect();
        // Held open until all that wait are refused, since a level without calls may go.
        let action = self.mirrors.level(slot).uid;
        for at in &levels {
            self.mirrors.level_mut(*at).ending = Ending::Open;
        }
        for call in waiting {
            let refusal = self.aborted(action);
            self.end(call, Some(Answer::Refused(refusal)), out);
        }
        for at in &levels {
            self.mirrors.level_mut(*at).ending = Ending::Aborting;
        }
        let calls = levels.iter().flat_map(|at| &self.mirrors.level(*at).calls);
        for call in calls.copied().collect::<Vec<_>>() {
            self.kill(call, Orphan::Aborted, out);
        }
        self.level_left(slot, out);
    }

    /// Something of a level is gone: it may be done now, and those it is nested in by that.
    pub(super) fn level_left(&mut self, slot: Slot, out: &mut Outbox) {
        let mut at = Some(slot);
        while let Some(slot) = at {
            let level = self.mirrors.level(slot);
            match level.ending {
                Ending::Open => return,
                Ending::Merging => {
                    if level.pins > 0 || !level.calls.is_empty() || !level.children.is_empty() {
                        return;
                    }
                    at = level.parent;
                    self.merge_level(slot, out);
                }
                Ending::Aborting => {
                    let top = self.mirrors.aborting(slot);
                    let top = top.expect("a level that is aborting is in one that is");
                    let levels = self.mirrors.subtree(top);
                    let runs = |at: &Slot| {
                        let level = self.mirrors.level(*at);
                        level.pins > 0 || !level.calls.is_empty()
                    };
                    if levels.iter().any(runs) {
                        return;
                    }
                    at = self.mirrors.level(top).parent;
                    self.undo_levels(&levels, out);
                }
            }
        }
    }

    /// Nothing of these levels runs any more: all they did is undone. Parents come first.
    pub(super) fn undo_levels(&mut self, levels: &[Slot], out: &mut Outbox) {
        let nested = self.mirrors.level(levels[0]).parent.is_some();
        if nested && self.mutation == Mutation::NoRestoreOnNestedAbort {
            for slot in levels.iter().rev() {
                self.merge_level(*slot, out);
            }
            return;
        }
        for slot in levels.iter().rev() {
            self.restore(*slot, out);
        }
        for slot in levels.iter().rev() {
            self.release_all(*slot, out);
            self.mirrors.remove(*slot);
        }
    }

    /// Puts back all that a level has changed.
    pub(super) fn restore(&mut self, slot: Slot, out: &mut Outbox) {
        let level = self.mirrors.level_mut(slot);
        let (action, at) = (level.uid, level.mirror);
        let images = core::mem::take(&mut level.images);
        if self.mirrors.mirror(at).stored_only {
            return;
        }
        for (uid, before) in images {
            out.push(Output::Restore { uid, action });
            let Some(object) = self.objects.slot(uid) else {
                continue;
            };
            if before.create {
                self.change_image(object, activation::Cue::Dropped);
                self.objects.set_size(object, 0);
                self.left_by_call(object, out);
            } else {
                self.objects.set_size(object, before.size_bytes);
            }
        }
    }

    /// Gives back all locks of a level.
    pub(super) fn release_all(&mut self, slot: Slot, out: &mut Outbox) {
        let locks = &self.mirrors.level(slot).locks;
        let uids: Vec<Uid> = locks.keys().copied().collect();
        for uid in uids {
            self.release(uid, Owner::level(slot.0), out);
        }
    }

    /// A nested action has committed: what it had is its parent's.
    pub(super) fn merge_level(&mut self, slot: Slot, out: &mut Outbox) {
        let level = self.mirrors.level_mut(slot);
        let images = core::mem::take(&mut level.images);
        let child = level.uid;
        let above = level.parent.expect("a nested action has a parent");
        let parent = self.mirrors.level(above).uid;
        for (uid, before) in images {
            let known = &mut self.mirrors.level_mut(above).images;
            let replaces = self.mutation == Mutation::InheritReplacesImage;
            let keep = !known.contains_key(&uid) || replaces;
            if let Some(older) = known.get_mut(&uid) {
                older.changed |= before.changed;
            } else {
                known.insert(uid, before);
            }
            out.push(Output::Inherit {
                uid,
                child,
                parent,
                keep,
            });
        }
        let locks = &self.mirrors.level(slot).locks;
        let uids: Vec<Uid> = locks.keys().copied().collect();
        for uid in uids {
            self.inherit(uid, slot, above, out);
        }
        self.mirrors.remove(slot);
    }

    /// Before the end of a top-level action, when nothing of it runs any more: the levels below
    /// the root go, as whoever runs it says.
    pub(super) fn resolve_levels(&mut self, mirror: Slot, aborted: &[Uid], out: &mut Outbox) {
        let (root, part) = (
            self.mirrors.mirror(mirror).root,
            self.mirrors.mirror(mirror).part,
        );
        let forget = self.mutation == Mutation::ForgetAbortedLevels;
        for action in aborted {
            let Some(slot) = self.mirrors.find_level_at((*action, part)) else {
                continue;
            };
            if self.mirrors.level(slot).mirror == mirror && slot != root && !forget {
                let levels = self.mirrors.subtree(slot);
                self.undo_levels(&levels, out);
            }
        }
        let levels = self.mirrors.subtree(root);
        for slot in levels[1..].iter().rev() {
            self.merge_level(*slot, out);
        }
        self.mirrors.level_mut(root).ending = Ending::Open;
    }

    /// Before the end of a top-level action: what it has not changed is free, since it asks for
    /// no lock any more. Whether it has changed anything.
    pub(super) fn release_unchanged(&mut self, mirror: Slot, out: &mut Outbox) -> bool {
        let root = self.mirrors.mirror(mirror).root;
        let level = self.mirrors.level_mut(root);
        let action = level.uid;
        let (kept, idle) = core::mem::take(&mut level.images)
            .into_iter()
            .partition(|(_, before)| before.changed);
        level.images = kept;
        let free = level.locks.keys();
        let free = free.filter(|uid| !level.images.contains_key(uid));
        let free: Vec<Uid> = free.copied().collect();
        let changed = !level.images.is_empty();
        let idle: std::collections::BTreeMap<Uid, _> = idle;
        for uid in idle.into_keys() {
            out.push(Output::Release { uid, action });
        }
        for uid in free {
            self.release(uid, Owner::level(root.0), out);
        }
        changed
    }

    /// The top-level action is committed: what it changed is what there is, and free. Its
    /// mirror is gone.
    pub(super) fn release_committed(&mut self, mirror: Slot, out: &mut Outbox) {
        let root = self.mirrors.mirror(mirror).root;
        let level = self.mirrors.level_mut(root);
        let (action, images) = (level.uid, core::mem::take(&mut level.images));
        if !self.mirrors.mirror(mirror).stored_only {
            for (uid, before) in images {
                out.push(Output::Release { uid, action });
                if before.create {
                    out.push(Output::Event(Event::Created { uid }));
                }
            }
        }
        self.note_fate(action, Fate::Committed);
        self.release_all(root, out);
        self.mirrors.remove(root);
    }

    /// This shard aborts an action that nobody told it to.
    pub(super) fn give_up(&mut self, slot: Slot, why: GaveUp, out: &mut Outbox) {
        let action = self.mirrors.mirror(slot).uid();
        out.push(Output::Event(Event::GaveUp { action, why }));
        // Of a part the next leader may know nothing of this, and go on.
        if self.mirrors.mirror(slot).part.is_none() {
            self.note_fate(action, Fate::Told);
            self.tombstones.note_reason(action, why);
        }
        self.abort_mirror(slot, out);
    }

    /// A process is gone: actions that it called in end here, unless another shard decides.
    pub(super) fn give_up_called_by(&mut self, caller: Peer, out: &mut Outbox) {
        for slot in self.mirrors.called_by(caller) {
            self.leave_to_itself(slot, GaveUp::CallerGone, out);
        }
        self.doubt(caller.node, out);
    }

    /// A process has begun a new life: what its earlier ones began ends.
    pub(super) fn give_up_older(&mut self, node: NodeId, life: Incarnation, out: &mut Outbox) {
        for slot in self.mirrors.begun_before(node, life) {
            self.leave_to_itself(slot, GaveUp::OldIncarnation, out);
        }
    }
}
