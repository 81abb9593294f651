//! The open LMDB environment behind a gate.
//!
//! Readers pass through the gate side by side and never hold it for longer than a look-up. The
//! store thread shuts it to put another environment in place: with a larger map, after LMDB
//! refused to go on (`MDB_PANIC`), or none at all at the end. LMDB can resize an open
//! environment, but only while no transaction lives anywhere in the process, which takes the same
//! gate; so there is one way to do all three, and the only `unsafe` is the opening.
//!
//! The map is address space, not memory: it starts at 1 GiB and doubles when the file comes close
//! to its end, so that neither an address-space limit nor a core dump sees more than is used.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvOpenOptions, MdbError, RwTxn, WithoutTls};

use super::check::{self, Checks};
use super::folder::{disk_error, io_error};
use super::view::View;
use crate::StoreError;
use crate::tables::Table;

/// A table of bytes.
pub(super) type Rows = Database<'static, Bytes, Bytes>;

/// LMDB's name of its data file.
pub(super) const DATA_FILE: &str = "data.mdb";
/// Map sizes are multiples of this, more than any page size.
const MAP_STEP_BYTES: usize = 64 << 10;
const READERS_MAX: u32 = 1024;

/// An environment with its tables.
#[derive(Debug)]
pub(super) struct Opened {
    env: Env<WithoutTls>,
    pub(super) tables: [Rows; Table::ALL.len()],
    pub(super) page_bytes: u64,
    pub(super) map_bytes: usize,
    /// The data file, to grow it and to notice when somebody takes it away.
    pub(super) file: File,
    file_path: PathBuf,
    file_id: FileId,
}

/// Device and inode.
pub(super) type FileId = (u64, u64);

/// What is behind the gate.
#[derive(Debug)]
enum State {
    Open(Box<Opened>),
    Closed,
    Broken(String),
}

/// The gate.
#[derive(Debug)]
pub(super) struct Gate {
    dir: PathBuf,
    /// The size of the map the last time there was one.
    map_bytes: AtomicUsize,
    map_bytes_max: usize,
    /// The file of this store; another one in its place is never opened.
    file_id: FileId,
    state: RwLock<State>,
}

/// A reader inside the gate.
pub(super) struct Pass<'g>(RwLockReadGuard<'g, State>);

impl Gate {
    /// Opens the environment in `dir` with a map of at least `map_bytes`.
    pub(super) fn open(
        dir: &Path,
        map_bytes: usize,
        map_bytes_max: usize,
    ) -> Result<Self, StoreError> {
        let map_bytes_max = map_bytes_max.next_multiple_of(MAP_STEP_BYTES);
        let opened = Opened::open(dir, map_bytes.min(map_bytes_max))?;
        if opened.map_bytes > map_bytes_max {
            tracing::warn!(
                map_bytes_max,
                map_bytes = opened.map_bytes,
                "the store is over its limit"
            );
        }
        Ok(Self {
            dir: dir.to_owned(),
            map_bytes: AtomicUsize::new(opened.map_bytes),
            map_bytes_max,
            file_id: opened.file_id,
            state: RwLock::new(State::Open(Box::new(opened))),
        })
    }

    /// Enters.
    pub(super) fn enter(&self) -> Pass<'_> {
        Pass(self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The folder of the store.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The largest map that may be.
    pub(super) fn map_bytes_max(&self) -> usize {
        self.map_bytes_max
    }

    /// Replaces the environment by one with a map that is `factor` times as large. If that cannot
    /// be had the old size is, and the error is answered; if even that cannot be had the store is
    /// broken until the next attempt.
    pub(super) fn reopen(&self, factor: usize) -> Result<(), StoreError> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if let State::Closed = &*state {
            return Err(StoreError::Closed);
        }
        // The old environment must be closed before a new one can be opened.
        *state = State::Broken("it is being opened".to_owned());
        let old = self.map_bytes.load(Relaxed);
        let wanted = old.saturating_mul(factor).min(self.map_bytes_max).max(old);
        let (opened, error) = match self.open_again(wanted) {
            Err(error) if wanted > old => (self.open_again(old), Some(error)),
            opened => (opened, None),
        };
        match opened {
            Ok(opened) => {
                self.map_bytes.store(opened.map_bytes, Relaxed);
                *state = State::Open(Box::new(opened));
                error.map_or(Ok(()), Err)
            }
            Err(error) => {
                let reason = format!("it could not be opened again: {error}");
                *state = State::Broken(reason.clone());
                Err(StoreError::Broken { reason })
            }
        }
    }

    fn open_again(&self, map_bytes: usize) -> Result<Opened, StoreError> {
        let path = self.dir.join(DATA_FILE);
        let id = std::fs::metadata(&path).map(|metadata| file_id(&metadata));
        if id.ok() != Some(self.file_id) {
            let reason = format!(
                "{} was taken away or replaced while it was open",
                path.display()
            );
            return Err(StoreError::Broken { reason });
        }
        // After a failed write of its meta page LMDB leaves a mark that looks like a lost commit.
        let checks = Checks {
            whole_bytes_max: 0,
            accept_older: true,
        };
        check::check_file(&path, checks)?;
        Opened::open(&self.dir, map_bytes)
    }

    /// Closes for good.
    pub(super) fn close(&self) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = State::Closed;
    }
}

impl Pass<'_> {
    /// The environment, if there is one.
    pub(super) fn opened(&self) -> Result<&Opened, StoreError> {
        match &*self.0 {
            State::Open(opened) => Ok(opened),
            State::Closed => Err(StoreError::Closed),
            State::Broken(reason) => Err(StoreError::Broken {
                reason: reason.clone(),
            }),
        }
    }

    /// Reads in a transaction of its own.
    pub(super) fn read<R>(
        &self,
        query: impl FnOnce(&View<'_>) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        let opened = self.opened()?;
        let txn = opened
            .env
            .read_txn()
            .map_err(|error| lmdb_error("cannot read", &error))?;
        query(&View {
            txn: &txn,
            tables: &opened.tables,
        })
    }
}

impl Opened {
    fn open(dir: &Path, map_bytes: usize) -> Result<Self, StoreError> {
        let fail = |error: heed::Error| match error {
            heed::Error::Io(source) => disk_error("cannot open the store in", dir, source, false),
            error => lmdb_error("cannot open the store", &error),
        };
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(map_bytes.next_multiple_of(MAP_STEP_BYTES));
        options
            .max_dbs(Table::ALL.len() as u32)
            .max_readers(READERS_MAX);
        let env = open_env(&options, dir).map_err(fail)?;
        env.clear_stale_readers().map_err(fail)?;
        let txn = env.write_txn().map_err(fail)?;
        let tables = env.create_databases_and_commit(txn, |opener, txn| {
            let mut tables = Vec::with_capacity(Table::ALL.len());
            for table in Table::ALL {
                tables.push(opener.create_database::<Bytes, Bytes>(txn, Some(table.name()))?);
            }
            let tables = <[_; Table::ALL.len()]>::try_from(tables);
            Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(Tables(
                tables.expect("there is a table for each name"),
            )))
        });
        let tables = tables.map_err(fail)?.unwrap_commit();
        let file_path = dir.join(DATA_FILE);
        let file = File::options().read(true).write(true).open(&file_path);
        let file = file.map_err(|source| io_error("cannot open", &file_path, source))?;
        let metadata = file.metadata();
        let metadata = metadata.map_err(|source| io_error("cannot look at", &file_path, source))?;
        Ok(Self {
            page_bytes: env.unnamed_database_stat().page_size.into(),
            map_bytes: env.info().map_size,
            file_id: file_id(&metadata),
            env,
            tables,
            file,
            file_path,
        })
    }

    /// Begins a change. Only the store thread does; a second one would wait for the first.
    pub(super) fn write_txn(&self) -> Result<RwTxn<'_>, heed::Error> {
        self.env.write_txn()
    }

    /// Bytes up to the last page ever used.
    pub(super) fn used_bytes(&self) -> u64 {
        (self.env.info().last_page_number as u64 + 1) * self.page_bytes
    }

    /// The number of the newest transaction that was committed.
    pub(super) fn last_transaction(&self) -> usize {
        self.env.info().last_txn_id
    }

    /// Reader slots in use at most so far.
    pub(super) fn readers(&self) -> u32 {
        self.env.info().number_of_readers
    }

    /// The data file's length in bytes, after a check that it is still the one that is open.
    ///
    /// LMDB would go on committing to a deleted file, and would be killed by a signal when it
    /// reads behind the end of one that was cut.
    pub(super) fn file_bytes(&self) -> Result<u64, StoreError> {
        let gone = |found: String| StoreError::Broken {
            reason: format!("{} {found} while it was open", self.file_path.display()),
        };
        let metadata = std::fs::metadata(&self.file_path);
        let metadata = metadata.map_err(|error| gone(format!("was taken away ({error})")))?;
        if file_id(&metadata) != self.file_id {
            return Err(gone("was replaced".to_owned()));
        }
        Ok(metadata.len())
    }
}

/// Which file it is, whatever its name.
pub(super) fn file_id(metadata: &std::fs::Metadata) -> FileId {
    (metadata.dev(), metadata.ino())
}

struct Tables<'t>([Database<'t, Bytes, Bytes>; Table::ALL.len()]);

impl heed::OnCommit for Tables<'_> {
    type Committed = [Rows; Table::ALL.len()];

    fn on_commit(self, token: &heed::CommitToken) -> Self::Committed {
        self.0.map(|table| table.on_commit(token))
    }
}

#[expect(
    unsafe_code,
    reason = "a memory map is only sound while nobody else writes the file: the folder lock keeps \
              other stores out, flags stay at LMDB's safe defaults, the file was checked before"
)]
fn open_env(
    options: &EnvOpenOptions<WithoutTls>,
    dir: &Path,
) -> Result<Env<WithoutTls>, heed::Error> {
    // SAFETY: see the reason above.
    unsafe { options.open(dir) }
}

/// An LMDB error that is not about space.
pub(super) fn lmdb_error(what: &'static str, error: &heed::Error) -> StoreError {
    match error {
        heed::Error::Mdb(MdbError::Panic) => StoreError::Broken {
            reason: "lmdb gave up after a failed write to its meta page".to_owned(),
        },
        heed::Error::Io(_)
        | heed::Error::Mdb(_)
        | heed::Error::Encoding(_)
        | heed::Error::Decoding(_)
        | heed::Error::EnvAlreadyOpened => StoreError::Lmdb {
            what,
            text: error.to_string(),
        },
    }
}
