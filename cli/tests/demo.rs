//! `partha demo` as its users run it.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::{LONG, command};
use test_support::{Child, Exit};

/// The number behind a word at the begin of a line.
fn number(out: &str, word: &str) -> u64 {
    let line = out
        .lines()
        .find(|line| line.split_whitespace().next() == Some(word));
    let line = line.unwrap_or_else(|| panic!("no line of {word} in:\n{out}"));
    line.split_whitespace()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap()
}

#[test]
fn the_books_agree_although_nodes_are_killed() {
    let arguments = [
        "demo",
        "--seconds",
        "4",
        "--kill",
        "--accounts",
        "60",
        "--clients",
        "6",
    ];
    let demo = Child::spawn("demo", &mut command(&arguments));
    let (exit, out, err) = demo.finish(LONG * 2);
    assert_eq!(exit, Exit::Code(0), "{out}{err}");
    assert!(out.ends_with("ledger: 60 accounts agree\n"), "{out}");
    assert!(number(&out, "calls") > 0);
    assert!(number(&out, "kills") >= 1, "{out}");
    assert!(number(&out, "re-activations") > 0, "{out}");
    assert!(
        out.lines().any(|line| line.starts_with("p50 / p99")),
        "{out}"
    );
}

#[test]
fn without_kills_nothing_is_unknown() {
    let arguments = [
        "demo",
        "--seconds",
        "1",
        "--accounts",
        "20",
        "--clients",
        "2",
    ];
    let demo = Child::spawn("demo", &mut command(&arguments));
    let (exit, out, err) = demo.finish(LONG * 2);
    assert_eq!((exit, err.as_str()), (Exit::Code(0), ""), "{out}");
    assert_eq!((number(&out, "kills"), number(&out, "settled")), (0, 0));
    assert_eq!(number(&out, "re-activations"), 0);
    assert!(out.ends_with("ledger: 20 accounts agree\n"), "{out}");
}

#[test]
fn its_children_die_with_it() {
    // A demo that is killed cannot clear up its stores.
    let folder = test_support::temp_dir("demo");
    let mut command = command(&["demo", "--seconds", "600", "--accounts", "4"]);
    let demo = Child::spawn("demo", command.env("TMPDIR", folder.path()));
    let line = demo.wait_for_line(LONG, |line| line.starts_with("naming "));
    let address = line.split_whitespace().nth(1).unwrap().to_owned();
    demo.wait_for_line(LONG, |line| line.contains("calls"));
    demo.kill();
    test_support::eventually(LONG, || std::net::TcpStream::connect(&address).is_err());
}
