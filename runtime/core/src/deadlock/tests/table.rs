//! Waits written down by hand, and who has to give way.
//!
//! `1/2|3 > 4@1` is a wait at shard 1: the action 3, a top-level action within the nested action
//! 2 of 1, waits for the action 4. The higher the number, the younger. A call outside actions is
//! an action as any other here. More owners follow after a comma.

use std::collections::BTreeMap;
use std::time::Duration;

use super::cluster::{Cluster, Weather};
use crate::action::message::Party;
use crate::action::path::Path;
use crate::deadlock::{DOOMED_FOR, Locks, REPEAT};
use crate::id::{NodeId, Uid};
use crate::time::Time;

/// Owners that are written down.
#[derive(Debug, Default)]
pub(super) struct Written(BTreeMap<u64, Vec<Party>>);

impl Locks for Written {
    fn owners(&self, wait: u64) -> Vec<Party> {
        self.0.get(&wait).cloned().unwrap_or_default()
    }
}

impl Written {
    pub(super) fn set(&mut self, wait: u64, owners: &[&str], nodes: u64) {
        let owners = owners.iter().map(|owner| party(owner, nodes)).collect();
        self.0.insert(wait, owners);
    }
}

pub(super) fn uid(number: u64) -> Uid {
    Uid {
        node: NodeId(0),
        local: number,
    }
}

/// A path as it is written; the family's home is one of `nodes` nodes.
pub(super) fn party(text: &str, nodes: u64) -> Party {
    let mut enclosing = 0;
    let mut uids = Vec::new();
    for part in text.trim().split_inclusive(['/', '|']) {
        let number = part.trim_end_matches(['/', '|']).trim();
        uids.push(uid(number.parse().expect("actions are numbers")));
        if part.ends_with('|') {
            enclosing = uids.len();
        }
    }
    let born_ms = uids[0].local * 10;
    let home = NodeId(uids[0].local % nodes + 1);
    let path = Path::new(uids, enclosing).expect("a short path");
    Party {
        path,
        home,
        born_ms,
    }
}

/// The object that a wait is for.
fn object(number: u64) -> Uid {
    uid(1_000 + number)
}

/// Lets the cluster run for as long; a refused call ends its wait, and soon after nobody waits
/// for the victim any more. Says who was refused, with what victim, after how long, and how many
/// are in the cycle.
fn run(cluster: &mut Cluster<Written>, time: Duration) -> Vec<(u64, Uid, Duration, usize)> {
    let (began, end) = (cluster.now, cluster.now.after(time));
    let mut refused = Vec::new();
    loop {
        for one in std::mem::take(&mut cluster.refused) {
            let after = Duration::from_nanos(cluster.now.0 - began.0);
            refused.push((one.number, one.victim, after, one.cycle.len()));
            assert_eq!(one.cycle[0].wait.number, one.number);
            cluster.tell(one.at, &mut |detector, now, table, acts| {
                detector.wait_ended(now, one.number, table, acts);
            });
            for table in &mut cluster.tables {
                for owners in table.0.values_mut() {
                    owners.retain(|owner| !owner.path.whole().contains(&one.victim));
                }
            }
        }
        match cluster.next().filter(|next| *next <= end) {
            Some(next) => cluster.now = next,
            None if cluster.refused.is_empty() => break,
            None => {}
        }
        cluster.step();
    }
    cluster.now = end;
    refused
}

/// Makes the waits, in their order.
fn wait_all(cluster: &mut Cluster<Written>, nodes: u64, waits: &[&str]) {
    for (number, wait) in (0..).zip(waits) {
        let (waiter, rest) = wait.split_once('>').expect("waiter > owners@shard");
        let (owners, at) = rest.split_once('@').expect("waiter > owners@shard");
        let at: usize = at.trim().parse().expect("shards are numbers");
        let owners: Vec<&str> = owners.split(',').collect();
        cluster.tables[at].set(number, &owners, nodes);
        let waiter = party(waiter, nodes);
        cluster.tell(at, &mut |detector, now, table, acts| {
            let wait = (number, object(number));
            detector.wait_began(now, wait, waiter.clone(), table, acts);
        });
    }
}

/// Waits over `nodes` shards, and `wait:victim` of each refusal that is expected.
struct Case {
    name: &'static str,
    nodes: u64,
    waits: &'static [&'static str],
    victims: &'static [(u64, u64)],
}

const CASES: &[Case] = &[
    Case {
        name: "two actions cross",
        nodes: 2,
        waits: &["1 > 2@0", "2 > 1@1"],
        victims: &[(1, 2)],
    },
    Case {
        name: "the younger one gives way whoever came last",
        nodes: 2,
        waits: &["2 > 1@0", "1 > 2@1"],
        victims: &[(0, 2)],
    },
    Case {
        name: "three",
        nodes: 3,
        waits: &["1 > 2@0", "3 > 1@2", "2 > 3@1"],
        victims: &[(1, 3)],
    },
    Case {
        name: "five",
        nodes: 5,
        waits: &["1 > 2@0", "2 > 3@1", "3 > 4@2", "4 > 5@3", "5 > 1@4"],
        victims: &[(4, 5)],
    },
    Case {
        name: "two readers that both want to write",
        nodes: 1,
        waits: &["1 > 2@0", "2 > 1@0"],
        victims: &[(1, 2)],
    },
    Case {
        name: "who leads into a cycle is not in it",
        nodes: 2,
        waits: &["9 > 2@0", "8 > 9@1", "1 > 2@0", "2 > 1@1"],
        victims: &[(3, 2)],
    },
    Case {
        name: "a chain is none",
        nodes: 3,
        waits: &["1 > 2@0", "2 > 3@1", "3 > 4@2", "5 > 1@2"],
        victims: &[],
    },
    Case {
        name: "what a family waits for elsewhere counts: its root cannot end",
        nodes: 2,
        waits: &["2/21 > 1@0", "1 > 2/22@1"],
        victims: &[(0, 21)],
    },
    Case {
        name: "who waits for a sibling that runs is not in the way",
        nodes: 2,
        waits: &["1/11 > 2@0", "2 > 1/12@1", "1/13 > 1/12@1"],
        victims: &[(1, 2)],
    },
    Case {
        name: "siblings cross: only one of them is aborted, not what they are in",
        nodes: 2,
        waits: &["1/11 > 1/12@0", "1/12 > 1/11@1"],
        victims: &[(1, 12)],
    },
    Case {
        name: "a sibling's child has the lock: the sibling must end, not its parent",
        nodes: 2,
        waits: &["1/11 > 1/12/5@0", "1/12/6 > 2@1"],
        victims: &[],
    },
    Case {
        name: "a retained lock: the level that has it is aborted",
        nodes: 2,
        waits: &["1 > 2/21@0", "2/21/22 > 1@1"],
        victims: &[(1, 21)],
    },
    Case {
        name: "a parent waits for its own child, the child for a stranger, that for the parent",
        nodes: 3,
        waits: &["2 > 2/21@0", "2/21 > 5@1", "5 > 2@2"],
        victims: &[(2, 5)],
    },
    Case {
        name: "a parent's wait for what its child has is none of the child's",
        nodes: 2,
        waits: &["2/21 > 2@0", "2 > 2/21@1"],
        victims: &[],
    },
    Case {
        name: "a top-level action within another: the outer one waits for it",
        nodes: 2,
        waits: &["2|21 > 1@0", "1 > 2@1"],
        victims: &[(0, 2)],
    },
    Case {
        name: "a top-level action keeps its lock only until its own end",
        nodes: 2,
        waits: &["1/11 > 1/12|5@0", "1/12/6 > 1/11@1"],
        victims: &[],
    },
    Case {
        name: "calls outside of actions that call each other",
        nodes: 2,
        waits: &["1|11 > 2@0", "2|22 > 1@1"],
        victims: &[(1, 2)],
    },
    Case {
        name: "one waits for two, both wait for it: two victims",
        nodes: 2,
        waits: &["2 > 1@0", "3 > 1@1", "1 > 2, 3@0"],
        victims: &[(0, 2), (1, 3)],
    },
    Case {
        name: "one that is in two cycles and the youngest is enough",
        nodes: 2,
        waits: &["1 > 3@0", "2 > 3@1", "3 > 1, 2@0"],
        victims: &[(2, 3)],
    },
    Case {
        name: "two cycles that have nothing in common",
        nodes: 4,
        waits: &["1 > 2@0", "2 > 1@1", "3 > 4@2", "4 > 3@3"],
        victims: &[(1, 2), (3, 4)],
    },
];

/// The same waits, all at one shard.
fn at_one(waits: &[&'static str]) -> Vec<String> {
    let at = |wait: &&str| wait.split_once('@').expect("a shard").0.to_owned() + "@0";
    waits.iter().map(at).collect()
}

fn victims(refused: &[(u64, Uid, Duration, usize)]) -> Vec<(u64, u64)> {
    let mut victims: Vec<_> = refused.iter().map(|one| (one.0, one.1.local)).collect();
    victims.sort_unstable();
    victims
}

#[test]
fn cycles_of_one_shard_are_broken_at_once() {
    for Case {
        name,
        waits,
        victims: expected,
        ..
    } in CASES
    {
        let mut cluster = Cluster::new(1, 1, 1, None);
        let waits = at_one(waits);
        let waits: Vec<&str> = waits.iter().map(String::as_str).collect();
        wait_all(&mut cluster, 1, &waits);
        assert_eq!(cluster.sent, 0, "{name}: no message is needed");
        let refused = run(&mut cluster, Duration::ZERO);
        assert_eq!(victims(&refused), *expected, "{name}");
        let later = run(&mut cluster, 3 * REPEAT);
        assert_eq!(victims(&later), [], "{name}: once is enough");
    }
}

#[test]
fn cycles_over_shards_are_broken_within_300_ms() {
    for Case {
        name,
        nodes,
        waits,
        victims: expected,
    } in CASES
    {
        for shards in [1, 3] {
            let mut cluster = Cluster::new(*nodes, shards, 1, None);
            let spread: Vec<String> = waits.iter().map(|wait| spread(wait, shards)).collect();
            let spread: Vec<&str> = spread.iter().map(String::as_str).collect();
            wait_all(&mut cluster, *nodes, &spread);
            let refused = run(&mut cluster, 3 * REPEAT + DOOMED_FOR);
            assert_eq!(
                victims(&refused),
                *expected,
                "{name} over {shards} shards each"
            );
            for (number, _, after, _) in &refused {
                let soon = Duration::from_millis(300);
                assert!(*after <= soon, "{name}: wait {number} after {after:?}");
            }
        }
    }
}

/// Shard numbers of a case as shards of nodes: the first one of each node.
fn spread(wait: &str, shards: u16) -> String {
    let (edge, at) = wait.split_once('@').expect("a shard");
    let at: u16 = at.parse().expect("a number");
    format!("{edge}@{}", at * shards)
}

#[test]
fn five_actions_name_all_of_the_cycle() {
    let case = CASES.iter().find(|case| case.name == "five");
    let case = case.expect("the case is there");
    let mut cluster = Cluster::new(5, 1, 1, None);
    wait_all(&mut cluster, 5, case.waits);
    let refused = run(&mut cluster, REPEAT);
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].3, 5);
}

#[test]
fn a_lock_that_moves_to_one_that_waits_elsewhere_closes_a_cycle() {
    let mut cluster = Cluster::new(1, 1, 1, None);
    // 1 waits for 3, and 2/21 waits for 1; then 2/22 gets what 1 waits for.
    wait_all(&mut cluster, 1, &["1 > 3@0", "2/21 > 1@0"]);
    assert_eq!(run(&mut cluster, Duration::ZERO), []);
    cluster.tables[0].set(0, &["2/22"], 1);
    let owner = party("2/22", 1).path;
    cluster.tell(0, &mut |detector, now, table, acts| {
        detector.lock_moved(now, object(0), &owner, table, acts);
    });
    let refused = run(&mut cluster, Duration::ZERO);
    assert_eq!(victims(&refused), [(1, 21)]);
}

#[test]
fn a_queue_that_moves_is_not_reported_before_a_second() {
    let mut cluster = Cluster::new(2, 1, 1, None);
    wait_all(&mut cluster, 2, &["1 > 100@0"]);
    for owner in 101..150 {
        let owner = owner.to_string();
        run(&mut cluster, Duration::from_millis(20));
        cluster.tables[0].set(0, &[&owner], 2);
        let owner = party(&owner, 2).path;
        cluster.tell(0, &mut |detector, now, table, acts| {
            detector.lock_moved(now, object(0), &owner, table, acts);
        });
    }
    assert_eq!(cluster.now, Time(980_000_000));
    assert_eq!(cluster.sent, 0);
    run(&mut cluster, Duration::from_millis(20));
    assert!(
        cluster.sent >= 1,
        "a wait of a second is reported in any case"
    );
}

#[test]
fn lost_messages_only_delay() {
    for Case {
        name,
        nodes,
        waits,
        victims: expected,
    } in CASES
    {
        for seed in 1..=20 {
            let mut cluster = Cluster::new(*nodes, 1, seed, None);
            cluster.weather = Weather {
                lost_per_mille: 200,
                doubled_per_mille: 100,
                delay_us: (100, 50_000),
            };
            wait_all(&mut cluster, *nodes, waits);
            let refused = run(&mut cluster, Duration::from_secs(60));
            assert_eq!(victims(&refused), *expected, "{name}, seed {seed}");
        }
    }
}
