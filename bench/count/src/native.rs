//! Calls and actions over the native face.

use std::cell::Cell as Value;

use anyhow::{Context as _, ensure};
use futures_util::future::try_join_all;
use partha::{Client, Node, Place, SystemError};
use tempfile::TempDir;

use super::Step;
use crate::cell::CellServant;
use crate::generated::null::{Cell, cell};

/// A node of one shard, and its folder.
pub(super) struct Served {
    pub(super) node: Node,
    _dir: TempDir,
}

impl Served {
    pub(super) async fn start(name: &str) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let node = Node::builder()
            .name(name)
            .data_dir(dir.path())
            .listen("127.0.0.1:0")
            .shards(1)
            .class(cell::class(CellServant))
            .start();
        let node = node.await.context("cannot start a node")?;
        Ok(Self { node, _dir: dir })
    }

    /// A new object at this node; `client` gets to know the node.
    pub(super) async fn cell(&self, client: &Client) -> anyhow::Result<Cell> {
        let address = self.node.address().to_string();
        let node = client.locator().introduce(client, &address).await?;
        Ok(Cell::create(client, &Place::Node(node)).await?)
    }
}

/// Null calls, so many at once.
pub(super) struct Call {
    at_once: u64,
    client: Client,
    cell: Cell,
    _served: Served,
}

impl Call {
    pub(super) async fn new(at_once: u64) -> anyhow::Result<Self> {
        let served = Served::start("count").await?;
        let client = Client::alone()?;
        let cell = served.cell(&client).await?;
        Ok(Self {
            at_once,
            client,
            cell,
            _served: served,
        })
    }
}

impl Step for Call {
    async fn run(&self, count: u64) -> anyhow::Result<()> {
        for first in (0..count).step_by(self.at_once as usize) {
            let numbers = first..(first + self.at_once).min(count);
            let calls = numbers.clone().map(|n| self.cell.call(&self.client, n));
            let answers = try_join_all(calls).await?;
            ensure!(answers.iter().copied().eq(numbers), "a wrong answer");
        }
        Ok(())
    }
}

/// Calls that change an object, one after the other.
pub(super) struct Durable {
    call: Call,
    /// What the object holds.
    value: Value<u64>,
}

impl Durable {
    pub(super) async fn new() -> anyhow::Result<Self> {
        Ok(Self {
            call: Call::new(1).await?,
            value: Value::new(0),
        })
    }
}

impl Step for Durable {
    async fn run(&self, count: u64) -> anyhow::Result<()> {
        let Call { client, cell, .. } = &self.call;
        let before = self.value.get();
        for _ in 0..count {
            self.value.set(cell.bump(client).await?);
        }
        let changes = self.value.get() - before;
        ensure!(changes == count, "{changes} changes of {count}");
        Ok(())
    }
}

/// Actions over two nodes, one after the other.
pub(super) struct Action {
    client: Client,
    cells: [Cell; 2],
    _served: [Served; 2],
}

impl Action {
    pub(super) async fn new() -> anyhow::Result<Self> {
        let served = [Served::start("a").await?, Served::start("b").await?];
        let [a, b] = &served;
        for (to, of) in [(a, b), (b, a)] {
            let (to, address) = (to.node.client(), of.node.address().to_string());
            to.locator().introduce(to, &address).await?;
        }
        let client = Client::alone()?;
        let cells = [a.cell(&client).await?, b.cell(&client).await?];
        Ok(Self {
            client,
            cells,
            _served: served,
        })
    }
}

impl Step for Action {
    async fn run(&self, count: u64) -> anyhow::Result<()> {
        let [x, y] = &self.cells;
        let mut both = (0, 0);
        for _ in 0..count {
            let changed = self
                .client
                .action(async |a| Ok::<_, SystemError>((x.bump(a).await?, y.bump(a).await?)));
            both = changed.await.context("an action has not committed")?;
        }
        ensure!(both.0 == both.1 && both.0 >= count, "{both:?}");
        Ok(())
    }
}
