//! Payments: single calls outside of actions, which are executed at most once.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bank::Account;
use bank::account::{DepositError, WithdrawError};
use partha::{CallOptions, Client, Completed, SystemError};

use super::counts::Counts;

/// How long to ask for an unknown outcome: a killed node is back long before.
const SETTLE_DEADLINE: Duration = Duration::from_secs(60);
/// How long one of these questions may take.
const ASK_DEADLINE: Duration = Duration::from_secs(5);

/// How a payment ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
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

/// Pays in or out, and does not rest until it is known whether that was done.
pub(super) async fn pay(
    client: &Client,
    account: &Account,
    amount: i64,
    counts: &Counts,
) -> anyhow::Result<Ending> {
    let id = client.new_call_id();
    let error = match attempt(&client.call().id(id), account, amount).await? {
        Attempt::Answered(ending) => return Ok(ending),
        Attempt::Failed(error) if error.completion() == Completed::No => {
            return Ok(Ending::NotExecuted);
        }
        Attempt::Failed(error) => error,
    };
    counts.payments_settled.add(1);
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
