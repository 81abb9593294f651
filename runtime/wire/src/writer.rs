//! Laying out a message: everything goes to the end of one segment.

use crate::message::{Attachment, Message, frame_len};
use crate::{DecodeError, Element, HEADER, WORD};

/// A message under construction.
///
/// Positions are handles without lifetimes; one made by another writer writes nonsense into this
/// one's segment, but never outside it.
#[derive(Clone, Debug)]
pub struct Writer {
    /// The framing header, then the segment.
    bytes: Vec<u8>,
    attached: Vec<Attachment>,
    bytes_max: usize,
    overflow: bool,
}

/// The place of a pointer: byte offset of its word in the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(u32);

/// A struct that has been laid out.
#[derive(Clone, Copy, Debug)]
pub struct StructAt {
    data: u32,
    pointers: u32,
}

/// A list that has been laid out.
#[derive(Clone, Copy, Debug)]
pub struct ListAt {
    start: u32,
    data_bytes: u32,
    step_bytes: u32,
}

/// The message would have been larger than allowed; nothing of it may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge {
    /// The limit, in bytes.
    pub bytes_max: usize,
}

impl core::fmt::Display for TooLarge {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "the message would exceed {} bytes", self.bytes_max)
    }
}

impl core::error::Error for TooLarge {}

impl Slot {
    /// Where the root pointer of every message is.
    pub const ROOT: Self = Self(0);

    /// The byte offset in the segment.
    #[must_use]
    pub fn offset(self) -> u32 {
        self.0
    }

    /// The place at this byte offset of the segment: for those who know a layout beforehand.
    #[must_use]
    pub const fn at_offset(offset: u32) -> Self {
        Self(offset)
    }
}

impl StructAt {
    /// The place of the struct's `index`-th pointer.
    #[must_use]
    pub fn slot(self, index: u16) -> Slot {
        Slot(self.pointers + u32::from(index) * WORD as u32)
    }

    /// The byte offset of the data section in the segment.
    #[must_use]
    pub fn data_offset(self) -> u32 {
        self.data
    }
}

impl ListAt {
    /// The `index`-th struct of a list of structs.
    #[must_use]
    pub fn structure(self, index: usize) -> StructAt {
        let data = self.start + index as u32 * self.step_bytes;
        StructAt {
            data,
            pointers: data + self.data_bytes,
        }
    }

    /// The `index`-th pointer of a list of pointers.
    #[must_use]
    pub fn slot(self, index: usize) -> Slot {
        Slot(self.start + (index * WORD) as u32)
    }
}

macro_rules! setters {
    ($($name:ident $list:ident $type:ty, $element:expr;)*) => {$(
        /// Sets a member of the data section; `index` counts in units of the member's own size.
        pub fn $name(&mut self, at: StructAt, index: u32, value: $type) {
            const SIZE: usize = size_of::<$type>();
            self.put(at.data as usize + index as usize * SIZE, &value.to_le_bytes());
        }

        /// Writes a list of scalars.
        pub fn $list(&mut self, slot: Slot, values: impl ExactSizeIterator<Item = $type>) {
            const SIZE: usize = size_of::<$type>();
            let count = values.len();
            let start = self.list(slot, $element, count, count * SIZE);
            for (index, value) in values.enumerate() {
                self.put(start + index * SIZE, &value.to_le_bytes());
            }
        }
    )*};
}

impl Writer {
    /// An empty message that may grow to `bytes_max` bytes, framing included.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self::reusing(Vec::with_capacity(256), bytes_max)
    }

    /// Like [`Writer::new`], into a buffer that exists; what it holds is dropped.
    #[must_use]
    pub fn reusing(mut bytes: Vec<u8>, bytes_max: usize) -> Self {
        bytes.clear();
        bytes.resize(HEADER + WORD, 0);
        let bytes_max = bytes_max.min((1 << 29) * WORD);
        Self {
            bytes,
            attached: Vec::new(),
            bytes_max,
            overflow: false,
        }
    }

    /// Goes on with a message that was written before, from its framed bytes; it has no
    /// capabilities.
    ///
    /// # Errors
    /// [`DecodeError`] if the framing is not that of exactly these bytes.
    pub fn resuming(framed: Vec<u8>, bytes_max: usize) -> Result<Self, DecodeError> {
        match frame_len(&framed, framed.len()) {
            Ok(Some(len)) if len == framed.len() => Ok(Self {
                bytes: framed,
                attached: Vec::new(),
                bytes_max: bytes_max.min((1 << 29) * WORD),
                overflow: false,
            }),
            _ => Err(DecodeError::invalid("one framed message of one segment")),
        }
    }

    /// Lays out a struct and points `slot` at it. All of it is zero.
    pub fn structure(&mut self, slot: Slot, data_words: u16, pointers: u16) -> StructAt {
        let size = (usize::from(data_words) + usize::from(pointers)) * WORD;
        let start = self.allocate(size);
        let sizes = u64::from(data_words) << 32 | u64::from(pointers) << 48;
        let word = if size == 0 {
            0xffff_fffc
        } else {
            (Self::distance(slot, start) << 2) & 0xffff_ffff | sizes
        };
        self.put(slot.0 as usize, &word.to_le_bytes());
        let data = start as u32;
        StructAt {
            data,
            pointers: data + u32::from(data_words) * WORD as u32,
        }
    }

    /// Lays out a list of `count` structs of one size.
    pub fn structures(&mut self, slot: Slot, count: usize, data: u16, pointers: u16) -> ListAt {
        let step = (usize::from(data) + usize::from(pointers)) * WORD;
        let total = count.saturating_mul(step);
        let start = self.allocate(total.saturating_add(WORD));
        let words = (total / WORD) as u64;
        let pointer = (Self::distance(slot, start) << 2) & 0xffff_ffff
            | 1
            | Element::Struct.code() << 32
            | words << 35;
        self.put(slot.0 as usize, &pointer.to_le_bytes());
        let tag = (count as u64) << 2 | u64::from(data) << 32 | u64::from(pointers) << 48;
        self.put(start, &tag.to_le_bytes());
        ListAt {
            start: (start + WORD) as u32,
            data_bytes: u32::from(data) * WORD as u32,
            step_bytes: step as u32,
        }
    }

    /// Lays out a list of `count` pointers, all null.
    pub fn pointers(&mut self, slot: Slot, count: usize) -> ListAt {
        let total = count.saturating_mul(WORD);
        let start = self.list(slot, Element::Pointer, count, total);
        ListAt {
            start: start as u32,
            data_bytes: 0,
            step_bytes: WORD as u32,
        }
    }

    /// Writes a text.
    pub fn text(&mut self, slot: Slot, text: &str) {
        let start = self.list(slot, Element::Byte, text.len() + 1, text.len() + 1);
        self.put(start, text.as_bytes());
    }

    /// Writes a byte string.
    pub fn data(&mut self, slot: Slot, data: &[u8]) {
        let start = self.list(slot, Element::Byte, data.len(), data.len());
        self.put(start, data);
    }

    /// Writes a list of truth values.
    pub fn bools(&mut self, slot: Slot, values: impl ExactSizeIterator<Item = bool>) {
        let count = values.len();
        let start = self.list(slot, Element::Bit, count, count.div_ceil(8)) as u32;
        let at = StructAt {
            data: start,
            pointers: start,
        };
        for (index, value) in values.enumerate() {
            self.set_bool(at, index as u32, value);
        }
    }

    /// Sets one bit of the data section.
    pub fn set_bool(&mut self, at: StructAt, bit: u32, value: bool) {
        let position = HEADER + at.data as usize + (bit / 8) as usize;
        if let Some(byte) = self.bytes.get_mut(position) {
            let mask = 1 << (bit % 8);
            *byte = if value { *byte | mask } else { *byte & !mask };
        }
    }

    setters! {
        set_u8 u8s u8, Element::Byte;
        set_u16 u16s u16, Element::Two;
        set_u32 u32s u32, Element::Four;
        set_u64 u64s u64, Element::Eight;
        set_i8 i8s i8, Element::Byte;
        set_i16 i16s i16, Element::Two;
        set_i32 i32s i32, Element::Four;
        set_i64 i64s i64, Element::Eight;
        set_f32 f32s f32, Element::Four;
        set_f64 f64s f64, Element::Eight;
    }

    /// Writes a capability pointer and keeps what it stands for beside the message.
    pub fn capability(&mut self, slot: Slot, capability: Attachment) {
        let index = self.attached.len() as u64;
        self.attached.push(capability);
        self.put(slot.0 as usize, &(3 | index << 32).to_le_bytes());
    }

    /// What the message's capability pointers stand for, by index.
    #[must_use]
    pub fn attached(&self) -> &[Attachment] {
        &self.attached
    }

    /// Bytes so far, framing included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// True while only the root pointer is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.len() == HEADER + WORD
    }

    /// The framed bytes, ready for a stream, and the capabilities.
    ///
    /// # Errors
    /// [`TooLarge`] if the limit was passed.
    pub fn finish(mut self) -> Result<(Vec<u8>, Vec<Attachment>), TooLarge> {
        if self.overflow {
            return Err(TooLarge {
                bytes_max: self.bytes_max,
            });
        }
        let words = ((self.bytes.len() - HEADER) / WORD) as u32;
        self.bytes[4..HEADER].copy_from_slice(&words.to_le_bytes());
        Ok((self.bytes, self.attached))
    }

    /// The framed bytes so far, ready for a stream.
    ///
    /// # Errors
    /// [`TooLarge`] if the limit was passed.
    pub fn framed(&mut self) -> Result<&[u8], TooLarge> {
        if self.overflow {
            return Err(TooLarge {
                bytes_max: self.bytes_max,
            });
        }
        let words = ((self.bytes.len() - HEADER) / WORD) as u32;
        self.bytes[4..HEADER].copy_from_slice(&words.to_le_bytes());
        Ok(&self.bytes)
    }

    /// The buffer, for another writer: see [`Writer::reusing`].
    #[must_use]
    pub fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }

    /// A copy of the framed bytes so far.
    ///
    /// # Errors
    /// [`TooLarge`] if the limit was passed.
    pub fn to_framed(&self) -> Result<Vec<u8>, TooLarge> {
        if self.overflow {
            return Err(TooLarge {
                bytes_max: self.bytes_max,
            });
        }
        let mut bytes = self.bytes.clone();
        let words = ((bytes.len() - HEADER) / WORD) as u32;
        bytes[4..HEADER].copy_from_slice(&words.to_le_bytes());
        Ok(bytes)
    }

    /// The message, to be read in this process.
    ///
    /// # Errors
    /// [`TooLarge`] if the limit was passed.
    pub fn into_message(self) -> Result<Message, TooLarge> {
        let (bytes, attached) = self.finish()?;
        Ok(Message::from_own(bytes.into(), attached))
    }

    fn list(&mut self, slot: Slot, element: Element, count: usize, bytes: usize) -> usize {
        let start = self.allocate(bytes);
        if count >= 1 << 29 {
            self.overflow = true;
        }
        let pointer = (Self::distance(slot, start) << 2) & 0xffff_ffff
            | 1
            | element.code() << 32
            | (count as u64) << 35;
        self.put(slot.0 as usize, &pointer.to_le_bytes());
        start
    }

    /// Words between the end of the pointer and the object, as 30 bits.
    fn distance(slot: Slot, start: usize) -> u64 {
        ((start as i64 - (i64::from(slot.0) + WORD as i64)) / WORD as i64) as u64
    }

    /// Zeroed space at the end; its offset in the segment. Past the limit nothing grows and the
    /// offset is the present end, where writes fall outside and are dropped.
    fn allocate(&mut self, bytes: usize) -> usize {
        let start = self.bytes.len();
        let size = bytes.div_ceil(WORD).saturating_mul(WORD);
        let end = start.saturating_add(size);
        if self.overflow || end > self.bytes_max {
            self.overflow = true;
        } else {
            self.bytes.resize(end, 0);
        }
        start - HEADER
    }

    fn put(&mut self, offset: usize, value: &[u8]) {
        let start = HEADER + offset;
        if let Some(place) = self.bytes.get_mut(start..start + value.len()) {
            place.copy_from_slice(value);
        }
    }
}
