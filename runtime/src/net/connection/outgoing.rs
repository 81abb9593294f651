//! What leaves by a connection: calls, answers, and how much of both may wait.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use partha_core::action::scope::Report;
use partha_wire::{TooLarge, Writer};
use tokio::sync::Notify;

use super::{Connection, Question, lock};
use crate::error::{ErrorKind, SystemError};
use crate::net::outbox::{Batch, Large, Outbox, Way};
use crate::net::socket::Past;
use crate::net::traffic::Backpressure;
use crate::wire::frame::{self, Frame};
use crate::wire::large::PART_BYTES;

/// Callers that wait until the connection has room for one call more. They are served in the order
/// in which they came: whoever makes room wakes the first, who wakes the next.
#[derive(Debug, Default)]
pub(super) struct Line {
    waiting: AtomicUsize,
    next: Notify,
}

/// A caller's place in the line.
struct Queued<'a> {
    connection: &'a Connection,
    way: Way,
    /// Nobody was there before.
    is_first: bool,
}

/// Why a call was not sent.
#[derive(Debug)]
pub(crate) struct Refused {
    error: SystemError,
    /// There is no room for it now. It is noted when that is found: a moment later there may be
    /// room again, and nobody would know why it was refused.
    wants_room: bool,
}

impl Refused {
    /// For want of room, if the error says that.
    pub(super) fn for_want_of_room(error: SystemError) -> Self {
        let wants_room = error.kind() == ErrorKind::Overloaded;
        Self { error, wants_room }
    }
}

impl From<SystemError> for Refused {
    fn from(error: SystemError) -> Self {
        let wants_room = false;
        Self { error, wants_room }
    }
}

impl From<Refused> for SystemError {
    fn from(refused: Refused) -> Self {
        refused.error
    }
}

/// When a frame is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// By the connection's task in its turn, with all others that are there by then.
    InTurn,
    /// At once, by whoever brings it, if it is alone and the socket takes it.
    Now,
}

/// How a call of so many bytes leaves.
pub(super) fn way_of_call(len: usize) -> Way {
    match len > PART_BYTES {
        true => Way::AsksMuch,
        false => Way::Asks,
    }
}

impl Connection {
    /// Sends an answer.
    ///
    /// # Errors
    /// If it is too large, a capability cannot travel here, or the connection is closed.
    pub(crate) fn answer(&self, mut w: Writer, question: u32) -> Result<(), SystemError> {
        let given = match w.attached().is_empty() {
            true => Vec::new(),
            false => self.number(&mut w, false)?,
        };
        let sent = self.check_len(w.len());
        let sent = sent.and_then(|()| self.send_written(&mut w, question, Way::Answers));
        if sent.is_err() {
            self.take_back(&given);
        }
        sent?;
        frame::recycle(w);
        Ok(())
    }

    /// Sends an answer that is a frame already.
    ///
    /// # Errors
    /// If it is too large, or the connection is closed.
    pub(crate) fn answer_framed(&self, framed: Vec<u8>, question: u32) -> Result<(), SystemError> {
        self.check_len(framed.len())?;
        let (way, unsent_max) = (Way::Answers, 2 * self.traffic.unsent_max());
        if self.leaves_in_parts(framed.len()) {
            let large = Large::of_frame(framed, question, way);
            return self.put_large(large, way, unsent_max);
        }
        self.put_framed(&framed, question, (way, When::Now), unsent_max)
    }

    /// Refuses what the peer would not take.
    pub(super) fn check_len(&self, len: usize) -> Result<(), SystemError> {
        if len <= self.message_bytes_max {
            return Ok(());
        }
        let detail = format!(
            "a message of {len} bytes to {}, which takes at most {}; send it in pieces, or raise \
             the limit there: `message_bytes_max` of its builder",
            self.peer_text(),
            self.message_bytes_max
        );
        Err(SystemError::new(ErrorKind::TooLarge, detail))
    }

    /// Puts what was written into the outbox; what is long is not copied.
    pub(super) fn send_written(
        &self,
        w: &mut Writer,
        number: u32,
        way: Way,
    ) -> Result<(), SystemError> {
        let unsent_max = self.traffic.unsent_max();
        let unsent_max = match way {
            Way::Asks | Way::AsksMuch => unsent_max,
            // What was begun is to be answered: nothing more is begun meanwhile.
            Way::Answers => 2 * unsent_max,
        };
        if self.leaves_in_parts(w.len()) {
            // Its own bytes are copied, as many as there may be: not while the outbox is locked,
            // and not in vain.
            self.check_room(&lock(&self.outbox), way, unsent_max)?;
            return self.put_large(Large::new(w, number, way)?, way, unsent_max);
        }
        if w.is_sharing() || w.len() > PART_BYTES {
            return self.put((way, When::InTurn), unsent_max, |outbox| {
                outbox.append_pieces(w, number, way)
            });
        }
        self.put_framed(w.framed()?, number, (way, When::Now), unsent_max)
    }

    /// Whether a message of so many bytes leaves in parts.
    fn leaves_in_parts(&self, len: usize) -> bool {
        len > PART_BYTES && self.peer.knows_parts()
    }

    /// Sends a frame that nobody answers: a message about actions, which is repeated if it is
    /// needed, or the end of a binding, which the peer finds out without it.
    ///
    /// # Errors
    /// The connection is closed, or too much is unsent.
    pub(crate) fn send(&self, framed: &[u8], number: u32) -> Result<(), SystemError> {
        let (when, unsent_max) = (When::InTurn, 2 * self.traffic.unsent_max());
        self.put_framed(framed, number, (Way::Asks, when), unsent_max)
    }

    /// Bytes that were to be sent and are no answers, and are still here.
    pub(crate) fn unsent_asks(&self) -> usize {
        lock(&self.outbox).unsent.asked
    }

    /// Answers with an error.
    pub(crate) fn fail(&self, error: &SystemError, question: u32) {
        self.fail_reporting(error, None, question);
    }

    /// Answers with an error: there is always room for so little, since there can be no more of
    /// them than calls. If the connection is closed, so is who asked.
    pub(crate) fn fail_reporting(
        &self,
        error: &SystemError,
        report: Option<&Report>,
        question: u32,
    ) {
        let framed = frame::failed(error, report);
        let how = (Way::Answers, When::Now);
        let put = self.put_framed(&framed, question, how, usize::MAX);
        if let Err(error) = put {
            tracing::debug!(%error, "an answer was not sent");
        }
    }

    fn put_framed(
        &self,
        framed: &[u8],
        number: u32,
        (way, when): (Way, When),
        unsent_max: usize,
    ) -> Result<(), SystemError> {
        self.put((way, when), unsent_max, |outbox| {
            outbox.append(framed, number, way);
            Ok(())
        })
    }

    fn put_large(&self, large: Large, way: Way, unsent_max: usize) -> Result<(), SystemError> {
        self.put((way, When::InTurn), unsent_max, |outbox| {
            outbox.append_large(large);
            Ok(())
        })
    }

    fn put(
        &self,
        (way, when): (Way, When),
        unsent_max: usize,
        add: impl FnOnce(&mut Outbox) -> Result<(), TooLarge>,
    ) -> Result<(), SystemError> {
        let mut outbox = lock(&self.outbox);
        self.check_room(&outbox, way, unsent_max)?;
        let first = outbox.is_empty();
        add(&mut outbox)?;
        if way == Way::Answers && outbox.unsent.answered > self.traffic.unsent_max() {
            self.crowded.store(true, Ordering::Relaxed);
        }
        // The task is not woken for a frame that leaves at once.
        let waits = !(first && when == When::Now && self.is_alone(way) && outbox.leave_now());
        drop(outbox);
        if first && waits {
            self.task.wake();
        }
        Ok(())
    }

    /// Whether no other frame of its kind is about to follow, which could share its write.
    fn is_alone(&self, way: Way) -> bool {
        match way {
            Way::Asks | Way::AsksMuch => lock(&self.pending).open() <= 1,
            Way::Answers => self.asked() <= 1 && !self.brings_more.load(Ordering::Relaxed),
        }
    }

    /// From now on a frame that is alone may be written past the connection's task.
    pub(crate) fn write_past(&self, socket: Past) {
        lock(&self.outbox).past = socket;
    }

    /// Refuses what finds no room in the outbox, or no connection.
    fn check_room(&self, outbox: &Outbox, way: Way, unsent_max: usize) -> Result<(), SystemError> {
        if outbox.finished || self.closed.load(Ordering::Acquire) {
            let detail = format!("the connection to {} is closed", self.peer_text());
            return Err(SystemError::new(ErrorKind::BindingBroken, detail));
        }
        let (unsent, what) = match way {
            Way::Asks => (outbox.unsent.asked, "calls"),
            Way::AsksMuch => (outbox.unsent.asked_much, "large calls"),
            Way::Answers => (outbox.unsent.answered, "answers"),
        };
        if unsent > unsent_max {
            let peer = self.peer_text();
            let detail = format!("{unsent} bytes of {what} to {peer} are unsent already");
            return Err(SystemError::new(ErrorKind::Overloaded, detail));
        }
        Ok(())
    }

    /// Sends a frame whose loss does no harm: a peer that takes nothing is told enough by that,
    /// and a closed connection needs it no more.
    pub(crate) fn send_short(&self, frame: &Frame) {
        self.put_short(frame, 2 * self.traffic.unsent_max());
    }

    /// Sends a short frame that must not get lost while the connection lives, however much is
    /// unsent: without it the peer goes on with what nobody wants, or keeps it. There is always
    /// room for so little, since there are no more of them than calls, or capabilities that came.
    pub(super) fn send_surely(&self, frame: &Frame) {
        self.put_short(frame, usize::MAX);
    }

    /// Cancels a call, but not before all of it is out.
    pub(super) fn cancel_behind(&self, question: u32) {
        let (mut framed, number) = frame::short(&Frame::Cancel { question });
        frame::set_question(&mut framed, number);
        if !lock(&self.outbox).append_behind(question, &framed) {
            self.send_surely(&Frame::Cancel { question });
        }
    }

    fn put_short(&self, frame: &Frame, unsent_max: usize) {
        let (framed, number) = frame::short(frame);
        let how = (Way::Asks, When::InTurn);
        if let Err(error) = self.put_framed(&framed, number, how, unsent_max) {
            tracing::trace!(%error, ?frame, "not sent");
        }
    }

    // What callers use that find no room.

    /// Whether a call that was refused so is to wait for its turn.
    pub(crate) fn is_to_wait(&self, refused: &Refused) -> bool {
        self.traffic.backpressure == Backpressure::Wait && refused.wants_room
    }

    /// Whether callers wait for their turn already.
    pub(super) fn is_queued_for(&self, way: Way) -> bool {
        self.line(way).waiting.load(Ordering::Relaxed) > 0
    }

    /// Where calls wait: small ones do not wait for large ones.
    fn line(&self, way: Way) -> &Line {
        match way {
            Way::AsksMuch => &self.lines[1],
            Way::Asks | Way::Answers => &self.lines[0],
        }
    }

    /// Sends a call, at once or, if that is wished, as soon as there is room for it.
    ///
    /// # Errors
    /// Those of [`Connection::call`] and [`Connection::call_in_turn`].
    pub(crate) async fn call_with_room(
        &self,
        w: &mut Writer,
        patience: Instant,
        deadline: Instant,
        renew: impl FnMut(&mut Writer),
    ) -> Result<Question<'_>, SystemError> {
        match self.call(w, patience) {
            Err(refused) if self.is_to_wait(&refused) => {
                self.call_in_turn(w, patience, deadline, renew).await
            }
            sent => Ok(sent?),
        }
    }

    /// Sends a call once the connection has room for it; those that came before are first. What
    /// it says of the time that is left is renewed when its turn has come.
    ///
    /// # Errors
    /// Those of [`Connection::call`]; `Overloaded` if there is no room until the deadline.
    pub(crate) async fn call_in_turn(
        &self,
        w: &mut Writer,
        patience: Instant,
        deadline: Instant,
        mut renew: impl FnMut(&mut Writer),
    ) -> Result<Question<'_>, SystemError> {
        let limit = tokio::time::Instant::from_std(deadline);
        let place = self.queue(way_of_call(w.len()));
        if place.is_first {
            // There may be room again since it was found that there is none.
            match self.call_now(w, patience) {
                Err(refused) if self.is_to_wait(&refused) => {}
                sent => return Ok(sent?),
            }
        }
        loop {
            let turn = tokio::time::timeout_at(limit, place.turn());
            turn.await.map_err(|_| self.is_full())?;
            renew(w);
            match self.call_now(w, patience) {
                Err(refused) if self.is_to_wait(&refused) => {}
                sent => return Ok(sent?),
            }
        }
    }

    /// Why a call does not get its turn.
    pub(super) fn is_full(&self) -> SystemError {
        let detail = format!(
            "no room for one more call to {}: see `Backpressure`",
            self.peer_text()
        );
        SystemError::new(ErrorKind::Overloaded, detail)
    }

    /// A place in the line.
    fn queue(&self, way: Way) -> Queued<'_> {
        let before = self.line(way).waiting.fetch_add(1, Ordering::SeqCst);
        Queued {
            connection: self,
            way,
            is_first: before == 0,
        }
    }

    fn has_room(&self, way: Way) -> bool {
        if self.closed.load(Ordering::Acquire) {
            return true;
        }
        let is_open = lock(&self.pending).has_room();
        is_open && *lock(&self.outbox).unsent.of_way(way) <= self.traffic.unsent_max()
    }

    /// There may be room for a call more: who waits for it is told.
    pub(super) fn call_next(&self) {
        for way in [Way::Asks, Way::AsksMuch] {
            if self.is_queued_for(way) && self.has_room(way) {
                self.line(way).next.notify_one();
            }
        }
    }

    // What the connection's own task uses.

    /// Whether the peer takes answers too slowly: its next calls wait, unread or unseen.
    pub(crate) fn is_crowded(&self) -> bool {
        self.crowded.load(Ordering::Relaxed) && !self.closed.load(Ordering::Acquire)
    }

    /// Waits while it is crowded.
    pub(crate) async fn room(&self) {
        self.when(|| (!self.is_crowded()).then_some(())).await;
    }

    /// What is to be written next, once there is something or the connection is finished.
    pub(crate) async fn next_batch(&self) -> Batch {
        self.when(|| {
            let mut outbox = lock(&self.outbox);
            (!outbox.is_empty() || outbox.finished).then(|| outbox.next())
        })
        .await
    }

    /// This is out; true if parts of large messages follow.
    pub(crate) fn written(&self, mut batch: Batch) -> bool {
        let mut outbox = lock(&self.outbox);
        outbox.written(&mut batch);
        let crowded = outbox.unsent.answered > self.traffic.unsent_max();
        let was_crowded = self.crowded.swap(crowded, Ordering::Relaxed);
        let goes_on = outbox.has_parts();
        drop(outbox);
        if was_crowded && !crowded {
            // It is this task, which has waited for room elsewhere.
            self.task.wake();
        }
        self.call_next();
        // Outside of the lock: capabilities that nobody else has are given back.
        drop(batch);
        goes_on
    }

    pub(crate) fn is_finished(&self) -> bool {
        let outbox = lock(&self.outbox);
        outbox.finished && outbox.is_empty()
    }
}

impl Queued<'_> {
    /// Waits for the turn; there may be no room even so.
    async fn turn(&self) {
        self.connection.line(self.way).next.notified().await;
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        let line = self.connection.line(self.way);
        line.waiting.fetch_sub(1, Ordering::SeqCst);
        self.connection.call_next();
    }
}
