//! etcd: durable puts of 256 bytes into one member, over gRPC.
//!
//! The two messages of its protocol that a put takes are written out here, so that no compiler of
//! `.proto` files is needed. Members have the settings of their package but for where they listen.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use prost::Message;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use super::Database;
use crate::disk::load::{self, Caller, Pace};
use crate::disk::role::{self, Server};
use crate::disk::stage;
use crate::figure::{Found, Metric};
use crate::process::{self, Running};
use crate::suite::Absent;

const PROGRAM: &str = "/usr/bin/etcd";
const VALUE: [u8; 256] = [5; 256];
/// Keys that are put, over and over.
const KEYS: u64 = 1_000;

/// `etcdserverpb.PutRequest`: what is not named here stays at its default.
#[derive(Clone, PartialEq, Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `etcdserverpb.PutResponse`.
#[derive(Clone, PartialEq, Message)]
struct PutResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
}

/// `etcdserverpb.ResponseHeader`, as far as it is looked at.
#[derive(Clone, PartialEq, Message)]
struct ResponseHeader {
    /// Counts the changes of the whole store.
    #[prost(int64, tag = "3")]
    revision: i64,
}

/// Puts into a member.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Puts {
    /// Where it listens, as a URL.
    pub(crate) address: String,
    pub(crate) pace: Pace,
    /// The process above it.
    pub(crate) server: u32,
}

/// Why it cannot be measured here, if it cannot.
pub(crate) fn absent() -> Option<Absent> {
    let found = Path::new(PROGRAM).exists();
    (!found).then(|| Absent {
        peer: "etcd-put",
        why: format!("there is no {PROGRAM}; on Debian, apt-get install etcd-server"),
    })
}

/// A system of one member.
pub(crate) struct Member {
    server: Running,
    /// Last, so that it goes when nobody has files in it any more.
    _folder: TempDir,
}

impl Member {
    /// Starts it.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let folder = stage::folder()?;
        let server = Server::Etcd(folder.path().join("etcd"));
        Ok(Self {
            server: role::start("etcd", &server)?,
            _folder: folder,
        })
    }

    /// Puts into it.
    pub(crate) fn puts(&self, pace: Pace) -> anyhow::Result<Found> {
        let puts = Puts {
            address: self.server.address().to_owned(),
            pace,
            server: self.server.pid(),
        };
        role::run("etcd's client", &role::Client::Puts(puts))
    }
}

/// The role of a member, with its data in `dir`.
pub(crate) fn serve(dir: &Path) -> anyhow::Result<()> {
    let ports = role::free_ports(2)?;
    let url = |port: u16| format!("http://127.0.0.1:{port}");
    let (clients, peers) = (url(ports[0]), url(ports[1]));
    let mut command = Command::new(PROGRAM);
    command.arg("--data-dir").arg(dir);
    command.args(["--name", "bench", "--logger", "zap", "--log-level", "fatal"]);
    command.args([
        "--listen-client-urls",
        &clients,
        "--advertise-client-urls",
        &clients,
    ]);
    command.args([
        "--listen-peer-urls",
        &peers,
        "--initial-advertise-peer-urls",
        &peers,
    ]);
    command.args(["--initial-cluster", &format!("bench={peers}")]);
    // What the user has said about other members is not meant for this one.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ETCD_")) {
        command.env_remove(name);
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut database = Database::spawn("etcd", Signal::TERM, &mut command)?;
    database.ready(|| {
        process::block_on(async {
            let putter = Putter::connect(&clients).await?;
            putter.call(0).await.map(drop)
        })
    })?;
    role::attend(&clients, |line| bail!("'{line}' is an unknown word"))
}

struct Putter {
    channel: Channel,
    path: PathAndQuery,
}

impl Putter {
    async fn connect(address: &str) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(address.to_owned())?.tcp_nodelay(true);
        let channel = endpoint.connect().await.context("cannot connect to etcd")?;
        let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
        Ok(Self { channel, path })
    }

    /// Puts the value of this number; answers the store's revision.
    async fn put(&self, n: u64) -> anyhow::Result<i64> {
        let mut client = Grpc::new(self.channel.clone());
        client.ready().await.context("etcd is not ready")?;
        let request = PutRequest {
            key: format!("key {:04}", n % KEYS).into_bytes(),
            value: VALUE.to_vec(),
        };
        let codec = ProstCodec::<PutRequest, PutResponse>::new();
        let request = tonic::Request::new(request);
        let answer = client.unary(request, self.path.clone(), codec).await?;
        let header = answer.into_inner().header;
        Ok(header.context("an answer without a header")?.revision)
    }
}

impl Caller for Putter {
    async fn call(&self, n: u64) -> anyhow::Result<()> {
        self.put(n).await.map(drop)
    }
}

/// The role of the client.
pub(crate) async fn run(told: Puts) -> anyhow::Result<Found> {
    let putter = Putter::connect(&told.address).await?;
    let before = putter.put(0).await?;
    let found = load::drive(&putter, told.pace, &[told.server]).await?;
    let put = putter.put(0).await? - before - 1;
    let calls = found
        .metrics
        .get(&Metric::Calls)
        .copied()
        .unwrap_or_default();
    ensure!(
        put as f64 == calls,
        "{calls} puts were answered, {put} are in the store"
    );
    Ok(found)
}
