//! What the end of an action costs: forced syncs, counted by the stores of two nodes.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod common;

use common::behaviour::Counter;
use common::{builder, client_of, counter, run, stop, until};
use futures_util::future::join_all;
use partha::{Client, Node, StoreUsage, SystemError};
use test_support::{TempDir, temp_dir};

/// Actions at the same time, each over both nodes.
const CROWD: usize = 64;

struct Pair {
    nodes: [Node; 2],
    client: Client,
    _dirs: [TempDir; 2],
}

/// What two stores have done since another moment.
#[derive(Clone, Copy, Debug)]
struct Done {
    syncs: [u64; 2],
    batches: [u64; 2],
    prepares: u64,
    decisions: u64,
    installs: u64,
    settles: u64,
}

impl Pair {
    async fn start() -> Self {
        let dirs = [temp_dir("syncs"), temp_dir("syncs")];
        let a = builder(dirs[0].path()).start().await.unwrap();
        let b = builder(dirs[1].path()).name("b").start().await.unwrap();
        let client = client_of(&a).await;
        for (to, of) in [(&client, &b), (a.client(), &b), (b.client(), &a)] {
            let address = of.address().to_string();
            to.locator().introduce(to, &address).await.unwrap();
        }
        Self {
            nodes: [a, b],
            client,
            _dirs: dirs,
        }
    }

    async fn counter(&self, node: usize) -> Counter {
        counter(&self.client, &self.nodes[node], 0).await
    }

    fn usage(&self) -> [StoreUsage; 2] {
        [0, 1].map(|node: usize| self.nodes[node].store_usage())
    }

    fn since(&self, before: &[StoreUsage; 2]) -> Done {
        let now = self.usage();
        let each = |of: fn(&StoreUsage) -> u64| [0, 1].map(|n: usize| of(&now[n]) - of(&before[n]));
        let both = |of: fn(&StoreUsage) -> u64| each(of).iter().sum();
        Done {
            syncs: each(|usage| usage.syncs - usage.syncs_sweeping),
            batches: each(|usage| usage.batches),
            prepares: both(|usage| usage.prepares),
            decisions: both(|usage| usage.decisions),
            installs: both(|usage| usage.installs),
            settles: both(|usage| usage.settles),
        }
    }

    /// Waits until nothing is left of any action.
    async fn quiet(&self) {
        for node in &self.nodes {
            let address = node.address().to_string();
            let handle = self.client.node_at(&address).await.unwrap();
            until(|| async {
                let statistics = handle.manager().statistics(&self.client).await.unwrap();
                statistics.actions_active == 0
            })
            .await;
        }
    }

    async fn stop(self) {
        for node in self.nodes {
            stop(node).await;
        }
    }
}

#[test]
fn an_action_that_only_reads_waits_for_no_disk() {
    run(async {
        let pair = Pair::start().await;
        let (x, y) = (pair.counter(0).await, pair.counter(1).await);
        let before = pair.usage();
        let sum = pair.client.action(async |a| {
            let nested = a.nested(async |b| y.value(b).await).await.unwrap();
            Ok::<_, SystemError>(x.value(a).await? + nested)
        });
        assert_eq!(sum.await.unwrap(), 0);
        pair.quiet().await;
        let done = pair.since(&before);
        assert_eq!((done.syncs, done.batches), ([0, 0], [0, 0]), "{done:?}");
        pair.stop().await;
    });
}

#[test]
fn an_action_that_changes_one_node_waits_for_one_sync() {
    run(async {
        let pair = Pair::start().await;
        let (x, y) = (pair.counter(0).await, pair.counter(1).await);
        let before = pair.usage();
        // The node that is only read comes first: who decides is the one that has changed.
        let committed = pair.client.action(async |a| {
            let read = y.value(a).await?;
            x.add(a, 1 + read).await?;
            x.add(a, 1).await?;
            a.nested(async |b| x.add(b, 1).await).await.unwrap();
            Ok::<_, SystemError>(())
        });
        committed.await.unwrap();
        let done = pair.since(&before);
        assert_eq!((done.syncs, done.decisions), ([1, 0], 1), "{done:?}");
        pair.quiet().await;
        let done = pair.since(&before);
        assert_eq!((done.syncs, done.batches), ([1, 0], [1, 0]), "{done:?}");
        assert_eq!(x.value(&pair.client).await.unwrap(), 3);
        pair.stop().await;
    });
}

#[test]
fn an_action_over_two_nodes_waits_for_two_syncs_in_sequence() {
    run(async {
        let pair = Pair::start().await;
        let (x, y) = (pair.counter(0).await, pair.counter(1).await);
        let mut not_waited_for = 0;
        for _ in 0..20 {
            let before = pair.usage();
            let committed = pair.client.action(async |a| {
                x.add(a, 1).await?;
                y.add(a, 1).await
            });
            committed.await.unwrap();
            let done = pair.since(&before);
            // The participant's, then the coordinator's; no other but of what comes after the
            // commit, which may have begun.
            assert_eq!((done.prepares, done.decisions), (1, 1), "{done:?}");
            let syncs: u64 = done.syncs.iter().sum();
            assert_eq!(syncs - done.installs - done.settles, 2, "{done:?}");
            not_waited_for += u64::from(done.installs == 0) + u64::from(done.settles == 0);
            until(|| async { pair.since(&before).settles == 1 }).await;
            pair.quiet().await;
            let done = pair.since(&before);
            assert_eq!((done.installs, done.settles), (1, 1), "{done:?}");
            assert_eq!(done.syncs, [2, 2], "{done:?}");
        }
        assert_ne!(not_waited_for, 0, "the client's commit waits for phase 2");
        pair.stop().await;
    });
}

#[test]
fn a_crowd_of_actions_shares_its_syncs() {
    run(async {
        let pair = Pair::start().await;
        let mut objects = Vec::new();
        for _ in 0..CROWD {
            objects.push((pair.counter(0).await, pair.counter(1).await));
        }
        let before = pair.usage();
        let client = &pair.client;
        let actions = objects.iter().map(async |(x, y)| {
            for _ in 0..4 {
                let committed = client.action(async |a| {
                    x.add(a, 1).await?;
                    y.add(a, 1).await
                });
                committed.await.unwrap();
            }
        });
        join_all(actions).await;
        let all = 4 * CROWD as u64;
        until(|| async { pair.since(&before).settles == all }).await;
        let done = pair.since(&before);
        let (syncs, batches) = (sum(done.syncs), sum(done.batches));
        println!(
            "{} actions: {batches} batches in {syncs} syncs",
            done.decisions
        );
        assert_eq!(done.decisions, all, "{done:?}");
        assert_eq!(batches, 4 * done.decisions, "{done:?}");
        assert!(2 * syncs < batches, "{done:?}");
        assert!(
            pair.usage()
                .iter()
                .any(|usage| usage.batches_per_sync_max >= 8)
        );
        for (x, y) in &objects {
            assert_eq!(x.value(client).await.unwrap(), 4);
            assert_eq!(y.value(client).await.unwrap(), 4);
        }
        pair.stop().await;
    });
}

fn sum(of_nodes: [u64; 2]) -> u64 {
    of_nodes.iter().sum()
}
