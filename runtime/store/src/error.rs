//! What can go wrong in a store, by what the caller can do about it.
//!
//! Errors are cheap to clone, because one failed sync answers every batch that was in it.

use std::path::PathBuf;
use std::sync::Arc;

use partha_core::id::{Epoch, Uid};

/// Why the store did not do what it was asked for.
///
/// [`StoreError::outcome_unknown`] tells the one thing a caller must know after a failed commit:
/// whether the batch may be on disk nevertheless.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// `Create` of an object that is there.
    #[error("object {uid} exists already")]
    Exists {
        /// The object.
        uid: Uid,
    },
    /// An operation on an object that is not there.
    #[error("there is no object {uid} in this store")]
    NoSuchObject {
        /// The object.
        uid: Uid,
    },
    /// A write by an activation that is no longer the current one.
    #[error(
        "object {uid}: a write under activation epoch {offered} was fenced off, \
         the current epoch is {current}; drop this activation and activate the object anew"
    )]
    Fenced {
        /// The object.
        uid: Uid,
        /// The epoch of the writer.
        offered: Epoch,
        /// The epoch that rules.
        current: Epoch,
    },
    /// A write by an activation that had a state of its own refused or lost before, or missed one
    /// that an action had prepared earlier: what it has in memory is not what the store has.
    #[error(
        "object {uid}: activation epoch {epoch} lost or missed an earlier write; \
         drop this activation and activate the object anew"
    )]
    EarlierWriteFailed {
        /// The object.
        uid: Uid,
        /// The epoch of the writer.
        epoch: Epoch,
    },
    /// A row key that LMDB cannot hold.
    #[error("row key of {len} bytes is too long, at most {max} bytes are possible; hash long keys")]
    KeyTooLong {
        /// Its length in bytes.
        len: usize,
        /// The longest possible, in bytes.
        max: usize,
    },
    /// A state, row value, reply or batch over the limit.
    #[error("{what} of {len} bytes is too large, at most {max} bytes are accepted")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// A row operation that names part 0, which is the plain record.
    #[error("object {uid}: part 0 is the plain record and has no rows; rows are in parts 1 and up")]
    PartZero {
        /// The object.
        uid: Uid,
    },
    /// A prepared row change without a prepared state of its object: recovery would not lock the
    /// object.
    #[error("action {action} has no shadow of object {uid}; write it before the rows")]
    NoShadow {
        /// The action.
        action: Uid,
        /// The object.
        uid: Uid,
    },
    /// More prepared changes of rows than can be installed in one transaction.
    #[error(
        "action {action} has prepared {max} changes of rows of object {uid}, and there can be no \
         more; divide it into several actions"
    )]
    TooManyRows {
        /// The action.
        action: Uid,
        /// The object.
        uid: Uid,
        /// So many are possible.
        max: u32,
    },
    /// An object cannot come to be here before the rows are gone that it left here, or that were
    /// sent for a move that failed. That goes on by itself: try again in a moment.
    #[error(
        "object {uid} was here before and rows of it are still being removed; \
         try again in a moment"
    )]
    Clearing {
        /// The object.
        uid: Uid,
    },
    /// An object that is on its way here cannot come to be here another way.
    #[error("object {uid} is on its way here by move {action}; wait for its end")]
    Arriving {
        /// The object.
        uid: Uid,
        /// The action that moves it.
        action: Uid,
    },
    /// A place that is no news: the object has moved as often before.
    #[error("object {uid} has moved {stored} times, so its place after {offered} moves is no news")]
    OlderPlace {
        /// The object.
        uid: Uid,
        /// How often it had moved when it was there.
        offered: u64,
        /// How often it has moved.
        stored: u64,
    },
    /// There is no copy of this group here.
    #[error("there is no copy of group {uid} in this store")]
    NoSuchGroup {
        /// The object.
        uid: Uid,
    },
    /// `JoinGroup` of a group that has a copy here.
    #[error("there is a copy of group {uid} here already")]
    GroupExists {
        /// The object.
        uid: Uid,
    },
    /// A write that belongs to an older view of the group than the one that is known here.
    #[error("group {uid} has view {stored} here, so what is of view {offered} is too late")]
    OlderView {
        /// The object.
        uid: Uid,
        /// The number of the older view.
        offered: u64,
        /// The number that is known here.
        stored: u64,
    },
    /// An entry that does not follow the last one, one that would be taken out of the state again,
    /// or a page of a snapshot that is not the one being taken. Nothing was written, and what was
    /// there is as good as before.
    #[error("group {uid}: {what} does not fit to what is here, {here}")]
    OutOfStep {
        /// The object.
        uid: Uid,
        /// What was offered.
        what: String,
        /// What is here.
        here: String,
    },
    /// A group cannot end and leave the object: an action is prepared at it, or committed by it,
    /// and not at its end.
    #[error(
        "the copies of {uid} cannot end and leave the object: action {action} {what}; \
         wait until it has ended"
    )]
    UnfinishedAction {
        /// The object.
        uid: Uid,
        /// The root action.
        action: Uid,
        /// How far it has come there.
        what: &'static str,
    },
    /// Bytes that are no entry of the group's log, or are about another object; or a page of a
    /// snapshot that is.
    #[error("what was sent for a copy of a group is wrong: {why}")]
    BadEntry {
        /// What is wrong with them.
        why: String,
    },
    /// What every other copy has taken cannot be installed here: this copy is not what it should
    /// be. It is to leave the group and to join it again, with a state from the leader.
    #[error(
        "the copy of group {uid} is broken at entry {index}: {why}; \
         let it leave the group and join again"
    )]
    BrokenCopy {
        /// The object.
        uid: Uid,
        /// The entry that could not be installed.
        index: u64,
        /// Why.
        why: String,
    },
    /// The queue of the store thread is full: try again later.
    #[error("the store is overloaded: {batches} batches ({bytes} bytes) wait; try again later")]
    Overloaded {
        /// Batches waiting.
        batches: usize,
        /// Bytes waiting.
        bytes: usize,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// Something on disk is not what was written.
    #[error("{what} is damaged ({key}): {found}; {}", cure_of_damage(what))]
    Corrupt {
        /// What it should be.
        what: &'static str,
        /// Where: the key in hexadecimal digits, or a page or byte of a file.
        key: String,
        /// What was found instead.
        found: String,
    },
    /// Another process, or another store of this process, has the folder open.
    #[error(
        "store folder {dir} is in use by {owner}; stop it or choose another folder",
        dir = dir.display(),
        owner = pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
    )]
    InUse {
        /// The folder.
        dir: PathBuf,
        /// Who has it, if it left its number.
        pid: Option<u32>,
    },
    /// The disk is full. Nothing of the batch was written, and the store goes on when there is
    /// space again.
    #[error(
        "disk full: {path} cannot grow ({free_bytes} bytes free); free space, \
         the store goes on by itself",
        path = path.display()
    )]
    Full {
        /// The file.
        path: PathBuf,
        /// Free bytes of its file system, as far as the system tells.
        free_bytes: u64,
    },
    /// The store reached its configured largest size. Nothing of the batch was written.
    #[error(
        "the store reached its limit of {map_bytes_max} bytes; delete objects or raise \
         map_bytes_max"
    )]
    MapFull {
        /// The limit in bytes.
        map_bytes_max: usize,
    },
    /// The operating system refused something.
    #[error("{what} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Whether a batch may have been written although this error was answered.
        outcome_unknown: bool,
        /// What the system said.
        source: Arc<std::io::Error>,
    },
    /// LMDB refused something that it should not.
    #[error("{what}: lmdb says '{text}'")]
    Lmdb {
        /// What was tried.
        what: &'static str,
        /// LMDB's text.
        text: String,
    },
    /// The store cannot be used until it is opened again. A batch that was answered with this
    /// may or may not be on disk.
    #[error("the store is broken: {reason}; restart the node")]
    Broken {
        /// Why.
        reason: String,
    },
    /// The store was made by a version of the software with another format.
    #[error("store format {found} is unknown here, expected {expected}; use the matching version")]
    Version {
        /// The format found.
        found: u32,
        /// The format this version writes; it reads all that are older.
        expected: u32,
    },
    /// A number that only counts up has no next value.
    #[error("{what} is used up; {cure}")]
    Exhausted {
        /// Which number.
        what: &'static str,
        /// What to do.
        cure: &'static str,
    },
}

/// What to do about damage: one entry can be replaced, a file cannot.
fn cure_of_damage(what: &str) -> &'static str {
    match what.starts_with("the store's ") {
        true => "keep the node's folder as it is for a repair, and restore one from a backup",
        false => "restore the object from a replica or a backup, or delete it",
    }
}

impl StoreError {
    /// Whether a batch that was answered with this error may be on disk nevertheless.
    ///
    /// Whoever holds the object in memory must then drop it and read the state again.
    #[must_use]
    pub fn outcome_unknown(&self) -> bool {
        match self {
            Self::Broken { .. } => true,
            Self::Io {
                outcome_unknown, ..
            } => *outcome_unknown,
            Self::Exists { .. }
            | Self::NoSuchObject { .. }
            | Self::Fenced { .. }
            | Self::EarlierWriteFailed { .. }
            | Self::KeyTooLong { .. }
            | Self::TooLarge { .. }
            | Self::PartZero { .. }
            | Self::NoShadow { .. }
            | Self::TooManyRows { .. }
            | Self::Clearing { .. }
            | Self::Arriving { .. }
            | Self::OlderPlace { .. }
            | Self::NoSuchGroup { .. }
            | Self::GroupExists { .. }
            | Self::OlderView { .. }
            | Self::OutOfStep { .. }
            | Self::UnfinishedAction { .. }
            | Self::BadEntry { .. }
            | Self::BrokenCopy { .. }
            | Self::Overloaded { .. }
            | Self::Closed
            | Self::Corrupt { .. }
            | Self::InUse { .. }
            | Self::Full { .. }
            | Self::MapFull { .. }
            | Self::Lmdb { .. }
            | Self::Version { .. }
            | Self::Exhausted { .. } => false,
        }
    }

    /// Whether the batch came too early, or after one that did, or too late, after another
    /// activation has begun or the copy was given up: whoever sent it begins again, and the store
    /// is as it should be.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Clearing { .. }
                | Self::EarlierWriteFailed { .. }
                | Self::Fenced { .. }
                | Self::NoSuchGroup { .. }
                | Self::OlderView { .. }
                | Self::OutOfStep { .. }
        )
    }

    /// Whether only the batch at hand is to blame, so that others in the same transaction go on.
    pub(crate) fn concerns_one_batch(&self) -> bool {
        match self {
            Self::Exists { .. }
            | Self::NoSuchObject { .. }
            | Self::Fenced { .. }
            | Self::EarlierWriteFailed { .. }
            | Self::KeyTooLong { .. }
            | Self::TooLarge { .. }
            | Self::PartZero { .. }
            | Self::NoShadow { .. }
            | Self::TooManyRows { .. }
            | Self::Clearing { .. }
            | Self::Arriving { .. }
            | Self::OlderPlace { .. }
            | Self::NoSuchGroup { .. }
            | Self::GroupExists { .. }
            | Self::OlderView { .. }
            | Self::OutOfStep { .. }
            | Self::UnfinishedAction { .. }
            | Self::BadEntry { .. }
            | Self::BrokenCopy { .. }
            | Self::Corrupt { .. } => true,
            Self::Overloaded { .. }
            | Self::Closed
            | Self::InUse { .. }
            | Self::Full { .. }
            | Self::MapFull { .. }
            | Self::Io { .. }
            | Self::Lmdb { .. }
            | Self::Broken { .. }
            | Self::Version { .. }
            | Self::Exhausted { .. } => false,
        }
    }
}
