//! A peer that knows the language of actions and talks nonsense in it: calls in actions, votes,
//! decisions, waits, in any order, about actions that are its own or nobody's. The node neither
//! falls nor forgets anything, and others do not notice.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod common;

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use common::behaviour::{Counter, counter};
use common::raw::{Hello, INVOKE, PING, PONG, RETURN, Raw, frame};
use common::{NOW, client_of, counter as new_counter, foreign, node, node_with, run, stop, until};
use partha::abi::{Slot, StructAt, Writer};
use partha::{Limits, Uid};
use test_support::temp_dir;

/// What the peer says, all told.
const ROUNDS: usize = 30_000;
/// Objects that it calls.
const OBJECTS: usize = 64;
/// Frames about actions; see `struct Action` of wire.capnp for the rest.
const ACTION: u16 = 8;
const TAGS: u16 = 27;
const ABORT: u16 = 4;
const VERDICT: u16 = 7;
const GROUP: u16 = 17;
const VERDICT_PART: u16 = 24;

/// The peer, as it calls itself.
const SELF: u64 = 0x4711_4711;

struct Fool {
    random: u64,
    address: SocketAddr,
    peer: Raw,
    /// How often it has come back.
    life: u32,
    objects: Vec<Uid>,
    /// How often it has spoken; so new actions come all the time.
    said: u64,
    used: BTreeSet<(u64, u64)>,
    question: u32,
    /// By question: the top-level action of the call.
    asked: HashMap<u32, (u64, u64)>,
    /// What answers have told of the node's part in an action.
    parts: Vec<Part>,
}

#[derive(Clone, Copy)]
struct Part {
    action: (u64, u64),
    join: u64,
    shard: u16,
}

impl Fool {
    fn meet(address: SocketAddr, life: u32) -> Raw {
        let hello = Hello {
            node: SELF,
            incarnation: life,
            ..Hello::default()
        };
        Raw::meet_as(address, &hello)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % limit
    }

    /// One of a few actions: its own in this life or an earlier one, or a stranger's.
    fn action(&mut self) -> (u64, u64) {
        let node = if self.below(8) == 0 { 99 } else { SELF };
        let life = u64::from(self.life) - self.below(2).min(u64::from(self.life) - 1);
        let action = (node, life << 40 | (self.said / 40 + self.below(5)));
        self.used.insert(action);
        action
    }

    fn object(&mut self) -> Uid {
        let index = self.below(self.objects.len() as u64);
        self.objects[index as usize]
    }

    fn put_action(&mut self, w: &mut Writer, slot: Slot) {
        let s = w.structure(slot, 2, 0);
        let (node, local) = self.action();
        w.set_u64(s, 0, node);
        w.set_u64(s, 1, local);
    }

    fn put_actions(&mut self, w: &mut Writer, slot: Slot, count: usize) -> Vec<(u64, u64)> {
        let mut put = Vec::new();
        let list = w.structures(slot, count, 2, 0);
        for index in 0..count {
            let (node, local) = self.action();
            w.set_u64(list.structure(index), 0, node);
            w.set_u64(list.structure(index), 1, local);
            put.push((node, local));
        }
        put
    }

    /// Hears what was said to it, and notes what it says about actions.
    fn listen(&mut self) {
        self.peer.send(&frame(PING, 4711, |_, _| {}));
        loop {
            let message = self.peer.frame().expect("the connection stays");
            let s = message.reader().unwrap();
            match (s.u16(0), s.u32(1)) {
                (PONG, 4711) => return,
                (RETURN, question) => {
                    let report = s.pointer(2).structure().unwrap();
                    let participants = report.pointer(0).structures().unwrap();
                    for participant in participants.iter_structures() {
                        self.parts.push(Part {
                            action: self.asked.get(&question).copied().unwrap_or_default(),
                            join: participant.u64(1),
                            shard: participant.u16(10),
                        });
                    }
                }
                _ => {}
            }
        }
    }

    /// One of the latest parts that the node has told of.
    fn part(&mut self) -> Option<Part> {
        let latest = self.parts.len().min(6) as u64;
        let back = 1 + self.below(latest.max(1)) as usize;
        (latest > 0).then(|| self.parts[self.parts.len() - back])
    }

    /// A call of a method in an action, or of a servant that works for one.
    fn call(&mut self) -> Vec<u8> {
        self.question = self.question % 8000 + 1;
        let (question, object, method) = (self.question, self.object(), self.below(4) as u16);
        let plain = self.below(2) == 0;
        let depth = if plain { 1 } else { 1 + self.below(3) as usize };
        frame(INVOKE, question, |w, s| {
            w.set_u64(s, 1, object.node.0);
            w.set_u64(s, 2, object.local);
            w.set_u64(s, 3, counter::CLASS.0);
            w.set_u16(s, 16, method);
            let parameters = w.structure(s.slot(0), 1, 1);
            w.set_u64(parameters, 0, 1);
            let context = w.structure(parameters.slot(0), 9, 2);
            w.set_u64(context, 0, 1 + self.below(50_000));
            w.set_u64(context, 1, SELF);
            w.set_u64(context, 2, 1 + self.below(1000));
            w.set_u32(context, 6, self.life);
            let enclosing = if plain {
                0
            } else {
                self.below(depth as u64 + 1) as u16
            };
            w.set_u16(context, 15, enclosing);
            w.set_u64(context, 6, self.below(3_000_000));
            w.set_u64(context, 7, SELF);
            w.set_u64(context, 8, self.below(10));
            let path = self.put_actions(w, context.slot(0), depth);
            let root = path.get(usize::from(enclosing)).copied();
            self.asked.insert(question, root.unwrap_or_default());
            if self.below(4) == 0 {
                let list = w.structures(context.slot(1), 1, 2, 0);
                let object = self.object();
                w.set_u64(list.structure(0), 0, object.node.0);
                w.set_u64(list.structure(0), 1, object.local);
            }
        })
    }

    /// Any message or request.
    fn message(&mut self, tag: u16) -> Vec<u8> {
        let is_request = matches!(tag, 14 | 15 | 25 | 26);
        let question = if is_request {
            8001 + self.below(100) as u32
        } else {
            0
        };
        frame(ACTION, question, |w, s| {
            let body = w.structure(s.slot(0), 1, 2);
            w.set_u16(body, 0, self.below(5) as u16);
            let from = [0, 1, 7, u16::MAX][self.below(4) as usize];
            w.set_u16(body, 1, from);
            w.set_u16(body, 2, tag);
            if self.below(3) == 0 {
                self.put_action(w, body.slot(0));
            }
            self.content(w, body, tag);
        })
    }

    fn content(&mut self, w: &mut Writer, body: StructAt, tag: u16) {
        let slot = body.slot(1);
        match tag {
            // Prepare: of this life or another, of a mirror that may be there.
            0 | 18 => {
                let s = w.structure(slot, 2, if tag == 18 { 3 } else { 2 });
                if tag == 18 {
                    self.put_group(w, s.slot(2));
                }
                let life = 1 + u32::from(self.below(8) == 0);
                w.set_u32(s, 0, life);
                let part = self.part();
                match part.filter(|_| self.below(4) > 0) {
                    Some(part) => {
                        w.set_u16(body, 0, part.shard);
                        w.set_u64(s, 1, part.join);
                        let at = w.structure(s.slot(0), 2, 0);
                        w.set_u64(at, 0, part.action.0);
                        w.set_u64(at, 1, part.action.1);
                    }
                    None => {
                        w.set_u64(s, 1, self.below(40));
                        self.put_action(w, s.slot(0));
                    }
                }
                let aborted = self.below(3) as usize;
                self.put_actions(w, s.slot(1), aborted);
            }
            // Vote and verdict.
            1 | VERDICT => {
                let s = w.structure(slot, 1, 1);
                w.set_u16(s, 0, self.below(3) as u16);
                self.put_action(w, s.slot(0));
            }
            // Merge.
            5 => {
                let s = w.structure(slot, 0, 2);
                self.put_action(w, s.slot(0));
                self.put_action(w, s.slot(1));
            }
            8..=13 => self.about_waits(w, slot, tag),
            14 | 25 => self.request(w, body, tag == 25),
            16 | 19..=24 | 26 => self.about_groups(w, slot, tag),
            // Those that name an action and no more.
            _ => self.put_action(w, slot),
        }
    }

    /// Votes that name others, and what is said of replicated objects, of which there are none.
    fn about_groups(&mut self, w: &mut Writer, slot: Slot, tag: u16) {
        let (data, pointers) = match tag {
            16 => (1, 2),
            19 => (1, 4),
            21 => (1, 3),
            23 => (0, 3),
            24 => (1, 2),
            _ => (0, 2),
        };
        let s = w.structure(slot, data, pointers);
        if data == 1 {
            w.set_u16(s, 0, self.below(3) as u16);
        }
        self.put_action(w, s.slot(0));
        // A vote with that tag names somebody.
        let count = self.below(3).max(u64::from(tag == 16)) as usize;
        match tag {
            16 | 19 => self.participants(w, s.slot(1), count),
            21 => drop(self.put_actions(w, s.slot(1), count)),
            _ => self.put_group(w, s.slot(1)),
        }
        match tag {
            19 => {
                self.put_actions(w, s.slot(2), count);
                self.put_group(w, s.slot(3));
            }
            21 | 23 => self.put_group(w, s.slot(2)),
            _ => {}
        }
    }

    /// An object of the node, or one that is nowhere.
    fn put_group(&mut self, w: &mut Writer, slot: Slot) {
        let object = self.object();
        let s = w.structure(slot, 2, 0);
        w.set_u64(s, 0, object.node.0);
        let nowhere = u64::from(self.below(4) == 0) << 63;
        w.set_u64(s, 1, object.local | nowhere);
    }

    /// Waits, probes, and what becomes of them.
    fn about_waits(&mut self, w: &mut Writer, slot: Slot, tag: u16) {
        match tag {
            // Waits and probes.
            8 | 10 => {
                let count = self.below(3) as usize;
                self.edges(w, slot, count);
            }
            // Resumed.
            9 => {
                let s = w.structure(slot, 0, 2);
                self.wait(w, s.slot(0));
                self.put_action(w, s.slot(1));
            }
            // Confirm.
            11 => {
                let s = w.structure(slot, 1, 2);
                w.set_u64(s, 0, self.below(4));
                let to = w.structure(s.slot(0), 2, 0);
                w.set_u64(to, 0, SELF);
                self.edges(w, s.slot(1), 1);
            }
            // Confirmed.
            12 => {
                let s = w.structure(slot, 2, 1);
                w.set_u64(s, 0, self.below(4));
                w.set_bool(s, 64, self.below(2) == 0);
                self.wait(w, s.slot(0));
            }
            // Break.
            _ => {
                let s = w.structure(slot, 0, 3);
                self.wait(w, s.slot(0));
                self.put_action(w, s.slot(1));
                let count = self.below(3) as usize;
                self.edges(w, s.slot(2), count);
            }
        }
    }

    /// A request to commit.
    fn request(&mut self, w: &mut Writer, body: StructAt, has_decider: bool) {
        let slot = body.slot(1);
        let s = w.structure(slot, 0, if has_decider { 5 } else { 4 });
        if has_decider {
            self.put_group(w, s.slot(4));
        }
        let part = self.part().filter(|_| self.below(4) > 0);
        match part {
            Some(part) => {
                w.set_u16(body, 0, part.shard);
                let at = w.structure(s.slot(0), 2, 0);
                w.set_u64(at, 0, part.action.0);
                w.set_u64(at, 1, part.action.1);
                let list = w.structures(s.slot(1), 1, 3, 0);
                let at = list.structure(0);
                w.set_u64(at, 0, self.objects[0].node.0);
                w.set_u64(at, 1, part.join);
                w.set_u32(at, 4, 1);
                w.set_u16(at, 10, part.shard);
            }
            None => {
                self.put_action(w, s.slot(0));
                self.participants(w, s.slot(1), 1);
            }
        }
        let others = self.below(3) as usize;
        self.participants(w, s.slot(2), others);
        let aborted = self.below(3) as usize;
        self.put_actions(w, s.slot(3), aborted);
    }

    fn participants(&mut self, w: &mut Writer, slot: Slot, count: usize) {
        let node = self.objects[0].node.0;
        let list = w.structures(slot, count, 3, 0);
        for index in 0..count {
            let s = list.structure(index);
            w.set_u64(s, 0, if self.below(2) == 0 { node } else { SELF });
            let life = 1 << 40;
            w.set_u64(s, 1, life + self.below(40));
            w.set_u32(s, 4, 1);
            w.set_u16(s, 10, self.below(2) as u16);
            w.set_bool(s, 2 * 64 + 48, self.below(2) == 0);
        }
    }

    fn wait(&mut self, w: &mut Writer, slot: Slot) {
        let node = self.objects[0].node.0;
        let s = w.structure(slot, 3, 0);
        w.set_u64(s, 0, if self.below(4) > 0 { node } else { SELF });
        w.set_u64(s, 1, self.below(100));
        w.set_u32(s, 4, 1);
        w.set_u16(s, 10, self.below(2) as u16);
    }

    fn edges(&mut self, w: &mut Writer, slot: Slot, count: usize) {
        let list = w.structures(slot, count, 0, 4);
        for index in 0..count {
            let s = list.structure(index);
            self.wait(w, s.slot(0));
            let object = self.object();
            let at = w.structure(s.slot(1), 2, 0);
            w.set_u64(at, 0, object.node.0);
            w.set_u64(at, 1, object.local);
            for party in [2, 3] {
                let party = w.structure(s.slot(party), 3, 1);
                let depth = 1 + self.below(3) as usize;
                w.set_u16(party, 0, self.below(depth as u64 + 1) as u16);
                w.set_u64(party, 1, SELF);
                w.set_u64(party, 2, self.below(10));
                self.put_actions(w, party.slot(0), depth);
            }
        }
    }

    fn speak(&mut self) {
        self.said += 1;
        let said = match self.below(10) {
            0..5 => self.call(),
            _ => {
                let tag = self.below(TAGS.into()) as u16;
                // What ends actions is said less often, so that they come to something.
                let rare = [ABORT, VERDICT, VERDICT_PART].contains(&tag) && self.below(6) > 0;
                // What copies tell each other is no message about actions.
                let other = rare || tag == GROUP;
                self.message(if other { 0 } else { tag })
            }
        };
        self.peer.send(&said);
        match self.below(1000) {
            // It hears what was said to it, or goes away without.
            0..100 => self.listen(),
            100 => {
                self.life += u32::try_from(self.below(2)).unwrap();
                self.asked.clear();
                self.peer = Self::meet(self.address, self.life);
            }
            _ => {}
        }
    }

    /// As a coordinator it says that all its actions are aborted, and as whoever runs them.
    fn take_back(&mut self) {
        for (node, local) in &self.used {
            for (tag, from) in [(VERDICT, 0), (ABORT, 0), (ABORT, u16::MAX)] {
                for shard in [0, 1] {
                    let said = frame(ACTION, 0, |w, s| {
                        let body = w.structure(s.slot(0), 1, 2);
                        w.set_u16(body, 0, shard);
                        w.set_u16(body, 1, from);
                        w.set_u16(body, 2, tag);
                        let action = match tag {
                            VERDICT => {
                                let s = w.structure(body.slot(1), 1, 1);
                                w.set_u16(s, 0, 1);
                                w.structure(s.slot(0), 2, 0)
                            }
                            _ => w.structure(body.slot(1), 2, 0),
                        };
                        w.set_u64(action, 0, *node);
                        w.set_u64(action, 1, *local);
                    });
                    self.peer.send(&said);
                }
            }
        }
        self.peer.is_read();
    }
}

#[test]
fn nonsense_about_actions_harms_nobody() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let dir = temp_dir("hostile-actions");
    let limits = Limits {
        lock_wait_ns: 50_000_000,
        ..Limits::default()
    };
    let node = runtime.block_on(node_with(dir.path(), limits));
    let address = node.address();
    let client = runtime.block_on(client_of(&node));
    let new = || runtime.block_on(new_counter(&client, &node, 7)).uid();
    let objects: Vec<_> = (0..OBJECTS).map(|_| new()).collect();
    let honest: Vec<_> = (0..2).map(|_| Counter::from_uid(new())).collect();
    let seed = common::random();
    println!("seed {seed}");
    let mut fool = Fool {
        random: seed,
        address,
        peer: Fool::meet(address, 1),
        life: 1,
        objects,
        said: 0,
        used: BTreeSet::new(),
        question: 0,
        asked: HashMap::new(),
        parts: Vec::new(),
    };
    for round in 1..=ROUNDS {
        fool.speak();
        if round % 1000 == 0 {
            // An honest action over both shards, perhaps.
            let [x, y] = &honest[..] else {
                unreachable!("there are two")
            };
            let moved = client.action(async |a| {
                x.add(a, -1).await?;
                y.add(a, 1).await
            });
            runtime.block_on(moved).unwrap();
        }
    }
    let values = honest
        .iter()
        .map(|o| runtime.block_on(o.value(&client)).unwrap());
    assert_eq!(values.sum::<i64>(), 14);
    runtime.block_on(async {
        let handle = client.node_at(&address.to_string()).await.unwrap();
        until(|| {
            fool.take_back();
            async {
                let statistics = handle.manager().statistics(&client).await.unwrap();
                let locks = handle.manager().locks(&client, Uid::NIL, 10, false).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
                statistics.actions_active == 0 && locks.unwrap().is_empty()
            }
        })
        .await;
        let usage = node.store_usage();
        println!("{} prepares, {} decisions", usage.prepares, usage.decisions);
        let honest = (ROUNDS / 1000) as u64;
        let believed = usage.prepares + usage.decisions > 2 * honest;
        assert!(believed, "nobody believes the fool: {usage:?}");
        stop(node).await;
    });
}

#[test]
fn a_plain_client_cannot_call_in_an_action() {
    run(async {
        let dir = temp_dir("hostile-actions");
        let node = node(dir.path()).await;
        let client = client_of(&node).await;
        let object = new_counter(&client, &node, 7).await.uid();
        let wire = foreign::Wire::connect(&node.address().to_string()).await;
        let bound = wire.initiate(object, counter::CLASS.0).await.unwrap();
        let object = bound.capability(0);
        let method = (counter::CLASS.0, 1);
        let size = || foreign::Parameters::new(1, 1);
        let refused = foreign::call(&object, method, &NOW, size(), |w, s| {
            let context = w.structure(s.slot(0), 9, 2);
            w.set_u64(context, 6, 1_000_000);
            let list = w.structures(context.slot(0), 1, 2, 0);
            w.set_u64(list.structure(0), 1, 5);
        });
        let Err(error) = refused.await else {
            panic!("it was executed on its own")
        };
        assert_eq!(error.kind, capnp::ErrorKind::Unimplemented, "{error}");
        assert!(error.extra.contains("cannot call in an action"), "{error}");
        let answer = foreign::call(&object, method, &NOW, size(), |_, _| {}).await;
        assert_eq!(answer.unwrap().results().i64(0), 7);
        stop(node).await;
    });
}
