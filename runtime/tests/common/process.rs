//! Nodes as processes of their own: this very test program, started again.
//!
//! A test program that uses them has an ignored test `node_process` that calls [`serve`].

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use partha::Limits;
use test_support::Child;

use super::PATIENCE;

const DIR: &str = "PARTHA_TEST_NODE_DIR";
const LISTEN: &str = "PARTHA_TEST_NODE_LISTEN";
const SHARDS: &str = "PARTHA_TEST_NODE_SHARDS";
const LOCK_WAIT_MS: &str = "PARTHA_TEST_NODE_LOCK_WAIT_MS";
const LEASE_MS: &str = "PARTHA_TEST_NODE_LEASE_MS";
const MESSAGE_BYTES_MAX: &str = "PARTHA_TEST_NODE_MESSAGE_BYTES_MAX";
const CRASH_POINT: &str = "PARTHA_CRASH_POINT";
const READY: &str = "> ready ";

/// How a node process is started.
pub struct Start {
    dir: PathBuf,
    listen: String,
    /// In blocks of the shell's `ulimit -f`; none for no limit.
    file_blocks_max: Option<u32>,
    /// As the environment of the process has it; none to live on.
    crash_point: Option<String>,
    shards: u16,
    lock_wait_ms: u64,
    /// How long a client may be silent; none for as long as nodes have it.
    lease_ms: Option<u64>,
    message_bytes_max: usize,
}

/// A node that runs in a process of its own.
pub struct NodeProcess {
    pub child: Child,
    pub address: SocketAddr,
}

impl Start {
    pub fn new(dir: &Path) -> Self {
        let (dir, listen) = (dir.to_owned(), "127.0.0.1:0".to_owned());
        Self {
            dir,
            listen,
            file_blocks_max: None,
            crash_point: None,
            shards: 2,
            lock_wait_ms: Limits::default().lock_wait_ns / 1_000_000,
            lease_ms: None,
            message_bytes_max: partha::MESSAGE_BYTES_MAX,
        }
    }

    /// Where to listen.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = address.to_string();
        self
    }

    /// No file of the process may grow beyond this: how a disk is made full.
    pub fn file_blocks_max(mut self, blocks: u32) -> Self {
        self.file_blocks_max = Some(blocks);
        self
    }

    /// The process dies when it gets to this point for the n-th time; only where the points are
    /// compiled in.
    pub fn crash_point(mut self, name: &str, n: u32) -> Self {
        self.crash_point = Some(format!("{name}:{n}"));
        self
    }

    /// How many shards; 2 if not said.
    pub fn shards(mut self, shards: u16) -> Self {
        self.shards = shards;
        self
    }

    /// How long a call waits for a lock.
    pub fn lock_wait_ms(mut self, ms: u64) -> Self {
        self.lock_wait_ms = ms;
        self
    }

    /// How long a client may be silent; it is asked at a third of that.
    pub fn lease_ms(mut self, ms: u64) -> Self {
        self.lease_ms = Some(ms);
        self
    }

    /// The largest message that it takes.
    pub fn message_bytes_max(mut self, bytes: usize) -> Self {
        self.message_bytes_max = bytes;
        self
    }

    fn command(&self) -> Command {
        let mut command = this_program("node_process", self.file_blocks_max);
        command.env(DIR, &self.dir).env(LISTEN, &self.listen);
        command.env(SHARDS, self.shards.to_string());
        command.env(LOCK_WAIT_MS, self.lock_wait_ms.to_string());
        command.env(MESSAGE_BYTES_MAX, self.message_bytes_max.to_string());
        match self.lease_ms {
            Some(ms) => command.env(LEASE_MS, ms.to_string()),
            None => command.env_remove(LEASE_MS),
        };
        match &self.crash_point {
            Some(point) => command.env(CRASH_POINT, point),
            None => command.env_remove(CRASH_POINT),
        };
        // So that memory that was freed is seen to be.
        command.env("MALLOC_ARENA_MAX", "1");
        command
    }

    /// Starts the process without waiting for it.
    pub fn spawn(&self) -> Child {
        Child::spawn("node", &mut self.command())
    }

    /// Starts the process and waits until it serves.
    pub fn ready(&self) -> NodeProcess {
        let child = self.spawn();
        let line = child.wait_for_line(PATIENCE, |line| line.contains(READY));
        let (_, address) = line.split_once(READY).unwrap();
        NodeProcess {
            address: address.parse().unwrap(),
            child,
        }
    }
}

impl NodeProcess {
    /// Bytes of memory that no file backs: heap and stacks, in use now.
    pub fn memory(&self) -> i64 {
        self.figure("RssAnon:")
    }

    /// Bytes of memory in use now, with what the store has mapped.
    pub fn resident(&self) -> i64 {
        self.figure("VmRSS:")
    }

    /// The most that it ever used of that.
    pub fn peak(&self) -> i64 {
        self.figure("VmHWM:")
    }

    fn figure(&self, name: &str) -> i64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        let kib: i64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib << 10
    }
}

/// The node of the process, if that is what it is to be; serves until it is killed.
pub fn serve() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let listen = std::env::var(LISTEN).unwrap();
    let lock_wait_ms: u64 = std::env::var(LOCK_WAIT_MS).unwrap().parse().unwrap();
    let message_bytes_max = std::env::var(MESSAGE_BYTES_MAX).unwrap();
    let message_bytes_max = message_bytes_max.parse().unwrap();
    let shards = std::env::var(SHARDS).unwrap().parse().unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let limits = Limits {
            idle_ns: 3_600_000_000_000,
            lock_wait_ns: lock_wait_ms * 1_000_000,
            ..Limits::default()
        };
        let mut builder = super::builder(Path::new(&dir))
            .listen(listen)
            .shards(shards)
            .message_bytes_max(message_bytes_max)
            .limits(limits);
        if let Ok(ms) = std::env::var(LEASE_MS) {
            let lease = Duration::from_millis(ms.parse().unwrap());
            builder = builder.lease(lease / 3, lease);
        }
        match builder.start().await {
            Ok(node) => {
                println!("{READY}{}", node.address());
                std::future::pending::<()>().await;
            }
            Err(error) => {
                println!("> failed {error}");
                std::process::exit(3);
            }
        }
    });
}

/// This test program, which runs an ignored test alone; no file of it may grow beyond the
/// blocks, if given.
pub fn this_program(test: &str, file_blocks_max: Option<u32>) -> Command {
    let program = std::env::current_exe().unwrap();
    let mut command = match file_blocks_max {
        None => Command::new(program),
        Some(blocks) => {
            // The signal that would end the process is ignored, which is inherited.
            let script = format!("trap '' XFSZ; ulimit -S -f {blocks}; exec \"$@\"");
            let mut shell = Command::new("sh");
            shell.args(["-c", &script, "sh"]).arg(program);
            shell
        }
    };
    command.args(["--ignored", "--exact", test, "--nocapture"]);
    command
}
