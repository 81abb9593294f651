//! How a cluster is to be.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use super::cluster::{Cluster, MAIN};
use super::random::{Random, SEED};
use crate::abi::Class;
use crate::client::random_node;
use crate::error::{ErrorKind, Result, SystemError};
use crate::net::links::Lease;
use crate::node::{Node, NodeBuilder};

/// Heartbeat and lease of all members, unless the test says otherwise: short, since tests wait for
/// them, and long enough for a machine that has more to do.
const HEARTBEAT: Duration = Duration::from_millis(300);
const LEASE: Duration = Duration::from_millis(1500);
/// Threads of a node: two, so that objects of one node are on different shards.
const SHARDS: u16 = 2;

/// Says what else a node is to be, by its name.
type Configure = dyn Fn(&str, NodeBuilder) -> NodeBuilder + Send + Sync;
/// Makes a node the naming service.
type Embed = fn(NodeBuilder) -> NodeBuilder;

/// How a cluster is to be: begun by [`Cluster::new`], ended by [`Plan::start`].
pub struct Plan {
    pub(super) names: Vec<String>,
    pub(super) lease: Lease,
    asked_lease: (Duration, Duration),
    classes: Vec<Box<dyn Fn() -> Class + Send + Sync>>,
    configure: Option<Box<Configure>>,
    /// The node that is the naming service, and what makes it that.
    pub(super) naming: Option<(String, Embed)>,
    seed: Option<u64>,
}

impl Plan {
    pub(super) fn new() -> Self {
        Self {
            names: vec!["a".to_owned()],
            lease: Lease::default(),
            asked_lease: (HEARTBEAT, LEASE),
            classes: Vec::new(),
            configure: None,
            naming: None,
            seed: None,
        }
    }

    /// So many nodes, with the names a, b, c and so on.
    ///
    /// # Panics
    /// If there are more than letters.
    #[must_use]
    pub fn nodes(self, count: usize) -> Self {
        assert!(count <= 26, "{count} nodes; give names to more than 26");
        self.names(('a'..='z').take(count))
    }

    /// Nodes with these names.
    #[must_use]
    pub fn names(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.names = names.into_iter().map(Into::into).collect();
        self
    }

    /// A class that all nodes can run. The closure is asked at each start of a node, so that its
    /// servant may share what the test has: `.class(move || account::class(Servant(log.clone())))`.
    #[must_use]
    pub fn class(mut self, class: impl Fn() -> Class + Send + Sync + 'static) -> Self {
        self.classes.push(Box::new(class));
        self
    }

    /// What else is to be said of each node: it is given the node's name and what the plan says.
    /// Name, folder and lease are the plan's.
    #[must_use]
    pub fn configure(
        mut self,
        configure: impl Fn(&str, NodeBuilder) -> NodeBuilder + Send + Sync + 'static,
    ) -> Self {
        self.configure = Some(Box::new(configure));
        self
    }

    /// Has the node of this name be the naming service for all members, with what
    /// `partha_naming::embed` makes of it: `.naming("a", partha_naming::embed)`.
    #[must_use]
    pub fn naming(mut self, name: &str, embed: fn(NodeBuilder) -> NodeBuilder) -> Self {
        self.naming = Some((name.to_owned(), embed));
        self
    }

    /// How often a silent peer is asked whether it lives, and after how much silence it is taken
    /// for dead, for nodes and clients; 300 ms and 1.5 s if not said. The lease is at least two
    /// heartbeats long, and better as long as the machine may keep a thread waiting.
    #[must_use]
    pub fn lease(mut self, heartbeat: Duration, lease: Duration) -> Self {
        self.asked_lease = (heartbeat, lease);
        self
    }

    /// The seed of [`Cluster::random`]; that of `PARTHA_SEED` if not said, else any.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Starts the nodes.
    ///
    /// # Errors
    /// Those of [`NodeBuilder::start`], a lease that is too short, two nodes of one name, a naming
    /// service that is no node or no naming service.
    pub async fn start(mut self) -> Result<Cluster> {
        let wrong = |what: String| Err(SystemError::new(ErrorKind::BadOperation, what));
        let (heartbeat, lease) = self.asked_lease;
        self.lease = Lease::new(heartbeat, lease)?;
        let mut seen = BTreeSet::from([MAIN]);
        for name in &self.names {
            if !seen.insert(name) {
                return wrong(format!("two members of the cluster have the name '{name}'"));
            }
            if name.is_empty() || name.contains(['/', '\\']) || name.starts_with('.') {
                return wrong(format!("'{name}' is no name for a node and its folder"));
            }
        }
        if let Some((naming, _)) = &self.naming
            && !self.names.contains(naming)
        {
            return wrong(format!(
                "'{naming}' is to be the naming service, and is no node of the cluster"
            ));
        }
        let random = Random::new(self.choose_seed()?);
        Cluster::start(self, random).await
    }

    /// A node as the plan has it.
    pub(super) fn builder(&self, name: &str) -> NodeBuilder {
        let mut builder = Node::builder().shards(SHARDS);
        for class in &self.classes {
            builder = builder.class(class());
        }
        if let Some(configure) = &self.configure {
            builder = configure(name, builder);
        }
        if let Some((naming, embed)) = &self.naming
            && naming == name
        {
            builder = embed(builder);
        }
        let Lease {
            heartbeat,
            silent_max,
        } = self.lease;
        builder.name(name).lease(heartbeat, silent_max)
    }

    fn choose_seed(&self) -> Result<u64> {
        if let Some(seed) = self.seed {
            return Ok(seed);
        }
        match std::env::var(SEED) {
            Ok(text) => text.parse().map_err(|_| {
                let detail = format!("{SEED} is '{text}', which is no number");
                SystemError::new(ErrorKind::BadOperation, detail)
            }),
            Err(_) => Ok(random_node()?.0),
        }
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("names", &self.names)
            .field("lease", &self.asked_lease)
            .field("classes", &self.classes.len())
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}
