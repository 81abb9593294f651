//! Many seeds of random families, while messages get lost, doubled and late.

use std::ops::Range;
use std::panic::catch_unwind;
use std::time::Duration;

use super::cluster::Weather;
use super::play::{Plan, Play, Sum};
use crate::deadlock::Rule;

const PLAN: Plan = Plan {
    nodes: 3,
    shards: 1,
    objects: 7,
    families: 40,
    at_once: 5,
    weather: Weather::FAIR,
    cancelled_per_mille: 0,
    patience: Duration::from_millis(1_300),
    rule: None,
};

/// Every tenth message is lost.
const BAD: Weather = Weather {
    lost_per_mille: 100,
    doubled_per_mille: 100,
    delay_us: (100, 60_000),
};

/// What homes know is mostly wrong.
const STORM: Weather = Weather {
    lost_per_mille: 300,
    doubled_per_mille: 100,
    delay_us: (100, 300_000),
};

fn runs(seeds: Range<u64>, plan: fn(u64) -> Plan) -> Sum {
    let mut sum = Sum::default();
    for seed in seeds {
        let one = catch_unwind(|| Play::new(plan(seed), seed).run());
        let one = one.unwrap_or_else(|_| panic!("seed {seed} of {:?}", plan(seed)));
        sum.waits += one.waits;
        sum.victims += one.victims;
        sum.late += one.late;
        sum.sent += one.sent;
    }
    println!("{sum:?}");
    sum
}

/// Clusters of 1 to 5 nodes with one or two shards each.
fn spread(seed: u64, plan: Plan) -> Plan {
    Plan {
        nodes: 1 + seed % 5,
        shards: 1 + (seed / 5 % 2) as u16,
        ..plan
    }
}

/// How many seeds to run; more with `DEADLOCK_SEEDS=…`.
fn seeds(usually: u64) -> Range<u64> {
    let wanted = std::env::var("DEADLOCK_SEEDS").ok();
    0..wanted.map_or(usually, |text| text.parse().expect("a number of seeds"))
}

#[test]
fn every_deadlock_is_broken_soon_and_nothing_else() {
    let sum = runs(seeds(30), |seed| spread(seed, PLAN));
    assert!(sum.victims > 250, "{sum:?}");
    // Cycles with a member in common, found within the same milliseconds.
    assert!(
        sum.late * 30 < sum.victims,
        "too many needless victims: {sum:?}"
    );
}

#[test]
fn bad_weather_delays_but_never_deceives() {
    let plan = |seed| {
        let plan = Plan {
            weather: BAD,
            patience: Duration::from_secs(40),
            ..PLAN
        };
        spread(seed, plan)
    };
    let sum = runs(seeds(20), plan);
    assert!(sum.victims > 150, "{sum:?}");
}

#[test]
fn callers_that_give_up_do_not_make_phantoms() {
    let plan = |seed| {
        let plan = Plan {
            weather: BAD,
            patience: Duration::from_secs(40),
            cancelled_per_mille: 300,
            ..PLAN
        };
        spread(seed, plan)
    };
    let sum = runs(seeds(20), plan);
    assert!(sum.victims > 100, "{sum:?}");
}

/// How many of the seeds fail without a rule.
fn caught(plan: fn(u64) -> Plan) -> usize {
    let fails = |seed: &u64| catch_unwind(|| Play::new(plan(*seed), *seed).run()).is_err();
    (0..40).filter(fails).count()
}

/// A storm over more objects and families, with or without a rule.
fn storm(seed: u64, rule: Option<Rule>) -> Plan {
    let plan = Plan {
        weather: STORM,
        patience: Duration::from_secs(400),
        objects: 12,
        at_once: 8,
        rule,
        ..PLAN
    };
    spread(seed, plan)
}

#[test]
fn not_even_a_storm_makes_phantoms() {
    let sum = runs(seeds(15), |seed| storm(seed, None));
    assert!(sum.victims > 100, "{sum:?}");
}

#[test]
fn the_oracle_notices_what_is_not_confirmed() {
    let caught = caught(|seed| storm(seed, Some(Rule::Confirm)));
    assert!(caught >= 5, "{caught}");
}

#[test]
fn the_oracle_notices_a_victim_too_many() {
    let plan = |seed| {
        let plan = Plan {
            rule: Some(Rule::OneVictim),
            ..PLAN
        };
        spread(seed, plan)
    };
    assert!(caught(plan) > 30);
}
