//! The lock manager's role: the waits of this shard, cycles among them, reports to homes.

use std::collections::{BTreeMap, BTreeSet};

use super::graph::{self, Graph};
use super::{Act, DOOMED_FOR, DOOMED_MAX, EDGES_MAX, Locks, REPEAT, REPORT_AFTER};
use crate::action::message::{Deadlock, Edge, Party, To, WaitId};
use crate::action::path::{Path, Site};
use crate::id::{Incarnation, Uid};
use crate::time::Time;

/// One wait, as an inspector sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitView<'a> {
    /// Its number.
    pub number: u64,
    /// What is waited for.
    pub object: Uid,
    /// Who waits.
    pub waiter: &'a Party,
    /// Since when.
    pub since: Time,
    /// When its home heard of it last, if it did.
    pub reported: Option<Time>,
}

/// One wait.
#[derive(Debug)]
struct Wait {
    object: Uid,
    waiter: Party,
    began: Time,
    reported: Option<Time>,
    /// The first owner of the next report, if there are too many for one.
    window: usize,
    /// It was refused; the engine has still to end it.
    refused: bool,
}

/// The waits for one lock.
#[derive(Debug)]
struct Queue {
    waits: BTreeSet<u64>,
    /// When it got an owner last.
    moved: Time,
    /// When some wait has to be reported, or to be looked at again.
    due: Time,
}

/// The waits of one shard.
#[derive(Debug)]
pub(super) struct Manager {
    me: Site,
    incarnation: Incarnation,
    one_victim: bool,
    waits: BTreeMap<u64, Wait>,
    /// Each wait under each action that it is inside of.
    inside: BTreeSet<(Uid, u64)>,
    queues: BTreeMap<Uid, Queue>,
    due: BTreeSet<(Time, Uid)>,
    /// Actions refused here, and until when that counts.
    doomed: BTreeMap<Uid, Time>,
}

impl Manager {
    pub(super) fn new(me: Site, incarnation: Incarnation, one_victim: bool) -> Self {
        Self {
            me,
            incarnation,
            one_victim,
            waits: BTreeMap::new(),
            inside: BTreeSet::new(),
            queues: BTreeMap::new(),
            due: BTreeSet::new(),
            doomed: BTreeMap::new(),
        }
    }

    /// A call begins to wait; whoever closes a cycle with that is refused at once.
    pub(super) fn began(
        &mut self,
        now: Time,
        (number, object): (u64, Uid),
        waiter: Party,
        locks: &dyn Locks,
        acts: &mut Vec<Act>,
    ) {
        assert!(!waiter.path.whole().is_empty(), "whoever waits has a name");
        for action in waiter.path.whole() {
            self.inside.insert((*action, number));
        }
        let wait = Wait {
            object,
            waiter,
            began: now,
            reported: None,
            window: 0,
            refused: false,
        };
        let before = self.waits.insert(number, wait);
        assert!(before.is_none(), "wait {number} began twice");
        let queue = self.queues.entry(object).or_insert(Queue {
            waits: BTreeSet::new(),
            moved: now,
            due: Time::NEVER,
        });
        queue.waits.insert(number);
        self.look_at(object, now.after(REPORT_AFTER));
        self.resolve(now, number, locks, acts);
    }

    /// A lock that is waited for has one more owner. If that one waits elsewhere, or what
    /// encloses it does, this may have closed a cycle.
    pub(super) fn moved(
        &mut self,
        now: Time,
        object: Uid,
        owner: &Path,
        locks: &dyn Locks,
        acts: &mut Vec<Act>,
    ) {
        let Some(queue) = self.queues.get_mut(&object) else {
            return;
        };
        queue.moved = now;
        self.look_at(object, now.after(REPORT_AFTER));
        let Some(family) = owner.whole().first() else {
            return;
        };
        for number in self.numbers_inside(*family) {
            self.resolve(now, number, locks, acts);
        }
    }

    pub(super) fn is_waited_for(&self, object: Uid) -> bool {
        self.queues.contains_key(&object)
    }

    /// A call waits no more. Says whom to tell.
    pub(super) fn ended(&mut self, number: u64) -> Option<(To, Deadlock)> {
        let wait = self.waits.remove(&number)?;
        for action in wait.waiter.path.whole() {
            self.inside.remove(&(*action, number));
        }
        let queue = self.queues.get_mut(&wait.object).expect("a wait is queued");
        queue.waits.remove(&number);
        if queue.waits.is_empty() {
            self.due.remove(&(queue.due, wait.object));
            self.queues.remove(&wait.object);
        }
        wait.reported?;
        let to = home(&wait.waiter);
        let root = wait.waiter.path.whole()[0];
        let wait = self.wait_id(number);
        Some((to, Deadlock::Resumed { wait, root }))
    }

    /// Appends the reports that are due.
    pub(super) fn report(
        &mut self,
        now: Time,
        locks: &dyn Locks,
        reports: &mut Vec<(To, Deadlock)>,
    ) {
        while let Some((_, object)) = self.due.first().filter(|(due, _)| *due <= now).copied() {
            let numbers: Vec<u64> = self.queues[&object].waits.iter().copied().collect();
            let mut next = Time::NEVER;
            for number in numbers {
                if self.report_due(number) <= now {
                    reports.extend(self.report_of(now, number, locks));
                }
                next = next.min(self.report_due(number));
            }
            self.set_due(object, next);
        }
    }

    /// When something is due.
    pub(super) fn next_timeout(&self) -> Option<Time> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Whether an edge is there, and nothing has been done about it.
    pub(super) fn holds(&self, now: Time, edge: &Edge, locks: &dyn Locks) -> bool {
        let wait = self.number(edge.wait).and_then(|n| self.waits.get(&n));
        let Some(wait) = wait.filter(|wait| !wait.refused) else {
            return false;
        };
        let same = wait.object == edge.object && wait.waiter.path == edge.waiter.path;
        let doomed = |path: &Path| self.is_doomed(now, path);
        let owners = || locks.owners(edge.wait.number);
        same && !doomed(&edge.waiter.path)
            && !doomed(&edge.owner.path)
            && owners().iter().any(|owner| owner.path == edge.owner.path)
    }

    /// A home has found and confirmed a cycle.
    pub(super) fn break_at(
        &mut self,
        now: Time,
        victim: Uid,
        cycle: Vec<Edge>,
        locks: &dyn Locks,
        acts: &mut Vec<Act>,
    ) {
        let sound = graph::is_cycle(&cycle) && cycle[0].waiter.path.whole().contains(&victim);
        if sound && self.holds(now, &cycle[0], locks) {
            self.refuse(now, victim, cycle, acts);
        }
    }

    /// The waits, in the order of their numbers.
    pub(super) fn views(&self) -> impl Iterator<Item = WaitView<'_>> {
        self.waits.iter().map(|(number, wait)| WaitView {
            number: *number,
            object: wait.object,
            waiter: &wait.waiter,
            since: wait.began,
            reported: wait.reported,
        })
    }

    pub(super) fn check(&self) {
        let paths = self
            .waits
            .iter()
            .map(|(n, wait)| (*n, wait.waiter.path.whole()));
        // A path that a peer made up may name an action twice.
        let entries: BTreeSet<(Uid, u64)> = paths
            .flat_map(|(number, path)| path.iter().map(move |uid| (*uid, number)))
            .collect();
        assert!(self.inside == entries, "waits are indexed wrongly");
        let queued: usize = self.queues.values().map(|queue| queue.waits.len()).sum();
        assert!(queued == self.waits.len(), "waits are queued wrongly");
        assert!(self.due.len() == self.queues.len(), "a queue is forgotten");
        assert!(self.doomed.len() <= DOOMED_MAX, "too many doomed actions");
    }

    /// Breaks the cycles that a wait is in. All of them go through it, so if it is the victim of
    /// any, it is the only one.
    fn resolve(&mut self, now: Time, number: u64, locks: &dyn Locks, acts: &mut Vec<Act>) {
        let mut chosen: Vec<(Uid, Vec<Edge>)> = Vec::new();
        while let Some(cycle) = self.find_cycle(now, number, &chosen, locks) {
            if !self.one_victim {
                self.refuse_members(now, cycle, acts);
                return;
            }
            let (cycle, victim) = graph::choose(cycle);
            if cycle[0].wait.number == number {
                chosen = vec![(victim, cycle)];
                break;
            }
            chosen.push((victim, cycle));
        }
        for (victim, cycle) in chosen {
            self.refuse(now, victim, cycle, acts);
        }
    }

    fn find_cycle(
        &self,
        now: Time,
        number: u64,
        without: &[(Uid, Vec<Edge>)],
        locks: &dyn Locks,
    ) -> Option<Vec<Edge>> {
        let initiator = self.waits.get(&number).filter(|wait| !wait.refused)?;
        let initiator = initiator.waiter.path.clone();
        let view = View {
            manager: self,
            now,
            without,
            locks,
        };
        if !view.counts(number) {
            return None;
        }
        let mut entered = BTreeSet::new();
        let enter = |target| entered.insert(target);
        let found = graph::walk(&view, (&initiator, 1), &[], vec![number], enter);
        found.cycles.into_iter().next()
    }

    fn refuse(&mut self, now: Time, victim: Uid, cycle: Vec<Edge>, acts: &mut Vec<Act>) {
        let number = cycle[0].wait.number;
        let wait = self.waits.get_mut(&number).expect("the victim waits");
        wait.refused = true;
        if self.doomed.len() >= DOOMED_MAX {
            self.doomed.retain(|_, until| *until > now);
        }
        if self.doomed.len() < DOOMED_MAX && self.one_victim {
            self.doomed.insert(victim, now.after(DOOMED_FOR));
        }
        acts.push(Act::Refuse {
            number,
            victim,
            cycle,
        });
    }

    /// What must not be done, see [`super::Rule::OneVictim`].
    fn refuse_members(&mut self, now: Time, mut cycle: Vec<Edge>, acts: &mut Vec<Act>) {
        for _ in 0..cycle.len() {
            let path = &cycle[0].waiter.path;
            let victim = *path.whole().last().expect("whoever waits has a name");
            self.refuse(now, victim, cycle.clone(), acts);
            cycle.rotate_left(1);
        }
    }

    fn report_of(&mut self, now: Time, number: u64, locks: &dyn Locks) -> Option<(To, Deadlock)> {
        let id = self.wait_id(number);
        let wait = self.waits.get_mut(&number).expect("a queued wait is there");
        wait.reported = Some(now);
        if wait.refused {
            return None;
        }
        let owners = locks.owners(number);
        let (all, shown) = (owners.len(), owners.len().min(EDGES_MAX));
        let from = wait.window.checked_rem(all)?;
        wait.window = if all > shown { from + shown } else { 0 };
        let owners = owners.into_iter().cycle().skip(from).take(shown);
        let edges = owners.map(|owner| Edge {
            wait: id,
            object: wait.object,
            waiter: wait.waiter.clone(),
            owner,
        });
        let edges = edges.collect();
        Some((home(&wait.waiter), Deadlock::Waits { edges }))
    }

    /// When the home of a wait has to hear of it: when its owners have been there for a while,
    /// and each [`REPEAT`] in any case. A queue that moves is no deadlock.
    fn report_due(&self, number: u64) -> Time {
        let wait = &self.waits[&number];
        let moved = self.queues[&wait.object].moved.after(REPORT_AFTER);
        match wait.reported {
            None => moved
                .max(wait.began.after(REPORT_AFTER))
                .min(wait.began.after(REPEAT)),
            Some(at) if at.after(REPORT_AFTER) <= moved => moved.min(at.after(REPEAT)),
            Some(at) => at.after(REPEAT),
        }
    }

    fn look_at(&mut self, object: Uid, at: Time) {
        if self.queues[&object].due > at {
            self.set_due(object, at);
        }
    }

    fn set_due(&mut self, object: Uid, at: Time) {
        let queue = self.queues.get_mut(&object).expect("only queues are due");
        self.due.remove(&(queue.due, object));
        queue.due = at;
        self.due.insert((at, object));
    }

    fn numbers_inside(&self, action: Uid) -> Vec<u64> {
        let range = self.inside.range((action, 0)..=(action, u64::MAX));
        range.map(|(_, number)| *number).collect()
    }

    fn is_doomed(&self, now: Time, path: &Path) -> bool {
        let doomed = |action| self.doomed.get(action).is_some_and(|until| *until > now);
        !self.doomed.is_empty() && path.own().iter().any(doomed)
    }

    fn wait_id(&self, number: u64) -> WaitId {
        WaitId {
            site: self.me,
            incarnation: self.incarnation,
            number,
        }
    }

    fn number(&self, wait: WaitId) -> Option<u64> {
        let ours = wait == self.wait_id(wait.number);
        ours.then_some(wait.number)
    }
}

fn home(party: &Party) -> To {
    To::Home {
        node: party.home,
        root: party.path.whole()[0],
    }
}

/// The waits of this shard, without what is refused already.
struct View<'a> {
    manager: &'a Manager,
    now: Time,
    without: &'a [(Uid, Vec<Edge>)],
    locks: &'a dyn Locks,
}

impl View<'_> {
    fn counts(&self, number: u64) -> bool {
        let wait = &self.manager.waits[&number];
        let chosen = |(_, cycle): &(Uid, Vec<Edge>)| cycle[0].wait.number == number;
        !wait.refused && !self.is_lost(&wait.waiter.path) && !self.without.iter().any(chosen)
    }

    /// Whether the action is going to end without anybody's help.
    fn is_lost(&self, path: &Path) -> bool {
        let chosen = self.without.iter();
        self.manager.is_doomed(self.now, path)
            || chosen
                .into_iter()
                .any(|(victim, _)| path.is_within(*victim))
    }
}

impl Graph for View<'_> {
    type Wait = u64;

    fn inside(&self, action: Uid) -> Vec<u64> {
        let mut numbers = self.manager.numbers_inside(action);
        numbers.retain(|number| self.counts(*number));
        numbers
    }

    fn edges(&self, number: u64) -> Vec<Edge> {
        let wait = &self.manager.waits[&number];
        let owners = self.locks.owners(number).into_iter();
        let owners = owners.filter(|owner| !self.is_lost(&owner.path));
        let edge = |owner| Edge {
            wait: self.manager.wait_id(number),
            object: wait.object,
            waiter: wait.waiter.clone(),
            owner,
        };
        owners.map(edge).collect()
    }

    /// Whether there are waits elsewhere is the business of the homes.
    fn knows(&self, _family: Uid) -> bool {
        true
    }
}
