//! `partha demo`: a bank under load, whose nodes are killed, and whose books must agree.
//!
//! Naming service, binder and nodes run as processes on fresh stores. Clients pay in and out
//! by single calls, and transfer money between accounts in actions, and keep books of their own:
//! what was acknowledged counts, what was refused does not. A call whose outcome is unknown,
//! since its node was killed under it, is asked for again under the same id until there is an
//! answer; the outcome of an action is asked for until it is known. What is certain not to have
//! been executed does not count. At the end every account is compared with the books, and the
//! audit logs, which each transfer writes in the same action, with the transfers.

mod bank;
mod books;
mod counts;
mod failover;
mod histogram;
mod load;
mod pay;
mod progress;
mod transfer;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use partha::{Client, Replication};
use partha_daemon::Stop;

use bank::{ACCOUNTS_MAX, Bank};
use books::Verdict;
use failover::Copies;
use load::{Known, Load, Mix};

use crate::replicate::Policy;

/// Accounts if it is not said how many: with copies, each is a group, and each kill changes most.
const ACCOUNTS: u32 = 1_000;
const ACCOUNTS_COPIED: u32 = 100;

/// Accounts with copies that no client of the load uses: what is paid into them waits for nobody
/// but their leaders.
const PROBES: u32 = 16;

/// A load of so many seconds and clients is sure to have deadlocks, if they are provoked.
const SURE_SECONDS: u64 = 10;
const SURE_CLIENTS: u32 = 8;
/// And a slow machine makes fewer transfers.
const SURE_TRANSFERS: u64 = 300;

/// Run a bank under load, kill its nodes, and compare the books
///
/// Starts everything it needs as child processes, on fresh stores in a temporary folder and free
/// ports of this machine. Exit status 1 if a single account or transfer differs from the clients'
/// books, or if there was no deadlock although they are provoked; with copies, also if two copies
/// of an object are not equal in the end, no other one answered when a leader was killed, or, with
/// a policy that goes on in the middle of actions, one was undone because of that.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  partha demo --seconds 10 --kill\n  \
                  partha demo --replicas 3 --policy passive --kill --seconds 30")]
pub(crate) struct Arguments {
    /// How long to run the load
    #[arg(long, value_name = "COUNT", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Kill a random process with SIGKILL every second, and restart it: a node of the bank, the
    /// binder or the naming service
    #[arg(long)]
    kill: bool,
    /// How many clients call, each one call at a time
    #[arg(long, value_name = "COUNT", default_value_t = 16,
          value_parser = clap::value_parser!(u32).range(1..=1_000))]
    clients: u32,
    /// How many accounts there are; 1000 if not said, or 100 with copies
    #[arg(long, value_name = "COUNT",
          value_parser = clap::value_parser!(u32).range(2..=ACCOUNTS_MAX))]
    accounts: Option<u32>,
    /// How many copies each account has, 1 to 4, at four nodes instead of two
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=4))]
    replicas: Option<u16>,
    /// How the copies keep up with each other; passive, if not said
    #[arg(long, value_enum, value_name = "POLICY", requires = "replicas")]
    policy: Option<Policy>,
    /// Only payments, which are single calls, and no actions
    #[arg(long)]
    no_transfers: bool,
    /// All transfers take their accounts in one order, so that there is no deadlock
    #[arg(long)]
    no_crossing: bool,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let mut stop = Stop::new(false)?;
    tokio::select! {
        shown = show(&arguments) => shown,
        // What is dropped here kills its children and removes their folder.
        _ = stop.requested() => bail!("interrupted"),
    }
}

impl Arguments {
    fn policy(&self) -> Policy {
        self.policy.unwrap_or(Policy::Passive)
    }

    /// The copies of each account, if they have any.
    fn replication(&self) -> Option<Replication> {
        self.replicas.map(|copies| self.policy().with(copies))
    }

    /// The names of the bank's nodes.
    fn nodes(&self) -> &'static [&'static str] {
        match self.replicas {
            Some(_) => &["a", "b", "c", "d"],
            None => &["a", "b"],
        }
    }

    /// What the clients do.
    fn mix(&self) -> Mix {
        Mix {
            used: self.accounts() as usize,
            crossing: !self.no_crossing,
            transfers: !self.no_transfers,
        }
    }

    fn accounts(&self) -> u32 {
        let usual = match self.replicas {
            Some(_) => ACCOUNTS_COPIED,
            None => ACCOUNTS,
        };
        self.accounts.unwrap_or(usual)
    }
}

async fn show(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if let Some(replication) = arguments.replication() {
        replication.check()?;
    }
    let mut bank = Bank::start(arguments.nodes()).await?;
    let ended = measure(&mut bank, arguments).await;
    let well = matches!(&ended, Ok(code) if *code == ExitCode::SUCCESS);
    let logs = match well {
        true => Vec::new(),
        false => bank.log_lines(),
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
    let (nodes, replication) = (arguments.nodes(), arguments.replication());
    let probes = replication.as_ref().map_or(0, |_| PROBES);
    let accounts = arguments.accounts() + probes;
    let accounts = bank::open_accounts(&client, accounts, nodes, replication.as_ref()).await?;
    let clients = arguments.clients;
    let tills = bank::open_tills(&client, clients, nodes, replication.as_ref()).await?;
    println!(
        "{} accounts opened over nodes {} in {:.1} s",
        accounts.len(),
        nodes.join(" and "),
        begun.elapsed().as_secs_f64()
    );
    let naming = bank.naming();
    let mix = arguments.mix();
    let load = Load::new(naming, accounts.clone(), tills.clone(), mix);
    let mut copies = replication.map(|it| Copies::new(&client, (&accounts, mix.used, &tills), &it));
    let time = Duration::from_secs(arguments.seconds);
    let begun = Instant::now();
    let end = tokio::time::Instant::now() + time;
    let (mut known, kills, ()) = tokio::try_join!(
        load.run(end),
        async {
            match arguments.kill {
                true => {
                    let counts = load.counts();
                    bank.kill_some(&client, end, counts, copies.as_mut()).await
                }
                false => Ok(String::new()),
            }
        },
        progress::show(load.counts(), begun, time),
    )?;
    show_figures(&load, begun.elapsed());
    let kills_counted = load.counts().kills.get();
    figure("kills", format!("{kills_counted}{kills}"));
    figure("re-activations", bank.reactivations(&client).await?);
    let equal = match copies {
        Some(copies) => {
            if arguments.kill {
                show_failovers(&load);
            }
            let verdict = copies.compare().await?;
            known.book.add(&copies.into_book());
            println!("{}", verdict.text);
            let undone = arguments.policy().takes_over() && load.counts().undone.get() > 0;
            verdict.agree && load.counts().stuck.get() == 0 && !undone
        }
        None => true,
    };
    bank::fund(&mut known.book);
    let agree = compare(bank, &accounts, &tills, &known).await?;
    let sure = arguments.seconds >= SURE_SECONDS
        && arguments.clients >= SURE_CLIENTS
        && load.counts().transfers.count() >= SURE_TRANSFERS;
    let missed = sure && mix.transfers && mix.crossing && load.counts().deadlocks.count() == 0;
    if missed {
        println!("deadlocks: there was none, although transfers cross");
    }
    Ok(match agree && equal && !missed {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn show_figures(load: &Load, elapsed: Duration) {
    let counts = load.counts();
    let rate = |count: u64| format!("{count} ({:.0}/s)", count as f64 / elapsed.as_secs_f64());
    let (median, worst) = (counts.latency(0.50), counts.latency(0.99));
    figure("payments", rate(counts.payments.count()));
    figure(
        "  p50 / p99",
        format!("{} / {}", millis(median.0), millis(worst.0)),
    );
    figure("transfers", rate(counts.transfers.count()));
    figure(
        "  p50 / p99",
        format!("{} / {}", millis(median.1), millis(worst.1)),
    );
    figure(
        "refused",
        format!("{} transfers for want of money", counts.refused.get()),
    );
    figure(
        "aborted",
        format!("{} transfers after all tries", counts.aborted.get()),
    );
    figure(
        "failed",
        format!(
            "{} payments, surely not executed",
            counts.payments_failed.get()
        ),
    );
    figure("retried", counts.retried.get());
    figure(
        "undone",
        format!("{} tries of transfers, by kills", counts.undone.get()),
    );
    figure(
        "deadlocks",
        format!(
            "{} found, {} of their victims committed in the end",
            counts.deadlocks.count(),
            counts.resolved.get()
        ),
    );
    let found = &counts.deadlocks;
    if found.count() > 0 {
        let (median, worst) = (found.quantile(0.50), found.quantile(0.99));
        let (median, worst) = (millis(median), millis(worst));
        figure(
            "  p50 / p99",
            format!("{median} / {worst} from the victim's begin"),
        );
    }
    figure(
        "settled",
        format!(
            "{} payments and {} transfers whose outcome was unknown at first",
            counts.payments_settled.get(),
            counts.transfers_settled.get()
        ),
    );
}

/// How long it took until another copy answered.
fn show_failovers(load: &Load) {
    let (found, stuck) = (&load.counts().failovers, load.counts().stuck.get());
    let (median, worst) = (millis(found.quantile(0.50)), millis(found.quantile(0.99)));
    figure(
        "fail-overs",
        format!(
            "{} leaders killed, {stuck} without another one",
            found.count() + stuck
        ),
    );
    figure(
        "  p50 / p99",
        format!("{median} / {worst} from the kill to the next payment"),
    );
}

fn figure(name: &str, value: impl std::fmt::Display) {
    println!("{name:<16} {value}");
}

/// Compares every account and every audit log with the books, and says what was found.
async fn compare(
    bank: &Bank,
    accounts: &[::bank::Account],
    tills: &[transfer::Till],
    known: &Known,
) -> anyhow::Result<bool> {
    // A client of its own: nothing that an earlier one has cached can help.
    let client = Client::connect(bank.naming()).await?;
    let found = bank::statements(&client, accounts).await?;
    let logs = bank::audit_logs(&client, tills).await?;
    let name = |index: usize| bank::account_name(index as u32);
    let verdicts = [
        books::audit(&known.transfers, &logs),
        books::total(&known.book, &found),
        books::ledger(&known.book, &found, name),
    ];
    for Verdict { text, .. } in &verdicts {
        println!("{text}");
    }
    Ok(verdicts.iter().all(|verdict| verdict.agree))
}

/// A time with a unit that suits it.
fn millis(time: Duration) -> String {
    match time.as_micros() {
        micros @ 0..1_000 => format!("{micros} µs"),
        micros @ 1_000..100_000 => format!("{:.1} ms", micros as f64 / 1e3),
        micros => format!("{} ms", micros / 1_000),
    }
}
