//! The behaviour of calls over the native face.

mod common;

use common::behaviour::counter::{GiveError, TakeError};
use common::{PATIENCE, client_of, counter, gate, node};
use partha::{Completed, ErrorKind};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_counter_counts_and_survives_a_restart() {
    let dir = test_support::temp_dir("native");
    let first = node(dir.path()).await;
    let client = client_of(&first).await;
    let c = counter(&client, &first, 5).await;
    assert_eq!(c.value(&client).await.unwrap(), 5);
    assert_eq!(c.add(&client, 2).await.unwrap(), 7);
    let error = c.take(&client, 100).await.unwrap_err();
    assert!(matches!(error, TakeError::TooLittle(e) if e.have == 7 && e.wanted == 100));
    assert_eq!(c.value(&client).await.unwrap(), 7, "a raised exception undoes the change");
    first.shutdown(PATIENCE).await.unwrap();
    let second = node(dir.path()).await;
    let client = client_of(&second).await;
    assert_eq!(c.value(&client).await.unwrap(), 7);
    assert_eq!(second.me().incarnation.0, 2);
    second.shutdown(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_servant_changes_nothing_and_the_object_goes_on() {
    let dir = test_support::temp_dir("native");
    let node = node(dir.path()).await;
    let client = client_of(&node).await;
    let c = counter(&client, &node, 5).await;
    let error = c.panic(&client).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Servant);
    assert!(error.detail().contains("as asked"), "{error}");
    let error = c.give_up(&client).await.unwrap_err();
    assert!(error.detail().contains("no wish to go on"), "{error}");
    assert_eq!(error.completion(), Completed::No);
    assert_eq!(c.value(&client).await.unwrap(), 5);
    assert_eq!(c.add(&client, 1).await.unwrap(), 6);
    node.shutdown(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asking_again_gets_the_saved_answer_even_after_a_restart() {
    let dir = test_support::temp_dir("native");
    let first = node(dir.path()).await;
    let client = client_of(&first).await;
    let c = counter(&client, &first, 0).await;
    let id = client.new_call_id();
    assert_eq!(c.add(&client.call().id(id), 3).await.unwrap(), 3);
    assert_eq!(c.add(&client, 4).await.unwrap(), 7);
    assert_eq!(c.add(&client.call().again(id), 3).await.unwrap(), 3, "saved, not executed");
    first.shutdown(PATIENCE).await.unwrap();
    let second = node(dir.path()).await;
    client.locator().introduce(&client, &second.address().to_string()).await.unwrap();
    assert_eq!(c.add(&client.call().again(id), 3).await.unwrap(), 3);
    assert_eq!(c.value(&client).await.unwrap(), 7);
    second.shutdown(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_duplicate_of_a_running_call_joins_it() {
    let dir = test_support::temp_dir("native");
    let node = node(dir.path()).await;
    let client = client_of(&node).await;
    let c = counter(&client, &node, 0).await;
    let id = client.new_call_id();
    let (first, second) = (client.call().id(id), client.call().again(id));
    let opener = async {
        test_support_eventually(|| common::begun("joined") == 1).await;
        gate("joined").add_permits(1);
    };
    let (a, b, ()) = tokio::join!(
        c.add_at_gate(&first, 5, "joined"),
        c.add_at_gate(&second, 5, "joined"),
        opener
    );
    assert_eq!((a.unwrap(), b.unwrap()), (5, 5));
    assert_eq!(common::begun("joined"), 1);
    assert_eq!(c.value(&client).await.unwrap(), 5);
    node.shutdown(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nested_calls_reach_other_objects_of_the_same_and_other_shards() {
    let dir = test_support::temp_dir("native");
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
    assert!(matches!(error, GiveError::TooLittle(_)));
    node.shutdown(PATIENCE).await.unwrap();
}

async fn test_support_eventually(condition: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "the condition never became true");
        tokio::task::yield_now().await;
    }
}
