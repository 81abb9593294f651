//! A queue through the entries of a slab: append, take out anywhere, look at the first, all in
//! constant time and without an allocation. An entry is in one such list at most. Its neighbours
//! are named in the entry itself, or beside the slab where lists are long.
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
    fn link_mut(&mut self) -> &mut Link;
    fn link(&self) -> Link;
}

/// Where the neighbours of entries are kept.
pub(crate) trait Links {
    fn link_mut(&mut self, slot: Slot) -> &mut Link;
    fn link(&self, slot: Slot) -> Link;
}

impl<T: Linked> Links for Slab<T> {
    #[inline]
    fn link_mut(&mut self, slot: Slot) -> &mut Link {
        self[slot].link_mut()
    }

    #[inline]
    fn link(&self, slot: Slot) -> Link {
        self[slot].link()
    }
}

/// Neighbours beside the slab: eight of them share a cache line, so that taking one entry out of
/// a long list does not bring its neighbours' entries into the cache.
#[derive(Debug, Default)]
pub(crate) struct Beside(Vec<Link>);

impl Beside {
    /// Makes room for an entry of the slab.
    #[inline]
    pub(crate) fn cover(&mut self, slot: Slot) {
        let needed = slot.0 as usize + 1;
        if self.0.len() < needed {
            self.0.resize(needed, Link::LOOSE);
        }
    }
}

impl Links for Beside {
    #[inline]
    fn link_mut(&mut self, slot: Slot) -> &mut Link {
        &mut self.0[slot.0 as usize]
    }

    #[inline]
    fn link(&self, slot: Slot) -> Link {
        self.0[slot.0 as usize]
    }
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
    pub(crate) fn push_last(&mut self, links: &mut impl Links, slot: Slot) {
        *links.link_mut(slot) = Link {
            prev: self.last,
            next: Slot::NONE,
        };
        if self.last == Slot::NONE {
            assert!(self.len == 0, "a list without a last entry is empty");
            self.first = slot;
        } else {
            links.link_mut(self.last).next = slot;
        }
        self.last = slot;
        self.len += 1;
    }

    #[inline]
    pub(crate) fn take_out(&mut self, links: &mut impl Links, slot: Slot) {
        let own = links.link_mut(slot);
        let Link { prev, next } = core::mem::replace(own, Link::LOOSE);
        assert!(self.len > 0, "{slot:?} is taken out of an empty list");
        if prev == Slot::NONE {
            assert!(self.first == slot, "{slot:?} is not in this list");
            self.first = next;
        } else {
            links.link_mut(prev).next = next;
        }
        if next == Slot::NONE {
            assert!(self.last == slot, "{slot:?} is not in this list");
            self.last = prev;
        } else {
            links.link_mut(next).prev = prev;
        }
        self.len -= 1;
    }

    pub(crate) fn iter<'s>(&self, links: &'s impl Links) -> impl Iterator<Item = Slot> + 's {
        let mut at = self.first;
        core::iter::from_fn(move || {
            let slot = (at != Slot::NONE).then_some(at)?;
            at = links.link(slot).next;
            Some(slot)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Entry(Link);

    impl Linked for Entry {
        fn link_mut(&mut self) -> &mut Link {
            &mut self.0
        }
        fn link(&self) -> Link {
            self.0
        }
    }

    fn check(links: &mut impl Links, slots: &[Slot], without: usize) {
        let mut list = List::EMPTY;
        slots.iter().for_each(|slot| list.push_last(links, *slot));
        list.take_out(links, slots[without]);
        let mut expected = slots.to_vec();
        expected.remove(without);
        assert_eq!(list.iter(links).collect::<Vec<_>>(), expected);
        assert_eq!(list.first(), Some(expected[0]));
        list.push_last(links, slots[without]);
        expected.push(slots[without]);
        assert_eq!(list.iter(links).collect::<Vec<_>>(), expected);
        assert_eq!(list.len(), 4);
    }

    #[test]
    fn keeps_order_whatever_is_taken_out() {
        for without in 0..4_usize {
            let (mut slab, mut beside) = (Slab::new(), Beside::default());
            let slots: Vec<Slot> = (0..4).map(|_| slab.insert(Entry(Link::LOOSE))).collect();
            // Any of them may be covered first.
            slots.iter().rev().for_each(|slot| beside.cover(*slot));
            check(&mut slab, &slots, without);
            check(&mut beside, &slots, without);
        }
    }
}
