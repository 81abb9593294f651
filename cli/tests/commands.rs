//! The commands that need no running system, as a user meets them: what is printed where, and
//! the exit status.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::fs;
use std::path::Path;

use common::{EXPECTED, partha, partha_in};
use test_support::{TempDir, bless, temp_dir};

const TINY: &str = "module tiny;\n\n/// Somewhere.\nstruct Point { x: i64, y: i64 }\n";
const WRONG: &str = "module wrong;\nstruct Point { x: i46, y: i64 }\nstruct Point { z: bool }\n";

fn folder_with(name: &str, text: &str) -> TempDir {
    let folder = temp_dir("commands");
    fs::write(folder.path().join(name), text).unwrap();
    folder
}

fn expect(file: &str, text: &str) {
    bless::check(Path::new(EXPECTED).join(file), text);
}

#[test]
fn generate_writes_once_and_check_tells_what_is_stale() {
    let folder = folder_with("tiny.idl", TINY);
    let at = folder.path();
    let generate = ["generate", "tiny.idl", "-o", "gen"];
    let (status, out, err) = partha_in(at, &generate);
    assert_eq!((status, err.as_str()), (0, ""));
    assert_eq!(
        out,
        "wrote gen/tiny.rs\nwrote gen/tiny.capnp\nwrote gen/tiny.cgr\n"
    );
    assert_eq!(partha_in(at, &generate), (0, String::new(), String::new()));

    let check = ["generate", "tiny.idl", "-o", "gen", "--check"];
    assert_eq!(partha_in(at, &check), (0, String::new(), String::new()));
    let rust = at.join("gen/tiny.rs");
    let stale = fs::read_to_string(&rust)
        .unwrap()
        .replace("pub y: i64", "pub y: i32");
    fs::write(&rust, &stale).unwrap();
    let (status, out, err) = partha_in(at, &check);
    assert_eq!(status, 1);
    assert!(
        out.contains("-    pub y: i32,\n+    pub y: i64,\n"),
        "{out}"
    );
    assert!(err.contains("stale"), "{err}");
    assert_eq!(
        fs::read_to_string(&rust).unwrap(),
        stale,
        "--check changes nothing"
    );
}

#[test]
fn imports_are_found_on_the_include_path() {
    let folder = folder_with("tiny.idl", TINY);
    let at = folder.path();
    fs::create_dir(at.join("user")).unwrap();
    let user = "module user;\nuse tiny::Point;\nstruct Line { from: Point, to: Point }\n";
    fs::write(at.join("user/user.idl"), user).unwrap();
    let (status, _, err) = partha_in(at, &["check", "user/user.idl"]);
    assert_eq!(status, 1);
    assert!(err.contains("tiny"), "{err}");
    assert_eq!(partha_in(at, &["check", "user/user.idl", "-I", "."]).0, 0);
    let mut generate = vec!["generate", "user/user.idl", "-I", ".", "-o", "gen"];
    generate.extend(["--extern", "tiny=crate::geometry"]);
    assert_eq!(partha_in(at, &generate).0, 0);
    let rust = fs::read_to_string(at.join("gen/user.rs")).unwrap();
    assert!(rust.contains("crate::geometry::Point"), "{rust}");
}

#[test]
fn check_tells_all_errors_of_a_file() {
    let folder = folder_with("wrong.idl", WRONG);
    let (status, out, err) = partha_in(folder.path(), &["check", "wrong.idl"]);
    assert_eq!((status, out.as_str()), (1, ""));
    expect("check_human.txt", &err);
    let json = ["check", "wrong.idl", "--format", "json"];
    let (status, out, err) = partha_in(folder.path(), &json);
    assert_eq!((status, err.as_str()), (1, ""));
    expect("check_json.txt", &out);
    let (status, out, _) = partha_in(folder.path(), &["generate", "wrong.idl"]);
    assert_eq!((status, out.as_str()), (1, ""));
    assert!(!folder.path().join("wrong.rs").exists());
}

#[test]
fn explain_tells_about_a_code_and_lists_all() {
    let (status, out, err) = partha(&["explain", "e0004"]);
    assert_eq!((status, err.as_str()), (0, ""));
    expect("explain.txt", &out);
    let (status, out, _) = partha(&["explain"]);
    assert_eq!(status, 0);
    assert!(
        out.lines().count() > 20 && out.starts_with("E0001  a file"),
        "{out}"
    );
    let (status, _, err) = partha(&["explain", "E00044"]);
    assert_eq!(status, 2);
    assert!(
        err.contains("there is no code 'E00044'") && err.contains("did you mean"),
        "{err}"
    );
}

#[test]
fn help_names_the_commands_and_wrong_usage_is_status_2() {
    let (status, out, _) = partha(&["--help"]);
    assert_eq!(status, 0);
    expect("help.txt", &out);
    for (command, text) in [
        (&["call"][..], "nothing has to be generated"),
        (&["why"], "round a deadlock"),
        (&["move"], "actions that have used it go on"),
        (&["node", "drain"], "goes on where it was"),
        (&["node", "cordon"], "those that are there stay"),
        (&["doctor", "break"], "may come again"),
    ] {
        let (status, out, _) = partha(&[command, &["--help"]].concat());
        assert!(status == 0 && out.contains(text), "{command:?}: {out}");
    }
    let version = concat!("partha ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(
        partha(&["--version"]),
        (0, version.to_owned(), String::new())
    );
    let (status, out, err) = partha(&["lss"]);
    assert_eq!((status, out.as_str()), (2, ""));
    assert!(err.contains("'ls'"), "{err}");
    assert_eq!(partha(&["call", "/x"]).0, 2);
    assert_eq!(partha(&["generate"]).0, 2);
}

#[test]
fn completions_name_commands_and_options() {
    for shell in ["bash", "zsh", "fish"] {
        let (status, out, err) = partha(&["completions", shell]);
        assert_eq!((status, err.as_str()), (0, ""));
        assert!(
            out.contains("describe") && out.contains("naming"),
            "{shell}: {out}"
        );
    }
}

#[test]
fn without_a_system_the_error_says_where_it_was_looked_for() {
    let folder = folder_with("tiny.idl", TINY);
    let at = folder.path();
    let port = test_support::free_port();
    let naming = format!("127.0.0.1:{port}");
    let (status, out, err) = partha_in(at, &["ls", "--naming", &naming]);
    assert_eq!((status, out.as_str()), (1, ""));
    assert!(
        err.contains(&naming) && err.contains("(from --naming or PARTHA_NAMING)"),
        "{err}"
    );

    fs::create_dir(at.join(".partha")).unwrap();
    let file = format!("naming = \"{naming}\"\n");
    fs::write(at.join(".partha/cluster.toml"), file).unwrap();
    let (status, _, err) = partha_in(at, &["nodes"]);
    assert_eq!(status, 1);
    assert!(
        err.contains(&naming) && err.contains("cluster.toml)"),
        "{err}"
    );
    let (_, _, err) = partha_in(at, &["nodes", "-o", "json"]);
    assert!(
        err.starts_with("{\"error\":\"no naming service at"),
        "{err}"
    );
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let program = env!("CARGO_BIN_EXE_partha");
    let script =
        format!("{program} completions bash | head -c 1 >/dev/null; echo ${{PIPESTATUS[0]}}");
    let mut command = std::process::Command::new("bash");
    let child = test_support::Child::spawn("pipe", command.args(["-c", &script]));
    let (_, out, err) = child.finish(common::LONG);
    assert_eq!((out.as_str(), err.as_str()), ("0\n", ""));
}
