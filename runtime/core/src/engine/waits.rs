//! Where the engine tells about waits for locks, and is told about deadlocks.
//!
//! The engine calls the three hooks whenever a call begins to wait for a lock, a lock that is
//! waited for gets another owner, or a call waits no more. What is made of that is the business
//! of the deadlock machine, which asks the lock table by itself whom a call waits for.

use super::Engine;
use crate::action::message::{Deadlock, Edge, From};
use crate::id::Uid;
use crate::lock::locks::Owner;
use crate::outbox::Outbox;
use crate::output::{Answer, Refusal};
use crate::slab::Slot;
use crate::time::Time;

impl Engine {
    /// Hook: the call has asked for a lock and waits.
    pub(super) fn wait_began(&mut self, _slot: Slot, _out: &mut Outbox) {}

    /// Hook: the lock of this object has an owner that it did not have before (by a grant, also
    /// one that passed the queue, or by inheritance) and calls still wait for it. Once for each
    /// change, however many wait; nothing is to be told of owners that only go.
    pub(super) fn lock_moved(&mut self, _uid: Uid, _owner: Owner, _out: &mut Outbox) {}

    /// Hook: the call does not wait any more, whatever the reason. Its entry is still there.
    pub(super) fn wait_ended(&mut self, _slot: Slot, _out: &mut Outbox) {}

    /// A message about deadlocks arrived.
    pub(super) fn deadlock_heard(&mut self, _from: From, _message: Deadlock, _out: &mut Outbox) {}

    /// Does what is due about waits.
    pub(super) fn waits_due(&mut self, _out: &mut Outbox) {}

    /// When [`Engine::waits_due`] is to be called at the latest.
    pub(super) fn waits_timeout(&self) -> Option<Time> {
        None
    }

    /// Refuses a call that waits: it is the one that breaks a deadlock.
    #[expect(dead_code, reason = "for the deadlock machine")]
    pub(super) fn refuse_deadlocked(
        &mut self,
        slot: Slot,
        victim: Uid,
        cycle: Vec<Edge>,
        out: &mut Outbox,
    ) {
        let refusal = Refusal::Deadlock { victim, cycle };
        self.end(slot, Some(Answer::Refused(refusal)), out);
    }
}
