//! Clients that are somebody over their restarts: real processes on real folders.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod common;

use std::path::Path;

use common::behaviour::{Listener, listener};
use common::process::this_program;
use common::{PATIENCE, client_of, counter, node, run, stop};
use partha::{Client, ErrorKind, Failure, Peer};
use test_support::{Child, Exit, temp_dir};

const DIR: &str = "PARTHA_TEST_IDENTITY_DIR";

/// A client process: says who it is, or why it is nobody, and lives on until it is killed.
#[test]
#[ignore = "a process of the other tests"]
fn client_process() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    match Client::builder().identity(dir).build() {
        Ok(client) => {
            println!("> life {}", client.me());
            loop {
                std::thread::park();
            }
        }
        Err(error) => {
            println!("> failed {error}");
            std::process::exit(3);
        }
    }
}

/// Starts a client process; no file of it may grow beyond the blocks, if given.
fn start(dir: &Path, file_blocks_max: Option<u32>) -> Child {
    let mut command = this_program("client_process", file_blocks_max);
    command.env(DIR, dir);
    Child::spawn("client", &mut command)
}

fn life(child: &Child) -> String {
    let line = child.wait_for_line(PATIENCE, |line| line.contains("> life "));
    line.split_once("> life ").unwrap().1.to_owned()
}

fn refusal(child: &Child) -> String {
    let line = child.wait_for_line(PATIENCE, |line| line.contains("> failed "));
    assert_eq!(child.wait(PATIENCE), Exit::Code(3));
    line
}

/// Who a client of the folder is, if it is asked in this process.
fn taken(dir: &Path) -> Peer {
    Client::builder().identity(dir).build().unwrap().me()
}

#[test]
fn a_client_that_is_killed_begins_its_next_life() {
    let dir = temp_dir("identity");
    let first = taken(dir.path());
    for count in 2..5 {
        let child = start(dir.path(), None);
        let expected = Peer {
            node: first.node,
            incarnation: partha::Incarnation(count),
        };
        assert_eq!(life(&child), expected.to_string());
        child.kill();
    }
    let last = taken(dir.path());
    assert_eq!((last.node, last.incarnation.0), (first.node, 5));
}

#[test]
fn a_second_process_is_refused_while_the_first_lives() {
    let dir = temp_dir("identity");
    let first = start(dir.path(), None);
    let alive = life(&first);
    for told in [
        refusal(&start(dir.path(), None)),
        Client::builder()
            .identity(dir.path())
            .build()
            .unwrap_err()
            .to_string(),
    ] {
        for part in [
            "in use by process",
            &first.id().to_string(),
            &dir.path().display().to_string(),
        ] {
            assert!(told.contains(part), "'{part}' is not in {told}");
        }
    }
    first.kill();
    assert_ne!(taken(dir.path()).to_string(), alive);
}

#[test]
fn a_full_disk_is_an_error_and_takes_no_life() {
    let dir = temp_dir("identity");
    let first = taken(dir.path());
    let told = refusal(&start(dir.path(), Some(0)));
    for part in [
        "store failed",
        "make room",
        &dir.path().display().to_string(),
    ] {
        assert!(told.contains(part), "'{part}' is not in {told}");
    }
    let next = taken(dir.path());
    assert_eq!((next.node, next.incarnation.0), (first.node, 2));
    // Nor is a new identity begun where there is no room for one.
    let empty = temp_dir("identity");
    refusal(&start(empty.path(), Some(0)));
    assert_eq!(taken(empty.path()).incarnation.0, 1);
}

#[test]
fn nodes_serve_the_newer_life_and_refuse_the_older() {
    run(async {
        let (store, dir, copy) = (
            temp_dir("identity"),
            temp_dir("identity"),
            temp_dir("identity"),
        );
        let node = node(store.path()).await;
        let direct = client_of(&node).await;
        let object = counter(&direct, &node, 0).await;
        let client = async |dir: &Path| {
            let builder = Client::builder().identity(dir).name("teller-1");
            let client = builder.connect().await.unwrap();
            let address = node.address().to_string();
            client.locator().introduce(&client, &address).await.unwrap();
            client
        };
        let older = client(dir.path()).await;
        assert_eq!(object.add(&older, 1).await.unwrap(), 1);
        // As a folder that was copied, or a file system that lost a lock, would have it.
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let from = entry.unwrap().path();
            std::fs::copy(&from, copy.path().join(from.file_name().unwrap())).unwrap();
        }
        let newer = client(copy.path()).await;
        assert_eq!(newer.me().node, older.me().node);
        assert!(newer.me().incarnation > older.me().incarnation);
        assert_eq!(object.add(&newer, 1).await.unwrap(), 2);

        let error = object.add(&older, 1).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OldIncarnation, "{error}");
        assert_eq!(error.failure(), Failure::Fenced);
        assert_eq!(object.value(&newer).await.unwrap(), 2);
        stop(node).await;
    });
}

#[test]
fn names_of_calls_and_lives_do_not_come_twice() {
    let dir = temp_dir("identity");
    let mut calls = Vec::new();
    for _ in 0..3 {
        let client = Client::builder().identity(dir.path()).build().unwrap();
        calls.extend([client.new_call_id(), client.new_call_id()]);
    }
    let count = calls.len();
    calls.sort();
    calls.dedup();
    assert_eq!(calls.len(), count, "a call of an earlier life has its name");
}

#[test]
fn a_folder_without_a_name_is_refused() {
    let error = Client::builder().identity("").build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadOperation, "{error}");
}

struct Listens;

impl listener::Servant for Listens {
    async fn heard(&self, _cx: &partha::Context, value: i64) -> partha::Result<i64> {
        Ok(value)
    }
}

#[test]
fn an_identity_is_free_as_soon_as_its_client_is_dropped() {
    run(async {
        let dir = temp_dir("identity");
        let mut lives = Vec::new();
        for _ in 0..20 {
            let client = Client::builder().identity(dir.path()).build().unwrap();
            lives.push(client.me().incarnation.0);
            // One that has served a call-back has a thread, which outlives it by a moment.
            let served = Listener::serve(&client, Listens).unwrap();
            drop((served, client));
        }
        assert_eq!(lives, Vec::from_iter(1..=20));
    });
}
