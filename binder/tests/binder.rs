//! The binder as nodes and clients see it: real nodes in this process, real calls.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::time::Duration;

use common::{LEASE, LONG, System, absent};
use partha::services::BINDER_NAME;
use partha::services::binder::binder::{LocateError, RegisterError};
use partha::services::naming::NameContext;
use partha::{ErrorKind, NodeId, Place, Timestamp, Uid};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_in_the_table_while_it_lives_and_after() {
    let system = System::start().await;
    let node = system.node("a", "a").await;
    let id = node.me().node;
    let entry = system.entry(id).await.unwrap();
    assert!(entry.alive && entry.name == "a" && entry.shards == 1);
    assert_eq!(entry.addresses, [node.address().to_string()]);
    assert_eq!(entry.classes, [NameContext::CLASS.0]);
    assert_eq!(entry.incarnation, node.me().incarnation.0);
    let binder = system.entry(system.binder.me().node).await.unwrap();
    assert!(binder.alive && binder.name == "binder");
    // It signs off, and is not taken for alive until its lease runs out.
    node.shutdown(LONG).await.unwrap();
    assert!(!system.entry(id).await.unwrap().alive);
    let node = system.node("a", "a").await;
    assert_eq!(node.me().node, id);
    let entry = system.entry(id).await.unwrap();
    assert!(entry.alive && entry.incarnation == node.me().incarnation.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_located_by_the_node_that_made_it() {
    let system = System::start().await;
    let node = system.node("a", "a").await;
    let made = NameContext::create(&system.client, &Place::Named("a".to_owned()), "x").await;
    let made = made.unwrap();
    let location = system
        .stub()
        .await
        .locate(&system.client, made.uid())
        .await
        .unwrap();
    assert_eq!(location.node.node, node.me().node.0);
    assert!(!location.moved);
    let nowhere = Uid {
        node: NodeId(12345),
        local: 99,
    };
    let located = system.stub().await.locate(&system.client, nowhere).await;
    let Err(LocateError::UnknownNode(error)) = located else {
        panic!("expected UnknownNode, found {located:?}");
    };
    assert_eq!((error.node, error.object), (12345, nowhere));
    // It is asked for until the deadline: the node might be about to register.
    let caller = system.client.call().deadline(Duration::from_millis(500));
    let words = NameContext::from_uid(nowhere)
        .list(&caller, "", 1)
        .await
        .unwrap_err();
    assert_eq!(words.kind(), ErrorKind::Unreachable);
    assert!(
        words.to_string().contains("has never registered"),
        "{words}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_node_is_dead_when_its_lease_has_run_out() {
    let system = System::start().await;
    let pause = system
        .stub()
        .await
        .register(&system.client, &absent(77, 1, "silent"))
        .await;
    assert_eq!(pause.unwrap(), LEASE / 3);
    let entry = system.entry(NodeId(77)).await.unwrap();
    assert!(entry.alive);
    let dead = system.eventually(NodeId(77), |entry| !entry.alive).await;
    let silent = Timestamp::now().micros() - dead.last_heard.micros();
    assert!(silent >= LEASE.as_micros() as i64, "dead after {silent} µs");
    // A heartbeat of the same life brings it back; one of another life has to register.
    assert!(
        system
            .stub()
            .await
            .heartbeat(&system.client, 77, 1)
            .await
            .unwrap()
    );
    assert!(system.entry(NodeId(77)).await.unwrap().alive);
    assert!(
        !system
            .stub()
            .await
            .heartbeat(&system.client, 77, 2)
            .await
            .unwrap()
    );
    assert!(
        !system
            .stub()
            .await
            .heartbeat(&system.client, 78, 1)
            .await
            .unwrap()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_life_of_a_node_is_refused() {
    let system = System::start().await;
    let stub = system.stub().await;
    stub.register(&system.client, &absent(77, 5, "copy"))
        .await
        .unwrap();
    let refused = stub.register(&system.client, &absent(77, 4, "copy")).await;
    let Err(RegisterError::OldIncarnation(error)) = refused else {
        panic!("expected OldIncarnation, found {refused:?}");
    };
    assert_eq!((error.node, error.known), (77, 5));
    stub.register(&system.client, &absent(77, 6, "copy"))
        .await
        .unwrap();
    assert_eq!(system.entry(NodeId(77)).await.unwrap().incarnation, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_namesakes_the_living_one_that_came_first_has_the_name() {
    let system = System::start().await;
    let old = system.node("old", "a").await;
    let new = system.node("new", "a").await;
    let (first, second) = (old.me().node, new.me().node);
    assert_eq!(system.entry(first).await.unwrap().name, "a");
    let listed = system.entry(second).await.unwrap();
    assert_eq!(listed.name, "a (second)");
    assert!(listed.alive, "only the name is another");
    let place = Place::Named("a".to_owned());
    let made = NameContext::create(&system.client, &place, "x")
        .await
        .unwrap();
    assert_eq!(made.uid().node, first);

    // The name goes over when its holder is gone.
    old.shutdown(Duration::from_secs(10)).await.unwrap();
    let heir = system.eventually(second, |entry| entry.name == "a").await;
    assert!(heir.alive);
    assert_eq!(system.entry(first).await.unwrap().name, "a (replaced)");
    let made = NameContext::create(&system.client, &place, "y")
        .await
        .unwrap();
    assert_eq!(made.uid().node, second);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_listed_page_by_page() {
    let system = System::start().await;
    let stub = system.stub().await;
    for node in 1..=5 {
        let entry = absent(node, 1, &format!("n{node}"));
        stub.register(&system.client, &entry).await.unwrap();
    }
    let (mut seen, mut after) = (Vec::new(), 0);
    loop {
        let page = stub.nodes(&system.client, after, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 2);
        after = last.node;
        seen.extend(page.into_iter().map(|entry| entry.node));
    }
    assert!(seen.is_sorted() && seen.len() == 6, "{seen:?}");
    assert_eq!(seen[..5], [1, 2, 3, 4, 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_come_back_after_the_binder_was_away() {
    let system = System::start().await;
    let node = system.node("a", "a").await;
    let before = system.stub().await.uid();
    // Without a fixed port it comes back at another one.
    let system = system.stop_binder().await.start().await;
    let known = system
        .client
        .naming()
        .unwrap()
        .lookup(&system.client, BINDER_NAME)
        .await
        .unwrap();
    assert_eq!(known.object, before, "it is the same binder");
    assert_eq!(known.hints, [system.binder.address().to_string()]);
    let entry = system.eventually(node.me().node, |entry| entry.alive).await;
    assert_eq!(entry.name, "a");
}
