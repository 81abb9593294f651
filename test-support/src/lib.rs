//! Helpers of Partha's own tests.
//!
//! Purpose: what more than one package's tests need, once: expected texts that one command
//! rewrites ([`bless`]), temporary folders ([`temp_dir`]), daemons as child processes
//! ([`Child`]), foreign tools that may be absent ([`require_tool`]), waiting for a condition
//! ([`eventually`]) and free ports ([`free_port`]).
//!
//! Everything here panics with a full report instead of returning errors, since its callers are
//! tests. Nothing here knows Partha's protocols, and nothing outside tests may depend on it.
//! The idea of expected texts that bless themselves is rust-analyzer's and wasm-tools'.

pub mod bless;
mod child;
mod folder;
mod port;
mod tools;
mod wait;

pub use child::{Child, Exit};
pub use folder::{TempDir, temp_dir, workspace_root};
pub use port::free_port;
pub use rustix::process::Signal;
pub use tools::{require_python, require_tool, skipped};
pub use wait::{eventually, eventually_some};
