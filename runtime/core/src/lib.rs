//! The decisions of Partha, without IO.
//!
//! This crate decides, for the objects of one shard, who may run when, what must be on disk
//! before anybody hears of it, which call was seen before, and what may leave memory. It does
//! none of it: it has no sockets, files, threads, clocks, random numbers or dependencies. A
//! *shell* (the `partha` package) hands in what happened, and does what comes out.
//!
//! # The machine convention
//!
//! ```text
//! fn handle(&mut self, now: Time, input: Input, out: &mut Outbox);
//! fn handle_timeout(&mut self, now: Time, out: &mut Outbox);
//! fn next_timeout(&self) -> Option<Time>;      // may change after any handle*
//! ```
//!
//! The same inputs at the same times give the same outputs, always; so a whole cluster can be
//! simulated on one thread, and every failure is repeated by its seed.
//!
//! # Invariants
//!
//! 1. User bytes never enter: arguments, replies and states are named by [`Ticket`] and
//!    [`id::Uid`], and the shell keeps the bytes.
//! 2. *Durable before visible*: the answer of a call outside actions that changed an object
//!    leaves only after the flush of the new state was reported done, and nobody reads that state
//!    earlier. What an action changed is seen by nobody else before its decision is on disk.
//! 3. A call that asks to be executed at most once is never executed twice, whoever crashes.
//! 4. Every table and queue has a bound in [`limits::Limits`]; over it a call is refused.
//! 5. Each ticket gets at most one [`Output::Reply`] and exactly one [`Output::Forget`], last.
//! 6. An action happens at all of its participants or at none, whoever crashes and whatever
//!    message is lost, doubled or late; a nested one does if all it is nested in do.
//!
//! # Map
//!
//! | module | decides |
//! |---|---|
//! | [`engine`] | routes inputs to the machines below; what the shell drives |
//! | [`input`], [`output`], [`outbox`] | the closed enums between shell and engine |
//! | `call` | one call's way from arrival to answer; duplicates; deadlines |
//! | `activation` | which objects are in memory; idle time, memory limit |
//! | [`lock`] | who may run on an object at the same time |
//! | [`action`] | atomic actions: levels, votes, decisions; the runner's side |
//! | [`deadlock`] | who waits in a circle, on one shard or over many, and who gives way |
//! | `incarnation` | late messages of dead callers |
//! | [`group`] | copies of one object: views, the log of the leader, who leads next |
//! | [`uselist`] | who is bound to an object |
//! | [`binding`] | the client's side: where an object is, and what to do when it is not |
//! | [`limits`] | every bound with its reason |
//! | [`migrate`] | objects that move to another node, with the work of running actions |
//! | [`invariants`] | what must hold between any two inputs; for tests and simulation |
//!
//! What it does not do yet: engines do not use groups.

#![forbid(unsafe_code)]
#![deny(clippy::wildcard_enum_match_arm)]

pub mod action;
mod activation;
pub mod binding;
mod call;
mod deadline;
pub mod deadlock;
pub mod engine;
pub mod group;
pub mod id;
mod incarnation;
mod index;
pub mod input;
pub mod invariants;
pub mod limits;
mod list;
pub mod lock;
pub mod migrate;
pub mod outbox;
pub mod output;
mod slab;
pub mod time;
pub mod uselist;

pub use engine::{Engine, Identity, ObjectView, Stats};
pub use input::{Ended, Fault, Input, Invoke, Job, Loaded, Ticket};
pub use limits::Limits;
pub use lock::mode::Mode;
pub use outbox::Outbox;
pub use output::{
    Abort, ActionBatch, Answer, End, Event, GaveUp, ObjectSlot, Orphan, Output, Refusal, Why,
    Written,
};
