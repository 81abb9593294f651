//! Actions and broken connections: what is lost is undone, and nobody is left in doubt.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod common;

use std::cell::Cell;
use std::time::{Duration, Instant};

use common::behaviour::Counter;
use common::{counter_class, run, until};
use partha::testkit::Cluster;
use partha::{ActionError, ActionOptions, Client, Completed, ErrorKind, Outcome, SystemError};

/// A node, a client whose connections break, one whose do not, and an object.
struct Scene {
    cluster: Cluster,
    client: Client,
    direct: Client,
    object: Counter,
}

impl Scene {
    async fn open() -> Self {
        let cluster = Cluster::new().class(counter_class).start().await.unwrap();
        let (client, direct) = (cluster.client(), cluster.client_named("direct"));
        let object = Counter::create(&direct, &cluster.at("a"), 100, partha::Bytes::new()).await;
        Self {
            cluster,
            client,
            direct,
            object: object.unwrap(),
        }
    }

    /// Breaks the connections of the client.
    fn cut(&self) {
        self.cluster.cut("client", "a");
    }

    /// What everybody sees, once nobody has it locked.
    async fn value(&self) -> i64 {
        self.object.value(&self.direct).await.unwrap()
    }

    async fn stop(self) {
        self.cluster.stop().await.unwrap();
    }
}

#[test]
fn an_action_whose_binding_breaks_can_only_abort_and_is_tried_again() {
    run(async {
        let scene = Scene::open().await;
        let (client, object) = (&scene.client, &scene.object);
        let tries = Cell::new(0);
        let done = client.action_retry(async |a| {
            tries.set(tries.get() + 1);
            object.add(a, 1).await?;
            if tries.get() == 1 {
                scene.cut();
                // The node sees it too, and undoes its part.
                until(async || object.value(&scene.direct).await == Ok(100)).await;
            }
            let value = object.add(a, 1).await;
            assert_eq!(value.is_err(), tries.get() == 1, "{value:?}");
            assert_eq!(a.doomed().is_some(), tries.get() == 1);
            value
        });
        assert_eq!(done.await.unwrap(), 102);
        assert_eq!(tries.get(), 2);
        assert_eq!(scene.value().await, 102);
        scene.stop().await;
    });
}

/// As where an object's leader and the binder are away for longer than a call waits.
#[test]
fn an_action_that_has_time_left_is_tried_again_when_a_call_had_none() {
    run(async {
        let scene = Scene::open().await;
        let (client, object) = (&scene.client, &scene.object);
        let tries = Cell::new(0);
        assert_eq!(object.value(client).await.unwrap(), 100, "it is found");
        let done = client.action_retry(async |a| {
            tries.set(tries.get() + 1);
            let first = tries.get() == 1;
            if first {
                scene.cluster.silence("a", "client");
            }
            let time = if first { 200 } else { 10_000 };
            let call = a.call().deadline(Duration::from_millis(time));
            let value = object.add(&call, 1).await;
            if let Err(error) = &value {
                let said = (error.kind(), error.completion());
                assert_eq!(said, (ErrorKind::Deadline, Completed::Maybe), "{error}");
                scene.cluster.heal();
            }
            value
        });
        assert_eq!(done.await.unwrap(), 101);
        assert_eq!(tries.get(), 2);
        assert_eq!(scene.value().await, 101);
        scene.stop().await;
    });
}

#[test]
fn a_break_that_nobody_meets_is_found_by_the_commit() {
    run(async {
        let scene = Scene::open().await;
        let (client, object) = (&scene.client, &scene.object);
        let failed = client.action(async |a| {
            object.add(a, 1).await?;
            scene.cut();
            until(async || object.value(&scene.direct).await == Ok(100)).await;
            Ok::<_, SystemError>(())
        });
        let error = failed.await.unwrap_err();
        assert!(error.is_passing(), "{error}");
        assert_eq!(scene.value().await, 100);
        scene.stop().await;
    });
}

#[test]
fn what_a_vanished_client_had_locked_is_free_soon() {
    run(async {
        let scene = Scene::open().await;
        let action = scene.client.begin();
        scene.object.add(&action, 1).await.unwrap();
        let begun = Instant::now();
        scene.cut();
        scene.cluster.partition("client", "a");
        assert_eq!(scene.object.add(&scene.direct, 5).await.unwrap(), 105);
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "{:?}",
            begun.elapsed()
        );
        drop(action);
        scene.stop().await;
    });
}

#[test]
fn a_commit_whose_answer_is_lost_is_found_out() {
    run(async {
        let scene = Scene::open().await;
        let (client, object) = (&scene.client, &scene.object);
        let commit = client.action(async |a| {
            object.add(a, 1).await?;
            scene.cluster.silence("a", "client");
            Ok::<_, SystemError>(())
        });
        let cut = async {
            until(async || scene.value().await == 101).await;
            scene.cut();
            scene.cluster.heal();
        };
        let (commit, ()) = tokio::join!(commit, cut);
        commit.unwrap();
        scene.stop().await;
    });
}

#[test]
fn what_cannot_be_found_out_in_time_is_told_later() {
    run(async {
        let scene = Scene::open().await;
        let (client, object) = (&scene.client, &scene.object);
        let soon = ActionOptions::new().deadline(Duration::from_secs(1));
        let commit = client.action_with(soon, async |a| {
            object.add(a, 1).await?;
            scene.cluster.silence("a", "client");
            Ok::<_, SystemError>(())
        });
        let cut = async {
            until(async || scene.value().await == 101).await;
            scene.cluster.partition("client", "a");
            scene.cut();
        };
        let (commit, ()) = tokio::join!(commit, cut);
        let error = commit.unwrap_err();
        let ActionError::OutcomeUnknown { action, .. } = &error else {
            panic!("{error}");
        };
        assert!(!error.is_passing(), "it must not be tried again");
        let told = format!("partha outcome {action}");
        assert!(error.to_string().contains(&told), "{error}");
        let asked = SystemError::from(error.clone());
        assert_eq!(asked.kind(), ErrorKind::OutcomeUnknown);

        scene.cluster.heal();
        let id = told.rsplit(' ').next().unwrap().parse().unwrap();
        until(async || client.outcome(id).await == Ok(Outcome::Committed)).await;
        assert_eq!(scene.value().await, 101);
        scene.stop().await;
    });
}
