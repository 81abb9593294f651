//! Reads at copies that follow, as fresh as if the leader had answered them.
//!
//! A copy that follows has every entry that is complete, but may not know yet that it is, and may
//! not know that it is no copy any more. So it asks the leader up to where entries are complete,
//! and reads when its store shows that: what was told to anybody before the read began is in it.
//! The leader says so only while all members' promises hold, so that nobody else completes
//! anything. This is the read index of Ongaro's Raft (2014, section 6.4), with promises in the
//! place of a round of heartbeats.
//!
//! | a read comes | to |
//! |---|---|
//! | while no question is under way | a question of its own |
//! | while one is | the next question: that one was asked before the read began |
//!
//! One question is under way at a time, whatever number of reads wait. Who gets no answer in time,
//! or is no follower any more, reads at the leader.
//!
//! An action's changes may be told before they are in the log: when it has decided, and its end has
//! not come to this object yet. Where something is prepared, the shell shuts the object to reads
//! elsewhere ([`Input::Shut`]); only the leader has the lock that they would have to wait for.
//! What ends it is in the log when the shell opens it again ([`Input::Open`]), and reads wait for
//! that entry.

use std::collections::BTreeMap;

use super::{Member, Role, Rule, now_plus};
use crate::group::message::{Message, Output};
use crate::id::NodeId;
use crate::time::Time;

/// Reads that may wait at one copy: over it, they go to the leader at once.
pub const READS_MAX: usize = 4_096;
/// A read that could not be let in here for so long goes to the leader.
pub const READ_NS: u64 = 100_000_000;

/// What a copy knows of reads.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// The question under way: the time it is known by, and until when an answer is waited for.
    asked: Option<(Time, Time)>,
    /// The time that the last question is known by.
    last: Time,
    /// Those that the question under way is for.
    waiting: Vec<u64>,
    /// Those that came after it was asked.
    next: Vec<u64>,
    /// Those that may be done when the store shows so much, and until when they wait for it.
    found: Vec<(u64, Time, Vec<u64>)>,
    /// What the store shows.
    pub(super) shown: u64,
    /// At the leader: something is prepared, or it does not serve yet.
    shut: bool,
    /// At the leader: what ended the last such thing.
    floor: u64,
    /// At the leader: questions that wait for promises.
    askers: BTreeMap<NodeId, Time>,
}

impl Reads {
    /// As a restart finds it.
    pub(super) fn new(shown: u64) -> Self {
        Self {
            shown,
            shut: true,
            ..Self::default()
        }
    }

    fn count(&self) -> usize {
        let found = self.found.iter().map(|(.., reads)| reads.len());
        self.waiting.len() + self.next.len() + found.sum::<usize>()
    }

    /// When something is due.
    pub(super) fn next_timeout(&self) -> Time {
        let asked = self.asked.map_or(Time::NEVER, |(_, until)| until);
        let found = self.found.iter().map(|(_, until, _)| *until).min();
        asked.min(found.unwrap_or(Time::NEVER))
    }
}

impl Member {
    /// Somebody wants to read here.
    pub(super) fn read(&mut self, now: Time, read: u64, out: &mut Vec<Output>) {
        let follows = self.role == Role::Following && self.adopted && !self.empty;
        if !follows || self.reads.count() >= READS_MAX {
            return out.push(Output::ReadElsewhere { read });
        }
        if !self.keeps(Rule::AskToRead) {
            let index = self.complete;
            let until = now_plus(now, READ_NS);
            self.reads.found.push((index, until, vec![read]));
            return self.let_in(out);
        }
        self.reads.next.push(read);
        if self.reads.asked.is_none() {
            self.ask_to_read(now, out);
        }
    }

    fn ask_to_read(&mut self, now: Time, out: &mut Vec<Output>) {
        self.reads.waiting = std::mem::take(&mut self.reads.next);
        if self.reads.waiting.is_empty() {
            self.reads.asked = None;
            return;
        }
        // No two questions of one life are known by the same time.
        let asked = now.max(now_plus(self.reads.last, 1));
        self.reads.last = asked;
        self.reads.asked = Some((asked, now_plus(now, READ_NS)));
        let number = self.view.number;
        let message = Message::Read { number, asked };
        let to = self.view.leader();
        out.push(Output::Send { to, message });
    }

    /// A member asks up to where entries are complete.
    pub(super) fn read_asked(
        &mut self,
        now: Time,
        from: NodeId,
        (number, asked): (u64, Time),
        out: &mut Vec<Output>,
    ) {
        if number < self.view.number {
            return self.tell_stale(from, out);
        }
        let leads = self.role == Role::Leading { active: true };
        if !leads || number > self.view.number || !self.view.has(from) {
            return;
        }
        if self.reads.shut && self.keeps(Rule::ShutReads) {
            let index = None;
            let message = Message::ReadAt {
                number,
                asked,
                index,
            };
            return out.push(Output::Send { to: from, message });
        }
        self.reads.askers.insert(from, asked);
        if self.serves_until() > now {
            return self.answer_reads(now, out);
        }
        let last = self.log.last();
        self.append_to_all(now, last, None, out);
    }

    /// Tells those who have asked, if this copy surely leads.
    pub(super) fn answer_reads(&mut self, now: Time, out: &mut Vec<Output>) {
        if self.reads.askers.is_empty() || self.serves_until() <= now {
            return;
        }
        let number = self.view.number;
        let floor = match self.keeps(Rule::ReadEnds) {
            true => self.reads.floor,
            false => 0,
        };
        let index = Some(self.complete.max(floor));
        for (to, asked) in std::mem::take(&mut self.reads.askers) {
            let message = Message::ReadAt {
                number,
                asked,
                index,
            };
            out.push(Output::Send { to, message });
        }
    }

    /// The leader has said up to where entries are complete, or that reads are to come there.
    pub(super) fn read_answered(
        &mut self,
        now: Time,
        from: NodeId,
        (number, asked, index): (u64, Time, Option<u64>),
        out: &mut Vec<Output>,
    ) {
        let Some((known, until)) = self.reads.asked else {
            return;
        };
        if asked != known || number != self.view.number || from != self.view.leader() {
            return;
        }
        let reads = std::mem::take(&mut self.reads.waiting);
        match index {
            Some(index) => {
                self.reads.found.push((index, until, reads));
                // News, too: what is adopted is the beginning of the leader's log.
                if self.adopted && self.role == Role::Following {
                    self.completed(index.min(self.log.last().index), out);
                }
            }
            None => turn_away(reads, out),
        }
        self.ask_to_read(now, out);
        self.let_in(out);
    }

    /// Lets in whoever waits for what the store shows.
    pub(super) fn let_in(&mut self, out: &mut Vec<Output>) {
        let shown = match self.keeps(Rule::ReadShown) {
            true => self.reads.shown,
            false => u64::MAX,
        };
        let ready = |(index, ..): &mut (u64, Time, Vec<u64>)| *index <= shown;
        for (index, _, reads) in self.reads.found.extract_if(.., ready) {
            for read in reads {
                out.push(Output::Read { read, index });
            }
        }
    }

    /// Who has waited for too long reads at the leader.
    pub(super) fn expire_reads(&mut self, now: Time, out: &mut Vec<Output>) {
        if self.reads.asked.is_some_and(|(_, until)| until <= now) {
            self.reads.asked = None;
            turn_away(std::mem::take(&mut self.reads.waiting), out);
            // The leader is silent to these as well.
            turn_away(std::mem::take(&mut self.reads.next), out);
        }
        let late = |(_, until, _): &mut (u64, Time, Vec<u64>)| *until <= now;
        for (.., reads) in self.reads.found.extract_if(.., late) {
            turn_away(reads, out);
        }
    }

    /// The view is another one: everybody asks again, or at the leader.
    pub(super) fn end_reads(&mut self, out: &mut Vec<Output>) {
        self.reads.asked = None;
        self.reads.askers.clear();
        turn_away(std::mem::take(&mut self.reads.waiting), out);
        turn_away(std::mem::take(&mut self.reads.next), out);
        for (.., reads) in std::mem::take(&mut self.reads.found) {
            turn_away(reads, out);
        }
    }

    /// From now on what the object is may be told before it is in the log.
    pub(super) fn shut(&mut self) {
        self.reads.shut = true;
    }

    /// What the object is will be in the log with what is in it now.
    pub(super) fn open(&mut self) {
        if self.reads.shut {
            self.reads.shut = false;
            self.reads.floor = self.log.last().index;
        }
    }
}

fn turn_away(reads: Vec<u64>, out: &mut Vec<Output>) {
    for read in reads {
        out.push(Output::ReadElsewhere { read });
    }
}
