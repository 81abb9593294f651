//! The table of server processes: what is up, what is starting, what rests after a crash.
//!
//! An entry is of one class or one object. It has at most one process, whose number nothing else
//! of the node's life has. Processes that run are bounded; entries without one are forgotten when
//! there are many.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use partha_core::id::Uid;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use tokio::sync::watch;

use super::{Key, Offer, ServerReport};
use crate::config::{SERVER_PAUSE, SERVER_PAUSE_MAX};
use crate::error::{ErrorKind, Result, SystemError};
use crate::system::ServerProcess;

/// Entries without a process that are remembered, for their pauses and for people.
const RESTING_MAX: usize = 256;

/// A process that takes calls.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) number: u64,
    pub(super) pid: u32,
    pub(super) stub: ServerProcess,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    last: u64,
    last_execution: u64,
    entries: BTreeMap<Key, Entry>,
    /// Processes that run, those that are being ended included.
    live: usize,
    /// Processes that have been started and have not offered themselves yet.
    pub(super) tokens: HashMap<Vec<u8>, Offer>,
}

#[derive(Debug)]
struct Entry {
    phase: Phase,
    starts: u32,
    /// Crashes since a call has ended well, kills by the node among them.
    crashes: u32,
    last_exit: Option<String>,
    not_before: Option<Instant>,
    /// Since when its object has had no image, so that nobody needs the process.
    unused_since: Option<Instant>,
    /// The process was told to end, or is about to be.
    ending: bool,
    /// Counts what happens.
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
enum Phase {
    Down,
    Starting {
        number: u64,
        since: Instant,
        pid: Option<u32>,
    },
    Up {
        server: Arc<Server>,
        since: Instant,
        /// Calls that are being stopped there, or its kill: it may not live long.
        stopping: u32,
    },
}

/// What a call that wants a process has to do.
pub(super) enum Step {
    /// Use it.
    Up(Arc<Server>),
    /// It may be killed soon: see what becomes of it.
    Doubt(watch::Receiver<u64>),
    /// Try again then.
    Pause(Instant),
    /// Have it started, then wait.
    Start {
        number: u64,
        changes: watch::Receiver<u64>,
    },
    /// Wait for somebody else's start.
    Wait(watch::Receiver<u64>),
    /// There are as many as there may be: wait until one that nobody needs has ended.
    Room {
        /// The one that is to be told to.
        end: Option<u64>,
        changes: watch::Receiver<u64>,
    },
}

impl Table {
    /// Somebody needs the process. `asked`: has waited for a start already, so that a failed one
    /// is its answer.
    pub(super) fn want(
        &mut self,
        key: Key,
        max: usize,
        deadline: Instant,
        asked: bool,
    ) -> Result<Step> {
        self.tidy();
        let (now, live) = (Instant::now(), self.live);
        let entry = self.entries.entry(key).or_insert_with(Entry::new);
        entry.unused_since = None;
        match &entry.phase {
            Phase::Up { .. } | Phase::Starting { .. } if entry.ending => {
                return Ok(Step::Doubt(entry.changes.subscribe()));
            }
            Phase::Up {
                server,
                stopping: 0,
                ..
            } if !server.has_ended() => return Ok(Step::Up(server.clone())),
            Phase::Up { .. } => return Ok(Step::Doubt(entry.changes.subscribe())),
            Phase::Starting { .. } => return Ok(Step::Wait(entry.changes.subscribe())),
            Phase::Down if asked && entry.last_exit.is_some() => return Err(entry.failed(key)),
            Phase::Down => {}
        }
        match entry.not_before.filter(|at| *at > now) {
            Some(at) if at >= deadline => return Err(entry.failed(key)),
            Some(at) => return Ok(Step::Pause(at)),
            None => {}
        }
        if live >= max {
            return self.room().ok_or_else(|| too_many(key, max));
        }
        self.last += 1;
        self.live += 1;
        let (number, since, pid) = (self.last, now, None);
        entry.phase = Phase::Starting { number, since, pid };
        entry.starts = entry.starts.saturating_add(1);
        let changes = entry.changes.subscribe();
        Ok(Step::Start { number, changes })
    }

    /// Makes room for another process: none if all are needed.
    fn room(&mut self) -> Option<Step> {
        let entries = self.entries.values_mut();
        let unused = entries.filter(|entry| entry.number().is_some() && !entry.ending);
        let unused = unused.filter_map(|entry| Some((entry.unused_since?, entry)));
        if let Some((_, longest)) = unused.min_by_key(|(since, _)| *since) {
            longest.ending = true;
            let (end, changes) = (longest.number(), longest.changes.subscribe());
            return Some(Step::Room { end, changes });
        }
        let mut ending = self.entries.values().filter(|entry| entry.ending);
        let changes = ending.next()?.changes.subscribe();
        Some(Step::Room { end: None, changes })
    }

    /// The image of an object is gone: until it is wanted again, nobody needs its process.
    pub(super) fn unused(&mut self, object: Uid) {
        let mut entries = self.entries.iter_mut();
        if let Some((_, entry)) = entries.find(|(key, _)| key.object == Some(object)) {
            entry.unused_since = Some(Instant::now());
        }
    }

    /// The processes that nobody has needed for so long: each is to be told to end.
    pub(super) fn idle(&mut self, idle: Duration) -> Vec<u64> {
        let entries = self.entries.values_mut();
        let over = entries.filter(|entry| {
            let unused = entry.unused_since.map(|since| since.elapsed());
            !entry.ending && unused.is_some_and(|unused| unused >= idle)
        });
        over.filter_map(|entry| {
            let number = entry.number()?;
            entry.ending = true;
            Some(number)
        })
        .collect()
    }

    /// A number for a call that is about to be executed.
    pub(super) fn execution(&mut self) -> u64 {
        self.last_execution += 1;
        self.last_execution
    }

    fn tidy(&mut self) {
        if self.entries.len() > self.live + RESTING_MAX {
            let now = Instant::now();
            self.entries.retain(|_, entry| {
                let rests = entry.not_before.is_some_and(|at| at > now);
                rests || !matches!(entry.phase, Phase::Down)
            });
        }
    }

    fn of(&mut self, key: Key, number: u64) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(&key)?;
        (entry.number() == Some(number)).then_some(entry)
    }

    /// The process exists.
    pub(super) fn born(&mut self, key: Key, number: u64, process: u32) {
        if let Some(entry) = self.of(key, number)
            && let Phase::Starting { pid, .. } = &mut entry.phase
        {
            *pid = Some(process);
        }
    }

    /// The process takes calls.
    pub(super) fn ready(&mut self, key: Key, server: Server) {
        if let Some(entry) = self.of(key, server.number) {
            let since = Instant::now();
            let server = Arc::new(server);
            let stopping = 0;
            entry.set(Phase::Up {
                server,
                since,
                stopping,
            });
        }
    }

    /// A call is being stopped there, or it is about to be killed: nobody else is to call there
    /// until it is known how that ends.
    pub(super) fn doubt(&mut self, key: Key, number: u64) {
        if let Some(entry) = self.of(key, number)
            && let Phase::Up { stopping, .. } = &mut entry.phase
        {
            *stopping += 1;
        }
    }

    /// A call has stopped there.
    pub(super) fn stopped(&mut self, key: Key, number: u64) {
        if let Some(entry) = self.of(key, number)
            && let Phase::Up { stopping, .. } = &mut entry.phase
        {
            *stopping = stopping.saturating_sub(1);
            entry.changes.send_modify(|count| *count += 1);
        }
    }

    /// A call has ended well there.
    pub(super) fn worked(&mut self, key: Key, number: u64) {
        if let Some(entry) = self.of(key, number) {
            (entry.crashes, entry.not_before) = (0, None);
        }
    }

    /// The process is gone; `crashed`: not because nobody needed it any more.
    pub(super) fn gone(&mut self, key: Key, number: u64, exit: String, crashed: bool) {
        self.live -= 1;
        let Some(entry) = self.of(key, number) else {
            return;
        };
        entry.last_exit = Some(exit);
        entry.ending = false;
        if crashed {
            let doubled = SERVER_PAUSE.saturating_mul(1 << entry.crashes.min(16));
            entry.crashes = entry.crashes.saturating_add(1);
            entry.not_before = Some(Instant::now() + doubled.min(SERVER_PAUSE_MAX));
        }
        entry.set(Phase::Down);
    }

    /// The object has left memory: the number of its process, if it has one.
    pub(super) fn forget(&mut self, object: Uid) -> Option<u64> {
        let of_object = |key: &&Key| key.object == Some(object);
        let key = self.entries.keys().find(of_object).copied()?;
        self.entries.remove(&key)?.number()
    }

    /// How its latest process has ended.
    pub(super) fn last_exit(&self, key: Key) -> Option<String> {
        self.entries.get(&key)?.last_exit.clone()
    }

    /// To learn of what happens next to a process; none if it is not there any more.
    pub(super) fn changes(&mut self, key: Key, number: u64) -> Option<watch::Receiver<u64>> {
        self.of(key, number).map(|entry| entry.changes.subscribe())
    }

    pub(super) fn reports(&self) -> Vec<ServerReport> {
        let now = Instant::now();
        let report = |(key, entry): (&Key, &Entry)| {
            let (pid, since) = match &entry.phase {
                Phase::Down => (None, None),
                Phase::Starting { since, pid, .. } => (*pid, Some(*since)),
                Phase::Up { server, since, .. } => (Some(server.pid), Some(*since)),
            };
            ServerReport {
                class: key.name,
                object: key.object,
                pid,
                age: since.map(|since| now.saturating_duration_since(since)),
                restarts: entry.starts.saturating_sub(1),
                crashes: entry.crashes,
                last_exit: entry.last_exit.clone(),
                pause: entry
                    .not_before
                    .and_then(|at| at.checked_duration_since(now)),
            }
        };
        self.entries.iter().map(report).collect()
    }
}

fn too_many(key: Key, max: usize) -> SystemError {
    let detail = format!(
        "{} cannot be started: the node has {max} already; raise NodeBuilder::servers_max, or \
         serve the class with ActivationPolicy::ProcessPerClass",
        key.describe()
    );
    SystemError::new(ErrorKind::Overloaded, detail)
}

impl Server {
    /// Whether the process is known to have ended, perhaps before its keeper has noticed.
    fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let Some(pid) = Pid::from_raw(self.pid.cast_signed()) else {
            return true;
        };
        // An error says that it is not our child any more: its keeper has just noticed.
        !matches!(waitid(WaitId::Pid(pid), options), Ok(None))
    }
}

impl Entry {
    fn new() -> Self {
        Self {
            phase: Phase::Down,
            starts: 0,
            crashes: 0,
            last_exit: None,
            not_before: None,
            unused_since: None,
            ending: false,
            changes: watch::Sender::new(0),
        }
    }

    fn number(&self) -> Option<u64> {
        match &self.phase {
            Phase::Down => None,
            Phase::Starting { number, .. } => Some(*number),
            Phase::Up { server, .. } => Some(server.number),
        }
    }

    fn set(&mut self, phase: Phase) {
        self.phase = phase;
        self.changes.send_modify(|count| *count += 1);
    }

    /// Why there is no process.
    fn failed(&self, key: Key) -> SystemError {
        let exit = self.last_exit.as_deref().unwrap_or("nothing is known");
        let pause = self.not_before;
        let pause = pause.map(|at| at.saturating_duration_since(Instant::now()));
        let pause = pause.unwrap_or(Duration::ZERO).as_millis();
        let crashes = self.crashes;
        let detail = format!(
            "{} does not come up: {exit}; {crashes} crashes in a row, next start in {pause} ms",
            key.describe()
        );
        // No kind that says that the servant had begun: the call was not sent.
        SystemError::new(ErrorKind::Overloaded, detail)
    }
}
