//! From the object's door to the answer: lock, image, servant, disk.

use super::{Engine, Mutation};
use crate::activation::{self, Image};
use crate::call::{Cue, Next, Role, Stage};
use crate::id::Uid;
use crate::input::{Ended, Fault, Ticket};
use crate::lock::mode::Mode;
use crate::lock::table::{Acquired, LockKey, Owner};
use crate::outbox::Outbox;
use crate::output::{Answer, Event, Output, Refusal};
use crate::slab::Slot;

impl Engine {
    pub(super) fn lock_key(uid: Uid) -> LockKey {
        LockKey::object(uid)
    }

    /// Each call is its own action: the slot names it, while it lives.
    fn owner(slot: Slot) -> Owner {
        Owner(slot.0.into())
    }

    /// Whether a call in this stage holds its object's lock.
    pub(super) fn must_hold(stage: Stage) -> bool {
        match stage {
            Stage::Granted | Stage::Running | Stage::Flushing { state: true } => true,
            Stage::Searching | Stage::Queued | Stage::Flushing { state: false } => false,
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
        let leader = self.calls.leader(slot);
        let object = leader.object;
        let changed = leader.traits.mode == Mode::Write && ended == Ended::Normal;
        if changed && leader.stage == Stage::Running && !leader.traits.volatile {
            self.objects.set_size(object, size_bytes);
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
                    self.unlock(slot);
                }
                self.flush(slot, state, reply, create, out);
            }
            Next::Answer { discard } => {
                if discard {
                    self.discard(slot, out);
                }
                self.end(slot, Some(Answer::Outcome), out);
            }
            Next::Refuse { discard, refusal } => {
                if discard {
                    self.discard(slot, out);
                }
                self.end(slot, Some(Answer::Refused(refusal)), out);
            }
            Next::Vanish => self.end(slot, None, out),
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
        let volatile = entry.volatile;
        let leader = self.calls.leader_mut(slot);
        leader.traits.volatile = volatile;
        leader.object = object;
        leader.stage = Stage::Queued;
        match self
            .locks
            .acquire(Self::lock_key(uid), Self::owner(slot), traits.mode)
        {
            Acquired::Granted => self.granted.push(Self::owner(slot)),
            Acquired::Waits => {}
        }
    }

    /// Looks at every call that got a lock, and at those that get one by that.
    pub(super) fn run_granted(&mut self, out: &mut Outbox) {
        let mut at = 0;
        while let Some(owner) = self.granted.get(at).copied() {
            at += 1;
            let slot = Slot(u32::try_from(owner.0).expect("an owner is a slot"));
            self.step(slot, Cue::LockGranted, out);
        }
        self.granted.clear();
    }

    /// A call has the lock: it runs if the object is in memory.
    fn want_image(&mut self, slot: Slot, out: &mut Outbox) {
        let leader = self.calls.leader_mut(slot);
        leader.stage = Stage::Granted;
        let (uid, object, create) = (leader.uid, leader.object, leader.traits.create);
        match self.change_image(object, activation::Cue::Wanted { create }) {
            activation::Next::Load => out.push(Output::Load { uid }),
            activation::Next::Run => self.step(slot, Cue::ImageReady, out),
            activation::Next::Wait => {}
            activation::Next::RefuseExists => {
                self.end(slot, Some(Answer::Refused(Refusal::Exists)), out);
            }
            activation::Next::RunHolders
            | activation::Next::RefuseAbsent
            | activation::Next::RefuseAll(_)
            | activation::Next::Ignore
            | activation::Next::Mistake => panic!("{uid} cannot be wanted as it is"),
        }
    }

    /// The object is in memory: those with the lock run.
    pub(super) fn run_holders(&mut self, uid: Uid, out: &mut Outbox) {
        let holders = self.locks.holders(Self::lock_key(uid));
        let holders: Vec<Owner> = holders.map(|(owner, _)| owner).collect();
        for owner in holders {
            let slot = Slot(u32::try_from(owner.0).expect("an owner is a slot"));
            let leader = self.calls.leader(slot);
            match leader.stage {
                Stage::Granted if leader.traits.create => self.want_image(slot, out),
                Stage::Granted => self.step(slot, Cue::ImageReady, out),
                // It was granted by this very input and is looked at next.
                Stage::Queued => {}
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
        let object = self.objects.entry_mut(leader.object);
        object.waiting -= 1;
        let in_memory = object.image == if new { Image::Making } else { Image::Active };
        assert!(in_memory, "{uid} runs a call while {:?}", object.image);
        let ticket = self.calls.entry(slot).ticket;
        out.push(Output::Dispatch {
            ticket,
            uid,
            mode,
            new,
            action: None,
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
            self.unlock(slot);
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

    /// Gives a call's lock back, or its place in the queue.
    fn unlock(&mut self, slot: Slot) {
        let leader = self.calls.leader(slot);
        let (key, owner) = (Self::lock_key(leader.uid), Self::owner(slot));
        match leader.stage {
            Stage::Queued => {
                // A call that was granted by this input and not looked at yet has the lock.
                let seen = self.granted.len();
                self.granted.retain(|granted| *granted != owner);
                if self.granted.len() < seen {
                    self.locks.release(key, owner, &mut self.granted);
                } else {
                    self.locks.withdraw(key, owner, &mut self.granted);
                }
            }
            Stage::Granted | Stage::Running | Stage::Flushing { state: true } => {
                self.locks.release(key, owner, &mut self.granted);
            }
            Stage::Searching | Stage::Flushing { state: false } => {}
        }
    }

    /// A call is over: everybody who waits gets the answer, all tables forget it.
    pub(super) fn end(&mut self, slot: Slot, answer: Option<Answer>, out: &mut Outbox) {
        self.unlock(slot);
        let followers = core::mem::take(&mut self.calls.leader_mut(slot).followers);
        let ticket = self.calls.entry(slot).ticket;
        if let Some(answer) = answer {
            if self.calls.leader(slot).waits {
                out.push(Output::Reply {
                    ticket,
                    answer: answer.clone(),
                    joined: None,
                });
            }
            let answer = match answer {
                Answer::Outcome => Answer::SameAs(ticket),
                Answer::SameAs(_) | Answer::Saved(_) | Answer::Refused(_) => answer,
            };
            for follower in &followers {
                let ticket = self.calls.entry(*follower).ticket;
                if self.mutation != Mutation::LoseFollowers {
                    out.push(Output::Reply {
                        ticket,
                        answer: answer.clone(),
                        joined: None,
                    });
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
    }
}
