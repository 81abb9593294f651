//! Objects with the policy coordinator-cohort in actions: whoever leads them changes in the middle,
//! and the actions go on. Nothing here is tried again.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::carry::{carry, directory, directory_as, entry, expected, fill, names};
use common::{LONG, System};
use partha::services::naming::NameContext;
use partha::{Action, Client, Node, Replication, SystemError};

const NAMES: u32 = 8;

async fn stop(nodes: impl IntoIterator<Item = Node>) {
    for node in nodes {
        node.shutdown(LONG).await.unwrap();
    }
}

async fn cohort(client: &Client, node: &str, copies: u16) -> NameContext {
    directory_as(client, node, &Replication::cohort(copies)).await
}

async fn put(action: &Action, context: &NameContext, number: u32) -> Result<(), SystemError> {
    let put = context.put(action, &entry(number), false).await;
    put.map_err(|error| SystemError::servant(error.to_string()))
}

/// With those of other policies, at the same node and at others.
#[tokio::test(flavor = "multi_thread")]
async fn names_are_carried_to_and_from_cohorts() {
    let system = System::start().await;
    let a = system.node("a", "a").await;
    let b = system.node("b", "b").await;
    let client = &system.client;
    let make = async |policy, node| match policy {
        "cohort" => cohort(client, node, 2).await,
        "passive" => directory(client, node, 2).await,
        _ => directory(client, node, 0).await,
    };
    for (from_policy, to_policy) in [
        ("cohort", "cohort"),
        ("cohort", "passive"),
        ("passive", "cohort"),
        ("cohort", "none"),
        ("none", "cohort"),
    ] {
        for to_node in ["a", "b"] {
            let shape = format!("{from_policy} at a to {to_policy} at {to_node}");
            let from = make(from_policy, "a").await;
            let to = make(to_policy, to_node).await;
            fill(client, &from, 0..NAMES).await;
            for number in 0..NAMES / 2 {
                let carried = client.action(async |action| carry(action, &from, &to, number).await);
                let carried = carried.await;
                carried.unwrap_or_else(|error| panic!("{shape}: {number}: {error}"));
            }
            let given_up = client
                .action(async |action| {
                    carry(action, &from, &to, NAMES - 1).await?;
                    Err::<(), _>(SystemError::servant("no"))
                })
                .await;
            assert!(given_up.is_err(), "{shape}");
            let left = names(client, &from).await;
            assert_eq!(left, expected(NAMES / 2..NAMES), "{shape}");
            assert_eq!(names(client, &to).await, expected(0..NAMES / 2), "{shape}");
        }
    }
    stop([a, b]).await;
}

/// The node that leads stops between two calls of an action, once while levels are open. What was
/// done before is there after it, and what is given up is undone by who leads then.
#[tokio::test(flavor = "multi_thread")]
async fn an_action_goes_on_where_the_next_one_leads() {
    let system = System::start().await;
    let mut a = Some(system.node("a", "a").await);
    let b = system.node("b", "b").await;
    let client = &system.client;
    let context = cohort(client, "a", 2).await;
    let other = directory(client, "b", 0).await;
    let done = client
        .action(async |action| {
            put(action, &context, 0).await?;
            put(action, &other, 0).await?;
            let inner = action
                .nested(async |inner| {
                    put(inner, &context, 1).await?;
                    stop(a.take()).await;
                    put(inner, &context, 2).await
                })
                .await;
            inner.map_err(|error| SystemError::servant(error.to_string()))?;
            let given_up = action
                .nested(async |inner| {
                    put(inner, &context, 3).await?;
                    Err::<(), _>(SystemError::servant("no"))
                })
                .await;
            assert!(given_up.is_err());
            put(action, &context, 4).await
        })
        .await;
    done.unwrap();
    let there: Vec<String> = [0, 1, 2, 4].map(|number| entry(number).name).to_vec();
    assert_eq!(names(client, &context).await, there);
    assert_eq!(names(client, &other).await, expected(0..1));
    stop([b]).await;
}

/// The next leader has what the first one had before, and puts it back.
#[tokio::test(flavor = "multi_thread")]
async fn the_next_leader_undoes_what_the_first_one_did() {
    let system = System::start().await;
    let mut a = Some(system.node("a", "a").await);
    let b = system.node("b", "b").await;
    let client = &system.client;
    let context = cohort(client, "a", 2).await;
    fill(client, &context, 0..2).await;
    let given_up = client
        .action(async |action| {
            put(action, &context, 2).await?;
            stop(a.take()).await;
            // It is locked still.
            let call = client
                .call()
                .deadline(std::time::Duration::from_millis(500));
            let waits = context.put(&call, &entry(3), false).await;
            assert!(waits.is_err(), "somebody else got in");
            Err::<(), _>(SystemError::servant("no"))
        })
        .await;
    assert!(given_up.is_err());
    assert_eq!(names(client, &context).await, expected(0..2));
    client
        .action(async |action| put(action, &context, 2).await)
        .await
        .unwrap();
    assert_eq!(names(client, &context).await, expected(0..3));
    stop([b]).await;
}
