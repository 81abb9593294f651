//! Who may run at the same time: every state and request.

use super::*;
use crate::id::{NodeId, Uid};

fn key() -> LockKey {
    LockKey::object(Uid {
        node: NodeId(1),
        local: 1,
    })
}

/// Runs steps such as `a:R` (ask for a read), `a!` (release), `a?` (withdraw), and says for
/// each who holds the lock afterwards and who waits: `a b|c`.
fn check(script: &str, expect: &[&str]) {
    let mut table = LockTable::default();
    let mut states = Vec::new();
    for step in script.split_whitespace() {
        let owner = Owner(u64::from(step.as_bytes()[0]));
        let before: Vec<Owner> = table.holders(key()).map(|(owner, _)| owner).collect();
        let mut granted = Vec::new();
        match &step[1..] {
            ":R" | ":W" => {
                let mode = if step.ends_with('R') {
                    Mode::Read
                } else {
                    Mode::Write
                };
                if table.acquire(key(), owner, mode) == Acquired::Granted {
                    granted.push(owner);
                }
            }
            "!" => table.release(key(), owner, &mut granted),
            "?" => table.withdraw(key(), owner, &mut granted),
            other => panic!("unknown step {other}"),
        }
        table.check();
        let names = |owners: Vec<Owner>| {
            let names = owners
                .iter()
                .map(|owner| char::from(owner.0 as u8).to_string());
            names.collect::<Vec<_>>().join(" ")
        };
        let mut holders: Vec<Owner> = table.holders(key()).map(|(owner, _)| owner).collect();
        holders.sort_unstable();
        let mut told: Vec<Owner> = before
            .into_iter()
            .filter(|o| step != format!("{}!", o.0 as u8 as char))
            .collect();
        told.extend(granted);
        told.sort_unstable();
        assert_eq!(holders, told, "who got it was told so, after {step}");
        let waiters = table.waiters(key()).map(|(owner, _)| owner).collect();
        states.push(format!("{}|{}", names(holders), names(waiters)));
    }
    assert_eq!(states, expect, "{script}");
}

#[test]
fn a_free_lock_is_granted_and_vanishes_when_released() {
    check("a:R a!", &["a|", "|"]);
    check("a:W a!", &["a|", "|"]);
    assert!(LockTable::default().is_empty());
}

#[test]
fn readers_share_and_writers_do_not() {
    check("a:R b:R c:W", &["a|", "a b|", "a b|c"]);
    check("a:W b:R c:W", &["a|", "a|b", "a|b c"]);
}

#[test]
fn a_waiting_writer_is_not_overtaken() {
    check(
        "a:R b:W c:R a! b! c!",
        &["a|", "a|b", "a|b c", "b|c", "c|", "|"],
    );
}

#[test]
fn readers_in_a_row_are_granted_together() {
    check(
        "a:W b:R c:R d:W e:R a! b! c! d! e!",
        &[
            "a|",
            "a|b",
            "a|b c",
            "a|b c d",
            "a|b c d e",
            "b c|d e",
            "c|d e",
            "d|e",
            "e|",
            "|",
        ],
    );
}

#[test]
fn who_stands_behind_a_withdrawn_writer_goes_on() {
    check(
        "a:R b:W c:R d:R b?",
        &["a|", "a|b", "a|b c", "a|b c d", "a c d|"],
    );
    check(
        "a:R b:W c:R d:W c?",
        &["a|", "a|b", "a|b c", "a|b c d", "a|b d"],
    );
    check("a:W b:W c:R b?", &["a|", "a|b", "a|b c", "a|c"]);
}

#[test]
fn locks_of_parts_and_rows_are_apart() {
    let mut table = LockTable::default();
    let row = LockKey {
        part: 1,
        row: 7,
        ..key()
    };
    assert_eq!(
        table.acquire(key(), Owner(1), Mode::Write),
        Acquired::Granted
    );
    assert_eq!(table.acquire(row, Owner(2), Mode::Write), Acquired::Granted);
    assert_eq!(table.len(), 2);
}
