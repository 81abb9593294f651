//! The binder's part, and the other nodes': views, changes of them, who is lost, and nodes for
//! copies that are missing.

use std::collections::BTreeSet;
use std::io::ErrorKind as IoErrorKind;
use std::rc::Rc;
use std::time::{Duration, Instant};

use partha_core::group::{Change, Input, Role, View};
use partha_core::id::{ClassId, NodeId, Peer, Uid};

use crate::error::Result;
use crate::manager::NodeHandle;
use crate::services::binder::{GroupView, NodeEntry, ViewChange};
use crate::shard::Shard;
use crate::wire::message;

/// How long one question may take.
const ATTEMPT: Duration = Duration::from_secs(2);
/// Between two looks at who is there and what is missing.
const TICK: Duration = Duration::from_millis(500);
/// Nodes asked to have a copy in one look.
const INVITES_MAX: usize = 64;
/// How long a node may take to answer a connection before it counts as lost.
const PROBE: Duration = Duration::from_secs(1);

impl Shard {
    pub(super) fn ask_view(self: &Rc<Self>, uid: Uid) {
        let first = {
            let mut groups = self.groups.borrow_mut();
            groups.to_ask.insert(uid) && groups.to_ask.len() == 1
        };
        if first {
            let shard = self.clone();
            tokio::task::spawn_local(async move {
                // Whoever else asks in this turn is asked for in the same call.
                tokio::task::yield_now().await;
                let asked = std::mem::take(&mut shard.groups.borrow_mut().to_ask);
                let asked: Vec<Uid> = asked.into_iter().collect();
                let locator = shard.client.locator();
                match locator.views(&shard.client, &asked, ATTEMPT).await {
                    Ok(views) => views.into_iter().for_each(|view| shard.take_view(view)),
                    Err(error) => tracing::debug!(%error, "the binder does not say views"),
                }
            });
        }
    }

    pub(super) fn ask_change(self: &Rc<Self>, uid: Uid, change: Change) {
        let me = self.registry.me;
        let change = ViewChange {
            object: uid,
            expected: change.expected,
            by: me.node.0,
            incarnation: me.incarnation.0,
            wish: change.wish.into(),
        };
        tracing::debug!(%uid, ?change, "asks for a change of the view");
        let first = {
            let mut groups = self.groups.borrow_mut();
            groups.to_change.push(change);
            groups.to_change.len() == 1
        };
        if first {
            let shard = self.clone();
            tokio::task::spawn_local(async move {
                // A node that is lost is lost to many groups in the same turn.
                tokio::task::yield_now().await;
                let changes = std::mem::take(&mut shard.groups.borrow_mut().to_change);
                let locator = shard.client.locator();
                match locator.change_views(&shard.client, &changes, ATTEMPT).await {
                    Ok(views) => views.into_iter().for_each(|view| shard.take_view(view)),
                    Err(error) => {
                        let groups = changes.len();
                        tracing::warn!(groups, %error, "views are not changed yet");
                    }
                }
            });
        }
    }

    /// The binder has said what a view is.
    pub(super) fn take_view(self: &Rc<Self>, view: GroupView) {
        let uid = view.object;
        if let Some(group) = self.groups.borrow_mut().by_object.get_mut(&uid) {
            group.class = ClassId(view.class);
            group.wanted = view.wanted;
            if group.member.view().number < view.number {
                group.leader_lost = false;
                if group.member.view().members.len() < view.members.len() {
                    (group.invited, group.invite_after) = (0, None);
                }
            }
        }
        let members = view.members.into_iter().map(NodeId).collect();
        let number = view.number;
        self.group_input(uid, Input::View(View { number, members }));
        self.settle_incoming(uid);
        self.keep_ticking();
    }

    /// A process has no connection here any more.
    pub(in crate::shard) fn group_peer_gone(self: &Rc<Self>, peer: Peer) {
        let concerns = {
            let groups = self.groups.borrow();
            let mut all = groups.by_object.values();
            all.any(|group| group.member.view().has(peer.node))
        };
        if concerns {
            self.probe(peer.node);
        }
    }

    /// The node stops: where others have copies, one of them is to lead.
    pub(in crate::shard) fn hand_over_groups(self: &Rc<Self>) {
        let led: Vec<(Uid, NodeId)> = {
            let groups = self.groups.borrow();
            let led = groups.by_object.iter().filter(|(_, group)| group.leads());
            led.filter_map(|(uid, group)| {
                let mut others = group.member.view().others(self.registry.me.node);
                others.next().map(|to| (*uid, to))
            })
            .collect()
        };
        for (uid, to) in led {
            self.group_input(uid, Input::HandOver { to });
        }
    }

    /// From now on the shard looks now and then whether everybody is there.
    pub(super) fn keep_ticking(self: &Rc<Self>) {
        if std::mem::replace(&mut self.groups.borrow_mut().ticking, true) {
            return;
        }
        let shard = Rc::downgrade(self);
        tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(TICK).await;
                let Some(shard) = shard.upgrade() else { return };
                shard.tick();
            }
        });
    }

    fn tick(self: &Rc<Self>) {
        let (nodes, growing) = {
            let groups = self.groups.borrow();
            let mut nodes = BTreeSet::new();
            let mut growing = Vec::new();
            for (uid, group) in &groups.by_object {
                nodes.extend(group.member.view().others(self.registry.me.node));
                let few = group.member.view().members.len() < usize::from(group.wanted);
                let ripe = group.invite_after.is_none_or(|at| at <= Instant::now());
                if group.serves && few && !group.inviting && ripe && growing.len() < INVITES_MAX {
                    growing.push(*uid);
                }
            }
            (nodes, growing)
        };
        for node in nodes {
            if self.client.pool().known(node).is_none() {
                self.probe(node);
            }
        }
        for uid in growing {
            self.invite(uid);
        }
        self.expire_incoming();
    }

    /// Looks whether a node is there; what comes of it is told to all groups.
    fn probe(self: &Rc<Self>, node: NodeId) {
        if !self.groups.borrow_mut().probed.insert(node) {
            return;
        }
        let shard = self.clone();
        tokio::task::spawn_local(async move {
            let found = shard.reach(node).await;
            shard.groups.borrow_mut().probed.remove(&node);
            let input = match found {
                Reached::There => Input::Found { node },
                Reached::Ended => Input::Lost { node, ended: true },
                Reached::Silent => Input::Lost { node, ended: false },
            };
            let concerned: Vec<Uid> = {
                let groups = shard.groups.borrow();
                let all = groups.by_object.iter();
                all.filter(|(_, group)| group.member.view().has(node))
                    .map(|(uid, _)| *uid)
                    .collect()
            };
            if found != Reached::There {
                tracing::info!(%node, ?found, groups = concerned.len(), "a node is lost");
            }
            for uid in concerned {
                if let Some(group) = shard.groups.borrow_mut().by_object.get_mut(&uid)
                    && group.member.view().leader() == node
                {
                    group.leader_lost = found != Reached::There;
                }
                shard.group_input(uid, input.clone());
                shard.settle_incoming(uid);
            }
        });
    }

    async fn reach(&self, node: NodeId) -> Reached {
        let locator = self.client.locator();
        let connecting = locator.connect_shard(&self.client, node, message::Shard::Number(0));
        if let Ok(Ok(_)) = tokio::time::timeout(PROBE, connecting).await {
            return Reached::There;
        }
        let addresses = locator.addresses_of(node);
        let mut ended = !addresses.is_empty();
        for address in addresses {
            let connecting = tokio::net::TcpStream::connect(&address);
            // Where nobody listens any more, the process has ended.
            let refused = match tokio::time::timeout(PROBE, connecting).await {
                Ok(Err(error)) => error.kind() == IoErrorKind::ConnectionRefused,
                Ok(Ok(_)) | Err(_) => false,
            };
            ended &= refused;
        }
        if ended {
            Reached::Ended
        } else {
            Reached::Silent
        }
    }

    /// Asks a node to have a copy.
    fn invite(self: &Rc<Self>, uid: Uid) {
        let (class, attempt, view) = {
            let mut groups = self.groups.borrow_mut();
            let Some(group) = groups.by_object.get_mut(&uid) else {
                return;
            };
            group.inviting = true;
            // Each in vain makes the next pause longer, and chooses another node.
            group.invited += 1;
            let pause = TICK * (1 << group.invited.min(6));
            group.invite_after = Some(Instant::now() + pause);
            (group.class, group.invited, group.member.view().clone())
        };
        let shard = self.clone();
        tokio::task::spawn_local(async move {
            let asked = shard.ask_to_join(uid, class, attempt, &view).await;
            if let Some(group) = shard.groups.borrow_mut().by_object.get_mut(&uid) {
                group.inviting = false;
            }
            match asked {
                Ok(Some(node)) => tracing::info!(%uid, node, "is to have a copy"),
                Ok(None) => tracing::debug!(%uid, "no node can have another copy"),
                Err(error) => tracing::warn!(%uid, %error, "a node has not taken a copy"),
            }
        });
    }

    async fn ask_to_join(
        &self,
        uid: Uid,
        class: ClassId,
        attempt: u32,
        view: &View,
    ) -> Result<Option<String>> {
        let nodes = self.client.locator().nodes(&self.client).await?;
        let fits = |node: &NodeEntry| {
            let member = view.has(NodeId(node.node));
            node.alive && !node.cordoned && !member && node.classes.contains(&class.0)
        };
        let mut fitting: Vec<NodeEntry> = nodes.into_iter().filter(fits).collect();
        if fitting.is_empty() {
            return Ok(None);
        }
        // Objects begin at different nodes, so that copies are spread; a node that cannot is
        // passed by with the next attempt.
        let turn = (uid.local ^ view.number).wrapping_add(attempt.into());
        let turn = turn as usize % fitting.len();
        let node = fitting.swap_remove(turn);
        let connection = self
            .client
            .locator()
            .connect_to(&self.client, &node)
            .await?;
        let manager = NodeHandle::new(connection);
        let manager = manager.manager();
        let caller = self.client.call().deadline(ATTEMPT);
        let members: Vec<u64> = view.members.iter().map(|member| member.0).collect();
        let joined = manager.join_group(&caller, uid, class.0, view.number, &members);
        joined
            .await
            .map_err(|error| crate::SystemError::servant(error.to_string()))?;
        Ok(Some(node.name))
    }

    /// Where it is settled who leads, calls that wait go on or away; where another copy does, what
    /// is held back is not answered from here.
    pub(super) fn settle_incoming(self: &Rc<Self>, uid: Uid) {
        let (serves, follows, lost) = {
            let groups = self.groups.borrow();
            let Some(group) = groups.by_object.get(&uid) else {
                return;
            };
            let follows = matches!(group.member.role(), Role::Following | Role::Outside);
            (group.serves, follows, group.leader_lost)
        };
        if follows {
            self.fail_held(uid);
        }
        if serves || (follows && !lost) {
            self.release_incoming(uid);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reached {
    There,
    /// Its process has ended: its host says that nobody listens.
    Ended,
    Silent,
}
