//! The floor between two processes: frames over tokio's TCP, and nothing else.
//!
//! A frame is a length (u32), a slot (u32) and the argument (u64), little-endian. Either end
//! parses all frames a read brought and answers them with one write; the client keeps its calls
//! in an array and needs no task, channel or table for each. No library can do better on the same
//! runtime, so this says what is left to gain.

use anyhow::{Context as _, ensure};
use bytes::{Buf as _, BufMut as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::load::{Load, Measurement, Recorder};

const LENGTH_BYTES: usize = 4;
const BODY_BYTES: usize = 12;
const BUFFER_BYTES: usize = 64 * 1024;

/// Answers each frame with itself until the client goes.
pub(crate) async fn serve(mut stream: TcpStream) -> anyhow::Result<()> {
    let mut input = BytesMut::with_capacity(BUFFER_BYTES);
    let mut output = BytesMut::with_capacity(BUFFER_BYTES);
    while stream.read_buf(&mut input).await? > 0 {
        while let Some((slot, n)) = take_frame(&mut input)? {
            put_frame(&mut output, slot, n);
        }
        stream.write_all(&output).await?;
        output.clear();
        input.reserve(BUFFER_BYTES);
    }
    Ok(())
}

/// Keeps the load's number of frames under way.
pub(crate) async fn drive(mut stream: TcpStream, load: Load) -> anyhow::Result<Measurement> {
    let recorder = Recorder::new(load);
    let mut input = BytesMut::with_capacity(BUFFER_BYTES);
    let mut output = BytesMut::with_capacity(BUFFER_BYTES);
    let mut calls = Vec::new();
    for slot in 0..u32::try_from(load.outstanding).context("too many calls at once")? {
        calls.push((recorder.begin(), u64::from(slot)));
        put_frame(&mut output, slot, u64::from(slot));
    }
    let mut under_way = load.outstanding;
    while under_way > 0 {
        stream.write_all(&output).await?;
        output.clear();
        input.reserve(BUFFER_BYTES);
        ensure!(
            stream.read_buf(&mut input).await? > 0,
            "the server closed the connection"
        );
        while let Some((slot, answer)) = take_frame(&mut input)? {
            let (begun, n) = calls
                .get_mut(slot as usize)
                .context("an answer to no call")?;
            ensure!(answer == *n, "asked {n}, answered {answer}");
            if recorder.end(*begun) {
                (*begun, *n) = (recorder.begin(), *n + load.outstanding as u64);
                put_frame(&mut output, slot, *n);
            } else {
                under_way -= 1;
            }
        }
    }
    recorder.measurement()
}

fn put_frame(output: &mut BytesMut, slot: u32, n: u64) {
    output.put_u32_le(BODY_BYTES as u32);
    output.put_u32_le(slot);
    output.put_u64_le(n);
}

fn take_frame(input: &mut BytesMut) -> anyhow::Result<Option<(u32, u64)>> {
    if input.len() < LENGTH_BYTES + BODY_BYTES {
        return Ok(None);
    }
    let length = input.get_u32_le();
    ensure!(
        length == BODY_BYTES as u32,
        "a frame of {length} bytes, expected {BODY_BYTES}"
    );
    Ok(Some((input.get_u32_le(), input.get_u64_le())))
}
