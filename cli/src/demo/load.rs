//! Clients that pay in and out, and their books.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bank::Account;
use bank::account::{DepositError, WithdrawError};
use futures_util::future::try_join_all;
use partha::{CallOptions, Client, Completed, SystemError};

use super::histogram::Histogram;

/// The largest amount of one call.
const AMOUNT_MAX: u64 = 100;
/// How long to ask for an unknown outcome: a killed node is back long before.
const SETTLE_DEADLINE: Duration = Duration::from_secs(60);
/// How long one of these questions may take.
const ASK_DEADLINE: Duration = Duration::from_secs(5);

/// All clients.
#[derive(Debug)]
pub(super) struct Load {
    naming: String,
    accounts: Vec<Account>,
    clients: u32,
    counts: Counts,
}

/// What is counted while the load runs.
#[derive(Debug)]
pub(super) struct Counts {
    times: Histogram,
    settled: AtomicU64,
    kills: AtomicU64,
}

/// How a call ended.
enum Ending {
    /// The money was paid.
    Paid,
    /// The account refused.
    Refused,
    /// It was certainly not executed.
    NotExecuted,
}

/// How one attempt at a call ended.
enum Attempt {
    Answered(Ending),
    Failed(SystemError),
}

impl Counts {
    /// Calls that were answered.
    pub(super) fn calls(&self) -> u64 {
        self.times.count()
    }

    /// The time that this share of the calls did not exceed.
    pub(super) fn latency(&self, share: f64) -> Duration {
        self.times.quantile(share)
    }

    /// Calls whose outcome was unknown at first.
    pub(super) fn settled(&self) -> u64 {
        self.settled.load(Ordering::Relaxed)
    }

    /// Nodes that were killed.
    pub(super) fn kills(&self) -> u64 {
        self.kills.load(Ordering::Relaxed)
    }

    /// A node was killed.
    pub(super) fn killed(&self) {
        self.kills.fetch_add(1, Ordering::Relaxed);
    }
}

impl Load {
    pub(super) fn new(naming: String, accounts: Vec<Account>, clients: u32) -> Self {
        let (settled, kills) = (AtomicU64::new(0), AtomicU64::new(0));
        let counts = Counts {
            times: Histogram::new(),
            settled,
            kills,
        };
        Self {
            naming,
            accounts,
            clients,
            counts,
        }
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Runs until `end`; each client finishes the call it is at. Answers the sum of the books:
    /// what each account must hold.
    pub(super) async fn run(&self, end: tokio::time::Instant) -> anyhow::Result<Vec<i64>> {
        let clients = (0..self.clients).map(|index| self.client(index, end));
        let mut sum = vec![0; self.accounts.len()];
        for book in try_join_all(clients).await? {
            for (total, paid) in sum.iter_mut().zip(book) {
                *total += paid;
            }
        }
        Ok(sum)
    }

    async fn client(&self, index: u32, end: tokio::time::Instant) -> anyhow::Result<Vec<i64>> {
        let client = Client::connect(self.naming.clone()).await?;
        let mut random = Random::new(index);
        let mut book = vec![0; self.accounts.len()];
        while tokio::time::Instant::now() < end {
            let chosen = random.below(self.accounts.len() as u64) as usize;
            let amount = random.below(AMOUNT_MAX) as i64 + 1;
            // A little more in than out, so that most accounts hold something.
            let amount = if random.below(9) < 5 { amount } else { -amount };
            let begun = Instant::now();
            let ending = self.pay(&client, &self.accounts[chosen], amount).await;
            match ending.with_context(|| format!("client {index}"))? {
                Ending::Paid => book[chosen] += amount,
                Ending::Refused => {}
                Ending::NotExecuted => continue,
            }
            self.counts.times.add(begun.elapsed());
        }
        Ok(book)
    }

    /// Pays in or out, and does not rest until it is known whether that was done.
    async fn pay(&self, client: &Client, account: &Account, amount: i64) -> anyhow::Result<Ending> {
        let id = client.new_call_id();
        let error = match attempt(&client.call().id(id), account, amount).await? {
            Attempt::Answered(ending) => return Ok(ending),
            Attempt::Failed(error) if error.completion() == Completed::No => {
                return Ok(Ending::NotExecuted);
            }
            Attempt::Failed(error) => error,
        };
        self.counts.settled.fetch_add(1, Ordering::Relaxed);
        let begun = Instant::now();
        let mut last = error;
        while begun.elapsed() < SETTLE_DEADLINE {
            let caller = client.call().again(id).deadline(ASK_DEADLINE);
            match attempt(&caller, account, amount).await? {
                Attempt::Answered(ending) => return Ok(ending),
                // This attempt may be known to have failed; the first one still is not.
                Attempt::Failed(error) => last = error,
            }
        }
        Err(last).with_context(|| format!("the outcome of call {id} cannot be learnt"))
    }
}

async fn attempt(caller: &CallOptions, account: &Account, amount: i64) -> anyhow::Result<Attempt> {
    if amount >= 0 {
        return match account.deposit(caller, amount).await {
            Ok(_) => Ok(Attempt::Answered(Ending::Paid)),
            Err(DepositError::System(error)) => Ok(Attempt::Failed(error)),
            Err(error @ DepositError::BadAmount(_)) => bail!("{} refused {error}", account.uid()),
        };
    }
    match account.withdraw(caller, -amount).await {
        Ok(_) => Ok(Attempt::Answered(Ending::Paid)),
        Err(WithdrawError::InsufficientFunds(_)) => Ok(Attempt::Answered(Ending::Refused)),
        Err(WithdrawError::System(error)) => Ok(Attempt::Failed(error)),
        Err(error @ WithdrawError::BadAmount(_)) => bail!("{} refused {error}", account.uid()),
    }
}

/// Numbers that look random: xorshift64* (Vigna).
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u32) -> Self {
        Self((u64::from(seed) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// A number below `bound`, which is more than 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let mixed = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d);
        ((u128::from(mixed) * u128::from(bound)) >> 64) as u64
    }
}
