//! Servants on threads of their own: methods marked `#[blocking]`, which may compute or block for
//! as long as they like.
//!
//! Each call has a fresh thread; their number is bounded. The thread has the state as a copy, made
//! anew from its encoding, so that it shares nothing with the object. Dropping the future of
//! [`Blocking::run`] kills the call: a servant that waits is dropped where it waits, one that
//! looks at its context ([`crate::Context::check`]) can leave, and one that does neither goes on as
//! a *runaway*: nobody takes its result, its calls are refused, it counts against the bound and is
//! listed until it ends. A thread cannot be killed, so nothing more can be done about one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use partha_core::id::Uid;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::LocalSet;

use super::{Cancel, Done, Order, drive};
use crate::config::BLOCKING_MAX;
use crate::error::{ErrorKind, Result, SystemError};
use crate::net::connection::lock;

/// Something that is to be dropped when the thread has ended.
pub(super) type Held = Arc<dyn Send + Sync>;

/// A servant on a thread of its own that goes on although its call was killed.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Runaway {
    /// The class of its object.
    pub class: &'static str,
    /// The method it executes.
    pub method: &'static str,
    /// The object whose state it got a copy of.
    pub object: Uid,
    /// Time since the call began.
    pub running: Duration,
    /// Time since it was killed.
    pub killed: Duration,
}

/// The threads of a node that run servants.
#[derive(Debug)]
pub(crate) struct Blocking {
    max: usize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    last: u64,
    running: BTreeMap<u64, Running>,
}

#[derive(Debug)]
struct Running {
    class: &'static str,
    method: &'static str,
    object: Uid,
    since: Instant,
    killed: Option<Instant>,
    told: bool,
}

/// The call, as who waits for it has it; dropped before its end, the call is killed.
struct Waiting {
    blocking: Arc<Blocking>,
    number: u64,
    cancel: Cancel,
    ended: bool,
}

/// The place of a thread in the table, until the thread ends.
struct Place {
    blocking: Arc<Blocking>,
    number: u64,
    _held: Option<Held>,
}

impl Default for Blocking {
    fn default() -> Self {
        Self::new(BLOCKING_MAX)
    }
}

impl Blocking {
    pub(super) fn new(max: usize) -> Self {
        let table = Mutex::default();
        Self { max, table }
    }

    /// Executes a call on a thread of its own. `held` is dropped when the thread ends, which may
    /// be later.
    pub(super) async fn run(
        self: &Arc<Self>,
        order: Order,
        cancel: Cancel,
        held: Option<Held>,
    ) -> Result<Done> {
        let runtime = Handle::try_current().map_err(|error| thread_error(&error))?;
        let number = self.enter(&order)?;
        let place = Place {
            blocking: self.clone(),
            number,
            _held: held,
        };
        let mut waiting = Waiting {
            blocking: self.clone(),
            number,
            cancel: cancel.clone(),
            ended: false,
        };
        let (sender, receiver) = oneshot::channel();
        let thread = std::thread::Builder::new().name("partha-blocking".to_owned());
        let started = thread.spawn(move || {
            let done = on_thread(&runtime, order, &cancel);
            // The place is free before whoever waits learns of the end.
            drop(place);
            // One who is gone has killed the call: the result is nobody's.
            let _ = sender.send(done);
        });
        started.map_err(|error| thread_error(&error))?;
        let done = receiver.await;
        waiting.ended = true;
        done.unwrap_or_else(|_| {
            let detail = "the thread of a #[blocking] servant has ended without a word";
            Err(SystemError::new(ErrorKind::Internal, detail))
        })
    }

    fn enter(&self, order: &Order) -> Result<u64> {
        let (info, object) = (order.class.info(), order.context.uid());
        let method = info.methods[order.method].name;
        let mut table = lock(&self.table);
        if table.running.len() >= self.max {
            let killed = table.running.values().filter(|one| one.killed.is_some());
            let detail = format!(
                "{}.{method} of {object}: {} #[blocking] methods run here already, {} of them \
                 although their calls were killed; raise NodeBuilder::blocking_max, or restart \
                 the node if they never end",
                info.name,
                self.max,
                killed.count()
            );
            return Err(SystemError::new(ErrorKind::Overloaded, detail));
        }
        table.last += 1;
        let number = table.last;
        let running = Running {
            class: info.name,
            method,
            object,
            since: Instant::now(),
            killed: None,
            told: false,
        };
        table.running.insert(number, running);
        Ok(number)
    }

    /// Servants that go on although their calls were killed.
    pub(crate) fn runaways(&self) -> Vec<Runaway> {
        let table = lock(&self.table);
        let runaway = |running: &Running| {
            Some(Runaway {
                class: running.class,
                method: running.method,
                object: running.object,
                running: running.since.elapsed(),
                killed: running.killed?.elapsed(),
            })
        };
        table.running.values().filter_map(runaway).collect()
    }

    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        lock(&self.table).running.is_empty()
    }

    /// Warns of those that have gone on for this long, once of each.
    pub(super) fn warn(&self, after: Duration) {
        let mut table = lock(&self.table);
        let late = table.running.values_mut().filter(|running| {
            let is_late = |killed: Instant| killed.elapsed() >= after;
            !running.told && running.killed.is_some_and(is_late)
        });
        for running in late {
            running.told = true;
            let Running {
                class,
                method,
                object,
                ..
            } = running;
            tracing::warn!(
                class,
                method,
                %object,
                "a servant goes on although its call was killed; let it look at cx.check() now \
                 and then"
            );
        }
    }
}

/// The whole life of a thread.
fn on_thread(runtime: &Handle, order: Order, cancel: &Cancel) -> Result<Done> {
    let _within = runtime.enter();
    // Servants may start tasks of their thread, as they may on a shard; they end with the call.
    let local = LocalSet::new();
    let running = || runtime.block_on(local.run_until(drive(order, cancel)));
    // Servants' panics are caught where they run; the runtime of a shard that stops may panic.
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(running));
    done.unwrap_or_else(|_| {
        let detail = "the shard has stopped under a #[blocking] servant";
        Err(SystemError::new(ErrorKind::Draining, detail))
    })
}

fn thread_error(error: &dyn std::fmt::Display) -> SystemError {
    let detail = format!("cannot start a thread for a #[blocking] method: {error}");
    SystemError::new(ErrorKind::Overloaded, detail)
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.ended {
            let mut table = lock(&self.blocking.table);
            if let Some(running) = table.running.get_mut(&self.number) {
                running.killed = Some(Instant::now());
            }
            drop(table);
            self.cancel.cancel();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.blocking.table).running.remove(&self.number);
    }
}
