//! The services that find things, as their clients see them.
//!
//! Their objects are ordinary ones, described in `runtime/idl`; only the address of the naming
//! service is known beforehand, and the naming service knows where the binder is.

use partha_core::id::{Incarnation, NodeId, Peer};

pub mod binder;
mod generated;
mod group_view;
mod groups;
mod hedge;
mod locator;
mod moved;
pub mod naming;
mod pauses;
mod whereabouts;

pub use generated::partha as system;
pub use locator::Locator;
pub(crate) use locator::Nodes;
pub use naming::Naming;

/// The name of the binder.
pub const BINDER_NAME: &str = "partha/binder";

impl From<Peer> for system::ActionCaller {
    fn from(peer: Peer) -> Self {
        Self {
            node: peer.node.0,
            incarnation: peer.incarnation.0,
        }
    }
}

impl From<&system::ActionCaller> for Peer {
    fn from(caller: &system::ActionCaller) -> Self {
        Self {
            node: NodeId(caller.node),
            incarnation: Incarnation(caller.incarnation),
        }
    }
}
