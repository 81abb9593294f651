//! The program as a user runs it: processes, table and JSON lines.

use std::fs;
use std::process::Command;
use std::time::Duration;

use test_support::{Child, Exit, temp_dir};

const LONG: Duration = Duration::from_secs(120);

fn bench(arguments: &[&str]) -> (Exit, String, String) {
    let program = env!("CARGO_BIN_EXE_bench");
    Child::spawn("bench", Command::new(program).args(arguments)).finish(LONG)
}

#[test]
fn a_quick_run_prints_a_table_and_writes_json_lines() {
    let folder = temp_dir("bench");
    let json = folder.path().join("runs.jsonl");
    let path = json.to_str().unwrap();
    let common = ["--quick", "--outstanding", "2", "--json", path];
    let (exit, out, err) = bench(&[&common[..], &["--peers", "tarpc,oneshot", "null"]].concat());
    assert_eq!(exit, Exit::Code(0), "{err}");
    for expected in ["2 outstanding", "tarpc", "oneshot", "1.00 ×", "p99"] {
        assert!(out.contains(expected), "no `{expected}` in\n{out}");
    }
    let lines = fs::read_to_string(json).unwrap();
    let lines: Vec<serde_json::Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let count = |kind| lines.iter().filter(|line| line["kind"] == kind).count();
    assert_eq!((count("run"), count("median")), (6, 2));
    assert!(
        lines
            .iter()
            .all(|line| line["calls_per_second"].as_f64().unwrap() > 0.0)
    );
}

#[test]
fn the_lock_table_is_measured_by_itself() {
    let (exit, out, err) = bench(&["--quick", "locks"]);
    assert_eq!(exit, Exit::Code(0), "{err}");
    for expected in ["one key", "inherited 3 times", "pairs/s", "medians of 3"] {
        assert!(out.contains(expected), "no `{expected}` in\n{out}");
    }
    assert!(!out.contains("outstanding"), "null calls too:\n{out}");
}

#[test]
fn a_misspelt_peer_is_refused_with_the_known_ones() {
    let (exit, _, err) = bench(&["--peers", "tarcp"]);
    assert_eq!(exit, Exit::Code(2));
    assert!(err.contains("tarpc") && err.contains("capnp-rpc"), "{err}");
}
