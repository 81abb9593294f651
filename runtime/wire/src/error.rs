//! Why bytes are not the value they should be.

use core::fmt;

/// A message that cannot be read as the type expected: what is wrong, and at which member.
#[derive(Clone, PartialEq, Eq)]
pub struct DecodeError {
    inner: Box<Inner>,
}

#[derive(Clone, PartialEq, Eq)]
struct Inner {
    problem: Problem,
    /// Innermost member first.
    path: Vec<&'static str>,
}

/// What is wrong with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// A pointer leads outside the segment.
    OutOfBounds,
    /// A pointer of another kind than the type says.
    WrongKind {
        /// What the type says.
        expected: &'static str,
        /// What the pointer is.
        found: &'static str,
    },
    /// Pointers nest deeper than [`crate::DEPTH_MAX`].
    TooDeep,
    /// The message leads to the same bytes again and again.
    Amplified,
    /// A text that is no UTF-8, or lacks its final zero.
    BadText,
    /// A member that must be there is not.
    Missing,
    /// A capability that the message does not carry.
    NoSuchCapability {
        /// Its index.
        index: u32,
    },
    /// A value that the enum or union has no name for; a newer peer may have.
    Unknown {
        /// The enum's or union's name.
        of: &'static str,
        /// The value.
        ordinal: u16,
    },
    /// A value outside its type's range.
    Invalid {
        /// What was expected.
        expected: &'static str,
    },
}

impl DecodeError {
    /// An error without a place yet.
    #[must_use]
    pub fn new(problem: Problem) -> Self {
        Self {
            inner: Box::new(Inner {
                problem,
                path: Vec::new(),
            }),
        }
    }

    /// A required member is null.
    #[must_use]
    pub fn missing() -> Self {
        Self::new(Problem::Missing)
    }

    /// A value that `of` has no name for.
    #[must_use]
    pub fn enumerant(of: &'static str, ordinal: u16) -> Self {
        Self::new(Problem::Unknown { of, ordinal })
    }

    /// A value outside its type's range.
    #[must_use]
    pub fn invalid(expected: &'static str) -> Self {
        Self::new(Problem::Invalid { expected })
    }

    /// Adds the member in which the error was met, from the inside out.
    #[must_use]
    pub fn at(mut self, member: &'static str) -> Self {
        self.inner.path.push(member);
        self
    }

    /// What is wrong.
    #[must_use]
    pub fn problem(&self) -> &Problem {
        &self.inner.problem
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.inner.path.is_empty() {
            let path: Vec<_> = self.inner.path.iter().rev().copied().collect();
            write!(f, "`{}`: ", path.join("."))?;
        }
        match &self.inner.problem {
            Problem::OutOfBounds => f.write_str("a pointer leads outside the message"),
            Problem::WrongKind { expected, found } => {
                write!(f, "expected {expected}, found {found}")
            }
            Problem::TooDeep => write!(f, "nested deeper than {} levels", crate::DEPTH_MAX),
            Problem::Amplified => f.write_str("the message refers to the same bytes repeatedly"),
            Problem::BadText => f.write_str("the text is not UTF-8 with a final zero"),
            Problem::Missing => f.write_str("is missing"),
            Problem::NoSuchCapability { index } => {
                write!(f, "the message carries no capability {index}")
            }
            Problem::Unknown { of, ordinal } => {
                write!(
                    f,
                    "{of} has no value {ordinal} here; the sender may be newer"
                )
            }
            Problem::Invalid { expected } => write!(f, "expected {expected}"),
        }
    }
}

impl fmt::Debug for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DecodeError({self})")
    }
}

impl core::error::Error for DecodeError {}
