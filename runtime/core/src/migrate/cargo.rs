//! What running actions have of an object that moves.
//!
//! It comes over the wire, so whoever takes it in checks it first.

use crate::action::path::Path;
use crate::id::{CallId, NodeId, Peer, Uid};
use crate::lock::mode::Mode;
use crate::time::Time;

/// What running actions have of an object; nothing, if none has a lock of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cargo {
    /// Size of the object's present state in bytes; only looked at if there is an image.
    pub size_bytes: u64,
    /// The actions, each once.
    pub actions: Vec<CargoAction>,
}

impl Cargo {
    /// Whether an action has, or may have, changed the object: then its present state is not the
    /// committed one, and goes with the cargo, as does a before-image for each level with an
    /// [`CargoLevel::image`].
    #[must_use]
    pub fn has_images(&self) -> bool {
        self.levels().any(|level| level.image.is_some())
    }

    /// All levels of all actions.
    pub fn levels(&self) -> impl Iterator<Item = &CargoLevel> {
        self.actions.iter().flat_map(|action| &action.levels)
    }
}

/// A top-level action that has a lock of the object, by itself or by one nested in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CargoAction {
    /// The name of the root, with what encloses it.
    pub path: Path,
    /// See [`crate::action::path::Membership::home`].
    pub home: NodeId,
    /// See [`crate::action::path::Membership::born_ms`].
    pub born_ms: u64,
    /// When it is given up, on the clock of whoever has the cargo: over the wire the time left.
    pub until: Time,
    /// The processes that called in it.
    pub callers: Vec<Peer>,
    /// Its writes at the source that were begun: none is executed again at the target.
    pub executed: Vec<CallId>,
    /// The root, then those nested in it that have a lock of the object, and those between:
    /// parents before their children.
    pub levels: Vec<CargoLevel>,
}

/// A level of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CargoLevel {
    /// The action, root or nested.
    pub uid: Uid,
    /// Its parent's place in [`CargoAction::levels`]; none for the root.
    pub parent: Option<u32>,
    /// It has committed into its parent, which gets what it has once nothing below it is left.
    pub merging: bool,
    /// What it has of the object's lock.
    pub lock: Option<CargoLock>,
    /// What is kept of the object as it was before the level first wrote it. Its bytes, and
    /// those of the rows that the level has changed, go beside the cargo.
    pub image: Option<CargoImage>,
}

/// What a level has of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CargoLock {
    /// How.
    pub mode: Mode,
    /// It has it from nested actions alone.
    pub retained: bool,
}

/// A before-image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CargoImage {
    /// A write has ended well since.
    pub changed: bool,
    /// Size of the before-image in bytes.
    pub size_bytes: u64,
}
