//! Which node has an object: the one that made it, unless the object has moved.
//!
//! The node that made it is asked first, since for most objects that is the one, and is known
//! already; the binder is asked where that does not lead to the object.

use std::sync::Arc;

use partha::system::ObjectDescription;
use partha::{NodeId, Uid};

use crate::cluster::{NodeInfo, System};

/// An object at the node that has it.
#[derive(Debug)]
pub(crate) struct Owned {
    pub(crate) node: Arc<NodeInfo>,
    pub(crate) found: ObjectDescription,
}

impl System {
    /// The node that has an object, and what it knows of it.
    pub(crate) async fn owner(&self, object: Uid) -> anyhow::Result<Owned> {
        let error = match self.at_birth(object).await {
            Ok(owned) => return Ok(owned),
            Err(error) => error,
        };
        let location = self.client.locator().location(&self.client, object).await;
        let node = match location {
            Ok(location) if NodeId(location.node.node) != object.node => location.node,
            // The binder knows no better, or cannot be asked.
            Ok(_) | Err(_) => return Err(error),
        };
        let node = self.node(&node).await?;
        let found = node.inspect(&self.client, object).await?;
        Ok(Owned { node, found })
    }

    async fn at_birth(&self, object: Uid) -> anyhow::Result<Owned> {
        let node = self.birthplace(object).await?;
        let found = node.inspect(&self.client, object).await?;
        Ok(Owned { node, found })
    }
}
