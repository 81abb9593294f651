//! Programs: random trees of calls and nested actions, run by clients and by servants.
//!
//! A task is one thread of control in one level. It takes a step after the other, each decided
//! when it is taken; tasks below it run beside it or while it waits.

use partha_core::Input;
use partha_core::action::path::Path;
use partha_core::action::scope::{CallKey, Over};
use partha_core::id::{CallId, Uid};

use super::call::{Call, Wire};
use super::net::Life;
use super::run::{Begin, Stage};
use super::truth::{Fate, Kind, State};
use super::world::{Check, Event, Place, RunNo, TaskNo, World};

/// What a task is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    /// Its next step comes.
    Steps,
    /// A call is under way.
    Calling,
    /// It goes on when those below have ended.
    Waiting,
    /// It ends when those below have ended.
    Ending {
        abort: bool,
    },
    /// Its root is being committed.
    Committing,
    Done,
}

/// What a task is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum For {
    /// A top-level action.
    Root,
    /// A nested action.
    Nested,
    /// Calls beside those of its parent, in the same level.
    Beside,
    /// A servant's work for one call.
    Servant,
    /// A client's calls outside of actions.
    Plain,
}

/// One thread of control.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) at: Life,
    pub(crate) what: For,
    pub(crate) doing: Doing,
    pub(crate) run: Option<RunNo>,
    /// The level it works in.
    pub(crate) action: Option<Uid>,
    /// What its calls say; none for a client's calls outside of actions.
    pub(crate) path: Option<Path>,
    pub(crate) parent: Option<TaskNo>,
    pub(crate) children: u32,
    pub(crate) steps: u64,
    pub(crate) depth: u64,
    pub(crate) serving: Option<(Place, partha_core::Ticket)>,
    /// The action that the call served is by itself, if it is outside of actions.
    pub(crate) own: Option<Uid>,
    /// What its calls say besides, if it has no run.
    pub(crate) outside: Option<Wire>,
    /// The servant cannot end well any more.
    pub(crate) fails: bool,
}

impl World {
    pub(crate) fn add_task(&mut self, task: Task) -> TaskNo {
        self.tasks.push(task);
        let task = self.tasks.len() - 1;
        self.step_soon(task);
        task
    }

    fn step_soon(&mut self, task: TaskNo) {
        let think = self.rng.range(0, self.plan.think_ns);
        self.schedule(self.now + think, Event::Step { task });
    }

    /// A client begins its next program.
    pub(crate) fn next_program(&mut self, client: Life) -> Check {
        if !self.is_alive(client) || self.processes[client.process].todo == 0 {
            return Ok(());
        }
        self.processes[client.process].todo -= 1;
        let steps = self.rng.range(1, self.plan.steps.max(1));
        if self.rng.chance(150) {
            self.add_task(Task {
                at: client,
                what: For::Plain,
                doing: Doing::Steps,
                run: None,
                action: None,
                path: None,
                parent: None,
                children: 0,
                steps,
                depth: 0,
                serving: None,
                own: None,
                outside: None,
                fails: false,
            });
        } else {
            let root = self.new_action(client);
            let (outer, home, born_ms, stack) = (None, None, None, Vec::new());
            let path = Path::top(root);
            let begin = Begin {
                path,
                at: client,
                outer,
                home,
                born_ms,
                stack,
            };
            self.add_root(begin, None, 0);
        }
        let pause = self.rng.range(0, self.plan.pause_ns);
        self.schedule(self.now + pause, Event::Next { client });
        Ok(())
    }

    fn add_root(&mut self, begin: Begin, parent: Option<TaskNo>, depth: u64) {
        let (at, path) = (begin.at, begin.path.clone());
        let run = self.begin_run(begin);
        self.say(|| format!("{path:?} begins"));
        let steps = self.rng.range(1, self.plan.steps.max(1));
        let task = self.add_task(Task {
            at,
            what: For::Root,
            doing: Doing::Steps,
            run: Some(run),
            action: path.leaf(),
            path: Some(path),
            parent,
            children: 0,
            steps,
            depth,
            serving: parent.and_then(|parent| self.tasks[parent].serving),
            own: None,
            outside: None,
            fails: false,
        });
        self.runs[run].task = task;
    }

    /// One step of a task.
    pub(crate) fn step(&mut self, task: TaskNo) -> Check {
        let it = &self.tasks[task];
        if it.doing != Doing::Steps || !self.is_alive(it.at) {
            return Ok(());
        }
        let doomed = it.run.zip(it.action);
        let doomed = doomed.and_then(|(run, action)| self.runs[run].family.doomed(action));
        if doomed.is_some() && self.rng.chance(800) {
            return self.finish(task, true);
        }
        if self.tasks[task].fails || self.tasks[task].steps == 0 {
            let abort = self.rng.chance(self.plan.give_up);
            return self.finish(task, abort);
        }
        self.tasks[task].steps -= 1;
        let deep = self.tasks[task].depth >= self.plan.depth;
        let roll = self.rng.below(1_000);
        let nested = self.plan.nested;
        let in_action = self.tasks[task].action.is_some();
        let plain = self.tasks[task].what == For::Plain;
        if in_action && !deep && roll < nested {
            self.begin_nested(task)
        } else if !plain && !deep && !self.is_again(task) && roll < nested + nested / 5 {
            self.begin_top_level(task)
        } else if in_action && roll < nested + nested / 5 + self.plan.beside / 8 {
            self.begin_beside(task)
        } else {
            self.make_call(task)
        }
    }

    fn begin_nested(&mut self, task: TaskNo) -> Check {
        let it = &self.tasks[task];
        let (at, run) = (it.at, it.run.expect("an action has a run"));
        let parent = it.action.expect("it is in an action");
        let child = self.new_action(at);
        let path = match self.runs[run].family.begin(parent, child) {
            Ok(path) => path,
            Err(Over::TooDeep { .. } | Over::TooMany { .. }) => {
                self.step_soon(task);
                return Ok(());
            }
            Err(Over::Ended | Over::Doomed { .. } | Over::Busy { .. }) => {
                return self.finish(task, true);
            }
        };
        self.say(|| format!("{path:?} begins"));
        self.truth.begin_level(child, Some(parent), self.now);
        self.summary.reach("nested: begun");
        let steps = self.rng.range(1, self.plan.steps.max(1));
        self.add_below(task, For::Nested, Some(child), Some(path), steps);
        self.beside_or_wait(task);
        Ok(())
    }

    fn begin_beside(&mut self, task: TaskNo) -> Check {
        let it = &self.tasks[task];
        let (action, path) = (it.action, it.path.clone());
        let steps = self.rng.range(1, 2);
        self.summary.reach("calls: several at a time in one level");
        self.add_below(task, For::Beside, action, path, steps);
        self.step_soon(task);
        Ok(())
    }

    fn add_below(
        &mut self,
        task: TaskNo,
        what: For,
        action: Option<Uid>,
        path: Option<Path>,
        steps: u64,
    ) {
        let it = &self.tasks[task];
        let (at, run, depth, serving) = (it.at, it.run, it.depth, it.serving);
        self.tasks[task].children += 1;
        self.add_task(Task {
            at,
            what,
            doing: Doing::Steps,
            run,
            action,
            path,
            parent: Some(task),
            children: 0,
            steps,
            depth: depth + 1,
            serving,
            own: None,
            outside: None,
            fails: false,
        });
    }

    fn beside_or_wait(&mut self, task: TaskNo) {
        if self.rng.chance(self.plan.beside) {
            self.summary.reach("nested: beside its parent");
            self.step_soon(task);
        } else {
            self.tasks[task].doing = Doing::Waiting;
        }
    }

    /// A top-level action within whatever the task does.
    fn begin_top_level(&mut self, task: TaskNo) -> Check {
        let it = &self.tasks[task];
        let (at, outer, depth) = (it.at, it.run, it.depth);
        let path = it.path.clone().expect("only plain tasks have none");
        let outside = it.outside.clone();
        let root = self.new_action(at);
        let (home, born_ms, stack) = match (outer, outside) {
            (Some(run), _) => {
                let run = &self.runs[run];
                (run.home, Some(run.born_ms), run.stack.clone())
            }
            (None, Some(wire)) => (Some(wire.home), Some(wire.born_ms), wire.stack),
            (None, None) => (None, None, Vec::new()),
        };
        let path = path.top_level(root);
        let begin = Begin {
            path,
            at,
            outer,
            home,
            born_ms,
            stack,
        };
        self.summary.reach("nested: top level within");
        self.tasks[task].children += 1;
        self.tasks[task].doing = Doing::Waiting;
        self.add_root(begin, Some(task), depth + 1);
        Ok(())
    }

    fn pick_kind(&mut self, task: TaskNo) -> Kind {
        let in_action = self.tasks[task].action.is_some();
        if !self.rng.chance(self.plan.writes) {
            let upgrade = in_action && self.rng.chance(250);
            return if upgrade { Kind::Upgrade } else { Kind::Read };
        }
        match self.rng.below(1_000) {
            roll if roll < self.plan.raised => Kind::Raise,
            _ if self.deaths => Kind::Write,
            roll if roll < self.plan.raised + 60 => Kind::Create,
            _ => Kind::Write,
        }
    }

    pub(crate) fn pick_object(&mut self) -> Uid {
        if self.rng.chance(self.plan.hot) {
            return self.objects[0];
        }
        self.rng.pick(&self.objects)
    }

    fn pick_plain(&mut self) -> Uid {
        let all = self.objects.iter().copied();
        let plain: Vec<Uid> = all.filter(|uid| !self.groups.contains_key(uid)).collect();
        self.rng.pick(&plain)
    }

    /// Whether the death of its node would abort actions, where no death is to do that.
    fn is_mortal(&self, uid: Uid) -> bool {
        self.deaths && !self.deposals && !self.groups.contains_key(&uid)
    }

    fn make_call(&mut self, task: TaskNo) -> Check {
        let (at, action) = (self.tasks[task].at, self.tasks[task].action);
        let key = match self.key_for(task) {
            Ok(key) => key,
            Err(Over::TooMany { .. }) => {
                self.step_soon(task);
                return Ok(());
            }
            Err(Over::Ended | Over::Doomed { .. } | Over::Busy { .. } | Over::TooDeep { .. }) => {
                return self.finish(task, true);
            }
        };
        let kind = self.pick_kind(task);
        let uid = match self.pick_object() {
            uid if action.is_none() && self.groups.contains_key(&uid) => self.pick_plain(),
            uid if action.is_some() && self.is_mortal(uid) => {
                let all: Vec<Uid> = self.groups.keys().copied().collect();
                self.group_rng.pick(&all)
            }
            uid => uid,
        };
        let to = self.known_site(at.process, uid);
        let process = &mut self.processes[at.process];
        let sequence = process.next_sequence;
        process.next_sequence += 1;
        let id = CallId {
            caller: Self::peer_of(at),
            sequence,
        };
        let op = self.truth.begin(kind, uid, action, id, self.now);
        self.say(|| format!("op {op}: {kind:?} {uid} in {action:?}"));
        let wire = self.wire_for(task, to.node);
        let wait = self.rng.range(self.plan.wait_ns / 2, self.plan.wait_ns);
        let call = self.calls.len();
        self.calls.push(Call {
            op,
            task,
            caller: at,
            run: self.tasks[task].run.zip(key),
            to,
            conn: None,
            wire,
            open: true,
            tries: 0,
            copies: 0,
            hops: 0,
            joined: Vec::new(),
            deadline: self.now + wait,
        });
        self.tasks[task].doing = Doing::Calling;
        if !self.finds_leader(call) {
            return self.unsent(call);
        }
        self.reach_out(call)?;
        if !self.goes_out(call)? && !self.send_call(call) && !self.resend_soon(call) {
            return self.unsent(call);
        }
        let cancels = self.in_faults() && self.rng.chance(self.plan.cancelled);
        let patience = if cancels {
            self.rng.below(wait / 20 + 1)
        } else {
            wait + wait / 10
        };
        self.schedule(self.now + patience, Event::Patience { call });
        Ok(())
    }

    /// There is no way to where a call goes.
    pub(crate) fn unsent(&mut self, call: super::world::CallNo) -> Check {
        let (op, task) = (self.calls[call].op, self.calls[call].task);
        self.truth.ops[op].fate = Fate::NotExecuted;
        let report = partha_core::action::scope::Report::default();
        self.close_call(call, &report, partha_core::action::scope::CallEnd::Known);
        self.task_goes_on(task, false)
    }

    fn key_for(&mut self, task: TaskNo) -> Result<Option<CallKey>, Over> {
        let it = &self.tasks[task];
        let Some((run, action)) = it.run.zip(it.action) else {
            return Ok(None);
        };
        self.runs[run].family.calling(action).map(Some)
    }

    fn wire_for(&mut self, task: TaskNo, called: partha_core::id::NodeId) -> Option<Wire> {
        let Some(run) = self.tasks[task].run else {
            return self.tasks[task].outside.clone();
        };
        let home = self.home_of(run, called);
        let carried = self.is_carried(task);
        let path = self.tasks[task].path.clone().expect("a run has a path");
        let run = &self.runs[run];
        let (until, born_ms, stack) = (run.until, run.born_ms, run.stack.clone());
        Some(Wire {
            path,
            until,
            home,
            born_ms,
            stack,
            carried,
        })
    }

    /// Before a call in an action leaves: whoever could have to undo it knows where it went.
    pub(crate) fn reach_out(&mut self, call: super::world::CallNo) -> Check {
        let Some((run, key)) = self.calls[call].run else {
            return Ok(());
        };
        let (to, address) = (self.calls[call].to, self.address_of(call));
        self.runs[run].family.reaching(key, address);
        let Some((place, _)) = self.tasks[self.calls[call].task].serving else {
            return Ok(());
        };
        let here = place.node == Self::node_of(to.node) && place.shard == usize::from(to.shard);
        let here = here && address.object().is_none();
        if here || !self.runs[run].is_branch {
            return Ok(());
        }
        let action = self.runs[run].root;
        self.input(
            place,
            Input::Reached {
                action,
                to: address,
            },
        )
    }

    /// A task's call has ended.
    pub(crate) fn task_goes_on(&mut self, task: TaskNo, ok: bool) -> Check {
        if self.tasks[task].doing != Doing::Calling {
            return Ok(());
        }
        self.tasks[task].doing = Doing::Steps;
        if !ok && self.rng.chance(300) {
            self.tasks[task].fails |= self.rng.chance(500);
            return self.finish(task, true);
        }
        self.step_soon(task);
        Ok(())
    }

    /// A task's work is done: its level ends.
    pub(crate) fn finish(&mut self, task: TaskNo, abort: bool) -> Check {
        if self.tasks[task].children > 0 {
            if !abort || self.rng.chance(500) {
                self.tasks[task].doing = Doing::Ending { abort };
                return Ok(());
            }
            self.kill_below(task);
        }
        match self.tasks[task].what {
            For::Root if abort => self.abort_root(task),
            For::Root => {
                self.tasks[task].doing = Doing::Committing;
                self.commit_root(task)
            }
            For::Nested => {
                self.end_nested(task, !abort, true);
                self.task_done(task)
            }
            For::Beside | For::Plain => self.task_done(task),
            For::Servant => {
                let (at, ticket) = self.tasks[task].serving.expect("a servant serves");
                self.end_servant(task, true);
                let takes = self.rng.range(0, self.plan.servant_ns);
                self.schedule(self.now + takes, Event::Returns { at, ticket });
                self.tasks[task].doing = Doing::Done;
                Ok(())
            }
        }
    }

    pub(crate) fn end_nested(&mut self, task: TaskNo, commit: bool, tells: bool) {
        let run = self.tasks[task].run.expect("an action has a run");
        let child = self.tasks[task].action.expect("it is an action");
        let family = &mut self.runs[run].family;
        let (sends, state) = match family.end_nested(child, commit) {
            Ok(sends) if commit => (sends, State::Merged),
            Ok(sends) => (sends, State::Aborted),
            Err(_) => (
                family.end_nested(child, false).unwrap_or_default(),
                State::Aborted,
            ),
        };
        self.say(|| format!("{child} is {state:?}"));
        self.summary.reach(match state {
            State::Merged => "nested: committed",
            State::Open | State::Aborted => "nested: aborted",
        });
        self.truth.end_level(child, state);
        let at = self.tasks[task].at;
        if tells || state == State::Aborted {
            self.tell(at, sends);
        }
    }

    /// A task is over.
    pub(crate) fn task_done(&mut self, task: TaskNo) -> Check {
        if self.tasks[task].doing == Doing::Done {
            return Ok(());
        }
        self.tasks[task].doing = Doing::Done;
        self.child_ended(task)
    }

    /// Its parent goes on, if it waits.
    pub(crate) fn child_ended(&mut self, task: TaskNo) -> Check {
        let Some(parent) = self.tasks[task].parent else {
            return Ok(());
        };
        self.tasks[parent].children -= 1;
        if self.tasks[parent].children > 0 {
            return Ok(());
        }
        match self.tasks[parent].doing {
            Doing::Waiting => {
                self.tasks[parent].doing = Doing::Steps;
                self.step_soon(parent);
                Ok(())
            }
            Doing::Ending { abort } => self.finish(parent, abort),
            Doing::Steps | Doing::Calling | Doing::Committing | Doing::Done => Ok(()),
        }
    }

    /// Drops all tasks below one, as dropping a future does.
    fn kill_below(&mut self, task: TaskNo) {
        for child in task + 1..self.tasks.len() {
            if self.tasks[child].parent == Some(task) && self.tasks[child].doing != Doing::Done {
                self.kill(child);
                self.tasks[child].parent = None;
            }
        }
        self.tasks[task].children = 0;
    }

    /// Drops a task with all below. A commit under way is not stopped.
    pub(crate) fn kill(&mut self, task: TaskNo) {
        if self.tasks[task].doing == Doing::Committing {
            return;
        }
        self.summary.reach("task: dropped");
        self.kill_below(task);
        let calling = self.tasks[task].doing == Doing::Calling;
        self.tasks[task].doing = Doing::Done;
        if calling {
            let mine = |call: &Call| call.open && call.task == task;
            if let Some(call) = self.calls.iter().rposition(mine) {
                self.give_up_call(call);
            }
        }
        match self.tasks[task].what {
            For::Root => {
                let run = self.tasks[task].run.expect("a root has a run");
                let root = self.runs[run].root;
                self.truth.root(root).dead = true;
                self.truth.end_level(root, State::Aborted);
                self.runs[run].stage = Stage::Done;
                let sends = self.runs[run].family.abort();
                let at = self.tasks[task].at;
                self.tell(at, sends);
                self.summary.count("aborts");
            }
            For::Nested => self.end_nested(task, false, true),
            For::Servant => self.end_servant(task, false),
            For::Beside | For::Plain => {}
        }
    }
}
