//! What the code generator makes of the IDL corpus, compiled, and samples of its types.
//!
//! The tests of this package carry the samples through messages of ours and of the official
//! `capnp` tool, and show what users cannot do with generated code.

pub mod sample;

include!(concat!(env!("OUT_DIR"), "/modules.rs"));
