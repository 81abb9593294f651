//! A hasher for keys that are numbers already.
//!
//! Tickets and uids are handed out by this process or spread by it; what a peer can choose is a
//! uid, and looking one up costs nothing that grows. So a multiplication does, where SipHash
//! would cost more than the rest of the look-up.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map keyed by numbers.
pub(crate) type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// Folds numbers with a multiplication (Fibonacci hashing).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct IdHasher(u64);

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u16(&mut self, value: u16) {
        self.write_u64(value.into());
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(23) ^ value).wrapping_mul(GOLDEN);
    }
}

/// The shard of an object: the same at every end, from the shard count of the handshake.
pub(crate) fn shard_of(uid: partha_core::id::Uid, shards: u16) -> u16 {
    let mut hasher = IdHasher::default();
    hasher.write_u64(uid.node.0);
    hasher.write_u64(uid.local);
    let hash = hasher.finish();
    ((u128::from(hash) * u128::from(shards.max(1))) >> 64) as u16
}

#[cfg(test)]
mod tests {
    use partha_core::id::{Incarnation, NodeId, Uid};

    use super::*;

    #[test]
    fn consecutive_objects_spread_over_shards() {
        let mut per_shard = [0; 4];
        for counter in 0..4000 {
            let uid = Uid::new(NodeId(0x1234_5678_9abc_def0), Incarnation(1), counter);
            per_shard[shard_of(uid, 4) as usize] += 1;
        }
        for count in per_shard {
            assert!((800..1200).contains(&count), "{per_shard:?}");
        }
        assert_eq!(shard_of(Uid::NAMING_ROOT, 1), 0);
    }
}
