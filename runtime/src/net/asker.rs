//! Who waits for an answer of this end, and whether anybody does on a connection.
//!
//! Each call of the peer, and each of its wishes about actions, counts from its arrival until it
//! is answered, refused or dropped, on whichever thread that is: an [`Asker`] goes with it.
//! Which ones these are is not known here.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::connection::Connection;

/// The connection of somebody who waits for an answer.
#[derive(Debug)]
pub(crate) struct Asker(Arc<Connection>);

impl Asker {
    /// Somebody has asked over the connection.
    pub(crate) fn new(connection: &Arc<Connection>) -> Self {
        connection.asked.fetch_add(1, Ordering::Relaxed);
        Self(connection.clone())
    }
}

impl Deref for Asker {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.0.asked.fetch_sub(1, Ordering::Release);
    }
}

impl Connection {
    /// Whether anything that the peer has asked is still to be answered. Said on the connection's
    /// own thread it stays false until the next frame is taken.
    pub(crate) fn is_asked(&self) -> bool {
        self.asked() > 0
    }

    /// How much that is.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Acquire)
    }
}
