//! Servants that do not end, or that end their processes, on nodes that are processes: what the
//! doctor shows of them, and what others notice.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;
#[path = "../../runtime/tests/common/worker.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test binary uses a part of it"
)]
mod worker;

use std::process::Command;
use std::time::{Duration, Instant};

use common::LONG;
use common::system::System;
use partha::{ActivationPolicy, Node};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use test_support::{Child, TempDir, eventually, temp_dir};
use worker::elsewhere::worker as workers;
use worker::{Gate, WorkerServant};

const DIR: &str = "WORKSHOP_DIR";
const NAMING: &str = "WORKSHOP_NAMING";
const SHARDS: &str = "WORKSHOP_SHARDS";
const PROCESSES: &str = "WORKSHOP_PROCESSES";
const READY: &str = "> ready";
/// More than a node that answers nothing takes of the doctor's time, on a loaded machine.
const DOCTOR_MAX: Duration = Duration::from_secs(10);

/// Where the servants of the node run.
#[derive(Clone, Copy)]
enum Processes {
    /// In its own process.
    None,
    /// In one for each object.
    Own,
    /// In one for each object, whose program ends at once.
    Broken,
}

/// A system with a node `w` that has workers.
struct Workshop {
    // Dropped first: its clients and itself before what they need.
    _node: Child,
    system: System,
    dir: TempDir,
}

#[test]
#[ignore = "a node of the other tests, and its server processes"]
fn node_process() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let variable = |name| std::env::var(name).unwrap();
    let (naming, shards) = (variable(NAMING), variable(SHARDS).parse().unwrap());
    let node = Node::builder().name("w").data_dir(dir).shards(shards);
    let node = node.listen("127.0.0.1:0").naming(naming);
    let class = workers::class(WorkerServant);
    let node = match variable(PROCESSES).as_str() {
        "none" => node.class(class),
        "own" => node.class_with(class, ActivationPolicy::ProcessPerObject),
        "broken" => {
            let node = node.class_with(class, ActivationPolicy::ProcessPerObject);
            node.server_command("sh", ["-c", "exit 3"])
        }
        other => panic!("no such kind of processes: {other}"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let node = node.start().await.unwrap();
        node.registered().await;
        println!("{READY}");
        std::future::pending::<()>().await;
    });
}

impl Workshop {
    fn start(shards: u16, processes: Processes) -> Self {
        let (system, dir) = (System::start(&[]), temp_dir("workshop"));
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--ignored", "--exact", "node_process", "--nocapture"]);
        command.env(DIR, dir.path().join("w"));
        command.env(NAMING, &system.naming);
        command.env(SHARDS, shards.to_string());
        let processes = match processes {
            Processes::None => "none",
            Processes::Own => "own",
            Processes::Broken => "broken",
        };
        command.env(PROCESSES, processes);
        let node = Child::spawn("w", &mut command);
        node.wait_for_line(LONG, |line| line.contains(READY));
        let workshop = Self {
            _node: node,
            system,
            dir,
        };
        eventually(LONG, || workshop.doctor().0 == 0);
        workshop
    }

    /// Makes a worker.
    fn worker(&self, name: &str, value: i64) {
        let value = json!({ "value": value }).to_string();
        let create = ["create", "elsewhere.Worker", name, &value, "--node", "w"];
        self.system.ok(&create);
    }

    fn uid(&self, name: &str) -> Value {
        self.system.json(&["describe", name])["uid"].clone()
    }

    /// A call that must go well.
    #[track_caller]
    fn call(&self, name: &str, method: &str, arguments: &Value) -> i64 {
        let out = self
            .system
            .ok(&["call", name, method, &arguments.to_string()]);
        let answer = out.trim().parse();
        answer.unwrap_or_else(|_| panic!("{name}.{method}: {out}"))
    }

    #[track_caller]
    fn value(&self, name: &str) -> i64 {
        self.call(name, "value", &json!({}))
    }

    #[track_caller]
    fn add(&self, name: &str, amount: i64) -> i64 {
        self.call(name, "add", &json!({ "amount": amount }))
    }

    /// A client that calls, and the gate where the servant stays.
    fn client(&self, name: &str, method: &str) -> (Child, Gate) {
        let gate = Gate::new(self.dir.path(), method);
        let arguments = json!({ "gate": gate.name() }).to_string();
        let call = ["call", name, method, &arguments, "--deadline", "4m"];
        let mut command = self.system.command(&call);
        let client = Child::spawn("client", &mut command);
        eventually(LONG, || gate.is_reached());
        (client, gate)
    }

    /// Status and answer of the doctor.
    #[track_caller]
    fn doctor(&self) -> (i32, Value) {
        let (status, out, err) = self.system.run(&["doctor", "--json"]);
        assert_eq!(err, "");
        let told = serde_json::from_str(&out);
        (
            status,
            told.unwrap_or_else(|error| panic!("{error}: {out}")),
        )
    }

    /// What the doctor tells once it finds something of the kind: all of it, and that finding.
    #[track_caller]
    fn finding(&self, kind: &str) -> (Value, Value) {
        let begun = Instant::now();
        loop {
            let (_, told) = self.doctor();
            let findings = told["findings"].as_array().unwrap().iter();
            if let Some(found) = { findings }.find(|one| one["kind"] == kind) {
                let found = found.clone();
                return (told, found);
            }
            assert!(begun.elapsed() < LONG, "no {kind}: {told}");
        }
    }
}

#[track_caller]
fn says(finding: &Value, member: &str, parts: &[&str]) {
    let text = finding[member].as_str().unwrap();
    let absent: Vec<_> = parts.iter().filter(|part| !text.contains(*part)).collect();
    assert!(absent.is_empty(), "{absent:?} not in: {text}");
}

/// The row of a node.
fn node<'a>(told: &'a Value, name: &str) -> &'a Value {
    let mut rows = told["nodes"].as_array().unwrap().iter();
    rows.find(|row| row["node"] == name).unwrap()
}

#[test]
fn an_endless_loop_whose_client_died_is_shown_and_its_object_is_usable_again() {
    // One shard: whatever the loop kept from others would be seen.
    let workshop = Workshop::start(1, Processes::None);
    workshop.worker("/busy", 1);
    workshop.worker("/other", 10);
    let (client, gate) = workshop.client("/busy", "compute_apart");
    client.kill();
    assert_eq!(
        workshop.add("/other", 1),
        11,
        "the node still answers others"
    );
    // Its lock is free and its copy of the state thrown away.
    assert_eq!(workshop.value("/busy"), 1);
    assert_eq!(workshop.add("/busy", 4), 5);

    let (told, finding) = workshop.finding("servant-runaway");
    assert_eq!(told["findings"].as_array().unwrap().len(), 1, "{told}");
    assert_eq!(finding["node"], "w");
    assert_eq!(finding["subject"], workshop.uid("/busy"));
    let parts = [
        "elsewhere.Worker.compute_apart of /busy at node 'w'",
        "its call was killed",
    ];
    says(&finding, "text", &parts);
    says(
        &finding,
        "cure",
        &["can be called again already", "cx.check()"],
    );
    let row = &told["runaways"][0];
    assert_eq!(
        [&row["runaway"], &row["method"]],
        ["/busy", "compute_apart"]
    );
    assert!(
        row["busy"].as_f64() >= row["killed"].as_f64() && row["killed"].as_f64() >= Some(1.0),
        "{row}"
    );
    assert_eq!(node(&told, "w")["locked"], 0, "{told}");
    let (_, screen, _) = workshop.system.run(&["doctor"]);
    assert!(screen.contains("\nRUNAWAY"), "{screen}");

    // Its end changes nothing but that it is not shown any more.
    gate.open();
    eventually(LONG, || workshop.doctor().1["runaways"] == json!([]));
    assert_eq!(workshop.doctor().0, 0);
    let evicted = workshop
        .system
        .ok(&["doctor", "evict", "/busy", "--yes", "--json"]);
    assert!(evicted.contains(r#""evicted":true"#), "{evicted}");
    assert_eq!(workshop.value("/busy"), 5, "what is committed");
}

#[test]
fn a_servant_that_keeps_one_of_two_shards_is_shown_by_the_other() {
    let workshop = Workshop::start(2, Processes::None);
    // Names are of objects on either shard.
    let mut names = [None, None];
    for number in 0.. {
        let name = format!("/w{number}");
        workshop.worker(&name, 1);
        let shard = workshop.system.json(&["describe", &name])["shard"].as_u64();
        names[usize::try_from(shard.unwrap()).unwrap()] = Some(name);
        if names.iter().all(Option::is_some) {
            break;
        }
    }
    let stuck = names[1].take().unwrap();
    let uid = workshop.uid(&stuck);
    let (client, gate) = workshop.client(&stuck, "compute");
    workshop.finding("servant-stuck");
    // Each shard in turn is the one that is asked first.
    for _ in 0..3 {
        let (status, told) = workshop.doctor();
        assert_eq!(status, 1);
        let [finding] = &told["findings"].as_array().unwrap()[..] else {
            panic!("{told}")
        };
        assert_eq!(finding["kind"], "servant-stuck");
        assert_eq!(finding["subject"], uid);
        let parts = [
            format!("elsewhere.Worker.compute of {stuck} has kept the thread of shard 1 of node"),
            "has not told its statistics, sessions, actions, locks".to_owned(),
        ];
        says(finding, "text", &parts.each_ref().map(String::as_str));
        says(
            finding,
            "cure",
            &["mark elsewhere.Worker.compute #[blocking]"],
        );
        let row = &told["stuck"][0];
        assert_eq!([&row["stuck"], &row["node"]], [&json!(stuck), &json!("w")]);
        // What is not known is not told as nought.
        let row = node(&told, "w");
        assert_eq!(row["state"], "answers");
        assert_eq!([&row["locked"], &row["active"]], [&Value::Null; 2], "{row}");
    }
    let (status, err) = workshop.system.fails(&["sessions", "w"]);
    assert_eq!(status, 1);
    assert!(err.contains("has kept the thread of shard 1"), "{err}");
    gate.open();
    eventually(LONG, || workshop.doctor().0 == 0);
    // Whether it was stuck for longer than its client's connection lives is a matter of time.
    client.wait(LONG);
    assert!([1, 2].contains(&workshop.value(&stuck)));
}

#[test]
fn a_node_whose_only_shard_is_kept_accepts_but_does_not_answer() {
    let workshop = Workshop::start(1, Processes::None);
    workshop.worker("/busy", 1);
    let (client, gate) = workshop.client("/busy", "compute");
    let begun = Instant::now();
    let (status, told) = workshop.doctor();
    let took = begun.elapsed();
    assert_eq!(status, 1);
    assert!(took < DOCTOR_MAX, "{took:?}");
    let [finding] = &told["findings"].as_array().unwrap()[..] else {
        panic!("{told}")
    };
    assert_eq!([&finding["kind"], &finding["node"]], ["node-silent", "w"]);
    says(
        finding,
        "text",
        &["accepts connections, but does not answer"],
    );
    let parts = ["servants keep the threads of all its shards", "#[blocking]"];
    says(finding, "cure", &parts);
    assert_eq!(node(&told, "w")["state"], "silent");
    gate.open();
    client.wait(LONG);
    eventually(LONG, || workshop.doctor().0 == 0);
}

#[test]
fn server_processes_are_shown_and_a_killed_one_is_none_of_the_others_trouble() {
    let workshop = Workshop::start(2, Processes::Own);
    for (name, value) in [("/one", 1), ("/two", 2)] {
        workshop.worker(name, value);
        assert_eq!(workshop.add(name, 10), value + 10);
    }
    let process = |name: &str| workshop.call(name, "process", &json!({}));
    let row = |name: &str| {
        let (status, told) = workshop.doctor();
        assert_eq!(status, 0, "one crash is no finding: {told}");
        let rows = told["servers"].as_array().unwrap();
        let found = rows.iter().find(|row| row["server"] == name);
        found.unwrap_or_else(|| panic!("{told}")).clone()
    };
    let victim = process("/one");
    let one = row("/one");
    assert_eq!(one["pid"], victim);
    assert_eq!([&one["class"], &one["node"]], ["elsewhere.Worker", "w"]);
    assert_eq!(
        [&one["restarts"], &one["last_exit"]],
        [&json!(0), &Value::Null]
    );
    let pid = Pid::from_raw(i32::try_from(victim).unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    assert_eq!(workshop.value("/two"), 12, "the others answer");
    eventually(LONG, || row("/one")["crashes"] == 1);
    says(&row("/one"), "last_exit", &["SIGKILL"]);
    assert_eq!(workshop.value("/one"), 11, "its committed state");
    let one = row("/one");
    assert_eq!([&one["restarts"], &one["crashes"]], [1, 0], "{one}");
    assert_ne!(process("/one"), victim);
    assert_eq!(row("/two")["restarts"], 0);
}

#[test]
fn a_server_process_that_crashes_again_and_again_is_a_finding() {
    let workshop = Workshop::start(2, Processes::Broken);
    workshop.worker("/one", 1);
    for _ in 0..3 {
        let (_, err) = workshop.system.fails(&["call", "/one", "value"]);
        assert!(err.contains("exit status: 3"), "{err}");
    }
    let (status, told) = workshop.doctor();
    assert_eq!(status, 1);
    let [finding] = &told["findings"].as_array().unwrap()[..] else {
        panic!("{told}")
    };
    assert_eq!(finding["kind"], "server-crashing");
    assert_eq!(finding["subject"], workshop.uid("/one"));
    let parts = [
        "the server process of elsewhere.Worker /one at node 'w' has crashed",
        "exit status: 3",
    ];
    says(finding, "text", &parts);
    says(finding, "cure", &["mend the servant"]);
    let row = &told["servers"][0];
    assert_eq!(
        [&row["server"], &row["pid"]],
        [&json!("/one"), &Value::Null]
    );
    assert!(row["crashes"].as_u64() >= Some(3), "{row}");
}
