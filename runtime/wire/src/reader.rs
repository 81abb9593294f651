//! Reading a message: every pointer is checked when it is followed.

use bytes::Bytes;

use crate::message::{Attachment, Message};
use crate::{DecodeError, Element, Problem, Slot, WORD};

/// What all readers of one pass share.
#[derive(Clone, Copy)]
pub(crate) struct Arena<'a> {
    bytes: &'a [u8],
    message: &'a Message,
}

/// A struct in a message.
#[derive(Clone, Copy)]
pub struct StructReader<'a> {
    arena: Arena<'a>,
    data: u32,
    data_bytes: u32,
    pointers: u16,
    depth: u8,
}

/// A pointer in a message, perhaps null.
#[derive(Clone, Copy)]
pub struct PointerReader<'a> {
    arena: Arena<'a>,
    /// Offset of the word; none for a pointer that the struct is too old to have.
    at: Option<u32>,
    depth: u8,
}

/// A list in a message.
#[derive(Clone, Copy)]
pub struct ListReader<'a> {
    arena: Arena<'a>,
    start: u32,
    len: u32,
    step_bytes: u32,
    data_bytes: u32,
    pointers: u16,
    depth: u8,
}

macro_rules! scalars {
    ($($name:ident $at:ident $list:ident $type:ty, $element:expr;)*) => {
        impl<'a> StructReader<'a> {$(
            /// A member of the data section, counted in units of its own size; zero where the
            /// sender's struct is shorter.
            #[must_use]
            #[inline]
            pub fn $name(self, index: u32) -> $type {
                const SIZE: u32 = size_of::<$type>() as u32;
                if (index + 1) * SIZE > self.data_bytes {
                    return <$type>::default();
                }
                self.arena.scalar(self.data + index * SIZE).map_or_else(
                    <$type>::default,
                    <$type>::from_le_bytes,
                )
            }
        )*}

        impl<'a> ListReader<'a> {$(
            /// The element at `index`; zero past the end.
            #[must_use]
            pub fn $at(self, index: u32) -> $type {
                if index >= self.len {
                    return <$type>::default();
                }
                self.arena.scalar(self.start + index * self.step_bytes).map_or_else(
                    <$type>::default,
                    <$type>::from_le_bytes,
                )
            }
        )*}

        impl<'a> PointerReader<'a> {$(
            /// A list of scalars, copied out; empty if null.
            ///
            /// # Errors
            /// [`DecodeError`] if the pointer is no such list inside the segment.
            pub fn $list(self) -> Result<Vec<$type>, DecodeError> {
                let list = self.list($element)?;
                Ok((0..list.len()).map(|index| list.$at(index)).collect())
            }
        )*}
    };
}

scalars! {
    u8 u8_at u8s u8, Element::Byte;
    u16 u16_at u16s u16, Element::Two;
    u32 u32_at u32s u32, Element::Four;
    u64 u64_at u64s u64, Element::Eight;
    i8 i8_at i8s i8, Element::Byte;
    i16 i16_at i16s i16, Element::Two;
    i32 i32_at i32s i32, Element::Four;
    i64 i64_at i64s i64, Element::Eight;
    f32 f32_at f32s f32, Element::Four;
    f64 f64_at f64s f64, Element::Eight;
}

impl<'a> StructReader<'a> {
    /// One bit of the data section; false where the sender's struct is shorter.
    #[must_use]
    #[inline]
    pub fn bool(self, bit: u32) -> bool {
        bit / 8 < self.data_bytes && self.arena.bit(self.data, bit)
    }

    /// The `index`-th pointer; null where the sender's struct is shorter.
    #[must_use]
    #[inline]
    pub fn pointer(self, index: u16) -> PointerReader<'a> {
        let at = (index < self.pointers)
            .then(|| self.data + self.data_bytes + u32::from(index) * WORD as u32);
        PointerReader {
            arena: self.arena,
            at,
            depth: self.depth,
        }
    }
}

impl<'a> PointerReader<'a> {
    #[inline]
    pub(crate) fn new(arena: Arena<'a>, at: u32, depth: u8) -> Self {
        Self {
            arena,
            at: Some(at),
            depth,
        }
    }

    /// True if there is nothing behind it.
    #[must_use]
    #[inline]
    pub fn is_null(self) -> bool {
        self.word() == 0
    }

    /// Its place, to enter the message here again; none if the struct is too old to have it.
    #[must_use]
    #[inline]
    pub fn slot(self) -> Option<Slot> {
        self.at.map(Slot::at_offset)
    }

    /// The struct behind it; an empty one if null.
    ///
    /// # Errors
    /// [`DecodeError`] if it is no struct inside the segment.
    pub fn structure(self) -> Result<StructReader<'a>, DecodeError> {
        let word = self.word();
        if word == 0 {
            let (data, data_bytes, pointers, depth) = (0, 0, 0, self.depth);
            return Ok(StructReader {
                arena: self.arena,
                data,
                data_bytes,
                pointers,
                depth,
            });
        }
        if word & 3 != 0 {
            return Err(wrong_kind("a struct", word));
        }
        let depth = self.deeper()?;
        let data_bytes = ((word >> 32) & 0xffff) as u32 * WORD as u32;
        let pointers = (word >> 48) as u16;
        let size = u64::from(data_bytes) + u64::from(pointers) * WORD as u64;
        let data = self.target(word, size)?;
        self.arena.charge(size / WORD as u64)?;
        Ok(StructReader {
            arena: self.arena,
            data,
            data_bytes,
            pointers,
            depth,
        })
    }

    /// The list of structs behind it; an empty one if null.
    ///
    /// # Errors
    /// [`DecodeError`] if it is no list of structs inside the segment.
    pub fn structures(self) -> Result<ListReader<'a>, DecodeError> {
        self.list(Element::Struct)
    }

    /// The list of pointers behind it; an empty one if null.
    ///
    /// # Errors
    /// [`DecodeError`] if it is no list of pointers inside the segment.
    pub fn pointers(self) -> Result<ListReader<'a>, DecodeError> {
        self.list(Element::Pointer)
    }

    /// A list of truth values, copied out; empty if null.
    ///
    /// # Errors
    /// [`DecodeError`] if it is no such list inside the segment.
    pub fn bools(self) -> Result<Vec<bool>, DecodeError> {
        let list = self.list(Element::Bit)?;
        Ok((0..list.len())
            .map(|index| list.arena.bit(list.start, index))
            .collect())
    }

    /// The text behind it; empty if null.
    ///
    /// # Errors
    /// [`DecodeError`] if it is no text inside the segment.
    pub fn text(self) -> Result<&'a str, DecodeError> {
        if self.is_null() {
            return Ok("");
        }
        let bad = || DecodeError::new(Problem::BadText);
        let (last, text) = self.data()?.split_last().ok_or_else(bad)?;
        if *last != 0 {
            return Err(bad());
        }
        core::str::from_utf8(text).map_err(|_| bad())
    }

    /// The bytes behind it; none if null.
    ///
    /// # Errors
    /// [`DecodeError`] if it is no byte string inside the segment.
    pub fn data(self) -> Result<&'a [u8], DecodeError> {
        let list = self.list(Element::Byte)?;
        Ok(&self.arena.bytes[list.start as usize..(list.start + list.len) as usize])
    }

    /// The bytes behind it; none if null. Long ones are not copied: they are a part of the
    /// message's buffer and keep it in memory.
    ///
    /// # Errors
    /// [`DecodeError`] if it is no byte string inside the segment.
    pub fn bytes(self) -> Result<Bytes, DecodeError> {
        let data = self.data()?;
        Ok(self.arena.message.share(data))
    }

    /// What the capability behind it stands for; none if null.
    ///
    /// # Errors
    /// [`DecodeError`] if it is no capability, or one that the message does not carry.
    pub fn capability(self) -> Result<Option<&'a Attachment>, DecodeError> {
        let word = self.word();
        if word == 0 {
            return Ok(None);
        }
        if word & 0xffff_ffff != 3 {
            return Err(wrong_kind("a capability", word));
        }
        let index = (word >> 32) as u32;
        let found = self.arena.message.attached.get(index as usize);
        found
            .map(Some)
            .ok_or_else(|| DecodeError::new(Problem::NoSuchCapability { index }))
    }

    pub(crate) fn list(self, element: Element) -> Result<ListReader<'a>, DecodeError> {
        let word = self.word();
        if word == 0 {
            let arena = self.arena;
            let (start, len, step_bytes, data_bytes, pointers) = (0, 0, 0, 0, 0);
            let depth = self.depth;
            return Ok(ListReader {
                arena,
                start,
                len,
                step_bytes,
                data_bytes,
                pointers,
                depth,
            });
        }
        if word & 3 != 1 {
            return Err(wrong_kind("a list", word));
        }
        let found = Element::ALL[((word >> 32) & 7) as usize];
        if found != element {
            return Err(wrong_kind(list_name(element), word));
        }
        let depth = self.deeper()?;
        if found == Element::Struct {
            return self.composite(word, depth);
        }
        let len = (word >> 35) as u32;
        let bytes = (u64::from(len) * element.bits()).div_ceil(8);
        let start = self.target(word, bytes)?;
        self.arena.charge(bytes.div_ceil(WORD as u64) + 1)?;
        let step_bytes = (element.bits() / 8) as u32;
        let (data_bytes, pointers) = (0, 0);
        Ok(ListReader {
            arena: self.arena,
            start,
            len,
            step_bytes,
            data_bytes,
            pointers,
            depth,
        })
    }

    fn composite(self, word: u64, depth: u8) -> Result<ListReader<'a>, DecodeError> {
        let bytes = (word >> 35) * WORD as u64;
        let tag_at = self.target(word, bytes + WORD as u64)?;
        let tag = self.arena.word(tag_at);
        if tag & 3 != 0 {
            return Err(wrong_kind("a struct tag", tag));
        }
        let len = ((tag & 0xffff_ffff) >> 2) as u32;
        let data_bytes = ((tag >> 32) & 0xffff) as u32 * WORD as u32;
        let pointers = (tag >> 48) as u16;
        let step_bytes = data_bytes + u32::from(pointers) * WORD as u32;
        if u64::from(len) * u64::from(step_bytes) > bytes {
            return Err(DecodeError::new(Problem::OutOfBounds));
        }
        self.arena
            .charge(bytes / WORD as u64 + 1 + if step_bytes == 0 { len.into() } else { 0 })?;
        let start = tag_at + WORD as u32;
        Ok(ListReader {
            arena: self.arena,
            start,
            len,
            step_bytes,
            data_bytes,
            pointers,
            depth,
        })
    }

    #[inline]
    fn word(self) -> u64 {
        self.at.map_or(0, |at| self.arena.word(at))
    }

    #[inline]
    fn deeper(self) -> Result<u8, DecodeError> {
        self.depth
            .checked_sub(1)
            .ok_or_else(|| DecodeError::new(Problem::TooDeep))
    }

    /// Where a struct or list pointer leads, if all `bytes` of it are in the segment.
    #[inline]
    fn target(self, word: u64, bytes: u64) -> Result<u32, DecodeError> {
        let out = || DecodeError::new(Problem::OutOfBounds);
        let at = i64::from(self.at.ok_or_else(out)?);
        let distance = i64::from(word as u32 as i32 >> 2);
        let start = at + WORD as i64 + distance * WORD as i64;
        let end = start + bytes as i64;
        if start < 0 || end > self.arena.bytes.len() as i64 {
            return Err(out());
        }
        Ok(start as u32)
    }
}

impl<'a> ListReader<'a> {
    /// How many elements.
    #[must_use]
    pub fn len(self) -> u32 {
        self.len
    }

    /// True if there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// The struct at `index` of a list of structs; an empty one past the end.
    #[must_use]
    #[inline]
    pub fn structure(self, index: u32) -> StructReader<'a> {
        let Self {
            arena,
            data_bytes,
            pointers,
            depth,
            ..
        } = self;
        if index >= self.len {
            return StructReader {
                arena,
                data: 0,
                data_bytes: 0,
                pointers: 0,
                depth,
            };
        }
        let data = self.start + index * self.step_bytes;
        StructReader {
            arena,
            data,
            data_bytes,
            pointers,
            depth,
        }
    }

    /// The pointer at `index` of a list of pointers; null past the end.
    #[must_use]
    #[inline]
    pub fn pointer(self, index: u32) -> PointerReader<'a> {
        let at = (index < self.len).then(|| self.start + index * WORD as u32);
        PointerReader {
            arena: self.arena,
            at,
            depth: self.depth,
        }
    }

    /// The structs of a list of structs.
    pub fn iter_structures(self) -> impl ExactSizeIterator<Item = StructReader<'a>> {
        (0..self.len).map(move |index| self.structure(index))
    }

    /// The pointers of a list of pointers.
    pub fn iter_pointers(self) -> impl ExactSizeIterator<Item = PointerReader<'a>> {
        (0..self.len).map(move |index| self.pointer(index))
    }
}

impl<'a> Arena<'a> {
    #[inline]
    pub(crate) fn new(bytes: &'a [u8], message: &'a Message) -> Self {
        Self { bytes, message }
    }

    #[inline]
    fn charge(self, words: u64) -> Result<(), DecodeError> {
        let budget = &self.message.budget;
        let left = budget.get().checked_sub(words);
        budget.set(left.ok_or_else(|| DecodeError::new(Problem::Amplified))?);
        Ok(())
    }

    #[inline]
    fn word(self, offset: u32) -> u64 {
        self.scalar(offset).map_or(0, u64::from_le_bytes)
    }

    #[inline]
    fn bit(self, start: u32, bit: u32) -> bool {
        let byte = self.bytes.get((start + bit / 8) as usize);
        byte.is_some_and(|byte| byte >> (bit % 8) & 1 == 1)
    }

    #[inline]
    fn scalar<const N: usize>(self, offset: u32) -> Option<[u8; N]> {
        self.bytes.get(offset as usize..)?.first_chunk().copied()
    }
}

#[cold]
fn wrong_kind(expected: &'static str, word: u64) -> DecodeError {
    let found = match word & 3 {
        0 => "a struct",
        1 => list_name(Element::ALL[((word >> 32) & 7) as usize]),
        2 => "a far pointer (messages have one segment here)",
        _ => "a capability",
    };
    DecodeError::new(Problem::WrongKind { expected, found })
}

fn list_name(element: Element) -> &'static str {
    match element {
        Element::Void => "a list of nothing",
        Element::Bit => "a list of bits",
        Element::Byte => "a list of bytes",
        Element::Two => "a list of 2-byte values",
        Element::Four => "a list of 4-byte values",
        Element::Eight => "a list of 8-byte values",
        Element::Pointer => "a list of pointers",
        Element::Struct => "a list of structs",
    }
}
