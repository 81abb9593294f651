//! When each node was last heard of: known in memory alone.
//!
//! After a restart of the binder no node has been heard of; each learns so from the answer to
//! its next heartbeat, and registers again. So nothing is written for a heartbeat.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use partha::Timestamp;

/// The nodes that were heard of in this life of the binder.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    nodes: Mutex<HashMap<u64, Heard>>,
    /// Nodes whose name is held by another one.
    contested: Mutex<HashSet<u64>>,
}

#[derive(Clone, Copy, Debug)]
struct Heard {
    incarnation: u32,
    /// For comparisons: the wall clock may be set.
    at: Instant,
    /// For people.
    wall: Timestamp,
}

impl Leases {
    /// A node was heard of: with `known` false only if this life of it is known.
    pub(crate) fn hear(&self, node: u64, incarnation: u32, known: bool) -> bool {
        let heard = Heard {
            incarnation,
            at: Instant::now(),
            wall: Timestamp::now(),
        };
        let mut nodes = self.lock();
        if !known
            && nodes
                .get(&node)
                .is_none_or(|before| before.incarnation != incarnation)
        {
            return false;
        }
        nodes.insert(node, heard);
        known
            || !self
                .contested
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .contains(&node)
    }

    /// Whether a node's name is held by another one: then each heartbeat asks it to register
    /// again, until it gets the name.
    pub(crate) fn contest(&self, node: u64, contested: bool) {
        let mut nodes = self
            .contested
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if contested {
            nodes.insert(node);
        } else {
            nodes.remove(&node);
        }
    }

    /// A life of a node has ended in good order.
    pub(crate) fn leave(&self, node: u64, incarnation: u32) {
        let mut nodes = self.lock();
        if nodes
            .get(&node)
            .is_some_and(|heard| heard.incarnation == incarnation)
        {
            nodes.remove(&node);
        }
    }

    /// Whether a node has been heard of within `lease`, and when last.
    pub(crate) fn state(&self, node: u64, lease: Duration) -> (bool, Option<Timestamp>) {
        match self.lock().get(&node) {
            Some(heard) => (heard.at.elapsed() <= lease, Some(heard.wall)),
            None => (false, None),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Heard>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn only_a_registered_life_is_kept_alive() {
        let leases = Leases::default();
        assert!(!leases.hear(7, 1, false));
        assert_eq!(leases.state(7, LONG), (false, None));
        assert!(leases.hear(7, 1, true));
        assert!(leases.hear(7, 1, false));
        assert!(leases.state(7, LONG).0);
        assert!(!leases.hear(7, 2, false));
    }

    #[test]
    fn a_lease_runs_out() {
        let leases = Leases::default();
        leases.hear(7, 1, true);
        let short = Duration::from_millis(1);
        test_support::eventually(LONG, || !leases.state(7, short).0);
        assert!(
            leases.state(7, short).1.is_some(),
            "it is known when it was heard of"
        );
    }

    #[test]
    fn an_older_life_cannot_sign_off_for_a_newer_one() {
        let leases = Leases::default();
        leases.hear(7, 2, true);
        leases.leave(7, 1);
        assert!(leases.state(7, LONG).0);
        leases.leave(7, 2);
        assert!(!leases.state(7, LONG).0);
    }
}
