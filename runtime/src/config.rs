//! Bounds and times of the shell, each with its reason. Those of the engine are in
//! `partha_core::limits`.

use std::time::Duration;

/// The largest message, framing included, unless the builders of both ends say otherwise. Larger
/// values are to be sent in pieces: a bound lets every queue be bounded in bytes (Ice: 1 MB, gRPC:
/// 4 MB by default).
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// How long a call may take where neither caller nor method says: long enough for a restart of
/// the callee, short enough that nobody thinks it hangs.
pub const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// How long a caller may ask again under the same call id and get the saved reply.
pub const REPLY_RETENTION: Duration = Duration::from_secs(15 * 60);

/// How long the outcome of an action is kept for those who ask, after all who took part know it.
pub(crate) const OUTCOME_RETENTION: Duration = REPLY_RETENTION;

/// The longest deadline a caller may set; the retention of replies must outlast it.
pub const CALL_DEADLINE_MAX: Duration = Duration::from_secs(5 * 60);

/// How often a silent connection is asked whether it lives: so that one heartbeat may get lost.
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(1_200);

/// A peer silent for so long is taken for dead: longer than machines pause, and short enough that
/// a call which waits for a leader that stands still has the larger part of its time left when
/// another one leads.
pub(crate) const PEER_SILENT_MAX: Duration = Duration::from_secs(4);

/// How much longer than the callee the caller waits, for the callee's own word on the deadline.
pub(crate) const DEADLINE_GRACE: Duration = Duration::from_millis(500);

/// Open questions of one connection: as many as the engine takes from one caller.
pub(crate) const QUESTIONS_MAX: usize = 8_192;

/// Answers a peer may leave unread before no more of its calls are taken.
pub(crate) const UNSENT_BYTES_MAX: usize = 8 << 20;

/// Bytes of large parameters that a peer's unanswered calls may take; what comes on top is refused.
/// Room for sixteen of the largest messages, and little enough for many such peers.
pub(crate) const HELD_BYTES_MAX: usize = 64 << 20;

/// Bytes of large parameters that calls under way at one object may take: a quarter of what its
/// shard takes.
pub(crate) const OBJECT_BYTES_MAX: usize = 64 << 20;

/// Calls on their way from one thread to a shard.
pub(crate) const INBOX_MAX: usize = 65_536;

/// Messages about actions on their way from one thread to a shard; over it they are lost, as any
/// may be.
pub(crate) const MESSAGES_MAX: usize = 65_536;

/// Connections of a node, and so its sessions; each costs less than 10 KiB while it is idle.
pub(crate) const CONNECTIONS_MAX: usize = 16_384;

/// Processes whose newest life is remembered when their session is over. One that is forgotten is
/// learnt again when it comes; late messages are late by seconds, not by so many processes.
pub(crate) const LIVES_MAX: usize = 65_536;

/// How long to try to open a connection.
pub(crate) const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// Methods marked `#[blocking]` that run at a time in one process, if its builder does not say:
/// each has a thread, which costs little until it computes.
pub(crate) const BLOCKING_MAX: usize = 64;

/// Server processes of a node, if its builder does not say: each costs some megabytes.
pub(crate) const SERVERS_MAX: usize = 64;

/// How long a server process may take from its start until it offers itself.
pub(crate) const SERVER_START_MAX: Duration = Duration::from_secs(10);

/// How long a servant in a server process may take to stop once its call was killed, and the
/// process to end once nobody needs it; then the process is killed.
pub(crate) const SERVER_GRACE: Duration = Duration::from_secs(1);

/// The pause before a server process is started again after its first crash. It doubles with each
/// further one.
pub(crate) const SERVER_PAUSE: Duration = Duration::from_millis(100);

/// The longest such pause.
pub(crate) const SERVER_PAUSE_MAX: Duration = Duration::from_secs(10);
