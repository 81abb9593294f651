//! The home's role: all waits of the families in its care, walks over homes, confirmation.

use std::collections::{BTreeMap, BTreeSet};

use super::graph::{self, Graph, Walk};
use super::{
    CONFIRM_WAIT, CYCLES_MAX, EDGES_MAX, HEARD_FOR, HEARD_MAX, REPEAT, SEEN_FOR, SEEN_MAX,
    SUSPECTS_MAX,
};
use crate::action::message::{Deadlock, Edge, From, To, WaitId};
use crate::action::path::Site;
use crate::id::{Incarnation, NodeId, Peer, Uid};
use crate::time::Time;

/// Less than all waits.
const FIRST: WaitId = WaitId {
    site: Site {
        node: NodeId(0),
        shard: 0,
    },
    incarnation: Incarnation(0),
    number: 0,
};

/// Bits of a cycle's number that count; above them is the incarnation, so that no answer to an
/// earlier life is taken for one to this.
const COUNT_BITS: u32 = 40;

/// A wait as its lock manager reported it.
#[derive(Debug)]
struct Heard {
    edges: Vec<Edge>,
    at: Time,
    walked: Time,
}

/// A cycle in confirmation.
#[derive(Debug)]
struct Suspect {
    /// The victim's edge first.
    cycle: Vec<Edge>,
    victim: Uid,
    missing: BTreeSet<WaitId>,
    until: Time,
}

/// The families in the care of one shard.
#[derive(Debug)]
pub(super) struct Home {
    me: Site,
    confirm: bool,
    one_victim: bool,
    waits: BTreeMap<WaitId, Heard>,
    /// Each wait under each action that its waiter is inside of.
    inside: BTreeSet<(Uid, WaitId)>,
    /// At which target a walk was, from which wait and by which target of it it began, and when.
    seen: BTreeMap<(Uid, WaitId, Uid), Time>,
    suspects: BTreeMap<u64, Suspect>,
    next_cycle: u64,
    /// When the tables are looked through for what is out of date.
    tidy_at: Option<Time>,
}

impl Home {
    pub(super) fn new(me: Site, incarnation: Incarnation, confirm: bool, one_victim: bool) -> Self {
        Self {
            me,
            confirm,
            one_victim,
            waits: BTreeMap::new(),
            inside: BTreeSet::new(),
            seen: BTreeMap::new(),
            suspects: BTreeMap::new(),
            next_cycle: u64::from(incarnation.0) << COUNT_BITS,
            tidy_at: None,
        }
    }

    /// A lock manager reports a wait: it began, has other owners, or goes on.
    pub(super) fn waits(
        &mut self,
        now: Time,
        from: From,
        edges: Vec<Edge>,
        posts: &mut Vec<(To, Deadlock)>,
    ) {
        let Some(first) = edges.first().filter(|_| is_report(from, &edges)) else {
            return;
        };
        let (id, path) = (first.wait, first.waiter.path.clone());
        let known = self.waits.get(&id);
        if known.is_none() && self.waits.len() >= HEARD_MAX {
            return;
        }
        let old = known.map(|heard| heard.edges.clone()).unwrap_or_default();
        let walked = known.map(|heard| heard.walked);
        let due = walked.is_none_or(|at| at.after(REPEAT / 2) <= now);
        let walked = walked.filter(|_| !due).unwrap_or(now);
        let entries = path.whole().iter().map(|action| (*action, id));
        self.inside.extend(entries);
        if !edges.iter().all(|edge| old.contains(edge)) {
            for action in path.whole() {
                self.forget_seen(*action);
            }
        }
        let at = now;
        self.waits.insert(id, Heard { edges, at, walked });
        self.tidy_later(now);
        // What leads on from an edge that was walked before is in the care of later reports.
        let edges = self.waits[&id].edges.clone();
        let walks = edges.into_iter().filter(|edge| due || !old.contains(edge));
        let mut found = Walk::default();
        for edge in walks {
            self.follow(now, vec![edge], &mut found);
        }
        self.done(now, found, posts);
    }

    /// A wait is over.
    pub(super) fn resumed(&mut self, from: From, wait: WaitId) {
        if is_from(from, wait) {
            self.forget(wait);
        }
    }

    /// A walk from another home arrives.
    pub(super) fn probe(&mut self, now: Time, edges: Vec<Edge>, posts: &mut Vec<(To, Deadlock)>) {
        if edges.is_empty() || edges.len() > EDGES_MAX || !graph::is_chain(&edges) {
            return;
        }
        self.tidy_later(now);
        let mut found = Walk::default();
        self.follow(now, edges, &mut found);
        self.done(now, found, posts);
    }

    /// A lock manager says whether an edge of a cycle is there.
    pub(super) fn confirmed(
        &mut self,
        now: Time,
        from: From,
        (cycle, wait, holds): (u64, WaitId, bool),
        posts: &mut Vec<(To, Deadlock)>,
    ) {
        let Some(suspect) = self.suspects.get_mut(&cycle) else {
            return;
        };
        if suspect.until <= now || !is_from(from, wait) || !suspect.missing.contains(&wait) {
            return;
        }
        suspect.missing.remove(&wait);
        if holds && !suspect.missing.is_empty() {
            return;
        }
        let suspect = self.suspects.remove(&cycle).expect("it was found above");
        if holds {
            self.break_up(suspect.cycle, suspect.victim, posts);
        } else {
            let gone = suspect.cycle.into_iter().find(|edge| edge.wait == wait);
            self.forget_edge(&gone.expect("it was asked for"));
        }
    }

    /// A life of a node is over, or cannot be heard any more.
    pub(super) fn peer_gone(&mut self, peer: Peer) {
        let from =
            |wait: &WaitId| wait.site.node == peer.node && wait.incarnation <= peer.incarnation;
        let gone: Vec<WaitId> = self.waits.keys().copied().filter(from).collect();
        for wait in gone {
            self.forget(wait);
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Time> {
        self.tidy_at
    }

    /// Forgets what is out of date.
    pub(super) fn tidy(&mut self, now: Time) {
        if self.tidy_at.is_none_or(|at| at > now) {
            return;
        }
        let old = |heard: &Heard| heard.at.after(HEARD_FOR) <= now;
        let gone = self.waits.iter().filter(|(_, heard)| old(heard));
        let gone: Vec<WaitId> = gone.map(|(wait, _)| *wait).collect();
        for wait in gone {
            self.forget(wait);
        }
        self.seen.retain(|_, at| at.after(SEEN_FOR) > now);
        self.suspects.retain(|_, suspect| suspect.until > now);
        let empty = self.waits.is_empty() && self.seen.is_empty() && self.suspects.is_empty();
        self.tidy_at = (!empty).then_some(now.after(SEEN_FOR));
    }

    /// How many waits are noted, targets are remembered, cycles are in confirmation.
    pub(super) fn sizes(&self) -> [usize; 3] {
        [self.waits.len(), self.seen.len(), self.suspects.len()]
    }

    pub(super) fn check(&self) {
        let paths = self.waits.values().map(|heard| &heard.edges[0].waiter.path);
        let entries: usize = paths.map(|path| path.whole().len()).sum();
        assert!(self.inside.len() == entries, "waits are indexed wrongly");
        assert!(self.waits.len() <= HEARD_MAX, "too many waits are noted");
        assert!(self.seen.len() <= SEEN_MAX, "too many walks are remembered");
        assert!(self.suspects.len() <= SUSPECTS_MAX, "too many suspects");
        assert!(
            self.sizes() == [0; 3] || self.tidy_at.is_some(),
            "nothing reminds a home of what it knows"
        );
    }

    /// Walks on from the last target of a way, unless a walk that began with the same edge was
    /// there.
    fn follow(&mut self, now: Time, edges: Vec<Edge>, found: &mut Walk) {
        let (first, last) = (&edges[0], &edges[edges.len() - 1]);
        let begins = graph::target(&first.waiter.path, &first.owner.path);
        let ends = graph::target(&last.waiter.path, &last.owner.path);
        let (Some(begins), Some(ends)) = (begins, ends) else {
            return;
        };
        let view = View {
            waits: &self.waits,
            inside: &self.inside,
        };
        let mut enter = |target| {
            let key = (target, first.wait, begins);
            let seen = self.seen.get(&key);
            let fresh = seen.is_none_or(|at| at.after(SEEN_FOR) <= now);
            let room = seen.is_some() || self.seen.len() < SEEN_MAX;
            if fresh && room {
                self.seen.insert(key, now);
            }
            fresh && room
        };
        if !enter(ends) {
            return;
        }
        let start = view.inside(ends);
        if start.is_empty() && !view.knows(last.owner.path.whole()[0]) {
            found.beyond.push(edges);
            return;
        }
        let whose = (&first.waiter.path, CYCLES_MAX);
        let more = graph::walk(&view, whose, &edges, start, enter);
        found.cycles.extend(more.cycles);
        found.beyond.extend(more.beyond);
    }

    fn done(&mut self, now: Time, found: Walk, posts: &mut Vec<(To, Deadlock)>) {
        self.suspect_all(now, found.cycles, posts);
        for edges in found.beyond {
            let owner = &edges[edges.len() - 1].owner;
            let to = To::Home {
                node: owner.home,
                root: owner.path.whole()[0],
            };
            posts.push((to, Deadlock::Probe { edges }));
        }
    }

    /// All of these cycles have their first wait in common: if it is the victim of one of them,
    /// the others need none.
    fn suspect_all(&mut self, now: Time, cycles: Vec<Vec<Edge>>, posts: &mut Vec<(To, Deadlock)>) {
        let Some(first) = cycles.first().map(|cycle| cycle[0].wait) else {
            return;
        };
        let sound = cycles.into_iter().filter(|cycle| graph::is_cycle(cycle));
        let mut chosen: Vec<(Vec<Edge>, Uid)> = sound.map(graph::choose).collect();
        if let Some(at) = chosen.iter().position(|(cycle, _)| cycle[0].wait == first) {
            chosen = vec![chosen.swap_remove(at)];
        }
        for (cycle, victim) in chosen {
            self.suspect(now, cycle, victim, posts);
        }
    }

    fn suspect(
        &mut self,
        now: Time,
        cycle: Vec<Edge>,
        victim: Uid,
        posts: &mut Vec<(To, Deadlock)>,
    ) {
        if !self.confirm {
            return self.break_up(cycle, victim, posts);
        }
        self.suspects.retain(|_, suspect| suspect.until > now);
        let known = self.suspects.values().any(|other| other.cycle == cycle);
        if known || self.suspects.len() >= SUSPECTS_MAX {
            return;
        }
        let number = self.next_cycle;
        self.next_cycle += 1;
        for edge in &cycle {
            let (to, edge) = (To::Site(edge.wait.site), edge.clone());
            let confirm = Deadlock::Confirm {
                cycle: number,
                to: self.me,
                edge,
            };
            posts.push((to, confirm));
        }
        let suspect = Suspect {
            missing: cycle.iter().map(|edge| edge.wait).collect(),
            cycle,
            victim,
            until: now.after(CONFIRM_WAIT),
        };
        self.suspects.insert(number, suspect);
    }

    fn break_up(&self, mut cycle: Vec<Edge>, victim: Uid, posts: &mut Vec<(To, Deadlock)>) {
        let mut victim = victim;
        let times = if self.one_victim { 1 } else { cycle.len() };
        for _ in 0..times {
            let wait = cycle[0].wait;
            let end = Deadlock::Break {
                wait,
                victim,
                cycle: cycle.clone(),
            };
            posts.push((To::Site(wait.site), end));
            cycle.rotate_left(1);
            let path = &cycle[0].waiter.path;
            victim = *path.whole().last().expect("whoever waits has a name");
        }
    }

    fn forget(&mut self, wait: WaitId) {
        if let Some(heard) = self.waits.remove(&wait) {
            for action in heard.edges[0].waiter.path.whole() {
                self.inside.remove(&(*action, wait));
            }
        }
    }

    fn forget_edge(&mut self, edge: &Edge) {
        let Some(heard) = self.waits.get_mut(&edge.wait) else {
            return;
        };
        if heard.edges.len() > 1 {
            heard.edges.retain(|other| other != edge);
        } else if heard.edges[0] == *edge {
            self.forget(edge.wait);
        }
    }

    /// A wait inside of the action is new: walks that were here before have missed it.
    fn forget_seen(&mut self, action: Uid) {
        let range = self.seen.range((action, FIRST, Uid::NIL)..);
        let stale = range.take_while(|((seen, ..), _)| *seen == action);
        let stale: Vec<(Uid, WaitId, Uid)> = stale.map(|(key, _)| *key).collect();
        for key in stale {
            self.seen.remove(&key);
        }
    }

    fn tidy_later(&mut self, now: Time) {
        self.tidy_at.get_or_insert_with(|| now.after(SEEN_FOR));
    }
}

/// Whether a message about a wait comes from where it waits.
fn is_from(from: From, wait: WaitId) -> bool {
    let peer = Peer {
        node: wait.site.node,
        incarnation: wait.incarnation,
    };
    from.peer == peer && from.shard == wait.site.shard
}

/// Whether these are the edges of one wait of the sender's.
fn is_report(from: From, edges: &[Edge]) -> bool {
    let first = &edges[0];
    let same = |edge: &Edge| {
        edge.wait == first.wait
            && edge.waiter == first.waiter
            && !edge.owner.path.whole().is_empty()
    };
    let bounded = edges.len() <= EDGES_MAX && !first.waiter.path.whole().is_empty();
    bounded && is_from(from, first.wait) && edges.iter().all(same)
}

/// The waits that a home knows.
struct View<'a> {
    waits: &'a BTreeMap<WaitId, Heard>,
    inside: &'a BTreeSet<(Uid, WaitId)>,
}

impl Graph for View<'_> {
    type Wait = WaitId;

    fn inside(&self, action: Uid) -> Vec<WaitId> {
        let range = self.inside.range((action, FIRST)..);
        let inside = range.take_while(|(other, _)| *other == action);
        inside.map(|(_, wait)| *wait).collect()
    }

    fn edges(&self, wait: WaitId) -> Vec<Edge> {
        self.waits[&wait].edges.clone()
    }

    fn knows(&self, family: Uid) -> bool {
        let next = self.inside.range((family, FIRST)..).next();
        next.is_some_and(|(action, _)| *action == family)
    }
}
