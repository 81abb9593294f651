//! Many objects in one store: making them, and what a node that has them costs.

pub(crate) mod fill;
mod stored;

use std::path::PathBuf;

use clap::Args;

use crate::generated::null::cell::{INFO, State};
use fill::{Show, fill};
pub(crate) use stored::Stored;

/// What to make
#[derive(Args)]
pub(crate) struct Fill {
    /// The folder of the store; made if absent
    dir: PathBuf,
    /// How many objects to add
    #[arg(long, value_name = "N", default_value_t = 10_000_000)]
    objects: u64,
}

impl Fill {
    /// Fills a store with cells and says what it took.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let filled = fill(
            &self.dir,
            &INFO,
            self.objects,
            |value| State { value },
            Show::Bar,
        )?;
        println!(
            "{} cells from {} on: {:.1?}, {} MiB in use",
            filled.objects,
            filled.uid(0),
            filled.took,
            filled.used_bytes >> 20
        );
        Ok(())
    }
}
