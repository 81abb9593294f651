//! Nodes that die at each named point of the end of an action, and come back.
//!
//! For each point: two node processes on real stores, transfers between their objects, one of
//! them dies there and is started again. Afterwards nothing is in doubt, no lock is left, each
//! transfer that was acknowledged has happened once, one whose outcome was unknown has happened
//! once or not at all as its coordinator says, and the total is what it was.
//!
//! The points are there only if the feature `crash-points` is on:
//! `cargo xtask crash-points` does that, with a target folder of its own.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod common;
#[path = "common/town.rs"]
mod town;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::Instant;

use common::process::{NodeProcess, Start, serve};
use common::{PATIENCE, until};
use partha::{Action, SystemError};
use partha_store::{LmdbStore, ObjectStore, crash_point};
use test_support::{Exit, TempDir, temp_dir};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use town::{Fate, Fates, PAIRS, Phase, Stopper, Town, Transfer};

/// Points that are gone through at the same time; they wait for disks and clocks most of it.
const LANES: usize = 2;
/// Names of points that are wanted begin with one of these, if there are any.
const ONLY: &str = "PARTHA_CRASH_POINTS_ONLY";
/// From 1: what varies between rounds is when the point is reached, and who else dies.
const ROUND: &str = "PARTHA_CRASH_POINTS_ROUND";

/// Points after which the node stays away until clients have given up asking it for outcomes;
/// it takes some seconds.
const LONG_GONE: [&str; 3] = ["send/prepare/after", "store/decide/after", "ended/before"];

/// How the process is brought to the point.
enum Scene {
    /// Transfers in both directions: any node coordinates some and takes part in others.
    Transfers,
    /// A coordinator dies before it decides, and those who have prepared are left in doubt: the
    /// point is passed by one of them.
    InDoubt,
    /// The same, and the point is passed by the coordinator in its next life.
    Asked,
    /// One of three participants has lost its part, so the action is aborted.
    Refused,
}

fn round() -> u32 {
    std::env::var(ROUND).map_or(1, |round| round.parse().unwrap())
}

fn scene(point: &str) -> Scene {
    match point.split('/').nth(1).unwrap() {
        "query" | "undo" => Scene::InDoubt,
        "verdict" => Scene::Asked,
        "abort" => Scene::Refused,
        _ => Scene::Transfers,
    }
}

#[test]
#[ignore = "a process of the other tests"]
fn node_process() {
    serve();
}

#[test]
#[cfg_attr(
    not(feature = "crash-points"),
    ignore = "without crash points; `cargo xtask crash-points` compiles them in"
)]
fn nodes_recover_from_every_crash_point() {
    let only = std::env::var(ONLY).unwrap_or_default();
    let wanted = |point: &&&str| only.split(',').any(|start| point.starts_with(start));
    // When the store writes its log to LMDB depends on how much there is, and no object moves or
    // has copies here; the store's own tests and `binder/tests/copies_crash_points.rs` go through
    // these.
    let not_by_itself = [
        "store/checkpoint/",
        "store/arrive/",
        "store/depart/",
        "store/stage/",
        "store/apply/",
        "store/snapshot/",
        "group/",
    ];
    let by_itself = |point: &&&str| !not_by_itself.iter().any(|start| point.starts_with(start));
    let points = crash_point::ALL.iter().filter(by_itself);
    let points: Vec<_> = points.filter(wanted).copied().collect();
    assert!(!points.is_empty(), "no point is called like '{only}'");
    let next = Mutex::new(points.iter());
    let failed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..LANES.min(points.len()) {
            scope.spawn(|| {
                loop {
                    let Some(point) = next.lock().unwrap().next() else {
                        return;
                    };
                    let start = Instant::now();
                    match catch_unwind(AssertUnwindSafe(|| die_at(point))) {
                        Ok(line) => println!("{point}: {line}, {:.1?}", start.elapsed()),
                        Err(_) => failed.lock().unwrap().push(*point),
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "failed at {}", failed.join(", "));
}

/// Two nodes, one of which is to die.
struct Nodes {
    dirs: [TempDir; 2],
    running: [NodeProcess; 2],
}

impl Nodes {
    /// Node `n` gets ready to die where `points[n]` says.
    fn start(points: [Option<(&str, u32)>; 2]) -> Self {
        let dirs = ["crash-point-a", "crash-point-b"].map(temp_dir);
        let running = [0, 1].map(|node: usize| {
            let start = Start::new(dirs[node].path());
            match points[node] {
                Some((point, n)) => start.crash_point(point, n).ready(),
                None => start.ready(),
            }
        });
        Self { dirs, running }
    }

    /// Waits until the node has died at the point.
    fn died(&self, node: usize, point: &str) {
        let child = &self.running[node].child;
        let said = format!("crash point {point}");
        child.wait_for_log(PATIENCE, |line| line == said);
        const SIGABRT: i32 = 6;
        assert_eq!(child.wait(PATIENCE), Exit::Signal(SIGABRT));
    }

    /// Starts a node that is gone.
    fn restart(&mut self, node: usize) {
        self.running[node] = self.again(node).ready();
    }

    /// Starts a node that is gone, to die again, perhaps before it says that it serves.
    fn restart_to_die(&mut self, node: usize, point: &str) {
        self.running[node].child = self.again(node).crash_point(point, 1).spawn();
    }

    fn again(&self, node: usize) -> Start {
        Start::new(self.dirs[node].path()).listen(self.running[node].address)
    }

    /// Ends both, and looks at what is in their stores: nothing is left of any action but its
    /// outcome.
    fn look_inside(&self) {
        for (node, dir) in self.running.iter().zip(&self.dirs) {
            node.child.kill();
            node.child.wait(PATIENCE);
            let store = LmdbStore::open(dir.path()).unwrap();
            assert_eq!(store.scan_prepared(None, 10).unwrap(), []);
            assert_eq!(store.scan_shadows(None, 10).unwrap(), []);
            assert_eq!(store.scan_decisions(None, 10).unwrap(), []);
        }
    }
}

/// Goes through one point; says what came of it.
fn die_at(point: &'static str) -> String {
    let runtime = Runtime::new().unwrap();
    let (nodes, town, mut transfers) = match scene(point) {
        Scene::Transfers => transfers(&runtime, point),
        Scene::InDoubt | Scene::Asked => in_doubt(&runtime, point),
        Scene::Refused => refused(&runtime, point),
    };
    let fates = Fates::of(&transfers);
    let back = Instant::now();
    runtime.block_on(async {
        town.settle(&mut transfers).await;
        town.quiet().await;
    });
    let recovered = back.elapsed();
    runtime.block_on(async {
        town.audit(&transfers).await;
        town.once_more(&mut transfers).await;
        town.quiet().await;
        town.audit(&transfers).await;
        town.flush().await;
    });
    nodes.look_inside();
    format!("{fates}, all settled {recovered:.1?} after the last of them")
}

impl Drop for Nodes {
    fn drop(&mut self) {
        if thread::panicking() {
            let [a, b] = &self.running;
            eprintln!("the nodes said:{}{}", a.child, b.child);
        }
    }
}

type Left = (Nodes, Town, Vec<Transfer>);

/// Runs transfers until `dying` returns, which ends with all nodes there, and then one more of
/// each worker.
fn beside_transfers(
    runtime: &Runtime,
    nodes: &mut Nodes,
    workers: usize,
    dying: impl FnOnce(&mut Nodes, &Town, &Phase),
) -> (Town, Vec<Transfer>) {
    let town = runtime.block_on(Town::open(&nodes.running));
    let phase = Phase::run();
    let transfers = thread::scope(|scope| {
        let stopper = Stopper(&phase);
        let (town, phase) = (&town, &phase);
        let work = |worker| scope.spawn(move || runtime.block_on(town.work(worker, phase)));
        let workers: Vec<_> = (0..workers).map(work).collect();
        dying(nodes, town, phase);
        runtime.block_on(town.introduce());
        phase.one_more();
        let transfers = workers.into_iter().flat_map(|w| w.join().unwrap());
        let transfers = transfers.collect();
        drop(stopper);
        transfers
    });
    (town, transfers)
}

fn transfers(runtime: &Runtime, point: &'static str) -> Left {
    let round = round();
    // Not at the first time, so that something was acknowledged before.
    let mut nodes = Nodes::start([Some((point, 4 + round)), None]);
    let (town, transfers) = beside_transfers(runtime, &mut nodes, PAIRS, |nodes, _, phase| {
        nodes.died(0, point);
        if round.is_multiple_of(2) {
            nodes.running[1].child.kill();
        }
        if LONG_GONE.contains(&point) {
            phase.short_of_time();
        }
        if round.is_multiple_of(2) {
            nodes.restart(1);
        }
        nodes.restart(0);
    });
    let committed = |transfer: &&Transfer| matches!(transfer.fate, Fate::Committed);
    assert!(transfers.iter().filter(committed).count() > PAIRS);
    (nodes, town, transfers)
}

fn in_doubt(runtime: &Runtime, point: &'static str) -> Left {
    const UNDECIDED: &str = "store/decide/before";
    let (second, third) = match scene(point) {
        Scene::Asked => (Some(point), None),
        Scene::Transfers | Scene::InDoubt | Scene::Refused => (None, Some((point, 1))),
    };
    let mut nodes = Nodes::start([Some((UNDECIDED, 4 + round())), third]);
    let (town, transfers) = beside_transfers(runtime, &mut nodes, PAIRS, |nodes, town, _| {
        nodes.died(0, UNDECIDED);
        match second {
            Some(point) => {
                nodes.restart_to_die(0, point);
                nodes.died(0, point);
                nodes.restart(0);
            }
            None => {
                nodes.restart(0);
                // Who is asked has forgotten where to answer to.
                let gone = || nodes.running[1].child.exit().is_some();
                let known = async || gone() || town.try_introduce(0).await;
                runtime.block_on(until(known));
                nodes.died(1, point);
                nodes.restart(1);
            }
        }
    });
    (nodes, town, transfers)
}

fn refused(runtime: &Runtime, point: &'static str) -> Left {
    let mut nodes = Nodes::start([Some((point, 1)), None]);
    let mut town = runtime.block_on(Town::open(&nodes.running));
    let second = runtime.block_on(town.in_another_shard());
    let ended = thread::scope(|scope| {
        let (called, all_called) = mpsc::channel();
        let (go_on, may_go_on) = oneshot::channel();
        let (town, second) = (&town, &second);
        let acting = scope.spawn(move || {
            let (first, third) = (&town.accounts[0][0], &town.accounts[1][0]);
            runtime.block_on(town.client.action(async |action: &Action| {
                first.add(action, -3).await?;
                second.add(action, 1).await?;
                third.add(action, 2).await?;
                called.send(action.id().uid()).unwrap();
                may_go_on.await.unwrap();
                Ok::<_, SystemError>(())
            }))
        });
        let action = all_called.recv().unwrap();
        // The third part is lost, and so is the action; whoever runs it does not know.
        runtime.block_on(async {
            let address = nodes.running[1].address.to_string();
            let node = town.client.node_at(&address).await.unwrap();
            let aborted = node.manager().abort_action(&town.client, action).await;
            assert_eq!(aborted.unwrap(), 1);
        });
        go_on.send(()).unwrap();
        nodes.died(0, point);
        nodes.restart(0);
        runtime.block_on(town.introduce());
        acting.join().unwrap()
    });
    let fate = town::fate(ended);
    assert!(matches!(fate, Fate::Aborted(_)), "{fate:?}");
    runtime.block_on(async {
        town.quiet().await;
        assert_eq!(second.value(&town.client).await.unwrap(), 0);
    });
    (nodes, town, Vec::new())
}
