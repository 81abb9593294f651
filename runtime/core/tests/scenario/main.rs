//! Stories: what happens is written in a text, what the engine says to it stands below.
//!
//! `BLESS=1` writes what the engine says now into the texts; the difference is then read, not
//! believed. A story's invariants are checked after every line. `STORY=locks` tells only those
//! with such a name, aloud.
//!
//! | line | meaning |
//! |---|---|
//! | `limits idle_ms=5 calls_max=2` | an engine with these bounds |
//! | `at 5ms` | time passes, what is due is done |
//! | `invoke t1 o1 write …` | a call; may go on with the words below |
//! | `create t1 o1 …` | a create |
//! | `searched t1 found`, `searched t1 none` | answer to a search |
//! | `loaded o1 100`, `… absent`, `… moved`, `… Full` | answer to a load: size, nothing, forward, fault |
//! | `loaded o1 100 led` | it is replicated, and led here |
//! | `returned t1 normal 100` | how the servant ended, size of the state |
//! | `flushed t1 ok`, `flushed t1 Fenced` | answer to a flush |
//! | `cancel t1`, `bind o1 1.2`, `unbind o1 1.2`, `gone 1.2` | callers |
//! | `serve o1`, `retire o1`, `evict o1`, `drain` | the node's own |
//! | `crash` | the process dies and starts again: an empty engine, the next life |
//! | `stats`, `next` | what the tables hold; when something is due |
//!
//! Words of a call: `read`, `write`, `upgrade`, `save`, `volatile`, `cohort`, `carried`, `c=1.2/3` (call id 3 of
//! caller 1.2), `from=1.2` (the caller, if it is not the one of the call id), `within=9ms`
//! (deadline); those about actions, and the lines about them, are in `actions.rs` and
//! `deadlocks.rs`; lines about objects that move in `moves.rs`; stories with several nodes in
//! `cohort.rs`.

mod actions;
mod cohort;
mod deadlocks;
mod moves;
mod show;
#[path = "../stories/mod.rs"]
mod stories;

use partha_core::id::{CallId, Epoch, Incarnation, NodeId, Peer, Uid};
use partha_core::time::Time;
use partha_core::{
    Ended, Engine, Fault, Identity, Input, Invoke, Limits, Loaded, Mode, Outbox, Ticket, invariants,
};

/// Shard 0 of node 0, in one of its lives.
fn me(life: u32) -> Identity {
    at(0, life)
}

/// The same of another node.
fn at(node: u64, life: u32) -> Identity {
    Identity {
        me: Peer {
            node: NodeId(node),
            incarnation: Incarnation(life),
        },
        shard: 0,
        seed: 0,
    }
}

/// One story under way.
struct Story {
    limits: Limits,
    engine: Engine,
    now: Time,
    epochs: u64,
    life: u32,
    /// Where the line happens.
    node: u64,
    world: cohort::World,
}

fn parse<T: std::str::FromStr>(text: &str) -> T {
    text.parse()
        .unwrap_or_else(|_| panic!("'{text}' is not what is expected here"))
}

fn ticket(word: &str) -> Ticket {
    Ticket(parse(
        word.strip_prefix('t').expect("a ticket is t1, t2, …"),
    ))
}

fn uid(word: &str) -> Uid {
    let local = parse(word.strip_prefix('o').expect("an object is o1, o2, …"));
    Uid {
        node: NodeId(0),
        local,
    }
}

fn peer(word: &str) -> Peer {
    let (node, incarnation) = word.split_once('.').expect("a caller is node.incarnation");
    Peer {
        node: NodeId(parse(node)),
        incarnation: Incarnation(parse(incarnation)),
    }
}

fn time(word: &str) -> Time {
    if let Some(ms) = word.strip_suffix("ms") {
        return Time(parse::<u64>(ms) * 1_000_000);
    }
    Time(parse::<u64>(word.strip_suffix('s').expect("a time is 5ms or 5s")) * 1_000_000_000)
}

fn fault(word: &str) -> Fault {
    match word {
        "Fenced" => Fault::Fenced,
        "Full" => Fault::Full,
        "Exists" => Fault::Exists,
        "Store" => Fault::Store,
        other => panic!("'{other}' is no fault"),
    }
}

impl Story {
    fn new() -> Self {
        // Apart from what else is due in them.
        let limits = Limits {
            resend_ns: 500_000_000,
            ..Limits::default()
        };
        Self {
            limits,
            engine: Engine::new(limits, me(1)),
            now: Time(0),
            epochs: 0,
            life: 1,
            node: 0,
            world: cohort::World::default(),
        }
    }

    /// Does one line and says what came of it.
    fn line(&mut self, line: &str) -> Vec<String> {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        let node = words[0]
            .strip_prefix('n')
            .and_then(|it| it.strip_suffix(':'));
        if let Some(node) = node {
            self.visit(parse(node));
            words.remove(0);
        }
        let mut out = Outbox::new();
        match words[0] {
            "limits" => {
                words[1..].iter().for_each(|word| self.limit(word));
                self.engine = Engine::new(self.limits, at(self.node, self.life));
            }
            "crash" => {
                self.life += 1;
                self.forget_added();
                self.engine = Engine::new(self.limits, at(self.node, self.life));
            }
            "actions" => return self.engine.actions().map(show::action).collect(),
            "locks" => return self.engine.locks().map(show::lock).collect(),
            "at" => self.pass(time(words[1]), &mut out),
            "next" => return vec![format!("{:?}", self.engine.next_timeout())],
            "stats" => return vec![show::stats(self.engine.stats())],
            _ => match self.cohort_line(&words, &mut out) {
                Some(shown) if !shown.is_empty() => return shown,
                Some(_) => {}
                None => {
                    let input = self.input(&words);
                    self.note_input(&input);
                    self.engine.handle(self.now, input, &mut out);
                }
            },
        }
        invariants::check(&self.engine);
        let said: Vec<_> = out.drain().collect();
        said.into_iter().map(|output| self.told(output)).collect()
    }

    fn limit(&mut self, word: &str) {
        let (name, value) = word.split_once('=').expect("a bound is name=value");
        let limits = &mut self.limits;
        match name {
            "object_queue_max" => limits.object_queue_max = parse(value),
            "calls_max" => limits.calls_max = parse(value),
            "caller_calls_max" => limits.caller_calls_max = parse(value),
            "peers_max" => limits.peers_max = parse(value),
            "idle_ms" => limits.idle_ns = parse::<u64>(value) * 1_000_000,
            "active_bytes_max" => limits.active_bytes_max = parse(value),
            "active_objects_max" => limits.active_objects_max = parse(value),
            "volatile_objects_max" => limits.volatile_objects_max = parse(value),
            "uses_max" => limits.uses_max = parse(value),
            "lock_wait_ms" => limits.lock_wait_ns = parse::<u64>(value) * 1_000_000,
            "actions_max" => limits.actions_max = parse(value),
            "levels_max" => limits.levels_max = parse(value),
            "action_objects_max" => limits.action_objects_max = parse(value),
            "action_writes_max" => limits.action_writes_max = parse(value),
            "participants_max" => limits.participants_max = parse(value),
            "tombstones_max" => limits.tombstones_max = parse(value),
            "moves_max" => limits.moves_max = parse(value),
            "cargo_levels_max" => limits.cargo_levels_max = parse(value),
            "move_hold_ms" => limits.move_hold_ns = parse::<u64>(value) * 1_000_000,
            other => panic!("there is no bound {other}"),
        }
    }

    fn pass(&mut self, until: Time, out: &mut Outbox) {
        while let Some(due) = self.engine.next_timeout().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.engine.handle_timeout(self.now, out);
            let next = self.engine.next_timeout();
            assert!(
                next.is_none_or(|next| next > self.now),
                "what is due stays due: {next:?}"
            );
        }
        self.now = until;
    }

    fn input(&mut self, words: &[&str]) -> Input {
        if let Some(input) = self.cohort_input(words) {
            return input;
        }
        let subject = words.get(1).copied().unwrap_or_default();
        match words[0] {
            "invoke" => Input::Invoke(self.invoke(words)),
            "create" => Input::Create(self.invoke(words)),
            "searched" => Input::Searched {
                ticket: ticket(subject),
                found: words[2] == "found",
            },
            "loaded" => Input::Loaded {
                uid: uid(subject),
                outcome: self.loaded(words[2], words.contains(&"led")),
            },
            "returned" => Input::Returned {
                ticket: ticket(subject),
                ended: match words[2] {
                    "normal" => Ended::Normal,
                    "raised" => Ended::Raised,
                    "failed" => Ended::Failed,
                    "killed" => Ended::Killed,
                    other => panic!("a servant does not end '{other}'"),
                },
                size_bytes: words.get(3).map_or(100, |word| parse(word)),
            },
            "flushed" => {
                let result = if words[2] == "ok" {
                    Ok(())
                } else {
                    Err(fault(words[2]))
                };
                Input::Flushed {
                    ticket: ticket(subject),
                    result,
                }
            }
            "cancel" => Input::Cancel {
                ticket: ticket(subject),
            },
            "bind" => Input::Bind {
                uid: uid(subject),
                caller: peer(words[2]),
            },
            "unbind" => Input::Unbind {
                uid: uid(subject),
                caller: peer(words[2]),
            },
            "gone" => Input::PeerGone {
                caller: peer(subject),
            },
            "serve" => Input::Serve { uid: uid(subject) },
            "retire" => Input::Retire { uid: uid(subject) },
            "evict" => Input::Evict { uid: uid(subject) },
            "drain" => Input::Drain,
            _ => match self.move_input(words) {
                Some(input) => input,
                None => self.action_input(words),
            },
        }
    }

    fn loaded(&mut self, word: &str, replicated: bool) -> Loaded {
        match word {
            "absent" => return Loaded::Absent,
            "moved" => return Loaded::Moved,
            _ => {}
        }
        let Ok(size_bytes) = word.parse() else {
            return Loaded::Failed(fault(word));
        };
        self.epochs += 1;
        Loaded::Found {
            epoch: Epoch(self.epochs),
            size_bytes,
            replicated,
        }
    }

    fn invoke(&self, words: &[&str]) -> Invoke {
        let mut invoke = Invoke {
            ticket: ticket(words[1]),
            uid: uid(words[2]),
            caller: peer("1.1"),
            call: None,
            mode: Mode::Write,
            save: false,
            volatile: false,
            cohort: false,
            deadline: Time::NEVER,
            action: None,
        };
        for word in &words[3..] {
            match word.split_once('=') {
                None if *word == "write" => invoke.mode = Mode::Write,
                None if *word == "read" => invoke.mode = Mode::Read,
                None if *word == "upgrade" => invoke.mode = Mode::Upgrade,
                None if *word == "save" => invoke.save = true,
                None if *word == "volatile" => invoke.volatile = true,
                None if *word == "cohort" => invoke.cohort = true,
                None if *word == "carried" => self.carried(&mut invoke),
                Some(("from", who)) => invoke.caller = peer(who),
                Some(("c", id)) => {
                    let (caller, sequence) = id.split_once('/').expect("a call id is 1.1/7");
                    let (caller, sequence) = (peer(caller), parse(sequence));
                    invoke.call = Some(CallId { caller, sequence });
                    invoke.caller = caller;
                }
                Some(("within", span)) => invoke.deadline = Time(self.now.0 + time(span).0),
                Some((word, value)) => self.membership(&mut invoke, word, value),
                None => panic!("a call has no '{word}'"),
            }
        }
        invoke
    }
}

#[test]
fn every_story_is_told_as_written() {
    stories::are_told_as_written("tests/scenario", 12, || {
        let mut story = Story::new();
        move |line: &str| story.line(line)
    });
}
