//! Child processes of `dev` and `demo`.
//!
//! A [`Process`] is a daemon: it says `ready KIND ADDRESS` on standard output when it serves, its
//! other lines go to whoever wants them, and it stops when its standard input ends, so that none
//! outlives this process however that ends. It runs in a process group of its own: Ctrl-C
//! reaches this process alone, which stops its children in order.
//!
//! Settings in the environment are meant for this process and not handed on; all that a child is
//! to know is said by flags.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;

/// How long a daemon may take to be ready.
const READY_DEADLINE: Duration = Duration::from_secs(60);
/// How long a daemon may take to stop before it is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(15);

/// How to start a daemon.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// What it is called here.
    pub(crate) name: String,
    pub(crate) command: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    /// The folder it runs in, if not this one.
    pub(crate) folder: Option<PathBuf>,
    /// Where it will listen.
    pub(crate) address: SocketAddr,
}

/// Takes what daemons print: the process's name, the line.
pub(crate) type Sink = Arc<dyn Fn(&str, &str) + Send + Sync>;

/// A running daemon.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    /// Held open: when it ends, the daemon stops. Not left in `child`, whose `wait` closes it.
    input: Option<ChildStdin>,
    ready: watch::Receiver<bool>,
}

impl Program {
    /// A daemon that is a subcommand of this very program.
    pub(crate) fn own(
        service: &str,
        name: &str,
        address: SocketAddr,
        store: PathBuf,
    ) -> anyhow::Result<Self> {
        let command = std::env::current_exe().context("cannot tell which program this is")?;
        let mut program = Self {
            name: name.to_owned(),
            command,
            arguments: vec!["serve".into(), service.into()],
            folder: None,
            address,
        };
        program.node_flags(store);
        Ok(program)
    }

    /// Adds the flags that every daemon takes.
    pub(crate) fn node_flags(&mut self, store: PathBuf) {
        let (name, listen) = (self.name.clone(), self.address.to_string());
        let flags: [OsString; 7] = [
            "--name".into(),
            name.into(),
            "--listen".into(),
            listen.into(),
            "--data-dir".into(),
            store.into(),
            "--stop-with-stdin".into(),
        ];
        self.arguments.extend(flags);
    }

    /// Adds one flag with its value.
    pub(crate) fn flag(mut self, flag: &str, value: impl ToString) -> Self {
        self.arguments.push(flag.into());
        self.arguments.push(value.to_string().into());
        self
    }

    /// Starts it.
    pub(crate) fn spawn(&self, sink: &Sink) -> anyhow::Result<Process> {
        let mut command = Command::new(&self.command);
        command
            .args(&self.arguments)
            .process_group(0)
            .kill_on_drop(true);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for (key, _) in std::env::vars_os() {
            if key.to_string_lossy().starts_with("PARTHA_") {
                command.env_remove(key);
            }
        }
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {} as {}", self.name, self.command.display()))?;
        let (sender, ready) = watch::channel(false);
        let input = child.stdin.take();
        let stdout = child.stdout.take().expect("standard output is piped");
        let stderr = child.stderr.take().expect("standard error is piped");
        tokio::spawn(lines(stdout, self.name.clone(), sink.clone(), Some(sender)));
        tokio::spawn(lines(stderr, self.name.clone(), sink.clone(), None));
        Ok(Process {
            name: self.name.clone(),
            child,
            input,
            ready,
        })
    }
}

impl Process {
    /// Waits until it serves.
    pub(crate) async fn ready(&mut self) -> anyhow::Result<()> {
        let (child, ready) = (&mut self.child, &mut self.ready);
        // Not the value itself: it is locked while it is held.
        let said = async { ready.wait_for(|ready| *ready).await.is_ok() };
        let waiting = async {
            tokio::select! {
                true = said => Ok(()),
                status = child.wait() => {
                    Err(anyhow!("it ended before it was ready: {}", status?))
                }
            }
        };
        let waited = tokio::time::timeout(READY_DEADLINE, waiting).await;
        let waited = waited.unwrap_or_else(|_| Err(anyhow!("not ready after {READY_DEADLINE:?}")));
        waited.with_context(|| format!("{} did not start", self.name))
    }

    /// What it is called here.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it has said that it serves.
    pub(crate) fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        self.child
            .wait()
            .await
            .with_context(|| format!("cannot wait for {}", self.name))
    }

    /// Kills it as a crash would, and waits until it is gone.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        self.child
            .kill()
            .await
            .with_context(|| format!("cannot kill {}", self.name))
    }

    /// Asks it to stop, by the end of its input; kills it if it does not.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.input.take());
        match tokio::time::timeout(STOP_DEADLINE, self.child.wait()).await {
            Ok(status) => {
                let status = status?;
                if !status.success() {
                    bail!("{} ended with {status}", self.name);
                }
                Ok(())
            }
            Err(_) => {
                self.kill().await?;
                bail!(
                    "{} did not stop within {STOP_DEADLINE:?} and was killed",
                    self.name
                )
            }
        }
    }
}

/// Hands lines on; the readiness line goes to whoever waits for it.
async fn lines(
    stream: impl AsyncRead + Unpin,
    name: String,
    sink: Sink,
    ready: Option<watch::Sender<bool>>,
) {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    while matches!(stream.read_until(b'\n', &mut line).await, Ok(count) if count > 0) {
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        match &ready {
            Some(ready) if text.starts_with("ready ") => drop(ready.send_replace(true)),
            Some(_) | None => sink(&name, text),
        }
        line.clear();
    }
}

/// Ports of the loopback interface that nobody listens on.
///
/// They lie below the range from which the system takes the ports of outgoing connections:
/// otherwise a client that tries to reach a killed daemon may be given the daemon's own port, be
/// connected to itself, and keep the daemon from coming back.
pub(crate) fn free_ports(count: usize) -> anyhow::Result<Vec<SocketAddr>> {
    const RANGE: std::ops::Range<u16> = 15_000..30_000;
    let mut held = Vec::new();
    // Two of us at the same time begin in different places.
    let start = std::process::id().wrapping_mul(31) as usize % RANGE.len();
    let candidates = RANGE.clone().cycle().skip(start).take(RANGE.len());
    for port in candidates {
        if held.len() == count {
            break;
        }
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            held.push(listener);
        }
    }
    if held.len() < count {
        bail!(
            "no {count} ports of 127.0.0.1 are free between {} and {}",
            RANGE.start,
            RANGE.end
        );
    }
    held.iter()
        .map(|listener| listener.local_addr().context("a port has no address"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_differ() {
        let mut ports = free_ports(5).unwrap();
        ports.sort();
        ports.dedup();
        assert_eq!(ports.len(), 5);
    }
}
