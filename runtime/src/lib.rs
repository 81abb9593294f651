//! Distributed persistent objects: nodes that serve them, clients that call them.
//!
//! Interfaces are described in IDL (`docs/idl-reference.md`); `partha generate` makes stubs,
//! servant traits and state types of them. A process that serves objects is a [`Node`]; one that
//! only calls them has a [`Client`]. Objects are found by name through the naming service, and
//! by identity through the binder; they live in their node's store and are brought into memory
//! when they are called.
//!
//! ```no_run
//! # async fn example() -> partha::Result<()> {
//! let client = partha::Client::connect("127.0.0.1:7401").await?;
//! for entry in client.naming()?.list(&client, "/", "", 100).await.unwrap_or_default() {
//!     println!("{}", entry.name);
//! }
//! # Ok(()) }
//! ```
//!
//! # What a call promises
//!
//! - A method that changes its object (`&mut self` in the IDL) is an action of its own: its
//!   answer leaves after the new state is on disk. If it fails or raises, nothing has changed.
//! - It is executed at most once. Its answer is saved with the state under the call's id, so
//!   asking again ([`CallOptions::again`]), even after a crash of the node, gets the saved
//!   answer; for [`REPLY_RETENTION`].
//! - A [`SystemError`] says whether the operation was executed, [`Completed`], and what that
//!   means: [`Failure`].
//!
//! # Several calls at once
//!
//! [`Client::action`] makes one atomic action of any number of calls of objects at any nodes:
//! all of it happens, or nothing. Actions nest ([`Action::nested`]), servants join the action
//! they are called in ([`Context`]), and deadlocks are found, named and broken;
//! [`Client::action_retry`] tries again then.
//!
//! ```no_run
//! # use partha::{Client, SystemError, services::naming::NameService};
//! # async fn example(client: &Client, names: &NameService)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! let renamed = client
//!     .action_retry(async |a| {
//!         let entry = client.naming()?.lookup(a, "/bank/old").await?;
//!         let naming = client.naming()?;
//!         naming.add(a, "/bank/new", entry.object, partha::ClassId(entry.class)).await?;
//!         naming.delete(a, "/bank/old").await?;
//!         Ok::<_, Box<dyn std::error::Error + Send + Sync>>(entry.object)
//!     })
//!     .await?;
//! # let _ = renamed;
//! # Ok(()) }
//! ```
//!
//! # Within a test
//!
//! [`Node::embedded`] is a node without sockets. With the feature `testkit` there is a module of
//! that name: clusters in one process, whose nodes and clients can be killed, started again, cut
//! off from each other and paused (`docs/testing.md`).

extern crate self as partha;

pub mod abi;
mod action;
mod binding;
mod caller;
mod capability;
mod chosen;
mod client;
mod config;
mod context;
mod create;
mod elsewhere;
mod error;
mod failure;
mod hash;
mod manager;
mod moved;
mod net;
mod node;
mod recovery;
mod reference;
mod registration;
mod replication;
mod rows;
pub mod services;
mod shard;
#[cfg(feature = "testkit")]
pub mod testkit;
mod timestamp;
mod wire;

pub use bytes::Bytes;
pub use partha_core::Limits;
pub use partha_core::id::{CallId, ClassId, Epoch, Incarnation, NodeId, Peer, Uid};
pub use partha_store::Usage as StoreUsage;

pub use abi::Class;
pub use action::{
    ACTION_DEADLINE, ACTION_DEADLINE_MAX, ACTION_TRIES, AbortReason, Action, ActionError, ActionId,
    ActionOptions, ManualAction, Outcome, ParseActionIdError,
};
pub use binding::BindingHandle;
pub use caller::{CallOptions, CallScope, Caller};
pub use capability::Capability;
pub use client::{Client, ClientBuilder, Copies};
pub use config::{CALL_DEADLINE, CALL_DEADLINE_MAX, MESSAGE_BYTES_MAX, REPLY_RETENTION};
pub use context::Context;
pub use elsewhere::{ActivationPolicy, Runaway, ServerReport, Stuck};
pub use error::{Completed, ErrorKind, Result, SystemError};
pub use failure::Failure;
pub use manager::NodeHandle;
pub use moved::Moved;
pub use net::traffic::Backpressure;
pub use node::{Node, NodeBuilder};
pub use reference::{Place, Ref};
pub use replication::Replication;
pub use rows::Rows;
pub use timestamp::Timestamp;
pub use wire::context::TraceId;

/// The interfaces of the system itself: `runtime/idl/partha.idl`.
pub use services::system;
