//! Servants and nodes for the behavioural tests.

#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "each test binary uses a part of it"
)]
#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

pub mod cluster;
pub mod face;
pub mod foreign;
pub mod logs;
pub mod meddler;
mod mover;
mod ops;
pub mod pair;
pub mod process;
pub mod proxy;
pub mod raw;
mod servants;

use std::future::Future;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use partha::{Client, Limits, Node, NodeBuilder, Place};
use tokio::task::LocalSet;

#[rustfmt::skip]
#[path = "../gen/behaviour.rs"]
#[allow(clippy::all, missing_docs, unused, unreachable_pub, reason = "generated code")]
pub mod behaviour;

use behaviour::{Counter, Mover, counter, mover as movers, named, other};
pub use face::{Face, Failure, How, Kind, NOW, Obj};
use mover::MoverServant;
use servants::{CounterServant, NamedServant, OtherServant};
pub use servants::{UNLUCKY, begun, gate};

/// How long to wait for what must come.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Makes one test of each function for each face, and for a node without any.
#[macro_export]
macro_rules! both_faces {
    ($($test:ident)*) => {
        mod native {
            $(#[test]
            fn $test() {
                $crate::common::run(super::$test($crate::common::Kind::Native));
            })*
        }

        mod foreign {
            $(#[test]
            fn $test() {
                $crate::common::run(super::$test($crate::common::Kind::Foreign));
            })*
        }

        mod embedded {
            $(#[test]
            fn $test() {
                $crate::common::run(super::$test($crate::common::Kind::Embedded));
            })*
        }
    };
}

/// Runs a test on this thread; the nodes have threads of their own.
pub fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, test);
}

/// Waits until the condition holds, without keeping the runtime from its work.
#[track_caller]
pub fn until<F: Future<Output = bool>>(mut holds: impl FnMut() -> F) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let start = Instant::now();
        while !holds().await {
            assert!(
                start.elapsed() < PATIENCE,
                "{caller}: the condition never holds"
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Counts the calls that arrive at a node, apart from its own questions.
pub struct Arrivals<'a> {
    face: &'a Face,
    before: u64,
}

impl<'a> Arrivals<'a> {
    /// Begins to count.
    pub async fn count(face: &'a Face) -> Self {
        let before = face.statistics().await.calls;
        Self { face, before }
    }

    /// Waits until this many calls have arrived since the beginning.
    pub async fn reach(&mut self, count: u64) {
        let start = Instant::now();
        loop {
            // The question is a call, too.
            self.before += 1;
            let arrived = self.face.statistics().await.calls - self.before;
            if arrived >= count {
                return;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "{arrived} of {count} calls have arrived"
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// A name for a gate that no other test has.
pub fn new_gate(label: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("{label}-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Waits until this many servants have come to the gate.
#[track_caller]
pub fn arrived(name: &str, count: u64) -> impl Future<Output = ()> {
    until(move || async move { begun(name) >= count })
}

/// Lets this many servants through the gate.
pub fn open(name: &str, count: usize) {
    gate(name).add_permits(count);
}

/// A number nobody else has.
pub fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id()).max(1)
}

/// A node on a folder, with all test classes, not started.
pub fn builder(dir: &Path) -> NodeBuilder {
    with_classes(Node::builder().name("a").data_dir(dir).shards(2))
}

/// The same node with all test classes.
pub fn with_classes(builder: NodeBuilder) -> NodeBuilder {
    builder
        .class(counter::class(CounterServant))
        .class(named::class(NamedServant))
        .class(other::class(OtherServant))
        .class(movers::class(MoverServant))
}

/// The class of counters alone.
pub fn counter_class() -> partha::Class {
    counter::class(CounterServant)
}

/// A node on a folder.
pub async fn node(dir: &Path) -> Node {
    builder(dir).start().await.unwrap()
}

pub async fn node_with(dir: &Path, limits: Limits) -> Node {
    builder(dir).limits(limits).start().await.unwrap()
}

/// A node on a folder, with the face or without any.
pub async fn node_for(kind: Kind, dir: &Path) -> Node {
    node_of(kind, dir, Limits::default()).await
}

pub async fn node_of(kind: Kind, dir: &Path, limits: Limits) -> Node {
    let builder = builder_of(kind, dir).limits(limits);
    builder.start().await.unwrap()
}

/// A node of two shards for the face, to be set further.
pub fn builder_of(kind: Kind, dir: &Path) -> NodeBuilder {
    match kind {
        Kind::Native | Kind::Foreign => builder(dir),
        Kind::Embedded => with_classes(Node::embedded().name("a").data_dir(dir).shards(2)),
    }
}

/// A client process's view of a node, without a naming service.
pub async fn client_of(node: &Node) -> Client {
    let client = Client::alone().unwrap();
    client
        .locator()
        .introduce(&client, &node.address().to_string())
        .await
        .unwrap();
    client
}

/// A new counter at the node.
pub async fn counter(client: &Client, node: &Node, value: i64) -> Counter {
    let place = Place::Node(node.me().node);
    Counter::create(client, &place, value, partha::Bytes::new())
        .await
        .unwrap()
}

/// A new mover at the node.
pub async fn mover(client: &Client, node: &Node) -> Mover {
    let place = Place::Node(node.me().node);
    Mover::create(client, &place).await.unwrap()
}

/// Stops a node in good order.
pub async fn stop(node: Node) {
    node.shutdown(PATIENCE).await.unwrap();
}
