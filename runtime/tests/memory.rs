//! How much memory peers can make a node use, and how little objects take that nobody uses.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod common;

use std::time::{Duration, Instant};

use common::behaviour::{Counter, Listener, counter, listener};
use common::process::{NodeProcess, Start, serve};
use common::raw::{FILL, Hello, Raw, initiate, invoke};
use partha::abi::Struct;
use partha::{Bytes, Client, Context, Epoch, Place, Uid};
use partha_store::{Batch, Item, LmdbStore, ObjectStore, Record};
use test_support::temp_dir;

const ADD_AT_GATE: (u64, u16) = (counter::CLASS.0, 4);
const READ_AT_GATE: (u64, u16) = (counter::CLASS.0, 5);
const MIB: i64 = 1 << 20;

#[test]
#[ignore = "a process of the other tests"]
fn node_process() {
    serve();
}

async fn client_of(node: &NodeProcess) -> (Client, Place) {
    let client = Client::alone().unwrap();
    let id = client
        .locator()
        .introduce(&client, &node.address.to_string())
        .await
        .unwrap();
    (client, Place::Node(id))
}

/// A node process with a counter.
fn scene(dir: &std::path::Path) -> (NodeProcess, Uid) {
    // Calls wait at gates for as long as it takes.
    let node = Start::new(dir).lock_wait_ms(600_000).ready();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let uid = runtime.block_on(async {
        let (client, place) = client_of(&node).await;
        Counter::create(&client, &place, 7, Bytes::new())
            .await
            .unwrap()
            .uid()
    });
    (node, uid)
}

/// Another client is answered, and soon.
fn others_are_served(node: &NodeProcess, object: Uid) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let start = Instant::now();
        let (client, _) = client_of(node).await;
        assert_eq!(Counter::from_uid(object).value(&client).await.unwrap(), 7);
        assert!(
            start.elapsed() < Duration::from_secs(8),
            "after {:?}",
            start.elapsed()
        );
    });
}

#[test]
fn a_peer_that_does_not_read_its_answers() {
    let dir = temp_dir("memory");
    let (node, object) = scene(dir.path());
    let before = node.memory();
    // At the object's own shard, and at the other, which passes the calls on.
    for shard in [0, 1] {
        let mut peer = Raw::meet_as(
            node.address,
            &Hello {
                shard,
                ..Hello::default()
            },
        );
        for question in 1..=3000 {
            peer.send(&invoke(question, object, FILL, |w, s| {
                w.set_u32(s, 0, 1 << 20)
            }));
        }
        others_are_served(&node, object);
        let grown = node.memory() - before;
        println!("3000 MiB of answers unread: {} KiB", grown >> 10);
        assert!(grown < 80 * MIB, "{} MiB", grown / MIB);
    }
}

#[test]
fn a_peer_that_asks_more_than_can_be_done() {
    let dir = temp_dir("memory");
    let (node, object) = scene(dir.path());
    let before = node.memory();
    let mut peer = Raw::meet(node.address);
    peer.stream
        .set_write_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    // The first holds the object, the others wait with all they have brought.
    let gate = "x".repeat(1 << 20);
    for question in 1..=400 {
        peer.send(&invoke(question, object, ADD_AT_GATE, |w, s| {
            // Sending all that may take longer than a call usually may.
            let context = w.structure(s.slot(0), 6, 1);
            w.set_u64(context, 0, 300_000_000);
            w.text(s.slot(1), &gate)
        }));
    }
    for _ in 0..300 {
        let (_, refused) = peer.answer().expect("the connection stays");
        let refused = refused.expect("only refusals");
        assert!(
            refused.starts_with("19: ") && refused.contains("at most"),
            "{refused}"
        );
    }
    let grown = node.memory() - before;
    println!("400 MiB of parameters: {} KiB", grown >> 10);
    assert!(grown < 200 * MIB, "{} MiB", grown / MIB);
}

#[test]
fn a_peer_that_asks_little_but_often() {
    let dir = temp_dir("memory");
    let (node, object) = scene(dir.path());
    let before = node.memory();
    let mut peer = Raw::meet(node.address);
    for question in 1..=8000 {
        peer.send(&invoke(question, object, READ_AT_GATE, |w, s| {
            w.text(s.slot(1), "x")
        }));
    }
    peer.is_read();
    others_are_served(&node, object);
    let grown = node.memory() - before;
    println!("8000 calls wait: {} KiB", grown >> 10);
    assert!(grown < 64 * MIB, "{} MiB", grown / MIB);
}

#[test]
fn peers_that_come_and_go() {
    let dir = temp_dir("memory");
    let (node, object) = scene(dir.path());
    let visit = |count: u32| {
        for _ in 0..count {
            let mut peer = Raw::meet(node.address);
            peer.send(&initiate(1, object.node, object));
            assert_eq!(peer.answer(), Some((1, None)));
        }
    };
    visit(500);
    let before = node.memory();
    visit(4000);
    let grown = node.memory() - before;
    println!("4000 visits: {} KiB", grown >> 10);
    assert!(grown < MIB, "{} KiB", grown >> 10);
}

#[test]
fn a_crowd_that_says_nothing_is_not_in_the_way() {
    let dir = temp_dir("memory");
    let (node, object) = scene(dir.path());
    let start = Instant::now();
    let crowd: Vec<_> = (0..2000).map(|_| Raw::silent(node.address)).collect();
    println!("2000 silent peers: connected in {:?}", start.elapsed());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (client, _) = client_of(&node).await;
        assert_eq!(Counter::from_uid(object).value(&client).await.unwrap(), 7);
    });
    // They are given five seconds to speak, which nobody else has to wait for.
    let waited = start.elapsed();
    assert!(waited < Duration::from_secs(4), "{waited:?}");
    println!("2000 silent peers: served after {waited:?}");
    drop(crowd);
}

/// Shards of this very process; the nodes of these tests run in others.
fn shard_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names
        .filter(|name| name.starts_with("partha-shard"))
        .count()
}

struct Silent;

impl listener::Servant for Silent {
    async fn heard(&self, _cx: &Context, value: i64) -> partha::Result<i64> {
        Ok(value)
    }
}

#[test]
fn a_client_has_one_thread_for_its_listeners_and_takes_it_along() {
    let dir = temp_dir("memory");
    let (node, object) = scene(dir.path());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for _ in 0..5 {
        let (client, _) = runtime.block_on(client_of(&node));
        let together = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    together.wait();
                    let listener = Listener::serve(&client, Silent).unwrap();
                    let told = Counter::from_uid(object);
                    let told = runtime.block_on(told.tell(&client, &listener));
                    assert_eq!(told.unwrap(), 7);
                });
            }
        });
        // Asked more than once, since a list of threads misses some while others end.
        test_support::eventually(common::PATIENCE, || shard_threads() == 1);
        drop(client);
        test_support::eventually(common::PATIENCE, || shard_threads() == 0);
    }
}

/// Objects in a node's store.
const PASSIVE: usize = 100_000;
/// Objects in its memory.
const ACTIVE: usize = 10_000;

/// What a node uses that has nothing, but has answered the questions that the others are asked.
async fn memory_of_an_empty_node() -> i64 {
    let dir = temp_dir("empty");
    let node = Start::new(dir.path()).ready();
    let (client, place) = client_of(&node).await;
    Counter::create(&client, &place, 1, Bytes::new())
        .await
        .unwrap();
    assert_eq!(page_through(&client, &node).await.len(), 1);
    node.memory()
}

/// All objects of a node, page by page.
async fn page_through(client: &Client, node: &NodeProcess) -> Vec<Uid> {
    let handle = client.node_at(&node.address.to_string()).await.unwrap();
    let (mut seen, mut after) = (Vec::new(), Uid::NIL);
    loop {
        let page = handle.manager().objects(client, after, 1000).await.unwrap();
        let Some(last) = page.last() else { return seen };
        after = last.object;
        seen.extend(page.into_iter().map(|object| object.object));
    }
}

/// Puts so many counters into the store of a node that does not run, as it would itself.
fn make(dir: &std::path::Path, count: u64) {
    const BATCH: u64 = 5_000;
    let store = LmdbStore::open(dir).unwrap();
    let me = store.identity();
    for first in (0..count).step_by(BATCH as usize) {
        let item = |number| {
            let state = counter::State {
                value: number as i64,
                padding: Bytes::new(),
            };
            let (data, pointers) = (counter::State::DATA, counter::State::POINTERS);
            let w = partha::abi::message(data, pointers, |w, s| state.write(w, s));
            let (class, schema) = (counter::CLASS, counter::INFO.schema);
            let state = w.finish().unwrap().0.into();
            let record = Record {
                class,
                schema,
                version: 1,
                epoch: Epoch(0),
                state,
            };
            let uid = Uid::new(me.node, me.incarnation, 1_000 + number);
            Item::Create { uid, record }
        };
        store
            .commit(Batch::new((first..first + BATCH).map(item).collect()))
            .unwrap();
    }
    store.close();
}

#[test]
fn a_hundred_thousand_objects() {
    let dir = temp_dir("scale");
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let empty = memory_of_an_empty_node().await;
        let start = Instant::now();
        make(dir.path(), PASSIVE as u64);
        println!("{PASSIVE} objects made in {:.1?}", start.elapsed());
        let start = Instant::now();
        let node = Start::new(dir.path()).ready();
        let started = start.elapsed();
        let (client, _) = client_of(&node).await;
        let start = Instant::now();
        let objects = page_through(&client, &node).await;
        let (paged, passive) = (start.elapsed(), node.memory() - empty);
        println!("started in {started:.1?}, paged through in {paged:.1?}");
        println!("{PASSIVE} passive objects take {} KiB", passive >> 10);
        assert_eq!(objects.len(), PASSIVE);
        assert!(started < Duration::from_secs(20), "{started:?}");
        // The heap's own grain, and nothing that grows with the objects.
        assert!(passive < 2 * MIB, "{} KiB", passive >> 10);

        let start = Instant::now();
        activate(&client, &objects[..ACTIVE]).await;
        let active = node.memory() - empty;
        println!("{ACTIVE} active objects take {} KiB", active >> 10);
        println!("brought into memory in {:.1?}", start.elapsed());
        // A kibibyte each, the state included.
        assert!(active < (ACTIVE as i64) << 10, "{} KiB", active >> 10);
        let handle = client.node_at(&node.address.to_string()).await.unwrap();
        let figures = handle.manager().statistics(&client).await.unwrap();
        assert_eq!(figures.active_objects, ACTIVE as u64, "{figures:?}");
    });
}

async fn activate(client: &Client, objects: &[Uid]) {
    const TOGETHER: usize = 100;
    let mut callers = tokio::task::JoinSet::new();
    for first in 0..TOGETHER {
        let mine: Vec<_> = objects
            .iter()
            .skip(first)
            .step_by(TOGETHER)
            .copied()
            .collect();
        let client = client.clone();
        callers.spawn(async move {
            for object in mine {
                Counter::from_uid(object).value(&client).await.unwrap();
            }
        });
    }
    while let Some(called) = callers.join_next().await {
        called.unwrap();
    }
}
