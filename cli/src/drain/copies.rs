//! Copies of replicated objects: they do not move, others take their places.

use std::cell::RefCell;

use partha::ErrorKind;
use partha::system::StoredObject;
use partha::system::connection_manager::{GiveUpCopyError, MoveObjectError};

use super::Drain;
use super::tally::{Tally, Why};
use crate::cluster::NodeInfo;
use crate::moving;

impl Drain<'_> {
    /// Has a copy go: another one leads and another node has one before that. Which node gets it
    /// is said by the object's own placement.
    pub(super) async fn give_up(
        &self,
        source: &NodeInfo,
        object: &StoredObject,
        tally: &RefCell<Tally>,
    ) {
        let (wait, node) = (self.arguments.wait, source.handle.id());
        let caller = self.system.client.call().deadline(wait + moving::GRACE);
        let manager = source.handle.manager();
        let gone = manager.give_up_copy(&caller, object.object, node.0, wait);
        let error = match gone.await {
            Ok(()) => {
                tally.borrow_mut().moved += 1;
                return self.progress.moved();
            }
            Err(GiveUpCopyError::NotMovable(error)) => MoveObjectError::NotMovable(error),
            Err(GiveUpCopyError::System(error)) if error.kind() == ErrorKind::NoSuchObject => {
                return;
            }
            Err(GiveUpCopyError::System(error)) => MoveObjectError::System(error),
        };
        let why = Why::of(&error);
        let text = match error {
            MoveObjectError::NotMovable(error) => error.reason,
            error => error.to_string(),
        };
        let (why, text) = match why {
            Why::Refused(kind) => {
                let nobody = Why::NotReplaced(kind);
                self.unless_one_returns(object.class, &[], nobody, text)
            }
            passes => (passes, text),
        };
        tally
            .borrow_mut()
            .stays(object.object, object.class, why, text);
        self.progress.stays();
    }
}
