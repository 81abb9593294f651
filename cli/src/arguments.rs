//! What can be said on the command line: one struct a command.
//!
//! The first line of the doc comment of each struct is what lists of commands and `-h` show; the
//! rest is for `--help`. Comments of the variants would hide that.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use partha::ActionId;

use crate::{demo, dev, doctor, groups, moving, node, replicate, serve, sessions, shell};

const EXAMPLES: &str = "\
Examples:
  partha generate idl/bank.idl -o src/gen       make stubs, schema and reflection
  partha dev examples/bank                      run a whole system here
  partha ls /bank                               what is there
  partha describe /bank/alice                   what it is and can do
  partha call /bank/alice deposit '{\"amount\": 5}'
  partha why /bank/alice                        who has it locked, who waits
  partha doctor                                 what is wrong, and what to do

The naming service is looked for at --naming, then at PARTHA_NAMING, then where the nearest
.partha/cluster.toml of this folder or one above says, then at 127.0.0.1:7401.";

/// Distributed persistent objects: compile interfaces, run services, call objects by name
#[derive(Debug, Parser)]
#[command(name = "partha", version, after_help = EXAMPLES, max_term_width = 100)]
#[command(propagate_version = true, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Generate(Generate),
    Check(Check),
    Explain(Explain),
    Serve(serve::Arguments),
    Dev(dev::Arguments),
    Demo(demo::Arguments),
    Ls(Ls),
    Describe(Describe),
    Call(Call),
    Create(Create),
    Rm(Rm),
    Alias(Alias),
    Move(moving::Arguments),
    Replicate(replicate::Arguments),
    Nodes(Nodes),
    /// List the objects that have copies, and the nodes that have them
    Groups(groups::Arguments),
    Node(node::Arguments),
    Stats(Stats),
    Actions(Actions),
    Locks(Locks),
    Why(Why),
    Outcome(Outcome),
    Abort(Abort),
    Sessions(sessions::Arguments),
    Doctor(doctor::Arguments),
    Shell(shell::Arguments),
    /// Print a completion script
    Completions {
        /// For this shell
        shell: clap_complete::Shell,
    },
}

impl Command {
    /// Whether it has work for more than one thread: the others ask and wait, and start sooner
    /// without any.
    pub(crate) fn has_threads(&self) -> bool {
        matches!(
            self,
            Self::Serve(_) | Self::Dev(_) | Self::Demo(_) | Self::Shell(_)
        )
    }

    /// How results and errors are to be shown.
    pub(crate) fn format(&self) -> Format {
        let shown = match self {
            Self::Ls(arguments) => &arguments.shown,
            Self::Describe(arguments) => &arguments.shown,
            Self::Call(arguments) => &arguments.shown,
            Self::Create(arguments) => &arguments.shown,
            Self::Rm(arguments) => &arguments.shown,
            Self::Alias(arguments) => &arguments.shown,
            Self::Nodes(arguments) => &arguments.shown,
            Self::Groups(arguments) => return arguments.shape.format(),
            Self::Move(arguments) => return arguments.shape.format(),
            Self::Replicate(arguments) => return arguments.shape.format(),
            Self::Node(arguments) => return arguments.format(),
            Self::Stats(arguments) => &arguments.shown,
            Self::Actions(arguments) => &arguments.shown,
            Self::Locks(arguments) => &arguments.shown,
            Self::Why(arguments) => &arguments.shown,
            Self::Outcome(arguments) => &arguments.shown,
            Self::Abort(arguments) => &arguments.shown,
            Self::Sessions(arguments) => return arguments.shape.format(),
            Self::Doctor(arguments) => return arguments.format(),
            Self::Shell(arguments) => &arguments.shown,
            Self::Generate(_)
            | Self::Check(_)
            | Self::Explain(_)
            | Self::Serve(_)
            | Self::Dev(_)
            | Self::Demo(_)
            | Self::Completions { .. } => return Format::Table,
        };
        shown.output
    }
}

/// Make stubs, schemas and reflection of IDL files
///
/// For `bank.idl`: `bank.rs` (Rust), `bank.capnp` (the same for other languages), `bank.cgr`
/// (for reflection), and `partha.capnp` where they need it. Files that are right already are left
/// alone.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  partha generate idl/bank.idl -o src/gen")]
pub(crate) struct Generate {
    #[command(flatten)]
    pub(crate) sources: Sources,
    /// Folder to write to
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub(crate) out_dir: PathBuf,
    /// Change nothing; show the differences and exit with status 1 if there are any
    #[arg(long)]
    pub(crate) check: bool,
    /// Rust path of an imported module that is generated elsewhere
    #[arg(long = "extern", value_name = "MODULE=PATH", value_parser = key_value)]
    pub(crate) externs: Vec<(String, String)>,
}

/// Look IDL files over without making anything
#[derive(Args, Debug)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) sources: Sources,
    /// How errors look
    #[arg(long, value_enum, default_value_t = CheckFormat::Human)]
    pub(crate) format: CheckFormat,
}

#[derive(Args, Debug)]
pub(crate) struct Sources {
    /// IDL files
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Folder to look for imported modules, beside that of the importing file
    #[arg(short = 'I', long = "include", value_name = "DIR")]
    pub(crate) includes: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum CheckFormat {
    /// With the lines in question, on standard error
    Human,
    /// One JSON object a line, on standard output
    Json,
}

/// Tell more about an error code, or list all codes
#[derive(Args, Debug)]
pub(crate) struct Explain {
    /// As `E0201`; without it, all codes are listed
    pub(crate) code: Option<String>,
}

/// Where the system is.
#[derive(Args, Debug)]
pub(crate) struct Cluster {
    /// Address of the naming service
    #[arg(long, env = "PARTHA_NAMING", value_name = "HOST:PORT")]
    pub(crate) naming: Option<String>,
}

/// How results look.
#[derive(Args, Debug)]
pub(crate) struct Shown {
    /// How results and errors look
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    pub(crate) output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For people, with everything
    Wide,
    /// For scripts
    Json,
}

/// List names
#[derive(Args, Debug)]
pub(crate) struct Ls {
    /// A context, or one name
    #[arg(default_value = "/")]
    pub(crate) path: String,
    /// Also version, size and users of each object, as `-o wide` does
    #[arg(short, long)]
    pub(crate) long: bool,
    /// Go into contexts
    #[arg(short, long)]
    pub(crate) recursive: bool,
    #[command(flatten)]
    pub(crate) cluster: Cluster,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

/// Tell what an object is, where it is and what it can do
#[derive(Args, Debug)]
pub(crate) struct Describe {
    /// The object: a name, or a uid
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) cluster: Cluster,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

const VALUES: &str = "\
Values:
  numbers, true, false        as in JSON; f32 and f64 also take \"NaN\", \"inf\", \"-inf\"
  string                      \"text\"
  bytes                       \"base64\"
  uid                         \"00c7…-000001-0000000001\"
  timestamp, duration         microseconds, or \"2026-11-22T10:00:00Z\", \"1h 30m\"
  enum                        \"Eur\"
  struct                      {\"name\": …}
  union                       {\"case\": …}, or \"case\" where it holds nothing
  option                      the value, or null
  list, map                   […], {\"key\": …}
  a persistent object         \"/bank/bob\", or its uid

Example:
  partha call /bank/alice deposit '{\"amount\": 5}'
  partha create bank.Branch /bank/branch '{\"log\": \"/bank/log\"}'";

/// Call a method of an object, with arguments in JSON
///
/// The interface is asked from the object's node, so nothing has to be generated. Prints what the
/// method answers; an exception it raises is an error, exit status 1.
#[derive(Args, Debug)]
#[command(after_help = VALUES)]
pub(crate) struct Call {
    /// The object: a name, or a uid
    pub(crate) name: String,
    /// Its method
    pub(crate) method: String,
    /// A JSON object with one member for each parameter; `-` reads it from standard input
    #[arg(value_name = "JSON")]
    pub(crate) arguments: Option<String>,
    /// Ask again for a call whose outcome is not known, by the id that its error named
    #[arg(long, value_name = "CALL ID", value_parser = crate::cluster::call_id)]
    pub(crate) again: Option<partha::CallId>,
    /// How long it may take, as `5s`
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) deadline: Option<Duration>,
    #[command(flatten)]
    pub(crate) cluster: Cluster,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

/// Make a new persistent object and give it a name
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  partha create bank.Account /bank/carol '{\"owner\": \"carol\"}'\n  \
                  partha create bank.Account /bank/dave '{\"owner\": \"dave\"}' --replicas 3"
)]
pub(crate) struct Create {
    /// Its class, as `bank.Account`
    pub(crate) class: String,
    /// Its name
    pub(crate) name: String,
    /// The constructor's arguments, as for `call`
    #[arg(value_name = "JSON")]
    pub(crate) arguments: Option<String>,
    /// The node to make it at, by name; else any that runs the class and is not cordoned
    #[arg(long)]
    pub(crate) node: Option<String>,
    /// How many copies it is to have, at as many nodes; 1 to 16
    #[arg(long, value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=16))]
    pub(crate) replicas: Option<u16>,
    #[command(flatten)]
    pub(crate) how: replicate::How,
    #[command(flatten)]
    pub(crate) cluster: Cluster,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

/// Take a name away; the object stays
#[derive(Args, Debug)]
pub(crate) struct Rm {
    /// The name; a context must be empty
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) cluster: Cluster,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

/// Give an object one more name
#[derive(Args, Debug)]
pub(crate) struct Alias {
    /// The object: a name, or a uid
    pub(crate) name: String,
    /// The name to add
    pub(crate) new: String,
    #[command(flatten)]
    pub(crate) cluster: Cluster,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

/// List the nodes of the system
#[derive(Args, Debug)]
pub(crate) struct Nodes {
    #[command(flatten)]
    pub(crate) cluster: Cluster,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

/// Tell what runs at a node
#[derive(Args, Debug)]
pub(crate) struct Stats {
    /// The node: its name, its id, or an address
    pub(crate) node: String,
    #[command(flatten)]
    pub(crate) cluster: Cluster,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

/// List the actions that are under way
///
/// Once for each node where an action has a part; nested actions stand below it as far as they
/// hold locks or wait for one. `-o wide` shows more.
#[derive(Args, Debug)]
pub(crate) struct Actions {
    /// The node: its name, its id, or an address; else all
    pub(crate) node: Option<String>,
    #[command(flatten)]
    pub(crate) cluster: Cluster,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

/// List who has objects locked and who waits for them
#[derive(Args, Debug)]
pub(crate) struct Locks {
    /// The node: its name, its id, or an address; else all
    pub(crate) node: Option<String>,
    /// Only objects that somebody waits for
    #[arg(short, long)]
    pub(crate) waiting: bool,
    #[command(flatten)]
    pub(crate) cluster: Cluster,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

/// Tell who keeps others from an object, over all nodes
///
/// Who has it locked, for which action and client and since when; what that one waits for, and so
/// on, to the end of the chain or round a deadlock.
#[derive(Args, Debug)]
pub(crate) struct Why {
    /// The object: a name, or a uid
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) cluster: Cluster,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

/// Tell what became of an action
///
/// Asks the coordinator if the id names it, else all nodes. An outcome is kept for 15 minutes.
#[derive(Args, Debug)]
#[command(
    after_help = "Exit status:\n  0 committed, 3 aborted, 4 in flight, 5 unknown, \
                  1 if the system cannot be asked"
)]
pub(crate) struct Outcome {
    /// The action, as errors and `partha actions` show it
    pub(crate) action: ActionId,
    /// If no node knows it, have all nodes refuse it from now on, so that it is surely aborted
    ///
    /// An action that still runs and has not changed anything is lost by that.
    #[arg(long)]
    pub(crate) settle: bool,
    #[command(flatten)]
    pub(crate) cluster: Cluster,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

/// Abort an action that nobody ends
///
/// At all nodes where it has a part. What is prepared can be ended by its coordinator alone and is
/// left as it is.
#[derive(Args, Debug)]
pub(crate) struct Abort {
    /// The top-level action, as `partha actions` shows it
    pub(crate) action: ActionId,
    #[command(flatten)]
    pub(crate) cluster: Cluster,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let is_name = |name: &str| {
        let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        begins && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let is_path = |path: &str| path.trim_start_matches("::").split("::").all(is_name);
    match text.split_once('=') {
        Some((key, value)) if is_name(key) && is_path(value) => {
            Ok((key.to_owned(), value.to_owned()))
        }
        _ => Err("expected MODULE=PATH, as shop=crate::shop".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_commands_do_not_contradict_each_other() {
        super::Arguments::command().debug_assert();
    }

    #[test]
    fn an_outside_module_is_a_name_and_a_rust_path() {
        for right in ["shop=crate::shop", "shop=::shop::gen_1"] {
            assert!(super::key_value(right).is_ok(), "{right}");
        }
        for wrong in [
            "shop", "=x", "shop=", "shop=a-b", "shop=a:b", "shop=1", "shop=a::",
        ] {
            assert!(super::key_value(wrong).is_err(), "{wrong}");
        }
    }
}
