//! A client of the bank: opens accounts, pays in and out, transfers, watches.
//!
//! Accounts are called by name, `/bank/alice`; the teller neither knows nor asks where they are.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use bank::branch::TransferError;
use bank::{Account, Branch, Watcher, watcher};
use clap::{Parser, Subcommand};
use partha::services::naming::name_service::AddError;
use partha::{Client, Context, Place};

/// A teller of the bank
#[derive(Parser)]
#[command(name = "bank-teller", version)]
struct Arguments {
    /// Where the naming service listens
    #[arg(long, env = "PARTHA_NAMING", default_value = "127.0.0.1:7401")]
    naming: String,
    #[command(subcommand)]
    wish: Wish,
}

#[derive(Subcommand)]
enum Wish {
    /// Opens an account under a name, as /bank/carol
    Open {
        name: String,
        /// The node to open it at; any, if not said
        #[arg(long)]
        node: Option<String>,
    },
    /// Pays in
    Deposit { name: String, amount: i64 },
    /// Pays out
    Withdraw { name: String, amount: i64 },
    /// Says what accounts hold
    Balance {
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Moves money from one account to another
    Transfer {
        from: String,
        to: String,
        amount: i64,
        /// The branch that does it
        #[arg(long, default_value = "/bank/branch")]
        branch: String,
        /// The transfer's name for ever: with the same one nothing is moved twice
        #[arg(long)]
        reference: Option<String>,
    },
    /// Says what an account holds whenever that changes, until Ctrl-C
    Watch { name: String },
}

fn main() -> ExitCode {
    let Arguments { naming, wish } = Arguments::parse();
    partha_daemon::main(async move {
        let client = Client::connect(naming).await?;
        fulfil(&client, wish).await?;
        Ok(ExitCode::SUCCESS)
    })
}

async fn fulfil(client: &Client, wish: Wish) -> anyhow::Result<()> {
    match wish {
        Wish::Open { name, node } => open(client, &name, node).await,
        Wish::Deposit { name, amount } => {
            let account = Account::bind(client, &name).await?;
            println!("{name} {}", account.deposit(client, amount).await?);
            Ok(())
        }
        Wish::Withdraw { name, amount } => {
            let account = Account::bind(client, &name).await?;
            println!("{name} {}", account.withdraw(client, amount).await?);
            Ok(())
        }
        Wish::Balance { names } => {
            for name in names {
                let account = Account::bind(client, &name).await?;
                println!("{name} {}", account.balance(client).await?);
            }
            Ok(())
        }
        Wish::Transfer {
            from,
            to,
            amount,
            branch,
            reference,
        } => {
            let branch = Branch::bind(client, &branch)
                .await
                .context("no branch there")?;
            let (from, to) = (
                Account::bind(client, &from).await?,
                Account::bind(client, &to).await?,
            );
            // No other call of this system has this id.
            let reference = reference.unwrap_or_else(|| client.new_call_id().to_string());
            transfer(client, &branch, (&from, &to), amount, &reference).await
        }
        Wish::Watch { name } => watch(client, name).await,
    }
}

/// Moves money, and says what both accounts hold then: all in one action, so that nobody comes
/// in between. After a deadlock or the loss of a node it is tried again.
async fn transfer(
    client: &Client,
    branch: &Branch,
    (from, to): (&Account, &Account),
    amount: i64,
    reference: &str,
) -> anyhow::Result<()> {
    let moved = client
        .action_retry(async |action| {
            let line = branch.transfer(action, from, to, amount, reference).await?;
            let left = from.balance(action).await?;
            let there = to.balance(action).await?;
            Ok::<_, TransferError>((line, left, there))
        })
        .await;
    let (line, left, there) = moved.map_err(|error| match TransferError::from(error) {
        TransferError::System(error) => anyhow::Error::new(error),
        refused => anyhow::anyhow!("{refused}"),
    })?;
    println!("line {line} of the log; {left} left, {there} there");
    Ok(())
}

async fn open(client: &Client, name: &str, node: Option<String>) -> anyhow::Result<()> {
    let owner = name.rsplit('/').next().unwrap_or(name);
    let place = node.map_or(Place::Any, Place::Named);
    if client.naming()?.lookup(client, name).await.is_ok() {
        bail!("{name} exists already");
    }
    let account = Account::create(client, &place, owner).await?;
    match client
        .naming()?
        .add(client, name, account.uid(), Account::CLASS)
        .await
    {
        Ok(()) => println!("{name} {}", account.uid()),
        // The account that was just made has no name, and no money.
        Err(AddError::NameExists(_)) => bail!("{name} exists already"),
        Err(error) => return Err(error).with_context(|| format!("cannot name it {name}")),
    }
    Ok(())
}

/// Says what it is told.
struct Printer {
    name: String,
}

impl watcher::Servant for Printer {
    async fn changed(&self, _cx: &Context, _account: Account, balance: i64) -> partha::Result<()> {
        println!("{} {balance}", self.name);
        Ok(())
    }
}

async fn watch(client: &Client, name: String) -> anyhow::Result<()> {
    let account = Account::bind(client, &name).await?;
    println!("{name} {}", account.balance(client).await?);
    let watcher = Watcher::serve(client, Printer { name })?;
    account.watch(client, &watcher).await?;
    std::future::pending().await
}
