//! One detector, message by message: what is late, doubled or nonsense does no harm.

use std::time::Duration;

use super::cluster::LIFE;
use super::table::{Written, party, uid};
use crate::action::message::{Deadlock, Edge, From, To, WaitId};
use crate::action::path::Site;
use crate::deadlock::{
    Act, CONFIRM_WAIT, DOOMED_FOR, Detector, EDGES_MAX, HEARD_FOR, HEARD_MAX, REPEAT, REPORT_AFTER,
    SEEN_FOR,
};
use crate::id::{Incarnation, NodeId, Peer, Uid};
use crate::time::Time;

const ME: Site = Site {
    node: NodeId(1),
    shard: 0,
};
const OTHER: Site = Site {
    node: NodeId(2),
    shard: 0,
};

/// A detector with its table and clock.
struct One {
    detector: Detector,
    table: Written,
    now: Time,
    acts: Vec<Act>,
}

impl One {
    fn new() -> Self {
        Self {
            detector: Detector::new(ME, LIFE),
            table: Written::default(),
            now: Time(0),
            acts: Vec::new(),
        }
    }

    fn wait(&mut self, number: u64, waiter: &str, owners: &[&str]) {
        self.table.set(number, owners, 2);
        let waiter = party(waiter, 2);
        let wait = (number, uid(1_000 + number));
        let (table, acts) = (&self.table, &mut self.acts);
        self.detector
            .wait_began(self.now, wait, waiter, table, acts);
    }

    fn ended(&mut self, number: u64) {
        let (table, acts) = (&self.table, &mut self.acts);
        self.detector.wait_ended(self.now, number, table, acts);
    }

    fn hear(&mut self, from: From, message: Deadlock) -> Vec<Act> {
        let (table, acts) = (&self.table, &mut self.acts);
        self.detector.message(self.now, from, message, table, acts);
        self.done()
    }

    /// Time passes; what is due is done.
    fn pass(&mut self, time: Duration) -> Vec<Act> {
        let until = self.now.after(time);
        while let Some(due) = self.detector.next_timeout().filter(|due| *due <= until) {
            self.now = due;
            let (table, acts) = (&self.table, &mut self.acts);
            self.detector.handle_timeout(due, table, acts);
        }
        self.now = until;
        self.done()
    }

    fn done(&mut self) -> Vec<Act> {
        self.detector.check();
        core::mem::take(&mut self.acts)
    }
}

fn from(site: Site, life: Incarnation) -> From {
    From {
        peer: Peer {
            node: site.node,
            incarnation: life,
        },
        shard: site.shard,
    }
}

fn edge(site: Site, number: u64, waiter: &str, owner: &str) -> Edge {
    Edge {
        wait: WaitId {
            site,
            incarnation: LIFE,
            number,
        },
        object: uid(1_000 + number),
        waiter: party(waiter, 2),
        owner: party(owner, 2),
    }
}

/// The edges of all messages of a kind.
fn sent(acts: &[Act], kind: fn(&Deadlock) -> Option<&[Edge]>) -> Vec<Vec<Edge>> {
    let messages = acts.iter().filter_map(|act| match act {
        Act::Send { message, .. } => kind(message),
        Act::Refuse { .. } => None,
    });
    messages.map(<[Edge]>::to_vec).collect()
}

fn waits(message: &Deadlock) -> Option<&[Edge]> {
    match message {
        Deadlock::Waits { edges } => Some(edges),
        Deadlock::Resumed { .. }
        | Deadlock::Probe { .. }
        | Deadlock::Confirm { .. }
        | Deadlock::Confirmed { .. }
        | Deadlock::Break { .. } => None,
    }
}

fn probes(message: &Deadlock) -> Option<&[Edge]> {
    match message {
        Deadlock::Probe { edges } => Some(edges),
        Deadlock::Waits { .. }
        | Deadlock::Resumed { .. }
        | Deadlock::Confirm { .. }
        | Deadlock::Confirmed { .. }
        | Deadlock::Break { .. } => None,
    }
}

/// The cycle of wait 1 here (younger) and wait 2 at the other shard.
fn cycle() -> Vec<Edge> {
    vec![edge(ME, 1, "5", "4"), edge(OTHER, 2, "4", "5")]
}

fn end(cycle: Vec<Edge>, victim: u64) -> Deadlock {
    Deadlock::Break {
        wait: cycle[0].wait,
        victim: uid(victim),
        cycle,
    }
}

#[test]
fn a_wait_is_reported_when_it_lasts_and_when_it_is_over() {
    let mut one = One::new();
    one.wait(1, "5", &["4"]);
    assert_eq!(one.pass(REPORT_AFTER - Duration::from_nanos(1)), []);
    let home = To::Home {
        node: NodeId(2),
        root: uid(5),
    };
    let report = Act::Send {
        to: home,
        message: Deadlock::Waits {
            edges: vec![edge(ME, 1, "5", "4")],
        },
    };
    let first = one.pass(Duration::from_nanos(1));
    assert_eq!(first, std::slice::from_ref(&report));
    assert_eq!(one.pass(REPEAT), [report]);
    let view = one.detector.waits().next().expect("it waits");
    assert_eq!((view.number, view.since), (1, Time(0)));
    assert_eq!(view.reported, Some(one.now));
    one.ended(1);
    let over = Act::Send {
        to: home,
        message: Deadlock::Resumed {
            wait: edge(ME, 1, "5", "4").wait,
            root: uid(5),
        },
    };
    assert_eq!(one.done(), [over]);
    assert_eq!(one.detector.next_timeout(), None);
}

#[test]
fn a_short_wait_sends_nothing() {
    let mut one = One::new();
    one.wait(1, "5", &["4"]);
    one.pass(REPORT_AFTER / 2);
    one.ended(1);
    assert_eq!(one.pass(REPEAT), []);
}

#[test]
fn a_break_counts_only_for_a_wait_that_is_still_in_the_cycle() {
    let refused = |change: &dyn Fn(&mut One, &mut Vec<Edge>)| {
        let mut one = One::new();
        one.wait(1, "5", &["4"]);
        let mut cycle = cycle();
        change(&mut one, &mut cycle);
        let acts = one.hear(from(OTHER, LIFE), end(cycle, 5));
        !acts.is_empty()
    };
    assert!(refused(&|_, _| {}));
    assert!(!refused(&|one, _| one.ended(1)), "the wait is over");
    assert!(
        !refused(&|one, _| one.table.set(1, &["3"], 2)),
        "it waits for another"
    );
    let other_life = |_: &mut One, cycle: &mut Vec<Edge>| {
        cycle[0].wait.incarnation = Incarnation(LIFE.0 - 1);
    };
    assert!(!refused(&other_life), "a wait of an earlier life");
    assert!(!refused(&|_, cycle| cycle.truncate(1)), "no cycle");
    let astray = |_: &mut One, cycle: &mut Vec<Edge>| cycle[1].owner = party("9", 2);
    assert!(!refused(&astray), "it does not come back");
    assert!(
        !refused(&|_, cycle| cycle.rotate_left(1)),
        "waits elsewhere"
    );
}

#[test]
fn a_second_break_of_the_same_wait_does_nothing() {
    let mut one = One::new();
    one.wait(1, "5", &["4"]);
    let first = one.hear(from(OTHER, LIFE), end(cycle(), 5));
    let refuse = Act::Refuse {
        number: 1,
        victim: uid(5),
        cycle: cycle(),
    };
    assert_eq!(first, [refuse]);
    assert_eq!(one.hear(from(OTHER, LIFE), end(cycle(), 5)), []);
}

#[test]
fn a_victim_must_be_the_waiter_or_around_it() {
    let mut one = One::new();
    one.wait(1, "5", &["4"]);
    assert_eq!(one.hear(from(OTHER, LIFE), end(cycle(), 4)), []);
}

#[test]
fn an_edge_is_confirmed_while_it_is_there() {
    let mut one = One::new();
    one.wait(1, "5", &["4"]);
    let ask = |one: &mut One, edge: Edge| {
        let confirm = Deadlock::Confirm {
            cycle: 77,
            to: OTHER,
            edge,
        };
        let acts = one.hear(from(OTHER, LIFE), confirm);
        match &acts[..] {
            [
                Act::Send {
                    to: To::Site(OTHER),
                    message:
                        Deadlock::Confirmed {
                            cycle: 77, holds, ..
                        },
                },
            ] => *holds,
            other => panic!("{other:?}"),
        }
    };
    let real = edge(ME, 1, "5", "4");
    assert!(ask(&mut one, real.clone()));
    assert!(!ask(&mut one, edge(ME, 1, "5", "3")));
    assert!(!ask(&mut one, edge(ME, 2, "5", "4")));
    let mut old = real.clone();
    old.wait.incarnation = Incarnation(LIFE.0 + 1);
    assert!(!ask(&mut one, old));
    one.hear(from(OTHER, LIFE), end(cycle(), 5));
    assert!(!ask(&mut one, real), "it is refused already");
}

#[test]
fn what_is_doomed_does_not_count_for_a_while() {
    let mut one = One::new();
    one.wait(1, "5", &["4"]);
    one.hear(from(OTHER, LIFE), end(cycle(), 5));
    one.ended(1);
    // 5 has not let go of its locks yet: 4 and 5 cross here, too.
    one.wait(2, "4", &["5"]);
    one.wait(3, "5/51", &["4"]);
    let refused = |acts: &[Act]| acts.iter().any(|act| matches!(act, Act::Refuse { .. }));
    assert!(!refused(&one.done()), "5 is to be aborted anyway");
    one.pass(DOOMED_FOR);
    one.wait(4, "5/52", &["4"]);
    assert!(refused(&one.done()), "whoever was to abort it is gone");
}

/// A home that knows that 4 waits at the other shard, and the probe that closes the cycle.
fn home_with_suspect() -> (One, u64) {
    let mut one = One::new();
    let edges = vec![edge(OTHER, 2, "4", "5")];
    one.hear(from(OTHER, LIFE), Deadlock::Waits { edges });
    let far = Site { shard: 1, ..OTHER };
    let edges = vec![edge(far, 1, "5", "4")];
    let acts = one.hear(from(far, LIFE), Deadlock::Probe { edges });
    let numbers: Vec<u64> = acts
        .iter()
        .filter_map(|act| match act {
            Act::Send {
                message: Deadlock::Confirm { cycle, .. },
                ..
            } => Some(*cycle),
            Act::Send { .. } | Act::Refuse { .. } => None,
        })
        .collect();
    assert_eq!(numbers.len(), 2, "{acts:?}");
    (one, numbers[0])
}

fn confirmed(cycle: u64, site: Site, number: u64, holds: bool) -> Deadlock {
    Deadlock::Confirmed {
        cycle,
        wait: edge(site, number, "5", "4").wait,
        holds,
    }
}

#[test]
fn a_cycle_is_broken_when_every_edge_is_confirmed_by_who_knows() {
    let far = Site { shard: 1, ..OTHER };
    let (mut one, cycle) = home_with_suspect();
    let yes = confirmed(cycle, far, 1, true);
    assert_eq!(one.hear(from(far, LIFE), yes.clone()), []);
    assert_eq!(one.hear(from(far, LIFE), yes), [], "twice is not both");
    let yes = confirmed(cycle, OTHER, 2, true);
    assert_eq!(
        one.hear(from(far, LIFE), yes.clone()),
        [],
        "another's answer"
    );
    let old = from(OTHER, Incarnation(LIFE.0 - 1));
    assert_eq!(one.hear(old, yes.clone()), [], "another life's answer");
    let acts = one.hear(from(OTHER, LIFE), yes);
    let expected = Act::Send {
        to: To::Site(far),
        message: Deadlock::Break {
            wait: edge(far, 1, "5", "4").wait,
            victim: uid(5),
            cycle: vec![edge(far, 1, "5", "4"), edge(OTHER, 2, "4", "5")],
        },
    };
    assert_eq!(acts, [expected]);
}

#[test]
fn a_cycle_that_is_denied_or_late_is_dropped() {
    let far = Site { shard: 1, ..OTHER };
    let (mut one, cycle) = home_with_suspect();
    one.hear(from(OTHER, LIFE), confirmed(cycle, OTHER, 2, false));
    assert_eq!(one.detector.home_sizes()[0], 0, "the wait is forgotten");
    one.hear(from(OTHER, LIFE), confirmed(cycle, OTHER, 2, true));
    assert_eq!(
        one.hear(from(far, LIFE), confirmed(cycle, far, 1, true)),
        []
    );

    let (mut one, cycle) = home_with_suspect();
    one.pass(CONFIRM_WAIT);
    one.hear(from(OTHER, LIFE), confirmed(cycle, OTHER, 2, true));
    assert_eq!(
        one.hear(from(far, LIFE), confirmed(cycle, far, 1, true)),
        []
    );
}

#[test]
fn numbers_of_cycles_are_never_used_again() {
    let (_, first) = home_with_suspect();
    let mut later = Detector::new(ME, Incarnation(LIFE.0 + 1));
    let mut one = One::new();
    core::mem::swap(&mut one.detector, &mut later);
    one.hear(
        from(OTHER, LIFE),
        Deadlock::Waits {
            edges: vec![edge(OTHER, 2, "4", "5")],
        },
    );
    let edges = vec![edge(Site { shard: 1, ..OTHER }, 1, "5", "4")];
    let acts = one.hear(from(OTHER, LIFE), Deadlock::Probe { edges });
    let confirm = acts.iter().find_map(|act| match act {
        Act::Send {
            message: Deadlock::Confirm { cycle, .. },
            ..
        } => Some(*cycle),
        Act::Send { .. } | Act::Refuse { .. } => None,
    });
    assert!(confirm.expect("the cycle is found") > first);
}

#[test]
fn a_home_forgets_what_it_hears_nothing_of() {
    let report = || Deadlock::Waits {
        edges: vec![edge(OTHER, 2, "4", "5")],
    };
    let known = |one: &One| one.detector.home_sizes()[0];
    let mut one = One::new();
    one.hear(from(OTHER, LIFE), report());
    one.pass(HEARD_FOR - SEEN_FOR);
    assert_eq!(known(&one), 1);
    one.hear(from(OTHER, LIFE), report());
    one.pass(HEARD_FOR - SEEN_FOR);
    assert_eq!(known(&one), 1);
    one.pass(2 * SEEN_FOR);
    assert_eq!(known(&one), 0);
    assert_eq!(one.detector.next_timeout(), None);

    one.hear(from(OTHER, LIFE), report());
    one.detector.peer_gone(from(OTHER, LIFE).peer);
    assert_eq!(known(&one), 0);

    one.hear(from(OTHER, LIFE), report());
    let wait = edge(OTHER, 2, "4", "5").wait;
    let over = Deadlock::Resumed { wait, root: uid(4) };
    one.hear(from(ME, LIFE), over.clone());
    assert_eq!(known(&one), 1, "only who has the lock says so");
    one.hear(from(OTHER, LIFE), over);
    assert_eq!(known(&one), 0);
}

#[test]
fn reports_that_make_no_sense_are_not_believed() {
    let real = edge(OTHER, 2, "4", "5");
    let mut nameless = real.clone();
    nameless.owner.path = crate::action::path::Path::default();
    let other_wait = edge(OTHER, 3, "4", "5");
    let other_waiter = edge(OTHER, 2, "3", "5");
    let lists = [
        vec![],
        vec![nameless],
        vec![real.clone(), other_wait],
        vec![real.clone(), other_waiter],
        vec![real.clone(); EDGES_MAX + 1],
    ];
    for edges in lists {
        let mut one = One::new();
        let acts = one.hear(from(OTHER, LIFE), Deadlock::Waits { edges });
        assert_eq!((acts, one.detector.home_sizes()), (vec![], [0; 3]));
    }
    let mut one = One::new();
    let edges = vec![real];
    let third = Site { shard: 7, ..OTHER };
    one.hear(from(third, LIFE), Deadlock::Waits { edges });
    assert_eq!(one.detector.home_sizes(), [0; 3], "somebody else's wait");
}

#[test]
fn probes_that_make_no_sense_go_nowhere() {
    let far = edge(OTHER, 1, "5", "4");
    let lists = [
        vec![],
        vec![far.clone(), edge(OTHER, 2, "9", "5")],
        vec![edge(OTHER, 1, "5/6", "5")],
        vec![far; EDGES_MAX + 1],
    ];
    for edges in lists {
        let (mut one, _) = home_with_suspect();
        let before = one.detector.home_sizes();
        let acts = one.hear(from(OTHER, LIFE), Deadlock::Probe { edges });
        assert_eq!((acts, one.detector.home_sizes()), (vec![], before));
    }
}

#[test]
fn a_walk_goes_on_once_from_each_target() {
    let mut one = One::new();
    let edges = vec![edge(OTHER, 2, "4", "7")];
    one.hear(from(OTHER, LIFE), Deadlock::Waits { edges });
    let probe = || Deadlock::Probe {
        edges: vec![edge(OTHER, 1, "5", "4")],
    };
    let first = one.hear(from(OTHER, LIFE), probe());
    assert_eq!(sent(&first, probes)[0].len(), 2);
    assert_eq!(one.hear(from(OTHER, LIFE), probe()), []);
    one.pass(SEEN_FOR);
    assert_eq!(one.hear(from(OTHER, LIFE), probe()).len(), 1);
}

#[test]
fn many_owners_are_reported_by_turns() {
    let mut one = One::new();
    let owners: Vec<String> = (100..250).map(|owner| owner.to_string()).collect();
    let owners: Vec<&str> = owners.iter().map(String::as_str).collect();
    one.wait(1, "5", &owners);
    let mut seen = std::collections::BTreeSet::new();
    one.pass(REPORT_AFTER - REPEAT / 10);
    for _ in 0..3 {
        let acts = one.pass(REPEAT);
        let reports = sent(&acts, waits);
        assert_eq!((reports.len(), reports[0].len()), (1, EDGES_MAX));
        seen.extend(reports[0].iter().map(|edge| edge.owner.path.clone()));
    }
    assert_eq!(seen.len(), owners.len());
}

#[test]
fn a_full_home_takes_no_new_waits() {
    let mut one = One::new();
    let number = |n: usize| u64::try_from(n).expect("small");
    for n in 0..=HEARD_MAX {
        let edges = vec![edge(OTHER, number(n), "4", "5")];
        let (table, acts) = (&one.table, &mut one.acts);
        let report = Deadlock::Waits { edges };
        one.detector
            .message(one.now, from(OTHER, LIFE), report, table, acts);
    }
    assert_eq!(one.detector.home_sizes()[0], HEARD_MAX);
    one.done();
}

#[test]
fn a_cycle_as_long_as_a_message_is_found_and_no_longer_one() {
    for length in [EDGES_MAX, EDGES_MAX + 1] {
        let mut one = One::new();
        for n in 0..length {
            let number = u64::try_from(n).expect("small");
            let next = (number + 1) % u64::try_from(length).expect("small");
            let names = [number + 1, next + 1].map(|name| name.to_string());
            one.wait(number, &names[0], &[&names[1]]);
        }
        let refused = !one.done().is_empty();
        assert_eq!(refused, length <= EDGES_MAX, "{length}");
    }
}

/// Names are what a test says they are.
#[test]
fn written_parties_are_what_they_say() {
    let party = party("2/21|3", 2);
    assert_eq!(party.path.whole(), [uid(2), uid(21), uid(3)].as_slice());
    assert_eq!((party.path.enclosing(), party.home), (2, NodeId(1)));
    assert_ne!(uid(2), Uid::NIL);
}
