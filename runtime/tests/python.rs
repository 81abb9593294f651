//! A node as a Python program sees it, by pycapnp and the schemas that the compiler wrote.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod common;

use std::process::Command;

use common::{PATIENCE, node, run, stop};
use test_support::{Child, Exit, require_python, temp_dir};

#[test]
fn a_python_program_calls_a_counter() {
    let Some(python) = require_python("capnp") else {
        return;
    };
    run(async {
        let dir = temp_dir("python");
        let node = node(dir.path()).await;
        let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");
        let mut command = Command::new(python);
        command.arg(format!("{tests}/py/counter.py"));
        command
            .arg(node.address().to_string())
            .arg(format!("{tests}/gen"));
        let script = Child::spawn("counter.py", &mut command);
        let (exit, said, complaints) = script.finish(PATIENCE);
        assert_eq!(exit, Exit::Code(0), "{said}{complaints}");
        assert_eq!(said, "the counter works\n");
        stop(node).await;
    });
}
