//! The store thread: it drains its whole queue into one transaction and one sync.
//!
//! Batching comes from waiting for the disk, not from a timer: while one set is being synced the
//! next one gathers, and a lone batch leaves at once. The queue is bounded by count and by bytes
//! (beyond it `Overloaded`), a transaction too, so that no set takes for ever.
//!
//! The thread sleeps until a batch comes; only while replies or outcomes wait to expire it wakes
//! by itself, no more often than the sweep interval.
//!
//! Invariants: every completion is called exactly once, in the order of submission, after the
//! sync; a panic in a completion or in the backend ends neither the thread nor that promise.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::StoreError;
use crate::apply::{Expired, Sweep};
use crate::fence::Fences;
use crate::store::{self, Batch, Completion, Step, Usage};

/// Where the thread puts its sets.
pub(crate) trait Backend: Send + 'static {
    /// Applies the batches in one transaction and syncs. There is a result for each.
    fn commit(&mut self, batches: &[Batch], sweep: Sweep) -> Outcome;
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

/// Replies, and as many outcomes, removed beside a set of batches, at least.
const BUSY_SWEEP_MIN: usize = 64;
/// Replies, and as many outcomes, removed in one transaction when there is nothing else to do.
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
    /// Batches by [`Step`].
    steps: [AtomicU64; Step::ALL.len()],
    replies_expired: AtomicU64,
    outcomes_expired: AtomicU64,
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
        let counters = Arc::new(Counters::default());
        let shared = Arc::clone(&counters);
        let thread = thread::Builder::new()
            .name("partha-store".to_owned())
            .spawn(move || {
                Loop {
                    backend,
                    fences,
                    limits,
                    receiver,
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
        if let Err(error) = store::check_limits(&batch, self.limits.batch_bytes_max) {
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
            prepares: steps(Step::Prepare),
            decisions: steps(Step::Decide),
            installs: steps(Step::Install),
            undos: steps(Step::Undo),
            settles: steps(Step::Settle),
            replies_expired: counters.replies_expired.load(Relaxed),
            outcomes_expired: counters.outcomes_expired.load(Relaxed),
            ..Usage::default()
        }
    }
}

impl Counters {
    fn received(&self, weight_bytes: usize) {
        self.waiting_batches.fetch_sub(1, Relaxed);
        self.waiting_bytes.fetch_sub(weight_bytes, Relaxed);
    }

    fn count(&self, batches: &[Batch], outcome: &Outcome) {
        let mut committed = 0;
        for (batch, result) in batches.iter().zip(&outcome.results) {
            if result.is_ok() {
                committed += 1;
                self.items.fetch_add(batch.items.len() as u64, Relaxed);
                for step in Step::ALL {
                    if batch.has(step) {
                        self.steps[step as usize].fetch_add(1, Relaxed);
                    }
                }
            } else {
                self.failed.fetch_add(1, Relaxed);
            }
        }
        self.batches.fetch_add(committed, Relaxed);
        self.syncs.fetch_add(outcome.syncs, Relaxed);
        let Expired {
            replies, outcomes, ..
        } = outcome.expired;
        self.replies_expired.fetch_add(replies, Relaxed);
        self.outcomes_expired.fetch_add(outcomes, Relaxed);
        if batches.is_empty() {
            self.syncs_sweeping.fetch_add(outcome.syncs, Relaxed);
        }
        if outcome.syncs > 0 {
            self.largest.fetch_max(committed, Relaxed);
        }
    }
}

struct Loop<B> {
    backend: B,
    fences: Arc<Fences>,
    limits: Limits,
    receiver: Receiver<Job>,
    counters: Arc<Counters>,
}

impl<B: Backend> Loop<B> {
    fn run(mut self) {
        // Replies of an earlier life may be waiting: look at the first quiet moment.
        let mut next_expiry_ms = Some(0);
        let mut backlog = false;
        loop {
            let first = match self.receive(next_expiry_ms, backlog) {
                // What waits is answered as it is dropped.
                Ok(_) if self.counters.abandoned.load(Relaxed) => return,
                Ok(job) => Some(job),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let now_ms = wall_clock_ms();
            let due = next_expiry_ms.is_some_and(|at| at <= now_ms);
            let (batches, dones) = self.drain(first);
            let limit = match batches.len() {
                _ if !due => 0,
                0 => IDLE_SWEEP_MAX,
                waiting => BUSY_SWEEP_MIN.max(2 * waiting),
            };
            if batches.is_empty() && limit == 0 {
                continue;
            }
            let outcome = self.commit(&batches, Sweep { now_ms, limit });
            next_expiry_ms = outcome.next_expiry_ms.unwrap_or(next_expiry_ms);
            backlog = outcome.expired.more;
            self.counters.count(&batches, &outcome);
            for (done, result) in dones.into_iter().zip(outcome.results) {
                done.call(result);
            }
        }
    }

    fn receive(&self, next_expiry_ms: Option<u64>, backlog: bool) -> Result<Job, RecvTimeoutError> {
        let Some(at) = next_expiry_ms else {
            return self
                .receiver
                .recv()
                .map_err(|_| RecvTimeoutError::Disconnected);
        };
        let wait_ms = if backlog {
            0
        } else {
            at.saturating_sub(wall_clock_ms())
                .max(self.limits.sweep_interval_ms)
        };
        // A clock that was set back must not hold up a sweep for ever.
        self.receiver
            .recv_timeout(Duration::from_millis(wait_ms.min(3_600_000)))
    }

    fn drain(&self, first: Option<Job>) -> (Vec<Batch>, Vec<Done>) {
        let (mut batches, mut dones) = (Vec::new(), Vec::new());
        let mut bytes = 0;
        let mut next = first;
        while let Some(job) = next {
            self.counters.received(job.weight_bytes);
            bytes += job.weight_bytes;
            batches.push(job.batch);
            dones.push(job.done);
            let full =
                batches.len() >= self.limits.set_batches_max || bytes >= self.limits.set_bytes_max;
            next = if full {
                None
            } else {
                self.receiver.try_recv().ok()
            };
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

/// Milliseconds since 1970.
fn wall_clock_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
