//! Accounts, and those who watch them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use partha::{Context, Result, SystemError, Uid};

use crate::account::{self, DepositError, WithdrawError};
use crate::{Account, BadAmount, InsufficientFunds, Statement, Watcher};

/// Watchers of one account, at most: they live in memory.
const WATCHERS_MAX: usize = 64;

/// The servant of accounts.
#[derive(Debug, Default)]
pub struct AccountServant {
    watchers: Watchers,
}

/// Who watches which account.
#[derive(Clone, Debug, Default)]
struct Watchers {
    all: Arc<Mutex<HashMap<Uid, Vec<Watcher>>>>,
}

impl account::Servant for AccountServant {
    fn new(&self, owner: String) -> account::State {
        account::State {
            owner,
            balance: 0,
            count: 0,
        }
    }

    async fn deposit(
        &self,
        state: &mut account::State,
        cx: &Context,
        amount: i64,
    ) -> Result<i64, DepositError> {
        check(amount)?;
        state.balance = state.balance.checked_add(amount).ok_or_else(|| {
            let reason = "more than an account can hold".to_owned();
            BadAmount { amount, reason }
        })?;
        state.count += 1;
        self.tell_watchers(cx);
        Ok(state.balance)
    }

    async fn withdraw(
        &self,
        state: &mut account::State,
        cx: &Context,
        amount: i64,
    ) -> Result<i64, WithdrawError> {
        check(amount)?;
        if state.balance < amount {
            return Err(InsufficientFunds {
                balance: state.balance,
                wanted: amount,
            }
            .into());
        }
        state.balance -= amount;
        state.count += 1;
        self.tell_watchers(cx);
        Ok(state.balance)
    }

    async fn balance(&self, state: &account::State, _cx: &Context) -> Result<i64> {
        Ok(state.balance)
    }

    async fn statement(&self, state: &account::State, _cx: &Context) -> Result<Statement> {
        let account::State {
            owner,
            balance,
            count,
        } = state.clone();
        Ok(Statement {
            owner,
            balance,
            count,
        })
    }

    async fn watch(&self, _state: &account::State, cx: &Context, watcher: Watcher) -> Result<()> {
        let mut all = self.watchers.lock();
        let watchers = all.entry(cx.uid()).or_default();
        if watchers.len() >= WATCHERS_MAX {
            let detail = format!("{WATCHERS_MAX} watch this account already");
            return Err(SystemError::servant(detail));
        }
        watchers.push(watcher);
        Ok(())
    }
}

impl AccountServant {
    /// Tells the watchers what the account holds, once this change is on disk: they are told
    /// what a call of their own would read, which waits for the change to be complete.
    fn tell_watchers(&self, cx: &Context) {
        let uid = cx.uid();
        let Some(told) = self.watchers.lock().get(&uid).cloned() else {
            return;
        };
        let client = cx.client().clone();
        let watchers = self.watchers.clone();
        tokio::spawn(async move {
            let account = Account::from_uid(uid);
            let Ok(balance) = account.balance(&client).await else {
                return;
            };
            for watcher in told {
                if let Err(error) = watcher.changed(&client, &account, balance).await {
                    tracing::debug!(%error, "a watcher is gone");
                    watchers.forget(uid, &watcher);
                }
            }
        });
    }
}

impl Watchers {
    fn lock(&self) -> MutexGuard<'_, HashMap<Uid, Vec<Watcher>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, account: Uid, gone: &Watcher) {
        let mut all = self.lock();
        if let Some(watchers) = all.get_mut(&account) {
            watchers.retain(|watcher| watcher != gone);
            if watchers.is_empty() {
                all.remove(&account);
            }
        }
    }
}

pub(super) fn check(amount: i64) -> Result<(), BadAmount> {
    match amount > 0 {
        true => Ok(()),
        false => Err(BadAmount {
            amount,
            reason: "an amount is more than nothing".to_owned(),
        }),
    }
}
