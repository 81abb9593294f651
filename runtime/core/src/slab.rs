//! Entries by small number: the place of a call or an object while it exists.
//!
//! A slot is used again after its entry is removed, so whoever keeps one longer must be able to
//! tell (a deadline compares the ticket). Looking up by slot costs one index, which is why calls
//! and objects name each other this way rather than by ticket and uid.

/// The place of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot(pub(crate) u32);

impl Slot {
    /// The smallest one.
    pub(crate) const FIRST: Self = Self(0);
    /// No place.
    pub(crate) const NONE: Self = Self(u32::MAX);
}

#[derive(Debug)]
enum Cell<T> {
    Used(T),
    Free { next: Slot },
}

/// A growing set of entries whose places are used again.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    cells: Vec<Cell<T>>,
    free: Slot,
    len: usize,
}

impl<T> Slab<T> {
    /// What an entry takes.
    #[cfg(test)]
    pub(crate) const CELL_BYTES: usize = size_of::<Cell<T>>();

    pub(crate) fn new() -> Self {
        Self {
            cells: Vec::new(),
            free: Slot::NONE,
            len: 0,
        }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn insert(&mut self, entry: T) -> Slot {
        self.len += 1;
        if self.free == Slot::NONE {
            let index = u32::try_from(self.cells.len()).expect("tables are bounded below 2^32");
            assert!(Slot(index) != Slot::NONE, "slab is full");
            self.cells.push(Cell::Used(entry));
            return Slot(index);
        }
        let slot = self.free;
        match core::mem::replace(&mut self.cells[slot.0 as usize], Cell::Used(entry)) {
            Cell::Free { next } => self.free = next,
            Cell::Used(_) => unreachable!("a used cell is in the free list"),
        }
        slot
    }

    #[inline]
    pub(crate) fn remove(&mut self, slot: Slot) -> T {
        let cell = &mut self.cells[slot.0 as usize];
        match core::mem::replace(cell, Cell::Free { next: self.free }) {
            Cell::Used(entry) => {
                self.free = slot;
                self.len -= 1;
                entry
            }
            Cell::Free { .. } => panic!("{slot:?} is removed twice"),
        }
    }

    #[inline]
    pub(crate) fn find(&self, slot: Slot) -> Option<&T> {
        match self.cells.get(slot.0 as usize)? {
            Cell::Used(entry) => Some(entry),
            Cell::Free { .. } => None,
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Slot, &T)> {
        self.cells
            .iter()
            .zip(0..)
            .filter_map(|(cell, index)| match cell {
                Cell::Used(entry) => Some((Slot(index), entry)),
                Cell::Free { .. } => None,
            })
    }
}

impl<T> core::ops::Index<Slot> for Slab<T> {
    type Output = T;

    #[inline]
    fn index(&self, slot: Slot) -> &T {
        match &self.cells[slot.0 as usize] {
            Cell::Used(entry) => entry,
            Cell::Free { .. } => panic!("{slot:?} is free"),
        }
    }
}

impl<T> core::ops::IndexMut<Slot> for Slab<T> {
    #[inline]
    fn index_mut(&mut self, slot: Slot) -> &mut T {
        match &mut self.cells[slot.0 as usize] {
            Cell::Used(entry) => entry,
            Cell::Free { .. } => panic!("{slot:?} is free"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_used_again_and_entries_stay() {
        let mut slab = Slab::new();
        let a = slab.insert('a');
        let b = slab.insert('b');
        assert_eq!(slab.remove(a), 'a');
        assert!(slab.find(a).is_none());
        let c = slab.insert('c');
        assert_eq!(c, a);
        assert_eq!((slab[b], slab[c], slab.len()), ('b', 'c', 2));
        assert_eq!(slab.iter().map(|(_, e)| *e).collect::<String>(), "cb");
        assert!(slab.find(Slot::NONE).is_none());
    }
}
