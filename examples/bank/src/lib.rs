//! A small bank: the example of Partha.
//!
//! The interfaces are in `idl/bank.idl`; what `partha generate` made of them is in `src/gen`.
//! Written by hand are the servants, [`account`], [`audit_log`] and [`branch`], and [`node`], which
//! makes a process of them. The clients are `bank-teller` and `clients/teller.py`.

#[allow(clippy::all, missing_docs, unreachable_pub, reason = "generated code")]
#[path = "gen/bank.rs"]
#[rustfmt::skip]
mod generated;

mod errors;
pub mod node;
mod servants;

pub use generated::*;
pub use servants::{AccountServant, AuditLogServant, BranchServant};

/// The examples of the README that are whole are compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
