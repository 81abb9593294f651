//! Frames that came while no more calls are taken.
//!
//! While a peer takes answers too slowly its next calls wait. What comes behind them is still
//! read, as far as there is room: it may be answers, and a peer that waits for these to be taken
//! would otherwise never take any itself.

use std::collections::VecDeque;

use crate::config::QUESTIONS_MAX;
use crate::net::connection::Connection;
use crate::net::exports::EXPORTS_MAX;
use crate::wire::frame::Frame;

/// Frames that may wait: every call that a peer may have open, the cancellation of each, and the
/// release of every capability that it may hold.
const FRAMES_MAX: usize = 2 * QUESTIONS_MAX + EXPORTS_MAX;

/// What waits, in the order in which it came.
#[derive(Debug, Default)]
pub(super) struct Later {
    frames: VecDeque<(Frame, usize)>,
    bytes: usize,
}

impl Later {
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Whether more may come: with what calls under way hold already, they may have as many bytes
    /// as these.
    pub(super) fn has_room(&self, connection: &Connection) -> bool {
        self.frames.len() <= FRAMES_MAX
            && self.bytes + connection.held_bytes() < connection.traffic().held_max()
    }

    /// Whether such a frame has to wait. Others have no part in the order of calls.
    pub(super) fn concerns(frame: &Frame) -> bool {
        match frame {
            Frame::Invoke(_) | Frame::Action(_) | Frame::Cancel { .. } | Frame::Release { .. } => {
                true
            }
            Frame::Return(_) | Frame::Ping { .. } | Frame::Pong { .. } | Frame::Goodbye => false,
        }
    }

    pub(super) fn push(&mut self, frame: Frame, bytes: usize) {
        self.bytes += bytes;
        self.frames.push_back((frame, bytes));
    }

    pub(super) fn pop(&mut self) -> Option<Frame> {
        let (frame, bytes) = self.frames.pop_front()?;
        self.bytes -= bytes;
        if self.frames.is_empty() {
            // Of use in a rare case only.
            self.frames = VecDeque::new();
        }
        Some(frame)
    }
}
