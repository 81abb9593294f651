//! Deadlocks are found, and nothing else is: a cycle of waits does not last, and whoever is
//! refused because of one was in one.
//!
//! Keeps the true graph of waits over all shards, from what the engines say they wait for, with
//! the times at which each edge was there. The rule is that of the engines, written once more:
//! a waiter waits for the part of the owner's path that must end for it to go on, and for all
//! that waits within.

use std::collections::{BTreeMap, BTreeSet};

use partha_core::Engine;
use partha_core::action::message::Edge;
use partha_core::action::path::Path;
use partha_core::engine::LockView;
use partha_core::id::Uid;

use super::locks;
use crate::actions::plan::S;
use crate::actions::world::{Check, Place, World};

/// A cycle of waits may last this long once nothing goes wrong any more: 100 ms until it is
/// looked for, a second each until it is looked for again and until a confirmation is given up.
const LASTS_NS: u64 = 6 * S;

/// A deadlock that an engine says it has broken.
#[derive(Clone, Debug)]
pub(crate) struct Broken {
    pub(crate) victim: Uid,
    pub(crate) cycle: Vec<Edge>,
}

impl Broken {
    pub(crate) fn new(victim: Uid, cycle: &[Edge]) -> Self {
        let cycle = cycle.to_vec();
        Self { victim, cycle }
    }
}

/// Node, life, shard, object, path of the waiter, path of the owner.
type Key = (usize, u32, usize, Uid, Path, Path);

/// The graph of waits, now and before.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    /// With the time since when each is there, and whether it is one of the lock's own: the
    /// others lead through those that the waiter stands behind.
    now: BTreeMap<Key, (u64, bool)>,
    past: BTreeMap<Key, Vec<(u64, u64)>>,
    /// Edges of a cycle, and since when they are of one.
    stuck: BTreeMap<Key, u64>,
}

impl Waits {
    /// Looks at a shard after an input.
    pub(crate) fn look(
        &mut self,
        now: u64,
        at: Place,
        engine: &Engine,
        broken: &[Broken],
    ) -> Check {
        let mut edges = BTreeMap::new();
        if engine.stats().locks > 0 {
            for view in engine.locks() {
                locks::check(&view)?;
                enter(at, &view, &mut edges);
            }
        }
        for it in broken {
            self.check_broken(now, at, it)?;
        }
        let mine = |key: &Key| (key.0, key.1, key.2) == (at.node, at.life, at.shard);
        let gone = self
            .now
            .keys()
            .filter(|key| mine(key) && !edges.contains_key(*key));
        for key in gone.cloned().collect::<Vec<_>>() {
            self.end(&key, now);
        }
        for (key, direct) in edges {
            self.now.entry(key).or_insert((now, direct)).1 = direct;
        }
        Ok(())
    }

    fn end(&mut self, key: &Key, now: u64) {
        let (since, _) = self.now.remove(key).expect("it was there");
        self.past.entry(key.clone()).or_default().push((since, now));
    }

    /// A node died, and all that waited there.
    pub(crate) fn gone(&mut self, now: u64, node: usize) {
        let gone = self.now.keys().filter(|key| key.0 == node);
        for key in gone.cloned().collect::<Vec<_>>() {
            self.end(&key, now);
        }
    }

    /// Whoever is refused was in a cycle: all of its edges were there at one time.
    fn check_broken(&self, now: u64, at: Place, broken: &Broken) -> Check {
        let Broken { victim, cycle } = broken;
        for (index, edge) in cycle.iter().enumerate() {
            let next = &cycle[(index + 1) % cycle.len()];
            let leads = target(&edge.waiter.path, &edge.owner.path)
                .is_some_and(|target| next.waiter.path.whole().contains(&target));
            if !leads {
                return Err(format!(
                    "phantom: this is no cycle: {edge:?} to {next:?} in {cycle:?}"
                ));
            }
        }
        let first = cycle.first().ok_or("phantom: a cycle without edges")?;
        if !first.waiter.path.whole().contains(victim) {
            return Err(format!(
                "phantom: victim {victim} is not in {:?}",
                first.waiter
            ));
        }
        let mut common = vec![(0, u64::MAX)];
        let mut known: Vec<Vec<(u64, u64)>> = Vec::new();
        for edge in cycle {
            let node = World::node_of(edge.wait.site.node);
            let here = (node, usize::from(edge.wait.site.shard)) == (at.node, at.shard);
            let key: Key = (
                node,
                edge.wait.incarnation.0,
                edge.wait.site.shard.into(),
                edge.object,
                edge.waiter.path.clone(),
                edge.owner.path.clone(),
            );
            let mut spans = self.past.get(&key).cloned().unwrap_or_default();
            spans.extend(self.now.get(&key).map(|(since, _)| (*since, u64::MAX)));
            if here {
                // It may have come about in this very input.
                spans.push((now, now));
            }
            common = overlap(&common, &spans);
            known.push(spans);
        }
        if common.is_empty() {
            return Err(format!(
                "phantom: {victim} is refused for what never was, {known:?}: {cycle:?}"
            ));
        }
        Ok(())
    }

    /// Looks for cycles that last.
    pub(crate) fn watch(&mut self, now: u64, healed_at: u64, draining: bool) -> Check {
        if draining {
            self.stuck.clear();
            return Ok(());
        }
        let caught = self.caught();
        self.stuck.retain(|key, _| caught.contains(key));
        for key in caught {
            let since = *self.stuck.entry(key.clone()).or_insert(now);
            if now > since.max(healed_at) + LASTS_NS {
                let all: Vec<&Key> = self.stuck.keys().collect();
                return Err(format!("deadlock: it lasts since {since}: {all:?}"));
            }
        }
        Ok(())
    }

    /// The edges of all cycles.
    fn caught(&self) -> BTreeSet<Key> {
        let edges = self.now.iter().filter(|(_, (_, direct))| *direct);
        let edges: Vec<&Key> = edges.map(|(key, _)| key).collect();
        let follows: Vec<Vec<usize>> = edges
            .iter()
            .map(|edge| {
                let Some(target) = target(&edge.4, &edge.5) else {
                    return Vec::new();
                };
                let waits = edges.iter().enumerate();
                waits
                    .filter(|(_, next)| next.4.whole().contains(&target))
                    .map(|(next, _)| next)
                    .collect()
            })
            .collect();
        let mut caught = BTreeSet::new();
        for start in 0..edges.len() {
            let (mut todo, mut seen) = (follows[start].clone(), BTreeSet::new());
            while let Some(edge) = todo.pop() {
                if seen.insert(edge) {
                    todo.extend(&follows[edge]);
                }
            }
            if seen.contains(&start) {
                caught.insert(edges[start].clone());
            }
        }
        caught
    }
}

/// Enters whom the waiters of a lock wait for, and whom those wait for that they stand behind.
fn enter(at: Place, view: &LockView, edges: &mut BTreeMap<Key, bool>) {
    for (index, waiter) in view.waiters.iter().enumerate() {
        for owner in owners(view, index, view.waiters.len()) {
            edges.insert(key(at, view.uid, &waiter.path, &owner), true);
        }
        let (mut todo, mut seen) = (waiter.blockers.clone(), Vec::new());
        while let Some(path) = todo.pop() {
            if !seen.contains(&path) {
                let same = view.waiters.iter().filter(|waiter| waiter.path == path);
                todo.extend(same.flat_map(|waiter| waiter.blockers.clone()));
                let key = key(at, view.uid, &waiter.path, &path);
                edges.entry(key).or_insert(false);
                seen.push(path);
            }
        }
    }
}

/// Who has the lock and excludes a waiter. If nobody does, those who exclude the first request
/// that it stands behind: if that one never gets on, there is a cycle without the waiter; if it
/// does, it has the lock then. Where their end means another thing to it than to the waiter, it
/// is the request itself.
fn owners(view: &LockView, waiter: usize, deep: usize) -> Vec<Path> {
    let it = &view.waiters[waiter];
    let excludes = |path: &&Path| {
        let mut holders = view.holders.iter();
        holders.any(|holder| holder.path == **path && holder.mode.excludes(it.mode))
    };
    let held: Vec<Path> = it.blockers.iter().filter(excludes).cloned().collect();
    if !held.is_empty() || deep == 0 {
        return held;
    }
    let mut queue = view.waiters.iter().enumerate();
    let first = queue.find(|(n, other)| *n != waiter && it.blockers.contains(&other.path));
    let Some((first, other)) = first else {
        return Vec::new();
    };
    let mut owners = owners(view, first, deep - 1);
    let all = owners.len();
    owners.retain(|owner| target(&it.path, owner) == target(&other.path, owner));
    if owners.len() < all {
        owners.push(other.path.clone());
    }
    owners
}

fn key(at: Place, object: Uid, waiter: &Path, owner: &Path) -> Key {
    let (waiter, owner) = (waiter.clone(), owner.clone());
    (at.node, at.life, at.shard, object, waiter, owner)
}

/// What must end for the waiter to go on: the part of the owner's path just below what both
/// have in common, or its top-level action, if that is nested in more. None if the waiter is
/// within the owner.
fn target(waiter: &Path, owner: &Path) -> Option<Uid> {
    let pairs = waiter.whole().iter().zip(owner.whole());
    let common = pairs.take_while(|(one, other)| one == other).count();
    let (all, enclosing) = (owner.whole(), owner.enclosing());
    let within = common < all.len();
    within.then(|| all[common.max(enclosing)])
}

/// Times that are in a span of both.
fn overlap(one: &[(u64, u64)], other: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let pairs = one
        .iter()
        .flat_map(|one| other.iter().map(move |other| (one, other)));
    let common = pairs.map(|(one, other)| (one.0.max(other.0), one.1.min(other.1)));
    common.filter(|(from, to)| from <= to).collect()
}
