//! The test kit as a whole: how clusters begin, that their members know each other, that many can
//! be at a time, that nothing of them is left. Faults are in `testkit.rs`.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::cluster::{cluster, counter_at, plan};
use common::{run, with_classes};
use partha::testkit::{Cluster, wait_until};
use partha::{ErrorKind, Place};
use tokio::task::spawn_local;

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn members_know_each_other_without_a_naming_service() {
    run(async {
        let cluster = Cluster::new()
            .names(["left", "right"])
            .configure(|_, builder| with_classes(builder))
            .start()
            .await
            .unwrap();
        let client = cluster.client();
        let from = counter_at(&client, &cluster.at("left"), 100).await;
        let to = counter_at(&client, &cluster.at("right"), 0).await;
        assert_eq!(from.give(&client, &to, 30).await.unwrap(), 30);
        let named = counter_at(&client, &Place::Named("right".to_owned()), 1).await;
        assert_eq!(named.uid().node, cluster.node("right").me().node);
        let other = cluster.client_named("other");
        assert_ne!(other.me(), client.me());
        assert_eq!(cluster.client_named("other").me(), other.me());
        assert_eq!(to.value(&other).await.unwrap(), 30);
        let own = cluster.node("left").client();
        assert_eq!(to.value(own).await.unwrap(), 30);
        cluster.stop().await.unwrap();
    });
}

#[test]
fn servants_share_state_with_the_test_over_restarts() {
    run(async {
        let starts = Arc::new(AtomicU64::new(0));
        let count = starts.clone();
        let mut cluster = Cluster::new()
            .nodes(2)
            .class(move || {
                count.fetch_add(1, Ordering::Relaxed);
                common::counter_class()
            })
            .start()
            .await
            .unwrap();
        let client = cluster.client();
        let object = counter_at(&client, &Place::Any, 3).await;
        assert_eq!(starts.load(Ordering::Relaxed), 2);
        cluster.restart("a").await.unwrap();
        cluster.restart("b").await.unwrap();
        assert_eq!(starts.load(Ordering::Relaxed), 4);
        let long = client.call().deadline(PATIENCE);
        assert_eq!(object.value(&long).await.unwrap(), 3);
        cluster.stop().await.unwrap();
    });
}

/// One life of a cluster with everything in it.
async fn everything() {
    let mut cluster = cluster(3).await;
    let client = cluster.client();
    let object = counter_at(&client, &cluster.at("b"), 0).await;
    let mut sum = 0;
    let add = async |sum: &mut i64| {
        let id = client.new_call_id();
        let long = client.call().deadline(PATIENCE).id(id);
        let mut result = object.add(&long, 1).await;
        while result.is_err() {
            result = object
                .add(&client.call().again(id).deadline(PATIENCE), 1)
                .await;
        }
        *sum += 1;
        assert_eq!(result.unwrap(), *sum);
    };
    add(&mut sum).await;
    cluster.restart("b").await.unwrap();
    add(&mut sum).await;
    cluster.partition("client", "b");
    cluster.partition("a", "c");
    cluster.heal();
    add(&mut sum).await;
    cluster.pause("b").await;
    cluster.resume("b");
    add(&mut sum).await;
    cluster.kill("c").await;
    add(&mut sum).await;
    cluster.stop().await.unwrap();
}

#[test]
fn a_test_may_run_on_many_threads() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        // What is spawned has to be `Send`.
        let test = tokio::spawn(async {
            let mut cluster = cluster(2).await;
            let client = cluster.client();
            let object = counter_at(&client, &cluster.at("b"), 1).await;
            cluster.pause("a").await;
            cluster.resume("a");
            cluster.restart("b").await.unwrap();
            let long = client.call().deadline(PATIENCE);
            assert_eq!(object.value(&long).await.unwrap(), 1);
            cluster.stop().await.unwrap();
        });
        test.await.unwrap();
    });
}

#[test]
fn ten_in_a_row() {
    run(async {
        for _ in 0..10 {
            everything().await;
        }
    });
}

#[test]
fn several_side_by_side() {
    run(async {
        let all: Vec<_> = (0..4).map(|_| spawn_local(everything())).collect();
        for one in all {
            one.await.unwrap();
        }
    });
}

#[test]
fn a_cluster_that_is_dropped_leaves_no_folder() {
    run(async {
        let cluster = cluster(2).await;
        let client = cluster.client();
        counter_at(&client, &cluster.at("a"), 1).await;
        let folder = cluster.folder().to_owned();
        assert!(folder.join("a").is_dir() && folder.join("b").is_dir());
        drop(cluster);
        assert!(!folder.exists() || std::env::var_os("PARTHA_KEEP_TEMP").is_some());
    });
}

#[test]
fn what_makes_no_sense_is_refused() {
    run(async {
        let ms = Duration::from_millis;
        let wrong = [
            plan(1).lease(ms(100), ms(150)),
            plan(1).names(["a", "a"]),
            plan(1).names(["client"]),
            plan(1).names(["../a"]),
        ];
        for plan in wrong {
            let error = plan.start().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BadOperation, "{error}");
        }
        let cluster = plan(1).seed(42).start().await.unwrap();
        assert_eq!(cluster.random().seed(), 42);
        cluster.stop().await.unwrap();
    });
}

#[test]
#[should_panic(expected = "no member 'd' in the cluster; its nodes are a b c,")]
fn a_name_that_nobody_has_is_told() {
    run(async {
        cluster(3).await.partition("a", "d");
    });
}

#[test]
#[should_panic(expected = "the condition does not hold after 20ms")]
fn waiting_has_an_end() {
    run(wait_until(async || false, Duration::from_millis(20)));
}
