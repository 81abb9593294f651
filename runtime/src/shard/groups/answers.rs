//! Calls and answers of replicated objects: who is turned away, and what is held back until this
//! copy knows that nobody else leads.

use std::rc::Rc;
use std::time::{Duration, Instant};

use partha_core::action::path::Joined;
use partha_core::group::{Input, Role};
use partha_core::id::{NodeId, Uid};
use partha_core::{Answer, Input as EngineInput, Ticket};
use partha_wire::Message;

use super::{Group, Groups};
use crate::error::{ErrorKind, SystemError};
use crate::moved::Moved;
use crate::shard::arrive::Outcome;
use crate::shard::{Incoming, Shard};
use crate::wire::context::CallContext;

/// Calls of one object that wait until it is known who leads, at most, and for how long.
const INCOMING_MAX: usize = 1_024;
const INCOMING_WAIT: Duration = Duration::from_secs(5);
/// Between two looks whether the policy is known of an object that is to be led.
const POLICY_PAUSE: Duration = Duration::from_millis(20);

/// An output of the engine that waits.
pub(super) enum Held {
    Reply {
        ticket: Ticket,
        answer: Answer,
        joined: Option<Joined>,
    },
    Forget {
        ticket: Ticket,
    },
}

/// Whether a call is answered.
enum May {
    Now,
    /// When this copy of the object knows that nobody else leads.
    Later(Uid),
    /// Another copy leads.
    Never(SystemError),
}

impl Shard {
    /// What becomes of a call of a replicated object that has arrived: taken, if it comes back.
    pub(in crate::shard) fn at_the_door(self: &Rc<Self>, incoming: Incoming) -> Option<Incoming> {
        let groups = self.groups.borrow();
        let uid = incoming.object;
        let Some(group) = groups.by_object.get(&uid) else {
            return Some(incoming);
        };
        if group.serves && !self.is_kept_out(group, &incoming) {
            return Some(incoming);
        }
        if group.serves {
            drop(groups);
            self.wait_outside(incoming);
            return None;
        }
        let reads = self.may_read(group, &incoming);
        drop(groups);
        if reads {
            self.ask_to_read(uid, incoming);
        } else {
            self.turn_away(incoming);
        }
        None
    }

    /// A call of an object that is not led here goes where it is, or waits until somebody knows.
    pub(super) fn turn_away(&self, incoming: Incoming) {
        let mut groups = self.groups.borrow_mut();
        let uid = incoming.object;
        let Some(group) = groups.by_object.get_mut(&uid) else {
            drop(groups);
            return incoming.reply.fail(self.leads_no_more(uid));
        };
        if let Some(to) = self.leads_elsewhere(group) {
            drop(groups);
            if let Some(lost) = self.has_lost(&incoming) {
                return incoming.reply.fail(lost);
            }
            // Whoever calls from within this process gets what it has written back, to send it on.
            let error = self.led_by(uid, to, Some(incoming.parameters));
            return incoming.reply.fail(error);
        }
        drop(groups);
        self.wait_outside(incoming);
    }

    /// What a call is told whose action has done something here that went with the lead, as where
    /// this copy was taken for dead: at the next leader it would find a state without that.
    fn has_lost(&self, incoming: &Incoming) -> Option<SystemError> {
        let parameters = incoming.parameters.reader();
        let context = parameters.and_then(CallContext::of_parameters).ok()?;
        let root = context.actions?.path.root()?;
        if !self.engine.borrow().has_lost(root) {
            return None;
        }
        let (uid, here) = (incoming.object, self.registry.here());
        let detail = format!(
            "{uid} at {here}: another copy leads, and what action {root} has done here is undone"
        );
        let error = SystemError::new(ErrorKind::ActionAborted, detail);
        Some(error.with_victim(Some(root)))
    }

    /// A call waits until it is known who leads its object, and by which policy.
    fn wait_outside(&self, incoming: Incoming) {
        let mut groups = self.groups.borrow_mut();
        let uid = incoming.object;
        let Some(group) = groups.by_object.get_mut(&uid) else {
            drop(groups);
            return incoming.reply.fail(self.leads_no_more(uid));
        };
        if group.incoming.len() >= INCOMING_MAX {
            drop(groups);
            let detail = format!(
                "{uid} at {}: {INCOMING_MAX} calls wait until it is known who leads its copies, \
                 and by which policy",
                self.registry.here()
            );
            let error = SystemError::new(ErrorKind::Overloaded, detail);
            return incoming.reply.fail(error);
        }
        group.incoming.push_back((Instant::now(), incoming));
        groups.queued.insert(uid);
    }

    pub(super) fn led_by(&self, uid: Uid, to: Moved, parameters: Option<Message>) -> SystemError {
        let here = self.registry.here();
        let what = format_args!("{uid} at {here}: another copy leads");
        SystemError::moved_to(what, to, parameters)
    }

    /// Who leads, if this copy follows one that is not known to be gone.
    fn leads_elsewhere(&self, group: &Group) -> Option<Moved> {
        let view = group.member.view();
        let leader = view.leader();
        let follows = matches!(group.member.role(), Role::Following | Role::Outside);
        if !follows || leader == self.registry.me.node || group.leader_lost {
            return None;
        }
        Some(Moved {
            node: leader,
            addresses: self.client.locator().addresses(leader),
            moves: view.number,
        })
    }

    /// What a call is told that was waiting in the engine when this copy ceased to lead: where to
    /// go, if it is known, or that it was not executed.
    pub(in crate::shard) fn led_elsewhere(&self, uid: Uid) -> Result<Moved, SystemError> {
        let groups = self.groups.borrow();
        let group = groups.by_object.get(&uid);
        let to = group.and_then(|group| self.leads_elsewhere(group));
        to.ok_or_else(|| self.leads_no_more(uid))
    }

    /// The node that leads a replicated object, as far as it is known here.
    pub(in crate::shard) fn leader_of(&self, uid: Uid) -> Option<NodeId> {
        let groups = self.groups.borrow();
        let group = groups.by_object.get(&uid)?;
        Some(group.member.view().leader())
    }

    /// Where the object is to be bound, if not here.
    pub(crate) fn bound_elsewhere(&self, uid: Uid) -> Option<SystemError> {
        let groups = self.groups.borrow();
        let group = groups.by_object.get(&uid).filter(|group| !group.serves)?;
        let to = self.leads_elsewhere(group)?;
        Some(self.led_by(uid, to, None))
    }

    /// Calls that have waited go in, or where the leader is.
    pub(super) fn release_incoming(self: &Rc<Self>, uid: Uid) {
        let incoming = {
            let mut groups = self.groups.borrow_mut();
            let Some(group) = groups.by_object.get_mut(&uid) else {
                return;
            };
            let incoming = std::mem::take(&mut group.incoming);
            groups.queued.remove(&uid);
            incoming
        };
        for (_, incoming) in incoming {
            self.invoke(incoming);
        }
    }

    /// Calls that have waited for too long are told so.
    pub(super) fn expire_incoming(self: &Rc<Self>) {
        let mut expired = Vec::new();
        {
            let mut groups = self.groups.borrow_mut();
            let Groups {
                by_object, queued, ..
            } = &mut *groups;
            for uid in queued.iter() {
                let Some(group) = by_object.get_mut(uid) else {
                    continue;
                };
                while let Some((since, _)) = group.incoming.front()
                    && since.elapsed() > INCOMING_WAIT
                {
                    let (_, incoming) = group.incoming.pop_front().expect("it is in front");
                    expired.push((*uid, incoming));
                }
            }
        }
        for (uid, incoming) in expired {
            let detail = format!(
                "{uid} at {}: it is not known who leads its copies, or by which policy, for \
                 {INCOMING_WAIT:?}",
                self.registry.here()
            );
            incoming
                .reply
                .fail(SystemError::new(ErrorKind::Unreachable, detail));
        }
    }

    /// Answers a call, at once or when this copy knows that it may.
    pub(in crate::shard) fn reply_if_sure(
        self: &Rc<Self>,
        ticket: Ticket,
        answer: Answer,
        joined: Option<Joined>,
    ) {
        let may = match self.has_groups.get() {
            true => self.may_reply(ticket, &answer),
            false => May::Now,
        };
        match may {
            May::Now => self.reply(ticket, answer, joined),
            May::Never(error) => self.refuse_reply(ticket, error, joined),
            May::Later(uid) => {
                self.hold_reply(uid, ticket, answer, joined);
                self.group_input(uid, Input::Confirm);
            }
        }
    }

    /// Forgets a call, at once or when it has been answered.
    pub(in crate::shard) fn forget_if_answered(&self, ticket: Ticket) {
        if !self.has_groups.get() || !self.holds_forget(ticket) {
            self.forget_call(ticket);
        }
    }

    /// Whether an answer may be given: it stands in an entry, or this copy knows that nobody else
    /// leads. One that is another ticket's is asked of that one.
    fn may_reply(&self, ticket: Ticket, answer: &Answer) -> May {
        let told = match answer {
            Answer::SameAs(first) => *first,
            Answer::Outcome => ticket,
            Answer::Saved(_) | Answer::Refused(_) => return May::Now,
        };
        let (groups, entries) = (self.groups.borrow(), self.entries.borrow());
        let Some(entry) = entries.find(told) else {
            return May::Now;
        };
        let uid = entry.object;
        let sure = entry.replicated || entry.at_copy.is_some() || entry.create.is_some();
        let Some(group) = groups.by_object.get(&uid).filter(|_| !sure) else {
            return May::Now;
        };
        match group.member.role() {
            Role::Following | Role::Outside | Role::TakingOver => {
                May::Never(self.leads_no_more(uid))
            }
            _ if group.held.is_empty() && group.member.serves_until() > self.now() => May::Now,
            _ => May::Later(uid),
        }
    }

    fn hold_reply(&self, uid: Uid, ticket: Ticket, answer: Answer, joined: Option<Joined>) {
        let mut groups = self.groups.borrow_mut();
        groups.held.insert(ticket, uid);
        if let Answer::SameAs(first) = answer {
            // It has to stay until then, though nobody may wait for it any more.
            groups.held.insert(first, uid);
        }
        let group = groups.by_object.get_mut(&uid);
        let held = &mut group.expect("it was there just now").held;
        held.push_back(Held::Reply {
            ticket,
            answer,
            joined,
        });
    }

    /// Fails a call whose servant has answered.
    fn refuse_reply(self: &Rc<Self>, ticket: Ticket, error: SystemError, joined: Option<Joined>) {
        if let Some(entry) = self.entries.borrow_mut().find_mut(ticket) {
            entry.outcome = Outcome::Failed(error);
        }
        self.reply(ticket, Answer::Outcome, joined);
    }

    /// Whether the end of a call is held back with its answer.
    fn holds_forget(&self, ticket: Ticket) -> bool {
        let mut groups = self.groups.borrow_mut();
        let Some(uid) = groups.held.get(&ticket).copied() else {
            return false;
        };
        if let Some(group) = groups.by_object.get_mut(&uid) {
            group.held.push_back(Held::Forget { ticket });
        }
        true
    }

    /// This copy may answer.
    pub(super) fn release_held(self: &Rc<Self>, uid: Uid) {
        self.end_held(uid, None);
    }

    fn end_held(self: &Rc<Self>, uid: Uid, failure: Option<&SystemError>) {
        let held = {
            let mut groups = self.groups.borrow_mut();
            let Some(group) = groups.by_object.get_mut(&uid) else {
                return;
            };
            let held = std::mem::take(&mut group.held);
            for one in &held {
                if let Held::Reply { ticket, answer, .. } = one {
                    groups.held.remove(ticket);
                    if let Answer::SameAs(first) = answer {
                        groups.held.remove(first);
                    }
                }
            }
            held
        };
        for one in held {
            match one {
                Held::Reply {
                    ticket,
                    answer,
                    joined,
                } => match failure {
                    None => self.reply(ticket, answer, joined),
                    Some(error) => self.refuse_reply(ticket, error.clone(), joined),
                },
                Held::Forget { ticket } => self.forget_call(ticket),
            }
        }
    }

    /// This copy leads, and its store shows all that is complete: whatever was in memory from
    /// before goes, then calls are taken.
    pub(super) fn begin_serving(self: &Rc<Self>, uid: Uid) {
        self.feed(EngineInput::Evict { uid });
        let in_memory = self.engine.borrow().object_slot(uid).is_some();
        let mut groups = self.groups.borrow_mut();
        let Some(group) = groups.by_object.get_mut(&uid) else {
            return;
        };
        if group.leads() && !group.knows_policy() {
            // Who has told of the view has not said it.
            drop(groups);
            self.ask_view(uid);
            let shard = self.clone();
            self.spawn(async move {
                tokio::time::sleep(POLICY_PAUSE).await;
                shard.begin_serving_if_not(uid);
            });
            return;
        }
        if group.leads() && !in_memory {
            drop(groups);
            if !self.recover_parts(uid) {
                return self.reopen(uid);
            }
            if let Some(group) = self.groups.borrow_mut().by_object.get_mut(&uid) {
                group.serves = group.leads();
            }
            self.note_come(uid);
            self.share_reads(uid);
            // What callers have done at the leader before this one is in the store alone.
            self.newest.borrow_mut().doubt_all();
            let waits = {
                let groups = self.groups.borrow();
                let group = groups.by_object.get(&uid);
                group.is_some_and(|group| !group.held.is_empty() || !group.unsure.is_empty())
            };
            if waits {
                self.group_input(uid, Input::Confirm);
            }
            self.size_changed(uid);
            return self.release_incoming(uid);
        }
        if group.leads() && in_memory {
            drop(groups);
            self.end_reads(uid);
            // Its last calls are being turned away; then it goes.
            let shard = self.clone();
            self.spawn(async move {
                tokio::time::sleep(Duration::from_millis(5)).await;
                shard.begin_serving_if_not(uid);
            });
        }
    }

    fn begin_serving_if_not(self: &Rc<Self>, uid: Uid) {
        let waits = {
            let groups = self.groups.borrow();
            let group = groups.by_object.get(&uid);
            group.is_some_and(|group| group.leads() && !group.serves)
        };
        if waits {
            self.begin_serving(uid);
        }
    }

    /// This copy leads no more.
    pub(super) fn deposed(self: &Rc<Self>, uid: Uid) {
        if let Some(group) = self.groups.borrow_mut().by_object.get_mut(&uid) {
            group.serves = false;
        }
        self.forget_change(uid);
        let why = "another copy took over before all copies had the change";
        self.fail_calls(uid, why);
        self.fail_held(uid);
        // Before what its entries were added for is given up: the engine is not to believe that
        // anything of the object is here still.
        self.feed(EngineInput::Expel { uid });
        self.fail_steps(uid);
        self.go_on_when_sure(uid);
    }

    /// Answers that are held back are not given: they may be of an older state.
    pub(super) fn fail_held(self: &Rc<Self>, uid: Uid) {
        let error = self.leads_no_more(uid);
        self.end_held(uid, Some(&error));
    }

    /// What whoever binds an object is told before the binder has said what its copies are.
    pub(in crate::shard) fn has_no_view(&self, uid: Uid) -> SystemError {
        let here = self.registry.here();
        let detail = format!("{uid} at {here}: it is not known yet who leads its copies");
        SystemError::new(ErrorKind::Unreachable, detail)
    }

    pub(super) fn leads_no_more(&self, uid: Uid) -> SystemError {
        let detail = format!("{uid} at {}: this copy leads no more", self.registry.here());
        SystemError::new(ErrorKind::Fenced, detail)
    }
}
