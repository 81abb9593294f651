//! Large arguments and slow readers: what they take of a node's memory, and that small calls go on
//! beside them.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod common;

use std::time::{Duration, Instant};

use common::behaviour::Counter;
use common::process::{NodeProcess, Start, serve};
use common::raw::{FILL, Raw, invoke};
use common::{arrived, client_of, new_gate, open, run, stop};
use partha::{Backpressure, Bytes, Client, Completed, ErrorKind, MESSAGE_BYTES_MAX, Place};
use test_support::temp_dir;

const MIB: i64 = 1 << 20;
/// Open calls of a connection.
const QUESTIONS_MAX: usize = 8192;
/// What a peer that reads no answers may cost, with the limits that are usual: docs/operations.md.
const UNREAD_BYTES_MAX: i64 = 2 * (8 << 20) + (4 << 20) + QUESTIONS_MAX as i64 * 1024;

#[test]
#[ignore = "a process of the other tests"]
fn node_process() {
    serve();
}

/// A client of the node that takes and makes messages of so many bytes, and a counter there.
async fn scene(node: &NodeProcess, message_bytes_max: usize) -> (Client, Counter) {
    let builder = Client::builder().message_bytes_max(message_bytes_max);
    let client = builder.build().unwrap();
    let address = node.address.to_string();
    let id = client.locator().introduce(&client, &address).await.unwrap();
    let counter = Counter::create(&client, &Place::Node(id), 7, Bytes::new()).await;
    (client, counter.unwrap())
}

#[test]
fn an_argument_over_the_limit_is_refused_at_the_caller() {
    let dir = temp_dir("bulk");
    let node = Start::new(dir.path()).ready();
    run(async {
        let (client, counter) = scene(&node, MESSAGE_BYTES_MAX).await;
        let (wide, wide_counter) = scene(&node, 2 << 30).await;
        let before = node.memory();
        // A GiB that nobody ever touches, since it is sent nowhere.
        let pieces = vec![Bytes::from(vec![0; 256 << 20]); 4];
        let limit = MESSAGE_BYTES_MAX.to_string();
        let own = counter.measure(&client, &pieces).await;
        let of_node = wide_counter.measure(&wide, &pieces).await;
        for refused in [own, of_node] {
            let error = refused.unwrap_err();
            let (kind, completed) = (error.kind(), error.completion());
            assert_eq!((kind, completed), (ErrorKind::TooLarge, Completed::No));
            for part in [limit.as_str(), "in pieces", "message_bytes_max"] {
                assert!(error.detail().contains(part), "{error}");
            }
        }
        // One that no limit allows.
        let error = wide_counter
            .echo(&wide, vec![0; 1 << 29])
            .await
            .unwrap_err();
        assert!(error.detail().contains("536870911 elements"), "{error}");
        assert!(node.memory() - before < MIB);
        assert_eq!(counter.value(&client).await.unwrap(), 7);
        assert_eq!(wide_counter.value(&wide).await.unwrap(), 7);
    });
}

/// Sends so many bytes in one call, and meanwhile small calls on the same connection: how many of
/// these were answered, and what the node's memory grew by at most.
async fn send_much(node: &NodeProcess, bytes: usize) -> (u64, i64) {
    let (client, counter) = scene(node, bytes + (1 << 20)).await;
    let before = node.resident();
    // The same memory four times: only the receiver needs all of it.
    let pieces = vec![Bytes::from(vec![7; bytes / 4]); 4];
    let deadline = Duration::from_secs(100);
    let measuring = async {
        let patient = client.call().deadline(deadline);
        counter.measure(&patient, &pieces).await.unwrap()
    };
    tokio::pin!(measuring);
    let mut small = 0;
    let measured = loop {
        tokio::select! {
            biased;
            measured = &mut measuring => break measured,
            value = counter.value(&client) => {
                assert_eq!(value.unwrap(), 7);
                small += 1;
            }
        }
    };
    assert_eq!(measured, bytes as u64);
    (small, node.peak() - before)
}

#[test]
fn a_large_argument_leaves_room_for_small_calls_and_takes_its_own_size_of_memory() {
    let (dir, bytes) = (temp_dir("bulk"), 128 << 20_usize);
    let start = Start::new(dir.path()).message_bytes_max(bytes + (1 << 20));
    let (node, size) = (start.ready(), bytes as i64);
    let (small, grown) = run_for(send_much(&node, bytes));
    println!("{small} small calls meanwhile, {} MiB", grown / MIB);
    assert!(small >= 10, "{small}");
    assert!(grown < size + 32 * MIB, "{} MiB", grown / MIB);
}

#[test]
#[ignore = "takes two GiB of memory"]
fn an_argument_of_a_gibibyte() {
    let (dir, bytes) = (temp_dir("bulk"), 1 << 30_usize);
    let start = Start::new(dir.path()).message_bytes_max(bytes + (1 << 20));
    let (node, size) = (start.ready(), bytes as i64);
    let began = Instant::now();
    let (small, grown) = run_for(send_much(&node, bytes));
    println!(
        "{small} small calls in {:.1?}, {} MiB",
        began.elapsed(),
        grown / MIB
    );
    assert!(small >= 100, "{small}");
    assert!(grown < size + 64 * MIB, "{} MiB", grown / MIB);
}

fn run_for<T>(what: impl Future<Output = T>) -> T {
    let mut result = None;
    run(async { result = Some(what.await) });
    result.unwrap()
}

/// Bytes of each answer of [`stopped_reader`].
const FILL_BYTES: u32 = 16 << 10;

/// A peer with ten thousand calls whose answers it does not read.
fn stopped_reader(node: &NodeProcess, object: partha::Uid) -> Raw {
    let mut peer = Raw::meet(node.address);
    for question in 1..=10_000 {
        peer.send(&invoke(question, object, FILL, |w, s| {
            w.set_u32(s, 0, FILL_BYTES);
        }));
    }
    peer
}

#[test]
fn ten_thousand_calls_of_a_reader_that_stops() {
    let dir = temp_dir("bulk");
    let node = Start::new(dir.path()).ready();
    run(async {
        let (client, counter) = scene(&node, MESSAGE_BYTES_MAX).await;
        let before = node.memory();
        let mut peer = stopped_reader(&node, counter.uid());
        for _ in 0..300 {
            assert_eq!(counter.value(&client).await.unwrap(), 7);
        }
        let grown = node.memory() - before;
        println!("10,000 answers unread: {} KiB", grown >> 10);
        assert!(grown < UNREAD_BYTES_MAX, "{} KiB", grown >> 10);
        // When it reads again, every call has its answer.
        let mut refused = 0;
        for _ in 0..10_000 {
            let (_, error) = peer.answer().expect("the connection stays");
            if let Some(error) = error {
                assert!(error.starts_with("19: "), "{error}");
                refused += 1;
            }
        }
        println!("{refused} of them were refused");
        // Of an object on another shard all calls are under way before the first answer comes, and
        // what finds no room is refused, but not before 8 MiB of answers wait.
        let came = (10_000 - refused) * FILL_BYTES;
        assert!(came >= 8 << 20, "{came} bytes");
    });
}

/// More calls than a connection has room for, as a client wishes them: how many were refused.
async fn crowd(client: &Client, counter: &Counter, count: usize, gate: &str) -> usize {
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..count {
        let (client, counter, gate) = (client.clone(), counter.clone(), gate.to_owned());
        calls.spawn(async move {
            let patient = client.call().deadline(Duration::from_secs(100));
            counter.read_at_gate(&patient, &gate).await
        });
    }
    arrived(gate, QUESTIONS_MAX as u64).await;
    open(gate, count);
    let mut refused = 0;
    while let Some(called) = calls.join_next().await {
        match called.unwrap() {
            Ok(value) => assert_eq!(value, 7),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Overloaded, "{error}");
                assert_eq!(error.completion(), Completed::No, "{error}");
                refused += 1;
            }
        }
    }
    refused
}

#[test]
fn ten_thousand_calls_at_once_wait_or_fail_as_it_is_wished() {
    run(async {
        let dir = temp_dir("bulk");
        let node = common::node(dir.path()).await;
        let direct = client_of(&node).await;
        let made = common::counter(&direct, &node, 7).await;
        for (wish, refused) in [
            (Backpressure::Wait, 0),
            (Backpressure::Fail, 10_000 - QUESTIONS_MAX),
        ] {
            let client = Client::builder().backpressure(wish).build().unwrap();
            let address = node.address().to_string();
            client.locator().introduce(&client, &address).await.unwrap();
            let counter = Counter::from_uid(made.uid());
            assert_eq!(counter.value(&client).await.unwrap(), 7);
            let gate = new_gate("crowd");
            let failed = crowd(&client, &counter, 10_000, &gate).await;
            assert_eq!(failed, refused, "{wish:?}");
            assert_eq!(
                counter.value(&client).await.unwrap(),
                7,
                "there is room again"
            );
        }
        stop(node).await;
    });
}
