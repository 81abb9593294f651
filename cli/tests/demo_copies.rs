//! `partha demo` with accounts that have copies.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::{LONG, command};
use test_support::{Child, Exit};

/// What the demo says, which has to go well.
#[track_caller]
fn demo(policy: &str, arguments: &[&str]) -> String {
    let all = [&["demo", "--policy", policy], arguments].concat();
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

/// Leaders are killed under a load; what the demo says.
#[track_caller]
fn killed(policy: &str) -> String {
    let out = demo(
        policy,
        &[
            "--replicas",
            "3",
            "--kill",
            "--seconds",
            "8",
            "--accounts",
            "20",
            "--clients",
            "4",
        ],
    );
    let equal = "copies: 44 objects have 3 copies each, all equal";
    assert!(out.lines().any(|line| line == equal), "{out}");
    assert!(out.ends_with("ledger: 36 accounts agree\n"), "{out}");
    assert!(number(&out, "payments") > 0, "{out}");
    assert!(number(&out, "transfers") > 0, "{out}");
    assert!(out.contains(" transfers are there, each once\n"), "{out}");
    assert!(number(&out, "kills") >= 2, "{out}");
    assert!(out.contains("from the kill to the next payment"), "{out}");
    assert!(out.contains(", 0 without another one"), "{out}");
    out
}

#[test]
fn payments_and_transfers_go_on_when_leaders_are_killed_and_copies_are_equal() {
    killed("passive");
}

#[test]
fn no_transfer_is_undone_by_kills_where_others_go_on_with_actions() {
    let out = killed("cohort");
    assert_eq!(number(&out, "undone"), 0, "{out}");
}

#[test]
fn no_transfer_is_undone_by_kills_where_all_copies_execute() {
    let out = killed("active");
    assert_eq!(number(&out, "undone"), 0, "{out}");
}

#[test]
fn one_copy_is_used_as_three_are() {
    let out = demo(
        "active",
        &[
            "--replicas",
            "1",
            "--seconds",
            "1",
            "--accounts",
            "8",
            "--clients",
            "2",
            "--no-transfers",
        ],
    );
    let equal = "copies: 28 objects have 1 copies each, all equal";
    assert!(out.lines().any(|line| line == equal), "{out}");
    assert!(out.ends_with("ledger: 24 accounts agree\n"), "{out}");
}
