//! Bindings that break: an action that used one can only abort, whatever comes back; the next one
//! binds anew; and whoever wants to know is told when it breaks.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod common;

use std::future::Future;
use std::task::Poll;
use std::time::{Duration, Instant};

use common::behaviour::Counter;
use common::meddler::Meddler;
use common::process::{NodeProcess, Start, serve};
use common::proxy::Proxy;
use common::{PATIENCE, client_of, counter, node, run, stop, until};
use partha::{Client, Completed, ErrorKind, Failure, Place, SystemError};
use test_support::{TempDir, temp_dir};

#[test]
#[ignore = "a process of the other tests"]
fn node_process() {
    serve();
}

/// A node process that can be killed and started again, with two objects, and another that stays,
/// with one.
struct Scene {
    dir: TempDir,
    _other_dir: TempDir,
    node: NodeProcess,
    other: NodeProcess,
    client: Client,
    first: Counter,
    second: Counter,
    elsewhere: Counter,
}

impl Scene {
    async fn open() -> Self {
        let (dir, other_dir) = (temp_dir("broken"), temp_dir("broken"));
        let node = Start::new(dir.path()).shards(1).ready();
        let other = Start::new(other_dir.path()).ready();
        let client = Client::alone().unwrap();
        let make = async |node: &NodeProcess| {
            let address = node.address.to_string();
            let id = client.locator().introduce(&client, &address).await;
            let place = Place::Node(id.unwrap());
            Counter::create(&client, &place, 0, partha::Bytes::new())
                .await
                .unwrap()
        };
        let (first, second) = (make(&node).await, make(&node).await);
        let elsewhere = make(&other).await;
        // So that they can commit together.
        let address = node.address.to_string();
        elsewhere.meet(&client, &address).await.unwrap();
        let scene = Self {
            dir,
            _other_dir: other_dir,
            node,
            other,
            client: client.clone(),
            first,
            second,
            elsewhere,
        };
        scene.stranger().await;
        scene
    }

    /// Another client; the node knows the other one when it is there.
    async fn stranger(&self) -> Client {
        let stranger = Client::alone().unwrap();
        let (locator, address) = (stranger.locator(), self.node.address.to_string());
        locator.introduce(&stranger, &address).await.unwrap();
        let other = self.other.address.to_string();
        self.first.meet(&stranger, &other).await.unwrap();
        stranger
    }

    /// Kills the node and starts it again at the same address; answers once it serves others.
    async fn restart(&mut self) -> Client {
        let address = self.node.address;
        self.node.child.kill();
        self.node = Start::new(self.dir.path())
            .shards(1)
            .listen(address)
            .ready();
        self.stranger().await
    }

    /// Calls that have arrived at the node, this question among them.
    async fn calls(&self, stranger: &Client) -> u64 {
        let address = self.node.address.to_string();
        let node = stranger.node_at(&address).await.unwrap();
        node.manager().statistics(stranger).await.unwrap().calls
    }

    /// What everybody else sees of the three objects.
    async fn values(&self) -> [i64; 3] {
        let mut values = [0; 3];
        for (value, object) in values
            .iter_mut()
            .zip([&self.first, &self.second, &self.elsewhere])
        {
            *value = object.value(&self.client).await.unwrap();
        }
        values
    }
}

#[track_caller]
fn is_refused(result: Result<i64, SystemError>) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BindingBroken, "{error}");
    assert_eq!(error.completion(), Completed::No, "{error}");
    assert_eq!(error.failure(), Failure::BindingBroken);
    assert!(error.detail().contains("can only abort"), "{error}");
}

#[test]
fn an_action_whose_node_was_restarted_can_only_abort() {
    run(async {
        let mut scene = Scene::open().await;
        let client = scene.client.clone();
        let (first, second) = (scene.first.clone(), scene.second.clone());
        let elsewhere = scene.elsewhere.clone();
        let action = client.begin();
        assert_eq!(first.add(&action, 1).await.unwrap(), 1);
        assert_eq!(elsewhere.add(&action, 1).await.unwrap(), 1);
        let stranger = scene.restart().await;
        // The node is back, and the client has bound the object anew for others.
        assert_eq!(first.value(&client).await.unwrap(), 0);

        let (before, start) = (scene.calls(&stranger).await, Instant::now());
        is_refused(first.add(&action, 1).await);
        // An object that the action has not called yet, over the same connection.
        is_refused(second.add(&action, 1).await);
        is_refused(elsewhere.add(&action, 1).await);
        is_refused(first.value(&action).await);
        assert!(start.elapsed() < Duration::from_secs(1), "not at once");
        // The question itself is one; another is the client's, which may by now have given back the
        // binding that it made for others. The four calls would be as many more.
        let sent = scene.calls(&stranger).await - before;
        assert!((1..=2).contains(&sent), "{sent} calls were sent");
        let doomed = action.doomed().unwrap();
        assert_eq!(doomed.kind(), ErrorKind::BindingBroken, "{doomed}");
        let nested = action.begin_nested().map(drop).unwrap_err();
        assert_eq!(nested.kind(), ErrorKind::BindingBroken, "{nested}");
        let error = action.commit().await.unwrap_err();
        assert!(error.is_passing(), "{error}");

        // The locks at the node that stayed are free, and a new action binds anew.
        let done = client.action(async |a| {
            first.add(a, 10).await?;
            second.add(a, 10).await?;
            elsewhere.add(a, 10).await
        });
        assert_eq!(done.await.unwrap(), 10);
        assert_eq!(scene.values().await, [10, 10, 10]);
    });
}

#[test]
fn a_restart_that_no_call_meets_is_met_by_the_commit() {
    run(async {
        let mut scene = Scene::open().await;
        let action = scene.client.begin();
        scene.first.add(&action, 1).await.unwrap();
        scene.elsewhere.add(&action, 1).await.unwrap();
        scene.restart().await;
        until(async || action.doomed().is_some()).await;
        let error = action.commit().await.unwrap_err();
        assert!(error.is_passing(), "{error}");
        assert_eq!(scene.values().await, [0, 0, 0]);
    });
}

#[test]
fn a_nested_action_that_used_the_broken_binding_falls_alone() {
    run(async {
        let mut scene = Scene::open().await;
        let (client, first) = (scene.client.clone(), scene.first.clone());
        let (second, elsewhere) = (scene.second.clone(), scene.elsewhere.clone());
        let action = client.begin();
        elsewhere.add(&action, 1).await.unwrap();
        let nested = action.begin_nested().unwrap();
        first.add(&nested, 1).await.unwrap();
        scene.restart().await;
        assert_eq!(first.value(&client).await.unwrap(), 0);
        is_refused(second.add(&nested, 1).await);
        nested.abort();
        // The outer one has never used it.
        assert_eq!(action.doomed(), None);
        assert_eq!(first.add(&action, 5).await.unwrap(), 5);
        action.commit().await.unwrap();
        assert_eq!(scene.values().await, [5, 0, 1]);
    });
}

#[test]
fn what_a_nested_action_used_is_its_parents_when_it_commits() {
    run(async {
        let mut scene = Scene::open().await;
        let (client, first) = (scene.client.clone(), scene.first.clone());
        let action = client.begin();
        let nested = action.begin_nested().unwrap();
        first.add(&nested, 1).await.unwrap();
        nested.commit().await.unwrap();
        let stranger = scene.restart().await;
        assert_eq!(scene.second.value(&client).await.unwrap(), 0);
        let before = scene.calls(&stranger).await;
        is_refused(scene.second.add(&action, 1).await);
        assert_eq!(scene.calls(&stranger).await, before + 1, "it was sent");
        assert!(action.commit().await.is_err());
        assert_eq!(scene.values().await, [0, 0, 0]);
    });
}

#[test]
fn another_life_of_a_node_is_not_called_although_the_connection_to_the_last_seems_alive() {
    run(async {
        let mut scene = Scene::open().await;
        let relay = Meddler::new(scene.node.address).await;
        let client = Client::alone().unwrap();
        let locator = client.locator();
        locator.introduce(&client, &relay.address()).await.unwrap();
        let [first, second] =
            [&scene.first, &scene.second].map(|object| Counter::from_uid(object.uid()));
        let action = client.begin();
        assert_eq!(first.add(&action, 1).await.unwrap(), 1);
        relay.hold();
        let stranger = scene.restart().await;
        let address = scene.node.address.to_string();
        locator.introduce(&client, &address).await.unwrap();
        assert_eq!(second.value(&client).await.unwrap(), 0);
        let before = scene.calls(&stranger).await;
        is_refused(second.add(&action, 1).await);
        assert_eq!(scene.calls(&stranger).await, before + 1, "it was sent");
        assert!(action.commit().await.is_err());
        assert_eq!(scene.values().await, [0, 0, 0]);
    });
}

#[test]
fn an_action_tried_again_binds_anew() {
    run(async {
        let mut scene = Scene::open().await;
        let (client, first) = (scene.client.clone(), scene.first.clone());
        let tries = std::cell::Cell::new(0);
        let to_restart = std::cell::Cell::new(Some(&mut scene));
        let done = client.action_retry(async |a| {
            tries.set(tries.get() + 1);
            first.add(a, 1).await?;
            if let Some(scene) = to_restart.take() {
                scene.restart().await;
            }
            first.add(a, 1).await
        });
        assert_eq!((done.await.unwrap(), tries.get()), (2, 2));
    });
}

#[test]
fn a_watch_ends_with_the_reason_when_the_connection_is_cut() {
    run(async {
        let dir = temp_dir("broken");
        let node = node(dir.path()).await;
        let direct = client_of(&node).await;
        let object = counter(&direct, &node, 0).await;
        let proxy = Proxy::new(node.address()).await;
        let client = Client::alone().unwrap();
        let locator = client.locator();
        locator.introduce(&client, &proxy.address()).await.unwrap();

        let binding = object.reference().binding(&client);
        let reason = in_time(binding.on_broken()).await;
        assert!(reason.detail().contains("is not bound"), "{reason}");
        assert_eq!(binding.peer(), None);

        object.reference().ensure_bound(&client).await.unwrap();
        assert_eq!(binding.peer(), Some(node.me()));
        let mut watch = Box::pin(binding.on_broken());
        let elsewhere = tokio::spawn(in_time(binding.on_broken()));
        assert!(is_pending(&mut watch).await);
        object.add(&client, 1).await.unwrap();
        assert!(is_pending(&mut watch).await, "a call breaks nothing");
        drop(binding.on_broken());
        proxy.cut();
        for reason in [in_time(watch).await, elsewhere.await.unwrap()] {
            assert_eq!(reason.kind(), ErrorKind::BindingBroken);
            assert!(reason.detail().contains(&proxy.address()), "{reason}");
        }
        assert_eq!(binding.peer(), None);
        // One who asks after it is told as well, until somebody binds anew.
        let reason = in_time(binding.on_broken()).await;
        assert_eq!(reason.kind(), ErrorKind::BindingBroken);
        object.add(&client, 1).await.unwrap();
        let mut watch = Box::pin(binding.on_broken());
        assert!(is_pending(&mut watch).await);
        // A node that stops in good order breaks it too, for its own process as well.
        let own = object.reference().binding(node.client());
        object
            .reference()
            .ensure_bound(node.client())
            .await
            .unwrap();
        assert_eq!(own.peer(), Some(node.me()));
        let mut here = Box::pin(own.on_broken());
        assert!(is_pending(&mut here).await);
        stop(node).await;
        for reason in [in_time(watch).await, in_time(here).await] {
            assert_eq!(reason.kind(), ErrorKind::BindingBroken, "{reason}");
        }
    });
}

#[test]
fn a_watch_ends_when_the_node_is_killed() {
    run(async {
        let mut scene = Scene::open().await;
        let binding = scene.first.reference().binding(&scene.client);
        scene.first.value(&scene.client).await.unwrap();
        let life = binding.peer().unwrap();
        let watch = binding.on_broken();
        scene.node.child.kill();
        let reason = in_time(watch).await;
        assert_eq!(reason.failure(), Failure::BindingBroken, "{reason}");
        scene.restart().await;
        scene.first.value(&scene.client).await.unwrap();
        let next = binding.peer().unwrap();
        assert_eq!(next.node, life.node);
        assert!(next.incarnation > life.incarnation, "another life");
    });
}

async fn in_time(watch: impl Future<Output = SystemError>) -> SystemError {
    let ended = tokio::time::timeout(PATIENCE, watch).await;
    ended.expect("the watch never ends")
}

async fn is_pending(watch: &mut (impl Future<Output = SystemError> + Unpin)) -> bool {
    std::future::poll_fn(|task| {
        Poll::Ready(std::pin::Pin::new(&mut *watch).poll(task).is_pending())
    })
    .await
}
