//! The checks behind [`crate::invariants`].

use super::Engine;
use super::work::Work;
use crate::action::mirror::Phase;
use crate::call::{Leader, Role, Stage};
use crate::input::Job;
use crate::lock::locks::Owner;
use crate::migrate::{arrivals, departures};
use crate::slab::Slot;

impl Engine {
    /// Panics if an invariant does not hold; [`crate::invariants`] lists them.
    pub(crate) fn check(&self) {
        self.calls.check(&self.limits);
        self.objects.check(&self.limits);
        self.locks
            .check(&super::locking::kin(&self.mirrors, self.mutation));
        self.uses.check();
        self.incarnations.check();
        self.mirrors.check();
        self.decisions.check();
        self.cohorts.check();
        self.detector.check();
        assert!(
            self.acts.is_empty(),
            "a decision about a wait was not carried out"
        );
        self.tombstones.check(self.limits.tombstones_max);
        assert!(
            self.uses.len() <= self.limits.uses_max as usize,
            "too many bindings"
        );
        assert!(
            self.incarnations.len() <= self.limits.peers_max as usize,
            "too many callers"
        );
        self.check_settled();
        self.check_calls_of_objects();
        self.check_levels();
        self.check_jobs();
        self.check_moves();
    }

    /// Searching calls aside, every call belongs to an object, and has its lock if it must.
    fn check_calls_of_objects(&self) {
        let (mut holders, mut attached) = (0, 0);
        for (slot, call) in self.calls.iter() {
            let Role::Leader(leader) = &call.role else {
                continue;
            };
            if leader.object == Slot::NONE {
                continue;
            }
            attached += 1;
            let object = self.objects.entry(leader.object);
            let ticket = call.ticket;
            assert!(object.uid == leader.uid, "{ticket:?} is at another object");
            let own = Owner::call(slot.0);
            let key = Self::lock_key(leader.uid);
            let holds = self.locks.holding(key, own).is_some();
            let must = Self::must_hold(leader.stage) && !leader.traits.action;
            assert!(holds == must, "{ticket:?} has a wrong lock");
            holders += usize::from(holds);
            self.check_call(slot, leader);
        }
        let (mut calls, mut locked) = (0, 0);
        for (_, object) in self.objects.iter() {
            calls += object.calls as usize;
            let key = Self::lock_key(object.uid);
            let own = |owner: &Owner| !owner.is_level();
            let held = self.locks.holders(key).map(|holding| holding.owner);
            let outside = held.filter(own).count();
            locked += outside;
            let levels = self.locks.holders(key).count() - outside;
            assert!(
                levels == object.held as usize,
                "{} is miscounted",
                object.uid
            );
            let waits = self.locks.waiters(key).count();
            assert!(
                waits == object.parked as usize,
                "{} is miscounted",
                object.uid
            );
        }
        // A move counts as a call of its object.
        let calls_of_moves = self.departures.len();
        assert!(
            attached + calls_of_moves == calls,
            "calls of objects are miscounted"
        );
        assert!(holders == locked, "a lock is held by nobody");
    }

    /// A call in an action is at its object's gate, and its level has the lock, if it must.
    fn check_call(&self, slot: Slot, leader: &Leader) {
        let queued = leader.stage == Stage::Queued;
        assert!(leader.parked == queued, "{slot:?} waits, or not");
        let object = self.objects.entry(leader.object);
        let gate = object.gate.as_ref();
        let inside = gate.is_some_and(|gate| gate.inside().any(|at| at == slot));
        let before = gate.is_some_and(|gate| gate.queue().any(|at| at == slot));
        let (in_stage, before_stage) = match leader.stage {
            Stage::Granted | Stage::Running => (leader.traits.action, false),
            Stage::Gated => (false, true),
            Stage::Searching | Stage::Queued | Stage::Flushing { .. } => (false, false),
        };
        assert!(inside == in_stage, "{slot:?} is inside, or not");
        assert!(before == before_stage, "{slot:?} is at the gate, or not");
        let Some(level) = leader.in_level() else {
            return;
        };
        let level = self.mirrors.level(level);
        assert!(
            level.calls.contains(&slot),
            "{slot:?} is no call of its level"
        );
        let released = self.mutation == super::Mutation::UnlockAfterCall;
        if (inside || before) && !released {
            let locked = level.locks.contains_key(&leader.uid);
            assert!(locked, "{slot:?} is inside without its level's lock");
        }
    }

    /// Every lock of a level is in the lock table, and the other way round; what a level has
    /// changed is in memory, and it has it to itself.
    fn check_levels(&self) {
        let mut of_levels = 0;
        for (slot, level) in self.mirrors.levels() {
            let owner = Owner::level(slot.0);
            let mirror = self.mirrors.mirror(level.mirror);
            of_levels += level.locks.len();
            for uid in level.locks.keys() {
                let holding = self.locks.holding(Self::lock_key(*uid), owner);
                assert!(holding.is_some(), "{} has not locked {uid}", level.uid);
            }
            for (uid, before) in &level.images {
                assert!(level.locks.contains_key(uid), "{uid} is not locked");
                assert!(!mirror.stored_only, "{uid} has an image, or not");
                let object = self.objects.slot(*uid).map(|slot| self.objects.entry(slot));
                let image = object.map(|object| object.image);
                let here = image == Some(crate::activation::Image::Active);
                assert!(here || !before.changed, "{uid} is changed but {image:?}");
            }
            for call in &level.calls {
                let known = self.calls.leader(*call).in_level() == Some(slot);
                assert!(known, "{call:?} is of another level");
            }
        }
        let keys = self.locks.keys();
        let holders = keys.flat_map(|key| self.locks.holders(key));
        let held = holders.filter(|holding| holding.owner.is_level()).count();
        assert!(held == of_levels, "a lock is held by no level");
        for (_, mirror) in self.mirrors.iter() {
            let levels = mirror.levels <= self.limits.levels_max;
            assert!(levels, "too many nested actions in {}", mirror.uid());
        }
    }

    /// Objects that leave are marked so, and every pin is of a move that has not ended.
    fn check_moves(&self) {
        let leaving = self
            .objects
            .iter()
            .filter(|(_, object)| object.is_leaving());
        assert!(
            leaving.count() == self.departures.len(),
            "an object leaves by no move"
        );
        let max = self.limits.moves_max as usize;
        let moves = self.departures.len() <= max && self.arrivals.len() <= max;
        assert!(moves, "too many moves");
        let mut pins = 0;
        for (action, departure) in self.departures.iter() {
            let object = self.objects.entry(departure.object);
            let marked = object.uid == departure.uid && object.is_leaving();
            assert!(marked, "{action} moves another object");
            let waits = match departure.state {
                departures::State::Waiting => departure.pinned.is_empty(),
                departures::State::Shipping => true,
                departures::State::Deciding { job } => {
                    self.jobs.get(&job) == Some(&Work::Depart(action))
                }
            };
            assert!(waits, "{action} waits for nothing, or too much");
            pins += departure.pinned.len();
        }
        for (action, arrival) in &self.arrivals.rows {
            let prepared = self.mirrors.find(*action);
            let prepared = prepared.is_some_and(|at| self.mirrors.mirror(at).is_prepared());
            match &arrival.state {
                arrivals::State::Waiting => assert!(!prepared, "{action} waits, prepared"),
                arrivals::State::Expected => assert!(prepared, "{action} is not prepared"),
                arrivals::State::Unloaded { pinned, .. } => {
                    assert!(prepared, "{action} is not prepared");
                    pins += pinned.len();
                }
            }
        }
        let counted = self.mirrors.levels().map(|(_, level)| level.pins as usize);
        assert!(counted.sum::<usize>() == pins, "pins are miscounted");
        for action in self.late.keys() {
            let found = self.mirrors.find(*action);
            let pinned = found.is_some_and(|at| self.mirrors.mirror(at).pins > 0);
            assert!(pinned, "{action} waits for no move");
        }
    }

    /// Whoever waits for the store is waited for by it.
    fn check_jobs(&self) {
        let job_of = |job: &Job| self.jobs.get(job);
        for (_, mirror) in self.mirrors.iter() {
            let uid = mirror.uid();
            let waits = match &mirror.phase {
                Phase::Preparing { job, .. } => match mirror.part {
                    Some(object) => job_of(job) == Some(&Work::PreparePart(uid, object)),
                    None => job_of(job) == Some(&Work::Prepare(uid)),
                },
                Phase::Installing { job, .. } => job_of(job) == Some(&Work::Install(uid)),
                Phase::Deciding { job, .. } => job_of(job) == Some(&Work::Decide(uid, mirror.part)),
                Phase::Active | Phase::Aborting | Phase::Prepared { .. } | Phase::Voting(_) => true,
            };
            assert!(waits, "{uid} waits for nothing");
        }
        let searches = self.jobs.values().filter(|work| match work {
            Work::Search(action, decider) => self.searches.contains_key(&(*action, *decider)),
            Work::Prepare(_)
            | Work::PreparePart(..)
            | Work::Checkpoint(_)
            | Work::TellOut(..)
            | Work::Depart(_)
            | Work::Decide(..)
            | Work::Install(_)
            | Work::Undo(..)
            | Work::Settle(..) => false,
        });
        assert!(searches.count() == self.searches.len(), "a search is lost");
        for (job, object) in self.cohorts.under_way() {
            let waits = job_of(&job) == Some(&Work::Checkpoint(object));
            assert!(waits, "a checkpoint of {object} waits for nothing");
        }
    }
}
