//! Reads that any copy may answer: the nearest one does, and none is older than what was told
//! before it began, whoever writes, moves money in actions, or is stopped meanwhile.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use bank::{Account, AuditLog};
use common::LONG;
use common::system::System;
use partha::{ActionOptions, Client, Node, Place, Replication, SystemError};
use rustix::process::Signal;
use test_support::temp_dir;

const ZONES: [(&str, &[&str]); 3] = [("a", &["zone=x"]), ("b", &["zone=y"]), ("c", &["zone=z"])];

async fn start() -> System {
    let started = tokio::task::spawn_blocking(|| System::labelled(&ZONES));
    started.await.unwrap()
}

/// A client that is near one of the nodes.
async fn client(system: &System, zone: &str) -> Client {
    let builder = Client::builder().naming(system.naming.clone());
    builder.label("zone", zone).connect().await.unwrap()
}

/// An object led at node `a`, with copies at all three.
fn at_a() -> Place {
    Place::Named("a".to_owned()).replicated(Replication::passive(3))
}

/// The calls that each node has had so far, by its name.
async fn calls(client: &Client) -> BTreeMap<String, u64> {
    let mut calls = BTreeMap::new();
    for node in client.locator().nodes(client).await.unwrap() {
        let at = client.node_at(&node.addresses[0]).await.unwrap();
        let told = at.manager().statistics(client).await.unwrap();
        calls.insert(node.name, told.calls);
    }
    calls
}

/// The nodes with copies of the only object that has some, the leader first.
fn members(system: &System) -> Vec<String> {
    let groups = system.json(&["groups"]);
    let members = groups[0]["members"].as_array().unwrap().iter();
    members.map(|it| it.as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nearest_copy_answers_and_is_up_to_date() {
    const ROUNDS: u64 = 100;
    let system = start().await;
    let (writer, reader) = (client(&system, "x").await, client(&system, "y").await);
    let account = Account::create(&writer, &at_a(), "alice").await.unwrap();
    let here = Account::from_uid(account.uid());
    // The first one finds out who has copies.
    assert_eq!(here.balance(&reader).await.unwrap(), 0);
    let before = calls(&reader).await;
    for round in 1..=ROUNDS as i64 {
        account.deposit(&writer, 1).await.unwrap();
        assert_eq!(here.balance(&reader).await.unwrap(), round);
    }
    let after = calls(&reader).await;
    let more = |node: &str| after[node] - before[node];
    assert!(more("b") >= ROUNDS, "{before:?} {after:?}");
    // The leader has the deposits.
    assert!(more("a") < ROUNDS + ROUNDS / 2, "{before:?} {after:?}");
    assert!(more("c") < ROUNDS / 2, "{before:?} {after:?}");

    // In an action it is the leader who is asked: it has what the action has changed.
    let seen = reader.action(async |action| {
        let deposited = here.deposit(action, 5).await;
        deposited.map_err(|error| SystemError::servant(error.to_string()))?;
        here.balance(action).await
    });
    assert_eq!(seen.await.unwrap(), ROUNDS as i64 + 5);
    assert_eq!(here.balance(&reader).await.unwrap(), ROUNDS as i64 + 5);
}

/// A process that has a copy itself asks nobody else but the leader whether it is up to date.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_with_a_copy_reads_its_own() {
    const ROUNDS: u64 = 100;
    let system = start().await;
    let folder = temp_dir("own");
    let builder = Node::builder()
        .name("own")
        .data_dir(folder.path())
        .shards(2)
        .naming(system.naming.clone())
        .label("zone", "q");
    let node = bank::node::start(builder).await.unwrap();
    node.registered().await;
    let writer = client(&system, "x").await;
    let here = Replication::passive(2).on("zone", "q");
    let place = Place::Named("a".to_owned()).replicated(here);
    let account = Account::create(&writer, &place, "alice").await.unwrap();
    let own = Account::from_uid(account.uid());
    assert_eq!(own.balance(node.client()).await.unwrap(), 0);
    let before = calls(&writer).await;
    for round in 1..=ROUNDS as i64 {
        account.deposit(&writer, 1).await.unwrap();
        assert_eq!(own.balance(node.client()).await.unwrap(), round);
    }
    let after = calls(&writer).await;
    let more = |node: &str| after[node] - before[node];
    assert!(more("own") >= ROUNDS, "{before:?} {after:?}");
    assert!(more("a") < ROUNDS + ROUNDS / 2, "{before:?} {after:?}");
    // When the other one is gone it is the one that leads.
    let system = tokio::task::spawn_blocking(move || {
        let mut system = system;
        system.kill("a");
        system
    });
    let _system = system.await.unwrap();
    let begun = Instant::now();
    loop {
        let call = node.client().call().deadline(Duration::from_secs(5));
        match own.balance(&call).await {
            Ok(balance) => break assert_eq!(balance, ROUNDS as i64),
            Err(error) => assert!(begun.elapsed() < LONG, "{error}"),
        }
    }
    node.shutdown(LONG).await.unwrap();
}

/// Whoever reads sees no less than what was acknowledged when it began, nor than was read before.
#[tokio::test(flavor = "multi_thread")]
async fn reads_at_all_copies_are_right_while_others_write() {
    const DEPOSITS: i64 = 400;
    let system = start().await;
    let writer = client(&system, "x").await;
    let account = Account::create(&writer, &at_a(), "alice").await.unwrap();
    let log = AuditLog::create(&writer, &at_a()).await.unwrap();
    let (acknowledged, noted) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)));
    let stop = Arc::new(AtomicBool::new(false));
    let mut readers = Vec::new();
    for zone in ["x", "y", "z", "y"] {
        let client = client(&system, zone).await;
        let (account, log) = (account.uid(), log.uid());
        let (acknowledged, noted) = (acknowledged.clone(), noted.clone());
        let stop = stop.clone();
        readers.push(tokio::spawn(async move {
            let (account, log) = (Account::from_uid(account), AuditLog::from_uid(log));
            let (mut last, mut reads) = (0, 0_u64);
            while !stop.load(Ordering::Relaxed) {
                let owed = acknowledged.load(Ordering::SeqCst);
                let statement = account.statement(&client).await.unwrap();
                assert!(statement.balance >= owed.max(last), "{statement:?} {owed}");
                assert_eq!(statement.balance, statement.count as i64);
                last = statement.balance;
                // Rows are of one moment, too.
                let owed = noted.load(Ordering::SeqCst);
                let lines = log.lines(&client, 0, 10_000).await.unwrap();
                assert!(lines.len() as i64 >= owed, "{} {owed}", lines.len());
                for (index, line) in lines.iter().enumerate() {
                    assert_eq!(line.number, index as u64 + 1);
                }
                reads += 1;
            }
            reads
        }));
    }
    for number in 1..=DEPOSITS {
        account.deposit(&writer, 1).await.unwrap();
        acknowledged.store(number, Ordering::SeqCst);
        if number % 4 == 0 {
            let reference = format!("line {number}");
            let note = log.note(&writer, &reference, &account, &account, number);
            note.await.unwrap();
            noted.fetch_add(1, Ordering::SeqCst);
        }
    }
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        assert!(reader.await.unwrap() > 0);
    }
}

/// What an action has done is told before it is in the logs of all that it has changed; nobody
/// reads there what was before.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_transfer_did_is_read_at_all_copies_as_soon_as_it_is_told() {
    const TRANSFERS: i64 = 60;
    let system = start().await;
    let teller = client(&system, "x").await;
    let mut accounts = Vec::new();
    for (owner, node) in [("alice", "a"), ("bob", "b")] {
        let place = Place::Named(node.to_owned()).replicated(Replication::passive(3));
        let account = Account::create(&teller, &place, owner).await.unwrap();
        account.deposit(&teller, TRANSFERS).await.unwrap();
        accounts.push(account);
    }
    let mut readers = Vec::new();
    for zone in ["x", "y", "z"] {
        readers.push(client(&system, zone).await);
    }
    for number in 1..=TRANSFERS {
        let options = ActionOptions::new().deadline(LONG);
        let done = teller.action_retry_with(options, async |action| {
            let moved = async |account: &Account, amount: i64| {
                let moved = match amount > 0 {
                    true => account
                        .deposit(action, amount)
                        .await
                        .map_err(|e| e.to_string()),
                    false => account
                        .withdraw(action, -amount)
                        .await
                        .map_err(|e| e.to_string()),
                };
                moved.map(drop).map_err(SystemError::servant)
            };
            moved(&accounts[0], -1).await?;
            moved(&accounts[1], 1).await
        });
        done.await.unwrap();
        for reader in &readers {
            let alice = accounts[0].balance(reader).await.unwrap();
            let bob = accounts[1].balance(reader).await.unwrap();
            let expected = (TRANSFERS - number, TRANSFERS + number);
            assert_eq!((alice, bob), expected, "transfer {number}");
        }
    }
}

/// A copy answers only what its leader vouches for: while that one stands still nobody is answered
/// until another leads, and one that wakes up vouches for nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stands_still_lets_nobody_read_what_is_old() {
    let system = start().await;
    let (near_a, near_b) = (client(&system, "x").await, client(&system, "y").await);
    let account = Account::create(&near_b, &at_a(), "alice").await.unwrap();
    let also = Account::from_uid(account.uid());
    account.deposit(&near_b, 7).await.unwrap();
    for _ in 0..3 {
        assert_eq!(account.balance(&near_b).await.unwrap(), 7);
        assert_eq!(also.balance(&near_a).await.unwrap(), 7);
    }
    system.freeze("a");
    let begun = Instant::now();
    loop {
        let call = near_b.call().deadline(Duration::from_secs(2));
        match account.balance(&call).await {
            Ok(balance) => break assert_eq!(balance, 7),
            Err(error) => assert!(begun.elapsed() < LONG, "{error}"),
        }
    }
    let system = tokio::task::spawn_blocking(move || {
        assert_ne!(members(&system)[0], "a", "another one leads");
        system
    });
    let system = system.await.unwrap();
    let begun = Instant::now();
    let id = near_b.new_call_id();
    loop {
        let call = near_b.call().deadline(LONG / 2).again(id);
        match account.deposit(&call, 4).await {
            Ok(balance) => break assert_eq!(balance, 11),
            Err(error) => assert!(begun.elapsed() < LONG, "{error}"),
        }
    }
    system.signal("a", Signal::CONT);
    let begun = Instant::now();
    let mut answers = 0;
    while answers < 50 {
        let call = near_a.call().deadline(Duration::from_secs(2));
        match also.balance(&call).await {
            Ok(balance) => {
                assert_eq!(balance, 11);
                answers += 1;
            }
            Err(error) => assert!(begun.elapsed() < LONG, "{error}"),
        }
    }
}
