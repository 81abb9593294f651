//! The part of each action at this shard: a tree of levels that own locks and before-images.
//!
//! A *mirror* belongs to one top-level action, a *level* to one action in it that called here or
//! has one below it that did. A nested action that ended is no level any more: what it had is
//! its parent's, or undone.
//!
//! | level | nested commit | nested abort |
//! |---|---|---|
//! | open, nothing below or under way | gone: locks and images go to the parent | gone: restored |
//! | open, else | Merging: gone when the last below has gone | Aborting, with all below: gone when the last running call has returned |
//! | Merging | nothing new | Aborting, with all below |
//! | Aborting | nothing | nothing new |
//!
//! While an object that a level has locked moves to another node, or comes from one, the level is
//! *pinned*: it waits for the end of the move as for a call of its own.
//!
//! A merge waits for what is below, since the message that says what became of that may have
//! been lost; before the root is prepared, whoever runs it says it again, once for all.
//!
//! This module keeps the tree and its numbers; locks and objects are in their own tables, and
//! the engine keeps them in step.

mod check;
mod kin;
mod names;
mod tree;

use std::collections::{BTreeMap, BTreeSet};

use super::coordinator::{Ballot, News};
use super::path::{Address, Coordinator, Joined, Membership, Participant, Path};
use crate::id::{CallId, Incarnation, NodeId, Peer, Uid};
use crate::input::{Job, Ticket};
use crate::migrate::Gone;
use crate::slab::{Slab, Slot};
use crate::time::Time;

pub(crate) use self::kin::Kin;

/// What is kept of an object as it was before an action first wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Before {
    /// There was none: the action made it.
    pub(crate) create: bool,
    /// A write has ended well since.
    pub(crate) changed: bool,
    /// It is replicated, and led here.
    pub(crate) replicated: bool,
    pub(crate) size_bytes: u64,
}

/// How the nested action of a call that has gone out has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nested {
    Aborted(Uid),
    /// It is committed into this one.
    Merged(Uid, Uid),
}

/// How a level is going to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Open,
    Merging,
    Aborting,
}

/// One action at this shard.
#[derive(Debug)]
pub(crate) struct Level {
    pub(crate) uid: Uid,
    pub(crate) mirror: Slot,
    pub(crate) parent: Option<Slot>,
    pub(crate) children: Vec<Slot>,
    pub(crate) ending: Ending,
    /// The objects it has a lock of, and since when.
    pub(crate) locks: BTreeMap<Uid, Time>,
    pub(crate) images: BTreeMap<Uid, Before>,
    /// Its calls that run or wait.
    pub(crate) calls: BTreeSet<Slot>,
    /// Moves that it waits for before it ends, however it does.
    pub(crate) pins: u32,
}

/// How far a mirror is. What each does about what happens is in [`super::participant`] and
/// [`super::coordinator`].
#[derive(Debug)]
pub(crate) enum Phase {
    Active,
    Aborting,
    Preparing {
        coordinator: Coordinator,
        job: Job,
        /// The coordinator has said that it is aborted.
        doomed: bool,
    },
    Prepared {
        coordinator: Coordinator,
        /// The next pause between two questions.
        pause_ns: u64,
        /// The coordinator was asked.
        doubted: bool,
    },
    Installing {
        coordinator: Coordinator,
        job: Job,
    },
    Voting(Box<Ballot>),
    Deciding {
        requests: Vec<Ticket>,
        job: Job,
        /// Those that have prepared.
        told: News,
        /// The replicated objects with a part of this shard's.
        own: Vec<Uid>,
    },
}

/// A top-level action's part here.
#[derive(Debug)]
pub(crate) struct Mirror {
    /// Of the root.
    pub(crate) path: Path,
    /// It is the action's work at this replicated object alone, so that the next leader can take
    /// it over, or a part found in its log; other mirrors of the action may be here besides.
    pub(crate) part: Option<Uid>,
    /// Its part is another leader's now: nobody finds it, and what still runs in it is nothing.
    pub(crate) lost: bool,
    /// Calls of it that have called elsewhere and have no saved reply.
    pub(crate) gone: BTreeMap<CallId, Gone>,
    /// Those of them that an earlier leader had begun, and that may be begun again.
    pub(crate) orphaned: BTreeSet<CallId>,
    /// Nested actions of calls that have ended well, and their parents.
    pub(crate) merged: Vec<(Uid, Uid)>,
    /// Those of calls that earlier leaders had begun.
    pub(crate) lost_out: Vec<Uid>,
    /// What is to be told of them where calls have gone out, and how often yet.
    pub(crate) to_tell: Vec<(Nested, u32)>,
    /// It will be told again.
    pub(crate) tells: bool,
    /// Of a part: nested actions that were aborted here.
    pub(crate) aborted: BTreeSet<Uid>,
    pub(crate) join: u64,
    pub(crate) root: Slot,
    pub(crate) phase: Phase,
    /// The processes that called in it.
    pub(crate) callers: Vec<Peer>,
    /// Shards that its calls here have called in turn.
    pub(crate) reached: BTreeSet<Address>,
    /// Who has objects now that it had locked here, and is to be asked when it commits.
    pub(crate) moved: Vec<Participant>,
    /// Its writes that were begun.
    pub(crate) executed: BTreeSet<CallId>,
    pub(crate) levels: u32,
    /// Locks of all levels.
    pub(crate) locks: u32,
    /// Calls of all levels, running and waiting.
    pub(crate) calls: u32,
    /// Moves that its levels wait for.
    pub(crate) pins: u32,
    /// No call has joined it: it is here since an object is to come that it has locked.
    pub(crate) for_cargo: bool,
    /// A write has ended well.
    pub(crate) updated: bool,
    /// The first replicated object that was changed in it.
    pub(crate) decider: Option<Uid>,
    /// An object that is not replicated was changed in it, or may have been.
    pub(crate) plain: bool,
    /// The replicated objects with a part that it has prepared.
    pub(crate) groups: Vec<Uid>,
    /// Its objects are not in memory: it was found in the store.
    pub(crate) stored_only: bool,
    pub(crate) home: NodeId,
    pub(crate) born_ms: u64,
    pub(crate) began: Time,
    pub(crate) until: Time,
    due: Time,
}

impl Mirror {
    pub(crate) fn uid(&self) -> Uid {
        self.path
            .root()
            .expect("a mirror's path ends with its root")
    }

    pub(crate) fn joined(&self) -> Joined {
        Joined {
            join: self.join,
            updated: self.updated,
            decider: self.decider(),
            part: self.part.is_some(),
        }
    }

    /// See [`Joined::decider`].
    pub(crate) fn decider(&self) -> Option<Uid> {
        let decider = self.decider.filter(|_| !self.plain);
        self.part.or(decider)
    }

    pub(crate) fn is_active(&self) -> bool {
        match self.phase {
            Phase::Active => true,
            Phase::Aborting
            | Phase::Preparing { .. }
            | Phase::Prepared { .. }
            | Phase::Installing { .. }
            | Phase::Voting(_)
            | Phase::Deciding { .. } => false,
        }
    }

    /// Whether it is nothing but what is on disk.
    pub(crate) fn can_sleep(&self) -> bool {
        match self.phase {
            Phase::Prepared { .. } => true,
            Phase::Active
            | Phase::Aborting
            | Phase::Preparing { .. }
            | Phase::Installing { .. }
            | Phase::Voting(_)
            | Phase::Deciding { .. } => false,
        }
    }

    /// Whether another shard's decision alone can end it.
    pub(crate) fn is_prepared(&self) -> bool {
        match self.phase {
            Phase::Prepared { .. } | Phase::Installing { .. } => true,
            Phase::Active
            | Phase::Aborting
            | Phase::Preparing { .. }
            | Phase::Voting(_)
            | Phase::Deciding { .. } => false,
        }
    }
}

/// An action, and the object whose part is meant, if one is.
pub(crate) type Name = (Uid, Option<Uid>);

/// Everything of actions at a shard, but for decisions that are made.
#[derive(Debug)]
pub(crate) struct Mirrors {
    mirrors: Slab<Mirror>,
    roots: BTreeMap<Name, Slot>,
    levels: Slab<Level>,
    names: BTreeMap<Name, Slot>,
    /// Parts, by their objects; those that are lost, too.
    parts: BTreeSet<(Uid, Slot)>,
    due: BTreeSet<(Time, Slot)>,
    /// Mirrors by who has called in them.
    by_caller: BTreeSet<(Peer, Slot)>,
    /// Mirrors that are or were prepared.
    prepared: BTreeSet<Slot>,
    /// The last number given to a mirror.
    joins: u64,
    /// What numbers of parts are mixed with, since they are compared across nodes.
    salt: u64,
}

impl Mirrors {
    /// No mirror yet. Numbers of mirrors have the incarnation in their upper bits, so that none
    /// is used in two lives.
    pub(crate) fn new(node: NodeId, incarnation: Incarnation) -> Self {
        Self {
            mirrors: Slab::new(),
            roots: BTreeMap::new(),
            levels: Slab::new(),
            names: BTreeMap::new(),
            parts: BTreeSet::new(),
            due: BTreeSet::new(),
            by_caller: BTreeSet::new(),
            prepared: BTreeSet::new(),
            joins: u64::from(incarnation.0) << Uid::COUNTER_BITS,
            salt: node.0.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.mirrors.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Slot, &Mirror)> {
        self.mirrors.iter()
    }

    pub(crate) fn levels(&self) -> impl Iterator<Item = (Slot, &Level)> {
        self.levels.iter()
    }

    /// The mirror of an action, parts aside.
    pub(crate) fn find(&self, root: Uid) -> Option<Slot> {
        self.find_at((root, None))
    }

    /// The same of a level.
    pub(crate) fn find_level(&self, uid: Uid) -> Option<Slot> {
        self.find_level_at((uid, None))
    }

    pub(crate) fn mirror(&self, slot: Slot) -> &Mirror {
        &self.mirrors[slot]
    }

    pub(crate) fn mirror_mut(&mut self, slot: Slot) -> &mut Mirror {
        &mut self.mirrors[slot]
    }

    pub(crate) fn level(&self, slot: Slot) -> &Level {
        &self.levels[slot]
    }

    pub(crate) fn level_mut(&mut self, slot: Slot) -> &mut Level {
        &mut self.levels[slot]
    }

    /// Notes that a process has called in an action, if fewer than so many have.
    pub(crate) fn note_caller(&mut self, slot: Slot, caller: Peer, callers_max: u32) {
        let callers = &mut self.mirrors[slot].callers;
        if callers.len() < callers_max as usize && self.by_caller.insert((caller, slot)) {
            callers.push(caller);
        }
    }

    /// The mirrors of actions that a process has called in.
    pub(crate) fn called_by(&self, caller: Peer) -> Vec<Slot> {
        let of = |slot| (caller, slot);
        let all = self.by_caller.range(of(Slot::FIRST)..=of(Slot::NONE));
        all.map(|(_, slot)| *slot).collect()
    }

    /// The mirrors of actions that earlier lives of a process have begun.
    pub(crate) fn begun_before(&self, node: NodeId, life: Incarnation) -> Vec<Slot> {
        let first_of = |life| (Uid::new(node, life, 0), None);
        let older = self.roots.range(first_of(Incarnation(0))..first_of(life));
        older.map(|(_, slot)| *slot).collect()
    }

    /// Notes that a mirror is prepared.
    pub(crate) fn note_prepared(&mut self, slot: Slot) {
        self.prepared.insert(slot);
    }

    /// The mirrors that are or were prepared.
    pub(crate) fn prepared(&self) -> impl Iterator<Item = (Slot, &Mirror)> {
        self.prepared
            .iter()
            .map(|slot| (*slot, &self.mirrors[*slot]))
    }

    /// How many levels a call with this path would add; none if the path does not fit those that
    /// are known, which only a mistake of its maker can cause.
    pub(crate) fn new_levels(&self, path: &Path, part: Option<Uid>) -> Option<u32> {
        let mut parent = None;
        let mut new = 0;
        for (depth, uid) in path.own().iter().enumerate() {
            match self.find_level_at((*uid, part)) {
                Some(slot) if new == 0 && self.levels[slot].parent == parent => {
                    parent = Some(slot);
                }
                None if !path.own()[..depth].contains(uid) => new += 1,
                Some(_) | None => return None,
            }
        }
        Some(new)
    }

    /// Enters a top-level action.
    pub(crate) fn insert(&mut self, path: Path, until: Time, now: Time) -> Slot {
        self.insert_at(path, None, until, now)
    }

    /// Enters a top-level action, or its part at one replicated object.
    pub(crate) fn insert_at(
        &mut self,
        path: Path,
        part: Option<Uid>,
        until: Time,
        now: Time,
    ) -> Slot {
        let (uid, slot) = self.insert_unnamed(path, until, now);
        if let Some(object) = part {
            self.mirrors[slot].part = part;
            self.mirrors[slot].join ^= self.salt;
            self.parts.insert((object, slot));
        }
        let before = self.roots.insert((uid, part), slot);
        assert!(before.is_none(), "{uid} has two mirrors");
        let root = self.insert_level(uid, slot, None);
        self.mirrors[slot].root = root;
        self.set_due(slot, until);
        slot
    }

    fn insert_unnamed(&mut self, path: Path, until: Time, now: Time) -> (Uid, Slot) {
        self.joins += 1;
        let uid = path.root().expect("a mirror's path ends with its root");
        let slot = self.mirrors.insert(Mirror {
            path,
            part: None,
            lost: false,
            gone: BTreeMap::new(),
            orphaned: BTreeSet::new(),
            merged: Vec::new(),
            lost_out: Vec::new(),
            to_tell: Vec::new(),
            tells: false,
            aborted: BTreeSet::new(),
            join: self.joins,
            root: Slot::NONE,
            phase: Phase::Active,
            callers: Vec::new(),
            reached: BTreeSet::new(),
            moved: Vec::new(),
            executed: BTreeSet::new(),
            levels: 0,
            locks: 0,
            calls: 0,
            pins: 0,
            for_cargo: false,
            updated: false,
            decider: None,
            plain: false,
            groups: Vec::new(),
            stored_only: false,
            home: NodeId(0),
            born_ms: 0,
            began: now,
            until,
            due: Time::NEVER,
        });
        (uid, slot)
    }

    pub(crate) fn insert_level(&mut self, uid: Uid, mirror: Slot, parent: Option<Slot>) -> Slot {
        let level = self.levels.insert(Level {
            uid,
            mirror,
            parent,
            children: Vec::new(),
            ending: Ending::Open,
            locks: BTreeMap::new(),
            images: BTreeMap::new(),
            calls: BTreeSet::new(),
            pins: 0,
        });
        if let Some(parent) = parent {
            self.levels[parent].children.push(level);
        }
        self.mirrors[mirror].levels += 1;
        let before = self.names.insert((uid, self.mirrors[mirror].part), level);
        assert!(before.is_none(), "{uid} has two levels");
        level
    }

    /// The objects of all that is prepared have left memory.
    pub(crate) fn forget_images(&mut self) {
        let slots: Vec<Slot> = self.mirrors.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            self.mirrors[slot].stored_only = true;
            let root = self.mirrors[slot].root;
            self.levels[root].images.clear();
        }
    }

    /// The level of a call, made with all it is nested in if need be. The path fits.
    pub(crate) fn join(&mut self, member: &Membership, part: Option<Uid>, now: Time) -> Slot {
        let own = member.path.own();
        let root = own[0];
        let mirror = self.find_at((root, part)).unwrap_or_else(|| {
            let enclosing = member.path.enclosing();
            let path = Path::new(member.path.whole()[..=enclosing].to_vec(), enclosing);
            let path = path.expect("a part of a path is one");
            let slot = self.insert_at(path, part, member.until, now);
            self.mirrors[slot].home = member.home;
            self.mirrors[slot].born_ms = member.born_ms;
            slot
        });
        let mut level = self.mirrors[mirror].root;
        for uid in &own[1..] {
            let known = self.find_level_at((*uid, part));
            level = known.unwrap_or_else(|| self.insert_level(*uid, mirror, Some(level)));
        }
        level
    }

    pub(crate) fn add_lock(&mut self, level: Slot, uid: Uid, now: Time) {
        let level = &mut self.levels[level];
        let before = level.locks.insert(uid, now);
        assert!(before.is_none(), "{} locks {uid} twice", level.uid);
        self.mirrors[level.mirror].locks += 1;
    }

    /// Whether it had the lock.
    pub(crate) fn remove_lock(&mut self, level: Slot, uid: Uid) -> bool {
        let level = &mut self.levels[level];
        let had = level.locks.remove(&uid).is_some();
        self.mirrors[level.mirror].locks -= u32::from(had);
        had
    }

    pub(crate) fn attach(&mut self, level: Slot, call: Slot) {
        let level = &mut self.levels[level];
        level.calls.insert(call);
        self.mirrors[level.mirror].calls += 1;
    }

    pub(crate) fn detach(&mut self, level: Slot, call: Slot) {
        let level = &mut self.levels[level];
        let had = level.calls.remove(&call);
        assert!(had, "{call:?} is no call of {}", level.uid);
        self.mirrors[level.mirror].calls -= 1;
    }

    /// Keeps a level from ending.
    pub(crate) fn pin(&mut self, level: Slot) {
        let level = &mut self.levels[level];
        level.pins += 1;
        self.mirrors[level.mirror].pins += 1;
    }

    /// Undoes one [`Mirrors::pin`].
    pub(crate) fn unpin(&mut self, level: Slot) {
        let level = &mut self.levels[level];
        level.pins -= 1;
        self.mirrors[level.mirror].pins -= 1;
    }

    /// Removes a level that holds nothing; with the root the mirror goes.
    pub(crate) fn remove(&mut self, slot: Slot) {
        let level = self.levels.remove(slot);
        let uid = level.uid;
        let empty = level.calls.is_empty() && level.children.is_empty() && level.pins == 0;
        assert!(empty, "{uid} ends with calls or levels below");
        assert!(level.locks.is_empty(), "{uid} ends and has locks");
        assert!(level.images.is_empty(), "{uid} ends and has images");
        let (part, lost) = (
            self.mirrors[level.mirror].part,
            self.mirrors[level.mirror].lost,
        );
        if !lost {
            self.names.remove(&(uid, part));
        }
        self.mirrors[level.mirror].levels -= 1;
        match level.parent {
            Some(parent) => self.levels[parent].children.retain(|child| *child != slot),
            None => {
                self.set_due(level.mirror, Time::NEVER);
                let mirror = self.mirrors.remove(level.mirror);
                for caller in mirror.callers {
                    self.by_caller.remove(&(caller, level.mirror));
                }
                self.prepared.remove(&level.mirror);
                if let Some(object) = part {
                    self.parts.remove(&(object, level.mirror));
                }
                if !lost {
                    self.roots.remove(&(uid, part));
                }
            }
        }
    }

    /// When to look at a mirror next.
    pub(crate) fn set_due(&mut self, slot: Slot, due: Time) {
        let mirror = &mut self.mirrors[slot];
        self.due.remove(&(mirror.due, slot));
        mirror.due = due;
        if due != Time::NEVER {
            self.due.insert((due, slot));
        }
    }

    pub(crate) fn next_due(&self) -> Option<Time> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The mirror to be looked at now; it has no date any more.
    pub(crate) fn pop_due(&mut self, now: Time) -> Option<Slot> {
        let (at, slot) = *self.due.first()?;
        if at > now {
            return None;
        }
        self.set_due(slot, Time::NEVER);
        Some(slot)
    }
}

#[cfg(test)]
mod tests;
