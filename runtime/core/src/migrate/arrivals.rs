//! The objects that are to come to a shard.
//!
//! | state | its entry here goes | unload, fits | unload, else | installed | aborted |
//! |---|---|---|---|---|---|
//! | Waiting | Expected, or refused | refused | refused | – | refused |
//! | Expected | – | Unloaded | refused; Expected | gone | gone |
//! | Unloaded | – | refused | refused | gone; the cargo is taken over | gone; the cargo is dropped |
//!
//! *Waiting*: calls of the object are here that came before it, and wait for the store to say
//! that it is elsewhere; they are refused, and it can come. From *Expected* on the move is an
//! action that is prepared here, and has the object's lock: whoever calls waits. What ends it is
//! the business of two-phase commit, as with any action that is prepared.
//!
//! *Unloaded*: the actions of the cargo have their mirrors and levels here, pinned, so that what
//! would end them waits until it is known whether the object comes. What they have of the object
//! they get when it has come.
//!
//! After a restart a move that was prepared is an action like any other: the cargo is lost, and
//! so are the mirrors that it had made, so the actions that it was of abort.

use std::collections::BTreeMap;

use super::Cargo;
use crate::action::path::Site;
use crate::id::Uid;

/// One object that is to come.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) uid: Uid,
    pub(crate) coordinator: Site,
    pub(crate) state: State,
}

/// How far it is.
#[derive(Debug)]
pub(crate) enum State {
    Waiting,
    Expected,
    Unloaded {
        cargo: Box<Cargo>,
        /// The levels that are to get a lock.
        pinned: Vec<Uid>,
    },
}

/// All objects that are to come, by the name of the move.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    pub(crate) rows: BTreeMap<Uid, Arrival>,
    /// Those that wait.
    pub(crate) waiting: u32,
}

impl Arrivals {
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether one brings this object.
    pub(crate) fn brings(&self, uid: Uid) -> bool {
        self.rows.values().any(|row| row.uid == uid)
    }

    /// Takes one out.
    pub(crate) fn remove(&mut self, action: Uid) -> Option<Arrival> {
        let arrival = self.rows.remove(&action)?;
        self.waiting -= u32::from(matches!(arrival.state, State::Waiting));
        Some(arrival)
    }
}
