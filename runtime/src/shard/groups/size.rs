//! How many copies a group has: missing ones are made at nodes that are chosen for that, and those
//! that are too many leave, the youngest first.
//!
//! The leader alone decides. It has a member excluded as if it were lost, and tells it then that it
//! may go; whoever comes back and is not wanted any more is told the same. So a copy goes only when
//! it is no member, and none goes that is about to be one.

mod step;

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use partha_core::group::{Input, Role, View};
use partha_core::id::{NodeId, Uid};
use partha_store::{Batch, Item, Place, StoreError};
use tokio::sync::Mutex;

pub(super) use self::step::Size;
use self::step::Step;
use super::placement::{Placing, why_not};
use super::views::{ATTEMPT, TICK};
use super::{Group, GroupJob, Groups};
use crate::error::{Result, SystemError};
use crate::manager::NodeHandle;
use crate::services::binder::{GroupPlacement, NodeEntry};
use crate::shard::{Job, Shard};
use crate::wire::message;

/// Groups that are looked at in one go.
const LOOKS_MAX: usize = 64;
/// How long a node that was asked to have a copy is waited for, and one that did not take it is
/// passed by.
const JOINING: Duration = Duration::from_secs(5);
/// For so long a list of nodes is as good as a new one.
const FRESH: Duration = Duration::from_millis(500);
/// Each look in vain doubles the pause before the next one, so often at most.
const PAUSES_MAX: u32 = 4;
/// So long at a time a leader that is to go waits until nothing of the object is in use.
const HAND_OVER: Duration = Duration::from_secs(10);
/// Between two times that a copy is told to go.
const DISMISS_AGAIN: Duration = Duration::from_millis(200);

/// What a shard knows of the sizes of its groups.
#[derive(Default)]
pub(super) struct Sizes {
    /// When groups are looked at, and those that are due.
    due: BTreeSet<(Instant, Uid)>,
    looking: bool,
    nodes: Rc<Mutex<Option<Nodes>>>,
}

/// The nodes of a moment.
type Nodes = (Instant, Rc<[NodeEntry]>);

impl Group {
    /// Why there are fewer copies than wanted, if none is on its way.
    pub(super) fn lacks(&self) -> &str {
        let (now, view) = (Instant::now(), self.member.view());
        let joining = &mut self.size.joining.iter();
        let is_coming =
            joining.any(|(node, (until, refused))| *until > now && !refused && !view.has(*node));
        if is_coming { "" } else { &self.size.lacking }
    }

    /// Whether a copy at this node is one that is wanted.
    pub(super) fn has_room_for(&self, node: NodeId) -> bool {
        let view = self.member.view();
        let leaving = &self.size.leaving;
        let staying = view.members.iter().filter(|it| !leaving.contains_key(it));
        let few = staying.count() < usize::from(self.wanted);
        let comes = few || self.size.wished.contains_key(&node);
        view.has(node) || (comes && !leaving.contains_key(&node))
    }
}

impl Groups {
    /// When the size of a group is to be looked at.
    fn look_at(&mut self, uid: Uid, at: Option<Instant>) {
        let Some(group) = self.by_object.get_mut(&uid) else {
            return;
        };
        if let Some(due) = std::mem::replace(&mut group.size.due, at) {
            self.sizes.due.remove(&(due, uid));
        }
        if let Some(at) = at {
            self.sizes.due.insert((at, uid));
        }
    }

    pub(super) fn look_no_more(&mut self, uid: Uid) {
        self.look_at(uid, None);
    }
}

impl Shard {
    /// The size of a group, or what it should be, is another one.
    pub(super) fn size_changed(self: &Rc<Self>, uid: Uid) {
        {
            let mut groups = self.groups.borrow_mut();
            groups.look_at(uid, Some(Instant::now()));
            if std::mem::replace(&mut groups.sizes.looking, true) {
                return;
            }
        }
        let shard = self.clone();
        self.spawn(async move {
            tokio::task::yield_now().await;
            shard.groups.borrow_mut().sizes.looking = false;
            shard.look_at_sizes();
        });
    }

    /// Looks at groups that are due.
    pub(super) fn look_at_sizes(self: &Rc<Self>) {
        let now = Instant::now();
        for _ in 0..LOOKS_MAX {
            let step = {
                let mut groups = self.groups.borrow_mut();
                let due = groups.sizes.due.first().copied();
                let Some((_, uid)) = due.filter(|(at, _)| *at <= now) else {
                    return;
                };
                groups.look_at(uid, None);
                let Some(group) = groups.by_object.get_mut(&uid) else {
                    continue;
                };
                if !group.serves {
                    continue;
                }
                let view = group.member.view();
                let wanted = usize::from(group.wanted);
                let step = group.size.step(self.registry.me.node, view, wanted, now);
                if step != Step::Rest {
                    let again = now + TICK * (1 << group.size.in_vain.min(PAUSES_MAX));
                    groups.look_at(uid, Some(again));
                }
                (uid, step)
            };
            match step {
                (_, Step::Rest | Step::Wait) => {}
                (uid, Step::Exclude(nodes)) => self.exclude(uid, nodes),
                (uid, Step::HandOver(to)) => {
                    if let Some(to) = self.who_is_there(to.into_iter()) {
                        self.let_lead(uid, to, HAND_OVER);
                    }
                }
                (uid, Step::Invite(count)) => self.invite(uid, count),
            }
        }
    }

    fn exclude(self: &Rc<Self>, uid: Uid, nodes: Vec<NodeId>) {
        tracing::info!(%uid, ?nodes, "copies are to go");
        if let Some(group) = self.groups.borrow_mut().by_object.get_mut(&uid) {
            group.size.excluding.clone_from(&nodes);
        }
        for node in nodes {
            let ended = false;
            self.group_input(uid, Input::Lost { node, ended });
        }
    }

    /// The view is another one: who was to be excluded and is, is told.
    pub(super) fn tell_excluded(self: &Rc<Self>, uid: Uid) {
        let gone = {
            let mut groups = self.groups.borrow_mut();
            let Some(group) = groups.by_object.get_mut(&uid) else {
                return;
            };
            if !matches!(group.member.role(), Role::Leading { .. }) {
                return group.size.excluding.clear();
            }
            let view = group.member.view();
            let (left, gone) = std::mem::take(&mut group.size.excluding)
                .into_iter()
                .partition(|node| view.has(*node));
            group.size.excluding = left;
            gone
        };
        gone.into_iter().for_each(|node| self.dismiss(uid, node));
    }

    /// Tells a copy that is no member, and not wanted, to go.
    pub(super) fn dismiss(self: &Rc<Self>, uid: Uid, node: NodeId) {
        let now = Instant::now();
        let number = {
            let mut groups = self.groups.borrow_mut();
            let Some(group) = groups.by_object.get_mut(&uid) else {
                return;
            };
            let dismissed = &mut group.size.dismissed;
            dismissed
                .retain(|_, (told, waits)| *waits || now.duration_since(*told) < DISMISS_AGAIN);
            if dismissed.contains_key(&node) {
                return;
            }
            dismissed.insert(node, (now, true));
            group.member.view().number
        };
        let shard = self.clone();
        self.spawn(async move {
            let told = async {
                let manager = shard.manager_of(node).await?;
                let caller = shard.client.call().deadline(ATTEMPT);
                manager.manager().leave_group(&caller, uid, number).await
            };
            // If it was not told, it says hello again.
            if let Err(error) = told.await {
                tracing::debug!(%uid, %node, %error, "a copy was not told to go");
            }
            let mut groups = shard.groups.borrow_mut();
            let group = groups.by_object.get_mut(&uid);
            if let Some((_, waits)) = group.and_then(|it| it.size.dismissed.get_mut(&node)) {
                *waits = false;
            }
        });
    }

    /// The connection manager of a node.
    pub(super) async fn manager_of(&self, node: NodeId) -> Result<NodeHandle> {
        let locator = self.client.locator();
        let shard = message::Shard::Number(0);
        let connection = locator.connect_shard(&self.client, node, shard).await?;
        Ok(NodeHandle::new(connection))
    }

    /// Asks nodes to have copies.
    fn invite(self: &Rc<Self>, uid: Uid, count: usize) {
        if let Some(group) = self.groups.borrow_mut().by_object.get_mut(&uid) {
            group.size.inviting = true;
        }
        let shard = self.clone();
        self.spawn(async move {
            let invited = shard.ask_some(uid, count).await;
            if let Some(group) = shard.groups.borrow_mut().by_object.get_mut(&uid) {
                group.size.inviting = false;
                match invited {
                    Ok(true) => group.size.in_vain = 0,
                    Ok(false) => group.size.in_vain += 1,
                    Err(error) => {
                        tracing::warn!(%uid, %error, "nodes for copies are not known");
                        group.size.in_vain += 1;
                    }
                }
            }
        });
    }

    /// Chooses nodes and asks them; whether as many as are missing have agreed.
    async fn ask_some(self: &Rc<Self>, uid: Uid, count: usize) -> Result<bool> {
        let nodes = self.nodes_now().await?;
        let (class, view, chosen) = {
            let mut groups = self.groups.borrow_mut();
            let Some(group) = groups.by_object.get_mut(&uid) else {
                return Ok(true);
            };
            let view = group.member.view().clone();
            let size = &mut group.size;
            let is_coming =
                |(node, (_, refused)): (&NodeId, &(Instant, bool))| (!refused).then_some(*node);
            let coming = size.joining.iter().filter_map(is_coming);
            let taken: Vec<_> = view.members.iter().copied().chain(coming).collect();
            // What is on its way to a copy must not meet one that was just asked for.
            let going = size.dismissed.iter().filter(|(_, (_, waits))| *waits);
            let going: Vec<_> = going.map(|(node, _)| *node).collect();
            let without = size.joining.keys().chain(&going);
            let without: Vec<_> = without.copied().collect();
            let placing = Placing {
                object: uid,
                class: group.class,
                placement: &size.placement,
                taken: &taken,
                without: &without,
            };
            let mut wished = size.wished.keys().filter(|node| !taken.contains(*node));
            let chosen = match wished.next() {
                Some(node) => placing.only(&nodes, *node),
                None => placing.choose(&nodes, count),
            };
            let chosen: Vec<NodeEntry> = chosen.into_iter().cloned().collect();
            let until = Instant::now() + JOINING;
            for node in &chosen {
                let node = NodeId(node.node);
                size.joining.insert(node, (until, false));
                // It went once, and may come again by now: else it would be cordoned.
                size.leaving.remove(&node);
            }
            size.lacking = match chosen.len() < count && going.is_empty() {
                true => lack(&size.placement),
                false => String::new(),
            };
            (group.class, view, chosen)
        };
        let all = chosen.len() == count;
        let asked = chosen.iter().map(async |node| {
            let joined = self.ask_to_join(uid, class.0, node, &view).await;
            match joined {
                Ok(()) => {
                    tracing::info!(%uid, node = node.name, "is to have a copy");
                    true
                }
                Err(error) => {
                    tracing::debug!(%uid, node = node.name, %error, "a node takes no copy");
                    let mut groups = self.groups.borrow_mut();
                    if let Some(group) = groups.by_object.get_mut(&uid) {
                        let until = Instant::now() + JOINING;
                        let joining = &mut group.size.joining;
                        joining.insert(NodeId(node.node), (until, true));
                        group.size.lacking = format!("node '{}': {error}", node.name);
                    }
                    false
                }
            }
        });
        let joined = join_all(asked).await;
        Ok(all && joined.into_iter().all(|joined| joined))
    }

    async fn ask_to_join(&self, uid: Uid, class: u64, node: &NodeEntry, view: &View) -> Result<()> {
        let locator = self.client.locator();
        let connection = locator.connect_to(&self.client, node).await?;
        let handle = NodeHandle::new(connection);
        let caller = self.client.call().deadline(ATTEMPT);
        let members: Vec<u64> = view.members.iter().map(|member| member.0).collect();
        let manager = handle.manager();
        let joined = manager.join_group(&caller, uid, class, view.number, &members);
        let joined = joined.await;
        joined.map_err(|error| SystemError::servant(error.to_string()))
    }

    /// All nodes, as they were a moment ago: many groups miss copies at the same time.
    async fn nodes_now(&self) -> Result<Rc<[NodeEntry]>> {
        let known = self.groups.borrow().sizes.nodes.clone();
        let mut known = known.lock().await;
        if let Some((since, nodes)) = &*known
            && since.elapsed() < FRESH
        {
            return Ok(nodes.clone());
        }
        let nodes: Rc<[NodeEntry]> = self.client.locator().nodes(&self.client).await?.into();
        *known = Some((Instant::now(), nodes.clone()));
        Ok(nodes)
    }

    /// Whether the copy here is being removed.
    pub(crate) fn copy_goes(&self, uid: Uid) -> bool {
        let groups = self.groups.borrow();
        let group = groups.by_object.get(&uid);
        group.is_some_and(|group| group.size.goes)
    }

    /// Another number of copies is wanted, or copies to come are to be elsewhere.
    pub(crate) fn set_wanted(self: &Rc<Self>, uid: Uid, wanted: u16, placement: GroupPlacement) {
        if let Some(group) = self.groups.borrow_mut().by_object.get_mut(&uid) {
            group.wanted = wanted;
            group.size.placement = placement;
            group.size.in_vain = 0;
        }
        self.size_changed(uid);
        // An answer of the binder from before may be on its way, and is believed.
        let shard = self.clone();
        self.spawn(async move {
            tokio::time::sleep(2 * ATTEMPT).await;
            shard.ask_view(uid);
        });
    }

    /// The copy at a node is to go, if this one leads; another one takes its place.
    pub(crate) fn copy_leaves(self: &Rc<Self>, uid: Uid, node: NodeId, until: Instant, anew: bool) {
        let looks = {
            let mut groups = self.groups.borrow_mut();
            let group = groups.by_object.get_mut(&uid);
            group.is_some_and(|group| {
                let is_new = group.size.leaving.insert(node, until).is_none();
                if is_new || anew {
                    group.size.lacking.clear();
                }
                is_new || anew
            })
        };
        if looks {
            self.size_changed(uid);
        }
    }

    /// A node is to have a copy besides, if this one leads.
    pub(crate) fn copy_comes(self: &Rc<Self>, uid: Uid, node: NodeId, until: Instant) {
        let is_new = {
            let mut groups = self.groups.borrow_mut();
            let group = groups.by_object.get_mut(&uid);
            group.is_some_and(|group| {
                let size = &mut group.size;
                size.leaving.remove(&node);
                let is_new = size.wished.insert(node, until).is_none();
                if is_new {
                    // What was said of it before this may be of long ago.
                    size.joining.retain(|asked, (_, no)| asked != &node || !*no);
                    size.lacking.clear();
                }
                is_new
            })
        };
        if is_new {
            self.size_changed(uid);
        }
    }

    /// It has one and leads, or is not waited for any more.
    pub(crate) fn copy_has_come(self: &Rc<Self>, uid: Uid, node: NodeId) {
        if let Some(group) = self.groups.borrow_mut().by_object.get_mut(&uid) {
            group.size.wished.remove(&node);
        }
        self.size_changed(uid);
    }

    /// Why a node gets no copy of a group that is here, if so.
    pub(crate) fn why_no_copy(&self, uid: Uid, node: &NodeEntry) -> Option<&'static str> {
        let groups = self.groups.borrow();
        let group = groups.by_object.get(&uid)?;
        why_not(&group.size.placement, group.class, node)
    }

    /// The leader of the view of this number wants no copy here: it goes if it is no member, and
    /// a forward stays, since others may look for the object here.
    pub(crate) fn leave_group(self: &Rc<Self>, uid: Uid, leader: NodeId, number: u64) {
        let goes = {
            let mut groups = self.groups.borrow_mut();
            let Some(group) = groups.by_object.get_mut(&uid) else {
                return;
            };
            let (member, view) = (&group.member, group.member.view());
            let outside = member.role() == Role::Outside && !member.has_adopted();
            if number < view.number || group.reopening || group.size.goes {
                return;
            }
            let goes = outside && number == view.number && view.leader() == leader;
            group.size.goes = goes;
            goes
        };
        let Some(store) = self.registry.store.clone().filter(|_| goes) else {
            // The binder says whether it is still one.
            return self.ask_view(uid);
        };
        tracing::info!(%uid, %leader, "this copy is not wanted any more");
        let to = leader;
        let batch = Batch::new(vec![
            Item::LeaveGroup {
                uid,
                keep_object: false,
            },
            Item::PutPlace {
                uid,
                place: Place::Gone { to, moves: number },
            },
        ]);
        let handle = self.handle.clone();
        let done = move |result: std::result::Result<(), StoreError>| {
            if let Err(error) = result {
                // It says hello again, and is told again.
                tracing::warn!(%uid, %error, "a copy is not removed yet");
            }
            handle.post(Job::Group(GroupJob::Reopen(uid)));
        };
        store.submit(batch, Box::new(done));
    }
}

fn lack(placement: &GroupPlacement) -> String {
    let on = placement.on.iter().map(ToString::to_string);
    let on = on.collect::<Vec<_>>().join(" ");
    let with = match on.is_empty() {
        true => String::new(),
        false => format!(" and has the labels {on}"),
    };
    format!("no other living node that is not cordoned runs its class{with}")
}
