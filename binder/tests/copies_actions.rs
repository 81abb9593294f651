//! Actions on objects with copies: real nodes in this process, a real binder.
//!
//! Names go from one directory to another in actions; whatever happens, each is in one of them.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::carry::{carry, carry_surely, directory, entry, expected, fill, names};
use common::{LONG, System};
use partha::{ActionError, Node, SystemError};

const NAMES: u32 = 8;

async fn stop(nodes: impl IntoIterator<Item = Node>) {
    for node in nodes {
        node.shutdown(LONG).await.unwrap();
    }
}

/// Each pair of with and without copies, at the same node and at two: what commits is there, what
/// aborts is not, and nothing stays locked.
#[tokio::test(flavor = "multi_thread")]
async fn names_are_carried_between_directories_with_and_without_copies() {
    let system = System::start().await;
    let a = system.node("a", "a").await;
    let b = system.node("b", "b").await;
    let c = system.node("c", "c").await;
    let client = &system.client;
    let shapes = [
        (("a", 3), ("a", 3)),
        (("a", 3), ("b", 3)),
        (("a", 3), ("a", 0)),
        (("a", 0), ("b", 3)),
        (("b", 3), ("a", 0)),
        (("a", 2), ("c", 0)),
    ];
    for ((from_node, from_copies), (to_node, to_copies)) in shapes {
        let shape = format!("{from_copies} copies at {from_node} to {to_copies} at {to_node}");
        let from = directory(client, from_node, from_copies).await;
        let to = directory(client, to_node, to_copies).await;
        fill(client, &from, 0..NAMES).await;
        for number in 0..NAMES / 2 {
            let done = client
                .action(async |action| carry(action, &from, &to, number).await)
                .await;
            done.unwrap_or_else(|error| panic!("{shape}: {number}: {error}"));
        }
        let given_up = client
            .action(async |action| {
                carry(action, &from, &to, NAMES - 1).await?;
                Err::<(), _>(SystemError::servant("no"))
            })
            .await;
        assert!(
            matches!(given_up, Err(ActionError::Aborted { .. })),
            "{shape}"
        );
        assert_eq!(
            names(client, &from).await,
            expected(NAMES / 2..NAMES),
            "{shape}"
        );
        assert_eq!(names(client, &to).await, expected(0..NAMES / 2), "{shape}");
    }
    stop([a, b, c]).await;
}

/// The same object alone, and nested levels of which one is given up.
#[tokio::test(flavor = "multi_thread")]
async fn nested_levels_at_an_object_with_copies_are_undone_one_by_one() {
    let system = System::start().await;
    let a = system.node("a", "a").await;
    let b = system.node("b", "b").await;
    let client = &system.client;
    let context = directory(client, "a", 2).await;
    let done = client
        .action(async |action| {
            let put = async |caller: &partha::Action, number| {
                let put = context.put(caller, &entry(number), false).await;
                put.map_err(|error| SystemError::servant(error.to_string()))
            };
            put(action, 0).await?;
            let kept = action.nested(async |inner| put(inner, 1).await).await;
            kept.map_err(|error| SystemError::servant(error.to_string()))?;
            let given_up = action
                .nested(async |inner| {
                    put(inner, 2).await?;
                    Err::<(), _>(SystemError::servant("no"))
                })
                .await;
            assert!(given_up.is_err());
            put(action, 3).await
        })
        .await;
    done.unwrap();
    let there: Vec<String> = [0, 1, 3].map(|number| entry(number).name).to_vec();
    assert_eq!(names(client, &context).await, there);
    stop([a]).await;
    // The other copy has the same.
    assert_eq!(names(client, &context).await, there);
    stop([b]).await;
}

/// Who calls from a node with a copy that does not lead gets to the one that does, and back when
/// its own does.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_with_a_copy_that_follows_calls_the_leader() {
    let system = System::start().await;
    let a = system.node("a", "a").await;
    let b = system.node("b", "b").await;
    let from = directory(&system.client, "a", 2).await;
    let to = directory(&system.client, "a", 2).await;
    let client = b.client();
    fill(client, &from, 0..NAMES).await;
    for number in 0..NAMES / 2 {
        let carried = client.action(async |action| carry(action, &from, &to, number).await);
        carried.await.unwrap();
    }
    stop([a]).await;
    for number in NAMES / 2..NAMES {
        carry_surely(client, &from, &to, number).await;
    }
    assert_eq!(names(client, &to).await, expected(0..NAMES));
    stop([b]).await;
}

/// Leaders change while names are carried; the client retries whole actions, asks for outcomes
/// where it does not know them, and never sees one done twice.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_while_leaders_change() {
    let system = System::start().await;
    let mut nodes = Vec::new();
    for name in ["a", "b", "c"] {
        nodes.push(Some(system.node(name, name).await));
    }
    let client = &system.client;
    let from = directory(client, "a", 3).await;
    let to = directory(client, "b", 3).await;
    let count = 60;
    fill(client, &from, 0..count).await;
    for number in 0..count {
        if number % 20 == 10 {
            let at = (number / 20) as usize;
            let node = nodes[at].take().unwrap();
            node.shutdown(LONG).await.unwrap();
            let name = ["a", "b", "c"][at];
            nodes[at] = Some(system.node(name, name).await);
        }
        carry_surely(client, &from, &to, number).await;
    }
    assert_eq!(names(client, &from).await, Vec::<String>::new());
    assert_eq!(names(client, &to).await, expected(0..count));
    stop(nodes.into_iter().flatten()).await;
}
