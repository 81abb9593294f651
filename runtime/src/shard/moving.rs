//! Objects that move to another node or come from one: this shard's part.
//!
//! What is to be done when, the engine says; here it is carried out. At the *source*
//! ([`depart`]) an object that the engine has frozen is read and sent to the target in pages. At
//! the *target* ([`arrive`]) the pages are written in order, and what running actions have of the
//! object is kept in memory until the engine says that it has come. [`cargo`] translates between
//! the engine's terms and those of the wire, [`reasons`] says why something does not move, [`room`]
//! how much is kept.

mod arrive;
pub(super) mod cargo;
mod depart;
mod reasons;
mod room;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use partha_core::action::path::Site;
use partha_core::id::{ClassId, NodeId, Uid};
use partha_core::migrate::Cooldown;
use partha_core::{Input, Output};
use partha_store::{Item, Place};

use super::Shard;
use super::action_store::Work;
use crate::config::OUTCOME_RETENTION;
use crate::error::{ErrorKind, SystemError};
use crate::moved::Moved;

pub(crate) use self::depart::{Journey, empty_page, reply};
pub(crate) use self::reasons::{NotMoved, Refused};
pub(crate) use self::room::Room;

/// What moves at a shard.
#[derive(Default)]
pub(super) struct Moves {
    departures: BTreeMap<Uid, depart::Departure>,
    arrivals: BTreeMap<Uid, arrive::Arriving>,
    /// Objects that were on their way here when the node was started: by which action, and their
    /// classes.
    recovered: BTreeMap<Uid, (Uid, ClassId)>,
    /// What has come just now.
    cooldown: Cooldown,
}

impl Moves {
    /// What has come is to stay for so long.
    pub(super) fn new(stay: Duration) -> Self {
        Self {
            cooldown: Cooldown::new(stay),
            ..Self::default()
        }
    }
}

impl Shard {
    /// Does what the engine says about moves.
    pub(super) fn moving(self: &Rc<Self>, output: Output) {
        match output {
            Output::Ship { uid, action, cargo } => self.ship(uid, action, *cargo),
            Output::Stays { uid, action, why } => self.stays(uid, action, why),
            Output::Departed { uid, action } => self.departed(uid, action),
            Output::Arriving {
                uid,
                action,
                result,
            } => self.arriving(uid, action, result),
            Output::Unloaded {
                uid,
                action,
                result,
            } => self.unloaded(uid, action, result),
            Output::Arrived { uid, action, slot } => self.arrived(uid, action, slot),
            Output::NotArrived { uid, action } => self.not_arrived(uid, action),
            other => tracing::error!(?other, "that is not about moves"),
        }
    }

    /// An object has come, or its copy here has come to lead: it stays for a moment.
    pub(super) fn note_come(&self, object: Uid) {
        let now = self.time_of(Instant::now());
        self.moves.borrow_mut().cooldown.came(now, object);
    }

    /// How long an object is still to stay before it moves on.
    pub(crate) fn stays_for(&self, object: Uid) -> Duration {
        let now = self.time_of(Instant::now());
        self.moves.borrow().cooldown.left(now, object)
    }

    /// The commit point of a move.
    pub(super) fn items_to_depart(
        &self,
        action: Uid,
        uid: Uid,
        to: Site,
    ) -> Result<(Work, Vec<Item>), SystemError> {
        let moves = self.moves.borrow();
        let departure = moves.departures.get(&uid);
        let departure = departure.filter(|departure| departure.is(action));
        let unknown = || {
            let detail = format!("{uid} is to leave for {to:?} by {action}, which is not known");
            SystemError::new(ErrorKind::Internal, detail)
        };
        let moves = departure.ok_or_else(unknown)?.moves();
        let keep_ms = OUTCOME_RETENTION.as_millis() as u64;
        let batch = partha_store::moving::departure(action, uid, to, moves, keep_ms);
        Ok((Work::Decide(action, vec![uid]), batch.items))
    }

    /// Where an object is that has left this node.
    pub(super) fn forward(&self, object: Uid) -> Result<Option<Moved>, SystemError> {
        let Some(store) = &self.registry.store else {
            return Ok(None);
        };
        let place = store.read_place(object).map_err(|error| {
            let detail = format!("where {object} is: {error}");
            SystemError::new(ErrorKind::Store, detail)
        })?;
        Ok(match place {
            Some(Place::Gone { to, moves }) => Some(Moved {
                node: to,
                addresses: self.client.locator().addresses(to),
                moves,
            }),
            Some(Place::Here { .. }) | None => None,
        })
    }

    /// The class of an object that is on its way here, so that it can be bound already: its
    /// calls wait.
    pub(super) fn class_coming(&self, object: Uid) -> Option<ClassId> {
        let moves = self.moves.borrow();
        if let Some(arriving) = moves.arrivals.get(&object) {
            return Some(arriving.class());
        }
        let (action, class) = *moves.recovered.get(&object)?;
        drop(moves);
        let store = self.registry.store.as_ref()?;
        match store.read_shadow(action, object) {
            Ok(Some(_)) => Some(class),
            Ok(None) | Err(_) => {
                self.moves.borrow_mut().recovered.remove(&object);
                None
            }
        }
    }

    /// Notes what an earlier life of the node had let in and does not know the end of.
    pub(super) fn note_recovered(&self, input: &Input) {
        let (
            Input::RecoverPrepared {
                action, objects, ..
            },
            Some(store),
        ) = (input, &self.registry.store)
        else {
            return;
        };
        for uid in objects {
            if let Ok(Some(record)) = store.read_shadow(*action, *uid)
                && matches!(store.read_state(*uid), Ok(None))
            {
                let mut moves = self.moves.borrow_mut();
                moves.recovered.insert(*uid, (*action, record.class));
            }
        }
    }

    /// How often an object has moved, and where it came from.
    pub(crate) fn came_from(&self, object: Uid) -> (u64, NodeId) {
        let store = self.registry.store.as_ref();
        match store.map(|store| store.read_place(object)) {
            Some(Ok(Some(Place::Here { moves, from, .. }))) => (moves, from),
            _ => (0, NodeId(0)),
        }
    }
}
