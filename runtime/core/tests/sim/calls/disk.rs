//! A toy store: committed lists and replies, a queue of batches, one writer.
//!
//! A group of batches is written at a time. A crash loses the queue; of the group being written
//! it loses all or nothing, as one transaction of a real store does, and tells nobody which.

use std::collections::{BTreeMap, VecDeque};

use partha_core::id::{CallId, Uid};
use partha_core::{Fault, Ticket};

use crate::calls::history::{OpId, Outcome};
use crate::rng::Rng;

/// One batch of one call.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) shard: usize,
    pub(crate) ticket: Ticket,
    pub(crate) uid: Uid,
    /// The list, and the epoch of the activation that writes it.
    pub(crate) state: Option<(Vec<OpId>, u64)>,
    pub(crate) reply: Option<(CallId, Outcome)>,
    pub(crate) create: bool,
}

/// What happened to one batch.
pub(crate) type Done = (usize, Ticket, Result<(), Fault>);

/// The store of one node.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    pub(crate) states: BTreeMap<Uid, Vec<OpId>>,
    pub(crate) replies: BTreeMap<CallId, Outcome>,
    /// The latest activation of each object; only it may write.
    fences: BTreeMap<Uid, u64>,
    last_epoch: u64,
    queue: VecDeque<Batch>,
    writing: Vec<Batch>,
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
        if !self.writing.is_empty() || self.queue.is_empty() {
            return false;
        }
        let count = rng.range(1, self.queue.len() as u64) as usize;
        self.writing = self.queue.drain(..count).collect();
        true
    }

    /// The group is on disk, but for the batches that failed.
    pub(crate) fn finish(&mut self, rng: &mut Rng, full_per_mille: u64) -> Vec<Done> {
        let batches = std::mem::take(&mut self.writing);
        let mut done = Vec::new();
        for batch in batches {
            let key = (batch.shard, batch.ticket);
            let full = rng.chance(full_per_mille);
            let result = if full {
                Err(Fault::Full)
            } else {
                self.apply(batch)
            };
            done.push((key.0, key.1, result));
        }
        done
    }

    fn apply(&mut self, batch: Batch) -> Result<(), Fault> {
        if batch.create && self.states.contains_key(&batch.uid) {
            return Err(Fault::Exists);
        }
        if let Some((list, epoch)) = batch.state {
            if self.fences.get(&batch.uid) != Some(&epoch) {
                return Err(Fault::Fenced);
            }
            self.states.insert(batch.uid, list);
        }
        if let Some((call, outcome)) = batch.reply {
            self.replies.insert(call, outcome);
        }
        Ok(())
    }

    /// The node dies.
    pub(crate) fn crash(&mut self, rng: &mut Rng) {
        self.queue.clear();
        let batches = std::mem::take(&mut self.writing);
        if rng.chance(500) {
            for batch in batches {
                // Nobody is left to hear of a failure.
                let _unheard = self.apply(batch);
            }
        }
        self.fences.clear();
    }
}
