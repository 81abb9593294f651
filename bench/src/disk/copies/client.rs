//! The client of accounts with and without copies.

use std::cell::Cell;
use std::error::Error;

use bank::Account;
use futures_util::StreamExt as _;
use futures_util::stream;
use partha::{Client, Place, Replication, Uid};
use serde::{Deserialize, Serialize};

use crate::disk::load::{self, Caller, Pace};
use crate::disk::node::{self, BEGIN_CENTS};
use crate::disk::transfer::partha::total;
use crate::disk::transfer::{check_total, choose};
use crate::figure::Found;

/// Accounts made at once.
const AT_ONCE: usize = 16;
/// Copies of an account that has some.
pub(super) const COPIES: u16 = 3;

/// Accounts to be made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Making {
    /// Where the naming service listens.
    pub(crate) naming: String,
    /// Where the nodes listen that are to lead them.
    pub(crate) nodes: [String; 2],
    /// At each.
    pub(crate) accounts: usize,
    /// Of each account.
    pub(crate) copies: Copied,
}

/// What copies accounts have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Copied {
    /// None, and no log.
    Plain,
    /// Three, that keep up with each other so.
    Passive,
    Cohort,
    Active,
}

impl Copied {
    pub(super) const ALL: [(Self, &'static str); 4] = [
        (Self::Plain, "partha-plain"),
        (Self::Passive, "partha-passive"),
        (Self::Cohort, "partha-cohort"),
        (Self::Active, "partha-active"),
    ];

    fn of(self) -> Option<Replication> {
        match self {
            Self::Plain => None,
            Self::Passive => Some(Replication::passive(COPIES)),
            Self::Cohort => Some(Replication::cohort(COPIES)),
            Self::Active => Some(Replication::active(COPIES)),
        }
    }
}

/// What is done with the accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum What {
    /// Calls outside of actions, each client at an account of its own.
    Deposits,
    /// Actions over an account at the first node and one at the second.
    Transfers,
}

impl What {
    pub(super) const ALL: [Self; 2] = [Self::Deposits, Self::Transfers];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Deposits => "a deposit",
            Self::Transfers => "a transfer",
        }
    }
}

/// Accounts to be called.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Load {
    pub(crate) naming: String,
    /// All nodes with copies.
    pub(crate) nodes: Vec<String>,
    /// By the nodes that lead them.
    pub(crate) accounts: [Vec<String>; 2],
    pub(crate) what: What,
    pub(crate) pace: Pace,
    /// The processes of the nodes.
    pub(crate) servers: Vec<u32>,
}

struct Teller {
    client: Client,
    accounts: [Vec<Account>; 2],
    what: What,
    /// Cents that deposits have brought.
    paid_in: Cell<i64>,
}

impl Caller for Teller {
    async fn call(&self, n: u64) -> anyhow::Result<()> {
        let [here, there] = &self.accounts;
        if self.what == What::Deposits {
            let count = (here.len() + there.len()) as u64;
            let mut all = here.iter().chain(there);
            let account = all.nth((n % count) as usize).expect("less than there are");
            account.deposit(&self.client, 1).await?;
            self.paid_in.set(self.paid_in.get() + 1);
            return Ok(());
        }
        let (first, second, onward) = choose(n, [here.len(), there.len()]);
        let (first, second) = (&here[first], &there[second]);
        let cents = if onward { 1 } else { -1 };
        let transfer = self.client.action_retry(async |a| {
            add(first, a, -cents).await?;
            add(second, a, cents).await
        });
        transfer.await.map_err(|error| anyhow::anyhow!("{error}"))
    }
}

async fn add(
    account: &Account,
    action: &partha::Action,
    cents: i64,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    match cents < 0 {
        true => account.withdraw(action, -cents).await?,
        false => account.deposit(action, cents).await?,
    };
    Ok(())
}

/// The role of whoever makes the accounts: prints their uids.
pub(crate) async fn make(told: Making) -> anyhow::Result<[Vec<String>; 2]> {
    let client = Client::connect(told.naming.clone()).await?;
    let mut made = [Vec::new(), Vec::new()];
    for (address, made) in told.nodes.iter().zip(&mut made) {
        let place = Place::Node(client.node_at(address).await?.id());
        let place = match told.copies.of() {
            None => place,
            Some(replication) => place.replicated(replication),
        };
        let accounts = stream::iter(0..told.accounts).map(async |index| {
            let account = Account::create(&client, &place, &format!("owner {index}")).await?;
            account.deposit(&client, BEGIN_CENTS).await?;
            anyhow::Ok(account.uid().to_string())
        });
        let accounts: Vec<_> = accounts.buffered(AT_ONCE).collect().await;
        *made = accounts.into_iter().collect::<anyhow::Result<_>>()?;
    }
    Ok(made)
}

/// The role of the client.
pub(crate) async fn run(told: Load) -> anyhow::Result<Found> {
    let client = Client::connect(told.naming.clone()).await?;
    let of = |uids: &[String]| -> anyhow::Result<Vec<Account>> {
        let uids: Vec<Uid> = node::parsed(uids)?;
        Ok(uids.into_iter().map(Account::from_uid).collect())
    };
    let teller = Teller {
        client: client.clone(),
        accounts: [of(&told.accounts[0])?, of(&told.accounts[1])?],
        what: told.what,
        paid_in: Cell::new(0),
    };
    // It finds and binds all accounts, too.
    let all = teller.accounts.concat();
    let begin = total(&client, &all).await?;
    let before = node::work(&client, &told.nodes).await?;
    let found = load::drive(&teller, told.pace, &told.servers).await?;
    node::quiet(&client, &told.nodes).await?;
    let after = node::work(&client, &told.nodes).await?;
    let end = total(&client, &all).await?;
    check_total(end, 1, begin + teller.paid_in.get())?;
    Ok(after.since(before, found))
}
