//! Names in a cluster of the test kit: one of its nodes is the naming service.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::time::Duration;

use partha::services::naming::NameContext;
use partha::testkit::{Cluster, wait_until};
use partha::{ErrorKind, Place};
use partha_naming::embed;

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn all_members_find_names_and_what_they_stand_for() {
    let naming = Cluster::new().nodes(3).naming("b", embed);
    let mut cluster = naming.start().await.unwrap();
    let client = cluster.client();
    // Only the naming service has this class.
    let object = NameContext::create(&client, &Place::Any, "box").await;
    let object = object.unwrap();
    let (uid, class) = (object.uid(), object.reference().class());
    assert_eq!(uid.node, cluster.node("b").me().node);
    let names = client.naming().unwrap();
    names.add(&client, "/box", uid, class).await.unwrap();
    for found in [
        NameContext::bind(&cluster.client_named("other"), "/box").await,
        NameContext::bind(cluster.node("a").client(), "/box").await,
        NameContext::bind(cluster.node("b").client(), "/box").await,
    ] {
        assert_eq!(found.unwrap(), object);
    }
    cluster.kill("b").await;
    cluster.restart("b").await.unwrap();
    let found = async || {
        let found = NameContext::bind(&client, "/box").await;
        found.is_ok_and(|found| found == object)
    };
    wait_until(found, PATIENCE).await;
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn who_is_no_naming_service_is_not_taken_for_it() {
    let nobody = Cluster::new().nodes(1).naming("z", embed).start().await;
    let not_one = Cluster::new().nodes(1).naming("a", |it| it).start().await;
    for cluster in [nobody, not_one] {
        let error = cluster.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadOperation, "{error}");
    }
    let cluster = Cluster::new().start().await.unwrap();
    let error = cluster.client().naming().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NameNotFound);
    cluster.stop().await.unwrap();
}
