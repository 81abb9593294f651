//! The transition table of the module's doc, row by row, and its invariants.

mod leaders;

use super::*;
use crate::action::path::{Joined, Site};
use crate::id::{Incarnation, NodeId};

fn uid(n: u64) -> Uid {
    let node = NodeId(99);
    Uid { node, local: n }
}

const ROOT: u64 = 1;
const CHILD: u64 = 2;
const GRANDCHILD: u64 = 3;
const SIBLING: u64 = 4;

fn site(node: u64) -> Site {
    let (node, shard) = (NodeId(node), 0);
    Site { node, shard }
}

fn participant(node: u64, join: u64, updated: bool) -> Participant {
    Participant {
        site: site(node),
        incarnation: Incarnation(1),
        joined: Joined {
            join,
            updated,
            decider: None,
            part: false,
        },
    }
}

fn reporting(participants: &[Participant]) -> Report {
    Report {
        participants: participants.to_vec(),
        aborted: Vec::new(),
    }
}

fn abort(action: u64, nodes: &[u64]) -> Vec<Send> {
    let action = uid(action);
    let sends = nodes.iter().map(|n| (at(*n), Message::abort(action)));
    sends.collect()
}

fn merge(action: u64, parent: u64, nodes: &[u64]) -> Vec<Send> {
    let (action, parent) = (uid(action), uid(parent));
    let sends = nodes.iter().map(|n| (at(*n), merged(action, parent, None)));
    sends.collect()
}

fn merged(action: Uid, parent: Uid, part: Option<Uid>) -> Message {
    Message::Merge {
        action,
        parent,
        part,
    }
}

/// What whoever leads an object answers, whose part it is.
fn part(object: u64, node: u64, join: u64, updated: bool) -> Participant {
    let mut part = participant(node, join, updated);
    part.joined.decider = Some(uid(object));
    part.joined.part = true;
    part
}

fn at(node: u64) -> Address {
    Address::Site(site(node))
}

fn root() -> Family {
    Family::top(Path::top(uid(ROOT)))
}

/// A root with a child.
fn nested() -> Family {
    let mut family = root();
    family.begin(uid(ROOT), uid(CHILD)).unwrap();
    family
}

/// A call in `action` that goes to `node`, under way.
fn call(family: &mut Family, action: u64, node: u64) -> CallKey {
    let key = family.calling(uid(action)).unwrap();
    family.reaching(key, at(node));
    key
}

/// A call in `action` that has worked at `node` without trouble.
fn work(family: &mut Family, action: u64, node: u64, updated: bool) {
    let key = call(family, action, node);
    let report = reporting(&[participant(node, 1, updated)]);
    assert_eq!(family.answered(key, &report, CallEnd::Known), []);
}

fn unknown(family: &mut Family, key: CallKey) -> Vec<Send> {
    family.answered(key, &Report::default(), CallEnd::Unknown)
}

fn doomed(action: u64, why: Doom) -> Over {
    let action = uid(action);
    Over::Doomed { action, why }
}

#[test]
fn the_first_that_changed_something_coordinates() {
    type Case = (&'static [(u64, bool)], u64, &'static [u64]);
    let cases: &[Case] = &[
        (&[(5, false)], 5, &[]),
        (&[(5, false), (6, true), (7, true)], 6, &[5, 7]),
        (&[(7, true), (6, true)], 7, &[6]),
        (&[(7, false), (6, false)], 7, &[6]),
        (&[(7, false), (6, true), (7, true)], 7, &[6]),
    ];
    for (calls, first, rest) in cases {
        let mut family = root();
        for (node, updated) in *calls {
            work(&mut family, ROOT, *node, *updated);
        }
        let Ok(Plan::Ask {
            coordinator,
            others,
            aborted,
            decider: None,
        }) = family.commit()
        else {
            panic!("{calls:?} is to be asked for");
        };
        assert_eq!(coordinator.site, site(*first), "{calls:?}");
        let others: Vec<Site> = others.iter().map(|other| other.site).collect();
        let rest: Vec<Site> = rest.iter().map(|node| site(*node)).collect();
        assert_eq!(others, rest, "{calls:?}");
        assert_eq!(aborted, []);
        assert_eq!(family.settled(), []);
    }
}

#[test]
fn what_touched_nothing_commits_without_asking() {
    let mut family = root();
    assert_eq!(family.commit(), Ok(Plan::Nothing));
    assert_eq!(family.settled(), []);
    assert_eq!(family.commit(), Err(Over::Ended));
}

#[test]
fn a_committed_child_is_its_parents() {
    let mut family = nested();
    work(&mut family, CHILD, 5, true);
    work(&mut family, ROOT, 6, false);
    let sends = family.end_nested(uid(CHILD), true).unwrap();
    assert_eq!(sends, merge(CHILD, ROOT, &[5]));
    let Ok(Plan::Ask { coordinator, .. }) = family.commit() else {
        panic!("there are two participants");
    };
    assert_eq!(coordinator.site, site(5));
}

#[test]
fn an_aborted_child_is_undone_and_in_nobodys_way() {
    let mut family = nested();
    work(&mut family, ROOT, 6, true);
    work(&mut family, CHILD, 6, true);
    work(&mut family, CHILD, 5, true);
    let sends = family.end_nested(uid(CHILD), false).unwrap();
    assert_eq!(sends, abort(CHILD, &[5, 6]));
    let Ok(Plan::Ask {
        others, aborted, ..
    }) = family.commit()
    else {
        panic!("there is a participant");
    };
    assert_eq!(others, [], "node 5 did aborted work alone");
    assert_eq!(aborted, [uid(CHILD)]);
    assert_eq!(family.settled(), abort(ROOT, &[5]));
}

#[test]
fn a_child_in_a_child_goes_with_it() {
    let mut family = nested();
    family.begin(uid(CHILD), uid(GRANDCHILD)).unwrap();
    work(&mut family, GRANDCHILD, 5, true);
    let sends = family.end_nested(uid(GRANDCHILD), true).unwrap();
    assert_eq!(sends, merge(GRANDCHILD, CHILD, &[5]));
    let sends = family.end_nested(uid(CHILD), false).unwrap();
    assert_eq!(sends, abort(CHILD, &[5]));
    assert_eq!(family.commit(), Ok(Plan::Nothing));
    assert_eq!(family.settled(), abort(ROOT, &[5]));
}

#[test]
fn a_child_is_named_for_what_its_own_aborted_children_did() {
    let mut family = nested();
    work(&mut family, ROOT, 1, true);
    family.begin(uid(CHILD), uid(GRANDCHILD)).unwrap();
    work(&mut family, GRANDCHILD, 1, true);
    let sends = family.end_nested(uid(GRANDCHILD), false).unwrap();
    assert_eq!(sends, abort(GRANDCHILD, &[1]));
    assert_eq!(family.end_nested(uid(CHILD), false).unwrap(), []);
    let Plan::Ask { aborted, .. } = family.commit().unwrap() else {
        panic!("the root has worked")
    };
    assert_eq!(aborted, [uid(CHILD)], "node 1 may not have heard of it yet");
}

#[test]
fn what_is_under_way_is_in_the_way_of_a_commit_only() {
    let mut family = nested();
    let key = call(&mut family, CHILD, 5);
    let (calls, children) = (1, 0);
    let busy = Over::Busy { calls, children };
    assert_eq!(family.end_nested(uid(CHILD), true), Err(busy));
    let (calls, children) = (0, 1);
    let busy = Over::Busy { calls, children };
    assert_eq!(family.commit(), Err(busy));
    let sends = family.end_nested(uid(CHILD), false).unwrap();
    assert_eq!(sends, abort(CHILD, &[5]), "the call may have arrived");
    let report = reporting(&[participant(5, 1, true), participant(6, 1, true)]);
    let sends = family.answered(key, &report, CallEnd::Known);
    assert_eq!(sends, abort(CHILD, &[5, 6]), "what it joined late is told");
    assert_eq!(family.commit(), Ok(Plan::Nothing));
    assert_eq!(family.settled(), abort(ROOT, &[5, 6]));
}

#[test]
fn nobody_knows_dooms_the_level_and_not_its_parent() {
    let mut family = nested();
    work(&mut family, ROOT, 6, true);
    work(&mut family, CHILD, 7, true);
    let key = call(&mut family, CHILD, 5);
    assert_eq!(unknown(&mut family, key), abort(CHILD, &[5, 7]));
    let refused = doomed(CHILD, Doom::Unknown);
    assert_eq!(family.calling(uid(CHILD)), Err(refused));
    assert_eq!(family.begin(uid(CHILD), uid(GRANDCHILD)), Err(refused));
    assert_eq!(family.end_nested(uid(CHILD), true), Err(refused));
    assert_eq!(
        family.end_nested(uid(CHILD), false).unwrap(),
        abort(CHILD, &[5, 7])
    );
    let Ok(Plan::Ask {
        coordinator,
        others,
        aborted,
        decider: None,
    }) = family.commit()
    else {
        panic!("the root is well");
    };
    assert_eq!((coordinator.site, others), (site(6), vec![]));
    assert_eq!(aborted, [uid(CHILD)]);
}

#[test]
fn a_victim_is_aborted_before_its_program_ends() {
    for (victim, sites) in [(CHILD, &[5, 7][..]), (ROOT, &[5, 6, 7][..])] {
        let mut family = nested();
        work(&mut family, ROOT, 6, true);
        work(&mut family, CHILD, 7, true);
        let other = call(&mut family, CHILD, 5);
        let key = call(&mut family, CHILD, 8);
        let (victim_uid, why) = (uid(victim), Doom::Deadlock);
        let ended = CallEnd::Doomed {
            victim: victim_uid,
            why,
        };
        let sends = family.answered(key, &Report::default(), ended);
        assert_eq!(sends, abort(victim, sites), "8 has refused it and knows");
        assert_eq!(family.doomed(uid(CHILD)), Some((victim_uid, why)));
        let report = reporting(&[participant(5, 1, true), participant(9, 1, false)]);
        let sends = family.answered(other, &report, CallEnd::Known);
        assert_eq!(sends, abort(victim, &[5, 9]));
        assert_eq!(family.doom(uid(CHILD), Doom::Program), [], "only once");
    }
}

#[test]
fn another_mirror_or_life_dooms_those_who_have_worked_there() {
    let again = Participant {
        incarnation: Incarnation(2),
        ..participant(5, 1, true)
    };
    for other in [participant(5, 2, true), again] {
        // The child alone has worked there.
        let mut family = nested();
        work(&mut family, CHILD, 5, true);
        let key = call(&mut family, CHILD, 5);
        let sends = family.answered(key, &reporting(&[other]), CallEnd::Known);
        assert_eq!(sends, abort(CHILD, &[5]));
        assert_eq!(family.doomed(uid(ROOT)), None);
        // The root has.
        let mut family = nested();
        work(&mut family, ROOT, 5, false);
        let key = call(&mut family, CHILD, 5);
        let sends = family.answered(key, &reporting(&[other]), CallEnd::Known);
        assert_eq!(sends, abort(ROOT, &[5]));
        let lost = (uid(ROOT), Doom::Lost(site(5)));
        assert_eq!(family.doomed(uid(CHILD)), Some(lost));
        // Nobody whose work counts has.
        let mut family = nested();
        work(&mut family, CHILD, 5, true);
        family.end_nested(uid(CHILD), false).unwrap();
        let key = call(&mut family, ROOT, 5);
        let sends = family.answered(key, &reporting(&[other]), CallEnd::Known);
        assert_eq!(sends, []);
        let Ok(Plan::Ask { coordinator, .. }) = family.commit() else {
            panic!("there is a participant");
        };
        assert_eq!(coordinator, other);
    }
}

#[test]
fn an_aborted_root_tells_everybody_it_may_have_reached() {
    let mut family = nested();
    work(&mut family, ROOT, 6, true);
    work(&mut family, CHILD, 7, true);
    family.end_nested(uid(CHILD), false).unwrap();
    let key = call(&mut family, ROOT, 5);
    assert_eq!(family.abort(), abort(ROOT, &[5, 6, 7]));
    assert_eq!(family.abort(), [], "once");
    assert_eq!(unknown(&mut family, key), abort(ROOT, &[5]));
    assert_eq!(family.calling(uid(ROOT)), Err(Over::Ended));
    assert_eq!(family.end_nested(uid(CHILD), true), Err(Over::Ended));
    assert_eq!(family.end_nested(uid(CHILD), false), Ok(vec![]));
}

#[test]
fn an_abort_after_the_commit_was_asked_for_is_told_too() {
    let mut family = root();
    work(&mut family, ROOT, 6, true);
    family.commit().unwrap();
    assert_eq!(family.calling(uid(ROOT)), Err(Over::Ended));
    assert_eq!(family.doom(uid(ROOT), Doom::Program), []);
    assert_eq!(family.abort(), abort(ROOT, &[6]));
}

#[test]
fn a_branch_reports_what_its_calls_joined() {
    let path = Path::top(uid(ROOT)).nested(uid(CHILD));
    let mut branch = Family::branch(path.clone());
    assert_eq!(branch.report(), Report::default());
    branch.begin(uid(CHILD), uid(GRANDCHILD)).unwrap();
    branch.begin(uid(CHILD), uid(SIBLING)).unwrap();
    work(&mut branch, GRANDCHILD, 6, true);
    work(&mut branch, SIBLING, 5, false);
    branch.end_nested(uid(GRANDCHILD), false).unwrap();
    branch.end_nested(uid(SIBLING), true).unwrap();
    let report = branch.report();
    assert_eq!(report.participants, [participant(5, 1, false)]);
    assert_eq!(report.aborted, [uid(GRANDCHILD)]);

    let mut family = nested();
    let key = call(&mut family, CHILD, 8);
    assert_eq!(family.answered(key, &report, CallEnd::Known), []);
    let sends = family.end_nested(uid(CHILD), true).unwrap();
    assert_eq!(sends, merge(CHILD, ROOT, &[5]));
    let Ok(Plan::Ask { aborted, .. }) = family.commit() else {
        panic!("there is a participant");
    };
    assert_eq!(aborted, [uid(GRANDCHILD)]);
}

#[test]
fn a_branch_that_cannot_finish_dooms_its_callers_level() {
    let path = Path::top(uid(ROOT)).nested(uid(CHILD));
    let in_the_branch: &[fn(&mut Family) -> Vec<Send>] = &[
        // A call of the servant has no answer.
        |branch| {
            let key = call(branch, CHILD, 5);
            unknown(branch, key)
        },
        // The servant gives up.
        |branch| {
            work(branch, CHILD, 5, true);
            branch.abort()
        },
        // A call of it is still under way when the servant answers.
        |branch| {
            call(branch, CHILD, 5);
            abort(CHILD, &[5])
        },
    ];
    for scene in in_the_branch {
        let mut branch = Family::branch(path.clone());
        assert_eq!(scene(&mut branch), abort(CHILD, &[5]));
        let report = branch.report();
        assert_eq!(report.aborted, [uid(CHILD)]);
        let mut family = nested();
        let key = call(&mut family, CHILD, 8);
        family.answered(key, &report, CallEnd::Known);
        assert_eq!(family.doomed(uid(CHILD)), Some((uid(CHILD), Doom::Below)));
    }
}

#[test]
fn a_victim_above_a_branch_reaches_its_runner() {
    let path = Path::top(uid(ROOT)).nested(uid(CHILD));
    let mut branch = Family::branch(path);
    work(&mut branch, CHILD, 6, true);
    let key = call(&mut branch, CHILD, 5);
    let (victim, why) = (uid(ROOT), Doom::Deadlock);
    let ended = CallEnd::Doomed { victim, why };
    let sends = branch.answered(key, &Report::default(), ended);
    assert_eq!(sends, abort(ROOT, &[6]));
    assert_eq!(branch.calling(uid(CHILD)), Err(doomed(CHILD, why)));
    assert_eq!(branch.take_outer(), [], "it is not across the boundary");

    let mut family = nested();
    work(&mut family, ROOT, 7, true);
    let key = call(&mut family, CHILD, 8);
    let sends = family.answered(key, &branch.report(), CallEnd::Known);
    assert_eq!(family.doomed(uid(ROOT)), Some((uid(ROOT), Doom::Below)));
    assert!(sends.contains(&(at(7), Message::abort(victim))));
}

#[test]
fn a_victim_across_the_boundary_is_handed_out() {
    let independent = Path::top(uid(ROOT)).top_level(uid(SIBLING));
    let mut family = Family::top(independent.clone());
    work(&mut family, SIBLING, 6, true);
    let key = call(&mut family, SIBLING, 5);
    let (victim, why) = (uid(ROOT), Doom::Deadlock);
    let ended = CallEnd::Doomed { victim, why };
    let sends = family.answered(key, &Report::default(), ended);
    assert_eq!(
        sends,
        abort(SIBLING, &[6]),
        "it would wait for the same again"
    );
    assert_eq!(family.take_outer(), [(victim, why)]);
    assert_eq!(family.take_outer(), []);

    // Through a servant that is called in the independent one.
    let mut branch = Family::branch(independent.clone());
    let key = call(&mut branch, SIBLING, 5);
    branch.answered(key, &Report::default(), ended);
    let mut family = Family::top(independent);
    let key = call(&mut family, SIBLING, 5);
    family.answered(key, &branch.report(), CallEnd::Known);
    assert_eq!(family.take_outer(), [(victim, Doom::Below)]);
}

#[test]
fn whoever_is_named_by_mistake_the_call_pays() {
    let mut family = nested();
    let key = call(&mut family, CHILD, 5);
    let (victim, why) = (uid(1_000), Doom::Deadlock);
    let ended = CallEnd::Doomed { victim, why };
    family.answered(key, &Report::default(), ended);
    assert_eq!(family.doomed(uid(CHILD)), Some((uid(CHILD), why)));
    assert_eq!(family.doomed(uid(ROOT)), None);
    assert_eq!(unknown(&mut family, key), [], "an answer counts once");
}

#[test]
fn everything_has_a_bound() {
    let mut family = root();
    for n in 0..CALLS_MAX {
        assert!(family.calling(uid(ROOT)).is_ok(), "call {n}");
    }
    let (what, limit) = ("calls under way in one action", CALLS_MAX);
    let over = Over::TooMany { what, limit };
    assert_eq!(family.calling(uid(ROOT)), Err(over));

    let mut family = root();
    for n in 1..LEVELS_MAX as u64 {
        family.begin(uid(ROOT), uid(100 + n)).unwrap();
    }
    let full = family.begin(uid(ROOT), uid(50));
    assert!(matches!(
        full,
        Err(Over::TooMany {
            limit: LEVELS_MAX,
            ..
        })
    ));

    let mut family = root();
    for n in 1..PATH_MAX as u64 {
        family.begin(uid(n), uid(n + 1)).unwrap();
    }
    let deep = family.begin(uid(PATH_MAX as u64), uid(1_000));
    assert_eq!(deep, Err(Over::TooDeep { limit: PATH_MAX }));

    let mut family = root();
    for n in 0..ABORTED_MAX as u64 {
        family.begin(uid(ROOT), uid(100 + n)).unwrap();
        work(&mut family, 100 + n, 5, true);
        family.end_nested(uid(100 + n), false).unwrap();
    }
    let full = family.begin(uid(ROOT), uid(50));
    assert!(matches!(
        full,
        Err(Over::TooMany {
            limit: ABORTED_MAX,
            ..
        })
    ));

    let mut family = root();
    for node in 0..PARTICIPANTS_MAX as u64 {
        work(&mut family, ROOT, node, true);
    }
    let key = call(&mut family, ROOT, 5_000);
    let report = reporting(&[participant(5_000, 1, true)]);
    let sends = family.answered(key, &report, CallEnd::Known);
    assert_eq!(sends.len(), PARTICIPANTS_MAX);
    let refused = doomed(ROOT, Doom::TooMuch);
    assert_eq!(family.commit(), Err(refused));
    assert_eq!(family.abort().len(), PARTICIPANTS_MAX + 1);
}

#[test]
fn work_that_counts_is_known_by_node() {
    let mut family = nested();
    work(&mut family, CHILD, 5, true);
    assert!(family.works_at(NodeId(5)) && !family.works_at(NodeId(6)));
    family.end_nested(uid(CHILD), false).unwrap();
    assert!(!family.works_at(NodeId(5)));
    assert_eq!(family.path_of(uid(CHILD)), None);
}

#[test]
fn a_deadlock_below_is_known_as_one() {
    let mut family = nested();
    let key = call(&mut family, CHILD, 5);
    let victim = uid(CHILD);
    let report = Report {
        participants: vec![participant(5, 1, true)],
        aborted: vec![victim],
    };
    let why = Doom::Deadlock;
    let sends = family.answered(key, &report, CallEnd::Doomed { victim, why });
    assert_eq!(sends, abort(CHILD, &[5]), "told once");
    assert_eq!(family.doomed(victim), Some((victim, why)));
}

/// The leader of an object may be another with every answer: it is one participant all the same,
/// and what is said goes to whoever leads.
#[test]
fn a_part_is_where_its_object_is_led() {
    const OBJECT: u64 = 70;
    let leader = Address::Leader(uid(OBJECT));
    let mut family = root();
    let child = uid(CHILD);
    family.begin(uid(ROOT), child).expect("the root is open");
    for node in [1, 2] {
        let key = family.calling(child).expect("it is open");
        family.reaching(key, leader);
        let report = reporting(&[part(OBJECT, node, 5, node == 2)]);
        assert_eq!(family.answered(key, &report, CallEnd::Known), []);
    }
    assert!(!family.works_at(NodeId(2)), "the next leader has it, too");
    let sends = family
        .end_nested(child, true)
        .expect("nothing is under way");
    let message = merged(child, uid(ROOT), Some(uid(OBJECT)));
    assert_eq!(sends, [(leader, message)]);
    let key = family.calling(uid(ROOT)).expect("it is open");
    let report = reporting(&[participant(3, 9, true)]);
    assert_eq!(family.answered(key, &report, CallEnd::Known), []);
    let plan = family.commit().expect("nothing is under way");
    let Plan::Ask {
        coordinator,
        decider,
        others,
        ..
    } = plan
    else {
        panic!("{plan:?} asks nobody");
    };
    assert_eq!(
        (coordinator.address(), decider),
        (leader, Some(uid(OBJECT)))
    );
    assert!(coordinator.joined.updated, "one of its answers said so");
    assert_eq!(others, [participant(3, 9, true)]);
}

/// A part with another number lacks what the first one did.
#[test]
fn a_part_that_was_begun_anew_has_lost_work() {
    const OBJECT: u64 = 70;
    let mut family = root();
    for (node, join) in [(1, 5), (2, 6)] {
        let key = family.calling(uid(ROOT)).expect("it is open");
        let report = reporting(&[part(OBJECT, node, join, true)]);
        family.answered(key, &report, CallEnd::Known);
    }
    let doomed = family.doomed(uid(ROOT));
    assert_eq!(doomed, Some((uid(ROOT), Doom::Lost(site(2)))));
}
