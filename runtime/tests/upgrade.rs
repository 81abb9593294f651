//! `#[upgrade]`: actions that read an object and then change it take turns, beside readers.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod common;

use common::{builder, client_of, run, stop, until};
use partha::{Client, Context, Node, Place, Result, Uid};
use test_support::temp_dir;
use tokio::task::spawn_local;
use upgrade::{Tally, tally};

#[rustfmt::skip]
#[path = "gen/upgrade.rs"]
#[allow(clippy::all, missing_docs, unused, unreachable_pub, reason = "generated code")]
mod upgrade;

struct TallyServant;

impl tally::Servant for TallyServant {
    fn new(&self) -> tally::State {
        tally::State { count: 0 }
    }

    async fn count(&self, state: &tally::State, _cx: &Context) -> Result<i64> {
        Ok(state.count)
    }

    async fn count_to_change(&self, state: &tally::State, _cx: &Context) -> Result<i64> {
        Ok(state.count)
    }

    async fn set(&self, state: &mut tally::State, _cx: &Context, count: i64) -> Result<()> {
        state.count = count;
        Ok(())
    }
}

/// A node with a tally, and a client.
async fn start(dir: &std::path::Path) -> (Node, Client, Tally) {
    let node = builder(dir).class(tally::class(TallyServant));
    let node = node.start().await.unwrap();
    let client = client_of(&node).await;
    let place = Place::Node(node.me().node);
    let tally = Tally::create(&client, &place).await.unwrap();
    (node, client, tally)
}

/// How many wait for locks of the node.
async fn waiting(client: &Client, node: &Node) -> usize {
    let address = node.address().to_string();
    let handle = client.node_at(&address).await.unwrap();
    let locks = handle.manager().locks(client, Uid::NIL, 10, true);
    locks
        .await
        .unwrap()
        .iter()
        .map(|lock| lock.waiters.len())
        .sum()
}

#[test]
fn an_upgrader_shares_with_readers_and_holds_up_the_next_one() {
    run(async {
        let dir = temp_dir("upgrade");
        let (node, client, tally) = start(dir.path()).await;
        let first = client.begin();
        assert_eq!(tally.count_to_change(&first).await.unwrap(), 0);
        let reader = client.begin();
        assert_eq!(tally.count(&reader).await.unwrap(), 0, "beside it");
        reader.commit().await.unwrap();

        let (other, its) = (client.clone(), tally.clone());
        let second = spawn_local(async move {
            let changed = other.action(async |a| {
                let count = its.count_to_change(a).await?;
                its.set(a, count + 10).await
            });
            changed.await
        });
        until(|| async { waiting(&client, &node).await == 1 }).await;
        assert_eq!(tally.count(&client).await.unwrap(), 0, "past who waits");
        tally.set(&first, 1).await.unwrap();
        first.commit().await.unwrap();
        second.await.unwrap().unwrap();
        assert_eq!(tally.count(&client).await.unwrap(), 11);
        stop(node).await;
    });
}

#[test]
fn upgraders_add_up_without_a_single_deadlock() {
    run(async {
        let dir = temp_dir("upgrade");
        let (node, client, tally) = start(dir.path()).await;
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let (client, tally) = (client.clone(), tally.clone());
                spawn_local(async move {
                    for _ in 0..5 {
                        let added = client.action(async |a| {
                            let count = tally.count_to_change(a).await?;
                            tally.set(a, count + 1).await
                        });
                        added.await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(tally.count(&client).await.unwrap(), 40);
        stop(node).await;
    });
}
