//! Which copy of an object is asked by a call that any copy may answer: the nearest one.
//!
//! Who has a copy is known from whoever leads, who says so when the object is bound, and from the
//! binder, which is asked now and then while such calls are made. It is a guess: a copy that
//! cannot answer says so or does not, then the leader is asked, and that copy is left alone for a
//! while. Objects without copies, which are most, cost one look.
//!
//! Near is this very process, then the same rack, then the same zone, by the labels of nodes; of
//! those that are equally far each client prefers another one for each object, and stays with it.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use partha_core::group::view::MEMBERS_MAX;
use partha_core::id::{NodeId, Uid};

use super::{Binding, Bound};
use crate::client::Client;
use crate::net::connection::{Connection, lock};
use crate::services::binder::{Label, NodeEntry};
use crate::shard::ShardHandle;
use crate::wire::message::Shard;

/// What is known of the copies is asked for again after this.
const KEPT: Duration = Duration::from_secs(10);
/// A copy that could not answer is left alone for so long.
const AVOIDED: Duration = Duration::from_secs(1);
/// How long asking the binder, or reaching a node, may keep a call that the leader can answer.
const PATIENCE: Duration = Duration::from_millis(500);

/// What a binding knows of copies; nothing for an object that has none.
#[derive(Debug, Default)]
pub(super) struct Nearest {
    known: Mutex<Option<Box<Known>>>,
}

#[derive(Debug)]
struct Known {
    leader: NodeId,
    /// The nearest first, once they are ranked.
    members: Vec<NodeId>,
    ranked: bool,
    /// When the binder is to be asked.
    ask: Instant,
    avoided: Vec<(NodeId, Instant)>,
    /// The way to the one that was asked last.
    way: Option<(NodeId, Arc<Connection>)>,
}

/// The way to a copy.
pub(crate) enum Near {
    Here(ShardHandle),
    There(Arc<Connection>),
}

/// What comes next for a call.
enum Next {
    AskBinder,
    Rank(Vec<NodeId>),
    /// As any other call goes.
    Usual,
    /// The leader is the nearest.
    Leader(NodeId),
    Copy(NodeId, Option<Arc<Connection>>),
}

impl Nearest {
    fn next(&self) -> Next {
        let mut known = lock(&self.known);
        let Some(known) = known.as_deref_mut() else {
            return Next::Usual;
        };
        let now = Instant::now();
        if now >= known.ask {
            // The others go on with what is known.
            known.ask = now + KEPT;
            return Next::AskBinder;
        }
        if !known.ranked {
            return Next::Rank(known.members.clone());
        }
        known.avoided.retain(|(_, until)| *until > now);
        let avoided = |node: NodeId| known.avoided.iter().any(|(it, _)| *it == node);
        let nearest = known.members.iter().find(|node| !avoided(**node));
        match nearest.copied() {
            None => Next::Usual,
            Some(node) if node == known.leader => Next::Leader(node),
            Some(node) => {
                let way = known.way.as_ref().filter(|(of, _)| *of == node);
                let way = way.filter(|(_, connection)| connection.is_usable());
                Next::Copy(node, way.map(|(_, connection)| connection.clone()))
            }
        }
    }

    /// Who has copies, the leader first; nobody if the object has none.
    pub(super) fn learn(&self, copies: impl IntoIterator<Item = NodeId>) {
        let copies: Vec<NodeId> = copies.into_iter().take(MEMBERS_MAX).collect();
        let mut known = lock(&self.known);
        match (copies.first(), known.as_deref_mut()) {
            (None | Some(_), _) if copies.len() < 2 => *known = None,
            (Some(leader), Some(known)) => {
                known.leader = *leader;
                let mut same = known.members.clone();
                let mut now = copies.clone();
                same.sort_unstable();
                now.sort_unstable();
                if same != now {
                    (known.members, known.ranked) = (copies, false);
                }
            }
            (Some(leader), None) => {
                *known = Some(Box::new(Known {
                    leader: *leader,
                    members: copies,
                    ranked: false,
                    ask: Instant::now() + KEPT,
                    avoided: Vec::new(),
                    way: None,
                }));
            }
            (None, _) => {}
        }
    }

    fn rank(&self, of: &[NodeId], ranked: Vec<NodeId>) {
        if let Some(known) = lock(&self.known).as_deref_mut()
            && known.members == of
        {
            (known.members, known.ranked) = (ranked, true);
        }
    }
}

impl Binding {
    /// Whether the object has copies, as far as is known.
    pub(crate) fn has_copies(&self) -> bool {
        lock(&self.nearest.known).is_some()
    }

    /// The way to the nearest copy; none if that is the leader's, or nobody knows of copies.
    pub(crate) async fn nearest(&self, client: &Client) -> Option<(NodeId, Near)> {
        // Each of the first two happens once, unless something is learned meanwhile.
        for _ in 0..4 {
            match self.nearest.next() {
                Next::Usual => return None,
                Next::Leader(node) if self.is_at(client, node) => return None,
                // What the binding was made with does not lead any more, and may not even answer.
                Next::Leader(node) => return self.reach(client, node).await,
                Next::AskBinder => self.ask_for_copies(client).await,
                Next::Rank(members) => {
                    let ranked = rank(client, self.object, &members).await;
                    self.nearest.rank(&members, ranked);
                }
                Next::Copy(node, Some(connection)) => {
                    return Some((node, Near::There(connection)));
                }
                Next::Copy(node, None) => return self.reach(client, node).await,
            }
        }
        None
    }

    /// Whether calls of the object go to this node as it is.
    fn is_at(&self, client: &Client, node: NodeId) -> bool {
        let cached = self.cached();
        cached.is_some_and(|(route, _)| match &*route {
            Bound::Local { .. } => client.me().node == node,
            Bound::Remote { connection, .. } => connection.peer().node == node,
        })
    }

    async fn ask_for_copies(&self, client: &Client) {
        let locator = client.locator();
        let asked = locator.views(client, std::slice::from_ref(&self.object), PATIENCE);
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(views)) => {
                if let Some(view) = views.first() {
                    locator.note_leader(view);
                }
                let members = views.into_iter().flat_map(|view| view.members);
                self.nearest.learn(members.map(NodeId));
            }
            Ok(Err(error)) => {
                tracing::debug!(object = %self.object, %error, "nobody says who has copies");
            }
            Err(_) => tracing::debug!(object = %self.object, "nobody says in time who has copies"),
        }
    }

    async fn reach(&self, client: &Client, node: NodeId) -> Option<(NodeId, Near)> {
        if let Some(home) = client.home_if_any()
            && node == client.me().node
        {
            let shard = home.shard(self.object).clone();
            return Some((node, Near::Here(shard)));
        }
        let shard = Shard::Of(self.object);
        let connecting = client.locator().connect_shard(client, node, shard);
        let Ok(Ok(connection)) = tokio::time::timeout(PATIENCE, connecting).await else {
            self.avoid(node);
            return None;
        };
        if let Some(known) = lock(&self.nearest.known).as_deref_mut() {
            known.way = Some((node, connection.clone()));
        }
        Some((node, Near::There(connection)))
    }

    /// The copy at a node did not answer: others do for a while, and the binder is asked who may.
    pub(crate) fn avoid(&self, node: NodeId) {
        if let Some(known) = lock(&self.nearest.known).as_deref_mut() {
            let now = Instant::now();
            known.avoided.retain(|(it, _)| *it != node);
            known.avoided.push((node, now + AVOIDED));
            known.ask = known.ask.min(now + AVOIDED);
            known.way = None;
        }
    }
}

/// The nodes, the nearest first.
async fn rank(client: &Client, object: Uid, members: &[NodeId]) -> Vec<NodeId> {
    let (me, labels) = (client.me().node, client.labels());
    let mut ranked = Vec::new();
    for node in members {
        let distance = match labels.is_empty() || *node == me {
            true => u8::from(*node != me),
            false => {
                let entry = client.locator().entry_of(client, *node, PATIENCE).await;
                distance(&labels, entry.as_ref())
            }
        };
        let mut tie = DefaultHasher::new();
        (me, object, node).hash(&mut tie);
        ranked.push((distance, tie.finish(), *node));
    }
    ranked.sort_unstable();
    ranked.into_iter().map(|(.., node)| node).collect()
}

/// How far a node is that is another one.
fn distance(labels: &[Label], entry: Option<&NodeEntry>) -> u8 {
    const RACK: u8 = 1;
    const ZONE: u8 = 2;
    const FAR: u8 = 3;
    let Some(entry) = entry else { return FAR };
    let mine = |name: &str| {
        let label = labels.iter().find(|label| label.name == name);
        label.map(|label| label.value.as_str())
    };
    let same = |name: &str| mine(name).is_some() && mine(name) == entry.label(name);
    // Racks of one name in different zones are different ones.
    match (same("rack"), mine("zone") == entry.label("zone")) {
        (true, true) => RACK,
        _ if same("zone") => ZONE,
        _ => FAR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timestamp::Timestamp;

    fn label(text: &str) -> Label {
        text.parse().expect("a label")
    }

    fn entry(labels: &[&str]) -> NodeEntry {
        NodeEntry {
            node: 7,
            incarnation: 1,
            name: "a".to_owned(),
            addresses: Vec::new(),
            classes: Vec::new(),
            shards: 1,
            alive: true,
            last_heard: Timestamp::now(),
            labels: labels.iter().map(|text| label(text)).collect(),
            cordoned: false,
        }
    }

    #[test]
    fn the_same_rack_is_nearer_than_the_same_zone() {
        let mine = [label("zone=x"), label("rack=1")];
        let far = |labels: &[&str]| distance(&mine, Some(&entry(labels)));
        assert!(far(&["zone=x", "rack=1"]) < far(&["zone=x", "rack=2"]));
        assert!(far(&["zone=x"]) < far(&["zone=y", "rack=1"]));
        assert_eq!(far(&["zone=y", "rack=1"]), far(&[]));
        assert_eq!(distance(&mine, None), far(&["zone=y"]));
        // Without zones a rack is enough, and without labels all are equal.
        let rack = [label("rack=1")];
        let near = distance(&rack, Some(&entry(&["rack=1"])));
        assert!(near < distance(&rack, Some(&entry(&["rack=2"]))));
        assert_eq!(distance(&[], Some(&entry(&[]))), distance(&[], None));
    }

    #[test]
    fn one_that_did_not_answer_is_left_alone() {
        let nodes = [1, 2, 3].map(NodeId);
        let nearest = Nearest::default();
        assert!(matches!(nearest.next(), Next::Usual), "no copies");
        nearest.learn(nodes);
        let Next::Rank(members) = nearest.next() else {
            panic!("they are not ranked")
        };
        nearest.rank(&members, vec![NodeId(3), NodeId(1), NodeId(2)]);
        assert!(matches!(nearest.next(), Next::Copy(NodeId(3), None)));
        let until = Instant::now() + AVOIDED;
        let avoid = |node| {
            let mut known = lock(&nearest.known);
            known
                .as_mut()
                .expect("it is known")
                .avoided
                .push((node, until));
        };
        avoid(NodeId(3));
        assert!(matches!(nearest.next(), Next::Leader(NodeId(1))));
        // Another one leads, with the same copies.
        nearest.learn([2, 1, 3].map(NodeId));
        assert!(matches!(nearest.next(), Next::Copy(NodeId(1), None)));
        // Alone it has no copies.
        nearest.learn([NodeId(2)]);
        assert!(matches!(nearest.next(), Next::Usual));
    }
}
