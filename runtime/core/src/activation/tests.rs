//! Which objects are in memory: every state and input.

use super::*;
use crate::id::{Epoch, NodeId};
use crate::list::Link;

const IMAGES: [Image; 4] = [
    Image::Passive,
    Image::Activating,
    Image::Making,
    Image::Active,
];

fn short(image: Image, cue: Cue) -> String {
    let (after, next) = next(image, cue);
    if next == Next::Mistake {
        return "-".to_owned();
    }
    let next = match next {
        Next::RefuseAll(fault) => format!("RefuseAll {fault:?}"),
        Next::Load
        | Next::Run
        | Next::Wait
        | Next::RefuseExists
        | Next::RunHolders
        | Next::RefuseAbsent
        | Next::RefuseMoved
        | Next::Ignore
        | Next::Mistake => format!("{next:?}"),
    };
    if after == image {
        next
    } else {
        format!("{next} > {after:?}")
    }
}

/// One cue for all images: Passive, Activating, Making, Active.
fn check(cue: Cue, expect: [&str; 4]) {
    assert_eq!(IMAGES.map(|image| short(image, cue)), expect, "{cue:?}");
}

#[test]
fn every_image_and_cue() {
    let found = Loaded::Found {
        epoch: Epoch(1),
        size_bytes: 1,
        replicated: false,
    };
    let failed = Loaded::Failed(Fault::Store);
    check(
        Cue::Wanted { create: false },
        ["Load > Activating", "Wait", "-", "Run"],
    );
    check(
        Cue::Wanted { create: true },
        ["Run > Making", "Wait", "-", "RefuseExists"],
    );
    check(
        Cue::Loaded(found),
        ["Ignore", "RunHolders > Active", "-", "Ignore"],
    );
    check(
        Cue::Loaded(Loaded::Absent),
        ["Ignore", "RefuseAbsent > Passive", "-", "Ignore"],
    );
    check(
        Cue::Loaded(Loaded::Moved),
        ["Ignore", "RefuseMoved > Passive", "-", "Ignore"],
    );
    check(
        Cue::Loaded(failed),
        ["Ignore", "RefuseAll Store > Passive", "-", "Ignore"],
    );
    check(Cue::Made, ["-", "-", "Ignore > Active", "-"]);
    check(
        Cue::Dropped,
        ["-", "-", "Ignore > Passive", "Ignore > Passive"],
    );
}

fn idle_object(objects: &mut Objects, number: u64, now: u64, bound: bool) -> Slot {
    let uid = Uid {
        node: NodeId(1),
        local: number,
    };
    let slot = objects.insert(uid, bound);
    objects.entry_mut(slot).image = Image::Active;
    objects.set_idle(Time(now), slot);
    slot
}

#[test]
fn the_longest_unused_leaves_first_whoever_is_bound() {
    let mut objects = Objects::seeded(1);
    let first = idle_object(&mut objects, 1, 10, true);
    let second = idle_object(&mut objects, 2, 20, false);
    let third = idle_object(&mut objects, 3, 30, true);
    objects.check(&Limits::default());
    assert_eq!(objects.longest_unused(), Some(first));
    objects.set_busy(first);
    assert_eq!(objects.longest_unused(), Some(second));
    objects.set_idle(Time(40), first);
    objects.set_busy(second);
    assert_eq!(objects.longest_unused(), Some(third));
    // To be bound or not any more counts as a use.
    objects.set_bound(Time(50), third, false);
    assert_eq!(objects.longest_unused(), Some(first));
    objects.set_idle(Time(60), second);
    objects.check(&Limits::default());
    assert_eq!(objects.idle(), 3);
}

#[test]
fn a_bound_object_may_be_idle_ten_times_longer() {
    let limits = Limits {
        idle_ns: 100,
        ..Limits::default()
    };
    let mut objects = Objects::seeded(1);
    assert_eq!(objects.next_expiry(&limits), None);
    let bound = idle_object(&mut objects, 1, 0, true);
    assert_eq!(objects.next_expiry(&limits), Some((Time(1_000), bound)));
    let free = idle_object(&mut objects, 2, 50, false);
    assert_eq!(objects.next_expiry(&limits), Some((Time(150), free)));
    objects.set_bound(Time(60), free, true);
    assert_eq!(objects.next_expiry(&limits), Some((Time(1_000), bound)));
}

#[test]
fn an_idle_object_is_small() {
    // Slab and links double; the index has at most four cells for an entry.
    let most = 2 * (size_of::<Object>() + size_of::<Link>()) + 4 * size_of::<u64>();
    assert!(most <= 300, "{most} bytes for an object in memory");
    assert_eq!(Slab::<Object>::CELL_BYTES, 64, "more than a cache line");
}

#[test]
fn who_does_not_know_the_seed_cannot_choose_uids_that_collide() {
    let node = NodeId(1);
    let key = |local| LockKey::object(Uid { node, local });
    let same_home = |objects: &Objects, local| objects.slots.hash(key(local)) % 4096 == 7;
    let known = Objects::seeded(0);
    let chosen: Vec<u64> = (0..).filter(|n| same_home(&known, *n)).take(64).collect();
    let other = Objects::seeded(0x5eed);
    let collide = chosen.iter().filter(|n| same_home(&other, **n)).count();
    assert!(collide < 8, "{collide} of 64 collide under another seed");
}
