//! Nodes that die at each named point of an action on objects with copies.
//!
//! Names are carried between two directories with three copies and one without; the node that
//! leads the first of them dies at the point. While it is away each action is carried through, or
//! its outcome is known and it is done again; no name is lost or in two places. Then the node comes
//! back, and nothing is left of any action.
//!
//! The points are there only if the feature `crash-points` is on:
//! `cargo xtask crash-points` does that.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::process::Command;
use std::time::{Duration, Instant};

use common::carry::{carry_surely, directory, expected, fill, names};
use common::{LONG, System};
use partha::services::naming::NameContext;
use partha::{Client, Node};
use test_support::{Child, Exit};

const NAME: &str = "PARTHA_TEST_NODE_NAME";
const NAMING: &str = "PARTHA_TEST_NODE_NAMING";
const DIR: &str = "PARTHA_TEST_NODE_DIR";
const CRASH_POINT: &str = "PARTHA_CRASH_POINT";
/// Names of points that are wanted begin with one of these, if there are any.
const ONLY: &str = "PARTHA_CRASH_POINTS_ONLY";
/// From 1: how often the point is passed before.
const ROUND: &str = "PARTHA_CRASH_POINTS_ROUND";
/// Those that the leader of an object with copies passes, as `partha_store::crash_point` has them.
const POINTS: [&str; 6] = [
    "group/part/added",
    "group/part/complete",
    "group/decide/added",
    "group/decide/complete",
    "group/end/added",
    "group/end/complete",
];
/// Names that are carried.
const NAMES: u32 = 24;

#[test]
#[ignore = "a process of the other test"]
fn node_process() {
    let Ok(name) = std::env::var(NAME) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let class = partha::services::naming::name_context::class;
        let builder = Node::builder()
            .name(name)
            .data_dir(std::env::var(DIR).unwrap())
            .shards(1)
            .naming(std::env::var(NAMING).unwrap())
            .class(class(partha_naming::context::ContextServant));
        let node = builder.start().await.unwrap();
        node.registered().await;
        println!("> ready {}", node.address());
        std::future::pending::<()>().await;
    });
}

fn spawn(system: &System, name: &str, point: Option<String>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["node_process", "--exact", "--ignored", "--nocapture"]);
    command.env(NAME, name);
    command.env(NAMING, system.naming().to_string());
    command.env(DIR, system.folder().join(name));
    match point {
        Some(point) => command.env(CRASH_POINT, point),
        None => command.env_remove(CRASH_POINT),
    };
    let child = Child::spawn(name, &mut command);
    child.wait_for_line(LONG, |line| line.contains("> ready "));
    child
}

/// Nothing of any action is left at any node.
async fn quiet(client: &Client) {
    let begun = Instant::now();
    for node in client.locator().nodes(client).await.unwrap() {
        loop {
            let mut left = u64::MAX;
            for address in &node.addresses {
                if let Ok(handle) = client.node_at(address).await
                    && let Ok(statistics) = handle.manager().statistics(client).await
                {
                    left = statistics.actions_active;
                }
            }
            if left == 0 {
                break;
            }
            assert!(begun.elapsed() < LONG, "{}: {left} actions", node.name);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Each of the names goes once around; those that are at `at` go to the one after it.
async fn around(client: &Client, all: &[NameContext; 3], at: usize, numbers: std::ops::Range<u32>) {
    for number in numbers {
        carry_surely(client, &all[at], &all[(at + 1) % 3], number).await;
    }
}

async fn die_at(point: &str, round: u32) -> String {
    let system = System::start().await;
    let dying = spawn(&system, "a", Some(format!("{point}:{}", 3 + round)));
    let others = ["b", "c"].map(|name| spawn(&system, name, None));
    let client = &system.client;
    // Led at `a` and at `b`, and one without copies at `c`.
    let all = [
        directory(client, "a", 3).await,
        directory(client, "b", 3).await,
        directory(client, "c", 0).await,
    ];
    fill(client, &all[0], 0..NAMES).await;
    let begun = Instant::now();
    // As the decider, as a participant of one that decides by its copies, and of one that does not.
    for number in 0..NAMES {
        for at in 0..3 {
            around(client, &all, at, number..number + 1).await;
        }
        // And with the decision elsewhere.
        carry_surely(client, &all[0], &all[1], number).await;
        carry_surely(client, &all[1], &all[0], number).await;
        if dying.exit().is_some() && number > NAMES / 2 {
            break;
        }
    }
    let took = begun.elapsed();
    let said = format!("crash point {point}");
    dying.wait_for_log(LONG, |line| line == said);
    const SIGABRT: i32 = 6;
    assert_eq!(dying.wait(LONG), Exit::Signal(SIGABRT));
    assert_eq!(names(client, &all[0]).await, expected(0..NAMES), "{point}");
    for other in &all[1..] {
        assert_eq!(names(client, other).await, Vec::<String>::new(), "{point}");
    }
    let back = spawn(&system, "a", None);
    quiet(client).await;
    around(client, &all, 0, 0..NAMES).await;
    assert_eq!(names(client, &all[1]).await, expected(0..NAMES), "{point}");
    quiet(client).await;
    for child in others.iter().chain([&back]) {
        child.kill();
        child.wait(LONG);
    }
    format!("carried on in {took:.1?}")
}

#[test]
#[cfg_attr(
    not(feature = "crash-points"),
    ignore = "without crash points; `cargo xtask crash-points` compiles them in"
)]
fn copies_are_right_after_every_crash_point() {
    let only = std::env::var(ONLY).unwrap_or_default();
    let round = std::env::var(ROUND).map_or(1, |round| round.parse().unwrap());
    let wanted = |point: &&str| only.split(',').any(|start| point.starts_with(start));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for point in POINTS.into_iter().filter(wanted) {
        let line = runtime.block_on(die_at(point, round));
        println!("{point}: {line}");
    }
}
