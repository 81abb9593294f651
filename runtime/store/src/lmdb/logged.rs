//! Committing to the log, and writing what it holds to LMDB later.
//!
//! A set is applied in memory over what LMDB and earlier sets hold ([`Pending`]); its changes are
//! one record of the log; then readers see them. When the log's file is full, when there are many
//! changes, or after a quiet moment, they are *frozen*: the next ones go to the other file, while
//! a thread writes the frozen ones to LMDB in one transaction. What came and went in the meantime
//! (a prepared state and its removal) never reaches LMDB.
//!
//! **Installs.** A set that only installs entries of groups' logs is shown to readers without a
//! record of its own: the entries are durable, so after a crash it is done again. What it changed
//! is in the next record, before what that one changes, or in LMDB by the next checkpoint; so
//! nothing is ever durable that was built on it without it.
//!
//! **Room.** What the log took must find room in LMDB later. So the file and the map are grown
//! ahead of the log for all that it holds; where that cannot be, and for sets that are large, the
//! log steps aside: all it holds is written to LMDB, and the set goes there directly
//! ([`LmdbBackend`]), which knows what to do when there is no room.
//!
//! **Failures.** If a write to the log fails, nobody knows whether the record is on disk. All that
//! the log holds, but not that record, is written to LMDB, which ends the record's generation;
//! then the set goes to LMDB, too, and the log is not used any more until the store is opened
//! again. If LMDB cannot be written either, nothing can be read until it can: the record may be
//! there after a crash, so nobody may be told that it is not.
//!
//! If a checkpoint fails, what it had stays frozen, is readable and in the log, and is tried again.

use std::collections::BTreeSet;
use std::mem::take;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::backend::{LmdbBackend, Transactor, crash_points};
use super::gate::Gate;
use super::log::Log;
use super::put_number;
use super::view;
use super::{LOG_KEY, LOG_OPEN_KEY, LmdbOptions};
use crate::StoreError;
use crate::apply::{self, Applied, Sweep};
use crate::batch::Batch;
use crate::crash_point;
use crate::layers::{Changes, Floors, Over, Pending};
use crate::tables::{Reads, Table, Writes};
use crate::usage::Usage;
use crate::writer::{Backend, Outcome};

/// Changes in memory after which they are frozen, whatever their size.
const ENTRIES_MAX: usize = 32 * 1024;
/// A checkpoint that failed is not tried again before.
const PAUSE: Duration = Duration::from_millis(500);

/// What is durable in the log and not yet known to be in LMDB.
#[derive(Debug, Default)]
pub(super) struct Layers {
    stack: RwLock<Stack>,
    /// Whether the log may have more than they do.
    unsure: AtomicBool,
    log_bytes: AtomicU64,
    checkpoints: AtomicU64,
}

#[derive(Debug, Default)]
struct Stack {
    current: Changes,
    /// What is being written to LMDB.
    frozen: Arc<Changes>,
}

/// LMDB with all layers over it.
pub(super) type View<'v> = Over<'v, Over<'v, view::View<'v>>>;

impl Layers {
    /// Reads LMDB with all layers over it. They are held before the transaction begins: what
    /// leaves them is in LMDB by then.
    ///
    /// # Errors
    /// `Broken` also while the log may have more than the layers.
    pub(super) fn read<R>(
        &self,
        gate: &Gate,
        query: impl FnOnce(&View<'_>) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        let held = self.hold();
        if self.unsure.load(Relaxed) {
            let reason = "neither its log nor data.mdb can be written".to_owned();
            return Err(StoreError::Broken { reason });
        }
        gate.enter().read(|view| {
            let below = Over {
                top: &held.frozen,
                below: view,
            };
            query(&Over {
                top: &held.current,
                below: &below,
            })
        })
    }

    fn hold(&self) -> RwLockReadGuard<'_, Stack> {
        self.stack.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<R>(&self, change: impl FnOnce(&mut Stack) -> R) -> R {
        change(&mut self.stack.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds the figures of the log.
    pub(super) fn usage(&self, usage: Usage) -> Usage {
        Usage {
            log_bytes: self.log_bytes.load(Relaxed),
            checkpoints: self.checkpoints.load(Relaxed),
            ..usage
        }
    }
}

/// The store thread's side of a store with a log.
pub(super) struct LoggedBackend {
    direct: LmdbBackend,
    layers: Arc<Layers>,
    log: Log,
    /// Whether the log is still written.
    usable: bool,
    /// Whether LMDB has the note that there is nothing in the log.
    noted_closed: bool,
    /// The longest record.
    record_bytes_max: u64,
    quiet: Duration,
    floors: Floors,
    /// Keys of what is shown and not in the log yet, of the layer that is written to and of the
    /// frozen one.
    behind: [Keys; 2],
    /// Bytes of that, at most.
    behind_bytes: usize,
    /// What is frozen is not known to be in LMDB.
    unsettled: bool,
    /// Bytes of its records.
    frozen_bytes: u64,
    /// The thread that writes what is frozen to LMDB.
    checkpoint: Option<JoinHandle<Result<(), StoreError>>>,
    /// When one failed last.
    failed_at: Option<Instant>,
}

type Keys = BTreeSet<(Table, Vec<u8>)>;

/// Why a set does not go to the log.
enum Aside {
    /// There is no room for it, or it is large.
    Room,
    /// The write failed.
    Log(StoreError),
    /// Nothing can be read or written.
    Store(StoreError),
}

impl From<StoreError> for Aside {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Backend for LoggedBackend {
    fn commit(&mut self, batches: &[Batch], sweep: Sweep) -> Outcome {
        match self.commit_to_log(batches, sweep) {
            Ok(outcome) => outcome,
            Err(why) => self.commit_elsewhere(why, batches, sweep),
        }
    }

    fn shows_installs(&self) -> bool {
        self.usable
    }

    fn quiet_after(&self) -> Option<Duration> {
        (self.unsettled || !self.is_empty()).then_some(self.quiet)
    }

    fn quiet(&mut self) {
        self.look_after_checkpoint();
        if self.may_freeze() {
            self.freeze();
            self.begin_checkpoint();
        }
    }

    fn close(&mut self) {
        if let Err(error) = self.settle().and_then(|()| self.note_closed()) {
            tracing::warn!(%error, "the store is closed with a log, which the next start reads");
        }
    }
}

impl LoggedBackend {
    /// A backend with an empty log.
    pub(super) fn new(
        direct: LmdbBackend,
        layers: Arc<Layers>,
        log: Log,
        options: &LmdbOptions,
    ) -> Self {
        Self {
            direct,
            layers,
            log,
            usable: true,
            noted_closed: false,
            record_bytes_max: options.log_bytes / 2,
            // The thread must not spin while a checkpoint is made.
            quiet: Duration::from_millis(options.log_quiet_ms.max(1)),
            floors: Floors::default(),
            behind: [Keys::new(), Keys::new()],
            behind_bytes: 0,
            unsettled: false,
            frozen_bytes: 0,
            checkpoint: None,
            failed_at: None,
        }
    }

    fn commit_to_log(&mut self, batches: &[Batch], sweep: Sweep) -> Result<Outcome, Aside> {
        self.look_after_checkpoint();
        if !self.usable {
            return Err(Aside::Room);
        }
        self.direct.transactor.mend()?;
        let weight: usize = batches.iter().map(Batch::weight_bytes).sum();
        if weight as u64 > self.record_bytes_max {
            return Err(Aside::Room);
        }
        if self.layers.hold().current.entries() >= ENTRIES_MAX {
            self.make_room()?;
        }
        let (applied, mut changes) = self.apply(batches, sweep)?;
        let mut syncs = 0;
        let Applied {
            results,
            expired,
            next_expiry_ms,
            changed,
        } = applied;
        if changed {
            // A small batch may change much: it may remove or install what is in many entries.
            if !self.has_room(&changes)? {
                return Err(Aside::Room);
            }
            crash_points(batches, false);
            let is_behind = self.falls_behind(batches, &changes);
            if !is_behind {
                changes = self.catch_up(changes)?;
                self.append(&changes)?;
                self.behind = [Keys::new(), Keys::new()];
                self.behind_bytes = 0;
            }
            crash_points(batches, true);
            self.publish(changes);
            syncs = u64::from(!is_behind);
        }
        Ok(Outcome {
            results,
            expired,
            next_expiry_ms: Some(next_expiry_ms),
            syncs,
        })
    }

    /// Whether the set goes without a record of its own. Then it is noted what it changes.
    fn falls_behind(&mut self, batches: &[Batch], changes: &Changes) -> bool {
        let installs = !batches.is_empty() && batches.iter().all(Batch::only_installs);
        let bytes = self.behind_bytes + changes.bytes();
        // What is behind has to find room in a record with others.
        if !installs || bytes as u64 > self.record_bytes_max / 4 {
            return false;
        }
        self.behind_bytes = bytes;
        let keys = changes.iter().map(|(table, key, _)| (table, key.to_vec()));
        self.behind[0].extend(keys);
        true
    }

    /// These changes, over all that is shown and not in the log.
    fn catch_up(&self, changes: Changes) -> Result<Changes, StoreError> {
        if self.behind.iter().all(Keys::is_empty) {
            return Ok(changes);
        }
        let mut all = self.layers.read(&self.direct.transactor.gate, |view| {
            let mut all = Changes::default();
            for (table, key) in self.behind.iter().flatten() {
                let value = view.value(*table, key)?.map(<[u8]>::to_vec);
                all.set(*table, key.clone(), value);
            }
            Ok(all)
        })?;
        all.take_over(changes, &[]);
        Ok(all)
    }

    fn apply(&self, batches: &[Batch], sweep: Sweep) -> Result<(Applied, Changes), StoreError> {
        self.layers.read(&self.direct.transactor.gate, |below| {
            let mut pending = Pending {
                changes: Changes::default(),
                below,
                floors: &self.floors,
            };
            let applied = apply::run(&mut pending, batches, &self.direct.fences, sweep)?;
            Ok((applied, pending.changes))
        })
    }

    /// Writes the record, into the other file if this one is full.
    fn append(&mut self, changes: &Changes) -> Result<(), Aside> {
        for _ in 0..2 {
            if self.log.append(changes).map_err(Aside::Log)? {
                return Ok(());
            }
            if self.log.is_empty() {
                break;
            }
            self.make_room()?;
        }
        Err(Aside::Room)
    }

    /// Shows the changes to readers. Marks of what was removed are kept only where there is
    /// something below to hide.
    fn publish(&self, changes: Changes) {
        let frozen = Arc::clone(&self.layers.hold().frozen);
        let bare = self.direct.transactor.gate.enter().read(|view| {
            let below = Over {
                top: &frozen,
                below: view,
            };
            let mut bare = Vec::new();
            for (table, key, value) in changes.iter() {
                if value.is_none() && below.value(table, key)?.is_none() {
                    bare.push((table, key.to_vec()));
                }
            }
            Ok(bare)
        });
        // It is durable: whatever LMDB says now, it is to be seen.
        let bare = bare.unwrap_or_default();
        self.layers
            .change(|stack| stack.current.take_over(changes, &bare));
        self.note_bytes();
    }

    /// Whether LMDB will have room for all that the log holds and for these changes.
    fn has_room(&mut self, changes: &Changes) -> Result<bool, StoreError> {
        let (bytes, entries) = {
            let Stack { current, frozen } = &*self.layers.hold();
            (
                current.bytes() + frozen.bytes() + changes.bytes(),
                current.entries() + frozen.entries() + changes.entries(),
            )
        };
        let need_bytes = self.direct.transactor.estimate_layers(bytes, entries)?;
        self.has_room_for(need_bytes)
    }

    fn has_room_for(&mut self, need_bytes: u64) -> Result<bool, StoreError> {
        if !self.direct.transactor.has_map_for(need_bytes)? {
            // The map can only be replaced while no transaction uses it, and readers wait.
            self.await_checkpoint();
            match self.direct.transactor.grow_map_for(need_bytes) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(error) => {
                    // Less than was asked for may do.
                    tracing::warn!(%error, "the map of the store cannot grow");
                    return Ok(false);
                }
            }
        }
        self.direct.transactor.has_disk_for(need_bytes)
    }

    /// Lets the next record go to the other file.
    fn make_room(&mut self) -> Result<(), Aside> {
        self.await_checkpoint();
        if !self.may_freeze() {
            return Err(Aside::Room);
        }
        self.freeze();
        self.begin_checkpoint();
        Ok(())
    }

    /// Whether there is something to freeze, and nothing is frozen.
    fn may_freeze(&self) -> bool {
        !self.unsettled && !self.is_empty()
    }

    /// Whether nothing is to be written to LMDB but what is frozen.
    fn is_empty(&self) -> bool {
        self.log.is_empty() && self.behind[0].is_empty()
    }

    fn freeze(&mut self) {
        self.layers
            .change(|stack| stack.frozen = Arc::new(take(&mut stack.current)));
        let behind = take(&mut self.behind[0]);
        self.behind[1].extend(behind);
        self.frozen_bytes = self.log.bytes();
        self.log.begin_next();
        self.unsettled = true;
    }

    fn note_bytes(&self) {
        let bytes = self.frozen_bytes + self.log.bytes();
        self.layers.log_bytes.store(bytes, Relaxed);
    }

    /// Begins to write what is frozen to LMDB.
    fn begin_checkpoint(&mut self) {
        let next = self.log.generation();
        let frozen = Arc::clone(&self.layers.hold().frozen);
        let mut transactor = self.direct.transactor.clone();
        let thread = thread::Builder::new().name("partha-checkpoint".to_owned());
        match thread.spawn(move || checkpoint(&mut transactor, &frozen, next)) {
            Ok(thread) => self.checkpoint = Some(thread),
            Err(error) => {
                tracing::warn!(%error, "cannot start the thread that writes the log to LMDB");
                self.failed_at = Some(Instant::now());
            }
        }
    }

    /// Takes note of a checkpoint that has ended, and begins one that failed again.
    fn look_after_checkpoint(&mut self) {
        if self
            .checkpoint
            .as_ref()
            .is_some_and(JoinHandle::is_finished)
        {
            self.await_checkpoint();
        }
        let is_over = |at: Instant| at.elapsed() >= PAUSE;
        if self.checkpoint.is_none() && self.failed_at.is_some_and(is_over) {
            self.begin_checkpoint();
        }
    }

    /// Waits for a checkpoint that is being made.
    fn await_checkpoint(&mut self) {
        let Some(thread) = self.checkpoint.take() else {
            return;
        };
        let ended = thread.join().unwrap_or_else(|_| {
            let reason = "writing the log to LMDB panicked".to_owned();
            Err(StoreError::Broken { reason })
        });
        self.note_checkpoint(ended.as_ref());
    }

    fn note_checkpoint(&mut self, ended: Result<&(), &StoreError>) {
        match ended {
            Ok(()) => {
                self.layers.checkpoints.fetch_add(1, Relaxed);
                self.failed_at = None;
                self.unsettled = false;
                self.frozen_bytes = 0;
                self.behind[1].clear();
                if self.behind[0].is_empty() {
                    self.behind_bytes = 0;
                }
                self.note_bytes();
                if !self.log.is_torn() {
                    self.layers.unsure.store(false, Relaxed);
                }
                let frozen = self.layers.change(|stack| take(&mut stack.frozen));
                // Not while readers wait.
                drop(frozen);
            }
            Err(error) => {
                tracing::warn!(%error, "what the log holds cannot be written to LMDB yet");
                self.failed_at = Some(Instant::now());
            }
        }
    }

    /// Writes all that the log holds to LMDB.
    fn settle(&mut self) -> Result<(), StoreError> {
        self.await_checkpoint();
        while self.unsettled || !self.is_empty() {
            if !self.unsettled {
                self.freeze();
            }
            let frozen = Arc::clone(&self.layers.hold().frozen);
            let ended = checkpoint(&mut self.direct.transactor, &frozen, self.log.generation());
            drop(frozen);
            self.note_checkpoint(ended.as_ref());
            ended?;
        }
        Ok(())
    }

    fn commit_elsewhere(&mut self, why: Aside, batches: &[Batch], sweep: Sweep) -> Outcome {
        // What they were told of may not come to be.
        self.floors.forget();
        let settled = match &why {
            Aside::Room => self.settle(),
            Aside::Log(error) => {
                tracing::error!(%error, "the log of the store is not used any more");
                self.usable = false;
                self.settle().map_err(|_| {
                    // The record may be found by the next start.
                    self.layers.unsure.store(error.outcome_unknown(), Relaxed);
                    error.clone()
                })
            }
            Aside::Store(error) => Err(error.clone()),
        };
        if settled.is_ok() && !self.usable && !self.noted_closed {
            // The next start need not read files that are damaged, perhaps, or gone.
            match self.note_closed() {
                Ok(()) => self.noted_closed = true,
                Err(error) => tracing::warn!(%error, "the next start reads the log"),
            }
        }
        match settled {
            Ok(()) => self.direct.commit(batches, sweep),
            Err(error) => Outcome::failed(batches.len(), &error),
        }
    }

    /// Notes that there is nothing in the log that LMDB does not hold.
    fn note_closed(&mut self) -> Result<(), StoreError> {
        let need_bytes = self.direct.transactor.estimate_layers(0, 1)?;
        self.direct.transactor.transact(need_bytes, &[], |change| {
            put_number(change, LOG_OPEN_KEY, 0)?;
            Ok(((), true))
        })
    }
}

impl Drop for LoggedBackend {
    fn drop(&mut self) {
        self.await_checkpoint();
    }
}

/// Writes the changes to LMDB, with the first generation of the log that it does not hold then.
fn checkpoint(transactor: &mut Transactor, changes: &Changes, next: u64) -> Result<(), StoreError> {
    crash_point!("store/checkpoint/before");
    let need_bytes = transactor.estimate_layers(changes.bytes(), changes.entries())?;
    transactor.transact(need_bytes, &[], |change| {
        for (table, key, value) in changes.iter() {
            match value {
                Some(value) => change.put(table, key, value)?,
                None => change.remove(table, key)?,
            }
        }
        put_number(change, LOG_KEY, next)?;
        Ok(((), true))
    })?;
    crash_point!("store/checkpoint/after");
    Ok(())
}

#[cfg(test)]
mod tests;
