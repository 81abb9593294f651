//! Moving objects and emptying nodes, with naming service, binder and bank nodes as processes.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::LONG;
use common::shell::Shell;
use common::system::System;
use serde_json::{Value, json};
use test_support::{Child, eventually};

/// What a drain said, with its exit status.
fn drain(system: &System, arguments: &[&str]) -> (i32, Value) {
    let all = [&["node", "drain"], arguments, &["--json"]].concat();
    let (status, out, err) = system.run(&all);
    let told = serde_json::from_str(&out);
    let told = told.unwrap_or_else(|error| panic!("{error}: {out}\n{err}"));
    (status, told)
}

/// Accounts with these names at a node, each with as much as its place in the list.
fn accounts(system: &System, node: &str, names: &[&str]) {
    for (amount, name) in (1..).zip(names) {
        system.account(name, node, amount);
    }
}

#[test]
fn a_drain_can_be_tried_without_doing_anything() {
    let system = System::labelled(&[
        ("a", &["zone=x"]),
        ("b", &["zone=x"]),
        ("c", &["zone=y"]),
        ("d", &["zone=y"]),
        ("e", &["zone=y"]),
    ]);
    accounts(&system, "a", &["/one", "/two", "/three", "/four"]);
    system.ok(&["create", "bank.AuditLog", "/log", "--node", "a"]);
    let plan = |arguments: &[&str]| {
        let all = [&["node", "drain", "a", "--dry-run"], arguments].concat();
        let rows = system.json(&all);
        let mut rows = rows.as_array().unwrap().clone();
        rows.sort_by_key(|row| row["class"].to_string());
        let objects: Vec<_> = rows.iter().map(|row| row["objects"].clone()).collect();
        assert_eq!(objects, [json!(4), json!(1)], "{rows:?}");
        assert_eq!(rows[0]["class"], "bank.Account");
        [rows[1]["to"].clone(), rows[0]["to"].clone()]
    };
    let all_to_b = [json!(["b 1"]), json!(["b 4"])];
    assert_eq!(plan(&["--to", "zone=x"]), all_to_b);
    assert_eq!(plan(&["--pack"]), all_to_b);
    let accounts = &plan(&["--to", "c", "--to", "d"])[1];
    assert_eq!(*accounts, json!(["c 2", "d 2"]));
    // As many to the one node of x as to the three of y, or one more.
    let spread = json!(plan(&["--spread", "zone"])).to_string();
    let to_b = spread.matches("b 1").count() + 2 * spread.matches("b 2").count();
    assert!(to_b == 2 || to_b == 3, "{spread}");
    assert_eq!(system.json(&["describe", "/one"])["node"], "a");
    let nodes = system.json(&["nodes"]);
    let mut nodes = nodes.as_array().unwrap().iter();
    assert!(nodes.all(|node| node["cordoned"] == false));
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_done() {
    let system = System::start(&["a", "b"]);
    system.account("/one", "a", 1);
    let refused: [(&[&str], i32, &str); 7] = [
        (&["q"], 1, "no node 'q'"),
        (&["a", "--to", "q"], 1, "no node 'q'"),
        (&["a", "--to", "a"], 2, "is the node that is to be drained"),
        (&["a", "--to", "zone="], 2, "no value of label 'zone'"),
        (&["a", "--to", "zone=x"], 1, "runs bank.Account"),
        (&["a", "--wait", "1h"], 2, "at most"),
        (&["naming"], 1, "naming.NameService"),
    ];
    for (arguments, expected, text) in refused {
        let all = [&["node", "drain"], arguments].concat();
        let (status, err) = system.fails(&all);
        assert_eq!(status, expected, "{arguments:?}: {err}");
        assert!(err.contains(text), "{arguments:?}: {err}");
    }
    system.ok(&["node", "cordon", "b"]);
    let (status, err) = system.fails(&["node", "drain", "a", "--to", "b"]);
    assert_eq!(status, 1);
    assert!(err.contains("partha node uncordon b"), "{err}");
    let (status, err) = system.fails(&["move", "/one", "b"]);
    assert_eq!(status, 1);
    assert!(err.contains("cordoned") && err.contains("--force"), "{err}");
    let (status, err) = system.fails(&["move", "/one", "binder"]);
    assert_eq!(status, 1);
    assert!(err.contains("does not run bank.Account"), "{err}");
    let (_, err) = system.fails(&["move", "/one", "q"]);
    assert!(err.contains("no node 'q'"), "{err}");
    let nodes = system.json(&["nodes"]);
    let mut nodes = nodes.as_array().unwrap().iter();
    assert!(nodes.all(|node| (node["cordoned"] == true) == (node["node"] == "b")));
    assert_eq!(system.ok(&["call", "/one", "balance"]), "1\n");
}

#[test]
fn a_node_without_objects_may_be_stopped_at_once() {
    let system = System::start(&["a", "b"]);
    let (status, told) = drain(&system, &["a"]);
    assert_eq!(
        (status, &told["may_be_stopped"]),
        (0, &json!(true)),
        "{told}"
    );
    assert_eq!([&told["objects"], &told["moved"]], [&json!(0), &json!(0)]);
    let (_, out, err) = system.run(&["node", "drain", "a"]);
    assert!(out.contains("node 'a' may be stopped now"), "{out}");
    assert_eq!(err, "", "it was cordoned before");
    let nodes = system.json(&["nodes"]);
    let mut nodes = nodes.as_array().unwrap().iter();
    assert!(nodes.all(|node| (node["cordoned"] == true) == (node["node"] == "a")));
}

#[test]
fn what_comes_while_actions_are_waited_for_is_moved_too() {
    let system = System::start(&["a", "b"]);
    accounts(&system, "a", &["/one"]);
    let mut shell = Shell::start(&system);
    shell.begin();
    assert_eq!(shell.ask(r#"/one.deposit {"amount": 4}"#), "5");
    let arguments = ["node", "drain", "a", "--wait", "60s", "--json"];
    let draining = Child::spawn("drain", &mut system.command(&arguments));
    // Its part at `a` ends with the action, wherever the object is.
    eventually(LONG, || system.json(&["describe", "/one"])["node"] == "b");
    accounts(&system, "a", &["/two"]);
    assert_eq!(draining.exit(), None, "the action is not over");
    shell.say("commit");
    let (_, out, err) = draining.finish(LONG);
    let told: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {err}"));
    assert_eq!(told["may_be_stopped"], true, "{told}");
    assert_eq!([&told["moved"], &told["come"]], [&json!(2), &json!(0)]);
    assert_eq!(system.json(&["describe", "/two"])["node"], "b");
    assert_eq!(system.balances(["/one", "/two"]), [5, 1]);
}

/// Nobody else runs the class, and that one is just being started again.
#[test]
fn the_only_other_node_is_waited_for() {
    let mut system = System::start(&["a", "b"]);
    system.account("/one", "a", 5);
    system.kill("b");
    eventually(LONG, || {
        let nodes = system.json(&["nodes"]);
        let mut nodes = nodes.as_array().unwrap().iter();
        nodes.any(|node| node["node"] == "b" && node["state"] == "silent")
    });
    let (status, err) = system.fails(&["node", "drain", "a", "--patience", "0s"]);
    assert_eq!(status, 1, "{err}");
    assert!(err.contains("nothing has been done"), "{err}");
    let mut command = system.command(&["node", "drain", "a", "--wait", "1s", "--json"]);
    let draining = Child::spawn("drain", &mut command);
    draining.wait_for_log(LONG, |line| line.contains("1 stay so far"));
    system.revive("b");
    let (_, out, err) = draining.finish(LONG);
    let told: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {err}"));
    assert_eq!(told["may_be_stopped"], true, "{told}");
    assert_eq!(system.balances(["/one"]), [5]);
}

/// There are three copies, and one node without any, which is just being started again.
#[test]
fn a_node_that_is_started_again_is_waited_for() {
    let mut system = System::start(&["a", "b", "c", "d"]);
    let account = ["create", "bank.Account", "/one", r#"{"owner": "x"}"#];
    let copies = ["--node", "a", "--replicas", "3"];
    system.ok(&[&account[..], &copies].concat());
    let members = |system: &System| system.json(&["describe", "/one"])["members"].clone();
    eventually(LONG, || members(&system).as_array().unwrap().len() == 3);
    let there = members(&system);
    let there: Vec<_> = there
        .as_array()
        .unwrap()
        .iter()
        .map(Value::as_str)
        .collect();
    let mut all = ["b", "c", "d"].into_iter();
    let free = all.find(|node| !there.contains(&Some(*node))).unwrap();
    system.kill(free);
    eventually(LONG, || {
        let nodes = system.json(&["nodes"]);
        let mut nodes = nodes.as_array().unwrap().iter();
        nodes.any(|node| node["node"] == free && node["state"] == "silent")
    });

    let (status, told) = drain(&system, &["a", "--wait", "1s", "--patience", "0s"]);
    assert_eq!(status, 1, "{told}");
    let why = told["stays"][0]["why"].as_str().unwrap();
    assert!(why.contains("no other living node"), "{told}");
    let arguments = ["node", "drain", "a", "--wait", "1s", "--json"];
    let draining = Child::spawn("drain", &mut system.command(&arguments));
    // That is said after the first look at it.
    draining.wait_for_log(LONG, |line| line.contains("1 stay so far"));
    system.revive(free);
    let (_, out, err) = draining.finish(LONG);
    let told: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {err}"));
    assert_eq!(told["may_be_stopped"], true, "{told}");
    let there = members(&system);
    assert!(!there.as_array().unwrap().contains(&json!("a")), "{there}");
}
