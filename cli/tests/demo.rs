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

/// Whether the last lines say that all is right.
#[track_caller]
fn agrees(out: &str, accounts: usize) {
    let last: Vec<_> = out.lines().rev().take(3).collect();
    let ledger = format!("ledger: {accounts} accounts agree");
    assert_eq!(last[0], ledger, "{out}");
    assert!(
        last[1].starts_with("total: ") && last[1].ends_with(" conserved"),
        "{out}"
    );
    let audit = format!(
        "audit: {} transfers are there, each once",
        number(out, "transfers")
    );
    assert_eq!(last[2], audit, "{out}");
}

#[test]
fn the_books_agree_although_nodes_are_killed() {
    let arguments = [
        "demo",
        "--seconds",
        "9",
        "--kill",
        "--accounts",
        "60",
        "--clients",
        "6",
    ];
    let demo = Child::spawn("demo", &mut command(&arguments));
    let (exit, out, err) = demo.finish(LONG * 2);
    assert_eq!(exit, Exit::Code(0), "{out}{err}");
    agrees(&out, 60);
    assert!(number(&out, "payments") > 0 && number(&out, "transfers") > 0);
    assert!(number(&out, "kills") >= 4, "{out}");
    assert!(number(&out, "re-activations") > 0, "{out}");
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
    agrees(&out, 20);
    assert_eq!((number(&out, "kills"), number(&out, "settled")), (0, 0));
    assert_eq!(number(&out, "aborted"), 0, "{out}");
    assert_eq!(number(&out, "re-activations"), 0);
    assert!(out.ends_with("ledger: 20 accounts agree\n"), "{out}");
}

#[test]
fn deadlocks_of_crossing_transfers_are_found_and_resolved() {
    let arguments = [
        "demo",
        "--seconds",
        "10",
        "--accounts",
        "8",
        "--clients",
        "8",
    ];
    let demo = Child::spawn("demo", &mut command(&arguments));
    let (exit, out, err) = demo.finish(LONG * 2);
    assert_eq!((exit, err.as_str()), (Exit::Code(0), ""), "{out}");
    agrees(&out, 8);
    // Also by the exit status.
    assert!(number(&out, "deadlocks") > 0, "{out}");
    assert_eq!(number(&out, "aborted"), 0, "{out}");
}

#[test]
fn transfers_that_take_their_accounts_in_one_order_have_no_deadlock() {
    let arguments = [
        "demo",
        "--seconds",
        "2",
        "--accounts",
        "8",
        "--clients",
        "8",
        "--no-crossing",
    ];
    let demo = Child::spawn("demo", &mut command(&arguments));
    let (exit, out, err) = demo.finish(LONG * 2);
    assert_eq!((exit, err.as_str()), (Exit::Code(0), ""), "{out}");
    agrees(&out, 8);
    assert_eq!(
        (number(&out, "deadlocks"), number(&out, "retried")),
        (0, 0),
        "{out}"
    );
}

#[test]
fn its_children_die_with_it() {
    // A demo that is killed cannot clear up its stores.
    let folder = test_support::temp_dir("demo");
    let mut command = command(&["demo", "--seconds", "600", "--accounts", "4"]);
    let demo = Child::spawn("demo", command.env("TMPDIR", folder.path()));
    let line = demo.wait_for_line(LONG, |line| line.starts_with("naming "));
    let address = line.split_whitespace().nth(1).unwrap().to_owned();
    demo.wait_for_line(LONG, |line| line.contains(" done "));
    demo.kill();
    test_support::eventually(LONG, || std::net::TcpStream::connect(&address).is_err());
}
