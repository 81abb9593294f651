//! Where in a slab the entry of a key is: an open-addressing table with linear probing.
//!
//! A cell holds 32 bits of the hash and the slot, so that a probe looks at the entry itself only
//! when the hashes agree, and growing and closing gaps do not look at it at all. At most half of
//! the cells are used. The table does not shrink: it keeps 16 bytes for each key of its fullest
//! moment, 32 at most.

use crate::lock::key::LockKey;
use crate::slab::Slot;

/// The table.
#[derive(Debug)]
pub(crate) struct Index {
    seed: u64,
    /// A power of two of them, or none.
    cells: Vec<u64>,
    len: usize,
}

/// No slot is [`Slot::NONE`], so no used cell looks like this.
const EMPTY: u64 = u64::MAX;
const CELLS_MIN: usize = 16;

impl Index {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self {
            seed,
            cells: Vec::new(),
            len: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// All bits of the key, mixed by two folded multiplications; the odd numbers are digits of
    /// the golden ratio and of pi.
    #[inline]
    pub(crate) fn hash(&self, key: LockKey) -> u32 {
        let node = key.uid.node.0 ^ 0x9e37_79b9_7f4a_7c15;
        let mixed = fold(key.uid.local ^ self.seed, node);
        let row = key.row ^ u64::from(key.part).rotate_right(16);
        let mixed = fold(mixed ^ row, 0x243f_6a88_85a3_08d3 ^ self.seed);
        (mixed >> 32) as u32 ^ mixed as u32
    }

    /// Of a number that counts up.
    #[inline]
    pub(crate) fn hash_count(&self, count: u64) -> u32 {
        let mixed = fold(count ^ self.seed, 0x9e37_79b9_7f4a_7c15);
        (mixed >> 32) as u32 ^ mixed as u32
    }

    #[inline]
    pub(crate) fn find(&self, hash: u32, is_it: impl Fn(Slot) -> bool) -> Option<Slot> {
        if self.cells.is_empty() {
            return None;
        }
        let mut at = self.home(hash);
        loop {
            let cell = self.cells[at];
            if cell == EMPTY {
                return None;
            }
            if hash_of(cell) == hash && is_it(slot_of(cell)) {
                return Some(slot_of(cell));
            }
            at = self.after(at);
        }
    }

    /// Adds a slot that is not in it.
    #[inline]
    pub(crate) fn insert(&mut self, hash: u32, slot: Slot) {
        if (self.len + 1) * 2 > self.cells.len() {
            self.grow();
        }
        self.len += 1;
        self.put(u64::from(hash) << 32 | u64::from(slot.0));
    }

    /// Takes out a slot that is in it, and closes the gap: each cell behind it moves up, unless
    /// that would put it before its home.
    #[inline]
    pub(crate) fn remove(&mut self, hash: u32, slot: Slot) {
        let wanted = u64::from(hash) << 32 | u64::from(slot.0);
        let mut gap = self.home(hash);
        while self.cells[gap] != wanted {
            assert!(self.cells[gap] != EMPTY, "{slot:?} is not in the index");
            gap = self.after(gap);
        }
        self.len -= 1;
        let mut at = self.after(gap);
        while self.cells[at] != EMPTY {
            let cell = self.cells[at];
            let mask = self.cells.len() - 1;
            let from_home = at.wrapping_sub(self.home(hash_of(cell))) & mask;
            let from_gap = at.wrapping_sub(gap) & mask;
            if from_home >= from_gap {
                self.cells[gap] = cell;
                gap = at;
            }
            at = self.after(at);
        }
        self.cells[gap] = EMPTY;
    }

    #[inline]
    fn put(&mut self, cell: u64) {
        let mut at = self.home(hash_of(cell));
        while self.cells[at] != EMPTY {
            at = self.after(at);
        }
        self.cells[at] = cell;
    }

    #[cold]
    fn grow(&mut self) {
        let count = CELLS_MIN.max(self.cells.len() * 2);
        let before = core::mem::replace(&mut self.cells, vec![EMPTY; count]);
        for cell in before {
            if cell != EMPTY {
                self.put(cell);
            }
        }
    }

    #[inline]
    fn home(&self, hash: u32) -> usize {
        hash as usize & (self.cells.len() - 1)
    }

    #[inline]
    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.cells.len() - 1)
    }
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}

#[inline]
fn hash_of(cell: u64) -> u32 {
    (cell >> 32) as u32
}

#[inline]
fn slot_of(cell: u64) -> Slot {
    Slot(cell as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{NodeId, Uid};

    #[test]
    fn finds_what_is_in_it_however_hashes_collide() {
        let mut index = Index::seeded(0);
        let mut present = vec![false; 300];
        let mut random = 1_u64;
        for _ in 0..20_000 {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            let chosen = (random >> 33) as usize % present.len();
            // 40 hashes for 300 slots, all in a short stretch that runs over the table's end.
            let hash = (chosen as u32 % 40).wrapping_sub(20);
            let slot = Slot(chosen as u32);
            if present[chosen] {
                index.remove(hash, slot);
            } else {
                index.insert(hash, slot);
            }
            present[chosen] = !present[chosen];
            assert_eq!(index.len(), present.iter().filter(|p| **p).count());
            for probe in [chosen, (chosen + 40) % 300, (chosen + 1) % 300] {
                let hash = (probe as u32 % 40).wrapping_sub(20);
                let found = index.find(hash, |slot| slot.0 as usize == probe);
                assert_eq!(found.is_some(), present[probe], "{probe}");
            }
        }
    }

    #[test]
    fn hashes_of_neighbouring_keys_spread() {
        let index = Index::seeded(7);
        let mut used = vec![0_u32; 1 << 16];
        for counter in 0..1 << 15 {
            let local = 1 << 40 | counter;
            let uid = Uid {
                node: NodeId(99),
                local,
            };
            let rows = LockKey {
                row: counter,
                ..LockKey::object(Uid::NIL)
            };
            for key in [LockKey::object(uid), rows] {
                used[index.hash(key) as usize & 0xffff] += 1;
            }
        }
        let most = used.iter().max().expect("there are some");
        assert!(
            *most < 12,
            "{most} of 65,536 keys share one of as many cells"
        );
    }
}
