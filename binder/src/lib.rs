//! The binding service: from the identity of an object to the node that runs it.
//!
//! It is an ordinary node with one ordinary persistent object, described in
//! `runtime/idl/binder.idl`: [`servant`]. [`daemon`] makes a process of it.
//!
//! Invariants: a node has one row, written when its registration changes and not by heartbeats;
//! an object that never moved has no row, since its uid names the node that made it, and the row of
//! one that did (`moved`) changes only to a higher number of moves; the view of a group
//! (`views`) changes only for whoever names its number, to the next one; no two nodes have the
//! same name.
//!
//! It does not check that an object exists, nor speak to nodes: it only hears of them.

pub mod daemon;
mod leases;
mod moved;
pub mod servant;
mod views;

pub use daemon::{Arguments, LEASE, run, start};
