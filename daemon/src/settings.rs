//! What a daemon does in the end: the layers with the defaults beneath them.

use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use partha::services::binder::Label;
use partha::{Limits, Node, NodeBuilder};

use crate::Span;
use crate::options::{LogFormat, LogOptions, NodeOptions};

/// How long calls under way may take to finish when a daemon is stopped.
const PATIENCE: Duration = Duration::from_secs(10);
/// The least time that a peer may be silent: a machine that is busy takes some of it.
const PEER_LEASE_MIN: Duration = Duration::from_millis(500);
/// When a silent peer is asked whether it lives: after so much of the time it may be silent.
const HEARTBEAT: f64 = 0.3;

/// What holds where nobody says otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    /// The node's name.
    pub name: &'static str,
    /// Where it listens.
    pub listen: &'static str,
    /// Where the naming service listens; none for the naming service itself.
    pub naming: Option<&'static str>,
}

/// What a daemon does.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The node's name for people.
    pub name: String,
    /// The folder of its store.
    pub data_dir: PathBuf,
    /// Where it listens.
    pub listen: String,
    /// The addresses others are to use; empty if that is where it listens.
    pub advertise: Vec<String>,
    /// What places for objects are chosen by.
    pub labels: Vec<Label>,
    /// Where the naming service listens.
    pub naming: Option<String>,
    /// How many threads run objects; as many as cores if not said.
    pub shards: Option<u16>,
    /// How long a peer may be silent, if it was said.
    pub peer_lease: Option<Duration>,
    /// Bounds of each shard.
    pub limits: Limits,
    /// Bytes of object states that the node keeps in memory, if it was said.
    pub memory_bytes: Option<u64>,
    /// Objects that the node keeps in memory, if it was said.
    pub active_objects: Option<u32>,
    /// How long calls under way may take to finish when it is stopped.
    pub patience: Duration,
    /// What to log; from RUST_LOG if not said.
    pub log_filter: Option<String>,
    /// How log lines look.
    pub log_format: LogFormat,
}

impl Settings {
    /// Lays the options over the defaults.
    ///
    /// # Errors
    /// If it was to listen where other machines can reach it without `insecure`, or the address
    /// is none.
    pub fn new(node: NodeOptions, log: LogOptions, defaults: Defaults) -> anyhow::Result<Self> {
        let name = node.name.unwrap_or_else(|| defaults.name.to_owned());
        let listen = node.listen.unwrap_or_else(|| defaults.listen.to_owned());
        let resolved = resolve(&listen)?;
        if node.insecure != Some(true) {
            refuse_public(&listen, &resolved)?;
        }
        if node.advertise.is_empty() {
            refuse_everywhere(&listen, &resolved)?;
        }
        let labels: Vec<_> = node.labels.into_iter().map(|label| label.0).collect();
        if let Err(reason) = Label::check_all(&labels) {
            bail!("the node's labels: {reason}");
        }
        if let Some(lease) = node.peer_lease.filter(|lease| lease.0 < PEER_LEASE_MIN) {
            bail!(
                "a lease of {:?} for peers is too short: {PEER_LEASE_MIN:?} is the least",
                lease.0
            );
        }
        let mut limits = Limits::default();
        let nanos = |span: Span| u64::try_from(span.0.as_nanos()).unwrap_or(u64::MAX);
        limits.idle_ns = node.idle.map_or(limits.idle_ns, nanos);
        limits.move_cooldown_ns = node.move_cooldown.map_or(limits.move_cooldown_ns, nanos);
        Ok(Self {
            data_dir: node
                .data_dir
                .unwrap_or_else(|| PathBuf::from(".partha").join(&name)),
            name,
            listen,
            advertise: node.advertise,
            labels,
            naming: node.naming.or_else(|| defaults.naming.map(str::to_owned)),
            shards: node.shards,
            peer_lease: node.peer_lease.map(|span| span.0),
            limits,
            memory_bytes: node.memory_mb.map(|mb| mb.saturating_mul(1 << 20)),
            active_objects: node.active_objects,
            patience: node.patience.map_or(PATIENCE, |span| span.0),
            log_filter: log.filter,
            log_format: log.format.unwrap_or_default(),
        })
    }

    /// Takes a free port now if it was left to the system, for a daemon that must know its own
    /// address before it listens. Another process may be faster: then the start fails.
    ///
    /// # Errors
    /// If the address cannot be listened at.
    pub fn fix_port(&mut self) -> anyhow::Result<()> {
        if !self.listen.ends_with(":0") {
            return Ok(());
        }
        let free = TcpListener::bind(&self.listen).and_then(|listener| listener.local_addr());
        let free = free.with_context(|| format!("cannot listen at {}", self.listen))?;
        self.listen = free.to_string();
        Ok(())
    }

    /// Begins a node that is so; what it serves is for the caller to add.
    #[must_use]
    pub fn builder(&self) -> NodeBuilder {
        let mut builder = Node::builder()
            .name(&self.name)
            .data_dir(&self.data_dir)
            .listen(&self.listen)
            .limits(self.limits);
        for address in &self.advertise {
            builder = builder.advertise(address);
        }
        for Label { name, value } in &self.labels {
            builder = builder.label(name, value);
        }
        if let Some(naming) = &self.naming {
            builder = builder.naming(naming);
        }
        if let Some(bytes) = self.memory_bytes {
            builder = builder.memory_max(bytes);
        }
        if let Some(objects) = self.active_objects {
            builder = builder.active_objects_max(objects);
        }
        if let Some(lease) = self.peer_lease {
            builder = builder.lease(lease.mul_f64(HEARTBEAT), lease);
        }
        match self.shards {
            Some(shards) => builder.shards(shards),
            None => builder,
        }
    }
}

fn resolve(listen: &str) -> anyhow::Result<Vec<SocketAddr>> {
    let resolved = listen.to_socket_addrs();
    let resolved = resolved
        .with_context(|| format!("'{listen}' is no address to listen at: expected host:port"))?;
    Ok(resolved.collect())
}

fn refuse_public(listen: &str, resolved: &[SocketAddr]) -> anyhow::Result<()> {
    if resolved.iter().all(|address| address.ip().is_loopback()) {
        return Ok(());
    }
    bail!(
        "refused to listen at {listen}, where other machines can reach it: connections are neither \
         encrypted nor authenticated; listen at 127.0.0.1, or say --insecure if the network is \
         yours alone"
    )
}

/// Others cannot be told to look for the node at "any address of the machine".
fn refuse_everywhere(listen: &str, resolved: &[SocketAddr]) -> anyhow::Result<()> {
    if resolved.iter().any(|address| address.ip().is_unspecified()) {
        bail!(
            "{listen} stands for all addresses of this machine, which is no address for others to \
             use: say one of them with --advertise HOST:PORT"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: Defaults = Defaults {
        name: "a",
        listen: "127.0.0.1:7411",
        naming: Some("127.0.0.1:7401"),
    };

    fn settings(node: NodeOptions) -> anyhow::Result<Settings> {
        Settings::new(node, LogOptions::default(), DEFAULTS)
    }

    #[test]
    fn defaults_hold_where_nothing_is_said() {
        let settings = settings(NodeOptions::default()).unwrap();
        assert_eq!(settings.data_dir, PathBuf::from(".partha/a"));
        assert_eq!(settings.listen, "127.0.0.1:7411");
        assert_eq!(settings.naming.as_deref(), Some("127.0.0.1:7401"));
        assert_eq!(settings.limits, Limits::default());
    }

    #[test]
    fn limits_of_memory_are_those_of_the_whole_node() {
        let node = NodeOptions {
            memory_mb: Some(7),
            active_objects: Some(9),
            ..NodeOptions::default()
        };
        let settings = settings(node).unwrap();
        assert_eq!(settings.memory_bytes, Some(7 << 20));
        assert_eq!(settings.active_objects, Some(9));
    }

    #[test]
    fn peers_may_be_silent_for_half_a_second_at_least() {
        let silent = |text: &str| NodeOptions {
            peer_lease: Some(text.parse().unwrap()),
            ..NodeOptions::default()
        };
        let error = settings(silent("499ms")).unwrap_err().to_string();
        assert!(error.contains("500ms is the least"), "{error}");
        let lease = settings(silent("500ms")).unwrap().peer_lease;
        assert_eq!(lease, Some(Duration::from_millis(500)));
    }

    #[test]
    fn the_folder_follows_the_name() {
        let node = NodeOptions {
            name: Some("b".to_owned()),
            ..NodeOptions::default()
        };
        assert_eq!(settings(node).unwrap().data_dir, PathBuf::from(".partha/b"));
    }

    #[test]
    fn only_insecure_lets_other_machines_in() {
        let listen = |listen: &str, insecure| NodeOptions {
            listen: Some(listen.to_owned()),
            advertise: vec!["db1:7411".to_owned()],
            insecure,
            ..NodeOptions::default()
        };
        let error = settings(listen("0.0.0.0:7411", None))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("refused") && error.contains("--insecure"),
            "{error}"
        );
        assert!(settings(listen("0.0.0.0:7411", Some(false))).is_err());
        assert!(settings(listen("0.0.0.0:7411", Some(true))).is_ok());
        assert!(settings(listen("[::1]:7411", None)).is_ok());
    }

    #[test]
    fn all_addresses_are_none_for_others() {
        let mut node = NodeOptions {
            listen: Some("0.0.0.0:7411".to_owned()),
            insecure: Some(true),
            ..NodeOptions::default()
        };
        let error = settings(node.clone()).unwrap_err().to_string();
        assert!(error.contains("--advertise"), "{error}");
        node.advertise = vec!["db1:7411".to_owned()];
        assert_eq!(settings(node).unwrap().advertise, ["db1:7411"]);
    }

    #[test]
    fn a_node_has_one_label_of_a_name() {
        let labels = |texts: &[&str]| NodeOptions {
            labels: texts.iter().map(|text| text.parse().unwrap()).collect(),
            ..NodeOptions::default()
        };
        let error = settings(labels(&["zone=a", "zone=b"])).unwrap_err();
        assert!(error.to_string().contains("zone=a, zone=b"), "{error}");
        let settings = settings(labels(&["zone=a", "rack=7"])).unwrap();
        let texts: Vec<_> = settings.labels.iter().map(Label::to_string).collect();
        assert_eq!(texts, ["zone=a", "rack=7"]);
    }

    #[test]
    fn what_is_no_address_is_said_so() {
        let node = NodeOptions {
            listen: Some("7411".to_owned()),
            ..NodeOptions::default()
        };
        let error = settings(node).unwrap_err().to_string();
        assert!(error.contains("expected host:port"), "{error}");
    }
}
