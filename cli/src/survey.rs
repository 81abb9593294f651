//! What the nodes of a system say of their actions and locks, each asked once, all at a time.
//!
//! It is a picture of many moments: an action may have ended at one node while another is being
//! asked. What does not answer in time is told, and what it holds is missing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::join_all;
use partha::services::binder::NodeEntry;
use partha::system::{ActionDescription, ActionPath, ActionPhase, LockDescription, LockMode};
use partha::{NodeId, Uid};
use serde_json::{Value, json};

use crate::cluster::{NodeInfo, System};
use crate::names;

/// Actions or locks asked for at a time.
const PAGE: u32 = 500;
/// How long a node may take to answer all questions.
const PATIENCE: Duration = Duration::from_secs(5);
/// What the binder appends to the name of a node whose place another one has taken.
pub(crate) const REPLACED: &str = " (replaced)";

/// What was asked, and of whom.
#[derive(Debug)]
pub(crate) struct Survey {
    pub(crate) nodes: Vec<Surveyed>,
    pub(crate) silent: Vec<Silent>,
}

/// What one node said.
#[derive(Debug)]
pub(crate) struct Surveyed {
    pub(crate) info: NodeInfo,
    pub(crate) parts: Vec<ActionDescription>,
    pub(crate) locks: Vec<LockDescription>,
}

/// A node that did not answer.
#[derive(Debug)]
pub(crate) struct Silent {
    pub(crate) name: String,
    pub(crate) error: anyhow::Error,
}

/// Which locks are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Locks {
    All,
    /// Those that somebody waits for.
    Contended,
}

impl Survey {
    /// Asks all nodes.
    pub(crate) async fn of_all(system: &System, locks: Locks) -> anyhow::Result<Self> {
        let (reached, silent) = reach_all(system).await?;
        let mut survey = Self {
            nodes: Vec::new(),
            silent,
        };
        let asked = reached.into_iter().map(|info| async move {
            (
                info.description.name.clone(),
                ask(system, info, locks).await,
            )
        });
        for (name, answered) in join_all(asked).await {
            match answered {
                Ok(surveyed) => survey.nodes.push(surveyed),
                Err(error) => survey.silent.push(Silent { name, error }),
            }
        }
        Ok(survey)
    }

    /// Asks one node.
    pub(crate) async fn of(system: &System, node: NodeInfo, locks: Locks) -> anyhow::Result<Self> {
        let surveyed = ask(system, node, locks).await?;
        Ok(Self {
            nodes: vec![surveyed],
            silent: Vec::new(),
        })
    }

    /// Says on standard error which nodes are missing.
    pub(crate) fn warn(&self) {
        warn(&self.silent);
    }

    /// The name of a process: a node's, or its id.
    pub(crate) fn process(&self, node: u64) -> String {
        let mut nodes = self.nodes.iter();
        let found = nodes.find(|other| other.info.handle.id() == NodeId(node));
        found.map_or_else(
            || NodeId(node).to_string(),
            |other| other.info.description.name.clone(),
        )
    }

    /// The processes that called in an action at a node.
    pub(crate) fn clients(&self, node: &Surveyed, path: &ActionPath) -> Vec<String> {
        let root = own(path).first();
        let mut parts = node
            .parts
            .iter()
            .filter(|part| own(&part.path).first() == root);
        let callers = parts.next().map_or(&[][..], |part| &part.callers);
        callers
            .iter()
            .map(|caller| self.process(caller.node))
            .collect()
    }

    /// The names of all objects that locks are of, as far as they can be found quickly.
    pub(crate) async fn object_names(&self, system: &System) -> HashMap<Uid, String> {
        let locks = self.nodes.iter().flat_map(|node| &node.locks);
        let wanted: BTreeSet<Uid> = locks.map(|lock| lock.object).collect();
        names::of_objects(system, &wanted).await
    }

    /// All parts of all actions, by top-level action.
    pub(crate) fn by_action(&self) -> BTreeMap<Uid, Vec<(&Surveyed, &ActionDescription)>> {
        let mut actions: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for node in &self.nodes {
            for part in &node.parts {
                let root = own(&part.path).first().copied().unwrap_or(Uid::NIL);
                actions.entry(root).or_default().push((node, part));
            }
        }
        actions
    }
}

/// The entries of a path that commit together: root first.
pub(crate) fn own(path: &ActionPath) -> &[Uid] {
    let enclosing = usize::from(path.enclosing);
    path.actions.get(enclosing..).unwrap_or_default()
}

/// The entries of a path that wait for it, but do not commit with it.
pub(crate) fn enclosing(path: &ActionPath) -> Vec<String> {
    let enclosing = path.actions.iter().take(usize::from(path.enclosing));
    enclosing.map(ToString::to_string).collect()
}

/// The action itself; that it is a call, where it is one.
pub(crate) fn leaf_text(path: &ActionPath) -> String {
    match own(path).last() {
        Some(leaf) if is_call(*leaf) => format!("call {leaf}"),
        Some(leaf) => leaf.to_string(),
        None => "a call".to_owned(),
    }
}

/// How far an action is, in a word or two.
pub(crate) fn phase(phase: ActionPhase) -> &'static str {
    match phase {
        ActionPhase::Active => "active",
        ActionPhase::Aborting => "aborting",
        ActionPhase::Preparing => "preparing",
        ActionPhase::Prepared => "in doubt",
        ActionPhase::Installing => "installing",
        ActionPhase::Voting => "voting",
        ActionPhase::Deciding => "deciding",
        ActionPhase::Committing => "committed",
    }
}

/// A lock's mode, as it is spoken of.
pub(crate) fn mode(mode: LockMode) -> &'static str {
    match mode {
        LockMode::Read => "read",
        LockMode::Upgrade => "upgrade",
        LockMode::Write => "write",
    }
}

/// A time for people: `120ms`, `3s`, `2m 5s`.
pub(crate) fn span(time: Duration) -> String {
    let time = match time {
        short if short < Duration::from_secs(1) => Duration::from_millis(short.as_millis() as u64),
        long => Duration::from_secs(long.as_secs()),
    };
    humantime::format_duration(time).to_string()
}

/// A time for programs, in seconds, if exact; else for people.
pub(crate) fn time(time: Duration, exact: bool) -> Value {
    match exact {
        true => json!(time.as_secs_f64()),
        false => json!(span(time)),
    }
}

/// Whether this is the name that a call outside of actions has, where it is taken for one.
pub(crate) fn is_call(action: Uid) -> bool {
    action.counter() >> (Uid::COUNTER_BITS - 1) == 1
}

/// All nodes that can be reached, and those that cannot.
pub(crate) async fn reach_all(system: &System) -> anyhow::Result<(Vec<NodeInfo>, Vec<Silent>)> {
    let (mut reached, mut silent) = (Vec::new(), Vec::new());
    // The naming service needs no binder; it has actions of its own.
    let naming = system.naming_node().await;
    let nodes = system.client.locator().nodes(&system.client).await;
    let nodes = nodes.context("the binder cannot tell which nodes there are")?;
    let known = naming.as_ref().ok().map(|node| node.handle.id());
    let others = nodes
        .iter()
        .filter(|node| Some(NodeId(node.node)) != known && !node.name.ends_with(REPLACED));
    let asked = others.map(|node| async move { (node, reach(system, node).await) });
    for (node, found) in join_all(asked).await {
        match found {
            Ok(info) => reached.push(info),
            Err(error) => silent.push(Silent {
                name: node.name.clone(),
                error,
            }),
        }
    }
    match naming {
        Ok(info) => reached.push(info),
        Err(error) => silent.push(Silent {
            name: "naming".to_owned(),
            error,
        }),
    }
    reached.sort_by(|a, b| a.description.name.cmp(&b.description.name));
    Ok((reached, silent))
}

/// Says on standard error which nodes are missing.
pub(crate) fn warn(silent: &[Silent]) {
    for Silent { name, error } in silent {
        eprintln!("warning: node '{name}' is not in this: {error:#}");
    }
}

async fn reach(system: &System, node: &NodeEntry) -> anyhow::Result<NodeInfo> {
    in_time(system.reach(node)).await
}

async fn ask(system: &System, info: NodeInfo, locks: Locks) -> anyhow::Result<Surveyed> {
    let asked = async {
        Ok(Surveyed {
            parts: parts(system, &info).await?,
            locks: locks_of(system, &info, locks).await?,
            info,
        })
    };
    in_time(asked).await
}

/// An answer, or that it took too long.
pub(crate) async fn in_time<T>(
    asked: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let answered = tokio::time::timeout(PATIENCE, asked).await;
    answered.with_context(|| format!("no answer within {PATIENCE:?}"))?
}

/// The parts of actions at a node.
pub(crate) async fn parts(
    system: &System,
    info: &NodeInfo,
) -> anyhow::Result<Vec<ActionDescription>> {
    let manager = info.handle.manager();
    let (mut parts, mut after) = (Vec::new(), Uid::NIL);
    loop {
        let page = manager.actions(&system.client, after, PAGE).await?;
        let Some(last) = page.last().and_then(|part| own(&part.path).first()) else {
            return Ok(parts);
        };
        after = *last;
        parts.extend(page);
    }
}

/// The locks of a node.
pub(crate) async fn locks_of(
    system: &System,
    info: &NodeInfo,
    wanted: Locks,
) -> anyhow::Result<Vec<LockDescription>> {
    let manager = info.handle.manager();
    let contended = wanted == Locks::Contended;
    let (mut locks, mut after) = (Vec::new(), Uid::NIL);
    loop {
        let page = manager
            .locks(&system.client, after, PAGE, contended)
            .await?;
        let Some(last) = page.last() else {
            return Ok(locks);
        };
        after = last.object;
        locks.extend(page);
    }
}
