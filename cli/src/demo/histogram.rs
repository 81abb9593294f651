//! How long calls took: a histogram that any task may add to.
//!
//! Sixteen buckets for each doubling, so a value is known to a sixteenth of itself, from 1 µs to
//! hours, in a few kilobytes (the idea of HdrHistogram).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const FINE_BITS: u32 = 4;
const FINE: usize = 1 << FINE_BITS;
const BUCKETS: usize = FINE * 40;

/// Counts of times.
#[derive(Debug)]
pub(super) struct Histogram {
    buckets: Vec<AtomicU64>,
}

impl Histogram {
    pub(super) fn new() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    pub(super) fn add(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket(micros)].fetch_add(1, Ordering::Relaxed);
    }

    /// How many times were added.
    pub(super) fn count(&self) -> u64 {
        self.buckets
            .iter()
            .map(|bucket| bucket.load(Ordering::Relaxed))
            .sum()
    }

    /// The time that this share of all did not exceed; to a sixteenth.
    pub(super) fn quantile(&self, share: f64) -> Duration {
        let wanted = (self.count() as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count.load(Ordering::Relaxed);
            if seen >= wanted {
                return Duration::from_micros(highest(index));
            }
        }
        Duration::ZERO
    }
}

fn bucket(micros: u64) -> usize {
    if micros < FINE as u64 {
        return micros as usize;
    }
    let doublings = micros.ilog2() - FINE_BITS;
    let fine = (micros >> doublings) as usize - FINE;
    (FINE * (doublings as usize + 1) + fine).min(BUCKETS - 1)
}

/// The largest value of a bucket.
fn highest(bucket: usize) -> u64 {
    if bucket < FINE {
        return bucket as u64;
    }
    let doublings = bucket / FINE - 1;
    let fine = (bucket % FINE + FINE) as u64;
    ((fine + 1) << doublings) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_a_bucket_not_wider_than_a_sixteenth() {
        for micros in (0..5_000).chain([1 << 20, (1 << 20) + 77_777, 3_600_000_000]) {
            let top = highest(bucket(micros));
            assert!(
                top >= micros && top - micros <= micros / 16,
                "{micros} {top}"
            );
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_those_of_what_was_added() {
        let histogram = Histogram::new();
        assert_eq!(histogram.quantile(0.5), Duration::ZERO);
        for micros in 1..=1_000 {
            histogram.add(Duration::from_micros(micros));
        }
        assert_eq!(histogram.count(), 1_000);
        let half = histogram.quantile(0.5).as_micros();
        assert!((500..=532).contains(&half), "{half}");
        let most = histogram.quantile(0.99).as_micros();
        assert!((990..=1_055).contains(&most), "{most}");
    }
}
