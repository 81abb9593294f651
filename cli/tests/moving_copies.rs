//! Objects with copies move to nodes that have none.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use common::LONG;
use common::system::System;
use test_support::eventually;

const NODES: [(&str, &[&str]); 4] = [
    ("a", &["zone=x"]),
    ("b", &["zone=x"]),
    ("c", &["zone=x"]),
    ("d", &["zone=y"]),
];

/// The nodes of its copies, the leader first.
fn members(system: &System, name: &str) -> Vec<String> {
    let told = system.json(&["describe", name]);
    let members = told["members"].as_array().unwrap().iter();
    members.map(|it| it.as_str().unwrap().to_owned()).collect()
}

fn copied(system: &System, name: &str, copies: usize, more: &[&str]) {
    let owner = r#"{"owner": "alice"}"#;
    let number = copies.to_string();
    let create = ["create", "bank.Account", name, owner, "--node", "a"];
    system.ok(&[&create[..], &["--replicas", &number], more].concat());
    eventually(LONG, || members(system, name).len() == copies);
}

/// Moves it to each node in turn, and is told that it leads there.
fn all_around(system: &System, name: &str, copies: usize) {
    for (node, _) in NODES.iter().rev() {
        system.ok(&["move", name, node, "--wait", "20s"]);
        let there = members(system, name);
        assert_eq!(there[0], *node, "{there:?}");
        // One that is too many goes.
        eventually(LONG, || members(system, name).len() == copies);
        assert_eq!(members(system, name)[0], *node, "not the one that leads");
    }
}

#[test]
fn an_object_with_copies_moves_to_a_node_without_one_while_it_is_used() {
    let system = System::labelled(&NODES);
    for (policy, copies) in [("passive", 2), ("cohort", 2), ("active", 3), ("passive", 1)] {
        let name = format!("/{policy}{copies}");
        copied(&system, &name, copies, &["--policy", policy]);
        let (done, stops) = (AtomicU32::new(0), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stops.load(Ordering::Relaxed) {
                    system.ok(&["call", &name, "deposit", r#"{"amount": 1}"#]);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
            all_around(&system, &name, copies);
            let before = done.load(Ordering::Relaxed);
            eventually(LONG, || done.load(Ordering::Relaxed) > before);
            stops.store(true, Ordering::Relaxed);
        });
        let sum = i64::from(done.load(Ordering::Relaxed));
        assert_eq!(system.balances([name.as_str()]), [sum], "{name}");
    }
}

#[test]
fn a_node_that_gets_no_copy_is_told_why() {
    let mut system = System::labelled(&NODES);
    copied(&system, "/one", 2, &["--on", "zone=x"]);
    let refused = |system: &System, node: &str, why: &str| {
        let (status, told) = system.fails(&["move", "/one", node, "--force"]);
        assert_eq!(status, 1, "{told}");
        assert!(told.contains(why), "{told}");
        assert!(told.contains("stays at node 'a'"), "{told}");
    };
    refused(&system, "d", "node 'd', which does not have the labels");
    let there = members(&system, "/one");
    let free = ["b", "c"]
        .into_iter()
        .find(|node| !there.contains(&(*node).to_owned()));
    let free = free.unwrap();
    system.ok(&["node", "cordon", free]);
    refused(&system, free, "which is cordoned, gets none");
    system.ok(&["node", "uncordon", free]);
    system.kill(free);
    eventually(LONG, || {
        let (_, told) = system.fails(&["move", "/one", free]);
        told.contains("which is away, gets none")
    });
    assert_eq!(members(&system, "/one"), there);
}
