//! Numbers that look random and come again with their seed.
//!
//! The generator is `SplitMix64` (Steele, Lea, Flood 2014): one addition and a mixer, enough to
//! choose what a test does next, and nothing to keep a secret with.

use std::sync::atomic::{AtomicU64, Ordering};

/// The variable that gives a seed.
pub(super) const SEED: &str = "PARTHA_SEED";

/// A generator of numbers; shared by reference.
#[derive(Debug)]
pub struct Random {
    seed: u64,
    state: AtomicU64,
}

impl Random {
    /// Numbers that follow from this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let state = AtomicU64::new(seed);
        Self { seed, state }
    }

    /// What it began with.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Any number. Which thread gets which one is not repeated.
    pub fn next(&self) -> u64 {
        const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
        let before = self.state.fetch_add(STEP, Ordering::Relaxed);
        let mut z = before.wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    ///
    /// # Panics
    /// If the limit is 0.
    pub fn below(&self, limit: u64) -> u64 {
        assert!(limit > 0, "no number is below 0");
        // The bias is far below what a test could notice.
        self.next() % limit
    }

    /// One of the items.
    ///
    /// # Panics
    /// If there are none.
    pub fn choose<'a, T>(&self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_numbers_of_the_reference() {
        let random = Random::new(0);
        // As the reference implementation in C prints them.
        assert_eq!(random.next(), 0xE220_A839_7B1D_CDAF);
        assert_eq!(random.next(), 0x6E78_9E6A_A1B9_65F4);
        assert_eq!(random.next(), 0x06C4_5D18_8009_454F);
        let (one, two) = (Random::new(7), Random::new(7));
        assert!((0..100).all(|_| one.below(10) == two.below(10)));
        assert_eq!(one.seed(), 7);
        assert!([1, 2, 3].contains(one.choose(&[1, 2, 3])));
    }
}
