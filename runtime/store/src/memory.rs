//! A store in memory, for tests and embedded nodes: the code of the real one over maps instead
//! of LMDB.
//!
//! It keeps every promise of [`ObjectStore`] but survival of the process; [`MemoryStore::restart`]
//! plays a crash. On demand it holds commits back, fails them, or damages a record.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::ops::ControlFlow;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;
use partha_core::id::{CallId, ClassId, Epoch, Incarnation, NodeId, Peer, Uid};

use crate::apply::{self, Sweep};
use crate::batch::Batch;
use crate::fence::Fences;
use crate::format;
use crate::group::{
    ActionCursor, ActionPage, GroupCheckpoint, GroupDecision, GroupRecord, GroupState, Part,
};
use crate::place::{KeptReply, Place, ReplyCursor, ReplyNames, ReplyPage, RowPage};
use crate::store::{Completion, Decision, ObjectStore, Prepared, Record, SavedReply};
use crate::tables::{Range, Reads, Table, Visit, Writes};
use crate::usage::Usage;
use crate::writer::{Backend, Limits, Outcome, Writer};
use crate::{StoreError, queries};

/// A store in memory.
pub struct MemoryStore {
    identity: Peer,
    disk: Arc<Disk>,
    fences: Arc<Fences>,
    writer: Writer,
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// What stays over a restart.
#[derive(Debug, Default)]
struct Disk {
    tables: RwLock<Maps>,
    faults: Mutex<Faults>,
    released: Condvar,
}

/// The tables.
#[derive(Debug, Default)]
pub(crate) struct Maps {
    maps: [BTreeMap<Vec<u8>, Vec<u8>>; Table::ALL.len()],
    /// Only the store of this incarnation may write.
    incarnation: Incarnation,
    closed: bool,
}

#[derive(Debug, Default)]
struct Faults {
    held: bool,
    failures: Vec<StoreError>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store of a new node with a random id.
    #[must_use]
    pub fn new() -> Self {
        Self::with_node(NodeId(RandomState::new().build_hasher().finish()))
    }

    /// An empty store of this node, for tests that must be repeatable.
    #[must_use]
    pub fn with_node(node: NodeId) -> Self {
        Self::on(Arc::default(), node)
    }

    /// Plays a crash of the node: what was committed is in the new store, under the next
    /// incarnation; what was not is lost, and this store is closed.
    #[must_use]
    pub fn restart(&self) -> Self {
        let next = Self::on(Arc::clone(&self.disk), self.identity.node);
        self.release();
        next
    }

    /// Holds back every commit until [`MemoryStore::release`].
    pub fn hold(&self) {
        self.faults().held = true;
    }

    /// Lets the commits go on that were held back.
    pub fn release(&self) {
        self.faults().held = false;
        self.disk.released.notify_all();
    }

    /// Answers the next batches with these errors, one each, instead of applying them.
    pub fn fail_next(&self, errors: impl IntoIterator<Item = StoreError>) {
        self.faults().failures.extend(errors);
    }

    /// Flips a bit in the stored state of an object. False if it is not there.
    pub fn damage_state(&self, uid: Uid) -> bool {
        let mut tables = self
            .disk
            .tables
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let state = tables.maps[Table::State.index()].get_mut(&format::plain_key(uid)[..]);
        let last = state.and_then(|value| value.last_mut());
        last.map(|byte| *byte ^= 1).is_some()
    }

    fn on(disk: Arc<Disk>, node: NodeId) -> Self {
        let incarnation = {
            let mut tables = disk.tables.write().unwrap_or_else(PoisonError::into_inner);
            tables.incarnation.0 += 1;
            tables.closed = false;
            tables.incarnation
        };
        let identity = Peer { node, incarnation };
        let fences = Arc::new(Fences::new(incarnation));
        let backend = MemoryBackend {
            incarnation,
            disk: Arc::clone(&disk),
            fences: Arc::clone(&fences),
        };
        let limits = Limits {
            sweep_interval_ms: 10,
            ..Limits::default()
        };
        let writer =
            Writer::start(backend, Arc::clone(&fences), limits).expect("a thread can be started");
        Self {
            identity,
            disk,
            fences,
            writer,
        }
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.disk
            .faults
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> Result<RwLockReadGuard<'_, Maps>, StoreError> {
        let tables = self
            .disk
            .tables
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        if tables.closed || tables.incarnation != self.identity.incarnation {
            return Err(StoreError::Closed);
        }
        Ok(tables)
    }
}

impl ObjectStore for MemoryStore {
    fn identity(&self) -> Peer {
        self.identity
    }

    fn read_state(&self, uid: Uid) -> Result<Option<Record>, StoreError> {
        queries::read_state(&*self.read()?, uid)
    }

    fn activate(&self, uid: Uid) -> Result<Option<(Record, Epoch)>, StoreError> {
        self.fences.activate_with(uid, || self.read_state(uid))
    }

    fn deactivate(&self, uid: Uid, epoch: Epoch) {
        self.fences.deactivate(uid, epoch);
    }

    fn read_row(&self, uid: Uid, part: u16, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        queries::read_row(&*self.read()?, uid, part, key)
    }

    fn scan_rows(
        &self,
        uid: Uid,
        part: u16,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        queries::scan_rows(&*self.read()?, uid, part, after, limit)
    }

    fn count_rows(&self, uid: Uid, part: u16) -> Result<u64, StoreError> {
        queries::count_rows(&*self.read()?, uid, part)
    }

    fn read_reply(&self, call: CallId) -> Result<Option<SavedReply>, StoreError> {
        queries::read_reply(&*self.read()?, call)
    }

    fn has_reply_since(&self, call: CallId) -> Result<bool, StoreError> {
        queries::has_reply_since(&*self.read()?, call)
    }

    fn read_shadow(&self, action: Uid, uid: Uid) -> Result<Option<Record>, StoreError> {
        queries::read_shadow(&*self.read()?, action, uid)
    }

    fn scan_shadows(
        &self,
        after: Option<(Uid, Uid)>,
        limit: usize,
    ) -> Result<Vec<(Uid, Uid)>, StoreError> {
        queries::scan_shadows(&*self.read()?, after, limit)
    }

    fn shadowed_objects(&self, action: Uid) -> Result<Vec<Uid>, StoreError> {
        queries::shadowed_objects(&*self.read()?, action)
    }

    fn scan_prepared(&self, after: Option<Uid>, limit: usize) -> Result<Vec<Prepared>, StoreError> {
        queries::scan_prepared(&*self.read()?, after, limit)
    }

    fn read_decision(&self, action: Uid) -> Result<Option<Decision>, StoreError> {
        queries::read_decision(&*self.read()?, action)
    }

    fn scan_decisions(
        &self,
        after: Option<Uid>,
        limit: usize,
    ) -> Result<Vec<(Uid, Decision)>, StoreError> {
        queries::scan_decisions(&*self.read()?, after, limit)
    }

    fn scan_objects(
        &self,
        after: Option<Uid>,
        limit: usize,
    ) -> Result<Vec<(Uid, ClassId)>, StoreError> {
        queries::scan_objects(&*self.read()?, after, limit)
    }

    fn read_place(&self, uid: Uid) -> Result<Option<Place>, StoreError> {
        queries::read_place(&*self.read()?, uid)
    }

    fn scan_places(
        &self,
        after: Option<Uid>,
        limit: usize,
    ) -> Result<Vec<(Uid, Place)>, StoreError> {
        queries::scan_places(&*self.read()?, after, limit)
    }

    fn scan_untold(
        &self,
        after: Option<Uid>,
        limit: usize,
    ) -> Result<Vec<(Uid, Place)>, StoreError> {
        queries::scan_untold(&*self.read()?, after, limit)
    }

    fn export_rows(
        &self,
        uid: Uid,
        after: Option<(u16, &[u8])>,
        limit_bytes: usize,
    ) -> Result<RowPage, StoreError> {
        queries::export_rows(&*self.read()?, uid, after, limit_bytes)
    }

    fn replies_of(
        &self,
        uids: &BTreeSet<Uid>,
        keep_ms: u64,
        from: ReplyCursor,
        limit_bytes: usize,
    ) -> Result<ReplyPage, StoreError> {
        // Before the view: what it lacks is of this time or a later one.
        let now_ms = self.writer.set_ms();
        let walk = queries::ReplyWalk {
            uids,
            keep_ms,
            now_ms,
            limit_bytes,
        };
        queries::replies_of(&*self.read()?, walk, from)
    }

    fn reply_names(&self, keep_ms: u64, from: ReplyCursor) -> Result<ReplyNames, StoreError> {
        // As above.
        let now_ms = self.writer.set_ms();
        queries::reply_names(&*self.read()?, (keep_ms, now_ms), from)
    }

    fn kept_replies(
        &self,
        uid: Uid,
        calls: &[CallId],
        limit_bytes: usize,
    ) -> Result<(Vec<KeptReply>, usize), StoreError> {
        let now_ms = self.writer.set_ms();
        queries::kept_replies(&*self.read()?, (uid, now_ms), calls, limit_bytes)
    }

    fn read_group(&self, uid: Uid) -> Result<Option<GroupRecord>, StoreError> {
        queries::read_group(&*self.read()?, uid)
    }

    fn scan_groups(&self, after: Option<Uid>, limit: usize) -> Result<Vec<Uid>, StoreError> {
        queries::scan_groups(&*self.read()?, after, limit)
    }

    fn read_entry(&self, uid: Uid, index: u64) -> Result<Option<Bytes>, StoreError> {
        queries::read_entry(&*self.read()?, uid, index)
    }

    fn group_state(&self, uid: Uid) -> Result<Option<GroupState>, StoreError> {
        queries::group_state(&*self.read()?, uid)
    }

    fn export_actions(
        &self,
        uid: Uid,
        from: ActionCursor,
        limit_bytes: usize,
    ) -> Result<ActionPage, StoreError> {
        queries::export_actions(&*self.read()?, uid, from, limit_bytes)
    }

    fn read_part(&self, uid: Uid) -> Result<Option<Part>, StoreError> {
        queries::read_part(&*self.read()?, uid)
    }

    fn read_checkpoint(&self, uid: Uid) -> Result<Option<GroupCheckpoint>, StoreError> {
        queries::read_checkpoint(&*self.read()?, uid)
    }

    fn read_group_decision(
        &self,
        uid: Uid,
        action: Uid,
    ) -> Result<Option<GroupDecision>, StoreError> {
        queries::read_group_decision(&*self.read()?, uid, action)
    }

    fn unsettled(&self, uid: Uid) -> Result<Vec<(Uid, GroupDecision)>, StoreError> {
        queries::unsettled(&*self.read()?, uid)
    }

    fn submit(&self, batch: Batch, done: Completion) {
        self.writer.submit(batch, done);
    }

    fn usage(&self) -> Usage {
        let tables = self
            .disk
            .tables
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let entries = tables.maps.iter().flatten();
        let used = entries
            .map(|(key, value)| key.len() + value.len())
            .sum::<usize>() as u64;
        let active = self.fences.active() as u64;
        Usage {
            map_bytes: used,
            used_bytes: used,
            active,
            ..self.writer.usage()
        }
    }

    fn abandon(&self) {
        self.writer.abandon();
        self.close();
    }

    fn close(&self) {
        let ours = {
            let tables = self
                .disk
                .tables
                .read()
                .unwrap_or_else(PoisonError::into_inner);
            tables.incarnation == self.identity.incarnation
        };
        if ours {
            self.release();
        }
        self.writer.close();
        let mut tables = self
            .disk
            .tables
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if tables.incarnation == self.identity.incarnation {
            tables.closed = true;
        }
    }
}

impl Drop for MemoryStore {
    fn drop(&mut self) {
        self.close();
    }
}

struct MemoryBackend {
    incarnation: Incarnation,
    disk: Arc<Disk>,
    fences: Arc<Fences>,
}

impl MemoryBackend {
    fn is_superseded(&self) -> bool {
        let tables = self
            .disk
            .tables
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        tables.incarnation != self.incarnation
    }
}

impl Backend for MemoryBackend {
    fn commit(&mut self, batches: &[Batch], sweep: Sweep) -> Outcome {
        let mut faults = self
            .disk
            .faults
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        while faults.held && !batches.is_empty() && !self.is_superseded() {
            faults = self
                .disk
                .released
                .wait(faults)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let mut tables = self
            .disk
            .tables
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if tables.incarnation != self.incarnation {
            return Outcome::failed(batches.len(), &StoreError::Closed);
        }
        let mut outcome = Outcome::default();
        let mut changed = false;
        for batch in batches {
            if !batch.items.is_empty() && !faults.failures.is_empty() {
                outcome.results.push(Err(faults.failures.remove(0)));
                continue;
            }
            let only = Sweep { limit: 0, ..sweep };
            match apply::run(
                &mut *tables,
                std::slice::from_ref(batch),
                &self.fences,
                only,
            ) {
                Ok(applied) => {
                    outcome.results.extend(applied.results);
                    changed |= applied.changed;
                }
                Err(error) => outcome.results.push(Err(error)),
            }
        }
        if let Ok(applied) = apply::run(&mut *tables, &[], &self.fences, sweep) {
            outcome.expired = applied.expired;
            outcome.next_expiry_ms = Some(applied.next_expiry_ms);
            changed |= applied.changed;
        }
        // As where there is a disk.
        let waits = batches.is_empty() || !batches.iter().all(Batch::only_installs);
        outcome.syncs = u64::from(changed && waits);
        outcome
    }

    fn shows_installs(&self) -> bool {
        true
    }
}

impl Reads for Maps {
    fn value(&self, table: Table, key: &[u8]) -> Result<Option<&[u8]>, StoreError> {
        Ok(self.maps[table.index()].get(key).map(Vec::as_slice))
    }

    fn visit(
        &self,
        table: Table,
        range: Range<'_>,
        visitor: &mut dyn FnMut(&[u8], &[u8]) -> Visit,
    ) -> Result<(), StoreError> {
        for (key, value) in self.maps[table.index()].range::<[u8], _>(range) {
            if visitor(key, value)? == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }
}

impl Writes for Maps {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.put_owned(table, key.to_vec(), value.to_vec())
    }

    fn put_owned(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) -> Result<(), StoreError> {
        self.maps[table.index()].insert(key, value);
        Ok(())
    }

    fn remove(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        self.maps[table.index()].remove(key);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
