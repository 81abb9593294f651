//! Actions in each other's way: deadlocks are found and named, and trying again helps.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod common;

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use common::behaviour::Counter;
use common::pair::{Pair, values};
use common::{builder, client_of, counter, run, stop, until};
use partha::{
    AbortReason, Action, ActionError, ActionOptions, Client, ErrorKind, Limits, SystemError,
};
use test_support::temp_dir;
use tokio::sync::Barrier;
use tokio::task::{JoinSet, spawn_local};

/// Longer than any detection takes, shorter than any time-out.
const SOON: Duration = Duration::from_secs(5);

/// A client process of its own, acquainted with both nodes.
async fn another(pair: &Pair) -> Client {
    let client = client_of(&pair.nodes[0]).await;
    let address = pair.nodes[1].address().to_string();
    client.locator().introduce(&client, &address).await.unwrap();
    client
}

/// Locks `first`, waits for the others to have done the same, and goes on to `second`.
async fn cross(
    client: &Client,
    meet: &Barrier,
    first: &Counter,
    second: &Counter,
) -> Result<(), ActionError<SystemError>> {
    let action = client.action(async |a| {
        first.add(a, 1).await?;
        meet.wait().await;
        second.add(a, 1).await?;
        Ok(())
    });
    action.await
}

#[test]
fn a_ring_of_actions_is_broken_and_named() {
    for size in [2, 3, 5] {
        run(async move {
            let pair = Pair::start().await;
            let mut counters = Vec::new();
            while counters.len() < size {
                counters.extend(pair.counters(0).await);
            }
            counters.truncate(size);
            let meet = Rc::new(Barrier::new(size));
            let mut tasks = JoinSet::new();
            let begun = Instant::now();
            for index in 0..size {
                let client = another(&pair).await;
                let first = counters[index].clone();
                let second = counters[(index + 1) % size].clone();
                let meet = meet.clone();
                tasks.spawn_local(async move { cross(&client, &meet, &first, &second).await });
            }
            let mut victims = Vec::new();
            while let Some(ended) = tasks.join_next().await {
                victims.extend(ended.unwrap().err());
            }
            let took = begun.elapsed();
            assert!(took < SOON, "a ring of {size} took {took:?}");
            // One is enough to break it.
            assert_eq!(victims.len(), 1, "{victims:?}");
            let text = victims[0].to_string();
            let ActionError::Deadlock {
                action,
                victim,
                cycle,
                ..
            } = &victims[0]
            else {
                panic!("{text}");
            };
            assert_eq!(action.uid(), *victim);
            for counter in &counters {
                let uid = counter.uid().to_string();
                assert!(cycle.contains(&uid), "{uid} is not in: {cycle}");
            }
            for node in &pair.nodes {
                let node = node.me().node.to_string();
                assert!(text.contains(&node), "{node} is not in: {text}");
            }
            assert!(victims[0].is_passing());
            let sum: i64 = values(&pair.client, &counters).await.iter().sum();
            assert_eq!(sum, 2 * (size as i64 - 1), "all others have committed");
            pair.stop().await;
        });
    }
}

#[test]
fn two_that_read_before_they_write_are_told_apart_at_once() {
    run(async {
        let pair = Pair::start().await;
        let [x, _] = pair.counters(0).await;
        let meet = Rc::new(Barrier::new(2));
        let begun = Instant::now();
        let mut tasks = JoinSet::new();
        for _ in 0..2 {
            let (client, x, meet) = (another(&pair).await, x.clone(), meet.clone());
            tasks.spawn_local(async move {
                let action = client.action(async |a| {
                    let value = x.value(a).await?;
                    meet.wait().await;
                    x.set(a, value + 1).await?;
                    Ok::<_, SystemError>(())
                });
                action.await
            });
        }
        let mut failed = 0;
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended.unwrap() {
                assert!(matches!(error, ActionError::Deadlock { .. }), "{error}");
                failed += 1;
            }
        }
        assert_eq!(failed, 1);
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        assert_eq!(x.value(&pair.client).await.unwrap(), 1);
        pair.stop().await;
    });
}

#[test]
fn tried_again_all_get_through() {
    run(async {
        let pair = Pair::start().await;
        let counters = Rc::new(pair.counters(100).await);
        let tries = Rc::new(Cell::new(0));
        let mut tasks = JoinSet::new();
        for index in 0..4 {
            let (client, counters) = (another(&pair).await, counters.clone());
            let tries = tries.clone();
            tasks.spawn_local(async move {
                let (from, to) = (&counters[index % 2], &counters[(index + 1) % 2]);
                for _ in 0..3 {
                    let many = ActionOptions::new().tries(100);
                    let transfer = async |a: &Action| {
                        tries.set(tries.get() + 1);
                        from.add(a, -1).await?;
                        to.add(a, 1).await?;
                        Ok::<_, SystemError>(())
                    };
                    client.action_retry_with(many, transfer).await.unwrap();
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
        assert!(tries.get() >= 12);
        assert_eq!(values(&pair.client, &*counters).await, [100, 100]);
        pair.stop().await;
    });
}

#[test]
fn siblings_that_lock_each_other_out_lose_one_of_them() {
    run(async {
        let pair = Pair::start().await;
        let [x, y] = pair.counters(0).await;
        let meet = Barrier::new(2);
        let sibling = async |a: &Action, first: &Counter, second: &Counter| {
            a.nested(async |b| {
                first.add(b, 1).await?;
                meet.wait().await;
                second.add(b, 1).await?;
                Ok::<_, SystemError>(())
            })
            .await
        };
        let begun = Instant::now();
        let commit = pair.client.action(async |a| {
            let (one, two) = tokio::join!(sibling(a, &x, &y), sibling(a, &y, &x));
            let failed: Vec<_> = [one, two].into_iter().filter_map(Result::err).collect();
            assert_eq!(failed.len(), 1, "{failed:?}");
            assert!(
                matches!(failed[0], ActionError::Deadlock { .. }),
                "{failed:?}"
            );
            assert!(
                a.doomed().is_none(),
                "the smallest action that helps is aborted"
            );
            Ok::<_, SystemError>(())
        });
        commit.await.unwrap();
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        assert_eq!(values(&pair.client, &[x, y]).await, [1, 1]);
        pair.stop().await;
    });
}

#[test]
fn an_action_in_a_ring_with_a_plain_call_of_a_servant_is_found_too() {
    run(async {
        let pair = Pair::start().await;
        let [x, y] = pair.counters(10).await;
        // A call outside of actions holds its object while its servant calls on.
        let begun = Instant::now();
        let other = another(&pair).await;
        let mut deadlocks = 0;
        for _ in 0..10 {
            let give = {
                let (other, x, y) = (other.clone(), x.clone(), y.clone());
                spawn_local(async move { x.give(&other, &y, 1).await })
            };
            let action = pair.client.action(async |a| {
                y.add(a, 0).await?;
                x.add(a, 0).await?;
                Ok::<_, SystemError>(())
            });
            let (action, given) = (action.await, give.await.unwrap());
            for failed in [action.is_err(), given.is_err()] {
                deadlocks += u32::from(failed);
            }
            if let Err(error) = action {
                assert!(matches!(error, ActionError::Deadlock { .. }), "{error}");
            }
        }
        assert!(
            begun.elapsed() < 2 * SOON,
            "{deadlocks} in {:?}",
            begun.elapsed()
        );
        let values = values(&pair.client, &[x, y]).await;
        assert_eq!(values.iter().sum::<i64>(), 20, "{values:?}");
        pair.stop().await;
    });
}

#[test]
fn a_lock_that_is_not_to_be_had_in_time_is_an_error_that_passes() {
    run(async {
        let dir = temp_dir("conflict");
        let limits = Limits {
            lock_wait_ns: 200_000_000,
            ..Limits::default()
        };
        let node = builder(dir.path()).limits(limits).start().await.unwrap();
        let (client, other) = (client_of(&node).await, client_of(&node).await);
        let x = counter(&client, &node, 0).await;
        let holder = client.begin();
        x.add(&holder, 1).await.unwrap();
        let action = other.action(async |a| x.add(a, 1).await);
        let error = action.await.unwrap_err();
        assert!(error.is_passing(), "{error}");
        assert_eq!(
            error.cause().unwrap().kind(),
            ErrorKind::LockTimeout,
            "{error}"
        );
        let ActionError::Aborted { reason, .. } = &error else {
            panic!("{error}");
        };
        assert!(matches!(reason, AbortReason::Call(_)), "{error}");
        let tries = Cell::new(0);
        let retried = other.action_retry(async |a| {
            tries.set(tries.get() + 1);
            x.add(a, 1).await
        });
        // It is free when the first try has failed.
        let freed = async {
            until(|| async { tries.get() > 1 }).await;
            holder.commit().await.unwrap();
        };
        let (retried, ()) = tokio::join!(retried, freed);
        assert_eq!(retried.unwrap(), 2);
        stop(node).await;
    });
}

#[test]
fn trying_again_has_an_end() {
    run(async {
        let pair = Pair::start().await;
        let [x, y] = pair.counters(0).await;
        let (client, tries) = (&pair.client, Cell::new(0));
        let refused = |kind| SystemError::new(kind, "as planned");
        // Only what may pass is tried again.
        let given_up = client.action_retry(async |a| {
            tries.set(tries.get() + 1);
            x.add(a, 1).await?;
            Err::<(), _>(refused(ErrorKind::Servant))
        });
        given_up.await.unwrap_err();
        assert_eq!(tries.replace(0), 1);
        let node = pair.nodes[1].me().node;
        let Pair {
            nodes: [a, b],
            client,
            dirs,
        } = pair;
        stop(b).await;
        let few = ActionOptions::new()
            .tries(3)
            .deadline(Duration::from_secs(60));
        let unreachable = client.action_retry_with(few, async |action| {
            tries.set(tries.get() + 1);
            x.add(action, 1).await?;
            let soon = action.call().deadline(Duration::from_millis(300));
            y.add(&soon, 1).await?;
            Ok::<_, SystemError>(())
        });
        let error = unreachable.await.unwrap_err();
        assert!(error.cause().is_some(), "{error} at {node}");
        assert_eq!(x.value(&client).await.unwrap(), 0);
        assert!((1..=3).contains(&tries.get()), "{}", tries.get());
        stop(a).await;
        drop(dirs);
    });
}
