//! A new leader goes on where its predecessor was: it takes in the latest checkpoint.
//!
//! | what of the checkpoint | goes on |
//! |---|---|
//! | an action | unless it is known to have ended, its time is up, or there is no room |
//! | its locks, levels, before-images, executed calls | with it |
//! | the present state | with the action that has changed it |
//! | ends | always |
//!
//! An action that does not go on is noted as aborted: nothing of it was decided, or the log would
//! have had its part or its decision behind the checkpoint. As long as calls of an earlier term
//! of this shard are inside the object, the checkpoint waits, and every call is turned away.

use super::{Engine, Mutation};
use crate::action::mirror::{Before, Ending};
use crate::action::tombstone::Fate;
use crate::activation::{self, Kind};
use crate::id::{Peer, Uid};
use crate::migrate::{CargoAction, Checkpoint, CheckpointEnd, CheckpointPart};
use crate::outbox::Outbox;
use crate::output::{ObjectSlot, Output};
use crate::slab::Slot;

impl Engine {
    /// This shard leads an object with a checkpoint.
    pub(super) fn recover_checkpoint(&mut self, object: Uid, checkpoint: Box<Checkpoint>) {
        if let Err(what) = checkpoint.check() {
            panic!("the checkpoint of {object} has {what}");
        }
        let before = self.cohorts.waiting.insert(object, checkpoint);
        assert!(before.is_none(), "{object} has two checkpoints");
    }

    /// Takes in checkpoints whose objects are free.
    pub(super) fn resume_free(&mut self, out: &mut Outbox) {
        let objects = self.cohorts.waiting.keys().copied();
        for object in objects.collect::<Vec<_>>() {
            let inside = self.objects.slot(object).is_some();
            let holders = self.locks.holders(Self::lock_key(object));
            let levels = holders.filter(|held| held.owner.is_level());
            let levels: Vec<Slot> = levels.map(|held| Slot(held.owner.index())).collect();
            // What a part has that was found in the log is of this term.
            let part = self.parts.rows.get(&object).map(|part| part.slot);
            let of = |level: &Slot| Some(self.mirrors.level(*level).mirror);
            let held = levels.iter().any(|level| of(level) != part);
            if !inside && !held && !self.parts.unlocked.contains(&object) {
                let checkpoint = self.cohorts.waiting.remove(&object);
                self.resume(object, *checkpoint.expect("it waits"), out);
            }
        }
    }

    fn resume(&mut self, object: Uid, checkpoint: Checkpoint, out: &mut Outbox) {
        let Checkpoint {
            cargo,
            parts,
            ended,
        } = checkpoint;
        if self.mutation != Mutation::ForgetEnds {
            self.cohorts.take_ends(object, ended);
        }
        let mut slot = None;
        let (mut callers, mut merging): (Vec<Peer>, Vec<Uid>) = (Vec::new(), Vec::new());
        for (action, part) in cargo.actions.into_iter().zip(parts) {
            let root = action.root().expect("a checkpoint was checked");
            if !self.goes_on(object, root, &action, out) {
                self.cohorts.note_end(object, root, CheckpointEnd::Aborted);
                continue;
            }
            let new = action.callers.iter().filter(|it| !callers.contains(it));
            let new: Vec<Peer> = new.copied().collect();
            callers.extend(new);
            let images = action.levels.iter().any(|level| level.image.is_some());
            if images {
                let entry = self.enter(object);
                self.change_image(entry, activation::Cue::Wanted { create: true });
                self.objects.set_size(entry, cargo.size_bytes);
                self.objects.entry_mut(entry).kind = Kind::Replicated;
                slot = Some(ObjectSlot(entry.0));
            }
            merging.extend(self.resume_action(object, action, part));
            if images {
                let entry = self.objects.slot(object).expect("it was entered");
                self.change_image(entry, activation::Cue::Made);
            }
        }
        out.push(Output::Resume { object, slot });
        for caller in callers {
            out.push(Output::Watch { caller });
        }
        for slot in self.mirrors.parts_at(object) {
            if self.mirrors.mirror(slot).is_active() {
                self.settle_out(slot, out);
                self.abort_known(slot, out);
            }
        }
        // A level that waited for calls alone, which are not here, is done.
        for action in merging {
            if let Some(level) = self.mirrors.find_level_at((action, Some(object))) {
                self.level_left(level, out);
            }
        }
    }

    /// What an earlier leader was told of and could not undo yet, since servants ran, is undone.
    fn abort_known(&mut self, slot: Slot, out: &mut Outbox) {
        let mirror = self.mirrors.mirror(slot);
        let (part, aborted) = (mirror.part, mirror.aborted.clone());
        for action in aborted {
            if let Some(level) = self.mirrors.find_level_at((action, part)) {
                self.abort_level(level, out);
            }
        }
    }

    /// Whether an action of a checkpoint goes on here.
    fn goes_on(&mut self, object: Uid, root: Uid, it: &CargoAction, out: &mut Outbox) -> bool {
        if self.mutation == Mutation::LoseCheckpoint {
            return false;
        }
        let maker = Peer {
            node: root.node,
            incarnation: root.incarnation(),
        };
        let over = match self.tombstones.find(root) {
            Some(Fate::Aborted | Fate::Told | Fate::Committed) => true,
            // That is what it has done elsewhere at this shard.
            Some(Fate::ReadOnly { .. }) | None => false,
        };
        let late = it.until <= self.now || self.check_maker(maker, out).is_err();
        let known = self.mirrors.find_at((root, Some(object))).is_some();
        let actions = self.mirrors.len() + self.decisions.len();
        let full = actions >= self.limits.actions_max as usize;
        if over || late || known || full {
            return false;
        }
        let images = it.levels.iter().any(|level| level.image.is_some());
        !images || self.room_for_one(out).is_ok()
    }

    /// The levels that are committed into their parents.
    fn resume_action(&mut self, object: Uid, it: CargoAction, more: CheckpointPart) -> Vec<Uid> {
        let part = Some(object);
        let slot = self
            .mirrors
            .insert_at(it.path.clone(), part, it.until, self.now);
        let mirror = self.mirrors.mirror_mut(slot);
        (mirror.home, mirror.born_ms) = (it.home, it.born_ms);
        mirror.join = more.join;
        mirror.executed = it.executed.into_iter().collect();
        mirror.reached = more.reached.into_iter().collect();
        mirror.gone = more.gone.into_iter().collect();
        (mirror.merged, mirror.lost_out) = (more.merged, more.lost);
        mirror.aborted = more.aborted.into_iter().collect();
        let max = self.limits.participants_max;
        for caller in it.callers {
            self.mirrors.note_caller(slot, caller, max);
        }
        let mut places = Vec::with_capacity(it.levels.len());
        let mut merging = Vec::new();
        for level in it.levels {
            let at = match level.parent {
                None => self.mirrors.mirror(slot).root,
                Some(parent) => {
                    let parent = Some(places[parent as usize]);
                    self.mirrors.insert_level(level.uid, slot, parent)
                }
            };
            places.push(at);
            if level.merging {
                self.mirrors.level_mut(at).ending = Ending::Merging;
                merging.push(level.uid);
            }
            if let Some(lock) = level.lock {
                self.bring_lock(object, at, (lock.mode, lock.retained));
            }
            if let Some(image) = level.image {
                let before = Before {
                    create: false,
                    changed: image.changed,
                    replicated: true,
                    size_bytes: image.size_bytes,
                };
                self.mirrors.level_mut(at).images.insert(object, before);
                self.mirrors.mirror_mut(slot).updated |= image.changed;
            }
        }
        merging.reverse();
        merging
    }
}
