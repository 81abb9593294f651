//! The two loops of a native connection: many frames a read, many frames a write.
//!
//! Both run in one future with reading first, so that what a batch of calls answers at once goes
//! out in one write at the end of the same turn.

mod later;
#[cfg(test)]
mod tests;

use std::future::{Future, poll_fn};
use std::io;
use std::mem::replace;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use partha_core::id::Uid;
use partha_wire::frame_len;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::error::Elapsed;

use super::assembly::{Came, Parts, STALL};
use super::connection::Connection;
use super::links::Lease;
use super::outbox::Batch;
use crate::error::{ErrorKind, SystemError};
use crate::wire::frame::{self, Frame};
use crate::wire::large::{HEAD_BYTES, Head, PART_BYTES};
use crate::wire::message::Action;
use later::Later;

/// Bytes a read may bring.
const READ_BYTES: usize = 64 * 1024;
/// Room for a read while little comes: an idle connection is to be cheap.
const IDLE_BYTES: usize = 4 * 1024;
/// A read while a message comes in parts: the rest of a part is read into its place.
const HEADS_BYTES: usize = 4 * 1024;
/// How long frames of one connection, or jobs, may keep a shard busy before others have their
/// turn.
pub(crate) const TURN: Duration = Duration::from_millis(2);
/// Frames taken at least before what they caused is written: the peer works on the first answers
/// while this end works on the next ones.
const FRAMES_A_TURN: usize = 16;
/// Frames whose objects are told of together before they are taken.
pub(crate) const FRAMES_AHEAD: usize = FRAMES_A_TURN;
/// Frames taken at most, where many are there or under way: a quarter of these keeps the peer at
/// work as well, with fewer writes.
const FRAMES_A_TURN_MAX: usize = 64;
/// The same for large messages, of which few frames are many bytes.
const BYTES_A_TURN: usize = 2 * PART_BYTES;
/// Calls of a connection under way that may keep all that they were read with: it is not counted.
const BUFFERS_KEPT_MAX: usize = 1024;
/// Frames between two looks at the clock.
const FRAMES_A_LOOK: usize = 4;
/// How long a frame may take to arrive, from its first byte to its last: 4 Mbit/s for the largest.
/// Shorter than the lease that is usual, so that the log says which it was.
const FRAME_DEADLINE: Duration = Duration::from_secs(8);
/// How long a peer may take for what is written at once. That it takes nothing at all is found by
/// its lease.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);

/// Who takes the calls that arrive on a connection.
pub(crate) trait Inbound {
    /// A call arrived.
    fn invoke(&self, connection: &Arc<Connection>, call: frame::Invoke);
    /// Calls of these objects come next, each once it is looked at; a hint. They are
    /// [`FRAMES_AHEAD`] at most.
    fn coming(&self, _objects: &[Uid]) {}
    /// Something about an action arrived.
    fn action(&self, connection: &Arc<Connection>, action: Action);
    /// The caller does not wait any more.
    fn cancel(&self, connection: &Arc<Connection>, question: u32);
    /// Little passes: what is kept of calls that are answered is to be given back.
    fn idle(&self, connection: &Arc<Connection>);
    /// The connection ended; `Unreachable` if the peer was silent for too long.
    fn closed(&self, reason: &SystemError);
}

/// Serves a connection until it ends, for whatever reason.
pub(crate) async fn run<R, W, I>(reader: R, writer: W, connection: Arc<Connection>, inbound: I)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
    I: Inbound,
{
    // If the task is dropped, with its runtime for instance, nobody must go on waiting.
    let closing = CloseOnDrop(connection.clone());
    let reason = tokio::select! {
        biased;
        reason = connection.reason_to_cut() => reason,
        reason = read(reader, &connection, &inbound) => reason,
        reason = write(writer, &connection) => reason,
        reason = watch(&connection, &inbound) => reason,
    };
    let peer = connection.peer_text();
    match reason.kind() {
        ErrorKind::BindingBroken => tracing::debug!(%peer, %reason, "connection ended"),
        _ => tracing::warn!(%peer, %reason, "connection cut"),
    }
    connection.close(&reason);
    drop(closing);
    // What is answered need not be given up.
    inbound.idle(&connection);
    inbound.closed(&reason);
}

struct CloseOnDrop(Arc<Connection>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close(&ended("the task that served it was dropped"));
    }
}

async fn read<R, I>(mut reader: R, connection: &Arc<Connection>, inbound: &I) -> SystemError
where
    R: AsyncRead + Unpin,
    I: Inbound,
{
    let mut buffer = BytesMut::with_capacity(IDLE_BYTES);
    let (mut room, mut grown) = (IDLE_BYTES, false);
    let traffic = connection.traffic();
    let mut parts = Parts::new(traffic.message_bytes_max, traffic.partial_max());
    let mut later = Later::default();
    // When the frame whose beginning lies in the buffer has to be whole.
    let mut due: Option<Instant> = None;
    // What came since others had their turn.
    let mut much = 0;
    loop {
        if much >= BYTES_A_TURN {
            much = 0;
            tokio::task::yield_now().await;
        }
        let waiting = buffer.len();
        let into = (&mut parts, &mut later);
        match take_frames(&mut buffer, into, room, connection, inbound) {
            Ok(Taken::All) => {}
            Ok(taken) => {
                taken.wait(connection, &mut parts).await;
                due = None;
                continue;
            }
            Err(error) => return error.context("the peer sent nonsense"),
        }
        let begun = buffer.len();
        due = whole_by(due, begun, waiting);
        // What is taken from its front stays allocated as long as the buffer does.
        grown |= buffer.capacity() > IDLE_BYTES;
        let trims = begun == 0 && grown && !parts.is_under_way();
        let coming = come(&mut reader, &mut buffer, &mut parts, due);
        let came = tokio::select! {
            biased;
            came = coming => came,
            () = connection.to_be_trimmed(), if trims => {
                buffer = BytesMut::with_capacity(IDLE_BYTES);
                (room, grown) = (IDLE_BYTES, false);
                continue;
            }
            () = connection.room(), if !later.is_empty() => continue,
        };
        match came {
            Err(Some(error)) => return ended(&error.to_string()),
            Err(None) => return late(begun, due),
            Ok((0, _)) if begun == 0 && !parts.is_under_way() => {
                return ended("the peer closed the connection");
            }
            Ok((0, _)) => return cut_short(begun + parts.arrived()),
            Ok((got, part)) => {
                // Of one that is to take what is unsent, that is the sign of life.
                if !connection.is_crowded() {
                    connection.heard();
                }
                // Where much comes at a time the next read gets more room.
                let little = got <= IDLE_BYTES / 2;
                room = if little { IDLE_BYTES } else { READ_BYTES };
                much += got;
                let taken = part.taken(|framed| take(framed, &mut later, connection, inbound));
                if let Err(error) = taken {
                    return error.context("the peer sent nonsense");
                }
            }
        }
    }
}

/// What comes next, if it does so in time; else an error without a reason.
async fn come<R: AsyncRead + Unpin>(
    reader: &mut R,
    buffer: &mut BytesMut,
    parts: &mut Parts,
    due: Option<Instant>,
) -> Result<(usize, Came), Option<io::Error>> {
    let due = earlier(due, parts.due());
    let reading = read_some(reader, buffer, parts);
    match due {
        None => reading.await.map_err(Some),
        Some(due) => match tokio::time::timeout_at(due.into(), reading).await {
            Ok(came) => came.map_err(Some),
            Err(_) => Err(None),
        },
    }
}

/// Reads into the place of the part that is coming, or else into the buffer: how much, and what
/// became of the part.
async fn read_some<R: AsyncRead + Unpin>(
    reader: &mut R,
    buffer: &mut BytesMut,
    parts: &mut Parts,
) -> io::Result<(usize, Came)> {
    if let Some(mut place) = parts.place() {
        let got = reader.read_buf(&mut place).await?;
        return Ok((got, parts.came(got)));
    }
    let got = match parts.is_under_way() {
        true => reader.read_buf(&mut buffer.limit(HEADS_BYTES)).await?,
        false => reader.read_buf(buffer).await?,
    };
    Ok((got, Came::More))
}

/// When the frame has to be whole of which so much is there, where there was so much before.
fn whole_by(due: Option<Instant>, begun: usize, before: usize) -> Option<Instant> {
    match due {
        _ if begun == 0 => None,
        Some(due) if begun == before => Some(due),
        Some(_) | None => Some(Instant::now() + FRAME_DEADLINE),
    }
}

/// What was caused so far is written, and others on this thread have their turn; then it goes on.
/// Unlike `yield_now` this does not wait for a look at the sockets.
async fn turn_over() {
    let mut is_over = false;
    poll_fn(|task| {
        if replace(&mut is_over, true) {
            return Poll::Ready(());
        }
        task.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// The earlier of two, where there are any.
fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

/// Why the peer is too late: with the frame that has begun, if that was due, or with a part.
fn late(begun: usize, due: Option<Instant>) -> SystemError {
    let (frame, message) = (FRAME_DEADLINE.as_secs(), STALL.as_secs());
    let detail = match due.is_some_and(|due| due <= Instant::now()) {
        true => format!("{begun} bytes of a message came, the rest not within {frame} s"),
        false => format!("nothing came for {message} s of a message that comes in parts"),
    };
    SystemError::new(ErrorKind::Malformed, detail)
}

/// The peer has ended in the midst of something, of which so much had come.
fn cut_short(come: usize) -> SystemError {
    let detail = format!("the peer closed the connection {come} bytes into a message");
    SystemError::new(ErrorKind::Malformed, detail)
}

/// How much of the buffer was taken.
enum Taken {
    /// All that is whole.
    All,
    /// As much as there is room for, as long as the peer takes answers too slowly.
    NoMore,
    /// As much as is fair to others.
    ForNow,
}

impl Taken {
    /// Waits until more may be taken.
    async fn wait(self, connection: &Connection, parts: &mut Parts) {
        match self {
            Self::All => {}
            Self::NoMore => {
                connection.room().await;
                parts.excuse();
            }
            // Others on this thread have their turn.
            Self::ForNow => turn_over().await,
        }
    }
}

/// Takes the whole frames of the buffer, after those that had to wait. Calls wait as long as there
/// is no room for their answers.
fn take_frames<I: Inbound>(
    buffer: &mut BytesMut,
    (parts, later): (&mut Parts, &mut Later),
    room: usize,
    connection: &Arc<Connection>,
    inbound: &I,
) -> Result<Taken, SystemError> {
    let malformed = |detail: String| SystemError::new(ErrorKind::Malformed, detail);
    let message_bytes_max = connection.traffic().message_bytes_max;
    // When the second one was begun: a frame that is alone does without the clock.
    let (mut started, mut taken) = (None::<Instant>, 0);
    let enough = frames_a_turn(buffer, connection);
    loop {
        let crowded = connection.is_crowded();
        if crowded && !later.has_room(connection) {
            return Ok(Taken::NoMore);
        }
        if taken == enough {
            return Ok(Taken::ForNow);
        }
        if taken.is_multiple_of(FRAMES_AHEAD) {
            look_ahead(buffer, message_bytes_max, inbound);
        }
        if taken.is_multiple_of(FRAMES_A_LOOK) && started.is_some_and(|at| at.elapsed() > TURN) {
            return Ok(Taken::ForNow);
        }
        if taken == 1 && !(buffer.is_empty() && later.is_empty()) {
            started = Some(Instant::now());
        }
        taken += 1;
        if !crowded && let Some(frame) = later.pop() {
            handle(frame, connection, inbound)?;
            continue;
        }
        if parts.is_filling() || Head::is_at(buffer) {
            match parts.take(buffer)? {
                Came::Whole(framed) => take(framed, later, connection, inbound)?,
                Came::Part => {}
                Came::More => return Ok(Taken::All),
            }
            continue;
        }
        let longest = match Head::is_telling(buffer) {
            true => message_bytes_max,
            // It may become a part.
            false => message_bytes_max.max(HEAD_BYTES + PART_BYTES),
        };
        let len = frame_len(buffer, longest);
        let Some(len) = len.map_err(|error| malformed(error.to_string()))? else {
            // A chunk serves several reads: a new one each time would be cold memory.
            if buffer.capacity() - buffer.len() < room / 4 {
                buffer.reserve(room);
            }
            return Ok(Taken::All);
        };
        if buffer.len() < len {
            // Memory follows what has arrived, never what a header claims.
            buffer.reserve((len - buffer.len()).min(buffer.len().max(READ_BYTES)));
            return Ok(Taken::All);
        }
        let framed = buffer.split_to(len).freeze();
        connection.brings_more(!buffer.is_empty() || !later.is_empty());
        if len > PART_BYTES {
            // What is small and comes behind it must not keep its memory.
            *buffer = BytesMut::from(&buffer[..]);
        }
        take(framed, later, connection, inbound)?;
    }
}

/// How many frames of the buffer are taken in this turn.
fn frames_a_turn(buffer: &[u8], connection: &Connection) -> usize {
    // As if all were as long as the first.
    let there = match frame_len(buffer, usize::MAX) {
        Ok(Some(len)) => buffer.len() / len,
        Ok(None) | Err(_) => 0,
    };
    if there <= FRAMES_A_TURN {
        return FRAMES_A_TURN;
    }
    let wish = (there / 4).max(connection.open_questions() / 4);
    wish.clamp(FRAMES_A_TURN, FRAMES_A_TURN_MAX)
}

/// Tells of the objects that the next frames call: what is known of them may be far from the
/// processor, and waiting for all of them at once takes hardly longer than for one.
fn look_ahead<I: Inbound>(buffer: &[u8], bytes_max: usize, inbound: &I) {
    let mut objects = [Uid::NIL; FRAMES_AHEAD];
    let (mut rest, mut found) = (buffer, 0);
    for _ in 0..FRAMES_AHEAD {
        let Ok(Some(len)) = frame_len(rest, bytes_max) else {
            break;
        };
        let Some((framed, behind)) = rest.split_at_checked(len) else {
            break;
        };
        // Calls of one object need it once.
        let next = frame::target_of(framed).filter(|next| objects[..found].last() != Some(next));
        if let Some(object) = next {
            objects[found] = object;
            found += 1;
        }
        rest = behind;
    }
    if found > 1 {
        inbound.coming(&objects[..found]);
    }
}

/// Takes a frame, or has it wait.
fn take<I: Inbound>(
    framed: Bytes,
    later: &mut Later,
    connection: &Arc<Connection>,
    inbound: &I,
) -> Result<(), SystemError> {
    let bytes = framed.len();
    let waits = !later.is_empty() || connection.is_crowded();
    // A piece of a chunk that was read keeps all of it, of which only the piece is counted. A
    // larger frame is most of its memory, or alone in it.
    let is_kept = waits || connection.asked() >= BUFFERS_KEPT_MAX;
    let framed = match is_kept && bytes <= PART_BYTES {
        true => Bytes::copy_from_slice(&framed),
        false => framed,
    };
    let frame = frame::parse(framed)?;
    if waits && Later::concerns(&frame) {
        later.push(frame, bytes);
        return Ok(());
    }
    handle(frame, connection, inbound)
}

fn handle<I: Inbound>(
    frame: Frame,
    connection: &Arc<Connection>,
    inbound: &I,
) -> Result<(), SystemError> {
    match frame {
        Frame::Invoke(mut call) => {
            if !call.capabilities.is_empty() {
                let attached = connection.attach(&call.capabilities)?;
                call.parameters = call.parameters.with_attached(attached);
            }
            inbound.invoke(connection, call);
        }
        Frame::Return(answer) => {
            let attached = connection.attach(&answer.capabilities)?;
            connection.answered(answer.question, answer.answer, attached)?;
        }
        Frame::Action(action) => inbound.action(connection, *action),
        Frame::Cancel { question } => inbound.cancel(connection, question),
        Frame::Ping { number } => {
            // The peer has not heard anything else of us for as long as we wait for that.
            connection.trim();
            inbound.idle(connection);
            connection.send_short(&Frame::Pong { number });
        }
        Frame::Pong { .. } => {}
        Frame::Goodbye => connection.drain(),
        Frame::Release { export } => connection.released(export),
    }
    Ok(())
}

async fn write<W: AsyncWrite + Unpin>(mut writer: W, connection: &Connection) -> SystemError {
    loop {
        let batch = connection.next_batch().await;
        let written = write_batch(&batch, &mut writer, connection).await;
        match written {
            Ok(Ok(())) => {
                if connection.written(batch) {
                    // A socket that takes all at once must not keep answers from being read.
                    tokio::task::yield_now().await;
                }
            }
            Ok(Err(error)) => return ended(&error.to_string()),
            Err(_) => {
                let (bytes, seconds) = (batch.len(), WRITE_DEADLINE.as_secs());
                let detail = format!("the peer did not take {bytes} bytes within {seconds} s");
                return SystemError::new(ErrorKind::Overloaded, detail);
            }
        }
        if connection.is_finished() {
            let _ = writer.shutdown().await;
            return ended("closed by this end");
        }
    }
}

/// Writes all of a batch, in time. What the socket takes at once needs no timer.
async fn write_batch<W: AsyncWrite + Unpin>(
    batch: &Batch,
    writer: &mut W,
    connection: &Connection,
) -> Result<io::Result<()>, Elapsed> {
    let mut writing = pin!(batch.write_to(writer, || connection.taken()));
    match poll_fn(|task| Poll::Ready(writing.as_mut().poll(task))).await {
        Poll::Ready(written) => Ok(written),
        Poll::Pending => tokio::time::timeout(WRITE_DEADLINE, writing).await,
    }
}

/// The shortest pause between two looks at a connection.
const LOOK_MIN: Duration = Duration::from_millis(1);

/// Heartbeats, and callers whose deadline passed although the peer should have said so.
async fn watch<I: Inbound>(connection: &Arc<Connection>, inbound: &I) -> SystemError {
    let (mut number, lease) = (0, connection.lease());
    let mut last_ping = Instant::now();
    loop {
        tokio::time::sleep(until_next_look(connection, lease)).await;
        connection.expire();
        let silent = connection.silent_for();
        if silent >= lease.silent_max {
            let what = match connection.is_crowded() {
                true => "has taken nothing of what is unsent",
                false => "was silent",
            };
            let detail = format!("the peer {what} for {:.1} s", silent.as_secs_f32());
            return SystemError::new(ErrorKind::Unreachable, detail);
        }
        if silent >= lease.heartbeat && last_ping.elapsed() >= lease.heartbeat {
            number += 1;
            last_ping = Instant::now();
            connection.trim();
            inbound.idle(connection);
            connection.send_short(&Frame::Ping { number });
        }
    }
}

/// A connection that asks nothing has no callers to look after, only the silence of its peer: of
/// such ones a node has thousands.
fn until_next_look(connection: &Connection, lease: Lease) -> Duration {
    let silent = connection.silent_for();
    // Whoever waits for the end of a lease waits no longer.
    let end = lease.silent_max.saturating_sub(silent);
    let look = lease.tick().min(end.max(LOOK_MIN));
    if connection.has_asked() || connection.age() < look * 8 {
        return look;
    }
    match lease.heartbeat.checked_sub(silent) {
        // Asked in time, it has the rest of its lease for the answer.
        Some(until_due) => until_due.clamp(LOOK_MIN, look * 4),
        None => look,
    }
}

fn ended(why: &str) -> SystemError {
    SystemError::new(ErrorKind::BindingBroken, why)
}
