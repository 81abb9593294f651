//! What the shell keeps of the calls under way, by ticket.
//!
//! A call that waits for nothing is begun, executed, answered and forgotten in one go, so the
//! place of the latest one is remembered and found without a search.

use std::cell::Cell;

use partha_core::Ticket;

use super::arrive::Entry;
use crate::hash::IdMap;

/// No place.
const NONE: u32 = u32::MAX;
/// Places kept while there are no calls.
const KEPT: usize = 1024;

/// The calls under way.
pub(super) struct Entries {
    places: IdMap<Ticket, u32>,
    cells: Vec<Option<Entry>>,
    free: Vec<u32>,
    latest: Cell<(Ticket, u32)>,
}

impl Default for Entries {
    fn default() -> Self {
        Self {
            places: IdMap::default(),
            cells: Vec::new(),
            free: Vec::new(),
            latest: Cell::new((Ticket(0), NONE)),
        }
    }
}

impl Entries {
    /// Keeps a call under a ticket that is not in use.
    pub(super) fn insert(&mut self, ticket: Ticket, entry: Entry) {
        let place = match self.free.pop() {
            Some(place) => {
                self.cells[place as usize] = Some(entry);
                place
            }
            None => {
                self.cells.push(Some(entry));
                // The engine bounds calls far below.
                self.cells.len() as u32 - 1
            }
        };
        let before = self.places.insert(ticket, place);
        debug_assert!(before.is_none(), "{ticket:?} is used for two calls");
        self.latest.set((ticket, place));
    }

    fn place(&self, ticket: Ticket) -> Option<usize> {
        let (latest, place) = self.latest.get();
        if latest == ticket && place != NONE {
            return Some(place as usize);
        }
        let place = *self.places.get(&ticket)?;
        self.latest.set((ticket, place));
        Some(place as usize)
    }

    pub(super) fn find(&self, ticket: Ticket) -> Option<&Entry> {
        self.cells[self.place(ticket)?].as_ref()
    }

    pub(super) fn find_mut(&mut self, ticket: Ticket) -> Option<&mut Entry> {
        let place = self.place(ticket)?;
        self.cells[place].as_mut()
    }

    /// All calls, in no special order.
    pub(super) fn values(&self) -> impl Iterator<Item = &Entry> {
        self.cells.iter().flatten()
    }

    /// Takes a call out that has no servant any more. The memory of many is given back when the
    /// last one goes.
    pub(super) fn remove(&mut self, ticket: Ticket) {
        let Some(place) = self.places.remove(&ticket) else {
            return;
        };
        self.latest.set((ticket, NONE));
        self.cells[place as usize] = None;
        self.free.push(place);
        if self.places.is_empty() && self.cells.len() > KEPT {
            *self = Self::default();
        }
    }
}
