//! Two node processes with accounts, and transfers between them that leave traces: whatever dies
//! meanwhile, [`Town::audit`] tells for each single transfer whether it happened once, or not.
//!
//! A transfer changes the value of two accounts, writes a row with its name at both, and makes a
//! new object (a receipt) at every other time. So a half that is lost, done twice or undone twice
//! shows, whichever half it is.

#![allow(unreachable_pub, reason = "a module as the other helpers are")]

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use partha::{
    Action, ActionError, ActionId, ActionOptions, Client, NodeHandle, Outcome, Place, Result,
    SystemError, Uid,
};
use test_support::eventually;

use crate::common::behaviour::Counter;
use crate::common::process::NodeProcess;
use crate::common::{PATIENCE, until};

/// Accounts at each node; the n-th of one node deals with the n-th of the other.
pub const PAIRS: usize = 4;
/// What is in an account at the beginning.
const START: i64 = 1_000;
/// How long a transfer may take: what a lost node leaves locked is free again by then.
const DEADLINE: Duration = Duration::from_secs(4);
/// How long those of some workers may take, which end before a node is started again.
const DEADLINE_SHORT: Duration = Duration::from_millis(100);

/// What the workers are to do, and how far they are.
pub struct Phase {
    now: AtomicU8,
    /// Transfers that have ended, by worker.
    ended: [AtomicUsize; PAIRS],
}

impl Phase {
    const RUN: u8 = 0;
    const ONE_MORE: u8 = 1;
    const STOP: u8 = 2;

    /// Transfers without end.
    pub fn run() -> Self {
        Self {
            now: AtomicU8::new(Self::RUN),
            ended: Default::default(),
        }
    }

    /// All nodes are there again: each worker ends after its next transfer that commits.
    pub fn one_more(&self) {
        self.now.store(Self::ONE_MORE, Ordering::Relaxed);
    }

    /// Waits until the transfers under way that are short of time have ended.
    pub fn short_of_time(&self) {
        let ended = || -> Vec<_> {
            let short = (0..PAIRS).filter(|worker| is_short_of_time(*worker));
            short
                .map(|worker| self.ended[worker].load(Ordering::Relaxed))
                .collect()
        };
        let before = ended();
        eventually(PATIENCE, || {
            ended()
                .iter()
                .zip(&before)
                .all(|(ended, before)| ended > before)
        });
    }

    fn get(&self) -> u8 {
        self.now.load(Ordering::Relaxed)
    }
}

/// Stops the workers when it is dropped, so that a failed test ends.
pub struct Stopper<'p>(pub &'p Phase);

impl Drop for Stopper<'_> {
    fn drop(&mut self) {
        self.0.now.store(Phase::STOP, Ordering::Relaxed);
    }
}

/// Whether the transfers of a worker find out nothing by themselves of a node that is gone.
fn is_short_of_time(worker: usize) -> bool {
    worker >= PAIRS / 2
}

/// One transfer, from an account at node `from` to its partner at the other node.
pub struct Transfer {
    name: String,
    pair: usize,
    from: usize,
    amount: i64,
    receipt: bool,
    deadline: Duration,
    pub fate: Fate,
}

/// What its client was told.
#[derive(Clone)]
pub enum Fate {
    Committed,
    Aborted(String),
    Unknown(ActionId),
}

impl fmt::Debug for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Committed => f.write_str("committed"),
            Self::Aborted(why) => write!(f, "aborted: {why}"),
            Self::Unknown(action) => write!(f, "unknown: {action}"),
        }
    }
}

impl Transfer {
    fn new(worker: usize, count: usize) -> Self {
        Self {
            name: format!("{worker}-{count}"),
            pair: worker % PAIRS,
            from: (worker + count / 2) % 2,
            amount: 1 + (count % 7) as i64,
            receipt: count % 2 == 1,
            deadline: if is_short_of_time(worker) {
                DEADLINE_SHORT
            } else {
                DEADLINE
            },
            fate: Fate::Aborted("not begun".to_owned()),
        }
    }

    fn to(&self) -> usize {
        1 - self.from
    }
}

/// How often each fate came.
#[derive(Default)]
pub struct Fates {
    pub committed: usize,
    pub aborted: usize,
    pub unknown: usize,
}

impl Fates {
    pub fn of(transfers: &[Transfer]) -> Self {
        let mut fates = Self::default();
        for transfer in transfers {
            match transfer.fate {
                Fate::Committed => fates.committed += 1,
                Fate::Aborted(_) => fates.aborted += 1,
                Fate::Unknown(_) => fates.unknown += 1,
            }
        }
        fates
    }
}

impl fmt::Display for Fates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            committed,
            aborted,
            unknown,
        } = self;
        write!(
            f,
            "{committed} committed, {aborted} aborted, {unknown} unknown"
        )
    }
}

/// A client's view of the two nodes.
pub struct Town {
    pub client: Client,
    /// By node, then by pair.
    pub accounts: [Vec<Counter>; 2],
    /// An object of each node that takes part in no transfer.
    guides: [Counter; 2],
    places: [Place; 2],
    addresses: [String; 2],
    /// Other objects at node 0.
    others: usize,
}

impl Town {
    /// Makes the accounts.
    pub async fn open(nodes: &[NodeProcess; 2]) -> Self {
        let client = Client::alone().unwrap();
        let addresses = [0, 1].map(|node: usize| nodes[node].address.to_string());
        let mut places = [Place::Any, Place::Any];
        let (mut accounts, mut guides) = ([vec![], vec![]], vec![]);
        for node in [0, 1] {
            let id = client.locator().introduce(&client, &addresses[node]);
            places[node] = Place::Node(id.await.unwrap());
            for _ in 0..PAIRS {
                let account = Counter::create(&client, &places[node], START, partha::Bytes::new());
                accounts[node].push(account.await.unwrap());
            }
            let guide = Counter::create(&client, &places[node], 0, partha::Bytes::new());
            guides.push(guide.await.unwrap());
        }
        let guides = guides.try_into().expect("there is a guide for each node");
        let town = Self {
            client,
            accounts,
            guides,
            places,
            addresses,
            others: 0,
        };
        town.introduce().await;
        town
    }

    /// Makes the nodes know each other's address, which a restarted one has forgotten.
    pub async fn introduce(&self) {
        for node in [0, 1] {
            until(|| self.try_introduce(node)).await;
        }
    }

    /// Makes a node know the other one's address, if both are there.
    pub async fn try_introduce(&self, node: usize) -> bool {
        let (guide, other) = (&self.guides[node], &self.addresses[1 - node]);
        guide.meet(&self.client, other).await.is_ok()
    }

    /// Transfers by pair `worker`, in both directions, as the phase says.
    pub async fn work(&self, worker: usize, phase: &Phase) -> Vec<Transfer> {
        let mut transfers = Vec::new();
        let mut late = None;
        loop {
            let asked = phase.get();
            if asked == Phase::STOP {
                return transfers;
            }
            let mut transfer = Transfer::new(worker, transfers.len());
            transfer.fate = self.transfer(&transfer, transfers.len() % 5 == 3).await;
            let (fate, name) = (transfer.fate.clone(), transfer.name.clone());
            transfers.push(transfer);
            phase.ended[worker].fetch_add(1, Ordering::Relaxed);
            match fate {
                Fate::Committed if asked == Phase::ONE_MORE => return transfers,
                Fate::Committed => {}
                // A node that is gone answers at once; this is no reason to hurry.
                Fate::Aborted(_) | Fate::Unknown(_) => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            if asked == Phase::ONE_MORE {
                let since = *late.get_or_insert_with(Instant::now);
                assert!(
                    since.elapsed() < PATIENCE,
                    "{name} on accounts of the nodes that are back: {fate:?}"
                );
            }
        }
    }

    /// One transfer; with `change_of_mind` it is given up after its calls.
    async fn transfer(&self, transfer: &Transfer, change_of_mind: bool) -> Fate {
        let options = ActionOptions::new().deadline(transfer.deadline);
        let body = async |action: &Action| {
            self.calls(action, transfer).await?;
            if change_of_mind {
                return Err(SystemError::servant("a change of mind"));
            }
            Ok(())
        };
        fate(self.client.action_with(options, body).await)
    }

    async fn calls(&self, action: &Action, transfer: &Transfer) -> Result<()> {
        let Transfer { pair, amount, .. } = *transfer;
        let (from, to) = (
            &self.accounts[transfer.from][pair],
            &self.accounts[transfer.to()][pair],
        );
        if transfer.receipt {
            // The servant of one account calls the other.
            give(action, from, to, amount).await?;
            Counter::create(
                action,
                &self.places[transfer.to()],
                amount,
                partha::Bytes::new(),
            )
            .await?;
        } else {
            from.add(action, -amount).await?;
            to.add(action, amount).await?;
        }
        // The second half is nested, as a library would have it.
        from.put_row(action, &transfer.name, -amount).await?;
        let nested = async |inner: &Action| to.put_row(inner, &transfer.name, amount).await;
        match action.nested(nested).await {
            Ok(_) => Ok(()),
            Err(error) => Err(SystemError::servant(error.to_string())),
        }
    }

    /// Asks for each outcome that is not known until there is one.
    pub async fn settle(&self, transfers: &mut [Transfer]) {
        for transfer in transfers {
            let Fate::Unknown(action) = transfer.fate else {
                continue;
            };
            let start = Instant::now();
            transfer.fate = loop {
                let outcome = self.client.outcome(action).await;
                match outcome {
                    Ok(Outcome::Committed) => break Fate::Committed,
                    Ok(Outcome::Aborted) => break Fate::Aborted("found out".to_owned()),
                    Ok(Outcome::InFlight) | Err(_) => {}
                }
                assert!(start.elapsed() < PATIENCE, "{action}: {outcome:?}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            };
        }
    }

    async fn node(&self, node: usize) -> NodeHandle {
        self.client.node_at(&self.addresses[node]).await.unwrap()
    }

    /// Waits until no node has a part of any action, nor a lock.
    pub async fn quiet(&self) {
        let start = Instant::now();
        for node in [0, 1] {
            let handle = self.node(node).await;
            loop {
                let actions = handle.manager().actions(&self.client, Uid::NIL, 100).await;
                let locks = handle.manager().locks(&self.client, Uid::NIL, 100, false);
                let (actions, mut locks) = (actions.unwrap(), locks.await.unwrap());
                // The question itself has a lock.
                locks.retain(|lock| lock.object != Uid::connection_manager(lock.object.node));
                if actions.is_empty() && locks.is_empty() {
                    break;
                }
                assert!(
                    start.elapsed() < PATIENCE,
                    "node {node} still has {actions:#?} and {locks:#?}"
                );
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        for node in [0, 1] {
            let handle = self.node(node).await;
            let statistics = handle.manager().statistics(&self.client).await.unwrap();
            let counts = (statistics.actions_active, statistics.actions_in_doubt);
            assert_eq!(counts, (0, 0), "node {node}");
        }
    }

    /// Transfers once more between all accounts.
    pub async fn once_more(&self, transfers: &mut Vec<Transfer>) {
        for pair in 0..PAIRS {
            for round in [100_000, 100_002] {
                let mut transfer = Transfer::new(pair, round);
                transfer.deadline = DEADLINE;
                transfer.fate = self.transfer(&transfer, false).await;
                let done = matches!(transfer.fate, Fate::Committed);
                assert!(done, "{}: {:?}", transfer.name, transfer.fate);
                transfers.push(transfer);
            }
        }
    }

    /// Each transfer happened once if it is committed, and not at all if it is not.
    pub async fn audit(&self, transfers: &[Transfer]) {
        let mut total = 0;
        for node in [0, 1] {
            let mut receipts = 0;
            for (pair, account) in self.accounts[node].iter().enumerate() {
                let mut expected = BTreeMap::new();
                for transfer in transfers.iter().filter(|transfer| transfer.pair == pair) {
                    if matches!(transfer.fate, Fate::Committed) {
                        let amount = if transfer.from == node {
                            -transfer.amount
                        } else {
                            transfer.amount
                        };
                        expected.insert(transfer.name.clone(), amount);
                        receipts += usize::from(transfer.receipt && transfer.to() == node);
                    }
                }
                let rows = account.rows(&self.client, "", 1000).await.unwrap();
                let found: BTreeMap<_, _> = rows.into_iter().map(|r| (r.name, r.value)).collect();
                assert_eq!(found, expected, "rows of account {pair} at node {node}");
                let value = account.value(&self.client).await.unwrap();
                let sum: i64 = expected.values().sum();
                assert_eq!(value, START + sum, "account {pair} at node {node}");
                total += value;
            }
            let others = 1 + if node == 0 { self.others } else { 0 };
            assert_eq!(
                self.objects(node).await,
                PAIRS + others + receipts,
                "receipts at node {node}"
            );
        }
        assert_eq!(total, 2 * PAIRS as i64 * START, "the total is conserved");
    }

    async fn objects(&self, node: usize) -> usize {
        let handle = self.node(node).await;
        let (mut count, mut after) = (0, Uid::NIL);
        loop {
            let page = handle.manager().objects(&self.client, after, 1000).await;
            let page = page.unwrap();
            let Some(last) = page.last() else {
                return count;
            };
            after = last.object;
            count += page.len();
        }
    }

    /// Waits until whatever a store was told before is on disk: it writes in order.
    pub async fn flush(&self) {
        for guide in &self.guides {
            guide.add(&self.client, 1).await.unwrap();
        }
    }

    async fn shard(&self, account: &Counter) -> u16 {
        let handle = self.node(0).await;
        let object = handle.manager().inspect(&self.client, account.uid()).await;
        object.unwrap().shard
    }

    /// A new account at node 0, with nothing in it, in another shard than the first one's.
    pub async fn in_another_shard(&mut self) -> Counter {
        let first = self.shard(&self.accounts[0][0]).await;
        loop {
            let account =
                Counter::create(&self.client, &self.places[0], 0, partha::Bytes::new()).await;
            let account = account.unwrap();
            self.others += 1;
            if self.shard(&account).await != first {
                return account;
            }
            assert!(self.others < 100, "100 objects and none in another shard");
        }
    }
}

/// What a client knows after an action.
pub fn fate<E: fmt::Debug + fmt::Display>(ended: std::result::Result<(), ActionError<E>>) -> Fate {
    match ended {
        Ok(()) => Fate::Committed,
        Err(ActionError::OutcomeUnknown { action, .. }) => Fate::Unknown(action),
        Err(error) => Fate::Aborted(error.to_string()),
    }
}

async fn give(action: &Action, from: &Counter, to: &Counter, amount: i64) -> Result<()> {
    match from.give(action, to, amount).await {
        Ok(_) => Ok(()),
        Err(error) => Err(SystemError::servant(format!("{error:?}"))),
    }
}
