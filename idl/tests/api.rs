//! What callers of the library rely on beyond the model.

use std::path::{Path, PathBuf};

use partha_idl::{SourceMap, compile, explain, explanations};

fn memory(files: &[(&str, &str)]) -> SourceMap {
    let mut sources = SourceMap::new();
    for (path, text) in files {
        sources.add_memory(path, *text);
    }
    sources
}

fn roots(paths: &[&str]) -> Vec<PathBuf> {
    paths.iter().map(PathBuf::from).collect()
}

#[test]
fn json_lines_give_bytes_of_the_file_and_columns_in_characters() {
    let text = "\u{feff}module bank;\r\n/* é */ struct A { a: i46 }\r\n";
    let mut sources = memory(&[("bank.idl", text)]);
    let diagnostics = compile(&mut sources, &roots(&["bank.idl"])).expect_err("unknown type");
    let line: serde_json::Value =
        serde_json::from_str(diagnostics.render_json().trim_end()).expect("one object");
    let start = text.find("i46").expect("in the text");
    assert_eq!(line["code"], "E0201");
    assert_eq!(line["level"], "error");
    assert_eq!(line["message"], "there is no type `i46`");
    assert_eq!(line["file"], "bank.idl");
    assert_eq!(line["byte_start"], start);
    assert_eq!(line["byte_end"], start + 3);
    assert_eq!(line["line"], 2);
    assert_eq!(line["column"], 23);
    assert_eq!(line["help"][0], "did you mean `i64`?");
}

#[test]
fn colour_is_given_only_on_request() {
    let mut sources = memory(&[("bank.idl", "module bank; struct A { a: i46 }")]);
    let diagnostics = compile(&mut sources, &roots(&["bank.idl"])).expect_err("unknown type");
    assert!(!diagnostics.render(false).contains('\u{1b}'));
    assert!(diagnostics.render(true).contains("\u{1b}["));
}

#[test]
fn text_from_a_file_cannot_send_escapes_to_the_terminal() {
    let text = "module bank; /* \u{1b}]0;title\u{7} */ struct A { a: \u{1b}[31m }";
    let mut sources = memory(&[("bank.idl", text)]);
    let diagnostics = compile(&mut sources, &roots(&["bank.idl"])).expect_err("no token");
    assert!(
        !diagnostics.render(false).contains('\u{1b}'),
        "{diagnostics}"
    );
}

#[test]
fn modules_come_before_their_importers_and_are_read_once() {
    let mut sources = memory(&[
        (
            "idl/bank.idl",
            "module bank; use shop::Order; struct A { order: Order }",
        ),
        (
            "idl/shop.idl",
            "module shop; use base::Id; struct Order { id: Id }",
        ),
        ("include/base.idl", "module base; struct Id { id: u64 }"),
    ]);
    sources.add_include("include");
    let both = roots(&["idl/bank.idl", "idl/shop.idl"]);
    let model = compile(&mut sources, &both).expect("compiles");
    let names: Vec<(&str, bool)> = model
        .modules
        .iter()
        .map(|module| (module.name.as_str(), module.requested))
        .collect();
    assert_eq!(names, [("base", false), ("shop", true), ("bank", true)]);
    let paths: Vec<&Path> = sources.paths().collect();
    assert_eq!(paths.len(), 3);
    assert!(sources.warnings().is_empty());
}

#[test]
fn a_built_in_module_is_found_last() {
    let user = "module bank; use partha::Thing; struct A { thing: Thing }";
    let built_in = "module partha; struct Thing { id: u64 }";
    let mut sources = memory(&[("bank.idl", user)]);
    sources.add_builtin("partha.idl", built_in);
    let model = compile(&mut sources, &roots(&["bank.idl"])).expect("compiles");
    assert_eq!(model.modules[0].path, Path::new("<builtin>/partha.idl"));
    assert_eq!(sources.paths().collect::<Vec<_>>(), [Path::new("bank.idl")]);
    // The system's own file is the same module, found beside its users.
    sources.add_memory("partha.idl", built_in);
    let model = compile(&mut sources, &roots(&["bank.idl", "partha.idl"])).expect("compiles");
    assert_eq!(model.modules[0].path, Path::new("partha.idl"));
}

#[test]
fn a_failed_run_still_tells_what_it_read() {
    let mut sources = memory(&[
        (
            "bank.idl",
            "module bank; use shop::Order; struct A { order: Ordr, o: Order }",
        ),
        ("shop.idl", "module shop; struct Order { }"),
    ]);
    let diagnostics = compile(&mut sources, &roots(&["bank.idl"])).expect_err("unknown type");
    assert_eq!(sources.paths().count(), 2);
    let first = diagnostics.iter().next().expect("an error");
    let (path, line, column) = diagnostics.place(first).expect("a place");
    assert_eq!((path, line, column), (Path::new("bank.idl"), 1, 49));
}

#[test]
fn every_code_is_explained() {
    for explanation in explanations() {
        assert_eq!(explain(explanation.code), Some(*explanation));
        assert!(!explanation.title.is_empty() && !explanation.text.is_empty());
    }
    let without: Vec<&str> = explanations()
        .iter()
        .filter(|known| known.example.is_none())
        .map(|known| known.code)
        .collect();
    assert_eq!(without, ["E0001", "E0003"], "what no text can show");
}

#[test]
fn the_examples_of_the_reference_compile() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/idl-reference.md");
    let reference = std::fs::read_to_string(path).expect("the reference");
    let blocks: Vec<&str> = reference.split("```").skip(1).step_by(2).collect();
    assert_eq!(blocks.len(), 3, "a file, upgrades, and pinned ordinals");
    let shop = "module shop; struct Order { } struct Item { } struct Customer { }";
    let upgrades = format!("module upgrades;\n{}", blocks[1]);
    let pinned = format!("module pinned;\n{}", blocks[2]);
    let files = [
        ("bank.idl", blocks[0]),
        ("shop.idl", shop),
        ("upgrades.idl", &upgrades),
        ("pinned.idl", &pinned),
    ];
    let mut sources = memory(&files);
    let model = compile(
        &mut sources,
        &roots(&["bank.idl", "upgrades.idl", "pinned.idl"]),
    )
    .unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    assert!(sources.warnings().is_empty(), "{}", sources.warnings());
    assert_eq!(model.modules.len(), 4);
}
