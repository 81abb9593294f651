//! What a shard says about the outcomes of actions.
//!
//! | who asks about an action | decided, or ended in memory | its mirror is here | else |
//! |---|---|---|---|
//! | a participant in doubt (`Query`) | its end | InFlight | what the store has; silence if it cannot tell |
//! | anybody (`Ask`) | its end | InFlight | what the store has; none if it cannot tell |
//!
//! What the store does not know is aborted, and stays so: presumed abort.
//!
//! Where the question names a decider the answer is in its log. The mirror counts then only if it
//! votes, is being decided, or is active with that decider; that an action was aborted is never
//! said from memory; and the store says that there is no decision only while this shard surely
//! leads the decider. A request to commit that cannot be answered so ends as `Unknown`.

use super::decide::Asked;
use super::work::Work;
use super::{Engine, Mutation};
use crate::action::message::{Message, To, Verdict};
use crate::action::mirror::Phase;
use crate::action::path::Site;
use crate::action::tombstone::Fate;
use crate::id::Uid;
use crate::input::{Job, Ticket};
use crate::migrate::CheckpointEnd;
use crate::outbox::Outbox;
use crate::output::{Abort, End, Output};

/// Who waits for the store to say what became of an action.
#[derive(Debug, Default)]
pub(super) struct Search {
    job: Option<Job>,
    /// Participants in doubt, and replicated objects with a part that is.
    sites: Vec<(Site, Option<Uid>)>,
    /// Requests for the outcome.
    tickets: Vec<Ticket>,
    /// Requests to commit what is not here (any more).
    pub(super) late: Vec<Asked>,
}

impl Engine {
    /// What became of an action, as far as it is known without the store.
    fn verdict(&self, action: Uid, decider: Option<Uid>) -> Option<Verdict> {
        if self.decisions.contains(action) {
            return Some(Verdict::Committed);
        }
        // What is being aborted may have been begun by a late call: that decides nothing.
        if self.departures.contains(action) {
            return Some(Verdict::InFlight);
        }
        let end = decider.and_then(|object| self.cohorts.end_of(object, action));
        if end == Some(CheckpointEnd::Committed) {
            return Some(Verdict::Committed);
        }
        if decider.is_some_and(|object| self.cohorts.awaits(object, action)) {
            return Some(Verdict::InFlight);
        }
        let part = decider.and_then(|_| self.mirrors.find_at((action, decider)));
        let here = self.mirrors.find(action).into_iter().chain(part);
        let mut here = here.map(|slot| self.mirrors.mirror(slot));
        let undecided = here.any(|mirror| match (&mirror.phase, decider) {
            (Phase::Aborting, _) => false,
            (_, None) | (Phase::Voting(_) | Phase::Deciding { .. }, Some(_)) => true,
            // It may be asked to commit.
            (Phase::Active, Some(_)) => mirror.decider() == decider,
            // It may wait for this very answer.
            (
                Phase::Preparing { .. } | Phase::Prepared { .. } | Phase::Installing { .. },
                Some(_),
            ) => false,
        });
        if undecided {
            return Some(Verdict::InFlight);
        }
        match self.tombstones.find(action) {
            Some(Fate::Committed) => Some(Verdict::Committed),
            // Of what is in a decider's log whoever leads it knows more.
            Some(Fate::Aborted) if decider.is_none() => Some(Verdict::Aborted),
            Some(Fate::Aborted | Fate::Told | Fate::ReadOnly { .. }) | None => None,
        }
    }

    /// A participant in doubt asks, or whoever leads a replicated object with a part.
    pub(super) fn query_heard(
        &mut self,
        from: (Site, Option<Uid>),
        action: Uid,
        decider: Option<Uid>,
        out: &mut Outbox,
    ) {
        if let Some(verdict) = self.known_verdict(action, decider) {
            return self.send_verdict(from, action, (verdict, decider), out);
        }
        let participants_max = self.limits.participants_max as usize;
        let Some(search) = self.search(action, decider, out) else {
            return;
        };
        if search.sites.len() < participants_max && !search.sites.contains(&from) {
            search.sites.push(from);
        }
    }

    fn send_verdict(
        &mut self,
        (site, part): (Site, Option<Uid>),
        action: Uid,
        (verdict, decider): (Verdict, Option<Uid>),
        out: &mut Outbox,
    ) {
        let message = Box::new(Message::Verdict {
            action,
            verdict,
            part,
        });
        let to = To::Site(site);
        self.say_of(decider, Output::Send { to, message }, out);
    }

    fn known_verdict(&self, action: Uid, decider: Option<Uid>) -> Option<Verdict> {
        let presumed = self.mutation == Mutation::PresumeCommit;
        let presumed = presumed.then_some(Verdict::Committed);
        self.verdict(action, decider).or(presumed)
    }

    /// Somebody asks.
    pub(super) fn asked(
        &mut self,
        ticket: Ticket,
        action: Uid,
        decider: Option<Uid>,
        out: &mut Outbox,
    ) {
        if let Some(verdict) = self.known_verdict(action, decider) {
            let verdict = Some(verdict);
            return self.say_of(decider, Output::Told { ticket, verdict }, out);
        }
        match self.search(action, decider, out) {
            Some(search) => search.tickets.push(ticket),
            None => {
                let verdict = None;
                out.push(Output::Told { ticket, verdict });
            }
        }
    }

    /// The search for an action's decision, begun if need be; none if there are too many.
    pub(super) fn search(
        &mut self,
        action: Uid,
        decider: Option<Uid>,
        out: &mut Outbox,
    ) -> Option<&mut Search> {
        let key = (action, decider);
        if !self.searches.contains_key(&key) {
            if self.searches.len() >= self.limits.actions_max as usize || self.is_drained() {
                return None;
            }
            let job = self.new_job(Work::Search(action, decider));
            out.push(Output::SearchDecision {
                job,
                action,
                decider,
            });
            let search = Search {
                job: Some(job),
                ..Search::default()
            };
            self.searches.insert(key, search);
        }
        self.searches.get_mut(&key)
    }

    /// The store has answered; by now more may be known.
    pub(super) fn decision_found(&mut self, job: Job, found: Option<bool>, out: &mut Outbox) {
        let work = self.jobs.remove(&job);
        let Some(Work::Search(action, decider)) = work else {
            panic!("{job:?} is found but was {work:?}");
        };
        let search = self.searches.remove(&(action, decider));
        let search = search.expect("a search is noted");
        assert!(search.job == Some(job), "{action} is searched for twice");
        let verdict = match (found, self.known_verdict(action, decider)) {
            (Some(true), _) => {
                self.note_fate(action, Fate::Committed);
                Some(Verdict::Committed)
            }
            (Some(false) | None, Some(verdict)) => Some(verdict),
            (Some(false), None) => {
                // What is known of an action with a part here may be of a term that is over.
                if decider.is_none_or(|object| !self.cohorts.knows(object)) {
                    self.note_fate(action, Fate::Aborted);
                }
                Some(Verdict::Aborted)
            }
            (None, None) => None,
        };
        for site in search.sites {
            let verdict = verdict.unwrap_or(Verdict::InFlight);
            self.send_verdict(site, action, (verdict, decider), out);
        }
        for ticket in search.tickets {
            self.say_of(decider, Output::Told { ticket, verdict }, out);
        }
        for asked in search.late {
            match verdict {
                Some(Verdict::Committed) => Self::ended(&[asked.ticket], End::Committed, out),
                _ if found.is_none() => Self::ended(&[asked.ticket], End::Unknown, out),
                // It was here again when the store answered: the request fits no more.
                Some(Verdict::InFlight | Verdict::Aborted) | None => {
                    let lost = Abort::Lost(self.identity.site());
                    self.refuse_commit(&asked, lost, out);
                }
            }
        }
    }
}
