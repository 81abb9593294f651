//! Locks: which calls may be inside an object at the same time.
//!
//! [`mode`] says what excludes what, [`table`] who holds and who waits.

pub mod mode;
pub mod table;
