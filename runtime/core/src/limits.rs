//! Every bound of the engine, with its reason.
//!
//! Nothing in this crate grows without one of these. Over a bound the newest request is refused
//! with [`crate::Refusal::Overloaded`], which says which bound it was; what was admitted earlier
//! is never thrown out to make room, but calls that wait for an object to be loaded are refused if
//! it turns out to be larger than the room there is.

/// The bounds of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Calls that wait on one object, not counting those that run. A queue longer than this is
    /// no burst but an object that cannot keep up: 1,024 calls of 1 ms each are a second.
    pub object_queue_max: u32,
    /// Calls of a shard, running and waiting. Each costs about 200 bytes here and its arguments
    /// in the shell; 65,536 leave room for 64 connections with 1,024 outstanding calls each.
    pub calls_max: u32,
    /// Calls of one caller process, running and waiting: an eighth of the shard, so that eight
    /// runaway callers are needed to shut out the others.
    pub caller_calls_max: u32,
    /// Caller nodes whose newest incarnation is remembered. A forgotten one is learnt again with
    /// its next call; the longest silent one is forgotten first.
    pub peers_max: u32,
    /// How long an unused object stays in memory, in nanoseconds. An object that somebody is
    /// bound to stays [`Limits::BOUND_IDLE_FACTOR`] times as long.
    pub idle_ns: u64,
    /// Bytes of object states in memory. Over it the longest unused objects leave. One
    /// that finds no room when it is loaded is turned away.
    pub active_bytes_max: u64,
    /// Persistent objects in memory, whatever their size: each costs the engine and the shell
    /// a few hundred bytes besides its state.
    pub active_objects_max: u32,
    /// Objects of transient classes at a time: call-backs, iterators, the node's own.
    pub volatile_objects_max: u32,
    /// Entries in the use list, one for each (object, caller). Over it a binding is not noted,
    /// which only makes its object leave memory earlier.
    pub uses_max: u32,
    /// How long a call waits for a lock at most, in nanoseconds; its deadline may be earlier.
    /// The backstop of deadlock detection, and of waits for what is in doubt: 10 s, twice the
    /// longest pause between two questions about an outcome.
    pub lock_wait_ns: u64,
    /// Top-level actions with a part at this shard. Over it the first call of a new one is
    /// refused. What is found prepared at start is counted but never refused.
    pub actions_max: u32,
    /// Levels of one action at this shard, its root included: each is a few hundred bytes, and
    /// a nested action that has ended is no level any more.
    pub levels_max: u32,
    /// Objects of this shard locked by one action; over it a call is refused. Each is written
    /// in one batch when the action ends: 16,384 states of 4 KiB are 64 MiB.
    pub action_objects_max: u32,
    /// Writes of one action at this shard: their call ids are kept to the end, so that none is
    /// executed twice, 24 bytes each.
    pub action_writes_max: u32,
    /// Shards that take part in one action, and those that its calls reached from here.
    pub participants_max: u32,
    /// Replicated objects with a part of one action, here and there: its decision names them.
    pub groups_max: u32,
    /// Aborted actions that are remembered so that late calls of them are refused. A forgotten
    /// one only costs a late call that is undone when its action's time is up.
    pub tombstones_max: u32,
    /// Objects that leave this shard, and those that come, at a time: the bytes of each that are
    /// not on disk are in memory until it has moved. A drain moves a few at a time.
    pub moves_max: u32,
    /// How long an object that has come to a shard stays there before it moves on, in
    /// nanoseconds; the same for the leader of copies. A move costs the users of an object a pause
    /// and a way: at ten moves a second the busiest object keeps eight or nine tenths of its calls.
    pub move_cooldown_ns: u64,
    /// Levels of all actions that an object takes along when it moves. Over it the move waits
    /// until actions have ended; what comes with more is refused.
    pub cargo_levels_max: u32,
    /// How long the commit of an action waits for the moves of objects that it has locked, in
    /// nanoseconds; then the moves are given up. Less than the coordinator's patience for votes.
    pub move_hold_ns: u64,
    /// How long a coordinator waits for votes, in nanoseconds.
    pub vote_wait_ns: u64,
    /// The first pause before a message of the commit protocol is sent again, in nanoseconds.
    /// Each pause is twice the last, up to [`Limits::RESEND_FACTOR`] times this one.
    pub resend_ns: u64,
}

impl Limits {
    /// A bound object may be idle this many times longer than an unbound one: its caller is
    /// likely to come back, but may as well keep a reference for weeks.
    pub const BOUND_IDLE_FACTOR: u64 = 10;
    /// The longest pause between two messages of the commit protocol is this many times the
    /// first: with the default of 100 ms it is 5 s, so that a restarted coordinator frees what
    /// is in doubt within seconds without having been called by a thousand in step. The first is
    /// some syncs and round trips long: what was said to a leader that died goes to the next one
    /// then.
    pub const RESEND_FACTOR: u64 = 50;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            object_queue_max: 1_024,
            calls_max: 65_536,
            caller_calls_max: 8_192,
            peers_max: 65_536,
            idle_ns: 60_000_000_000,
            active_bytes_max: 256 << 20,
            active_objects_max: 100_000,
            volatile_objects_max: 65_536,
            uses_max: 262_144,
            lock_wait_ns: 10_000_000_000,
            actions_max: 16_384,
            levels_max: 1_024,
            action_objects_max: 16_384,
            action_writes_max: 65_536,
            participants_max: 1_024,
            groups_max: 1_024,
            tombstones_max: 16_384,
            moves_max: 64,
            move_cooldown_ns: 100_000_000,
            cargo_levels_max: 1_024,
            move_hold_ns: 2_000_000_000,
            vote_wait_ns: 5_000_000_000,
            resend_ns: 100_000_000,
        }
    }
}
