//! The program as a user runs it: processes, tables, lines of JSON, the page, verdicts.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use test_support::{Child, Exit, Signal, eventually_some, temp_dir};

const LONG: Duration = Duration::from_secs(300);

fn start(arguments: &[&str]) -> Child {
    let program = env!("CARGO_BIN_EXE_bench");
    Child::spawn("bench", Command::new(program).args(arguments))
}

fn bench(arguments: &[&str]) -> (Exit, String, String) {
    start(arguments).finish(LONG)
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).expect("the file is there");
    let lines = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line is JSON"));
    lines.collect()
}

fn text<'a>(line: &'a Value, field: &str) -> &'a str {
    line[field].as_str().unwrap_or_default()
}

#[test]
fn every_benchmark_runs_and_yields_its_figures() {
    let folder = temp_dir("bench");
    let (json, html) = (
        folder.path().join("runs.jsonl"),
        folder.path().join("page.html"),
    );
    let (exit, out, err) = bench(&[
        "--smoke",
        "--json",
        json.to_str().unwrap(),
        "--html",
        html.to_str().unwrap(),
    ]);
    assert_eq!(exit, Exit::Code(0), "{err}");
    assert!(err.contains("this takes about"), "{err}");
    for expected in ["tarpc 0.38", "1.00 ×", "p99", "P1", "checks met"] {
        assert!(out.contains(expected), "no `{expected}` in\n{out}");
    }
    let lines = lines(&json);
    let of_kind = |kind: &'static str| lines.iter().filter(move |line| line["kind"] == kind);
    let benchmarks: BTreeSet<_> = of_kind("run").map(|line| text(line, "benchmark")).collect();
    let (_, list, _) = bench(&["--list"]);
    for line in list.lines().filter(|line| !line.contains("on request")) {
        let name = line.split(' ').next().unwrap();
        assert!(benchmarks.contains(name), "no figures of {name}");
        assert!(out.contains(name), "no table of {name}");
    }
    for run in of_kind("run") {
        let metrics = run["metrics"].as_object().unwrap();
        let rate = metrics.get("rate").map(|rate| rate.as_f64() > Some(0.0));
        assert!(!metrics.is_empty() && rate != Some(false), "{run}");
    }
    // Whoever has a server tells what both sides used.
    for run in of_kind("run").filter(|line| line["benchmark"] == "null") {
        for metric in [
            "p50_us",
            "client_cpu_us",
            "server_cpu_us",
            "server_peak_mib",
        ] {
            // A server that has no turn in so short a time uses none.
            let least = if metric.ends_with("cpu_us") {
                0.0
            } else {
                f64::MIN_POSITIVE
            };
            let found = run["metrics"][metric].as_f64();
            assert!(found.is_some_and(|found| found >= least), "{metric}: {run}");
        }
        assert!(!run["latencies_ns"].as_array().unwrap().is_empty(), "{run}");
    }
    assert!(of_kind("median").any(|line| line["ratio"] == 1.0));
    round_trips_are_few(&lines);
    databases_are_measured_where_they_are(&lines, &out);
    let targets: BTreeSet<_> = of_kind("target").map(|line| text(line, "target")).collect();
    for number in 1..=14 {
        assert!(targets.contains(&*format!("P{number}")), "{targets:?}");
    }
    let judged = |verdict| {
        of_kind("target")
            .filter(|line| line["verdict"] == verdict)
            .count()
    };
    assert!(judged("met") + judged("missed") > 10);
    let page = fs::read_to_string(html).unwrap();
    assert!(page.contains("<svg") && page.ends_with("</html>\n"));
}

/// Lookup, locate, initiate, call; of twenty objects each, so that a heartbeat between them does
/// not matter.
fn round_trips_are_few(lines: &[Value]) {
    let counted = |object| {
        let wanted = |run: &&Value| {
            run["kind"] == "run"
                && run["peer"] == "partha-counted"
                && run["parameters"]["object"] == object
        };
        let run = lines.iter().find(wanted);
        let found = run.and_then(|run| run["metrics"]["round_trips"].as_f64());
        found.expect("round trips are counted")
    };
    for (object, expected) in [
        ("bound", 1.0),
        ("passive, at a known node", 3.0),
        ("passive, at an unknown node", 4.0),
    ] {
        let found = counted(object);
        assert!(
            (expected..expected + 0.4).contains(&found),
            "{object}: {found}"
        );
    }
}

/// Elsewhere it is said how to get them.
fn databases_are_measured_where_they_are(lines: &[Value], out: &str) {
    for (peer, program) in [
        ("postgres-2pc", "/usr/lib/postgresql/15/bin/postgres"),
        ("etcd-put", "/usr/bin/etcd"),
    ] {
        let measured = lines
            .iter()
            .any(|line| line["kind"] == "run" && line["peer"] == peer);
        assert_eq!(measured, Path::new(program).exists(), "{peer}");
        assert!(measured || out.contains("apt-get install"), "{out}");
    }
}

#[test]
fn the_lock_table_is_measured_by_itself() {
    let (exit, out, err) = bench(&["--smoke", "locks"]);
    assert_eq!(exit, Exit::Code(0), "{err}");
    for expected in [
        "one key",
        "inherited 3 times",
        "partha's core alone",
        "one round",
    ] {
        assert!(out.contains(expected), "no `{expected}` in\n{out}");
    }
    assert!(out.contains("the benchmark `null` was not run"), "{out}");
}

#[test]
fn system_calls_are_counted_where_strace_is() {
    let (exit, out, err) = bench(&["--smoke", "--peers", "raw,partha", "syscalls"]);
    assert_eq!(exit, Exit::Code(0), "{err}");
    let installed = Command::new("strace").arg("--version").output().is_ok();
    let expected = if installed {
        "syscalls of the server"
    } else {
        "strace is not installed"
    };
    assert!(out.contains(expected), "{out}");
}

#[test]
fn what_is_misspelt_is_refused_with_what_is_known() {
    for (arguments, expected) in [
        (&["nul"][..], &["`nul`", "null", "locks"][..]),
        (&["--peers", "tarcp"], &["`tarcp`", "tarpc", "capnp-rpc"]),
        (&["--assert", "P99"], &["`P99`", "P1, P2"]),
    ] {
        let (exit, _, err) = bench(arguments);
        assert_eq!(exit, Exit::Code(1), "{err}");
        for expected in expected {
            assert!(err.contains(expected), "no `{expected}` in\n{err}");
        }
    }
}

#[test]
fn only_asserted_targets_make_it_fail() {
    // Without its peers P2 cannot be met.
    let run = ["--smoke", "--peers", "raw", "null"];
    let (exit, _, err) = bench(&run);
    assert_eq!(exit, Exit::Code(0), "{err}");
    let (exit, _, err) = bench(&[&["--assert", "P2"], &run[..]].concat());
    assert_eq!(exit, Exit::Code(1), "{err}");
    assert!(
        err.contains("P2, calls/s over tarpc: not measured"),
        "{err}"
    );
}

#[test]
fn an_interruption_ends_what_was_started() {
    let bench = start(&["--full", "--peers", "raw", "null"]);
    let children = format!("/proc/{0}/task/{0}/children", bench.id());
    let started = eventually_some(LONG, || {
        let pids = fs::read_to_string(&children).ok()?;
        let pids: Vec<u32> = pids
            .split_whitespace()
            .map(|pid| pid.parse().unwrap())
            .collect();
        // A server and a client.
        (pids.len() >= 2).then_some(pids)
    });
    bench.signal(Signal::INT);
    let (exit, _, err) = bench.finish(LONG);
    assert_eq!(exit, Exit::Code(1), "{err}");
    assert!(err.contains("interrupted"), "{err}");
    for pid in started {
        assert!(
            !Path::new(&format!("/proc/{pid}")).exists(),
            "{pid} lives on"
        );
    }
}
