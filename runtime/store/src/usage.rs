//! Figures of a store.

/// Sizes of sets that are told apart, by powers of two.
pub const SIZES: usize = 11;

/// Figures of a store, for people and for tests. Counters start at 0 when it is opened.
///
/// What an action costs is told by the differences of two of these, taken while nothing else
/// happens: `syncs - syncs_sweeping` is how often a batch waited for the disk, and the counts of
/// batches by kind tell which of them the action waited for before its commit returned (prepares
/// of the participants at the same time, then the decision) and which came after (installs,
/// settles).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The size of the memory map in bytes: what the store may grow to without remapping.
    pub map_bytes: u64,
    /// Bytes of the file that were ever in use (free pages inside count).
    pub used_bytes: u64,
    /// Batches committed.
    pub batches: u64,
    /// Batches refused or failed, but for those that only came too early or too late
    /// ([`crate::StoreError::is_passing`]).
    pub batches_failed: u64,
    /// Items in the committed batches.
    pub items: u64,
    /// Transactions that were synced to disk.
    pub syncs: u64,
    /// Those of them that had no batch to commit, only what had expired to remove.
    pub syncs_sweeping: u64,
    /// The most batches that shared one sync.
    pub batches_per_sync_max: u64,
    /// Syncs by the number of batches that shared them: 1, 2 or 3, 4 to 7, and so on, the last
    /// with all that are larger.
    pub syncs_by_batches: [u64; SIZES],
    /// The time that sets took to be applied and synced, in microseconds.
    pub sync_us: u64,
    /// Batches committed with a `Prepare`.
    pub prepares: u64,
    /// Batches committed with a `Decide`.
    pub decisions: u64,
    /// Batches committed with a `CommitShadow`.
    pub installs: u64,
    /// Batches committed with a `DeleteShadow`.
    pub undos: u64,
    /// Batches committed with a `Settle`.
    pub settles: u64,
    /// Saved replies removed after their time.
    pub replies_expired: u64,
    /// Outcomes of actions removed after their time.
    pub outcomes_expired: u64,
    /// Batches committed with a `PutPlace` and a `Decide`: objects that moved away.
    pub departures: u64,
    /// Batches committed with a `ShadowPlace`: objects that began to move here.
    pub arrivals: u64,
    /// Rows removed of objects that are not here, after the batch in which they went.
    pub rows_cleared: u64,
    /// Bytes in the log that are not known to be in LMDB yet.
    pub log_bytes: u64,
    /// How often what the log held was written to LMDB, with a sync of its own.
    pub checkpoints: u64,
    /// Reader slots in use.
    pub readers: u32,
    /// Objects active in this process.
    pub active: u64,
}
