//! What an action has of an object with copies is where that was led.

use super::*;

#[test]
fn work_is_lost_where_another_copy_has_come_to_lead() {
    const OBJECT: u64 = 70;
    let find = |family: &mut Family, action, leader| {
        let sends = family.finds_leader(uid(action), uid(OBJECT), NodeId(leader));
        let doomed = family.doomed(uid(action)).map(|(level, _)| level);
        (doomed, sends)
    };
    let use_it = |family: &mut Family, action| {
        work(family, action, 5, true);
        family.led(uid(action), uid(OBJECT), site(5));
    };
    // Whoever leads it, as long as that is the same one; other objects may be led by others.
    let mut family = nested();
    assert_eq!(find(&mut family, CHILD, 6), (None, vec![]));
    use_it(&mut family, CHILD);
    assert_eq!(find(&mut family, CHILD, 5), (None, vec![]));
    let has = |family: &Family, action, leader| {
        family.was_led_by(uid(action), uid(OBJECT), NodeId(leader))
    };
    assert!(has(&family, CHILD, 5) && !has(&family, CHILD, 6) && !has(&family, ROOT, 5));
    let other = family.finds_leader(uid(CHILD), uid(OBJECT + 1), NodeId(6));
    assert_eq!((other, family.doomed(uid(CHILD))), (vec![], None));
    // What a nested action has done is undone with it, and begun anew elsewhere.
    family.end_nested(uid(CHILD), false).unwrap();
    assert_eq!(find(&mut family, ROOT, 6), (None, vec![]));
    // What it has committed is its parent's, which is lost as a whole.
    let mut family = nested();
    use_it(&mut family, CHILD);
    let (doomed, sends) = find(&mut family.clone(), CHILD, 6);
    assert_eq!((doomed, sends), (Some(uid(CHILD)), abort(CHILD, &[5])));
    family.end_nested(uid(CHILD), true).unwrap();
    family.begin(uid(ROOT), uid(CHILD + 1)).unwrap();
    let (doomed, sends) = find(&mut family, CHILD + 1, 6);
    assert_eq!((doomed, sends), (Some(uid(ROOT)), abort(ROOT, &[5])));
    assert_eq!(
        family.doomed(uid(ROOT)),
        Some((uid(ROOT), Doom::Lost(site(5))))
    );
}

#[test]
fn leaders_that_are_remembered_are_bounded() {
    let mut family = nested();
    for object in 0..=LED_MAX as u64 {
        family.led(uid(CHILD), uid(object), site(5));
        family.led(uid(ROOT), uid(object + 1_000_000), site(5));
    }
    family.end_nested(uid(CHILD), true).unwrap();
    assert_eq!(family.levels[&uid(ROOT)].led.len(), LED_MAX);
}
