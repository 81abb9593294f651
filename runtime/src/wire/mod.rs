//! What travels on the native face. The layout is told in docs/wire.md and runtime/idl/wire.capnp.

pub(crate) mod context;
pub(crate) mod frame;
pub(crate) mod group;
pub(crate) mod large;
pub(crate) mod message;
pub(crate) mod parts;
