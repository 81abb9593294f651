//! Frames out of a growing read buffer: many messages from one read.
//!
//! Invariants: memory follows the bytes that arrived (at most twice as much, at least one small
//! page), never the sizes a header claims; a frame over the limit is refused as soon as its header
//! is there. A message may outlive the buffer, and must not keep much more than itself: a small
//! one is copied, once, into words of its own; a large one takes the buffer if it is most of it.
//!
//! The buffer grows while reads fill it, since what a peer sends in one turn should come in one
//! read, and is given back when a message took it or when it is empty and very large.
//!
//! Does not read from a socket and knows nothing of rpc.capnp.
//! Source of the format: "Serialization Over a Stream" of the Cap'n Proto encoding specification.

use std::ops::Range;

use capnp::Word;
use capnp::message::{Reader, ReaderOptions, ReaderSegments};

use crate::CutReason;

/// More segments than any real builder makes; the same bound as capnp's own reader.
const SEGMENTS_MAX: u64 = 512;
/// First size of the buffer.
const BUFFER_BYTES_MIN: usize = 4 << 10;
/// A buffer larger than this is given back as soon as it is empty: as much is kept by an idle
/// connection. Some two hundred small calls.
const BUFFER_BYTES_KEPT: usize = 32 << 10;
/// A message of so many bytes takes the buffer with it.
const TAKING_BYTES_MIN: usize = 8 << 10;

/// One message that arrived whole.
pub(crate) type Message = Reader<Frame>;

/// Words of one message, cut into its segments.
pub(crate) struct Frame {
    body: Body,
    /// End of each segment but the last, in words.
    ends: Vec<usize>,
}

/// Where the words are.
enum Body {
    Copied(Vec<Word>),
    /// In the buffer they were read to; at an address that capnp can read words from.
    Taken {
        bytes: Vec<u8>,
        at: Range<usize>,
    },
}

impl Frame {
    /// Bytes of the message, without its segment table.
    pub(crate) fn size_bytes(&self) -> usize {
        self.bytes().len()
    }

    fn bytes(&self) -> &[u8] {
        match &self.body {
            Body::Copied(words) => Word::words_to_bytes(words),
            Body::Taken { bytes, at } => &bytes[at.clone()],
        }
    }

    /// The message with limits on how often its parts may be visited: an honest message is walked
    /// a few times; one whose pointers overlap must not become larger by that.
    fn into_message(self) -> Message {
        let mut options = ReaderOptions::new();
        options.traversal_limit_in_words(Some(self.size_bytes() + 4_096));
        Reader::new(self, options)
    }
}

impl ReaderSegments for Frame {
    fn get_segment(&self, index: u32) -> Option<&[u8]> {
        let index = index as usize;
        if index > self.ends.len() {
            return None;
        }
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        let bytes = self.bytes();
        let end = self.ends.get(index).map_or(bytes.len(), |end| end * 8);
        Some(&bytes[start * 8..end])
    }

    fn len(&self) -> usize {
        self.ends.len() + 1
    }
}

/// The read buffer of one connection.
#[derive(Default)]
pub(crate) struct Input {
    /// Initialised throughout; `start..end` is what arrived and was not yet parsed.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// The last read filled the buffer: there may be more.
    filled: bool,
}

impl Input {
    /// Bytes that arrived but are no whole message yet.
    pub(crate) fn partial_bytes(&self) -> usize {
        self.end - self.start
    }

    /// Where the next bytes may be read to; never empty.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        let mut grow = std::mem::take(&mut self.filled) && self.bytes.len() < BUFFER_BYTES_KEPT;
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
            if self.bytes.len() > BUFFER_BYTES_KEPT {
                self.bytes = Vec::new();
            }
        } else if self.end == self.bytes.len() && self.start >= self.bytes.len() / 2 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        grow |= self.end == self.bytes.len();
        if grow {
            let size = (self.bytes.len() * 2).max(BUFFER_BYTES_MIN);
            self.bytes.resize(size, 0);
        }
        &mut self.bytes[self.end..]
    }

    /// Says that `count` bytes were read to [`Input::space`].
    pub(crate) fn filled(&mut self, count: usize) {
        self.end += count;
        self.filled = self.end == self.bytes.len();
        debug_assert!(self.end <= self.bytes.len());
    }

    /// Takes the next whole message, if there is one.
    pub(crate) fn next(&mut self, bytes_max: usize) -> Result<Option<Message>, CutReason> {
        let arrived = &self.bytes[self.start..self.end];
        let Some(header) = Header::parse(arrived, bytes_max)? else {
            return Ok(None);
        };
        let size = header.bytes + header.words * 8;
        if arrived.len() < size {
            return Ok(None);
        }
        let body = self.start + header.bytes..self.start + size;
        let frame = Frame {
            body: match self.is_taken_by(&body) {
                true => self.take(body),
                false => self.copy(body),
            },
            ends: header.ends,
        };
        Ok(Some(frame.into_message()))
    }

    /// Whether a message is so much of the buffer that it may keep all of it.
    fn is_taken_by(&self, body: &Range<usize>) -> bool {
        body.len() >= TAKING_BYTES_MIN
            && body.len() >= self.bytes.len() / 2
            && self.bytes[body.start..].as_ptr().addr().is_multiple_of(8)
    }

    /// Gives the buffer away; what follows the message is copied instead of it.
    fn take(&mut self, at: Range<usize>) -> Body {
        let mut rest = self.bytes[at.end..self.end].to_vec();
        let end = rest.len();
        rest.resize(end.max(BUFFER_BYTES_MIN), 0);
        let bytes = std::mem::replace(&mut self.bytes, rest);
        (self.start, self.end) = (0, end);
        Body::Taken { bytes, at }
    }

    fn copy(&mut self, at: Range<usize>) -> Body {
        let mut words = Word::allocate_zeroed_vec(at.len() / 8);
        Word::words_to_bytes_mut(&mut words).copy_from_slice(&self.bytes[at.clone()]);
        self.start = at.end;
        Body::Copied(words)
    }
}

/// The segment table of a frame.
struct Header {
    /// Bytes of the table with its padding.
    bytes: usize,
    /// Words of all segments.
    words: usize,
    ends: Vec<usize>,
}

impl Header {
    /// Parses the table if it is there whole; refuses it if the message would be too large.
    fn parse(arrived: &[u8], bytes_max: usize) -> Result<Option<Self>, CutReason> {
        let Some(count) = u32_at(arrived, 0) else {
            return Ok(None);
        };
        let count = u64::from(count) + 1;
        if count > SEGMENTS_MAX {
            let detail = format!("{count} segments, at most {SEGMENTS_MAX} are allowed");
            return Err(CutReason::BadFrame { detail });
        }
        let count = count as usize;
        let mut words = 0_u64;
        let mut ends = Vec::new();
        for index in 0..count {
            let Some(size) = u32_at(arrived, 4 + 4 * index) else {
                return Ok(None);
            };
            words += u64::from(size);
            if words * 8 > bytes_max as u64 {
                return Err(CutReason::MessageTooLarge {
                    bytes: words * 8,
                    max: bytes_max,
                });
            }
            if index + 1 < count {
                ends.push(words as usize);
            }
        }
        if words == 0 {
            return Err(CutReason::BadFrame {
                detail: "a message without a word".to_owned(),
            });
        }
        let bytes = (4 + 4 * count).next_multiple_of(8);
        Ok(Some(Self {
            bytes,
            words: words as usize,
            ends,
        }))
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at + 4)?;
    Some(u32::from_le_bytes(
        four.try_into().expect("the slice has four bytes"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(input: &mut Input, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let space = input.space();
            let count = rest.len().min(space.len());
            space[..count].copy_from_slice(&rest[..count]);
            input.filled(count);
            rest = &rest[count..];
        }
    }

    fn message(segment_words: u32, text: &str) -> Vec<u8> {
        let allocator = capnp::message::HeapAllocator::new()
            .first_segment_words(segment_words)
            .allocation_strategy(capnp::message::AllocationStrategy::FixedSize);
        let mut builder = capnp::message::Builder::new(allocator);
        let mut root: capnp_rpc::rpc_capnp::exception::Builder<'_> = builder.init_root();
        root.set_reason(text);
        root.set_trace(text);
        capnp::serialize::write_message_to_words(&builder)
    }

    fn reason(message: &Message) -> String {
        let root: capnp_rpc::rpc_capnp::exception::Reader<'_> = message.get_root().unwrap();
        root.get_trace().unwrap().to_string().unwrap()
    }

    #[test]
    fn messages_come_out_whatever_the_pieces() {
        let texts = ["", "a", "sixteen byte text", &"x".repeat(10_000)];
        for piece in [1, 7, 8, 4_096, 100_000] {
            let mut input = Input::default();
            let mut found = Vec::new();
            let bytes: Vec<u8> = texts
                .iter()
                .enumerate()
                .flat_map(|(i, t)| message(i as u32 + 1, t))
                .collect();
            for part in bytes.chunks(piece) {
                feed(&mut input, part);
                while let Some(message) = input.next(1 << 20).unwrap() {
                    found.push(reason(&message));
                }
            }
            assert_eq!(found, texts, "in pieces of {piece} bytes");
            assert_eq!(input.partial_bytes(), 0);
        }
    }

    #[test]
    fn memory_follows_bytes_not_claims() {
        let mut input = Input::default();
        let mut header = 0_u32.to_le_bytes().to_vec();
        header.extend(131_072_u32.to_le_bytes());
        feed(&mut input, &header);
        assert!(input.next(1 << 20).unwrap().is_none());
        assert!(input.bytes.len() <= BUFFER_BYTES_MIN);
        assert!(input.next((1 << 20) - 1).is_err());
    }

    #[test]
    fn a_large_message_takes_the_buffer_and_little_more() {
        for segment_words in [1, 100_000] {
            let mut input = Input::default();
            let (large, small) = ("x".repeat(100_000), "next");
            feed(&mut input, &message(segment_words, &large));
            feed(&mut input, &message(1, small));
            let found = input.next(1 << 20).unwrap().unwrap();
            let Body::Taken { bytes, at } = &found.get_segments().body else {
                panic!("it was copied");
            };
            assert!(bytes.capacity() <= 2 * at.len() + BUFFER_BYTES_MIN);
            assert!(input.bytes.len() <= BUFFER_BYTES_KEPT);
            assert_eq!(reason(&found), large);
            let next = input.next(1 << 20).unwrap().unwrap();
            assert_eq!(reason(&next), small);
        }
    }

    #[test]
    fn a_small_message_keeps_nothing_but_itself() {
        let mut input = Input::default();
        let small = message(1, "small");
        feed(&mut input, &[small.as_slice(), &small].concat());
        let found = input.next(1 << 20).unwrap().unwrap();
        assert!(matches!(found.get_segments().body, Body::Copied(_)));
    }

    #[test]
    fn the_buffer_grows_while_reads_fill_it() {
        let mut input = Input::default();
        let mut sizes = Vec::new();
        for _ in 0..5 {
            let space = input.space().len();
            sizes.push(space);
            input.filled(space);
            input.start = input.end;
        }
        assert_eq!(sizes, [4 << 10, 8 << 10, 16 << 10, 32 << 10, 32 << 10]);
        input.space();
        input.filled(1);
        input.start = input.end;
        assert_eq!(input.space().len(), 32 << 10, "kept for what comes next");
    }

    #[test]
    fn a_very_large_buffer_is_given_back() {
        let mut input = Input::default();
        // Of many messages, none of which is most of it.
        let half = message(1, &"x".repeat(20_000));
        feed(&mut input, &half.repeat(10));
        while input.next(1 << 20).unwrap().is_some() {}
        input.space();
        assert!(input.bytes.len() <= BUFFER_BYTES_KEPT);
    }

    #[test]
    fn nonsense_is_refused() {
        let cut = |bytes: &[u8]| {
            let mut input = Input::default();
            feed(&mut input, bytes);
            input.next(1 << 20).err()
        };
        let four_thousand_million = [0xfe, 0xff, 0xff, 0xff, 0, 0, 0, 0];
        assert!(matches!(
            cut(&four_thousand_million),
            Some(CutReason::BadFrame { .. })
        ));
        assert!(matches!(
            cut(b"GET / HTTP/1.1\r\n"),
            Some(CutReason::BadFrame { .. })
        ));
        assert!(matches!(cut(&[0; 8]), Some(CutReason::BadFrame { .. })));
        let many = [1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert!(matches!(
            cut(&many),
            Some(CutReason::MessageTooLarge { .. })
        ));
    }
}
