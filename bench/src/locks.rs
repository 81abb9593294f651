//! The lock table of the engine by itself, in this process, on one thread.
//!
//! What is counted are pairs: a lock got and given back. There is no peer to compare with; the
//! bound to hold is 10 million uncontended pairs a second.

use std::hint::black_box;
use std::time::{Duration, Instant};

use partha_core::id::{Incarnation, NodeId, Uid};
use partha_core::lock::key::LockKey;
use partha_core::lock::locks::{Asker, Family, Granted, Locks, Owner, Request, Strangers};
use partha_core::lock::mode::Mode;

use crate::figure::{Found, Metric, Parameters, grouped};
use crate::suite::{self, Benchmark, Plan, Setting, View};

/// Keys of the cases with many.
const KEYS: u64 = 100_000;
/// Requests that wait at a time in the cases with a queue.
const QUEUE: u32 = 256;
/// Levels of nested actions above the one that asks.
const DEPTH: u32 = 3;
/// Steps between two looks at the clock.
const BATCH: u32 = 1_000;

/// What is done over and over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    /// One key, got and given back
    OneKey,
    /// Keys at random out of many, each got and given back
    ManyKeys,
    /// As many keys held: the next is got and the oldest given back
    AllHeld,
    /// A key with readers that come and go, sixteen at a time
    Readers,
    /// A nested action gets a key, its ancestors inherit it one after the other, the last one
    /// gives it back
    Nested,
    /// A key with a queue of writers outside actions; who gives it back asks again
    Queue,
    /// The same with a writer of an action each
    QueueOfActions,
}

impl Case {
    const ALL: [Self; 7] = [
        Self::OneKey,
        Self::ManyKeys,
        Self::AllHeld,
        Self::Readers,
        Self::Nested,
        Self::Queue,
        Self::QueueOfActions,
    ];

    fn label(self) -> String {
        match self {
            Self::OneKey => "one key".to_owned(),
            Self::ManyKeys => format!("one of {} keys", grouped(KEYS as f64)),
            Self::AllHeld => format!("{} keys held", grouped(KEYS as f64)),
            Self::Readers => "one key, 16 readers".to_owned(),
            Self::Nested => format!("one key, inherited {DEPTH} times"),
            Self::Queue => format!("one key, {QUEUE} writers wait"),
            Self::QueueOfActions => format!("one key, writers of {QUEUE} actions wait"),
        }
    }

    fn run(self, warm_up: Duration, measure: Duration) -> f64 {
        match self {
            Self::OneKey => pairs(warm_up, measure, |_| 0),
            Self::ManyKeys => {
                let mut random = 0x2545_f491_4f6c_dd1d;
                pairs(warm_up, measure, move |_| {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    random % KEYS
                })
            }
            Self::AllHeld => all_held(warm_up, measure),
            Self::Readers => readers(warm_up, measure),
            Self::Nested => nested(warm_up, measure),
            Self::Queue => queue(Owner::call, warm_up, measure),
            Self::QueueOfActions => queue(Owner::level, warm_up, measure),
        }
    }
}

pub(crate) const BENCHMARKS: &[Benchmark] = &[Benchmark {
    name: "locks",
    about: "locks got and given back, in the lock table alone",
    on_request: false,
    view: View {
        reference: None,
        metrics: &[Metric::Rate],
        tall: true,
        plots: &[],
    },
    plan,
}];

/// A case for each way; steps of nanoseconds need less time for a steady figure than calls do.
fn plan(setting: &Setting) -> anyhow::Result<Plan> {
    let (warm_up, measure) = (setting.warm_up / 4, setting.measure / 4);
    let case = |case: Case| suite::Case {
        peer: "partha-core",
        parameters: Parameters::default().with("case", case.label()),
        rounds: setting.rounds,
        takes: warm_up + measure,
        run: Box::new(move || Ok(Found::default().with(Metric::Rate, case.run(warm_up, measure)))),
    };
    Ok(Plan {
        cases: Case::ALL.map(case).into(),
        absent: Vec::new(),
    })
}

/// Steps a second, after a warm-up.
fn rate(warm_up: Duration, measure: Duration, mut step: impl FnMut(u64)) -> f64 {
    let mut count = 0;
    let mut run = |time: Duration| {
        let (begun, before) = (Instant::now(), count);
        while begun.elapsed() < time {
            for _ in 0..BATCH {
                step(count);
                count += 1;
            }
        }
        (count - before) as f64 / begun.elapsed().as_secs_f64()
    };
    run(warm_up);
    run(measure)
}

fn key(n: u64) -> LockKey {
    let node = NodeId(0x9c1f_36d2_08ab_74e5);
    LockKey::object(Uid::new(node, Incarnation(1), n))
}

fn request(owner: Owner, mode: Mode) -> Request {
    Request {
        owner,
        asker: Asker(owner.index()),
        mode,
        passes: false,
    }
}

fn pairs(warm_up: Duration, measure: Duration, mut choose: impl FnMut(u64) -> u64) -> f64 {
    let (mut locks, mut granted) = (Locks::default(), Vec::new());
    rate(warm_up, measure, |step| {
        let owner = Owner::call(step as u32 % 1_024);
        let (key, wish) = (black_box(key(choose(step))), request(owner, Mode::Write));
        black_box(locks.acquire(key, wish, &Strangers, &mut granted));
        locks.release(key, owner, &Strangers, &mut granted);
    })
}

fn all_held(warm_up: Duration, measure: Duration) -> f64 {
    let (mut locks, mut granted) = (Locks::default(), Vec::new());
    let owner = |n: u64| Owner::call(n as u32 % (1 << 20));
    // Neighbours in time are no neighbours in the table: 7,919 is a prime.
    let key = |n: u64| key(n * 7_919 % (2 * KEYS));
    for n in 0..KEYS {
        let wish = request(owner(n), Mode::Write);
        locks.acquire(key(n), wish, &Strangers, &mut granted);
    }
    rate(warm_up, measure, |step| {
        let new = step + KEYS;
        let wish = request(owner(new), Mode::Write);
        black_box(locks.acquire(key(new), wish, &Strangers, &mut granted));
        locks.release(key(step), owner(step), &Strangers, &mut granted);
    })
}

fn readers(warm_up: Duration, measure: Duration) -> f64 {
    let (mut locks, mut granted) = (Locks::default(), Vec::new());
    let key = key(0);
    let owner = |n: u64| Owner::call(n as u32 % 1_024);
    for n in 0..15 {
        let wish = request(owner(n), Mode::Read);
        locks.acquire(key, wish, &Strangers, &mut granted);
    }
    rate(warm_up, measure, |step| {
        let (key, wish) = (black_box(key), request(owner(step + 15), Mode::Read));
        black_box(locks.acquire(key, wish, &Strangers, &mut granted));
        locks.release(key, owner(step), &Strangers, &mut granted);
    })
}

/// One line of nested actions: each level is within all of lower numbers.
struct Nest;

impl Family for Nest {
    fn includes(&self, ancestor: Owner, of: Owner) -> bool {
        ancestor.index() <= of.index()
    }

    fn root(&self, _of: Owner) -> Owner {
        Owner::level(0)
    }
}

fn nested(warm_up: Duration, measure: Duration) -> f64 {
    let (mut locks, mut granted) = (Locks::default(), Vec::new());
    rate(warm_up, measure, |_| {
        let key = black_box(key(0));
        let wish = request(Owner::level(DEPTH), Mode::Write);
        black_box(locks.acquire(key, wish, &Nest, &mut granted));
        for child in (1..=DEPTH).rev() {
            let (child, parent) = (Owner::level(child), Owner::level(child - 1));
            locks.inherit(key, child, parent, &Nest, &mut granted);
        }
        locks.release(key, Owner::level(0), &Nest, &mut granted);
    })
}

fn queue(owner: impl Fn(u32) -> Owner, warm_up: Duration, measure: Duration) -> f64 {
    let (mut locks, mut granted): (_, Vec<Granted>) = (Locks::default(), Vec::new());
    let key = key(0);
    for n in 0..=QUEUE {
        let wish = request(owner(n), Mode::Write);
        locks.acquire(key, wish, &Strangers, &mut granted);
    }
    let mut holder = owner(0);
    rate(warm_up, measure, |_| {
        locks.release(key, holder, &Strangers, &mut granted);
        let wish = request(holder, Mode::Write);
        black_box(locks.acquire(key, wish, &Strangers, &mut granted));
        holder = granted.pop().expect("one of the queue is next").owner;
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::Effort;

    #[test]
    fn every_case_runs() {
        let plan = plan(&Setting::new(Effort::Smoke)).unwrap();
        assert_eq!(plan.cases.len(), Case::ALL.len());
        for mut case in plan.cases {
            let found = (case.run)().unwrap();
            assert!(found.metrics[&Metric::Rate] > 0.0, "{}", case.parameters);
        }
    }
}
