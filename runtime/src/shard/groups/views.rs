//! The binder's part, and the other nodes': views, changes of them, and who is lost.

use std::io::ErrorKind as IoErrorKind;
use std::rc::Rc;
use std::time::Duration;

use partha_core::group::{Change, Input, Role, View};
use partha_core::id::{ClassId, NodeId, Peer, Uid};

use super::Goal;
use crate::services::binder::{GroupPolicy, GroupView, ViewChange};
use crate::shard::Shard;
use crate::wire::message;

/// How long one question may take.
pub(super) const ATTEMPT: Duration = Duration::from_secs(2);
/// Between two looks at who is there and what is missing.
pub(super) const TICK: Duration = Duration::from_millis(500);
/// How long a node may take to answer a connection before it counts as lost.
const PROBE: Duration = Duration::from_secs(1);
/// The same where all its connections have broken: it has been silent for a lease by then.
const PROBE_GONE: Duration = Duration::from_millis(100);
/// The first of the pauses between looks at a node that seems to be there although a connection to
/// it has broken, which double: when a process dies, one connection shows it before others do.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// So many looks whether the last connection of a node breaks whose host refuses new ones: for a
/// tenth of a second.
const DISCONNECTED_LOOKS: u32 = 20;
/// How long a node that stops waits until nothing is in use of what it leads.
const STOPPING: Duration = Duration::from_secs(1);
/// So many looks: for a third of a second.
const LOOKS: u32 = 6;

impl Shard {
    pub(super) fn ask_view(self: &Rc<Self>, uid: Uid) {
        let first = {
            let mut groups = self.groups.borrow_mut();
            groups.to_ask.insert(uid) && groups.to_ask.len() == 1
        };
        if first {
            let shard = self.clone();
            self.spawn(async move {
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
            self.spawn(async move {
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
            group.learn_policy(&view);
            // Of an older view it is older, too.
            if group.member.view().number <= view.number {
                group.wanted = view.wanted;
                group.size.placement = view.placement;
            }
            if group.member.view().number < view.number {
                group.leader_lost = false;
            }
        }
        let members: Vec<NodeId> = view.members.into_iter().map(NodeId).collect();
        let number = view.number;
        let excluded = !members.contains(&self.registry.me.node);
        self.group_input(uid, Input::View(View { number, members }));
        if excluded && self.is_doubtful(uid) {
            tracing::warn!(%uid, "this copy has come to something else than most: it is made anew");
            self.renew_copy(uid);
        }
        self.settle_incoming(uid);
        self.tell_excluded(uid);
        self.size_changed(uid);
        self.keep_ticking();
    }

    fn is_doubtful(&self, uid: Uid) -> bool {
        let groups = self.groups.borrow();
        let group = groups.by_object.get(&uid);
        group.is_some_and(|group| group.is_doubtful)
    }

    /// A process has no connection here any more.
    pub(in crate::shard) fn group_peer_gone(self: &Rc<Self>, peer: Peer) {
        if self.groups.borrow().concern(peer.node) {
            self.probe(peer.node, PROBE_GONE);
        }
    }

    /// What is led here, and who could lead it next.
    fn led_with_others(&self) -> Vec<(Uid, NodeId)> {
        let groups = self.groups.borrow();
        let led = groups.by_object.iter().filter(|(_, group)| group.leads());
        let next = led.filter_map(|(uid, group)| {
            let others = group.member.view().others(self.registry.me.node);
            self.who_is_there(others).map(|to| (*uid, to))
        });
        next.collect()
    }

    /// The first of these nodes that there is a connection to; the first of all, if there is none.
    pub(super) fn who_is_there(&self, nodes: impl Iterator<Item = NodeId>) -> Option<NodeId> {
        let mut nodes = nodes.peekable();
        let first = nodes.peek().copied();
        let pool = self.client.pool();
        nodes.find(|node| pool.known(*node).is_some()).or(first)
    }

    /// The node stops: where others have copies, one of them is to lead.
    pub(in crate::shard) fn hand_over_groups(self: &Rc<Self>) {
        for (uid, to) in self.led_with_others() {
            self.let_lead(uid, to, STOPPING);
        }
    }

    /// The time that running actions get from a node that stops is over: others lead. Not before
    /// that: where the next leader does not go on with them, an action that has come to it by
    /// another way would find a state without what it has done.
    fn hand_over_now(self: &Rc<Self>) {
        for (uid, to) in self.led_with_others() {
            self.forget_change(uid);
            self.group_input(uid, Input::HandOver { to });
        }
    }

    /// Another copy is to lead an object. Where the next leader goes on with running actions that
    /// is at once; where it does not, when nothing of the object is in use, for which it is waited
    /// so long.
    pub(super) fn let_lead(self: &Rc<Self>, uid: Uid, to: NodeId, patience: Duration) {
        let takes_over = {
            let groups = self.groups.borrow();
            let policy = groups.by_object.get(&uid).and_then(|group| group.policy);
            policy.is_some_and(GroupPolicy::takes_over)
        };
        if takes_over {
            return self.group_input(uid, Input::HandOver { to });
        }
        if let Err(error) = self.begin_change(uid, Goal::Lead(to), patience) {
            tracing::debug!(%uid, %error, "it is handed over later");
        }
    }

    /// Whether a copy leads here that others could lead in the place of. Those that have come to
    /// lead since the node began to stop are handed over as well; `now` without waiting.
    pub(crate) fn leads_still(self: &Rc<Self>, now: bool) -> bool {
        let leads = {
            let groups = self.groups.borrow();
            let mut all = groups.by_object.values();
            all.any(|group| group.leads() && group.member.view().members.len() > 1)
        };
        match (leads, now) {
            (false, _) => {}
            (true, false) => self.hand_over_groups(),
            (true, true) => self.hand_over_now(),
        }
        leads
    }

    /// From now on the shard looks now and then whether everybody is there.
    pub(super) fn keep_ticking(self: &Rc<Self>) {
        if std::mem::replace(&mut self.groups.borrow_mut().ticking, true) {
            return;
        }
        let shard = Rc::downgrade(self);
        self.spawn(async move {
            loop {
                tokio::time::sleep(TICK).await;
                let Some(shard) = shard.upgrade() else { return };
                shard.tick();
            }
        });
    }

    fn tick(self: &Rc<Self>) {
        let nodes: Vec<NodeId> = {
            let groups = self.groups.borrow();
            groups.by_node.keys().copied().collect()
        };
        let me = self.registry.me.node;
        for node in nodes {
            if node != me && self.client.pool().known(node).is_none() {
                self.probe(node, PROBE);
            }
        }
        self.look_at_sizes();
        self.expire_incoming();
        self.look_after_actions();
    }

    /// Looks whether a node is there; what comes of it is told to all groups. One look that takes
    /// longer, as it is not known yet that all connections have broken, keeps none from a shorter
    /// one.
    fn probe(self: &Rc<Self>, node: NodeId, patience: Duration) {
        let look = (node, patience);
        if !self.groups.borrow_mut().probed.insert(look) {
            return;
        }
        let shard = self.clone();
        self.spawn(async move {
            let mut found = shard.reach(node, patience).await;
            shard.reached(node, found);
            for look in 0..LOOKS {
                if found != Reached::There {
                    break;
                }
                tokio::time::sleep(LOOK_AGAIN * (1 << look)).await;
                if shard.client.pool().known(node).is_none() {
                    found = shard.reach(node, patience).await;
                    shard.reached(node, found);
                }
            }
            shard.groups.borrow_mut().probed.remove(&look);
        });
    }

    /// All groups are told what became of a look at a node.
    fn reached(self: &Rc<Self>, node: NodeId, found: Reached) {
        let input = match found {
            Reached::There => Input::Found { node },
            Reached::Ended => Input::Lost { node, ended: true },
            Reached::Silent => Input::Lost { node, ended: false },
        };
        let concerned = self.groups.borrow().with(node);
        if found != Reached::There {
            tracing::info!(%node, ?found, groups = concerned.len(), "a node is lost");
        }
        for uid in concerned {
            if let Some(group) = self.groups.borrow_mut().by_object.get_mut(&uid)
                && group.member.view().leader() == node
            {
                group.leader_lost = found != Reached::There;
            }
            self.group_input(uid, input.clone());
            self.settle_incoming(uid);
        }
    }

    /// Whether a node is there.
    pub(in crate::shard) async fn is_there(&self, node: NodeId) -> bool {
        self.reach(node, PROBE).await == Reached::There
    }

    async fn reach(&self, node: NodeId, patience: Duration) -> Reached {
        let locator = self.client.locator();
        let connecting = locator.connect_shard(&self.client, node, message::Shard::Number(0));
        if let Ok(Ok(_)) = tokio::time::timeout(patience, connecting).await {
            return Reached::There;
        }
        let addresses = locator.addresses(node);
        let mut ended = !addresses.is_empty();
        for address in addresses {
            let connecting = tokio::net::TcpStream::connect(&address);
            // Where nobody listens any more, the process has ended.
            let refused = match tokio::time::timeout(patience, connecting).await {
                Ok(Err(error)) => error.kind() == IoErrorKind::ConnectionRefused,
                Ok(Ok(_)) | Err(_) => false,
            };
            ended &= refused;
        }
        if ended && self.is_disconnected(node).await {
            Reached::Ended
        } else {
            Reached::Silent
        }
    }

    /// Whether no process of a node is connected to this one, which is soon seen of one that has
    /// ended. It may listen elsewhere by now, and have been promised something in its new life.
    async fn is_disconnected(&self, node: NodeId) -> bool {
        let Some(home) = self.client.home_if_any() else {
            return true;
        };
        for _ in 0..DISCONNECTED_LOOKS {
            if !home.is_connected(node) {
                return true;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        false
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
