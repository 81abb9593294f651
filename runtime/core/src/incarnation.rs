//! Late messages of dead callers (Rajdoot's measure M2).
//!
//! A caller process raises its incarnation at each start. Whoever has seen a newer one refuses
//! calls of an older one: their sender is gone, and what they would do is not wanted any more.
//!
//! | known for the node | older comes | same comes | newer comes |
//! |---|---|---|---|
//! | nothing | – | – | noted |
//! | an incarnation | refused | noted as heard | noted; the older one's calls and bindings end |
//!
//! The table is bounded; the node not heard of for longest is forgotten first. That is safe in
//! the common case (a late message is late by seconds, not by 65,536 callers) and never needed
//! for at-most-once, which rests on call ids.

use std::collections::BTreeMap;

use crate::id::{Incarnation, NodeId};
use crate::list::{Link, Linked, List};
use crate::slab::{Slab, Slot};

/// What an incarnation means here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The newest, as before, or the first we know of.
    Current,
    /// Newer than this one, which is over.
    Newer(Incarnation),
    /// Older than this one: a late message.
    Older(Incarnation),
}

#[derive(Debug)]
struct Node {
    id: NodeId,
    newest: Incarnation,
    link: Link,
}

impl Linked for Node {
    fn link_mut(&mut self) -> &mut Link {
        &mut self.link
    }

    fn link(&self) -> Link {
        self.link
    }
}

/// The newest incarnation of each caller node heard of lately.
#[derive(Debug)]
pub(crate) struct Incarnations {
    slots: BTreeMap<NodeId, Slot>,
    nodes: Slab<Node>,
    by_age: List,
}

impl Incarnations {
    pub(crate) fn new() -> Self {
        Self {
            slots: BTreeMap::new(),
            nodes: Slab::new(),
            by_age: List::EMPTY,
        }
    }

    /// Notes that `incarnation` of `id` was heard of, forgetting another node if that makes
    /// more than `nodes_max`.
    pub(crate) fn hear(&mut self, id: NodeId, incarnation: Incarnation, nodes_max: u32) -> Heard {
        // Most likely it is the one that was heard last.
        let last = self.by_age.last();
        let slot = match last.filter(|slot| self.nodes[*slot].id == id) {
            Some(slot) => slot,
            None => match self.slots.get(&id) {
                Some(slot) => *slot,
                None => {
                    self.note(id, incarnation, nodes_max);
                    return Heard::Current;
                }
            },
        };
        let known = self.nodes[slot].newest;
        if incarnation < known {
            return Heard::Older(known);
        }
        self.nodes[slot].newest = incarnation;
        if self.by_age.last() != Some(slot) {
            self.by_age.take_out(&mut self.nodes, slot);
            self.by_age.push_last(&mut self.nodes, slot);
        }
        if incarnation == known {
            Heard::Current
        } else {
            Heard::Newer(known)
        }
    }

    fn note(&mut self, id: NodeId, newest: Incarnation, nodes_max: u32) {
        assert!(nodes_max > 0, "at least one caller must be remembered");
        if self.nodes.len() >= nodes_max as usize {
            let oldest = self
                .by_age
                .first()
                .expect("a full table has an oldest entry");
            self.by_age.take_out(&mut self.nodes, oldest);
            let forgotten = self.nodes.remove(oldest);
            self.slots.remove(&forgotten.id);
        }
        let slot = self.nodes.insert(Node {
            id,
            newest,
            link: Link::LOOSE,
        });
        self.by_age.push_last(&mut self.nodes, slot);
        self.slots.insert(id, slot);
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn check(&self) {
        assert!(
            self.slots.len() == self.nodes.len(),
            "callers are miscounted"
        );
        assert!(
            self.by_age.len() as usize == self.nodes.len(),
            "a caller has no age"
        );
        for (id, slot) in &self.slots {
            assert!(self.nodes[*slot].id == *id, "{id} leads to another caller");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table() {
        let mut table = Incarnations::new();
        let mut hear = |node, incarnation| table.hear(NodeId(node), Incarnation(incarnation), 2);
        assert_eq!(hear(1, 5), Heard::Current);
        assert_eq!(hear(1, 5), Heard::Current);
        assert_eq!(hear(1, 4), Heard::Older(Incarnation(5)));
        assert_eq!(hear(1, 6), Heard::Newer(Incarnation(5)));
        assert_eq!(hear(1, 5), Heard::Older(Incarnation(6)));
    }

    #[test]
    fn the_longest_silent_is_forgotten() {
        let mut table = Incarnations::new();
        for (node, incarnation) in [(1, 5), (2, 5), (1, 5), (3, 5)] {
            table.hear(NodeId(node), Incarnation(incarnation), 2);
        }
        assert_eq!(table.len(), 2);
        table.check();
        assert_eq!(
            table.hear(NodeId(1), Incarnation(4), 2),
            Heard::Older(Incarnation(5))
        );
        assert_eq!(table.hear(NodeId(2), Incarnation(4), 2), Heard::Current);
    }
}
