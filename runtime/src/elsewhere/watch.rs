//! The watch over the threads of a node: it finds servants that keep their shard's thread from
//! everybody else, and those that go on although they were killed.
//!
//! A shard notes which servant it polls, without looking at a clock. A thread of the node's looks
//! once a second: a poll that it meets twice has lasted for longer than that.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Weak, mpsc};
use std::time::{Duration, Instant};

use partha_core::id::Uid;

use crate::net::connection::lock;
use crate::node::Home;

/// How often it looks: a servant may keep its thread for as long without a word.
const LOOK: Duration = Duration::from_secs(1);

/// A servant that keeps its shard's thread: all other objects of the shard wait.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Stuck {
    /// The shard.
    pub shard: u16,
    /// The class of the object.
    pub class: &'static str,
    /// The method.
    pub method: &'static str,
    /// The object.
    pub object: Uid,
    /// For how long at least.
    pub at_least: Duration,
}

/// What a shard polls now. Written by its thread alone.
#[derive(Debug, Default)]
pub(crate) struct Polls {
    /// The poll that goes on, or the one that did last.
    latest: Mutex<Option<Poll>>,
    /// The number of the poll that goes on, 0 if there is none.
    number: AtomicU64,
    /// The highest number so far.
    last: AtomicU64,
}

/// One poll of a servant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Poll {
    /// No other poll of the shard has it.
    number: u64,
    class: &'static str,
    method: &'static str,
    object: Uid,
}

impl Polls {
    /// A servant is about to be polled; answers what [`Polls::leave`] is to be given, since a
    /// servant may be polled within the poll of another.
    pub(crate) fn enter(
        &self,
        class: &'static str,
        method: &'static str,
        object: Uid,
    ) -> Option<Poll> {
        let number = self.last.load(Ordering::Relaxed) + 1;
        self.last.store(number, Ordering::Relaxed);
        let going_on = self.number.load(Ordering::Relaxed);
        let before = lock(&self.latest).replace(Poll {
            number,
            class,
            method,
            object,
        });
        self.number.store(number, Ordering::Relaxed);
        before.filter(|before| before.number == going_on)
    }

    /// It has been polled.
    pub(crate) fn leave(&self, outer: Option<Poll>) {
        let number = outer.map_or(0, |outer| outer.number);
        if outer.is_some() {
            *lock(&self.latest) = outer;
        }
        self.number.store(number, Ordering::Relaxed);
    }

    fn now(&self) -> Option<Poll> {
        let latest = *lock(&self.latest);
        let number = self.number.load(Ordering::Relaxed);
        latest.filter(|latest| latest.number == number)
    }
}

/// What the watch has seen.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    /// By shard: the poll of the latest look, and when it was first met.
    seen: Mutex<Vec<Option<Seen>>>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    poll: Poll,
    since: Instant,
    told: bool,
}

/// The thread that looks; ends with this.
#[derive(Debug)]
pub(crate) struct Watch {
    _ended: mpsc::Sender<()>,
}

impl Watch {
    /// Begins to look.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(crate) fn begin(home: Weak<Home>) -> std::io::Result<Self> {
        let (sender, ended) = mpsc::channel();
        let thread = std::thread::Builder::new().name("partha-watch".to_owned());
        thread.spawn(move || {
            while let Err(mpsc::RecvTimeoutError::Timeout) = ended.recv_timeout(LOOK) {
                let Some(home) = home.upgrade() else { return };
                look(&home);
            }
        })?;
        Ok(Self { _ended: sender })
    }
}

fn look(home: &Home) {
    let elsewhere = &home.registry.elsewhere;
    elsewhere.blocking.warn(LOOK);
    let mut seen = lock(&elsewhere.watched.seen);
    seen.resize(home.shards.len(), None);
    for (shard, seen) in home.shards.iter().zip(seen.iter_mut()) {
        let now = shard.polls().now();
        let before = seen.filter(|seen| Some(seen.poll.number) == now.map(|poll| poll.number));
        *seen = match (now, before) {
            (None, _) => None,
            (Some(poll), None) => Some(Seen {
                poll,
                since: Instant::now(),
                told: false,
            }),
            (Some(_), Some(mut before)) => {
                before.tell(shard.index());
                Some(before)
            }
        };
    }
}

impl Seen {
    fn tell(&mut self, shard: u16) {
        if self.told {
            return;
        }
        self.told = true;
        let Poll {
            class,
            method,
            object,
            ..
        } = self.poll;
        tracing::warn!(
            shard,
            class,
            method,
            %object,
            "a servant has kept its shard's thread for more than a second, and all other objects \
             of the shard wait; mark the method #[blocking] in the IDL, or let it await"
        );
    }
}

impl Home {
    /// Servants that keep their shards' threads for longer than a second.
    pub(crate) fn stuck(&self) -> Vec<Stuck> {
        let seen = lock(&self.registry.elsewhere.watched.seen).clone();
        let stuck = |(shard, seen): (&crate::shard::ShardHandle, &Option<Seen>)| {
            let seen = seen.filter(|seen| seen.told)?;
            let now = shard.polls().now()?;
            (now.number == seen.poll.number).then(|| Stuck {
                shard: shard.index(),
                class: now.class,
                method: now.method,
                object: now.object,
                at_least: seen.since.elapsed(),
            })
        };
        self.shards.iter().zip(&seen).filter_map(stuck).collect()
    }
}
