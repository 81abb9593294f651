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

use anyhow::bail;
use clap::Args;
use partha::Client;
use partha_daemon::Stop;

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
    let mut stop = Stop::new(false)?;
    tokio::select! {
        shown = show(&arguments) => shown,
        // What is dropped here kills its children and removes their folder.
        _ = stop.requested() => bail!("interrupted"),
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

/// Compares every balance with the books, and says what was found.
async fn compare(
    bank: &Bank,
    accounts: &[::bank::Account],
    books: &[i64],
) -> anyhow::Result<ExitCode> {
    // A client of its own: nothing that an earlier one has cached can help.
    let client = Client::connect(bank.naming()).await?;
    let balances = bank::balances(&client, accounts).await?;
    let verdict = verdict(&balances, books);
    println!("{}", verdict.text);
    Ok(if verdict.agree {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What the comparison of balances with books says.
#[derive(Debug)]
struct Verdict {
    agree: bool,
    text: String,
}

fn verdict(balances: &[i64], books: &[i64]) -> Verdict {
    let count = books.len();
    let of = |index: usize| {
        (
            balances.get(index).copied().unwrap_or_default(),
            books[index],
        )
    };
    let differ: Vec<_> = (0..count)
        .filter(|&index| of(index).0 != of(index).1)
        .collect();
    if differ.is_empty() {
        return Verdict {
            agree: true,
            text: format!("ledger: {count} accounts agree"),
        };
    }
    let mut text = format!("ledger: {} of {count} accounts differ", differ.len());
    for &index in differ.iter().take(SHOWN_MAX) {
        let (name, (balance, book)) = (bank::account_name(index as u32), of(index));
        text += &format!("\n  {name} holds {balance}, the books say {book}");
    }
    if differ.len() > SHOWN_MAX {
        text += &format!("\n  … and {} more", differ.len() - SHOWN_MAX);
    }
    Verdict { agree: false, text }
}

/// A time with a unit that suits it.
fn millis(time: Duration) -> String {
    match time.as_micros() {
        micros @ 0..1_000 => format!("{micros} µs"),
        micros @ 1_000..100_000 => format!("{:.1} ms", micros as f64 / 1e3),
        micros => format!("{} ms", micros / 1_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn books_that_agree_are_said_to() {
        let verdict = verdict(&[5, 0, -1], &[5, 0, -1]);
        assert!(verdict.agree);
        assert_eq!(verdict.text, "ledger: 3 accounts agree");
    }

    #[test]
    fn a_single_difference_is_found_and_shown() {
        let verdict = verdict(&[5, 0, 7], &[5, 1, 7]);
        assert!(!verdict.agree);
        let expected = "ledger: 1 of 3 accounts differ\n  /bank/0000/01 holds 0, the books say 1";
        assert_eq!(verdict.text, expected);
    }

    #[test]
    fn of_many_differences_the_first_are_shown() {
        let verdict = verdict(&[0; 25], &[1; 25]);
        assert!(!verdict.agree && verdict.text.ends_with("… and 15 more"));
        assert_eq!(verdict.text.lines().count(), 1 + SHOWN_MAX + 1);
    }
}
