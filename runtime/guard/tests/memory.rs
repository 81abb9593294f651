//! What hostile connections cost in memory, measured on the whole process.
//!
//! One test, so that nothing else allocates meanwhile. Numbers are those of the attacks which took
//! plain capnp-rpc to gigabytes, scaled down to seconds.

mod common;

use std::rc::Rc;
use std::time::{Duration, Instant};

use common::raw::{self, On};
use common::{
    CHILD, ECHO, PENDING, Served, Toy, eventually, on_local_set, plain_client, send_text, text,
};
use partha_guard::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

const MIB: usize = 1 << 20;

/// Resident memory of this process; none where the system does not say.
fn resident_bytes() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: usize = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * 4_096)
}

/// Writes what `message` makes until the other end closes or `count` are written.
async fn flood(stream: &mut DuplexStream, count: u32, message: impl Fn(u32) -> Vec<u8>) -> u32 {
    for question in 1..=count {
        if stream.write_all(&message(question)).await.is_err() {
            return question;
        }
    }
    count
}

/// One connection whose replies are read, and flooded; the number of messages it took.
async fn flood_one(toy: &Rc<Toy>, count: u32, message: impl Fn(u32) -> Vec<u8>) -> u32 {
    let (near, far) = duplex(16 << 10);
    let served = Served::new(far, Limits::default(), toy);
    let (mut reader, writer) = tokio::io::split(near);
    let drain = tokio::task::spawn_local(async move {
        let mut bytes = [0; 16 << 10];
        while matches!(reader.read(&mut bytes).await, Ok(1..)) {}
    });
    let mut writer = writer;
    let mut taken = count;
    let _ = writer.write_all(&raw::bootstrap(0)).await;
    for question in 1..=count {
        if writer.write_all(&message(question)).await.is_err() {
            taken = question;
            break;
        }
    }
    let _ = writer.shutdown().await;
    served.end().await;
    drop(writer);
    drain.await.unwrap();
    taken
}

/// Connections that send `bytes` and then nothing; they must all be gone in the end.
async fn stall(toy: &Rc<Toy>, count: usize, limits: &Limits, bytes: &[u8], mid: &mut impl FnMut()) {
    let bytes: Rc<[u8]> = bytes.into();
    let mut ends = Vec::new();
    for _ in 0..count {
        let (mut near, far) = duplex(1 << 10);
        let served = Served::new(far, limits.clone(), toy);
        let bytes = Rc::clone(&bytes);
        // The writer must not wait for an end that has stopped reading.
        let writing = tokio::task::spawn_local(async move {
            raw::write(&mut near, &bytes).await;
            raw::abort_reason(&mut near).await;
        });
        ends.push((served, writing));
    }
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
    mid();
    for (served, writing) in ends {
        assert!(
            served.end().await.is_some(),
            "a connection that stalls is cut"
        );
        writing.await.unwrap();
    }
}

#[test]
fn attacks_cost_little_memory() {
    if resident_bytes().is_none() {
        println!("skipped: /proc/self/statm not readable");
        return;
    }
    on_local_set(async {
        let honest = Toy::new();
        let (near, far) = duplex(16 << 10);
        let _served = Served::new(far, Limits::default(), &honest);
        let (client, _task) = plain_client(near);
        for _ in 0..100 {
            assert!(text(send_text(&client, ECHO, "warm")).await.is_ok());
        }
        let start = resident_bytes().unwrap();
        let mut report = Vec::new();
        let mut grown = |what: &str, most: usize| {
            let now = resident_bytes().unwrap().saturating_sub(start);
            report.push(format!("{what}: {} KiB", now / 1_024));
            assert!(
                now < most,
                "{what}: resident memory grew by {} KiB",
                now / 1_024
            );
        };
        let toy = Toy::new();
        let quick = Limits {
            frame_ms_max: 300,
            handshake_ms_max: 300,
            ..Limits::default()
        };

        // 200 headers that claim 64 MiB; 200 that claim the largest message and stop.
        let claim = |words: u32| [0_u32.to_le_bytes(), words.to_le_bytes()].concat();
        stall(&toy, 200, &quick, &claim(8 << 20), &mut || {
            grown("claims of 64 MiB", 16 * MIB)
        })
        .await;
        stall(&toy, 200, &quick, &claim(131_072), &mut || {
            grown("claims of 1 MiB", 16 * MIB)
        })
        .await;
        // Half of a message that is too large.
        let mut half = claim(8 << 20);
        half.resize(MIB, 0);
        stall(&toy, 20, &quick, &half, &mut || {
            grown("half messages", 16 * MIB)
        })
        .await;
        // Single bytes.
        stall(&toy, 500, &quick, &[0], &mut || {
            grown("single bytes", 16 * MIB)
        })
        .await;

        let calls = flood_one(&toy, 20_000, |q| {
            raw::call(q, On::Export(0), PENDING, &[], "")
        })
        .await;
        assert!(calls < 20_000, "cut at the limit of open questions");
        grown("pending calls", 24 * MIB);
        let calls = flood_one(&toy, 20_000, |q| {
            let call = raw::call(q, On::Export(0), PENDING, &[], "");
            [call, raw::finish(q, true)].concat()
        })
        .await;
        assert_eq!(calls, 20_000, "cancelled calls are no offence");
        grown("cancelled calls", 24 * MIB);
        let calls = flood_one(&toy, 20_000, raw::bootstrap).await;
        assert!(calls < 20_000, "cut at the limit of bootstraps");
        let calls = flood_one(&toy, 20_000, |q| {
            let call = raw::call(q, On::Export(0), CHILD, &[], "");
            [call, raw::finish(q, false)].concat()
        })
        .await;
        assert!(calls < 20_000, "cut at the limit of exports");
        grown("exported objects", 24 * MIB);

        // Replies that are never read.
        let (mut near, far) = duplex(16 << 10);
        let served = Served::new(far, Limits::default(), &toy);
        near.write_all(&raw::bootstrap(0)).await.unwrap();
        let unread = flood(&mut near, 100_000, |q| {
            raw::call(q, On::Export(0), ECHO, &[], "a reply that nobody reads")
        });
        let unread = tokio::time::timeout(Duration::from_secs(2), unread).await;
        grown("replies never read", 32 * MIB);
        assert!(
            unread.is_err() || served.task.is_finished(),
            "not all was taken"
        );
        drop((near, served.end().await));

        // Idle connections, one bootstrap each.
        let before = resident_bytes().unwrap();
        let mut idle = Vec::new();
        for _ in 0..2_000 {
            let (mut near, far) = duplex(512);
            let served = Served::new(far, Limits::default(), &toy);
            near.write_all(&raw::bootstrap(0)).await.unwrap();
            idle.push((near, served));
        }
        for (near, _) in &mut idle {
            assert_eq!(raw::read_kind(near).await.as_deref(), Some("return 0"));
        }
        let each = resident_bytes().unwrap().saturating_sub(before) / idle.len();
        let start = Instant::now();
        assert!(text(send_text(&client, ECHO, "still here")).await.is_ok());
        assert!(start.elapsed() < Duration::from_secs(1));
        drop(idle);
        eventually("all objects are gone", || {
            toy.live.get() == 0 && toy.servants.get() == 0
        })
        .await;
        println!("{}\nidle connection: {each} bytes", report.join("\n"));
        assert!(each < 20 << 10, "an idle connection takes {each} bytes");
    });
}
