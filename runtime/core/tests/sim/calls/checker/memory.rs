//! Memory has a limit: what is not used makes room, and nothing is brought in for which there is
//! none.
//!
//! Sizes are noted here a second time, from what the shell was told, since the engine's own sum is
//! what is to be judged.

use std::collections::BTreeMap;

use partha_core::id::Uid;
use partha_core::{Engine, Limits};

/// The sizes of the images of one shard.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    sizes: BTreeMap<Uid, u64>,
}

impl Memory {
    /// The state of an object is so large now.
    pub(crate) fn is(&mut self, uid: Uid, size_bytes: u64) {
        self.sizes.insert(uid, size_bytes);
    }

    pub(crate) fn dropped(&mut self, uid: Uid) {
        self.sizes.remove(&uid);
    }

    /// After the engine was told that an object is loaded: if it is still there, all there is fits
    /// the limit, or it is alone.
    pub(crate) fn loaded(&self, uid: Uid, limits: &Limits) -> Result<(), String> {
        let sum: u64 = self.sizes.values().sum();
        match self.sizes.get(&uid) {
            Some(own) if sum > limits.active_bytes_max && sum > *own => Err(format!(
                "memory: {uid} was brought in, {sum} bytes with {:?}",
                self.sizes
            )),
            Some(_) | None => Ok(()),
        }
    }
}

/// After every input: nobody that could leave is in memory while it is over its limits.
pub(crate) fn after(engine: &Engine, limits: &Limits) -> Result<(), String> {
    let stats = engine.stats();
    let over = stats.active_bytes > limits.active_bytes_max;
    if over && stats.idle_objects > 0 {
        return Err(format!("memory: over its limit with {stats:?}"));
    }
    if stats.objects > limits.active_objects_max as usize {
        return Err(format!("memory: too many objects, {stats:?}"));
    }
    Ok(())
}
