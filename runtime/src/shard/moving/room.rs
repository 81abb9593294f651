//! How many bytes objects on their way to a node may take in memory until they have come: what
//! running actions have of them, and states that cannot be written yet. All shards of a node share
//! one [`Room`].

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use partha_core::migrate::{Cargo, CargoAction, CargoLevel};

use super::reasons::{Refused, not};
use crate::error::{ErrorKind, SystemError};
use crate::system::MovingRow;

/// Bytes that are kept for one object on its way here.
const EACH_MAX: usize = 64 << 20;
/// Bytes that are kept for all of them at a time, if nothing else is said.
const ALL_MAX: usize = 256 << 20;
/// What a row, a call or a caller costs besides its bytes.
pub(super) const ENTRY_BYTES: usize = 128;

/// What is left for objects on their way to the node.
#[derive(Debug)]
pub(crate) struct Room {
    max: usize,
    taken: AtomicUsize,
}

impl Default for Room {
    fn default() -> Self {
        Self::new(ALL_MAX)
    }
}

impl Room {
    /// For so many bytes.
    pub(crate) fn new(max: usize) -> Self {
        let taken = AtomicUsize::new(0);
        Self { max, taken }
    }
}

/// What is kept for one object; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Kept {
    room: Arc<Room>,
    bytes: usize,
}

impl Kept {
    /// Nothing yet.
    pub(super) fn nothing(room: Arc<Room>) -> Self {
        Self { room, bytes: 0 }
    }

    /// Keeps more.
    pub(super) fn more(&mut self, bytes: usize) -> Result<(), Refused> {
        let together = self.bytes.saturating_add(bytes);
        if together > EACH_MAX {
            let reason = format!(
                "running actions have changed more than {EACH_MAX} bytes of it; it can move when \
                 they have ended"
            );
            return not(reason, true);
        }
        let Room { max, taken } = &*self.room;
        let room = |now: usize| now.checked_add(bytes).filter(|after| after <= max);
        if taken.fetch_update(Relaxed, Relaxed, room).is_err() {
            let detail = format!(
                "what running actions have of objects on their way here: more than {max} bytes"
            );
            let error = SystemError::new(ErrorKind::Overloaded, detail);
            return Err(Refused::Failed(error));
        }
        self.bytes = together;
        Ok(())
    }

    /// Keeps so many less.
    pub(super) fn less(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.room.taken.fetch_sub(bytes, Relaxed);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.room.taken.fetch_sub(self.bytes, Relaxed);
    }
}

/// About how many bytes a row takes.
pub(super) fn row_bytes(row: &MovingRow) -> usize {
    let value = row.value.as_ref().map_or(0, Bytes::len);
    ENTRY_BYTES + row.key.len() + value
}

/// About how many bytes a cargo takes.
pub(super) fn cargo_bytes(cargo: &Cargo) -> usize {
    let action = |action: &CargoAction| {
        let entries = action.callers.len() + action.executed.len();
        let levels = size_of::<CargoLevel>() * action.levels.len();
        ENTRY_BYTES * (1 + entries) + levels
    };
    cargo.actions.iter().map(action).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn full(refused: Result<(), Refused>) -> bool {
        let kind = |error: &SystemError| error.kind();
        matches!(refused, Err(Refused::Failed(error)) if kind(&error) == ErrorKind::Overloaded)
    }

    #[test]
    fn what_all_objects_keep_together_is_bounded_and_is_given_back() {
        let room = Arc::new(Room::new(100 * MIB));
        let kept = || Kept::nothing(room.clone());
        let (mut first, mut second) = (kept(), kept());
        first.more(60 * MIB).unwrap();
        second.more(30 * MIB).unwrap();
        assert!(full(second.more(11 * MIB)), "of both");
        second.more(10 * MIB).unwrap();
        assert!(full(kept().more(1)));
        drop(first);
        // What was refused has taken nothing.
        let mut third = kept();
        third.more(60 * MIB).unwrap();
        assert!(full(second.more(1)));
        second.less(4 * MIB);
        third.more(4 * MIB).unwrap();
        drop((second, third));
        assert_eq!(room.taken.load(Relaxed), 0);
    }

    #[test]
    fn one_object_has_a_bound_of_its_own() {
        let room = Arc::new(Room::default());
        let mut kept = Kept::nothing(room.clone());
        kept.more(EACH_MAX).unwrap();
        let Err(Refused::Not { reason, passing }) = kept.more(1) else {
            panic!("it is too large");
        };
        assert!(
            passing && reason.contains("when they have ended"),
            "{reason}"
        );
        assert_eq!(room.taken.load(Relaxed), EACH_MAX);
    }
}
