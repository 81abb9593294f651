//! How much memory the objects of a node may take.
//!
//! What is counted are encoded states, since nothing else is known of a servant's state, and
//! objects. The engine of each shard keeps to its share (`partha_core::activation`): objects are
//! spread over shards by a hash of their uids, so the shares are equal.

use partha_core::Limits;

use super::NodeBuilder;
use crate::shard::Room;

/// The limits of a whole node, where they are not the sums of its shards' usual ones.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Memory {
    bytes_max: Option<u64>,
    objects_max: Option<u32>,
    coming_bytes_max: Option<usize>,
}

impl Memory {
    /// The limits of each of so many shards.
    pub(super) fn shared(self, limits: Limits, shards: u16) -> Limits {
        let shards = shards.max(1);
        let bytes = self.bytes_max.map(|bytes| bytes.div_ceil(shards.into()));
        let objects = self.objects_max.map(|all| all.div_ceil(shards.into()));
        Limits {
            active_bytes_max: bytes.unwrap_or(limits.active_bytes_max),
            active_objects_max: objects.unwrap_or(limits.active_objects_max),
            ..limits
        }
    }

    /// For objects on their way to the node.
    pub(super) fn coming(self) -> Room {
        self.coming_bytes_max.map_or_else(Room::default, Room::new)
    }
}

impl NodeBuilder {
    /// Bytes of object states that the node keeps in memory, as they are encoded; 256 MiB for
    /// each of its shards if not said. Divided by its shards and rounded up.
    ///
    /// Over it the longest unused objects leave memory. Where all are in use, a call of one that
    /// is not there is refused with `Overloaded`, which names the limit. What is being written,
    /// locked by an action or called never leaves.
    #[must_use]
    pub fn memory_max(mut self, bytes: u64) -> Self {
        self.memory.bytes_max = Some(bytes);
        self
    }

    /// Persistent objects that the node keeps in memory, whatever their size: each costs a few
    /// hundred bytes besides its state. 100,000 for each of its shards if not said; divided by
    /// its shards, rounded up, and kept to as with [`NodeBuilder::memory_max`].
    #[must_use]
    pub fn active_objects_max(mut self, objects: u32) -> Self {
        self.memory.objects_max = Some(objects);
        self
    }

    /// Bytes that the node keeps in memory of objects on their way to it, all together: what
    /// running actions have of them, with the states and rows as they were before those changed
    /// them. 256 MiB if not said; of one object it keeps 64 MiB at most.
    ///
    /// Over it an object is refused with `Overloaded` and serves on where it is, which tries again
    /// for as long as the move may wait. An object that no action has changed needs it for a
    /// moment only, for its state.
    #[must_use]
    pub fn arrivals_memory_max(mut self, bytes: usize) -> Self {
        self.memory.coming_bytes_max = Some(bytes);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_equal_and_at_least_the_whole() {
        let usual = Limits::default();
        assert_eq!(Memory::default().shared(usual, 3), usual);
        let memory = Memory {
            bytes_max: Some(1_000),
            objects_max: Some(10),
            coming_bytes_max: None,
        };
        let each = memory.shared(usual, 3);
        assert_eq!((each.active_bytes_max, each.active_objects_max), (334, 4));
        assert_eq!(memory.shared(usual, 1).active_bytes_max, 1_000);
        assert_eq!(each.calls_max, usual.calls_max);
    }
}
