//! Who is in a cluster: nodes and clients, each with the identity that it keeps over restarts.

use std::path::PathBuf;
use std::sync::Arc;

use partha_core::id::{Incarnation, NodeId, Peer};

use super::faults::Faults;
use super::pause::Pause;
use super::plan::Plan;
use crate::client::{Client, random_node};
use crate::error::{ErrorKind, Result, SystemError};
use crate::net::links::Links;
use crate::node::Node;
use crate::services::Naming;
use crate::services::binder::NodeEntry;

/// A node and its folder.
#[derive(Debug)]
pub(super) struct NodeMember {
    pub(super) dir: PathBuf,
    /// Its latest life.
    pub(super) me: Peer,
    /// None if it is dead.
    pub(super) node: Option<Node>,
    pub(super) pause: Option<Pause>,
}

/// A client.
#[derive(Debug)]
pub(super) struct ClientMember {
    /// Its latest life.
    pub(super) client: Client,
    pub(super) alive: bool,
}

impl NodeMember {
    pub(super) async fn start(
        plan: &Plan,
        faults: &Arc<Faults>,
        name: &str,
        dir: PathBuf,
    ) -> Result<Self> {
        let builder = plan.builder(name).data_dir(&dir);
        let builder = builder.tested(faults.clone(), plan.naming.is_some());
        let node = builder.start().await?;
        let is_meant = plan
            .naming
            .as_ref()
            .is_some_and(|(naming, _)| naming == name);
        if is_meant && node.naming_entry().is_none() {
            let detail = format!("node '{name}' was not made the naming service");
            return Err(SystemError::new(ErrorKind::BadOperation, detail));
        }
        let me = node.me();
        if let Some(address) = node.listens_at() {
            faults.listens(address.to_string(), me.node);
        }
        Ok(Self {
            dir,
            me,
            node: Some(node),
            pause: None,
        })
    }

    /// What others are told of it.
    pub(super) fn entries(&self) -> impl Iterator<Item = NodeEntry> {
        let node = self.node.as_ref();
        let own = node.map(Node::entry);
        own.into_iter().chain(node.and_then(Node::naming_entry))
    }

    /// Lets its threads go on.
    pub(super) fn go_on(&mut self) {
        if let Some(pause) = self.pause.take() {
            pause.end();
        }
    }
}

impl ClientMember {
    pub(super) fn new(plan: &Plan, faults: &Arc<Faults>, name: &str) -> Result<Self> {
        let me = Peer {
            node: random_node()?,
            incarnation: Incarnation(1),
        };
        Ok(Self::living(plan, faults, name, me))
    }

    /// Its next life.
    pub(super) fn again(&self, plan: &Plan, faults: &Arc<Faults>, name: &str) -> Self {
        let Peer { node, incarnation } = self.client.me();
        let incarnation = Incarnation(incarnation.0 + 1);
        Self::living(plan, faults, name, Peer { node, incarnation })
    }

    pub(super) fn id(&self) -> NodeId {
        self.client.me().node
    }

    fn living(plan: &Plan, faults: &Arc<Faults>, name: &str, me: Peer) -> Self {
        let links = Links {
            lease: plan.lease,
            faults: Some(faults.clone()),
            ..Links::default()
        };
        let naming = plan.naming.as_ref().map(|_| Naming::new(None));
        Self {
            client: Client::of_process(me, name, naming, links, 0, None),
            alive: true,
        }
    }
}
