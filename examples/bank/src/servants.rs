//! What accounts, audit logs and branches do.
//!
//! A servant has no account of its own: each method is handed the state of the object that is
//! called, alone if it writes. What a method leaves in the state is on disk before the caller
//! gets the answer, or, if it was called in an action, when that commits; if it raises, nothing
//! has changed.

mod account;
mod audit;
mod branch;

pub use account::AccountServant;
pub use audit::AuditLogServant;
pub use branch::BranchServant;
