//! Moves that something goes wrong with: nodes that are killed, cut off or full, peers that say
//! what is not so.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::behaviour::Counter;
use common::cluster::{cluster, counter_at};
use common::process::{NodeProcess, Start, serve};
use common::{PATIENCE, run, until};
use partha::system::connection_manager::{InspectError, StageError};
use partha::system::{MovingPage, MovingRecord};
use partha::testkit::Cluster;
use partha::{Bytes, Client, ErrorKind, NodeId, Place, Uid};
use test_support::temp_dir;
use tokio::task::spawn_local;

const WAIT: Duration = Duration::from_secs(20);
const COUNTERS: usize = 4;
const KILLS: usize = 8;

#[test]
#[ignore = "a process of the other tests"]
fn node_process() {
    serve();
}

fn id(cluster: &Cluster, name: &str) -> NodeId {
    cluster.node(name).me().node
}

async fn has(client: &Client, address: &str, object: Uid) -> bool {
    let node = client.node_at(address).await.unwrap();
    match node.manager().inspect(client, object).await {
        Ok(_) => true,
        Err(InspectError::NoSuchObject(_)) => false,
        Err(InspectError::System(error)) => {
            assert_eq!(error.kind(), ErrorKind::Moved, "{error}");
            false
        }
    }
}

/// Adds one to a counter that nobody else uses, until told to stop; what is acknowledged must be
/// what was executed, call by call.
async fn count_up(client: Client, counter: Counter, stop: Arc<AtomicBool>) -> i64 {
    let mut acknowledged = 0;
    while !stop.load(Ordering::Relaxed) {
        let id = client.new_call_id();
        let mut answer = counter.add(&client.call().id(id), 1).await;
        while let Err(error) = answer {
            assert_ne!(error.kind(), ErrorKind::NoSuchObject, "{error}");
            answer = counter.add(&client.call().again(id), 1).await;
        }
        acknowledged += 1;
        assert_eq!(answer.unwrap(), acknowledged, "lost, or executed twice");
    }
    acknowledged
}

/// Moves the counters from one node to the other and back, whatever comes of it.
async fn shove(
    client: Client,
    counters: Vec<Counter>,
    nodes: [NodeId; 2],
    stop: Arc<AtomicBool>,
) -> u64 {
    let (mut moved, mut turn) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        for counter in &counters {
            turn += 1;
            let to = nodes[turn / counters.len() % 2];
            let short = Duration::from_secs(1);
            let asked = client.move_object(counter.uid(), to, short);
            match asked.await {
                Ok(_) => moved += 1,
                Err(error) => {
                    assert_ne!(error.kind(), ErrorKind::BadOperation, "{error}");
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        }
    }
    moved
}

/// Makes two nodes know each other, which a restarted one has forgotten.
async fn introduce(client: &Client, guides: &[Counter], nodes: &[NodeProcess; 2]) {
    for (guide, other) in guides.iter().zip([1, 0]) {
        let address = nodes[other].address.to_string();
        until(async || {
            let met = client.locator().introduce(client, &address).await.is_ok();
            met && guide.meet(client, &address).await.is_ok()
        })
        .await;
    }
}

#[test]
fn nodes_that_are_killed_in_moves_lose_nothing_and_do_nothing_twice() {
    let dirs = [temp_dir("moves-a"), temp_dir("moves-b")];
    let mut nodes = [0, 1].map(|n: usize| Start::new(dirs[n].path()).ready());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let client = Client::alone().unwrap();
    let (mut ids, mut guides, mut counters) = (vec![], vec![], vec![]);
    runtime.block_on(async {
        for node in &nodes {
            let address = node.address.to_string();
            let id = client.locator().introduce(&client, &address).await.unwrap();
            ids.push(id);
            let guide = Counter::create(&client, &Place::Node(id), 0, Bytes::new()).await;
            guides.push(guide.unwrap());
        }
        for n in 0..COUNTERS {
            let place = Place::Node(ids[n % 2]);
            let counter = Counter::create(&client, &place, 0, Bytes::new()).await;
            counters.push(counter.unwrap());
        }
        introduce(&client, &guides, &nodes).await;
    });
    let stop = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = counters
        .iter()
        .map(|counter| runtime.spawn(count_up(client.clone(), counter.clone(), stop.clone())))
        .collect();
    let both = [ids[0], ids[1]];
    let moving = runtime.spawn(shove(client.clone(), counters.clone(), both, stop.clone()));
    for round in 0..KILLS {
        let pause = 50 + common::random() % 300;
        std::thread::sleep(Duration::from_millis(pause));
        let victim = round % 2;
        let address = nodes[victim].address;
        nodes[victim].child.kill();
        nodes[victim] = Start::new(dirs[victim].path()).listen(address).ready();
        runtime.block_on(introduce(&client, &guides, &nodes));
    }
    stop.store(true, Ordering::Relaxed);
    runtime.block_on(async {
        let moved = moving.await.unwrap();
        let fresh = Client::alone().unwrap();
        for node in &nodes {
            let address = node.address.to_string();
            fresh.locator().introduce(&fresh, &address).await.unwrap();
        }
        for (worker, counter) in workers.into_iter().zip(&counters) {
            let acknowledged = worker.await.unwrap();
            let counter = Counter::from_uid(counter.uid());
            let long = fresh.call().deadline(PATIENCE);
            assert_eq!(counter.value(&long).await.unwrap(), acknowledged);
            let mut owners = 0;
            for node in &nodes {
                let address = node.address.to_string();
                owners += usize::from(has(&fresh, &address, counter.uid()).await);
            }
            assert_eq!(owners, 1, "{}", counter.uid());
        }
        println!("{moved} moves, {KILLS} kills");
        assert!(moved > 0);
    });
}

#[test]
fn a_target_that_dies_with_the_work_of_an_action_aborts_it_and_keeps_the_object() {
    run(async {
        let mut cluster = cluster(2).await;
        let client = cluster.client();
        let object = counter_at(&client, &cluster.at("a"), 5).await;
        let other = counter_at(&client, &cluster.at("a"), 5).await;
        let action = client.begin();
        assert_eq!(object.add(&action, 1).await.unwrap(), 6);
        assert_eq!(other.add(&action, 1).await.unwrap(), 6);
        let to = id(&cluster, "b");
        client.move_object(object.uid(), to, WAIT).await.unwrap();
        cluster.restart("b").await.unwrap();
        action.commit().await.unwrap_err();
        let long = client.call().deadline(PATIENCE);
        assert_eq!(object.add(&long, 10).await.unwrap(), 15);
        assert_eq!(other.add(&client, 10).await.unwrap(), 15);
        cluster.stop().await.unwrap();
    });
}

#[test]
fn a_source_that_dies_takes_the_action_along_and_not_the_object() {
    run(async {
        let mut cluster = cluster(2).await;
        let client = cluster.client();
        let object = counter_at(&client, &cluster.at("a"), 5).await;
        let action = client.begin();
        assert_eq!(object.add(&action, 1).await.unwrap(), 6);
        let to = id(&cluster, "b");
        client.move_object(object.uid(), to, WAIT).await.unwrap();
        assert_eq!(object.add(&action, 1).await.unwrap(), 7);
        cluster.kill("a").await;
        action.commit().await.unwrap_err();
        let long = client.call().deadline(PATIENCE);
        assert_eq!(object.add(&long, 10).await.unwrap(), 15);
        cluster.stop().await.unwrap();
    });
}

#[test]
fn a_target_that_is_cut_off_gets_nothing_and_the_object_serves_on() {
    run(async {
        let cluster = cluster(2).await;
        let client = cluster.client();
        let object = counter_at(&client, &cluster.at("a"), 5).await;
        for key in 0..50 {
            object
                .put_row(&client, &format!("{key}"), key)
                .await
                .unwrap();
        }
        let to = id(&cluster, "b");
        // They have met.
        let there = counter_at(&client, &cluster.at("a"), 0).await;
        client.move_object(there.uid(), to, WAIT).await.unwrap();
        cluster.partition("a", "b");
        let moving = spawn_local({
            let (client, uid) = (client.clone(), object.uid());
            async move { client.move_object(uid, to, Duration::from_secs(2)).await }
        });
        let error = moving.await.unwrap().unwrap_err();
        assert_ne!(error.kind(), ErrorKind::BadOperation, "{error}");
        assert_eq!(object.add(&client, 1).await.unwrap(), 6);
        cluster.heal();
        let moves = client.move_object(object.uid(), to, WAIT).await.unwrap();
        assert_eq!(moves, 1);
        assert_eq!(object.add(&client, 1).await.unwrap(), 7);
        assert_eq!(object.rows(&client, "", 100).await.unwrap().len(), 50);
        cluster.stop().await.unwrap();
    });
}

fn page(source: &Client, object: Uid, number: u32) -> MovingPage {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let me = source.me();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    MovingPage {
        object,
        action: Uid::new(me.node, me.incarnation, count),
        shard: 0,
        number,
        record: None,
        rows: Vec::new(),
        replies: Vec::new(),
        images: Vec::new(),
        present: None,
        cargo: None,
    }
}

#[test]
fn what_comes_from_nobody_or_of_no_move_is_refused_and_changes_nothing() {
    run(async {
        let cluster = cluster(2).await;
        let client = cluster.client();
        let object = counter_at(&client, &cluster.at("a"), 5).await;
        let described = {
            let address = cluster.address("a").unwrap().to_string();
            let node = client.node_at(&address).await.unwrap();
            node.manager().inspect(&client, object.uid()).await.unwrap()
        };
        let address = cluster.address("b").unwrap().to_string();
        let record = MovingRecord {
            class: described.class,
            schema: 0,
            version: 1,
            moves: 1,
            state: Bytes::new(),
        };
        // A client is no node, whatever it sends.
        let target = client.node_at(&address).await.unwrap();
        let mut first = page(&client, object.uid(), 0);
        first.record = Some(record.clone());
        for page in [page(&client, object.uid(), 3), first.clone()] {
            let error = target.manager().stage(&client, &page).await.unwrap_err();
            let StageError::System(error) = error else {
                panic!("{error:?}");
            };
            assert_eq!(error.kind(), ErrorKind::BadOperation, "{error}");
        }
        // A node that sends what does not fit.
        let source = cluster.node("a").client();
        let target = source.node_at(&address).await.unwrap();
        let refused = async |page: &MovingPage| {
            let error = target.manager().stage(source, page).await.unwrap_err();
            let StageError::NotMovable(error) = error else {
                panic!("{error:?}");
            };
            error.reason
        };
        let reason = refused(&page(source, object.uid(), 3)).await;
        assert!(reason.contains("does not go on with a move"), "{reason}");
        // The move of another one.
        first.action = page(&client, object.uid(), 0).action;
        let reason = refused(&first).await;
        assert!(reason.contains("no first page of a move"), "{reason}");
        // More moves than there can be.
        first.action = page(source, object.uid(), 0).action;
        first.record = Some(MovingRecord {
            moves: u64::MAX,
            ..record.clone()
        });
        let reason = refused(&first).await;
        assert!(reason.contains("times at most"), "{reason}");
        // Another schema, and a class that nobody knows.
        first.action = page(source, object.uid(), 0).action;
        first.record = Some(record.clone());
        let reason = refused(&first).await;
        assert!(reason.contains("another schema"), "{reason}");
        first.record = Some(MovingRecord {
            class: 77,
            ..record
        });
        let reason = refused(&first).await;
        assert!(reason.contains("does not run class"), "{reason}");
        assert_eq!(object.value(&client).await.unwrap(), 5);
        cluster.stop().await.unwrap();
    });
}

#[test]
fn a_forward_is_bent_by_no_client_and_made_the_last_by_no_node() {
    run(async {
        let cluster = cluster(2).await;
        let client = cluster.client();
        let object = counter_at(&client, &cluster.at("a"), 5).await;
        let to = id(&cluster, "b");
        client.move_object(object.uid(), to, WAIT).await.unwrap();
        let left = cluster.address("a").unwrap().to_string();
        let relocated = async |teller: &Client, moves| {
            let left = teller.node_at(&left).await.unwrap();
            let addresses = ["127.0.0.1:9".to_owned()];
            let manager = left.manager();
            manager
                .relocated(teller, object.uid(), 4_711, &addresses, moves)
                .await
        };
        let error = relocated(&client, 9).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadOperation, "{error}");
        assert!(error.detail().contains("for nodes to say"), "{error}");
        let successor = cluster.node("b").client();
        let error = relocated(successor, u64::MAX).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadOperation, "{error}");
        assert!(error.detail().contains("times at most"), "{error}");
        let fresh = cluster.client_named("fresh");
        let seen = Counter::from_uid(object.uid());
        assert_eq!(seen.add(&fresh, 1).await.unwrap(), 6);
        cluster.stop().await.unwrap();
    });
}

#[test]
fn a_target_without_room_in_memory_is_asked_again_until_there_is_some() {
    const ROOM: usize = 150_000;
    run(async {
        let cluster = Cluster::new()
            .nodes(2)
            .configure(|_, builder| common::with_classes(builder).arrivals_memory_max(ROOM))
            .start()
            .await
            .unwrap();
        let client = cluster.client();
        let place = cluster.at("a");
        let of_size = async |bytes: usize| {
            let padding = Bytes::from(vec![7; bytes]);
            let made = Counter::create(&client, &place, 5, padding);
            made.await.unwrap()
        };
        let (large, small) = (of_size(100_000).await, of_size(20_000).await);
        let to = id(&cluster, "b");
        // Its state is there twice: as it is, and as it was before the action.
        let action = client.begin();
        assert_eq!(large.add(&action, 1).await.unwrap(), 6);
        // Long enough for the last attempt not to be cut short.
        let short = Duration::from_secs(2);
        let refused = client.move_object(large.uid(), to, short).await;
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Overloaded, "{error}");
        assert!(error.detail().contains("150000 bytes"), "{error}");
        assert_eq!(large.add(&action, 1).await.unwrap(), 7);
        let source = {
            let address = cluster.address("a").unwrap().to_string();
            client.node_at(&address).await.unwrap()
        };
        let failed = async || {
            let told = source.manager().statistics(&client).await.unwrap();
            told.moves_failed
        };
        let before = failed().await;
        let moving = spawn_local({
            let (client, uid) = (client.clone(), large.uid());
            async move { client.move_object(uid, to, WAIT).await }
        });
        until(async || failed().await >= before + 2).await;
        action.commit().await.unwrap();
        assert_eq!(moving.await.unwrap().unwrap(), 1);
        assert_eq!(large.add(&client, 1).await.unwrap(), 8);
        // What came has been given back: together these are far more.
        let action = client.begin();
        for moves in 1..=10 {
            assert_eq!(small.add(&action, 1).await.unwrap(), 5 + moves);
            let node = ["a", "b"][moves as usize % 2];
            let moved = client.move_object(small.uid(), id(&cluster, node), WAIT);
            assert_eq!(moved.await.unwrap(), moves as u64);
        }
        action.commit().await.unwrap();
        assert_eq!(small.value(&client).await.unwrap(), 15);
        cluster.stop().await.unwrap();
    });
}

#[test]
fn a_full_target_refuses_and_the_object_stays() {
    let dirs = [temp_dir("moves-full-a"), temp_dir("moves-full-b")];
    let source = Start::new(dirs[0].path()).ready();
    let target = Start::new(dirs[1].path()).file_blocks_max(6_000).ready();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = Client::alone().unwrap();
        let mut ids = vec![];
        for node in [&source, &target] {
            let address = node.address.to_string();
            ids.push(client.locator().introduce(&client, &address).await.unwrap());
        }
        let padding = Bytes::from(vec![7; 1 << 20]);
        let place = Place::Node(ids[0]);
        let guide = Counter::create(&client, &place, 0, Bytes::new())
            .await
            .unwrap();
        guide
            .meet(&client, &target.address.to_string())
            .await
            .unwrap();
        let mut refused = None;
        for n in 0..20 {
            let object = Counter::create(&client, &place, n, padding.clone())
                .await
                .unwrap();
            let moved = client.move_object(object.uid(), ids[1], WAIT).await;
            if let Err(error) = moved {
                refused = Some((object, n, error));
                break;
            }
            assert_eq!(object.value(&client).await.unwrap(), n);
        }
        let (object, value, error) = refused.expect("the disk is not that large");
        assert_eq!(error.kind(), ErrorKind::Store, "{error}");
        assert_eq!(object.add(&client, 1).await.unwrap(), value + 1);
        let address = source.address.to_string();
        assert!(has(&client, &address, object.uid()).await);
    });
}
