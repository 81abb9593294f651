//! The seam: what a store offers, free of any notion of LMDB.
//!
//! Reads are synchronous and short (a look into a memory map); writes are batches that a store
//! thread takes over, so that nothing in here ever waits for a disk on the caller's thread.
//! `flush` and `close` are the exceptions, for starting and stopping.

use std::sync::mpsc;

use bytes::Bytes;
use partha_core::action::path::Site;
use partha_core::id::{CallId, ClassId, Epoch, Peer, Uid};

use crate::StoreError;
use crate::format::{self, KEY_BYTES_MAX};

/// The stored state of an object: its plain record, without rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The class of the object.
    pub class: ClassId,
    /// A hash of the schema the state was written with.
    pub schema: u64,
    /// Counts the commits of the object. The store keeps what it is given.
    pub version: u64,
    /// The activation that wrote the record.
    pub epoch: Epoch,
    /// The encoded state.
    pub state: Bytes,
}

/// The saved reply of a call that changed an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedReply {
    /// The object that was called.
    pub uid: Uid,
    /// The encoded reply.
    pub body: Bytes,
}

/// A top-level action that is prepared here: shadows of it wait for its coordinator's decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// The root action.
    pub action: Uid,
    /// Who decides.
    pub coordinator: Site,
}

/// The record that a top-level action is committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Those that have prepared and are to be told until the decision is settled; empty from
    /// then on.
    pub participants: Vec<Site>,
}

/// Called once with the fate of a batch: `Ok` after it is on disk.
///
/// It runs on the store thread, or on the submitter's when the batch is refused at once
/// (`Overloaded`, `Closed`). It must be quick and must not wait for the store.
pub type Completion = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// Changes that are applied all or nothing, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The changes; each sees the effect of those before it.
    pub items: Vec<Item>,
}

impl Batch {
    /// A batch of these items.
    #[must_use]
    pub fn new(items: Vec<Item>) -> Self {
        Self { items }
    }

    /// Adds an item at the end.
    #[must_use]
    pub fn with(mut self, item: Item) -> Self {
        self.items.push(item);
        self
    }

    /// The size by which queues and transactions are limited, in bytes.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        self.items.iter().map(Item::weight_bytes).sum()
    }

    /// Whether nobody waits for it: it only removes what is not needed any more, and recovery does
    /// that again if it is lost.
    pub(crate) fn is_idle(&self) -> bool {
        let idle = |item: &Item| match item.step() {
            Some(Step::Undo | Step::Settle) => true,
            Some(Step::Prepare | Step::Decide | Step::Install) | None => false,
        };
        !self.items.is_empty() && self.items.iter().all(idle)
    }

    /// Whether it has an item of this step.
    pub(crate) fn has(&self, step: Step) -> bool {
        self.items.iter().any(|item| item.step() == Some(step))
    }
}

impl From<Item> for Batch {
    fn from(item: Item) -> Self {
        Self { items: vec![item] }
    }
}

/// One change of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A new object. Refused with `Exists`.
    Create {
        /// The object.
        uid: Uid,
        /// Its first record.
        record: Record,
    },
    /// A new state. Refused with `NoSuchObject`, or with `Fenced` when the record's epoch is
    /// older than the stored one or is not that of the current activation in this process.
    WriteState {
        /// The object.
        uid: Uid,
        /// The record that replaces the stored one.
        record: Record,
    },
    /// The object goes, with its rows and all shadows of it. Refused with `NoSuchObject`.
    Delete {
        /// The object.
        uid: Uid,
    },
    /// Writes one row. Refused with `NoSuchObject`, `KeyTooLong`, `PartZero`.
    PutRow {
        /// The object.
        uid: Uid,
        /// The table of the object, from 1.
        part: u16,
        /// The key; rows are sorted by its bytes.
        key: Bytes,
        /// The value.
        value: Bytes,
    },
    /// Removes one row; an absent one is fine. Refused with `NoSuchObject`, `PartZero`.
    RemoveRow {
        /// The object.
        uid: Uid,
        /// The table of the object, from 1.
        part: u16,
        /// The key.
        key: Bytes,
    },
    /// Saves the reply of a call, replacing one saved before.
    SaveReply {
        /// The call.
        call: CallId,
        /// The object that was called.
        uid: Uid,
        /// The encoded reply.
        body: Bytes,
        /// How long to keep it at least, in milliseconds of the wall clock.
        keep_ms: u64,
    },
    /// Writes a prepared state beside the committed one, for an object that is there.
    /// Refused with `NoSuchObject`, and with `Fenced` as `WriteState` is.
    WriteShadow {
        /// The action that prepared it.
        action: Uid,
        /// The object.
        uid: Uid,
        /// The prepared record.
        record: Record,
    },
    /// Writes the prepared state of an object that the action makes; nobody sees the object
    /// before `CommitShadow`. Refused with `Exists`.
    CreateShadow {
        /// The action that prepared it.
        action: Uid,
        /// The object.
        uid: Uid,
        /// Its first record.
        record: Record,
    },
    /// Prepares the change of one row; nobody sees it before `CommitShadow`. A later one of the
    /// same row and action is done after it. Needs a shadow of the object by the same action,
    /// written before. Refused with `NoShadow`, `KeyTooLong`, `PartZero`.
    ShadowRow {
        /// The action that prepared it.
        action: Uid,
        /// The object.
        uid: Uid,
        /// The table of the object, from 1.
        part: u16,
        /// The key.
        key: Bytes,
        /// The row's new value; none removes the row.
        value: Option<Bytes>,
    },
    /// Notes that the action is prepared here and who decides: what recovery needs to know
    /// beside the shadows. It belongs into the batch of the shadows, and goes with them.
    Prepare {
        /// The root action.
        action: Uid,
        /// Who decides.
        coordinator: Site,
    },
    /// All shadows of the action become the states and rows of their objects, and it is no
    /// longer prepared here. Never refused for an epoch: whatever was activated or restarted
    /// meanwhile, a prepared state is final once it is decided on; an activation that did not
    /// prepare it can write no more (`EarlierWriteFailed`). No shadow at all is fine, so that a
    /// repeated decision is harmless.
    CommitShadow {
        /// The action.
        action: Uid,
    },
    /// All shadows of the action go, and it is no longer prepared here. None at all is fine.
    DeleteShadow {
        /// The action.
        action: Uid,
    },
    /// Records that the action is committed: the commit point, in one batch with what the action
    /// changed here. With participants it is kept until `Settle`, and from then on, or at once
    /// if there are none, for `keep_ms` at least.
    ///
    /// If this is answered with an error of which [`StoreError::outcome_unknown`] is true, the
    /// action may be committed: [`ObjectStore::read_decision`] tells, and nobody may be told
    /// anything before.
    Decide {
        /// The root action.
        action: Uid,
        /// Those that have prepared and are to be told.
        participants: Vec<Site>,
        /// How long to keep the outcome for those who ask, in milliseconds of the wall clock.
        keep_ms: u64,
    },
    /// Nobody is to be told of the decision any more; its time to be kept begins. An unknown
    /// action, or one settled before, is fine.
    Settle {
        /// The root action.
        action: Uid,
    },
}

impl Item {
    fn step(&self) -> Option<Step> {
        match self {
            Self::Prepare { .. } => Some(Step::Prepare),
            Self::Decide { .. } => Some(Step::Decide),
            Self::CommitShadow { .. } => Some(Step::Install),
            Self::DeleteShadow { .. } => Some(Step::Undo),
            Self::Settle { .. } => Some(Step::Settle),
            Self::Create { .. }
            | Self::WriteState { .. }
            | Self::Delete { .. }
            | Self::PutRow { .. }
            | Self::RemoveRow { .. }
            | Self::SaveReply { .. }
            | Self::WriteShadow { .. }
            | Self::CreateShadow { .. }
            | Self::ShadowRow { .. } => None,
        }
    }

    fn weight_bytes(&self) -> usize {
        const OVERHEAD: usize = 128;
        OVERHEAD
            + match self {
                Self::Create { record, .. }
                | Self::WriteState { record, .. }
                | Self::WriteShadow { record, .. }
                | Self::CreateShadow { record, .. } => record.state.len(),
                Self::PutRow { key, value, .. } => key.len() + value.len(),
                Self::RemoveRow { key, .. } => key.len(),
                Self::SaveReply { body, .. } => body.len(),
                Self::ShadowRow { key, value, .. } => {
                    key.len() + value.as_ref().map_or(0, Bytes::len)
                }
                Self::Decide { participants, .. } => participants.len() * format::SITE_BYTES,
                Self::Delete { .. }
                | Self::Prepare { .. }
                | Self::CommitShadow { .. }
                | Self::DeleteShadow { .. }
                | Self::Settle { .. } => 0,
            }
    }
}

/// What a batch is in the life of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// With a `Prepare`.
    Prepare,
    /// With a `Decide`.
    Decide,
    /// With a `CommitShadow`.
    Install,
    /// With a `DeleteShadow`.
    Undo,
    /// With a `Settle`.
    Settle,
}

impl Step {
    /// All of them, in order.
    pub(crate) const ALL: [Self; 5] = [
        Self::Prepare,
        Self::Decide,
        Self::Install,
        Self::Undo,
        Self::Settle,
    ];
}

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
    /// Batches refused or failed.
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
    /// Bytes in the log that are not known to be in LMDB yet.
    pub log_bytes: u64,
    /// How often what the log held was written to LMDB, with a sync of its own.
    pub checkpoints: u64,
    /// Reader slots in use.
    pub readers: u32,
    /// Objects active in this process.
    pub active: u64,
}

/// A store of persistent objects.
///
/// All methods may be called from any thread.
pub trait ObjectStore: Send + Sync + 'static {
    /// Who owns this store: the node id, made once at random, and the incarnation, which was
    /// raised durably when the store was opened.
    fn identity(&self) -> Peer;

    /// The committed record of an object.
    ///
    /// # Errors
    /// `Corrupt` if it is damaged; `Closed` or `Broken` if the store is.
    fn read_state(&self, uid: Uid) -> Result<Option<Record>, StoreError>;

    /// The committed record together with a new epoch, higher than any before. From now on only
    /// a write with this epoch is accepted, until [`ObjectStore::deactivate`].
    ///
    /// Waits only if a write of the same object is being committed at this moment.
    ///
    /// # Errors
    /// As [`ObjectStore::read_state`]; `Exhausted` after 2^32 activations in one incarnation.
    fn activate(&self, uid: Uid) -> Result<Option<(Record, Epoch)>, StoreError>;

    /// Ends the activation with this epoch; nothing happens if a younger one is there.
    fn deactivate(&self, uid: Uid, epoch: Epoch);

    /// One row of an object.
    ///
    /// # Errors
    /// As [`ObjectStore::read_state`]; `KeyTooLong`, `PartZero`.
    fn read_row(&self, uid: Uid, part: u16, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Up to `limit` rows in ascending order of their keys, strictly after `after`.
    ///
    /// # Errors
    /// As [`ObjectStore::read_row`]; one damaged row fails the whole scan.
    fn scan_rows(
        &self,
        uid: Uid,
        part: u16,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError>;

    /// The number of rows in a part. Costs a walk over all of them.
    ///
    /// # Errors
    /// As [`ObjectStore::read_row`].
    fn count_rows(&self, uid: Uid, part: u16) -> Result<u64, StoreError>;

    /// The saved reply of a call, if it is still kept.
    ///
    /// # Errors
    /// As [`ObjectStore::read_state`].
    fn read_reply(&self, call: CallId) -> Result<Option<SavedReply>, StoreError>;

    /// Whether a reply of the call's caller is saved under the call's number or a later one. None
    /// means that neither this call nor any that the caller numbers after it was answered here.
    ///
    /// # Errors
    /// As [`ObjectStore::read_state`].
    fn has_reply_since(&self, call: CallId) -> Result<bool, StoreError>;

    /// The shadow that `action` wrote for `uid`.
    ///
    /// # Errors
    /// As [`ObjectStore::read_state`].
    fn read_shadow(&self, action: Uid, uid: Uid) -> Result<Option<Record>, StoreError>;

    /// Up to `limit` shadows as (action, object), ascending, strictly after `after`.
    ///
    /// # Errors
    /// As [`ObjectStore::read_state`].
    fn scan_shadows(
        &self,
        after: Option<(Uid, Uid)>,
        limit: usize,
    ) -> Result<Vec<(Uid, Uid)>, StoreError>;

    /// The objects that `action` has shadows of, ascending.
    ///
    /// # Errors
    /// As [`ObjectStore::read_state`].
    fn shadowed_objects(&self, action: Uid) -> Result<Vec<Uid>, StoreError>;

    /// Up to `limit` actions that are prepared here, ascending, strictly after `after`. Recovery
    /// of a participant starts here.
    ///
    /// # Errors
    /// As [`ObjectStore::read_state`].
    fn scan_prepared(&self, after: Option<Uid>, limit: usize) -> Result<Vec<Prepared>, StoreError>;

    /// What was decided here about `action`: none means that it was not, or that it was settled
    /// longer ago than its outcome is kept.
    ///
    /// # Errors
    /// As [`ObjectStore::read_state`].
    fn read_decision(&self, action: Uid) -> Result<Option<Decision>, StoreError>;

    /// Up to `limit` decisions that are not settled, with their actions, ascending, strictly
    /// after `after`. Recovery of a coordinator starts here.
    ///
    /// # Errors
    /// As [`ObjectStore::read_state`].
    fn scan_decisions(
        &self,
        after: Option<Uid>,
        limit: usize,
    ) -> Result<Vec<(Uid, Decision)>, StoreError>;

    /// Up to `limit` objects in ascending order of their uids, strictly after `after`.
    ///
    /// # Errors
    /// As [`ObjectStore::read_state`].
    fn scan_objects(
        &self,
        after: Option<Uid>,
        limit: usize,
    ) -> Result<Vec<(Uid, ClassId)>, StoreError>;

    /// Hands a batch to the store thread. `done` is called exactly once.
    fn submit(&self, batch: Batch, done: Completion);

    /// Figures.
    fn usage(&self) -> Usage;

    /// Stops: batches submitted before are committed and answered, then the store lets go of its
    /// files. Whatever comes later is answered with `Closed`. Not to be called from a completion.
    fn close(&self);

    /// Stops as a crash does: what is being committed is finished, what waits behind it is not
    /// committed and answered with `Closed`. The rest is as in [`ObjectStore::close`]. For tests
    /// of crashes within one process.
    fn abandon(&self);

    /// Submits a batch and waits for its fate. For start, stop and tests; not on a thread that
    /// serves others, nor in a completion.
    ///
    /// # Errors
    /// What the batch was answered with.
    fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let done = move |result| {
            let _ = sender.send(result);
        };
        self.submit(batch, Box::new(done));
        receiver.recv().unwrap_or(Err(StoreError::Closed))
    }

    /// Waits until everything submitted before is on disk and answered. Not in a completion.
    ///
    /// # Errors
    /// `Overloaded`, `Closed`.
    fn flush(&self) -> Result<(), StoreError> {
        self.commit(Batch::default())
    }
}

/// Checks what can be told of a batch without looking into the store.
pub(crate) fn check_limits(batch: &Batch, batch_bytes_max: usize) -> Result<(), StoreError> {
    let weight = batch.weight_bytes();
    if weight > batch_bytes_max {
        return Err(StoreError::TooLarge {
            what: "a batch",
            len: weight,
            max: batch_bytes_max,
        });
    }
    for item in &batch.items {
        match item {
            Item::PutRow { uid, part, key, .. }
            | Item::RemoveRow { uid, part, key }
            | Item::ShadowRow { uid, part, key, .. } => {
                check_row(*uid, *part, key)?;
            }
            Item::Create { .. }
            | Item::WriteState { .. }
            | Item::Delete { .. }
            | Item::SaveReply { .. }
            | Item::WriteShadow { .. }
            | Item::CreateShadow { .. }
            | Item::Prepare { .. }
            | Item::CommitShadow { .. }
            | Item::DeleteShadow { .. }
            | Item::Decide { .. }
            | Item::Settle { .. } => {}
        }
    }
    Ok(())
}

/// Whether such a row can be.
pub(crate) fn check_row(uid: Uid, part: u16, key: &[u8]) -> Result<(), StoreError> {
    if part == format::PLAIN_PART {
        return Err(StoreError::PartZero { uid });
    }
    if key.len() > KEY_BYTES_MAX {
        return Err(StoreError::KeyTooLong {
            len: key.len(),
            max: KEY_BYTES_MAX,
        });
    }
    Ok(())
}
