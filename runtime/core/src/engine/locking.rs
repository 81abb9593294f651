//! Locks as the engine uses them: whose a call's lock is, what follows when one moves, how long
//! anybody waits, and which waits are refused at once because they would never end.
//!
//! A call outside actions, and one of a volatile object, owns its lock itself and gives it back
//! when it ends. The lock of any other call in an action is its level's, which keeps it to the
//! action's end; the levels' own lists of locks are kept in step with the lock table here.

use super::{Engine, Mutation};
use crate::action::mirror::{Kin, Mirrors};
use crate::action::path::{Path, own_action};
use crate::id::Uid;
use crate::lock::locks::{Acquired, Asker, Grant, Granted, LockKey, Owner, Request};
use crate::outbox::Outbox;
use crate::output::{Answer, Refusal};
use crate::slab::Slot;
use crate::time::Time;

/// Who is nested in whom.
pub(super) fn kin(mirrors: &Mirrors, mutation: Mutation) -> Kin<'_> {
    Kin {
        mirrors,
        siblings_share: mutation == Mutation::SiblingsShare,
    }
}

impl Engine {
    pub(super) fn lock_key(uid: Uid) -> LockKey {
        LockKey::object(uid)
    }

    /// Whose a call's lock is.
    pub(super) fn owner(&self, slot: Slot) -> Owner {
        let leader = self.calls.leader(slot);
        if leader.traits.action {
            Owner::level(leader.level.0)
        } else {
            Owner::call(slot.0)
        }
    }

    /// The action that a call belongs to, or is by itself, with all that it is in.
    pub(super) fn path_of_call(&self, slot: Slot) -> Path {
        let leader = self.calls.leader(slot);
        if leader.traits.action {
            return self.mirrors.path(leader.level);
        }
        let own = self.own_action(slot);
        match &leader.member {
            Some(member) => member.path.outside().top_level(own),
            None => Path::top(own),
        }
    }

    /// The name of the action that a call is by itself.
    fn own_action(&self, slot: Slot) -> Uid {
        let ticket = self.calls.entry(slot).ticket;
        own_action(self.identity.me, self.identity.shard, ticket)
    }

    /// The name of a lock's owner.
    pub(super) fn name_of(&self, owner: Owner) -> Uid {
        let slot = Slot(owner.index());
        if owner.is_level() {
            self.mirrors.level(slot).uid
        } else {
            self.own_action(slot)
        }
    }

    /// The name of a lock's owner with all that it is in.
    pub(super) fn path_of_owner(&self, owner: Owner) -> Path {
        let slot = Slot(owner.index());
        if owner.is_level() {
            self.mirrors.path(slot)
        } else {
            self.path_of_call(slot)
        }
    }

    /// Appends whom a call waits for; nobody, if it does not stand in a lock's queue.
    pub(super) fn blockers(&self, slot: Slot, blockers: &mut Vec<Owner>) {
        let leader = self.calls.leader(slot);
        if leader.parked {
            let key = Self::lock_key(leader.uid);
            let kin = kin(&self.mirrors, self.mutation);
            self.locks.blockers(key, Asker(slot.0), &kin, blockers);
        }
    }

    /// A call asks for its object's lock: it is ready, waits, or is refused since it would wait
    /// for itself.
    pub(super) fn ask_lock(&mut self, slot: Slot, out: &mut Outbox) {
        let itself = self.blocked_inside(slot);
        if let Some(owner) = itself.or_else(|| self.waits_for_itself(slot)) {
            let refusal = Refusal::Reentrant { owner };
            return self.end(slot, Some(Answer::Refused(refusal)), out);
        }
        let leader = self.calls.leader(slot);
        let (uid, object) = (leader.uid, leader.object);
        let request = Request {
            owner: self.owner(slot),
            asker: Asker(slot.0),
            mode: leader.traits.mode,
            passes: leader.called_back() || self.is_enclosed_by_holder(slot),
        };
        let kin = kin(&self.mirrors, self.mutation);
        let granted = &mut self.granted;
        match self
            .locks
            .acquire(Self::lock_key(uid), request, &kin, granted)
        {
            Acquired::Granted(grant) => {
                self.note_grant(object, request.owner, grant);
                self.ready.push_back(slot);
                self.take_grants();
            }
            Acquired::Waits => {
                self.take_grants();
                self.park(slot);
            }
        }
    }

    /// Whether an action that the call works for, across a top-level boundary, has the lock:
    /// whoever waits for that one would wait for the call too, so it stands behind nobody.
    fn is_enclosed_by_holder(&self, slot: Slot) -> bool {
        let leader = self.calls.leader(slot);
        let Some(member) = &leader.member else {
            return false;
        };
        let mut holders = self.locks.holders(Self::lock_key(leader.uid));
        holders.any(|holding| member.path.is_enclosed_by(self.name_of(holding.owner)))
    }

    /// Refuses a call back into an object that is being run for it, in a way that excludes it.
    fn blocked_inside(&self, slot: Slot) -> Option<Uid> {
        let leader = self.calls.leader(slot);
        if !leader.called_back() {
            return None;
        }
        let gate = self.objects.entry(leader.object).gate.as_ref()?;
        if gate.fits(leader.traits.mode) {
            return None;
        }
        let inside = gate.inside().next()?;
        Some(self.name_of(self.owner(inside)))
    }

    fn park(&mut self, slot: Slot) {
        let leader = self.calls.leader_mut(slot);
        leader.parked = true;
        let (object, member) = (leader.object, leader.member.is_some());
        let entry = self.objects.entry_mut(object);
        entry.parked += 1;
        entry.parked_kin += u32::from(member);
        self.note_patience(slot);
        self.wait_began(slot);
    }

    /// Whether a waiting call is in the way of itself: its lock is held by an action that waits
    /// for the call, across a top-level boundary.
    fn waits_for_itself(&self, slot: Slot) -> Option<Uid> {
        let leader = self.calls.leader(slot);
        let member = leader.member.as_ref()?;
        let called_back = leader.traits.volatile && leader.called_back();
        let mode = leader.traits.mode;
        let holders = self.locks.holders(Self::lock_key(leader.uid));
        let mut excluding = holders.filter(|holding| holding.mode.excludes(mode));
        let own = self.owner(slot);
        excluding.find_map(|holding| {
            let name = self.name_of(holding.owner);
            let waits = holding.owner != own && (called_back || member.path.is_enclosed_by(name));
            waits.then_some(name)
        })
    }

    /// From now on the call waits for no longer than is allowed.
    pub(super) fn note_patience(&mut self, slot: Slot) {
        let leader = self.calls.leader_mut(slot);
        if core::mem::replace(&mut leader.timed, true) {
            return;
        }
        let until = Time(leader.since.0.saturating_add(self.limits.lock_wait_ns));
        let ticket = self.calls.entry(slot).ticket;
        self.patience.add((until, ticket, slot));
    }

    /// The call does not stand in a lock's queue any more.
    fn unpark(&mut self, slot: Slot) {
        let leader = self.calls.leader_mut(slot);
        assert!(leader.parked, "{slot:?} does not wait");
        leader.parked = false;
        let (object, member) = (leader.object, leader.member.is_some());
        let entry = self.objects.entry_mut(object);
        entry.parked -= 1;
        entry.parked_kin -= u32::from(member);
        self.wait_ended(slot);
    }

    /// Takes a call out of a lock's queue.
    pub(super) fn withdraw(&mut self, slot: Slot) {
        let uid = self.calls.leader(slot).uid;
        self.unpark(slot);
        let kin = kin(&self.mirrors, self.mutation);
        let granted = &mut self.granted;
        self.locks
            .withdraw(Self::lock_key(uid), Asker(slot.0), &kin, granted);
        self.take_grants();
    }

    /// An owner gives a lock back.
    pub(super) fn release(&mut self, uid: Uid, owner: Owner, out: &mut Outbox) {
        let kin = kin(&self.mirrors, self.mutation);
        let granted = &mut self.granted;
        self.locks
            .release(Self::lock_key(uid), owner, &kin, granted);
        self.take_grants();
        if owner.is_level() {
            if let Some(object) = self.mirrors.part_of_level(Slot(owner.index())) {
                self.cohorts.touch(object);
            }
            let had = self.mirrors.remove_lock(Slot(owner.index()), uid);
            assert!(had, "{owner:?} gives a lock of {uid} back that it has not");
            self.unhold(uid, out);
        }
    }

    /// A level's lock goes to its parent.
    pub(super) fn inherit(&mut self, uid: Uid, child: Slot, parent: Slot, out: &mut Outbox) {
        let (from, to) = (Owner::level(child.0), Owner::level(parent.0));
        let since = self.mirrors.level(child).locks[&uid];
        if let Some(object) = self.mirrors.part_of_level(child) {
            self.cohorts.touch(object);
        }
        let kin = kin(&self.mirrors, self.mutation);
        let granted = &mut self.granted;
        self.locks
            .inherit(Self::lock_key(uid), from, to, &kin, granted);
        self.mirrors.remove_lock(child, uid);
        if self.mirrors.level(parent).locks.contains_key(&uid) {
            self.unhold(uid, out);
        } else {
            self.mirrors.add_lock(parent, uid, since);
        }
        self.take_grants();
        if let Some(object) = self.objects.slot(uid) {
            self.note_move(object, to);
        }
    }

    /// Whoever got a lock by the last change is ready; those who wait on are looked at.
    fn take_grants(&mut self) {
        let mut granted = core::mem::take(&mut self.granted);
        for Granted {
            asker,
            owner,
            grant,
        } in granted.drain(..)
        {
            let slot = Slot(asker.0);
            self.unpark(slot);
            let object = self.calls.leader(slot).object;
            self.note_grant(object, owner, grant);
            self.ready.push_back(slot);
        }
        self.granted = granted;
    }

    fn note_grant(&mut self, object: Slot, owner: Owner, grant: Grant) {
        if owner.is_level() && grant == Grant::Fresh {
            let entry = self.objects.entry_mut(object);
            entry.held += 1;
            self.mirrors
                .add_lock(Slot(owner.index()), entry.uid, self.now);
        }
        if grant != Grant::Present {
            self.note_move(object, owner);
        }
    }

    /// A lock has a new owner, or one has it in a stronger mode: if anybody waits for it, that
    /// is looked at when the input is done.
    pub(super) fn note_move(&mut self, object: Slot, owner: Owner) {
        let entry = self.objects.entry(object);
        if entry.parked > 0 {
            self.moved.push((entry.uid, owner));
        }
    }

    /// Looks at those who wait for a lock that has moved: does one wait for itself now?
    pub(super) fn look_at_move(&mut self, uid: Uid, owner: Owner, out: &mut Outbox) {
        let parked = |engine: &Self| {
            let object = engine.objects.slot(uid);
            object.map_or((0, 0), |object| {
                let entry = engine.objects.entry(object);
                (entry.parked, entry.parked_kin)
            })
        };
        if parked(self).1 > 0 {
            self.look_at_waiters(uid, out);
        }
        let holds = self.locks.holding(Self::lock_key(uid), owner).is_some();
        if holds && parked(self).0 > 0 {
            self.lock_moved(uid, owner);
        }
    }

    /// A level has a lock less.
    fn unhold(&mut self, uid: Uid, out: &mut Outbox) {
        let Some(object) = self.objects.slot(uid) else {
            return;
        };
        let entry = self.objects.entry_mut(object);
        assert!(entry.held > 0, "{uid} is held by nobody");
        entry.held -= 1;
        self.left_by_call(object, out);
    }

    fn look_at_waiters(&mut self, uid: Uid, out: &mut Outbox) {
        let waiters = self.locks.waiters(Self::lock_key(uid));
        let waiters: Vec<Request> = waiters.collect();
        for request in waiters {
            let slot = Slot(request.asker.0);
            // An earlier refusal may have let this one through.
            if !self.calls.is_leader(slot) || !self.calls.leader(slot).parked {
                continue;
            }
            let passes = !request.passes && self.is_enclosed_by_holder(slot);
            if let Some(owner) = self.waits_for_itself(slot) {
                let refusal = Refusal::Reentrant { owner };
                self.end(slot, Some(Answer::Refused(refusal)), out);
            } else if passes {
                self.withdraw(slot);
                self.ask_lock(slot, out);
            }
        }
    }

    /// A call has waited for a lock, or at a gate, for as long as is allowed.
    pub(super) fn lose_patience(&mut self, slot: Slot, out: &mut Outbox) {
        let mut blockers = Vec::new();
        self.blockers(slot, &mut blockers);
        let first = blockers.first().copied();
        let in_doubt = blockers.iter().find(|owner| self.is_prepared(**owner));
        let refusal = match in_doubt.copied().or(first) {
            Some(owner) => Refusal::LockTimeout {
                owner: self.name_of(owner),
                in_doubt: in_doubt.is_some(),
            },
            None => {
                // At the gate: those before it are of its own action.
                let owner = self.name_of(self.owner(slot));
                Refusal::LockTimeout {
                    owner,
                    in_doubt: false,
                }
            }
        };
        self.end(slot, Some(Answer::Refused(refusal)), out);
    }

    /// Whether a lock's owner is bound by another shard's decision.
    pub(super) fn is_prepared(&self, owner: Owner) -> bool {
        owner.is_level() && {
            let mirror = self.mirrors.level(Slot(owner.index())).mirror;
            self.mirrors.mirror(mirror).is_prepared()
        }
    }
}
