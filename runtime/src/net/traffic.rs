//! How much may be under way on a connection. All of it follows from the largest message.

use crate::config::{HELD_BYTES_MAX, MESSAGE_BYTES_MAX, OBJECT_BYTES_MAX, UNSENT_BYTES_MAX};
use crate::error::{ErrorKind, Result, SystemError};

/// The least that may be said to be the largest message: the services' own must fit.
const MESSAGE_BYTES_MIN: usize = 64 << 10;
/// The most: places in a message have 32 bits.
const MESSAGE_BYTES_LIMIT: usize = (4 << 30) - 8;

/// What a call does that finds no room on its connection: 8,192 calls are open there, or more than
/// 8 MiB of calls of its kind (up to 128 KiB, or larger) are unsent. The 8 MiB are as much as the
/// largest message, if that is more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backpressure {
    /// It waits for its turn, until its deadline; then it fails with `Overloaded`.
    #[default]
    Wait,
    /// It fails at once with `Overloaded`, so that the caller may do something else.
    Fail,
}

/// How much may be under way on each connection of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// The largest message that this end takes, or lets its own callers and servants make.
    pub(crate) message_bytes_max: usize,
    pub(crate) backpressure: Backpressure,
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            message_bytes_max: MESSAGE_BYTES_MAX,
            backpressure: Backpressure::default(),
        }
    }
}

impl Traffic {
    /// Refuses a largest message that is out of range.
    pub(crate) fn check(self) -> Result<Self> {
        let allowed = MESSAGE_BYTES_MIN..=MESSAGE_BYTES_LIMIT;
        if allowed.contains(&self.message_bytes_max) {
            return Ok(self);
        }
        let detail = format!(
            "messages of at most {} bytes; the limit has to be {MESSAGE_BYTES_MIN} to \
             {MESSAGE_BYTES_LIMIT}",
            self.message_bytes_max
        );
        Err(SystemError::new(ErrorKind::BadOperation, detail))
    }

    /// Answers, and apart from them calls, that may be unsent before no more are begun.
    pub(crate) fn unsent_max(self) -> usize {
        UNSENT_BYTES_MAX.max(self.message_bytes_max)
    }

    /// Bytes of parameters of the peer's calls under way.
    pub(crate) fn held_max(self) -> usize {
        HELD_BYTES_MAX.max(self.message_bytes_max)
    }

    /// Bytes of messages that come in parts at a time.
    pub(crate) fn partial_max(self) -> usize {
        partial_max(self.message_bytes_max)
    }

    /// Bytes of parameters of calls under way at one object.
    pub(crate) fn object_max(self) -> usize {
        OBJECT_BYTES_MAX.max(self.message_bytes_max)
    }

    /// The same at all objects of a shard.
    pub(crate) fn shard_max(self) -> usize {
        4 * self.object_max()
    }
}

/// What a peer that takes messages of so many bytes takes of them in parts at a time.
pub(crate) fn partial_max(message_bytes_max: usize) -> usize {
    HELD_BYTES_MAX.max(message_bytes_max)
}
