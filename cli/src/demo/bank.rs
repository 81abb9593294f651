//! The bank's processes, and its accounts.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use bank::Account;
use futures_util::future::try_join_all;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use partha::{Client, Place};
use tempfile::TempDir;
use tokio::time::Instant;

use super::load::{Counts, Random};
use crate::supervise::{Process, Program, Sink, free_ports};

/// Accounts, at most: their names have six digits.
pub(super) const ACCOUNTS_MAX: i64 = 1_000_000;
/// Pause between two kills.
const KILL_PAUSE: Duration = Duration::from_secs(1);
/// Accounts that are opened, or asked, at the same time.
const TOGETHER: usize = 128;
/// Lines of the daemons' logs that are kept.
const LOG_LINES_MAX: usize = 200;
/// How long a node may take to say how much it did before it is killed.
const STATISTICS_DEADLINE: Duration = Duration::from_millis(500);

/// The running processes.
#[derive(Debug)]
pub(super) struct Bank {
    naming: Daemon,
    binder: Daemon,
    nodes: Vec<Daemon>,
    /// Objects of nodes that had been killed before, up to their next kill.
    reactivations: u64,
    log: Arc<Mutex<VecDeque<String>>>,
    /// Removed when all is over.
    _folder: TempDir,
}

#[derive(Debug)]
struct Daemon {
    program: Program,
    process: Process,
    kills: u64,
}

impl Bank {
    /// Starts naming service, binder and two nodes, and waits until they serve.
    pub(super) async fn start() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("partha-demo-").tempdir();
        let folder = folder.context("cannot make a temporary folder")?;
        let ports = free_ports(4)?;
        let log = Arc::new(Mutex::new(VecDeque::new()));
        let sink = sink(log.clone());
        let naming = ports[0];
        let start =
            |service, name, address| start(service, name, address, naming, folder.path(), &sink);
        let naming = start("naming", "naming", naming)?;
        let binder = start("binder", "binder", ports[1])?;
        let nodes = vec![start("bank", "a", ports[2])?, start("bank", "b", ports[3])?];
        let (reactivations, _folder) = (0, folder);
        let mut bank = Self {
            naming,
            binder,
            nodes,
            reactivations,
            log,
            _folder,
        };
        let ready = bank.ready().await;
        if ready.is_err() {
            bank.log_lines().iter().for_each(|line| eprintln!("{line}"));
        }
        ready.map(|()| bank)
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        for daemon in [&mut self.naming, &mut self.binder]
            .into_iter()
            .chain(&mut self.nodes)
        {
            daemon.process.ready().await?;
            println!(
                "{:<8} {}  ready",
                daemon.program.name, daemon.program.address
            );
        }
        Ok(())
    }

    /// Where the naming service listens.
    pub(super) fn naming(&self) -> String {
        self.naming.program.address.to_string()
    }

    /// The latest lines of the daemons' logs.
    pub(super) fn log_lines(&self) -> Vec<String> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.iter().cloned().collect()
    }

    /// Kills a random node every second and restarts it, until `end`; answers the kills.
    pub(super) async fn kill_nodes(
        &mut self,
        client: &Client,
        end: Instant,
        counts: &Counts,
    ) -> anyhow::Result<u64> {
        let mut random = Random::new(std::process::id());
        let sink = sink(self.log.clone());
        let mut next = Instant::now() + KILL_PAUSE;
        while next < end {
            tokio::time::sleep_until(next).await;
            let chosen = random.below(self.nodes.len() as u64) as usize;
            let node = &mut self.nodes[chosen];
            self.reactivations += node.reactivations(client).await.unwrap_or(0);
            node.process.kill().await?;
            node.kills += 1;
            counts.killed();
            node.process = node.program.spawn(&sink)?;
            node.process.ready().await.context("after it was killed")?;
            next = Instant::now().max(next + KILL_PAUSE);
        }
        Ok(counts.kills())
    }

    /// Objects that were brought back into memory after a kill.
    pub(super) async fn reactivations(&self, client: &Client) -> anyhow::Result<u64> {
        let mut sum = self.reactivations;
        for node in &self.nodes {
            sum += node.reactivations(client).await?;
        }
        Ok(sum)
    }

    /// Stops all in order; what does not stop is killed.
    pub(super) async fn stop(self) {
        for daemon in self.nodes.into_iter().chain([self.binder, self.naming]) {
            if let Err(error) = daemon.process.stop().await {
                eprintln!("warning: {error:#}");
            }
        }
    }
}

impl Daemon {
    /// Objects that this life has brought into memory, if it is not the first: they all had been
    /// there before the node was killed. (Activations are more: an object whose method raised is
    /// read from the store again, too.)
    async fn reactivations(&self, client: &Client) -> anyhow::Result<u64> {
        if self.kills == 0 {
            return Ok(0);
        }
        let handle = client.node_at(&self.program.address.to_string()).await?;
        let caller = client.call().deadline(STATISTICS_DEADLINE);
        Ok(handle.manager().statistics(&caller).await?.active_objects)
    }
}

fn start(
    service: &str,
    name: &str,
    address: SocketAddr,
    naming: SocketAddr,
    folder: &Path,
    sink: &Sink,
) -> anyhow::Result<Daemon> {
    let program = Program::own(service, name, address, folder.join(name))?;
    let program = program.flag("--log", "warn").flag("--naming", naming);
    let process = program.spawn(sink)?;
    Ok(Daemon {
        program,
        process,
        kills: 0,
    })
}

/// Keeps the latest lines, to be shown if something fails.
fn sink(log: Arc<Mutex<VecDeque<String>>>) -> Sink {
    Arc::new(move |name, line| {
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        if log.len() == LOG_LINES_MAX {
            log.pop_front();
        }
        log.push_back(format!("{name} | {line}"));
    })
}

/// The name of an account.
pub(super) fn account_name(index: u32) -> String {
    // A hundred to a context: a context takes one new name at a time.
    format!("/bank/{:04}/{:02}", index / 100, index % 100)
}

/// Opens the accounts, in turn at both nodes, and names them.
pub(super) async fn open_accounts(client: &Client, count: u32) -> anyhow::Result<Vec<Account>> {
    let opening = stream::iter(0..count).map(|index| async move {
        let place = Place::Named(if index % 2 == 0 { "a" } else { "b" }.to_owned());
        let name = account_name(index);
        let account = Account::create(client, &place, &name).await?;
        let naming = client.naming()?;
        naming
            .add(client, &name, account.uid(), Account::CLASS)
            .await?;
        anyhow::Ok(account)
    });
    let opened = opening.buffered(TOGETHER).try_collect().await;
    opened.context("cannot open the accounts")
}

/// What the accounts hold.
pub(super) async fn balances(client: &Client, accounts: &[Account]) -> anyhow::Result<Vec<i64>> {
    let mut balances = Vec::with_capacity(accounts.len());
    for some in accounts.chunks(TOGETHER) {
        balances.extend(try_join_all(some.iter().map(|account| account.balance(client))).await?);
    }
    Ok(balances)
}
