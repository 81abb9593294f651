//! Every bound of one foreign connection, with its reason.
//!
//! A plain capnp-rpc end bounds nothing: a header may claim 64 MiB and have it allocated and
//! zeroed, calls may stay open for ever, replies may pile up unread. Each figure here closes one
//! of these ways. What happens at a bound is said at the field: most *cut* the connection with a
//! [`CutReason`](crate::CutReason), a few make calls *wait*.

/// Bounds of one connection of the foreign face; plain data, `Default` is meant for daemons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one message, either way. An incoming one over it cuts the connection before
    /// anything is allocated; a reply of ours over it is replaced by an exception.
    ///
    /// 1 MiB, as Ice and omniORB (2 MiB) do; larger things are sent in pieces.
    pub message_bytes_max: usize,
    /// Questions (`Call` and `Bootstrap`) of the peer that are not yet both returned and
    /// finished; one more cuts the connection.
    pub questions_max: usize,
    /// Calls of the peer that are being executed. Further calls wait in arrival order, unseen by
    /// capnp-rpc, until one ends; `questions_max` bounds how many can wait.
    ///
    /// Handlers are counted, not question ids: a `Finish` ends a question but not the servant, so
    /// a flood of `Call` + `Finish` waits as any other.
    pub handlers_max: usize,
    /// Bytes of the messages of executing calls; further calls wait as for `handlers_max`.
    pub handlers_bytes_max: usize,
    /// Bytes of messages that wait; over it the socket is not read until one has been executed.
    pub waiting_bytes_max: usize,
    /// Length of a chain of calls each made on the promised result of a call still pending, of a
    /// promised answer's path, and of promises resolved to promises. capnp-rpc walks and drops
    /// such chains recursively; a long one ends the process. One longer cuts the connection.
    pub pipeline_depth_max: usize,
    /// Capabilities in one message; one more cuts the connection.
    pub capabilities_max: usize,
    /// Capabilities of ours the peer holds on this connection; one more cuts it.
    pub exports_max: usize,
    /// Capabilities of the peer this side holds on this connection; one more cuts it.
    pub imports_max: usize,
    /// Unfinished `Bootstrap` questions of the peer; one more cuts the connection.
    pub bootstraps_max: usize,
    /// Calls of ours (call-backs) the peer has not answered; one more cuts the connection.
    pub calls_out_max: usize,
    /// Bytes that are ready to be sent but not taken by the peer; over it the connection is cut.
    /// From a quarter of it on, further calls wait, so that a peer that reads is seldom cut.
    pub unsent_bytes_max: usize,
    /// Time from the first byte of a frame to its last, while we are ready to read it.
    pub frame_ms_max: u64,
    /// Time from the start of the connection to the end of the first message.
    pub handshake_ms_max: u64,
    /// Time during which unsent bytes may make no progress at all.
    pub write_stall_ms_max: u64,
    /// Time without a byte and without a running call after which a connection on which neither
    /// end holds a capability is closed; `None` keeps it.
    pub idle_ms_max: Option<u64>,
    /// The same for a connection on which either end still holds a capability of the other.
    pub idle_holding_ms_max: Option<u64>,
    /// Time given to a connection that ends to take what was sent (the reason of a cut, too).
    pub farewell_ms_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes_max: 1 << 20,
            questions_max: 1_024,
            handlers_max: 256,
            handlers_bytes_max: 8 << 20,
            waiting_bytes_max: 4 << 20,
            pipeline_depth_max: 32,
            capabilities_max: 64,
            exports_max: 4_096,
            imports_max: 4_096,
            bootstraps_max: 64,
            calls_out_max: 1_024,
            unsent_bytes_max: 4 << 20,
            frame_ms_max: 2_000,
            handshake_ms_max: 5_000,
            write_stall_ms_max: 30_000,
            idle_ms_max: Some(60_000),
            idle_holding_ms_max: Some(3_600_000),
            farewell_ms_max: 1_000,
        }
    }
}

impl Limits {
    /// Unsent bytes from which on calls wait.
    pub(crate) fn unsent_bytes_wait(&self) -> usize {
        self.unsent_bytes_max / 4
    }
}
