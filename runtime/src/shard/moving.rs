//! Objects that move to another node or come from one.

use partha_core::action::path::Site;
use partha_core::id::Uid;
use partha_core::migrate::NotShipped;
use partha_core::{Input, Output};
use partha_store::Item;

use super::Shard;
use super::action_store::Work;
use crate::error::{ErrorKind, SystemError};

impl Shard {
    /// What the engine says about moves. Nothing is shipped yet, so no object leaves.
    pub(super) fn moving(&self, output: Output) {
        if let Output::Ship { uid, action, .. } = output {
            let result = Err(NotShipped::Refused);
            self.later(Input::Shipped {
                uid,
                action,
                result,
            });
        }
    }

    /// The commit point of a move. The store has no forwards yet, so it cannot be written.
    pub(super) fn items_to_depart(
        &self,
        action: Uid,
        uid: Uid,
        to: Site,
    ) -> Result<(Work, Vec<Item>), SystemError> {
        let detail = format!("{uid} cannot leave for {to:?} by {action}: there are no forwards");
        Err(SystemError::new(ErrorKind::Internal, detail))
    }
}
