//! Calls in actions: how they join a level, what is kept of objects before they write, what
//! their answers say.
//!
//! | call in an action | before it runs | when it has returned |
//! |---|---|---|
//! | read | lock of the level, turn at the gate | answer |
//! | write | the same; `Capture` if the level has no before-image of the object | `Keep` or `Undo`; answer |
//! | create | the same; the before-image is that there is none | the same |
//! | of a volatile object | a lock of its own | answer |
//!
//! The answer leaves at once: whether it counts is known at the end of the action. A call whose
//! level was aborted while it ran is answered so, whatever its servant said.

use super::{Drain, Engine, Mutation};
use crate::action::mirror::{Before, Ending};
use crate::action::path::Joined;
use crate::activation;
use crate::call::{Kill, Leader};
use crate::id::{Peer, Uid};
use crate::input::Invoke;
use crate::lock::locks::Owner;
use crate::lock::mode::Mode;
use crate::outbox::Outbox;
use crate::output::{Answer, Output, Refusal};
use crate::slab::Slot;
use crate::time::Time;

impl Engine {
    /// Whether the action of a call goes on here.
    pub(super) fn check_action(
        &mut self,
        invoke: &Invoke,
        out: &mut Outbox,
    ) -> Result<(), Refusal> {
        let Some((member, root)) = invoke.action.as_ref().zip(invoke.root()) else {
            return Ok(());
        };
        let maker = Peer {
            node: root.node,
            incarnation: root.incarnation(),
        };
        self.check_maker(maker, out).map_err(|refusal| {
            // Whoever serves it is not to be told that it is old itself.
            let itself = invoke.caller.node == maker.node;
            let action = root;
            if itself {
                refusal
            } else {
                Refusal::ActionAborted { action, why: None }
            }
        })?;
        if member.until <= self.now {
            return Err(Refusal::Deadline { started: false });
        }
        let part = invoke.cohort.then_some(invoke.uid);
        // Under whatever policy: it may be another one since the action had a part here.
        if self.cohorts.waiting.contains_key(&invoke.uid) {
            // What the action has of the object is to be here first.
            return Err(Refusal::Moved);
        }
        if self.cohorts.end_of(invoke.uid, root).is_some() {
            return Err(self.aborted(root));
        }
        let here = part.and_then(|_| self.mirrors.find_at((root, part)));
        let known = here.map(|slot| &self.mirrors.mirror(slot).aborted);
        let ended = |action: &Uid| {
            if known.is_some_and(|aborted| aborted.contains(action)) {
                return true;
            }
            let dead = self.tombstones.find(*action).is_some();
            let level = self.mirrors.find_level_at((*action, part));
            let ends = level.is_some_and(|level| {
                let level = self.mirrors.level(level);
                level.ending == Ending::Aborting || !self.mirrors.mirror(level.mirror).is_active()
            });
            ends || (dead && self.mutation != Mutation::NoTombstone)
        };
        match member.path.own().iter().find(|action| ended(action)) {
            Some(action) => Err(self.aborted(*action)),
            None => Ok(()),
        }
    }

    /// Whether the process that began an action is not known to have ended.
    pub(super) fn check_maker(&mut self, maker: Peer, out: &mut Outbox) -> Result<(), Refusal> {
        let me = self.identity.me;
        if maker.node == me.node && maker.incarnation < me.incarnation {
            let known = me.incarnation;
            return Err(Refusal::OldIncarnation { known });
        }
        self.check_incarnation(maker, out)
    }

    /// Whether a call that nobody asked for before fits its action; calls outside do.
    pub(super) fn check_new_in_action(&self, invoke: &Invoke) -> Result<(), Refusal> {
        let Some((member, root)) = invoke.action.as_ref().zip(invoke.root()) else {
            return Ok(());
        };
        let full = |what, limit: u32| {
            let limit = limit.into();
            Err(Refusal::Overloaded { what, limit })
        };
        let limits = &self.limits;
        let part = invoke.cohort.then_some(invoke.uid);
        let Some(new_levels) = self.mirrors.new_levels(&member.path, part) else {
            let action = member.path.leaf().unwrap_or(root);
            return Err(self.aborted(action));
        };
        let mirror = self.mirrors.find_at((root, part));
        let levels = mirror.map_or(0, |mirror| self.mirrors.mirror(mirror).levels);
        if levels + new_levels > limits.levels_max {
            return full("nested actions in this action", limits.levels_max);
        }
        let Some(mirror) = mirror else {
            let known = self.mirrors.len() + self.decisions.len();
            if known >= limits.actions_max as usize {
                return full("actions on this shard", limits.actions_max);
            }
            return Ok(());
        };
        let mirror = self.mirrors.mirror(mirror);
        let known = |id| {
            let gone = mirror.gone.contains_key(&id) && !mirror.orphaned.contains(&id);
            mirror.executed.contains(&id) || gone
        };
        let seen = invoke.call.is_some_and(known);
        if seen && self.mutation != Mutation::ExecuteRepeated {
            return Err(Refusal::Repeated);
        }
        if mirror.locks >= limits.action_objects_max {
            return full("objects in this action", limits.action_objects_max);
        }
        let writes = mirror.executed.len() >= limits.action_writes_max as usize;
        if writes && invoke.mode == Mode::Write {
            return full("writes in this action", limits.action_writes_max);
        }
        Ok(())
    }

    /// Whether a call that is under way was made in the same action as one that has its id.
    pub(super) fn same_action(&self, leader: &Leader, invoke: &Invoke) -> bool {
        let leaf = leader.in_level().map(|level| self.mirrors.level(level).uid);
        let asked = invoke.action.as_ref().and_then(|m| m.path.leaf());
        leaf == asked
    }

    /// A call that was admitted joins its level.
    pub(super) fn join(&mut self, slot: Slot, part: Option<Uid>) {
        let caller = self.calls.entry(slot).caller;
        let leader = self.calls.leader(slot);
        let member = leader.member.as_ref().expect("a call in an action says so");
        let level = self.mirrors.join(member, part, self.now);
        let (until, carried) = (member.until, member.carried);
        self.mirrors.attach(level, slot);
        self.calls.leader_mut(slot).level = level;
        if !carried {
            self.note_caller(slot, caller);
        }
        let at = self.mirrors.level(level).mirror;
        let mirror = self.mirrors.mirror_mut(at);
        mirror.until = mirror.until.min(until);
        mirror.for_cargo = false;
        let until = mirror.until;
        self.mirrors.set_due(at, until);
    }

    /// A process has called in the action of a call. It is not noted if there are too many: then
    /// its end is noticed when the action's time is up.
    pub(super) fn note_caller(&mut self, slot: Slot, caller: Peer) {
        let Some(level) = self.calls.leader(slot).in_level() else {
            return;
        };
        let mirror = self.mirrors.level(level).mirror;
        let callers_max = self.limits.participants_max;
        self.mirrors.note_caller(mirror, caller, callers_max);
    }

    /// What the answer of a call says about this shard.
    pub(super) fn joined(&self, slot: Slot) -> Option<Joined> {
        let level = self.calls.leader(slot).in_level()?;
        let mirror = self.mirrors.mirror(self.mirrors.level(level).mirror);
        // What another leader has by now may never have heard of this call.
        (!mirror.lost).then(|| mirror.joined())
    }

    /// The same for a call that was not admitted.
    pub(super) fn joined_by(&self, invoke: &Invoke) -> Option<Joined> {
        let part = invoke.cohort.then_some(invoke.uid);
        let mirror = self.mirrors.find_at((invoke.root()?, part))?;
        Some(self.mirrors.mirror(mirror).joined())
    }

    /// How a call that has returned is answered.
    pub(super) fn outcome(&self, slot: Slot) -> Answer {
        let level = self.calls.leader(slot).in_level();
        let lost = |level: Slot| self.mirrors.mirror(self.mirrors.level(level).mirror).lost;
        if level.is_some_and(lost) {
            return Answer::Refused(Refusal::Moved);
        }
        match level.and_then(|level| self.mirrors.aborting(level)) {
            Some(level) => {
                let action = self.mirrors.level(level).uid;
                Answer::Refused(self.aborted(action))
            }
            // Only who has asked again since then hears of it.
            None if self.calls.leader(slot).kill == Kill::Done => Answer::Refused(Refusal::Killed),
            None => Answer::Outcome,
        }
    }

    /// A write in an action begins: from now on it is not executed again, and what the object
    /// was before the level's first write is kept.
    pub(super) fn capture(&mut self, slot: Slot, out: &mut Outbox) {
        let leader = self.calls.leader(slot);
        let (uid, level, create) = (leader.uid, leader.level, leader.traits.create);
        let size_bytes = self.objects.size_bytes(leader.object);
        let replicated = self.objects.entry(leader.object).is_replicated();
        if let Some(id) = leader.call {
            let mirror = self.mirrors.level(level).mirror;
            self.mirrors.mirror_mut(mirror).executed.insert(id);
        }
        let level = self.mirrors.level_mut(level);
        if level.images.contains_key(&uid) {
            return;
        }
        let before = Before {
            create,
            changed: false,
            replicated,
            size_bytes,
        };
        level.images.insert(uid, before);
        let action = level.uid;
        out.push(Output::Capture { uid, action });
    }

    /// A write in an action has ended well.
    pub(super) fn note_change(&mut self, slot: Slot) {
        let leader = self.calls.leader(slot);
        let level = self.mirrors.level_mut(leader.level);
        let before = level.images.get_mut(&leader.uid);
        let before = before.expect("a write has a before-image");
        before.changed = true;
        let (mirror, replicated) = (level.mirror, before.replicated);
        let mirror = self.mirrors.mirror_mut(mirror);
        mirror.updated = true;
        if replicated {
            mirror.decider.get_or_insert(leader.uid);
        } else {
            mirror.plain = true;
        }
    }

    /// What a call did belongs to its action now.
    pub(super) fn keep(&mut self, slot: Slot, out: &mut Outbox) {
        let leader = self.calls.leader(slot);
        let (uid, object, create) = (leader.uid, leader.object, leader.traits.create);
        let action = self.mirrors.level(leader.level).uid;
        if create {
            self.change_image(object, activation::Cue::Made);
        }
        let ticket = self.calls.entry(slot).ticket;
        out.push(Output::Keep {
            ticket,
            uid,
            action,
        });
    }

    /// A call raised or failed: the object is as it was before it. Of a create nothing is left,
    /// not even that there was none before.
    pub(super) fn undo(&mut self, slot: Slot, out: &mut Outbox) {
        let leader = self.calls.leader(slot);
        let (uid, object, level) = (leader.uid, leader.object, leader.level);
        if leader.traits.create {
            self.change_image(object, activation::Cue::Dropped);
            self.mirrors.level_mut(level).images.remove(&uid);
        }
        let ticket = self.calls.entry(slot).ticket;
        out.push(Output::Undo { ticket, uid });
    }

    /// A call in an action has ended: its level may be done.
    pub(super) fn left_by(&mut self, slot: Slot, leader: &Leader, level: Slot, out: &mut Outbox) {
        self.mirrors.detach(level, slot);
        let started = leader.traits.action && leader.stage.started();
        let locked = self.mirrors.level(level).locks.contains_key(&leader.uid);
        if self.mutation == Mutation::UnlockAfterCall && started && locked {
            self.release(leader.uid, Owner::level(level.0), out);
        }
        self.level_left(level, out);
    }

    /// What is due at a mirror now.
    pub(super) fn look_at_mirrors(&mut self, out: &mut Outbox) {
        while let Some(slot) = self.mirrors.pop_due(self.now) {
            self.mirror_due(slot, out);
        }
    }

    /// When a message of the commit protocol is sent again if nothing comes of it.
    pub(super) fn resend_at(&self, pause_ns: u64) -> Time {
        Time(self.now.0.saturating_add(pause_ns))
    }

    /// The longest pause between two of them.
    pub(super) fn pause_max_ns(&self) -> u64 {
        let factor = crate::limits::Limits::RESEND_FACTOR;
        self.limits.resend_ns.saturating_mul(factor)
    }

    /// Whether nothing is done any more.
    pub(super) fn is_drained(&self) -> bool {
        self.drain == Drain::Drained
    }
}
