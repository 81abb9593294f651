//! Objects of the policy coordinator-cohort: checkpoints in their logs, leaders that go on where
//! their predecessors were, calls and commits that are sent again.

use std::collections::BTreeMap;

use partha_core::action::message::Message;
use partha_core::action::path::Address;
use partha_core::action::scope::Report;
use partha_core::engine::ActionPhase;
use partha_core::id::{CallId, Peer, Uid};
use partha_core::migrate::Checkpoint;
use partha_core::time::Time;
use partha_core::{End, Fault, Input, Job as Work, ObjectSlot, Output, Refusal, Ticket};

use super::image::Image;
use super::log::{Entry, Waits};
use super::net::{ConnNo, Life, Request, Response};
use super::plan::{LEASE, MS, S};
use super::truth::{Kind, Op, Outcome, State};
use super::world::{CallNo, Check, Event, Place, RunNo, TaskNo, World};

/// A checkpoint with the bytes that belong to it.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    /// Its times are true ones.
    pub(crate) checkpoint: Checkpoint,
    pub(crate) image: Option<Image>,
}

/// Answers that are saved in a log.
pub(crate) type Replies = BTreeMap<CallId, (Outcome, Report)>;

impl World {
    /// Whether the next leader of an object takes over what actions have of it.
    pub(crate) fn is_cohort(&self, uid: Uid) -> bool {
        self.groups.get(&uid).is_some_and(|group| group.cohort)
    }

    /// Where a call of an object is, as far as its action is concerned.
    pub(crate) fn address_of(&self, call: CallNo) -> Address {
        let it = &self.calls[call];
        let Op { kind, uid, .. } = self.truth.ops[it.op];
        // A create names an object that there is, to be made beside it.
        let known = it.run.is_some() && kind != Kind::Create && self.is_cohort(uid);
        match known {
            true => Address::Leader(uid),
            false => Address::Site(it.to),
        }
    }

    /// The shard at which somebody who takes part is found.
    pub(crate) fn found_at(&self, address: Address) -> (usize, usize) {
        let site = match address {
            Address::Site(site) => site,
            Address::Leader(uid) => self.leader_site(uid).expect("a part is of a group"),
        };
        (Self::node_of(site.node), usize::from(site.shard))
    }

    /// What an engine wants done for its checkpoints.
    pub(crate) fn cohort_output(&mut self, at: Place, output: Output) -> Check {
        match output {
            Output::Checkpoint {
                job,
                object,
                checkpoint,
                replies,
            } => self.add_checkpoint(at, (job, object), *checkpoint, &replies),
            Output::Resume { object, slot } => self.resumed(at, object, slot),
            Output::Watch { caller } => {
                let event = Event::Watched { at, caller };
                self.schedule(self.now + LEASE, event);
                Ok(())
            }
            Output::Again { ticket, lost } => {
                self.summary.reach("cohort: a call is executed again");
                for level in &lost {
                    self.truth.end_level(*level, State::Aborted);
                }
                let held = self.nodes[at.node].shards[at.shard].held.get_mut(&ticket);
                held.expect("it is about to run").dooms.extend(lost);
                Ok(())
            }
            Output::GoOut { ticket } => {
                let held = self.nodes[at.node].shards[at.shard].held.get_mut(&ticket);
                let call = held.and_then(|held| held.waiting.pop_front());
                if let Some(call) = call.filter(|call| self.calls[*call].open) {
                    self.schedule(self.now, Event::Resend { call });
                }
                Ok(())
            }
            moving => self.moving(at, moving),
        }
    }

    fn add_checkpoint(
        &mut self,
        at: Place,
        (job, object): (Work, Uid),
        mut checkpoint: Checkpoint,
        replies: &[Ticket],
    ) -> Check {
        if !self.believes(at.node, object) {
            return Err(format!(
                "cohort: a checkpoint of {object}, which is not led here"
            ));
        }
        if let Err(what) = checkpoint.check() {
            return Err(format!("cohort: a checkpoint has {what}: {checkpoint:?}"));
        }
        self.summary.reach(match checkpoint.cargo.actions.len() {
            0 => "checkpoint: of none",
            1 => "checkpoint: of one action",
            _ => "checkpoint: of several actions",
        });
        if self.in_faults() && self.group_rng.chance(self.crowded) {
            let soon = self.now + self.group_rng.range(0, MS);
            // What is too large is aborted, and no death is to do that.
            let fault = match self.deaths || self.group_rng.chance(700) {
                true => Fault::Store,
                false => Fault::Full,
            };
            self.summary.reach(match fault {
                Fault::Full => "checkpoint: too large",
                _ => "checkpoint: not added",
            });
            let event = Event::NotCheckpointed {
                at,
                object,
                job,
                fault,
            };
            self.schedule(soon, event);
            return Ok(());
        }
        let clock = self.processes[at.node].clock;
        for action in &mut checkpoint.cargo.actions {
            action.until = Time(clock.when(action.until.0));
        }
        let shard = &self.nodes[at.node].shards[at.shard];
        let image = match checkpoint.cargo.has_images() {
            true => Some(shard.images.at_rest(object)?),
            false => None,
        };
        let mut saved = Replies::new();
        for ticket in replies {
            let held = shard.held.get(ticket);
            let held = held.ok_or_else(|| format!("tickets: {ticket:?} is to be saved, gone"))?;
            let outcome = held.outcome.clone();
            let outcome = outcome.ok_or_else(|| format!("tickets: {held:?} has no outcome"))?;
            let report = self.servant_report(at, *ticket);
            saved.insert(self.truth.ops[held.op].call, (outcome, report));
        }
        let kept = Box::new(Kept { checkpoint, image });
        let entry = Entry::Checkpoint { kept, saved };
        self.add_entry(at, object, entry, Waits::Checkpoint(job));
        Ok(())
    }

    /// A new leader gets the latest checkpoint.
    pub(crate) fn recover_checkpoint(&mut self, at: Place, uid: Uid) -> Check {
        let Some(kept) = self.groups[&uid].shown.kept.clone() else {
            return Ok(());
        };
        let mut checkpoint = kept.checkpoint;
        for action in &mut checkpoint.cargo.actions {
            let left = action.until.0.saturating_sub(self.now);
            action.until = Time(self.local(at.node).0.saturating_add(left));
            self.summary.reach("cohort: an action is taken over");
            if action.levels.iter().any(|level| level.parent.is_some()) {
                self.summary.reach("cohort: with nested actions");
            }
        }
        if checkpoint.cargo.has_images() {
            self.summary.reach("cohort: with before-images");
        }
        let checkpoint = Box::new(checkpoint);
        self.input(
            at,
            Input::RecoverCheckpoint {
                object: uid,
                checkpoint,
            },
        )
    }

    fn resumed(&mut self, at: Place, uid: Uid, slot: Option<ObjectSlot>) -> Check {
        let Some(slot) = slot else {
            return Ok(());
        };
        let kept = self.groups[&uid].shown.kept.as_ref();
        let image = kept.and_then(|kept| kept.image.clone());
        let image = image.ok_or_else(|| format!("cohort: {uid} resumes without its image"))?;
        let node = &mut self.nodes[at.node];
        let shard = &mut node.shards[at.shard];
        let epoch = node.disk.activate(uid);
        shard.images.come(uid, image, epoch);
        shard.activations.come(uid, slot)
    }

    /// A process that called in an action which was taken over: does it live?
    pub(crate) fn watched(&mut self, at: Place, caller: Peer) -> Check {
        let (of, here) = (Self::life_of(caller), self.life(at.node));
        let mut conns = self.conns.iter();
        let connected = conns.any(|it| it.caller == of && it.server == here && !it.ended);
        if !connected && (self.closing || !self.is_alive(of)) {
            let shard = &mut self.nodes[at.node].shards[at.shard];
            shard.tickets.excuse_all_of(caller);
            return self.input(at, Input::PeerGone { caller });
        }
        let engine = &self.nodes[at.node].shards[at.shard].engine;
        let actions = engine.actions();
        let active = actions.filter(|action| action.phase == ActionPhase::Active);
        let callers: Vec<Peer> = active.flat_map(|action| action.callers).collect();
        let waits = callers.contains(&caller);
        if waits {
            self.schedule(self.now + LEASE, Event::Watched { at, caller });
        }
        Ok(())
    }

    /// The answer of a call of a cohort's object is missing, and there is nobody to give it: it
    /// is made where the object is led by then, under the same id. Whether it goes on.
    pub(crate) fn resend_soon(&mut self, call: CallNo) -> bool {
        let it = &self.calls[call];
        let goes_on = matches!(self.address_of(call), Address::Leader(_));
        if !goes_on || !it.open || self.now >= it.deadline {
            return false;
        }
        self.calls[call].conn = None;
        let pause = self.group_rng.range(MS / 10, 3 * MS);
        self.schedule(self.now + pause, Event::Resend { call });
        true
    }

    /// Whether an earlier leader may have executed a call.
    pub(crate) fn was_elsewhere(&self, call: CallNo) -> bool {
        let carried = matches!(self.address_of(call), Address::Leader(_));
        carried && self.calls[call].tries > 1
    }

    /// The call is made again.
    pub(crate) fn resend(&mut self, call: CallNo) -> Check {
        let it = &self.calls[call];
        if !it.open || it.conn.is_some() || !self.is_alive(it.caller) {
            return Ok(());
        }
        if let Address::Leader(uid) = self.address_of(call) {
            let to = self.leader_site(uid);
            self.calls[call].to = to.expect("a part is of a group");
        }
        if self.calls[call].tries > 0 {
            self.summary.reach("cohort: a call is sent again");
        }
        self.reach_out(call)?;
        // What was sent before may have been executed: the caller waits for as long as it does.
        let tried = self.calls[call].tries > 0;
        if self.send_call(call) || self.resend_soon(call) || tried {
            return Ok(());
        }
        self.unsent(call)
    }

    /// A servant of a cohort's object is about to call: the log is to know before. Whether that is
    /// waited for.
    pub(crate) fn goes_out(&mut self, call: CallNo) -> Result<bool, String> {
        let it = &self.calls[call];
        let task = &self.tasks[it.task];
        let Some((at, ticket)) = task.serving.filter(|(at, _)| self.lives(*at)) else {
            return Ok(false);
        };
        let run = task.run;
        let to = self.address_of(call);
        let held = self.nodes[at.node].shards[at.shard].held.get_mut(&ticket);
        let Some(held) = held.filter(|held| held.marked && held.runs) else {
            return Ok(false);
        };
        let level = held.level.filter(|_| held.run == run);
        held.waiting.push_back(call);
        self.input(at, Input::GoesOut { ticket, level, to })?;
        Ok(true)
    }

    /// Whoever runs an action tells a leader of an end once more, if another leads soon after.
    pub(crate) fn note_told(&mut self, from: Life, address: Address, message: &Message) {
        let Some(uid) = address.object() else {
            return;
        };
        let term = self.groups[&uid].term;
        self.look_again(from, (uid, term, 10 * MS), message);
    }

    fn look_again(&mut self, from: Life, (uid, term, pause): (Uid, u64, u64), message: &Message) {
        let message = Box::new(message.clone());
        self.schedule(
            self.now + pause,
            Event::TellAgain {
                from,
                uid,
                term,
                pause,
                message,
            },
        );
    }

    pub(crate) fn tell_again(
        &mut self,
        from: Life,
        (uid, term, pause): (Uid, u64, u64),
        message: &Message,
    ) {
        if !self.is_alive(from) || pause > 3 * S {
            return;
        }
        if self.groups[&uid].term != term {
            self.summary.reach("cohort: told again");
            return self.tell(from, vec![(Address::Leader(uid), message.clone())]);
        }
        self.look_again(from, (uid, term, 2 * pause), message);
    }

    /// In a run in which nothing but leaders dies no servant does what cannot be done again.
    pub(crate) fn is_again(&self, task: TaskNo) -> bool {
        self.deaths && self.tasks[task].serving.is_some()
    }

    /// What a cohort's servant has called in ends with it.
    pub(crate) fn end_servant(&mut self, task: TaskNo, commit: bool) {
        let (at, ticket) = self.tasks[task].serving.expect("a servant serves");
        let held = self.nodes[at.node].shards[at.shard].held.get(&ticket);
        let level = held.and_then(|held| held.level);
        if level.is_none() || self.tasks[task].action != level || !self.lives(at) {
            return;
        }
        let lost = level.is_some_and(|level| self.truth.levels[&level].state == State::Aborted);
        // Another leader has begun the call anew.
        let commit = commit && !lost;
        // That it is committed is the engine's to say, when the log has it.
        self.end_nested(task, commit, !commit);
        let merged = level.is_some_and(|level| self.truth.levels[&level].state == State::Merged);
        let held = self.nodes[at.node].shards[at.shard].held.get_mut(&ticket);
        if let Some(held) = held.filter(|_| !merged) {
            held.fails = true;
        }
    }

    /// Whether a task works in the nested action of a cohort's servant.
    pub(crate) fn is_carried(&self, task: TaskNo) -> bool {
        let it = &self.tasks[task];
        let Some((at, ticket)) = it.serving.filter(|(at, _)| self.lives(*at)) else {
            return false;
        };
        let held = self.nodes[at.node].shards[at.shard].held.get(&ticket);
        held.is_some_and(|held| held.level.is_some() && held.run == it.run)
    }

    /// A commit comes to whoever is believed to lead its decider.
    pub(crate) fn commit_of_part(&mut self, conn: ConnNo, run: RunNo, uid: Uid) -> Check {
        let it = &self.conns[conn];
        let (node, caller) = (it.server.process, Self::peer_of(it.caller));
        if !self.believes(node, uid) {
            let end = End::Unknown;
            self.respond(conn, Response::Ended { run, end });
            return Ok(());
        }
        if !self.may_lead(node, uid) {
            let request = Request::Commit(run);
            self.schedule(self.now + MS, Event::Request { conn, request });
            return Ok(());
        }
        let at = self.place(node, self.shard_of(uid));
        let asked = super::world::Asked {
            conn: Some(conn),
            run,
            commit: true,
        };
        let ticket = self.question(at, asked);
        let request = self.runs[run].request.clone();
        let (to, decider, others, aborted) = request.expect("a commit was planned");
        let input = Input::Commit {
            ticket,
            caller,
            action: self.runs[run].root,
            join: to.joined.join,
            others,
            aborted,
            decider,
            part: true,
        };
        self.input(at, input)
    }

    /// Asks once more for the commit of an action whose coordinator has not decided: another may
    /// have taken its place.
    pub(crate) fn commit_again(&mut self, run: RunNo) {
        let request = self.runs[run].request.as_ref();
        let (to, ..) = request.expect("a commit was planned");
        let Some(uid) = to.part() else {
            return;
        };
        let (node, _) = self.found_at(Address::Leader(uid));
        if let Some(conn) = self.connect(self.runs[run].at, node) {
            self.summary.reach("cohort: a commit is asked for again");
            self.runs[run].conn = Some(conn);
            self.request(conn, Request::Commit(run));
        }
    }

    /// In a run in which nothing but leaders dies, no action is aborted by that.
    pub(crate) fn check_carried(&self, root: Uid, why: &dyn core::fmt::Debug) -> Check {
        if self.deaths && !self.truth.roots[&root].rivals {
            return Err(format!(
                "cohort: {root} is aborted by a death: {why:?}, {:?}",
                self.truth.roots[&root]
            ));
        }
        Ok(())
    }

    /// Whether a refusal is the doing of other actions, or of the program.
    pub(crate) fn is_rivalry(refusal: &Refusal) -> bool {
        match refusal {
            Refusal::Deadlock { .. } | Refusal::LockTimeout { .. } | Refusal::Reentrant { .. } => {
                true
            }
            Refusal::NoSuchObject
            | Refusal::Moved
            | Refusal::Exists
            | Refusal::Deadline { .. }
            | Refusal::Draining
            | Refusal::OldIncarnation { .. }
            | Refusal::CallIdReused
            | Refusal::ActionAborted { .. }
            | Refusal::Repeated
            | Refusal::Killed
            | Refusal::Overloaded { .. }
            | Refusal::Malformed { .. }
            | Refusal::Store(_) => false,
        }
    }
}
