//! A call id used for two different calls is a mistake that is told, never another call's answer.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod common;

use common::behaviour::counter::TakeError;
use common::{arrived, client_of, counter, new_gate, node, open, run, stop};
use partha::{ErrorKind, SystemError};
use test_support::temp_dir;

fn is_reuse(error: &SystemError) -> bool {
    error.kind() == ErrorKind::BadOperation && error.detail().contains("was used for")
}

#[test]
fn a_saved_reply_is_only_for_the_same_method_and_object() {
    run(async {
        let dir = temp_dir("call_ids");
        let node = node(dir.path()).await;
        let client = client_of(&node).await;
        let one = counter(&client, &node, 10).await;
        let other = counter(&client, &node, 10).await;
        let id = client.new_call_id();
        assert_eq!(one.add(&client.call().id(id), 5).await.unwrap(), 15);
        let again = client.call().again(id);
        assert_eq!(one.add(&again, 5).await.unwrap(), 15);
        match one.take(&again, 1).await {
            Err(TakeError::System(error)) => assert!(is_reuse(&error), "{error}"),
            answer => panic!("the answer of another method: {answer:?}"),
        }
        let error = other.add(&again, 5).await.unwrap_err();
        assert!(is_reuse(&error), "{error}");
        assert_eq!(one.value(&client).await.unwrap(), 15);
        assert_eq!(other.value(&client).await.unwrap(), 10);
        stop(node).await;
    });
}

#[test]
fn a_running_call_is_only_joined_by_the_same_method() {
    run(async {
        let dir = temp_dir("call_ids");
        let node = node(dir.path()).await;
        let client = client_of(&node).await;
        let object = counter(&client, &node, 10).await;
        let gate = new_gate("reuse");
        let id = client.new_call_id();
        let (named, again) = (client.call().id(id), client.call().again(id));
        let first = object.add_at_gate(&named, 5, &gate);
        let second = async {
            arrived(&gate, 1).await;
            let asking = object.add(&again, 1);
            let opening = async {
                tokio::task::yield_now().await;
                open(&gate, 1);
            };
            tokio::join!(asking, opening).0
        };
        let (first, second) = tokio::join!(first, second);
        assert_eq!(first.unwrap(), 15);
        let error = second.unwrap_err();
        assert!(is_reuse(&error), "{error}");
        assert_eq!(object.value(&client).await.unwrap(), 15);
        stop(node).await;
    });
}

#[test]
fn what_is_done_in_an_action_is_asked_for_by_the_name_of_the_action() {
    run(async {
        let dir = temp_dir("call_ids");
        let node = node(dir.path()).await;
        let client = client_of(&node).await;
        let object = counter(&client, &node, 10).await;
        let id = client.new_call_id();
        // Its reply would not be kept, so asking again would add once more.
        let named = client.action(async |a| object.add(&a.call().id(id), 5).await);
        let error = named.await.unwrap_err().to_string();
        assert!(error.contains("cannot be named"), "{error}");
        assert_eq!(object.value(&client).await.unwrap(), 10);
        // So its errors name none either.
        let gate = new_gate("unnamed");
        let late = client.action(async |a| {
            let soon = a.call().deadline(std::time::Duration::from_millis(50));
            let error = object.add_at_gate(&soon, 5, &gate).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Deadline, "{error}");
            assert_eq!(error.call(), None, "{error}");
            Err::<(), _>(error)
        });
        late.await.unwrap_err();
        assert_eq!(object.value(&client).await.unwrap(), 10);
        stop(node).await;
    });
}
