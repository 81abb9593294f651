//! From arrival to the object's door, and out of it again unserved: bounds, late callers,
//! duplicates, the search for a saved reply. How calls are given up is in `orphans`.

use super::{Drain, Engine, Mutation};
use crate::call::{self, Cue};
use crate::id::{CallId, Peer, Uid};
use crate::incarnation::Heard;
use crate::input::{Invoke, Ticket};
use crate::lock::mode::Mode;
use crate::outbox::Outbox;
use crate::output::{Answer, Event, Output, Refusal};
use crate::slab::Slot;
use crate::uselist::Change;

impl Engine {
    /// A call or a create arrived.
    pub(super) fn admit(&mut self, mut invoke: Invoke, create: bool, out: &mut Outbox) {
        assert!(!create || invoke.mode == Mode::Write, "a create is a write");
        assert!(
            !create || !invoke.volatile,
            "a volatile object is served, not created"
        );
        if let Err(refusal) = self.check_admission(&invoke, create, out) {
            if let Refusal::Overloaded { what, limit } = refusal {
                out.push(Output::Event(Event::Overloaded { what, limit }));
            }
            return self.refuse_at_once(&invoke, refusal, out);
        }
        let find_as = self.at_most_once(&invoke);
        if let Some(leader) = find_as.and_then(|call| self.find_leader(call)) {
            self.calls.follow(&invoke, leader);
            if invoke.action.as_ref().is_none_or(|member| !member.carried) {
                self.note_caller(leader, invoke.caller);
            }
            let first = self.calls.entry(leader).ticket;
            out.push(Output::Event(Event::Joined {
                ticket: invoke.ticket,
                first,
            }));
            return;
        }
        let in_action = invoke.root().is_some();
        let slot = self.calls.lead(&mut invoke, create, find_as);
        if in_action {
            self.join(slot, invoke.cohort.then_some(invoke.uid));
            return self.enqueue(slot, out);
        }
        match find_as {
            Some(call) if !invoke.volatile && self.mutation != Mutation::SkipSearch => {
                out.push(Output::Search {
                    ticket: invoke.ticket,
                    call,
                });
            }
            Some(_) | None => self.enqueue(slot, out),
        }
    }

    /// Answers a call that is not admitted. Of one that was executed in a part the answer is in
    /// the object's log.
    fn refuse_at_once(&mut self, invoke: &Invoke, refusal: Refusal, out: &mut Outbox) {
        let (ticket, joined) = (invoke.ticket, self.joined_by(invoke));
        let part = invoke.root().filter(|_| invoke.cohort);
        let answer = match part {
            Some(root) => self.answer_known(invoke, root, refusal),
            None => Answer::Refused(refusal),
        };
        let held = part.filter(|_| joined.is_some()).map(|_| invoke.uid);
        if let Some(object) = held {
            self.cohorts.touch(object);
        }
        self.say(
            held,
            Output::Reply {
                ticket,
                answer,
                joined,
            },
            out,
        );
        self.say(held, Output::Forget { ticket }, out);
    }

    /// The id under which a call must not be executed twice: within an action that holds for
    /// every write, since what was done once cannot be told from what was done twice.
    fn at_most_once(&self, invoke: &Invoke) -> Option<CallId> {
        let once = invoke.save || invoke.root().is_some();
        invoke.call.filter(|_| once && invoke.mode == Mode::Write)
    }

    fn find_leader(&self, call: CallId) -> Option<Slot> {
        if self.mutation == Mutation::NoJoin {
            return None;
        }
        self.calls.find_leader(call)
    }

    fn check_admission(
        &mut self,
        invoke: &Invoke,
        create: bool,
        out: &mut Outbox,
    ) -> Result<(), Refusal> {
        if invoke.deadline <= self.now {
            return Err(Refusal::Deadline { started: false });
        }
        // Who calls counts, and not who has named the call: a new life of a process may ask for
        // what its earlier one has begun.
        self.check_incarnation(invoke.caller, out)?;
        self.check_action(invoke, out)?;
        let full = |(what, limit)| Refusal::Overloaded { what, limit };
        self.calls.room(invoke.caller, &self.limits).map_err(full)?;
        let leader = self.at_most_once(invoke);
        match leader.and_then(|call| self.find_leader(call)) {
            Some(leader) => {
                let leader = self.calls.leader(leader);
                let same = leader.traits.create == create && (create || leader.uid == invoke.uid);
                if same && self.same_action(leader, invoke) {
                    Ok(())
                } else {
                    Err(Refusal::CallIdReused)
                }
            }
            None if self.drain != Drain::No => Err(Refusal::Draining),
            None => self.check_new_in_action(invoke),
        }
    }

    pub(super) fn check_incarnation(
        &mut self,
        caller: Peer,
        out: &mut Outbox,
    ) -> Result<(), Refusal> {
        let Peer { node, incarnation } = caller;
        match self
            .incarnations
            .hear(node, incarnation, self.limits.peers_max)
        {
            Heard::Current => Ok(()),
            Heard::Newer(known) => {
                let old = Peer {
                    node,
                    incarnation: known,
                };
                out.push(Output::Event(Event::Reborn { old, incarnation }));
                if self.mutation != Mutation::SpareOlder {
                    self.caller_gone(old, out);
                    self.give_up_older(node, incarnation, out);
                }
                Ok(())
            }
            Heard::Older(_) if self.mutation == Mutation::IgnoreIncarnation => Ok(()),
            Heard::Older(known) => Err(Refusal::OldIncarnation { known }),
        }
    }

    pub(super) fn searched(&mut self, ticket: Ticket, found: bool, out: &mut Outbox) {
        if let Some(slot) = self.calls.slot(ticket) {
            self.step(slot, Cue::Searched { found }, out);
        }
    }

    pub(super) fn bind(&mut self, uid: Uid, caller: Peer, out: &mut Outbox) {
        let uses_max = self.limits.uses_max;
        let change = self.uses.bind(uid, caller, uses_max);
        if change == Change::Full {
            let limit = uses_max.into();
            out.push(Output::Event(Event::Overloaded {
                what: "bindings",
                limit,
            }));
        }
        self.rebound(uid, change);
    }

    pub(super) fn unbind(&mut self, uid: Uid, caller: Peer) {
        let change = self.uses.unbind(uid, caller);
        self.rebound(uid, change);
    }

    pub(super) fn rebound(&mut self, uid: Uid, change: Change) {
        let bound = match change {
            Change::First => true,
            Change::Last => false,
            Change::None | Change::Full => return,
        };
        if let Some(slot) = self.objects.slot(uid) {
            self.objects.set_bound(self.now, slot, bound);
        }
    }

    /// Tells a call's machine what happened and does what it decides.
    pub(super) fn step(&mut self, slot: Slot, cue: Cue, out: &mut Outbox) {
        let leader = self.calls.leader(slot);
        let (stage, traits) = (leader.stage, leader.traits);
        let next = call::next(stage, cue, traits);
        self.carry_out(slot, next, cue, out);
    }
}
