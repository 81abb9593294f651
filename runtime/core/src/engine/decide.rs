//! What a shard does as the coordinator of an action: carries out
//! [`crate::action::coordinator`].

use std::collections::BTreeSet;

use super::work::Work;
use super::{Engine, Mutation};
use crate::action::coordinator::{Ballot, News, Tally};
use crate::action::message::{Message, To, Vote};
use crate::action::mirror::{Name, Phase};
use crate::action::path::{Address, Coordinator, Participant, Site};
use crate::action::tombstone::Fate;
use crate::id::Uid;
use crate::input::{Fault, Input, Job, Ticket};
use crate::migrate::CheckpointEnd;
use crate::outbox::Outbox;
use crate::output::{Abort, ActionBatch, End, Output};
use crate::slab::Slot;
use crate::time::Time;

/// A request to commit an action.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) ticket: Ticket,
    pub(super) action: Uid,
    pub(super) join: u64,
    pub(super) others: Vec<Participant>,
    pub(super) aborted: Vec<Uid>,
    pub(super) decider: Option<Uid>,
    pub(super) part: bool,
}

impl Asked {
    /// The object whose part is to coordinate.
    fn coordinator(&self) -> Option<Uid> {
        self.decider.filter(|_| self.part)
    }
}

impl Engine {
    /// A request to commit came; other inputs are none of its business.
    pub(super) fn commit_wanted(&mut self, input: Input, out: &mut Outbox) {
        if let Input::Commit {
            ticket,
            caller: _,
            action,
            join,
            others,
            aborted,
            decider,
            part,
        } = input
        {
            let asked = Asked {
                ticket,
                action,
                join,
                others,
                aborted,
                decider,
                part,
            };
            self.commit_asked(asked, out);
        }
    }

    /// Whoever runs an action wants it committed.
    pub(super) fn commit_asked(&mut self, asked: Asked, out: &mut Outbox) {
        let (ticket, action, decider) = (asked.ticket, asked.action, asked.decider);
        let part = asked.coordinator();
        let fate = self.tombstones.find(action);
        let end = part.and_then(|object| self.cohorts.end_of(object, action));
        if self.decisions.contains(action)
            || fate == Some(Fate::Committed)
            || end == Some(CheckpointEnd::Committed)
        {
            return self.ended_at(part, &[ticket], End::Committed, out);
        }
        if part.is_some_and(|object| self.cohorts.awaits(object, action)) {
            return Self::ended(&[ticket], End::Unknown, out);
        }
        let me = self.identity.site();
        let found = self.mirrors.find_at((action, part));
        let Some(slot) = found.filter(|_| !self.is_drained()) else {
            // What this shard remembers of a part may be of a term that is over.
            if fate == Some(Fate::Aborted) && part.is_none() {
                return self.refuse_commit(&asked, Abort::Ended, out);
            }
            // An earlier life may have been asked too, and have committed.
            return self.commit_late(asked, out);
        };
        let mirror = self.mirrors.mirror_mut(slot);
        let (ours, busy) = (mirror.join, mirror.calls > 0);
        match &mut mirror.phase {
            Phase::Voting(ballot) => return ballot.requests.push(ticket),
            Phase::Deciding { requests, .. } => return requests.push(ticket),
            Phase::Aborting => return self.refuse_commit(&asked, Abort::Ended, out),
            // Somebody else decides: whoever asked two of us has to ask that one.
            Phase::Preparing { .. } | Phase::Prepared { .. } | Phase::Installing { .. } => {
                return Self::ended(&[ticket], End::Aborted(Abort::Refused(me)), out);
            }
            Phase::Active => {}
        }
        if decider.is_some() && !self.fits_join(ours, asked.join) {
            // The same, and its decision is not here but in the decider's log.
            self.abort_mirror(slot, out);
            return self.commit_late(asked, out);
        }
        let misplaced = decider.is_some() && self.mirrors.mirror(slot).decider() != decider;
        let crowd = asked.others.len() > self.limits.participants_max as usize;
        let why = if !self.fits_join(ours, asked.join) {
            Some(Abort::Lost(me))
        } else if busy && self.mutation != Mutation::IgnoreLateCalls {
            Some(Abort::Busy(me))
        } else if crowd || misplaced {
            Some(Abort::Refused(me))
        } else {
            None
        };
        match why {
            Some(why) => {
                self.abort_mirror(slot, out);
                self.refuse_commit(&asked, why, out);
            }
            None if self.is_pinned(slot) => self.commit_later(asked),
            None => self.begin_vote(slot, asked, out),
        }
    }

    /// Somebody wants committed what is not here.
    fn commit_late(&mut self, asked: Asked, out: &mut Outbox) {
        let ticket = asked.ticket;
        match self.search(asked.action, asked.decider, out) {
            Some(search) => search.late.push(asked),
            None => Self::ended(&[ticket], End::Unknown, out),
        }
    }

    /// A request has waited for a move, and its time is past.
    pub(super) fn refuse_late(&mut self, slot: Slot, asked: &Asked, out: &mut Outbox) {
        let me = self.identity.site();
        if self.mirrors.find(asked.action) == Some(slot) && self.mirrors.mirror(slot).is_active() {
            self.abort_mirror(slot, out);
        }
        self.refuse_commit(asked, Abort::Busy(me), out);
    }

    /// The action cannot commit: it is aborted everywhere.
    pub(super) fn refuse_commit(&mut self, asked: &Asked, why: Abort, out: &mut Outbox) {
        let (action, part) = (asked.action, asked.coordinator());
        self.note_aborted(action, part);
        for other in &asked.others {
            self.tell_address(part, (other.address(), action), out);
        }
        self.ended_at(part, &[asked.ticket], End::Aborted(why), out);
    }

    /// A coordinator remembers that an action is aborted; of a part its object's log does.
    fn note_aborted(&mut self, action: Uid, part: Option<Uid>) {
        match part {
            Some(object) => self
                .cohorts
                .note_end(object, action, CheckpointEnd::Aborted),
            None => self.note_fate(action, Fate::Aborted),
        }
    }

    /// Says how an action has ended, as soon as the log of its coordinator has it.
    pub(super) fn ended_at(
        &mut self,
        part: Option<Uid>,
        requests: &[Ticket],
        end: End,
        out: &mut Outbox,
    ) {
        for ticket in requests {
            let ticket = *ticket;
            self.say_of(part, Output::Ended { ticket, end }, out);
        }
    }

    pub(super) fn ended(requests: &[Ticket], end: End, out: &mut Outbox) {
        for ticket in requests {
            let ticket = *ticket;
            out.push(Output::Ended { ticket, end });
        }
    }

    fn begin_vote(&mut self, slot: Slot, asked: Asked, out: &mut Outbox) {
        let part = asked.coordinator();
        let vote_ends = Time(self.now.0.saturating_add(self.limits.vote_wait_ns));
        let Asked {
            ticket,
            others,
            aborted,
            decider,
            ..
        } = asked;
        self.mirrors.set_due(slot, Time::NEVER);
        self.resolve_levels(slot, &aborted, out);
        self.release_unchanged(slot, out);
        let ballot = Ballot::new(ticket, &others, aborted, vote_ends);
        let Some(mut ballot) = ballot else {
            self.abort_mirror(slot, out);
            let action = asked.action;
            self.note_aborted(action, part);
            for other in &others {
                self.tell_address(part, (other.address(), action), out);
            }
            let me = self.identity.site();
            let end = End::Aborted(Abort::Refused(me));
            return self.ended_at(part, &[ticket], end, out);
        };
        if let Some(object) = part {
            // Whoever is asked to commit next will do the same once more.
            self.cohorts.untouch(object);
        }
        ballot.decider = decider;
        let moved = self.mirrors.mirror(slot).moved.clone();
        let added = self.add_voters(&mut ballot, slot, &moved);
        let nobody = ballot.missing().next().is_none();
        self.mirrors.mirror_mut(slot).phase = Phase::Voting(Box::new(ballot));
        match added {
            Some(site) => self.abort_vote(slot, Abort::Refused(site), out),
            None if nobody => self.decide(slot, Vec::new(), out),
            None => self.ask_votes(slot, out),
        }
    }

    /// Those who have objects now that somebody had who votes are to vote too. Returns one that
    /// cannot, since it has lost work or there are too many.
    fn add_voters(&self, ballot: &mut Ballot, slot: Slot, moved: &[Participant]) -> Option<Site> {
        let mirror = self.mirrors.mirror(slot);
        let me = Participant {
            site: self.identity.site(),
            incarnation: self.identity.me.incarnation,
            joined: mirror.joined(),
        };
        let max = self.limits.participants_max as usize;
        let hidden = self.mutation == Mutation::HideMoved;
        let mut moved = moved.iter().filter(|_| !hidden);
        let refused = moved.find(|participant| {
            if participant.address() == me.address() {
                // It came back: what is said of it is said of what is here.
                return !participant.is_same_mirror(&me);
            }
            ballot.add(**participant, max).is_none()
        });
        refused.map(|participant| participant.site)
    }

    /// Asks all whose vote is missing.
    fn ask_votes(&mut self, slot: Slot, out: &mut Outbox) {
        let mirror = self.mirrors.mirror(slot);
        let action = mirror.uid();
        let Phase::Voting(ballot) = &mirror.phase else {
            panic!("{action} asks for votes but does not wait for any");
        };
        for participant in ballot.missing() {
            Self::ask_vote(action, participant, ballot, out);
        }
        let due = self.resend_at(self.limits.resend_ns).min(ballot.ends);
        self.mirrors.set_due(slot, due);
    }

    /// Votes are missing for a while.
    pub(super) fn vote_again(&mut self, slot: Slot, out: &mut Outbox) {
        let Phase::Voting(ballot) = &self.mirrors.mirror(slot).phase else {
            return;
        };
        let silent = ballot.missing().next().map(|participant| participant.site);
        match silent {
            Some(site) if ballot.ends <= self.now => {
                self.abort_vote(slot, Abort::Silent(site), out);
            }
            Some(_) | None => self.ask_votes(slot, out),
        }
    }

    pub(super) fn vote_heard(
        &mut self,
        (
            Coordinator {
                site: from,
                decider,
            },
            part,
        ): (Coordinator, Option<Uid>),
        action: Uid,
        (vote, moved, groups): (Vote, &[Participant], Vec<Uid>),
        out: &mut Outbox,
    ) {
        let slot = match self.mirrors.find_at((action, decider)) {
            Some(slot) if decider.is_some() && self.votes(slot) => Some(slot),
            _ => self.mirrors.find(action),
        };
        let voter = part.map_or(Address::Site(from), Address::Leader);
        let tally = slot.and_then(|slot| match &mut self.mirrors.mirror_mut(slot).phase {
            Phase::Voting(ballot) => Some((slot, ballot.vote(voter, vote, groups))),
            Phase::Active
            | Phase::Aborting
            | Phase::Preparing { .. }
            | Phase::Prepared { .. }
            | Phase::Installing { .. }
            | Phase::Deciding { .. } => None,
        });
        let tally = match tally {
            Some((slot, Tally::Open | Tally::Done(_))) if !moved.is_empty() => {
                Some((slot, self.ask_moved(slot, moved, out)))
            }
            other => other,
        };
        match tally {
            Some((_, Tally::Open)) => {}
            Some((slot, Tally::Done(yes))) => self.decide(slot, yes, out),
            Some((slot, Tally::Refused(site))) => {
                self.abort_vote(slot, Abort::Refused(site), out);
            }
            // It has missed the decision.
            None if vote == Vote::Yes => self.query_heard((from, part), action, decider, out),
            None => {}
        }
    }

    fn votes(&self, slot: Slot) -> bool {
        matches!(self.mirrors.mirror(slot).phase, Phase::Voting(_))
    }

    /// A vote has named others: those who were not asked are.
    fn ask_moved(&mut self, slot: Slot, moved: &[Participant], out: &mut Outbox) -> Tally {
        let mirror = self.mirrors.mirror_mut(slot);
        let action = mirror.uid();
        let phase = core::mem::replace(&mut mirror.phase, Phase::Active);
        let Phase::Voting(mut ballot) = phase else {
            panic!("{action} does not vote");
        };
        let asked: BTreeSet<Address> = ballot.missing().map(|it| it.address()).collect();
        let refused = self.add_voters(&mut ballot, slot, moved);
        let new = ballot.missing().filter(|it| !asked.contains(&it.address()));
        for participant in new {
            Self::ask_vote(action, participant, &ballot, out);
        }
        let tally = refused.map_or_else(|| ballot.tally(), Tally::Refused);
        self.mirrors.mirror_mut(slot).phase = Phase::Voting(ballot);
        tally
    }

    fn ask_vote(action: Uid, it: Participant, ballot: &Ballot, out: &mut Outbox) {
        let message = Message::Prepare {
            action,
            incarnation: it.incarnation,
            join: it.joined.join,
            aborted: ballot.aborted.clone(),
            decider: ballot.decider,
            part: it.part(),
        };
        Self::send_to(it.address().into(), message, out);
    }

    /// All can commit.
    fn decide(&mut self, slot: Slot, yes: Vec<Site>, out: &mut Outbox) {
        let mirror = self.mirrors.mirror_mut(slot);
        let (action, root) = (mirror.uid(), mirror.root);
        let Phase::Voting(ballot) = &mut mirror.phase else {
            panic!("{action} is decided without a vote");
        };
        let requests = core::mem::take(&mut ballot.requests);
        let (decider, parts) = (ballot.decider, ballot.parts());
        let mut groups = core::mem::take(&mut ballot.groups);
        let part = mirror.part;
        let objects = self.written(root);
        self.mirrors.set_due(slot, Time::NEVER);
        if objects.is_empty() && yes.is_empty() && groups.is_empty() {
            match part {
                // The log is to have it, and not this shard alone.
                Some(object) => {
                    self.release_all(root, out);
                    self.mirrors.remove(root);
                    let end = CheckpointEnd::Committed;
                    self.cohorts.note_end(object, action, end);
                }
                None => self.release_committed(slot, out),
            }
            return self.ended_at(part, &requests, End::Committed, out);
        }
        let mut own = Self::groups_of(&objects);
        own.retain(|uid| Some(*uid) != decider);
        groups.extend(&own);
        if self.mutation == Mutation::HideGroups {
            groups.clear();
        }
        let batch = ActionBatch::Decide {
            action,
            decider,
            objects,
            participants: yes.clone(),
            groups: groups.iter().copied().collect(),
        };
        let job = self.store(Work::Decide(action, part), batch, out);
        self.mirrors.mirror_mut(slot).phase = Phase::Deciding {
            requests,
            job,
            told: News {
                sites: yes,
                groups,
                parts,
                decider,
            },
            own,
        };
        if self.mutation == Mutation::DecideBeforeFlush {
            self.committed(slot, out);
        } else if self.mutation == Mutation::ApplyBeforeDecision {
            self.release_all(root, out);
        }
    }

    /// The store has the decision, or not.
    pub(super) fn decision_stored(
        &mut self,
        (action, part): Name,
        done: Job,
        result: Result<(), Fault>,
        out: &mut Outbox,
    ) {
        let Some(slot) = self.mirrors.find_at((action, part)) else {
            return;
        };
        let mirror = self.mirrors.mirror_mut(slot);
        let Phase::Deciding {
            requests,
            job,
            told,
            own,
        } = &mut mirror.phase
        else {
            return;
        };
        if *job != done {
            return;
        }
        match result {
            Ok(()) => self.committed(slot, out),
            Err(fault) => {
                let (requests, told) = (core::mem::take(requests), core::mem::take(told));
                mirror.groups = core::mem::take(own);
                self.undo_groups(slot, out);
                self.abort_mirror(slot, out);
                self.note_aborted(action, part);
                let sites = told.sites.into_iter().map(Address::Site);
                let parts = told.parts.into_iter().map(Address::Leader);
                for to in sites.chain(parts) {
                    self.tell_address(part, (to, action), out);
                }
                self.ended_at(part, &requests, End::Aborted(Abort::Store(fault)), out);
            }
        }
    }

    /// The action is committed, for ever.
    fn committed(&mut self, slot: Slot, out: &mut Outbox) {
        let mirror = self.mirrors.mirror_mut(slot);
        let action = mirror.uid();
        let Phase::Deciding {
            requests,
            told,
            own,
            ..
        } = &mut mirror.phase
        else {
            panic!("{action} is committed without a decision");
        };
        let (requests, told) = (core::mem::take(requests), core::mem::take(told));
        mirror.groups = core::mem::take(own);
        let part = mirror.part;
        let ended = self.led_groups(slot);
        self.release_committed(slot, out);
        if let Some(object) = part {
            // The log has it.
            self.cohorts.untouch(object);
        }
        self.ended_at(part, &requests, End::Committed, out);
        self.tell_decision(action, told, &ended, out);
    }

    /// Tells those who have prepared until they know; groups, whose leaders mostly are among
    /// them, only later. The parts of some have `ended`.
    pub(super) fn tell_decision(
        &mut self,
        action: Uid,
        told: News,
        ended: &[Uid],
        out: &mut Outbox,
    ) {
        if told.sites.is_empty() && told.groups.is_empty() {
            return;
        }
        if self.decisions.contains(action) {
            // It was found in the decider's log before the store answered.
            return self.acknowledged(action, None, ended, out);
        }
        for site in &told.sites {
            let part = None;
            Self::send(*site, Message::Commit { action, part }, out);
        }
        for object in &told.parts {
            let (to, part) = (To::Leader { object: *object }, Some(*object));
            if told.groups.contains(object) {
                Self::send_to(to, Message::Commit { action, part }, out);
            }
        }
        let pause_ns = self.limits.resend_ns;
        let next_ns = pause_ns.saturating_mul(2).min(self.pause_max_ns());
        let due = self.resend_at(pause_ns);
        self.decisions.insert(action, told, next_ns, due);
        self.acknowledged(action, None, ended, out);
    }

    /// Tells again what was not acknowledged.
    pub(super) fn tell_again(&mut self, out: &mut Outbox) {
        let pause_max_ns = self.pause_max_ns();
        while let Some(action) = self.decisions.pop_due(self.now, pause_max_ns) {
            self.tell_untold(action, out);
        }
    }

    fn tell_untold(&self, action: Uid, out: &mut Outbox) {
        for site in self.decisions.untold(action) {
            let part = None;
            Self::send(site, Message::Commit { action, part }, out);
        }
        self.tell_groups(action, out);
    }

    fn tell_groups(&self, action: Uid, out: &mut Outbox) {
        for object in self.decisions.untold_groups(action) {
            let part = Some(object);
            let to = To::Leader { object };
            Self::send_to(to, Message::Commit { action, part }, out);
        }
    }

    /// Who was told knows.
    pub(super) fn acknowledged(
        &mut self,
        action: Uid,
        site: Option<Site>,
        groups: &[Uid],
        out: &mut Outbox,
    ) {
        if let Some(decider) = self.decisions.acknowledge(action, site, groups) {
            let work = Work::Settle(action, decider);
            self.store(work, ActionBatch::Settle { action, decider }, out);
        }
    }

    /// The vote has failed.
    pub(super) fn abort_vote(&mut self, slot: Slot, why: Abort, out: &mut Outbox) {
        let mirror = self.mirrors.mirror_mut(slot);
        let action = mirror.uid();
        let Phase::Voting(ballot) = &mut mirror.phase else {
            panic!("{action} does not vote");
        };
        let requests = core::mem::take(&mut ballot.requests);
        let bound: Vec<Address> = ballot.bound().collect();
        let part = mirror.part;
        self.abort_mirror(slot, out);
        self.note_aborted(action, part);
        for to in bound {
            self.tell_address(part, (to, action), out);
        }
        self.ended_at(part, &requests, End::Aborted(why), out);
    }

    /// Whoever runs the action has thought better of it: too late if it is being decided.
    pub(super) fn abort_while_deciding(&mut self, slot: Slot, out: &mut Outbox) {
        match self.mirrors.mirror(slot).phase {
            Phase::Voting(_) => self.abort_vote(slot, Abort::Ended, out),
            Phase::Deciding { .. } => {}
            Phase::Active
            | Phase::Aborting
            | Phase::Preparing { .. }
            | Phase::Prepared { .. }
            | Phase::Installing { .. } => panic!("{slot:?} does not decide"),
        }
    }

    /// An earlier life of this node had decided, or whoever led the decider before.
    pub(super) fn recover_decision(&mut self, action: Uid, told: News, out: &mut Outbox) {
        self.note_fate(action, Fate::Committed);
        let decider = told.decider;
        if decider.is_some() && self.decisions.contains(action) {
            return;
        }
        self.tell_decision(action, told, &[], out);
        self.tell_groups(action, out);
    }
}
