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
use super::view::Change;
use crate::StoreError;
use crate::apply::{self, Sweep};
use crate::crash_point;
use crate::fence::Fences;
use crate::store::{Batch, Step};
use crate::writer::{Backend, Outcome};

/// The file grows by an eighth, within these bounds.
const FILE_STEP_BYTES: (u64, u64) = (1 << 20, 64 << 20);

/// The store thread's side of an LMDB store.
pub(super) struct LmdbBackend {
    pub(super) folder: Arc<Folder>,
    pub(super) gate: Arc<Gate>,
    pub(super) fences: Arc<Fences>,
    /// The disk had no room for the last growth.
    pub(super) disk_full: bool,
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
        self.mend()?;
        let need_bytes = self.estimate(batches)?;
        self.grow_ahead(need_bytes);
        loop {
            match self.attempt(batches, sweep, need_bytes) {
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
    fn mend(&self) -> Result<(), StoreError> {
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

    /// A guess at what the batches add to the file: their bytes with some room for pages that
    /// are half full, and the paths to the leaves they touch.
    fn estimate(&self, batches: &[Batch]) -> Result<u64, StoreError> {
        let pass = self.gate.enter();
        let page_bytes = pass.opened()?.page_bytes;
        let bytes: usize = batches.iter().map(Batch::weight_bytes).sum();
        let items: usize = batches.iter().map(|batch| batch.items.len()).sum();
        Ok(2 * bytes as u64 + (4 * items as u64 + 64) * page_bytes)
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

    fn attempt(
        &mut self,
        batches: &[Batch],
        sweep: Sweep,
        need_bytes: u64,
    ) -> Result<Outcome, StoreError> {
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
        let applied = apply::run(&mut change, batches, &self.fences, sweep)?;
        let (expired, next_expiry_ms) = (applied.expired, Some(applied.next_expiry_ms));
        if applied.changed {
            crash_points(batches, false);
            change
                .txn
                .commit()
                .map_err(|error| self.commit_error(opened, error, map_bytes_max))?;
            crash_points(batches, true);
        } else {
            change.txn.abort();
        }
        let syncs = u64::from(applied.changed);
        Ok(Outcome {
            results: applied.results,
            expired,
            next_expiry_ms,
            syncs,
        })
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

/// The crash points around the commit of a transaction, by what is in it.
fn crash_points(batches: &[Batch], after: bool) {
    if !cfg!(partha_crash_points) {
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
        }
    }
}
