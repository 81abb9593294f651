//! Calls that nobody waits for any more, and the ends of callers: Rajdoot's treatment of orphans.
//!
//! | measure | what is noticed | by |
//! |---|---|---|
//! | M1 | the deadline of a call, or of its action, passes | [`Engine::handle_timeout`] |
//! | M2 | a newer life of a caller is heard of | [`crate::Input::Invoke`] of it |
//! | M3 | a caller's connection or its lease is lost | [`crate::Input::PeerGone`] |
//!
//! A caller that gives a call up says so ([`crate::Input::Cancel`]). Each time the call is
//! *abandoned* unless another ticket waits for it, and a servant that runs for it is stopped where
//! it waits; by that the calls it has made are given up, so the orphans of orphans end too. The
//! actions that a dead caller called in are aborted unless they are prepared, bindings are
//! dropped. What the store is writing, and what is prepared, is never touched.
//!
//! Source: Panzieri and Shrivastava, "Rajdoot: a remote procedure call mechanism supporting
//! orphan detection and killing", IEEE TSE 14(1), 1988.

use super::{Engine, Mutation};
use crate::call::{Cue, Kill, Role, Stage};
use crate::id::Peer;
use crate::input::Ticket;
use crate::outbox::Outbox;
use crate::output::{Answer, Event, Orphan, Output, Refusal};
use crate::slab::Slot;

impl Engine {
    /// Nobody waits for this ticket any more.
    pub(super) fn cancel(&mut self, ticket: Ticket, why: Orphan, out: &mut Outbox) {
        if let Some(slot) = self.calls.slot(ticket) {
            self.stop_waiting(slot, why, out);
        }
    }

    /// A ticket's deadline passed.
    pub(super) fn expire(&mut self, slot: Slot, out: &mut Outbox) {
        let call = self.calls.entry(slot);
        let (ticket, leader_slot) = match &call.role {
            Role::Leader(leader) if !leader.waits => return,
            Role::Leader(_) => (call.ticket, slot),
            Role::Follower { leader } => (call.ticket, *leader),
        };
        let leader = self.calls.leader(leader_slot);
        let others_wait = usize::from(leader.waits) + leader.followers.len() > 1;
        let started = leader.stage.started() || others_wait || self.is_orphaned(leader_slot);
        let answer = Answer::Refused(Refusal::Deadline { started });
        let part = self.part_of_call(leader_slot);
        if let Some(object) = part {
            self.cohorts.touch(object);
        }
        let joined = self.joined(leader_slot);
        self.say(
            part,
            Output::Reply {
                ticket,
                answer,
                joined,
            },
            out,
        );
        self.stop_waiting(slot, Orphan::Expired, out);
    }

    /// Takes one ticket off those that wait for a call; without any it is an orphan.
    fn stop_waiting(&mut self, slot: Slot, why: Orphan, out: &mut Outbox) {
        let leader_slot = match &self.calls.entry(slot).role {
            Role::Leader(_) => slot,
            Role::Follower { leader } => *leader,
        };
        if leader_slot == slot {
            self.calls.leader_mut(slot).waits = false;
        } else {
            self.calls
                .leader_mut(leader_slot)
                .followers
                .retain(|follower| *follower != slot);
            self.forget(slot, out);
        }
        let leader = self.calls.leader(leader_slot);
        if !leader.waits && leader.followers.is_empty() {
            self.step(leader_slot, Cue::Abandoned(why), out);
        }
    }

    /// A caller is dead: nobody waits for its calls, it is bound to nothing, and what it called
    /// in ends unless another shard decides.
    pub(super) fn caller_gone(&mut self, caller: Peer, out: &mut Outbox) {
        for ticket in self.calls.of_caller(caller) {
            self.cancel(ticket, Orphan::CallerGone, out);
        }
        while let Some((uid, change)) = self.uses.forget_next(caller) {
            self.rebound(uid, change);
        }
        self.give_up_called_by(caller, out);
    }

    /// Tells the shell to stop a servant, once.
    pub(super) fn kill(&mut self, slot: Slot, why: Orphan, out: &mut Outbox) {
        let spared = match why {
            Orphan::Expired => self.mutation == Mutation::SpareExpired,
            Orphan::Aborted => self.mutation == Mutation::SpareAborted,
            Orphan::CallerGone | Orphan::Cancelled => false,
        };
        let leader = self.calls.leader_mut(slot);
        if spared || leader.stage != Stage::Running || leader.kill != Kill::No {
            return;
        }
        leader.kill = Kill::Asked;
        let uid = leader.uid;
        let ticket = self.calls.entry(slot).ticket;
        out.push(Output::Event(Event::OrphanKilled { uid, why }));
        out.push(Output::Kill { ticket });
    }
}
