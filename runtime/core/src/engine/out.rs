//! Servants of parts that call elsewhere in their action.
//!
//! Such a call, if its leader dies, is executed again by the next one; what it had done elsewhere
//! must be gone by then. So it calls within a nested action of its own, and the log knows that
//! action, and where it calls, before it does (*gone out*).
//!
//! | the call | at the next leader |
//! |---|---|
//! | had not gone out | runs, as if it were new |
//! | had gone out | its nested action is aborted everywhere; runs again; its answer says so, too |
//! | has ended well | answered from the log; its nested action has committed, and all are told again |
//! | had called outside of its nested action | refused: nobody knows what it has done |
//! | had gone out, and is refused for another reason | the same: who made it does not hear what is aborted |

use super::work::Work;
use super::{Engine, Mutation};
use crate::action::message::Message;
use crate::action::mirror::{Name, Nested};
use crate::action::path::Address;
use crate::action::scope::ABORTED_MAX;
use crate::id::Uid;
use crate::input::{Invoke, Ticket};
use crate::outbox::Outbox;
use crate::output::{Answer, Output, Refusal};
use crate::slab::Slot;

/// How often the end of a nested action is told.
const TELLS: u32 = 8;

impl Engine {
    /// A servant is about to call elsewhere.
    pub(super) fn goes_out(
        &mut self,
        ticket: Ticket,
        (nested, to): (Option<Uid>, Address),
        out: &mut Outbox,
    ) {
        let Some(slot) = self
            .calls
            .slot(ticket)
            .filter(|slot| self.calls.is_leader(*slot))
        else {
            return;
        };
        let leader = self.calls.leader(slot);
        let Some(level) = leader.in_level() else {
            return out.push(Output::GoOut { ticket });
        };
        let (id, at) = (leader.id, self.mirrors.level(level).mirror);
        let part = self.part_of_call(slot);
        let max = self.limits.participants_max as usize;
        let marks = self.mutation != Mutation::GoOutUnmarked;
        if self.mirrors.mirror(at).lost || self.mirrors.aborting(level).is_some() {
            // It is being stopped.
            return;
        }
        let mirror = self.mirrors.mirror_mut(at);
        if part.is_some()
            && mirror.gone.len() + mirror.merged.len() + mirror.lost_out.len() >= ABORTED_MAX
        {
            return self.abort_mirror(at, out);
        }
        if let Some((object, id)) = part.zip(id).filter(|_| marks) {
            let gone = mirror.gone.entry(id).or_default();
            let room = mirror.reached.len() < max;
            match nested.filter(|_| room) {
                Some(nested) => gone.level = Some(nested),
                None => gone.never = true,
            }
            if room {
                mirror.reached.insert(to);
            }
            self.cohorts.touch(object);
        }
        self.say(part, Output::GoOut { ticket }, out);
    }

    /// A call begins that an earlier leader has begun before.
    pub(super) fn begin_again(&mut self, slot: Slot, out: &mut Outbox) {
        let leader = self.calls.leader(slot);
        let Some((level, id)) = leader.in_level().zip(leader.id) else {
            return;
        };
        let mirror = self.mirrors.level(level).mirror;
        let mirror = self.mirrors.mirror_mut(mirror);
        if mirror.orphaned.remove(&id) {
            let lost = mirror.gone.get(&id).map(|gone| gone.lost.clone());
            let ticket = self.calls.entry(slot).ticket;
            let lost = lost.unwrap_or_default();
            out.push(Output::Again { ticket, lost });
        }
    }

    /// What is said of a call of a part that is not admitted. An earlier leader may have executed
    /// it: then nobody may take it that nothing has happened.
    pub(super) fn answer_known(&self, invoke: &Invoke, root: Uid, refusal: Refusal) -> Answer {
        let (object, call) = (invoke.uid, invoke.call);
        let Some(call) = call.filter(|_| Self::is_harmless(&refusal)) else {
            return Answer::Refused(refusal);
        };
        let runs = self.calls.find_leader(call).is_some();
        if !runs && self.has_saved(object, root, Some(call)) {
            return Answer::Saved(call);
        }
        let found = self.mirrors.find_at((root, Some(object)));
        let gone = found.is_some_and(|at| self.mirrors.mirror(at).gone.contains_key(&call));
        Answer::Refused(if gone { Refusal::Repeated } else { refusal })
    }

    /// The same of one that was admitted, and has not begun.
    pub(super) fn refuse_known(&self, slot: Slot, answer: Option<Answer>) -> Option<Answer> {
        match &answer {
            Some(Answer::Refused(refusal)) if Self::is_harmless(refusal) => {}
            _ => return answer,
        }
        if self.is_orphaned(slot) {
            return Some(Answer::Refused(Refusal::Repeated));
        }
        answer
    }

    /// Whether an earlier leader has begun a call, and this one has not: who made it may not have
    /// heard of the nested actions that it has left.
    pub(super) fn is_orphaned(&self, slot: Slot) -> bool {
        let leader = self.calls.leader(slot);
        let known = leader.in_level().zip(leader.id);
        known.is_some_and(|(level, id)| {
            let mirror = self.mirrors.level(level).mirror;
            self.mirrors.mirror(mirror).orphaned.contains(&id)
        })
    }

    /// Whether who hears this may take it that nothing has happened, and that its action goes on.
    fn is_harmless(refusal: &Refusal) -> bool {
        match refusal {
            Refusal::Overloaded { .. }
            | Refusal::Deadline { .. }
            | Refusal::Draining
            | Refusal::Store(_)
            | Refusal::NoSuchObject
            | Refusal::Exists
            | Refusal::Malformed { .. }
            | Refusal::LockTimeout { .. }
            | Refusal::Reentrant { .. }
            | Refusal::Repeated => true,
            Refusal::OldIncarnation { .. }
            | Refusal::Moved
            | Refusal::CallIdReused
            | Refusal::Deadlock { .. }
            | Refusal::ActionAborted { .. }
            | Refusal::Killed => false,
        }
    }

    /// A call has ended well: the nested action in which it has called elsewhere is committed, as
    /// soon as the log has its answer. Of a servant that has failed, what runs its part of the
    /// action has aborted it, and the answer names it. Nobody may say so before: another leader may
    /// have begun the call anew by then.
    pub(super) fn merge_out(&mut self, slot: Slot, out: &mut Outbox) {
        let leader = self.calls.leader(slot);
        let Some((level, id)) = leader.in_level().zip(leader.id) else {
            return;
        };
        let parent = self.mirrors.level(level).uid;
        let at = self.mirrors.level(level).mirror;
        let mirror = self.mirrors.mirror_mut(at);
        let gone = mirror.gone.get(&id).filter(|_| !mirror.lost);
        let Some(nested) = gone.and_then(|gone| gone.level) else {
            return;
        };
        mirror.merged.push((nested, parent));
        if self.mutation == Mutation::MergeUncheckpointed {
            for to in mirror.reached.clone() {
                let message = Self::merged((nested, parent), to);
                let to = to.into();
                out.push(Output::Send { to, message });
            }
        }
        let mirror = self.mirrors.mirror_mut(at);
        mirror.to_tell.push((Nested::Merged(nested, parent), TELLS));
        self.tell_new(at, out);
    }

    fn merged((action, parent): (Uid, Uid), to: Address) -> Box<Message> {
        let part = to.object();
        Box::new(Message::Merge {
            action,
            parent,
            part,
        })
    }

    /// What calls of earlier leaders have left elsewhere goes, and what they have done stays.
    pub(super) fn settle_out(&mut self, slot: Slot, out: &mut Outbox) {
        let mirror = self.mirrors.mirror_mut(slot);
        for (id, gone) in &mut mirror.gone {
            let level = gone.level.take();
            gone.lost.extend(level);
            mirror.lost_out.extend(level);
            if !gone.never {
                mirror.orphaned.insert(*id);
                mirror.executed.remove(id);
            }
        }
        let aborted = mirror.lost_out.iter().map(|lost| Nested::Aborted(*lost));
        let merged = mirror.merged.iter();
        let merged = merged.map(|(nested, parent)| Nested::Merged(*nested, *parent));
        let all = aborted.chain(merged).map(|nested| (nested, TELLS));
        mirror.to_tell = all.collect();
        self.tell_new(slot, out);
    }

    /// Tells what was not told yet.
    fn tell_new(&mut self, slot: Slot, out: &mut Outbox) {
        self.tell_nested(slot, |left| left == TELLS, out);
    }

    /// Tells once more what became of nested actions, since whoever was told may be gone, and the
    /// next leader there knows what that one knew.
    pub(super) fn tell_out(&mut self, name: Name, out: &mut Outbox) {
        let Some(slot) = self.mirrors.find_at(name) else {
            return;
        };
        self.mirrors.mirror_mut(slot).tells = false;
        self.tell_nested(slot, |_| true, out);
    }

    fn tell_nested(&mut self, slot: Slot, which: impl Fn(u32) -> bool, out: &mut Outbox) {
        let mirror = self.mirrors.mirror_mut(slot);
        if !mirror.is_active() {
            return;
        }
        let mut told = Vec::new();
        for (nested, left) in mirror.to_tell.iter_mut().filter(|(_, left)| which(*left)) {
            *left -= 1;
            told.push(*nested);
        }
        mirror.to_tell.retain(|(_, left)| *left > 0);
        let name = (mirror.uid(), mirror.part);
        let (own, reached) = (mirror.part, mirror.reached.clone());
        for to in reached {
            for nested in &told {
                let message = match *nested {
                    Nested::Aborted(action) => {
                        let part = to.object();
                        Box::new(Message::Abort { action, part })
                    }
                    Nested::Merged(nested, parent) => Self::merged((nested, parent), to),
                };
                let to = to.into();
                self.say(own, Output::Send { to, message }, out);
            }
        }
        let room = self.undone.len() < self.limits.actions_max as usize;
        let mirror = self.mirrors.mirror_mut(slot);
        if !mirror.to_tell.is_empty() && room && !core::mem::replace(&mut mirror.tells, true) {
            let at = self.resend_at(self.limits.resend_ns);
            self.undone.push_back((at, Work::TellOut(name)));
        }
    }
}
