//! How much memory peers can make a node use, and how little objects take that nobody uses.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod common;

use std::time::{Duration, Instant};

use common::behaviour::{Counter, counter};
use common::process::{NodeProcess, Start, serve};
use common::raw::{Hello, Raw, invoke};
use partha::{Client, NodeId, Place, Uid};
use test_support::temp_dir;

const VALUE: (u64, u16) = (counter::CLASS.0, 0);
const ADD_AT_GATE: (u64, u16) = (counter::CLASS.0, 4);
const READ_AT_GATE: (u64, u16) = (counter::CLASS.0, 5);
const FILL: (u64, u16) = (counter::CLASS.0, 11);
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
    let node = Start::new(dir).ready();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let uid = runtime.block_on(async {
        let (client, place) = client_of(&node).await;
        Counter::create(&client, &place, 7, &[])
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
            start.elapsed() < Duration::from_secs(2),
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
        for question in 1..=1000 {
            peer.send(&invoke(question, object, FILL, |w, s| {
                w.set_u32(s, 0, 1 << 20)
            }));
        }
        others_are_served(&node, object);
        let grown = node.memory() - before;
        println!("1000 MiB of answers unread: {} KiB", grown >> 10);
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
    others_are_served(&node, object);
    let grown = node.memory() - before;
    println!("8000 calls wait: {} KiB", grown >> 10);
    assert!(grown < 64 * MIB, "{} MiB", grown / MIB);
}

const _: NodeId = NodeId(0);
