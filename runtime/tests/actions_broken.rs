//! Actions and broken connections: what is lost is undone, and nobody is left in doubt.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod common;

use std::cell::Cell;
use std::time::{Duration, Instant};

use common::behaviour::Counter;
use common::proxy::Proxy;
use common::{client_of, counter, node, run, stop, until};
use partha::{ActionError, ActionOptions, Client, ErrorKind, Node, Outcome, SystemError};
use test_support::{TempDir, temp_dir};

/// A node, one client that reaches it through a relay, one that reaches it directly, and an
/// object.
struct Scene {
    _dir: TempDir,
    node: Node,
    proxy: Proxy,
    client: Client,
    direct: Client,
    object: Counter,
}

impl Scene {
    async fn open() -> Self {
        let dir = temp_dir("broken");
        let node = node(dir.path()).await;
        let direct = client_of(&node).await;
        let object = counter(&direct, &node, 100).await;
        let proxy = Proxy::new(node.address()).await;
        let client = Client::alone().unwrap();
        let locator = client.locator();
        locator.introduce(&client, &proxy.address()).await.unwrap();
        Self {
            _dir: dir,
            node,
            proxy,
            client,
            direct,
            object,
        }
    }

    /// What everybody sees, once nobody has it locked.
    async fn value(&self) -> i64 {
        self.object.value(&self.direct).await.unwrap()
    }

    /// An address where nobody is.
    async fn nowhere(&self) -> std::net::SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
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
                scene.proxy.cut();
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
        stop(scene.node).await;
    });
}

#[test]
fn a_break_that_nobody_meets_is_found_by_the_commit() {
    run(async {
        let scene = Scene::open().await;
        let (client, object) = (&scene.client, &scene.object);
        let failed = client.action(async |a| {
            object.add(a, 1).await?;
            scene.proxy.cut();
            until(async || object.value(&scene.direct).await == Ok(100)).await;
            Ok::<_, SystemError>(())
        });
        let error = failed.await.unwrap_err();
        assert!(error.is_passing(), "{error}");
        assert_eq!(scene.value().await, 100);
        stop(scene.node).await;
    });
}

#[test]
fn what_a_vanished_client_had_locked_is_free_soon() {
    run(async {
        let scene = Scene::open().await;
        let action = scene.client.begin();
        scene.object.add(&action, 1).await.unwrap();
        scene.proxy.lead_to(scene.nowhere().await);
        let begun = Instant::now();
        scene.proxy.cut();
        assert_eq!(scene.object.add(&scene.direct, 5).await.unwrap(), 105);
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "{:?}",
            begun.elapsed()
        );
        drop(action);
        stop(scene.node).await;
    });
}

#[test]
fn a_commit_whose_answer_is_lost_is_found_out() {
    run(async {
        let scene = Scene::open().await;
        let (client, object) = (&scene.client, &scene.object);
        let commit = client.action(async |a| {
            object.add(a, 1).await?;
            scene.proxy.mute(true);
            Ok::<_, SystemError>(())
        });
        let cut = async {
            until(async || scene.value().await == 101).await;
            scene.proxy.mute(false);
            scene.proxy.cut();
        };
        let (commit, ()) = tokio::join!(commit, cut);
        commit.unwrap();
        stop(scene.node).await;
    });
}

#[test]
fn what_cannot_be_found_out_in_time_is_told_later() {
    run(async {
        let scene = Scene::open().await;
        let (client, object) = (&scene.client, &scene.object);
        let nowhere = scene.nowhere().await;
        let soon = ActionOptions::new().deadline(Duration::from_secs(1));
        let commit = client.action_with(soon, async |a| {
            object.add(a, 1).await?;
            scene.proxy.mute(true);
            Ok::<_, SystemError>(())
        });
        let cut = async {
            until(async || scene.value().await == 101).await;
            scene.proxy.lead_to(nowhere);
            scene.proxy.cut();
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

        scene.proxy.mute(false);
        scene.proxy.lead_to(scene.node.address());
        let id = told.rsplit(' ').next().unwrap().parse().unwrap();
        until(async || client.outcome(id).await == Ok(Outcome::Committed)).await;
        assert_eq!(scene.value().await, 101);
        stop(scene.node).await;
    });
}
