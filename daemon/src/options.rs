//! What a daemon can be told, by flags, environment and file.
//!
//! One struct serves both ways: clap fills it from flags and environment, serde from a table of
//! the file, and [`NodeOptions::over`] lays one on the other. The toml crate reports errors with
//! line, column and caret.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::label::NodeLabel;
use crate::span::Span;

/// Options of every daemon
#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    /// A TOML file with further settings; flags and environment go before it
    #[arg(long, value_name = "FILE", env = "PARTHA_CONFIG")]
    pub config: Option<PathBuf>,
    /// About the node
    #[command(flatten)]
    pub node: NodeOptions,
    /// About its log
    #[command(flatten)]
    pub log: LogOptions,
    /// Stop when standard input ends: with it the daemon does not outlive who started it
    #[arg(long, hide = true)]
    pub stop_with_stdin: bool,
}

/// The table `[node]` of a daemon's file, and the flags of the same names.
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct NodeOptions {
    /// The node's name for people, unique in the system
    #[arg(long, env = "PARTHA_NAME")]
    pub name: Option<String>,
    /// The folder of its store, made if absent [default: .partha/ and the name]
    #[arg(long, value_name = "DIR", env = "PARTHA_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", env = "PARTHA_LISTEN")]
    pub listen: Option<String>,
    /// The address others are to use, where it is not the one listened at; may be repeated
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "PARTHA_ADVERTISE",
        value_delimiter = ','
    )]
    pub advertise: Vec<String>,
    /// Something that is true of the node, by which places for objects are chosen, as zone=a; may
    /// be repeated
    #[arg(
        long = "label",
        value_name = "NAME=VALUE",
        env = "PARTHA_LABEL",
        value_delimiter = ','
    )]
    pub labels: Vec<NodeLabel>,
    /// Where the naming service listens
    #[arg(long, value_name = "HOST:PORT", env = "PARTHA_NAMING")]
    pub naming: Option<String>,
    /// How many threads run objects [default: one for each core]
    #[arg(long, value_name = "COUNT", env = "PARTHA_SHARDS",
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub shards: Option<u16>,
    /// How long a peer may be silent before it is taken for dead, as 4s: then its connections are
    /// broken, and where it led copies, another one does. A silent peer is asked before, after
    /// three tenths of that
    #[arg(long, value_name = "TIME", env = "PARTHA_PEER_LEASE")]
    pub peer_lease: Option<Span>,
    /// How long an object that has moved here serves before it moves on, as 100ms; the same for
    /// the leader of copies. 0s for no such time
    #[arg(long, value_name = "TIME", env = "PARTHA_MOVE_COOLDOWN")]
    pub move_cooldown: Option<Span>,
    /// How long an unused object stays in memory, as 60s
    #[arg(long, value_name = "TIME", env = "PARTHA_IDLE")]
    pub idle: Option<Span>,
    /// Megabytes of object states that the node keeps in memory [default: 256 for each shard]
    #[arg(long, value_name = "MB", env = "PARTHA_MEMORY_MB")]
    pub memory_mb: Option<u64>,
    /// Objects that the node keeps in memory [default: 100000 for each shard]
    #[arg(long, value_name = "COUNT", env = "PARTHA_ACTIVE_OBJECTS",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub active_objects: Option<u32>,
    /// How long calls under way may take to finish when the daemon is stopped, as 10s
    #[arg(long, value_name = "TIME", env = "PARTHA_PATIENCE")]
    pub patience: Option<Span>,
    /// Listen where other machines can reach it, although connections are neither encrypted nor
    /// authenticated
    #[arg(long, env = "PARTHA_INSECURE", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_name = "BOOL")]
    pub insecure: Option<bool>,
}

/// The table `[log]` of a daemon's file, and the flags of the same names.
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct LogOptions {
    /// What to log, as info or partha=debug; RUST_LOG is read too
    #[arg(long = "log", value_name = "FILTER", env = "PARTHA_LOG")]
    pub filter: Option<String>,
    /// How to write the log
    #[arg(long = "log-format", value_name = "FORMAT", env = "PARTHA_LOG_FORMAT")]
    pub format: Option<LogFormat>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// Lines for people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

/// The file of a daemon that has no settings of its own.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct File {
    /// About the node.
    pub node: NodeOptions,
    /// About its log.
    pub log: LogOptions,
}

impl NodeOptions {
    /// These options, and where they say nothing, the lower ones.
    #[must_use]
    pub fn over(self, lower: Self) -> Self {
        Self {
            name: self.name.or(lower.name),
            data_dir: self.data_dir.or(lower.data_dir),
            listen: self.listen.or(lower.listen),
            advertise: match self.advertise.is_empty() {
                true => lower.advertise,
                false => self.advertise,
            },
            labels: match self.labels.is_empty() {
                true => lower.labels,
                false => self.labels,
            },
            naming: self.naming.or(lower.naming),
            shards: self.shards.or(lower.shards),
            peer_lease: self.peer_lease.or(lower.peer_lease),
            move_cooldown: self.move_cooldown.or(lower.move_cooldown),
            idle: self.idle.or(lower.idle),
            memory_mb: self.memory_mb.or(lower.memory_mb),
            active_objects: self.active_objects.or(lower.active_objects),
            patience: self.patience.or(lower.patience),
            insecure: self.insecure.or(lower.insecure),
        }
    }
}

impl LogOptions {
    /// These options, and where they say nothing, the lower ones.
    #[must_use]
    pub fn over(self, lower: Self) -> Self {
        Self {
            filter: self.filter.or(lower.filter),
            format: self.format.or(lower.format),
        }
    }
}

/// Reads a daemon's file; without one, everything is left to the defaults.
///
/// # Errors
/// If it cannot be read, or has an unknown key or a value of another kind; with file, line and
/// caret.
pub fn read_file<F: DeserializeOwned + Default>(path: Option<&Path>) -> anyhow::Result<F> {
    let Some(path) = path else {
        return Ok(F::default());
    };
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the configuration file {}", path.display()))?;
    toml::from_str(&text)
        .map_err(|error| anyhow::anyhow!("{}: {}", path.display(), error.to_string().trim_end()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use test_support::temp_dir;

    use super::*;

    #[derive(Parser)]
    struct Daemon {
        #[command(flatten)]
        options: Options,
    }

    fn error_of(text: &str) -> String {
        let folder = temp_dir("options");
        let path = folder.path().join("node.toml");
        std::fs::write(&path, text).unwrap();
        let error = read_file::<File>(Some(&path)).unwrap_err().to_string();
        error.replace(&path.display().to_string(), "node.toml")
    }

    #[test]
    fn flags_go_before_the_file() {
        let folder = temp_dir("options");
        let path = folder.path().join("node.toml");
        let text = "[node]\nlisten = \"127.0.0.1:1\"\nname = \"b\"\nidle = \"5s\"\n\
                    [log]\nformat = \"json\"\n";
        std::fs::write(&path, text).unwrap();
        let flags = ["daemon", "--name", "a", "--shards", "3", "--insecure"];
        let options = Daemon::parse_from(flags).options;
        let file: File = read_file(Some(&path)).unwrap();
        let node = options.node.over(file.node);
        assert_eq!((node.name.as_deref(), node.shards), (Some("a"), Some(3)));
        assert_eq!(node.listen.as_deref(), Some("127.0.0.1:1"));
        assert_eq!(node.idle, Some("5s".parse().unwrap()));
        assert_eq!(node.insecure, Some(true));
        assert_eq!(options.log.over(file.log).format, Some(LogFormat::Json));
    }

    #[test]
    fn labels_are_told_by_flags_or_by_the_file() {
        let folder = temp_dir("options");
        let path = folder.path().join("node.toml");
        std::fs::write(&path, "[node]\nlabels = [\"zone=b\", \"rack=7\"]\n").unwrap();
        let file: File = read_file(Some(&path)).unwrap();
        let texts = |node: &NodeOptions| {
            let labels = node.labels.iter();
            labels.map(|label| label.0.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(texts(&file.node), ["zone=b", "rack=7"]);
        let flags = ["daemon", "--label", "zone=a,rack=1", "--label", "ssd=yes"];
        let options = Daemon::parse_from(flags).options;
        let node = options.node.over(file.node.clone());
        assert_eq!(texts(&node), ["zone=a", "rack=1", "ssd=yes"]);
        let bare = Daemon::parse_from(["daemon"]).options;
        assert_eq!(texts(&bare.node.over(file.node)), ["zone=b", "rack=7"]);
        let error = error_of("[node]\nlabels = [\"zone\"]\n");
        assert!(
            error.contains("expected NAME=VALUE") && error.contains("^^^^"),
            "{error}"
        );
    }

    #[test]
    fn a_misspelt_key_is_shown_with_file_line_and_caret() {
        let error = error_of("[node]\nname = \"a\"\nlsten = \"x\"\n");
        assert!(
            error.starts_with("node.toml: TOML parse error at line 3, column 1"),
            "{error}"
        );
        assert!(
            error.contains("^^^^^") && error.contains("unknown field `lsten`"),
            "{error}"
        );
    }

    #[test]
    fn a_value_of_another_kind_is_shown_with_file_line_and_caret() {
        let error = error_of("[node]\nshards = \"two\"\n");
        assert!(
            error.contains("line 2, column 10") && error.contains("^^^^^"),
            "{error}"
        );
        let error = error_of("[node]\nidle = \"long\"\n");
        assert!(error.contains("'long' is no length of time"), "{error}");
    }

    #[test]
    fn an_absent_file_is_named() {
        let error = read_file::<File>(Some(Path::new("absent.toml"))).unwrap_err();
        assert!(error.to_string().contains("absent.toml"), "{error}");
        assert_eq!(read_file::<File>(None).unwrap(), File::default());
    }
}
