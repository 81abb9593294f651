//! What an action on objects with three copies costs beside one on objects without: messages
//! between shards about the action, and syncs of all stores. The table is that of
//! docs/performance.md.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::time::{Duration, Instant};

use common::carry::{directory, entry};
use common::{LONG, System};
use partha::services::naming::NameContext;
use partha::{Action, Client, Node, SystemError};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cost {
    /// Heard by shards from each other and from whoever ran the action, but for its calls and its
    /// request to commit.
    messages: u64,
    /// Batches of all stores: each entry of a log is one at each member.
    syncs: u64,
}

async fn so_far(client: &Client, nodes: &[Node]) -> Cost {
    let (mut messages, mut syncs) = (0, 0);
    for node in nodes {
        let handle = client.node_at(&node.address().to_string()).await.unwrap();
        let statistics = handle.manager().statistics(client).await.unwrap();
        messages += statistics.action_messages;
        let usage = node.store_usage();
        syncs += usage.syncs - usage.syncs_sweeping;
    }
    Cost { messages, syncs }
}

/// What an action costs until nothing is left of it.
async fn cost(
    client: &Client,
    nodes: &[Node],
    body: impl AsyncFnOnce(&Action) -> Result<(), SystemError>,
) -> Cost {
    let before = so_far(client, nodes).await;
    client.action(body).await.unwrap();
    // Until it is the same for longer than anything is held.
    let (begun, mut last, mut since) = (Instant::now(), before, Instant::now());
    while since.elapsed() < Duration::from_millis(1_200) {
        assert!(begun.elapsed() < LONG, "it never ends: {last:?}");
        let now = so_far(client, nodes).await;
        if now != last {
            (last, since) = (now, Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Cost {
        messages: last.messages - before.messages,
        syncs: last.syncs - before.syncs,
    }
}

async fn put(action: &Action, context: &NameContext, number: u32) -> Result<(), SystemError> {
    let put = context.put(action, &entry(number), true).await;
    put.map_err(|error| SystemError::servant(error.to_string()))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_on_objects_with_copies_costs_what_the_table_says() {
    let system = System::start().await;
    let mut nodes = Vec::new();
    for name in ["a", "b", "c"] {
        nodes.push(system.node(name, name).await);
    }
    let client = &system.client;
    let plain = [
        directory(client, "a", 0).await,
        directory(client, "b", 0).await,
    ];
    let copied = [
        directory(client, "a", 3).await,
        directory(client, "b", 3).await,
    ];
    let mut found = Vec::new();
    for [x, y] in [&plain, &copied] {
        // The first of each binds, loads and gets promises.
        for number in [1, 2] {
            let one = cost(client, &nodes, async |a| put(a, x, number).await).await;
            let two = cost(client, &nodes, async |a| {
                put(a, x, number + 10).await?;
                put(a, y, number + 10).await
            })
            .await;
            if number == 2 {
                found.extend([one, two]);
            }
        }
    }
    let expected = [(0, 1), (4, 4), (0, 3), (4, 12)];
    let expected = expected.map(|(messages, syncs)| Cost { messages, syncs });
    assert_eq!(found, expected);
    for node in nodes {
        node.shutdown(LONG).await.unwrap();
    }
}
