//! All nodes, clients and connections of a run, one queue of events, one clock.

use std::collections::{BTreeMap, BTreeSet};

use partha_core::engine::Mutation;
use partha_core::id::{CallId, Incarnation, NodeId, Peer, Uid};
use partha_core::{Engine, Identity, Input, Outbox, Ticket, invariants};

use crate::calls::checker::{
    activation::Activations, memory::Memory, orphan::Lives, tickets::Tickets,
};
use crate::calls::checker::{durable, exactly_once, linear, liveness, memory, tables};
use crate::calls::client::{Client, Wake};
use crate::calls::disk::Disk;
use crate::calls::history::{Fate, History, Kind, OpId, Outcome};
use crate::calls::net::{Conn, ConnId, Request, Response};
use crate::calls::plan::{MS, Plan};
use crate::rng::Rng;
use crate::{Job, Summary, Trace};

/// Nothing of a healthy world takes longer than this.
const HEALED_NS: u64 = 30_000 * MS;

/// Something that will happen.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    AtNode {
        conn: ConnId,
        request: Request,
    },
    AtClient {
        conn: ConnId,
        response: Response,
    },
    ConnEnded {
        conn: ConnId,
    },
    Search {
        at: Place,
        ticket: Ticket,
        call: CallId,
    },
    Load {
        at: Place,
        uid: Uid,
    },
    Returns {
        at: Place,
        ticket: Ticket,
    },
    Killed {
        at: Place,
        ticket: Ticket,
    },
    DiskDone {
        node: usize,
        life: u32,
    },
    Timer {
        at: Place,
    },
    Client {
        client: usize,
        life: u32,
        wake: Wake,
    },
    Reborn {
        client: usize,
    },
    Restart {
        node: usize,
    },
    Fault,
}

/// A shard in one life of its node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) node: usize,
    pub(crate) life: u32,
    pub(crate) shard: usize,
}

/// What a shard's shell keeps of one ticket.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) conn: ConnId,
    pub(crate) op: OpId,
    pub(crate) kind: Kind,
    pub(crate) uid: Uid,
    pub(crate) call: Option<CallId>,
    pub(crate) outcome: Option<Outcome>,
    /// What a read saw when it began.
    pub(crate) began_with: usize,
    /// Its servant runs.
    pub(crate) runs: bool,
}

/// One shard: its engine, and the bytes the engine never sees.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) engine: Engine,
    pub(crate) images: BTreeMap<Uid, (Vec<OpId>, u64)>,
    pub(crate) held: BTreeMap<Ticket, Held>,
    pub(crate) next_ticket: u64,
    pub(crate) timer_at: Option<u64>,
    pub(crate) drained: bool,
    pub(crate) tickets: Tickets,
    pub(crate) activations: Activations,
    pub(crate) lives: Lives,
    pub(crate) memory: Memory,
}

impl Shard {
    fn new(plan: &Plan, identity: Identity, mutation: Mutation) -> Self {
        Self {
            engine: Engine::with_mutation(plan.limits, identity, mutation),
            images: BTreeMap::new(),
            held: BTreeMap::new(),
            next_ticket: 0,
            timer_at: None,
            drained: false,
            tickets: Tickets::default(),
            activations: Activations::default(),
            lives: Lives::default(),
            memory: Memory::default(),
        }
    }
}

/// One server process and its store, over all its lives.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) life: u32,
    pub(crate) up: bool,
    pub(crate) draining: bool,
    pub(crate) next_counter: u64,
    pub(crate) disk: Disk,
    pub(crate) shards: Vec<Shard>,
}

/// A whole run.
#[derive(Debug)]
pub(crate) struct World {
    seed: u64,
    pub(crate) now: u64,
    sequence: u64,
    queue: BTreeMap<(u64, u64), Event>,
    pub(crate) rng: Rng,
    pub(crate) plan: Plan,
    pub(crate) mutation: Mutation,
    pub(crate) nodes: Vec<Node>,
    pub(crate) clients: Vec<Client>,
    pub(crate) conns: Vec<Conn>,
    pub(crate) objects: Vec<Uid>,
    pub(crate) history: History,
    pub(crate) summary: Summary,
    pub(crate) traced: Trace,
}

/// Runs one seed to its end.
pub(crate) fn run(job: &Job) -> Result<Summary, String> {
    let mut world = World::new(job);
    world.schedule(0, Event::Fault);
    for client in 0..world.clients.len() {
        world.wake(client, 0, Wake::Next);
    }
    world.run_to_end()?;
    liveness::check(&world.history)?;
    world.close()?;
    let committed = world.committed();
    for (op, record) in world.history.ops.iter().enumerate() {
        if let Fate::Answered { outcome, .. } = &record.fate {
            durable::lasts(op, outcome, &committed)?;
            world.summary.count("calls answered");
        }
    }
    exactly_once::check(&world.history, &committed)?;
    linear::check(&world.history, &committed)?;
    for _ in &world.history.ops {
        world.summary.count("calls");
    }
    Ok(world.summary)
}

impl World {
    fn new(job: &Job) -> Self {
        let mut rng = Rng::new(job.seed);
        let plan = Plan::new(&mut rng, job.caps);
        let mut world = Self {
            seed: job.seed,
            now: 0,
            sequence: 0,
            queue: BTreeMap::new(),
            rng,
            mutation: job.mutation,
            nodes: Vec::new(),
            clients: (0..plan.clients)
                .map(|_| Client::new(plan.ops_per_client))
                .collect(),
            conns: Vec::new(),
            objects: Vec::new(),
            history: History::default(),
            summary: Summary::default(),
            traced: job.trace,
            plan,
        };
        for node in 0..world.plan.nodes {
            let mut disk = Disk::default();
            for counter in 0..world.plan.objects_per_node as u64 {
                let uid = Uid::new(NodeId(node as u64), Incarnation(0), counter);
                disk.states.insert(uid, Vec::new());
                world.objects.push(uid);
            }
            let (life, next_counter) = (1, 0);
            let (up, draining, shards) = (true, false, Vec::new());
            world.nodes.push(Node {
                life,
                up,
                draining,
                next_counter,
                disk,
                shards,
            });
            world.fill_shards(node);
        }
        world
    }

    fn fill_shards(&mut self, node: usize) {
        let me = Peer {
            node: NodeId(node as u64),
            incarnation: Incarnation(self.nodes[node].life),
        };
        let seed = self.seed;
        let shards = (0..self.plan.shards as u16)
            .map(|shard| Shard::new(&self.plan, Identity { me, shard, seed }, self.mutation));
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
    fn run_to_end(&mut self) -> Result<(), String> {
        while let Some(((at, _), event)) = self.queue.pop_first() {
            self.now = at;
            if at > self.plan.faults_until + HEALED_NS {
                liveness::check(&self.history)?;
                return Err(format!(
                    "liveness: no rest after {at} ns, next is {event:?}"
                ));
            }
            self.happen(event)?;
        }
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::AtNode { conn, request } => self.at_node(conn, request),
            Event::AtClient { conn, response } => self.at_client(conn, response),
            Event::ConnEnded { conn } => self.conn_ended(conn),
            Event::Search { at, ticket, call } if self.lives(at) => self.search(at, ticket, call),
            Event::Load { at, uid } if self.lives(at) => self.load(at, uid),
            Event::Returns { at, ticket } if self.lives(at) => self.returns(at, ticket),
            Event::Killed { at, ticket } if self.lives(at) => self.killed(at, ticket),
            Event::DiskDone { node, life } if self.node_lives(node, life) => self.disk_done(node),
            Event::Timer { at } if self.lives(at) => self.timer(at),
            Event::Client { client, life, wake } => self.client_wakes(client, life, wake),
            Event::Reborn { client } => {
                self.reborn(client);
                Ok(())
            }
            Event::Restart { node } => {
                self.restart(node);
                Ok(())
            }
            Event::Fault => self.fault(),
            Event::Search { .. }
            | Event::Load { .. }
            | Event::Returns { .. }
            | Event::Killed { .. }
            | Event::DiskDone { .. }
            | Event::Timer { .. } => Ok(()),
        }
    }

    fn lives(&self, at: Place) -> bool {
        self.node_lives(at.node, at.life)
    }

    pub(crate) fn node_lives(&self, node: usize, life: u32) -> bool {
        self.nodes[node].up && self.nodes[node].life == life
    }

    pub(crate) fn place(&self, node: usize, shard: usize) -> Place {
        Place {
            node,
            life: self.nodes[node].life,
            shard,
        }
    }

    pub(crate) fn shard_of(&self, uid: Uid) -> usize {
        (uid.counter() % self.plan.shards as u64) as usize
    }

    pub(crate) fn peer(client: usize, life: u32) -> Peer {
        Peer {
            node: NodeId(1_000 + client as u64),
            incarnation: Incarnation(life),
        }
    }

    /// Hands an input to an engine and does what it says.
    pub(crate) fn input(&mut self, at: Place, input: Input) -> Result<(), String> {
        let mut out = Outbox::new();
        let time = partha_core::time::Time(self.now);
        let said = (self.traced != Trace::Off).then(|| format!("{input:?}"));
        let shard = &mut self.nodes[at.node].shards[at.shard];
        shard.engine.handle(time, input, &mut out);
        if let Some(said) = said {
            self.note(&format!("{} {at:?} {said} {:?}", self.now, out.as_slice()));
        }
        self.after(at, out)
    }

    fn timer(&mut self, at: Place) -> Result<(), String> {
        let mut out = Outbox::new();
        let time = partha_core::time::Time(self.now);
        let shard = &mut self.nodes[at.node].shards[at.shard];
        shard.timer_at = None;
        shard.engine.handle_timeout(time, &mut out);
        if self.traced != Trace::Off {
            self.note(&format!("{} {at:?} timer {:?}", self.now, out.as_slice()));
        }
        self.after(at, out)
    }

    fn after(&mut self, at: Place, mut out: Outbox) -> Result<(), String> {
        self.summary.count("inputs");
        for output in out.drain() {
            self.perform(at, output)?;
        }
        let shard = &mut self.nodes[at.node].shards[at.shard];
        if self.mutation == Mutation::None {
            invariants::check(&shard.engine);
        }
        memory::after(&shard.engine, &self.plan.limits)?;
        let next = shard.engine.next_timeout().map(|time| time.0);
        if let Some(next) = next
            && shard.timer_at.is_none_or(|armed| next < armed)
        {
            shard.timer_at = Some(next);
            self.schedule(next, Event::Timer { at });
        }
        Ok(())
    }

    fn note(&mut self, line: &str) {
        self.summary.note(self.traced, line);
    }

    /// After the last answer: all clients leave, all nodes drain, nothing may be left.
    fn close(&mut self) -> Result<(), String> {
        for conn in 0..self.conns.len() {
            self.conn_ended(conn)?;
        }
        for node in 0..self.nodes.len() {
            for shard in 0..self.plan.shards {
                self.input(self.place(node, shard), Input::Drain)?;
            }
        }
        self.run_to_end()?;
        for shard in self.nodes.iter().flat_map(|node| &node.shards) {
            tables::check(&shard.engine)?;
            if !shard.drained || !shard.tickets.is_empty() || !shard.held.is_empty() {
                return Err(format!(
                    "tables: the end of {:?} is not reached",
                    shard.engine
                ));
            }
        }
        Ok(())
    }

    fn committed(&self) -> BTreeMap<Uid, Vec<OpId>> {
        let states = self.nodes.iter().flat_map(|node| &node.disk.states);
        states.map(|(uid, list)| (*uid, list.clone())).collect()
    }

    /// A node process dies; its store stays.
    pub(crate) fn crash(&mut self, node: usize) {
        if !self.nodes[node].up {
            return;
        }
        self.summary.count("crashes");
        self.nodes[node].up = false;
        self.nodes[node].disk.crash(&mut self.rng);
        for conn in self
            .conns
            .iter_mut()
            .filter(|conn| conn.node == node && !conn.ended)
        {
            conn.ended = true;
            conn.cut(self.now, &mut self.rng);
        }
        let down = self.rng.range(MS, 40 * MS);
        self.schedule(self.now + down, Event::Restart { node });
    }

    fn restart(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        it.life += 1;
        it.up = true;
        it.draining = false;
        it.next_counter = 0;
        self.fill_shards(node);
    }

    /// Callers of a node that have a connection it knows to be alive.
    pub(crate) fn live_callers(&self, node: usize) -> BTreeSet<Peer> {
        let conns = self
            .conns
            .iter()
            .filter(|conn| conn.node == node && !conn.ended);
        conns
            .map(|conn| Self::peer(conn.client, conn.client_life))
            .collect()
    }
}
