//! What this program starts itself as for the benchmarks that need a disk: servers that stay, and
//! clients that do one thing and end.
//!
//! A server is told what it is as JSON in its arguments. It says `ready ADDRESS` on standard
//! output, answers each line of standard input with a line, and ends when standard input does,
//! hence never later than who started it; a database that it has started ends with it. A client
//! is told what to do as JSON on standard input, and prints what it found as a line of JSON.

use std::io::BufRead as _;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::disk::{bind, copies, durable, external, moving, node, scale, transfer};
use crate::process::{self, Running, Start, block_on, ourselves};

/// All that a client may take, its load and what is before and after, before it has failed.
const GRACE: Duration = Duration::from_secs(120);

/// A server of this program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Server {
    /// A node with accounts and cells.
    Node(node::Wishes),
    /// The naming service.
    Naming(node::Wishes),
    /// The binder.
    Binder(node::Wishes),
    /// PostgreSQL, with its data in this folder.
    Postgres(PathBuf),
    /// etcd, likewise.
    Etcd(PathBuf),
}

impl Server {
    fn when_interrupted(&self) -> Start {
        match self {
            Self::Node(_) | Self::Naming(_) | Self::Binder(_) => Start::Ended,
            // Without us their databases would have nobody who ends them.
            Self::Postgres(_) | Self::Etcd(_) => Start::Awaited,
        }
    }
}

/// A client of this program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Client {
    /// Makes cells; prints their uids.
    MakeCells(node::Making),
    /// Makes accounts; prints their uids.
    MakeAccounts(node::Making),
    /// Calls cells.
    Cells(durable::partha::Cells),
    /// Writes into LMDB.
    Lmdb(durable::lmdb::Commits),
    /// Moves money between accounts at two nodes.
    Transfers(transfer::partha::Transfers),
    /// The same with an account that moves between the nodes.
    Moving(moving::client::Moving),
    /// The same between two databases.
    TwoPhase(external::postgres::Transfers),
    /// Makes accounts that have copies, or none; prints their uids.
    MakeCopies(copies::client::Making),
    /// Calls accounts that have copies, or none.
    Copies(copies::client::Load),
    /// Puts values into etcd.
    Puts(external::etcd::Puts),
    /// Finds and binds objects.
    Binds(bind::client::Binds),
    /// Connects and stays: prints nothing until its standard input ends.
    Sessions(scale::memory::Sessions),
    /// Brings objects into memory.
    Activate(scale::memory::Activate),
}

/// The role of a server: until standard input ends.
pub(crate) fn serve(told: &str) -> anyhow::Result<()> {
    match serde_json::from_str(told).context("no server's description")? {
        Server::Node(wishes) => block_on(node::serve(wishes, node::Kind::Node)),
        Server::Naming(wishes) => block_on(node::serve(wishes, node::Kind::Naming)),
        Server::Binder(wishes) => block_on(node::serve(wishes, node::Kind::Binder)),
        Server::Postgres(dir) => external::postgres::serve(&dir),
        Server::Etcd(dir) => external::etcd::serve(&dir),
    }
}

/// The role of a client: once.
pub(crate) fn drive() -> anyhow::Result<()> {
    let mut told = String::new();
    std::io::stdin().read_line(&mut told)?;
    let client: Client = serde_json::from_str(&told).context("no client's description")?;
    match client {
        // LMDB waits for the disk on the thread that calls it, so there is nothing to await.
        Client::Lmdb(commits) => print(&durable::lmdb::run(&commits)?),
        Client::Sessions(sessions) => block_on(scale::memory::stay(sessions)),
        client => {
            let line = block_on(async {
                let run = tokio::time::timeout(GRACE, drive_one(client));
                run.await
                    .with_context(|| format!("no result after {GRACE:?}"))?
            })?;
            println!("{line}");
            Ok(())
        }
    }
}

async fn drive_one(client: Client) -> anyhow::Result<String> {
    Ok(match client {
        Client::MakeCells(making) => serde_json::to_string(&node::make_cells(making).await?)?,
        Client::MakeAccounts(making) => serde_json::to_string(&node::make_accounts(making).await?)?,
        Client::Cells(cells) => serde_json::to_string(&durable::partha::run(cells).await?)?,
        Client::Transfers(transfers) => {
            serde_json::to_string(&transfer::partha::run(transfers).await?)?
        }
        Client::Moving(moving) => serde_json::to_string(&moving::client::run(moving).await?)?,
        Client::TwoPhase(transfers) => {
            serde_json::to_string(&external::postgres::run(transfers).await?)?
        }
        Client::MakeCopies(making) => serde_json::to_string(&copies::client::make(making).await?)?,
        Client::Copies(load) => serde_json::to_string(&copies::client::run(load).await?)?,
        Client::Puts(puts) => serde_json::to_string(&external::etcd::run(puts).await?)?,
        Client::Binds(binds) => serde_json::to_string(&bind::client::run(binds).await?)?,
        Client::Activate(activate) => {
            serde_json::to_string(&scale::memory::activate(activate).await?)?
        }
        Client::Lmdb(_) | Client::Sessions(_) => bail!("not a client that is awaited"),
    })
}

fn print(found: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(found)?);
    Ok(())
}

/// Says that a server serves, and answers lines of standard input until there are no more.
pub(crate) fn attend(
    address: &str,
    mut answer: impl FnMut(&str) -> anyhow::Result<String>,
) -> anyhow::Result<()> {
    println!("ready {address}");
    for line in std::io::stdin().lock().lines() {
        println!("{}", answer(&line?)?);
    }
    Ok(())
}

/// In the role of a client: says a word, and waits for a line, or the end, of standard input.
pub(crate) async fn wait(word: &str) -> anyhow::Result<()> {
    println!("{word}");
    let line =
        tokio::task::spawn_blocking(|| std::io::stdin().lock().read_line(&mut String::new()));
    line.await??;
    Ok(())
}

/// Starts a server and waits until it serves.
pub(crate) fn start(what: &str, server: &Server) -> anyhow::Result<Running> {
    let mut command = ourselves("serve-disk")?;
    command.arg(serde_json::to_string(server)?);
    // So that memory that was freed is seen to be.
    command.env("MALLOC_ARENA_MAX", "1");
    Running::start(what, command, server.when_interrupted())
}

/// Starts a client that stays, and waits for its first line.
pub(crate) fn stay(what: &str, client: &Client) -> anyhow::Result<Running> {
    let mut running = Running::spawn(what, ourselves("drive-disk")?)?;
    running.write(&serde_json::to_string(client)?)?;
    let line = running.line()?;
    ensure!(line == "ready", "{what} said `{line}`");
    Ok(running)
}

/// Runs a client to its end.
pub(crate) fn run<T: DeserializeOwned>(what: &str, client: &Client) -> anyhow::Result<T> {
    let told = serde_json::to_string(client)?;
    process::run_client(what, ourselves("drive-disk")?, &told)
}

/// Ports of this machine that nobody listens at, for servers that have to know theirs beforehand.
pub(crate) fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    let listeners: Result<Vec<_>, _> = (0..count)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .collect();
    let listeners = listeners.context("cannot listen on 127.0.0.1, port 0")?;
    let ports = listeners.iter().map(|listener| listener.local_addr());
    let ports: Result<Vec<_>, _> = ports.map(|address| Ok(address?.port())).collect();
    ports.map_err(|error: std::io::Error| error.into())
}
