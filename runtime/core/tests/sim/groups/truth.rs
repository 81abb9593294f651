//! What was seen to be complete, in order; and what must be true of it.
//!
//! The object is the list of the operations added to it. Whatever anybody was shown (an answer, a
//! read) is a beginning of one and the same list, and no later look shows less.

/// An operation: unique, and not repeated by asking again.
pub(crate) type Op = u64;

/// The list as far as anybody has seen it.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    seen: Vec<Op>,
    /// How much of it a look has to show that begins now.
    pub(crate) owed: usize,
}

impl Truth {
    /// A leader has shown this much of its list.
    pub(crate) fn shown(&mut self, list: &[Op]) -> Result<(), String> {
        let common = list.len().min(self.seen.len());
        if list[..common] != self.seen[..common] {
            return Err(format!(
                "fork: {list:?} is shown, {:?} was before",
                self.seen
            ));
        }
        if list.len() > self.seen.len() {
            self.seen = list.to_vec();
        }
        Ok(())
    }

    /// An answer has arrived: whoever asks from now on has to see it.
    pub(crate) fn answered(&mut self, length: usize) {
        self.owed = self.owed.max(length);
    }

    /// A read is answered that began when so much was owed.
    pub(crate) fn read(&mut self, list: &[Op], owed: usize) -> Result<(), String> {
        if list.len() < owed {
            return Err(format!(
                "stale: a read shows {} of {owed} operations",
                list.len()
            ));
        }
        self.shown(list)
    }

    /// The end: every copy has the same list, and all that was shown is in it, once.
    pub(crate) fn close(&self, copies: &[(usize, Vec<Op>)]) -> Result<(), String> {
        let Some((_, list)) = copies.first() else {
            return Err("rest: no copy is left".to_owned());
        };
        for (node, other) in copies {
            if other != list {
                return Err(format!("differ: node {node} has {other:?}, not {list:?}"));
            }
        }
        if !list.starts_with(&self.seen) {
            return Err(format!("lost: {list:?} is left of {:?}", self.seen));
        }
        let mut once = list.clone();
        once.sort_unstable();
        once.dedup();
        if once.len() != list.len() {
            return Err(format!("twice: {list:?}"));
        }
        Ok(())
    }
}
