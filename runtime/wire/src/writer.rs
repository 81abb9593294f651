//! Laying out a message: everything goes to the end of one segment.

use bytes::Bytes;

use crate::message::{Attachment, Message, frame_len};
use crate::{DecodeError, Element, HEADER, SHARED_BYTES_MIN, WORD};

/// A list has fewer elements: their number has 29 bits in its pointer.
const ELEMENTS_END: usize = 1 << 29;
/// No message is larger: places in it are counted in bytes, with 32 bits.
const BYTES_LIMIT: usize = (1 << 29) * WORD;

/// A message under construction.
///
/// Positions are handles without lifetimes; one made by another writer writes nonsense into this
/// one's segment, but never outside it.
#[derive(Clone, Debug)]
pub struct Writer {
    /// The framing header, then the segment without what is shared.
    bytes: Vec<u8>,
    /// Byte strings of the segment that lie elsewhere, in their order.
    shared: Vec<Shared>,
    /// Bytes of these together.
    shared_bytes: usize,
    attached: Vec<Attachment>,
    bytes_max: usize,
    overflow: Option<TooLarge>,
}

/// A byte string that is sent from where it lies.
#[derive(Clone, Debug)]
struct Shared {
    /// It comes behind so many of the writer's own bytes.
    own_before: usize,
    /// And behind so many shared ones.
    shared_before: usize,
    bytes: Bytes,
}

/// A stretch of a message.
#[derive(Clone, Copy, Debug)]
pub enum Piece<'a> {
    /// Bytes of the writer.
    Own(&'a [u8]),
    /// A byte string as it was given to [`Writer::bytes`].
    Shared(&'a Bytes),
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
#[non_exhaustive]
pub enum TooLarge {
    /// As a whole.
    Message {
        /// The limit, in bytes.
        bytes_max: usize,
    },
    /// A list or byte string in it: Cap'n Proto counts elements in 29 bits.
    List,
}

impl core::fmt::Display for TooLarge {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Message { bytes_max } => {
                write!(f, "the message would exceed {bytes_max} bytes")
            }
            Self::List => {
                let most = ELEMENTS_END - 1;
                write!(
                    f,
                    "a list or byte string has at most {most} elements, in any message"
                )
            }
        }
    }
}

impl core::error::Error for TooLarge {}

impl Slot {
    /// Where the root pointer of every message is.
    pub const ROOT: Self = Self(0);

    /// The byte offset in the segment.
    #[must_use]
    #[inline]
    pub fn offset(self) -> u32 {
        self.0
    }

    /// The place at this byte offset of the segment: for those who know a layout beforehand.
    #[must_use]
    #[inline]
    pub const fn at_offset(offset: u32) -> Self {
        Self(offset)
    }
}

impl StructAt {
    /// The place of the struct's `index`-th pointer.
    #[must_use]
    #[inline]
    pub fn slot(self, index: u16) -> Slot {
        Slot(self.pointers + u32::from(index) * WORD as u32)
    }

    /// The byte offset of the data section in the segment.
    #[must_use]
    #[inline]
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
    #[inline]
    pub fn slot(self, index: usize) -> Slot {
        Slot(self.start + (index * WORD) as u32)
    }
}

macro_rules! setters {
    ($($name:ident $list:ident $type:ty, $element:expr;)*) => {$(
        /// Sets a member of the data section; `index` counts in units of the member's own size.
        #[inline]
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
    #[inline]
    pub fn reusing(mut bytes: Vec<u8>, bytes_max: usize) -> Self {
        bytes.clear();
        bytes.resize(HEADER + WORD, 0);
        Self::of(bytes, bytes_max)
    }

    /// Like [`Writer::reusing`], with what another writer has laid out: its framed bytes, of
    /// which the header's length need not be right. For what begins many messages.
    #[must_use]
    #[inline]
    pub fn beginning_with(mut bytes: Vec<u8>, begun: &[u8], bytes_max: usize) -> Self {
        debug_assert!(begun.len() >= HEADER + WORD && begun.len().is_multiple_of(WORD));
        bytes.clear();
        bytes.extend_from_slice(begun);
        Self::of(bytes, bytes_max)
    }

    /// Goes on with a message that was written before, from its framed bytes; it has no
    /// capabilities.
    ///
    /// # Errors
    /// [`DecodeError`] if the framing is not that of exactly these bytes.
    pub fn resuming(framed: Vec<u8>, bytes_max: usize) -> Result<Self, DecodeError> {
        match frame_len(&framed, framed.len()) {
            Ok(Some(len)) if len == framed.len() => Ok(Self::of(framed, bytes_max)),
            _ => Err(DecodeError::invalid("one framed message of one segment")),
        }
    }

    /// What was written so far; nothing can be written here any more.
    #[must_use]
    #[inline]
    pub fn take(&mut self) -> Self {
        let used_up = Self::of(Vec::new(), self.bytes_max);
        std::mem::replace(self, used_up)
    }

    /// Goes on with a message of this process, as [`Writer::into_message`] has made it: the slots
    /// and structs of the writer that laid it out are good for this one.
    #[must_use]
    pub fn of_message(message: Message, bytes_max: usize) -> Self {
        let segment = message.segment();
        let mut bytes = Vec::with_capacity(HEADER + segment.len());
        bytes.resize(HEADER, 0);
        bytes.extend_from_slice(segment);
        let mut w = Self::of(bytes, bytes_max);
        w.attached = message.attached;
        w
    }

    /// Goes on behind these framed bytes.
    #[inline]
    fn of(bytes: Vec<u8>, bytes_max: usize) -> Self {
        Self {
            bytes,
            shared: Vec::new(),
            shared_bytes: 0,
            attached: Vec::new(),
            bytes_max: bytes_max.min(BYTES_LIMIT),
            overflow: None,
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

    /// Writes a byte string without copying it, unless it is short: the message refers to it.
    pub fn bytes(&mut self, slot: Slot, data: &Bytes) {
        let count = data.len();
        if count < SHARED_BYTES_MIN {
            return self.data(slot, data);
        }
        let start = self.len();
        let padding = count.next_multiple_of(WORD) - count;
        if !self.has_room(count + padding) || !self.is_countable(count) {
            return;
        }
        self.shared.push(Shared {
            own_before: self.bytes.len(),
            shared_before: self.shared_bytes,
            bytes: data.clone(),
        });
        self.shared_bytes += count;
        self.bytes.resize(self.bytes.len() + padding, 0);
        self.point(slot, start - HEADER, Element::Byte, count);
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
    #[inline]
    pub fn set_bool(&mut self, at: StructAt, bit: u32, value: bool) {
        let position = self.own_position(HEADER + at.data as usize + (bit / 8) as usize);
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
    #[inline]
    pub fn attached(&self) -> &[Attachment] {
        &self.attached
    }

    /// Bytes so far, framing included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() + self.shared_bytes
    }

    /// True while only the root pointer is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == HEADER + WORD
    }

    /// How large the message may become, framing included.
    #[must_use]
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Allows it to grow to `bytes_max` bytes instead, framing included.
    pub fn set_bytes_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max.min(BYTES_LIMIT);
    }

    /// Whether parts of it lie elsewhere: see [`Writer::bytes`].
    #[must_use]
    pub fn is_sharing(&self) -> bool {
        !self.shared.is_empty()
    }

    /// The framed bytes, ready for a stream, and the capabilities.
    ///
    /// # Errors
    /// [`TooLarge`] if the limit was passed.
    pub fn finish(mut self) -> Result<(Vec<u8>, Vec<Attachment>), TooLarge> {
        self.framed()?;
        Ok((self.bytes, self.attached))
    }

    /// The framed bytes so far, ready for a stream. What was shared is copied.
    ///
    /// # Errors
    /// [`TooLarge`] if the limit was passed.
    #[inline]
    pub fn framed(&mut self) -> Result<&[u8], TooLarge> {
        self.frame()?;
        if self.is_sharing() {
            self.bytes = self.joined();
            self.shared.clear();
            self.shared_bytes = 0;
        }
        Ok(&self.bytes)
    }

    /// The framed bytes so far in pieces, ready for a stream, with nothing copied. The first is
    /// the writer's own and has the root struct in it, if that was laid out first.
    ///
    /// # Errors
    /// [`TooLarge`] if the limit was passed.
    pub fn pieces(&mut self) -> Result<impl Iterator<Item = Piece<'_>>, TooLarge> {
        self.frame()?;
        Ok(self.each_piece())
    }

    fn each_piece(&self) -> impl Iterator<Item = Piece<'_>> {
        let (mut from, last) = (0, self.shared.last().map_or(0, |last| last.own_before));
        let each = self.shared.iter().flat_map(move |shared| {
            let own = &self.bytes[from..shared.own_before];
            from = shared.own_before;
            [Piece::Own(own), Piece::Shared(&shared.bytes)]
        });
        let each = each.chain([Piece::Own(&self.bytes[last..])]);
        each.filter(|piece| !piece.is_empty())
    }

    /// Writes the number of words into the framing.
    fn frame(&mut self) -> Result<(), TooLarge> {
        if let Some(error) = self.overflow {
            return Err(error);
        }
        let words = ((self.len() - HEADER) / WORD) as u32;
        self.bytes[4..HEADER].copy_from_slice(&words.to_le_bytes());
        Ok(())
    }

    /// All of it in one buffer.
    fn joined(&self) -> Vec<u8> {
        let mut joined = Vec::with_capacity(self.len());
        self.each_piece()
            .for_each(|piece| joined.extend_from_slice(&piece));
        joined
    }

    /// The buffer, for another writer: see [`Writer::reusing`].
    #[must_use]
    #[inline]
    pub fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }

    /// A copy of the framed bytes so far.
    ///
    /// # Errors
    /// [`TooLarge`] if the limit was passed.
    pub fn to_framed(&self) -> Result<Vec<u8>, TooLarge> {
        if let Some(error) = self.overflow {
            return Err(error);
        }
        let mut bytes = self.joined();
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
        let _ = self.is_countable(count);
        self.point(slot, start, element, count);
        start
    }

    /// Points `slot` at a list.
    fn point(&mut self, slot: Slot, start: usize, element: Element, count: usize) {
        let pointer = (Self::distance(slot, start) << 2) & 0xffff_ffff
            | 1
            | element.code() << 32
            | (count as u64) << 35;
        self.put(slot.0 as usize, &pointer.to_le_bytes());
    }

    /// Notes that a list has too many elements, if it has.
    fn is_countable(&mut self, count: usize) -> bool {
        if count >= ELEMENTS_END {
            self.overflow = self.overflow.or(Some(TooLarge::List));
        }
        count < ELEMENTS_END
    }

    /// Words between the end of the pointer and the object, as 30 bits.
    #[inline]
    fn distance(slot: Slot, start: usize) -> u64 {
        ((start as i64 - (i64::from(slot.0) + WORD as i64)) / WORD as i64) as u64
    }

    /// Zeroed space at the end; its offset in the segment. Past the limit nothing grows and the
    /// offset is the present end, where writes fall outside and are dropped.
    #[inline]
    fn allocate(&mut self, bytes: usize) -> usize {
        let start = self.len();
        let size = bytes.div_ceil(WORD).saturating_mul(WORD);
        if self.has_room(size) {
            self.bytes.resize(self.bytes.len() + size, 0);
        }
        start - HEADER
    }

    /// Whether the message may grow by so much; notes that it would be too large if not.
    #[inline]
    fn has_room(&mut self, bytes: usize) -> bool {
        if self.overflow.is_none() && self.len().saturating_add(bytes) > self.bytes_max {
            let bytes_max = self.bytes_max;
            self.overflow = Some(TooLarge::Message { bytes_max });
        }
        self.overflow.is_none()
    }

    #[inline]
    fn put(&mut self, offset: usize, value: &[u8]) {
        let start = self.own_position(HEADER + offset);
        if let Some(place) = self.bytes.get_mut(start..start + value.len()) {
            place.copy_from_slice(value);
        }
    }

    /// Where in `bytes` a position of the framed message is.
    #[inline]
    fn own_position(&self, position: usize) -> usize {
        if self.shared.is_empty() {
            return position;
        }
        let begins = |shared: &Shared| shared.own_before + shared.shared_before;
        let before = self
            .shared
            .partition_point(|shared| begins(shared) <= position);
        match before.checked_sub(1).map(|last| &self.shared[last]) {
            Some(last) => position.saturating_sub(last.shared_before + last.bytes.len()),
            None => position,
        }
    }
}

impl core::ops::Deref for Piece<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}
