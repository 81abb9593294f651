//! The connections that an action's calls were answered on, level by level.
//!
//! What was done at a node is bound to the connection it was done on: if that breaks, the node
//! aborts its part, and a node that comes back knows nothing of it. So a level that has used a
//! connection which is broken now can only abort, and every call in it is refused before it is
//! sent, although the object may answer again; an action that begins later binds anew. This is
//! Arjuna's rule that a broken binding is not repaired within the program that used it, with the
//! action in the place of the program.
//!
//! A nested action that commits hands its connections on to its parent; one that aborts drops
//! them, so that the parent is none the worse.
//!
//! Bounded by the connections of the client, each noted once for each open level.

use std::collections::HashMap;
use std::sync::Arc;

use partha_core::id::{Peer, Uid};

use crate::net::connection::Connection;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Bonds {
    by_level: HashMap<Uid, Vec<Arc<Connection>>>,
}

impl Bonds {
    /// A call of the level was answered on the connection.
    pub(super) fn tie(&mut self, level: Uid, connection: &Arc<Connection>) {
        let bonds = self.by_level.entry(level).or_default();
        if !bonds.iter().any(|bond| Arc::ptr_eq(bond, connection)) {
            bonds.push(connection.clone());
        }
    }

    /// The child has committed into its parent.
    pub(super) fn hand_on(&mut self, child: Uid, parent: Uid) {
        for bond in self.by_level.remove(&child).unwrap_or_default() {
            self.tie(parent, &bond);
        }
    }

    /// The level has ended.
    pub(super) fn forget(&mut self, level: Uid) {
        self.by_level.remove(&level);
    }

    /// The first of these levels that has used a connection which is broken, or leads to another
    /// life of `peer` than it is now, with that connection.
    pub(super) fn broken<'a>(
        &'a self,
        levels: &[Uid],
        peer: Option<Peer>,
    ) -> Option<(Uid, &'a Arc<Connection>)> {
        levels.iter().find_map(|level| {
            let bonds = self.by_level.get(level)?;
            let bond = bonds.iter().find(|bond| {
                let is_past = peer.is_some_and(|peer| {
                    let known = bond.peer();
                    known.node == peer.node && known.incarnation != peer.incarnation
                });
                is_past || !bond.is_open()
            })?;
            Some((*level, bond))
        })
    }
}
