//! Every call says who calls.

use codegen_corpus::bank::Account;

async fn balance(account: &Account) -> partha::Result<i64> {
    account.balance().await
}

fn main() {}
