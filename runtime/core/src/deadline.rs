//! The deadlines of all calls, next one first.
//!
//! Nearly every call ends long before its deadline, so an ended call's entry is not searched
//! for: it stays until it comes to the top, or until most entries are such leftovers, when all
//! of them are swept out at once. Adding is then constant on average, since deadlines mostly
//! come in order, and so is ending; the heap is never larger than twice the live calls and a
//! little.

use core::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::input::Ticket;
use crate::slab::Slot;
use crate::time::Time;

/// Fewer leftovers than this are not worth a sweep.
const LEFTOVERS_MIN: usize = 64;

/// When to look at which call.
pub(crate) type Entry = (Time, Ticket, Slot);

/// A heap of deadlines with leftovers.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    heap: BinaryHeap<Reverse<Entry>>,
}

impl Deadlines {
    /// Notes a deadline; `Time::NEVER` needs no note.
    #[inline]
    pub(crate) fn add(&mut self, entry: Entry) {
        if entry.0 != Time::NEVER {
            self.heap.push(Reverse(entry));
        }
    }

    /// The earliest entry, which may be a leftover.
    #[inline]
    pub(crate) fn first(&self) -> Option<Entry> {
        self.heap.peek().map(|Reverse(entry)| *entry)
    }

    /// Takes the earliest entry out if it is due.
    pub(crate) fn pop_due(&mut self, now: Time) -> Option<Entry> {
        if self.first()?.0 > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }

    /// Removes leftovers where that is cheap; `is_live` tells them from entries of `live` calls.
    #[inline]
    pub(crate) fn tidy(&mut self, live: usize, is_live: impl Fn(Ticket, Slot) -> bool) {
        while let Some((_, ticket, slot)) = self.first() {
            if is_live(ticket, slot) {
                break;
            }
            self.heap.pop();
        }
        if self.heap.len() > 2 * live + LEFTOVERS_MIN {
            self.heap
                .retain(|Reverse((_, ticket, slot))| is_live(*ticket, *slot));
            assert!(self.heap.len() <= live, "more deadlines than calls");
        }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    /// The most entries that [`Deadlines::tidy`] leaves.
    pub(crate) fn len_max(live: usize) -> usize {
        2 * live + LEFTOVERS_MIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_do_not_pile_up_and_order_is_kept() {
        let mut deadlines = Deadlines::default();
        deadlines.add((Time(5), Ticket(0), Slot(0)));
        deadlines.add((Time::NEVER, Ticket(1), Slot(1)));
        for n in 1..10_000 {
            deadlines.add((Time(10 + n), Ticket(n), Slot(1)));
            deadlines.tidy(1, |ticket, _| ticket == Ticket(0));
            assert!(deadlines.len() <= Deadlines::len_max(1));
        }
        assert_eq!(deadlines.pop_due(Time(4)), None);
        assert_eq!(
            deadlines.pop_due(Time(5)),
            Some((Time(5), Ticket(0), Slot(0)))
        );
        deadlines.tidy(0, |_, _| false);
        assert_eq!(deadlines.len(), 0);
    }
}
