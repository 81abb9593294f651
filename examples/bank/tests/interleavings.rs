//! The example of the textbooks: X, Y and Z hold 100 each; one action moves 5 from X to Z, the
//! other 7 from Y to Z, at the same time. Whatever the interleaving, the end is 95, 93, 112.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::time::Duration;

use bank::Account;
use bank::branch::TransferError;
use common::Bank;
use partha::{ActionOptions, Client};

/// Pairs of actions that run at the same time.
const ROUNDS: u64 = 60;

/// Numbers that look random: xorshift64* (Vigna).
#[derive(Clone, Copy)]
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound
    }

    /// Lets the other one go on, or not.
    async fn pause(&mut self) {
        match self.below(4) {
            0 => {}
            1 => tokio::task::yield_now().await,
            _ => tokio::time::sleep(Duration::from_micros(self.below(2_000))).await,
        }
    }
}

/// Moves an amount, with pauses between all steps. Half of the time it reads first what it is
/// about to write, so that two of them can each have read what the other wants to write.
async fn moved(client: &Client, from: &Account, to: &Account, amount: i64, seed: u64) {
    let random = Random(seed);
    let options = ActionOptions::new().tries(100);
    let done = client
        .action_retry_with(options, async |action| {
            let mut random = random;
            random.pause().await;
            let before = match random.below(2) {
                0 => None,
                _ => Some(to.balance(action).await?),
            };
            random.pause().await;
            from.withdraw(action, amount).await?;
            random.pause().await;
            let after = to.deposit(action, amount).await?;
            // What it has read is what it writes upon: nobody has come in between.
            assert!(before.is_none_or(|before| before + amount == after));
            random.pause().await;
            Ok::<_, TransferError>(())
        })
        .await;
    done.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_interleaving_ends_with_95_93_112() {
    let bank = Bank::open().await;
    let client = &bank.client;
    for round in 1..=ROUNDS {
        // At all places in turn: all at one node, Z apart, all three mixed.
        let node = |bit: u64| if round >> bit & 1 == 0 { "a" } else { "b" };
        let accounts = [node(0), node(1), node(2)].map(|node| bank.account(node));
        let [x, y, z] = accounts;
        let (x, y, z) = tokio::join!(x, y, z);
        for account in [&x, &y, &z] {
            account.deposit(client, 100).await.unwrap();
        }
        tokio::join!(
            moved(client, &x, &z, 5, round * 2),
            moved(client, &y, &z, 7, round * 2 + 1),
        );
        let (x, y, z) = (x.balance(client), y.balance(client), z.balance(client));
        let ended = tokio::join!(x, y, z);
        let ended = (ended.0.unwrap(), ended.1.unwrap(), ended.2.unwrap());
        assert_eq!(ended, (95, 93, 112), "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_reads_all_in_one_action_sees_nothing_half_done() {
    let bank = Bank::open().await;
    let client = &bank.client;
    let (x, y, z) = (bank.account("a"), bank.account("b"), bank.account("a"));
    let (x, y, z) = tokio::join!(x, y, z);
    for account in [&x, &y, &z] {
        account.deposit(client, 100).await.unwrap();
    }
    let moving = async {
        for seed in 1..20 {
            moved(client, &x, &z, 1, seed).await;
            moved(client, &z, &y, 1, seed + 100).await;
        }
    };
    let auditing = async {
        for seed in 1..20 {
            let random = Random(seed);
            let options = ActionOptions::new().tries(100);
            let sum = client
                .action_retry_with(options, async |action| {
                    let (mut random, mut sum) = (random, 0);
                    for account in [&x, &y, &z] {
                        sum += account.balance(action).await?;
                        random.pause().await;
                    }
                    Ok::<_, partha::SystemError>(sum)
                })
                .await;
            assert_eq!(sum.unwrap(), 300);
        }
    };
    tokio::join!(moving, auditing);
}
