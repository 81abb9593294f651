//! Actions of a running system, looked at and made from the command line.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::time::Duration;

use common::LONG;
use common::shell::Shell;
use common::system::System;
use serde_json::{Value, json};
use test_support::eventually;

fn rows(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

/// Two shells: the first has x, the second has y and waits for x.
struct Waits {
    system: System,
    first: Shell,
    second: Shell,
    holder: String,
    waiter: String,
}

impl Waits {
    fn begin() -> Self {
        let system = System::start(&["a", "b"]);
        system.account("/bank/x", "a", 100);
        system.account("/bank/y", "b", 100);
        assert_eq!(system.json(&["actions"]), json!([]));
        eventually(LONG, || system.json(&["locks"]) == json!([]));
        let (mut first, mut second) = (Shell::start(&system), Shell::start(&system));
        let holder = first.begin();
        assert_eq!(first.ask(r#"/bank/x.withdraw {"amount": 5}"#), "95");
        let waiter = second.begin();
        assert_eq!(second.ask(r#"/bank/y.withdraw {"amount": 7}"#), "93");
        second.say("/bank/x.balance");
        eventually(LONG, || {
            !rows(&system.json(&["locks", "--waiting"])).is_empty()
        });
        Self {
            system,
            first,
            second,
            holder,
            waiter,
        }
    }
}

#[test]
fn actions_and_locks_are_listed_with_who_waits() {
    let waits = Waits::begin();
    let Waits {
        system,
        holder,
        waiter,
        ..
    } = &waits;
    let actions = system.json(&["actions"]);
    let at = |action: &str, node: &str| {
        let found = rows(&actions)
            .iter()
            .find(|row| row["action"] == action && row["node"] == node);
        found.unwrap_or_else(|| panic!("no {action} at {node}: {actions}"))
    };
    let held = at(holder, "a");
    assert_eq!(held["phase"], "active");
    assert_eq!([&held["locks"], &held["changed"]], [&json!(1), &json!(1)]);
    assert_eq!(at(waiter, "a")["waiting_for"], json!(["read of /bank/x"]));
    assert_eq!(at(waiter, "b")["waiting_for"], Value::Null);
    assert_eq!(rows(&system.json(&["actions", "b"])).len(), 1);
    let table = system.ok(&["actions"]);
    assert!(table.starts_with("ACTION"), "{table}");

    let locks = system.json(&["locks"]);
    let of = |row: &Value| {
        ["object", "how", "mode", "action"].map(|key| row[key].as_str().unwrap().to_owned())
    };
    let seen: Vec<_> = rows(&locks).iter().map(of).collect();
    let expected = [
        ["/bank/x", "held", "write", holder],
        ["/bank/x", "waits", "read", waiter],
        ["/bank/y", "held", "write", waiter],
    ];
    for lock in expected {
        assert!(seen.contains(&lock.map(str::to_owned)), "{lock:?}: {locks}");
    }
    let stats = system.json(&["stats", "a"]);
    assert_eq!(stats["actions_active"], 2, "{stats}");
}

#[test]
fn why_follows_the_chain_over_nodes_and_an_abort_by_hand_ends_it() {
    let Waits {
        system,
        mut first,
        mut second,
        holder,
        waiter,
    } = Waits::begin();
    // From y over its holder, which waits for x, to the one that has x.
    let why = system.json(&["why", "/bank/y"]);
    let owner = &why["owners"][0];
    let expected = [&json!(waiter), &json!("write")];
    assert_eq!([&owner["action"], &owner["mode"]], expected);
    let wait = &owner["waits"][0];
    let expected = [&json!("/bank/x"), &json!("a")];
    assert_eq!([&wait["name"], &wait["node"]], expected);
    let last = &wait["owners"][0];
    let expected = [&json!(holder), &json!("open")];
    assert_eq!([&last["action"], &last["then"]], expected);
    let told = system.ok(&["why", "/bank/x"]);
    let parts = [
        "held to write for ",
        &format!(" by {holder} of client "),
        "which waits for its client, and is given up in ",
        &format!("1. {waiter} of client "),
    ];
    for part in parts {
        assert!(told.contains(part), "{part}: {told}");
    }

    // Aborted by hand, it is in nobody's way.
    system.ok(&["abort", &holder]);
    assert_eq!(second.hear(), "100");
    let said = first.ask("commit");
    assert!(said.contains("aborted") && said.contains(&holder), "{said}");
    assert_eq!(second.ask("commit"), format!("committed  {waiter}"));
    assert_eq!(system.balances(["/bank/x", "/bank/y"]), [100, 93]);
    eventually(LONG, || system.json(&["locks"]) == json!([]));
    // Neither the aborted one nor the committed one can be aborted now.
    for ended in [&holder, &waiter] {
        let (status, err) = system.fails(&["abort", ended]);
        assert_eq!(status, 1);
        assert!(err.contains("no node knows action"), "{err}");
    }
    assert_eq!(system.ok(&["outcome", &waiter]), "committed\n");
}

#[test]
fn the_shell_commits_aborts_and_nests() {
    let system = System::start(&["a", "b"]);
    system.account("/bank/x", "a", 100);
    system.account("/bank/y", "b", 100);
    let mut shell = Shell::start(&system);
    let outer = shell.begin();
    assert_eq!(shell.ask(r#"/bank/x.withdraw {"amount": 30}"#), "70");
    let inner = shell.begin();
    assert_eq!(shell.ask(r#"/bank/y.deposit {"amount": 30}"#), "130");
    assert_eq!(shell.ask("show"), format!("{outer} top-level"));
    assert_eq!(shell.hear(), format!("  {inner} nested"));
    // What goes wrong ends neither the shell nor the action.
    assert!(
        shell
            .ask(r#"/bank/x.withdraw {"amount": 71}"#)
            .contains("InsufficientFunds")
    );
    assert!(
        shell
            .ask("/bank/x.balnce")
            .contains("has no method 'balnce'")
    );
    assert!(shell.ask("frobnicate").contains("no command 'frobnicate'"));
    assert_eq!(shell.ask("abort"), format!("aborted  {inner}"));
    assert_eq!(shell.ask("/bank/y.balance"), "100");
    let inner = shell.begin();
    assert_eq!(shell.ask(r#"/bank/y.deposit {"amount": 25}"#), "125");
    assert_eq!(shell.ask("commit"), format!("committed  {inner}"));
    // This one stays, whatever becomes of the one around it.
    let said = shell.ask("top-level");
    assert!(said.starts_with("begun  "), "{said}");
    system.account("/bank/z", "a", 1);
    assert_eq!(shell.ask(r#"/bank/z.deposit {"amount": 1}"#), "2");
    assert!(
        shell.ask("/bank/x.balance").contains("re-entrant"),
        "it has x's lock around it"
    );
    assert!(shell.ask("commit").starts_with("committed  "));
    assert_eq!(shell.ask("abort"), format!("aborted  {outer}"));
    assert_eq!(shell.ask("outcome"), format!("aborted  {outer}"));
    assert_eq!(
        system.balances(["/bank/x", "/bank/y", "/bank/z"]),
        [100, 100, 2]
    );

    let outer = shell.begin();
    shell.ask(r#"/bank/x.withdraw {"amount": 1}"#);
    shell.ask(r#"/bank/y.deposit {"amount": 1}"#);
    assert_eq!(
        shell.ask(&format!("outcome {outer}")),
        format!("open  {outer}")
    );
    assert_eq!(shell.ask("commit"), format!("committed  {outer}"));
    assert_eq!(shell.ask("outcome"), format!("committed  {outer}"));
    assert_eq!(system.balances(["/bank/x", "/bank/y"]), [99, 101]);
    assert_eq!(shell.end().0, 1, "some of its commands failed");
}

#[test]
fn a_script_that_ends_too_early_leaves_nothing_behind() {
    let system = System::start(&["a"]);
    system.account("/bank/x", "a", 100);
    let mut shell = Shell::start(&system);
    let outer = shell.begin();
    let inner = shell.begin();
    assert_eq!(shell.ask(r#"/bank/x.withdraw {"amount": 30}"#), "70");
    let (status, said) = shell.end();
    assert_eq!(status, 1);
    for action in [&outer, &inner] {
        assert!(said.contains(&format!("aborted  {action}")), "{said:?}");
    }
    assert_eq!(system.balances(["/bank/x"]), [100]);
    let good = Shell::start(&system);
    assert_eq!(good.end(), (0, Vec::new()));
}

#[test]
fn an_action_whose_time_is_up_is_over() {
    let system = System::start(&["a"]);
    system.account("/bank/x", "a", 100);
    let mut shell = Shell::start(&system);
    shell.say("time 1");
    let action = shell.begin();
    assert_eq!(shell.ask(r#"/bank/x.withdraw {"amount": 30}"#), "70");
    let said = shell.hear();
    assert!(
        said.contains(&action) && said.contains("its time was up"),
        "{said}"
    );
    assert_eq!(shell.hear(), format!("aborted  {action}"));
    shell.say("abort");
    assert_eq!(shell.ask("/bank/x.balance"), "100");
    assert_eq!(shell.ask("show"), "no action is open");
}

#[test]
fn outcomes_are_told_and_what_cannot_be_told_is_not_guessed() {
    let mut system = System::start(&["a", "b"]);
    system.account("/bank/x", "a", 100);
    system.account("/bank/y", "b", 100);
    let mut shell = Shell::start(&system);
    let outcome = |system: &System, action: &str| {
        let (status, out, _) = system.run(&["outcome", action]);
        (status, out.trim().to_owned())
    };
    let committed = shell.begin();
    shell.ask(r#"/bank/x.withdraw {"amount": 5}"#);
    shell.ask(r#"/bank/y.deposit {"amount": 5}"#);
    assert_eq!(outcome(&system, &committed), (4, "in flight".to_owned()));
    assert_eq!(shell.ask("commit"), format!("committed  {committed}"));
    assert_eq!(outcome(&system, &committed), (0, "committed".to_owned()));
    let aborted = shell.begin();
    shell.ask(r#"/bank/x.withdraw {"amount": 5}"#);
    shell.ask("abort");
    let never = "00c7d1f20be5a001-000001-0000000001";
    // Nobody has a record of what was aborted, nor of what never was; asking changes nothing.
    eventually(LONG, || outcome(&system, &aborted).0 == 5);
    let (status, out, err) = system.run(&["outcome", never]);
    assert_eq!((status, out.as_str()), (5, "unknown\n"));
    assert!(err.contains("no node has a record"), "{err}");
    let told = system.run(&["outcome", never, "--settle", "-o", "json"]).1;
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["outcome"], "aborted");
    assert_eq!(rows(&told["told_by"]).len(), 4, "{told}");

    // The node that is gone may be the one that knows.
    system.kill("a");
    let (status, out, err) = system.run(&["outcome", never]);
    assert_eq!((status, out.as_str()), (5, "unknown\n"));
    assert!(err.contains("node 'a' is not in this"), "{err}");
    system.revive("a");
    assert_eq!(outcome(&system, &committed), (0, "committed".to_owned()));
    let (status, _, err) = system.run(&["outcome", "17"]);
    assert_eq!(status, 2, "{err}");
}

#[test]
fn asking_for_an_outcome_ends_no_action() {
    let system = System::start(&["a"]);
    system.account("/bank/x", "a", 100);
    let mut shell = Shell::start(&system);
    let outer = shell.begin();
    assert_eq!(system.run(&["outcome", &outer]).0, 5, "it has done nothing");
    shell.ask(r#"/bank/x.deposit {"amount": 1}"#);
    let inner = shell.begin();
    shell.ask(r#"/bank/x.deposit {"amount": 2}"#);
    for action in [&outer, &inner] {
        assert_eq!(system.run(&["outcome", action]).1, "in flight\n");
    }
    assert_eq!(shell.ask(r#"/bank/x.deposit {"amount": 3}"#), "106");
    shell.ask("commit");
    assert_eq!(shell.ask("commit"), format!("committed  {outer}"));
}

#[test]
fn what_was_meant_for_an_action_is_not_done_outside_of_it() {
    let system = System::start(&["a"]);
    system.account("/bank/x", "a", 100);
    let balance = |system: &System| system.ok(&["call", "/bank/x", "balance"]);
    let mut shell = Shell::start(&system);
    shell.say("time 1");
    let action = shell.begin();
    assert_eq!(shell.ask(r#"/bank/x.deposit {"amount": 1}"#), "101");
    assert!(shell.hear().contains("its time was up"));
    assert_eq!(shell.hear(), format!("aborted  {action}"));
    let said = shell.ask(r#"/bank/x.deposit {"amount": 1}"#);
    assert!(said.contains("has ended by itself"), "{said}");
    assert_eq!(balance(&system), "100\n");
    shell.say("abort");
    assert_eq!(shell.ask(r#"/bank/x.deposit {"amount": 1}"#), "101");
}

#[test]
fn a_crash_between_the_two_writes_leaves_both_as_they_were() {
    let mut system = System::start(&["a", "b", "c"]);
    system.account("/bank/x", "a", 100);
    system.account("/bank/z", "b", 100);
    // The process that runs the transfer.
    let mut shell = Shell::start(&system);
    shell.begin();
    assert_eq!(shell.ask(r#"/bank/x.withdraw {"amount": 5}"#), "95");
    shell.kill();
    assert_eq!(system.balances(["/bank/x", "/bank/z"]), [100, 100]);
    // The node of the first write, and that of the second.
    for node in ["a", "b"] {
        let mut shell = Shell::start(&system);
        let action = shell.begin();
        assert_eq!(shell.ask(r#"/bank/x.withdraw {"amount": 5}"#), "95");
        assert_eq!(shell.ask("/bank/z.balance"), "100");
        system.kill(node);
        system.revive(node);
        // It may see the loss now, or when it is to commit.
        let said = shell.ask(r#"/bank/z.deposit {"amount": 5}"#);
        shell.say("commit");
        let ended = std::iter::once(said).chain(std::iter::from_fn(|| Some(shell.hear())));
        let mut ended =
            ended.filter(|line| line.starts_with("aborted") || line.starts_with("committed"));
        assert_eq!(ended.next(), Some(format!("aborted  {action}")), "{node}");
        assert_eq!(
            system.balances(["/bank/x", "/bank/z"]),
            [100, 100],
            "{node}"
        );
    }
    // Nothing is in the way of the next one.
    let mut shell = Shell::start(&system);
    shell.begin();
    assert_eq!(shell.ask(r#"/bank/x.withdraw {"amount": 5}"#), "95");
    assert_eq!(shell.ask(r#"/bank/z.deposit {"amount": 5}"#), "105");
    assert!(shell.ask("commit").starts_with("committed"));
    assert_eq!(system.balances(["/bank/x", "/bank/z"]), [95, 105]);
}

#[test]
fn a_shell_waits_for_a_lock_and_says_what_it_was_told() {
    let system = System::start(&["a"]);
    system.account("/bank/x", "a", 100);
    let (mut first, mut second) = (Shell::start(&system), Shell::start(&system));
    first.begin();
    assert_eq!(first.ask(r#"/bank/x.deposit {"amount": 5}"#), "105");
    second.begin();
    second.say("/bank/x.balance");
    assert!(second.is_silent(Duration::from_millis(300)));
    assert!(first.ask("commit").starts_with("committed"));
    assert_eq!(second.hear(), "105");
}
