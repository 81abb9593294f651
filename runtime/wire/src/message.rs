//! A whole message: its bytes, its capabilities, and the way in.

use core::any::Any;
use core::cell::Cell;
use core::fmt;
use std::sync::Arc;

use bytes::{Buf, Bytes};

use crate::reader::{Arena, PointerReader, StructReader};
use crate::{DEPTH_MAX, DecodeError, HEADER, SLICED_BYTES_MIN, Slot, WORD};

/// What a capability pointer stands for; only the runtime knows the type behind it.
pub type Attachment = Arc<dyn Any + Send + Sync>;

/// The bytes of one segment and what its capability pointers stand for.
#[derive(Clone)]
pub struct Message {
    segment: Bytes,
    root: u32,
    pub(crate) attached: Vec<Attachment>,
    /// Words that readers may still visit in this pass.
    pub(crate) budget: Cell<u64>,
}

/// Why the start of a stream is no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameError {
    /// More than one segment.
    Segments {
        /// How many it claims.
        count: u64,
    },
    /// Larger than allowed.
    TooLarge {
        /// The size it claims, in bytes.
        bytes: u64,
        /// The limit, in bytes.
        bytes_max: usize,
    },
    /// No root pointer.
    Empty,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segments { count } => {
                write!(f, "a frame of {count} segments; only one is allowed")
            }
            Self::TooLarge { bytes, bytes_max } => {
                write!(
                    f,
                    "a message of {bytes} bytes; at most {bytes_max} are allowed"
                )
            }
            Self::Empty => f.write_str("a frame without a root pointer"),
        }
    }
}

impl core::error::Error for FrameError {}

/// The length in bytes of the frame that begins `bytes`, framing included; none while its first
/// eight bytes are not all there. Nothing is believed before it is checked against `bytes_max`.
///
/// # Errors
/// [`FrameError`] if this is no frame of ours, or one too large.
#[inline]
pub fn frame_len(bytes: &[u8], bytes_max: usize) -> Result<Option<usize>, FrameError> {
    let Some(header) = bytes.first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let header = u64::from_le_bytes(*header);
    let segments = header & 0xffff_ffff;
    if segments != 0 {
        return Err(FrameError::Segments {
            count: segments + 1,
        });
    }
    let words = header >> 32;
    if words == 0 {
        return Err(FrameError::Empty);
    }
    let len = words * WORD as u64 + HEADER as u64;
    if len > bytes_max as u64 {
        return Err(FrameError::TooLarge {
            bytes: len,
            bytes_max,
        });
    }
    Ok(Some(len as usize))
}

impl Message {
    /// A message whose segment (without framing) has its root pointer at the start.
    ///
    /// # Errors
    /// [`DecodeError`] if the segment is shorter than its root pointer or no whole words.
    #[inline]
    pub fn from_segment(segment: Bytes, attached: Vec<Attachment>) -> Result<Self, DecodeError> {
        if segment.len() < WORD || !segment.len().is_multiple_of(WORD) {
            return Err(DecodeError::new(crate::Problem::OutOfBounds));
        }
        Ok(Self {
            segment,
            root: 0,
            attached,
            budget: Cell::new(0),
        })
    }

    /// A message from framed bytes, as they stand in a file or a stream.
    ///
    /// # Errors
    /// [`DecodeError`] if the framing is not that of exactly these bytes.
    pub fn from_framed(mut framed: Bytes, attached: Vec<Attachment>) -> Result<Self, DecodeError> {
        match frame_len(&framed, framed.len()) {
            Ok(Some(len)) if len == framed.len() => {
                framed.advance(HEADER);
                Self::from_segment(framed, attached)
            }
            _ => Err(DecodeError::invalid("one framed message of one segment")),
        }
    }

    pub(crate) fn from_own(mut framed: Bytes, attached: Vec<Attachment>) -> Self {
        framed.advance(HEADER);
        Self {
            segment: framed,
            root: 0,
            attached,
            budget: Cell::new(0),
        }
    }

    /// The same message, entered at another pointer: how the arguments inside a frame become a
    /// message of their own without a copy.
    #[must_use]
    #[inline]
    pub fn into_rooted(mut self, slot: Slot) -> Self {
        self.root = slot.offset();
        self
    }

    /// The same message with these capabilities.
    #[must_use]
    #[inline]
    pub fn with_attached(mut self, attached: Vec<Attachment>) -> Self {
        self.attached = attached;
        self
    }

    /// The struct at the root, for one pass over the message.
    ///
    /// # Errors
    /// [`DecodeError`] if the root is no struct inside the segment.
    #[inline]
    pub fn reader(&self) -> Result<StructReader<'_>, DecodeError> {
        self.root().structure()
    }

    /// The root pointer, for one pass over the message.
    #[must_use]
    #[inline]
    pub fn root(&self) -> PointerReader<'_> {
        // Slack for lists of structs without members, which take no space.
        self.budget.set((self.segment.len() / WORD) as u64 + 65_536);
        let arena = Arena::new(&self.segment, self);
        PointerReader::new(arena, self.root, DEPTH_MAX)
    }

    /// The segment.
    #[must_use]
    #[inline]
    pub fn segment(&self) -> &Bytes {
        &self.segment
    }

    /// A stretch of the segment as bytes of their own: not copied where they are long, and not so
    /// small a part that they would keep much else.
    pub(crate) fn share(&self, data: &[u8]) -> Bytes {
        if data.len() >= SLICED_BYTES_MIN && data.len() >= self.segment.len() / 8 {
            return self.segment.slice_ref(data);
        }
        Bytes::copy_from_slice(data)
    }

    /// A copy of the segment in which the root pointer is at the start.
    ///
    /// # Errors
    /// [`DecodeError`] if the root is no pointer inside the segment.
    pub fn detached_segment(&self) -> Result<Vec<u8>, DecodeError> {
        let mut segment = self.segment.to_vec();
        let at = self.root as usize;
        let out = || DecodeError::new(crate::Problem::OutOfBounds);
        let word = segment
            .get(at..)
            .and_then(|rest| rest.first_chunk::<WORD>())
            .ok_or_else(out)?;
        let word = u64::from_le_bytes(*word);
        let moved = match word & 3 {
            _ if word == 0 => 0,
            // A struct or list: its distance counts from the end of the pointer.
            0 | 1 => {
                let distance = i64::from(word as u32 as i32 >> 2) + i64::from(self.root / 8);
                ((distance as u64) << 2) & 0xffff_ffff | (word & 3) | (word >> 32 << 32)
            }
            _ => return Err(out()),
        };
        segment[..WORD].copy_from_slice(&moved.to_le_bytes());
        Ok(segment)
    }

    /// What the capability pointers stand for.
    #[must_use]
    #[inline]
    pub fn attached(&self) -> &[Attachment] {
        &self.attached
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bytes, root, attached) = (self.segment.len(), self.root, self.attached.len());
        write!(
            f,
            "Message({bytes} bytes, root at {root}, {attached} capabilities)"
        )
    }
}
