//! Databases of others that are measured beside us, if they are installed.
//!
//! Each is started on fresh data beside ours, from the files of its Debian package, by a process
//! of this program that ends it when its own standard input ends.

pub(crate) mod etcd;
pub(crate) mod postgres;

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long a database may take to start, and to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A database's own process; ended in good order when this is dropped.
struct Database {
    what: &'static str,
    child: Child,
    /// What it takes for a wish to end.
    end: Signal,
}

impl Database {
    fn spawn(what: &'static str, end: Signal, command: &mut Command) -> anyhow::Result<Self> {
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {what}"))?;
        Ok(Self { what, child, end })
    }

    /// Waits until `serves` says that it does.
    fn ready(&mut self, serves: impl Fn() -> anyhow::Result<()>) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended at its start with {status}", self.what);
            }
            match serves() {
                Ok(()) => return Ok(()),
                Err(error) if begun.elapsed() > PATIENCE => {
                    let what = self.what;
                    return Err(error.context(format!("{what} does not serve after {PATIENCE:?}")));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), self.end);
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(10)),
                Ok(Some(_)) | Err(_) => return,
            }
        }
        eprintln!("{} did not end after {PATIENCE:?} and is killed", self.what);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
