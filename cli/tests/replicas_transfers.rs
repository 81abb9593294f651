//! Money that is moved between accounts with and without copies while nodes are killed.
//!
//! With the policy coordinator-cohort no action aborts because of that.
//!
//! An account's balance is compared with what was acknowledged of each transfer: none is lost,
//! doubled or half done, and the outcome of each is known while the node that was killed is away.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bank::Account;
use bank::account::{DepositError, WithdrawError};
use common::LONG;
use common::system::System;
use partha::{
    AbortReason, Action, ActionError, ActionOptions, Client, ErrorKind, Outcome, SystemError,
};
use rustix::process::Signal;
use test_support::eventually;
use tokio::task::JoinHandle;

/// What each account begins with.
const MONEY: i64 = 10_000;
/// Who moves money at the same time.
const TELLERS: usize = 4;
/// Nodes that are killed, and that are frozen, one after the other.
const KILLS: usize = 3;
const FREEZES: usize = 1;
/// When the client takes a silent node for dead.
const HEARTBEAT: Duration = Duration::from_millis(500);
const LEASE: Duration = Duration::from_secs(2);
/// Longer than this nobody is to be in doubt because of a node that is away.
const IN_DOUBT: Duration = Duration::from_secs(40);

/// An account, and what it has to hold.
struct Known {
    account: Account,
    holds: AtomicI64,
}

/// One whole transfer in an action.
async fn transfer(
    action: &Action,
    from: &Account,
    to: &Account,
    amount: i64,
) -> Result<(), SystemError> {
    match from.withdraw(action, amount).await {
        Ok(_) => {}
        Err(WithdrawError::System(error)) => return Err(error),
        Err(error) => return Err(SystemError::servant(error.to_string())),
    }
    match to.deposit(action, amount).await {
        Ok(_) => Ok(()),
        Err(DepositError::System(error)) => Err(error),
        Err(error) => Err(SystemError::servant(error.to_string())),
    }
}

/// Moves money until told to stop, and knows of each transfer in the end whether it was made.
async fn teller(
    client: Client,
    number: usize,
    accounts: Arc<Vec<Known>>,
    stop: Arc<AtomicBool>,
    (made, lost): (Arc<AtomicUsize>, Option<Arc<AtomicUsize>>),
) -> Duration {
    let mut longest = Duration::ZERO;
    let mut turn = number;
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        let from = &accounts[turn % accounts.len()];
        let to = &accounts[(turn + 1 + turn / accounts.len() % 2) % accounts.len()];
        let amount = 1 + (turn % 7) as i64;
        // Each abort is looked at where they are counted.
        let tries = if lost.is_some() { 1 } else { 10_000 };
        let options = ActionOptions::new().deadline(LONG).tries(tries);
        let begun = Instant::now();
        let done = client
            .action_retry_with(options, async |action| {
                transfer(action, &from.account, &to.account, amount).await
            })
            .await;
        let committed = match done {
            Ok(()) => true,
            Err(ActionError::OutcomeUnknown { action, .. }) => loop {
                match client.outcome(action).await {
                    Ok(Outcome::Committed) => break true,
                    Ok(Outcome::Aborted) => break false,
                    other => assert!(begun.elapsed() < 2 * LONG, "{action}: {other:?}"),
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            },
            Err(error) => {
                let passing = error.is_passing();
                assert!(passing || stop.load(Ordering::Relaxed), "{error}");
                if let Some(lost) = lost.as_ref().filter(|_| !of_rivals(&error)) {
                    println!("aborted because of a death: {error}");
                    lost.fetch_add(1, Ordering::Relaxed);
                }
                false
            }
        };
        longest = longest.max(begun.elapsed());
        if committed {
            from.holds.fetch_sub(amount, Ordering::Relaxed);
            to.holds.fetch_add(amount, Ordering::Relaxed);
            made.fetch_add(1, Ordering::Relaxed);
        }
    }
    longest
}

/// Whether an action has failed because of another one, and not of a death.
fn of_rivals(error: &ActionError<SystemError>) -> bool {
    match error {
        ActionError::Deadlock { .. } => true,
        ActionError::Aborted {
            reason: AbortReason::Call(error) | AbortReason::Commit(error),
            ..
        } => error.kind() == ErrorKind::LockTimeout,
        _ => false,
    }
}

/// What an account holds, as soon as somebody leads it.
async fn balance(client: &Client, account: &Account) -> i64 {
    let begun = Instant::now();
    loop {
        let call = client.call().deadline(Duration::from_secs(2));
        match account.balance(&call).await {
            Ok(balance) => return balance,
            Err(error) => assert!(begun.elapsed() < LONG, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn blocking<T: Send + 'static>(
    system: System,
    work: impl FnOnce(&mut System) -> T + Send + 'static,
) -> (System, T) {
    let mut system = system;
    let done = tokio::task::spawn_blocking(move || {
        let done = work(&mut system);
        (system, done)
    });
    done.await.unwrap()
}

/// What the third account is.
#[derive(Clone, Copy)]
enum Third {
    /// Without copies, at a node that has none and is not killed.
    Plain,
    /// As the others.
    Copied,
}

fn start(policy: &'static str, third: Third, lease: &str) -> System {
    let system = System::with_lease(&["a", "b", "c", "d"], lease);
    let at = match third {
        Third::Plain => "d",
        Third::Copied => "c",
    };
    system.account("/bank/z", at, MONEY);
    system.ok(&["node", "cordon", "d"]);
    // Those with copies, led at different nodes.
    let mut copied = vec![("/bank/x", "a"), ("/bank/y", "b")];
    match third {
        Third::Plain => {}
        Third::Copied => copied.push(("/bank/z", at)),
    }
    for (name, node) in copied {
        if name != "/bank/z" {
            system.account(name, node, MONEY);
        }
        system.json(&["replicate", name, "3", "--policy", policy]);
        eventually(LONG, || members(&system, name).len() == 3);
    }
    system
}

/// The nodes with copies of an account, the leader first.
fn members(system: &System, name: &str) -> Vec<String> {
    let groups = system.json(&["groups"]);
    let mut groups = groups.as_array().unwrap().iter();
    let group = groups.find(|group| group["name"] == name).unwrap();
    let members = group["members"].as_array().unwrap().iter();
    members.map(|it| it.as_str().unwrap().to_owned()).collect()
}

/// What becomes of a leader.
#[derive(Clone, Copy)]
enum Loss {
    /// Killed, and started again later.
    Killed,
    /// The other account's leader, too, at the same time.
    BothKilled,
    /// Stopped where it is, and woken up later: it may believe that it leads still.
    Frozen,
}

/// What the test goes on with from round to round.
struct Town {
    client: Client,
    naming: String,
    accounts: Arc<Vec<Known>>,
    made: Arc<AtomicUsize>,
    /// Actions that were aborted because of a death, where that is not to be.
    lost: Option<Arc<AtomicUsize>>,
    longest: Duration,
}

impl Town {
    async fn open(system: &System, policy: &str) -> Self {
        let builder = Client::builder().naming(system.naming.clone());
        let client = builder.lease(HEARTBEAT, LEASE).build().unwrap();
        let mut accounts = Vec::new();
        for name in ["/bank/x", "/bank/y", "/bank/z"] {
            let naming = client.naming().unwrap();
            let entry = naming.lookup(&client, name).await.unwrap();
            accounts.push(Known {
                account: Account::from_uid(entry.object),
                holds: AtomicI64::new(MONEY),
            });
        }
        Self {
            client,
            naming: system.naming.clone(),
            accounts: Arc::new(accounts),
            made: Arc::default(),
            lost: (policy == "cohort").then(Arc::default),
            longest: Duration::ZERO,
        }
    }

    /// Waits until there are so many transfers.
    async fn wait_for(&self, transfers: usize) {
        let begun = Instant::now();
        while self.made.load(Ordering::Relaxed) < transfers {
            if begun.elapsed() > LONG {
                panic!("nothing goes on: {}", self.who_waits());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// What the nodes say of actions and locks.
    fn who_waits(&self) -> String {
        let told = ["actions", "locks", "groups"].map(|of| {
            let mut asking = common::command(&[of, "-o", "wide"]);
            let asking = asking.env("PARTHA_NAMING", &self.naming).output();
            asking.map_or_else(
                |error| error.to_string(),
                |told| String::from_utf8_lossy(&told.stdout).into_owned(),
            )
        });
        told.join("\n")
    }

    /// From now on money is moved, until told to stop.
    fn open_counters(&self) -> (Vec<JoinHandle<Duration>>, Arc<AtomicBool>) {
        let stop = Arc::new(AtomicBool::new(false));
        let begin = |number| {
            let (accounts, stop) = (self.accounts.clone(), stop.clone());
            let (client, counts) = (self.client.clone(), (self.made.clone(), self.lost.clone()));
            tokio::spawn(teller(client, number, accounts, stop, counts))
        };
        ((0..TELLERS).map(begin).collect(), stop)
    }

    /// No more is, and what was begun is over.
    async fn close_counters(&mut self, tellers: Vec<JoinHandle<Duration>>, stop: &AtomicBool) {
        stop.store(true, Ordering::Relaxed);
        for teller in tellers {
            let took = tokio::time::timeout(IN_DOUBT, teller).await;
            let took = took.expect("somebody is in doubt").unwrap();
            self.longest = self.longest.max(took);
        }
    }

    /// Money is moved, a leader is lost, and money is moved; what the accounts hold is then as it
    /// has to be, while the node is away.
    async fn round(&mut self, system: System, round: usize, loss: Loss) -> System {
        let (tellers, stop) = self.open_counters();
        let before = self.made.load(Ordering::Relaxed);
        self.wait_for(before + 20 + 7 * round).await;
        let (system, lost) = blocking(system, move |system| {
            let mut lost = ["/bank/x", "/bank/y"]
                .map(|name| members(system, name).remove(0))
                .to_vec();
            match loss {
                Loss::BothKilled => lost.dedup(),
                Loss::Killed | Loss::Frozen => drop(lost.remove(round % 2)),
            }
            for node in &lost {
                match loss {
                    Loss::Killed | Loss::BothKilled => system.kill(node),
                    Loss::Frozen => system.freeze(node),
                }
            }
            lost
        })
        .await;
        // It goes on without the node, and nobody stays in doubt because of it.
        self.wait_for(before + 60 + 14 * round).await;
        self.close_counters(tellers, &stop).await;
        self.check(&format!("round {round}, without {lost:?}"))
            .await;
        let lost_again = lost.clone();
        let (system, ()) = blocking(system, move |system| {
            for node in &lost {
                match loss {
                    Loss::Killed | Loss::BothKilled => system.revive(node),
                    Loss::Frozen => system.signal(node, Signal::CONT),
                }
            }
            for name in ["/bank/x", "/bank/y"] {
                eventually(LONG, || members(system, name).len() == 3);
            }
        })
        .await;
        self.check(&format!("round {round}, with {lost_again:?}"))
            .await;
        system
    }

    /// Each account holds what it has to.
    async fn check(&self, when: &str) {
        for known in self.accounts.iter() {
            let holds = balance(&self.client, &known.account).await;
            let expected = known.holds.load(Ordering::Relaxed);
            assert_eq!(holds, expected, "{when}");
        }
    }

    /// Nothing is prepared or locked, and no money has come or gone.
    async fn end(&self, system: System) {
        let holds = self.accounts.iter();
        let total: i64 = holds.map(|it| it.holds.load(Ordering::Relaxed)).sum();
        assert_eq!(total, 3 * MONEY);
        let (_system, ()) = blocking(system, |system| {
            for of in ["actions", "locks"] {
                eventually(LONG, || {
                    let left = system.json(&[of]);
                    left.as_array().is_some_and(Vec::is_empty)
                });
            }
        })
        .await;
        let (made, longest) = (self.made.load(Ordering::Relaxed), self.longest);
        println!("{made} transfers, the longest {longest:?}");
        if let Some(lost) = &self.lost {
            let lost = lost.load(Ordering::Relaxed);
            assert_eq!(lost, 0, "actions that were aborted because of a death");
        }
    }
}

async fn begin(policy: &'static str, third: Third) -> (System, Town) {
    begin_with(policy, third, "2s").await
}

/// With nodes that take a silent one for dead after this time.
async fn begin_with(policy: &'static str, third: Third, lease: &'static str) -> (System, Town) {
    let system = tokio::task::spawn_blocking(move || start(policy, third, lease));
    let system = system.await.unwrap();
    let town = Town::open(&system, policy).await;
    (system, town)
}

async fn kill(policy: &'static str, third: Third) {
    let (mut system, mut town) = begin(policy, third).await;
    for round in 0..KILLS {
        system = town.round(system, round, Loss::Killed).await;
    }
    system = town.round(system, KILLS, Loss::BothKilled).await;
    town.end(system).await;
}

async fn freeze(policy: &'static str, third: Third) {
    let (mut system, mut town) = begin(policy, third).await;
    for round in 0..FREEZES {
        system = town.round(system, round, Loss::Frozen).await;
    }
    town.end(system).await;
}

/// The copies of an account keep up with each other in another way; the number of its view then.
fn change_policy(system: &System, name: &str, policy: &str) -> u64 {
    let changed = system.json(&["replicate", name, "3", "--policy", policy]);
    let groups = system.json(&["groups"]);
    let mut groups = groups.as_array().unwrap().iter();
    let group = groups.find(|group| group["name"] == name).unwrap();
    assert_eq!(group["policy"], policy, "{changed}");
    changed["view"].as_u64().unwrap()
}

/// Each policy is followed by each other one, while money is moved; no action aborts because of
/// that. Then a leader is killed under the last of them.
#[tokio::test(flavor = "multi_thread")]
async fn policies_change_while_money_is_moved() {
    const POLICIES: [&str; 7] = [
        "cohort", "active", "passive", "active", "cohort", "passive", "cohort",
    ];
    let (mut system, mut town) = begin("passive", Third::Copied).await;
    town.lost = Some(Arc::default());
    let (tellers, stop) = town.open_counters();
    let mut views = [0; 3];
    for policy in POLICIES {
        let made = town.made.load(Ordering::Relaxed);
        town.wait_for(made + 25).await;
        let names = ["/bank/x", "/bank/y", "/bank/z"];
        let changed = blocking(system, move |system| {
            names.map(|name| change_policy(system, name, policy))
        });
        let now;
        (system, now) = changed.await;
        for (before, now) in views.iter().zip(now) {
            assert!(
                *before < now,
                "another policy is another view: {before}, {now}"
            );
        }
        views = now;
    }
    let made = town.made.load(Ordering::Relaxed);
    town.wait_for(made + 25).await;
    town.close_counters(tellers, &stop).await;
    town.check("after all policies").await;
    let (made, lost) = (&town.made, town.lost.as_ref().unwrap());
    let (made, lost) = (made.load(Ordering::Relaxed), lost.load(Ordering::Relaxed));
    println!("{made} transfers over {} changes", 3 * POLICIES.len());
    assert_eq!(lost, 0, "actions that were aborted because of a change");
    system = town.round(system, 0, Loss::Killed).await;
    town.end(system).await;
}

/// The end of a nested action is told to the node that led when it called, which was killed and is
/// there again, and does not lead any more: it passes that on to the one that does.
#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_a_new_life_of_the_leader_is_told_gets_to_the_next_one() {
    // Longer than a call has time: nobody is taken for gone.
    let (system, town) = begin_with("cohort", Third::Plain, "30s").await;
    let (system, ()) = blocking(system, |system| {
        system.account("/bank/here", "a", MONEY);
    })
    .await;
    let client = town.client.clone();
    let naming = client.naming().unwrap();
    let here = naming.lookup(&client, "/bank/here").await.unwrap();
    let here = Account::from_uid(here.object);
    let x = &town.accounts[0].account;
    // Whoever has had something committed there has asked who leads.
    let paid = client.action(async |action| x.deposit(action, 1).await);
    paid.await.unwrap();
    let mut system = Some(system);
    let options = ActionOptions::new().deadline(LONG);
    let done = client.action_with(options, async |action| {
        let given_up = action.nested(async |inner| {
            x.deposit(inner, 1).await.unwrap();
            let there = system.take().unwrap();
            let (there, ()) = blocking(there, |system| {
                system.kill("a");
                eventually(LONG, || members(system, "/bank/x")[0] != "a");
                system.revive("a");
                eventually(LONG, || {
                    members(system, "/bank/x").contains(&"a".to_owned())
                });
            })
            .await;
            system = Some(there);
            // There is a connection to the node's new life.
            assert_eq!(balance(&client, &here).await, MONEY);
            Err::<(), _>(SystemError::servant("no"))
        });
        assert!(given_up.await.is_err());
        // Somebody else gets in while the action goes on.
        let there = system.take().unwrap();
        let (there, ()) = blocking(there, |system| {
            system.ok(&["call", "/bank/x", "deposit", r#"{"amount": 5}"#]);
        })
        .await;
        system = Some(there);
        Ok::<_, SystemError>(())
    });
    done.await.unwrap();
    assert_eq!(balance(&client, x).await, MONEY + 1 + 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_transfer_is_lost_doubled_or_halved_when_nodes_are_killed() {
    kill("passive", Third::Plain).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_frozen_undoes_nothing_when_it_wakes_up() {
    freeze("passive", Third::Plain).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_action_aborts_when_leaders_of_cohorts_are_killed() {
    kill("cohort", Third::Copied).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_action_aborts_when_a_leader_of_cohorts_is_frozen() {
    freeze("cohort", Third::Copied).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_action_aborts_when_an_account_without_copies_takes_part() {
    kill("cohort", Third::Plain).await;
}
