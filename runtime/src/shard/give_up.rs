//! Calls that are given up: from whoever stops waiting to the servant that is stopped.
//!
//! Whoever makes a call of an object of this process holds an [`Open`]; a connection keeps those
//! of its peer in [`OpenCalls`]. To give one up is a wish: the engine says whether anybody else
//! waits for the call, and has its servant stopped if not. A servant that waits is dropped there
//! and then, and with it the calls it has made, so that orphans of orphans end as well.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use partha_core::id::Uid;
use partha_core::{Ended, Input, Ticket};

use super::job::{GoesOut, Job};
use super::serve::Servant;
use super::{Shard, ShardHandle};
use crate::abi::Finished;
use crate::config::QUESTIONS_MAX;
use crate::error::SystemError;
use crate::hash::IdMap;

/// How a shard knows a call that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Called {
    /// By its ticket: the caller is on the shard's thread.
    Ticket(Ticket),
    /// By the number that it was sent to the shard with.
    Number(u64),
}

/// A call under way of an object of this process.
#[derive(Debug)]
pub(crate) struct Open {
    pub(super) shard: ShardHandle,
    pub(super) called: Called,
}

impl Open {
    /// Nobody waits for its answer any more. Harmless if it is answered already.
    pub(crate) fn give_up(self) {
        match (self.shard.on_its_thread(), self.called) {
            (Some(shard), Called::Ticket(ticket)) => shard.feed(Input::Cancel { ticket }),
            // Behind the call itself, if that is still on its way.
            (_, called) => self.shard.post(Job::Cancel(called)),
        }
    }
}

/// Gives a call up when it is dropped before its answer was there.
#[derive(Debug)]
pub(crate) struct Waiting(pub(crate) Option<Open>);

impl Waiting {
    /// Whether the call is at a shard of another thread.
    pub(crate) fn is_elsewhere(&self) -> bool {
        let called = self.0.as_ref().map(|open| open.called);
        matches!(called, Some(Called::Number(_)))
    }

    /// The answer is there.
    pub(crate) fn answered(mut self) {
        self.0 = None;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(open) = self.0.take() {
            open.give_up();
        }
    }
}

/// What a peer has asked over one connection, by question number. One that was answered stays
/// until its number is used again or nothing is asked any more, and is harmless, since neither
/// tickets nor numbers are used again.
///
/// The peer chooses its numbers: what is kept follows how many it has used, not how high they are.
/// One that counts up from 1 and uses its numbers again, as ours do, has a place for each.
#[derive(Debug)]
pub(crate) struct OpenCalls<T> {
    /// By question, from 1.
    in_turn: Vec<Option<T>>,
    /// Those whose numbers were too high for that when they came first.
    others: IdMap<u32, T>,
}

impl<T> Default for OpenCalls<T> {
    fn default() -> Self {
        let (in_turn, others) = (Vec::new(), IdMap::default());
        Self { in_turn, others }
    }
}

impl<T> OpenCalls<T> {
    /// Notes the latest call with this number; none if it was refused at the door.
    pub(crate) fn note(&mut self, question: u32, call: Option<T>) {
        if !(1..=QUESTIONS_MAX as u32).contains(&question) {
            return;
        }
        let index = question as usize - 1;
        if let Some(place) = self.in_turn.get_mut(index) {
            *place = call;
        } else if call.is_some() && index == self.in_turn.len() {
            self.in_turn.push(call);
            self.others.remove(&question);
        } else if let Some(call) = call {
            self.others.insert(question, call);
        } else {
            self.others.remove(&question);
        }
    }

    /// Takes out the latest call with this number.
    pub(crate) fn take(&mut self, question: u32) -> Option<T> {
        let index = question.checked_sub(1)? as usize;
        match self.in_turn.get_mut(index) {
            Some(place) => place.take(),
            None => self.others.remove(&question),
        }
    }

    /// Forgets them, since all are answered, and gives their memory back.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Takes out all of them.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = T> + use<T> {
        let Self { in_turn, others } = std::mem::take(self);
        in_turn.into_iter().flatten().chain(others.into_values())
    }
}

/// A servant that waits for something, shared by the task that polls it and whoever may stop it.
#[derive(Default)]
pub(super) struct Stoppable {
    servant: RefCell<Option<Servant>>,
    killed: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Stoppable {
    pub(super) fn new(servant: Servant) -> Rc<Self> {
        let servant = RefCell::new(Some(servant));
        Rc::new(Self {
            servant,
            ..Self::default()
        })
    }

    /// Polls the servant; none if it was stopped.
    pub(super) fn poll(
        &self,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Finished, SystemError>>> {
        let mut servant = self.servant.borrow_mut();
        let polled = servant
            .as_mut()
            .map(|servant| std::pin::Pin::new(servant).poll(task));
        let stopped = self.killed.get();
        match polled {
            None => Poll::Ready(None),
            Some(_) if stopped => {
                let dropped = servant.take();
                drop(servant);
                drop(dropped);
                Poll::Ready(None)
            }
            Some(Poll::Ready(finished)) => Poll::Ready(Some(finished)),
            Some(Poll::Pending) => {
                let mut waker = self.waker.borrow_mut();
                if !waker
                    .as_ref()
                    .is_some_and(|known| known.will_wake(task.waker()))
                {
                    *waker = Some(task.waker().clone());
                }
                Poll::Pending
            }
        }
    }

    /// Drops the servant where it waits; one that causes its own end goes on to where it waits
    /// next.
    fn kill(&self) {
        self.killed.set(true);
        let servant = self.servant.try_borrow_mut();
        let dropped = servant.ok().and_then(|mut servant| servant.take());
        drop(dropped);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Shard {
    /// Nobody waits for a call any more.
    pub(super) fn give_up_call(self: &Rc<Self>, called: Called) {
        let ticket = match called {
            Called::Ticket(ticket) => Some(ticket),
            Called::Number(number) => self.numbers.borrow().get(&number).copied(),
        };
        if let Some(ticket) = ticket {
            self.feed(Input::Cancel { ticket });
        }
    }

    /// Stops a servant. One that has ended by itself is not there any more.
    pub(super) fn kill(&self, ticket: Ticket) {
        let mut entries = self.entries.borrow_mut();
        let entry = entries.find_mut(ticket);
        if let Some(entry) = &entry
            && self.loses_its_turn(entry.object, ticket)
        {
            return;
        }
        let (running, branch) = entry.map_or((None, None), |entry| {
            // Of a transient object, which has no mirror of the action here, or with a nested
            // action of its own.
            let branch = entry.branch.clone();
            let apart = branch.filter(|branch| !entry.in_action || branch.has_own_level());
            (entry.running.take(), apart)
        });
        drop(entries);
        let Some(running) = running else {
            return;
        };
        running.kill();
        if let Some(branch) = branch {
            branch.abandon();
        }
        self.later(Input::Returned {
            ticket,
            ended: Ended::Killed,
            size_bytes: 0,
        });
    }

    /// A servant is about to call elsewhere.
    pub(super) fn goes_out(self: &Rc<Self>, out: GoesOut) {
        let GoesOut {
            ticket,
            level,
            to,
            leave,
        } = out;
        let is_known = self.entries.borrow().find(ticket).is_some();
        if is_known {
            let mut leaving = self.leaving.borrow_mut();
            leaving.entry(ticket).or_default().push_back(leave);
            drop(leaving);
            self.feed(Input::GoesOut { ticket, level, to });
        }
    }

    /// A call runs that an earlier leader of its object had begun: what that had called is aborted.
    pub(super) fn begins_again(&self, ticket: Ticket, lost: Vec<Uid>) {
        let mut entries = self.entries.borrow_mut();
        if let Some(entry) = entries.find_mut(ticket) {
            tracing::info!(uid = %entry.object, nested = lost.len(), "a call is executed again");
            entry.lost = lost;
        }
    }

    /// It may.
    pub(super) fn go_out(&self, ticket: Ticket) {
        let mut leaving = self.leaving.borrow_mut();
        let leave = leaving.get_mut(&ticket).and_then(VecDeque::pop_front);
        drop(leaving);
        if let Some(leave) = leave {
            // The servant may have been stopped.
            let _ = leave.send(());
        }
    }

    /// The call is over.
    pub(super) fn forget_call(&self, ticket: Ticket) {
        let mut entries = self.entries.borrow_mut();
        let Some(entry) = entries.find_mut(ticket) else {
            return;
        };
        if let Some(number) = entry.number {
            self.numbers.borrow_mut().remove(&number);
        }
        // What a servant leaves behind is its author's code, which may call objects of this shard.
        let running = entry.running.take();
        let read = entry.at_copy.is_some().then_some(entry.object);
        let cohort = entry.cohort;
        entries.remove(ticket);
        if cohort {
            self.leaving.borrow_mut().remove(&ticket);
        }
        drop(entries);
        if let Some(object) = read {
            self.forget_read(object, ticket);
        }
        drop(running);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_high_number_costs_as_little_as_a_low_one() {
        let mut open = OpenCalls::default();
        open.note(QUESTIONS_MAX as u32, Some('a'));
        assert!(open.others.capacity() < 16 && open.in_turn.is_empty());
        for not_kept in [0, QUESTIONS_MAX as u32 + 1, u32::MAX] {
            open.note(not_kept, Some('b'));
            assert_eq!(open.take(not_kept), None);
        }
        assert_eq!(open.take(QUESTIONS_MAX as u32), Some('a'));
        (1..=1000).for_each(|question| open.note(question, Some('c')));
        assert_eq!(open.in_turn.len(), 1000);
        open.note(7, Some('d'));
        assert_eq!(open.take(7), Some('d'), "the latest one");
        open.note(8, None);
        assert_eq!(open.take(8), None);
        open.clear();
        assert_eq!((open.take_all().count(), open.in_turn.capacity()), (0, 0));
    }
}
