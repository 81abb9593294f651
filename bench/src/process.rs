//! The processes of a run: this program again in a hidden role, or somebody else's program.
//!
//! A server says `ready ADDRESS` on standard output and lives until its standard input ends,
//! hence never longer than who started it. A client prints its figures as one line of JSON. Each
//! keeps to the core it is told, since on a small machine the scheduler's choice is a good part of
//! a round trip.
//!
//! Each has a temporary folder of its own, which is removed once it has ended: a process that is
//! ended, or that exits, removes none.

use std::env;
use std::fmt::Display;
use std::fs::Permissions;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use tokio::task::LocalSet;

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
        let (first, last) = first_and_last()?;
        Ok(match self {
            Self::Any => (None, None),
            Self::Same => (Some(first), Some(first)),
            Self::Split => (Some(first), Some(last)),
        })
    }
}

/// The first and the last core that this process may use.
fn first_and_last() -> anyhow::Result<(usize, usize)> {
    let allowed = sched_getaffinity(None).context("cannot ask for the cores we may use")?;
    let mut allowed = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
    let first = allowed.next().context("we may use no core at all")?;
    Ok((first, allowed.next_back().unwrap_or(first)))
}

/// Warns where [`Cores::Split`] cannot be what it says.
pub(crate) fn warn_of_one_core() -> anyhow::Result<()> {
    let (first, last) = first_and_last()?;
    if first == last {
        eprintln!(
            "warning: only core {first} may be used: client and server share it in the cases of \
             two cores, too"
        );
    }
    Ok(())
}

/// This program in one of its hidden roles.
pub(crate) fn ourselves(role: &str) -> anyhow::Result<Command> {
    let mut command = Command::new(env::current_exe().context("cannot find our own program")?);
    command.arg(role);
    Ok(command)
}

/// Runs `work` on a runtime of this thread.
pub(crate) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot make a runtime")?;
    LocalSet::new().block_on(&runtime, work)
}

/// Whether an interruption ends a process while it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// At once.
    Ended,
    /// It is waited for, since it has started others, and ends them only once it serves.
    Awaited,
}

/// A process that stays, and is talked to in lines; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    what: String,
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    address: String,
    /// Last, so that it goes when nobody has files in it any more.
    _folder: TempDir,
}

impl Running {
    /// Starts a server and waits until it serves.
    pub(crate) fn start(what: &str, command: Command, start: Start) -> anyhow::Result<Self> {
        let mut running = Self::spawn(what, command)?;
        let line = match start {
            Start::Ended => interrupt::wait_for(running.pid(), || running.line())?,
            Start::Awaited => running.line()?,
        };
        let Some(address) = line.strip_prefix("ready ") else {
            // Its input ends here, hence so does the process.
            drop(running.input.take());
            let status = running.child.wait()?;
            interrupt::check()?;
            bail!("{what} said `{line}`, ended with {status}");
        };
        running.address = address.to_owned();
        interrupt::check()?;
        Ok(running)
    }

    /// Starts a process, which has said nothing yet.
    pub(crate) fn spawn(what: &str, mut command: Command) -> anyhow::Result<Self> {
        let folder = folder()?;
        let mut child = command
            .env("TMPDIR", folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {what}"))?;
        let input = child.stdin.take();
        let output = child.stdout.take().expect("standard output is piped");
        Ok(Self {
            what: what.to_owned(),
            child,
            input,
            output: BufReader::new(output),
            address: String::new(),
            _folder: folder,
        })
    }

    /// What it says next; nothing if it has ended.
    pub(crate) fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    /// Tells it something.
    pub(crate) fn write(&mut self, line: &str) -> anyhow::Result<()> {
        let input = self.input.as_mut().context("its input has ended")?;
        writeln!(input, "{line}").with_context(|| format!("{} is gone", self.what))
    }

    /// Tells it something, and waits for what it says to that.
    pub(crate) fn tell(&mut self, line: &str) -> anyhow::Result<String> {
        self.write(line)?;
        let answer = self.line()?;
        ensure!(!answer.is_empty(), "{} is gone", self.what);
        Ok(answer)
    }

    /// What it said behind `ready`: where it listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Its process, which is that of the database's parent where there is one.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

/// Runs a client process, which is told something on standard input, to its end.
pub(crate) fn run_client<T: DeserializeOwned>(
    what: &str,
    mut command: Command,
    told: &str,
) -> anyhow::Result<T> {
    let folder = folder()?;
    let mut child = command
        .env("TMPDIR", folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .with_context(|| format!("cannot start {what}"))?;
    let mut input = child.stdin.take().expect("standard input is piped");
    // A client that has ended says why itself.
    let _ = writeln!(input, "{told}");
    drop(input);
    let output = interrupt::wait_for(child.id(), || child.wait_with_output())?;
    interrupt::succeeded(what, output.status)?;
    serde_json::from_slice(&output.stdout).with_context(|| {
        let said = String::from_utf8_lossy(&output.stdout);
        format!("{what} printed no figures, but `{}`", said.trim())
    })
}

/// A temporary folder, on the disk that is measured.
pub(crate) fn folder() -> anyhow::Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("partha-bench-").tempdir();
    let folder = folder.context("cannot make a temporary folder; TMPDIR says where")?;
    // A database that runs as a user of its own has to get to its folder in this one.
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o711))?;
    Ok(folder)
}

/// In the role of a server: says where it listens, and ends the process when its input ends.
pub(crate) fn ready(address: impl Display) {
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
