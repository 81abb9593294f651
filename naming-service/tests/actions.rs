//! Names and actions: naming operations are part of their caller's action.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::time::Duration;

use partha::services::naming::Naming;
use partha::{ClassId, Client, ErrorKind, Node, NodeId, SystemError, Uid};
use test_support::{TempDir, temp_dir};

const CLASS: ClassId = ClassId(0xC1A5);

async fn start() -> (TempDir, Node, Client) {
    let folder = temp_dir("names");
    let builder = Node::builder()
        .name("naming")
        .data_dir(folder.path())
        .shards(2);
    let node = partha_naming::start(builder).await.unwrap();
    let client = Client::connect(node.address().to_string()).await.unwrap();
    (folder, node, client)
}

fn uid(number: u64) -> Uid {
    let node = NodeId(77);
    Uid {
        node,
        local: number,
    }
}

/// What a name stands for, for everybody.
async fn object(client: &Client, path: &str) -> Option<Uid> {
    let naming: &Naming = client.naming().unwrap();
    match naming.lookup(client, path).await {
        Ok(entry) => Some(entry.object),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::NameNotFound, "{error}");
            None
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_added_in_an_aborted_action_was_never_there() {
    let (_folder, node, client) = start().await;
    let naming = client.naming().unwrap();
    naming
        .add(&client, "/kept/old", uid(1), CLASS)
        .await
        .unwrap();
    let abort = client.action(async |a| {
        let added = naming.add(a, "/new/deep/name", uid(2), CLASS).await;
        added.map_err(|error| SystemError::servant(error.to_string()))?;
        let deleted = naming.delete(a, "/kept/old").await;
        deleted.map_err(|error| SystemError::servant(error.to_string()))?;
        let entry = naming.lookup(a, "/new/deep/name").await?;
        assert_eq!(entry.object, uid(2), "it is there in the action");
        let gone = naming.lookup(a, "/kept/old").await.unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::NameNotFound);
        Err::<(), _>(SystemError::servant("changed my mind"))
    });
    abort.await.unwrap_err();
    assert_eq!(object(&client, "/new/deep/name").await, None);
    assert_eq!(
        object(&client, "/new").await,
        None,
        "nor the contexts on the way"
    );
    assert_eq!(object(&client, "/kept/old").await, Some(uid(1)));

    let commit = client.action_retry(async |a| {
        let kept = a.nested(async |b| naming.add(b, "/new/one", uid(3), CLASS).await);
        kept.await
            .map_err(|error| SystemError::servant(error.to_string()))?;
        let lost = a.nested(async |b| {
            let added = naming.add(b, "/new/two", uid(4), CLASS).await;
            added.map_err(|error| SystemError::servant(error.to_string()))?;
            Err::<(), _>(SystemError::servant("changed my mind"))
        });
        lost.await.unwrap_err();
        Ok::<_, SystemError>(())
    });
    commit.await.unwrap();
    assert_eq!(object(&client, "/new/one").await, Some(uid(3)));
    assert_eq!(object(&client, "/new/two").await, None);
    node.shutdown(Duration::from_secs(10)).await.unwrap();
}
