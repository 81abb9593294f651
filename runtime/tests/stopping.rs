//! A node that stops while actions have a part at it.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod common;

use std::time::{Duration, Instant};

use common::{PATIENCE, client_of, counter, node, run, until};
use partha::{ActionError, Client, ErrorKind, Node};
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
