//! Copies of an account at bank nodes that are processes, and are killed.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bank::Account;
use bank::account::DepositError;
use common::LONG;
use common::system::System;
use partha::{Client, Completed, ErrorKind};
use rustix::process::Signal;
use serde_json::json;
use test_support::eventually;

/// Leaders killed one after the other.
const KILLS: usize = 6;
/// Amounts paid in between two of them.
const DEPOSITS: u64 = 20;

/// Pays one cent in, asking again under one id until it is known what became of it; what the
/// account holds then.
async fn deposit(account: &Account, client: &Client) -> i64 {
    let id = client.new_call_id();
    let (begun, mut again) = (Instant::now(), false);
    loop {
        let call = client.call().deadline(Duration::from_secs(5));
        let call = if again { call.again(id) } else { call.id(id) };
        match account.deposit(&call, 1).await {
            Ok(balance) => return balance,
            Err(DepositError::System(error)) => {
                assert!(begun.elapsed() < LONG, "{error}");
                again |= error.completion() != Completed::No;
            }
            Err(error) => panic!("{error}"),
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn leader(system: &System) -> String {
    let groups = system.json(&["groups"]);
    groups[0]["members"][0].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_deposit_is_lost_or_doubled_when_leaders_are_killed() {
    let mut system = tokio::task::spawn_blocking(|| {
        let system = System::with_lease(&["a", "b", "c"], "2s");
        system.account("/bank/copied", "a", 1);
        let copies = system.json(&["replicate", "/bank/copied", "3"]);
        assert_eq!(copies["copies"].as_array().unwrap().len(), 3, "{copies}");
        assert_eq!(copies["copies"][0], "a");
        system
    })
    .await
    .unwrap();
    let client = Client::connect(system.naming.clone()).await.unwrap();
    let naming = client.naming().unwrap();
    let entry = naming.lookup(&client, "/bank/copied").await.unwrap();
    let account = Account::from_uid(entry.object);

    let (mut paid, mut pauses) = (1, Vec::new());
    for _ in 0..KILLS {
        for _ in 0..DEPOSITS {
            paid += 1;
            assert_eq!(deposit(&account, &client).await, paid);
        }
        let (killed, back) = tokio::task::spawn_blocking(move || {
            let killed = leader(&system);
            system.kill(&killed);
            (killed, system)
        })
        .await
        .unwrap();
        system = back;
        let begun = Instant::now();
        paid += 1;
        assert_eq!(deposit(&account, &client).await, paid);
        pauses.push(begun.elapsed());
        system = tokio::task::spawn_blocking(move || {
            assert_ne!(leader(&system), killed);
            system.revive(&killed);
            eventually(LONG, || {
                let groups = system.json(&["groups"]);
                groups[0]["members"].as_array().unwrap().len() == 3
            });
            system
        })
        .await
        .unwrap();
    }
    pauses.sort_unstable();
    let (middle, most) = (pauses[KILLS / 2], pauses[KILLS - 1]);
    println!("from a killed leader to the next deposit: median {middle:?}, at most {most:?}");
    assert_eq!(account.balance(&client).await.unwrap(), paid);
    tokio::task::spawn_blocking(move || {
        let described = system.json(&["describe", "/bank/copied"]);
        assert_eq!(described["wanted"], json!(3), "{described}");
    })
    .await
    .unwrap();
}

/// For so long and a while a copy promises not to take over.
const PROMISED: Duration = Duration::from_millis(2_500);

/// Both wait until a copy that stands still is back; by then the leader has to hear first that no
/// other one leads.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_asked_for_again_while_copies_are_waited_for_is_answered() {
    let system = tokio::task::spawn_blocking(|| {
        let system = System::with_lease(&["a", "b"], "60s");
        let account = ["create", "bank.Account", "/copied", r#"{"owner": "x"}"#];
        let copies = ["--node", "a", "--replicas", "2", "--policy", "cohort"];
        system.ok(&[&account[..], &copies].concat());
        Arc::new(system)
    });
    let system = system.await.unwrap();
    let client = Client::connect(system.naming.clone()).await.unwrap();
    let naming = client.naming().unwrap();
    let entry = naming.lookup(&client, "/copied").await.unwrap();
    let account = Account::from_uid(entry.object);
    assert_eq!(account.balance(&client).await.unwrap(), 0, "it is found");
    let frozen = system.clone();
    let freezing = tokio::task::spawn_blocking(move || frozen.freeze("b"));
    freezing.await.unwrap();
    let id = client.new_call_id();
    let call = client.call().id(id).deadline(Duration::from_millis(300));
    let Err(DepositError::System(error)) = account.deposit(&call, 1).await else {
        panic!("not all copies have it");
    };
    let said = (error.kind(), error.completion());
    assert_eq!(said, (ErrorKind::Deadline, Completed::Maybe), "{error}");

    let again = tokio::spawn({
        let (client, account) = (client.clone(), account.clone());
        async move {
            let call = client.call().again(id).deadline(LONG);
            account.deposit(&call, 1).await
        }
    });
    // It waits for the same answer.
    let node = system.clone();
    let joined = move || {
        let told = node.json(&["stats", "a"]);
        told["duplicates"].as_u64() == Some(1)
    };
    let joined = tokio::task::spawn_blocking(move || eventually(LONG, joined));
    joined.await.unwrap();
    // The leader hears that the copy has it when what that promised with it is over.
    let node = system.clone();
    let late = tokio::task::spawn_blocking(move || {
        node.freeze("a");
        node.signal("b", Signal::CONT);
        thread::sleep(PROMISED);
        node.signal("a", Signal::CONT);
    });
    late.await.unwrap();
    assert_eq!(again.await.unwrap().unwrap(), 1);
    assert_eq!(account.balance(&client).await.unwrap(), 1);
}
