//! A copy that leads: it makes the others' logs its own, adds entries, and knows when they are
//! complete; it has members excluded that are gone, and copies included that are up to date.

use std::collections::BTreeMap;

use super::{
    CHECK_NS, FORGET_NS, JOIN_NS, Member, Other, RESEND_NS, RETELL_NS, Role, Rule, SICK_NS,
    SLOW_MAX, SLOW_NS, STAGED_MAX, STATE_AGAIN_NS, TELL_COMPLETE_NS, now_plus,
};
use crate::group::log::{Difference, Stamp};
use crate::group::message::{Message, NotAdded, Output, Write};
use crate::group::view::{MEMBERS_MAX, Policy, Wish};
use crate::id::NodeId;
use crate::time::Time;

impl Member {
    /// The view says that this copy leads, and no earlier life has under this number.
    pub(super) fn begin(&mut self, now: Time, out: &mut Vec<Output>) {
        self.role = Role::Leading { active: false };
        self.check = now_plus(now, CHECK_NS);
        self.others.clear();
        self.shut();
        let (view, difference) = (self.view.clone(), Difference::default());
        self.write(Write::Log { view, difference }, out);
        if !self.keeps(Rule::SyncFirst) {
            self.complete = self.log.last().index;
        }
        self.go_on(now, out);
    }

    /// The view is another one, and this copy leads on.
    pub(super) fn go_on(&mut self, now: Time, out: &mut Vec<Output>) {
        self.others.retain(|node, other| {
            // Who was excluded comes again by itself.
            self.view.members.contains(node) || !other.counts
        });
        let base = self.log.installed();
        self.slow
            .retain(|node, _| !self.view.members.contains(node));
        for node in self.view.others(self.me) {
            let other = self
                .others
                .entry(node)
                .or_insert_with(|| Other::at(Some(base)));
            other.counts = true;
        }
        for other in self.others.values_mut() {
            other.has = None;
            other.resend = Time(0);
        }
        self.differing.forget();
        self.tell_others(now, out);
        self.advance(now, out);
    }

    pub(super) fn add(&mut self, now: Time, entry: u64, out: &mut Vec<Output>) {
        let why = match self.role {
            Role::Leading { active: true } if self.hand_over.is_some() => NotAdded::NotLeading,
            Role::Leading { active: true } if self.log.staged_len() >= STAGED_MAX => {
                NotAdded::Overloaded
            }
            // It would be of a policy that nobody knows.
            Role::Leading { active: true }
                if self.policy.is_some() && self.keeps(Rule::PolicyAlone) =>
            {
                NotAdded::Overloaded
            }
            Role::Leading { active: true } => {
                self.drop_slow_copies();
                let previous = self.log.last();
                let stamp = Stamp {
                    view: self.view.number,
                    index: previous.index + 1,
                };
                self.log.push(stamp);
                out.push(Output::Added { entry, stamp });
                let difference = Difference {
                    truncate: None,
                    add: vec![stamp],
                };
                let view = self.view.clone();
                self.write(Write::Log { view, difference }, out);
                return self.append_to_all(now, previous, Some(stamp), out);
            }
            Role::Unsure
            | Role::Outside
            | Role::Following
            | Role::TakingOver
            | Role::Renewing
            | Role::Leading { active: false } => NotAdded::NotLeading,
        };
        out.push(Output::NotAdded { entry, why });
    }

    /// Tells those who have the leader's log of one more entry, or of what is complete.
    pub(super) fn append_to_all(
        &mut self,
        now: Time,
        previous: Stamp,
        entry: Option<Stamp>,
        out: &mut Vec<Output>,
    ) {
        let (number, complete) = (self.view.number, self.complete);
        for (to, other) in &mut self.others {
            if other.has.is_none() {
                continue;
            }
            if entry.is_some() {
                other.resend = other.resend.min(now_plus(now, RESEND_NS));
            }
            let message = Message::Append {
                number,
                previous,
                entry,
                complete,
                asked: now,
            };
            out.push(Output::Send { to: *to, message });
        }
        self.tell = Time::NEVER;
    }

    /// Tells again what was not answered.
    pub(super) fn tell_others(&mut self, now: Time, out: &mut Vec<Output>) {
        if !matches!(self.role, Role::Leading { .. }) {
            return;
        }
        if self.tell <= now {
            let last = self.log.last();
            self.append_to_all(now, last, None, out);
        }
        self.others.retain(|_, other| {
            let silent = now.0.saturating_sub(other.heard.0) > FORGET_NS;
            other.counts || !silent
        });
        let (view, complete, last) = (self.view.clone(), self.complete, self.log.last());
        let mut snapshots = Vec::new();
        for (to, other) in &mut self.others {
            if other.resend > now {
                continue;
            }
            other.resend = match other.has {
                Some(_) => now_plus(now, RESEND_NS),
                None => now_plus(now, RETELL_NS),
            };
            if other.has == Some(last) {
                other.resend = Time::NEVER;
                continue;
            }
            // One that lives and cannot keep up, as with a full disk, is as good as lost.
            let since = *other.behind_since.get_or_insert(now);
            other.lost |= other.counts && now.0.saturating_sub(since.0) > SICK_NS;
            let known = other.has.filter(|has| self.log.has(*has));
            let from = match known.or(other.base) {
                Some(previous) if self.log.has(previous) => previous,
                // A member has at least what is complete.
                Some(previous) if other.counts && previous.index <= self.log.installed().index => {
                    self.log.installed()
                }
                Some(_) | None => {
                    other.resend = now_plus(now, STATE_AGAIN_NS);
                    snapshots.push(*to);
                    continue;
                }
            };
            let entries = self.log.staged().filter(|it| it.index > from.index);
            let message = Message::Adopt {
                view: view.clone(),
                previous: from,
                entries: entries.collect(),
                complete,
                asked: now,
            };
            out.push(Output::Send { to: *to, message });
        }
        for to in snapshots {
            let (view, at) = (self.view.clone(), self.log.installed());
            let message = Message::Snapshot { view, at };
            out.push(Output::Send { to, message });
        }
    }

    pub(super) fn next_resend(&self) -> Time {
        let resends = self.others.values().map(|other| other.resend);
        let waits = self.complete > self.log.installed().index;
        let joining = self.others.values();
        let joining = joining.filter(|it| waits && !it.counts && it.kept_until != Time(0));
        let kept = joining.map(|other| other.kept_until);
        resends.chain(kept).min().unwrap_or(Time::NEVER)
    }

    pub(super) fn appended(
        &mut self,
        now: Time,
        (from, asked): (NodeId, Time),
        number: u64,
        last: Stamp,
        out: &mut Vec<Output>,
    ) {
        let trusted_ns = self.promise_ns / 10 * TRUSTED_TENTHS;
        let leads = matches!(self.role, Role::Leading { .. });
        if !leads || number != self.view.number {
            return;
        }
        let here = self.log.has(last) || last.index <= self.log.installed().index;
        let end = self.log.last();
        let Some(other) = self.others.get_mut(&from) else {
            return;
        };
        if !here {
            // A longer log than the leader's: it is told again.
            return;
        }
        other.heard = now;
        other.promised = other.promised.max(now_plus(asked, trusted_ns));
        let first = other.has.is_none();
        if other.has.is_none_or(|has| has.index < last.index) {
            other.has = Some(last);
            other.behind_since = None;
        }
        other.resend = match other.has == Some(end) {
            true => Time::NEVER,
            // What was added since it was told of the log has not been told.
            false if first => Time(0),
            false => other.resend.min(now_plus(now, RESEND_NS)),
        };
        if first {
            self.tell_others(now, out);
        }
        self.judge(now, out);
        self.advance(now, out);
        if self.confirms && self.serves_until() > now {
            self.confirms = false;
            out.push(Output::Confirmed);
        }
        self.answer_reads(now, out);
    }

    /// Gets the promises of all members.
    pub(super) fn confirm(&mut self, now: Time, out: &mut Vec<Output>) {
        if self.role != (Role::Leading { active: true }) {
            return;
        }
        if self.serves_until() > now {
            return out.push(Output::Confirmed);
        }
        self.confirms = true;
        let last = self.log.last();
        self.append_to_all(now, last, None, out);
    }

    /// A copy says that it is here.
    pub(super) fn hello_heard(
        &mut self,
        now: Time,
        from: NodeId,
        (number, installed, last): (u64, Option<Stamp>, Stamp),
        out: &mut Vec<Output>,
    ) {
        if !matches!(self.role, Role::Leading { .. }) {
            if number > self.view.number {
                // Somebody has let this copy lead.
                out.push(Output::AskView);
            } else if self.role != Role::Unsure && self.view.leader() != self.me {
                let view = self.view.clone();
                let message = Message::Stale { view };
                out.push(Output::Send { to: from, message });
            }
            return;
        }
        let member = self.view.has(from);
        if !member && self.others.len() >= OTHERS_MAX && !self.others.contains_key(&from) {
            return;
        }
        // What is complete is at all members; one that has not got it has lost its disk.
        let broken = member && (installed.is_none() || last.index < self.complete);
        let other = self
            .others
            .entry(from)
            .or_insert_with(|| Other::at(installed));
        // Who only says it again is told again in its time; who has heard of another view has not
        // taken what was said before.
        if other.has.is_some() || other.base != installed || number > other.number {
            other.resend = Time(0);
        }
        other.number = number;
        other.base = installed;
        other.heard = now;
        other.has = None;
        other.lost = broken;
        other.counts |= member;
        if !other.counts && other.kept_until == Time(0) {
            other.kept_until = keep(&mut self.slow, now, from);
        }
        self.tell_others(now, out);
        self.advance(now, out);
    }

    /// Looks at what has become complete, and at what the binder is to be asked for.
    pub(super) fn advance(&mut self, now: Time, out: &mut Vec<Output>) {
        let Role::Leading { active } = self.role else {
            return;
        };
        let all = self.keeps(Rule::WaitForAll);
        let skips_lost = !self.keeps(Rule::ExcludeFirst);
        let mut index = self.durable.index;
        let mut synced = true;
        for other in self.others.values().filter(|other| other.counts) {
            if !all || (skips_lost && other.lost) {
                continue;
            }
            synced &= other.has.is_some();
            index = index.min(other.has.map_or(0, |has| has.index));
        }
        if synced && index > self.complete {
            self.complete_to(now, index, out);
        }
        let wanted = self.floor(now).min(self.complete);
        self.install(wanted, out);
        let equal = synced || !self.keeps(Rule::SyncFirst);
        let ends_sync = !active && equal && self.complete == self.log.last().index;
        if ends_sync && self.log.installed() == self.log.last() && self.is_written() {
            self.role = Role::Leading { active: true };
            let view = self.view.clone();
            out.push(Output::Leads { view });
        }
        if self.asked.is_none() {
            self.wish(now, out);
        }
    }

    /// Whether all that was asked for is on disk.
    fn is_written(&self) -> bool {
        self.writes.is_empty()
    }

    fn complete_to(&mut self, now: Time, index: u64, out: &mut Vec<Output>) {
        let from = self.complete;
        self.complete = index;
        for stamp in self.log.staged() {
            if stamp.index > from && stamp.index <= index {
                out.push(Output::Complete { stamp });
            }
        }
        if !self.others.is_empty() {
            self.tell = self.tell.min(now_plus(now, TELL_COMPLETE_NS));
        }
    }

    /// A copy that is brought up to date and cannot keep up has to begin again: what is kept for
    /// it is bounded.
    fn drop_slow_copies(&mut self) {
        if self.log.staged_len() >= STAGED_MAX / 2 {
            self.others.retain(|_, other| other.counts);
        }
    }

    /// Copies that took too long to be brought up to date do without.
    pub(super) fn keep_no_longer(&mut self, now: Time) {
        for other in self.others.values_mut() {
            if other.kept_until <= now {
                other.kept_until = Time(0);
            }
        }
    }

    /// What copies that are brought up to date have: later entries are kept for them.
    fn floor(&self, now: Time) -> u64 {
        let active = matches!(self.role, Role::Leading { active: true });
        let joining = self.others.values();
        let joining = joining
            .filter(|other| active && !other.counts && !other.lost && now < other.kept_until);
        // One without a state needs all of it as it is now.
        let has = joining.map(|other| other.has.or(other.base).map_or(0, |has| has.index));
        has.min().unwrap_or(u64::MAX)
    }

    /// Asks the binder for what is wanted now. Until a view of another number is known, nothing
    /// else is: what was asked for may be done at any time.
    fn wish(&mut self, now: Time, out: &mut Vec<Output>) {
        let lost = self.others.iter().find(|(node, other)| {
            let member = self.view.members.contains(node);
            other.lost && member
        });
        if let Some((node, _)) = lost {
            let wish = Wish::Exclude(*node);
            return self.ask(now, wish, out);
        }
        if self.role != (Role::Leading { active: true }) {
            return;
        }
        self.hand_over = self.hand_over.filter(|to| self.view.has(*to));
        if let Some(to) = self.hand_over {
            if self.complete == self.log.last().index {
                self.ask(now, Wish::HandOver(to), out);
            }
            return;
        }
        if let Some(policy) = self.policy {
            if self.complete == self.log.last().index {
                self.ask(now, Wish::Policy(policy), out);
            }
            return;
        }
        if self.view.members.len() >= MEMBERS_MAX {
            return;
        }
        let last = self.log.last();
        let complete_only = self.keeps(Rule::IncludeComplete);
        let ready = self.others.iter_mut().find(|(node, other)| {
            let has_all = other.has == Some(last) || (!complete_only && other.has.is_some());
            !other.lost && has_all && !self.view.members.contains(node)
        });
        if let Some((node, other)) = ready {
            other.counts = self.without != Some(Rule::IncludeCounts);
            let wish = Wish::Include(*node);
            self.ask(now, wish, out);
        }
    }

    /// Another member is to lead, when nothing is under way; from now on nothing is added.
    pub(super) fn hand_over(&mut self, now: Time, to: NodeId, out: &mut Vec<Output>) {
        let leads = self.role == Role::Leading { active: true };
        if leads && to != self.me && self.view.has(to) {
            self.hand_over = Some(to);
            self.advance(now, out);
        }
    }

    /// The copies are to keep up with each other in another way; from now on nothing is added,
    /// until they do.
    pub(super) fn change_policy(&mut self, now: Time, policy: Policy, out: &mut Vec<Output>) {
        if self.role == (Role::Leading { active: true }) {
            self.policy = Some(policy);
            self.advance(now, out);
        }
    }

    /// A node is not heard of.
    pub(super) fn lost(&mut self, now: Time, node: NodeId, ended: bool, out: &mut Vec<Output>) {
        match self.role {
            Role::Leading { .. } => {
                let Some(other) = self.others.get_mut(&node) else {
                    return;
                };
                other.lost = true;
                if !self.view.has(node) && !self.is_being_included(node) {
                    self.others.remove(&node);
                }
                self.advance(now, out);
            }
            Role::Following if node == self.view.leader() => self.leader_lost(now, ended),
            Role::Unsure | Role::Outside | Role::Following | Role::TakingOver | Role::Renewing => {}
        }
    }

    /// Whether the binder is asked to include this node.
    fn is_being_included(&self, node: NodeId) -> bool {
        self.asked
            .is_some_and(|(wish, _)| wish == Wish::Include(node))
    }

    pub(super) fn found(&mut self, now: Time, node: NodeId) {
        if let Some(other) = self.others.get_mut(&node) {
            other.lost = false;
            other.resend = other.resend.min(now);
        }
        if self.role == Role::Following && node == self.view.leader() {
            self.take_over = Time::NEVER;
        }
    }
}

/// Members, and copies that want to be, at most.
const OTHERS_MAX: usize = 2 * MEMBERS_MAX;
/// How much of a promise's time a leader counts on: clocks may differ by the rest.
const TRUSTED_TENTHS: u64 = 9;

impl Other {
    fn at(base: Option<Stamp>) -> Self {
        Self {
            has: None,
            counts: false,
            resend: Time(0),
            base,
            promised: Time(0),
            number: 0,
            heard: Time(0),
            kept_until: Time(0),
            behind_since: None,
            lost: false,
        }
    }
}

/// Until when what a copy has not got is kept for it; not at all if it has just been, in vain.
fn keep(slow: &mut BTreeMap<NodeId, (Time, u32)>, now: Time, node: NodeId) -> Time {
    let times = match slow.get(&node) {
        Some((until, _)) if *until > now => return Time(0),
        Some((_, times)) => *times,
        None if slow.len() >= SLOW_MAX => return Time(0),
        None => 0,
    };
    let kept_until = now_plus(now, JOIN_NS);
    let pause = SLOW_NS << times.min(8);
    slow.insert(node, (now_plus(kept_until, pause), times + 1));
    kept_until
}
