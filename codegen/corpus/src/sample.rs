//! Random values of all types that have them, reproducible from a seed.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use partha::abi::Struct;
use partha::{Bytes, NodeId, Timestamp, Uid};

/// A source of numbers (splitmix64) that knows how deep the value it makes is nested.
#[derive(Debug)]
pub struct Random {
    state: u64,
    depth: u32,
}

impl Random {
    /// Starts from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            state: seed,
            depth: 0,
        }
    }

    /// Any number.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub fn ordinal(&mut self, bound: u16) -> u16 {
        (self.bits() % u64::from(bound)) as u16
    }

    /// Makes a part of a value.
    pub fn deeper<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> T {
        self.depth += 1;
        let made = make(self);
        self.depth -= 1;
        made
    }

    /// How many elements a list gets: fewer the deeper it is.
    fn count(&mut self) -> u16 {
        if self.depth > 5 { 0 } else { self.ordinal(4) }
    }
}

/// A type with random values.
pub trait Sample: Sized {
    /// One of them.
    fn sample(r: &mut Random) -> Self;
}

/// Is shown types one by one.
pub trait Visitor {
    /// `T` is `name` in the schema of `module`.
    fn visit<T: Struct + Sample + Debug + PartialEq>(
        &mut self,
        module: &'static str,
        name: &'static str,
    );
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl Sample for $type {
            fn sample(r: &mut Random) -> Self {
                match r.ordinal(5) {
                    0 => Self::MIN,
                    1 => Self::MAX,
                    2 => 0,
                    _ => r.bits() as Self,
                }
            }
        }
    )*};
}
integers!(i8, i16, i32, i64, u8, u16, u32, u64);

impl Sample for bool {
    fn sample(r: &mut Random) -> Self {
        r.ordinal(2) == 1
    }
}

impl Sample for f32 {
    fn sample(r: &mut Random) -> Self {
        Self::from(i16::sample(r)) / 32.0
    }
}

impl Sample for f64 {
    fn sample(r: &mut Random) -> Self {
        Self::from(i32::sample(r)) / 1024.0
    }
}

impl Sample for String {
    fn sample(r: &mut Random) -> Self {
        let texts = [
            "",
            "a",
            "grüße \"€\"\n\t\\",
            "one\0two",
            "a longer text of some words",
        ];
        texts[usize::from(r.ordinal(5))].to_owned()
    }
}

impl Sample for Bytes {
    fn sample(r: &mut Random) -> Self {
        // `capnp encode` counts brackets in strings too.
        let byte = |bits: u64| {
            if matches!(bits as u8, b'(' | b')') {
                0
            } else {
                bits as u8
            }
        };
        (0..r.ordinal(12)).map(|_| byte(r.bits())).collect()
    }
}

impl Sample for Uid {
    fn sample(r: &mut Random) -> Self {
        // A reference to the nil uid is refused.
        Self {
            node: NodeId(r.bits()),
            local: r.bits() | 1,
        }
    }
}

impl Sample for Timestamp {
    fn sample(r: &mut Random) -> Self {
        Self::from_micros(i64::sample(r))
    }
}

impl Sample for Duration {
    fn sample(r: &mut Random) -> Self {
        Self::from_micros(r.bits() >> 1)
    }
}

impl<T: Sample> Sample for Vec<T> {
    fn sample(r: &mut Random) -> Self {
        (0..r.count()).map(|_| r.deeper(T::sample)).collect()
    }
}

impl<K: Sample + Ord, V: Sample> Sample for BTreeMap<K, V> {
    fn sample(r: &mut Random) -> Self {
        (0..r.count())
            .map(|_| r.deeper(|r| (K::sample(r), V::sample(r))))
            .collect()
    }
}

impl<T: Sample> Sample for Option<T> {
    fn sample(r: &mut Random) -> Self {
        (r.ordinal(3) > 0).then(|| r.deeper(T::sample))
    }
}

include!(concat!(env!("OUT_DIR"), "/samples.rs"));
