//! A queue through the entries of a slab: append, take out anywhere, look at the first, all in
//! constant time and without an allocation. An entry is in one such list at most.
//!
//! Used for the idle objects, longest unused first, and for the calls of one caller.

use crate::slab::{Slab, Slot};

/// An entry's neighbours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    prev: Slot,
    next: Slot,
}

impl Link {
    pub(crate) const LOOSE: Self = Self {
        prev: Slot::NONE,
        next: Slot::NONE,
    };
}

/// An entry that can be in a list.
pub(crate) trait Linked {
    fn link(&mut self) -> &mut Link;
    fn peek(&self) -> Link;
}

/// The two ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct List {
    first: Slot,
    last: Slot,
    len: u32,
}

impl List {
    pub(crate) const EMPTY: Self = Self {
        first: Slot::NONE,
        last: Slot::NONE,
        len: 0,
    };

    #[inline]
    pub(crate) fn first(&self) -> Option<Slot> {
        (self.first != Slot::NONE).then_some(self.first)
    }

    #[inline]
    pub(crate) fn last(&self) -> Option<Slot> {
        (self.last != Slot::NONE).then_some(self.last)
    }

    #[inline]
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    #[inline]
    pub(crate) fn push_last<T: Linked>(&mut self, slab: &mut Slab<T>, slot: Slot) {
        *slab[slot].link() = Link {
            prev: self.last,
            next: Slot::NONE,
        };
        if self.last == Slot::NONE {
            assert!(self.len == 0, "a list without a last entry is empty");
            self.first = slot;
        } else {
            slab[self.last].link().next = slot;
        }
        self.last = slot;
        self.len += 1;
    }

    #[inline]
    pub(crate) fn take_out<T: Linked>(&mut self, slab: &mut Slab<T>, slot: Slot) {
        let Link { prev, next } = slab[slot].peek();
        *slab[slot].link() = Link::LOOSE;
        assert!(self.len > 0, "{slot:?} is taken out of an empty list");
        if prev == Slot::NONE {
            assert!(self.first == slot, "{slot:?} is not in this list");
            self.first = next;
        } else {
            slab[prev].link().next = next;
        }
        if next == Slot::NONE {
            assert!(self.last == slot, "{slot:?} is not in this list");
            self.last = prev;
        } else {
            slab[next].link().prev = prev;
        }
        self.len -= 1;
    }

    pub(crate) fn iter<'s, T: Linked>(&self, slab: &'s Slab<T>) -> impl Iterator<Item = Slot> + 's {
        let mut at = self.first;
        core::iter::from_fn(move || {
            let slot = (at != Slot::NONE).then_some(at)?;
            at = slab[slot].peek().next;
            Some(slot)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Entry(Link);

    impl Linked for Entry {
        fn link(&mut self) -> &mut Link {
            &mut self.0
        }
        fn peek(&self) -> Link {
            self.0
        }
    }

    #[test]
    fn keeps_order_whatever_is_taken_out() {
        for without in 0..4_usize {
            let mut slab = Slab::new();
            let mut list = List::EMPTY;
            let slots: Vec<Slot> = (0..4).map(|_| slab.insert(Entry(Link::LOOSE))).collect();
            slots
                .iter()
                .for_each(|slot| list.push_last(&mut slab, *slot));
            list.take_out(&mut slab, slots[without]);
            let mut expected = slots.clone();
            expected.remove(without);
            assert_eq!(list.iter(&slab).collect::<Vec<_>>(), expected);
            assert_eq!(list.first(), Some(expected[0]));
            list.push_last(&mut slab, slots[without]);
            expected.push(slots[without]);
            assert_eq!(list.iter(&slab).collect::<Vec<_>>(), expected);
            assert_eq!(list.len(), 4);
        }
    }
}
