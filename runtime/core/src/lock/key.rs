//! What can be locked.

use crate::id::Uid;

/// An object, or later a part or a row of one. A row's key is user data and stays outside; the
/// number stands for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LockKey {
    /// The object.
    pub uid: Uid,
    /// 0 is the whole object.
    pub part: u16,
    /// 0 is the whole part.
    pub row: u64,
}

impl LockKey {
    /// The whole object.
    #[must_use]
    pub fn object(uid: Uid) -> Self {
        Self {
            uid,
            part: 0,
            row: 0,
        }
    }
}
