//! From the object's door to the answer: lock, image, servant, disk.

use super::{Engine, Mutation};
use crate::activation::{self, Image};
use crate::call::{Cue, Kill, Next, Role, Stage};
use crate::id::Uid;
use crate::input::{Ended, Fault, Ticket};
use crate::lock::locks::Owner;
use crate::lock::mode::Mode;
use crate::outbox::Outbox;
use crate::output::{Answer, Event, ObjectSlot, Output, Refusal};
use crate::slab::Slot;

impl Engine {
    /// Whether a call that owns its lock itself has it in this stage.
    pub(super) fn must_hold(stage: Stage) -> bool {
        match stage {
            Stage::Granted | Stage::Running | Stage::Flushing { state: true } => true,
            Stage::Searching | Stage::Queued | Stage::Gated | Stage::Flushing { state: false } => {
                false
            }
        }
    }

    /// The servant ended.
    pub(super) fn returned(
        &mut self,
        ticket: Ticket,
        ended: Ended,
        size_bytes: u64,
        out: &mut Outbox,
    ) {
        let slot = self.slot_of(ticket, "returned");
        if ended == Ended::Killed {
            let leader = self.calls.leader_mut(slot);
            assert!(leader.kill == Kill::Asked, "{ticket:?} was to live");
            leader.kill = Kill::Done;
        }
        let leader = self.calls.leader(slot);
        let object = leader.object;
        let changed = leader.traits.mode == Mode::Write && ended == Ended::Normal;
        let action = leader.traits.action;
        if changed && leader.stage == Stage::Running && !leader.traits.volatile {
            self.objects.set_size(object, size_bytes);
            if action {
                self.note_change(slot);
            }
        }
        if ended == Ended::Normal || ended == Ended::Raised {
            self.merge_out(slot, out);
        }
        self.step(slot, Cue::Returned(ended), out);
    }

    /// The store ended.
    pub(super) fn flushed(&mut self, ticket: Ticket, result: Result<(), Fault>, out: &mut Outbox) {
        let slot = self.slot_of(ticket, "was flushed");
        let trusted = self.mutation == Mutation::TrustFault;
        let result = if trusted { Ok(()) } else { result };
        let leader = self.calls.leader(slot);
        let (uid, create, object) = (leader.uid, leader.traits.create, leader.object);
        if result == Err(Fault::Fenced) {
            out.push(Output::Event(Event::Fenced { uid }));
        }
        if create && result == Ok(()) && leader.stage == (Stage::Flushing { state: true }) {
            self.change_image(object, activation::Cue::Made);
            out.push(Output::Event(Event::Created { uid }));
        }
        self.step(slot, Cue::Flushed(result), out);
    }

    /// Does what a call's machine decided.
    pub(super) fn carry_out(&mut self, slot: Slot, next: Next, cue: Cue, out: &mut Outbox) {
        match next {
            Next::AnswerSaved => {
                let call = self
                    .calls
                    .leader(slot)
                    .call
                    .expect("a searched call has an id");
                self.end(slot, Some(Answer::Saved(call)), out);
            }
            Next::AskLock => self.enqueue(slot, out),
            Next::AskGate => self.ask_gate(slot, out),
            Next::WantImage => self.want_image(slot, out),
            Next::Dispatch => self.dispatch(slot, out),
            Next::Flush {
                undo,
                state,
                reply,
                create,
            } => {
                if undo {
                    self.discard(slot, out);
                    self.unlock(slot, out);
                }
                self.flush(slot, state, reply, create, out);
            }
            Next::Answer { discard } => {
                if discard {
                    self.discard(slot, out);
                }
                self.end(slot, Some(self.outcome(slot)), out);
            }
            Next::Keep => {
                self.keep(slot, out);
                self.end(slot, Some(self.outcome(slot)), out);
            }
            Next::Undo => {
                self.undo(slot, out);
                self.end(slot, Some(self.outcome(slot)), out);
            }
            Next::Refuse { discard, refusal } => {
                if discard {
                    self.discard(slot, out);
                }
                self.end(slot, Some(Answer::Refused(refusal)), out);
            }
            Next::Vanish => self.end(slot, None, out),
            Next::Kill(why) => self.kill(slot, why, out),
            Next::RunOn => {}
            Next::Mistake => {
                let call = self.calls.entry(slot);
                panic!("{cue:?} cannot happen to {call:?}");
            }
        }
    }

    /// A call reached its object's door: it gets the lock or waits for it.
    pub(super) fn enqueue(&mut self, slot: Slot, out: &mut Outbox) {
        let leader = self.calls.leader(slot);
        let (uid, traits) = (leader.uid, leader.traits);
        let object = match self.door(uid, traits.volatile, traits.create, out) {
            Ok(object) => object,
            Err(refusal) => {
                if let Refusal::Overloaded { what, limit } = refusal {
                    out.push(Output::Event(Event::Overloaded { what, limit }));
                }
                return self.end(slot, Some(Answer::Refused(refusal)), out);
            }
        };
        self.objects.set_busy(object);
        let entry = self.objects.entry_mut(object);
        entry.calls += 1;
        entry.waiting += 1;
        let volatile = entry.is_volatile();
        let leader = self.calls.leader_mut(slot);
        leader.traits.volatile = volatile;
        leader.traits.action &= !volatile;
        leader.object = object;
        leader.stage = Stage::Queued;
        leader.since = self.now;
        self.ask_lock(slot, out);
    }

    /// Looks at every call that got a lock or its turn, and at those that do by that.
    pub(super) fn run_ready(&mut self, out: &mut Outbox) {
        while let Some(slot) = self.ready.pop_front() {
            let cue = match self.calls.leader(slot).stage {
                Stage::Queued => Cue::LockGranted,
                Stage::Searching
                | Stage::Gated
                | Stage::Granted
                | Stage::Running
                | Stage::Flushing { .. } => Cue::GateOpen,
            };
            self.step(slot, cue, out);
        }
    }

    /// A call in an action has the lock: it takes its turn among the calls of its action.
    fn ask_gate(&mut self, slot: Slot, out: &mut Outbox) {
        let leader = self.calls.leader_mut(slot);
        leader.stage = Stage::Gated;
        let passes = leader.called_back();
        let (object, mode) = (leader.object, leader.traits.mode);
        let gate = &mut self.objects.entry_mut(object).gate;
        if gate.get_or_insert_default().enter(slot, mode, passes) {
            self.step(slot, Cue::GateOpen, out);
        } else {
            self.note_patience(slot);
        }
    }

    /// A call in an action is inside its object no more, or does not wait to be.
    fn leave_gate(&mut self, slot: Slot) {
        let object = self.calls.leader(slot).object;
        let entry = self.objects.entry_mut(object);
        let gate = entry
            .gate
            .as_mut()
            .expect("a call past the lock is at the gate");
        let ready = &mut self.ready;
        gate.leave(slot, |opened| ready.push_back(opened));
        if gate.is_empty() {
            entry.gate = None;
        }
    }

    /// A call has the lock: it runs if the object is in memory.
    pub(super) fn want_image(&mut self, slot: Slot, out: &mut Outbox) {
        let leader = self.calls.leader_mut(slot);
        leader.stage = Stage::Granted;
        let (uid, object, create) = (leader.uid, leader.object, leader.traits.create);
        if self.is_held_back(slot) {
            return;
        }
        match self.change_image(object, activation::Cue::Wanted { create }) {
            activation::Next::Load => out.push(Output::Load {
                uid,
                slot: ObjectSlot(object.0),
            }),
            activation::Next::Run => self.step(slot, Cue::ImageReady, out),
            activation::Next::Wait => {}
            activation::Next::RefuseExists => {
                self.end(slot, Some(Answer::Refused(Refusal::Exists)), out);
            }
            activation::Next::RunHolders
            | activation::Next::RefuseAbsent
            | activation::Next::RefuseMoved
            | activation::Next::RefuseAll(_)
            | activation::Next::Ignore
            | activation::Next::Mistake => panic!("{uid} cannot be wanted as it is"),
        }
    }

    /// The object is in memory: those with the lock run.
    pub(super) fn run_holders(&mut self, uid: Uid, out: &mut Outbox) {
        let holders = self.locks.holders(Self::lock_key(uid));
        let outside = holders.filter(|holding| !holding.owner.is_level());
        let mut slots: Vec<Slot> = outside.map(|holding| Slot(holding.owner.index())).collect();
        if let Some(object) = self.objects.slot(uid)
            && let Some(gate) = &self.objects.entry(object).gate
        {
            slots.extend(gate.inside());
        }
        for slot in slots {
            let leader = self.calls.leader(slot);
            match leader.stage {
                Stage::Granted if leader.traits.create => self.want_image(slot, out),
                Stage::Granted if self.is_held_back(slot) => {}
                Stage::Granted => self.step(slot, Cue::ImageReady, out),
                // It was granted by this very input and is looked at next.
                Stage::Queued | Stage::Gated => {}
                Stage::Searching | Stage::Running | Stage::Flushing { .. } => {
                    panic!(
                        "{:?} ran before its object was there",
                        self.calls.entry(slot)
                    );
                }
            }
        }
    }

    fn dispatch(&mut self, slot: Slot, out: &mut Outbox) {
        let leader = self.calls.leader_mut(slot);
        leader.stage = Stage::Running;
        let (uid, mode, new) = (leader.uid, leader.traits.mode, leader.traits.create);
        let level = leader.traits.action.then_some(leader.level);
        let object_slot = ObjectSlot(leader.object.0);
        let object = self.objects.entry_mut(leader.object);
        object.waiting -= 1;
        let in_memory = object.image == if new { Image::Making } else { Image::Active };
        assert!(in_memory, "{uid} runs a call while {:?}", object.image);
        let action = level.map(|level| self.mirrors.level(level).uid);
        if action.is_some() && mode == Mode::Write {
            self.capture(slot, out);
        }
        let ticket = self.calls.entry(slot).ticket;
        self.begin_again(slot, out);
        out.push(Output::Dispatch {
            ticket,
            uid,
            slot: object_slot,
            mode,
            new,
            action,
        });
    }

    fn flush(&mut self, slot: Slot, state: bool, reply: bool, create: bool, out: &mut Outbox) {
        let leader = self.calls.leader_mut(slot);
        leader.stage = Stage::Flushing { state };
        let uid = leader.uid;
        let reply = reply && self.mutation != Mutation::SkipSave;
        let ticket = self.calls.entry(slot).ticket;
        out.push(Output::Flush {
            ticket,
            uid,
            state,
            reply,
            create,
        });
        if self.mutation == Mutation::ReplyBeforeFlush
            && core::mem::take(&mut self.calls.leader_mut(slot).waits)
        {
            out.push(Output::Reply {
                ticket,
                answer: Answer::Outcome,
                joined: None,
            });
        }
        if self.mutation == Mutation::UnlockBeforeFlush && state && !create {
            self.unlock(slot, out);
            self.calls.leader_mut(slot).stage = Stage::Flushing { state: false };
        }
    }

    /// Drops an image that a call has spoilt. The call has the object to itself.
    fn discard(&mut self, slot: Slot, out: &mut Outbox) {
        let leader = self.calls.leader(slot);
        let (uid, object, stage) = (leader.uid, leader.object, leader.stage);
        assert!(leader.traits.mode == Mode::Write, "a read spoilt {uid}");
        assert!(
            Self::must_hold(stage),
            "{uid} is discarded by a call without its lock"
        );
        let running = stage == Stage::Running;
        let kept = if running {
            Mutation::KeepOnRaise
        } else {
            Mutation::KeepOnFault
        };
        if self.mutation == kept && !leader.traits.create {
            return;
        }
        self.change_image(object, activation::Cue::Dropped);
        self.objects.set_size(object, 0);
        out.push(Output::Discard { uid });
    }

    /// Gives a call's own lock back, its turn, or its place in a queue.
    fn unlock(&mut self, slot: Slot, out: &mut Outbox) {
        let leader = self.calls.leader(slot);
        let (uid, action) = (leader.uid, leader.traits.action);
        match leader.stage {
            Stage::Queued if leader.parked => self.withdraw(slot),
            // It was granted by this input and is not looked at yet, or refused before it could
            // ask for the lock.
            Stage::Queued => {
                let ready = self.ready.len();
                self.ready.retain(|ready| *ready != slot);
                if !action && self.ready.len() < ready {
                    self.release(uid, Owner::call(slot.0), out);
                }
            }
            Stage::Gated | Stage::Granted | Stage::Running if action => {
                self.ready.retain(|ready| *ready != slot);
                self.leave_gate(slot);
            }
            Stage::Granted | Stage::Running | Stage::Flushing { state: true } => {
                self.release(uid, Owner::call(slot.0), out);
            }
            Stage::Searching | Stage::Gated | Stage::Flushing { state: false } => {}
        }
    }

    /// A call is over: everybody who waits gets the answer, all tables forget it.
    pub(super) fn end(&mut self, slot: Slot, answer: Option<Answer>, out: &mut Outbox) {
        self.unlock(slot, out);
        let answer = self.refuse_known(slot, answer);
        let joined = self.joined(slot);
        let part = self.part_of_call(slot);
        if let Some(object) = part {
            self.note_answer(slot, object, answer.as_ref());
        }
        let leader = self.calls.leader_mut(slot);
        let followers = core::mem::take(&mut leader.followers);
        let waits = leader.waits;
        let ticket = self.calls.entry(slot).ticket;
        if let Some(answer) = answer {
            if waits {
                let answer = answer.clone();
                let reply = Output::Reply {
                    ticket,
                    answer,
                    joined,
                };
                self.say(part, reply, out);
            }
            let answer = match answer {
                Answer::Outcome => Answer::SameAs(ticket),
                Answer::SameAs(_) | Answer::Saved(_) | Answer::Refused(_) => answer,
            };
            for follower in &followers {
                let ticket = self.calls.entry(*follower).ticket;
                let answer = answer.clone();
                if self.mutation != Mutation::LoseFollowers {
                    let reply = Output::Reply {
                        ticket,
                        answer,
                        joined,
                    };
                    self.say(part, reply, out);
                }
            }
        }
        for follower in followers {
            self.forget(follower, out);
        }
        let call = self.forget(slot, out);
        let Role::Leader(leader) = call.role else {
            panic!("a follower ended as a leader")
        };
        if leader.object != Slot::NONE {
            let object = self.objects.entry_mut(leader.object);
            object.calls -= 1;
            object.waiting -= u32::from(!leader.stage.started());
            self.left_by_call(leader.object, out);
        }
        if let Some(level) = leader.in_level() {
            self.left_by(slot, &leader, level, out);
        }
    }
}
