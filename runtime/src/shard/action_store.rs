//! An action's batches: prepared states, the decision, what becomes of both.
//!
//! What the engine names by uid is written here as it is in memory at this moment; the engine
//! lets nothing change it until the store has answered.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use partha_core::action::path::Coordinator;
use partha_core::id::Uid;
use partha_core::{ActionBatch, Input, Written};
use partha_store::{Batch, Item, StoreError};

use super::Shard;
use super::images::shadow_rows;
use super::job::{Job, fault};
use crate::config::OUTCOME_RETENTION;
use crate::error::SystemError;
use crate::rows;

/// The pause between questions to a store that does not know what it has.
const PAUSE: Duration = Duration::from_millis(200);

/// What a batch was about, for the case that its fate is not known.
#[derive(Debug)]
pub(crate) enum Work {
    /// Which action, and the aborted ones whose prepared parts go in the same batch.
    Prepare(Uid, BTreeSet<Uid>),
    Decide(Uid, Vec<Uid>),
    Undo(Uid),
    Other,
}

impl Shard {
    /// Writes a batch about an action. What is about replicated objects in it is done in their
    /// logs.
    pub(super) fn store(self: &Rc<Self>, job: partha_core::Job, batch: ActionBatch) {
        let batch = match self.has_groups.get() {
            true => self.store_in_steps(job, batch),
            false => Some(batch),
        };
        if let Some(batch) = batch {
            self.store_batch(job, batch);
        }
    }

    /// The same, of what is not about replicated objects.
    pub(super) fn store_batch(self: &Rc<Self>, job: partha_core::Job, batch: ActionBatch) {
        let (work, items) = match self.items(batch) {
            Ok(found) => found,
            Err(error) => {
                tracing::error!(%error, "a batch of an action cannot be made");
                return self.not_stored(job);
            }
        };
        let Some(store) = &self.registry.store else {
            tracing::error!("an action changed something, but there is no store");
            return self.not_stored(job);
        };
        let handle = self.handle.clone();
        let done = move |result| handle.post(Job::Stored { job, work, result });
        store.submit(Batch::new(items), Box::new(done));
    }

    fn items(&self, batch: ActionBatch) -> Result<(Work, Vec<Item>), SystemError> {
        match batch {
            ActionBatch::Prepare {
                action,
                coordinator,
                objects,
            } => self.items_to_prepare(action, coordinator, objects),
            ActionBatch::Decide {
                action,
                decider: _,
                objects,
                participants,
                groups,
            } => {
                let mut items = Vec::with_capacity(objects.len() + 1);
                let uids = objects.iter().map(|written| written.uid).collect();
                for Written { uid, create, .. } in objects {
                    let (record, changes) = self.written(uid)?;
                    items.push(match create {
                        true => Item::Create { uid, record },
                        false => Item::WriteState { uid, record },
                    });
                    items.extend(rows::items(uid, changes));
                }
                items.push(Item::Decide {
                    action,
                    participants,
                    groups,
                    keep_ms: OUTCOME_RETENTION.as_millis() as u64,
                });
                Ok((Work::Decide(action, uids), items))
            }
            ActionBatch::Install { action, .. } => {
                Ok((Work::Other, vec![Item::CommitShadow { action }]))
            }
            ActionBatch::Undo { action, .. } => {
                self.unwanted.borrow_mut().insert(action);
                Ok((Work::Undo(action), vec![Item::DeleteShadow { action }]))
            }
            ActionBatch::Settle { action, .. } => Ok((Work::Other, vec![Item::Settle { action }])),
            ActionBatch::Depart { action, uid, to } => self.items_to_depart(action, uid, to),
        }
    }

    fn items_to_prepare(
        &self,
        action: Uid,
        coordinator: Coordinator,
        objects: Vec<Written>,
    ) -> Result<(Work, Vec<Item>), SystemError> {
        // What another action had prepared of these objects may still be there, if the
        // store could not remove it: no two may ever be found there after a crash.
        let unwanted = self.unwanted.borrow().clone();
        let mut items = Vec::with_capacity(unwanted.len() + objects.len() + 1);
        items.extend(
            unwanted
                .iter()
                .map(|aborted| Item::DeleteShadow { action: *aborted }),
        );
        for Written { uid, create, .. } in objects {
            let (record, changes) = self.written(uid)?;
            items.push(match create {
                true => Item::CreateShadow {
                    action,
                    uid,
                    record,
                },
                false => Item::WriteShadow {
                    action,
                    uid,
                    record,
                },
            });
            items.extend(shadow_rows(action, uid, changes));
        }
        items.push(Item::Prepare {
            action,
            coordinator,
        });
        Ok((Work::Prepare(action, unwanted), items))
    }

    /// The store has done with a batch about an action.
    pub(super) fn stored(
        self: &Rc<Self>,
        job: partha_core::Job,
        work: Work,
        result: Result<(), StoreError>,
    ) {
        let Err(error) = result else {
            let mut unwanted = self.unwanted.borrow_mut();
            match work {
                Work::Prepare(_, gone) => unwanted.retain(|action| !gone.contains(action)),
                Work::Undo(action) => drop(unwanted.remove(&action)),
                Work::Decide(..) | Work::Other => {}
            }
            drop(unwanted);
            return self.batch_stored(job, Ok(()));
        };
        tracing::warn!(%error, ?work, "the store refused a batch of an action");
        let unknown = error.outcome_unknown();
        match work {
            Work::Decide(action, objects) if unknown => {
                let shard = self.clone();
                self.spawn(async move {
                    let found = shard.look_up(action).await;
                    shard.activate_again(&objects);
                    let result = found.then_some(()).ok_or_else(|| fault(&error));
                    shard.batch_stored(job, result);
                });
                return;
            }
            Work::Prepare(action, _) if unknown => self.withdraw(action),
            Work::Prepare(..) | Work::Decide(..) | Work::Undo(_) | Work::Other => {}
        }
        self.batch_stored(job, Err(fault(&error)));
    }

    fn not_stored(self: &Rc<Self>, job: partha_core::Job) {
        let result = Err(partha_core::Fault::Store);
        if !self.stored_in_steps(job, result) {
            self.later(Input::Stored { job, result });
        }
    }

    /// A batch is on disk, or nothing of it: that is all, or a step of several.
    fn batch_stored(
        self: &Rc<Self>,
        job: partha_core::Job,
        result: Result<(), partha_core::Fault>,
    ) {
        if !self.stored_in_steps(job, result) {
            self.feed(Input::Stored { job, result });
        }
    }

    /// Whether a decision is on disk, once the store can tell. Until then nobody may be told
    /// anything: if it is there, the action is committed.
    async fn look_up(&self, action: Uid) -> bool {
        let store = self.registry.store.as_ref();
        let store = store.expect("a store has answered before");
        loop {
            match store.read_decision(action) {
                Ok(decision) => return decision.is_some(),
                Err(error) => {
                    tracing::warn!(%action, %error, "the fate of a decision is not known yet");
                    // A store that broke is mended by the next batch.
                    store.submit(Batch::default(), Box::new(drop));
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// What these objects wrote before may be lost: they get a new epoch. The states in memory
    /// are those that the engine is about to say.
    fn activate_again(&self, objects: &[Uid]) {
        let Some(store) = &self.registry.store else {
            return;
        };
        for uid in objects {
            if let Some(active) = self.catalog.borrow_mut().active(*uid)
                && let Ok(Some((record, epoch))) = store.activate(*uid)
            {
                active.epoch = epoch;
                tracing::info!(%uid, version = record.version, %epoch, "activated again");
            }
        }
    }

    /// A prepared part that may be on disk is not wanted there: if it cannot be removed now, it
    /// is with the next part that is prepared here.
    fn withdraw(&self, action: Uid) {
        self.unwanted.borrow_mut().insert(action);
        if let Some(store) = &self.registry.store {
            let gone = move |result: Result<(), StoreError>| {
                if let Err(error) = result {
                    tracing::warn!(%action, %error, "a prepared part may be left in the store");
                }
            };
            store.submit(Item::DeleteShadow { action }.into(), Box::new(gone));
        }
    }

    /// Looks for a decision: in the log of a replicated object, or in the store.
    pub(super) fn search_decision(
        self: &Rc<Self>,
        job: partha_core::Job,
        action: Uid,
        decider: Option<Uid>,
    ) {
        if let Some(decider) = decider {
            return self.search_group_decision(job, action, decider);
        }
        let found = match &self.registry.store {
            None => Some(false),
            Some(store) => match store.read_decision(action) {
                Ok(decision) => Some(decision.is_some()),
                Err(error) => {
                    tracing::error!(%action, %error, "a decision cannot be looked for");
                    None
                }
            },
        };
        self.later(Input::DecisionFound { job, found });
    }
}
