//! Messages that come in parts: put together within bounds, and read straight into their place.
//!
//! Of each only its first part is believed on how long it will be, and memory follows what has
//! come. What is wrong with a part is wrong with the connection.

use std::time::{Duration, Instant};

use bytes::buf::Limit;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use partha_wire::{HEADER, frame_len};

use crate::error::{ErrorKind, SystemError};
use crate::wire::large::{HEAD_BYTES, Head, LANES, PART_BYTES};

/// Memory for a message at its first part; then it doubles as the message comes.
const FIRST_BYTES: usize = 8 * PART_BYTES;
/// How long a message may stand still: the sender takes turns, so that each goes on.
pub(super) const STALL: Duration = Duration::from_secs(30);

/// The messages of one connection that have begun to come.
#[derive(Debug)]
pub(super) struct Parts {
    lanes: [Option<Box<Partial>>; LANES],
    /// The part whose content is coming: its lane, and bytes to come.
    filling: Option<(usize, usize)>,
    /// Of all messages that have begun to come, when they are whole.
    bytes: usize,
    /// The largest message.
    message_bytes_max: usize,
    /// All of them together.
    bytes_max: usize,
}

#[derive(Debug)]
struct Partial {
    bytes: Vec<u8>,
    /// When it is whole.
    total: usize,
    /// When a part of it came last.
    heard: Instant,
}

/// What became of the front of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// A message is whole.
    Whole(Bytes),
    /// A part is: another frame may follow.
    Part,
    /// More has to come.
    More,
}

impl Came {
    /// Takes the message, if one is whole.
    pub(super) fn taken<E>(self, take: impl FnOnce(Bytes) -> Result<(), E>) -> Result<(), E> {
        match self {
            Self::Whole(framed) => take(framed),
            Self::Part | Self::More => Ok(()),
        }
    }
}

impl Parts {
    /// Messages of at most `message_bytes_max` bytes each, and `bytes_max` together.
    pub(super) fn new(message_bytes_max: usize, bytes_max: usize) -> Self {
        Self {
            lanes: Default::default(),
            filling: None,
            bytes: 0,
            message_bytes_max,
            bytes_max,
        }
    }

    /// Whether what comes next is the content of a part.
    pub(super) fn is_filling(&self) -> bool {
        self.filling.is_some()
    }

    /// Whether any message has begun to come.
    pub(super) fn is_under_way(&self) -> bool {
        self.bytes > 0
    }

    /// How much has come of these.
    pub(super) fn arrived(&self) -> usize {
        let partials = self.lanes.iter().flatten();
        partials.map(|partial| partial.bytes.len()).sum()
    }

    /// Takes from the buffer what belongs to a part that has begun, or begins there: then
    /// [`Head::is_at`] holds.
    ///
    /// # Errors
    /// `Malformed`, saying what is wrong with the part.
    pub(super) fn take(&mut self, buffer: &mut BytesMut) -> Result<Came, SystemError> {
        if self.filling.is_none() {
            // The first part of a message begins with the framing of the whole.
            if buffer.len() < HEAD_BYTES + HEADER {
                return Ok(Came::More);
            }
            self.begin(buffer)?;
        }
        let Some((lane, left)) = self.filling else {
            return Ok(Came::More);
        };
        let here = left.min(buffer.len());
        let mut place = self.place_of(lane, here);
        place.put_slice(&buffer[..here]);
        buffer.advance(here);
        Ok(self.came(here))
    }

    /// Where the content of the part that is coming goes, if one is.
    pub(super) fn place(&mut self) -> Option<Limit<&mut Vec<u8>>> {
        let (lane, left) = self.filling?;
        let partial = self.lanes[lane].as_ref()?;
        let room = partial.bytes.capacity() - partial.bytes.len();
        let wanted = if room == 0 { left } else { left.min(room) };
        Some(self.place_of(lane, wanted))
    }

    /// So many bytes were put there.
    pub(super) fn came(&mut self, bytes: usize) -> Came {
        let Some((lane, left)) = self.filling else {
            return Came::More;
        };
        let left = left.saturating_sub(bytes);
        if left > 0 {
            self.filling = Some((lane, left));
            return Came::More;
        }
        self.filling = None;
        let partial = self.lanes[lane].as_mut().expect("it has begun to come");
        partial.heard = Instant::now();
        if partial.bytes.len() < partial.total {
            return Came::Part;
        }
        self.bytes -= partial.total;
        let whole = self.lanes[lane].take().map(|partial| partial.bytes);
        Came::Whole(whole.unwrap_or_default().into())
    }

    /// By when the next part of the message that has stood still for longest has to be there.
    pub(super) fn due(&self) -> Option<Instant> {
        if !self.is_under_way() {
            return None;
        }
        let heard = self.lanes.iter().flatten().map(|partial| partial.heard);
        heard.min().map(|heard| heard + STALL)
    }

    /// It was this end that did not read.
    pub(super) fn excuse(&mut self) {
        let now = Instant::now();
        let lanes = self.lanes.iter_mut().flatten();
        lanes.for_each(|partial| partial.heard = now);
    }

    fn begin(&mut self, buffer: &mut BytesMut) -> Result<(), SystemError> {
        let (head, content) = buffer
            .split_first_chunk::<HEAD_BYTES>()
            .expect("the head is there");
        let Head { lane, bytes } = Head::decode(head)?;
        let (have, total) = match &self.lanes[lane] {
            Some(partial) => (partial.bytes.len(), partial.total),
            None => (0, self.announced(content)?),
        };
        let due = PART_BYTES.min(total - have);
        if bytes != due {
            return Err(malformed(format!(
                "a part of {bytes} bytes of a message of {total}, of which {have} are there; the \
                 next one has {due}"
            )));
        }
        if have == 0 {
            self.bytes += total;
            self.lanes[lane] = Some(Box::new(Partial {
                bytes: Vec::with_capacity(total.min(FIRST_BYTES)),
                total,
                heard: Instant::now(),
            }));
        }
        buffer.advance(HEAD_BYTES);
        self.filling = Some((lane, bytes));
        Ok(())
    }

    /// How long a message will be that begins so.
    fn announced(&self, content: &[u8]) -> Result<usize, SystemError> {
        let len = frame_len(content, self.message_bytes_max);
        let len = len.map_err(|error| malformed(error.to_string()))?;
        let total = len.ok_or_else(|| malformed("a part without content".to_owned()))?;
        if total <= PART_BYTES {
            let text = format!("a message of {total} bytes in parts; it fits into one frame");
            return Err(malformed(text));
        }
        // One may always come, however large it is allowed to be.
        if self.bytes > 0 && self.bytes + total > self.bytes_max {
            return Err(malformed(format!(
                "messages of {} bytes in parts at a time; at most {} may be under way",
                self.bytes + total,
                self.bytes_max
            )));
        }
        Ok(total)
    }

    /// Room for so much more of a message; memory grows with what has come.
    fn place_of(&mut self, lane: usize, bytes: usize) -> Limit<&mut Vec<u8>> {
        let partial = self.lanes[lane].as_mut().expect("it has begun to come");
        let (have, total) = (partial.bytes.len(), partial.total);
        if partial.bytes.capacity() - have < bytes {
            let wanted = total.min(2 * partial.bytes.capacity());
            partial.bytes.reserve_exact(wanted.max(have + bytes) - have);
        }
        (&mut partial.bytes).limit(bytes)
    }
}

fn malformed(detail: String) -> SystemError {
    SystemError::new(ErrorKind::Malformed, detail)
}
