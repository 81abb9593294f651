//! What whoever runs an action knows about it: levels, calls, participants, doom.
//!
//! A [`Family`] is one top-level action run by this process, or, at a servant, its part of the
//! action that its caller runs (a *branch*). It says which nested levels are open, which shards
//! take part in each, and what must be told to whom. Whoever owns it sends the messages it
//! returns, makes the calls, and asks for the commit; none of that happens here. The idea is
//! Narayana's `BasicAction` with its record lists and Argus' participant lists that come with
//! each answer, reduced to what presumed abort needs: sites, numbers of mirrors, aborted levels.
//!
//! # Transitions of a level
//!
//! | state | `begin` | `calling` | answer known | answer unknown | `doom` | end, commit | end, abort |
//! |---|---|---|---|---|---|---|---|
//! | Open, nothing under way | child Open | call under way | - | - | Doomed, `Abort` out | gone: `Merge` out, or the root's plan | gone, `Abort` out |
//! | Open, calls or children under way | child Open | call under way | report noted | Doomed, `Abort` out | Doomed, `Abort` out | refused: Busy | gone, `Abort` out, all below too |
//! | Doomed, or in a doomed one | refused | refused | `Abort` to what the report names | same | nothing new | refused: Doomed | gone, `Abort` out again |
//! | gone after abort | refused: Ended | refused: Ended | `Abort` to what the report names | `Abort` to where it went | nothing | refused: Ended | nothing |
//! | root, commit asked | refused: Ended | refused: Ended | - | - | nothing | refused: Ended | `Abort` out |
//!
//! # Invariants
//!
//! 1. A site is *live* as long as a level that is not aborted has worked there. Only live sites
//!    are asked to commit: what an aborted level alone has touched, a dead node say, is in
//!    nobody's way ([`Family::settled`] and [`Family::abort`] tell them to forget).
//! 2. A live site that answers in another life or with another mirror has lost work: the root
//!    is doomed.
//! 3. Whatever a call may have reached is told when its level is aborted, however it ended.
//! 4. Every table has a bound below; over it a request is refused, or, where an answer brings
//!    too much, the root is doomed.
//!
//! What it does not do: send, wait, know the time, choose names.

use std::collections::{BTreeMap, BTreeSet};

use super::message::Message;
use super::path::{PATH_MAX, Participant, Path, Site};
use crate::id::Uid;

/// Shards that one top-level action may touch: more would make its commit request longer than
/// is reasonable for one message, and its chance to end well poor.
pub const PARTICIPANTS_MAX: usize = 1_024;

/// Nested actions aborted in one top-level action: they are named in its commit request.
pub const ABORTED_MAX: usize = 4_096;

/// Levels open at the same time: concurrent siblings and their children.
pub const LEVELS_MAX: usize = 1_024;

/// Calls under way at the same time in one family; as many as one node takes of one process.
pub const CALLS_MAX: usize = 8_192;

/// A message to be sent, once; it may get lost.
pub type Send = (Site, Message);

/// One call under way, from [`Family::calling`] to [`Family::answered`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallKey(u64);

/// Why a level can only abort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doom {
    /// It is not known whether a call in it was executed, and where.
    Unknown,
    /// It was chosen as the victim of a deadlock.
    Deadlock,
    /// A participant has aborted it or forgotten it.
    Aborted,
    /// A participant came back in another life, or with another mirror: earlier work is lost.
    Lost(Site),
    /// A servant that worked for it could not finish its part.
    Below,
    /// Too much takes part in it: one of the bounds of this module.
    TooMuch,
    /// Its time is up.
    Expired,
    /// Its program wants it so.
    Program,
}

/// Why something is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// The level has ended, or never was one of this family.
    Ended,
    /// The level, or `action` that it is in, can only abort.
    Doomed {
        /// Which level is doomed.
        action: Uid,
        /// Why.
        why: Doom,
    },
    /// It is nested too deep.
    TooDeep {
        /// How deep is allowed, enclosing actions included.
        limit: usize,
    },
    /// There is too much of something.
    TooMany {
        /// Of what.
        what: &'static str,
        /// How much is allowed.
        limit: usize,
    },
    /// It cannot commit while these are under way.
    Busy {
        /// Calls without an answer.
        calls: usize,
        /// Nested actions that have not ended.
        children: usize,
    },
}

/// How a call ended, as far as its action is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallEnd {
    /// There is an answer that says what happened, be it an error: executed or surely not.
    Known,
    /// Nobody knows: the binding broke, time ran out, nobody waits for the answer any more.
    Unknown,
    /// The answer says that an action has to be aborted.
    Doomed {
        /// The call's action, or one that it is in, perhaps across a boundary.
        victim: Uid,
        /// Why.
        why: Doom,
    },
}

/// What an answer says about its action: the shard that served it and all that the calls of its
/// servant joined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Shards that take part now.
    pub participants: Vec<Participant>,
    /// Nested actions that were aborted; one that the call is made in has to be.
    pub aborted: Vec<Uid>,
}

/// How to commit a top-level action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// It has touched nothing: it is committed.
    Nothing,
    /// To be asked for with `Input::Commit` at the coordinator.
    Ask {
        /// The first participant that has changed something, else the first one.
        coordinator: Participant,
        /// All others.
        others: Vec<Participant>,
        /// Nested actions that were aborted.
        aborted: Vec<Uid>,
    },
}

/// See the [module](self).
#[derive(Clone, Debug)]
pub struct Family {
    path: Path,
}

impl Family {
    /// A top-level action that this process runs: `path` ends with its root.
    ///
    /// # Panics
    /// If the path has not exactly one entry of its own.
    #[must_use]
    pub fn top(path: Path) -> Self {
        Self { path }
    }

    /// A servant's part of the action it is called in: the leaf of `path`. It cannot be
    /// committed here; its [`Family::report`] goes back with the answer.
    ///
    /// # Panics
    /// If the path has no entry of its own.
    #[must_use]
    pub fn branch(path: Path) -> Self {
        Self { path }
    }

    /// The path of the outermost level: the root, or what the branch's caller called in.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Begins the nested action `child`; what it is called in calls is returned.
    ///
    /// # Errors
    /// [`Over`]: the parent has ended, is doomed, is too deep or has too many.
    pub fn begin(&mut self, parent: Uid, child: Uid) -> Result<Path, Over> {
        let _ = (parent, child);
        Err(Over::Ended)
    }

    /// A call is about to be made in `action`.
    ///
    /// # Errors
    /// [`Over`]: the action has ended, is doomed, or too many calls are under way.
    pub fn calling(&mut self, action: Uid) -> Result<CallKey, Over> {
        let _ = action;
        Err(Over::Ended)
    }

    /// The call is about to be sent to this shard. To be said before it is, since whatever may
    /// have arrived there has to be aborted with the action. Said again if it goes elsewhere.
    pub fn reaching(&mut self, key: CallKey, site: Site) {
        let _ = (key, site);
    }

    /// The call has ended; once for each key.
    pub fn answered(&mut self, key: CallKey, report: &Report, ended: CallEnd) -> Vec<Send> {
        let _ = (key, report, ended);
        Vec::new()
    }

    /// The level can only abort from now on. Its participants are told at once, so that its
    /// locks go; [`Family::end_nested`] or [`Family::abort`] is still to come.
    pub fn doom(&mut self, action: Uid, why: Doom) -> Vec<Send> {
        let _ = (action, why);
        Vec::new()
    }

    /// Why the level can only abort, if so: it or one that it is in is doomed.
    #[must_use]
    pub fn doomed(&self, action: Uid) -> Option<(Uid, Doom)> {
        let _ = action;
        None
    }

    /// A nested action ends. An abort is never refused: what is under way in it is given up.
    ///
    /// # Errors
    /// [`Over`], for a commit: it has ended, is doomed or busy; it is to be aborted then.
    pub fn end_nested(&mut self, child: Uid, commit: bool) -> Result<Vec<Send>, Over> {
        let _ = (child, commit);
        Err(Over::Ended)
    }

    /// The root is to be committed: no call can be made in it any more.
    ///
    /// # Errors
    /// [`Over`]: it has ended, is doomed or busy; it is to be aborted then.
    ///
    /// # Panics
    /// For a branch.
    pub fn commit(&mut self) -> Result<Plan, Over> {
        Err(Over::Ended)
    }

    /// The commit has ended well: tells those that did nothing but aborted work to forget it.
    #[must_use]
    pub fn settled(&mut self) -> Vec<Send> {
        Vec::new()
    }

    /// The root is aborted with all below; a branch's level is doomed.
    #[must_use]
    pub fn abort(&mut self) -> Vec<Send> {
        Vec::new()
    }

    /// What the answer of a branch's call has to say.
    #[must_use]
    pub fn report(&self) -> Report {
        Report::default()
    }

    /// Actions across the boundary that an answer wants aborted, each once: for whoever runs
    /// them, see [`Path::is_enclosed_by`].
    #[must_use]
    pub fn take_outer(&mut self) -> Vec<(Uid, Doom)> {
        Vec::new()
    }
}
