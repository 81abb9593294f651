//! What whoever leads an object does as a participant of an action with a part of it that is not
//! prepared yet; what is, is in `parts`.
//!
//! | state of the part | prepare, fits | prepare, else | abort | expelled |
//! |---|---|---|---|---|
//! | none | – | vote ReadOnly if it has ended so; else No | nothing | – |
//! | Active | write it | abort; vote No | abort | forget |
//! | Preparing | note who asks | note who asks | doomed, if by who asks | forget |
//! | Prepared | vote Yes to who asks | the same | ask who decides | forget |
//! | Voting, Deciding | nothing | nothing | [`crate::action::coordinator`] | forget |
//!
//! *Forget* is no abort: nobody is told, and the next leader goes on with what the log has. A
//! request to commit that waits then has no known end.
//!
//! *Who asks*: several in turn may coordinate an action, each the leader of its decider for a
//! time. The decision is an entry in that one log, whoever asks, so a Yes to one is a Yes to each
//! of them; they are told apart from others by the decider.

use super::parts::Part;
use super::{Engine, Mutation};
use crate::action::message::{Message, To, Vote};
use crate::action::mirror::Phase;
use crate::action::path::{Address, Coordinator, Site};
use crate::action::tombstone::Fate;
use crate::id::Uid;
use crate::input::{Fault, Job};
use crate::migrate::CheckpointEnd;
use crate::outbox::Outbox;
use crate::output::{Abort, End, Output};
use crate::slab::Slot;
use crate::time::Time;

impl Engine {
    /// A coordinator asks for the vote of whoever leads an object.
    pub(super) fn part_prepare_heard(
        &mut self,
        from: Coordinator,
        action: Uid,
        (object, join): (Uid, u64),
        aborted: &[Uid],
        out: &mut Outbox,
    ) {
        if self.cohorts.awaits(object, action) {
            return;
        }
        let Some(slot) = self.mirrors.find_at((action, Some(object))) else {
            let vote = match self.cohorts.end_of(object, action) {
                Some(CheckpointEnd::ReadOnly | CheckpointEnd::Committed) => Vote::ReadOnly,
                Some(CheckpointEnd::Aborted) | None => Vote::No,
            };
            return self.vote_part(from, action, object, vote, out);
        };
        let rebinds = self.rebinds();
        let mirror = self.mirrors.mirror_mut(slot);
        let same = |known: &Coordinator| *known == from || (rebinds && known.decides_with(from));
        match &mut mirror.phase {
            Phase::Preparing { coordinator, .. } if same(coordinator) => *coordinator = from,
            Phase::Prepared { coordinator, .. } if same(coordinator) => {
                *coordinator = from;
                self.vote_part(from, action, object, Vote::Yes, out);
            }
            Phase::Active => {
                let fits = mirror.join == join && mirror.calls == 0;
                if fits {
                    return self.prepare(slot, from, aborted, out);
                }
                self.abort_mirror(slot, out);
                self.vote_part(from, action, object, Vote::No, out);
            }
            Phase::Aborting => self.vote_part(from, action, object, Vote::No, out),
            Phase::Preparing { .. }
            | Phase::Prepared { .. }
            | Phase::Installing { .. }
            | Phase::Voting(_)
            | Phase::Deciding { .. } => {}
        }
    }

    /// Another coordinator asks for the vote of what is prepared, or about to be: it takes the
    /// place of the one that is known, if both are to decide in the log of the same object.
    pub(super) fn rebind(&mut self, action: Uid, from: Coordinator) {
        let rebinds = self.rebinds();
        let Some(slot) = self.mirrors.find(action) else {
            return;
        };
        if let Phase::Preparing { coordinator, .. } | Phase::Prepared { coordinator, .. } =
            &mut self.mirrors.mirror_mut(slot).phase
            && rebinds
            && coordinator.decides_with(from)
        {
            *coordinator = from;
        }
    }

    fn rebinds(&self) -> bool {
        self.mutation != Mutation::NoRebind
    }

    /// Answers a coordinator about an object.
    pub(super) fn vote_part(
        &mut self,
        to: Coordinator,
        action: Uid,
        object: Uid,
        vote: Vote,
        out: &mut Outbox,
    ) {
        let groups = match vote {
            Vote::Yes => vec![object],
            Vote::ReadOnly | Vote::No => Vec::new(),
        };
        let message = Box::new(Message::Vote {
            action,
            vote,
            moved: Vec::new(),
            groups,
            decider: to.decider,
            part: Some(object),
        });
        let to = To::Site(to.site);
        self.say_of(Some(object), Output::Send { to, message }, out);
    }

    /// What was to be prepared is in the object's log, or not.
    pub(super) fn part_written(
        &mut self,
        (action, object): (Uid, Uid),
        done: Job,
        result: Result<(), Fault>,
        out: &mut Outbox,
    ) {
        let Some(slot) = self.mirrors.find_at((action, Some(object))) else {
            return;
        };
        let mirror = self.mirrors.mirror_mut(slot);
        let Phase::Preparing {
            coordinator,
            job,
            doomed,
        } = mirror.phase
        else {
            return;
        };
        if job != done {
            return;
        }
        if result.is_err() {
            self.undo_groups(slot, out);
            self.abort_mirror(slot, out);
            return self.vote_part(coordinator, action, object, Vote::No, out);
        }
        self.set_prepared(slot, out);
        let ending = None;
        let part = Part {
            slot,
            action,
            ending,
        };
        self.parts.rows.insert(object, part);
        if doomed {
            return self.query(slot, out);
        }
        self.vote_part(coordinator, action, object, Vote::Yes, out);
    }

    /// Somebody says that an action is aborted, to whoever leads an object.
    pub(super) fn part_abort_heard(
        &mut self,
        from: Site,
        action: Uid,
        object: Uid,
        out: &mut Outbox,
    ) {
        let Some(level) = self.mirrors.find_level_at((action, Some(object))) else {
            // A checkpoint that waits is looked at with this in mind.
            return self.note_fate(action, Fate::Told);
        };
        if self.mirrors.level(level).parent.is_some() {
            return self.nested_abort_heard(level, out);
        }
        let slot = self.mirrors.level(level).mirror;
        self.part_root_abort_heard(from, slot, out);
    }

    fn part_root_abort_heard(&mut self, from: Site, slot: Slot, out: &mut Outbox) {
        match &mut self.mirrors.mirror_mut(slot).phase {
            Phase::Active => self.abort_mirror(slot, out),
            Phase::Preparing {
                coordinator,
                doomed,
                ..
            } => *doomed |= coordinator.site == from,
            Phase::Prepared { .. } => {
                let mirror = self.mirrors.mirror(slot);
                let object = mirror.part.expect("it is a part");
                let action = mirror.uid();
                self.doubt_part(action, object, out);
            }
            Phase::Voting(_) => self.abort_vote(slot, Abort::Ended, out),
            Phase::Aborting | Phase::Installing { .. } | Phase::Deciding { .. } => {}
        }
    }

    /// Somebody who does not know of parts says that an action is aborted.
    pub(super) fn parts_abort_heard(&mut self, action: Uid, out: &mut Outbox) {
        for level in self.mirrors.part_levels(action) {
            let slot = self.mirrors.level(level).mirror;
            if self.mirrors.level(level).parent.is_some() {
                self.nested_abort_heard(level, out);
            } else if self.mirrors.mirror(slot).is_active() {
                self.abort_mirror(slot, out);
            }
        }
    }

    /// A part is aborted, and the next leader is to know.
    pub(super) fn abort_part(&mut self, slot: Slot, object: Uid, out: &mut Outbox) {
        let mirror = self.mirrors.mirror_mut(slot);
        mirror.phase = Phase::Aborting;
        let (action, root, lost) = (mirror.uid(), mirror.root, mirror.lost);
        self.mirrors.set_due(slot, Time::NEVER);
        if !lost {
            let end = CheckpointEnd::Aborted;
            self.cohorts.note_end(object, action, end);
            self.forward_abort(slot, action, out);
        }
        self.abort_level(root, out);
    }

    /// Another leads the object: the part goes on there, and nobody is told of an end.
    pub(super) fn lose_part(&mut self, slot: Slot, out: &mut Outbox) {
        let mirror = self.mirrors.mirror_mut(slot);
        let (root, object) = (mirror.root, mirror.part);
        let object = object.expect("a part is lost");
        let phase = core::mem::replace(&mut mirror.phase, Phase::Aborting);
        match phase {
            Phase::Voting(ballot) => Self::ended(&ballot.requests, End::Unknown, out),
            Phase::Deciding { requests, .. } => Self::ended(&requests, End::Unknown, out),
            phase @ Phase::Prepared { .. } => {
                self.mirrors.mirror_mut(slot).phase = phase;
                return self.drop_part(object, None, out);
            }
            Phase::Active
            | Phase::Aborting
            | Phase::Preparing { .. }
            | Phase::Installing { .. } => {}
        }
        self.mirrors.set_due(slot, Time::NEVER);
        self.mirrors.lose(slot);
        self.abort_level(root, out);
    }

    /// Sends something on behalf of a mirror to where an action may be.
    pub(super) fn tell_address(
        &mut self,
        part: Option<Uid>,
        (to, action): (Address, Uid),
        out: &mut Outbox,
    ) {
        let part_there = to.object();
        let message = Box::new(Message::Abort {
            action,
            part: part_there,
        });
        let to = to.into();
        self.say(part, Output::Send { to, message }, out);
    }
}
