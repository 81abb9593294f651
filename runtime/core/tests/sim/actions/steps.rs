//! Work for the store that has several steps, since some of it is in the logs of replicated
//! objects: parts first, then the local batch or the decision, then the ends of parts.

use partha_core::action::path::Coordinator;
use partha_core::id::Uid;
use partha_core::{ActionBatch, Fault, Input, Job as Work, Written};

use super::disk::{For, State, What};
use super::log::{Entry, Waits};
use super::world::{Check, Place, World};

/// A piece of work for the store that has several steps.
#[derive(Clone, Debug)]
pub(crate) struct Steps {
    pub(crate) action: Uid,
    /// Answers that are missing in this step.
    open: usize,
    failed: Option<Fault>,
    stage: Stage,
    /// What is left to do: parts first, then the local batch or the decision, then ends.
    local: Option<What>,
    decision: Option<(Uid, Entry)>,
    ends: Vec<(Uid, bool)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Parts,
    Point,
    Ends,
}

impl World {
    /// A batch about replicated objects, perhaps besides others. Says whether it is one.
    pub(crate) fn store_in_logs(
        &mut self,
        at: Place,
        job: Work,
        batch: &ActionBatch,
    ) -> Result<bool, String> {
        match batch {
            ActionBatch::Prepare {
                action,
                coordinator,
                objects,
            } if objects.iter().any(|it| it.replicated) => {
                let (parts, states) = self.split(at, *action, objects)?;
                let local = (!states.is_empty()).then_some(What::Prepare {
                    action: *action,
                    coordinator: *coordinator,
                    states,
                });
                let steps = Steps::new(*action, local, None, Vec::new());
                self.begin_steps(at, job, steps, parts, *coordinator)?;
            }
            ActionBatch::Decide {
                decider, objects, ..
            } if decider.is_some() || objects.iter().any(|it| it.replicated) => {
                self.decide_in_logs(at, job, batch)?;
            }
            ActionBatch::Install { action, groups } => {
                let key = (*action, at.shard);
                let plain = self.nodes[at.node].disk.prepared.contains_key(&key);
                if plain && groups.is_empty() {
                    return Ok(false);
                }
                // Perhaps all that it had prepared is led elsewhere by now.
                let local = plain.then_some(What::Install { action: *action });
                let ends = groups.iter().map(|uid| (*uid, true)).collect();
                let steps = Steps::new(*action, local, None, ends);
                self.begin_steps(at, job, steps, Vec::new(), Coordinator::default())?;
            }
            ActionBatch::Undo { action, groups } if !groups.is_empty() => {
                self.undo_in_logs(at, job, *action, groups);
            }
            ActionBatch::Settle {
                action,
                decider: Some(uid),
            } => {
                let mut steps = Steps::new(*action, None, None, Vec::new());
                steps.stage = Stage::Ends;
                steps.open = usize::from(self.believes(at.node, *uid));
                let led = steps.open > 0;
                let shard = &mut self.nodes[at.node].shards[at.shard];
                shard.steps.insert(job, steps);
                if !led {
                    self.next_step(at, job)?;
                    return Ok(true);
                }
                let entry = Entry::Settle { action: *action };
                self.add_entry(at, *uid, entry, Waits::Step(job));
            }
            ActionBatch::Prepare { .. }
            | ActionBatch::Decide { .. }
            | ActionBatch::Undo { .. }
            | ActionBatch::Settle { .. }
            | ActionBatch::Depart { .. } => return Ok(false),
        }
        Ok(true)
    }

    fn decide_in_logs(&mut self, at: Place, job: Work, batch: &ActionBatch) -> Check {
        let ActionBatch::Decide {
            action,
            decider,
            objects,
            participants,
            groups,
        } = batch
        else {
            return Err(format!("groups: {batch:?} decides nothing"));
        };
        let (action, decider) = (*action, *decider);
        let (participants, groups) = (participants.clone(), groups.clone());
        let (parts, states) = self.split(at, action, objects)?;
        let is_own = |state: &State| Some(state.uid) == decider;
        let (mut own, parts): (Vec<State>, Vec<State>) = parts.into_iter().partition(is_own);
        let ends = parts.iter().map(|state| (state.uid, true)).collect();
        let (local, decision) = match decider {
            Some(uid) if !states.is_empty() => {
                return Err(format!("groups: {action} decides {states:?} in {uid}"));
            }
            Some(uid) => {
                let entry = Entry::Decide {
                    action,
                    state: own.pop(),
                    participants,
                    groups,
                };
                (None, Some((uid, entry)))
            }
            None => {
                let what = What::Decide {
                    action,
                    states,
                    participants,
                    groups,
                };
                (Some(what), None)
            }
        };
        let site = self.site_at(at);
        let coordinator = Coordinator { site, decider };
        let steps = Steps::new(action, local, decision, ends);
        self.begin_steps(at, job, steps, parts, coordinator)
    }

    /// The ends are added at once: what comes next finds them before it.
    fn undo_in_logs(&mut self, at: Place, job: Work, action: Uid, groups: &[Uid]) {
        let led = groups.iter().copied();
        let led: Vec<Uid> = led.filter(|uid| self.believes(at.node, *uid)).collect();
        let mut steps = Steps::new(action, None, None, Vec::new());
        (steps.open, steps.stage) = (1 + led.len(), Stage::Ends);
        let shard = &mut self.nodes[at.node].shards[at.shard];
        shard.steps.insert(job, steps);
        for uid in led {
            let commit = false;
            self.add_entry(at, uid, Entry::End { action, commit }, Waits::Step(job));
        }
        self.submit(at, For::Step(job), What::Undo { action });
    }

    /// What is replicated, and what is not.
    fn split(
        &self,
        at: Place,
        action: Uid,
        objects: &[Written],
    ) -> Result<(Vec<State>, Vec<State>), String> {
        let images = &self.nodes[at.node].shards[at.shard].images;
        let (mut parts, mut states) = (Vec::new(), Vec::new());
        for Written {
            uid,
            create,
            replicated,
        } in objects
        {
            let (list, rows, epoch) = images.written(*uid, action)?;
            let state = State {
                uid: *uid,
                list,
                rows,
                epoch,
                create: *create,
            };
            if *replicated {
                parts.push(state);
            } else {
                states.push(state);
            }
        }
        Ok((parts, states))
    }

    fn begin_steps(
        &mut self,
        at: Place,
        job: Work,
        mut steps: Steps,
        parts: Vec<State>,
        coordinator: Coordinator,
    ) -> Check {
        let action = steps.action;
        if parts.iter().any(|part| !self.believes(at.node, part.uid)) {
            return Err(format!(
                "groups: {action} has parts of what is not led here"
            ));
        }
        steps.open = parts.len();
        let none = parts.is_empty();
        self.nodes[at.node].shards[at.shard]
            .steps
            .insert(job, steps);
        for state in parts {
            let uid = state.uid;
            let entry = Entry::Part {
                action,
                coordinator,
                state,
            };
            self.add_entry(at, uid, entry, Waits::Step(job));
        }
        if none {
            self.next_step(at, job)
        } else {
            Ok(())
        }
    }

    /// One answer to a piece of work.
    pub(crate) fn step_done(
        &mut self,
        at: Place,
        job: Work,
        result: Result<(), Fault>,
        local: bool,
    ) -> Check {
        let shard = &mut self.nodes[at.node].shards[at.shard];
        let steps = shard.steps.get_mut(&job);
        let steps = steps.ok_or_else(|| format!("groups: {job:?} is not under way"))?;
        // An end that its leader could not add is the next leader's.
        if local || steps.stage != Stage::Ends {
            steps.failed = steps.failed.or_else(|| result.err());
        }
        steps.open -= 1;
        if steps.open == 0 {
            return self.next_step(at, job);
        }
        Ok(())
    }

    fn next_step(&mut self, at: Place, job: Work) -> Check {
        let shard = &mut self.nodes[at.node].shards[at.shard];
        let steps = shard.steps.get_mut(&job).expect("it is under way");
        let action = steps.action;
        if let Some(fault) = steps.failed {
            shard.steps.remove(&job);
            let result = Err(fault);
            return self.input(at, Input::Stored { job, result });
        }
        match steps.stage {
            Stage::Parts => {
                steps.stage = Stage::Point;
                let (local, decision) = (steps.local.take(), steps.decision.take());
                if let Some(what) = local {
                    steps.open = 1;
                    self.submit(at, For::Step(job), what);
                    return Ok(());
                }
                if let Some((uid, entry)) = decision {
                    steps.open = 1;
                    if self.believes(at.node, uid) {
                        self.add_entry(at, uid, entry, Waits::Step(job));
                        return Ok(());
                    }
                    return self.step_done(at, job, Err(Fault::Store), false);
                }
                self.next_step(at, job)
            }
            Stage::Point => {
                steps.stage = Stage::Ends;
                let ends = core::mem::take(&mut steps.ends);
                let led = ends.into_iter();
                let led: Vec<(Uid, bool)> = led
                    .filter(|(uid, _)| self.believes(at.node, *uid))
                    .collect();
                let none = led.is_empty();
                let shard = &mut self.nodes[at.node].shards[at.shard];
                shard.steps.get_mut(&job).expect("it is there").open = led.len();
                for (uid, commit) in led {
                    self.add_entry(at, uid, Entry::End { action, commit }, Waits::Step(job));
                }
                if none {
                    self.next_step(at, job)
                } else {
                    Ok(())
                }
            }
            Stage::Ends => {
                shard.steps.remove(&job);
                self.input(
                    at,
                    Input::Stored {
                        job,
                        result: Ok(()),
                    },
                )
            }
        }
    }
}

impl Steps {
    fn new(
        action: Uid,
        local: Option<What>,
        decision: Option<(Uid, Entry)>,
        ends: Vec<(Uid, bool)>,
    ) -> Self {
        Self {
            action,
            open: 0,
            failed: None,
            stage: Stage::Parts,
            local,
            decision,
            ends,
        }
    }
}
