//! Cycles of actions over three nodes that are processes: found, named, and broken once.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bank::Account;
use bank::account::DepositError;
use common::LONG;
use common::system::System;
use partha::{Client, ErrorKind, Place, SystemError};
use tokio::sync::Barrier;

/// A cycle over several nodes is looked for after 100 ms, so an idle machine needs a little more.
/// A loaded one may need much more; without detection it would be the lock time-out of 10 s.
const BROKEN_WITHIN: Duration = Duration::from_secs(3);

/// How one member of a cycle ended.
struct Member {
    /// What it was told, if it was the victim.
    refused: Option<SystemError>,
    /// How long its second call took.
    waited: Duration,
}

/// Takes its own account, then, when all have theirs, wants the next one's.
async fn run(client: Client, own: Account, next: Account, all_have: Arc<Barrier>) -> Member {
    let action = client.begin();
    own.withdraw(&action, 5).await.unwrap();
    all_have.wait().await;
    let begun = Instant::now();
    let refused = match next.deposit(&action, 5).await {
        Ok(_) => None,
        Err(DepositError::System(error)) => Some(error),
        Err(error @ DepositError::BadAmount(_)) => panic!("{error}"),
    };
    let waited = begun.elapsed();
    match refused {
        None => action.commit().await.unwrap(),
        Some(_) => action.abort(),
    }
    Member { refused, waited }
}

/// A cycle of so many actions, each of a client of its own: how long it stood.
async fn cycle(system: &System, length: usize) -> Duration {
    let mut clients = Vec::new();
    for _ in 0..length {
        clients.push(Client::connect(system.naming.clone()).await.unwrap());
    }
    let mut accounts = Vec::new();
    for (index, client) in clients.iter().enumerate() {
        let node = ["a", "b", "c"][index % 3].to_owned();
        let account = Account::create(client, &Place::Named(node), "somebody").await;
        let account = account.unwrap();
        account.deposit(client, 100).await.unwrap();
        accounts.push(account);
    }
    let all_have = Arc::new(Barrier::new(length));
    let members = clients.iter().enumerate().map(|(index, client)| {
        let (own, next) = (&accounts[index], &accounts[(index + 1) % length]);
        let member = run(client.clone(), own.clone(), next.clone(), all_have.clone());
        tokio::spawn(member)
    });
    let members: Vec<_> = members.collect();
    let mut victims = Vec::new();
    for member in members {
        let member = tokio::time::timeout(LONG, member).await.unwrap().unwrap();
        if let Some(error) = member.refused {
            victims.push((error, member.waited));
        }
    }
    let [(error, stood)] = victims.as_slice() else {
        panic!(
            "{} victims of a cycle of {length}: {victims:?}",
            victims.len()
        );
    };
    assert_eq!(error.kind(), ErrorKind::Deadlock, "{error}");
    let text = error.to_string();
    for account in &accounts {
        assert!(text.contains(&account.uid().to_string()), "{text}");
    }
    let waits = text.matches(" waits at node ").count();
    assert_eq!(waits, length, "{text}");
    // All others have committed: one account was not paid into, one not paid out of.
    let mut sum = 0;
    for account in &accounts {
        sum += account.balance(&clients[0]).await.unwrap();
    }
    assert_eq!(sum, 100 * length as i64);
    *stood
}

#[tokio::test(flavor = "multi_thread")]
async fn cycles_over_three_nodes_are_broken_at_one_place_and_named() {
    let system = tokio::task::spawn_blocking(|| System::start(&["a", "b", "c"]));
    let system = system.await.unwrap();
    for length in [2, 3, 5] {
        let stood = cycle(&system, length).await;
        println!("a cycle of {length} stood for {} ms", stood.as_millis());
        assert!(
            stood < BROKEN_WITHIN,
            "a cycle of {length} stood for {stood:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_long_in_a_line_is_no_deadlock() {
    let system = tokio::task::spawn_blocking(|| System::start(&["a", "b", "c"]));
    let system = system.await.unwrap();
    let client = Client::connect(system.naming.clone()).await.unwrap();
    let mut accounts = Vec::new();
    for node in ["a", "b", "c"] {
        let place = Place::Named(node.to_owned());
        accounts.push(Account::create(&client, &place, "somebody").await.unwrap());
    }
    // Each has one account and waits for the next; the last one takes its time.
    let last = client.begin();
    accounts[2].deposit(&last, 1).await.unwrap();
    let mut line = Vec::new();
    for index in [1, 0] {
        let client = Client::connect(system.naming.clone()).await.unwrap();
        let (own, next) = (accounts[index].clone(), accounts[index + 1].clone());
        let (sender, has) = tokio::sync::oneshot::channel();
        line.push(tokio::spawn(async move {
            let action = client.begin();
            own.deposit(&action, 1).await.unwrap();
            sender.send(()).unwrap();
            next.deposit(&action, 1).await.unwrap();
            action.commit().await.unwrap();
        }));
        has.await.unwrap();
    }
    // Long enough for probes to go round several times, if there were a way round.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    last.commit().await.unwrap();
    for waiter in line {
        tokio::time::timeout(LONG, waiter).await.unwrap().unwrap();
    }
    let mut balances = Vec::new();
    for account in &accounts {
        balances.push(account.balance(&client).await.unwrap());
    }
    assert_eq!(balances, [1, 2, 2]);
}
