//! A copy that does not lead: it stages what the leader says, asks to be brought up to date, and
//! takes over from a leader that is gone.

use super::{ASK_AGAIN_NS, CHECK_NS, Member, Role, Rule, STEP_NS, now_plus};
use crate::group::log::{Difference, Log, Stamp};
use crate::group::message::{Message, Output, Write};
use crate::group::view::{View, Wish};
use crate::id::NodeId;
use crate::time::Time;

impl Member {
    pub(super) fn message(
        &mut self,
        now: Time,
        from: NodeId,
        message: Message,
        out: &mut Vec<Output>,
    ) {
        match message {
            Message::Adopt {
                view,
                previous,
                entries,
                complete,
                asked,
            } => {
                if self.take_view(from, &view, out) {
                    self.asked_at = asked;
                    self.adopt(now, previous, &entries, complete, out);
                }
            }
            Message::Append {
                number,
                previous,
                entry,
                complete,
                asked,
            } => self.append(now, (from, asked), (number, previous, entry), complete, out),
            Message::Snapshot { view, at } => {
                if self.take_view(from, &view, out) {
                    self.take_snapshot(at, out);
                }
            }
            // Only the binder's word counts.
            Message::Stale { view } if view.number > self.view.number => {
                out.push(Output::AskView);
            }
            Message::Stale { .. } => {}
            Message::Read { number, asked } => self.read_asked(now, from, (number, asked), out),
            Message::ReadAt {
                number,
                asked,
                index,
            } => self.read_answered(now, from, (number, asked, index), out),
            Message::Differs { number, at, digest } => {
                self.differs(now, from, (number, at, digest), out);
            }
            Message::Check { number } => self.checked(now, from, number, out),
            Message::Appended {
                number,
                last,
                asked,
            } => self.appended(now, (from, asked), number, last, out),
            Message::Hello {
                number,
                installed,
                last,
            } => self.hello_heard(now, from, (number, installed, last), out),
        }
    }

    /// Whether the leader of this view may be obeyed, which is the one known or a newer one.
    fn take_view(&self, from: NodeId, view: &View, out: &mut Vec<Output>) -> bool {
        if view.leader() != from || from == self.me {
            return false;
        }
        if view.number < self.view.number && self.keeps(Rule::Fence) {
            self.tell_stale(from, out);
            return false;
        }
        // Who has restarted hears from the binder first whether it is still a member.
        if self.role == Role::Unsure {
            return false;
        }
        if view.number > self.view.number {
            // It is told again; until then the binder has said whether it is so.
            out.push(Output::AskView);
            return false;
        }
        self.view.leader() == from || !self.keeps(Rule::Fence)
    }

    pub(super) fn tell_stale(&self, to: NodeId, out: &mut Vec<Output>) {
        let view = self.view.clone();
        let message = Message::Stale { view };
        out.push(Output::Send { to, message });
    }

    fn adopt(
        &mut self,
        now: Time,
        previous: Stamp,
        entries: &[Stamp],
        complete: u64,
        out: &mut Vec<Output>,
    ) {
        self.heard_leader(now);
        if self.empty {
            self.adopted = false;
            return self.say_hello(now, out);
        }
        let number = self.view.number;
        let Some(difference) = self.log.difference(number, previous, entries) else {
            self.adopted = false;
            return self.say_hello(now, out);
        };
        self.log.apply(&difference);
        if let Some(kept) = difference.truncate
            && self.durable.index > kept
        {
            self.durable = self.log.find(kept).unwrap_or_else(|| self.log.installed());
        }
        self.adopted = true;
        let view = self.view.clone();
        self.write(Write::Log { view, difference }, out);
        if !self.keeps(Rule::DiskFirst) {
            self.acknowledge(self.log.last(), out);
        }
        self.completed(complete, out);
    }

    fn append(
        &mut self,
        now: Time,
        (from, asked): (NodeId, Time),
        (number, previous, entry): (u64, Stamp, Option<Stamp>),
        complete: u64,
        out: &mut Vec<Output>,
    ) {
        let fenced = number != self.view.number || self.view.leader() != from;
        if fenced && (self.keeps(Rule::Fence) || number > self.view.number) {
            if number < self.view.number {
                self.tell_stale(from, out);
            }
            return;
        }
        if !self.adopted || self.role == Role::Unsure {
            return;
        }
        self.heard_leader(now);
        self.asked_at = self.asked_at.max(asked);
        match entry {
            None => self.acknowledge_durable(out),
            Some(entry) if self.log.has(entry) => return self.acknowledge_durable(out),
            Some(entry)
                if self.log.last() == previous
                    && Some(entry.index) == previous.index.checked_add(1)
                    && (previous.view..=number).contains(&entry.view) =>
            {
                self.log.push(entry);
                let difference = Difference {
                    truncate: None,
                    add: vec![entry],
                };
                let view = self.view.clone();
                self.write(Write::Log { view, difference }, out);
                if !self.keeps(Rule::DiskFirst) {
                    self.acknowledge(entry, out);
                }
            }
            // Something was lost on the way: it is told again.
            Some(_) => return self.acknowledge_durable(out),
        }
        if self.log.has(previous) || previous.index <= self.log.installed().index {
            self.completed(complete, out);
        }
    }

    fn acknowledge_durable(&self, out: &mut Vec<Output>) {
        if self.writes.is_empty() {
            self.acknowledge(self.durable, out);
        }
    }

    /// The leader says up to where entries are complete; what is here up to there is the same.
    pub(super) fn completed(&mut self, complete: u64, out: &mut Vec<Output>) {
        let here = complete.min(self.log.last().index);
        self.complete = self.complete.max(here);
        self.install(here, out);
    }

    fn take_snapshot(&mut self, at: Stamp, out: &mut Vec<Output>) {
        // A copy that has adopted the leader's log, or is a member, has what is in it.
        let newer = self.empty || at.index > self.log.installed().index;
        if self.adopted || self.role != Role::Outside || !newer {
            return;
        }
        self.log = Log::at(at);
        self.empty = false;
        self.complete = at.index;
        let view = self.view.clone();
        self.write(Write::Snapshot { view, at }, out);
        self.hello_to_leader(out);
    }

    fn hello_to_leader(&self, out: &mut Vec<Output>) {
        let message = Message::Hello {
            number: self.view.number,
            installed: (!self.empty).then(|| self.log.installed()),
            last: self.log.last(),
        };
        let to = self.view.leader();
        out.push(Output::Send { to, message });
    }

    /// Tells the leader that this copy is here, and what it has.
    pub(super) fn say_hello(&mut self, now: Time, out: &mut Vec<Output>) {
        let is_outside = self.role == Role::Outside;
        if !is_outside && (self.adopted || self.role != Role::Following) {
            self.hello = Time::NEVER;
            return;
        }
        self.hello = now_plus(now, ASK_AGAIN_NS);
        self.adopted = false;
        // The leader that is known may be gone.
        if is_outside {
            out.push(Output::AskView);
        }
        self.hello_to_leader(out);
    }

    fn heard_leader(&mut self, now: Time) {
        self.bound = self.bound.max(now_plus(now, self.promise_ns));
        self.hello = match self.role {
            Role::Outside => now_plus(now, ASK_AGAIN_NS),
            Role::Unsure
            | Role::Following
            | Role::TakingOver
            | Role::Renewing
            | Role::Leading { .. } => Time::NEVER,
        };
        if self.role == Role::Following {
            self.take_over = Time::NEVER;
            self.check = now_plus(now, CHECK_NS);
        }
    }

    /// Nothing was heard of the leader for long: perhaps it has excluded this copy. A leader
    /// hears by this whether it was replaced.
    pub(super) fn check_view(&mut self, now: Time, out: &mut Vec<Output>) {
        self.check = now_plus(now, CHECK_NS);
        match self.role {
            Role::Following => {
                let (to, number) = (self.view.leader(), self.view.number);
                let message = Message::Check { number };
                out.push(Output::Send { to, message });
            }
            Role::Leading { .. } => {
                let last = self.log.last();
                self.append_to_all(now, last, None, out);
            }
            Role::Unsure | Role::Outside | Role::TakingOver | Role::Renewing => {
                self.check = Time::NEVER;
            }
        }
    }

    /// A member asks whether this is the view.
    fn checked(&self, now: Time, from: NodeId, number: u64, out: &mut Vec<Output>) {
        if number < self.view.number {
            return self.tell_stale(from, out);
        }
        if matches!(self.role, Role::Leading { .. }) && number == self.view.number {
            let message = Message::Append {
                number,
                previous: self.log.last(),
                entry: None,
                complete: self.complete,
                asked: now,
            };
            out.push(Output::Send { to: from, message });
        }
    }

    /// The leader is not heard of.
    pub(super) fn leader_lost(&mut self, now: Time, ended: bool) {
        if self.role != Role::Following || self.empty {
            return;
        }
        if ended {
            self.bound = Time(0);
        }
        let place = self.view.members.iter().position(|it| *it == self.me);
        let before = place.map_or(0, |place| place.saturating_sub(1)) as u64;
        let mine = now_plus(now, before * STEP_NS);
        self.take_over = self.take_over.min(mine);
        if self.keeps(Rule::KeepPromise) {
            self.take_over = self.take_over.max(self.bound);
        }
    }

    pub(super) fn take_over(&mut self, now: Time, out: &mut Vec<Output>) {
        self.take_over = Time::NEVER;
        if self.role == Role::Following {
            self.role = Role::TakingOver;
            self.end_reads(out);
            self.ask(now, Wish::Lead, out);
        }
    }
}
