//! One native connection between two incarnations: what both of its users see.
//!
//! It is symmetric: either end may call the other. Callers of any thread put frames into the
//! outbox; the connection's task (see `io`) writes them and hands answers back. A frame that is
//! alone is written by who brings it, and a caller that is alone takes its answer itself (see
//! `stand_in`). Everything in it is bounded: open questions, unsent bytes, exports.

mod outgoing;
mod question;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use partha_core::action::path::Site;
use partha_core::id::Peer;
use partha_wire::{Attachment, Writer};
use tokio::sync::Notify;

pub(crate) use self::question::Question;
use super::exports::Exports;
use super::handshake::Hello;
use super::links::Lease;
use super::outbox::{Outbox, PartsTaken};
use super::pending::{Answer, Pending};
use super::stand_in::StandIn;
use super::traffic::{Traffic, partial_max};
use crate::capability::Capability;
use crate::config::QUESTIONS_MAX;
use crate::error::{Completed, ErrorKind, SystemError};
use crate::wire::frame::{self, Descriptor, Frame};
pub(crate) use outgoing::Refused;
use outgoing::{Line, way_of_call};

/// Parameters below this are not counted one by one.
pub(crate) const HELD_BYTES_MIN: usize = 4 * 1024;

/// A connection to another process.
pub(crate) struct Connection {
    peer: Hello,
    address: String,
    /// How the peer is watched.
    lease: Lease,
    /// How much may be under way.
    traffic: Traffic,
    /// The largest message that the peer takes.
    message_bytes_max: usize,
    outbox: Mutex<Outbox>,
    /// Serves it, where callers may do so as well.
    stand_in: OnceLock<Arc<StandIn>>,
    /// Wakes its task, which finds out by itself what it is to do.
    task: AtomicWaker,
    /// It is closed.
    ended: Notify,
    pending: Mutex<Pending>,
    /// Callers that wait for room.
    lines: [Line; 2],
    exports: Mutex<Exports>,
    closed: AtomicBool,
    /// Why the node wants nothing more of it.
    cut: OnceLock<SystemError>,
    /// It is idle, so what it keeps for its next frames is to become little.
    trimmed: AtomicBool,
    /// Behind the frame that its task is taking others are there already.
    brings_more: AtomicBool,
    /// So much is unsent that no further calls are taken from the peer.
    crowded: AtomicBool,
    /// Bytes of large parameters of the peer's calls that are under way.
    held: AtomicUsize,
    /// What the peer has asked and is not answered yet: see `asker`.
    pub(super) asked: AtomicUsize,
    /// The peer said goodbye: no new calls go out here.
    draining: AtomicBool,
    opened: Instant,
    /// Milliseconds after `opened` when the peer was last heard.
    heard_ms: AtomicU64,
}

impl Connection {
    pub(crate) fn new(peer: Hello, address: String, lease: Lease, traffic: Traffic) -> Arc<Self> {
        let message_bytes_max = peer.message_bytes_max();
        let taken = match peer.knows_parts() {
            true => PartsTaken::Bytes(partial_max(message_bytes_max)),
            false => PartsTaken::None,
        };
        Arc::new(Self {
            peer,
            address,
            lease,
            traffic,
            message_bytes_max,
            outbox: Mutex::new(Outbox::new(taken)),
            stand_in: OnceLock::new(),
            task: AtomicWaker::new(),
            ended: Notify::new(),
            pending: Mutex::new(Pending::new(QUESTIONS_MAX)),
            lines: <[Line; 2]>::default(),
            exports: Mutex::default(),
            closed: AtomicBool::new(false),
            cut: OnceLock::new(),
            trimmed: AtomicBool::new(false),
            brings_more: AtomicBool::new(false),
            crowded: AtomicBool::new(false),
            held: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            opened: Instant::now(),
            heard_ms: AtomicU64::new(0),
        })
    }

    /// Who is at the other end.
    pub(crate) fn peer(&self) -> Peer {
        self.peer.peer
    }

    /// The shard at the other end.
    pub(crate) fn site(&self) -> Site {
        let (node, shard) = (self.peer.peer.node, self.peer.shard);
        Site { node, shard }
    }

    /// What the other end said of itself.
    pub(crate) fn hello(&self) -> &Hello {
        &self.peer
    }

    /// Where the other end is.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// For how long it has been open.
    pub(crate) fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    /// Ends the connection at once, whatever is unsent; may be said on any thread. It is closed
    /// from now on, and its task ends when it has its turn.
    pub(crate) fn cut(&self, reason: &SystemError) {
        self.closed.store(true, Ordering::Release);
        // One who says so later has nothing to add.
        let _ = self.cut.set(reason.clone());
        self.task.wake();
    }

    /// Waits until it is cut.
    pub(crate) async fn reason_to_cut(&self) -> SystemError {
        self.when(|| self.cut.get().cloned()).await
    }

    /// The other end, for messages.
    pub(crate) fn peer_text(&self) -> String {
        let Hello { peer, name, .. } = &self.peer;
        let name = if name.is_empty() { "client" } else { name };
        format!("{name} ({}) at {}", peer.node, self.address)
    }

    /// False once no new calls can be sent any more.
    pub(crate) fn is_usable(&self) -> bool {
        self.is_open() && !self.draining.load(Ordering::Acquire)
    }

    /// False once nothing can be sent any more. A peer that takes no new calls still has to hear
    /// how actions end.
    pub(crate) fn is_open(&self) -> bool {
        !self.closed.load(Ordering::Acquire)
    }

    /// Sends a call: the question that it is.
    ///
    /// # Errors
    /// With [`Completed::No`]: nothing was sent.
    pub(crate) fn call(&self, w: &mut Writer, deadline: Instant) -> Result<Question<'_>, Refused> {
        if self.is_queued_for(way_of_call(w.len())) {
            // Others came before it.
            return Err(Refused::for_want_of_room(self.is_full()));
        }
        self.call_now(w, deadline)
    }

    /// The same, though others wait for room.
    fn call_now(&self, w: &mut Writer, deadline: Instant) -> Result<Question<'_>, Refused> {
        if w.attached().is_empty() {
            return self.ask(w, deadline);
        }
        // The numbers are those of this connection; another attempt has others.
        let mut with_numbers = w.clone();
        let given = self.number(&mut with_numbers, true)?;
        let asked = self.ask(&mut with_numbers, deadline);
        if asked.is_err() {
            self.take_back(&given);
        }
        asked
    }

    fn ask(&self, w: &mut Writer, deadline: Instant) -> Result<Question<'_>, Refused> {
        self.check_len(w.len())?;
        let number = lock(&self.pending).ask(deadline);
        let number = number.map_err(Refused::for_want_of_room)?;
        if let Err(error) = self.send_written(w, number, way_of_call(w.len())) {
            // Nobody will answer what was not sent.
            lock(&self.pending).withdraw(number);
            return Err(Refused::for_want_of_room(error));
        }
        Ok(Question::new(self, number))
    }

    /// The caller does not wait any more.
    fn cancel(&self, question: u32) {
        if lock(&self.pending).abandon(question) {
            self.cancel_behind(question);
        }
    }

    /// A capability of the peer is not used any more.
    pub(crate) fn release(&self, export: u32) {
        self.send_surely(&Frame::Release { export });
    }

    /// Gives the capabilities of a frame numbers of this connection. If the frame is not sent, they
    /// are to be taken back.
    fn number(&self, w: &mut Writer, is_invoke: bool) -> Result<Vec<Descriptor>, SystemError> {
        let count = w.attached().len();
        if count > frame::CAPABILITIES_MAX as usize {
            let max = frame::CAPABILITIES_MAX;
            let detail = format!("a message with {count} capabilities; at most {max} can travel");
            return Err(SystemError::new(ErrorKind::TooLarge, detail));
        }
        let mut descriptors = Vec::with_capacity(count);
        for attachment in w.attached() {
            match self.describe(attachment) {
                Ok(descriptor) => descriptors.push(descriptor),
                Err(error) => {
                    self.take_back(&descriptors);
                    return Err(error);
                }
            }
        }
        frame::set_capabilities(w, is_invoke, &descriptors);
        Ok(descriptors)
    }

    /// The peer was not told these numbers, so it will not give them back.
    fn take_back(&self, given: &[Descriptor]) {
        let mut exports = lock(&self.exports);
        for descriptor in given.iter().filter(|given| given.hosted_by_sender) {
            exports.release(descriptor.export);
        }
    }

    fn describe(&self, attachment: &Attachment) -> Result<Descriptor, SystemError> {
        let capability = attachment.downcast_ref::<Capability>().ok_or_else(|| {
            SystemError::new(ErrorKind::Internal, "an attachment that is no capability")
        })?;
        let class = capability.class();
        if let Some(export) = capability.import_of(self) {
            return Ok(Descriptor {
                hosted_by_sender: false,
                export,
                class,
            });
        }
        let Some(object) = capability.local_object() else {
            let detail = "a call-back of one peer cannot be passed on to another: capabilities \
                          connect two parties only; pass a reference to a persistent object";
            return Err(SystemError::new(ErrorKind::BadOperation, detail));
        };
        let export = lock(&self.exports).number(object, capability)?;
        Ok(Descriptor {
            hosted_by_sender: true,
            export,
            class,
        })
    }

    /// What the capabilities of a received frame stand for.
    pub(crate) fn attach(
        self: &Arc<Self>,
        descriptors: &[Descriptor],
    ) -> Result<Vec<Attachment>, SystemError> {
        let mut attached: Vec<Attachment> = Vec::with_capacity(descriptors.len());
        for descriptor in descriptors {
            let capability = if descriptor.hosted_by_sender {
                Capability::imported(self.clone(), descriptor.export, descriptor.class)
            } else {
                self.export(descriptor.export)?
            };
            attached.push(Arc::new(capability));
        }
        Ok(attached)
    }

    /// The capability of ours that the peer calls by this number.
    pub(crate) fn export(&self, number: u32) -> Result<Capability, SystemError> {
        lock(&self.exports).find(number).cloned().ok_or_else(|| {
            let detail = format!(
                "capability {number} was never given to {}",
                self.peer_text()
            );
            SystemError::new(ErrorKind::NoSuchObject, detail)
        })
    }

    /// Notes that a call of the peer has brought this many bytes; none if they are too few to
    /// matter, since the number of calls is bounded as well.
    ///
    /// # Errors
    /// `Overloaded` if its calls under way have brought too many already.
    pub(crate) fn hold(self: &Arc<Self>, bytes: usize) -> Result<Option<Held>, SystemError> {
        if bytes < HELD_BYTES_MIN {
            return Ok(None);
        }
        let before = self.held.fetch_add(bytes, Ordering::Relaxed);
        let connection = self.clone();
        let held = Held { connection, bytes };
        let held_max = self.traffic.held_max();
        if before + bytes <= held_max {
            return Ok(Some(held));
        }
        let detail = format!(
            "calls of {} under way have brought {before} bytes of parameters already; at most \
             {held_max} are kept",
            self.peer_text()
        );
        Err(SystemError::new(ErrorKind::Overloaded, detail))
    }

    /// How many bytes its calls under way have brought.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// The peer dropped a capability.
    pub(crate) fn released(&self, export: u32) {
        lock(&self.exports).release(export);
    }

    /// An answer came.
    pub(crate) fn answered(
        &self,
        question: u32,
        mut answer: Answer,
        attached: Vec<Attachment>,
    ) -> Result<(), SystemError> {
        if !attached.is_empty()
            && let Ok(message) = answer.outcome
        {
            answer.outcome = Ok(message.with_attached(attached));
        }
        let woken = lock(&self.pending).answered(question, answer);
        let woken = woken.map_err(|()| {
            let detail = format!("an answer to question {question}, which is not open");
            SystemError::new(ErrorKind::Malformed, detail)
        })?;
        if let Some(waker) = woken {
            waker.wake();
        }
        self.call_next();
        Ok(())
    }

    /// The peer takes no new calls.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Ends the connection after what is in the outbox.
    pub(crate) fn finish(&self) {
        lock(&self.outbox).finished = true;
        self.task.wake();
    }

    /// The connection is gone: who waits gets the reason.
    pub(crate) fn close(&self, reason: &SystemError) {
        self.closed.store(true, Ordering::Release);
        let outbox = std::mem::take(&mut *lock(&self.outbox));
        drop(outbox);
        lock(&self.outbox).finished = true;
        let text = format!(
            "the connection to {} broke: {}",
            self.peer_text(),
            reason.detail()
        );
        let error = SystemError::new(ErrorKind::BindingBroken, text);
        let woken = lock(&self.pending).close(&error);
        woken.into_iter().for_each(Waker::wake);
        let exports = lock(&self.exports).clear();
        drop(exports);
        self.task.wake();
        self.call_next();
        self.ended.notify_waiters();
    }

    /// Why nothing can be sent any more, of a connection that is closed or about to be.
    pub(crate) fn broken(&self) -> SystemError {
        let known = lock(&self.pending).closed().cloned();
        known.unwrap_or_else(|| {
            let detail = format!("the connection to {} broke", self.peer_text());
            SystemError::new(ErrorKind::BindingBroken, detail)
        })
    }

    /// Waits until it is closed; says why. Nothing is lost if the future is dropped.
    pub(crate) async fn breaks(&self) -> SystemError {
        loop {
            // It is told from here on, though not polled yet.
            let ended = self.ended.notified();
            if let Some(reason) = lock(&self.pending).closed() {
                return reason.clone();
            }
            ended.await;
        }
    }

    // What the connection's own task uses.

    /// Waits until something is so; whoever makes it so wakes the task.
    async fn when<T>(&self, find: impl Fn() -> Option<T>) -> T {
        poll_fn(|task| {
            self.task.register(task.waker());
            find().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Whether other frames are there already behind the one that is being taken.
    pub(crate) fn brings_more(&self, more: bool) {
        self.brings_more.store(more, Ordering::Relaxed);
    }

    /// Nothing but heartbeats has passed for a while: gives back what was kept for a burst.
    pub(crate) fn trim(&self) {
        let spare = lock(&self.outbox).trim();
        drop(spare);
        lock(&self.pending).trim();
        self.trimmed.store(true, Ordering::Relaxed);
        self.task.wake();
    }

    /// Waits until the connection is idle.
    pub(crate) async fn to_be_trimmed(&self) {
        self.when(|| self.trimmed.swap(false, Ordering::Relaxed).then_some(()))
            .await;
    }

    /// A caller may serve it from now on, in place of its task.
    pub(crate) fn served_by(&self, stand_in: Arc<StandIn>) {
        // It is set once, by the one who spawns the task.
        let _ = self.stand_in.set(stand_in);
    }

    /// The caller who waits for an answer, if there is no other. It is `found` before it can go.
    pub(crate) fn only_caller(&self, found: impl FnOnce()) -> Option<Waker> {
        let pending = lock(&self.pending);
        let caller = pending.only_caller()?;
        found();
        Some(caller)
    }

    /// How many questions of this end are open.
    pub(crate) fn open_questions(&self) -> usize {
        lock(&self.pending).open()
    }

    /// Whether this end has ever asked anything by it.
    pub(crate) fn has_asked(&self) -> bool {
        lock(&self.pending).has_asked()
    }

    pub(crate) fn heard(&self) {
        let ms = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard_ms.store(ms, Ordering::Relaxed);
    }

    /// The peer has room for more of what it is sent. While so many answers are unsent that none of
    /// its calls are taken, that is its sign of life: one that stands still soon takes nothing.
    pub(crate) fn taken(&self) {
        if self.is_crowded() {
            self.heard();
        }
    }

    pub(crate) fn lease(&self) -> Lease {
        self.lease
    }

    pub(crate) fn traffic(&self) -> Traffic {
        self.traffic
    }

    pub(crate) fn silent_for(&self) -> Duration {
        let heard = Duration::from_millis(self.heard_ms.load(Ordering::Relaxed));
        self.opened.elapsed().saturating_sub(heard)
    }

    /// Answers callers whose deadline passed a while ago: the peer's own answer must be lost.
    pub(crate) fn expire(&self) {
        let late = {
            let mut pending = lock(&self.pending);
            if !pending.is_waiting() {
                return;
            }
            pending.expire(Instant::now(), || {
                let detail = format!("no answer from {} in time", self.peer_text());
                SystemError::new(ErrorKind::Deadline, detail).completed(Completed::Maybe)
            })
        };
        late.into_iter().for_each(Waker::wake);
    }
}

/// Parameters of a call that is under way.
#[derive(Debug)]
pub(crate) struct Held {
    connection: Arc<Connection>,
    bytes: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.connection
            .held
            .fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({})", self.peer_text())
    }
}

/// A panic while such a lock is held leaves the data whole: each critical section is a few
/// assignments.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
