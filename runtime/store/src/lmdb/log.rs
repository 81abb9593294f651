//! The log in front of LMDB: what a set of batches changed is durable with one write to it.
//!
//! LMDB waits for the disk twice a commit, for its pages and then for its meta page. The log waits
//! once, for a run of blocks that the file system knows already. What is in the log and not in
//! LMDB is kept in memory, and written to LMDB in one transaction now and then; see
//! [`super::logged`].
//!
//! Two files take turns, one *generation* of records each, so that one can be filled while what
//! the other holds is written to LMDB. A generation is in the file of its parity. LMDB's table
//! `meta` has the first generation that it does not hold; records of older ones are leftovers.
//!
//! A file grows by zeros, up to its limit, and is used again from its start: a write into it then
//! changes neither its length nor its blocks.
//!
//! What is found after a crash: the records of a generation follow each other from the start of
//! the file. The first one that is not sound is a write that the crash cut short, unless sound
//! ones of the same generation, or the next generation, show that it was once whole: that is
//! damage. So are a file that is shorter than it was, or that is in the place of the other one.
//! Only if the end of the records is damaged, from some point to the last one, can that not be
//! told from a write that was cut short, as with any log.

mod record;

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use self::record::{Place, Record, STEP};
use super::folder::{disk_error, io_error};
use super::gate::{FileId, file_id};
use crate::StoreError;
use crate::layers::Changes;
use crate::tables::Table;

/// The files, by the parity of the generations in them.
pub(super) const FILES: [&str; 2] = ["log-0", "log-1"];
/// A file grows by this.
const GROWTH_BYTES: u64 = 512 << 10;
/// A file that has been used is no shorter.
const LEAST_BYTES: u64 = 4 << 10;

/// Where a log begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    /// The random number of this life of the store.
    pub(super) life: u64,
    /// The first generation that LMDB does not hold.
    pub(super) generation: u64,
    /// Each file was at least that long.
    pub(super) file_bytes: u64,
}

/// The log as it is written.
#[derive(Debug)]
pub(super) struct Log {
    life: u64,
    files: [LogFile; 2],
    /// The longest that a file may become.
    file_bytes_max: u64,
    generation: u64,
    /// Records in this generation.
    records: u64,
    /// Records in the generation before.
    before: u64,
    /// A write failed, and may have written.
    torn: bool,
    /// Where the next record goes.
    at: u64,
}

/// The open files.
#[derive(Debug)]
pub(super) struct Files([LogFile; 2]);

impl Files {
    /// Opens the files in `dir`, which are made if need be. The caller makes the names durable.
    /// None if the disk has no room for the little that they have at least, so that it is noticed
    /// when they are emptied.
    pub(super) fn open(dir: &Path, file_bytes_max: u64) -> Result<Option<Self>, StoreError> {
        let [first, second] = FILES.map(|name| LogFile::open(dir.join(name)));
        let mut files = [first?, second?];
        for file in &mut files {
            if !file.grow(LEAST_BYTES.min(file_bytes_max), file_bytes_max)? {
                return Ok(None);
            }
        }
        Ok(Some(Self(files)))
    }

    /// The length of the shorter one.
    pub(super) fn file_bytes(&self) -> u64 {
        self.0[0].bytes.min(self.0[1].bytes)
    }
}

#[derive(Debug)]
struct LogFile {
    file: File,
    id: FileId,
    path: PathBuf,
    bytes: u64,
}

impl Log {
    /// A log in these files, none of which LMDB needs.
    pub(super) fn new(files: Files, start: Start, file_bytes_max: u64) -> Self {
        Self {
            life: start.life,
            files: files.0,
            file_bytes_max,
            generation: start.generation,
            records: 0,
            before: 0,
            torn: false,
            at: 0,
        }
    }

    /// The generation that is being written.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Bytes of records in the generation.
    pub(super) fn bytes(&self) -> u64 {
        self.at
    }

    /// Whether the file surely has no record of the generation.
    pub(super) fn is_empty(&self) -> bool {
        self.records == 0 && !self.torn
    }

    /// Whether the file may have a record behind those that were written.
    pub(super) fn is_torn(&self) -> bool {
        self.torn
    }

    /// Ends the generation. LMDB must have the one before it, which the next one is written over.
    pub(super) fn begin_next(&mut self) {
        self.generation += 1;
        self.before = self.records;
        self.records = 0;
        self.torn = false;
        self.at = 0;
    }

    fn place(&self) -> Place {
        Place {
            life: self.life,
            generation: self.generation,
            number: self.records,
            before: self.before,
            file_bytes: self.files[parity(self.generation)].bytes,
        }
    }

    /// Makes the changes durable. False if the file has no room for them.
    ///
    /// # Errors
    /// `Io`: they may be on disk or not, and nothing may be written behind them. `TooLarge`.
    pub(super) fn append(&mut self, changes: &Changes) -> Result<bool, StoreError> {
        let end = self.at + record::len(changes) as u64;
        let file = &mut self.files[parity(self.generation)];
        file.check_place()?;
        if end > self.file_bytes_max || !file.grow(end, self.file_bytes_max)? {
            return Ok(false);
        }
        let bytes = record::encode(self.place(), changes)?;
        let file = &self.files[parity(self.generation)];
        let failed = |source| StoreError::Io {
            what: "cannot write",
            path: file.path.clone(),
            outcome_unknown: true,
            source: std::sync::Arc::new(source),
        };
        self.torn = true;
        file.file.write_all_at(&bytes, self.at).map_err(failed)?;
        self.torn = false;
        self.at = end;
        self.records += 1;
        Ok(true)
    }
}

#[cfg(test)]
impl Log {
    /// Where [`Log::append`] would write what.
    pub(super) fn next_record(&self, changes: &Changes) -> (PathBuf, u64, Vec<u8>) {
        let bytes = record::encode(self.place(), changes).unwrap();
        let path = self.files[parity(self.generation)].path.clone();
        (path, self.at, bytes)
    }

    /// Lets writes fail from now on.
    pub(super) fn refuse_writes(&mut self) {
        for file in &mut self.files {
            file.file = File::open(&file.path).unwrap();
        }
    }
}

impl LogFile {
    fn open(path: PathBuf) -> Result<Self, StoreError> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            // As LMDB does: what is in it is nobody else's business.
            .mode(0o600)
            // A write returns when it is on disk.
            .custom_flags(OFlags::DSYNC.bits().cast_signed())
            .open(&path);
        let file = file.map_err(|source| disk_error("cannot open", &path, source, false))?;
        let metadata = file.metadata();
        let metadata = metadata.map_err(|source| io_error("cannot look at", &path, source))?;
        Ok(Self {
            file,
            id: file_id(&metadata),
            path,
            bytes: metadata.len(),
        })
    }

    /// An error if the next start would not find what is written to the file.
    fn check_place(&self) -> Result<(), StoreError> {
        let there = std::fs::metadata(&self.path);
        if there.is_ok_and(|there| file_id(&there) == self.id) {
            return Ok(());
        }
        let gone = io::Error::other("it was taken away or replaced while it was open");
        Err(io_error("cannot write", &self.path, gone))
    }

    /// Makes the file long enough for `end`. False if the disk has no room.
    fn grow(&mut self, end: u64, bytes_max: u64) -> Result<bool, StoreError> {
        if end <= self.bytes {
            return Ok(true);
        }
        let step = if end > LEAST_BYTES { GROWTH_BYTES } else { 1 };
        let wanted = end.next_multiple_of(step).min(bytes_max).max(end);
        let zeros = vec![0; usize::try_from(wanted - self.bytes).unwrap_or(usize::MAX)];
        let written = self.file.write_all_at(&zeros, self.bytes);
        match written.map_err(|source| disk_error("cannot write", &self.path, source, false)) {
            Ok(()) => {
                self.bytes = wanted;
                Ok(true)
            }
            Err(StoreError::Full { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn parity(generation: u64) -> usize {
    (generation % 2) as usize
}

/// What was found after a crash.
#[derive(Debug)]
pub(super) struct Found {
    files: Vec<Vec<u8>>,
    life: u64,
    /// The first generation that LMDB does not hold.
    first: u64,
    /// Ends of the records of that one and of the next.
    ends: [usize; 2],
    /// The first generation that was never written.
    pub(super) next: u64,
}

/// Reads what LMDB does not hold: all from where the log of the life before began.
///
/// # Errors
/// `Corrupt` if something that was once acknowledged is damaged or lost; with `accept_older` the
/// log is left out from there on instead.
pub(super) fn find(dir: &Path, start: Start, accept_older: bool) -> Result<Found, StoreError> {
    let first = start.generation;
    let mut files = Vec::new();
    for generation in [first, first + 1] {
        let path = dir.join(FILES[parity(generation)]);
        files.push(match std::fs::read(&path) {
            Ok(bytes) if (bytes.len() as u64) < start.file_bytes && !accept_older => {
                return Err(too_short(generation, bytes.len(), start.file_bytes));
            }
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound && accept_older => Vec::new(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(damaged(generation, 0, "no file".to_owned()));
            }
            Err(source) => return Err(io_error("cannot read", &path, source)),
        });
    }
    let mut found = Found {
        files,
        life: start.life,
        first,
        ends: [0; 2],
        next: first + 2,
    };
    match found.check() {
        Ok(torn) => {
            for (generation, at) in torn {
                tracing::warn!(generation, at, "the last write to the log was cut short");
            }
            Ok(found)
        }
        Err(error) if accept_older => {
            tracing::warn!(%error, "what comes after it in the log is left out");
            Ok(found)
        }
        Err(error) => Err(error),
    }
}

/// Whether there are files of a log in a folder with anything in them.
pub(super) fn is_in(dir: &Path) -> bool {
    FILES.iter().any(|name| {
        let mut start = [0; 8];
        let file = File::open(dir.join(name));
        file.is_ok_and(|file| file.read_exact_at(&mut start, 0).is_ok())
            && record::looks_like_one(&start)
    })
}

impl Found {
    /// Looks for the ends of both generations, and for damage. Answers with what looks like writes
    /// that were cut short: generation, and byte of its file.
    fn check(&mut self) -> Result<Vec<(u64, usize)>, StoreError> {
        let (mut counts, mut torn) = ([0, 0], Vec::new());
        for index in 0..2 {
            let generation = self.first + index as u64;
            let bytes = &self.files[index];
            let (mut at, mut before) = (0, None);
            while let Some(record) = bytes
                .get(at..)
                .and_then(|rest| record::decode(rest, self.life))
            {
                let place = record.place;
                if (place.generation, place.number) != (generation, counts[index]) {
                    break;
                }
                if place.file_bytes > bytes.len() as u64 {
                    return Err(too_short(generation, bytes.len(), place.file_bytes));
                }
                before = before.or(Some(place.before));
                counts[index] += 1;
                at += record.len;
            }
            if index == 1 && before.is_some_and(|before| before != counts[0]) {
                let found = format!("{} records of {}", counts[0], before.unwrap_or_default());
                return Err(damaged(self.first, self.ends[0], found));
            }
            self.ends[index] = at;
            torn.extend(self.check_behind(index, at)?);
        }
        Ok(torn)
    }

    /// There must be no sound record of what LMDB does not hold behind the last, of this
    /// generation or of one that belongs into the other file. Answers with the first one that is
    /// not sound.
    fn check_behind(&self, index: usize, end: usize) -> Result<Option<(u64, usize)>, StoreError> {
        let generation = self.first + index as u64;
        let bytes = &self.files[index];
        let mut torn = None;
        for at in (end..bytes.len()).step_by(STEP) {
            let told = record::told_generation(&bytes[at..], self.life);
            if told.is_none_or(|told| told < self.first) {
                continue;
            }
            if record::decode(&bytes[at..], self.life).is_some() {
                let found = format!("no record, but one at {at}");
                return Err(damaged(generation, end, found));
            }
            torn = torn.or(Some((generation, at)));
        }
        Ok(torn)
    }

    /// Goes through all changes in the order in which they were made.
    pub(super) fn each(
        &self,
        mut change: impl FnMut(Table, &[u8], Option<&[u8]>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        for (index, bytes) in self.files.iter().enumerate() {
            let mut at = 0;
            while at < self.ends[index] {
                let generation = self.first + index as u64;
                let record = self.record(bytes, at, generation)?;
                if !record.each(&mut change)? {
                    let found = "a record that is not made of changes".to_owned();
                    return Err(damaged(generation, at, found));
                }
                at += record.len;
            }
        }
        Ok(())
    }

    fn record<'r>(
        &self,
        bytes: &'r [u8],
        at: usize,
        generation: u64,
    ) -> Result<Record<'r>, StoreError> {
        let record = record::decode(&bytes[at..], self.life);
        record.ok_or_else(|| damaged(generation, at, "a record that changed".to_owned()))
    }

    /// Bytes of records.
    pub(super) fn bytes(&self) -> usize {
        self.ends.iter().sum()
    }
}

fn too_short(generation: u64, len: usize, expected: u64) -> StoreError {
    let found = format!("{len} bytes, it had at least {expected}");
    damaged(generation, len, found)
}

fn damaged(generation: u64, at: usize, found: String) -> StoreError {
    StoreError::Corrupt {
        what: "the store's log",
        key: format!(
            "{}, byte {at}, generation {generation}",
            FILES[parity(generation)]
        ),
        found,
    }
}
