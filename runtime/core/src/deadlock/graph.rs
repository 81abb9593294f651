//! The graph of waits and what is read off it, as pure functions.
//!
//! The rules are those of nested actions: a waiter does not wait for the owner of a lock itself,
//! but for the outermost action around it whose end brings the lock to an ancestor of the waiter
//! or sets it free ([`target`]); and an action cannot end before all that is inside it has.

use std::collections::{BTreeSet, VecDeque};

use super::{EDGES_MAX, WALK_MAX};
use crate::action::message::Edge;
use crate::action::path::Path;
use crate::id::Uid;

/// What must end before the waiter can have what the owner has: the owner's ancestor (or itself)
/// just below what both have in common, but at most its top-level action, which takes its locks
/// with it whatever encloses it.
///
/// None if the owner is the waiter itself or one that the waiter is inside of: waiting for that
/// one is no edge, but a re-entry, which is refused at once.
pub(super) fn target(waiter: &Path, owner: &Path) -> Option<Uid> {
    let common = common(waiter, owner);
    if common == owner.whole().len() {
        return None;
    }
    owner.whole().get(common.max(owner.enclosing())).copied()
}

/// How many entries two paths begin with that are the same.
fn common(a: &Path, b: &Path) -> usize {
    let pairs = a.whole().iter().zip(b.whole());
    pairs.take_while(|(a, b)| a == b).count()
}

/// Whether each edge leads to the next one: what it waits for waits there.
pub(super) fn is_chain(edges: &[Edge]) -> bool {
    edges.windows(2).all(|pair| leads(&pair[0], &pair[1]))
}

/// Whether the edges are a chain whose end leads to its beginning: none of the waits can end.
pub(super) fn is_cycle(edges: &[Edge]) -> bool {
    let closed = match edges {
        [first, .., last] => leads(last, first),
        [_] | [] => false,
    };
    closed && is_chain(edges)
}

fn leads(from: &Edge, to: &Edge) -> bool {
    let target = target(&from.waiter.path, &from.owner.path);
    target.is_some_and(|action| to.waiter.path.whole().contains(&action))
}

/// The cycle with the edge of its victim first, and the victim: what the waiter of that edge
/// must abort.
///
/// The victim's family is the youngest in the cycle, so that the oldest always gets on; whoever
/// finds the cycle, from whichever edge on, chooses the same. In that family it is the smallest
/// action that sets free what the others wait for: the level that owns the lock, if that is the
/// waiter or around it; else the part of the waiter that the owner's ancestor has to wait for.
pub(super) fn choose(mut cycle: Vec<Edge>) -> (Vec<Edge>, Uid) {
    let age = |edge: &Edge| {
        let path = &edge.waiter.path;
        let family = (edge.waiter.born_ms, path.whole().first().copied());
        (family, path.clone(), edge.wait)
    };
    let youngest = (0..cycle.len()).max_by_key(|at| age(&cycle[*at]));
    cycle.rotate_left(youngest.expect("a cycle has edges"));
    let held = cycle.last().expect("a cycle has edges");
    let victim = level(&held.owner.path, &cycle[0].waiter.path);
    (cycle, victim)
}

/// The action to abort in `waiter`, when others wait for what `owner` has.
fn level(owner: &Path, waiter: &Path) -> Uid {
    let (common, waiter) = (common(owner, waiter), waiter.whole());
    let around = common == owner.whole().len();
    let at = if around { common - 1 } else { common };
    // The waiter is around the owner: what it waits for, it waits for itself.
    let at = at.min(waiter.len() - 1);
    waiter[at]
}

/// A part of the graph.
pub(super) trait Graph {
    /// The name of a wait.
    type Wait: Copy + Ord;

    /// The waits whose waiter is the action, or inside of it.
    fn inside(&self, action: Uid) -> Vec<Self::Wait>;

    /// The edges of a wait.
    fn edges(&self, wait: Self::Wait) -> Vec<Edge>;

    /// Whether a family whose waits are all known here has any.
    fn knows(&self, family: Uid) -> bool;
}

/// What a walk came to.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// Ways back to the initiator, shortest first, each with the trail before it: for each wait
    /// that leads back, the shortest way to it.
    pub(super) cycles: Vec<Vec<Edge>>,
    /// Ways whose last edge leads to a family that is not known here, each with the trail.
    pub(super) beyond: Vec<Vec<Edge>>,
}

/// One step of a walk: an edge, and the step before it.
struct Step {
    edge: Edge,
    before: Option<usize>,
}

/// Walks from `first` on, breadth first, until so many ways lead to where the initiator is in.
///
/// `trail` is how one came here, the initiator's edge first; if it is empty, the initiator is
/// `first`. `enter` says whether a target is to be followed; it is asked once for each edge.
pub(super) fn walk<G: Graph>(
    graph: &G,
    (initiator, cycles_max): (&Path, usize),
    trail: &[Edge],
    first: Vec<G::Wait>,
    mut enter: impl FnMut(Uid) -> bool,
) -> Walk {
    let mut found = Walk::default();
    let mut steps: Vec<Step> = Vec::new();
    let mut visited: BTreeSet<G::Wait> = first.iter().copied().collect();
    let mut ahead: VecDeque<(G::Wait, Option<usize>)> =
        first.into_iter().map(|wait| (wait, None)).collect();
    let mut walked = 0;
    while let Some((wait, before)) = ahead.pop_front() {
        walked += 1;
        if walked > WALK_MAX || depth(&steps, before) + trail.len() >= EDGES_MAX {
            break;
        }
        for edge in graph.edges(wait) {
            if trail.iter().any(|passed| passed.wait == edge.wait) {
                break;
            }
            let Some(target) = target(&edge.waiter.path, &edge.owner.path) else {
                continue;
            };
            let closes = initiator.whole().contains(&target);
            if !closes && !enter(target) {
                continue;
            }
            let family = edge.owner.path.whole()[0];
            steps.push(Step { edge, before });
            let here = steps.len() - 1;
            if closes {
                found.cycles.push(way(trail, &steps, here));
                if found.cycles.len() == cycles_max {
                    return found;
                }
                break;
            }
            let inside = graph.inside(target);
            if inside.is_empty() && !graph.knows(family) && found.beyond.len() < WALK_MAX {
                found.beyond.push(way(trail, &steps, here));
            }
            let fresh = inside.into_iter().filter(|next| visited.insert(*next));
            ahead.extend(fresh.map(|next| (next, Some(here))));
        }
    }
    found
}

fn depth(steps: &[Step], mut at: Option<usize>) -> usize {
    let mut depth = 0;
    while let Some(step) = at {
        depth += 1;
        at = steps[step].before;
    }
    depth
}

fn way(trail: &[Edge], steps: &[Step], last: usize) -> Vec<Edge> {
    let mut edges = Vec::new();
    let mut at = Some(last);
    while let Some(step) = at {
        edges.push(steps[step].edge.clone());
        at = steps[step].before;
    }
    edges.extend(trail.iter().rev().cloned());
    edges.reverse();
    edges
}
