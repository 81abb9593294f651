//! The tree of levels: joining, names, kinship, dates.

use super::*;
use crate::lock::locks::{Family, Owner};

fn uid(n: u64) -> Uid {
    Uid {
        node: NodeId(1),
        local: n,
    }
}

fn member(own: &[u64]) -> Membership {
    let own = own.iter().map(|n| uid(*n)).collect();
    Membership {
        path: Path::new(own, 0).expect("a short path"),
        until: Time(100),
        home: NodeId(1),
        born_ms: 7,
        stack: Vec::new(),
        carried: false,
    }
}

#[test]
fn a_call_makes_the_levels_it_needs_and_no_more() {
    let mut mirrors = Mirrors::new(NodeId(1), Incarnation(3));
    assert_eq!(mirrors.new_levels(&member(&[1, 2, 3]).path, None), Some(3));
    let deep = mirrors.join(&member(&[1, 2, 3]), None, Time(5));
    mirrors.check();
    assert_eq!(mirrors.new_levels(&member(&[1, 2, 4]).path, None), Some(1));
    assert_eq!(mirrors.join(&member(&[1, 2, 3]), None, Time(6)), deep);
    assert_eq!(mirrors.path(deep), member(&[1, 2, 3]).path);
    let mirror = mirrors.mirror(mirrors.find(uid(1)).expect("it has joined"));
    assert_eq!(mirror.join, 3 << Uid::COUNTER_BITS | 1);
    assert_eq!((mirror.levels, mirror.began), (3, Time(5)));
    for wrong in [
        &[1, 3][..],
        &[2],
        &[1, 1],
        &[1, 2, 2],
        &[5, 2],
        &[1, 6, 3],
        &[1, 6, 6],
    ] {
        assert_eq!(
            mirrors.new_levels(&member(wrong).path, None),
            None,
            "{wrong:?}"
        );
    }
}

#[test]
fn the_path_of_a_level_has_what_encloses_it() {
    let mut mirrors = Mirrors::new(NodeId(1), Incarnation(1));
    let path = Path::new(vec![uid(9), uid(1), uid(2)], 1).expect("a short path");
    let inside = Membership {
        path: path.clone(),
        ..member(&[])
    };
    let level = mirrors.join(&inside, None, Time(0));
    assert_eq!(mirrors.path(level), path);
    assert_eq!(mirrors.find(uid(9)), None);
}

#[test]
fn ancestors_and_siblings_are_told_apart() {
    let mut mirrors = Mirrors::new(NodeId(1), Incarnation(1));
    let a = mirrors.join(&member(&[1, 2]), None, Time(0));
    let b = mirrors.join(&member(&[1, 3, 4]), None, Time(0));
    let other = mirrors.join(&member(&[5]), None, Time(0));
    let owner = |slot: Slot| Owner::level(slot.0);
    let root = mirrors.mirror(mirrors.level(a).mirror).root;
    let kin = Kin {
        mirrors: &mirrors,
        siblings_share: false,
    };
    assert!(kin.includes(owner(root), owner(b)) && kin.includes(owner(a), owner(a)));
    assert!(!kin.includes(owner(b), owner(root)) && !kin.includes(owner(a), owner(b)));
    assert!(!kin.includes(owner(other), owner(a)));
    assert!(
        !kin.includes(Owner::call(0), owner(a)) && kin.includes(Owner::call(7), Owner::call(7))
    );
    assert_eq!(kin.root(owner(b)), owner(root));
    assert_eq!(kin.root(Owner::call(7)), Owner::call(7));
}

#[test]
fn the_next_date_comes_first_and_the_last_level_takes_the_mirror_with_it() {
    let mut mirrors = Mirrors::new(NodeId(1), Incarnation(1));
    let first = mirrors.join(&member(&[1]), None, Time(0));
    let second = mirrors.join(&member(&[2, 3]), None, Time(0));
    let at = mirrors.level(second).mirror;
    mirrors.set_due(at, Time(50));
    assert_eq!(mirrors.pop_due(Time(49)), None);
    assert_eq!(mirrors.pop_due(Time(50)), Some(at));
    assert_eq!(mirrors.next_due(), Some(Time(100)));
    mirrors.remove(first);
    assert_eq!(mirrors.next_due(), None);
    let subtree = mirrors.subtree(mirrors.mirror(at).root);
    assert_eq!(subtree.last(), Some(&second));
    for level in subtree.into_iter().rev() {
        mirrors.remove(level);
    }
    mirrors.check();
    assert_eq!(mirrors.len(), 0);
    // A name that comes again is another mirror.
    let again = mirrors.join(&member(&[1]), None, Time(0));
    let again = mirrors.mirror(mirrors.level(again).mirror);
    assert_eq!(again.join & Uid::COUNTER_MAX, 3);
}

#[test]
fn an_action_has_a_part_for_each_object_besides() {
    let object = Some(uid(70));
    let mut mirrors = Mirrors::new(NodeId(1), Incarnation(1));
    let own = mirrors.join(&member(&[1, 2]), None, Time(0));
    let part = mirrors.join(&member(&[1, 2]), object, Time(0));
    mirrors.check();
    assert_ne!(mirrors.level(own).mirror, mirrors.level(part).mirror);
    assert_eq!(mirrors.find_level_at((uid(2), object)), Some(part));
    assert_eq!(mirrors.part_levels(uid(2)), [part]);
    let slot = mirrors.level(part).mirror;
    assert_eq!(
        (mirrors.parts_of(uid(1)), mirrors.parts_at(uid(70))),
        (vec![slot], vec![slot])
    );
    let joined = mirrors.mirror(slot).joined();
    assert_eq!(
        (joined.decider, joined.part, joined.updated),
        (object, true, false)
    );
    // Numbers of parts are compared across nodes.
    let mut others = Mirrors::new(NodeId(2), Incarnation(1));
    others.join(&member(&[1, 2]), None, Time(0));
    let other = others.join(&member(&[1, 2]), object, Time(0));
    assert_ne!(others.mirror(others.level(other).mirror).join, joined.join);
    // Another leads the object: the name is free, what is left goes by itself.
    mirrors.lose(slot);
    mirrors.check();
    assert_eq!(
        (mirrors.find_at((uid(1), object)), mirrors.parts_at(uid(70))),
        (None, vec![])
    );
    let again = mirrors.join(&member(&[1, 2]), object, Time(0));
    for level in mirrors.subtree(mirrors.mirror(slot).root).into_iter().rev() {
        mirrors.remove(level);
    }
    mirrors.check();
    assert_eq!(mirrors.find_level_at((uid(2), object)), Some(again));
}
