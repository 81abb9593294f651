//! The official `capnp` compiler, fed our `.capnp`, says what our `.cgr` says: every id, offset,
//! size, discriminant, ordinal and comment.

#![allow(dead_code, reason = "shared helpers are used in part by each test")]

mod common;

use std::path::Path;
use std::process::Command;

use common::{dump, random};
use partha_codegen::{Output, schemas};
use test_support::{require_tool, temp_dir};

/// Compares the outputs with what `capnp` makes of the `.capnp` among them.
fn compare(capnp: &Path, outputs: &[Output]) -> usize {
    let folder = temp_dir("schema");
    let mut ours = dump::Request::default();
    let mut command = Command::new(capnp);
    command
        .current_dir(folder.path())
        .env_remove("PWD")
        .args(["compile", "-o-"]);
    for Output { file_name, bytes } in outputs {
        if file_name.ends_with(".capnp") {
            std::fs::write(folder.path().join(file_name), bytes).unwrap();
            let compiled = file_name.replace(".capnp", ".cgr");
            if outputs.iter().any(|output| output.file_name == compiled) {
                command.arg(file_name);
            }
        } else if file_name.ends_with(".cgr") {
            ours.merge(dump::read(bytes));
        }
    }
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{errors}");
    let mut official = dump::read(&output.stdout);
    // The compiler gives the comments of parameter lists no id.
    official.comments.remove(&0);
    assert_same(&official.nodes, &ours.nodes);
    ours.comments
        .retain(|id, _| official.nodes.contains_key(id));
    assert_same(&official.comments, &ours.comments);
    assert_same(&official.requested, &ours.requested);
    ours.nodes.len()
}

#[track_caller]
fn assert_same(
    official: &std::collections::BTreeMap<u64, String>,
    ours: &std::collections::BTreeMap<u64, String>,
) {
    for (id, official) in official {
        let Some(ours) = ours.get(id) else {
            panic!("we lack {id:#x}:\n{official}");
        };
        assert!(
            ours == official,
            "about {id:#x}\nofficial: {official}\nours: {ours}"
        );
    }
    // Of files that are only imported the compiler lists what is used, we list all.
    let asked = |text: &str| !text.starts_with("partha.capnp");
    let mut extra = ours.iter().filter(|(id, _)| !official.contains_key(*id));
    if let Some((id, text)) = extra.find(|(_, text)| asked(text)) {
        panic!("only we have {id:#x}:\n{text}");
    }
}

#[test]
fn a_thousand_random_schemas_agree_with_the_official_compiler() {
    let Some(capnp) = require_tool("capnp") else {
        return;
    };
    let mut nodes = 0;
    for batch in 0..10 {
        let model = random::model(batch, "m", 100);
        nodes += compare(&capnp, &schemas(&model));
    }
    assert!(nodes > 10_000, "only {nodes} nodes were compared");
}
