//! PostgreSQL: transfers by two-phase commit over two servers.
//!
//! The servers have the settings of their package but for where they listen, how many may connect
//! and how many transactions may be prepared: so a commit is synced. They are reached over Unix
//! sockets, which is their quickest way. A transfer is what a good client does:
//!
//! 1. `BEGIN` and the `UPDATE` of the account at the first server, sent together;
//! 2. the same at the second;
//! 3. `PREPARE TRANSACTION` at both at the same time;
//! 4. `COMMIT PREPARED` at both at the same time.
//!
//! Between 3 and 4 a real coordinator would write down its decision durably; this one does not,
//! which is to PostgreSQL's advantage. Each client has a connection of its own to each server.

use std::cell::RefCell;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use futures_util::future::try_join_all;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::try_join;
use tokio_postgres::{Client, NoTls, Statement};

use super::Database;
use crate::disk::load::{self, Caller, Pace};
use crate::disk::node::BEGIN_CENTS;
use crate::disk::role::{self, Server};
use crate::disk::stage;
use crate::disk::transfer::{check_total, choose};
use crate::figure::{Found, Metric};
use crate::process::{self, Running};
use crate::suite::Absent;

const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";
/// Connections beside those of the clients: ours, and those of the server's own clean-up.
const SPARE: usize = 20;
/// The administrator of a new data folder.
const ADMINISTRATOR: &str = "postgres";

/// Why it cannot be measured here, if it cannot.
pub(crate) fn absent() -> Option<Absent> {
    let found = Path::new(PROGRAMS).join("postgres").exists();
    (!found).then(|| Absent {
        peer: "postgres-2pc",
        why: format!(
            "there is no {PROGRAMS}/postgres; on Debian 12, apt-get install postgresql-15"
        ),
    })
}

/// Two servers, each with half of the accounts.
pub(crate) struct Pair {
    servers: [Running; 2],
    accounts: usize,
    /// Last, so that it goes when nobody has files in it any more.
    _folder: TempDir,
}

/// Transfers between two servers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Transfers {
    /// The folders of their sockets.
    sockets: Vec<String>,
    /// Accounts at each.
    accounts: usize,
    pace: Pace,
    servers: Vec<u32>,
}

impl Pair {
    /// Starts two servers with `accounts` each.
    pub(crate) fn start(accounts: usize) -> anyhow::Result<Self> {
        let folder = stage::folder()?;
        let start = |name: &str| {
            let server = Server::Postgres(folder.path().join(name));
            role::start("PostgreSQL", &server)
        };
        let servers = [start("a")?, start("b")?];
        process::block_on(async {
            try_join_all(servers.iter().map(|server| fill(server, accounts))).await
        })?;
        Ok(Self {
            servers,
            accounts,
            _folder: folder,
        })
    }

    /// Transfers between them.
    pub(crate) fn transfers(&self, pace: Pace) -> anyhow::Result<Found> {
        let sockets = self
            .servers
            .iter()
            .map(|server| server.address().to_owned());
        let transfers = Transfers {
            sockets: sockets.collect(),
            accounts: self.accounts,
            pace,
            servers: self.servers.iter().map(Running::pid).collect(),
        };
        role::run("PostgreSQL's client", &role::Client::TwoPhase(transfers))
    }
}

async fn fill(server: &Running, accounts: usize) -> anyhow::Result<()> {
    let client = connect(server.address()).await?;
    let fill = format!(
        "CREATE TABLE account (id int PRIMARY KEY, owner text, balance bigint, count bigint);
         INSERT INTO account
         SELECT id, 'owner ' || id, {BEGIN_CENTS}, 0 FROM generate_series(0, {last}) AS id;",
        last = accounts - 1
    );
    Ok(client.batch_execute(&fill).await?)
}

/// Connects to the server whose socket is in this folder.
async fn connect(socket: &str) -> anyhow::Result<Client> {
    let settings = format!("host={socket} user={ADMINISTRATOR} dbname=postgres");
    let connected = tokio_postgres::connect(&settings, NoTls).await;
    let (client, connection) = connected.context("cannot connect to PostgreSQL")?;
    tokio::spawn(connection);
    Ok(client)
}

/// The role of a server, with its data in `dir`.
pub(crate) fn serve(dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let owner = owner()?;
    if let Some((user, group)) = owner {
        chown(dir, Some(user), Some(group)).context("cannot give a folder to its user")?;
        let reachable = Command::new("test")
            .arg("-x")
            .arg(dir)
            .uid(user)
            .gid(group)
            .status()?;
        ensure!(
            reachable.success(),
            "the user {ADMINISTRATOR} cannot reach {}: let others pass its parents (chmod o+x), \
             or choose another place by TMPDIR",
            dir.display()
        );
    }
    let (data, socket) = (dir.join("data"), dir.to_owned());
    let mut made = program("initdb", owner);
    made.arg("-D")
        .arg(&data)
        .args(["-U", ADMINISTRATOR, "-A", "trust", "--no-sync"]);
    let made = made.current_dir(dir).stdout(Stdio::null()).status()?;
    ensure!(made.success(), "initdb failed: {made}");
    let connections = stage::CLIENTS_MAX + SPARE;
    let mut server = program("postgres", owner);
    server.arg("-D").arg(&data).arg("-k").arg(&socket);
    for setting in [
        "listen_addresses=".to_owned(),
        format!("max_connections={connections}"),
        format!("max_prepared_transactions={connections}"),
        "log_min_messages=fatal".to_owned(),
    ] {
        server.arg("-c").arg(setting);
    }
    server
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // SIGINT is its fast shutdown: clients are cut off, the rest is in good order.
    let mut database = Database::spawn("PostgreSQL", Signal::INT, &mut server)?;
    let socket = socket.to_str().context("a folder whose name is no text")?;
    database.ready(|| process::block_on(async { connect(socket).await.map(drop) }))?;
    role::attend(socket, |line| bail!("'{line}' is an unknown word"))
}

fn program(name: &str, owner: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(PathBuf::from(PROGRAMS).join(name));
    if let Some((user, group)) = owner {
        command.uid(user).gid(group);
    }
    command.env("LC_ALL", "C");
    command
}

/// The user and group to run it as: nobody else than us, unless we are root, as whom it refuses to
/// run; then the user that its package has made.
fn owner() -> anyhow::Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let users = std::fs::read_to_string("/etc/passwd").context("cannot list users")?;
    let found = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let ours = fields.next()? == ADMINISTRATOR;
        let (user, group) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        ours.then_some((user, group))
    });
    let absent = "PostgreSQL does not run as root, and there is no user `postgres`";
    found.context(absent).map(Some)
}

/// A client's connections.
struct Ends {
    servers: [End; 2],
}

struct End {
    client: Client,
    add: Statement,
}

impl End {
    async fn connect(socket: &str) -> anyhow::Result<Self> {
        let client = connect(socket).await?;
        let add = "UPDATE account SET balance = balance + $2, count = count + 1 \
                   WHERE id = $1 AND balance + $2 >= 0";
        let add = client.prepare(add).await?;
        Ok(Self { client, add })
    }

    /// Begins a transaction and changes an account in it: one round trip.
    async fn change(&self, account: usize, by: i64) -> anyhow::Result<()> {
        let account = i32::try_from(account)?;
        let begin = self.client.batch_execute("BEGIN");
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&account, &by];
        let change = self.client.execute(&self.add, &parameters);
        let ((), changed) = try_join!(begin, change)?;
        ensure!(changed == 1, "account {account} holds too little");
        Ok(())
    }
}

/// Clients that are not making a transfer just now.
struct Mover {
    idle: RefCell<Vec<Ends>>,
    accounts: usize,
    /// Names of transactions are this run's own.
    run: u32,
}

impl Caller for Mover {
    async fn call(&self, n: u64) -> anyhow::Result<()> {
        let ends = self.idle.borrow_mut().pop();
        let ends = ends.context("there are as many connections as calls under way")?;
        let (first, second, onward) = choose(n, [self.accounts; 2]);
        let by = if onward { -1 } else { 1 };
        let [a, b] = &ends.servers;
        a.change(first, by).await?;
        b.change(second, -by).await?;
        let name = format!("{}-{n}", self.run);
        let prepare = format!("PREPARE TRANSACTION '{name}'");
        try_join!(
            a.client.batch_execute(&prepare),
            b.client.batch_execute(&prepare)
        )?;
        let commit = format!("COMMIT PREPARED '{name}'");
        try_join!(
            a.client.batch_execute(&commit),
            b.client.batch_execute(&commit)
        )?;
        self.idle.borrow_mut().push(ends);
        Ok(())
    }
}

/// The role of the client.
pub(crate) async fn run(told: Transfers) -> anyhow::Result<Found> {
    let [a, b] = &told.sockets[..] else {
        bail!("there are two servers");
    };
    let mut idle = Vec::with_capacity(told.pace.clients);
    for _ in 0..told.pace.clients {
        let (a, b) = try_join!(End::connect(a), End::connect(b))?;
        idle.push(Ends { servers: [a, b] });
    }
    let mover = Mover {
        idle: RefCell::new(idle),
        accounts: told.accounts,
        run: std::process::id(),
    };
    let before = counts(&told.sockets).await?;
    let found = load::drive(&mover, told.pace, &told.servers).await?;
    let after = counts(&told.sockets).await?;
    check_total(after.money, 2 * told.accounts, BEGIN_CENTS)?;
    ensure!(
        after.prepared == 0,
        "{} transactions are left prepared",
        after.prepared
    );
    let (answered, changed) = (
        found.metrics[&Metric::Calls],
        after.changes - before.changes,
    );
    ensure!(
        2.0 * answered == changed as f64,
        "{answered} transfers were answered, {changed} accounts are changed"
    );
    Ok(found)
}

/// What the servers hold together.
#[derive(Default)]
struct Counts {
    money: i64,
    changes: i64,
    prepared: i64,
}

async fn counts(sockets: &[String]) -> anyhow::Result<Counts> {
    let mut sum = Counts::default();
    for socket in sockets {
        let client = connect(socket).await?;
        let count = "SELECT sum(balance)::bigint, sum(count)::bigint, \
                     (SELECT count(*) FROM pg_prepared_xacts) FROM account";
        let row = client.query_one(count, &[]).await?;
        sum.money += row.get::<_, i64>(0);
        sum.changes += row.get::<_, i64>(1);
        sum.prepared += row.get::<_, i64>(2);
    }
    Ok(sum)
}
