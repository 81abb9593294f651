//! What a dead client leaves behind is found, stopped and set free: real processes, three nodes,
//! and a cluster whose packets get lost.
//!
//! How soon is printed (`--nocapture`); what is asserted is that it was for the right reason: a
//! connection that breaks frees long before the lease could, silence when the lease is over.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod common;

use std::process::Command;
use std::time::{Duration, Instant};

use common::behaviour::{Counter, Mover};
use common::cluster::{counter_at, plan};
use common::meddler::Meddler;
use common::process::{NodeProcess, Start, serve};
use common::{PATIENCE, run, until};
use partha::testkit::Cluster;
use partha::{Client, ErrorKind, NodeHandle, Place, Uid};
use test_support::{Child, Signal, TempDir, temp_dir};
use tokio::task::spawn_local;

const NODES: usize = 3;
/// Objects that the client locks.
const OBJECTS: usize = 100;
/// How long a silent client of these nodes lives, in milliseconds.
const LEASE_MS: u64 = 1_500;
/// The same where it must not be the lease that frees.
const LONG_LEASE_MS: u64 = 5_000;
/// A client that is killed is cleared in a few milliseconds, and 50 are what is promised; this
/// leaves a machine that is busy with other tests its pauses, and is still a tenth of the lease.
const BREAK_MAX: Duration = Duration::from_millis(500);

const ADDRESSES: &str = "PARTHA_TEST_ORPHANS_ADDRESSES";
const LOCKED: &str = "PARTHA_TEST_ORPHANS_LOCKED";
const NESTED: &str = "PARTHA_TEST_ORPHANS_NESTED";
const IDENTITY: &str = "PARTHA_TEST_ORPHANS_IDENTITY";

#[test]
#[ignore = "a process of the other tests"]
fn node_process() {
    serve();
}

fn uids(name: &str) -> Vec<Uid> {
    let text = std::env::var(name).unwrap_or_default();
    let words = text.split_terminator(',');
    words.map(|word| word.parse().unwrap()).collect()
}

/// A client that locks objects in an action, begins calls that will not end, and waits.
#[test]
#[ignore = "a process of the other tests"]
fn client_process() {
    let Ok(addresses) = std::env::var(ADDRESSES) else {
        return;
    };
    run(async {
        let builder = match std::env::var_os(IDENTITY) {
            Some(dir) => Client::builder().identity(dir),
            None => Client::builder(),
        };
        let client = builder.name("orphan-maker").build().unwrap();
        for address in addresses.split(',') {
            client.locator().introduce(&client, address).await.unwrap();
        }
        let action = client.begin();
        for uid in uids(LOCKED) {
            Counter::from_uid(uid).add(&*action, 1).await.unwrap();
        }
        let [mover, free, taken, gated] = uids(NESTED)[..] else {
            println!("> holding");
            return std::future::pending().await;
        };
        let (mover, free) = (Mover::from_uid(mover), Counter::from_uid(free));
        let (taken, gated) = (Counter::from_uid(taken), Counter::from_uid(gated));
        // One servant waits for what its own call waits for at another node, one just waits.
        let nested = mover.transfer(&*action, &free, &taken, 0);
        let at_gate = gated.add_at_gate(&*action, 1, "nobody opens this");
        println!("> holding");
        let _ended = tokio::join!(nested, at_gate);
        panic!("they never end");
    });
}

/// Three nodes with what is to be locked.
struct Scene {
    _dirs: Vec<TempDir>,
    nodes: Vec<NodeProcess>,
    client: Client,
    handles: Vec<NodeHandle>,
    locked: Vec<Counter>,
    nested: [Uid; 4],
}

impl Scene {
    async fn new(lease_ms: u64) -> Self {
        let dirs: Vec<TempDir> = (0..NODES).map(|_| temp_dir("orphans")).collect();
        let start = |dir: &TempDir| Start::new(dir.path()).lease_ms(lease_ms).ready();
        let nodes: Vec<NodeProcess> = dirs.iter().map(start).collect();
        let client = Client::alone().unwrap();
        let (mut handles, mut places) = (Vec::new(), Vec::new());
        for node in &nodes {
            let address = node.address.to_string();
            let id = client.locator().introduce(&client, &address).await;
            places.push(Place::Node(id.unwrap()));
            handles.push(client.node_at(&address).await.unwrap());
        }
        let counter = async |place: usize| {
            let made = Counter::create(&client, &places[place], 0, partha::Bytes::new()).await;
            made.unwrap()
        };
        let mut locked = Vec::new();
        for number in 0..OBJECTS {
            locked.push(counter(number % NODES).await);
        }
        // The nodes have to know each other for calls among their objects.
        for counter in &locked[..NODES] {
            for node in &nodes {
                counter
                    .meet(&client, &node.address.to_string())
                    .await
                    .unwrap();
            }
        }
        let mover = Mover::create(&client, &places[0]).await.unwrap();
        let (free, taken, gated) = (counter(1).await, counter(2).await, counter(1).await);
        let nested = [mover.uid(), free.uid(), taken.uid(), gated.uid()];
        Self {
            _dirs: dirs,
            nodes,
            client,
            handles,
            locked,
            nested,
        }
    }

    /// A client process that holds the locks, with its nested calls running.
    async fn holder(&self) -> Child {
        let listed = |uids: &mut dyn Iterator<Item = Uid>| {
            let words: Vec<String> = uids.map(|uid| uid.to_string()).collect();
            words.join(",")
        };
        let addresses = self.nodes.iter().map(|node| node.address.to_string());
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--ignored", "--exact", "client_process", "--nocapture"]);
        command.env(ADDRESSES, addresses.collect::<Vec<_>>().join(","));
        command.env(LOCKED, listed(&mut self.locked.iter().map(Counter::uid)));
        command.env(NESTED, listed(&mut self.nested.iter().copied()));
        let child = Child::spawn("client", &mut command);
        child.wait_for_line(PATIENCE, |line| line.contains("> holding"));
        // The objects, the mover, what it has taken from, and what is at the gate; the mover's
        // second call waits.
        until(async || self.locks().await == (OBJECTS + 3 + 1, 1)).await;
        child
    }

    /// How many objects are locked at all nodes, and how many calls wait for one.
    async fn locks(&self) -> (usize, usize) {
        locks(&self.client, &self.handles).await
    }

    /// Waits until nothing is locked but what this end has, and says how long that took.
    async fn free_after(&self, since: Instant) -> Duration {
        until(async || self.locks().await == (1, 0)).await;
        since.elapsed()
    }

    /// Everything is as before, and can be used.
    async fn is_as_before(&self, sessions: usize) {
        for counter in &self.locked {
            assert_eq!(counter.add(&self.client, 0).await.unwrap(), 0);
        }
        let mover = Mover::from_uid(self.nested[0]);
        assert_eq!(mover.moves(&self.client).await.unwrap(), 0);
        let (mut killed, mut actions) = (0, 0);
        for handle in &self.handles {
            let figures = handle.manager().statistics(&self.client).await.unwrap();
            killed += figures.orphans_killed;
            actions += figures.actions_active;
            let known = handle.manager().sessions(&self.client, 0, 100);
            let clients = known.await.unwrap();
            let makers = clients.iter().filter(|it| it.name == "orphan-maker");
            assert_eq!(makers.count(), sessions);
        }
        // The one at the gate; the mover too, unless it heard before that its call was refused.
        assert!((1..=2).contains(&killed), "{killed} servants were stopped");
        assert_eq!(actions, 1);
    }
}

/// How many objects are locked at the nodes, and how many calls wait for one.
async fn locks(client: &Client, handles: &[NodeHandle]) -> (usize, usize) {
    let mut sum = (0, 0);
    for handle in handles {
        let locks = handle.manager().locks(client, Uid::NIL, 1000, false);
        let locks = locks.await.unwrap();
        sum.0 += locks.len();
        sum.1 += locks.iter().map(|lock| lock.waiters.len()).sum::<usize>();
    }
    sum
}

#[test]
fn what_a_killed_client_held_at_three_nodes_is_free_at_once() {
    run(async {
        let scene = Scene::new(LONG_LEASE_MS).await;
        let mine = scene.client.begin();
        let taken = Counter::from_uid(scene.nested[2]);
        taken.add(&*mine, 1).await.unwrap();
        let client = scene.holder().await;
        let start = Instant::now();
        client.kill();
        let took = scene.free_after(start).await;
        println!("{OBJECTS} locks at {NODES} nodes were free {took:.1?} after the kill");
        // Nothing but the end of its connections can have told of it so soon.
        assert!(took < BREAK_MAX, "{took:?}");
        scene.is_as_before(0).await;
        mine.abort();
    });
}

#[test]
fn what_a_frozen_client_held_is_free_when_its_lease_is_over() {
    run(async {
        let scene = Scene::new(LEASE_MS).await;
        let mine = scene.client.begin();
        let taken = Counter::from_uid(scene.nested[2]);
        taken.add(&*mine, 1).await.unwrap();
        let client = scene.holder().await;
        let start = Instant::now();
        client.freeze(PATIENCE);
        let took = scene.free_after(start).await;
        println!("they were free {took:.1?} after the stop, with a lease of {LEASE_MS} ms");
        // It was heard of shortly before, so not much earlier; a second later at most.
        assert!(took > Duration::from_millis(LEASE_MS / 2), "{took:?}");
        assert!(took < Duration::from_millis(LEASE_MS + 1_000), "{took:?}");
        scene.is_as_before(0).await;
        // It goes on, finds its connections gone, and cannot do any harm.
        client.signal(Signal::CONT);
        client.wait(PATIENCE);
        scene.is_as_before(0).await;
        mine.abort();
    });
}

/// The client of an identity, with its locks, whose end the node does not hear of.
async fn half_open(address: &str, identity: &std::path::Path, locked: Uid) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "client_process", "--nocapture"]);
    command.env(ADDRESSES, address).env(IDENTITY, identity);
    command.env(LOCKED, locked.to_string());
    let child = Child::spawn("client", &mut command);
    // The relay is on this thread.
    let holds = || child.stdout().iter().any(|line| line.contains("> holding"));
    until(async || holds()).await;
    child
}

#[test]
fn a_client_that_is_back_clears_what_its_earlier_life_left() {
    run(async {
        let dir = temp_dir("orphans");
        let node = Start::new(dir.path()).ready();
        let identity = dir.path().join("identity");
        let client = Client::alone().unwrap();
        let address = node.address.to_string();
        let id = client.locator().introduce(&client, &address).await.unwrap();
        let made = Counter::create(&client, &Place::Node(id), 7, partha::Bytes::new()).await;
        let counter = made.unwrap();

        // The relay goes on to hold the node's end of what the client's death closes.
        let relay = Meddler::new(node.address).await;
        relay.keep();
        let first = half_open(&relay.address(), &identity, counter.uid()).await;
        first.kill();
        let soon = client.call().deadline(Duration::from_millis(200));
        let error = counter.add(&soon, 1).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Deadline, "{error}");

        let start = Instant::now();
        let again = Client::builder().identity(&identity).build().unwrap();
        again.locator().introduce(&again, &address).await.unwrap();
        assert_eq!(counter.add(&again, 1).await.unwrap(), 8);
        let took = start.elapsed();
        println!("the next life was served {took:.1?} after it began");
        assert!(took < Duration::from_secs(3), "{took:?}");
    });
}

/// A client whose packets are dropped from some moment on, while it holds locks at three nodes
/// and its calls run and wait there; its end lives on, and believes in its action.
async fn cut_off(drop_packets: impl Fn(&Cluster, &str)) {
    const EACH: usize = 4;
    let (heartbeat, lease) = (Duration::from_millis(LEASE_MS / 5), LEASE_MS);
    let plan = plan(NODES).lease(heartbeat, Duration::from_millis(lease));
    let cluster = plan.start().await.unwrap();
    let (client, far) = (cluster.client(), cluster.client_named("far"));
    let names = ["a", "b", "c"];
    let handles = names.map(|name| cluster.node(name).handle());
    let mut locked = Vec::new();
    for number in 0..NODES * EACH {
        let place = cluster.at(names[number % NODES]);
        locked.push(counter_at(&client, &place, 0).await);
    }
    let mover = Mover::create(&client, &cluster.at("a")).await.unwrap();
    let free = counter_at(&client, &cluster.at("b"), 0).await;
    let taken = counter_at(&client, &cluster.at("c"), 0).await;
    let gated = counter_at(&client, &cluster.at("b"), 0).await;
    let mine = client.begin();
    taken.add(&*mine, 1).await.unwrap();

    let action = far.begin();
    for counter in &locked {
        counter.add(&*action, 1).await.unwrap();
    }
    let calls = {
        let (mover, gated) = (mover.clone(), gated.clone());
        spawn_local(async move {
            // One servant waits for what its own call waits for at another node, one just waits.
            let nested = mover.transfer(&*action, &free, &taken, 0);
            let at_gate = gated.add_at_gate(&*action, 1, "nobody opens this gate");
            let ended = tokio::join!(nested, at_gate);
            drop(ended);
            std::future::pending::<()>().await;
        })
    };
    until(async || locks(&client, &handles).await == (NODES * EACH + 3 + 1, 1)).await;
    let start = Instant::now();
    for name in names {
        drop_packets(&cluster, name);
    }
    until(async || locks(&client, &handles).await == (1, 0)).await;
    let took = start.elapsed();
    println!("free {took:.1?} after its packets were dropped, with a lease of {lease} ms");
    assert!(took > Duration::from_millis(lease / 2), "{took:?}");
    assert!(took < Duration::from_millis(lease + 1_000), "{took:?}");
    mine.abort();
    for counter in &locked {
        assert_eq!(counter.add(&client, 0).await.unwrap(), 0);
    }
    assert_eq!(mover.moves(&client).await.unwrap(), 0);
    assert_eq!(gated.value(&client).await.unwrap(), 0);
    assert!(!calls.is_finished(), "its action lives, as far as it knows");
    calls.abort();
    cluster.stop().await.unwrap();
}

#[test]
fn what_a_client_held_that_is_cut_off_is_free_when_its_lease_is_over() {
    run(cut_off(|cluster, node| cluster.partition("far", node)));
}

#[test]
fn so_it_is_when_only_what_the_client_says_gets_lost() {
    run(cut_off(|cluster, node| cluster.silence("far", node)));
}
