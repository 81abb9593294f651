//! Which nodes get copies: those that may, in which order.

use partha_core::id::{ClassId, NodeId, Uid};

use crate::services::binder::{GroupOrder, GroupPlacement, NodeEntry};

/// The labels that say how near nodes are to each other, the most distant first.
const DISTANCES: [&str; 2] = ["zone", "rack"];

/// What copies are placed for.
pub(super) struct Placing<'g> {
    pub(super) object: Uid,
    pub(super) class: ClassId,
    pub(super) placement: &'g GroupPlacement,
    /// Nodes that have copies, or are to.
    pub(super) taken: &'g [NodeId],
    /// Nodes that get none, although they could.
    pub(super) without: &'g [NodeId],
}

impl Placing<'_> {
    /// At most `count` nodes for more copies, the best ones first.
    pub(super) fn choose<'n>(&self, nodes: &'n [NodeEntry], count: usize) -> Vec<&'n NodeEntry> {
        let mut fitting: Vec<&NodeEntry> = nodes.iter().filter(|node| self.fits(node)).collect();
        fitting.sort_by(|a, b| (&a.name, a.node).cmp(&(&b.name, b.node)));
        if self.placement.order == GroupOrder::Pack {
            fitting.truncate(count);
            return fitting;
        }
        let has_copy = |node: &&NodeEntry| self.taken.contains(&NodeId(node.node));
        let mut near: Vec<&NodeEntry> = nodes.iter().filter(has_copy).collect();
        // Of equals, objects begin at different ones, so that nodes have as many copies each.
        if !fitting.is_empty() {
            let turn = self.object.local as usize % fitting.len();
            fitting.rotate_left(turn);
        }
        let mut chosen = Vec::new();
        while chosen.len() < count && !fitting.is_empty() {
            let nearness = |(index, node): &(usize, &&NodeEntry)| (shared(node, &near), *index);
            let best = fitting.iter().enumerate().min_by_key(nearness);
            let index = best.map_or(0, |(index, _)| index);
            let node = fitting.remove(index);
            near.push(node);
            chosen.push(node);
        }
        chosen
    }

    /// This node, if it may have one.
    pub(super) fn only<'n>(&self, nodes: &'n [NodeEntry], node: NodeId) -> Vec<&'n NodeEntry> {
        let found = nodes.iter().find(|entry| NodeId(entry.node) == node);
        found.filter(|node| self.fits(node)).into_iter().collect()
    }

    fn fits(&self, node: &NodeEntry) -> bool {
        let id = NodeId(node.node);
        why_not(self.placement, self.class, node).is_none()
            && !self.taken.contains(&id)
            && !self.without.contains(&id)
    }
}

/// Why a node gets no copy of an object, if so.
pub(super) fn why_not(
    placement: &GroupPlacement,
    class: ClassId,
    node: &NodeEntry,
) -> Option<&'static str> {
    if !node.alive {
        Some("is away")
    } else if node.cordoned {
        Some("is cordoned")
    } else if !node.classes.contains(&class.0) {
        Some("does not run its class")
    } else if !is_wanted(placement, node) {
        Some("does not have the labels that its copies are placed by")
    } else {
        None
    }
}

/// Whether the node has one of the values wanted of each label that is asked for.
fn is_wanted(placement: &GroupPlacement, node: &NodeEntry) -> bool {
    let on = &placement.on;
    on.iter().all(|wanted| {
        let mut values = on.iter().filter(|other| other.name == wanted.name);
        values.any(|label| node.has_label(&label.name, &label.value))
    })
}

/// With how many of the others a node shares its zone, its zone and rack. One that does not say is
/// where others are that do not.
fn shared(node: &NodeEntry, others: &[&NodeEntry]) -> [usize; DISTANCES.len()] {
    let mut counts = [0; DISTANCES.len()];
    for other in others {
        for (count, name) in counts.iter_mut().zip(DISTANCES) {
            if node.label(name) != other.label(name) {
                break;
            }
            *count += 1;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use partha_core::id::Incarnation;

    use super::*;
    use crate::Timestamp;

    const CLASS: ClassId = ClassId(7);

    fn node(id: u64, labels: &[&str]) -> NodeEntry {
        NodeEntry {
            node: id,
            incarnation: 1,
            name: format!("n{id}"),
            addresses: Vec::new(),
            classes: vec![CLASS.0],
            shards: 1,
            alive: true,
            last_heard: Timestamp::now(),
            labels: labels.iter().map(|label| label.parse().unwrap()).collect(),
            cordoned: false,
        }
    }

    fn chosen(nodes: &[NodeEntry], on: &[&str], pack: bool, local: u64, count: usize) -> Vec<u64> {
        let placement = GroupPlacement {
            order: if pack {
                GroupOrder::Pack
            } else {
                GroupOrder::Spread
            },
            on: on.iter().map(|label| label.parse().unwrap()).collect(),
        };
        let mut object = Uid::new(NodeId(1), Incarnation(1), 100);
        object.local = local;
        let placing = Placing {
            object,
            class: CLASS,
            placement: &placement,
            taken: &[NodeId(1)],
            without: &[],
        };
        let chosen = placing.choose(nodes, count);
        chosen.iter().map(|node| node.node).collect()
    }

    #[test]
    fn copies_are_in_other_zones_first_then_in_other_racks() {
        let nodes = [
            node(1, &["zone=a", "rack=1"]),
            node(2, &["zone=a", "rack=1"]),
            node(3, &["zone=a", "rack=2"]),
            node(4, &["zone=b", "rack=1"]),
            node(5, &["zone=b", "rack=2"]),
            node(6, &["zone=c"]),
        ];
        for local in 0..12 {
            let order = chosen(&nodes, &[], false, local, 9);
            let zones = &order[..2];
            assert!(zones.contains(&6), "{order:?}");
            assert!(zones.contains(&4) || zones.contains(&5), "{order:?}");
            // Then the zones have one copy each: another rack comes before the same.
            let place = |id| order.iter().position(|node| *node == id).unwrap();
            assert!(place(3) < place(2), "{order:?}");
            assert_eq!(order.len(), 5, "the node that has one gets no other");
        }
    }

    #[test]
    fn without_labels_objects_begin_at_different_nodes() {
        let nodes: Vec<_> = (1..=4).map(|id| node(id, &[])).collect();
        let first: Vec<_> = (0..3)
            .map(|local| chosen(&nodes, &[], false, local, 1)[0])
            .collect();
        assert_eq!(first, [2, 3, 4]);
        for local in 0..3 {
            assert_eq!(chosen(&nodes, &[], true, local, 2), [2, 3]);
        }
    }

    #[test]
    fn only_nodes_that_may_come_into_question() {
        let mut nodes = vec![
            node(1, &["zone=a"]),
            node(2, &["zone=a", "disk=ssd"]),
            node(3, &["zone=b", "disk=ssd"]),
            node(4, &["zone=c", "disk=ssd"]),
            node(5, &["zone=b"]),
        ];
        let on = ["zone=a", "zone=b", "disk=ssd"];
        assert_eq!(chosen(&nodes, &on, true, 0, 9), [2, 3]);
        assert_eq!(chosen(&nodes, &["zone=d"], false, 0, 9), [0; 0]);
        nodes[1].alive = false;
        nodes[2].cordoned = true;
        nodes[3].classes.clear();
        assert_eq!(chosen(&nodes, &[], false, 0, 9), [5]);
    }
}
