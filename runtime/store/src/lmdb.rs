//! The store of nodes: LMDB in a folder of its own.
//!
//! LMDB gives what the seam asks for almost by itself: a batch is a transaction, a reader sees a
//! committed state and never waits. Added here: a checked file ([`check`]), one store a folder
//! ([`folder`]), a map that grows ([`gate`]), full disks ([`backend`]), identity, and a log that
//! waits for the disk once where LMDB does twice ([`log`], [`logged`]).
//!
//! Only LMDB's default flags are used: every other choice loses commits or the file when the
//! power fails. Read transactions are not bound to threads and end before a read returns.

mod backend;
mod check;
mod folder;
mod gate;
mod log;
mod logged;
mod pages;
mod view;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use partha_core::id::{CallId, ClassId, Epoch, Incarnation, NodeId, Peer, Uid};

use self::backend::{LmdbBackend, Transactor};
use self::check::Checks;
use self::folder::{Folder, io_error};
use self::gate::Gate;
use self::log::{Files, Found, Log, Start};
use self::logged::{Layers, LoggedBackend};
use crate::batch::Batch;
use crate::fence::Fences;
use crate::format::{self, OLDEST_STORE_FORMAT, STORE_FORMAT};
use crate::group::{
    ActionCursor, ActionPage, GroupCheckpoint, GroupDecision, GroupRecord, GroupState, Part,
};
use crate::place::{KeptReply, Place, ReplyCursor, ReplyNames, ReplyPage, RowPage};
use crate::store::{Completion, Decision, ObjectStore, Prepared, Record, SavedReply};
use crate::tables::{Reads, Table, Writes};
use crate::usage::Usage;
use crate::writer::{Limits, Writer};
use crate::{StoreError, queries};

const FORMAT_KEY: &[u8] = b"format";
const NODE_KEY: &[u8] = b"node";
const INCARNATION_KEY: &[u8] = b"incarnation";
/// The first generation of the log that is not in LMDB.
const LOG_KEY: &[u8] = b"log";
/// The random number of the life of the store that may have left something there.
const LOG_LIFE_KEY: &[u8] = b"log_life";
/// The length that each file of the log had at least.
const LOG_BYTES_KEY: &[u8] = b"log_bytes";
/// 1 while there may be something in the log, 0 after it was closed.
const LOG_OPEN_KEY: &[u8] = b"log_open";

/// How to open a store. The defaults are right for a node.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LmdbOptions {
    /// The memory map at the start, in bytes; it doubles when it gets tight.
    pub map_bytes_initial: usize,
    /// The largest memory map, and with it the largest store, in bytes.
    pub map_bytes_max: usize,
    /// Batches that may wait; more are `Overloaded`.
    pub queue_batches_max: usize,
    /// Bytes that may wait; more are `Overloaded`.
    pub queue_bytes_max: usize,
    /// Batches that may share a transaction.
    pub set_batches_max: usize,
    /// Bytes after which a transaction takes no further batch.
    pub set_bytes_max: usize,
    /// The largest batch, in bytes.
    pub batch_bytes_max: usize,
    /// How often to look for expired replies when nothing else happens, in milliseconds.
    pub sweep_interval_ms: u64,
    /// Files up to this size are checked page by page when they are opened, which takes a second
    /// of the processor and more of a cold disk for each gigabyte; larger ones only at their ends,
    /// so that a node with millions of objects starts at once.
    pub check_bytes_max: u64,
    /// The largest of the two files of the log, in bytes; what they hold is in memory, too. A store
    /// without a log (0) waits for the disk twice a commit instead of once.
    pub log_bytes: u64,
    /// How long there must be nothing to do before what the log holds is written to LMDB, in
    /// milliseconds; it is written anyway when the log is full or the store is closed.
    pub log_quiet_ms: u64,
    /// Open the state before the newest commit if the newest one is lost, or what the log has
    /// before the first damage in it. For repairs.
    pub accept_older: bool,
}

impl Default for LmdbOptions {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            map_bytes_initial: 1 << 30,
            map_bytes_max: 1 << 40,
            queue_batches_max: limits.queue_batches_max,
            queue_bytes_max: limits.queue_bytes_max,
            set_batches_max: limits.set_batches_max,
            set_bytes_max: limits.set_bytes_max,
            batch_bytes_max: limits.batch_bytes_max,
            sweep_interval_ms: limits.sweep_interval_ms,
            check_bytes_max: 256 << 20,
            log_bytes: 8 << 20,
            log_quiet_ms: 1000,
            accept_older: false,
        }
    }
}

impl LmdbOptions {
    fn limits(&self) -> Limits {
        Limits {
            queue_batches_max: self.queue_batches_max,
            queue_bytes_max: self.queue_bytes_max,
            set_batches_max: self.set_batches_max,
            set_bytes_max: self.set_bytes_max,
            batch_bytes_max: self.batch_bytes_max,
            sweep_interval_ms: self.sweep_interval_ms,
        }
    }
}

/// A store in an LMDB file.
#[derive(Debug)]
pub struct LmdbStore {
    identity: Peer,
    gate: Arc<Gate>,
    layers: Arc<Layers>,
    fences: Arc<Fences>,
    writer: Writer,
    /// Given up when the store is closed.
    folder: Mutex<Option<Arc<Folder>>>,
}

impl LmdbStore {
    /// Opens the store in the folder `dir`, which is made if there is none, with the defaults.
    ///
    /// # Errors
    /// As [`LmdbStore::open_with`].
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_with(dir, &LmdbOptions::default())
    }

    /// Opens the store in the folder `dir`, which is made if there is none. The incarnation is
    /// raised and on disk when this returns. A store of an older format is brought up to this
    /// one; the version that made it cannot open it any more.
    ///
    /// # Errors
    /// `InUse` if another store has the folder; `Corrupt` if the file is damaged; `Version` if a
    /// newer version made it; `Full`, `Io` if the disk does
    /// not play along.
    pub fn open_with(dir: impl AsRef<Path>, options: &LmdbOptions) -> Result<Self, StoreError> {
        let folder = Arc::new(Folder::take(dir.as_ref())?);
        let checks = Checks {
            whole_bytes_max: options.check_bytes_max,
            accept_older: options.accept_older,
        };
        let summary = check::check_file(&folder.data_file(), checks)?;
        if summary.is_none() && !options.accept_older && log::is_in(folder.path()) {
            return Err(StoreError::Corrupt {
                what: "the store's file data.mdb",
                key: "the whole file".to_owned(),
                found: "no file, or an empty one, beside the log of a store".to_owned(),
            });
        }
        let used = summary.map_or(0, |summary| summary.used_bytes);
        let used = usize::try_from(used).unwrap_or(usize::MAX / 4);
        let map_bytes = options.map_bytes_initial.max(used.saturating_add(used / 2));
        let gate = Gate::open(folder.path(), map_bytes, options.map_bytes_max)?;
        if summary.is_none() {
            folder.sync()?;
        }
        let gate = Arc::new(gate);
        let mut transactor = Transactor::new(Arc::clone(&folder), Arc::clone(&gate));
        let left = find_log(&gate, options.accept_older)?;
        let files = open_log(&folder, options.log_bytes)?;
        let (identity, start) = begin_life(&mut transactor, left.as_ref(), files.as_ref())?;
        tracing::info!(
            node = %identity.node,
            incarnation = %identity.incarnation,
            used_bytes = used,
            log_bytes = left.as_ref().map_or(0, Found::bytes),
            checked_whole = summary.is_none_or(|summary| summary.whole),
            dir = %folder.path().display(),
            "store opened"
        );
        drop(left);
        let fences = Arc::new(Fences::new(identity.incarnation));
        let layers = Arc::<Layers>::default();
        let backend = LmdbBackend {
            transactor,
            fences: Arc::clone(&fences),
        };
        let (limits, started) = (options.limits(), Arc::clone(&fences));
        let writer = match files {
            None => Writer::start(backend, started, limits),
            Some(files) => {
                let log = Log::new(files, start, options.log_bytes);
                let above = Arc::clone(&layers);
                let backend = LoggedBackend::new(backend, above, log, options);
                Writer::start(backend, started, limits)
            }
        };
        let what = "cannot start the store thread for";
        let writer = writer.map_err(|source| io_error(what, folder.path(), source))?;
        Ok(Self {
            identity,
            gate,
            layers,
            fences,
            writer,
            folder: Mutex::new(Some(folder)),
        })
    }

    /// Reads what is committed, in LMDB or in the log.
    fn read<R>(
        &self,
        query: impl FnOnce(&logged::View<'_>) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        self.layers.read(&self.gate, query)
    }
}

/// What an earlier life left in the log; none if it was closed.
fn find_log(gate: &Gate, accept_older: bool) -> Result<Option<Found>, StoreError> {
    let left = gate.enter().read(|view| {
        if number(view, LOG_OPEN_KEY)?.unwrap_or(0) == 0 {
            return Ok(None);
        }
        Ok(Some(Start {
            life: required(view, LOG_LIFE_KEY)?,
            generation: required(view, LOG_KEY)?,
            file_bytes: required(view, LOG_BYTES_KEY)?,
        }))
    })?;
    left.map(|start| log::find(gate.dir(), start, accept_older))
        .transpose()
}

/// The files of the log; none if there is to be none, or if the disk has no room for their names.
fn open_log(folder: &Folder, log_bytes: u64) -> Result<Option<Files>, StoreError> {
    if log_bytes == 0 {
        return Ok(None);
    }
    match Files::open(folder.path(), log_bytes) {
        Ok(Some(files)) => return folder.sync().map(|()| Some(files)),
        Ok(None) | Err(StoreError::Full { .. }) => {}
        Err(error) => return Err(error),
    }
    tracing::warn!("the disk is full: the store is used without a log");
    Ok(None)
}

/// Makes the node's id in a new store; raises the incarnation in any. What was left in the log is
/// in LMDB then. Answers with the identity, and where the log of this life begins.
fn begin_life(
    transactor: &mut Transactor,
    left: Option<&Found>,
    files: Option<&Files>,
) -> Result<(Peer, Start), StoreError> {
    let left_bytes = left.map_or(0, Found::bytes);
    let need_bytes = transactor.estimate_layers(left_bytes, left_bytes / 64 + 8)?;
    let life = random_number()?;
    let file_bytes = files.map_or(0, Files::file_bytes);
    transactor.transact(need_bytes, &[], |change| {
        let identity = raise_incarnation(change)?;
        let mut generation = number(change, LOG_KEY)?.unwrap_or(1);
        if let Some(left) = left {
            left.each(|table, key, value| match value {
                Some(value) => change.put(table, key, value),
                None => change.remove(table, key),
            })?;
            generation = left.next;
        }
        put_number(change, LOG_KEY, generation)?;
        put_number(change, LOG_LIFE_KEY, life)?;
        put_number(change, LOG_BYTES_KEY, file_bytes)?;
        put_number(change, LOG_OPEN_KEY, files.is_some().into())?;
        let start = Start {
            life,
            generation,
            file_bytes,
        };
        Ok(((identity, start), true))
    })
}

fn raise_incarnation(change: &mut impl Writes) -> Result<Peer, StoreError> {
    let identity = match number(change, FORMAT_KEY)? {
        None => {
            // 0 stands for no node.
            let node = NodeId(random_number()?.max(1));
            put_number(change, NODE_KEY, node.0)?;
            Peer {
                node,
                incarnation: Incarnation(1),
            }
        }
        Some(found) if !is_known(found) => {
            let found = u32::try_from(found).unwrap_or(u32::MAX);
            return Err(StoreError::Version {
                found,
                expected: STORE_FORMAT,
            });
        }
        Some(_) => {
            let node = NodeId(required(change, NODE_KEY)?);
            let next = required(change, INCARNATION_KEY)?.saturating_add(1);
            let next = u32::try_from(next).unwrap_or(u32::MAX);
            if Incarnation(next) > Incarnation::MAX {
                let cure = "move its objects to a node with a new store";
                return Err(StoreError::Exhausted {
                    what: "the node's incarnation",
                    cure,
                });
            }
            Peer {
                node,
                incarnation: Incarnation(next),
            }
        }
    };
    // All that an older format lacks are tables, which were made when it was opened, and a log.
    put_number(change, FORMAT_KEY, STORE_FORMAT.into())?;
    put_number(change, INCARNATION_KEY, identity.incarnation.0.into())?;
    Ok(identity)
}

fn is_known(format: u64) -> bool {
    (OLDEST_STORE_FORMAT.into()..=STORE_FORMAT.into()).contains(&format)
}

fn number(tables: &impl Reads, key: &[u8]) -> Result<Option<u64>, StoreError> {
    tables
        .value(Table::Meta, key)?
        .map(|value| format::unseal_number(key, value))
        .transpose()
}

fn required(tables: &impl Reads, key: &[u8]) -> Result<u64, StoreError> {
    let missing = || format::corrupt(format::Kind::Meta, key, "nothing".to_owned());
    number(tables, key)?.ok_or_else(missing)
}

fn put_number(tables: &mut impl Writes, key: &[u8], number: u64) -> Result<(), StoreError> {
    let value = format::seal_number(key, number)?;
    tables.put(Table::Meta, key, &value)
}

/// 64 random bits from the system.
fn random_number() -> Result<u64, StoreError> {
    let path = Path::new("/dev/urandom");
    let mut bytes = [0; 8];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|source| io_error("cannot read random bytes from", path, source))?;
    Ok(u64::from_ne_bytes(bytes))
}

impl ObjectStore for LmdbStore {
    fn identity(&self) -> Peer {
        self.identity
    }

    fn read_state(&self, uid: Uid) -> Result<Option<Record>, StoreError> {
        self.read(|view| queries::read_state(view, uid))
    }

    fn activate(&self, uid: Uid) -> Result<Option<(Record, Epoch)>, StoreError> {
        self.fences.activate_with(uid, || self.read_state(uid))
    }

    fn deactivate(&self, uid: Uid, epoch: Epoch) {
        self.fences.deactivate(uid, epoch);
    }

    fn read_row(&self, uid: Uid, part: u16, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.read(|view| queries::read_row(view, uid, part, key))
    }

    fn scan_rows(
        &self,
        uid: Uid,
        part: u16,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.read(|view| queries::scan_rows(view, uid, part, after, limit))
    }

    fn count_rows(&self, uid: Uid, part: u16) -> Result<u64, StoreError> {
        self.read(|view| queries::count_rows(view, uid, part))
    }

    fn read_reply(&self, call: CallId) -> Result<Option<SavedReply>, StoreError> {
        self.read(|view| queries::read_reply(view, call))
    }

    fn has_reply_since(&self, call: CallId) -> Result<bool, StoreError> {
        self.read(|view| queries::has_reply_since(view, call))
    }

    fn read_shadow(&self, action: Uid, uid: Uid) -> Result<Option<Record>, StoreError> {
        self.read(|view| queries::read_shadow(view, action, uid))
    }

    fn scan_shadows(
        &self,
        after: Option<(Uid, Uid)>,
        limit: usize,
    ) -> Result<Vec<(Uid, Uid)>, StoreError> {
        self.read(|view| queries::scan_shadows(view, after, limit))
    }

    fn shadowed_objects(&self, action: Uid) -> Result<Vec<Uid>, StoreError> {
        self.read(|view| queries::shadowed_objects(view, action))
    }

    fn scan_prepared(&self, after: Option<Uid>, limit: usize) -> Result<Vec<Prepared>, StoreError> {
        self.read(|view| queries::scan_prepared(view, after, limit))
    }

    fn read_decision(&self, action: Uid) -> Result<Option<Decision>, StoreError> {
        self.read(|view| queries::read_decision(view, action))
    }

    fn scan_decisions(
        &self,
        after: Option<Uid>,
        limit: usize,
    ) -> Result<Vec<(Uid, Decision)>, StoreError> {
        self.read(|view| queries::scan_decisions(view, after, limit))
    }

    fn scan_objects(
        &self,
        after: Option<Uid>,
        limit: usize,
    ) -> Result<Vec<(Uid, ClassId)>, StoreError> {
        self.read(|view| queries::scan_objects(view, after, limit))
    }

    fn read_place(&self, uid: Uid) -> Result<Option<Place>, StoreError> {
        self.read(|view| queries::read_place(view, uid))
    }

    fn scan_places(
        &self,
        after: Option<Uid>,
        limit: usize,
    ) -> Result<Vec<(Uid, Place)>, StoreError> {
        self.read(|view| queries::scan_places(view, after, limit))
    }

    fn scan_untold(
        &self,
        after: Option<Uid>,
        limit: usize,
    ) -> Result<Vec<(Uid, Place)>, StoreError> {
        self.read(|view| queries::scan_untold(view, after, limit))
    }

    fn export_rows(
        &self,
        uid: Uid,
        after: Option<(u16, &[u8])>,
        limit_bytes: usize,
    ) -> Result<RowPage, StoreError> {
        self.read(|view| queries::export_rows(view, uid, after, limit_bytes))
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
        self.read(|view| queries::replies_of(view, walk, from))
    }

    fn reply_names(&self, keep_ms: u64, from: ReplyCursor) -> Result<ReplyNames, StoreError> {
        // As above.
        let now_ms = self.writer.set_ms();
        self.read(|view| queries::reply_names(view, (keep_ms, now_ms), from))
    }

    fn kept_replies(
        &self,
        uid: Uid,
        calls: &[CallId],
        limit_bytes: usize,
    ) -> Result<(Vec<KeptReply>, usize), StoreError> {
        let now_ms = self.writer.set_ms();
        self.read(|view| queries::kept_replies(view, (uid, now_ms), calls, limit_bytes))
    }

    fn read_group(&self, uid: Uid) -> Result<Option<GroupRecord>, StoreError> {
        self.read(|view| queries::read_group(view, uid))
    }

    fn scan_groups(&self, after: Option<Uid>, limit: usize) -> Result<Vec<Uid>, StoreError> {
        self.read(|view| queries::scan_groups(view, after, limit))
    }

    fn read_entry(&self, uid: Uid, index: u64) -> Result<Option<Bytes>, StoreError> {
        self.read(|view| queries::read_entry(view, uid, index))
    }

    fn group_state(&self, uid: Uid) -> Result<Option<GroupState>, StoreError> {
        self.read(|view| queries::group_state(view, uid))
    }

    fn export_actions(
        &self,
        uid: Uid,
        from: ActionCursor,
        limit_bytes: usize,
    ) -> Result<ActionPage, StoreError> {
        self.read(|view| queries::export_actions(view, uid, from, limit_bytes))
    }

    fn read_part(&self, uid: Uid) -> Result<Option<Part>, StoreError> {
        self.read(|view| queries::read_part(view, uid))
    }

    fn read_checkpoint(&self, uid: Uid) -> Result<Option<GroupCheckpoint>, StoreError> {
        self.read(|view| queries::read_checkpoint(view, uid))
    }

    fn read_group_decision(
        &self,
        uid: Uid,
        action: Uid,
    ) -> Result<Option<GroupDecision>, StoreError> {
        self.read(|view| queries::read_group_decision(view, uid, action))
    }

    fn unsettled(&self, uid: Uid) -> Result<Vec<(Uid, GroupDecision)>, StoreError> {
        self.read(|view| queries::unsettled(view, uid))
    }

    fn submit(&self, batch: Batch, done: Completion) {
        self.writer.submit(batch, done);
    }

    fn usage(&self) -> Usage {
        let usage = self.layers.usage(Usage {
            active: self.fences.active() as u64,
            ..self.writer.usage()
        });
        let pass = self.gate.enter();
        let Ok(opened) = pass.opened() else {
            return usage;
        };
        Usage {
            map_bytes: opened.map_bytes as u64,
            used_bytes: opened.used_bytes(),
            readers: opened.readers(),
            ..usage
        }
    }

    fn abandon(&self) {
        self.writer.abandon();
        self.close();
    }

    fn close(&self) {
        self.writer.close();
        self.gate.close();
        drop(
            self.folder
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
    }
}

impl Drop for LmdbStore {
    fn drop(&mut self) {
        self.close();
    }
}
