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

pub mod message;
pub mod path;
pub mod scope;
