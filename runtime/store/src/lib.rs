//! The object store of a node: where objects, their rows, shadows and saved replies live.
//!
//! Purpose: one seam, [`ObjectStore`], with two implementations. [`LmdbStore`] keeps everything
//! in one LMDB file with a log in front of it and is what nodes use; [`MemoryStore`] is for tests
//! and for embedded nodes without a folder, can be held up and can fail on demand. Both run the
//! same code for formats, checks and the store thread, and both must pass [`conformance::suite`].
//!
//! Invariants:
//! - A [`Batch`] is applied all or nothing, and answered only after it is on disk.
//! - A record that was damaged on disk is an error ([`StoreError::Corrupt`]), never an answer.
//! - Of two activations of one object in this process, only the younger can write
//!   ([`StoreError::Fenced`]); over restarts the epoch in the record sees to it.
//! - The node's incarnation is raised durably before the store is handed out.
//!
//! What it does not do: decide anything. Locks, actions, votes and outcomes belong to the
//! machines above; the store offers the operations of Arjuna's object store (create, delete,
//! `read_state`, `write_state`, `write_shadow`, `commit_shadow`, `delete_shadow`) and rows,
//! replies, decisions, batches and copies of groups besides.

mod apply;
mod batch;
mod clock;
pub mod conformance;
pub mod crash_point;
pub mod entry;
mod error;
mod fence;
mod format;
mod group;
mod layers;
mod lmdb;
mod memory;
pub mod moving;
mod place;
mod queries;
mod store;
mod tables;
mod usage;
mod writer;

pub use batch::{Batch, CLEAR_AT_ONCE, Item};
pub use error::StoreError;
pub use group::{
    ActionCursor, ActionPage, GroupCheckpoint, GroupDecision, GroupRecord, GroupState, Part,
};
pub use lmdb::{LmdbOptions, LmdbStore};
pub use memory::MemoryStore;
pub use place::{KeptReply, Place, ReplyCursor, ReplyNames, ReplyPage, Row, RowPage};
pub use store::{Completion, Decision, ObjectStore, Prepared, Record, SavedReply};
pub use usage::{SIZES, Usage};
