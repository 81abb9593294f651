//! The questions asked on a connection and not answered yet.
//!
//! A slot is used again only after its answer came, or the connection is gone: an answer that
//! comes late finds its own, abandoned slot and never a later call's.

use std::time::Instant;

use partha_core::action::scope::Report;
use partha_wire::Message;
use tokio::sync::oneshot;

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
    max: usize,
    /// Set when the connection ended.
    closed: Option<SystemError>,
}

#[derive(Debug)]
enum Slot {
    Free,
    Waiting {
        answer: oneshot::Sender<Answer>,
        deadline: Instant,
    },
    /// The caller is gone, the answer is still to come.
    Abandoned,
}

impl Pending {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            max,
            closed: None,
        }
    }

    /// Opens a question. Its number is never 0, which means that no answer is wanted.
    pub(crate) fn ask(
        &mut self,
        answer: oneshot::Sender<Answer>,
        deadline: Instant,
    ) -> Result<u32, SystemError> {
        if let Some(error) = &self.closed {
            return Err(error.clone().completed(Completed::No));
        }
        let slot = Slot::Waiting { answer, deadline };
        if let Some(index) = self.free.pop() {
            self.slots[index as usize] = slot;
            return Ok(index + 1);
        }
        if self.slots.len() >= self.max {
            let detail = format!("{} calls wait on this connection already", self.max);
            return Err(SystemError::new(ErrorKind::Overloaded, detail));
        }
        self.slots.push(slot);
        Ok(self.slots.len() as u32)
    }

    /// Whether there is room for a question more.
    pub(crate) fn has_room(&self) -> bool {
        !self.free.is_empty() || self.slots.len() < self.max
    }

    /// Whether there ever was a question.
    pub(crate) fn has_asked(&self) -> bool {
        !self.slots.is_empty()
    }

    /// Takes out who waits for this answer. `Err` if no such question is open, which is the
    /// peer's mistake; `Ok(None)` if its caller is gone.
    pub(crate) fn answered(
        &mut self,
        question: u32,
    ) -> Result<Option<oneshot::Sender<Answer>>, ()> {
        let index = question.checked_sub(1).ok_or(())?;
        let slot = self.slots.get_mut(index as usize).ok_or(())?;
        let taken = std::mem::replace(slot, Slot::Free);
        match taken {
            Slot::Free => Err(()),
            Slot::Waiting { answer, .. } => {
                self.free.push(index);
                Ok(Some(answer))
            }
            Slot::Abandoned => {
                self.free.push(index);
                Ok(None)
            }
        }
    }

    /// Nobody waits any more; true if the answer was still to come.
    pub(crate) fn abandon(&mut self, question: u32) -> bool {
        let slot = question
            .checked_sub(1)
            .and_then(|index| self.slots.get_mut(index as usize));
        match slot {
            Some(slot @ Slot::Waiting { .. }) => {
                *slot = Slot::Abandoned;
                true
            }
            Some(Slot::Free | Slot::Abandoned) | None => false,
        }
    }

    /// Takes out all whose deadline has passed.
    pub(crate) fn expired(&mut self, now: Instant) -> Vec<oneshot::Sender<Answer>> {
        let mut late = Vec::new();
        for slot in &mut self.slots {
            if matches!(slot, Slot::Waiting { deadline, .. } if *deadline <= now)
                && let Slot::Waiting { answer, .. } = std::mem::replace(slot, Slot::Abandoned)
            {
                late.push(answer);
            }
        }
        late
    }

    /// True if somebody waits.
    pub(crate) fn is_waiting(&self) -> bool {
        self.slots.len() > self.free.len()
    }

    /// Why the connection ended, if it has.
    pub(crate) fn closed(&self) -> Option<&SystemError> {
        self.closed.as_ref()
    }

    /// Ends the table: everybody who waits gets the error, and so does who comes later.
    pub(crate) fn close(&mut self, error: &SystemError) {
        if self.closed.is_some() {
            return;
        }
        self.closed = Some(error.clone());
        self.free.clear();
        for slot in self.slots.drain(..) {
            if let Slot::Waiting { answer, .. } = slot {
                // A receiver that is gone has stopped waiting: nothing is lost.
                let _ = answer.send(error.clone().completed(Completed::Maybe).into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(pending: &mut Pending) -> (u32, oneshot::Receiver<Answer>) {
        let (sender, receiver) = oneshot::channel();
        (pending.ask(sender, Instant::now()).unwrap(), receiver)
    }

    #[test]
    fn a_late_answer_never_meets_a_later_question() {
        let mut pending = Pending::new(8);
        let (first, _receiver) = ask(&mut pending);
        assert!(pending.abandon(first));
        let (second, _second_receiver) = ask(&mut pending);
        assert_ne!(first, second, "the slot is kept for the late answer");
        assert!(pending.answered(first).unwrap().is_none());
        let (third, _third_receiver) = ask(&mut pending);
        assert_eq!(third, first, "and used again after it");
    }

    #[test]
    fn an_answer_nobody_asked_for_is_the_peers_mistake() {
        let mut pending = Pending::new(8);
        let (question, _receiver) = ask(&mut pending);
        assert!(pending.answered(0).is_err());
        assert!(pending.answered(9).is_err());
        assert!(pending.answered(question).is_ok());
        assert!(pending.answered(question).is_err());
    }

    #[test]
    fn the_table_is_bounded_and_closes_with_a_reason() {
        let mut pending = Pending::new(1);
        let (_, mut receiver) = ask(&mut pending);
        let (sender, _) = oneshot::channel();
        let full = pending.ask(sender, Instant::now()).unwrap_err();
        assert_eq!(full.kind(), ErrorKind::Overloaded);
        pending.close(&SystemError::new(ErrorKind::BindingBroken, "cut"));
        let error = receiver.try_recv().unwrap().outcome.unwrap_err();
        assert_eq!(error.completion(), Completed::Maybe);
        let (sender, _) = oneshot::channel();
        let after = pending.ask(sender, Instant::now()).unwrap_err();
        assert_eq!(
            (after.kind(), after.completion()),
            (ErrorKind::BindingBroken, Completed::No)
        );
    }

    #[test]
    fn expiry_takes_out_only_the_late() {
        let mut pending = Pending::new(8);
        let now = Instant::now();
        let (sender, _early) = oneshot::channel();
        pending.ask(sender, now).unwrap();
        let (sender, _late) = oneshot::channel();
        pending
            .ask(sender, now + std::time::Duration::from_secs(60))
            .unwrap();
        assert_eq!(pending.expired(now).len(), 1);
        assert_eq!(pending.expired(now).len(), 0);
        assert!(pending.is_waiting());
    }
}
