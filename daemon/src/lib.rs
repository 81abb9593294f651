//! What the daemons of Partha have in common, and what a node of one's own may use as well:
//! options in three layers, one line on standard output when it is ready, stopping in good order.
//!
//! A daemon is a [`partha::Node`] with a few classes. This crate turns flags, environment and a
//! file into a [`partha::NodeBuilder`] ([`Options`], [`read_file`]) and looks after the running
//! node until somebody wants it to stop ([`attend`]). It knows no class and makes no object.
//!
//! Invariants: a setting comes from the flag, else the environment, else the file, else the
//! default; an unknown key of a file is an error; nothing listens where other machines can reach
//! it unless `insecure` says so, since connections are neither encrypted nor authenticated.

mod attend;
mod label;
mod log;
mod options;
mod settings;
mod span;
mod stop;

pub use attend::{attend, block_on, main};
pub use label::NodeLabel;
pub use options::{File, LogFormat, LogOptions, NodeOptions, Options, read_file};
pub use settings::{Defaults, Settings};
pub use span::Span;
pub use stop::{Stop, Why};
