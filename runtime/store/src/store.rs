//! The seam: what a store offers, free of any notion of LMDB.
//!
//! Reads are synchronous and short (a look into a memory map); writes are batches that a store
//! thread takes over, so that nothing in here ever waits for a disk on the caller's thread.
//! `flush` and `close` are the exceptions, for starting and stopping.

use std::collections::BTreeSet;
use std::sync::mpsc;

use bytes::Bytes;
use partha_core::action::path::{Coordinator, Site};
use partha_core::id::{CallId, ClassId, Epoch, Peer, Uid};

use crate::StoreError;
use crate::batch::Batch;
use crate::format::{self, KEY_BYTES_MAX};
use crate::group::{
    ActionCursor, ActionPage, GroupCheckpoint, GroupDecision, GroupRecord, GroupState, Part,
};
use crate::place::{KeptReply, Place, ReplyCursor, ReplyNames, ReplyPage, RowPage};
use crate::usage::Usage;

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
    pub coordinator: Coordinator,
}

/// The record that a top-level action is committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Those that have prepared and are to be told until the decision is settled; empty from
    /// then on.
    pub participants: Vec<Site>,
    /// Replicated objects with a part of it, whose groups are to be told; empty as well then.
    pub groups: Vec<Uid>,
}

/// Called once with the fate of a batch: `Ok` after it is on disk, or, for one of
/// [`GroupInstall`](crate::Item::GroupInstall) alone, after it can be read.
///
/// It runs on the store thread, or on the submitter's when the batch is refused at once
/// (`Overloaded`, `Closed`). It must be quick and must not wait for the store.
pub type Completion = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

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

    /// Where an object is that has moved; none if nothing is known of it, and for one that is here
    /// and has never moved.
    ///
    /// # Errors
    /// As [`ObjectStore::read_state`].
    fn read_place(&self, uid: Uid) -> Result<Option<Place>, StoreError>;

    /// Up to `limit` objects that have moved with their places, ascending, strictly after `after`.
    ///
    /// # Errors
    /// As [`ObjectStore::read_state`].
    fn scan_places(
        &self,
        after: Option<Uid>,
        limit: usize,
    ) -> Result<Vec<(Uid, Place)>, StoreError>;

    /// The same of those alone that are here and of which the binder was not told yet. Costs what
    /// it finds, so recovery starts here.
    ///
    /// # Errors
    /// As [`ObjectStore::read_state`].
    fn scan_untold(
        &self,
        after: Option<Uid>,
        limit: usize,
    ) -> Result<Vec<(Uid, Place)>, StoreError>;

    /// Rows of an object in ascending order of parts and keys, strictly after `after`: as many as
    /// there are in `limit_bytes` of keys and values, but one at least if there is one.
    ///
    /// # Errors
    /// As [`ObjectStore::read_row`]; one damaged row fails the whole page.
    fn export_rows(
        &self,
        uid: Uid,
        after: Option<(u16, &[u8])>,
        limit_bytes: usize,
    ) -> Result<RowPage, StoreError>;

    /// Saved replies of these objects, in the order in which they expire, from a beginning
    /// (`ReplyCursor::default()`) on: a step of a walk over the expiry times of all replies. It
    /// looks at some thousands of them and finds up to `limit_bytes` of bodies, but one at least if
    /// there is one.
    ///
    /// Going on after the last page finds what was saved since the walk was begun, so that the long
    /// walk can be over before an object stops for its move. That is so for replies that are saved
    /// for `keep_ms`, or longer.
    ///
    /// # Errors
    /// As [`ObjectStore::read_state`]; one damaged reply of theirs fails the whole page.
    fn replies_of(
        &self,
        uids: &BTreeSet<Uid>,
        keep_ms: u64,
        from: ReplyCursor,
        limit_bytes: usize,
    ) -> Result<ReplyPage, StoreError>;

    /// The same walk over the replies of all objects, without their bodies: for who is to find
    /// those of many objects one after the other.
    ///
    /// # Errors
    /// As [`ObjectStore::read_state`].
    fn reply_names(&self, keep_ms: u64, from: ReplyCursor) -> Result<ReplyNames, StoreError>;

    /// The saved replies of these calls that are the object's, as many as there are in
    /// `limit_bytes` of bodies, but one at least if there is one; and how many of the calls have
    /// been looked at.
    ///
    /// # Errors
    /// As [`ObjectStore::read_state`]; one damaged reply of theirs fails the whole page.
    fn kept_replies(
        &self,
        uid: Uid,
        calls: &[CallId],
        limit_bytes: usize,
    ) -> Result<(Vec<KeptReply>, usize), StoreError>;

    /// What is here of a group. Looks at every staged entry.
    ///
    /// # Errors
    /// As [`ObjectStore::read_state`]; one entry that is damaged or missing is `Corrupt`, too: the
    /// copy is to leave the group and to join again.
    fn read_group(&self, uid: Uid) -> Result<Option<GroupRecord>, StoreError>;

    /// Up to `limit` groups that have a copy here, ascending, strictly after `after`. One that is
    /// damaged is told, too: [`ObjectStore::read_group`] is to tell so.
    ///
    /// # Errors
    /// As [`ObjectStore::read_state`].
    fn scan_groups(&self, after: Option<Uid>, limit: usize) -> Result<Vec<Uid>, StoreError>;

    /// The bytes of a staged entry; none if it is not staged: it is installed, or never came.
    ///
    /// # Errors
    /// As [`ObjectStore::read_state`].
    fn read_entry(&self, uid: Uid, index: u64) -> Result<Option<Bytes>, StoreError>;

    /// The record of a copy and the last entry in it, as they are at one moment: how a snapshot
    /// begins. Rows and replies follow by [`ObjectStore::export_rows`] and
    /// [`ObjectStore::replies_of`], and belong to it as long as nothing is installed. None without
    /// a copy, and without a state of it.
    ///
    /// # Errors
    /// As [`ObjectStore::read_state`].
    fn group_state(&self, uid: Uid) -> Result<Option<GroupState>, StoreError>;

    /// What is about actions at a copy, as it is sent to another one with a snapshot: its part,
    /// then decisions, from a beginning (`ActionCursor::default()`) on, in about `limit_bytes`. As
    /// rows do, it belongs to a state as long as nothing is installed. Settled decisions that
    /// expire meanwhile may be missing.
    ///
    /// # Errors
    /// As [`ObjectStore::read_state`].
    fn export_actions(
        &self,
        uid: Uid,
        from: ActionCursor,
        limit_bytes: usize,
    ) -> Result<ActionPage, StoreError>;

    /// The part that an action has at a replicated object, as far as entries are installed.
    ///
    /// # Errors
    /// As [`ObjectStore::read_state`].
    fn read_part(&self, uid: Uid) -> Result<Option<Part>, StoreError>;

    /// What running actions have of a replicated object, as far as entries are installed; none if
    /// they have nothing.
    ///
    /// # Errors
    /// As [`ObjectStore::read_state`].
    fn read_checkpoint(&self, uid: Uid) -> Result<Option<GroupCheckpoint>, StoreError>;

    /// What the log of this object says about `action`, as far as it is installed: none means that
    /// it does not say that the action is committed, or that the decision was settled longer ago
    /// than it is kept.
    ///
    /// # Errors
    /// As [`ObjectStore::read_state`].
    fn read_group_decision(
        &self,
        uid: Uid,
        action: Uid,
    ) -> Result<Option<GroupDecision>, StoreError>;

    /// All decisions in the log of this object that are not settled, with their actions,
    /// ascending, as far as entries are installed.
    ///
    /// # Errors
    /// As [`ObjectStore::read_state`].
    fn unsettled(&self, uid: Uid) -> Result<Vec<(Uid, GroupDecision)>, StoreError>;

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
