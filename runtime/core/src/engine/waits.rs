//! Where the engine tells about waits for locks, and is told about deadlocks.
//!
//! The engine calls the three hooks whenever a call begins to wait for a lock, waits for others
//! than before, or waits no more. What is made of that is the business of the deadlock machine.

use super::Engine;
use crate::action::message::{Deadlock, Edge, From};
use crate::id::Uid;
use crate::outbox::Outbox;
use crate::output::{Answer, Refusal};
use crate::slab::Slot;
use crate::time::Time;

impl Engine {
    /// Hook: the call has asked for a lock and waits.
    pub(super) fn wait_began(&mut self, _slot: Slot, _out: &mut Outbox) {}

    /// Hook: the call still waits, but perhaps for others than before.
    pub(super) fn wait_changed(&mut self, _slot: Slot, _out: &mut Outbox) {}

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
