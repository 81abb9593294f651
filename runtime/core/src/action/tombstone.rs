//! What became of actions that have ended here, as long as there is room to remember.
//!
//! | known | aborted here | told to abort | committed | read only |
//! |---|---|---|---|---|
//! | nothing | Aborted | Told | Committed | ReadOnly |
//! | Told | Aborted | Told | Committed | ReadOnly |
//! | ReadOnly | Aborted | ReadOnly | Committed | ReadOnly |
//! | Aborted | Aborted | Aborted | Committed | Aborted |
//! | Committed | Committed | Committed | Committed | Committed |
//!
//! A late call of any of them is refused. Safety never rests on this table, since it forgets the
//! oldest when it is full: a mirror made anew by a late call has another number, so nobody will
//! have it prepared, and it ends when its action's time is up.
//!
//! *Told* is weaker than *Aborted*: somebody who may not know the outcome said so, or what was
//! here was given up; but what was here may have been begun by a late call, after the end. Who
//! asks for the outcome of such a one is answered from the store.

use std::collections::{BTreeMap, VecDeque};

use super::path::Participant;
use crate::id::Uid;
use crate::output::GaveUp;

/// How an action ended here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is aborted, and nobody can commit it any more.
    Aborted,
    /// Somebody said that it is aborted, or its part here was given up; that decides nothing.
    Told,
    /// It is committed.
    Committed,
    /// The mirror with this number had changed nothing and is out.
    ReadOnly { join: u64 },
}

impl Fate {
    /// What is known after one more message about an action.
    fn and(self, news: Self) -> Self {
        match (self, news) {
            (Self::Committed, _) | (_, Self::Committed) => Self::Committed,
            (Self::Aborted, _) | (_, Self::Aborted) => Self::Aborted,
            (Self::ReadOnly { .. }, _) => self,
            (Self::Told, Self::Told | Self::ReadOnly { .. }) => news,
        }
    }
}

/// The actions that ended last.
#[derive(Debug, Default)]
pub(crate) struct Tombstones {
    fates: BTreeMap<Uid, Fate>,
    /// Of those that were given up here: why.
    reasons: BTreeMap<Uid, GaveUp>,
    /// Of those that had changed nothing: who has objects now that they had locked.
    moved: BTreeMap<Uid, Vec<Participant>>,
    /// By age, oldest first.
    order: VecDeque<Uid>,
}

impl Tombstones {
    /// Notes how an action ended, forgetting the oldest if that makes more than `max`.
    pub(crate) fn note(&mut self, action: Uid, fate: Fate, max: u32) {
        assert!(max > 0, "at least one ended action must be remembered");
        if let Some(known) = self.fates.get_mut(&action) {
            *known = known.and(fate);
            return;
        }
        if self.order.len() >= max as usize {
            let oldest = self.order.pop_front();
            let oldest = oldest.expect("a full table has an oldest entry");
            self.fates.remove(&oldest);
            self.reasons.remove(&oldest);
            self.moved.remove(&oldest);
        }
        self.fates.insert(action, fate);
        self.order.push_back(action);
    }

    /// Notes why an action that was just noted was given up here.
    pub(crate) fn note_reason(&mut self, action: Uid, why: GaveUp) {
        if self.fates.contains_key(&action) {
            self.reasons.entry(action).or_insert(why);
        }
    }

    /// Why an action was given up here, if it was.
    pub(crate) fn reason(&self, action: Uid) -> Option<GaveUp> {
        self.reasons.get(&action).copied()
    }

    /// Notes where the objects went of an action that was just noted.
    pub(crate) fn note_moved(&mut self, action: Uid, moved: Vec<Participant>) {
        if !moved.is_empty() && self.fates.contains_key(&action) {
            self.moved.insert(action, moved);
        }
    }

    /// Where they went.
    pub(crate) fn moved(&self, action: Uid) -> &[Participant] {
        self.moved.get(&action).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn find(&self, action: Uid) -> Option<Fate> {
        self.fates.get(&action).copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    pub(crate) fn check(&self, max: u32) {
        assert!(self.order.len() <= max as usize, "too many tombstones");
        assert!(
            self.order.len() == self.fates.len(),
            "tombstones are miscounted"
        );
        let known = |action| self.fates.contains_key(action);
        assert!(self.order.iter().all(known), "a tombstone has no age");
        assert!(self.reasons.keys().all(known), "a reason has no tombstone");
        assert!(self.moved.keys().all(known), "a move has no tombstone");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NodeId;

    const KNOWN: [Fate; 4] = [
        Fate::Told,
        Fate::ReadOnly { join: 3 },
        Fate::Aborted,
        Fate::Committed,
    ];

    #[test]
    fn what_is_known_never_gets_weaker() {
        for (strength, known) in KNOWN.into_iter().enumerate() {
            for (stronger, news) in KNOWN.into_iter().enumerate() {
                assert_eq!(known.and(news), KNOWN[strength.max(stronger)]);
            }
        }
    }

    #[test]
    fn where_objects_went_is_remembered_with_the_action() {
        let uid = |local| Uid {
            node: NodeId(1),
            local,
        };
        let moved = Participant {
            site: crate::action::path::Site::default(),
            incarnation: crate::id::Incarnation(1),
            joined: crate::action::path::Joined {
                join: 1,
                updated: true,
                decider: None,
                part: false,
            },
        };
        let mut table = Tombstones::default();
        table.note(uid(1), Fate::ReadOnly { join: 3 }, 1);
        table.note_moved(uid(1), vec![moved]);
        table.note_moved(uid(2), vec![moved]);
        assert_eq!(table.moved(uid(1)), [moved]);
        assert_eq!(table.moved(uid(2)), [], "it is not known");
        table.check(1);
        table.note(uid(2), Fate::Told, 1);
        assert_eq!(table.moved(uid(1)), []);
        table.check(1);
    }

    #[test]
    fn the_oldest_is_forgotten() {
        let uid = |local| Uid {
            node: NodeId(1),
            local,
        };
        let mut table = Tombstones::default();
        for n in [1, 2, 1, 3] {
            table.note(uid(n), Fate::Aborted, 2);
            table.check(2);
        }
        assert_eq!(table.find(uid(1)), None);
        assert_eq!(table.find(uid(3)), Some(Fate::Aborted));
    }
}
