//! Foreign tools that a test needs and a machine may lack.
//!
//! A test of our bytes against another implementation needs that implementation. Where it is
//! absent the test says so in one line and returns; with `PARTHA_REQUIRE_TOOLS=1`, as the
//! continuous integration sets it, it fails, so that nothing is skipped there unseen.

use std::env;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::folder::workspace_root;

/// The program `name` of the `PATH`, or `None` after saying `skipped: … not installed`.
///
/// # Panics
///
/// When it is absent and `PARTHA_REQUIRE_TOOLS=1` is set.
#[track_caller]
#[must_use]
pub fn require_tool(name: &str) -> Option<PathBuf> {
    find(name).or_else(|| absent(name))
}

/// A Python that can import `module`, or `None` after saying `skipped: … not installed`.
///
/// Tried in this order: the program named by `PARTHA_PYTHON`, `target/venv/bin/python` of the
/// workspace (where `.ci/run` installs what it needs), and `python3` of the `PATH`.
///
/// # Panics
///
/// When there is none and `PARTHA_REQUIRE_TOOLS=1` is set.
#[track_caller]
#[must_use]
pub fn require_python(module: &str) -> Option<PathBuf> {
    let named = env::var_os("PARTHA_PYTHON").map(PathBuf::from);
    let installed = Some(workspace_root().join("target/venv/bin/python"));
    let candidates = [named, installed, find("python3")];
    let found = candidates
        .into_iter()
        .flatten()
        .find(|python| imports(python, module));
    found.or_else(|| absent(&format!("python3 with the module {module}")))
}

/// Says in one plain line that a test is left out since `what` is absent.
///
/// It goes straight to standard error: the test harness swallows what `print!` says in a test
/// that passes.
///
/// # Panics
///
/// When `PARTHA_REQUIRE_TOOLS=1` is set.
#[track_caller]
pub fn skipped(what: &str) {
    let required = env::var_os("PARTHA_REQUIRE_TOOLS").is_some_and(|value| value == "1");
    assert!(
        !required,
        "{what} is not installed, and PARTHA_REQUIRE_TOOLS=1 asks for it"
    );
    // A closed standard error is no reason to fail a test that is skipped anyway.
    let _ = writeln!(std::io::stderr(), "skipped: {what} not installed");
}

#[track_caller]
fn absent(what: &str) -> Option<PathBuf> {
    skipped(what);
    None
}

fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

fn imports(python: &Path, module: &str) -> bool {
    let status = Command::new(python)
        .args(["-c", &format!("import {module}")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_of_every_machine_is_found_with_its_whole_path() {
        let shell = find("sh").unwrap();
        assert!(shell.is_absolute() && shell.ends_with("sh"));
    }

    #[test]
    fn what_nobody_has_is_not_found() {
        assert_eq!(find("a-tool-that-nobody-has"), None);
        assert!(!imports(Path::new("a-python-that-nobody-has"), "sys"));
    }
}
