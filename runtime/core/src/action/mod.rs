//! Atomic actions over many objects at many nodes.
//!
//! An *action* is named by a [`path::Path`]: the uids of its ancestors, root first. It is run by
//! whoever began it (a client process or a servant), through the [`scope`] machine, which knows
//! the *participants*: the shards whose objects were called in it. At each of them a *mirror*
//! action holds locks and before-images. The end of a top-level action is a two-phase commit
//! with presumed abort, coordinated by one of the participants themselves (*delegated
//! coordination*), so that whoever runs the action needs no store, and a client that vanishes
//! leaves nobody in doubt.
//!
//! | module | holds |
//! |---|---|
//! | [`path`] | names of actions, who belongs to which, participants |
//! | [`message`] | what shards say to each other about actions |
//! | [`scope`] | what whoever runs an action knows about it |
//! | `mirror` | the tree of levels at a shard: their locks, before-images, calls |
//! | `participant` | what a shard does about an action: the tables of two-phase commit |
//! | `coordinator` | votes, and decisions that not all know of yet |
//! | `gate` | who is inside an object, among calls of one action |
//! | `tombstone` | how actions ended that are gone |

pub(crate) mod coordinator;
pub(crate) mod gate;
pub mod message;
pub(crate) mod mirror;
pub(crate) mod participant;
pub mod path;
pub mod scope;
pub(crate) mod tombstone;
