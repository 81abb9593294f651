//! The bank on two nodes, with naming and binder, in this process.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use bank::account::{DepositError, WithdrawError};
use bank::branch::TransferError;
use bank::{Account, Branch, Watcher, watcher};
use common::{Bank, LONG};
use partha::{Action, Client, Context, ErrorKind, Node, Place, SystemError, Uid};
use tokio::sync::mpsc;

#[tokio::test(flavor = "multi_thread")]
async fn an_account_holds_what_was_paid_in_and_not_out() {
    let bank = Bank::open().await;
    let (account, client) = (bank.account("a").await, &bank.client);
    assert_eq!(account.deposit(client, 50).await.unwrap(), 50);
    assert_eq!(account.withdraw(client, 20).await.unwrap(), 30);
    assert_eq!(account.balance(client).await.unwrap(), 30);
    let statement = account.statement(client).await.unwrap();
    assert_eq!(
        (statement.owner.as_str(), statement.balance),
        ("somebody", 30)
    );
    assert_eq!(statement.count, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_changes_nothing() {
    let bank = Bank::open().await;
    let (account, client) = (bank.account("b").await, &bank.client);
    account.deposit(client, 10).await.unwrap();
    let Err(WithdrawError::InsufficientFunds(e)) = account.withdraw(client, 11).await else {
        panic!("expected InsufficientFunds");
    };
    assert_eq!((e.balance, e.wanted), (10, 11));
    for amount in [0, -1, i64::MIN] {
        let refused = account.deposit(client, amount).await;
        assert!(
            matches!(refused, Err(DepositError::BadAmount(_))),
            "{refused:?}"
        );
        let refused = account.withdraw(client, amount).await;
        assert!(
            matches!(refused, Err(WithdrawError::BadAmount(_))),
            "{refused:?}"
        );
    }
    let refused = account.deposit(client, i64::MAX).await;
    assert!(
        matches!(refused, Err(DepositError::BadAmount(_))),
        "{refused:?}"
    );
    let statement = account.statement(client).await.unwrap();
    assert_eq!((statement.balance, statement.count), (10, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_are_found_by_name_wherever_they_are() {
    let bank = Bank::open().await;
    let naming = bank.client.naming().unwrap();
    for node in ["a", "b"] {
        let account = bank.account(node).await;
        let name = format!("/bank/at-{node}");
        naming
            .add(&bank.client, &name, account.uid(), Account::CLASS)
            .await
            .unwrap();
        account.deposit(&bank.client, 7).await.unwrap();
        let other = Client::connect(bank.naming.address().to_string())
            .await
            .unwrap();
        let found = Account::bind(&other, &name).await.unwrap();
        assert_eq!(found.balance(&other).await.unwrap(), 7);
        let wrong = Branch::bind(&other, &name).await.unwrap_err();
        assert_eq!(wrong.kind(), ErrorKind::WrongClass, "{wrong}");
        assert!(wrong.to_string().contains("bank.Account"), "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_opens_accounts_and_moves_money_between_nodes() {
    let bank = Bank::open().await;
    let client = &bank.client;
    let (branch, log) = bank.branch().await;
    let alice = branch.open(client, "alice").await.unwrap();
    assert_eq!(branch.open(client, "alice").await.unwrap(), alice);
    let bob = bank.account("b").await;
    alice.deposit(client, 100).await.unwrap();
    let line = branch.transfer(client, &alice, &bob, 30, "rent").await;
    assert_eq!(line.unwrap(), 1);
    assert_eq!(alice.balance(client).await.unwrap(), 70);
    assert_eq!(bob.balance(client).await.unwrap(), 30);
    let lines = log.lines(client, 0, 10).await.unwrap();
    let [line] = lines.as_slice() else {
        panic!("expected one line: {lines:?}");
    };
    assert_eq!((line.number, line.reference.as_str()), (1, "rent"));
    assert_eq!((&line.from, &line.to, line.amount), (&alice, &bob, 30));
    let accounts = branch.accounts(client).await.unwrap();
    assert_eq!(accounts.keys().collect::<Vec<_>>(), ["alice"]);
    assert_eq!(accounts["alice"], alice);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_transfer_leaves_neither_money_nor_line() {
    let bank = Bank::open().await;
    let client = &bank.client;
    let (branch, log) = bank.branch().await;
    let (rich, full) = (bank.account("a").await, bank.account("b").await);
    rich.deposit(client, 10).await.unwrap();
    full.deposit(client, i64::MAX).await.unwrap();
    // The second of the two calls refuses: the first is undone.
    let refused = branch.transfer(client, &rich, &full, 5, "1").await;
    assert!(
        matches!(refused, Err(TransferError::BadAmount(_))),
        "{refused:?}"
    );
    let short = branch.transfer(client, &rich, &full, 11, "2").await;
    assert!(
        matches!(short, Err(TransferError::InsufficientFunds(_))),
        "{short:?}"
    );
    let itself = branch.transfer(client, &rich, &rich, 1, "3").await;
    assert!(
        matches!(itself, Err(TransferError::BadAmount(_))),
        "{itself:?}"
    );
    let unnamed = branch.transfer(client, &rich, &full, 1, "").await;
    assert!(
        matches!(unnamed, Err(TransferError::BadReference(_))),
        "{unnamed:?}"
    );
    assert_eq!(rich.balance(client).await.unwrap(), 10);
    assert_eq!(full.balance(client).await.unwrap(), i64::MAX);
    assert_eq!(log.lines(client, 0, 10).await.unwrap(), []);
    assert_eq!(rich.statement(client).await.unwrap().count, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reference_moves_money_once() {
    let bank = Bank::open().await;
    let client = &bank.client;
    let (branch, _) = bank.branch().await;
    let (from, to) = (bank.account("a").await, bank.account("b").await);
    from.deposit(client, 100).await.unwrap();
    for _ in 0..3 {
        let line = branch.transfer(client, &from, &to, 9, "salary").await;
        assert_eq!(line.unwrap(), 1);
    }
    assert_eq!(to.balance(client).await.unwrap(), 9);
    let other = branch.transfer(client, &from, &to, 8, "salary").await;
    assert!(
        matches!(other, Err(TransferError::BadReference(_))),
        "{other:?}"
    );
    let line = branch.transfer(client, &from, &to, 8, "bonus").await;
    assert_eq!(line.unwrap(), 2);
    assert_eq!(to.balance(client).await.unwrap(), 17);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_in_an_action_is_done_when_that_commits() {
    let bank = Bank::open().await;
    let client = &bank.client;
    let (branch, log) = bank.branch().await;
    let (from, to) = (bank.account("a").await, bank.account("b").await);
    from.deposit(client, 100).await.unwrap();
    let given_up = client
        .action(async |a| {
            branch.transfer(a, &from, &to, 40, "1").await?;
            assert_eq!(to.balance(a).await?, 40);
            Err::<(), _>(TransferError::System(SystemError::servant("no")))
        })
        .await;
    assert!(given_up.is_err());
    assert_eq!(to.balance(client).await.unwrap(), 0);
    assert_eq!(log.lines(client, 0, 10).await.unwrap(), []);
    // One that is refused within is undone alone.
    let both = client
        .action(async |a| {
            let refused = branch.transfer(a, &from, &to, 101, "2").await;
            assert!(
                matches!(refused, Err(TransferError::InsufficientFunds(_))),
                "{refused:?}"
            );
            branch.transfer(a, &from, &to, 40, "3").await
        })
        .await;
    assert_eq!(both.unwrap(), 1);
    assert_eq!(from.balance(client).await.unwrap(), 60);
    assert_eq!(to.balance(client).await.unwrap(), 40);
    let lines = log.lines(client, 0, 10).await.unwrap();
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0].reference, "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_opened_in_an_action_is_there_with_its_name_or_not_at_all() {
    let bank = Bank::open().await;
    let client = &bank.client;
    let naming = client.naming().unwrap();
    let open = async |action: &Action, name: &str| {
        let place = Place::Named("b".to_owned());
        let account = Account::create(action, &place, "carol").await?;
        account.deposit(action, 5).await?;
        let uid = account.uid();
        naming.add(action, name, uid, Account::CLASS).await?;
        // In the action it is there already, for whoever is in it.
        assert_eq!(naming.lookup(action, name).await?.object, uid);
        assert_eq!(account.balance(action).await?, 5);
        anyhow::Ok(account)
    };
    let mut made = None;
    let given_up = client
        .action(async |action| {
            made = Some(open(action, "/bank/carol").await?);
            Err::<(), _>(anyhow::anyhow!("no"))
        })
        .await;
    let given_up = given_up.unwrap_err();
    assert_eq!(given_up.cause().unwrap().to_string(), "no");
    let made = made.unwrap();
    let missing = naming.lookup(client, "/bank/carol").await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NameNotFound, "{missing}");
    let gone = made.balance(client).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NoSuchObject, "{gone}");

    let kept = client
        .action(async |action| open(action, "/bank/carol").await)
        .await;
    let kept = kept.unwrap();
    let found = naming.lookup(client, "/bank/carol").await.unwrap();
    assert_eq!(found.object, kept.uid());
    assert_eq!(kept.balance(client).await.unwrap(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn finding_and_binding_within_an_action_locks_nothing_but_what_is_called() {
    let bank = Bank::open().await;
    let (account, client) = (bank.account("b").await, &bank.client);
    let naming = client.naming().unwrap();
    let added = naming.add(client, "/bank/alice", account.uid(), Account::CLASS);
    added.await.unwrap();
    // A client that has to find everything: name, node, object.
    let address = bank.naming.address().to_string();
    let other = Client::connect(&*address).await.unwrap();
    let action = other.begin();
    let found = Account::bind(&other, "/bank/alice").await.unwrap();
    assert_eq!(found.balance(&action).await.unwrap(), 0);
    let mut locked = Vec::new();
    for node in other.locator().nodes(client).await.unwrap() {
        let handle = client.node_at(&node.addresses[0]).await.unwrap();
        let locks = handle.manager().locks(client, Uid::NIL, 100, false).await;
        for lock in locks.unwrap() {
            let mut holders = lock.holders.iter();
            if holders.any(|holder| holder.path.actions.contains(&action.id().uid())) {
                locked.push(lock.object);
            }
        }
    }
    assert_eq!(locked, [account.uid()]);
    // The binding outlives the action; the lock does not.
    action.abort();
    let soon = client.call().deadline(LONG / 10);
    assert_eq!(account.deposit(&soon, 5).await.unwrap(), 5);
    assert_eq!(found.balance(&other).await.unwrap(), 5);
}

struct Ear(mpsc::UnboundedSender<(Account, i64)>);

impl watcher::Servant for Ear {
    async fn changed(&self, _cx: &Context, account: Account, balance: i64) -> partha::Result<()> {
        // The test may have heard enough.
        let _ = self.0.send((account, balance));
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_is_told_of_changes() {
    let bank = Bank::open().await;
    let (account, client) = (bank.account("a").await, &bank.client);
    let (sender, mut heard) = mpsc::unbounded_channel();
    let ear = Watcher::serve(client, Ear(sender)).unwrap();
    account.watch(client, &ear).await.unwrap();
    for (paid, expected) in [(5, 5), (6, 11)] {
        account.deposit(client, paid).await.unwrap();
        let told = tokio::time::timeout(LONG, heard.recv())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(told, (account.clone(), expected));
    }
    // A watcher that is gone does not keep the account from being used.
    drop((ear, heard));
    for _ in 0..3 {
        account.deposit(client, 1).await.unwrap();
    }
    assert_eq!(account.balance(client).await.unwrap(), 14);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_outlives_its_node() {
    let bank = Bank::open().await;
    let (account, client) = (bank.account("a").await, &bank.client);
    account.deposit(client, 5).await.unwrap();
    bank.a.shutdown(LONG).await.unwrap();
    let builder = Node::builder()
        .name("a")
        .data_dir(bank.folder.path().join("a"));
    let builder = builder.naming(bank.naming.address().to_string());
    let a = bank::node::start(builder).await.unwrap();
    a.registered().await;
    // The same reference: it finds the node at its new address.
    assert_eq!(account.deposit(client, 2).await.unwrap(), 7);
}
