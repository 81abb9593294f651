//! Running the built program.

#![allow(dead_code, reason = "each test file uses a part")]

pub(crate) mod shell;
pub(crate) mod system;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use test_support::{Child, Exit};

/// Long enough for a loaded machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);
/// Where expected texts are.
pub(crate) const EXPECTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/expected");

/// The program with these arguments, and nothing of our environment that is meant for it.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_partha"));
    for (key, _) in std::env::vars_os() {
        if key.to_string_lossy().starts_with("PARTHA_") {
            command.env_remove(key);
        }
    }
    command.args(arguments);
    command
}

/// Runs it to its end: status, standard output, standard error.
#[track_caller]
pub(crate) fn partha(arguments: &[&str]) -> (i32, String, String) {
    run(arguments, &mut command(arguments))
}

/// As [`partha`], in a folder.
#[track_caller]
pub(crate) fn partha_in(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    run(arguments, command(arguments).current_dir(folder))
}

#[track_caller]
fn run(arguments: &[&str], command: &mut Command) -> (i32, String, String) {
    let child = Child::spawn(&format!("partha {}", arguments.join(" ")), command);
    let (exit, out, err) = child.finish(LONG);
    match exit {
        Exit::Code(status) => (status, out, err),
        Exit::Signal(signal) => panic!("{arguments:?} was ended by signal {signal}: {err}"),
    }
}
