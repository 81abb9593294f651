//! What is counted while the load runs, by all clients.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::histogram::Histogram;

/// The figures.
#[derive(Debug)]
pub(super) struct Counts {
    /// Payments by single calls.
    pub(super) payments: Histogram,
    /// Transfers that are committed, from the first try to the end.
    pub(super) transfers: Histogram,
    /// Payments whose outcome was unknown at first.
    pub(super) payments_settled: Counter,
    /// Payments that failed: nothing of them has happened.
    pub(super) payments_failed: Counter,
    /// Transfers that an account refused.
    pub(super) refused: Counter,
    /// Transfers that were given up: nothing of them has happened.
    pub(super) aborted: Counter,
    /// Further tries of transfers.
    pub(super) retried: Counter,
    /// Tries of transfers that failed neither for want of money nor because of other transfers: the
    /// doing of a kill.
    pub(super) undone: Counter,
    /// Tries of transfers that were the victim of a deadlock, from their beginning to that.
    pub(super) deadlocks: Histogram,
    /// Transfers that were a victim, and yet are committed.
    pub(super) resolved: Counter,
    /// Transfers whose outcome was unknown at first, and is known.
    pub(super) transfers_settled: Counter,
    /// Nodes that were killed.
    pub(super) kills: Counter,
    /// From the kill of a leader to the next call of its account.
    pub(super) failovers: Histogram,
    /// Killed leaders in whose place no other copy answered.
    pub(super) stuck: Counter,
}

/// A number that goes up.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counts {
    pub(super) fn new() -> Self {
        Self {
            payments: Histogram::new(),
            transfers: Histogram::new(),
            payments_settled: Counter::default(),
            payments_failed: Counter::default(),
            refused: Counter::default(),
            aborted: Counter::default(),
            retried: Counter::default(),
            undone: Counter::default(),
            deadlocks: Histogram::new(),
            resolved: Counter::default(),
            transfers_settled: Counter::default(),
            kills: Counter::default(),
            failovers: Histogram::new(),
            stuck: Counter::default(),
        }
    }

    /// Payments and transfers that were answered.
    pub(super) fn answered(&self) -> u64 {
        self.payments.count() + self.transfers.count()
    }

    /// The time that this share of the payments and this share of the transfers did not exceed.
    pub(super) fn latency(&self, share: f64) -> (Duration, Duration) {
        (
            self.payments.quantile(share),
            self.transfers.quantile(share),
        )
    }
}

impl Counter {
    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
