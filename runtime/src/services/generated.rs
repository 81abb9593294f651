//! What the code generator made of `runtime/idl`; `cargo xtask codegen` makes it anew.

#![allow(
    clippy::all,
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "generated code"
)]

#[rustfmt::skip]
#[path = "gen/binder.rs"]
pub mod binder;
#[rustfmt::skip]
#[path = "gen/naming.rs"]
pub mod naming;
#[rustfmt::skip]
#[path = "gen/partha.rs"]
pub mod partha;
