//! What several commands say of servants that run elsewhere than on their shards' threads, or keep
//! such a thread from the others.

use std::time::Duration;

use partha::Client;
use partha::system::{BusyServant, Elsewhere};

use crate::cluster::NodeInfo;
use crate::survey::span;

/// How long a node that has just kept us waiting may take to tell why.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a node says of them.
pub(crate) async fn of_node(client: &Client, node: &NodeInfo) -> anyhow::Result<Elsewhere> {
    Ok(node.handle.manager().elsewhere(client).await?)
}

/// Why a node has not answered a question to all its shards, if a servant keeps one of them and
/// another can tell.
pub(crate) async fn explain(
    client: &Client,
    node: &NodeInfo,
    error: anyhow::Error,
) -> anyhow::Error {
    let told = tokio::time::timeout(PATIENCE, of_node(client, node)).await;
    let stuck = match &told {
        Ok(Ok(told)) => told.stuck.first(),
        // Nothing can be added to what is known.
        Ok(Err(_)) | Err(_) => None,
    };
    match stuck {
        Some(stuck) => {
            let (object, name) = (stuck.object.to_string(), &node.description.name);
            let text = keeps(stuck, &object, name);
            error.context(format!("{text}; `partha doctor` says what to do"))
        }
        None => error,
    }
}

/// A servant that keeps its shard's thread, in words.
pub(crate) fn keeps(stuck: &BusyServant, object: &str, node: &str) -> String {
    format!(
        "{}.{} of {object} has kept the thread of shard {} of node '{node}' for {}",
        stuck.class,
        stuck.method,
        stuck.shard,
        span(stuck.busy)
    )
}
