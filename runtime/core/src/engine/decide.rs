//! What a shard does as the coordinator of an action, and what it says about outcomes: carries
//! out [`crate::action::coordinator`].
//!
//! | who asks about an action | decided, or ended in memory | its mirror is here | else |
//! |---|---|---|---|
//! | a participant in doubt (`Query`) | its end | InFlight | what the store has; silence if it cannot tell |
//! | anybody (`Ask`) | its end | InFlight | what the store has; none if it cannot tell |
//!
//! What the store does not know is aborted, and stays so: presumed abort.

use std::collections::BTreeSet;

use super::commit::Work;
use super::{Engine, Mutation};
use crate::action::coordinator::{Ballot, Tally};
use crate::action::message::{Message, Verdict, Vote};
use crate::action::mirror::Phase;
use crate::action::path::{Participant, Site};
use crate::action::tombstone::Fate;
use crate::id::Uid;
use crate::input::{Fault, Job, Ticket};
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
}

/// Who waits for the store to say what became of an action.
#[derive(Debug, Default)]
pub(super) struct Search {
    job: Option<Job>,
    /// Participants in doubt.
    sites: Vec<Site>,
    /// Requests for the outcome.
    tickets: Vec<Ticket>,
    /// Requests to commit what is not here (any more).
    late: Vec<Asked>,
}

impl Engine {
    /// Whoever runs an action wants it committed.
    pub(super) fn commit_asked(&mut self, asked: Asked, out: &mut Outbox) {
        let (ticket, action) = (asked.ticket, asked.action);
        let fate = self.tombstones.find(action);
        if self.decisions.contains(action) || fate == Some(Fate::Committed) {
            return Self::ended(&[ticket], End::Committed, out);
        }
        let me = self.identity.site();
        let Some(slot) = self.mirrors.find(action).filter(|_| !self.is_drained()) else {
            if fate == Some(Fate::Aborted) {
                return self.refuse_commit(&asked, Abort::Ended, out);
            }
            // An earlier life may have been asked too, and have committed.
            return match self.search(action, out) {
                Some(search) => search.late.push(asked),
                None => Self::ended(&[ticket], End::Aborted(Abort::Lost(me)), out),
            };
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
        let crowd = asked.others.len() > self.limits.participants_max as usize;
        let why = if !self.fits_join(ours, asked.join) {
            Some(Abort::Lost(me))
        } else if busy && self.mutation != Mutation::IgnoreLateCalls {
            Some(Abort::Busy(me))
        } else if crowd {
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

    /// The action cannot commit: it is aborted everywhere.
    fn refuse_commit(&mut self, asked: &Asked, why: Abort, out: &mut Outbox) {
        let action = asked.action;
        self.note_fate(action, Fate::Aborted);
        for other in &asked.others {
            Self::send(other.site, Message::Abort { action }, out);
        }
        Self::ended(&[asked.ticket], End::Aborted(why), out);
    }

    fn ended(requests: &[Ticket], end: End, out: &mut Outbox) {
        for ticket in requests {
            let ticket = *ticket;
            out.push(Output::Ended { ticket, end });
        }
    }

    fn begin_vote(&mut self, slot: Slot, asked: Asked, out: &mut Outbox) {
        let vote_ends = Time(self.now.0.saturating_add(self.limits.vote_wait_ns));
        let Asked {
            ticket,
            others,
            aborted,
            ..
        } = asked;
        self.mirrors.set_due(slot, Time::NEVER);
        self.resolve_levels(slot, &aborted, out);
        self.release_unchanged(slot, out);
        let ballot = Ballot::new(ticket, &others, aborted, vote_ends);
        let Some(mut ballot) = ballot else {
            self.abort_mirror(slot, out);
            let action = asked.action;
            self.note_fate(action, Fate::Aborted);
            for other in &others {
                Self::send(other.site, Message::Abort { action }, out);
            }
            let me = self.identity.site();
            return Self::ended(&[ticket], End::Aborted(Abort::Refused(me)), out);
        };
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
            if participant.site == me.site {
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
            Self::ask_vote(action, participant, &ballot.aborted, out);
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
        from: Site,
        action: Uid,
        (vote, moved): (Vote, &[Participant]),
        out: &mut Outbox,
    ) {
        let slot = self.mirrors.find(action);
        let tally = slot.and_then(|slot| match &mut self.mirrors.mirror_mut(slot).phase {
            Phase::Voting(ballot) => Some((slot, ballot.vote(from, vote))),
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
            None if vote == Vote::Yes => self.query_heard(from, action, out),
            None => {}
        }
    }

    /// A vote has named others: those who were not asked are.
    fn ask_moved(&mut self, slot: Slot, moved: &[Participant], out: &mut Outbox) -> Tally {
        let mirror = self.mirrors.mirror_mut(slot);
        let action = mirror.uid();
        let phase = core::mem::replace(&mut mirror.phase, Phase::Active);
        let Phase::Voting(mut ballot) = phase else {
            panic!("{action} does not vote");
        };
        let asked: BTreeSet<Site> = ballot.missing().map(|it| it.site).collect();
        let refused = self.add_voters(&mut ballot, slot, moved);
        let new = ballot.missing().filter(|it| !asked.contains(&it.site));
        for participant in new {
            Self::ask_vote(action, participant, &ballot.aborted, out);
        }
        let tally = refused.map_or_else(|| ballot.tally(), Tally::Refused);
        self.mirrors.mirror_mut(slot).phase = Phase::Voting(ballot);
        tally
    }

    fn ask_vote(action: Uid, it: Participant, aborted: &[Uid], out: &mut Outbox) {
        let message = Message::Prepare {
            action,
            incarnation: it.incarnation,
            join: it.joined.join,
            aborted: aborted.to_vec(),
        };
        Self::send(it.site, message, out);
    }

    /// All can commit.
    fn decide(&mut self, slot: Slot, yes: Vec<Site>, out: &mut Outbox) {
        let mirror = self.mirrors.mirror_mut(slot);
        let (action, root) = (mirror.uid(), mirror.root);
        let Phase::Voting(ballot) = &mut mirror.phase else {
            panic!("{action} is decided without a vote");
        };
        let requests = core::mem::take(&mut ballot.requests);
        let objects = self.written(root);
        self.mirrors.set_due(slot, Time::NEVER);
        if objects.is_empty() && yes.is_empty() {
            self.release_committed(slot, out);
            return Self::ended(&requests, End::Committed, out);
        }
        let batch = ActionBatch::Decide {
            action,
            objects,
            participants: yes.clone(),
        };
        let job = self.store(Work::Decide(action), batch, out);
        self.mirrors.mirror_mut(slot).phase = Phase::Deciding {
            requests,
            job,
            told: yes,
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
        action: Uid,
        done: Job,
        result: Result<(), Fault>,
        out: &mut Outbox,
    ) {
        let Some(slot) = self.mirrors.find(action) else {
            return;
        };
        let mirror = self.mirrors.mirror_mut(slot);
        let Phase::Deciding {
            requests,
            job,
            told,
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
                self.abort_mirror(slot, out);
                self.note_fate(action, Fate::Aborted);
                for site in told {
                    Self::send(site, Message::Abort { action }, out);
                }
                Self::ended(&requests, End::Aborted(Abort::Store(fault)), out);
            }
        }
    }

    /// The action is committed, for ever.
    fn committed(&mut self, slot: Slot, out: &mut Outbox) {
        let mirror = self.mirrors.mirror_mut(slot);
        let action = mirror.uid();
        let Phase::Deciding { requests, told, .. } = &mut mirror.phase else {
            panic!("{action} is committed without a decision");
        };
        let (requests, told) = (core::mem::take(requests), core::mem::take(told));
        self.release_committed(slot, out);
        Self::ended(&requests, End::Committed, out);
        self.tell_decision(action, told, out);
    }

    /// Tells those who have prepared until they know.
    pub(super) fn tell_decision(&mut self, action: Uid, told: Vec<Site>, out: &mut Outbox) {
        if told.is_empty() {
            return;
        }
        for site in &told {
            Self::send(*site, Message::Commit { action }, out);
        }
        let pause_ns = self.limits.resend_ns;
        let next_ns = pause_ns.saturating_mul(2).min(self.pause_max_ns());
        let due = self.resend_at(pause_ns);
        self.decisions.insert(action, told, next_ns, due);
    }

    /// Tells again what was not acknowledged.
    pub(super) fn tell_again(&mut self, out: &mut Outbox) {
        let pause_max_ns = self.pause_max_ns();
        while let Some(action) = self.decisions.pop_due(self.now, pause_max_ns) {
            for site in self.decisions.untold(action) {
                Self::send(site, Message::Commit { action }, out);
            }
        }
    }

    pub(super) fn acknowledge_heard(&mut self, from: Site, action: Uid, out: &mut Outbox) {
        if self.decisions.acknowledge(action, from) {
            self.store(Work::Settle(action), ActionBatch::Settle { action }, out);
        }
    }

    /// The vote has failed.
    fn abort_vote(&mut self, slot: Slot, why: Abort, out: &mut Outbox) {
        let mirror = self.mirrors.mirror_mut(slot);
        let action = mirror.uid();
        let Phase::Voting(ballot) = &mut mirror.phase else {
            panic!("{action} does not vote");
        };
        let requests = core::mem::take(&mut ballot.requests);
        let bound: Vec<Site> = ballot.bound().collect();
        self.abort_mirror(slot, out);
        self.note_fate(action, Fate::Aborted);
        for site in bound {
            Self::send(site, Message::Abort { action }, out);
        }
        Self::ended(&requests, End::Aborted(why), out);
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

    /// What became of an action, as far as it is known without the store.
    fn verdict(&self, action: Uid) -> Option<Verdict> {
        if self.decisions.contains(action) {
            return Some(Verdict::Committed);
        }
        // What is being aborted may have been begun by a late call: that decides nothing.
        if self.departures.contains(action) {
            return Some(Verdict::InFlight);
        }
        let here = self
            .mirrors
            .find(action)
            .map(|slot| self.mirrors.mirror(slot));
        if here.is_some_and(|mirror| !mirror.is_aborting()) {
            return Some(Verdict::InFlight);
        }
        match self.tombstones.find(action) {
            Some(Fate::Committed) => Some(Verdict::Committed),
            Some(Fate::Aborted) => Some(Verdict::Aborted),
            Some(Fate::Told | Fate::ReadOnly { .. }) | None => None,
        }
    }

    /// A participant in doubt asks.
    pub(super) fn query_heard(&mut self, from: Site, action: Uid, out: &mut Outbox) {
        if let Some(verdict) = self.known_verdict(action) {
            return Self::send(from, Message::Verdict { action, verdict }, out);
        }
        let participants_max = self.limits.participants_max as usize;
        let Some(search) = self.search(action, out) else {
            return;
        };
        if search.sites.len() < participants_max && !search.sites.contains(&from) {
            search.sites.push(from);
        }
    }

    fn known_verdict(&self, action: Uid) -> Option<Verdict> {
        let presumed = self.mutation == Mutation::PresumeCommit;
        let presumed = presumed.then_some(Verdict::Committed);
        self.verdict(action).or(presumed)
    }

    /// Somebody asks.
    pub(super) fn asked(&mut self, ticket: Ticket, action: Uid, out: &mut Outbox) {
        if let Some(verdict) = self.known_verdict(action) {
            let verdict = Some(verdict);
            return out.push(Output::Told { ticket, verdict });
        }
        match self.search(action, out) {
            Some(search) => search.tickets.push(ticket),
            None => {
                let verdict = None;
                out.push(Output::Told { ticket, verdict });
            }
        }
    }

    /// The search for an action's decision, begun if need be; none if there are too many.
    fn search(&mut self, action: Uid, out: &mut Outbox) -> Option<&mut Search> {
        if !self.searches.contains_key(&action) {
            if self.searches.len() >= self.limits.actions_max as usize || self.is_drained() {
                return None;
            }
            let job = self.new_job(Work::Search(action));
            out.push(Output::SearchDecision { job, action });
            let search = Search {
                job: Some(job),
                ..Search::default()
            };
            self.searches.insert(action, search);
        }
        self.searches.get_mut(&action)
    }

    /// The store has answered; by now more may be known.
    pub(super) fn decision_found(&mut self, job: Job, found: Option<bool>, out: &mut Outbox) {
        let work = self.jobs.remove(&job);
        let Some(Work::Search(action)) = work else {
            panic!("{job:?} is found but was {work:?}");
        };
        let search = self.searches.remove(&action);
        let search = search.expect("a search is noted");
        assert!(search.job == Some(job), "{action} is searched for twice");
        let verdict = match (found, self.known_verdict(action)) {
            (Some(true), _) => {
                self.note_fate(action, Fate::Committed);
                Some(Verdict::Committed)
            }
            (Some(false) | None, Some(verdict)) => Some(verdict),
            (Some(false), None) => {
                self.note_fate(action, Fate::Aborted);
                Some(Verdict::Aborted)
            }
            (None, None) => None,
        };
        for site in search.sites {
            let verdict = verdict.unwrap_or(Verdict::InFlight);
            Self::send(site, Message::Verdict { action, verdict }, out);
        }
        for ticket in search.tickets {
            out.push(Output::Told { ticket, verdict });
        }
        for asked in search.late {
            match verdict {
                Some(Verdict::Committed) => Self::ended(&[asked.ticket], End::Committed, out),
                // It was here again when the store answered: the request fits no more.
                Some(Verdict::InFlight | Verdict::Aborted) | None => {
                    let lost = Abort::Lost(self.identity.site());
                    self.refuse_commit(&asked, lost, out);
                }
            }
        }
    }

    /// An earlier life of this node had decided.
    pub(super) fn recover_decision(&mut self, action: Uid, told: Vec<Site>, out: &mut Outbox) {
        self.note_fate(action, Fate::Committed);
        self.tell_decision(action, told, out);
    }
}
