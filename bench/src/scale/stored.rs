//! A node on a store that is full already: how soon it serves, and what a first call costs.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Args;
use partha::{Client, Node, Place, Uid};

use crate::cell::CellServant;
use crate::generated::null::Cell;
use crate::generated::null::cell;
use crate::process;
use crate::usage;

/// What to look at
#[derive(Args)]
pub(crate) struct Stored {
    /// The folder of the store
    dir: PathBuf,
    /// How many objects are in it
    #[arg(long, value_name = "N", default_value_t = 10_000_000)]
    objects: u64,
    /// How many of them to call
    #[arg(long, value_name = "N", default_value_t = 5_000,
          value_parser = clap::value_parser!(u64).range(1..))]
    calls: u64,
}

impl Stored {
    /// Starts a node, calls objects here and there that nobody has called before, and says what
    /// it took.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        process::block_on(self.look())
    }

    async fn look(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        let node = Node::builder()
            .data_dir(&self.dir)
            .shards(1)
            .class(cell::class(CellServant))
            .start();
        let node = node.await.context("cannot start a node")?;
        println!("the node listens after {:.1?}", begun.elapsed());
        let client = Client::alone()?;
        let address = node.address().to_string();
        let locator = client.locator();
        locator.introduce(&client, &address).await?;
        let handle = client.node_at(&address).await?;
        let (mut listed, mut first, paging) = (0, None, Instant::now());
        while listed < 100_000.min(self.objects) {
            let after = first.map_or(Uid::NIL, |first| next(first, listed - 1));
            let page = handle.manager().objects(&client, after, 1_000).await?;
            ensure!(!page.is_empty(), "{listed} objects, and no more");
            first = first.or_else(|| page.first().map(|object| object.object));
            listed += page.len() as u64;
        }
        let per_page = paging.elapsed() / (listed / 1_000).max(1) as u32;
        println!("a page of 1000 objects takes {per_page:.1?}");
        let first = first.context("no objects")?;
        let resident = resident_bytes()?;
        let (mut cold, mut bound, mut null) = (Vec::new(), Vec::new(), Vec::new());
        for call in 0..self.calls {
            // Far from one another; and, the factor being a prime, none twice while there are
            // others, unless it divides their number.
            let number = call * 7_919 % self.objects;
            let cell = Cell::from_uid(next(first, number));
            for times in [&mut cold, &mut bound, &mut null] {
                let begun = Instant::now();
                ensure!(cell.call(&client, call).await? == call, "a wrong answer");
                times.push(begun.elapsed());
            }
        }
        println!(
            "first call, with initiate and activation: {}",
            shown(&mut cold)
        );
        println!("second call: {}", shown(&mut bound));
        println!("third call: {}", shown(&mut null));
        let grown = resident_bytes()?.saturating_sub(resident) / self.calls;
        println!("resident memory for each object called, LMDB's pages included: {grown} bytes");
        let made = Cell::create(&client, &Place::Node(node.me().node)).await?;
        ensure!(made.bump(&client).await? == 1, "a new object is not new");
        node.shutdown(Duration::from_secs(10)).await?;
        Ok(())
    }
}

fn next(first: Uid, number: u64) -> Uid {
    Uid::new(first.node, first.incarnation(), first.counter() + number)
}

fn shown(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |part: usize| times[(times.len() - 1) * part / 100];
    format!("p50 {:.1?}, p99 {:.1?}", at(50), at(99))
}

fn resident_bytes() -> anyhow::Result<u64> {
    let bytes = usage::resident_bytes(std::process::id());
    bytes.context("the kernel does not tell of our memory")
}
