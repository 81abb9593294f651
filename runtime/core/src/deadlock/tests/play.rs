//! Random families of actions over random objects.
//!
//! A family has a root and up to three branches that run at the same time; a branch takes locks
//! one after the other, in nested actions and in top-level actions within, and lets them go at
//! the end. The oracle judges every refusal, and that none is missing.

use std::collections::BTreeMap;
use std::time::Duration;

use super::cluster::{Cluster, Heard, Refused, Rng, Weather};
use super::oracle::Oracle;
use super::world::{Asked, Table, Use};
use crate::action::message::Party;
use crate::action::path::Path;
use crate::deadlock::{DOOMED_FOR, HEARD_FOR, Rule};
use crate::id::{NodeId, Uid};
use crate::time::Time;

/// What a branch does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Lock { object: usize, write: bool },
    Nest,
    Top,
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Runs,
    Waits {
        at: usize,
        object: Uid,
        number: u64,
    },
    /// Its call was refused; what it has to abort is not aborted yet.
    Refused,
    Done,
}

#[derive(Debug)]
struct Branch {
    family: usize,
    /// Each within the one before.
    levels: Vec<Path>,
    plan: Vec<Op>,
    next: usize,
    state: State,
    /// Steps that were planned for it; only the last one counts.
    steps: u64,
}

impl Branch {
    fn path(&self) -> &Path {
        self.levels.last().expect("a branch is in some action")
    }

    fn is_inside(&self, action: Uid) -> bool {
        self.state != State::Done && self.path().whole().contains(&action)
    }

    fn waits_under(&self, wait: u64) -> bool {
        matches!(self.state, State::Waits { number, .. } if number == wait)
    }
}

#[derive(Debug)]
struct Family {
    root: Party,
    open: usize,
}

#[derive(Clone, Copy, Debug)]
enum Happens {
    Step(usize, u64),
    Abort(Uid),
    Cancel { at: usize, object: Uid, number: u64 },
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) nodes: u64,
    pub(super) shards: u16,
    pub(super) objects: usize,
    pub(super) families: usize,
    pub(super) at_once: usize,
    pub(super) weather: Weather,
    /// So many of a thousand waits are given up by their callers.
    pub(super) cancelled_per_mille: u64,
    /// Within this time something is done about a deadlock.
    pub(super) patience: Duration,
    pub(super) rule: Option<Rule>,
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum {
    pub(super) waits: u64,
    pub(super) victims: u64,
    /// Refused although somebody else had broken the cycle since it was confirmed.
    pub(super) late: u64,
    pub(super) sent: u64,
}

pub(super) struct Play {
    plan: Plan,
    cluster: Cluster<Table>,
    oracle: Oracle,
    rng: Rng,
    families: Vec<Family>,
    branches: Vec<Branch>,
    agenda: BTreeMap<(Time, u64), Happens>,
    counter: u64,
    sum: Sum,
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl Play {
    pub(super) fn new(plan: Plan, seed: u64) -> Self {
        let mut cluster = Cluster::new(plan.nodes, plan.shards, seed, plan.rule);
        cluster.weather = plan.weather;
        Self {
            plan,
            cluster,
            oracle: Oracle::default(),
            rng: Rng::new(seed + 1_000_000),
            families: Vec::new(),
            branches: Vec::new(),
            agenda: BTreeMap::new(),
            counter: 0,
            sum: Sum::default(),
        }
    }

    pub(super) fn run(mut self) -> Sum {
        for _ in 0..self.plan.at_once {
            self.begin_family();
        }
        loop {
            let stuck = self.oracle.stuck() > 0;
            let message = self.cluster.next();
            let planned = self.agenda.first_key_value().map(|((at, _), _)| *at);
            match (planned, message) {
                (None, Some(message)) if stuck => self.run_until(message),
                (None, _) => break,
                (Some(planned), Some(message)) if message <= planned => self.run_until(message),
                (Some(planned), _) => self.happen(planned),
            }
        }
        self.end()
    }

    fn happen(&mut self, at: Time) {
        self.cluster.now = self.cluster.now.max(at);
        let (_, happens) = self.agenda.pop_first().expect("something is planned");
        match happens {
            Happens::Step(branch, number) => self.step(branch, number),
            Happens::Abort(victim) => self.abort(victim),
            Happens::Cancel { at, object, number } => self.cancel(at, object, number),
        }
        self.look();
    }

    /// All have ended; what detectors still know goes by itself.
    fn end(mut self) -> Sum {
        assert_eq!(self.families.len(), self.plan.families);
        let over = self.families.iter().all(|family| family.open == 0);
        assert!(over, "{}", self.oracle.describe(&self.cluster));
        assert!(self.cluster.tables.iter().all(Table::is_free));
        self.run_until(self.cluster.now.after(HEARD_FOR + DOOMED_FOR + ms(2_000)));
        for detector in &self.cluster.detectors {
            assert_eq!(detector.waits().count(), 0);
            assert_eq!(detector.home_sizes(), [0; 3]);
            assert_eq!(detector.next_timeout(), None);
        }
        self.sum.sent = self.cluster.sent;
        self.sum
    }

    fn run_until(&mut self, until: Time) {
        while let Some(next) = self.cluster.next().filter(|next| *next <= until) {
            self.cluster.now = next;
            self.cluster.step();
            self.look();
        }
        self.cluster.now = until;
    }

    /// After anything that happened: refusals are carried out, and the oracle looks.
    fn look(&mut self) {
        loop {
            self.oracle.look(&self.cluster);
            let Some(refused) = self.cluster.refused.pop() else {
                break;
            };
            self.refuse(refused);
        }
        let now = self.cluster.now;
        self.oracle
            .forget(Time(now.0.saturating_sub(10_000_000_000)));
        if let Some(since) = self.oracle.idle_since {
            let late = since.after(self.plan.patience);
            assert!(
                now <= late,
                "stuck since {since:?}, now it is {now:?}: {}",
                self.oracle.describe(&self.cluster)
            );
        }
    }

    fn refuse(&mut self, refused: Refused) {
        let waits = |branch: &Branch| branch.waits_under(refused.number);
        // By the same event it may have been refused as a re-entry.
        let Some(branch) = self.branches.iter().position(waits) else {
            return;
        };
        self.sum.victims += 1;
        let holds = self.oracle.judge(self.cluster.now, &refused);
        self.sum.late += u64::from(!holds);
        self.withdraw(branch);
        self.branches[branch].state = State::Refused;
        let delay = ms(self.rng.below(20));
        self.later(delay, Happens::Abort(refused.victim));
        self.moved_on();
    }

    /// Something is done about who is stuck.
    fn moved_on(&mut self) {
        self.oracle.idle_since = None;
    }

    fn later(&mut self, delay: Duration, happens: Happens) {
        self.counter += 1;
        let at = self.cluster.now.after(delay);
        self.agenda.insert((at, self.counter), happens);
    }

    fn name(&mut self) -> Uid {
        self.counter += 1;
        Uid {
            node: NodeId(0),
            local: 1_000_000 + self.counter,
        }
    }

    fn begin_family(&mut self) {
        if self.families.len() == self.plan.families {
            return;
        }
        let family = self.families.len();
        let path = Path::top(self.name());
        let born_ms = self.cluster.now.0 / 1_000_000 / 10;
        let home = NodeId(self.rng.range(1, self.plan.nodes));
        let count = self.rng.range(1, 3) as usize;
        for number in 0..count {
            let base = if number == 0 {
                path.clone()
            } else {
                path.nested(self.name())
            };
            let plan = self.plan_of_branch();
            self.branches.push(Branch {
                family,
                levels: vec![base],
                plan,
                next: 0,
                state: State::Runs,
                steps: 0,
            });
            self.go_on(self.branches.len() - 1);
        }
        self.families.push(Family {
            root: Party {
                path,
                home,
                born_ms,
            },
            open: count,
        });
    }

    fn plan_of_branch(&mut self) -> Vec<Op> {
        let (mut plan, mut depth) = (Vec::new(), 0);
        for _ in 0..self.rng.range(1, 4) {
            match self.rng.below(6) {
                0 | 1 if depth < 3 => {
                    plan.push(Op::Nest);
                    depth += 1;
                }
                2 if depth < 3 => {
                    plan.push(Op::Top);
                    depth += 1;
                }
                3 if depth > 0 => {
                    plan.push(Op::End);
                    depth -= 1;
                }
                _ => {}
            }
            let object = self.rng.below(self.plan.objects as u64) as usize;
            let write = self.rng.chance(600);
            plan.push(Op::Lock { object, write });
        }
        plan.extend((0..depth).map(|_| Op::End));
        plan
    }

    fn step(&mut self, at: usize, number: u64) {
        let branch = &mut self.branches[at];
        if branch.state != State::Runs || branch.steps != number {
            return;
        }
        let Some(op) = branch.plan.get(branch.next).copied() else {
            return self.branch_done(at, true);
        };
        branch.next += 1;
        let path = branch.path().clone();
        match op {
            Op::Lock { object, write } => return self.lock(at, object, write),
            Op::Nest => {
                let name = self.name();
                self.branches[at].levels.push(path.nested(name));
            }
            Op::Top => {
                let name = self.name();
                self.branches[at].levels.push(path.top_level(name));
            }
            Op::End => self.end_level(at),
        }
        self.go_on(at);
    }

    fn go_on(&mut self, at: usize) {
        let delay = Duration::from_micros(self.rng.below(10_000));
        self.branches[at].steps += 1;
        self.later(delay, Happens::Step(at, self.branches[at].steps));
    }

    /// The innermost level of a branch commits.
    fn end_level(&mut self, at: usize) {
        let path = self.branches[at].levels.pop().expect("a level ends");
        let outer = self.branches[at].path().clone();
        if path.own().len() == 1 {
            self.release(|owner| *owner == path);
        } else {
            self.inherit(&path, &outer);
        }
    }

    fn lock(&mut self, at: usize, object: usize, write: bool) {
        let branch = &self.branches[at];
        let party = Party {
            path: branch.path().clone(),
            ..self.families[branch.family].root.clone()
        };
        let site = object % self.cluster.sites.len();
        let object = object_uid(object);
        self.counter += 1;
        let number = self.counter;
        let asked = Use {
            number,
            party: party.clone(),
            write,
        };
        let (asked, granted) = self.cluster.tables[site].ask(object, asked);
        let granted: Vec<_> = granted.into_iter().map(|one| (object, one)).collect();
        match asked {
            Asked::Granted => {
                self.lock_moved(site, object, &party.path);
                self.go_on(at);
            }
            Asked::Waits => {
                self.sum.waits += 1;
                self.branches[at].state = State::Waits {
                    at: site,
                    object,
                    number,
                };
                self.tell(site, &mut |detector, now, table, acts| {
                    detector.wait_began(now, (number, object), party.clone(), table, acts);
                });
                if self.rng.chance(self.plan.cancelled_per_mille) {
                    let delay = ms(self.rng.below(400));
                    let at = site;
                    self.later(delay, Happens::Cancel { at, object, number });
                }
            }
            Asked::Reentrant => {
                let victim = party.path.own()[0];
                self.branches[at].state = State::Refused;
                self.later(Duration::ZERO, Happens::Abort(victim));
            }
        }
        self.granted(site, granted);
    }

    fn tell(&mut self, at: usize, what: Heard<'_, Table>) {
        self.cluster.tell(at, what);
        // The rest of this event may change what the refusal was for.
        if !self.cluster.refused.is_empty() {
            self.oracle.look(&self.cluster);
        }
    }

    fn lock_moved(&mut self, at: usize, object: Uid, owner: &Path) {
        // Who waits may be inside of the new owner: that is none of the detector's business.
        for one in self.cluster.tables[at].reentrant() {
            let waits = |branch: &Branch| branch.waits_under(one.number);
            let Some(branch) = self.branches.iter().position(waits) else {
                continue;
            };
            self.withdraw(branch);
            self.branches[branch].state = State::Refused;
            let victim = one.party.path.own()[0];
            self.later(Duration::ZERO, Happens::Abort(victim));
        }
        if self.cluster.tables[at].waits_for(object) {
            self.tell(at, &mut |detector, now, table, acts| {
                detector.lock_moved(now, object, owner, table, acts);
            });
        }
    }

    fn granted(&mut self, at: usize, granted: Vec<(Uid, Use)>) {
        for (_, one) in &granted {
            self.tell(at, &mut |detector, now, table, acts| {
                detector.wait_ended(now, one.number, table, acts);
            });
        }
        for (object, one) in granted {
            self.lock_moved(at, object, &one.party.path);
            let waits = |branch: &Branch| branch.waits_under(one.number);
            let branch = self.branches.iter().position(waits);
            let branch = branch.expect("only who waits gets on");
            self.branches[branch].state = State::Runs;
            self.go_on(branch);
        }
    }

    fn withdraw(&mut self, at: usize) {
        let State::Waits {
            at: site,
            object,
            number,
        } = self.branches[at].state
        else {
            return;
        };
        let granted = self.cluster.tables[site].withdraw(object, number);
        self.tell(site, &mut |detector, now, table, acts| {
            detector.wait_ended(now, number, table, acts);
        });
        let granted = granted.into_iter().map(|one| (object, one)).collect();
        self.granted(site, granted);
    }

    fn release(&mut self, gone: impl Fn(&Path) -> bool) {
        for site in 0..self.cluster.sites.len() {
            let granted = self.cluster.tables[site].release(&gone);
            self.granted(site, granted);
        }
    }

    fn inherit(&mut self, child: &Path, parent: &Path) {
        for site in 0..self.cluster.sites.len() {
            let (granted, moved) = self.cluster.tables[site].inherit(child, parent);
            self.granted(site, granted);
            for object in moved {
                self.lock_moved(site, object, parent);
            }
        }
    }

    /// A caller waits no more: its innermost action is aborted.
    fn cancel(&mut self, at: usize, object: Uid, number: u64) {
        let state = State::Waits { at, object, number };
        let Some(branch) = self.branches.iter().position(|one| one.state == state) else {
            return;
        };
        let victim = *self.branches[branch].path().whole().last().unwrap();
        self.abort(victim);
        self.moved_on();
    }

    /// An action and all inside of it never happened.
    fn abort(&mut self, victim: Uid) {
        self.moved_on();
        let all = 0..self.branches.len();
        let inside = all.filter(|at| self.branches[*at].is_inside(victim));
        let inside: Vec<usize> = inside.collect();
        for at in &inside {
            self.withdraw(*at);
            self.branches[*at].state = State::Refused;
        }
        self.release(|owner| owner.whole().contains(&victim));
        for at in inside {
            self.leave(at, victim);
        }
    }

    /// A branch goes on behind the end of what was aborted.
    fn leave(&mut self, at: usize, victim: Uid) {
        let branch = &mut self.branches[at];
        if branch.levels[0].whole().contains(&victim) {
            return self.branch_done(at, false);
        }
        let mut left = 0;
        while branch.is_inside(victim) {
            branch.levels.pop();
            left += 1;
        }
        while left > 0 {
            match branch.plan[branch.next] {
                Op::Nest | Op::Top => left += 1,
                Op::End => left -= 1,
                Op::Lock { .. } => {}
            }
            branch.next += 1;
        }
        branch.state = State::Runs;
        self.go_on(at);
    }

    fn branch_done(&mut self, at: usize, commits: bool) {
        let branch = &mut self.branches[at];
        branch.state = State::Done;
        let (family, base) = (branch.family, branch.levels[0].clone());
        let root = self.families[family].root.path.clone();
        if commits && base != root {
            self.inherit(&base, &root);
        }
        self.families[family].open -= 1;
        if self.families[family].open == 0 {
            self.release(|owner| *owner == root);
            self.begin_family();
        }
    }
}

fn object_uid(number: usize) -> Uid {
    Uid {
        node: NodeId(7),
        local: number as u64,
    }
}
