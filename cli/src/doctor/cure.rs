//! What the doctor may do: end a session, abort an action, take an object out of memory.
//!
//! Each asks first, unless told not to, and says what it did.

use anyhow::bail;
use partha::ClassId;
use partha::system::connection_manager::{EndSessionError, EvictError};
use serde_json::json;

use super::{Abort, Break, Evict};
use crate::actions;
use crate::cluster::{NodeInfo, System};
use crate::confirm::confirm;
use crate::nodes;
use crate::output::Output;
use crate::owner::Owned;
use crate::sessions;
use crate::survey;

/// `partha doctor break`
pub(super) async fn break_session(cure: &Break, out: &mut Output) -> anyhow::Result<()> {
    let system = System::connect(&cure.given.cluster).await?;
    let nodes = match &cure.node {
        Some(node) => vec![nodes::named(&system, node).await?],
        None => {
            let (reached, silent) = survey::reach_all(&system).await?;
            survey::warn(&silent);
            reached
        }
    };
    let wanted = cure.session;
    let mut found: Vec<(&NodeInfo, u32)> = Vec::new();
    let mut names = Vec::new();
    for node in &nodes {
        let sessions = survey::in_time(sessions::of_node(&system.client, &node.handle)).await?;
        if let Some(session) = sessions.iter().find(|session| wanted.is(session)) {
            found.push((node, session.incarnation));
            names.push(node.description.name.as_str());
        }
    }
    if found.is_empty() {
        bail!("{wanted} has no session there; `partha sessions` lists them");
    }
    let what = format!("end session {wanted} at {}", names.join(", "));
    confirm(&what, cure.given.yes)?;
    let (mut cut, mut ended) = (0, Vec::new());
    for (node, life) in found {
        let manager = node.handle.manager();
        let process = wanted.process.0;
        match manager.end_session(&system.client, process, life).await {
            Ok(connections) => {
                cut += connections;
                ended.push(node.description.name.clone());
            }
            // It has gone by itself in the meantime.
            Err(EndSessionError::NoSuchSession(_)) => {}
            Err(EndSessionError::System(error)) => return Err(error.into()),
        }
    }
    out.facts(&[
        ("ended", json!(wanted.to_string())),
        ("nodes", json!(ended)),
        ("connections_cut", json!(cut)),
    ])?;
    Ok(())
}

/// `partha doctor abort`
pub(super) async fn abort(cure: &Abort, out: &mut Output) -> anyhow::Result<()> {
    let action = cure.action.uid();
    let system = System::connect(&cure.given.cluster).await?;
    confirm(&format!("abort action {action}"), cure.given.yes)?;
    let nodes = actions::abort_everywhere(&system, action).await?;
    out.facts(&[
        ("aborted", json!(action.to_string())),
        ("nodes", json!(nodes)),
    ])?;
    Ok(())
}

/// `partha doctor evict`
pub(super) async fn evict(cure: &Evict, out: &mut Output) -> anyhow::Result<()> {
    let system = System::connect(&cure.given.cluster).await?;
    let uid = system.find(&cure.object).await?.uid;
    let Owned { node, found, .. } = system.owner(uid).await?;
    let name = &node.description.name;
    let class = node.class_name(ClassId(found.class));
    let what = format!("take {} ({class}) out of the memory of {name}", cure.object);
    confirm(&what, cure.given.yes)?;
    let manager = node.handle.manager();
    let was_active = match manager.evict(&system.client, uid).await {
        Ok(was_active) => was_active,
        Err(EvictError::NotEvictable(error)) => {
            bail!("{} stays in memory: {}", cure.object, error.reason)
        }
        Err(EvictError::NoSuchObject(_)) => {
            bail!("node '{name}' does not have object {uid} any more")
        }
        Err(EvictError::System(error)) => return Err(error.into()),
    };
    out.facts(&[
        ("object", json!(cure.object)),
        ("uid", json!(uid.to_string())),
        ("node", json!(name)),
        ("evicted", json!(was_active)),
    ])?;
    Ok(())
}
