//! What one copy has of its group's log: installed up to some entry, staged from there on.
//!
//! An entry is *staged* when it is kept beside the object's state, and *installed* when it is a
//! part of that. Only complete entries are installed, so what is installed is never taken back;
//! what is staged may be, by a newer view whose leader has not got it.

use core::fmt;
use std::collections::VecDeque;

/// The name of an entry. No two entries have the same one: the leader of a view is one process in
/// one life, and counts.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// The view in which it was made.
    pub view: u64,
    /// Its place in the log, from 1; 0 is the state that the group began with.
    pub index: u64,
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.view)
    }
}

/// What is to be done to make a log that of a leader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Everything after this index goes; none if nothing does.
    pub truncate: Option<u64>,
    /// What is added, in order.
    pub add: Vec<Stamp>,
}

/// A log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    installed: Stamp,
    staged: VecDeque<Stamp>,
}

impl Log {
    /// The log of a copy that was installed up to an entry, with nothing staged.
    #[must_use]
    pub fn at(installed: Stamp) -> Self {
        Self {
            installed,
            staged: VecDeque::new(),
        }
    }

    /// The log that a restart finds.
    ///
    /// # Panics
    /// If the entries do not follow each other.
    #[must_use]
    pub fn restored(installed: Stamp, staged: &[Stamp]) -> Self {
        let mut log = Self::at(installed);
        for stamp in staged {
            log.push(*stamp);
        }
        log
    }

    /// The last entry that is a part of the state.
    #[must_use]
    pub fn installed(&self) -> Stamp {
        self.installed
    }

    /// The last entry.
    #[must_use]
    pub fn last(&self) -> Stamp {
        self.staged.back().copied().unwrap_or(self.installed)
    }

    /// The entries that are not installed.
    pub fn staged(&self) -> impl Iterator<Item = Stamp> + '_ {
        self.staged.iter().copied()
    }

    /// How many those are.
    #[must_use]
    pub fn staged_len(&self) -> usize {
        self.staged.len()
    }

    /// Whether it has this entry, as far as that can be told: of what is installed only the last.
    #[must_use]
    pub fn has(&self, stamp: Stamp) -> bool {
        self.find(stamp.index) == Some(stamp)
    }

    /// The entry at a place; none before the last installed one and after the last.
    #[must_use]
    pub fn find(&self, index: u64) -> Option<Stamp> {
        let back = index.checked_sub(self.installed.index)?;
        match usize::try_from(back).ok()? {
            0 => Some(self.installed),
            place => self.staged.get(place - 1).copied(),
        }
    }

    /// Adds an entry at the end.
    ///
    /// # Panics
    /// If it is not the next one.
    pub fn push(&mut self, stamp: Stamp) {
        let last = self.last();
        let next = stamp.index == last.index + 1 && stamp.view >= last.view;
        assert!(next, "{stamp:?} does not follow {last:?}");
        self.staged.push_back(stamp);
    }

    /// Lets the entries up to `index` be a part of the state.
    ///
    /// # Panics
    /// If it has not got them.
    pub fn install(&mut self, index: u64) {
        while self.installed.index < index {
            let next = self.staged.pop_front();
            self.installed = next.expect("only what is there is installed");
        }
    }

    /// What makes this log the leader's in the view of that number, of which all entries after
    /// `previous` are told; none if `previous` is not in it, and lies behind what is installed:
    /// something is missing.
    ///
    /// Entries that are installed here are complete, hence the leader's. Those made in the very
    /// view are its too: if they are not among those told, the news is old.
    #[must_use]
    pub fn difference(
        &self,
        number: u64,
        previous: Stamp,
        entries: &[Stamp],
    ) -> Option<Difference> {
        if previous.index > self.installed.index && !self.has(previous) {
            return None;
        }
        let mut difference = Difference::default();
        let mut end = previous.index.max(self.installed.index);
        for stamp in entries {
            if stamp.index <= self.installed.index {
                continue;
            }
            if stamp.index != end + 1 {
                return None;
            }
            end = stamp.index;
            if !difference.add.is_empty() || !self.has(*stamp) {
                difference.add.push(*stamp);
            }
        }
        let kept = difference.add.first().map_or(end, |first| first.index - 1);
        // Whoever leads a view has made entries in it or in earlier ones, in their order.
        let mut view = self.find(kept).unwrap_or(self.installed).view;
        for stamp in &difference.add {
            if stamp.view < view || stamp.view > number {
                return None;
            }
            view = stamp.view;
        }
        let beyond = self.find(kept + 1);
        let ours = beyond.filter(|stamp| stamp.view < number);
        difference.truncate = ours.map(|_| kept);
        if beyond.is_some() && ours.is_none() {
            difference.add.clear();
        }
        Some(difference)
    }

    /// Does what [`Log::difference`] said.
    pub fn apply(&mut self, difference: &Difference) {
        if let Some(kept) = difference.truncate {
            let staged = kept - self.installed.index;
            self.staged
                .truncate(usize::try_from(staged).unwrap_or(usize::MAX));
        }
        for stamp in &difference.add {
            self.push(*stamp);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(view: u64, index: u64) -> Stamp {
        Stamp { view, index }
    }

    fn log(installed: Stamp, staged: &[Stamp]) -> Log {
        Log::restored(installed, staged)
    }

    #[test]
    fn a_log_becomes_the_leaders() {
        let ours = log(at(1, 3), &[at(1, 4), at(1, 5), at(1, 6)]);
        // What the leader has after `previous`, and what our log is afterwards.
        type Row = (Stamp, Vec<Stamp>, Option<Vec<Stamp>>);
        let table: [Row; 7] = [
            (at(1, 6), vec![], Some(vec![at(1, 4), at(1, 5), at(1, 6)])),
            (at(1, 4), vec![at(2, 5)], Some(vec![at(1, 4), at(2, 5)])),
            (at(1, 3), vec![], Some(vec![])),
            (
                at(1, 1),
                vec![at(1, 2), at(1, 3), at(1, 4), at(2, 5)],
                Some(vec![at(1, 4), at(2, 5)]),
            ),
            (
                at(1, 6),
                vec![at(3, 7)],
                Some(vec![at(1, 4), at(1, 5), at(1, 6), at(3, 7)]),
            ),
            (at(2, 6), vec![at(2, 7)], None),
            (at(1, 7), vec![at(1, 8)], None),
        ];
        for (previous, entries, expected) in table {
            let mut log = ours.clone();
            let difference = log.difference(4, previous, &entries);
            assert_eq!(difference.is_some(), expected.is_some(), "{previous:?}");
            if let (Some(difference), Some(expected)) = (difference, expected) {
                log.apply(&difference);
                assert_eq!(log.staged().collect::<Vec<_>>(), expected, "{previous:?}");
            }
        }
    }

    #[test]
    fn what_is_there_already_is_not_written_again() {
        let ours = log(at(1, 0), &[at(1, 1), at(1, 2)]);
        let same = ours.difference(1, at(1, 0), &[at(1, 1), at(1, 2)]);
        assert_eq!(same, Some(Difference::default()));
    }

    #[test]
    fn old_news_of_the_same_view_takes_nothing_back() {
        let ours = log(at(1, 0), &[at(1, 1), at(2, 2), at(2, 3)]);
        let old = ours.difference(2, at(1, 0), &[at(1, 1)]);
        assert_eq!(old, Some(Difference::default()));
        let newer = ours.difference(3, at(1, 0), &[at(1, 1)]);
        let truncate = Some(1);
        let add = Vec::new();
        assert_eq!(newer, Some(Difference { truncate, add }));
    }

    #[test]
    fn installing_moves_entries_into_the_state() {
        let mut ours = log(at(1, 0), &[at(1, 1), at(2, 2), at(2, 3)]);
        ours.install(2);
        assert_eq!(ours.installed(), at(2, 2));
        assert_eq!(ours.staged().collect::<Vec<_>>(), [at(2, 3)]);
        assert!(ours.has(at(2, 2)) && !ours.has(at(1, 1)));
    }
}
