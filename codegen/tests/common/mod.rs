//! Helpers of the code generator's tests.

pub(crate) mod corpus;
pub(crate) mod dump;
pub(crate) mod random;
