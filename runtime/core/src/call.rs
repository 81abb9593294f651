//! One call's way from arrival to answer.
//!
//! A *call* is one execution; *tickets* are the requests for it. The first ticket leads; one
//! that asks again under the same call id while it waits or runs follows, and gets the same
//! answer. What is below happens to the leader; followers only wait.
//!
//! | stage | searched: found | searched: not | lock | gate | image | returned | flushed | abandoned |
//! |---|---|---|---|---|---|---|---|---|
//! | Searching | answer saved; end | Queued | – | – | – | – | – | end |
//! | Queued | – | – | Granted; in an action Gated | – | – | – | – | end |
//! | Gated | – | – | – | Granted | – | – | – | end |
//! | Granted | – | – | – | – | Running | – | – | end |
//! | Running | – | – | – | – | – | see below | – | killed |
//! | Flushing | – | – | – | – | – | – | answer or refuse; end | runs on |
//!
//! `–` is a mistake of the engine or its shell and panics. A call that needs no search, as each
//! in an action, is Queued at once. *Abandoned* means that no ticket waits any more (deadlines,
//! cancels, a dead caller): the call is an orphan. What has not started never does; a servant that
//! runs is stopped where it waits (*killed*, as Rajdoot does with orphans), and the object is as
//! if it had failed; what is on its way to the disk runs to its end, so that the reply is saved
//! and the object is whole. A servant that has returned before it could be stopped has returned.
//!
//! | returned | read, or volatile | write, saved | write, not saved | write in an action |
//! |---|---|---|---|---|
//! | normal | answer; end | flush state and reply | flush state | keep; answer; end |
//! | raised | answer; end | discard, unlock, flush reply | discard; answer; end | undo; answer; end |
//! | failed, killed | answer; end | discard; answer; end | discard; answer; end | undo; answer; end |
//!
//! In an action the lock is the action's, and nothing is flushed before that ends: *keep* makes
//! what the call did part of it, *undo* puts the object back as the call found it.
//!
//! A flush that failed: the image is discarded (unless the flush was of the reply alone, when
//! that is done already), and the call is refused with the store's fault.
//!
//! A volatile object has no other copy, so nothing of it is ever discarded: keeping it whole
//! when a method fails is its servant's duty.

mod callers;

use std::collections::BTreeMap;

use self::callers::Callers;
use crate::action::path::Membership;
use crate::deadline::Deadlines;
use crate::id::{CallId, Peer, Uid};
use crate::index::Index;
use crate::input::{Ended, Fault, Invoke, Ticket};
use crate::limits::Limits;
use crate::list::{Link, Linked};
use crate::lock::mode::Mode;
use crate::output::{Orphan, Refusal};
use crate::slab::{Slab, Slot};
use crate::time::Time;

/// How far a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It is not at its object's door yet; the store may be asked for a saved reply.
    Searching,
    /// It waits for the object's lock.
    Queued,
    /// Its action has the lock; it waits for other calls of the action to leave the object.
    Gated,
    /// It has the lock and waits for the object to be in memory.
    Granted,
    /// The servant runs.
    Running,
    /// The store writes; `state` tells whether the object is among it.
    Flushing { state: bool },
}

impl Stage {
    /// Whether the servant has been called, so that there is no way back.
    #[inline]
    pub(crate) fn started(self) -> bool {
        match self {
            Self::Searching | Self::Queued | Self::Gated | Self::Granted => false,
            Self::Running | Self::Flushing { .. } => true,
        }
    }
}

/// What happened to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cue {
    Searched { found: bool },
    LockGranted,
    GateOpen,
    ImageReady,
    Returned(Ended),
    Flushed(Result<(), Fault>),
    Abandoned(Orphan),
}

/// What of a call the machine looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Traits {
    pub(crate) mode: Mode,
    pub(crate) save: bool,
    pub(crate) create: bool,
    /// Of the object, known once the call is queued.
    pub(crate) volatile: bool,
    /// It is the work of an action, which has its lock and undoes it.
    pub(crate) action: bool,
}

/// What to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Answer with the saved reply; the call ends.
    AnswerSaved,
    /// Ask for the lock; the call is Queued.
    AskLock,
    /// Wait for the turn among calls of the same action; the call is Gated.
    AskGate,
    /// See whether the object is in memory; the call is Granted.
    WantImage,
    /// Start the servant; the call is Running.
    Dispatch,
    /// Write; the call is Flushing. `undo`: first discard the image and give the lock back.
    Flush {
        undo: bool,
        state: bool,
        reply: bool,
        create: bool,
    },
    /// Answer with the outcome; the call ends.
    Answer { discard: bool },
    /// What it did is its action's; answer with the outcome; the call ends.
    Keep,
    /// Put the object back; answer with the outcome; the call ends.
    Undo,
    /// Refuse; the call ends.
    Refuse { discard: bool, refusal: Refusal },
    /// The call ends without an answer.
    Vanish,
    /// Stop the servant; its end comes as any other.
    Kill(Orphan),
    /// Nothing now.
    RunOn,
    /// Somebody broke the rules.
    Mistake,
}

/// The machine: two tables of the module doc.
#[inline]
pub(crate) fn next(stage: Stage, cue: Cue, traits: Traits) -> Next {
    match (stage, cue) {
        (Stage::Searching, Cue::Searched { found: true }) => Next::AnswerSaved,
        (Stage::Searching, Cue::Searched { found: false }) => Next::AskLock,
        (Stage::Queued, Cue::LockGranted) if traits.action => Next::AskGate,
        (Stage::Queued, Cue::LockGranted) | (Stage::Gated, Cue::GateOpen) => Next::WantImage,
        (Stage::Granted, Cue::ImageReady) => Next::Dispatch,
        (Stage::Running, Cue::Returned(ended)) => returned(ended, traits),
        (Stage::Flushing { .. }, Cue::Flushed(Ok(()))) => Next::Answer { discard: false },
        (Stage::Flushing { state }, Cue::Flushed(Err(fault))) => Next::Refuse {
            discard: state,
            refusal: refusal_of(fault),
        },
        (Stage::Searching | Stage::Queued | Stage::Gated | Stage::Granted, Cue::Abandoned(_)) => {
            Next::Vanish
        }
        (Stage::Running, Cue::Abandoned(why)) => Next::Kill(why),
        (Stage::Flushing { .. }, Cue::Abandoned(_)) => Next::RunOn,
        (
            Stage::Queued | Stage::Gated | Stage::Granted | Stage::Running | Stage::Flushing { .. },
            Cue::Searched { .. },
        )
        | (
            Stage::Searching
            | Stage::Gated
            | Stage::Granted
            | Stage::Running
            | Stage::Flushing { .. },
            Cue::LockGranted,
        )
        | (
            Stage::Searching
            | Stage::Queued
            | Stage::Granted
            | Stage::Running
            | Stage::Flushing { .. },
            Cue::GateOpen,
        )
        | (
            Stage::Searching
            | Stage::Queued
            | Stage::Gated
            | Stage::Running
            | Stage::Flushing { .. },
            Cue::ImageReady,
        )
        | (
            Stage::Searching
            | Stage::Queued
            | Stage::Gated
            | Stage::Granted
            | Stage::Flushing { .. },
            Cue::Returned(_),
        )
        | (
            Stage::Searching | Stage::Queued | Stage::Gated | Stage::Granted | Stage::Running,
            Cue::Flushed(_),
        ) => Next::Mistake,
    }
}

#[inline]
fn returned(ended: Ended, traits: Traits) -> Next {
    let Traits {
        mode,
        save,
        create,
        volatile,
        action,
    } = traits;
    if mode != Mode::Write || volatile {
        return Next::Answer { discard: false };
    }
    if action {
        return match ended {
            Ended::Normal => Next::Keep,
            Ended::Raised | Ended::Failed | Ended::Killed => Next::Undo,
        };
    }
    match ended {
        Ended::Normal => Next::Flush {
            undo: false,
            state: true,
            reply: save,
            create,
        },
        Ended::Raised if save => Next::Flush {
            undo: true,
            state: false,
            reply: true,
            create: false,
        },
        Ended::Raised | Ended::Failed | Ended::Killed => Next::Answer { discard: true },
    }
}

fn refusal_of(fault: Fault) -> Refusal {
    match fault {
        Fault::Exists => Refusal::Exists,
        Fault::Fenced | Fault::Full | Fault::Store => Refusal::Store(fault),
    }
}

/// What a ticket is to its call.
#[derive(Debug)]
pub(crate) enum Role {
    /// The call runs under this ticket.
    Leader(Leader),
    /// It waits for the answer of this one.
    Follower { leader: Slot },
}

/// One execution.
#[derive(Debug)]
pub(crate) struct Leader {
    pub(crate) stage: Stage,
    pub(crate) traits: Traits,
    pub(crate) uid: Uid,
    /// Under which it is found by those who ask again.
    pub(crate) call: Option<CallId>,
    /// Its name, if it has one.
    pub(crate) id: Option<CallId>,
    /// Set from Queued on.
    pub(crate) object: Slot,
    /// Whether the leading ticket itself still waits for the answer.
    pub(crate) waits: bool,
    pub(crate) followers: Vec<Slot>,
    /// What it said about the action it is made in.
    pub(crate) member: Option<Box<Membership>>,
    /// The level of a mirror that it belongs to; none outside of actions.
    pub(crate) level: Slot,
    /// When it came to its object's door.
    pub(crate) since: Time,
    /// Whether it stands in the queue of the lock.
    pub(crate) parked: bool,
    /// Whether its patience with locks and gates is noted among the timers.
    pub(crate) timed: bool,
    pub(crate) kill: Kill,
    /// Whether whoever looks for deadlocks knows that it waits.
    pub(crate) told: bool,
}

/// Whether the servant of a call is to be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kill {
    /// Somebody waits for it.
    No,
    /// The shell was told to.
    Asked,
    /// It has been.
    Done,
}

impl Leader {
    /// The level that it belongs to.
    #[inline]
    pub(crate) fn in_level(&self) -> Option<Slot> {
        (self.level != Slot::NONE).then_some(self.level)
    }

    /// Whether a servant of this object waits for it, as it says.
    pub(crate) fn called_back(&self) -> bool {
        let uid = self.uid;
        self.member.as_ref().is_some_and(|m| m.stack.contains(&uid))
    }
}

/// One ticket.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) ticket: Ticket,
    pub(crate) caller: Peer,
    pub(crate) role: Role,
    /// The entry of its caller.
    of: Slot,
    link: Link,
}

impl Linked for Call {
    fn link_mut(&mut self) -> &mut Link {
        &mut self.link
    }

    fn link(&self) -> Link {
        self.link
    }
}

/// All tickets of a shard that were not forgotten yet.
#[derive(Debug)]
pub(crate) struct Calls {
    slots: Index,
    entries: Slab<Call>,
    leaders: BTreeMap<CallId, Slot>,
    callers: Callers,
    pub(crate) deadlines: Deadlines,
}

impl Calls {
    pub(crate) fn new() -> Self {
        Self {
            slots: Index::seeded(0),
            entries: Slab::new(),
            leaders: BTreeMap::new(),
            callers: Callers::new(),
            deadlines: Deadlines::default(),
        }
    }

    /// Whether one more ticket of `caller` fits; otherwise what is too much and its bound.
    pub(crate) fn room(&self, caller: Peer, limits: &Limits) -> Result<(), (&'static str, u64)> {
        if self.entries.len() >= limits.calls_max as usize {
            return Err(("calls on this shard", limits.calls_max.into()));
        }
        let of_caller = self.callers.calls(caller).len();
        if of_caller >= limits.caller_calls_max {
            return Err(("calls of this caller", limits.caller_calls_max.into()));
        }
        Ok(())
    }

    /// Enters a new call. With `find_as` others that ask under that id will find it.
    pub(crate) fn lead(
        &mut self,
        invoke: &mut Invoke,
        create: bool,
        find_as: Option<CallId>,
    ) -> Slot {
        let Invoke {
            uid,
            mode,
            volatile,
            ..
        } = *invoke;
        let action = invoke.root().is_some();
        let save = invoke.save && mode == Mode::Write && invoke.call.is_some() && !action;
        let leader = Leader {
            stage: Stage::Searching,
            traits: Traits {
                mode,
                save,
                create,
                volatile,
                action,
            },
            uid,
            call: find_as,
            id: invoke.call,
            object: Slot::NONE,
            waits: true,
            followers: Vec::new(),
            member: invoke.action.take(),
            level: Slot::NONE,
            since: Time::default(),
            parked: false,
            timed: false,
            kill: Kill::No,
            told: false,
        };
        let slot = self.enter(invoke, Role::Leader(leader));
        if let Some(call) = find_as {
            self.leaders.insert(call, slot);
        }
        slot
    }

    /// Enters another ticket for a call that is under way.
    pub(crate) fn follow(&mut self, invoke: &Invoke, leader: Slot) -> Slot {
        let slot = self.enter(invoke, Role::Follower { leader });
        self.leader_mut(leader).followers.push(slot);
        slot
    }

    fn enter(&mut self, invoke: &Invoke, role: Role) -> Slot {
        let Invoke {
            ticket,
            caller,
            deadline,
            ..
        } = *invoke;
        let link = Link::LOOSE;
        let of = self.callers.enter(caller);
        let before = self.slot(ticket);
        assert!(before.is_none(), "{ticket:?} is used for two calls");
        let slot = self.entries.insert(Call {
            ticket,
            caller,
            role,
            of,
            link,
        });
        self.slots.insert(self.slots.hash_count(ticket.0), slot);
        let of_caller = &mut self.callers.entries[of].calls;
        of_caller.push_last(&mut self.entries, slot);
        self.deadlines.add((deadline, ticket, slot));
        slot
    }

    /// Takes a ticket out of all tables but its leader's list of followers.
    pub(crate) fn remove(&mut self, slot: Slot) -> Call {
        let Call { ticket, of, .. } = self.entries[slot];
        let of_caller = &mut self.callers.entries[of].calls;
        of_caller.take_out(&mut self.entries, slot);
        self.callers.left(of);
        self.slots.remove(self.slots.hash_count(ticket.0), slot);
        let call = self.entries.remove(slot);
        if let Role::Leader(Leader { call: Some(id), .. }) = &call.role
            && self.leaders.get(id) == Some(&slot)
        {
            self.leaders.remove(id);
        }
        call
    }

    /// Removes what ended calls left among the deadlines.
    #[inline]
    pub(crate) fn tidy(&mut self) {
        let entries = &self.entries;
        self.deadlines.tidy(entries.len(), |ticket, slot| {
            entries.find(slot).is_some_and(|call| call.ticket == ticket)
        });
    }

    #[inline]
    pub(crate) fn slot(&self, ticket: Ticket) -> Option<Slot> {
        let hash = self.slots.hash_count(ticket.0);
        self.slots
            .find(hash, |slot| self.entries[slot].ticket == ticket)
    }

    pub(crate) fn find_leader(&self, call: CallId) -> Option<Slot> {
        self.leaders.get(&call).copied()
    }

    /// The tickets of a caller, in the order they came.
    pub(crate) fn of_caller(&self, caller: Peer) -> Vec<Ticket> {
        let list = self.callers.calls(caller);
        list.iter(&self.entries)
            .map(|slot| self.entries[slot].ticket)
            .collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Slot, &Call)> {
        self.entries.iter()
    }

    /// Whether the ticket still waits for a lock or at a gate, in this place.
    pub(crate) fn is_stuck(&self, ticket: Ticket, slot: Slot) -> bool {
        let call = self.entries.find(slot).filter(|call| call.ticket == ticket);
        match call.map(|call| &call.role) {
            Some(Role::Leader(leader)) => match leader.stage {
                Stage::Queued | Stage::Gated => true,
                Stage::Searching | Stage::Granted | Stage::Running | Stage::Flushing { .. } => {
                    false
                }
            },
            Some(Role::Follower { .. }) | None => false,
        }
    }

    #[inline]
    pub(crate) fn entry(&self, slot: Slot) -> &Call {
        &self.entries[slot]
    }

    /// Whether there is a call in this place, and not only a ticket that follows one.
    #[inline]
    pub(crate) fn is_leader(&self, slot: Slot) -> bool {
        match self.entries.find(slot).map(|call| &call.role) {
            Some(Role::Leader(_)) => true,
            Some(Role::Follower { .. }) | None => false,
        }
    }

    #[inline]
    pub(crate) fn leader(&self, slot: Slot) -> &Leader {
        match &self.entries[slot].role {
            Role::Leader(leader) => leader,
            Role::Follower { .. } => panic!("{:?} does not lead", self.entries[slot].ticket),
        }
    }

    #[inline]
    pub(crate) fn leader_mut(&mut self, slot: Slot) -> &mut Leader {
        let Call { ticket, role, .. } = &mut self.entries[slot];
        match role {
            Role::Leader(leader) => leader,
            Role::Follower { .. } => panic!("{ticket:?} does not lead"),
        }
    }

    pub(crate) fn check(&self, limits: &Limits) {
        let live = self.entries.len();
        assert!(self.slots.len() == live, "tickets are miscounted");
        assert!(live <= limits.calls_max as usize, "more calls than allowed");
        assert!(
            self.deadlines.len() <= Deadlines::len_max(live),
            "deadlines pile up"
        );
        let listed = self.callers.check(limits, &self.entries);
        assert!(listed as usize == live, "calls of callers are miscounted");
        for (id, slot) in &self.leaders {
            assert!(
                self.leader(*slot).call == Some(*id),
                "{id} leads to another call"
            );
        }
        for (slot, call) in self.entries.iter() {
            assert!(
                self.slot(call.ticket) == Some(slot),
                "{:?} leads elsewhere",
                call.ticket
            );
            match &call.role {
                Role::Leader(leader) => {
                    let alive = leader.waits || !leader.followers.is_empty();
                    assert!(alive || leader.stage.started(), "{call:?} waits for nobody");
                }
                Role::Follower { leader } => {
                    assert!(
                        self.leader(*leader).followers.contains(&slot),
                        "{call:?} is lost"
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
