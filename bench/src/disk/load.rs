//! Closed-loop load of calls that wait for a disk: each is timed, since reading the clock is
//! nothing beside them.
//!
//! Everything runs on one thread. A warm-up is thrown away; what is measured then ends with the
//! first call that ends after its time, so that there is at least one.

use std::cell::{Cell, RefCell};
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};

use crate::figure::{Found, Latencies, Metric};
use crate::usage;

/// How long and how hard to load something.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Pace {
    /// Calls under way at once.
    pub(crate) clients: usize,
    /// Time before measuring starts, in milliseconds.
    pub(crate) warm_up_ms: u64,
    /// Time measured, in milliseconds.
    pub(crate) measure_ms: u64,
}

/// The client end of a peer.
pub(crate) trait Caller {
    /// Makes the call of this number and waits for its answer.
    async fn call(&self, n: u64) -> anyhow::Result<()>;
}

/// Calls through `caller`. Adds the processor time for each call of the processes `servers` and of
/// those that they have started, and the most memory that the servers had, unless one of them has
/// started others: it is not the server itself then.
pub(crate) async fn drive(
    caller: &impl Caller,
    pace: Pace,
    servers: &[u32],
) -> anyhow::Result<Found> {
    let before = cpu_ns(servers);
    let recorder = Recorder::new(pace);
    let task = async |first: usize| {
        let mut n = first as u64;
        loop {
            let start = Instant::now();
            caller.call(n).await?;
            if !recorder.end(start) {
                return anyhow::Ok(());
            }
            n += pace.clients as u64;
        }
    };
    try_join_all((0..pace.clients).map(task)).await?;
    let mut found = recorder.found(1)?;
    if let Some(cpu) = before.and_then(|before| Some(cpu_ns(servers)?.saturating_sub(before))) {
        found = found.with(
            Metric::ServerCpuUs,
            cpu as f64 / 1e3 / recorder.calls() as f64,
        );
    }
    Ok(found.with_peak(peak_bytes(servers)))
}

/// Counts and times calls.
pub(crate) struct Recorder {
    warm_up: Duration,
    measure: Duration,
    begun: Instant,
    /// When what is measured began.
    since: Cell<Option<Instant>>,
    took: Cell<Option<Duration>>,
    calls: Cell<u64>,
    latencies: RefCell<Latencies>,
}

impl Recorder {
    /// One that begins now.
    pub(crate) fn new(pace: Pace) -> Self {
        Self {
            warm_up: Duration::from_millis(pace.warm_up_ms),
            measure: Duration::from_millis(pace.measure_ms),
            begun: Instant::now(),
            since: Cell::default(),
            took: Cell::default(),
            calls: Cell::default(),
            latencies: RefCell::default(),
        }
    }

    /// Notes the end of a call that began at `start`; false if no other shall follow.
    pub(crate) fn end(&self, start: Instant) -> bool {
        let now = Instant::now();
        self.calls.set(self.calls.get() + 1);
        match self.since.get() {
            None => {
                if now - self.begun >= self.warm_up {
                    self.since.set(Some(now));
                }
                true
            }
            Some(since) if self.took.get().is_none() => {
                self.latencies.borrow_mut().record(now - start);
                if now - since < self.measure {
                    return true;
                }
                self.took.set(Some(now - since));
                false
            }
            Some(_) => false,
        }
    }

    /// Calls so far, those of the warm-up and those after the end too.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.get()
    }

    /// The figures, once no call shall follow; each call stands for `each` of what is counted.
    pub(crate) fn found(&self, each: u64) -> anyhow::Result<Found> {
        let took = self.took.get();
        let took = took.context("the load ended before its time")?;
        let calls = (self.calls() * each) as f64;
        let found = summary(&self.latencies.borrow(), took, each)?;
        Ok(found.with(Metric::Calls, calls))
    }
}

/// The figures of calls that took so long each, and `took` together; each stands for `each` of what
/// is counted.
pub(crate) fn summary(latencies: &Latencies, took: Duration, each: u64) -> anyhow::Result<Found> {
    let calls = latencies.count();
    ensure!(calls > 0 && !took.is_zero(), "there was no call");
    let rate = calls as f64 * each as f64 / took.as_secs_f64();
    let found = Found::default().with_latencies(latencies);
    Ok(found.with(Metric::Rate, rate))
}

/// Processor time of processes with their descendants, in nanoseconds.
fn cpu_ns(pids: &[u32]) -> Option<u64> {
    pids.iter()
        .flat_map(|&pid| family(pid))
        .map(usage::cpu_ns)
        .sum()
}

/// The most memory that processes had, together; none if one of them has children.
fn peak_bytes(pids: &[u32]) -> Option<u64> {
    let peak = |&pid: &u32| match family(pid).len() {
        1 => usage::peak_bytes(pid),
        _ => None,
    };
    let sum: Option<u64> = pids.iter().map(peak).sum();
    sum.filter(|_| !pids.is_empty())
}

/// A process, its children, and theirs.
fn family(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    let lists =
        tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok());
    let children: Vec<u32> = lists
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|id| id.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect();
    std::iter::once(pid)
        .chain(children.into_iter().flat_map(family))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Running;

    const PACE: Pace = Pace {
        clients: 4,
        warm_up_ms: 2,
        measure_ms: 10,
    };

    struct Pausing;
    impl Caller for Pausing {
        async fn call(&self, n: u64) -> anyhow::Result<()> {
            ensure!(n != 40, "the fortieth");
            tokio::task::yield_now().await;
            Ok(())
        }
    }

    struct Free;
    impl Caller for Free {
        async fn call(&self, _n: u64) -> anyhow::Result<()> {
            tokio::task::yield_now().await;
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_run_counts_and_times_calls() {
        let found = drive(&Free, PACE, &[std::process::id()]).await.unwrap();
        let metric = |metric| found.metrics[&metric];
        assert!(metric(Metric::Rate) > 100.0, "{found:?}");
        assert!(metric(Metric::P50Us) <= metric(Metric::P99Us));
        let counted: u64 = found.latencies_ns.iter().map(|(_, count)| count).sum();
        assert!(counted > 0 && counted as f64 <= metric(Metric::Calls));
    }

    #[test]
    fn a_peak_is_of_servers_that_have_started_nobody() {
        // What it is told comes back from `cat`, so that all of it has been started then.
        let start = |what: &str, script: &str| {
            let mut command = std::process::Command::new("sh");
            command.args(["-c", script]);
            let mut running = Running::spawn(what, command).unwrap();
            assert_eq!(running.tell("there").unwrap(), "there");
            running
        };
        let alone = start("a server", "exec cat");
        let wrapped = start("a wrapper", "cat; exit 0");
        assert_eq!(family(alone.pid()), [alone.pid()]);
        assert!(peak_bytes(&[alone.pid()]) > Some(1 << 10));
        assert_eq!(family(wrapped.pid()).len(), 2);
        assert_eq!(peak_bytes(&[alone.pid(), wrapped.pid()]), None);
        assert_eq!(peak_bytes(&[]), None);
    }

    #[tokio::test]
    async fn a_call_that_fails_ends_the_run() {
        let error = drive(&Pausing, PACE, &[]).await.unwrap_err();
        assert_eq!(error.to_string(), "the fortieth");
    }

    #[test]
    fn a_family_has_the_children_of_all_threads() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let found = family(std::process::id());
        assert!(found.contains(&child.id()), "{found:?}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
