//! SIGKILL of every process of a system at once, and what is there after a restart.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use bank::Account;
use bank::account::DepositError;
use common::{LONG, command};
use partha::{CallId, Client, Completed, Place, Uid};
use test_support::{Child, temp_dir};

/// All processes of a system.
struct System {
    naming: String,
    children: Vec<Child>,
}

impl System {
    /// On the stores of this folder, at new ports.
    fn start(folder: &Path) -> Self {
        let serve = |kind: &str, name: &str, naming: &str| {
            let mut command = command(&["serve", kind, "--name", name]);
            command.args(["--listen", "127.0.0.1:0", "--naming", naming]);
            command.arg("--data-dir").arg(folder.join(name));
            let child = Child::spawn(name, &mut command);
            let line = child.wait_for_line(LONG, |line| line.starts_with("ready "));
            (line.rsplit(' ').next().unwrap().to_owned(), child)
        };
        let (naming, first) = serve("naming", "naming", "none");
        let mut children = vec![first];
        for (kind, name) in [("binder", "binder"), ("bank", "a"), ("bank", "b")] {
            children.push(serve(kind, name, &naming).1);
        }
        Self { naming, children }
    }

    /// All of them at once: none can tell another.
    fn kill(self) {
        for child in &self.children {
            child.signal(test_support::Signal::KILL);
        }
        for child in &self.children {
            child.wait(LONG);
        }
    }
}

/// What one client knows of one account.
#[derive(Default)]
struct Book {
    /// Calls that were acknowledged, with their answers.
    acknowledged: Vec<(CallId, i64)>,
    /// Calls whose outcome is unknown.
    unknown: Vec<CallId>,
}

/// Pays in 1 again and again until the system is gone.
async fn pay_until_the_end(client: Client, account: Account) -> (Uid, Book) {
    let mut book = Book::default();
    loop {
        let id = client.new_call_id();
        let caller = client.call().id(id).deadline(Duration::from_secs(3));
        match account.deposit(&caller, 1).await {
            Ok(balance) => book.acknowledged.push((id, balance)),
            Err(DepositError::System(error)) => {
                if error.completion() != Completed::No {
                    book.unknown.push(id);
                }
                return (account.uid(), book);
            }
            Err(error @ DepositError::BadAmount(_)) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_call_is_there_after_all_processes_were_killed() {
    let folder = temp_dir("crash");
    let system = System::start(folder.path());
    let client = Client::connect(&*system.naming).await.unwrap();
    let mut paying = Vec::new();
    for index in 0..12 {
        let place = Place::Named(if index % 2 == 0 { "a" } else { "b" }.to_owned());
        let account = Account::create(&client, &place, "somebody").await.unwrap();
        let name = format!("/bank/{index}");
        let naming = client.naming().unwrap();
        naming
            .add(&client, &name, account.uid(), Account::CLASS)
            .await
            .unwrap();
        paying.push(tokio::spawn(pay_until_the_end(client.clone(), account)));
    }
    // Killed when some hundred calls are through, in the middle of the next.
    let watched = Account::bind(&client, "/bank/0").await.unwrap();
    let begun = Instant::now();
    while watched.balance(&client).await.unwrap() < 20 {
        assert!(begun.elapsed() < LONG, "nobody pays");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::task::spawn_blocking(move || system.kill())
        .await
        .unwrap();
    let mut books = BTreeMap::new();
    for paid in paying {
        let (account, book) = paid.await.unwrap();
        books.insert(account, book);
    }

    let path = folder.path().to_owned();
    let system = tokio::task::spawn_blocking(move || System::start(&path))
        .await
        .unwrap();
    let client = Client::connect(&*system.naming).await.unwrap();
    let mut calls = 0;
    for index in 0..12 {
        let account = Account::bind(&client, &format!("/bank/{index}"))
            .await
            .unwrap();
        let book = &books[&account.uid()];
        for id in &book.unknown {
            account.deposit(&client.call().again(*id), 1).await.unwrap();
        }
        let expected = (book.acknowledged.len() + book.unknown.len()) as i64;
        assert_eq!(account.balance(&client).await.unwrap(), expected);
        // Asked again, each gets the answer it had, and nothing is paid in.
        for (id, balance) in &book.acknowledged {
            let answer = account.deposit(&client.call().again(*id), 1).await.unwrap();
            assert_eq!(answer, *balance);
        }
        assert_eq!(account.balance(&client).await.unwrap(), expected);
        calls += expected;
    }
    assert!(calls >= 20, "only {calls} calls");
}
