//! What must be true of a run, one property a file.
//!
//! The first group watches one shard's engine from its shell and speaks at once; the second
//! looks at the history and the stores when all is over.

pub(crate) mod activation;
pub(crate) mod durable;
pub(crate) mod exactly_once;
pub(crate) mod linear;
pub(crate) mod liveness;
pub(crate) mod memory;
pub(crate) mod orphan;
pub(crate) mod tables;
pub(crate) mod tickets;
