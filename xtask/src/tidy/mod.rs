//! `cargo xtask tidy`: the house rules that neither rustfmt nor clippy knows.
//!
//! Purpose: a rule that only a reader keeps is soon not kept. Four sets of rules, each in a
//! module of its own: [`text`] looks at lines, [`code`] at the syntax tree of Rust files,
//! [`manifest`] at the `Cargo.toml`s and the direction of the edges between packages,
//! [`promises`] at the tests that the table of features names. Every rule
//! has a test with a snippet that breaks it. The whole check is itself a test of this package, so
//! that `cargo test` runs it.
//!
//! Invariants: it reads and never writes; it needs neither git nor a network; a generated file,
//! one whose first line contains the mark in [`source::GENERATED`], is bound by no rule. That no
//! `match` of the core has a wildcard arm is clippy's to check; [`manifest`] checks that the core
//! asks for it.
//!
//! The idea of a tidy test is rust-analyzer's and TigerBeetle's.

mod code;
mod manifest;
mod promises;
mod source;
mod text;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::bail;

/// A place where a rule is broken.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Problem {
    path: PathBuf,
    /// From 1; 0 where the whole file is meant.
    line: usize,
    what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.line {
            0 => write!(f, "{path}: {}", self.what),
            line => write!(f, "{path}:{line}: {}", self.what),
        }
    }
}

/// Checks the workspace in `root`; an error if any rule is broken.
pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let problems = check(root)?;
    for problem in &problems {
        println!("{problem}");
    }
    match problems.len() {
        0 => Ok(()),
        1 => bail!("the house rules are broken in 1 place"),
        count => bail!("the house rules are broken in {count} places"),
    }
}

fn check(root: &Path) -> anyhow::Result<Vec<Problem>> {
    let sources = source::read_all(root)?;
    let mut problems = manifest::check(&sources)?;
    let written = || sources.iter().filter(|source| !source.is_generated());
    for source in written() {
        text::check(source, &mut problems);
    }
    code::check(written().filter(|source| source.is_rust()), &mut problems);
    promises::check(&sources, &mut problems);
    problems.sort();
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_is_tidy() {
        let problems = check(&crate::workspace_root()).unwrap();
        let report: Vec<_> = problems.iter().map(Problem::to_string).collect();
        assert!(
            report.is_empty(),
            "the house rules are broken:\n{}",
            report.join("\n")
        );
    }
}
