//! Which objects are in memory, and which leave it next.
//!
//! An object that is neither in memory nor called has no entry here; the store knows it. The
//! machine of one entry, where *wanted* means that a call has the lock and needs the image:
//!
//! | image | wanted | wanted by a create | found | absent | moved | load failed | made | dropped |
//! |---|---|---|---|---|---|---|---|---|
//! | Passive | Activating; load | Making; run it | stale | stale | stale | stale | – | – |
//! | Activating | wait | wait | Active | Passive; refuse | Passive; refuse all | Passive; refuse all | – | – |
//! | Making | – | – | – | – | – | – | Active | Passive |
//! | Active | run it | refuse | stale | stale | stale | stale | – | Passive |
//!
//! `–` is a mistake and panics; *stale* is an answer to a load that an object served meanwhile
//! does not need, and is ignored. *Absent* refuses every waiting call but a create, whose turn
//! it then is. *Dropped* is a discard or a passivation; both happen only while no servant runs
//! on the image. An entry that is Passive and has no call vanishes.
//!
//! Passivation needs no IO, since what a call changed was flushed before the call ended; so
//! there is no state between Active and Passive. An object is *idle* while it is Active and has
//! no call, not even one whose flush is under way, and no action has its lock: what an action
//! changed is nowhere but in memory until it ends. Idle objects stand in one of two queues, by
//! whether somebody is bound to them, longest unused first; so the next one to leave is at one
//! of two heads, and is found without a search.
//!
//! Memory is counted in bytes of encoded states and in objects, and has a limit of each:
//!
//! | what happens | over the limit |
//! |---|---|
//! | an object is wanted that is not in memory | the longest unused leave; if all are in use, refused |
//! | it is loaded, and is larger than the room | the longest unused leave; if that is not enough it leaves itself and its calls are refused, unless it is alone |
//! | a call made an object, or one larger | the longest unused leave; else memory is over the limit until something is unused |
//!
//! Volatile objects are Active from `Serve` to `Retire`, and never idle.

use crate::action::gate::Gate;
use crate::id::Uid;
use crate::index::Index;
use crate::input::{Fault, Loaded};
use crate::limits::Limits;
use crate::list::{Beside, List};
use crate::lock::key::LockKey;
use crate::slab::{Slab, Slot};
use crate::time::Time;

/// Whether an object's state is in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Image {
    Passive,
    Activating,
    Making,
    Active,
}

/// What happens to an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cue {
    Wanted { create: bool },
    Loaded(Loaded),
    Made,
    Dropped,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Ask the store; Activating.
    Load,
    /// Run the call that asked; Making if it is a create, else no change.
    Run,
    /// The call that asked waits.
    Wait,
    /// The call that asked is a create and too late.
    RefuseExists,
    /// All calls with the lock may run; Active.
    RunHolders,
    /// Refuse all calls but creates; Passive.
    RefuseAbsent,
    /// Refuse all calls: the object is elsewhere; Passive.
    RefuseMoved,
    /// Refuse all calls; Passive.
    RefuseAll(Fault),
    /// Nothing.
    Ignore,
    /// Somebody broke the rules.
    Mistake,
}

/// The machine: the table of the module doc.
pub(crate) fn next(image: Image, cue: Cue) -> (Image, Next) {
    match (image, cue) {
        (Image::Passive, Cue::Wanted { create: false }) => (Image::Activating, Next::Load),
        (Image::Passive, Cue::Wanted { create: true }) => (Image::Making, Next::Run),
        (Image::Activating, Cue::Wanted { .. }) => (image, Next::Wait),
        (Image::Active, Cue::Wanted { create: false }) => (image, Next::Run),
        (Image::Active, Cue::Wanted { create: true }) => (image, Next::RefuseExists),
        (Image::Activating, Cue::Loaded(Loaded::Found { .. })) => (Image::Active, Next::RunHolders),
        (Image::Activating, Cue::Loaded(Loaded::Absent)) => (Image::Passive, Next::RefuseAbsent),
        (Image::Activating, Cue::Loaded(Loaded::Moved)) => (Image::Passive, Next::RefuseMoved),
        (Image::Activating, Cue::Loaded(Loaded::Failed(fault))) => {
            (Image::Passive, Next::RefuseAll(fault))
        }
        (Image::Passive | Image::Active, Cue::Loaded(_)) => (image, Next::Ignore),
        (Image::Making, Cue::Made) => (Image::Active, Next::Ignore),
        (Image::Making | Image::Active, Cue::Dropped) => (Image::Passive, Next::Ignore),
        (Image::Making, Cue::Wanted { .. } | Cue::Loaded(_))
        | (Image::Passive | Image::Activating, Cue::Made | Cue::Dropped)
        | (Image::Active, Cue::Made) => (image, Next::Mistake),
    }
}

/// What an object is besides its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Persistent,
    /// Persistent, replicated, and led here.
    Replicated,
    /// Replicated and not led here any more: no call comes in, and it leaves memory when it can.
    Expelled,
    /// Persistent, and to move to another node: its calls are held back.
    Leaving,
    Volatile,
    /// Volatile and ended, but with calls still running.
    Retired,
}

/// One object that is in memory, on its way there, or called.
///
/// It is one cache line: a call of an object that was not called for long waits for it.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Object {
    pub(crate) uid: Uid,
    pub(crate) image: Image,
    pub(crate) kind: Kind,
    /// Whether somebody is bound to it; decides the idle queue.
    bound: bool,
    idle: bool,
    /// Calls that are Queued or later.
    pub(crate) calls: u32,
    /// Those of them that have not started.
    pub(crate) waiting: u32,
    /// Those of them in the queue of the lock.
    pub(crate) parked: u32,
    /// Those of them that said what they are part of.
    pub(crate) parked_kin: u32,
    /// Levels of actions that have the lock: what they did must stay in memory.
    pub(crate) held: u32,
    /// Calls of actions inside the image, and those that wait for them to come out.
    pub(crate) gate: Option<Box<Gate>>,
    size_bytes: u64,
    last_use: Time,
}

impl Object {
    #[inline]
    pub(crate) fn is_volatile(&self) -> bool {
        self.kind >= Kind::Volatile
    }

    #[inline]
    pub(crate) fn is_replicated(&self) -> bool {
        self.kind == Kind::Replicated
    }

    #[inline]
    pub(crate) fn is_expelled(&self) -> bool {
        self.kind == Kind::Expelled
    }

    #[inline]
    pub(crate) fn is_leaving(&self) -> bool {
        self.kind == Kind::Leaving
    }

    #[inline]
    pub(crate) fn is_retired(&self) -> bool {
        self.kind == Kind::Retired
    }
}

/// All objects of a shard that are in memory or called.
#[derive(Debug)]
pub(crate) struct Objects {
    slots: Index,
    entries: Slab<Object>,
    idle_links: Beside,
    idle_free: List,
    idle_bound: List,
    active_bytes: u64,
    volatile: u32,
}

impl Objects {
    /// The seed is one that callers do not know: they choose the uids that they call.
    pub(crate) fn seeded(seed: u64) -> Self {
        Self {
            slots: Index::seeded(seed),
            entries: Slab::new(),
            idle_links: Beside::default(),
            idle_free: List::EMPTY,
            idle_bound: List::EMPTY,
            active_bytes: 0,
            volatile: 0,
        }
    }

    #[inline]
    pub(crate) fn slot(&self, uid: Uid) -> Option<Slot> {
        let hash = self.slots.hash(LockKey::object(uid));
        self.slots.find(hash, |slot| self.entries[slot].uid == uid)
    }

    #[inline]
    pub(crate) fn entry(&self, slot: Slot) -> &Object {
        &self.entries[slot]
    }

    #[inline]
    pub(crate) fn entry_mut(&mut self, slot: Slot) -> &mut Object {
        &mut self.entries[slot]
    }

    /// Enters a persistent object, not in memory.
    pub(crate) fn insert(&mut self, uid: Uid, bound: bool) -> Slot {
        assert!(self.slot(uid).is_none(), "{uid} is entered twice");
        let slot = self.entries.insert(Object {
            uid,
            image: Image::Passive,
            kind: Kind::Persistent,
            bound,
            idle: false,
            calls: 0,
            waiting: 0,
            parked: 0,
            parked_kin: 0,
            held: 0,
            gate: None,
            size_bytes: 0,
            last_use: Time(0),
        });
        self.idle_links.cover(slot);
        self.slots
            .insert(self.slots.hash(LockKey::object(uid)), slot);
        slot
    }

    /// Removes an entry that holds nothing.
    pub(crate) fn remove(&mut self, slot: Slot) {
        let object = self.entries.remove(slot);
        assert!(
            !object.idle && object.calls == 0,
            "{} is removed while in use",
            object.uid
        );
        assert!(
            object.size_bytes == 0,
            "{} is removed from memory but counted",
            object.uid
        );
        let hash = self.slots.hash(LockKey::object(object.uid));
        self.slots.remove(hash, slot);
        self.volatile -= u32::from(object.is_volatile());
    }

    /// Makes an entry volatile.
    pub(crate) fn set_volatile(&mut self, slot: Slot) {
        let object = &mut self.entries[slot];
        assert!(
            object.kind == Kind::Persistent && !object.idle,
            "{} cannot become volatile",
            object.uid
        );
        object.kind = Kind::Volatile;
        object.image = Image::Active;
        self.volatile += 1;
    }

    /// Notes how large a persistent object's state is now; 0 when it left memory.
    pub(crate) fn set_size(&mut self, slot: Slot, size_bytes: u64) {
        let object = &mut self.entries[slot];
        assert!(
            !object.is_volatile(),
            "{} is volatile and not counted",
            object.uid
        );
        self.active_bytes = self.active_bytes - object.size_bytes + size_bytes;
        object.size_bytes = size_bytes;
    }

    /// Notes whether somebody is bound to the object, which counts as a use.
    pub(crate) fn set_bound(&mut self, now: Time, slot: Slot, bound: bool) {
        let was_idle = self.entries[slot].idle;
        self.set_busy(slot);
        self.entries[slot].bound = bound;
        if was_idle {
            self.set_idle(now, slot);
        }
    }

    /// The object has a call: it cannot leave.
    #[inline]
    pub(crate) fn set_busy(&mut self, slot: Slot) {
        if !self.entries[slot].idle {
            return;
        }
        self.entries[slot].idle = false;
        if self.entries[slot].bound {
            self.idle_bound.take_out(&mut self.idle_links, slot);
        } else {
            self.idle_free.take_out(&mut self.idle_links, slot);
        }
    }

    /// The object has no call any more: it may leave, after all that are idle already.
    #[inline]
    pub(crate) fn set_idle(&mut self, now: Time, slot: Slot) {
        let object = &mut self.entries[slot];
        assert!(
            !object.idle && !object.is_volatile(),
            "{} cannot become idle",
            object.uid
        );
        assert!(
            object.calls == 0 && object.held == 0 && object.image == Image::Active,
            "{} is in use",
            object.uid
        );
        object.idle = true;
        object.last_use = now;
        if object.bound {
            self.idle_bound.push_last(&mut self.idle_links, slot);
        } else {
            self.idle_free.push_last(&mut self.idle_links, slot);
        }
    }

    #[inline]
    pub(crate) fn is_idle(&self, slot: Slot) -> bool {
        self.entries[slot].idle
    }

    /// The idle object that was not used for longest.
    #[inline]
    pub(crate) fn longest_unused(&self) -> Option<Slot> {
        let heads = [self.idle_free.first(), self.idle_bound.first()];
        heads
            .into_iter()
            .flatten()
            .min_by_key(|slot| self.entries[*slot].last_use)
    }

    /// When which object will have been idle for too long.
    pub(crate) fn next_expiry(&self, limits: &Limits) -> Option<(Time, Slot)> {
        let bound_ns = limits.idle_ns.saturating_mul(Limits::BOUND_IDLE_FACTOR);
        let heads = [
            (self.idle_free.first(), limits.idle_ns),
            (self.idle_bound.first(), bound_ns),
        ];
        let expiry = |(head, idle_ns): (Option<Slot>, u64)| {
            head.map(|slot| {
                (
                    Time(self.entries[slot].last_use.0.saturating_add(idle_ns)),
                    slot,
                )
            })
        };
        heads.into_iter().filter_map(expiry).min()
    }

    /// How large a persistent object's state is, as far as it is in memory.
    pub(crate) fn size_bytes(&self, slot: Slot) -> u64 {
        self.entries[slot].size_bytes
    }

    #[inline]
    pub(crate) fn active_bytes(&self) -> u64 {
        self.active_bytes
    }

    #[inline]
    pub(crate) fn persistent(&self) -> u32 {
        let all = u32::try_from(self.entries.len()).expect("tables are bounded below 2^32");
        all - self.volatile
    }

    pub(crate) fn volatile(&self) -> u32 {
        self.volatile
    }

    pub(crate) fn idle(&self) -> u32 {
        self.idle_free.len() + self.idle_bound.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Slot, &Object)> {
        self.entries.iter()
    }

    pub(crate) fn check(&self, limits: &Limits) {
        assert!(
            self.slots.len() == self.entries.len(),
            "objects are miscounted"
        );
        assert!(
            self.persistent() <= limits.active_objects_max,
            "too many objects"
        );
        assert!(
            self.volatile <= limits.volatile_objects_max,
            "too many volatile objects"
        );
        let (mut bytes, mut volatile, mut idle) = (0, 0, 0);
        for (slot, object) in self.entries.iter() {
            let uid = object.uid;
            assert!(
                self.slot(uid) == Some(slot),
                "{uid} leads to another object"
            );
            assert!(
                object.waiting <= object.calls,
                "{uid} has more waiting calls than calls"
            );
            assert!(
                object.waiting <= limits.object_queue_max,
                "{uid} has too many waiting calls"
            );
            let in_memory = object.image == Image::Active || object.image == Image::Making;
            assert!(
                in_memory || object.size_bytes == 0,
                "{uid} is counted but not in memory"
            );
            let free = object.calls == 0 && object.held == 0;
            let unused = free && object.image == Image::Active && !object.is_volatile();
            assert!(object.parked <= object.waiting, "{uid} is miscounted");
            assert!(object.parked_kin <= object.parked, "{uid} is miscounted");
            if let Some(gate) = &object.gate {
                gate.check();
                assert!(!gate.is_empty(), "{uid} has a gate for nobody");
            }
            assert!(object.idle == unused, "{uid} is idle or not, wrongly");
            let alive = object.calls > 0 || object.image != Image::Passive;
            assert!(alive, "{uid} should have vanished");
            bytes += object.size_bytes;
            volatile += u32::from(object.is_volatile());
            idle += u32::from(object.idle);
        }
        assert!(bytes == self.active_bytes, "bytes in memory are miscounted");
        assert!(volatile == self.volatile, "volatile objects are miscounted");
        assert!(idle == self.idle(), "idle objects are miscounted");
        for (list, bound) in [(&self.idle_free, false), (&self.idle_bound, true)] {
            let mut last = Time(0);
            for slot in list.iter(&self.idle_links) {
                let object = &self.entries[slot];
                assert!(
                    object.idle && object.bound == bound,
                    "{} is misplaced",
                    object.uid
                );
                assert!(last <= object.last_use, "{} is out of order", object.uid);
                last = object.last_use;
            }
        }
    }
}

#[cfg(test)]
mod tests;
