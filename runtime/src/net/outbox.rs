//! Frames that wait to be written to a connection, gathered so that many leave in one write.
//!
//! How much may wait is the connection's to say; here nothing is refused.

use crate::wire::frame;

/// Frames are gathered up to this size; a larger one has a chunk of its own.
const CHUNK_BYTES: usize = 64 * 1024;
/// What an idle connection may keep for its next frames.
const IDLE_CHUNK_BYTES: usize = 16 * 1024;

/// What waits to be written.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Frames one after the other, several to a chunk.
    pub(super) chunks: Vec<Vec<u8>>,
    /// An empty chunk, for the next frames.
    pub(super) spare: Vec<u8>,
    /// Of all that is unsent, also of what is being written.
    pub(super) bytes: usize,
    /// No more frames; end when all are written.
    pub(super) finished: bool,
}

impl Outbox {
    /// Puts a frame behind the others, under this question number.
    pub(super) fn append(&mut self, framed: &[u8], number: u32) {
        self.bytes += framed.len();
        let fits = |chunk: &Vec<u8>| chunk.len() + framed.len() <= CHUNK_BYTES;
        if !self.chunks.last().is_some_and(fits) {
            let fresh = std::mem::take(&mut self.spare);
            self.chunks.push(fresh);
        }
        let chunk = self.chunks.last_mut().expect("there is a chunk now");
        let start = chunk.len();
        chunk.extend_from_slice(framed);
        frame::set_question(&mut chunk[start..], number);
    }

    /// Keeps an emptied chunk, unless it has become large for what it carried.
    pub(super) fn keep(&mut self, mut chunk: Vec<u8>) {
        if chunk.capacity() <= IDLE_CHUNK_BYTES || chunk.len() > IDLE_CHUNK_BYTES / 4 {
            chunk.clear();
            self.spare = chunk;
        }
    }
}
