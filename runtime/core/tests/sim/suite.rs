//! What `cargo test` runs of the simulator: some seeds of each world, the same twice, and every
//! known mistake.

use partha_core::engine::Mutation;

use crate::driver::{MUTANT_SEEDS, batch, find, quiet, shrink, tell};
use crate::options::{Caps, World};
use crate::{Job, MUTANTS, Trace, judge, missed};

/// Seeds of an ordinary run; debug builds are slow.
const SEEDS: [(World, u64); 3] = [
    (World::Calls, 2_000),
    (World::Actions, 1_000),
    (World::Groups, 1_000),
];

type Test = (&'static str, fn() -> Result<(), String>);

const TESTS: [Test; 3] = [
    ("all_rules_hold_for_every_seed", every_seed),
    ("the_same_seed_is_the_same_run", same_seed),
    ("every_known_mistake_is_found", every_mistake),
];

/// Runs the tests whose names have one of the words in them, as cargo's own do.
pub(crate) fn run(words: &[String]) -> bool {
    quiet();
    if words.iter().any(|word| word == "--list") {
        for (name, _) in TESTS {
            println!("{name}: test");
        }
        return true;
    }
    let filters = words.iter().filter(|word| !word.starts_with('-'));
    let filters: Vec<&String> = filters.collect();
    let mut well = true;
    for (name, test) in TESTS {
        if !filters.is_empty() && !filters.iter().any(|filter| name.contains(*filter)) {
            continue;
        }
        let outcome = test();
        let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!("test {name} ... {verdict}");
        if let Err(error) = outcome {
            println!("{error}");
            well = false;
        }
    }
    well
}

fn job(world: World, seed: u64) -> Job {
    Job {
        world,
        seed,
        mutation: Mutation::None,
        caps: Caps::NONE,
        trace: Trace::Off,
    }
}

fn every_seed() -> Result<(), String> {
    for (world, seeds) in SEEDS {
        let (summary, _, failure) = batch((0, seeds), |seed| job(world, seed), |_, _| ());
        if let Some(failure) = failure {
            return Err(tell(&shrink(job(world, failure.seed), failure)));
        }
        // A simulation in which nothing happens finds nothing.
        let missed = missed(world, seeds, &summary);
        if !missed.is_empty() {
            return Err(format!("{}: never reached: {missed:?}", world.name()));
        }
    }
    Ok(())
}

fn same_seed() -> Result<(), String> {
    for (world, _) in SEEDS {
        for seed in 0..20 {
            let job = Job {
                trace: Trace::Digest,
                ..job(world, seed)
            };
            let (first, second) = (judge(&job)?, judge(&job)?);
            if first != second || first.trace == 0 {
                return Err(format!("{} seed {seed}: two runs differ", world.name()));
            }
        }
    }
    Ok(())
}

fn every_mistake() -> Result<(), String> {
    let mut lost = Vec::new();
    for &(mutation, _, first_seed) in MUTANTS {
        // A change of the engine changes every run, so the old seed is only where to begin.
        if find(mutation, first_seed, Caps::NONE, MUTANT_SEEDS).is_none() {
            lost.push(mutation);
        }
    }
    if lost.is_empty() {
        return Ok(());
    }
    Err(format!("not found within {MUTANT_SEEDS} seeds: {lost:?}"))
}
