//! The rows of moved objects, and cordons and labels of nodes, as nodes and operators see them.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::time::Duration;

use common::{LONG, System, absent};
use partha::services::binder::binder::{CordonError, LocateError, MovedError, RegisterError};
use partha::services::binder::{LABELS_MAX, Label, Location, MOVED_MAX, MovedObject, NodeEntry};
use partha::services::naming::NameContext;
use partha::{ErrorKind, Incarnation, Node, NodeId, Place, Uid};

/// An object that node 1 made.
fn object(counter: u64) -> Uid {
    Uid::new(NodeId(1), Incarnation(1), counter)
}

fn moved(object: Uid, node: u64, moves: u64) -> MovedObject {
    MovedObject {
        object,
        node,
        moves,
    }
}

fn labelled(mut entry: NodeEntry, labels: &[&str]) -> NodeEntry {
    let labels = labels.iter().map(|text| text.parse::<Label>().unwrap());
    entry.labels = labels.collect();
    entry
}

impl System {
    /// With the nodes 1 to 3, which are not there.
    async fn with_nodes() -> Self {
        let system = Self::start().await;
        let stub = system.stub().await;
        for node in 1..=3 {
            let entry = absent(node, 1, &format!("n{node}"));
            stub.register(&system.client, &entry).await.unwrap();
        }
        system
    }

    async fn tell(&self, objects: &[MovedObject]) -> u32 {
        let stub = self.stub().await;
        stub.moved(&self.client, objects).await.unwrap()
    }

    async fn location(&self, object: Uid) -> Location {
        let stub = self.stub().await;
        stub.locate(&self.client, object).await.unwrap()
    }

    /// The node, whether it is one of a row, and the moves.
    async fn row(&self, object: Uid) -> (u64, bool, u64) {
        let found = self.location(object).await;
        (found.node.node, found.moved, found.moves)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_object_is_located_where_it_moved_last() {
    let system = System::with_nodes().await;
    let (one, other) = (object(100), object(101));
    assert_eq!(system.row(one).await, (1, false, 0));
    assert_eq!(system.tell(&[moved(one, 2, 1)]).await, 1);
    assert_eq!(system.row(one).await, (2, true, 1));
    assert_eq!(system.row(other).await, (1, false, 0));
    // News that come late, or twice, change nothing, whatever the order.
    assert_eq!(system.tell(&[moved(one, 3, 4)]).await, 1);
    assert_eq!(system.tell(&[moved(one, 2, 3)]).await, 0);
    assert_eq!(system.tell(&[moved(one, 2, 4)]).await, 0);
    assert_eq!(system.row(one).await, (3, true, 4));
    // Within one batch, too.
    let batch = [moved(other, 3, 2), moved(other, 2, 1), moved(one, 1, 5)];
    assert_eq!(system.tell(&batch).await, 2);
    assert_eq!(system.row(other).await, (3, true, 2));
    // Back at the node that made it, it keeps its row, and so its number.
    assert_eq!(system.row(one).await, (1, true, 5));
    assert_eq!(system.tell(&[moved(one, 3, 4)]).await, 0);
    assert_eq!(system.row(one).await, (1, true, 5));
    // One that has not moved has no row.
    assert_eq!(system.tell(&[moved(object(102), 2, 0)]).await, 0);
    assert_eq!(system.row(object(102)).await, (1, false, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_finds_no_node_for_a_moved_object_is_told_which_is_missing() {
    let system = System::with_nodes().await;
    system.tell(&[moved(object(100), 9, 1)]).await;
    let located = system.stub().await;
    let located = located.locate(&system.client, object(100)).await;
    let Err(LocateError::UnknownNode(error)) = located else {
        panic!("expected UnknownNode, found {located:?}");
    };
    assert_eq!((error.node, error.object), (9, object(100)));
    let error = system.client.locator();
    let error = error.locate(&system.client, object(100)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    let missing = NodeId(9).to_string();
    assert!(error.to_string().contains(&missing), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_has_a_bound_and_the_locator_keeps_to_it() {
    let system = System::with_nodes().await;
    let count = 2 * MOVED_MAX + 1;
    let objects = (0..count).map(|n| moved(object(100 + n as u64), 2, 1));
    let objects: Vec<_> = objects.collect();
    let stub = system.stub().await;
    let refused = stub.moved(&system.client, &objects[..=MOVED_MAX]).await;
    let Err(MovedError::TooManyMoved(error)) = refused else {
        panic!("expected TooManyMoved, found {refused:?}");
    };
    assert_eq!(error.limit as usize, MOVED_MAX);
    let row = system.row(objects[0].object).await;
    assert_eq!(row, (1, false, 0), "none of them is written");

    let locator = system.client.locator();
    locator.tell_moved(&system.client, &objects).await.unwrap();
    for index in [0, MOVED_MAX - 1, MOVED_MAX, count - 1] {
        assert_eq!(system.row(objects[index].object).await, (2, true, 1));
    }
    assert_eq!(system.tell(&objects[..MOVED_MAX]).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_and_cordons_outlive_the_binder_which_is_told_when_it_is_back() {
    let system = System::with_nodes().await;
    system.tell(&[moved(object(100), 2, 7)]).await;
    let stub = system.stub().await;
    assert!(!stub.cordon(&system.client, 3, true).await.unwrap());
    let stopped = system.stop_binder().await;
    // Objects move on while it is away.
    let (client, objects) = (stopped.client.clone(), [moved(object(100), 3, 8)]);
    let telling = async move { client.locator().tell_moved(&client, &objects).await };
    let telling = tokio::spawn(telling);
    let system = stopped.start().await;
    let told = tokio::time::timeout(LONG, telling).await;
    told.expect("it is told in time").unwrap().unwrap();
    assert_eq!(system.row(object(100)).await, (3, true, 8));
    assert_eq!(system.tell(&[moved(object(100), 2, 7)]).await, 0);
    assert!(system.entry(NodeId(3)).await.unwrap().cordoned);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_naming_service_there_is_nobody_to_tell() {
    let node = Node::embedded().start().await.unwrap();
    let client = node.client();
    let told = client.locator();
    let told = told.tell_moved(client, &[moved(object(100), 2, 1)]).await;
    assert_eq!(told.unwrap_err().kind(), ErrorKind::NameNotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cordon_is_the_operators_and_outlives_registrations() {
    let system = System::with_nodes().await;
    let stub = system.stub().await;
    let cordon = async |on| stub.cordon(&system.client, 2, on).await.unwrap();
    assert!(!cordon(true).await);
    assert!(cordon(true).await, "it was so before");
    // A node cannot take it off, nor put it on.
    for (node, incarnation) in [(2, 2), (3, 2)] {
        let mut entry = absent(node, incarnation, &format!("n{node}"));
        entry.cordoned = node == 3;
        stub.register(&system.client, &entry).await.unwrap();
    }
    assert!(system.entry(NodeId(2)).await.unwrap().cordoned);
    assert!(!system.entry(NodeId(3)).await.unwrap().cordoned);
    assert!(cordon(false).await);
    assert!(!system.entry(NodeId(2)).await.unwrap().cordoned);
    let unknown = stub.cordon(&system.client, 9, true).await;
    let Err(CordonError::UnknownNode(error)) = unknown else {
        panic!("expected UnknownNode, found {unknown:?}");
    };
    assert_eq!((error.node, error.object), (9, Uid::NIL));
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_are_told_bounded_and_follow_the_latest_registration() {
    let system = System::with_nodes().await;
    let stub = system.stub().await;
    let entry = labelled(absent(2, 1, "n2"), &["rack=7", "zone=a"]);
    stub.register(&system.client, &entry).await.unwrap();
    let found = system.entry(NodeId(2)).await.unwrap();
    assert!(found.has_label("zone", "a") && !found.has_label("zone", "b"));
    assert_eq!(found.label("rack"), Some("7"));

    let many: Vec<_> = (0..=LABELS_MAX).map(|n| format!("l{n}=x")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let mut nameless = labelled(absent(2, 2, "n2"), &["zone=b"]);
    nameless.labels[0].name.clear();
    for wrong in [
        labelled(absent(2, 2, "n2"), &many),
        labelled(absent(2, 2, "n2"), &["zone=a", "zone=b"]),
        nameless,
    ] {
        let refused = stub.register(&system.client, &wrong).await;
        let Err(RegisterError::BadLabels(error)) = refused else {
            panic!("expected BadLabels, found {refused:?}");
        };
        assert!(error.node == 2 && !error.reason.is_empty());
    }
    assert_eq!(
        system.entry(NodeId(2)).await.unwrap(),
        found,
        "no harm done"
    );
    stub.register(&system.client, &absent(2, 2, "n2"))
        .await
        .unwrap();
    assert_eq!(system.entry(NodeId(2)).await.unwrap().labels, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn places_are_chosen_by_label_and_never_at_a_cordoned_node() {
    let system = System::start().await;
    let zoned = |zone: &str| {
        let zone = zone.to_owned();
        move |builder: partha::NodeBuilder| builder.label("zone", zone)
    };
    let a = system.node_with("a", "a", zoned("east")).await;
    let b = system.node_with("b", "b", zoned("west")).await;
    let nodes = [a.me().node, b.me().node];
    let make = async |place: &Place| {
        let made = NameContext::create(&system.client, place, "x").await;
        made.map(|made| made.uid().node)
    };
    let west = Place::Labelled("zone".to_owned(), "west".to_owned());
    for _ in 0..4 {
        assert_eq!(make(&west).await.unwrap(), nodes[1]);
    }
    let north = Place::Labelled("zone".to_owned(), "north".to_owned());
    let error = make(&north).await.unwrap_err();
    assert!(error.to_string().contains("zone=north"), "{error}");

    let stub = system.stub().await;
    stub.cordon(&system.client, nodes[1].0, true).await.unwrap();
    for _ in 0..4 {
        assert_eq!(make(&Place::Any).await.unwrap(), nodes[0]);
    }
    assert!(make(&west).await.is_err());
    let there = make(&Place::Node(nodes[1])).await.unwrap();
    assert_eq!(there, nodes[1], "whoever names it gets it");
    stub.cordon(&system.client, nodes[1].0, false)
        .await
        .unwrap();
    assert_eq!(make(&west).await.unwrap(), nodes[1]);
    for node in [a, b] {
        node.shutdown(Duration::from_secs(10)).await.unwrap();
    }
}

#[tokio::test]
async fn a_node_with_labels_that_are_none_is_refused_at_its_start() {
    let started = Node::embedded().label("zone", "").start().await;
    let error = started.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadOperation);
    assert!(error.to_string().contains("'zone'"), "{error}");
}
