//! What really happened, as nobody in the simulated world knows it: the material of the checkers.
//!
//! Every object is a list. Every write appends its own number, so that the final lists tell
//! which writes took effect, how often and in what order, and what a read saw tells when it was.

use std::collections::BTreeMap;

use partha_core::Mode;
use partha_core::id::{CallId, Uid};

/// The number of an operation, unique in a run.
pub(crate) type OpNo = usize;

/// What an operation does to its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Looks.
    Read,
    /// Looks, as one that is going to write.
    Upgrade,
    /// Appends.
    Write,
    /// Appends, then raises: must leave nothing behind.
    Raise,
    /// Makes an object, and appends.
    Create,
}

impl Kind {
    pub(crate) fn mode(self) -> Mode {
        match self {
            Self::Read => Mode::Read,
            Self::Upgrade => Mode::Upgrade,
            Self::Write | Self::Raise | Self::Create => Mode::Write,
        }
    }

    pub(crate) fn writes(self) -> bool {
        self.mode() == Mode::Write
    }
}

/// How a servant ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Normal,
    Raised,
    Failed,
}

/// What a servant answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) ending: Ending,
    /// The object's list when the servant ended.
    pub(crate) seen: Vec<OpNo>,
    /// The object.
    pub(crate) uid: Uid,
}

/// What is known of an operation in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The caller waits.
    Open,
    /// The caller got this answer.
    Answered { at: u64, outcome: Outcome },
    /// The caller was told that it was not executed.
    NotExecuted,
    /// The caller died or gave up: it may have been executed or not.
    Unknown,
}

/// One operation.
#[derive(Clone, Debug)]
pub(crate) struct Op {
    pub(crate) kind: Kind,
    /// Which object; of a create only known afterwards.
    pub(crate) uid: Uid,
    /// The action it is called in; none outside of actions.
    pub(crate) level: Option<Uid>,
    pub(crate) call: CallId,
    pub(crate) invoked_at: u64,
    pub(crate) fate: Fate,
    /// A call outside actions: its effect is in the store.
    pub(crate) stored: bool,
}

/// How an action stands, as whoever runs it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Open,
    /// Committed into its parent; a root: to be committed, if its participants can.
    Merged,
    Aborted,
}

/// One action.
#[derive(Clone, Debug)]
pub(crate) struct Level {
    pub(crate) parent: Option<Uid>,
    pub(crate) state: State,
}

/// What concerns a root alone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Root {
    pub(crate) began_at: u64,
    /// When whoever runs it heard that it is committed.
    pub(crate) told_at: Option<u64>,
    /// Somebody was told that it is aborted.
    pub(crate) dead: bool,
    /// The commit point is on a disk.
    pub(crate) decided: bool,
    /// Its decision was settled, and has gone from its log since.
    pub(crate) forgotten: bool,
    /// Something other than a move has befallen it.
    pub(crate) misfortune: bool,
    /// Other actions were in its way.
    pub(crate) rivals: bool,
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    pub(crate) ops: Vec<Op>,
    pub(crate) levels: BTreeMap<Uid, Level>,
    pub(crate) roots: BTreeMap<Uid, Root>,
}

impl Truth {
    /// Enters an operation.
    pub(crate) fn begin(
        &mut self,
        kind: Kind,
        uid: Uid,
        level: Option<Uid>,
        call: CallId,
        invoked_at: u64,
    ) -> OpNo {
        self.ops.push(Op {
            kind,
            uid,
            level,
            call,
            invoked_at,
            fate: Fate::Open,
            stored: false,
        });
        self.ops.len() - 1
    }

    /// Enters an action.
    pub(crate) fn begin_level(&mut self, action: Uid, parent: Option<Uid>, now: u64) {
        let state = State::Open;
        self.levels.insert(action, Level { parent, state });
        if parent.is_none() {
            let root = Root {
                began_at: now,
                ..Root::default()
            };
            self.roots.insert(action, root);
        }
    }

    pub(crate) fn end_level(&mut self, action: Uid, state: State) {
        let level = self.levels.get_mut(&action).expect("it was entered");
        level.state = state;
    }

    pub(crate) fn root(&mut self, action: Uid) -> &mut Root {
        self.roots.get_mut(&action).expect("it was entered")
    }

    /// The root of an action.
    pub(crate) fn root_of(&self, action: Uid) -> Uid {
        let mut action = action;
        while let Some(parent) = self.levels[&action].parent {
            action = parent;
        }
        action
    }

    /// The root whose end takes the level along, if every level on the way committed into its
    /// parent.
    pub(crate) fn merged_into(&self, level: Uid) -> Option<Uid> {
        let mut at = level;
        loop {
            let Level { parent, state } = &self.levels[&at];
            match (parent, state) {
                (None, _) => return Some(at),
                (Some(parent), State::Merged) => at = *parent,
                (Some(_), State::Open | State::Aborted) => return None,
            }
        }
    }

    /// Whether a root is committed, as far as anybody can see.
    pub(crate) fn committed(&self, root: Uid) -> bool {
        let root = &self.roots[&root];
        root.decided || root.told_at.is_some()
    }

    /// Whether an operation ended well in an action that ended well up to its root, or, outside
    /// of actions, is in the store; the name of what it is a part of.
    pub(crate) fn part_of(&self, op: OpNo) -> Option<Part> {
        let record = &self.ops[op];
        let Fate::Answered { outcome, .. } = &record.fate else {
            return None;
        };
        if outcome.ending != Ending::Normal {
            return None;
        }
        match record.level {
            Some(level) => self
                .merged_into(level)
                .filter(|root| self.committed(*root))
                .map(Part::Root),
            None => Some(Part::Call(op)),
        }
    }

    /// The writes that have to take effect with a root.
    pub(crate) fn writes_of(&self, root: Uid) -> impl Iterator<Item = OpNo> + '_ {
        let ops = self.ops.iter().enumerate();
        ops.filter(move |(_, op)| {
            let normal = matches!(
                &op.fate,
                Fate::Answered { outcome, .. } if outcome.ending == Ending::Normal
            );
            let level = op.level.and_then(|level| self.merged_into(level));
            op.kind.writes() && normal && level == Some(root)
        })
        .map(|(op, _)| op)
    }
}

/// What happens as one: a top-level action or a call outside actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Root(Uid),
    Call(OpNo),
}
