//! Partha itself: the native face between processes, and calls within one process.
//!
//! What is called is a read method of a persistent object in memory, through all of the engine:
//! call context, deadline, lock, dispatch. Calls within a process are made by an object, as
//! objects call each other: from the same shard, or from another one.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use partha::{Client, Context, Node, Place, Result, SystemError};
use tempfile::TempDir;

use crate::generated::null::cell::{self, State};
use crate::generated::null::driver;
use crate::generated::null::{Cell, Driver, Figures};
use crate::load::{self, Caller, Load, Measurement};

struct CellServant;

impl cell::Servant for CellServant {
    fn new(&self) -> State {
        State { value: 0 }
    }

    async fn call(&self, _state: &State, _cx: &Context, value: u64) -> Result<u64> {
        Ok(value)
    }

    async fn bump(&self, state: &mut State, _cx: &Context) -> Result<u64> {
        state.value += 1;
        Ok(state.value)
    }
}

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

/// Serves at `address` for ever.
pub(crate) async fn serve(address: SocketAddr) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let _node = node(&dir, &address.to_string(), 1).await?;
    std::future::pending().await
}

/// The client end of the native face.
pub(crate) struct Native {
    client: Client,
    cell: Cell,
}

impl Native {
    /// Meets the node at `address` and makes an object to call there.
    pub(crate) async fn new(address: SocketAddr) -> anyhow::Result<Self> {
        let client = Client::alone()?;
        // The harness hands over the port from one listener to the next.
        let mut node = Err(SystemError::servant("not tried"));
        for _ in 0..100 {
            node = client
                .locator()
                .introduce(&client, &address.to_string())
                .await;
            if node.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let cell = Cell::create(&client, &Place::Node(node?)).await?;
        Ok(Self { client, cell })
    }
}

impl Caller for Native {
    async fn call(&self, n: u64) -> anyhow::Result<u64> {
        Ok(self.cell.call(&self.client, n).await?)
    }
}

/// Loads an object from another one of the same process, on the same shard or across.
pub(crate) async fn drive_inside(across: bool, load: Load) -> anyhow::Result<Measurement> {
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
    Ok(Measurement {
        calls_per_second,
        p50_us,
        p99_us,
    })
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
            outstanding: outstanding as usize,
            warm_up_ms,
            measure_ms,
        };
        let caller = Native {
            client: cx.client().clone(),
            cell,
        };
        let measured = load::drive(caller, load).await.map_err(failed)?;
        let Measurement {
            calls_per_second,
            p50_us,
            p99_us,
        } = measured;
        Ok(Figures {
            calls_per_second,
            p50_us,
            p99_us,
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
