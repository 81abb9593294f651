//! Moving objects to other nodes, as the connection manager is asked to.

use std::time::Duration;

use partha_core::id::{NodeId, Peer, Uid};

use super::Manager;
use crate::context::Context;
use crate::error::Result;
use crate::moved::Moved;
use crate::system::NotMovable;
use crate::system::connection_manager::MoveObjectError;

impl Manager {
    /// Moves an object of this node to another one.
    pub(super) async fn move_away(
        &self,
        _cx: &Context,
        object: Uid,
        node: NodeId,
        _wait: Duration,
    ) -> Result<u64, MoveObjectError> {
        if node == self.home.me.node {
            return Ok(0);
        }
        let reason = "this version of the node does not move objects yet".to_owned();
        let passing = false;
        Err(NotMovable {
            object,
            reason,
            passing,
        }
        .into())
    }

    /// An object that was sent to the caller has moved on from there.
    pub(super) async fn moved_on(&self, caller: Peer, object: Uid, to: Moved) -> Result<()> {
        tracing::debug!(%object, from = %caller.node, %to, "moved on");
        Ok(())
    }
}
