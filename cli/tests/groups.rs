//! What is told of groups, with naming service, binder and bank nodes as processes.
//!
//! The views are made at the binder itself, as nodes do: that is whose word is shown.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::LONG;
use common::system::System;
use partha::services::binder::{GroupPlacement, GroupPolicy, GroupView, ViewChange, ViewWish};
use partha::{Client, NodeId, Uid};
use serde_json::{Value, json};
use test_support::eventually;

/// A node that never registered.
const STRANGER: u64 = 0xabc;

/// The identity of a node, as the binder lists it.
fn id(system: &System, name: &str) -> u64 {
    let nodes = system.json(&["nodes"]);
    let mut rows = nodes.as_array().unwrap().iter();
    let row = rows.find(|row| row["node"] == name).unwrap();
    u64::from_str_radix(row["id"].as_str().unwrap(), 16).unwrap()
}

/// Makes the account of this name a group, and the stranger its third member.
async fn replicate(naming: &str, name: &str, members: [u64; 2]) -> Uid {
    let client = Client::connect(naming.to_owned()).await.unwrap();
    let naming = client.naming().unwrap();
    let entry = naming.lookup(&client, name).await.unwrap();
    let view = GroupView {
        object: entry.object,
        class: entry.class,
        number: 1,
        members: members.to_vec(),
        wanted: 4,
        policy: GroupPolicy::Passive,
        placement: GroupPlacement::default(),
    };
    let locator = client.locator();
    locator.make_group(&client, &view, LONG).await.unwrap();
    let include = ViewChange {
        object: entry.object,
        expected: 1,
        by: members[0],
        incarnation: u32::MAX,
        wish: ViewWish::Include(STRANGER),
    };
    let changed = locator.change_views(&client, &[include], LONG).await;
    assert_eq!(changed.unwrap()[0].number, 2);
    entry.object
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_listed_with_their_members_and_those_that_are_silent() {
    tokio::task::spawn_blocking(listing).await.unwrap();
}

fn listing() {
    let mut system = System::with_lease(&["a", "b"], "2s");
    assert_eq!(system.json(&["groups"]), json!([]));
    assert_eq!(system.ok(&["groups"]), "");
    system.account("/bank/alone", "a", 5);
    system.account("/bank/copied", "a", 7);
    let members = ["a", "b"].map(|name| id(&system, name));
    let made = replicate(&system.naming, "/bank/copied", members);
    let uid = tokio::runtime::Handle::current().block_on(made);

    let stranger = NodeId(STRANGER).to_string();
    let mut expected = json!({
        "name": "/bank/copied",
        "policy": "passive",
        "wanted": 4,
        "view": 2,
        "members": ["a", "b", &*stranger],
        // These nodes know of no copy: the binder alone was told.
        "lag": [null, null, null],
        "silent": [&*stranger],
        "placement": "spread",
        "uid": uid.to_string(),
    });
    assert_eq!(system.json(&["groups"]), json!([expected]));
    let short = system.ok(&["groups", "--json"]);
    let short: Value = serde_json::from_str(&short).unwrap();
    assert_eq!(short, json!([expected]));
    let table = system.ok(&["groups"]);
    let row = table.lines().nth(1).unwrap();
    assert!(row.contains(&format!("a, b, {stranger}")), "{table}");

    let described = system.json(&["describe", "/bank/copied"]);
    let facts = [
        "policy",
        "wanted",
        "view",
        "members",
        "lag",
        "silent",
        "placement",
    ];
    for fact in facts {
        assert_eq!(described[fact], expected[fact], "{fact}");
    }
    assert_eq!(described["node"], "a", "it is where its leader is");
    let text = system.ok(&["describe", "/bank/copied"]);
    assert!(text.contains(&format!("a, b, {stranger}")), "{text}");
    let alone = system.json(&["describe", "/bank/alone"]);
    for fact in ["view", "members", "view_unknown"] {
        assert_eq!(alone.get(fact), None, "{fact} of an object without copies");
    }

    // What the binder has acknowledged is there after a crash of it.
    system.kill("binder");
    system.revive_binder();
    eventually(LONG, || {
        let (status, out, _) = system.run(&["groups", "-o", "json"]);
        status == 0 && serde_json::from_str::<Value>(&out).unwrap() == json!([expected])
    });

    // A member that dies is told of when its lease is over.
    system.kill("b");
    expected["silent"] = json!(["b", stranger]);
    eventually(LONG, || system.json(&["groups"]) == json!([expected]));
}
