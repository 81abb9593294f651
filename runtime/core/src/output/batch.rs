//! What the store is asked to write about actions.

use crate::action::path::{Coordinator, Site};
use crate::id::Uid;

/// A batch about an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActionBatch {
    /// The participant's part of phase 1: a shadow of each object with its changed rows, and
    /// who decides. Of a replicated object it is a part in its log.
    Prepare {
        /// The root action.
        action: Uid,
        /// Who decides.
        coordinator: Coordinator,
        /// What the action changed here.
        objects: Vec<Written>,
    },
    /// The commit point: the coordinator's own objects as they are now, with their changed
    /// rows, and the decision, which names who is still to be told.
    ///
    /// With replicated objects there are several steps: a part in the log of each, but for the
    /// decider's; the decision, in one batch with the decider's state, or with those of the
    /// objects that are not replicated; the ends of the parts. It is stored when all is there.
    Decide {
        /// The root action.
        action: Uid,
        /// The replicated object whose log is to have the decision; none: the store itself.
        decider: Option<Uid>,
        /// What the action changed here.
        objects: Vec<Written>,
        /// Those that have prepared.
        participants: Vec<Site>,
        /// All replicated objects with a part, here and there.
        groups: Vec<Uid>,
    },
    /// The participant's part of phase 2: all shadows of the action become states, and so do its
    /// parts of the replicated objects named.
    Install {
        /// The root action.
        action: Uid,
        /// Replicated objects.
        groups: Vec<Uid>,
    },
    /// All shadows of the action go, and its parts of the replicated objects named: of those that
    /// are not led here whoever leads them takes care.
    Undo {
        /// The root action.
        action: Uid,
        /// Replicated objects.
        groups: Vec<Uid>,
    },
    /// Nobody is to be told of the decision any more; it stays for those who ask, for a time.
    Settle {
        /// The root action.
        action: Uid,
        /// The replicated object whose log has it; none: the store itself.
        decider: Option<Uid>,
    },
    /// The commit point of a move: the decision, which names the target as the one to be told;
    /// the object's state and rows go, and a forward to the target takes their place.
    Depart {
        /// The move.
        action: Uid,
        /// The object.
        uid: Uid,
        /// The target.
        to: Site,
    },
}

/// An object that an action has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The object.
    pub uid: Uid,
    /// It was made in the action.
    pub create: bool,
    /// It is replicated: what becomes of it is in its log.
    pub replicated: bool,
}
