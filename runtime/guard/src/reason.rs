//! Why a connection was cut, for the log, for the owner and for the peer.
//!
//! A reason is sent to the peer as the text of an rpc.capnp `Abort` where that is still possible,
//! so that an honest client over a limit learns which one.

/// Why the guard ended a connection on its own.
///
/// A peer that closes, or that says `Abort`, was not cut and gives no reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CutReason {
    /// The bytes are not Cap'n Proto frames.
    #[error("bad frame: {detail}")]
    BadFrame {
        /// What was found.
        detail: String,
    },
    /// A frame claims more than a message may have.
    #[error("message of {bytes} bytes, at most {max} are allowed")]
    MessageTooLarge {
        /// Bytes claimed by the header.
        bytes: u64,
        /// [`Limits::message_bytes_max`](crate::Limits::message_bytes_max).
        max: usize,
    },
    /// The peer closed in the middle of a message.
    #[error("connection closed {bytes} bytes into a message")]
    HalfMessage {
        /// Bytes of the message that had come.
        bytes: usize,
    },
    /// A frame did not arrive whole in time.
    #[error("message not complete {ms} ms after its first byte")]
    FrameDeadline {
        /// [`Limits::frame_ms_max`](crate::Limits::frame_ms_max).
        ms: u64,
    },
    /// No first message in time.
    #[error("no message within {ms} ms of connecting")]
    HandshakeDeadline {
        /// [`Limits::handshake_ms_max`](crate::Limits::handshake_ms_max).
        ms: u64,
    },
    /// Nothing happened for long.
    #[error("idle for {ms} ms")]
    Idle {
        /// The idle limit that applied.
        ms: u64,
    },
    /// The peer takes nothing of what is sent.
    #[error("{bytes} bytes not taken by the peer for {ms} ms")]
    WriteStalled {
        /// Bytes waiting.
        bytes: usize,
        /// [`Limits::write_stall_ms_max`](crate::Limits::write_stall_ms_max).
        ms: u64,
    },
    /// The peer takes less than it asks for.
    #[error("{bytes} bytes not taken by the peer, at most {max} are kept")]
    Unsent {
        /// Bytes waiting.
        bytes: usize,
        /// [`Limits::unsent_bytes_max`](crate::Limits::unsent_bytes_max).
        max: usize,
    },
    /// A table or chain reached its bound.
    #[error("too many {what}: at most {max} are allowed")]
    TooMany {
        /// What there was too much of.
        what: Table,
        /// The limit.
        max: usize,
    },
    /// A `Resolve` that would tie capnp-rpc's own objects into a ring, which is never freed.
    #[error("resolve of promise {promise} {detail}")]
    LeakingResolve {
        /// Id of the promise.
        promise: u32,
        /// What it was to be resolved to.
        detail: &'static str,
    },
    /// A promised answer in a `Return` that would tie a pending call into a ring.
    #[error("result of question {question} refers to a call that is still pending")]
    LeakingReturn {
        /// Our question that was answered.
        question: u32,
    },
    /// A feature of the protocol which this end does not have.
    #[error("unsupported: {what}")]
    Unsupported {
        /// Name of the feature.
        what: &'static str,
    },
    /// The messages contradict the protocol.
    #[error("protocol violated: {detail}")]
    Protocol {
        /// What was wrong.
        detail: String,
    },
}

/// What [`CutReason::TooMany`] counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Table {
    /// Open questions of the peer.
    Questions,
    /// Open bootstrap questions of the peer.
    Bootstraps,
    /// Calls chained on pending results, steps of a path, or promises chained to promises.
    PipelineDepth,
    /// Capabilities in one message.
    Capabilities,
    /// Capabilities of ours held by the peer.
    Exports,
    /// Capabilities of the peer held here.
    Imports,
    /// Call-backs the peer has not answered.
    CallsOut,
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Questions => "open questions",
            Self::Bootstraps => "open bootstrap questions",
            Self::PipelineDepth => "steps of pipelining",
            Self::Capabilities => "capabilities in one message",
            Self::Exports => "capabilities held by the peer",
            Self::Imports => "capabilities of the peer held here",
            Self::CallsOut => "unanswered call-backs",
        })
    }
}

impl CutReason {
    /// The same as the exception capnp-rpc ends its calls with and sends to the peer.
    pub(crate) fn to_error(&self) -> capnp::Error {
        let text = format!("connection cut: {self}");
        match self {
            Self::TooMany { .. } | Self::Unsent { .. } => capnp::Error::overloaded(text),
            Self::Idle { .. } | Self::WriteStalled { .. } | Self::HalfMessage { .. } => {
                capnp::Error::disconnected(text)
            }
            Self::BadFrame { .. }
            | Self::MessageTooLarge { .. }
            | Self::FrameDeadline { .. }
            | Self::HandshakeDeadline { .. }
            | Self::LeakingResolve { .. }
            | Self::LeakingReturn { .. }
            | Self::Unsupported { .. }
            | Self::Protocol { .. } => capnp::Error::failed(text),
        }
    }

    /// Whether the peer is not reading, so that telling it the reason is pointless.
    pub(crate) fn peer_deaf(&self) -> bool {
        matches!(self, Self::Unsent { .. } | Self::WriteStalled { .. })
    }
}

/// The reason for a message that cannot be read.
pub(crate) fn malformed(error: capnp::Error) -> CutReason {
    CutReason::Protocol {
        detail: error.to_string(),
    }
}
