//! Who gets a lock and who waits: each rule by itself, then all of them against a naive model.

mod random;

use super::*;
use crate::id::{NodeId, Uid};

/// The `n`-th object.
fn key(n: u64) -> LockKey {
    LockKey::object(Uid {
        node: NodeId(1),
        local: n,
    })
}

/// Owners by their paths: `a.b.c` is nested in `a.b`, in `a`; those of digits are calls.
#[derive(Default)]
struct Names(Vec<String>);

impl Names {
    fn owner(&mut self, name: &str) -> Owner {
        let known = self.0.iter().position(|other| other == name);
        let index = known.unwrap_or(self.0.len()) as u32;
        if known.is_none() {
            self.0.push(name.to_owned());
        }
        if name.starts_with(|c: char| c.is_ascii_digit()) {
            Owner::call(index)
        } else {
            Owner::level(index)
        }
    }

    fn name(&self, owner: Owner) -> &str {
        &self.0[owner.index() as usize]
    }
}

impl Family for Names {
    fn includes(&self, ancestor: Owner, of: Owner) -> bool {
        let (above, below) = (self.name(ancestor), self.name(of));
        let rest = below.strip_prefix(above);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }

    fn root(&self, of: Owner) -> Owner {
        let root = self.name(of).split('.').next();
        let known = self.0.iter().position(|name| Some(name.as_str()) == root);
        Owner::level(known.expect("a script names the root first") as u32)
    }
}

fn letter(mode: Mode) -> char {
    match mode {
        Mode::Read => 'R',
        Mode::Upgrade => 'U',
        Mode::Write => 'W',
    }
}

/// Runs steps, and says for each who has the lock afterwards and who waits, `a:R b:R~|c:W` with
/// `~` for retained. Steps: `a:R`, `a:U`, `a:W` ask, with a `+` behind to pass the queue; `a!`
/// releases, `a>` inherits to the parent, `a?` withdraws its first waiting request; `a=` only
/// names an owner.
struct Script {
    names: Names,
    locks: Locks,
    askers: u32,
}

impl Script {
    fn new() -> Self {
        Self {
            names: Names::default(),
            locks: Locks::default(),
            askers: 0,
        }
    }

    fn step(&mut self, step: &str) -> String {
        let at = step.find([':', '!', '>', '?', '=']).expect("a step");
        let (name, what) = step.split_at(at);
        let owner = self.names.owner(name);
        let waited = self.locks.waiters(key(1)).count();
        let mut granted = Vec::new();
        let (locks, names) = (&mut self.locks, &self.names);
        let mut asks = false;
        match what {
            "!" => locks.release(key(1), owner, names, &mut granted),
            "?" => {
                let mut waiters = locks.waiters(key(1));
                let asker = waiters.find(|r| r.owner == owner).expect("it waits").asker;
                drop(waiters);
                locks.withdraw(key(1), asker, names, &mut granted);
                assert!(!granted.iter().any(|g| g.asker == asker));
            }
            ">" => {
                let parent = name.rsplit_once('.').expect("a nested one").0;
                let parent = self.names.owner(parent);
                locks.inherit(key(1), owner, parent, &self.names, &mut granted);
            }
            "=" => {}
            _ => {
                self.askers += 1;
                let mode = Mode::ALL
                    .into_iter()
                    .find(|m| what[1..].starts_with(letter(*m)));
                let request = Request {
                    owner,
                    asker: Asker(self.askers),
                    mode: mode.expect("a mode"),
                    passes: what.ends_with('+'),
                };
                asks = locks.acquire(key(1), request, names, &mut granted) == Acquired::Waits;
            }
        }
        self.locks.check(&self.names);
        let waits = self.locks.waiters(key(1)).count();
        let left = granted.len() + usize::from(what == "?");
        assert_eq!(waits, waited + usize::from(asks) - left, "after {step}");
        self.state()
    }

    fn state(&self) -> String {
        let mut holders: Vec<String> = self
            .locks
            .holders(key(1))
            .map(|h| {
                let mark = if h.retained { "~" } else { "" };
                format!("{}:{}{mark}", self.names.name(h.owner), letter(h.mode))
            })
            .collect();
        holders.sort_unstable();
        let waiters = self.locks.waiters(key(1));
        let waiters: Vec<String> = waiters
            .map(|r| format!("{}:{}", self.names.name(r.owner), letter(r.mode)))
            .collect();
        format!("{}|{}", holders.join(" "), waiters.join(" "))
    }

    /// Whom the `n`-th in the queue waits for.
    fn blockers(&self, n: usize) -> String {
        let asker = self.locks.waiters(key(1)).nth(n).expect("it waits").asker;
        let mut blockers = Vec::new();
        let locks = &self.locks;
        locks.blockers(key(1), asker, &self.names, &mut blockers);
        let mut names: Vec<&str> = blockers.iter().map(|b| self.names.name(*b)).collect();
        names.sort_unstable();
        names.join(" ")
    }
}

/// Each line is a step and the state after it.
fn check(script: &str) -> Script {
    let mut run = Script::new();
    for line in script
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        let (step, expected) = line.split_once(' ').expect("a step and a state");
        assert_eq!(run.step(step), expected.trim(), "after {step} in {script}");
    }
    run
}

#[test]
fn a_free_lock_is_granted_and_vanishes_when_released() {
    let run = check(
        "a:R  a:R|
         a!   |",
    );
    assert!(run.locks.is_empty());
}

#[test]
fn readers_share_with_one_upgrader_and_a_writer_is_alone() {
    check(
        "a:R  a:R|
         b:U  a:R b:U|
         c:R  a:R b:U c:R|
         d:U  a:R b:U c:R|d:U
         e:W  a:R b:U c:R|d:U e:W
         b!   a:R c:R d:U|e:W
         a!   c:R d:U|e:W
         c!   d:U|e:W
         d!   e:W|
         f:R  e:W|f:R
         g:U  e:W|f:R g:U
         e!   f:R g:U|",
    );
}

#[test]
fn a_waiting_writer_is_not_overtaken_by_strangers() {
    let run = check(
        "1:R  1:R|
         2:W  1:R|2:W
         3:R  1:R|2:W 3:R
         b:R  1:R|2:W 3:R b:R",
    );
    assert_eq!([0, 1, 2].map(|n| run.blockers(n)), ["1", "2", "2"]);
}

#[test]
fn who_stands_behind_a_withdrawn_writer_goes_on() {
    check(
        "1:R  1:R|
         2:W  1:R|2:W
         3:R  1:R|2:W 3:R
         4:W  1:R|2:W 3:R 4:W
         5:R  1:R|2:W 3:R 4:W 5:R
         2?   1:R 3:R|4:W 5:R
         4?   1:R 3:R 5:R|",
    );
}

#[test]
fn a_waiting_upgrader_is_in_no_readers_way() {
    check(
        "1:U  1:U|
         2:U  1:U|2:U
         3:R  1:U 3:R|2:U",
    );
}

#[test]
fn a_stronger_mode_converts_and_waits_in_front() {
    let run = check(
        "a:U  a:U|
         b:R  a:U b:R|
         c:W  a:U b:R|c:W
         a:W  a:U b:R|a:W c:W
         d:R  a:U b:R|a:W c:W d:R",
    );
    assert_eq!([0, 1].map(|n| run.blockers(n)), ["b", "a b"]);
    let mut run = run;
    assert_eq!(run.step("b!"), "a:W|c:W d:R");
    assert_eq!(run.step("a:R"), "a:W|c:W d:R", "present");
    assert_eq!(run.step("a!"), "c:W|d:R");
}

#[test]
fn two_readers_that_both_convert_wait_for_each_other() {
    let run = check(
        "a:R  a:R|
         b:R  a:R b:R|
         a:W  a:R b:R|a:W
         b:W  a:R b:R|a:W b:W",
    );
    assert_eq!([0, 1].map(|n| run.blockers(n)), ["b", "a"]);
    let mut run = run;
    assert_eq!(run.step("b?"), "a:R b:R|a:W");
    assert_eq!(run.step("b!"), "a:W|");
}

#[test]
fn an_ancestors_lock_is_no_obstacle_but_a_siblings_is() {
    let run = check(
        "a:W      a:W|
         a.b:W    a.b:W a:W|
         a.b.c:R  a.b.c:R a.b:W a:W|
         a.d:R    a.b.c:R a.b:W a:W|a.d:R
         e:R      a.b.c:R a.b:W a:W|a.d:R e:R",
    );
    assert_eq!([0, 1].map(|n| run.blockers(n)), ["a.b", "a a.b"]);
}

#[test]
fn a_commit_hands_the_stronger_mode_to_the_parent_which_retains_it() {
    check(
        "a=       |
         a.b:R    a.b:R|
         a.b>     a:R~|
         a.c:W    a.c:W a:R~|
         a.d:W    a.c:W a:R~|a.d:W
         a.c>     a.d:W a:W~|
         a.d!     a:W~|
         e:R      a:W~|e:R
         a:R      a:W|e:R
         a!       e:R|",
    );
}

#[test]
fn a_parent_waits_for_what_its_running_child_changes() {
    let run = check(
        "a:W    a:W|
         a.b:W  a.b:W a:W|
         a:R    a.b:W a:W|a:R",
    );
    assert_eq!(run.blockers(0), "a.b");
    let mut run = run;
    assert_eq!(run.step("a.b!"), "a:W|");
}

#[test]
fn relatives_pass_whoever_waits_for_them_anyway() {
    // A descendant of a holder.
    check(
        "a:R      a:R|
         b:W      a:R|b:W
         a.c:R    a.c:R a:R|b:W
         a.c:W    a.c:W a:R|b:W",
    );
    // A sibling of one: b waits for a's end, whatever a.d does.
    check(
        "a=     |
         a.c:R  a.c:R|
         b:W    a.c:R|b:W
         a.d:R  a.c:R a.d:R|b:W",
    );
    // A sibling of one that waits: b waits for a's end behind it.
    let run = check(
        "a=     |
         h:R    h:R|
         a.c:W  h:R|a.c:W
         b:W    h:R|a.c:W b:W
         g:W    h:R|a.c:W b:W g:W
         a.d:R  h:R|a.c:W b:W g:W a.d:R",
    );
    assert_eq!([0, 1, 3].map(|n| run.blockers(n)), ["h", "a.c h", "a.c"]);
    let mut run = run;
    assert_eq!(run.step("h!"), "a.c:W|b:W g:W a.d:R");
    assert_eq!(run.step("a.c>"), "a.d:R a:W~|b:W g:W");
}

#[test]
fn nobody_stands_behind_an_ancestor() {
    check(
        "a=     |
         h:R    h:R|
         a:W    h:R|a:W
         a.b:R  a.b:R h:R|a:W
         h!     a.b:R|a:W
         a.b>   a:W|",
    );
}

#[test]
fn a_call_that_its_object_waits_for_passes_the_queue() {
    check(
        "a:R    a:R|
         b:W    a:R|b:W
         c:R    a:R|b:W c:R
         d:R+   a:R d:R|b:W c:R
         e:W+   a:R d:R|b:W c:R e:W
         a!     d:R|b:W c:R e:W
         d!     b:W|c:R e:W",
    );
}

#[test]
fn an_owner_that_gets_the_lock_converts_with_what_it_waits_for() {
    let run = check(
        "h:W  h:W|
         b:W  h:W|b:W
         a:W  h:W|b:W a:W
         a:R  h:W|b:W a:W a:R
         h!   b:W|a:W a:R
         b!   a:W|",
    );
    assert_eq!(run.locks.holders(key(1)).count(), 1);
    check(
        "h:U  h:U|
         g:R  g:R h:U|
         b:U  g:R h:U|b:U
         a:W  g:R h:U|b:U a:W
         a:R  a:R g:R h:U|a:W b:U
         g!   a:R h:U|a:W b:U
         h!   a:W|b:U",
    );
    // A child of it stood behind b, and passes as soon as its parent has the lock.
    check(
        "a=     |
         h:R    h:R|
         b:W    h:R|b:W
         a.c:R  h:R|b:W a.c:R
         a:R+   a.c:R a:R h:R|b:W",
    );
}

#[test]
fn grants_say_what_they_did() {
    let mut locks = Locks::default();
    let mut ask = |owner, mode| {
        let request = Request {
            owner,
            asker: Asker(0),
            mode,
            passes: false,
        };
        locks.acquire(key(1), request, &Strangers, &mut Vec::new())
    };
    let a = Owner::level(0);
    assert_eq!(ask(a, Mode::Read), Acquired::Granted(Grant::Fresh));
    assert_eq!(ask(a, Mode::Upgrade), Acquired::Granted(Grant::Converted));
    assert_eq!(ask(a, Mode::Read), Acquired::Granted(Grant::Present));
    assert_eq!(ask(Owner::call(0), Mode::Write), Acquired::Waits);
    let mut granted = Vec::new();
    locks.release(key(1), a, &Strangers, &mut granted);
    let expected = Granted {
        asker: Asker(0),
        owner: Owner::call(0),
        grant: Grant::Fresh,
    };
    assert_eq!(granted, [expected]);
}

#[test]
fn locks_of_parts_and_rows_are_apart() {
    let mut locks = Locks::seeded(3);
    let row = LockKey {
        part: 1,
        row: 7,
        ..key(1)
    };
    for (n, key) in [(1, key(1)), (2, row), (3, key(2))] {
        let request = Request {
            owner: Owner::call(n),
            asker: Asker(n),
            mode: Mode::Write,
            passes: false,
        };
        let acquired = locks.acquire(key, request, &Strangers, &mut Vec::new());
        assert_eq!(acquired, Acquired::Granted(Grant::Fresh));
    }
    assert_eq!((locks.len(), locks.keys().count()), (3, 3));
    locks.check(&Strangers);
}

#[test]
fn who_had_a_lock_elsewhere_has_it_here_when_whoever_was_in_the_way_goes() {
    let mut script = Script::new();
    for step in ["m:W", "a=", "a.b:W", "c:R", "a:W"] {
        script.step(step);
    }
    let bring = |script: &mut Script, name: &str, mode, retained| {
        let owner = script.names.owner(name);
        let holding = Holding {
            owner,
            mode,
            retained,
        };
        script.locks.bring(key(1), holding, &script.names);
    };
    bring(&mut script, "a", Mode::Write, true);
    assert_eq!(
        script.state(),
        "a:W~ m:W|a:W a.b:W c:R",
        "its own goes first"
    );
    assert_eq!(script.step("m!"), "a.b:W a:W|c:R");
    script.step("a.b!");
    script.step("a!");
    assert_eq!(script.step("c!"), "|");
    bring(&mut script, "c", Mode::Read, false);
    assert_eq!(script.step("d:R"), "c:R d:R|");
}
