//! A nested action is its closure's, and nothing can be called in it afterwards.

use codegen_corpus::bank::Account;
use partha::{Action, Client, SystemError};

async fn kept(client: &Client, account: &Account) -> Result<(), Box<dyn std::error::Error>> {
    let mut kept: Option<&Action> = None;
    client
        .action(async |outer| {
            outer
                .nested(async |inner| {
                    kept = Some(inner);
                    Ok::<_, SystemError>(())
                })
                .await?;
            Ok::<_, SystemError>(())
        })
        .await?;
    if let Some(inner) = kept {
        account.balance(inner).await?;
    }
    Ok(())
}

fn main() {}
