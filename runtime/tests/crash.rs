//! Nodes that are killed, run out of disk, or are started twice: real processes on real stores.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use common::behaviour::{Counter, counter};
use common::process::{NodeProcess, Start, serve};
use common::{PATIENCE, until};
use partha::abi::{Slot, Writer};
use partha::services::system::connection_manager::CreateError;
use partha::{Client, Completed, ErrorKind, Place, Uid};
use test_support::{Exit, temp_dir};

const WORKERS: usize = 8;
const KILLS: usize = 6;

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

/// Adds one to a counter that nobody else uses, until told to stop; what is acknowledged must be
/// what was executed, call by call. Answers the acknowledged value and the calls in doubt.
async fn count_up(client: Client, counter: Counter, stop: Arc<AtomicBool>) -> (i64, u64) {
    let (mut acknowledged, mut doubts) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        let id = client.new_call_id();
        let mut answer = counter.add(&client.call().id(id), 1).await;
        while let Err(error) = answer {
            assert_ne!(error.kind(), ErrorKind::NoSuchObject, "{error}");
            doubts += u64::from(error.completion() == Completed::Maybe);
            answer = counter.add(&client.call().again(id), 1).await;
        }
        acknowledged += 1;
        assert_eq!(answer.unwrap(), acknowledged, "lost, or executed twice");
    }
    (acknowledged, doubts)
}

/// Makes objects until told to stop; answers their number.
async fn make_many(client: Client, node: u64, address: String, stop: Arc<AtomicBool>) -> usize {
    let mut w = Writer::new(4096);
    let s = w.structure(Slot::ROOT, 1, 1);
    w.set_i64(s, 0, 5);
    let arguments = w.finish().unwrap().0;
    let mut made = BTreeMap::new();
    while !stop.load(Ordering::Relaxed) {
        let id = client.new_call_id();
        let uid = loop {
            let Ok(handle) = client.node_at(&address).await else {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            };
            let caller = client.call().again(id);
            match handle
                .manager()
                .create(&caller, counter::CLASS.0, arguments.clone())
                .await
            {
                Ok(uid) => break uid,
                Err(CreateError::System(_)) => {}
                Err(error) => panic!("{error:?}"),
            }
        };
        assert_eq!(uid.node.0, node);
        assert_eq!(made.insert(uid, id), None, "made for two calls");
    }
    made.len()
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let dir = temp_dir("crash");
    let mut node = Start::new(dir.path()).ready();
    let address = node.address;
    let again = Start::new(dir.path()).listen(address);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (client, place) = runtime.block_on(client_of(&node));
    let stop = Arc::new(AtomicBool::new(false));
    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        let counter = Counter::create(&client, &place, 0, partha::Bytes::new());
        let counter = runtime.block_on(counter).unwrap();
        let counting = count_up(client.clone(), counter.clone(), stop.clone());
        workers.push((counter, runtime.spawn(counting)));
    }
    let Place::Node(id) = place else {
        unreachable!("a node was met")
    };
    let making = make_many(client.clone(), id.0, address.to_string(), stop.clone());
    let maker = runtime.spawn(making);
    for kill in 0..KILLS {
        // Something is acknowledged in each life, at a moment that differs from kill to kill.
        let before = runtime
            .block_on(workers[kill % WORKERS].0.value(&client))
            .unwrap();
        let (counter, more) = (&workers[kill % WORKERS].0, 5 + 7 * kill as i64);
        runtime.block_on(until(|| async {
            counter
                .value(&client)
                .await
                .is_ok_and(|value| value > before + more)
        }));
        node.child.kill();
        node = again.ready();
        assert_eq!(node.address, address);
    }
    stop.store(true, Ordering::Relaxed);
    let (mut calls, mut doubts) = (0, 0);
    for (counter, worker) in workers {
        let (acknowledged, in_doubt) = runtime.block_on(worker).unwrap();
        assert_eq!(
            runtime.block_on(counter.value(&client)).unwrap(),
            acknowledged
        );
        calls += acknowledged;
        doubts += in_doubt;
    }
    let made = runtime.block_on(maker).unwrap();
    let stored = runtime.block_on(objects(&client, &node));
    assert_eq!(stored, made + WORKERS, "each create made one object");
    println!("{KILLS} kills, {calls} calls, {doubts} in doubt, {made} objects made");
    assert!(doubts > 0, "no call was under way when the node was killed");
}

async fn objects(client: &Client, node: &NodeProcess) -> usize {
    let handle = client.node_at(&node.address.to_string()).await.unwrap();
    let (mut count, mut after) = (0, Uid::NIL);
    loop {
        let page = handle.manager().objects(client, after, 1000).await.unwrap();
        let Some(last) = page.last() else {
            return count;
        };
        after = last.object;
        count += page.len();
    }
}

#[test]
fn a_full_disk_is_an_error_and_no_damage() {
    let dir = temp_dir("full");
    // 2 MiB where the shell counts in blocks of 512 bytes, 4 where it counts in KiB.
    let node = Start::new(dir.path()).file_blocks_max(4096).ready();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (client, place) = runtime.block_on(client_of(&node));
    let made = runtime.block_on(async {
        let counted = Counter::create(&client, &place, 0, partha::Bytes::new())
            .await
            .unwrap();
        let mut made = Vec::new();
        let error = loop {
            let value = made.len() as i64;
            match Counter::create(&client, &place, value, vec![1; 100_000]).await {
                Ok(counter) => made.push(counter),
                Err(error) => break error,
            }
            assert!(made.len() < 100, "the disk never gets full");
        };
        assert_eq!(
            (error.kind(), error.completion()),
            (ErrorKind::Store, Completed::No)
        );
        for part in ["data.mdb", "node a"] {
            assert!(error.detail().contains(part), "'{part}' is not in {error}");
        }
        // The node goes on: everything can be read, and what fails leaves nothing.
        for (value, counter) in made.iter().enumerate() {
            assert_eq!(counter.value(&client).await.unwrap(), value as i64);
        }
        let sum = AtomicI64::new(0);
        for _ in 0..20 {
            match counted.add(&client, 1).await {
                Ok(value) => sum.store(value, Ordering::Relaxed),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Store, "{error}"),
            }
            let value = counted.value(&client).await.unwrap();
            assert_eq!(
                value,
                sum.load(Ordering::Relaxed),
                "a failed write changed something"
            );
        }
        made.push(counted);
        made
    });
    let before = runtime.block_on(values(&client, &made));
    node.child.kill();
    // With room on the disk it is as if nothing had been.
    let again = Start::new(dir.path()).listen(node.address);
    drop(node);
    let node = again.ready();
    runtime.block_on(async {
        assert_eq!(values(&client, &made).await, before);
        for counter in &made {
            counter.add(&client, 1).await.unwrap();
        }
        Counter::create(&client, &place, 0, vec![1; 1_000_000])
            .await
            .unwrap();
        assert_eq!(objects(&client, &node).await, made.len() + 1);
    });
}

async fn values(client: &Client, counters: &[Counter]) -> Vec<i64> {
    let mut values = Vec::new();
    for counter in counters {
        values.push(counter.value(client).await.unwrap());
    }
    values
}

#[test]
fn one_folder_is_for_one_process() {
    let dir = temp_dir("twice");
    let node = Start::new(dir.path()).ready();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (client, place) = runtime.block_on(client_of(&node));
    let counter = Counter::create(&client, &place, 3, partha::Bytes::new());
    let counter = runtime.block_on(counter).unwrap();

    let second = Start::new(dir.path()).spawn();
    let line = second.wait_for_line(PATIENCE, |line| line.contains("> failed"));
    assert_eq!(second.wait(PATIENCE), Exit::Code(3));
    says_why(&line, dir.path());
    // Nor for a node of this very process.
    let third = runtime.block_on(common::builder(dir.path()).start());
    says_why(&third.unwrap_err().to_string(), dir.path());

    assert_eq!(runtime.block_on(counter.add(&client, 1)).unwrap(), 4);
    // The lock goes with its process, however that ends.
    node.child.kill();
    let after = Start::new(dir.path()).listen(node.address).ready();
    assert_eq!(runtime.block_on(counter.value(&client)).unwrap(), 4);
    drop(after);
}

fn says_why(text: &str, dir: &Path) {
    for part in [
        "store failed",
        "is in use by process",
        &dir.display().to_string(),
    ] {
        assert!(text.contains(part), "'{part}' is not in {text}");
    }
}
