//! The command `groups`, and what `describe` says of an object that is one.
//!
//! What is told is the binder's word: which copies have the latest state, and which of them leads.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use clap::Args;
use partha::services::binder::{GroupView, NodeEntry};
use partha::{NodeId, Uid};
use serde_json::{Value, json};

use crate::arguments::Cluster;
use crate::cluster::System;
use crate::names;
use crate::output::{Output, Rows};
use crate::sessions::Shape;

/// List the objects that have copies, and the nodes that have them
///
/// The first of the members leads. Those that the binder has not heard of for a lease are told
/// apart, and so is how many copies there are to be.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    cluster: Cluster,
    #[command(flatten)]
    pub(crate) shape: Shape,
}

/// How long to ask for the view of one object.
const PATIENCE: Duration = Duration::from_secs(2);

/// The nodes of a system, by identity.
struct Nodes(HashMap<u64, NodeEntry>);

/// `partha groups`
pub(crate) async fn run(arguments: &Arguments, out: &mut Output) -> anyhow::Result<()> {
    let system = System::connect(&arguments.cluster).await?;
    let nodes = Nodes::of(&system).await?;
    let header = [
        "NAME", "POLICY", "WANTED", "VIEW", "MEMBERS", "SILENT", "UID",
    ];
    let (mut rows, mut after) = (Rows::new(&header), Uid::NIL);
    loop {
        let locator = system.client.locator();
        let (groups, last) = locator.groups(&system.client, after).await?;
        let objects: BTreeSet<_> = groups.iter().map(|group| group.object).collect();
        let named = match objects.is_empty() {
            true => HashMap::new(),
            false => names::of_objects(&system, &objects).await,
        };
        let page = groups.iter().map(|group| {
            let name = named.get(&group.object);
            let mut row = vec![json!(name)];
            row.extend(nodes.facts(group).into_iter().map(|(_, value)| value));
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
            Some(group) => Ok(Nodes::of(system).await?.facts(group)),
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

    fn facts(&self, group: &GroupView) -> Vec<(&'static str, Value)> {
        let members = group.members.iter();
        let silent = members.clone().filter(|node| self.is_silent(**node));
        let silent: Value = silent.map(|node| self.name(*node)).collect();
        vec![
            ("policy", json!(group.policy.to_string())),
            ("wanted", json!(group.wanted)),
            ("view", json!(group.number)),
            ("members", members.map(|node| self.name(*node)).collect()),
            ("silent", silent),
        ]
    }
}
