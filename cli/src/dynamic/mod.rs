//! Values of interfaces that this program was not compiled with: JSON to messages and back.
//!
//! [`Schema`] is what a `CodeGeneratorRequest` says, lifted to the terms of the IDL; [`encode`]
//! and [`decode`] follow it along a value. Errors name the place in the value and what was
//! expected there. Nothing here calls anybody: a reference by name is looked up by the caller,
//! who first learns which names there are ([`encode::Names`]).
//!
//! What Cap'n Proto's schema does not tell, is not known here: `timestamp` and `duration` are
//! integers of microseconds, an absent text may be an `option` or the default, and a reference
//! may be to any class. So these take what fits any of the meanings.

pub(crate) mod decode;
pub(crate) mod encode;
mod json;
mod print;
mod schema;
#[cfg(test)]
mod tests;

use std::fmt;

pub(crate) use json::parse;
pub(crate) use schema::{Member, Method, Schema, Struct, Type};

/// A value that is not what its type says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    /// `by.card.number`, `entries[3]`; empty for the value as a whole.
    pub(crate) place: String,
    /// What was expected and found there.
    pub(crate) problem: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.place.is_empty() {
            write!(f, "`{}`: ", self.place)?;
        }
        f.write_str(&self.problem)
    }
}

impl std::error::Error for Mismatch {}

/// Where in a value we are.
#[derive(Clone, Debug, Default)]
struct Place {
    steps: Vec<String>,
}

impl Place {
    fn member(&mut self, name: &str) {
        let dot = if self.steps.is_empty() { "" } else { "." };
        self.steps.push(format!("{dot}{name}"));
    }

    fn index(&mut self, index: usize) {
        self.steps.push(format!("[{index}]"));
    }

    fn key(&mut self, key: &str) {
        self.steps.push(format!("[{key:?}]"));
    }

    fn leave(&mut self) {
        self.steps.pop();
    }

    fn mismatch(&self, problem: impl Into<String>) -> Mismatch {
        Mismatch {
            place: self.steps.concat(),
            problem: problem.into(),
        }
    }
}
