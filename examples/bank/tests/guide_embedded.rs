//! The test of the guide to testing that needs one node and no network.
//!
//! `guide.rs` sees to it that the guide shows what is here.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::time::Duration;

use bank::{Account, AccountServant, account};
use partha::{Node, Place};

#[tokio::test]
async fn what_is_paid_in_is_there() {
    let node = Node::embedded().class(account::class(AccountServant::default()));
    let node = node.start().await.unwrap();
    let client = node.client();
    let owner = "Alice".to_owned();
    let alice = Account::create(client, &Place::Any, &owner).await.unwrap();
    alice.deposit(client, 100).await.unwrap();
    // As if nobody had used it for a while: the next call brings it back.
    let uid = alice.uid();
    drop(alice);
    node.evict(uid);
    let alice = Account::from_uid(uid);
    assert_eq!(alice.balance(client).await.unwrap(), 100);
    node.shutdown(Duration::from_secs(1)).await.unwrap();
}
