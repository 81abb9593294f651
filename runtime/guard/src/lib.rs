//! capnp-rpc for foreign clients, behind limits.
//!
//! Plain Cap'n Proto clients (pycapnp, C++, Go, Rust) may call every object of a node. capnp-rpc
//! speaks their protocol but trusts its peer: memory is allocated as a header claims, nothing is
//! bounded, some message sequences leak a connection for ever, a long chain of pipelined calls
//! overflows the stack, and an aborted connection leaks its calls. This package puts that right
//! without changing capnp-rpc:
//!
//! - [`Limits`]: every bound, with its reason.
//! - [`Network`]: a `VatNetwork` which reads and writes the bytes and looks at every rpc.capnp
//!   message before capnp-rpc does; over a limit the connection is cut with a [`CutReason`].
//! - [`SafeRpc`]: an owner of an `RpcSystem` that leaks nothing when dropped.
//! - [`serve`], [`connect`]: the two put together for one connection.
//! - [`Gateway`]: calls of foreign clients as plain data, and capabilities both ways.
//!
//! Invariants: a peer can make this process use only a bounded amount of memory and of stack per
//! connection; whatever way a connection ends, its calls and capabilities are dropped; no servant
//! runs inside capnp-rpc's own promises. How many connections there may be is the acceptor's
//! business, as are encryption and authentication.
//!
//! All of it lives on one thread, within a tokio `LocalSet` or an equal.

mod account;
mod connection;
mod flat;
mod frame;
mod gateway;
mod limits;
mod network;
mod oversized;
mod reason;
mod safe;
mod steady;
mod ticket;
mod watch;
mod wire;

pub use connection::{Driver, connect, serve};
pub use flat::{Flat, ForeignCapability};
pub use gateway::{ForeignCall, Gateway, Reply, capability, invoke};
pub use limits::Limits;
pub use network::{Network, Stream};
pub use reason::{CutReason, Table};
pub use safe::SafeRpc;
pub use ticket::Admission;
