//! What is generated for a few modules, as files to be read and reviewed: `BLESS=1` rewrites them.

#![allow(dead_code, reason = "shared helpers are used in part by each test")]

mod common;

use std::path::Path;

use common::corpus;
use partha_codegen::{Options, generate};

fn check(module: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/expand");
    for output in generate(&corpus::one(module), &Options::default()) {
        if output.file_name == format!("{module}.rs") || output.file_name.ends_with(".capnp") {
            let text = String::from_utf8(output.bytes).expect("generated text is UTF-8");
            test_support::bless::check(folder.join(&output.file_name), &text);
        }
    }
}

#[test]
fn a_persistent_and_a_transient_interface() {
    check("bank");
}

#[test]
fn optional_members_everywhere() {
    check("options");
}

#[test]
fn what_is_deprecated() {
    check("attributes");
}

#[test]
fn the_order_of_the_command_line_does_not_show() {
    let names = ["bank", "interfaces", "shop", "types", "maps"];
    let outputs = |names: &mut dyn Iterator<Item = &str>| {
        let model = corpus::some(&names.collect::<Vec<_>>());
        let mut outputs = generate(&model, &Options::default());
        outputs.sort_by(|a, b| a.file_name.cmp(&b.file_name));
        outputs
    };
    assert_eq!(
        outputs(&mut names.into_iter()),
        outputs(&mut names.into_iter().rev())
    );
}
