//! The copies of objects that an earlier life of the node had.

use super::Home;
use crate::error::{ErrorKind, Result, SystemError};
use crate::hash::shard_of;
use crate::shard::Opened;

/// Groups looked at in one go.
const PAGE: usize = 1_000;

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
