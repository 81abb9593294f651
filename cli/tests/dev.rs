//! `partha dev` as its users run it, with other commands beside it.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::{LONG, command, partha_in};
use test_support::{Child, Exit, Signal, TempDir, eventually, eventually_some, temp_dir};

/// A folder with a `partha.toml` whose nodes are this very program, and a port for all.
struct Project {
    folder: TempDir,
    port: u16,
}

impl Project {
    fn new() -> Self {
        let folder = temp_dir("dev");
        let program = env!("CARGO_BIN_EXE_partha");
        let node = |name: &str| {
            format!("[[node]]\nname = \"{name}\"\ncommand = [\"{program}\", \"serve\", \"bank\"]\n")
        };
        let account = |name: &str, node: &str| {
            format!(
                "[[object]]\nname = \"/bank/{name}\"\nclass = \"bank.Account\"\n\
                 node = \"{node}\"\narguments = {{ owner = \"{name}\" }}\n"
            )
        };
        let text = node("a") + &node("b") + &account("alice", "a") + &account("bob", "b");
        fs::write(folder.path().join("partha.toml"), text).unwrap();
        Self {
            folder,
            port: free_ports(),
        }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn dev(&self) -> Command {
        let mut command = command(&["dev", "--port", &self.port.to_string()]);
        command.current_dir(self.path());
        command
    }

    /// Starts it and waits until everything runs.
    fn start(&self) -> Child {
        let dev = Child::spawn("dev", &mut self.dev());
        dev.wait_for_line(LONG, |line| line == "Ctrl-C stops all");
        dev
    }

    /// What a command prints, that must go well.
    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        let (status, out, err) = partha_in(self.path(), arguments);
        assert_eq!((status, err.as_str()), (0, ""), "{arguments:?}");
        out.trim_end().to_owned()
    }

    /// Whether anybody listens at one of the ports.
    fn is_anybody_there(&self) -> bool {
        let ports = [0, 1, 10, 11].map(|offset| self.port + offset);
        ports
            .iter()
            .any(|port| std::net::TcpStream::connect(("127.0.0.1", *port)).is_ok())
    }
}

/// A port that is free with all others that `dev` takes. They are restarted in the same place, so
/// they lie outside the range from which the system takes those of outgoing connections.
fn free_ports() -> u16 {
    let start = std::process::id().wrapping_mul(97) % 5_000;
    let mut candidates = (0..500).map(|step| 10_000 + (start + step * 20) as u16 % 5_000);
    let free = |port: &u16| {
        let all = [0, 1, 10, 11].map(|offset| port + offset);
        all.iter()
            .all(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok())
    };
    // Two tests of this process must not find the same.
    static TAKEN: std::sync::Mutex<Vec<u16>> = std::sync::Mutex::new(Vec::new());
    let mut taken = TAKEN.lock().unwrap();
    let is_apart = |port: &u16| taken.iter().all(|other| port.abs_diff(*other) >= 20);
    let found = candidates
        .find(|port| is_apart(port) && free(port))
        .unwrap();
    taken.push(found);
    found
}

/// The process of this name among the children of another.
fn child_of(dev: &Child, name: &str) -> Option<u32> {
    let parent = dev.id().to_string();
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        entry
            .unwrap()
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
    });
    let is_it = |process: &u32| {
        let read = |file: &str| fs::read_to_string(format!("/proc/{process}/{file}"));
        let (Ok(status), Ok(line)) = (read("status"), read("cmdline")) else {
            return false;
        };
        let of_parent = status
            .lines()
            .any(|line| line == format!("PPid:\t{parent}"));
        of_parent && line.contains(&format!("--name\0{name}\0"))
    };
    processes.into_iter().find(is_it)
}

fn kill(process: u32) {
    let pid = rustix::process::Pid::from_raw(process.cast_signed()).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
}

#[test]
fn objects_are_created_once_and_called_from_other_terminals() {
    let project = Project::new();
    let dev = project.start();
    assert_eq!(
        project.ok(&["call", "/bank/alice", "deposit", r#"{"amount": 5}"#]),
        "5"
    );
    let names = project.ok(&["ls", "/bank", "-o", "json"]);
    assert!(names.contains("alice") && names.contains("bob"), "{names}");
    dev.signal(Signal::TERM);
    assert_eq!(dev.wait(LONG), Exit::Code(0));
    assert!(!project.is_anybody_there());
    let dev = project.start();
    assert!(
        !dev.stdout().iter().any(|line| line.starts_with("created")),
        "{dev}"
    );
    assert_eq!(project.ok(&["call", "/bank/alice", "balance"]), "5");
    dev.signal(Signal::INT);
    assert_eq!(dev.wait(LONG), Exit::Code(0));
}

#[test]
fn a_dead_child_is_reported_and_restarted() {
    let project = Project::new();
    let dev = project.start();
    project.ok(&["call", "/bank/bob", "deposit", r#"{"amount": 7}"#]);
    for name in ["b", "binder", "naming"] {
        let first = eventually_some(LONG, || child_of(&dev, name));
        kill(first);
        dev.wait_for_line(LONG, |line| {
            line.starts_with(name) && line.contains("SIGKILL")
        });
        dev.wait_for_line(LONG, |line| {
            line.starts_with(name) && line.ends_with("ready again")
        });
        assert_ne!(child_of(&dev, name), Some(first));
        assert_eq!(project.ok(&["call", "/bank/bob", "balance"]), "7");
    }
}

#[test]
fn a_kill_of_dev_itself_leaves_nobody_and_loses_nothing() {
    let project = Project::new();
    let dev = project.start();
    project.ok(&["call", "/bank/alice", "deposit", r#"{"amount": 9}"#]);
    dev.kill();
    eventually(LONG, || !project.is_anybody_there());
    let dev = project.start();
    assert_eq!(project.ok(&["call", "/bank/alice", "balance"]), "9");
    drop(dev);
}

#[test]
fn a_taken_port_and_its_owner_are_named() {
    let project = Project::new();
    let _dev = project.start();
    let second = Child::spawn("second", &mut project.dev());
    let (exit, _, err) = second.finish(LONG);
    assert_eq!(exit, Exit::Code(1));
    assert!(
        err.contains(&format!("127.0.0.1:{}", project.port)),
        "{err}"
    );
    assert!(
        err.contains("the Partha node 'naming'") && err.contains("--port"),
        "{err}"
    );
    let cluster = project.folder.path().join(".partha/cluster.toml");
    assert!(cluster.exists(), "the file is the first system's");
}

#[test]
fn the_teller_in_python_finds_accounts_by_name() {
    let Some(python) = test_support::require_python("capnp") else {
        return;
    };
    let project = Project::new();
    let _dev = project.start();
    let script = test_support::workspace_root().join("examples/bank/clients/teller.py");
    let teller = |words: &[&str]| {
        let mut command = Command::new(&python);
        command.arg("-B").arg(&script).args(words);
        command.env("PARTHA_NAMING", format!("127.0.0.1:{}", project.port));
        Child::spawn("teller", &mut command).finish(LONG)
    };
    let (exit, out, err) = teller(&["deposit", "/bank/alice", "12"]);
    assert_eq!(
        (exit, out.as_str()),
        (Exit::Code(0), "/bank/alice 12\n"),
        "{err}"
    );
    let (exit, out, err) = teller(&[]);
    assert_eq!(
        (exit, out.as_str()),
        (Exit::Code(0), "/bank/alice 12\n/bank/bob 0\n"),
        "{err}"
    );
    let (exit, _, err) = teller(&["withdraw", "/bank/bob", "1"]);
    assert_eq!(exit, Exit::Code(1));
    assert!(err.contains("insufficientFunds"), "{err}");
    let (exit, _, err) = teller(&["balance", "/bank/carol"]);
    assert_eq!(exit, Exit::Code(1));
    assert!(
        err.contains("nameNotFound") && err.contains("carol"),
        "{err}"
    );
}
