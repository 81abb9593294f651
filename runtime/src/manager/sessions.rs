//! What a node says of its sessions, put together from its table and what its shards say, and what
//! an operator may do to them.
//!
//! The table is looked at first, the shards one after the other: what is said of one process is of
//! several moments.

use partha_core::id::{Incarnation, NodeId, Peer, Uid};

use super::{Manager, stopping};
use crate::error::Result;
use crate::node::{LinkView, SessionView};
use crate::shard::{Eviction, Share};
use crate::system::connection_manager::{BindingsError, EndSessionError, EvictError};
use crate::system::{
    BindingDescription, NoSuchObject, NoSuchSession, NotEvictable, SessionConnection,
    SessionDescription,
};

/// Sessions or bindings listed at a time, at most.
const PAGE_MAX: u32 = 1000;

impl Manager {
    /// A page of sessions.
    pub(super) async fn sessions_after(
        &self,
        after: u64,
        limit: u32,
    ) -> Result<Vec<SessionDescription>> {
        let limit = limit.min(PAGE_MAX) as usize;
        let views = self.home.sessions_after(NodeId(after), limit);
        let peers: Vec<Peer> = views.iter().map(|view| view.peer).collect();
        let mut sums = vec![Share::default(); peers.len()];
        for shard in &self.home.shards {
            let peers = peers.clone();
            let shares = shard.look(move |shard| shard.shares(&peers));
            let shares = shares.await.ok_or_else(stopping)?;
            for (sum, share) in sums.iter_mut().zip(shares) {
                sum.bindings += share.bindings;
                sum.calls += share.calls;
                sum.actions_begun += share.actions_begun;
                sum.actions_joined += share.actions_joined;
            }
        }
        let described = views.into_iter().zip(sums);
        Ok(described
            .map(|(view, share)| description(view, share))
            .collect())
    }

    /// A page of what a process is bound to.
    pub(super) async fn bindings_after(
        &self,
        process: u64,
        incarnation: u32,
        after: Uid,
        limit: u32,
    ) -> Result<Vec<BindingDescription>, BindingsError> {
        let peer = self.home.session_of(NodeId(process));
        let fits = |peer: &Peer| incarnation == 0 || peer.incarnation.0 == incarnation;
        let Some(peer) = peer.filter(fits) else {
            return Err(self.no_session(process, incarnation).into());
        };
        let limit = limit.min(PAGE_MAX) as usize;
        let mut bindings = Vec::new();
        for shard in &self.home.shards {
            let found = shard.look(move |shard| shard.bindings_after(peer, after, limit));
            bindings.extend(found.await.ok_or_else(stopping)??);
        }
        bindings.sort_by_key(|binding| binding.object);
        bindings.truncate(limit);
        Ok(bindings)
    }

    /// Ends a session as an operator wishes.
    pub(super) fn end_session_of(
        &self,
        process: u64,
        incarnation: u32,
    ) -> Result<u32, EndSessionError> {
        let home = &self.home;
        let cut = home.break_session(NodeId(process), Incarnation(incarnation));
        let Some(cut) = cut else {
            return Err(self.no_session(process, incarnation).into());
        };
        let process = NodeId(process);
        tracing::info!(%process, connections = cut, "an operator ended a session");
        Ok(u32::try_from(cut).unwrap_or(u32::MAX))
    }

    /// Takes an object out of memory, unless something uses it.
    pub(super) async fn evict_object(&self, object: Uid) -> Result<bool, EvictError> {
        let shard = self.home.shard(object);
        let evicted = shard.look(move |shard| {
            let found = shard.class_of(object)?;
            Ok::<_, crate::SystemError>(found.map(|_| shard.evict(object)))
        });
        match evicted.await.ok_or_else(stopping)?? {
            Some(Eviction::Done) => Ok(true),
            Some(Eviction::Passive) => Ok(false),
            Some(Eviction::Used(reason)) => Err(NotEvictable { object, reason }.into()),
            None => {
                let node = self.home.me.node.0;
                Err(NoSuchObject { object, node }.into())
            }
        }
    }

    fn no_session(&self, process: u64, incarnation: u32) -> NoSuchSession {
        NoSuchSession {
            process,
            incarnation,
            node: self.home.me.node.0,
        }
    }
}

fn description(view: SessionView, share: Share) -> SessionDescription {
    let lease_left = view.lease_left();
    SessionDescription {
        process: view.peer.node.0,
        incarnation: view.peer.incarnation.0,
        name: view.name,
        software: view.software,
        foreign: view.foreign,
        age: view.age,
        lease_left,
        lease: view.lease.map(|lease| lease.silent_max),
        heartbeat: view.lease.map(|lease| lease.heartbeat),
        connections: view.links.into_iter().map(connection).collect(),
        bindings: share.bindings,
        calls: share.calls,
        actions_begun: share.actions_begun,
        actions_joined: share.actions_joined,
    }
}

fn connection(view: LinkView) -> SessionConnection {
    SessionConnection {
        shard: view.shard,
        address: view.address,
        age: view.age,
        silent: view.silent,
    }
}
