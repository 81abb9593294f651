//! Runs many seeds on all cores, says what happened, and makes a failing run smaller.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the driver tells how long it took; no run knows"
)]

use std::cell::RefCell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use partha_core::engine::Mutation;

use crate::options::{Caps, FaultKind, Options, World, again};
use crate::{Job, MUTANTS, Summary, Trace, judge, missed};

/// Seeds between two lines about the progress.
const PROGRESS: u64 = 2_000;
/// A mistake not found within so many seeds is not found.
pub(crate) const MUTANT_SEEDS: u64 = 40_000;
thread_local! {
    /// Where the last assert of this thread was.
    pub(crate) static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// A run that failed.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) seed: u64,
    pub(crate) violation: String,
}

/// Does what the command line says; whether all is well.
pub(crate) fn run(options: &Options) -> bool {
    if options.trace && options.seeds == 1 {
        return trace(options);
    }
    quiet();
    if !options.mutations.is_empty() {
        let mut well = true;
        for mutation in &options.mutations {
            well &= hunt(*mutation, options);
        }
        return well;
    }
    let mut well = true;
    for world in &options.worlds {
        well &= sweep(*world, options);
    }
    well
}

/// Asserts of engines are told with their seed, not when they happen.
pub(crate) fn quiet() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string);
        PLACE.set(place.unwrap_or_default());
    }));
}

fn trace(options: &Options) -> bool {
    let mut well = true;
    for world in &options.worlds {
        let mutation = options.mutations.first().copied();
        let job = Job {
            world: *world,
            seed: options.from,
            mutation: mutation.unwrap_or(Mutation::None),
            caps: options.caps,
            trace: Trace::Print,
        };
        match judge(&job) {
            Ok(summary) => println!("{}: all rules hold\n{summary:#?}", world.name()),
            Err(violation) => {
                println!("{}: {violation}", world.name());
                well = false;
            }
        }
    }
    well
}

/// Runs seeds in parallel until one fails; the smallest that did is returned.
pub(crate) fn batch(
    (from, seeds): (u64, u64),
    job_of: impl Fn(u64) -> Job + Sync,
    progress: impl Fn(u64, &Summary) + Sync,
) -> (Summary, u64, Option<Failure>) {
    let next = AtomicU64::new(from);
    let end = AtomicU64::new(from + seeds);
    let shared = Mutex::new((Summary::default(), 0, None::<Failure>));
    let work = || loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end.load(Ordering::Relaxed) {
            return;
        }
        let outcome = judge(&job_of(seed));
        let mut shared = shared.lock().expect("no worker panics");
        shared.1 += 1;
        match outcome {
            Ok(summary) => shared.0.add(&summary),
            Err(violation) => {
                end.fetch_min(seed, Ordering::Relaxed);
                if shared.2.as_ref().is_none_or(|known| seed < known.seed) {
                    shared.2 = Some(Failure { seed, violation });
                }
            }
        }
        if shared.1 % PROGRESS == 0 {
            progress(shared.1, &shared.0);
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(work);
        }
    });
    shared.into_inner().expect("no worker panics")
}

fn sweep(world: World, options: &Options) -> bool {
    let start = Instant::now();
    let job_of = |seed| Job {
        world,
        seed,
        mutation: Mutation::None,
        caps: options.caps,
        trace: Trace::Off,
    };
    let progress = |done: u64, summary: &Summary| {
        let rate = done as f64 / start.elapsed().as_secs_f64();
        let some = ["crashes", "commits", "aborts", "deadlocks broken"];
        let some = some.map(|what| (what, summary.counts.get(what).copied()));
        let some = some
            .iter()
            .filter_map(|(what, n)| n.map(|n| format!(", {n} {what}")));
        let some: String = some.collect();
        println!("{}: {done} seeds, {rate:.0} a second{some}", world.name());
    };
    let (summary, done, failure) = batch((options.from, options.seeds), job_of, progress);
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{}: {done} seeds in {seconds:.1} s, {:.0} a second",
        world.name(),
        done as f64 / seconds
    );
    for (what, count) in &summary.counts {
        println!("  {count:>12}  {what}");
    }
    println!("  came by:");
    for (point, count) in &summary.reached {
        println!("  {count:>12}  {point}");
    }
    if let Some(failure) = failure {
        println!("{}", tell(&shrink(job_of(failure.seed), failure)));
        return false;
    }
    let missed = missed(world, options.seeds, &summary);
    if options.caps == Caps::NONE && !missed.is_empty() {
        println!("never reached: {}", missed.join(", "));
        return false;
    }
    true
}

/// Looks for a seed that notices a rule left out.
fn hunt(mutation: Mutation, options: &Options) -> bool {
    let start = Instant::now();
    match find(
        mutation,
        options.from,
        options.caps,
        options.seeds.max(MUTANT_SEEDS),
    ) {
        Some((world, failure)) => {
            println!(
                "{mutation:?}: {} seed {} ({:.1} s): {:.160}",
                world.name(),
                failure.seed,
                start.elapsed().as_secs_f64(),
                failure.violation.lines().next().unwrap_or_default()
            );
            true
        }
        None => {
            println!("{mutation:?}: NOT FOUND within {MUTANT_SEEDS} seeds");
            false
        }
    }
}

/// The first seed, from `from` on, that notices a rule left out.
pub(crate) fn find(
    mutation: Mutation,
    from: u64,
    caps: Caps,
    seeds: u64,
) -> Option<(World, Failure)> {
    let known = MUTANTS.iter().find(|mutant| mutant.0 == mutation);
    let world = known.map_or(World::Actions, |mutant| mutant.1);
    let job_of = |seed| Job {
        world,
        seed,
        mutation,
        caps,
        trace: Trace::Off,
    };
    let (_, _, failure) = batch((from, seeds), job_of, |_, _| ());
    failure.map(|failure| (world, failure))
}

/// A failing run and the command that repeats it.
pub(crate) fn tell((job, violation): &(Job, String)) -> String {
    let command = again(job.world, job.seed, job.mutation, &job.caps);
    format!("VIOLATION: {violation}\nagain: {command}")
}

/// Lowers one cap after another while the run still fails, whatever the failure.
pub(crate) fn shrink(job: Job, failure: Failure) -> (Job, String) {
    let mut best = (job, failure.violation);
    loop {
        let before = best.0.caps;
        for (_, kind) in FaultKind::ALL
            .iter()
            .enumerate()
            .map(|(n, kind)| (n, kind.0))
        {
            let mut caps = best.0.caps;
            caps.without |= kind.bit();
            attempt(&mut best, caps);
        }
        for index in 0..best.0.caps.named().len() {
            for value in [1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 50, 80] {
                let mut caps = best.0.caps;
                let cap = &mut *caps.named()[index].1;
                if value >= *cap {
                    break;
                }
                *cap = value;
                if attempt(&mut best, caps) {
                    break;
                }
            }
        }
        if best.0.caps == before {
            return best;
        }
    }
}

fn attempt(best: &mut (Job, String), caps: Caps) -> bool {
    if caps == best.0.caps {
        return false;
    }
    let job = Job { caps, ..best.0 };
    match judge(&job) {
        Ok(_) => false,
        Err(violation) => {
            *best = (job, violation);
            true
        }
    }
}
