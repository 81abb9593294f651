//! Partha itself: the native face between processes, and calls within one process.
//!
//! What is called is a read method of a persistent object in memory, through all of the engine:
//! call context, deadline, lock, dispatch. Calls within a process are made by an object, as
//! objects call each other: from the same shard, or from another one.

use std::cell::Cell as Counter;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures_util::future::try_join_all;
use partha::{Bytes, Client, Context, Node, Place, Result, SystemError, Uid};
use tempfile::TempDir;

use crate::cell::CellServant;
use crate::figure::{Found, Metric};
use crate::generated::null::cell;
use crate::generated::null::driver;
use crate::generated::null::{Cell, Driver, Figures};
use crate::network::load::{self, Caller, Connector, Load, Work};
use crate::network::peers::stopped::StoppedReader;
use crate::process;

async fn node(dir: &TempDir, address: &str, shards: u16) -> anyhow::Result<Node> {
    let node = Node::builder()
        .name("bench")
        .data_dir(dir.path())
        .listen(address)
        .shards(shards)
        .class(cell::class(CellServant))
        .start();
    node.await.context("cannot start a node")
}

/// Serves for ever, and says where.
pub(crate) async fn serve(shards: u16) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let node = node(&dir, "127.0.0.1:0", shards).await?;
    process::ready(node.address());
    std::future::pending().await
}

/// Objects to call at the node that listens at `address`, made by a client of its own.
pub(crate) async fn make_objects(address: SocketAddr, count: usize) -> anyhow::Result<Vec<Uid>> {
    let (client, place) = meet(address).await?;
    let made = (0..count).map(|_| Cell::create(&client, &place));
    let made = try_join_all(made).await.context("cannot make objects")?;
    Ok(made.iter().map(Cell::uid).collect())
}

/// A new client that knows one node.
async fn meet(address: SocketAddr) -> anyhow::Result<(Client, Place)> {
    let client = Client::alone()?;
    let address = address.to_string();
    let met = client.locator().introduce(&client, &address).await;
    let node = met.context("cannot meet the node")?;
    Ok((client, Place::Node(node)))
}

/// Opens connections of the native face.
pub(crate) struct Native {
    pub(crate) address: SocketAddr,
    pub(crate) objects: Vec<Uid>,
}

/// The client end of a connection: a client of its own, hence a connection to each shard it calls.
pub(crate) struct Connected {
    client: Client,
    cells: Vec<Cell>,
    next: Counter<usize>,
}

impl Connector for Native {
    type Caller = Connected;

    async fn connect(&self) -> anyhow::Result<Connected> {
        let (client, _) = meet(self.address).await?;
        let cells = self.objects.iter().map(|&uid| Cell::from_uid(uid));
        Ok(Connected::new(client, cells.collect()))
    }
}

impl Connected {
    fn new(client: Client, cells: Vec<Cell>) -> Self {
        Self {
            client,
            cells,
            next: Counter::new(0),
        }
    }

    /// The objects take turns.
    fn cell(&self) -> &Cell {
        let next = self.next.get();
        self.next.set((next + 1) % self.cells.len());
        &self.cells[next]
    }
}

impl Caller for Connected {
    async fn null(&self, n: u64) -> anyhow::Result<u64> {
        Ok(self.cell().call(&self.client, n).await?)
    }

    async fn echo(&self, payload: &Bytes) -> anyhow::Result<()> {
        let answer = self.cell().echo(&self.client, payload.clone()).await?;
        load::compare(payload, &answer)
    }
}

/// Loads objects of the node that listens at `address`.
pub(crate) async fn drive(address: SocketAddr, load: Load) -> anyhow::Result<Found> {
    let objects = make_objects(address, load.objects).await?;
    let beside = match load.stopped_reader {
        true => Some(StoppedReader::start(address, objects[0]).await?),
        false => None,
    };
    let found = load::drive(Native { address, objects }, load).await?;
    if let Some(stopped) = beside {
        stopped.read_all().await?;
    }
    Ok(found)
}

/// Loads an object from another one of the same process, on the same shard or across.
pub(crate) async fn drive_inside(across: bool, load: Load) -> anyhow::Result<Found> {
    let dir = tempfile::tempdir()?;
    let node = node(&dir, "127.0.0.1:0", if across { 2 } else { 1 }).await?;
    let client = node.client();
    let driver = Driver::serve(client, DriverServant)?;
    let place = Place::Node(node.me().node);
    let mut figures = None;
    for _ in 0..64 {
        let cell = Cell::create(client, &place).await?;
        let Load {
            outstanding,
            warm_up_ms,
            measure_ms,
            ..
        } = load;
        let at = node_shard(client, &node, &cell).await?;
        let caller = client.call().deadline(Duration::from_secs(120));
        let here = driver.run(&caller, &cell, 0, 0, 0).await?.calls_per_second as u16;
        if (here != at) == across {
            let outstanding = outstanding as u64;
            figures = Some(
                driver
                    .run(&caller, &cell, outstanding, warm_up_ms, measure_ms)
                    .await?,
            );
            break;
        }
    }
    let Figures {
        calls_per_second,
        p50_us,
        p99_us,
    } = figures.context("64 objects, and none on the shard that is wanted")?;
    drop(driver);
    node.shutdown(Duration::from_secs(5)).await?;
    Ok(Found::default()
        .with(Metric::Rate, calls_per_second)
        .with(Metric::P50Us, p50_us)
        .with(Metric::P99Us, p99_us))
}

async fn node_shard(client: &Client, node: &Node, cell: &Cell) -> anyhow::Result<u16> {
    let handle = client.node_at(&node.address().to_string()).await?;
    let described = handle.manager().inspect(client, cell.uid()).await;
    Ok(described.context("the object just made is gone")?.shard)
}

struct DriverServant;

impl driver::Servant for DriverServant {
    async fn run(
        &self,
        cx: &Context,
        cell: Cell,
        outstanding: u64,
        warm_up_ms: u64,
        measure_ms: u64,
    ) -> Result<Figures> {
        if outstanding == 0 {
            // Asked only where it runs.
            let calls_per_second = f64::from(own_shard().map_err(failed)?);
            return Ok(Figures {
                calls_per_second,
                p50_us: 0.0,
                p99_us: 0.0,
            });
        }
        let load = Load {
            work: Work::Null,
            bytes: 0,
            connections: 1,
            outstanding: outstanding as usize,
            objects: 1,
            warm_up_ms,
            measure_ms,
            server_pid: None,
            stopped_reader: false,
        };
        let caller = Rc::new(Connected::new(cx.client().clone(), vec![cell]));
        let found = load::call_over_and_over(&[caller], load).await;
        let found = found.map_err(failed)?;
        let figure = |metric| found.metrics.get(&metric).copied().unwrap_or_default();
        Ok(Figures {
            calls_per_second: figure(Metric::Rate),
            p50_us: figure(Metric::P50Us),
            p99_us: figure(Metric::P99Us),
        })
    }
}

/// The shard of this thread, by the thread's name.
fn own_shard() -> anyhow::Result<u16> {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or_default();
    let number = name.strip_prefix("partha-shard-");
    ensure!(number.is_some(), "'{name}' is no shard's thread");
    Ok(number.unwrap_or_default().parse()?)
}

fn failed(error: anyhow::Error) -> SystemError {
    SystemError::servant(format!("{error:#}"))
}
