//! What each shape of action costs: messages between shards, batches of the stores, their syncs.
//! The table is that of docs/performance.md.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod common;

use std::fmt::Debug;

use common::behaviour::Counter;
use common::{builder, client_of, counter, run, stop, until};
use partha::{Action, Client, Node, SystemError};
use test_support::{TempDir, temp_dir};

/// What an action has cost, all nodes together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cost {
    /// Heard by shards from each other and from whoever ran the action, without its calls and its
    /// request to commit.
    messages: u64,
    /// Batches that the commit waited for: prepares at the same time, then the decision.
    prepares: u64,
    decisions: u64,
    /// Batches that it did not wait for.
    installs: u64,
    settles: u64,
    syncs: u64,
}

/// As many as there are of each, in the order of the table.
fn cost([messages, prepares, decisions, installs, settles]: [u64; 5]) -> Cost {
    let syncs = prepares + decisions + installs + settles;
    Cost {
        messages,
        prepares,
        decisions,
        installs,
        settles,
        syncs,
    }
}

struct Nodes {
    all: Vec<Node>,
    counters: Vec<Counter>,
    client: Client,
    _dirs: Vec<TempDir>,
}

impl Nodes {
    async fn start() -> Self {
        let dirs: Vec<_> = (0..3).map(|_| temp_dir("messages")).collect();
        let mut all = Vec::new();
        for (dir, name) in dirs.iter().zip(["a", "b", "c"]) {
            let node = builder(dir.path()).name(name).shards(1).start();
            all.push(node.await.unwrap());
        }
        let client = client_of(&all[0]).await;
        for of in &all {
            let address = of.address().to_string();
            client.locator().introduce(&client, &address).await.unwrap();
            for to in all.iter().filter(|to| to.me() != of.me()) {
                let to = to.client();
                to.locator().introduce(to, &address).await.unwrap();
            }
        }
        let mut counters = Vec::new();
        for node in &all {
            counters.push(counter(&client, node, 0).await);
        }
        Self {
            all,
            counters,
            client,
            _dirs: dirs,
        }
    }

    async fn so_far(&self) -> Cost {
        let mut sum = Cost::default();
        for node in &self.all {
            let handle = self.client.node_at(&node.address().to_string()).await;
            let statistics = handle.unwrap().manager().statistics(&self.client).await;
            let usage = node.store_usage();
            sum.messages += statistics.unwrap().action_messages;
            sum.prepares += usage.prepares;
            sum.decisions += usage.decisions;
            sum.installs += usage.installs;
            sum.settles += usage.settles;
            sum.syncs += usage.syncs - usage.syncs_sweeping;
        }
        sum
    }

    /// Checks what an action costs until nothing is left of it.
    async fn costs<E: Debug>(
        &self,
        expected: Cost,
        body: impl AsyncFnOnce(&Action, &[Counter]) -> Result<(), E>,
    ) {
        let before = self.so_far().await;
        let counters = &self.counters;
        let committed = self.client.action(async |a| body(a, counters).await);
        committed.await.unwrap();
        let since = async || {
            let now = self.so_far().await;
            cost_since(&now, &before)
        };
        let enough = |cost: &Cost| {
            cost.messages >= expected.messages
                && cost.settles >= expected.settles
                && cost.syncs >= expected.syncs
        };
        until(|| async { enough(&since().await) }).await;
        for node in &self.all {
            let handle = self.client.node_at(&node.address().to_string()).await;
            let handle = handle.unwrap();
            until(|| async {
                let statistics = handle.manager().statistics(&self.client).await;
                statistics.unwrap().actions_active == 0
            })
            .await;
        }
        assert_eq!(since().await, expected);
    }
}

fn cost_since(now: &Cost, before: &Cost) -> Cost {
    Cost {
        messages: now.messages - before.messages,
        prepares: now.prepares - before.prepares,
        decisions: now.decisions - before.decisions,
        installs: now.installs - before.installs,
        settles: now.settles - before.settles,
        syncs: now.syncs - before.syncs,
    }
}

type Ended = Result<(), SystemError>;

#[test]
fn every_shape_costs_what_the_table_says() {
    run(async {
        let nodes = Nodes::start().await;
        // One node alone: nobody is told anything.
        let one_reads =
            async |a: &Action, on: &[Counter]| -> Ended { on[0].value(a).await.map(drop) };
        nodes.costs(cost([0, 0, 0, 0, 0]), one_reads).await;
        let one_updates =
            async |a: &Action, on: &[Counter]| -> Ended { on[0].add(a, 1).await.map(drop) };
        nodes.costs(cost([0, 0, 1, 0, 0]), one_updates).await;
        // Readers are asked and answer: two messages each.
        let two_read = async |a: &Action, on: &[Counter]| -> Ended {
            on[0].value(a).await?;
            on[1].value(a).await.map(drop)
        };
        nodes.costs(cost([2, 0, 0, 0, 0]), two_read).await;
        let one_of_two_updates = async |a: &Action, on: &[Counter]| -> Ended {
            on[0].value(a).await?;
            on[1].add(a, 1).await.map(drop)
        };
        nodes.costs(cost([2, 0, 1, 0, 0]), one_of_two_updates).await;
        // Those that update are told besides, and acknowledge: four messages each.
        let two_update = async |a: &Action, on: &[Counter]| -> Ended {
            on[0].add(a, 1).await?;
            on[1].add(a, 1).await.map(drop)
        };
        nodes.costs(cost([4, 1, 1, 1, 1]), two_update).await;
        let two_of_three_update = async |a: &Action, on: &[Counter]| -> Ended {
            on[0].add(a, 1).await?;
            on[1].value(a).await?;
            on[2].add(a, 1).await.map(drop)
        };
        let mixed = cost([6, 1, 1, 1, 1]);
        nodes.costs(mixed, two_of_three_update).await;
        let three_update = async |a: &Action, on: &[Counter]| -> Ended {
            on[0].add(a, 1).await?;
            on[1].add(a, 1).await?;
            on[2].add(a, 1).await.map(drop)
        };
        nodes.costs(cost([8, 2, 1, 2, 1]), three_update).await;
        // A nested action that ends well: one message to each shard where it worked.
        let nested = async |a: &Action, on: &[Counter]| -> Ended {
            on[0].add(a, 1).await?;
            let within = a.nested(async |b| {
                on[0].add(b, 1).await?;
                on[1].add(b, 1).await
            });
            within
                .await
                .map(drop)
                .map_err(|error| SystemError::servant(error.to_string()))
        };
        nodes.costs(cost([6, 1, 1, 1, 1]), nested).await;
        for node in nodes.all {
            stop(node).await;
        }
    });
}
