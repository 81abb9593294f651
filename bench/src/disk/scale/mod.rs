//! What grows with use: memory with objects and connections, calls with objects, waits with those
//! who wait, start-up with what is stored, compile times with interfaces.

pub(crate) mod compile;
pub(crate) mod growth;
pub(crate) mod memory;
pub(crate) mod start_up;

use std::path::Path;

use crate::generated::null::cell::{INFO, State};
use crate::scale::fill::{Filled, Show, fill};

/// Puts so many cells into the store in a folder, whose node does not run.
fn store_cells(dir: &Path, count: u64) -> anyhow::Result<Filled> {
    // A bar of its own would be in the way of the one of the whole run.
    fill(dir, &INFO, count, |value| State { value }, Show::Nothing)
}

/// The uids of the first of them, as text.
fn first_uids(filled: &Filled, count: u64) -> Vec<String> {
    (0..count)
        .map(|number| filled.uid(number).to_string())
        .collect()
}
