//! The client of the account that moves: transfers, and beside them moves.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bank::Account;
use futures_util::future::try_join_all;
use partha::{Client, Uid};
use serde::{Deserialize, Serialize};

use crate::disk::node::{self, BEGIN_CENTS};
use crate::disk::transfer::partha::total;
use crate::disk::transfer::{check_total, choose};
use crate::figure::{Found, Latencies, Metric};

/// What the nodes are called.
const NAMES: [&str; 2] = ["a", "b"];
/// How long the account may be waited for.
const WAIT: Duration = Duration::from_secs(10);

/// Transfers with an account that moves.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Moving {
    /// Where the two nodes listen.
    pub(crate) addresses: Vec<String>,
    /// The accounts that were made at them; the first of the first node moves.
    pub(crate) accounts: Vec<Vec<String>>,
    /// Transfers under way at once.
    pub(crate) clients: usize,
    /// How often it moves: an even number.
    pub(crate) moves: u64,
    /// Where the naming service listens, if each is asked for by `partha move`.
    pub(crate) command: Option<String>,
    /// Time before anything is measured, in milliseconds.
    pub(crate) warm_up_ms: u64,
    /// Time that is measured before the first moves, and again after the last, in milliseconds.
    pub(crate) steady_ms: u64,
}

/// What is going on.
struct Load {
    client: Client,
    hot: Account,
    others: Vec<Account>,
    stop: Cell<bool>,
    committed: Cell<u64>,
    /// Attempts that were undone, and made again.
    undone: Cell<u64>,
    /// Of transfers, while the account moves.
    latencies: RefCell<Option<Latencies>>,
}

impl Load {
    /// Transfers, one after the other, until it is to stop.
    async fn work(&self, first: u64, step: u64) -> anyhow::Result<()> {
        let mut number = first;
        while !self.stop.get() {
            let begun = Instant::now();
            self.transfer(number).await?;
            if let Some(latencies) = &mut *self.latencies.borrow_mut() {
                latencies.record(begun.elapsed());
            }
            number += step;
        }
        Ok(())
    }

    async fn transfer(&self, number: u64) -> anyhow::Result<()> {
        let (other, _, onward) = choose(number, [self.others.len(), 1]);
        let (hot, other) = (&self.hot, &self.others[other]);
        let tries = Cell::new(0);
        let transfer = self.client.action_retry(async |a| {
            tries.set(tries.get() + 1);
            if onward {
                hot.withdraw(a, 1).await?;
                other.deposit(a, 1).await?;
            } else {
                hot.deposit(a, 1).await?;
                other.withdraw(a, 1).await?;
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        });
        transfer.await.map_err(|error| anyhow::anyhow!("{error}"))?;
        self.committed.set(self.committed.get() + 1);
        self.undone.set(self.undone.get() + tries.get() - 1);
        Ok(())
    }

    fn mark(&self) -> (Instant, u64) {
        (Instant::now(), self.committed.get())
    }
}

/// The role of the client.
pub(crate) async fn run(told: Moving) -> anyhow::Result<Found> {
    let client = Client::alone()?;
    for address in &told.addresses {
        client.locator().introduce(&client, address).await?;
    }
    let accounts = told.accounts.iter().map(|uids| {
        let uids: Vec<Uid> = node::parsed(uids)?;
        anyhow::Ok(uids.into_iter().map(Account::from_uid).collect::<Vec<_>>())
    });
    let accounts: Vec<_> = accounts.collect::<Result<_, _>>()?;
    let mut all = accounts.concat();
    let count = all.len();
    // It finds and binds all accounts, too.
    check_total(total(&client, &all).await?, count, BEGIN_CENTS)?;
    let load = Load {
        client: client.clone(),
        hot: all[0].clone(),
        others: all.split_off(1),
        stop: Cell::default(),
        committed: Cell::default(),
        undone: Cell::default(),
        latencies: RefCell::default(),
    };
    let before = node::work(&client, &told.addresses).await?;
    let clients = told.clients as u64;
    let transfers = (0..clients).map(|first| load.work(first, clients));
    let (found, _) = tokio::try_join!(measure(&load, &told), try_join_all(transfers))?;
    node::quiet(&client, &told.addresses).await?;
    let after = node::work(&client, &told.addresses).await?;
    check_total(
        total(&client, &accounts.concat()).await?,
        count,
        BEGIN_CENTS,
    )?;
    let (answered, committed) = (load.committed.get(), after.committed - before.committed);
    // A move is an action of its own.
    let expected = answered + told.moves;
    ensure!(
        committed == expected || committed == answered,
        "{answered} transfers were answered, {committed} actions are committed"
    );
    Ok(found
        .with(Metric::Calls, answered as f64)
        .with(Metric::Undone, load.undone.get() as f64))
}

/// Moves that are made in a row, where transfers follow at once.
const IN_A_ROW: u64 = 10;

/// Transfers and the time that they took.
#[derive(Default)]
struct Span {
    transfers: u64,
    time: Duration,
}

impl Span {
    /// With what was done since.
    fn add(&mut self, load: &Load, (since, before): (Instant, u64)) {
        self.transfers += load.committed.get() - before;
        self.time += since.elapsed();
    }

    fn rate(&self) -> f64 {
        self.transfers as f64 / self.time.as_secs_f64()
    }
}

/// Moves in groups, and as much time before each of them.
async fn measure(load: &Load, told: &Moving) -> anyhow::Result<Found> {
    let steady = Duration::from_millis(told.steady_ms);
    tokio::time::sleep(Duration::from_millis(told.warm_up_ms)).await;
    let (mut before, mut meanwhile, mut after) = <(Span, Span, Span)>::default();
    let (mut times, mut pause) = (Vec::new(), steady);
    let mut latencies = Latencies::default();
    while (times.len() as u64) < told.moves {
        let begun = load.mark();
        tokio::time::sleep(pause).await;
        before.add(load, begun);
        load.latencies.replace(Some(latencies));
        let begun = load.mark();
        for _ in 0..IN_A_ROW.min(told.moves - times.len() as u64) {
            times.push(move_once(load, told, times.len() as u64).await?);
        }
        meanwhile.add(load, begun);
        latencies = load.latencies.take().context("they were taken")?;
        pause = begun.0.elapsed();
    }
    let begun = load.mark();
    tokio::time::sleep(steady).await;
    after.add(load, begun);
    load.stop.set(true);
    times.sort_unstable();
    let median = times.get(times.len() / 2);
    let median = median.context("it moves once at least")?;
    Ok(Found::default()
        .with_latencies(&latencies)
        .with(Metric::Rate, meanwhile.rate())
        .with(Metric::RateBefore, before.rate())
        .with(Metric::RateAfter, after.rate())
        .with(Metric::TimeMs, median.as_secs_f64() * 1e3))
}

/// One move; how long it took.
async fn move_once(load: &Load, told: &Moving, turn: u64) -> anyhow::Result<Duration> {
    let to = (turn as usize + 1) % told.addresses.len();
    let object = load.hot.uid();
    let asked = Instant::now();
    let moves = match &told.command {
        Some(naming) => by_command(naming, object, NAMES[to]).await?,
        None => by_client(&told.addresses, object, to).await?,
    };
    let took = asked.elapsed();
    ensure!(moves % 2 == (turn + 1) % 2, "move {turn} is number {moves}");
    Ok(took)
}

/// One move to the node at one of the addresses, asked for by one who has just come; how often the
/// object has moved.
async fn by_client(addresses: &[String], object: Uid, to: usize) -> anyhow::Result<u64> {
    let client = Client::alone()?;
    let mut nodes = Vec::new();
    for address in addresses {
        nodes.push(client.locator().introduce(&client, address).await?);
    }
    Ok(client.move_object(object, nodes[to], WAIT).await?)
}

/// The same as one types it.
async fn by_command(naming: &str, object: Uid, to: &'static str) -> anyhow::Result<u64> {
    let (naming, object) = (naming.to_owned(), object.to_string());
    let run = move || {
        let mut command = Command::new(program()?);
        command.args(["move", &object, to, "-o", "json"]);
        let ended = command.env("PARTHA_NAMING", naming).output();
        let ended = ended.context("cannot start `partha move`")?;
        let said = String::from_utf8_lossy(&ended.stdout);
        ensure!(ended.status.success(), "`partha move` failed: {said}");
        let said: serde_json::Value = serde_json::from_str(&said)?;
        said["moves"].as_u64().context("it does not say the moves")
    };
    tokio::task::spawn_blocking(run).await?
}

/// The program `partha`, which lies beside this one.
pub(super) fn program() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name("partha");
    ensure!(
        program.exists(),
        "{} is not there: `cargo build --release -p partha-cli` makes it",
        program.display()
    );
    Ok(program)
}
