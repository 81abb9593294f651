//! How each peer makes and serves a null call.

pub(crate) mod capnp;
pub(crate) mod oneshot;
pub(crate) mod partha;
pub(crate) mod raw;
pub(crate) mod tarpc;
