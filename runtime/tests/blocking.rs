//! `#[blocking]` methods: they have a thread of their own, and their shard goes on meanwhile.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod common;
#[path = "common/worker.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses a part of it"
)]
mod worker;

use std::path::Path;
use std::time::Duration;

use common::{PATIENCE, builder, client_of, logs, run, stop, until};
use partha::{Client, Completed, ErrorKind, Node, NodeBuilder};
use test_support::temp_dir;
use tokio::task::spawn_local;
use worker::elsewhere::Worker;
use worker::elsewhere::worker::{self as workers, TakeApartError};
use worker::{Gate, WorkerServant, worker};

/// A node of one shard that has workers.
fn small(dir: &Path) -> NodeBuilder {
    let node = builder(dir).shards(1);
    node.class(workers::class(WorkerServant))
}

async fn start(node: NodeBuilder) -> (Node, Client) {
    let node = node.start().await.unwrap();
    let client = client_of(&node).await;
    (node, client)
}

#[test]
fn a_servant_that_never_returns_keeps_nobody_else_from_being_served() {
    run(async {
        let dir = temp_dir("blocking");
        let (node, client) = start(small(dir.path())).await;
        let (busy, other) = (
            worker(&client, &node, 1).await,
            worker(&client, &node, 5).await,
        );
        let gate = Gate::new(dir.path(), "gate");
        let name = gate.name();
        let call = {
            let (client, busy) = (client.clone(), busy.clone());
            spawn_local(async move {
                let patient = client.call().deadline(PATIENCE);
                busy.compute_apart(&patient, &name).await
            })
        };
        until(|| async { gate.is_reached() }).await;
        // The only shard has its thread for the others, for writes too.
        for n in 6..26 {
            assert_eq!(other.add(&client, 1).await.unwrap(), n);
        }
        assert!(node.stuck().is_empty() && node.runaways().is_empty());
        gate.open();
        assert_eq!(call.await.unwrap().unwrap(), 2);
        // What it made of its copy is the object's state, and was on disk when it answered.
        node.evict(busy.uid());
        assert_eq!(busy.value(&client).await.unwrap(), 2);
        stop(node).await;
    });
}

#[test]
fn it_is_like_any_other_method_apart_from_its_thread() {
    run(async {
        let dir = temp_dir("blocking-like");
        let (node, client) = start(small(dir.path())).await;
        let one = worker(&client, &node, 10).await;
        assert_eq!(one.thread(&client).await.unwrap(), "partha-shard-0");
        assert_eq!(one.thread_apart(&client).await.unwrap(), "partha-blocking");

        assert_eq!(one.take_apart(&client, 3).await.unwrap(), 7);
        match one.take_apart(&client, 8).await.unwrap_err() {
            TakeApartError::Refused(refused) => assert_eq!((refused.have, refused.wanted), (7, 8)),
            other => panic!("{other:?}"),
        }
        for panic in [false, true] {
            let error = one.fail_apart(&client, panic).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Servant);
            assert!(error.detail().contains("as asked"), "{error}");
        }
        assert_eq!(
            one.value(&client).await.unwrap(),
            7,
            "what failed is undone"
        );
        assert_eq!(one.with_task(&client).await.unwrap(), 7);

        assert_eq!(one.put_row_apart(&client, 4).await.unwrap(), 0);
        assert_eq!(one.put_row_apart(&client, 5).await.unwrap(), 4);
        one.put_row_apart(&client, 0).await.unwrap_err();
        assert_eq!(
            one.put_row_apart(&client, 6).await.unwrap(),
            5,
            "undone with it"
        );
        assert_eq!(one.value(&client).await.unwrap(), 10);

        // Asking again for the same call executes nothing.
        let id = client.new_call_id();
        assert_eq!(one.take_apart(&client.call().id(id), 1).await.unwrap(), 9);
        assert_eq!(
            one.take_apart(&client.call().again(id), 1).await.unwrap(),
            9
        );
        stop(node).await;
    });
}

#[test]
fn what_it_calls_is_part_of_the_action() {
    run(async {
        let dir = temp_dir("blocking-action");
        let (node, client) = start(small(dir.path())).await;
        let (one, two) = (
            worker(&client, &node, 1).await,
            worker(&client, &node, 2).await,
        );
        let undone = client.action(async |a| {
            one.add_both_apart(a, &two, 10).await?;
            Err::<(), _>(partha::SystemError::servant("no"))
        });
        undone.await.unwrap_err();
        assert_eq!(one.value(&client).await.unwrap(), 1);
        assert_eq!(two.value(&client).await.unwrap(), 2);
        let done = client.action(async |a| one.add_both_apart(a, &two, 10).await);
        assert_eq!(done.await.unwrap(), 12);
        assert_eq!(one.value(&client).await.unwrap(), 11);
        assert_eq!(two.value(&client).await.unwrap(), 12);
        stop(node).await;
    });
}

#[test]
fn there_are_no_more_of_them_than_allowed() {
    run(async {
        let dir = temp_dir("blocking-many");
        let (node, client) = start(small(dir.path()).blocking_max(2)).await;
        let one = worker(&client, &node, 3).await;
        let gates = ["a", "b"].map(|name| Gate::new(dir.path(), name));
        let calls = gates.each_ref().map(|gate| {
            let (client, one, name) = (client.clone(), one.clone(), gate.name());
            spawn_local(async move { one.read_apart(&client, &name).await })
        });
        for gate in &gates {
            // Two readers of one object at a time, each with a copy.
            until(|| async { gate.is_reached() }).await;
        }
        let error = one.thread_apart(&client).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Overloaded);
        assert_eq!(error.completion(), Completed::No);
        assert!(
            error.detail().contains("NodeBuilder::blocking_max"),
            "{error}"
        );
        gates.iter().for_each(Gate::open);
        for call in calls {
            assert_eq!(call.await.unwrap().unwrap(), 3);
        }
        assert_eq!(one.thread_apart(&client).await.unwrap(), "partha-blocking");
        stop(node).await;
    });
}

#[test]
fn a_node_stops_although_one_of_them_does_not() {
    run(async {
        let dir = temp_dir("blocking-stop");
        let (node, client) = start(small(dir.path())).await;
        let one = worker(&client, &node, 1).await;
        let (uid, gate) = (one.uid(), Gate::new(dir.path(), "gate"));
        let call = {
            let (client, name) = (client.clone(), gate.name());
            spawn_local(async move { one.compute_apart(&client, &name).await })
        };
        until(|| async { gate.is_reached() }).await;
        let stopped = node.shutdown(Duration::from_millis(50)).await;
        assert_eq!(stopped.unwrap_err().kind(), ErrorKind::Deadline);
        call.await.unwrap().unwrap_err();
        // It still runs; what it does is nothing to the next life of the object.
        let (node, client) = start(small(dir.path())).await;
        let one = Worker::from_uid(uid);
        assert_eq!(one.add(&client, 4).await.unwrap(), 5);
        gate.open();
        assert_eq!(one.compute_apart(&client, &gate.name()).await.unwrap(), 6);
        stop(node).await;
    });
}

#[test]
fn a_servant_that_keeps_its_shards_thread_is_told_of() {
    logs::collect();
    run(async {
        let dir = temp_dir("stuck");
        let (node, client) = start(small(dir.path())).await;
        let one = worker(&client, &node, 1).await;
        let gate = Gate::new(dir.path(), "gate");
        let call = {
            let (client, one, name) = (client.clone(), one.clone(), gate.name());
            spawn_local(async move { one.compute(&client, &name).await })
        };
        until(|| async { !node.stuck().is_empty() }).await;
        let [stuck] = node.stuck()[..] else {
            panic!("{:?}", node.stuck())
        };
        assert_eq!((stuck.shard, stuck.object), (0, one.uid()));
        assert_eq!((stuck.class, stuck.method), ("elsewhere.Worker", "compute"));
        assert!(stuck.at_least >= Duration::from_secs(1), "{stuck:?}");
        logs::warned(&one.uid().to_string(), "mark the method #[blocking]");
        gate.open();
        assert_eq!(call.await.unwrap().unwrap(), 2);
        until(|| async { node.stuck().is_empty() }).await;
        stop(node).await;
    });
}
