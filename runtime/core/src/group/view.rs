//! The view of a group and the changes of it that the binder lets happen.
//!
//! | change | by whom | effect |
//! |---|---|---|
//! | `Renew` | the leader, in a new life | the same members under a new number |
//! | `Lead` | any other member | it leads, and the leader before it is no member |
//! | `Exclude` | the leader | a member that is not heard of is none |
//! | `Include` | the leader | a copy that has everything is the last member |
//! | `HandOver` | the leader | another member leads, and it stays a member |
//! | `Policy` | the leader | the same members under a new number, and another policy |
//!
//! Each takes effect only on the view whose number it names, and makes the next number. Whoever
//! leads the new view has asked for the change, so that an answer that was lost can be told from
//! somebody else's change (`HandOver` apart, after which nobody acts on a guess).

use crate::id::NodeId;

/// How the copies of a group keep up with each other. Views, logs and leads are the same with
/// all; what differs is what gets into the log, and what the next leader makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// What running actions have of the object is the leader's alone (single-copy passive).
    Passive,
    /// It is in the log before anybody is told of it (coordinator-cohort).
    Cohort,
    /// The same, and calls outside of actions are executed by all (active).
    Active,
}

impl Policy {
    /// Whether the next leader goes on with what running actions have of the object.
    #[must_use]
    pub fn takes_over(self) -> bool {
        match self {
            Self::Passive => false,
            Self::Cohort | Self::Active => true,
        }
    }
}

/// Copies that a group may have.
pub const MEMBERS_MAX: usize = 16;

/// Who the copies are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Counts the changes, those of the policy, too; the group was made in view 1.
    pub number: u64,
    /// The copies, in the order in which they lead. Never empty.
    pub members: Vec<NodeId>,
}

/// What is to become of a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// The leader has come back.
    Renew,
    /// Whoever asks takes the place of a leader that is gone.
    Lead,
    /// A member is gone.
    Exclude(NodeId),
    /// A copy is up to date.
    Include(NodeId),
    /// Another member is to lead.
    HandOver(NodeId),
    /// The copies are to keep up with each other in another way. Which one is there the binder
    /// keeps beside the view, so that it changes together with the number.
    Policy(Policy),
}

/// A change of a view, as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The number of the view that is meant.
    pub expected: u64,
    /// Who asks.
    pub by: NodeId,
    /// For what.
    pub wish: Wish,
}

/// Why a view stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeRefused {
    /// The view is another one by now.
    Stale,
    /// Whoever asks does not lead, or is no member.
    NotAllowed,
    /// The member to be excluded or to lead is none, or the one to be included is one.
    NoChange,
    /// There would be too many members.
    Full,
}

impl View {
    /// The first view of a group.
    ///
    /// # Panics
    /// Without members, or with too many.
    #[must_use]
    pub fn first(members: Vec<NodeId>) -> Self {
        let fits = !members.is_empty() && members.len() <= MEMBERS_MAX;
        assert!(fits, "a group of {} members", members.len());
        Self { number: 1, members }
    }

    /// Who leads.
    ///
    /// # Panics
    /// If there are no members, which no view has.
    #[must_use]
    pub fn leader(&self) -> NodeId {
        *self.members.first().expect("a view has members")
    }

    /// Whether this node is a member.
    #[must_use]
    pub fn has(&self, node: NodeId) -> bool {
        self.members.contains(&node)
    }

    /// The members but one.
    pub fn others(&self, node: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let members = self.members.iter().copied();
        members.filter(move |member| *member != node)
    }

    /// The view that a change makes of this one.
    ///
    /// # Errors
    /// If the change is about another view, or is not right; see the table of the module.
    pub fn change(&self, change: &Change) -> Result<Self, ChangeRefused> {
        if change.expected != self.number {
            return Err(ChangeRefused::Stale);
        }
        let (by, leader) = (change.by, self.leader());
        let may = match change.wish {
            Wish::Lead => self.has(by) && by != leader,
            Wish::Renew
            | Wish::Exclude(_)
            | Wish::Include(_)
            | Wish::HandOver(_)
            | Wish::Policy(_) => by == leader,
        };
        if !may {
            return Err(ChangeRefused::NotAllowed);
        }
        let mut members = self.members.clone();
        match change.wish {
            Wish::Renew | Wish::Policy(_) => {}
            Wish::Lead => {
                members.retain(|member| *member != leader && *member != by);
                members.insert(0, by);
            }
            Wish::Exclude(node) if node != by && self.has(node) => {
                members.retain(|member| *member != node);
            }
            Wish::Include(node) if !self.has(node) => {
                if members.len() >= MEMBERS_MAX {
                    return Err(ChangeRefused::Full);
                }
                members.push(node);
            }
            Wish::HandOver(node) if node != by && self.has(node) => {
                members.retain(|member| *member != node);
                members.insert(0, node);
            }
            Wish::Exclude(_) | Wish::Include(_) | Wish::HandOver(_) => {
                return Err(ChangeRefused::NoChange);
            }
        }
        Ok(Self {
            number: self.number + 1,
            members,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);
    const C: NodeId = NodeId(3);
    const D: NodeId = NodeId(4);

    fn ask(view: &View, by: NodeId, wish: Wish) -> Result<Vec<NodeId>, ChangeRefused> {
        let expected = view.number;
        let changed = view.change(&Change { expected, by, wish })?;
        assert_eq!(changed.number, view.number + 1);
        Ok(changed.members)
    }

    #[test]
    fn each_change_is_the_one_of_the_table() {
        use ChangeRefused::{NoChange, NotAllowed};
        let view = View::first(vec![A, B, C]);
        let table = [
            (A, Wish::Renew, Ok(vec![A, B, C])),
            (B, Wish::Renew, Err(NotAllowed)),
            (B, Wish::Lead, Ok(vec![B, C])),
            (C, Wish::Lead, Ok(vec![C, B])),
            (A, Wish::Lead, Err(NotAllowed)),
            (D, Wish::Lead, Err(NotAllowed)),
            (A, Wish::Exclude(B), Ok(vec![A, C])),
            (A, Wish::Exclude(A), Err(NoChange)),
            (A, Wish::Exclude(D), Err(NoChange)),
            (C, Wish::Exclude(B), Err(NotAllowed)),
            (A, Wish::Include(D), Ok(vec![A, B, C, D])),
            (A, Wish::Include(C), Err(NoChange)),
            (B, Wish::Include(D), Err(NotAllowed)),
            (A, Wish::HandOver(C), Ok(vec![C, A, B])),
            (A, Wish::HandOver(D), Err(NoChange)),
            (B, Wish::HandOver(C), Err(NotAllowed)),
            (A, Wish::Policy(Policy::Cohort), Ok(vec![A, B, C])),
            (B, Wish::Policy(Policy::Cohort), Err(NotAllowed)),
            (D, Wish::Policy(Policy::Passive), Err(NotAllowed)),
        ];
        for (by, wish, expected) in table {
            assert_eq!(ask(&view, by, wish), expected, "{wish:?} by {by}");
        }
    }

    #[test]
    fn a_change_of_another_view_is_refused() {
        let view = View::first(vec![A, B]);
        for expected in [0, 2] {
            let change = Change {
                expected,
                by: B,
                wish: Wish::Lead,
            };
            assert_eq!(view.change(&change), Err(ChangeRefused::Stale));
        }
    }

    #[test]
    fn the_last_member_stays_and_there_are_never_too_many() {
        let alone = View::first(vec![A]);
        assert_eq!(
            ask(&alone, A, Wish::Exclude(A)),
            Err(ChangeRefused::NoChange)
        );
        let crowd = (1..=MEMBERS_MAX as u64).map(NodeId).collect();
        let crowd = View::first(crowd);
        let one_more = NodeId(MEMBERS_MAX as u64 + 1);
        let refused = ask(&crowd, A, Wish::Include(one_more));
        assert_eq!(refused, Err(ChangeRefused::Full));
    }
}
