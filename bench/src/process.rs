//! The processes of a run: this program again in a hidden role, or somebody else's program.
//!
//! A server says `ready ADDRESS` on standard output and lives until its standard input ends,
//! hence never longer than who started it. A client prints its figures as one line of JSON. Each
//! keeps to the core it is told, since on a small machine the scheduler's choice is a good part of
//! a round trip.

use std::env;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::figure::Found;
use crate::interrupt;

/// Where client and server run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cores {
    /// Each on a core of its own.
    Split,
    /// Both on one core: no time is lost to waking the other.
    Same,
    /// Where the scheduler puts them.
    Any,
}

impl Cores {
    /// The cores of server and client, `None` for any.
    pub(crate) fn choose(self) -> anyhow::Result<(Option<usize>, Option<usize>)> {
        let allowed = sched_getaffinity(None).context("cannot ask for the cores we may use")?;
        let mut allowed = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
        let first = allowed.next().context("we may use no core at all")?;
        let last = allowed.next_back().unwrap_or(first);
        Ok(match self {
            Self::Any => (None, None),
            Self::Same => (Some(first), Some(first)),
            Self::Split => (Some(first), Some(last)),
        })
    }
}

/// This program in one of its hidden roles.
pub(crate) fn ourselves(role: &str) -> anyhow::Result<Command> {
    let mut command = Command::new(env::current_exe().context("cannot find our own program")?);
    command.arg(role);
    Ok(command)
}

/// A server process, ended on drop.
pub(crate) struct Server {
    child: Child,
    input: Option<ChildStdin>,
    /// What it said behind `ready`.
    pub(crate) address: String,
}

impl Server {
    /// Starts a server and waits until it is ready.
    pub(crate) fn start(what: &str, mut command: Command) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {what}"))?;
        let input = child.stdin.take();
        let output = child.stdout.take().expect("standard output is piped");
        let mut line = String::new();
        interrupt::wait_for(child.id(), || BufReader::new(output).read_line(&mut line))?;
        let Some(address) = line.trim_end().strip_prefix("ready ") else {
            // Its input ends here, hence so does the process.
            drop(input);
            let status = child.wait()?;
            interrupt::check()?;
            bail!("{what} said `{}`, ended with {status}", line.trim());
        };
        Ok(Self {
            address: address.to_owned(),
            child,
            input,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

/// Runs a client process to its end.
pub(crate) fn run_client(what: &str, mut command: Command) -> anyhow::Result<Found> {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .with_context(|| format!("cannot start {what}"))?;
    let output = interrupt::wait_for(child.id(), || child.wait_with_output())?;
    interrupt::succeeded(what, output.status)?;
    serde_json::from_slice(&output.stdout).with_context(|| {
        let said = String::from_utf8_lossy(&output.stdout);
        format!("{what} printed no figures, but `{}`", said.trim())
    })
}

/// In the role of a server: says where it listens, and ends the process when its input ends.
pub(crate) fn ready(address: impl std::fmt::Display) {
    std::thread::spawn(|| {
        let mut rest = Vec::new();
        let _ = std::io::stdin().read_to_end(&mut rest);
        std::process::exit(0);
    });
    println!("ready {address}");
}

/// Keeps this thread, and those it starts, to a core.
pub(crate) fn keep_to(core: usize) -> anyhow::Result<()> {
    ensure!(core < CpuSet::MAX_CPU, "there is no core {core}");
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).with_context(|| format!("cannot keep to core {core}"))
}
