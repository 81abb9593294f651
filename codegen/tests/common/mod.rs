//! Helpers of the code generator's tests.

pub mod dump;
pub mod random;
