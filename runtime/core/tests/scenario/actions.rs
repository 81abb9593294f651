//! Lines and words about actions.
//!
//! An action is `a1`, `a2` …, made by caller 1.1, or `a1@2.1`, made by another; `t5` where an
//! action is meant is what call t5 is by itself. A path is `a1/a2`; `a1|a3` has a boundary; with
//! nothing behind the boundary it is a call outside actions by a servant that works for a1.
//!
//! | line | meaning |
//! |---|---|
//! | `hear 2#0 prepare a1 join=1 life=1 without=a2,a3` | a message of shard 0 of node 2 |
//! | `hear 2#0 vote a1 Yes moved=3#0=4`, `… ReadOnly`, `… No` | an object went to mirror 4 of node 3 |
//! | `hear 2#0 commit a1`, `acknowledge`, `abort`, `query` | |
//! | `hear runner abort a1`, `hear runner merge a2 a1` | whoever runs the action, node 1; `part=o1` |
//! | `hear 2#0 verdict a1 Committed`, `Aborted`, `InFlight` | |
//! | `commit t9 a1 join=1 with=2#0,3#1 without=a2` | request; the others' mirrors are number 1 |
//! | `commit t9 a1 join=p1 decider=o1 with=p2@o2` | the same, of parts |
//! | `ask t9 a1`, `ask t9 a1 decider=o1` | request |
//! | `reached a1 2#0` | a servant calls on |
//! | `stored j1 ok`, `stored j1 Full` | answer to a batch |
//! | `decided j1 yes`, `no`, `unknown` | answer to a search for a decision |
//! | `recover prepared a1 2#0 o1 o2`, `recover decision a1 2#0` | at start |
//! | `actions`, `locks` | what an inspector sees |
//!
//! | word of a call | meaning |
//! |---|---|
//! | `in=a1/a2` | its path |
//! | `until=9ms` | when its action is given up, 60 s if not said |
//! | `born=5` | when its outermost action began, in ms; 0 if not said |
//! | `stack=o1,o2` | whose servants wait for it |

use partha_core::action::message::{From, Message, Verdict, Vote};
use partha_core::action::path::{Address, Joined, Membership, Participant, Path, Site, own_action};
use partha_core::id::{Incarnation, NodeId, Peer, Uid};
use partha_core::time::Time;
use partha_core::{Input, Invoke, Job};

use super::{Story, deadlocks, fault, me, parse, peer, ticket, time, uid};

/// An action's name.
pub(super) fn name(word: &str) -> Uid {
    if word.starts_with('t') {
        return own_action(me(1).me, 0, ticket(word));
    }
    let word = word.strip_prefix('a').expect("an action is a1, a2, …");
    let (number, maker) = word.split_once('@').unwrap_or((word, "1.1"));
    let maker = peer(maker);
    Uid::new(maker.node, maker.incarnation, parse(number))
}

fn names(words: &str) -> Vec<Uid> {
    words.split(',').map(name).collect()
}

pub(super) fn path(word: &str) -> Path {
    let list = |part: &str| -> Vec<Uid> {
        let parts = part.split('/').filter(|part| !part.is_empty());
        parts.map(name).collect()
    };
    let (outer, own) = word.split_once('|').unwrap_or(("", word));
    let mut uids = list(outer);
    let enclosing = uids.len();
    uids.extend(list(own));
    Path::new(uids, enclosing).expect("a short path")
}

pub(super) fn site(word: &str) -> Site {
    let (node, shard) = word.split_once('#').expect("a shard is node#shard");
    Site {
        node: NodeId(parse(node)),
        shard: parse(shard),
    }
}

fn from(word: &str) -> From {
    let site = match word {
        "runner" => Site {
            node: NodeId(1),
            shard: u16::MAX,
        },
        word => site(word),
    };
    From {
        peer: Peer {
            node: site.node,
            incarnation: Incarnation(1),
        },
        shard: site.shard,
    }
}

/// The value of `name=value` among some words.
pub(super) fn value<'w>(words: &[&'w str], name: &str) -> Option<&'w str> {
    let mut pairs = words.iter().filter_map(|word| word.split_once('='));
    pairs
        .find(|(word, _)| *word == name)
        .map(|(_, value)| value)
}

pub(super) fn join(life: u32, number: &str) -> u64 {
    u64::from(life) << Uid::COUNTER_BITS | parse::<u64>(number)
}

/// The name of a piece of work.
pub(super) fn job(word: &str) -> Job {
    Job(parse(word.strip_prefix('j').expect("work is j1, j2, …")))
}

impl Story {
    fn member<'i>(&self, invoke: &'i mut Invoke) -> &'i mut Membership {
        invoke.action.get_or_insert_with(|| {
            Box::new(Membership {
                path: Path::default(),
                until: Time(self.now.0 + 60_000_000_000),
                home: NodeId(1),
                born_ms: 0,
                stack: Vec::new(),
                carried: false,
            })
        })
    }

    /// A servant makes the call that is executed again.
    pub(super) fn carried(&self, invoke: &mut Invoke) {
        self.member(invoke).carried = true;
    }

    /// What a call says about its action.
    pub(super) fn membership(&self, invoke: &mut Invoke, word: &str, value: &str) {
        let member = self.member(invoke);
        match word {
            "in" => member.path = path(value),
            "born" => member.born_ms = parse(value),
            "until" => member.until = Time(self.now.0 + time(value).0),
            "stack" => member.stack = value.split(',').map(uid).collect(),
            _ => panic!("a call has no '{word}=…'"),
        }
    }

    /// A line about actions.
    pub(super) fn action_input(&mut self, words: &[&str]) -> Input {
        let result = |word: &str| {
            if word == "ok" {
                Ok(())
            } else {
                Err(fault(word))
            }
        };
        match words[0] {
            "hear" => Input::Message {
                from: from(words[1]),
                message: Box::new(if deadlocks::KINDS.contains(&words[2]) {
                    Message::Deadlock(self.deadlock(from(words[1]), &words[2..]))
                } else {
                    self.message(&words[2..])
                }),
            },
            "commit" => Input::Commit {
                ticket: ticket(words[1]),
                caller: peer("1.1"),
                action: name(words[2]),
                join: self.join(value(words, "join").unwrap_or("1")),
                others: value(words, "with").map_or(Vec::new(), |others| {
                    let others = others.split(',');
                    let other = |word| self.part(word).unwrap_or_else(|| participant(word));
                    others.map(other).collect()
                }),
                aborted: value(words, "without").map_or(Vec::new(), names),
                decider: value(words, "decider").map(uid),
                part: value(words, "join").is_some_and(|join| join.starts_with('p')),
            },
            "ask" => Input::Ask {
                ticket: ticket(words[1]),
                action: name(words[2]),
                decider: value(words, "decider").map(uid),
            },
            "reached" => Input::Reached {
                action: name(words[1]),
                to: Address::Site(site(words[2])),
            },
            "stored" => {
                let (job, result) = (job(words[1]), result(words[2]));
                self.complete(job, result);
                Input::Stored { job, result }
            }
            "decided" => Input::DecisionFound {
                job: job(words[1]),
                found: match words[2] {
                    "yes" => Some(true),
                    "no" => Some(false),
                    _ => None,
                },
            },
            "recover" if words[1] == "prepared" => Input::RecoverPrepared {
                action: name(words[2]),
                coordinator: site(words[3]).into(),
                objects: words[4..].iter().map(|word| uid(word)).collect(),
            },
            "recover" => Input::RecoverDecision {
                action: name(words[2]),
                participants: words[3..].iter().map(|word| site(word)).collect(),
                groups: Vec::new(),
                decider: None,
            },
            other => panic!("there is no line '{other} …'"),
        }
    }

    fn message(&self, words: &[&str]) -> Message {
        let action = name(words[1]);
        match words[0] {
            "prepare" => {
                let life = value(words, "life").map_or(self.life, parse);
                Message::Prepare {
                    action,
                    incarnation: Incarnation(life),
                    join: join(life, value(words, "join").unwrap_or("1")),
                    aborted: value(words, "without").map_or(Vec::new(), names),
                    decider: None,
                    part: None,
                }
            }
            "vote" => Message::Vote {
                action,
                vote: match words[2] {
                    "Yes" => Vote::Yes,
                    "ReadOnly" => Vote::ReadOnly,
                    _ => Vote::No,
                },
                moved: value(words, "moved").map_or(Vec::new(), |moved| {
                    moved.split(',').map(participant).collect()
                }),
                groups: Vec::new(),
                decider: None,
                part: None,
            },
            "commit" => Message::Commit { action, part: None },
            "acknowledge" => Message::Acknowledge {
                action,
                site: true,
                groups: Vec::new(),
                decider: None,
            },
            "abort" => Message::Abort {
                action,
                part: value(words, "part").map(uid),
            },
            "merge" => Message::Merge {
                action,
                parent: name(words[2]),
                part: value(words, "part").map(uid),
            },
            "query" => Message::Query {
                action,
                decider: None,
                part: None,
            },
            "verdict" => Message::Verdict {
                action,
                verdict: match words[2] {
                    "Committed" => Verdict::Committed,
                    "Aborted" => Verdict::Aborted,
                    _ => Verdict::InFlight,
                },
                part: None,
            },
            other => panic!("there is no message '{other}'"),
        }
    }
}

/// `2#0`, with mirror 1 in life 1, or `2#0=4` with mirror 4.
fn participant(word: &str) -> Participant {
    let (word, number) = word.split_once('=').unwrap_or((word, "1"));
    Participant {
        site: site(word),
        incarnation: Incarnation(1),
        joined: Joined {
            join: join(1, number),
            updated: true,
            decider: None,
            part: false,
        },
    }
}
