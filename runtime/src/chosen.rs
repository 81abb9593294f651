//! What a call finds out only once: the time, and chance.
//!
//! A method of an object with copies that all execute has to do the same at each of them
//! (semantics of active replication: no clock and no generator of its own). So a servant asks its
//! context, where whoever executes first has chosen for all.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::timestamp::Timestamp;

/// The time and the chance of one call.
#[derive(Debug, Default)]
pub(crate) struct Chosen {
    now: OnceLock<Timestamp>,
    seed: OnceLock<u64>,
    drawn: AtomicU64,
}

impl Chosen {
    /// What somebody else has chosen.
    pub(crate) fn by(now: Timestamp, seed: u64) -> Self {
        Self {
            now: OnceLock::from(now),
            seed: OnceLock::from(seed),
            drawn: AtomicU64::new(0),
        }
    }

    /// The moment at which it was first asked for.
    pub(crate) fn now(&self) -> Timestamp {
        *self.now.get_or_init(Timestamp::now)
    }

    /// The next number of the call's generator: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
    pub(crate) fn random(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let seed = *self.seed.get_or_init(|| RandomState::new().hash_one(STEP));
        let drawn = self.drawn.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let mut mixed = seed.wrapping_add(drawn.wrapping_mul(STEP));
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seeded(seed: u64) -> Chosen {
        Chosen::by(Timestamp::default(), seed)
    }

    fn first(chosen: &Chosen, count: usize) -> Vec<u64> {
        (0..count).map(|_| chosen.random()).collect()
    }

    #[test]
    fn a_call_sees_one_moment() {
        let before = Timestamp::now();
        let chosen = Chosen::default();
        let now = chosen.now();
        assert!(before <= now && now <= Timestamp::now());
        assert_eq!(chosen.now(), now);
    }

    #[test]
    fn a_seed_says_all_numbers_that_are_drawn() {
        // The first numbers of the published generator for this seed.
        let published = [0x599e_d017_fb08_fc85, 0x2c73_f084_5854_0fa5];
        assert_eq!(first(&seeded(1_234_567), 2), published);
        let numbers = first(&seeded(7), 1_000);
        assert_eq!(numbers, first(&seeded(7), 1_000));
        assert_ne!(numbers, first(&seeded(8), 1_000));
    }

    #[test]
    fn calls_draw_differently() {
        assert_ne!(
            first(&Chosen::default(), 4),
            first(&Chosen::default(), 4),
            "two calls have the same chance"
        );
    }
}
