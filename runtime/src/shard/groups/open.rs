//! Groups are made of objects, joined by nodes that are to have a copy, and found again at the
//! start.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use partha_core::Input as EngineInput;
use partha_core::group::log::Log;
use partha_core::group::{Member, Stamp, View};
use partha_core::id::{ClassId, Uid};
use partha_core::time::Time;
use partha_store::{Batch, GroupRecord, Item, ObjectStore, StoreError};

use super::views::ATTEMPT;
use super::{GROUPS_MAX, Group, GroupJob, PROMISE_NS};
use crate::error::{ErrorKind, Result, SystemError};
use crate::services::binder::{GroupPlacement, binder};
use crate::services::naming::name_context;
use crate::shard::{Job, Shard, ShardHandle};

/// The pause before a copy begins again that could not be written.
const AGAIN: Duration = Duration::from_secs(1);

/// A group as the store has it.
pub(crate) struct Opened {
    pub(crate) uid: Uid,
    found: Found,
}

/// What the store has of a copy.
enum Found {
    /// There is no copy here (any more).
    Nothing,
    Kept(Kept),
    /// What there is of it is damaged.
    Broken,
    /// The store cannot tell at the moment.
    Unread,
}

/// What is kept of one.
pub(crate) struct Kept {
    pub(crate) record: GroupRecord,
    /// The bytes of what is staged.
    pub(crate) bodies: BTreeMap<Stamp, Bytes>,
}

/// What is known of a group at this shard.
#[derive(Clone, Debug)]
pub(crate) struct GroupReport {
    pub(crate) object: Uid,
    pub(crate) view: View,
    /// It is a member of the view.
    pub(crate) member: bool,
    pub(crate) leads: bool,
    pub(crate) installed: u64,
    pub(crate) staged: u64,
    pub(crate) wanted: u16,
    pub(crate) placement: GroupPlacement,
    /// Why there are fewer; empty if that is not known here.
    pub(crate) lacking: String,
    /// Calls that this copy has executed after another one had.
    pub(crate) executed: u64,
    /// Those of them that came to something else.
    pub(crate) differences: u64,
}

impl Opened {
    /// Reads one group with what is staged.
    pub(crate) fn read(store: &dyn ObjectStore, uid: Uid) -> Self {
        let found = match Kept::read(store, uid) {
            Ok(Some(kept)) => Found::Kept(kept),
            Ok(None) => Found::Nothing,
            Err(error @ (StoreError::BrokenCopy { .. } | StoreError::Corrupt { .. })) => {
                tracing::error!(%uid, %error, "a copy is broken");
                Found::Broken
            }
            Err(error) => {
                tracing::error!(%uid, %error, "a copy cannot be read yet");
                Found::Unread
            }
        };
        Self { uid, found }
    }
}

impl Kept {
    fn read(store: &dyn ObjectStore, uid: Uid) -> std::result::Result<Option<Self>, StoreError> {
        let Some(record) = store.read_group(uid)? else {
            return Ok(None);
        };
        let mut bodies = BTreeMap::new();
        for stamp in &record.staged {
            if let Some(body) = store.read_entry(uid, stamp.index)? {
                bodies.insert(*stamp, body);
            }
        }
        Ok(Some(Self { record, bodies }))
    }
}

/// An object that is about to get copies: it does not move before this is dropped.
pub(crate) struct Claim {
    uid: Uid,
    /// Nothing once it has joined.
    shard: Option<ShardHandle>,
}

impl Claim {
    /// It is joining.
    pub(crate) fn joins(mut self) {
        self.shard = None;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(shard) = &self.shard {
            shard.post(Job::Group(GroupJob::NotJoined(self.uid)));
        }
    }
}

impl Shard {
    /// A group that the store has: its copy asks for the view before anything else.
    pub(in crate::shard) fn open_group(self: &Rc<Self>, opened: Opened) {
        let Opened { uid, found } = opened;
        self.groups.borrow_mut().joining.remove(&uid);
        let Kept { record, bodies } = match found {
            Found::Kept(kept) => kept,
            Found::Nothing => return self.close_group(uid),
            Found::Broken => return self.renew_copy(uid),
            Found::Unread => {
                self.put_empty(uid);
                return self.reopen(uid);
            }
        };
        let log = Log::restored(record.installed, &record.staged);
        // Whatever an earlier life has promised is over by then.
        let bound = Time(self.now().0.saturating_add(PROMISE_NS));
        let me = self.registry.me.node;
        let mut member = Member::new(me, record.view, log, PROMISE_NS, bound);
        if !record.has_state {
            member = member.without_state();
        }
        let mut group = Group::new(member, ClassId(0), 1);
        group.bodies = bodies;
        self.put_group(uid, group);
        self.groups_time_out();
        self.keep_ticking();
    }

    /// There is no copy here any more.
    fn close_group(self: &Rc<Self>, uid: Uid) {
        let gone = self.groups.borrow_mut().take(uid);
        let Some(mut gone) = gone else { return };
        // What was read here is not here any more.
        self.feed(EngineInput::Expel { uid });
        let reads = gone.reads.as_mut().map(|reads| reads.take_waiting());
        let incoming = gone.incoming.into_iter().map(|(_, incoming)| incoming);
        for incoming in incoming.chain(reads.into_iter().flatten()) {
            self.invoke(incoming);
        }
    }

    /// Enters a copy in the place of the one before; who waits for that one is told, or waits for
    /// this one.
    fn put_group(self: &Rc<Self>, uid: Uid, mut group: Group) {
        let why = "a copy began again before it was known that all copies had the change";
        self.fail_calls(uid, why);
        self.fail_steps(uid);
        let waiting = {
            let mut groups = self.groups.borrow_mut();
            groups.lives += 1;
            group.life = groups.lives;
            let mut waiting = Vec::new();
            if let Some(mut old) = groups.take(uid) {
                group.incoming = old.incoming;
                let reads = old.reads.as_mut().map(|reads| reads.take_waiting());
                let reads = reads.into_iter().flatten();
                let now = Instant::now();
                group.incoming.extend(reads.map(|incoming| (now, incoming)));
                group.held = old.held;
                group.unsure = old.unsure;
                group.wanted = old.wanted;
                group.class = old.class;
                (group.policy, group.policy_at) = (old.policy, old.policy_at);
                group.size = old.size.kept();
                (group.executed, group.differences) = (old.executed, old.differences);
                waiting = old.waiting;
            }
            groups.enter(uid, group);
            self.has_groups.set(true);
            waiting
        };
        self.look_now(waiting);
    }

    /// The copy begins again with what the store has.
    pub(super) fn reopen(self: &Rc<Self>, uid: Uid) {
        if let Some(group) = self.groups.borrow_mut().by_object.get_mut(&uid)
            && std::mem::replace(&mut group.reopening, true)
        {
            return;
        }
        self.deposed(uid);
        let Some(store) = self.registry.store.clone() else {
            return;
        };
        let shard = self.clone();
        self.spawn(async move {
            // What has failed is not tried again and again at once.
            tokio::time::sleep(AGAIN).await;
            shard.open_group(Opened::read(&*store, uid));
        });
    }

    /// Enters a copy without a state: it waits for one, and never leads. From then on the object
    /// is no ordinary one, whatever its record says. Answers the view that is known.
    fn put_empty(self: &Rc<Self>, uid: Uid) -> View {
        let view = {
            let groups = self.groups.borrow();
            let group = groups.by_object.get(&uid);
            group.map(|group| group.member.view().clone())
        };
        let me = self.registry.me.node;
        let view = view.unwrap_or_else(|| View::first(vec![me]));
        let bound = Time(self.now().0.saturating_add(PROMISE_NS));
        let member = Member::new(me, view.clone(), Log::default(), PROMISE_NS, bound);
        self.put_group(uid, Group::new(member.without_state(), ClassId(0), 1));
        view
    }

    /// The copy is broken: it goes, and comes again without a state, which the leader brings. The
    /// only one is left as it is, since somebody may be able to mend it.
    pub(super) fn renew_copy(self: &Rc<Self>, uid: Uid) {
        let view = self.put_empty(uid);
        let shard = self.clone();
        self.spawn(async move {
            let is_only = loop {
                match shard.is_only_copy(uid).await {
                    Ok(is_only) => break is_only,
                    Err(error) => {
                        tracing::warn!(%uid, %error, "a broken copy waits for its view");
                        tokio::time::sleep(AGAIN).await;
                    }
                }
            };
            if is_only {
                return shard.keep_broken(uid);
            }
            shard.make_anew(uid, view);
        });
    }

    /// Whether no other node has a copy, as the binder says.
    async fn is_only_copy(&self, uid: Uid) -> Result<bool> {
        let locator = self.client.locator();
        let views = locator.views(&self.client, &[uid], ATTEMPT).await?;
        let me = self.registry.me.node.0;
        let mut members = views.iter().flat_map(|view| &view.members);
        Ok(members.all(|member| *member == me))
    }

    fn keep_broken(&self, uid: Uid) {
        let here = self.registry.here();
        tracing::error!(%uid, "the only copy is broken: it is left as it is, and answers nothing");
        if let Some(group) = self.groups.borrow_mut().by_object.get_mut(&uid) {
            let what =
                "is the only one, and is damaged: its store is to be brought back from a copy";
            group.size.lacking = format!("the copy at {here} {what}");
        }
    }

    fn make_anew(self: &Rc<Self>, uid: Uid, view: View) {
        let Some(store) = self.registry.store.clone() else {
            return;
        };
        tracing::info!(%uid, "a broken copy is made anew");
        let batch = Batch::new(vec![
            Item::LeaveGroup {
                uid,
                keep_object: false,
            },
            Item::JoinGroup {
                uid,
                view,
                has_state: false,
            },
        ]);
        let handle = self.handle.clone();
        let done = move |result: std::result::Result<(), StoreError>| match result {
            Ok(()) => handle.post(Job::Group(GroupJob::Reopen(uid))),
            Err(error) => {
                tracing::error!(%uid, %error, "a broken copy cannot be made anew yet");
                handle.post(Job::Group(GroupJob::Broken(uid)));
            }
        };
        store.submit(batch, Box::new(done));
    }

    /// Whether the object can have copies; why not, if not; nothing if it has some. If so, it does
    /// not move until they are there, or the claim is dropped.
    pub(crate) fn claim_for_copies(&self, uid: Uid) -> Result<Option<(ClassId, Claim)>> {
        let here = self.registry.here();
        if self.groups.borrow().by_object.contains_key(&uid) {
            return Ok(None);
        }
        let class = self.class_of(uid)?.ok_or_else(|| self.not_here(uid))?;
        let wrong = |detail: String| Err(SystemError::new(ErrorKind::BadOperation, detail));
        if self.registry.store.is_none() || self.catalog.borrow().volatile(uid).is_some() {
            return wrong(format!("{uid} at {here} is transient, and has no copies"));
        }
        if self.registry.well_known == Some(uid) {
            return wrong(format!("{uid} at {here} is found by its address alone"));
        }
        // Who leads copies is found by these.
        let names = self.registry.well_known == Some(Uid::NAMING_ROOT);
        if class == binder::INFO.id || (names && class == name_context::INFO.id) {
            return wrong(format!(
                "{uid} at {here} belongs to the services by which copies are found, and has none"
            ));
        }
        let locked = {
            let engine = self.engine.borrow();
            let mut locks = engine.locks();
            locks.any(|lock| lock.uid == uid && !lock.holders.is_empty())
        };
        let claimed = self.groups.borrow().joining.contains(&uid);
        if locked || claimed || self.is_on_its_way(uid) {
            let detail = format!("{uid} at {here} is in use; ask again");
            return Err(SystemError::new(ErrorKind::LockTimeout, detail));
        }
        self.has_room_for_copy()?;
        self.groups.borrow_mut().joining.insert(uid);
        let shard = Some(self.handle.clone());
        Ok(Some((class, Claim { uid, shard })))
    }

    /// A copy that is broken could not be made anew.
    pub(super) fn renew_later(self: &Rc<Self>, uid: Uid) {
        let shard = self.clone();
        self.spawn(async move {
            tokio::time::sleep(AGAIN).await;
            shard.renew_copy(uid);
        });
    }

    /// Whether there may be one more copy here.
    fn has_room_for_copy(&self) -> Result<()> {
        if self.groups.borrow().by_object.len() < GROUPS_MAX {
            return Ok(());
        }
        let here = self.registry.here();
        let detail = format!("{here} has {GROUPS_MAX} replicated objects in a shard");
        Err(SystemError::new(ErrorKind::Overloaded, detail))
    }

    /// Notes in the store that there is a copy here, and opens it then.
    ///
    /// # Errors
    /// `Overloaded` if there are too many.
    pub(crate) fn join_group(self: &Rc<Self>, uid: Uid, view: View, has_state: bool) -> Result<()> {
        if self.is_group(uid) {
            return Ok(());
        }
        self.has_room_for_copy()?;
        let Some(store) = &self.registry.store else {
            let detail = format!("{}: a copy needs a store", self.registry.here());
            return Err(SystemError::new(ErrorKind::BadOperation, detail));
        };
        if self.is_on_its_way(uid) {
            let here = self.registry.here();
            let detail = format!("{uid} at {here} is just moving; ask again");
            return Err(SystemError::new(ErrorKind::LockTimeout, detail));
        }
        // Until the store has it nobody else sees that it has copies.
        self.groups.borrow_mut().joining.insert(uid);
        let handle = self.handle.clone();
        let item = Item::JoinGroup {
            uid,
            view,
            has_state,
        };
        let done = move |result: std::result::Result<(), StoreError>| match result {
            Ok(()) => handle.post(Job::Group(GroupJob::Reopen(uid))),
            Err(error) => {
                tracing::warn!(%uid, %error, "no copy is made here");
                handle.post(Job::Group(GroupJob::NotJoined(uid)));
            }
        };
        store.submit(Batch::from(item), Box::new(done));
        Ok(())
    }

    /// What is known of a group here.
    pub(crate) fn group_report(&self, uid: Uid) -> Option<GroupReport> {
        let groups = self.groups.borrow();
        let group = groups.by_object.get(&uid)?;
        Some(GroupReport {
            object: uid,
            view: group.member.view().clone(),
            member: group.member.view().has(self.registry.me.node),
            leads: group.serves,
            installed: group.member.log().installed().index,
            staged: group.member.log().staged_len() as u64,
            wanted: group.wanted,
            placement: group.size.placement.clone(),
            lacking: group.lacks().to_owned(),
            executed: group.executed,
            differences: group.differences,
        })
    }

    /// Whether the store or the memory has the object.
    ///
    /// # Errors
    /// If the store cannot tell.
    pub(crate) fn has_object(&self, uid: Uid) -> Result<bool> {
        Ok(self.class_of(uid)?.is_some())
    }
}
