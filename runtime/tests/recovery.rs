//! Nodes killed between the phases of a commit: real processes, real stores, `kill -9`.
//!
//! A participant that is frozen holds the vote open, so that the others can be killed in
//! between. Whatever dies when, all of the action is there in the end, or nothing of it.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod common;

use std::cell::Cell;
use std::time::Duration;

use common::behaviour::Counter;
use common::process::{NodeProcess, Start, serve};
use common::{PATIENCE, until};
use partha::{
    Action, ActionError, ActionId, ActionOptions, Client, ErrorKind, Outcome, Place, SystemError,
    Uid,
};
use partha_store::{Decision, LmdbStore, ObjectStore, Prepared};
use test_support::{Signal, TempDir, temp_dir};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// What each counter has at the beginning.
const START: i64 = 100;
/// How long an action may take; whoever has not prepared gives it up then.
const DEADLINE: Duration = Duration::from_secs(6);
/// How often a scene is played until it ends as the test wants it.
const TRIES: usize = 5;

type Ended = Result<(), ActionError<SystemError>>;

#[test]
#[ignore = "a process of the other tests"]
fn node_process() {
    serve();
}

/// The nodes by what they do in an action that changes them in this order.
const COORDINATOR: usize = 0;
const PREPARED: usize = 1;
const FROZEN: usize = 2;

/// Three nodes, and a client of all.
struct Scene {
    runtime: Runtime,
    client: Client,
    dirs: [TempDir; 3],
    nodes: Vec<NodeProcess>,
    /// What the actions change.
    counters: Vec<Counter>,
    /// An object of each node that no action changes.
    guides: Vec<Counter>,
}

impl Scene {
    fn open() -> Self {
        let runtime = Runtime::new().unwrap();
        let client = Client::alone().unwrap();
        let dirs = ["recovery-a", "recovery-b", "recovery-c"].map(temp_dir);
        let mut scene = Self {
            nodes: dirs.iter().map(|dir| start(dir).ready()).collect(),
            runtime,
            client,
            dirs,
            counters: Vec::new(),
            guides: Vec::new(),
        };
        for node in &scene.nodes {
            let (client, address) = (&scene.client, node.address.to_string());
            let (counter, guide) = scene.runtime.block_on(async {
                let node = client.locator().introduce(client, &address).await.unwrap();
                let place = Place::Node(node);
                let counter = Counter::create(client, &place, START, partha::Bytes::new())
                    .await
                    .unwrap();
                (
                    counter,
                    Counter::create(client, &place, 0, partha::Bytes::new())
                        .await
                        .unwrap(),
                )
            });
            scene.counters.push(counter);
            scene.guides.push(guide);
        }
        scene.acquaint();
        scene
    }

    /// Makes each living node know where the others are, which a restarted one has forgotten.
    fn acquaint(&self) {
        let living = || {
            let nodes = self.nodes.iter().enumerate();
            nodes.filter(|(_, node)| node.child.exit().is_none())
        };
        for (node, _) in living() {
            for (_, other) in living() {
                let (guide, address) = (&self.guides[node], other.address.to_string());
                self.wait_until(async || guide.meet(&self.client, &address).await.is_ok());
            }
        }
    }

    fn kill(&self, node: usize) {
        self.nodes[node].child.kill();
    }

    fn thaw(&self, node: usize) {
        self.nodes[node].child.signal(Signal::CONT);
    }

    fn restart(&mut self, node: usize, shards: u16) {
        let again = start(&self.dirs[node]).listen(self.nodes[node].address);
        self.nodes[node] = again.shards(shards).ready();
    }

    /// How many actions are in doubt at the node; none if it does not say: that a connection led
    /// to a former life of it may be found out only by asking.
    async fn in_doubt(&self, node: usize) -> Option<u64> {
        let address = self.nodes[node].address.to_string();
        let node = self.client.node_at(&address).await.ok()?;
        let statistics = node.manager().statistics(&self.client).await.ok()?;
        Some(statistics.actions_in_doubt)
    }

    /// The node has no part of any action, and has nobody to tell of what it has decided.
    async fn is_quiet(&self, node: usize) -> bool {
        let address = self.nodes[node].address.to_string();
        let Ok(node) = self.client.node_at(&address).await else {
            return false;
        };
        let actions = node.manager().actions(&self.client, Uid::NIL, 1).await;
        actions.is_ok_and(|actions| actions.is_empty())
    }

    #[track_caller]
    fn wait_until<F: Future<Output = bool>>(&self, holds: impl FnMut() -> F) {
        self.runtime.block_on(until(holds));
    }

    /// Begins an action over all three; the last one freezes before the commit is asked for. On
    /// return the one between has prepared.
    fn begin(&self) -> JoinHandle<Ended> {
        let (client, counters) = (self.client.clone(), self.counters.clone());
        let (called, all_called) = oneshot::channel();
        let (go_on, may_go_on) = oneshot::channel();
        let action = self.runtime.spawn(async move {
            let options = ActionOptions::new().deadline(DEADLINE);
            let body = async |a: &Action| {
                for counter in &counters {
                    counter.add(a, 1).await?;
                }
                called.send(()).unwrap();
                may_go_on.await.unwrap();
                Ok(())
            };
            client.action_with(options, body).await
        });
        if self.runtime.block_on(all_called).is_err() {
            panic!("not even begun: {:?}", self.ended(action));
        }
        self.nodes[FROZEN].child.freeze(PATIENCE);
        go_on.send(()).unwrap();
        self.wait_until(async || {
            assert!(!action.is_finished(), "it ends without the frozen vote");
            self.in_doubt(PREPARED).await == Some(1)
        });
        action
    }

    fn ended(&self, action: JoinHandle<Ended>) -> Ended {
        self.runtime.block_on(action).unwrap()
    }

    /// The coordinator says that the action is aborted, once it is there.
    fn is_aborted(&self, action: ActionId) {
        self.wait_until(async || {
            let outcome = self.client.outcome(action).await;
            assert_ne!(outcome.as_ref().ok(), Some(&Outcome::Committed));
            outcome.is_ok_and(|outcome| outcome == Outcome::Aborted)
        });
    }

    /// The object cannot be had at the node, and whoever asks for it learns why.
    fn is_in_doubt(&self, node: usize) {
        let found = Cell::new(None);
        self.wait_until(async || {
            found.set(self.in_doubt(node).await);
            found.get().is_some()
        });
        assert_eq!(found.get(), Some(1));
        let decides = self.counters[COORDINATOR].uid().node.to_string();
        self.wait_until(async || {
            let read = self.counters[node].value(&self.client).await;
            let error = read.unwrap_err();
            match error.kind() {
                ErrorKind::InDoubt => assert!(error.detail().contains(&decides), "{error}"),
                // The node has been dead before.
                ErrorKind::BindingBroken => return false,
                _ => panic!("{error}"),
            }
            true
        });
    }

    /// All counters have this value, for everybody, and nothing is left of any action, in memory
    /// or in the stores.
    fn end(self, value: i64) {
        for (node, counter) in self.counters.iter().enumerate() {
            self.wait_until(async || self.in_doubt(node).await == Some(0));
            let free = async || counter.value(&self.client).await.is_ok();
            self.wait_until(free);
            let found = self.runtime.block_on(counter.value(&self.client));
            assert_eq!(found.unwrap(), value, "at node {node}");
        }
        // That it is settled is written only after everybody has said that they know.
        for node in 0..3 {
            self.wait_until(async || self.is_quiet(node).await);
        }
        // The stores write in the order they are asked to: what is settled is then on disk.
        for guide in &self.guides {
            let flushed = self.runtime.block_on(guide.add(&self.client, 1));
            flushed.unwrap();
        }
        for (node, dir) in self.dirs.iter().enumerate() {
            self.kill(node);
            let left = left_in(&LmdbStore::open(dir.path()).unwrap());
            assert_eq!(left, Left::default(), "at node {node}");
        }
    }
}

/// Whoever waits for a lock is not to wait for long.
fn start(dir: &TempDir) -> Start {
    Start::new(dir.path()).lock_wait_ms(300)
}

/// What a store has of actions that have not ended for all.
#[derive(Debug, Default, PartialEq)]
struct Left {
    prepared: Vec<Prepared>,
    shadows: usize,
    decisions: Vec<(Uid, Decision)>,
}

fn left_in(store: &LmdbStore) -> Left {
    Left {
        prepared: store.scan_prepared(None, 10).unwrap(),
        shadows: store.scan_shadows(None, 10).unwrap().len(),
        decisions: store.scan_decisions(None, 10).unwrap(),
    }
}

#[test]
fn a_coordinator_killed_before_it_decides_has_aborted() {
    let mut scene = Scene::open();
    let action = scene.begin();
    scene.kill(COORDINATOR);
    scene.is_in_doubt(PREPARED);
    // What is prepared outlives its node, and so does the lock.
    scene.kill(PREPARED);
    scene.restart(PREPARED, 2);
    scene.is_in_doubt(PREPARED);
    scene.thaw(FROZEN);
    scene.restart(COORDINATOR, 2);
    scene.acquaint();
    match scene.ended(action) {
        Err(ActionError::OutcomeUnknown { action, .. }) => {
            scene.is_aborted(action);
        }
        // The coordinator was back before the client gave up asking.
        Err(ActionError::Aborted { .. }) => {}
        other => panic!("{other:?}"),
    }
    scene.end(START);
}

/// Plays until the action commits although one of its participants is dead by then; `scene` is
/// left so. The vote of the one that is killed is on its way then, or lost.
fn commit_without_participant(scene: &mut Scene) {
    for _ in 0..TRIES {
        let action = scene.begin();
        scene.kill(PREPARED);
        scene.thaw(FROZEN);
        match scene.ended(action) {
            Ok(()) => return,
            Err(error) => println!("once more: {error}"),
        }
        scene.restart(PREPARED, 2);
        scene.acquaint();
        scene.wait_until(async || scene.in_doubt(PREPARED).await == Some(0));
    }
    panic!("no action has committed");
}

#[test]
fn a_participant_killed_after_its_vote_learns_that_it_is_committed() {
    let mut scene = Scene::open();
    commit_without_participant(&mut scene);
    // Who decided is killed, too, before the dead one knows.
    scene.kill(COORDINATOR);
    scene.restart(PREPARED, 2);
    scene.is_in_doubt(PREPARED);
    scene.restart(COORDINATOR, 2);
    scene.acquaint();
    scene.end(START + 1);
}

#[test]
fn nodes_that_come_back_with_other_numbers_of_shards_finish_what_they_had_begun() {
    let mut scene = Scene::open();
    commit_without_participant(&mut scene);
    scene.kill(COORDINATOR);
    scene.restart(PREPARED, 5);
    scene.restart(COORDINATOR, 1);
    scene.acquaint();
    scene.end(START + 1);
}
