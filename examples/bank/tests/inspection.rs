//! What a node tells of its actions and locks, page by page.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::collections::BTreeSet;

use common::Bank;
use partha::system::{ActionOutcome, ActionPhase, LockMode};
use partha::{ErrorKind, Uid};

/// Actions that are open at the same time, each with locks at both shards of a node.
const ACTIONS: usize = 17;
const ACCOUNTS_EACH: usize = 6;

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_actions_and_locks_meet_each_once() {
    let bank = Bank::open().await;
    let client = &bank.client;
    let mut open = Vec::new();
    let mut locked = BTreeSet::new();
    for _ in 0..ACTIONS {
        let action = client.begin();
        for _ in 0..ACCOUNTS_EACH {
            let account = bank.account("a").await;
            account.deposit(&action, 1).await.unwrap();
            locked.insert(account.uid());
        }
        open.push(action);
    }
    let handle = client.node_at(&bank.a.address().to_string()).await.unwrap();
    let manager = handle.manager();

    let (mut seen, mut parts, mut after) = (BTreeSet::new(), 0, Uid::NIL);
    loop {
        let page = manager.actions(client, after, 5).await.unwrap();
        let Some(last) = page.last() else { break };
        let of_page: BTreeSet<Uid> = page.iter().map(|part| part.path.actions[0]).collect();
        assert!(of_page.len() <= 5);
        assert!(of_page.is_disjoint(&seen), "all parts are on one page");
        assert!(page.iter().all(|part| part.phase == ActionPhase::Active));
        let locks: u32 = page.iter().map(|part| part.locks).sum();
        assert_eq!(locks as usize, of_page.len() * ACCOUNTS_EACH);
        after = last.path.actions[0];
        parts += page.len();
        seen.extend(of_page);
    }
    let expected: BTreeSet<Uid> = open.iter().map(|action| action.id().uid()).collect();
    assert_eq!(seen, expected);
    assert!(parts > ACTIONS, "some have parts at both shards");

    let (mut seen, mut after) = (BTreeSet::new(), Uid::NIL);
    loop {
        let page = manager.locks(client, after, 7, false).await.unwrap();
        let Some(last) = page.last() else { break };
        after = last.object;
        for lock in page {
            if locked.contains(&lock.object) {
                assert_eq!(lock.class, bank::Account::CLASS.0);
                assert_eq!(lock.holders[0].mode, LockMode::Write);
                assert!(seen.insert(lock.object), "met twice");
            }
        }
    }
    assert_eq!(seen, locked);
    assert_eq!(
        manager.locks(client, Uid::NIL, 100, true).await.unwrap(),
        []
    );
    for action in open {
        action.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_forbids_it_takes_no_part_in() {
    let bank = Bank::open().await;
    let (account, client) = (bank.account("a").await, &bank.client);
    let handle = client.node_at(&bank.a.address().to_string()).await.unwrap();
    let manager = handle.manager();
    let action = client.begin();
    let id = action.id().uid();
    // Asked in passing, the node says what it knows, and that changes nothing.
    let unknown = manager.outcome(client, id, false).await.unwrap();
    assert_eq!(unknown, ActionOutcome::Unknown);
    assert_eq!(account.deposit(&action, 1).await.unwrap(), 1);
    let open = manager.outcome(client, id, true).await.unwrap();
    assert_eq!(open, ActionOutcome::InFlight);
    action.commit().await.unwrap();
    let committed = manager.outcome(client, id, true).await.unwrap();
    assert_eq!(committed, ActionOutcome::Committed);

    // Told that it is the last one to be asked, it keeps to what it has said.
    let action = client.begin();
    let id = action.id().uid();
    let aborted = manager.outcome(client, id, true).await.unwrap();
    assert_eq!(aborted, ActionOutcome::Aborted);
    let refused = account.balance(&action).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ActionAborted, "{refused}");
    assert!(action.commit().await.is_err());
    assert_eq!(account.balance(client).await.unwrap(), 1);
}
