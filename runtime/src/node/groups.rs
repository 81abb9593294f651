//! The copies of objects that an earlier life of the node had, and those that lead when it stops.

use std::time::Duration;

use super::Home;
use crate::error::{ErrorKind, Result, SystemError};
use crate::hash::shard_of;
use crate::shard::Opened;

/// Groups looked at in one go.
const PAGE: usize = 1_000;

/// How long a node that stops waits until others lead, for nothing of theirs to be in use; then
/// for so long without; and how often it looks.
const AT_REST: Duration = Duration::from_secs(1);
const HANDING_OVER: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(20);

/// Waits until other copies lead where there are some: a leader that ends before that is missed
/// until another copy has found out.
pub(super) async fn handed_over(home: &Home) {
    let waiting = async |now: bool| {
        for shard in &home.shards {
            while shard.look(move |shard| shard.leads_still(now)).await == Some(true) {
                tokio::time::sleep(LOOK).await;
            }
        }
    };
    if tokio::time::timeout(AT_REST, waiting(false)).await.is_err()
        && tokio::time::timeout(HANDING_OVER, waiting(true))
            .await
            .is_err()
    {
        tracing::warn!("the node stops although copies lead here still");
    }
}

/// Those of each shard.
///
/// # Errors
/// If the store cannot be read.
pub(super) fn stored(home: &Home) -> Result<Vec<Vec<Opened>>> {
    let shards = home.shards.len() as u16;
    let mut found: Vec<Vec<Opened>> = (0..shards).map(|_| Vec::new()).collect();
    let Some(store) = &home.registry.store else {
        return Ok(found);
    };
    let unreadable = |error: partha_store::StoreError| {
        let detail = format!("copies of objects at {}: {error}", home.registry.here());
        SystemError::new(ErrorKind::Store, detail)
    };
    let mut after = None;
    loop {
        let page = store.scan_groups(after, PAGE).map_err(unreadable)?;
        let Some(last) = page.last() else {
            return Ok(found);
        };
        after = Some(*last);
        for uid in page {
            let of = usize::from(shard_of(uid, shards));
            found[of].push(Opened::read(&**store, uid));
        }
    }
}
