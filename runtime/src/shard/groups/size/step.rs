//! What is to be done about the number of copies of a group, in one view at one moment.

use std::collections::BTreeMap;
use std::time::Instant;

use partha_core::group::View;
use partha_core::group::view::MEMBERS_MAX;
use partha_core::id::NodeId;

use crate::services::binder::GroupPlacement;

/// What a leader knows of the size of its group.
#[derive(Default)]
pub(in crate::shard::groups) struct Size {
    pub(in crate::shard::groups) placement: GroupPlacement,
    pub(super) due: Option<Instant>,
    pub(super) inviting: bool,
    /// Nodes that were asked to have a copy: until when that counts, and whether they said no.
    pub(super) joining: BTreeMap<NodeId, (Instant, bool)>,
    pub(super) in_vain: u32,
    /// Why there are fewer copies than wanted; empty if that is not known.
    pub(in crate::shard::groups) lacking: String,
    /// Copies that are to go, and for how long that is remembered.
    pub(super) leaving: BTreeMap<NodeId, Instant>,
    /// Nodes that are to have a copy besides, to lead then, and for how long.
    pub(super) wished: BTreeMap<NodeId, Instant>,
    /// Members that the binder is asked to exclude since they are to go.
    pub(super) excluding: Vec<NodeId>,
    /// Copies that were told to go, when, and whether they have not answered yet.
    pub(super) dismissed: BTreeMap<NodeId, (Instant, bool)>,
    /// This copy is being removed.
    pub(super) goes: bool,
}

/// What is to be done about the size of a group.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing: it is as it should be, or somebody else's to say.
    Rest,
    /// Something under way is waited for.
    Wait,
    Exclude(Vec<NodeId>),
    /// To one of these.
    HandOver(Vec<NodeId>),
    Invite(usize),
}

impl Size {
    /// What is kept of it when the copy begins again.
    pub(in crate::shard::groups) fn kept(self) -> Self {
        Self {
            placement: self.placement,
            leaving: self.leaving,
            ..Self::default()
        }
    }

    /// What is to be done in this view.
    pub(super) fn step(&mut self, me: NodeId, view: &View, wanted: usize, now: Instant) -> Step {
        self.leaving.retain(|_, until| *until > now);
        self.wished.retain(|_, until| *until > now);
        self.joining
            .retain(|node, (until, _)| *until > now && !view.has(*node));
        let stays = |node: &NodeId| !self.leaving.contains_key(node);
        let stay: Vec<NodeId> = view.members.iter().copied().filter(stays).collect();
        if !stay.is_empty() && !stays(&me) {
            return Step::HandOver(stay);
        }
        let mut wished = self.wished.keys().filter(|node| !view.has(**node));
        if let Some(node) = wished.next() {
            let is_asked = self.inviting || self.joining.contains_key(node);
            return match is_asked {
                true => Step::Wait,
                false => Step::Invite(1),
            };
        }
        let wanted = wanted + self.wished.len();
        if stay.len() >= wanted {
            let go = view.others(me).filter(|node| !stays(node));
            let surplus = stay[wanted..].iter().rev().copied();
            let exclude: Vec<_> = go.chain(surplus).collect();
            self.lacking.clear();
            return match exclude.is_empty() {
                true => Step::Rest,
                false => Step::Exclude(exclude),
            };
        }
        let coming = self.joining.values().filter(|(_, refused)| !refused);
        let coming = coming.count();
        let room = MEMBERS_MAX.saturating_sub(view.members.len() + coming);
        match wanted.saturating_sub(stay.len() + coming).min(room) {
            0 => Step::Wait,
            _ if self.inviting => Step::Wait,
            missing => Step::Invite(missing),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const JOINING: Duration = Duration::from_secs(5);

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);
    const C: NodeId = NodeId(3);
    const D: NodeId = NodeId(4);

    fn view(members: &[NodeId]) -> View {
        View::first(members.to_vec())
    }

    #[test]
    fn those_that_are_too_many_go_the_youngest_first() {
        let (mut size, now) = (Size::default(), Instant::now());
        let mut step = |members: &[NodeId], wanted| size.step(A, &view(members), wanted, now);
        assert_eq!(step(&[A, B, C], 3), Step::Rest);
        assert_eq!(step(&[A, B, C, D], 3), Step::Exclude(vec![D]));
        assert_eq!(step(&[A, B, C, D], 1), Step::Exclude(vec![D, C, B]));
        assert_eq!(step(&[A], 1), Step::Rest);
        assert_eq!(step(&[A], 3), Step::Invite(2));
    }

    #[test]
    fn a_copy_that_is_to_go_is_replaced_first() {
        let (mut size, now) = (Size::default(), Instant::now());
        let later = now + JOINING;
        size.leaving.insert(B, later);
        assert_eq!(size.step(A, &view(&[A, B]), 2, now), Step::Invite(1));
        size.joining.insert(C, (later, false));
        assert_eq!(size.step(A, &view(&[A, B]), 2, now), Step::Wait);
        let three = view(&[A, B, C]);
        assert_eq!(size.step(A, &three, 2, now), Step::Exclude(vec![B]));
        assert_eq!(size.step(A, &view(&[A, C]), 2, now), Step::Rest);
        // It is forgotten in the end.
        assert_eq!(size.step(A, &view(&[A, B]), 2, later), Step::Rest);
    }

    #[test]
    fn a_copy_that_is_to_lead_is_one_more_until_then() {
        let (mut size, now) = (Size::default(), Instant::now());
        let later = now + JOINING;
        size.wished.insert(D, later);
        // Also where one is missing: that one comes after it.
        for members in [&[A, B, C][..], &[A, B]] {
            assert_eq!(size.step(A, &view(members), 3, now), Step::Invite(1));
        }
        size.joining.insert(D, (later, false));
        assert_eq!(size.step(A, &view(&[A, B, C]), 3, now), Step::Wait);
        let four = view(&[A, B, C, D]);
        assert_eq!(size.step(A, &four, 3, now), Step::Rest);
        assert_eq!(size.step(A, &view(&[A, B, D]), 3, now), Step::Invite(1));
        assert_eq!(size.step(A, &four, 3, later), Step::Exclude(vec![D]));
        // It leads, and knows of no wish.
        let mut size = Size::default();
        let leads = view(&[D, A, B, C]);
        assert_eq!(size.step(D, &leads, 3, now), Step::Exclude(vec![C]));
    }

    #[test]
    fn a_leader_that_is_to_go_lets_another_one_lead() {
        let (mut size, now) = (Size::default(), Instant::now());
        let later = now + JOINING;
        size.leaving.insert(A, later);
        assert_eq!(
            size.step(A, &view(&[A, B]), 2, now),
            Step::HandOver(vec![B])
        );
        assert_eq!(size.step(A, &view(&[A]), 1, now), Step::Invite(1));
    }

    #[test]
    fn a_node_that_has_refused_is_not_waited_for() {
        let (mut size, now) = (Size::default(), Instant::now());
        let later = now + JOINING;
        size.joining.insert(B, (later, true));
        size.joining.insert(C, (later, false));
        assert_eq!(size.step(A, &view(&[A]), 3, now), Step::Invite(1));
        size.inviting = true;
        assert_eq!(size.step(A, &view(&[A]), 3, now), Step::Wait);
        size.inviting = false;
        assert_eq!(size.step(A, &view(&[A]), 3, later), Step::Invite(2));
    }
}
