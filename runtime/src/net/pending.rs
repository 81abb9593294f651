//! The questions asked on a connection and not answered yet.
//!
//! A slot is used again only after its answer came, or the connection is gone: an answer that
//! comes late finds its own, abandoned slot and never a later call's. The answer waits in the
//! slot until its caller takes it, so that a call needs no channel of its own.

use std::task::{Poll, Waker};
use std::time::Instant;

use partha_core::action::scope::Report;
use partha_wire::Message;

use crate::error::{Completed, ErrorKind, SystemError};

/// What a caller waits for.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// Rooted at the results, or why there are none.
    pub(crate) outcome: Result<Message, SystemError>,
    /// Of a call in an action: who takes part in it because of the call. Whatever the outcome.
    pub(crate) report: Option<Box<Report>>,
}

impl From<Result<Message, SystemError>> for Answer {
    fn from(outcome: Result<Message, SystemError>) -> Self {
        let report = None;
        Self { outcome, report }
    }
}

impl From<SystemError> for Answer {
    fn from(error: SystemError) -> Self {
        Err(error).into()
    }
}

/// The table of open questions of one connection.
#[derive(Debug)]
pub(crate) struct Pending {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// The question that was asked last.
    latest: u32,
    max: usize,
    /// There was a question.
    asked: bool,
    /// Set when the connection ended.
    closed: Option<SystemError>,
}

#[derive(Debug)]
enum Slot {
    Free,
    Waiting {
        /// None until the caller has looked for the answer once.
        waker: Option<Waker>,
        deadline: Instant,
    },
    /// The answer came, its caller has not taken it yet.
    Answered(Answer),
    /// The caller has been told why there is none, or will be; the answer is still to come.
    Expired(SystemError),
    /// The caller is gone, the answer is still to come.
    Abandoned,
}

impl Pending {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            latest: 0,
            max,
            asked: false,
            closed: None,
        }
    }

    /// Opens a question. Its number is never 0, which means that no answer is wanted.
    pub(crate) fn ask(&mut self, deadline: Instant) -> Result<u32, SystemError> {
        if let Some(error) = &self.closed {
            return Err(error.clone().completed(Completed::No));
        }
        let waker = None;
        let slot = Slot::Waiting { waker, deadline };
        if let Some(index) = self.free.pop() {
            self.slots[index as usize] = slot;
            self.latest = index;
            return Ok(index + 1);
        }
        if self.slots.len() >= self.max {
            let detail = format!("{} calls wait on this connection already", self.max);
            return Err(SystemError::new(ErrorKind::Overloaded, detail));
        }
        self.asked = true;
        self.latest = self.slots.len() as u32;
        self.slots.push(slot);
        Ok(self.slots.len() as u32)
    }

    /// Whether there is room for a question more.
    pub(crate) fn has_room(&self) -> bool {
        !self.free.is_empty() || self.slots.len() < self.max
    }

    /// How many are open, or not over yet.
    pub(crate) fn open(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// The caller who waits for the only open question.
    pub(crate) fn only_caller(&self) -> Option<Waker> {
        match self.slots.get(self.latest as usize) {
            Some(Slot::Waiting { waker, .. }) if self.open() == 1 => waker.clone(),
            _ => None,
        }
    }

    /// A caller looks for its answer just now.
    pub(crate) fn overlook(&mut self, question: u32) {
        if let Slot::Waiting { waker, .. } = &mut self.slots[question as usize - 1] {
            *waker = None;
        }
    }

    /// Whether there ever was a question.
    pub(crate) fn has_asked(&self) -> bool {
        self.asked
    }

    /// The answer to a question that this caller has asked; it is over then.
    pub(crate) fn poll(&mut self, question: u32, caller: &Waker) -> Poll<Answer> {
        let index = question - 1;
        let slot = &mut self.slots[index as usize];
        match slot {
            Slot::Waiting { waker, .. } => {
                if !waker.as_ref().is_some_and(|known| known.will_wake(caller)) {
                    *waker = Some(caller.clone());
                }
                Poll::Pending
            }
            Slot::Answered(_) => {
                self.free.push(index);
                match std::mem::replace(slot, Slot::Free) {
                    Slot::Answered(answer) => Poll::Ready(answer),
                    _ => unreachable!("it was just looked at"),
                }
            }
            Slot::Expired(error) => {
                let answer = error.clone().into();
                *slot = Slot::Abandoned;
                Poll::Ready(answer)
            }
            Slot::Free | Slot::Abandoned => {
                unreachable!("a caller that waits keeps its question open")
            }
        }
    }

    /// The answer to a question came: who is to be woken for it. `Err` if no such question is
    /// open, which is the peer's mistake.
    pub(crate) fn answered(&mut self, question: u32, answer: Answer) -> Result<Option<Waker>, ()> {
        let index = question.checked_sub(1).ok_or(())?;
        let slot = self.slots.get_mut(index as usize).ok_or(())?;
        match slot {
            Slot::Free | Slot::Answered(_) => Err(()),
            Slot::Waiting { waker, .. } => {
                let waker = waker.take();
                *slot = Slot::Answered(answer);
                Ok(waker)
            }
            // Its caller is woken already.
            Slot::Expired(_) => {
                *slot = Slot::Answered(answer);
                Ok(None)
            }
            Slot::Abandoned => {
                *slot = Slot::Free;
                self.free.push(index);
                Ok(None)
            }
        }
    }

    /// The question was not sent after all.
    pub(crate) fn withdraw(&mut self, question: u32) {
        self.slots[question as usize - 1] = Slot::Free;
        self.free.push(question - 1);
    }

    /// Nobody waits any more; true if the answer was still to come.
    pub(crate) fn abandon(&mut self, question: u32) -> bool {
        let slot = question
            .checked_sub(1)
            .and_then(|index| self.slots.get_mut(index as usize));
        match slot {
            Some(slot @ (Slot::Waiting { .. } | Slot::Expired(_))) => {
                *slot = Slot::Abandoned;
                true
            }
            Some(slot @ Slot::Answered(_)) => {
                *slot = Slot::Free;
                self.free.push(question - 1);
                false
            }
            Some(Slot::Free | Slot::Abandoned) | None => false,
        }
    }

    /// Gives up all whose deadline has passed: who is to be woken. Their callers find the error.
    pub(crate) fn expire(&mut self, now: Instant, error: impl Fn() -> SystemError) -> Vec<Waker> {
        let mut woken = Vec::new();
        for slot in &mut self.slots {
            if let Slot::Waiting { waker, deadline } = slot
                && *deadline <= now
            {
                woken.extend(waker.take());
                *slot = Slot::Expired(error());
            }
        }
        woken
    }

    /// True if somebody waits.
    pub(crate) fn is_waiting(&self) -> bool {
        self.open() > 0
    }

    /// Gives the memory of a burst back, if nobody waits.
    pub(crate) fn trim(&mut self) {
        if !self.is_waiting() {
            (self.slots, self.free) = (Vec::new(), Vec::new());
        }
    }

    /// Why the connection ended, if it has.
    pub(crate) fn closed(&self) -> Option<&SystemError> {
        self.closed.as_ref()
    }

    /// Ends the table: everybody who waits gets the error, and so does who comes later. Who is to
    /// be woken.
    pub(crate) fn close(&mut self, error: &SystemError) -> Vec<Waker> {
        let mut woken = Vec::new();
        if self.closed.is_some() {
            return woken;
        }
        self.closed = Some(error.clone());
        for (slot, index) in self.slots.iter_mut().zip(0..) {
            match slot {
                Slot::Waiting { waker, .. } => {
                    woken.extend(waker.take());
                    *slot = Slot::Answered(error.clone().completed(Completed::Maybe).into());
                }
                Slot::Expired(error) => *slot = Slot::Answered(error.clone().into()),
                Slot::Abandoned => {
                    *slot = Slot::Free;
                    self.free.push(index);
                }
                Slot::Free | Slot::Answered(_) => {}
            }
        }
        woken
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn answer() -> Answer {
        SystemError::new(ErrorKind::Servant, "answered").into()
    }

    fn poll(pending: &mut Pending, question: u32) -> Option<SystemError> {
        match pending.poll(question, Waker::noop()) {
            Poll::Ready(answer) => Some(answer.outcome.unwrap_err()),
            Poll::Pending => None,
        }
    }

    #[test]
    fn an_answer_waits_for_its_caller_and_wakes_it_once() {
        let mut pending = Pending::new(8);
        let early = pending.ask(Instant::now()).unwrap();
        assert!(pending.answered(early, answer()).unwrap().is_none());
        assert!(pending.is_waiting());
        assert_eq!(poll(&mut pending, early).unwrap().detail(), "answered");
        assert!(!pending.is_waiting());
        let late = pending.ask(Instant::now()).unwrap();
        assert!(poll(&mut pending, late).is_none());
        assert!(pending.answered(late, answer()).unwrap().is_some());
        assert!(pending.answered(late, answer()).is_err(), "only once");
        assert!(poll(&mut pending, late).is_some());
        assert!(pending.answered(late, answer()).is_err(), "it is over");
    }

    #[test]
    fn a_late_answer_never_meets_a_later_question() {
        let mut pending = Pending::new(8);
        let first = pending.ask(Instant::now()).unwrap();
        assert!(pending.abandon(first));
        let second = pending.ask(Instant::now()).unwrap();
        assert_ne!(first, second, "the slot is kept for the late answer");
        assert!(pending.answered(first, answer()).unwrap().is_none());
        let third = pending.ask(Instant::now()).unwrap();
        assert_eq!(third, first, "and used again after it");
        pending.withdraw(third);
        assert_eq!(pending.ask(Instant::now()).unwrap(), third);
    }

    #[test]
    fn an_answer_that_nobody_takes_is_dropped_with_its_question() {
        let mut pending = Pending::new(8);
        let question = pending.ask(Instant::now()).unwrap();
        assert!(pending.answered(question, answer()).is_ok());
        assert!(!pending.abandon(question), "the peer need not be told");
        assert!(!pending.is_waiting());
        pending.trim();
        assert!(pending.has_asked());
        assert_eq!(pending.ask(Instant::now()).unwrap(), 1);
    }

    #[test]
    fn an_answer_nobody_asked_for_is_the_peers_mistake() {
        let mut pending = Pending::new(8);
        let question = pending.ask(Instant::now()).unwrap();
        assert!(pending.answered(0, answer()).is_err());
        assert!(pending.answered(9, answer()).is_err());
        assert!(pending.answered(question, answer()).is_ok());
        assert!(pending.answered(question, answer()).is_err());
    }

    #[test]
    fn the_table_is_bounded_and_closes_with_a_reason() {
        let mut pending = Pending::new(1);
        let question = pending.ask(Instant::now()).unwrap();
        let full = pending.ask(Instant::now()).unwrap_err();
        assert_eq!(full.kind(), ErrorKind::Overloaded);
        assert!(poll(&mut pending, question).is_none());
        let cut = SystemError::new(ErrorKind::BindingBroken, "cut");
        assert_eq!(pending.close(&cut).len(), 1);
        let error = poll(&mut pending, question).unwrap();
        assert_eq!(error.completion(), Completed::Maybe);
        let after = pending.ask(Instant::now()).unwrap_err();
        assert_eq!(
            (after.kind(), after.completion()),
            (ErrorKind::BindingBroken, Completed::No)
        );
    }

    #[test]
    fn expiry_takes_out_only_the_late() {
        let mut pending = Pending::new(8);
        let now = Instant::now();
        let late = || SystemError::new(ErrorKind::Deadline, "late");
        let questions = [now, now, now, now + Duration::from_secs(60)];
        let questions = questions.map(|deadline| pending.ask(deadline).unwrap());
        for question in questions {
            assert!(poll(&mut pending, question).is_none());
        }
        assert_eq!(pending.expire(now, late).len(), 3);
        assert_eq!(pending.expire(now, late).len(), 0);
        let [told, answered, given_up, early] = questions;
        assert_eq!(poll(&mut pending, told).unwrap().detail(), "late");
        assert!(pending.answered(answered, answer()).unwrap().is_none());
        assert_eq!(poll(&mut pending, answered).unwrap().detail(), "answered");
        assert!(pending.abandon(given_up));
        for question in [told, given_up] {
            assert!(pending.answered(question, answer()).unwrap().is_none());
        }
        assert!(pending.is_waiting());
        assert!(poll(&mut pending, early).is_none());
    }
}
