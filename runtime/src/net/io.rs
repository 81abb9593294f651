//! The two loops of a native connection: many frames a read, many frames a write.
//!
//! Both run in one task with reading first, so that what a batch of calls answers at once goes
//! out in one write at the end of the same turn.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use partha_wire::frame_len;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::connection::Connection;
use super::links::Lease;
use crate::config::MESSAGE_BYTES_MAX;
use crate::error::{ErrorKind, SystemError};
use crate::wire::frame::{self, Frame};
use crate::wire::message::Action;

/// Bytes a read may bring.
const READ_BYTES: usize = 64 * 1024;
/// Room for a read while little comes: an idle connection is to be cheap.
const IDLE_BYTES: usize = 4 * 1024;
/// How long frames of one connection, or jobs, may keep a shard busy before others have their
/// turn.
pub(crate) const TURN: Duration = Duration::from_millis(2);
/// Frames taken before what they caused is written: the peer works on the first answers while this
/// end works on the next ones.
const FRAMES_A_TURN: u32 = 16;
/// Frames between two looks at the clock.
const FRAMES_A_LOOK: u32 = 4;
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
    // When the frame whose beginning lies in the buffer has to be whole.
    let mut due: Option<Instant> = None;
    loop {
        let waiting = buffer.len();
        match take_frames(&mut buffer, room, connection, inbound) {
            Ok(Taken::All) => {}
            Ok(Taken::ForNow) => {
                // Others on this thread have their turn.
                tokio::task::yield_now().await;
                due = None;
                continue;
            }
            Err(error) => return error.context("the peer sent nonsense"),
        }
        if connection.is_crowded() {
            connection.room().await;
            due = None;
            continue;
        }
        due = match due {
            _ if buffer.is_empty() => None,
            Some(due) if buffer.len() == waiting => Some(due),
            Some(_) | None => Some(Instant::now() + FRAME_DEADLINE),
        };
        let begun = buffer.len();
        // What is taken from its front stays allocated as long as the buffer does.
        grown |= buffer.capacity() > IDLE_BYTES;
        let large = begun == 0 && grown;
        let reading = reader.read_buf(&mut buffer);
        let got = match due {
            None => tokio::select! {
                biased;
                got = reading => got,
                () = connection.to_be_trimmed(), if large => {
                    buffer = BytesMut::with_capacity(IDLE_BYTES);
                    (room, grown) = (IDLE_BYTES, false);
                    continue;
                }
            },
            Some(due) => match tokio::time::timeout_at(due.into(), reading).await {
                Ok(got) => got,
                Err(_) => return late(begun),
            },
        };
        match got {
            Ok(0) if begun == 0 => return ended("the peer closed the connection"),
            Ok(0) => return cut_short(begun),
            Ok(got) => {
                connection.heard();
                // Where much comes at a time the next read gets more room.
                room = if got > IDLE_BYTES / 2 {
                    READ_BYTES
                } else {
                    IDLE_BYTES
                };
            }
            Err(error) => return ended(&error.to_string()),
        }
    }
}

fn late(begun: usize) -> SystemError {
    let seconds = FRAME_DEADLINE.as_secs();
    let detail = format!("{begun} bytes of a message came, the rest not within {seconds} s");
    SystemError::new(ErrorKind::Malformed, detail)
}

fn cut_short(begun: usize) -> SystemError {
    let detail = format!("the peer closed the connection {begun} bytes into a message");
    SystemError::new(ErrorKind::Malformed, detail)
}

/// How much of the buffer was taken.
enum Taken {
    /// All that is whole, or as much as there is room for its answers.
    All,
    /// As much as is fair to others.
    ForNow,
}

/// Takes the whole frames of the buffer, as long as there is room for their answers.
fn take_frames<I: Inbound>(
    buffer: &mut BytesMut,
    room: usize,
    connection: &Arc<Connection>,
    inbound: &I,
) -> Result<Taken, SystemError> {
    let malformed = |detail: String| SystemError::new(ErrorKind::Malformed, detail);
    let (started, mut taken) = (Instant::now(), 0_u32);
    while !connection.is_crowded() {
        if taken == FRAMES_A_TURN {
            return Ok(Taken::ForNow);
        }
        if taken.is_multiple_of(FRAMES_A_LOOK) && taken > 0 && started.elapsed() > TURN {
            return Ok(Taken::ForNow);
        }
        taken += 1;
        let len = frame_len(buffer, MESSAGE_BYTES_MAX);
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
        take(&framed, connection, inbound)?;
    }
    Ok(Taken::All)
}

fn take<I: Inbound>(
    framed: &Bytes,
    connection: &Arc<Connection>,
    inbound: &I,
) -> Result<(), SystemError> {
    match frame::parse(framed)? {
        Frame::Invoke(mut call) => {
            let attached = connection.attach(&call.capabilities)?;
            if !attached.is_empty() {
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
        let chunks = connection.next_chunks().await;
        let writing = async {
            for chunk in &chunks {
                let mut left = &chunk[..];
                while !left.is_empty() {
                    let taken = writer.write(left).await?;
                    if taken == 0 {
                        return Err(std::io::ErrorKind::WriteZero.into());
                    }
                    left = &left[taken..];
                    connection.taken();
                }
            }
            Ok::<_, std::io::Error>(())
        };
        match tokio::time::timeout(WRITE_DEADLINE, writing).await {
            Ok(Ok(())) => connection.written(chunks),
            Ok(Err(error)) => return ended(&error.to_string()),
            Err(_) => {
                let (bytes, seconds) = (bytes_of(&chunks), WRITE_DEADLINE.as_secs());
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
    let look = lease.tick();
    if connection.has_asked() || connection.age() < look * 8 {
        return look;
    }
    match lease.heartbeat.checked_sub(connection.silent_for()) {
        // Asked in time, it has the rest of its lease for the answer.
        Some(until_due) => until_due.clamp(Duration::from_millis(1), look * 4),
        None => look,
    }
}

fn bytes_of(chunks: &[Vec<u8>]) -> usize {
    chunks.iter().map(Vec::len).sum()
}

fn ended(why: &str) -> SystemError {
    SystemError::new(ErrorKind::BindingBroken, why)
}
