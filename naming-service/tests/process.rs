//! The naming service as a process: readiness, signals, crashes, configuration.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use partha::{ClassId, Client, NodeId, Uid};
use test_support::{Child, Exit, Signal, temp_dir};

const LONG: Duration = Duration::from_secs(60);
const OBJECT: Uid = Uid {
    node: NodeId(77),
    local: 5,
};

fn daemon(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_partha-naming"));
    command.arg("--data-dir").arg(folder);
    command.args(["--listen", "127.0.0.1:0", "--shards", "1"]);
    for (key, _) in std::env::vars_os() {
        if key.to_string_lossy().starts_with("PARTHA_") {
            command.env_remove(key);
        }
    }
    command
}

/// Starts it and waits for the address it tells.
fn start(command: &mut Command) -> (Child, String) {
    let child = Child::spawn("naming", command);
    let line = child.wait_for_line(LONG, |line| line.starts_with("ready "));
    let address = line.strip_prefix("ready naming ").unwrap().to_owned();
    (child, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_there_after_a_kill_and_after_a_stop() {
    let folder = temp_dir("naming");
    let (child, address) = start(&mut daemon(folder.path()));
    let client = Client::connect(address).await.unwrap();
    client
        .naming()
        .unwrap()
        .add(&client, "/a/b", OBJECT, ClassId(7))
        .await
        .unwrap();
    child.kill();
    for _ in 0..2 {
        let (child, address) = start(&mut daemon(folder.path()));
        let client = Client::connect(address).await.unwrap();
        let entry = client
            .naming()
            .unwrap()
            .lookup(&client, "/a/b")
            .await
            .unwrap();
        assert_eq!(entry.object, OBJECT);
        child.signal(Signal::TERM);
        assert_eq!(child.wait(LONG), Exit::Code(0));
    }
}

#[test]
fn two_processes_cannot_have_one_folder() {
    let folder = temp_dir("naming");
    let (child, _) = start(&mut daemon(folder.path()));
    let second = Child::spawn("second", &mut daemon(folder.path()));
    let (exit, _, error) = second.finish(LONG);
    assert_eq!(exit, Exit::Code(1));
    assert!(error.contains("cannot start the naming service"), "{error}");
    assert!(
        error.contains(&folder.path().display().to_string()),
        "{error}"
    );
    assert_eq!(child.exit(), None);
}

#[test]
fn a_taken_port_is_named() {
    let (one, two) = (temp_dir("naming"), temp_dir("naming"));
    let (_child, address) = start(&mut daemon(one.path()));
    let mut second = Command::new(env!("CARGO_BIN_EXE_partha-naming"));
    second
        .arg("--data-dir")
        .arg(two.path())
        .args(["--listen", &address]);
    let (exit, _, error) = Child::spawn("second", &mut second).finish(LONG);
    assert_eq!(exit, Exit::Code(1));
    assert!(error.contains(&address), "{error}");
}

#[test]
fn settings_come_from_flag_environment_and_file_in_this_order() {
    let folder = temp_dir("naming");
    let file = folder.path().join("naming.toml");
    let store = |name: &str| folder.path().join(name);
    let text = format!(
        "[node]\nlisten = \"127.0.0.1:0\"\nshards = 1\ndata-dir = \"{}\"\n\
         [log]\nformat = \"json\"\n",
        store("of-file").display()
    );
    std::fs::write(&file, text).unwrap();
    let run = |by_flag: bool, by_environment: bool| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_partha-naming"));
        command.arg("--config").arg(&file);
        if by_flag {
            command.arg("--data-dir").arg(store("of-flag"));
        }
        if by_environment {
            command.env("PARTHA_DATA_DIR", store("of-environment"));
        }
        let (child, _) = start(&mut command);
        child.wait_for_log(LONG, |line| line.starts_with('{'));
        child.signal(Signal::INT);
        assert_eq!(child.wait(LONG), Exit::Code(0));
    };
    run(true, true);
    assert!(store("of-flag").exists() && !store("of-environment").exists());
    run(false, true);
    assert!(store("of-environment").exists() && !store("of-file").exists());
    run(false, false);
    assert!(store("of-file").exists());
}

#[test]
fn what_is_wrong_with_the_settings_is_said() {
    let folder = temp_dir("naming");
    let file = folder.path().join("naming.toml");
    std::fs::write(&file, "[node]\nlsten = \"x\"\n").unwrap();
    let mut command = daemon(folder.path());
    let child = Child::spawn("naming", command.arg("--config").arg(&file));
    let (exit, out, error) = child.finish(LONG);
    assert_eq!((exit, out.as_str()), (Exit::Code(1), ""));
    assert!(
        error.contains("naming.toml: TOML parse error at line 2, column 1"),
        "{error}"
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_partha-naming"));
    let child = Child::spawn("naming", command.args(["--listen", "0.0.0.0:0"]));
    let (exit, _, error) = child.finish(LONG);
    assert_eq!(exit, Exit::Code(1));
    assert!(error.contains("--insecure"), "{error}");
}

#[test]
fn systemd_is_told_when_it_is_ready_and_when_it_stops() {
    let folder = temp_dir("naming");
    let path = folder.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    let heard = |wanted: &str| {
        let mut buffer = [0; 1024];
        loop {
            let count = socket.recv(&mut buffer).unwrap();
            let text = str::from_utf8(&buffer[..count]).unwrap();
            if text.lines().any(|line| line == wanted) {
                break;
            }
        }
    };
    let mut command = daemon(&folder.path().join("store"));
    let (child, _) = start(command.env("NOTIFY_SOCKET", &path));
    heard("READY=1");
    child.signal(Signal::TERM);
    heard("STOPPING=1");
    assert_eq!(child.wait(LONG), Exit::Code(0));
}

#[test]
fn it_does_not_outlive_its_parent_if_told_so() {
    let folder = temp_dir("naming");
    // Standard input of these children is closed from the start.
    let child = Child::spawn("naming", daemon(folder.path()).arg("--stop-with-stdin"));
    assert_eq!(child.wait(LONG), Exit::Code(0));
}
