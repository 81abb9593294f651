//! Cap'n Proto structs in one segment: the bytes under every stub, frame and stored record.
//!
//! [`Writer`] lays structs, lists and texts into one growing segment, behind the eight bytes of
//! Cap'n Proto's stream framing, so that what it holds *is* a message that any Cap'n Proto tool
//! reads. [`Message`] owns the bytes of such a message and hands out [`StructReader`]s that check
//! every pointer when it is followed.
//!
//! Why not the `capnp` crate's layout module: a frame of ours is built where it will be sent
//! from, one allocation a message, handles are plain offsets (so generated code needs no
//! lifetimes and futures stay `Send`), and a capability is an index into a list that each face
//! fills in its own way. The price is that messages of several segments are refused here; the
//! foreign face copies them into one segment first. See docs/decisions/0003-own-codec.md.
//!
//! Invariants
//! - No input makes a reader panic, read outside the segment, recurse deeper than
//!   [`DEPTH_MAX`], or do more work than a constant times the message's size.
//! - A writer never fails half way: past its size limit it goes on counting nothing and
//!   [`Writer::finish`] reports the overflow.
//!
//! Source of the layout: Cap'n Proto's encoding specification.

mod error;
mod message;
mod reader;
mod writer;

#[cfg(test)]
mod tests;

pub use error::{DecodeError, Problem};
pub use message::{Attachment, FrameError, Message, frame_len};
pub use reader::{ListReader, PointerReader, StructReader};
pub use writer::{ListAt, Piece, Slot, StructAt, TooLarge, Writer};

/// Bytes of the stream framing before the segment: segment count less one, and its words.
pub const HEADER: usize = 8;
/// Bytes of a word.
pub const WORD: usize = 8;
/// A shorter byte string is copied into the message that is written, since that costs less than to
/// look after it.
pub const SHARED_BYTES_MIN: usize = 512;
/// A byte string that is read is a part of the message's own buffer, and keeps all of it, if it is
/// as long as this and at least an eighth of the message; else it is copied.
pub const SLICED_BYTES_MIN: usize = 16 * 1024;
/// How deep pointers may nest before a reader refuses.
pub const DEPTH_MAX: u8 = 64;

/// How the elements of a list lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// No bits.
    Void,
    /// One bit each.
    Bit,
    /// One byte each.
    Byte,
    /// Two bytes each.
    Two,
    /// Four bytes each.
    Four,
    /// Eight bytes each.
    Eight,
    /// A pointer each.
    Pointer,
    /// A struct each, all of one size, behind a tag word.
    Struct,
}

impl Element {
    const ALL: [Self; 8] = [
        Self::Void,
        Self::Bit,
        Self::Byte,
        Self::Two,
        Self::Four,
        Self::Eight,
        Self::Pointer,
        Self::Struct,
    ];

    /// The three bits of a list pointer.
    fn code(self) -> u64 {
        self as u64
    }

    /// Bits an element takes; none for a struct, whose size stands in the tag.
    fn bits(self) -> u64 {
        match self {
            Self::Void | Self::Struct => 0,
            Self::Bit => 1,
            Self::Byte => 8,
            Self::Two => 16,
            Self::Four => 32,
            Self::Eight | Self::Pointer => 64,
        }
    }
}
