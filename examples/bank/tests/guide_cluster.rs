//! The test of the guide to testing that needs a cluster.
//!
//! `guide.rs` sees to it that the guide shows what is here.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::time::Duration;

use bank::{Account, AccountServant, account};
use partha::testkit::{Cluster, wait_until};
use partha::{ActionOptions, Client, SystemError};

const PATIENCE: Duration = Duration::from_secs(30);

async fn transfer(client: &Client, from: &Account, to: &Account, cents: i64) -> bool {
    let options = ActionOptions::new().deadline(Duration::from_secs(1));
    let moved = client.action_with(options, async |a| {
        let failed = |error: &dyn std::fmt::Display| SystemError::servant(error.to_string());
        from.withdraw(a, cents)
            .await
            .map_err(|error| failed(&error))?;
        to.deposit(a, cents).await.map_err(|error| failed(&error))
    });
    moved.await.is_ok()
}

#[tokio::test]
async fn money_is_moved_or_it_is_not() {
    let mut cluster = Cluster::new()
        .nodes(2)
        .class(|| account::class(AccountServant::default()))
        .start()
        .await
        .unwrap();
    let client = cluster.client();
    let (alice, bob) = ("Alice".to_owned(), "Bob".to_owned());
    let alice = Account::create(&client, &cluster.at("a"), &alice)
        .await
        .unwrap();
    let bob = Account::create(&client, &cluster.at("b"), &bob)
        .await
        .unwrap();
    alice.deposit(&client, 1000).await.unwrap();

    for _ in 0..4 {
        match cluster.random().below(3) {
            // Whoever decides cannot reach the other.
            0 => cluster.partition("a", "b"),
            // What the node says does not arrive: answers are lost.
            1 => cluster.silence("b", "client"),
            _ => {}
        }
        transfer(&client, &alice, &bob, 10).await;
        if cluster.random().below(2) == 0 {
            cluster.restart("b").await.unwrap();
        }
        cluster.heal();
        // Locks of what was begun are given back, and the sum is what it was.
        let sum = async || {
            let long = client.call().deadline(PATIENCE);
            let (a, b) = (alice.balance(&long).await, bob.balance(&long).await);
            matches!((a, b), (Ok(a), Ok(b)) if a + b == 1000)
        };
        wait_until(sum, PATIENCE).await;
    }
    cluster.stop().await.unwrap();
}
