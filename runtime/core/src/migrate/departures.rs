//! The objects that are to leave a shard.
//!
//! | state | still | shipped | not shipped | stored | not stored | give way |
//! |---|---|---|---|---|---|---|
//! | Waiting | Shipping; ship it | – | – | – | – | stays |
//! | Shipping | – | Deciding; write it | stays; the target is told | – | – | stays; the target is told |
//! | Deciding | – | – | – | gone; the target is told | stays; the target is told | nothing |
//!
//! `–` does not happen: the engine looks whether an object is still only while it waits, and an
//! answer that comes after the end of a move is not looked up.
//!
//! An object is *still* if no method of it runs, and each action that has a lock of it could go
//! on elsewhere: its part here is active, nothing of it is being aborted, and it has not made the
//! object. From the beginning on calls of it are held back where they would start, but for those
//! that a running method of it waits for. From *Shipping* on nothing of it changes at all: the
//! levels of the cargo are *pinned*, so that what would end them waits for the end of the move.
//! *Give way*: time is up, the node drains, or the commit of an action has waited long enough.

use std::collections::BTreeMap;

use crate::action::path::{Joined, Site};
use crate::id::{Incarnation, Uid};
use crate::input::Job;
use crate::slab::Slot;
use crate::time::Time;

/// How far a move is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Waiting,
    Shipping,
    Deciding { job: Job },
}

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cue {
    Still,
    Shipped(bool),
    Stored(bool),
    GiveWay,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Nothing,
    /// Freeze it and ship it; Shipping.
    Ship,
    /// Write the decision; Deciding.
    Decide,
    /// It is the target's.
    Departed,
    /// It serves on. `tell`: the target may have something of it.
    Stays {
        tell: bool,
    },
    /// Somebody broke the rules.
    Mistake,
}

/// The machine: the table of the module doc.
pub(crate) fn next(state: State, cue: Cue) -> Next {
    match (state, cue) {
        (State::Waiting, Cue::Still) => Next::Ship,
        (State::Waiting, Cue::GiveWay) => Next::Stays { tell: false },
        (State::Shipping, Cue::Shipped(true)) => Next::Decide,
        (State::Shipping, Cue::Shipped(false) | Cue::GiveWay)
        | (State::Deciding { .. }, Cue::Stored(false)) => Next::Stays { tell: true },
        (State::Deciding { .. }, Cue::Stored(true)) => Next::Departed,
        // An answer that the shell gives once more, or too late, is about nothing.
        (State::Deciding { .. }, Cue::GiveWay | Cue::Shipped(_)) => Next::Nothing,
        (State::Waiting, Cue::Shipped(_) | Cue::Stored(_))
        | (State::Shipping, Cue::Still | Cue::Stored(_))
        | (State::Deciding { .. }, Cue::Still) => Next::Mistake,
    }
}

/// One object that is to leave.
#[derive(Debug)]
pub(crate) struct Departure {
    pub(crate) uid: Uid,
    pub(crate) object: Slot,
    pub(crate) to: Site,
    pub(crate) to_incarnation: Incarnation,
    pub(crate) state: State,
    /// When it gives way.
    pub(crate) due: Time,
    /// Levels of the cargo, and whether they were merging when it was shipped.
    pub(crate) levels: Vec<(Uid, bool)>,
    /// Those of them that are pinned: they have a lock of the object.
    pub(crate) pinned: Vec<Uid>,
    /// Actions of the cargo; from `Deciding` on with the numbers of their mirrors there.
    pub(crate) roots: Vec<Uid>,
    pub(crate) joined: Vec<(Uid, Joined)>,
}

/// All objects that are to leave.
#[derive(Debug, Default)]
pub(crate) struct Departures {
    /// By the name of the move.
    rows: BTreeMap<Uid, Departure>,
    /// Something happened to one of the objects: it may be still now.
    pub(crate) look: bool,
}

impl Departures {
    pub(crate) fn insert(&mut self, action: Uid, departure: Departure) {
        let before = self.rows.insert(action, departure);
        assert!(before.is_none(), "{action} moves two objects");
        self.look = true;
    }

    pub(crate) fn remove(&mut self, action: Uid) -> Departure {
        let departure = self.rows.remove(&action);
        departure.unwrap_or_else(|| panic!("{action} is no move"))
    }

    pub(crate) fn row(&self, action: Uid) -> Option<&Departure> {
        self.rows.get(&action)
    }

    pub(crate) fn row_mut(&mut self, action: Uid) -> Option<&mut Departure> {
        self.rows.get_mut(&action)
    }

    pub(crate) fn contains(&self, action: Uid) -> bool {
        self.rows.contains_key(&action)
    }

    /// The move of an object.
    pub(crate) fn of(&self, uid: Uid) -> Option<(Uid, &Departure)> {
        let mut rows = self.rows.iter();
        let found = rows.find(|(_, departure)| departure.uid == uid);
        found.map(|(action, departure)| (*action, departure))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Uid, &Departure)> {
        self.rows.iter().map(|(action, row)| (*action, row))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Departure> {
        self.rows.values_mut()
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn next_due(&self) -> Option<Time> {
        let dues = self.rows.values().map(|row| row.due);
        dues.min().filter(|due| *due != Time::NEVER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table() {
        use Next::{Decide, Departed, Mistake, Nothing, Ship};
        const STAYS: Next = Next::Stays { tell: false };
        const TELL: Next = Next::Stays { tell: true };
        let cues = [
            Cue::Still,
            Cue::Shipped(true),
            Cue::Shipped(false),
            Cue::Stored(true),
            Cue::Stored(false),
            Cue::GiveWay,
        ];
        #[rustfmt::skip]
        let rows = [
            (State::Waiting, [Ship, Mistake, Mistake, Mistake, Mistake, STAYS]),
            (State::Shipping, [Mistake, Decide, TELL, Mistake, Mistake, TELL]),
            (State::Deciding { job: Job(1) }, [Mistake, Nothing, Nothing, Departed, TELL, Nothing]),
        ];
        for (state, expected) in rows {
            assert_eq!(cues.map(|cue| next(state, cue)), expected, "{state:?}");
        }
    }
}
