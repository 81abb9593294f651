//! Servants: they use an object's image, some call others, and they end in one way or another.

use partha_core::action::path::{Path, own_action};
use partha_core::id::Uid;
use partha_core::{Ended, Input, Mode, ObjectSlot, Ticket};

use super::call::Wire;
use super::checker::isolated;
use super::net::Life;
use super::plan::{MS, S};
use super::program::{Doing, For, Task};
use super::truth::{Ending, Kind, OpNo, Outcome};
use super::world::{Check, Event, Place, RunNo, World};

impl World {
    pub(crate) fn dispatch(
        &mut self,
        at: Place,
        ticket: Ticket,
        (uid, slot): (Uid, ObjectSlot),
        (mode, new): (Mode, bool),
        action: Option<Uid>,
    ) -> Check {
        let node = &mut self.nodes[at.node];
        let shard = &mut node.shards[at.shard];
        shard.tickets.used(ticket)?;
        let as_read = if mode == Mode::Write {
            mode
        } else {
            Mode::Read
        };
        shard.activations.place(uid, slot)?;
        shard.activations.dispatch(uid, as_read, new)?;
        let held = shard.held.get_mut(&ticket).expect("a known ticket is held");
        held.runs = true;
        let (op, kind) = (held.op, held.kind);
        if action != held.path().and_then(Path::leaf) || mode != kind.mode() {
            return Err(format!(
                "tickets: {ticket:?} runs in {action:?}, but is {held:?}"
            ));
        }
        if !new {
            let image = shard.images.get(uid).ok_or("activation: no image to use")?;
            held.began_with = image.list.len();
            isolated::sees(&self.truth, op, held.path(), &image.list)?;
        }
        if !new {
            let node = &self.nodes[at.node];
            let rows = match self.shown(at.node, uid) {
                Some(shown) => Some(&shown.rows),
                None => node.disk.rows.get(&uid),
            };
            node.shards[at.shard].images.check_rows(uid, rows)?;
        }
        let node = &mut self.nodes[at.node];
        let shard = &mut node.shards[at.shard];
        if kind.writes() {
            let epoch = new.then(|| node.disk.activate(uid));
            shard.images.write(uid, ticket, op, epoch)?;
        }
        let held = &shard.held[&ticket];
        let stack = held
            .membership
            .as_ref()
            .map_or(0, |it| it.stack.len() as u64);
        let (call, in_action) = (held.call, held.path().is_some());
        let calls = stack < self.plan.depth && self.rng.chance(self.plan.servants_call);
        // A read that comes twice runs twice, and must have no effect elsewhere then.
        let twice = in_action && !kind.writes() && self.calls[call].copies > 1;
        let calls = calls && !twice;
        if calls {
            return self.servant(at, ticket);
        }
        if !new && self.rng.chance(self.plan.stuck) {
            self.summary.reach("servant: stuck");
            return Ok(());
        }
        let takes = self.rng.range(0, self.plan.servant_ns);
        self.schedule(self.now + takes, Event::Returns { at, ticket });
        Ok(())
    }

    /// A servant that calls others.
    fn servant(&mut self, at: Place, ticket: Ticket) -> Check {
        let held = &self.nodes[at.node].shards[at.shard].held[&ticket];
        let (uid, call) = (held.uid, held.call);
        let life = Life {
            process: at.node,
            life: at.life,
        };
        let membership = held.membership.clone();
        let above = membership.as_ref();
        let mut stack = above.map(|it| it.stack.clone()).unwrap_or_default();
        stack.push(uid);
        let in_action = membership.as_ref().filter(|it| it.path.root().is_some());
        let (home, born_ms) = match &membership {
            Some(it) => (it.home, it.born_ms),
            None => (Self::node_id(at.node), self.local(at.node).0 / MS),
        };
        let until = match &self.calls[call].wire {
            Some(wire) => wire.until,
            None => self.now + 60 * S,
        };
        let depth = stack.len() as u64;
        let (run, action, path, own, outside) = match in_action {
            Some(it) => {
                let path = it.path.clone();
                let action = path.leaf();
                let run = self.begin_branch(at, path.clone(), (home, born_ms, until), stack);
                (Some(run), action, path, None, None)
            }
            None => {
                let me = Self::peer_of(life);
                let own = own_action(me, at.shard as u16, ticket);
                let above = above.map(|it| it.path.clone()).unwrap_or_default();
                let path = above.top_level(own).outside();
                let wire = Wire {
                    path: path.clone(),
                    until,
                    home,
                    born_ms,
                    stack,
                    carried: false,
                };
                (None, None, path, Some(own), Some(wire))
            }
        };
        let marked = run.is_some() && self.is_cohort(uid);
        let (level, path) = self.own_level(run.filter(|_| marked), action, path);
        let action = level.or(action);
        let steps = self.rng.range(1, self.plan.steps.max(1)).min(3);
        let task = self.add_task(Task {
            at: life,
            what: For::Servant,
            doing: Doing::Steps,
            run,
            action,
            path: Some(path),
            parent: None,
            children: 0,
            steps,
            depth,
            serving: Some((at, ticket)),
            own,
            outside,
            fails: false,
        });
        if let Some(run) = run {
            self.runs[run].task = task;
        }
        self.note_run(at, ticket, run, (level, marked));
        Ok(())
    }

    /// The servant of a cohort's object calls within a nested action of its own.
    fn own_level(
        &mut self,
        run: Option<RunNo>,
        action: Option<Uid>,
        path: Path,
    ) -> (Option<Uid>, Path) {
        let Some((run, parent)) = run.zip(action) else {
            return (None, path);
        };
        let level = self.new_action(self.runs[run].at);
        match self.runs[run].family.begin(parent, level) {
            Ok(path) => {
                self.truth.begin_level(level, Some(parent), self.now);
                (Some(level), path)
            }
            Err(_) => (None, path),
        }
    }

    fn note_run(
        &mut self,
        at: Place,
        ticket: Ticket,
        run: Option<RunNo>,
        (level, marked): (Option<Uid>, bool),
    ) {
        let held = self.nodes[at.node].shards[at.shard].held.get_mut(&ticket);
        let held = held.expect("it is being served");
        (held.run, held.level, held.marked) = (run, level, marked);
        self.summary.reach(match run {
            Some(_) => "servant: calls in its action",
            None => "servant: calls outside of actions",
        });
    }

    /// Nobody needs what a servant does. One that waits for something ends at once, with what it
    /// has called; one that computes may take a while to notice.
    pub(crate) fn stop_servant(&mut self, at: Place, ticket: Ticket) -> Check {
        self.nodes[at.node].shards[at.shard].tickets.used(ticket)?;
        let serves = |task: &Task| {
            let here = task.what == For::Servant && task.serving == Some((at, ticket));
            here && task.doing != Doing::Done
        };
        let mut takes = 0;
        match self.tasks.iter().rposition(serves) {
            Some(task) => self.kill(task),
            None if self.rng.chance(self.plan.deaf) => {
                takes = self.rng.range(0, self.plan.servant_ns);
            }
            None => {}
        }
        self.schedule(self.now + takes, Event::Killed { at, ticket });
        Ok(())
    }

    /// A servant has been stopped, unless it has just ended by itself.
    pub(crate) fn killed(&mut self, at: Place, ticket: Ticket) -> Check {
        let shard = &mut self.nodes[at.node].shards[at.shard];
        let Some(held) = shard.held.get_mut(&ticket).filter(|held| held.runs) else {
            self.summary.reach("orphan: returned before it was killed");
            return Ok(());
        };
        held.runs = false;
        let as_read = if held.kind.writes() {
            Mode::Write
        } else {
            Mode::Read
        };
        let uid = held.uid;
        shard.activations.returned(uid, as_read);
        self.summary.reach("orphan: killed");
        let (ended, size_bytes) = (Ended::Killed, 0);
        self.input(
            at,
            Input::Returned {
                ticket,
                ended,
                size_bytes,
            },
        )
    }

    /// A servant ends.
    pub(crate) fn returns(&mut self, at: Place, ticket: Ticket) -> Check {
        let chance = if self.in_faults() {
            self.plan.failed
        } else {
            0
        };
        let fails = self.rng.chance(chance);
        let shard = &mut self.nodes[at.node].shards[at.shard];
        let Some(held) = shard.held.get_mut(&ticket).filter(|held| held.runs) else {
            // It was stopped before.
            return Ok(());
        };
        held.runs = false;
        let uid = held.uid;
        let image = shard
            .images
            .get(uid)
            .ok_or("activation: a servant lost its image")?;
        let as_read = if held.kind.writes() {
            Mode::Write
        } else {
            Mode::Read
        };
        shard.activations.returned(uid, as_read);
        let op = held.op;
        if image.list.len() != held.began_with + usize::from(held.kind.writes()) {
            return Err(format!("isolated: op {op} saw the object change under it"));
        }
        let mut seen = image.list.clone();
        let size_bytes = size_of(&seen);
        let (ended, ending) = match held.kind {
            _ if fails || held.fails => (Ended::Failed, Ending::Failed),
            Kind::Raise => {
                seen.pop();
                (Ended::Raised, Ending::Raised)
            }
            Kind::Read | Kind::Upgrade | Kind::Write | Kind::Create => {
                (Ended::Normal, Ending::Normal)
            }
        };
        held.outcome = Some(Outcome { ending, seen, uid });
        self.input(
            at,
            Input::Returned {
                ticket,
                ended,
                size_bytes,
            },
        )
    }
}

pub(crate) fn size_of(list: &[OpNo]) -> u64 {
    100 + 8 * list.len() as u64
}
