//! Several people move an object, and give it copies, at the same time.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::thread;

use common::LONG;
use common::system::System;
use serde_json::Value;
use test_support::eventually;

/// Who moves the object at the same time, each where he wants it, in turn.
const MOVERS: [[&str; 3]; 3] = [["a", "b", "c"], ["c", "b", "a"], ["b", "a", "c"]];
/// How often.
const ROUNDS: usize = 8;

/// All move the object; everybody has his will while he waits.
fn all_move(system: &System, name: &str) {
    thread::scope(|scope| {
        for nodes in MOVERS {
            scope.spawn(move || {
                for node in nodes.iter().cycle().take(ROUNDS) {
                    let (status, out, err) = system.run(&["move", name, node, "--wait", "20s"]);
                    assert_eq!(status, 0, "{name} to {node}: {out}{err}");
                }
            });
        }
    });
}

fn members(system: &System, name: &str) -> usize {
    let told = system.json(&["describe", name]);
    told["members"].as_array().map_or(0, Vec::len)
}

#[test]
fn everybody_who_moves_an_object_has_his_turn() {
    let system = System::start(&["a", "b", "c"]);
    system.account("/plain", "a", 7);
    all_move(&system, "/plain");
    system.account("/copied", "a", 7);
    system.ok(&["replicate", "/copied", "3"]);
    all_move(&system, "/copied");
    assert_eq!(system.balances(["/plain", "/copied"]), [7, 7]);
}

#[test]
fn an_object_that_is_moved_about_gets_its_copies() {
    let system = System::start(&["a", "b", "c"]);
    for policy in ["passive", "cohort", "active"] {
        let name = format!("/{policy}");
        system.account(&name, "a", 7);
        thread::scope(|scope| {
            scope.spawn(|| all_move(&system, &name));
            scope.spawn(|| {
                let replicate = ["replicate", &name, "3", "--policy", policy];
                let told: Value = system.json(&replicate);
                assert_eq!(told["copies"].as_array().unwrap().len(), 3, "{told}");
            });
        });
        eventually(LONG, || members(&system, &name) == 3);
        assert_eq!(system.balances([name.as_str()]), [7]);
        // As often as one likes.
        system.ok(&["replicate", &name, "2"]);
        all_move_between_two(&system, &name);
    }
}

#[test]
fn two_who_give_an_object_its_copies_get_what_they_ask_for() {
    let system = System::start(&["a", "b", "c"]);
    for round in 0..6 {
        let name = format!("/both{round}");
        system.account(&name, "a", 7);
        thread::scope(|scope| {
            scope.spawn(|| system.ok(&["replicate", &name, "3", "--policy", "cohort"]));
            scope.spawn(|| system.ok(&["replicate", &name, "2"]));
        });
        let told = system.json(&["describe", &name]);
        // Whoever says no policy changes none.
        assert_eq!(told["policy"], "cohort", "{told}");
        let wanted = told["wanted"].as_u64().unwrap();
        assert!([2, 3].contains(&wanted), "{told}");
        eventually(LONG, || members(&system, &name) == wanted as usize);
        assert_eq!(system.balances([name.as_str()]), [7]);
    }
}

/// The copies that are left lead in turn.
fn all_move_between_two(system: &System, name: &str) {
    eventually(LONG, || members(system, name) == 2);
    let told = system.json(&["describe", name]);
    let there = told["members"].as_array().unwrap().iter();
    for node in there.rev() {
        system.ok(&["move", name, node.as_str().unwrap(), "--wait", "20s"]);
    }
    assert_eq!(system.balances([name]), [7]);
}
