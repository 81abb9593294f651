//! What a shard does as a participant: carries out [`crate::action::participant`].

use super::pins::Prepare;
use super::work::Work;
use super::{Engine, Mutation};
use crate::action::message::{From, Message, To, Verdict, Vote};
use crate::action::mirror::{Mirror, Phase};
use crate::action::participant::{self, Cue, Next, State};
use crate::action::path::{Coordinator, Site};
use crate::action::tombstone::Fate;
use crate::id::{Incarnation, NodeId, Uid};
use crate::input::Job;
use crate::migrate::CheckpointEnd;
use crate::outbox::Outbox;
use crate::output::{ActionBatch, Event, GaveUp, Output, Written};
use crate::slab::Slot;
use crate::time::Time;

impl Engine {
    /// A message about actions arrived.
    pub(super) fn message(&mut self, from: From, message: Message, out: &mut Outbox) {
        let site = Site {
            node: from.peer.node,
            shard: from.shard,
        };
        match message {
            Message::Prepare {
                action,
                incarnation,
                join,
                aborted,
                decider,
                part,
            } => {
                let ignored = self.mutation == Mutation::IgnoreDecider;
                let decider = decider.filter(|_| !ignored);
                let coordinator = Coordinator { site, decider };
                if let Some(object) = part {
                    let work = (object, join);
                    return self.part_prepare_heard(coordinator, action, work, &aborted, out);
                }
                self.prepare_heard(coordinator, action, (incarnation, join), &aborted, out);
            }
            Message::Vote {
                action,
                vote,
                moved,
                groups,
                decider,
                part,
            } => {
                let voter = (Coordinator { site, decider }, part);
                self.vote_heard(voter, action, (vote, &moved, groups), out);
            }
            Message::Commit { action, part } => self.commit_heard(site, action, part, out),
            Message::Acknowledge {
                action,
                site: whole,
                groups,
                decider: _,
            } => self.acknowledged(action, whole.then_some(site), &groups, out),
            Message::Abort { action, part } => self.abort_heard(site, action, part, out),
            Message::Merge {
                action,
                parent,
                part,
            } => self.merge_heard((action, part), parent, out),
            Message::Query {
                action,
                decider,
                part,
            } => self.query_heard((site, part), action, decider, out),
            Message::Verdict {
                action,
                verdict,
                part,
            } => self.verdict_heard(site, action, verdict, part, out),
            Message::Deadlock(message) => self.deadlock_heard(from, message),
        }
    }

    fn state(&self, action: Uid) -> State {
        let found = self.mirrors.find(action);
        found.map_or(State::Gone, |slot| self.state_of(slot))
    }

    fn state_of(&self, slot: Slot) -> State {
        match self.mirrors.mirror(slot).phase {
            Phase::Active => State::Active,
            Phase::Aborting => State::Aborting,
            Phase::Preparing { doomed, .. } => State::Preparing { doomed },
            Phase::Prepared { .. } => State::Prepared,
            Phase::Installing { .. } => State::Installing,
            Phase::Voting(_) | Phase::Deciding { .. } => State::Deciding,
        }
    }

    /// Who decides, as far as it is known here.
    pub(super) fn coordinator(&self, action: Uid) -> Option<Coordinator> {
        self.coordinator_of(self.mirrors.mirror(self.mirrors.find(action)?))
    }

    pub(super) fn coordinator_of(&self, mirror: &Mirror) -> Option<Coordinator> {
        match mirror.phase {
            Phase::Preparing { coordinator, .. }
            | Phase::Prepared { coordinator, .. }
            | Phase::Installing { coordinator, .. } => Some(coordinator),
            Phase::Voting(_) | Phase::Deciding { .. } => Some(self.identity.site().into()),
            Phase::Active | Phase::Aborting => None,
        }
    }

    /// An answer of the store is about the mirror that waits for it, if that is still here.
    pub(super) fn take_part(&mut self, action: Uid, done: Job, cue: Cue, out: &mut Outbox) {
        let slot = self.mirrors.find(action);
        let waits = slot.is_some_and(|slot| match self.mirrors.mirror(slot).phase {
            Phase::Preparing { job, .. } | Phase::Installing { job, .. } => job == done,
            Phase::Active
            | Phase::Aborting
            | Phase::Prepared { .. }
            | Phase::Voting(_)
            | Phase::Deciding { .. } => false,
        });
        if waits {
            let coordinator = self.coordinator(action);
            let to = coordinator.expect("what is being written has a coordinator");
            self.participate(to, action, cue, &[], out);
        }
    }

    /// Something happened to this shard's part of an action; `to` is whoever is answered.
    fn participate(
        &mut self,
        to: Coordinator,
        action: Uid,
        cue: Cue,
        aborted: &[Uid],
        out: &mut Outbox,
    ) {
        let state = self.state(action);
        let next = participant::next(state, cue);
        let found = self.mirrors.find(action);
        let here = || found.expect("only what is here can change");
        match next {
            Next::Nothing => {}
            Next::Write => self.prepare(here(), to, aborted, out),
            Next::VoteYes => {
                self.set_prepared(here(), out);
                self.send_vote(to, action, Vote::Yes, out);
            }
            Next::VoteNo => self.send_vote(to, action, Vote::No, out),
            Next::AbortVoteNo => {
                self.undo_groups(here(), out);
                self.abort_mirror(here(), out);
                self.send_vote(to, action, Vote::No, out);
            }
            Next::Abort => {
                self.undo_groups(here(), out);
                self.abort_mirror(here(), out);
            }
            Next::Undo => {
                let groups = self.mirrors.mirror(here()).groups.clone();
                self.undo_batch(action, groups, out);
                self.abort_mirror(here(), out);
            }
            Next::Doom => {
                if let Phase::Preparing { doomed, .. } = &mut self.mirrors.mirror_mut(here()).phase
                {
                    *doomed = true;
                }
            }
            Next::Note => self.note_fate(action, Fate::Told),
            Next::Install => self.install(here(), out),
            Next::AbortAcknowledge => {
                self.abort_mirror(here(), out);
                self.note_fate(action, Fate::Committed);
                Self::acknowledge(to, action, Vec::new(), out);
            }
            Next::Acknowledge => Self::acknowledge(to, action, Vec::new(), out),
            Next::Finish => {
                let pinned = self.arrived(action, out);
                let groups = self.led_groups(here());
                self.release_committed(here(), out);
                Self::acknowledge(to, action, groups, out);
                self.unpin(&pinned, out);
            }
            Next::Retry => self.set_prepared(here(), out),
            Next::Coordinator => self.abort_while_deciding(here(), out),
            Next::Mistake => panic!("{cue:?} cannot happen to {action}, which is {state:?}"),
        }
    }

    /// The replicated objects that a mirror has a part of, and has not lost to another leader.
    pub(super) fn led_groups(&self, slot: Slot) -> Vec<Uid> {
        let mirror = self.mirrors.mirror(slot);
        let locks = &self.mirrors.level(mirror.root).locks;
        let led = mirror.groups.iter().filter(|uid| locks.contains_key(uid));
        led.copied().collect()
    }

    /// Where the decision on an action is.
    pub(super) fn keeper(coordinator: Coordinator) -> To {
        match coordinator.decider {
            Some(object) => To::Leader { object },
            None => To::Site(coordinator.site),
        }
    }

    /// Tells whoever has the decision that nothing is left here.
    fn acknowledge(to: Coordinator, action: Uid, groups: Vec<Uid>, out: &mut Outbox) {
        let message = Message::Acknowledge {
            action,
            site: true,
            groups,
            decider: to.decider,
        };
        Self::send_to(Self::keeper(to), message, out);
    }

    /// Answers a coordinator.
    fn send_vote(&self, to: Coordinator, action: Uid, vote: Vote, out: &mut Outbox) {
        let moved = match self.mirrors.find(action) {
            _ if self.mutation == Mutation::HideMoved => Vec::new(),
            Some(slot) => self.mirrors.mirror(slot).moved.clone(),
            None => self.tombstones.moved(action).to_vec(),
        };
        let groups = match (vote, self.mirrors.find(action)) {
            (Vote::Yes, Some(slot)) => self.mirrors.mirror(slot).groups.clone(),
            (Vote::Yes | Vote::ReadOnly | Vote::No, _) => Vec::new(),
        };
        let vote = Message::Vote {
            action,
            vote,
            moved,
            groups,
            decider: to.decider,
            part: None,
        };
        Self::send(to.site, vote, out);
    }

    pub(super) fn prepare_heard(
        &mut self,
        from: Coordinator,
        action: Uid,
        (incarnation, join): (Incarnation, u64),
        aborted: &[Uid],
        out: &mut Outbox,
    ) {
        let state = self.state(action);
        let known = match self.tombstones.find(action) {
            Some(Fate::ReadOnly { join }) => Some(join),
            Some(Fate::Aborted | Fate::Told | Fate::Committed) | None => None,
        };
        if state == State::Gone && known == Some(join) {
            return self.send_vote(from, action, Vote::ReadOnly, out);
        }
        let found = self.mirrors.find(action).filter(|_| state == State::Active);
        let refuses = self.mutation == Mutation::RefuseWhileMoving;
        let fits = found.is_some_and(|slot| {
            let moves = refuses && self.is_pinned(slot);
            self.fits(slot, incarnation, join) && !moves
        });
        if found.is_some_and(|slot| fits && self.is_pinned(slot)) {
            let prepare = Prepare {
                from,
                incarnation,
                join,
                aborted: aborted.to_vec(),
            };
            return self.prepare_later(action, prepare);
        }
        self.rebind(action, from);
        // What is prepared answers its own coordinator alone.
        let to = self.coordinator(action).unwrap_or(from);
        if to == from && state == State::Prepared && self.forgot_moves(action) {
            self.send_vote(from, action, Vote::No, out);
        } else if to == from {
            self.participate(from, action, Cue::Prepare { fits }, aborted, out);
        }
    }

    /// Whether an earlier life has prepared an action: where its objects went is not known any
    /// more, so a Yes could leave them out. If that life's vote has been heard, this one is not.
    fn forgot_moves(&self, action: Uid) -> bool {
        let found = self.mirrors.find(action);
        let stored_only = found.is_some_and(|slot| self.mirrors.mirror(slot).stored_only);
        stored_only && self.mutation != Mutation::TrustRecovered
    }

    /// Whether a mirror is the one that did all the work, and is done with it.
    fn fits(&self, slot: Slot, incarnation: Incarnation, join: u64) -> bool {
        let mirror = self.mirrors.mirror(slot);
        let late = mirror.calls > 0 && self.mutation != Mutation::IgnoreLateCalls;
        let life = incarnation == self.identity.me.incarnation;
        self.fits_join(mirror.join, join) && life && !late
    }

    /// Whether two numbers are of the same mirror.
    pub(super) fn fits_join(&self, ours: u64, theirs: u64) -> bool {
        ours == theirs || self.mutation == Mutation::NoTombstone
    }

    /// Phase 1 here.
    pub(super) fn prepare(
        &mut self,
        slot: Slot,
        coordinator: Coordinator,
        aborted: &[Uid],
        out: &mut Outbox,
    ) {
        self.resolve_levels(slot, aborted, out);
        let changed = self.release_unchanged(slot, out);
        let mirror = self.mirrors.mirror(slot);
        let (action, join, root) = (mirror.uid(), mirror.join, mirror.root);
        let part = mirror.part;
        self.mirrors.set_due(slot, Time::NEVER);
        if let Some(object) = part.filter(|_| !changed) {
            self.mirrors.remove(root);
            let end = CheckpointEnd::ReadOnly;
            self.cohorts.note_end(object, action, end);
            return self.vote_part(coordinator, action, object, Vote::ReadOnly, out);
        }
        if !changed {
            let moved = core::mem::take(&mut self.mirrors.mirror_mut(slot).moved);
            self.mirrors.remove(root);
            self.note_fate(action, Fate::ReadOnly { join });
            self.tombstones.note_moved(action, moved);
            return self.send_vote(coordinator, action, Vote::ReadOnly, out);
        }
        let objects = self.written(root);
        let groups = Self::groups_of(&objects);
        if groups.len() > self.limits.groups_max as usize {
            self.abort_mirror(slot, out);
            return self.send_vote(coordinator, action, Vote::No, out);
        }
        self.mirrors.mirror_mut(slot).groups = groups;
        let batch = ActionBatch::Prepare {
            action,
            coordinator,
            objects,
        };
        let work = match part {
            Some(object) => {
                self.cohorts.untouch(object);
                Work::PreparePart(action, object)
            }
            None => Work::Prepare(action),
        };
        let job = self.store(work, batch, out);
        self.mirrors.mirror_mut(slot).phase = Phase::Preparing {
            coordinator,
            job,
            doomed: false,
        };
        if self.mutation == Mutation::VoteBeforeFlush {
            self.send_vote(coordinator, action, Vote::Yes, out);
        }
    }

    /// What a level has changed.
    pub(super) fn written(&self, level: Slot) -> Vec<Written> {
        let images = &self.mirrors.level(level).images;
        let changed = images.iter().filter(|(_, before)| before.changed);
        changed
            .map(|(uid, before)| Written {
                uid: *uid,
                create: before.create,
                replicated: before.replicated,
            })
            .collect()
    }

    /// Those that are replicated.
    pub(super) fn groups_of(objects: &[Written]) -> Vec<Uid> {
        let groups = objects.iter().filter(|written| written.replicated);
        groups.map(|written| written.uid).collect()
    }

    /// It is on disk, and bound.
    pub(super) fn set_prepared(&mut self, slot: Slot, _out: &mut Outbox) {
        let pause_ns = self.limits.resend_ns;
        let mirror = self.mirrors.mirror_mut(slot);
        let coordinator = match mirror.phase {
            Phase::Preparing { coordinator, .. } | Phase::Installing { coordinator, .. } => {
                coordinator
            }
            Phase::Active
            | Phase::Aborting
            | Phase::Prepared { .. }
            | Phase::Voting(_)
            | Phase::Deciding { .. } => return,
        };
        mirror.phase = Phase::Prepared {
            coordinator,
            pause_ns,
            doubted: false,
        };
        self.mirrors.note_prepared(slot);
        let due = self.resend_at(pause_ns);
        self.mirrors.set_due(slot, due);
    }

    pub(super) fn commit_heard(
        &mut self,
        from: Site,
        action: Uid,
        part: Option<Uid>,
        out: &mut Outbox,
    ) {
        if let Some(object) = part {
            return self.commit_part_heard(from, action, object, out);
        }
        let coordinator = self.coordinator(action);
        let decider = coordinator.and_then(|coordinator| coordinator.decider);
        if coordinator.is_none_or(|it| it.decider.is_some() || it.site.node == from.node) {
            let to = Coordinator {
                site: from,
                decider,
            };
            self.participate(to, action, Cue::Commit, &[], out);
        }
    }

    /// Phase 2 here.
    fn install(&mut self, slot: Slot, out: &mut Outbox) {
        let action = self.mirrors.mirror(slot).uid();
        let coordinator = self.coordinator(action);
        let coordinator = coordinator.expect("what is prepared has a coordinator");
        let groups = self.led_groups(slot);
        if self.mutation == Mutation::AcknowledgeUnended {
            for group in &groups {
                Self::acknowledge_group(coordinator, action, *group, out);
            }
        }
        let batch = ActionBatch::Install { action, groups };
        let job = self.store(Work::Install(action), batch, out);
        self.mirrors.set_due(slot, Time::NEVER);
        self.mirrors.mirror_mut(slot).phase = Phase::Installing { coordinator, job };
    }

    /// Somebody says that an action is aborted: whoever runs it, its coordinator, or a shard
    /// whose calls came here.
    fn abort_heard(&mut self, from: Site, action: Uid, part: Option<Uid>, out: &mut Outbox) {
        if let Some(object) = part {
            return self.part_abort_heard(from, action, object, out);
        }
        self.parts_abort_heard(action, out);
        if let Some(slot) = self.mirrors.find_level(action)
            && self.mirrors.level(slot).parent.is_some()
        {
            return self.nested_abort_heard(slot, out);
        }
        let obeys = self.mutation == Mutation::ObeyRunnerWhenPrepared;
        let coordinator = self.coordinator(action);
        let by_coordinator = coordinator.is_some_and(|it| it.site == from) || obeys;
        if self.arrivals.waiting > 0 && self.is_waiting_to_arrive(action) {
            let refusal = self.aborted(action);
            self.refuse_arrival(action, refusal, out);
        }
        if self.decisions.contains(action) {
            return;
        }
        let elsewhere = coordinator.is_some_and(|it| it.decider.is_some());
        if elsewhere && !obeys && self.state(action) == State::Prepared {
            // A later life of the coordinator does not know what is in the decider's log.
            let slot = self.mirrors.find(action).filter(|_| by_coordinator);
            return slot.into_iter().for_each(|slot| self.query(slot, out));
        }
        let to = Coordinator::from(from);
        self.participate(to, action, Cue::Abort { by_coordinator }, &[], out);
    }

    /// The coordinator has answered a question.
    fn verdict_heard(
        &mut self,
        from: Site,
        action: Uid,
        verdict: Verdict,
        part: Option<Uid>,
        out: &mut Outbox,
    ) {
        if let Some(object) = part {
            return self.part_verdict_heard(action, object, verdict, out);
        }
        let Some(coordinator) = self.coordinator(action) else {
            return;
        };
        if coordinator.decider.is_none() && coordinator.site.node != from.node {
            return;
        }
        let cue = match verdict {
            Verdict::Committed => Cue::Commit,
            Verdict::Aborted => Cue::Abort {
                by_coordinator: true,
            },
            Verdict::InFlight => return,
        };
        // Only one that is in doubt has asked.
        if self.state(action) == State::Prepared {
            self.participate(coordinator, action, cue, &[], out);
        }
    }

    /// A caller is gone, or time is up: what nobody else decides ends.
    pub(super) fn leave_to_itself(&mut self, slot: Slot, why: GaveUp, out: &mut Outbox) {
        let action = self.mirrors.mirror(slot).uid();
        let state = self.state_of(slot);
        let next = participant::next(state, Cue::GiveUp);
        let disobeys = self.mutation == Mutation::AbortPrepared && state == State::Prepared;
        if disobeys {
            let groups = self.mirrors.mirror(slot).groups.clone();
            self.undo_batch(action, groups, out);
        }
        if disobeys || next == Next::Abort {
            self.give_up(slot, why, out);
        } else {
            assert!(
                next == Next::Nothing,
                "{next:?} is no way to give {action} up"
            );
        }
    }

    /// A node is gone, and perhaps will answer when it is back: what it decides is in doubt.
    pub(super) fn doubt(&mut self, node: NodeId, out: &mut Outbox) {
        let all = self.mirrors.prepared();
        let doubted = all.filter(|(_, mirror)| match mirror.phase {
            Phase::Prepared { coordinator, .. } => coordinator.site.node == node,
            Phase::Active
            | Phase::Aborting
            | Phase::Preparing { .. }
            | Phase::Installing { .. }
            | Phase::Voting(_)
            | Phase::Deciding { .. } => false,
        });
        let doubted: Vec<Slot> = doubted.map(|(slot, _)| slot).collect();
        for slot in doubted {
            self.query(slot, out);
        }
    }

    /// Asks the coordinator what it has decided.
    pub(super) fn query(&mut self, slot: Slot, out: &mut Outbox) {
        let pause_max_ns = self.pause_max_ns();
        let mirror = self.mirrors.mirror_mut(slot);
        let (action, part) = (mirror.uid(), mirror.part);
        let Phase::Prepared {
            coordinator,
            pause_ns,
            doubted,
        } = &mut mirror.phase
        else {
            return;
        };
        let (coordinator, pause) = (*coordinator, *pause_ns);
        *pause_ns = pause.saturating_mul(2).min(pause_max_ns);
        if !core::mem::replace(doubted, true) {
            out.push(Output::Event(Event::InDoubt {
                action,
                coordinator,
            }));
        }
        let decider = coordinator.decider;
        let query = Message::Query {
            action,
            decider,
            part,
        };
        Self::send_to(Self::keeper(coordinator), query, out);
        let due = self.resend_at(pause);
        self.mirrors.set_due(slot, due);
    }

    /// The date of a mirror has come.
    pub(super) fn mirror_due(&mut self, slot: Slot, out: &mut Outbox) {
        match self.mirrors.mirror(slot).phase {
            Phase::Active => self.leave_to_itself(slot, GaveUp::Expired, out),
            Phase::Prepared { .. } => {
                let expired = self.mirrors.mirror(slot).until <= self.now;
                if expired && self.mutation == Mutation::AbortPrepared {
                    return self.leave_to_itself(slot, GaveUp::Expired, out);
                }
                self.query(slot, out);
            }
            Phase::Voting(_) => self.vote_again(slot, out),
            Phase::Aborting
            | Phase::Preparing { .. }
            | Phase::Installing { .. }
            | Phase::Deciding { .. } => {}
        }
    }
}
