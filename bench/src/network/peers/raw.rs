//! The floor between two processes: frames over tokio's TCP, and nothing else.
//!
//! A frame is a length (u32), a slot (u32) and a body, little-endian; the body is the argument of a
//! null call (u64), or the bytes of an echo. Either end parses all frames a read brought and
//! answers them with one write; the client keeps its calls in an array and needs no task, channel
//! or table for each. A body is copied once a side, into the outgoing buffer. No library can do
//! better on the same runtime, so this says what is left to gain.

use std::io::ErrorKind::WouldBlock;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, Interest};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::figure::Found;
use crate::network::load::{self, Caller, Connector, Load, Recorder, Work};

const HEAD_BYTES: usize = 8;
const BUFFER_BYTES: usize = 64 * 1024;
/// More is nobody's of ours.
const BODY_BYTES_MAX: usize = 16 << 20;

/// Answers each frame with itself until the client goes.
pub(crate) async fn serve(stream: TcpStream) -> anyhow::Result<()> {
    let mut wire = Wire::new(stream);
    loop {
        while let Some((slot, body)) = wire.take()? {
            wire.put(slot, &body);
        }
        // Frames may come while answers are written.
        let wrote = wire.write().await?;
        if !wrote && !wire.read().await? {
            return Ok(());
        }
    }
}

/// Keeps the load's number of frames under way.
pub(crate) async fn drive(address: SocketAddr, load: Load) -> anyhow::Result<Found> {
    if load.work == Work::Connect {
        return load::drive(Raw(address), load).await;
    }
    let recorder = Rc::new(Recorder::new(load));
    let mut connections = JoinSet::new();
    for _ in 0..load.connections {
        let wire = Wire::new(super::connect(address).await?);
        connections.spawn_local(pump(wire, load, Rc::clone(&recorder)));
    }
    while let Some(ended) = connections.join_next().await {
        ended.context("a connection failed")??;
    }
    recorder.found()
}

async fn pump(mut wire: Wire, load: Load, recorder: Rc<Recorder>) -> anyhow::Result<()> {
    let payload = load::payload(load.bytes);
    let mut calls: Vec<(Option<Instant>, u64)> = Vec::new();
    for slot in 0..u32::try_from(load.outstanding).context("too many calls at once")? {
        calls.push((recorder.begin(), u64::from(slot)));
        wire.ask(slot, load.work, u64::from(slot), &payload);
    }
    let mut under_way = load.outstanding;
    while under_way > 0 {
        // Answers may come while calls are written.
        if !wire.write().await? {
            ensure!(wire.read().await?, "the server closed the connection");
        }
        while let Some((slot, answer)) = wire.take()? {
            let call = calls.get_mut(slot as usize);
            let (begun, n) = call.context("an answer to no call")?;
            if load.work == Work::Echo {
                load::compare(&payload, &answer)?;
            } else {
                ensure!(*answer == n.to_le_bytes(), "asked {n}, answered {answer:?}");
            }
            if recorder.end(*begun) {
                (*begun, *n) = (recorder.begin(), *n + load.outstanding as u64);
                wire.ask(slot, load.work, *n, &payload);
            } else {
                under_way -= 1;
            }
        }
    }
    Ok(())
}

/// Opens connections for one call each.
struct Raw(SocketAddr);

/// A connection with one call at a time.
struct Once(tokio::sync::Mutex<Wire>);

impl Connector for Raw {
    type Caller = Once;

    async fn connect(&self) -> anyhow::Result<Once> {
        let wire = Wire::new(super::connect(self.0).await?);
        Ok(Once(tokio::sync::Mutex::new(wire)))
    }
}

impl Once {
    async fn exchange(&self, body: &[u8]) -> anyhow::Result<Bytes> {
        let mut wire = self.0.lock().await;
        wire.put(0, body);
        wire.write().await?;
        loop {
            if let Some((_, answer)) = wire.take()? {
                return Ok(answer);
            }
            ensure!(wire.read().await?, "the server closed the connection");
        }
    }
}

impl Caller for Once {
    async fn null(&self, n: u64) -> anyhow::Result<u64> {
        let mut answer = self.exchange(&n.to_le_bytes()).await?;
        answer.try_get_u64_le().context("a short answer")
    }

    async fn echo(&self, payload: &Bytes) -> anyhow::Result<()> {
        load::compare(payload, &self.exchange(payload).await?)
    }
}

/// A socket with its two buffers.
struct Wire {
    stream: TcpStream,
    input: BytesMut,
    output: BytesMut,
}

impl Wire {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            input: BytesMut::with_capacity(BUFFER_BYTES),
            output: BytesMut::with_capacity(BUFFER_BYTES),
        }
    }

    /// False if the other end has closed.
    async fn read(&mut self) -> anyhow::Result<bool> {
        self.make_room();
        Ok(self.stream.read_buf(&mut self.input).await? > 0)
    }

    fn make_room(&mut self) {
        // Room for the rest of a frame that has begun, so that a large one is not moved often.
        let wanted = match self.input.first_chunk::<4>() {
            Some(length) => (u32::from_le_bytes(*length) as usize).min(BODY_BYTES_MAX),
            None => 0,
        };
        let missing = (HEAD_BYTES + wanted).saturating_sub(self.input.len());
        self.input.reserve(missing.max(BUFFER_BYTES));
    }

    /// Whether there was anything to write. What the socket does not take at once is written while
    /// what comes is read: if both ends only wrote, large frames would fill the buffers between
    /// them, and neither would go on.
    async fn write(&mut self) -> anyhow::Result<bool> {
        if self.output.is_empty() {
            return Ok(false);
        }
        let both = Interest::READABLE | Interest::WRITABLE;
        loop {
            match self.stream.try_write(&self.output) {
                Ok(written) => self.output.advance(written),
                Err(error) if error.kind() == WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            if self.output.is_empty() {
                return Ok(true);
            }
            if self.stream.ready(both).await?.is_readable() {
                self.make_room();
                match self.stream.try_read_buf(&mut self.input) {
                    Ok(0) => bail!("the other end closed the connection"),
                    Ok(_) => {}
                    Err(error) if error.kind() == WouldBlock => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }

    fn ask(&mut self, slot: u32, work: Work, n: u64, payload: &Bytes) {
        if work == Work::Echo {
            self.put(slot, payload);
        } else {
            self.put(slot, &n.to_le_bytes());
        }
    }

    fn put(&mut self, slot: u32, body: &[u8]) {
        self.output.put_u32_le(body.len() as u32);
        self.output.put_u32_le(slot);
        self.output.put_slice(body);
    }

    fn take(&mut self) -> anyhow::Result<Option<(u32, Bytes)>> {
        let Some(length) = self.input.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length) as usize;
        ensure!(length <= BODY_BYTES_MAX, "a frame of {length} bytes");
        if self.input.len() < HEAD_BYTES + length {
            return Ok(None);
        }
        self.input.advance(4);
        let slot = self.input.get_u32_le();
        Ok(Some((slot, self.input.split_to(length).freeze())))
    }
}
