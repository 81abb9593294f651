//! Checkpoints: what running actions have of objects whose next leader is to take it over.
//!
//! What such an action has of the object is a mirror of its own, a *part*. Whenever something of
//! a part has changed that anybody may learn of, a checkpoint of the object is added to its log;
//! what would tell of it is *held* until that is complete: answers of calls, votes, the end of a
//! commit, the answer to a question, an abort that is passed on. So a later leader knows whatever
//! anybody outside knows, and what a leader says that was deposed without knowing is never heard.
//!
//! | held | complete | expelled |
//! |---|---|---|
//! | answer of a call | sent | the call is to be made at the next leader |
//! | how a commit has ended | said | unknown: the next leader can tell |
//! | what became of an action | said | none |
//! | message, leave to call elsewhere | sent | dropped |
//!
//! Checkpoints are complete in order, and each says all there is, so the answer to one is that of
//! all before it. One that could not be added is said again, unless there is one behind it. How the
//! next leader goes on is in `resume`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::work::Work;
use super::{Engine, Mutation};
use crate::action::mirror::Phase;
use crate::call::{Role, Stage};
use crate::id::{CallId, Uid};
use crate::input::{Fault, Job, Ticket};
use crate::lock::mode::Mode;
use crate::migrate::checkpoint::ENDED_MAX;
use crate::migrate::{Cargo, Checkpoint, CheckpointEnd, CheckpointPart};
use crate::outbox::Outbox;
use crate::output::{Answer, End, Output, Refusal};
use crate::slab::Slot;

/// All objects of which there is something to be said.
#[derive(Debug, Default)]
pub(super) struct Cohorts {
    rows: BTreeMap<Uid, Cohort>,
    /// Those that an input has touched; empty between inputs. Whether a checkpoint is due.
    touched: BTreeMap<Uid, bool>,
    /// Checkpoints of earlier leaders, of objects that are not free yet.
    pub(super) waiting: BTreeMap<Uid, Box<Checkpoint>>,
}

/// One object.
#[derive(Debug, Default)]
struct Cohort {
    ended: VecDeque<(Uid, CheckpointEnd)>,
    /// What is to be said behind the next checkpoint.
    held: Vec<Output>,
    /// The calls whose answers go with it.
    replies: Vec<Answered>,
    sent: VecDeque<Sent>,
    /// One is to be tried again.
    again: bool,
}

/// A call with an answer that is to be saved, and its top-level action.
#[derive(Clone, Copy, Debug)]
struct Answered {
    ticket: Ticket,
    call: CallId,
    root: Uid,
}

impl Answered {
    /// Whether this tells its answer.
    fn is_told_by(&self, ticket: Ticket, answer: &Answer) -> bool {
        match answer {
            Answer::Outcome => ticket == self.ticket,
            Answer::SameAs(first) => *first == self.ticket,
            Answer::Saved(call) => *call == self.call,
            Answer::Refused(_) => false,
        }
    }
}

/// A checkpoint that is not complete.
#[derive(Debug)]
struct Sent {
    job: Job,
    /// What is to be said then.
    held: Vec<Output>,
    /// The calls whose answers go with it. They go with each that follows, too, until one is
    /// complete: who knows that a call was executed knows its answer.
    replies: Vec<Answered>,
    failed: bool,
}

impl Cohorts {
    /// Something of a part has changed.
    pub(super) fn touch(&mut self, object: Uid) {
        self.touched.insert(object, true);
    }

    /// What has changed is in the log already.
    pub(super) fn untouch(&mut self, object: Uid) {
        self.touched.entry(object).and_modify(|due| *due = false);
    }

    /// Whether there may be a checkpoint of an object that is not complete.
    pub(super) fn knows(&self, object: Uid) -> bool {
        self.rows.contains_key(&object)
    }

    /// The checkpoints that have no answer yet.
    pub(super) fn under_way(&self) -> impl Iterator<Item = (Job, Uid)> + '_ {
        let of = |(object, row): (&Uid, &Cohort)| {
            let open = row.sent.iter().filter(|sent| !sent.failed);
            let object = *object;
            open.map(move |sent| (sent.job, object)).collect::<Vec<_>>()
        };
        self.rows.iter().flat_map(of)
    }

    /// Whether nothing is held.
    pub(super) fn is_quiet(&self) -> bool {
        let quiet = |row: &Cohort| row.sent.is_empty() && row.held.is_empty();
        self.waiting.is_empty() && self.rows.values().all(quiet)
    }

    /// The same of one object.
    pub(super) fn is_quiet_at(&self, object: Uid) -> bool {
        let row = self.rows.get(&object);
        let quiet = row.is_none_or(|row| row.sent.is_empty() && row.held.is_empty() && !row.again);
        quiet && !self.waiting.contains_key(&object)
    }

    /// How an action has ended at an object.
    pub(super) fn end_of(&self, object: Uid, root: Uid) -> Option<CheckpointEnd> {
        let ended = &self.rows.get(&object)?.ended;
        let found = ended.iter().find(|(action, _)| *action == root);
        found.map(|(_, end)| *end)
    }

    /// An action has ended at an object.
    pub(super) fn note_end(&mut self, object: Uid, root: Uid, end: CheckpointEnd) {
        let row = self.rows.entry(object).or_default();
        row.ended.retain(|(action, _)| *action != root);
        if row.ended.len() >= ENDED_MAX {
            row.ended.pop_front();
        }
        row.ended.push_back((root, end));
        self.touch(object);
    }

    /// Whether a checkpoint that waits has something of an action.
    pub(super) fn awaits(&self, object: Uid, root: Uid) -> bool {
        let waiting = self.waiting.get(&object);
        let actions = waiting.into_iter().flat_map(|it| &it.cargo.actions);
        actions
            .into_iter()
            .any(|action| action.root() == Some(root))
    }

    pub(super) fn check(&self) {
        assert!(self.touched.is_empty(), "a checkpoint is due");
        for (object, row) in &self.rows {
            let held = row.held.is_empty() && row.replies.is_empty();
            assert!(held, "{object} holds something for no checkpoint");
        }
    }
}

impl Engine {
    /// The object of a call's part.
    pub(super) fn part_of_call(&self, slot: Slot) -> Option<Uid> {
        let leader = match &self.calls.entry(slot).role {
            Role::Leader(leader) => leader,
            Role::Follower { leader } => self.calls.leader(*leader),
        };
        self.mirrors.part_of_level(leader.in_level()?)
    }

    /// Says something that must not be known before the log of a part's object has what it tells
    /// of; at once, if it is about no part.
    pub(super) fn say(&mut self, part: Option<Uid>, output: Output, out: &mut Outbox) {
        let early = if let Output::Reply { .. } = output {
            self.mutation == Mutation::AnswerUncheckpointed
        } else if let Output::Forget { .. } = output {
            false
        } else {
            self.mutation == Mutation::TellUncheckpointed
        };
        match part.filter(|_| !early) {
            Some(object) => {
                self.cohorts
                    .rows
                    .entry(object)
                    .or_default()
                    .held
                    .push(output);
                self.cohorts.touched.entry(object).or_default();
            }
            None => out.push(output),
        }
    }

    /// The same of what is about a decision in an object's log.
    pub(super) fn say_of(&mut self, decider: Option<Uid>, output: Output, out: &mut Outbox) {
        let known = decider.filter(|object| self.cohorts.knows(*object));
        self.say(known, output, out);
    }

    /// A call of a part has ended with this answer, if any.
    pub(super) fn note_answer(&mut self, slot: Slot, object: Uid, answer: Option<&Answer>) {
        let leader = self.calls.leader(slot);
        let (id, write) = (leader.id, leader.traits.mode == Mode::Write);
        let (level, started) = (leader.level, leader.stage.started());
        let ticket = self.calls.entry(slot).ticket;
        self.cohorts.touch(object);
        let mirror = self.mirrors.level(level).mirror;
        let mirror = self.mirrors.mirror_mut(mirror);
        let Some(id) = id.filter(|_| started) else {
            return;
        };
        let root = mirror.uid();
        let gone = mirror.gone.contains_key(&id);
        if answer == Some(&Answer::Outcome) && (write || gone) {
            mirror.executed.insert(id);
            mirror.gone.remove(&id);
            let row = self.cohorts.rows.entry(object).or_default();
            row.replies.push(Answered {
                ticket,
                call: id,
                root,
            });
        } else if write && !gone {
            // Nothing of it stays, and nobody knows of it: it may run once more.
            mirror.executed.remove(&id);
        }
    }

    /// Whether this call of a part was executed, and its answer is saved.
    pub(super) fn has_saved(&self, object: Uid, root: Uid, call: Option<CallId>) -> bool {
        let found = self.mirrors.find_at((root, Some(object)));
        found.zip(call).is_some_and(|(slot, call)| {
            let mirror = self.mirrors.mirror(slot);
            mirror.executed.contains(&call) && !mirror.gone.contains_key(&call)
        })
    }

    /// Adds the checkpoints that are due, and says or puts behind them what is held.
    pub(super) fn add_checkpoints(&mut self, out: &mut Outbox) {
        while let Some((object, due)) = self.cohorts.touched.pop_first() {
            if due {
                self.add_checkpoint(object, out);
                continue;
            }
            let Some(row) = self.cohorts.rows.get_mut(&object) else {
                continue;
            };
            let held = core::mem::take(&mut row.held);
            match row.sent.back_mut() {
                Some(sent) => sent.held.extend(held),
                None => held.into_iter().for_each(|output| out.push(output)),
            }
        }
    }

    fn add_checkpoint(&mut self, object: Uid, out: &mut Outbox) {
        let checkpoint = Box::new(self.checkpoint(object));
        let job = self.new_job(Work::Checkpoint(object));
        self.drop_answers(object);
        let row = self.cohorts.rows.entry(object).or_default();
        let new = core::mem::take(&mut row.replies);
        let forgets = self.mutation == Mutation::LoseAnswers;
        let sent = row.sent.iter().filter(|_| !forgets);
        let open = sent.flat_map(|sent| &sent.replies);
        let tickets = open.chain(&new).map(|it| it.ticket);
        let replies = tickets.collect();
        let held = core::mem::take(&mut row.held);
        row.sent.push_back(Sent {
            job,
            held,
            replies: new,
            failed: false,
        });
        out.push(Output::Checkpoint {
            job,
            object,
            checkpoint,
            replies,
        });
    }

    /// What was aborted before the log had its answer is answered so, and the log needs it no
    /// more.
    fn drop_answers(&mut self, object: Uid) {
        let mirrors = &self.mirrors;
        let over = |it: &Answered| mirrors.find_at((it.root, Some(object))).is_none();
        let Some(row) = self.cohorts.rows.get_mut(&object) else {
            return;
        };
        let mut dropped = Vec::new();
        for sent in &mut row.sent {
            dropped.extend(sent.replies.extract_if(.., |it| over(it)));
        }
        if dropped.is_empty() {
            return;
        }
        let sent = row.sent.iter_mut().flat_map(|sent| &mut sent.held);
        for output in sent.chain(&mut row.held) {
            let Output::Reply { ticket, answer, .. } = output else {
                continue;
            };
            if let Some(it) = dropped.iter().find(|it| it.is_told_by(*ticket, answer)) {
                let (action, why) = (it.root, self.tombstones.reason(it.root));
                *answer = Answer::Refused(Refusal::ActionAborted { action, why });
            }
        }
    }

    /// A checkpoint is complete, or could not be added.
    pub(super) fn checkpointed(&mut self, job: Job, result: Result<(), Fault>, out: &mut Outbox) {
        // Its object was expelled, if it is not known.
        let Some(work) = self.jobs.remove(&job) else {
            return;
        };
        let Work::Checkpoint(object) = work else {
            panic!("{job:?} is a checkpoint but was {work:?}");
        };
        let row = self.cohorts.rows.get_mut(&object);
        let row = row.expect("a checkpoint is of an object with a row");
        // One behind it was complete before the fault of this one was heard of.
        let Some(at) = row.sent.iter().position(|sent| sent.job == job) else {
            return;
        };
        if let Err(fault) = result {
            row.sent[at].failed = true;
            // One behind it says what it was to say.
            let last = row.sent.iter().skip(at).all(|sent| sent.failed);
            if fault == Fault::Full && self.abort_large(object, at, out) {
                return;
            }
            let row = self.cohorts.rows.entry(object).or_default();
            if last && !core::mem::replace(&mut row.again, true) {
                let due = self.resend_at(self.limits.resend_ns);
                self.undone.push_back((due, Work::Checkpoint(object)));
            }
            return;
        }
        for sent in row.sent.range(..at) {
            self.jobs.remove(&sent.job);
        }
        let said = row.sent.drain(..=at).flat_map(|sent| sent.held);
        said.for_each(|output| out.push(output));
    }

    /// This shard leads an object no more: nothing is said that its log may not have.
    pub(super) fn drop_held(&mut self, object: Uid, out: &mut Outbox) {
        self.cohorts.waiting.remove(&object);
        self.cohorts.touched.remove(&object);
        let Some(row) = self.cohorts.rows.remove(&object) else {
            return;
        };
        for sent in &row.sent {
            self.jobs.remove(&sent.job);
        }
        let sent = row.sent.into_iter().flat_map(|sent| sent.held);
        for output in sent.chain(row.held) {
            Self::take_back(output, out);
        }
    }

    /// A checkpoint is larger than an entry may be, and would stay so: what makes it large is
    /// aborted, so that the others at the object go on. Whether there was any.
    fn abort_large(&mut self, object: Uid, at: usize, out: &mut Outbox) -> bool {
        let replies = self.cohorts.rows[&object].sent[at].replies.clone();
        let mut any = false;
        for slot in self.mirrors.parts_at(object) {
            let mirror = self.mirrors.mirror(slot);
            let (root, active) = (mirror.uid(), mirror.is_active());
            let levels = self.mirrors.subtree(mirror.root);
            let mut levels = levels.iter().map(|level| self.mirrors.level(*level));
            let changes = levels.any(|level| !level.images.is_empty());
            if active && (changes || replies.iter().any(|it| it.root == root)) {
                any = true;
                self.abort_mirror(slot, out);
            }
        }
        any
    }

    /// A checkpoint could not be added some time ago.
    pub(super) fn checkpoint_again(&mut self, object: Uid) {
        if let Some(row) = self.cohorts.rows.get_mut(&object)
            && core::mem::take(&mut row.again)
        {
            self.cohorts.touch(object);
        }
    }

    fn take_back(output: Output, out: &mut Outbox) {
        if let Output::Reply { ticket, .. } = output {
            let answer = Answer::Refused(Refusal::Moved);
            let joined = None;
            out.push(Output::Reply {
                ticket,
                answer,
                joined,
            });
        } else if let Output::Ended { ticket, .. } = output {
            let end = End::Unknown;
            out.push(Output::Ended { ticket, end });
        } else if let Output::Told { ticket, .. } = output {
            let verdict = None;
            out.push(Output::Told { ticket, verdict });
        } else if let Output::Forget { .. } = output {
            out.push(output);
        }
    }

    /// What running actions have of an object.
    fn checkpoint(&self, object: Uid) -> Checkpoint {
        let parts = self.mirrors.parts_at(object).into_iter();
        let parts = parts.filter(|slot| match self.mirrors.mirror(*slot).phase {
            // Who votes may be asked to commit again.
            Phase::Active | Phase::Voting(_) => true,
            Phase::Aborting
            | Phase::Preparing { .. }
            | Phase::Prepared { .. }
            | Phase::Installing { .. }
            | Phase::Deciding { .. } => false,
        });
        let parts: Vec<Slot> = parts.collect();
        let entry = self.objects.slot(object);
        let actions = parts.iter().map(|slot| {
            let mut action = self.cargo_action(object, *slot);
            let running = self.running_writes(*slot);
            let gone = &self.mirrors.mirror(*slot).gone;
            let whole = |id: &CallId| !running.contains(id) || gone.contains_key(id);
            action.executed.retain(whole);
            action
        });
        let cargo = Cargo {
            size_bytes: entry.map_or(0, |slot| self.objects.size_bytes(slot)),
            actions: actions.collect(),
        };
        let parts = parts.iter().map(|slot| {
            let mirror = self.mirrors.mirror(*slot);
            CheckpointPart {
                join: mirror.join,
                reached: mirror.reached.iter().copied().collect(),
                gone: mirror.gone.clone().into_iter().collect(),
                merged: mirror.merged.clone(),
                lost: mirror.lost_out.clone(),
                aborted: mirror.aborted.iter().copied().collect(),
            }
        });
        let ended = self.cohorts.rows.get(&object).map(|row| &row.ended);
        Checkpoint {
            cargo,
            parts: parts.collect(),
            ended: ended.into_iter().flatten().copied().collect(),
        }
    }

    fn running_writes(&self, slot: Slot) -> BTreeSet<CallId> {
        let levels = self.mirrors.subtree(self.mirrors.mirror(slot).root);
        let calls = levels.iter().flat_map(|at| &self.mirrors.level(*at).calls);
        let leaders = calls.map(|call| self.calls.leader(*call));
        let running = leaders.filter(|leader| leader.stage == Stage::Running);
        running.filter_map(|leader| leader.call).collect()
    }
}

impl Cohorts {
    /// What an earlier leader has known of ends.
    pub(super) fn take_ends(&mut self, object: Uid, ended: Vec<(Uid, CheckpointEnd)>) {
        self.rows.entry(object).or_default().ended = ended.into();
    }
}
