//! `partha move` of objects with copies: another copy comes to lead.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use bank::Account;
use common::LONG;
use common::shell::Shell;
use common::system::System;
use partha::{ActionOptions, Client, NodeId, Uid};
use rustix::process::Signal;
use serde_json::json;
use test_support::eventually;
use tokio::task::JoinHandle;

const POLICIES: [&str; 3] = ["passive", "cohort", "active"];

/// An account with three copies of four nodes; the nodes that have them.
fn copied(system: &System, name: &str, policy: &str) -> Vec<String> {
    system.json(&[
        "create",
        "bank.Account",
        name,
        r#"{"owner": "alice"}"#,
        "--node",
        "a",
        "--replicas",
        "3",
        "--policy",
        policy,
    ]);
    eventually(LONG, || members(system, name).len() == 3);
    members(system, name)
}

/// The nodes of its copies, the leader first.
fn members(system: &System, name: &str) -> Vec<String> {
    let told = system.json(&["describe", name]);
    let members = told["members"].as_array().unwrap().iter();
    members.map(|it| it.as_str().unwrap().to_owned()).collect()
}

fn balance(system: &System, name: &str) -> String {
    system.ok(&["call", name, "balance"]).trim().to_owned()
}

#[test]
fn another_copy_leads_when_nothing_is_in_use() {
    let system = System::start(&["a", "b", "c", "d"]);
    for policy in POLICIES {
        let name = format!("/{policy}");
        let name = name.as_str();
        let before = copied(&system, name, policy);
        let next = before[1].as_str();
        let told = system.json(&["move", name, next]);
        assert_eq!(
            (&told["from"], &told["to"]),
            (&json!("a"), &json!(next)),
            "{policy}"
        );
        let now = members(&system, name);
        assert_eq!(now, [next, "a", before[2].as_str()], "{policy}");
        // Not the node that made it, though that has a copy.
        let described = system.json(&["describe", name]);
        assert_eq!(described["node"], json!(next), "{policy}");
        // Again: it is there, and its view stays.
        let again = system.json(&["move", name, next]);
        assert_eq!(again["from"], json!(next), "{policy}");
        let once_more = system.json(&["move", name, next]);
        assert_eq!(again["moves"], once_more["moves"], "{policy}");

        // What an action has of it is waited for, and is not undone.
        let mut shell = Shell::start(&system);
        shell.begin();
        let deposit = format!(r#"{name}.deposit {{"amount": 10}}"#);
        assert_eq!(shell.ask(&deposit), "10", "{policy}");
        let (status, err) = system.fails(&["move", name, "a", "--wait", "1s"]);
        assert_eq!(status, 1, "{err}");
        assert!(err.contains("in use"), "{err}");
        assert_eq!(shell.ask(&deposit), "20", "{policy}");
        assert!(shell.ask("commit").starts_with("committed"), "{policy}");
        system.json(&["move", name, "a"]);
        assert_eq!(members(&system, name)[0], "a", "{policy}");
        assert_eq!(balance(&system, name), "20", "{policy}");
    }
}

#[test]
fn a_copy_that_does_not_answer_is_not_let_lead() {
    let system = System::start(&["a", "b", "c", "d"]);
    let before = copied(&system, "/alice", "cohort");
    system.freeze(&before[1]);
    let (status, err) = system.fails(&["move", "/alice", &before[1], "--wait", "1s"]);
    assert_eq!(status, 1, "{err}");
    assert!(err.contains("does not answer"), "{err}");
    assert_eq!(balance(&system, "/alice"), "0");
    system.signal(&before[1], Signal::CONT);
    assert_eq!(members(&system, "/alice")[0], "a");
}

/// What an action has of an object whose leader is drained is not lost, and not seen to be lost.
#[test]
fn a_drain_waits_for_what_an_action_has() {
    let system = System::start(&["a", "b", "c", "d"]);
    copied(&system, "/alice", "passive");
    let mut shell = Shell::start(&system);
    shell.begin();
    let deposit = r#"/alice.deposit {"amount": 100}"#;
    assert_eq!(shell.ask(deposit), "100");
    let drain = ["node", "drain", "a", "--wait", "1s", "--patience", "2s"];
    let (status, out, err) = system.run(&drain);
    assert_ne!(status, 0, "{out}{err}");
    assert_eq!(members(&system, "/alice")[0], "a");
    assert_eq!(shell.ask("/alice.balance"), "100");
    assert_eq!(shell.ask(deposit), "200");
    assert!(shell.ask("commit").starts_with("committed"));
    system.ok(&["node", "drain", "a"]);
    assert_ne!(members(&system, "/alice")[0], "a");
    assert_eq!(balance(&system, "/alice"), "200");
}

/// A node that stops waits for actions, and not for ever: one that has lost what it has done can
/// only abort, and is never told of a state without that.
#[test]
fn an_action_hears_that_its_work_is_lost_where_a_node_stops() {
    let mut system = System::start(&["a", "b", "c", "d"]);
    copied(&system, "/alice", "passive");
    let mut shell = Shell::start(&system);
    shell.begin();
    assert_eq!(shell.ask(r#"/alice.deposit {"amount": 100}"#), "100");
    system.signal("a", Signal::TERM);
    let said = shell.ask("/alice.balance");
    let hears = ["can only abort", "shutting down"];
    let told = hears.iter().any(|what| said.contains(what));
    assert!(told || said == "100", "{said}");
    // It is not asked for until the call's time is over.
    assert!(!said.contains("gave up"), "{said}");
    system.ended("a");
    eventually(LONG, || system.json(&["groups"])[0]["members"][0] != "a");
    let said = shell.ask("/alice.balance");
    assert!(said.starts_with("error"), "{said}");
    assert_eq!(balance(&system, "/alice"), "0");
}

/// A leader that stood still comes back, and its clients have not given it up. What an action has
/// done there is gone, and it is never told of the next leader's state, which is without that.
///
/// So it is with two copies, of which one is left, and where the client had used the object before
/// it had copies.
#[test]
fn an_action_hears_that_its_leader_was_replaced() {
    let mut system = System::with_lease(&["b", "c", "d"], "1s");
    system.add_patient("a", "30s");
    for (name, copies) in [("/alice", "3"), ("/bob", "2")] {
        system.account(name, "a", 1);
        let mut shell = Shell::start(&system);
        assert_eq!(shell.ask(&format!("{name}.balance")), "1");
        system.ok(&["replicate", name, copies, "--policy", "passive"]);
        let leader = || members(&system, name)[0].clone();
        assert_eq!(leader(), "a");
        shell.begin();
        let deposit = format!(r#"{name}.deposit {{"amount": 100}}"#);
        assert_eq!(shell.ask(&deposit), "101");
        system.freeze("a");
        let groups = || system.json(&["groups"]);
        let led_by_a = |groups: &serde_json::Value| {
            let mut groups = groups.as_array().unwrap().iter();
            groups.any(|it| it["name"] == name && it["members"][0] == "a")
        };
        eventually(LONG, || !led_by_a(&groups()));
        system.signal("a", Signal::CONT);
        // This one may have come before it knew that it leads no more.
        let said = shell.ask(&format!("{name}.balance"));
        assert!(said.starts_with("error"), "{name}: {said}");
        let said = shell.ask(&format!("{name}.balance"));
        let told = ["was led by", "is undone", "can only abort"];
        assert!(
            told.iter().any(|what| said.contains(what)),
            "{name}: {said}"
        );
        let said = shell.ask("commit");
        assert!(said.contains("abort"), "{name}: {said}");
        assert_eq!(balance(&system, name), "1");
    }
}

/// An account, as a client of the system has it.
async fn bound(system: &System, name: &str) -> (Client, Uid) {
    let client = Client::connect(system.naming.clone()).await.unwrap();
    let naming = client.naming().unwrap();
    let uid = naming.lookup(&client, name).await.unwrap().object;
    (client, uid)
}

/// A call that was refused has left nothing where the object was led: its action goes on at the
/// next leader.
#[tokio::test(flavor = "multi_thread")]
async fn an_action_that_was_given_nothing_goes_on_at_the_next_leader() {
    let setting = || {
        let system = System::start(&["a", "b", "c"]);
        copied(&system, "/alice", "passive");
        let next = members(&system, "/alice")[1].clone();
        (system, next)
    };
    let (system, next) = tokio::task::spawn_blocking(setting).await.unwrap();
    let (client, uid) = bound(&system, "/alice").await;
    let account = Account::from_uid(uid);
    let holder = client.begin();
    account.deposit(&holder, 1).await.unwrap();
    let action = client.begin();
    let short = action.call().deadline(Duration::from_secs(1));
    let refused = account.deposit(&short, 10).await.unwrap_err();
    assert!(refused.to_string().contains("lock time-out"), "{refused}");
    holder.commit().await.unwrap();

    let nodes = client.locator().nodes(&client).await.unwrap();
    let next = nodes.iter().find(|node| node.name == next).unwrap();
    let next = NodeId(next.node);
    client.move_object(uid, next, LONG).await.unwrap();
    assert_eq!(account.deposit(&action, 100).await.unwrap(), 101);
    action.commit().await.unwrap();
    assert_eq!(account.balance(&client).await.unwrap(), 101);
    // What runs the daemons waits for them when it goes.
    let gone = tokio::task::spawn_blocking(move || drop(system));
    gone.await.unwrap();
}

/// Waits until some more has been paid, by all.
async fn goes_on(paid: &AtomicI64, payers: &[JoinHandle<()>], policy: &str) {
    let (seen, begun) = (paid.load(Ordering::Relaxed), Instant::now());
    while paid.load(Ordering::Relaxed) < seen + 8 {
        assert!(begun.elapsed() < LONG, "{policy}: nobody pays any more");
        assert!(!payers.iter().any(JoinHandle::is_finished), "{policy}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Pays in until it is told to stop, in actions every other time; none may fail.
async fn pay(client: Client, account: Account, paid: Arc<AtomicI64>, stop: Arc<AtomicBool>) {
    let mut turn = 0;
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        if turn % 2 == 0 {
            account.deposit(&client, 1).await.unwrap();
        } else {
            let action = client.begin();
            account.deposit(&action, 1).await.unwrap();
            action.commit().await.unwrap();
        }
        paid.fetch_add(1, Ordering::Relaxed);
    }
}

/// Calls and actions of others go on while the lead goes around, and none of them fails.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_fails_while_the_lead_goes_around() {
    const MOVES: usize = 12;
    let system = tokio::task::spawn_blocking(|| System::start(&["a", "b", "c", "d"]));
    let mut system = system.await.unwrap();
    for policy in POLICIES {
        let name = format!("/{policy}");
        let setting = move || {
            let members = copied(&system, &name, policy);
            (system, name, members)
        };
        let (back, name, members) = tokio::task::spawn_blocking(setting).await.unwrap();
        let (client, uid) = bound(&back, &name).await;
        let (paid, stop) = (Arc::<AtomicI64>::default(), Arc::<AtomicBool>::default());
        let payers = (0..4).map(|_| {
            let account = Account::from_uid(uid);
            tokio::spawn(pay(client.clone(), account, paid.clone(), stop.clone()))
        });
        let payers: Vec<_> = payers.collect();
        let nodes = client.locator().nodes(&client).await.unwrap();
        let node = |name: &str| {
            let entry = nodes.iter().find(|entry| entry.name == name).unwrap();
            NodeId(entry.node)
        };
        let mut before = 0;
        for turn in 1..=MOVES {
            let to = node(&members[turn % members.len()]);
            let view = client.move_object(uid, to, LONG).await.unwrap();
            assert!(view > before, "{policy}: view {view} after {before}");
            before = view;
            goes_on(&paid, &payers, policy).await;
        }
        stop.store(true, Ordering::Relaxed);
        for payer in payers {
            payer.await.unwrap();
        }
        let paid = paid.load(Ordering::Relaxed);
        let ended = move || {
            assert_eq!(balance(&back, &name), paid.to_string());
            back
        };
        system = tokio::task::spawn_blocking(ended).await.unwrap();
    }
}

/// Transfers go on while leaders are stopped and begun again, and none is given up.
#[tokio::test(flavor = "multi_thread")]
async fn no_transfer_is_given_up_while_nodes_stop() {
    const STOPS: usize = 3;
    let system = tokio::task::spawn_blocking(|| System::start(&["a", "b", "c", "d"]));
    let mut system = system.await.unwrap();
    for policy in POLICIES {
        let name = format!("/{policy}");
        let of = name.clone();
        let setting = move || {
            copied(&system, &of, policy);
            system
        };
        system = tokio::task::spawn_blocking(setting).await.unwrap();
        let (client, uid) = bound(&system, &name).await;
        let (paid, stop) = (Arc::<AtomicI64>::default(), Arc::<AtomicBool>::default());
        let payers = (0..3).map(|_| {
            let (client, paid, stop) = (client.clone(), paid.clone(), stop.clone());
            let account = Account::from_uid(uid);
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let options = ActionOptions::new().tries(100);
                    let payment = client.action_retry_with(options, async |a| {
                        account.deposit(a, 1).await?;
                        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
                    });
                    payment.await.unwrap();
                    paid.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        let payers: Vec<_> = payers.collect();
        for _ in 0..STOPS {
            let of = name.clone();
            let stopping = move || {
                let leader = members(&system, &of)[0].clone();
                system.signal(&leader, Signal::TERM);
                system.ended(&leader);
                system.revive(&leader);
                eventually(LONG, || members(&system, &of).len() == 3);
                system
            };
            system = tokio::task::spawn_blocking(stopping).await.unwrap();
            goes_on(&paid, &payers, policy).await;
        }
        stop.store(true, Ordering::Relaxed);
        for payer in payers {
            payer.await.unwrap();
        }
        let paid = paid.load(Ordering::Relaxed);
        let ended = move || {
            assert_eq!(balance(&system, &name), paid.to_string());
            system
        };
        system = tokio::task::spawn_blocking(ended).await.unwrap();
    }
}
