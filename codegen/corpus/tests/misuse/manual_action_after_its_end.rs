//! Nothing can be called in an action that was told to end.

use codegen_corpus::bank::Account;
use partha::Client;

async fn late(client: &Client, account: &Account) -> Result<(), Box<dyn std::error::Error>> {
    let action = client.begin();
    action.commit().await?;
    account.balance(&action).await?;
    Ok(())
}

fn main() {}
