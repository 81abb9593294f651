//! The bank's processes, and its accounts.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use bank::{Account, AuditLine, AuditLog, Branch, Statement};
use futures_util::future::try_join_all;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use partha::{Client, NodeId, Place, Replication};
use tempfile::TempDir;
use tokio::time::Instant;

use super::books::Book;
use super::counts::Counts;
use super::failover::Copies;
use super::load::Random;
use super::transfer::Till;
use crate::supervise::{Process, Program, Sink, free_ports};

/// Accounts, at most: their names have six digits.
pub(super) const ACCOUNTS_MAX: i64 = 1_000_000;
/// What each account begins with, in cents.
const FUNDS: i64 = 10_000;
/// Lines of a log that are asked for at a time.
const LINES_PAGE: u32 = 1_000;
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
    /// Starts naming service, binder and these nodes, and waits until they serve.
    pub(super) async fn start(names: &[&str]) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("partha-demo-").tempdir();
        let folder = folder.context("cannot make a temporary folder")?;
        let ports = free_ports(2 + names.len())?;
        let log = Arc::new(Mutex::new(VecDeque::new()));
        let sink = sink(log.clone());
        let naming = ports[0];
        let start =
            |service, name, address| start(service, name, address, naming, folder.path(), &sink);
        let naming = start("naming", "naming", naming)?;
        let binder = start("binder", "binder", ports[1])?;
        let nodes = names.iter().zip(&ports[2..]);
        let nodes = nodes.map(|(name, port)| start("bank", name, *port));
        let nodes = nodes.collect::<anyhow::Result<Vec<_>>>()?;
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

    /// Kills a random process every second and restarts it, until `end`; answers how often each,
    /// for people. Nodes of the bank come thrice as often as the services. Where the accounts have
    /// copies, a leader's node is away until another copy has answered, and the next one is killed
    /// when all copies are there again.
    pub(super) async fn kill_some(
        &mut self,
        client: &Client,
        end: Instant,
        counts: &Counts,
        mut copies: Option<&mut Copies<'_>>,
    ) -> anyhow::Result<String> {
        let mut random = Random::new(std::process::id());
        let sink = sink(self.log.clone());
        let mut next = Instant::now() + KILL_PAUSE;
        let mut deck = Vec::new();
        while next < end {
            tokio::time::sleep_until(next).await;
            if deck.is_empty() {
                let nodes = 2..2 + self.nodes.len();
                deck = [0, 1].into_iter().chain(nodes.clone()).collect();
                deck.extend(nodes.clone().chain(nodes));
            }
            let chosen = deck.swap_remove(random.below(deck.len() as u64) as usize);
            let reactivations = match chosen {
                0 | 1 => 0,
                node => self.nodes[node - 2]
                    .reactivations(client)
                    .await
                    .unwrap_or(0),
            };
            self.reactivations += reactivations;
            let daemon = match chosen {
                0 => &mut self.naming,
                1 => &mut self.binder,
                node => &mut self.nodes[node - 2],
            };
            let led = match copies.as_mut().filter(|_| chosen > 1) {
                Some(copies) => copies.led_by(daemon.node(client).await?).await?,
                None => None,
            };
            let killed = Instant::now();
            daemon.process.kill().await?;
            daemon.kills += 1;
            counts.kills.add(1);
            if let (Some(copies), Some(account)) = (copies.as_mut(), led) {
                copies.next_call(account, killed, counts).await?;
            }
            daemon.process = daemon.program.spawn(&sink)?;
            let ready = daemon.process.ready().await;
            ready.context("after it was killed")?;
            if let Some(copies) = &copies {
                copies.all_there().await?;
            }
            next = Instant::now().max(next + KILL_PAUSE);
        }
        let all = [&self.naming, &self.binder].into_iter().chain(&self.nodes);
        let each = all.map(|daemon| format!("{} {}", daemon.program.name, daemon.kills));
        Ok(format!(" ({})", each.collect::<Vec<_>>().join(", ")))
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
    /// Which node it is.
    async fn node(&self, client: &Client) -> anyhow::Result<NodeId> {
        Ok(client
            .node_at(&self.program.address.to_string())
            .await?
            .id())
    }

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

/// Opens the accounts, in turn at all nodes, names them, and pays in what they begin with. Copies
/// are a matter of the place alone.
pub(super) async fn open_accounts(
    client: &Client,
    count: u32,
    nodes: &[&str],
    replication: Option<&Replication>,
) -> anyhow::Result<Vec<Account>> {
    let opening = stream::iter(0..count).map(|index| async move {
        let name = account_name(index);
        let account = Account::create(client, &place(index, nodes, replication), &name).await?;
        account.deposit(client, FUNDS).await?;
        let naming = client.naming()?;
        naming
            .add(client, &name, account.uid(), Account::CLASS)
            .await?;
        anyhow::Ok(account)
    });
    let opened = opening.buffered(TOGETHER).try_collect().await;
    opened.context("cannot open the accounts")
}

/// Opens a branch for each client at one node, its audit log at the other; with copies, if the
/// accounts have some.
pub(super) async fn open_tills(
    client: &Client,
    count: u32,
    nodes: &[&str],
    replication: Option<&Replication>,
) -> anyhow::Result<Vec<Till>> {
    let opening = stream::iter(0..count).map(|index| async move {
        let log = AuditLog::create(client, &place(index + 1, nodes, replication)).await?;
        let branch = Branch::create(client, &place(index, nodes, replication), &log).await?;
        anyhow::Ok(Till { branch, log })
    });
    let opened = opening.buffered(TOGETHER).try_collect().await;
    opened.context("cannot open the branches")
}

fn place(index: u32, nodes: &[&str], replication: Option<&Replication>) -> Place {
    let place = Place::Named(nodes[index as usize % nodes.len()].to_owned());
    match replication {
        Some(replication) => place.replicated(replication.clone()),
        None => place,
    }
}

/// What accounts begin with, in the books.
pub(super) fn fund(book: &mut Book) {
    for account in 0..book.accounts.len() {
        book.paid(account, FUNDS);
    }
}

/// What the accounts say.
pub(super) async fn statements(
    client: &Client,
    accounts: &[Account],
) -> anyhow::Result<Vec<Statement>> {
    let mut statements = Vec::with_capacity(accounts.len());
    for some in accounts.chunks(TOGETHER) {
        let asked = some.iter().map(|account| account.statement(client));
        statements.extend(try_join_all(asked).await?);
    }
    Ok(statements)
}

/// What the logs say.
pub(super) async fn audit_logs(
    client: &Client,
    tills: &[Till],
) -> anyhow::Result<Vec<Vec<AuditLine>>> {
    try_join_all(tills.iter().map(|till| audit_log(client, &till.log))).await
}

async fn audit_log(client: &Client, log: &AuditLog) -> anyhow::Result<Vec<AuditLine>> {
    let mut lines: Vec<AuditLine> = Vec::new();
    loop {
        let after = lines.last().map_or(0, |line| line.number);
        let page = log.lines(client, after, LINES_PAGE).await?;
        if page.is_empty() {
            return Ok(lines);
        }
        lines.extend(page);
    }
}
