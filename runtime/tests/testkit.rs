//! The faults of the test kit: each does what it says, and no more.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod common;

use std::time::{Duration, Instant};

use common::behaviour::Counter;
use common::cluster::{cluster, counter_at, plan};
use common::{arrived, new_gate, open, run};
use partha::testkit::{Cluster, wait_until};
use partha::{ActionError, Client, Completed, ErrorKind, SystemError};
use tokio::task::spawn_local;

const PATIENCE: Duration = Duration::from_secs(30);
/// Much shorter than any lease, long enough for a call that is answered.
const SOON: Duration = Duration::from_millis(300);

/// Counts the connections of a node, as the node sees them.
async fn connections(cluster: &Cluster, name: &str) -> u64 {
    let node = cluster.node(name);
    let statistics = node.handle().manager().statistics(node.client()).await;
    statistics.unwrap().connections
}

fn is_out_of_reach(error: &SystemError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Deadline | ErrorKind::Unreachable | ErrorKind::BindingBroken
    )
}

#[test]
fn a_killed_node_keeps_what_it_has_acknowledged() {
    run(async {
        let mut cluster = cluster(2).await;
        let client = cluster.client();
        let mut counters = Vec::new();
        for _ in 0..8 {
            counters.push(counter_at(&client, &cluster.at("a"), 0).await);
        }
        let mut sums = vec![0; counters.len()];
        for round in 1..=4 {
            // Calls are under way when it dies; each tells in the end what became of it.
            let calls: Vec<_> = (0..counters.len())
                .map(|n| {
                    let (client, counter) = (client.clone(), counters[n].clone());
                    spawn_local(async move {
                        let first = counter.add(&client, 1).await;
                        let Err(error) = first else { return };
                        let again = client.call().again(error.call().unwrap());
                        let again = again.deadline(PATIENCE);
                        counter.add(&again, 1).await.unwrap();
                    })
                })
                .collect();
            cluster.kill("a").await;
            assert_eq!(cluster.address("a"), None);
            cluster.restart("a").await.unwrap();
            for call in calls {
                call.await.unwrap();
            }
            assert_eq!(cluster.node("a").me().incarnation.0, round + 1);
            for (counter, sum) in counters.iter().zip(&mut sums) {
                *sum += 1;
                assert_eq!(counter.value(&client).await.unwrap(), *sum);
            }
        }
        cluster.stop().await.unwrap();
    });
}

#[test]
fn a_kill_is_no_goodbye() {
    run(async {
        let mut cluster = cluster(1).await;
        let (client, gate) = (cluster.client(), new_gate("killed"));
        let object = counter_at(&client, &cluster.at("a"), 0).await;
        let (begun, waiting) = (Instant::now(), {
            let (object, client, gate) = (object.clone(), client.clone(), gate.clone());
            spawn_local(async move { object.add_at_gate(&client, 5, &gate).await })
        });
        arrived(&gate, 1).await;
        cluster.kill("a").await;
        // The caller learns it at once, and not by the lease.
        let error = waiting.await.unwrap().unwrap_err();
        assert_eq!(
            (error.kind(), error.completion()),
            (ErrorKind::BindingBroken, Completed::Maybe)
        );
        assert!(begun.elapsed() < PATIENCE / 2);
        let soon = client.call().deadline(SOON);
        let error = object.value(&soon).await.unwrap_err();
        assert_eq!(error.completion(), Completed::No, "{error}");
        // To kill what is dead changes nothing.
        cluster.kill("a").await;
        cluster.restart("a").await.unwrap();
        // It was never executed, since the servant died where it waited.
        assert_eq!(object.value(&client).await.unwrap(), 0);
        open(&gate, 1);
        cluster.stop().await.unwrap();
    });
}

#[test]
fn a_partition_stops_calls_and_healing_lets_them_through() {
    run(async {
        let cluster = cluster(2).await;
        let client = cluster.client();
        let there = counter_at(&client, &cluster.at("a"), 1).await;
        let elsewhere = counter_at(&client, &cluster.at("b"), 1).await;
        assert_eq!(there.value(&client).await.unwrap(), 1);
        cluster.partition("client", "a");
        let soon = client.call().deadline(SOON);
        let error = there.add(&soon, 1).await.unwrap_err();
        assert!(is_out_of_reach(&error), "{error}");
        assert_eq!(error.completion(), Completed::Maybe, "{error}");
        // Others are not concerned.
        assert_eq!(elsewhere.value(&client).await.unwrap(), 1);
        let other = cluster.client_named("other");
        assert_eq!(
            there.value(&other).await.unwrap(),
            1,
            "nothing came through"
        );
        cluster.heal();
        let again = client.call().again(error.call().unwrap());
        assert_eq!(
            there.add(&again, 1).await.unwrap(),
            2,
            "once, however it came"
        );
        assert_eq!(there.value(&client).await.unwrap(), 2);
        cluster.stop().await.unwrap();
    });
}

#[test]
fn a_partition_leaves_connections_open_until_the_lease_ends() {
    run(async {
        let (heartbeat, lease) = (Duration::from_millis(200), Duration::from_secs(2));
        let mut cluster = plan(1).lease(heartbeat, lease).start().await.unwrap();
        let client = cluster.client_named("far");
        let object = counter_at(&client, &cluster.at("a"), 1).await;
        assert_eq!(object.value(&client).await.unwrap(), 1);
        let before = connections(&cluster, "a").await;
        assert!(before > 0);
        cluster.partition("far", "a");
        let begun = Instant::now();
        // The client dies, and nobody hears of it.
        cluster.kill("far").await;
        wait_until(async || connections(&cluster, "a").await == 0, PATIENCE).await;
        let took = begun.elapsed();
        assert!(took > lease / 2, "it was seen after {took:?} already");
        // Well before the usual lease, which nobody asked for here.
        assert!(took < Duration::from_secs(9), "it was seen after {took:?}");
        cluster.stop().await.unwrap();
    });
}

#[test]
fn a_partition_outlives_kill_and_restart() {
    run(async {
        let mut cluster = cluster(2).await;
        let client = cluster.client();
        let there = counter_at(&client, &cluster.at("a"), 1).await;
        assert_eq!(there.value(&client).await.unwrap(), 1);
        cluster.partition("client", "a");
        let calling = {
            let (there, client) = (there.clone(), client.clone());
            spawn_local(async move { there.value(&client.call().deadline(SOON)).await })
        };
        cluster.kill("a").await;
        // That its end was closed is not seen: the call waits for as long as it may.
        let begun = Instant::now();
        let error = calling.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Deadline, "{error}");
        assert!(begun.elapsed() < PATIENCE);
        cluster.restart("a").await.unwrap();
        let error = there.value(&client.call().deadline(SOON)).await;
        assert!(is_out_of_reach(&error.unwrap_err()));
        cluster.heal();
        let long = client.call().deadline(PATIENCE);
        assert_eq!(there.value(&long).await.unwrap(), 1);
        cluster.stop().await.unwrap();
    });
}

#[test]
fn a_connection_to_who_is_cut_off_is_not_made() {
    run(async {
        let cluster = cluster(1).await;
        let client = cluster.client_named("new");
        let address = cluster.address("a").unwrap().to_string();
        cluster.partition("new", "a");
        let begun = Instant::now();
        let error = client.node_at(&address).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
        assert!(error.detail().contains("no answer in 5 s"), "{error}");
        assert!(begun.elapsed() >= Duration::from_secs(5));
        // One that is being made goes on when it can.
        let meeting = {
            let (client, address) = (client.clone(), address.clone());
            spawn_local(async move { client.node_at(&address).await.map(drop) })
        };
        tokio::task::yield_now().await;
        cluster.heal();
        meeting.await.unwrap().unwrap();
        cluster.stop().await.unwrap();
    });
}

#[test]
fn silence_has_a_direction() {
    run(async {
        let cluster = cluster(1).await;
        let client = cluster.client();
        let object = counter_at(&client, &cluster.at("a"), 1).await;
        assert_eq!(object.value(&client).await.unwrap(), 1);
        // The call arrives, its answer does not.
        cluster.silence("a", "client");
        let adding = {
            let (object, client) = (object.clone(), client.clone());
            spawn_local(async move { object.add(&client.call().deadline(SOON), 1).await })
        };
        let other = cluster.client_named("other");
        wait_until(async || object.value(&other).await == Ok(2), PATIENCE).await;
        let error = adding.await.unwrap().unwrap_err();
        assert_eq!(error.completion(), Completed::Maybe, "{error}");
        cluster.heal();
        assert_eq!(object.value(&client).await.unwrap(), 2);
        // Neither does what is not said.
        cluster.silence("client", "a");
        let soon = client.call().deadline(SOON);
        object.add(&soon, 1).await.unwrap_err();
        assert_eq!(object.value(&other).await.unwrap(), 2);
        cluster.heal();
        cluster.stop().await.unwrap();
    });
}

#[test]
fn a_cut_is_learnt_at_once_and_loses_what_was_held_up() {
    run(async {
        let cluster = cluster(1).await;
        let (client, gate) = (cluster.client(), new_gate("held-up"));
        let object = counter_at(&client, &cluster.at("a"), 1).await;
        let adding = {
            let (object, client, gate) = (object.clone(), client.clone(), gate.clone());
            spawn_local(async move { object.add_at_gate(&client, 1, &gate).await })
        };
        arrived(&gate, 1).await;
        cluster.silence("a", "client");
        open(&gate, 1);
        let other = cluster.client_named("other");
        wait_until(async || object.value(&other).await == Ok(2), PATIENCE).await;
        cluster.cut("client", "a");
        cluster.heal();
        let error = adding.await.unwrap().unwrap_err();
        assert_eq!(
            (error.kind(), error.completion()),
            (ErrorKind::BindingBroken, Completed::Maybe)
        );
        assert_eq!(object.value(&client).await.unwrap(), 2);
        cluster.stop().await.unwrap();
    });
}

#[test]
fn nodes_are_cut_off_from_each_other_as_clients_are() {
    run(async {
        let cluster = cluster(3).await;
        let client = cluster.client();
        let from = counter_at(&client, &cluster.at("a"), 100).await;
        let to = [
            counter_at(&client, &cluster.at("b"), 0).await,
            counter_at(&client, &cluster.at("c"), 0).await,
        ];
        for to in &to {
            from.give(&client, to, 10).await.unwrap();
        }
        cluster.partition("b", "a");
        let soon = client.call().deadline(SOON);
        from.give(&soon, &to[0], 10).await.unwrap_err();
        assert_eq!(to[0].value(&client).await.unwrap(), 10);
        let long = client.call().deadline(PATIENCE);
        from.give(&long, &to[1], 10).await.unwrap();
        cluster.isolate("a");
        from.give(&client.call().deadline(SOON), &to[1], 10)
            .await
            .unwrap_err();
        cluster.heal();
        let both = async |to: &Counter| {
            let long = client.call().deadline(PATIENCE);
            from.give(&long, to, 10).await.is_ok()
        };
        wait_until(async || both(&to[0]).await && both(&to[1]).await, PATIENCE).await;
        cluster.stop().await.unwrap();
    });
}

#[test]
fn a_paused_node_is_silent_and_goes_on_where_it_was() {
    run(async {
        let mut cluster = cluster(2).await;
        let client = cluster.client();
        let object = counter_at(&client, &cluster.at("a"), 1).await;
        assert_eq!(object.value(&client).await.unwrap(), 1);
        cluster.pause("a").await;
        let soon = client.call().deadline(SOON);
        let error = object.add(&soon, 1).await.unwrap_err();
        assert!(is_out_of_reach(&error), "{error}");
        // Not even a stranger is answered, while the system takes its connection.
        let stranger = Client::alone().unwrap();
        let address = cluster.address("a").unwrap().to_string();
        let meeting = tokio::time::timeout(SOON, stranger.node_at(&address)).await;
        meeting.unwrap_err();
        cluster.resume("a");
        let again = client.call().again(error.call().unwrap());
        assert_eq!(object.add(&again.deadline(PATIENCE), 1).await.unwrap(), 2);
        assert_eq!(cluster.node("a").me().incarnation.0, 1);
        stranger.node_at(&address).await.unwrap();
        // Killed while it stands still, it dies like any other.
        cluster.pause("a").await;
        cluster.kill("a").await;
        cluster.restart("a").await.unwrap();
        let long = client.call().deadline(PATIENCE);
        assert_eq!(object.value(&long).await.unwrap(), 2);
        cluster.stop().await.unwrap();
    });
}

#[test]
fn a_paused_client_is_missed_after_its_lease() {
    run(async {
        let mut cluster = cluster(1).await;
        let client = cluster.client_named("still");
        let object = counter_at(&client, &cluster.at("a"), 1).await;
        let action = client.begin();
        object.add(&*action, 1).await.unwrap();
        cluster.pause("still").await;
        wait_until(async || connections(&cluster, "a").await == 0, PATIENCE).await;
        // The node has given its action up.
        let other = cluster.client();
        let long = other.call().deadline(PATIENCE);
        assert_eq!(object.add(&long, 10).await.unwrap(), 11);
        cluster.resume("still");
        let ended = action.commit().await.unwrap_err();
        assert!(matches!(ended, ActionError::Aborted { .. }), "{ended:?}");
        let long = client.call().deadline(PATIENCE);
        assert_eq!(object.value(&long).await.unwrap(), 11);
        cluster.stop().await.unwrap();
    });
}

#[test]
fn a_killed_client_leaves_nothing_and_comes_back_as_its_next_life() {
    run(async {
        let mut cluster = cluster(2).await;
        let client = cluster.client_named("x");
        let object = counter_at(&client, &cluster.at("b"), 1).await;
        let action = client.begin();
        object.add(&*action, 1).await.unwrap();
        let begun = Instant::now();
        cluster.kill("x").await;
        let other = cluster.client();
        let long = other.call().deadline(PATIENCE);
        assert_eq!(object.add(&long, 10).await.unwrap(), 11);
        // By the end of its connection, not by its lease or the action's deadline.
        assert!(begun.elapsed() < Duration::from_secs(5));
        let error = object.value(&client.call().deadline(SOON)).await;
        assert!(is_out_of_reach(&error.unwrap_err()));
        action.commit().await.unwrap_err();
        cluster.restart("x").await.unwrap();
        let again = cluster.client_named("x");
        assert_eq!(again.me().node, client.me().node);
        assert_eq!(again.me().incarnation.0, client.me().incarnation.0 + 1);
        assert_eq!(object.add(&again, 100).await.unwrap(), 111);
        cluster.stop().await.unwrap();
    });
}

#[test]
fn an_action_over_a_partition_is_there_at_both_or_at_none() {
    run(async {
        let cluster = cluster(2).await;
        let client = cluster.client();
        let a = counter_at(&client, &cluster.at("a"), 100).await;
        let b = counter_at(&client, &cluster.at("b"), 100).await;
        for _ in 0..4 {
            let deadline = partha::ActionOptions::new().deadline(Duration::from_secs(2));
            let cut = cluster.random().below(3);
            let moved = client
                .action_with(deadline, async |action| {
                    a.add(action, -10).await?;
                    b.add(action, 10).await?;
                    match cut {
                        0 => cluster.partition("a", "b"),
                        1 => cluster.partition("client", "b"),
                        _ => {}
                    }
                    Ok::<_, SystemError>(())
                })
                .await;
            assert!(cut != 2 || moved.is_ok(), "{moved:?}");
            cluster.heal();
            let read = async |counter: &Counter| {
                let long = client.call().deadline(PATIENCE);
                counter.value(&long).await.ok()
            };
            wait_until(
                async || {
                    let (a, b) = (read(&a).await, read(&b).await);
                    a.zip(b).is_some_and(|(a, b)| a + b == 200)
                },
                PATIENCE,
            )
            .await;
        }
        cluster.stop().await.unwrap();
    });
}
