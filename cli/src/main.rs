//! The command line of Partha: compiling interfaces, running the services, and looking at and
//! calling the objects of a running system.
//!
//! A command returns its exit status: 0 is success, 1 failure, 2 wrong usage, where nothing has
//! been sent or written. Results go to standard output, everything else to standard error. A
//! reader that closes the pipe early is no error.
//!
//! It holds no rules of the system: objects are called through the runtime, interfaces compiled
//! by the compiler's library.

mod actions;
mod arguments;
mod cluster;
mod confirm;
mod demo;
mod dev;
mod doctor;
mod drain;
mod dynamic;
mod elsewhere;
mod failure;
mod groups;
mod idl;
mod invoke;
mod locks;
mod moving;
mod names;
mod naming;
mod node;
mod nodes;
mod objects;
mod outcome;
mod output;
mod owner;
mod replicate;
mod serve;
mod sessions;
mod shell;
mod suggest;
mod supervise;
mod survey;
mod why;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser as _};

use arguments::{Arguments, Command};
use output::Output;

/// Messages and states are made on one thread and given back on another all the time, which the
/// system's allocator is slow at (docs/performance.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let format = command.format();
    let ended = run(command);
    ended.unwrap_or_else(|error| failure::report(&error, format))
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    let mut builder = match command.has_threads() {
        true => tokio::runtime::Builder::new_multi_thread(),
        false => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = builder.enable_all().build();
    let runtime = runtime.context("cannot start the threads of this process")?;
    let status = runtime.block_on(dispatch(command));
    // A task that still waits for the network must not keep a finished command.
    runtime.shutdown_background();
    status
}

async fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    let mut out = Output::new(command.format());
    let done = match command {
        Command::Generate(arguments) => return idl::generate(&arguments, &mut out),
        Command::Check(arguments) => return idl::check(&arguments, &mut out),
        Command::Explain(arguments) => idl::explain(&arguments, &mut out),
        Command::Serve(arguments) => return serve::run(arguments).await,
        Command::Dev(arguments) => return dev::run(arguments).await,
        Command::Demo(arguments) => return demo::run(arguments).await,
        Command::Ls(arguments) => names::ls(&arguments, &mut out).await,
        Command::Describe(arguments) => objects::describe(&arguments, &mut out).await,
        Command::Call(arguments) => objects::call(&arguments, &mut out).await,
        Command::Create(arguments) => objects::create(&arguments, &mut out).await,
        Command::Rm(arguments) => names::rm(&arguments, &mut out).await,
        Command::Alias(arguments) => names::alias(&arguments, &mut out).await,
        Command::Nodes(arguments) => nodes::nodes(&arguments, &mut out).await,
        Command::Groups(arguments) => groups::run(&arguments, &mut out).await,
        Command::Move(arguments) => moving::run(&arguments, &mut out).await,
        Command::Replicate(arguments) => replicate::run(&arguments, &mut out).await,
        Command::Node(arguments) => return node::run(&arguments, &mut out).await,
        Command::Stats(arguments) => nodes::stats(&arguments, &mut out).await,
        Command::Actions(arguments) => actions::actions(&arguments, &mut out).await,
        Command::Locks(arguments) => locks::locks(&arguments, &mut out).await,
        Command::Why(arguments) => why::why(&arguments, &mut out).await,
        Command::Outcome(arguments) => return outcome::outcome(&arguments, &mut out).await,
        Command::Abort(arguments) => actions::abort(&arguments, &mut out).await,
        Command::Sessions(arguments) => sessions::sessions(&arguments, &mut out).await,
        Command::Doctor(arguments) => return doctor::run(&arguments, &mut out).await,
        Command::Shell(arguments) => return shell::run(&arguments, &mut out).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "partha", &mut script);
            out.text(&String::from_utf8_lossy(&script))
                .map_err(Into::into)
        }
    };
    done?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
