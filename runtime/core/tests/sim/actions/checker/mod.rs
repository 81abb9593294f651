//! What must be true of a run, one property a file.
//!
//! Some look at every input of every engine and speak at once; the others look at what was true
//! and at the stores when all is over. Those of the world of calls that hold here as well
//! (one activation, one answer a ticket) are used from there.

pub(crate) mod atomic;
pub(crate) mod durable;
pub(crate) mod isolated;
pub(crate) mod liveness;
pub(crate) mod locks;
pub(crate) mod once;
pub(crate) mod orphan;
pub(crate) mod rest;
pub(crate) mod serial;
pub(crate) mod waits;
