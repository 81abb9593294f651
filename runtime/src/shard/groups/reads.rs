//! Reads at a copy that follows: calls of methods that any copy may answer (`#[any_replica]`).
//!
//! When a call may be done here the machine decides, see `partha_core::group::member::reading`;
//! whoever may not is sent to the leader. The engine loads the object and runs the call as any
//! other. What it does not do here is to keep writers away: what the leader's calls change is
//! installed while calls read. The state in memory is of one moment, and no later call is let in
//! to one that is older than what it has to show. Rows are read from the store; if something was
//! installed since the state was loaded they are not of that [`Moment`], and the call is sent to
//! the leader as if it had not been executed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use partha_core::group::member::READ_NS;
use partha_core::group::{Input, Role};
use partha_core::id::{NodeId, Uid};
use partha_core::{Input as EngineInput, Ticket};
use partha_wire::Message;

use super::Group;
use crate::error::SystemError;
use crate::rows::Moment;
use crate::shard::arrive::Entry;
use crate::shard::{Incoming, ReplyTo, Shard};
use crate::wire::context::CallContext;

/// Between two looks whether the state in memory has gone that is too old.
const LOOK: Duration = Duration::from_millis(5);

/// What a copy knows of calls that read here.
#[derive(Default)]
pub(super) struct Reads {
    /// Those of which it is not known yet whether they may, by the names that the machine knows.
    waiting: BTreeMap<u64, Incoming>,
    last: u64,
    /// Those that may, and wait until older ones are over: since when, and what they have to show.
    ready: VecDeque<(Instant, u64, Incoming)>,
    /// Those that run.
    running: BTreeSet<Ticket>,
    /// The entry up to which the state in memory has all.
    loaded: Option<u64>,
    /// The last entry that the store was told to install.
    installing: Arc<AtomicU64>,
}

/// What is kept of a call that reads here.
pub(in crate::shard) struct AtCopy {
    moment: Option<Arc<Moment>>,
    /// For a caller in this process, who has given them away.
    parameters: Option<Message>,
}

impl Reads {
    /// Nothing that was loaded so far is of the present.
    fn is_past(&self) {
        self.installing.store(u64::MAX, Ordering::Release);
    }

    /// The calls that have not begun.
    pub(super) fn take_waiting(&mut self) -> impl Iterator<Item = Incoming> + use<> {
        self.is_past();
        let waiting = std::mem::take(&mut self.waiting).into_values();
        let ready = std::mem::take(&mut self.ready).into_iter();
        waiting.chain(ready.map(|(.., incoming)| incoming))
    }
}

impl AtCopy {
    pub(in crate::shard) fn new(incoming: &Incoming) -> Self {
        let given_away = matches!(incoming.reply, ReplyTo::Channel(_));
        Self {
            moment: None,
            parameters: given_away.then(|| incoming.parameters.clone()),
        }
    }
}

impl Group {
    fn reads(&mut self) -> &mut Reads {
        let visible = self.visible;
        let installs = self.writes.iter().rev().find_map(|(_, install)| *install);
        self.reads.get_or_insert_with(|| {
            let installing = Arc::new(AtomicU64::new(installs.unwrap_or(visible)));
            Box::new(Reads {
                installing,
                ..Reads::default()
            })
        })
    }

    /// The store is about to be told to install entries.
    pub(super) fn installs(&self, index: u64) {
        if let Some(reads) = &self.reads {
            reads.installing.store(index, Ordering::Release);
        }
    }
}

impl Shard {
    /// Whether a call may perhaps be done at this copy, which follows: it only reads, of no action.
    pub(super) fn may_read(&self, group: &Group, incoming: &Incoming) -> bool {
        if group.member.role() != Role::Following || group.leader_lost || incoming.create.is_some()
        {
            return false;
        }
        let method = self.registry.method(incoming.interface, incoming.method);
        if !method.is_some_and(|method| method.any_replica) {
            return false;
        }
        let context = incoming.parameters.reader();
        let context = context.and_then(CallContext::of_parameters);
        context.is_ok_and(|context| context.actions.is_none())
    }

    /// Has the machine find out whether a call may be done here.
    pub(super) fn ask_to_read(self: &Rc<Self>, uid: Uid, incoming: Incoming) {
        let read = {
            let mut groups = self.groups.borrow_mut();
            let Some(group) = groups.by_object.get_mut(&uid) else {
                return;
            };
            let reads = group.reads();
            reads.last += 1;
            reads.waiting.insert(reads.last, incoming);
            reads.last
        };
        self.group_input(uid, Input::Read { read });
    }

    /// A call may be done here, by a state that has all entries up to `index`.
    pub(super) fn read_here(self: &Rc<Self>, uid: Uid, read: u64, index: u64) {
        if let Some(incoming) = self.waiting_read(uid, read) {
            self.let_in(uid, (Instant::now(), index, incoming));
        }
    }

    /// A call is to be done at the leader.
    pub(super) fn read_elsewhere(self: &Rc<Self>, uid: Uid, read: u64) {
        if let Some(incoming) = self.waiting_read(uid, read) {
            self.send_on(uid, incoming);
        }
    }

    fn waiting_read(&self, uid: Uid, read: u64) -> Option<Incoming> {
        let mut groups = self.groups.borrow_mut();
        let group = groups.by_object.get_mut(&uid)?;
        group.reads.as_mut()?.waiting.remove(&read)
    }

    /// A call that is not done at this copy: at the leader, or here if this is one by now.
    fn send_on(self: &Rc<Self>, uid: Uid, incoming: Incoming) {
        let waits = {
            let groups = self.groups.borrow();
            let group = groups.by_object.get(&uid);
            group.is_some_and(|group| !group.serves)
        };
        if waits {
            self.turn_away(incoming);
        } else {
            self.invoke(incoming);
        }
    }

    /// Lets a call in, unless the state in memory is too old for it and in use.
    fn let_in(self: &Rc<Self>, uid: Uid, (since, index, incoming): (Instant, u64, Incoming)) {
        if self.is_outdated(uid) {
            self.feed(EngineInput::Evict { uid });
        }
        if !self.is_too_old(uid, index) {
            self.take_in(incoming, true);
            return;
        }
        let first = {
            let mut groups = self.groups.borrow_mut();
            let Some(group) = groups.by_object.get_mut(&uid) else {
                drop(groups);
                self.invoke(incoming);
                return;
            };
            let ready = &mut group.reads().ready;
            ready.push_back((since, index, incoming));
            ready.len() == 1
        };
        if first {
            let shard = self.clone();
            self.spawn(async move {
                tokio::time::sleep(LOOK).await;
                shard.let_ready_in(uid);
            });
        }
    }

    fn let_ready_in(self: &Rc<Self>, uid: Uid) {
        let (follows, ready) = {
            let mut groups = self.groups.borrow_mut();
            let Some(group) = groups.by_object.get_mut(&uid) else {
                return;
            };
            let follows = group.member.role() == Role::Following;
            (follows, std::mem::take(&mut group.reads().ready))
        };
        for one in ready {
            if !follows || one.0.elapsed() > Duration::from_nanos(READ_NS) {
                self.send_on(uid, one.2);
            } else {
                self.let_in(uid, one);
            }
        }
    }

    /// Whether the state in memory lacks what the store shows, and nothing runs on it.
    fn is_outdated(&self, uid: Uid) -> bool {
        let groups = self.groups.borrow();
        let group = groups.by_object.get(&uid);
        let outdated = group.is_some_and(|group| {
            let reads = group.reads.as_ref();
            reads.is_none_or(|reads| {
                let loaded = reads.loaded.is_some_and(|loaded| loaded >= group.visible);
                !loaded && reads.running.is_empty()
            })
        });
        outdated && self.catalog.borrow().is_active(uid)
    }

    /// Whether the state in memory lacks what a call has to show.
    fn is_too_old(&self, uid: Uid, index: u64) -> bool {
        let loaded = {
            let groups = self.groups.borrow();
            let group = groups.by_object.get(&uid);
            group.and_then(|group| group.reads.as_ref()?.loaded)
        };
        loaded.is_none_or(|loaded| loaded < index) && self.catalog.borrow().is_active(uid)
    }

    /// A state was loaded that has all that the store shows.
    pub(in crate::shard) fn note_loaded(&self, uid: Uid) {
        if let Some(group) = self.groups.borrow_mut().by_object.get_mut(&uid) {
            let visible = group.visible;
            if let Some(reads) = &mut group.reads {
                reads.loaded = Some(visible);
            }
        }
    }

    /// A call that reads here is about to be handed to the engine.
    pub(in crate::shard) fn note_read(&self, uid: Uid, ticket: Ticket) {
        if let Some(group) = self.groups.borrow_mut().by_object.get_mut(&uid) {
            group.reads().running.insert(ticket);
        }
    }

    /// It is over.
    pub(in crate::shard) fn forget_read(&self, uid: Uid, ticket: Ticket) {
        if let Some(group) = self.groups.borrow_mut().by_object.get_mut(&uid)
            && let Some(reads) = &mut group.reads
        {
            reads.running.remove(&ticket);
        }
    }

    /// The moment that a call which begins here reads.
    pub(in crate::shard) fn moment_of(&self, entry: &mut Entry) -> Option<Arc<Moment>> {
        let at_copy = entry.at_copy.as_mut()?;
        let groups = self.groups.borrow();
        let reads = groups.by_object.get(&entry.object)?.reads.as_ref()?;
        // Without a state that was loaded for it nothing is of its moment.
        let loaded = reads.loaded.unwrap_or(u64::MAX - 1);
        let moment = Arc::new(Moment::new(reads.installing.clone(), loaded));
        at_copy.moment = Some(moment.clone());
        Some(moment)
    }

    /// The error of a call that has read rows which are not of its moment.
    pub(in crate::shard) fn outpaced(&self, entry: &mut Entry) -> Option<SystemError> {
        let at_copy = entry.at_copy.as_mut()?;
        let moment = at_copy.moment.as_ref()?;
        if !moment.was_left() {
            return None;
        }
        let uid = entry.object;
        Some(match self.led_elsewhere(uid) {
            Ok(to) => self.led_by(uid, to, at_copy.parameters.take()),
            Err(error) => error,
        })
    }

    /// This copy is about to lead: who reads here still is to ask again.
    pub(super) fn end_reads(self: &Rc<Self>, uid: Uid) {
        let running: Vec<Ticket> = {
            let groups = self.groups.borrow();
            let group = groups.by_object.get(&uid);
            let reads = group.and_then(|group| group.reads.as_ref());
            reads.map_or_else(Vec::new, |it| it.running.iter().copied().collect())
        };
        for ticket in running {
            let reply = {
                let mut entries = self.entries.borrow_mut();
                entries.find_mut(ticket).and_then(|it| it.reply.take())
            };
            if let Some(reply) = reply {
                reply.fail(self.leads_no_more(uid));
            }
            self.feed(EngineInput::Cancel { ticket });
        }
    }

    /// Whether reads may be done elsewhere of what is led here: not while something is prepared,
    /// which may be told to be done before it is in the log.
    pub(super) fn share_reads(self: &Rc<Self>, uid: Uid) {
        let open = {
            let groups = self.groups.borrow();
            let group = groups.by_object.get(&uid);
            group.is_some_and(|group| group.serves && group.part.is_none())
        };
        self.group_input(uid, if open { Input::Open } else { Input::Shut });
    }

    /// The nodes that have copies of an object that is led here, the leader first.
    pub(in crate::shard) fn copies_of(&self, uid: Uid) -> Vec<NodeId> {
        if !self.has_groups.get() {
            return Vec::new();
        }
        let groups = self.groups.borrow();
        let group = groups.by_object.get(&uid);
        group.map_or_else(Vec::new, |group| group.member.view().members.clone())
    }
}
