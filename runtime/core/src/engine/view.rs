//! What an inspector sees of a shard: copies, made when asked for.

use crate::action::path::{Path, Site};
use crate::id::{Peer, Uid};
use crate::lock::mode::Mode;
use crate::time::Time;

/// What an engine is busy with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Tickets not forgotten yet.
    pub calls: usize,
    /// Persistent objects in memory or on their way.
    pub objects: usize,
    /// Objects of transient classes.
    pub volatile_objects: usize,
    /// Persistent objects that nobody uses now.
    pub idle_objects: usize,
    /// Bytes of states in memory.
    pub active_bytes: u64,
    /// Locks held.
    pub locks: usize,
    /// (object, caller) pairs in the use list.
    pub uses: usize,
    /// Callers whose incarnation is known.
    pub callers_remembered: usize,
    /// Deadlines noted, with those of ended calls that were not swept out yet.
    pub deadlines: usize,
    /// Top-level actions with a part here, whatever their phase.
    pub actions: usize,
    /// Commits that this shard decides, or has decided and still tells others of.
    pub commits: usize,
    /// Aborted actions that are remembered, so that late calls of them are refused.
    pub tombstones: usize,
    /// Objects that are to leave, or to come.
    pub moves: usize,
}

/// One object, as an inspector sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectView {
    /// The object.
    pub uid: Uid,
    /// Whether calls can run now without a load.
    pub in_memory: bool,
    /// Whether it is of a transient class.
    pub volatile: bool,
    /// Calls running, or being flushed.
    pub running: u32,
    /// Calls waiting for it.
    pub waiting: u32,
    /// Callers bound to it.
    pub callers_bound: u32,
}

/// How far an action is at one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActionPhase {
    /// Calls of it may come.
    Active,
    /// It is aborted, but servants of it still run.
    Aborting,
    /// Its part is on its way to the disk (phase 1).
    Preparing,
    /// It is on disk and waits for the coordinator's decision.
    Prepared,
    /// It is committed, and its part is becoming the objects' state (phase 2).
    Installing,
    /// This shard coordinates and waits for votes.
    Voting,
    /// This shard coordinates; the decision is on its way to the disk.
    Deciding,
    /// This shard coordinates; it is committed, but not all participants know.
    Committing,
}

/// One top-level action, as an inspector of a shard sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionView {
    /// The action with those it is enclosed by. Of one that was found in the store at start,
    /// only its own name is known.
    pub path: Path,
    /// How far it is.
    pub phase: ActionPhase,
    /// Who decides, once that is known.
    pub coordinator: Option<Site>,
    /// The processes that called in it here.
    pub callers: Vec<Peer>,
    /// Locks that it and its nested actions hold here.
    pub locks: usize,
    /// Objects here that it has changed.
    pub objects: usize,
    /// Its calls that run here.
    pub running: usize,
    /// It waits for an object to come or to leave before anything of it ends here.
    pub pinned: bool,
    /// Its calls that wait here.
    pub waiting: usize,
    /// When the first call of it came; at start, when it was found in the store.
    pub began: Time,
    /// When it is given up, unless it is prepared by then.
    pub until: Time,
}

/// One locked object, as an inspector sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockView {
    /// The object.
    pub uid: Uid,
    /// Who has it.
    pub holders: Vec<HolderView>,
    /// Who waits for it, next one first.
    pub waiters: Vec<WaiterView>,
}

/// Who has a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HolderView {
    /// The action; a call outside actions is one of its own.
    pub path: Path,
    /// How.
    pub mode: Mode,
    /// It was inherited from a nested action that committed.
    pub retained: bool,
    /// Since when.
    pub since: Time,
    /// The action is prepared: only its coordinator can end it.
    pub prepared: bool,
}

/// Who waits for a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaiterView {
    /// The action; a call outside actions is one of its own.
    pub path: Path,
    /// What it wants.
    pub mode: Mode,
    /// Whose call it is.
    pub caller: Peer,
    /// Since when.
    pub since: Time,
    /// Whom it waits for: holders, and those before it in the queue.
    pub blockers: Vec<Path>,
}
