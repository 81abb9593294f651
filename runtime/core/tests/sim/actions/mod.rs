//! The world of nested atomic actions over many nodes, with calls outside them.

use crate::{Job, Summary};

pub(crate) const POINTS: [&str; 0] = [];

pub(crate) fn run(_job: &Job) -> Result<Summary, String> {
    Ok(Summary::default())
}
