//! What the coordinator of a top-level action does: one of its participants, asked to by
//! whoever runs the action (delegated coordination).
//!
//! | state | asked, fits | asked, else | vote Yes or ReadOnly, not the last | the last | vote No | silence | abort |
//! |---|---|---|---|---|---|---|---|
//! | Active | Voting, or straight on if there are no others | aborted | – | – | – | – | aborted |
//! | Voting | one more waits for the end | same | noted | see below | aborted | aborted | aborted |
//! | Deciding | one more waits for the end | same | nothing | nothing | nothing | nothing | nothing |
//! | Committing | committed | same | nothing | nothing | nothing | tell them again | nothing |
//!
//! A vote may name others, which have objects now that the voter had: they are asked too, and the
//! vote is not the last then. So are those that have objects now that the coordinator had. One
//! site with two mirrors has lost work, and counts as No; the coordinator's own is its own.
//!
//! The last vote, or no others: if nobody has changed anything, the action is committed, without
//! the disk. Else Deciding: the coordinator's own new states and the decision, with the names of
//! those who voted Yes, are written in one batch; that is the commit point.
//!
//! | state | written | not written | acknowledged, not the last | the last |
//! |---|---|---|---|---|
//! | Deciding | committed; Committing if anybody voted Yes | aborted | – | – |
//! | Committing | – | – | noted | settled in the store; gone |
//!
//! With a *decider* the decision and its object's new state are an entry in the log of that
//! replicated object; the coordinator's other replicated objects get parts before, and ends after.
//! The decision names sites and replicated objects with parts: each is told until acknowledged, the
//! latter by way of who leads them, when the decision is told again. A decision whose decider is
//! led elsewhere from now on is forgotten here: who leads it tells it.
//!
//! *Aborted*: what the coordinator did is undone, the others are told once. Who misses that asks
//! again and finds no decision (presumed abort). *Committed*: who asked is told, locks are freed,
//! those who voted Yes are told until each has acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use super::message::Vote;
use super::path::{Address, Participant, Site};
use crate::id::Uid;
use crate::input::Ticket;
use crate::time::Time;

/// A vote under way.
#[derive(Debug)]
pub(crate) struct Ballot {
    /// The requests to commit; one, unless somebody repeats itself.
    pub(crate) requests: Vec<Ticket>,
    voters: BTreeMap<Address, (Participant, Option<Vote>)>,
    /// Nested actions that were aborted.
    pub(crate) aborted: Vec<Uid>,
    /// When silence counts as No.
    pub(crate) ends: Time,
    /// The replicated object whose log is to have the decision.
    pub(crate) decider: Option<Uid>,
    /// Replicated objects with a part, as those say who voted Yes.
    pub(crate) groups: BTreeSet<Uid>,
}

/// What the votes amount to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tally {
    /// Some are missing.
    Open,
    /// All are in; these sites voted Yes, besides leaders of objects.
    Done(Vec<Site>),
    /// This one cannot commit.
    Refused(Site),
}

impl Ballot {
    /// A vote of `others`; none if the same site is in it twice, with different mirrors.
    pub(crate) fn new(
        request: Ticket,
        others: &[Participant],
        aborted: Vec<Uid>,
        ends: Time,
    ) -> Option<Self> {
        let mut voters = BTreeMap::new();
        for participant in others {
            let before = voters.insert(participant.address(), (*participant, None));
            if before.is_some_and(|(before, _)| !before.is_same_mirror(participant)) {
                return None;
            }
        }
        Some(Self {
            requests: vec![request],
            voters,
            aborted,
            ends,
            decider: None,
            groups: BTreeSet::new(),
        })
    }

    /// Notes a vote. The first of a voter counts; a voter that is not asked has none.
    pub(crate) fn vote(&mut self, from: Address, vote: Vote, groups: Vec<Uid>) -> Tally {
        if let Some((_, noted @ None)) = self.voters.get_mut(&from) {
            *noted = Some(vote);
            self.groups.extend(groups);
        }
        self.tally()
    }

    /// One more is to vote, since it has an object now that another had; whether it was not asked
    /// yet. None if its site votes with another mirror, or there are `max` already.
    pub(crate) fn add(&mut self, participant: Participant, max: usize) -> Option<bool> {
        let address = participant.address();
        match self.voters.get(&address) {
            Some((known, _)) => known.is_same_mirror(&participant).then_some(false),
            None if self.voters.len() >= max => None,
            None => {
                self.voters.insert(address, (participant, None));
                Some(true)
            }
        }
    }

    pub(crate) fn tally(&self) -> Tally {
        let mut yes = Vec::new();
        let mut open = false;
        for (address, (participant, vote)) in &self.voters {
            match (vote, address) {
                (Some(Vote::Yes), Address::Site(site)) => yes.push(*site),
                // Its groups say so.
                (Some(Vote::Yes), Address::Leader(_)) | (Some(Vote::ReadOnly), _) => {}
                (Some(Vote::No), _) => return Tally::Refused(participant.site),
                (None, _) => open = true,
            }
        }
        if open { Tally::Open } else { Tally::Done(yes) }
    }

    /// Those whose vote is missing.
    pub(crate) fn missing(&self) -> impl Iterator<Item = Participant> + '_ {
        let voters = self.voters.values();
        voters
            .filter(|(_, vote)| vote.is_none())
            .map(|(participant, _)| *participant)
    }

    /// Those that may have something prepared, or may have yet.
    pub(crate) fn bound(&self) -> impl Iterator<Item = Address> + '_ {
        let voters = self.voters.iter();
        voters
            .filter(|(_, (_, vote))| match vote {
                None | Some(Vote::Yes) => true,
                Some(Vote::ReadOnly | Vote::No) => false,
            })
            .map(|(address, _)| *address)
    }

    /// The objects whose leaders vote for them alone.
    pub(crate) fn parts(&self) -> Vec<Uid> {
        let voters = self.voters.keys();
        voters.filter_map(|address| address.object()).collect()
    }
}

/// Who is to know that an action is committed, and where that is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// Those that have prepared.
    pub(crate) sites: Vec<Site>,
    /// Replicated objects with a part: whoever leads them is told.
    pub(crate) groups: BTreeSet<Uid>,
    /// Those whose leaders have voted for them alone, and are to be told at once.
    pub(crate) parts: Vec<Uid>,
    /// The replicated object whose log has the decision.
    pub(crate) decider: Option<Uid>,
}

/// An action that is committed, until all know.
#[derive(Debug)]
struct Decision {
    /// Those that have prepared.
    told: Vec<Site>,
    /// Those of them that have not acknowledged.
    untold: BTreeSet<Site>,
    /// The same of replicated objects.
    groups: BTreeSet<Uid>,
    decider: Option<Uid>,
    pause_ns: u64,
    due: Time,
}

impl Decision {
    /// Notes that a site knows. A node that has fewer shards since its last start answers from
    /// another one than was told.
    fn acknowledge(&mut self, site: Site) {
        let moved = !self.told.contains(&site);
        let mut untold = self.untold.iter();
        let stand_in = untold.find(|told| moved && told.node == site.node);
        let site = stand_in.copied().unwrap_or(site);
        self.untold.remove(&site);
    }
}

/// All decisions of a shard that somebody may not know of.
#[derive(Debug, Default)]
pub(crate) struct Decisions {
    rows: BTreeMap<Uid, Decision>,
    due: BTreeSet<(Time, Uid)>,
    /// By the replicated objects whose logs have them.
    deciders: BTreeSet<(Uid, Uid)>,
}

impl Decisions {
    pub(crate) fn insert(&mut self, action: Uid, news: News, pause_ns: u64, due: Time) {
        let untold = news.sites.iter().copied().collect();
        if let Some(decider) = news.decider {
            self.deciders.insert((decider, action));
        }
        let decision = Decision {
            told: news.sites,
            untold,
            groups: news.groups,
            decider: news.decider,
            pause_ns,
            due,
        };
        let before = self.rows.insert(action, decision);
        assert!(before.is_none(), "{action} is decided twice");
        self.due.insert((due, action));
    }

    pub(crate) fn contains(&self, action: Uid) -> bool {
        self.rows.contains_key(&action)
    }

    /// Who has not acknowledged.
    pub(crate) fn untold(&self, action: Uid) -> impl Iterator<Item = Site> + '_ {
        let rows = self.rows.get(&action);
        rows.into_iter().flat_map(|row| row.untold.iter().copied())
    }

    /// Replicated objects whose part may not have ended.
    pub(crate) fn untold_groups(&self, action: Uid) -> impl Iterator<Item = Uid> + '_ {
        let rows = self.rows.get(&action);
        rows.into_iter().flat_map(|row| row.groups.iter().copied())
    }

    /// Notes an acknowledgement of a site, of groups, or of both. If it was the last, the
    /// decision is gone, and who has it is returned.
    pub(crate) fn acknowledge(
        &mut self,
        action: Uid,
        site: Option<Site>,
        groups: &[Uid],
    ) -> Option<Option<Uid>> {
        let row = self.rows.get_mut(&action)?;
        for group in groups {
            row.groups.remove(group);
        }
        if let Some(site) = site {
            row.acknowledge(site);
        }
        let decider = row.decider;
        let last = row.untold.is_empty() && row.groups.is_empty();
        last.then(|| {
            self.remove(action);
            decider
        })
    }

    fn remove(&mut self, action: Uid) {
        let row = self.rows.remove(&action).expect("a decision is there");
        self.due.remove(&(row.due, action));
        if let Some(decider) = row.decider {
            self.deciders.remove(&(decider, action));
        }
    }

    /// Another shard has the decisions of a replicated object now.
    pub(crate) fn drop_of(&mut self, decider: Uid) {
        let first = Uid {
            node: crate::id::NodeId(0),
            local: 0,
        };
        let all = self.deciders.range((decider, first)..);
        let all = all.take_while(|(of, _)| *of == decider);
        let all: Vec<Uid> = all.map(|(_, action)| *action).collect();
        for action in all {
            self.remove(action);
        }
    }

    /// The decision that is to be told again now; its next date is set, a longer pause later.
    pub(crate) fn pop_due(&mut self, now: Time, pause_max_ns: u64) -> Option<Uid> {
        let (at, action) = *self.due.first()?;
        if at > now {
            return None;
        }
        self.due.remove(&(at, action));
        let row = self.rows.get_mut(&action).expect("a date is of a decision");
        row.due = Time(now.0.saturating_add(row.pause_ns));
        row.pause_ns = row.pause_ns.saturating_mul(2).min(pause_max_ns);
        self.due.insert((row.due, action));
        Some(action)
    }

    pub(crate) fn next_due(&self) -> Option<Time> {
        self.due.first().map(|(at, _)| *at)
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Uid> + '_ {
        self.rows.keys().copied()
    }

    pub(crate) fn check(&self) {
        assert!(
            self.rows.len() == self.due.len(),
            "decisions are miscounted"
        );
        for (action, row) in &self.rows {
            assert!(self.due.contains(&(row.due, *action)), "{action} is lost");
            let all = row.untold.is_empty() && row.groups.is_empty();
            assert!(!all, "all know of {action}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::path::Joined;
    use crate::id::{Incarnation, NodeId};

    fn participant(node: u64) -> Participant {
        Participant {
            site: site(node),
            incarnation: Incarnation(1),
            joined: Joined {
                join: 1,
                updated: true,
                decider: None,
                part: false,
            },
        }
    }

    fn site(node: u64) -> Site {
        Site {
            node: NodeId(node),
            shard: 0,
        }
    }

    fn at(node: u64) -> Address {
        Address::Site(site(node))
    }

    #[test]
    fn the_first_vote_of_each_counts_and_one_no_is_enough() {
        let others = [participant(1), participant(2), participant(3)];
        let mut ballot = Ballot::new(Ticket(1), &others, Vec::new(), Time(9)).expect("no twins");
        assert_eq!(ballot.vote(at(1), Vote::Yes, Vec::new()), Tally::Open);
        assert_eq!(ballot.vote(at(2), Vote::ReadOnly, Vec::new()), Tally::Open);
        assert_eq!(ballot.vote(at(2), Vote::No, Vec::new()), Tally::Open);
        assert_eq!(ballot.vote(at(4), Vote::No, Vec::new()), Tally::Open);
        assert_eq!(ballot.missing().collect::<Vec<_>>(), [participant(3)]);
        assert_eq!(ballot.bound().collect::<Vec<_>>(), [at(1), at(3)]);
        assert_eq!(
            ballot.vote(at(3), Vote::Yes, Vec::new()),
            Tally::Done(vec![site(1), site(3)])
        );
        let mut ballot = Ballot::new(Ticket(1), &others, Vec::new(), Time(9)).expect("no twins");
        assert_eq!(
            ballot.vote(at(3), Vote::No, Vec::new()),
            Tally::Refused(site(3))
        );
    }

    #[test]
    fn one_site_has_one_mirror() {
        let mut twin = participant(1);
        assert!(Ballot::new(Ticket(1), &[twin, twin], Vec::new(), Time(9)).is_some());
        twin.joined.join = 2;
        let twins = [participant(1), twin];
        assert!(Ballot::new(Ticket(1), &twins, Vec::new(), Time(9)).is_none());
    }

    #[test]
    fn who_has_an_object_now_votes_too_once_for_each_site() {
        let others = [participant(1)];
        let mut ballot = Ballot::new(Ticket(1), &others, Vec::new(), Time(9)).expect("no twins");
        let mut known = participant(1);
        known.joined.updated = false;
        assert_eq!(ballot.add(known, 2), Some(false), "the same work");
        assert_eq!(ballot.add(participant(2), 2), Some(true));
        assert_eq!(ballot.add(participant(2), 2), Some(false));
        assert_eq!(ballot.add(participant(3), 2), None, "there are too many");
        let mut later = participant(2);
        later.incarnation = Incarnation(2);
        assert_eq!(ballot.add(later, 9), None, "work is lost");
        let mut other = participant(1);
        other.joined.join = 2;
        assert_eq!(ballot.add(other, 9), None, "work is lost");
        assert_eq!(ballot.vote(at(1), Vote::Yes, Vec::new()), Tally::Open);
        assert_eq!(
            ballot.vote(at(2), Vote::ReadOnly, Vec::new()),
            Tally::Done(vec![site(1)])
        );
    }

    #[test]
    fn a_decision_is_told_ever_more_slowly_until_all_know() {
        let uid = Uid {
            node: NodeId(1),
            local: 1,
        };
        let mut decisions = Decisions::default();
        let news = News {
            sites: vec![site(1), site(2)],
            ..News::default()
        };
        decisions.insert(uid, news, 10, Time(10));
        decisions.check();
        let mut times = Vec::new();
        for now in 0..200 {
            if decisions.pop_due(Time(now), 40).is_some() {
                times.push(now);
            }
            decisions.check();
        }
        assert_eq!(times, [10, 20, 40, 80, 120, 160]);
        assert_eq!(decisions.acknowledge(uid, Some(site(1)), &[]), None);
        assert_eq!(decisions.acknowledge(uid, Some(site(1)), &[]), None);
        let elsewhere = Site {
            shard: 7,
            ..site(2)
        };
        assert_eq!(decisions.acknowledge(uid, Some(elsewhere), &[]), Some(None));
        assert_eq!(decisions.acknowledge(uid, Some(site(2)), &[]), None);
        assert_eq!((decisions.len(), decisions.next_due()), (0, None));
    }
}
