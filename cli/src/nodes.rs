//! The commands about nodes: `nodes`, `stats`.

use std::time::SystemTime;

use anyhow::bail;
use partha::NodeId;
use partha::services::binder::NodeEntry;
use serde_json::{Value, json};

use crate::arguments::{Nodes, Stats};
use crate::cluster::{self, NodeInfo, System};
use crate::output::{Output, Rows};
use crate::suggest;

/// `partha nodes`
pub(crate) async fn nodes(arguments: &Nodes, out: &mut Output) -> anyhow::Result<()> {
    let system = System::connect(&arguments.cluster).await?;
    let nodes = system.client.locator().nodes(&system.client).await?;
    let mut header = vec![
        "NODE", "STATE", "CORDONED", "HEARD", "ADDRESS", "SHARDS", "LABELS", "ID",
    ];
    if out.is_wide() || out.is_json() {
        header.extend(["LIFE", "CLASSES"]);
    }
    let mut rows = Rows::new(&header);
    let mut page = Vec::new();
    for node in &nodes {
        let mut row = vec![
            json!(node.name),
            json!(if node.alive { "alive" } else { "silent" }),
            cordoned(node, out.is_json()),
            heard(node, out.is_json()),
            json!(node.addresses),
            json!(node.shards),
            labels(node, out.is_json()),
            json!(NodeId(node.node).to_string()),
        ];
        if header.len() > row.len() {
            row.push(json!(node.incarnation));
            row.push(classes(&system, node).await);
        }
        page.push(row);
    }
    rows.page(out, &page)?;
    rows.end(out)?;
    Ok(())
}

/// `partha stats`
pub(crate) async fn stats(arguments: &Stats, out: &mut Output) -> anyhow::Result<()> {
    let system = System::connect(&arguments.cluster).await?;
    let node = named(&system, &arguments.node).await?;
    let manager = node.handle.manager();
    let stats = manager.statistics(&system.client).await?;
    let description = &node.description;
    out.facts(&[
        ("node", json!(description.name)),
        ("id", json!(node.handle.id().to_string())),
        ("address", json!(node.address)),
        ("life", json!(description.incarnation)),
        ("version", json!(description.version)),
        ("shards", json!(description.shards)),
        ("active_objects", json!(stats.active_objects)),
        ("active_objects_max", json!(stats.active_objects_max)),
        ("active_bytes", json!(stats.active_bytes)),
        ("active_bytes_max", json!(stats.active_bytes_max)),
        ("activations", json!(stats.activations)),
        ("passivations", json!(stats.passivations)),
        ("evictions", json!(stats.evictions)),
        ("calls", json!(stats.calls)),
        ("duplicates", json!(stats.duplicates)),
        ("connections", json!(stats.connections)),
        ("store_batches", json!(stats.store_batches)),
        ("store_syncs", json!(stats.store_syncs)),
        ("store_used_bytes", json!(stats.store_used_bytes)),
        ("actions_active", json!(stats.actions_active)),
        ("actions_in_doubt", json!(stats.actions_in_doubt)),
        ("actions_committed", json!(stats.actions_committed)),
        ("actions_aborted", json!(stats.actions_aborted)),
        ("deadlocks_broken", json!(stats.deadlocks_broken)),
        ("sessions", json!(stats.sessions)),
        ("sessions_lost", json!(stats.sessions_lost)),
        ("sessions_expired", json!(stats.sessions_expired)),
        ("sessions_replaced", json!(stats.sessions_replaced)),
        ("sessions_broken", json!(stats.sessions_broken)),
        ("orphans_killed", json!(stats.orphans_killed)),
        ("store_failures", json!(stats.store_failures)),
        ("up_seconds", json!(stats.up.as_secs())),
        (
            "store_syncs_by_batches",
            by_size(&stats.store_syncs_by_batches, out.is_json()),
        ),
        (
            "store_sync_seconds",
            json!(stats.store_sync_time.as_secs_f64()),
        ),
        ("action_messages", json!(stats.action_messages)),
        ("store_log_bytes", json!(stats.store_log_bytes)),
        ("store_checkpoints", json!(stats.store_checkpoints)),
        ("objects_moved_in", json!(stats.objects_moved_in)),
        ("objects_moved_out", json!(stats.objects_moved_out)),
        ("moves_failed", json!(stats.moves_failed)),
        ("entries_told", json!(stats.entries_told)),
    ])?;
    Ok(())
}

/// Syncs by the number of batches that shared them, for people without those that there are none
/// of.
fn by_size(counts: &[u64], exactly: bool) -> Value {
    if exactly {
        return json!(counts);
    }
    let largest = counts.len().saturating_sub(1);
    let sizes = (0_usize..).zip(counts).filter(|(_, count)| **count > 0);
    let text = sizes.map(|(log, count)| match log {
        0 => format!("1: {count}"),
        log if log == largest => format!("{} or more: {count}", 1_u64 << log),
        _ => format!("{}-{}: {count}", 1_u64 << log, (2_u64 << log) - 1),
    });
    json!(text.collect::<Vec<_>>().join(", "))
}

/// A node by its name, its id, or an address.
pub(crate) async fn named(system: &System, wanted: &str) -> anyhow::Result<NodeInfo> {
    if wanted.contains(':') {
        return system.node_at(wanted).await;
    }
    system.reach(&entry(system, wanted).await?).await
}

/// What the binder knows of a node, by its name or its id.
pub(crate) async fn entry(system: &System, wanted: &str) -> anyhow::Result<NodeEntry> {
    let nodes = system.client.locator().nodes(&system.client).await?;
    find(&nodes, wanted).cloned()
}

/// One of the nodes, by its name or its id.
pub(crate) fn find<'n>(nodes: &'n [NodeEntry], wanted: &str) -> anyhow::Result<&'n NodeEntry> {
    let mut fitting = nodes
        .iter()
        .filter(|node| node.name == wanted || NodeId(node.node).to_string() == wanted);
    // Of two lives of one name, the living one is meant.
    let alive = fitting.clone().find(|node| node.alive);
    if let Some(node) = alive.or_else(|| fitting.next()) {
        return Ok(node);
    }
    let hint = suggest::hint(wanted, nodes.iter().map(|node| node.name.as_str()));
    bail!("no node '{wanted}' has registered with the binder; `partha nodes` lists them{hint}")
}

fn heard(node: &NodeEntry, exactly: bool) -> Value {
    if exactly {
        let heard: SystemTime = node.last_heard.into();
        return json!(humantime::format_rfc3339_micros(heard).to_string());
    }
    json!(cluster::heard(node))
}

/// Whether an operator wants no more objects to come to it.
fn cordoned(node: &NodeEntry, exactly: bool) -> Value {
    match (exactly, node.cordoned) {
        (true, on) => json!(on),
        (false, true) => json!("yes"),
        (false, false) => Value::Null,
    }
}

/// Its labels: an object for scripts, a text for people.
fn labels(node: &NodeEntry, exactly: bool) -> Value {
    if exactly {
        let members = node.labels.iter();
        let members = members.map(|label| (label.name.clone(), json!(label.value)));
        return Value::Object(members.collect());
    }
    json!(
        node.labels
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    )
}

/// The names of a node's classes; their numbers if it does not answer.
async fn classes(system: &System, node: &NodeEntry) -> Value {
    let numbers = || {
        node.classes
            .iter()
            .map(|class| partha::ClassId(*class).to_string())
    };
    match system.reach(node).await {
        Ok(info) => {
            let names = info.description.classes.iter();
            names.map(|class| class.name.clone()).collect()
        }
        Err(_) => numbers().collect(),
    }
}
