//! Closed-loop load: a fixed number of calls under way, each followed by the next.
//!
//! A [`Recorder`] counts calls and times them, first through a warm-up that is thrown away. With
//! many calls under way only one in [`STRIDE`] is timed, since reading the clock twice would be a
//! good part of the cheapest peer's call; all are counted. Everything runs on one thread.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use tokio::task::JoinSet;

use crate::figure::{Found, Latencies, Metric};
use crate::usage;

/// One in so many calls is timed when several are under way. A prime: calls that take turns in the
/// same order are then all timed, each in its turn, while a divisor of their number would always
/// choose the same ones.
const STRIDE: u64 = 7;

/// What is done over and over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Work {
    /// A call that takes a u64 and returns it
    Null,
    /// A call that takes bytes and returns them
    Echo,
    /// A connection is opened, used for one null call, and closed
    Connect,
}

/// How much load, for how long.
#[derive(Args, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    /// What is done
    #[arg(long, value_enum)]
    pub(crate) work: Work,
    /// Of each argument and result of an echo
    #[arg(long, default_value_t = 0)]
    pub(crate) bytes: usize,
    /// Connections, each with its own calls
    #[arg(long, default_value_t = 1)]
    pub(crate) connections: usize,
    /// Calls under way at once on each connection
    #[arg(long, default_value_t = 1)]
    pub(crate) outstanding: usize,
    /// Objects that are called in turn, where the peer has objects
    #[arg(long, default_value_t = 1)]
    pub(crate) objects: usize,
    /// Time before measuring starts, in milliseconds
    #[arg(long)]
    pub(crate) warm_up_ms: u64,
    /// Time measured, in milliseconds
    #[arg(long)]
    pub(crate) measure_ms: u64,
    /// The server's process, whose processor time is read when measuring starts and ends
    #[arg(long)]
    pub(crate) server_pid: Option<u32>,
    /// Beside a connection that has made many calls and does not read their answers
    #[arg(long)]
    pub(crate) stopped_reader: bool,
}

/// The client end of a connection of a peer.
pub(crate) trait Caller {
    /// Makes one null call and waits for its answer.
    async fn null(&self, n: u64) -> anyhow::Result<u64>;

    /// Sends bytes, waits until they are back, and [`compare`]s them.
    async fn echo(&self, payload: &Bytes) -> anyhow::Result<()>;
}

/// What opens connections of a peer.
pub(crate) trait Connector {
    type Caller: Caller + 'static;

    /// Opens one. It is closed when the caller is dropped.
    async fn connect(&self) -> anyhow::Result<Self::Caller>;
}

/// Makes the load with the callers of `connector`.
///
/// Must run in a `LocalSet`: a caller need not be `Send`.
pub(crate) async fn drive(connector: impl Connector, load: Load) -> anyhow::Result<Found> {
    if load.work == Work::Connect {
        return connect_over_and_over(connector, load).await;
    }
    let mut callers = Vec::with_capacity(load.connections);
    for _ in 0..load.connections {
        callers.push(Rc::new(connector.connect().await?));
    }
    call_over_and_over(&callers, load).await
}

/// Makes the load with given callers, one for each connection.
pub(crate) async fn call_over_and_over<C: Caller + 'static>(
    callers: &[Rc<C>],
    load: Load,
) -> anyhow::Result<Found> {
    let recorder = Rc::new(Recorder::new(load));
    let payload = payload(load.bytes);
    let mut tasks = JoinSet::new();
    for (connection, caller) in callers.iter().enumerate() {
        for task in 0..load.outstanding {
            let (caller, recorder) = (Rc::clone(caller), Rc::clone(&recorder));
            let payload = payload.clone();
            tasks.spawn_local(async move {
                let mut n = (connection * load.outstanding + task) as u64;
                loop {
                    let begun = recorder.begin();
                    if load.work == Work::Echo {
                        caller.echo(&payload).await?;
                    } else {
                        let answer = caller.null(n).await?;
                        ensure!(answer == n, "asked {n}, answered {answer}");
                    }
                    if !recorder.end(begun) {
                        return anyhow::Ok(());
                    }
                    n += load.outstanding as u64;
                }
            });
        }
    }
    while let Some(ended) = tasks.join_next().await {
        ended.context("a calling task failed")??;
    }
    recorder.found()
}

async fn connect_over_and_over(connector: impl Connector, load: Load) -> anyhow::Result<Found> {
    let recorder = Recorder::new(load);
    for n in 0.. {
        let begun = recorder.begin();
        let caller = connector.connect().await?;
        let answer = caller.null(n).await?;
        ensure!(answer == n, "asked {n}, answered {answer}");
        drop(caller);
        if !recorder.end(begun) {
            break;
        }
    }
    recorder.found()
}

/// What an echo is given: as many bytes, not all alike.
pub(crate) fn payload(bytes: usize) -> Bytes {
    (0..bytes).map(|at| at as u8).collect()
}

/// Fails if an answer is not what was sent: its length, and the bytes at both of its ends.
pub(crate) fn compare(sent: &[u8], answer: &[u8]) -> anyhow::Result<()> {
    let ends = |bytes: &[u8]| (bytes.first().copied(), bytes.last().copied());
    ensure!(
        sent.len() == answer.len() && ends(sent) == ends(answer),
        "{} bytes came back as {} others",
        sent.len(),
        answer.len()
    );
    Ok(())
}

/// Counts and times calls.
pub(crate) struct Recorder {
    load: Load,
    stride: u64,
    begun: Cell<u64>,
    ended: Cell<u64>,
    phase: Cell<Phase>,
    /// Calls that ended before measuring began.
    warm_up_calls: Cell<u64>,
    latencies: RefCell<Latencies>,
    /// Processor time when measuring began; what was used, when it has ended.
    cpu: Cell<Cpu>,
}

#[derive(Clone, Copy)]
enum Phase {
    WarmUp { since: Instant },
    Measure { since: Instant },
    Over { took: Duration },
}

/// Processor time in nanoseconds, where the kernel tells it.
#[derive(Clone, Copy, Default)]
struct Cpu {
    client: Option<u64>,
    server: Option<u64>,
}

impl Recorder {
    pub(crate) fn new(load: Load) -> Self {
        let calls = load.connections * load.outstanding;
        let rare = calls == 1 || load.work == Work::Echo && load.bytes > 4_096;
        Self {
            load,
            stride: if rare { 1 } else { STRIDE },
            begun: Cell::new(0),
            ended: Cell::new(0),
            phase: Cell::new(Phase::WarmUp {
                since: Instant::now(),
            }),
            warm_up_calls: Cell::new(0),
            latencies: RefCell::default(),
            cpu: Cell::default(),
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
        if matches!(self.phase.get(), Phase::Over { .. }) {
            return false;
        }
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
                    self.warm_up_calls.set(self.ended.replace(0));
                    self.cpu.set(self.cpu());
                    let since = Instant::now();
                    self.phase.set(Phase::Measure { since });
                }
            }
            Phase::Measure { since } => {
                self.latencies.borrow_mut().record(now - begun);
                if now - since >= Duration::from_millis(self.load.measure_ms) {
                    self.cpu.set(self.cpu().since(self.cpu.get()));
                    self.phase.set(Phase::Over { took: now - since });
                }
            }
            Phase::Over { .. } => {}
        }
    }

    fn cpu(&self) -> Cpu {
        Cpu {
            client: usage::cpu_ns(std::process::id()),
            server: self.load.server_pid.and_then(usage::cpu_ns),
        }
    }

    /// The figures, once no call shall follow.
    pub(crate) fn found(&self) -> anyhow::Result<Found> {
        let Phase::Over { took } = self.phase.get() else {
            anyhow::bail!("the load ended before its time");
        };
        let calls = self.ended.get() as f64;
        let mut found = Found::default()
            .with_latencies(&self.latencies.borrow())
            .with(Metric::Rate, calls / took.as_secs_f64())
            .with(Metric::Calls, calls + self.warm_up_calls.get() as f64);
        let Cpu { client, server } = self.cpu.get();
        for (metric, used) in [(Metric::ClientCpuUs, client), (Metric::ServerCpuUs, server)] {
            if let Some(nanoseconds) = used {
                found = found.with(metric, nanoseconds as f64 / 1_000.0 / calls);
            }
        }
        Ok(found)
    }
}

impl Cpu {
    fn since(self, before: Self) -> Self {
        let used = |now: Option<u64>, before: Option<u64>| Some(now?.saturating_sub(before?));
        Self {
            client: used(self.client, before.client),
            server: used(self.server, before.server),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::LocalSet;

    const SHORT: Load = Load {
        work: Work::Null,
        bytes: 0,
        connections: 2,
        outstanding: 4,
        objects: 1,
        warm_up_ms: 2,
        measure_ms: 10,
        server_pid: None,
        stopped_reader: false,
    };

    struct Here {
        adds: u64,
    }

    impl Connector for Here {
        type Caller = Self;

        async fn connect(&self) -> anyhow::Result<Self> {
            Ok(Self { adds: self.adds })
        }
    }

    impl Caller for Here {
        async fn null(&self, n: u64) -> anyhow::Result<u64> {
            tokio::task::yield_now().await;
            Ok(n + self.adds)
        }

        async fn echo(&self, payload: &Bytes) -> anyhow::Result<()> {
            tokio::task::yield_now().await;
            compare(payload, &payload[self.adds as usize..])
        }
    }

    #[tokio::test]
    async fn a_run_counts_and_times_calls() {
        for work in [Work::Null, Work::Echo, Work::Connect] {
            let load = Load {
                work,
                bytes: 10,
                ..SHORT
            };
            let local = LocalSet::new();
            let run = local.run_until(drive(Here { adds: 0 }, load));
            let found = run.await.unwrap();
            let figure = |metric| found.metrics[&metric];
            assert!(figure(Metric::Rate) > 100.0, "{found:?}");
            assert!(figure(Metric::P50Us) <= figure(Metric::P99Us), "{found:?}");
            assert!(figure(Metric::ClientCpuUs) >= 0.0, "{found:?}");
            let timed: u64 = found.latencies_ns.iter().map(|(_, count)| count).sum();
            assert!(
                timed > 0 && timed as f64 <= figure(Metric::Calls),
                "{found:?}"
            );
        }
    }

    #[test]
    fn calls_that_take_turns_are_all_timed() {
        let calls = SHORT.connections * SHORT.outstanding;
        let recorder = Recorder::new(SHORT);
        let mut timed = vec![0; calls];
        for turn in 0..calls * STRIDE as usize {
            timed[turn % calls] += usize::from(recorder.begin().is_some());
        }
        assert_eq!(timed, vec![1; calls]);
    }

    #[tokio::test]
    async fn a_wrong_answer_fails_the_run() {
        for (work, expected) in [
            (Work::Null, "answered"),
            (Work::Connect, "answered"),
            (Work::Echo, "10 bytes came back as 9"),
        ] {
            let load = Load {
                work,
                bytes: 10,
                ..SHORT
            };
            let local = LocalSet::new();
            let run = local.run_until(drive(Here { adds: 1 }, load));
            let error = run.await.unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
