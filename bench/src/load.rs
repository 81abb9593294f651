//! Closed-loop load: a fixed number of calls under way, each followed by the next.
//!
//! A [`Recorder`] counts calls and times them, first through a warm-up that is thrown away. With
//! many calls under way only one in [`STRIDE`] is timed, since reading the clock twice would be a
//! good part of the cheapest peer's call; all are counted. Everything runs on one thread.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

/// One in so many calls is timed when several are under way.
const STRIDE: u64 = 8;

/// How much load, for how long.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Calls under way at once
    #[arg(long)]
    pub(crate) outstanding: usize,
    /// Time before measuring starts, in milliseconds
    #[arg(long)]
    pub(crate) warm_up_ms: u64,
    /// Time measured, in milliseconds
    #[arg(long)]
    pub(crate) measure_ms: u64,
}

/// What one run found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measurement {
    pub(crate) calls_per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

/// The client end of a peer.
pub(crate) trait Caller {
    /// Makes one call and waits for its answer.
    async fn call(&self, n: u64) -> anyhow::Result<u64>;
}

/// Calls through `caller` from as many tasks as calls are to be under way.
///
/// Must run in a `LocalSet`: a caller need not be `Send`.
pub(crate) async fn drive<C: Caller + 'static>(
    caller: C,
    load: Load,
) -> anyhow::Result<Measurement> {
    let caller = Rc::new(caller);
    let recorder = Rc::new(Recorder::new(load));
    let mut tasks = JoinSet::new();
    for task in 0..load.outstanding {
        let (caller, recorder) = (Rc::clone(&caller), Rc::clone(&recorder));
        tasks.spawn_local(async move {
            let mut n = task as u64;
            loop {
                let begun = recorder.begin();
                let answer = caller.call(n).await?;
                ensure!(answer == n, "asked {n}, answered {answer}");
                if !recorder.end(begun) {
                    return Ok(());
                }
                n += load.outstanding as u64;
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.context("a calling task failed")??;
    }
    recorder.measurement()
}

/// Counts and times calls.
pub(crate) struct Recorder {
    load: Load,
    stride: u64,
    begun: Cell<u64>,
    ended: Cell<u64>,
    phase: Cell<Phase>,
    /// In nanoseconds.
    latencies: RefCell<Vec<u32>>,
}

#[derive(Clone, Copy)]
enum Phase {
    WarmUp { since: Instant },
    Measure { since: Instant },
    Over { took: Duration },
}

impl Recorder {
    pub(crate) fn new(load: Load) -> Self {
        Self {
            load,
            stride: if load.outstanding == 1 { 1 } else { STRIDE },
            begun: Cell::new(0),
            ended: Cell::new(0),
            phase: Cell::new(Phase::WarmUp {
                since: Instant::now(),
            }),
            latencies: RefCell::new(Vec::with_capacity(1 << 20)),
        }
    }

    /// Notes that a call begins; the time if this one is timed.
    pub(crate) fn begin(&self) -> Option<Instant> {
        let number = self.begun.get();
        self.begun.set(number + 1);
        number.is_multiple_of(self.stride).then(Instant::now)
    }

    /// Notes that a call has ended; false if no other shall follow.
    pub(crate) fn end(&self, begun: Option<Instant>) -> bool {
        self.ended.set(self.ended.get() + 1);
        if let Some(begun) = begun {
            self.tick(begun);
        }
        !matches!(self.phase.get(), Phase::Over { .. })
    }

    fn tick(&self, begun: Instant) {
        let now = Instant::now();
        match self.phase.get() {
            Phase::WarmUp { since } => {
                if now - since >= Duration::from_millis(self.load.warm_up_ms) {
                    self.ended.set(0);
                    self.phase.set(Phase::Measure { since: now });
                }
            }
            Phase::Measure { since } => {
                let nanoseconds = u32::try_from((now - begun).as_nanos()).unwrap_or(u32::MAX);
                self.latencies.borrow_mut().push(nanoseconds);
                if now - since >= Duration::from_millis(self.load.measure_ms) {
                    self.phase.set(Phase::Over { took: now - since });
                }
            }
            Phase::Over { .. } => {}
        }
    }

    /// The figures, once no call shall follow.
    pub(crate) fn measurement(&self) -> anyhow::Result<Measurement> {
        let Phase::Over { took } = self.phase.get() else {
            anyhow::bail!("the load ended before its time");
        };
        let mut latencies = self.latencies.borrow_mut();
        latencies.sort_unstable();
        Ok(Measurement {
            calls_per_second: self.ended.get() as f64 / took.as_secs_f64(),
            p50_us: percentile_us(&latencies, 50),
            p99_us: percentile_us(&latencies, 99),
        })
    }
}

/// The value below which `percent` of the sorted values lie, in microseconds; 0 of none.
fn percentile_us(sorted_ns: &[u32], percent: usize) -> f64 {
    let at = (sorted_ns.len() * percent / 100).min(sorted_ns.len().saturating_sub(1));
    sorted_ns
        .get(at)
        .map_or(0.0, |&nanoseconds| f64::from(nanoseconds) / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::LocalSet;

    const SHORT: Load = Load {
        outstanding: 4,
        warm_up_ms: 2,
        measure_ms: 10,
    };

    struct Echo;
    impl Caller for Echo {
        async fn call(&self, n: u64) -> anyhow::Result<u64> {
            tokio::task::yield_now().await;
            Ok(n)
        }
    }

    struct Wrong;
    impl Caller for Wrong {
        async fn call(&self, n: u64) -> anyhow::Result<u64> {
            Ok(n + 1)
        }
    }

    #[tokio::test]
    async fn a_run_counts_and_times_calls() {
        let found = LocalSet::new().run_until(drive(Echo, SHORT)).await.unwrap();
        assert!(found.calls_per_second > 100.0, "{found:?}");
        assert!(
            found.p50_us > 0.0 && found.p50_us <= found.p99_us,
            "{found:?}"
        );
    }

    #[tokio::test]
    async fn a_wrong_answer_fails_the_run() {
        let error = LocalSet::new()
            .run_until(drive(Wrong, SHORT))
            .await
            .unwrap_err();
        assert!(error.to_string().contains("answered"), "{error}");
    }

    #[test]
    fn percentiles_are_taken_from_the_sorted_values() {
        let values: Vec<u32> = (1..=100).map(|value| value * 1_000).collect();
        assert_eq!(percentile_us(&values, 50), 51.0);
        assert_eq!(percentile_us(&values, 99), 100.0);
        assert_eq!(percentile_us(&[7_000], 99), 7.0);
        assert_eq!(percentile_us(&[], 50), 0.0);
    }
}
