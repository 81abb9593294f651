//! The thread of a node that starts its server processes, watches them and ends them.
//!
//! All are started by this one thread, since the system's word to a child that its parent has
//! died is about the thread that started it. When the thread ends, by order or with the process,
//! the children end.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::ExitStatus;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;
use tokio::time::MissedTickBehavior;

use super::child::Wish;
use super::table::Server;
use super::{Key, Program, Servers};
use crate::client::Client;
use crate::config::{SERVER_GRACE, SERVER_START_MAX};
use crate::net::connection::lock;
use crate::system::ServerProcess;

/// How long processes that are killed may take to be gone when the node ends.
const END_MAX: Duration = Duration::from_secs(5);

/// How often to look for processes that nobody needs: a quarter of the time that they may be
/// unused, within these.
const LOOK_MIN: Duration = Duration::from_millis(50);
const LOOK_MAX: Duration = Duration::from_secs(5);

/// What the keeper is to do.
#[derive(Debug)]
pub(super) enum Command {
    /// Start a process.
    Start { key: Key, number: u64 },
    /// A call was killed or given up: stop it, and if it does not stop, its process.
    Stop {
        key: Key,
        server: Arc<Server>,
        execution: u64,
        what: String,
    },
    /// End a process that nobody needs.
    End { number: u64 },
    /// Kill a process, with the reason.
    Kill { number: u64, why: String },
    /// The node ends.
    EndAll,
}

/// What one process is told.
enum Word {
    End,
    Kill(String),
    NodeEnds,
}

struct Keeper {
    servers: Arc<Servers>,
    client: Client,
    node: String,
    address: SocketAddr,
    program: Program,
    /// To the tasks that watch the processes, by number; bounded as the processes are.
    children: RefCell<HashMap<u64, mpsc::UnboundedSender<Word>>>,
}

/// Starts the thread.
///
/// # Errors
/// If it cannot be started.
pub(crate) fn start(
    servers: Arc<Servers>,
    client: Client,
    node: String,
    address: SocketAddr,
    program: Program,
) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (sender, mut commands) = mpsc::unbounded_channel();
    if servers.keeper.set(sender).is_err() {
        return Err(io::Error::other("the servers of a node have one keeper"));
    }
    let thread = std::thread::Builder::new().name("partha-servers".to_owned());
    thread.spawn(move || {
        let keeper = Rc::new(Keeper {
            servers,
            client,
            node,
            address: reachable(address),
            program,
            children: RefCell::default(),
        });
        LocalSet::new().block_on(&runtime, async {
            let look = (keeper.servers.idle / 4).clamp(LOOK_MIN, LOOK_MAX);
            let mut looks = tokio::time::interval(look);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    command = commands.recv() => match command {
                        None | Some(Command::EndAll) => break,
                        Some(command) => keeper.obey(command),
                    },
                    _ = looks.tick() => keeper.end_idle(),
                }
            }
            commands.close();
            keeper.end_all().await;
        });
    })
}

/// Where a process of this machine finds who listens there.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

impl Keeper {
    fn obey(self: &Rc<Self>, command: Command) {
        match command {
            Command::Start { key, number } => {
                let (words, receiver) = mpsc::unbounded_channel();
                self.children.borrow_mut().insert(number, words);
                let keeper = self.clone();
                tokio::task::spawn_local(async move {
                    let (exit, crashed) = keeper.keep(key, number, receiver).await;
                    keeper.children.borrow_mut().remove(&number);
                    let who = key.describe();
                    match crashed {
                        true => tracing::warn!(%exit, "{who} is gone"),
                        false => tracing::info!(%exit, "{who} has ended"),
                    }
                    lock(&keeper.servers.table).gone(key, number, exit, crashed);
                });
            }
            Command::Stop {
                key,
                server,
                execution,
                what,
            } => {
                let keeper = self.clone();
                tokio::task::spawn_local(async move {
                    keeper.stop(key, &server, execution, what).await;
                });
            }
            Command::End { number } => self.say(number, Word::End),
            Command::Kill { number, why } => self.say(number, Word::Kill(why)),
            Command::EndAll => {}
        }
    }

    /// Ends the processes that nobody has needed for long.
    fn end_idle(&self) {
        for number in lock(&self.servers.table).idle(self.servers.idle) {
            self.say(number, Word::End);
        }
    }

    fn say(&self, number: u64, word: Word) {
        if let Some(words) = self.children.borrow().get(&number) {
            // A process that is gone needs no word.
            let _ = words.send(word);
        }
    }

    /// The whole life of a process: how it ended, and whether that counts as a crash.
    async fn keep(
        &self,
        key: Key,
        number: u64,
        mut words: mpsc::UnboundedReceiver<Word>,
    ) -> (String, bool) {
        let who = key.describe();
        let (token, offered) = match self.token() {
            Ok(made) => made,
            Err(error) => return (format!("no random numbers for it: {error}"), true),
        };
        let mut child = match self.spawn(key, &token) {
            Ok(child) => child,
            Err(error) => {
                lock(&self.servers.table).tokens.remove(&token);
                return (format!("its program cannot be started: {error}"), true);
            }
        };
        let pid = child.id().unwrap_or_default();
        lock(&self.servers.table).born(key, number, pid);
        tracing::info!(pid, "{who} is started");
        let stub = tokio::select! {
            status = child.wait() => Err((ended("it ended before it was ready", status), true)),
            stub = offered => stub.map_err(|_| ("its offer was lost".to_owned(), true)),
            () = tokio::time::sleep(SERVER_START_MAX) => {
                let seconds = SERVER_START_MAX.as_secs();
                Err((killed(&mut child, &format!("not ready in {seconds} s")).await, true))
            }
            word = words.recv() => Err(told(&mut child, word).await),
        };
        lock(&self.servers.table).tokens.remove(&token);
        match stub {
            Ok(stub) => {
                lock(&self.servers.table).ready(key, Server { number, pid, stub });
                tokio::select! {
                    status = child.wait() => (ended("it ended by itself", status), true),
                    word = words.recv() => told(&mut child, word).await,
                }
            }
            Err(end) => end,
        }
    }

    /// A name for a process that nobody can guess, and where its offer will come.
    fn token(&self) -> io::Result<(Vec<u8>, oneshot::Receiver<ServerProcess>)> {
        let mut token = vec![0; 16];
        getrandom::fill(&mut token).map_err(|error| io::Error::other(error.to_string()))?;
        let (sender, offered) = oneshot::channel();
        let mut table = lock(&self.servers.table);
        table.tokens.insert(token.clone(), sender);
        Ok((token, offered))
    }

    fn spawn(&self, key: Key, token: &[u8]) -> io::Result<Child> {
        let (program, arguments) = match &self.program.program {
            Some(program) => (program.clone(), self.program.arguments.clone()),
            None => {
                let own: Vec<OsString> = std::env::args_os().skip(1).collect();
                (own_program()?, own)
            }
        };
        let wish = Wish {
            address: self.address,
            token: token.to_vec(),
            class: key.class,
            node: self.node.clone(),
        };
        let mut command = std::process::Command::new(&program);
        command.args(arguments);
        command.envs(self.program.variables.iter().cloned());
        let (input, named) = wish.pipe()?;
        command.env(Wish::VARIABLE, named).stdin(input);
        // What is said to the node at a terminal is for the node, which then ends its children.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut command = tokio::process::Command::from(command);
        command.kill_on_drop(true).spawn().map_err(|error| {
            let text = format!("{}: {error}", program.display());
            io::Error::new(error.kind(), text)
        })
    }

    /// Stops a call; if it does not stop in time, it is stopped with its process.
    async fn stop(&self, key: Key, server: &Server, execution: u64, what: String) {
        let caller = self.client.call().deadline(SERVER_GRACE);
        let stopping = server.stub.stop(&caller, execution);
        let stopped = tokio::time::timeout(SERVER_GRACE, stopping).await;
        if matches!(stopped, Ok(Ok(()))) {
            lock(&self.servers.table).stopped(key, server.number);
            return;
        }
        let why = format!(
            "{what} was given up, but did not stop in {} ms",
            SERVER_GRACE.as_millis()
        );
        self.say(server.number, Word::Kill(why));
    }

    /// Kills all, and waits until they are gone.
    async fn end_all(&self) {
        for words in self.children.borrow().values() {
            // A process that is gone needs no word.
            let _ = words.send(Word::NodeEnds);
        }
        let gone = async {
            while !self.children.borrow().is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        if tokio::time::timeout(END_MAX, gone).await.is_err() {
            let count = self.children.borrow().len();
            tracing::error!(count, "server processes were killed but do not go");
        }
    }
}

/// Does to a process what it is told; a keeper that is gone wants its end. A kill counts as a
/// crash: what has to be killed is no better than what dies, and waits as long for its next start.
async fn told(child: &mut Child, word: Option<Word>) -> (String, bool) {
    match word {
        Some(Word::End) => {
            let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
            if let Some(pid) = pid {
                // The only failure is that it has ended.
                let _ = kill_process(pid, Signal::TERM);
            }
            match tokio::time::timeout(SERVER_GRACE, child.wait()).await {
                Ok(status) => (ended("nobody needed it", status), false),
                Err(_) => (killed(child, "nobody needed it").await, false),
            }
        }
        Some(Word::Kill(why)) => (killed(child, &why).await, true),
        Some(Word::NodeEnds) | None => (killed(child, "the node ends").await, false),
    }
}

async fn killed(child: &mut Child, why: &str) -> String {
    // The only failure is that it has ended.
    let _ = child.start_kill();
    ended(
        &format!("killed by its node, since {why}"),
        child.wait().await,
    )
}

fn ended(how: &str, status: io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => format!("{how}: {status}"),
        Err(error) => format!("{how}: its exit status is not known: {error}"),
    }
}

/// The program of this very process. Where its file was replaced meanwhile, by an upgrade for
/// instance, it is the one that runs: a node and its server processes are of one build.
fn own_program() -> io::Result<OsString> {
    let path = std::env::current_exe()?;
    let running = Path::new("/proc/self/exe");
    if !path.exists() && running.exists() {
        return Ok(running.into());
    }
    Ok(path.into_os_string())
}
