//! The toy shell of a shard: does what its engine says, with delays, and watches it.

use std::collections::VecDeque;

use partha_core::action::path::{Membership, Path};
use partha_core::engine::Mutation;
use partha_core::id::{CallId, Epoch, Uid};
use partha_core::{
    ActionBatch, Answer, Event as Told, Fault, Input, Job as Work, Loaded, Output, Refusal, Ticket,
    Written,
};

use super::checker::atomic;
use super::checker::waits::Broken;
use super::disk::{Batch, Fact, For, State, What};
use super::moves::Stage;
use super::net::ConnNo;
use super::plan::{KILLED, MS};
use super::servant::size_of;
use super::truth::{Kind, OpNo, Outcome};
use super::world::{CallNo, Check, Event, Place, RunNo, World};

/// What a shard's shell keeps of one call.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) conn: ConnNo,
    pub(crate) call: CallNo,
    pub(crate) op: OpNo,
    pub(crate) kind: Kind,
    pub(crate) uid: Uid,
    pub(crate) membership: Option<Membership>,
    /// The servant's part of the action.
    pub(crate) run: Option<RunNo>,
    /// Actions that have to be aborted: some that enclose the call, some that an earlier leader
    /// began for it.
    pub(crate) dooms: Vec<Uid>,
    /// The nested action in which a cohort's servant calls.
    pub(crate) level: Option<Uid>,
    /// It is such a servant.
    pub(crate) marked: bool,
    /// Calls that wait until the log knows of them.
    pub(crate) waiting: VecDeque<CallNo>,
    pub(crate) outcome: Option<Outcome>,
    /// What it saw when it began.
    pub(crate) began_with: usize,
    pub(crate) fails: bool,
    /// Its servant runs.
    pub(crate) runs: bool,
}

impl Held {
    pub(crate) fn new(
        conn: ConnNo,
        call: CallNo,
        op: OpNo,
        kind: Kind,
        uid: Uid,
        membership: Option<&Membership>,
    ) -> Self {
        Self {
            conn,
            call,
            op,
            kind,
            uid,
            membership: membership.cloned(),
            run: None,
            dooms: Vec::new(),
            level: None,
            marked: false,
            waiting: VecDeque::new(),
            outcome: None,
            began_with: 0,
            fails: false,
            runs: false,
        }
    }

    /// The path of an action that it is called in.
    pub(crate) fn path(&self) -> Option<&Path> {
        let path = self.membership.as_ref().map(|it| &it.path);
        path.filter(|path| path.leaf().is_some())
    }
}

impl World {
    /// Does one output.
    pub(crate) fn perform(&mut self, at: Place, output: Output, broken: &mut Vec<Broken>) -> Check {
        let soon = self.now + self.rng.range(0, MS / 2);
        let shard = &mut self.nodes[at.node].shards[at.shard];
        match output {
            Output::Search { ticket, call } => {
                shard.tickets.used(ticket)?;
                self.schedule(soon, Event::Search { at, ticket, call });
            }
            Output::Load { uid, slot } => {
                shard.activations.load(uid, slot)?;
                self.schedule(soon, Event::Load { at, uid });
            }
            Output::Dispatch {
                ticket,
                uid,
                slot,
                mode,
                new,
                action,
            } => self.dispatch(at, ticket, (uid, slot), (mode, new), action)?,
            Output::Kill { ticket } => self.stop_servant(at, ticket)?,
            flush @ Output::Flush { .. } => self.flush(at, &flush)?,
            Output::Reply {
                ticket,
                answer,
                joined,
            } => {
                if let Answer::Refused(Refusal::Deadlock { victim, cycle }) = &answer {
                    broken.push(Broken::new(*victim, cycle));
                }
                self.reply(at, ticket, answer, joined)?;
            }
            Output::Forget { ticket } => {
                shard.tickets.forgotten(ticket)?;
                shard.held.remove(&ticket);
                shard.images.forget(ticket);
            }
            Output::Discard { uid } => {
                shard.activations.drop_image(uid)?;
                shard.images.drop(uid)?;
            }
            Output::Passivate { uid } => {
                shard.activations.drop_image(uid)?;
                let image = shard.images.drop(uid)?.list;
                self.passivated(at, uid, &image)?;
            }
            Output::Capture { .. }
            | Output::Undo { .. }
            | Output::Keep { .. }
            | Output::Restore { .. }
            | Output::Inherit { .. }
            | Output::Release { .. } => self.undo_output(at, &output)?,
            Output::Store { job, batch } => self.store(at, job, *batch)?,
            search @ Output::SearchDecision { .. } => self.search_decision(at, &search),
            Output::EndPart {
                object,
                action,
                commit,
            } => self.end_part(at, object, action, commit),
            Output::Send { to, message } => self.mail_out(at, to, *message),
            Output::Ended { ticket, end } => self.ended(at, ticket, end)?,
            Output::Told { ticket, verdict } => self.told_out(at, ticket, verdict)?,
            Output::Event(event) => self.told_event(at, event),
            Output::Drained => return self.drained(at),
            other => self.cohort_output(at, other)?,
        }
        Ok(())
    }

    /// An engine tells of something: where a caller or an action is given up, nothing of it may
    /// be left in a while.
    fn told_event(&mut self, at: Place, event: Told) {
        match event {
            Told::Reborn { old, .. } => {
                let shard = &mut self.nodes[at.node].shards[at.shard];
                shard.tickets.excuse_all_of(old);
                let of = Self::life_of(old);
                self.schedule(self.now + KILLED, Event::Orphans { at, of });
            }
            Told::GaveUp { action, .. } => {
                self.schedule(self.now + KILLED, Event::GivenUp { at, action });
            }
            _ => {}
        }
    }

    /// What leaves memory is in the store; of a node that stops it may be prepared only.
    fn passivated(&self, at: Place, uid: Uid, image: &Vec<usize>) -> Check {
        if let Some(shown) = self.shown(at.node, uid) {
            // What a deposed leader has in memory is what it was.
            let leads = self.surely_leads(at.node, uid);
            return if leads { shown.has(uid, image) } else { Ok(()) };
        }
        let disk = &self.nodes[at.node].disk;
        let stored = disk.states.get(&uid);
        if disk.shadow(uid) == Some(image) || stored == Some(image) {
            return Ok(());
        }
        Err(format!("durable: {uid} loses {image:?}, stored {stored:?}"))
    }

    fn undo_output(&mut self, at: Place, output: &Output) -> Check {
        let shard = &mut self.nodes[at.node].shards[at.shard];
        let gone = match *output {
            Output::Capture { uid, action } => {
                shard.images.capture(uid, action)?;
                None
            }
            Output::Undo { ticket, uid } => shard.images.undo(uid, ticket)?.then_some(uid),
            Output::Keep {
                ticket,
                uid,
                action,
            } => {
                shard.images.keep(uid, ticket, action)?;
                None
            }
            Output::Restore { uid, action } => shard.images.restore(uid, action)?.then_some(uid),
            Output::Inherit {
                uid,
                child,
                parent,
                keep,
            } => {
                shard.images.inherit(uid, (child, parent), keep)?;
                None
            }
            Output::Release { uid, action } => {
                shard.images.release(uid, action)?;
                None
            }
            _ => None,
        };
        if let Some(uid) = gone {
            shard.activations.drop_image(uid)?;
        }
        Ok(())
    }

    /// A node that was told to stop restarts when all its shards are done.
    fn drained(&mut self, at: Place) -> Check {
        self.nodes[at.node].shards[at.shard].drained = true;
        let all = self.nodes[at.node].shards.iter().all(|shard| shard.drained);
        if self.nodes[at.node].draining && all && !self.closing {
            self.summary.reach("drained and restarted");
            return self.crash(at.node);
        }
        Ok(())
    }

    pub(crate) fn search(&mut self, at: Place, ticket: Ticket, call: CallId) -> Check {
        let found = self.nodes[at.node].disk.replies.contains_key(&call);
        self.input(at, Input::Searched { ticket, found })
    }

    pub(crate) fn load(&mut self, at: Place, uid: Uid) -> Check {
        if self.groups.contains_key(&uid) {
            return self.load_replicated(at, uid);
        }
        let node = &mut self.nodes[at.node];
        let shard = &mut node.shards[at.shard];
        let full = self.now < self.plan.faults_until && self.rng.chance(self.plan.full / 2);
        let outcome = match node.disk.states.get(&uid).cloned() {
            _ if full => Loaded::Failed(Fault::Store),
            Some(list) => {
                let epoch = node.disk.activate(uid);
                let size_bytes = size_of(&list);
                shard.images.insert(uid, list, epoch);
                Loaded::Found {
                    epoch: Epoch(epoch),
                    size_bytes,
                    replicated: false,
                }
            }
            None if node.disk.forwards.contains_key(&uid) => Loaded::Moved,
            None => Loaded::Absent,
        };
        let found = matches!(outcome, Loaded::Found { .. });
        shard.activations.loaded(uid, found);
        self.input(at, Input::Loaded { uid, outcome })
    }

    fn search_decision(&mut self, at: Place, search: &Output) {
        let Output::SearchDecision {
            job: work,
            action,
            decider,
        } = *search
        else {
            return;
        };
        let soon = self.now + self.rng.range(0, MS / 2);
        let event = Event::Decision {
            at,
            work,
            action,
            decider,
        };
        self.schedule(soon, event);
    }

    pub(crate) fn decision(
        &mut self,
        at: Place,
        work: Work,
        action: Uid,
        decider: Option<Uid>,
    ) -> Check {
        if let Some(uid) = decider {
            let found = self.decision_in_log(at, uid, action);
            return self.input(at, Input::DecisionFound { job: work, found });
        }
        let fails = self.in_faults() && self.rng.chance(self.plan.full);
        let found = self.nodes[at.node].disk.decisions.contains_key(&action);
        let found = (!fails).then_some(found);
        self.input(at, Input::DecisionFound { job: work, found })
    }

    fn flush(&mut self, at: Place, flush: &Output) -> Check {
        let Output::Flush {
            ticket,
            uid,
            state,
            reply,
            create,
        } = *flush
        else {
            return Ok(());
        };
        let node = &mut self.nodes[at.node];
        let shard = &mut node.shards[at.shard];
        shard.tickets.used(ticket)?;
        let held = &shard.held[&ticket];
        let call = self.truth.ops[held.op].call;
        let state = state.then(|| {
            let (list, rows, epoch) = shard.images.flushed(uid, ticket);
            State {
                uid,
                list,
                rows,
                epoch,
                create,
            }
        });
        let reply = held
            .outcome
            .clone()
            .filter(|_| reply)
            .map(|outcome| (call, outcome));
        let what = What::Call {
            state,
            reply,
            op: held.op,
        };
        self.submit(at, For::Call(ticket), what);
        Ok(())
    }

    pub(crate) fn submit(&mut self, at: Place, waits: For, what: What) {
        let shard = at.shard;
        self.nodes[at.node]
            .disk
            .submit(Batch { shard, waits, what });
        self.kick_disk(at.node);
    }

    fn kick_disk(&mut self, node: usize) {
        if self.nodes[node].disk.start(&mut self.rng) {
            let takes = self.rng.range(MS / 20, self.plan.disk_ns);
            let life = self.processes[node].life;
            self.schedule(self.now + takes, Event::DiskDone { node, life });
        }
    }

    /// A batch about an action goes to the disk.
    fn store(&mut self, at: Place, job: Work, batch: ActionBatch) -> Check {
        if self.store_in_logs(at, job, &batch)? {
            return Ok(());
        }
        let states = |world: &Self, action: Uid, objects: Vec<Written>| {
            let images = &world.nodes[at.node].shards[at.shard].images;
            let states = objects.into_iter().map(|Written { uid, create, .. }| {
                let (list, rows, epoch) = images.written(uid, action)?;
                Ok(State {
                    uid,
                    list,
                    rows,
                    epoch,
                    create,
                })
            });
            states.collect::<Result<Vec<_>, String>>()
        };
        let what = match batch {
            ActionBatch::Prepare {
                action,
                coordinator,
                objects,
            } => {
                let states = states(self, action, objects)?;
                What::Prepare {
                    action,
                    coordinator,
                    states,
                }
            }
            ActionBatch::Decide {
                action,
                objects,
                participants,
                groups,
                ..
            } => {
                let states = states(self, action, objects)?;
                What::Decide {
                    action,
                    states,
                    participants,
                    groups,
                }
            }
            ActionBatch::Install { action, .. } => What::Install { action },
            ActionBatch::Undo { action, .. } => What::Undo { action },
            ActionBatch::Settle { action, .. } => What::Settle { action },
            ActionBatch::Depart { action, uid, to } => {
                let keep = self.job.mutation != Mutation::LoseForward;
                What::Depart {
                    action,
                    uid,
                    to,
                    keep,
                }
            }
        };
        self.submit(at, For::Job(job), what);
        Ok(())
    }

    pub(crate) fn disk_done(&mut self, node: usize) -> Check {
        let full = if self.in_faults() { self.plan.full } else { 0 };
        let mut facts = Vec::new();
        let done = self.nodes[node]
            .disk
            .finish(&mut self.rng, full, &mut facts)?;
        self.learn(facts)?;
        self.kick_disk(node);
        let life = self.processes[node].life;
        for done in done {
            let at = Place {
                node,
                life,
                shard: done.shard,
            };
            let result = done.result;
            let input = match done.waits {
                For::Call(ticket) => Input::Flushed { ticket, result },
                For::Job(job) => Input::Stored { job, result },
                For::Step(job) if self.lives(at) => {
                    self.step_done(at, job, result, true)?;
                    continue;
                }
                For::Step(_) => continue,
                For::Move(number) => {
                    let stage = Stage::Written(result);
                    self.move_goes_on(number, stage)?;
                    continue;
                }
            };
            if self.lives(at) {
                self.input(at, input)?;
            }
        }
        Ok(())
    }

    /// What became true on a disk.
    pub(crate) fn learn(&mut self, facts: Vec<Fact>) -> Check {
        for fact in facts {
            match fact {
                Fact::Decided(action) => {
                    self.say(|| format!("{action} is decided"));
                    atomic::decided(&self.truth, action)?;
                    self.truth.root(action).decided = true;
                    self.summary.count("decisions");
                }
                Fact::Stored(op) => self.truth.ops[op].stored = true,
                Fact::Moved(uid) => self.check_owner(uid)?,
            }
        }
        Ok(())
    }
}
