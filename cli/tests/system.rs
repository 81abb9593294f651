//! The commands on a running system: naming service, binder and bank nodes as processes.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::process::Command;

use common::LONG;
use common::system::System;
use serde_json::{Value, json};
use test_support::{Child, eventually};

#[test]
fn objects_are_made_listed_described_and_called() {
    let system = System::start(&["a", "b"]);
    let owner = r#"{"owner": "alice"}"#;
    let made = system.json(&[
        "create",
        "bank.Account",
        "/bank/alice",
        owner,
        "--node",
        "a",
    ]);
    assert_eq!(made["node"], "a");
    system.ok(&[
        "create",
        "bank.Account",
        "/bank/bob",
        r#"{"owner": "bob"}"#,
        "--node",
        "b",
    ]);

    let listed = system.json(&["ls", "/bank"]);
    let shown: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|row| [&row["name"], &row["type"], &row["node"]].map(|value| value.as_str().unwrap()))
        .collect();
    let expected = [
        ["/bank/alice", "bank.Account", "a"],
        ["/bank/bob", "bank.Account", "b"],
    ];
    assert_eq!(shown, expected);
    assert_eq!(listed[0]["uid"], made["uid"]);
    let table = system.ok(&["ls"]);
    let header: Vec<_> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(header, ["NAME", "TYPE", "NODE", "STATE", "UID"]);
    assert!(
        table.contains("/bank  ") && table.contains("naming.NameContext"),
        "{table}"
    );

    let five = r#"{"amount": 5}"#;
    assert_eq!(system.ok(&["call", "/bank/alice", "deposit", five]), "5\n");
    let uid = made["uid"].as_str().unwrap();
    assert_eq!(system.ok(&["call", uid, "balance"]), "5\n");
    let statement = system.json(&["call", "/bank/alice", "statement"]);
    assert_eq!(
        statement,
        json!({"owner": "alice", "balance": 5, "count": 1})
    );

    let text = system.ok(&["describe", "/bank/alice"]);
    assert!(
        text.contains("persistent interface bank.Account {"),
        "{text}"
    );
    assert!(
        text.contains("    fn deposit(amount: i64) -> i64"),
        "{text}"
    );
    assert!(text.contains("/// An account."), "{text}");
    let described = system.json(&["describe", "/bank/alice"]);
    assert_eq!(
        [&described["class"], &described["uid"]],
        [&json!("bank.Account"), &json!(uid)]
    );
    assert_eq!(described["version"], 2, "made, and changed once");
}

#[test]
fn references_in_arguments_are_names_or_uids() {
    let system = System::start(&["a", "b"]);
    for (name, node) in [("alice", "a"), ("bob", "b")] {
        let owner = json!({ "owner": name }).to_string();
        let path = format!("/bank/{name}");
        system.ok(&["create", "bank.Account", &path, &owner, "--node", node]);
    }
    system.ok(&["create", "bank.AuditLog", "/bank/log"]);
    let log = r#"{"log": "/bank/log"}"#;
    system.ok(&["create", "bank.Branch", "/bank/branch", log]);
    system.ok(&["call", "/bank/alice", "deposit", r#"{"amount": 100}"#]);
    let bob = system.json(&["describe", "/bank/bob"])["uid"]
        .as_str()
        .unwrap()
        .to_owned();
    let transfer = |to: &str, amount: i64| {
        let reference = format!("{amount} to {to}");
        json!({"from": "/bank/alice", "to": to, "amount": amount, "reference": reference})
            .to_string()
    };
    system.ok(&[
        "call",
        "/bank/branch",
        "transfer",
        &transfer("/bank/bob", 30),
    ]);
    system.ok(&["call", "/bank/branch", "transfer", &transfer(&bob, 12)]);
    assert_eq!(system.ok(&["call", "/bank/bob", "balance"]), "42\n");
    let (status, err) =
        system.fails(&["call", "/bank/branch", "transfer", &transfer("/bank/x", 1)]);
    assert_eq!(status, 1);
    assert!(err.contains("the arguments refer to '/bank/x'"), "{err}");
    assert_eq!(system.ok(&["call", "/bank/alice", "balance"]), "58\n");
    // References in answers are uids, also as values of a map.
    let carol = system.json(&["call", "/bank/branch", "open", r#"{"owner": "carol"}"#]);
    let accounts = system.json(&["call", "/bank/branch", "accounts"]);
    assert_eq!(accounts, json!({ "carol": carol }));
    assert_eq!(
        system.ok(&["call", carol.as_str().unwrap(), "balance"]),
        "0\n"
    );
}

#[test]
fn what_goes_wrong_is_told_with_the_right_status() {
    let system = System::start(&["a"]);
    system.ok(&[
        "create",
        "bank.Account",
        "/bank/alice",
        r#"{"owner": "alice"}"#,
    ]);
    let call = |method: &str, json: &str| system.fails(&["call", "/bank/alice", method, json]);
    let (status, err) = call("withdraw", r#"{"amount": 7}"#);
    assert_eq!(status, 1);
    assert_eq!(err, "error[bank.InsufficientFunds]: balance 0, wanted 7\n");
    let withdraw = [
        "call",
        "/bank/alice",
        "withdraw",
        r#"{"amount": 7}"#,
        "-o",
        "json",
    ];
    let (_, err) = system.fails(&withdraw);
    let raised: Value = serde_json::from_str(&err).unwrap();
    let members = json!({"balance": 0, "wanted": 7});
    assert_eq!(
        raised,
        json!({"raised": "bank.InsufficientFunds", "members": members})
    );

    let wrong = [
        ("withdarw", "{}", "bank.Account has no method 'withdarw'"),
        ("withdarw", "{}", "did you mean 'withdraw'?"),
        ("deposit", "{}", "parameter `amount`: missing; expected i64"),
        ("deposit", r#"{"amuont": 1}"#, "did you mean 'amount'?"),
        ("deposit", r#"{"amount": "1"}"#, "found the text \"1\""),
        ("deposit", r#"{"amount": 1"#, "no JSON: EOF"),
        (
            "deposit",
            r#"{"amount": 1, "amount": 2}"#,
            "the key \"amount\" is there twice",
        ),
        (
            "deposit",
            r#"{"amount": 1, "more": 2}"#,
            "`more`: not known here; there are amount",
        ),
        ("watch", "{}", "lives in the process that serves it"),
    ];
    for (method, json, expected) in wrong {
        let (status, err) = call(method, json);
        assert_eq!(status, 2, "{err}");
        assert!(err.contains(expected), "{err}");
    }
}

#[test]
fn what_is_not_there_is_told() {
    let system = System::start(&["a"]);
    system.ok(&[
        "create",
        "bank.Account",
        "/bank/alice",
        r#"{"owner": "alice"}"#,
    ]);
    let failed: [(&[&str], &str); 10] = [
        (&["call", "/bank/carol", "balance"], "has no 'carol'"),
        (
            &["ls", "/bnak"],
            "there is no '/bnak': the root has no name 'bnak'",
        ),
        (&["rm", "/bank"], "still has names"),
        (
            &["alias", "/bank/alice", "/bank/alice"],
            "is taken by object",
        ),
        (&["create", "bank.Account", "/bank/alice"], "is taken by"),
        (
            &["create", "bank.Acount", "/bank/x"],
            "did you mean 'bank.Account'?",
        ),
        (
            &["create", "bank.Account", "/bank/x", "--node", "q"],
            "no node 'q' has registered",
        ),
        (
            &["create", "bank.Account", "/bank/x", "--node", "binder"],
            "node 'binder' does not run the class bank.Account; it runs",
        ),
        (&["stats", "q"], "no node 'q' has registered"),
        (
            &["call", "00000000000000c7-000001-0000000001", "balance"],
            "00000000000000c7",
        ),
    ];
    for (arguments, expected) in failed {
        let (status, err) = system.fails(arguments);
        assert_eq!(status, 1, "{err}");
        assert!(err.contains(expected), "{arguments:?}: {err}");
    }
    assert_eq!(
        system.ok(&["call", "/bank/alice", "balance"]),
        "0\n",
        "nothing has been done"
    );
}

#[test]
fn asking_again_with_the_same_id_does_not_execute_again() {
    let system = System::start(&["a"]);
    system.ok(&[
        "create",
        "bank.Account",
        "/bank/alice",
        r#"{"owner": "alice"}"#,
    ]);
    let id = "00c7d1f20be5a001/1/17";
    let deposit = [
        "call",
        "/bank/alice",
        "deposit",
        r#"{"amount": 9}"#,
        "--again",
        id,
    ];
    assert_eq!(system.ok(&deposit), "9\n");
    assert_eq!(system.ok(&deposit), "9\n");
    assert_eq!(system.ok(&["call", "/bank/alice", "balance"]), "9\n");
}

#[test]
fn names_are_added_and_taken_away_and_the_object_stays() {
    let system = System::start(&["a"]);
    system.ok(&[
        "create",
        "bank.Account",
        "/bank/alice",
        r#"{"owner": "alice"}"#,
    ]);
    system.ok(&["alias", "/bank/alice", "/people/al/ice"]);
    let names = |arguments: &[&str]| {
        let rows = system.json(arguments);
        let names = rows
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["name"].as_str().unwrap());
        names.map(str::to_owned).collect::<Vec<_>>()
    };
    let walked = ["/people", "/people/al", "/people/al/ice"];
    assert_eq!(names(&["ls", "-r"])[4..], walked);
    assert_eq!(names(&["ls", "/people", "-r"]), walked[1..]);
    assert_eq!(names(&["ls", "/people/al/ice"]), walked[2..], "one name");
    system.ok(&["rm", "/bank/alice"]);
    assert_eq!(names(&["ls", "/bank"]), [""; 0]);
    assert_eq!(system.ok(&["call", "/people/al/ice", "balance"]), "0\n");
}

#[test]
fn nodes_are_listed_and_one_that_is_killed_is_told_of() {
    let mut system = System::with_lease(&["a"], "4s");
    system.ok(&[
        "create",
        "bank.Account",
        "/bank/alice",
        r#"{"owner": "alice"}"#,
    ]);
    let nodes = system.json(&["nodes"]);
    let a = nodes
        .as_array()
        .unwrap()
        .iter()
        .find(|node| node["node"] == "a")
        .unwrap();
    assert_eq!(a["state"], "alive");
    let classes = a["classes"].as_array().unwrap();
    assert!(classes.contains(&json!("bank.Account")), "{classes:?}");
    let stats = system.json(&["stats", "a"]);
    assert_eq!(
        [&stats["id"], &stats["active_objects"]],
        [&a["id"], &json!(1)]
    );
    assert_eq!([&a["cordoned"], &a["labels"]], [&json!(false), &json!({})]);
    let address = a["address"][0].as_str().unwrap();
    assert_eq!(system.json(&["stats", address])["id"], a["id"]);

    system.kill("a");
    let (status, err) = system.fails(&["call", "/bank/alice", "balance"]);
    assert_eq!(status, 1);
    assert!(err.contains("node 'a'") && err.contains(address), "{err}");
    let row = &system.json(&["ls", "/bank"])[0];
    assert_eq!(row["state"], "unreachable");
    eventually(LONG, || {
        let nodes = system.json(&["nodes"]);
        let mut nodes = nodes.as_array().unwrap().iter();
        nodes.any(|node| node["node"] == "a" && node["state"] == "silent")
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn many_names_come_page_by_page() {
    use futures_util::{TryStreamExt as _, stream};
    const NAMES: usize = 1_200;

    let system = System::start(&["a"]);
    system.ok(&[
        "create",
        "bank.Account",
        "/bank/alice",
        r#"{"owner": "alice"}"#,
    ]);
    let client = partha::Client::connect(system.naming.clone())
        .await
        .unwrap();
    let naming = client.naming().unwrap();
    let alice = naming.lookup(&client, "/bank/alice").await.unwrap();
    let class = partha::ClassId(alice.class);
    stream::iter((0..NAMES).map(Ok))
        .try_for_each_concurrent(200, |index| {
            let (client, path) = (&client, format!("/many/{index:05}"));
            async move { naming.add(client, &path, alice.object, class).await }
        })
        .await
        .unwrap();
    let rows = system.json(&["ls", "/many"]);
    let names = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["name"].as_str().unwrap());
    let expected: Vec<_> = (0..NAMES)
        .map(|index| format!("/many/{index:05}"))
        .collect();
    assert!(names.eq(expected.iter().map(String::as_str)));
    let table = system.ok(&["ls", "/many"]);
    assert_eq!(table.lines().count(), NAMES + 1, "one header");

    // Whoever has seen the first line goes away; the rest is not an error.
    let program = env!("CARGO_BIN_EXE_partha");
    let script = format!("{program} ls /many | head -n 1; echo ${{PIPESTATUS[0]}}");
    let mut command = Command::new("bash");
    command
        .args(["-c", &script])
        .env("PARTHA_NAMING", &system.naming);
    let (_, out, err) = Child::spawn("pipe", &mut command).finish(LONG);
    assert!(out.ends_with("UID\n0\n") && err.is_empty(), "{out}{err}");
}
