//! Telling the binder of objects that have come to this node.
//!
//! The store knows of which the binder has not heard, so that a restart forgets none. The task
//! looks there when a shard says that an object has come, at start, and now and then.

use std::sync::Arc;
use std::time::Duration;

use partha_core::id::NodeId;
use partha_store::{Batch, Item, Place, StoreError};
use tokio::task::JoinHandle;

use super::Home;
use crate::client::Client;
use crate::services::binder::{MOVED_MAX, MovedObject};

/// The longest time between two looks.
const LOOK: Duration = Duration::from_secs(30);
/// The pause after a store or binder that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Begins to tell, in a task of the caller's runtime.
pub(super) fn start(client: Client, home: Arc<Home>) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            if !tell(&client, &home).await {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            tokio::select! {
                () = home.untold.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    })
}

/// Tells of all that are there; false if that has to be tried again.
async fn tell(client: &Client, home: &Home) -> bool {
    let Some(store) = &home.registry.store else {
        return true;
    };
    let mut after = None;
    loop {
        let page = match store.scan_untold(after, MOVED_MAX) {
            Ok(page) => page,
            Err(StoreError::Closed) => return true,
            Err(error) => {
                tracing::warn!(%error, "objects that have come cannot be looked for");
                return false;
            }
        };
        let Some((last, _)) = page.last() else {
            return true;
        };
        after = Some(*last);
        let objects: Vec<_> = page
            .iter()
            .filter_map(|(uid, place)| here(home.me.node, *uid, *place))
            .collect();
        if let Err(error) = client.locator().tell_moved(client, &objects).await {
            tracing::warn!(%error, "the binder does not take what has moved");
            return false;
        }
        tracing::debug!(
            count = objects.len(),
            "the binder knows of objects that have come"
        );
        let told = objects.iter().map(|moved| Item::Told {
            uid: moved.object,
            moves: moved.moves,
        });
        let done = |result: Result<(), StoreError>| {
            if let Err(error) = result {
                tracing::debug!(%error, "what the binder was told of will be told again");
            }
        };
        store.submit(Batch::new(told.collect()), Box::new(done));
    }
}

fn here(node: NodeId, object: partha_core::id::Uid, place: Place) -> Option<MovedObject> {
    match place {
        Place::Here { moves, .. } => Some(MovedObject {
            object,
            node: node.0,
            moves,
        }),
        Place::Gone { .. } => None,
    }
}
