//! What the code generator made of `bench/idl`.

#![allow(
    clippy::all,
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "generated code"
)]

#[rustfmt::skip]
#[path = "gen/null.rs"]
pub mod null;
