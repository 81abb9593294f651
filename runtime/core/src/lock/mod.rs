//! Locks: which calls may be inside an object at the same time.
//!
//! [`mode`] says what excludes what, [`key`] what can be locked, [`locks`] who holds and who
//! waits; [`table`] is what the engine used before actions.

pub mod key;
pub mod locks;
pub mod mode;
pub mod table;
