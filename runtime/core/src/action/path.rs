//! Names of actions and of those who take part in them.

use core::fmt;

use crate::id::{Incarnation, NodeId, Peer, Uid};
use crate::input::Ticket;
use crate::time::Time;

/// The deepest path of actions, enclosing ones included. Deeper nesting is refused: a program
/// that nests without end would otherwise make every message as long as it likes.
pub const PATH_MAX: usize = 64;

/// The name of an action with all that it is in, outermost first (Narayana's `ActionHierarchy`).
///
/// The first [`Path::enclosing`] entries are those across a top-level boundary: an action begun
/// there commits on its own, so it inherits no locks from them; yet they wait for it, which is
/// what deadlock detection needs to know. A path without entries of its own names a call outside
/// any action, made by a servant that works for the enclosing ones.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Path {
    uids: Vec<Uid>,
    enclosing: usize,
}

impl Path {
    /// A path from what came over the wire.
    ///
    /// Returns none if it is too long, or the boundary lies outside of it.
    #[must_use]
    pub fn new(uids: Vec<Uid>, enclosing: usize) -> Option<Self> {
        (uids.len() <= PATH_MAX && enclosing <= uids.len()).then_some(Self { uids, enclosing })
    }

    /// A top-level action within nothing.
    #[must_use]
    pub fn top(root: Uid) -> Self {
        Self {
            uids: vec![root],
            enclosing: 0,
        }
    }

    /// A nested action of this one.
    ///
    /// # Panics
    /// If this path has no action of its own to nest in; [`Path::top_level`] begins one.
    #[must_use]
    pub fn nested(&self, child: Uid) -> Self {
        assert!(self.leaf().is_some(), "no action to nest {child} in");
        let mut path = self.clone();
        path.uids.push(child);
        path
    }

    /// A top-level action begun within this one.
    #[must_use]
    pub fn top_level(&self, root: Uid) -> Self {
        let mut path = self.outside();
        path.uids.push(root);
        path
    }

    /// A call outside any action, by a servant that works for this one.
    #[must_use]
    pub fn outside(&self) -> Self {
        Self {
            uids: self.uids.clone(),
            enclosing: self.uids.len(),
        }
    }

    /// All entries, outermost first.
    #[must_use]
    pub fn whole(&self) -> &[Uid] {
        &self.uids
    }

    /// How many entries lie across the last top-level boundary.
    #[must_use]
    pub fn enclosing(&self) -> usize {
        self.enclosing
    }

    /// The entries from the last top-level boundary: root first, the action itself last.
    #[must_use]
    pub fn own(&self) -> &[Uid] {
        &self.uids[self.enclosing..]
    }

    /// The top-level action that this one commits with.
    #[must_use]
    pub fn root(&self) -> Option<Uid> {
        self.own().first().copied()
    }

    /// The action itself.
    #[must_use]
    pub fn leaf(&self) -> Option<Uid> {
        self.own().last().copied()
    }

    /// Whether `action` is the action itself or one that it is nested in, up to its root.
    #[must_use]
    pub fn is_within(&self, action: Uid) -> bool {
        self.own().contains(&action)
    }

    /// Whether `action` waits for this one, across boundaries.
    #[must_use]
    pub fn is_enclosed_by(&self, action: Uid) -> bool {
        self.uids[..self.enclosing].contains(&action)
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, uid) in self.uids.iter().enumerate() {
            let separator = match index {
                0 => "",
                _ if index == self.enclosing => " | ",
                _ => " / ",
            };
            write!(f, "{separator}{uid}")?;
        }
        Ok(())
    }
}

/// The name of the action that a call outside any action is by itself: made by the shard that
/// serves it, from the call's ticket, so that it costs nothing until somebody needs it. Such
/// names have the upper half of the counters of their node and life to themselves.
#[must_use]
pub fn own_action(node: Peer, shard: u16, ticket: Ticket) -> Uid {
    let half = 1 << (Uid::COUNTER_BITS - 1);
    let counter = half | (u64::from(shard) & 0x7f) << 32 | ticket.0 & 0xffff_ffff;
    Uid::new(node.node, node.incarnation, counter)
}

/// What a call says about the action it is made in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The action.
    pub path: Path,
    /// When whoever runs the root gives it up; a mirror that is not prepared ends then.
    pub until: Time,
    /// The node where deadlocks of the family are looked for: the one whose shard
    /// `home(first uid of the path)` keeps what its members wait for.
    pub home: NodeId,
    /// When the outermost action began, in milliseconds of its node's wall clock. Only compared
    /// to choose a victim: the youngest.
    pub born_ms: u64,
    /// The objects whose servants wait for this call, outermost first: a call of one of them is
    /// a re-entry.
    pub stack: Vec<Uid>,
    /// It is made by a servant whose call the next leader of its object executes again: if the
    /// caller is gone, its calls are, but the action may go on.
    pub carried: bool,
}

/// A shard of a node, in whichever incarnation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Site {
    /// The node.
    pub node: NodeId,
    /// Its shard. After a restart with fewer shards the node finds another one for it.
    pub shard: u16,
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.node, self.shard)
    }
}

/// Where somebody who takes part in an action is found.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Address {
    /// A shard.
    Site(Site),
    /// Whoever leads this replicated object: each leader takes over what its predecessor had of
    /// the action.
    Leader(Uid),
}

impl Address {
    /// The object, if it is whoever leads one.
    #[must_use]
    pub fn object(self) -> Option<Uid> {
        match self {
            Self::Site(_) => None,
            Self::Leader(object) => Some(object),
        }
    }
}

/// Where the decision on an action is made: who has prepared for it asks there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Coordinator {
    /// Who was asked to commit the action.
    pub site: Site,
    /// The replicated object whose log has the decision; whoever leads it knows. If there is none,
    /// the site does.
    pub decider: Option<Uid>,
}

impl Coordinator {
    /// Whether both decide in the log of the same replicated object, each while it leads that: a
    /// Yes to one is a Yes to the other.
    #[must_use]
    pub fn decides_with(self, other: Self) -> bool {
        self.decider.is_some() && self.decider == other.decider
    }
}

impl From<Site> for Coordinator {
    /// One that decides by its own store.
    fn from(site: Site) -> Self {
        let decider = None;
        Self { site, decider }
    }
}

/// What the answer of a call in an action says about the shard that served it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The number of the mirror there, never used again in that incarnation: a mirror with
    /// another number is not the one that did the earlier work. Of a *part* it is the same at
    /// all leaders.
    pub join: u64,
    /// Whether something persistent was changed there in this action so far.
    pub updated: bool,
    /// The first replicated object that was changed there, as long as nothing but replicated
    /// objects was: its log can have the decision. Of a part: its object, changed or not.
    pub decider: Option<Uid>,
    /// The mirror is a part: the action's work at one replicated object, which the next leader
    /// takes over. It is found by that object, wherever it was when it answered.
    pub part: bool,
}

impl Joined {
    /// Notes what another answer said of the same mirror, earlier or later.
    pub(crate) fn merge(&mut self, other: Self) {
        if self.part {
            self.updated |= other.updated;
            return;
        }
        // Once something else was changed, it stays so; an answer from before does not know.
        self.decider = match (self.updated, other.updated) {
            (false, _) => other.decider,
            (true, false) => self.decider,
            (true, true) => self.decider.and(other.decider),
        };
        self.updated |= other.updated;
    }
}

/// A shard that takes part in a top-level action, as whoever runs the action knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Participant {
    /// Where.
    pub site: Site,
    /// In which life of the node: a later one has forgotten the mirror.
    pub incarnation: Incarnation,
    /// What its answers said.
    pub joined: Joined,
}

impl Participant {
    /// Whether both are about the same work.
    #[must_use]
    pub fn is_same_mirror(&self, other: &Self) -> bool {
        let work = |it: &Self| (it.site, it.incarnation, it.joined.join);
        match (self.address(), other.address()) {
            (Address::Leader(one), Address::Leader(other_one)) => {
                one == other_one && self.joined.join == other.joined.join
            }
            _ => self.joined.part == other.joined.part && work(self) == work(other),
        }
    }

    /// Where it is found.
    #[must_use]
    pub fn address(&self) -> Address {
        match self.joined.decider.filter(|_| self.joined.part) {
            Some(object) => Address::Leader(object),
            None => Address::Site(self.site),
        }
    }

    /// The replicated object whose leaders hand it on to each other, if it is a part.
    #[must_use]
    pub fn part(&self) -> Option<Uid> {
        self.joined.decider.filter(|_| self.joined.part)
    }

    /// The replicated object whose log can have the decision, if it is asked to commit.
    pub(crate) fn decider(&self) -> Option<Uid> {
        self.joined.decider.filter(|_| self.joined.updated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(n: u64) -> Uid {
        Uid {
            node: NodeId(1),
            local: n,
        }
    }

    #[test]
    fn a_boundary_separates_what_commits_together_from_what_waits() {
        let root = Path::top(uid(1));
        let child = root.nested(uid(2));
        assert_eq!(child.own(), [uid(1), uid(2)]);
        assert!(child.is_within(uid(1)) && !root.is_within(uid(2)));
        let independent = child.top_level(uid(3)).nested(uid(4));
        assert_eq!(independent.root(), Some(uid(3)));
        assert_eq!(independent.leaf(), Some(uid(4)));
        assert!(independent.is_enclosed_by(uid(2)) && !independent.is_within(uid(2)));
        assert_eq!(independent.whole().len(), 4);
        assert_eq!(child.outside().leaf(), None);
        assert_eq!(child.outside().whole(), child.whole());
    }

    #[test]
    fn a_path_from_outside_is_bounded() {
        assert_eq!(Path::new(vec![uid(1); PATH_MAX + 1], 0), None);
        assert_eq!(Path::new(vec![uid(1)], 2), None);
        assert_eq!(Path::new(vec![uid(1)], 0), Some(Path::top(uid(1))));
    }
}
