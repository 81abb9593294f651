//! Objects that move between nodes: what moves with them, who follows, what undoes it.
//!
//! Crashes are in `moves_broken.rs`.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod common;

use std::time::Duration;

use common::behaviour::Counter;
use common::cluster::{cluster, counter_at};
use common::{Face, Kind, NOW, arrived, new_gate, open, run, until};
use partha::testkit::Cluster;
use partha::{AbortReason, ActionError, Client, ErrorKind, NodeId, SystemError, Uid};
use tokio::task::spawn_local;

/// How long a move may take.
const WAIT: Duration = Duration::from_secs(20);

fn id(cluster: &Cluster, name: &str) -> NodeId {
    cluster.node(name).me().node
}

/// Moves an object to the node of this name.
async fn go(cluster: &Cluster, object: &Counter, to: &str) -> u64 {
    let (client, node) = (cluster.client(), id(cluster, to));
    client.move_object(object.uid(), node, WAIT).await.unwrap()
}

/// Where a node says that an object is, or why it does not have it.
async fn seen_by(cluster: &Cluster, node: &str, object: Uid) -> Result<(), SystemError> {
    use partha::system::connection_manager::InspectError;
    let client = cluster.client();
    let address = cluster.address(node).unwrap().to_string();
    let node = client.node_at(&address).await.unwrap();
    match node.manager().inspect(&client, object).await {
        Ok(_) => Ok(()),
        Err(InspectError::System(error)) => Err(error),
        Err(InspectError::NoSuchObject(error)) => {
            let detail = format!("object {}", error.object);
            Err(SystemError::new(ErrorKind::NoSuchObject, detail))
        }
    }
}

/// The node that has the object; it is the only one.
async fn owner(cluster: &Cluster, names: &[&str], object: Uid) -> String {
    let mut found = Vec::new();
    for name in names {
        if seen_by(cluster, name, object).await.is_ok() {
            found.push((*name).to_owned());
        }
    }
    assert_eq!(found.len(), 1, "{found:?} have {object}");
    found.remove(0)
}

async fn rows(client: &Client, object: &Counter) -> Vec<(String, i64)> {
    let rows = object.rows(client, "", 1_000).await.unwrap();
    rows.into_iter().map(|row| (row.name, row.value)).collect()
}

#[test]
fn an_object_moves_with_state_and_rows_and_everybody_finds_it() {
    run(async {
        let cluster = cluster(3).await;
        let client = cluster.client();
        let object = counter_at(&client, &cluster.at("a"), 5).await;
        let many: Vec<_> = (0..300).map(|n| (format!("{n:04}"), n)).collect();
        for (key, value) in &many {
            object.put_row(&client, key, *value).await.unwrap();
        }
        let users = [client.clone(), cluster.client_named("other")];
        assert_eq!(object.value(&users[1]).await.unwrap(), 5);
        let nodes = ["a", "b", "c"];
        let mut value = 5;
        for (moves, to) in (1..).zip(["b", "c", "a", "c", "a", "b"]) {
            assert_eq!(go(&cluster, &object, to).await, moves);
            assert_eq!(owner(&cluster, &nodes, object.uid()).await, to);
            assert_eq!(go(&cluster, &object, to).await, moves, "it is there");
            // Old acquaintances, one who has only the reference, and the nodes themselves.
            let fresh = cluster.client_named(&format!("fresh{moves}"));
            let own = nodes.map(|name| cluster.node(name).client().clone());
            for user in users.iter().chain([&fresh]).chain(&own) {
                let reference = Counter::from_uid(object.uid());
                value += 1;
                assert_eq!(object.add(user, 1).await.unwrap(), value);
                assert_eq!(reference.value(user).await.unwrap(), value);
            }
            assert_eq!(rows(&client, &object).await, many);
        }
        cluster.stop().await.unwrap();
    });
}

#[test]
fn a_move_waits_for_the_call_that_runs_and_those_that_wait_follow() {
    run(async {
        let cluster = cluster(2).await;
        let client = cluster.client();
        let object = counter_at(&client, &cluster.at("a"), 0).await;
        let gate = new_gate("moves");
        let begin = |amount| {
            let (object, client, gate) = (object.clone(), client.clone(), gate.clone());
            spawn_local(async move { object.add_at_gate(&client, amount, &gate).await })
        };
        let first = begin(1);
        arrived(&gate, 1).await;
        let later: Vec<_> = (0..5).map(|_| begin(10)).collect();
        let short = client.move_object(object.uid(), id(&cluster, "b"), Duration::ZERO);
        let error = short.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LockTimeout, "{error}");
        let moving = spawn_local({
            let (client, node) = (client.clone(), id(&cluster, "b"));
            let uid = object.uid();
            async move { client.move_object(uid, node, WAIT).await }
        });
        open(&gate, 6);
        assert_eq!(first.await.unwrap().unwrap(), 1);
        assert_eq!(moving.await.unwrap().unwrap(), 1);
        for call in later {
            call.await.unwrap().unwrap();
        }
        assert_eq!(object.value(&client).await.unwrap(), 51);
        assert_eq!(owner(&cluster, &["a", "b"], object.uid()).await, "b");
        cluster.stop().await.unwrap();
    });
}

/// An action at work on two objects, of which one moves in its middle, with a nested one in it.
async fn act(
    cluster: &Cluster,
    client: &Client,
    [x, y]: [&Counter; 2],
    (nested_fails, fails): (bool, bool),
) -> Result<(), ActionError<SystemError>> {
    let failure = || SystemError::servant("as the test wants it");
    client
        .action(async |a| {
            x.add(a, 1).await?;
            x.put_row(a, "root", 1).await?;
            y.add(a, -1).await?;
            go(cluster, x, "b").await;
            let nested = a
                .nested(async |n| {
                    x.add(n, 10).await?;
                    x.put_row(n, "nested", 2).await?;
                    x.put_row(n, "root", 3).await?;
                    go(cluster, x, "c").await;
                    assert_eq!(x.add(n, 100).await?, 1_111);
                    go(cluster, x, "a").await;
                    y.add(n, -10).await?;
                    match nested_fails {
                        true => Err(failure()),
                        false => Ok(()),
                    }
                })
                .await;
            assert_eq!(nested.is_err(), nested_fails);
            let expected = if nested_fails { 1_001 } else { 1_111 };
            assert_eq!(x.value(a).await?, expected);
            let root = if nested_fails { 1 } else { 3 };
            let found = x.rows(a, "", 10).await?;
            let found = found.iter().find(|row| row.name == "root").unwrap();
            assert_eq!(found.value, root);
            go(cluster, x, "b").await;
            match fails {
                true => Err(failure()),
                false => Ok(()),
            }
        })
        .await
}

#[test]
fn the_work_of_actions_moves_along_and_commits_or_is_undone() {
    run(async {
        let cluster = cluster(3).await;
        let client = cluster.client();
        for plan in [(false, false), (true, false), (false, true), (true, true)] {
            let x = counter_at(&client, &cluster.at("a"), 1_000).await;
            let y = counter_at(&client, &cluster.at("c"), 1_000).await;
            x.put_row(&client, "old", 7).await.unwrap();
            let ended = act(&cluster, &client, [&x, &y], plan).await;
            let (nested_fails, fails) = plan;
            match ended {
                Ok(()) => assert!(!fails),
                Err(ActionError::Aborted { reason, .. }) => {
                    assert!(fails, "{plan:?}: {reason:?}");
                    assert!(matches!(reason, AbortReason::Program), "{reason:?}");
                }
                Err(other) => panic!("{plan:?}: {other}"),
            }
            let (sum, mut kept) = match plan {
                (_, true) => (0, vec![]),
                (true, false) => (1, vec![("root".to_owned(), 1)]),
                (false, false) => (111, vec![("nested".to_owned(), 2), ("root".to_owned(), 3)]),
            };
            let what = format!("nested fails: {nested_fails}, fails: {fails}");
            assert_eq!(x.value(&client).await.unwrap(), 1_000 + sum, "{what}");
            let others = if plan == (false, false) { 11 } else { sum };
            assert_eq!(y.value(&client).await.unwrap(), 1_000 - others, "{what}");
            kept.push(("old".to_owned(), 7));
            kept.sort();
            assert_eq!(rows(&client, &x).await, kept, "{what}");
            assert_eq!(owner(&cluster, &["a", "b", "c"], x.uid()).await, "b");
            // The locks are gone, wherever they were.
            go(&cluster, &x, "c").await;
            assert_eq!(x.add(&client, 1).await.unwrap(), 1_001 + sum, "{what}");
        }
        cluster.stop().await.unwrap();
    });
}

#[test]
fn a_lock_keeps_others_out_wherever_its_object_goes() {
    run(async {
        let cluster = cluster(2).await;
        let client = cluster.client();
        let object = counter_at(&client, &cluster.at("a"), 0).await;
        let other = cluster.client_named("other");
        assert_eq!(object.value(&other).await.unwrap(), 0);
        let action = client.begin();
        assert_eq!(object.add(&action, 5).await.unwrap(), 5);
        go(&cluster, &object, "b").await;
        let waiting = spawn_local({
            let (object, other) = (object.clone(), other.clone());
            async move { object.value(&other).await }
        });
        let soon = other.call().deadline(Duration::from_millis(200));
        let error = object.add(&soon, 1).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Deadline, "{error}");
        assert!(!waiting.is_finished());
        go(&cluster, &object, "a").await;
        assert_eq!(object.add(&action, 5).await.unwrap(), 10);
        action.commit().await.unwrap();
        assert_eq!(waiting.await.unwrap().unwrap(), 10);
        cluster.stop().await.unwrap();
    });
}

#[test]
fn a_call_is_not_executed_again_after_a_move_though_the_old_node_is_gone() {
    run(async {
        let mut cluster = cluster(3).await;
        let client = cluster.client();
        let object = counter_at(&client, &cluster.at("a"), 0).await;
        let calls: Vec<_> = (0..20).map(|_| client.new_call_id()).collect();
        for (value, call) in (1..).zip(&calls) {
            let named = client.call().id(*call);
            assert_eq!(object.add(&named, 1).await.unwrap(), value);
        }
        go(&cluster, &object, "b").await;
        go(&cluster, &object, "c").await;
        cluster.kill("a").await;
        cluster.kill("b").await;
        for (value, call) in (1..).zip(&calls) {
            let again = client.call().again(*call);
            assert_eq!(object.add(&again, 1).await.unwrap(), value);
        }
        assert_eq!(object.value(&client).await.unwrap(), 20);
        cluster.stop().await.unwrap();
    });
}

#[test]
fn a_chain_of_forwards_gets_shorter_and_outlives_restarts() {
    run(async {
        let mut cluster = cluster(3).await;
        let client = cluster.client();
        let object = counter_at(&client, &cluster.at("a"), 1).await;
        go(&cluster, &object, "b").await;
        go(&cluster, &object, "c").await;
        let (uid, at_c) = (object.uid(), id(&cluster, "c"));
        // The node of its birth is told by the one that it went to from there.
        until(async || {
            let error = seen_by(&cluster, "a", uid).await.unwrap_err();
            error
                .moved()
                .is_some_and(|to| to.node == at_c && to.moves == 2)
        })
        .await;
        for name in ["a", "b", "c"] {
            cluster.restart(name).await.unwrap();
        }
        let fresh = cluster.client_named("fresh");
        assert_eq!(Counter::from_uid(uid).value(&fresh).await.unwrap(), 1);
        assert_eq!(owner(&cluster, &["a", "b", "c"], uid).await, "c");
        cluster.stop().await.unwrap();
    });
}

#[test]
fn a_binding_that_follows_its_object_is_not_broken() {
    run(async {
        let mut cluster = cluster(2).await;
        let client = cluster.client();
        let object = counter_at(&client, &cluster.at("a"), 1).await;
        object.value(&client).await.unwrap();
        let binding = object.reference().binding(&client);
        let broken = spawn_local(binding.on_broken());
        go(&cluster, &object, "b").await;
        assert_eq!(object.value(&client).await.unwrap(), 1);
        assert_eq!(binding.peer().unwrap().node, id(&cluster, "b"));
        cluster.kill("a").await;
        assert_eq!(object.value(&client).await.unwrap(), 1);
        assert!(!broken.is_finished());
        cluster.kill("b").await;
        assert_eq!(broken.await.unwrap().kind(), ErrorKind::BindingBroken);
        cluster.stop().await.unwrap();
    });
}

#[test]
fn what_cannot_move_says_why_and_stays() {
    run(async {
        let cluster = cluster(2).await;
        let client = cluster.client();
        let object = counter_at(&client, &cluster.at("a"), 1).await;
        let nobody = NodeId(common::random());
        let short = Duration::from_secs(1);
        let error = client
            .move_object(object.uid(), nobody, short)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NameNotFound, "{error}");
        let mut missing = object.uid();
        missing.local += 1_000;
        let to = id(&cluster, "b");
        let error = client.move_object(missing, to, short).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSuchObject, "{error}");
        let manager = Uid::connection_manager(id(&cluster, "a"));
        let error = client.move_object(manager, to, short).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSuchObject, "{error}");
        assert_eq!(object.add(&client, 1).await.unwrap(), 2);
        cluster.stop().await.unwrap();
    });
}

#[test]
fn a_node_without_the_class_is_named_and_nothing_is_frozen() {
    run(async {
        let cluster = Cluster::new()
            .names(["a", "b"])
            .configure(|name, builder| match name {
                "a" => common::with_classes(builder),
                _ => builder,
            })
            .start()
            .await
            .unwrap();
        let client = cluster.client();
        let object = counter_at(&client, &cluster.at("a"), 1).await;
        let to = id(&cluster, "b");
        let error = client
            .move_object(object.uid(), to, WAIT)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadOperation, "{error}");
        for part in ["b", "does not run class"] {
            assert!(error.detail().contains(part), "{error}");
        }
        assert_eq!(object.add(&client, 1).await.unwrap(), 2);
        cluster.stop().await.unwrap();
    });
}

#[test]
fn two_hundred_moves_of_a_busy_object_abort_nothing() {
    run(async {
        let cluster = cluster(3).await;
        let client = cluster.client();
        let hot = counter_at(&client, &cluster.at("a"), 10_000).await;
        let mut workers = Vec::new();
        let stop = std::rc::Rc::new(std::cell::Cell::new(false));
        for name in ["a", "b", "c", "a"] {
            let own = counter_at(&client, &cluster.at(name), 0).await;
            let (hot, client, stop) = (hot.clone(), client.clone(), stop.clone());
            workers.push(spawn_local(async move {
                let mut done = 0;
                while !stop.get() {
                    // Always in this order, so that there is no deadlock.
                    let moved = client.action(async |a| {
                        hot.add(a, -1).await?;
                        own.add(a, 1).await?;
                        Ok::<_, SystemError>(())
                    });
                    moved.await.unwrap();
                    done += 1;
                }
                assert_eq!(own.value(&client).await.unwrap(), done);
                done
            }));
        }
        for moves in 1..=200 {
            let to = ["b", "c", "a"][(moves as usize - 1) % 3];
            assert_eq!(go(&cluster, &hot, to).await, moves);
        }
        stop.set(true);
        let mut sum = 0;
        for worker in workers {
            sum += worker.await.unwrap();
        }
        assert!(sum > 0);
        assert_eq!(hot.value(&client).await.unwrap(), 10_000 - sum);
        cluster.stop().await.unwrap();
    });
}

#[test]
fn two_who_want_it_at_different_places_end_with_one_owner() {
    run(async {
        let cluster = cluster(3).await;
        let client = cluster.client();
        let object = counter_at(&client, &cluster.at("a"), 1).await;
        for _ in 0..20 {
            let wishes = ["a", "b", "c", "b"].map(|name| {
                let (client, node) = (client.clone(), id(&cluster, name));
                let uid = object.uid();
                spawn_local(async move { client.move_object(uid, node, WAIT).await })
            });
            let mut ended = 0;
            for wish in wishes {
                match wish.await.unwrap() {
                    Ok(_) => ended += 1,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::LockTimeout, "{error}"),
                }
            }
            assert!(ended > 0);
            owner(&cluster, &["a", "b", "c"], object.uid()).await;
        }
        assert_eq!(object.value(&client).await.unwrap(), 1);
        cluster.stop().await.unwrap();
    });
}

#[test]
fn a_plain_client_is_told_where_the_object_is_and_finds_it_there() {
    run(async {
        let cluster = cluster(2).await;
        let client = cluster.client();
        let face = Face::open(Kind::Foreign, cluster.node("a")).await;
        let bound = face.counter(5).await;
        let (uid, to) = (bound.uid, id(&cluster, "b"));
        client.move_object(uid, to, WAIT).await.unwrap();
        let address = cluster.address("b").unwrap().to_string();
        // By the capability that it has, and by a new one.
        let refused = bound.add(&NOW, 1).await.unwrap_err();
        refused.says(&["moved", &to.to_string(), &address]);
        let refused = face.bind(uid).await.map(|_| ()).unwrap_err();
        refused.says(&["moved", &to.to_string(), &address]);
        let there = Face::open(Kind::Foreign, cluster.node("b")).await;
        let found = there.bind(uid).await.unwrap();
        assert_eq!(found.add(&NOW, 1).await.unwrap(), 6);
        // And as before, when it is back.
        let back = id(&cluster, "a");
        client.move_object(uid, back, WAIT).await.unwrap();
        assert_eq!(bound.add(&NOW, 1).await.unwrap(), 7);
        drop((face, there));
        cluster.stop().await.unwrap();
    });
}

#[test]
fn a_node_that_stops_lets_its_moves_end_or_keeps_the_objects() {
    run(async {
        let mut cluster = cluster(2).await;
        let client = cluster.client();
        let mut objects = Vec::new();
        for n in 0..20 {
            objects.push(counter_at(&client, &cluster.at("a"), n).await);
        }
        let to = id(&cluster, "b");
        let moving = objects.iter().map(|object| {
            let (client, uid) = (client.clone(), object.uid());
            spawn_local(async move { client.move_object(uid, to, Duration::from_secs(5)).await })
        });
        let moving: Vec<_> = moving.collect();
        cluster.restart("a").await.unwrap();
        for ended in moving {
            // Whatever came of it.
            let _ = ended.await.unwrap();
        }
        for (n, object) in (0..).zip(&objects) {
            let long = client.call().deadline(common::PATIENCE);
            assert_eq!(object.value(&long).await.unwrap(), n);
            owner(&cluster, &["a", "b"], object.uid()).await;
        }
        cluster.stop().await.unwrap();
    });
}
