//! Calls, from the program that makes them to the engine that admits them, and their answers
//! on the way back; connections that are opened and break.

use partha_core::action::path::{Address, Membership, Participant, Path, Site};
use partha_core::action::scope::{CallEnd, CallKey, Doom, Report};
use partha_core::id::{NodeId, Uid};
use partha_core::time::Time;
use partha_core::{Abort, End, Input, Invoke, Refusal, Ticket};

use super::net::{Conn, ConnNo, Life, Request, Response};
use super::plan::{KILLED, MS};
use super::shell::Held;
use super::truth::{Ending, Fate, Kind, OpNo, Outcome};
use super::world::{Asked, CallNo, Check, Event, Place, RunNo, TaskNo, World};

/// What travels with a call about its action: a [`Membership`] without anybody's clock.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    pub(crate) path: Path,
    /// True time when the root is given up.
    pub(crate) until: u64,
    pub(crate) home: NodeId,
    pub(crate) born_ms: u64,
    pub(crate) stack: Vec<Uid>,
    /// By a servant whose call is executed again if its node dies.
    pub(crate) carried: bool,
}

/// One call.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) op: OpNo,
    pub(crate) task: TaskNo,
    pub(crate) caller: Life,
    /// Whose action it is made in.
    pub(crate) run: Option<(RunNo, CallKey)>,
    pub(crate) to: Site,
    pub(crate) conn: Option<ConnNo>,
    pub(crate) wire: Option<Wire>,
    pub(crate) open: bool,
    /// How often it was sent, and how many copies of it there are.
    pub(crate) tries: u32,
    pub(crate) copies: u32,
    /// How often its object had moved.
    pub(crate) hops: u32,
    /// Who has joined where the object was.
    pub(crate) joined: Vec<Participant>,
    /// True time when the caller stops waiting.
    pub(crate) deadline: u64,
}

impl World {
    /// A connection from a process to a node, a new one if need be.
    pub(crate) fn connect(&mut self, from: Life, node: usize) -> Option<ConnNo> {
        let server = self.life(node);
        if !self.is_alive(server) || !self.is_alive(from) {
            return None;
        }
        let fits = |conn: &Conn| conn.open && conn.caller == from && conn.server == server;
        if let Some(conn) = self.conns.iter().rposition(fits) {
            return Some(conn);
        }
        if self.blocked(from.process, node) > self.now {
            return None;
        }
        self.conns.push(Conn::new(from, server));
        Some(self.conns.len() - 1)
    }

    pub(crate) fn request(&mut self, conn: ConnNo, request: Request) {
        let it = &self.conns[conn];
        let blocked = self.blocked(it.caller.process, it.server.process);
        let arrival = self.conns[conn].arrival_up(self.now, blocked, &mut self.rng);
        self.schedule(arrival, Event::Request { conn, request });
    }

    pub(crate) fn respond(&mut self, conn: ConnNo, response: Response) {
        let it = &self.conns[conn];
        let blocked = self.blocked(it.caller.process, it.server.process);
        let arrival = self.conns[conn].arrival_down(self.now, blocked, &mut self.rng);
        self.schedule(arrival, Event::Response { conn, response });
    }

    /// Sends a call, perhaps twice; false if there is no way there.
    pub(crate) fn send_call(&mut self, call: CallNo) -> bool {
        let (from, to) = (self.calls[call].caller, self.calls[call].to);
        let Some(conn) = self.connect(from, Self::node_of(to.node)) else {
            return false;
        };
        self.calls[call].conn = Some(conn);
        self.calls[call].tries += 1;
        self.calls[call].copies += 1;
        self.request(conn, Request::Call(call));
        if self.in_faults() && self.rng.chance(self.plan.doubled) {
            self.calls[call].copies += 1;
            self.request(conn, Request::Call(call));
        }
        true
    }

    /// Something arrives at a node.
    pub(crate) fn at_server(&mut self, conn: ConnNo, request: Request) -> Check {
        let it = &self.conns[conn];
        if !self.is_alive(it.server) || it.ended || !it.reaches_server(self.now) {
            return Ok(());
        }
        let (node, caller) = (it.server.process, Self::peer_of(it.caller));
        match request {
            Request::Call(call) => self.admit(conn, call),
            Request::Cancel(call) => self.cancel(conn, call),
            Request::Commit(run) => {
                let request = self.runs[run].request.as_ref();
                match request.and_then(|(to, ..)| to.part()) {
                    Some(uid) => self.commit_of_part(conn, run, uid),
                    None => self.commit_at_server(conn, run),
                }
            }
            Request::Ask(run) => {
                let asked = Asked {
                    conn: Some(conn),
                    run,
                    commit: false,
                };
                let plea = self.runs[run].request.as_ref();
                let &(to, decider, ..) = plea.expect("a commit was planned");
                let shard =
                    decider.map_or_else(|| usize::from(to.site.shard), |uid| self.shard_of(uid));
                let at = self.place(node, shard);
                let ticket = self.question(at, asked);
                let action = self.runs[run].root;
                self.input(
                    at,
                    Input::Ask {
                        ticket,
                        action,
                        decider,
                    },
                )
            }
            Request::Tell { shard, message } => {
                let at = self.place(node, usize::from(shard));
                let (peer, shard) = (caller, u16::MAX);
                let from = partha_core::action::message::From { peer, shard };
                let message = Box::new(message);
                self.input(at, Input::Message { from, message })
            }
        }
    }

    fn commit_at_server(&mut self, conn: ConnNo, run: RunNo) -> Check {
        let it = &self.conns[conn];
        let (node, caller) = (it.server.process, Self::peer_of(it.caller));
        let asked = Asked {
            conn: Some(conn),
            run,
            commit: true,
        };
        let request = self.runs[run].request.clone();
        let (to, decider, others, aborted) = request.expect("a commit was planned");
        let at = self.place(node, usize::from(to.site.shard));
        if to.incarnation.0 != at.life {
            // The mirror that is meant died with an earlier life.
            let end = End::Aborted(Abort::Lost(to.site));
            self.respond(conn, Response::Ended { run, end });
            return Ok(());
        }
        let action = self.runs[run].root;
        if !self.may_vote(at, action) {
            self.summary.reach("group: a commit is held");
            let request = Request::Commit(run);
            self.schedule(self.now + MS, Event::Request { conn, request });
            return Ok(());
        }
        let ticket = self.question(at, asked);
        let join = to.joined.join;
        let input = Input::Commit {
            ticket,
            caller,
            action,
            join,
            others,
            aborted,
            decider,
            part: false,
        };
        self.input(at, input)
    }

    /// A new ticket for a question about an action.
    pub(crate) fn question(&mut self, at: Place, asked: Asked) -> Ticket {
        let shard = &mut self.nodes[at.node].shards[at.shard];
        let ticket = Ticket(shard.next_ticket);
        shard.next_ticket += 1;
        shard.asked.insert(ticket, asked);
        ticket
    }

    fn admit(&mut self, conn: ConnNo, call: CallNo) -> Check {
        let it = &self.conns[conn];
        let (node, caller) = (it.server.process, Self::peer_of(it.caller));
        let Call {
            op,
            to,
            wire,
            deadline,
            ..
        } = self.calls[call].clone();
        let at = self.place(node, usize::from(to.shard));
        let (kind, id) = (self.truth.ops[op].kind, self.truth.ops[op].call);
        let create = kind == Kind::Create;
        let uid = if create {
            self.new_object(at)
        } else {
            self.truth.ops[op].uid
        };
        if self.groups.contains_key(&uid) && !self.believes(node, uid) {
            return self.led_elsewhere(conn, call, at, uid);
        }
        let action = wire.map(|wire| Box::new(self.membership(node, wire)));
        let in_action = action.as_ref().is_some_and(|it| it.path.root().is_some());
        let due = self.now.max(deadline) + KILLED;
        let deadline = Time(self.local(node).0 + deadline.saturating_sub(self.now).max(1));
        let shard = &mut self.nodes[node].shards[at.shard];
        let ticket = Ticket(shard.next_ticket);
        shard.next_ticket += 1;
        shard.tickets.open(ticket, caller);
        shard.held.insert(
            ticket,
            Held::new(conn, call, op, kind, uid, action.as_deref()),
        );
        let invoke = Invoke {
            ticket,
            uid,
            caller,
            call: Some(id),
            mode: kind.mode(),
            save: kind.writes() && !in_action,
            volatile: false,
            cohort: !create && self.is_cohort(uid),
            deadline,
            action,
        };
        self.schedule(due, Event::Overdue { at, ticket });
        let input = if create {
            Input::Create(invoke)
        } else {
            Input::Invoke(invoke)
        };
        self.input(at, input)
    }

    /// What a node makes of what came over the wire.
    fn membership(&self, node: usize, wire: Wire) -> Membership {
        let left = wire.until.saturating_sub(self.now);
        Membership {
            path: wire.path,
            until: Time(self.local(node).0.saturating_add(left)),
            home: wire.home,
            born_ms: wire.born_ms,
            stack: wire.stack,
            carried: wire.carried,
        }
    }

    fn new_object(&mut self, at: Place) -> Uid {
        loop {
            let node = &mut self.nodes[at.node];
            node.next_object += 1;
            let incarnation = partha_core::id::Incarnation(at.life);
            let uid = Uid::new(
                Self::node_id(at.node),
                incarnation,
                1_000 + node.next_object,
            );
            if self.shard_of(uid) == at.shard {
                return uid;
            }
        }
    }

    fn cancel(&mut self, conn: ConnNo, call: CallNo) -> Check {
        let shard = usize::from(self.calls[call].to.shard);
        let at = self.place(self.conns[conn].server.process, shard);
        let held = self.nodes[at.node].shards[shard].held.iter();
        let mine = held.filter(|(_, held)| held.conn == conn && held.call == call);
        let tickets: Vec<Ticket> = mine.map(|(ticket, _)| *ticket).collect();
        for ticket in tickets {
            self.nodes[at.node].shards[shard].tickets.excuse(ticket);
            self.input(at, Input::Cancel { ticket })?;
        }
        Ok(())
    }

    /// Something arrives at whoever made a connection.
    pub(crate) fn at_caller(&mut self, conn: ConnNo, response: Response) -> Check {
        let it = &self.conns[conn];
        if !self.is_alive(it.caller) || !it.open || !it.reaches_caller(self.now) {
            return Ok(());
        }
        match response {
            Response::Return {
                call,
                result,
                report,
                moved,
            } => self.returned(call, result, report, moved),
            Response::Ended { run, end } => self.commit_ended(run, end),
            Response::Told { run, verdict } => self.told(run, verdict),
        }
    }

    /// An answer arrives.
    fn returned(
        &mut self,
        call: CallNo,
        result: Result<Outcome, Refusal>,
        mut report: Report,
        moved: Option<(Site, Site)>,
    ) -> Check {
        if !self.calls[call].open {
            return Ok(());
        }
        if let Some((from, to)) = moved {
            self.calls[call].joined.extend(&report.participants);
            if self.follow(call, from, to)? {
                return Ok(());
            }
        }
        report.participants.extend(&self.calls[call].joined);
        let op = self.calls[call].op;
        self.say(|| format!("op {op} gets {result:?} {report:?}"));
        let (ended, ok) = match result {
            Ok(outcome) => {
                let ok = outcome.ending != Ending::Failed;
                if !ok {
                    self.misfortune(call);
                }
                if self.truth.ops[op].kind == Kind::Create && outcome.ending == Ending::Normal {
                    self.add_object(outcome.uid, op);
                }
                self.truth.ops[op].fate = Fate::Answered {
                    at: self.now,
                    outcome,
                };
                (CallEnd::Known, ok)
            }
            Err(refusal) => {
                self.misfortune(call);
                self.rivals(call, &refusal);
                self.check_refusal(call, &refusal)?;
                let ended = match self.refused(call, &refusal)? {
                    // Another copy of it may still be executed.
                    CallEnd::Known if self.calls[call].copies > 1 => CallEnd::Unknown,
                    // Whoever refuses it may be deposed, and know nothing of what others did.
                    CallEnd::Known if self.was_elsewhere(call) => CallEnd::Unknown,
                    ended => ended,
                };
                if self.again_outside(call, &refusal) {
                    return Ok(());
                }
                self.truth.ops[op].fate = match ended {
                    CallEnd::Unknown => Fate::Unknown,
                    CallEnd::Doomed { .. } if self.calls[call].copies > 1 => Fate::Unknown,
                    CallEnd::Known | CallEnd::Doomed { .. } => Fate::NotExecuted,
                };
                (ended, false)
            }
        };
        self.note_leader(call);
        self.close_call(call, &report, ended);
        self.remembers(call)?;
        let task = self.calls[call].task;
        self.task_goes_on(task, ok)
    }

    /// What a refusal means for the action of the call.
    fn refused(&mut self, call: CallNo, refusal: &Refusal) -> Result<CallEnd, String> {
        let op = self.calls[call].op;
        Ok(match refusal {
            Refusal::Deadlock { victim, .. } => CallEnd::Doomed {
                victim: *victim,
                why: Doom::Deadlock,
            },
            Refusal::ActionAborted { action, .. } => CallEnd::Doomed {
                victim: *action,
                why: Doom::Aborted,
            },
            Refusal::Deadline { started: true } | Refusal::Repeated | Refusal::Killed => {
                CallEnd::Unknown
            }
            // The log may have it as executed, whoever says that another leads.
            Refusal::Moved if matches!(self.address_of(call), Address::Leader(_)) => {
                CallEnd::Unknown
            }
            Refusal::Deadline { started: false }
            | Refusal::NoSuchObject
            | Refusal::Moved
            | Refusal::Malformed { .. }
            | Refusal::Overloaded { .. }
            | Refusal::Draining
            | Refusal::LockTimeout { .. }
            | Refusal::Reentrant { .. }
            | Refusal::Store(_) => CallEnd::Known,
            Refusal::Exists | Refusal::CallIdReused | Refusal::OldIncarnation { .. } => {
                let record = &self.truth.ops[op];
                return Err(format!(
                    "at most once: op {op} is refused, {refusal:?}: {record:?}"
                ));
            }
        })
    }

    /// Asks again for a saved call outside of actions; it may run in peace now.
    fn again_outside(&mut self, call: CallNo, refusal: &Refusal) -> bool {
        let worth = match refusal {
            Refusal::Overloaded { .. }
            | Refusal::Draining
            | Refusal::Store(_)
            | Refusal::Killed
            | Refusal::Deadline { .. } => true,
            Refusal::NoSuchObject
            | Refusal::Moved
            | Refusal::Malformed { .. }
            | Refusal::Exists
            | Refusal::OldIncarnation { .. }
            | Refusal::CallIdReused
            | Refusal::LockTimeout { .. }
            | Refusal::Deadlock { .. }
            | Refusal::Reentrant { .. }
            | Refusal::ActionAborted { .. }
            | Refusal::Repeated => false,
        };
        worth && self.ask_outside_again(call)
    }

    /// A call outside actions may be sent again under its id.
    fn ask_outside_again(&mut self, call: CallNo) -> bool {
        let it = &self.calls[call];
        let plain = it.run.is_none() && it.wire.is_none();
        let again = plain && it.tries < 4 && self.now < it.deadline;
        again && self.send_call(call)
    }

    /// The caller waits no longer.
    pub(crate) fn lose_patience(&mut self, call: CallNo) -> Check {
        if !self.calls[call].open || !self.is_alive(self.calls[call].caller) {
            return Ok(());
        }
        self.give_up_call(call);
        let task = self.calls[call].task;
        self.task_goes_on(task, false)
    }

    /// Drops a call: nobody knows what becomes of it.
    pub(crate) fn give_up_call(&mut self, call: CallNo) {
        if let Some(conn) = self.calls[call].conn.filter(|conn| self.conns[*conn].open) {
            self.request(conn, Request::Cancel(call));
        }
        self.misfortune(call);
        self.truth.ops[self.calls[call].op].fate = Fate::Unknown;
        self.close_call(call, &Report::default(), CallEnd::Unknown);
    }

    /// The call is over, as far as its caller is concerned.
    pub(crate) fn close_call(&mut self, call: CallNo, report: &Report, ended: CallEnd) {
        self.calls[call].open = false;
        let task = self.calls[call].task;
        match self.calls[call].run {
            Some((run, key)) => {
                let sends = self.runs[run].family.answered(key, report, ended);
                self.tell(self.calls[call].caller, sends);
                self.outer_dooms(run);
            }
            None => {
                // Whom the answer wants aborted is told to whoever called the servant.
                for &action in &report.aborted {
                    self.doom_above(task, action, Doom::Below);
                }
                if let CallEnd::Doomed { victim, why } = ended {
                    self.doom_above(task, victim, why);
                }
            }
        }
    }

    /// Connections between two processes break.
    pub(crate) fn cut(&mut self, conn: ConnNo) {
        if !self.conns[conn].open || self.conns[conn].is_local() {
            return;
        }
        let (up, down) = self.conns[conn].cut(self.now, &mut self.rng);
        self.schedule(up, Event::ServerLoses { conn });
        self.schedule(down, Event::CallerLoses { conn });
    }

    /// A connection carries nothing any more; both ends notice when the lease is over.
    pub(crate) fn freeze(&mut self, conn: ConnNo) {
        if !self.conns[conn].open || self.conns[conn].is_local() {
            return;
        }
        self.summary.reach("link: frozen");
        let (up, down) = self.conns[conn].freeze(self.now, &mut self.rng);
        self.schedule(up, Event::ServerLoses { conn });
        self.schedule(down, Event::CallerLoses { conn });
    }

    /// A node notices that a connection is gone.
    pub(crate) fn server_loses(&mut self, conn: ConnNo) -> Check {
        if self.conns[conn].ended {
            return Ok(());
        }
        self.conns[conn].ended = true;
        let Conn { caller, server, .. } = self.conns[conn];
        if !self.is_alive(server) {
            return Ok(());
        }
        // Nobody hears the answers to what came by it.
        self.cancel_all(conn)?;
        let others = self.conns.iter();
        let mut others = others.filter(|it| it.caller == caller && it.server == server);
        if others.any(|it| !it.ended) {
            return Ok(());
        }
        let peer = Self::peer_of(caller);
        for shard in 0..self.plan.shards {
            let at = self.place(server.process, shard);
            self.nodes[at.node].shards[shard]
                .tickets
                .excuse_all_of(peer);
            self.input(at, Input::PeerGone { caller: peer })?;
            // One that only was out of reach may be back, and live and die once more.
            if !self.is_alive(caller) {
                self.schedule(self.now + KILLED, Event::Orphans { at, of: caller });
            }
        }
        Ok(())
    }

    fn cancel_all(&mut self, conn: ConnNo) -> Check {
        let node = self.conns[conn].server.process;
        for shard in 0..self.plan.shards {
            let at = self.place(node, shard);
            let held = self.nodes[node].shards[shard].held.iter();
            let mine = held.filter(|(_, held)| held.conn == conn);
            for ticket in mine.map(|(ticket, _)| *ticket).collect::<Vec<_>>() {
                self.nodes[node].shards[shard].tickets.excuse(ticket);
                self.input(at, Input::Cancel { ticket })?;
            }
        }
        Ok(())
    }

    /// A caller notices that a connection is gone: nobody knows what became of its calls.
    pub(crate) fn caller_loses(&mut self, conn: ConnNo) -> Check {
        if !self.conns[conn].open {
            return Ok(());
        }
        self.conns[conn].open = false;
        if !self.is_alive(self.conns[conn].caller) {
            return Ok(());
        }
        let lost = |call: &Call| call.open && call.conn == Some(conn);
        let calls = (0..self.calls.len()).filter(|call| lost(&self.calls[*call]));
        for call in calls.collect::<Vec<_>>() {
            if self.ask_outside_again(call) || self.resend_soon(call) {
                continue;
            }
            self.truth.ops[self.calls[call].op].fate = Fate::Unknown;
            self.close_call(call, &Report::default(), CallEnd::Unknown);
            let task = self.calls[call].task;
            self.task_goes_on(task, false)?;
        }
        for run in 0..self.runs.len() {
            if self.runs[run].conn == Some(conn) {
                self.runs[run].conn = None;
                let asked = self.runs[run].asked;
                let pause = self.rng.range(MS, 50 * MS);
                self.schedule(self.now + pause, Event::AskAgain { run, asked });
            }
        }
        Ok(())
    }
}
