//! What a node leaves at another one that is killed while it sends an object there: the other one
//! asks until the node is back, hears that the move has not happened, and is rid of all of it.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod common;

use std::time::Duration;

use common::behaviour::Counter;
use common::process::{NodeProcess, Start, serve};
use common::{PATIENCE, until};
use futures_util::StreamExt as _;
use futures_util::stream;
use partha::system::connection_manager::InspectError;
use partha::system::{ActionDescription, ActionPhase};
use partha::{Bytes, Client, NodeHandle, NodeId, Place, Uid};
use partha_store::{CLEAR_AT_ONCE, LmdbStore, ObjectStore};
use test_support::{TempDir, temp_dir};

const WAIT: Duration = Duration::from_secs(20);
/// Of the object: more than are removed at once.
const ROWS: usize = CLEAR_AT_ONCE + 1_000;
/// Bytes in the key of a row, so that they are several pages.
const KEY: usize = 300;
/// Bytes of its state.
const STATE: u32 = 2 << 20;
/// Rows that are made at a time.
const TOGETHER: usize = 64;
/// Attempts at hitting the source between the first page and its decision.
const ATTEMPTS: usize = 20;

#[test]
#[ignore = "a process of the other tests"]
fn node_process() {
    serve();
}

/// Two nodes, and an object with many rows at the first.
struct Scene {
    client: Client,
    dirs: [TempDir; 2],
    nodes: [NodeProcess; 2],
    ids: [NodeId; 2],
    /// An object of each node that does not move.
    guides: Vec<Counter>,
    object: Counter,
}

impl Scene {
    async fn open() -> Self {
        let dirs = [temp_dir("left-a"), temp_dir("left-b")];
        let nodes = [0, 1].map(|n: usize| Start::new(dirs[n].path()).ready());
        let client = Client::alone().unwrap();
        let (mut ids, mut guides) = (vec![], vec![]);
        for node in &nodes {
            let address = node.address.to_string();
            let id = client.locator().introduce(&client, &address).await.unwrap();
            ids.push(id);
            let guide = Counter::create(&client, &Place::Node(id), 0, Bytes::new()).await;
            guides.push(guide.unwrap());
        }
        let object = Counter::create(&client, &Place::Node(ids[0]), 5, Bytes::new()).await;
        let object = object.unwrap();
        let put = (0..ROWS).map(|row| {
            let (object, client) = (object.clone(), client.clone());
            let key = format!("{row:0KEY$}");
            async move { object.put_row(&client, &key, row as i64).await.unwrap() }
        });
        stream::iter(put)
            .buffered(TOGETHER)
            .collect::<Vec<_>>()
            .await;
        object.grow(&client, STATE).await.unwrap();
        let ids = [ids[0], ids[1]];
        let scene = Self {
            client,
            dirs,
            nodes,
            ids,
            guides,
            object,
        };
        scene.introduce().await;
        scene
    }

    /// Makes the nodes know each other, which a restarted one has forgotten.
    async fn introduce(&self) {
        for (guide, other) in self.guides.iter().zip([1, 0]) {
            let address = self.nodes[other].address.to_string();
            until(async || {
                let met = self.client.locator().introduce(&self.client, &address);
                met.await.is_ok() && guide.meet(&self.client, &address).await.is_ok()
            })
            .await;
        }
    }

    async fn node(&self, n: usize) -> NodeHandle {
        let address = self.nodes[n].address.to_string();
        self.client.node_at(&address).await.unwrap()
    }

    async fn has_object(&self, n: usize) -> bool {
        let (node, object) = (self.node(n).await, self.object.uid());
        let found = node.manager().inspect(&self.client, object).await;
        !matches!(
            found,
            Err(InspectError::NoSuchObject(_) | InspectError::System(_))
        )
    }

    /// The parts that actions have at a node.
    async fn parts(&self, n: usize) -> Vec<ActionDescription> {
        let node = self.node(n).await;
        let parts = node.manager().actions(&self.client, Uid::NIL, 100);
        parts.await.unwrap()
    }

    fn kill(&self, n: usize) {
        self.nodes[n].child.kill();
        self.nodes[n].child.wait(PATIENCE);
    }

    fn restart(&mut self, n: usize) {
        let start = Start::new(self.dirs[n].path());
        self.nodes[n] = start.listen(self.nodes[n].address).ready();
    }

    async fn move_to(&self, n: usize) -> partha::Result<u64> {
        let uid = self.object.uid();
        self.client.move_object(uid, self.ids[n], WAIT).await
    }

    /// Kills the source when the first page is at the target, until that hits it before it has
    /// decided. The target is left with what came.
    async fn kill_the_source(&mut self) {
        for _ in 0..ATTEMPTS {
            let moving = {
                let (client, uid, to) = (self.client.clone(), self.object.uid(), self.ids[1]);
                tokio::spawn(async move { client.move_object(uid, to, WAIT).await })
            };
            let target = self.node(1).await;
            let staged = async || {
                let parts = target.manager().actions(&self.client, Uid::NIL, 100);
                !parts.await.unwrap().is_empty()
            };
            while !staged().await && !moving.is_finished() {}
            self.kill(0);
            moving.abort();
            let store = LmdbStore::open(self.dirs[0].path()).unwrap();
            let is_here = store.read_state(self.object.uid()).unwrap().is_some();
            drop(store);
            if is_here && !self.parts(1).await.is_empty() {
                return;
            }
            // It was too early, or too late.
            self.restart(0);
            self.introduce().await;
            until(async || self.parts(1).await.is_empty()).await;
            self.move_to(0).await.unwrap();
        }
        panic!("{ATTEMPTS} times the source had decided before it was killed");
    }

    /// The target keeps what came, and knows who can tell what becomes of it.
    async fn is_in_doubt(&self) {
        until(async || {
            let told = self.node(1).await.manager().statistics(&self.client).await;
            told.is_ok_and(|told| told.actions_in_doubt == 1)
        })
        .await;
        let parts = self.parts(1).await;
        let [part] = &parts[..] else {
            panic!("{parts:?}");
        };
        let coordinator = part.coordinator.as_ref().map(|site| NodeId(site.node));
        let found = (part.phase, coordinator);
        assert_eq!(found, (ActionPhase::Prepared, Some(self.ids[0])));
    }

    /// The source is back: nothing is left, the object serves there, and it may go.
    async fn is_rid_of_it(&mut self) {
        self.restart(0);
        self.introduce().await;
        until(async || self.parts(1).await.is_empty()).await;
        assert_eq!(
            [self.has_object(0).await, self.has_object(1).await],
            [true, false]
        );
        assert_eq!(self.object.add(&self.client, 1).await.unwrap(), 6);
        // Nobody waits until what came is gone from the disk: it goes with what is written next.
        self.guides[1].add(&self.client, 1).await.unwrap();
        self.kill(1);
        let store = LmdbStore::open(self.dirs[1].path()).unwrap();
        assert_eq!(store.scan_prepared(None, 10).unwrap(), []);
        assert_eq!(store.scan_shadows(None, 10).unwrap(), []);
        assert_eq!(store.count_rows(self.object.uid(), 1).unwrap(), 0);
        drop(store);
        self.restart(1);
        self.introduce().await;
        // What is left of its rows there goes by itself, and is waited for.
        self.move_to(1).await.unwrap();
        assert_eq!(
            [self.has_object(0).await, self.has_object(1).await],
            [false, true]
        );
        assert_eq!(self.object.add(&self.client, 1).await.unwrap(), 7);
        let mut rows = 0;
        let mut after = String::new();
        loop {
            let page = self.object.rows(&self.client, &after, 1_000).await.unwrap();
            let Some(last) = page.last() else { break };
            (rows, after) = (rows + page.len(), last.name.clone());
        }
        assert_eq!(rows, ROWS);
    }
}

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(test)
}

#[test]
fn what_a_killed_source_has_sent_goes_when_it_is_back() {
    run(async {
        let mut scene = Scene::open().await;
        scene.kill_the_source().await;
        scene.is_in_doubt().await;
        // Others are not held up.
        let guide = &scene.guides[1];
        assert_eq!(guide.add(&scene.client, 1).await.unwrap(), 1);
        scene.is_rid_of_it().await;
    });
}

#[test]
fn what_a_killed_source_has_sent_is_known_after_a_restart_of_the_target() {
    run(async {
        let mut scene = Scene::open().await;
        scene.kill_the_source().await;
        scene.kill(1);
        scene.restart(1);
        scene.is_in_doubt().await;
        scene.is_rid_of_it().await;
    });
}
