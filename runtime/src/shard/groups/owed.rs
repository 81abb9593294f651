//! What is to get into a log and finds no room: ends of parts, and checkpoints. It is *owed*:
//! nothing else is added to that log before it.

use std::rc::Rc;

use partha_core::Fault;
use partha_core::group::NotAdded;
use partha_core::id::Uid;
use partha_store::{Batch, Item};

use super::entries::{NotKept, Of};
use super::parts::{PlanKey, Step};
use crate::shard::Shard;

/// What waits for room in the log of one object, at most; ends are as few as parts.
const OWED_MAX: usize = 64;

/// What is to get into a log and is not there yet.
#[derive(Debug)]
pub(super) enum Owed {
    End(End),
    Checkpoint { job: partha_core::Job, batch: Batch },
}

/// An end that is owed.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) key: PlanKey,
    pub(super) action: Uid,
    pub(super) commit: bool,
}

impl Owed {
    /// The end that it is.
    pub(super) fn end(self) -> Option<End> {
        match self {
            Self::End(end) => Some(end),
            Self::Checkpoint { .. } => None,
        }
    }

    fn of(&self) -> Of {
        match self {
            Self::End(end) => Of::Step(end.key, Step::End),
            Self::Checkpoint { job, .. } => Of::Checkpoint(*job),
        }
    }

    fn batch(&self, uid: Uid) -> Batch {
        match self {
            Self::Checkpoint { batch, .. } => batch.clone(),
            Self::End(End { action, commit, .. }) => Batch::from(Item::EndPart {
                uid,
                action: *action,
                commit: *commit,
            }),
        }
    }
}

impl Shard {
    /// Adds what is owed, or goes on owing it: in front of the others if it was owed before.
    /// Whether the next one may be added.
    pub(super) fn pay(self: &Rc<Self>, uid: Uid, owed: Owed, again: bool) -> bool {
        let waiting = {
            let groups = self.groups.borrow();
            let group = groups.by_object.get(&uid).filter(|_| !again);
            group.map_or(0, |group| group.owed.len())
        };
        let refused = match waiting {
            0 => self.add(uid, owed.of(), owed.batch(uid)).err(),
            _ => Some(NotKept::Refused(NotAdded::Overloaded)),
        };
        match (refused, owed) {
            (None, Owed::End(end)) => {
                let ended = {
                    let mut groups = self.groups.borrow_mut();
                    let group = groups.by_object.get_mut(&uid);
                    group.and_then(|it| it.part.take_if(|part| *part == end.action))
                };
                if ended.is_some() {
                    self.share_reads(uid);
                }
                true
            }
            (None, Owed::Checkpoint { .. }) => true,
            // What makes it so large is aborted.
            (Some(NotKept::TooLarge), Owed::Checkpoint { job, .. }) => {
                tracing::warn!(%uid, "what running actions have of an object is too much");
                self.not_checkpointed(job, Fault::Full);
                true
            }
            // It is said again after a while.
            (Some(_), Owed::Checkpoint { job, .. }) if waiting >= OWED_MAX => {
                self.not_checkpointed(job, Fault::Store);
                false
            }
            (Some(_), owed) => {
                self.owe(uid, owed, again);
                false
            }
        }
    }

    fn owe(self: &Rc<Self>, uid: Uid, owed: Owed, again: bool) {
        let mut groups = self.groups.borrow_mut();
        // Also one that is handing its lead over, and may keep it in the end.
        match groups.by_object.get_mut(&uid).filter(|it| it.leads()) {
            Some(group) => {
                match again {
                    true => group.owed.push_front(owed),
                    false => group.owed.push_back(owed),
                }
                groups.busy.insert(uid);
            }
            // Of a checkpoint the engine hears that the object is expelled.
            None => {
                drop(groups);
                if let Some(end) = owed.end() {
                    self.step_done(end.key, Err(Fault::Fenced));
                }
            }
        }
    }

    /// There may be room for what is owed.
    pub(super) fn pay_owed(self: &Rc<Self>, uid: Uid) {
        loop {
            let owed = {
                let mut groups = self.groups.borrow_mut();
                let group = groups.by_object.get_mut(&uid);
                group.and_then(|group| group.owed.pop_front())
            };
            let Some(owed) = owed else { return };
            if !self.pay(uid, owed, true) {
                return;
            }
        }
    }
}
