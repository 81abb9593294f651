//! A toy store: committed lists and rows, saved replies, shadows of prepared actions, decisions;
//! a queue of batches, one writer.
//!
//! A batch is all or nothing. A crash keeps a random prefix of what was queued, and nobody is
//! told which; what was reported done is on disk for ever.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use partha_core::action::path::{Coordinator, Site};
use partha_core::id::{CallId, Uid};
use partha_core::{Fault, Job, Ticket};

use super::image::Rows;
use super::moves::MoveNo;
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
        coordinator: Coordinator,
        states: Vec<State>,
    },
    Decide {
        action: Uid,
        states: Vec<State>,
        participants: Vec<Site>,
        groups: Vec<Uid>,
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
    /// An object that comes: prepared, and the replies that were saved for it.
    Stage {
        action: Uid,
        coordinator: Site,
        state: State,
        replies: Vec<(CallId, Outcome)>,
    },
    /// An object that leaves.
    Depart {
        action: Uid,
        uid: Uid,
        to: Site,
        /// A forward takes its place, as it must.
        keep: bool,
    },
}

/// Who waits for a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) enum For {
    Call(Ticket),
    Job(Job),
    /// A step of it.
    Step(Job),
    Move(MoveNo),
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
    /// An object has left, or come.
    Moved(Uid),
}

/// One shard's part of a prepared action.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub(crate) coordinator: Coordinator,
    pub(crate) shadows: Vec<State>,
}

/// The shard that tells a decision, the sites to be told, and the replicated objects.
pub(crate) type Told = (usize, Vec<Site>, Vec<Uid>);

/// The store of one node.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    pub(crate) states: BTreeMap<Uid, Vec<OpNo>>,
    pub(crate) rows: BTreeMap<Uid, Rows>,
    pub(crate) replies: BTreeMap<CallId, Outcome>,
    /// By action and shard.
    pub(crate) prepared: BTreeMap<(Uid, usize), Prepared>,
    /// Where objects are that have left.
    pub(crate) forwards: BTreeMap<Uid, Site>,
    /// Who is still to be told, and the shard that tells them.
    pub(crate) decisions: BTreeMap<Uid, Told>,
    /// What is to go and could perhaps not be removed: it goes with the next that is prepared,
    /// so that no two are ever found to have prepared the same object. Not on disk.
    unwanted: BTreeSet<(Uid, usize)>,
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
        if let What::Undo { action } = batch.what {
            self.unwanted.insert((action, batch.shard));
        }
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
        self.unwanted.clear();
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
                self.prepare((action, shard), coordinator, states)?;
            }
            What::Decide {
                action,
                states,
                participants,
                groups,
            } => {
                if let Err(fault) = self.may_write(&states) {
                    return Ok(Err(fault));
                }
                states.into_iter().for_each(|state| self.write(state));
                facts.push(Fact::Decided(action));
                self.decide(action, (shard, participants, groups))?;
            }
            What::Install { action } => {
                let record = self.prepared.remove(&(action, shard));
                let record = record.ok_or_else(|| format!("store: no shadow of {action}"))?;
                self.install(record, facts);
            }
            What::Undo { action } => {
                self.prepared.remove(&(action, shard));
                self.unwanted.remove(&(action, shard));
            }
            What::Settle { action } => self.settle(action, shard)?,
            What::Stage {
                action,
                coordinator,
                state,
                replies,
            } => {
                self.replies.extend(replies);
                let coordinator = coordinator.into();
                self.prepare((action, shard), coordinator, vec![state])?;
            }
            What::Depart {
                action,
                uid,
                to,
                keep,
            } => {
                self.depart(action, uid, (shard, to), keep)?;
                facts.push(Fact::Moved(uid));
            }
        }
        Ok(Ok(()))
    }

    fn prepare(
        &mut self,
        (action, shard): (Uid, usize),
        coordinator: Coordinator,
        shadows: Vec<State>,
    ) -> Result<(), String> {
        self.remove_unwanted(shard);
        let record = Prepared {
            coordinator,
            shadows,
        };
        match self.prepared.insert((action, shard), record) {
            Some(_) => Err(format!("store: {action} is prepared twice")),
            None => Ok(()),
        }
    }

    fn install(&mut self, record: Prepared, facts: &mut Vec<Fact>) {
        for shadow in record.shadows {
            if self.forwards.remove(&shadow.uid).is_some() || shadow.epoch == 0 {
                facts.push(Fact::Moved(shadow.uid));
            }
            self.write(shadow);
        }
    }

    fn depart(
        &mut self,
        action: Uid,
        uid: Uid,
        (shard, to): (usize, Site),
        keep: bool,
    ) -> Result<(), String> {
        if self.states.remove(&uid).is_none() {
            return Err(format!("store: {uid} leaves, but is not there"));
        }
        self.rows.remove(&uid);
        self.fences.remove(&uid);
        if keep {
            self.forwards.insert(uid, to);
        }
        self.decide(action, (shard, vec![to], Vec::new()))
    }

    fn decide(&mut self, action: Uid, record: Told) -> Result<(), String> {
        match self.decisions.insert(action, record) {
            Some(_) => Err(format!("store: {action} is decided twice")),
            None => Ok(()),
        }
    }

    fn settle(&mut self, action: Uid, shard: usize) -> Result<(), String> {
        let record = self.decisions.get_mut(&action);
        let record = record.ok_or_else(|| format!("store: {action} was never decided"))?;
        *record = (shard, Vec::new(), Vec::new());
        Ok(())
    }

    fn remove_unwanted(&mut self, shard: usize) {
        let unwanted = &self.unwanted;
        let gone = |key: &(Uid, usize)| key.1 == shard && unwanted.contains(key);
        self.prepared.retain(|key, _| !gone(key));
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
