//! What actions need of leaders: that this copy surely is one when they end, and who is one.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use partha_core::action::message::{Message, Verdict};
use partha_core::action::path::{Coordinator, Site};
use partha_core::group::{Input, Role};
use partha_core::id::Uid;
use partha_core::{Abort, End, Input as EngineInput};
use partha_store::Batch;

use super::Waiting;
use super::entries::Of;
use crate::moved::Moved;
use crate::net::actions;
use crate::shard::Shard;
use crate::wire::message;

/// What waits until this copy surely leads, at most, of one object.
const UNSURE_MAX: usize = 1_024;
/// Of what was said to leaders, so much is remembered.
const TOLD_MAX: usize = 4_096;
/// How long one question to another leader may take.
const ATTEMPT: Duration = Duration::from_secs(2);

/// What waits until this copy surely leads.
pub(super) enum Unsure {
    /// Something that ends an action, which has to do with the object.
    Feed(EngineInput),
    /// A search for a decision in its log.
    Search { job: partha_core::Job, action: Uid },
}

/// What was said to whoever leads an object: said again, it has perhaps not arrived, and somebody
/// else leads. Bounded: what is forgotten is said to whoever was last heard to lead.
#[derive(Default)]
pub(super) struct Told {
    last: BTreeMap<(Uid, Uid, u8), u64>,
    count: u64,
}

impl Told {
    /// Whether it was said before.
    fn again(&mut self, object: Uid, message: &Message) -> bool {
        let (action, kind) = match message {
            Message::Commit { action, .. } => (*action, 0),
            Message::Acknowledge { action, .. } => (*action, 1),
            Message::Abort { action, .. } => (*action, 2),
            Message::Query { action, .. } => (*action, 3),
            Message::Verdict { action, .. } => (*action, 4),
            Message::Prepare { action, .. } | Message::Vote { action, .. } => (*action, 5),
            Message::Merge { .. } | Message::Deadlock(_) => return false,
        };
        self.count += 1;
        let before = self.last.insert((object, action, kind), self.count);
        if self.last.len() > TOLD_MAX {
            let old = self.count - TOLD_MAX as u64 / 2;
            self.last.retain(|_, at| *at > old);
        }
        before.is_some()
    }
}

impl Shard {
    /// Feeds what ends an action, when all replicated objects that it has locked here are surely
    /// led here: what it has read there is then what all copies have.
    pub(in crate::shard) fn feed_when_sure(self: &Rc<Self>, action: Uid, input: EngineInput) {
        if !self.has_groups.get() {
            return self.feed(input);
        }
        let objects: Vec<Uid> = self.engine.borrow().replicated_of(action).collect();
        let unsure = objects.into_iter().find(|uid| self.is_unsure(*uid));
        match unsure {
            Some(uid) => self.wait_until_sure(uid, Unsure::Feed(input)),
            None => self.feed(input),
        }
    }

    /// Feeds what is for whoever leads an object, when this copy surely does. What comes while it
    /// is about to lead waits; what it has nothing to do with any more is passed on to whoever
    /// leads if it is said once only, and else dropped, or answered so, and said again.
    pub(in crate::shard) fn feed_as_leader(self: &Rc<Self>, object: Uid, input: EngineInput) {
        let ends = ends(&input);
        let (leads, serves) = {
            let groups = self.groups.borrow();
            let group = groups.by_object.get(&object);
            let leads = |it: &super::Group| {
                matches!(it.member.role(), Role::TakingOver | Role::Leading { .. })
            };
            group.map_or((false, false), |it| (leads(it), it.serves))
        };
        match ends {
            _ if !leads => self.not_led(object, input),
            _ if !serves => self.wait_until_sure(object, Unsure::Feed(input)),
            Some(_) if self.is_unsure(object) => {
                self.wait_until_sure(object, Unsure::Feed(input));
            }
            Some(action) => self.feed_when_sure(action, input),
            None => self.feed(input),
        }
    }

    fn not_led(&self, object: Uid, input: EngineInput) {
        match input {
            EngineInput::Commit { ticket, .. } => self.ended_action(ticket, End::Unknown),
            EngineInput::Message { from, message }
                if matches!(*message, Message::Abort { .. } | Message::Merge { .. }) =>
            {
                let leader = {
                    let groups = self.groups.borrow();
                    let group = groups.by_object.get(&object);
                    let group = group.filter(|it| it.member.role() == Role::Following);
                    group.map(|group| group.member.view().leader())
                };
                actions::pass_on(&self.client, (object, leader), from.shard, *message);
            }
            dropped => tracing::debug!(uid = %object, ?dropped, "this copy does not lead"),
        }
    }

    /// Whoever is in this process is to turn to here, and not to who led before.
    pub(super) fn note_leading(&self, uid: Uid, view: u64) {
        let me = self.registry.me.node;
        let locator = self.client.locator();
        let leads = Moved {
            node: me,
            addresses: locator.addresses(me),
            moves: view,
        };
        locator.moved().note(uid, &leads);
    }

    /// Whether the object is led here, and not surely. What is not led here is no part of any
    /// action any more.
    fn is_unsure(&self, uid: Uid) -> bool {
        let groups = self.groups.borrow();
        let group = groups.by_object.get(&uid);
        group.is_some_and(|it| it.serves && it.member.serves_until() <= self.now())
    }

    fn wait_until_sure(self: &Rc<Self>, uid: Uid, what: Unsure) {
        let dropped = {
            let mut groups = self.groups.borrow_mut();
            let group = groups.by_object.get_mut(&uid);
            match group.filter(|group| group.unsure.len() < UNSURE_MAX) {
                Some(group) => {
                    group.unsure.push(what);
                    groups.busy.insert(uid);
                    None
                }
                None => Some(what),
            }
        };
        match dropped {
            None => self.group_input(uid, Input::Confirm),
            // It ends as if this copy led no more.
            Some(Unsure::Search { job, .. }) => self.not_found(job),
            Some(Unsure::Feed(input)) => self.refuse_end(uid, input),
        }
    }

    /// Too much waits.
    fn refuse_end(&self, uid: Uid, input: EngineInput) {
        tracing::warn!(%uid, "too many ends of actions wait until this copy surely leads");
        if let EngineInput::Commit { ticket, .. } = input {
            self.ended_action(ticket, End::Aborted(Abort::Busy(self.site())));
        }
    }

    /// This copy surely leads, or does not lead.
    pub(super) fn go_on_when_sure(self: &Rc<Self>, uid: Uid) {
        let waiting = {
            let mut groups = self.groups.borrow_mut();
            let group = groups.by_object.get_mut(&uid);
            group.map_or_else(Vec::new, |group| std::mem::take(&mut group.unsure))
        };
        for unsure in waiting {
            match unsure {
                Unsure::Search { job, action } => self.search_group_decision(job, action, uid),
                Unsure::Feed(input) => match (led(&input), ends(&input)) {
                    (Some(object), _) => self.feed_as_leader(object, input),
                    (None, Some(action)) => self.feed_when_sure(action, input),
                    (None, None) => self.feed(input),
                },
            }
        }
    }

    /// Looks for a decision in the log of a replicated object. That there is none may be said by
    /// whoever surely leads it, and nobody else.
    pub(in crate::shard) fn search_group_decision(
        self: &Rc<Self>,
        job: partha_core::Job,
        action: Uid,
        decider: Uid,
    ) {
        let serves = {
            let groups = self.groups.borrow();
            let group = groups.by_object.get(&decider);
            group.is_some_and(|group| group.serves)
        };
        let waiting = Waiting::Decision {
            job,
            action,
            decider,
        };
        if serves && self.waits_for_copies(decider, waiting) {
            return;
        }
        // What a copy has that does not lead is true, if it has it.
        let found = match self.has_decision(action, decider) {
            Some(true) => Some(true),
            Some(false) if serves && self.is_unsure(decider) => {
                return self.wait_until_sure(decider, Unsure::Search { job, action });
            }
            Some(false) if serves => Some(false),
            Some(false) | None => None,
        };
        self.later(EngineInput::DecisionFound { job, found });
    }

    /// Whether the log of any object that has a copy here says that the action is committed.
    pub(crate) fn is_decided_by_copies(&self, action: Uid) -> bool {
        let groups = self.groups.borrow();
        let mut objects = groups.by_object.keys();
        objects.any(|uid| self.has_decision(action, *uid) == Some(true))
    }

    fn has_decision(&self, action: Uid, decider: Uid) -> Option<bool> {
        let store = self.registry.store.as_ref()?;
        match store.read_group_decision(decider, action) {
            Ok(decision) => Some(decision.is_some()),
            Err(error) => {
                tracing::error!(%action, %error, "a decision cannot be looked for");
                None
            }
        }
    }

    fn not_found(&self, job: partha_core::Job) {
        let found = None;
        self.later(EngineInput::DecisionFound { job, found });
    }

    /// What whoever leads an action's decider says of it. Of what is led here the store is asked,
    /// since the engine waits for the answer itself. Who leads is asked for anew if this copy has
    /// not known it.
    pub(super) async fn verdict_of_leader(
        self: &Rc<Self>,
        action: Uid,
        decider: Uid,
        anew: bool,
    ) -> Option<Verdict> {
        if self.has_decision(action, decider) == Some(true) {
            return Some(Verdict::Committed);
        }
        let (serves, current) = {
            let groups = self.groups.borrow();
            let group = groups.by_object.get(&decider);
            group.map_or((false, false), |it| (it.serves, it.is_current()))
        };
        if serves {
            if self.is_unsure(decider) {
                self.group_input(decider, Input::Confirm);
                return None;
            }
            return match current {
                true => {
                    let found = self.has_decision(action, decider)?;
                    (!found).then_some(Verdict::Aborted)
                }
                false => None,
            };
        }
        let me = self.registry.me.node;
        let leader = match self.leader_of(decider).filter(|leader| *leader != me) {
            Some(leader) if !anew => leader,
            Some(_) | None => actions::leader_of(&self.client, decider, anew, ATTEMPT).await,
        };
        let coordinator = Coordinator {
            site: Site {
                node: leader,
                shard: 0,
            },
            decider: Some(decider),
        };
        let limit = std::time::Instant::now() + ATTEMPT;
        let told = actions::ask(&self.client, coordinator, action, limit).await;
        told.inspect_err(|error| tracing::debug!(%action, %error, "no answer about a decision"))
            .ok()?
    }

    /// Sends a message to whoever leads an object; said again, the binder is asked who does.
    pub(in crate::shard) fn send_to_leader(self: &Rc<Self>, object: Uid, message: Message) {
        let (leads, follows, again) = {
            let mut groups = self.groups.borrow_mut();
            let again = groups.told.again(object, &message);
            let group = groups.by_object.get(&object);
            let leads = group.is_some_and(|group| group.serves);
            let view = group.map(|group| (group.member.role(), group.member.view().leader()));
            let follows = view.filter(|(role, _)| *role == Role::Following);
            (leads, follows.map(|(_, leader)| leader), again)
        };
        let shard = message::Shard::Of(object);
        let from = self.handle.index();
        let me = self.registry.me.node;
        if leads {
            return self.send_as(from, me, shard, message);
        }
        if let Some(leader) = follows.filter(|_| !again) {
            return self.send_as(from, leader, shard, message);
        }
        let known = self.client.locator().moved().of(object);
        if let Some(known) = known.filter(|known| !again && known.node != me) {
            return self.send_as(from, known.node, shard, message);
        }
        let this = self.clone();
        self.spawn(async move {
            let leader = actions::leader_of(&this.client, object, again, ATTEMPT).await;
            this.send_as(from, leader, shard, message);
        });
    }

    /// Now and then: what is owed or waits for promises is tried again, and what is settled is
    /// said where nothing else is.
    pub(super) fn look_after_actions(self: &Rc<Self>) {
        let busy = std::mem::take(&mut self.groups.borrow_mut().busy);
        for uid in busy {
            self.pay_owed(uid);
            let (unsure, settled) = {
                let groups = self.groups.borrow();
                let group = groups.by_object.get(&uid);
                group.map_or((false, false), |it| {
                    (!it.unsure.is_empty(), !it.settled.is_empty())
                })
            };
            if unsure {
                self.group_input(uid, Input::Confirm);
            }
            if settled {
                // The items come with it. If it is not added, they stay for the next one.
                if let Err(refused) = self.add(uid, Of::Nobody, Batch::default()) {
                    tracing::debug!(%uid, ?refused, "settled decisions are not noted yet");
                }
            }
            let mut groups = self.groups.borrow_mut();
            let group = groups.by_object.get(&uid);
            if group.is_some_and(super::Group::is_busy) {
                groups.busy.insert(uid);
            }
        }
    }
}

/// The object whose leader an input is for.
fn led(input: &EngineInput) -> Option<Uid> {
    match input {
        EngineInput::Commit { decider, part, .. } => decider.filter(|_| *part),
        EngineInput::Message { message, .. } => match **message {
            Message::Prepare { part, .. }
            | Message::Merge { part, .. }
            | Message::Abort { part, .. } => part,
            _ => None,
        },
        _ => None,
    }
}

/// The action that an input ends here.
fn ends(input: &EngineInput) -> Option<Uid> {
    match input {
        EngineInput::Commit { action, .. } => Some(*action),
        EngineInput::Message { message, .. } => match &**message {
            Message::Prepare { action, .. } => Some(*action),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use partha_core::id::NodeId;

    use super::*;

    fn uid(local: u64) -> Uid {
        let node = NodeId(1);
        Uid { node, local }
    }

    fn commit(action: u64) -> Message {
        Message::Commit {
            action: uid(action),
            part: None,
        }
    }

    #[test]
    fn what_is_said_again_is_known_to_be_so_message_by_message() {
        let mut told = Told::default();
        assert!(!told.again(uid(7), &commit(1)));
        assert!(told.again(uid(7), &commit(1)));
        assert!(!told.again(uid(7), &commit(2)), "of another action");
        assert!(!told.again(uid(8), &commit(1)), "to another leader");
        let abort = Message::Abort {
            action: uid(1),
            part: None,
        };
        assert!(!told.again(uid(7), &abort), "another message");
    }

    #[test]
    fn the_latest_are_remembered_and_no_more_than_so_many() {
        let mut told = Told::default();
        for action in 0..3 * TOLD_MAX as u64 {
            assert!(!told.again(uid(7), &commit(action)));
            assert!(told.again(uid(7), &commit(action)));
            assert!(told.last.len() <= TOLD_MAX);
        }
    }
}
