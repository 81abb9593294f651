//! What calls and actions on objects with three copies cost beside the same on objects without:
//! messages between shards about actions, entries told to other copies, and syncs of all stores.
//! The tables are those of docs/performance.md.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::time::{Duration, Instant};

use common::carry::{directory, directory_as, entry};
use common::{LONG, System};
use partha::services::naming::NameContext;
use partha::{Caller, Client, Node, Replication, SystemError};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cost {
    /// Heard by shards from each other and from whoever ran the action, but for its calls and its
    /// request to commit.
    messages: u64,
    /// Entries of logs that leaders told other copies; each is answered by one message more.
    told: u64,
    /// Batches of all stores: each entry of a log is one at each member.
    syncs: u64,
}

async fn so_far(client: &Client, nodes: &[Node]) -> Cost {
    let (mut messages, mut told, mut syncs) = (0, 0, 0);
    for node in nodes {
        let handle = client.node_at(&node.address().to_string()).await.unwrap();
        let statistics = handle.manager().statistics(client).await.unwrap();
        messages += statistics.action_messages;
        told += statistics.entries_told;
        let usage = node.store_usage();
        syncs += usage.syncs - usage.syncs_sweeping;
    }
    Cost {
        messages,
        told,
        syncs,
    }
}

/// What something costs until nothing is left of it.
async fn cost(client: &Client, nodes: &[Node], done: impl AsyncFnOnce()) -> Cost {
    let before = so_far(client, nodes).await;
    done().await;
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
        told: last.told - before.told,
        syncs: last.syncs - before.syncs,
    }
}

async fn put(caller: &impl Caller, context: &NameContext, number: u32) -> Result<(), SystemError> {
    let put = context.put(caller, &entry(number), true).await;
    put.map_err(|error| SystemError::servant(error.to_string()))
}

/// A call outside of actions, an action over one object, and one over two.
async fn costs(client: &Client, nodes: &[Node], [x, y]: &[NameContext; 2]) -> [Cost; 3] {
    let two = async |number| {
        let two = client.action(async |a| {
            put(a, x, number).await?;
            put(a, y, number).await
        });
        two.await.unwrap();
    };
    // The first binds, loads and gets promises.
    two(1).await;
    cost(client, nodes, async || {}).await;
    let call = cost(client, nodes, async || put(client, x, 2).await.unwrap());
    let call = call.await;
    let one = cost(client, nodes, async || {
        let one = client.action(async |a| put(a, x, 3).await);
        one.await.unwrap();
    });
    let one = one.await;
    [call, one, cost(client, nodes, async || two(4).await).await]
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_and_actions_on_objects_with_copies_cost_what_the_tables_say() {
    let system = System::start().await;
    let mut nodes = Vec::new();
    for name in ["a", "b", "c"] {
        nodes.push(system.node(name, name).await);
    }
    let client = &system.client;
    let of = |messages, told, syncs| Cost {
        messages,
        told,
        syncs,
    };
    let copies = [
        (None, [of(0, 0, 1), of(0, 0, 1), of(4, 0, 4)]),
        (
            Some(Replication::passive(3)),
            [of(0, 2, 3), of(0, 2, 3), of(4, 8, 12)],
        ),
        (
            Some(Replication::cohort(3)),
            [of(0, 2, 3), of(0, 4, 6), of(4, 12, 18)],
        ),
        (
            Some(Replication::active(3)),
            [of(0, 2, 3), of(0, 4, 6), of(4, 12, 18)],
        ),
    ];
    for (replication, expected) in copies {
        let mut both = Vec::new();
        for node in ["a", "b"] {
            both.push(match &replication {
                None => directory(client, node, 0).await,
                Some(replication) => directory_as(client, node, replication).await,
            });
        }
        let both = both.try_into().unwrap();
        let found = costs(client, &nodes, &both).await;
        println!("{replication:?}: {found:?}");
        assert_eq!(found, expected, "{replication:?}");
    }
    for node in nodes {
        node.shutdown(LONG).await.unwrap();
    }
}
