//! What the doctor finds of objects that have moved or have copies, with naming service, binder and
//! bank nodes as processes.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::LONG;
use common::system::System;
use partha::services::binder::MovedObject;
use partha::{Client, Uid};
use serde_json::{Value, json};
use test_support::eventually;
use tokio::runtime::Runtime;

/// What the doctor finds of these kinds.
fn found(system: &System, kinds: &[&str]) -> Vec<Value> {
    let (_, out, err) = system.run(&["doctor", "--json"]);
    assert_eq!(err, "");
    let told: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"));
    let findings = told["findings"].as_array().unwrap().iter();
    let wanted = findings.filter(|one| kinds.iter().any(|kind| one["kind"] == *kind));
    wanted.cloned().collect()
}

/// All kinds that are about places.
const KINDS: [&str; 4] = ["misplaced", "astray", "leader-silent", "copies-few"];

/// The finding of this kind, which is the only one, once there is one.
fn only(system: &System, kind: &str) -> Value {
    eventually(LONG, || !found(system, &[kind]).is_empty());
    let found = found(system, &KINDS);
    let [one] = &found[..] else {
        panic!("{found:?}");
    };
    assert_eq!(one["kind"], kind, "{one}");
    one.clone()
}

fn has(finding: &Value, field: &str, expected: &str) {
    let text = finding[field].as_str().unwrap();
    assert!(text.contains(expected), "no `{expected}` in {finding}");
}

#[test]
fn objects_that_went_to_a_node_that_is_gone_are_counted() {
    let mut system = System::start(&["a", "b", "c"]);
    for name in ["/x", "/y", "/z"] {
        system.account(name, "a", 5);
    }
    for name in ["/x", "/y"] {
        system.ok(&["move", name, "b"]);
    }
    // This one has moved on, and is only found by way of the binder.
    system.ok(&["move", "/z", "b"]);
    system.ok(&["move", "/z", "c"]);
    assert_eq!(found(&system, &KINDS), Vec::<Value>::new());
    system.kill("b");
    let astray = only(&system, "astray");
    assert_eq!(astray["node"], "a");
    has(&astray, "text", "2 objects, /");
    has(
        &astray,
        "text",
        "left node 'a' for node 'b', which does not answer",
    );
    has(&astray, "cure", "start node 'b' again");
    assert_eq!(system.balances(["/z"]), [5]);
    system.revive("b");
    assert_eq!(found(&system, &KINDS), Vec::<Value>::new());
    assert_eq!(system.balances(["/x", "/y"]), [5, 5]);
}

#[test]
fn an_object_that_the_binder_has_elsewhere_is_found_and_the_cure_works() {
    let system = System::start(&["a", "b"]);
    system.account("/x", "a", 5);
    let moved = system.json(&["move", "/x", "b"]);
    assert_eq!(found(&system, &KINDS), Vec::<Value>::new());
    // Somebody tells the binder what is not so.
    let uid: Uid = moved["uid"].as_str().unwrap().parse().unwrap();
    Runtime::new().unwrap().block_on(async {
        let client = Client::connect(system.naming.clone()).await.unwrap();
        let false_news = [MovedObject {
            object: uid,
            node: uid.node.0,
            moves: moved["moves"].as_u64().unwrap() + 1,
        }];
        client
            .locator()
            .tell_moved(&client, &false_news)
            .await
            .unwrap();
    });
    let misplaced = only(&system, "misplaced");
    assert_eq!(
        [&misplaced["node"], &misplaced["subject"]],
        [&json!("b"), &json!(uid.to_string())]
    );
    has(
        &misplaced,
        "text",
        "object /x is at node 'b', but the binder has it at 'a'",
    );
    has(&misplaced, "cure", "`partha move /x a`");
    system.ok(&["move", "/x", "a"]);
    assert_eq!(found(&system, &KINDS), Vec::<Value>::new());
    assert_eq!(system.balances(["/x"]), [5]);
}

#[test]
fn too_few_copies_and_copies_that_nobody_leads_are_found() {
    let mut system = System::with_lease(&["a", "b"], "2s");
    for name in ["/x", "/y"] {
        system.account(name, "a", 5);
        system.ok(&["replicate", name, "2"]);
    }
    let all_there = || {
        let groups = system.json(&["groups"]);
        let groups = groups.as_array().unwrap();
        let whole = |group: &Value| group["members"].as_array().unwrap().len() == 2;
        groups.len() == 2 && groups.iter().all(whole)
    };
    eventually(LONG, all_there);
    assert_eq!(found(&system, &KINDS), Vec::<Value>::new());
    system.ok(&["replicate", "/x", "3", "--wait", "0s"]);
    let few = only(&system, "copies-few");
    assert_eq!(few["node"], "a");
    has(
        &few,
        "text",
        "object /x has fewer copies than wanted: no other living node",
    );
    system.ok(&["replicate", "/x", "2"]);
    eventually(LONG, || found(&system, &KINDS).is_empty());

    system.kill("b");
    system.kill("a");
    let headless = only(&system, "leader-silent");
    assert_eq!(headless["node"], "a");
    has(&headless, "text", "2 objects, /");
    has(&headless, "cure", "start node 'a' again");
    system.revive("a");
    system.revive("b");
    eventually(LONG, || found(&system, &KINDS).is_empty());
    assert_eq!(system.balances(["/x", "/y"]), [5, 5]);
}
