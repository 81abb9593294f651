//! The official `capnp` compiler, fed our `.capnp`, says what our `.cgr` says: every id, offset,
//! size, discriminant, ordinal and comment.

#![allow(dead_code, reason = "shared helpers are used in part by each test")]

mod common;

use std::path::Path;
use std::process::Command;

use common::{corpus, dump, random};
use partha_codegen::{Output, schemas};
use test_support::{require_tool, temp_dir};

/// Whether the compiler is told the ids of types, or derives them by its own rule.
#[derive(Clone, Copy, PartialEq)]
enum Ids {
    Stated,
    Derived,
}

/// Compares the outputs with what `capnp` makes of the `.capnp` among them.
fn compare(capnp: &Path, outputs: &[Output], ids: Ids) -> usize {
    let folder = temp_dir("schema");
    let mut ours = dump::Request::default();
    let mut command = Command::new(capnp);
    command
        .current_dir(folder.path())
        .env_remove("PWD")
        .args(["compile", "-o-"]);
    for Output { file_name, bytes } in outputs {
        if file_name.ends_with(".capnp") {
            let text = std::str::from_utf8(bytes).expect("a schema is UTF-8");
            let text = match ids {
                Ids::Stated => text.to_owned(),
                Ids::Derived => without_ids(text),
            };
            std::fs::write(folder.path().join(file_name), text).expect("a file is written");
            let compiled = file_name.replace(".capnp", ".cgr");
            if outputs.iter().any(|output| output.file_name == compiled) {
                command.arg(file_name);
            }
        } else if file_name.ends_with(".cgr") {
            ours.merge(dump::read(bytes));
        }
    }
    let output = command.output().expect("the compiler runs");
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

/// The text of a file without the ids of its types. Constants keep theirs, which come from the
/// name in the IDL.
fn without_ids(text: &str) -> String {
    let line = |line: &str| {
        let declares = ["struct ", "enum ", "interface "];
        let id = line.find(" @0x");
        match id.filter(|_| {
            declares
                .iter()
                .any(|word| line.trim_start().starts_with(word))
        }) {
            Some(at) => format!("{}{}\n", &line[..at], &line[at + 20..]),
            None => format!("{line}\n"),
        }
    };
    text.lines().map(line).collect()
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
fn the_corpus_agrees_with_the_official_compiler() {
    let Some(capnp) = require_tool("capnp") else {
        return;
    };
    let model = corpus::model();
    let system = corpus::system();
    assert!(model.modules.len() > 15, "the corpus is gone");
    for ids in [Ids::Stated, Ids::Derived] {
        compare(&capnp, &schemas(&model), ids);
        compare(&capnp, &schemas(&system), ids);
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
        nodes += compare(&capnp, &schemas(&model), Ids::Stated);
    }
    assert!(nodes > 10_000, "only {nodes} nodes were compared");
}
