//! How many copies an object is to have, how they keep up with each other, and where they are.

use std::fmt;

use partha_core::group::view::MEMBERS_MAX;

use crate::error::{ErrorKind, Result, SystemError};
use crate::reference::Place;
use crate::services::binder::{GroupOrder, GroupPlacement, GroupPolicy, Label};

/// The copies that an object is to have.
///
/// # Example
/// ```
/// use partha::{Place, Replication};
/// let three = Replication::passive(3);
/// let near = Replication::cohort(2).packed().on("zone", "a");
/// let place = Place::Any.replicated(near);
/// assert_ne!(three, Replication::passive(2));
/// # let _ = place;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Replication {
    /// How the copies keep up with each other. None leaves it as it is, or is passive.
    pub policy: Option<GroupPolicy>,
    /// How many there are to be, 1 to 16.
    pub copies: u16,
    /// Where those to come are to be. None leaves it as it is, or spreads them.
    pub placement: Option<GroupPlacement>,
}

impl Replication {
    /// So many copies, by the policy that there is.
    #[must_use]
    pub fn of(copies: u16) -> Self {
        Self {
            policy: None,
            copies,
            placement: None,
        }
    }

    /// One copy works, and what a call changes is on the disks of all before it is answered.
    #[must_use]
    pub fn passive(copies: u16) -> Self {
        Self::with(GroupPolicy::Passive, copies)
    }

    /// One copy works, and another one goes on in the middle of an action if it is lost: what each
    /// call in an action has done is at all copies before it is answered.
    #[must_use]
    pub fn cohort(copies: u16) -> Self {
        Self::with(GroupPolicy::Cohort, copies)
    }

    /// All copies work: each executes what is called outside of actions, and another one goes on
    /// in the middle of an action if the one that leads is lost, as with `cohort`. Methods have to
    /// decide by their object, their parameters and their context alone.
    #[must_use]
    pub fn active(copies: u16) -> Self {
        Self::with(GroupPolicy::Active, copies)
    }

    /// By a policy that was chosen elsewhere.
    #[must_use]
    pub fn with(policy: GroupPolicy, copies: u16) -> Self {
        let policy = Some(policy);
        Self {
            policy,
            ..Self::of(copies)
        }
    }

    /// Copies of different objects are at few nodes: the first ones by name. Else they are spread
    /// over zones, racks and nodes, by the nodes' labels `zone` and `rack`.
    #[must_use]
    pub fn packed(mut self) -> Self {
        self.placed().order = GroupOrder::Pack;
        self
    }

    /// Copies are spread, which they are anyhow unless they were packed before.
    #[must_use]
    pub fn spread(mut self) -> Self {
        self.placed().order = GroupOrder::Spread;
        self
    }

    /// Copies come only to nodes that have this label. Of several values of one name each will do;
    /// of several names a node has to have all.
    #[must_use]
    pub fn on(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.placed().on.push(Label {
            name: name.into(),
            value: value.into(),
        });
        self
    }

    fn placed(&mut self) -> &mut GroupPlacement {
        self.placement.get_or_insert_with(GroupPlacement::default)
    }

    /// Refuses what cannot be had.
    ///
    /// # Errors
    /// `BadOperation`, which says what is wrong.
    pub fn check(&self) -> Result<()> {
        let wrong = |reason: String| Err(SystemError::new(ErrorKind::BadOperation, reason));
        if self.copies == 0 || usize::from(self.copies) > MEMBERS_MAX {
            let copies = self.copies;
            return wrong(format!("{copies} copies: an object has 1 to {MEMBERS_MAX}"));
        }
        match &self.placement {
            Some(placement) => placement.check().or_else(wrong),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Replication {
    /// `3 copies, passive`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} copies", self.copies)?;
        match self.policy {
            Some(policy) => write!(f, ", {policy}"),
            None => Ok(()),
        }
    }
}

impl Place {
    /// The object is made there, and has copies at other nodes, too. It is there when all copies
    /// are, or as many as there are nodes for.
    #[must_use]
    pub fn replicated(self, replication: Replication) -> Self {
        // Of several wishes the last one counts, as of other options.
        let place = match self {
            Self::Replicated(place, _) => place,
            place => Box::new(place),
        };
        Self::Replicated(place, Box::new(replication))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_had_is_refused() {
        assert!(Replication::passive(16).check().is_ok());
        assert!(Replication::cohort(3).check().is_ok());
        assert!(Replication::active(3).check().is_ok());
        assert!(Replication::of(3).check().is_ok());
        assert!(Replication::passive(2).on("zone", "a").check().is_ok());
        for (wrong, why) in [
            (Replication::passive(0), "1 to 16"),
            (Replication::passive(17), "1 to 16"),
            (Replication::passive(3).on("zone", ""), "no value of label"),
        ] {
            let error = wrong.check().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BadOperation);
            assert!(error.detail().contains(why), "{error}");
        }
    }

    #[test]
    fn the_last_wish_counts() {
        let twice = Place::Any
            .replicated(Replication::passive(2))
            .replicated(Replication::passive(3));
        assert_eq!(twice, Place::Any.replicated(Replication::passive(3)));
    }
}
