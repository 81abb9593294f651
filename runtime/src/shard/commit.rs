//! The shard's dealings with the store: a call's batch or an action's, its fate, saved replies.

use std::collections::BTreeSet;
use std::rc::Rc;

use partha_core::id::{CallId, Peer, Uid};
use partha_core::{Input, Ticket};
use partha_store::{Batch, Item};

use super::arrive::Outcome;
use super::job::{Job, fault};
use super::{Shard, saved};
use crate::config::REPLY_RETENTION;
use crate::error::{Completed, ErrorKind, SystemError};
use crate::rows;

impl Shard {
    pub(super) fn search(&self, ticket: Ticket, call: CallId) {
        let found = match &self.registry.store {
            None => false,
            Some(store) => {
                let again = self
                    .entries
                    .borrow()
                    .find(ticket)
                    .is_some_and(|entry| entry.again);
                let busy = || self.callers_under_way();
                let mut newest = self.newest.borrow_mut();
                let found = newest.is_saved(call, again, &**store, busy);
                // Executing again would be a guess: the caller learns why it has no answer.
                found.unwrap_or_else(|error| {
                    tracing::error!(%call, %error, "a saved reply cannot be read");
                    true
                })
            }
        };
        self.later(Input::Searched { ticket, found });
    }

    /// Whose named calls have come and are not over: their replies may yet be saved.
    fn callers_under_way(&self) -> BTreeSet<Peer> {
        let entries = self.entries.borrow();
        let names = entries.values().filter_map(|entry| entry.call);
        names.map(|call| call.caller).collect()
    }

    pub(super) fn flush(
        self: &Rc<Self>,
        ticket: Ticket,
        uid: Uid,
        state: bool,
        reply: bool,
        create: bool,
    ) {
        let batch = match self.batch(ticket, uid, state, reply, create) {
            Ok(batch) => batch,
            Err(error) => {
                self.refuse_flush(ticket, error);
                return;
            }
        };
        if !create && self.is_group(uid) {
            return self.add_entry(uid, ticket, batch);
        }
        let Some(store) = &self.registry.store else {
            let error = SystemError::new(ErrorKind::Internal, "a flush without a store");
            self.refuse_flush(ticket, error);
            return;
        };
        let handle = self.handle.clone();
        let done = move |result| handle.post(Job::Flushed { ticket, result });
        store.submit(batch, Box::new(done));
    }

    fn refuse_flush(&self, ticket: Ticket, error: SystemError) {
        if let Some(entry) = self.entries.borrow_mut().find_mut(ticket) {
            entry.outcome = Outcome::Failed(error.handed_on(true));
        }
        let result = Err(partha_core::Fault::Store);
        self.later(Input::Flushed { ticket, result });
    }

    fn batch(
        &self,
        ticket: Ticket,
        uid: Uid,
        state: bool,
        reply: bool,
        create: bool,
    ) -> Result<Batch, SystemError> {
        let mut entries = self.entries.borrow_mut();
        let entry = entries
            .find_mut(ticket)
            .expect("a call that flushes is kept");
        let mut items = Vec::with_capacity(2);
        if state {
            let record = *entry.record.take().expect("a writer's state was encoded");
            items.push(if create {
                Item::Create { uid, record }
            } else {
                Item::WriteState { uid, record }
            });
            items.extend(rows::items(uid, std::mem::take(&mut entry.rows)));
        }
        if let (true, Some(call), Outcome::Frame(w)) = (reply, entry.call, &entry.outcome) {
            if !w.attached().is_empty() {
                let detail = "a method that changes a persistent object cannot return a \
                              capability: its saved reply would outlive it";
                return Err(SystemError::new(ErrorKind::BadOperation, detail));
            }
            let body = saved::encode(entry.method, &w.to_framed()?);
            let keep_ms = REPLY_RETENTION.as_millis() as u64;
            items.push(Item::SaveReply {
                call,
                uid,
                body,
                keep_ms,
            });
        }
        Ok(Batch::new(items))
    }

    /// The store has done with a batch.
    pub(super) fn flushed(
        self: &Rc<Self>,
        ticket: Ticket,
        result: Result<(), partha_store::StoreError>,
    ) {
        let result = result.map_err(|error| {
            tracing::warn!(%error, "the store refused a batch");
            let completed = if error.outcome_unknown() {
                Completed::Maybe
            } else {
                Completed::No
            };
            let detail = format!("{}: {error}", self.registry.here());
            let kind = match &error {
                partha_store::StoreError::Fenced { .. } => ErrorKind::Fenced,
                partha_store::StoreError::Overloaded { .. } => ErrorKind::Overloaded,
                _ => ErrorKind::Store,
            };
            // Only what a servant has ended well is written.
            let text = SystemError::new(kind, detail).completed(completed);
            let text = text.handed_on(true);
            if let Some(entry) = self.entries.borrow_mut().find_mut(ticket) {
                entry.outcome = Outcome::Failed(text);
            }
            fault(&error)
        });
        self.feed(Input::Flushed { ticket, result });
    }
}
