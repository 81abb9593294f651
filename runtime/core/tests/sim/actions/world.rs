//! All processes and connections of a run, one queue of events, one true clock.

use std::collections::{BTreeMap, BTreeSet};

use partha_core::action::path::Site;
use partha_core::engine::Mutation;
use partha_core::id::{Incarnation, NodeId, Peer, Uid};
use partha_core::time::Time;
use partha_core::{Engine, Identity, Input, Job as Work, Outbox, Ticket, invariants};

use super::checker::{orphan, waits::Waits};
use super::disk::Disk;
pub(crate) use super::event::Event;
use super::groups::Group;
use super::image::Images;
use super::moves::Move;
use super::net::{Conn, ConnNo, Life};
use super::plan::{Clock, KILLED, MS, Plan, S};
use super::program::Task;
use super::reached;
use super::run::Run;
use super::shell::Held;
use super::steps::Steps;
use super::truth::{OpNo, Truth};
use crate::calls::checker::{activation::Activations, memory, tickets::Tickets};
use crate::rng::Rng;
use crate::{Job, Summary, Trace};

/// Numbers of what a run has had; none is used twice.
pub(crate) type CallNo = usize;
pub(crate) type TaskNo = usize;
pub(crate) type RunNo = usize;

/// Nothing of a healthy world takes longer than this.
const HEALED_NS: u64 = 2_000 * S;
/// More than any run needs.
const EVENTS_MAX: u64 = 2_000_000;

/// What a check says: nothing, or what is wrong.
pub(crate) type Check = Result<(), String>;

/// A shard in one life of its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) node: usize,
    pub(crate) life: u32,
    pub(crate) shard: usize,
}

/// One shard: its engine, and the bytes the engine never sees.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) engine: Engine,
    pub(crate) images: Images,
    pub(crate) held: BTreeMap<Ticket, Held>,
    /// Requests to commit or to tell, and who made them; none for the checker itself.
    pub(crate) asked: BTreeMap<Ticket, Asked>,
    /// Work for the store that has several steps.
    pub(crate) steps: BTreeMap<Work, Steps>,
    pub(crate) next_ticket: u64,
    pub(crate) timer_at: Option<u64>,
    pub(crate) drained: bool,
    pub(crate) tickets: Tickets,
    pub(crate) activations: Activations,
    /// Moves that bring something here.
    pub(crate) arriving: BTreeSet<Uid>,
}

/// A question about a top-level action.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) conn: Option<ConnNo>,
    pub(crate) run: RunNo,
    pub(crate) commit: bool,
}

/// What a node has besides being a process.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) draining: bool,
    pub(crate) next_object: u64,
    pub(crate) disk: Disk,
    pub(crate) shards: Vec<Shard>,
}

/// A process over all its lives: the nodes first, then the clients.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) life: u32,
    pub(crate) up: bool,
    pub(crate) clock: Clock,
    pub(crate) frozen_until: u64,
    pub(crate) next_uid: u64,
    pub(crate) next_sequence: u64,
    /// Programs that a client still has to run.
    pub(crate) todo: u64,
    /// Programs that it may run in place of aborted ones.
    pub(crate) retries: u64,
}

/// A whole run.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now: u64,
    sequence: u64,
    happened: u64,
    queue: BTreeMap<(u64, u64), Event>,
    pub(crate) rng: Rng,
    pub(crate) plan: Plan,
    pub(crate) job: Job,
    pub(crate) processes: Vec<Process>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) conns: Vec<Conn>,
    /// Processes that cannot hear each other, until when.
    pub(crate) partitions: BTreeMap<(usize, usize), u64>,
    pub(crate) calls: Vec<super::call::Call>,
    pub(crate) tasks: Vec<Task>,
    pub(crate) runs: Vec<Run>,
    pub(crate) objects: Vec<Uid>,
    pub(crate) moves: Vec<Move>,
    pub(crate) groups: BTreeMap<Uid, Group>,
    /// Chances of groups have a stream of their own: a run without them is as if there were none.
    pub(crate) group_rng: Rng,
    /// How often a leader is taken for dead when it has just added something, of a thousand.
    pub(crate) suspicious: u64,
    /// How often a checkpoint cannot be added for now, of a thousand.
    pub(crate) crowded: u64,
    /// All replicated objects are of the policy coordinator-cohort, and nothing but leaders dies.
    pub(crate) deaths: bool,
    /// In such a run: not even they do, but they are taken for dead; so actions may have plain
    /// objects, too.
    pub(crate) deposals: bool,
    /// Where processes believe objects to be that have moved.
    pub(crate) known: BTreeMap<(usize, Uid), Site>,
    pub(crate) truth: Truth,
    pub(crate) waits: Waits,
    pub(crate) summary: Summary,
    /// Nobody begins anything any more.
    pub(crate) closing: bool,
    /// A message about an action got lost, or may be late.
    pub(crate) unheard: bool,
}

impl World {
    pub(crate) fn new(job: &Job) -> Self {
        let mut rng = Rng::new(job.seed);
        let plan = Plan::new(&mut rng, job.caps);
        let mut world = Self {
            now: 0,
            sequence: 0,
            happened: 0,
            queue: BTreeMap::new(),
            rng,
            job: *job,
            processes: Vec::new(),
            nodes: Vec::new(),
            conns: Vec::new(),
            partitions: BTreeMap::new(),
            calls: Vec::new(),
            tasks: Vec::new(),
            runs: Vec::new(),
            objects: Vec::new(),
            moves: Vec::new(),
            groups: BTreeMap::new(),
            group_rng: Rng::new(!job.seed),
            suspicious: 0,
            crowded: 0,
            deaths: false,
            deposals: false,
            known: BTreeMap::new(),
            truth: Truth::default(),
            waits: Waits::default(),
            summary: Summary::default(),
            closing: false,
            unheard: false,
            plan,
        };
        for process in 0..world.plan.nodes + world.plan.clients {
            let is_client = process >= world.plan.nodes;
            let todo = if is_client { world.plan.actions } else { 0 };
            let clock = Clock::new(&world.plan, &mut world.rng);
            world.processes.push(Process {
                life: 1,
                up: true,
                clock,
                frozen_until: 0,
                next_uid: 1,
                next_sequence: 1,
                todo,
                retries: 2 * todo,
            });
        }
        for node in 0..world.plan.nodes {
            world.add_node(node);
        }
        world.make_groups();
        world
    }

    fn add_node(&mut self, node: usize) {
        let mut disk = Disk::default();
        for counter in 1..=self.plan.objects_per_node as u64 {
            let uid = Uid::new(Self::node_id(node), Incarnation(0), counter);
            disk.states.insert(uid, Vec::new());
            self.objects.push(uid);
        }
        self.nodes.push(Node {
            draining: false,
            next_object: 0,
            disk,
            shards: Vec::new(),
        });
        self.fill_shards(node);
    }

    /// New engines for a new life of a node.
    pub(crate) fn fill_shards(&mut self, node: usize) {
        let me = self.peer(node);
        let (limits, mutation) = (self.plan.limits, self.job.mutation);
        let seed = self.job.seed;
        let shards = (0..self.plan.shards as u16).map(|shard| Shard {
            engine: Engine::with_mutation(limits, Identity { me, shard, seed }, mutation),
            images: Images::default(),
            held: BTreeMap::new(),
            asked: BTreeMap::new(),
            steps: BTreeMap::new(),
            next_ticket: 1,
            timer_at: None,
            drained: false,
            tickets: Tickets::default(),
            activations: Activations::default(),
            arriving: BTreeSet::new(),
        });
        self.nodes[node].shards = shards.collect();
    }

    pub(crate) fn schedule(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.queue.insert((at.max(self.now), self.sequence), event);
    }

    pub(crate) fn in_faults(&self) -> bool {
        self.now < self.plan.faults_until
    }

    /// All events, until there are none.
    pub(crate) fn run_to_end(&mut self) -> Check {
        let last = self.now.max(self.plan.faults_until) + HEALED_NS;
        while let Some(((at, _), event)) = self.queue.pop_first() {
            self.now = at;
            self.happened += 1;
            if at > last || self.happened > EVENTS_MAX {
                return Err(format!(
                    "liveness: no rest after {} ms and {} events, next is {event:?}",
                    at / MS,
                    self.happened
                ));
            }
            self.happen(event)?;
        }
        Ok(())
    }

    /// Whether nothing but watching is still to happen.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    fn happen(&mut self, event: Event) -> Check {
        if let Some(process) = self.concerns(&event) {
            let thaw = self.processes[process].frozen_until;
            if thaw > self.now {
                self.schedule(thaw, event);
                return Ok(());
            }
        }
        match event {
            Event::Request { conn, request } => self.at_server(conn, request),
            Event::Response { conn, response } => self.at_caller(conn, response),
            Event::ServerLoses { conn } => self.server_loses(conn),
            Event::CallerLoses { conn } => self.caller_loses(conn),
            Event::Mail {
                node,
                shard,
                from,
                message,
            } => self.mail(node, shard, from, *message),
            Event::Search { at, ticket, call } if self.lives(at) => self.search(at, ticket, call),
            Event::Load { at, uid } if self.lives(at) => self.load(at, uid),
            Event::Decision {
                at,
                work,
                action,
                decider,
            } if self.lives(at) => self.decision(at, work, action, decider),
            Event::Returns { at, ticket } if self.lives(at) => self.returns(at, ticket),
            Event::Killed { at, ticket } if self.lives(at) => self.killed(at, ticket),
            Event::Extinct { of } => orphan::extinct(self, of),
            Event::Orphans { at, .. } | Event::GivenUp { at, .. } | Event::Overdue { at, .. }
                if self.lives(at) =>
            {
                // One that stood still needs its time afterwards.
                let awake = self.processes[at.node].frozen_until + KILLED;
                if awake > self.now {
                    self.schedule(awake, event);
                    return Ok(());
                }
                orphan::check(self, at, &event)
            }
            Event::Move => self.move_one(),
            Event::Moving { number, stage } => self.move_goes_on(number, stage),
            Event::DiskDone { node, life }
                if self.is_alive(Life {
                    process: node,
                    life,
                }) =>
            {
                self.disk_done(node)
            }
            Event::Timer { at } if self.lives(at) => self.timer(at),
            Event::Step { task } => self.step(task),
            Event::Patience { call } => self.lose_patience(call),
            Event::Expires { run } => self.expires(run),
            Event::AskAgain { run, asked } => self.ask_again(run, asked),
            Event::Next { client } => self.next_program(client),
            Event::Reborn { client } => self.reborn(client),
            Event::Restart { node } => self.restart(node),
            Event::Dies { node, life } if self.processes[node].life == life => self.crash(node),
            Event::Fault => self.fault(),
            Event::Watch => self.watch(),
            // Of a life that is over, or about a group.
            other => self.group_event(&other),
        }
    }

    /// The process that does not notice while it is frozen.
    fn concerns(&self, event: &Event) -> Option<usize> {
        match event {
            Event::Request { conn, .. } | Event::ServerLoses { conn } => {
                Some(self.conns[*conn].server.process)
            }
            Event::Response { conn, .. } | Event::CallerLoses { conn } => {
                Some(self.conns[*conn].caller.process)
            }
            Event::Mail { node, .. } | Event::DiskDone { node, .. } => Some(*node),
            Event::Moving { number, stage } => Some(self.move_concerns(*number, stage)),
            Event::Leads { node, .. } | Event::Deposed { node, .. } => Some(*node),
            Event::NotEnded { at, .. }
            | Event::NotCheckpointed { at, .. }
            | Event::Watched { at, .. }
            | Event::Search { at, .. }
            | Event::Load { at, .. }
            | Event::Decision { at, .. }
            | Event::Returns { at, .. }
            | Event::Killed { at, .. }
            | Event::Orphans { at, .. }
            | Event::GivenUp { at, .. }
            | Event::Overdue { at, .. }
            | Event::Timer { at } => Some(at.node),
            Event::Step { task } => Some(self.tasks[*task].at.process),
            Event::Patience { call } | Event::Resend { call } => {
                Some(self.calls[*call].caller.process)
            }
            Event::Expires { run } | Event::AskAgain { run, .. } => {
                Some(self.runs[*run].at.process)
            }
            Event::Next { client } => Some(client.process),
            Event::TellAgain { from, .. } => Some(from.process),
            Event::Reborn { .. }
            | Event::Restart { .. }
            | Event::Dies { .. }
            | Event::Extinct { .. }
            | Event::Suspect { .. }
            | Event::Complete { .. }
            | Event::Forget { .. }
            | Event::Fault
            | Event::Move
            | Event::Watch => None,
        }
    }

    pub(crate) fn lives(&self, at: Place) -> bool {
        self.is_alive(Life {
            process: at.node,
            life: at.life,
        })
    }

    pub(crate) fn is_alive(&self, it: Life) -> bool {
        let process = &self.processes[it.process];
        process.up && process.life == it.life
    }

    /// A process in its present life.
    pub(crate) fn life(&self, process: usize) -> Life {
        let life = self.processes[process].life;
        Life { process, life }
    }

    pub(crate) fn place(&self, node: usize, shard: usize) -> Place {
        let life = self.processes[node].life;
        Place { node, life, shard }
    }

    pub(crate) fn shard_of(&self, uid: Uid) -> usize {
        (uid.counter() % self.plan.shards as u64) as usize
    }

    /// Where an object is.
    pub(crate) fn site_of(&self, uid: Uid) -> Site {
        let shard = self.shard_of(uid) as u16;
        Site {
            node: uid.node,
            shard,
        }
    }

    /// The name of a process: nodes are numbered from 1.
    pub(crate) fn node_id(process: usize) -> NodeId {
        NodeId(1 + process as u64)
    }

    /// The inverse.
    pub(crate) fn node_of(id: NodeId) -> usize {
        id.0 as usize - 1
    }

    pub(crate) fn peer_of(it: Life) -> Peer {
        let (node, incarnation) = (Self::node_id(it.process), Incarnation(it.life));
        Peer { node, incarnation }
    }

    /// The inverse.
    pub(crate) fn life_of(peer: Peer) -> Life {
        let (process, life) = (Self::node_of(peer.node), peer.incarnation.0);
        Life { process, life }
    }

    pub(crate) fn peer(&self, process: usize) -> Peer {
        Self::peer_of(self.life(process))
    }

    /// A new name of an action.
    pub(crate) fn new_action(&mut self, it: Life) -> Uid {
        let process = &mut self.processes[it.process];
        process.next_uid += 1;
        let Peer { node, incarnation } = Self::peer_of(it);
        Uid::new(node, incarnation, process.next_uid)
    }

    /// What a process' clock shows.
    pub(crate) fn local(&self, process: usize) -> Time {
        Time(self.processes[process].clock.shows(self.now))
    }

    /// Until when a process cannot hear another.
    pub(crate) fn blocked(&self, one: usize, other: usize) -> u64 {
        let key = (one.min(other), one.max(other));
        self.partitions.get(&key).copied().unwrap_or(0)
    }

    /// Hands an input to an engine and does what it says.
    pub(crate) fn input(&mut self, at: Place, input: Input) -> Check {
        let mut out = Outbox::new();
        let time = self.local(at.node);
        let said = (self.job.trace != Trace::Off).then(|| format!("{input:?}"));
        let shard = &mut self.nodes[at.node].shards[at.shard];
        shard.engine.handle(time, input, &mut out);
        if let Some(said) = said {
            self.note(at, &said, &out);
        }
        self.after(at, out)
    }

    fn timer(&mut self, at: Place) -> Check {
        let mut out = Outbox::new();
        let time = self.local(at.node);
        let shard = &mut self.nodes[at.node].shards[at.shard];
        shard.timer_at = None;
        shard.engine.handle_timeout(time, &mut out);
        if self.job.trace != Trace::Off {
            self.note(at, "timer", &out);
        }
        self.after(at, out)
    }

    fn note(&mut self, at: Place, input: &str, out: &Outbox) {
        let Place { node, life, shard } = at;
        let outputs = out
            .as_slice()
            .iter()
            .map(|output| format!("\n      {output:?}"));
        let outputs: String = outputs.collect();
        let line = format!("{} {}/{life}#{shard} {input}{outputs}", self.now, node + 1);
        self.summary.note(self.job.trace, &line);
    }

    /// A line of the trace about what is no input of an engine.
    pub(crate) fn say(&mut self, line: impl FnOnce() -> String) {
        if self.job.trace != Trace::Off {
            let line = format!("{} {}", self.now, line());
            self.summary.note(self.job.trace, &line);
        }
    }

    fn after(&mut self, at: Place, mut out: Outbox) -> Check {
        self.summary.count("inputs");
        let mut broken = Vec::new();
        for output in out.drain() {
            reached::note(&mut self.summary, &output);
            self.perform(at, output, &mut broken)?;
        }
        let shard = &mut self.nodes[at.node].shards[at.shard];
        if self.job.mutation == Mutation::None {
            invariants::check(&shard.engine);
        }
        memory::after(&shard.engine, &self.plan.limits)?;
        self.waits.look(self.now, at, &shard.engine, &broken)?;
        let clock = self.processes[at.node].clock;
        let next = shard
            .engine
            .next_timeout()
            .filter(|time| *time != Time::NEVER);
        if let Some(next) = next.map(|time| clock.when(time.0))
            && shard.timer_at.is_none_or(|armed| next < armed)
        {
            shard.timer_at = Some(next);
            self.schedule(next, Event::Timer { at });
        }
        Ok(())
    }

    /// The object a create made, known to all from now on.
    pub(crate) fn add_object(&mut self, uid: Uid, op: OpNo) {
        self.truth.ops[op].uid = uid;
        if !self.objects.contains(&uid) {
            self.objects.push(uid);
        }
    }
}
