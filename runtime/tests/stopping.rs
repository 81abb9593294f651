//! A node that stops while actions have a part at it, and one that does not come to be.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod common;

use std::time::{Duration, Instant};

use common::{PATIENCE, builder, client_of, counter, node, run, stop, until};
use partha::services::naming::name_service;
use partha::{ActionError, ActivationPolicy, Client, ErrorKind, Node, Uid, abi};
use test_support::temp_dir;
use tokio::task::spawn_local;
use tokio::time::timeout;

/// Waits until the node takes no new calls.
async fn is_stopping(address: &str) {
    let client = Client::alone().unwrap();
    until(|| async {
        let met = client.node_at(address).await;
        met.is_err_and(|error| error.kind() == ErrorKind::Draining)
    })
    .await;
}

#[test]
fn an_action_without_end_does_not_hold_the_node_up() {
    run(async {
        let dir = temp_dir("stopping");
        let first = node(dir.path()).await;
        let client = client_of(&first).await;
        let object = counter(&client, &first, 100).await;
        let action = client.begin();
        assert_eq!(object.add(&*action, 1).await.unwrap(), 101);
        let broken = object.reference().binding(&client).on_broken();
        let begun = Instant::now();
        first.shutdown(Duration::from_millis(50)).await.unwrap();
        assert!(begun.elapsed() < PATIENCE / 2, "{:?}", begun.elapsed());
        // A request that is sent before the client sees that the node is gone may have got there.
        timeout(PATIENCE, broken).await.unwrap();
        let ended = action.commit().await.unwrap_err();
        assert!(matches!(ended, ActionError::Aborted { .. }), "{ended:?}");
        let second = node(dir.path()).await;
        assert_eq!(value(&second, &object).await, 100);
        second.shutdown(PATIENCE).await.unwrap();
    });
}

#[test]
fn an_action_may_commit_while_the_node_stops() {
    run(async {
        let dir = temp_dir("stopping");
        let first = node(dir.path()).await;
        let (client, address) = (client_of(&first).await, first.address().to_string());
        let object = counter(&client, &first, 100).await;
        let action = client.begin();
        assert_eq!(object.add(&*action, 1).await.unwrap(), 101);
        let stopping = spawn_local(first.shutdown(PATIENCE));
        is_stopping(&address).await;
        action.commit().await.unwrap();
        stopping.await.unwrap().unwrap();
        let second = node(dir.path()).await;
        assert_eq!(value(&second, &object).await, 101);
        second.shutdown(PATIENCE).await.unwrap();
    });
}

async fn value(node: &Node, object: &common::behaviour::Counter) -> i64 {
    let client = client_of(node).await;
    object.value(&client).await.unwrap()
}

#[test]
fn a_start_that_fails_leaves_nothing_behind() {
    run(async {
        let dir = temp_dir("stopping");
        let first = node(dir.path()).await;
        let address = first.address().to_string();
        stop(first).await;
        // Its shards run when it is seen that the object cannot be made: there is no such class.
        let bad = || {
            let nothing = abi::message(0, 0, |_, _| {});
            let root = Uid::NAMING_ROOT;
            let builder = builder(dir.path()).listen(&address);
            builder.well_known(root, &name_service::INFO, nothing)
        };
        for _ in 0..3 {
            let error = bad().start().await.unwrap_err();
            assert!(error.detail().contains("unknown class"), "{error}");
        }
        // The folder, the port and the threads are free at once.
        let again = builder(dir.path()).listen(&address).start().await.unwrap();
        assert_eq!(again.address().to_string(), address);
        stop(again).await;
    });
}

#[test]
fn server_processes_are_refused_before_an_embedded_node_begins() {
    run(async {
        let dir = temp_dir("stopping");
        let class = common::counter_class();
        let policy = ActivationPolicy::ProcessPerClass;
        let node = Node::embedded().data_dir(dir.path().join("node"));
        let error = node.class_with(class, policy).start().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadOperation);
        assert!(error.detail().contains("NodeBuilder::class"), "{error}");
        assert!(!dir.path().join("node").exists(), "its store was opened");
    });
}
