//! A toy store: committed lists and rows, saved replies, shadows of prepared actions, decisions;
//! a queue of batches, one writer.
//!
//! A batch is all or nothing. A crash keeps a random prefix of what was queued, and nobody is
//! told which; what was reported done is on disk for ever.

use std::collections::{BTreeMap, VecDeque};

use partha_core::action::path::Site;
use partha_core::id::{CallId, Uid};
use partha_core::{Fault, Job, Ticket};

use super::image::Rows;
use super::truth::{OpNo, Outcome};
use crate::rng::Rng;

/// An object's state on its way to the disk.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) uid: Uid,
    pub(crate) list: Vec<OpNo>,
    pub(crate) rows: Rows,
    /// Of the activation that writes it.
    pub(crate) epoch: u64,
    pub(crate) create: bool,
}

/// What a batch writes.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// Of a call outside actions.
    Call {
        state: Option<State>,
        reply: Option<(CallId, Outcome)>,
        op: OpNo,
    },
    Prepare {
        action: Uid,
        coordinator: Site,
        states: Vec<State>,
    },
    Decide {
        action: Uid,
        states: Vec<State>,
        participants: Vec<Site>,
    },
    Install {
        action: Uid,
    },
    Undo {
        action: Uid,
    },
    Settle {
        action: Uid,
    },
}

/// Who waits for a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) enum For {
    Call(Ticket),
    Job(Job),
}

#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) shard: usize,
    pub(crate) waits: For,
    pub(crate) what: What,
}

/// What happened to one batch.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    pub(crate) shard: usize,
    pub(crate) waits: For,
    pub(crate) result: Result<(), Fault>,
}

/// What became true on disk, for the checkers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fact {
    /// The commit point of an action.
    Decided(Uid),
    /// The effect of a call outside actions.
    Stored(OpNo),
}

/// One shard's part of a prepared action.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub(crate) coordinator: Site,
    pub(crate) shadows: Vec<State>,
}

/// The store of one node.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    pub(crate) states: BTreeMap<Uid, Vec<OpNo>>,
    pub(crate) rows: BTreeMap<Uid, Rows>,
    pub(crate) replies: BTreeMap<CallId, Outcome>,
    /// By action and shard.
    pub(crate) prepared: BTreeMap<(Uid, usize), Prepared>,
    /// Who is still to be told, and the shard that tells them.
    pub(crate) decisions: BTreeMap<Uid, (usize, Vec<Site>)>,
    /// The latest activation of each object; only it may write.
    fences: BTreeMap<Uid, u64>,
    last_epoch: u64,
    queue: VecDeque<Batch>,
    /// How many of the queue are being written.
    writing: usize,
}

impl Disk {
    /// A new activation of an object, which ends the right of earlier ones to write.
    pub(crate) fn activate(&mut self, uid: Uid) -> u64 {
        self.last_epoch += 1;
        self.fences.insert(uid, self.last_epoch);
        self.last_epoch
    }

    pub(crate) fn submit(&mut self, batch: Batch) {
        self.queue.push_back(batch);
    }

    /// Starts on what waits; says whether there is anything and nothing is being written.
    pub(crate) fn start(&mut self, rng: &mut Rng) -> bool {
        if self.writing > 0 || self.queue.is_empty() {
            return false;
        }
        self.writing = rng.range(1, self.queue.len() as u64) as usize;
        true
    }

    /// The group is on disk, but for the batches that failed.
    pub(crate) fn finish(
        &mut self,
        rng: &mut Rng,
        full: u64,
        facts: &mut Vec<Fact>,
    ) -> Result<Vec<Done>, String> {
        let batches: Vec<Batch> = self.queue.drain(..self.writing).collect();
        self.writing = 0;
        let mut done = Vec::new();
        for batch in batches {
            let (shard, waits) = (batch.shard, batch.waits);
            let result = if rng.chance(full) {
                Err(Fault::Full)
            } else {
                self.apply(batch, facts)?
            };
            done.push(Done {
                shard,
                waits,
                result,
            });
        }
        Ok(done)
    }

    /// The node dies.
    pub(crate) fn crash(&mut self, rng: &mut Rng, facts: &mut Vec<Fact>) -> Result<(), String> {
        let kept = rng.range(0, self.queue.len() as u64) as usize;
        let batches: Vec<Batch> = self.queue.drain(..).take(kept).collect();
        self.writing = 0;
        for batch in batches {
            // Nobody is left to hear of a failure.
            let _unheard = self.apply(batch, facts)?;
        }
        self.fences.clear();
        Ok(())
    }

    fn apply(&mut self, batch: Batch, facts: &mut Vec<Fact>) -> Result<Result<(), Fault>, String> {
        let shard = batch.shard;
        match batch.what {
            What::Call { state, reply, op } => {
                if let Err(fault) = self.may_write(state.as_slice()) {
                    return Ok(Err(fault));
                }
                if let Some(state) = state {
                    self.write(state);
                    facts.push(Fact::Stored(op));
                }
                self.replies.extend(reply);
            }
            What::Prepare {
                action,
                coordinator,
                states,
            } => {
                if let Err(fault) = self.may_write(&states) {
                    return Ok(Err(fault));
                }
                let shadows = states;
                let record = Prepared {
                    coordinator,
                    shadows,
                };
                if self.prepared.insert((action, shard), record).is_some() {
                    return Err(format!("store: {action} is prepared twice"));
                }
            }
            What::Decide {
                action,
                states,
                participants,
            } => {
                if let Err(fault) = self.may_write(&states) {
                    return Ok(Err(fault));
                }
                for state in states {
                    self.write(state);
                }
                let record = (shard, participants);
                if self.decisions.insert(action, record).is_some() {
                    return Err(format!("store: {action} is decided twice"));
                }
                facts.push(Fact::Decided(action));
            }
            What::Install { action } => {
                let record = self.prepared.remove(&(action, shard));
                let record = record.ok_or_else(|| format!("store: no shadow of {action}"))?;
                for shadow in record.shadows {
                    self.write(shadow);
                }
            }
            What::Undo { action } => {
                self.prepared.remove(&(action, shard));
            }
            What::Settle { action } => {
                let record = self.decisions.get_mut(&action);
                let record = record.ok_or_else(|| format!("store: {action} was never decided"))?;
                record.1.clear();
            }
        }
        Ok(Ok(()))
    }

    fn may_write(&self, states: &[State]) -> Result<(), Fault> {
        for state in states {
            if state.create && self.states.contains_key(&state.uid) {
                return Err(Fault::Exists);
            }
            if self.fences.get(&state.uid) != Some(&state.epoch) {
                return Err(Fault::Fenced);
            }
        }
        Ok(())
    }

    fn write(&mut self, state: State) {
        self.rows.entry(state.uid).or_default().extend(state.rows);
        self.states.insert(state.uid, state.list);
    }

    /// What an action that is prepared has made of an object.
    pub(crate) fn shadow(&self, uid: Uid) -> Option<&Vec<OpNo>> {
        let mut shadows = self.prepared.values().flat_map(|record| &record.shadows);
        let shadow = shadows.find(|shadow| shadow.uid == uid);
        shadow.map(|shadow| &shadow.list)
    }
}
