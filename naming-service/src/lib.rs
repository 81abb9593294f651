//! The naming service: from names that people choose to the identities of objects.
//!
//! It is an ordinary node with two classes of ordinary persistent objects, described in
//! `runtime/idl/naming.idl`: one [`service`] that everybody knows beforehand and that walks
//! paths, and [`context`] objects that hold the names, each name a row of its own. [`daemon`]
//! makes a process of it.
//!
//! Invariants: a name is in one context at most once; a context that is closed is empty and
//! stays so; a context is locked only for one step of one operation, and never while another one
//! is asked, so contexts that name each other cannot wait for each other.
//!
//! It does not check that an object exists, nor take a name away when its object is gone, nor
//! move objects: names are what people say, where objects are is the binder's to know.

pub mod context;
pub mod daemon;
mod embed;
mod path;
pub mod service;
mod walk;

pub use daemon::{Arguments, run, start};
pub use embed::embed;
