//! The client that moves money between accounts at two nodes, in actions.

use std::cell::Cell;

use anyhow::{Context as _, ensure};
use bank::Account;
use futures_util::StreamExt as _;
use futures_util::stream;
use partha::{Client, Uid};
use serde::{Deserialize, Serialize};

use super::{check_total, choose};
use crate::disk::load::{self, Caller, Pace};
use crate::disk::node::{self, BEGIN_CENTS};
use crate::figure::Found;

/// Calls under way at once while the accounts are added up.
const ADDING: usize = 64;

/// Transfers between two nodes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Transfers {
    /// Where the nodes listen.
    pub(crate) addresses: Vec<String>,
    /// Their accounts.
    pub(crate) accounts: Vec<Vec<String>>,
    pub(crate) pace: Pace,
    /// Calls that read an account of the first node, and no transfers.
    pub(crate) read_only: bool,
    /// The processes of the nodes.
    pub(crate) servers: Vec<u32>,
}

struct Mover {
    client: Client,
    accounts: [Vec<Account>; 2],
    read_only: bool,
    committed: Cell<u64>,
}

impl Caller for Mover {
    async fn call(&self, n: u64) -> anyhow::Result<()> {
        let [here, there] = &self.accounts;
        let (first, second, onward) = choose(n, [here.len(), there.len()]);
        let (first, second) = (&here[first], &there[second]);
        if self.read_only {
            first.balance(&self.client).await?;
            return Ok(());
        }
        let transfer = self.client.action_retry(async |a| {
            if onward {
                first.withdraw(a, 1).await?;
                second.deposit(a, 1).await?;
            } else {
                first.deposit(a, 1).await?;
                second.withdraw(a, 1).await?;
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        });
        transfer.await.map_err(|error| anyhow::anyhow!("{error}"))?;
        self.committed.set(self.committed.get() + 1);
        Ok(())
    }
}

/// The role of the client.
pub(crate) async fn run(told: Transfers) -> anyhow::Result<Found> {
    let client = Client::alone()?;
    for address in &told.addresses {
        client.locator().introduce(&client, address).await?;
    }
    let accounts = |node: usize| -> anyhow::Result<Vec<Account>> {
        let uids = told.accounts.get(node).context("there are two nodes")?;
        let uids: Vec<Uid> = node::parsed(uids)?;
        Ok(uids.into_iter().map(Account::from_uid).collect())
    };
    let accounts = [accounts(0)?, accounts(1)?];
    let all = accounts.concat();
    let count = all.len();
    let mover = Mover {
        client: client.clone(),
        accounts: accounts.clone(),
        read_only: told.read_only,
        committed: Cell::new(0),
    };
    // It finds and binds all accounts, too.
    check_total(total(&client, &all).await?, count, BEGIN_CENTS)?;
    let before = node::work(&client, &told.addresses).await?;
    let found = load::drive(&mover, told.pace, &told.servers).await?;
    if told.read_only {
        return Ok(found);
    }
    node::quiet(&client, &told.addresses).await?;
    let after = node::work(&client, &told.addresses).await?;
    check_total(total(&client, &all).await?, count, BEGIN_CENTS)?;
    let (answered, committed) = (mover.committed.get(), after.committed - before.committed);
    ensure!(
        answered == committed,
        "{answered} transfers were answered, {committed} are committed"
    );
    Ok(after.since(before, found))
}

/// What all accounts hold.
pub(crate) async fn total(client: &Client, accounts: &[Account]) -> anyhow::Result<i64> {
    let balances = stream::iter(accounts)
        .map(async |account: &Account| account.balance(client).await)
        .buffer_unordered(ADDING);
    let sum = balances.fold(Ok(0_i64), async |sum: partha::Result<i64>, balance| {
        Ok(sum? + balance?)
    });
    Ok(sum.await?)
}
