//! What generated code is written against. Not for use by hand.
//!
//! The shape of this module is versioned by [`VERSION`]: generated code asserts at compile time
//! that it was made for the runtime it meets. The code generator lives in `partha-codegen`; the
//! mapping of the language is told in docs/wire.md.

mod call;
mod class;
mod request;
mod value;

pub(crate) use call::End;
pub use call::{Call, Finished, LocalFuture};
pub use class::{Class, ClassInfo, Method, ObjectState, Skeleton, Stub, Transient};
pub use partha_core::Mode;
pub use partha_wire::{
    DecodeError, ListAt, ListReader, Message, PointerReader, Slot, StructAt, StructReader, Writer,
};
pub use request::{Reply, Request};
pub use value::{
    Enum, Struct, message, read_capability, read_duration, read_ref, read_uid, write_capability,
    write_duration, write_ref, write_uid,
};

/// The version of this module's shape.
pub const VERSION: u32 = 3;

/// Stops the compilation of code that was generated for another version of the runtime.
///
/// # Panics
/// At compile time, if the versions differ.
pub const fn assert_version(version: u32) {
    assert!(
        version == VERSION,
        "this file was generated for another version of partha: run `partha generate` again"
    );
}
