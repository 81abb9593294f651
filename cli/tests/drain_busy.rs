//! A drain of a node where an object is kept busy, and where something cannot go: what it says, and
//! that it goes on when it is asked again. The nodes are those of this process, the rest are
//! processes.

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

use bank::{AccountServant, account};
use common::LONG;
use common::system::System;
use partha::Node;
use serde_json::{Value, json};
use test_support::{Child, TempDir, eventually, temp_dir};
use worker::elsewhere::worker as workers;
use worker::{Gate, WorkerServant};

/// A node that runs workers, and accounts if it is so wanted.
async fn node(system: &System, folder: &TempDir, name: &str, accounts: bool) -> Node {
    let builder = Node::builder()
        .name(name)
        .data_dir(folder.path().join(name))
        .shards(2)
        .naming(system.naming.clone())
        .class(workers::class(WorkerServant));
    let builder = match accounts {
        true => builder.class(account::class(AccountServant::default())),
        false => builder,
    };
    let node = builder.start().await.unwrap();
    node.registered().await;
    node
}

/// What a drain said, with its exit status.
fn drain(system: &System, arguments: &[&str]) -> (i32, Value) {
    let all = [&["node", "drain", "v"], arguments, &["--json"]].concat();
    let (status, out, err) = system.run(&all);
    let told = serde_json::from_str(&out);
    let told = told.unwrap_or_else(|error| panic!("{error}: {out}\n{err}"));
    (status, told)
}

/// What a worker holds.
fn value(system: &System, name: &str) -> i64 {
    system.ok(&["call", name, "value"]).trim().parse().unwrap()
}

/// Two idle workers, one that a client keeps busy, and an account, all at `v`; the client.
fn objects(system: &System, folder: &TempDir) -> Child {
    for (name, value) in [("/idle", 1), ("/busy", 2), ("/idle2", 3)] {
        let value = json!({ "value": value }).to_string();
        let create = ["create", "elsewhere.Worker", name, &value, "--node", "v"];
        system.ok(&create);
    }
    let owner = r#"{"owner": "x"}"#;
    system.ok(&["create", "bank.Account", "/account", owner, "--node", "v"]);

    let gate = Gate::new(folder.path(), "gate");
    let arguments = json!({ "gate": gate.name() }).to_string();
    let call = ["call", "/busy", "wait", &arguments, "--deadline", "4m"];
    let client = Child::spawn("client", &mut system.command(&call));
    eventually(LONG, || gate.is_reached());
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_busy_or_can_go_nowhere_stays_and_is_named() {
    let (system, folder) = (System::start(&[]), temp_dir("busy"));
    let v = node(&system, &folder, "v", true).await;
    let w = node(&system, &folder, "w", false).await;
    let client = objects(&system, &folder);

    let (status, told) = drain(&system, &["--wait", "200ms", "--patience", "1s"]);
    assert_eq!(
        (status, &told["may_be_stopped"]),
        (1, &json!(false)),
        "{told}"
    );
    assert_eq!(
        [&told["objects"], &told["moved"]],
        [&json!(4), &json!(2)],
        "{told}"
    );
    let stays = told["stays"].as_array().unwrap();
    let of = |class: &str| {
        let mut stays = stays.iter();
        let found = stays.find(|stays| stays["class"] == class);
        found.unwrap_or_else(|| panic!("no {class}: {told}"))
    };
    let busy = of("elsewhere.Worker");
    let shown = ["count", "busy", "objects"].map(|name| busy[name].clone());
    assert_eq!(shown, [json!(1), json!(true), json!(["/busy"])], "{told}");
    let nowhere = of("bank.Account");
    let shown = ["count", "busy", "objects"].map(|name| nowhere[name].clone());
    assert_eq!(
        shown,
        [json!(1), json!(false), json!(["/account"])],
        "{told}"
    );
    assert!(
        nowhere["why"]
            .as_str()
            .unwrap()
            .contains("no other living node")
    );
    let sentence = told["told"].as_str().unwrap();
    assert!(
        sentence.contains("may not be stopped yet: 2 objects stay")
            && sentence.contains("`partha node drain v` goes on"),
        "{sentence}"
    );
    // It serves what stays, and nobody has lost anything.
    assert_eq!(value(&system, "/idle"), 1);
    let moving = system.fails(&["move", "/busy", "w", "--wait", "200ms"]);
    assert!(moving.1.contains("partha why /busy"), "{}", moving.1);

    goes_on_when_the_caller_is_gone(&system, &client);
    v.shutdown(LONG).await.unwrap();
    w.shutdown(LONG).await.unwrap();
}

fn goes_on_when_the_caller_is_gone(system: &System, client: &Child) {
    // So is its call.
    client.kill();
    let (status, told) = drain(system, &[]);
    assert_eq!(status, 1, "{told}");
    assert_eq!(
        [&told["objects"], &told["moved"]],
        [&json!(2), &json!(1)],
        "{told}"
    );
    assert!(
        told["told"].as_str().unwrap().contains("1 object stays"),
        "{told}"
    );
    assert_eq!(
        value(system, "/busy"),
        2,
        "what the stopped call did is undone"
    );
    assert_eq!(system.json(&["describe", "/busy"])["node"], "w");
}
