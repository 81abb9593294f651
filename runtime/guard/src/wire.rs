//! Both directions of one guarded connection.
//!
//! One [`Wire`] is shared by the reader (capnp-rpc asks for the next message) and the writer
//! (capnp-rpc drives it until shutdown):
//!
//! - *Reading*: many messages from one read; each is entered in the [`Account`] as it arrives.
//!   While too much is being executed or unsent, messages wait in order; only answers to our own
//!   questions pass them, since the calls being executed may depend on those.
//! - *Writing*: messages are encoded into one buffer as they are sent; the buffer is written when
//!   no further message is at hand, so that a turn of the event loop makes one write.
//! - *Ending*: a cut makes the reader fail with the reason; capnp-rpc then disconnects, which
//!   ends all calls, and sends the reason as `Abort`; the writer gives the peer a moment to take
//!   it and closes. The stream is dropped when the writer ends, whoever still holds the network.
//!
//! Nothing here runs a call, and no borrow of the [`Wire`] is held while capnp-rpc runs.

use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use capnp::message::{Builder, HeapAllocator};
use capnp_rpc::rpc_capnp::message;
use tokio::io::ReadBuf;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};

use crate::account::{Account, AnswerKey, Arrival};
use crate::frame::{Input, Message};
use crate::network::Stream;
use crate::oversized;
use crate::reason::malformed;
use crate::ticket::{Admission, Load, looked_at};
use crate::watch::Watch;
use crate::{CutReason, Limits};

/// Bytes gathered at most before a write, however many messages are at hand.
const GATHER_BYTES_MAX: usize = 64 << 10;
/// Bytes of a peer that was cut which are read and thrown away, so that closing does not reset the
/// connection before the peer has read the reason.
const DISCARD_BYTES_MAX: usize = 1 << 20;
/// Memory a waiting message takes besides its words.
const WAITING_BYTES_EACH: usize = 128;

/// A message of the peer on its way to capnp-rpc.
pub(crate) struct Incoming {
    message: Message,
    size_bytes: usize,
    admission: Option<Admission>,
}

impl capnp_rpc::IncomingMessage for Incoming {
    fn get_body(&self) -> capnp::Result<capnp::any_pointer::Reader<'_>> {
        looked_at(self.size_bytes, self.admission.as_ref());
        self.message.get_root()
    }
}

/// A message whose turn has not come.
enum Waiting {
    Call(AnswerKey, Message),
    Finish(AnswerKey, Message),
    Plain(Message),
}

impl Waiting {
    fn message(&self) -> &Message {
        match self {
            Self::Call(_, message) | Self::Finish(_, message) | Self::Plain(message) => message,
        }
    }
}

/// How far the end of the connection has come.
enum Stage {
    Open,
    /// Disconnected by capnp-rpc; what was sent before is still being written.
    Flushing,
    /// All is written; waiting for the peer to close.
    Lingering {
        discarded: usize,
    },
    Ended,
}

/// Both directions of one connection.
pub(crate) struct Wire<S> {
    stream: Option<S>,
    limits: Limits,
    account: Account,
    load: Rc<Load>,
    input: Input,
    end_of_input: bool,
    /// To be delivered before anything else: each `Finish` whose `Return` was sent.
    due: VecDeque<Message>,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    /// A message is being handled and the next one will be asked for soon.
    busy: bool,
    output: Vec<u8>,
    written: usize,
    /// Output was added since the writer last looked.
    fresh: bool,
    stage: Stage,
    reason: Option<CutReason>,
    /// The peer said good-bye: what follows is not its fault.
    parted: bool,
    watch: Watch,
    reader: Option<Waker>,
    writer: Option<Waker>,
    closed: Vec<oneshot::Sender<()>>,
}

impl<S: Stream> Wire<S> {
    pub(crate) fn new(stream: S, limits: Limits) -> Self {
        Self {
            stream: Some(stream),
            account: Account::new(limits.clone()),
            watch: Watch::new(&limits),
            limits,
            load: Rc::default(),
            input: Input::default(),
            end_of_input: false,
            due: VecDeque::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            busy: false,
            output: Vec::new(),
            written: 0,
            fresh: false,
            stage: Stage::Open,
            reason: None,
            parted: false,
            reader: None,
            writer: None,
            closed: Vec::new(),
        }
    }

    /// Why the guard cut the connection, if it did.
    pub(crate) fn reason(&self) -> Option<CutReason> {
        self.reason.clone()
    }

    /// Drops the stream and all that is queued, whoever still holds the network.
    pub(crate) fn close(&mut self) {
        self.stage = Stage::Ended;
        self.stream = None;
        self.due.clear();
        self.waiting.clear();
        self.output = Vec::new();
        self.written = 0;
        self.closed.clear();
    }

    fn cut(&mut self, reason: CutReason) {
        if self.reason.is_none() && matches!(self.stage, Stage::Open) {
            self.reason = Some(reason);
            self.watch.farewell();
            wake(&mut self.reader);
            wake(&mut self.writer);
        }
    }

    fn unsent_bytes(&self) -> usize {
        self.output.len() - self.written
    }
}

/// Receiving.
impl<S: Stream> Wire<S> {
    pub(crate) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<capnp::Result<Option<Incoming>>> {
        if let Stage::Open = self.stage
            && self.reason.is_none()
        {
            match self.poll_next(cx) {
                Poll::Ready(Ok(Some(incoming))) => {
                    self.busy = true;
                    return Poll::Ready(Ok(Some(incoming)));
                }
                Poll::Ready(Ok(None)) => return Poll::Ready(Ok(None)),
                Poll::Ready(Err(reason)) => self.cut(reason),
                Poll::Pending => {
                    // A cut by the writer or by a deadline wakes the reader.
                    self.reader = Some(cx.waker().clone());
                    self.idle();
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(match &self.reason {
            Some(reason) => Err(reason.to_error()),
            None => Ok(None),
        })
    }

    /// No message is at hand: the writer's turn.
    fn idle(&mut self) {
        self.busy = false;
        if self.unsent_bytes() > 0 || self.watch.is_sooner() {
            wake(&mut self.writer);
        }
    }

    /// The next message for capnp-rpc; none at the end of input.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Incoming>, CutReason>> {
        loop {
            if let Some(message) = self.due.pop_front() {
                return Poll::Ready(Ok(Some(incoming(message, None))));
            }
            if let Some(incoming) = self.next_waiting() {
                return Poll::Ready(Ok(Some(incoming)));
            }
            let read_paused = self.waiting_bytes >= self.limits.waiting_bytes_max;
            if !read_paused && let Some(message) = self.input.next(self.limits.message_bytes_max)? {
                self.watch.message_came();
                if let Some(incoming) = self.arrive(message)? {
                    return Poll::Ready(Ok(Some(incoming)));
                }
                continue;
            }
            if self.end_of_input {
                return Poll::Ready(match self.input.partial_bytes() {
                    0 => Ok(None),
                    bytes => Err(CutReason::HalfMessage { bytes }),
                });
            }
            if !self.waiting.is_empty() {
                self.load.wait(cx.waker());
            }
            if read_paused {
                self.watch.frame_whole();
                return Poll::Pending;
            }
            ready!(self.poll_read(cx));
        }
    }

    /// Reads once; an error is the end of input.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(stream) = &mut self.stream else {
            self.end_of_input = true;
            return Poll::Ready(());
        };
        let mut buffer = ReadBuf::new(self.input.space());
        let count = match Pin::new(stream).poll_read(cx, &mut buffer) {
            Poll::Ready(Ok(())) => buffer.filled().len(),
            Poll::Ready(Err(error)) => {
                tracing::debug!(%error, "a foreign connection failed while reading");
                self.input = Input::default();
                0
            }
            Poll::Pending => {
                if self.input.partial_bytes() > 0 {
                    self.watch.frame_begun();
                } else {
                    self.watch.frame_whole();
                }
                return Poll::Pending;
            }
        };
        self.input.filled(count);
        self.end_of_input = count == 0;
        self.watch.bytes_moved();
        Poll::Ready(())
    }

    /// Enters a message that arrived; gives it back if it need not wait.
    fn arrive(&mut self, message: Message) -> Result<Option<Incoming>, CutReason> {
        let waiting = match self.account.arrive(&message)? {
            Arrival::Return => return Ok(Some(incoming(message, None))),
            Arrival::Abort => {
                self.parted = true;
                return Ok(Some(incoming(message, None)));
            }
            Arrival::Call(key) => Waiting::Call(key, message),
            Arrival::Finish(key) => Waiting::Finish(key, message),
            Arrival::Plain => Waiting::Plain(message),
        };
        if self.waiting.is_empty() && self.may_pass(&waiting) {
            return Ok(self.deliver(waiting));
        }
        self.waiting_bytes += size_bytes(waiting.message()) + WAITING_BYTES_EACH;
        self.waiting.push_back(waiting);
        Ok(None)
    }

    /// The first waiting message, if it may be delivered.
    fn next_waiting(&mut self) -> Option<Incoming> {
        loop {
            if !self.may_pass(self.waiting.front()?) {
                return None;
            }
            let first = self.waiting.pop_front()?;
            self.waiting_bytes -= size_bytes(first.message()) + WAITING_BYTES_EACH;
            if let Some(incoming) = self.deliver(first) {
                return Some(incoming);
            }
        }
    }

    /// Whether it is a message's turn, once none is before it.
    fn may_pass(&self, first: &Waiting) -> bool {
        match first {
            Waiting::Call(_, message) => self.has_room(size_bytes(message)),
            Waiting::Finish(..) | Waiting::Plain(_) => true,
        }
    }

    /// A message's turn has come; a `Finish` may have to wait for its `Return`.
    fn deliver(&mut self, first: Waiting) -> Option<Incoming> {
        match first {
            Waiting::Plain(message) => Some(incoming(message, None)),
            Waiting::Call(key, message) => {
                let admission = Admission::new(&self.load, size_bytes(&message));
                self.account.executing(key, &admission);
                Some(incoming(message, Some(admission)))
            }
            Waiting::Finish(key, message) => {
                let message = self.account.finish(key, message)?;
                Some(incoming(message, None))
            }
        }
    }

    fn has_room(&self, bytes: usize) -> bool {
        let handlers = self.load.handlers();
        let executable = handlers == 0
            || handlers < self.limits.handlers_max
                && self.load.bytes() + bytes <= self.limits.handlers_bytes_max;
        executable && self.unsent_bytes() <= self.limits.unsent_bytes_wait()
    }
}

/// Sending.
impl<S: Stream> Wire<S> {
    pub(crate) fn send(&mut self, builder: &Builder<HeapAllocator>) {
        let deaf = self.reason.as_ref().is_some_and(CutReason::peer_deaf);
        if deaf || matches!(self.stage, Stage::Ended) {
            return;
        }
        if let Err(reason) = self.depart(builder) {
            self.cut(reason);
            return;
        }
        let max = self.limits.unsent_bytes_max;
        if self.unsent_bytes() > max {
            self.cut(CutReason::Unsent {
                bytes: self.unsent_bytes(),
                max,
            });
        }
    }

    fn depart(&mut self, builder: &Builder<HeapAllocator>) -> Result<(), CutReason> {
        let root: message::Reader<'_> = builder.get_root_as_reader().map_err(malformed)?;
        if let Some(finish) = self.account.depart(root)? {
            self.due.push_back(finish);
            wake(&mut self.reader);
        }
        if self.unsent_bytes() == 0 {
            self.watch.sending();
        }
        let reply = oversized::replacement(builder, root, self.limits.message_bytes_max);
        let builder = reply.as_ref().unwrap_or(builder);
        capnp::serialize::write_message(&mut self.output, builder).map_err(malformed)?;
        self.fresh = true;
        if !self.busy || self.unsent_bytes() >= GATHER_BYTES_MAX {
            wake(&mut self.writer);
        }
        Ok(())
    }

    pub(crate) fn shutdown(&mut self, error: Option<capnp::Error>) -> oneshot::Receiver<()> {
        let (closed, closing) = oneshot::channel();
        if let Stage::Open = self.stage {
            if let Some(error) = error
                && error.kind != capnp::ErrorKind::Disconnected
                && self.reason.is_none()
                && !self.parted
            {
                self.reason = Some(CutReason::Protocol {
                    detail: error.extra,
                });
            }
            self.stage = Stage::Flushing;
            self.watch.farewell();
        }
        if !matches!(self.stage, Stage::Ended) {
            self.closed.push(closed);
        }
        wake(&mut self.writer);
        wake(&mut self.reader);
        closing
    }

    /// Writes and watches the deadlines until the connection has ended.
    pub(crate) fn poll_drive(
        &mut self,
        cx: &mut Context<'_>,
        mut sleep: Pin<&mut Sleep>,
    ) -> Poll<()> {
        self.writer = Some(cx.waker().clone());
        self.poll_output(cx);
        if let Stage::Ended = self.stage {
            return Poll::Ready(());
        }
        loop {
            let open = !self.waiting.is_empty() || self.load.handlers() > 0;
            let busy = open || self.account.anything_open();
            let (at, reason) =
                self.watch
                    .next(self.unsent_bytes(), busy, self.account.anything_held());
            if at <= Instant::now() {
                if let Stage::Open = self.stage
                    && self.reason.is_none()
                {
                    self.cut(reason);
                    continue;
                }
                self.end();
                return Poll::Ready(());
            }
            if at < sleep.deadline() || sleep.is_elapsed() {
                sleep.as_mut().reset(at);
            }
            self.watch.armed(sleep.deadline());
            ready!(sleep.as_mut().poll(cx));
        }
    }

    /// Writes what there is and goes on to the next stage as far as possible.
    fn poll_output(&mut self, cx: &mut Context<'_>) {
        if self.reason.as_ref().is_some_and(CutReason::peer_deaf) {
            self.output = Vec::new();
            self.written = 0;
            if !matches!(self.stage, Stage::Open) {
                self.end();
            }
            return;
        }
        if let Stage::Open = self.stage {
            if self.busy && self.unsent_bytes() < GATHER_BYTES_MAX {
                return;
            }
            if std::mem::take(&mut self.fresh) {
                // Others of this turn of the loop may have something to send as well.
                cx.waker().wake_by_ref();
                return;
            }
        }
        if self.poll_write(cx).is_pending() {
            return;
        }
        if let Stage::Flushing = self.stage {
            let Some(stream) = &mut self.stream else {
                return;
            };
            if Pin::new(stream).poll_shutdown(cx).is_pending() {
                return;
            }
            self.stage = Stage::Lingering { discarded: 0 };
        }
        if let Stage::Lingering { discarded } = self.stage
            && (self.reason.is_none() || self.poll_discard(cx, discarded).is_ready())
        {
            self.end();
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.unsent_bytes() > 0 {
            let Some(stream) = &mut self.stream else {
                return Poll::Ready(());
            };
            match ready!(Pin::new(stream).poll_write(cx, &self.output[self.written..])) {
                Ok(0) => self.output_lost("the stream takes no bytes"),
                Ok(count) => self.written += count,
                Err(error) => self.output_lost(&error.to_string()),
            }
            self.watch.wrote();
            if !self.waiting.is_empty() && self.unsent_bytes() <= self.limits.unsent_bytes_wait() {
                wake(&mut self.reader);
            }
        }
        self.written = 0;
        if self.output.capacity() > GATHER_BYTES_MAX {
            self.output = Vec::new();
        } else {
            self.output.clear();
        }
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(());
        };
        Pin::new(stream).poll_flush(cx).map(drop)
    }

    /// The stream cannot be written any more: the same as the end of input.
    fn output_lost(&mut self, error: &str) {
        tracing::debug!(error, "a foreign connection failed while writing");
        self.output.clear();
        self.written = 0;
        self.input = Input::default();
        self.end_of_input = true;
        wake(&mut self.reader);
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>, mut discarded: usize) -> Poll<()> {
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(());
        };
        let mut bytes = [0; 4 << 10];
        while discarded < DISCARD_BYTES_MAX {
            let mut buffer = ReadBuf::new(&mut bytes);
            let read = Pin::new(&mut *stream).poll_read(cx, &mut buffer);
            self.stage = Stage::Lingering { discarded };
            match ready!(read) {
                Ok(()) if !buffer.filled().is_empty() => discarded += buffer.filled().len(),
                Ok(()) | Err(_) => break,
            }
        }
        Poll::Ready(())
    }

    /// A last attempt to send what is there, for an end that nobody waits for.
    pub(crate) fn part(&mut self) {
        let _ = self.poll_write(&mut Context::from_waker(Waker::noop()));
        self.close();
    }

    fn end(&mut self) {
        let closed = std::mem::take(&mut self.closed);
        self.close();
        for sender in closed {
            // Nobody need wait for it.
            let _ = sender.send(());
        }
    }
}

fn incoming(message: Message, admission: Option<Admission>) -> Incoming {
    Incoming {
        size_bytes: size_bytes(&message),
        message,
        admission,
    }
}

fn size_bytes(message: &Message) -> usize {
    message.get_segments().size_bytes()
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}
