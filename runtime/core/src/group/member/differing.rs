//! Members that have come to something else than the leader: objects whose copies all execute.
//!
//! A member that executes an entry and comes to something else than the leader does not acknowledge
//! it, and says what it has come to, as a digest. It is told the leader's result then, so that the
//! entry becomes complete, and what was answered is at all members. Who is wrong is a question of
//! how many:
//!
//! | more than half of the members | what follows |
//! |---|---|
//! | have come to the same as the leader | those that have not are excluded, and begin anew from the leader's state |
//! | have come to the same, and not the leader | one of them is to lead, when all that is in the log is complete |
//! | neither | nothing: there is no telling |
//!
//! Two members are no majority of each other. Who was excluded for this is not for some time once
//! more: else a servant that does not decide by its state alone would keep its copies coming and
//! going.

use std::collections::BTreeMap;

use super::{Member, Role, now_plus};
use crate::group::log::Stamp;
use crate::group::message::Output;
use crate::id::NodeId;
use crate::time::Time;

/// What a member has come to.
pub type Digest = [u8; 32];

/// Who was excluded for having come to something else is not for so long once more.
pub const SPARED_NS: u64 = 60_000_000_000;
/// Entries about which members differ, at most; of more the latest.
const ENTRIES_MAX: usize = 16;

/// Who has come to something else.
#[derive(Debug, Default)]
pub(super) struct Differing {
    /// By entry, who has, and to what.
    by_entry: BTreeMap<Stamp, BTreeMap<NodeId, Digest>>,
    /// Until when who was excluded is not excluded for this again.
    spared: BTreeMap<NodeId, Time>,
}

/// What follows from what the members of a group have come to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// Not all that is needed has been heard, or there is no majority.
    Open,
    /// These are wrong.
    Minority(Vec<NodeId>),
    /// The leader is, and this one is not.
    Leader(NodeId),
}

impl Differing {
    /// The view is another one, or this copy leads no more.
    pub(super) fn forget(&mut self) {
        self.by_entry.clear();
    }
}

impl Member {
    /// Whether another member is to lead, and is asked for when all in the log is complete.
    #[must_use]
    pub fn wants_another(&self) -> bool {
        self.hand_over.is_some()
    }

    /// A member says that it has come to something else.
    pub(super) fn differs(
        &mut self,
        now: Time,
        from: NodeId,
        (number, at, digest): (u64, Stamp, Digest),
        out: &mut Vec<Output>,
    ) {
        let leads = self.role == (Role::Leading { active: true }) && number == self.view.number;
        if !leads || from == self.me || !self.view.has(from) || !self.log.has(at) {
            return;
        }
        let by_entry = &mut self.differing.by_entry;
        by_entry.entry(at).or_default().insert(from, digest);
        if by_entry.len() > ENTRIES_MAX {
            by_entry.pop_first();
        }
        self.judge(now, out);
    }

    /// Looks who is wrong, as far as it is known.
    pub(super) fn judge(&mut self, now: Time, out: &mut Vec<Output>) {
        if self.differing.by_entry.is_empty() {
            return;
        }
        let mut by_entry = std::mem::take(&mut self.differing.by_entry);
        let mut wrong = false;
        by_entry.retain(|at, differ| {
            let has = |node: &NodeId| {
                let other = self.others.get(node);
                other.is_some_and(|other| other.has.is_some_and(|has| has.index >= at.index))
            };
            match verdict(self.me, &self.view.members, differ, has) {
                Verdict::Open => self.complete < at.index,
                Verdict::Minority(nodes) => {
                    let spared = &mut self.differing.spared;
                    spared.retain(|_, until| *until > now);
                    for node in nodes {
                        if let Some(other) = self.others.get_mut(&node)
                            && !spared.contains_key(&node)
                        {
                            spared.insert(node, now_plus(now, SPARED_NS));
                            other.lost = true;
                            wrong = true;
                        }
                    }
                    false
                }
                Verdict::Leader(next) => {
                    self.hand_over = self.hand_over.or(Some(next));
                    wrong = true;
                    false
                }
            }
        });
        self.differing.by_entry = by_entry;
        if wrong {
            self.advance(now, out);
        }
    }
}

/// Who is wrong about an entry. `has` says of a member whether it has the entry on disk; one that
/// has, and has not differed, has come to the same as the leader.
fn verdict(
    leader: NodeId,
    members: &[NodeId],
    differ: &BTreeMap<NodeId, Digest>,
    has: impl Fn(&NodeId) -> bool,
) -> Verdict {
    let is_most = |count: usize| 2 * count > members.len();
    let others = || members.iter().filter(|node| **node != leader);
    let agree = others().filter(|node| !differ.contains_key(node) && has(node));
    if is_most(1 + agree.count()) {
        let wrong = others().filter(|node| differ.contains_key(node));
        return Verdict::Minority(wrong.copied().collect());
    }
    let same = |digest: &Digest| differ.values().filter(|other| *other == digest).count();
    let right = others().find(|node| differ.get(node).is_some_and(|it| is_most(same(it))));
    right.map_or(Verdict::Open, |next| Verdict::Leader(*next))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEADER: NodeId = NodeId(1);

    #[test]
    fn the_majority_is_right() {
        let excluded =
            |nodes: &[u64]| Verdict::Minority(nodes.iter().map(|it| NodeId(*it)).collect());
        let leader = |next| Verdict::Leader(NodeId(next));
        // Members; who differs, and to what; who has the entry on disk; what follows.
        type Case<'a> = (u64, &'a [(u64, u8)], &'a [u64], Verdict);
        let cases: [Case<'_>; 11] = [
            (2, &[(2, 7)], &[2], Verdict::Open),
            (3, &[(2, 7)], &[], Verdict::Open),
            // Who was told the leader's result has it, and has differed all the same.
            (3, &[(2, 7)], &[2], Verdict::Open),
            (3, &[(2, 7)], &[2, 3], excluded(&[2])),
            (3, &[(2, 7), (3, 7)], &[], leader(2)),
            (3, &[(2, 7), (3, 7)], &[2, 3], leader(2)),
            (3, &[(2, 7), (3, 8)], &[2, 3], Verdict::Open),
            (4, &[(2, 7), (3, 7)], &[4], Verdict::Open),
            (5, &[(2, 7), (3, 8)], &[4, 5], excluded(&[2, 3])),
            (5, &[(2, 9), (3, 7), (4, 7), (5, 7)], &[], leader(3)),
            (5, &[(3, 7), (4, 7)], &[2], Verdict::Open),
        ];
        for (count, differ, have, expected) in cases {
            let members: Vec<_> = (1..=count).map(NodeId).collect();
            let named = differ
                .iter()
                .map(|(node, digest)| (NodeId(*node), [*digest; 32]));
            let named = named.collect();
            let found = verdict(LEADER, &members, &named, |node| have.contains(&node.0));
            assert_eq!(
                found, expected,
                "{count} members, {differ:?}, on disk at {have:?}"
            );
        }
    }
}
