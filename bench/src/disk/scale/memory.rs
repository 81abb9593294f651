//! Memory of a node: for objects that nobody uses, for those in memory, for sessions, for
//! connections.
//!
//! What is told is what grows of the process's memory that no file backs, for each of many; so the
//! grain of the heap is spread over all of them.

use std::cell::Cell;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use futures_util::StreamExt as _;
use futures_util::stream;
use partha::{Client, NodeHandle};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::{first_uids, store_cells};
use crate::disk::node::{self, Wishes};
use crate::disk::role::{self, Server};
use crate::disk::stage::{self, Lazy};
use crate::figure::{Found, Metric, Parameters};
use crate::generated::null;
use crate::process::Running;
use crate::suite::{Benchmark, Effort, Plan, Setting, View};
use crate::usage;

/// Objects in a store that nobody uses.
const PASSIVE: u64 = 100_000;
/// Objects brought into memory.
const ACTIVE: u64 = 10_000;
/// Clients with a session each.
const SESSIONS: usize = 400;
/// Of the node whose connections are looked at: so that nobody waits long for it.
const HEARTBEAT: Duration = Duration::from_millis(200);
/// Looks at an idle node until its memory is the same twice.
const LOOKS_MAX: u32 = 20;
/// Calls under way at once while objects are brought into memory.
const TOGETHER: usize = 64;

pub(crate) const BENCHMARK: Benchmark = Benchmark {
    name: "memory",
    about: "what a node's memory grows by",
    view: View {
        reference: None,
        metrics: &[Metric::BytesEach],
        tall: true,
        plots: &[],
    },
    on_request: false,
    plan,
};

/// What a figure is of.
pub(crate) const PASSIVE_OBJECT: &str = "passive object";
/// Without the encoded state.
pub(crate) const ACTIVE_OBJECT: &str = "active object, over its state";
/// With one connection, without what that takes.
pub(crate) const SESSION: &str = "session";
/// One more of a session that has one.
pub(crate) const CONNECTION: &str = "idle connection";

/// Clients that connect and stay.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Sessions {
    /// Where the node listens; it has two shards.
    address: String,
    count: usize,
}

/// Objects to be brought into memory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Activate {
    /// Where their node listens.
    address: String,
    objects: Vec<String>,
}

fn plan(setting: &Setting) -> anyhow::Result<Plan> {
    let rounds = setting.rounds.min(3);
    let small = match setting.effort {
        Effort::Smoke => 10,
        _ => 1,
    };
    let pair = Lazy::new(move || Pair::start(PASSIVE / small, ACTIVE / small));
    let case = |of: &'static str, takes_ms: u64, run: fn(&Pair) -> anyhow::Result<f64>| {
        let parameters = Parameters::default().with("of", of);
        let often = (rounds, Duration::from_millis(takes_ms));
        pair.case("partha", parameters, often, move |pair| {
            Ok(Found::default().with(Metric::BytesEach, run(pair)?))
        })
    };
    let cases = vec![
        case(PASSIVE_OBJECT, 500, Pair::passive_bytes),
        case(ACTIVE_OBJECT, 1_500, Pair::active_bytes),
        case(SESSION, 5_000, Pair::session_bytes),
        case(CONNECTION, 10, Pair::connection_bytes),
    ];
    Ok(Plan {
        cases,
        ..Plan::default()
    })
}

/// The folders of a store with objects and of one without.
struct Pair {
    passive: u64,
    active: Vec<String>,
    /// What a run for sessions has found of connections.
    connection_bytes: Cell<Option<f64>>,
    folder: TempDir,
}

impl Pair {
    fn start(passive: u64, active: u64) -> anyhow::Result<Self> {
        let folder = stage::folder()?;

        let filled = store_cells(&folder.path().join("full"), passive)?;
        Ok(Self {
            passive,
            active: first_uids(&filled, active),
            connection_bytes: Cell::default(),
            folder,
        })
    }

    fn node(&self, name: &str) -> anyhow::Result<Running> {
        let wishes = Wishes {
            shards: 2,
            heartbeat_ms: Some(HEARTBEAT.as_millis() as u64),
            ..Wishes::alone(self.folder.path().join(name))
        };
        let node = role::start("a node", &Server::Node(wishes))?;
        // It has been asked something, so that all that it needs once is there.
        activate_all(&node, &[])?;
        Ok(node)
    }

    fn passive_bytes(&self) -> anyhow::Result<f64> {
        let full = heap(&self.node("full")?)?;
        let empty = heap(&self.node("empty")?)?;
        Ok((full - empty).max(0.0) / self.passive as f64)
    }

    fn active_bytes(&self) -> anyhow::Result<f64> {
        let node = self.node("full")?;
        // What calls need, whatever they call, is there as well.
        let (first, rest) = self.active.split_at(self.active.len() / 10);
        let first = activate_all(&node, first)?;
        let before = heap(&node)?;
        let all = activate_all(&node, rest)?;
        ensure!(
            all.objects == self.active.len() as u64,
            "{} objects are in memory, expected {}",
            all.objects,
            self.active.len()
        );
        let grown = heap(&node)? - before - (all.state_bytes - first.state_bytes) as f64;
        Ok(grown / rest.len() as f64)
    }

    /// Of a session; of its second connection, too, which is kept for the next case.
    fn session_bytes(&self) -> anyhow::Result<f64> {
        let node = self.node("empty")?;
        let before = idle_heap(&node)?;
        let sessions = Sessions {
            address: node.address().to_owned(),
            count: SESSIONS,
        };
        let mut client = role::stay("many clients", &role::Client::Sessions(sessions))?;
        let with_sessions = idle_heap(&node)?;
        client.tell("more")?;
        let with_more = idle_heap(&node)?;
        let connection = (with_more - with_sessions) / SESSIONS as f64;
        self.connection_bytes.set(Some(connection));
        let both = (with_sessions - before) / SESSIONS as f64;
        Ok((both - connection).max(0.0))
    }

    fn connection_bytes(&self) -> anyhow::Result<f64> {
        if self.connection_bytes.get().is_none() {
            self.session_bytes()?;
        }
        let found = self.connection_bytes.take();
        found.context("a run for sessions finds what a connection takes")
    }
}

/// The heap once all connections have been idle for a heartbeat and have given back what they can.
fn idle_heap(node: &Running) -> anyhow::Result<f64> {
    let mut last = f64::MAX;
    for _ in 0..LOOKS_MAX {
        std::thread::sleep(3 * HEARTBEAT);
        let now = heap(node)?;
        if (now - last).abs() <= last / 1_000.0 {
            return Ok(now);
        }
        last = now;
    }
    bail!("the memory of an idle node does not come to rest")
}

fn heap(node: &Running) -> anyhow::Result<f64> {
    let bytes = usage::anonymous_bytes(node.pid());
    Ok(bytes.context("the kernel does not tell of a node's memory")? as f64)
}

/// What is in a node's memory.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct InMemory {
    objects: u64,
    state_bytes: u64,
}

fn activate_all(node: &Running, objects: &[String]) -> anyhow::Result<InMemory> {
    let told = Activate {
        address: node.address().to_owned(),
        objects: objects.to_vec(),
    };
    role::run("a client", &role::Client::Activate(told))
}

/// The role of the client that brings objects into memory.
pub(crate) async fn activate(told: Activate) -> anyhow::Result<InMemory> {
    let (client, _) = node::meet(&told.address).await?;
    let objects = node::parsed(&told.objects)?;
    let calls = stream::iter(objects)
        .map(async |object| {
            null::Cell::from_uid(object)
                .call(&client, 1)
                .await
                .map(drop)
        })
        .buffer_unordered(TOGETHER);
    let called: Vec<partha::Result<()>> = calls.collect().await;
    called.into_iter().collect::<Result<(), _>>()?;
    let node = client.node_at(&told.address).await?;
    let figures = node.manager().statistics(&client).await?;
    Ok(InMemory {
        objects: figures.active_objects,
        state_bytes: figures.active_bytes,
    })
}

/// The role of the client that has many sessions.
pub(crate) async fn stay(told: Sessions) -> anyhow::Result<()> {
    let clients: Result<Vec<_>, _> = (0..told.count).map(|_| Client::alone()).collect();
    let clients = clients?;
    let connect = async |shard| {
        let mut handles = Vec::new();
        for client in &clients {
            let handle: NodeHandle = client.node_at_shard(&told.address, shard).await?;
            handle.manager().statistics(client).await?;
            handles.push(handle);
        }
        anyhow::Ok(handles)
    };
    let _first = connect(0).await?;
    role::wait("ready").await?;
    let _second = connect(1).await?;
    role::wait("more").await
}
