//! What was seen to be complete, in order; and what must be true of it.
//!
//! The object is the list of the operations added to it. Whatever anybody was shown (an answer, a
//! read) is a beginning of one and the same list, and no later look shows less.

/// An operation: unique, and not repeated by asking again. The bytes of an entry are one, marked if
/// it is prepared first.
pub(crate) type Op = u64;

/// An entry that prepares an operation, and the one that ends it.
pub(crate) const PART: Op = 1 << 62;
pub(crate) const END: Op = 1 << 63;

/// The object at one copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) list: Vec<Op>,
    /// What is prepared.
    pub(crate) part: Option<Op>,
}

impl Object {
    /// An entry becomes a part of it.
    pub(crate) fn take(&mut self, bytes: Op) {
        let op = bytes & !(PART | END);
        if bytes & PART != 0 {
            self.part = Some(op);
        } else {
            self.part = None;
            self.list.push(op);
        }
    }
}

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

    /// It is told that an operation is done which follows this, wherever it is.
    pub(crate) fn decided(&mut self, object: &Object, op: Op) -> Result<usize, String> {
        let mut list = object.list.clone();
        list.push(op);
        self.shown(&list)?;
        Ok(list.len())
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
