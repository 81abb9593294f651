//! `partha demo`: a bank under load, whose nodes are killed, and whose books must agree.
//!
//! Naming service, binder and two nodes run as processes on fresh stores. Clients pay in and out
//! and keep books of their own: what was acknowledged counts, what was refused does not. A call
//! whose outcome is unknown, since its node was killed under it, is asked for again under the
//! same id until there is an answer; what is certain not to have been executed does not count.
//! At the end every balance is compared with the books.

mod bank;
mod histogram;
mod load;
mod progress;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use partha::Client;

use bank::{ACCOUNTS_MAX, Bank};
use load::Load;

/// Differences that are listed, at most.
const SHOWN_MAX: usize = 10;

/// Run a bank under load, kill its nodes, and compare the books
///
/// Starts everything it needs as child processes, on fresh stores in a temporary folder and free
/// ports of this machine. Exit status 1 if a single account differs.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  partha demo --seconds 10 --kill")]
pub(crate) struct Arguments {
    /// How long to run the load
    #[arg(long, value_name = "COUNT", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Kill a random node with SIGKILL every second, and restart it
    #[arg(long)]
    kill: bool,
    /// How many clients call, each one call at a time
    #[arg(long, value_name = "COUNT", default_value_t = 16,
          value_parser = clap::value_parser!(u32).range(1..=1_000))]
    clients: u32,
    /// How many accounts there are
    #[arg(long, value_name = "COUNT", default_value_t = 1_000,
          value_parser = clap::value_parser!(u32).range(1..=ACCOUNTS_MAX))]
    accounts: u32,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    tokio::select! {
        shown = show(&arguments) => shown,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.context("cannot handle Ctrl-C")?;
            bail!("interrupted")
        }
    }
}

async fn show(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut bank = Bank::start().await?;
    let ended = measure(&mut bank, arguments).await;
    let logs = if ended.is_err() {
        bank.log_lines()
    } else {
        Vec::new()
    };
    for line in logs {
        eprintln!("{line}");
    }
    bank.stop().await;
    ended
}

async fn measure(bank: &mut Bank, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let client = Client::connect(bank.naming()).await?;
    let begun = Instant::now();
    let accounts = bank::open_accounts(&client, arguments.accounts).await?;
    println!(
        "{} accounts opened over nodes a and b in {:.1} s",
        accounts.len(),
        begun.elapsed().as_secs_f64()
    );
    let load = Load::new(bank.naming(), accounts.clone(), arguments.clients);
    let time = Duration::from_secs(arguments.seconds);
    let begun = Instant::now();
    let end = tokio::time::Instant::now() + time;
    let (books, kills, ()) = tokio::try_join!(
        load.run(end),
        async {
            match arguments.kill {
                true => bank.kill_nodes(&client, end, load.counts()).await,
                false => Ok(0),
            }
        },
        progress::show(load.counts(), begun, time),
    )?;
    let elapsed = begun.elapsed();
    let counts = load.counts();
    let calls = counts.calls();
    println!("{:<16} {calls}", "calls");
    println!(
        "{:<16} {:.0}",
        "calls/s",
        calls as f64 / elapsed.as_secs_f64()
    );
    let (p50, p99) = (counts.latency(0.50), counts.latency(0.99));
    println!("{:<16} {} / {}", "p50 / p99", millis(p50), millis(p99));
    println!("{:<16} {kills}", "kills");
    println!(
        "{:<16} {}",
        "re-activations",
        bank.reactivations(&client).await?
    );
    let settled = counts.settled();
    println!(
        "{:<16} {settled} calls whose outcome was unknown at first",
        "settled"
    );
    compare(bank, &accounts, &books).await
}

/// Compares every balance with the books.
async fn compare(
    bank: &Bank,
    accounts: &[::bank::Account],
    books: &[i64],
) -> anyhow::Result<ExitCode> {
    // A client of its own: nothing that an earlier one has cached can help.
    let client = Client::connect(bank.naming()).await?;
    let balances = bank::balances(&client, accounts).await?;
    let differ: Vec<_> = (0..accounts.len())
        .filter(|&index| balances[index] != books[index])
        .collect();
    if differ.is_empty() {
        println!("ledger: {} accounts agree", accounts.len());
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "ledger: {} of {} accounts differ",
        differ.len(),
        accounts.len()
    );
    for &index in differ.iter().take(SHOWN_MAX) {
        let (name, uid) = (bank::account_name(index as u32), accounts[index].uid());
        let (balance, book) = (balances[index], books[index]);
        println!("  {name} ({uid}) holds {balance}, the books say {book}");
    }
    if differ.len() > SHOWN_MAX {
        println!("  … and {} more", differ.len() - SHOWN_MAX);
    }
    Ok(ExitCode::FAILURE)
}

/// A time with a unit that suits it.
fn millis(time: Duration) -> String {
    match time.as_micros() {
        micros @ 0..1_000 => format!("{micros} µs"),
        micros @ 1_000..100_000 => format!("{:.1} ms", micros as f64 / 1e3),
        micros => format!("{} ms", micros / 1_000),
    }
}
