//! Clients: they make calls, ask again under the same call id when no answer comes, give up,
//! die and come back; and the faults that befall everybody.

use partha_core::{Input, Refusal};

use crate::calls::history::{Ending, Fate, Kind, OpId};
use crate::calls::net::{Conn, ConnId, Request, Response};
use crate::calls::plan::MS;
use crate::calls::world::{Event, World};

/// What a client wakes up for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wake {
    /// To make its next call.
    Next,
    /// To ask again, unless it did so after it had decided to.
    Retry { op: OpId, asked: u32 },
}

/// One client process, over all its lives.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) life: u32,
    pub(crate) up: bool,
    next_sequence: u64,
    todo: u32,
}

impl Client {
    pub(crate) fn new(todo: u32) -> Self {
        Self {
            life: 1,
            up: true,
            next_sequence: 1,
            todo,
        }
    }
}

impl World {
    pub(crate) fn wake(&mut self, client: usize, delay: u64, wake: Wake) {
        let life = self.clients[client].life;
        self.schedule(self.now + delay, Event::Client { client, life, wake });
    }

    pub(crate) fn client_wakes(
        &mut self,
        client: usize,
        life: u32,
        wake: Wake,
    ) -> Result<(), String> {
        if !self.clients[client].up || self.clients[client].life != life {
            return Ok(());
        }
        match wake {
            Wake::Next => self.next_call(client),
            Wake::Retry { op, asked } if self.history.ops[op].asked == asked => {
                self.retry(client, op)
            }
            Wake::Retry { .. } => {}
        }
        Ok(())
    }

    fn next_call(&mut self, client: usize) {
        if self.clients[client].todo == 0 {
            return;
        }
        self.clients[client].todo -= 1;
        let kinds = [
            Kind::Append,
            Kind::Append,
            Kind::Append,
            Kind::Read,
            Kind::Read,
        ];
        let others = [
            Kind::Add,
            Kind::Plain,
            Kind::Raise,
            Kind::Raise,
            Kind::Create,
        ];
        let common = self.rng.chance(550);
        let kind = if common {
            self.rng.pick(&kinds)
        } else {
            self.rng.pick(&others)
        };
        let uid = self.rng.pick(&self.objects);
        let caller = self.caller(client);
        let sequence = self.clients[client].next_sequence;
        self.clients[client].next_sequence += 1;
        let op = self.history.begin(kind, uid, (caller, sequence), self.now);
        self.ask(client, op);
        if self.rng.chance(150) {
            self.send(client, Request::Bind { op }, op);
        }
        let pause = self.rng.range(0, self.plan.pause_ns);
        self.wake(client, pause, Wake::Next);
    }

    fn ask(&mut self, client: usize, op: OpId) {
        let patience = self
            .rng
            .range(self.plan.patience_ns / 4, self.plan.patience_ns);
        // Sometimes the server is to give up long before, or after, the client asks again.
        let wait_ns = if self.rng.chance(200) {
            patience / 4
        } else {
            2 * patience
        };
        self.send(client, Request::Call { op, wait_ns }, op);
        if self.rng.chance(60) && self.in_faults() && self.history.ops[op].call.is_some() {
            self.send(client, Request::Call { op, wait_ns }, op);
        }
        self.history.ops[op].asked += 1;
        self.ask_again_in(client, op, patience);
    }

    fn ask_again_in(&mut self, client: usize, op: OpId, pause: u64) {
        let asked = self.history.ops[op].asked;
        self.wake(client, pause, Wake::Retry { op, asked });
    }

    fn retry(&mut self, client: usize, op: OpId) {
        if !self.history.is_open(op) {
            return;
        }
        let gives_up = self.in_faults() && self.rng.chance(30);
        if gives_up || self.history.ops[op].call.is_none() {
            self.history.ops[op].fate = Fate::Unknown;
            self.send(client, Request::Cancel { op }, op);
            return;
        }
        if self.in_faults() && self.rng.chance(250) {
            let node = self.history.ops[op].uid.node.0 as usize;
            if let Some(conn) = self.open_conn(client, node) {
                self.cut(conn);
            }
        }
        self.ask(client, op);
    }

    fn open_conn(&self, client: usize, node: usize) -> Option<ConnId> {
        let (life, node_life) = (self.clients[client].life, self.nodes[node].life);
        let fits = |conn: &Conn| {
            conn.open
                && (conn.client, conn.client_life) == (client, life)
                && (conn.node, conn.node_life) == (node, node_life)
        };
        self.conns.iter().position(fits)
    }

    /// Sends to the object's node, over a new connection if need be; nothing if it is down.
    fn send(&mut self, client: usize, request: Request, op: OpId) {
        let node = self.history.ops[op].uid.node.0 as usize;
        if !self.nodes[node].up {
            return;
        }
        let conn = self.open_conn(client, node).unwrap_or_else(|| {
            let (life, node_life) = (self.clients[client].life, self.nodes[node].life);
            self.conns.push(Conn::new(client, life, node, node_life));
            self.conns.len() - 1
        });
        let arrival = self.conns[conn].arrival_at_node(self.now, &mut self.rng);
        self.schedule(arrival, Event::AtNode { conn, request });
    }

    /// A response arrives.
    pub(crate) fn at_client(&mut self, conn: ConnId, response: Response) -> Result<(), String> {
        let it = &self.conns[conn];
        let (client, life) = (it.client, it.client_life);
        let alive = self.clients[client].up && self.clients[client].life == life;
        if !alive || !it.reaches_client(self.now) {
            return Ok(());
        }
        let Response { op, result } = response;
        match result {
            Ok(outcome) if self.history.is_open(op) => {
                let made = outcome.ending == Ending::Normal;
                if made && self.history.ops[op].kind == Kind::Create {
                    self.objects.push(outcome.uid);
                }
                self.history.ops[op].fate = Fate::Answered {
                    at: self.now,
                    outcome,
                };
                Ok(())
            }
            Ok(outcome) => self.answered_again(op, &outcome),
            Err(refusal) if self.history.is_open(op) => self.refused(client, op, refusal),
            Err(_) => Ok(()),
        }
    }

    fn refused(&mut self, client: usize, op: OpId, refusal: Refusal) -> Result<(), String> {
        let maybe = match refusal {
            Refusal::NoSuchObject
            | Refusal::Exists
            | Refusal::CallIdReused
            | Refusal::OldIncarnation { .. }
            | Refusal::Deadlock { .. }
            | Refusal::Reentrant { .. }
            | Refusal::ActionAborted { .. }
            | Refusal::Moved
            | Refusal::Malformed { .. }
            | Refusal::Repeated => {
                let record = &self.history.ops[op];
                return Err(format!(
                    "exactly once: op {op} is refused, {refusal:?}: {record:?}"
                ));
            }
            Refusal::Deadline { started } => started,
            // What the servant did elsewhere may stay.
            Refusal::Killed => true,
            Refusal::Overloaded { .. }
            | Refusal::Draining
            | Refusal::LockTimeout { .. }
            | Refusal::Store(_) => false,
        };
        if self.history.ops[op].call.is_none() {
            self.history.ops[op].fate = if maybe {
                Fate::Unknown
            } else {
                Fate::NotExecuted
            };
            return Ok(());
        }
        let pause = self.rng.range(MS, 10 * MS);
        self.ask_again_in(client, op, pause);
        Ok(())
    }

    fn cut(&mut self, conn: ConnId) {
        let noticed = self.conns[conn].cut(self.now, &mut self.rng);
        self.schedule(noticed, Event::ConnEnded { conn });
    }

    fn client_dies(&mut self, client: usize) {
        if !self.clients[client].up {
            return;
        }
        self.clients[client].up = false;
        let life = self.clients[client].life;
        for record in &mut self.history.ops {
            if record.caller == Self::peer(client, life) && record.fate == Fate::Open {
                record.fate = Fate::Unknown;
            }
        }
        for conn in 0..self.conns.len() {
            if self.conns[conn].client == client && self.conns[conn].open {
                self.cut(conn);
            }
        }
        let down = self.rng.range(MS / 100, 3 * MS);
        self.schedule(self.now + down, Event::Reborn { client });
    }

    pub(crate) fn reborn(&mut self, client: usize) {
        let it = &mut self.clients[client];
        it.life += 1;
        it.up = true;
        it.next_sequence = 1;
        self.wake(client, 0, Wake::Next);
    }

    /// Something goes wrong.
    pub(crate) fn fault(&mut self) -> Result<(), String> {
        if !self.in_faults() {
            return Ok(());
        }
        let delay = self.rng.range(MS / 10, self.plan.fault_ns);
        self.schedule(self.now + delay, Event::Fault);
        let node = self.rng.below(self.nodes.len() as u64) as usize;
        let client = self.rng.below(self.clients.len() as u64) as usize;
        let uid = self.rng.pick(&self.objects);
        let home = uid.node.0 as usize;
        match self.rng.below(10) {
            0..=2 => self.crash(node),
            3..=4 => self.client_dies(client),
            5 if self.nodes[node].up && !self.nodes[node].draining => {
                self.nodes[node].draining = true;
                for shard in 0..self.plan.shards {
                    if self.nodes[node].up {
                        self.input(self.place(node, shard), Input::Drain)?;
                    }
                }
            }
            6..=7 if self.nodes[home].up => {
                self.input(self.place(home, self.shard_of(uid)), Input::Evict { uid })?;
            }
            8 => {
                // Somebody else activates the object: what this node has is fenced off.
                self.nodes[home].disk.activate(uid);
            }
            _ => {
                let open = (0..self.conns.len()).filter(|conn| self.conns[*conn].open);
                let open: Vec<ConnId> = open.collect();
                if !open.is_empty() {
                    let conn = self.rng.pick(&open);
                    self.cut(conn);
                }
            }
        }
        Ok(())
    }
}
