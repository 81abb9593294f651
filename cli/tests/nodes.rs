//! Which nodes objects come to: labels and cordons, with naming service, binder and bank nodes as
//! processes.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::system::System;
use serde_json::{Value, json};

/// The row of a node.
fn row(system: &System, name: &str) -> Value {
    let nodes = system.json(&["nodes"]);
    let mut rows = nodes.as_array().unwrap().iter();
    rows.find(|row| row["node"] == name).unwrap().clone()
}

/// Makes an account somewhere; the node it is at.
fn made(system: &System, name: &str) -> Value {
    let owner = json!({ "owner": name }).to_string();
    system.json(&["create", "bank.Account", name, &owner])["node"].clone()
}

#[test]
fn a_cordoned_node_gets_no_objects_until_that_is_taken_back() {
    let mut system = System::start(&["a", "b"]);
    // Whichever comes first without a cordon.
    let first = made(&system, "/bank/one");
    let (first, other) = match first.as_str().unwrap() {
        "a" => ("a", "b"),
        _ => ("b", "a"),
    };
    let cordoned = system.json(&["node", "cordon", first]);
    assert_eq!(cordoned["cordoned"], true);
    assert_eq!(
        [&cordoned["before"], &cordoned["node"]],
        [&json!(false), &json!(first)]
    );
    assert_eq!(row(&system, first)["cordoned"], true);
    assert_eq!(row(&system, other)["cordoned"], false);
    let table = system.ok(&["nodes"]);
    let mut lines = table.lines().map(|line| line.split_whitespace());
    let mut line = lines.find_map(|mut cells| (cells.next() == Some(first)).then_some(cells));
    let cells: Option<Vec<_>> = line.as_mut().map(|cells| cells.take(2).collect());
    assert_eq!(cells.unwrap(), ["alive", "yes"], "{table}");

    assert_eq!(made(&system, "/bank/two"), other);
    // What is there stays and works, and a restart changes nothing.
    assert_eq!(system.ok(&["call", "/bank/one", "balance"]), "0\n");
    system.kill(first);
    system.revive(first);
    assert_eq!(row(&system, first)["cordoned"], true);
    assert_eq!(made(&system, "/bank/three"), other);
    // Whoever names it gets it.
    system.account("/bank/four", first, 1);

    // Where all are cordoned, that is said.
    let told = system.ok(&["node", "cordon", other, "--json"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["before"], false);
    let (status, err) = system.fails(&["create", "bank.Account", "/bank/five"]);
    assert_eq!(status, 1);
    assert!(err.contains("not cordoned"), "{err}");
    system.ok(&["node", "uncordon", first]);
    let uncordoned = system.json(&["node", "uncordon", first]);
    assert_eq!(
        [&uncordoned["cordoned"], &uncordoned["before"]],
        [&json!(false), &json!(false)]
    );
    assert_eq!(made(&system, "/bank/five"), first);

    let (status, err) = system.fails(&["node", "cordon", "q"]);
    assert_eq!(status, 1);
    assert!(
        err.contains("no node 'q'") && err.contains("partha nodes"),
        "{err}"
    );
    assert_eq!(system.run(&["node"]).0, 2);
}

#[test]
fn labels_are_shown_as_they_were_told() {
    let system = System::labelled(&[("a", &["zone=east", "rack=7"]), ("b", &[])]);
    let labels = json!({ "zone": "east", "rack": "7" });
    assert_eq!(row(&system, "a")["labels"], labels);
    assert_eq!(row(&system, "b")["labels"], json!({}));
    let table = system.ok(&["nodes"]);
    assert!(table.contains("rack=7, zone=east"), "{table}");
    let wrong = ["serve", "naming", "--label", "zone"];
    let (status, err) = system.fails(&wrong);
    assert_eq!(status, 2);
    assert!(err.contains("expected NAME=VALUE"), "{err}");
}
