//! The command `groups`, and what `describe` says of an object that is one.
//!
//! Which copies have the latest state, and which of them leads, is the binder's word. How far each
//! copy is, its node tells.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use clap::Args;
use futures_util::future::join_all;
use partha::services::binder::{GroupPolicy, GroupView, NodeEntry};
use partha::system::CopyDescription;
use partha::{NodeId, Uid};
use serde_json::{Value, json};

use crate::arguments::Cluster;
use crate::cluster::System;
use crate::names;
use crate::output::{Output, Rows};
use crate::sessions::Shape;

/// List the objects that have copies, and the nodes that have them
///
/// The first of the members leads. LAG says how many changes the state of each lacks that is a part
/// of the leader's, in the same order: changes are on all disks before they are answered, so what
/// lags is not lost with the leader. Members that the binder has not heard of for a lease are told
/// apart, and so is how many copies there are to be. `-o wide` shows where.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    cluster: Cluster,
    #[command(flatten)]
    pub(crate) shape: Shape,
}

/// How long to ask for the view of one object.
const PATIENCE: Duration = Duration::from_secs(2);

/// What copies say of themselves, by object and node.
type Known = HashMap<(Uid, u64), CopyDescription>;

/// The nodes of a system, by identity.
struct Nodes(HashMap<u64, NodeEntry>);

/// `partha groups`
pub(crate) async fn run(arguments: &Arguments, out: &mut Output) -> anyhow::Result<()> {
    let system = System::connect(&arguments.cluster).await?;
    let nodes = Nodes::of(&system).await?;
    let mut header = vec![
        "NAME", "POLICY", "WANTED", "VIEW", "MEMBERS", "LAG", "SILENT",
    ];
    if out.is_wide() || out.is_json() {
        header.push("PLACEMENT");
    }
    header.push("UID");
    let (mut rows, mut after) = (Rows::new(&header), Uid::NIL);
    loop {
        let locator = system.client.locator();
        let (groups, last) = locator.groups(&system.client, after).await?;
        let objects: BTreeSet<_> = groups.iter().map(|group| group.object).collect();
        let named = match objects.is_empty() {
            true => HashMap::new(),
            false => names::of_objects(&system, &objects).await,
        };
        let copies = nodes.copies(&system, &groups).await;
        let short = !(out.is_wide() || out.is_json());
        let page = groups.iter().map(|group| {
            let name = named.get(&group.object);
            let mut row = vec![json!(name)];
            let facts = nodes.facts(group, &copies, false).into_iter();
            let facts = facts.filter(|(name, _)| !short || *name != "placement");
            row.extend(facts.map(|(_, value)| value));
            row.push(json!(group.object.to_string()));
            row
        });
        rows.page(out, &page.collect::<Vec<_>>())?;
        match groups.last() {
            Some(group) if !last => after = group.object,
            Some(_) | None => break,
        }
    }
    rows.end(out)?;
    Ok(())
}

/// What is to be said of an object that is a group; nothing of any other.
pub(crate) async fn facts(system: &System, object: Uid) -> Vec<(&'static str, Value)> {
    let asked = async {
        let locator = system.client.locator();
        let views = locator.views(&system.client, &[object], PATIENCE).await?;
        match views.first() {
            Some(group) => {
                let nodes = Nodes::of(system).await?;
                let copies = nodes.copies(system, &views).await;
                Ok(nodes.facts(group, &copies, true))
            }
            None => anyhow::Ok(Vec::new()),
        }
    };
    // Its node has told of the object all the same, so the rest is shown.
    let unknown = |error| vec![("view_unknown", json!(format!("{error:#}")))];
    asked.await.unwrap_or_else(unknown)
}

impl Nodes {
    async fn of(system: &System) -> anyhow::Result<Self> {
        let nodes = system.client.locator().nodes(&system.client).await?;
        Ok(Self(nodes.into_iter().map(|it| (it.node, it)).collect()))
    }

    /// The name of a node; its identity if it has never registered.
    fn name(&self, node: u64) -> Value {
        match self.0.get(&node) {
            Some(entry) => json!(entry.name),
            None => json!(NodeId(node).to_string()),
        }
    }

    fn is_silent(&self, node: u64) -> bool {
        !self.0.get(&node).is_some_and(|entry| entry.alive)
    }

    /// What the living members of these groups say of their copies; those that do not answer in
    /// time are missing.
    async fn copies(&self, system: &System, groups: &[GroupView]) -> Known {
        let mut asked: BTreeMap<u64, Vec<Uid>> = BTreeMap::new();
        for group in groups {
            for member in group.members.iter().filter(|it| !self.is_silent(**it)) {
                asked.entry(*member).or_default().push(group.object);
            }
        }
        let asking = asked.into_iter().map(async |(member, objects)| {
            let node = self.0.get(&member)?;
            let told = async {
                let info = system.reach(node).await?;
                let manager = info.handle.manager();
                anyhow::Ok(manager.copies(&system.client, &objects).await?)
            };
            let told = tokio::time::timeout(PATIENCE, told).await;
            Some((member, told.ok()?.ok()?))
        });
        let told = join_all(asking).await.into_iter().flatten();
        let copies = told.flat_map(|(member, copies)| {
            let copies = copies.into_iter();
            copies.map(move |copy| ((copy.object, member), copy))
        });
        copies.collect()
    }

    /// In full: also what there is of few groups alone.
    fn facts(
        &self,
        group: &GroupView,
        copies: &Known,
        in_full: bool,
    ) -> Vec<(&'static str, Value)> {
        let members = group.members.iter();
        let copy = |node: &u64| copies.get(&(group.object, *node));
        let installed = |node: &u64| copy(node).map(|copy| copy.installed);
        let leader = group.members.first().and_then(installed);
        // The leader is asked no sooner than others, which may be ahead of what it said.
        let lag = members.clone().map(|node| match (leader, installed(node)) {
            (Some(leader), Some(installed)) => json!(leader.saturating_sub(installed)),
            (None, _) | (_, None) => Value::Null,
        });
        let silent = members.clone().filter(|node| self.is_silent(**node));
        let silent: Value = silent.map(|node| self.name(*node)).collect();
        let mut facts = vec![
            ("policy", json!(group.policy.to_string())),
            ("wanted", json!(group.wanted)),
            ("view", json!(group.number)),
            (
                "members",
                members.clone().map(|node| self.name(*node)).collect(),
            ),
            ("lag", lag.collect()),
            ("silent", silent),
            ("placement", json!(group.placement.to_string())),
        ];
        if in_full && group.policy == GroupPolicy::Active {
            let each = |fact: fn(&CopyDescription) -> u64| -> Value {
                let members = members.clone();
                members.map(|node| json!(copy(node).map(fact))).collect()
            };
            facts.push(("executed", each(|copy| copy.executed)));
            facts.push(("differences", each(|copy| copy.differences)));
        }
        facts
    }
}
