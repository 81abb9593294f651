//! The log of a group: what calls change is added, written, completed and installed.

use std::rc::Rc;

use bytes::Bytes;
use partha_core::group::{Input, NotAdded, Stamp, Write};
use partha_core::id::{CallId, Uid};
use partha_core::{Fault, Input as EngineInput, ObjectSlot, Ticket};
use partha_store::{Batch, Item, StoreError, entry};

use super::{GroupJob, Waiting};
use crate::error::{Completed, ErrorKind, SystemError};
use crate::shard::arrive::Outcome;
use crate::shard::{Job, Shard};

/// Bytes of entries of one group that may be on their way; one alone may be as large.
const STAGED_BYTES_MAX: usize = 2 << 20;

impl Shard {
    /// A call has changed a replicated object: its batch is an entry of the log.
    pub(in crate::shard) fn add_entry(self: &Rc<Self>, uid: Uid, ticket: Ticket, batch: &Batch) {
        let body = entry::encode(batch);
        let staged: usize = {
            let groups = self.groups.borrow();
            let group = groups.by_object.get(&uid);
            group.map_or(0, |group| {
                let all = group.bodies.values().chain(group.adding.values());
                all.map(Bytes::len).sum()
            })
        };
        let (alone, crowded) = (body.len(), staged + body.len());
        if alone > STAGED_BYTES_MAX || (staged > 0 && crowded > STAGED_BYTES_MAX) {
            let (what, kind) = if alone > STAGED_BYTES_MAX {
                ("what the call has changed", ErrorKind::TooLarge)
            } else {
                (
                    "what calls have changed and copies have not",
                    ErrorKind::Overloaded,
                )
            };
            let detail = format!(
                "{uid} at {}: {what} has more than {STAGED_BYTES_MAX} bytes",
                self.registry.here()
            );
            return self.not_flushed(ticket, SystemError::new(kind, detail), Fault::Store);
        }
        if let Some(group) = self.groups.borrow_mut().by_object.get_mut(&uid) {
            group.adding.insert(ticket.0, body);
        }
        self.group_input(uid, Input::Add { entry: ticket.0 });
    }

    pub(super) fn entry_added(&self, uid: Uid, entry: u64, stamp: Stamp) {
        let mut groups = self.groups.borrow_mut();
        let Some(group) = groups.by_object.get_mut(&uid) else {
            return;
        };
        let Some(body) = group.adding.remove(&entry) else {
            return;
        };
        group.bodies.insert(stamp, body);
        group.calls.insert(stamp, Ticket(entry));
    }

    pub(super) fn entry_not_added(self: &Rc<Self>, uid: Uid, entry: u64, why: NotAdded) {
        if let Some(group) = self.groups.borrow_mut().by_object.get_mut(&uid) {
            group.adding.remove(&entry);
        }
        let (error, fault) = match why {
            NotAdded::NotLeading => (self.leads_no_more(uid), Fault::Fenced),
            NotAdded::Overloaded => {
                let here = self.registry.here();
                let detail = format!("{uid} at {here}: too many changes are not at all copies");
                let error = SystemError::new(ErrorKind::Overloaded, detail);
                (error, Fault::Store)
            }
        };
        self.not_flushed(Ticket(entry), error, fault);
    }

    /// The change of a call is not kept, or perhaps not.
    fn not_flushed(self: &Rc<Self>, ticket: Ticket, error: SystemError, fault: Fault) {
        if let Some(entry) = self.entries.borrow_mut().find_mut(ticket) {
            // What says that it was not kept is as sure as what an entry is made of.
            entry.replicated = true;
            entry.outcome = Outcome::Failed(error.handed_on(true));
        }
        let result = Err(fault);
        self.feed(EngineInput::Flushed { ticket, result });
    }

    /// The entry will never be lost. Its call is over when the store shows what it did: rows are
    /// read from there.
    pub(super) fn entry_complete(&self, uid: Uid, stamp: Stamp) {
        let mut groups = self.groups.borrow_mut();
        let Some(group) = groups.by_object.get_mut(&uid) else {
            return;
        };
        if let Some(ticket) = group.calls.remove(&stamp) {
            group.complete.push_back((stamp.index, ticket));
        }
    }

    /// Calls whose entries are a part of the state are over.
    fn end_complete(self: &Rc<Self>, uid: Uid) {
        loop {
            let ticket = {
                let mut groups = self.groups.borrow_mut();
                let Some(group) = groups.by_object.get_mut(&uid) else {
                    return;
                };
                let visible = group.visible;
                match group.complete.front() {
                    Some((index, _)) if *index <= visible => group.complete.pop_front(),
                    _ => None,
                }
            };
            let Some((_, ticket)) = ticket else { return };
            if let Some(entry) = self.entries.borrow_mut().find_mut(ticket) {
                entry.replicated = true;
            }
            let result = Ok(());
            self.feed(EngineInput::Flushed { ticket, result });
        }
    }

    /// Calls whose entries are not complete may be lost, or not.
    pub(super) fn fail_calls(self: &Rc<Self>, uid: Uid, why: &str) {
        let calls = {
            let mut groups = self.groups.borrow_mut();
            let Some(group) = groups.by_object.get_mut(&uid) else {
                return;
            };
            let complete = group.complete.drain(..).map(|(_, ticket)| ticket);
            let complete: Vec<Ticket> = complete.collect();
            let calls = std::mem::take(&mut group.calls).into_values();
            let adding = std::mem::take(&mut group.adding).into_keys().map(Ticket);
            complete
                .into_iter()
                .chain(calls)
                .chain(adding)
                .collect::<Vec<_>>()
        };
        for ticket in calls {
            let detail = format!("{uid} at {}: {why}", self.registry.here());
            let error = SystemError::new(ErrorKind::Fenced, detail).completed(Completed::Maybe);
            self.not_flushed(ticket, error, Fault::Fenced);
        }
    }

    pub(super) fn write_log(self: &Rc<Self>, uid: Uid, job: u64, write: Write) {
        let Some(store) = self.registry.store.clone() else {
            return;
        };
        // It brings replies that are not kept for as long as new ones.
        let is_snapshot = matches!(&write, Write::Snapshot { .. });
        let home = self.client.home_if_any().filter(|_| is_snapshot);
        let (life, batches) = {
            let mut groups = self.groups.borrow_mut();
            let Some(group) = groups.by_object.get_mut(&uid) else {
                return;
            };
            let life = group.life;
            let installs = match &write {
                Write::Install { index } => Some(*index),
                Write::Snapshot { at, .. } => Some(at.index),
                Write::Log { .. } => None,
            };
            group.writes.push_back((job, installs));
            let batches = match write {
                Write::Log { view, difference } => {
                    if let Some(kept) = difference.truncate {
                        group.bodies.retain(|stamp, _| {
                            stamp.index <= kept || difference.add.contains(stamp)
                        });
                    }
                    let body = |stamp: &Stamp| (*stamp, group.bodies[stamp].clone());
                    let add = difference.add.iter().map(body).collect();
                    let truncate = difference.truncate;
                    vec![Batch::from(Item::GroupLog {
                        uid,
                        view,
                        truncate,
                        add,
                    })]
                }
                Write::Install { index } => {
                    vec![Batch::from(Item::GroupInstall { uid, index })]
                }
                Write::Snapshot { view, at } => {
                    let pages = std::mem::take(&mut group.arrived);
                    super::state::batches(uid, &view, at, pages)
                }
            };
            (life, batches)
        };
        let last = batches.len().saturating_sub(1);
        for (index, batch) in batches.into_iter().enumerate() {
            let (handle, home) = (self.handle.clone(), home.clone());
            // The store does them in order, so the last one's answer is the answer; but a page
            // that was refused is told at once.
            let done = move |result: Result<(), StoreError>| {
                if let Some(home) = home {
                    home.unknown_replies_came();
                }
                if index == last || result.is_err() {
                    handle.post(Job::Group(GroupJob::Written {
                        uid,
                        life,
                        job,
                        result,
                    }));
                }
            };
            store.submit(batch, Box::new(done));
        }
    }

    /// The store has done a write, or could not.
    pub(in crate::shard) fn group_written(
        self: &Rc<Self>,
        uid: Uid,
        (life, job): (u64, u64),
        result: Result<(), StoreError>,
    ) {
        {
            let groups = self.groups.borrow();
            let group = groups.by_object.get(&uid);
            if group.is_none_or(|group| group.life != life) {
                return;
            }
        }
        match result {
            Ok(()) => {}
            Err(error @ (StoreError::BrokenCopy { .. } | StoreError::Corrupt { .. })) => {
                tracing::error!(%uid, %error, "a copy is broken: it is made anew");
                self.deposed(uid);
                return self.renew_copy(uid);
            }
            Err(error) => {
                tracing::error!(%uid, %error, "a copy cannot be written: it begins again");
                return self.reopen(uid);
            }
        }
        let waiting = {
            let mut groups = self.groups.borrow_mut();
            let Some(group) = groups.by_object.get_mut(&uid) else {
                return;
            };
            if group.writes.front().is_none_or(|(first, _)| *first != job) {
                return;
            }
            if let Some((_, Some(installed))) = group.writes.pop_front() {
                group.visible = group.visible.max(installed);
                group.bodies.retain(|stamp, _| stamp.index > installed);
            }
            if group.is_current() {
                std::mem::take(&mut group.waiting)
            } else {
                Vec::new()
            }
        };
        self.end_complete(uid);
        self.group_input(uid, Input::Written { job });
        self.send_states(uid);
        self.look_now(waiting);
        self.go_on();
    }

    /// Looks into the store for what has waited to.
    pub(super) fn look_now(&self, waiting: Vec<Waiting>) {
        for waiting in waiting {
            match waiting {
                Waiting::Load { uid, slot } => self.load(uid, slot),
                Waiting::Search { ticket, call } => self.search(ticket, call),
            }
        }
    }

    /// Loads an object when the store shows all of it that is complete.
    pub(in crate::shard) fn load_shown(&self, uid: Uid, slot: ObjectSlot) {
        let waiting = Waiting::Load { uid, slot };
        if !self.has_groups.get() || !self.waits_for_copies(uid, waiting) {
            self.load(uid, slot);
        }
    }

    /// Looks for a saved reply when the store shows all that is complete.
    pub(in crate::shard) fn search_shown(&self, ticket: Ticket, call: CallId) {
        if !self.has_groups.get() {
            return self.search(ticket, call);
        }
        let uid = {
            let entries = self.entries.borrow();
            entries.find(ticket).map(|entry| entry.object)
        };
        let waits = uid.is_some_and(|uid| {
            let waiting = Waiting::Search { ticket, call };
            self.waits_for_copies(uid, waiting)
        });
        if !waits {
            self.search(ticket, call);
        }
    }

    fn waits_for_copies(&self, uid: Uid, waiting: Waiting) -> bool {
        let mut groups = self.groups.borrow_mut();
        let group = groups.by_object.get_mut(&uid);
        let Some(group) = group.filter(|group| !group.is_current()) else {
            return false;
        };
        group.waiting.push(waiting);
        true
    }
}
