//! Locks: which calls may be inside an object at the same time.
//!
//! [`mode`] says what excludes what, [`key`] what can be locked, [`locks`] who holds and who
//! waits.

pub mod key;
pub mod locks;
pub mod mode;
