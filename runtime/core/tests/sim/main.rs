//! Seeded simulation of nodes, stores, connections and clients around real engines.
//!
//! A seed decides everything: sizes, delays, what is lost, who dies when. A run ends when faults
//! have stopped, every call has its answer and every node has drained; then the checkers judge.
//!
//! `PARTHA_SIM_SEEDS=n` runs n seeds, `PARTHA_SIM_SEED=s` the one seed s, and
//! `PARTHA_SIM_TRACE=1` with it prints every input with its outputs.

mod checker;
mod client;
mod disk;
mod history;
mod net;
mod plan;
mod reached;
mod rng;
mod shell;
mod world;

use partha_core::engine::Mutation;
use reached::POINTS;
use world::{Summary, run};

/// Seeds in an ordinary run of the tests.
const SEEDS: u64 = 2_000;
/// A mistake not found within so many seeds is not found.
const MUTANT_SEEDS: u64 = 2_000;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is '{text}', expected a number")),
    )
}

/// Runs a seed; an assert of the engine counts as found, too.
fn judge(seed: u64, mutation: Mutation, traced: bool) -> Result<Summary, String> {
    std::panic::catch_unwind(|| run(seed, mutation, traced)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("assert: {}", text.unwrap_or_default()))
    })
}

#[test]
fn all_rules_hold_for_every_seed() {
    let one = number("PARTHA_SIM_SEED");
    let count = number("PARTHA_SIM_SEEDS").unwrap_or(SEEDS);
    let seeds = one.map_or(0..count, |seed| seed..seed + 1);
    let mut total = Summary::default();
    for seed in seeds {
        match judge(seed, Mutation::None, one.is_some()) {
            Ok(summary) => {
                total.inputs += summary.inputs;
                total.ops += summary.ops;
                total.answered += summary.answered;
                total.crashes += summary.crashes;
                for (point, count) in summary.reached {
                    *total.reached.entry(point).or_default() += count;
                }
            }
            Err(violation) => panic!(
                "{violation}\nagain: PARTHA_SIM_SEED={seed} PARTHA_SIM_TRACE=1 \
                 cargo test -p partha-core --test sim all_rules -- --nocapture"
            ),
        }
    }
    println!("{total:#?}");
    // A simulation in which nothing happens finds nothing.
    if one.is_none() && count >= SEEDS {
        assert!(
            total.answered * 2 > total.ops,
            "most calls went unanswered: {total:?}"
        );
        assert!(
            total.crashes > count / 2,
            "hardly anything went wrong: {total:?}"
        );
        let missed = POINTS
            .iter()
            .filter(|point| !total.reached.contains_key(*point));
        assert_eq!(missed.collect::<Vec<_>>(), [&""; 0], "never reached");
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..20 {
        let first = judge(seed, Mutation::None, true).expect("rules hold");
        let second = judge(seed, Mutation::None, true).expect("rules hold");
        assert_eq!(first, second, "seed {seed}");
        assert_ne!(first.trace, 0);
    }
}

/// Keeps asserts of mutants out of the output, and those of other tests in it.
fn silence_this_test() {
    let own = std::thread::current().id();
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().id() != own {
            print(info);
        }
    }));
}

#[test]
fn every_known_mistake_is_found() {
    silence_this_test();
    let mutants = [
        Mutation::ReplyBeforeFlush,
        Mutation::UnlockBeforeFlush,
        Mutation::SkipSearch,
        Mutation::NoJoin,
        Mutation::KeepOnRaise,
        Mutation::KeepOnFault,
        Mutation::IgnoreIncarnation,
        Mutation::SkipSave,
        Mutation::LoseFollowers,
        Mutation::TrustFault,
    ];
    let mut missed = Vec::new();
    for mutant in mutants {
        let found =
            (0..MUTANT_SEEDS).find_map(|seed| Some((seed, judge(seed, mutant, false).err()?)));
        match found {
            Some((seed, violation)) => {
                let line = violation.lines().next().unwrap_or_default();
                println!("{mutant:?}: seed {seed}: {line:.100}");
            }
            None => missed.push(mutant),
        }
    }
    assert!(
        missed.is_empty(),
        "not found within {MUTANT_SEEDS} seeds: {missed:?}"
    );
}
