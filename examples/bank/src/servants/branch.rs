//! Branches: an action with a nested one in it.

use std::collections::BTreeMap;

use partha::{Context, Place, Result};

use super::account::check;
use crate::branch::{self, TransferError};
use crate::{Account, AuditLog, BadAmount};

/// The servant of branches.
#[derive(Clone, Copy, Debug, Default)]
pub struct BranchServant;

impl branch::Servant for BranchServant {
    fn new(&self, log: AuditLog) -> branch::State {
        branch::State {
            log,
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
        state: &branch::State,
        cx: &Context,
        from: Account,
        to: Account,
        amount: i64,
        reference: String,
    ) -> Result<u64, TransferError> {
        check(amount)?;
        if from == to {
            let reason = "an account cannot pay itself".to_owned();
            return Err(BadAmount { amount, reason }.into());
        }
        // The audited action: nested if the caller is in one, else an action by itself. The
        // line and the money come together or not at all.
        let audited = cx.action(async |audited| {
            let noted = state
                .log
                .note(audited, &reference, &from, &to, amount)
                .await?;
            if !noted.before {
                let moved = audited.nested(async |moved| {
                    from.withdraw(moved, amount).await?;
                    to.deposit(moved, amount).await?;
                    Ok::<_, TransferError>(())
                });
                moved.await?;
            }
            Ok::<_, TransferError>(noted.number)
        });
        Ok(audited.await?)
    }
}
