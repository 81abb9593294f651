//! `partha dev`: a whole system on this machine, for development.
//!
//! Naming service and binder are this very program, nodes are what `partha.toml` says. All run as
//! child processes with stores under `.partha/` of the current folder, where `cluster.toml` tells
//! other commands where to find them. A child that ends is reported and started again, after a
//! pause that grows while it keeps ending; Ctrl-C stops all, nodes first, since they sign off at
//! the binder.

mod file;
mod keep;
mod print;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use partha::{Client, ErrorKind};
use partha_daemon::Stop;

use crate::supervise::{Program, Sink};
use file::{File, Node, Object};
use keep::Kept;

/// Where stores are, and what other commands look for.
const FOLDER: &str = ".partha";
const CLUSTER_FILE: &str = "cluster.toml";
/// The first node's port comes so many after the naming service's.
const NODE_PORTS: u16 = 10;

/// Run a whole system on this machine, for development
///
/// Reads partha.toml in DIR, which says what nodes there are and which objects to create at the
/// first start. Stores lie under .partha/ of the current folder; remove it to begin anew.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  partha dev examples/bank")]
pub(crate) struct Arguments {
    /// The folder with partha.toml
    #[arg(value_name = "DIR", default_value = ".")]
    folder: PathBuf,
    /// The naming service's port; the binder has the next, nodes those from ten further on
    #[arg(long, default_value_t = 7401, value_parser = clap::value_parser!(u16).range(1..=65_000))]
    port: u16,
    /// What the daemons log, as info or partha=debug
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log: String,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let mut stop = Stop::new(false)?;
    let mut system = System::plan(&arguments)?;
    let started = tokio::select! {
        started = system.start() => started,
        _ = stop.requested() => Ok(()),
    };
    if let Err(error) = started {
        system.stop().await;
        return Err(error);
    }
    if system.is_running() {
        println!("Ctrl-C stops all");
        stop.requested().await;
    }
    println!("stopping");
    tokio::select! {
        () = system.stop() => Ok(ExitCode::SUCCESS),
        // The children end with their input, which ends with this process.
        _ = stop.requested() => std::process::exit(1),
    }
}

/// The processes of a system, those that run and those that will.
struct System {
    /// `.partha`, from the root: children may run in other folders.
    stores: PathBuf,
    file: File,
    folder: PathBuf,
    naming: SocketAddr,
    /// In the order of their start.
    programs: Vec<Program>,
    kept: Vec<Kept>,
    complete: bool,
    /// The cluster file is ours.
    told: bool,
    sink: Sink,
}

impl System {
    fn plan(arguments: &Arguments) -> anyhow::Result<Self> {
        let folder = &arguments.folder;
        let file = File::read(&folder.join(file::NAME))?;
        let here = std::env::current_dir().context("cannot tell the current folder")?;
        let stores = here.join(FOLDER);
        let at = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let naming = at(arguments.port);
        let store = |name: &str| stores.join(name);
        let mut programs = vec![
            Program::own("naming", "naming", naming, store("naming"))?,
            Program::own("binder", "binder", at(arguments.port + 1), store("binder"))?,
        ];
        for (index, node) in (0..).zip(&file.nodes) {
            let address = node
                .listen
                .unwrap_or_else(|| at(arguments.port + NODE_PORTS + index));
            programs.push(program_of(node, address, folder, store(&node.name)));
        }
        let tell = |program: Program| {
            program
                .flag("--naming", naming)
                .flag("--log", &arguments.log)
        };
        let programs: Vec<_> = programs.into_iter().map(tell).collect();
        let sink = print::sink(
            programs
                .iter()
                .map(|program| program.name.clone())
                .collect(),
        );
        let (kept, complete, folder) = (Vec::new(), false, folder.clone());
        Ok(Self {
            stores,
            file,
            folder,
            naming,
            programs,
            kept,
            complete,
            told: false,
            sink,
        })
    }

    async fn start(&mut self) -> anyhow::Result<()> {
        for program in &self.programs {
            check_port(program).await?;
        }
        if let Some(build) = &self.file.build {
            run_build(build, &self.folder).await?;
        }
        std::fs::create_dir_all(&self.stores)
            .with_context(|| format!("cannot make the folder {}", self.stores.display()))?;
        for program in self.programs.clone() {
            let mut process = program.spawn(&self.sink)?;
            process.ready().await?;
            println!("{:<8} {}  ready", program.name, program.address);
            self.kept
                .push(Kept::new(program, process, self.sink.clone()));
        }
        let cluster = self.stores.join(CLUSTER_FILE);
        std::fs::write(&cluster, format!("naming = \"{}\"\n", self.naming))
            .with_context(|| format!("cannot write {}", cluster.display()))?;
        self.told = true;
        self.create_objects().await?;
        println!("stores   {}", self.stores.display());
        self.complete = true;
        Ok(())
    }

    fn is_running(&self) -> bool {
        self.complete
    }

    /// Creates the objects of the file whose names do not exist yet.
    async fn create_objects(&self) -> anyhow::Result<()> {
        let client = Client::connect(self.naming.to_string()).await?;
        for object in &self.file.objects {
            match client.naming()?.lookup(&client, &object.name).await {
                Ok(_) => continue,
                Err(error) if error.kind() == ErrorKind::NameNotFound => {}
                Err(error) => return Err(error.into()),
            }
            create(object, self.naming).await?;
            let node = object.node.as_deref().unwrap_or("any node");
            println!("created  {} ({}) on {node}", object.name, object.class);
        }
        Ok(())
    }

    /// Stops all, the latest first.
    async fn stop(&mut self) {
        while let Some(kept) = self.kept.pop() {
            kept.stop().await;
        }
        // Another system of this folder may have written its own.
        if self.told {
            let cluster = self.stores.join(CLUSTER_FILE);
            if let Err(error) = std::fs::remove_file(&cluster) {
                eprintln!("warning: cannot remove {}: {error}", cluster.display());
            }
        }
    }
}

fn program_of(node: &Node, address: SocketAddr, folder: &Path, store: PathBuf) -> Program {
    let (command, arguments) = node.command.split_first().expect("the file is checked");
    let mut program = Program {
        name: node.name.clone(),
        command: command.into(),
        arguments: arguments.iter().map(Into::into).collect(),
        folder: Some(folder.to_owned()),
        address,
    };
    program.node_flags(store);
    program
}

/// That nobody listens where the program will; says who, if it is one of ours.
async fn check_port(program: &Program) -> anyhow::Result<()> {
    let Program { name, address, .. } = program;
    let Err(error) = TcpListener::bind(address) else {
        return Ok(());
    };
    if error.kind() != std::io::ErrorKind::AddrInUse {
        return Err(error).with_context(|| format!("{name} cannot listen at {address}"));
    }
    let who = match who_listens(*address).await {
        Some(node) => format!("the Partha node '{node}', perhaps of another `partha dev`"),
        None => "another program".to_owned(),
    };
    bail!(
        "{name} cannot listen at {address}: {who} does already; stop it, or choose other ports \
         with --port"
    )
}

async fn who_listens(address: SocketAddr) -> Option<String> {
    let asking = async {
        let client = Client::new(address.to_string())?;
        let handle = client.node_at(&address.to_string()).await?;
        handle.manager().outline(&client).await
    };
    let answer = tokio::time::timeout(Duration::from_secs(2), asking).await;
    answer.ok()?.ok().map(|description| description.name)
}

async fn run_build(build: &[String], folder: &Path) -> anyhow::Result<()> {
    let text = build.join(" ");
    println!("build    {text}");
    let (command, arguments) = build.split_first().expect("the file is checked");
    let status = tokio::process::Command::new(command)
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .status();
    let status = status
        .await
        .with_context(|| format!("cannot run `{text}`"))?;
    if !status.success() {
        bail!("`{text}` failed: {status}");
    }
    Ok(())
}

/// Creates an object with `partha create`, which knows classes by their reflection.
async fn create(object: &Object, naming: SocketAddr) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("cannot tell which program this is")?;
    let arguments = serde_json::to_string(&object.arguments)
        .with_context(|| format!("arguments of {}", object.name))?;
    let mut command = tokio::process::Command::new(program);
    command.args(["create", &object.class, &object.name, &arguments]);
    command.args(["--naming", &naming.to_string()]);
    if let Some(node) = &object.node {
        command.args(["--node", node]);
    }
    let output = command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("cannot create {}: {}", object.name, error.trim());
    }
    Ok(())
}
