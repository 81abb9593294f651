//! Names within one process: an embedded node that is its own naming service.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::time::Duration;

use partha::services::naming::NameContext;
use partha::services::naming::name_service::AddError;
use partha::{ErrorKind, Node, Place, SystemError, Uid};
use partha_naming::embed;
use test_support::temp_dir;

const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn names_are_given_found_bound_and_taken_without_a_socket() {
    let node = embed(Node::embedded()).start().await.unwrap();
    let client = node.client();
    let naming = client.naming().unwrap();
    assert_eq!((naming.address(), node.listens_at()), (None, None));
    let object = NameContext::create(client, &Place::Any, "box").await;
    let object = object.unwrap();
    let (uid, class) = (object.uid(), object.reference().class());
    naming.add(client, "/bank/alice", uid, class).await.unwrap();
    let bound = NameContext::bind(client, "/bank/alice").await.unwrap();
    assert_eq!(bound, object);
    let taken = naming.add(client, "bank/alice", uid, class).await;
    assert!(matches!(taken, Err(AddError::NameExists(_))), "{taken:?}");
    let listed = naming.list(client, "/", "", 10).await.unwrap();
    assert_eq!(listed.len(), 1);
    naming.delete(client, "/bank/alice").await.unwrap();
    let error = NameContext::bind(client, "/bank/alice").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NameNotFound, "{error}");
    node.shutdown(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_name_given_in_an_action_that_fails_was_never_there() {
    let node = embed(Node::embedded()).start().await.unwrap();
    let client = node.client();
    let naming = client.naming().unwrap();
    let failed = client.action(async |a| {
        let object = NameContext::create(a, &Place::Any, "box").await?;
        let class = object.reference().class();
        let added = naming.add(a, "/bank/alice", object.uid(), class).await;
        added.map_err(|error| SystemError::servant(format!("{error:?}")))?;
        naming.lookup(a, "/bank/alice").await?;
        Err::<(), _>(SystemError::servant("changed my mind"))
    });
    failed.await.unwrap_err();
    let error = naming.lookup(client, "/bank/alice").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NameNotFound, "{error}");
    node.shutdown(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn names_on_a_folder_outlive_the_process_and_can_be_served_by_the_daemon() {
    let dir = temp_dir("embedded");
    let uid = {
        let node = embed(Node::embedded().data_dir(dir.path()));
        let node = node.start().await.unwrap();
        let client = node.client();
        let object = NameContext::create(client, &Place::Any, "box").await;
        let object = object.unwrap();
        let (uid, class) = (object.uid(), object.reference().class());
        let naming = client.naming().unwrap();
        naming.add(client, "/box", uid, class).await.unwrap();
        node.shutdown(PATIENCE).await.unwrap();
        uid
    };
    let outside = partha_naming::start(Node::builder().data_dir(dir.path())).await;
    let outside = outside.unwrap();
    // Without an address of the service it is its own.
    let own = outside.client().naming().unwrap();
    assert_eq!(own.address(), None);
    let client = partha::Client::connect(outside.address().to_string()).await;
    let client = client.unwrap();
    for client in [&client, outside.client()] {
        let naming = client.naming().unwrap();
        let entry = naming.lookup(client, "/box").await.unwrap();
        assert_eq!(entry.object, uid);
    }
    outside.shutdown(PATIENCE).await.unwrap();
    let node = embed(Node::embedded().data_dir(dir.path()));
    let node = node.start().await.unwrap();
    let bound = NameContext::bind(node.client(), "/box").await.unwrap();
    assert_eq!(bound.uid(), uid);
    node.shutdown(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_node_without_names_says_so() {
    let node = Node::embedded().start().await.unwrap();
    let error = NameContext::from_uid(Uid::NAMING_ROOT)
        .reference()
        .ensure_bound(node.client())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSuchObject, "{error}");
    assert!(error.detail().contains("embedded"), "{error}");
    node.shutdown(PATIENCE).await.unwrap();
}
