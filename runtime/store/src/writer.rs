//! The store thread: it drains its whole queue into one transaction and one sync.
//!
//! Batching comes from waiting for the disk: while one set is being synced the next one gathers.
//! A lone batch leaves at once. After a set of several, the next one waits for a part of the time
//! that the one before took, until it is as large. What nobody waits for ([`Batch::is_idle`])
//! goes with the next batch that somebody does, and alone only when none comes for [`COMPANY`].
//! Installs of entries ([`Batch::only_installs`]) need no sync: a backend that can shows them at
//! once, and lets them be on disk with whatever is written next.
//! The queue is bounded by count and by bytes (beyond it `Overloaded`), a transaction too, so that
//! no set takes for ever.
//!
//! The thread sleeps until a batch comes; only while replies or outcomes wait to expire, or rows
//! of objects that have left to be removed, it wakes by itself, no more often than the sweep
//! interval.
//!
//! Invariants: every completion is called exactly once, in the order of submission, after the
//! sync; a panic in a completion or in the backend ends neither the thread nor that promise.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::StoreError;
use crate::apply::{Expired, Sweep};
use crate::batch::{self, Batch, Step};
use crate::clock::Clock;
use crate::fence::Fences;
use crate::store::Completion;
use crate::usage::{SIZES, Usage};

/// Where the thread puts its sets.
pub(crate) trait Backend: Send + 'static {
    /// Applies the batches in one transaction and syncs. There is a result for each.
    fn commit(&mut self, batches: &[Batch], sweep: Sweep) -> Outcome;

    /// Whether it shows installs at once, without a sync ([`Batch::only_installs`]). Else they
    /// wait for company.
    fn shows_installs(&self) -> bool {
        false
    }

    /// How long to wait for batches before there is something else to do; none if there is not.
    fn quiet_after(&self) -> Option<Duration> {
        None
    }

    /// No batch came for that long.
    fn quiet(&mut self) {}

    /// There will be no more batches.
    fn close(&mut self) {}
}

/// What came of a set.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// For each batch in order.
    pub(crate) results: Vec<Result<(), StoreError>>,
    /// What was removed, its time being over.
    pub(crate) expired: Expired,
    /// When the next of that kind expires; nothing if that is not known after a failure.
    pub(crate) next_expiry_ms: Option<Option<u64>>,
    /// How often the disk was synced.
    pub(crate) syncs: u64,
}

impl Outcome {
    /// The same error for each batch.
    pub(crate) fn failed(batches: usize, error: &StoreError) -> Self {
        Self {
            results: vec![Err(error.clone()); batches],
            ..Self::default()
        }
    }
}

/// The bounds of queue and transactions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) queue_batches_max: usize,
    pub(crate) queue_bytes_max: usize,
    pub(crate) set_batches_max: usize,
    pub(crate) set_bytes_max: usize,
    pub(crate) batch_bytes_max: usize,
    pub(crate) sweep_interval_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue_batches_max: 16 * 1024,
            queue_bytes_max: 256 << 20,
            set_batches_max: 1024,
            set_bytes_max: 16 << 20,
            batch_bytes_max: 128 << 20,
            sweep_interval_ms: 1000,
        }
    }
}

/// How long a batch that nobody waits for is held for others to share its sync with, and how many
/// of them are held. What a crash loses of them is done again by recovery.
const COMPANY: Duration = Duration::from_millis(20);
const HELD_MAX: usize = 256;

/// The longest that a set waits for more batches.
const GATHER_MAX: Duration = Duration::from_micros(300);

/// Replies, and as many outcomes and rows, removed beside a set of batches, at least.
const BUSY_SWEEP_MIN: usize = 64;
/// Replies, and as many outcomes and rows, removed in one transaction when there is nothing else
/// to do.
const IDLE_SWEEP_MAX: usize = 4096;

#[derive(Debug, Default)]
struct Counters {
    /// What waits is not to be committed any more.
    abandoned: AtomicBool,
    waiting_batches: AtomicUsize,
    waiting_bytes: AtomicUsize,
    batches: AtomicU64,
    failed: AtomicU64,
    items: AtomicU64,
    syncs: AtomicU64,
    syncs_sweeping: AtomicU64,
    largest: AtomicU64,
    /// Syncs by the logarithm of their batches.
    sizes: [AtomicU64; SIZES],
    sync_us: AtomicU64,
    /// Batches by [`Step`].
    steps: [AtomicU64; Step::ALL.len()],
    replies_expired: AtomicU64,
    outcomes_expired: AtomicU64,
    rows_cleared: AtomicU64,
    /// The time of the last set, in milliseconds since 1970: what cannot be read yet is of no
    /// earlier one.
    set_ms: AtomicU64,
}

/// The handle of the store thread.
#[derive(Debug)]
pub(crate) struct Writer {
    limits: Limits,
    sender: RwLock<Option<SyncSender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    counters: Arc<Counters>,
}

struct Job {
    batch: Batch,
    weight_bytes: usize,
    done: Done,
}

/// A completion that is called even if nobody gets to it.
struct Done(Option<Completion>);

impl Done {
    fn call(mut self, result: Result<(), StoreError>) {
        self.finish(result);
    }

    fn finish(&mut self, result: Result<(), StoreError>) {
        if let Some(done) = self.0.take()
            && catch_unwind(AssertUnwindSafe(|| done(result))).is_err()
        {
            tracing::error!("the completion of a batch panicked; the store goes on");
        }
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        self.finish(Err(StoreError::Closed));
    }
}

impl Writer {
    /// Starts the thread.
    pub(crate) fn start(
        backend: impl Backend,
        fences: Arc<Fences>,
        limits: Limits,
    ) -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel(limits.queue_batches_max);
        let mut clock = Clock::default();
        let counters = Arc::new(Counters::default());
        counters.set_ms.store(clock.now_ms(), Release);
        let shared = Arc::clone(&counters);
        let thread = thread::Builder::new()
            .name("partha-store".to_owned())
            .spawn(move || {
                Loop {
                    backend,
                    fences,
                    limits,
                    held: VecDeque::new(),
                    receiver,
                    clock,
                    alone_since: Instant::now(),
                    last: Last::default(),
                    counters: shared,
                }
                .run()
            })?;
        let sender = RwLock::new(Some(sender));
        Ok(Self {
            limits,
            sender,
            thread: Mutex::new(Some(thread)),
            counters,
        })
    }

    /// Queues a batch, or refuses it at once.
    pub(crate) fn submit(&self, batch: Batch, done: Completion) {
        let done = Done(Some(done));
        if let Err(error) = batch::check_limits(&batch, self.limits.batch_bytes_max) {
            return done.call(Err(error));
        }
        let sender = self.sender.read().unwrap_or_else(PoisonError::into_inner);
        let Some(sender) = &*sender else {
            return done.call(Err(StoreError::Closed));
        };
        let weight_bytes = batch.weight_bytes();
        let batches = self.counters.waiting_batches.fetch_add(1, Relaxed) + 1;
        let bytes = self.counters.waiting_bytes.fetch_add(weight_bytes, Relaxed) + weight_bytes;
        let job = Job {
            batch,
            weight_bytes,
            done,
        };
        // A batch over the limit passes alone, or it could never pass.
        let refused = if bytes > self.limits.queue_bytes_max && bytes != weight_bytes {
            Some(job)
        } else {
            match sender.try_send(job) {
                Ok(()) => None,
                Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) => Some(job),
            }
        };
        if let Some(job) = refused {
            self.counters.received(job.weight_bytes);
            job.done
                .call(Err(StoreError::Overloaded { batches, bytes }));
        }
    }

    /// Has the thread drop what waits; [`Writer::close`] is to follow.
    pub(crate) fn abandon(&self) {
        self.counters.abandoned.store(true, Relaxed);
    }

    /// Lets the queue run dry and ends the thread.
    pub(crate) fn close(&self) {
        drop(
            self.sender
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        // The last owner may be a completion; the thread cannot wait for itself.
        if let Some(thread) = thread
            && thread.thread().id() != thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the store thread panicked");
        }
    }

    /// The time of the last set that can be read, in milliseconds since 1970.
    pub(crate) fn set_ms(&self) -> u64 {
        self.counters.set_ms.load(Acquire)
    }

    /// The figures of the thread.
    pub(crate) fn usage(&self) -> Usage {
        let counters = &self.counters;
        let steps = |step: Step| counters.steps[step as usize].load(Relaxed);
        Usage {
            batches: counters.batches.load(Relaxed),
            batches_failed: counters.failed.load(Relaxed),
            items: counters.items.load(Relaxed),
            syncs: counters.syncs.load(Relaxed),
            syncs_sweeping: counters.syncs_sweeping.load(Relaxed),
            batches_per_sync_max: counters.largest.load(Relaxed),
            syncs_by_batches: counters.sizes.each_ref().map(|count| count.load(Relaxed)),
            sync_us: counters.sync_us.load(Relaxed),
            prepares: steps(Step::Prepare),
            decisions: steps(Step::Decide),
            installs: steps(Step::Install),
            undos: steps(Step::Undo),
            settles: steps(Step::Settle),
            replies_expired: counters.replies_expired.load(Relaxed),
            outcomes_expired: counters.outcomes_expired.load(Relaxed),
            rows_cleared: counters.rows_cleared.load(Relaxed),
            departures: steps(Step::Depart),
            arrivals: steps(Step::Arrive),
            ..Usage::default()
        }
    }
}

impl Counters {
    fn received(&self, weight_bytes: usize) {
        self.waiting_batches.fetch_sub(1, Relaxed);
        self.waiting_bytes.fetch_sub(weight_bytes, Relaxed);
    }

    fn count(&self, batches: &[Batch], outcome: &Outcome, took: Duration) {
        let mut committed = 0;
        for (batch, result) in batches.iter().zip(&outcome.results) {
            if let Err(error) = result {
                let failed = u64::from(!error.is_passing());
                self.failed.fetch_add(failed, Relaxed);
            } else {
                committed += 1;
                self.items.fetch_add(batch.items.len() as u64, Relaxed);
                for step in Step::ALL {
                    if batch.has(step) {
                        self.steps[step as usize].fetch_add(1, Relaxed);
                    }
                }
            }
        }
        self.batches.fetch_add(committed, Relaxed);
        self.syncs.fetch_add(outcome.syncs, Relaxed);
        let Expired {
            replies,
            outcomes,
            rows,
            ..
        } = outcome.expired;
        self.rows_cleared.fetch_add(rows, Relaxed);
        self.replies_expired.fetch_add(replies, Relaxed);
        self.outcomes_expired.fetch_add(outcomes, Relaxed);
        if batches.is_empty() {
            self.syncs_sweeping.fetch_add(outcome.syncs, Relaxed);
        }
        if outcome.syncs > 0 {
            self.largest.fetch_max(committed, Relaxed);
            self.sync_us.fetch_add(took.as_micros() as u64, Relaxed);
            if let Some(log) = committed.checked_ilog2() {
                self.sizes[(log as usize).min(SIZES - 1)].fetch_add(outcome.syncs, Relaxed);
            }
        }
    }
}

struct Loop<B> {
    backend: B,
    fences: Arc<Fences>,
    limits: Limits,
    /// What nobody waits for, until somebody else's batch comes. It was submitted before all that
    /// wait, so it is dropped before them, too.
    held: VecDeque<Job>,
    receiver: Receiver<Job>,
    clock: Clock,
    /// Since when the first of them is held.
    alone_since: Instant,
    last: Last,
    counters: Arc<Counters>,
}

/// The set before.
#[derive(Clone, Copy, Debug, Default)]
struct Last {
    /// Batches in it that somebody waited for.
    waited_for: usize,
    /// The time from its first write to its answers.
    took: Duration,
}

impl Last {
    /// How long to wait for more before the next set, of which so many are there. Those who were
    /// answered together come back together, and a set without most of them makes all others wait
    /// for a sync that is not theirs. Whoever was alone is not kept waiting.
    fn pause(self, waiting: usize) -> Option<Duration> {
        let more = self.waited_for > 1 && (1..self.waited_for).contains(&waiting);
        more.then(|| (self.took / 3).min(GATHER_MAX))
    }
}

/// Whether nobody waits for the sync of a batch.
fn is_no_company(batch: &Batch) -> bool {
    batch.is_idle() || batch.only_installs()
}

/// Why the thread goes on.
enum Wake {
    /// There is something to commit, behind what is held.
    Job(Job),
    /// What is held has waited long enough.
    Alone,
    /// It is time to look for what has expired.
    Sweep,
    /// Nothing came for as long as the backend wanted to wait.
    Quiet,
    /// The store is being closed; what is held is still to be committed.
    Closed,
}

impl<B: Backend> Loop<B> {
    fn run(mut self) {
        // Replies of an earlier life may be waiting: look at the first quiet moment.
        let mut next_expiry_ms = Some(0);
        let mut backlog = false;
        loop {
            let wake = self.receive(next_expiry_ms, backlog);
            let closed = matches!(wake, Wake::Closed);
            let quiet = matches!(wake, Wake::Quiet);
            if let Wake::Job(job) = wake {
                self.hold(job);
            }
            // What waits is answered as it is dropped.
            if self.counters.abandoned.load(Relaxed) {
                return;
            }
            if quiet {
                let quiet = AssertUnwindSafe(|| self.backend.quiet());
                if catch_unwind(quiet).is_err() {
                    tracing::error!("the store thread panicked while nothing happened");
                }
                continue;
            }
            self.gather();
            let now_ms = self.clock.now_ms();
            let due = next_expiry_ms.is_some_and(|at| at <= now_ms);
            let (batches, dones) = self.drain();
            let limit = match batches.len() {
                _ if !due || closed => 0,
                0 => IDLE_SWEEP_MAX,
                waiting => BUSY_SWEEP_MIN.max(2 * waiting),
            };
            if batches.is_empty() && limit == 0 {
                if closed {
                    self.backend.close();
                    return;
                }
                continue;
            }
            let begun = Instant::now();
            let outcome = self.commit(&batches, Sweep { now_ms, limit });
            self.counters.set_ms.store(now_ms, Release);
            next_expiry_ms = outcome.next_expiry_ms.unwrap_or(next_expiry_ms);
            backlog = outcome.expired.more;
            let took = begun.elapsed();
            if outcome.syncs > 0 || !batches.iter().any(Batch::only_installs) {
                self.last = Last {
                    waited_for: batches.iter().filter(|batch| !is_no_company(batch)).count(),
                    took,
                };
            }
            self.counters.count(&batches, &outcome, took);
            for (done, result) in dones.into_iter().zip(outcome.results) {
                done.call(result);
            }
        }
    }

    /// Waits for something to do, and keeps what nobody waits for.
    fn receive(&mut self, next_expiry_ms: Option<u64>, backlog: bool) -> Wake {
        // Held only since the last set was full.
        if self.held.back().is_some_and(|job| !self.may_be_held(job)) {
            return Wake::Alone;
        }
        loop {
            let sweep = next_expiry_ms.map(|at| {
                let wait_ms = if backlog {
                    0
                } else {
                    at.saturating_sub(self.clock.now_ms())
                        .max(self.limits.sweep_interval_ms)
                };
                // A clock that was set back must not hold up a sweep for ever.
                Duration::from_millis(wait_ms.min(3_600_000))
            });
            let alone = match self.held.len() {
                0 => None,
                HELD_MAX.. => return Wake::Alone,
                _ => Some(COMPANY.saturating_sub(self.alone_since.elapsed())),
            };
            let quiet = self.backend.quiet_after();
            let is_first = |wait| sweep.is_none_or(|sweep| wait < sweep);
            let (wait, wake) = match (alone, quiet) {
                (Some(wait), _) => (Some(wait), Wake::Alone),
                (None, Some(wait)) if is_first(wait) => (Some(wait), Wake::Quiet),
                (None, _) => (sweep, Wake::Sweep),
            };
            let job = match wait {
                None => self.receiver.recv().map_err(|_| Wake::Closed),
                Some(wait) => self.receiver.recv_timeout(wait).map_err(|why| match why {
                    RecvTimeoutError::Disconnected => Wake::Closed,
                    RecvTimeoutError::Timeout => wake,
                }),
            };
            match job {
                Ok(job) if self.may_be_held(&job) => self.hold(job),
                Ok(job) => return Wake::Job(job),
                Err(wake) => return wake,
            }
        }
    }

    /// Lets a set grow to the size of the one before, for a short time.
    fn gather(&self) {
        // What nobody waits for is no company.
        let idle = self
            .held
            .iter()
            .filter(|job| is_no_company(&job.batch))
            .count();
        let waiting = || {
            let all = self.counters.waiting_batches.load(Relaxed);
            all.saturating_sub(idle)
        };
        let Some(pause) = self.last.pause(waiting()) else {
            return;
        };
        let begun = Instant::now();
        // Being woken by each that comes would cost more than it gains.
        while waiting() < self.last.waited_for && begun.elapsed() < pause {
            thread::sleep(pause / 4);
        }
    }

    fn may_be_held(&self, job: &Job) -> bool {
        job.batch.is_idle() || job.batch.only_installs() && !self.backend.shows_installs()
    }

    fn hold(&mut self, job: Job) {
        if self.held.is_empty() {
            self.alone_since = Instant::now();
        }
        self.held.push_back(job);
    }

    /// What is held and what waits, in the order in which it was submitted.
    fn drain(&mut self) -> (Vec<Batch>, Vec<Done>) {
        let (mut batches, mut dones) = (Vec::new(), Vec::new());
        if self.held.is_empty() {
            return (batches, dones);
        }
        let mut bytes = 0;
        while batches.len() < self.limits.set_batches_max && bytes < self.limits.set_bytes_max {
            let waiting = || self.receiver.try_recv().ok();
            let Some(job) = self.held.pop_front().or_else(waiting) else {
                break;
            };
            self.counters.received(job.weight_bytes);
            bytes += job.weight_bytes;
            batches.push(job.batch);
            dones.push(job.done);
        }
        (batches, dones)
    }

    fn commit(&mut self, batches: &[Batch], sweep: Sweep) -> Outcome {
        let commit = AssertUnwindSafe(|| self.backend.commit(batches, sweep));
        let outcome = catch_unwind(commit).unwrap_or_else(|_| {
            let reason = "the store thread panicked while it committed".to_owned();
            Outcome::failed(batches.len(), &StoreError::Broken { reason })
        });
        for (batch, result) in batches.iter().zip(&outcome.results) {
            if let Err(error) = result {
                self.fences.poison(batch, error);
            }
        }
        self.fences.settle();
        outcome
    }
}

#[cfg(test)]
mod tests;
