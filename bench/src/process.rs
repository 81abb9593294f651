//! The processes of a run: this program again, as a server or as a client.
//!
//! A server says `ready ADDRESS` on standard output and lives until its standard input ends,
//! hence never longer than who started it. A client prints its figures as one line of JSON. Each
//! keeps to the core it is told, since on a small machine the scheduler's choice is a good part of
//! a round trip.

use std::env;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::ValueEnum;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tokio::net::TcpListener;
use tokio::task::LocalSet;

use crate::load::{Load, Measurement};
use crate::peer::{self, Kind, Peer};

/// A run that takes longer than its time by this much has failed.
const GRACE: Duration = Duration::from_secs(30);

/// Where client and server run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Cores {
    /// Each on a core of its own
    Split,
    /// Both on one core: no time is lost to waking the other
    Same,
    /// Where the scheduler puts them
    Any,
}

impl Cores {
    /// The cores of server and client, `None` for any.
    ///
    /// Two threads of one process are not told where to run, since they are one client.
    pub(crate) fn choose(self, kind: Kind) -> anyhow::Result<(Option<usize>, Option<usize>)> {
        let allowed = sched_getaffinity(None).context("cannot ask for the cores we may use")?;
        let allowed: Vec<_> = (0..CpuSet::MAX_CPU)
            .filter(|&core| allowed.is_set(core))
            .collect();
        let (Some(&first), Some(&last)) = (allowed.first(), allowed.last()) else {
            bail!("we may use no core at all");
        };
        Ok(match (self, kind) {
            (Self::Any, _) | (_, Kind::OneProcess) => (None, None),
            (Self::Same, Kind::Processes) => (Some(first), Some(first)),
            (Self::Split, Kind::Processes) => (Some(first), Some(last)),
        })
    }
}

/// The role of a server: accepts connections until standard input ends.
pub(crate) fn serve(peer: Peer, core: Option<usize>) -> anyhow::Result<()> {
    std::thread::spawn(|| {
        let mut rest = Vec::new();
        let _ = std::io::stdin().read_to_end(&mut rest);
        std::process::exit(0);
    });
    block_on(core, async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("cannot listen on 127.0.0.1, port 0")?;
        println!("ready {}", listener.local_addr()?);
        peer::serve(peer, listener).await
    })
}

/// The role of a client: one run, its figures on standard output.
pub(crate) fn drive(
    peer: Peer,
    address: Option<SocketAddr>,
    load: Load,
    core: Option<usize>,
) -> anyhow::Result<()> {
    let limit = Duration::from_millis(load.warm_up_ms + load.measure_ms) + GRACE;
    let measurement = block_on(core, async {
        let run = tokio::time::timeout(limit, peer::drive(peer, address, load));
        run.await
            .with_context(|| format!("no result after {limit:?}"))?
    })?;
    println!("{}", serde_json::to_string(&measurement)?);
    Ok(())
}

fn block_on<T>(
    core: Option<usize>,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    if let Some(core) = core {
        let mut cores = CpuSet::new();
        cores.set(core);
        sched_setaffinity(None, &cores).with_context(|| format!("cannot keep to core {core}"))?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot make a runtime")?;
    LocalSet::new().block_on(&runtime, work)
}

/// A server process, ended on drop.
pub(crate) struct Server {
    child: Child,
    input: Option<ChildStdin>,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Starts the server of `peer` and waits until it listens.
    pub(crate) fn start(peer: Peer, core: Option<usize>) -> anyhow::Result<Self> {
        let mut command = ourselves("serve", peer, core)?;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start the server of {}", peer.label()))?;
        let input = child.stdin.take();
        let output = child.stdout.take().expect("standard output is piped");
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let address = line.trim_end().strip_prefix("ready ").map(str::parse);
        let Some(Ok(address)) = address else {
            // Its input ends here, hence so does the process.
            drop(input);
            let status = child.wait()?;
            bail!(
                "the server of {} said `{}`, ended with {status}",
                peer.label(),
                line.trim()
            );
        };
        Ok(Self {
            child,
            input,
            address,
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

/// Runs a client process to its end.
pub(crate) fn run_client(
    peer: Peer,
    server: Option<&Server>,
    load: Load,
    core: Option<usize>,
) -> anyhow::Result<Measurement> {
    let mut command = ourselves("drive", peer, core)?;
    command.args(["--outstanding", &load.outstanding.to_string()]);
    command.args(["--warm-up-ms", &load.warm_up_ms.to_string()]);
    command.args(["--measure-ms", &load.measure_ms.to_string()]);
    if let Some(server) = server {
        command.args(["--address", &server.address.to_string()]);
    }
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start the client of {}", peer.label()))?;
    ensure!(
        output.status.success(),
        "the client of {} failed: {}",
        peer.label(),
        output.status
    );
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("the client of {} printed no figures", peer.label()))
}

fn ourselves(role: &str, peer: Peer, core: Option<usize>) -> anyhow::Result<Command> {
    let program = env::current_exe().context("cannot find our own program")?;
    let name = peer
        .to_possible_value()
        .expect("every peer has a name on the command line");
    let mut command = Command::new(program);
    command.args([role, name.get_name()]);
    if let Some(core) = core {
        command.args(["--core", &core.to_string()]);
    }
    Ok(command)
}
