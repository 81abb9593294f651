//! How many copies objects have, where, and what becomes of them when nodes are emptied and
//! stopped: with naming service, binder and bank nodes as processes.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bank::Account;
use common::LONG;
use common::system::System;
use partha::{Client, SystemError};
use rustix::process::Signal;
use serde_json::{Value, json};
use test_support::eventually;

const OWNER: &str = r#"{"owner": "alice"}"#;

/// An account with so many copies, the first at this node.
fn copied(system: &System, name: &str, node: &str, more: &[&str]) -> Value {
    let create = ["create", "bank.Account", name, OWNER, "--node", node];
    system.json(&[&create, more].concat())
}

/// The nodes of its copies, the leader first.
fn members(system: &System, name: &str) -> Vec<String> {
    let told = system.json(&["describe", name]);
    let members = told["members"].as_array().unwrap().iter();
    members.map(|it| it.as_str().unwrap().to_owned()).collect()
}

/// How many objects a node has, copies included.
fn objects(system: &System, node: &str) -> usize {
    let plan = system.json(&["node", "drain", node, "--dry-run"]);
    let rows = plan.as_array().unwrap().iter();
    let counts = rows.map(|row| row["objects"].as_u64().unwrap());
    counts.sum::<u64>() as usize
}

fn deposit(system: &System, name: &str, amount: i64) -> String {
    let amount = format!(r#"{{"amount": {amount}}}"#);
    system.ok(&["call", name, "deposit", &amount])
}

/// What a drain said, with its exit status.
fn drain(system: &System, node: &str) -> (i32, Value) {
    let (status, out, err) = system.run(&["node", "drain", node, "--wait", "20s", "--json"]);
    let told = serde_json::from_str(&out);
    (
        status,
        told.unwrap_or_else(|error| panic!("{error}: {out}\n{err}")),
    )
}

fn zoned() -> System {
    System::labelled(&[
        ("a", &["zone=x"]),
        ("b", &["zone=x"]),
        ("c", &["zone=y"]),
        ("d", &["zone=z"]),
    ])
}

#[test]
fn an_object_is_made_with_its_copies_in_different_zones() {
    let system = zoned();
    let made = copied(&system, "/alice", "a", &["--replicas", "3"]);
    let there: BTreeSet<_> = members(&system, "/alice").into_iter().collect();
    assert_eq!(there, ["a", "c", "d"].map(str::to_owned).into());
    assert_eq!(made["copies"].as_array().unwrap().len(), 3, "{made}");
    assert_eq!(deposit(&system, "/alice", 5), "5\n");
    let groups = system.json(&["groups"]);
    assert_eq!(groups[0]["placement"], "spread");
    eventually(LONG, || {
        system.json(&["groups"])[0]["lag"] == json!([0, 0, 0])
    });

    // Packed, and at nodes with labels.
    let packed = ["--replicas", "2", "--place", "pack"];
    let made = copied(&system, "/bob", "d", &packed);
    assert_eq!(made["copies"], json!(["d", "a"]));
    let on = ["--replicas", "2", "--on", "zone=y,zone=q"];
    let made = copied(&system, "/carol", "a", &on);
    assert_eq!(made["copies"], json!(["a", "c"]));
    let told = system.json(&["describe", "/carol"]);
    assert_eq!(told["placement"], "spread, on zone=y zone=q");

    // With fewer nodes than copies the object is there all the same.
    let more = ["create", "bank.Account", "/dora", OWNER, "--replicas", "5"];
    let (status, _, err) = system.run(&more);
    assert_eq!(status, 0, "{err}");
    assert!(err.contains("/dora has 4 of 5 copies"), "{err}");

    for policy in ["cohort", "active"] {
        let name = format!("/{policy}");
        copied(
            &system,
            &name,
            "a",
            &["--replicas", "2", "--policy", policy],
        );
        assert_eq!(system.json(&["describe", &name])["policy"], policy);
    }
    let alone = ["create", "bank.Account", "/eve", OWNER, "--on", "zone=y"];
    let (status, err) = system.fails(&alone);
    assert_eq!(status, 2);
    assert!(err.contains("--replicas"), "{err}");
    let (_, err) = system.fails(&["describe", "/eve"]);
    assert!(err.contains("/eve"), "{err}");
}

/// Whoever leads copies is found by the binder, which is found by its name.
#[test]
fn what_copies_are_found_by_has_none() {
    let system = System::start(&["a"]);
    for name in ["/partha", "/partha/binder"] {
        let (status, err) = system.fails(&["replicate", name, "2", "--wait", "0s"]);
        assert_eq!(status, 1, "{err}");
        assert!(err.contains("by which copies are found"), "{err}");
    }
    assert_eq!(system.json(&["groups"]), json!([]));
}

#[test]
fn copies_that_are_too_many_go_the_youngest_first() {
    let system = zoned();
    copied(&system, "/alice", "a", &["--replicas", "3"]);
    deposit(&system, "/alice", 5);
    system.json(&["replicate", "/alice", "4"]);
    let four = members(&system, "/alice");
    let now = system.json(&["replicate", "/alice", "2"]);
    assert_eq!(now["copies"], json!(four[..2]));
    for node in &four[2..] {
        eventually(LONG, || objects(&system, node) == 0);
    }
    assert_eq!(deposit(&system, "/alice", 2), "7\n");
    // A group of one is a group still, and grows again.
    let now = system.json(&["replicate", "/alice", "1"]);
    assert_eq!(now["copies"], json!(["a"]));
    assert_eq!(deposit(&system, "/alice", 3), "10\n");
    eventually(LONG, || {
        let (status, _, err) = system.run(&["replicate", "/alice", "5", "--wait", "1s"]);
        assert_eq!(status, 1);
        err.contains("4 copies instead of 5") && err.contains("no other living node")
    });
    assert_eq!(deposit(&system, "/alice", 1), "11\n");
}

#[test]
fn a_copy_that_comes_back_and_is_not_wanted_any_more_goes() {
    let mut system = System::with_lease(&["a", "b", "c", "d"], "2s");
    copied(&system, "/alice", "a", &["--replicas", "3"]);
    deposit(&system, "/alice", 5);
    let lost = members(&system, "/alice")[2].clone();
    system.kill(&lost);
    eventually(LONG, || {
        let now = members(&system, "/alice");
        now.len() == 3 && !now.contains(&lost)
    });
    let three = members(&system, "/alice");
    system.revive(&lost);
    eventually(LONG, || objects(&system, &lost) == 0);
    assert_eq!(members(&system, "/alice"), three);
    assert_eq!(deposit(&system, "/alice", 1), "6\n");
}

#[test]
fn a_node_is_emptied_of_copies_while_others_can_have_them() {
    let mut system = System::start(&["a", "b", "c", "d"]);
    for name in ["/one", "/two", "/three"] {
        copied(&system, name, "a", &["--replicas", "3"]);
        deposit(&system, name, 4);
    }
    let (status, told) = drain(&system, "a");
    assert_eq!(
        (status, &told["may_be_stopped"]),
        (0, &json!(true)),
        "{told}"
    );
    assert_eq!(told["moved"], 3);
    assert_eq!(objects(&system, "a"), 0);
    for name in ["/one", "/two", "/three"] {
        let now = members(&system, name);
        assert_eq!(now.len(), 3);
        assert!(!now.contains(&"a".to_owned()), "{now:?}");
    }
    system.kill("a");
    assert_eq!(system.balances(["/one", "/two", "/three"]), [4, 4, 4]);

    // There is no node for a third copy any more.
    let (status, told) = drain(&system, "b");
    assert_eq!(
        (status, &told["may_be_stopped"]),
        (1, &json!(false)),
        "{told}"
    );
    let why = told["stays"][0]["why"].as_str().unwrap();
    assert!(why.contains("cannot be replaced"), "{why}");
    let cure = told["told"].as_str().unwrap();
    assert!(cure.contains("`partha replicate NAME N`"), "{cure}");
    assert_eq!(told["stays"][0]["count"], 3);
    for name in ["/one", "/two", "/three"] {
        assert_ne!(members(&system, name)[0], "b", "others lead by now");
        system.json(&["replicate", name, "2"]);
    }
    let (status, told) = drain(&system, "b");
    assert_eq!(
        (status, &told["may_be_stopped"]),
        (0, &json!(true)),
        "{told}"
    );
    system.kill("b");
    assert_eq!(system.balances(["/one", "/two", "/three"]), [4, 4, 4]);
}

#[test]
fn a_node_that_stops_lets_others_lead_first() {
    let mut system = System::start(&["a", "b", "c"]);
    for name in ["/one", "/two"] {
        copied(&system, name, "a", &["--replicas", "3"]);
        deposit(&system, name, 4);
    }
    system.signal("a", Signal::TERM);
    system.ended("a");
    let groups = system.json(&["groups"]);
    for group in groups.as_array().unwrap() {
        assert_ne!(group["members"][0], "a", "{group}");
    }
    assert_eq!(system.balances(["/one", "/two"]), [4, 4]);
}

#[test]
fn a_node_that_gave_its_copy_up_gets_one_again() {
    let mut system = System::start(&["a", "b"]);
    copied(&system, "/alice", "a", &["--replicas", "1"]);
    deposit(&system, "/alice", 3);
    for (from, to) in [("a", "b"), ("b", "a")] {
        let (status, told) = drain(&system, from);
        assert_eq!((status, &told["moved"]), (0, &json!(1)), "{told}");
        assert_eq!(members(&system, "/alice"), [to]);
        assert_eq!(objects(&system, from), 0);
        system.ok(&["node", "uncordon", from]);
        deposit(&system, "/alice", 2);
    }
    system.kill("a");
    system.revive("a");
    eventually(LONG, || {
        system.run(&["call", "/alice", "balance"]).1 == "7\n"
    });
}

/// Has somebody deposit 1 who knows nobody yet, when the node that led stands still or is gone.
fn newcomer(gone: bool, deposits: impl FnOnce(&System) + Send) {
    const CONNECTING: Duration = Duration::from_secs(5);
    const FINDS_OUT: Duration = Duration::from_millis(500);
    let mut system = System::with_lease(&["a", "b", "c"], "3s");
    copied(&system, "/bank/x", "a", &["--replicas", "3"]);
    assert_eq!(deposit(&system, "/bank/x", 100).trim(), "100");
    if gone {
        // Nobody leads before the newcomer has found that out.
        let others = ["b", "c"];
        for node in others {
            system.freeze(node);
        }
        system.kill("a");
        std::thread::scope(|scope| {
            let deposits = scope.spawn(|| deposits(&system));
            let begun = Instant::now();
            while begun.elapsed() < FINDS_OUT && !deposits.is_finished() {
                std::thread::sleep(Duration::from_millis(10));
            }
            for node in others {
                system.signal(node, Signal::CONT);
            }
            deposits.join().unwrap();
        });
    } else {
        system.freeze("a");
        let begun = Instant::now();
        deposits(&system);
        // It does not wait for the end of that attempt: another copy leads after the lease, and
        // the binder is asked meanwhile.
        let took = begun.elapsed();
        assert!(took < CONNECTING, "{took:?}");
    }
    assert_ne!(members(&system, "/bank/x")[0], "a", "another one leads");
    assert_eq!(system.balances(["/bank/x"]), [101]);
}

fn command(system: &System) {
    assert_eq!(deposit(system, "/bank/x", 1).trim(), "101");
}

fn client(system: &System) {
    let called = async {
        let client = Client::connect(system.naming.clone()).await?;
        let entry = client.naming()?.lookup(&client, "/bank/x").await.unwrap();
        let account = Account::from_uid(entry.object);
        Ok::<_, SystemError>(account.deposit(&client, 1).await.unwrap())
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    assert_eq!(runtime.block_on(called).unwrap(), 101);
}

#[test]
fn a_command_is_served_when_the_first_leader_stands_still() {
    newcomer(false, command);
}

#[test]
fn a_client_is_served_when_the_first_leader_stands_still() {
    newcomer(false, client);
}

#[test]
fn a_command_is_served_when_the_first_leader_is_gone() {
    newcomer(true, command);
}

#[test]
fn a_client_is_served_when_the_first_leader_is_gone() {
    newcomer(true, client);
}
