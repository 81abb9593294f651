//! The binding service: stubs and skeletons of `runtime/idl/binder.idl`.

pub use super::generated::binder::*;
