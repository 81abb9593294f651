//! What the store is asked to do for actions, and what it could not do for now.

use super::{Engine, Mutation};
use crate::action::mirror::Name;
use crate::action::participant::Cue;
use crate::id::Uid;
use crate::input::{Fault, Job};
use crate::outbox::Outbox;
use crate::output::{ActionBatch, Output};
use crate::slab::Slot;

/// What the store does for an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Work {
    Prepare(Uid),
    /// Of an action at this object.
    PreparePart(Uid, Uid),
    /// By the part of this object, or by its mirror.
    Decide(Uid, Option<Uid>),
    Install(Uid),
    /// Nothing waits for it, nor for the next: tried again until it is done, or found at the
    /// next start.
    Undo(Uid, Vec<Uid>),
    Settle(Uid, Option<Uid>),
    Search(Uid, Option<Uid>),
    Depart(Uid),
    /// Of this object. Tried again if it could not be added, unless another is by then.
    Checkpoint(Uid),
    /// Where calls of a part have gone out is told once more what became of that.
    TellOut(Name),
}

impl Engine {
    pub(super) fn new_job(&mut self, work: Work) -> Job {
        self.last_job += 1;
        let job = Job(self.last_job);
        self.jobs.insert(job, work);
        job
    }

    pub(super) fn store(&mut self, work: Work, batch: ActionBatch, out: &mut Outbox) -> Job {
        let job = self.new_job(work);
        let batch = Box::new(batch);
        out.push(Output::Store { job, batch });
        job
    }

    /// The store has done a piece of work, or could not.
    pub(super) fn stored(&mut self, job: Job, result: Result<(), Fault>, out: &mut Outbox) {
        let work = self.jobs.remove(&job);
        match work.unwrap_or_else(|| panic!("{job:?} is done but was not asked for")) {
            Work::Prepare(action) => {
                let trusted = self.mutation == Mutation::TrustPrepareFault;
                let cue = Cue::Written(result.is_ok() || trusted);
                self.take_part(action, job, cue, out);
            }
            Work::Install(action) => {
                self.take_part(action, job, Cue::Installed(result.is_ok()), out);
            }
            Work::PreparePart(action, object) => {
                self.part_written((action, object), job, result, out);
            }
            Work::Decide(action, part) => {
                self.decision_stored((action, part), job, result, out);
            }
            Work::Depart(action) => self.departure_stored(action, job, result, out),
            work @ (Work::Undo(..) | Work::Settle(..)) => {
                let room = self.undone.len() < self.limits.actions_max as usize;
                if result.is_err() && room {
                    let at = self.resend_at(self.pause_max_ns());
                    self.undone.push_back((at, work));
                }
            }
            other @ (Work::Search(..) | Work::Checkpoint(_) | Work::TellOut(..)) => {
                panic!("{job:?} is {other:?}, not a batch");
            }
        }
    }

    /// What the store could not do for now is tried again.
    pub(super) fn store_again(&mut self, out: &mut Outbox) {
        while let Some((at, _)) = self.undone.front() {
            if *at > self.now {
                break;
            }
            let (_, work) = self.undone.pop_front().expect("it was just looked at");
            if let Work::TellOut(name) = work {
                self.tell_out(name, out);
                continue;
            }
            if let Work::Checkpoint(object) = work {
                self.checkpoint_again(object);
                continue;
            }
            let batch = match work.clone() {
                Work::Undo(action, groups) => ActionBatch::Undo { action, groups },
                Work::Settle(action, decider) => ActionBatch::Settle { action, decider },
                Work::Prepare(_)
                | Work::PreparePart(..)
                | Work::Decide(..)
                | Work::Install(_)
                | Work::Search(..)
                | Work::Checkpoint(_)
                | Work::TellOut(..)
                | Work::Depart(_) => {
                    panic!("{work:?} is waited for, not tried again")
                }
            };
            self.store(work, batch, out);
        }
    }

    /// Parts of replicated objects may be there although they were not all written.
    pub(super) fn undo_groups(&mut self, slot: Slot, out: &mut Outbox) {
        let mirror = self.mirrors.mirror_mut(slot);
        let (action, groups) = (mirror.uid(), core::mem::take(&mut mirror.groups));
        if !groups.is_empty() {
            self.undo_batch(action, groups, out);
        }
    }

    pub(super) fn undo_batch(&mut self, action: Uid, groups: Vec<Uid>, out: &mut Outbox) {
        let work = Work::Undo(action, groups.clone());
        self.store(work, ActionBatch::Undo { action, groups }, out);
    }
}
