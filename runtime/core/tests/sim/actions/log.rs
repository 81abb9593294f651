//! What is in the log of a replicated object, and what it makes of it.

use std::collections::BTreeMap;

use partha_core::Job as Work;
use partha_core::action::path::{Coordinator, Site};
use partha_core::engine::Mutation;
use partha_core::id::Uid;

use super::cohort::{Kept, Replies};
use super::disk::{Fact, State};
use super::image::Rows;
use super::plan::MS;
use super::truth::OpNo;
use super::world::{Check, Event, Place, World};

/// What a log's entry says.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    Part {
        action: Uid,
        coordinator: Coordinator,
        state: State,
    },
    End {
        action: Uid,
        commit: bool,
    },
    Decide {
        action: Uid,
        state: Option<State>,
        participants: Vec<Site>,
        groups: Vec<Uid>,
    },
    Settle {
        action: Uid,
    },
    /// What running actions have of the object, and answers of their calls.
    Checkpoint {
        kept: Box<Kept>,
        saved: Replies,
    },
}

/// Who waits for an entry at the leader that added it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waits {
    /// A piece of work of several steps.
    Step(Work),
    /// The end of a part that the engine asked for.
    Ended(Uid),
    /// A checkpoint.
    Checkpoint(Work),
}

/// An entry that is not complete.
#[derive(Clone, Debug)]
pub(crate) struct Added {
    pub(crate) entry: Entry,
    pub(crate) at: Place,
    pub(crate) waits: Waits,
}

/// What a decision in a log names, and whether all of them know.
#[derive(Clone, Debug)]
pub(crate) struct Decision {
    pub(crate) participants: Vec<Site>,
    pub(crate) groups: Vec<Uid>,
    pub(crate) settled: bool,
}

/// What is complete.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shown {
    pub(crate) list: Vec<OpNo>,
    pub(crate) rows: Rows,
    pub(crate) part: Option<(Uid, Coordinator, State)>,
    pub(crate) decisions: BTreeMap<Uid, Decision>,
    /// The latest checkpoint.
    pub(crate) kept: Option<Box<Kept>>,
    pub(crate) saved: Replies,
}

impl World {
    /// An entry is complete: what it says is so.
    pub(crate) fn apply_entry(&mut self, uid: Uid, entry: Entry) -> Check {
        self.say(|| format!("complete in {uid}: {entry:?}"));
        let keeps = self.job.mutation == Mutation::KeepCheckpoint;
        let group = self.groups.get_mut(&uid).expect("it is a group");
        let shown = &mut group.shown;
        if let Entry::Part { action, .. } | Entry::Decide { action, .. } = &entry
            && let Some(kept) = shown.kept.as_mut().filter(|_| !keeps)
        {
            kept.checkpoint.settle(*action);
            kept.image = None;
        }
        match entry {
            Entry::Part {
                action,
                coordinator,
                state,
            } => {
                if let Some((other, ..)) = &shown.part
                    && *other != action
                {
                    return Err(format!("groups: {uid} has parts of {other} and {action}"));
                }
                shown.part = Some((action, coordinator, state));
            }
            Entry::End { action, commit } => return self.end_in_log(uid, action, commit),
            Entry::Decide {
                action,
                state,
                participants,
                groups,
            } => {
                let settled = participants.is_empty() && groups.is_empty();
                let decision = Decision {
                    participants,
                    groups,
                    settled,
                };
                if shown.decisions.insert(action, decision).is_some() {
                    return Err(format!("groups: {action} is decided twice"));
                }
                if let Some(state) = state {
                    shown.write(state);
                }
                self.learn(vec![Fact::Decided(action)])?;
            }
            Entry::Checkpoint { kept, saved } => {
                shown.kept = Some(kept);
                shown.saved.extend(saved);
            }
            Entry::Settle { action } => {
                if let Some(decision) = shown.decisions.get_mut(&action) {
                    decision.settled = true;
                    let at = self.now + self.group_rng.range(0, 5 * MS);
                    self.schedule(at, Event::Forget { uid, action });
                }
            }
        }
        Ok(())
    }

    /// A part becomes the object's state, or goes: as its action does.
    fn end_in_log(&mut self, uid: Uid, action: Uid, commit: bool) -> Check {
        let group = self.groups.get_mut(&uid).expect("it is a group");
        let shown = &mut group.shown;
        let mine = |part: &mut (Uid, Coordinator, State)| part.0 == action;
        let Some((_, _, state)) = shown.part.take_if(mine) else {
            return Ok(());
        };
        if commit {
            shown.write(state);
        }
        let decided = self.truth.roots[&action].decided;
        if decided != commit {
            return Err(format!(
                "atomic: the part of {action} at {uid} ends as {commit}, decided: {decided}"
            ));
        }
        Ok(())
    }

    /// A settled decision has stayed for long enough: whoever ran the action knows.
    pub(crate) fn forget_decision(&mut self, uid: Uid, action: Uid) {
        let over =
            |run: &super::run::Run| run.root != action || run.stage == super::run::Stage::Done;
        if !self.runs.iter().filter(|run| !run.is_branch).all(over) {
            let at = self.now + 2 * MS;
            return self.schedule(at, Event::Forget { uid, action });
        }
        self.truth.root(action).forgotten = true;
        let group = self.groups.get_mut(&uid).expect("it is a group");
        group.shown.decisions.remove(&action);
    }
}

impl Shown {
    /// What leaves memory is in the log.
    pub(crate) fn has(&self, uid: Uid, image: &Vec<OpNo>) -> Check {
        let part = self.part.as_ref().map(|(_, _, state)| &state.list);
        if *image == self.list || part == Some(image) {
            return Ok(());
        }
        Err(format!(
            "durable: {uid} loses {image:?}, its log shows {:?}",
            self.list
        ))
    }

    fn write(&mut self, state: State) {
        self.rows.extend(state.rows);
        self.list = state.list;
    }
}
