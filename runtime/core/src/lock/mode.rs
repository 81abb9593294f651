//! Lock modes and what excludes what.
//!
//! | held \ asked | Read | Write |
//! |---|---|---|
//! | Read | together | excluded |
//! | Write | excluded | excluded |
//!
//! The table is total and written out (Narayana's modes beyond these two fall through to "no
//! conflict"). An upgrade mode, compatible with readers but not with itself, is a row and a
//! column to add here.

/// How a call uses an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// Looks only; any number at a time.
    Read,
    /// Changes it; alone.
    Write,
}

impl Mode {
    /// Every mode, in the order of their numbers.
    pub const ALL: [Self; 2] = [Self::Read, Self::Write];

    /// Whether a lock held in this mode keeps another owner from getting one in `asked`.
    #[must_use]
    pub fn excludes(self, asked: Self) -> bool {
        match (self, asked) {
            (Self::Read, Self::Read) => false,
            (Self::Read, Self::Write) | (Self::Write, Self::Read | Self::Write) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Mode;
    use super::Mode::Read;

    #[test]
    fn the_table_is_symmetric_and_only_readers_share() {
        let mut together = Vec::new();
        for held in Mode::ALL {
            for asked in Mode::ALL {
                assert_eq!(
                    held.excludes(asked),
                    asked.excludes(held),
                    "{held:?} {asked:?}"
                );
                if !held.excludes(asked) {
                    together.push((held, asked));
                }
            }
        }
        assert_eq!(together, [(Read, Read)]);
    }
}
