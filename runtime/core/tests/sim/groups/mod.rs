//! The world of groups: copies of an object on nodes that crash, freeze and lose each other; a
//! binder that keeps their views; clients that add entries and read them.
//!
//! | module | holds |
//! |---|---|
//! | `plan` | what a seed decides beforehand |
//! | `world` | events, time |
//! | `node`, `shell` | a node: its disk, its copy; what a copy asks for |
//! | `net` | messages between nodes; the binder |
//! | `client`, `load` | who adds and reads; the answers |
//! | `parts` | operations that are prepared first and told before they are in the list; reads at copies that follow |
//! | `faults` | crashes, partitions, freezes |
//! | `truth` | what was seen to be complete, and what must be true of it |
//!
//! Messages are lost, doubled, late and out of order. A run ends when faults have stopped, every
//! client is done, and all nodes that live are members that have the same state.

mod client;
mod faults;
mod load;
mod net;
mod node;
mod parts;
mod plan;
mod shell;
mod truth;
mod world;

pub(crate) use world::run;

/// Points to be reached.
pub(crate) const POINTS: [&str; 26] = [
    "added",
    "answered again",
    "read",
    "read: waits for promises",
    "read here",
    "read here: sent on",
    "part",
    "part: found by the next leader",
    "locked",
    "not leading",
    "leads",
    "deposed",
    "view: renewed",
    "view: taken over",
    "view: excluded",
    "view: included",
    "view: handed over",
    "view: stale",
    "differs",
    "differs: by most",
    "truncated",
    "snapshot",
    "write lost in a crash",
    "frozen",
    "all nodes down",
    "disk lost",
];
