//! `partha demo` with accounts that have copies.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::{LONG, command};
use test_support::{Child, Exit};

/// What the demo says, which has to go well.
#[track_caller]
fn demo(arguments: &[&str]) -> String {
    let all = [&["demo", "--policy", "passive"], arguments].concat();
    let demo = Child::spawn("demo", &mut command(&all));
    let (exit, out, err) = demo.finish(LONG * 2);
    assert_eq!(exit, Exit::Code(0), "{out}{err}");
    out
}

/// The number behind a word at the begin of a line.
fn number(out: &str, word: &str) -> u64 {
    let mut words = out.lines().map(str::split_whitespace);
    let mut line = words
        .find(|line| line.clone().next() == Some(word))
        .unwrap_or_else(|| panic!("no line of {word} in:\n{out}"));
    line.nth(1).unwrap().parse().unwrap()
}

#[test]
fn payments_and_transfers_go_on_when_leaders_are_killed_and_copies_are_equal() {
    let out = demo(&[
        "--replicas",
        "3",
        "--kill",
        "--seconds",
        "8",
        "--accounts",
        "20",
        "--clients",
        "4",
    ]);
    let equal = "copies: 20 accounts have 3 copies each, all equal";
    assert!(out.lines().any(|line| line == equal), "{out}");
    assert!(out.ends_with("ledger: 20 accounts agree\n"), "{out}");
    assert!(number(&out, "payments") > 0, "{out}");
    assert!(number(&out, "transfers") > 0, "{out}");
    assert!(out.contains(" transfers are there, each once\n"), "{out}");
    assert!(number(&out, "kills") >= 2, "{out}");
    assert!(out.contains("from the kill to the next payment"), "{out}");
    assert!(out.contains(", 0 without another one"), "{out}");
}

#[test]
fn one_copy_is_used_as_three_are() {
    let out = demo(&[
        "--replicas",
        "1",
        "--seconds",
        "1",
        "--accounts",
        "8",
        "--clients",
        "2",
        "--no-transfers",
    ]);
    let equal = "copies: 8 accounts have 1 copies each, all equal";
    assert!(out.lines().any(|line| line == equal), "{out}");
    assert!(out.ends_with("ledger: 8 accounts agree\n"), "{out}");
}

#[test]
fn policies_that_are_not_there_are_refused_at_once() {
    for policy in ["cohort", "active"] {
        let arguments = ["demo", "--replicas", "3", "--policy", policy];
        let demo = Child::spawn("demo", &mut command(&arguments));
        let (exit, out, err) = demo.finish(LONG);
        assert_eq!((exit, out.as_str()), (Exit::Code(1), ""));
        assert!(err.contains("not in this version"), "{err}");
    }
}
