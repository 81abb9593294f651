//! Copies of the accounts while their nodes are killed: how long it takes until another one
//! answers, and whether all are equal in the end.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bank::Account;
use futures_util::future::try_join_all;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use partha::services::binder::GroupView;
use partha::system::CopyHash;
use partha::{Client, NodeId, Replication, Uid};
use tokio::time::Instant;

use super::bank::account_name;
use super::books::{Book, Verdict};
use super::counts::Counts;
use super::pay::{self, pay};
use super::transfer::Till;

/// How long another copy may take to answer before the killed node is started again.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the copies may take to be there again, and in the end to be equal.
const LEVEL_DEADLINE: Duration = Duration::from_secs(60);
/// Pause between two looks at the views.
const LOOK: Duration = Duration::from_millis(20);
/// Pause between two attempts at a call.
const AGAIN: Duration = Duration::from_millis(1);
/// Accounts whose copies are compared at the same time.
const TOGETHER: usize = 32;
/// How long the binder may take to say the views.
const ASK_DEADLINE: Duration = Duration::from_secs(5);

/// Who looks after the copies while nodes are killed.
#[derive(Debug)]
pub(super) struct Copies<'a> {
    client: &'a Client,
    accounts: &'a [Account],
    /// So many of them are the load's; the others are asked when a leader is killed.
    used: usize,
    /// All that have copies, with a name for people.
    objects: Vec<(String, Uid)>,
    wanted: usize,
    /// What it has paid in itself.
    book: Book,
}

impl<'a> Copies<'a> {
    pub(super) fn new(
        client: &'a Client,
        (accounts, used, tills): (&'a [Account], usize, &[Till]),
        replication: &Replication,
    ) -> Self {
        let named = accounts.iter().zip(0..);
        let named = named.map(|(account, index)| (account_name(index), account.uid()));
        let tilled = tills.iter().enumerate().flat_map(|(index, till)| {
            let log = (format!("the audit log of client {index}"), till.log.uid());
            [
                log,
                (format!("the branch of client {index}"), till.branch.uid()),
            ]
        });
        Self {
            client,
            accounts,
            used,
            objects: named.chain(tilled).collect(),
            wanted: usize::from(replication.copies),
            book: Book::new(accounts.len()),
        }
    }

    /// What it has paid in.
    pub(super) fn into_book(self) -> Book {
        self.book
    }

    async fn views(&self) -> partha::Result<Vec<GroupView>> {
        let objects: Vec<Uid> = self.objects.iter().map(|(_, uid)| *uid).collect();
        let locator = self.client.locator();
        locator.views(self.client, &objects, ASK_DEADLINE).await
    }

    /// An account whose leader is at this node, that has other copies, and that the load does not
    /// use: this client is bound to it.
    pub(super) async fn led_by(&self, node: NodeId) -> anyhow::Result<Option<usize>> {
        let views = self.views().await?;
        let leads =
            |view: &&GroupView| view.members.first() == Some(&node.0) && view.members.len() > 1;
        let led: BTreeSet<Uid> = views.iter().filter(leads).map(|view| view.object).collect();
        let mut probes = self.used..self.accounts.len();
        let index = probes.find(|index| led.contains(&self.accounts[*index].uid()));
        if let Some(index) = index {
            self.accounts[index].balance(self.client).await?;
        }
        Ok(index)
    }

    /// Pays a cent in until that has been done, and counts how long it took since the kill.
    pub(super) async fn next_call(
        &mut self,
        index: usize,
        killed: Instant,
        counts: &Counts,
    ) -> anyhow::Result<()> {
        while killed.elapsed() < PATIENCE {
            match pay(self.client, &self.accounts[index], 1, counts).await? {
                pay::Ending::Paid => {
                    self.book.paid(index, 1);
                    counts.failovers.add(killed.elapsed());
                    return Ok(());
                }
                pay::Ending::NotExecuted => tokio::time::sleep(AGAIN).await,
                pay::Ending::Refused => bail!("a payment into an account was refused"),
            }
        }
        // Without it there was nobody to lead: it is counted, and shown.
        counts.stuck.add(1);
        Ok(())
    }

    /// Waits until all objects have as many copies as are wanted again.
    pub(super) async fn all_there(&self) -> anyhow::Result<()> {
        let until = Instant::now() + LEVEL_DEADLINE;
        loop {
            let missing = match self.views().await {
                Ok(views) => {
                    let there = |view: &&GroupView| view.members.len() == self.wanted;
                    self.objects.len() - views.iter().filter(there).count()
                }
                // The binder may be starting.
                Err(error) if Instant::now() > until => return Err(error.into()),
                Err(_) => self.objects.len(),
            };
            if missing == 0 {
                return Ok(());
            }
            if Instant::now() > until {
                bail!("{missing} objects do not get their copies within {LEVEL_DEADLINE:?}");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Compares all copies of all objects: class, version, state and rows, by a hash.
    pub(super) async fn compare(&self) -> anyhow::Result<Verdict> {
        let comparing = stream::iter(&self.objects).map(|object| self.equal(object));
        let compared: Vec<_> = comparing.buffered(TOGETHER).try_collect().await?;
        let (count, wanted) = (compared.len(), self.wanted);
        let differ: Vec<String> = compared.into_iter().flatten().collect();
        let text = match differ.first() {
            None => format!("copies: {count} objects have {wanted} copies each, all equal"),
            Some(first) => format!(
                "copies: {} of {count} objects differ\n  {first}",
                differ.len()
            ),
        };
        let agree = differ.is_empty();
        Ok(Verdict { agree, text })
    }

    /// Waits until all copies of an object have the same last change, and says what differs then.
    async fn equal(&self, (name, object): &(String, Uid)) -> anyhow::Result<Option<String>> {
        let object = *object;
        let until = Instant::now() + LEVEL_DEADLINE;
        loop {
            let found = self.hashes(object).await;
            if let Ok(copies) = &found
                && let [(_, first), others @ ..] = copies.as_slice()
                && copies.len() == self.wanted
                && others
                    .iter()
                    .all(|(_, other)| other.installed == first.installed)
            {
                let differs = others.iter().find(|(_, other)| other != first);
                return Ok(differs.map(|(node, _)| {
                    let (node, at) = (NodeId(*node), first.installed);
                    format!("{name}: the copy at node {node} differs from the leader's at {at}")
                }));
            }
            if Instant::now() > until {
                let told = found.map(|copies| format!("{copies:?}"));
                bail!("the copies of {name} do not come to the same change: {told:?}");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What each member's copy comes to, the leader's first.
    async fn hashes(&self, object: Uid) -> anyhow::Result<Vec<(u64, CopyHash)>> {
        let locator = self.client.locator();
        let views = locator.views(self.client, &[object], ASK_DEADLINE).await?;
        let view = views.first().context("it is no group")?;
        let asked = view.members.iter().map(async |node| {
            let manager = Uid::connection_manager(NodeId(*node));
            let entry = locator.locate(self.client, manager).await?;
            let address = entry.addresses.first().context("no address")?;
            let handle = self.client.node_at(address).await?;
            let hash = handle.manager().copy_hash(self.client, object).await?;
            anyhow::Ok((*node, hash))
        });
        try_join_all(asked).await
    }
}
