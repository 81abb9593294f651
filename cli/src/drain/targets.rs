//! Where the objects of a node go that is drained: which nodes come into question, and whose turn
//! it is.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use partha::NodeId;
use partha::services::binder::Label;
use partha::services::binder::NodeEntry;

/// Moves to a node that fail one after the other before others are asked first.
const FAILURES_MAX: u32 = 3;

/// A wish of where to: a label, or a node.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum To {
    Labelled(Label),
    /// By its name or its id.
    Node(String),
}

/// Whose turn it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Whoever got the fewest objects.
    Spread,
    /// Of the values of this label the one whose nodes got the fewest objects, and there the node
    /// that did.
    SpreadOver(String),
    /// One node after the other, by name: the next one when the one before takes no more.
    Pack,
}

/// The nodes that come into question.
#[derive(Debug)]
pub(super) struct Targets {
    nodes: Vec<Target>,
    /// Those that got objects and do not come into question any more.
    gone: Vec<Target>,
    /// Those that would come into question if they lived, whatever is wished.
    away: Vec<NodeEntry>,
    order: Order,
}

#[derive(Debug)]
struct Target {
    entry: NodeEntry,
    /// What it is grouped by.
    group: String,
    /// Objects that were sent to it, whether they arrived or not.
    sent: u64,
    /// Those of them that arrived.
    arrived: u64,
    /// Moves to it that have failed since one went well.
    failures: u32,
}

/// A node that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) node: NodeId,
    pub(super) name: String,
}

impl Targets {
    /// Of all nodes those that live, are not cordoned, are not the one that is drained, and fit
    /// one of the wishes, if there are any.
    pub(super) fn new(nodes: Vec<NodeEntry>, from: NodeId, to: &[To], order: Order) -> Self {
        let others = nodes.into_iter();
        let others = others.filter(|node| !node.cordoned && NodeId(node.node) != from);
        let (nodes, away): (Vec<_>, _) = others.partition(|node| node.alive);
        let target = |entry: NodeEntry| Target {
            group: match &order {
                Order::SpreadOver(label) => entry.label(label).unwrap_or_default().to_owned(),
                Order::Spread | Order::Pack => String::new(),
            },
            entry,
            sent: 0,
            arrived: 0,
            failures: 0,
        };
        let nodes = nodes.into_iter().filter(|node| are_wished(to, node));
        let mut nodes: Vec<_> = nodes.map(target).collect();
        nodes.sort_by(|a, b| a.entry.name.cmp(&b.entry.name));
        Self {
            nodes,
            gone: Vec::new(),
            away,
            order,
        }
    }

    /// A node that runs the class, has died a short while ago, as one that is started again, and
    /// is one of those wished for.
    pub(super) fn may_return(&self, class: u64, to: &[To], within: Duration) -> Option<&str> {
        let now = SystemTime::now();
        let long_ago = |node: &NodeEntry| {
            let silent = now.duration_since(node.last_heard.into());
            silent.is_ok_and(|silent| silent > within)
        };
        let mut away = self.away.iter();
        let fits = |node: &NodeEntry| node.classes.contains(&class) && are_wished(to, node);
        let found = away.find(|node| fits(node) && !long_ago(node));
        found.map(|node| node.name.as_str())
    }

    /// Takes in what nodes there are now; what was counted stays.
    pub(super) fn renew(&mut self, nodes: Vec<NodeEntry>, from: NodeId, to: &[To]) {
        let mut new = Self::new(nodes, from, to, self.order.clone());
        for target in &mut new.nodes {
            let mut before = self.nodes.iter();
            if let Some(before) = before.find(|before| before.entry.node == target.entry.node) {
                (target.sent, target.arrived) = (before.sent, before.arrived);
            }
        }
        // What went to a node that is silent by now is told all the same.
        let known = |node: &Target| {
            new.nodes
                .iter()
                .any(|new| new.entry.node == node.entry.node)
        };
        let gone = self
            .nodes
            .drain(..)
            .filter(|node| !known(node) && node.arrived > 0);
        let gone: Vec<_> = gone.collect();
        new.gone.append(&mut self.gone);
        new.gone.extend(gone);
        *self = new;
    }

    /// Whether any of them runs the class.
    pub(super) fn has(&self, class: u64) -> bool {
        self.nodes.iter().any(|target| target.runs(class))
    }

    /// The node for the next object of the class, without those that have refused it: none if
    /// nobody else runs it.
    pub(super) fn choose(&mut self, class: u64, refused: &[NodeId]) -> Option<Chosen> {
        let mut groups: BTreeMap<String, u64> = BTreeMap::new();
        for target in &self.nodes {
            *groups.entry(target.group.clone()).or_default() += target.sent;
        }
        let order = self.order.clone();
        let turn = |(index, target): &(usize, &mut Target)| {
            let failing = target.failures >= FAILURES_MAX;
            let sent = match order {
                Order::Pack => (0, 0),
                Order::Spread | Order::SpreadOver(_) => (groups[&target.group], target.sent),
            };
            // Of nodes that fail, in turn, since any may be well again.
            (failing, failing.then_some(target.sent), sent, *index)
        };
        let fitting = self.nodes.iter_mut().enumerate();
        let fitting = fitting.filter(|(_, target)| {
            target.runs(class) && !refused.contains(&NodeId(target.entry.node))
        });
        let (_, target) = fitting.min_by_key(turn)?;
        target.sent += 1;
        Some(Chosen {
            node: NodeId(target.entry.node),
            name: target.entry.name.clone(),
        })
    }

    /// A move to a node went well.
    pub(super) fn went_well(&mut self, node: NodeId) {
        if let Some(target) = self.target(node) {
            target.failures = 0;
            target.arrived += 1;
        }
    }

    /// A move failed since its node took none.
    pub(super) fn failed(&mut self, node: NodeId) {
        if let Some(target) = self.target(node) {
            target.failures += 1;
        }
    }

    /// Their names, and how many objects were sent to each.
    pub(super) fn sent(&self) -> impl Iterator<Item = (&str, u64)> {
        self.nodes
            .iter()
            .map(|target| (target.entry.name.as_str(), target.sent))
    }

    /// The names of those that objects have arrived at, and how many.
    pub(super) fn arrived(&self) -> BTreeMap<&str, u64> {
        let mut arrived = BTreeMap::new();
        let nodes = self.nodes.iter().chain(&self.gone);
        for target in nodes.filter(|target| target.arrived > 0) {
            *arrived.entry(target.entry.name.as_str()).or_default() += target.arrived;
        }
        arrived
    }

    fn target(&mut self, node: NodeId) -> Option<&mut Target> {
        let mut nodes = self.nodes.iter_mut();
        nodes.find(|target| NodeId(target.entry.node) == node)
    }
}

/// Whether a node fits one of the wishes, if there are any.
fn are_wished(to: &[To], node: &NodeEntry) -> bool {
    to.is_empty() || to.iter().any(|to| to.fits(node))
}

impl Target {
    fn runs(&self, class: u64) -> bool {
        self.entry.classes.contains(&class)
    }
}

impl To {
    /// Reads `zone=a`, or the name or id of a node.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        match text.contains('=') {
            true => Ok(Self::Labelled(text.parse()?)),
            false => Ok(Self::Node(text.to_owned())),
        }
    }

    fn fits(&self, node: &NodeEntry) -> bool {
        match self {
            Self::Labelled(Label { name, value }) => node.has_label(name, value),
            Self::Node(wanted) => node.name == *wanted || NodeId(node.node).to_string() == *wanted,
        }
    }
}

impl fmt::Display for To {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Labelled(label) => label.fmt(f),
            Self::Node(node) => f.write_str(node),
        }
    }
}

#[cfg(test)]
mod tests {
    use partha::Timestamp;

    use super::*;

    const CLASS: u64 = 7;

    fn node(id: u64, name: &str, labels: &[&str]) -> NodeEntry {
        NodeEntry {
            node: id,
            incarnation: 1,
            name: name.to_owned(),
            addresses: Vec::new(),
            classes: vec![CLASS],
            shards: 1,
            alive: true,
            last_heard: Timestamp::now(),
            labels: labels.iter().map(|text| text.parse().unwrap()).collect(),
            cordoned: false,
        }
    }

    /// Node a is drained; b and c are in the zone x, d is in y.
    fn four() -> Vec<NodeEntry> {
        vec![
            node(1, "a", &["zone=x"]),
            node(4, "d", &["zone=y"]),
            node(3, "c", &["zone=x"]),
            node(2, "b", &["zone=x", "ssd=yes"]),
        ]
    }

    fn chosen(targets: &mut Targets, count: usize) -> String {
        (0..count)
            .map(|_| {
                targets
                    .choose(CLASS, &[])
                    .map_or_else(|| "-".to_owned(), |it| it.name)
            })
            .collect()
    }

    fn targets(nodes: Vec<NodeEntry>, to: &[&str], order: Order) -> Targets {
        let to: Vec<_> = to.iter().map(|text| To::read(text).unwrap()).collect();
        Targets::new(nodes, NodeId(1), &to, order)
    }

    #[test]
    fn objects_are_spread_over_nodes_or_over_the_values_of_a_label() {
        assert_eq!(
            chosen(&mut targets(four(), &[], Order::Spread), 6),
            "bcdbcd"
        );
        let zones = Order::SpreadOver("zone".to_owned());
        assert_eq!(chosen(&mut targets(four(), &[], zones), 8), "bdcdbdcd");
    }

    #[test]
    fn what_a_node_has_refused_goes_to_others() {
        let mut targets = targets(four(), &[], Order::Pack);
        let mut refused = Vec::new();
        for name in ["b", "c", "d"] {
            let chosen = targets.choose(CLASS, &refused).unwrap();
            assert_eq!(chosen.name, name);
            refused.push(chosen.node);
        }
        assert_eq!(targets.choose(CLASS, &refused), None);
        assert_eq!(chosen(&mut targets, 1), "b", "that is of one object alone");
    }

    #[test]
    fn packed_they_go_to_one_node_until_it_takes_no_more() {
        let mut targets = targets(four(), &[], Order::Pack);
        assert_eq!(chosen(&mut targets, 3), "bbb");
        targets.failed(NodeId(2));
        targets.went_well(NodeId(2));
        for _ in 0..FAILURES_MAX {
            assert_eq!(chosen(&mut targets, 1), "b");
            targets.failed(NodeId(2));
        }
        assert_eq!(chosen(&mut targets, 3), "ccc");
        // Where none takes any, all are asked in turn.
        for _ in 0..FAILURES_MAX {
            targets.failed(NodeId(3));
            targets.failed(NodeId(4));
        }
        let asked = chosen(&mut targets, 12);
        assert!(
            asked.contains('b') && asked.contains('c') && asked.contains('d'),
            "{asked}"
        );
        targets.went_well(NodeId(4));
        assert_eq!(chosen(&mut targets, 2), "dd");
    }

    #[test]
    fn a_node_that_fails_is_left_out_while_others_do_not() {
        let mut targets = targets(four(), &[], Order::Spread);
        for _ in 0..FAILURES_MAX {
            targets.failed(NodeId(3));
        }
        assert_eq!(chosen(&mut targets, 4), "bdbd");
        // In the next pass it is tried again, and has not got what others have got.
        targets.went_well(NodeId(4));
        let mut nodes = four();
        nodes.remove(1);
        targets.renew(nodes, NodeId(1), &[]);
        assert_eq!(chosen(&mut targets, 4), "ccbc");
        targets.went_well(NodeId(3));
        // Node d has gone, and what it got is told.
        targets.renew(four(), NodeId(1), &[]);
        targets.went_well(NodeId(4));
        assert_eq!(targets.arrived(), BTreeMap::from([("c", 1), ("d", 2)]));
    }

    #[test]
    fn only_who_died_a_short_while_ago_may_return() {
        let to = |text: &str| vec![To::read(text).unwrap()];
        let minute = Duration::from_secs(60);
        let mut nodes = four();
        for (node, seconds) in nodes.iter_mut().zip([1, 30, 90, 1]) {
            node.alive = false;
            let heard = SystemTime::now() - Duration::from_secs(seconds);
            node.last_heard = Timestamp::from(heard);
        }
        nodes[3].cordoned = true;
        let targets = targets(nodes, &[], Order::Spread);
        // Node a is the one that is drained, c is away for too long, b is cordoned.
        assert_eq!(targets.may_return(CLASS, &[], minute), Some("d"));
        assert_eq!(targets.may_return(CLASS, &to("zone=y"), minute), Some("d"));
        assert_eq!(targets.may_return(CLASS, &to("zone=x"), minute), None);
        assert_eq!(
            targets.may_return(CLASS, &to("zone=x"), 2 * minute),
            Some("c")
        );
        assert_eq!(targets.may_return(CLASS + 1, &[], minute), None);
        assert_eq!(targets.may_return(CLASS, &[], minute / 6), None);
    }

    #[test]
    fn only_living_nodes_that_are_wanted_and_run_the_class_come_into_question() {
        assert_eq!(
            chosen(&mut targets(four(), &["zone=x"], Order::Spread), 3),
            "bcb"
        );
        assert_eq!(
            chosen(&mut targets(four(), &["zone=y", "b"], Order::Spread), 3),
            "bdb"
        );
        assert_eq!(
            chosen(&mut targets(four(), &["ssd=no"], Order::Spread), 1),
            "-"
        );
        let mut nodes = four();
        nodes[1].alive = false;
        nodes[2].cordoned = true;
        let mut left = targets(nodes.clone(), &[], Order::Spread);
        assert_eq!(chosen(&mut left, 2), "bb");
        nodes[3].classes = vec![8];
        let mut left = targets(nodes, &[], Order::Spread);
        assert_eq!(chosen(&mut left, 1), "-");
        assert!(left.has(8) && !left.has(CLASS));
        assert!(To::read("zone=").is_err());
    }
}
