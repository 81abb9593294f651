//! Where objects are and how they are found: shards, processes, runtimes; stale addresses, broken
//! connections, nodes that stop.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use common::behaviour::Counter;
use common::behaviour::counter::GiveError;
use common::cluster::cluster;
use common::{arrived, begun, builder, client_of, counter, new_gate, node, open, run, stop, until};
use partha::{Client, Completed, ErrorKind, Node, Place, SystemError};
use test_support::temp_dir;
use tokio::task::spawn_local;

/// Asks again until the outcome is known.
async fn settle(counter: &Counter, client: &Client, error: SystemError, amount: i64) -> i64 {
    let call = error.call().expect("a write has a call id");
    loop {
        match counter.add(&client.call().again(call), amount).await {
            Ok(value) => return value,
            Err(error) => assert_eq!(error.completion(), Completed::Maybe, "{error}"),
        }
    }
}

#[test]
fn objects_call_others_of_the_same_and_other_shards() {
    run(async {
        let dir = temp_dir("location");
        let node = node(dir.path()).await;
        let client = client_of(&node).await;
        let from = counter(&client, &node, 100).await;
        for round in 1..=8 {
            let to = counter(&client, &node, 0).await;
            assert_eq!(from.give(&client, &to, 10).await.unwrap(), 10);
            assert_eq!(to.value(&client).await.unwrap(), 10);
            assert_eq!(from.value(&client).await.unwrap(), 100 - 10 * round);
        }
        let to = counter(&client, &node, 0).await;
        let error = from.give(&client, &to, 1000).await.unwrap_err();
        assert!(matches!(error, GiveError::TooLittle(_)), "{error:?}");
        stop(node).await;
    });
}

#[test]
fn an_object_that_calls_itself_ends_at_its_deadline() {
    run(async {
        let dir = temp_dir("location");
        let node = node(dir.path()).await;
        let client = client_of(&node).await;
        let object = counter(&client, &node, 100).await;
        let soon = client.call().deadline(Duration::from_millis(200));
        object.give(&soon, &object, 10).await.unwrap_err();
        assert_eq!(object.value(&client).await.unwrap(), 100, "undone");
        stop(node).await;
    });
}

#[test]
fn objects_call_others_of_other_nodes() {
    run(async {
        let cluster = cluster(2).await;
        let (client, a, b) = (cluster.client(), cluster.node("a"), cluster.node("b"));
        let from = counter(&client, a, 100).await;
        for _ in 0..4 {
            let to = counter(&client, b, 1).await;
            assert_eq!(to.uid().node, b.me().node);
            assert_eq!(from.give(&client, &to, 10).await.unwrap(), 11);
            assert_eq!(to.value(&client).await.unwrap(), 11);
        }
        assert_eq!(from.value(&client).await.unwrap(), 60);
        cluster.stop().await.unwrap();
    });
}

#[test]
fn the_process_of_the_node_is_a_client_too() {
    run(async {
        let dir = temp_dir("location");
        let node = node(dir.path()).await;
        let client = node.client();
        let place = Place::Node(node.me().node);
        for value in 0..4 {
            let object = Counter::create(client, &place, value, partha::Bytes::new())
                .await
                .unwrap();
            assert_eq!(object.add(client, 1).await.unwrap(), value + 1);
            let error = object.take(client, 100).await.unwrap_err();
            assert!(matches!(
                error,
                common::behaviour::counter::TakeError::TooLittle(_)
            ));
            let error = object.panic(client).await.unwrap_err();
            assert_eq!(
                (error.kind(), error.completion()),
                (ErrorKind::Servant, Completed::No)
            );
        }
        stop(node).await;
    });
}

#[test]
fn a_client_outlives_the_runtimes_it_is_used_from() {
    let dir = temp_dir("location");
    let (keep, node) = (tokio::runtime::Runtime::new().unwrap(), node(dir.path()));
    let node = keep.block_on(node);
    let client = keep.block_on(client_of(&node));
    let object = keep.block_on(counter(&client, &node, 0));
    let sum = Arc::new(AtomicI64::new(0));
    let work = |amount: i64| {
        let (client, object, sum) = (client.clone(), object.clone(), sum.clone());
        std::thread::spawn(move || {
            for _ in 0..5 {
                // Connections made here end with this runtime, while others may use them.
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                runtime.unwrap().block_on(async {
                    for _ in 0..10 {
                        if let Err(error) = object.add(&client, amount).await {
                            settle(&object, &client, error, amount).await;
                        }
                        sum.fetch_add(amount, Ordering::Relaxed);
                        object.value(&client).await.unwrap();
                    }
                });
            }
        })
    };
    let threads: Vec<_> = [1, 10, 100].map(work).into();
    for thread in threads {
        thread.join().unwrap();
    }
    let value = keep.block_on(object.value(&client)).unwrap();
    assert_eq!((value, sum.load(Ordering::Relaxed)), (5550, 5550));
    keep.block_on(stop(node));
}

#[test]
fn a_node_that_came_back_elsewhere_is_found_when_introduced() {
    run(async {
        let dir = temp_dir("location");
        let first = node(dir.path()).await;
        let old = first.address().to_string();
        let client = client_of(&first).await;
        let object = counter(&client, &first, 1).await;
        assert_eq!(object.add(&client, 1).await.unwrap(), 2);
        stop(first).await;
        // Another node listens at the old address: it is not taken for the first.
        let strange = temp_dir("location");
        let stranger = builder(strange.path()).listen(&old).start().await.unwrap();
        let soon = client.call().deadline(Duration::from_millis(300));
        let error = object.add(&soon, 1).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.completion()),
            (ErrorKind::Unreachable, Completed::No)
        );
        for part in [
            old.as_str(),
            &object.uid().node.to_string(),
            "node a",
            "last heard",
        ] {
            assert!(error.detail().contains(part), "'{part}' is not in {error}");
        }
        // Calls that wait find it as soon as somebody says where it is.
        let waiting = {
            let (object, client) = (object.clone(), client.clone());
            spawn_local(async move { object.add(&client, 1).await })
        };
        let second = node(dir.path()).await;
        assert_ne!(second.address().to_string(), old);
        client
            .locator()
            .introduce(&client, &second.address().to_string())
            .await
            .unwrap();
        assert_eq!(waiting.await.unwrap().unwrap(), 3);
        stop(second).await;
        stop(stranger).await;
    });
}

#[test]
fn what_was_not_sent_is_sent_again() {
    run(async {
        let dir = temp_dir("location");
        let first = node(dir.path()).await;
        let address = first.address().to_string();
        let client = client_of(&first).await;
        let object = counter(&client, &first, 0).await;
        assert_eq!(object.add(&client, 1).await.unwrap(), 1);
        stop(first).await;
        // The connection is gone and nobody listens.
        let waiting = {
            let (object, client) = (object.clone(), client.clone());
            spawn_local(async move { object.add(&client, 1).await })
        };
        let soon = client.call().deadline(Duration::from_millis(100));
        let error = object.add(&soon, 1).await.unwrap_err();
        assert_eq!(error.completion(), Completed::No, "{error}");
        let second = builder(dir.path()).listen(&address).start().await.unwrap();
        assert_eq!(waiting.await.unwrap().unwrap(), 2);
        assert_eq!(object.add(&client, 1).await.unwrap(), 3);
        stop(second).await;
    });
}

#[test]
fn a_write_whose_connection_broke_may_have_been_executed() {
    run(async {
        let cluster = cluster(1).await;
        let (client, node) = (cluster.client(), cluster.node("a"));
        let (object, gate) = (counter(&client, node, 0).await, new_gate("cut"));
        let adding = {
            let (object, client, gate) = (object.clone(), client.clone(), gate.clone());
            spawn_local(async move { object.add_at_gate(&client, 5, &gate).await })
        };
        arrived(&gate, 1).await;
        cluster.cut("client", "a");
        let error = adding.await.unwrap().unwrap_err();
        assert_eq!(
            (error.kind(), error.completion()),
            (ErrorKind::BindingBroken, Completed::Maybe)
        );
        // Nobody could hear its answer, so it was stopped where it waited, and nothing is left.
        assert_eq!(object.value(&client).await.unwrap(), 0);
        // Its outcome is to be had by its name: it is executed now, and once.
        open(&gate, 1);
        let again = client.call().again(error.call().unwrap());
        assert_eq!(object.add_at_gate(&again, 5, &gate).await.unwrap(), 5);
        assert_eq!(object.add_at_gate(&again, 5, &gate).await.unwrap(), 5);
        assert_eq!((begun(&gate), object.value(&client).await.unwrap()), (2, 5));
        cluster.stop().await.unwrap();
    });
}

#[test]
fn a_read_whose_connection_broke_is_made_again() {
    run(async {
        let cluster = cluster(1).await;
        let (client, node) = (cluster.client(), cluster.node("a"));
        let (object, gate) = (counter(&client, node, 7).await, new_gate("read"));
        let reading = {
            let (object, client, gate) = (object.clone(), client.clone(), gate.clone());
            spawn_local(async move { object.read_at_gate(&client, &gate).await })
        };
        for count in 1..4 {
            arrived(&gate, count).await;
            cluster.cut("client", "a");
        }
        arrived(&gate, 4).await;
        open(&gate, 4);
        assert_eq!(reading.await.unwrap().unwrap(), 7);
        cluster.stop().await.unwrap();
    });
}

#[test]
fn a_call_that_nobody_waits_for_is_taken_out_of_the_queue() {
    run(async {
        let dir = temp_dir("location");
        let node = node(dir.path()).await;
        let client = client_of(&node).await;
        let (object, gate) = (counter(&client, &node, 0).await, new_gate("dropped"));
        let first = {
            let (object, client, gate) = (object.clone(), client.clone(), gate.clone());
            spawn_local(async move { object.add_at_gate(&client, 1, &gate).await })
        };
        arrived(&gate, 1).await;
        let face = common::Face::open(common::Kind::Native, &node).await;
        let mut arrivals = common::Arrivals::count(&face).await;
        let dropped = {
            let (object, client) = (object.clone(), client.clone());
            spawn_local(async move { object.add(&client, 100).await })
        };
        arrivals.reach(1).await;
        dropped.abort();
        assert!(dropped.await.unwrap_err().is_cancelled());
        // Sent behind the cancellation, on the same connection.
        let third = {
            let (object, client) = (object.clone(), client.clone());
            spawn_local(async move { object.add(&client, 10).await })
        };
        arrivals.reach(2).await;
        open(&gate, 1);
        assert_eq!(first.await.unwrap().unwrap(), 1);
        assert_eq!(third.await.unwrap().unwrap(), 11);
        stop(node).await;
    });
}

#[test]
fn a_node_that_stops_in_order_leaves_no_doubt() {
    run(async {
        let dir = temp_dir("location");
        let first = node(dir.path()).await;
        let address = first.address().to_string();
        let client = client_of(&first).await;
        let object = counter(&client, &first, 0).await;
        let (done, sum) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicI64::new(0)),
        );
        let mut workers = Vec::new();
        for _ in 0..4 {
            let (object, client) = (object.clone(), client.clone());
            let (done, sum) = (done.clone(), sum.clone());
            workers.push(spawn_local(async move {
                let mut doubts = 0;
                while !done.load(Ordering::Relaxed) {
                    if let Err(error) = object.add(&client, 1).await {
                        doubts += 1;
                        settle(&object, &client, error, 1).await;
                    }
                    sum.fetch_add(1, Ordering::Relaxed);
                }
                doubts
            }));
        }
        let mut node = first;
        for _ in 0..4 {
            let before = sum.load(Ordering::Relaxed);
            until(|| async { sum.load(Ordering::Relaxed) > before + 20 }).await;
            stop(node).await;
            node = restart(dir.path(), &address).await;
        }
        done.store(true, Ordering::Relaxed);
        for worker in workers {
            assert_eq!(worker.await.unwrap(), 0, "every call had its answer");
        }
        assert_eq!(
            object.value(&client).await.unwrap(),
            sum.load(Ordering::Relaxed)
        );
        stop(node).await;
    });
}

#[test]
fn a_node_does_not_wait_for_ever_for_its_calls() {
    run(async {
        let dir = temp_dir("location");
        let node = node(dir.path()).await;
        let address = node.address().to_string();
        let client = client_of(&node).await;
        let (object, gate) = (counter(&client, &node, 1).await, new_gate("patience"));
        let adding = {
            let (object, client, gate) = (object.clone(), client.clone(), gate.clone());
            spawn_local(async move { object.add_at_gate(&client, 5, &gate).await })
        };
        arrived(&gate, 1).await;
        let error = node.shutdown(Duration::from_millis(50)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Deadline, "{error}");
        let error = adding.await.unwrap().unwrap_err();
        assert_eq!(error.completion(), Completed::Maybe, "{error}");
        // It was cut off before it was on disk: asking again executes it.
        let node = restart(dir.path(), &address).await;
        open(&gate, 1);
        let again = client.call().again(error.call().unwrap());
        assert_eq!(object.add_at_gate(&again, 5, &gate).await.unwrap(), 6);
        assert_eq!(begun(&gate), 2);
        stop(node).await;
    });
}

#[test]
fn a_node_stops_whatever_else_its_shards_have_to_do() {
    // A job that says to stop must be heard wherever it stands among the others.
    for jobs in 250..262 {
        run(async {
            let dir = temp_dir("location");
            let node = builder(dir.path()).shards(1).start().await.unwrap();
            let client = client_of(&node).await;
            let (object, gate) = (counter(&client, &node, 1).await, new_gate("blocking"));
            let reading = {
                let (object, client, gate) = (object.clone(), client.clone(), gate.clone());
                spawn_local(async move { object.read_at_gate(&client, &gate).await })
            };
            arrived(&gate, 1).await;
            for _ in 0..jobs {
                node.evict(object.uid());
            }
            let stopping = spawn_local(node.shutdown(Duration::from_millis(1)));
            tokio::time::sleep(Duration::from_millis(5)).await;
            open(&gate, 1);
            assert_eq!(reading.await.unwrap().unwrap(), 1);
            // That it took longer than it had is no matter.
            drop(stopping.await.unwrap());
        });
    }
}

async fn restart(dir: &std::path::Path, address: &str) -> Node {
    builder(dir).listen(address).start().await.unwrap()
}
