//! Frames that wait to be written to a connection, gathered so that many leave in one write.
//!
//! Small frames lie one after the other in chunks; long byte strings stay where they are. A
//! message too large to be written at once leaves in parts, some in each write, so that small
//! frames never wait for all of it. How much may wait is the connection's to say; here nothing is
//! refused.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::ops::{AddAssign, SubAssign};
use std::pin::Pin;

use bytes::Bytes;
use partha_wire::{Attachment, Piece, TooLarge, Writer};
use tokio::io::AsyncWrite;

use crate::net::socket::Past;
use crate::wire::frame;
use crate::wire::large::{HEAD_BYTES, Head, LANES, PART_BYTES};

/// Frames are gathered up to this size; a larger one has a chunk of its own.
const CHUNK_BYTES: usize = 64 * 1024;
/// What an idle connection may keep for its next frames.
const IDLE_CHUNK_BYTES: usize = 16 * 1024;
/// A shorter byte string is copied into the chunk: a stretch of its own costs more in the kernel.
const STRETCH_BYTES_MIN: usize = 8 * 1024;
/// So many parts of large messages are added to a write.
const PARTS_A_WRITE: usize = 2;
/// A longer list of stretches is not kept.
const LIST_MAX: usize = 8;
/// Stretches handed to the kernel at once.
const STRETCHES_A_WRITE: usize = 64;

/// What is unsent, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Unsent {
    /// Of this end's own calls, and what goes with them.
    pub(super) asked: usize,
    /// Of such calls as are larger than a part.
    pub(super) asked_much: usize,
    /// Of answers to the peer.
    pub(super) answered: usize,
}

/// What a frame is, as what waits is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// A call of this end, or what goes with calls.
    Asks,
    /// A call of this end that is larger than a part. These are counted apart, so that they do not
    /// take the room of small ones.
    AsksMuch,
    /// An answer.
    Answers,
}

/// What waits to be written.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// To be written as it is.
    ready: Batch,
    /// An empty chunk, for the next frames.
    spare: Vec<u8>,
    /// An empty list of stretches, for the next ones.
    spare_list: Vec<Stretch>,
    /// Messages that leave in parts, in turn.
    large: VecDeque<Large>,
    /// Those whose turn has not come at all; the peer takes no more at a time.
    waiting: VecDeque<Large>,
    /// Bytes of `large`, as the peer counts them.
    large_bytes: usize,
    /// What the peer takes in parts.
    taken: PartsTaken,
    /// A batch is being written.
    under_way: bool,
    /// The way to the socket past the connection's task.
    pub(super) past: Past,
    /// Of all that is unsent, also of what is being written.
    pub(super) unsent: Unsent,
    /// No more frames; end when all are written.
    pub(super) finished: bool,
}

/// What the peer takes in parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum PartsTaken {
    /// It knows none: each message is one frame.
    #[default]
    None,
    /// Messages of so many bytes together at a time; a single one may always come.
    Bytes(usize),
}

/// What leaves in one write.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    stretches: Vec<Stretch>,
    bytes: Unsent,
    /// Capabilities of messages that end here: they are given back only behind these.
    attached: Vec<Attachment>,
}

/// Bytes that lie together.
#[derive(Debug)]
enum Stretch {
    /// Frames, or their parts.
    Chunk(Vec<u8>),
    /// A byte string of a caller or servant, or a piece of one.
    Shared(Bytes),
}

/// A message that leaves in parts.
#[derive(Debug)]
pub(super) struct Large {
    /// What is left of it.
    stretches: VecDeque<Bytes>,
    left: usize,
    total: usize,
    lane: usize,
    way: Way,
    number: u32,
    attached: Vec<Attachment>,
    /// A frame that must not overtake it.
    then: Vec<u8>,
}

impl Outbox {
    pub(super) fn new(taken: PartsTaken) -> Self {
        Self {
            taken,
            ..Self::default()
        }
    }

    /// Nothing waits to be written.
    pub(super) fn is_empty(&self) -> bool {
        self.ready.stretches.is_empty() && self.large.is_empty()
    }

    /// Parts of large messages wait.
    pub(super) fn has_parts(&self) -> bool {
        !self.large.is_empty()
    }

    /// Puts a frame behind the others, under this question number.
    pub(super) fn append(&mut self, framed: &[u8], number: u32, way: Way) {
        self.count(framed.len(), way);
        let chunk = self.chunk(framed.len());
        let start = chunk.len();
        chunk.extend_from_slice(framed);
        frame::set_question(&mut chunk[start..], number);
    }

    /// The same, for a message that leaves in parts; the peer has to know of these.
    pub(super) fn append_large(&mut self, large: Large) {
        debug_assert_ne!(self.taken, PartsTaken::None);
        self.unsent += Unsent::of(large.total, large.way);
        self.waiting.push_back(large);
        self.let_in();
    }

    /// The same, for a frame that has parts which lie elsewhere: these are not copied.
    pub(super) fn append_pieces(
        &mut self,
        w: &mut Writer,
        number: u32,
        way: Way,
    ) -> Result<(), TooLarge> {
        let len = w.len();
        let mut first = true;
        let pieces = w.pieces()?;
        self.count(len, way);
        for piece in pieces {
            match piece {
                Piece::Shared(bytes) if bytes.len() >= STRETCH_BYTES_MIN => {
                    self.ready.stretches.push(Stretch::Shared(bytes.clone()));
                }
                piece => {
                    let chunk = self.chunk(piece.len());
                    let start = chunk.len();
                    chunk.extend_from_slice(&piece);
                    if first {
                        frame::set_question(&mut chunk[start..], number);
                    }
                }
            }
            first = false;
        }
        Ok(())
    }

    /// Puts a frame behind the call with this number, should that still be leaving in parts; else
    /// false.
    pub(super) fn append_behind(&mut self, number: u32, framed: &[u8]) -> bool {
        let is_it = |large: &&mut Large| large.way != Way::Answers && large.number == number;
        let mut large = self.large.iter_mut().chain(&mut self.waiting);
        let Some(large) = large.find(is_it) else {
            return false;
        };
        large.then = framed.to_vec();
        self.unsent += Unsent::of(framed.len(), large.way);
        true
    }

    fn count(&mut self, bytes: usize, way: Way) {
        let bytes = Unsent::of(bytes, way);
        self.unsent += bytes;
        self.ready.bytes += bytes;
    }

    /// A chunk with room for so much more.
    fn chunk(&mut self, bytes: usize) -> &mut Vec<u8> {
        let fits = |stretch: &Stretch| match stretch {
            Stretch::Chunk(chunk) => chunk.len() + bytes <= CHUNK_BYTES,
            Stretch::Shared(_) => false,
        };
        if !self.ready.stretches.last().is_some_and(fits) {
            let fresh = std::mem::take(&mut self.spare);
            self.ready.stretches.push(Stretch::Chunk(fresh));
        }
        match self.ready.stretches.last_mut() {
            Some(Stretch::Chunk(chunk)) => chunk,
            Some(Stretch::Shared(_)) | None => unreachable!("there is a chunk now"),
        }
    }

    /// Lets large messages begin, as many as the peer takes at a time.
    fn let_in(&mut self) {
        let PartsTaken::Bytes(bytes_max) = self.taken else {
            return;
        };
        while let Some(next) = self.waiting.front()
            && self.large.len() < LANES
            && (self.large.is_empty() || self.large_bytes + next.total <= bytes_max)
        {
            let mut large = self.waiting.pop_front().expect("it was there just now");
            let is_free = |lane: &usize| self.large.iter().all(|other| other.lane != *lane);
            large.lane = (0..LANES)
                .find(is_free)
                .expect("fewer than lanes are there");
            self.large_bytes += large.total;
            self.large.push_back(large);
        }
    }

    /// What leaves next: all that is ready, and some parts of what is large, in turn.
    pub(super) fn next(&mut self) -> Batch {
        self.under_way = true;
        let mut batch = std::mem::take(&mut self.ready);
        self.ready.stretches = std::mem::take(&mut self.spare_list);
        for _ in 0..PARTS_A_WRITE {
            let Some(mut large) = self.large.pop_front() else {
                break;
            };
            let bytes = Unsent::of(HEAD_BYTES, large.way);
            self.unsent += bytes;
            batch.bytes += bytes;
            large.part(&mut batch);
            if large.left > 0 {
                self.large.push_back(large);
            } else {
                self.large_bytes -= large.total;
                self.let_in();
            }
        }
        batch
    }

    /// This is out.
    pub(super) fn written(&mut self, batch: &mut Batch) {
        self.under_way = false;
        self.unsent -= batch.bytes;
        let chunks = batch
            .stretches
            .drain(..)
            .filter_map(|stretch| match stretch {
                Stretch::Chunk(chunk) => Some(chunk),
                Stretch::Shared(_) => None,
            });
        // Heads of parts are of no use for frames.
        if let Some(chunk) = chunks.max_by_key(Vec::capacity) {
            self.keep(chunk);
        }
        let list = std::mem::take(&mut batch.stretches);
        if list.capacity() <= LIST_MAX {
            self.spare_list = list;
        }
    }

    /// Writes the only frame there is, past the connection's task; whether all of it is out. What
    /// is not stays for the task, which also finds out why.
    pub(super) fn leave_now(&mut self) -> bool {
        if self.under_way || !self.large.is_empty() {
            return false;
        }
        let [Stretch::Chunk(chunk)] = &mut self.ready.stretches[..] else {
            return false;
        };
        let Ok(written) = self.past.try_write(chunk) else {
            return false;
        };
        if written < chunk.len() {
            chunk.drain(..written);
            return false;
        }
        self.unsent -= std::mem::take(&mut self.ready.bytes);
        if let Some(Stretch::Chunk(chunk)) = self.ready.stretches.pop() {
            self.keep(chunk);
        }
        true
    }

    /// Keeps an emptied chunk, unless it has become large for what it carried.
    fn keep(&mut self, mut chunk: Vec<u8>) {
        if chunk.capacity() <= IDLE_CHUNK_BYTES || chunk.len() > IDLE_CHUNK_BYTES / 4 {
            chunk.clear();
            self.spare = chunk;
        }
    }

    /// Gives back what is kept for the next frames.
    pub(super) fn trim(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.spare)
    }
}

impl Large {
    /// What was written; what is shared in it is not copied.
    pub(super) fn new(w: &mut Writer, number: u32, way: Way) -> Result<Self, TooLarge> {
        let mut stretches = VecDeque::new();
        for piece in w.pieces()? {
            stretches.push_back(match piece {
                Piece::Own(own) if stretches.is_empty() => {
                    let mut own = own.to_vec();
                    frame::set_question(&mut own, number);
                    own.into()
                }
                Piece::Own(own) => Bytes::copy_from_slice(own),
                Piece::Shared(bytes) => bytes.clone(),
            });
        }
        let attached = w.attached().to_vec();
        Ok(Self {
            attached,
            ..Self::of(stretches, number, way)
        })
    }

    /// A frame, which is not copied.
    pub(super) fn of_frame(mut framed: Vec<u8>, number: u32, way: Way) -> Self {
        frame::set_question(&mut framed, number);
        Self::of(VecDeque::from([framed.into()]), number, way)
    }

    fn of(stretches: VecDeque<Bytes>, number: u32, way: Way) -> Self {
        let total = stretches.iter().map(Bytes::len).sum();
        Self {
            stretches,
            left: total,
            total,
            lane: 0,
            way,
            number,
            attached: Vec::new(),
            then: Vec::new(),
        }
    }

    /// Adds its next part.
    fn part(&mut self, batch: &mut Batch) {
        let bytes = self.left.min(PART_BYTES);
        let head = Head {
            lane: self.lane,
            bytes,
        };
        let mut chunk = head.encode().to_vec();
        let mut missing = bytes;
        while missing > 0
            && let Some(first) = self.stretches.front_mut()
        {
            let piece = first.split_to(missing.min(first.len()));
            missing -= piece.len();
            if first.is_empty() {
                self.stretches.pop_front();
            }
            if piece.len() < STRETCH_BYTES_MIN {
                chunk.extend_from_slice(&piece);
            } else {
                batch
                    .stretches
                    .push(Stretch::Chunk(std::mem::take(&mut chunk)));
                batch.stretches.push(Stretch::Shared(piece));
            }
        }
        if !chunk.is_empty() {
            batch.stretches.push(Stretch::Chunk(chunk));
        }
        self.left -= bytes;
        batch.bytes += Unsent::of(bytes, self.way);
        if self.left == 0 {
            batch.attached.append(&mut self.attached);
            batch.bytes += Unsent::of(self.then.len(), self.way);
            batch
                .stretches
                .push(Stretch::Chunk(std::mem::take(&mut self.then)));
        }
        batch.stretches.retain(|stretch| !stretch.is_empty());
    }
}

impl Batch {
    /// Its last bytes that lie together.
    #[cfg(test)]
    pub(crate) fn last(&self) -> Option<&[u8]> {
        self.stretches.last().map(|stretch| &stretch[..])
    }

    /// How many bytes.
    pub(super) fn len(&self) -> usize {
        self.bytes.asked + self.bytes.asked_much + self.bytes.answered
    }

    /// Writes all of it; `taken` is called whenever the writer has taken some.
    pub(super) async fn write_to<W: AsyncWrite + Unpin>(
        &self,
        writer: &mut W,
        mut taken: impl FnMut(),
    ) -> io::Result<()> {
        // What is written of `stretches[at]`.
        let (mut at, mut done) = (0, 0);
        while at < self.stretches.len() {
            let rest = &self.stretches[at..];
            let mut count = std::future::poll_fn(|cx| {
                let writer = Pin::new(&mut *writer);
                if let [only] = rest {
                    return writer.poll_write(cx, &only[done..]);
                }
                let mut slices = [IoSlice::new(&[]); STRETCHES_A_WRITE];
                let places = slices.iter_mut().zip(rest).enumerate();
                for (index, (slice, stretch)) in places {
                    let from = if index == 0 { done } else { 0 };
                    *slice = IoSlice::new(&stretch[from..]);
                }
                let used = rest.len().min(STRETCHES_A_WRITE);
                writer.poll_write_vectored(cx, &slices[..used])
            })
            .await?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            taken();
            while let Some(stretch) = self.stretches.get(at)
                && count >= stretch.len() - done
            {
                count -= stretch.len() - done;
                (at, done) = (at + 1, 0);
            }
            done += count;
        }
        Ok(())
    }
}

impl std::ops::Deref for Stretch {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Chunk(chunk) => chunk,
            Self::Shared(bytes) => bytes,
        }
    }
}

impl Unsent {
    fn of(bytes: usize, way: Way) -> Self {
        let mut unsent = Self::default();
        *unsent.of_way(way) = bytes;
        unsent
    }

    pub(super) fn of_way(&mut self, way: Way) -> &mut usize {
        match way {
            Way::Asks => &mut self.asked,
            Way::AsksMuch => &mut self.asked_much,
            Way::Answers => &mut self.answered,
        }
    }
}

impl AddAssign for Unsent {
    fn add_assign(&mut self, other: Self) {
        self.asked += other.asked;
        self.asked_much += other.asked_much;
        self.answered += other.answered;
    }
}

impl SubAssign for Unsent {
    fn sub_assign(&mut self, other: Self) {
        self.asked = self.asked.saturating_sub(other.asked);
        self.asked_much = self.asked_much.saturating_sub(other.asked_much);
        self.answered = self.answered.saturating_sub(other.answered);
    }
}
