//! A client of Partha's native face that makes many calls and then reads nothing.
//!
//! Its frames are written by hand, see docs/wire.md: a client of ours would read what comes.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use partha::abi::{Message, Slot, Writer};
use partha::{ErrorKind, Uid};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::generated::null::cell;

/// Calls that are made before it stops; more than a connection may have open.
const CALLS: u32 = 10_000;

/// Of each answer.
const ANSWER_BYTES: u32 = 16 << 10;

const MAGIC: &[u8; 8] = b"PARTHA\r\n";
const VERSION: u16 = 3;
const ANY_SHARD: u16 = u16::MAX;
const INVOKE: u16 = 1;
const RETURN: u16 = 2;

/// Of the method `fill` of a cell.
const FILL: u16 = 3;

/// The frames here are small, or answers.
const FRAME_BYTES_MAX: usize = 1 << 20;

/// Of Cap'n Proto's stream framing: the number of segments less one, and the words of the first.
const HEAD_BYTES: usize = 8;

/// One connection with all its calls under way.
pub(crate) struct StoppedReader(BufReader<TcpStream>);

impl StoppedReader {
    /// Connects and makes the calls. From then on it reads nothing.
    pub(crate) async fn start(address: SocketAddr, object: Uid) -> anyhow::Result<Self> {
        let mut stream = BufReader::new(super::connect(address).await?);
        stream.write_all(&hello()?).await?;
        let mut magic = [0; MAGIC.len()];
        stream.read_exact(&mut magic).await?;
        ensure!(magic == *MAGIC, "whoever listens there is no node");
        let answer = read_frame(&mut stream).await?;
        ensure!(answer.reader()?.u16(0) == 0, "the node refuses us");
        let mut calls = Vec::new();
        for question in 1..=CALLS {
            calls.extend(call(question, object)?);
        }
        // Some of them stay in the sockets, since the node reads nothing more for a while.
        let sent = stream.write_all(&calls).await;
        sent.context("cannot make the calls")?;
        Ok(Self(stream))
    }

    /// Reads again, until each call is answered: with its bytes, or refused because there was no
    /// room for them.
    ///
    /// # Errors
    /// If an answer is another one, or missing.
    pub(crate) async fn read_all(mut self) -> anyhow::Result<()> {
        let mut answered = vec![false; CALLS as usize + 1];
        let mut left = CALLS;
        while left > 0 {
            let frame = read_frame(&mut self.0).await;
            let frame = frame.with_context(|| format!("{left} calls have no answer"))?;
            let frame = frame.reader()?;
            if frame.u16(0) != RETURN {
                continue;
            }
            let (status, question) = (frame.u16(1), frame.u32(1));
            let first = answered.get_mut(question as usize);
            let first = first.with_context(|| format!("an answer to question {question}"))?;
            ensure!(!*first, "two answers to question {question}");
            *first = true;
            left -= 1;
            if status == 0 {
                let bytes = frame.pointer(0).structure()?.pointer(0).data()?.len();
                ensure!(bytes == ANSWER_BYTES as usize, "an answer of {bytes} bytes");
            } else {
                let overloaded = status == ErrorKind::Overloaded as u16;
                ensure!(overloaded, "a call failed with error {status}");
            }
        }
        Ok(())
    }
}

fn hello() -> anyhow::Result<Vec<u8>> {
    let mut writer = Writer::new(FRAME_BYTES_MAX);
    let hello = writer.structure(Slot::ROOT, 4, 2);
    writer.set_u16(hello, 1, VERSION);
    writer.set_u16(hello, 2, VERSION);
    writer.set_u16(hello, 3, ANY_SHARD);
    // Nobody else at this node says that it is the node with this number.
    writer.set_u64(hello, 1, u64::from(std::process::id()));
    writer.set_u32(hello, 6, 1);
    writer.text(hello.slot(0), "stopped");
    writer.text(hello.slot(1), "bench");
    let (hello, _) = writer.finish()?;
    Ok([MAGIC.as_slice(), &hello].concat())
}

fn call(question: u32, object: Uid) -> anyhow::Result<Vec<u8>> {
    let mut writer = Writer::new(FRAME_BYTES_MAX);
    let invoke = writer.structure(Slot::ROOT, 5, 2);
    writer.set_u16(invoke, 0, INVOKE);
    writer.set_u32(invoke, 1, question);
    writer.set_u64(invoke, 1, object.node.0);
    writer.set_u64(invoke, 2, object.local);
    writer.set_u64(invoke, 3, cell::CLASS.0);
    writer.set_u16(invoke, 16, FILL);
    let parameters = writer.structure(invoke.slot(0), 1, 1);
    writer.set_u32(parameters, 0, ANSWER_BYTES);
    let (call, _) = writer.finish()?;
    Ok(call)
}

async fn read_frame(stream: &mut BufReader<TcpStream>) -> anyhow::Result<Message> {
    let mut frame = vec![0; HEAD_BYTES];
    stream.read_exact(&mut frame).await?;
    let (segments, words) = (stream_u32(&frame, 0), stream_u32(&frame, 4));
    let bytes = words as usize * 8;
    let fits = segments == 0 && bytes <= FRAME_BYTES_MAX;
    ensure!(fits, "a frame of {words} words in {segments} more segments");
    frame.resize(HEAD_BYTES + bytes, 0);
    stream.read_exact(&mut frame[HEAD_BYTES..]).await?;
    Ok(Message::from_framed(frame.into(), Vec::new())?)
}

fn stream_u32(frame: &[u8], at: usize) -> u32 {
    let bytes = frame[at..at + 4].try_into();
    u32::from_le_bytes(bytes.expect("four bytes"))
}
