//! The world of calls outside actions: clients that call, ask again under the same call id, give
//! up and die; nodes that crash, drain and come back; one object a call.
//!
//! A run ends when faults have stopped, every call has its answer and every node has drained;
//! then the checkers judge.

pub(crate) mod checker;
mod client;
mod disk;
mod history;
mod net;
mod plan;
mod reached;
mod shell;
mod world;

pub(crate) use reached::POINTS;
pub(crate) use world::run;
