//! All nodes and clients of a run, one queue of events, one clock.

use std::collections::{BTreeMap, BTreeSet};

use partha_core::engine::Mutation;
use partha_core::group::log::Stamp;
use partha_core::group::{Change, Input, Message, Role, Rule, View};
use partha_core::id::NodeId;

use super::client::{Client, Want};
use super::node::{Disk, Node};
use super::plan::{BEAT, MS, Plan};
use super::truth::{Object, Op, Truth};
use crate::rng::Rng;
use crate::{Job, Summary, Trace};

/// Nothing of a healthy world takes longer than this.
const HEALED: u64 = 20_000 * MS;
/// How long nothing happens before the end is judged.
const REST: u64 = 500 * MS;

pub(super) type Check = Result<(), String>;

#[derive(Clone, Debug)]
pub(super) enum Event {
    Packet(Box<Packet>),
    Beat {
        from: usize,
        to: usize,
    },
    Tick {
        node: usize,
        life: u32,
    },
    Timer {
        node: usize,
        life: u32,
    },
    DiskDone {
        node: usize,
        life: u32,
    },
    Restart {
        node: usize,
    },
    AtBinder {
        from: usize,
        change: Option<Change>,
    },
    FromBinder {
        to: usize,
        view: View,
    },
    Client {
        client: usize,
        asked: u64,
    },
    Request {
        client: usize,
        node: usize,
        want: Want,
    },
    Answer {
        client: usize,
        number: Op,
        reply: Reply,
    },
    Ended {
        node: usize,
        of: usize,
    },
    /// What is prepared at a leader is done.
    End {
        node: usize,
        life: u32,
        op: Op,
    },
    Fault,
}

#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) message: Message,
    pub(super) ops: Vec<(Stamp, Op)>,
    pub(super) object: Object,
}

#[derive(Clone, Debug)]
pub(super) enum Reply {
    Added { length: usize },
    Read(Vec<Op>),
    Elsewhere,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) now: u64,
    pub(super) sequence: u64,
    pub(super) queue: BTreeMap<(u64, u64), Event>,
    pub(super) rng: Rng,
    pub(super) plan: Plan,
    pub(super) nodes: Vec<Node>,
    pub(super) clients: Vec<Client>,
    pub(super) binder: View,
    pub(super) binder_away_until: u64,
    /// Who has changed the policy last, and the number of the view that made.
    pub(super) another_policy: Option<(usize, u64)>,
    /// Pairs that do not hear each other, and until when.
    pub(super) apart: BTreeMap<(usize, usize), u64>,
    pub(super) truth: Truth,
    pub(super) next_op: Op,
    pub(super) rule: Option<Rule>,
    pub(super) summary: Summary,
    pub(super) traced: Trace,
    pub(super) resting_since: Option<u64>,
}

/// Runs one seed to its end.
pub(crate) fn run(job: &Job) -> Result<Summary, String> {
    let mut world = World::new(job);
    world.begin();
    while let Some(((at, _), event)) = world.queue.pop_first() {
        world.now = world.now.max(at);
        if world.now > world.plan.faults_until + HEALED {
            return Err(format!("liveness: {}", world.describe()));
        }
        if world.traced != Trace::Off {
            let line = format!("{} {event:?}", world.now);
            world.summary.note(world.traced, &line);
        }
        world.happen(event)?;
        if world.is_over() {
            break;
        }
    }
    let copies = world.nodes.iter().enumerate();
    let copies: Vec<_> = copies
        .map(|(n, node)| (n, node.disk.object.list.clone()))
        .collect();
    world.truth.close(&copies)?;
    Ok(world.summary)
}

impl World {
    pub(super) fn new(job: &Job) -> Self {
        let mut rng = Rng::new(job.seed);
        let plan = Plan::new(&mut rng, job.caps);
        let members = (0..plan.members).map(node_id).collect();
        let binder = View::first(members);
        let nodes = (0..plan.nodes).map(|node| Node {
            me: node_id(node),
            life: 0,
            disk: Disk {
                view: binder.clone(),
                installed: Stamp::default(),
                staged: Vec::new(),
                object: Object::default(),
                // Who is no member at first has no state, either.
                broken: node >= plan.members,
            },
            process: None,
            frozen_until: 0,
            rate: rng.range(970_000, 1_030_000),
            offset: rng.below(1_000_000) * MS,
        });
        let nodes = nodes.collect();
        let clients = (0..plan.clients).map(|_| Client {
            want: None,
            left: plan.ops,
            node: 0,
            asked: 0,
        });
        Self {
            now: 0,
            sequence: 0,
            queue: BTreeMap::new(),
            nodes,
            clients: clients.collect(),
            plan,
            rng,
            binder,
            binder_away_until: 0,
            another_policy: None,
            apart: BTreeMap::new(),
            truth: Truth::default(),
            next_op: 0,
            rule: match job.mutation {
                Mutation::Group(rule) => Some(rule),
                _ => None,
            },
            summary: Summary::default(),
            traced: job.trace,
            resting_since: None,
        }
    }

    pub(super) fn begin(&mut self) {
        for node in 0..self.nodes.len() {
            self.start(node);
        }
        for client in 0..self.clients.len() {
            self.schedule(0, Event::Client { client, asked: 0 });
        }
        self.schedule(0, Event::Fault);
    }

    pub(super) fn schedule(&mut self, after: u64, event: Event) {
        self.sequence += 1;
        self.queue.insert((self.now + after, self.sequence), event);
    }

    pub(super) fn is_healthy(&self) -> bool {
        self.now >= self.plan.faults_until
    }

    pub(super) fn start(&mut self, node: usize) {
        let count = self.nodes.len();
        self.nodes[node].start(self.now, count, self.rule);
        let life = self.nodes[node].life;
        let after = self.rng.below(BEAT);
        self.schedule(after, Event::Tick { node, life });
        self.rearm(node);
    }

    /// Whether a message arrives, and how late; twice, perhaps.
    pub(super) fn delays(&mut self, from: usize, to: usize) -> Vec<u64> {
        let pair = (from.min(to), from.max(to));
        let apart = self.apart.get(&pair).is_some_and(|until| *until > self.now);
        let healthy = self.is_healthy();
        if !healthy && (apart || self.rng.chance(self.plan.lost_per_mille)) {
            return Vec::new();
        }
        let mut delays = vec![self.rng.range(1, self.plan.net)];
        if !healthy && self.rng.chance(self.plan.doubled_per_mille) {
            delays.push(self.rng.range(1, 30 * self.plan.net));
        }
        if !healthy && self.rng.chance(self.plan.late_per_mille) {
            delays[0] += self.rng.range(1, 200 * MS);
        }
        delays
    }

    pub(super) fn send(&mut self, from: usize, to: usize, event: &Event) {
        for delay in self.delays(from, to) {
            self.schedule(delay, event.clone());
        }
    }

    pub(super) fn happen(&mut self, event: Event) -> Check {
        if let Some(node) = event.node()
            && self.nodes[node].frozen_until > self.now
        {
            let wait = self.nodes[node].frozen_until - self.now;
            self.schedule(wait, event);
            return Ok(());
        }
        match event {
            Event::Packet(packet) => self.packet(*packet),
            Event::Beat { from, to } => self.beat(from, to),
            Event::Tick { node, life } => self.tick(node, life),
            Event::Timer { node, life } => self.timer(node, life),
            Event::DiskDone { node, life } => self.disk_done(node, life),
            Event::Restart { node } => {
                self.start(node);
                Ok(())
            }
            Event::AtBinder { from, change } => {
                self.at_binder(from, change);
                Ok(())
            }
            Event::FromBinder { to, view } => self.input(to, Input::View(view)),
            Event::Client { client, asked } => {
                self.client(client, asked);
                Ok(())
            }
            Event::Request { client, node, want } => self.request(client, node, want),
            Event::Answer {
                client,
                number,
                reply,
            } => self.answer(client, number, reply),
            Event::Ended { node, of } => {
                let is_down = self.nodes[of].process.is_none();
                let process = self.nodes[node].process.as_mut();
                let Some(process) = process.filter(|_| is_down) else {
                    return Ok(());
                };
                process.lost.insert(of, true);
                let (of, ended) = (node_id(of), true);
                self.input(node, Input::Lost { node: of, ended })
            }
            Event::End { node, life, op } => self.end(node, life, op),
            Event::Fault => {
                self.fault();
                Ok(())
            }
        }
    }

    /// Hands something to a copy and does what comes of it.
    pub(super) fn input(&mut self, node: usize, input: Input) -> Check {
        let now = self.nodes[node].local(self.now);
        let Some(process) = &mut self.nodes[node].process else {
            return Ok(());
        };
        let mut out = Vec::new();
        process.member.handle(now, input, &mut out);
        self.perform(node, out)
    }

    pub(super) fn timer(&mut self, node: usize, life: u32) -> Check {
        let now = self.nodes[node].local(self.now);
        let same = self.nodes[node].life == life;
        let Some(process) = self.nodes[node].process.as_mut().filter(|_| same) else {
            return Ok(());
        };
        process.timer = None;
        let mut out = Vec::new();
        process.member.handle_timeout(now, &mut out);
        self.perform(node, out)
    }

    pub(super) fn rearm(&mut self, node: usize) {
        let life = self.nodes[node].life;
        let Some(process) = &self.nodes[node].process else {
            return;
        };
        let Some(next) = process.member.next_timeout() else {
            return;
        };
        let at = self.nodes[node].global(next).max(self.now);
        let process = self.nodes[node].process.as_mut().expect("it is there");
        if process.timer.is_none_or(|armed| at < armed) {
            process.timer = Some(at);
            let after = at - self.now;
            self.schedule(after, Event::Timer { node, life });
        }
    }

    /// Whether all clients are done and all copies are members with the same state, for a while.
    pub(super) fn is_over(&mut self) -> bool {
        let done = |client: &Client| client.left == 0 && client.want.is_none();
        let settled = |node: &Node| match &node.process {
            Some(process) => {
                let member = &process.member;
                let in_place = match member.role() {
                    Role::Leading { active } => active,
                    Role::Following => true,
                    Role::Unsure | Role::Outside | Role::TakingOver | Role::Renewing => false,
                };
                let done = member.log().staged_len() == 0 && process.writes.is_empty();
                in_place && done && process.object.part.is_none()
            }
            None => false,
        };
        let all: BTreeSet<NodeId> = self.binder.members.iter().copied().collect();
        let over = self.is_healthy()
            && all.len() == self.nodes.len()
            && self.clients.iter().all(done)
            && self.nodes.iter().all(settled);
        if !over {
            self.resting_since = None;
            return false;
        }
        let since = *self.resting_since.get_or_insert(self.now);
        self.now > since + REST
    }

    pub(super) fn describe(&self) -> String {
        let nodes = self.nodes.iter().map(|node| match &node.process {
            Some(process) => format!(
                "{:?} {:?} {:?}; ",
                process.member.role(),
                process.member.view(),
                process.member.log()
            ),
            None => "down; ".to_owned(),
        });
        let nodes: String = nodes.collect();
        let wants: Vec<_> = self.clients.iter().map(|client| client.want).collect();
        format!("binder {:?}; {nodes}clients want {wants:?}", self.binder)
    }
}

pub(super) fn node_id(node: usize) -> NodeId {
    NodeId(node as u64 + 1)
}

pub(super) fn index(node: NodeId) -> usize {
    node.0 as usize - 1
}

impl Event {
    /// The node at which it happens.
    fn node(&self) -> Option<usize> {
        match self {
            Self::Packet(packet) => Some(packet.to),
            Self::Beat { to, .. } | Self::FromBinder { to, .. } => Some(*to),
            Self::Tick { node, .. }
            | Self::Timer { node, .. }
            | Self::Ended { node, .. }
            | Self::End { node, .. }
            | Self::Request { node, .. } => Some(*node),
            Self::DiskDone { .. }
            | Self::Restart { .. }
            | Self::AtBinder { .. }
            | Self::Client { .. }
            | Self::Answer { .. }
            | Self::Fault => None,
        }
    }
}
