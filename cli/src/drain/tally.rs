//! What has become of the objects of a node that is drained, counted; of those that stay, a few.

use std::collections::BTreeMap;

use partha::system::NotMovable;
use partha::system::connection_manager::MoveObjectError;
use partha::{ErrorKind, Uid};

/// Objects of a kind that are named, at most.
const NAMED_MAX: usize = 3;
/// Kinds of reasons that are kept apart, at most.
const KINDS_MAX: usize = 100;

/// What has become of the objects in one pass over them.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// They are at other nodes now.
    pub(super) moved: u64,
    stays: BTreeMap<(u64, Why), Stays>,
}

/// Why objects stay.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Why {
    /// No node that comes into question runs their class.
    NoTarget,
    /// They could not be moved, and another attempt will fail like this one.
    Refused(Kind),
    /// They are copies, of objects that have others, and no other node can have one.
    NotReplaced(Kind),
    /// They could not be moved for now.
    Busy(Kind),
    /// For one of so many reasons that they are not told apart.
    Other,
}

/// What a reason has in common with others that name other objects, times and addresses: its
/// words that have no digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kind(String);

/// Objects of one class that stay for one reason.
#[derive(Debug)]
pub(super) struct Stays {
    pub(super) count: u64,
    /// Some of them.
    pub(super) named: Vec<Uid>,
    /// What was said of the first.
    pub(super) text: String,
}

impl Kind {
    pub(super) fn of(reason: &str) -> Self {
        let digit = |c: char| c.is_ascii_digit();
        let words = reason.split_whitespace();
        let words = words.filter(|word| !word.contains(digit));
        Self(words.collect::<Vec<_>>().join(" "))
    }
}

impl Why {
    /// Of a move that failed.
    pub(super) fn of(error: &MoveObjectError) -> Self {
        match error {
            MoveObjectError::NotMovable(NotMovable {
                reason,
                passing: false,
                ..
            }) => Self::Refused(Kind::of(reason)),
            MoveObjectError::NotMovable(NotMovable { reason, .. }) => Self::Busy(Kind::of(reason)),
            MoveObjectError::System(error) if error.kind() == ErrorKind::BadOperation => {
                Self::Refused(Kind::of(error.detail()))
            }
            error => Self::Busy(Kind::of(&error.to_string())),
        }
    }

    /// Whether another attempt may go better.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self, Self::Busy(_) | Self::Other)
    }
}

impl Tally {
    /// An object stays.
    pub(super) fn stays(&mut self, object: Uid, class: u64, why: Why, text: impl ToString) {
        let mut key = (class, why);
        if self.stays.len() >= KINDS_MAX && !self.stays.contains_key(&key) {
            key = (0, Why::Other);
        }
        let stays = self.stays.entry(key).or_insert_with(|| Stays {
            count: 0,
            named: Vec::new(),
            text: text.to_string(),
        });
        stays.count += 1;
        if stays.named.len() < NAMED_MAX {
            stays.named.push(object);
        }
    }

    /// Those that stay, by class and reason.
    pub(super) fn all(&self) -> impl Iterator<Item = (u64, &Why, &Stays)> {
        let all = self.stays.iter();
        all.map(|((class, why), stays)| (*class, why, stays))
    }

    /// How many stay whom another attempt may move.
    pub(super) fn busy(&self) -> u64 {
        let all = self.all().filter(|(_, why, _)| why.may_pass());
        all.map(|(_, _, stays)| stays.count).sum()
    }

    /// How many stay.
    pub(super) fn staying(&self) -> u64 {
        self.all().map(|(_, _, stays)| stays.count).sum()
    }
}

#[cfg(test)]
mod tests {
    use partha::{Incarnation, NodeId, SystemError};

    use super::*;

    fn object(counter: u64) -> Uid {
        Uid::new(NodeId(1), Incarnation(1), counter)
    }

    fn not_movable(reason: &str, passing: bool) -> MoveObjectError {
        MoveObjectError::NotMovable(NotMovable {
            object: object(1),
            reason: reason.to_owned(),
            passing,
        })
    }

    #[test]
    fn what_stays_is_counted_by_class_and_reason_and_a_few_are_named() {
        let mut tally = Tally::default();
        for counter in 0..5 {
            let reason = format!("object {} is in use for {counter}s", object(counter));
            let error = not_movable(&reason, true);
            tally.stays(object(counter), 7, Why::of(&error), &reason);
        }
        let refused = not_movable("it is a service's own", false);
        tally.stays(object(9), 7, Why::of(&refused), "it is a service's own");
        tally.stays(object(10), 8, Why::NoTarget, "nobody runs it");
        let gone = SystemError::new(ErrorKind::Unreachable, "no route");
        let gone = MoveObjectError::System(gone);
        tally.stays(object(11), 8, Why::of(&gone), "no route");
        assert_eq!((tally.busy(), tally.staying()), (6, 8));
        assert_eq!(tally.all().count(), 4);
        let busy = tally
            .all()
            .find(|(class, why, _)| *class == 7 && why.may_pass());
        let busy = busy.unwrap().2;
        assert_eq!((busy.count, busy.named.len()), (5, NAMED_MAX));
        assert!(busy.text.contains("for 0s"), "{}", busy.text);
    }

    #[test]
    fn there_are_not_more_reasons_than_are_kept_apart() {
        let mut tally = Tally::default();
        for class in 0..1000 {
            tally.stays(object(class), class + 1, Why::NoTarget, "nobody runs it");
        }
        assert_eq!(tally.all().count(), KINDS_MAX + 1);
        assert_eq!(tally.staying(), 1000);
    }
}
