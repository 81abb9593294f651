//! What running actions have of a replicated object whose next leader is to take it over.
//!
//! It is a [`Cargo`] in the object's log: the latest replaces those before it.

use std::collections::BTreeSet;

use super::Cargo;
use crate::action::path::Address;
use crate::id::{CallId, Uid};

/// Who was told at most that an action has ended, of one object: the oldest are forgotten.
pub const ENDED_MAX: usize = 64;

/// What running actions have of a replicated object. Its present state goes beside it, and a
/// before-image for each level with one, as with a [`Cargo`]; both as if the writes that run had
/// not begun.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// As if it moved. An action may be among them without a lock: it is known to have been here.
    pub cargo: Cargo,
    /// What else there is of each action of the cargo, in its order.
    pub parts: Vec<CheckpointPart>,
    /// Actions that have ended here without a trace in the log, latest last.
    pub ended: Vec<(Uid, CheckpointEnd)>,
}

/// What else there is of an action.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckpointPart {
    /// See [`crate::action::path::Joined::join`].
    pub join: u64,
    /// Where its servants have called.
    pub reached: Vec<Address>,
    /// Calls that had called elsewhere and have no saved reply.
    pub gone: Vec<(CallId, Gone)>,
    /// Nested actions in which calls had called elsewhere that have ended since, and what each has
    /// committed into: who has them may not have heard.
    pub merged: Vec<(Uid, Uid)>,
    /// Those of calls that earlier leaders had begun: the same of their abort.
    pub lost: Vec<Uid>,
    /// Nested actions that were aborted here: whoever calls in one may not have heard.
    pub aborted: Vec<Uid>,
}

/// What an unfinished call has left elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gone {
    /// The nested action in which it has called.
    pub level: Option<Uid>,
    /// The same of each earlier leader that had begun it: its answer names them as aborted.
    pub lost: Vec<Uid>,
    /// It has called outside of them, so that it must not be executed again.
    pub never: bool,
}

/// How an action has ended at an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointEnd {
    /// It had changed nothing, has prepared, and has voted so.
    ReadOnly,
    /// It is committed, and has changed nothing anywhere.
    Committed,
    /// It is aborted.
    Aborted,
}

impl Checkpoint {
    /// Looks whether it can be, see [`Cargo::check`].
    ///
    /// # Errors
    /// What cannot be.
    pub fn check(&self) -> Result<(), &'static str> {
        self.cargo.check_trees()?;
        if self.parts.len() != self.cargo.actions.len() {
            return Err("an action without its part");
        }
        let roots = self.cargo.actions.iter().map(|action| action.root());
        let roots: BTreeSet<Option<Uid>> = roots.collect();
        if roots.len() != self.parts.len() {
            return Err("an action is in the checkpoint twice");
        }
        if self.ended.len() > ENDED_MAX {
            return Err("too many actions that have ended");
        }
        Ok(())
    }

    /// The object's log has what this action has changed, or its end: what is left then.
    pub fn settle(&mut self, root: Uid) {
        let is = |action: &super::CargoAction| action.root() == Some(root);
        if let Some(at) = self.cargo.actions.iter().position(is) {
            self.cargo.actions.remove(at);
            self.parts.remove(at);
        }
    }
}
