//! The toy shell of a shard: does what its engine says, with delays, and watches it.

use partha_core::id::{CallId, Epoch, Incarnation, NodeId, Peer, Uid};
use partha_core::time::Time;
use partha_core::{Answer, Ended, Event as Told, Input, Invoke, Loaded, Mode, Output, Ticket};

use crate::calls::checker::{durable, exactly_once};
use crate::calls::disk::Batch;
use crate::calls::history::{Ending, Fate, Kind, OpId, Outcome};
use crate::calls::net::{ConnId, Request, Response};
use crate::calls::plan::MS;
use crate::calls::reached;
use crate::calls::world::{Event, Held, Place, Shard, World};

fn mode_of(kind: Kind) -> Mode {
    if kind.is_write() {
        Mode::Write
    } else {
        Mode::Read
    }
}

impl Shard {
    /// An object leaves memory: what it was.
    fn drop_image(&mut self, uid: Uid) -> Result<Option<Vec<OpId>>, String> {
        self.activations.drop_image(uid)?;
        self.memory.dropped(uid);
        Ok(self.images.remove(&uid).map(|(list, _)| list))
    }
}

impl World {
    /// A request arrives.
    pub(crate) fn at_node(&mut self, conn: ConnId, request: Request) -> Result<(), String> {
        let it = &self.conns[conn];
        let alive = self.node_lives(it.node, it.node_life) && it.reaches_node(self.now);
        if !alive || it.ended {
            return Ok(());
        }
        let (node, caller) = (it.node, Self::peer(it.client, it.client_life));
        match request {
            Request::Call { op, wait_ns } => self.call(conn, op, wait_ns),
            Request::Cancel { op } => {
                let at = self.place(node, self.shard_of_op(op));
                let held = &self.nodes[node].shards[at.shard].held;
                let matching = held
                    .iter()
                    .filter(|(_, held)| held.conn == conn && held.op == op);
                let tickets: Vec<Ticket> = matching.map(|(ticket, _)| *ticket).collect();
                for ticket in tickets {
                    self.nodes[node].shards[at.shard].tickets.excuse(ticket);
                    self.input(at, Input::Cancel { ticket })?;
                }
                Ok(())
            }
            Request::Bind { op } => {
                let uid = self.history.ops[op].uid;
                let at = self.place(node, self.shard_of(uid));
                self.input(at, Input::Bind { uid, caller })?;
                if self.rng.chance(300) {
                    self.input(at, Input::Unbind { uid, caller })?;
                }
                Ok(())
            }
        }
    }

    /// Where a call goes; a create goes where its call id says, so that asking again gets there.
    fn shard_of_op(&self, op: OpId) -> usize {
        match self.history.ops[op].kind {
            Kind::Create => op % self.plan.shards,
            _ => self.shard_of(self.history.ops[op].uid),
        }
    }

    fn call(&mut self, conn: ConnId, op: OpId, wait_ns: u64) -> Result<(), String> {
        let it = &self.conns[conn];
        let (node, caller) = (it.node, Self::peer(it.client, it.client_life));
        let at = self.place(node, self.shard_of_op(op));
        let (kind, call) = (self.history.ops[op].kind, self.history.ops[op].call);
        let uid = match kind {
            Kind::Create => self.new_uid(at),
            _ => self.history.ops[op].uid,
        };
        let shard = &mut self.nodes[node].shards[at.shard];
        let ticket = Ticket(shard.next_ticket);
        shard.next_ticket += 1;
        shard.tickets.open(ticket, caller);
        let (outcome, began_with) = (None, 0);
        shard.held.insert(
            ticket,
            Held {
                conn,
                op,
                kind,
                uid,
                call,
                outcome,
                began_with,
                runs: false,
            },
        );
        if let Some(call) = call.filter(|_| kind.is_saved()) {
            shard.lives.seen(call);
        }
        let invoke = Invoke {
            ticket,
            uid,
            caller,
            call,
            mode: mode_of(kind),
            save: kind.is_saved(),
            volatile: false,
            cohort: false,
            deadline: Time(self.now + wait_ns),
            action: None,
        };
        let create = kind == Kind::Create;
        self.input(
            at,
            if create {
                Input::Create(invoke)
            } else {
                Input::Invoke(invoke)
            },
        )
    }

    fn new_uid(&mut self, at: Place) -> Uid {
        loop {
            let node = &mut self.nodes[at.node];
            node.next_counter += 1;
            let (id, life) = (NodeId(at.node as u64), Incarnation(node.life));
            let uid = Uid::new(id, life, node.next_counter);
            if self.shard_of(uid) == at.shard {
                return uid;
            }
        }
    }

    /// The server notices the end of a connection.
    pub(crate) fn conn_ended(&mut self, conn: ConnId) -> Result<(), String> {
        if self.conns[conn].ended {
            return Ok(());
        }
        self.conns[conn].ended = true;
        self.conns[conn].open = false;
        let it = &self.conns[conn];
        let (node, caller) = (it.node, Self::peer(it.client, it.client_life));
        let alive = self.node_lives(node, it.node_life);
        if !alive || self.live_callers(node).contains(&caller) {
            return Ok(());
        }
        for shard in 0..self.plan.shards {
            self.nodes[node].shards[shard].tickets.excuse_all_of(caller);
            self.input(self.place(node, shard), Input::PeerGone { caller })?;
        }
        Ok(())
    }

    /// Does one output.
    pub(crate) fn perform(&mut self, at: Place, output: Output) -> Result<(), String> {
        reached::note(&mut self.summary.reached, &output);
        let shard = &mut self.nodes[at.node].shards[at.shard];
        let soon = self.now + self.rng.range(0, MS / 2);
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
                action: None,
            } => {
                shard.activations.place(uid, slot)?;
                self.dispatch(at, ticket, uid, mode, new)?;
            }
            Output::Kill { ticket } => self.stop_servant(at, ticket)?,
            Output::Flush {
                ticket,
                uid,
                state,
                reply,
                create,
            } => {
                self.flush(at, ticket, uid, (state, reply, create))?;
            }
            Output::Reply {
                ticket,
                answer,
                joined: None,
            } => self.reply(at, ticket, answer)?,
            Output::Forget { ticket } => {
                shard.tickets.forgotten(ticket)?;
                shard.held.remove(&ticket);
            }
            Output::Discard { uid } => drop(shard.drop_image(uid)?),
            Output::Passivate { uid } => {
                let image = shard.drop_image(uid)?;
                self.passivated(at, uid, image.as_ref())?;
            }
            Output::Event(Told::Reborn { old, .. }) => shard.tickets.excuse_all_of(old),
            Output::Event(_) => {}
            Output::Drained => self.drained(at),
            about_actions => {
                let what = "tickets: no action is run here, yet";
                return Err(format!("{what} {about_actions:?}"));
            }
        }
        Ok(())
    }

    /// What leaves memory is in the store.
    fn passivated(&self, at: Place, uid: Uid, image: Option<&Vec<OpId>>) -> Result<(), String> {
        let stored = self.nodes[at.node].disk.states.get(&uid);
        if image == stored {
            return Ok(());
        }
        Err(format!(
            "activation: {uid} loses {image:?}, stored {stored:?}"
        ))
    }

    /// A node that was told to stop restarts when all its shards are done.
    fn drained(&mut self, at: Place) {
        self.nodes[at.node].shards[at.shard].drained = true;
        if self.nodes[at.node].draining && self.nodes[at.node].shards.iter().all(|s| s.drained) {
            self.crash(at.node);
        }
    }

    pub(crate) fn search(&mut self, at: Place, ticket: Ticket, call: CallId) -> Result<(), String> {
        let found = self.nodes[at.node].disk.replies.contains_key(&call);
        self.input(at, Input::Searched { ticket, found })
    }

    pub(crate) fn load(&mut self, at: Place, uid: Uid) -> Result<(), String> {
        let node = &mut self.nodes[at.node];
        let shard = &mut node.shards[at.shard];
        let full = self.rng.chance(self.plan.full_per_mille / 2);
        let outcome = match node.disk.states.get(&uid).cloned() {
            _ if full => Loaded::Failed(partha_core::Fault::Store),
            Some(list) => {
                let (epoch, size_bytes) = (node.disk.activate(uid), size_of(&list));
                shard.images.insert(uid, (list, epoch));
                shard.memory.is(uid, size_bytes);
                Loaded::Found {
                    epoch: Epoch(epoch),
                    size_bytes,
                    replicated: false,
                }
            }
            None => Loaded::Absent,
        };
        shard
            .activations
            .loaded(uid, shard.images.contains_key(&uid));
        self.input(at, Input::Loaded { uid, outcome })?;
        let shard = &self.nodes[at.node].shards[at.shard];
        shard.memory.loaded(uid, &self.plan.limits)
    }

    fn dispatch(
        &mut self,
        at: Place,
        ticket: Ticket,
        uid: Uid,
        mode: Mode,
        new: bool,
    ) -> Result<(), String> {
        let node = &mut self.nodes[at.node];
        let shard = &mut node.shards[at.shard];
        shard.tickets.used(ticket)?;
        shard.activations.dispatch(uid, mode, new)?;
        let held = shard.held.get_mut(&ticket).expect("a known ticket is held");
        held.runs = true;
        if let Some(call) = held.call.filter(|_| held.kind.is_saved()) {
            shard.lives.starts(call)?;
        }
        if new {
            let epoch = node.disk.activate(uid);
            shard.images.insert(uid, (Vec::new(), epoch));
        }
        let (list, _) = shard
            .images
            .get_mut(&uid)
            .expect("a dispatched image is there");
        held.began_with = list.len();
        let again = held.kind == Kind::Add && list.contains(&held.op);
        if held.kind.is_write() && !again {
            // At once, though the servant goes on: whoever looks too early sees it.
            list.push(held.op);
        }
        let takes = self.rng.range(0, self.plan.servant_ns);
        self.schedule(self.now + takes, Event::Returns { at, ticket });
        Ok(())
    }

    /// A servant is to stop; one that computes may take a while to notice.
    fn stop_servant(&mut self, at: Place, ticket: Ticket) -> Result<(), String> {
        self.nodes[at.node].shards[at.shard].tickets.used(ticket)?;
        let deaf = self.rng.chance(200);
        let most = if deaf { self.plan.servant_ns } else { 0 };
        let takes = self.rng.range(0, most);
        self.schedule(self.now + takes, Event::Killed { at, ticket });
        Ok(())
    }

    /// A servant has been stopped, unless it has just ended by itself.
    pub(crate) fn killed(&mut self, at: Place, ticket: Ticket) -> Result<(), String> {
        let shard = &mut self.nodes[at.node].shards[at.shard];
        let Some(held) = shard.held.get_mut(&ticket).filter(|held| held.runs) else {
            return Ok(());
        };
        held.runs = false;
        shard.activations.returned(held.uid, mode_of(held.kind));
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
    pub(crate) fn returns(&mut self, at: Place, ticket: Ticket) -> Result<(), String> {
        let failed = self.rng.chance(self.plan.failed_per_mille);
        let shard = &mut self.nodes[at.node].shards[at.shard];
        let Some(held) = shard.held.get_mut(&ticket).filter(|held| held.runs) else {
            // It was stopped before.
            return Ok(());
        };
        held.runs = false;
        let uid = held.uid;
        let (list, _) = shard
            .images
            .get(&uid)
            .expect("a running servant has its image");
        shard.activations.returned(uid, mode_of(held.kind));
        if held.kind == Kind::Read && list.len() != held.began_with {
            return Err(format!(
                "linear: op {} saw the object change under it",
                held.op
            ));
        }
        let mut seen = list.clone();
        let (ended, ending) = match held.kind {
            _ if failed => (Ended::Failed, Ending::Failed),
            Kind::Raise => {
                seen.pop();
                (Ended::Raised, Ending::Raised)
            }
            _ => (Ended::Normal, Ending::Normal),
        };
        let size_bytes = size_of(list);
        if held.kind.is_write() && ended == Ended::Normal {
            shard.memory.is(uid, size_bytes);
        }
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

    fn flush(
        &mut self,
        at: Place,
        ticket: Ticket,
        uid: Uid,
        (state, reply, create): (bool, bool, bool),
    ) -> Result<(), String> {
        let node = &mut self.nodes[at.node];
        let shard = &mut node.shards[at.shard];
        shard.tickets.used(ticket)?;
        let held = &shard.held[&ticket];
        let batch = Batch {
            shard: at.shard,
            ticket,
            uid,
            state: state.then(|| shard.images[&uid].clone()),
            reply: held.call.zip(held.outcome.clone()).filter(|_| reply),
            create,
        };
        node.disk.submit(batch);
        self.kick_disk(at.node);
        Ok(())
    }

    fn kick_disk(&mut self, node: usize) {
        if self.nodes[node].disk.start(&mut self.rng) {
            let takes = self.rng.range(MS / 20, self.plan.disk_ns);
            let life = self.nodes[node].life;
            self.schedule(self.now + takes, Event::DiskDone { node, life });
        }
    }

    pub(crate) fn disk_done(&mut self, node: usize) -> Result<(), String> {
        let full = if self.in_faults() {
            self.plan.full_per_mille
        } else {
            0
        };
        let done = self.nodes[node].disk.finish(&mut self.rng, full);
        self.kick_disk(node);
        let life = self.nodes[node].life;
        for (shard, ticket, result) in done {
            let at = Place { node, life, shard };
            if self.node_lives(node, life) {
                self.input(at, Input::Flushed { ticket, result })?;
            }
        }
        Ok(())
    }

    fn reply(&mut self, at: Place, ticket: Ticket, answer: Answer) -> Result<(), String> {
        let node = &mut self.nodes[at.node];
        let shard = &mut node.shards[at.shard];
        shard.tickets.replied(ticket)?;
        let Held { conn, op, kind, .. } = shard.held[&ticket];
        let outcome_of = |ticket: Ticket| {
            let outcome = shard
                .held
                .get(&ticket)
                .and_then(|held| held.outcome.clone());
            outcome.ok_or_else(|| format!("tickets: {ticket:?} has no outcome to answer with"))
        };
        let result = match answer {
            Answer::Outcome => Ok(outcome_of(ticket)?),
            Answer::SameAs(first) => Ok(outcome_of(first)?),
            Answer::Saved(call) => match node.disk.replies.get(&call) {
                Some(outcome) => Ok(outcome.clone()),
                None => return Err(format!("durable: no reply is saved under {call}")),
            },
            Answer::Refused(refusal) => Err(refusal),
        };
        if let Ok(outcome) = &result {
            durable::leaves(op, kind, outcome, &node.disk.states)?;
        }
        let it = &mut self.conns[conn];
        let arrival = it.arrival_at_client(self.now, &mut self.rng);
        let response = Response { op, result };
        self.schedule(arrival, Event::AtClient { conn, response });
        Ok(())
    }

    /// Another answer to a call that the client is done with.
    pub(crate) fn answered_again(&self, op: OpId, second: &Outcome) -> Result<(), String> {
        let record = &self.history.ops[op];
        match &record.fate {
            Fate::Answered { outcome, .. } if record.kind.is_saved() => {
                exactly_once::same(op, outcome, second)
            }
            Fate::Answered { .. } | Fate::Open | Fate::NotExecuted | Fate::Unknown => Ok(()),
        }
    }

    /// The caller of a client's present life.
    pub(crate) fn caller(&self, client: usize) -> Peer {
        Self::peer(client, self.clients[client].life)
    }
}

fn size_of(list: &[OpId]) -> u64 {
    100 + 8 * list.len() as u64
}
