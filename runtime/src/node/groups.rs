//! The copies of objects that an earlier life of the node had.

use super::Home;
use crate::error::{ErrorKind, Result, SystemError};
use crate::hash::shard_of;
use crate::shard::Opened;

/// Groups looked at in one go.
const PAGE: usize = 1_000;

/// Those of one shard.
///
/// # Errors
/// If the store cannot be read.
pub(super) fn stored(home: &Home, shard: u16) -> Result<Vec<Opened>> {
    let Some(store) = &home.registry.store else {
        return Ok(Vec::new());
    };
    let unreadable = |error: partha_store::StoreError| {
        let detail = format!("copies of objects at {}: {error}", home.registry.here());
        SystemError::new(ErrorKind::Store, detail)
    };
    let shards = home.shards.len() as u16;
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = store.scan_groups(after, PAGE).map_err(unreadable)?;
        let Some(last) = page.last() else {
            return Ok(found);
        };
        after = Some(*last);
        for uid in page {
            if shard_of(uid, shards) == shard {
                found.push(Opened::read(&**store, uid));
            }
        }
    }
}
