//! Copies of objects at several nodes: real nodes in this process, a real binder.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::time::{Duration, Instant};

use common::carry::entry;
use common::{LONG, System};
use partha::services::naming::NameContext;
use partha::services::naming::name_context::PutError;
use partha::{Client, Completed, Copies, ErrorKind, Node, Place, Replication, Uid};

/// The copies are as wanted, in the end.
async fn copies(client: &Client, object: Uid, wanted: impl Fn(&Copies) -> bool) -> Copies {
    let begun = Instant::now();
    loop {
        let now = client.replicate(object, 3).await;
        match now {
            Ok(copies) if wanted(&copies) => return copies,
            other => assert!(begun.elapsed() < LONG, "still {other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Puts a name in, asking again under one id until it is known what became of it.
async fn put(context: &NameContext, client: &Client, number: u32) {
    let id = client.new_call_id();
    let begun = Instant::now();
    let mut again = false;
    loop {
        let call = client.call().deadline(Duration::from_secs(2));
        let call = if again { call.again(id) } else { call.id(id) };
        match context.put(&call, &entry(number), false).await {
            Ok(()) => return,
            Err(PutError::System(error)) => {
                assert!(begun.elapsed() < LONG, "{error}");
                again |= error.completion() != Completed::No;
            }
            // It would be executed twice: the name it has put in itself is in its way.
            Err(error) => panic!("{number}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn names(context: &NameContext, client: &Client) -> Vec<String> {
    let begun = Instant::now();
    loop {
        let call = client.call().deadline(Duration::from_secs(2));
        match context.list(&call, "", 10_000).await {
            Ok(entries) => return entries.into_iter().map(|entry| entry.name).collect(),
            Err(error) => assert!(begun.elapsed() < LONG, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn expected(count: u32) -> Vec<String> {
    (0..count).map(|number| entry(number).name).collect()
}

async fn stop(nodes: impl IntoIterator<Item = Node>) {
    for node in nodes {
        node.shutdown(LONG).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_outlives_its_nodes_one_after_the_other() {
    let system = System::start().await;
    let a = system.node("a", "a").await;
    let b = system.node("b", "b").await;
    let c = system.node("c", "c").await;
    let client = &system.client;
    let place = Place::Named("a".to_owned());
    let context = NameContext::create(client, &place, "x").await.unwrap();
    for number in 0..10 {
        put(&context, client, number).await;
    }
    let first = copies(client, context.uid(), |copies| copies.members.len() == 3).await;
    assert_eq!(first.members[0], a.me().node);
    for number in 10..20 {
        put(&context, client, number).await;
    }
    assert_eq!(names(&context, client).await, expected(20));

    let gone = a.me().node;
    stop([a]).await;
    for number in 20..30 {
        put(&context, client, number).await;
    }
    assert_eq!(names(&context, client).await, expected(30));
    let second = copies(client, context.uid(), |copies| {
        !copies.members.contains(&gone)
    })
    .await;
    assert_eq!(second.members.len(), 2);

    // It comes back, and is brought up to date before it is a member.
    let a = system.node("a", "a").await;
    copies(client, context.uid(), |copies| copies.members.len() == 3).await;
    let (leader, others): (Vec<Node>, Vec<Node>) = [a, b, c]
        .into_iter()
        .partition(|node| node.me().node == second.members[0]);
    stop(leader).await;
    for number in 30..40 {
        put(&context, client, number).await;
    }
    assert_eq!(names(&context, client).await, expected(40));
    stop(others).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_there_again_when_all_its_nodes_were_down() {
    let system = System::start().await;
    let a = system.node("a", "a").await;
    let b = system.node("b", "b").await;
    let client = &system.client;
    let place = Place::Named("a".to_owned());
    let context = NameContext::create(client, &place, "x").await.unwrap();
    copies(client, context.uid(), |copies| copies.members.len() == 2).await;
    for number in 0..10 {
        put(&context, client, number).await;
    }
    stop([a, b]).await;
    let b = system.node("b", "b").await;
    let a = system.node("a", "a").await;
    assert_eq!(names(&context, client).await, expected(10));
    put(&context, client, 10).await;
    copies(client, context.uid(), |copies| copies.members.len() == 2).await;
    stop([a, b]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_binder_is_asked_for_a_change_alone() {
    let system = System::start().await;
    let a = system.node("a", "a").await;
    let b = system.node("b", "b").await;
    let place = Place::Named("a".to_owned());
    let context = NameContext::create(&system.client, &place, "x").await;
    let object = context.unwrap().uid();
    let packed = Replication::passive(2).packed();
    let made = system.client.replicate_as(object, &packed).await.unwrap();
    assert_eq!(made.wanted, 2);
    let away = system.stop_binder().await;
    // Whoever waits for the copies asks so again and again.
    for same in [&packed, &Replication::passive(2)] {
        let told = away.client.replicate_as(object, same).await.unwrap();
        assert_eq!(told.wanted, 2);
    }
    for other in [Replication::passive(3), Replication::passive(2).spread()] {
        let error = away.client.replicate_as(object, &other).await.unwrap_err();
        assert_ne!(error.completion(), Completed::Yes, "{error}");
    }
    let system = away.start().await;
    let changed = system.client.replicate(object, 3).await.unwrap();
    assert_eq!(changed.wanted, 3);
    stop([a, b]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_have_copies_is_told_so() {
    let system = System::start().await;
    let a = system.node("a", "a").await;
    let client = &system.client;
    let place = Place::Named("a".to_owned());
    let context = NameContext::create(client, &place, "x").await.unwrap();
    for copies in [0, 17] {
        let error = client.replicate(context.uid(), copies).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadOperation, "{error}");
        assert!(error.to_string().contains("1 to 16"), "{error}");
    }
    let manager = Uid::connection_manager(a.me().node);
    let error = client.replicate(manager, 2).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadOperation, "{error}");
    // Alone it is a group all the same, and works.
    let alone = client.replicate(context.uid(), 2).await.unwrap();
    assert_eq!(alone.members, [a.me().node]);
    put(&context, client, 0).await;
    stop([a]).await;
}
