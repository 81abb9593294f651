//! What accounts and branches do.
//!
//! A servant has no account of its own: each method is handed the state of the object that is
//! called, alone if it writes. What a method leaves in the state is on disk before the caller
//! gets the answer; if it raises, nothing has changed.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use partha::{Completed, Context, Place, Result, SystemError, Uid};

use crate::account::{self, DepositError, WithdrawError};
use crate::branch::{self, TransferError};
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
        let (uid, client) = (cx.uid(), cx.client().clone());
        let Some(told) = self.watchers.lock().get(&uid).cloned() else {
            return;
        };
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

fn check(amount: i64) -> Result<(), BadAmount> {
    match amount > 0 {
        true => Ok(()),
        false => Err(BadAmount {
            amount,
            reason: "an amount is more than nothing".to_owned(),
        }),
    }
}

/// The servant of branches.
#[derive(Clone, Copy, Debug, Default)]
pub struct BranchServant;

impl branch::Servant for BranchServant {
    fn new(&self) -> branch::State {
        branch::State {
            accounts: BTreeMap::new(),
        }
    }

    async fn open(
        &self,
        state: &mut branch::State,
        cx: &Context,
        owner: String,
    ) -> Result<Account> {
        if let Some(account) = state.accounts.get(&owner) {
            return Ok(account.clone());
        }
        let account = Account::create(cx, &Place::Any, &owner).await?;
        state.accounts.insert(owner, account.clone());
        Ok(account)
    }

    async fn accounts(
        &self,
        state: &branch::State,
        _cx: &Context,
    ) -> Result<BTreeMap<String, Account>> {
        Ok(state.accounts.clone())
    }

    async fn transfer(
        &self,
        _state: &mut branch::State,
        cx: &Context,
        from: Account,
        to: Account,
        amount: i64,
    ) -> Result<(), TransferError> {
        if from == to {
            let reason = "an account cannot pay itself".to_owned();
            return Err(BadAmount { amount, reason }.into());
        }
        from.withdraw(cx, amount)
            .await
            .map_err(|error| match error {
                WithdrawError::InsufficientFunds(error) => TransferError::InsufficientFunds(error),
                WithdrawError::BadAmount(error) => TransferError::BadAmount(error),
                WithdrawError::System(error) => TransferError::System(error),
            })?;
        let Err(error) = deposit(cx, &to, amount).await else {
            return Ok(());
        };
        if deposit(cx, &from, amount).await.is_err() {
            let (from, to) = (from.uid(), to.uid());
            let detail = format!("{amount} left {from} but reached neither {to} nor {from} again");
            return Err(SystemError::servant(detail).into());
        }
        Err(match error {
            DepositError::BadAmount(error) => TransferError::BadAmount(error),
            DepositError::System(error) => TransferError::System(error),
        })
    }
}

/// Pays in, and if the answer is lost, asks for it until there is one or time is up: an error
/// other than "perhaps" says that nothing was paid in.
async fn deposit(cx: &Context, account: &Account, amount: i64) -> Result<(), DepositError> {
    let id = cx.client().new_call_id();
    let mut paid = account.deposit(&cx.call().id(id), amount).await;
    while let Err(DepositError::System(error)) = &paid
        && error.completion() == Completed::Maybe
        && !cx.time_left().is_zero()
    {
        paid = account.deposit(&cx.call().again(id), amount).await;
    }
    paid.map(drop)
}
