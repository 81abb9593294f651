//! Top-level actions and parts of them, as whoever runs them sees them: the real scope machine,
//! the messages it wants sent, the commit and the question what became of it.

use partha_core::action::message::{From, Message, Verdict};
use partha_core::action::path::{Participant, Path};
use partha_core::action::scope::{Doom, Family, Over, Plan, Send};
use partha_core::id::{NodeId, Uid};
use partha_core::{End, Input};

use super::net::{ConnNo, Life, Request};
use super::plan::{MS, S};
use super::truth::{OpNo, State};
use super::world::{Check, Event, Place, RunNo, TaskNo, World};

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Active,
    /// The commit was asked for, or what became of it.
    Committing,
    Done,
}

/// What a commit is asked for with.
pub(crate) type Plea = (Participant, Option<Uid>, Vec<Participant>, Vec<Uid>);

/// One family: a top-level action, or a servant's part of its caller's.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) family: Family,
    pub(crate) root: Uid,
    pub(crate) at: Life,
    pub(crate) stage: Stage,
    pub(crate) is_branch: bool,
    pub(crate) task: TaskNo,
    /// The family it is enclosed by in the same process.
    pub(crate) outer: Option<RunNo>,
    pub(crate) home: Option<NodeId>,
    pub(crate) born_ms: u64,
    /// True time.
    pub(crate) until: u64,
    /// Objects whose servants wait for its calls.
    pub(crate) stack: Vec<Uid>,
    /// Coordinator, decider, others, nested actions that were aborted.
    pub(crate) request: Option<Plea>,
    /// Over which the last question about its end went.
    pub(crate) conn: Option<ConnNo>,
    pub(crate) asked: u32,
    /// Writes of its own calls that were answered well.
    pub(crate) written: Vec<OpNo>,
}

/// What a new run is told.
pub(crate) struct Begin {
    pub(crate) path: Path,
    pub(crate) at: Life,
    pub(crate) outer: Option<RunNo>,
    pub(crate) home: Option<NodeId>,
    pub(crate) born_ms: Option<u64>,
    pub(crate) stack: Vec<Uid>,
}

impl World {
    /// A new top-level action; its root is the leaf of the path.
    pub(crate) fn begin_run(&mut self, begin: Begin) -> RunNo {
        let Begin {
            path,
            at,
            outer,
            home,
            born_ms,
            stack,
        } = begin;
        let root = path.root().expect("a root was named");
        self.truth.begin_level(root, None, self.now);
        let now_ms = self.local(at.process).0 / MS;
        let until = self.now + self.rng.range(self.plan.action_ns / 2, self.plan.action_ns);
        let run = self.runs.len();
        self.schedule(until, Event::Expires { run });
        let born_ms = born_ms.unwrap_or(now_ms);
        let family = Family::top(path);
        let (stage, is_branch, task) = (Stage::Active, false, 0);
        let (request, conn, asked) = (None, None, 0);
        self.runs.push(Run {
            family,
            root,
            at,
            stage,
            is_branch,
            task,
            outer,
            home,
            born_ms,
            until,
            stack,
            request,
            conn,
            asked,
            written: Vec::new(),
        });
        run
    }

    /// Where deadlocks of a family are looked for: settled by the first call.
    pub(crate) fn home_of(&mut self, run: RunNo, called: NodeId) -> NodeId {
        if let Some(home) = self.runs[run].home {
            return home;
        }
        let at = self.runs[run].at.process;
        let home = match self.runs[run].outer {
            Some(outer) => self.home_of(outer, called),
            None if at < self.plan.nodes => Self::node_id(at),
            None => called,
        };
        self.runs[run].home = Some(home);
        home
    }

    /// Sends messages of whoever runs an action; some get lost, come twice or late.
    pub(crate) fn tell(&mut self, from: Life, sends: Vec<Send>) {
        for (address, message) in sends {
            let (node, shard) = self.found_at(address);
            self.note_told(from, address, &message);
            let local = from == self.life(node);
            let trouble = self.in_faults() && !local;
            if trouble && self.rng.chance(self.plan.lost) {
                self.summary.reach("lost: of a runner");
                self.unheard = true;
                continue;
            }
            let late = trouble && self.rng.chance(self.plan.late);
            self.unheard |= late;
            let twice = trouble && self.rng.chance(self.plan.doubled);
            if late || twice {
                let delay = self.rng.range(MS, 3 * S);
                let sender = From {
                    peer: Self::peer_of(from),
                    shard: u16::MAX,
                };
                let mail = Event::Mail {
                    node,
                    shard,
                    from: sender,
                    message: Box::new(message.clone()),
                };
                self.schedule(self.now + delay, mail);
            }
            if late {
                continue;
            }
            match self.connect(from, node) {
                Some(conn) => {
                    let shard = shard as u16;
                    self.request(conn, Request::Tell { shard, message });
                }
                None => self.unheard = true,
            }
        }
    }

    /// A message arrives outside of any connection.
    pub(crate) fn mail(
        &mut self,
        node: usize,
        shard: usize,
        from: From,
        message: Message,
    ) -> Check {
        if !self.processes[node].up {
            return Ok(());
        }
        let at = self.place(node, shard);
        if let Message::Prepare { action, part, .. } = message
            && !part.map_or_else(
                || self.may_vote(at, action),
                |uid| self.may_lead(at.node, uid),
            )
        {
            self.summary.reach("group: a prepare is held");
            return Ok(());
        }
        let message = Box::new(message);
        self.input(at, Input::Message { from, message })
    }

    /// An answer in this run wants actions aborted that enclose it.
    pub(crate) fn outer_dooms(&mut self, run: RunNo) {
        let dooms = self.runs[run].family.take_outer();
        let task = self.runs[run].task;
        for (action, why) in dooms {
            self.doom_above(task, action, why);
        }
    }

    /// Tells whoever runs an action, from one of its tasks upwards, that it has to be aborted.
    pub(crate) fn doom_above(&mut self, task: TaskNo, action: Uid, why: Doom) {
        let mut at = task;
        loop {
            let it = &self.tasks[at];
            if let Some(run) = it.run
                && self.runs[run].family.path().is_within(action)
            {
                let sends = self.runs[run].family.doom(action, why);
                return self.tell(self.runs[run].at, sends);
            }
            if let Some(run) = it.run
                && self.truth.levels.contains_key(&action)
                && self.truth.root_of(action) == self.runs[run].root
            {
                let sends = self.runs[run].family.doom(action, why);
                return self.tell(self.runs[run].at, sends);
            }
            if it.own == Some(action) {
                self.tasks[at].fails = true;
                return;
            }
            match (it.parent, it.serving) {
                (Some(parent), _) => at = parent,
                (None, Some((place, ticket))) => {
                    let shard = &mut self.nodes[place.node].shards[place.shard];
                    if let Some(held) = shard.held.get_mut(&ticket) {
                        held.dooms.push(action);
                    }
                    return;
                }
                (None, None) => return,
            }
        }
    }

    /// The program wants the root committed.
    pub(crate) fn commit_root(&mut self, task: TaskNo) -> Check {
        let run = self.tasks[task].run.expect("a root has a run");
        match self.runs[run].family.commit() {
            Ok(Plan::Nothing) => {
                self.truth.end_level(self.runs[run].root, State::Merged);
                self.summary.reach("committed: nothing touched");
                self.told_committed(run)
            }
            Ok(Plan::Ask {
                coordinator,
                others,
                aborted,
                decider,
            }) => {
                self.say(|| format!("commit {coordinator:?} {others:?} {aborted:?}"));
                self.truth.end_level(self.runs[run].root, State::Merged);
                let (node, _) = self.found_at(coordinator.address());
                self.runs[run].request = Some((coordinator, decider, others, aborted));
                let conn = self.connect(self.runs[run].at, node);
                if conn.is_none() && coordinator.part().is_some() {
                    self.runs[run].stage = Stage::Committing;
                    let pause = self.group_rng.range(MS / 10, 20 * MS);
                    self.schedule(self.now + pause, Event::AskAgain { run, asked: 0 });
                    return Ok(());
                }
                let Some(conn) = conn else {
                    self.summary.reach("commit: no way to the coordinator");
                    return self.abort_root(task);
                };
                self.runs[run].stage = Stage::Committing;
                self.runs[run].conn = Some(conn);
                self.request(conn, Request::Commit(run));
                let patience = self.rng.range(self.plan.wait_ns / 4, self.plan.wait_ns);
                self.schedule(self.now + patience, Event::AskAgain { run, asked: 0 });
                Ok(())
            }
            Err(Over::Ended) => Err(format!("scope: {} ended already", self.runs[run].root)),
            Err(Over::Doomed { .. } | Over::Busy { .. }) => self.abort_root(task),
            Err(over @ (Over::TooDeep { .. } | Over::TooMany { .. })) => {
                Err(format!("scope: a commit is refused with {over:?}"))
            }
        }
    }

    /// The program, or its end, wants the root aborted.
    pub(crate) fn abort_root(&mut self, task: TaskNo) -> Check {
        let run = self.tasks[task].run.expect("a root has a run");
        self.told_aborted(run)
    }

    /// The coordinator's answer to the commit.
    pub(crate) fn commit_ended(&mut self, run: RunNo, end: End) -> Check {
        if self.runs[run].stage != Stage::Committing {
            return Ok(());
        }
        match end {
            End::Committed => self.told_committed(run),
            End::Aborted(_) => {
                self.check_moved_in_peace(self.runs[run].root, &end)?;
                self.told_aborted(run)
            }
            // It will be asked for.
            End::Unknown => {
                let asked = self.runs[run].asked;
                let pause = self.group_rng.range(MS / 10, 20 * MS);
                self.schedule(self.now + pause, Event::AskAgain { run, asked });
                Ok(())
            }
        }
    }

    /// The coordinator's answer to the question.
    pub(crate) fn told(&mut self, run: RunNo, verdict: Option<Verdict>) -> Check {
        if self.runs[run].stage != Stage::Committing {
            return Ok(());
        }
        match verdict {
            Some(Verdict::Committed) => {
                self.summary.reach("asked: committed");
                self.told_committed(run)
            }
            Some(Verdict::Aborted) => {
                self.summary.reach("asked: aborted");
                self.told_aborted(run)
            }
            Some(Verdict::InFlight) => {
                self.summary.reach("asked: in flight");
                self.commit_again(run);
                Ok(())
            }
            None => {
                self.summary.reach("asked: the store cannot tell");
                Ok(())
            }
        }
    }

    fn told_committed(&mut self, run: RunNo) -> Check {
        let root = self.runs[run].root;
        super::checker::durable::told_committed(&self.truth, root)?;
        let now = self.now;
        self.truth.root(root).told_at = Some(now);
        let sends = self.runs[run].family.settled();
        self.tell(self.runs[run].at, sends);
        self.summary.count("commits");
        self.end_run(run)
    }

    fn told_aborted(&mut self, run: RunNo) -> Check {
        let root = self.runs[run].root;
        super::checker::atomic::told_aborted(&self.truth, root)?;
        self.check_carried(root, &self.runs[run].stage)?;
        self.truth.root(root).dead = true;
        self.truth.end_level(root, State::Aborted);
        let sends = self.runs[run].family.abort();
        self.tell(self.runs[run].at, sends);
        self.summary.count("aborts");
        let client = self.runs[run].at;
        let is_client = client.process >= self.plan.nodes;
        if is_client && self.runs[run].outer.is_none() && self.processes[client.process].retries > 0
        {
            let process = &mut self.processes[client.process];
            process.retries -= 1;
            process.todo += 1;
            let pause = self.rng.range(MS, 50 * MS);
            self.schedule(self.now + pause, Event::Next { client });
        }
        self.end_run(run)
    }

    fn end_run(&mut self, run: RunNo) -> Check {
        self.runs[run].stage = Stage::Done;
        self.runs[run].conn = None;
        let task = self.runs[run].task;
        self.task_done(task)
    }

    /// The time of a top-level action is up.
    pub(crate) fn expires(&mut self, run: RunNo) -> Check {
        let at = self.runs[run].at;
        if self.runs[run].stage != Stage::Active || !self.is_alive(at) {
            return Ok(());
        }
        self.summary.reach("runner: time is up");
        self.check_carried(self.runs[run].root, &"its time is up")?;
        let task = self.runs[run].task;
        self.kill(task);
        self.child_ended(task)
    }

    /// There is no answer about the end of an action: asks, again and again.
    pub(crate) fn ask_again(&mut self, run: RunNo, asked: u32) -> Check {
        let at = self.runs[run].at;
        let over = self.runs[run].stage != Stage::Committing || !self.is_alive(at);
        if over || self.runs[run].asked != asked {
            return Ok(());
        }
        self.runs[run].asked += 1;
        let request = self.runs[run].request.as_ref();
        let (coordinator, decider, ..) = request.expect("a commit was planned");
        let leader = decider.and_then(|uid| self.leader_site(uid));
        let site = leader.unwrap_or(coordinator.site);
        if let Some(conn) = self.connect(at, Self::node_of(site.node)) {
            self.runs[run].conn = Some(conn);
            self.request(conn, Request::Ask(run));
        }
        let pause = self.rng.range(20 * MS, 500 * MS);
        let asked = self.runs[run].asked;
        self.schedule(self.now + pause, Event::AskAgain { run, asked });
        Ok(())
    }

    /// A servant's part of the action it is called in.
    pub(crate) fn begin_branch(
        &mut self,
        at: Place,
        path: Path,
        (home, born_ms, until): (NodeId, u64, u64),
        stack: Vec<Uid>,
    ) -> RunNo {
        let root = path.root().expect("a branch is of an action");
        self.runs.push(Run {
            family: Family::branch(path),
            root,
            at: Life {
                process: at.node,
                life: at.life,
            },
            stage: Stage::Active,
            is_branch: true,
            task: 0,
            outer: None,
            home: Some(home),
            born_ms,
            until,
            stack,
            request: None,
            conn: None,
            asked: 0,
            written: Vec::new(),
        });
        self.runs.len() - 1
    }
}
