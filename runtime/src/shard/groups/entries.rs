//! The log of a group: what calls change is added, written, completed and installed.

use std::rc::Rc;

use bytes::Bytes;
use partha_core::group::{Input, NotAdded, Output, Stamp, Write};
use partha_core::id::{CallId, Uid};
use partha_core::{Fault, Input as EngineInput, ObjectSlot, Ticket};
use partha_store::{Batch, Item, StoreError, entry};

use super::parts::{PlanKey, Step};
use super::{GroupJob, Waiting};
use crate::error::{Completed, ErrorKind, SystemError};
use crate::shard::arrive::Outcome;
use crate::shard::{Job, Shard};

/// Bytes of entries of one group that may be on their way; one alone may be as large.
const STAGED_BYTES_MAX: usize = 2 << 20;
/// Decisions that one entry says are settled.
const SETTLED_MAX: usize = 1_024;

/// Why an entry was not added.
#[derive(Clone, Copy, Debug)]
pub(super) enum NotKept {
    Refused(NotAdded),
    /// What is on its way and this have too many bytes.
    Crowded,
    /// It has too many bytes itself.
    TooLarge,
}

/// Whose entry it is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Of {
    Call(Ticket),
    /// A step of what is done for an action.
    Step(PlanKey, Step),
    /// A checkpoint.
    Checkpoint(partha_core::Job),
    /// Nobody waits for it.
    Nobody,
}

/// Entries that are no call's have names of their own.
const NAMES_OF_OTHERS: u64 = 1 << 63;

impl Shard {
    /// A call has changed a replicated object: its batch is an entry of the log.
    pub(in crate::shard) fn add_entry(self: &Rc<Self>, uid: Uid, ticket: Ticket, batch: Batch) {
        if let Err(refused) = self.add(uid, Of::Call(ticket), batch) {
            let (error, fault) = self.not_added(uid, refused);
            self.not_flushed(ticket, error, fault);
        }
    }

    /// Adds an entry: it is in the log, and `entry_complete` or the end of this copy's lead is to
    /// come; or it is not, and nothing of it stays.
    pub(super) fn add(self: &Rc<Self>, uid: Uid, of: Of, mut batch: Batch) -> Result<(), NotKept> {
        let is_end = matches!(of, Of::Step(_, Step::End));
        // What is owed comes in its turn.
        let in_turn = is_end || matches!(of, Of::Checkpoint(_));
        let settled = {
            let mut groups = self.groups.borrow_mut();
            let group = groups.by_object.get_mut(&uid);
            let group = group.ok_or(NotKept::Refused(NotAdded::NotLeading))?;
            if !in_turn && !group.owed.is_empty() {
                return Err(NotKept::Refused(NotAdded::Overloaded));
            }
            let few = group.settled.len().min(SETTLED_MAX);
            let settled: Vec<Uid> = group.settled.drain(..few).collect();
            let settle = |action: &Uid| Item::SettleGroup {
                uid,
                action: *action,
            };
            batch.items.extend(settled.iter().map(settle));
            settled
        };
        let added = self.add_encoded(uid, of, entry::encode(&batch), is_end);
        if added.is_err()
            && let Some(group) = self.groups.borrow_mut().by_object.get_mut(&uid)
        {
            group.settled.extend(settled);
        }
        added
    }

    fn add_encoded(
        self: &Rc<Self>,
        uid: Uid,
        of: Of,
        body: Bytes,
        is_end: bool,
    ) -> Result<(), NotKept> {
        let now = self.now();
        let mut out = Vec::new();
        let refused = {
            let mut groups = self.groups.borrow_mut();
            let groups = &mut *groups;
            let group = groups.by_object.get_mut(&uid);
            let group = group.ok_or(NotKept::Refused(NotAdded::NotLeading))?;
            let all = group.bodies.values().map(Bytes::len);
            let staged: usize = all.sum();
            let (alone, crowded) = (body.len(), staged + body.len());
            if alone > STAGED_BYTES_MAX {
                return Err(NotKept::TooLarge);
            }
            // An end is short, and makes room.
            if !is_end && staged > 0 && crowded > STAGED_BYTES_MAX {
                return Err(NotKept::Crowded);
            }
            let name = match of {
                Of::Call(ticket) => ticket.0,
                Of::Step(..) | Of::Checkpoint(_) | Of::Nobody => {
                    groups.named += 1;
                    NAMES_OF_OTHERS | groups.named
                }
            };
            group.adding.insert(name, (of, body));
            let add = Input::Add { entry: name };
            group.member.handle(now, add, &mut out);
            let mut refused = None;
            out.retain(|output| match output {
                Output::NotAdded { entry, why } if *entry == name => {
                    refused = Some(*why);
                    false
                }
                _ => true,
            });
            if refused.is_some() {
                group.adding.remove(&name);
            }
            groups.outputs.extend(out.drain(..).map(|it| (uid, it)));
            groups.rearm(uid);
            refused
        };
        self.perform();
        refused.map_or(Ok(()), |why| Err(NotKept::Refused(why)))
    }

    pub(super) fn entry_added(&self, uid: Uid, entry: u64, stamp: Stamp) {
        let of = {
            let mut groups = self.groups.borrow_mut();
            let Some(group) = groups.by_object.get_mut(&uid) else {
                return;
            };
            let Some((of, body)) = group.adding.remove(&entry) else {
                return;
            };
            group.bodies.insert(stamp, body);
            group.entries.insert(stamp, of);
            of
        };
        self.note_execution(uid, stamp, of);
        if let Of::Step(_, step) = of {
            step.crash_when_added();
        }
    }

    /// Why an entry was not added, for whoever called.
    pub(super) fn not_added(&self, uid: Uid, why: NotKept) -> (SystemError, Fault) {
        let here = self.registry.here();
        let error = |kind, what: &str| {
            let detail = format!("{uid} at {here}: {what}");
            (SystemError::new(kind, detail), Fault::Store)
        };
        match why {
            NotKept::Refused(NotAdded::NotLeading) => (self.leads_no_more(uid), Fault::Fenced),
            NotKept::Refused(NotAdded::Overloaded) => error(
                ErrorKind::Overloaded,
                "too many changes are not at all copies",
            ),
            NotKept::Crowded => error(
                ErrorKind::Overloaded,
                &format!(
                    "what calls have changed and copies have not has more than \
                     {STAGED_BYTES_MAX} bytes"
                ),
            ),
            NotKept::TooLarge => error(
                ErrorKind::TooLarge,
                &format!("what the call has changed has more than {STAGED_BYTES_MAX} bytes"),
            ),
        }
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
    pub(super) fn entry_complete(self: &Rc<Self>, uid: Uid, stamp: Stamp) {
        let of = {
            let mut groups = self.groups.borrow_mut();
            let Some(group) = groups.by_object.get_mut(&uid) else {
                return;
            };
            let of = group.entries.remove(&stamp);
            match of {
                Some(Of::Call(_) | Of::Checkpoint(_) | Of::Step(_, Step::Decide | Step::End)) => {
                    group.complete.extend(of.map(|of| (stamp.index, of)));
                }
                Some(Of::Step(_, Step::Part) | Of::Nobody) | None => {}
            }
            of
        };
        if let Some(Of::Step(key, step)) = of {
            step.crash_when_complete();
            self.step_complete(key, step);
        }
    }

    /// What entries that are a part of the state were added for is over.
    fn end_complete(self: &Rc<Self>, uid: Uid) {
        loop {
            let of = {
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
            match of {
                None => return,
                Some((_, Of::Call(ticket))) => {
                    if let Some(entry) = self.entries.borrow_mut().find_mut(ticket) {
                        entry.replicated = true;
                    }
                    let result = Ok(());
                    self.feed(EngineInput::Flushed { ticket, result });
                }
                Some((_, Of::Step(key, _))) => self.step_shown(key),
                Some((_, Of::Checkpoint(job))) => {
                    let result = Ok(());
                    self.feed(EngineInput::Checkpointed { job, result });
                }
                Some((_, Of::Nobody)) => {}
            }
        }
    }

    /// Calls whose entries are not complete may be lost, or not.
    pub(super) fn fail_calls(self: &Rc<Self>, uid: Uid, why: &str) {
        let calls = {
            let mut groups = self.groups.borrow_mut();
            let Some(group) = groups.by_object.get_mut(&uid) else {
                return;
            };
            let mut calls = Vec::new();
            let call = |of: &Of| match of {
                Of::Call(ticket) => Some(*ticket),
                Of::Step(..) | Of::Checkpoint(_) | Of::Nobody => None,
            };
            calls.extend(group.complete.iter().filter_map(|(_, of)| call(of)));
            calls.extend(group.entries.values().filter_map(call));
            calls.extend(group.adding.values().filter_map(|(of, _)| call(of)));
            group.complete.retain(|(_, of)| call(of).is_none());
            group.entries.retain(|_, of| call(of).is_none());
            group.adding.retain(|_, (of, _)| call(of).is_none());
            calls
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
            if let Some(index) = installs {
                group.installs(index);
            }
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
                tracing::error!(%uid, %error, "a copy is broken");
                self.deposed(uid);
                return self.renew_copy(uid);
            }
            Err(error) if error.is_passing() => {
                tracing::warn!(%uid, %error, "a copy cannot be written yet: it begins again");
                return self.reopen(uid);
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
                group.forget_executions(installed);
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
        self.pay_owed(uid);
        self.go_on();
    }

    /// Looks into the store for what has waited to.
    pub(super) fn look_now(self: &Rc<Self>, waiting: Vec<Waiting>) {
        for waiting in waiting {
            match waiting {
                Waiting::Load { uid, slot } => self.load(uid, slot),
                Waiting::Search { ticket, call } => self.search(ticket, call),
                Waiting::Decision {
                    job,
                    action,
                    decider,
                } => self.search_group_decision(job, action, decider),
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

    pub(super) fn waits_for_copies(&self, uid: Uid, waiting: Waiting) -> bool {
        let mut groups = self.groups.borrow_mut();
        let group = groups.by_object.get_mut(&uid);
        let Some(group) = group.filter(|group| !group.is_current()) else {
            return false;
        };
        group.waiting.push(waiting);
        true
    }
}
