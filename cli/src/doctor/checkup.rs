//! What the doctor asks: every node, all at a time, each for a bounded time.
//!
//! A node that does not answer holds nobody up, and what a node did not tell in time is missing
//! and known to be.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures_util::future::join_all;
use partha::services::binder::NodeEntry;
use partha::system::{
    ActionDescription, Elsewhere, LockDescription, MovedPlace, NodeStatistics, SessionDescription,
};
use partha::{NodeId, Uid};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::places::{PLACES_MAX, Places};
use crate::cluster::{self, NodeInfo, System};
use crate::elsewhere;
use crate::names;
use crate::sessions;
use crate::suggest;
use crate::survey::{self, Locks, REPLACED};

/// How long a node may take to answer all questions.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long it may take to be seen that something listens at the address of a silent one.
const PROBE: Duration = Duration::from_millis(200);

/// What is missing if a node does not tell what runs elsewhere, or not all.
pub(super) const ELSEWHERE: &str = "servants elsewhere";

/// What is missing if a node does not tell which objects have moved.
pub(super) const PLACES: &str = "objects that have moved";

/// What the nodes of a system said.
pub(super) struct Checkup {
    pub(super) nodes: Vec<Examined>,
    /// Why the binder could not tell which nodes there are.
    pub(super) no_binder: Option<String>,
    /// What is wrong with where objects are.
    pub(super) places: Places,
    /// Names of objects that somebody has locked, or that something is wrong with.
    pub(super) names: HashMap<Uid, String>,
}

/// What is known of one node.
pub(super) struct Examined {
    pub(super) name: String,
    pub(super) id: Option<NodeId>,
    /// Whether the binder takes it for alive, and when it was last heard of.
    pub(super) entry: Option<NodeEntry>,
    pub(super) answer: anyhow::Result<Answer>,
    /// The way to it, if it answers.
    pub(super) info: Option<NodeInfo>,
    /// It does not answer, but something listens at its address.
    pub(super) listens: bool,
}

/// What it said.
pub(super) struct Answer {
    pub(super) life: u32,
    /// None if it did not tell.
    pub(super) statistics: Option<NodeStatistics>,
    pub(super) sessions: Vec<SessionDescription>,
    pub(super) parts: Vec<ActionDescription>,
    pub(super) locks: Vec<LockDescription>,
    pub(super) elsewhere: Elsewhere,
    /// Objects that have moved to it or from it, the first of them.
    pub(super) places: Vec<MovedPlace>,
    /// What it did not tell in time, and why.
    pub(super) missing: Vec<(&'static str, String)>,
}

/// Whom to ask.
enum Target {
    Naming,
    Address(String),
    Entry(NodeEntry),
}

impl Checkup {
    /// Asks these nodes, or all.
    pub(super) async fn of(system: &System, wanted: &[String]) -> anyhow::Result<Self> {
        let listed = tokio::time::timeout(PATIENCE, system.client.locator().nodes(&system.client));
        let listed = match listed.await {
            Ok(Ok(nodes)) => Ok(nodes),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {PATIENCE:?}")),
        };
        let (entries, no_binder) = match listed {
            Ok(entries) => (entries, None),
            Err(why) => (Vec::new(), Some(why)),
        };
        let targets = targets(entries, wanted)?;
        let asked = targets.into_iter().map(|target| examine(system, target));
        let mut nodes = join_all(asked).await;
        // The naming service may have registered, too.
        let mut seen = BTreeSet::new();
        nodes.retain(|node| node.id.is_none_or(|id| seen.insert(id)));
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        let places = Places::of(system, &nodes, wanted.is_empty()).await;
        let mut checkup = Self {
            nodes,
            no_binder,
            places,
            names: HashMap::new(),
        };
        let told = checkup.answers();
        let told = told.flat_map(|(_, answer)| answer.objects());
        let objects: BTreeSet<Uid> = told.chain(checkup.places.objects()).collect();
        checkup.names = names::of_objects(system, &objects).await;
        Ok(checkup)
    }

    /// The nodes that answered.
    pub(super) fn answers(&self) -> impl Iterator<Item = (&Examined, &Answer)> {
        let nodes = self.nodes.iter();
        nodes.filter_map(|node| Some((node, node.answer.as_ref().ok()?)))
    }

    /// The name of a process: a node's, or its id.
    pub(super) fn process(&self, node: u64) -> String {
        let id = NodeId(node);
        let found = self.nodes.iter().find(|node| node.id == Some(id));
        found.map_or_else(|| id.to_string(), |node| node.name.clone())
    }

    /// Whether a node is known not to answer.
    pub(super) fn is_silent(&self, node: u64) -> bool {
        let mut nodes = self.nodes.iter();
        nodes.any(|other| other.id == Some(NodeId(node)) && other.answer.is_err())
    }

    /// The name of an object, or its uid.
    pub(super) fn object(&self, object: Uid) -> String {
        let name = self.names.get(&object).cloned();
        name.unwrap_or_else(|| object.to_string())
    }
}

/// The naming service and all that the binder lists; those of them that are wanted, if some are.
fn targets(entries: Vec<NodeEntry>, wanted: &[String]) -> anyhow::Result<Vec<Target>> {
    let mut entries: Vec<_> = entries
        .into_iter()
        .filter(|node| !node.name.ends_with(REPLACED))
        .collect();
    if wanted.is_empty() {
        let all = entries.into_iter().map(Target::Entry);
        return Ok(std::iter::once(Target::Naming).chain(all).collect());
    }
    let mut targets = Vec::new();
    for name in wanted {
        if name.contains(':') {
            targets.push(Target::Address(name.clone()));
            continue;
        }
        let is_it = |node: &NodeEntry| node.name == *name || NodeId(node.node).to_string() == *name;
        if let Some(index) = entries.iter().position(is_it) {
            targets.push(Target::Entry(entries.swap_remove(index)));
        } else if name == "naming" {
            targets.push(Target::Naming);
        } else {
            let hint = suggest::hint(name, entries.iter().map(|node| node.name.as_str()));
            bail!(
                "no node '{name}' has registered with the binder; `partha nodes` lists them{hint}"
            )
        }
    }
    Ok(targets)
}

async fn examine(system: &System, target: Target) -> Examined {
    let until = Instant::now() + PATIENCE;
    let reached = async {
        match &target {
            Target::Naming => system.naming_node().await,
            Target::Address(address) => system.node_at(address).await,
            Target::Entry(entry) => system.reach(entry).await,
        }
    };
    let late = || format!("no answer within {PATIENCE:?}");
    let reached = tokio::time::timeout_at(until, reached).await;
    let reached = reached.with_context(late).and_then(|reached| reached);
    let (mut name, mut id) = match &target {
        Target::Naming => ("naming".to_owned(), None),
        Target::Address(address) => (address.clone(), None),
        Target::Entry(entry) => (entry.name.clone(), Some(NodeId(entry.node))),
    };
    let (answer, info, listens) = match reached {
        Ok(info) => {
            name.clone_from(&info.description.name);
            id = Some(info.handle.id());
            let answer = ask(system, &info, until).await;
            (Ok(answer), Some(info), false)
        }
        Err(error) => (Err(error), None, target.listens(system).await),
    };
    let entry = match target {
        Target::Entry(entry) => Some(entry),
        Target::Naming | Target::Address(_) => None,
    };
    Examined {
        name,
        id,
        entry,
        answer,
        info,
        listens,
    }
}

impl Target {
    /// Whether something accepts connections where it should be.
    async fn listens(&self, system: &System) -> bool {
        let addresses = match self {
            Self::Naming => vec![system.naming_address()],
            Self::Address(address) => vec![address.as_str()],
            Self::Entry(entry) => entry.addresses.iter().map(String::as_str).collect(),
        };
        let probe = async {
            for address in addresses {
                if TcpStream::connect(address).await.is_ok() {
                    return true;
                }
            }
            false
        };
        tokio::time::timeout(PROBE, probe).await.unwrap_or(false)
    }
}

async fn ask(system: &System, info: &NodeInfo, until: Instant) -> Answer {
    let statistics = async {
        let statistics = info.handle.manager().statistics(&system.client).await;
        anyhow::Ok(Some(statistics?))
    };
    let sessions = sessions::of_node(&system.client, &info.handle);
    let parts = survey::parts(system, info);
    let locks = survey::locks_of(system, info, Locks::All);
    let elsewhere = elsewhere::of_node(&system.client, info);
    let manager = info.handle.manager();
    let places = async {
        let page = manager.places(&system.client, Uid::NIL, PLACES_MAX);
        anyhow::Ok(page.await?)
    };
    let (statistics, sessions, parts, locks, elsewhere, places) = tokio::join!(
        tokio::time::timeout_at(until, statistics),
        tokio::time::timeout_at(until, sessions),
        tokio::time::timeout_at(until, parts),
        tokio::time::timeout_at(until, locks),
        tokio::time::timeout_at(until, elsewhere),
        tokio::time::timeout_at(until, places),
    );
    let mut missing = Vec::new();
    let elsewhere: Elsewhere = told(ELSEWHERE, elsewhere, &mut missing);
    if elsewhere.left_out > 0 {
        let why = format!("{} had no place in its answer", elsewhere.left_out);
        missing.push((ELSEWHERE, why));
    }
    Answer {
        statistics: told("statistics", statistics, &mut missing),
        sessions: told("sessions", sessions, &mut missing),
        parts: told("actions", parts, &mut missing),
        locks: told("locks", locks, &mut missing),
        elsewhere,
        places: told(PLACES, places, &mut missing),
        life: info.description.incarnation,
        missing,
    }
}

/// What was told, or nothing, with a note of that.
fn told<T: Default>(
    what: &'static str,
    answer: Result<anyhow::Result<T>, tokio::time::error::Elapsed>,
    missing: &mut Vec<(&'static str, String)>,
) -> T {
    let why = match answer {
        Ok(Ok(told)) => return told,
        Ok(Err(error)) => format!("{error:#}"),
        Err(_) => format!("no answer within {PATIENCE:?}"),
    };
    missing.push((what, why));
    T::default()
}

impl Answer {
    /// Whether it told this.
    pub(super) fn has_told(&self, what: &str) -> bool {
        !self.missing.iter().any(|(missing, _)| *missing == what)
    }

    /// What is to be named.
    fn objects(&self) -> impl Iterator<Item = Uid> {
        let locked = self.locks.iter().map(|lock| lock.object);
        let Elsewhere {
            stuck,
            runaways,
            servers,
            ..
        } = &self.elsewhere;
        let busy = stuck.iter().chain(runaways).map(|busy| busy.object);
        let served = servers.iter().filter_map(|server| server.object);
        locked.chain(busy).chain(served)
    }
}

impl Examined {
    /// When it was last heard of, if the binder says.
    pub(super) fn heard(&self) -> Option<String> {
        self.entry.as_ref().map(cluster::heard)
    }
}
