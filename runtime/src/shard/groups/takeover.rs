//! Leads that end and begin, as far as actions have to do with them: whose entry was not complete,
//! and what a new leader finds.

use std::rc::Rc;
use std::time::Duration;

use partha_core::action::message::Verdict;
use partha_core::id::Uid;
use partha_core::{Fault, Input as EngineInput};

use super::entries::Of;
use super::owed::Owed;
use super::parts::{PlanKey, Step};
use crate::shard::Shard;

/// Between two questions about a decision that may be in a log or not.
const PAUSE: Duration = Duration::from_millis(100);

impl Shard {
    /// This copy leads no more: steps whose entries were not complete are done by whoever leads
    /// next, or never.
    pub(super) fn fail_steps(self: &Rc<Self>, uid: Uid) {
        let mut over = Vec::new();
        {
            let mut groups = self.groups.borrow_mut();
            groups.fail_decisions(uid);
            let Some(group) = groups.by_object.get_mut(&uid) else {
                return;
            };
            group.part = None;
            group.settled.clear();
            let step = |of: Of| match of {
                Of::Step(key, step) => Some((key, step)),
                Of::Call(_) | Of::Checkpoint(_) | Of::Nobody => None,
            };
            let complete = std::mem::take(&mut group.complete).into_iter();
            let complete = complete.filter_map(|(_, of)| step(of));
            over.extend(complete.map(|(key, step)| (key, step, true)));
            let entries = std::mem::take(&mut group.entries).into_values();
            let adding = std::mem::take(&mut group.adding).into_values();
            let unknown = entries.chain(adding.map(|(of, _)| of)).filter_map(step);
            over.extend(unknown.map(|(key, step)| (key, step, false)));
            group.resumed = None;
            let owed = std::mem::take(&mut group.owed).into_iter();
            let ends = owed.filter_map(Owed::end);
            over.extend(ends.map(|end| (end.key, Step::End, false)));
        }
        for (key, step, complete) in over {
            match step {
                Step::Decide if !complete => self.find_out(key, uid),
                _ if complete => self.step_done(key, Ok(())),
                Step::Part | Step::Decide | Step::End => self.step_done(key, Err(Fault::Fenced)),
            }
        }
    }

    /// A decision was added to a log and not complete when this copy ceased to lead. Until it is
    /// known whether it is there, nobody may be told anything.
    fn find_out(self: &Rc<Self>, key: PlanKey, decider: Uid) {
        let action = {
            let groups = self.groups.borrow();
            groups.plans.get(&key).map(|plan| plan.action)
        };
        let Some(action) = action else { return };
        tracing::warn!(%action, %decider, "the decision may be at other copies alone");
        let shard = self.clone();
        self.spawn(async move {
            let mut anew = true;
            let committed = loop {
                anew = !anew;
                match shard.verdict_of_leader(action, decider, anew).await {
                    Some(Verdict::Committed) => break true,
                    Some(Verdict::Aborted) => break false,
                    Some(Verdict::InFlight) | None => tokio::time::sleep(PAUSE).await,
                }
            };
            if committed && let Some(plan) = shard.groups.borrow_mut().plans.get_mut(&key) {
                plan.decided = true;
            }
            let result = if committed {
                Ok(())
            } else {
                Err(Fault::Fenced)
            };
            shard.step_done(key, result);
        });
    }

    /// This copy leads from now on: what actions have prepared and decided at its object is the
    /// engine's before anybody calls it. False if it cannot be read.
    pub(super) fn recover_parts(self: &Rc<Self>, uid: Uid) -> bool {
        let Some(store) = &self.registry.store else {
            return true;
        };
        let read = store
            .read_part(uid)
            .and_then(|part| Ok((part, store.unsettled(uid)?)));
        let (part, decisions) = match read {
            Ok(read) => read,
            Err(error) => {
                tracing::error!(%uid, %error, "what actions have at a copy cannot be read");
                return false;
            }
        };
        let (checkpoint, resumed) = match self.read_checkpoint(uid) {
            Ok(found) => found.unzip(),
            Err(error) => {
                tracing::error!(%uid, %error, "what running actions have of a copy is unreadable");
                return false;
            }
        };
        if let Some(group) = self.groups.borrow_mut().by_object.get_mut(&uid) {
            group.part = part.as_ref().map(|part| part.action);
            group.resumed = resumed;
        }
        for (action, decision) in decisions {
            tracing::info!(%uid, %action, "committed, and to be told again");
            self.feed(EngineInput::RecoverDecision {
                action,
                participants: decision.participants,
                groups: decision.groups,
                decider: Some(uid),
            });
        }
        if let Some(part) = part {
            let (action, coordinator) = (part.action, part.coordinator);
            tracing::info!(%uid, %action, ?coordinator, "a part of an action is in doubt");
            self.feed(EngineInput::RecoverPart {
                object: uid,
                action,
                coordinator,
            });
        }
        if let Some(checkpoint) = checkpoint {
            let actions = checkpoint.cargo.actions.len();
            tracing::info!(%uid, actions, "running actions are taken over");
            let object = uid;
            let checkpoint = Box::new(checkpoint);
            self.feed(EngineInput::RecoverCheckpoint { object, checkpoint });
        }
        true
    }
}
