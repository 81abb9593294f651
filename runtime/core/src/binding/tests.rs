//! The client side of a reference: every state and input.

use super::*;

const NONE: Jitter = Jitter(0);

fn ms(n: u64) -> Time {
    Time(n * 1_000_000)
}

fn resolve(ms: u64) -> Step {
    let pause = Duration::from_millis(ms);
    Step::Resolve { pause }
}

fn go(generation: u64) -> Step {
    Step::Go { generation }
}

/// A binding that was resolved once and works, with the attempt that did it.
fn bound() -> (Binding<char>, Attempt) {
    let (mut binding, mut attempt) = (Binding::new(), Attempt::default());
    assert_eq!(binding.want(ms(0), &mut attempt), resolve(0));
    assert_eq!(binding.resolved(ms(1), &mut attempt, Ok('a'), NONE), go(1));
    binding.worked(1);
    (binding, attempt)
}

#[test]
fn many_calls_share_one_resolution() {
    let mut binding = Binding::new();
    let mut calls = [Attempt::default(); 3];
    assert_eq!(binding.want(ms(0), &mut calls[0]), resolve(0));
    assert_eq!(binding.want(ms(0), &mut calls[1]), Step::Wait);
    assert_eq!(binding.want(ms(0), &mut calls[2]), Step::Wait);
    // Woken for nothing: still waiting.
    assert_eq!(binding.want(ms(1), &mut calls[1]), Step::Wait);
    assert_eq!(binding.place(), None);
    assert_eq!(binding.resolved(ms(1), &mut calls[0], Ok('a'), NONE), go(1));
    assert_eq!(binding.want(ms(1), &mut calls[1]), go(1));
    assert_eq!(binding.want(ms(1), &mut calls[2]), go(1));
    assert_eq!(binding.place(), Some(&'a'));
}

#[test]
fn a_failed_round_fails_all_who_waited_and_nobody_else() {
    let mut binding: Binding<char> = Binding::new();
    let mut calls = [Attempt::default(); 3];
    assert_eq!(binding.want(ms(0), &mut calls[0]), resolve(0));
    assert_eq!(binding.want(ms(0), &mut calls[1]), Step::Wait);
    let failed = Step::Fail(Why::Unreachable);
    assert_eq!(
        binding.resolved(ms(1), &mut calls[0], Err(Why::Unreachable), NONE),
        failed
    );
    assert_eq!(binding.want(ms(1), &mut calls[1]), failed);
    // The first failure in a row costs no pause, the next one does.
    assert_eq!(binding.want(ms(1), &mut calls[2]), resolve(0));
    assert_eq!(
        binding.resolved(ms(1), &mut calls[2], Err(Why::Unreachable), NONE),
        failed
    );
    // A call that was told may try again, if its deadline allows.
    assert_eq!(binding.want(ms(1), &mut calls[2]), resolve(20));
}

#[test]
fn a_resolver_that_gives_up_hands_over() {
    let mut binding = Binding::new();
    let mut calls = [Attempt::default(); 2];
    assert_eq!(binding.want(ms(0), &mut calls[0]), resolve(0));
    assert_eq!(binding.want(ms(0), &mut calls[1]), Step::Wait);
    binding.gave_up(&calls[0]);
    assert_eq!(binding.want(ms(1), &mut calls[1]), resolve(0));
    // What the first one reports now is late news.
    assert_eq!(
        binding.resolved(ms(2), &mut calls[0], Ok('x'), NONE),
        Step::Wait
    );
    binding.gave_up(&Attempt::default());
    assert_eq!(binding.resolved(ms(3), &mut calls[1], Ok('a'), NONE), go(1));
    binding.gave_up(&calls[1]);
    assert_eq!(binding.place(), Some(&'a'));
}

#[test]
fn a_resolver_that_gives_up_hands_its_pause_over() {
    let (mut binding, _) = bound();
    let mut calls = [Attempt::default(); 3];
    binding.lost(ms(0), 1, NONE);
    assert_eq!(binding.want(ms(0), &mut calls[0]), resolve(0));
    binding.resolved(ms(0), &mut calls[0], Err(Why::Unreachable), NONE);
    assert_eq!(binding.want(ms(5), &mut calls[1]), resolve(15));
    binding.gave_up(&calls[1]);
    assert_eq!(binding.want(ms(10), &mut calls[2]), resolve(10));
}

#[test]
fn a_waiter_that_wakes_late_uses_what_was_found_since() {
    let mut binding = Binding::new();
    let mut calls = [Attempt::default(); 3];
    assert_eq!(binding.want(ms(0), &mut calls[0]), resolve(0));
    assert_eq!(binding.want(ms(0), &mut calls[1]), Step::Wait);
    binding.resolved(ms(1), &mut calls[0], Err(Why::Unreachable), NONE);
    assert_eq!(binding.want(ms(1), &mut calls[2]), resolve(0));
    assert_eq!(binding.resolved(ms(2), &mut calls[2], Ok('a'), NONE), go(1));
    assert_eq!(binding.want(ms(3), &mut calls[1]), go(1));
}

#[test]
fn a_stale_place_costs_one_fresh_resolution_and_then_the_error_stands() {
    let (mut binding, _) = bound();
    let mut call = Attempt::default();
    assert_eq!(binding.want(ms(2), &mut call), go(1));
    assert_eq!(binding.stale(ms(2), 1, &mut call), resolve(0));
    assert_eq!(binding.resolved(ms(3), &mut call, Ok('b'), NONE), go(2));
    assert_eq!(
        binding.stale(ms(4), 2, &mut call),
        Step::Fail(Why::NotThere)
    );
    // Another call takes the place for cached, and has its own fresh resolution.
    let mut other = Attempt::default();
    assert_eq!(binding.want(ms(5), &mut other), go(2));
    assert_eq!(binding.stale(ms(5), 2, &mut other), resolve(0));
}

#[test]
fn stale_news_of_an_old_place_uses_the_new_one() {
    let (mut binding, _) = bound();
    let mut calls = [Attempt::default(); 3];
    for call in &mut calls {
        assert_eq!(binding.want(ms(2), call), go(1));
    }
    assert_eq!(binding.stale(ms(2), 1, &mut calls[0]), resolve(0));
    assert_eq!(binding.stale(ms(2), 1, &mut calls[1]), Step::Wait);
    assert_eq!(binding.resolved(ms(3), &mut calls[0], Ok('b'), NONE), go(2));
    assert_eq!(binding.want(ms(3), &mut calls[1]), go(2));
    assert_eq!(binding.stale(ms(4), 1, &mut calls[2]), go(2));
    assert_eq!(
        binding.stale(ms(4), 2, &mut calls[2]),
        Step::Fail(Why::NotThere)
    );
}

#[test]
fn a_place_has_a_generation_as_long_as_it_is_there() {
    let unbound: Binding<char> = Binding::new();
    assert_eq!(unbound.generation(), None);
    assert_eq!(Binding::bound('a').generation(), Some(1));
    let (mut binding, mut attempt) = bound();
    assert_eq!(binding.generation(), Some(1));
    binding.lost(ms(2), 1, NONE);
    assert_eq!(binding.generation(), None);
    assert_eq!(binding.want(ms(3), &mut attempt), resolve(0));
    assert_eq!(binding.generation(), None);
    assert_eq!(binding.resolved(ms(4), &mut attempt, Ok('b'), NONE), go(2));
    assert_eq!(binding.generation(), Some(2));
    assert_eq!(binding.stale(ms(5), 2, &mut attempt), resolve(0));
    assert_eq!(binding.generation(), None);
}

#[test]
fn a_lost_place_is_resolved_anew_with_growing_pauses_until_a_call_works() {
    let (mut binding, _) = bound();
    let mut now = 10;
    let pauses = [0, 20, 40, 80, 160, 320, 640, 1_280, 2_000, 2_000];
    for (at, pause) in pauses.into_iter().enumerate() {
        let generation = 1 + at as u64;
        let mut call = Attempt::default();
        binding.lost(ms(now), generation, NONE);
        assert_eq!(binding.place(), None);
        assert_eq!(binding.want(ms(now), &mut call), resolve(pause));
        now += pause;
        assert_eq!(
            binding.resolved(ms(now), &mut call, Ok('b'), NONE),
            go(generation + 1)
        );
    }
    let generation = 1 + pauses.len() as u64;
    binding.worked(generation);
    binding.lost(ms(now), generation, NONE);
    assert_eq!(binding.want(ms(now), &mut Attempt::default()), resolve(0));
}

#[test]
fn time_that_has_passed_is_taken_off_the_pause() {
    let (mut binding, _) = bound();
    binding.lost(ms(0), 1, NONE);
    let mut call = Attempt::default();
    assert_eq!(binding.want(ms(0), &mut call), resolve(0));
    binding.resolved(ms(0), &mut call, Err(Why::Unreachable), NONE);
    assert_eq!(binding.clone().want(ms(5), &mut call), resolve(15));
    assert_eq!(binding.want(ms(500), &mut call), resolve(0));
}

#[test]
fn late_news_has_no_effect() {
    let (mut binding, mut first) = bound();
    // An old generation is lost, an unknown one works, a finished round reports again.
    binding.lost(ms(2), 0, NONE);
    binding.worked(7);
    assert_eq!(
        binding.resolved(ms(2), &mut first, Err(Why::Unreachable), NONE),
        go(1)
    );
    assert_eq!(binding.place(), Some(&'a'));
    // While unbound, resolving or broken there is no place to lose.
    let mut call = Attempt::default();
    assert_eq!(binding.stale(ms(3), 1, &mut call), resolve(0));
    binding.lost(ms(3), 1, NONE);
    assert_eq!(binding.want(ms(3), &mut Attempt::default()), Step::Wait);
    let mut unbound: Binding<char> = Binding::default();
    unbound.lost(ms(3), 0, NONE);
    assert_eq!(unbound.want(ms(3), &mut call), resolve(0));
    let mut broken = Binding::bound('z');
    broken.lost(ms(4), 1, NONE);
    broken.lost(ms(5), 1, NONE);
    assert_eq!(broken.stale(ms(6), 1, &mut Attempt::default()), resolve(0));
}

#[test]
fn jitter_shortens_a_pause_by_half_at_most() {
    assert_eq!(pause(0, Jitter(u16::MAX)), Duration::ZERO);
    assert_eq!(pause(1, Jitter(u16::MAX)), Duration::from_millis(10));
    assert_eq!(pause(u32::MAX, Jitter(u16::MAX)), Duration::from_secs(1));
    assert_eq!(pause(u32::MAX, NONE), Duration::from_secs(2));
    let middle = pause(2, Jitter(u16::MAX / 2));
    assert!(middle > Duration::from_millis(29) && middle < Duration::from_millis(31));
}
#[test]
fn a_binding_follows_an_object_and_is_not_broken() {
    let (mut binding, _) = bound();
    let mut calls = [Attempt::default(); 2];
    assert_eq!(binding.want(ms(2), &mut calls[0]), go(1));
    assert_eq!(binding.want(ms(2), &mut calls[1]), go(1));
    assert_eq!(binding.moved(ms(3), 1, 4, &mut calls[0]), resolve(0));
    assert_eq!(binding.moved(ms(3), 1, 4, &mut calls[1]), Step::Wait);
    assert!(!binding.is_broken(1));
    assert_eq!(binding.resolved(ms(4), &mut calls[0], Ok('b'), NONE), go(2));
    assert_eq!(binding.want(ms(4), &mut calls[1]), go(2));
    assert_eq!(binding.place(), Some(&'b'));
    // One that comes late with the same news goes where the others went.
    let mut late = Attempt::default();
    assert_eq!(binding.moved(ms(5), 1, 4, &mut late), go(2));
    // What breaks then was that binding.
    binding.lost(ms(6), 2, NONE);
    assert!(binding.is_broken(1) && binding.is_broken(2) && !binding.is_broken(3));
}

#[test]
fn a_call_is_not_sent_in_circles() {
    let (mut binding, mut attempt) = bound();
    let failed = Step::Fail(Why::Wandering);
    assert_eq!(binding.moved(ms(1), 1, 3, &mut attempt), resolve(0));
    assert_eq!(binding.resolved(ms(1), &mut attempt, Ok('b'), NONE), go(2));
    let mut hops = 1;
    let mut generation = 2;
    for idle in 0..IDLE_HOPS_MAX {
        // They are the longer apart the more there are.
        let moves = [3, 2, 3, 1][idle as usize % 4];
        let step = binding.moved(ms(1), generation, moves, &mut attempt);
        assert_eq!(step, resolve((1 << idle.min(16)).min(100)));
        hops += 1;
        generation += 1;
        let step = binding.resolved(ms(1), &mut attempt, Ok('b'), NONE);
        assert_eq!(step, go(generation));
    }
    let mut other = attempt;
    assert_eq!(binding.moved(ms(1), generation, 3, &mut other), failed);
    // Nor for ever after one that runs away.
    while binding.moved(ms(1), generation, 3 + u64::from(hops), &mut attempt) != failed {
        hops += 1;
        generation += 1;
        let step = binding.resolved(ms(1), &mut attempt, Ok('c'), NONE);
        assert_eq!(step, go(generation));
    }
    assert_eq!(hops, HOPS_MAX);
    // The next call begins anew.
    let mut next = Attempt::default();
    assert_eq!(binding.moved(ms(1), generation, 3, &mut next), resolve(0));
}

#[test]
fn a_place_that_an_object_has_moved_to_may_be_stale_once() {
    let (mut binding, mut attempt) = bound();
    assert_eq!(binding.stale(ms(1), 1, &mut attempt), resolve(0));
    assert!(binding.is_broken(1), "nothing was there");
    assert_eq!(binding.resolved(ms(1), &mut attempt, Ok('b'), NONE), go(2));
    assert_eq!(binding.moved(ms(1), 2, 1, &mut attempt), resolve(0));
    assert_eq!(binding.resolved(ms(1), &mut attempt, Ok('c'), NONE), go(3));
    assert_eq!(binding.stale(ms(1), 3, &mut attempt), resolve(0));
    assert_eq!(binding.resolved(ms(1), &mut attempt, Ok('d'), NONE), go(4));
    let failed = Step::Fail(Why::NotThere);
    assert_eq!(binding.stale(ms(1), 4, &mut attempt), failed);
}
