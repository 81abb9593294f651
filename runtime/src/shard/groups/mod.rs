//! Copies of objects at this shard: carries out `partha_core::group`.
//!
//! What a call changes at a replicated object is not written to the store by the call's own batch,
//! but is an entry of the group's log ([`entries`]): its bytes are that batch. It is complete when
//! every copy has it on disk; then the call is answered, and each copy installs it. An answer that
//! stands in no entry (a read, an exception) is held back until this copy knows that nobody else
//! leads ([`answers`]). Calls that come to a copy which does not lead are told who does.
//!
//! | module | does |
//! |---|---|
//! | [`entries`] | adds what calls change; writes the log; installs |
//! | [`executing`] | lets all copies execute calls, with the policy active |
//! | [`answers`] | turns calls away, holds answers back |
//! | [`reads`] | calls that a copy which follows may answer |
//! | [`news`] | messages between copies, with the bytes they need |
//! | [`parts`] | what actions have prepared, their decisions and ends |
//! | [`checkpoint`] | what running actions have of objects whose next leader takes that over |
//! | [`owed`] | ends of parts and checkpoints that find no room in a log |
//! | [`lead`] | what an action needs of leaders: that this copy surely is one, and who is one |
//! | [`takeover`] | actions when leads end and begin |
//! | [`state`] | a whole state on its way to a new copy |
//! | [`views`] | asks the binder; who is lost |
//! | [`size`] | how many copies there are: more are made, and those that are too many go |
//! | [`placement`] | at which nodes |
//! | [`open`] | makes groups, and finds them again at the start |

mod answers;
mod changing;
mod checkpoint;
mod entries;
mod executing;
mod lead;
mod news;
mod open;
mod owed;
mod parts;
mod placement;
mod reads;
mod size;
mod state;
mod takeover;
mod views;

pub(in crate::shard) use executing::Executed;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use partha_core::group::{Input, Member, Output, Role, Stamp};
use partha_core::id::{CallId, ClassId, NodeId, Uid};
use partha_core::time::Time;
use partha_core::{ObjectSlot, Ticket};
use partha_store::StoreError;

use super::{Incoming, Shard};
use crate::services::binder::{GroupPolicy, ViewChange};
use crate::wire::group::Page;

pub(crate) use self::changing::{Goal, Progress};
pub(crate) use self::news::Letter;
pub(crate) use self::open::{Claim, GroupReport, Opened};
pub(super) use self::reads::AtCopy;

/// How long a member promises not to replace its leader.
pub(super) const PROMISE_NS: u64 = 2_000_000_000;
/// Groups of one shard, at most.
pub(super) const GROUPS_MAX: usize = 100_000;

/// All groups that have a copy at this shard.
#[derive(Default)]
pub(super) struct Groups {
    by_object: BTreeMap<Uid, Group>,
    timers: BTreeSet<(Time, Uid)>,
    /// What members have asked for and is not done yet, in order.
    outputs: VecDeque<(Uid, Output)>,
    performing: bool,
    /// Calls whose answers are held back, and of which object.
    held: BTreeMap<Ticket, Uid>,
    /// Objects whose views are to be asked for.
    to_ask: BTreeSet<Uid>,
    /// Changes of views that are to be asked for.
    to_change: Vec<ViewChange>,
    /// Nodes that are being looked for.
    probed: BTreeSet<(NodeId, Duration)>,
    ticking: bool,
    /// Groups whose views have a node.
    by_node: BTreeMap<NodeId, BTreeSet<Uid>>,
    /// Groups that calls wait for.
    queued: BTreeSet<Uid>,
    sizes: size::Sizes,
    /// The last life of a copy.
    lives: u64,
    /// Counts changes of policies and leads that were asked for.
    changes: u64,
    sending: state::Sending,
    /// Objects that the store is just told have copies.
    joining: BTreeSet<Uid>,
    /// Counts entries that are no call's.
    named: u64,
    /// What is done for actions in several steps.
    plans: BTreeMap<parts::PlanKey, parts::Plan>,
    /// Objects with something that is tried again now and then: ends that are owed, what waits
    /// until this copy surely leads, decisions that are settled.
    busy: BTreeSet<Uid>,
    /// Of which action what was said last to whoever leads an object.
    told: lead::Told,
}

/// One copy.
struct Group {
    member: Member,
    /// Counts how often copies were opened here.
    life: u64,
    class: ClassId,
    /// As the binder says, once it has.
    policy: Option<GroupPolicy>,
    /// The number of the view of which that was said.
    policy_at: u64,
    /// It, or who leads, is to be another one.
    changing: Option<changing::Changing>,
    /// How many copies there should be.
    wanted: u16,
    armed: Option<Time>,
    /// The bytes of entries that are not installed.
    bodies: BTreeMap<Stamp, Bytes>,
    /// Calls that all copies execute, as the others are told of them, by their entries.
    executions: BTreeMap<Stamp, Bytes>,
    /// Who was told of which of them.
    told_once: BTreeSet<(Stamp, NodeId)>,
    /// This copy has come to something else than its leader: if it is excluded, it begins anew.
    is_doubtful: bool,
    /// The state that this copy has come to by executing.
    reached: Option<executing::Reached>,
    /// Calls that were executed here after another copy had.
    executed: u64,
    /// Those of them that came to something else.
    differences: u64,
    /// Entries that are being added, by their names.
    adding: BTreeMap<u64, (entries::Of, Bytes)>,
    /// What waits until entries are complete.
    entries: BTreeMap<Stamp, entries::Of>,
    /// What waits until the store shows entries that are complete.
    complete: VecDeque<(u64, entries::Of)>,
    /// The action that has a part in the log, as far as this copy leads.
    part: Option<Uid>,
    /// Ends and checkpoints that found no room: nothing else is added before them.
    owed: VecDeque<owed::Owed>,
    /// The bytes of a checkpoint of an earlier leader, until the engine says what becomes of them.
    resumed: Option<checkpoint::Resumed>,
    /// Decisions that nobody is to be told of any more; said with the next entry.
    settled: Vec<Uid>,
    /// What waits until this copy surely leads.
    unsure: Vec<lead::Unsure>,
    /// Writes under way: their numbers, and up to where each installs.
    writes: VecDeque<(u64, Option<u64>)>,
    /// The entry up to which the store shows all.
    visible: u64,
    /// What waits until the store shows all that is complete.
    waiting: Vec<Waiting>,
    /// Answers and ends of calls that wait until this copy may answer.
    held: VecDeque<answers::Held>,
    /// Copies that wait for a state.
    wants_state: BTreeSet<NodeId>,
    /// A state that is arriving, and one that has arrived and is to be written.
    arriving: Option<state::Arriving>,
    arrived: Vec<Page>,
    /// Calls that wait until it is known who leads, and since when.
    incoming: VecDeque<(std::time::Instant, Incoming)>,
    /// Calls that read here though this copy follows, once there was one.
    reads: Option<Box<reads::Reads>>,
    /// It leads, and what was in memory from before has gone.
    serves: bool,
    size: size::Size,
    /// The members that it is found by.
    found_by: Vec<NodeId>,
    /// Its state is being read for a copy.
    sending: bool,
    /// It could not be written, and will begin again.
    reopening: bool,
    /// The leader's node was not reached when it was last tried.
    leader_lost: bool,
}

/// What happens to groups from outside of the shard's thread.
pub(crate) enum GroupJob {
    /// A copy at another node says something.
    News(Letter),
    /// The store has done a write of a log, or could not.
    Written {
        uid: Uid,
        /// Of which life of the copy it is.
        life: u64,
        job: u64,
        result: Result<(), StoreError>,
    },
    /// A group that the store had when the node was started.
    Open(Box<Opened>),
    /// A group that the store has now.
    Reopen(Uid),
    /// The store was not told that there is a copy.
    NotJoined(Uid),
    /// A broken copy that could not be made anew.
    Broken(Uid),
}

/// What the engine has asked for, of a state that the store does not show yet.
#[derive(Clone, Copy)]
enum Waiting {
    Load {
        uid: Uid,
        slot: ObjectSlot,
    },
    Search {
        ticket: Ticket,
        call: CallId,
    },
    Decision {
        job: partha_core::Job,
        action: Uid,
        decider: Uid,
    },
}

impl Groups {
    /// Whether an object is a group.
    pub(super) fn has(&self, uid: Uid) -> bool {
        self.by_object.contains_key(&uid)
    }

    pub(super) fn next_timeout(&self) -> Option<Time> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Whether any group has a copy at a node.
    pub(super) fn concern(&self, node: NodeId) -> bool {
        self.by_node.contains_key(&node)
    }

    /// The groups that have a copy at a node.
    fn with(&self, node: NodeId) -> Vec<Uid> {
        let groups = self.by_node.get(&node).into_iter().flatten();
        groups.copied().collect()
    }

    /// The view of a group may be another one: it is found by the members of that.
    fn file(&mut self, uid: Uid) {
        let Some(group) = self.by_object.get_mut(&uid) else {
            return;
        };
        let members = &group.member.view().members;
        if group.found_by == *members {
            return;
        }
        let before = std::mem::replace(&mut group.found_by, members.clone());
        for node in &group.found_by {
            self.by_node.entry(*node).or_default().insert(uid);
        }
        for node in before {
            if !self.by_object[&uid].found_by.contains(&node) {
                self.unfile(uid, node);
            }
        }
    }

    fn unfile(&mut self, uid: Uid, node: NodeId) {
        if let Some(groups) = self.by_node.get_mut(&node) {
            groups.remove(&uid);
            if groups.is_empty() {
                self.by_node.remove(&node);
            }
        }
    }

    /// Enters a copy.
    fn enter(&mut self, uid: Uid, group: Group) {
        let queues = !group.incoming.is_empty();
        self.by_object.insert(uid, group);
        if queues {
            self.queued.insert(uid);
        }
        self.file(uid);
        self.rearm(uid);
    }

    /// Takes a copy out.
    fn take(&mut self, uid: Uid) -> Option<Group> {
        self.look_no_more(uid);
        self.queued.remove(&uid);
        let group = self.by_object.remove(&uid)?;
        if let Some(armed) = group.armed {
            self.timers.remove(&(armed, uid));
        }
        for node in &group.found_by {
            self.unfile(uid, *node);
        }
        Some(group)
    }

    fn rearm(&mut self, uid: Uid) {
        let Some(group) = self.by_object.get_mut(&uid) else {
            return;
        };
        let next = group.member.next_timeout();
        if next == group.armed {
            return;
        }
        if let Some(armed) = group.armed {
            self.timers.remove(&(armed, uid));
        }
        group.armed = next;
        if let Some(next) = next {
            self.timers.insert((next, uid));
        }
    }
}

impl Group {
    fn new(member: Member, class: ClassId, wanted: u16) -> Self {
        let visible = member.log().installed().index;
        Self {
            member,
            life: 0,
            class,
            policy: None,
            policy_at: 0,
            changing: None,
            wanted,
            armed: None,
            bodies: BTreeMap::new(),
            executions: BTreeMap::new(),
            told_once: BTreeSet::new(),
            is_doubtful: false,
            reached: None,
            executed: 0,
            differences: 0,
            adding: BTreeMap::new(),
            entries: BTreeMap::new(),
            complete: VecDeque::new(),
            part: None,
            owed: VecDeque::new(),
            resumed: None,
            settled: Vec::new(),
            unsure: Vec::new(),
            writes: VecDeque::new(),
            visible,
            waiting: Vec::new(),
            held: VecDeque::new(),
            wants_state: BTreeSet::new(),
            arriving: None,
            arrived: Vec::new(),
            incoming: VecDeque::new(),
            reads: None,
            serves: false,
            size: size::Size::default(),
            found_by: Vec::new(),
            sending: false,
            reopening: false,
            leader_lost: false,
        }
    }

    fn leads(&self) -> bool {
        self.member.role() == Role::Leading { active: true }
    }

    /// Whether something of it is to be tried again.
    fn is_busy(&self) -> bool {
        !(self.owed.is_empty() && self.unsure.is_empty() && self.settled.is_empty())
    }

    /// Whether the store shows all that is complete.
    fn is_current(&self) -> bool {
        self.visible >= self.member.complete()
    }
}

impl Shard {
    /// Whether an object has copies, of which one is here.
    pub(crate) fn is_group(&self, uid: Uid) -> bool {
        self.has_groups.get() && self.groups.borrow().has(uid)
    }

    /// Whether an object has copies, or is just about to.
    pub(crate) fn is_or_becomes_group(&self, uid: Uid) -> bool {
        let groups = self.groups.borrow();
        groups.has(uid) || groups.joining.contains(&uid)
    }

    /// Whether an object has copies, one of them here, and whoever leads it next takes over what
    /// running actions have of it. None if that is not known yet.
    pub(crate) fn is_cohort(&self, uid: Uid) -> Option<bool> {
        if !self.has_groups.get() {
            return Some(false);
        }
        let groups = self.groups.borrow();
        match groups.by_object.get(&uid) {
            Some(group) => group.policy.map(GroupPolicy::takes_over),
            None => Some(false),
        }
    }

    /// Does what others ask of the shard about groups.
    pub(super) fn group_job(self: &Rc<Self>, job: GroupJob) {
        match job {
            GroupJob::News(letter) => {
                self.handle.message_taken();
                self.group_news(letter);
            }
            GroupJob::Written {
                uid,
                life,
                job,
                result,
            } => self.group_written(uid, (life, job), result),
            GroupJob::Open(opened) => self.open_group(*opened),
            GroupJob::NotJoined(uid) => {
                self.groups.borrow_mut().joining.remove(&uid);
            }
            GroupJob::Broken(uid) => self.renew_later(uid),
            GroupJob::Reopen(uid) => {
                if let Some(store) = self.registry.store.clone() {
                    self.open_group(Opened::read(&*store, uid));
                }
            }
        }
    }

    /// Something happens to a copy.
    fn group_input(self: &Rc<Self>, uid: Uid, input: Input) {
        let now = self.now();
        let mut out = Vec::new();
        {
            let mut groups = self.groups.borrow_mut();
            let Some(group) = groups.by_object.get_mut(&uid) else {
                return;
            };
            let is_view = matches!(input, Input::View(_));
            group.member.handle(now, input, &mut out);
            groups.outputs.extend(out.drain(..).map(|it| (uid, it)));
            if is_view {
                groups.file(uid);
            }
            groups.rearm(uid);
        }
        self.perform();
    }

    /// What is due of all groups.
    pub(super) fn groups_time_out(self: &Rc<Self>) {
        let now = self.now();
        loop {
            let mut groups = self.groups.borrow_mut();
            let due = groups.timers.first().copied();
            let Some(due) = due.filter(|(at, _)| *at <= now) else {
                break;
            };
            groups.timers.remove(&due);
            let uid = due.1;
            let mut out = Vec::new();
            if let Some(group) = groups.by_object.get_mut(&uid) {
                group.armed = None;
                group.member.handle_timeout(now, &mut out);
            }
            groups.outputs.extend(out.drain(..).map(|it| (uid, it)));
            groups.rearm(uid);
            drop(groups);
            self.perform();
        }
    }

    /// Does what members have asked for, in order. What comes of it is done afterwards.
    fn perform(self: &Rc<Self>) {
        {
            let mut groups = self.groups.borrow_mut();
            if std::mem::replace(&mut groups.performing, true) {
                return;
            }
        }
        loop {
            let next = self.groups.borrow_mut().outputs.pop_front();
            let Some((uid, output)) = next else { break };
            self.perform_one(uid, output);
        }
        self.groups.borrow_mut().performing = false;
        self.rearm();
    }

    fn perform_one(self: &Rc<Self>, uid: Uid, output: Output) {
        match output {
            Output::AskView => self.ask_view(uid),
            Output::Change(change) => self.ask_change(uid, change),
            Output::Send { to, message } => self.send_news(uid, to, message),
            Output::Write { job, write } => self.write_log(uid, job, write),
            Output::Added { entry, stamp } => self.entry_added(uid, entry, stamp),
            // The answer to adding one, which is asked for and answered at once.
            Output::NotAdded { .. } => {}
            Output::Complete { stamp } => self.entry_complete(uid, stamp),
            Output::Leads { view } => {
                tracing::info!(%uid, view = view.number, copies = view.members.len(), "leads");
                self.note_leading(uid, view.number);
                self.begin_serving(uid);
            }
            Output::Confirmed => {
                self.release_held(uid);
                self.go_on_when_sure(uid);
            }
            Output::Read { read, index } => self.read_here(uid, read, index),
            Output::ReadElsewhere { read } => self.read_elsewhere(uid, read),
            Output::Deposed => {
                tracing::info!(%uid, "leads no more");
                self.deposed(uid);
            }
        }
    }
}
