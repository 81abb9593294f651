//! The machine of one shard: what engine and other shards tell it goes to one of its two roles.

use std::collections::VecDeque;

use super::home::Home;
use super::manager::{Manager, WaitView};
use super::{Act, Locks};
use crate::action::message::{Deadlock, From, Party, To};
use crate::action::path::{Path, Site};
use crate::id::{Incarnation, Peer, Uid};
use crate::time::Time;

/// A rule that can be left out on purpose, so that a test can show that it would notice.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// No cycle over several shards is broken without confirmation.
    Confirm,
    /// A cycle has one victim.
    OneVictim,
}

/// The deadlock machine of one shard; see the module.
///
/// Whatever is handed in comes with the lock table ([`Locks`]) as it is at that moment, and with
/// a list that what is to be done is appended to, in order.
#[derive(Debug)]
pub struct Detector {
    me: From,
    site: Site,
    manager: Manager,
    home: Home,
    /// Messages of this shard to itself.
    inbox: VecDeque<Deadlock>,
    /// Room to collect messages in.
    posts: Vec<(To, Deadlock)>,
}

impl Detector {
    /// The machine of the shard `me` in this life of its node.
    #[must_use]
    pub fn new(me: Site, incarnation: Incarnation) -> Self {
        Self::without(me, incarnation, None)
    }

    /// One with a known mistake, for tests of tests.
    #[doc(hidden)]
    #[must_use]
    pub fn without(me: Site, incarnation: Incarnation, rule: Option<Rule>) -> Self {
        let confirm = rule != Some(Rule::Confirm);
        let one_victim = rule != Some(Rule::OneVictim);
        let peer = Peer {
            node: me.node,
            incarnation,
        };
        Self {
            me: From {
                peer,
                shard: me.shard,
            },
            site: me,
            manager: Manager::new(me, incarnation, one_victim),
            home: Home::new(me, incarnation, confirm, one_victim),
            inbox: VecDeque::new(),
            posts: Vec::new(),
        }
    }

    /// A call of `waiter` begins to wait for the lock of `object`, under a number that no wait of
    /// this shard had or will have in this life. [`Locks::owners`] knows it already.
    pub fn wait_began(
        &mut self,
        now: Time,
        (number, object): (u64, Uid),
        waiter: Party,
        locks: &dyn Locks,
        acts: &mut Vec<Act>,
    ) {
        self.manager
            .began(now, (number, object), waiter, locks, acts);
    }

    /// The lock of `object` has an owner that it did not have before. What is not waited for, or
    /// an owner that only goes, need not be told.
    pub fn lock_moved(
        &mut self,
        now: Time,
        object: Uid,
        owner: &Path,
        locks: &dyn Locks,
        acts: &mut Vec<Act>,
    ) {
        self.manager.moved(now, object, owner, locks, acts);
    }

    /// Whether a wait for the lock of `object` was told of; if not, [`Detector::lock_moved`] has
    /// no effect.
    #[must_use]
    pub fn is_waited_for(&self, object: Uid) -> bool {
        self.manager.is_waited_for(object)
    }

    /// A call waits no more, whatever the reason. No effect on an unknown one.
    pub fn wait_ended(&mut self, now: Time, number: u64, locks: &dyn Locks, acts: &mut Vec<Act>) {
        self.posts.extend(self.manager.ended(number));
        self.deliver(now, locks, acts);
    }

    /// A message arrived, from whomever: what makes no sense has no effect.
    pub fn message(
        &mut self,
        now: Time,
        from: From,
        message: Deadlock,
        locks: &dyn Locks,
        acts: &mut Vec<Act>,
    ) {
        self.hear(now, from, message, locks, acts);
        self.deliver(now, locks, acts);
    }

    /// A life of a node is over, or its last connection is.
    pub fn peer_gone(&mut self, peer: Peer) {
        self.home.peer_gone(peer);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Time, locks: &dyn Locks, acts: &mut Vec<Act>) {
        self.manager.report(now, locks, &mut self.posts);
        self.home.tidy(now);
        self.deliver(now, locks, acts);
    }

    /// When to call [`Detector::handle_timeout`] at the latest; may change with every input.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Time> {
        let times = [self.manager.next_timeout(), self.home.next_timeout()];
        times.into_iter().flatten().min()
    }

    /// The calls that wait at this shard, in the order of their numbers; for inspection.
    pub fn waits(&self) -> impl Iterator<Item = WaitView<'_>> {
        self.manager.views()
    }

    /// How many waits this shard knows as a home, how many walks it remembers, how many cycles it
    /// has in confirmation.
    #[must_use]
    pub fn home_sizes(&self) -> [usize; 3] {
        self.home.sizes()
    }

    /// Panics if an invariant does not hold.
    pub fn check(&self) {
        self.manager.check();
        self.home.check();
        assert!(
            self.inbox.is_empty() && self.posts.is_empty(),
            "a message is not delivered"
        );
    }

    /// Hands out messages: those to this very shard are heard at once.
    fn deliver(&mut self, now: Time, locks: &dyn Locks, acts: &mut Vec<Act>) {
        loop {
            for (to, message) in self.posts.drain(..) {
                if to == To::Site(self.site) {
                    self.inbox.push_back(message);
                } else {
                    acts.push(Act::Send { to, message });
                }
            }
            let Some(message) = self.inbox.pop_front() else {
                return;
            };
            self.hear(now, self.me, message, locks, acts);
        }
    }

    fn hear(
        &mut self,
        now: Time,
        from: From,
        message: Deadlock,
        locks: &dyn Locks,
        acts: &mut Vec<Act>,
    ) {
        match message {
            Deadlock::Waits { edges } => self.home.waits(now, from, edges, &mut self.posts),
            Deadlock::Resumed { wait, root: _ } => self.home.resumed(from, wait),
            Deadlock::Probe { edges } => self.home.probe(now, edges, &mut self.posts),
            Deadlock::Confirm { cycle, to, edge } => {
                let answer = Deadlock::Confirmed {
                    cycle,
                    wait: edge.wait,
                    holds: self.manager.holds(now, &edge, locks),
                };
                self.posts.push((To::Site(to), answer));
            }
            Deadlock::Confirmed { cycle, wait, holds } => {
                let answer = (cycle, wait, holds);
                self.home.confirmed(now, from, answer, &mut self.posts);
            }
            Deadlock::Break {
                wait,
                victim,
                cycle,
            } => {
                if cycle.first().is_some_and(|edge| edge.wait == wait) {
                    self.manager.break_at(now, victim, cycle, locks, acts);
                }
            }
        }
    }
}
