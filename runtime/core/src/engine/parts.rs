//! What a shard does about replicated objects in actions: parts that are found in the log of an
//! object when this shard becomes its leader, and what goes when it is leader no more.
//!
//! A *part* is what an action has prepared of a replicated object, an entry of its log. Whoever
//! prepared it as leader has it in the action's mirror. Whoever leads the object later has it
//! here: a mirror of its own, with the lock of that one object, apart from any other mirror of the
//! same action at this shard, which may be active, prepared, or even the coordinator's.
//!
//! | part | found | committed | aborted | end added | not added | object expelled |
//! |---|---|---|---|---|---|---|
//! | none | InDoubt: locked; ask | add an end | nothing | acknowledge, if told | nothing | – |
//! | InDoubt | nothing | Ending: add it | Ending: add it | – | – | none |
//! | Ending | nothing | nothing | nothing | unlocked; acknowledge, if committed; none | InDoubt: ask later | none |
//!
//! *Ask* goes to whoever leads the decider, or to the coordinator's site if there is none, and is
//! repeated as participants do. Whoever is told of a commit and has no such part adds an end all
//! the same: that it can shows that it leads the object, and so that the part has ended before.
//!
//! An object is *expelled* when its leader is deposed. What happens to the mirrors that have it
//! locked, or were to decide in its log:
//!
//! | mirror | what happens |
//! |---|---|
//! | active | aborted |
//! | votes are missing | aborted |
//! | being prepared, prepared, being installed | the object's lock and image go; the rest stays, and so does the vote: the next leader has the part |
//! | being decided | the same; the store's answer says what comes of it |
//!
//! Decisions in its log are the next leader's to tell. The object itself leaves memory as soon as
//! no call is inside.

use std::collections::{BTreeMap, BTreeSet};

use super::{Engine, Mutation};
use crate::action::coordinator::News;
use crate::action::message::{Message, Verdict};
use crate::action::mirror::Phase;
use crate::action::path::{Coordinator, Path, Site};
use crate::action::tombstone::Fate;
use crate::activation::{Image, Kind};
use crate::id::Uid;
use crate::input::{Fault, Input};
use crate::lock::locks::{Acquired, Asker, Owner, Request};
use crate::lock::mode::Mode;
use crate::migrate::CheckpointEnd;
use crate::outbox::Outbox;
use crate::output::{Abort, Answer, GaveUp, Output, Refusal, Why};
use crate::slab::Slot;
use crate::time::Time;

/// A part that was found in a log.
#[derive(Debug)]
pub(super) struct Part {
    /// Its mirror.
    pub(super) slot: Slot,
    pub(super) action: Uid,
    /// Its end is being added to the log.
    pub(super) ending: Option<bool>,
}

/// All parts that were found.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// By their objects: whoever locks one has it to itself.
    pub(super) rows: BTreeMap<Uid, Part>,
    /// Those whose object is not free yet: calls of an earlier term are still inside.
    pub(super) unlocked: BTreeSet<Uid>,
    /// Ends that are being added of parts that are not here, and who is told.
    strays: BTreeMap<(Uid, Uid), Site>,
}

impl Engine {
    /// What an earlier life has left, or an earlier leader of a replicated object.
    pub(super) fn taking_over(&mut self, input: Input, out: &mut Outbox) {
        if self.is_drained() {
            return;
        }
        if let Input::RecoverPrepared {
            action,
            coordinator,
            objects,
        } = input
        {
            self.recover_prepared(action, coordinator, &objects, out);
        } else if let Input::RecoverDecision {
            action,
            participants,
            groups,
            decider,
        } = input
        {
            let news = News {
                sites: participants,
                groups: groups.into_iter().collect(),
                parts: Vec::new(),
                decider,
            };
            self.recover_decision(action, news, out);
        } else if let Input::RecoverPart {
            object,
            action,
            coordinator,
        } = input
        {
            self.recover_part(object, action, coordinator, out);
        } else if let Input::PartEnded {
            object,
            action,
            result,
        } = input
        {
            self.part_ended(object, action, result, out);
        } else if let Input::Expel { uid } = input {
            self.expel(uid, out);
        } else if let Input::RecoverCheckpoint { object, checkpoint } = input {
            self.recover_checkpoint(object, checkpoint);
        }
    }

    /// The replicated objects that an action has locked here, or has prepared: this shard must
    /// surely lead them when it is to prepare or to commit.
    pub fn replicated_of(&self, action: Uid) -> impl Iterator<Item = Uid> + '_ {
        let mirror = self.mirrors.find(action);
        let levels = mirror.map(|slot| self.mirrors.subtree(self.mirrors.mirror(slot).root));
        let levels = levels.into_iter().flatten();
        let locks = levels.flat_map(|level| self.mirrors.level(level).locks.keys().copied());
        locks.filter(|uid| {
            let object = self.objects.slot(*uid);
            object.is_some_and(|slot| self.objects.entry(slot).is_replicated())
        })
    }

    /// An earlier life of this node had prepared an action: it is as it was, but its objects
    /// are not in memory. Said twice if two shards of that life are one now.
    fn recover_prepared(
        &mut self,
        action: Uid,
        coordinator: Coordinator,
        objects: &[Uid],
        out: &mut Outbox,
    ) {
        let known = self.mirrors.find(action);
        let path = Path::top(action);
        let slot = known.unwrap_or_else(|| self.mirrors.insert(path, Time::NEVER, self.now));
        let root = self.mirrors.mirror(slot).root;
        for uid in objects {
            if self.mutation == Mutation::LosePrepareOnRecovery {
                break;
            }
            self.lock_recovered(root, *uid);
        }
        let mirror = self.mirrors.mirror_mut(slot);
        (mirror.updated, mirror.plain) = (true, true);
        self.bind_stored(slot, coordinator);
        self.query(slot, out);
    }

    /// A mirror whose objects are not in memory is prepared: it was found so, or is about to be
    /// written so.
    pub(super) fn bind_stored(&mut self, slot: Slot, coordinator: Coordinator) {
        let pause_ns = self.limits.resend_ns;
        let mirror = self.mirrors.mirror_mut(slot);
        mirror.stored_only = true;
        // It waits for nothing, so any node will do for whoever looks for a deadlock.
        mirror.home = coordinator.site.node;
        mirror.phase = Phase::Prepared {
            coordinator,
            pause_ns,
            doubted: false,
        };
        self.mirrors.note_prepared(slot);
    }

    /// This shard leads an object with a part.
    fn recover_part(
        &mut self,
        object: Uid,
        action: Uid,
        coordinator: Coordinator,
        out: &mut Outbox,
    ) {
        if let Some(part) = self.parts.rows.get(&object) {
            assert!(part.action == action, "{object} has two parts");
            return;
        }
        let (path, never) = (Path::top(action), Time::NEVER);
        let slot = self.mirrors.insert_at(path, Some(object), never, self.now);
        self.bind_stored(slot, coordinator);
        let part = Part {
            slot,
            action,
            ending: None,
        };
        self.parts.rows.insert(object, part);
        if self.mutation != Mutation::LosePartOnTakeover {
            self.parts.unlocked.insert(object);
            self.lock_parts();
        }
        let commits = self.mutation == Mutation::PresumePartCommit;
        if commits || self.mutation == Mutation::PresumePartAbort {
            self.end_part(object, commits, out);
        } else {
            self.query(slot, out);
        }
    }

    /// Parts get the locks of their objects as soon as nothing of an earlier term has them. Nobody
    /// comes before them: a call of an object that was expelled is turned away until all are out.
    pub(super) fn lock_parts(&mut self) {
        for object in self.parts.unlocked.clone() {
            let inside = self.objects.slot(object).is_some();
            let held = self.locks.holders(Self::lock_key(object)).next().is_some();
            if !inside && !held {
                self.parts.unlocked.remove(&object);
                let slot = self.parts.rows[&object].slot;
                self.lock_recovered(self.mirrors.mirror(slot).root, object);
            }
        }
    }

    /// What was prepared before this engine knew of it is locked as before.
    pub(super) fn lock_recovered(&mut self, root: Slot, uid: Uid) {
        let request = Request {
            owner: Owner::level(root.0),
            asker: Asker(u32::MAX),
            mode: Mode::Write,
            passes: false,
        };
        if self.mirrors.level(root).locks.contains_key(&uid) {
            return;
        }
        let kin = super::locking::kin(&self.mirrors, self.mutation);
        let granted = &mut self.granted;
        let acquired = self
            .locks
            .acquire(Self::lock_key(uid), request, &kin, granted);
        let granted = matches!(acquired, Acquired::Granted(_));
        assert!(granted, "{uid} is prepared by an action and by another");
        self.mirrors.add_lock(root, uid, self.now);
    }

    /// The action of a part is committed, or aborted.
    fn end_part(&mut self, object: Uid, commit: bool, out: &mut Outbox) {
        let Some(part) = self.parts.rows.get_mut(&object) else {
            return;
        };
        if part.ending.is_none() {
            part.ending = Some(commit);
            let (action, slot) = (part.action, part.slot);
            self.mirrors.set_due(slot, Time::NEVER);
            out.push(Output::EndPart {
                object,
                action,
                commit,
            });
        }
    }

    /// Whether this is a part that was found.
    fn is_part(&self, object: Uid, action: Uid) -> bool {
        let part = self.parts.rows.get(&object);
        part.is_some_and(|part| part.action == action)
    }

    /// Whoever has the decision says that it is to commit.
    pub(super) fn commit_part_heard(
        &mut self,
        from: Site,
        action: Uid,
        object: Uid,
        out: &mut Outbox,
    ) {
        if self.is_part(object, action) {
            return self.end_part(object, true, out);
        }
        let mirror = self.mirrors.find(action);
        let has = |slot: &Slot| self.led_groups(*slot).contains(&object);
        if mirror.filter(has).is_some() {
            // What was prepared here and has not been lost since.
            return self.commit_heard(from, action, None, out);
        }
        let decides = |slot: &Slot| match &self.mirrors.mirror(*slot).phase {
            Phase::Deciding { own, .. } => own.contains(&object),
            Phase::Active
            | Phase::Aborting
            | Phase::Preparing { .. }
            | Phase::Prepared { .. }
            | Phase::Installing { .. }
            | Phase::Voting(_) => false,
        };
        if mirror.filter(decides).is_some() {
            // The store is about to say so, and has added the end by then.
            return;
        }
        let key = (object, action);
        if self.parts.strays.contains_key(&key) {
            return;
        }
        if self.parts.strays.len() < self.limits.actions_max as usize {
            self.parts.strays.insert(key, from);
            let commit = true;
            out.push(Output::EndPart {
                object,
                action,
                commit,
            });
        }
    }

    /// Somebody says that it is aborted: whoever has the decision knows.
    pub(super) fn doubt_part(&mut self, action: Uid, object: Uid, out: &mut Outbox) {
        if self.is_part(object, action) {
            let part = &self.parts.rows[&object];
            if part.ending.is_none() {
                self.query(part.slot, out);
            }
        }
    }

    /// Whoever has the decision has answered.
    pub(super) fn part_verdict_heard(
        &mut self,
        action: Uid,
        object: Uid,
        verdict: Verdict,
        out: &mut Outbox,
    ) {
        if self.is_part(object, action) {
            match verdict {
                Verdict::Committed => self.end_part(object, true, out),
                Verdict::Aborted => self.end_part(object, false, out),
                Verdict::InFlight => {}
            }
        }
    }

    /// The end of a part is in the object's log, or could not be added.
    fn part_ended(
        &mut self,
        object: Uid,
        action: Uid,
        result: Result<(), Fault>,
        out: &mut Outbox,
    ) {
        let stray = self.parts.strays.remove(&(object, action));
        if let (Some(to), Ok(())) = (stray, result) {
            let to = Coordinator::from(to);
            Self::acknowledge_group(to, action, object, out);
        }
        if !self.is_part(object, action) {
            return;
        }
        let part = self.parts.rows.get_mut(&object).expect("it is a part");
        // The answer may be that of before the object was expelled and came back.
        let (Some(commit), slot) = (part.ending, part.slot) else {
            return;
        };
        if result.is_err() {
            part.ending = None;
            let due = self.resend_at(self.limits.resend_ns);
            return self.mirrors.set_due(slot, due);
        }
        let Phase::Prepared { coordinator, .. } = self.mirrors.mirror(slot).phase else {
            panic!("the part of {action} at {object} is not in doubt");
        };
        self.drop_part(object, Some(commit), out);
        if commit {
            Self::acknowledge_group(coordinator, action, object, out);
        }
    }

    pub(super) fn acknowledge_group(to: Coordinator, action: Uid, object: Uid, out: &mut Outbox) {
        let message = Message::Acknowledge {
            action,
            site: false,
            groups: vec![object],
            decider: to.decider,
        };
        Self::send_to(Self::keeper(to), message, out);
    }

    /// A part is here no more, and its object is free: it was committed, or not, or is led by
    /// another.
    pub(super) fn drop_part(&mut self, object: Uid, end: Option<bool>, out: &mut Outbox) {
        self.parts.unlocked.remove(&object);
        let Some(Part { slot, action, .. }) = self.parts.rows.remove(&object) else {
            return;
        };
        let root = self.mirrors.mirror(slot).root;
        if !self.mirrors.mirror(slot).stored_only {
            match end {
                Some(true) => {
                    self.mirrors.level_mut(root).images.clear();
                    out.push(Output::Release {
                        uid: object,
                        action,
                    });
                    self.note_fate(action, Fate::Committed);
                }
                Some(false) => {
                    self.restore(root, out);
                    let end = CheckpointEnd::Aborted;
                    self.cohorts.note_end(object, action, end);
                }
                None => self.restore(root, out),
            }
        }
        self.release_all(root, out);
        self.mirrors.remove(root);
        // The log has it.
        self.cohorts.untouch(object);
    }

    /// This shard leads an object no more.
    fn expel(&mut self, uid: Uid, out: &mut Outbox) {
        if self.mutation == Mutation::ForgetExpel {
            return self.evict(uid, out);
        }
        self.drop_part(uid, None, out);
        self.drop_held(uid, out);
        self.decisions.drop_of(uid);
        let known = self.objects.slot(uid);
        if self.arrivals.brings(uid) || known.is_some_and(|object| !self.may_be_led(object)) {
            return;
        }
        if let Some(object) = known {
            self.objects.entry_mut(object).kind = Kind::Expelled;
            // The entry must outlive the last of its calls, since the loop looks at it.
            self.objects.entry_mut(object).calls += 1;
            for slot in self.waiting_calls(object, false) {
                if self.calls.is_leader(slot) && self.calls.leader(slot).object == object {
                    self.end(slot, Some(Answer::Refused(Refusal::Moved)), out);
                }
            }
            self.objects.entry_mut(object).calls -= 1;
        }
        for slot in self.mirrors.parts_at(uid) {
            self.lose_part(slot, out);
        }
        for slot in self.concerned(uid) {
            self.lose(slot, uid, out);
        }
        // What was given back just now is the next leader's.
        self.drop_held(uid, out);
        let Some(object) = self.objects.slot(uid) else {
            return;
        };
        if self.objects.is_idle(object) {
            self.passivate(object, Why::Expelled, out);
        } else {
            self.left_by_call(object, out);
        }
    }

    /// Not one of a transient class, nor one that is being made, leaves or comes.
    fn may_be_led(&self, object: Slot) -> bool {
        let entry = self.objects.entry(object);
        !entry.is_volatile() && !entry.is_leaving() && entry.image != Image::Making
    }

    /// The mirrors that have an object locked, or were to decide in its log.
    fn concerned(&self, uid: Uid) -> Vec<Slot> {
        let holders = self.locks.holders(Self::lock_key(uid));
        let levels = holders.filter(|holding| holding.owner.is_level());
        let mut slots: Vec<Slot> = levels
            .map(|holding| self.mirrors.level(Slot(holding.owner.index())).mirror)
            .collect();
        let decide = self
            .mirrors
            .iter()
            .filter(|(_, mirror)| match &mirror.phase {
                Phase::Active => mirror.decider() == Some(uid),
                Phase::Voting(ballot) => ballot.decider == Some(uid),
                Phase::Aborting
                | Phase::Preparing { .. }
                | Phase::Prepared { .. }
                | Phase::Installing { .. }
                | Phase::Deciding { .. } => false,
            });
        slots.extend(decide.map(|(slot, _)| slot));
        slots.sort_unstable();
        slots.dedup();
        slots
    }

    /// A mirror loses an object.
    fn lose(&mut self, slot: Slot, uid: Uid, out: &mut Outbox) {
        let mirror = self.mirrors.mirror(slot);
        let root = mirror.root;
        match mirror.phase {
            Phase::Active => self.give_up(slot, GaveUp::Expelled, out),
            Phase::Voting(_) => {
                let me = self.identity.site();
                self.abort_vote(slot, Abort::Refused(me), out);
            }
            Phase::Aborting => {}
            Phase::Preparing { .. }
            | Phase::Prepared { .. }
            | Phase::Installing { .. }
            | Phase::Deciding { .. } => {
                let action = mirror.uid();
                let level = self.mirrors.level_mut(root);
                if level.images.remove(&uid).is_some() {
                    out.push(Output::Restore { uid, action });
                }
                if self.mirrors.level(root).locks.contains_key(&uid) {
                    self.release(uid, Owner::level(root.0), out);
                }
            }
        }
    }
}
