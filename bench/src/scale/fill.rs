//! Fills the store of a node that does not run, as fast as the store takes it.
//!
//! Objects are created in the order of their keys, in batches, through the store's own API, so
//! what stands in the store afterwards is what a node would have put there. While one batch is
//! being written the next one is encoded; no two share a transaction, since the store reserves
//! disk for the worst case of each transaction, and that grows with its items.
//!
//! ```ignore
//! let filled = fill(dir.path(), &cell::INFO, 10_000_000, |n| State { value: n }, Show::Bar)?;
//! let some = Cell::from_uid(filled.uid(1234));
//! ```
//!
//! By hand: `cargo xtask bench -- fill DIR --objects 10000000` makes cells, see `null.idl`. Ten
//! million of them take about one gigabyte, which whoever asked for them has to remove.

use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use partha::abi::{ClassInfo, Struct, message};
use partha::{Epoch, Uid};
use partha_core::id::Peer;
use partha_store::{Batch, Item, LmdbStore, ObjectStore, Record, StoreError};
use rustix::fs::statvfs;

use crate::interrupt;

/// Objects of a batch: with more the store would reserve too much disk ahead, with fewer it would
/// wait for the disk too often.
const BATCH: u64 = 20_000;
/// Where counters of identities begin; those below are for what every node has.
const FIRST: u64 = 1_000;
/// Disk to be left over by whoever fills a store, in bytes.
const SPARE_BYTES: u64 = 8 << 30;
/// And what a small fill leaves, as a multiple of what it may need: a few thousand objects can do
/// no harm on a disk that is nearly full.
const SPARE_OF_NEED: u64 = 8;
/// What an object takes on disk besides its state, at most: key, record, and a page half full.
const OVERHEAD_BYTES: u64 = 256;

/// Whether progress is shown on the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Show {
    /// A bar with the rate and the time that remains
    Bar,
    /// Nothing
    Nothing,
}

/// What was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filled {
    /// Whose store it is; the life of the one that filled it.
    pub(crate) me: Peer,
    /// How many objects.
    pub(crate) objects: u64,
    /// How long it took.
    pub(crate) took: Duration,
    /// Bytes of the file in use.
    pub(crate) used_bytes: u64,
}

impl Filled {
    /// The identity of the object with this number, from 0.
    pub(crate) fn uid(&self, number: u64) -> Uid {
        Uid::new(self.me.node, self.me.incarnation, FIRST + number)
    }
}

/// Adds so many objects of a class to the store in `dir`, which is made if there is none. Their
/// states are what `state` says of their numbers.
///
/// # Errors
/// If the disk has not enough room to spare, the store refuses a batch, or the user interrupts it;
/// what was made by then stays.
pub(crate) fn fill<S: Struct>(
    dir: &Path,
    class: &'static ClassInfo,
    objects: u64,
    state: impl Fn(u64) -> S,
    show: Show,
) -> anyhow::Result<Filled> {
    check_room(dir, objects, encode(&state(0))?.len() as u64)?;
    let store = LmdbStore::open(dir)?;
    let mut filled = Filled {
        me: store.identity(),
        objects,
        took: Duration::ZERO,
        used_bytes: 0,
    };
    let (begun, bar) = (Instant::now(), bar(objects, show));
    let mut written: Option<Answer> = None;
    for first in (0..objects).step_by(BATCH as usize) {
        interrupt::check()?;
        let count = BATCH.min(objects - first);
        let mut items = Vec::with_capacity(count as usize);
        for number in first..first + count {
            let record = Record {
                class: class.id,
                schema: class.schema,
                version: 1,
                epoch: Epoch(0),
                state: encode(&state(number))?.into(),
            };
            let uid = filled.uid(number);
            items.push(Item::Create { uid, record });
        }
        written.take().map_or(Ok(()), Answer::wait)?;
        written = Some(Answer::of(&store, Batch::new(items)));
        bar.set_position(first);
    }
    written.take().map_or(Ok(()), Answer::wait)?;
    filled.used_bytes = store.usage().used_bytes;
    store.close();
    filled.took = begun.elapsed();
    bar.finish_and_clear();
    Ok(filled)
}

/// A batch on its way to the disk.
struct Answer(mpsc::Receiver<Result<(), StoreError>>);

impl Answer {
    fn of(store: &LmdbStore, batch: Batch) -> Self {
        let (sender, receiver) = mpsc::sync_channel(1);
        // Who has given up waiting does not need the answer.
        store.submit(batch, Box::new(move |result| drop(sender.send(result))));
        Self(receiver)
    }

    fn wait(self) -> anyhow::Result<()> {
        let answer = self.0.recv().context("the store has dropped a batch")?;
        answer.context("the store has refused a batch")
    }
}

/// The bytes of a state as the store keeps them.
fn encode<S: Struct>(state: &S) -> anyhow::Result<Vec<u8>> {
    let written = message(S::DATA, S::POINTERS, |w, s| state.write(w, s));
    let (bytes, _) = written.finish().context("a state that is too large")?;
    Ok(bytes)
}

/// Refuses to fill a disk that others need.
fn check_room(dir: &Path, objects: u64, state_bytes: u64) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let disk = statvfs(dir).with_context(|| format!("cannot ask how full {} is", dir.display()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let need = objects.saturating_mul(2 * state_bytes + OVERHEAD_BYTES);
    let spare = need.saturating_mul(SPARE_OF_NEED).min(SPARE_BYTES);
    ensure!(
        free >= need.saturating_add(spare),
        "{objects} objects need up to {} MiB and {} MiB to spare, but only {} MiB are free at \
         {}: free some, or name another folder with TMPDIR",
        need >> 20,
        spare >> 20,
        free >> 20,
        dir.display()
    );
    Ok(())
}

fn bar(objects: u64, show: Show) -> ProgressBar {
    if show == Show::Nothing {
        return ProgressBar::hidden();
    }
    let rate = |state: &ProgressState, w: &mut dyn std::fmt::Write| {
        // Nobody to tell if the terminal does not take it.
        let _ = write!(w, "{:.0}/s", state.per_sec());
    };
    let style = ProgressStyle::with_template(
        "filling the store {bar:30} {human_pos} of {human_len} objects, {rate}, {eta} left",
    );
    let bar = ProgressBar::new(objects);
    bar.set_style(style.map_or_else(
        |_| ProgressStyle::default_bar(),
        |style| style.with_key("rate", rate),
    ));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generated::null::cell::{INFO, State};

    #[test]
    fn what_is_filled_is_there_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let state = |value| State { value };
        let objects = 2 * BATCH + 3;
        let filled = fill(dir.path(), &INFO, objects, state, Show::Nothing).unwrap();
        assert_eq!(filled.objects, objects);
        let store = LmdbStore::open(dir.path()).unwrap();
        for number in [0, BATCH - 1, BATCH, objects - 1] {
            let record = store.read_state(filled.uid(number)).unwrap().unwrap();
            assert_eq!(record.state, encode(&state(number)).unwrap());
            assert_eq!(record.class, INFO.id);
        }
        assert_eq!(store.read_state(filled.uid(objects)).unwrap(), None);
        let last = store
            .scan_objects(Some(filled.uid(objects - 2)), 9)
            .unwrap();
        assert_eq!(last, [(filled.uid(objects - 1), INFO.id)]);
    }

    #[test]
    fn a_disk_without_room_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let state = |value| State { value };
        let refused = fill(dir.path(), &INFO, u64::MAX, state, Show::Nothing);
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("are free"), "{refused}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
