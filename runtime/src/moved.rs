//! Where an object has moved to, as the node that it left says.

use std::fmt;
use std::sync::Mutex;

use partha_core::id::NodeId;
use partha_wire::Message;

use crate::net::connection::lock;

/// Where an object is that has moved away: what an error of the kind
/// [`ErrorKind::Moved`](crate::ErrorKind::Moved) brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The node it went to.
    pub node: NodeId,
    /// Where that node listens, as far as the one that says so knows.
    pub addresses: Vec<String>,
    /// How often the object had moved when it got there: the higher one of two such numbers is
    /// the newer.
    pub moves: u64,
}

/// Moves of an object, at most, so that no peer can name a number that none comes after. At a
/// thousand a second it is reached after thousands of years.
pub(crate) const MOVES_MAX: u64 = 1 << 48;

/// Addresses in one, at most; what a peer says beyond that is not read.
pub(crate) const ADDRESSES_MAX: usize = 16;

impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it is at node {} now", self.node)?;
        if let Some(address) = self.addresses.first() {
            write!(f, " ({address})")?;
        }
        Ok(())
    }
}

/// The same with the parameters of the call, which whoever called within this process gave away.
#[derive(Debug)]
pub(crate) struct MovedOn {
    pub(crate) to: Moved,
    parameters: Mutex<Option<Message>>,
}

impl MovedOn {
    pub(crate) fn new(to: Moved, parameters: Option<Message>) -> Self {
        let parameters = Mutex::new(parameters);
        Self { to, parameters }
    }

    /// The parameters, once.
    pub(crate) fn take_parameters(&self) -> Option<Message> {
        lock(&self.parameters).take()
    }
}

impl Clone for MovedOn {
    fn clone(&self) -> Self {
        Self::new(self.to.clone(), None)
    }
}

impl PartialEq for MovedOn {
    fn eq(&self, other: &Self) -> bool {
        self.to == other.to
    }
}

impl Eq for MovedOn {}
