//! Lock modes and what excludes what.
//!
//! | held \ asked | Read | Upgrade | Write |
//! |---|---|---|---|
//! | Read | together | together | excluded |
//! | Upgrade | together | excluded | excluded |
//! | Write | excluded | excluded | excluded |
//!
//! The table is total and written out (Narayana's modes beyond read and write fall through to
//! "no conflict"). Upgrade is for who reads now and is going to write: of two readers that both
//! want to become writers none ever can, of two upgraders the second waits at once.

/// How a call uses an object. A later one in this order is stronger: who has it needs no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// Looks only; any number at a time.
    Read,
    /// Looks, and its action is going to change it: together with readers, one at a time.
    Upgrade,
    /// Changes it; alone.
    Write,
}

impl Mode {
    /// Every mode, weakest first.
    pub const ALL: [Self; 3] = [Self::Read, Self::Upgrade, Self::Write];

    /// Whether a lock held in this mode keeps a stranger from getting one in `asked`.
    #[must_use]
    pub fn excludes(self, asked: Self) -> bool {
        match (self, asked) {
            (Self::Read, Self::Read | Self::Upgrade) | (Self::Upgrade, Self::Read) => false,
            (Self::Read, Self::Write)
            | (Self::Upgrade, Self::Upgrade | Self::Write)
            | (Self::Write, Self::Read | Self::Upgrade | Self::Write) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Mode;
    use super::Mode::{Read, Upgrade};

    #[test]
    fn the_table_is_symmetric_and_says_who_is_together() {
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
        assert_eq!(together, [(Read, Read), (Read, Upgrade), (Upgrade, Read)]);
    }

    #[test]
    fn a_stronger_mode_excludes_all_that_a_weaker_one_does() {
        for (weak, strong) in Mode::ALL.iter().zip(&Mode::ALL[1..]) {
            assert!(weak < strong);
            for asked in Mode::ALL {
                assert!(!weak.excludes(asked) || strong.excludes(asked), "{asked:?}");
            }
        }
    }
}
