//! Accounts that all copies execute: the policy active.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bank::account::{self, DepositError, WithdrawError};
use bank::{Account, Statement, Watcher};
use common::LONG;
use partha::system::{CopyDescription, CopyHash};
use partha::{Client, Context, Node, NodeBuilder, NodeId, Place, Replication, Result};
use test_support::{TempDir, temp_dir};

const NODES: [&str; 3] = ["a", "b", "c"];

/// Three nodes with accounts.
struct System {
    _folder: TempDir,
    _services: [Node; 2],
    nodes: Vec<Node>,
    client: Client,
}

impl System {
    async fn start(with_class: impl Fn(NodeBuilder) -> NodeBuilder) -> Self {
        let folder = temp_dir("active");
        let builder = |name: &str| {
            let dir = folder.path().join(name);
            Node::builder().name(name).data_dir(dir).shards(1)
        };
        let naming = partha_naming::start(builder("naming")).await.unwrap();
        let address = naming.address().to_string();
        let binder = builder("binder").naming(&address);
        let binder = partha_binder::start(binder, Vec::new(), Duration::from_secs(10));
        let binder = binder.await.unwrap();
        let mut nodes = Vec::new();
        for name in NODES {
            let node = with_class(builder(name).naming(&address)).start();
            let node = node.await.unwrap();
            node.registered().await;
            nodes.push(node);
        }
        Self {
            client: Client::connect(address).await.unwrap(),
            nodes,
            _services: [naming, binder],
            _folder: folder,
        }
    }

    async fn account(&self) -> Account {
        let place = Place::Named("a".to_owned()).replicated(Replication::active(3));
        Account::create(&self.client, &place, "alice")
            .await
            .unwrap()
    }

    /// What each node says of its copy; none if one of them is just being made.
    async fn copies(&self, account: &Account) -> Option<Vec<(CopyDescription, CopyHash)>> {
        let mut all = Vec::new();
        for node in &self.nodes {
            let address = node.address().to_string();
            let handle = self.client.node_at(&address).await.unwrap();
            let (manager, uid) = (handle.manager(), account.uid());
            let copies = manager.copies(&self.client, &[uid]).await.unwrap();
            let hash = manager.copy_hash(&self.client, uid).await.ok()?;
            all.push((copies.into_iter().next()?, hash));
        }
        Some(all)
    }

    /// The same when all have installed as much.
    async fn level(&self, account: &Account) -> Vec<(CopyDescription, CopyHash)> {
        let begun = Instant::now();
        loop {
            let copies = self.copies(account).await;
            if let Some(copies) = &copies
                && copies
                    .iter()
                    .all(|(_, hash)| hash.installed == copies[0].1.installed)
            {
                return copies.clone();
            }
            assert!(begun.elapsed() < LONG, "{copies:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_copies_execute_and_come_to_the_same() {
    let system =
        System::start(|node| node.class(account::class(bank::AccountServant::default()))).await;
    let account = system.account().await;
    // This one may come to copies that take in the whole log.
    account.deposit(&system.client, 1_000).await.unwrap();
    let before = system.level(&account).await;
    for amount in 1..=20 {
        account.deposit(&system.client, amount).await.unwrap();
    }
    let after = system.level(&account).await;
    for ((copy, hash), (earlier, _)) in after.iter().zip(before) {
        assert_eq!(hash.hash, after[0].1.hash, "{after:?}");
        let executed = if copy.leads { 0 } else { 20 };
        assert_eq!(copy.executed - earlier.executed, executed, "{after:?}");
        assert_eq!(copy.differences, 0, "{after:?}");
    }
    assert_eq!(account.balance(&system.client).await.unwrap(), 1_210);
}

/// Does not do twice what it does once.
#[derive(Clone, Default)]
struct Fickle {
    /// Counted over all copies in this process.
    deposits: Arc<AtomicI64>,
    /// Each one of so many has something added; none if 0.
    each: i64,
}

impl account::Servant for Fickle {
    fn new(&self, owner: String) -> account::State {
        account::State {
            owner,
            balance: 0,
            count: 0,
        }
    }

    async fn deposit(
        &self,
        state: &mut account::State,
        _cx: &Context,
        amount: i64,
    ) -> Result<i64, DepositError> {
        state.count += 1;
        state.balance += amount;
        let number = self.deposits.fetch_add(1, Ordering::Relaxed);
        if self.each > 0 && number % self.each == 0 {
            state.balance += 1;
        }
        Ok(state.balance)
    }

    async fn withdraw(
        &self,
        state: &mut account::State,
        cx: &Context,
        amount: i64,
    ) -> Result<i64, WithdrawError> {
        // The time and chance of the call: the same wherever it is executed.
        let by_chance = i64::try_from(cx.random() % 1_000).unwrap_or(0);
        state.balance = cx.now().micros() - amount * by_chance;
        Ok(state.balance)
    }

    async fn balance(&self, state: &account::State, _cx: &Context) -> Result<i64> {
        Ok(state.balance)
    }

    async fn statement(&self, _state: &account::State, _cx: &Context) -> Result<Statement> {
        unreachable!("nobody asks")
    }

    async fn watch(&self, _state: &account::State, _cx: &Context, _: Watcher) -> Result<()> {
        unreachable!("nobody asks")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_comes_to_something_else_says_so_and_takes_what_the_leader_has() {
    let fickle = Fickle {
        each: 10,
        ..Fickle::default()
    };
    let system = System::start(|node| node.class(account::class(fickle.clone()))).await;
    let account = system.account().await;
    let mut last = 0;
    for _ in 0..10 {
        last = match account.deposit(&system.client, 5).await {
            Ok(balance) => balance,
            // Who led came to something else than both others, and has just been replaced.
            Err(DepositError::System(_)) => account.balance(&system.client).await.unwrap(),
            Err(error) => panic!("{error}"),
        };
    }
    view_is(&system, &account, |_, members| members.len() == 3).await;
    let copies = system.level(&account).await;
    let hashes: Vec<_> = copies.iter().map(|(_, hash)| &hash.hash).collect();
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{copies:?}");
    let differences: u64 = copies.iter().map(|(copy, _)| copy.differences).sum();
    assert!(differences > 0, "{copies:?}");
    assert_eq!(account.balance(&system.client).await.unwrap(), last);
}

/// A system in which one node, by its number, comes to something else than the others.
async fn with_a_wrong_one(wrong: usize) -> System {
    let begun = AtomicUsize::new(0);
    System::start(|node| {
        let is_wrong = begun.fetch_add(1, Ordering::Relaxed) == wrong;
        let fickle = Fickle {
            each: i64::from(is_wrong),
            ..Fickle::default()
        };
        node.class(account::class(fickle))
    })
    .await
}

async fn view(system: &System, account: &Account) -> (u64, Vec<NodeId>) {
    let (client, locator) = (&system.client, system.client.locator());
    let views = locator.views(client, &[account.uid()], LONG).await.unwrap();
    let members = views[0].members.iter().map(|node| NodeId(*node));
    (views[0].number, members.collect())
}

/// Pays in again and again until the view is as wanted, and answers how much. What copies take in
/// as a whole log they do not execute, so the first ones may show nothing.
async fn deposit_until(
    system: &System,
    account: &Account,
    wanted: impl Fn(u64, &[NodeId]) -> bool,
) -> i64 {
    let (begun, mut paid) = (Instant::now(), 0);
    loop {
        let (number, members) = view(system, account).await;
        if wanted(number, &members) {
            return paid;
        }
        assert!(begun.elapsed() < LONG, "still {number}: {members:?}");
        match account.deposit(&system.client, 5).await {
            Ok(_) => paid += 5,
            // Who led has just been replaced.
            Err(DepositError::System(_)) => {}
            Err(error) => panic!("{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the view is as wanted.
async fn view_is(system: &System, account: &Account, wanted: impl Fn(u64, &[NodeId]) -> bool) {
    let begun = Instant::now();
    loop {
        let (number, members) = view(system, account).await;
        if wanted(number, &members) {
            return;
        }
        assert!(begun.elapsed() < LONG, "still {number}: {members:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_comes_to_something_else_than_most_is_excluded_and_made_anew() {
    let system = with_a_wrong_one(2).await;
    let account = system.account().await;
    let wrong = system.nodes[2].me().node;
    let is_whole = |_: u64, members: &[NodeId]| members.len() == 3;
    view_is(&system, &account, is_whole).await;
    let (before, _) = view(&system, &account).await;
    let mut paid = deposit_until(&system, &account, |number, _| number > before).await;
    let is_back = |number: u64, members: &[NodeId]| {
        number >= before + 2 && members.len() == 3 && members[0] != wrong
    };
    view_is(&system, &account, is_back).await;
    assert_eq!(account.balance(&system.client).await.unwrap(), paid);
    let copies = system.level(&account).await;
    let hashes: Vec<_> = copies.iter().map(|(_, hash)| &hash.hash).collect();
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{copies:?}");
    // For a while it is told what the others come to instead.
    let (after, _) = view(&system, &account).await;
    for _ in 0..3 {
        account.deposit(&system.client, 5).await.unwrap();
        paid += 5;
    }
    assert_eq!(view(&system, &account).await.0, after);
    assert_eq!(account.balance(&system.client).await.unwrap(), paid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_comes_to_something_else_than_all_others_leads_no_more() {
    let system = with_a_wrong_one(0).await;
    let account = system.account().await;
    view_is(&system, &account, |_, members| members.len() == 3).await;
    let wrong = system.nodes[0].me().node;
    let (_, members) = view(&system, &account).await;
    assert_eq!(members[0], wrong);
    let others_lead = |_: u64, members: &[NodeId]| members[0] != wrong;
    deposit_until(&system, &account, others_lead).await;
    // What it has answered counts.
    let balance = account.balance(&system.client).await.unwrap();
    let next = account.deposit(&system.client, 5).await.unwrap();
    assert_eq!(next, balance + 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn time_and_chance_are_the_same_at_all_copies() {
    let system = System::start(|node| node.class(account::class(Fickle::default()))).await;
    let account = system.account().await;
    for _ in 0..10 {
        account.withdraw(&system.client, 3).await.unwrap();
    }
    for (copy, _) in system.level(&account).await {
        // The first one may come to copies that take in the whole log.
        assert!(copy.leads || copy.executed >= 9, "{copy:?}");
        assert_eq!(copy.differences, 0, "{copy:?}");
    }
}

/// The next leader leads from what it has executed itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_has_executed_leads_on() {
    let mut system =
        System::start(|node| node.class(account::class(bank::AccountServant::default()))).await;
    let account = system.account().await;
    for _ in 0..5 {
        account.deposit(&system.client, 2).await.unwrap();
    }
    let first: NodeId = NodeId(system.level(&account).await[0].0.members[0]);
    let at = system
        .nodes
        .iter()
        .position(|node| node.client().me().node == first);
    let leader = system.nodes.remove(at.unwrap());
    leader.shutdown(LONG).await.unwrap();
    let begun = Instant::now();
    loop {
        match account.deposit(&system.client, 2).await {
            Ok(balance) => {
                assert_eq!(balance, 12);
                break;
            }
            Err(error) => assert!(begun.elapsed() < LONG, "{error}"),
        }
    }
}
