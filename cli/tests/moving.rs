//! Objects that move while they are used, and nodes that are emptied while they work, with naming
//! service, binder and bank nodes as processes.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bank::branch::TransferError;
use bank::{Account, AuditLog};
use common::LONG;
use common::system::System;
use futures_util::StreamExt as _;
use futures_util::stream;
use partha::{Action, ActionOptions, Client, Place};
use serde_json::{Value, json};
use test_support::{Child, Exit, Signal, eventually};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// What each account begins with, in cents.
const FUNDS: i64 = 1_000;
/// Accounts that are opened at a time.
const TOGETHER: usize = 64;
/// Clients that transfer money.
const TELLERS: u64 = 4;

/// A bank whose accounts and log are at node a.
struct Bank {
    client: Client,
    accounts: Arc<Vec<Account>>,
    log: AuditLog,
}

/// Transfers that were acknowledged, by teller and number.
type Made = BTreeSet<(u64, u64)>;

/// Transfers that go on until they are stopped.
struct Load {
    stop: Arc<AtomicBool>,
    made: Arc<Mutex<Made>>,
    /// Attempts that were undone, and made again.
    undone: Arc<AtomicU64>,
    tellers: Vec<JoinHandle<()>>,
}

impl Bank {
    async fn open(system: &System, accounts: usize) -> Self {
        let client = Client::connect(system.naming.clone()).await.unwrap();
        let place = Place::Named("a".to_owned());
        let opened = stream::iter(0..accounts).map(async |number| {
            let owner = format!("owner {number}");
            let account = Account::create(&client, &place, &owner).await.unwrap();
            account.deposit(&client, FUNDS).await.unwrap();
            account
        });
        let opened: Vec<_> = opened.buffered(TOGETHER).collect().await;
        let log = AuditLog::create(&client, &place).await.unwrap();
        let naming = client.naming().unwrap();
        for (name, account) in [("/first", &opened[0]), ("/second", &opened[1])] {
            let added = naming.add(&client, name, account.uid(), Account::CLASS);
            added.await.unwrap();
        }
        let added = naming.add(&client, "/log", log.uid(), AuditLog::CLASS);
        added.await.unwrap();
        Self {
            client,
            accounts: Arc::new(opened),
            log,
        }
    }

    /// Begins to transfer money between the accounts, by clients of their own.
    async fn load(&self, system: &System) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let made = Arc::<Mutex<Made>>::default();
        let undone = Arc::<AtomicU64>::default();
        let mut tellers = Vec::new();
        for teller in 0..TELLERS {
            let client = Client::connect(system.naming.clone()).await.unwrap();
            let (accounts, log) = (self.accounts.clone(), self.log.clone());
            let (stop, made, undone) = (stop.clone(), made.clone(), undone.clone());
            tellers.push(tokio::spawn(async move {
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    let reference = reference((teller, number));
                    let tries = AtomicU64::new(0);
                    if transfer(&client, &accounts, &log, &reference, number, &tries).await {
                        made.lock().unwrap().insert((teller, number));
                    }
                    undone.fetch_add(tries.into_inner() - 1, Ordering::Relaxed);
                    number += 1;
                }
            }));
        }
        Load {
            stop,
            made,
            undone,
            tellers,
        }
    }

    /// Sees that each account has what the acknowledged transfers have left it, each of them made
    /// once, and that the log has these transfers alone.
    async fn check(&self, made: &Made) {
        let count = self.accounts.len();
        let mut expected = vec![FUNDS; count];
        for (_, number) in made {
            let (from, to) = ends(*number, count);
            expected[from] -= 1;
            expected[to] += 1;
        }
        let asked = self.accounts.iter();
        let asked = asked.map(async |account| account.balance(&self.client).await.unwrap());
        let balances: Vec<_> = stream::iter(asked).buffered(TOGETHER).collect().await;
        assert_eq!(balances, expected);
        let (mut noted, mut after) = (Vec::new(), 0);
        loop {
            let page = self.log.lines(&self.client, after, 500).await.unwrap();
            let Some(last) = page.last() else { break };
            after = last.number;
            noted.extend(page.into_iter().map(|line| line.reference));
        }
        let mut known: Vec<_> = made.iter().map(|made| reference(*made)).collect();
        noted.sort();
        known.sort();
        assert_eq!(noted, known, "lines of the log, and transfers acknowledged");
    }
}

/// What the log calls a transfer.
fn reference((teller, number): (u64, u64)) -> String {
    format!("{teller}/{number}")
}

/// Between which of so many accounts a transfer is.
fn ends(number: u64, count: usize) -> (usize, usize) {
    let count = count as u64;
    let (from, to) = (number * 7, number * 7 + 1 + number % (count - 1));
    ((from % count) as usize, (to % count) as usize)
}

/// One transfer, in an action. False if there was not enough money.
async fn transfer(
    client: &Client,
    accounts: &[Account],
    log: &AuditLog,
    reference: &str,
    number: u64,
    tries: &AtomicU64,
) -> bool {
    let (from, to) = ends(number, accounts.len());
    let (from, to) = (&accounts[from], &accounts[to]);
    let options = ActionOptions::new().deadline(LONG).tries(1_000);
    let made = client.action_retry_with(options, async |action: &Action| {
        tries.fetch_add(1, Ordering::Relaxed);
        log.note(action, reference, from, to, 1).await?;
        let moved = action.nested(async |moved| {
            from.withdraw(moved, 1).await?;
            to.deposit(moved, 1).await?;
            Ok::<_, TransferError>(())
        });
        Ok::<_, TransferError>(moved.await?)
    });
    match made.await {
        Ok(()) => true,
        Err(error) => match error.cause() {
            Some(TransferError::InsufficientFunds(_)) => false,
            _ => panic!("transfer {reference}: {error}"),
        },
    }
}

impl Load {
    fn made(&self) -> usize {
        self.made.lock().unwrap().len()
    }

    /// Waits until so many more transfers were made.
    async fn goes_on(&self, more: usize) {
        let wanted = self.made() + more;
        let until = Instant::now() + LONG;
        while self.made() < wanted {
            assert!(Instant::now() < until, "no transfers any more");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Stops; which were made in all. None of them was undone and made again: all take the log
    /// first, so that no two of them wait for each other, and that objects move is no reason.
    async fn stop(self) -> Made {
        self.stop.store(true, Ordering::Relaxed);
        for teller in self.tellers {
            teller.await.unwrap();
        }
        assert_eq!(self.undone.load(Ordering::Relaxed), 0, "attempts undone");
        std::mem::take(&mut *self.made.lock().unwrap())
    }
}

/// Begins a drain.
fn begin(system: &System, arguments: &[&str]) -> Child {
    let all = [&["node", "drain"], arguments, &["--json"]].concat();
    Child::spawn("drain", &mut system.command(&all))
}

/// Waits for a drain: its status, what it said, and what it said meanwhile.
fn end(drain: &Child) -> (i32, Value, String) {
    let (exit, out, err) = drain.finish(10 * LONG);
    let Exit::Code(status) = exit else {
        panic!("{exit:?}: {err}");
    };
    let told = serde_json::from_str(&out);
    let told = told.unwrap_or_else(|error| panic!("{error}: {out}\n{err}"));
    (status, told, err)
}

fn drain(system: &System, arguments: &[&str]) -> (i32, Value) {
    let (status, told, _) = end(&begin(system, arguments));
    (status, told)
}

/// A figure of a node.
fn figure(system: &System, node: &str, name: &str) -> u64 {
    system.json(&["stats", node])[name].as_u64().unwrap()
}

/// Objects in the store of a node.
async fn stored(client: &Client, system: &System, node: &str) -> usize {
    let nodes = system.json(&["nodes"]);
    let mut nodes = nodes.as_array().unwrap().iter();
    let row = nodes.find(|row| row["node"] == node).unwrap();
    let address = row["address"][0].as_str().unwrap();
    let node = client.node_at(address).await.unwrap();
    let page = node.manager().objects(client, partha::Uid::NIL, 1_000);
    page.await.unwrap().len()
}

#[test]
fn an_object_moves_and_everybody_finds_it() {
    let mut system = System::start(&["a", "b", "c"]);
    system.account("/x", "a", 5);
    let moved = system.json(&["move", "/x", "b"]);
    assert_eq!(
        [&moved["from"], &moved["to"], &moved["moves"]],
        [&json!("a"), &json!("b"), &json!(1)]
    );
    let uid = moved["uid"].as_str().unwrap();
    let told = system.json(&["describe", "/x"]);
    let shown = ["node", "moves", "came_from", "forwards"].map(|name| told[name].clone());
    assert_eq!(shown, [json!("b"), json!(1), json!("a"), json!(["a"])]);
    assert_eq!(system.json(&["ls", "/x"])[0]["node"], "b");
    assert_eq!(system.balances(["/x", uid]), [5, 5]);
    system.ok(&["call", "/x", "deposit", r#"{"amount": 1}"#]);

    // Where it is already it stays.
    let again = system.json(&["move", uid, "b"]);
    assert_eq!([&again["from"], &again["moves"]], [&json!("b"), &json!(1)]);
    // It moves on, and back to where it was born.
    assert_eq!(system.json(&["move", "/x", "c"])["moves"], 2);
    assert_eq!(system.balances(["/x"]), [6]);
    system.kill("c");
    system.revive("c");
    assert_eq!(system.balances(["/x"]), [6]);
    // Whoever comes to a is sent to c, and not over b.
    let told = system.json(&["describe", "/x"]);
    assert_eq!(
        [&told["node"], &told["forwards"]],
        [&json!("c"), &json!(["a"])]
    );
    assert_eq!(system.json(&["move", "/x", "a"])["moves"], 3);
    let told = system.json(&["describe", "/x"]);
    let shown = ["node", "moves", "came_from", "forwards"].map(|name| told[name].clone());
    assert_eq!(shown, [json!("a"), json!(3), json!("c"), json!([])]);
    assert_eq!(system.balances(["/x"]), [6]);

    // A cordoned node gets it only if that is insisted on.
    system.ok(&["node", "cordon", "b"]);
    assert!(system.fails(&["move", "/x", "b"]).1.contains("--force"));
    assert_eq!(system.json(&["move", "/x", "b", "--force"])["moves"], 4);
    // The binder leads to it when the node that made it is gone.
    system.kill("a");
    assert_eq!(system.balances(["/x"]), [6]);
    assert_eq!(system.json(&["describe", "/x"])["node"], "b");
}

/// An object that is sent to and fro serves in between; nothing is held back for that.
#[test]
fn what_has_just_come_serves_before_it_moves_on() {
    let system = System::with_flags(&["a", "b", "c"], &["--move-cooldown", "1h"]);
    system.account("/x", "a", 5);
    assert_eq!(system.json(&["move", "/x", "b"])["moves"], 1);
    let (status, err) = system.fails(&["move", "/x", "a", "--wait", "1s"]);
    assert_eq!(status, 1, "{err}");
    assert!(err.contains("just come, and stays for another 3"), "{err}");
    assert_eq!(system.balances(["/x"]), [5]);
    assert_eq!(system.json(&["move", "/x", "b"])["moves"], 1);

    // The leader of copies: the first one leads since it got copies, the next since it leads.
    system.account("/y", "a", 5);
    system.ok(&["replicate", "/y", "3", "--policy", "cohort"]);
    let leader = |name| system.json(&["describe", name])["node"].clone();
    let (status, err) = system.fails(&["move", "/y", "b", "--wait", "1s"]);
    assert_eq!(status, 1, "{err}");
    assert!(err.contains("just come"), "{err}");
    assert_eq!((leader("/y"), system.balances(["/y"])), (json!("a"), [5]));
    // Where it leads already.
    system.ok(&["move", "/y", "a"]);
}

#[test]
fn what_the_services_are_made_of_stays() {
    let system = System::start(&["a"]);
    system.account("/x/y", "a", 1);
    let (status, err) = system.fails(&["move", "/x", "a"]);
    assert_eq!(status, 1);
    assert!(err.contains("does not run naming.NameContext"), "{err}");
}

#[test]
fn a_node_is_emptied_under_load_and_may_be_stopped_then() {
    // Other numbers show how a drain scales.
    let accounts = std::env::var("DRAIN_ACCOUNTS").ok();
    a_node_of_so_many_is_emptied(accounts.map_or(2_000, |count| count.parse().unwrap()));
}

#[test]
#[ignore = "takes most of a minute, see CONTRIBUTING.md"]
fn a_node_of_ten_thousand_objects_is_emptied_under_load() {
    a_node_of_so_many_is_emptied(10_000);
}

fn a_node_of_so_many_is_emptied(accounts: usize) {
    let mut system = System::labelled(&[("a", &[]), ("b", &["zone=x"]), ("c", &["zone=y"])]);
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let bank = Bank::open(&system, accounts).await;
        let load = bank.load(&system).await;
        let begun = Instant::now();
        load.goes_on(100).await;
        println!(
            "{:.0} transfers a second before",
            100.0 / begun.elapsed().as_secs_f64()
        );
        let before = load.made();
        let (status, told, shown) = end(&begin(&system, &["a", "--spread", "zone"]));
        let meanwhile = (load.made() - before) as f64 / told["seconds"].as_f64().unwrap();
        println!("{meanwhile:.0} a second meanwhile\n{told}");
        assert_eq!(
            (status, &told["may_be_stopped"]),
            (0, &json!(true)),
            "{told}"
        );
        let all = accounts as u64 + 1;
        // A line every two seconds.
        let lines = shown.matches(&format!(" of {all} moved")).count();
        let seconds = told["seconds"].as_f64().unwrap();
        assert!(lines > 0 || seconds < 2.0, "{shown}");
        assert_eq!(
            [&told["objects"], &told["moved"]],
            [&json!(all), &json!(all)]
        );
        assert_eq!(told["stays"], json!([]));
        let sent = ["b", "c"].map(|node| told["sent"][node].as_u64().unwrap());
        assert!(sent.iter().all(|count| *count >= all / 3), "{told}");
        assert_eq!(stored(&bank.client, &system, "a").await, 0);
        assert_eq!(figure(&system, "a", "objects_moved_out"), all);

        // It was said that it may be stopped.
        system.signal("a", Signal::TERM);
        system.ended("a");
        load.goes_on(50).await;
        let made = load.stop().await;
        bank.check(&made).await;
        let fresh = Client::connect(system.naming.clone()).await.unwrap();
        for name in ["/first", "/second"] {
            let account = Account::bind(&fresh, name).await.unwrap();
            account.balance(&fresh).await.unwrap();
        }

        // And it may come back.
        system.revive("a");
        assert_eq!(stored(&bank.client, &system, "a").await, 0);
        system.ok(&["node", "uncordon", "a"]);
        system.ok(&["move", "/log", "a"]);
        bank.check(&made).await;
    });
}

#[test]
fn a_drain_that_was_interrupted_goes_on() {
    let system = System::start(&["a", "b"]);
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let bank = Bank::open(&system, 200).await;
        let first = begin(&system, &["a", "--parallel", "1"]);
        eventually(LONG, || figure(&system, "a", "objects_moved_out") >= 10);
        first.kill();
        let (status, told) = drain(&system, &["a"]);
        assert_eq!(status, 0, "{told}");
        let figure = |name: &str| told[name].as_u64().unwrap();
        let (objects, moved) = (figure("objects"), figure("moved"));
        // The one that the first had asked for last may have gone after the second had counted.
        assert!(moved <= objects && objects <= moved + 1, "{told}");
        assert!(objects <= 191, "{told}");
        assert_eq!(stored(&bank.client, &system, "a").await, 0);
        bank.check(&Made::new()).await;
    });
}

#[test]
fn a_drain_gets_over_the_deaths_of_nodes() {
    let mut system = System::with_lease(&["a", "b", "c"], "3s");
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let bank = Bank::open(&system, 200).await;
        let draining = begin(&system, &["a", "--parallel", "4", "--wait", "2s"]);
        eventually(LONG, || figure(&system, "a", "objects_moved_out") >= 10);
        system.kill("c");
        eventually(LONG, || figure(&system, "a", "objects_moved_out") >= 40);
        system.kill("a");
        system.revive("a");
        system.revive("c");
        end(&draining);
        // What it could not know of the node that died, a second one finds settled.
        let (status, told) = drain(&system, &["a"]);
        assert_eq!(status, 0, "{told}");
        assert_eq!(stored(&bank.client, &system, "a").await, 0);
        let there =
            stored(&bank.client, &system, "b").await + stored(&bank.client, &system, "c").await;
        assert_eq!(there, 201, "each is in one place");
        bank.check(&Made::new()).await;
    });
}

#[test]
fn a_hot_account_moves_back_and_forth() {
    let system = System::start(&["a", "b"]);
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let bank = Bank::open(&system, 4).await;
        let load = bank.load(&system).await;
        for round in 0..50 {
            let to = if round % 2 == 0 { "b" } else { "a" };
            let moved = system.json(&["move", "/first", to]);
            assert_eq!(moved["moves"], json!(round + 1));
        }
        let made = load.stop().await;
        bank.check(&made).await;
    });
}
