//! Server processes: children of a node in which the servants of some classes run.
//!
//! Which classes, and whether a process serves a class or an object, is said when the node is
//! built ([`ActivationPolicy`]). A process is started by the first call that needs it, and it
//! connects to the node and offers a transient object, `ServerProcess`, that executes calls. It
//! holds no state: that goes with each call and comes back with its answer, so the process can
//! die at any time and the next call starts another. After a crash, or when the node has had to
//! kill it, the next start waits, twice as long after each, until a call has ended well again.
//!
//! Here is the table; `keeper` starts and watches the processes, `execute` is the side of a
//! call, `child` the side of the process.

mod child;
mod execute;
mod keeper;
mod table;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ffi::OsString;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use partha_core::id::{ClassId, Uid};
use tokio::sync::{mpsc, oneshot, watch};

pub(crate) use self::child::Wish;
pub(crate) use self::execute::execute;
pub(crate) use self::keeper::start;

use self::keeper::Command;
use self::table::{Server, Step, Table};
use crate::abi::ClassInfo;
use crate::config::SERVERS_MAX;
use crate::error::{ErrorKind, Result, SystemError};
use crate::net::connection::lock;
use crate::system::ServerProcess;

/// Where the servants of a class run, and with what others they share a process: Arjuna's choice
/// between a new server and an existing one at each activation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ActivationPolicy {
    /// An existing server: in the process of the node.
    #[default]
    InProcess,
    /// A new server for the class: all its objects at the node share a process of their own.
    ProcessPerClass,
    /// A new server for each object. It ends when the object leaves memory after it was idle; if
    /// that lost its image, since a change was undone, when it was not used for as long as idle
    /// objects stay in memory, or before that if another object needs a process and there are
    /// [`NodeBuilder::servers_max`](crate::NodeBuilder::servers_max) of them.
    ProcessPerObject,
}

/// A server process of a node, for people and tools.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerReport {
    /// The class it serves.
    pub class: &'static str,
    /// The object it serves; none if it serves all of the class.
    pub object: Option<Uid>,
    /// Its process id, while it runs.
    pub pid: Option<u32>,
    /// How long it has run.
    pub age: Option<Duration>,
    /// How often it was started again.
    pub restarts: u32,
    /// Crashes since a call has ended well there; that the node had to kill it counts as one.
    pub crashes: u32,
    /// How the latest one ended, if one has.
    pub last_exit: Option<String>,
    /// Time until the next start is tried, after crashes.
    pub pause: Option<Duration>,
}

/// What a process serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    class: ClassId,
    /// None: all objects of the class.
    object: Option<Uid>,
    name: &'static str,
}

/// How the processes of a node are started.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// None: the node's own.
    pub(crate) program: Option<OsString>,
    pub(crate) arguments: Vec<OsString>,
    /// Environment variables besides those of the node.
    pub(crate) variables: Vec<(OsString, OsString)>,
}

/// The server processes of a node.
#[derive(Debug)]
pub(crate) struct Servers {
    policies: HashMap<ClassId, ActivationPolicy>,
    /// Whether what becomes of single objects matters.
    per_object: bool,
    max: usize,
    /// How long a process may be unused by an object whose image was dropped.
    idle: Duration,
    table: Mutex<Table>,
    /// To the thread that starts and watches them.
    keeper: OnceLock<mpsc::UnboundedSender<Command>>,
}

impl Default for Servers {
    fn default() -> Self {
        Self::new(HashMap::new(), SERVERS_MAX, Duration::MAX)
    }
}

impl Key {
    /// In words.
    fn describe(self) -> String {
        match self.object {
            Some(object) => format!("the server process of {} {object}", self.name),
            None => format!("the server process of {}", self.name),
        }
    }
}

impl Servers {
    /// `max` bounds the processes; one may be unused for `idle`.
    pub(crate) fn new(
        policies: HashMap<ClassId, ActivationPolicy>,
        max: usize,
        idle: Duration,
    ) -> Self {
        let per_object = |policy: &_| matches!(policy, ActivationPolicy::ProcessPerObject);
        Self {
            per_object: policies.values().any(per_object),
            policies,
            max,
            idle,
            table: Mutex::default(),
            keeper: OnceLock::new(),
        }
    }

    /// Whether any class has processes.
    pub(crate) fn are_used(&self) -> bool {
        !self.policies.is_empty()
    }

    /// The process that serves an object, if it is not this one.
    pub(super) fn key(&self, info: &'static ClassInfo, object: Uid) -> Option<Key> {
        if self.policies.is_empty() {
            return None;
        }
        let object = match self.policies.get(&info.id)? {
            ActivationPolicy::InProcess => return None,
            ActivationPolicy::ProcessPerClass => None,
            ActivationPolicy::ProcessPerObject => Some(object),
        };
        Some(Key {
            class: info.id,
            object,
            name: info.name,
        })
    }

    /// The process that serves this; started if need be, for as long as `deadline` allows.
    async fn up(&self, key: Key, deadline: Instant) -> Result<Arc<Server>> {
        let mut asked = false;
        loop {
            let step = lock(&self.table).want(key, self.max, deadline, asked)?;
            let mut changes = match step {
                Step::Up(server) => return Ok(server),
                Step::Doubt(changes) => {
                    // What becomes of that process is no failed start of this call.
                    asked = false;
                    changes
                }
                Step::Pause(until) => {
                    tokio::time::sleep_until(until.into()).await;
                    continue;
                }
                Step::Start { number, changes } => {
                    self.order(Command::Start { key, number })?;
                    asked = true;
                    changes
                }
                Step::Wait(changes) => {
                    asked = true;
                    changes
                }
                Step::Room { end, changes } => {
                    if let Some(number) = end {
                        self.order(Command::End { number })?;
                    }
                    changes
                }
            };
            let changed = wait(&mut changes, deadline).await;
            changed.map_err(|_| {
                let detail = format!("{} was not ready in time", key.describe());
                SystemError::new(ErrorKind::Deadline, detail)
            })?;
        }
    }

    fn order(&self, command: Command) -> Result<()> {
        let keeper = self.keeper.get();
        let sent = keeper.is_some_and(|keeper| keeper.send(command).is_ok());
        sent.then_some(()).ok_or_else(|| {
            let detail = "the node is shutting down, and with it its server processes";
            SystemError::new(ErrorKind::Draining, detail)
        })
    }

    /// A process has connected, and says with what it was started.
    pub(crate) fn offered(&self, token: &[u8], server: ServerProcess) -> Result<()> {
        let waiting = lock(&self.table).tokens.remove(token);
        let taken = waiting.is_some_and(|waiting| waiting.send(server).is_ok());
        taken.then_some(()).ok_or_else(|| {
            let detail = "a server process is offered that this node does not wait for: it was \
                          not started by it, has been given up, or has come before";
            SystemError::new(ErrorKind::BadOperation, detail)
        })
    }

    /// The object has left memory: a process of its own has nothing to do any more.
    pub(super) fn passivated(&self, object: Uid) {
        if !self.per_object {
            return;
        }
        let number = lock(&self.table).forget(object);
        if let Some(number) = number {
            // A keeper that is gone has ended it.
            let _ = self.order(Command::End { number });
        }
    }

    /// The image of an object is dropped: until its next call, which brings another image, it
    /// does not need its process. How that has crashed is remembered.
    pub(super) fn dropped(&self, object: Uid) {
        if self.per_object {
            lock(&self.table).unused(object);
        }
    }

    /// Ends all processes and starts no more.
    pub(crate) fn end(&self) {
        if self.are_used() {
            // One that has ended already is fine.
            let _ = self.order(Command::EndAll);
        }
    }

    /// All processes, and those that were and are to be again.
    pub(crate) fn reports(&self) -> Vec<ServerReport> {
        lock(&self.table).reports()
    }
}

/// Waits until something has happened to a process.
async fn wait(changes: &mut watch::Receiver<u64>, deadline: Instant) -> Result<(), ()> {
    let changed = tokio::time::timeout_at(deadline.into(), changes.changed()).await;
    // An entry that is forgotten is looked for again.
    changed.map_err(|_| ()).map(|_| ())
}

/// What is waited for when a process has been started: its offer.
type Offer = oneshot::Sender<ServerProcess>;
