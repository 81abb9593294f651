//! What is done for actions at replicated objects: parts, decisions, ends.
//!
//! An action that has changed a replicated object prepares there by a *part*, an entry of the
//! object's log with what it has changed, and ends by another entry, its *end*, which makes the
//! part the object's state or drops it. In between the object is locked, so nothing else is added.
//! What the action decides is an entry, too, if a replicated object is its *decider*.
//!
//! The engine asks for a batch of an action as one piece of work; what is about replicated
//! objects in it takes several steps, noted as a [`Plan`]:
//!
//! | batch | steps, each when those before are done | stored when |
//! |---|---|---|
//! | `Prepare` | parts, and a batch for objects without copies | all are complete |
//! | `Decide` with a decider | parts of the others; the decision with the decider's state; ends of the others | the store shows the last |
//! | `Decide` without | parts; the batch with the decision; ends | the store shows the last |
//! | `Install`, `Undo` | ends, and a batch | the store shows the last |
//! | `Settle` with a decider | noted for the next entry of its log | at once |
//!
//! An end that finds no room is *owed* ([`super::owed`]). A copy that leads no more owes nothing,
//! since the next leader finds the part and asks for itself ([`Shard::recover_parts`]). A decision
//! whose entry was not complete by then is asked for there.

use std::rc::Rc;

use partha_core::action::path::{Coordinator, Site};
use partha_core::id::Uid;
use partha_core::{ActionBatch, Fault, Input as EngineInput, Written};
use partha_store::{Batch, Item, crash_point, entry};

use super::Groups;
use super::entries::Of;
use super::owed::{End, Owed};
use crate::config::OUTCOME_RETENTION;
use crate::error::SystemError;
use crate::rows;
use crate::shard::Shard;

/// Who waits for a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PlanKey {
    /// A batch that the engine has asked for.
    Job(partha_core::Job),
    /// The end of a part that the engine has asked for by itself.
    End { object: Uid, action: Uid },
}

/// An entry's place in a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Part,
    Decide,
    End,
}

/// What is done for an action, and how far it is.
#[derive(Debug)]
pub(in crate::shard) struct Plan {
    pub(super) action: Uid,
    /// Steps under way.
    waits: usize,
    /// Why it has failed. Nothing that fails after the decision is a failure of it.
    fault: Option<Fault>,
    pub(super) decided: bool,
    then: Then,
}

/// What is to be done when no step is under way.
#[derive(Debug)]
enum Then {
    Answer,
    Decide(Box<Decision>),
    End(Vec<Uid>),
}

/// A decision that is to be made.
#[derive(Debug)]
struct Decision {
    /// The decider with what the action has changed of it.
    decider: Option<(Uid, Batch)>,
    /// Else objects without copies, whose states go with it.
    objects: Vec<Written>,
    /// Replicated objects with a part that is to be ended afterwards.
    ends: Vec<Uid>,
    participants: Vec<Site>,
    groups: Vec<Uid>,
}

impl Step {
    pub(super) fn crash_when_added(self) {
        match self {
            Self::Part => crash_point!("group/part/added"),
            Self::Decide => crash_point!("group/decide/added"),
            Self::End => crash_point!("group/end/added"),
        }
    }

    pub(super) fn crash_when_complete(self) {
        match self {
            Self::Part => crash_point!("group/part/complete"),
            Self::Decide => crash_point!("group/decide/complete"),
            Self::End => crash_point!("group/end/complete"),
        }
    }
}

impl Plan {
    fn new(action: Uid, then: Then) -> Self {
        Self {
            action,
            waits: 0,
            fault: None,
            decided: false,
            then,
        }
    }

    /// Whether it is to bring a decision into the log of this object, and has not yet.
    fn decides_in(&self, uid: Uid) -> bool {
        match &self.then {
            Then::Decide(decision) => matches!(decision.decider, Some((it, _)) if it == uid),
            Then::Answer | Then::End(_) => false,
        }
    }

    fn fail(&mut self, fault: Fault) {
        if !self.decided {
            self.fault.get_or_insert(fault);
        }
    }
}

impl Groups {
    /// This copy leads an object no more: decisions that are to get into its log and wait for the
    /// parts of others are not made. Should it lead again before these are there, they would bring
    /// back what the object was before that.
    pub(super) fn fail_decisions(&mut self, decider: Uid) {
        for plan in self.plans.values_mut() {
            if plan.decides_in(decider) {
                plan.fail(Fault::Fenced);
            }
        }
    }
}

impl Shard {
    /// Does what the engine wants done of an action, if replicated objects have a part in it:
    /// taken, unless it comes back.
    pub(in crate::shard) fn store_in_steps(
        self: &Rc<Self>,
        job: partha_core::Job,
        batch: ActionBatch,
    ) -> Option<ActionBatch> {
        let key = PlanKey::Job(job);
        match batch {
            ActionBatch::Prepare {
                action,
                coordinator,
                objects,
            } if objects.iter().any(|it| it.replicated) => {
                self.prepare_in_steps(job, action, coordinator, objects);
            }
            ActionBatch::Decide {
                action,
                decider,
                objects,
                participants,
                groups,
            } if objects.iter().any(|it| it.replicated) => {
                let told = (participants, groups);
                self.decide_after_parts(job, action, decider, objects, told);
            }
            ActionBatch::Install { action, groups } if !groups.is_empty() => {
                self.end_all(key, job, (action, &groups, true), |groups| {
                    ActionBatch::Install { action, groups }
                });
            }
            ActionBatch::Undo { action, groups } if !groups.is_empty() => {
                self.end_all(key, job, (action, &groups, false), |groups| {
                    ActionBatch::Undo { action, groups }
                });
            }
            ActionBatch::Settle {
                action,
                decider: Some(decider),
            } => {
                // Whoever leads it next, if not this copy, tells it again and hears it again.
                let mut groups = self.groups.borrow_mut();
                if let Some(group) = groups.by_object.get_mut(&decider)
                    && group.serves
                {
                    group.settled.push(action);
                    groups.busy.insert(decider);
                }
                drop(groups);
                let result = Ok(());
                self.later(EngineInput::Stored { job, result });
            }
            other => return Some(other),
        }
        None
    }

    fn prepare_in_steps(
        self: &Rc<Self>,
        job: partha_core::Job,
        action: Uid,
        coordinator: Coordinator,
        objects: Vec<Written>,
    ) {
        let key = PlanKey::Job(job);
        let (copies, objects) = split(objects);
        self.begin_plan(key, Plan::new(action, Then::Answer));
        for object in &copies {
            self.add_part(key, object.uid, action, coordinator);
        }
        if !objects.is_empty() {
            let batch = ActionBatch::Prepare {
                action,
                coordinator,
                objects,
            };
            self.store_local(key, job, batch);
        }
        self.go_on_with(key);
    }

    fn decide_after_parts(
        self: &Rc<Self>,
        job: partha_core::Job,
        action: Uid,
        decider: Option<Uid>,
        objects: Vec<Written>,
        (participants, groups): (Vec<Site>, Vec<Uid>),
    ) {
        let key = PlanKey::Job(job);
        let (mut copies, objects) = split(objects);
        copies.retain(|it| Some(it.uid) != decider);
        // As it is now: when the parts are complete, another copy may lead the decider.
        let changed = decider.map(|uid| self.changes(uid).map(|batch| (uid, batch)));
        let changed = match changed.transpose() {
            Ok(changed) => changed,
            Err(error) => {
                tracing::error!(%action, %error, "a decision cannot be made");
                let result = Err(Fault::Store);
                return self.later(EngineInput::Stored { job, result });
            }
        };
        let ends: Vec<Uid> = copies.iter().map(|it| it.uid).collect();
        let decision = Decision {
            decider: changed,
            objects,
            ends: ends.clone(),
            participants,
            groups,
        };
        let then = Then::Decide(Box::new(decision));
        self.begin_plan(key, Plan::new(action, then));
        let site = self.site();
        for uid in ends {
            self.add_part(key, uid, action, Coordinator { site, decider });
        }
        self.go_on_with(key);
    }

    fn begin_plan(&self, key: PlanKey, plan: Plan) {
        // One step more, so that nothing is over before all are begun.
        let plan = Plan { waits: 1, ..plan };
        self.groups.borrow_mut().plans.insert(key, plan);
    }

    /// The ends of an action's parts, and what is to be done of its objects without copies.
    fn end_all(
        self: &Rc<Self>,
        key: PlanKey,
        job: partha_core::Job,
        (action, groups, commit): (Uid, &[Uid], bool),
        local: impl FnOnce(Vec<Uid>) -> ActionBatch,
    ) {
        self.begin_plan(key, Plan::new(action, Then::Answer));
        for uid in groups {
            self.add_end(
                *uid,
                End {
                    key,
                    action,
                    commit,
                },
            );
        }
        let store = self.registry.store.as_ref();
        let shadowed = store.map(|store| store.shadowed_objects(action));
        // If the store cannot tell, it is to do what there may be.
        if shadowed.is_some_and(|found| found.map_or(true, |objects| !objects.is_empty())) {
            self.store_local(key, job, local(Vec::new()));
        }
        self.go_on_with(key);
    }

    /// What is to be done in the store itself is a step like the others.
    fn store_local(self: &Rc<Self>, key: PlanKey, job: partha_core::Job, batch: ActionBatch) {
        if let Some(plan) = self.groups.borrow_mut().plans.get_mut(&key) {
            plan.waits += 1;
        }
        self.store_batch(job, batch);
    }

    /// The store has done a batch, or not: true if that is a step of a plan.
    pub(in crate::shard) fn stored_in_steps(
        self: &Rc<Self>,
        job: partha_core::Job,
        result: Result<(), Fault>,
    ) -> bool {
        let key = PlanKey::Job(job);
        if !self.has_groups.get() || !self.groups.borrow().plans.contains_key(&key) {
            return false;
        }
        self.step_done(key, result);
        true
    }

    /// What an action has changed of a replicated object, as an entry would say it.
    fn changes(&self, uid: Uid) -> Result<Batch, SystemError> {
        let (record, changes) = self.written(uid)?;
        let mut items = vec![Item::WriteState { uid, record }];
        items.extend(rows::items(uid, changes));
        Ok(Batch::new(items))
    }

    fn add_part(self: &Rc<Self>, key: PlanKey, uid: Uid, action: Uid, coordinator: Coordinator) {
        let changes = match self.changes(uid) {
            Ok(changes) => changes,
            Err(error) => {
                tracing::error!(%uid, %error, "a part of an action cannot be made");
                return self.fail_plan(key, Fault::Store);
            }
        };
        let part = Item::PreparePart {
            uid,
            action,
            coordinator,
            body: entry::encode(&changes),
        };
        if self.add_step(key, uid, Step::Part, Batch::from(part)) {
            if let Some(group) = self.groups.borrow_mut().by_object.get_mut(&uid) {
                group.part = Some(action);
            }
            self.share_reads(uid);
        }
    }

    /// Adds an entry as a step; whether it is added.
    fn add_step(self: &Rc<Self>, key: PlanKey, uid: Uid, step: Step, batch: Batch) -> bool {
        if let Some(plan) = self.groups.borrow_mut().plans.get_mut(&key) {
            plan.waits += 1;
        }
        match self.add(uid, Of::Step(key, step), batch) {
            Ok(()) => true,
            Err(refused) => {
                let (error, fault) = self.not_added(uid, refused);
                tracing::warn!(%error, ?step, "an action does not get into a log");
                self.step_done(key, Err(fault));
                false
            }
        }
    }

    /// The decision: in the log of the decider, or in the store.
    fn decide_in_steps(self: &Rc<Self>, key: PlanKey, action: Uid, decision: Decision) {
        let Decision {
            decider,
            objects,
            ends,
            participants,
            groups,
        } = decision;
        if let Some(plan) = self.groups.borrow_mut().plans.get_mut(&key) {
            (plan.then, plan.waits) = (Then::End(ends), 1);
        }
        match (decider, key) {
            (Some((uid, changes)), _) => {
                let decide = Item::DecideGroup {
                    uid,
                    action,
                    participants,
                    groups,
                    keep_ms: OUTCOME_RETENTION.as_millis() as u64,
                };
                self.add_step(key, uid, Step::Decide, changes.with(decide));
            }
            (None, PlanKey::Job(job)) => {
                let batch = ActionBatch::Decide {
                    action,
                    decider: None,
                    objects,
                    participants,
                    groups,
                };
                self.store_local(key, job, batch);
            }
            (None, PlanKey::End { .. }) => {}
        }
        self.go_on_with(key);
    }

    /// The end of an action's part, as far as this copy leads.
    fn add_end(self: &Rc<Self>, uid: Uid, end: End) {
        let End { key, action, .. } = end;
        let has_part = {
            let mut groups = self.groups.borrow_mut();
            let group = groups.by_object.get_mut(&uid);
            let Some(group) = group.filter(|group| group.leads()) else {
                return;
            };
            // What was refused has left nothing that is to end.
            match key {
                PlanKey::Job(_) => group.part == Some(action),
                PlanKey::End { .. } => true,
            }
        };
        if !has_part {
            return;
        }
        if let Some(plan) = self.groups.borrow_mut().plans.get_mut(&key) {
            plan.waits += 1;
        }
        self.pay(uid, Owed::End(end), false);
    }

    /// The engine wants a part ended that it knows of by itself.
    pub(in crate::shard) fn end_part(self: &Rc<Self>, object: Uid, action: Uid, commit: bool) {
        let key = PlanKey::End { object, action };
        self.begin_plan(key, Plan::new(action, Then::Answer));
        let leads = {
            let groups = self.groups.borrow();
            let group = groups.by_object.get(&object);
            group.is_some_and(super::Group::leads)
        };
        if leads {
            let end = End {
                key,
                action,
                commit,
            };
            self.add_end(object, end);
        } else {
            self.fail_plan(key, Fault::Fenced);
        }
        self.go_on_with(key);
    }

    /// An entry is complete.
    pub(super) fn step_complete(self: &Rc<Self>, key: PlanKey, step: Step) {
        match step {
            Step::Part => self.step_done(key, Ok(())),
            Step::Decide => {
                if let Some(plan) = self.groups.borrow_mut().plans.get_mut(&key) {
                    plan.decided = true;
                }
            }
            Step::End => {}
        }
    }

    /// The store shows an entry.
    pub(super) fn step_shown(self: &Rc<Self>, key: PlanKey) {
        self.step_done(key, Ok(()));
    }

    pub(super) fn step_done(self: &Rc<Self>, key: PlanKey, result: Result<(), Fault>) {
        if let Err(fault) = result {
            self.fail_plan(key, fault);
        }
        self.go_on_with(key);
    }

    fn fail_plan(&self, key: PlanKey, fault: Fault) {
        if let Some(plan) = self.groups.borrow_mut().plans.get_mut(&key) {
            plan.fail(fault);
        }
    }

    /// A step is over.
    fn go_on_with(self: &Rc<Self>, key: PlanKey) {
        let plan = {
            let mut groups = self.groups.borrow_mut();
            let Some(plan) = groups.plans.get_mut(&key) else {
                return;
            };
            plan.waits = plan.waits.saturating_sub(1);
            if plan.waits > 0 {
                return;
            }
            groups.plans.remove(&key).expect("it was just there")
        };
        let result = plan.fault.map_or(Ok(()), Err);
        match (result, plan.then) {
            (Ok(()), Then::Decide(decision)) => {
                let action = plan.action;
                self.begin_plan(key, Plan::new(action, Then::Answer));
                self.decide_in_steps(key, action, *decision);
            }
            (Ok(()), Then::End(ends)) => {
                let plan = Plan {
                    decided: true,
                    ..Plan::new(plan.action, Then::Answer)
                };
                let action = plan.action;
                self.begin_plan(key, plan);
                for uid in ends {
                    let commit = true;
                    let end = End {
                        key,
                        action,
                        commit,
                    };
                    self.add_end(uid, end);
                }
                self.go_on_with(key);
            }
            (result, _) => self.feed(match key {
                PlanKey::Job(job) => EngineInput::Stored { job, result },
                PlanKey::End { object, action } => EngineInput::PartEnded {
                    object,
                    action,
                    result,
                },
            }),
        }
    }
}

/// Those that are replicated, and the others.
fn split(objects: Vec<Written>) -> (Vec<Written>, Vec<Written>) {
    objects.into_iter().partition(|it| it.replicated)
}

#[cfg(test)]
mod tests {
    use partha_core::id::NodeId;

    use super::*;

    fn uid(local: u64) -> Uid {
        let node = NodeId(1);
        Uid { node, local }
    }

    /// It would overwrite what the object became under another leader, or under this one later.
    #[test]
    fn a_decision_that_waits_is_not_made_once_its_object_was_led_by_nobody_here() {
        let mut groups = Groups::default();
        let decision = |decider: Option<u64>| Decision {
            decider: decider.map(|local| (uid(local), Batch::default())),
            objects: Vec::new(),
            ends: Vec::new(),
            participants: Vec::new(),
            groups: Vec::new(),
        };
        let plans = [
            Then::Decide(Box::new(decision(Some(7)))),
            Then::Decide(Box::new(decision(Some(8)))),
            Then::Decide(Box::new(decision(None))),
            // Its decision is on its way into the log.
            Then::End(vec![uid(7)]),
            Then::Answer,
        ];
        for (number, then) in (0..).zip(plans) {
            let key = PlanKey::End {
                object: uid(number),
                action: uid(90),
            };
            groups.plans.insert(key, Plan::new(uid(90), then));
        }
        groups.fail_decisions(uid(7));
        let failed = groups.plans.values().map(|plan| plan.fault);
        let failed: Vec<_> = failed.collect();
        assert_eq!(failed, [Some(Fault::Fenced), None, None, None, None]);
    }
}
