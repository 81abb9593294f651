//! A node without sockets, its store in memory: what needs no network is as anywhere, what does is
//! refused. That its calls mean the same is shown beside the faces: `behaviour.rs`, `objects.rs`.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod common;

use std::time::Duration;

use common::behaviour::{Counter, named};
use common::pair::{given_up, values};
use common::{builder, run, stop, until, with_classes};
use partha::{ActionError, Client, ErrorKind, Node, NodeId, Place, SystemError, Uid};
use test_support::temp_dir;

async fn embedded() -> Node {
    let builder = with_classes(Node::embedded().name("inside").shards(2));
    builder.start().await.unwrap()
}

async fn counter(node: &Node, value: i64) -> Counter {
    let place = Place::Any;
    Counter::create(node.client(), &place, value, partha::Bytes::new())
        .await
        .unwrap()
}

#[test]
fn a_new_object_is_made_here_whatever_place_is_meant() {
    run(async {
        let node = embedded().await;
        let client = node.client();
        let first = counter(&node, 1).await;
        let places = [
            Place::Any,
            Place::Named("inside".to_owned()),
            Place::Node(node.me().node),
            Place::Beside(first.uid()),
        ];
        for place in places {
            let object = Counter::create(client, &place, 4, partha::Bytes::new())
                .await
                .unwrap();
            assert_eq!(object.uid().node, node.me().node, "{place}");
            assert_eq!(object.add(client, 1).await.unwrap(), 5);
        }
        for place in [Place::Named("other".to_owned()), Place::Node(NodeId(9))] {
            let error = Counter::create(client, &place, 4, partha::Bytes::new())
                .await
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
            assert!(error.detail().contains("an embedded node"), "{error}");
        }
        stop(node).await;
    });
}

#[test]
fn actions_nest_commit_and_are_undone_in_memory() {
    run(async {
        let node = embedded().await;
        let client = node.client();
        // Enough for both shards to have some.
        let mut counters = Vec::new();
        for _ in 0..8 {
            counters.push(counter(&node, 100).await);
        }
        let done = client.action_retry(async |a| {
            for counter in &counters {
                counter.add(a, 1).await?;
            }
            let nested = a
                .nested(async |b| {
                    counters[0].add(b, 50).await?;
                    Err::<(), _>(given_up())
                })
                .await;
            assert!(
                matches!(nested, Err(ActionError::Aborted { .. })),
                "{nested:?}"
            );
            a.nested(async |b| counters[1].add(b, 10).await)
                .await
                .map_err(|error| SystemError::servant(error.to_string()))?;
            Ok::<_, SystemError>(())
        });
        done.await.unwrap();
        let mut expected = vec![101; 8];
        expected[1] = 111;
        assert_eq!(values(client, &counters).await, expected);
        let undone = client.action(async |a| {
            counters[2].add(a, 1).await?;
            Err::<(), _>(given_up())
        });
        undone.await.unwrap_err();
        assert_eq!(values(client, &counters).await, expected);
        stop(node).await;
    });
}

#[test]
fn objects_leave_memory_and_come_back_with_state_and_rows() {
    run(async {
        let node = embedded().await;
        let (client, object) = (node.client(), counter(&node, 1).await);
        let id = client.new_call_id();
        assert_eq!(object.add(&client.call().id(id), 2).await.unwrap(), 3);
        let (uid, handle) = (object.uid(), node.handle());
        drop(object);
        until(|| async {
            node.evict(uid);
            !handle.manager().inspect(client, uid).await.unwrap().active
        })
        .await;
        let object = Counter::from_uid(uid);
        assert_eq!(object.value(client).await.unwrap(), 3);
        let again = object.add(&client.call().again(id), 2).await.unwrap();
        assert_eq!(again, 3, "saved, not executed");
        let statistics = handle.manager().statistics(client).await.unwrap();
        assert_eq!(statistics.duplicates, 1);
        assert_eq!(handle.id(), node.me().node);
        stop(node).await;
    });
}

#[test]
fn its_folder_is_that_of_any_node() {
    run(async {
        let dir = temp_dir("embedded");
        let inside = with_classes(Node::embedded().data_dir(dir.path()));
        let inside = inside.start().await.unwrap();
        let object = counter(&inside, 7).await;
        let me = inside.me();
        stop(inside).await;
        // Served over sockets for a while.
        let outside = builder(dir.path()).start().await.unwrap();
        assert_eq!(outside.me().node, me.node);
        let client = common::client_of(&outside).await;
        assert_eq!(object.add(&client, 1).await.unwrap(), 8);
        stop(outside).await;
        let inside = with_classes(Node::embedded().data_dir(dir.path()));
        let inside = inside.start().await.unwrap();
        assert_eq!(object.value(inside.client()).await.unwrap(), 8);
        assert_eq!(inside.me().incarnation.0, me.incarnation.0 + 2);
        stop(inside).await;
    });
}

#[test]
fn it_listens_nowhere_and_reaches_nobody() {
    run(async {
        let dir = temp_dir("embedded");
        let (node, other) = (embedded().await, common::node(dir.path()).await);
        assert_eq!(node.listens_at(), None);
        assert_eq!(other.listens_at(), Some(other.address()));
        let (client, address) = (node.client(), other.address().to_string());
        let met = client.node_at(&address).await.unwrap_err();
        let elsewhere = common::counter(other.client(), &other, 1).await;
        let called = elsewhere.value(client).await.unwrap_err();
        let strange = Counter::from_uid(Uid::new(NodeId(5), node.me().incarnation, 99));
        let unknown = strange.value(client).await.unwrap_err();
        for (error, kind) in [
            (met, ErrorKind::Unreachable),
            (called, ErrorKind::NoSuchObject),
            (unknown, ErrorKind::NoSuchObject),
        ] {
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.detail().contains("embedded"), "{error}");
        }
        let unnamed = client.naming().unwrap_err();
        assert_eq!(unnamed.kind(), ErrorKind::NameNotFound);
        stop(node).await;
        stop(other).await;
    });
}

#[test]
#[should_panic(expected = "an embedded node has no address")]
fn its_address_is_not_made_up() {
    run(async {
        let node = embedded().await;
        println!("{}", node.address());
    });
}

#[test]
fn what_needs_sockets_is_refused_at_the_start() {
    run(async {
        for (what, builder) in [
            ("listen", Node::embedded().listen("127.0.0.1:0")),
            ("advertise", Node::embedded().advertise("127.0.0.1:1")),
            ("naming", Node::embedded().naming("127.0.0.1:1")),
        ] {
            let error = builder.start().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BadOperation);
            assert!(error.detail().contains(what), "{error}");
        }
        let (long, short) = (Duration::from_secs(3), Duration::from_secs(5));
        let builder = Node::embedded().lease(long, short);
        let error = builder.start().await.unwrap_err();
        assert!(error.detail().contains("two heartbeats"), "{error}");
    });
}

#[test]
fn several_live_side_by_side_in_one_process() {
    run(async {
        let nodes = [embedded().await, embedded().await];
        assert_ne!(nodes[0].me().node, nodes[1].me().node);
        let [a, b] = [counter(&nodes[0], 1).await, counter(&nodes[1], 2).await];
        assert_eq!(a.add(nodes[0].client(), 10).await.unwrap(), 11);
        assert_eq!(b.add(nodes[1].client(), 10).await.unwrap(), 12);
        let client = Client::alone().unwrap();
        let error = a.value(&client).await.unwrap_err();
        assert_eq!(error.completion(), partha::Completed::No, "{error}");
        let place = Place::Any;
        let object = common::behaviour::Named::create(nodes[0].client(), &place, "x").await;
        assert_eq!(
            object.unwrap().reference().class(),
            named::CLASS,
            "derived classes are made as well"
        );
        for node in nodes {
            stop(node).await;
        }
    });
}

#[test]
fn an_object_of_an_embedded_node_stays_there() {
    run(async {
        let node = embedded().await;
        let object = counter(&node, 1).await;
        let (client, wait) = (node.client(), Duration::from_secs(1));
        let here = client.move_object(object.uid(), node.me().node, wait);
        assert_eq!(here.await.unwrap(), 0, "it is there");
        let there = client.move_object(object.uid(), NodeId(9), wait);
        let error = there.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadOperation, "{error}");
        assert_eq!(object.add(client, 1).await.unwrap(), 2);
        stop(node).await;
    });
}
