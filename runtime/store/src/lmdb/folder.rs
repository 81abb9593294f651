//! The folder of a store: made durably, and held by one store at a time.
//!
//! LMDB lets several processes share a file, but two nodes with one identity would be one too
//! many. An advisory lock (`flock`) on a file of our own keeps the second out; the system drops
//! it when the process ends, however it ends, so nothing stale can stay behind. Two stores of one
//! process are kept apart too, since such locks belong to the opened file and not to the process.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::statvfs;
use rustix::io::Errno;

use super::gate::DATA_FILE;
use crate::StoreError;

/// The file that is locked; it holds the number of the process.
const LOCK_FILE: &str = "lock-partha";

/// How long a process that was killed may take to be gone, with its memory and its lock: who
/// starts the next one at once need not know of that.
const DYING: Duration = Duration::from_secs(1);

/// A folder that belongs to this store until it is dropped.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    lock: File,
}

/// Locks the file, with patience for who is just going.
fn lock_soon(lock: &File) -> Result<(), TryLockError> {
    let begun = Instant::now();
    loop {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) if begun.elapsed() < DYING => {
                std::thread::sleep(Duration::from_millis(10));
            }
            ended => return ended,
        }
    }
}

impl Folder {
    /// Makes the folder if need be and takes it.
    pub(super) fn take(path: &Path) -> Result<Self, StoreError> {
        let fail = |what| move |source| io_error(what, path, source);
        fs::create_dir_all(path).map_err(fail("cannot make the store folder"))?;
        let lock_path = path.join(LOCK_FILE);
        let what = "cannot open the lock file of the store";
        let mut lock = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(|source| io_error(what, &lock_path, source))?;
        match lock_soon(&lock) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::InUse {
                    dir: path.to_owned(),
                    pid: owner(&mut lock),
                });
            }
            Err(TryLockError::Error(source)) => {
                return Err(io_error("cannot lock", &lock_path, source));
            }
        }
        // Only a hint for the message of whoever comes second; a full disk must not stop us.
        if let Err(error) = write_owner(&mut lock) {
            tracing::warn!(%error, path = %lock_path.display(), "cannot note the process number");
        }
        let path = path
            .canonicalize()
            .map_err(fail("cannot resolve the store folder"))?;
        Ok(Self { path, lock })
    }

    /// The folder.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// LMDB's data file.
    pub(super) fn data_file(&self) -> PathBuf {
        self.path.join(DATA_FILE)
    }

    /// Makes the names of new files, and of the folder itself, durable.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        let parent = self.path.parent();
        for dir in [Some(self.path()), parent].into_iter().flatten() {
            let synced = File::open(dir).and_then(|dir| dir.sync_all());
            // The parent may be unreadable for us, and then it is older than we are.
            match synced {
                Err(error) if error.kind() != io::ErrorKind::PermissionDenied => {
                    return Err(io_error("cannot sync the folder", dir, error));
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Closing the file would do, were there not perhaps a child process just being made,
        // which shares the file until it has become another program.
        let _ = self.lock.unlock();
    }
}

/// The error for a failed operation on a file before anything was written to it.
pub(super) fn io_error(what: &'static str, path: &Path, source: io::Error) -> StoreError {
    let (path, source) = (path.to_owned(), Arc::new(source));
    StoreError::Io {
        what,
        path,
        outcome_unknown: false,
        source,
    }
}

/// As [`io_error`], and `Full` if that is what it is about. LMDB reports a write that a full disk
/// cut short as an input/output error; `disk_full` tells that room was asked for in vain before.
pub(super) fn disk_error(
    what: &'static str,
    path: &Path,
    source: io::Error,
    disk_full: bool,
) -> StoreError {
    match Errno::from_io_error(&source) {
        Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => {}
        Some(Errno::IO) if disk_full => {}
        Some(_) | None => return io_error(what, path, source),
    }
    let free = statvfs(path).map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    StoreError::Full {
        path: path.to_owned(),
        free_bytes: free.unwrap_or(0),
    }
}

fn owner(lock: &mut File) -> Option<u32> {
    let mut text = String::new();
    lock.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn write_owner(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.seek(SeekFrom::Start(0))?;
    writeln!(lock, "{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_until_the_first_lets_go() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::take(dir.path()).unwrap();
        let error = Folder::take(dir.path()).unwrap_err();
        let ours = Some(std::process::id());
        assert!(
            matches!(&error, StoreError::InUse { pid, .. } if *pid == ours),
            "{error}"
        );
        drop(folder);
        Folder::take(dir.path()).unwrap();
    }

    #[test]
    fn the_number_of_a_dead_process_keeps_nobody_out() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(LOCK_FILE), "1\n").unwrap();
        Folder::take(dir.path()).unwrap();
    }
}
