//! Nodes of our own as servers of the benchmarks that need a disk: accounts of the example bank,
//! and cells, which hold a number.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use bank::{Account, AccountServant};
use futures_util::StreamExt as _;
use futures_util::stream;
use partha::{Client, Limits, Node, Place, Uid};
use serde::{Deserialize, Serialize};

use crate::cell::CellServant;
use crate::disk::{bind, role};
use crate::figure::{Found, Metric};
use crate::generated::null::{Cell, cell};
use crate::process;

/// Calls under way at once while objects are made.
const MAKING: usize = 256;
/// How long a peer may be silent where heartbeats are not the usual ones.
const LEASE: Duration = Duration::from_secs(30);
/// How long calls and actions may take to end when a node is stopped.
const ENDING: Duration = Duration::from_secs(1);
/// What an account begins with, in cents: more than any run moves.
pub(crate) const BEGIN_CENTS: i64 = 1_000_000_000;

/// How a node is to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Wishes {
    /// The folder of its store.
    pub(crate) dir: PathBuf,
    /// Where to listen.
    pub(crate) listen: String,
    /// The address that others are given, where it is another.
    pub(crate) advertise: Option<String>,
    /// Where the naming service listens, if there is one.
    pub(crate) naming: Option<String>,
    pub(crate) shards: u16,
    /// How often silent peers are asked, and idle connections give memory back; as usual if not
    /// said.
    pub(crate) heartbeat_ms: Option<u64>,
    /// How long what has moved here stays; as usual if not said.
    pub(crate) move_cooldown_ms: Option<u64>,
    /// The core to stay on.
    pub(crate) core: Option<usize>,
}

impl Wishes {
    /// One that is known to nobody, at a port of its own.
    pub(crate) fn alone(dir: PathBuf) -> Self {
        Self {
            dir,
            listen: "127.0.0.1:0".to_owned(),
            advertise: None,
            naming: None,
            shards: 1,
            heartbeat_ms: None,
            move_cooldown_ms: None,
            core: None,
        }
    }
}

/// What a node serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Node,
    Naming,
    Binder,
}

/// Objects to be made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Making {
    /// Where their node listens.
    pub(crate) address: String,
    pub(crate) count: usize,
    /// The context of the naming service at this address that they get names in, `/bench/0` and so
    /// on; without it they have none.
    pub(crate) naming: Option<String>,
}

/// The role of a node.
pub(crate) async fn serve(wishes: Wishes, kind: Kind) -> anyhow::Result<()> {
    if let Some(core) = wishes.core {
        process::keep_to(core)?;
    }
    let advertise: Vec<_> = wishes.advertise.into_iter().collect();
    // Two of one name at one naming service would be two lives of one node.
    let name = wishes
        .dir
        .file_name()
        .map_or_else(|| "bench".into(), OsStr::to_string_lossy);
    let mut limits = Limits {
        // What is measured is what was brought into memory, so it stays there.
        idle_ns: 3_600_000_000_000,
        ..Limits::default()
    };
    if let Some(ms) = wishes.move_cooldown_ms {
        limits.move_cooldown_ns = 1_000_000 * ms;
    }
    let mut builder = Node::builder()
        .name(name)
        .data_dir(&wishes.dir)
        .listen(wishes.listen)
        .shards(wishes.shards)
        .limits(limits);
    for address in &advertise {
        builder = builder.advertise(address.clone());
    }
    if let Some(naming) = &wishes.naming {
        builder = builder.naming(naming.clone());
    }
    if let Some(ms) = wishes.heartbeat_ms {
        builder = builder.lease(Duration::from_millis(ms), LEASE);
    }
    let started = match kind {
        Kind::Node => {
            builder
                .class(cell::class(CellServant))
                .class(bank::account::class(AccountServant::default()))
                .start()
                .await
        }
        Kind::Naming => partha_naming::start(builder).await,
        Kind::Binder => partha_binder::start(builder, advertise, partha_binder::LEASE).await,
    };
    let node = started.context("cannot start a node")?;
    if kind == Kind::Node {
        node.registered().await;
    }
    let (address, client) = (node.address().to_string(), node.client().clone());
    // The shards have threads of their own; this one waits for words.
    let runtime = tokio::runtime::Handle::current();
    let attending = tokio::task::spawn_blocking(move || {
        role::attend(&address, |line| {
            let peer = line.strip_prefix("introduce ").context("an unknown word")?;
            runtime.block_on(client.locator().introduce(&client, peer))?;
            Ok("introduced".to_owned())
        })
    });
    attending.await??;
    // After a crash a start reads the log first, which is not what is measured. Who else is there
    // may be gone already, and calls that were under way are of no use to anybody.
    if let Err(error) = node.shutdown(ENDING).await {
        eprintln!("the node was not stopped in good order: {error}");
    }
    std::process::exit(0)
}

/// A client that knows the node at `address`, and that node as a place.
pub(crate) async fn meet(address: &str) -> anyhow::Result<(Client, Place)> {
    let client = Client::alone()?;
    let node = client.locator().introduce(&client, address).await?;
    Ok((client, Place::Node(node)))
}

/// Makes cells.
pub(crate) async fn make_cells(making: Making) -> anyhow::Result<Vec<String>> {
    let (client, place) = meet(&making.address).await?;
    let uids = made(making.count, async |_| {
        Ok(Cell::create(&client, &place).await?.uid())
    });
    let uids = uids.await?;
    if let Some(address) = &making.naming {
        let names = Client::connect(address.clone()).await?;
        for (index, &uid) in uids.iter().enumerate() {
            let name = bind::client::name(index);
            names.naming()?.add(&names, &name, uid, Cell::CLASS).await?;
        }
    }
    written_to_lmdb(&client, &making.address).await?;
    Ok(uids.iter().map(Uid::to_string).collect())
}

/// Makes accounts with [`BEGIN_CENTS`].
pub(crate) async fn make_accounts(making: Making) -> anyhow::Result<Vec<String>> {
    let (client, place) = meet(&making.address).await?;
    let uids = made(making.count, async |index| {
        let account = Account::create(&client, &place, &format!("owner {index}")).await?;
        account.deposit(&client, BEGIN_CENTS).await?;
        Ok(account.uid())
    });
    Ok(uids.await?.iter().map(Uid::to_string).collect())
}

async fn made(
    count: usize,
    make: impl AsyncFn(usize) -> anyhow::Result<Uid>,
) -> anyhow::Result<Vec<Uid>> {
    let making = stream::iter(0..count)
        .map(async |index| make(index).await)
        .buffered(MAKING);
    let mut uids = Vec::with_capacity(count);
    futures_util::pin_mut!(making);
    while let Some(uid) = making.next().await {
        uids.push(uid?);
    }
    Ok(uids)
}

/// What two stores have done in the life of their nodes, and what actions.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Work {
    pub(crate) batches: u64,
    pub(crate) syncs: u64,
    pub(crate) committed: u64,
}

impl Work {
    /// Adds to what was found of calls what has been done since `before`, for each of them.
    pub(crate) fn since(self, before: Self, found: Found) -> Found {
        let calls = found.metrics.get(&Metric::Calls).copied().unwrap_or(1.0);
        let each = |after: u64, before: u64| (after - before) as f64 / calls;
        found
            .with(Metric::Syncs, each(self.syncs, before.syncs))
            .with(Metric::Batches, each(self.batches, before.batches))
    }
}

/// What all these nodes have done so far.
pub(crate) async fn work(client: &Client, addresses: &[String]) -> anyhow::Result<Work> {
    let mut sum = Work::default();
    for address in addresses {
        let handle = client.node_at(address).await?;
        let figures = handle.manager().statistics(client).await?;
        sum.batches += figures.store_batches;
        sum.syncs += figures.store_syncs;
        sum.committed += figures.actions_committed;
    }
    Ok(sum)
}

/// How long a node may take to forget actions that have ended.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until no action has a part at these nodes.
pub(crate) async fn quiet(client: &Client, addresses: &[String]) -> anyhow::Result<()> {
    let wait = async {
        for address in addresses {
            let handle = client.node_at(address).await?;
            while handle.manager().statistics(client).await?.actions_active > 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        anyhow::Ok(())
    };
    let waited = tokio::time::timeout(PATIENCE, wait).await;
    waited.with_context(|| format!("actions were under way after {PATIENCE:?}"))?
}

/// Waits until the store of a node has nothing in its log that is not in LMDB, where others can
/// look at it, and nothing in memory for that.
pub(crate) async fn written_to_lmdb(client: &Client, address: &str) -> anyhow::Result<()> {
    let handle = client.node_at(address).await?;
    let wait = async {
        while handle.manager().statistics(client).await?.store_log_bytes > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    };
    let waited = tokio::time::timeout(PATIENCE, wait).await;
    waited.with_context(|| format!("the log was not written to LMDB after {PATIENCE:?}"))?
}

/// Uids from their text.
pub(crate) fn parsed(uids: &[String]) -> anyhow::Result<Vec<Uid>> {
    let uids: Result<_, _> = uids.iter().map(|uid| uid.parse()).collect();
    uids.context("not a uid")
}
