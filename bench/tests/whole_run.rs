//! The program as a user runs it: processes, tables, lines of JSON, the page, verdicts.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::Value;
use test_support::{Child, Exit, Signal, eventually_some, temp_dir};

const LONG: Duration = Duration::from_secs(300);
const POSTGRES: &str = "/usr/lib/postgresql/15/bin/postgres";
const ETCD: &str = "/usr/bin/etcd";

fn start(arguments: &[&str]) -> Child {
    let program = env!("CARGO_BIN_EXE_bench");
    Child::spawn("bench", Command::new(program).args(arguments))
}

fn bench(arguments: &[&str]) -> (Exit, String, String) {
    start(arguments).finish(LONG)
}

/// With this as the temporary folder.
fn start_in(folder: &Path, arguments: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
    Child::spawn("bench", command.args(arguments).env("TMPDIR", folder))
}

/// What is in a folder, and in those in it.
fn contents(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    // A folder may go while we look.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        found.push(entry.path());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(contents(&entry.path()));
        }
    }
    found
}

/// The processes that a process has started, and those that they have, with their names.
fn descendants(pid: u32) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let list = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for child in list.split_whitespace().filter_map(|id| id.parse().ok()) {
            let name = fs::read_to_string(format!("/proc/{child}/comm")).unwrap_or_default();
            found.push((child, name.trim().to_owned()));
            found.extend(descendants(child));
        }
    }
    found
}

/// Interrupts it; fails unless what it has started, `pids` among it, ends with it.
fn interrupt(bench: &Child, pids: &[u32]) {
    bench.signal(Signal::INT);
    let (exit, _, err) = bench.finish(LONG);
    assert_eq!(exit, Exit::Code(1), "{err}");
    assert!(err.contains("interrupted"), "{err}");
    for pid in pids {
        assert!(
            !Path::new(&format!("/proc/{pid}")).exists(),
            "{pid} lives on"
        );
    }
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
    for expected in [
        "tarpc 0.38",
        "1.00 ×",
        "p99",
        "round trips 1.",
        "P1",
        "checks met",
    ] {
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
    servers_tell_what_they_used(&lines);
    assert!(of_kind("median").any(|line| line["ratio"] == 1.0));
    round_trips_are_few(&lines);
    databases_are_measured_where_they_are(&lines, &out);
    let targets: BTreeSet<_> = of_kind("target").map(|line| text(line, "target")).collect();
    let numbers = (1..=15).map(|number| format!("P{number}"));
    for number in numbers.chain(["S1".to_owned()]) {
        assert!(targets.contains(&*number), "{targets:?}");
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

/// Whoever has a server tells what both sides used.
fn servers_tell_what_they_used(lines: &[Value]) {
    let of_benchmark = |name: &'static str| {
        let runs = lines.iter().filter(|line| line["kind"] == "run");
        runs.filter(move |line| line["benchmark"] == name)
    };
    for run in of_benchmark("null") {
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
        let latencies = run["latencies_ns"].as_array();
        assert!(latencies.is_some_and(|seen| !seen.is_empty()), "{run}");
    }
    for run in of_benchmark("start-up") {
        assert!(
            run["metrics"]["server_peak_mib"].as_f64() > Some(1.0),
            "{run}"
        );
    }
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
    for (peer, program) in [("postgres-2pc", POSTGRES), ("etcd-put", ETCD)] {
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
fn a_run_leaves_nothing_behind() {
    let folder = temp_dir("bench");
    let bench = start_in(
        folder.path(),
        &[
            "--smoke",
            "--peers",
            "partha,partha-within",
            "null",
            "inside",
        ],
    );
    let (exit, _, err) = bench.finish(LONG);
    assert_eq!(exit, Exit::Code(0), "{err}");
    assert_eq!(contents(folder.path()), Vec::<PathBuf>::new());
}

#[test]
fn an_interruption_ends_what_was_started() {
    // A server and a client, of which the one has a store; a client that has one itself.
    for (peer, name, processes) in [("partha", "null", 2), ("partha-within", "inside", 1)] {
        let folder = temp_dir("bench");
        let bench = start_in(folder.path(), &["--full", "--peers", peer, name]);
        let started = eventually_some(LONG, || {
            let stored = contents(folder.path());
            let stored = stored.iter().any(|path| path.ends_with("data.mdb"));
            let found = descendants(bench.id());
            (stored && found.len() >= processes).then_some(found)
        });
        let pids: Vec<_> = started.into_iter().map(|(pid, _)| pid).collect();
        interrupt(&bench, &pids);
        assert_eq!(contents(folder.path()), Vec::<PathBuf>::new(), "{name}");
    }
}

#[test]
fn an_interruption_ends_databases_that_are_just_starting() {
    for (peer, path, programs) in [
        ("postgres-2pc", POSTGRES, &["initdb", "postgres"][..]),
        ("etcd-put", ETCD, &["etcd"]),
    ] {
        if !Path::new(path).exists() {
            // A peer of long runs, which not even the continuous integration installs.
            eprintln!("skipped: {path} not installed");
            continue;
        }
        let bench = start(&["--full", "--peers", peer, "transfer"]);
        let started = eventually_some(LONG, || {
            let found = descendants(bench.id());
            let begun = found.iter().any(|(_, name)| programs.contains(&&**name));
            begun.then_some(found)
        });
        let pids: Vec<_> = started.into_iter().map(|(pid, _)| pid).collect();
        interrupt(&bench, &pids);
    }
}

#[test]
fn one_core_for_two_is_warned_of() {
    let warned = thread::spawn(|| {
        // What this thread starts keeps to the core as well.
        let allowed = sched_getaffinity(None).unwrap();
        let first = (0..CpuSet::MAX_CPU).find(|&core| allowed.is_set(core));
        let mut one = CpuSet::new();
        one.set(first.unwrap());
        sched_setaffinity(None, &one).unwrap();
        bench(&["--smoke", "--peers", "raw", "null"])
    });
    let (exit, _, err) = warned.join().unwrap();
    assert_eq!(exit, Exit::Code(0), "{err}");
    assert!(
        err.contains("may be used: client and server share"),
        "{err}"
    );
}
