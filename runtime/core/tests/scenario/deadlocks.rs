//! Lines and words about waits over several shards.
//!
//! An edge is `a2>a1@o5=7:3#0`: a2 waits for a1, who has o5, in the wait 7 at shard 0 of node 3,
//! which need not be said if it is the sender. A wait at the story's own shard has the number of
//! its call, and is at `0#0`. A cycle is `c0`, `c1` …, in the order in which they are asked about.
//!
//! | line | meaning |
//! |---|---|
//! | `hear 2#0 waits a2>a1@o5=7` | a call waits there, for one or more |
//! | `hear 2#0 resumed 7 a2` | not any more |
//! | `hear 2#0 probe a2>a1@o5=7 …` | a walk that has come to this home |
//! | `hear 2#0 confirm c0 a2>a1@o5=7:0#0` | a home asks |
//! | `hear 2#0 confirmed c0 7 yes`, `… no` | an answer to this home |
//! | `hear 2#0 break a2 a2>a1@o5=7:0#0 …` | a cycle that is confirmed, and its victim |

use partha_core::action::message::{Deadlock, Edge, From, Party, To, WaitId};
use partha_core::action::path::Site;
use partha_core::id::{Incarnation, NodeId, Uid};

use super::actions::{name, path, site};
use super::{Story, parse, show, uid};

/// The lives of all nodes that a story hears of.
const LIFE: Incarnation = Incarnation(1);

pub(super) const KINDS: [&str; 6] = ["waits", "resumed", "probe", "confirm", "confirmed", "break"];

fn wait(number: &str, site: Site) -> WaitId {
    WaitId {
        site,
        incarnation: LIFE,
        number: parse(number),
    }
}

fn party(word: &str) -> Party {
    Party {
        path: path(word),
        home: NodeId(1),
        born_ms: 0,
    }
}

fn edge(word: &str, sender: Site) -> Edge {
    let (who, at) = word
        .split_once('@')
        .expect("an edge is waiter>owner@object=wait");
    let (waiter, owner) = who
        .split_once('>')
        .expect("an edge is waiter>owner@object=wait");
    let (object, number) = at
        .split_once('=')
        .expect("an edge is waiter>owner@object=wait");
    let (number, at) = match number.split_once(':') {
        Some((number, at)) => (number, site(at)),
        None => (number, sender),
    };
    Edge {
        wait: wait(number, at),
        object: uid(object),
        waiter: party(waiter),
        owner: party(owner),
    }
}

impl Story {
    /// A message about waits.
    pub(super) fn deadlock(&self, from: From, words: &[&str]) -> Deadlock {
        let sender = Site {
            node: from.peer.node,
            shard: from.shard,
        };
        let edges = |words: &[&str]| words.iter().map(|word| edge(word, sender)).collect();
        let cycle = |word: &str| {
            let number: u64 = parse(word.strip_prefix('c').expect("a cycle is c0, c1, …"));
            u64::from(self.life) << Uid::COUNTER_BITS | number
        };
        match words[0] {
            "waits" => Deadlock::Waits {
                edges: edges(&words[1..]),
            },
            "resumed" => Deadlock::Resumed {
                wait: wait(words[1], sender),
                root: name(words[2]),
            },
            "probe" => Deadlock::Probe {
                edges: edges(&words[1..]),
            },
            "confirm" => Deadlock::Confirm {
                cycle: cycle(words[1]),
                to: sender,
                edge: edge(words[2], sender),
            },
            "confirmed" => Deadlock::Confirmed {
                cycle: cycle(words[1]),
                wait: wait(words[2], sender),
                holds: words[3] == "yes",
            },
            "break" => {
                let cycle: Vec<Edge> = edges(&words[2..]);
                Deadlock::Break {
                    wait: cycle[0].wait,
                    victim: name(words[1]),
                    cycle,
                }
            }
            other => panic!("there is no message '{other}'"),
        }
    }
}

fn edges(edges: &[Edge]) -> String {
    let shown = edges.iter().map(|edge| {
        let (waiter, owner) = (show::path(&edge.waiter.path), show::path(&edge.owner.path));
        let (object, wait) = (edge.object.local, edge.wait);
        let at = show::site(wait.site);
        format!(" {waiter}>{owner}@o{object}={}:{at}", wait.number)
    });
    shown.collect()
}

/// A message about waits as a story writes it.
pub(super) fn message(message: &Deadlock) -> String {
    let count = |cycle: u64| cycle & Uid::COUNTER_MAX;
    match message {
        Deadlock::Waits { edges } => format!("waits{}", self::edges(edges)),
        Deadlock::Resumed { wait, root } => {
            format!("resumed {} {}", wait.number, show::name(*root))
        }
        Deadlock::Probe { edges } => format!("probe{}", self::edges(edges)),
        Deadlock::Confirm { cycle, to, edge } => {
            let edge = edges(std::slice::from_ref(edge));
            let to = show::to(To::Site(*to));
            format!("confirm c{} to {to}{edge}", count(*cycle))
        }
        Deadlock::Confirmed { cycle, wait, holds } => {
            let holds = if *holds { "yes" } else { "no" };
            format!("confirmed c{} {} {holds}", count(*cycle), wait.number)
        }
        Deadlock::Break { victim, cycle, .. } => {
            format!("break {}{}", show::name(*victim), edges(cycle))
        }
    }
}
