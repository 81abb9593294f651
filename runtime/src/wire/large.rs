//! The head of a part: a message that is too large to be written at once travels in parts, and
//! other frames go between them.
//!
//! A part is a frame as any other (wire.capnp), but always laid out in the same way, so that its
//! content need not be looked for: 32 bytes of head, then as many bytes of the message as fit, in
//! whole words. Put one behind the other, the contents of a message's parts are its frame.

use partha_wire::{DecodeError, HEADER, WORD};

/// What a part carries of its message, unless it is the last one. A frame that is not larger is
/// sent whole. It bounds for how long a small frame waits behind a large one: a millisecond on a
/// gigabit network.
pub(crate) const PART_BYTES: usize = 128 * 1024;
/// Messages that may be on their way in parts at a time, in each direction.
pub(crate) const LANES: usize = 8;
/// Bytes before the content.
pub(crate) const HEAD_BYTES: usize = HEADER + 3 * WORD;

const PART: u16 = 9;
/// A struct of one word and one pointer right behind its pointer.
const ROOT: u64 = 1 << 32 | 1 << 48;
/// A list of bytes right behind its pointer, without its length.
const LIST: u64 = 1 | 2 << 32;

/// What the head of a part says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// Which of the messages under way it belongs to: a number below [`LANES`], that is free again
    /// after the last part.
    pub(crate) lane: usize,
    /// How much of the message follows.
    pub(crate) bytes: usize,
}

impl Head {
    /// The bytes before the content.
    pub(crate) fn encode(self) -> [u8; HEAD_BYTES] {
        let words = (HEAD_BYTES - HEADER + self.bytes) / WORD;
        let parts = [
            (words as u64) << 32,
            ROOT,
            u64::from(PART) | (self.lane as u64) << 32,
            LIST | (self.bytes as u64) << 35,
        ];
        let mut head = [0; HEAD_BYTES];
        for (place, part) in head.chunks_exact_mut(WORD).zip(parts) {
            place.copy_from_slice(&part.to_le_bytes());
        }
        head
    }

    /// Whether so much of a frame is there that it can be told if it is a part.
    pub(crate) fn is_telling(begun: &[u8]) -> bool {
        begun.len() >= HEADER + WORD + 2
    }

    /// Whether a frame that begins so is a part; false while it cannot be told.
    pub(crate) fn is_at(begun: &[u8]) -> bool {
        let kind = HEADER + WORD;
        begun.get(HEADER..kind) == Some(&ROOT.to_le_bytes())
            && begun.get(kind..kind + 2) == Some(&PART.to_le_bytes())
    }

    /// Reads the head of a frame for which [`Head::is_at`] holds.
    pub(crate) fn decode(head: &[u8; HEAD_BYTES]) -> Result<Self, DecodeError> {
        let number = |at: usize| {
            let bytes = [head[at], head[at + 1], head[at + 2], head[at + 3]];
            u32::from_le_bytes(bytes) as usize
        };
        let (words, lane) = (number(4), number(20));
        let bytes = words
            .saturating_mul(WORD)
            .saturating_sub(HEAD_BYTES - HEADER);
        let read = Self { lane, bytes };
        if bytes == 0 || bytes > PART_BYTES || read.encode() != *head {
            return Err(DecodeError::invalid(
                "a part with its content behind its head",
            ));
        }
        if lane >= LANES {
            return Err(DecodeError::invalid(
                "at most 8 messages in parts at a time",
            ));
        }
        Ok(read)
    }
}
