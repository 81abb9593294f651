//! Homes of families of actions that are lost: who knows of their waits instead.
//!
//! The waits of a family are told to its home, the node where its first call went. With objects
//! whose next leader goes on with running actions a family outlives that node, and its cycles are
//! to be found all the same. Any node can do a home's work, as long as all lock managers tell the
//! same one: it is the next node behind the lost one, by identity, that can be reached. What the
//! lost one knew is told again to its substitute, since waits are told again and again.
//!
//! Who cannot be reached from here may be reached by others. Then waits of one family are told in
//! two places, and a cycle through both ends by the time-out of a lock, as where messages get lost.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use partha_core::action::message::Message;
use partha_core::id::{NodeId, Uid};

use super::Shard;
use crate::wire::message;

/// For so long a substitute is not looked for again.
const FRESH: Duration = Duration::from_secs(1);
/// Lost homes that are known at a time.
const LOST_MAX: usize = 1_024;
/// Nodes that are tried in the place of a lost one.
const TRIES_MAX: usize = 8;

/// Substitutes of lost homes: since when, and none while they are looked for.
#[derive(Default)]
pub(super) struct Homes(HashMap<NodeId, (Instant, Option<NodeId>)>);

impl Homes {
    /// The substitute, if it is known; or whether one is to be looked for.
    fn of(&mut self, lost: NodeId) -> Result<NodeId, bool> {
        self.0.retain(|_, (since, _)| since.elapsed() < FRESH);
        match self.0.get(&lost) {
            Some((_, Some(substitute))) => Ok(*substitute),
            Some((_, None)) => Err(false),
            None => Err(self.0.len() < LOST_MAX),
        }
    }
}

impl Shard {
    /// Tells the home of a family something about its waits, or whoever takes the place of that.
    pub(super) fn send_home(self: &Rc<Self>, node: NodeId, root: Uid, message: Message) {
        let (from, shard) = (self.handle.index(), message::Shard::Of(root));
        if node == self.registry.me.node || self.is_connected(node) {
            return self.send_as(from, node, shard, message);
        }
        let known = self.homes.borrow_mut().of(node);
        match known {
            Ok(substitute) => self.send_as(from, substitute, shard, message),
            // It is told again.
            Err(false) => {}
            Err(true) => {
                let since = Instant::now();
                self.homes.borrow_mut().0.insert(node, (since, None));
                let this = self.clone();
                self.spawn(async move {
                    let home = this.home_instead_of(node).await;
                    let found = (Instant::now(), Some(home));
                    this.homes.borrow_mut().0.insert(node, found);
                    this.send_as(from, home, shard, message);
                });
            }
        }
    }

    /// The node itself if it can be reached, else the next one that can.
    async fn home_instead_of(&self, node: NodeId) -> NodeId {
        if self.is_there(node).await {
            return node;
        }
        let nodes = match self.client.locator().nodes(&self.client).await {
            Ok(nodes) => nodes,
            Err(error) => {
                tracing::debug!(%node, %error, "the binder does not say who else is there");
                return node;
            }
        };
        let others = nodes.iter().map(|entry| NodeId(entry.node));
        for other in in_turn(node, others).take(TRIES_MAX) {
            if other == self.registry.me.node || self.is_there(other).await {
                tracing::debug!(%node, instead = %other, "a home is lost");
                return other;
            }
        }
        node
    }
}

/// The others, by identity, those behind the node first.
fn in_turn(node: NodeId, others: impl Iterator<Item = NodeId>) -> impl Iterator<Item = NodeId> {
    let mut others: Vec<NodeId> = others.filter(|other| *other != node).collect();
    others.sort_unstable_by_key(|other| (*other < node, *other));
    others.dedup();
    others.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_find_the_same_substitute_whatever_order_they_hear_of() {
        let nodes = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<Vec<_>>();
        let turn = |node, ids: &[u64]| in_turn(NodeId(node), nodes(ids).into_iter());
        assert_eq!(
            turn(5, &[9, 1, 5, 7]).collect::<Vec<_>>(),
            nodes(&[7, 9, 1])
        );
        assert_eq!(
            turn(5, &[7, 5, 9, 1, 7]).collect::<Vec<_>>(),
            nodes(&[7, 9, 1])
        );
        assert_eq!(turn(9, &[1, 7, 9]).collect::<Vec<_>>(), nodes(&[1, 7]));
        assert_eq!(turn(9, &[9]).count(), 0);
    }

    #[test]
    fn one_is_looked_for_once_and_for_no_more_than_so_many() {
        let mut homes = Homes::default();
        assert_eq!(homes.of(NodeId(1)), Err(true));
        homes.0.insert(NodeId(1), (Instant::now(), None));
        assert_eq!(homes.of(NodeId(1)), Err(false));
        homes.0.insert(NodeId(1), (Instant::now(), Some(NodeId(2))));
        assert_eq!(homes.of(NodeId(1)), Ok(NodeId(2)));
        for id in 2..=LOST_MAX as u64 {
            assert_eq!(homes.of(NodeId(id)), Err(true));
            homes.0.insert(NodeId(id), (Instant::now(), None));
        }
        assert_eq!(homes.of(NodeId(5_000)), Err(false));
        assert_eq!(homes.of(NodeId(1)), Ok(NodeId(2)));
    }
}
