//! Sessions of a running system, and the doctor: what it shows, finds and does.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::time::{Duration, Instant};

use common::LONG;
use common::shell::Shell;
use common::system::System;
use rustix::process::Signal;
use serde_json::{Value, json};
use test_support::eventually;

/// How long a process may be silent.
const LEASE: Duration = Duration::from_secs(10);

/// The process that began an action.
fn process_of(action: &str) -> &str {
    action.split('-').next().unwrap()
}

fn rows(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

/// The sessions of a process, whatever its life.
fn sessions_of(system: &System, process: &str) -> Vec<Value> {
    let sessions = system.ok(&["sessions", "--json"]);
    let sessions: Value = serde_json::from_str(&sessions).unwrap();
    let is_it = |row: &&Value| row["session"].as_str().unwrap().starts_with(process);
    rows(&sessions).iter().filter(is_it).cloned().collect()
}

/// Status and answer of the doctor.
fn doctor(system: &System, more: &[&str]) -> (i32, Value) {
    let (status, out, err) = system.run(&[&["doctor", "--json"], more].concat());
    assert_eq!(err, "");
    let told: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"));
    assert_eq!(told["healthy"], json!(status == 0), "{told}");
    assert_eq!(rows(&told["findings"]).is_empty(), status == 0, "{told}");
    (status, told)
}

fn kinds(told: &Value) -> Vec<&str> {
    let findings = rows(&told["findings"]).iter();
    findings.map(|one| one["kind"].as_str().unwrap()).collect()
}

/// A system with an account at each of two nodes.
fn two_accounts() -> System {
    let system = System::start(&["a", "b"]);
    system.account("/bank/x", "a", 100);
    system.account("/bank/y", "b", 100);
    system
}

/// Begins an action that has changed both accounts; its id.
fn begin_transfer(shell: &mut Shell) -> String {
    let action = shell.begin();
    assert_eq!(shell.ask(r#"/bank/x.withdraw {"amount": 5}"#), "95");
    assert_eq!(shell.ask(r#"/bank/y.deposit {"amount": 5}"#), "105");
    action
}

#[test]
fn a_client_is_shown_with_what_it_holds_and_vanishes_when_it_is_killed() {
    let system = two_accounts();
    let mut shell = Shell::start(&system);
    let action = begin_transfer(&mut shell);
    let process = process_of(&action).to_owned();
    for node in ["a", "b"] {
        let sessions = sessions_of(&system, &process);
        let session = sessions.iter().find(|row| row["node"] == node);
        let session = session.unwrap_or_else(|| panic!("none at {node}: {sessions:?}"));
        assert_eq!(session["session"], json!(format!("{process}/1")));
        let has = [&session["kind"], &session["actions"]];
        assert_eq!(has, [&json!("native"), &json!(1)], "{session}");
        let lease = session["lease"].as_f64().unwrap();
        assert!((5.0..=10.0).contains(&lease), "{session}");
    }
    let one = system.json(&["sessions", "a"]);
    assert!(rows(&one).iter().all(|row| row["node"] == "a"), "{one}");
    assert!(system.ok(&["sessions"]).starts_with("SESSION"));

    let (status, told) = doctor(&system, &[]);
    assert_eq!(status, 0, "{told}");
    let names: Vec<_> = rows(&told["nodes"])
        .iter()
        .map(|row| &row["node"])
        .collect();
    assert_eq!(names, ["a", "b", "binder", "naming"]);
    let a = &rows(&told["nodes"])[0];
    assert_eq!(
        [&a["state"], &a["locked"]],
        [&json!("answers"), &json!(1)],
        "{a}"
    );
    assert_eq!([&a["actions"], &a["life"]], [&json!(1), &json!(1)], "{a}");
    let session = json!(format!("{process}/1"));
    assert_eq!(
        told["sessions"][0]["session"], session,
        "the busiest: {told}"
    );
    let screen = system.ok(&["doctor"]);
    assert!(screen.starts_with("nothing is wrong\n\nNODE"), "{screen}");
    let only = doctor(&system, &["b"]).1;
    assert_eq!(rows(&only["nodes"]).len(), 1, "{only}");

    shell.kill();
    eventually(LONG, || sessions_of(&system, &process).is_empty());
    eventually(LONG, || doctor(&system, &[]).1["nodes"][0]["locked"] == 0);
    assert_eq!(system.balances(["/bank/x", "/bank/y"]), [100, 100]);
}

#[test]
fn a_long_wait_is_found_and_breaking_the_session_ends_it() {
    let system = System::start(&["a"]);
    system.account("/bank/x", "a", 100);
    let (mut first, mut second) = (Shell::start(&system), Shell::start(&system));
    let holder = first.begin();
    assert_eq!(first.ask(r#"/bank/x.withdraw {"amount": 5}"#), "95");
    second.begin();
    second.say("/bank/x.balance");
    eventually(LONG, || doctor(&system, &["--after", "100ms"]).0 == 1);
    let (_, told) = doctor(&system, &["--after", "100ms"]);
    assert_eq!(kinds(&told), ["long-wait"], "{told}");
    let finding = &told["findings"][0];
    let text = finding["text"].as_str().unwrap();
    let holds = format!("in its way: {holder}");
    assert!(
        text.contains("waits to read /bank/x at node 'a'") && text.ends_with(&holds),
        "{text}"
    );
    let cure = finding["cure"].as_str().unwrap();
    let abort = format!("`partha doctor abort {holder}`");
    assert!(
        cure.contains("`partha why /bank/x`") && cure.contains(&abort),
        "{cure}"
    );
    let waited = &told["waited_for"][0];
    assert_eq!(waited["waited_for"], "/bank/x");
    assert_eq!(waited["holders"], json!([format!("write by {holder}")]));

    // Nothing is done that was not confirmed.
    let process = process_of(&holder);
    let (status, err) = system.fails(&["doctor", "break", process]);
    assert_eq!(status, 2, "{err}");
    assert!(err.contains("say --yes"), "{err}");
    let left = sessions_of(&system, process);
    assert!(left.iter().any(|row| row["node"] == "a"), "{left:?}");
    let (status, err) = system.fails(&["doctor", "break", "1234", "--yes"]);
    assert_eq!(status, 1);
    assert!(err.contains("has no session there"), "{err}");

    let done = system.ok(&["doctor", "break", process, "--node", "a", "--yes", "--json"]);
    let done: Value = serde_json::from_str(&done).unwrap();
    assert_eq!(done["nodes"], json!(["a"]), "{done}");
    assert!(done["connections_cut"].as_u64() >= Some(1), "{done}");
    assert_eq!(second.hear(), "100");
    assert!(second.ask("commit").starts_with("committed"));
    assert_eq!(doctor(&system, &["--after", "100ms"]).0, 0);
    // Whose session it was learns of it, and is served again.
    let said = first.ask("commit");
    assert!(said.contains(&holder), "{said}");
    first.say("abort");
    let told = std::iter::once(said).chain(std::iter::from_fn(|| Some(first.hear())));
    let aborted = format!("aborted  {holder}");
    assert!(told.take(4).any(|line| line == aborted), "{aborted}");
    assert_eq!(system.json(&["stats", "a"])["sessions_broken"], 1);
}

#[test]
fn a_frozen_client_is_found_and_given_up_when_its_lease_ends() {
    let system = two_accounts();
    let mut shell = Shell::start(&system);
    let action = begin_transfer(&mut shell);
    shell.freeze();
    let frozen = Instant::now();
    let session = json!(format!("{}/1", process_of(&action)));
    let low = |told: &Value| {
        let findings = rows(&told["findings"]).iter();
        let mut low = findings.filter(|one| one["kind"] == "lease-low");
        low.any(|one| one["subject"] == session)
    };
    eventually(LONG, || low(&doctor(&system, &[]).1));
    assert!(frozen.elapsed() < LEASE, "{:?}", frozen.elapsed());
    eventually(LONG, || system.json(&["locks"]) == json!([]));
    let freed = frozen.elapsed();
    assert!(freed < LEASE + Duration::from_secs(1), "{freed:?}");
    assert_eq!(system.balances(["/bank/x", "/bank/y"]), [100, 100]);
    assert_eq!(system.json(&["stats", "a"])["sessions_expired"], 1);
    // The naming service gives it up as soon.
    eventually(LONG, || doctor(&system, &[]).0 == 0);
}

#[test]
fn actions_are_aborted_and_objects_evicted_where_that_is_safe() {
    let system = System::start(&["a"]);
    system.account("/bank/x", "a", 100);
    let mut shell = Shell::start(&system);
    let action = shell.begin();
    assert_eq!(shell.ask(r#"/bank/x.deposit {"amount": 1}"#), "101");
    let (status, err) = system.fails(&["doctor", "evict", "/bank/x", "--yes"]);
    assert_eq!(status, 1);
    let used = format!("/bank/x stays in memory: action {action} has it locked");
    assert!(err.contains(&used), "{err}");
    let told = system.ok(&["doctor", "abort", &action, "-y", "-o", "json"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["nodes"], json!(["a"]));
    let evicted = system.ok(&["doctor", "evict", "/bank/x", "--yes", "--json"]);
    let evicted: Value = serde_json::from_str(&evicted).unwrap();
    assert_eq!(evicted["evicted"], true, "{evicted}");
    assert_eq!(system.json(&["describe", "/bank/x"])["state"], "passive");
    let again = system.ok(&["doctor", "evict", "/bank/x", "--yes", "--json"]);
    assert!(again.contains(r#""evicted":false"#), "{again}");
    assert_eq!(system.balances(["/bank/x"]), [100]);
    let (status, _) = system.fails(&["doctor", "evict", "/bank/nobody", "--yes"]);
    assert_eq!(status, 1);
}

#[test]
fn a_node_that_does_not_answer_is_a_finding_and_holds_nobody_up() {
    let system = System::start(&["a", "b"]);
    system.freeze("b");
    let begun = Instant::now();
    let (status, told) = doctor(&system, &[]);
    let took = begun.elapsed();
    system.signal("b", Signal::CONT);
    assert_eq!(status, 1);
    assert_eq!(kinds(&told), ["node-silent"], "{told}");
    assert_eq!(told["findings"][0]["node"], "b");
    assert_eq!(told["nodes"][1]["state"], "silent");
    assert_eq!(told["nodes"][0]["state"], "answers");
    assert!(took < Duration::from_secs(8), "{took:?}");
    eventually(LONG, || doctor(&system, &[]).0 == 0);
    let (status, err) = system.fails(&["doctor", "c"]);
    assert_eq!(status, 1);
    assert!(err.contains("no node 'c'"), "{err}");
}
