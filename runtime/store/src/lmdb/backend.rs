//! How a set of batches gets to disk: one transaction, one sync, and what to do when there is no
//! room.
//!
//! - **The map ends**: it is grown before a set that might not fit, and again if LMDB says
//!   `MDB_MAP_FULL` all the same; the set is then redone from the start.
//! - **The disk is full**: the file is grown ahead of LMDB by `fallocate`, so that a full disk
//!   shows before anything is written. LMDB is let try nevertheless: it may do with pages freed
//!   inside the file, and deleting must be possible on a full disk. What it cannot write it
//!   abandons unharmed.
//! - **A set that fails for want of room** is tried batch by batch, so that a large batch does
//!   not take small ones down with it.
//! - **LMDB gives up** (`MDB_PANIC`, after a failed write of its meta page): the environment is
//!   opened anew at once. Whether the set is on disk is then unknown, and it says so.

use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::folder::{Folder, disk_error};
use super::gate::{Gate, Opened, lmdb_error};
use super::view::{Change, Trees};
use crate::StoreError;
use crate::apply::{self, Sweep};
use crate::batch::{Batch, Step};
use crate::crash_point;
use crate::fence::Fences;
use crate::writer::{Backend, Outcome};

/// The file grows by an eighth, within these bounds.
const FILE_STEP_BYTES: (u64, u64) = (1 << 20, 64 << 20);

/// The store thread's side of an LMDB store without a log.
pub(super) struct LmdbBackend {
    pub(super) transactor: Transactor,
    pub(super) fences: Arc<Fences>,
}

/// Changes LMDB, in transactions that find room if there is any.
#[derive(Clone)]
pub(super) struct Transactor {
    folder: Arc<Folder>,
    pub(super) gate: Arc<Gate>,
    /// The disk had no room for the last growth.
    disk_full: bool,
    /// The shape of the tables after which transaction of LMDB: asked for at each set, and other
    /// only after a checkpoint.
    trees: Option<(usize, Trees)>,
}

impl Backend for LmdbBackend {
    fn commit(&mut self, batches: &[Batch], sweep: Sweep) -> Outcome {
        let error = match self.commit_set(batches, sweep) {
            Ok(outcome) => return outcome,
            Err(error) => error,
        };
        tracing::warn!(%error, batches = batches.len(), "a set of batches was not committed");
        let divisible = match &error {
            StoreError::MapFull { .. } | StoreError::Full { .. } | StoreError::Lmdb { .. } => true,
            StoreError::Exists { .. }
            | StoreError::NoSuchObject { .. }
            | StoreError::Fenced { .. }
            | StoreError::EarlierWriteFailed { .. }
            | StoreError::KeyTooLong { .. }
            | StoreError::TooLarge { .. }
            | StoreError::PartZero { .. }
            | StoreError::NoShadow { .. }
            | StoreError::TooManyRows { .. }
            | StoreError::Clearing { .. }
            | StoreError::Arriving { .. }
            | StoreError::OlderPlace { .. }
            | StoreError::NoSuchGroup { .. }
            | StoreError::GroupExists { .. }
            | StoreError::OlderView { .. }
            | StoreError::OutOfStep { .. }
            | StoreError::UnfinishedAction { .. }
            | StoreError::BadEntry { .. }
            | StoreError::BrokenCopy { .. }
            | StoreError::Overloaded { .. }
            | StoreError::Closed
            | StoreError::Corrupt { .. }
            | StoreError::InUse { .. }
            | StoreError::Io { .. }
            | StoreError::Broken { .. }
            | StoreError::Version { .. }
            | StoreError::Exhausted { .. } => false,
        };
        if batches.len() < 2 || !divisible {
            return Outcome::failed(batches.len(), &error);
        }
        let mut outcome = Outcome::default();
        for batch in batches {
            let one = self.commit(std::slice::from_ref(batch), sweep);
            if let Some(Err(error)) = one.results.first() {
                self.fences.poison(batch, error);
            }
            outcome.results.extend(one.results);
            outcome.expired = outcome.expired.plus(one.expired);
            outcome.syncs += one.syncs;
            outcome.next_expiry_ms = one.next_expiry_ms.or(outcome.next_expiry_ms);
        }
        outcome
    }
}

impl LmdbBackend {
    fn commit_set(&mut self, batches: &[Batch], sweep: Sweep) -> Result<Outcome, StoreError> {
        let Self { transactor, fences } = self;
        transactor.mend()?;
        let bytes = batches.iter().map(Batch::weight_bytes).sum();
        let items = batches.iter().map(|batch| batch.items.len()).sum();
        let need_bytes = transactor.estimate(bytes, items)?;
        transactor.grow_ahead(need_bytes);
        let applied = transactor.transact(need_bytes, batches, |change| {
            let applied = apply::run(change, batches, fences, sweep)?;
            let changed = applied.changed;
            Ok((applied, changed))
        })?;
        Ok(Outcome {
            results: applied.results,
            expired: applied.expired,
            next_expiry_ms: Some(applied.next_expiry_ms),
            syncs: u64::from(applied.changed),
        })
    }
}

impl Transactor {
    pub(super) fn new(folder: Arc<Folder>, gate: Arc<Gate>) -> Self {
        Self {
            folder,
            gate,
            disk_full: false,
            trees: None,
        }
    }

    /// Changes LMDB in one transaction, with one sync if `write` says that there is something to
    /// commit; with a larger map if there is no room in it. The crash points around it are those
    /// of the batches.
    pub(super) fn transact<R>(
        &mut self,
        need_bytes: u64,
        batches: &[Batch],
        mut write: impl FnMut(&mut Change<'_>) -> Result<(R, bool), StoreError>,
    ) -> Result<R, StoreError> {
        loop {
            match self.attempt(need_bytes, batches, &mut write) {
                Err(full @ StoreError::MapFull { .. }) => {
                    if !self.grow_map()? {
                        return Err(full);
                    }
                }
                Err(StoreError::Broken { reason }) => {
                    if let Err(error) = self.gate.reopen(1) {
                        tracing::error!(%error, "the store is broken");
                    }
                    return Err(StoreError::Broken { reason });
                }
                other => return other,
            }
        }
    }

    /// Opens a broken environment again, if it can be opened.
    pub(super) fn mend(&self) -> Result<(), StoreError> {
        let broken = match self.gate.enter().opened() {
            Ok(opened) => opened.file_bytes().err(),
            Err(error) => Some(error),
        };
        match broken {
            None => Ok(()),
            Some(StoreError::Broken { .. }) => self.gate.reopen(1),
            Some(error) => Err(error),
        }
    }

    /// A guess at what batches of so many bytes and items add to the file: their bytes with some
    /// room for pages that are half full, and the paths to the leaves they touch.
    fn estimate(&self, bytes: usize, items: usize) -> Result<u64, StoreError> {
        let pass = self.gate.enter();
        let page_bytes = pass.opened()?.page_bytes;
        Ok(2 * bytes as u64 + (4 * items as u64 + 64) * page_bytes)
    }

    /// What so many changed entries add to the file at most: their bytes with room for pages that
    /// are half full, and a copy of each leaf that they touch and of the branches above, each of
    /// which may be split; and lists of what was copied.
    pub(super) fn estimate_layers(
        &mut self,
        bytes: usize,
        entries: usize,
    ) -> Result<u64, StoreError> {
        let pass = self.gate.enter();
        let opened = pass.opened()?;
        let (page_bytes, transaction) = (opened.page_bytes, opened.last_transaction());
        let trees = match self.trees {
            Some((seen, trees)) if seen == transaction => trees,
            Some(_) | None => pass.read(|view| view.trees())?,
        };
        self.trees = Some((transaction, trees));
        let entries = entries as u64;
        let branches = trees.branches.min(entries.saturating_mul(trees.levels));
        let copied = trees.leaves.min(entries) + branches;
        Ok(2 * bytes as u64 + (2 * copied + copied / 256 + 64) * page_bytes)
    }

    /// Whether the map has room for so many bytes more.
    pub(super) fn has_map_for(&self, need_bytes: u64) -> Result<bool, StoreError> {
        let pass = self.gate.enter();
        let opened = pass.opened()?;
        Ok(opened.map_bytes as u64 > opened.used_bytes() + need_bytes)
    }

    /// As [`Self::has_map_for`], after the map was grown as far as it may be.
    pub(super) fn grow_map_for(&self, need_bytes: u64) -> Result<bool, StoreError> {
        while !self.has_map_for(need_bytes)? {
            if !self.grow_map()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the disk has room for so many bytes more; the file has it then.
    pub(super) fn has_disk_for(&self, need_bytes: u64) -> Result<bool, StoreError> {
        let pass = self.gate.enter();
        Ok(!self.reserve(pass.opened()?, need_bytes)?)
    }

    fn grow_ahead(&self, need_bytes: u64) {
        let room = match self.gate.enter().opened() {
            Ok(opened) => opened.map_bytes as u64 > opened.used_bytes() + need_bytes,
            Err(_) => true,
        };
        if !room && let Err(error) = self.grow_map() {
            tracing::warn!(%error, "the map of the store cannot grow");
        }
    }

    /// Doubles the map. False if it is as large as it may be.
    fn grow_map(&self) -> Result<bool, StoreError> {
        let map_bytes = self.gate.enter().opened()?.map_bytes;
        if map_bytes >= self.gate.map_bytes_max() {
            return Ok(false);
        }
        self.gate.reopen(2)?;
        tracing::info!(from_bytes = map_bytes, "the map of the store was doubled");
        Ok(true)
    }

    fn attempt<R>(
        &mut self,
        need_bytes: u64,
        batches: &[Batch],
        write: &mut impl FnMut(&mut Change<'_>) -> Result<(R, bool), StoreError>,
    ) -> Result<R, StoreError> {
        let pass = self.gate.enter();
        let opened = pass.opened()?;
        self.disk_full = self.reserve(opened, need_bytes)?;
        let txn = opened.write_txn();
        let txn = txn.map_err(|error| lmdb_error("cannot begin a transaction", &error))?;
        let map_bytes_max = self.gate.map_bytes_max();
        let mut change = Change {
            txn,
            tables: &opened.tables,
            map_bytes_max,
        };
        let (written, changed) = write(&mut change)?;
        if !changed {
            change.txn.abort();
            return Ok(written);
        }
        crash_points(batches, false);
        change
            .txn
            .commit()
            .map_err(|error| self.commit_error(opened, error, map_bytes_max))?;
        crash_points(batches, true);
        Ok(written)
    }

    /// Grows the file ahead of the transaction. True if the disk has no room for that.
    fn reserve(&self, opened: &Opened, need_bytes: u64) -> Result<bool, StoreError> {
        let file_bytes = opened.file_bytes()?;
        let want_bytes = opened.used_bytes() + need_bytes;
        if want_bytes <= file_bytes {
            return Ok(false);
        }
        let step = (file_bytes / 8).clamp(FILE_STEP_BYTES.0, FILE_STEP_BYTES.1);
        let generous = (want_bytes - file_bytes).next_multiple_of(step);
        for len in [generous, want_bytes - file_bytes] {
            match fallocate(&opened.file, FallocateFlags::empty(), file_bytes, len) {
                Err(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => {}
                // Done, or a file system that cannot reserve.
                Ok(()) | Err(_) => return Ok(false),
            }
        }
        Ok(true)
    }

    fn commit_error(
        &self,
        opened: &Opened,
        error: heed::Error,
        map_bytes_max: usize,
    ) -> StoreError {
        if let heed::Error::Mdb(heed::MdbError::MapFull) = error {
            return StoreError::MapFull { map_bytes_max };
        }
        let heed::Error::Io(source) = error else {
            return lmdb_error("cannot commit", &error);
        };
        // The pages are written and synced before the meta page is; only after a failure of the
        // latter LMDB refuses to go on.
        let panicked = opened.write_txn().is_err();
        let path = self.folder.data_file();
        if panicked {
            let reason = format!("cannot write the meta page of {}: {source}", path.display());
            return StoreError::Broken { reason };
        }
        disk_error("cannot write", &path, source, self.disk_full)
    }
}

/// The crash points around the moment when batches become durable, by what is in them.
pub(super) fn crash_points(batches: &[Batch], after: bool) {
    if !cfg!(feature = "crash-points") {
        return;
    }
    let there = |step: &Step| batches.iter().any(|batch| batch.has(*step));
    for step in Step::ALL.into_iter().filter(there) {
        match (step, after) {
            (Step::Prepare, false) => crash_point!("store/prepare/before"),
            (Step::Prepare, true) => crash_point!("store/prepare/after"),
            (Step::Decide, false) => crash_point!("store/decide/before"),
            (Step::Decide, true) => crash_point!("store/decide/after"),
            (Step::Install, false) => crash_point!("store/install/before"),
            (Step::Install, true) => crash_point!("store/install/after"),
            (Step::Undo, false) => crash_point!("store/undo/before"),
            (Step::Undo, true) => crash_point!("store/undo/after"),
            (Step::Settle, false) => crash_point!("store/settle/before"),
            (Step::Settle, true) => crash_point!("store/settle/after"),
            (Step::Depart, false) => crash_point!("store/depart/before"),
            (Step::Depart, true) => crash_point!("store/depart/after"),
            (Step::Arrive, false) => crash_point!("store/arrive/before"),
            (Step::Arrive, true) => crash_point!("store/arrive/after"),
            (Step::Stage, false) => crash_point!("store/stage/before"),
            (Step::Stage, true) => crash_point!("store/stage/after"),
            (Step::Apply, false) => crash_point!("store/apply/before"),
            (Step::Apply, true) => crash_point!("store/apply/after"),
            (Step::Snapshot, false) => crash_point!("store/snapshot/before"),
            (Step::Snapshot, true) => crash_point!("store/snapshot/after"),
        }
    }
}
