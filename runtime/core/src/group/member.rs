//! One copy's life in its group.
//!
//! | role | it | becomes |
//! |---|---|---|
//! | Unsure | has restarted and has asked for the view | by the view: Renewing, Following, Outside |
//! | Outside | is no member; asks the leader to bring it up to date | Following, when the view has it |
//! | Following | stages what the leader says | Taking over, when the leader is gone |
//! | Taking over | has asked the binder to lead | Leading (syncing); else by the view |
//! | Renewing | leads by the view, but an earlier life may have led under this number | Leading (syncing) |
//! | Leading, syncing | makes the members' logs its own | Leading, active, when all have it and it is installed |
//! | Leading, active | adds entries, each complete when all members have it | by a newer view: deposed |
//!
//! The rules that keep acknowledged entries:
//!
//! 1. An entry is complete when every member of the present view has it on disk; a member may be
//!    left out only after the binder has taken it out of the view.
//! 2. A member is included only when it has everything, and everything that is added while the
//!    binder is asked waits for it already.
//! 3. Whoever begins to lead makes all members' logs its own first, and completes what it found.
//! 4. A view is led by one process in one life: a restarted leader asks for a new number.
//! 5. Nothing of an older view is taken.
//!
//! # Promises
//!
//! A leader may be replaced without knowing, and would then answer from a state that is not the
//! latest. So each member that answers the leader promises not to take over for a time. The
//! leader counts from when it asked, the other from when it answered, which is later; so while
//! the promises of all members run, nobody else leads, and the leader may answer from memory
//! ([`Member::serves_until`]). Entries that are added renew them; a leader that has none and is
//! asked to read gets some first ([`Input::Confirm`]): a group that nobody uses costs nothing. A
//! member need not keep its promise to a process that is known to have ended, which serves nobody;
//! one that restarts keeps what its earlier life may have promised. These are the leases of Gray
//! and Cheriton (1989), given by those who could do harm.
//!
//! What it does not do: suspect anybody. The shell says that a node is not heard of
//! ([`Input::Lost`]).

mod differing;
mod following;
mod leading;
mod reading;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

pub use differing::{Digest, SPARED_NS};
pub use reading::{READ_NS, READS_MAX};

use self::differing::Differing;
use self::reading::Reads;
use super::log::{Log, Stamp};
use super::message::{Input, Message, Output, Write};
use super::view::{Change, Policy, View, Wish};
use crate::id::NodeId;
use crate::time::Time;

/// Entries that may wait to become complete: over it, no more are taken.
pub const STAGED_MAX: usize = 1_024;
/// A member that has not answered is told again after this.
pub const RESEND_NS: u64 = 100_000_000;
/// A copy whose log is not the leader's yet is told again after this.
pub const RETELL_NS: u64 = 25_000_000;
/// A whole state is sent again after this.
pub const STATE_AGAIN_NS: u64 = 2_000_000_000;
/// A copy that is no member and has said nothing for so long is forgotten, until it says hello.
pub const FORGET_NS: u64 = 5_000_000_000;
/// A member that has acknowledged nothing new for so long, while there was something, is excluded.
pub const SICK_NS: u64 = 10_000_000_000;
/// The binder is asked again after this.
pub const ASK_AGAIN_NS: u64 = 200_000_000;
/// Later members wait so much longer each before they take over, so that they rarely compete.
pub const STEP_NS: u64 = 50_000_000;
/// Nothing is installed for so long, at most, while a copy is brought up to date: it would miss
/// it. One that takes longer has to do without for a while, and gets what it can.
pub const JOIN_NS: u64 = 2_000_000_000;
/// How long that while is at first; twice as long each time, up to 256 times.
pub const SLOW_NS: u64 = 1_000_000_000;
/// Copies of which it is remembered.
const SLOW_MAX: usize = 64;
/// A member that has not heard from its leader for so long asks whether it still is one; a leader
/// says so often that it leads.
pub const CHECK_NS: u64 = 5_000_000_000;
/// Members hear at the latest then that entries are complete, if nothing else is said.
pub const TELL_COMPLETE_NS: u64 = 20_000_000;

/// A rule left out on purpose, so that a simulation can show that it would notice.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Rule 1: wait for all members.
    WaitForAll,
    /// Rule 1: exclude at the binder before going on without a member.
    ExcludeFirst,
    /// Rule 2: include only what has everything.
    IncludeComplete,
    /// Rule 2: what is added while the binder is asked waits for the copy to be included.
    IncludeCounts,
    /// Rule 3: make the logs equal first.
    SyncFirst,
    /// Rule 4: ask for a new number after a restart.
    Renew,
    /// Rule 5: take nothing of an older view.
    Fence,
    /// Acknowledge only what is on disk.
    DiskFirst,
    /// Keep promises not to replace a leader.
    KeepPromise,
    /// Serve only while everybody's promise holds.
    AskPromise,
    /// Ask the leader before a read at another copy.
    AskToRead,
    /// Read when the store shows what the leader has said.
    ReadShown,
    /// No reads elsewhere while something is prepared.
    ShutReads,
    /// Reads elsewhere wait for what has ended it.
    ReadEnds,
    /// Nothing is added while the policy changes.
    PolicyAlone,
    /// A view changes only for who names its number. For the simulated binder.
    NameView,
}

/// What a copy is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// See the table of the module.
    Unsure,
    /// See the table of the module.
    Outside,
    /// See the table of the module.
    Following,
    /// See the table of the module.
    TakingOver,
    /// See the table of the module.
    Renewing,
    /// See the table of the module.
    Leading {
        /// It serves.
        active: bool,
    },
}

/// What the leader knows of another copy.
#[derive(Clone, Debug)]
struct Other {
    /// The last entry it has on disk; none before it has adopted the leader's log.
    has: Option<Stamp>,
    /// It has to have an entry before that is complete.
    counts: bool,
    /// When it is told again.
    resend: Time,
    /// Its installed entry, when it last said hello: where it is to be told from. None if it has
    /// no state.
    base: Option<Stamp>,
    /// Until when it has promised not to take over.
    promised: Time,
    /// The number of the view that it knew of when it last said hello.
    number: u64,
    /// When it last said anything.
    heard: Time,
    /// Until when what it has not got is kept for it, while it is brought up to date.
    kept_until: Time,
    /// Since when it has not acknowledged what it was told.
    behind_since: Option<Time>,
    lost: bool,
}

/// A write under way.
#[derive(Clone, Copy, Debug)]
struct Writing {
    job: u64,
    /// The last entry after it, and the last one that is a part of the state.
    last: Stamp,
    installed: u64,
    /// The number of the view.
    number: u64,
}

/// One copy of one group.
#[derive(Debug)]
pub struct Member {
    me: NodeId,
    view: View,
    log: Log,
    role: Role,
    without: Option<Rule>,
    /// How long a promise binds.
    promise_ns: u64,
    /// Until when it must not take over.
    bound: Time,
    /// The leader's time that is to be answered.
    asked_at: Time,
    /// Somebody waits for promises.
    confirms: bool,
    /// The index up to which entries are complete, as far as is known.
    complete: u64,
    /// Writes under way.
    writes: VecDeque<Writing>,
    last_job: u64,
    /// The last entry that is on disk.
    durable: Stamp,
    /// It has no state: it is a copy to come, or what it had is broken.
    empty: bool,
    /// The leader's log was adopted in this view.
    adopted: bool,
    /// The other copies, if this one leads; members and such that want to be.
    others: BTreeMap<NodeId, Other>,
    /// Copies that something was kept for, until when nothing is again, and how often.
    slow: BTreeMap<NodeId, (Time, u32)>,
    /// A question to the binder, and when it is asked again.
    asked: Option<(Wish, Time)>,
    ask_view: Time,
    hello: Time,
    take_over: Time,
    check: Time,
    tell: Time,
    hand_over: Option<NodeId>,
    /// The policy that is to be asked for, or is asked for.
    policy: Option<Policy>,
    differing: Differing,
    reads: Reads,
}

impl Member {
    /// A copy as a restart finds it, or as it was just made: with the view it last knew of, and
    /// its log. It asks for the view before anything else.
    ///
    /// Promises bind for `promise_ns`, the same at all members; whatever an earlier life has
    /// promised has ended at `bound`.
    #[must_use]
    pub fn new(me: NodeId, view: View, log: Log, promise_ns: u64, bound: Time) -> Self {
        let (durable, complete) = (log.last(), log.installed().index);
        let reads = Reads::new(complete);
        Self {
            me,
            view,
            log,
            role: Role::Unsure,
            without: None,
            promise_ns,
            bound,
            asked_at: Time(0),
            confirms: false,
            complete,
            writes: VecDeque::new(),
            last_job: 0,
            durable,
            empty: false,
            adopted: false,
            others: BTreeMap::new(),
            slow: BTreeMap::new(),
            asked: None,
            ask_view: Time(0),
            hello: Time::NEVER,
            take_over: Time::NEVER,
            check: Time::NEVER,
            tell: Time::NEVER,
            hand_over: None,
            policy: None,
            differing: Differing::default(),
            reads,
        }
    }

    /// A copy that has no state: a copy to come, or one whose state is broken. It waits for one,
    /// and never leads: where the view says that it does, it asks for another member to.
    #[must_use]
    pub fn without_state(self) -> Self {
        Self {
            empty: true,
            ..self
        }
    }

    /// A copy with a known mistake, for tests of tests.
    #[doc(hidden)]
    #[must_use]
    pub fn lacking(mut self, rule: Option<Rule>) -> Self {
        self.without = rule;
        self
    }

    /// What it is.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// The latest view that it knows of.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Whether it has taken over the log of the leader of its view: it may be a member by now.
    #[must_use]
    pub fn has_adopted(&self) -> bool {
        self.adopted
    }

    /// Whether it has asked the binder for a change and does not know what has become of that.
    #[must_use]
    pub fn asks(&self) -> bool {
        self.asked.is_some()
    }

    /// The index up to which entries are complete, as far as this copy knows.
    #[must_use]
    pub fn complete(&self) -> u64 {
        self.complete
    }

    /// Until when it may answer from its state: it leads, and nobody else does before.
    #[must_use]
    pub fn serves_until(&self) -> Time {
        if self.role != (Role::Leading { active: true }) {
            return Time(0);
        }
        if !self.keeps(Rule::AskPromise) {
            return Time::NEVER;
        }
        // One that the binder is asked to include may be a member already, and lead next.
        let counting = self.others.values().filter(|other| other.counts);
        let promised = counting.map(|other| other.promised);
        promised.min().unwrap_or(Time::NEVER)
    }

    /// Takes in what happened at `now`, and appends what is to be done about it.
    ///
    /// # Panics
    /// If the shell answers writes out of order.
    pub fn handle(&mut self, now: Time, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::View(view) => self.seen(now, view, out),
            Input::Add { entry } => self.add(now, entry, out),
            Input::Message { from, message } => self.message(now, from, message, out),
            Input::Written { job } => self.written(now, job, out),
            Input::Lost { node, ended } => self.lost(now, node, ended, out),
            Input::Confirm => self.confirm(now, out),
            Input::Found { node } => self.found(now, node),
            Input::HandOver { to } => self.hand_over(now, to, out),
            Input::Policy { policy } => self.change_policy(now, policy, out),
            Input::Read { read } => self.read(now, read, out),
            Input::Shut => self.shut(),
            Input::Open => self.open(),
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Time, out: &mut Vec<Output>) {
        if self.ask_view <= now {
            self.ask_view = match self.role {
                Role::Unsure => now_plus(now, ASK_AGAIN_NS),
                Role::Outside
                | Role::Following
                | Role::TakingOver
                | Role::Renewing
                | Role::Leading { .. } => Time::NEVER,
            };
            out.push(Output::AskView);
        }
        if let Some((wish, at)) = self.asked
            && at <= now
        {
            self.ask(now, wish, out);
        }
        if self.hello <= now {
            self.say_hello(now, out);
        }
        if self.take_over <= now {
            self.take_over(now, out);
        }
        if self.check <= now {
            self.check_view(now, out);
        }
        self.expire_reads(now, out);
        self.tell_others(now, out);
        self.keep_no_longer(now);
        self.advance(now, out);
    }

    /// When to call [`Member::handle_timeout`] at the latest.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Time> {
        let asked = self.asked.map_or(Time::NEVER, |(_, at)| at);
        let others = self.next_resend();
        let all = [
            self.ask_view,
            asked,
            self.hello,
            self.take_over,
            self.check,
            self.tell,
            others,
            self.reads.next_timeout(),
        ];
        let next = all.into_iter().min().unwrap_or(Time::NEVER);
        (next != Time::NEVER).then_some(next)
    }

    fn keeps(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    /// Asks the binder for a change.
    fn ask(&mut self, now: Time, wish: Wish, out: &mut Vec<Output>) {
        self.asked = Some((wish, now_plus(now, ASK_AGAIN_NS)));
        out.push(Output::Change(Change {
            expected: self.view.number,
            by: self.me,
            wish,
        }));
    }

    /// The binder, or somebody who has asked it, says what the view is.
    fn seen(&mut self, now: Time, view: View, out: &mut Vec<Output>) {
        if view.number < self.view.number {
            return;
        }
        let asked = self.asked.map(|(wish, _)| wish);
        if view.number == self.view.number && self.role != Role::Unsure {
            // News of before the change that was asked for; or it was refused, which comes to the
            // same: under this number it may still be done, so it is what is asked for.
            return;
        }
        self.end_reads(out);
        let next = view.number == self.view.number + 1;
        let goes_on = view.leader() == self.me && next && self.by_wish(&view, asked);
        self.view = view;
        self.asked = None;
        if let (true, Some(Wish::Policy(_))) = (goes_on, asked) {
            self.policy = None;
        }
        self.ask_view = Time::NEVER;
        self.take_over = Time::NEVER;
        self.hello = Time::NEVER;
        self.adopted = false;
        self.asked_at = Time(0);
        if self.view.leader() == self.me && self.empty {
            self.role = Role::Renewing;
            return self.give_way(now, out);
        }
        if self.view.leader() == self.me {
            match (self.role, goes_on) {
                (Role::Leading { .. }, true) => self.go_on(now, out),
                (Role::TakingOver | Role::Renewing, true) => self.begin(now, out),
                (Role::Unsure, _) if !self.keeps(Rule::Renew) => self.begin(now, out),
                _ => {
                    self.depose(out);
                    self.role = Role::Renewing;
                    self.ask(now, Wish::Renew, out);
                }
            }
            return;
        }
        self.depose(out);
        (self.role, self.check) = if self.view.has(self.me) {
            (Role::Following, now_plus(now, CHECK_NS))
        } else {
            (Role::Outside, Time::NEVER)
        };
        self.say_hello(now, out);
    }

    /// It is to lead and cannot.
    fn give_way(&mut self, now: Time, out: &mut Vec<Output>) {
        let mut others = self.view.others(self.me);
        if let Some(to) = others.next() {
            drop(others);
            self.ask(now, Wish::HandOver(to), out);
        }
    }

    /// Whether a view is what was asked for.
    fn by_wish(&self, view: &View, asked: Option<Wish>) -> bool {
        let Some(wish) = asked else { return false };
        let change = Change {
            expected: self.view.number,
            by: self.me,
            wish,
        };
        self.view.change(&change).as_ref() == Ok(view)
    }

    /// It leads no more, if it did.
    fn depose(&mut self, out: &mut Vec<Output>) {
        if matches!(self.role, Role::Leading { .. }) {
            out.push(Output::Deposed);
        }
        self.others.clear();
        self.tell = Time::NEVER;
        self.hand_over = None;
        self.policy = None;
        self.differing.forget();
        self.confirms = false;
    }

    /// Asks for a write of the log.
    fn write(&mut self, write: Write, out: &mut Vec<Output>) {
        self.last_job += 1;
        let job = self.last_job;
        let (last, installed) = (self.log.last(), self.log.installed().index);
        self.writes.push_back(Writing {
            job,
            last,
            installed,
            number: self.view.number,
        });
        out.push(Output::Write { job, write });
    }

    fn written(&mut self, now: Time, job: u64, out: &mut Vec<Output>) {
        let writing = self.writes.pop_front().expect("a write was asked for");
        let (first, last, number) = (writing.job, writing.last, writing.number);
        assert!(first == job, "write {job} is done before {first}");
        self.reads.shown = self.reads.shown.max(writing.installed);
        self.let_in(out);
        // A later write has truncated what this one added, if it is not in the log any more.
        if self.log.has(last) || last.index <= self.log.installed().index {
            self.durable = last;
        }
        match self.role {
            Role::Leading { .. } => self.advance(now, out),
            Role::Following | Role::Outside if number == self.view.number => {
                self.acknowledge(last, out);
            }
            Role::Unsure | Role::Renewing | Role::Following | Role::Outside | Role::TakingOver => {}
        }
    }

    fn acknowledge(&self, last: Stamp, out: &mut Vec<Output>) {
        // Who has asked to take over promises nothing.
        if self.adopted && self.role != Role::TakingOver {
            let (number, asked) = (self.view.number, self.asked_at);
            let message = Message::Appended {
                number,
                last,
                asked,
            };
            let to = self.view.leader();
            out.push(Output::Send { to, message });
        }
    }

    /// Lets what is complete be a part of the state.
    fn install(&mut self, index: u64, out: &mut Vec<Output>) {
        let index = index.min(self.log.last().index);
        if index > self.log.installed().index {
            self.log.install(index);
            self.write(Write::Install { index }, out);
        }
    }

    /// Rules that hold between any two inputs.
    ///
    /// # Panics
    /// If one is broken.
    pub fn check(&self) {
        let installed = self.log.installed().index;
        assert!(
            installed <= self.complete || self.without.is_some(),
            "installed {installed}, complete {}",
            self.complete
        );
        let leads = matches!(self.role, Role::Leading { .. });
        assert!(!leads || self.view.leader() == self.me, "leads unasked");
        assert!(leads || self.others.is_empty(), "keeps others in vain");
        let staged = self.log.staged_len();
        assert!(staged <= 2 * STAGED_MAX, "{staged} entries are staged");
    }
}

/// A time later than `now`.
fn now_plus(now: Time, nanos: u64) -> Time {
    Time(now.0.saturating_add(nanos))
}
