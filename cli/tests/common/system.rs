//! A running system: naming service, binder and bank nodes as processes.

use std::collections::BTreeMap;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;
use test_support::{Child, Exit, TempDir, temp_dir};

use super::{LONG, command};

/// A system of its own for one test.
pub(crate) struct System {
    folder: TempDir,
    /// Where the naming service listens.
    pub(crate) naming: String,
    /// All processes by name.
    processes: BTreeMap<String, Child>,
    /// Who is silent for this long is taken for dead, by the binder and by the nodes.
    lease: String,
}

impl System {
    /// With these nodes of the bank.
    pub(crate) fn start(nodes: &[&str]) -> Self {
        Self::with_lease(nodes, "10s")
    }

    /// With a binder and nodes that take a silent node for dead after this time.
    pub(crate) fn with_lease(nodes: &[&str], lease: &str) -> Self {
        let mut system = Self {
            folder: temp_dir("system"),
            naming: String::new(),
            processes: BTreeMap::new(),
            lease: lease.to_owned(),
        };
        system.naming = system.serve("naming", "naming", &[]);
        system.serve("binder", "binder", &["--lease", lease]);
        for node in nodes {
            system.serve("bank", node, &[]);
        }
        system
    }

    /// With nodes that are started with these flags besides.
    pub(crate) fn with_flags(nodes: &[&str], flags: &[&str]) -> Self {
        let mut system = Self::start(&[]);
        for node in nodes {
            system.serve("bank", node, flags);
        }
        system
    }

    /// Adds a node of the bank that waits longer than the others until it takes peers for dead.
    pub(crate) fn add_patient(&mut self, node: &str, lease: &str) {
        let others = std::mem::replace(&mut self.lease, lease.to_owned());
        self.serve("bank", node, &[]);
        self.lease = others;
    }

    /// With nodes that have labels.
    pub(crate) fn labelled(nodes: &[(&str, &[&str])]) -> Self {
        let mut system = Self::start(&[]);
        for (node, labels) in nodes {
            let flags = labels.iter().flat_map(|label| ["--label", label]);
            let flags: Vec<_> = flags.collect();
            system.serve("bank", node, &flags);
        }
        system
    }

    /// Starts a process and waits until it serves; answers its address.
    fn serve(&mut self, kind: &str, name: &str, more: &[&str]) -> String {
        let store = self.folder.path().join(name);
        let mut command = command(&["serve", kind, "--name", name, "--listen", "127.0.0.1:0"]);
        command.arg("--data-dir").arg(store).args(more);
        command.args(["--peer-lease", &self.lease]);
        if !self.naming.is_empty() {
            command.args(["--naming", &self.naming]);
        }
        let child = Child::spawn(name, command.current_dir(self.folder.path()));
        let line = child.wait_for_line(LONG, |line| line.starts_with("ready "));
        self.processes.insert(name.to_owned(), child);
        let address = line.split(' ').nth(2);
        address
            .unwrap_or_else(|| panic!("no address: {line}"))
            .to_owned()
    }

    /// Kills a process as a crash would.
    #[track_caller]
    pub(crate) fn kill(&mut self, name: &str) {
        let child = self.processes.remove(name);
        child.unwrap_or_else(|| panic!("no process {name}")).kill();
    }

    /// Waits for a process to end in good order.
    #[track_caller]
    pub(crate) fn ended(&mut self, name: &str) {
        let child = self.processes.remove(name);
        let child = child.unwrap_or_else(|| panic!("no process {name}"));
        assert_eq!(child.wait(LONG), Exit::Code(0), "{name}");
    }

    /// Sends a process a signal.
    #[track_caller]
    pub(crate) fn signal(&self, name: &str, signal: Signal) {
        self.process(name).signal(signal);
    }

    /// Stops a process where it is, all its threads.
    #[track_caller]
    pub(crate) fn freeze(&self, name: &str) {
        self.process(name).freeze(LONG);
    }

    #[track_caller]
    fn process(&self, name: &str) -> &Child {
        let child = self.processes.get(name);
        child.unwrap_or_else(|| panic!("no process {name}"))
    }

    /// Starts a killed node of the bank again, at another address.
    pub(crate) fn revive(&mut self, name: &str) {
        self.serve("bank", name, &[]);
    }

    /// Starts a killed binder again, at another address.
    pub(crate) fn revive_binder(&mut self) {
        self.serve("binder", "binder", &[]);
    }

    /// The program, told where this system is.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(arguments);
        command.env("PARTHA_NAMING", &self.naming);
        command.current_dir(self.folder.path());
        command
    }

    /// Status, standard output, standard error.
    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let child = Child::spawn(&arguments.join(" "), &mut self.command(arguments));
        match child.finish(LONG) {
            (Exit::Code(status), out, err) => (status, out, err),
            (Exit::Signal(signal), _, err) => panic!("{arguments:?}: signal {signal}: {err}"),
        }
    }

    /// Standard output of what must go well.
    #[track_caller]
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let (status, out, err) = self.run(arguments);
        assert_eq!((status, err.as_str()), (0, ""), "{arguments:?}");
        out
    }

    /// Status and standard error of what must fail.
    #[track_caller]
    pub(crate) fn fails(&self, arguments: &[&str]) -> (i32, String) {
        let (status, out, err) = self.run(arguments);
        assert_eq!(out, "", "{arguments:?}: {err}");
        assert_ne!(status, 0, "{arguments:?}: {err}");
        (status, err)
    }

    /// What must go well, for scripts.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let mut all = arguments.to_vec();
        all.extend(["-o", "json"]);
        let out = self.ok(&all);
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }

    /// Opens an account at a node and pays in.
    #[track_caller]
    pub(crate) fn account(&self, name: &str, node: &str, amount: i64) {
        let owner = format!(r#"{{"owner": "{name}"}}"#);
        self.ok(&["create", "bank.Account", name, &owner, "--node", node]);
        let amount = format!(r#"{{"amount": {amount}}}"#);
        self.ok(&["call", name, "deposit", &amount]);
    }

    /// What accounts hold.
    #[track_caller]
    pub(crate) fn balances<const N: usize>(&self, names: [&str; N]) -> [i64; N] {
        names.map(|name| {
            let out = self.ok(&["call", name, "balance"]);
            out.trim()
                .parse()
                .unwrap_or_else(|_| panic!("{name}: {out}"))
        })
    }
}
