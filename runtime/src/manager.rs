//! The connection manager of a node: the servant of `ConnectionManager` in `partha.idl`, and the
//! handle by which others ask it.

mod actions;
mod copies;
mod elsewhere;
mod groups;
mod making;
mod moving;
mod sessions;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use partha_core::group::View;
use partha_core::id::{ClassId, NodeId, Uid};
use tokio::sync::oneshot;

use crate::abi::{ClassInfo, Struct, Transient};
use crate::capability::Capability;
use crate::context::Context;
use crate::error::{ErrorKind, Result, SystemError};
use crate::hash::shard_of;
use crate::moved::Moved;
use crate::net::connection::Connection;
use crate::node::Home;
use crate::replication::Replication;
use crate::services::binder::{GroupPlacement, GroupPolicy};
use crate::shard::{Job, ShardReport};
use crate::system::connection_manager::{
    self, AbortActionError, AcceptsError, BindingsError, CopyHashError, CreateError,
    DescribeClassError, EndSessionError, EvictError, GiveUpCopyError, InitiateError, InspectError,
    JoinGroupError, METHODS, MoveObjectError, ReplicateError, Servant, StageError,
};
use crate::system::{
    ActionDescription, ActionOutcome, BadArguments, BindingDescription, Bound, Cid,
    ClassDescription, ConnectionManager, CopyDescription, CopyHash, Elsewhere, LockDescription,
    MovedPart, MovedPlace, MovingPage, NoSuchClass, NoSuchObject, NodeDescription, NodeStatistics,
    Object, ObjectDescription, ServerProcess, SessionDescription, StoredObject, WrongClass,
};
use crate::wire::context::CallContext;
use crate::wire::frame::{self, Target};

/// Objects listed at a time, at most.
const OBJECTS_MAX: u32 = 1000;

/// A node, for questions about it.
#[derive(Clone, Debug)]
pub struct NodeHandle {
    manager: ConnectionManager,
    node: NodeId,
    /// None to the node of this very process.
    connection: Option<Arc<Connection>>,
}

impl NodeHandle {
    pub(crate) fn new(connection: Arc<Connection>) -> Self {
        let node = connection.peer().node;
        let manager = Capability::manager(connection.clone());
        let manager = ConnectionManager::from_capability(manager);
        let connection = Some(connection);
        Self {
            manager,
            node,
            connection,
        }
    }

    /// The node of this very process.
    pub(crate) fn here(home: &Home) -> Self {
        let manager = ConnectionManager::from_capability(home.manager_capability());
        let node = home.me.node;
        Self {
            manager,
            node,
            connection: None,
        }
    }

    /// The node's connection manager.
    #[must_use]
    pub fn manager(&self) -> &ConnectionManager {
        &self.manager
    }

    /// The node's identity.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.node
    }

    /// How many shards the node has; 1 if it is this very process, where all are asked alike.
    #[must_use]
    pub fn shards(&self) -> u16 {
        let connection = self.connection.as_ref();
        connection.map_or(1, |connection| connection.hello().shards)
    }

    /// Ends when the connection to it does; never for the node of this very process.
    pub(crate) async fn gone(&self) {
        match &self.connection {
            Some(connection) => drop(connection.breaks().await),
            None => std::future::pending().await,
        }
    }
}

/// Gives a binding back; nobody waits for it.
pub(crate) fn terminate(connection: &Connection, cid: &Cid) {
    let manager = Uid::connection_manager(connection.peer().node);
    let method = &METHODS[1];
    let (mut w, slot) = frame::invoke(Target::Object(manager), method.interface, method.ordinal);
    let parameters = w.structure(slot, 0, 2);
    CallContext::default().write(&mut w, parameters.slot(0));
    let at = w.structure(parameters.slot(1), Cid::DATA, Cid::POINTERS);
    cid.write(&mut w, at);
    // A connection that is closed has lost its bindings anyway.
    if let Ok(framed) = w.framed() {
        let _ = connection.send(framed, 0);
    }
}

/// The servant: one for all shards of a node.
pub(crate) struct Manager {
    home: Arc<Home>,
}

impl Manager {
    pub(crate) fn class(home: Arc<Home>) -> crate::abi::Class {
        connection_manager::class(Self { home })
    }

    async fn ask<T>(&self, object: Uid, job: impl FnOnce(oneshot::Sender<T>) -> Job) -> Result<T> {
        let (answer, receiver) = oneshot::channel();
        self.home.shard(object).post(job(answer));
        receiver.await.map_err(|_| stopping())
    }

    async fn reports(&self) -> Result<ShardReport> {
        let mut sum = ShardReport::default();
        for shard in &self.home.shards {
            let (answer, receiver) = oneshot::channel();
            shard.post(Job::Report { answer });
            let report = receiver.await.map_err(|_| stopping())?;
            sum.active_objects += report.active_objects;
            sum.active_bytes += report.active_bytes;
            sum.activations += report.activations;
            sum.passivations += report.passivations;
            sum.evictions += report.evictions;
            sum.calls += report.calls;
            sum.duplicates += report.duplicates;
            sum.actions += report.actions;
            sum.in_doubt += report.in_doubt;
            sum.committed += report.committed;
            sum.aborted += report.aborted;
            sum.deadlocks += report.deadlocks;
            sum.killed += report.killed;
            sum.messages += report.messages;
            sum.moved_in += report.moved_in;
            sum.moved_out += report.moved_out;
            sum.moves_failed += report.moves_failed;
            sum.told += report.told;
        }
        Ok(sum)
    }

    /// The node, with what is to be told of the reflection of each class.
    fn described(&self, reflection: fn(&'static ClassInfo) -> Bytes) -> NodeDescription {
        let registry = &self.home.registry;
        let classes = registry.classes.values().map(crate::abi::Class::info);
        let mut classes: Vec<_> = classes.collect();
        classes.sort_by_key(|info| info.name);
        let classes = classes.into_iter();
        NodeDescription {
            node: registry.me.node.0,
            incarnation: registry.me.incarnation.0,
            name: registry.name.clone(),
            shards: self.home.shards.len() as u16,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            classes: classes
                .map(|info| described(info, reflection(info)))
                .collect(),
        }
    }
}

fn described(info: &ClassInfo, reflection: Bytes) -> ClassDescription {
    ClassDescription {
        id: info.id.0,
        name: info.name.to_owned(),
        persistent: info.persistent,
        ancestors: info.ancestors.iter().map(|class| class.0).collect(),
        reflection,
    }
}

impl Servant for Manager {
    async fn initiate(
        &self,
        cx: &Context,
        object: Uid,
        class: u64,
    ) -> Result<Bound, InitiateError> {
        let caller = cx.caller();
        let class = ClassId(class);
        let found = self.ask(object, |answer| Job::Initiate {
            object,
            class,
            caller,
            answer,
        });
        let me = self.home.me;
        let initiated = match found.await? {
            Ok(initiated) => initiated,
            Err(error) if error.kind() == ErrorKind::NoSuchObject => {
                return Err(NoSuchObject {
                    object,
                    node: me.node.0,
                }
                .into());
            }
            Err(error) if error.kind() == ErrorKind::WrongClass => {
                let report = self
                    .ask(object, |answer| Job::Inspect { object, answer })
                    .await??;
                let found = report.map_or(0, |report| report.class.0);
                let found_name = self.home.registry.class_name(ClassId(found));
                return Err(WrongClass {
                    object,
                    wanted: class.0,
                    found,
                    found_name,
                }
                .into());
            }
            Err(error) => return Err(error.into()),
        };
        let cid = Cid {
            node: me.node.0,
            incarnation: me.incarnation.0,
            shard: initiated.shard,
            number: object.local,
        };
        let capability = cx.is_foreign().then(|| {
            let shard = self.home.shard(object).clone();
            Object::from_capability(Capability::object_here(shard, object, initiated.class))
        });
        Ok(Bound {
            cid,
            class: initiated.class.0,
            object: capability,
            copies: initiated.copies.iter().map(|node| node.0).collect(),
            cohort: initiated.cohort,
        })
    }

    async fn terminate(&self, cx: &Context, cid: Cid) -> Result<()> {
        let me = self.home.me;
        if cid.node == me.node.0 && cid.incarnation == me.incarnation.0 {
            let well_known = self.home.registry.well_known;
            let born_here = Uid {
                node: me.node,
                local: cid.number,
            };
            let object = well_known
                .filter(|object| object.local == cid.number)
                .unwrap_or(born_here);
            self.home.shard(object).post(Job::Terminate {
                object,
                caller: cx.caller(),
            });
        }
        Ok(())
    }

    async fn create(&self, cx: &Context, class: u64, arguments: Bytes) -> Result<Uid, CreateError> {
        let home = &self.home;
        if !home.registry.classes.contains_key(&ClassId(class)) || home.registry.store.is_none() {
            return Err(NoSuchClass {
                class,
                node: home.me.node.0,
            }
            .into());
        }
        let made = home.make(None, ClassId(class), &arguments, cx).await;
        made.map_err(|error| match error.kind() {
            ErrorKind::Malformed => BadArguments {
                reason: error.detail().to_owned(),
            }
            .into(),
            _ => error.into(),
        })
    }

    async fn describe(&self, _cx: &Context) -> Result<NodeDescription> {
        Ok(self.described(|info| Bytes::from_static(info.reflection)))
    }

    async fn outline(&self, _cx: &Context) -> Result<NodeDescription> {
        Ok(self.described(|_| Bytes::new()))
    }

    async fn describe_class(
        &self,
        _cx: &Context,
        class: u64,
    ) -> Result<ClassDescription, DescribeClassError> {
        let classes = &self.home.registry.classes;
        let node = self.home.me.node.0;
        let known = classes.get(&ClassId(class));
        let info = known.ok_or(NoSuchClass { class, node })?.info();
        Ok(described(info, Bytes::from_static(info.reflection)))
    }

    async fn statistics(&self, _cx: &Context) -> Result<NodeStatistics> {
        let sum = self.reports().await?;
        let store = self.home.registry.store.as_ref();
        let usage = store.map(|store| store.usage()).unwrap_or_default();
        let (sessions, ended) = self.home.session_counts();
        let (limits, shards) = (&self.home.registry.limits, self.home.shards.len() as u64);
        Ok(NodeStatistics {
            active_objects: sum.active_objects,
            active_bytes: sum.active_bytes,
            activations: sum.activations,
            passivations: sum.passivations,
            calls: sum.calls,
            duplicates: sum.duplicates,
            connections: self.home.open_connections() as u64,
            store_batches: usage.batches,
            store_syncs: usage.syncs,
            store_used_bytes: usage.used_bytes,
            actions_active: sum.actions,
            actions_in_doubt: sum.in_doubt,
            actions_committed: sum.committed,
            actions_aborted: sum.aborted,
            deadlocks_broken: sum.deadlocks,
            sessions: sessions as u64,
            sessions_lost: ended.lost,
            sessions_expired: ended.expired,
            sessions_replaced: ended.replaced,
            sessions_broken: ended.broken,
            orphans_killed: sum.killed,
            store_failures: usage.batches_failed,
            up: self.home.started.elapsed(),
            evictions: sum.evictions,
            active_bytes_max: limits.active_bytes_max.saturating_mul(shards),
            active_objects_max: u64::from(limits.active_objects_max) * shards,
            store_syncs_by_batches: usage.syncs_by_batches.to_vec(),
            store_sync_time: Duration::from_micros(usage.sync_us),
            action_messages: sum.messages,
            store_log_bytes: usage.log_bytes,
            store_checkpoints: usage.checkpoints,
            objects_moved_in: sum.moved_in,
            objects_moved_out: sum.moved_out,
            moves_failed: sum.moves_failed,
            entries_told: sum.told,
        })
    }

    async fn objects(&self, _cx: &Context, after: Uid, limit: u32) -> Result<Vec<StoredObject>> {
        let Some(store) = &self.home.registry.store else {
            return Ok(Vec::new());
        };
        let after = Some(after).filter(|after| *after != Uid::NIL);
        let page = store.scan_objects(after, limit.min(OBJECTS_MAX) as usize);
        let page = page.map_err(|e| SystemError::new(ErrorKind::Store, e.to_string()))?;
        let mut active = Vec::new();
        for shard in &self.home.shards {
            let mine = |uid: &Uid| shard_of(*uid, self.home.shards.len() as u16) == shard.index();
            let objects = page.iter().map(|(uid, _)| *uid).filter(mine).collect();
            let (answer, receiver) = oneshot::channel();
            shard.post(Job::Active { objects, answer });
            active.extend(receiver.await.map_err(|_| stopping())?);
        }
        active.sort_unstable();
        let copies = self.copies_among(page.iter().map(|(uid, _)| *uid)).await?;
        let object = |(object, class): (Uid, ClassId)| StoredObject {
            object,
            class: class.0,
            active: active.binary_search(&object).is_ok(),
            copy: copies.contains(&object),
        };
        Ok(page.into_iter().map(object).collect())
    }

    async fn inspect(&self, _cx: &Context, object: Uid) -> Result<ObjectDescription, InspectError> {
        self.has_come(object).await;
        let report = self
            .ask(object, |answer| Job::Inspect { object, answer })
            .await??;
        let Some(report) = report else {
            return Err(NoSuchObject {
                object,
                node: self.home.me.node.0,
            }
            .into());
        };
        let class = self.home.registry.classes.get(&report.class);
        Ok(ObjectDescription {
            class: report.class.0,
            class_name: class.map_or_else(String::new, |class| class.info().name.to_owned()),
            active: report.active,
            epoch: report.epoch.0,
            version: report.version,
            state_bytes: report.state_bytes,
            users: report.users,
            shard: self.home.shard(object).index(),
            moves: report.moves,
            came_from: report.came_from.0,
        })
    }

    async fn actions(
        &self,
        _cx: &Context,
        after: Uid,
        limit: u32,
    ) -> Result<Vec<ActionDescription>> {
        self.actions_after(after, limit).await
    }

    async fn locks(
        &self,
        _cx: &Context,
        after: Uid,
        limit: u32,
        contended: bool,
    ) -> Result<Vec<LockDescription>> {
        self.locks_after(after, limit, contended).await
    }

    async fn why(&self, _cx: &Context, object: Uid) -> Result<LockDescription> {
        self.locks_of(object).await
    }

    async fn outcome(&self, cx: &Context, action: Uid, last: bool) -> Result<ActionOutcome> {
        self.outcome_of(cx, action, last).await
    }

    async fn abort_action(&self, _cx: &Context, action: Uid) -> Result<u32, AbortActionError> {
        self.abort_everywhere(action).await
    }

    async fn sessions(
        &self,
        _cx: &Context,
        after: u64,
        limit: u32,
    ) -> Result<Vec<SessionDescription>> {
        self.sessions_after(after, limit).await
    }

    async fn bindings(
        &self,
        _cx: &Context,
        process: u64,
        incarnation: u32,
        after: Uid,
        limit: u32,
    ) -> Result<Vec<BindingDescription>, BindingsError> {
        self.bindings_after(process, incarnation, after, limit)
            .await
    }

    async fn end_session(
        &self,
        _cx: &Context,
        process: u64,
        incarnation: u32,
    ) -> Result<u32, EndSessionError> {
        self.end_session_of(process, incarnation)
    }

    async fn evict(&self, _cx: &Context, object: Uid) -> Result<bool, EvictError> {
        self.evict_object(object).await
    }

    async fn offer(&self, _cx: &Context, token: Bytes, server: ServerProcess) -> Result<()> {
        self.home.registry.elsewhere.servers.offered(&token, server)
    }

    async fn elsewhere(&self, _cx: &Context) -> Result<Elsewhere> {
        Ok(self.elsewhere_now())
    }

    async fn move_object(
        &self,
        cx: &Context,
        object: Uid,
        node: u64,
        wait: Duration,
    ) -> Result<u64, MoveObjectError> {
        self.move_away(cx, object, NodeId(node), wait).await
    }

    async fn relocated(
        &self,
        cx: &Context,
        object: Uid,
        node: u64,
        addresses: Vec<String>,
        moves: u64,
    ) -> Result<()> {
        let to = Moved {
            node: NodeId(node),
            addresses,
            moves,
        };
        self.moved_on(cx, object, to).await
    }

    async fn accepts(
        &self,
        _cx: &Context,
        object: Uid,
        class: u64,
        schema: u64,
    ) -> Result<(), AcceptsError> {
        self.would_accept(object, ClassId(class), schema).await
    }

    async fn stage(&self, cx: &Context, page: MovingPage) -> Result<Vec<MovedPart>, StageError> {
        self.take_page(cx, page).await
    }

    async fn replicate(
        &self,
        cx: &Context,
        object: Uid,
        copies: u16,
        policy: Option<GroupPolicy>,
        placement: Option<GroupPlacement>,
    ) -> Result<CopyDescription, ReplicateError> {
        let replication = Replication {
            policy,
            copies,
            placement,
        };
        self.replicate_object(cx, object, replication).await
    }

    async fn join_group(
        &self,
        _cx: &Context,
        object: Uid,
        class: u64,
        number: u64,
        members: Vec<u64>,
    ) -> Result<(), JoinGroupError> {
        let members = members.into_iter().map(NodeId).collect();
        self.join(object, ClassId(class), View { number, members })
            .await
    }

    async fn leave_group(&self, cx: &Context, object: Uid, number: u64) -> Result<()> {
        let leader = cx.caller().node;
        let shard = self.home.shard(object);
        let left = shard.look(move |shard| shard.leave_group(object, leader, number));
        left.await.ok_or_else(stopping)
    }

    async fn copies(&self, _cx: &Context, objects: Vec<Uid>) -> Result<Vec<CopyDescription>> {
        self.copies_here(objects).await
    }

    async fn copy_hash(&self, _cx: &Context, object: Uid) -> Result<CopyHash, CopyHashError> {
        self.hash_of(object).await
    }

    async fn give_up_copy(
        &self,
        cx: &Context,
        object: Uid,
        node: u64,
        wait: Duration,
    ) -> Result<(), GiveUpCopyError> {
        self.give_up(cx, object, NodeId(node), wait).await
    }

    async fn places(&self, _cx: &Context, after: Uid, limit: u32) -> Result<Vec<MovedPlace>> {
        self.places_after(after, limit)
    }
}

fn stopping() -> SystemError {
    SystemError::new(ErrorKind::Draining, "the node is shutting down")
}
