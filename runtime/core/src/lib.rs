//! The decisions of Partha, without IO.
pub mod id;
pub mod time;
