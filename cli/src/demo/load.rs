//! Clients that pay in and out and transfer, and their books.
//!
//! Some accounts are hot: a third of the transfers is among them. There, every other client
//! goes the opposite way, so that two that meet each have what the other wants.

use std::time::Instant;

use anyhow::Context as _;
use bank::Account;
use futures_util::future::try_join_all;
use partha::Client;

use super::books::{Book, Transfers};
use super::counts::Counts;
use super::pay::{self, pay};
use super::transfer::{self, Till, Transfer};

/// The largest amount of one call.
const AMOUNT_MAX: u64 = 100;
/// Accounts that are in much use.
const HOT: usize = 8;

/// All clients.
#[derive(Debug)]
pub(super) struct Load {
    naming: String,
    accounts: Vec<Account>,
    /// One a client.
    tills: Vec<Till>,
    mix: Mix,
    counts: Counts,
}

/// What clients do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mix {
    /// The first so many of the accounts.
    pub(super) used: usize,
    /// Transfers that meet take their accounts in opposite orders.
    pub(super) crossing: bool,
    /// Without, there are payments alone.
    pub(super) transfers: bool,
}

/// What the clients know when the load is over.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) book: Book,
    /// Of each client.
    pub(super) transfers: Vec<Transfers>,
}

impl Load {
    pub(super) fn new(naming: String, accounts: Vec<Account>, tills: Vec<Till>, mix: Mix) -> Self {
        Self {
            naming,
            accounts,
            tills,
            mix,
            counts: Counts::new(),
        }
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Runs until `end`; each client finishes what it is at.
    pub(super) async fn run(&self, end: tokio::time::Instant) -> anyhow::Result<Known> {
        let clients = (0..self.tills.len()).map(|index| self.client(index, end));
        let mut known = Known {
            book: Book::new(self.accounts.len()),
            transfers: Vec::new(),
        };
        for (book, transfers) in try_join_all(clients).await? {
            known.book.add(&book);
            known.transfers.push(transfers);
        }
        Ok(known)
    }

    async fn client(
        &self,
        index: usize,
        end: tokio::time::Instant,
    ) -> anyhow::Result<(Book, Transfers)> {
        let client = Client::connect(self.naming.clone()).await?;
        let mut random = Random::new(index as u32);
        let mut book = Book::new(self.accounts.len());
        let (mut transfers, mut number) = (Transfers::new(), 0);
        while tokio::time::Instant::now() < end {
            let pays = random.below(2) == 0 || !self.mix.transfers;
            let worked = match pays {
                true => self.payment(&client, &mut random, &mut book).await,
                false => {
                    number += 1;
                    let place = (index, number);
                    self.transfer(&client, &mut random, place, &mut book, &mut transfers)
                        .await
                }
            };
            worked.with_context(|| format!("client {index}"))?;
        }
        Ok((book, transfers))
    }

    async fn payment(
        &self,
        client: &Client,
        random: &mut Random,
        book: &mut Book,
    ) -> anyhow::Result<()> {
        let chosen = random.below(self.mix.used as u64) as usize;
        let amount = random.below(AMOUNT_MAX) as i64 + 1;
        // A little more in than out, so that most accounts hold something.
        let amount = if random.below(9) < 5 { amount } else { -amount };
        let begun = Instant::now();
        match pay(client, &self.accounts[chosen], amount, &self.counts).await? {
            pay::Ending::Paid => book.paid(chosen, amount),
            pay::Ending::Refused => {}
            pay::Ending::NotExecuted => {
                self.counts.payments_failed.add(1);
                return Ok(());
            }
        }
        self.counts.payments.add(begun.elapsed());
        Ok(())
    }

    async fn transfer(
        &self,
        client: &Client,
        random: &mut Random,
        (index, number): (usize, u64),
        book: &mut Book,
        transfers: &mut Transfers,
    ) -> anyhow::Result<()> {
        let (from, to) = self.pair(random, index);
        let amount = random.below(AMOUNT_MAX) as i64 + 1;
        let transfer = Transfer {
            from: &self.accounts[from],
            to: &self.accounts[to],
            amount,
            number,
            by_branch: random.below(2) == 0,
        };
        let begun = Instant::now();
        let made = transfer.make(client, &self.tills[index], &self.counts);
        match made.await? {
            transfer::Ending::Committed => {
                book.paid(from, -amount);
                book.paid(to, amount);
                transfers.insert(number);
                self.counts.transfers.add(begun.elapsed());
            }
            transfer::Ending::Refused => self.counts.refused.add(1),
            transfer::Ending::Aborted => self.counts.aborted.add(1),
        }
        Ok(())
    }

    /// Two accounts, in the order in which they are taken.
    fn pair(&self, random: &mut Random, client: usize) -> (usize, usize) {
        let all = self.mix.used;
        let hot = random.below(3) == 0;
        let among = if hot { HOT.min(all) } else { all } as u64;
        let one = random.below(among);
        // Another one: the same is left out.
        let other = (one + 1 + random.below(among - 1)) % among;
        let (low, high) = (one.min(other) as usize, one.max(other) as usize);
        match (self.mix.crossing, hot) {
            (false, _) => (low, high),
            (true, true) if client.is_multiple_of(2) => (low, high),
            (true, true) => (high, low),
            (true, false) => (one as usize, other as usize),
        }
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
