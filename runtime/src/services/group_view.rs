//! Views of groups: as the binder keeps and tells them, and as the core sees them.
//!
//! Which change of a view is right is decided by the core alone ([`View::change`]); here is what
//! the binder's structs are to it, and what no view can be.

use std::fmt;

use partha_core::group::view::MEMBERS_MAX;
use partha_core::group::{Change, Policy, View, Wish};
use partha_core::id::{NodeId, Uid};

use super::binder::{
    GroupOrder, GroupPlacement, GroupPolicy, GroupView, LABELS_MAX, Label, ViewChange, ViewWish,
};
use crate::error::{ErrorKind, SystemError};

/// Groups that the binder takes, and lists, at a time, at most.
pub const GROUPS_MAX: usize = 1_000;
/// Copies of an object, at most.
pub const COPIES_MAX: usize = MEMBERS_MAX;
/// The last number of a view; no group lives to see it.
pub const VIEW_NUMBER_MAX: u64 = 1 << 62;

impl GroupView {
    /// Refuses what can be the view of no group.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn check(&self) -> Result<(), String> {
        let Self {
            object, members, ..
        } = self;
        if object.node == Uid::NIL.node || *object == Uid::connection_manager(object.node) {
            return Err(format!("{object} is no object that can have copies"));
        }
        if !(1..=VIEW_NUMBER_MAX).contains(&self.number) {
            let number = self.number;
            return Err(format!("{number} is no number of a view"));
        }
        if members.is_empty() || members.len() > COPIES_MAX {
            let count = members.len();
            return Err(format!(
                "{count} members: there are at least 1 and at most {COPIES_MAX}"
            ));
        }
        for (index, member) in members.iter().enumerate() {
            if *member == 0 || members[..index].contains(member) {
                let member = NodeId(*member);
                return Err(format!("node {member} is nil, or twice a member"));
            }
        }
        Self::check_wanted(self.wanted)?;
        self.placement.check()
    }

    /// Refuses a number of copies that no group can have.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn check_wanted(wanted: u16) -> Result<(), String> {
        if !(1..=COPIES_MAX).contains(&usize::from(wanted)) {
            return Err(format!(
                "{wanted} copies are wanted: at least 1 and at most {COPIES_MAX}"
            ));
        }
        Ok(())
    }

    /// The view after a change; none if the change is not right, or not about this view.
    #[must_use]
    pub fn change(&self, change: &ViewChange) -> Option<Self> {
        if change.object != self.object || self.number >= VIEW_NUMBER_MAX {
            return None;
        }
        let view = View::try_from(self).ok()?;
        let changed = view.change(&Change::from(change)).ok()?;
        Some(Self {
            number: changed.number,
            members: changed.members.into_iter().map(|node| node.0).collect(),
            policy: match change.wish {
                ViewWish::Policy(policy) => policy,
                _ => self.policy,
            },
            ..self.clone()
        })
    }
}

impl TryFrom<&GroupView> for View {
    type Error = SystemError;

    /// # Errors
    /// `Malformed` for what is no view.
    fn try_from(view: &GroupView) -> Result<Self, SystemError> {
        view.check().map_err(|reason| {
            let detail = format!("the view of group {}: {reason}", view.object);
            SystemError::new(ErrorKind::Malformed, detail)
        })?;
        Ok(Self {
            number: view.number,
            members: view.members.iter().copied().map(NodeId).collect(),
        })
    }
}

impl From<&ViewChange> for Change {
    fn from(change: &ViewChange) -> Self {
        Self {
            expected: change.expected,
            by: NodeId(change.by),
            wish: match change.wish {
                ViewWish::Renew => Wish::Renew,
                ViewWish::Lead => Wish::Lead,
                ViewWish::Exclude(node) => Wish::Exclude(NodeId(node)),
                ViewWish::Include(node) => Wish::Include(NodeId(node)),
                ViewWish::HandOver(node) => Wish::HandOver(NodeId(node)),
                ViewWish::Policy(policy) => Wish::Policy(policy.into()),
            },
        }
    }
}

impl From<Wish> for ViewWish {
    fn from(wish: Wish) -> Self {
        match wish {
            Wish::Renew => Self::Renew,
            Wish::Lead => Self::Lead,
            Wish::Exclude(node) => Self::Exclude(node.0),
            Wish::Include(node) => Self::Include(node.0),
            Wish::HandOver(node) => Self::HandOver(node.0),
            Wish::Policy(policy) => Self::Policy(policy.into()),
        }
    }
}

impl GroupPolicy {
    /// Whether the next leader goes on with what running actions have of the object.
    #[must_use]
    pub fn takes_over(self) -> bool {
        Policy::from(self).takes_over()
    }
}

impl From<GroupPolicy> for Policy {
    fn from(policy: GroupPolicy) -> Self {
        match policy {
            GroupPolicy::Passive => Self::Passive,
            GroupPolicy::Cohort => Self::Cohort,
            GroupPolicy::Active => Self::Active,
        }
    }
}

impl From<Policy> for GroupPolicy {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::Passive => Self::Passive,
            Policy::Cohort => Self::Cohort,
            Policy::Active => Self::Active,
        }
    }
}

impl Default for GroupPlacement {
    /// Spread, at any nodes.
    fn default() -> Self {
        Self {
            order: GroupOrder::Spread,
            on: Vec::new(),
        }
    }
}

impl GroupPlacement {
    /// Refuses labels that no node can have, and too many of them.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn check(&self) -> Result<(), String> {
        if self.on.len() > LABELS_MAX {
            let count = self.on.len();
            return Err(format!("{count} labels for copies: at most {LABELS_MAX}"));
        }
        self.on.iter().try_for_each(Label::check)
    }
}

impl fmt::Display for GroupOrder {
    /// `spread`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Spread => "spread",
            Self::Pack => "pack",
        })
    }
}

impl fmt::Display for GroupPlacement {
    /// `spread, on zone=a zone=b`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.order.fmt(f)?;
        for (index, label) in self.on.iter().enumerate() {
            let before = if index == 0 { ", on" } else { "" };
            write!(f, "{before} {label}")?;
        }
        Ok(())
    }
}

impl fmt::Display for GroupPolicy {
    /// `passive`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passive => "passive",
            Self::Cohort => "cohort",
            Self::Active => "active",
        })
    }
}

#[cfg(test)]
mod tests {
    use partha_core::id::Incarnation;

    use super::*;

    fn view(number: u64, members: &[u64]) -> GroupView {
        GroupView {
            object: Uid::new(NodeId(1), Incarnation(1), 100),
            class: 7,
            number,
            members: members.to_vec(),
            wanted: 3,
            policy: GroupPolicy::Passive,
            placement: GroupPlacement::default(),
        }
    }

    fn change(by: u64, expected: u64, wish: Wish) -> ViewChange {
        ViewChange {
            object: view(1, &[1]).object,
            expected,
            by,
            incarnation: 1,
            wish: wish.into(),
        }
    }

    #[test]
    fn each_wish_is_the_one_of_the_core() {
        let table = [
            (1, Wish::Renew, vec![1, 2, 3]),
            (2, Wish::Lead, vec![2, 3]),
            (1, Wish::Exclude(NodeId(2)), vec![1, 3]),
            (1, Wish::Include(NodeId(4)), vec![1, 2, 3, 4]),
            (1, Wish::HandOver(NodeId(3)), vec![3, 1, 2]),
            (1, Wish::Policy(Policy::Passive), vec![1, 2, 3]),
        ];
        for (by, wish, members) in table {
            let asked = change(by, 5, wish);
            assert_eq!(Change::from(&asked).wish, wish);
            let changed = view(5, &[1, 2, 3]).change(&asked);
            assert_eq!(changed, Some(view(6, &members)), "{wish:?}");
        }
    }

    #[test]
    fn the_policy_changes_with_the_number_and_nothing_else() {
        let all = [
            GroupPolicy::Passive,
            GroupPolicy::Cohort,
            GroupPolicy::Active,
        ];
        for (from, to) in all.into_iter().flat_map(|from| all.map(|to| (from, to))) {
            let before = GroupView {
                policy: from,
                ..view(5, &[1, 2])
            };
            let asked = change(1, 5, Wish::Policy(to.into()));
            let changed = before.change(&asked).unwrap();
            let policy = to;
            let expected = GroupView {
                policy,
                ..view(6, &[1, 2])
            };
            assert_eq!(changed, expected, "{from} to {to}");
            // Heard late, or once more.
            assert_eq!(changed.change(&asked), None);
            let kept = changed.change(&change(1, 6, Wish::Exclude(NodeId(2))));
            assert_eq!(kept.unwrap().policy, to, "another wish keeps it");
        }
        let follower = change(2, 5, Wish::Policy(Policy::Cohort));
        assert_eq!(view(5, &[1, 2]).change(&follower), None);
    }

    #[test]
    fn what_is_not_right_changes_nothing() {
        let now = view(5, &[1, 2]);
        for wrong in [
            change(2, 5, Wish::Renew),
            change(2, 4, Wish::Lead),
            change(2, 6, Wish::Lead),
            change(3, 5, Wish::Lead),
            change(1, 5, Wish::Exclude(NodeId(1))),
            ViewChange {
                object: Uid::new(NodeId(1), Incarnation(1), 101),
                ..change(1, 5, Wish::Renew)
            },
        ] {
            assert_eq!(now.change(&wrong), None, "{wrong:?}");
        }
        let last = view(VIEW_NUMBER_MAX, &[1]);
        let renew = change(1, VIEW_NUMBER_MAX, Wish::Renew);
        assert_eq!(last.change(&renew), None, "numbers do not run over");
        let renew = change(1, VIEW_NUMBER_MAX - 1, Wish::Renew);
        assert_eq!(view(VIEW_NUMBER_MAX - 1, &[1]).change(&renew), Some(last));
    }

    #[test]
    fn what_can_be_no_view_is_refused() {
        let crowd: Vec<_> = (1..=COPIES_MAX as u64 + 1).collect();
        let with = |object| GroupView {
            object,
            ..view(1, &[1])
        };
        let wanted = |wanted| GroupView {
            wanted,
            ..view(1, &[1])
        };
        for wrong in [
            view(0, &[1]),
            view(VIEW_NUMBER_MAX + 1, &[1]),
            view(1, &[]),
            view(1, &crowd),
            view(1, &[1, 2, 1]),
            view(1, &[0]),
            with(Uid::NIL),
            with(Uid::NAMING_ROOT),
            with(Uid::connection_manager(NodeId(1))),
            wanted(0),
            wanted(COPIES_MAX as u16 + 1),
        ] {
            assert!(wrong.check().is_err(), "{wrong:?}");
            let refused = View::try_from(&wrong).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Malformed);
            assert_eq!(wrong.change(&change(1, 1, Wish::Renew)), None);
        }
        assert_eq!(view(VIEW_NUMBER_MAX, &crowd[1..]).check(), Ok(()));
        let core = View::try_from(&view(3, &[2, 1])).unwrap();
        assert_eq!((core.number, core.leader()), (3, NodeId(2)));
    }
}
