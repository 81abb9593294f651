//! Transfers: actions over three objects at two nodes, which name themselves in an audit log.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bank::branch::TransferError;
use bank::{Account, AuditLog, Branch};
use partha::{Action, ActionError, ActionId, ActionOptions, Client, ErrorKind, Outcome};

use super::counts::Counts;

/// How long one transfer may be tried: a killed node is back long before.
const DEADLINE: Duration = Duration::from_secs(30);
/// How often it is tried.
const TRIES: u32 = 50;
/// How long to ask for an unknown outcome.
const SETTLE_DEADLINE: Duration = Duration::from_secs(60);
/// Pause between two questions.
const ASK_PAUSE: Duration = Duration::from_millis(50);

/// What one client makes transfers with.
#[derive(Clone, Debug)]
pub(super) struct Till {
    pub(super) branch: Branch,
    pub(super) log: AuditLog,
}

/// One transfer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transfer<'a> {
    pub(super) from: &'a Account,
    pub(super) to: &'a Account,
    pub(super) amount: i64,
    /// Its name in the log of the till.
    pub(super) number: u64,
    /// Through the branch, whose servant runs the nested action; else by the client itself.
    pub(super) by_branch: bool,
}

/// How a transfer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Committed,
    /// There was not enough money; nothing has happened.
    Refused,
    /// Nothing has happened.
    Aborted,
}

impl Transfer<'_> {
    /// Makes it, and does not rest until it is known whether it was made.
    pub(super) async fn make(
        self,
        client: &Client,
        till: &Till,
        counts: &Counts,
    ) -> anyhow::Result<Ending> {
        let (tries, deadlocks) = (&AtomicU64::new(0), &AtomicU64::new(0));
        // The last try failed because of another transfer, or for want of money.
        let expected = &AtomicBool::new(false);
        let options = ActionOptions::new().deadline(DEADLINE).tries(TRIES);
        let body = async move |action: &Action| {
            let again = tries.fetch_add(1, Ordering::Relaxed) > 0;
            if again && !expected.load(Ordering::Relaxed) {
                counts.undone.add(1);
            }
            let begun = Instant::now();
            let made = self.attempt(action, till).await;
            let kind = match &made {
                Err(TransferError::System(error)) => Some(error.kind()),
                Err(_) | Ok(()) => None,
            };
            if kind == Some(ErrorKind::Deadlock) {
                deadlocks.fetch_add(1, Ordering::Relaxed);
                counts.deadlocks.add(begun.elapsed());
            }
            let rival = matches!(kind, Some(ErrorKind::Deadlock | ErrorKind::LockTimeout));
            expected.store(
                rival || (made.is_err() && kind.is_none()),
                Ordering::Relaxed,
            );
            made
        };
        let ended = client.action_retry_with(options, body).await;
        counts
            .retried
            .add(tries.load(Ordering::Relaxed).saturating_sub(1));
        let ending = match ended {
            Ok(()) => Ending::Committed,
            Err(ActionError::OutcomeUnknown { action, .. }) => {
                let ending = settle(client, action).await?;
                counts.transfers_settled.add(1);
                ending
            }
            Err(error) => match error.cause() {
                Some(TransferError::InsufficientFunds(_)) => Ending::Refused,
                Some(TransferError::BadAmount(_) | TransferError::BadReference(_)) => {
                    bail!("transfer {} is not taken: {error}", self.number)
                }
                Some(TransferError::System(_)) | None => {
                    if !expected.load(Ordering::Relaxed) {
                        counts.undone.add(1);
                    }
                    Ending::Aborted
                }
            },
        };
        if ending == Ending::Committed && deadlocks.load(Ordering::Relaxed) > 0 {
            counts.resolved.add(1);
        }
        Ok(ending)
    }

    async fn attempt(self, action: &Action, till: &Till) -> Result<(), TransferError> {
        let Self {
            from,
            to,
            amount,
            number,
            by_branch,
        } = self;
        let reference = number.to_string();
        if by_branch {
            let transferred = till.branch.transfer(action, from, to, amount, &reference);
            return transferred.await.map(drop);
        }
        till.log.note(action, &reference, from, to, amount).await?;
        let moved = action.nested(async |moved| {
            from.withdraw(moved, amount).await?;
            to.deposit(moved, amount).await?;
            Ok::<_, TransferError>(())
        });
        Ok(moved.await?)
    }
}

/// Asks for the outcome until somebody knows.
async fn settle(client: &Client, action: ActionId) -> anyhow::Result<Ending> {
    let begun = Instant::now();
    loop {
        let told = client.outcome(action).await;
        match told {
            Ok(Outcome::Committed) => return Ok(Ending::Committed),
            Ok(Outcome::Aborted) => return Ok(Ending::Aborted),
            Ok(Outcome::InFlight) | Err(_) if begun.elapsed() < SETTLE_DEADLINE => {
                tokio::time::sleep(ASK_PAUSE).await;
            }
            Ok(Outcome::InFlight) => bail!("action {action} is in flight for ever"),
            Err(error) => {
                let what = format!("the outcome of action {action} cannot be learnt");
                return Err(error).context(what);
            }
        }
    }
}
