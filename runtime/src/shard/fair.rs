//! Whose turn it is when one input lets many calls run.
//!
//! A writer that gives its lock back may let a thousand readers of one object in. If all of them
//! ran at once, in the input that let them in, whatever else comes to the shard would wait for a
//! thousand calls. So the first runs at once, the others stand here in a queue for each object.
//! The queues have turns of one call; inputs come before, so a call that arrives meanwhile is
//! granted and stands behind one call of the busy object. After some calls the thread is given to
//! connections.
//!
//! Only reads outside actions of persistent objects wait here: what can be granted to many at a
//! time. Such an object cannot leave memory, and nothing is to be undone of a call that is killed
//! before its servant has begun.

use std::collections::VecDeque;
use std::rc::Rc;

use partha_core::id::Uid;
use partha_core::{Ended, Input, Mode, ObjectSlot, Ticket};

use super::Shard;
use crate::hash::IdMap;

/// Calls that wait here and run before connections have their turn: as many as a connection may
/// bring in one of its own.
const CALLS_A_TURN: u32 = 16;

/// Calls that may run, by object.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Objects with such calls, the next one first.
    objects: VecDeque<Uid>,
    calls: IdMap<Uid, VecDeque<(ObjectSlot, Ticket)>>,
    /// A task goes on with them.
    goes_on: bool,
}

impl Turns {
    pub(super) fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Adds a call, behind those of its object.
    pub(super) fn push(&mut self, uid: Uid, slot: ObjectSlot, ticket: Ticket) {
        let calls = self.calls.entry(uid).or_default();
        if calls.is_empty() {
            self.objects.push_back(uid);
        }
        calls.push_back((slot, ticket));
    }

    /// The call whose turn it is; the next one is of another object, if there are others.
    pub(super) fn next(&mut self) -> Option<(Uid, ObjectSlot, Ticket)> {
        let uid = self.objects.pop_front()?;
        let calls = self.calls.get_mut(&uid)?;
        let (slot, ticket) = calls.pop_front()?;
        if calls.is_empty() {
            self.calls.remove(&uid);
        } else {
            self.objects.push_back(uid);
        }
        Some((uid, slot, ticket))
    }

    /// Takes a call out that is not to run any more. False if it is not here.
    pub(super) fn remove(&mut self, uid: Uid, ticket: Ticket) -> bool {
        let Some(calls) = self.calls.get_mut(&uid) else {
            return false;
        };
        let before = calls.len();
        calls.retain(|(_, waiting)| *waiting != ticket);
        let found = calls.len() < before;
        if calls.is_empty() {
            self.calls.remove(&uid);
            self.objects.retain(|object| *object != uid);
        }
        found
    }
}

impl Shard {
    /// Whether a call has to wait for its turn; `first` is true of the first that its input lets
    /// run.
    pub(super) fn waits_its_turn(&self, uid: Uid, mode: Mode, first: bool) -> bool {
        let waits = !first || !self.turns.borrow().is_empty();
        waits && mode == Mode::Read && self.catalog.borrow().is_active(uid)
    }

    /// Runs calls in turn, one after each round of inputs, until connections are to have theirs.
    /// True if there was one.
    pub(super) fn run_next(self: &Rc<Self>, ran: &mut u32) -> bool {
        if *ran == CALLS_A_TURN {
            self.go_on_later();
            return false;
        }
        let next = self.turns.borrow_mut().next();
        let Some((uid, slot, ticket)) = next else {
            return false;
        };
        *ran += 1;
        self.dispatch(ticket, (uid, slot), Mode::Read, false, None);
        true
    }

    fn go_on_later(self: &Rc<Self>) {
        let mut turns = self.turns.borrow_mut();
        if turns.is_empty() || turns.goes_on {
            return;
        }
        let Some(local) = self.local.upgrade() else {
            return;
        };
        turns.goes_on = true;
        let shard = self.clone();
        local.spawn_local(async move {
            tokio::task::yield_now().await;
            shard.turns.borrow_mut().goes_on = false;
            shard.go_on();
        });
    }

    /// A call that has not begun, but which the engine takes for running, is to be stopped. False
    /// if it is not one of these.
    pub(super) fn loses_its_turn(&self, uid: Uid, ticket: Ticket) -> bool {
        let lost = self.turns.borrow_mut().remove(uid, ticket);
        if lost {
            let (ended, size_bytes) = (Ended::Killed, 0);
            self.later(Input::Returned {
                ticket,
                ended,
                size_bytes,
            });
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use partha_core::id::NodeId;

    fn uid(local: u64) -> Uid {
        let node = NodeId(1);
        Uid { node, local }
    }

    fn slot(number: u32) -> ObjectSlot {
        ObjectSlot(number)
    }

    #[test]
    fn a_busy_object_has_one_turn_between_those_of_others() {
        let mut turns = Turns::default();
        (0..1_000).for_each(|n| turns.push(uid(1), slot(1), Ticket(n)));
        turns.push(uid(2), slot(2), Ticket(1_000));
        assert_eq!(turns.next(), Some((uid(1), slot(1), Ticket(0))));
        assert_eq!(turns.next(), Some((uid(2), slot(2), Ticket(1_000))));
        turns.push(uid(3), slot(3), Ticket(1_001));
        turns.push(uid(3), slot(3), Ticket(1_002));
        assert_eq!(turns.next(), Some((uid(1), slot(1), Ticket(1))));
        assert_eq!(turns.next(), Some((uid(3), slot(3), Ticket(1_001))));
        assert_eq!(turns.next(), Some((uid(1), slot(1), Ticket(2))));
        assert!(turns.remove(uid(3), Ticket(1_002)));
        assert!(!turns.remove(uid(3), Ticket(1_002)) && !turns.remove(uid(1), Ticket(0)));
        assert!(turns.remove(uid(1), Ticket(3)));
        for left in 4..1_000 {
            assert_eq!(turns.next(), Some((uid(1), slot(1), Ticket(left))));
        }
        assert!(turns.next().is_none() && turns.is_empty() && turns.calls.is_empty());
    }
}
